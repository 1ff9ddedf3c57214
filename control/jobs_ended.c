/* Jobs that have ended, in the order of their ends, until they are forgotten. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/jobs.h"
#include "control/wire/clock.h"

int jobs_ended_add(struct jobs *j, uint64_t id, int64_t sec)
{
    if (j->ended_n == j->ended_size) {
        size_t size = j->ended_size ? j->ended_size * 2 : 256;
        struct job_ended *grown = malloc(size * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        for (size_t k = 0; k < j->ended_n; k++)
            grown[k] = j->ended[(j->ended_at + k) % j->ended_size];
        free(j->ended);
        j->ended = grown;
        j->ended_size = size;
        j->ended_at = 0;
    }
    j->ended[(j->ended_at + j->ended_n++) % j->ended_size] =
        (struct job_ended){.id = id, .sec = sec};
    return 0;
}

static int by_end(const void *a, const void *b)
{
    const struct job_ended *x = a, *y = b;

    return x->sec != y->sec ? (x->sec > y->sec) - (x->sec < y->sec)
                            : (x->id > y->id) - (x->id < y->id);
}

void jobs_ended_sort(struct jobs *j)
{
    if (j->ended_n > 0) /* nothing was taken out yet: they begin at 0 */
        qsort(j->ended, j->ended_n, sizeof(j->ended[0]), by_end);
}

/* --- forgetting --- */

struct job_forget {
    struct centre *c;
    struct op *op; /* waits for it; NULL: nobody does */
    uint64_t ids[JOBS_FORGET_MAX];
    size_t n;
    struct job_forget *prev, *next;
    size_t files_n;
    uint64_t files[]; /* inodes that may be unused then */
};

static void on_forgotten(void *arg, int status, const struct state_result *r)
{
    struct job_forget *f = arg;

    DL_DELETE(f->c->jobs->forgets, f);
    if (!f->op)
        f->c->jobs->forgetting = false;
    for (size_t k = 0; status == 0 && k < f->files_n; k++)
        reap_if_unused(f->c, f->files[k]);
    if (f->op)
        op_answered(f->op, status < 0 ? status : r->status);
    free(f);
}

static int forget_submit(struct centre *c, const uint64_t *ids, size_t n, struct op *op)
{
    Star__LogJobChange body = STAR__LOG_JOB_CHANGE__INIT;
    size_t most = n * 2 * (JOB_SPEC_COPIES_MAX + 1);
    struct job_forget *f = calloc(1, sizeof(*f) + most * sizeof(f->files[0]));

    if (!f)
        return -ENOMEM;
    f->c = c;
    f->op = op;
    f->n = n;
    memcpy(f->ids, ids, n * sizeof(ids[0]));
    for (size_t k = 0; k < n; k++)
        for (uint32_t file = 2; file < 2 * (JOB_SPEC_COPIES_MAX + 1); file++)
            f->files_n += state_job_file(c->state, ids[k], file, &f->files[f->files_n]) == 0;
    body.n_forget = n;
    body.forget = (uint64_t *)(uintptr_t)ids;
    int rc = centre_submit(c, STAR__LOG_TYPE__LOG_JOB_CHANGE, &body.base,
                           op ? CONSENSUS_NOW : CONSENSUS_SOON, on_forgotten, f);
    if (rc < 0) {
        free(f);
        return rc;
    }
    DL_APPEND(c->jobs->forgets, f);
    if (!op)
        c->jobs->forgetting = true;
    return 0;
}

uint64_t jobs_being_forgotten(const struct jobs *j, uint64_t first, uint64_t last)
{
    for (const struct job_forget *f = j->forgets; f; f = f->next)
        for (size_t k = 0; k < f->n; k++)
            if (f->ids[k] >= first && f->ids[k] <= last)
                return f->ids[k];
    return 0;
}

static void forgotten(struct op *op)
{
    op_reply(op, op->status, NULL);
}

int jobs_forget(struct op *op, uint64_t id)
{
    struct centre *c = op->c;

    if (jobs_find(c, id) || job_waits_has(c->jobs->waits, id))
        return -EBUSY;
    op->pending++;
    int rc = forget_submit(c, &id, 1, op);
    if (rc < 0)
        op->pending--;
    else
        op_wait(op, forgotten);
    return rc;
}

/* Those beyond the number that is kept, and those that ended before that time. */
static void forget_old(struct centre *c, int64_t before)
{
    struct jobs *j = c->jobs;
    uint64_t ids[JOBS_FORGET_MAX];
    size_t n = 0, kept = 0;

    if (j->forgetting)
        return;
    while (n + kept < j->ended_n && n < JOBS_FORGET_MAX && kept < JOBS_FORGET_MAX) {
        struct job_ended e = j->ended[j->ended_at];
        if (j->ended_n - kept <= j->keep_max && e.sec > before)
            break;
        if (job_waits_has(j->waits, e.id)) { /* it goes to the end of the line */
            j->ended_at = (j->ended_at + 1) % j->ended_size;
            j->ended[(j->ended_at + j->ended_n - 1) % j->ended_size] = e;
            kept++;
            continue;
        }
        ids[n++] = e.id;
        j->ended_at = (j->ended_at + 1) % j->ended_size;
        j->ended_n--;
    }
    if (n > 0 && forget_submit(c, ids, n, NULL) < 0)
        for (size_t k = 0; k < n; k++)
            (void)jobs_ended_add(j, ids[k], 0); /* the next tick takes them; there was room */
}

void jobs_ended_bound(struct centre *c)
{
    /* Not one by one: an entry of the log for each is what they would cost. */
    if (c->jobs->ended_n > c->jobs->keep_max + JOBS_FORGET_MAX)
        forget_old(c, INT64_MIN);
}

void jobs_ended_tick(struct centre *c)
{
    c->jobs->keep_max = setting_u64(c, "job_keep_max");
    forget_old(c, clock_real().tv_sec - (int64_t)setting_u64(c, "job_keep"));
}
