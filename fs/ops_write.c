/*
 * Writing: the home first; then, unless this mount alone holds the file, the pages of all others go
 * (INVALIDATE); then the kernel hears that it is done.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

#include "fs/answer.h"
#include "fs/centre.h"
#include "fs/control_files.h"
#include "fs/data.h"
#include "fs/leases.h"
#include "fs/ops.h"
#include "fs/pending.h"
#include "fs/straight_write.h"

/* Smaller payloads are copied; larger ones keep the buffer that the kernel filled (a page fault
 * costs about a copy of that size). */
#define COPY_BELOW (64u << 10)

/* --- the end --- */

static void answer_count(struct kreq *q)
{
    if (!q->req)
        ; /* a page written back was answered before */
    else if (q->type == STAR__MSG_TYPE__FALLOCATE)
        fuse_reply_err(q->req, 0);
    else
        fuse_reply_write(q->req, q->length);
    kreq_free(q);
}

static void write_synced(struct kreq *q, int status)
{
    q->type = STAR__MSG_TYPE__WRITE;
    if (status < 0)
        kreq_end(q, status);
    else
        answer_count(q);
}

/* The kernel syncs by itself only what goes through its pages. */
static void sync_or_answer(struct kreq *q)
{
    q->synced = write_synced;
    if (q->sync)
        fsync_begin(q, q->datasync);
    else
        answer_count(q);
}

static void pages_gone(void *arg)
{
    struct kreq *q = arg;
    struct inode *i = q->pages_left ? inode_lock(&q->w->inodes, q->ino) : NULL;

    if (i) {
        if (i->pages_taken < q->pages_left)
            i->pages_taken = q->pages_left;
        inode_unlock(&q->w->inodes, i);
    }
    sync_or_answer(q);
}

/* This mount's own kernel may hold pages beside a write that went past them. Those that closed
 * handles left are all taken away, once. A page written back is itself such a page: the kernel
 * keeps it locked until the answer, so it must not be taken away first. */
static bool has_pages_beside(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);
    bool past = q->req && !q->cached_page && !(fh_flags(q->fh) & FH_CACHED);
    bool left = i && past && i->pages_left != i->pages_taken;
    bool beside = left || (i && past && i->cached > 0);

    q->pages_left = left ? i->pages_left : 0;
    if (i)
        inode_unlock(&q->w->inodes, i);
    return beside;
}

static void finish(struct kreq *q)
{
    struct worker *w = q->w;
    bool beside = has_pages_beside(q);
    struct notify_job *job = beside ? notify_job_new(q->ino, pages_gone, q) : NULL;
    if (beside && !job) {
        kreq_end(q, -ENOMEM);
        return;
    }
    if (!job) {
        sync_or_answer(q);
        return;
    }
    job->pages = true;
    job->offset = q->pages_left ? 0 : q->offset;
    job->length = q->pages_left ? 0 : q->length; /* 0: to the end */
    if (!notify_queue(w->notify, job)) {
        free(job);
        kreq_end(q, -ENOMEM);
    }
}

/* --- others' pages --- */

/* Runs those who wait for the last INVALIDATE of the inode. */
static void invalidate_ended(struct worker *w, uint64_t ino, bool failed)
{
    struct inode *i = inode_lock(&w->inodes, ino);
    struct inode_waiter *waiters = NULL;

    if (!i)
        return;
    i->errors += failed;
    if (--i->invalidates == 0) {
        waiters = i->waiters;
        i->waiters = NULL;
    }
    inode_unlock(&w->inodes, i);
    while (waiters) {
        struct inode_waiter *one = waiters;
        waiters = one->next;
        one->fn(one->arg);
        free(one);
    }
}

static void on_invalidated(struct kreq *q, const struct message *reply)
{
    if (!q->req) {
        invalidate_ended(q->w, q->ino, reply->status < 0);
        kreq_free(q);
    } else if (reply->status < 0) {
        kreq_end(q, reply->status);
    } else {
        finish(q);
    }
}

static void invalidate_others(struct kreq *q, Star__HomeAttrs *attrs)
{
    Star__Invalidate body = STAR__INVALIDATE__INIT;

    body.ino = q->ino;
    body.offset = q->offset;
    body.length = q->length;
    body.attrs = attrs;
    kreq_ask(q, STAR__MSG_TYPE__INVALIDATE, &body.base, on_invalidated);
}

/* A page written back (mmap): the kernel is answered now. Were it to wait, the recall that made it
 * write the page back could wait for a mount that waits for us. fsync waits for these. */
static void answer_before(struct kreq *q)
{
    fuse_reply_write(q->req, q->length);
    q->req = NULL;
}

/* --- the home's answer --- */

struct outcome {
    bool shared; /* others may hold pages of it */
    bool lost;
};

