/* The queue of jobs: order, room, copies, patience; and that it is never wrong about who fits. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/job_queue.h"

#define GIB (1ull << 30)

static struct job_queue *fresh(void)
{
    struct job_queue_rules rules = {0};
    struct job_queue *q;

    cr_assert_eq(job_queue_make(&q, &rules), 0);
    return q;
}

static void node(struct job_queue *q, uint32_t id, uint32_t cpus)
{
    struct job_place_node n = {
        .id = id, .open = true, .core_speed = 1000, .milli_cpus = cpus * 1000, .memory = 16 * GIB};

    cr_assert_eq(job_queue_node(q, &n), 0);
}

static struct job_queue_run run(uint64_t job, uint32_t cpus, int32_t priority)
{
    return (struct job_queue_run){.job = job,
                                  .copy = 1,
                                  .copies = 1,
                                  .priority = priority,
                                  .need = {.milli_cpus = cpus * 1000, .memory = GIB}};
}

static void add(struct job_queue *q, uint64_t job, uint32_t cpus, int32_t priority)
{
    struct job_queue_run r = run(job, cpus, priority);

    cr_assert_eq(job_queue_add(q, &r, NULL), 0);
}

/* The next one goes to that node; job 0: there is none. */
static void next_is(struct job_queue *q, uint64_t now, uint64_t job, uint32_t at)
{
    struct job_queue_placed p = {0};
    bool any = job_queue_next(q, now, &p);

    cr_assert_eq(any, job != 0, "job %lu", (unsigned long)p.job);
    cr_assert_eq(p.job, job, "job %lu", (unsigned long)p.job);
    cr_assert_eq(p.node, at, "job %lu at node %u", (unsigned long)p.job, p.node);
}

Test(job_queue, by_priority_then_age_and_others_pass_what_fits_nowhere)
{
    struct job_queue *q = fresh();

    node(q, 1, 4);
    add(q, 13, 1, 0);
    add(q, 12, 1, 0);
    add(q, 20, 1, 5);
    add(q, 11, 9, 0);
    add(q, 10, 2, -1);
    cr_assert_eq(job_queue_waiting(q), 5);
    next_is(q, 0, 20, 1);
    next_is(q, 0, 12, 1);
    next_is(q, 0, 13, 1);
    next_is(q, 0, 0, 0);
    cr_assert_eq(job_queue_node_now(q, 1)->milli_reserved, 3000);
    cr_assert_eq(job_queue_remove(q, 12, 1), 0);
    next_is(q, 0, 10, 1);
    cr_assert_eq(job_queue_waiting(q), 1);
    node(q, 2, 9);
    next_is(q, 0, 11, 2);
    cr_assert_eq(job_queue_waiting(q), 0);
    job_queue_free(q);
}

Test(job_queue, what_is_there_twice_or_not_at_all)
{
    struct job_queue *q = fresh();
    struct job_queue_run r = run(1, 1, 0);

    node(q, 1, 1);
    add(q, 1, 1, 0);
    cr_assert_eq(job_queue_add(q, &r, NULL), -EEXIST);
    next_is(q, 0, 1, 1);
    cr_assert_eq(job_queue_add(q, &r, NULL), -EEXIST, "placed counts too");
    cr_assert_eq(job_queue_add_placed(q, &r, 1), -EEXIST);
    cr_assert_eq(job_queue_remove(q, 1, 2), -ENOENT);
    cr_assert_eq(job_queue_remove(q, 1, 1), 0);
    cr_assert_eq(job_queue_remove(q, 1, 1), -ENOENT);
    r.copy = 0;
    cr_assert_eq(job_queue_add(q, &r, NULL), -EINVAL);
    r.copy = JOB_SPEC_COPIES_MAX + 1;
    cr_assert_eq(job_queue_add(q, &r, NULL), -EINVAL);
    cr_assert_eq(job_queue_node(q, &(struct job_place_node){.id = 0}), -EINVAL);
    cr_assert_eq(job_queue_node_now(q, 1)->milli_reserved, 0);
    job_queue_free(q);
}

