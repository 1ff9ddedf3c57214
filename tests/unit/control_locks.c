/* Advisory locks: ranges of one owner against a map of bytes, conflicts, waiters, circles. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/locks.h"

static struct lock_spec spec(uint64_t owner, enum lock_type type, uint64_t start, uint64_t end)
{
    return (struct lock_spec){
        .session = 1, .owner = owner, .type = type, .start = start, .end = end};
}

static int set(struct lock_table *t, uint64_t owner, enum lock_type type, uint64_t start,
               uint64_t end)
{
    struct lock_spec s = spec(owner, type, start, end);

    return lock_set(t, &s);
}

Test(locks, readers_share_writers_do_not)
{
    struct lock_table *t = lock_table_new();

    cr_assert_eq(set(t, 1, RANGE_READ, 0, 9), 0);
    cr_assert_eq(set(t, 2, RANGE_READ, 5, 14), 0);
    cr_assert_eq(set(t, 3, RANGE_WRITE, 9, 9), -EAGAIN);
    cr_assert_eq(set(t, 3, RANGE_WRITE, 15, LOCK_END_MAX), 0);
    cr_assert_eq(set(t, 1, RANGE_WRITE, 0, 4), 0, "own read lock becomes a write lock");
    cr_assert_eq(set(t, 1, RANGE_WRITE, 0, 5), -EAGAIN, "the other reader stands in the way");
    lock_table_free(t);
}

Test(locks, flock_and_posix_do_not_meet)
{
    struct lock_table *t = lock_table_new();
    struct lock_spec f = spec(7, RANGE_WRITE, 0, LOCK_END_MAX);

    f.flock = true;
    cr_assert_eq(lock_set(t, &f), 0);
    cr_assert_eq(set(t, 8, RANGE_WRITE, 0, 1), 0);
    f.owner = 9;
    cr_assert_eq(lock_set(t, &f), -EAGAIN);
    lock_table_free(t);
}

/* What Linux does: the old lock goes before the new one is tried, whether that is granted or not.
 */
Test(locks, flock_that_upgrades_lets_go_first)
{
    struct lock_table *t = lock_table_new();
    struct lock_spec a = spec(1, RANGE_READ, 0, LOCK_END_MAX), b = a, third = a;
    int cookie, other;

    b.owner = 2;
    third.owner = 3;
    a.flock = b.flock = third.flock = true;
    cr_assert_eq(lock_set(t, &a), 0);
    cr_assert_eq(lock_set(t, &b), 0);
    a.type = b.type = third.type = RANGE_WRITE;
    cr_expect_eq(lock_set(t, &a), -EAGAIN);
    cr_assert_eq(lock_wait(t, &a, &cookie), 0);
    cr_assert_eq(lock_wait(t, &third, &other), 0);
    cr_expect_null(lock_grant_next(t));
    cr_expect_eq(lock_set(t, &b), 0, "the first one holds nothing any more");
    cr_expect_null(lock_grant_next(t));
    b.type = RANGE_UNLOCK;
    cr_expect_eq(lock_set(t, &b), 0);
    cr_expect_eq(lock_grant_next(t), &cookie);
    cr_expect_null(lock_grant_next(t));
    lock_table_free(t);
}

/* Three owners lock and unlock at random; a plain array per owner says what must be so. */
Test(locks, random_ranges_equal_a_byte_map)
{
    enum { OWNERS = 3, BYTES = 64 };
    unsigned char map[OWNERS][BYTES] = {{0}}; /* 0 none, 1 read, 2 write */
    struct lock_table *t = lock_table_new();

    srand(4711);
    for (int step = 0; step < 50000; step++) {
        unsigned o = (unsigned)rand() % OWNERS;
        unsigned a = (unsigned)rand() % BYTES, b = a + (unsigned)rand() % (BYTES - a);
        enum lock_type type = (enum lock_type)(rand() % 3);
        bool conflict = false;
        for (unsigned k = 0; k < OWNERS && type != RANGE_UNLOCK; k++)
            for (unsigned i = a; i <= b && k != o; i++)
                conflict |= map[k][i] && (type == RANGE_WRITE || map[k][i] == 2);
        cr_assert_eq(set(t, o + 1, type, a, b), conflict ? -EAGAIN : 0, "step %d", step);
        if (!conflict)
            memset(&map[o][a], type == RANGE_UNLOCK ? 0 : type == RANGE_READ ? 1 : 2, b - a + 1);
        unsigned at = (unsigned)rand() % BYTES;
        for (unsigned k = 0; k < OWNERS; k++) {
            struct lock_spec probe = spec(99, RANGE_WRITE, at, at), found;
            bool any = map[0][at] || map[1][at] || map[2][at];
            cr_assert_eq(lock_conflict(t, &probe, &found), any, "step %d byte %u", step, at);
            if (any)
                cr_assert(map[found.owner - 1][at], "the lock found is really there");
        }
    }
    lock_drop_session(t, 1);
    cr_assert(lock_table_empty(t));
    lock_table_free(t);
}

Test(locks, waiters_are_granted_in_order)
{
    struct lock_table *t = lock_table_new();
    int a, b, c;
    struct lock_spec w1 = spec(2, RANGE_WRITE, 0, 9), w2 = spec(3, RANGE_READ, 0, 9),
                     w3 = spec(4, RANGE_READ, 0, 9);

    cr_assert_eq(set(t, 1, RANGE_WRITE, 0, 9), 0);
    cr_assert_eq(lock_wait(t, &w1, &a), 0);
    cr_assert_eq(lock_wait(t, &w2, &b), 0);
    cr_assert_eq(lock_wait(t, &w3, &c), 0);
    cr_assert_null(lock_grant_next(t));
    cr_assert(lock_cancel(t, &c));
    cr_assert_not(lock_cancel(t, &c));
    cr_assert_eq(set(t, 1, RANGE_UNLOCK, 0, 9), 0);
    cr_assert_eq(lock_grant_next(t), &a);
    cr_assert_null(lock_grant_next(t), "the writer has it now");
    lock_drop_owner(t, 1, 2, false);
    cr_assert_eq(lock_grant_next(t), &b);
    lock_table_free(t);
}

static bool is_second(void *arg, const struct lock_spec *held)
{
    (*(unsigned *)arg)++;
    return held->owner == 2;
}

Test(locks, all_conflicts_are_told)
{
    struct lock_table *t = lock_table_new();
    struct lock_spec w = spec(4, RANGE_WRITE, 0, 20);
    unsigned n = 0;

    cr_assert_eq(set(t, 1, RANGE_WRITE, 0, 0), 0);
    cr_assert_eq(set(t, 2, RANGE_WRITE, 10, 10), 0);
    cr_assert_eq(set(t, 3, RANGE_WRITE, 20, 20), 0);
    cr_expect(lock_each_conflict(t, &w, is_second, &n));
    cr_expect_eq(n, 2);
    w.start = 11;
    cr_expect_not(lock_each_conflict(t, &w, is_second, &n));
    cr_expect_eq(n, 3);
    lock_table_free(t);
}
