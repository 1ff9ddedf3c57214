#include "fs/pending.h"

#include <errno.h>

void pending_add(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (!i)
        return;
    q->pending_next = i->pending;
    q->pending_at = &i->pending;
    if (i->pending)
        i->pending->pending_at = &q->pending_next;
    i->pending = q;
    inode_unlock(&q->w->inodes, i);
}

static void unlink_it(struct kreq *q)
{
    if (!q->pending_at)
        return;
    *q->pending_at = q->pending_next;
    if (q->pending_next)
        q->pending_next->pending_at = q->pending_at;
    q->pending_at = NULL;
}

bool pending_remove(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (i) {
        unlink_it(q);
        inode_unlock(&q->w->inodes, i);
    }
    return !q->ended;
}

void pending_interrupt(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (!i)
        return;
    if (q->pending_at && !q->ended) {
        unlink_it(q);
        q->ended = true;
        fuse_req_interrupt_func(q->req, NULL, NULL);
        fuse_reply_err(q->req, EINTR);
        q->req = NULL;
    }
    inode_unlock(&q->w->inodes, i);
}

static bool may_end(const struct kreq *q)
{
    return q->type == STAR__MSG_TYPE__READ || !q->sent;
}

void pending_end(struct worker *w, uint64_t ino)
{
    struct inode *i = inode_lock(&w->inodes, ino);
    unsigned reads = 0, pages = 0;

    if (!i)
        return;
    for (struct kreq *q = i->pending, *next; q; q = next) {
        next = q->pending_next;
        if (!may_end(q))
            continue;
        unlink_it(q);
        q->ended = true;
        fuse_req_interrupt_func(q->req, NULL, NULL); /* what it would call may be freed soon */
        *(q->type == STAR__MSG_TYPE__READ ? &reads : &pages) += 1;
        fuse_reply_err(q->req, EIO);
        q->req = NULL;
    }
    if (pages)
        i->errors++;
    inode_unlock(&w->inodes, i);
    if (reads || pages)
        log_warning("inode %llu: %u reads and %u pages to be written end with EIO: others wait for "
                    "this file, and its node does not answer",
                    (unsigned long long)ino, reads, pages);
}
