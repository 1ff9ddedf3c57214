/* When nodes are started, emptied and let go. */
#include <criterion/criterion.h>

#include "control/node_demand.h"

#define GIB 1073741824ull

static struct node_demand_limits limits(uint32_t most)
{
    return (struct node_demand_limits){.nodes_max = most,
                                       .wait_ms = 10000,
                                       .idle_ms = 300000,
                                       .full_ms = 60000,
                                       .starts = true,
                                       .milli_cpus = 2000,
                                       .memory = 4 * GIB};
}

static struct node_demand_node here(uint32_t id, bool on_demand)
{
    return (struct node_demand_node){
        .life = NODE_DEMAND_HERE,
        .on_demand = on_demand,
        .drains = true,
        .room = {.id = id, .open = true, .milli_cpus = 2000, .memory = 4 * GIB}};
}

static struct node_demand_node coming(enum node_demand_life life)
{
    return (struct node_demand_node){.life = life, .on_demand = true};
}

static struct node_demand_wait wait(uint32_t milli, uint32_t runs, uint64_t ms)
{
    return (struct node_demand_wait){
        .need = {.milli_cpus = milli, .memory = GIB / 4}, .runs = runs, .ms = ms};
}

static uint32_t plan(const struct node_demand_limits *l, const struct node_demand_node *nodes,
                     size_t n, const struct node_demand_wait *waits, size_t waits_n)
{
    enum node_demand_act acts[16];

    return node_demand_plan(l, nodes, n, waits, waits_n, acts);
}

Test(node_demand, nobody_waits)
{
    struct node_demand_limits l = limits(4);
    struct node_demand_node n = here(1, false);

    cr_assert_eq(plan(&l, &n, 1, NULL, 0), 0);
}

Test(node_demand, a_job_waits_for_a_while_first)
{
    struct node_demand_limits l = limits(4);
    struct node_demand_node n = here(1, false);
    struct node_demand_wait w = wait(1000, 1, 9999);

    cr_assert_eq(plan(&l, &n, 1, &w, 1), 0);
    w.ms = 10000;
    cr_assert_eq(plan(&l, &n, 1, &w, 1), 1);
}

Test(node_demand, what_no_node_could_take_waits_for_none)
{
    struct node_demand_limits l = limits(4);
    struct node_demand_node n = here(1, false);
    struct node_demand_wait w = wait(2000, 1, 0);

    n.room.milli_cpus = 1000;
    cr_assert_eq(plan(&l, &n, 1, &w, 1), 1);
    n.room.milli_cpus = 0;
    cr_assert_eq(plan(&l, &n, 1, &w, 1), 1, "it runs no jobs");
    w.need.milli_cpus = 2001;
    cr_assert_eq(plan(&l, &n, 1, &w, 1), 0, "nor could a new one");
    w = wait(1000, 1, 0);
    w.need.memory = 5 * GIB;
    cr_assert_eq(plan(&l, &n, 1, &w, 1), 0);
    w = wait(1000, 1, 99999);
    w.need.node = 1;
    n = here(1, false);
    cr_assert_eq(plan(&l, &n, 1, &w, 1), 0, "it runs only there");
}

Test(node_demand, not_one_for_each_job)
{
    struct node_demand_limits l = limits(10);
    struct node_demand_node n[3] = {here(1, false), coming(NODE_DEMAND_WAITS),
                                    coming(NODE_DEMAND_STARTS)};
    struct node_demand_wait w[2] = {wait(500, 8, 20000), wait(1000, 1, 20000)};

    cr_assert_eq(plan(&l, n, 1, w, 1), 2, "four on each");
    cr_assert_eq(plan(&l, n, 1, w, 2), 3);
    cr_assert_eq(plan(&l, n, 2, w, 2), 2, "one is on its way");
    cr_assert_eq(plan(&l, n, 3, w, 1), 0, "two are");
    w[0].need.memory = 3 * GIB;
    cr_assert_eq(plan(&l, n, 1, w, 1), 8, "one on each, by memory");
}

