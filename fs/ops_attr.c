/* Attributes of inodes and of the whole filesystem. */
#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/wire/stamp.h"
#include "fs/answer.h"
#include "fs/centre.h"
#include "fs/dir_memory.h"
#include "fs/leases.h"
#include "fs/ops.h"
#include "fs/straight_write.h"

#define NAME_MAX_BYTES 255
/* The only bits of SetAttr.valid, the kernel's; libfuse's FUSE_SET_ATTR_* have the same values
 * (KILL_SUID stands for both). */
#define VALID_DATA (FATTR_SIZE | FATTR_MTIME | FATTR_MTIME_NOW)
#define VALID_ALL                                                                                  \
    (VALID_DATA | FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_ATIME | FATTR_ATIME_NOW |             \
     FATTR_CTIME | FATTR_KILL_SUIDGID)

/* --- getattr --- */

void attr_remember_root(struct worker *w, const struct stat *st)
{
    pthread_mutex_lock(&w->statfs.lock);
    w->statfs.root = *st;
    w->statfs.root_known = true;
    pthread_mutex_unlock(&w->statfs.lock);
}

static bool answer_root_from_memory(struct kreq *q)
{
    struct worker *w = q->w;
    struct stat st;

    pthread_mutex_lock(&w->statfs.lock);
    bool known = w->statfs.root_known;
    st = w->statfs.root;
    pthread_mutex_unlock(&w->statfs.lock);
    if (known) {
        fuse_reply_attr(q->req, &st, 0);
        kreq_free(q);
    }
    return known;
}

static bool centre_is_away(int status)
{
    return status == -ETIMEDOUT || status == -ESHUTDOWN || status == -ECONNRESET ||
           status == -EBUSY;
}

static void on_attr(struct kreq *q, const struct message *reply)
{
    struct fuse_entry_param e;
    int status;
    Star__AttrReply *r = kreq_unpack(reply, &star__attr_reply__descriptor, &status);

    if (!r) {
        if (q->ino == ROOT_INODE && centre_is_away(status) && answer_root_from_memory(q))
            return;
        kreq_end(q, status);
        return;
    }
    int rc = kanswer_take(q, r->attr, r->lease, false, &e);
    star__attr_reply__free_unpacked(r, NULL);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    if (q->ino == ROOT_INODE)
        attr_remember_root(q->w, &e.attr);
    fuse_reply_attr(q->req, &e.attr, e.attr_timeout);
    kreq_free(q);
}

/* While this mount alone writes the file nobody knows its attributes better. The reply is written
 * with the inode locked: a recall that comes now invalidates it. */
static bool answer_from_lease(struct kreq *q)
{
    struct worker *w = q->w;
    struct inode *i = is_control(q->ino) ? NULL : inode_lock(&w->inodes, q->ino);

    if (!i)
        return false;
    bool ours = i->lease == STAR__LEASE__LEASE_WRITE && i->attr_known && i->recalls == 0 &&
                S_ISREG(i->attr.st.st_mode) && msession_leased(w);
    if (ours) {
        struct attr a = i->attr;
        inode_merge(i, &a);
        fuse_reply_attr(q->req, &a.st, LEASED_TIMEOUT);
        q->req = NULL;
    }
    inode_unlock(&w->inodes, i);
    return ours;
}

void fs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, req, ino);
    Star__Inode body = STAR__INODE__INIT;

    (void)fi;
    if (!q)
        return;
    if (dir_answer_attr(q))
        return;
    if (answer_from_lease(q)) {
        kreq_free(q);
        return;
    }
    bool root = ino == ROOT_INODE;
    if (root && !atomic_load(&w->centre.connected) && answer_root_from_memory(q))
        return;
    body.ino = ino;
    kreq_ask_within(q, STAR__MSG_TYPE__GETATTR, &body.base,
                    root ? NEVER_BLOCK_MS : METADATA_DEADLINE_MS, CLIENT_RESEND, on_attr);
}

/* --- setattr --- */

static void send_setattr(void *arg);

/* A truncation may need room at the home, as a write does. true: it is tried again. */
static bool set_again(struct kreq *q, const struct message *reply)
{
    return reply->status == -EBUSY && (q->flags & FATTR_SIZE) && clock_boot_ms() < q->deadline_ms &&
           !atomic_load(&q->w->stopping) &&
           timer_queue_after(q->w->timer, ROOM_RETRY_MS, send_setattr, q) == 0;
}

