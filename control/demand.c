/* Nodes on demand: how many there shall be. */
#include "control/demand.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/ctl_text.h"
#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "hv/hv_local.h"

bool node_is_coming(const struct node *n)
{
    return strcmp(n->state, "pending") == 0 || strcmp(n->state, "starting") == 0;
}

bool demand_owns_name(const char *name)
{
    size_t n = strlen(STATE_DEMAND_PREFIX);

    return strncmp(name, STATE_DEMAND_PREFIX, n) == 0 && name[n] &&
           strspn(name + n, "0123456789") == strlen(name + n);
}

/* --- what a plan looks at --- */

static uint64_t since(const struct centre *c, int64_t ms)
{
    return ms ? (uint64_t)(c->now - ms) + 1 : 0;
}

static enum node_demand_life life_of(const struct node *n)
{
    if (strcmp(n->state, "pending") == 0)
        return NODE_DEMAND_WAITS;
    if (strcmp(n->state, "starting") == 0)
        return NODE_DEMAND_STARTS;
    if (strcmp(n->state, "draining") == 0)
        return NODE_DEMAND_LEAVES;
    return strcmp(n->state, "drained") == 0 ? NODE_DEMAND_DRAINED : NODE_DEMAND_HERE;
}

static struct node_demand_node seen(struct centre *c, const struct node *n)
{
    const struct job_place_node *room = job_queue_node_now(c->jobs->queue, n->id);
    struct node_demand_node is = {.life = life_of(n),
                                  .on_demand = n->origin[0] != '\0',
                                  .idle_ms = since(c, n->life.idle_ms),
                                  .full_ms = since(c, n->life.full_ms)};

    is.drains = n->peer && n->reported && !n->pool_error[0] && !n->store_error[0] &&
                c->now >= n->life.next_ms;
    if (room)
        is.room = *room;
    is.room.id = n->id;
    return is;
}

/* Another node of this machine says why it runs no jobs, and not only as it has just come and the
 * mount is to follow: one more would say the same. */
static const char *machine_says_no(struct centre *c)
{
    const struct node *n;
    const char *why = NULL;
    char machine[37] = "";

    if (clock_machine(machine) < 0)
        return NULL;
    for (n = c->nodes; n; n = n->hh.next) {
        if (!n->peer || strcmp(n->machine, machine) != 0 || node_is_coming(n))
            continue;
        if (n->power.jobs)
            return NULL;
        if (n->power.detail[0] && since(c, n->life.jobless_ms) > LEASE_MS)
            why = n->power.detail;
    }
    return why;
}

const char *demand_no_starts(struct centre *c)
{
    const struct demand *d = c->demand;

    if (!d)
        return "this centre starts none";
    if (d->why_not[0])
        return d->why_not;
    if (!d->offered)
        return "it is not known yet what a new one could have";
    if (c->now < d->paused_ms)
        return d->why;
    return machine_says_no(c);
}

static void limits_now(struct centre *c, struct node_demand_limits *l)
{
    const struct demand *d = c->demand;

    *l = (struct node_demand_limits){.nodes_max = (uint32_t)setting_u64(c, "nodes_max"),
                                     .wait_ms = setting_u64(c, "node_wait") * 1000,
                                     .idle_ms = setting_u64(c, "node_idle_time") * 1000,
                                     .full_ms = setting_u64(c, "node_full_time") * 1000,
                                     .starts = demand_no_starts(c) == NULL,
                                     .milli_cpus = d ? d->offer.milli_cpus : 0,
                                     .memory = d ? d->offer.memory : 0};
}

int demand_look(struct centre *c, struct demand_view *v)
{
    size_t size = HASH_COUNT(c->nodes) + 1;
    struct node *n;

    *v = (struct demand_view){.nodes = calloc(size, sizeof(*v->nodes)),
                              .at = calloc(size, sizeof(*v->at)),
                              .acts = calloc(size, sizeof(*v->acts))};
    if (!v->nodes || !v->at || !v->acts) {
        demand_view_free(v);
        return -ENOMEM;
    }
    limits_now(c, &v->limits);
    for (n = c->nodes; n; n = n->hh.next) {
        if (strcmp(n->state, "gone") == 0)
            continue;
        v->nodes[v->n] = seen(c, n);
        v->at[v->n++] = n;
    }
    return 0;
}

void demand_view_free(struct demand_view *v)
{
    free(v->nodes);
    free(v->at);
    free(v->acts);
    *v = (struct demand_view){0};
}

/* --- what nodes say of themselves --- */

