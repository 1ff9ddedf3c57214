#include "control/job_queue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "control/job_heap.h"

/* What is asked for by all runs of a line; zeroed before it is filled, since its bytes are the key.
 */
struct line_key {
    uint64_t memory;
    uint64_t job; /* of jobs with copies: a line of its own, since they keep away from each other */
    uint32_t milli_cpus, node;
};

struct line {
    struct job_heap_item head; /* the order of its first run */
    struct line_key key;
    struct job_heap runs;
    bool blocked; /* it fits nowhere: in `blocked`, not in `ready` */
    size_t at;    /* there */
    uint32_t copies;
    uint32_t used[JOB_SPEC_COPIES_MAX]; /* nodes of the copies; 0: none */
    UT_hash_handle hh;
};

/* No padding: its bytes are the key. */
struct run_key {
    uint64_t job, copy;
};

struct run {
    struct job_heap_item item;
    struct run_key key;
    struct job_place_need need;
    struct line *line; /* it waits there; NULL: it is placed */
    uint32_t node;     /* where it is placed */
    uint64_t since;
    UT_hash_handle hh;
};

struct slot {
    uint32_t id;
    size_t at; /* in `nodes` */
    UT_hash_handle hh;
};

struct hold {
    struct run *run;
    uint32_t node;
};

struct job_queue {
    struct job_queue_rules rules;
    struct job_place_node *nodes; /* those that are gone, but have runs, with milli_cpus 0 */
    size_t nodes_n, nodes_size;
    struct slot *slots;
    struct run *runs;
    size_t waiting;
    struct line *lines;
    struct job_heap ready; /* of lines */
    struct line **blocked;
    size_t blocked_n, blocked_size;
    /* At most that much was gained by any one node since blocked lines were last looked at. */
    uint64_t gained_milli, gained_memory;
    bool gained;
    struct hold holds[JOB_QUEUE_HOLDS];
    size_t holds_n;
    uint64_t look; /* when holds are to be looked at again */
};

/* Patience is a minute, so a second more does not matter. */
#define LOOK_MS 1000

/* ---- nodes */

static struct job_place_node *find_node(const struct job_queue *q, uint32_t id)
{
    struct slot *s;

    HASH_FIND(hh, q->slots, &id, sizeof(id), s);
    return s ? &q->nodes[s->at] : NULL;
}

/* The node, made closed and without anything if it is not known. NULL: out of memory. */
static struct job_place_node *want_node(struct job_queue *q, uint32_t id)
{
    struct job_place_node *node = find_node(q, id);

    if (node)
        return node;
    if (q->nodes_n == q->nodes_size) {
        size_t size = q->nodes_size ? 2 * q->nodes_size : 8;
        struct job_place_node *nodes = reallocarray(q->nodes, size, sizeof(*nodes));
        if (!nodes)
            return NULL;
        q->nodes = nodes;
        q->nodes_size = size;
    }
    struct slot *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->id = id;
    s->at = q->nodes_n++;
    HASH_ADD(hh, q->slots, id, sizeof(s->id), s);
    q->nodes[s->at] = (struct job_place_node){.id = id};
    return &q->nodes[s->at];
}

static void drop_node(struct job_queue *q, uint32_t id)
{
    struct slot *s, *moved;

    HASH_FIND(hh, q->slots, &id, sizeof(id), s);
    size_t last = --q->nodes_n;
    if (s->at != last) {
        q->nodes[s->at] = q->nodes[last];
        HASH_FIND(hh, q->slots, &q->nodes[last].id, sizeof(id), moved);
        moved->at = s->at;
    }
    HASH_DEL(q->slots, s);
    free(s);
}

/* The node may have room for what is blocked. */
static void gained(struct job_queue *q, const struct job_place_node *node)
{
    uint64_t milli = job_place_free_milli(node), memory = job_place_free_memory(node);

    if (!node->open)
        return;
    q->gained = true;
    q->gained_milli = milli > q->gained_milli ? milli : q->gained_milli;
    q->gained_memory = memory > q->gained_memory ? memory : q->gained_memory;
}

