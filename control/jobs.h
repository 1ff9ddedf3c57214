/*
 * Private to jobs*.c: the jobs that have not ended, in the leader's memory.
 *
 * A job is its row (Job, as the log has it or will have it soon) and what only this leader knows.
 * Whoever changes a row calls jobs_dirty(); at the end of the turn all changed rows are one entry
 * of the log. What must not happen before the log has it (JOB_START, the answer to a report) waits
 * for that entry.
 */
#ifndef UMBEL_CONTROL_JOBS_H
#define UMBEL_CONTROL_JOBS_H

#include "control/centre.h"
#include "control/job_queue.h"
#include "control/job_spec.h"
#include "control/job_verdict.h"

/* Rows in one entry: some 300 bytes each. */
#define JOBS_CHANGE_MAX 2048
/* Placed in one turn of the loop; the next turn goes on. */
#define JOBS_PLACE_MAX 1024
/* JOB_START and JOB_SIGNAL: a node writes a small file. */
#define JOBS_NODE_DEADLINE_MS 10000
#define JOBS_TICK_MS          1000
/* A node that says EAGAIN to a run is asked so often, one tick after the other; then the run has
 * failed. */
#define JOBS_START_TRIES 60
/* Nodes end what is past its time; if one has not by then, it is told to. */
#define JOBS_OVERDUE_S 30
/* Names in .umbel/jobs: the newest. */
#define JOBS_LISTED 10000u
/* Ended jobs that go in one entry. */
#define JOBS_FORGET_MAX 256

/* One spec, and the jobs that have it. */
struct job_batch {
    uint64_t id;
    unsigned users;
    char *text; /* what spec lies in besides its own */
    struct job_spec spec;
    /* Jobs that come first: looked at one after the other, from here on. */
    size_t range;
    uint64_t next, watched; /* watched: has not ended; 0: none */
    struct job_batch *w_next;
    struct job *jobs; /* list by b_prev, b_next */
    UT_hash_handle hh;
};

/* Batches that wait for one job. */
struct job_watch {
    uint64_t id;
    struct job_batch *batches;
    UT_hash_handle hh;
};

struct job_copy {
    bool queued;      /* job_queue has it, waiting or placed */
    bool started;     /* the node has it on its disk */
    bool sending;     /* JOB_START is on its way */
    uint64_t ready;   /* JOB_START goes when this change is in the log; READY_NEXT: the next one */
    uint32_t hello;   /* the node's connection that has heard or said something of it */
    uint32_t refused; /* so often, by its node */
};
#define READY_NEXT UINT64_MAX

struct job {
    uint64_t id;
    Star__Job *row;
    struct job_batch *batch;
    struct job_copy copies[JOB_SPEC_COPIES_MAX];
    bool dirty, over; /* over: the row says how it ended */
    int64_t told_ms;  /* when it was told to end, last */
    struct job *d_next, *b_prev, *b_next;
    UT_hash_handle hh;
};

struct job_ended {
    uint64_t id;
    int64_t sec;
};

struct jobs {
    struct job_queue *queue;
    struct job *all;
    struct job_batch *batches;
    struct job_watch *watches;
    struct job *dirty, *dirty_tail;
    unsigned dirty_n;
    struct op *answers; /* reports whose answers wait for the next change (list by wait_next) */
    uint64_t change;    /* number of the newest */
    bool place;         /* something may fit now */
    bool loaded;
    int64_t tick_ms;
    struct job_ended *ended; /* a ring, the oldest at ended_at */
    size_t ended_at, ended_n, ended_size;
    bool forgetting;
    unsigned pending; /* jobs that have no node */
    struct {
        uint64_t submitted, done, failed, cancelled, timeout, lost, retried, refused;
    } count;
};

/* --- jobs.c --- */
struct job *jobs_find(struct centre *c, uint64_t id);
void jobs_dirty(struct centre *c, struct job *job);
bool jobs_state_is_over(Star__JobState state);
const char *jobs_state_name(Star__JobState state);
void jobs_set_why(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The job ends so; whoever waits for it hears of it. */
void jobs_over(struct centre *c, struct job *job, Star__JobState state);
/* From the state into memory, when it was submitted. */
int jobs_take(struct centre *c, uint64_t id);
int job_batch_spec(struct centre *c, struct job_batch *b); /* b->spec is there from now on */
void jobs_time_now(Star__Time **t);

/* --- jobs_submit.c --- */
void jobs_submit(struct op *op, const char *text, size_t len);

/* --- jobs_run.c --- */
void jobs_enqueue(struct centre *c, struct job *job);
void jobs_place(struct centre *c);
void jobs_start_ready(struct centre *c, struct job *job, uint64_t change);
void jobs_run_tick(struct centre *c, struct job *job, int64_t now);
void jobs_cancel(struct centre *c, struct job *job, const char *why);
int jobs_send_signal(struct centre *c, struct job *job, int number);

/* --- jobs_report.c --- */
/* The copy has ended without a result of its own: lost, refused, or never begun. */
void jobs_copy_gone(struct centre *c, struct job *job, unsigned copy, Star__JobEnd end,
                    const char *detail);
void jobs_settle(struct centre *c, struct job *job);

#endif
