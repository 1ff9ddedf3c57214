/* Nodes that leave for good: released (drained before), or forgotten (given up with what only they
 * have). */
#include "control/centre.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/wire/log.h"

/* A node empties its store before it ends, but answers before that. */
#define LEAVE_DEADLINE_MS 30000

/* --- what only it has --- */

struct search {
    struct centre *c;
    uint32_t node;
    struct losses *losses;
    int rc;
};

static int losses_add(struct losses *l, uint64_t ino, uint64_t bytes)
{
    if (l->n == l->size) {
        size_t size = l->size ? l->size * 2 : 64;
        uint64_t *inos = realloc(l->ino, size * sizeof(*inos));
        if (inos)
            l->ino = inos;
        uint64_t *counts = realloc(l->bytes, size * sizeof(*counts));
        if (counts)
            l->bytes = counts;
        if (!inos || !counts)
            return -ENOMEM;
        l->size = size;
    }
    l->ino[l->n] = ino;
    l->bytes[l->n++] = bytes;
    return 0;
}

struct staged {
    uint32_t node;
    uint64_t bytes;
};

static bool staged_there(void *arg, const struct state_copy_line *line)
{
    struct staged *s = arg;

    if (line->node == s->node)
        s->bytes = line->staged;
    return true;
}

/* The table says what is staged. It may be some 100 ms behind: then the log, or what a mount has
 * heard, knows a version of which the pool has no cut. */
static bool look(void *arg, const struct inode *i)
{
    struct search *s = arg;
    struct staged there = {.node = s->node};

    if (!S_ISREG(i->mode) || i->home != s->node)
        return true;
    s->rc = state_copies(s->c->state, i->ino, 0, 0, staged_there, &there);
    if (s->rc < 0)
        return false;
    struct live *l = live_find(s->c, i->ino);
    bool heard =
        l && l->have_home && l->home.home_epoch == i->home_epoch && l->home.version > i->version;
    uint64_t version = heard ? l->home.version : i->version;
    uint64_t size = heard ? l->home.size : i->size;
    bool newer = version > i->cut_version && (size > 0 || i->cut_size > 0);
    if (there.bytes > 0 || newer)
        s->rc = losses_add(s->losses, i->ino, there.bytes);
    return s->rc == 0;
}

int losses_find(struct centre *c, const struct node *n, struct losses *l)
{
    struct search s = {.c = c, .node = n->id, .losses = l};
    int rc = state_inodes(c->state, 0, look, &s);

    return rc < 0 ? rc : s.rc;
}

void losses_free(struct losses *l)
{
    free(l->ino);
    free(l->bytes);
    *l = (struct losses){0};
}

/* Events are a ring of bounded length; the log has all of them. */
static void losses_say(struct centre *c, const struct node *n, const struct losses *l)
{
    char path[EVENT_LINE_MAX];

    for (size_t k = 0; k < l->n; k++) {
        if (state_path(c->state, l->ino[k], path, sizeof(path) - 128) < 0)
            continue;
        log_warning("lost with node %s: %s", n->name, path);
        events_add(&c->events, "lost",
                   "%s: %" PRIu64 " bytes were staged only at the forgotten node", path,
                   l->bytes[k]);
    }
}

/* --- the node is no more --- */

static void go(struct op *op, struct node *n, op_done_fn done)
{
    Star__LogNode body;

    node_entry(n, "gone", &body);
    op_submit_own(op, STAR__LOG_TYPE__LOG_NODE, &body.base, done);
}

static void on_gone(struct op *op)
{
    struct centre *c = op->c;
    struct live *l, *tmp;

    nodes_load(c);
    HASH_ITER (hh, c->lives, l, tmp)
        if (l->home_unknown || l->have_home)
            home_caught_up(c, l->ino);
}

/* --- release --- */

static void on_released(struct op *op, const struct state_result *r)
{
    struct node *n = node_find(op->c, op->node);

    if (r->status < 0) {
        op_refuse(op, r);
        return;
    }
    on_gone(op);
    if (n)
        events_add(&op->c->events, "node-released", "%s has left, with nothing left behind",
                   n->name);
    op_reply(op, 0, NULL);
}

