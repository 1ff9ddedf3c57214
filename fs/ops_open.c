/* Opening and closing files. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/wire/stamp.h"
#include "fs/answer.h"
#include "fs/centre.h"
#include "fs/control_files.h"
#include "fs/dir_memory.h"
#include "fs/leases.h"
#include "fs/ops.h"
#include "fs/straight_write.h"

/* A CREATE of a name that is there is asked so often; the pauses grow by 1 ms every so many times.
 */
#define CREATE_TRIES  12
#define CREATE_SLOWER 4

static bool opens_for_writing(uint32_t flags)
{
    return (flags & O_ACCMODE) != O_RDONLY;
}

static uint32_t handle_flags(uint32_t open_flags, bool cached)
{
    uint32_t flags = cached ? FH_CACHED : 0;

    if (opens_for_writing(open_flags))
        flags |= FH_WRITES;
    if ((open_flags & O_ACCMODE) != O_WRONLY)
        flags |= FH_READS;
    if (open_flags & O_APPEND)
        flags |= FH_APPEND;
    return flags;
}

/* --- release --- */

static void send_release(struct kreq *q);

static void on_released(struct kreq *q, const struct message *reply)
{
    if (reply->status < 0 && reply->status != -ESHUTDOWN)
        log_warning("closing inode %llu: %s", (unsigned long long)q->ino, strerror(-reply->status));
    kreq_free(q);
}

static void fill_home(const struct home_attrs *h, uint64_t ino, Star__HomeAttrs *a,
                      Star__Time times[2])
{
    star__home_attrs__init(a);
    times[0] = stamp_of(h->mtime);
    times[1] = stamp_of(h->ctime);
    a->ino = ino;
    a->size = h->size;
    a->mtime = &times[0];
    a->ctime = &times[1];
    a->version = h->version;
    a->home_epoch = h->home_epoch;
    a->node = h->node;
    a->bytes = h->bytes;
}

/* RELEASE has no deadline of its own: as long as the session lives the centre must hear it. */
static void on_release_answer(void *arg, const struct message *reply)
{
    struct kreq *q = arg;

    if (reply->status == -ETIMEDOUT && !atomic_load(&q->w->stopping) &&
        fh_check(q->w, q->fh) == 0) {
        send_release(q);
        return;
    }
    kreq_answered(q);
    on_released(q, reply);
}

/* From here on a flock of another handle is asked for behind it, on the same connection. */
static void release_sent(struct worker *w, uint64_t ino)
{
    struct inode *i = inode_lock(&w->inodes, ino);

    if (!i)
        return;
    i->unlocking -= i->unlocking > 0;
    inode_unlock(&w->inodes, i);
}

static void send_release(struct kreq *q)
{
    struct worker *w = q->w;
    uint64_t ino = q->ino, flock_owner = q->other;
    Star__Release body = STAR__RELEASE__INIT;
    Star__HomeAttrs home;
    Star__Time times[2];

    body.ino = q->ino;
    body.readers = q->fh && !(fh_flags(q->fh) & FH_WRITES) ? 1 : 0;
    body.writers = q->fh && (fh_flags(q->fh) & FH_WRITES) ? 1 : 0;
    body.flock_owner = q->other;
    body.seq = q->seq;
    body.acked = seq_acked(&q->w->centre.seq);
    if (q->memory) {
        fill_home(q->memory, q->ino, &home, times);
        body.attrs = &home;
    }
    int rc = msession_call(q->w, STAR__MSG_TYPE__RELEASE, &body.base, NULL, 0, METADATA_DEADLINE_MS,
                           CLIENT_RESEND, on_release_answer, q, NULL);
    if (rc < 0) {
        kreq_answered(q);
        on_released(q, &(struct message){.kind = FRAME_REPLY, .status = rc});
    }
    if (flock_owner)
        release_sent(w, ino); /* q may be gone */
}

static void release_after_pages(void *arg)
{
    send_release(arg);
}

static void release_after_end(void *arg, int status)
{
    (void)status; /* nobody is left to hear it; the log has the line */
    send_release(arg);
}

/* Takes the handle out of the inode. true: it was the last one, and nobody will recall pages from
 * now on. */
static bool close_handle(struct kreq *q, struct inode *i)
{
    uint32_t flags = fh_flags(q->fh);
    uint32_t *count = flags & FH_WRITES ? &i->writers : &i->readers;

    *count -= *count > 0;
    if (flags & FH_CACHED) {
        i->cached -= i->cached > 0;
        i->pages_left++;
    }
    inode_handle_remove(i, q->fh);
    struct held_lock gone = {
        .owner = q->other, .end = HELD_LOCK_END, .type = F_UNLCK, .flock = true};
    i->unlocking += q->other != 0;
    if (q->other && lock_list_set(&i->locks, &gone) < 0)
        log_warning("no memory to forget a lock on inode %llu", (unsigned long long)i->ino);
    if ((flags & FH_WRITES) && i->home_known) {
        q->memory = malloc(sizeof(i->home)); /* without it the centre asks the home */
        if (q->memory)
            memcpy(q->memory, &i->home, sizeof(i->home));
    }
    if (i->writers == 0 && i->lease == STAR__LEASE__LEASE_WRITE)
        i->lease = STAR__LEASE__LEASE_READ; /* so does the centre */
    return i->readers == 0 && i->writers == 0 && i->lease == STAR__LEASE__LEASE_NONE;
}

