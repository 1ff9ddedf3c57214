/*
 * Private to demand*.c: nodes that are started on demand, as this leader has them.
 *
 * pending -> starting -> ready -> draining -> drained -> gone. The log has the state before hv is
 * told to act by it, so the next leader goes on where this one was: what is starting is started (hv
 * knows if it runs already), what is gone is removed. A node that does not become ready is ended,
 * freed, and tried again, NODE_STARTS times; then it is gone, and none is started for a while.
 */
#ifndef UMBEL_CONTROL_DEMAND_H
#define UMBEL_CONTROL_DEMAND_H

#include "control/centre.h"
#include "control/jobs.h"
#include "control/node_demand.h"
#include "hv/hv.h"

#define DEMAND_STEP_MS 200
#define DEMAND_PLAN_MS 1000
/* Questions to hv about one node. */
#define DEMAND_LOOK_MS 1000
/* Starts of one node. */
#define NODE_STARTS 3u
/* After a node that could not be started: none is tried, and what needs one is refused. Long enough
 * that nobody is kept busy by what does not work, short enough for an administrator who mends it.
 */
#define DEMAND_PAUSE_MS 60000
/* A node that was let go empties its store and ends; then it is asked to, then ended. */
#define NODE_LEAVES_MS 30000
#define NODE_STOPS_MS  5000
/* Something at a node did not work: a drain, a release, a removal. */
#define DEMAND_AGAIN_MS 10000
/* After umbel down said that all ends: longer than that waits for it. */
#define DEMAND_HOLD_MS 120000
/* Different needs that are looked at in one plan. */
#define DEMAND_WAITS_MAX 1024

struct demand {
    struct hv *hv;
    struct hv_offer offer;
    bool offered, found, asking;
    bool hopeless;            /* jobs that `why` is the end of are to be ended, */
    struct job *at;           /* this one and those behind it */
    char why_not[HV_DETAIL];  /* no node can be had at all; "" */
    char why[HV_DETAIL + 96]; /* the newest that could not be started, while paused_ms is ahead */
    int64_t begun_ms, step_ms, plan_ms, paused_ms, held_ms;
    unsigned making; /* entries for new nodes on their way into the log */
    struct {
        uint64_t started, failed, released, beyond;
    } count;
};

/* What a plan looks at. */
struct demand_view {
    struct node_demand_limits limits;
    struct node_demand_node *nodes;
    struct node **at; /* whose they are */
    enum node_demand_act *acts;
    size_t n;
};
/* -ENOMEM. */
int demand_look(struct centre *c, struct demand_view *v);
void demand_view_free(struct demand_view *v);

/* Why no node can be started now; NULL: one can. */
const char *demand_no_starts(struct centre *c);
/* All nodes that are in use take jobs, or had the time to begin with it: mounts come after them. */
bool demand_settled(struct centre *c);

/* --- demand_need.c: what those hear that need one --- */
/* Jobs that only a new node could have taken, and that none will take, are ended in the next turns
 * (demand_turn). */
void demand_end_hopeless(struct centre *c);

/* --- demand_life.c: one node's way --- */
void demand_step(struct centre *c, struct node *n);
void demand_act(struct centre *c, struct node *n, enum node_demand_act act);
/* n could not be started, for good. */
void demand_given_up(struct centre *c, const struct node *n, const char *why);

#endif
