/*
 * Where a job runs: pure functions over what the centre knows of its nodes.
 *
 * Processors are counted in thousandths, memory in bytes. A node's *remaining capacity* is what its
 * free processors can do, in the unit of core_speed, so that fast and slow nodes can be compared.
 */
#ifndef UMBEL_CONTROL_JOB_PLACE_H
#define UMBEL_CONTROL_JOB_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct job_place_node {
    uint32_t id;
    bool open;           /* it takes jobs now: connected, ready, not draining */
    bool barred;         /* not for the job that is being placed */
    bool kept;           /* for what fits nowhere else: job_place_keep() */
    uint64_t core_speed; /* of one processor, in the unit of nodecache/power.h */
    uint32_t milli_cpus; /* what the machine has; 0: it runs no jobs */
    uint32_t milli_busy; /* used by what is not a job of this node */
    uint64_t memory, memory_busy;
    uint32_t runs_max; /* 0: no limit */
    /* What the runs that were placed there were promised, used or not. */
    uint32_t runs;
    uint64_t milli_reserved, memory_reserved;
};

struct job_place_need {
    uint32_t milli_cpus;
    uint64_t memory;
    uint32_t node; /* only there; 0: anywhere */
};

/* Bytes of the job's inputs that a node holds. */
struct job_place_held {
    uint32_t node;
    uint64_t bytes;
};

/* Room for it now. Memory that others use is not there. Processors that others use are not either,
 * but a node without jobs takes any job that all of it could do: processors can be shared, and what
 * always runs on a machine would else keep large jobs waiting for ever. */
bool job_place_fits(const struct job_place_node *n, const struct job_place_need *need);
/* Room for it if no job and nothing else ran there; whether or not the node is open. */
bool job_place_ever(const struct job_place_node *n, const struct job_place_need *need);
/* What a job could be promised now. */
uint64_t job_place_free_milli(const struct job_place_node *n);
uint64_t job_place_free_memory(const struct job_place_node *n);
/* How much of the need that is, of what there is least: 1 and more is enough. */
double job_place_share(const struct job_place_node *n, const struct job_place_need *need);
/* In the unit of core_speed, for a whole second of all free processors. */
uint64_t job_place_remaining(const struct job_place_node *n);

/* Among the nodes that it fits: the one that holds most of the inputs, then one that is not kept,
 * then the one with the largest remaining capacity, then the lowest id. NULL: it fits none. */
const struct job_place_node *job_place_choose(const struct job_place_node *nodes, size_t n,
                                              const struct job_place_need *need,
                                              const struct job_place_held *held, size_t held_n);

/* The largest capacity is taken first, so jobs would lie everywhere, and one that needs nearly all
 * of a large machine would find none empty. So those that have more processors than the others are
 * kept, as far as they are at most so many percent of all processors: in the simulator
 * (tests/bench) the longest wait at 90% load falls from 10,443 s to 2,419 s, and no byte more
 * is moved. */
#define JOB_PLACE_KEEP 10
/* Sets `kept` of all nodes. */
void job_place_keep(struct job_place_node *nodes, size_t n);

#define JOB_PLACE_WHY 256
/* Whether `copies` different nodes could ever take it: 0, or -EAGAIN and one line that says what is
 * wanted and what there is at most. */
int job_place_could(const struct job_place_node *nodes, size_t n, const struct job_place_need *need,
                    unsigned copies, char why[JOB_PLACE_WHY]);
/* One line on why it fits no node now: what is wanted, and what the node that is nearest to it has.
 */
void job_place_why(const struct job_place_node *nodes, size_t n, const struct job_place_need *need,
                   char why[JOB_PLACE_WHY]);

#endif
