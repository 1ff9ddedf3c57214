/* The core of R_B_Credit under any sequence of what can happen to it. */
#include <criterion/criterion.h>

#include "hv/sched/sim/random.h"
#include "tests/sched_host.h"

#define SEEDS 60
#define STEPS 6000

static uint32_t below(void *arg, uint32_t n)
{
    return (uint32_t)sim_random_below(arg, n);
}

static void sequence(enum rbc_policy policy, uint64_t seed)
{
    struct sim_random random = {seed};
    const struct host_source from = {below, &random};
    struct host *h = calloc(1, sizeof(*h));

    host_init(h, policy, 1 + (uint32_t)(seed % HOST_CPUS));
    for (int step = 0; step < STEPS; step++) {
        host_step(h, &from);
        cr_assert_null(h->why, "policy %d, seed %llu, step %d: %s", policy,
                       (unsigned long long)seed, step, h->why);
    }
    free(h);
}

Test(sched_fuzz, credit)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        sequence(RBC_CREDIT, seed);
}

Test(sched_fuzz, r_credit)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        sequence(RBC_R_CREDIT, seed);
}

Test(sched_fuzz, r_b_credit)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        sequence(RBC_R_B_CREDIT, seed);
}
