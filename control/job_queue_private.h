/*
 * What the files of the queue share: job_queue.c (what comes, goes and is placed),
 * job_queue_nodes.c, job_queue_lines.c (who waits), job_queue_holds.c (who may not go where).
 */
#ifndef UMBEL_CONTROL_JOB_QUEUE_PRIVATE_H
#define UMBEL_CONTROL_JOB_QUEUE_PRIVATE_H

#include <uthash.h>

#include "control/job_heap.h"
#include "control/job_queue.h"

/* What is asked for by all runs of a line; zeroed before it is filled, since its bytes are the key.
 */
struct line_key {
    uint64_t memory;
    uint64_t job; /* of jobs with copies: a line of its own, since they keep away from each other */
    uint32_t milli_cpus, node;
};

struct line {
    struct job_heap_item head; /* the order of its first run */
    struct line_key key;
    struct job_heap runs;
    bool blocked; /* it fits nowhere: in `blocked`, not in `ready` */
    size_t at;    /* there */
    uint32_t copies;
    uint32_t used[JOB_SPEC_COPIES_MAX]; /* nodes of the copies; 0: none */
    UT_hash_handle hh;
};

/* No padding: its bytes are the key. */
struct run_key {
    uint64_t job, copy;
};

struct run {
    struct job_heap_item item;
    struct run_key key;
    struct job_place_need need;
    struct line *line; /* it waits there; NULL: it is placed */
    uint32_t node;     /* where it is placed */
    uint64_t since;
    UT_hash_handle hh;
};

struct slot {
    uint32_t id;
    size_t at;   /* in `nodes` */
    bool gained; /* in `gained` */
    UT_hash_handle hh;
};

/* A line that fits nowhere, with what is needed to see whether that is still so: there may be many.
 */
struct blocked {
    struct line *line;
    uint64_t job; /* of the first run */
    uint64_t memory;
    uint32_t milli_cpus;
    int32_t priority;
};

struct hold {
    struct run *run;
    uint32_t node;
};

struct job_queue {
    struct job_queue_rules rules;
    struct job_place_node *nodes; /* those that are gone, but have runs, with milli_cpus 0 */
    size_t nodes_n, nodes_size;
    bool sizes_changed; /* job_place_keep() is to be asked again */
    struct slot *slots;
    struct run *runs;
    size_t waiting;
    struct line *lines;
    struct job_heap ready; /* of lines */
    struct blocked *blocked;
    size_t blocked_n, blocked_size;
    uint32_t *gained; /* nodes that may have room for what is blocked; as large as `nodes` */
    size_t gained_n;
    struct hold holds[JOB_QUEUE_HOLDS];
    size_t holds_n;
    uint64_t look; /* when holds are to be looked at again */
};

/* ---- nodes: pointers are good until the next node comes or goes */

struct job_place_node *jq_node(const struct job_queue *q, uint32_t id);
/* Made closed and without anything if it is not known. NULL: out of memory. */
struct job_place_node *jq_want_node(struct job_queue *q, uint32_t id);
/* The node may have room for what is blocked. */
void jq_gained(struct job_queue *q, uint32_t id);
/* No line that is blocked fits any of those. */
void jq_gained_none(struct job_queue *q);
void jq_reserve(struct job_place_node *node, struct run *run);
void jq_release(struct job_queue *q, struct run *run);
void jq_free_nodes(struct job_queue *q);

/* ---- lines */

struct run *jq_first_run(const struct line *line);
/* The run's line, with room for one more; made if there is none. -ENOMEM. */
int jq_want_line(struct job_queue *q, const struct job_queue_run *r, struct line **out);
/* A line without runs. */
void jq_drop_line(struct job_queue *q, struct line *line);
/* The run waits from now on, or waits no more; then the line may be gone. */
void jq_put_run(struct job_queue *q, struct line *line, struct run *run);
void jq_take_run(struct job_queue *q, struct run *run);
/* Out of `ready`, and back. */
void jq_block(struct job_queue *q, struct line *line);
void jq_unblock(struct job_queue *q, struct line *line);
/* Unblocks the first of the lines that fit a node that has gained room, if there is one. */
void jq_look_at_blocked(struct job_queue *q);
void jq_free_lines(struct job_queue *q);

/* ---- where a run may not go, whether or not it fits */

void jq_bar_copies(struct job_queue *q, const struct run *run, bool barred);
void jq_bar_holds(struct job_queue *q, const struct run *run, bool barred);
/* Neither of them. */
bool jq_may(const struct job_queue *q, const struct run *run, uint32_t node);
/* If it holds a node, no more. */
void jq_end_hold(struct job_queue *q, const struct run *run);
/* Once in a while: holds that are of no use any more, runs that have waited for long. */
void jq_look_at_holds(struct job_queue *q, uint64_t now);

#endif
