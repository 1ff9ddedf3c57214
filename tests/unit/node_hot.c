/* Which files are read most. */
#include "nodecache/hot.h"

#include <criterion/criterion.h>

#define MIB (1ull << 20)

Test(node_hot, most_first_and_then_empty)
{
    struct hot_file out[HOT_TAKE_MAX];
    struct hot h;

    hot_init(&h);
    hot_note(&h, 7, 1 * MIB);
    hot_note(&h, 8, 2 * MIB);
    hot_note(&h, 7, 3 * MIB);
    hot_note(&h, 9, HOT_LEAST - 1);
    cr_assert_eq(hot_take(&h, out), 2);
    cr_expect(out[0].ino == 7 && out[0].bytes == 4 * MIB);
    cr_expect(out[1].ino == 8 && out[1].bytes == 2 * MIB);
    cr_expect_eq(hot_take(&h, out), 0);
    hot_destroy(&h);
}

Test(node_hot, a_hot_one_is_found_among_thousands)
{
    struct hot_file out[HOT_TAKE_MAX];
    struct hot h;

    hot_init(&h);
    for (uint64_t i = 0; i < 20000; i++) {
        hot_note(&h, 100 + i, 4096);
        hot_note(&h, 1, 4096);
    }
    unsigned n = hot_take(&h, out);
    cr_assert_geq(n, 1);
    cr_expect_eq(out[0].ino, 1);
    for (unsigned k = 0; k < n; k++)
        cr_expect_leq(out[k].bytes, out[k].ino == 1 ? 20000 * 4096ull : 4096ull,
                      "more than was read of %ju", (uintmax_t)out[k].ino);
    cr_expect_geq(out[0].bytes, 19000 * 4096ull);
    hot_destroy(&h);
}

Test(node_hot, no_more_than_fit_into_a_report)
{
    struct hot_file out[HOT_TAKE_MAX];
    struct hot h;

    hot_init(&h);
    for (uint64_t i = 0; i < HOT_SLOTS; i++)
        hot_note(&h, 1 + i, (1 + i) * MIB);
    cr_assert_eq(hot_take(&h, out), HOT_TAKE_MAX);
    cr_expect_eq(out[HOT_TAKE_MAX - 1].ino, HOT_SLOTS - HOT_TAKE_MAX + 1);
    hot_destroy(&h);
}
