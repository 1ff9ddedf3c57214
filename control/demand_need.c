/* What those hear that need a node: whether one could come, and that none will. */
#include "control/demand.h"

#include <stdio.h>
#include <string.h>

/* --- could it run? --- */

int demand_could(struct centre *c, const struct job_place_need *need, uint32_t copies, char *why)
{
    struct demand_view v;
    int rc = job_queue_could(c->jobs->queue, need, copies, why);

    if (rc == 0 || need->node || !c->demand || demand_look(c, &v) < 0)
        return rc;
    uint32_t more = node_demand_more(&v.limits, v.nodes, v.n, need);
    if (more >= copies || (more > 0 && job_queue_could(c->jobs->queue, need, copies - more,
                                                       (char[JOB_PLACE_WHY]){0}) == 0)) {
        why[0] = '\0';
        rc = 0;
    } else {
        size_t len = strlen(why);
        const char *none = demand_no_starts(c);
        if (none)
            snprintf(why + len, JOB_PLACE_WHY - len, "; none can be started: %s", none);
        else if (v.limits.milli_cpus < need->milli_cpus || v.limits.memory < need->memory)
            snprintf(why + len, JOB_PLACE_WHY - len, "; a new one would have no more");
        else
            snprintf(why + len, JOB_PLACE_WHY - len,
                     "; the cloud has %zu nodes, and nodes_max is %u", v.n, v.limits.nodes_max);
        c->demand->count.beyond++;
    }
    demand_view_free(&v);
    return rc;
}

void demand_why(struct centre *c, char *why, size_t size)
{
    const struct demand *d = c->demand;
    const struct node *n;
    unsigned count = 0;

    why[0] = '\0';
    if (!d)
        return;
    for (n = c->nodes; n; n = n->hh.next) {
        count += strcmp(n->state, "gone") != 0;
        if (node_is_coming(n)) {
            snprintf(why, size, "; %s is %s", n->name, n->state);
            return;
        }
    }
    if (c->now < d->paused_ms)
        snprintf(why, size, "; %s", d->why);
    else if (count >= setting_u64(c, "nodes_max"))
        snprintf(why, size, "; none is started: nodes_max is reached");
}

static uint32_t may_come(void *context, const struct job_place_need *need)
{
    const struct demand_view *v = context;

    return node_demand_more(&v->limits, v->nodes, v->n, need);
}

size_t demand_hopeless(struct centre *c, uint64_t *job, char *why)
{
    struct demand_view v;

    if (!c->demand || demand_look(c, &v) < 0)
        return job_queue_hopeless(c->jobs->queue, NULL, NULL, job, why);
    size_t runs = job_queue_hopeless(c->jobs->queue, may_come, &v, job, why);
    demand_view_free(&v);
    return runs;
}

/* --- none will come --- */

/* Of jobs one after the other: those of an array need the same. */
struct verdict {
    struct job_place_need need;
    size_t copies; /* 0: none yet */
    bool hopeless;
};

static bool is_hopeless(struct centre *c, const struct demand_view *v, const Star__Job *row,
                        struct verdict *last)
{
    struct job_place_need need = {.milli_cpus = row->milli_cpus, .memory = row->memory};
    char why[JOB_PLACE_WHY];

    if (last->copies == row->n_copies && last->need.milli_cpus == need.milli_cpus &&
        last->need.memory == need.memory)
        return last->hopeless;
    uint32_t copies = (uint32_t)row->n_copies,
             more = node_demand_more(&v->limits, v->nodes, v->n, &need);
    *last = (struct verdict){.need = need, .copies = copies};
    last->hopeless =
        more < copies && job_queue_could(c->jobs->queue, &need, copies - more, why) != 0;
    return last->hopeless;
}

/* Each copy that has no node. */
static void end_copies(struct centre *c, struct job *job)
{
    const Star__Job *row = job->row;

    for (uint32_t k = 0; k < row->n_copies && !job->over; k++)
        if (job->copies[k].queued && !row->copies[k]->placed)
            jobs_copy_gone(c, job, k, STAR__JOB_END__END_FAILED, c->demand->why);
}

bool demand_turn(struct centre *c)
{
    struct demand *d = c->demand;
    struct verdict last = {0};
    struct demand_view v;

    /* Before all have said what they have, nobody knows what they could not. */
    if (!d || !d->hopeless || !c->serving || !demand_settled(c) || demand_look(c, &v) < 0)
        return false;
    for (unsigned left = JOBS_WORK_MAX; left > 0 && d->at; left--) {
        struct job *job = d->at;
        d->at = job->hh.next;
        if (!job->over && !job->row->node && job->row->state < STAR__JOB_STATE__JOB_ENDING &&
            is_hopeless(c, &v, job->row, &last))
            end_copies(c, job);
    }
    demand_view_free(&v);
    d->hopeless = d->at != NULL;
    return d->hopeless;
}

void demand_end_hopeless(struct centre *c)
{
    c->demand->at = c->jobs->all;
    c->demand->hopeless = true;
}

void demand_skip(struct centre *c, const struct job *job)
{
    if (c->demand && c->demand->at == job)
        c->demand->at = job->hh.next;
}
