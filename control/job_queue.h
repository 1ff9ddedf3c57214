/*
 * Jobs that wait for a node, and what those that have one were promised. In memory only: the centre
 * makes it anew from the state. Plain C without I/O or clock; one thread.
 *
 * What is queued are *runs*: a job is one, or as many as it has copies. They go by priority, then
 * by age (the job's number), then by copy. A run that fits nowhere lets others pass, so that
 * nothing stands empty; when it has waited for JOB_QUEUE_PATIENCE_MS, it takes hold of a node:
 * nothing that comes after it in the order is placed there any more, until it has room. So what is
 * large is not overtaken for ever.
 *
 * Runs with equal needs wait in one line, and a line that fits nowhere is not looked at again
 * before some node has gained room. So an end costs a glance at each different need that waits
 * (16 us where 10,000 do at 1,000 nodes), and nothing grows with the number of those that wait but
 * its logarithm.
 */
#ifndef UMBEL_CONTROL_JOB_QUEUE_H
#define UMBEL_CONTROL_JOB_QUEUE_H

#include "control/job_place.h"
#include "control/job_spec.h"

struct job_queue;

/* A node must be left to drain for as long as its jobs run, so not at once; a user notices a
 * minute. */
#define JOB_QUEUE_PATIENCE_MS 60000u
/* Nodes that are held at a time, and not more than a quarter of the open ones (one in any case). */
#define JOB_QUEUE_HOLDS 16

struct job_queue_run {
    uint64_t job;
    uint32_t copy; /* from 1 to JOB_SPEC_COPIES_MAX */
    int32_t priority;
    struct job_place_need need;
    uint32_t copies; /* of that job */
    uint64_t since;  /* when it began to wait, milliseconds of the clock of job_queue_next() */
};

/* Which nodes hold how many bytes of a job's inputs now: puts up to `most` into `held`, those with
 * the most bytes, and returns how many. Asked when a run is about to be placed. */
typedef size_t job_queue_holders(void *context, uint64_t job, struct job_place_held *held,
                                 size_t most);
#define JOB_QUEUE_HELD 16

/* How to choose among nodes: job_place_choose(), or what a simulator compares with it. */
typedef const struct job_place_node *job_queue_choose(void *context,
                                                      const struct job_place_node *nodes, size_t n,
                                                      const struct job_place_need *need,
                                                      const struct job_place_held *held,
                                                      size_t held_n);

struct job_queue_rules {
    job_queue_holders *holders; /* NULL: nobody holds anything */
    job_queue_choose *choose;   /* NULL: job_place_choose() */
    void *context;              /* of both */
};

/* -ENOMEM. */
int job_queue_make(struct job_queue **out, const struct job_queue_rules *rules);
void job_queue_free(struct job_queue *q); /* NULL is allowed */

/* What is known of a node now; what it reserved is the queue's own to know, and not taken from
 * here. -EINVAL: the id is 0; -ENOMEM. */
int job_queue_node(struct job_queue *q, const struct job_place_node *node);
/* The node is not open any more, and counts no more for job_queue_could(). Its runs stay placed. */
void job_queue_node_gone(struct job_queue *q, uint32_t node);

/* A run waits from now on. nodes[copy - 1] are where the job's other copies run or have run at this
 * attempt, 0 where none does; NULL if it has no other copies. -EEXIST: it waits or is placed
 * already; -EINVAL: the copy's number; -ENOMEM. */
int job_queue_add(struct job_queue *q, const struct job_queue_run *run,
                  const uint32_t nodes[JOB_SPEC_COPIES_MAX]);
/* A run was placed before, as the state says; whether or not the node is known or has room. Errors
 * as above. */
int job_queue_add_placed(struct job_queue *q, const struct job_queue_run *run, uint32_t node);
/* It waits no more, or has ended: what it was promised is free. -ENOENT. */
int job_queue_remove(struct job_queue *q, uint64_t job, uint32_t copy);

struct job_queue_placed {
    uint64_t job;
    uint32_t copy, node;
    uint64_t since; /* when it began to wait */
};
/* The next run that can be placed: true, it is, and counts at once. false: none of those that wait
 * fits. `now` never goes back. Wanted after anything that may make room, and once a second besides:
 * patience ends by itself. */
bool job_queue_next(struct job_queue *q, uint64_t now, struct job_queue_placed *out);

enum job_queue_wait {
    JOB_QUEUE_NOT,       /* it does not wait */
    JOB_QUEUE_TURN,      /* for those before it to be placed */
    JOB_QUEUE_RESOURCES, /* for room */
    JOB_QUEUE_NODE,      /* its node is not open, or no node is */
    JOB_QUEUE_COPIES     /* for a node that has no copy of it */
};
/* Why a run waits, and one line on it. */
enum job_queue_wait job_queue_why(struct job_queue *q, uint64_t job, uint32_t copy,
                                  char why[JOB_PLACE_WHY]);

/* As job_place_could(), over all nodes that are not gone. */
int job_queue_could(struct job_queue *q, const struct job_place_need *need, unsigned copies,
                    char why[JOB_PLACE_WHY]);

/* How many nodes may come, beside those that are not gone, that could take such a run. */
typedef uint32_t job_queue_more(void *context, const struct job_place_need *need);

/* How many runs wait for what no nodes have that are not gone or may come (more; NULL: none),
 * whatever ends or comes back; *job is the first of them, why as of job_queue_could(). Looks at
 * JOB_QUEUE_LOOK different needs. */
#define JOB_QUEUE_LOOK 1000
size_t job_queue_hopeless(struct job_queue *q, job_queue_more *more, void *context, uint64_t *job,
                          char why[JOB_PLACE_WHY]);

/* Runs with equal needs that fit nowhere now. */
struct job_queue_blocked {
    struct job_place_need need;
    uint32_t runs, copies; /* copies: of the job that they are of; 1: of any job */
    uint32_t apart;        /* of those copies, how many have a node */
    uint64_t since;        /* as in job_queue_run, of their first */
};
/* Puts up to `most` into `out`, and returns how many. */
size_t job_queue_blocked(const struct job_queue *q, struct job_queue_blocked *out, size_t most);

/* How many runs wait. */
size_t job_queue_waiting(const struct job_queue *q);
/* The node as it counts now, or NULL. Until the next call that changes the queue. */
const struct job_place_node *job_queue_node_now(const struct job_queue *q, uint32_t node);

#endif
