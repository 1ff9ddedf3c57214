/* Jobs: those that have not ended, what they wait for, and their way into the log. */
#include "control/jobs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"

struct job *jobs_find(struct centre *c, uint64_t id)
{
    struct job *job;

    HASH_FIND(hh, c->jobs->all, &id, sizeof(id), job);
    return job;
}

bool jobs_state_is_over(Star__JobState state)
{
    return state >= STAR__JOB_STATE__JOB_DONE;
}

const char *jobs_state_name(Star__JobState state)
{
    static const char *const names[] = {"pending", "starting",  "running", "ending", "done",
                                        "failed",  "cancelled", "timeout", "lost"};

    return (size_t)state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

void jobs_set_why(struct job *job, const char *format, ...)
{
    char text[JOB_SPEC_WHY];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    char *copy = strdup(text);
    if (!copy)
        return; /* only a text for people */
    if (job->row->why != protobuf_c_empty_string)
        free(job->row->why);
    job->row->why = copy;
}

void jobs_time_now(Star__Time **t)
{
    struct timespec now = clock_real();

    if (!*t && !(*t = malloc(sizeof(**t))))
        return; /* unknown is told as such */
    star__time__init(*t);
    (*t)->sec = now.tv_sec;
    (*t)->nsec = (uint32_t)now.tv_nsec;
}

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

static struct job_batch *batch_get(struct centre *c, uint64_t id)
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
    LL_DELETE2(w->batches, b, w_next);
    if (w->batches)
        return;
    HASH_DEL(c->jobs->watches, w);
    free(w);
}

static void batch_drop(struct centre *c, struct job_batch *b)
{
    if (--b->users > 0)
        return;
    unwatch(c, b);
    HASH_DEL(c->jobs->batches, b);
    if (b->text) {
        job_spec_free(&b->spec);
        free(b->text);
    }
    free(b);
}

/* --- what comes first --- */

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
    LL_PREPEND2(w->batches, b, w_next);
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

static void batch_fails(struct centre *c, struct job_batch *b, uint64_t dependency)
{
    struct job *job, *tmp;

    DL_FOREACH_SAFE2(b->jobs, job, tmp, b_next)
    {
        if (job->over)
            continue;
        jobs_set_why(job, "dependency %" PRIu64, dependency);
        jobs_over(c, job, STAR__JOB_STATE__JOB_FAILED);
    }
}

/* Looks on among those that come first: true: none is left. */
static bool batch_looks(struct centre *c, struct job_batch *b)
{
    while (b->range < b->spec.after_n) {
        const struct job_range *r = &b->spec.after[b->range];
        if (b->next < r->first)
            b->next = r->first;
        for (; b->next <= r->last; b->next++) {
            int is = outcome(c, b->next);
            if (is > 0)
                continue;
            if (is == 0 && watch(c, b, b->next) == 0)
                return false;
            batch_fails(c, b, b->next);
            return false;
        }
        b->range++;
    }
    return true;
}

static void batch_free_to_run(struct centre *c, struct job_batch *b)
{
    struct job *job;

    DL_FOREACH2(b->jobs, job, b_next)
    {
        if (!job->over)
            jobs_enqueue(c, job);
    }
}

/* Those that waited for this job look on. */
static void wake_watchers(struct centre *c, uint64_t id)
{
    struct job_watch *w;
    struct job_batch *b;

    HASH_FIND(hh, c->jobs->watches, &id, sizeof(id), w);
    while (w && (b = w->batches)) {
        bool last = b->w_next == NULL;
        unwatch(c, b); /* frees w with its last one */
        b->users++;    /* its jobs may end on the way */
        if (batch_looks(c, b))
            batch_free_to_run(c, b);
        batch_drop(c, b);
        if (last)
            break;
    }
}

/* --- memory --- */

static void job_free(struct centre *c, struct job *job)
{
    struct job_batch *b = job->batch;

    HASH_DEL(c->jobs->all, job);
    DL_DELETE2(b->jobs, job, b_prev, b_next);
    star__job__free_unpacked(job->row, NULL);
    free(job);
    batch_drop(c, b);
}

