/* Jobs: those that have not ended, what they wait for, and their way into the log. */
#include "control/jobs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "control/wire/stamp.h"

const uint32_t jobs_wait_bounds[JOBS_WAIT_BOUNDS] = {10, 100, 1000, 10000, 60000, 600000, 3600000};

struct job *jobs_known(struct centre *c, uint64_t id)
{
    struct job *job;

    HASH_FIND(hh, c->jobs->all, &id, sizeof(id), job);
    return job;
}

bool jobs_state_is_over(Star__JobState state)
{
    return state >= STAR__JOB_STATE__JOB_DONE;
}

const char *jobs_state_name(Star__JobState state)
{
    static const char *const names[] = {"pending", "starting",  "running", "ending", "done",
                                        "failed",  "cancelled", "timeout", "lost"};

    return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

void jobs_set_why(struct job *job, const char *format, ...)
{
    char text[JOB_SPEC_WHY];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    char *copy = strdup(text);
    if (!copy)
        return; /* only a text for people */
    if (job->row->why != protobuf_c_empty_string)
        free(job->row->why);
    job->row->why = copy;
}

void jobs_time_now(Star__Time **t)
{
    if (!*t && !(*t = malloc(sizeof(**t))))
        return; /* unknown is told as such */
    **t = stamp_of(clock_real());
}

/* --- memory --- */

static void job_free(struct centre *c, struct job *job)
{
    struct job_batch *b = job->batch;

    for (uint32_t k = 0; k < job->row->n_copies; k++)
        jobs_site_remove(job, k);
    jobs_skip(b, job);
    demand_skip(c, job);
    HASH_DEL(c->jobs->all, job);
    DL_DELETE2(b->jobs, job, b_prev, b_next);
    star__job__free_unpacked(job->row, NULL);
    free(job);
    job_batch_drop(c, b);
}

/* The row is the job's from now on. */
static int job_add(struct centre *c, Star__Job *row)
{
    struct job *job = calloc(1, sizeof(*job) + row->n_copies * sizeof(job->copies[0]));
    struct job_batch *b = job ? job_batch_get(c, row->batch) : NULL;

    if (!b) {
        free(job);
        star__job__free_unpacked(row, NULL);
        return -ENOMEM;
    }
    job->id = row->id;
    job->row = row;
    job->batch = b;
    b->users++;
    for (uint32_t k = 0; k < row->n_copies; k++)
        job->copies[k].job = job;
    DL_APPEND2(b->jobs, job, b_prev, b_next);
    HASH_ADD(hh, c->jobs->all, id, sizeof(job->id), job);
    c->jobs->pending += row->state == STAR__JOB_STATE__JOB_PENDING;
    return 0;
}

/* 0, also if it is there already. */
static int take_one(struct centre *c, uint64_t id)
{
    Star__Job *row;

    if (jobs_known(c, id))
        return 0;
    int rc = state_job(c->state, id, &row);
    if (rc < 0)
        return rc;
    if (jobs_state_is_over(row->state)) {
        star__job__free_unpacked(row, NULL);
        return 0;
    }
    rc = job_add(c, row);
    if (rc == 0)
        jobs_begin(c, jobs_known(c, id));
    return rc;
}

static bool is_untaken(const struct jobs *j, uint64_t id)
{
    for (const struct job_untaken *u = j->untaken; u; u = u->next_one)
        if (id >= u->next && id <= u->last)
            return true;
    return false;
}

struct job *jobs_find(struct centre *c, uint64_t id)
{
    struct job *job = jobs_known(c, id);

    if (job || !is_untaken(c->jobs, id) || take_one(c, id) < 0)
        return job;
    return jobs_known(c, id);
}

static void take(struct centre *c, uint64_t id)
{
    int rc = take_one(c, id);

    if (rc < 0)
        events_add(&c->errors, "jobs", "job %" PRIu64 " waits for a restart of the centre: %s", id,
                   strerror(-rc));
}

void jobs_take(struct centre *c, uint64_t first, uint64_t last)
{
    struct jobs *j = c->jobs;
    struct job_untaken *u = last > first ? malloc(sizeof(*u)) : NULL;

    take(c, first); /* now, so that what all of them wait for counts as waited for */
    if (u) {
        *u = (struct job_untaken){.next = first + 1, .last = last};
        DL_APPEND2(j->untaken, u, prev, next_one);
        j->untaken_n += last - first;
        return;
    }
    while (++first <= last)
        take(c, first);
}

/* --- the end of a job --- */

static uint64_t *counter_of(struct jobs *j, Star__JobState state)
{
    switch (state) {
    case STAR__JOB_STATE__JOB_DONE:
        return &j->count.done;
    case STAR__JOB_STATE__JOB_CANCELLED:
        return &j->count.cancelled;
    case STAR__JOB_STATE__JOB_TIMEOUT:
        return &j->count.timeout;
    case STAR__JOB_STATE__JOB_LOST:
        return &j->count.lost;
    default:
        return &j->count.failed;
    }
}

void jobs_over(struct centre *c, struct job *job, Star__JobState state)
{
    struct jobs *j = c->jobs;

    if (job->row->state == STAR__JOB_STATE__JOB_PENDING)
        j->pending--;
    job->row->state = state;
    job->over = true;
    jobs_time_now(&job->row->ended);
    for (uint32_t k = 0; k < job->row->n_copies; k++) {
        if (job->copies[k].queued)
            job_queue_remove(j->queue, job->id, k + 1);
        jobs_site_remove(job, k);
    }
    j->place = true;
    (*counter_of(j, state))++;
    jobs_dirty(c, job);
}

/* --- into the log --- */

void jobs_dirty(struct centre *c, struct job *job)
{
    struct jobs *j = c->jobs;

    if (job->dirty)
        return;
    job->dirty = true;
    job->d_next = NULL;
    if (j->dirty_tail)
        j->dirty_tail->d_next = job;
    else
        j->dirty = job;
    j->dirty_tail = job;
    j->dirty_n++;
}

struct change {
    struct centre *c;
    uint64_t number;
    struct op *answers;
    size_t n;
    uint64_t ids[];
};

static void on_changed(void *arg, int status, const struct state_result *r)
{
    struct change *ch = arg;
    struct centre *c = ch->c;
    struct op *op;

    if (status == 0 && r->status < 0)
        log_error("jobs could not be changed: %s", strerror(-r->status));
    for (size_t k = 0; status == 0 && k < ch->n; k++) {
        struct job *job = jobs_known(c, ch->ids[k]);
        if (!job)
            continue;
        if (!job->over) {
            jobs_start_ready(c, job, ch->number);
            continue;
        }
        jobs_wake_watchers(c, job->id); /* from here, not from jobs_over(): chains may be long */
        if (!job->dirty) {
            /* No memory: it is found again at the next start. */
            (void)jobs_ended_add(c->jobs, job->id, job->row->ended ? job->row->ended->sec : 0);
            job_free(c, job);
        }
    }
    while ((op = ch->answers)) {
        ch->answers = op->wait_next;
        op->wait_next = NULL;
        op->status = status < 0 ? status : r->status;
        op->next(op);
    }
    free(ch);
}

static void mark_ready(struct job *job, uint64_t number)
{
    for (uint32_t k = 0; k < job->row->n_copies; k++)
        if (job->copies[k].ready == READY_NEXT)
            job->copies[k].ready = number;
}

/* One entry with what has changed. -errno: it is still to be written. */
static int changes_write(struct centre *c)
{
    struct jobs *j = c->jobs;
    Star__LogJobChange body = STAR__LOG_JOB_CHANGE__INIT;
    size_t n = j->dirty_n < JOBS_CHANGE_MAX ? j->dirty_n : JOBS_CHANGE_MAX;
    struct change *ch = calloc(1, sizeof(*ch) + n * sizeof(ch->ids[0]));
    Star__Job **rows = malloc((n + 1) * sizeof(*rows));
    struct job *job = j->dirty;
    int rc = ch && rows ? 0 : -ENOMEM;

    for (size_t k = 0; rc == 0 && k < n; k++, job = job->d_next) {
        rows[k] = job->row;
        ch->ids[k] = job->id;
    }
    if (rc == 0) {
        *ch = (struct change){.c = c, .number = j->change + 1, .n = n};
        body.n_jobs = n;
        body.jobs = rows;
        rc = centre_submit(c, STAR__LOG_TYPE__LOG_JOB_CHANGE, &body.base, CONSENSUS_NOW, on_changed,
                           ch);
    }
    if (rc < 0) {
        free(ch);
        goto out;
    }
    j->change++;
    for (size_t k = 0; k < n; k++) {
        job = j->dirty;
        j->dirty = job->d_next;
        job->dirty = false;
        mark_ready(job, j->change);
    }
    j->dirty_n -= (unsigned)n;
    if (!j->dirty) {
        j->dirty_tail = NULL;
        ch->answers = j->answers; /* all that they told is on its way */
        j->answers = NULL;
    }
out:
    free(rows);
    return rc;
}

void jobs_turn(struct centre *c)
{
    struct jobs *j = c->jobs;

    if (!j || !j->loaded || !c->leading)
        return;
    jobs_fill_turn(c);
    bool more = jobs_ask_turn(c);
    more |= jobs_work(c);
    more |= demand_turn(c);
    if (j->place && c->serving)
        jobs_place(c);
    int rc = j->dirty || j->answers ? changes_write(c) : 0; /* fails: the next turn tries again */
    jobs_ended_bound(c);
    more |= (j->place && c->serving) || (rc == 0 && (j->dirty || j->answers));
    centre_goes_on(c, more);
}

void jobs_tick(struct centre *c, int64_t now)
{
    struct jobs *j = c->jobs;

    if (!j || !j->loaded)
        return;
    jobs_sites_tick(c, now);
    if (now - j->tick_ms < JOBS_TICK_MS)
        return;
    j->tick_ms = now;
    j->place = true;
    jobs_ended_tick(c);
}

/* --- begin, end --- */

struct loading {
    struct centre *c;
    int rc;
};

static bool load_one(void *arg, const Star__Job *row)
{
    struct loading *l = arg;

    if (jobs_state_is_over(row->state)) {
        l->rc = jobs_ended_add(l->c->jobs, row->id, row->ended ? row->ended->sec : 0);
        return l->rc == 0;
    }
    Star__Job *own = (Star__Job *)frame_copy(&row->base);
    l->rc = own ? job_add(l->c, own) : -ENOMEM;
    return l->rc == 0;
}

int jobs_load(struct centre *c)
{
    struct loading l = {.c = c};
    struct job *job, *tmp;
    struct jobs *j = calloc(1, sizeof(*j));

    if (!j)
        return -ENOMEM;
    c->jobs = j;
    int rc =
        job_queue_make(&j->queue, &(struct job_queue_rules){.holders = jobs_held, .context = c});
    if (rc == 0)
        rc = state_jobs(c->state, 0, load_one, &l);
    if (rc == 0)
        rc = l.rc;
    if (rc < 0)
        return rc;
    jobs_ended_sort(j);
    HASH_ITER (hh, j->all, job, tmp) {
        if (!job->over)
            jobs_begin(c, job);
    }
    rc = jobs_fills_load(c);
    if (rc < 0)
        return rc;
    j->keep_max = setting_u64(c, "job_keep_max");
    j->loaded = true;
    return 0;
}

void jobs_free_all(struct centre *c)
{
    struct jobs *j = c->jobs;
    struct job *job, *tmp;

    if (!j)
        return;
    while (j->working) { /* they would go with their last job otherwise */
        struct job_batch *b = j->working;
        DL_DELETE2(j->working, b, k_prev, k_next);
        job_batch_drop(c, b);
    }
    while (j->untaken) {
        struct job_untaken *u = j->untaken;
        DL_DELETE2(j->untaken, u, prev, next_one);
        free(u);
    }
    HASH_ITER (hh, j->all, job, tmp)
        job_free(c, job);
    job_waits_free(&j->waits);
    jobs_sites_free(j);
    jobs_fills_free(j);
    job_queue_free(j->queue);
    free(j->ended);
    free(j);
    c->jobs = NULL;
}
