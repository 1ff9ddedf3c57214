/* One node's way from "pending" to "gone", and what is removed then. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "control/demand.h"

static bool is(const struct node *n, const char *state)
{
    return strcmp(n->state, state) == 0;
}

static void begin_end(struct centre *c, struct node *n, int64_t patience_ms)
{
    n->life.ending = true;
    n->life.since_ms = c->now;
    n->life.stop_ms = c->now + patience_ms;
    n->life.next_ms = 0;
}

/* --- the start --- */

static void start_failed(struct centre *c, struct node *n, const char *why)
{
    snprintf(n->life.said, sizeof(n->life.said), "%s", why);
    events_add(&c->events, "node-start-failed", "%s, start %u of %u: %s", n->name, n->starts,
               NODE_STARTS, why);
    c->demand->count.failed++;
    begin_end(c, n, 0);
}

static void on_start(void *arg, const struct hv_answer *a)
{
    struct node *n = arg;

    n->life.calling = false;
    if (a->status < 0 && is(n, "starting"))
        start_failed(n->life.c, n, a->detail);
    else if (a->status < 0)
        events_add(&n->life.c->events, "node-start-failed", "%s: %s", n->name, a->detail);
}

static void call_start(struct centre *c, struct node *n)
{
    struct hv_spec spec = {.capacity = c->options->nodes->capacity};

    snprintf(spec.name, sizeof(spec.name), "%s", n->name);
    n->life.c = c;
    n->life.calling = hv_start(c->demand->hv, &spec, on_start, n) == 0;
    if (!n->life.calling)
        return; /* the next step */
    n->life.asked = true;
    n->life.since_ms = c->now;
    n->life.next_ms = c->now + DEMAND_LOOK_MS;
    n->life.said[0] = '\0';
}

static void step_pending(struct centre *c, struct node *n)
{
    n->starts++;
    if (node_set_state(c, n, "starting") < 0)
        n->starts--;
    n->life.asked = false;
}

/* A node is wanted for jobs: until it takes them, it is not ready. */
static bool takes_jobs(const struct node *n)
{
    return n->peer && n->reported && n->jobs_known && n->power.jobs;
}

static void became_ready(struct centre *c, struct node *n)
{
    if (node_set_state(c, n, "ready") < 0)
        return;
    n->life.said[0] = '\0';
    n->life.idle_ms = c->now;
    c->demand->count.started++;
    events_add(&c->events, "node-ready", "%s takes jobs, %" PRId64 " ms after its start", n->name,
               c->now - n->life.since_ms);
}

static void past_start(struct centre *c, struct node *n)
{
    char why[HV_DETAIL];

    if (n->peer && n->power.detail[0])
        snprintf(why, sizeof(why), "it runs no jobs: %s", n->power.detail);
    else if (n->peer)
        snprintf(why, sizeof(why), "it came, but reported nothing for %" PRIu64 " s",
                 setting_u64(c, "node_start_time"));
    else
        snprintf(why, sizeof(why), "it was not heard within %" PRIu64 " s",
                 setting_u64(c, "node_start_time"));
    start_failed(c, n, why);
}

static void on_starting_state(void *arg, const struct hv_answer *a)
{
    struct node *n = arg;
    char why[HV_DETAIL];

    n->life.calling = false;
    if (a->status < 0 || a->state == HV_RUNS || !is(n, "starting") || n->life.ending)
        return; /* the deadline remains */
    snprintf(why, sizeof(why), "%s", a->detail[0] ? a->detail : "it ended without a word");
    start_failed(n->life.c, n, why);
}

static void step_starting(struct centre *c, struct node *n)
{
    if (!n->life.asked) {
        call_start(c, n);
    } else if (takes_jobs(n)) {
        became_ready(c, n);
    } else if (c->now - n->life.since_ms > (int64_t)setting_u64(c, "node_start_time") * 1000) {
        past_start(c, n);
    } else if (!n->peer && c->now >= n->life.next_ms) {
        n->life.next_ms = c->now + DEMAND_LOOK_MS;
        n->life.c = c;
        n->life.calling = hv_state(c->demand->hv, n->name, on_starting_state, n) == 0;
    }
}

/* --- one that was ready, and is away: what it has staged is nowhere else --- */

static void on_away_state(void *arg, const struct hv_answer *a)
{
    struct node *n = arg;
    struct centre *c = n->life.c;

    n->life.calling = false;
    if (a->status < 0 || n->peer || a->state == HV_RUNS)
        return;
    if (a->state == HV_LEFT && is(n, "drained")) {
        (void)node_set_state(c, n, "gone"); /* else the next look says it again */
        return;
    }
    n->life.tries++;
    n->life.next_ms = c->now + (int64_t)node_demand_back_off_ms(n->life.tries);
    if (a->state == HV_ENDED) {
        events_add(&c->events, "node-restarted", "%s had ended%s%s", n->name,
                   a->detail[0] ? ": " : "", a->detail);
        call_start(c, n);
        n->life.next_ms = c->now + (int64_t)node_demand_back_off_ms(n->life.tries);
    } else if (n->life.tries == 1) {
        events_add(&c->events, "node-lost", "the store of %s is not there any more", n->name);
    }
}