/* Without a lease, pages are kept coherent only as long as the centre knows that the file is open
 * here: they go first. */
static void release(struct kreq *q)
{
    struct worker *w = q->w;
    bool bare = false, writes = q->fh && (fh_flags(q->fh) & FH_WRITES);
    uint64_t acked;

    pthread_rwlock_rdlock(&w->centre.opens_lock);
    struct inode *i = inode_lock(&w->inodes, q->ino);
    if (i) {
        bare = close_handle(q, i);
        inode_unlock(&w->inodes, i);
    }
    q->seq = seq_begin(&w->centre.seq, &acked);
    pthread_rwlock_unlock(&w->centre.opens_lock);
    /* The centre counts the writer until all is confirmed. */
    if (writes && straight_sync(w, q->ino, true, false, release_after_end, q) == 0)
        return;
    struct notify_job *job = bare ? notify_job_new(q->ino, release_after_pages, q) : NULL;
    if (job) {
        job->pages = true;
        if (notify_queue(w->notify, job))
            return;
        free(job);
    }
    send_release(q);
}

void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, NULL, ino);
    uint64_t flock_owner = fi->flock_release ? fi->lock_owner : 0;

    fuse_reply_err(req, 0);
    if (!q) {
        log_error("no memory to tell the centre that inode %llu is closed",
                  (unsigned long long)ino);
        return;
    }
    if (fh_flags(fi->fh) & FH_CONTROL) {
        control_release(w, fi->fh);
        kreq_free(q);
        return;
    }
    if (fh_check(w, fi->fh) < 0) {
        kreq_free(q); /* its session is gone, and all that it had open */
        return;
    }
    q->fh = fi->fh;
    q->other = flock_owner;
    release(q);
}

/* --- open --- */

static uint32_t fopen_flags(bool cached)
{
    return cached ? FOPEN_KEEP_CACHE : FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
}

static bool is_new(const struct kreq *q, const Star__OpenReply *r)
{
    return r->attr ? r->attr->size == 0 : (q->flags & O_CREAT) != 0;
}

/* What is written straight to the pool by a handle that cannot read needs no pages: they would be
 * as much memory as the file has bytes, and one more copy of each. */
static bool bypasses_cache(const struct kreq *q, const Star__OpenReply *r)
{
    return r->straight && (q->flags & O_ACCMODE) == O_WRONLY && is_new(q, r);
}

/* An empty file may become a large one. */
static void watch_open(const struct kreq *q, struct inode *i, const Star__OpenReply *r)
{
    /* One block is said where there may be data, and a file of one has hardly any. */
    bool little = is_new(q, r) || (r->attr && r->attr->blocks <= 1);

    if (!opens_for_writing(q->flags))
        return;
    if (!little || i->writers > 1) {
        i->watch.on = false;
        return;
    }
    straight_watch_empty(&i->watch, r->straight || r->no_node);
    i->watch.only = r->no_node;
    i->watch.no_room = r->no_room;
    if (r->attr && r->attr->size > 0)
        straight_watch_size(&i->watch, r->attr->size);
}

/* Takes an OpenReply over; the handle is counted here as it is at the centre. */
static int take_open(struct kreq *q, uint64_t ino, const Star__OpenReply *r, uint32_t *flags)
{
    struct worker *w = q->w;
    struct inode *i = inode_lock_make(&w->inodes, ino);

    if (!i)
        return -ENOMEM;
    if (r->attr)
        inode_note_attr(i, r->attr);
    Star__Lease lease = leases_take(q, i, r->lease);
    bool cached =
        lease != STAR__LEASE__LEASE_NONE && !(q->flags & O_APPEND) && !bypasses_cache(q, r);
    int rc = inode_note_place(i, r);
    q->fh = fh_make(w, handle_flags(q->flags, cached));
    if (rc == 0)
        rc = inode_handle_add(i, q->fh);
    if (opens_for_writing(q->flags))
        i->writers++;
    else
        i->readers++;
    i->cached += cached;
    if (i->recalls > 0)
        i->attr_known = false;
    watch_open(q, i, r);
    inode_unlock(&w->inodes, i);
    *flags = fopen_flags(cached);
    return rc;
}

/* The kernel will not release what it was not given: close it again. */
static void undo_open(struct worker *w, uint64_t ino, uint64_t fh)
{
    struct kreq *q = kreq_new(w, NULL, ino);

    if (!q) {
        log_error("no memory to close inode %llu again", (unsigned long long)ino);
        return;
    }
    q->fh = fh;
    release(q);
}