Test(job_queue, what_was_placed_before_counts_before_its_node_is_known)
{
    struct job_queue *q = fresh();
    struct job_queue_run r = run(1, 2, 0);

    cr_assert_eq(job_queue_add_placed(q, &r, 7), 0);
    add(q, 2, 1, 0);
    next_is(q, 0, 0, 0);
    node(q, 7, 2);
    next_is(q, 0, 0, 0);
    r.job = 3;
    cr_assert_eq(job_queue_add_placed(q, &r, 7), 0, "more than it has, if the state says so");
    cr_assert_eq(job_queue_remove(q, 1, 1), 0);
    next_is(q, 0, 0, 0);
    cr_assert_eq(job_queue_remove(q, 3, 1), 0);
    next_is(q, 0, 2, 7);
    job_queue_free(q);
}

Test(job_queue, a_node_that_goes_and_comes)
{
    struct job_queue *q = fresh();
    char why[JOB_PLACE_WHY];

    node(q, 1, 1);
    node(q, 2, 1);
    node(q, 3, 1);
    for (uint64_t job = 1; job <= 5; job++)
        add(q, job, 1, 0);
    next_is(q, 0, 1, 1);
    job_queue_node_gone(q, 1);
    job_queue_node_gone(q, 1);
    job_queue_node_gone(q, 99);
    job_queue_node_gone(q, 2);
    cr_assert_not_null(job_queue_node_now(q, 1), "a run of it is not over");
    cr_assert_null(job_queue_node_now(q, 2));
    next_is(q, 0, 2, 3);
    next_is(q, 0, 0, 0);
    cr_assert_eq(job_queue_remove(q, 1, 1), 0);
    cr_assert_null(job_queue_node_now(q, 1));
    next_is(q, 0, 0, 0);
    job_queue_node_gone(q, 3);
    cr_assert_eq(job_queue_why(q, 3, 1, why), JOB_QUEUE_NODE);
    cr_assert_str_eq(why, "no node is open for jobs");
    node(q, 1, 1);
    next_is(q, 0, 3, 1);
    node(q, 1, 2);
    next_is(q, 0, 4, 1);
    next_is(q, 0, 0, 0);
    job_queue_free(q);
}

Test(job_queue, copies_run_on_different_nodes)
{
    struct job_queue *q = fresh();
    struct job_queue_run r = run(1, 1, 0);
    uint32_t nodes[JOB_SPEC_COPIES_MAX] = {0};
    char why[JOB_PLACE_WHY];

    node(q, 1, 8);
    node(q, 2, 2);
    r.copies = 3;
    for (r.copy = 1; r.copy <= 3; r.copy++)
        cr_assert_eq(job_queue_add(q, &r, nodes), 0);
    next_is(q, 0, 1, 1);
    next_is(q, 0, 1, 2);
    next_is(q, 0, 0, 0);
    cr_assert_eq(job_queue_why(q, 1, 3, why), JOB_QUEUE_COPIES);
    cr_assert_eq(job_queue_why(q, 1, 2, why), JOB_QUEUE_NOT);
    cr_assert_eq(job_queue_remove(q, 1, 1), 0);
    next_is(q, 0, 0, 0);
    add(q, 5, 1, 0);
    next_is(q, 0, 5, 1);
    node(q, 3, 1);
    next_is(q, 0, 1, 3);
    /* The second is to run again, when nobody else waits: the caller knows where the others ran. */
    cr_assert_eq(job_queue_remove(q, 1, 2), 0);
    nodes[0] = 1;
    nodes[2] = 3;
    r.copy = 2;
    cr_assert_eq(job_queue_add(q, &r, nodes), 0);
    next_is(q, 0, 1, 2);
    cr_assert_eq(job_queue_remove(q, 1, 2), 0);
    job_queue_node_gone(q, 2);
    cr_assert_eq(job_queue_add(q, &r, nodes), 0);
    next_is(q, 0, 0, 0);
    job_queue_free(q);
}

Test(job_queue, only_there)
{
    struct job_queue *q = fresh();
    struct job_queue_run r = run(1, 1, 0);
    char why[JOB_PLACE_WHY];

    node(q, 1, 8);
    r.need.node = 2;
    cr_assert_eq(job_queue_could(q, &r.need, 1, why), -EAGAIN);
    cr_assert_eq(job_queue_add(q, &r, NULL), 0);
    next_is(q, 0, 0, 0);
    cr_assert_eq(job_queue_why(q, 1, 1, why), JOB_QUEUE_NODE);
    cr_assert_str_eq(why, "its node is not open for jobs");
    node(q, 2, 1);
    cr_assert_eq(job_queue_could(q, &r.need, 1, why), 0);
    cr_assert_eq(job_queue_why(q, 1, 1, why), JOB_QUEUE_TURN);
    next_is(q, 0, 1, 2);
    job_queue_free(q);
}

