#include <criterion/criterion.h>

#include "control/placement.h"

#define GIB (1ull << 30)

Test(placement, nobody_usable)
{
    struct placement_node n[] = {{.id = 1, .capacity = GIB}};

    cr_assert_eq(placement_home(n, 1), 0);
    cr_assert_eq(placement_home(n, 0), 0);
}

Test(placement, local_node_with_room_comes_first)
{
    struct placement_node n[] = {{.id = 1, .usable = true, .capacity = 100 * GIB},
                                 {.id = 2, .usable = true, .local = true, .capacity = GIB}};

    cr_assert_eq(placement_home(n, 2), 2);
    n[1].staged = GIB; /* full */
    cr_assert_eq(placement_home(n, 2), 1);
}

Test(placement, most_room_per_load_then_lower_id)
{
    struct placement_node n[] = {{.id = 3, .usable = true, .capacity = 10 * GIB, .load = 9},
                                 {.id = 2, .usable = true, .capacity = 4 * GIB},
                                 {.id = 1, .usable = true, .capacity = 4 * GIB}};

    cr_assert_eq(placement_home(n, 3), 1);
    n[2].staged = GIB;
    cr_assert_eq(placement_home(n, 3), 2);
}

Test(placement, all_full_takes_the_least_full)
{
    struct placement_node n[] = {
        {.id = 1, .usable = true, .capacity = GIB, .staged = GIB},
        {.id = 2, .usable = true, .capacity = GIB, .staged = GIB - (1 << 20)}};

    cr_assert_eq(placement_home(n, 2), 2);
}

Test(placement, what_was_given_since_the_last_report_counts)
{
    struct placement_node n[] = {{.id = 1, .usable = true, .capacity = GIB},
                                 {.id = 2, .usable = true, .capacity = GIB}};
    unsigned got[3] = {0};

    for (int i = 0; i < 100; i++) {
        uint32_t id = placement_home(n, 2);
        got[id]++;
        n[id - 1].staged += PLACEMENT_FILE_BYTES;
    }
    cr_assert_eq(got[1], 50);
    cr_assert_eq(got[2], 50);
}

Test(placement, full_is_only_what_has_nodes)
{
    struct placement_node n[] = {
        {.id = 1, .usable = true, .capacity = GIB, .staged = GIB},
        {.id = 2, .usable = true, .capacity = GIB, .staged = GIB / 100 * PLACEMENT_STAGED_MAX - 1},
    };

    cr_assert_not(placement_full(n, 2));
    n[1].usable = false;
    cr_assert(placement_full(n, 2), "one that cannot be used has no room");
    n[0].usable = false;
    cr_assert_not(placement_full(n, 2), "no node is something else");
    cr_assert_not(placement_full(n, 0));
}

/* ---- reading */

Test(placement, a_copy_is_read_where_it_is)
{
    struct placement_copy c[] = {{.id = 1, .usable = true, .local = true},
                                 {.id = 2, .usable = true, .cached = GIB, .load = 5},
                                 {.id = 3, .usable = true, .cached = GIB / 2}};

    cr_assert_eq(placement_read(c, 3), 2);
    c[1].usable = false;
    cr_assert_eq(placement_read(c, 3), 3);
    c[2].usable = false;
    cr_assert_eq(placement_read(c, 3), 1, "nobody has it: the reader's own machine fetches");
    c[0].usable = false;
    cr_assert_eq(placement_read(c, 3), 0);
    cr_assert_eq(placement_read(c, 0), 0);
}

Test(placement, of_several_copies_the_own_machines_then_the_least_loaded)
{
    struct placement_copy c[] = {{.id = 1, .usable = true, .cached = GIB, .load = 2},
                                 {.id = 2, .usable = true, .cached = GIB - 1, .load = 1},
                                 {.id = 3, .usable = true, .cached = GIB, .load = 9}};

    cr_assert_eq(placement_read(c, 3), 2, "a page that one lacks is no reason");
    c[2].local = true;
    cr_assert_eq(placement_read(c, 3), 3);
    c[2].local = false;
    c[0].load = c[2].load = 1;
    cr_assert_eq(placement_read(c, 3), 1);
}

Test(placement, readers_between_two_reports_are_spread)
{
    struct placement_copy c[] = {{.id = 1, .usable = true, .cached = GIB, .load = 1},
                                 {.id = 2, .usable = true, .cached = GIB},
                                 {.id = 3, .usable = true, .cached = GIB}};
    unsigned got[4] = {0};

    for (int i = 0; i < 120; i++) {
        uint32_t id = placement_read(c, 3);
        got[id]++;
        c[id - 1].load += PLACEMENT_READER_LOAD;
    }
    cr_assert(got[2] == got[3] && got[1] < got[2] && got[1] > 30, "%u %u %u", got[1], got[2],
              got[3]);
}

Test(placement, one_that_failed_is_read_only_if_there_is_no_other)
{
    struct placement_copy c[] = {{.id = 1, .usable = true, .cached = GIB, .avoid = true},
                                 {.id = 2, .usable = true, .load = 50}};

    cr_assert_eq(placement_read(c, 2), 2);
    c[1].usable = false;
    cr_assert_eq(placement_read(c, 2), 1);
}
