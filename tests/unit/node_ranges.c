/* Range sets against a plain bitmap. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nodecache/ranges.h"

enum { SPACE = 6000 };

static void check(const struct ranges *r, const bool *map)
{
    uint64_t total = 0, count = 0, at = 0;
    struct range next;

    for (size_t i = 0; i < SPACE; i++) {
        total += map[i];
        count += map[i] && (i == 0 || !map[i - 1]);
    }
    cr_assert_eq(r->total, total);
    cr_assert_eq(r->count, count);
    while (ranges_next(r, at, &next)) {
        cr_assert(next.start < next.end && next.end <= SPACE);
        for (uint64_t i = at; i < next.start; i++)
            cr_assert(!map[i], "%zu is not in the set", (size_t)i);
        for (uint64_t i = next.start; i < next.end; i++)
            cr_assert(map[i], "%zu is in the set", (size_t)i);
        at = next.end;
    }
    for (uint64_t i = at; i < SPACE; i++)
        cr_assert(!map[i]);
    cr_assert_eq(ranges_end(r), at);
}

static void check_queries(const struct ranges *r, const bool *map, uint64_t start, uint64_t end)
{
    uint64_t bytes = 0, blocks = 0, gap = end;
    struct range found;

    for (uint64_t i = start; i < end; i++) {
        bytes += map[i];
        if (!map[i] && gap == end)
            gap = i;
    }
    for (uint64_t b = start / 16; b * 16 < end; b++) {
        bool any = false;
        for (uint64_t i = b * 16; i < b * 16 + 16 && i < SPACE; i++)
            any |= map[i];
        blocks += any;
    }
    cr_assert_eq(ranges_bytes(r, start, end), bytes);
    cr_assert_eq(ranges_intersects(r, start, end), bytes > 0);
    cr_assert_eq(ranges_contains(r, start, end), bytes == end - start);
    cr_assert_eq(ranges_gap(r, start, end, &found), gap < end);
    if (gap < end)
        cr_assert_eq(found.start, gap);
    if (start < end)
        cr_assert_eq(ranges_blocks(r, start, end, 16), blocks);
}

static void random_run(unsigned seed, unsigned length_max)
{
    static bool map[SPACE];
    struct ranges r;

    memset(map, 0, sizeof(map));
    ranges_init(&r);
    srandom(seed);
    for (int n = 0; n < 6000; n++) {
        uint64_t start = (uint64_t)random() % SPACE;
        uint64_t end = start + (uint64_t)random() % length_max;
        if (end > SPACE)
            end = SPACE;
        bool add = random() % 5 < 3;
        if (n % 3 == 0)
            cr_assert_eq(add ? ranges_prepare_insert(&r, start, end)
                             : ranges_prepare_remove(&r, start, end),
                         0);
        if (add)
            cr_assert_eq(ranges_insert(&r, start, end), 0);
        else if (n % 500 == 499)
            ranges_truncate(&r, end = SPACE - 100), start = SPACE - 100, end = SPACE;
        else
            cr_assert_eq(ranges_remove(&r, start, end), 0);
        memset(map + start, add, end - start);
        check_queries(&r, map, start, end);
        if (n % 16 == 0)
            check(&r, map);
    }
    check(&r, map);
    ranges_clear(&r);
}

Test(node_ranges, many_small_ranges_equal_a_bitmap)
{
    for (unsigned seed = 1; seed < 6; seed++)
        random_run(seed, 4);
}

Test(node_ranges, large_ranges_equal_a_bitmap)
{
    for (unsigned seed = 1; seed < 6; seed++)
        random_run(seed, 900);
}

Test(node_ranges, sequential_appends_stay_one_range_without_memory)
{
    struct ranges r;

    ranges_init(&r);
    for (uint64_t i = 0; i < 1000; i++)
        cr_assert_eq(ranges_insert(&r, i * 4096, (i + 1) * 4096), 0);
    cr_assert_eq(r.count, 1);
    cr_assert_eq(r.chunks, 0);
    ranges_clear(&r);
}

Test(node_ranges, set_operations)
{
    struct ranges a, b;

    ranges_init(&a);
    ranges_init(&b);
    for (uint64_t i = 0; i < 2000; i++) {
        ranges_insert(&a, i * 10, i * 10 + 6);
        ranges_insert(&b, i * 10 + 4, i * 10 + 8);
    }
    cr_assert_eq(ranges_keep(&a, &b), 0);
    cr_assert_eq(a.total, 2000 * 2);
    cr_assert_eq(ranges_remove_all(&b, &a), 0);
    cr_assert_eq(b.total, 2000 * 2);
    cr_assert_eq(ranges_add_all(&a, &b), 0);
    cr_assert_eq(a.count, 2000);
    cr_assert_eq(a.total, 2000 * 4);
    ranges_clear(&a);
    ranges_clear(&b);
}

Test(node_ranges, ends_of_the_number_space)
{
    struct ranges r;
    struct range found;

    ranges_init(&r);
    cr_assert_eq(ranges_insert(&r, UINT64_MAX - 10, UINT64_MAX), 0);
    cr_assert(ranges_contains(&r, UINT64_MAX - 5, UINT64_MAX));
    cr_assert(!ranges_next(&r, UINT64_MAX, &found));
    cr_assert_eq(ranges_blocks(&r, UINT64_MAX - 10, UINT64_MAX, 4096), 0,
                 "the last block is cut off");
    ranges_truncate(&r, 0);
    cr_assert_eq(r.count, 0);
    ranges_clear(&r);
}