static size_t holders(void *context, uint64_t job, struct job_place_held *held, size_t most)
{
    unsigned *asked = context;

    cr_assert_eq(most, JOB_QUEUE_HELD);
    ++*asked;
    held[0] = (struct job_place_held){(uint32_t)job % 10, 4096};
    return 1;
}

Test(job_queue, inputs_are_asked_for_only_when_it_fits)
{
    unsigned asked = 0;
    struct job_queue_rules rules = {.holders = holders, .context = &asked};
    struct job_queue *q;

    cr_assert_eq(job_queue_make(&q, &rules), 0);
    node(q, 1, 4);
    node(q, 2, 1);
    add(q, 12, 9, 0);
    add(q, 22, 1, 0);
    add(q, 32, 1, 0);
    next_is(q, 0, 22, 2);
    next_is(q, 0, 32, 1);
    next_is(q, 0, 0, 0);
    cr_assert_eq(asked, 2);
    job_queue_free(q);
}

/* A node of 4 processors on which, each second, the oldest of four small jobs ends and the next one
 * comes, so that there are never 4 free. Returns when the large one was placed; 0: not in 200 s. */
static uint64_t large_among_small(int32_t priority_of_small, uint64_t *small)
{
    struct job_queue *q = fresh();
    struct job_queue_run large = run(10, 4, 0);
    struct job_queue_placed p;
    uint64_t oldest = 101, newest = 104, placed = 0;

    node(q, 1, 4);
    for (uint64_t job = oldest; job <= newest; job++)
        add(q, job, 1, 0);
    while (job_queue_next(q, 1000, &p))
        ;
    large.since = 1000;
    cr_assert_eq(job_queue_add(q, &large, NULL), 0);
    *small = 0;
    for (uint64_t now = 2000; now < 200000 && !placed; now += 1000) {
        if (job_queue_remove(q, oldest, 1) == 0)
            oldest++;
        add(q, ++newest, 1, priority_of_small);
        while (job_queue_next(q, now, &p)) {
            *small += p.job != 10;
            placed = p.job == 10 ? now : placed;
        }
    }
    cr_assert_leq(job_queue_node_now(q, 1)->milli_reserved, 4000);
    job_queue_free(q);
    return placed;
}

Test(job_queue, what_is_large_is_not_passed_for_ever)
{
    uint64_t small, placed = large_among_small(0, &small);

    cr_assert_gt(placed, JOB_QUEUE_PATIENCE_MS, "it has patience first");
    cr_assert_leq(placed, JOB_QUEUE_PATIENCE_MS + 6000,
                  "then the four that run end, and it has room");
    cr_assert_gt(small, 50, "others pass it meanwhile");
    cr_assert_eq(large_among_small(1, &small), 0, "what has a higher priority always may");
}

Test(job_queue, a_hold_ends_with_what_it_was_for)
{
    struct job_queue *q = fresh();
    struct job_queue_run large = run(1, 2, 0);
    char why[JOB_PLACE_WHY];

    node(q, 1, 2);
    struct job_queue_run small = run(2, 1, 0);
    cr_assert_eq(job_queue_add_placed(q, &small, 1), 0);
    cr_assert_eq(job_queue_add(q, &large, NULL), 0);
    next_is(q, 0, 0, 0);
    next_is(q, JOB_QUEUE_PATIENCE_MS, 0, 0);
    add(q, 3, 1, 0);
    next_is(q, JOB_QUEUE_PATIENCE_MS + 1, 0, 0);
    cr_assert_eq(job_queue_why(q, 3, 1, why), JOB_QUEUE_TURN);
    cr_assert_eq(job_queue_why(q, 1, 1, why), JOB_QUEUE_RESOURCES);
    cr_assert_eq(job_queue_remove(q, 1, 1), 0);
    next_is(q, JOB_QUEUE_PATIENCE_MS + 2, 3, 1);
    job_queue_free(q);
}

