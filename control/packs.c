/*
 * Garbage: live packs without a live record are condemned (logged), then a node deletes them from
 * the pool and says so (logged). A node that still reads by an old map meets ENOENT and fetches the
 * map again.
 */
#include "control/centre.h"

#include <errno.h>
#include <stdlib.h>

/* Between two looks for packs without a live record. */
#define GC_INTERVAL_MS        10000
#define GC_DELETE_DEADLINE_MS 120000

struct gc {
    struct centre *c;
    struct op *op;
    Star__PackRefs body;
    uint64_t *packs;
    size_t n, size;
    enum pack_state want;
    int rc;
};

static bool collect(void *arg, const struct state_pack *p)
{
    struct gc *g = arg;

    if (p->state != g->want || (p->state == PACK_LIVE && p->live_records > 0))
        return true;
    if (g->n == g->size) {
        size_t size = g->size ? g->size * 2 : 64;
        uint64_t *grown = realloc(g->packs, size * sizeof(*grown));
        if (!grown) {
            g->rc = -ENOMEM;
            return false;
        }
        g->packs = grown;
        g->size = size;
    }
    g->packs[g->n++] = p->id;
    return g->n < NODE_BATCH_MAX;
}

static int gather(struct gc *g, enum pack_state want)
{
    g->n = 0;
    g->want = want;
    int rc = state_packs(g->c->state, 0, collect, g);
    star__pack_refs__init(&g->body);
    g->body.n_pack = g->n;
    g->body.pack = g->packs;
    return rc < 0 ? rc : g->rc;
}

static void gc_end(struct gc *g, int status)
{
    struct centre *c = g->c;

    c->gc_running = false;
    if (g->op && status < 0)
        op_error(g->op, status, "packs could not be deleted from the pool; see events");
    else if (g->op)
        op_reply(g->op, 0, NULL);
    free(g->packs);
    free(g);
}

static void gc_delete(struct gc *g);

static void on_deleted(void *arg, const struct message *reply)
{
    struct gc *g = arg;

    if (reply->status < 0 || g->c->stopping) {
        gc_end(g, reply->status < 0 ? reply->status : -ESHUTDOWN);
        return;
    }
    gc_delete(g); /* more of them, or none */
}

/* One that can use the pool, if there is one; but a full pool is an error too, and only deleting
 * ends it. */
static struct node *any_node(struct centre *c)
{
    struct node *n, *any = NULL;

    for (n = c->nodes; n; n = n->hh.next) {
        if (n->peer && n->pool_error[0] == '\0')
            return n;
        any = n->peer ? n : any;
    }
    return any;
}

static void gc_condemn(struct gc *g);

static void gc_delete(struct gc *g)
{
    uint64_t before = g->n ? g->packs[0] : 0;
    size_t count = g->n;
    bool deleting = g->want == PACK_CONDEMNED;
    int rc = gather(g, PACK_CONDEMNED);

    if (rc < 0) {
        gc_end(g, rc);
        return;
    }
    if (g->n == 0) {
        gc_condemn(g);
        return;
    }
    if (deleting && count == g->n && before == g->packs[0]) {
        gc_end(g, -EIO); /* the node said done, but did not say which */
        return;
    }
    struct node *n = any_node(g->c);
    if (!n || peer_request(n->peer, STAR__MSG_TYPE__DELETE_PACKS, &g->body.base,
                           GC_DELETE_DEADLINE_MS, on_deleted, g) < 0)
        gc_end(g, -EAGAIN);
}

static void on_condemned(void *arg, int status, const struct state_result *r)
{
    struct gc *g = arg;

    if (status < 0 || r->status < 0)
        gc_end(g, status < 0 ? status : r->status);
    else
        gc_delete(g);
}

static void gc_condemn(struct gc *g)
{
    int rc = gather(g, PACK_LIVE);

    if (rc == 0 && g->n > 0)
        rc = centre_submit(g->c, STAR__LOG_TYPE__LOG_CONDEMN, &g->body.base, CONSENSUS_NOW,
                           on_condemned, g);
    if (rc < 0 || g->n == 0)
        gc_end(g, rc);
}

void gc_start(struct op *op)
{
    struct centre *c = op->c;
    struct gc *g = calloc(1, sizeof(*g));

    if (c->gc_running) {
        free(g);
        op_error(op, -EBUSY, "gc is running already");
        return;
    }
    if (!g) {
        op_reply(op, -ENOMEM, NULL);
        return;
    }
    g->c = c;
    g->op = op;
    c->gc_running = true;
    gc_delete(g); /* what an earlier run left, then condemn, then delete, until nothing is left */
}

void gc_tick(struct centre *c, int64_t now)
{
    if (!c->serving || c->gc_running || now - c->gc_ms < GC_INTERVAL_MS)
        return;
    c->gc_ms = now;
    struct op *op = op_new(c, NULL, NULL, NULL, NULL);
    if (op)
        gc_start(op);
}
