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

static int owner_of(struct centre *c, uint64_t id, uint32_t *uid)
{
    const struct job *live = jobs_find(c, id);
    Star__Job *row;

    if (live) {
        *uid = live->row->cred->uid;
        return 0;
    }
    int rc = state_job(c->state, id, &row);
    if (rc < 0)
        return rc;
    *uid = row->cred->uid;
    star__job__free_unpacked(row, NULL);
    return 0;
}

/* All that it comes after must still be known, and be its submitter's: how others' jobs end is
 * theirs to know, and what is waited for cannot be forgotten. */
static int check_known(struct centre *c, const struct job_spec *spec, uint32_t who,
                       char why[JOB_SPEC_WHY])
{
    for (size_t k = 0; k < spec->after_n; k++)
        for (uint64_t id = spec->after[k].first; id <= spec->after[k].last; id++) {
            uint32_t uid = 0;
            int rc = owner_of(c, id, &uid);
            if (rc < 0)
                snprintf(why, JOB_SPEC_WHY,
                         "line %u: after: job %" PRIu64 " is not known any more: leave it out",
                         spec->after[k].line, id);
            else if (who != 0 && who != uid)
                snprintf(why, JOB_SPEC_WHY,
                         "line %u: after: job %" PRIu64 " is another user's: name your own",
                         spec->after[k].line, id);
            if (rc < 0 || (who != 0 && who != uid))
                return rc == -ENOENT ? -EINVAL : rc < 0 ? rc : -EACCES;
        }
    return 0;
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
    if (c->jobs->pending + job_spec_jobs(spec) > most) {
        snprintf(why, JOB_SPEC_WHY,
                 "%u jobs are pending, and job_queue_max is %" PRIu64 ": wait for some to end",
                 c->jobs->pending, most);
        return -EAGAIN;
    }
    rc = job_queue_could(c->jobs->queue, &need, spec->copies, reason);
    if (rc < 0)
        snprintf(why, JOB_SPEC_WHY, "%.250s", reason);
    return rc;
}

static void submitted(struct op *op, const struct state_result *r)
{
    struct centre *c = op->c;
    Star__CtlReply answer = STAR__CTL_REPLY__INIT;
    char text[64];

    if (r->status < 0) {
        op_refuse(op, r);
        return;
    }
    Star__JobSubmitReply *is = star__job_submit_reply__unpack(NULL, r->body_len, r->body);
    if (!is) {
        op_reply(op, -ENOMEM, NULL);
        return;
    }
    for (uint32_t n = 0; n < is->count && !op->replayed; n++) {
        /* A row that cannot be had now is there after a restart. */
        int rc = jobs_take(c, is->first + n);
        if (rc < 0)
            events_add(&c->errors, "jobs", "job %" PRIu64 " waits for a restart of the centre: %s",
                       is->first + n, strerror(-rc));
        c->jobs->count.submitted++;
    }
    if (is->count == 1)
        snprintf(text, sizeof(text), "id %" PRIu64 "\n", is->first);
    else
        snprintf(text, sizeof(text), "id %" PRIu64 "-%" PRIu64 "\n", is->first,
                 is->first + is->count - 1);
    star__job_submit_reply__free_unpacked(is, NULL);
    answer.text = text;
    op_reply(op, 0, &answer.base);
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
