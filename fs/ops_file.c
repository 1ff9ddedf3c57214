/* Reading, seeking, flush and fsync. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/answer.h"
#include "fs/control_files.h"
#include "fs/data.h"
#include "fs/ops.h"
#include "fs/pending.h"
#include "fs/straight_write.h"

/* --- read --- */

static void on_read(struct kreq *q, const struct message *reply)
{
    if (!pending_remove(q)) {
        kreq_free(q);
        return;
    }
    if (reply->status < 0) {
        kreq_end(q, reply->status);
        return;
    }
    size_t size = reply->payload_len < q->length ? reply->payload_len : q->length;
    fuse_reply_buf(q->req, (const char *)reply->payload, size);
    kreq_free(q);
}

void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, req, ino);

    if (!q)
        return;
    q->fh = fi->fh;
    q->offset = (uint64_t)off;
    q->length = size < FRAME_PAYLOAD_MAX ? size : FRAME_PAYLOAD_MAX;
    if (fh_flags(fi->fh) & FH_CONTROL) {
        control_read(q);
        return;
    }
    int rc = fh_check(w, fi->fh);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    q->type = STAR__MSG_TYPE__READ;
    pending_add(q);
    data_ask(q, on_read);
}

/* --- seek --- */

static void on_seek(struct kreq *q, const struct message *reply)
{
    int status;
    Star__SeekReply *r = kreq_unpack(reply, &star__seek_reply__descriptor, &status);

    if (!r) {
        kreq_end(q, status);
        return;
    }
    fuse_reply_lseek(q->req, (off_t)r->offset);
    star__seek_reply__free_unpacked(r, NULL);
    kreq_free(q);
}

void fs_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, req, ino);

    if (!q)
        return;
    int rc = fh_check(w, fi->fh);
    if (rc == 0 &&
        ((whence != SEEK_DATA && whence != SEEK_HOLE) || (fh_flags(fi->fh) & FH_CONTROL)))
        rc = -EINVAL;
    if (rc == 0 && off < 0)
        rc = -ENXIO;
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    q->type = STAR__MSG_TYPE__SEEK;
    q->offset = (uint64_t)off;
    q->hole = whence == SEEK_HOLE;
    data_ask(q, on_seek);
}

/* --- flush --- */

/* What could not be written to the pool is said at close, too, if nobody has heard it yet. */
static bool flush_lost(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);

    if (!q)
        return true;
    q->fh = fi->fh;
    int rc = straight_lost(q);
    if (rc == 0)
        q->req = NULL;
    kreq_end(q, rc);
    return rc < 0;
}

static void flush_control(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);

    if (!q)
        return;
    q->fh = fi->fh;
    control_flush(q);
}

/* Called at each close(): only POSIX locks end here. */
void fs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);

    if (fh_flags(fi->fh) & FH_CONTROL) {
        flush_control(req, ino, fi);
        return;
    }
    struct inode *i = inode_lock(&w->inodes, ino);
    bool locks = i && i->had_locks, lost = i && i->straight_error;

    if (i)
        inode_unlock(&w->inodes, i);
    if (lost && flush_lost(req, ino, fi))
        return;
    if (!locks || fh_check(w, fi->fh) < 0) {
        fuse_reply_err(req, 0);
        return;
    }
    struct kreq *q = kreq_new(w, req, ino);
    if (q)
        lock_close_owner(q, fi->lock_owner);
}

/* --- fsync: the node, the centre, and what went wrong since --- */

/* Each handle hears once of writes that may be lost. */
static int take_error(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);
    int rc = 0;

    if (!i)
        return 0;
    struct handle *h = inode_handle(i, q->fh);
    if (h && h->errors_seen != i->errors) {
        h->errors_seen = i->errors;
        rc = -EIO;
    }
    inode_unlock(&q->w->inodes, i);
    return rc;
}

static void fsync_end(struct kreq *q, int status)
{
    int lost = take_error(q);

    q->synced(q, status < 0 ? status : lost);
}

static void on_logged(struct kreq *q, const struct message *reply)
{
    struct inode *i = reply->status >= 0 ? inode_lock(&q->w->inodes, q->ino) : NULL;

    if (i) {
        if (i->logged_version < q->version)
            i->logged_version = q->version;
        inode_unlock(&q->w->inodes, i);
    }
    fsync_end(q, reply->status);
}

