/* Directories. They are opened without asking anybody; the listing is cached by the kernel under
 * the lease. */
#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/answer.h"
#include "fs/centre.h"
#include "fs/leases.h"
#include "fs/ops.h"

/* A process takes a part of a listing in within this, however slow the machine is. */
#define LISTING_SETTLED_MS 10000

void fs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);
    struct inode *i = is_control(ino) ? NULL : inode_lock(&w->inodes, ino);
    uint32_t flags = 0;

    (void)fi;
    if (i && i->lease != STAR__LEASE__LEASE_NONE && i->recalls == 0 && msession_leased(w)) {
        flags = FOPEN_CACHE_DIR | (i->listing_stale ? 0 : FOPEN_KEEP_CACHE);
        /* Without KEEP_CACHE the kernel drops what it has; but a reader that began before the
         * recall may still put its part there. */
        if (clock_boot_ms() - i->recalled_ms > LISTING_SETTLED_MS)
            i->listing_stale = false;
    }
    kanswer_open(req, fh_make(w, is_control(ino) ? FH_CONTROL : FH_READS), flags);
    if (i)
        inode_unlock(&w->inodes, i);
}

void fs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino, (void)fi;
    fuse_reply_err(req, 0);
}

/* Every change was in the log before it was answered. */
void fs_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino, (void)datasync, (void)fi;
    fuse_reply_err(req, 0);
}

/* --- listing --- */

struct listing {
    struct kreq *q;
    bool plus;
    double entry_timeout;
    char *buf;
    size_t used;
    uint64_t *taken; /* inodes that gained a reference of the kernel */
    size_t taken_n;
};

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* What a plus entry says beyond the name. ino 0: nothing, the kernel will ask. */
static void fill_plus(struct listing *l, const Star__DirEntry *d, const char *name,
                      struct fuse_entry_param *e)
{
    struct kreq *q = l->q;

    memset(e, 0, sizeof(*e));
    if (d->attr && d->attr->ino == d->ino && !is_dot(name) &&
        kanswer_take(q, d->attr, d->lease, true, e) == 0) {
        if (!is_control(e->ino)) {
            e->entry_timeout = l->entry_timeout;
            l->taken[l->taken_n++] = e->ino;
        }
        return;
    }
    memset(e, 0, sizeof(*e));
    e->attr.st_ino = d->ino;
    e->attr.st_mode = d->type & S_IFMT;
}

/* false: it does not fit any more. */
static bool add_entry(struct listing *l, const Star__DirEntry *d)
{
    char name[256];
    struct fuse_entry_param e;
    struct kreq *q = l->q;
    size_t room = q->size - l->used, size;

    if (d->name.len == 0 || d->name.len > 255 || memchr(d->name.data, '\0', d->name.len))
        return true; /* no such name can exist */
    memcpy(name, d->name.data, d->name.len);
    name[d->name.len] = '\0';
    if (l->plus) {
        if (fuse_add_direntry_plus(q->req, NULL, 0, name, NULL, 0) > room)
            return false;
        fill_plus(l, d, name, &e);
        size = fuse_add_direntry_plus(q->req, l->buf + l->used, room, name, &e, (off_t)d->cookie);
    } else {
        struct stat st = {.st_ino = d->ino, .st_mode = d->type & S_IFMT};
        size = fuse_add_direntry(q->req, l->buf + l->used, room, name, &st, (off_t)d->cookie);
        if (size > room)
            return false;
    }
    l->used += size;
    return true;
}

static void answer_listing(struct kreq *q, const Star__ReadDirReply *r)
{
    struct listing l = {.q = q, .plus = q->plus};

    l.buf = malloc(q->size);
    l.taken = calloc(r->n_entries + 1, sizeof(l.taken[0]));
    if (!l.buf || !l.taken) {
        kreq_end(q, -ENOMEM);
        goto out;
    }
    if (!is_control(q->ino))
        l.entry_timeout = leases_take_listing(q, q->ino, r->entry_lease);
    for (size_t n = 0; n < r->n_entries; n++)
        if (!add_entry(&l, r->entries[n]))
            break;
    if (fuse_reply_buf(q->req, l.buf, l.used) < 0)
        for (size_t n = 0; n < l.taken_n; n++)
            kanswer_forget(q->w, l.taken[n], 1);
    kreq_free(q);
out:
    free(l.buf);
    free(l.taken);
}

static void on_listing(struct kreq *q, const struct message *reply)
{
    int status;
    Star__ReadDirReply *r = kreq_unpack(reply, &star__read_dir_reply__descriptor, &status);

    if (!r) {
        kreq_end(q, status);
        return;
    }
    answer_listing(q, r);
    star__read_dir_reply__free_unpacked(r, NULL);
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);
    Star__ReadDir body = STAR__READ_DIR__INIT;
    Star__Cred cred;

    if (!q)
        return;
    q->size = size;
    q->plus = plus;
    body.ino = ino;
    body.cookie = (uint64_t)off;
    body.max_bytes = (uint32_t)(size > UINT32_MAX ? UINT32_MAX : size);
    body.plus = plus;
    body.cred = kreq_cred_if_squashed(q, &cred);
    kreq_ask(q, is_control(ino) ? STAR__MSG_TYPE__CTL_READDIR : STAR__MSG_TYPE__READDIR, &body.base,
             on_listing);
}

void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)fi;
    read_dir(req, ino, size, off, false);
}

void fs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    (void)fi;
    read_dir(req, ino, size, off, true);
}
