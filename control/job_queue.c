#include "control/job_queue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/job_queue_private.h"

static const struct job_place_node *choose(struct job_queue *q, const struct run *run)
{
    const struct job_queue_rules *r = &q->rules;
    struct job_place_held held[JOB_QUEUE_HELD];
    size_t n = 0;
    const struct job_place_node *node = job_place_choose(q->nodes, q->nodes_n, &run->need, NULL, 0);

    if (!node || (!r->holders && !r->choose))
        return node;
    if (r->holders)
        n = r->holders(r->context, run->key.job, held, JOB_QUEUE_HELD);
    if (r->choose)
        return r->choose(r->context, q->nodes, q->nodes_n, &run->need, held, n);
    return n ? job_place_choose(q->nodes, q->nodes_n, &run->need, held, n) : node;
}

static const struct job_place_node *choose_for(struct job_queue *q, const struct run *run)
{
    jq_bar_copies(q, run, true);
    jq_bar_holds(q, run, true);
    const struct job_place_node *node = choose(q, run);
    jq_bar_holds(q, run, false);
    jq_bar_copies(q, run, false);
    return node;
}

bool job_queue_next(struct job_queue *q, uint64_t now, struct job_queue_placed *out)
{
    if (q->sizes_changed) {
        job_place_keep(q->nodes, q->nodes_n);
        q->sizes_changed = false;
    }
    jq_look_at_holds(q, now);
    jq_look_at_blocked(q);
    while (q->ready.n > 0) {
        struct line *line = (struct line *)q->ready.items[0];
        struct run *run = jq_first_run(line);
        const struct job_place_node *chosen = choose_for(q, run);
        if (!chosen) {
            jq_block(q, line);
            continue;
        }
        line->used[run->key.copy - 1] = chosen->id;
        *out = (struct job_queue_placed){.job = run->key.job,
                                         .copy = (uint32_t)run->key.copy,
                                         .node = chosen->id,
                                         .since = run->since};
        jq_reserve(jq_node(q, chosen->id), run);
        jq_take_run(q, run);
        return true;
    }
    return false;
}

static struct run *find_run(const struct job_queue *q, uint64_t job, uint32_t copy)
{
    struct run_key key = {job, copy};
    struct run *run;

    HASH_FIND(hh, q->runs, &key, sizeof(key), run);
    return run;
}

static int make_run(struct job_queue *q, const struct job_queue_run *r, struct run **out)
{
    if (r->copy < 1 || r->copy > JOB_SPEC_COPIES_MAX)
        return -EINVAL;
    if (find_run(q, r->job, r->copy))
        return -EEXIST;
    struct run *run = calloc(1, sizeof(*run));
    if (!run)
        return -ENOMEM;
    run->key = (struct run_key){r->job, r->copy};
    run->item = (struct job_heap_item){.priority = r->priority, .job = r->job, .copy = r->copy};
    run->need = r->need;
    run->since = r->since;
    *out = run;
    return 0;
}

int job_queue_add(struct job_queue *q, const struct job_queue_run *r,
                  const uint32_t nodes[JOB_SPEC_COPIES_MAX])
{
    struct line *line = NULL;
    struct run *run = NULL;
    int rc = make_run(q, r, &run);

    if (rc != 0)
        return rc;
    rc = jq_want_line(q, r, &line);
    if (rc != 0) {
        free(run);
        return rc;
    }
    for (size_t n = 0; nodes && n < JOB_SPEC_COPIES_MAX; n++)
        line->used[n] = n + 1 == r->copy ? 0 : nodes[n];
    jq_put_run(q, line, run);
    HASH_ADD(hh, q->runs, key, sizeof(run->key), run);
    return 0;
}

int job_queue_add_placed(struct job_queue *q, const struct job_queue_run *r, uint32_t id)
{
    struct run *run = NULL;
    struct job_place_node *node;
    int rc = id == 0 ? -EINVAL : make_run(q, r, &run);

    if (rc != 0)
        return rc;
    node = jq_want_node(q, id);
    if (!node) {
        free(run);
        return -ENOMEM;
    }
    jq_reserve(node, run);
    HASH_ADD(hh, q->runs, key, sizeof(run->key), run);
    return 0;
}

