/* A spec becomes a job: what .umbel/jobs/new is told. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/jobs.h"

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

/* --- one spec --- */

static void into_log(struct job_ask *a)
{
    const struct job_spec *spec = &a->spec;
    Star__LogJobSubmit body = STAR__LOG_JOB_SUBMIT__INIT;
    Star__Job job = STAR__JOB__INIT;
    Star__JobCopy copy = STAR__JOB_COPY__INIT, *copies[JOB_SPEC_COPIES_MAX];

    for (uint32_t k = 0; k < spec->copies; k++)
        copies[k] = &copy;
    job.n_copies = spec->copies;
    job.copies = copies;
    job.array = spec->array;
    job.cred = ((Star__CtlWrite *)a->op->body)->head->cred;
    job.name = (char *)(uintptr_t)spec->name;
    job.priority = spec->priority;
    job.retries = spec->retries;
    job.milli_cpus = spec->milli_cpus;
    job.memory = spec->memory;
    job.time_s = spec->time_s;
    job.node = a->node;
    job.after = spec->after_n > 0;
    body.job = &job;
    body.spec.data = (uint8_t *)(uintptr_t)a->text;
    body.spec.len = a->len;
    body.count = job_spec_jobs(spec);
    body.rows = JOBS_ROWS_MAX;
    body.index = spec->array_first;
    body.after_last = spec->after_n ? spec->after[spec->after_n - 1].last : 0;
    a->logged = true;
    op_submit(a->op, STAR__LOG_TYPE__LOG_JOB_SUBMIT, &body.base, false, submitted);
}

static void refuse(struct op *op, int rc, const char *why)
{
    op->c->jobs->count.refused++;
    op_error(op, rc, "%s", why[0] ? why : strerror(-rc));
}

/* true: it names many jobs that come first, and goes on in another turn. false: it may be gone. */
static bool ask_goes_on(struct centre *c, struct job_ask *a, unsigned *left)
{
    char why[JOB_SPEC_WHY] = "";
    int rc = jobs_ask_look(c, a, left, why);

    if (rc == 0)
        return true;
    if (rc > 0)
        rc = jobs_ask_room(c, a, why);
    if (rc == 0)
        into_log(a);
    else
        refuse(a->op, rc, why);
    return false;
}

bool jobs_ask_turn(struct centre *c)
{
    unsigned left = JOBS_WORK_MAX;
    struct job_ask *a, *next;

    DL_FOREACH_SAFE2(c->jobs->asks, a, next, next_one)
    {
        if (left == 0 || a->logged || !ask_goes_on(c, a, &left))
            continue;
        DL_DELETE2(c->jobs->asks, a, prev, next_one); /* the others, too, get on */
        DL_APPEND2(c->jobs->asks, a, prev, next_one);
    }
    return left == 0;
}

static int parse(struct job_ask *a, char why[JOB_SPEC_WHY])
{
    int rc = job_spec_parse(a->text, a->len, &a->spec, why);

    a->parsed = rc == 0;
    return rc < 0 ? rc : job_spec_check_after(&a->spec, state_last_job(a->op->c->state) + 1, why);
}

void jobs_submit(struct op *op, const char *text, size_t len)
{
    Star__Head *head = ((Star__CtlWrite *)op->body)->head;
    struct centre *c = op->c;
    char why[JOB_SPEC_WHY] = "";
    unsigned left = JOBS_WORK_MAX;

    if (op_deduped(op, head, submitted))
        return;
    if (!head->cred) {
        op_error(op, -EINVAL, "nobody submits this job");
        return;
    }
    struct job_ask *a = jobs_ask_new(op, head->cred->uid, text, len);
    int rc = a ? parse(a, why) : -ENOMEM;
    if (rc == 0)
        ask_goes_on(c, a, &left);
    else
        refuse(op, rc, why);
}
