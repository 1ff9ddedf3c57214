/* When a file gets one more copy, and when it loses it again. */
#include "control/hot_policy.h"

#include <criterion/criterion.h>

#define MIB (1ull << 20)

static const struct hot_limits limits = {.rate = 64 * MIB, .copies = 3, .cool_after = 10000};

/* Seconds of this rate from `now` on until it says `step`; -1: it does not within a minute. */
static int seconds_until(struct hot_rate *h, uint64_t rate, enum hot_step step, int64_t *now)
{
    for (int s = 1; s <= 60; s++) {
        *now += 1000;
        hot_sample(h, rate, 1000);
        if (hot_decide(h, &limits, *now) == step)
            return s;
    }
    return -1;
}

Test(control_hot_policy, a_burst_is_not_hot_and_a_stream_is)
{
    struct hot_rate h = {.copies = 1};
    int64_t now = 1000;

    hot_sample(&h, 128 * MIB, 1000);
    cr_expect_eq(hot_decide(&h, &limits, now), HOT_STAY);
    hot_sample(&h, 0, 1000);
    cr_expect_eq(seconds_until(&h, 128 * MIB, HOT_ADD, &now), 2);
}

Test(control_hot_policy, copies_follow_the_rate_up_to_the_limit)
{
    struct hot_rate h = {.copies = 1};
    int64_t now = 1000;

    cr_assert_gt(seconds_until(&h, 1000 * MIB, HOT_ADD, &now), 0);
    h.copies = 2;
    h.extra = 1;
    cr_assert_gt(seconds_until(&h, 1000 * MIB, HOT_ADD, &now), 0);
    h.copies = 3;
    h.extra = 2;
    cr_expect_eq(seconds_until(&h, 1000 * MIB, HOT_ADD, &now), -1, "no more than that");
    cr_expect_eq(seconds_until(&h, 1000 * MIB, HOT_REMOVE, &now), -1, "and they stay");
}

Test(control_hot_policy, what_was_added_stays_at_the_same_rate)
{
    struct hot_rate h = {.copies = 1};
    int64_t now = 1000;

    cr_assert_gt(seconds_until(&h, 70 * MIB, HOT_ADD, &now), 0);
    h.copies = 2;
    h.extra = 1;
    cr_expect_eq(seconds_until(&h, 70 * MIB, HOT_REMOVE, &now), -1);
}

Test(control_hot_policy, an_extra_copy_goes_when_it_has_been_cool_for_some_time)
{
    struct hot_rate h = {.copies = 2, .extra = 1, .rate = 20.0 * MIB};
    int64_t now = 1000;

    cr_expect_geq(seconds_until(&h, 20 * MIB, HOT_REMOVE, &now), 10);
    h = (struct hot_rate){.copies = 2, .extra = 1, .rate = 20.0 * MIB};
    for (int k = 0; k < 8; k++) { /* it warms up in between */
        hot_sample(&h, k == 4 ? 900 * MIB : 20 * MIB, 1000);
        cr_expect_neq(hot_decide(&h, &limits, now += 1000), HOT_REMOVE);
    }
    h.rate = 1.0 * MIB;
    cr_expect_eq(hot_decide(&h, &limits, now += 3000), HOT_STAY,
                 "counted from the last warm moment");
}

Test(control_hot_policy, ordinary_copies_are_left_alone)
{
    struct hot_rate h = {.copies = 3};
    int64_t now = 1000;

    cr_expect_eq(seconds_until(&h, 0, HOT_REMOVE, &now), -1);
    cr_expect_eq(h.rate, 0);
}

Test(control_hot_policy, switched_off)
{
    struct hot_limits off = {.rate = 0, .copies = 3, .cool_after = 1000};
    struct hot_rate h = {.copies = 1, .rate = 1e12};

    cr_expect_eq(hot_decide(&h, &off, 1000), HOT_STAY);
    h.extra = 1;
    h.copies = 2;
    cr_expect_eq(hot_decide(&h, &off, 2000), HOT_STAY);
    cr_expect_eq(hot_decide(&h, &off, 3000), HOT_REMOVE);
}

Test(control_hot_policy, a_copy_that_went_by_itself)
{
    struct hot_rate h = {.copies = 0, .extra = 1, .rate = 1e12};

    hot_decide(&h, &limits, 1000);
    cr_expect_eq(hot_decide(&h, &limits, 11000), HOT_REMOVE, "it is not counted for ever");
    h.extra = 0;
    cr_expect_eq(hot_decide(&h, &limits, 12000), HOT_STAY, "nobody caches it: nothing to copy");
}