int job_queue_node(struct job_queue *q, const struct job_place_node *known)
{
    if (known->id == 0)
        return -EINVAL;
    struct job_place_node *node = want_node(q, known->id);
    if (!node)
        return -ENOMEM;
    struct job_place_node before = *node;
    *node = *known;
    node->barred = false;
    node->runs = before.runs;
    node->milli_reserved = before.milli_reserved;
    node->memory_reserved = before.memory_reserved;
    if (!before.open || before.runs_max != node->runs_max ||
        job_place_free_milli(node) > job_place_free_milli(&before) ||
        job_place_free_memory(node) > job_place_free_memory(&before))
        gained(q, node);
    return 0;
}

void job_queue_node_gone(struct job_queue *q, uint32_t id)
{
    struct job_place_node *node = find_node(q, id);

    if (!node)
        return;
    node->open = false;
    node->milli_cpus = 0;
    node->memory = 0;
    if (node->runs == 0)
        drop_node(q, id);
}

const struct job_place_node *job_queue_node_now(const struct job_queue *q, uint32_t id)
{
    return find_node(q, id);
}

static void reserve(struct job_place_node *node, struct run *run)
{
    node->runs++;
    node->milli_reserved += run->need.milli_cpus;
    node->memory_reserved += run->need.memory;
    run->node = node->id;
}

static void release(struct job_queue *q, struct run *run)
{
    struct job_place_node *node = find_node(q, run->node);

    node->runs--;
    node->milli_reserved -= run->need.milli_cpus;
    node->memory_reserved -= run->need.memory;
    gained(q, node);
    if (node->runs == 0 && node->milli_cpus == 0)
        drop_node(q, node->id);
}

/* ---- lines */

static struct line *line_of(struct job_heap_item *head)
{
    return (struct line *)head;
}

static struct run *first_run(const struct line *line)
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
    struct line **blocked = reallocarray(q->blocked, q->ready.size, sizeof(*blocked));
    if (!blocked)
        return -ENOMEM;
    q->blocked = blocked;
    q->blocked_size = q->ready.size;
    return 0;
}

/* The line is in neither list until its first run is put. */
static int want_line(struct job_queue *q, const struct job_queue_run *r, struct line **out)
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
    *out = line;
    return 0;
}

static void drop_line(struct job_queue *q, struct line *line)
{
    HASH_DEL(q->lines, line);
    job_heap_free(&line->runs);
    free(line);
}

static void block(struct job_queue *q, struct line *line)
{
    job_heap_take(&q->ready, &line->head);
    line->blocked = true;
    line->at = q->blocked_n;
    q->blocked[q->blocked_n++] = line;
}

static void unblock(struct job_queue *q, struct line *line)
{
    struct line *last = q->blocked[--q->blocked_n];

    q->blocked[line->at] = last;
    last->at = line->at;
    line->blocked = false;
    job_heap_put(&q->ready, &line->head);
}

static void head_is(struct line *line)
{
    struct job_heap_item *first = line->runs.items[0];

    line->head.priority = first->priority;
    line->head.job = first->job;
    line->head.copy = first->copy;
}

static void put_run(struct job_queue *q, struct line *line, struct run *run)
{
    bool fresh = line->runs.n == 0;

    job_heap_put(&line->runs, &run->item);
    run->line = line;
    q->waiting++;
    if (first_run(line) == run)
        head_is(line);
    if (fresh)
        job_heap_put(&q->ready, &line->head);
    else if (!line->blocked)
        job_heap_moved(&q->ready, &line->head);
    else if (first_run(line) == run || line->key.job)
        unblock(q, line); /* where it may not go is other than it was */
}

static void drop_hold(struct job_queue *q, size_t n)
{
    struct job_place_node *node = find_node(q, q->holds[n].node);

    q->holds[n] = q->holds[--q->holds_n];
    if (node)
        gained(q, node);
}

static void take_run(struct job_queue *q, struct run *run)
{
    struct line *line = run->line;

    job_heap_take(&line->runs, &run->item);
    run->line = NULL;
    q->waiting--;
    for (size_t n = 0; n < q->holds_n; n++)
        if (q->holds[n].run == run) {
            drop_hold(q, n);
            break;
        }
    if (line->runs.n > 0) {
        head_is(line);
        if (!line->blocked)
            job_heap_moved(&q->ready, &line->head);
        return;
    }
    if (line->blocked)
        unblock(q, line);
    job_heap_take(&q->ready, &line->head);
    drop_line(q, line);
}

