/* What metrics and health say of jobs. */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "control/ctl_text.h"
#include "control/jobs.h"

/* So many percent of job_queue_max are told as a problem: what is submitted will soon be refused.
 */
#define NEAR_PERCENT 90

/* --- metrics --- */

static void put_count(struct text *t, const char *name, uint64_t value)
{
    text_put(t, "# TYPE umbel_jobs_%s_total counter\numbel_jobs_%s_total %" PRIu64 "\n", name, name,
             value);
}

static void put_ends(const struct jobs *j, struct text *t)
{
    const struct {
        const char *name;
        uint64_t n;
    } ends[] = {{"done", j->count.done},
                {"failed", j->count.failed},
                {"cancelled", j->count.cancelled},
                {"timeout", j->count.timeout},
                {"lost", j->count.lost}};

    text_put(t, "# TYPE umbel_jobs_ended_total counter\n");
    for (size_t k = 0; k < sizeof(ends) / sizeof(ends[0]); k++)
        text_put(t, "umbel_jobs_ended_total{state=\"%s\"} %" PRIu64 "\n", ends[k].name, ends[k].n);
}

/* From when a run could begin (what comes before it has ended) until it had a node. */
static void put_waits(const struct jobs *j, struct text *t)
{
    uint64_t n = 0;

    text_put(t, "# TYPE umbel_job_placement_seconds histogram\n");
    for (size_t k = 0; k < JOBS_WAIT_BOUNDS; k++) {
        n += j->waited[k];
        text_put(t, "umbel_job_placement_seconds_bucket{le=\"%g\"} %" PRIu64 "\n",
                 jobs_wait_bounds[k] / 1000.0, n);
    }
    n += j->waited[JOBS_WAIT_BOUNDS];
    text_put(t,
             "umbel_job_placement_seconds_bucket{le=\"+Inf\"} %" PRIu64
             "\numbel_job_placement_seconds_sum %" PRIu64 ".%03" PRIu64
             "\numbel_job_placement_seconds_count %" PRIu64 "\n",
             n, j->waited_ms / 1000, j->waited_ms % 1000, n);
}

void text_jobs(struct centre *c, struct text *t)
{
    const struct jobs *j = c->jobs;

    if (!j)
        return;
    put_count(t, "submitted", j->count.submitted);
    put_count(t, "refused", j->count.refused);
    put_count(t, "placed", j->count.placed);
    put_count(t, "retried", j->count.retried);
    put_ends(j, t);
    text_put(t, "# TYPE umbel_jobs gauge\numbel_jobs{state=\"pending\"} %" PRIu64 "\n",
             jobs_pending(j));
    text_put(t, "umbel_jobs{state=\"placed\"} %u\numbel_jobs{state=\"ended\"} %zu\n",
             HASH_COUNT(j->all) - j->pending, j->ended_n);
    text_put(t, "# TYPE umbel_jobs_queued gauge\numbel_jobs_queued %zu\n",
             job_queue_waiting(j->queue));
    put_waits(j, t);
}

/* --- health --- */

static bool is_here(const struct node *n)
{
    return n->peer && strcmp(n->state, "gone") != 0;
}

/* A problem only if all of them are like that and somebody wants a node: a cloud may be there for
 * its files alone. */
static unsigned put_nodes(struct centre *c, uint64_t pending, struct text *t)
{
    unsigned run_jobs = 0, problems = 0;
    const struct node *n;

    for (n = c->nodes; n; n = n->hh.next)
        run_jobs += is_here(n) && n->power.jobs;
    for (n = c->nodes; n; n = n->hh.next) {
        bool bad = pending > 0 && run_jobs == 0;
        if (!is_here(n) || n->power.jobs || !n->power.detail[0])
            continue;
        problems += bad;
        text_put(t, "%s node %s runs no jobs: %s\n", bad ? "problem" : "note", n->name,
                 n->power.detail);
    }
    if (pending > 0 && run_jobs == 0)
        problems++,
            text_put(t,
                     "problem jobs: %" PRIu64 " are pending, and no node that is here runs jobs\n",
                     pending);
    return problems;
}

unsigned text_jobs_health(struct centre *c, struct text *t)
{
    struct jobs *j = c->jobs;
    char why[JOB_PLACE_WHY];
    unsigned problems = 0;
    uint64_t job;

    if (!j)
        return 0;
    uint64_t pending = jobs_pending(j), most = setting_u64(c, "job_queue_max");
    if (pending >= (most * NEAR_PERCENT + 99) / 100)
        problems++, text_put(t,
                             "problem jobs: %" PRIu64 " are pending, and job_queue_max is %" PRIu64
                             ": beyond, none is taken\n",
                             pending, most);
    size_t runs = demand_hopeless(c, &job, why);
    if (runs > 0)
        problems++,
            text_put(t,
                     "problem jobs: %zu wait for what no node has, the first is %" PRIu64 ": %s\n",
                     runs, job, why);
    return problems + put_nodes(c, pending, t);
}
