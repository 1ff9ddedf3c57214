/* A spec becomes a job: what .umbel/jobs/new is told. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/jobs.h"

static struct node *node_called(struct centre *c, const char *name)
{
    struct node *n;

    for (n = c->nodes; n; n = n->hh.next)
        if (strcmp(n->name, name) == 0 && strcmp(n->state, "gone") != 0)
            return n;
    return NULL;
}

static int owner_of(struct centre *c, uint64_t id, uint32_t *uid, uint64_t *batch)
{
    const struct job *live = jobs_known(c, id);
    Star__Job *row;

    if (live) {
        *uid = live->row->cred->uid;
        *batch = live->row->batch;
        return 0;
    }
    int rc = state_job(c->state, id, &row);
    if (rc < 0)
        return rc;
    *uid = row->cred->uid;
    *batch = row->batch;
    star__job__free_unpacked(row, NULL);
    return 0;
}

/* A job up to `last` that is surely of that batch, as `id` is: whoever is one's owner is all's. */
static uint64_t batch_until(struct centre *c, uint64_t id, uint64_t last, uint64_t batch)
{
    uint64_t step = 1, other;
    uint32_t uid;

    while (step <= last - id && owner_of(c, id + step, &uid, &other) == 0 && other == batch) {
        id += step;
        step *= 2;
    }
    return id;
}

static int check_range(struct centre *c, const struct job_range *r, uint32_t who,
                       char why[JOB_SPEC_WHY])
{
    uint64_t id, batch = 0;
    uint32_t uid;
    int rc = state_job_missing(c->state, r->first, r->last, &id);

    if (rc > 0) {
        snprintf(why, JOB_SPEC_WHY,
                 "line %u: after: job %" PRIu64 " is not known any more: leave it out", r->line,
                 id);
        return -EINVAL;
    }
    for (id = r->first; rc == 0 && who != 0 && id <= r->last; id++) {
        rc = owner_of(c, id, &uid, &batch);
        if (rc == 0 && uid != who) {
            snprintf(why, JOB_SPEC_WHY,
                     "line %u: after: job %" PRIu64 " is another user's: name your own", r->line,
                     id);
            return -EACCES;
        }
        if (rc == 0)
            id = batch_until(c, id, r->last, batch);
    }
    return rc;
}

/* All that it comes after must still be known, and be its submitter's: how others' jobs end is
 * theirs to know, and what is waited for cannot be forgotten. */
static int check_known(struct centre *c, const struct job_spec *spec, uint32_t who,
                       char why[JOB_SPEC_WHY])
{
    int rc = 0;

    for (size_t k = 0; rc == 0 && k < spec->after_n; k++)
        rc = check_range(c, &spec->after[k], who, why);
    return rc;
}

static int check(struct centre *c, const struct job_spec *spec, uint32_t who, uint32_t *node,
                 char why[JOB_SPEC_WHY])
{
    uint64_t most = setting_u64(c, "job_queue_max");
    struct job_place_need need = {.milli_cpus = spec->milli_cpus, .memory = spec->memory};
    char reason[JOB_PLACE_WHY] = "";
    const struct node *n = spec->node[0] ? node_called(c, spec->node) : NULL;

    if (spec->node[0] && !n) {
        snprintf(why, JOB_SPEC_WHY, "there is no node '%.64s': `umbel status` names them",
                 spec->node);
        return -EINVAL;
    }
    *node = need.node = n ? n->id : 0;
    int rc = job_spec_check_after(spec, state_last_job(c->state) + 1, why);
    if (rc == 0)
        rc = check_known(c, spec, who, why);
    if (rc < 0)
        return rc;
    if (jobs_pending(c->jobs) + job_spec_jobs(spec) > most) {
        snprintf(why, JOB_SPEC_WHY,
                 "%" PRIu64 " jobs are pending, and job_queue_max is %" PRIu64
                 ": wait for some to end",
                 jobs_pending(c->jobs), most);
        return -EAGAIN;
    }
    rc = demand_could(c, &need, spec->copies, reason);
    if (rc < 0)
        snprintf(why, JOB_SPEC_WHY, "%.250s", reason);
    return rc;
}

static void answer(struct op *op, uint64_t first, uint64_t last)
{
    Star__CtlReply reply = STAR__CTL_REPLY__INIT;
    char text[64];

    if (first == last)
        snprintf(text, sizeof(text), "id %" PRIu64 "\n", first);
    else
        snprintf(text, sizeof(text), "id %" PRIu64 "-%" PRIu64 "\n", first, last);
    reply.text = text;
    op_reply(op, 0, &reply.base);
}

/* --- large arrays: their rows come in several entries, one in a turn --- */

static struct job_fill *fill_find(struct jobs *j, uint64_t batch)
{
    struct job_fill *f;

    for (f = j->fills; f && f->batch != batch; f = f->next_one)
        ;
    return f;
}

int jobs_fill(struct centre *c, uint64_t batch, struct op *op)
{
    struct job_fill *f = fill_find(c->jobs, batch);
    uint64_t next, last;

    if (!f) {
        int rc = state_job_rest(c->state, batch, &next, &last);
        if (rc < 0)
            return rc;
        f = malloc(sizeof(*f));
        if (!f)
            return -ENOMEM;
        *f = (struct job_fill){.c = c, .batch = batch, .next = next, .last = last};
        DL_APPEND2(c->jobs->fills, f, prev, next_one);
        c->jobs->unfilled_n += last - next + 1;
    }
    if (op)
        LL_APPEND2(f->ops, op, wait_next);
    return 0;
}

