/* The runs of each node: what has become of them while nobody asked. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "control/jobs.h"
#include "control/wire/clock.h"
#include "control/wire/job_run.h"

int jobs_site_add(struct centre *c, struct job *job, uint32_t k)
{
    struct job_copy *mine = &job->copies[k];
    uint32_t node = job->row->copies[k]->node;
    struct job_site *s;

    jobs_site_remove(job, k);
    HASH_FIND(hh, c->jobs->sites, &node, sizeof(node), s);
    if (!s) {
        s = calloc(1, sizeof(*s));
        if (!s)
            return -ENOMEM;
        s->node = node;
        HASH_ADD(hh, c->jobs->sites, node, sizeof(s->node), s);
    }
    mine->site = s;
    DL_APPEND2(s->runs, mine, s_prev, s_next);
    return 0;
}

void jobs_site_remove(struct job *job, uint32_t k)
{
    struct job_copy *mine = &job->copies[k];

    if (mine->site)
        DL_DELETE2(mine->site->runs, mine, s_prev, s_next);
    mine->site = NULL; /* which stays until it is swept: somebody may go through its list */
}

static void sweep(struct centre *c)
{
    struct job_site *s, *next;

    HASH_ITER (hh, c->jobs->sites, s, next) {
        if (s->runs)
            continue;
        HASH_DEL(c->jobs->sites, s);
        free(s);
    }
}

static uint32_t number_of(const struct job_copy *mine)
{
    return (uint32_t)(mine - mine->job->copies);
}

void jobs_sites_free(struct jobs *j)
{
    struct job_site *s, *next;

    HASH_ITER (hh, j->sites, s, next) {
        HASH_DEL(j->sites, s);
        free(s);
    }
}

/* --- the tick --- */

/* What ran there has ended, and nobody will tell how. NULL: not so; else why. A node that is here
 * and does not say what it runs (it was started without a mount, say) moves no lease on either. */
static const char *node_is_past(const struct node *n, int64_t now)
{
    if (!n)
        return "is unknown";
    if (!n->peer)
        return now - n->seen_ms > JOB_RERUN_MS ? "was not heard" : NULL;
    return !n->jobs_known && now - n->hello_ms > JOB_RERUN_MS ? "has not said what it runs" : NULL;
}

static bool is_overdue(const struct job *job, int64_t now)
{
    const Star__Job *row = job->row;

    return row->state == STAR__JOB_STATE__JOB_RUNNING && row->began && row->time_s &&
           clock_real().tv_sec > row->began->sec + row->time_s + JOBS_OVERDUE_S &&
           now - job->told_ms > JOBS_OVERDUE_S * 1000;
}

/* The run, or others of its job, may be gone then. */
static void look_at(struct centre *c, struct job_copy *mine, struct node *n, int64_t now)
{
    struct job *job = mine->job;
    const char *past = node_is_past(n, now);
    uint32_t k = number_of(mine);

    if (past) {
        events_add(&c->events, "job-lost", "job %" PRIu64 ": node %s %s for %d s", job->id,
                   n ? n->name : "?", past, JOB_RERUN_MS / 1000);
        jobs_copy_gone(c, job, k, STAR__JOB_END__END_LEASE, "its node was lost");
        return;
    }
    if (n->peer && n->jobs_known && job->row->copies[k]->state == STAR__JOB_RUN_STATE__RUN_NONE &&
        !mine->ready && !mine->started && !mine->sending) {
        jobs_start_copy(c, job, k);
        return;
    }
    if (job->row->state == STAR__JOB_STATE__JOB_ENDING && now - job->told_ms > JOB_GRACE_MS)
        jobs_tell_all_to_end(c, job, job->row->why);
    else if (is_overdue(job, now))
        jobs_tell_all_to_end(c, job, "past its time");
}

/* Those that were looked at go to the end of the list. */
static void look_at_site(struct centre *c, struct job_site *s, int64_t now, unsigned *left)
{
    struct node *n = node_find(c, s->node);

    while (s->runs && s->left > 0 && *left > 0) {
        struct job_copy *mine = s->runs;
        s->left--;
        --*left;
        DL_DELETE2(s->runs, mine, s_prev, s_next);
        DL_APPEND2(s->runs, mine, s_prev, s_next);
        look_at(c, mine, n, now);
    }
    if (!s->runs)
        s->left = 0;
}

void jobs_sites_tick(struct centre *c, int64_t now)
{
    unsigned left = JOBS_LOOK_MAX, count;
    struct job_site *s, *next;
    struct job_copy *mine;

    sweep(c);
    HASH_ITER (hh, c->jobs->sites, s, next) {
        if (left == 0)
            return;
        if (s->left == 0 && now - s->looked_ms >= JOBS_TICK_MS) {
            DL_COUNT2(s->runs, mine, count, s_next);
            s->left = count;
            s->looked_ms = now;
        }
        look_at_site(c, s, now, &left);
    }
}

/* --- after HELLO --- */

void jobs_said_all(struct centre *c, struct node *n)
{
    struct job_copy *mine, *next;
    struct job_site *s;

    HASH_FIND(hh, c->jobs->sites, &n->id, sizeof(n->id), s);
    for (mine = s ? s->runs : NULL; mine; mine = next) {
        struct job *job = mine->job;
        uint32_t k = number_of(mine);
        next = mine->s_next;
        if (mine->ready || mine->hello == n->hellos)
            continue;
        if (job->row->cancel)
            jobs_copy_gone(c, job, k, STAR__JOB_END__END_CANCELLED, "");
        else if (job->row->copies[k]->state == STAR__JOB_RUN_STATE__RUN_RUNNING)
            jobs_copy_gone(c, job, k, STAR__JOB_END__END_LEASE, "its node has lost it");
        else /* the tick sends JOB_START again */
            mine->started = mine->sending = false;
    }
}
