/* Jobs that somebody asks for: whether they may be. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/jobs.h"

/* --- what comes before them, block by block --- */

struct looking {
    uint64_t next, last;
    uint32_t who; /* 0: whose they are does not matter */
    bool others;
};

static bool look_at(void *arg, const Star__Job *row)
{
    struct looking *l = arg;

    if (row->id != l->next)
        return false;
    l->others = l->who != 0 && row->cred->uid != l->who;
    return !l->others && l->next++ < l->last;
}

/* All of them must be known, and be its submitter's: how others' jobs end is theirs to know. */
static int look_at_block(struct centre *c, const struct job_range *r, struct looking *l,
                         char why[JOB_SPEC_WHY])
{
    uint64_t gone = jobs_being_forgotten(c->jobs, l->next, l->last);
    int rc = state_jobs(c->state, l->next - 1, look_at, l);

    if (rc < 0)
        return rc;
    if (l->others) {
        snprintf(why, JOB_SPEC_WHY,
                 "line %u: after: job %" PRIu64 " is another user's: name your own", r->line,
                 l->next);
        return -EACCES;
    }
    if (l->next > l->last && !gone)
        return 0;
    snprintf(why, JOB_SPEC_WHY,
             "line %u: after: job %" PRIu64 " is not known any more: leave it out", r->line,
             l->next > l->last ? gone : l->next);
    return -EINVAL;
}

int jobs_ask_look(struct centre *c, struct job_ask *a, unsigned *left, char why[JOB_SPEC_WHY])
{
    while (a->range < a->spec.after_n) {
        const struct job_range *r = &a->spec.after[a->range];
        if (a->next < r->first)
            a->next = r->first;
        if (*left == 0)
            return 0;
        uint64_t block = a->next | (JOB_WAITS_BLOCK - 1), last = block < r->last ? block : r->last;
        struct looking l = {.next = a->next, .last = last, .who = a->who};
        int rc = look_at_block(c, r, &l, why);
        if (rc == 0)
            rc = job_waits_add(&c->jobs->waits, a->next, last);
        if (rc < 0)
            return rc;
        *left -= last - a->next < *left ? (unsigned)(last - a->next) + 1 : *left;
        a->next = last + 1;
        a->range += last == r->last;
    }
    return 1;
}

/* Block by block they were added; the parts of a range make the same as the whole. */
static void wait_no_more(struct centre *c, struct job_ask *a)
{
    for (size_t k = 0; k < a->spec.after_n && a->spec.after[k].first < a->next; k++) {
        const struct job_range *r = &a->spec.after[k];
        job_waits_remove(&c->jobs->waits, r->first, k < a->range ? r->last : a->next - 1);
    }
}

/* --- what is there for them --- */

static struct node *node_called(struct centre *c, const char *name)
{
    struct node *n;

    for (n = c->nodes; n; n = n->hh.next)
        if (strcmp(n->name, name) == 0 && strcmp(n->state, "gone") != 0)
            return n;
    return NULL;
}

int jobs_ask_room(struct centre *c, struct job_ask *a, char why[JOB_SPEC_WHY])
{
    const struct job_spec *spec = &a->spec;
    uint64_t most = setting_u64(c, "job_queue_max");
    struct job_place_need need = {.milli_cpus = spec->milli_cpus, .memory = spec->memory};
    char reason[JOB_PLACE_WHY] = "";
    const struct node *n = spec->node[0] ? node_called(c, spec->node) : NULL;

    if (spec->node[0] && !n) {
        snprintf(why, JOB_SPEC_WHY, "there is no node '%.64s': `umbel status` names them",
                 spec->node);
        return -EINVAL;
    }
    a->node = need.node = n ? n->id : 0;
    if (jobs_pending(c->jobs) + job_spec_jobs(spec) > most) {
        snprintf(why, JOB_SPEC_WHY,
                 "%" PRIu64 " jobs are pending, and job_queue_max is %" PRIu64
                 ": wait for some to end",
                 jobs_pending(c->jobs), most);
        return -EAGAIN;
    }
    int rc = demand_could(c, &need, spec->copies, reason);
    if (rc < 0)
        snprintf(why, JOB_SPEC_WHY, "%.250s", reason);
    return rc;
}

/* --- those that are asked for --- */

struct job_ask *jobs_ask_new(struct op *op, uint32_t who, const char *text, size_t len)
{
    struct jobs *j = op->c->jobs;
    struct job_ask *a = calloc(1, sizeof(*a));

    if (!a)
        return NULL;
    *a = (struct job_ask){.op = op, .who = who, .text = text, .len = len};
    op->ask = a;
    DL_APPEND2(j->asks, a, prev, next_one);
    return a;
}

void jobs_ask_end(struct op *op)
{
    struct centre *c = op->c;
    struct job_ask *a = op->ask;

    op->ask = NULL;
    wait_no_more(c, a);
    DL_DELETE2(c->jobs->asks, a, prev, next_one);
    if (a->parsed)
        job_spec_free(&a->spec);
    free(a);
}