/* ---- placing */

/* Nodes of the job's other copies. */
static void bar_copies(struct job_queue *q, const struct line *line, const struct run *run,
                       bool barred)
{
    for (size_t n = 0; line->key.job && n < JOB_SPEC_COPIES_MAX; n++) {
        struct job_place_node *node =
            line->used[n] && n + 1 != run->key.copy ? find_node(q, line->used[n]) : NULL;
        if (node)
            node->barred = barred;
    }
}

/* Nodes that are held for what comes before it. */
static void bar_holds(struct job_queue *q, const struct run *run, bool barred)
{
    for (size_t n = 0; n < q->holds_n; n++) {
        struct job_place_node *node = find_node(q, q->holds[n].node);
        if (node && job_heap_before(&q->holds[n].run->item, &run->item))
            node->barred = barred;
    }
}

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

static const struct job_place_node *choose_for(struct job_queue *q, const struct line *line,
                                               const struct run *run)
{
    bar_copies(q, line, run, true);
    bar_holds(q, run, true);
    const struct job_place_node *node = choose(q, run);
    bar_holds(q, run, false);
    bar_copies(q, line, run, false);
    return node;
}

static void look_at_blocked(struct job_queue *q)
{
    if (!q->gained)
        return;
    for (size_t n = q->blocked_n; n > 0; n--) { /* unblock() puts the last, already seen, there */
        struct line *line = q->blocked[n - 1];
        if (line->key.milli_cpus <= q->gained_milli && line->key.memory <= q->gained_memory)
            unblock(q, line);
    }
    q->gained = false;
    q->gained_milli = q->gained_memory = 0;
}

/* ---- holding nodes */

static bool held(const struct job_queue *q, uint32_t node)
{
    for (size_t n = 0; n < q->holds_n; n++)
        if (q->holds[n].node == node)
            return true;
    return false;
}

static bool holds(const struct job_queue *q, const struct run *run)
{
    for (size_t n = 0; n < q->holds_n; n++)
        if (q->holds[n].run == run)
            return true;
    return false;
}

/* The run fits there once the node's jobs have ended. */
static bool fits_emptied(const struct job_place_node *node, const struct job_place_need *need)
{
    struct job_place_node empty = *node;

    empty.runs = 0;
    empty.milli_reserved = empty.memory_reserved = 0;
    return job_place_fits(&empty, need);
}

static void hold_for(struct job_queue *q, struct run *run)
{
    const struct job_place_node *best = NULL;

    bar_copies(q, run->line, run, true);
    for (size_t n = 0; n < q->nodes_n; n++) {
        const struct job_place_node *node = &q->nodes[n];
        if (!fits_emptied(node, &run->need) || held(q, node->id))
            continue;
        double more =
            best ? job_place_share(node, &run->need) - job_place_share(best, &run->need) : 1;
        if (more > 0 || (more >= 0 && node->id < best->id))
            best = node;
    }
    bar_copies(q, run->line, run, false);
    if (best)
        q->holds[q->holds_n++] = (struct hold){run, best->id};
}

/* The first of the blocked lines' runs that has waited long and comes after `last`. */
static struct run *impatient(const struct job_queue *q, uint64_t now, const struct run *last)
{
    struct run *first = NULL;

    for (size_t n = 0; n < q->blocked_n; n++) {
        struct run *run = first_run(q->blocked[n]);
        if (now < run->since || now - run->since < JOB_QUEUE_PATIENCE_MS)
            continue;
        if ((!last || job_heap_before(&last->item, &run->item)) &&
            (!first || job_heap_before(&run->item, &first->item)))
            first = run;
    }
    return first;
}

