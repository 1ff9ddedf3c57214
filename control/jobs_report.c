/* What nodes say of their runs, and what becomes of a job by it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "control/jobs.h"
#include "control/wire/job_run.h"

/* --- one copy --- */

static void set_result(Star__JobCopy *copy, Star__JobRunReport *own)
{
    if (copy->result)
        star__job_run_report__free_unpacked(copy->result, NULL);
    copy->result = own;
}

static void let_go(struct centre *c, struct job *job, uint32_t k)
{
    if (job->copies[k].queued)
        job_queue_remove(c->jobs->queue, job->id, k + 1);
    job->copies[k].queued = false;
    job->copies[k].ready = 0;
    jobs_site_remove(job, k);
    c->jobs->place = true;
}

void jobs_copy_gone(struct centre *c, struct job *job, unsigned k, Star__JobEnd end,
                    const char *detail)
{
    Star__JobRunReport r = STAR__JOB_RUN_REPORT__INIT;

    let_go(c, job, k);
    r.end = end;
    r.detail = (char *)(uintptr_t)detail;
    set_result(job->row->copies[k], (Star__JobRunReport *)frame_copy(&r.base));
    job->row->copies[k]->state = end == STAR__JOB_END__END_LEASE ? STAR__JOB_RUN_STATE__RUN_UNKNOWN
                                                                 : STAR__JOB_RUN_STATE__RUN_ENDED;
    jobs_dirty(c, job);
    jobs_settle(c, job);
}

/* --- the job --- */

static void try_again(struct centre *c, struct job *job)
{
    Star__Job *row = job->row;

    row->retries--;
    c->jobs->count.retried++;
    for (uint32_t k = 0; k < row->n_copies; k++) {
        let_go(c, job, k);
        set_result(row->copies[k], NULL);
        row->copies[k]->placed = false;
        row->copies[k]->state = STAR__JOB_RUN_STATE__RUN_NONE;
        job->copies[k] = (struct job_copy){.job = job};
    }
    if (row->state != STAR__JOB_STATE__JOB_PENDING)
        c->jobs->pending++;
    row->state = STAR__JOB_STATE__JOB_PENDING;
    jobs_dirty(c, job);
    jobs_enqueue(c, job);
}

static const char *node_name(struct centre *c, uint32_t id)
{
    const struct node *n = node_find(c, id);

    return n ? n->name : "?";
}

/* Those that do not agree with the majority. */
static void name_the_odd(struct centre *c, struct job *job)
{
    const Star__Job *row = job->row;

    for (uint32_t k = 0; row->winner && k < row->n_copies; k++) {
        if (job_agree(row->copies[row->winner - 1], row->copies[k]))
            continue;
        jobs_set_why(job, "copy %u at node %s differs from the majority", k + 1,
                     node_name(c, row->copies[k]->node));
        events_add(&c->events, "job-odd", "job %" PRIu64 ": %s", job->id, row->why);
    }
}

static Star__JobState state_of(struct job *job, const Star__JobRunReport *r)
{
    switch (r->end) {
    case STAR__JOB_END__END_EXIT:
        if (r->status == 0)
            return STAR__JOB_STATE__JOB_DONE;
        jobs_set_why(job, "exit status %d", r->status);
        return STAR__JOB_STATE__JOB_FAILED;
    case STAR__JOB_END__END_SIGNAL:
        jobs_set_why(job, "signal %d", r->status);
        return STAR__JOB_STATE__JOB_FAILED;
    case STAR__JOB_END__END_MEMORY:
        jobs_set_why(job, "out of memory: it needs more than its %" PRIu64 " bytes",
                     job->row->memory);
        return STAR__JOB_STATE__JOB_FAILED;
    case STAR__JOB_END__END_TIME:
        jobs_set_why(job, "past its time, %u s", job->row->time_s);
        return STAR__JOB_STATE__JOB_TIMEOUT;
    case STAR__JOB_END__END_CANCELLED:
        return job->row->cancel ? STAR__JOB_STATE__JOB_CANCELLED : STAR__JOB_STATE__JOB_TIMEOUT;
    default:
        jobs_set_why(job, "%.200s", r->detail[0] ? r->detail : "it could not be run");
        return STAR__JOB_STATE__JOB_FAILED;
    }
}

static void no_majority(struct job *job)
{
    const Star__Job *row = job->row;

    jobs_set_why(job, "no majority of its %zu copies agrees", row->n_copies);
    for (uint32_t k = 0; k < row->n_copies; k++)
        if (row->copies[k]->result && row->copies[k]->result->end == STAR__JOB_END__END_FAILED &&
            row->copies[k]->result->detail[0]) {
            jobs_set_why(job, "no majority of its %zu copies agrees; copy %u: %.160s",
                         row->n_copies, k + 1, row->copies[k]->result->detail);
            return;
        }
}

static bool worth_a_try(const struct job *job, Star__JobState state)
{
    return job->row->retries > 0 && !job->row->cancel &&
           (state == STAR__JOB_STATE__JOB_FAILED || state == STAR__JOB_STATE__JOB_LOST);
}

void jobs_settle(struct centre *c, struct job *job)
{
    Star__Job *row = job->row;
    Star__JobState state = STAR__JOB_STATE__JOB_FAILED;
    uint32_t winner;

    if (job->over)
        return;
    switch (job_verdict(row, &winner)) {
    case JOB_VERDICT_WAIT:
        return;
    case JOB_VERDICT_RESULT:
        state = state_of(job, row->copies[winner - 1]->result);
        break;
    case JOB_VERDICT_LOST:
        jobs_set_why(job, "its node was lost");
        state = STAR__JOB_STATE__JOB_LOST;
        break;
    case JOB_VERDICT_SPLIT:
        no_majority(job);
        break;
    }
    if (worth_a_try(job, state)) {
        try_again(c, job);
        return;
    }
    if (row->cancel && state != STAR__JOB_STATE__JOB_DONE) {
        jobs_set_why(job, "cancelled");
        state = STAR__JOB_STATE__JOB_CANCELLED;
    }
    row->winner = winner;
    name_the_odd(c, job);
    jobs_over(c, job, state);
}

