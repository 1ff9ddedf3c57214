/* Batches: the jobs of one spec, and what must have ended well before they run. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/jobs.h"

/* --- batches --- */

int job_batch_spec(struct centre *c, struct job_batch *b)
{
    char why[JOB_SPEC_WHY];
    size_t len;

    if (b->text)
        return 0;
    int rc = state_job_spec(c->state, b->id, &b->text, &len);
    if (rc == 0)
        rc = job_spec_parse(b->text, len, &b->spec, why);
    if (rc < 0) {
        free(b->text);
        b->text = NULL;
    }
    return rc;
}

struct job_batch *job_batch_get(struct centre *c, uint64_t id)
{
    struct job_batch *b;

    HASH_FIND(hh, c->jobs->batches, &id, sizeof(id), b);
    if (!b && (b = calloc(1, sizeof(*b)))) {
        b->id = id;
        HASH_ADD(hh, c->jobs->batches, id, sizeof(b->id), b);
    }
    return b;
}

static void unwatch(struct centre *c, struct job_batch *b)
{
    struct job_watch *w;

    if (!b->watched)
        return;
    HASH_FIND(hh, c->jobs->watches, &b->watched, sizeof(b->watched), w);
    b->watched = 0;
    if (!w)
        return;
    DL_DELETE2(w->batches, b, w_prev, w_next);
    if (w->batches)
        return;
    if (w->woken)
        DL_DELETE2(c->jobs->woken, w, prev, next_one);
    HASH_DEL(c->jobs->watches, w);
    free(w);
}

/* It waits for none of those that are left any more. */
static void waits_end(struct centre *c, struct job_batch *b)
{
    for (size_t k = b->range; b->waits && k < b->spec.after_n; k++)
        job_waits_remove(&c->jobs->waits, b->spec.after[k].first, b->spec.after[k].last);
    b->waits = false;
}

void job_batch_drop(struct centre *c, struct job_batch *b)
{
    if (--b->users > 0)
        return;
    unwatch(c, b);
    waits_end(c, b);
    HASH_DEL(c->jobs->batches, b);
    if (b->text) {
        job_spec_free(&b->spec);
        free(b->text);
    }
    free(b);
}

/* --- what is to be done, turn by turn --- */

static void work_begins(struct centre *c, struct job_batch *b, enum job_work work)
{
    if (b->work == JOB_WORK_NONE) {
        b->users++;
        DL_APPEND2(c->jobs->working, b, k_prev, k_next);
    }
    b->work = work;
    b->at = b->jobs;
}

static void work_ends(struct centre *c, struct job_batch *b)
{
    b->work = JOB_WORK_NONE;
    DL_DELETE2(c->jobs->working, b, k_prev, k_next);
    job_batch_drop(c, b);
}

void jobs_skip(struct job_batch *b, const struct job *job)
{
    if (b->at == job)
        b->at = job->b_next;
}

/* --- what comes first --- */

/* What is left of the ranges counts as waited for, so that none of them is forgotten. */
static int waits_begin(struct centre *c, struct job_batch *b)
{
    size_t k = b->range;
    int rc = 0;

    if (b->waits)
        return 0;
    for (; rc == 0 && k < b->spec.after_n; k++)
        rc = job_waits_add(&c->jobs->waits, b->spec.after[k].first, b->spec.after[k].last);
    b->waits = rc == 0;
    if (rc < 0) /* the last one was not added */
        for (size_t n = b->range; n + 1 < k; n++)
            job_waits_remove(&c->jobs->waits, b->spec.after[n].first, b->spec.after[n].last);
    return rc;
}

static int watch(struct centre *c, struct job_batch *b, uint64_t id)
{
    struct job_watch *w;

    HASH_FIND(hh, c->jobs->watches, &id, sizeof(id), w);
    if (!w) {
        w = calloc(1, sizeof(*w));
        if (!w)
            return -ENOMEM;
        w->id = id;
        HASH_ADD(hh, c->jobs->watches, id, sizeof(w->id), w);
    }
    b->watched = id;
    DL_APPEND2(w->batches, b, w_prev, w_next);
    return 0;
}

/* 1: it has ended well, 0: it has not ended, -1: it ended badly. One that was forgotten had ended
 * well: others are kept while somebody waits for them. */
static int outcome(struct centre *c, uint64_t id)
{
    const struct job *live = jobs_find(c, id);
    Star__Job *row;
    int is = 1;

    if (live && !live->over)
        return 0;
    if (live)
        return live->row->state == STAR__JOB_STATE__JOB_DONE ? 1 : -1;
    if (state_job(c->state, id, &row) == 0) {
        is = row->state == STAR__JOB_STATE__JOB_DONE ? 1 : -1;
        star__job__free_unpacked(row, NULL);
    }
    return is;
}

