/* Which writes go straight to the pool. */
#include <criterion/criterion.h>

#include "fs/straight_watch.h"

#define MIB  (1u << 20)
#define SIZE (8ull * MIB)

static struct straight_watch w;

static void setup(void)
{
    straight_watch_empty(&w, false);
}

TestSuite(straight_watch, .init = setup);

/* The offset of the first of `n` writes of 1 MiB that may go straight; UINT64_MAX: none. */
static uint64_t begins(unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        if (straight_watch_write(&w, (uint64_t)k * MIB, MIB, SIZE))
            return (uint64_t)k * MIB;
    return UINT64_MAX;
}

Test(straight_watch, from_direct_size_on)
{
    cr_expect_eq(begins(20), SIZE);
}

Test(straight_watch, small_files_never)
{
    cr_expect_eq(begins(8), UINT64_MAX);
}

Test(straight_watch, from_the_first_byte_if_the_size_is_announced)
{
    straight_watch_size(&w, SIZE);
    cr_expect_eq(begins(1), 0);
}

Test(straight_watch, a_small_announced_size_announces_nothing)
{
    straight_watch_size(&w, SIZE - 1);
    cr_expect_eq(begins(8), UINT64_MAX);
}

Test(straight_watch, from_the_first_byte_if_it_was_asked_for)
{
    straight_watch_empty(&w, true);
    cr_expect_eq(begins(1), 0);
}

Test(straight_watch, a_size_set_amid_the_writes_ends_it)
{
    begins(3);
    straight_watch_size(&w, 100 * SIZE);
    cr_expect_not(straight_watch_write(&w, 3 * MIB, MIB, SIZE));
    cr_expect_not(w.on);
}

Test(straight_watch, anything_but_the_next_write_ends_it)
{
    begins(3);
    cr_expect_not(straight_watch_write(&w, 2 * MIB, MIB, SIZE));
    cr_expect_not(w.on);
    cr_expect_eq(begins(30), UINT64_MAX, "until the file is empty again");
    straight_watch_size(&w, 0);
    cr_expect_eq(begins(30), SIZE);
}

Test(straight_watch, a_hole_ends_it)
{
    cr_expect_not(straight_watch_write(&w, 0, MIB, SIZE));
    cr_expect_not(straight_watch_write(&w, SIZE + MIB, MIB, SIZE));
    cr_expect_not(w.on);
}

Test(straight_watch, not_before_the_setting_is_known)
{
    straight_watch_empty(&w, true);
    cr_expect_not(straight_watch_write(&w, 0, MIB, 0));
    cr_expect(straight_watch_write(&w, MIB, MIB, SIZE));
}

Test(straight_watch, what_could_not_begin_is_tried_again_later)
{
    cr_assert_eq(begins(9), SIZE);
    straight_watch_later(&w, SIZE);
    unsigned tries = 0;
    for (uint64_t at = SIZE + MIB; at < 3 * SIZE; at += MIB)
        tries += straight_watch_write(&w, at, MIB, SIZE);
    cr_expect_gt(tries, 0u);
    cr_expect_lt(tries, 9u);
    cr_expect(w.on);
}

Test(straight_watch, a_journal_is_no_upload)
{
    uint64_t at = 0;

    straight_watch_empty(&w, true);
    for (unsigned n = 0; n < 10; n++, at += 2 * STRAIGHT_SYNC_BYTES) {
        straight_watch_write(&w, at, 2 * STRAIGHT_SYNC_BYTES, SIZE);
        cr_expect_not(straight_watch_sync(&w));
    }
    for (unsigned n = 1; n < STRAIGHT_SYNCS_MAX; n++, at += 4096) {
        straight_watch_write(&w, at, 4096, SIZE);
        cr_expect_not(straight_watch_sync(&w));
    }
    straight_watch_write(&w, at, 4096, SIZE);
    cr_expect(straight_watch_sync(&w));
    cr_expect_not(w.on);
}

Test(straight_watch, a_journal_without_any_node_goes_on)
{
    straight_watch_empty(&w, true);
    w.only = true;
    for (unsigned n = 0; n < 3 * STRAIGHT_SYNCS_MAX; n++) {
        cr_expect(straight_watch_write(&w, n * 4096ull, 4096, SIZE));
        cr_expect_not(straight_watch_sync(&w));
    }
    straight_watch_size(&w, 0);
    cr_expect(w.only && w.asked && w.on, "emptied, it still has no node");
}

Test(straight_watch, without_room_from_the_second_record_on)
{
    w.no_room = true;
    cr_expect_eq(begins(4), STRAIGHT_NO_ROOM_BYTES);
}

Test(straight_watch, the_write_that_nodes_did_not_take_begins_once_more)
{
    begins(3);
    cr_expect_not(straight_watch_again(&w, MIB, MIB), "not the last one");
    cr_expect(straight_watch_again(&w, 2 * MIB, MIB));
    cr_expect(straight_watch_write(&w, 2 * MIB, MIB, SIZE));
    cr_expect(straight_watch_write(&w, 3 * MIB, MIB, SIZE), "and all after it");
    straight_watch_write(&w, 0, MIB, SIZE);
    cr_expect_not(straight_watch_again(&w, 0, MIB), "it is not written from front to back");
}
