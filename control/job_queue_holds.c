#include "control/job_queue_private.h"

/* Patience is a minute, so a second more does not matter. */
#define LOOK_MS 1000

/* Nodes of the job's other copies. */
void jq_bar_copies(struct job_queue *q, const struct run *run, bool barred)
{
    const struct line *line = run->line;

    for (size_t n = 0; line->key.job && n < JOB_SPEC_COPIES_MAX; n++) {
        struct job_place_node *node =
            line->used[n] && n + 1 != run->key.copy ? jq_node(q, line->used[n]) : NULL;
        if (node)
            node->barred = barred;
    }
}

/* Nodes that are held for what comes before it. */
void jq_bar_holds(struct job_queue *q, const struct run *run, bool barred)
{
    for (size_t n = 0; n < q->holds_n; n++) {
        struct job_place_node *node = jq_node(q, q->holds[n].node);
        if (node && job_heap_before(&q->holds[n].run->item, &run->item))
            node->barred = barred;
    }
}

bool jq_may(const struct job_queue *q, const struct run *run, uint32_t node)
{
    const struct line *line = run->line;

    for (size_t n = 0; line->key.job && n < JOB_SPEC_COPIES_MAX; n++)
        if (line->used[n] == node && n + 1 != run->key.copy)
            return false;
    for (size_t n = 0; n < q->holds_n; n++)
        if (q->holds[n].node == node && job_heap_before(&q->holds[n].run->item, &run->item))
            return false;
    return true;
}

static void drop_hold(struct job_queue *q, size_t n)
{
    struct job_place_node *node = jq_node(q, q->holds[n].node);

    q->holds[n] = q->holds[--q->holds_n];
    if (node)
        jq_gained(q, node->id);
}

void jq_end_hold(struct job_queue *q, const struct run *run)
{
    for (size_t n = 0; n < q->holds_n; n++)
        if (q->holds[n].run == run) {
            drop_hold(q, n);
            return;
        }
}

static bool is_held(const struct job_queue *q, uint32_t node)
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

    jq_bar_copies(q, run, true);
    for (size_t n = 0; n < q->nodes_n; n++) {
        const struct job_place_node *node = &q->nodes[n];
        if (!fits_emptied(node, &run->need) || is_held(q, node->id))
            continue;
        double more =
            best ? job_place_share(node, &run->need) - job_place_share(best, &run->need) : 1;
        if (more > 0 || (more >= 0 && node->id < best->id))
            best = node;
    }
    jq_bar_copies(q, run, false);
    if (best)
        q->holds[q->holds_n++] = (struct hold){run, best->id};
}

/* The first of the blocked lines' runs that has waited long and comes after `last`. */
static struct run *impatient(const struct job_queue *q, uint64_t now, const struct run *last)
{
    struct run *first = NULL;

    for (size_t n = 0; n < q->blocked_n; n++) {
        struct run *run = jq_first_run(q->blocked[n].line);
        if (now < run->since || now - run->since < JOB_QUEUE_PATIENCE_MS)
            continue;
        if ((!last || job_heap_before(&last->item, &run->item)) &&
            (!first || job_heap_before(&run->item, &first->item)))
            first = run;
    }
    return first;
}

void jq_look_at_holds(struct job_queue *q, uint64_t now)
{
    size_t open = 0, most;
    struct run *run = NULL;

    if (now < q->look)
        return;
    q->look = now + LOOK_MS;
    for (size_t n = q->holds_n; n > 0; n--) {
        const struct job_place_node *node = jq_node(q, q->holds[n - 1].node);
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