static void range_is_done(struct centre *c, struct job_batch *b)
{
    const struct job_range *r = &b->spec.after[b->range++];

    if (b->waits)
        job_waits_remove(&c->jobs->waits, r->first, r->last);
}

static void batch_fails(struct centre *c, struct job_batch *b, uint64_t dependency)
{
    waits_end(c, b);
    b->failed = dependency;
    work_begins(c, b, JOB_WORK_FAIL);
}

/* Looks on among those that come first: true: there are none any more. false: it waits for one, or
 * fails, or goes on next turn, with what is left in *left. */
static bool batch_looks(struct centre *c, struct job_batch *b, unsigned *left)
{
    if (waits_begin(c, b) < 0) {
        batch_fails(c, b, b->spec.after[b->range].first);
        return false;
    }
    while (b->range < b->spec.after_n) {
        const struct job_range *r = &b->spec.after[b->range];
        if (b->next < r->first)
            b->next = r->first;
        for (; b->next <= r->last; b->next++) {
            if (*left == 0) {
                work_begins(c, b, JOB_WORK_LOOK);
                return false;
            }
            --*left;
            int is = outcome(c, b->next);
            if (is > 0)
                continue;
            if (is < 0 || watch(c, b, b->next) < 0)
                batch_fails(c, b, b->next);
            return false;
        }
        range_is_done(c, b);
    }
    b->waits = false;
    return true;
}

static void fail(struct centre *c, struct job *job)
{
    jobs_set_why(job, "dependency %" PRIu64, job->batch->failed);
    jobs_over(c, job, STAR__JOB_STATE__JOB_FAILED);
}

void jobs_begin(struct centre *c, struct job *job)
{
    struct job_batch *b = job->batch;
    unsigned left = 0;

    if (job->row->after && job->row->attempt == 0) {
        int rc = job_batch_spec(c, b);
        if (rc < 0) {
            jobs_set_why(job, "its spec cannot be read: %s", strerror(-rc));
            jobs_over(c, job, STAR__JOB_STATE__JOB_FAILED);
            return;
        }
        if (b->failed) {
            fail(c, job);
            return;
        }
        /* What the turn looks at comes to this job, too. */
        if (b->watched || b->work == JOB_WORK_LOOK || !batch_looks(c, b, &left))
            return;
    }
    if (!job->over)
        jobs_enqueue(c, job);
}

void jobs_wake_watchers(struct centre *c, uint64_t id)
{
    struct job_watch *w;

    HASH_FIND(hh, c->jobs->watches, &id, sizeof(id), w);
    if (!w || w->woken)
        return;
    w->woken = true;
    DL_APPEND2(c->jobs->woken, w, prev, next_one);
}

/* --- a turn --- */

static void work_on_jobs(struct centre *c, struct job_batch *b, unsigned *left)
{
    while (*left > 0 && b->at) {
        struct job *job = b->at;
        b->at = job->b_next;
        --*left;
        if (job->over)
            continue;
        if (b->work == JOB_WORK_FREE)
            jobs_enqueue(c, job);
        else
            fail(c, job);
    }
    if (!b->at)
        work_ends(c, b);
}

/* In memory they begin as they do when they are submitted. */
static void take_some(struct centre *c, unsigned *left)
{
    struct jobs *j = c->jobs;
    struct job_untaken *u;

    while (*left > 0 && (u = j->untaken)) {
        uint64_t id = u->next++;
        --*left;
        j->untaken_n--;
        if (u->next > u->last) {
            DL_DELETE2(j->untaken, u, prev, next_one);
            free(u);
        }
        jobs_take(c, id, id);
    }
}

static void wake_some(struct centre *c, unsigned *left)
{
    while (*left > 0 && c->jobs->woken) {
        struct job_batch *b = c->jobs->woken->batches;
        unwatch(c, b); /* ends the watch with its last one */
        work_begins(c, b, JOB_WORK_LOOK);
        --*left;
    }
}

bool jobs_work(struct centre *c)
{
    struct jobs *j = c->jobs;
    unsigned left = JOBS_WORK_MAX;
    struct job_batch *b;

    wake_some(c, &left);
    while (left > 0 && (b = j->working)) {
        if (b->work == JOB_WORK_LOOK) {
            unsigned before = left;
            b->work = JOB_WORK_FREE; /* unless it finds something else */
            if (batch_looks(c, b, &left))
                b->at = b->jobs;
            else if (b->work == JOB_WORK_FREE)
                work_ends(c, b); /* it waits for one */
            if (left == before)
                left--;
            continue;
        }
        work_on_jobs(c, b, &left);
    }
    take_some(c, &left);
    return j->woken || j->working || j->untaken;
}
