/*
 * A life of many vCPUs, for sched_cost.sh to count instructions in: half of them can run, one in
 * ten is real-time, each step one wakes or sleeps.
 *
 *     sched_cost POLICY PROCESSORS VCPUS STEPS
 *
 * Prints how often each function of the core was called.
 */
#include <errno.h>
#include <stdio.h>

#define HOST_VCPUS 1000
#include "hv/sched/sim/random.h"
#include "hv/sched/sim/sim.h"
#include "tests/sched_host.h"

#define STEP (50 * US)

struct calls {
    uint64_t wake, sleep, schedule, saved, tick, account;
};

static void serve(struct host *h, struct calls *calls, uint32_t cpus, uint32_t ends)
{
    bool quiet = false;

    for (unsigned round = 0; !quiet && round < 100; round++) {
        quiet = true;
        for (uint32_t cpu = 0; cpu < cpus; cpu++) {
            if (!h->kicked[cpu] && !(round == 0 && cpu == ends))
                continue;
            quiet = false;
            host_ask(h, cpu, true);
            calls->schedule++;
            calls->saved += h->old[cpu] != NULL;
            host_saved(h, cpu);
        }
    }
}

static void step(struct host *h, struct calls *calls, struct sim_random *random, uint32_t cpus,
                 uint32_t vcpus)
{
    uint32_t one = (uint32_t)sim_random_below(random, vcpus);
    int64_t before = h->now;

    h->now += STEP;
    if (h->wants[one]) {
        host_sleep(h, one);
        calls->sleep++;
    } else {
        host_wake(h, one);
        calls->wake++;
    }
    if (before / (10 * MS) != h->now / (10 * MS))
        for (uint32_t cpu = 0; cpu < cpus; cpu++, calls->tick++)
            rbc_tick(&h->rbc, cpu, h->now);
    if (before / (30 * MS) != h->now / (30 * MS)) {
        rbc_account(&h->rbc, h->now);
        calls->account++;
    }
    /* Every millisecond a slice ends somewhere. */
    serve(h, calls, cpus,
          before / MS != h->now / MS ? (uint32_t)sim_random_below(random, cpus) : RBC_NONE);
}

int main(int argc, char **argv)
{
    enum rbc_policy policy;
    struct host *h = calloc(1, sizeof(*h));
    struct sim_random random = {1};
    struct calls calls = {0};

    if (argc != 5 || h == NULL || sim_policy_parse(argv[1], &policy) != 0) {
        fputs("usage: sched_cost POLICY PROCESSORS VCPUS STEPS\n", stderr);
        return 2;
    }
    uint32_t cpus = (uint32_t)atoi(argv[2]), vcpus = (uint32_t)atoi(argv[3]);
    if (cpus < 1 || cpus > HOST_CPUS || vcpus < 1 || vcpus > HOST_VCPUS)
        return 2;
    host_init(h, policy, cpus);
    rbc_domain_rt(&h->rbc, &h->domains[1], true, 0);
    for (uint32_t n = 0; n < vcpus; n++)
        host_add(h, n, n % 10 == 0 && n / 10 < cpus, NULL, n % cpus);
    for (int n = atoi(argv[4]); n > 0; n--)
        step(h, &calls, &random, cpus, vcpus);
    printf("rbc_wake %llu\nrbc_sleep %llu\nrbc_schedule %llu\nrbc_saved %llu\nrbc_tick %llu\n"
           "rbc_account %llu\n",
           (unsigned long long)calls.wake, (unsigned long long)calls.sleep,
           (unsigned long long)calls.schedule, (unsigned long long)calls.saved,
           (unsigned long long)calls.tick, (unsigned long long)calls.account);
    const char *why = rbc_check(&h->rbc);
    if (why != NULL)
        fprintf(stderr, "sched_cost: %s\n", why);
    free(h);
    return why != NULL;
}
