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
#include "control/job_waits.h"

/* Rows in one entry, some 300 bytes each, and one such entry in a turn of the loop: a few
 * milliseconds at most, in which nothing else is answered. The next turn goes on; so with what
 * follows. */
#define JOBS_CHANGE_MAX 512
#define JOBS_PLACE_MAX  256
#define JOBS_ROWS_MAX   256  /* of a new array */
#define JOBS_WORK_MAX   256  /* jobs taken from the state, looked at, freed to run or failed */
#define JOBS_LOOK_MAX   4096 /* runs looked at by the tick */
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

/* What is left to be done for a batch, some of it in each turn. */
enum job_work {
    JOB_WORK_NONE,
    JOB_WORK_LOOK, /* at those that come first */
    JOB_WORK_FREE, /* all of its jobs may run */
    JOB_WORK_FAIL  /* none may: `failed` ended badly */
};

#define JOBS_WAIT_BOUNDS 7
extern const uint32_t jobs_wait_bounds[JOBS_WAIT_BOUNDS]; /* milliseconds */

/* One spec, and the jobs that have it. */
struct job_batch {
    uint64_t id;
    unsigned users;
    char *text; /* what spec lies in besides its own */
    struct job_spec spec;
    /* Jobs that come first: looked at one after the other, from here on. */
    size_t range;
    uint64_t next, watched; /* watched: has not ended; 0: none */
    bool waits;             /* what is left of its ranges is in jobs->waits */
    uint64_t failed;
    struct job_batch *w_prev, *w_next;
    struct job *jobs; /* list by b_prev, b_next */
    enum job_work work;
    struct job *at;                    /* FREE, FAIL: the next one */
    struct job_batch *k_prev, *k_next; /* of those that have work */
    UT_hash_handle hh;
};

/* Batches that wait for one job. */
struct job_watch {
    uint64_t id;
    struct job_batch *batches;
    bool woken;                        /* it has ended, and they look on, some in each turn */
    struct job_watch *prev, *next_one; /* of those */
    UT_hash_handle hh;
};

struct job_copy {
    bool queued;      /* job_queue has it, waiting or placed */
    bool started;     /* the node has it on its disk */
    bool sending;     /* JOB_START is on its way */
    uint64_t ready;   /* JOB_START goes when this change is in the log; READY_NEXT: the next one */
    uint32_t hello;   /* the node's connection that has heard or said something of it */
    uint32_t refused; /* so often, by its node */
    struct job *job;
    struct job_site *site; /* where it is placed and has not ended; NULL */
    struct job_copy *s_prev, *s_next;
};
#define READY_NEXT UINT64_MAX

/* The runs that are placed at one node and have not ended. */
struct job_site {
    uint32_t node;
    struct job_copy *runs; /* list by s_prev, s_next */
    int64_t looked_ms;
    unsigned left; /* of them, in this round of the tick */
    UT_hash_handle hh;
};

struct job {
    uint64_t id;
    Star__Job *row;
    struct job_batch *batch;
    bool dirty, over; /* over: the row says how it ended */
    int64_t told_ms;  /* when it was told to end, last */
    struct job *d_next, *b_prev, *b_next;
    UT_hash_handle hh;
    struct job_copy copies[]; /* as many as the row has */
};

/* Jobs that are in the state, and not in memory yet: large arrays. */
struct job_untaken {
    uint64_t next, last;
    struct job_untaken *prev, *next_one;
};

/* A large array whose rows are being made. */
struct job_fill {
    struct centre *c;
    uint64_t batch, next, last;
    bool sent;      /* an entry is on its way */
    struct op *ops; /* who gave it, and waits (list by wait_next) */
    struct job_fill *prev, *next_one;
};

/* A spec that was handed in, until its jobs are in the log. */
struct job_ask {
    struct op *op;
    const char *text; /* the op's */
    size_t len;
    uint32_t who, node;
    struct job_spec spec;
    bool parsed, logged; /* spec is there; it is on its way into the log */
    /* Jobs that come first: those before these were looked at, and are in jobs->waits. */
    size_t range;
    uint64_t next;
    struct job_ask *prev, *next_one;
};

/* Jobs that are being forgotten: on their way out of the log. */
struct job_forget;

struct job_ended {
    uint64_t id;
    int64_t sec;
};

struct jobs {
    struct job_queue *queue;
    struct job *all;
    struct job_batch *batches;
    struct job_watch *watches, *woken;
    struct job_waits *waits; /* which jobs batches wait for */
    struct job_site *sites;
    struct job_untaken *untaken;
    uint64_t untaken_n; /* jobs */
    struct job_ask *asks;
    struct job_fill *fills;
    uint64_t unfilled_n; /* jobs */
    struct job_batch *working;
    struct job *dirty, *dirty_tail;
    unsigned dirty_n;
    struct op *answers; /* reports whose answers wait for the next change (list by wait_next) */
    uint64_t change;    /* number of the newest */
    bool place;         /* something may fit now */
    bool loaded;
    int64_t tick_ms;
    struct job_ended *ended; /* a ring, the oldest at ended_at */
    size_t ended_at, ended_n, ended_size;
    struct job_forget *forgets;
    uint64_t keep_max; /* the setting, as the tick saw it */
    bool forgetting;
    unsigned pending; /* of `all`, those that have no node */
    struct {
        uint64_t submitted, placed, done, failed, cancelled, timeout, lost, retried, refused;
    } count;
    /* How long runs waited until they were placed: so many up to each of jobs_wait_bounds. */
    uint64_t waited[JOBS_WAIT_BOUNDS + 1], waited_ms;
};

