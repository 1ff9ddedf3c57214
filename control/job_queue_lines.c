#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/job_queue_private.h"

struct run *jq_first_run(const struct line *line)
{
    return (struct run *)line->runs.items[0];
}

static struct line_key key_of(const struct job_queue_run *r)
{
    struct line_key key;

    memset(&key, 0, sizeof(key));
    key.memory = r->need.memory;
    key.milli_cpus = r->need.milli_cpus;
    key.node = r->need.node;
    key.job = r->copies > 1 ? r->job : 0;
    return key;
}

/* Room in both lists for all lines, so that placing never fails. */
static int room_for_lines(struct job_queue *q, size_t n)
{
    int rc = job_heap_reserve(&q->ready, n);

    if (rc != 0 || n <= q->blocked_size)
        return rc;
    struct blocked *blocked = reallocarray(q->blocked, q->ready.size, sizeof(*blocked));
    if (!blocked)
        return -ENOMEM;
    q->blocked = blocked;
    q->blocked_size = q->ready.size;
    return 0;
}

int jq_want_line(struct job_queue *q, const struct job_queue_run *r, struct line **out)
{
    struct line_key key = key_of(r);
    struct line *line;
    int rc;

    HASH_FIND(hh, q->lines, &key, sizeof(key), line);
    if (!line) {
        rc = room_for_lines(q, HASH_COUNT(q->lines) + 1);
        if (rc != 0)
            return rc;
        line = calloc(1, sizeof(*line));
        if (!line)
            return -ENOMEM;
        line->key = key;
        line->copies = r->copies;
        HASH_ADD(hh, q->lines, key, sizeof(line->key), line);
    }
    rc = job_heap_reserve(&line->runs, line->runs.n + 1);
    if (rc == 0)
        *out = line;
    else if (line->runs.n == 0)
        jq_drop_line(q, line);
    return rc;
}

void jq_drop_line(struct job_queue *q, struct line *line)
{
    HASH_DEL(q->lines, line);
    job_heap_free(&line->runs);
    free(line);
}

void jq_block(struct job_queue *q, struct line *line)
{
    job_heap_take(&q->ready, &line->head);
    line->blocked = true;
    line->at = q->blocked_n++;
    q->blocked[line->at] = (struct blocked){.line = line,
                                            .job = line->head.job,
                                            .memory = line->key.memory,
                                            .milli_cpus = line->key.milli_cpus,
                                            .priority = line->head.priority};
}

void jq_unblock(struct job_queue *q, struct line *line)
{
    const struct blocked *last = &q->blocked[--q->blocked_n];

    last->line->at = line->at;
    q->blocked[line->at] = *last;
    line->blocked = false;
    job_heap_put(&q->ready, &line->head);
}

/* Of different lines; copies of one job are in one. */
static bool before(const struct blocked *a, const struct blocked *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->job < b->job;
}

static bool fits_gained(const struct job_queue *q, const struct line *line)
{
    const struct run *run = jq_first_run(line);

    for (size_t n = 0; n < q->gained_n; n++) {
        const struct job_place_node *node = jq_node(q, q->gained[n]);
        if (job_place_fits(node, &run->need) && jq_may(q, run, node->id))
            return true;
    }
    return false;
}

void jq_look_at_blocked(struct job_queue *q)
{
    const struct blocked *first = NULL;
    uint64_t milli = 0, memory = 0; /* no node that gained has more */

    for (size_t n = 0; n < q->gained_n; n++) {
        const struct job_place_node *node = jq_node(q, q->gained[n]);
        uint64_t m = job_place_free_milli(node), b = job_place_free_memory(node);
        milli = m > milli ? m : milli;
        memory = b > memory ? b : memory;
    }
    for (size_t n = 0; q->gained_n > 0 && n < q->blocked_n; n++) {
        const struct blocked *b = &q->blocked[n];
        if (b->milli_cpus <= milli && b->memory <= memory && (!first || before(b, first)) &&
            fits_gained(q, b->line))
            first = b;
    }
    if (first)
        jq_unblock(q, first->line);
    else
        jq_gained_none(q);
}

static void head_is(struct job_queue *q, struct line *line)
{
    struct job_heap_item *first = line->runs.items[0];

    line->head.priority = first->priority;
    line->head.job = first->job;
    line->head.copy = first->copy;
    if (line->blocked) {
        q->blocked[line->at].priority = first->priority;
        q->blocked[line->at].job = first->job;
    }
}

void jq_put_run(struct job_queue *q, struct line *line, struct run *run)
{
    bool fresh = line->runs.n == 0;

    job_heap_put(&line->runs, &run->item);
    run->line = line;
    q->waiting++;
    if (jq_first_run(line) == run)
        head_is(q, line);
    if (fresh)
        job_heap_put(&q->ready, &line->head);
    else if (!line->blocked)
        job_heap_moved(&q->ready, &line->head);
    else if (jq_first_run(line) == run || line->key.job)
        jq_unblock(q, line); /* where it may not go is other than it was */
}

void jq_take_run(struct job_queue *q, struct run *run)
{
    struct line *line = run->line;

    job_heap_take(&line->runs, &run->item);
    run->line = NULL;
    q->waiting--;
    jq_end_hold(q, run);
    if (line->runs.n > 0) {
        head_is(q, line);
        if (!line->blocked)
            job_heap_moved(&q->ready, &line->head);
        return;
    }
    if (line->blocked)
        jq_unblock(q, line);
    job_heap_take(&q->ready, &line->head);
    jq_drop_line(q, line);
}

size_t job_queue_blocked(const struct job_queue *q, struct job_queue_blocked *out, size_t most)
{
    size_t n = q->blocked_n < most ? q->blocked_n : most;

    for (size_t k = 0; k < n; k++) {
        const struct line *line = q->blocked[k].line;
        const struct run *first = jq_first_run(line);
        out[k] = (struct job_queue_blocked){.need = first->need,
                                            .runs = (uint32_t)line->runs.n,
                                            .copies = line->copies,
                                            .since = first->since};
        for (size_t m = 0; line->key.job && m < JOB_SPEC_COPIES_MAX; m++)
            out[k].apart += line->used[m] != 0;
    }
    return n;
}

void jq_free_lines(struct job_queue *q)
{
    struct line *line, *next;

    HASH_ITER (hh, q->lines, line, next)
        jq_drop_line(q, line);
    job_heap_free(&q->ready);
    free(q->blocked);
}
