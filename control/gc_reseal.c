/* gc: the end of a run that seals anew what was sealed under older keys. */
#include "control/gc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Somebody else's copy of the state is waited for. */
#define META_WAIT_MS 1000

uint32_t gc_newest_key(struct gc *g)
{
    const struct control_keys *k = g->c->options->keys;

    return k ? k->newest(k->ctx) : 0;
}

struct old {
    uint32_t newest;
    uint64_t used, metas, allocated;
};

static bool count_old(void *arg, const struct state_pack *p)
{
    struct old *o = arg;

    if (p->generation < o->newest) {
        o->used += p->state == PACK_LIVE || p->state == PACK_META;
        o->metas += p->state == PACK_META;
        o->allocated += p->state == PACK_ALLOCATED;
    }
    return true;
}

static void again(struct gc *g)
{
    g->last_round = true; /* only what the copy has set free is deleted */
    g->condemning = false;
    g->after = 0;
    g->idle = 0;
    gc_leftovers(g);
}

/* Older copies stay, and are counted. */
static void copy_failed(struct gc *g, int status)
{
    snprintf(g->detail, sizeof(g->detail), "no copy of the state was put into the pool: %s",
             strerror(-status));
    g->move_rc = status;
    gc_end(g, 0);
}

static void on_copied(void *arg, int status)
{
    struct gc *g = arg;

    if (g->c->stopping)
        gc_end(g, -ESHUTDOWN);
    else if (status < 0)
        copy_failed(g, status);
    else
        again(g);
}

void gc_reseal_end(struct gc *g)
{
    struct old o = {.newest = gc_newest_key(g)};
    int rc = o.newest ? state_packs(g->c->state, 0, count_old, &o) : 0;

    g->counts.old = o.used;
    g->counts.old_allocated = o.allocated;
    bool late = g->c->now - g->begun_ms > GC_WAIT_MS;
    if (rc < 0 || !g->reseal || o.metas == 0 || g->metas == GC_METAS_MAX || late) {
        gc_end(g, rc);
        return;
    }
    rc = meta_now(g->c, on_copied, g);
    if (rc == 0) {
        g->metas++;
    } else if (rc == -EBUSY) {
        g->wait_ms = g->c->now + META_WAIT_MS;
        g->then = gc_reseal_end;
    } else {
        copy_failed(g, rc);
    }
}