/* Jobs that have no node. */
static inline uint64_t jobs_pending(const struct jobs *j)
{
    return j->pending + j->untaken_n + j->unfilled_n;
}

/* --- jobs.c --- */
/* The job, if it has not ended; taken from the state if it was not yet. */
struct job *jobs_find(struct centre *c, uint64_t id);
/* The same, but only if it is in memory. */
struct job *jobs_known(struct centre *c, uint64_t id);
void jobs_dirty(struct centre *c, struct job *job);
bool jobs_state_is_over(Star__JobState state);
const char *jobs_state_name(Star__JobState state);
void jobs_set_why(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The job ends so; whoever waits for it hears of it. */
void jobs_over(struct centre *c, struct job *job, Star__JobState state);
/* From the state into memory, when they were submitted: some now, the others turn by turn. */
void jobs_take(struct centre *c, uint64_t first, uint64_t last);
void jobs_time_now(Star__Time **t);

/* --- jobs_after.c: batches, and what comes before them --- */
struct job_batch *job_batch_get(struct centre *c,
                                uint64_t id); /* made if needed; NULL: no memory */
/* One user less; it may be gone then. */
void job_batch_drop(struct centre *c, struct job_batch *b);
int job_batch_spec(struct centre *c, struct job_batch *b); /* b->spec is there from now on */
/* What was placed by the leader before this one is at its node, or will be when it is told again.
 */
void jobs_begin(struct centre *c, struct job *job);
/* The batch does not come to it any more. */
void jobs_skip(struct job_batch *b, const struct job *job);
/* Those that waited for this job look on. */
void jobs_wake_watchers(struct centre *c, uint64_t id);
/* A part of what is to be done for batches. true: some is left. */
bool jobs_work(struct centre *c);

/* --- jobs_ended.c: those that have ended, until they are forgotten --- */
int jobs_ended_add(struct jobs *j, uint64_t id, int64_t sec); /* -ENOMEM */
void jobs_ended_sort(struct jobs *j);
/* Forgets some, if there are too many. */
void jobs_ended_bound(struct centre *c);
void jobs_ended_tick(struct centre *c);
/* One of these numbers that an entry under way to the log forgets; 0: none. */
uint64_t jobs_being_forgotten(const struct jobs *j, uint64_t first, uint64_t last);

/* --- jobs_held.c: where a job's inputs lie (job_queue_holders; the context is the centre) --- */
job_queue_holders jobs_held;
/* The numbers that may stand in its files' names. */
struct job_spec_member jobs_member(const struct job *job, uint32_t k);

/* --- jobs_ask.c: whether a spec's jobs may be --- */
/* NULL: no memory. It goes with the op. */
struct job_ask *jobs_ask_new(struct op *op, uint32_t who, const char *text, size_t len);
/* Looks at jobs that come first, about so many as are left: 1: at all of them; 0: it goes on in the
 * next turn; else it is refused, for that reason. What was looked at is not forgotten as long as
 * this is there. */
int jobs_ask_look(struct centre *c, struct job_ask *a, unsigned *left, char why[JOB_SPEC_WHY]);
/* Whether there is or may come what they need; a->node. */
int jobs_ask_room(struct centre *c, struct job_ask *a, char why[JOB_SPEC_WHY]);

/* --- jobs_submit.c --- */
/* true: some is left. */
bool jobs_ask_turn(struct centre *c);
void jobs_submit(struct op *op, const char *text, size_t len);
/* The batch's rows that are not there yet are made; then op (NULL: nobody) is answered. -ENOENT:
 * all are there. */
int jobs_fill(struct centre *c, uint64_t batch, struct op *op);
void jobs_fill_turn(struct centre *c);
int jobs_fills_load(struct centre *c);
void jobs_fills_free(struct jobs *j);

/* --- jobs_run.c --- */
void jobs_enqueue(struct centre *c, struct job *job);
void jobs_place(struct centre *c);
void jobs_start_ready(struct centre *c, struct job *job, uint64_t change);
void jobs_cancel(struct centre *c, struct job *job, const char *why);
int jobs_send_signal(struct centre *c, struct job *job, int number);

void jobs_tell_all_to_end(struct centre *c, struct job *job, const char *why);
/* JOB_START, if the node is there and has not got it. */
void jobs_start_copy(struct centre *c, struct job *job, uint32_t k);

/* --- jobs_sites.c: the runs of each node --- */
int jobs_site_add(struct centre *c, struct job *job, uint32_t k); /* -ENOMEM */
void jobs_site_remove(struct job *job, uint32_t k);
void jobs_sites_free(struct jobs *j);
/* The node has said all that it has: what it has not named is not there. */
void jobs_said_all(struct centre *c, struct node *n);
void jobs_sites_tick(struct centre *c, int64_t now);

/* --- jobs_report.c --- */
/* The copy has ended without a result of its own: lost, refused, or never begun. */
void jobs_copy_gone(struct centre *c, struct job *job, unsigned copy, Star__JobEnd end,
                    const char *detail);
void jobs_settle(struct centre *c, struct job *job);

#endif