int job_queue_remove(struct job_queue *q, uint64_t job, uint32_t copy)
{
    struct run *run = find_run(q, job, copy);

    if (!run)
        return -ENOENT;
    if (run->line)
        jq_take_run(q, run);
    else
        jq_release(q, run);
    HASH_DEL(q->runs, run);
    free(run);
    return 0;
}

int job_queue_make(struct job_queue **out, const struct job_queue_rules *rules)
{
    struct job_queue *q = calloc(1, sizeof(*q));

    if (!q)
        return -ENOMEM;
    q->rules = *rules;
    *out = q;
    return 0;
}

void job_queue_free(struct job_queue *q)
{
    struct run *run, *next;

    if (!q)
        return;
    HASH_ITER (hh, q->runs, run, next) {
        HASH_DEL(q->runs, run);
        free(run);
    }
    jq_free_lines(q);
    jq_free_nodes(q);
    free(q);
}

size_t job_queue_waiting(const struct job_queue *q)
{
    return q->waiting;
}

int job_queue_could(struct job_queue *q, const struct job_place_need *need, unsigned copies,
                    char why[JOB_PLACE_WHY])
{
    return job_place_could(q->nodes, q->nodes_n, need, copies, why);
}

size_t job_queue_hopeless(struct job_queue *q, job_queue_more *more, void *context, uint64_t *job,
                          char why[JOB_PLACE_WHY])
{
    char one[JOB_PLACE_WHY], other[JOB_PLACE_WHY];
    size_t runs = 0;

    why[0] = '\0';
    for (size_t n = 0; n < q->blocked_n && n < JOB_QUEUE_LOOK; n++) {
        struct line *line = q->blocked[n].line;
        const struct run *run = jq_first_run(line);
        if (job_queue_could(q, &run->need, line->copies, one) == 0)
            continue;
        uint32_t come = more ? more(context, &run->need) : 0;
        if (come >= line->copies ||
            (come > 0 && job_queue_could(q, &run->need, line->copies - come, other) == 0))
            continue;
        if (runs == 0 || run->key.job < *job) {
            *job = run->key.job;
            memcpy(why, one, sizeof(one));
        }
        runs += line->runs.n;
    }
    return runs;
}

static bool any_fits(const struct job_queue *q, const struct run *run)
{
    return job_place_choose(q->nodes, q->nodes_n, &run->need, NULL, 0) != NULL;
}

static bool any_open(const struct job_queue *q, const struct run *run)
{
    for (size_t n = 0; n < q->nodes_n; n++)
        if (q->nodes[n].open && (run->need.node == 0 || run->need.node == q->nodes[n].id))
            return true;
    return false;
}

enum job_queue_wait job_queue_why(struct job_queue *q, uint64_t job, uint32_t copy,
                                  char why[JOB_PLACE_WHY])
{
    struct run *run = find_run(q, job, copy);
    enum job_queue_wait wait;

    why[0] = '\0';
    if (!run || !run->line)
        return JOB_QUEUE_NOT;
    if (!any_open(q, run)) {
        job_place_why(q->nodes, q->nodes_n, &run->need, why);
        return JOB_QUEUE_NODE;
    }
    if (!any_fits(q, run)) {
        job_place_why(q->nodes, q->nodes_n, &run->need, why);
        return JOB_QUEUE_RESOURCES;
    }
    jq_bar_copies(q, run, true);
    if (any_fits(q, run)) {
        wait = JOB_QUEUE_TURN;
        snprintf(why, JOB_PLACE_WHY, "jobs that come before it get their nodes first");
    } else {
        wait = JOB_QUEUE_COPIES;
        snprintf(why, JOB_PLACE_WHY,
                 "its %u copies run on different nodes, and no other node has room",
                 run->line->copies);
    }
    jq_bar_copies(q, run, false);
    return wait;
}