static struct outcome note_written(struct kreq *q, const Star__WriteReply *r)
{
    struct outcome o = {.shared = true};
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (!i)
        return o;
    if (r->attrs)
        inode_note_home(i, r->attrs);
    if (i->unsynced && r->instance && i->unsynced != r->instance)
        i->errors++; /* the node that had the earlier ones went down: fsync says so */
    i->unsynced = r->instance;
    i->write_count++;
    o.shared = !leases_write_is_private(q->w, i);
    if (o.shared && q->cached_page)
        i->invalidates++;
    inode_unlock(&q->w->inodes, i);
    return o;
}

/* A node that is short of room zeroes a large range part by part: each is a step forward, and the
 * wait for room and for the node begins anew. The whole range is invalidated in the end. */
static bool goes_on(struct kreq *q, const Star__WriteReply *r)
{
    bool zeroes =
        q->type == STAR__MSG_TYPE__FALLOCATE && (q->flags & ~(uint32_t)FALLOC_FL_KEEP_SIZE) != 0;

    if (!zeroes || r->written == 0 || r->written >= q->length - q->finished)
        return false;
    q->finished += r->written;
    q->room_until_ms = 0;
    return true;
}

static void on_written(struct kreq *q, const struct message *reply);

/* To a node, or straight to the pool. */
static void send_change(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    q->counted = i != NULL;
    if (i) {
        i->data_changes++;
        if (q->type != STAR__MSG_TYPE__WRITE && q->type != STAR__MSG_TYPE__FALLOCATE)
            i->watch.on = false;
        inode_unlock(&q->w->inodes, i);
    }
    if (q->type != STAR__MSG_TYPE__WRITE || !straight_take(q, on_written))
        data_ask(q, on_written);
}

static void change_ended(struct kreq *q, int status)
{
    struct inode *i = q->counted ? inode_lock(&q->w->inodes, q->ino) : NULL;

    q->counted = false;
    if (!i)
        return;
    i->data_changes--;
    bool nothing = status == -EOPNOTSUPP; /* it was not done, and nobody need care */
    if (q->type == STAR__MSG_TYPE__FALLOCATE && (q->flags != 0 || status < 0) && !nothing)
        i->watch.on = i->watch.on && q->flags == FALLOC_FL_KEEP_SIZE;
    if (q->type == STAR__MSG_TYPE__FALLOCATE && status >= 0 && i->watch.on)
        straight_watch_size(&i->watch, q->offset + q->length);
    inode_unlock(&q->w->inodes, i);
}

static void on_written(struct kreq *q, const struct message *reply)
{
    int status;
    Star__WriteReply *r = kreq_unpack(reply, &star__write_reply__descriptor, &status);

    change_ended(q, status);
    if (q->cached_page)
        pending_remove(q); /* if it was ended, it was not done */
    if (!r) {
        kreq_end(q, status);
        return;
    }
    struct outcome o = note_written(q, r);
    if (goes_on(q, r)) {
        star__write_reply__free_unpacked(r, NULL);
        send_change(q);
        return;
    }
    if (r->written < q->length && q->type != STAR__MSG_TYPE__FALLOCATE)
        q->length = r->written;
    if (q->append)
        q->offset = r->offset;
    if (o.shared && q->cached_page)
        answer_before(q);
    if (o.shared)
        invalidate_others(q, r->attrs);
    else
        finish(q);
    star__write_reply__free_unpacked(r, NULL);
}

/* --- set-user-id bits --- */

static void not_begun(struct kreq *q, int status)
{
    if (q->cached_page)
        pending_remove(q);
    kreq_end(q, status);
}

static void on_killed(struct kreq *q, const struct message *reply)
{
    struct worker *w = q->w;
    int status;
    Star__AttrReply *r = kreq_unpack(reply, &star__attr_reply__descriptor, &status);

    if (!r) {
        not_begun(q, status);
        return;
    }
    struct inode *i = inode_lock(&w->inodes, q->ino);
    if (i) {
        bool same = r->attr && i->attr_known && i->attr.st.st_mode == r->attr->mode;
        if (r->attr)
            inode_note_attr(i, r->attr);
        i->no_privileges = leases_take(q, i, r->lease) != STAR__LEASE__LEASE_NONE;
        inode_unlock(&w->inodes, i);
        if (!same) /* attributes only: this waits for nothing */
            fuse_lowlevel_notify_inval_inode(w->se, q->ino, -1, 0);
    }
    star__attr_reply__free_unpacked(r, NULL);
    send_change(q);
}

static void kill_privileges(struct kreq *q)
{
    Star__SetAttr body = STAR__SET_ATTR__INIT;
    struct head_box box;
    int rc = kreq_head(q, &box);

    if (rc < 0) {
        not_begun(q, rc);
        return;
    }
    body.head = &box.head;
    body.ino = q->ino;
    body.valid = FATTR_KILL_SUIDGID;
    kreq_ask(q, STAR__MSG_TYPE__SETATTR, &body.base, on_killed);
}

/* The kernel marks every write of a process without CAP_FSETID; the centre is asked once under a
 * lease. */