/* --- JOB_REPORT --- */

struct answer {
    Star__JobReportReply reply;
    size_t n;
    Star__JobRun *done[JOB_RUNS_MAX], *end[JOB_RUNS_MAX];
    Star__JobRun runs[JOB_RUNS_MAX];
};

static Star__JobRun *keep_run(struct answer *a, const Star__JobRun *run)
{
    Star__JobRun *own = &a->runs[a->n++];

    *own = *run;
    return own;
}

static void say_done(struct answer *a, const Star__JobRun *run)
{
    a->done[a->reply.n_done++] = keep_run(a, run);
}

static void say_end(struct answer *a, const Star__JobRun *run)
{
    a->end[a->reply.n_end++] = keep_run(a, run);
}

/* The copy that this is about, if it is the newest attempt, there, and has not ended. */
static struct job *job_meant(struct centre *c, const struct node *n, const Star__JobRun *run)
{
    struct job *job = jobs_known(c, run->job);

    if (!job || job->over || run->copy == 0 || run->copy > job->row->n_copies)
        return NULL;
    const Star__JobCopy *copy = job->row->copies[run->copy - 1];
    return copy->attempt == run->attempt && copy->node == n->id && copy->placed &&
                   !job_copy_ended(copy)
               ? job
               : NULL;
}

static void begins(struct centre *c, struct job *job, uint32_t k, const Star__JobRunReport *r)
{
    Star__JobCopy *copy = job->row->copies[k];

    job->copies[k].started = true;
    if (copy->state == STAR__JOB_RUN_STATE__RUN_RUNNING)
        return;
    copy->state = STAR__JOB_RUN_STATE__RUN_RUNNING;
    set_result(copy, (Star__JobRunReport *)frame_copy(&r->base));
    if (job->row->state == STAR__JOB_STATE__JOB_STARTING) {
        job->row->state = STAR__JOB_STATE__JOB_RUNNING;
        jobs_time_now(&job->row->began);
    }
    jobs_dirty(c, job);
}

static void ends(struct centre *c, struct job *job, uint32_t k, const Star__JobRunReport *r)
{
    Star__JobCopy *copy = job->row->copies[k];

    let_go(c, job, k);
    copy->state = STAR__JOB_RUN_STATE__RUN_ENDED;
    set_result(copy, (Star__JobRunReport *)frame_copy(&r->base));
    if (!copy->result) { /* no memory: the node keeps it, and says it again */
        copy->state = STAR__JOB_RUN_STATE__RUN_RUNNING;
        return;
    }
    if (r->began && !job->row->began)
        jobs_time_now(&job->row->began);
    if (r->began && job->row->began) {
        job->row->began->sec = r->began->sec;
        job->row->began->nsec = r->began->nsec;
    }
    jobs_dirty(c, job);
    jobs_settle(c, job);
}

static void one_report(struct centre *c, struct node *n, const Star__JobRunReport *r,
                       struct answer *a)
{
    struct job *job = r->run ? job_meant(c, n, r->run) : NULL;

    if (!r->run)
        return;
    if (!job) {
        if (r->state == STAR__JOB_RUN_STATE__RUN_RUNNING)
            say_end(a, r->run);
        else
            say_done(a, r->run);
        return;
    }
    uint32_t k = r->run->copy - 1;
    job->copies[k].hello = n->hellos;
    switch (r->state) {
    case STAR__JOB_RUN_STATE__RUN_RUNNING:
        begins(c, job, k, r);
        break;
    case STAR__JOB_RUN_STATE__RUN_ENDED:
        ends(c, job, k, r);
        if (!jobs_known(c, r->run->job) || job_copy_ended(job->row->copies[k]) ||
            job->row->copies[k]->attempt != r->run->attempt || !job->row->copies[k]->placed)
            say_done(a, r->run);
        break;
    case STAR__JOB_RUN_STATE__RUN_UNKNOWN:
        jobs_copy_gone(c, job, k, STAR__JOB_END__END_LEASE, "its node knows nothing of it");
        break;
    default:
        break;
    }
}

static void answer_report(struct op *op)
{
    struct answer *a = op->data;

    op_reply(op, op->status, &a->reply.base);
}

void serve_job_report(struct op *op)
{
    const Star__JobReport *q = (const Star__JobReport *)op->body;
    struct node *n = node_of_peer(op->c, op->peer);
    struct jobs *j = op->c->jobs;
    struct answer *a = n && q->n_runs <= JOB_RUNS_MAX ? calloc(1, sizeof(*a)) : NULL;

    if (!a) {
        op_reply(op, n && q->n_runs <= JOB_RUNS_MAX ? -ENOMEM : -EINVAL, NULL);
        return;
    }
    op->data = a;
    star__job_report_reply__init(&a->reply);
    a->reply.done = a->done;
    a->reply.end = a->end;
    for (size_t k = 0; k < q->n_runs; k++)
        one_report(op->c, n, q->runs[k], a);
    if (q->all) {
        n->jobs_known = true;
        jobs_node_changed(op->c, n);
        jobs_said_all(op->c, n);
    }
    op->next = answer_report;
    LL_APPEND2(j->answers, op, wait_next); /* of many nodes one each: short */
}