Test(job_queue, a_hold_ends_when_its_node_cannot_do_it)
{
    struct job_queue *q = fresh();
    struct job_queue_run large = run(1, 2, 0), small = run(2, 1, 0);

    node(q, 1, 2);
    cr_assert_eq(job_queue_add_placed(q, &small, 1), 0);
    cr_assert_eq(job_queue_add(q, &large, NULL), 0);
    next_is(q, 0, 0, 0);
    next_is(q, JOB_QUEUE_PATIENCE_MS, 0, 0);
    add(q, 3, 1, 0);
    next_is(q, JOB_QUEUE_PATIENCE_MS + 1, 0, 0);
    struct job_place_node n = *job_queue_node_now(q, 1);
    n.memory_busy = n.memory - 2 * GIB; /* enough for the small ones; the large one wants more */
    cr_assert_eq(job_queue_node(q, &n), 0);
    next_is(q, JOB_QUEUE_PATIENCE_MS + 2000, 0, 0);
    n.memory_busy = n.memory - GIB; /* nothing */
    n.runs = 0;
    cr_assert_eq(job_queue_node(q, &n), 0);
    cr_assert_eq(job_queue_remove(q, 2, 1), 0);
    cr_assert_eq(job_queue_add_placed(q, &small, 1), 0);
    next_is(q, JOB_QUEUE_PATIENCE_MS + 4000, 0, 0);
    job_queue_free(q);
}

/* ---- against a model that looks at everything */

#define NODES 7
#define JOBS  60

struct model {
    struct job_queue_run run;
    bool waits;
    uint32_t node; /* where it runs */
    uint32_t last; /* where it runs or ran last */
};

static bool before(const struct job_queue_run *a, const struct job_queue_run *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    return a->job != b->job ? a->job < b->job : a->copy < b->copy;
}

static bool sibling_there(const struct model *jobs, size_t n, uint32_t at)
{
    for (size_t k = 0; k < JOBS; k++)
        if (k != n && jobs[k].run.job == jobs[n].run.job && jobs[k].last == at)
            return true;
    return false;
}

static uint32_t best_node(const struct model *jobs, size_t n, struct job_place_node *nodes)
{
    for (size_t k = 0; k < NODES; k++)
        nodes[k].barred = sibling_there(jobs, n, nodes[k].id);
    const struct job_place_node *best = job_place_choose(nodes, NODES, &jobs[n].run.need, NULL, 0);
    return best ? best->id : 0;
}

/* Which run the queue must name next, and where. */
static size_t model_next(const struct model *jobs, struct job_place_node *nodes, uint32_t *at)
{
    size_t first = JOBS;

    job_place_keep(nodes, NODES);
    for (size_t n = 0; n < JOBS; n++) {
        uint32_t best = jobs[n].waits ? best_node(jobs, n, nodes) : 0;
        if (best && (first == JOBS || before(&jobs[n].run, &jobs[first].run))) {
            first = n;
            *at = best;
        }
    }
    return first;
}

static void model_place(struct model *job, struct job_place_node *nodes, uint32_t at, int sign)
{
    struct job_place_node *n = &nodes[at - 1];

    n->runs += (uint32_t)sign;
    n->milli_reserved += (uint64_t)(sign * (int64_t)job->run.need.milli_cpus);
    n->memory_reserved += (uint64_t)(sign * (int64_t)job->run.need.memory);
    job->node = sign > 0 ? at : 0;
    job->last = at;
    job->waits = false;
}

/* Of all its copies the same. */
static void random_need(struct model *jobs, const struct model *job, unsigned *seed)
{
    struct job_place_need need = {.milli_cpus = 250u << rand_r(seed) % 5,
                                  .memory = (GIB / 4) << rand_r(seed) % 4,
                                  .node =
                                      rand_r(seed) % 9 ? 0 : 1 + (uint32_t)rand_r(seed) % NODES};

    for (size_t n = 0; n < JOBS; n++)
        if (jobs[n].run.job == job->run.job)
            jobs[n].run.need = need;
}