static bool ended_add(struct jobs *j, uint64_t id, int64_t sec)
{
    if (j->ended_n == j->ended_size) {
        size_t size = j->ended_size ? j->ended_size * 2 : 256;
        struct job_ended *grown = malloc(size * sizeof(*grown));
        if (!grown)
            return false;
        for (size_t k = 0; k < j->ended_n; k++)
            grown[k] = j->ended[(j->ended_at + k) % j->ended_size];
        free(j->ended);
        j->ended = grown;
        j->ended_size = size;
        j->ended_at = 0;
    }
    j->ended[(j->ended_at + j->ended_n++) % j->ended_size] =
        (struct job_ended){.id = id, .sec = sec};
    return true;
}

/* The row is the job's from now on. */
static int job_add(struct centre *c, Star__Job *row)
{
    struct job *job = calloc(1, sizeof(*job));
    struct job_batch *b = job ? batch_get(c, row->batch) : NULL;

    if (!b) {
        free(job);
        star__job__free_unpacked(row, NULL);
        return -ENOMEM;
    }
    job->id = row->id;
    job->row = row;
    job->batch = b;
    b->users++;
    DL_APPEND2(b->jobs, job, b_prev, b_next);
    HASH_ADD(hh, c->jobs->all, id, sizeof(job->id), job);
    c->jobs->pending += row->state == STAR__JOB_STATE__JOB_PENDING;
    return 0;
}

/* What was placed by the leader before this one is at its node, or will be when it is told again.
 */
static void job_begin(struct centre *c, struct job *job)
{
    struct job_batch *b = job->batch;

    if (job->row->after && job->row->attempt == 0) {
        int rc = job_batch_spec(c, b);
        if (rc < 0) {
            jobs_set_why(job, "its spec cannot be read: %s", strerror(-rc));
            jobs_over(c, job, STAR__JOB_STATE__JOB_FAILED);
            return;
        }
        if (b->watched || !batch_looks(c, b))
            return;
    }
    if (!job->over)
        jobs_enqueue(c, job);
}

int jobs_take(struct centre *c, uint64_t id)
{
    Star__Job *row;

    if (jobs_find(c, id))
        return 0;
    int rc = state_job(c->state, id, &row);
    if (rc < 0)
        return rc;
    rc = job_add(c, row);
    if (rc == 0)
        job_begin(c, jobs_find(c, id));
    return rc;
}

/* --- the end of a job --- */

static uint64_t *counter_of(struct jobs *j, Star__JobState state)
{
    switch (state) {
    case STAR__JOB_STATE__JOB_DONE:
        return &j->count.done;
    case STAR__JOB_STATE__JOB_CANCELLED:
        return &j->count.cancelled;
    case STAR__JOB_STATE__JOB_TIMEOUT:
        return &j->count.timeout;
    case STAR__JOB_STATE__JOB_LOST:
        return &j->count.lost;
    default:
        return &j->count.failed;
    }
}

void jobs_over(struct centre *c, struct job *job, Star__JobState state)
{
    struct jobs *j = c->jobs;

    if (job->row->state == STAR__JOB_STATE__JOB_PENDING)
        j->pending--;
    job->row->state = state;
    job->over = true;
    jobs_time_now(&job->row->ended);
    for (uint32_t k = 0; k < job->row->n_copies; k++)
        if (job->copies[k].queued)
            job_queue_remove(j->queue, job->id, k + 1);
    j->place = true;
    (*counter_of(j, state))++;
    jobs_dirty(c, job);
}

/* --- into the log --- */

void jobs_dirty(struct centre *c, struct job *job)
{
    struct jobs *j = c->jobs;

    if (job->dirty)
        return;
    job->dirty = true;
    job->d_next = NULL;
    if (j->dirty_tail)
        j->dirty_tail->d_next = job;
    else
        j->dirty = job;
    j->dirty_tail = job;
    j->dirty_n++;
}

struct change {
    struct centre *c;
    uint64_t number;
    struct op *answers;
    size_t n;
    uint64_t ids[];
};