/* The node evicts by itself down to low_water; what stays above high_water is what it cannot. */
static void note_use(struct centre *c, struct node *n)
{
    const struct job_place_node *room = job_queue_node_now(c->jobs->queue, n->id);
    bool here = n->peer && n->reported;
    bool full =
        here && n->capacity > 0 && n->used > n->capacity / 100 * setting_u64(c, "high_water");

    if (!here || n->power.jobs || !n->power.detail[0])
        n->life.jobless_ms = 0;
    else if (!n->life.jobless_ms)
        n->life.jobless_ms = c->now;
    if (!here || strcmp(n->state, "ready") != 0 || (room && room->runs > 0))
        n->life.idle_ms = 0;
    else if (!n->life.idle_ms)
        n->life.idle_ms = c->now;
    if (!full)
        n->life.full_ms = 0, n->life.full_told = false;
    else if (!n->life.full_ms)
        n->life.full_ms = c->now;
    if (full && !n->life.full_told &&
        since(c, n->life.full_ms) > setting_u64(c, "node_full_time") * 1000) {
        n->life.full_told = true;
        events_add(&c->events, "node-full", "%s has been above high_water for %" PRIu64 " s",
                   n->name, since(c, n->life.full_ms) / 1000);
    }
}

/* --- new ones --- */

static void on_made(void *arg, int status, const struct state_result *r)
{
    struct centre *c = arg;
    Star__LogNode *is;

    if (c->demand)
        c->demand->making--;
    if (status < 0 || r->status < 0)
        return;
    nodes_load(c);
    is = star__log_node__unpack(NULL, r->body_len, r->body);
    if (!is)
        return;
    events_add(&c->events, "node-pending", "%s: jobs wait that fit no node", is->name);
    star__log_node__free_unpacked(is, NULL);
}

static void make_one(struct centre *c)
{
    Star__LogNode body = STAR__LOG_NODE__INIT;

    body.origin = (char *)(uintptr_t)hv_driver_name(c->demand->hv);
    body.state = (char *)"pending";
    body.capacity = c->options->nodes ? c->options->nodes->capacity : 0;
    if (centre_submit(c, STAR__LOG_TYPE__LOG_NODE, &body.base, CONSENSUS_NOW, on_made, c) == 0)
        c->demand->making++; /* else the next plan asks again */
}

static size_t waits_now(struct centre *c, struct node_demand_wait *waits)
{
    struct job_queue_blocked *blocked = calloc(DEMAND_WAITS_MAX, sizeof(*blocked));
    uint64_t now = (uint64_t)clock_boot_ms();
    size_t n = blocked ? job_queue_blocked(c->jobs->queue, blocked, DEMAND_WAITS_MAX) : 0;

    for (size_t k = 0; k < n; k++)
        waits[k] =
            (struct node_demand_wait){.need = blocked[k].need,
                                      .runs = blocked[k].runs,
                                      .copies = blocked[k].copies > 1,
                                      .apart = blocked[k].apart,
                                      .ms = now > blocked[k].since ? now - blocked[k].since : 0};
    free(blocked);
    return n;
}

bool demand_settled(struct centre *c)
{
    const struct node *n;

    if (c->now - c->demand->begun_ms > LEASE_MS)
        return true;
    for (n = c->nodes; n; n = n->hh.next)
        if (strcmp(n->state, "ready") == 0 && (!n->jobs_known || !n->power.jobs))
            return false;
    return true;
}

static void plan(struct centre *c)
{
    struct node_demand_wait *waits = calloc(DEMAND_WAITS_MAX, sizeof(*waits));
    struct demand_view v = {0};

    if (!waits || demand_look(c, &v) < 0)
        goto out; /* the next one has the memory, perhaps */
    size_t n = waits_now(c, waits);
    uint32_t more = node_demand_plan(&v.limits, v.nodes, v.n, waits, n, v.acts);
    for (size_t k = 0; k < v.n; k++)
        demand_act(c, v.at[k], v.acts[k]);
    if (c->demand->making > 0)
        more = 0; /* they are not among the nodes yet */
    while (more-- > 0)
        make_one(c);
out:
    demand_view_free(&v);
    free(waits);
}

/* --- the end of a start that never works --- */

void demand_given_up(struct centre *c, const struct node *n, const char *why)
{
    struct demand *d = c->demand;

    snprintf(d->why, sizeof(d->why), "%s could not be started: %s", n->name, why);
    d->paused_ms = c->now + DEMAND_PAUSE_MS;
    events_add(&c->events, "node-given-up", "%s; no other is tried for %d s", d->why,
               DEMAND_PAUSE_MS / 1000);
    demand_end_hopeless(c);
}