static void change_something(struct job_queue *q, struct model *jobs, struct job_place_node *nodes,
                             unsigned *seed)
{
    size_t n = (size_t)rand_r(seed) % JOBS, k = (size_t)rand_r(seed) % NODES;
    struct model *job = &jobs[n];
    uint32_t last[JOB_SPEC_COPIES_MAX] = {0};

    if (rand_r(seed) % 8 == 0) {
        nodes[k].open = rand_r(seed) % 4 != 0;
        nodes[k].milli_cpus = 1000 + (uint32_t)rand_r(seed) % 3 * 1000;
        nodes[k].milli_busy = (uint32_t)rand_r(seed) % 500;
        nodes[k].core_speed = 100 + (uint64_t)rand_r(seed) % 3;
        nodes[k].memory = (1 + (uint64_t)rand_r(seed) % 4) * GIB;
        nodes[k].runs_max = (uint32_t)rand_r(seed) % 4;
        cr_assert_eq(job_queue_node(q, &nodes[k]), 0);
    } else if (job->waits || job->node) {
        if (job->node)
            model_place(job, nodes, job->node, -1);
        job->waits = false;
        cr_assert_eq(job_queue_remove(q, job->run.job, job->run.copy), 0);
    } else {
        job->run.priority = rand_r(seed) % 3 - 1;
        if (job->run.copies == 1 || job->run.need.milli_cpus == 0)
            random_need(jobs, job, seed);
        job->last = 0;
        for (size_t m = 0; m < JOBS; m++)
            if (jobs[m].run.job == job->run.job)
                last[jobs[m].run.copy - 1] = jobs[m].last;
        job->waits = true;
        cr_assert_eq(job_queue_add(q, &job->run, last), 0);
    }
}

Test(job_queue, as_if_it_looked_at_everything)
{
    for (unsigned round = 1; round <= 40; round++) {
        struct job_place_node nodes[NODES];
        struct model jobs[JOBS] = {0};
        struct job_queue *q = fresh();
        unsigned seed = round, placed = 0;

        for (uint32_t n = 0; n < NODES; n++) {
            nodes[n] = (struct job_place_node){.id = n + 1};
            cr_assert_eq(job_queue_node(q, &nodes[n]), 0);
        }
        for (uint32_t n = 0; n < JOBS; n++) /* every fourth job has three copies */
            jobs[n].run = (struct job_queue_run){.job = 100 + n / 6 * 4 + (n % 6 < 3 ? n % 6 : 3),
                                                 .copy = n % 6 < 3 ? 1 : n % 6 - 2,
                                                 .copies = n % 6 < 3 ? 1 : 3};
        for (int step = 0; step < 600; step++) {
            struct job_queue_placed p;
            uint32_t at = 0;
            change_something(q, jobs, nodes, &seed);
            if (rand_r(&seed) % 3 == 0)
                continue;
            while (job_queue_next(q, 0, &p)) {
                size_t n = model_next(jobs, nodes, &at);
                cr_assert_neq(n, JOBS, "round %u: job %lu does not fit", round,
                              (unsigned long)p.job);
                cr_assert_eq(p.job, jobs[n].run.job, "round %u", round);
                cr_assert_eq(p.copy, jobs[n].run.copy, "round %u", round);
                cr_assert_eq(p.node, at, "round %u", round);
                model_place(&jobs[n], nodes, at, 1);
                placed++;
            }
            cr_assert_eq(model_next(jobs, nodes, &at), JOBS, "round %u: one was forgotten", round);
        }
        cr_assert_gt(placed, 50);
        job_queue_free(q);
    }
}

/* Many that wait and many nodes: an end must not look at all of them. Counted, not timed. */
static const struct job_place_node *counting(void *context, const struct job_place_node *nodes,
                                             size_t n, const struct job_place_need *need,
                                             const struct job_place_held *held, size_t held_n)
{
    ++*(unsigned *)context;
    return job_place_choose(nodes, n, need, held, held_n);
}

Test(job_queue, ten_thousand_wait_at_a_thousand_nodes)
{
    unsigned chosen = 0, placed = 0;
    struct job_queue_rules rules = {.choose = counting, .context = &chosen};
    struct job_queue_placed p;
    struct job_queue *q;
    uint32_t at[12001] = {0};

    cr_assert_eq(job_queue_make(&q, &rules), 0);
    for (uint32_t id = 1; id <= 1000; id++)
        node(q, id, 2);
    for (uint64_t job = 1; job <= 12000; job++)
        add(q, job, 1 + job % 2, 0);
    for (uint64_t end = 1; placed < 12000; end++) {
        while (job_queue_next(q, 0, &p)) {
            at[p.job] = p.node;
            placed++;
        }
        if (at[end])
            cr_assert_eq(job_queue_remove(q, end, 1), 0);
    }
    cr_assert_eq(chosen, 12000, "the choice is asked for once for each run");
    job_queue_free(q);
}