Test(node_demand, never_more_than_nodes_max)
{
    struct node_demand_limits l = limits(3);
    struct node_demand_node n[4] = {here(1, false), coming(NODE_DEMAND_STARTS), here(3, true),
                                    here(4, false)};
    struct node_demand_wait w = wait(2000, 100, 20000);

    cr_assert_eq(plan(&l, n, 1, &w, 1), 2);
    cr_assert_eq(plan(&l, n, 2, &w, 1), 1);
    cr_assert_eq(plan(&l, n, 3, &w, 1), 0);
    cr_assert_eq(plan(&l, n, 4, &w, 1), 0, "people have made more");
    l.nodes_max = 0;
    cr_assert_eq(plan(&l, n, 1, &w, 1), 0);
    l = limits(3);
    l.starts = false;
    cr_assert_eq(plan(&l, n, 1, &w, 1), 0);
}

Test(node_demand, copies_go_to_different_nodes)
{
    struct node_demand_limits l = limits(10);
    struct node_demand_node n[2] = {here(1, false), coming(NODE_DEMAND_STARTS)};
    struct node_demand_wait w = wait(100, 2, 0);

    w.copies = true;
    w.apart = 1;
    cr_assert_eq(plan(&l, n, 1, &w, 1), 2, "the third has node 1");
    cr_assert_eq(plan(&l, n, 2, &w, 1), 1);
    w.runs = 3;
    w.apart = 0;
    cr_assert_eq(plan(&l, n, 1, &w, 1), 2, "node 1 will take one of them");
    w.ms = 10000;
    cr_assert_eq(plan(&l, n, 1, &w, 1), 3, "it has not");
    w.ms = 0;
    w.runs = 1;
    cr_assert_eq(plan(&l, n, 1, &w, 1), 0, "node 1 may take it in a while");
}

Test(node_demand, what_is_not_needed_any_more_is_not_started)
{
    struct node_demand_limits l = limits(10);
    struct node_demand_node n[4] = {here(1, false), coming(NODE_DEMAND_WAITS),
                                    coming(NODE_DEMAND_STARTS), coming(NODE_DEMAND_WAITS)};
    struct node_demand_wait w = wait(2000, 2, 20000);
    enum node_demand_act acts[4];

    cr_assert_eq(node_demand_plan(&l, n, 4, &w, 1, acts), 0);
    cr_assert_eq(acts[1], NODE_DEMAND_KEEP);
    cr_assert_eq(acts[3], NODE_DEMAND_CANCEL, "two are enough");
    cr_assert_eq(node_demand_plan(&l, n, 4, NULL, 0, acts), 0);
    cr_assert_eq(acts[1], NODE_DEMAND_CANCEL);
    cr_assert_eq(acts[2], NODE_DEMAND_KEEP, "it has begun");
    cr_assert_eq(acts[3], NODE_DEMAND_CANCEL);
    l.starts = false; /* after one that could not be started, say */
    cr_assert_eq(node_demand_plan(&l, n, 2, &w, 1, acts), 0);
    cr_assert_eq(acts[1], NODE_DEMAND_KEEP);
}

