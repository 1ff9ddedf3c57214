/*
 * When nodes are started, emptied and let go: a pure function over what the centre knows of its
 * nodes and of the jobs that wait.
 *
 * Started: when runs wait that fit no node, and no node that is on its way will take them. Emptied
 * (drained): a node that was started on demand and has had no job for a while, unless one waits
 * that it could take; or that stays above its space limit. Let go: when it is empty and its last
 * job has ended. Nodes that people started are never touched.
 *
 * So it does not flap: what is on its way counts before another one is asked for, a job waits for a
 * while first, and a node that has come stays for node_idle_time after its last job.
 */
#ifndef UMBEL_CONTROL_NODE_DEMAND_H
#define UMBEL_CONTROL_NODE_DEMAND_H

#include "control/job_place.h"

struct node_demand_limits {
    uint32_t nodes_max; /* of the cloud, with those on their way */
    uint64_t wait_ms, idle_ms, full_ms;
    bool starts; /* nodes can be had now */
    /* The largest that can be had. */
    uint32_t milli_cpus;
    uint64_t memory;
};

enum node_demand_life {
    NODE_DEMAND_WAITS, /* to be started */
    NODE_DEMAND_STARTS,
    NODE_DEMAND_HERE,   /* in use, or away for a while */
    NODE_DEMAND_LEAVES, /* is being drained */
    NODE_DEMAND_DRAINED
};

struct node_demand_node {
    enum node_demand_life life;
    bool on_demand;
    bool drains;                /* a drain may be tried: it is connected, and can reach the pool */
    uint64_t idle_ms;           /* without a job; 0: it has one */
    uint64_t full_ms;           /* above its space limit; 0: it is not */
    struct job_place_node room; /* as the queue of jobs has it; zeroed if that does not know it */
};

/* Runs with equal needs that wait, and fit nowhere now. */
struct node_demand_wait {
    struct job_place_need need;
    uint32_t runs;
    uint32_t apart; /* copies of one job, each on another node: how many have a node. 0: they may
                       lie together */
    bool copies;    /* they are such */
    uint64_t ms;    /* so long the first of them has waited */
};

/* What to do with a node; with a new one, NODE_DEMAND_PLAN.start. */
enum node_demand_act {
    NODE_DEMAND_KEEP,
    NODE_DEMAND_CANCEL, /* it was not started yet, and is not needed any more */
    NODE_DEMAND_DRAIN,
    NODE_DEMAND_RELEASE /* drained, without jobs */
};

/* acts[n]: what to do with each of the nodes. Returns how many more are to be started. */
uint32_t node_demand_plan(const struct node_demand_limits *limits,
                          const struct node_demand_node *nodes, size_t n,
                          const struct node_demand_wait *waits, size_t waits_n,
                          enum node_demand_act *acts);

/* How many nodes beside those that are in use could take such a run: those on their way (also while
 * no others are started), and those that may yet be started. */
uint32_t node_demand_more(const struct node_demand_limits *limits,
                          const struct node_demand_node *nodes, size_t n,
                          const struct job_place_need *need);

/* Before a start is tried again, after so many that failed (from 1 on). */
uint64_t node_demand_back_off_ms(uint32_t failed);

#endif
