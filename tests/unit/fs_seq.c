/* Numbers of mutations: what may be forgotten, and the bounded window. */
#include <criterion/criterion.h>

#include "fs/seq.h"

static struct seq_tracker t;

static void setup(void)
{
    cr_assert_eq(seq_init(&t), 0);
}

static void teardown(void)
{
    seq_destroy(&t);
}

TestSuite(seq, .init = setup, .fini = teardown);

Test(seq, lowest_follows_the_oldest_unanswered)
{
    uint64_t acked;

    cr_assert_eq(seq_begin(&t, &acked), 1);
    cr_assert_eq(acked, 1);
    cr_assert_eq(seq_begin(&t, &acked), 2);
    cr_assert_eq(seq_begin(&t, &acked), 3);
    seq_end(&t, 2);
    seq_end(&t, 3);
    cr_assert_eq(seq_acked(&t), 1, "1 is still unanswered");
    seq_end(&t, 1);
    cr_assert_eq(seq_acked(&t), 4);
    cr_assert_eq(seq_next(&t), 4);
}

Test(seq, an_end_counts_once)
{
    uint64_t acked;

    seq_begin(&t, &acked);
    seq_begin(&t, &acked);
    seq_end(&t, 1);
    seq_end(&t, 1);
    seq_end(&t, 77); /* never given out */
    cr_assert_eq(seq_acked(&t), 2);
}

Test(seq, full_window_refuses_until_the_oldest_ends)
{
    uint64_t acked;

    for (uint64_t n = 1; n <= SEQ_WINDOW; n++)
        cr_assert_eq(seq_begin(&t, &acked), n);
    cr_assert_eq(seq_begin(&t, &acked), 0);
    for (uint64_t n = 2; n <= SEQ_WINDOW; n++)
        seq_end(&t, n);
    cr_assert_eq(seq_begin(&t, &acked), 0);
    seq_end(&t, 1);
    cr_assert_eq(seq_acked(&t), SEQ_WINDOW + 1ull);
    /* The bits are reused: nothing of the first round may count in the second. */
    for (uint64_t n = 1; n <= SEQ_WINDOW; n++)
        cr_assert_eq(seq_begin(&t, &acked), SEQ_WINDOW + n);
    cr_assert_eq(seq_acked(&t), SEQ_WINDOW + 1ull);
}
