/* The state: nodes that are started on demand. */
#include "tests/state_world.h"

#include <criterion/criterion.h>

static struct world w;

static void set_up(void)
{
    world_start(&w);
}

static void tear_down(void)
{
    cr_assert_eq(world_check(&w), 0);
    world_reopen(&w);
    cr_assert_eq(world_check(&w), 0);
    world_end(&w);
}

TestSuite(state_node, .init = set_up, .fini = tear_down);

/* Its number, or -errno. */
static int say(uint32_t node, const char *name, const char *state, const char *store,
               uint32_t starts)
{
    Star__LogNode q = STAR__LOG_NODE__INIT;

    q.node = node;
    q.name = (char *)(uintptr_t)name;
    q.state = (char *)(uintptr_t)state;
    q.store = (char *)(uintptr_t)store;
    q.origin = (char *)"local";
    q.starts = starts;
    int rc = world_apply(&w, STAR__LOG_TYPE__LOG_NODE, &q.base);
    if (rc < 0)
        return rc;
    return (int)((Star__LogNode *)world_reply(&w, &star__log_node__descriptor))->node;
}

struct seen {
    uint32_t want, n;
    struct state_node is;
};

static bool see(void *arg, const struct state_node *n)
{
    struct seen *s = arg;

    s->n++;
    if (n->id == s->want)
        s->is = *n;
    return true;
}

static struct seen look(uint32_t want)
{
    struct seen s = {.want = want};

    cr_assert_eq(state_nodes(w.s, see, &s), 0);
    return s;
}

Test(state_node, its_name_is_its_number)
{
    cr_assert_eq(w_node(&w, 0, "node-1", "ready"), 1);
    cr_assert_eq(say(0, "", "pending", "", 0), 2);
    struct seen s = look(2);
    cr_assert_str_eq(s.is.name, "node-d2");
    cr_assert_str_eq(s.is.origin, "local");
    cr_assert_str_eq(s.is.state, "pending");
    cr_assert_eq(s.is.starts, 0);
    cr_assert_str_eq(look(1).is.origin, "");
    cr_assert_eq(say(2, "node-d2", "starting", "", 1), 2);
    cr_assert_eq(look(2).is.starts, 1);
    cr_assert_eq(say(0, "", "pending", "", 0), 3);
    cr_assert_str_eq(look(3).is.name, "node-d3");
    cr_assert_eq(w_node(&w, 0, "", "ready"), -EINVAL, "only those");
}

Test(state_node, until_it_is_ready_its_store_may_be_another)
{
    int id = say(0, "", "pending", "", 0);

    cr_assert_gt(id, 0);
    cr_assert_eq(say(0, "node-d1", "starting", "first", 1), id);
    cr_assert_eq(say((uint32_t)id, "node-d1", "pending", "", 1), id, "its start has failed");
    cr_assert_eq(say(0, "node-d1", "starting", "second", 2), id);
    cr_assert_eq(say((uint32_t)id, "node-d1", "ready", "second", 2), id);
    cr_assert_eq(say(0, "node-d1", "ready", "third", 2), -EEXIST);
    cr_assert_eq(say((uint32_t)id, "node-d1", "gone", "second", 2), id);
    cr_assert_eq(say(0, "node-d1", "starting", "second", 3), -ENODEV);
    cr_assert_str_eq(look((uint32_t)id).is.origin, "local");
}

Test(state_node, of_those_that_are_gone_the_newest_are_remembered)
{
    char name[32];

    cr_assert_eq(w_node(&w, 0, "old", "ready"), 1);
    cr_assert_eq(w_node(&w, 1, "old", "gone"), 1);
    for (uint32_t k = 0; k < STATE_DEMAND_GONE + 5; k++) {
        int id = say(0, "", "pending", "", 0);
        cr_assert_eq(id, (int)k + 2, "no number is given twice");
        snprintf(name, sizeof(name), "node-d%d", id);
        cr_assert_eq(say((uint32_t)id, name, "gone", "", 0), id);
    }
    cr_assert_eq(look(1).n, STATE_DEMAND_GONE + 1);
    cr_assert_str_eq(look(1).is.name, "old", "those of people are all remembered");
    cr_assert_str_eq(look(6).is.name, "", "the oldest are not");
    cr_assert_str_eq(look(7).is.name, "node-d7");
}