static void step_here(struct centre *c, struct node *n)
{
    if (n->peer) {
        n->life.tries = 0;
        if (n->life.draining && !is(n, "draining")) {
            n->life.draining = false;
            if (is(n, "ready")) /* its reason stands in `errors` */
                n->life.next_ms = c->now + DEMAND_AGAIN_MS;
        }
    } else if (c->now >= n->life.next_ms) {
        n->life.draining = false;
        n->life.next_ms = c->now + DEMAND_LOOK_MS;
        n->life.c = c;
        n->life.calling = hv_state(c->demand->hv, n->name, on_away_state, n) == 0;
    }
}

/* --- the end --- */

static void ended(struct centre *c, struct node *n)
{
    n->life.ending = n->life.asked = false;
    if (is(n, "gone")) {
        n->life.over = true;
        c->demand->count.released += n->life.released;
        return;
    }
    n->store[0] = '\0'; /* its next one is another */
    if (n->starts < NODE_STARTS) {
        if (node_set_state(c, n, "pending") < 0)
            begin_end(c, n, 0); /* once more */
        else
            n->life.next_ms = c->now + (int64_t)node_demand_back_off_ms(n->starts);
        return;
    }
    if (node_set_state(c, n, "gone") < 0) {
        begin_end(c, n, 0);
        return;
    }
    n->life.over = true;
    demand_given_up(c, n, n->life.said);
}

static void on_stopped(void *arg, const struct hv_answer *a)
{
    struct node *n = arg;

    (void)a; /* whether it ended is seen when it is removed */
    n->life.calling = false;
}

static void on_destroyed(void *arg, const struct hv_answer *a)
{
    struct node *n = arg;
    struct centre *c = n->life.c;
    int64_t late = c->now - n->life.stop_ms;

    n->life.calling = false;
    if (a->status == 0) {
        ended(c, n);
    } else if (a->status == -EBUSY) {
        n->life.next_ms = c->now + DEMAND_STEP_MS;
        if (late >= 0)
            n->life.calling =
                hv_stop(c->demand->hv, n->name, late >= NODE_STOPS_MS, on_stopped, n) == 0;
    } else {
        if (strcmp(n->life.said, a->detail) != 0)
            events_add(&c->events, "node-remains", "%s: %s", n->name, a->detail);
        snprintf(n->life.said, sizeof(n->life.said), "%s", a->detail);
        n->life.next_ms = c->now + DEMAND_AGAIN_MS;
    }
}

static void step_ending(struct centre *c, struct node *n)
{
    n->life.c = c;
    n->life.calling = hv_destroy(c->demand->hv, n->name, on_destroyed, n) == 0;
}

void demand_step(struct centre *c, struct node *n)
{
    if (n->life.over)
        return;
    if (is(n, "gone") && !n->life.ending) {
        begin_end(c, n, NODE_LEAVES_MS);
        return;
    }
    if (n->life.ending) {
        if (c->now >= n->life.next_ms)
            step_ending(c, n);
    } else if (is(n, "pending")) {
        if (c->now >= n->life.next_ms)
            step_pending(c, n);
    } else if (is(n, "starting")) {
        step_starting(c, n);
    } else {
        step_here(c, n);
    }
}

/* --- what the plan wants --- */

static struct op *own_op(struct centre *c)
{
    struct op *op = op_new(c, NULL, NULL, NULL, NULL);

    if (op)
        op->note_errors = true;
    return op;
}

static void drain(struct centre *c, struct node *n)
{
    struct op *op = own_op(c);

    if (!op)
        return;
    if (n->life.full_ms &&
        c->now - n->life.full_ms >= (int64_t)setting_u64(c, "node_full_time") * 1000)
        events_add(&c->events, "node-full", "%s stays above high_water: it is emptied", n->name);
    else
        events_add(&c->events, "node-idle", "%s has had no job for %" PRId64 " s: it is emptied",
                   n->name, (c->now - n->life.idle_ms) / 1000);
    n->life.draining = true;
    node_drain(op, n, false);
}

static void release(struct centre *c, struct node *n)
{
    struct op *op = own_op(c);

    if (!op)
        return;
    n->life.next_ms = c->now + DEMAND_AGAIN_MS;
    n->life.released = true;
    node_drain(op, n, true);
}

void demand_act(struct centre *c, struct node *n, enum node_demand_act act)
{
    if (act == NODE_DEMAND_KEEP || n->changing || n->life.calling || n->life.ending)
        return;
    if (act == NODE_DEMAND_CANCEL)
        (void)node_set_state(c, n, "gone"); /* else the next plan */
    else if (act == NODE_DEMAND_DRAIN && is(n, "ready") && n->peer)
        drain(c, n);
    else if (act == NODE_DEMAND_RELEASE && is(n, "drained") && n->peer && c->now >= n->life.next_ms)
        release(c, n);
}
