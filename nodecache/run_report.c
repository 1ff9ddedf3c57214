/* The thread that tells the centre of runs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "control/wire/stamp.h"
#include "nodecache/deadline.h"
#include "nodecache/run_table.h"

/* Ends that come together go together; while a report is under way, the next one gathers. */
#define GATHER_MS 5
/* A run that is over sooner is told of once, when it is. */
#define RUNNING_MS 200
/* After a report that failed, and of ends that the centre has not confirmed. */
#define AGAIN_MS 1000

struct batch {
    Star__JobReport m;
    Star__JobRunReport *list[JOB_RUNS_MAX];
    Star__JobRunReport running[JOB_RUNS_MAX];
    Star__JobRun keys[JOB_RUNS_MAX];
    Star__Time began[JOB_RUNS_MAX];
    struct run_key over[JOB_RUNS_MAX]; /* results in list that are the table's own */
    size_t n_running;
};

/* ---- what is to be told; lock is held */

static bool due(const struct run *run, int64_t now)
{
    if (run->state == RUN_OVER)
        return !run->told || now - run->told_ms >= AGAIN_MS;
    return run->state == RUN_GOES && !run->told && now - run->began_ms >= RUNNING_MS;
}

static void add_running(struct batch *b, const struct run *run)
{
    size_t i = b->n_running++;
    Star__JobRunReport *m = &b->running[i];

    star__job_run_report__init(m);
    star__job_run__init(&b->keys[i]);
    b->keys[i].job = run->key.job;
    b->keys[i].copy = run->key.copy;
    b->keys[i].attempt = run->key.attempt;
    b->began[i] = stamp_of(run->began);
    m->run = &b->keys[i];
    m->began = &b->began[i];
    m->state = STAR__JOB_RUN_STATE__RUN_RUNNING;
    b->list[b->m.n_runs++] = m;
}

/* Results stay where they are: only this thread drops runs that are over. */
static void gather(struct runs *r, struct batch *b)
{
    int64_t now = clock_boot_ms();
    struct run *run, *next;

    star__job_report__init(&b->m);
    b->m.runs = b->list;
    b->m.all = r->all_due;
    b->n_running = 0;
    r->tell = false;
    HASH_ITER (hh, r->table, run, next) {
        if (b->m.n_runs == JOB_RUNS_MAX ||
            (!due(run, now) && !(r->all_due && run->state != RUN_NOTING)))
            continue;
        if (run->state == RUN_OVER && !run->result)
            continue; /* no memory for it; found again at the next start */
        run->told = true;
        run->told_ms = now;
        if (run->state == RUN_OVER)
            b->list[b->m.n_runs++] = run->result;
        else
            add_running(b, run);
    }
}

/* When there may be something to tell again; lock is held. */
static int next_ms(const struct runs *r, int64_t now)
{
    int64_t next = AGAIN_MS;

    for (const struct run *run = r->table; run; run = run->hh.next) {
        int64_t in = next;
        if (run->state == RUN_OVER)
            in = run->told ? run->told_ms + AGAIN_MS - now : 0;
        else if (run->state == RUN_GOES && !run->told)
            in = run->began_ms + RUNNING_MS - now;
        next = in < next ? in : next;
    }
    return next < 1 ? 1 : (int)next;
}

/* ---- what the centre answers */

static struct run_key key_of(const Star__JobRun *m)
{
    return (struct run_key){.job = m->job, .copy = m->copy, .attempt = m->attempt};
}

/* Nobody needs it any more. */
static void forget(struct runs *r, const struct run_key *key)
{
    char name[RUN_NAME_MAX];

    pthread_mutex_lock(&r->lock);
    struct run *run = runs_find(r, key);
    bool over = run && run->state == RUN_OVER;
    pthread_mutex_unlock(&r->lock);
    if (!over)
        return;
    /* First the folder: what is not known could be started once more under its name. */
    run_key_name(key, name);
    int rc = run_folder_remove(r->jobs, name);
    if (rc < 0)
        log_warning("the folder of run %s: %s", name, strerror(-rc));
    pthread_mutex_lock(&r->lock);
    runs_drop(r, run);
    pthread_mutex_unlock(&r->lock);
}

static void end_one(struct runs *r, const Star__JobRun *m)
{
    struct run_key key = key_of(m);
    Star__JobSignal s = STAR__JOB_SIGNAL__INIT;
    char why[] = "it counts no more", detail[RUN_DETAIL] = "";

    s.run = (Star__JobRun *)(uintptr_t)m;
    s.end = true;
    s.why = why;
    if (runs_job_signal(r, &s, detail) == -ESRCH)
        forget(r, &key);
}

static void take_answer(struct runs *r, const Star__JobReportReply *a)
{
    for (size_t i = 0; i < a->n_done; i++) {
        struct run_key key = key_of(a->done[i]);
        forget(r, &key);
    }
    for (size_t i = 0; i < a->n_end; i++)
        end_one(r, a->end[i]);
}

/* ---- the thread */

/* lock is held. */
static void tell_again(struct runs *r, const struct batch *b)
{
    struct run *run, *next;

    (void)b;
    HASH_ITER (hh, r->table, run, next)
        run->told = false;
}

static void send_batch(struct runs *r, struct batch *b)
{
    Star__JobReportReply *answer = NULL;
    bool all = b->m.all;
    int64_t said_ms = clock_boot_ms();
    int rc = r->options.report(r->options.ctx, &b->m, &answer);

    if (rc == 0 && answer)
        take_answer(r, answer);
    if (answer)
        star__job_report_reply__free_unpacked(answer, NULL);
    pthread_mutex_lock(&r->lock);
    if (rc < 0) {
        struct timespec until = deadline_in(AGAIN_MS);
        tell_again(r, b);
        r->all_due = r->all_due || all;
        while (!r->stop && pthread_cond_timedwait(&r->changed, &r->lock, &until) == 0)
            ;
    } else if (all && !r->all_due) {
        r->all_said = true; /* no HELLO came in between */
        runs_move_lease(r, said_ms);
    }
    pthread_mutex_unlock(&r->lock);
}

/* false: stop. */
static bool wait_turn(struct runs *r)
{
    struct timespec until;

    pthread_mutex_lock(&r->lock);
    until = deadline_in(r->connected && !r->tell ? next_ms(r, clock_boot_ms()) : AGAIN_MS);
    while (!r->stop && !(r->connected && r->tell))
        if (pthread_cond_timedwait(&r->changed, &r->lock, &until) == ETIMEDOUT)
            break;
    bool gathers = !r->stop && r->tell && !r->all_due;
    if (gathers) {
        until = deadline_in(GATHER_MS);
        while (!r->stop && pthread_cond_timedwait(&r->changed, &r->lock, &until) == 0)
            ;
    }
    bool go_on = !r->stop;
    pthread_mutex_unlock(&r->lock);
    return go_on;
}

void *runs_report(void *arg)
{
    struct runs *r = arg;
    struct batch *b = calloc(1, sizeof(*b));

    prctl(PR_SET_NAME, "runs-report");
    if (!b)
        log_error("no memory to report runs of jobs");
    while (b && wait_turn(r)) {
        pthread_mutex_lock(&r->lock);
        bool any = r->connected;
        if (any)
            gather(r, b);
        any = any && (b->m.n_runs > 0 || b->m.all);
        if (any && b->m.all)
            r->all_due = false;
        pthread_mutex_unlock(&r->lock);
        if (any)
            send_batch(r, b);
    }
    free(b);
    return NULL;
}
