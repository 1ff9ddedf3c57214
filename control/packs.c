/*
 * Garbage: live packs without a live record are condemned (logged), then a node deletes them from
 * the pool and says so (logged). A pack that cannot be deleted is passed over. A node that still
 * reads by an old map meets ENOENT and fetches the map again.
 */
#include "control/gc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Between two looks for packs without a live record. */
#define GC_INTERVAL_MS        10000
#define GC_DELETE_DEADLINE_MS 120000

/* Requests to delete of which nothing comes; then the rest is left to the next run. */
#define GC_IDLE_MAX 2

/* --- which packs --- */

static bool collect(void *arg, const struct state_pack *p)
{
    struct gc *g = arg;

    if (p->state != g->want || (p->state == PACK_LIVE && p->live_records > 0))
        return true;
    if (g->n == g->size) {
        size_t size = g->size ? g->size * 2 : 64;
        uint64_t *packs = realloc(g->packs, size * sizeof(*packs));
        g->packs = packs ? packs : g->packs;
        uint64_t *sizes = realloc(g->sizes, size * sizeof(*sizes));
        g->sizes = sizes ? sizes : g->sizes;
        if (!packs || !sizes) {
            g->rc = -ENOMEM;
            return false;
        }
        g->size = size;
    }
    g->sizes[g->n] = p->size;
    g->packs[g->n++] = p->id;
    return g->n < NODE_BATCH_MAX;
}

static int gather(struct gc *g, enum pack_state want, uint64_t after)
{
    g->n = 0;
    g->want = want;
    int before = g->rc;
    g->rc = 0;
    int rc = state_packs(g->c->state, after, collect, g);
    rc = rc < 0 ? rc : g->rc;
    g->rc = before;
    star__pack_refs__init(&g->body);
    g->body.n_pack = g->n;
    g->body.pack = g->packs;
    return rc;
}

struct condemned {
    struct gc *g;
    size_t at, n;
};

static bool keep_condemned(void *arg, const struct state_pack *p)
{
    struct condemned *d = arg;
    struct gc *g = d->g;

    while (d->at < g->n && g->packs[d->at] < p->id)
        d->at++;
    if (d->at < g->n && g->packs[d->at] == p->id && p->state == PACK_CONDEMNED) {
        g->sizes[d->n] = p->size;
        g->packs[d->n++] = p->id;
    }
    return d->at < g->n;
}

/* What of the batch the state calls condemned stays in it. */
static int only_condemned(struct gc *g)
{
    struct condemned d = {.g = g};
    int rc = g->n > 0 ? state_packs(g->c->state, g->packs[0] - 1, keep_condemned, &d) : 0;

    g->n = g->body.n_pack = d.n;
    return rc;
}

/* --- the end --- */

static void gc_run(struct centre *c, struct op *ops);

/* One event for as long as it is the same packs. */
static void tell_stuck(struct centre *c, const struct gc *g)
{
    if (g->stuck > 0 && (g->stuck != c->gc_stuck || g->first_stuck != c->gc_first_stuck))
        events_add(&c->events, "gc",
                   "%" PRIu64 " packs cannot be deleted from the pool, the first is pack %" PRIu64
                   ": %s",
                   g->stuck, g->first_stuck, strerror(-g->rc));
    c->gc_stuck = g->stuck;
    c->gc_first_stuck = g->first_stuck;
}

static void tell_done(struct centre *c, const struct gc *g)
{
    const struct gc_counts *n = &g->counts;

    if (n->rewritten > 0 || (!g->own && n->deleted > 0))
        events_add(&c->events, "gc",
                   "%" PRIu64 " packs rewritten (%" PRIu64 " bytes moved), %" PRIu64
                   " deleted (%" PRIu64 " bytes freed)",
                   n->rewritten, n->moved, n->deleted, n->freed);
}

static bool worth_telling(const struct gc *g)
{
    return !g->own || g->counts.deleted > 0 || g->counts.records > 0;
}

const struct gc_counts *gc_show(const struct centre *c)
{
    return c->gc && worth_telling(c->gc) ? &c->gc->counts : &c->gc_counts;
}

static void gc_release(struct gc *g)
{
    gc_move_free(g);
    free(g->packs);
    free(g->sizes);
    free(g);
}

void gc_free(struct centre *c)
{
    if (c->gc)
        gc_release(c->gc);
    c->gc = NULL;
    free(c->gc_bad);
}

void gc_end(struct gc *g, int status)
{
    struct centre *c = g->c;
    struct op *op, *waiting = c->gc_waiting;

    status = status < 0 ? status : g->rc;
    tell_stuck(c, g);
    tell_done(c, g);
    if (worth_telling(g))
        c->gc_counts = g->counts;
    c->gc = NULL;
    c->gc_waiting = NULL;
    while ((op = g->ops)) {
        g->ops = op->wait_next;
        op->wait_next = NULL;
        if (g->stuck > 0)
            op_error(op, status, "pack %" PRIu64 " cannot be deleted from the pool: %s",
                     g->first_stuck, strerror(-status));
        else if (status < 0)
            op_error(op, status, "packs could not be deleted from the pool: %s", strerror(-status));
        else if (g->move_rc < 0)
            op_error(op, g->move_rc, "not all packs could be rewritten: %s", g->detail);
        else
            op_reply(op, 0, NULL);
    }
    gc_release(g);
    if (waiting)
        gc_run(c, waiting); /* what they mean may be newer than what this run has seen */
}