static void on_changed(void *arg, int status, const struct state_result *r)
{
    struct change *ch = arg;
    struct centre *c = ch->c;
    struct op *op;

    if (status == 0 && r->status < 0)
        log_error("jobs could not be changed: %s", strerror(-r->status));
    for (size_t k = 0; status == 0 && k < ch->n; k++) {
        struct job *job = jobs_find(c, ch->ids[k]);
        if (!job)
            continue;
        if (!job->over) {
            jobs_start_ready(c, job, ch->number);
            continue;
        }
        wake_watchers(c, job->id); /* from here, not from jobs_over(): chains may be long */
        if (!job->dirty) {
            ended_add(c->jobs, job->id, job->row->ended ? job->row->ended->sec : 0);
            job_free(c, job);
        }
    }
    while ((op = ch->answers)) {
        ch->answers = op->wait_next;
        op->wait_next = NULL;
        op->status = status < 0 ? status : r->status;
        op->next(op);
    }
    free(ch);
}

static void mark_ready(struct job *job, uint64_t number)
{
    for (uint32_t k = 0; k < job->row->n_copies; k++)
        if (job->copies[k].ready == READY_NEXT)
            job->copies[k].ready = number;
}

/* One entry with what has changed. -errno: it is still to be written. */
static int changes_write(struct centre *c)
{
    struct jobs *j = c->jobs;
    Star__LogJobChange body = STAR__LOG_JOB_CHANGE__INIT;
    size_t n = j->dirty_n < JOBS_CHANGE_MAX ? j->dirty_n : JOBS_CHANGE_MAX;
    struct change *ch = calloc(1, sizeof(*ch) + n * sizeof(ch->ids[0]));
    Star__Job **rows = malloc((n + 1) * sizeof(*rows));
    struct job *job = j->dirty;
    int rc = ch && rows ? 0 : -ENOMEM;

    for (size_t k = 0; rc == 0 && k < n; k++, job = job->d_next) {
        rows[k] = job->row;
        ch->ids[k] = job->id;
    }
    if (rc == 0) {
        *ch = (struct change){.c = c, .number = j->change + 1, .n = n};
        body.n_jobs = n;
        body.jobs = rows;
        rc = centre_submit(c, STAR__LOG_TYPE__LOG_JOB_CHANGE, &body.base, CONSENSUS_NOW, on_changed,
                           ch);
    }
    if (rc < 0) {
        free(ch);
        goto out;
    }
    j->change++;
    for (size_t k = 0; k < n; k++) {
        job = j->dirty;
        j->dirty = job->d_next;
        job->dirty = false;
        mark_ready(job, j->change);
    }
    j->dirty_n -= (unsigned)n;
    if (!j->dirty) {
        j->dirty_tail = NULL;
        ch->answers = j->answers; /* all that they told is on its way */
        j->answers = NULL;
    }
out:
    free(rows);
    return rc;
}

void jobs_turn(struct centre *c)
{
    struct jobs *j = c->jobs;

    if (!j || !j->loaded || !c->leading)
        return;
    if (j->place && c->serving)
        jobs_place(c);
    while (j->dirty || j->answers)
        if (changes_write(c) < 0)
            break; /* the next turn tries again */
}

/* --- those that have ended long ago --- */

struct forget {
    struct centre *c;
    struct op *op; /* waits for it; NULL: nobody does */
    size_t n, files_n;
    uint64_t files[]; /* inodes that may be unused then */
};

static void on_forgotten(void *arg, int status, const struct state_result *r)
{
    struct forget *f = arg;

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
    struct forget *f = calloc(1, sizeof(*f) + most * sizeof(f->files[0]));

    if (!f)
        return -ENOMEM;
    f->c = c;
    f->op = op;
    f->n = n;
    for (size_t k = 0; k < n; k++)
        for (uint32_t file = 2; file < 2 * (JOB_SPEC_COPIES_MAX + 1); file++)
            f->files_n += state_job_file(c->state, ids[k], file, &f->files[f->files_n]) == 0;
    body.n_forget = n;
    body.forget = (uint64_t *)(uintptr_t)ids;
    int rc = centre_submit(c, STAR__LOG_TYPE__LOG_JOB_CHANGE, &body.base,
                           op ? CONSENSUS_NOW : CONSENSUS_SOON, on_forgotten, f);
    if (rc < 0)
        free(f);
    else
        c->jobs->forgetting = true;
    return rc;
}

