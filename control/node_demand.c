#include "control/node_demand.h"

/* Nodes on their way, filled one after the other; more are not looked at in one plan. */
#define BINS_MAX 256
/* A start takes some seconds; after a few the cause is not one that passes in a moment. */
#define BACK_OFF_MS     2000u
#define BACK_OFF_MAX_MS 60000u

struct bin {
    uint64_t milli, memory;
    bool used;
};

struct packing {
    const struct node_demand_limits *limits;
    struct bin bins[BINS_MAX];
    uint32_t n, most; /* most: with all that may be started */
};

static bool offer_takes(const struct node_demand_limits *l, const struct job_place_need *need)
{
    return need->node == 0 && need->milli_cpus <= l->milli_cpus && need->memory <= l->memory;
}

static bool on_its_way(const struct node_demand_node *n)
{
    return n->life == NODE_DEMAND_WAITS || n->life == NODE_DEMAND_STARTS;
}

/* How many of them no node that is in use can ever take. */
static uint32_t hopeless(const struct node_demand_node *nodes, size_t n,
                         const struct node_demand_wait *w)
{
    uint32_t could = 0;

    for (size_t k = 0; k < n; k++)
        could += nodes[k].life == NODE_DEMAND_HERE && nodes[k].room.milli_cpus > 0 &&
                 job_place_ever(&nodes[k].room, &w->need);
    if (!w->copies)
        return could > 0 ? 0 : w->runs;
    uint32_t all = w->runs + w->apart, lack = could < all ? all - could : 0;
    return lack < w->runs ? lack : w->runs;
}

/* How many of `runs` the bin takes. */
static uint32_t fill(struct bin *b, const struct node_demand_wait *w, uint32_t runs)
{
    uint32_t taken = 0, most = w->copies ? 1 : runs;

    while (taken < most && taken < runs && w->need.milli_cpus <= b->milli &&
           w->need.memory <= b->memory) {
        b->milli -= w->need.milli_cpus;
        b->memory -= w->need.memory;
        taken++;
        if (w->need.milli_cpus == 0 && w->need.memory == 0)
            taken = most;
    }
    b->used |= taken > 0;
    return taken;
}

static void pack(struct packing *p, const struct node_demand_wait *w, uint32_t left)
{
    for (uint32_t k = 0; left > 0; k++) {
        if (k == p->n) {
            if (p->n == p->most)
                return;
            p->bins[p->n++] =
                (struct bin){.milli = p->limits->milli_cpus, .memory = p->limits->memory};
        }
        left -= fill(&p->bins[k], w, left);
    }
}

static bool could_take_one(const struct node_demand_node *n, const struct node_demand_wait *waits,
                           size_t waits_n)
{
    for (size_t k = 0; k < waits_n; k++)
        if ((waits[k].need.node == 0 || waits[k].need.node == n->room.id) &&
            job_place_ever(&n->room, &waits[k].need))
            return true;
    return false;
}

static enum node_demand_act act_on(const struct node_demand_limits *l,
                                   const struct node_demand_node *n,
                                   const struct node_demand_wait *waits, size_t waits_n)
{
    if (!n->on_demand)
        return NODE_DEMAND_KEEP;
    if (n->life == NODE_DEMAND_DRAINED && n->room.runs == 0)
        return NODE_DEMAND_RELEASE;
    if (n->life != NODE_DEMAND_HERE || !n->drains)
        return NODE_DEMAND_KEEP;
    if (n->full_ms > 0 && n->full_ms >= l->full_ms)
        return NODE_DEMAND_DRAIN;
    if (n->room.runs == 0 && n->idle_ms > 0 && n->idle_ms >= l->idle_ms &&
        !could_take_one(n, waits, waits_n))
        return NODE_DEMAND_DRAIN;
    return NODE_DEMAND_KEEP;
}

/* Those that wait for their start, beyond what is needed. The newest first. */
static void cancel(const struct packing *p, uint32_t coming, const struct node_demand_node *nodes,
                   size_t n, enum node_demand_act *acts)
{
    uint32_t needed = 0;

    for (uint32_t k = 0; k < p->n; k++)
        needed += p->bins[k].used;
    for (size_t k = n; k > 0 && coming > needed; k--)
        if (nodes[k - 1].on_demand && nodes[k - 1].life == NODE_DEMAND_WAITS) {
            acts[k - 1] = NODE_DEMAND_CANCEL;
            coming--;
        }
}

uint32_t node_demand_plan(const struct node_demand_limits *limits,
                          const struct node_demand_node *nodes, size_t n,
                          const struct node_demand_wait *waits, size_t waits_n,
                          enum node_demand_act *acts)
{
    struct packing p = {.limits = limits};
    uint32_t coming = 0;

    for (size_t k = 0; k < n; k++) {
        acts[k] = act_on(limits, &nodes[k], waits, waits_n);
        coming += on_its_way(&nodes[k]);
    }
    if (coming > BINS_MAX)
        coming = BINS_MAX;
    p.n = p.most = coming;
    if (limits->starts && limits->nodes_max > n)
        p.most += limits->nodes_max - (uint32_t)n;
    if (p.most > BINS_MAX)
        p.most = BINS_MAX;
    for (uint32_t k = 0; k < coming; k++)
        p.bins[k] = (struct bin){.milli = limits->milli_cpus, .memory = limits->memory};
    for (size_t k = 0; k < waits_n; k++)
        if (offer_takes(limits, &waits[k].need))
            pack(&p, &waits[k],
                 waits[k].ms >= limits->wait_ms ? waits[k].runs : hopeless(nodes, n, &waits[k]));
    cancel(&p, coming, nodes, n, acts);
    return p.n - coming;
}

uint32_t node_demand_more(const struct node_demand_limits *limits,
                          const struct node_demand_node *nodes, size_t n,
                          const struct job_place_need *need)
{
    uint32_t more = 0, stay = 0;

    if (!offer_takes(limits, need))
        return 0;
    for (size_t k = 0; k < n; k++) {
        bool leaves = nodes[k].on_demand &&
                      (nodes[k].life == NODE_DEMAND_LEAVES || nodes[k].life == NODE_DEMAND_DRAINED);
        more += on_its_way(&nodes[k]);
        stay += !leaves; /* it makes room for another one */
    }
    return limits->starts && limits->nodes_max > stay ? more + limits->nodes_max - stay : more;
}

uint64_t node_demand_back_off_ms(uint32_t failed)
{
    uint64_t ms = BACK_OFF_MS;

    while (failed-- > 1 && ms < BACK_OFF_MAX_MS)
        ms *= 2;
    return ms < BACK_OFF_MAX_MS ? ms : BACK_OFF_MAX_MS;
}
