/* What reading from the pool without a node rests on: maps, read-ahead, the cache of records. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "fs/pool_map.h"
#include "fs/read_ahead.h"
#include "fs/record_cache.h"

#define MIB (1u << 20)

/* --- maps --- */

static int map_of(struct pool_map **m, Star__Extent *e, size_t n, uint64_t size)
{
    Star__MapReply r = STAR__MAP_REPLY__INIT;
    Star__Extent *list[8];

    for (size_t k = 0; k < n; k++)
        list[k] = &e[k];
    r.n_extents = n;
    r.extents = list;
    r.size = size;
    return pool_map_new(7, 0, 16 * MIB, &r, m);
}

static Star__Extent extent(uint64_t offset, uint64_t length, uint64_t record_offset,
                           uint64_t record_length)
{
    Star__Extent e = STAR__EXTENT__INIT;

    e.offset = offset;
    e.length = length;
    e.record = offset + 1;
    e.pack = 3;
    e.record_offset = record_offset;
    e.record_length = record_length;
    return e;
}

Test(pool_map, finds_what_is_there_and_what_is_not)
{
    Star__Extent e[] = {extent(MIB, MIB, 0, MIB), extent(2 * MIB, 100, 50, 150),
                        extent(4 * MIB, 10, 0, 10)};
    struct pool_map *m;

    cr_assert_eq(map_of(&m, e, 3, 5 * MIB), 0);
    cr_expect_eq(pool_map_find(m, 0)->offset, MIB);
    cr_expect_eq(pool_map_find(m, 2 * MIB - 1)->offset, MIB);
    cr_expect_eq(pool_map_find(m, 2 * MIB)->offset, 2 * MIB);
    cr_expect_eq(pool_map_find(m, 2 * MIB + 100)->offset, 4 * MIB);
    cr_expect_null(pool_map_find(m, 4 * MIB + 10));
    cr_expect_eq(pool_map_seek(m, 0, false), MIB);
    cr_expect_eq(pool_map_seek(m, MIB + 5, false), MIB + 5);
    cr_expect_eq(pool_map_seek(m, MIB + 5, true), 2 * MIB + 100, "neighbours have no hole between");
    cr_expect_eq(pool_map_seek(m, 3 * MIB, true), 3 * MIB);
    cr_expect_eq(pool_map_seek(m, 4 * MIB + 10, false), m->end);
    pool_map_unref(m);
}

Test(pool_map, answers_that_contradict_themselves_are_refused)
{
    struct pool_map *m;
    Star__Extent good = extent(MIB, MIB, 0, MIB), bad;

    bad = extent(MIB + 5, 10, 0, 10); /* inside the first */
    cr_expect_eq(map_of(&m, (Star__Extent[]){good, bad}, 2, 5 * MIB), -EPROTO);
    bad = extent(0, 11, 0, 10);
    cr_expect_eq(map_of(&m, &bad, 1, 5 * MIB), -EPROTO, "longer than its record");
    bad = extent(0, 10, 5, 10);
    cr_expect_eq(map_of(&m, &bad, 1, 5 * MIB), -EPROTO);
    bad = extent(0, 10, UINT64_MAX - 3, 10);
    cr_expect_eq(map_of(&m, &bad, 1, 5 * MIB), -EPROTO);
    bad = extent(0, 10, 0, 1ull << 32);
    cr_expect_eq(map_of(&m, &bad, 1, 5 * MIB), -EPROTO);
    bad = extent(0, 0, 0, 10);
    cr_expect_eq(map_of(&m, &bad, 1, 5 * MIB), -EPROTO);
    bad = extent(UINT64_MAX - 5, 10, 0, 10);
    cr_expect_eq(map_of(&m, &bad, 1, 5 * MIB), -EPROTO);
}

/* --- read-ahead --- */

