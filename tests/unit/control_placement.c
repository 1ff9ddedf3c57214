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