static void on_set(struct kreq *q, const struct message *reply)
{
    if (set_again(q, reply))
        return;
    if (reply->status == -EBUSY && (q->flags & FATTR_SIZE)) {
        kreq_end(q, -ENOSPC);
        return;
    }
    if (reply->status < 0) { /* not from memory, as the root's attributes */
        kreq_end(q, reply->status);
        return;
    }
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (i) {
        if (q->flags & FATTR_MODE)
            i->no_privileges = false;
        /* The file may have a home now, which it had not when we asked where to read. */
        if ((q->flags & FATTR_SIZE) && (!i->writers || i->direct))
            i->located = false;
        if (q->flags & FATTR_SIZE) {
            inode_forget_map(i);
            straight_watch_size(&i->watch, (uint64_t)((const struct stat *)q->memory)->st_size);
        }
        inode_unlock(&q->w->inodes, i);
    }
    on_attr(q, reply);
}

static void on_control_attr(struct kreq *q, const struct message *reply)
{
    int status;
    Star__AttrReply *r = kreq_unpack(reply, &star__attr_reply__descriptor, &status);
    struct attr a;

    if (r && !r->attr)
        status = -EPROTO;
    if (status < 0) {
        kreq_end(q, status);
    } else {
        attr_from_star(&a, r->attr);
        fuse_reply_attr(q->req, &a.st, 0);
        kreq_free(q);
    }
    if (r)
        star__attr_reply__free_unpacked(r, NULL);
}

/* `echo x > ctl` truncates first: that means nothing there. Anything else is not for us to change.
 */
static void set_control(struct kreq *q, const struct stat *st, int to_set)
{
    Star__Inode body = STAR__INODE__INIT;

    if ((to_set & FATTR_SIZE) && st->st_size != 0) { /* to 0: a shell's `>`, before its write */
        kreq_end(q, -EINVAL);
        return;
    }
    if (to_set & ~(FATTR_SIZE | FATTR_KILL_SUIDGID | FUSE_SET_ATTR_CTIME | FUSE_SET_ATTR_MTIME |
                   FUSE_SET_ATTR_MTIME_NOW)) {
        kreq_end(q, -EPERM);
        return;
    }
    body.ino = q->ino;
    kreq_ask(q, STAR__MSG_TYPE__GETATTR, &body.base, on_control_attr);
}

static void send_setattr(void *arg)
{
    struct kreq *q = arg;
    const struct stat *st = q->memory;
    Star__SetAttr body = STAR__SET_ATTR__INIT;
    Star__Time atime, mtime;
    struct head_box box;
    int rc = kreq_head(q, &box);

    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    atime = stamp_of(st->st_atim);
    mtime = stamp_of(st->st_mtim);
    body.head = &box.head;
    body.ino = q->ino;
    body.valid = q->flags;
    body.mode = st->st_mode;
    body.uid = st->st_uid;
    body.gid = st->st_gid;
    body.size = (uint64_t)st->st_size;
    body.atime = &atime;
    body.mtime = &mtime;
    kanswer_changed(q->w, q->ino);
    kreq_ask(q, STAR__MSG_TYPE__SETATTR, &body.base, on_set);
}

/* Size and mtime belong to who writes the file: it tells them first. */
static void set_after_end(void *arg, int status)
{
    (void)status;
    send_setattr(arg);
}

void fs_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
                struct fuse_file_info *fi)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);

    if (!q)
        return;
    if (is_control(ino)) {
        set_control(q, st, to_set);
        return;
    }
    int rc = fi ? fh_check(q->w, fi->fh) : 0;
    q->memory = malloc(sizeof(*st));
    if (rc == 0 && !q->memory)
        rc = -ENOMEM;
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    q->flags = (uint32_t)to_set & VALID_ALL;
    if (q->flags == 0) /* chown(-1, -1): the kernel leaves to us what every chown does */
        q->flags = FATTR_KILL_SUIDGID;
    memcpy(q->memory, st, sizeof(*st));
    q->deadline_ms = clock_boot_ms() + ROOM_DEADLINE_MS;
    if (!(q->flags & VALID_DATA) || straight_sync(q->w, ino, true, false, set_after_end, q) != 0)
        send_setattr(q);
}