static void on_left(void *arg, const struct message *reply)
{
    op_answered(arg, reply->status);
}

static void left(struct op *op)
{
    struct node *n = node_find(op->c, op->node);

    if (!n || op->status < 0)
        op_error(op, op->status < 0 ? op->status : -ENOENT,
                 "node %s is drained, but does not leave: %s; release it again", n ? n->name : "?",
                 strerror(op->status < 0 ? -op->status : ENOENT));
    else
        go(op, n, on_released);
}

void node_let_go(struct op *op, struct node *n)
{
    Star__Empty body = STAR__EMPTY__INIT;
    struct losses l = {0};
    char path[512];

    op->node = n->id;
    int rc = losses_find(op->c, n, &l);
    if (rc == 0 && l.n > 0) {
        state_path(op->c->state, l.ino[0], path, sizeof(path));
        op_error(op, -EBUSY, "node %s has the newest of %zu files still, of %.100s for one",
                 n->name, l.n, path);
        losses_free(&l);
        return;
    }
    losses_free(&l);
    if (rc == 0)
        rc = n->peer ? peer_request(n->peer, STAR__MSG_TYPE__LEAVE, &body.base, LEAVE_DEADLINE_MS,
                                    on_left, op)
                     : -ENOTCONN;
    if (rc == 0)
        op->pending++;
    else
        op->status = rc;
    op_wait(op, left);
}

/* --- forget --- */

static void on_forgotten(struct op *op, const struct state_result *r)
{
    struct node *n = node_find(op->c, op->node);
    struct losses *l = op->data;

    if (r->status < 0) {
        op_refuse(op, r);
        losses_free(l);
        return;
    }
    on_gone(op);
    if (n) {
        losses_say(op->c, n, l);
        events_add(&op->c->events, "node-forgotten", "%s; files that lost data: %zu", n->name,
                   l->n);
    }
    losses_free(l);
    op_reply(op, 0, NULL);
}

static void forget_recalled(struct op *op)
{
    struct node *n = node_find(op->c, op->node);

    if (!n || n->peer || op->status < 0) {
        op_error(op, op->status < 0 ? op->status : -EBUSY,
                 "node %s came back, or not everybody could be told", n ? n->name : "?");
        return;
    }
    free(op->data);
    op->data = calloc(1, sizeof(struct losses));
    int rc = op->data ? losses_find(op->c, n, op->data) : -ENOMEM;
    if (rc < 0) {
        if (op->data)
            losses_free(op->data);
        op_error(op, rc, "what node %s alone has cannot be told: %s", n->name, strerror(-rc));
        return;
    }
    go(op, n, on_forgotten);
}

static void forget_again(struct op *op)
{
    struct node *n = node_find(op->c, op->node);

    if (n)
        node_forget(op, n);
    else
        op_error(op, -ENOENT, "there is no such node any more");
}

/* Files that have their home there fall back to what the pool holds: nobody may go on with what he
 * remembers. The node may live and only be cut off: it is waited for as long as it may serve
 * without us (node_fence), so that it acknowledges nothing that is lost thereby. */
void node_forget(struct op *op, struct node *n)
{
    struct centre *c = op->c;
    struct session *asker = op->session;
    struct live *l, *tmp;
    struct inode i;

    op->node = n->id;
    if (strcmp(n->state, "gone") == 0) {
        op_error(op, -ENOENT, "node %s is gone already", n->name);
        return;
    }
    if (n->peer) {
        op_error(op, -EBUSY, "node %s is here: release it, or stop it first", n->name);
        return;
    }
    if (!n->lost && node_awaited(op, n->id, forget_again))
        return;
    op->stops_leases = true;
    c->lease_stops++;
    op->session = NULL; /* it is recalled like all others */
    HASH_ITER (hh, c->lives, l, tmp)
        if (l->holders && state_inode(c->state, l->ino, &i) == 0 && i.home == n->id)
            recall_all(op, l->ino);
    op->session = asker;
    op_wait(op, forget_recalled);
}
