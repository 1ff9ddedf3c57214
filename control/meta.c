/*
 * Meta packs: copies of the state in the pool, from which `umbel rebuild` makes a control directory
 * anew.
 *
 * The centre never touches the pool: a thread makes the copy beside the snapshots, a node fetches
 * it in parts, writes it into packs and says so (META_STORED, logged). One at a time. When: after a
 * flush of everything that was asked for (then the pool holds all there is), and every
 * meta_interval if something was logged since. If it fails that is an event, and the next one
 * comes.
 */
#include "control/centre.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define META_DEADLINE_MS 600000
/* After one that failed. */
#define META_RETRY_MS 60000

struct meta {
    struct centre *c;
    uv_work_t work;
    bool copying;
    struct op *ops;                      /* who waits (list by wait_next) */
    void (*done)(void *arg, int status); /* or NULL */
    void *arg;
    uint64_t count, size;
    int fd;
    int status;
    char path[4096];
    char detail[256];
};

static void meta_end(struct meta *m, int status)
{
    struct centre *c = m->c;
    struct op *op;

    if (status < 0 && !c->stopping)
        events_add(&c->events, "meta", "no copy of the state was put into the pool: %s",
                   m->detail[0] ? m->detail : strerror(-status));
    if (status == 0)
        c->meta_count = consensus_applied(c->log);
    c->meta_next =
        c->now + (status < 0 ? META_RETRY_MS : (int64_t)setting_u64(c, "meta_interval") * 1000);
    c->meta = NULL;
    while ((op = m->ops)) {
        m->ops = op->wait_next;
        op->wait_next = NULL;
        op_answered(op, 0); /* what they asked for is done: this is beside it */
    }
    if (m->fd >= 0)
        close(m->fd);
    if (m->path[0])
        unlink(m->path);
    void (*done)(void *, int) = m->done;
    void *arg = m->arg;
    free(m);
    if (done)
        done(arg, status);
}

/* --- the node --- */

static void on_written(void *arg, const struct message *reply)
{
    struct meta *m = arg;

    if (reply->status < 0) {
        Star__ErrorReply *e =
            (Star__ErrorReply *)frame_unpack(reply, &star__error_reply__descriptor);
        snprintf(m->detail, sizeof(m->detail), "%.250s", e && *e->detail ? e->detail : "");
        if (e)
            star__error_reply__free_unpacked(e, NULL);
    }
    meta_end(m, reply->status);
}

static void offer(struct meta *m)
{
    Star__WriteMeta body = STAR__WRITE_META__INIT;
    struct node *n = gc_node(m->c);

    body.count = m->count;
    body.size = m->size;
    int rc = n ? peer_request(n->peer, STAR__MSG_TYPE__WRITE_META, &body.base, META_DEADLINE_MS,
                              on_written, m)
               : -EAGAIN;
    if (rc < 0)
        meta_end(m, rc);
}

void serve_meta_fetch(struct op *op)
{
    const Star__MetaFetch *q = (const Star__MetaFetch *)op->body;
    struct meta *m = op->c->meta;
    Star__Empty body = STAR__EMPTY__INIT;
    char *part = NULL;
    ssize_t n = 0;
    int rc = 0;

    if (!m || m->copying || m->count != q->count || q->length > FRAME_PAYLOAD_MAX ||
        q->offset > m->size)
        rc = -ESTALE;
    if (rc == 0 && !(part = malloc(FRAME_PAYLOAD_MAX)))
        rc = -ENOMEM;
    if (rc == 0) /* written just now: it comes from memory */
        n = pread(m->fd, part, q->length, (off_t)q->offset);
    if (n < 0)
        rc = -errno;
    if (rc == 0) {
        if (peer_reply(op->peer, &op->request, 0, &body.base, part, (size_t)n) < 0)
            peer_close(op->peer); /* it connects again, and the copy fails */
        op_end(op);
    } else {
        op_error(op, rc, "there is no such part of a copy of the state");
    }
    free(part);
}

/* --- the copy --- */

static void copy_work(uv_work_t *work)
{
    struct meta *m = work->data;
    struct stat st;

    m->status = state_copy(m->c->state, m->path, m->detail);
    if (m->status < 0)
        return;
    m->fd = open(m->path, O_RDONLY | O_CLOEXEC);
    if (m->fd < 0 || fstat(m->fd, &st) != 0)
        m->status = -errno;
    else
        m->size = (uint64_t)st.st_size;
}

static void after_copy(uv_work_t *work, int status)
{
    struct meta *m = work->data;
    struct centre *c = m->c;

    (void)status;
    m->copying = false;
    if (c->stopping) {
        void (*stopped)(struct centre *) = c->meta_stopped;
        meta_end(m, -ESHUTDOWN);
        if (stopped)
            stopped(c);
    } else if (m->status < 0) {
        meta_end(m, m->status);
    } else {
        offer(m);
    }
}

static int meta_begin(struct centre *c, struct op *op)
{
    struct meta *m = calloc(1, sizeof(*m));

    if (!m)
        return -ENOMEM;
    *m = (struct meta){.c = c, .fd = -1, .ops = op, .count = state_last_time_ns(c->state)};
    if (consensus_room(c->log) < 0 || snprintf(m->path, sizeof(m->path), "%s/snapshots/meta",
                                               c->options->dir) >= (int)sizeof(m->path)) {
        free(m);
        return -ENOSPC;
    }
    consensus_commit_turn(c->log);
    m->work.data = m;
    int rc = uv_queue_work(&c->loop, &m->work, copy_work, after_copy);
    if (rc < 0) {
        free(m);
        return -EAGAIN;
    }
    m->copying = true;
    c->meta = m;
    return 0;
}

/* --- when --- */

void meta_after(struct op *op)
{
    struct centre *c = op->c;

    if (c->meta || c->meta_count == consensus_applied(c->log) || c->stopping)
        return; /* one that runs may miss the newest; the interval sees to it */
    if (meta_begin(c, op) == 0)
        op->pending++;
}

int meta_now(struct centre *c, void (*done)(void *arg, int status), void *arg)
{
    int rc = c->meta ? -EBUSY : c->stopping ? -ESHUTDOWN : meta_begin(c, NULL);

    if (rc == 0) {
        c->meta->done = done;
        c->meta->arg = arg;
    }
    return rc;
}

void meta_tick(struct centre *c, int64_t now)
{
    uint64_t interval = setting_u64(c, "meta_interval");

    if (c->meta_next == 0)
        c->meta_next = now + (int64_t)interval * 1000;
    if (!c->serving || c->meta || interval == 0 || now < c->meta_next ||
        c->meta_count == consensus_applied(c->log))
        return;
    if (meta_begin(c, NULL) < 0)
        c->meta_next = now + META_RETRY_MS;
}

void meta_stop(struct centre *c, void (*done)(struct centre *c))
{
    c->meta_stopped = done;
    if (!c->meta || !c->meta->copying)
        done(c);
}

void meta_free(struct centre *c)
{
    if (!c->meta)
        return;
    if (c->meta->fd >= 0)
        close(c->meta->fd);
    unlink(c->meta->path);
    free(c->meta);
    c->meta = NULL;
}
