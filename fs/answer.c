#include "fs/answer.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "fs/dir_memory.h"
#include "fs/leases.h"

int kanswer_take(struct kreq *q, const Star__Attr *a, Star__Lease lease, bool referenced,
                 struct fuse_entry_param *entry)
{
    struct worker *w = q->w;
    struct attr attr;

    if (!a || a->ino == 0)
        return -EPROTO;
    attr_from_star(&attr, a);
    memset(entry, 0, sizeof(*entry));
    entry->ino = a->ino;
    if (is_control(a->ino)) {
        entry->attr = attr.st;
        return 0;
    }
    struct inode *i = inode_lock_make(&w->inodes, a->ino);
    if (!i)
        return -ENOMEM;
    inode_note_attr(i, a);
    if (leases_take(q, i, lease) != STAR__LEASE__LEASE_NONE)
        entry->attr_timeout = i->changing ? 0 : LEASED_TIMEOUT;
    if (i->attr_known && i->recalls == 0)
        attr = i->attr; /* perhaps newer than the answer */
    else
        i->attr_known = false;
    i->attr_leased = i->attr_known && entry->attr_timeout > 0;
    inode_merge(i, &attr);
    entry->attr = attr.st;
    if (referenced)
        i->nlookup++;
    inode_unlock(&w->inodes, i);
    return 0;
}

void kanswer_forget(struct worker *w, uint64_t ino, uint64_t count)
{
    struct inode *i = is_control(ino) ? NULL : inode_lock(&w->inodes, ino);

    if (!i)
        return;
    i->nlookup -= count < i->nlookup ? count : i->nlookup;
    inode_unlock(&w->inodes, i);
}

void kanswer_changed(struct worker *w, uint64_t ino)
{
    struct inode *i = inode_lock(&w->inodes, ino);

    if (!i)
        return;
    i->attr_known = false;
    i->attr_leased = false;
    i->no_capability = false;
    i->no_privileges = false;
    inode_unlock(&w->inodes, i);
}

static void kanswer_negative(struct kreq *q, uint64_t dir, bool entry_lease)
{
    struct fuse_entry_param e = {.entry_timeout = leases_take_entry(q, dir, entry_lease)};

    if (e.entry_timeout > 0) {
        fuse_reply_entry(q->req, &e);
        kreq_free(q);
    } else {
        kreq_end(q, -ENOENT);
    }
}

void kanswer_entry(struct kreq *q, uint64_t dir, const Star__EntryReply *r)
{
    struct fuse_entry_param e;

    if (!r->attr) {
        kanswer_negative(q, dir, r->entry_lease);
        return;
    }
    int rc = kanswer_take(q, r->attr, r->lease, true, &e);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    if (r->fresh && S_ISDIR(e.attr.st_mode))
        dir_made(q, e.ino);
    if (!is_control(e.ino))
        e.entry_timeout = leases_take_entry(q, dir, r->entry_lease);
    if (fuse_reply_entry(q->req, &e) < 0)
        kanswer_forget(q->w, e.ino, 1);
    kreq_free(q);
}

void kanswer_on_entry(struct kreq *q, const struct message *reply)
{
    int status;
    Star__EntryReply *r = kreq_unpack(reply, &star__entry_reply__descriptor, &status);

    if (!r) {
        kreq_end(q, status);
        return;
    }
    if (r->parent)
        dir_changed(q, q->ino, r->parent, r->parent_lease);
    kanswer_entry(q, q->ino, r);
    star__entry_reply__free_unpacked(r, NULL);
}

int kanswer_open(fuse_req_t req, uint64_t fh, uint32_t fopen_flags)
{
    struct fuse_open_out out = {.fh = fh, .open_flags = fopen_flags};

    return fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

static void split_timeout(double timeout, uint64_t *sec, uint32_t *nsec)
{
    *sec = (uint64_t)timeout;
    *nsec = (uint32_t)((timeout - (double)*sec) * 1e9);
}

static void fill_attr(struct fuse_attr *to, const struct stat *st)
{
    to->ino = st->st_ino;
    to->size = (uint64_t)st->st_size;
    to->blocks = (uint64_t)st->st_blocks;
    to->atime = (uint64_t)st->st_atim.tv_sec;
    to->mtime = (uint64_t)st->st_mtim.tv_sec;
    to->ctime = (uint64_t)st->st_ctim.tv_sec;
    to->atimensec = (uint32_t)st->st_atim.tv_nsec;
    to->mtimensec = (uint32_t)st->st_mtim.tv_nsec;
    to->ctimensec = (uint32_t)st->st_ctim.tv_nsec;
    to->mode = st->st_mode;
    to->nlink = (uint32_t)st->st_nlink;
    to->uid = st->st_uid;
    to->gid = st->st_gid;
    to->rdev = (uint32_t)st->st_rdev;
    to->blksize = (uint32_t)st->st_blksize;
}

int kanswer_create(fuse_req_t req, const struct fuse_entry_param *e, uint64_t fh,
                   uint32_t fopen_flags)
{
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out = {.open = {.fh = fh, .open_flags = fopen_flags}};

    out.entry.nodeid = e->ino;
    split_timeout(e->entry_timeout, &out.entry.entry_valid, &out.entry.entry_valid_nsec);
    split_timeout(e->attr_timeout, &out.entry.attr_valid, &out.entry.attr_valid_nsec);
    fill_attr(&out.entry.attr, &e->attr);
    return fuse_reply_buf(req, (const char *)&out, sizeof(out));
}
