/* What libxl is told for a change of a domain's parameters. */
#include <criterion/criterion.h>

#include "hv/sched/ctl/sched_ctl.h"

struct told {
    bool real_time;
    enum sched_ctl_mark mark;
    uint32_t weight, weights[2];
    unsigned n;
};

Test(sched_ctl, weights_say_what_is_meant)
{
    static const struct told cases[] = {
        {false, SCHED_MARK_AS_IT_IS, 0, {0}, 0},
        {false, SCHED_MARK_AS_IT_IS, 300, {300}, 1},
        {false, SCHED_MARK_ON, 0, {SCHED_WEIGHT_RT}, 1},
        {false, SCHED_MARK_ON, 300, {300, SCHED_WEIGHT_RT}, 2},
        {false, SCHED_MARK_OFF, 0, {0}, 0},
        {false, SCHED_MARK_OFF, 300, {300}, 1},
        {true, SCHED_MARK_AS_IT_IS, 0, {0}, 0},
        {true, SCHED_MARK_AS_IT_IS, 300, {300, SCHED_WEIGHT_RT}, 2},
        {true, SCHED_MARK_ON, 0, {0}, 0},
        {true, SCHED_MARK_ON, 300, {300, SCHED_WEIGHT_RT}, 2},
        {true, SCHED_MARK_OFF, 0, {SCHED_WEIGHT_ORDINARY}, 1},
        {true, SCHED_MARK_OFF, 300, {300}, 1},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct told *c = &cases[i];
        const struct sched_ctl_change change = {c->mark, c->weight, -1};
        uint32_t weights[2] = {0};
        unsigned n = sched_ctl_weights(&change, c->real_time, weights);
        cr_assert_eq(n, c->n, "case %zu: %u weights", i, n);
        for (unsigned k = 0; k < n; k++)
            cr_assert_eq(weights[k], c->weights[k], "case %zu: weight %u is %u", i, k, weights[k]);
    }
}