static void log_attrs(struct kreq *q, Star__HomeAttrs *a)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);
    bool known = false;

    if (i) {
        known =
            i->logged_version >= a->version; /* not attr: the centre may only have heard of it */
        inode_unlock(&q->w->inodes, i);
    }
    if (known) {
        fsync_end(q, 0);
        return;
    }
    q->version = a->version;
    kreq_ask(q, STAR__MSG_TYPE__SYNC_ATTRS, &a->base, on_logged);
}

/* The node has it all on stable storage, or has lost something. */
static void note_fsync(struct kreq *q, const Star__WriteReply *r, int status)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (!i)
        return;
    if (status == -EIO) {
        i->errors++;
        i->unsynced = 0;
    } else if (r && i->write_count == q->write_count) {
        i->unsynced = 0;
    }
    if (r && r->attrs)
        inode_note_home(i, r->attrs);
    inode_unlock(&q->w->inodes, i);
}

static void on_fsync(struct kreq *q, const struct message *reply)
{
    int status;
    Star__WriteReply *r = kreq_unpack(reply, &star__write_reply__descriptor, &status);

    note_fsync(q, r, status);
    if (r && r->attrs)
        log_attrs(q, r->attrs);
    else
        fsync_end(q, status);
    if (r)
        star__write_reply__free_unpacked(r, NULL);
}

static void fsync_home(struct kreq *q);

/* All that was acknowledged is in the pool and in the log. */
static void straight_ended(void *arg, int status)
{
    fsync_end(arg, status);
}

static void straight_synced(void *arg, int status)
{
    struct kreq *q = arg;

    /* It may have ended before it began: then a node has what was written. */
    if (status < 0 || straight_is_on(q->w, q->ino))
        fsync_end(q, status);
    else
        fsync_home(q);
}

/* Too many of them: the next ones go to a node. */
static bool syncs_too_often(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);
    bool often = i && i->straight && straight_watch_sync(&i->watch);

    if (i)
        inode_unlock(&q->w->inodes, i);
    return often;
}

static void fsync_node(void *arg)
{
    struct kreq *q = arg;
    bool end = syncs_too_often(q);

    if (straight_sync(q->w, q->ino, end, false, end ? straight_ended : straight_synced, q) != 0)
        fsync_home(q);
}

static void fsync_home(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);
    /* Never written, or not by us: all there is lies in the log and in the pool. */
    bool homeless =
        i && i->located && (i->ticket.home_epoch == 0 || (i->direct && i->unsynced == 0));

    if (i)
        inode_unlock(&q->w->inodes, i);
    if (homeless) {
        fsync_end(q, 0);
        return;
    }
    q->type = STAR__MSG_TYPE__FSYNC;
    data_ask(q, on_fsync);
}

void fsync_begin(struct kreq *q, bool datasync)
{
    struct worker *w = q->w;
    struct inode_waiter *wait = NULL;

    q->datasync = datasync;
    q->payload_len = 0; /* a write's */
    /* msync ends here: what the other mounts still have of the pages that were written back must be
     * gone. */
    struct inode *i = inode_lock(&w->inodes, q->ino);
    bool pending = i && i->invalidates > 0;
    if (pending)
        wait = malloc(sizeof(*wait));
    if (wait) {
        *wait = (struct inode_waiter){.next = i->waiters, .fn = fsync_node, .arg = q};
        i->waiters = wait;
    }
    if (i)
        inode_unlock(&w->inodes, i);
    if (!pending)
        fsync_node(q);
    else if (!wait)
        q->synced(q, -ENOMEM);
}

void fs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct worker *w = fuse_req_userdata(req);
    struct kreq *q = kreq_new(w, req, ino);

    if (!q)
        return;
    q->fh = fi->fh;
    q->synced = kreq_end;
    int rc = fh_check(w, fi->fh);
    if (rc < 0 || (fh_flags(fi->fh) & FH_CONTROL))
        kreq_end(q, fh_flags(fi->fh) & FH_CONTROL ? 0 : rc);
    else
        fsync_begin(q, datasync);
}