Test(read_ahead, grows_while_a_file_is_read_on)
{
    struct read_ahead r = {0};
    uint64_t from, to, done = 0, furthest = 0;

    for (uint64_t at = 0; at < 64 * MIB; at += 128 << 10) {
        cr_assert(read_ahead(&r, at, 128 << 10, 64 * MIB, &from, &to));
        cr_assert_leq(from, to);
        if (from == to)
            continue;
        cr_assert(done == 0 || from == done || from == at + (128 << 10), "nothing twice");
        done = to;
        cr_assert_leq(to, 64 * MIB);
        if (to - at > furthest)
            furthest = to - at;
    }
    cr_assert_eq(done, 64 * MIB, "up to the end");
    cr_assert_gt(furthest, READ_AHEAD_MAX / 2);
    cr_assert_leq(furthest, READ_AHEAD_MAX + (128 << 10));
}

Test(read_ahead, requests_may_pass_each_other)
{
    struct read_ahead r = {0};
    uint64_t from, to;

    cr_assert(read_ahead(&r, 128 << 10, 128 << 10, 64 * MIB, &from, &to));
    cr_assert(read_ahead(&r, 0, 128 << 10, 64 * MIB, &from, &to));
    cr_assert(read_ahead(&r, 256 << 10, 128 << 10, 64 * MIB, &from, &to));
}

Test(read_ahead, none_for_random_reads)
{
    struct read_ahead r = {0};
    uint64_t from, to;

    read_ahead(&r, 0, 4096, 64 * MIB, &from, &to);
    for (unsigned n = 1; n < 20; n++) {
        uint64_t at = (n * 37 % 60) * MIB + 11 * 4096;
        cr_expect_not(read_ahead(&r, at, 4096, 64 * MIB, &from, &to));
        cr_expect_eq(from, to);
    }
}

/* --- the cache --- */

Test(record_cache, the_least_recently_used_go)
{
    struct record_cache c = {.limit = 3000};
    struct record *r;

    for (uint64_t id = 1; id <= 3; id++) {
        r = record_cache_add(&c, id, 1000);
        cr_assert_not_null(r);
        r->state = RECORD_READY;
        memset(r->data, (int)id, 1000);
        record_cache_put(&c, r);
    }
    r = record_cache_get(&c, 1);
    cr_assert_eq(r->data[999], 1);
    record_cache_put(&c, r);
    r = record_cache_add(&c, 4, 1500); /* takes the place of 2 and 3 */
    cr_assert_not_null(r);
    r->state = RECORD_READY;
    record_cache_put(&c, r);
    cr_expect(record_cache_has(&c, 1));
    cr_expect_not(record_cache_has(&c, 2));
    cr_expect_not(record_cache_has(&c, 3));
    cr_expect_eq(c.bytes, 2500);
    record_cache_free(&c);
    cr_expect_eq(c.bytes, 0);
}

Test(record_cache, what_is_used_stays_and_the_bound_holds)
{
    struct record_cache c = {.limit = 2000};
    struct record *a = record_cache_add(&c, 1, 1000), *b = record_cache_add(&c, 2, 1000);

    cr_assert(a && b);
    cr_expect_null(record_cache_add(&c, 3, 1000));
    a->state = RECORD_READY;
    record_cache_put(&c, a);
    struct record *d = record_cache_add(&c, 3, 1000);
    cr_assert_not_null(d);
    cr_expect_eq(d->state, RECORD_FETCHING);
    cr_expect_not(record_cache_has(&c, 1));
    cr_expect_eq(c.bytes, 2000);
    record_cache_put(&c, b);
    record_cache_put(&c, d);
    record_cache_free(&c);
}

Test(record_cache, a_failure_is_not_kept)
{
    struct record_cache c = {.limit = 2000};
    struct record *a = record_cache_add(&c, 1, 1000);

    cr_assert_eq(record_cache_get(&c, 1), a);
    a->state = RECORD_FAILED;
    record_cache_put(&c, a);
    cr_expect(record_cache_has(&c, 1), "its second user has not seen it yet");
    record_cache_put(&c, a);
    cr_expect_not(record_cache_has(&c, 1));
    cr_expect_eq(c.bytes, 0);
    record_cache_free(&c);
}