/* All rows are there: so much is answered to those who gave it. */
static void fill_ends(struct centre *c, struct job_fill *f)
{
    struct op *op;

    DL_DELETE2(c->jobs->fills, f, prev, next_one);
    while ((op = f->ops)) {
        f->ops = op->wait_next;
        op->wait_next = NULL;
        answer(op, f->batch, f->last);
    }
    free(f);
}

static void on_more(void *arg, int status, const struct state_result *r)
{
    struct job_fill *f = arg;
    struct centre *c = f->c;
    uint64_t first = f->next, next, last;

    f->sent = false; /* fails: the next turn tries again */
    if (status < 0 || r->status < 0)
        return;
    int rc = state_job_rest(c->state, f->batch, &next, &last);
    if (rc < 0 && rc != -ENOENT)
        return;
    f->next = rc == 0 ? next : f->last + 1;
    c->jobs->unfilled_n -= f->next - first;
    if (f->next > first)
        jobs_take(c, first, f->next - 1);
    if (f->next > f->last)
        fill_ends(c, f);
}

void jobs_fill_turn(struct centre *c)
{
    Star__LogJobMore body = STAR__LOG_JOB_MORE__INIT;

    body.rows = JOBS_ROWS_MAX;
    for (struct job_fill *f = c->jobs->fills; f; f = f->next_one) {
        body.batch = f->batch;
        if (!f->sent && centre_submit(c, STAR__LOG_TYPE__LOG_JOB_MORE, &body.base, CONSENSUS_NOW,
                                      on_more, f) == 0)
            f->sent = true;
    }
}

struct filling {
    struct centre *c;
    int rc;
};

static bool fill_found(void *arg, uint64_t batch)
{
    struct filling *l = arg;

    l->rc = jobs_fill(l->c, batch, NULL);
    return l->rc == 0;
}

int jobs_fills_load(struct centre *c)
{
    struct filling l = {.c = c};
    int rc = state_job_rests(c->state, fill_found, &l);

    return rc < 0 ? rc : l.rc;
}

void jobs_fills_free(struct jobs *j)
{
    while (j->fills) {
        struct job_fill *f = j->fills;
        DL_DELETE2(j->fills, f, prev, next_one);
        free(f);
    }
}

static void submitted(struct op *op, const struct state_result *r)
{
    struct centre *c = op->c;

    if (r->status < 0) {
        op_refuse(op, r);
        return;
    }
    Star__JobSubmitReply *is = star__job_submit_reply__unpack(NULL, r->body_len, r->body);
    if (!is) {
        op_reply(op, -ENOMEM, NULL);
        return;
    }
    uint64_t first = is->first, last = first + is->count - 1, next, end;
    star__job_submit_reply__free_unpacked(is, NULL);
    if (!op->replayed) {
        bool more = state_job_rest(c->state, first, &next, &end) == 0;
        jobs_take(c, first, more ? next - 1 : last);
        c->jobs->count.submitted += last - first + 1;
    }
    int rc = jobs_fill(c, first, op);
    if (rc == -ENOENT)
        answer(op, first, last);
    else if (rc < 0)
        op_reply(op, rc, NULL); /* what is there runs; the next start makes the others */
}

static void submit(struct op *op, const struct job_spec *spec, Star__Cred *cred, uint32_t node,
                   const char *text, size_t len)
{
    Star__LogJobSubmit body = STAR__LOG_JOB_SUBMIT__INIT;
    Star__Job job = STAR__JOB__INIT;
    Star__JobCopy copy = STAR__JOB_COPY__INIT, *copies[JOB_SPEC_COPIES_MAX];

    for (uint32_t k = 0; k < spec->copies; k++)
        copies[k] = &copy;
    job.n_copies = spec->copies;
    job.copies = copies;
    job.array = spec->array;
    job.cred = cred;
    job.name = (char *)(uintptr_t)spec->name;
    job.priority = spec->priority;
    job.retries = spec->retries;
    job.milli_cpus = spec->milli_cpus;
    job.memory = spec->memory;
    job.time_s = spec->time_s;
    job.node = node;
    job.after = spec->after_n > 0;
    body.job = &job;
    body.spec.data = (uint8_t *)(uintptr_t)text;
    body.spec.len = len;
    body.count = job_spec_jobs(spec);
    body.rows = JOBS_ROWS_MAX;
    body.index = spec->array_first;
    body.after_last = spec->after_n ? spec->after[spec->after_n - 1].last : 0;
    op_submit(op, STAR__LOG_TYPE__LOG_JOB_SUBMIT, &body.base, false, submitted);
}

void jobs_submit(struct op *op, const char *text, size_t len)
{
    Star__Head *head = ((Star__CtlWrite *)op->body)->head;
    char why[JOB_SPEC_WHY] = "";
    struct job_spec spec;
    uint32_t node = 0;

    if (op_deduped(op, head, submitted))
        return;
    if (!head->cred) {
        op_error(op, -EINVAL, "nobody submits this job");
        return;
    }
    int rc = job_spec_parse(text, len, &spec, why);
    if (rc == 0) {
        rc = check(op->c, &spec, head->cred->uid, &node, why);
        if (rc == 0)
            submit(op, &spec, head->cred, node, text, len);
        job_spec_free(&spec);
    }
    if (rc < 0) {
        op->c->jobs->count.refused++;
        op_error(op, rc, "%s", why[0] ? why : strerror(-rc));
    }
}