/* --- deleting --- */

static void on_deleted(void *arg, const struct message *reply)
{
    struct gc *g = arg;
    size_t asked = g->n;
    uint64_t bytes = 0;

    if (g->c->stopping) {
        gc_end(g, -ESHUTDOWN);
        return;
    }
    g->after = g->packs[asked - 1];
    for (size_t n = 0; n < asked; n++)
        bytes += g->sizes[n];
    int rc = only_condemned(g);
    for (size_t n = 0; n < g->n; n++)
        bytes -= g->sizes[n];
    g->counts.deleted += asked - g->n;
    g->counts.freed += bytes;
    if (g->n > 0) {
        g->first_stuck = g->stuck ? g->first_stuck : g->packs[0];
        g->stuck += g->n;
        g->rc = reply->status < 0 ? reply->status : -EIO;
    }
    g->idle = g->n == asked ? g->idle + 1 : 0;
    if (rc < 0)
        gc_end(g, rc);
    else if (!g->condemning && g->idle < GC_IDLE_MAX)
        gc_leftovers(g);
    else if (g->condemning && g->idle > 0)
        gc_end(g, 0); /* nothing goes: the next run finds them */
    else
        gc_condemn(g);
}

/* One that can use the pool, if there is one; but a full pool is an error too, and only deleting
 * ends it. */
struct node *gc_node(struct centre *c)
{
    struct node *n, *any = NULL;

    for (n = c->nodes; n; n = n->hh.next) {
        if (n->peer && n->pool_error[0] == '\0')
            return n;
        any = n->peer ? n : any;
    }
    return any;
}

static void gc_delete(struct gc *g)
{
    struct node *n = gc_node(g->c);

    if (!n || peer_request(n->peer, STAR__MSG_TYPE__DELETE_PACKS, &g->body.base,
                           GC_DELETE_DEADLINE_MS, on_deleted, g) < 0)
        gc_end(g, -EAGAIN);
}

/* What an earlier run could not delete. */
void gc_leftovers(struct gc *g)
{
    int rc = gather(g, PACK_CONDEMNED, g->after);

    if (rc < 0)
        gc_end(g, rc);
    else if (g->n > 0)
        gc_delete(g);
    else
        gc_condemn(g);
}

static void on_condemned(void *arg, int status, const struct state_result *r)
{
    struct gc *g = arg;

    int rc = status < 0 ? status : r->status;

    if (rc == 0)
        rc = only_condemned(g);
    if (rc < 0 || g->n == 0)
        gc_end(g, rc);
    else
        gc_delete(g);
}

void gc_condemn(struct gc *g)
{
    g->condemning = true;
    g->idle = 0;
    int rc = gather(g, PACK_LIVE, 0);
    if (rc == 0 && g->n > 0)
        rc = centre_submit(g->c, STAR__LOG_TYPE__LOG_CONDEMN, &g->body.base, CONSENSUS_NOW,
                           on_condemned, g);
    if (rc < 0)
        gc_end(g, rc);
    else if (g->n == 0)
        gc_move(g);
}

/* --- the beginning --- */

static void on_reaped(void *arg, int status, const struct state_result *r)
{
    struct gc *g = arg;

    (void)r;
    if (status < 0)
        gc_end(g, status);
    else
        gc_leftovers(g); /* then condemn and delete, until nothing is left */
}

/* Files that were just deleted count: their reaps go first, and an entry behind them says when they
 * are applied. */
static void gc_begin(struct gc *g)
{
    struct centre *c = g->c;
    size_t before;

    do {
        before = c->reap_n;
        reap_submit(c);
    } while (c->reap_n > 0 && c->reap_n < before);
    star__pack_refs__init(&g->body);
    int rc =
        centre_submit(c, STAR__LOG_TYPE__LOG_CONDEMN, &g->body.base, CONSENSUS_NOW, on_reaped, g);
    if (rc < 0)
        gc_end(g, rc);
}

static void gc_run(struct centre *c, struct op *ops)
{
    struct gc *g = calloc(1, sizeof(*g));

    if (!g) {
        while (ops) {
            struct op *next = ops->wait_next;
            ops->wait_next = NULL;
            op_reply(ops, -ENOMEM, NULL);
            ops = next;
        }
        return;
    }
    g->c = c;
    g->ops = ops;
    g->own = ops == NULL;
    for (struct op *op = ops; op; op = op->wait_next)
        g->reseal |= op->reseal;
    g->begun_ms = c->now;
    c->gc = g;
    if (!g->own)
        c->gc_bad_n = 0; /* they may have been mended */
    if (ops)
        gc_begin(g);
    else
        gc_leftovers(g);
}

void gc_start(struct op *op, bool reseal)
{
    struct centre *c = op->c;

    if (reseal && !c->options->keys) {
        op_error(op, -EOPNOTSUPP, "this cloud is not sealed: there is nothing to seal anew");
        return;
    }
    op->reseal = reseal;
    if (!c->gc) {
        gc_run(c, op);
        return;
    }
    LL_PREPEND2(c->gc_waiting, op, wait_next);
}

void gc_tick(struct centre *c, int64_t now)
{
    struct gc *g = c->gc;

    if (g && g->wait_ms != 0 && now >= g->wait_ms) {
        g->wait_ms = 0;
        g->then(g);
        return;
    }
    if (!c->serving || g || now - c->gc_ms < GC_INTERVAL_MS)
        return;
    c->gc_ms = now;
    gc_run(c, NULL);
}