/* --- statfs --- */

static void fill_statfs(struct statvfs *st, const Star__StatfsReply *r)
{
    unsigned long size = r->block_size ? (unsigned long)r->block_size : 4096;

    *st = (struct statvfs){.f_bsize = size,
                           .f_frsize = size,
                           .f_blocks = r->blocks,
                           .f_bfree = r->free,
                           .f_bavail = r->available,
                           .f_files = r->files,
                           .f_ffree = r->files_free,
                           .f_favail = r->files_free,
                           .f_namemax = NAME_MAX_BYTES};
}

static void answer_statfs(struct kreq *q)
{
    struct statfs_cache *c = &q->w->statfs;

    pthread_mutex_lock(&c->lock);
    struct statvfs st = c->st;
    pthread_mutex_unlock(&c->lock);
    fuse_reply_statfs(q->req, &st);
    kreq_free(q);
}

static void on_statfs(struct kreq *q, const struct message *reply)
{
    struct statfs_cache *c = &q->w->statfs;
    int status;
    Star__StatfsReply *r = kreq_unpack(reply, &star__statfs_reply__descriptor, &status);

    if (r) {
        pthread_mutex_lock(&c->lock);
        fill_statfs(&c->st, r);
        pthread_mutex_unlock(&c->lock);
        star__statfs_reply__free_unpacked(r, NULL);
    } else if (!centre_is_away(status)) {
        kreq_end(q, status);
        return;
    }
    answer_statfs(q);
}

void fs_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, req, ino);
    Star__Inode body = STAR__INODE__INIT;

    if (!q)
        return;
    if (!atomic_load(&w->centre.connected)) {
        answer_statfs(q);
        return;
    }
    body.ino = is_control(ino) || ino == 0 ? ROOT_INODE : ino;
    kreq_ask_within(q, STAR__MSG_TYPE__STATFS, &body.base, NEVER_BLOCK_MS, CLIENT_RESEND,
                    on_statfs);
}

/* --- the start --- */

struct filled {
    struct worker *w;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned left;
    int status;
};

static void filled_one(struct filled *f, int status)
{
    pthread_mutex_lock(&f->lock);
    f->left--;
    if (f->status == 0)
        f->status = status;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void on_first_root(void *arg, const struct message *reply)
{
    struct filled *f = arg;
    int status;
    struct attr a;
    Star__AttrReply *r = kreq_unpack(reply, &star__attr_reply__descriptor, &status);

    if (r && r->attr) {
        attr_from_star(&a, r->attr);
        attr_remember_root(f->w, &a.st);
    } else if (r) {
        status = -EPROTO;
    }
    if (r)
        star__attr_reply__free_unpacked(r, NULL);
    filled_one(f, status);
}

static void on_first_statfs(void *arg, const struct message *reply)
{
    struct filled *f = arg;
    int status;
    Star__StatfsReply *r = kreq_unpack(reply, &star__statfs_reply__descriptor, &status);

    if (r) {
        fill_statfs(&f->w->statfs.st, r);
        star__statfs_reply__free_unpacked(r, NULL);
    }
    filled_one(f, status);
}

int attr_cache_fill(struct worker *w, char detail[256])
{
    struct filled f = {
        .w = w, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .left = 2};
    Star__Inode body = STAR__INODE__INIT;

    body.ino = ROOT_INODE;
    int rc = msession_call(w, STAR__MSG_TYPE__GETATTR, &body.base, NULL, 0, START_DEADLINE_MS,
                           CLIENT_RESEND, on_first_root, &f, NULL);
    if (rc < 0)
        filled_one(&f, rc);
    rc = msession_call(w, STAR__MSG_TYPE__STATFS, &body.base, NULL, 0, START_DEADLINE_MS,
                       CLIENT_RESEND, on_first_statfs, &f, NULL);
    if (rc < 0)
        filled_one(&f, rc);
    pthread_mutex_lock(&f.lock);
    while (f.left > 0)
        pthread_cond_wait(&f.changed, &f.lock); /* the calls have deadlines */
    pthread_mutex_unlock(&f.lock);
    if (f.status < 0)
        snprintf(detail, 256, "the centre does not show the root: %s", strerror(-f.status));
    return f.status;
}