/* All needs different: an end must not make all of them ask for a place again. */
Test(job_queue, an_end_asks_for_one_place_where_all_needs_differ)
{
    unsigned chosen = 0, placed = 0;
    struct job_queue_rules rules = {.choose = counting, .context = &chosen};
    struct job_queue_placed p;
    struct job_queue *q;
    uint64_t order[3001];

    cr_assert_eq(job_queue_make(&q, &rules), 0);
    for (uint32_t id = 1; id <= 100; id++)
        node(q, id, 2);
    for (uint64_t job = 1; job <= 3000; job++) {
        struct job_queue_run r = run(job, 1, 0);
        r.need.memory += job * 4096;
        r.need.milli_cpus += (uint32_t)(job * 7 % 900);
        cr_assert_eq(job_queue_add(q, &r, NULL), 0);
    }
    while (job_queue_next(q, 0, &p))
        order[placed++] = p.job;
    for (unsigned end = 0; end < placed; end++) {
        cr_assert_eq(job_queue_remove(q, order[end], 1), 0);
        while (job_queue_next(q, 0, &p))
            order[placed++] = p.job;
    }
    cr_assert_eq(placed, 3000);
    cr_assert_eq(chosen, 3000);
    cr_assert_eq(job_queue_waiting(q), 0);
    job_queue_free(q);
}

static uint32_t so_many_come(void *context, const struct job_place_need *need)
{
    return need->milli_cpus <= 8000 ? *(uint32_t *)context : 0;
}

Test(job_queue, what_a_node_has_that_may_come_is_no_problem)
{
    struct job_queue *q = fresh();
    char why[JOB_PLACE_WHY];
    uint64_t job = 0;
    uint32_t come = 1;

    node(q, 1, 4);
    add(q, 5, 8, 0);
    add(q, 6, 16, 0);
    next_is(q, 0, 0, 0);
    cr_expect_eq(job_queue_hopeless(q, so_many_come, &come, &job, why), 1);
    cr_expect_eq(job, 6, "one that comes has 8 processors");
    cr_expect_not_null(strstr(why, "16 processors"), "%s", why);
    come = 0;
    cr_expect_eq(job_queue_hopeless(q, so_many_come, &come, &job, why), 2);
    cr_expect_eq(job, 5);
    job_queue_free(q);
}

Test(job_queue, copies_on_nodes_that_are_here_and_that_may_come)
{
    struct job_queue *q = fresh();
    char why[JOB_PLACE_WHY];
    uint64_t job = 0;
    uint32_t come = 2;

    node(q, 1, 4);
    node(q, 2, 2);
    for (uint32_t copy = 1; copy <= 3; copy++) {
        struct job_queue_run r = {
            .job = 5, .copy = copy, .copies = 3, .need = {.milli_cpus = 4000, .memory = 1}};
        cr_assert_eq(job_queue_add(q, &r, NULL), 0);
    }
    next_is(q, 0, 5, 1);
    next_is(q, 0, 0, 0);
    cr_expect_eq(job_queue_hopeless(q, so_many_come, &come, &job, why), 0);
    come = 1;
    cr_expect_eq(job_queue_hopeless(q, so_many_come, &come, &job, why), 2);
    cr_expect_eq(job, 5);
    job_queue_free(q);
}

Test(job_queue, what_no_node_has_is_told)
{
    struct job_queue *q = fresh();
    char why[JOB_PLACE_WHY];
    uint64_t job = 0;

    node(q, 1, 4);
    node(q, 2, 8);
    add(q, 5, 8, 0);
    add(q, 6, 8, 0);
    add(q, 7, 4, 0);
    next_is(q, 0, 5, 2);
    next_is(q, 0, 7, 1);
    next_is(q, 0, 0, 0);
    cr_expect_eq(job_queue_hopeless(q, NULL, NULL, &job, why), 0, "it waits for room");
    job_queue_node_gone(q, 2);
    next_is(q, 0, 0, 0);
    cr_expect_eq(job_queue_hopeless(q, NULL, NULL, &job, why), 1);
    cr_expect_eq(job, 6);
    cr_expect_not_null(strstr(why, "8 processors"), "%s", why);
    node(q, 3, 8);
    next_is(q, 0, 6, 3);
    cr_expect_eq(job_queue_hopeless(q, NULL, NULL, &job, why), 0);
    job_queue_free(q);
}