Test(node_demand, idle_ones_are_emptied_and_let_go)
{
    struct node_demand_limits l = limits(4);
    struct node_demand_node n[2] = {here(1, false), here(2, true)};
    struct node_demand_wait w = wait(500, 1, 0);
    enum node_demand_act acts[2];

    n[0].idle_ms = n[1].idle_ms = 299999;
    node_demand_plan(&l, n, 2, NULL, 0, acts);
    cr_assert_eq(acts[1], NODE_DEMAND_KEEP);
    n[0].idle_ms = n[1].idle_ms = 300000;
    node_demand_plan(&l, n, 2, NULL, 0, acts);
    cr_assert_eq(acts[0], NODE_DEMAND_KEEP, "people have started it");
    cr_assert_eq(acts[1], NODE_DEMAND_DRAIN);
    node_demand_plan(&l, n, 2, &w, 1, acts);
    cr_assert_eq(acts[1], NODE_DEMAND_KEEP, "a job waits that it could take");
    w.need.node = 1;
    node_demand_plan(&l, n, 2, &w, 1, acts);
    cr_assert_eq(acts[1], NODE_DEMAND_DRAIN, "it waits for another one");
    n[1].drains = false;
    node_demand_plan(&l, n, 2, NULL, 0, acts);
    cr_assert_eq(acts[1], NODE_DEMAND_KEEP, "the pool is away");
    n[1].life = NODE_DEMAND_DRAINED;
    node_demand_plan(&l, n, 2, NULL, 0, acts);
    cr_assert_eq(acts[1], NODE_DEMAND_RELEASE);
    n[1].room.runs = 1;
    node_demand_plan(&l, n, 2, NULL, 0, acts);
    cr_assert_eq(acts[1], NODE_DEMAND_KEEP, "its last job has not ended");
    n[0].life = NODE_DEMAND_DRAINED;
    node_demand_plan(&l, n, 2, NULL, 0, acts);
    cr_assert_eq(acts[0], NODE_DEMAND_KEEP, "by people, who may want it back");
}

Test(node_demand, one_that_stays_full_is_emptied)
{
    struct node_demand_limits l = limits(4);
    struct node_demand_node n = here(2, true);
    enum node_demand_act act;

    n.room.runs = 1;
    n.full_ms = 59999;
    node_demand_plan(&l, &n, 1, NULL, 0, &act);
    cr_assert_eq(act, NODE_DEMAND_KEEP);
    n.full_ms = 60000;
    node_demand_plan(&l, &n, 1, NULL, 0, &act);
    cr_assert_eq(act, NODE_DEMAND_DRAIN, "its jobs end there, new ones go elsewhere");
    n.on_demand = false;
    node_demand_plan(&l, &n, 1, NULL, 0, &act);
    cr_assert_eq(act, NODE_DEMAND_KEEP);
}

Test(node_demand, how_many_more_there_could_be)
{
    struct node_demand_limits l = limits(4);
    struct node_demand_node n[3] = {here(1, false), coming(NODE_DEMAND_STARTS), here(3, true)};
    struct job_place_need need = {.milli_cpus = 2000, .memory = GIB};

    cr_assert_eq(node_demand_more(&l, n, 1, &need), 3);
    cr_assert_eq(node_demand_more(&l, n, 3, &need), 2, "one on its way, and a fourth");
    n[2].life = NODE_DEMAND_DRAINED;
    cr_assert_eq(node_demand_more(&l, n, 3, &need), 3, "its place becomes free");
    l.nodes_max = 1;
    n[2].life = NODE_DEMAND_HERE;
    cr_assert_eq(node_demand_more(&l, n, 1, &need), 0);
    l = limits(4);
    need.milli_cpus++;
    cr_assert_eq(node_demand_more(&l, n, 3, &need), 0);
    need.milli_cpus = 1;
    need.node = 1;
    cr_assert_eq(node_demand_more(&l, n, 3, &need), 0);
    need.node = 0;
    l.starts = false;
    cr_assert_eq(node_demand_more(&l, n, 3, &need), 1, "the one on its way comes all the same");
    cr_assert_eq(node_demand_more(&l, n, 1, &need), 0);
}

Test(node_demand, back_off_grows_and_is_bounded)
{
    uint64_t before = 0;

    for (uint32_t failed = 1; failed < 100; failed++) {
        uint64_t ms = node_demand_back_off_ms(failed);
        cr_assert_geq(ms, before);
        before = ms;
    }
    cr_assert_gt(node_demand_back_off_ms(2), node_demand_back_off_ms(1));
    cr_assert_eq(before, 60000);
}