/* --- the tick --- */

/* Nodes that the state has forgotten. */
static void drop_forgotten(struct centre *c)
{
    struct node *n, *tmp;

    HASH_ITER (hh, c->nodes, n, tmp) {
        if (n->known || n->peer || n->changing || n->dropping || n->life.calling ||
            strcmp(n->state, "gone") != 0)
            continue;
        HASH_DEL(c->nodes, n);
        free(n->logged);
        free(n->drops);
        free(n);
    }
}

static void on_found(void *arg, const struct hv_answer *a)
{
    struct centre *c = arg;
    struct demand *d = c->demand;

    d->asking = false;
    d->found = a->status == 0;
    if (a->status < 0)
        log_warning("nodes of before: %s", a->detail);
    for (size_t k = 0; k < a->names_n; k++) {
        const struct node *n = c->nodes;
        while (n && strcmp(n->name, a->names[k]) != 0)
            n = n->hh.next;
        if (!n) /* it may hold data: that is for people to remove */
            events_add(&c->events, "node-unknown",
                       "something of %s lies here, which this cloud does not know", a->names[k]);
    }
}

static void on_offer(void *arg, const struct hv_answer *a)
{
    struct centre *c = arg;
    struct demand *d = c->demand;

    d->asking = false;
    d->offered = a->status == 0 || a->status == -EOPNOTSUPP;
    d->offer = a->offer;
    d->why_not[0] = '\0';
    if (a->status < 0)
        snprintf(d->why_not, sizeof(d->why_not), "%s", a->detail);
}

static void ask_hv(struct centre *c)
{
    struct demand *d = c->demand;

    if (!d->asking && !d->offered)
        d->asking = hv_offer(d->hv, on_offer, c) == 0;
    else if (!d->asking && !d->found)
        d->asking = hv_find(d->hv, on_found, c) == 0;
}

/* Nodes that were there are started in the grace period too: it waits for them. */
void demand_tick(struct centre *c, int64_t now)
{
    struct demand *d = c->demand;
    struct node *n;

    if (!d || !c->jobs || !c->jobs->loaded || now - d->step_ms < DEMAND_STEP_MS)
        return;
    d->step_ms = now;
    for (n = c->nodes; n; n = n->hh.next)
        note_use(c, n);
    if (now < d->held_ms)
        return;
    ask_hv(c);
    for (n = c->nodes; n; n = n->hh.next)
        if (n->origin[0] && !n->changing && !n->life.calling)
            demand_step(c, n);
    drop_forgotten(c);
    if (!c->serving || !d->offered || now - d->plan_ms < DEMAND_PLAN_MS || !demand_settled(c))
        return;
    d->plan_ms = now;
    plan(c);
}

void demand_hold(struct centre *c)
{
    if (c->demand)
        c->demand->held_ms = c->now + DEMAND_HOLD_MS;
}

/* --- what the control files say --- */

void text_demand_health(struct centre *c, struct text *t, unsigned *problems)
{
    const struct demand *d = c->demand;

    if (d && c->now < d->paused_ms)
        ++*problems, text_put(t, "problem node %s\n", d->why);
}

void text_demand(struct centre *c, struct text *t)
{
    const struct demand *d = c->demand;

    if (!d)
        return;
    text_put(t, "# TYPE umbel_demand_nodes_total counter\n");
    text_put(t,
             "umbel_demand_nodes_total{what=\"started\"} %" PRIu64
             "\numbel_demand_nodes_total{what=\"failed\"} %" PRIu64
             "\numbel_demand_nodes_total{what=\"released\"} %" PRIu64 "\n",
             d->count.started, d->count.failed, d->count.released);
    text_put(t,
             "# TYPE umbel_requests_beyond_limits_total counter\n"
             "umbel_requests_beyond_limits_total %" PRIu64 "\n",
             d->count.beyond);
}

/* --- begin, end --- */

int demand_load(struct centre *c)
{
    const struct hv_local_options *o = c->options->nodes ? c->options->nodes->local : NULL;
    struct demand *d;
    atomic_bool *cancel;
    void *self;

    if (!o)
        return 0;
    d = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    int rc = hv_local_open(o, &self, &cancel);
    if (rc == 0)
        rc = hv_open(&c->loop, &hv_local, self, cancel, &d->hv);
    if (rc < 0) {
        free(d);
        return rc;
    }
    d->begun_ms = c->now;
    c->demand = d;
    return 0;
}

void demand_stop(struct centre *c)
{
    if (!c->demand)
        return;
    hv_close(c->demand->hv);
    free(c->demand);
    c->demand = NULL;
}