static void start(struct kreq *q)
{
    struct inode *i = q->kill ? inode_lock(&q->w->inodes, q->ino) : NULL;
    bool ask = q->kill && !(i && i->no_privileges);

    if (i)
        inode_unlock(&q->w->inodes, i);
    if (ask)
        kill_privileges(q);
    else
        send_change(q);
}

/* --- write --- */

static int keep_payload(struct kreq *q, const char *buf, size_t size)
{
    q->payload_len = size;
    q->payload = buf;
    if (size >= COPY_BELOW) {
        q->memory = worker_keep_message(q->w);
        q->memory_pooled = q->memory != NULL;
    } else {
        q->memory = malloc(size ? size : 1);
        if (q->memory)
            q->payload = memcpy(q->memory, buf, size);
    }
    return q->memory ? 0 : -ENOMEM;
}

static bool write_kills(struct worker *w)
{
    const struct fuse_in_header *header = worker_message(w);
    const struct fuse_write_in *in = (const void *)(header + 1);

    return w->init.killpriv_v2 && (in->write_flags & FUSE_WRITE_KILL_SUIDGID);
}

/* O_SYNC, O_DSYNC and their like of pwritev2: the kernel puts them into each write's flags. */
static void note_sync(struct kreq *q, bool from_pages)
{
    const struct fuse_in_header *header = worker_message(q->w);
    const struct fuse_write_in *in = (const void *)(header + 1);

    q->sync = (in->flags & O_DSYNC) && !from_pages && !(fh_flags(q->fh) & FH_CACHED);
    q->datasync = (in->flags & O_SYNC) != O_SYNC;
}

/* The end of the file, if nobody else can move it: the kernel lets no other change of its size run
 * beside an append, and the lease keeps other mounts out. Then the home can tell whether it has
 * done this append, and it may be sent again after a node's restart. Where it goes the home decides
 * in any case: the lease may end while it waits there. */
static bool append_is_placed(struct worker *w, uint64_t ino, uint64_t *offset)
{
    struct inode *i = inode_lock(&w->inodes, ino);
    bool known = false;

    if (!i)
        return false;
    if (i->lease == STAR__LEASE__LEASE_WRITE && i->recalls == 0 && i->attr_known &&
        msession_leased(w)) {
        struct attr now = i->attr;
        inode_merge(i, &now);
        *offset = (uint64_t)now.st.st_size;
        known = true;
    }
    inode_unlock(&w->inodes, i);
    return known;
}

void fs_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
              struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, req, ino);

    if (!q)
        return;
    q->fh = fi->fh;
    q->offset = (uint64_t)off;
    q->length = size;
    if (fh_flags(fi->fh) & FH_CONTROL) {
        control_write(q, buf, size);
        return;
    }
    q->kill = write_kills(w);
    note_sync(q, fi->writepage);
    int rc = fh_check(w, fi->fh);
    if (rc == 0)
        rc = straight_lost(q);
    if (rc == 0 && size > FRAME_PAYLOAD_MAX)
        rc = -EIO;
    if (rc == 0)
        rc = keep_payload(q, buf, size);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    q->type = STAR__MSG_TYPE__WRITE;
    q->cached_page = fi->writepage;
    q->append = (fh_flags(fi->fh) & FH_APPEND) && !fi->writepage;
    if (q->cached_page)
        pending_add(q);
    q->placed = q->append && append_is_placed(w, ino, &q->offset);
    start(q);
}

/* --- fallocate, copy --- */

void fs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                  struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, req, ino);

    if (!q)
        return;
    int rc = fh_flags(fi->fh) & FH_CONTROL ? -EOPNOTSUPP : fh_check(w, fi->fh);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    q->type = STAR__MSG_TYPE__FALLOCATE;
    q->fh = fi->fh;
    q->flags = (uint32_t)mode;
    q->offset = (uint64_t)offset;
    q->length = (uint64_t)length;
    q->kill = q->ctx.uid != 0; /* no mark in this message: as if without CAP_FSETID */
    start(q);
}

void fs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                        struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                        struct fuse_file_info *fi_out, size_t len, int flags)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, req, ino_out);

    if (!q)
        return;
    int rc =
        (fh_flags(fi_in->fh) | fh_flags(fi_out->fh)) & FH_CONTROL ? -EXDEV : fh_check(w, fi_in->fh);
    if (rc == 0)
        rc = fh_check(w, fi_out->fh);
    if (rc == 0 && flags != 0)
        rc = -EINVAL;
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    q->type = STAR__MSG_TYPE__COPY_RANGE;
    q->fh = fi_out->fh;
    q->other = ino_in;
    q->other_fh = fi_in->fh;
    q->offset = (uint64_t)off_out;
    q->other_offset = (uint64_t)off_in;
    q->length = len < COPY_RANGE_MAX ? len : COPY_RANGE_MAX;
    q->kill = q->ctx.uid != 0;
    start(q);
}