static void look_at_holds(struct job_queue *q, uint64_t now)
{
    size_t open = 0, most;
    struct run *run = NULL;

    if (now < q->look)
        return;
    q->look = now + LOOK_MS;
    for (size_t n = q->holds_n; n > 0; n--) {
        const struct job_place_node *node = find_node(q, q->holds[n - 1].node);
        if (!node || !fits_emptied(node, &q->holds[n - 1].run->need))
            drop_hold(q, n - 1);
    }
    for (size_t n = 0; n < q->nodes_n; n++)
        open += q->nodes[n].open;
    most = open / 4 > 1 ? open / 4 : 1;
    most = most < JOB_QUEUE_HOLDS ? most : JOB_QUEUE_HOLDS;
    for (size_t n = 0; n < JOB_QUEUE_HOLDS && q->holds_n < most; n++) {
        run = impatient(q, now, run);
        if (!run)
            return;
        if (!holds(q, run))
            hold_for(q, run);
    }
}

bool job_queue_next(struct job_queue *q, uint64_t now, struct job_queue_placed *out)
{
    look_at_holds(q, now);
    look_at_blocked(q);
    while (q->ready.n > 0) {
        struct line *line = line_of(q->ready.items[0]);
        struct run *run = first_run(line);
        const struct job_place_node *chosen = choose_for(q, line, run);
        if (!chosen) {
            block(q, line);
            continue;
        }
        line->used[run->key.copy - 1] = chosen->id;
        *out = (struct job_queue_placed){run->key.job, (uint32_t)run->key.copy, chosen->id};
        reserve(find_node(q, chosen->id), run);
        take_run(q, run);
        return true;
    }
    return false;
}

/* ---- what comes and goes */

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
    rc = want_line(q, r, &line);
    if (rc == 0)
        rc = job_heap_reserve(&line->runs, line->runs.n + 1);
    if (rc != 0)
        goto out;
    for (size_t n = 0; nodes && n < JOB_SPEC_COPIES_MAX; n++)
        line->used[n] = n + 1 == r->copy ? 0 : nodes[n];
    put_run(q, line, run);
    HASH_ADD(hh, q->runs, key, sizeof(run->key), run);
    return 0;

out:
    if (line && line->runs.n == 0)
        drop_line(q, line);
    free(run);
    return rc;
}

int job_queue_add_placed(struct job_queue *q, const struct job_queue_run *r, uint32_t id)
{
    struct run *run = NULL;
    struct job_place_node *node;
    int rc = id == 0 ? -EINVAL : make_run(q, r, &run);

    if (rc != 0)
        return rc;
    node = want_node(q, id);
    if (!node) {
        free(run);
        return -ENOMEM;
    }
    reserve(node, run);
    HASH_ADD(hh, q->runs, key, sizeof(run->key), run);
    return 0;
}

int job_queue_remove(struct job_queue *q, uint64_t job, uint32_t copy)
{
    struct run *run = find_run(q, job, copy);

    if (!run)
        return -ENOENT;
    if (run->line)
        take_run(q, run);
    else
        release(q, run);
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
    struct run *run, *next_run;
    struct line *line, *next_line;
    struct slot *slot, *next_slot;

    if (!q)
        return;
    HASH_ITER (hh, q->runs, run, next_run) {
        HASH_DEL(q->runs, run);
        free(run);
    }
    HASH_ITER (hh, q->lines, line, next_line)
        drop_line(q, line);
    HASH_ITER (hh, q->slots, slot, next_slot) {
        HASH_DEL(q->slots, slot);
        free(slot);
    }
    job_heap_free(&q->ready);
    free(q->blocked);
    free(q->nodes);
    free(q);
}

/* ---- what is asked */

size_t job_queue_waiting(const struct job_queue *q)
{
    return q->waiting;
}

int job_queue_could(struct job_queue *q, const struct job_place_need *need, unsigned copies,
                    char why[JOB_PLACE_WHY])
{
    return job_place_could(q->nodes, q->nodes_n, need, copies, why);
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
    bar_copies(q, run->line, run, true);
    if (any_fits(q, run)) {
        wait = JOB_QUEUE_TURN;
        snprintf(why, JOB_PLACE_WHY, "jobs that come before it get their nodes first");
    } else {
        wait = JOB_QUEUE_COPIES;
        snprintf(why, JOB_PLACE_WHY,
                 "its %u copies run on different nodes, and no other node has room",
                 run->line->copies);
    }
    bar_copies(q, run->line, run, false);
    return wait;
}