static void on_open(struct kreq *q, const struct message *reply)
{
    int status;
    uint32_t flags = 0;
    Star__OpenReply *r = kreq_unpack(reply, &star__open_reply__descriptor, &status);

    if (!r) {
        kreq_end(q, status);
        return;
    }
    if (r->address && r->address[0])
        conns_warm(q->w->conns, r->address);
    int rc = take_open(q, q->ino, r, &flags);
    star__open_reply__free_unpacked(r, NULL);
    if (rc == 0)
        rc = kanswer_open(q->req, q->fh, flags);
    else
        fuse_reply_err(q->req, kreq_errno(rc));
    if (rc < 0 && q->fh)
        undo_open(q->w, q->ino, q->fh);
    kreq_free(q);
}

static bool open_kills(struct worker *w)
{
    const struct fuse_in_header *header = worker_message(w);
    const struct fuse_open_in *in = (const void *)(header + 1);

    return w->init.killpriv_v2 && header->len >= sizeof(*header) + sizeof(*in) &&
           (in->open_flags & FUSE_OPEN_KILL_SUIDGID);
}

static void send_open(void *arg, int status)
{
    struct kreq *q = arg;
    Star__Open body = STAR__OPEN__INIT;
    struct head_box box;

    (void)status; /* what was lost others say */
    int rc = kreq_head(q, &box);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    body.head = &box.head;
    body.ino = q->ino;
    body.flags = q->flags;
    body.kill_suidgid = q->kill;
    kreq_ask(q, STAR__MSG_TYPE__OPEN, &body.base, on_open);
}

void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, req, ino);

    if (!q)
        return;
    q->flags = (uint32_t)fi->flags;
    if (is_control(ino)) {
        control_open(q);
        return;
    }
    q->kill = open_kills(w);
    if (!opens_for_writing(q->flags) && !(q->flags & O_TRUNC))
        send_open(q, 0);
    else if (straight_sync(w, ino, true, false, send_open, q) != 0)
        send_open(q, 0);
}

/* --- create --- */

static void note_no_capability(struct kreq *q, uint64_t ino)
{
    struct inode *i = inode_lock(&q->w->inodes, ino);

    if (!i)
        return;
    i->no_capability = i->lease != STAR__LEASE__LEASE_NONE && leases_may_take(q, i);
    inode_unlock(&q->w->inodes, i);
}

static int take_create(struct kreq *q, const Star__EntryReply *r)
{
    struct fuse_entry_param e;
    uint32_t flags = 0;

    if (!r->attr || !r->open || !r->open->ticket)
        return -EPROTO;
    dir_changed(q, q->ino, r->parent, r->parent_lease);
    int rc = kanswer_take(q, r->attr, r->lease, true, &e);
    if (rc < 0)
        return rc;
    if (r->open->address && r->open->address[0])
        conns_warm(q->w->conns, r->open->address);
    rc = take_open(q, e.ino, r->open, &flags);
    if (rc == 0) {
        if (r->fresh)
            note_no_capability(q, e.ino);
        e.entry_timeout = leases_take_entry(q, q->ino, r->entry_lease);
        rc = kanswer_create(q->req, &e, q->fh, flags);
        q->req = NULL;
    }
    if (rc < 0) {
        if (q->fh)
            undo_open(q->w, e.ino, q->fh);
        kanswer_forget(q->w, e.ino, 1);
    }
    return rc;
}

static void send_create(void *arg);

/* Somebody was faster. ESTALE makes the kernel look up again and open what is there, with all its
 * checks; but only once: where the name comes and goes all the time, the application would see the
 * second one. So it is tried here first. */
static int create_again(struct kreq *q)
{
    if (q->attempts++ >= CREATE_TRIES)
        return -ESTALE;
    if (timer_queue_after(q->w->timer, q->attempts / CREATE_SLOWER, send_create, q) < 0)
        return -ESTALE;
    return 0;
}

static void on_created(struct kreq *q, const struct message *reply)
{
    int status;
    Star__EntryReply *r = kreq_unpack(reply, &star__entry_reply__descriptor, &status);

    if (r) {
        status = take_create(q, r);
        star__entry_reply__free_unpacked(r, NULL);
    }
    if (status == -EEXIST && !(q->flags & O_EXCL) && (status = create_again(q)) == 0)
        return;
    kreq_end(q, status);
}

static void send_create(void *arg)
{
    struct kreq *q = arg;
    Star__Make body = STAR__MAKE__INIT;
    struct head_box box;
    int rc = kreq_head(q, &box);

    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    body.head = &box.head;
    body.parent = q->ino;
    body.name = kreq_bytes(q->name);
    body.mode = q->mode;
    body.flags = q->flags;
    kreq_ask(q, STAR__MSG_TYPE__CREATE, &body.base, on_created);
}

void fs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, parent);

    if (!q)
        return;
    q->name = strdup(name);
    if (!q->name || kreq_name_is_control(parent, name)) {
        kreq_end(q, q->name ? -EPERM : -ENOMEM);
        return;
    }
    dir_change_begins(q, parent);
    dir_name_comes(q->w, parent, name);
    q->flags = (uint32_t)fi->flags;
    q->mode = (mode & ~(mode_t)S_IFMT) | S_IFREG;
    send_create(q);
}