static bool is_waited_for(struct centre *c, uint64_t id)
{
    const struct job_watch *w;
    const struct job_batch *b;

    for (w = c->jobs->watches; w; w = w->hh.next)
        for (b = w->batches; b; b = b->w_next)
            for (size_t k = b->range; k < b->spec.after_n; k++)
                if (id >= b->spec.after[k].first && id <= b->spec.after[k].last)
                    return true;
    return false;
}

static void forgotten(struct op *op)
{
    op_reply(op, op->status, NULL);
}

int jobs_forget(struct op *op, uint64_t id)
{
    struct centre *c = op->c;

    if (jobs_find(c, id) || is_waited_for(c, id))
        return -EBUSY;
    op->pending++;
    int rc = forget_submit(c, &id, 1, op);
    if (rc < 0)
        op->pending--;
    else
        op_wait(op, forgotten);
    return rc;
}

static void forget_old(struct centre *c)
{
    struct jobs *j = c->jobs;
    uint64_t ids[JOBS_FORGET_MAX], most = setting_u64(c, "job_keep_max");
    int64_t before = clock_real().tv_sec - (int64_t)setting_u64(c, "job_keep");
    size_t n = 0, kept = 0;

    if (j->forgetting)
        return;
    for (; n + kept < j->ended_n && n < JOBS_FORGET_MAX && kept < JOBS_FORGET_MAX;) {
        struct job_ended e = j->ended[j->ended_at];
        if (j->ended_n - kept <= most && e.sec > before)
            break;
        if (is_waited_for(c, e.id)) { /* it goes to the end of the line */
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
            ended_add(j, ids[k], 0); /* the next tick takes them */
}

void jobs_tick(struct centre *c, int64_t now)
{
    struct jobs *j = c->jobs;
    struct job *job, *tmp;

    if (!j || !j->loaded || now - j->tick_ms < JOBS_TICK_MS)
        return;
    j->tick_ms = now;
    j->place = true;
    HASH_ITER (hh, j->all, job, tmp) {
        if (!job->over)
            jobs_run_tick(c, job, now);
    }
    forget_old(c);
}

/* --- begin, end --- */

struct loading {
    struct centre *c;
    int rc;
};

static bool load_one(void *arg, const Star__Job *row)
{
    struct loading *l = arg;

    if (jobs_state_is_over(row->state)) {
        if (!ended_add(l->c->jobs, row->id, row->ended ? row->ended->sec : 0))
            l->rc = -ENOMEM;
        return l->rc == 0;
    }
    size_t len = star__job__get_packed_size(row);
    uint8_t *packed = malloc(len + 1);
    if (packed)
        star__job__pack(row, packed);
    Star__Job *own = packed ? star__job__unpack(NULL, len, packed) : NULL;
    free(packed);
    l->rc = own ? job_add(l->c, own) : -ENOMEM;
    return l->rc == 0;
}

static int by_end(const void *a, const void *b)
{
    const struct job_ended *x = a, *y = b;

    return x->sec != y->sec ? (x->sec > y->sec) - (x->sec < y->sec)
                            : (x->id > y->id) - (x->id < y->id);
}

int jobs_load(struct centre *c)
{
    struct loading l = {.c = c};
    struct job *job, *tmp;
    struct jobs *j = calloc(1, sizeof(*j));

    if (!j)
        return -ENOMEM;
    c->jobs = j;
    int rc = job_queue_make(&j->queue, &(struct job_queue_rules){0});
    if (rc == 0)
        rc = state_jobs(c->state, 0, load_one, &l);
    if (rc == 0)
        rc = l.rc;
    if (rc < 0)
        return rc;
    if (j->ended_n > 0)
        qsort(j->ended, j->ended_n, sizeof(j->ended[0]), by_end);
    HASH_ITER (hh, j->all, job, tmp) {
        if (!job->over)
            job_begin(c, job);
    }
    j->loaded = true;
    return 0;
}

void jobs_free_all(struct centre *c)
{
    struct jobs *j = c->jobs;
    struct job *job, *tmp;

    if (!j)
        return;
    HASH_ITER (hh, j->all, job, tmp)
        job_free(c, job);
    job_queue_free(j->queue);
    free(j->ended);
    free(j);
    c->jobs = NULL;
}
