/* The core of R_B_Credit: order, preemption, balance, stealing, guard. */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/sched_host.h"

static struct host *h;

static void begin(enum rbc_policy policy, uint32_t cpus)
{
    free(h);
    h = calloc(1, sizeof(*h));
    host_init(h, policy, cpus);
    rbc_domain_rt(&h->rbc, &h->domains[1], true, 0); /* domain 1 is real-time */
    host_settle(h);
}

static void end(void)
{
    cr_assert_null(h->why, "%s", h->why);
    cr_assert_null(rbc_check(&h->rbc), "%s", rbc_check(&h->rbc));
    free(h);
    h = NULL;
}

static void rested(void)
{
    host_settle(h);
    cr_assert_null(h->why, "%s", h->why);
    cr_assert_null(host_rested(h), "%s", host_rested(h));
}

static void add_on(uint32_t vcpu, bool rt, uint64_t cpus, uint32_t near)
{
    struct rbc_mask m = rbc_mask_all();

    m.w[0] = cpus;
    cr_assert_eq(host_add(h, vcpu, rt, &m, near), 0);
}

static void add(uint32_t vcpu, bool rt, uint32_t near)
{
    add_on(vcpu, rt, ~UINT64_C(0), near);
}

/* What runs on the processor, as a number; -1: nothing. */
static int runs(uint32_t cpu)
{
    return h->cpus[cpu].cur != NULL ? (int)(h->cpus[cpu].cur - h->vcpus) : -1;
}

Test(sched_core, masks)
{
    struct rbc_mask m = rbc_mask_of(70);

    cr_assert_eq(rbc_mask_next(&m, 0), 70);
    cr_assert_eq(rbc_mask_next(&m, 70), 70);
    rbc_mask_set(&m, 3);
    rbc_mask_set(&m, 255);
    cr_assert_eq(rbc_mask_next(&m, 3), 70);
    cr_assert_eq(rbc_mask_next(&m, 70), 255);
    cr_assert_eq(rbc_mask_next(&m, 255), 3);
    cr_assert_eq(rbc_mask_next(&m, RBC_NONE), 3);
    rbc_mask_clear(&m, 3);
    rbc_mask_clear(&m, 70);
    rbc_mask_clear(&m, 255);
    cr_assert(rbc_mask_empty(&m));
    cr_assert_eq(rbc_mask_next(&m, 5), RBC_NONE);
}

/* One processor: each that blocks is followed by the best that waits, the first of its class. */
Test(sched_core, order_of_classes)
{
    static const uint32_t order[] = {4, 5, 2, 3, 1, 6, 0}; /* 1 does not wake boosted; 6 before 0 */

    begin(RBC_R_B_CREDIT, 1);
    for (uint32_t n = 0; n < 7; n++)
        add(n, n == 4 || n == 5, 0);
    h->vcpus[0].cls = h->vcpus[6].cls = RBC_OVER;
    h->vcpus[1].placed = true; /* stays UNDER */
    add(7, false, 0);
    host_wake(h, 7);
    host_settle(h);
    cr_assert_eq(runs(0), 7);
    host_wake(h, 6);
    for (uint32_t n = 0; n < 6; n++)
        host_wake(h, n);
    host_sleep(h, 7);
    for (size_t n = 0; n < sizeof(order) / sizeof(order[0]); n++) {
        host_settle(h);
        cr_assert_eq(runs(0), (int)order[n], "place %zu: %d", n, runs(0));
        host_sleep(h, order[n]);
    }
    host_settle(h);
    cr_assert_eq(runs(0), -1);
    end();
}

Test(sched_core, round_robin_within_a_class)
{
    begin(RBC_R_B_CREDIT, 1);
    for (uint32_t n = 0; n < 3; n++) {
        add(n, true, 0);
        host_wake(h, n);
    }
    host_settle(h);
    for (int turn = 0; turn < 9; turn++) {
        cr_assert_eq(runs(0), turn % 3);
        h->now += 30 * MS;
        host_ask(h, 0, false);
    }
    end();
}

/* 10 us after an ordinary vCPU began: real-time runs at once, a boosted one waits out the rate
 * limit. */
Test(sched_core, real_time_preempts_at_once)
{
    for (unsigned policy = RBC_CREDIT; policy <= RBC_R_B_CREDIT; policy++) {
        begin((enum rbc_policy)policy, 1);
        add(0, false, 0);
        add(1, true, 0);
        h->vcpus[0].placed = true;
        host_wake(h, 0);
        host_settle(h);
        h->now += 10 * US;
        host_wake(h, 1);
        cr_assert(h->kicked[0]);
        host_settle(h);
        cr_assert_eq(runs(0), policy == RBC_CREDIT ? 0 : 1);
        if (policy == RBC_CREDIT) {
            cr_assert_eq(h->next[0].slice_ns, 990 * US);
            h->now += 990 * US;
            host_ask(h, 0, false);
            cr_assert_eq(runs(0), 1);
        }
        end();
    }
}

/* Interrupted after 10 of its 30 ms, it goes on before the next of its class, for the other 20. */
Test(sched_core, who_is_interrupted_keeps_its_turn)
{
    begin(RBC_R_B_CREDIT, 1);
    for (uint32_t n = 0; n < 2; n++) {
        add(n, false, 0);
        h->vcpus[n].placed = true;
        host_wake(h, n);
    }
    add(2, true, 0);
    host_settle(h);
    cr_assert_eq(runs(0), 0);
    cr_assert_eq(h->next[0].slice_ns, 30 * MS);
    h->now += 10 * MS;
    host_wake(h, 2);
    host_settle(h);
    cr_assert_eq(runs(0), 2);
    h->now += MS;
    host_sleep(h, 2);
    host_settle(h);
    cr_assert_eq(runs(0), 0);
    cr_assert_eq(h->next[0].slice_ns, 20 * MS);
    h->now += 20 * MS;
    host_ask(h, 0, false);
    cr_assert_eq(runs(0), 1, "then it is the other's turn");
    cr_assert_eq(h->next[0].slice_ns, 30 * MS);
    end();
}

Test(sched_core, ordinary_never_preempts_real_time)
{
    begin(RBC_R_CREDIT, 1);
    add(0, true, 0);
    add(1, false, 0);
    host_wake(h, 0);
    host_settle(h);
    h->now += 5 * MS;
    host_wake(h, 1);
    cr_assert_eq(h->vcpus[1].cls, RBC_BOOST);
    cr_assert(!h->kicked[0]);
    host_ask(h, 0, false);
    cr_assert_eq(runs(0), 0);
    end();
}

Test(sched_core, boost_ends_at_a_tick)
{
    begin(RBC_CREDIT, 1);
    add(0, false, 0);
    host_wake(h, 0);
    host_settle(h);
    cr_assert_eq(h->vcpus[0].cls, RBC_BOOST);
    rbc_tick(&h->rbc, 0, h->now);
    cr_assert_eq(h->vcpus[0].cls, RBC_UNDER);
    cr_assert(h->vcpus[0].active);
    host_sleep(h, 0);
    host_settle(h);
    h->vcpus[0].cls = RBC_OVER;
    host_wake(h, 0);
    cr_assert_eq(h->vcpus[0].cls, RBC_OVER, "who has no credit is not boosted");
    end();
}

Test(sched_core, yield_lets_the_next_one_pass)
{
    begin(RBC_CREDIT, 1);
    add(0, false, 0);
    add(1, false, 0);
    h->vcpus[0].placed = h->vcpus[1].placed = true;
    host_wake(h, 0);
    host_settle(h);
    h->vcpus[1].cls = RBC_OVER; /* worse than what runs */
    host_wake(h, 1);
    h->now += 10 * US;
    rbc_yield(&h->vcpus[0]);
    host_ask(h, 0, false);
    cr_assert_eq(runs(0), 1, "in spite of rate limit and class");
    h->now += 2 * MS;
    host_ask(h, 0, false);
    cr_assert_eq(runs(0), 0, "once");
    end();
}

/* ---- balance */

/* As many real-time vCPUs as processors, all woken on one of them: one each, and hogs do not keep
 * them from it. */
Test(sched_core, one_real_time_vcpu_a_processor)
{
    begin(RBC_R_B_CREDIT, 4);
    for (uint32_t n = 8; n < 16; n++) {
        add(n, false, n % 4);
        host_wake(h, n);
    }
    rested();
    for (uint32_t n = 0; n < 4; n++)
        add(n, true, 0);
    for (uint32_t n = 0; n < 4; n++) {
        for (uint32_t k = 0; k < n; k++)
            cr_assert_neq(h->vcpus[k].cpu, h->vcpus[n].cpu, "spread at insertion");
    }
    for (uint32_t n = 0; n < 4; n++) {
        rbc_vcpu_place(&h->rbc, &h->vcpus[n], 2);
        h->at[n] = 2;
    }
    for (uint32_t n = 0; n < 4; n++)
        host_wake(h, n);
    rested();
    for (uint32_t cpu = 0; cpu < 4; cpu++)
        cr_assert(runs(cpu) >= 0 && runs(cpu) < 4, "processor %u runs %d", cpu, runs(cpu));
    cr_assert_eq(h->rbc.counts.rt_met, 0);
    end();
}

/* The same in R_Credit: they stay together as long as the others have better to do than nothing. */
Test(sched_core, r_credit_leaves_them_together)
{
    begin(RBC_R_CREDIT, 2);
    for (uint32_t n = 8; n < 12; n++) {
        add(n, false, n % 2);
        host_wake(h, n);
    }
    rested();
    for (uint32_t n = 0; n < 2; n++) {
        add(n, true, 0);
        rbc_vcpu_place(&h->rbc, &h->vcpus[n], 0);
        h->at[n] = 0;
    }
    host_wake(h, 0);
    host_settle(h);
    host_wake(h, 1);
    host_settle(h);
    cr_assert_eq(h->vcpus[0].cpu, 0);
    cr_assert_eq(h->vcpus[1].cpu, 0);
    cr_assert_eq(h->rbc.counts.rt_met, 1);
    end();
}

/* The one that wakes may run nowhere else, so the one that runs goes. */
Test(sched_core, the_running_one_moves_if_only_it_may)
{
    begin(RBC_R_B_CREDIT, 2);
    add(0, true, 0);
    add_on(1, true, 1, 0);
    h->now = 5 * MS;
    rbc_vcpu_place(&h->rbc, &h->vcpus[0], 0);
    h->at[0] = 0;
    host_wake(h, 0);
    host_settle(h);
    cr_assert_eq(runs(0), 0);
    host_wake(h, 1);
    rested();
    cr_assert_eq(runs(0), 1);
    cr_assert_eq(runs(1), 0);
    end();
}

/* A processor that becomes free of real-time vCPUs takes one that waits elsewhere at once. */
Test(sched_core, a_freed_processor_takes_one)
{
    begin(RBC_R_B_CREDIT, 2);
    for (uint32_t n = 0; n < 3; n++) {
        add(n, true, 0);
        host_wake(h, n);
    }
    rested();
    uint32_t alone = h->cpus[0].rt == 1 ? 0 : 1;
    cr_assert_eq(h->cpus[!alone].rt, 2);
    host_sleep(h, (uint32_t)runs(alone));
    rested();
    cr_assert_eq(h->cpus[0].rt, 1);
    cr_assert_eq(h->cpus[1].rt, 1);
    end();
}

Test(sched_core, more_than_processors_are_spread_evenly)
{
    begin(RBC_R_B_CREDIT, 4);
    for (uint32_t n = 0; n < 8; n++) {
        add(n, true, 0);
        host_wake(h, n);
    }
    rested();
    for (uint32_t cpu = 0; cpu < 4; cpu++)
        cr_assert_eq(h->cpus[cpu].rt, 2);
    end();
}

Test(sched_core, affinity_is_kept)
{
    begin(RBC_R_B_CREDIT, 4);
    add_on(0, true, 0x6, 0);
    add_on(1, true, 0x6, 0);
    add_on(2, true, 0x6, 0);
    for (uint32_t n = 0; n < 3; n++)
        host_wake(h, n);
    rested();
    cr_assert_eq(h->cpus[0].rt + h->cpus[3].rt, 0, "they share before they go where they may not");
    struct rbc_mask m = rbc_mask_of(3);
    uint32_t moving = (uint32_t)runs(1);
    cr_assert_eq(rbc_vcpu_affinity(&h->rbc, &h->vcpus[moving], &m, h->now), 0);
    rested();
    cr_assert_eq(runs(3), (int)moving, "a running one goes when told");
    m = rbc_mask_of(7);
    cr_assert_eq(rbc_vcpu_affinity(&h->rbc, &h->vcpus[0], &m, h->now), -EINVAL);
    end();
}

/* ---- ordinary vCPUs */

Test(sched_core, idle_processors_are_used)
{
    begin(RBC_CREDIT, 4);
    for (uint32_t n = 0; n < 4; n++) {
        add(n, false, 0);
        h->vcpus[n].cpu = h->at[n] = 0;
        host_wake(h, n);
    }
    rested();
    for (uint32_t cpu = 0; cpu < 4; cpu++)
        cr_assert_geq(runs(cpu), 0);
    end();
}

/* Processor 1 has only an OVER vCPU, so it takes UNDER ones that wait elsewhere, but no OVER ones.
 */
Test(sched_core, stealing_is_for_better_classes)
{
    begin(RBC_CREDIT, 2);
    for (uint32_t n = 0; n < 3; n++) {
        add(n, false, n == 1);
        h->vcpus[n].placed = true;
    }
    h->vcpus[1].cls = h->vcpus[2].cls = RBC_OVER;
    host_wake(h, 0);
    host_wake(h, 1);
    host_settle(h);
    rbc_vcpu_place(&h->rbc, &h->vcpus[2], 0);
    h->at[2] = 0;
    host_wake(h, 2);
    host_settle(h);
    h->now += 30 * MS;
    host_ask(h, 1, false);
    cr_assert_eq(runs(1), 1, "OVER is not stolen for OVER");
    add(3, false, 0);
    rbc_vcpu_place(&h->rbc, &h->vcpus[3], 0);
    h->at[3] = 0;
    host_wake(h, 3);
    host_settle(h);
    h->now += 30 * MS;
    host_ask(h, 1, false);
    cr_assert_eq(runs(1), 3);
    cr_assert(h->next[1].moved);
    end();
}

/* Processor 0 has been asked to run it. Processor 1, whose slice ends in that moment, leaves it
 * there: else each of two takes the other's again and again. */
Test(sched_core, a_real_time_vcpu_that_is_about_to_run_is_not_stolen)
{
    begin(RBC_R_B_CREDIT, 2);
    add(0, true, 0);
    for (uint32_t n = 1; n < 3; n++) {
        add(n, false, n - 1);
        h->vcpus[n].placed = true;
        h->vcpus[n].cls = RBC_OVER;
        host_wake(h, n);
    }
    host_settle(h);
    cr_assert(runs(0) == 1 && runs(1) == 2);
    h->now += 30 * MS;
    host_wake(h, 0);
    host_ask(h, 1, false);
    cr_assert_eq(runs(1), 2);
    rested();
    cr_assert_eq(runs(0), 0);
    end();
}

/* ---- guard */

/* A real-time vCPU that never blocks, with 50 % allowed: an ordinary one gets the other half. */
Test(sched_core, guard)
{
    begin(RBC_R_B_CREDIT, 1);
    struct rbc_settings set = h->rbc.set;
    set.guard_alone = 500;
    cr_assert_eq(rbc_configure(&h->rbc, &set, 0), 0);
    add(0, true, 0);
    add(1, false, 0);
    host_wake(h, 0);
    host_wake(h, 1);
    host_settle(h);
    host_run(h, 3000 * MS);
    cr_assert_gt(h->vcpus[1].used_ns, 1400 * MS);
    cr_assert_lt(h->vcpus[1].used_ns, 1600 * MS);
    end();
}

/* Off by default for one alone; two that share a processor leave 5 %. */
Test(sched_core, guard_defaults)
{
    begin(RBC_R_B_CREDIT, 1);
    add(0, true, 0);
    add(2, false, 0);
    host_wake(h, 0);
    host_wake(h, 2);
    host_settle(h);
    host_run(h, 900 * MS);
    cr_assert_eq(h->vcpus[2].used_ns, 0);
    add(1, true, 0);
    host_wake(h, 1);
    host_settle(h);
    host_run(h, 3900 * MS);
    cr_assert_gt(h->vcpus[2].used_ns, 120 * MS, "%lld", (long long)h->vcpus[2].used_ns);
    cr_assert_lt(h->vcpus[2].used_ns, 180 * MS);
    end();
}

/* ---- changes at run time */

Test(sched_core, marking_at_run_time)
{
    begin(RBC_R_B_CREDIT, 1);
    add(0, false, 0);
    cr_assert_eq(host_add(h, 1, 2, NULL, 0), 0);
    host_wake(h, 0);
    host_settle(h);
    host_wake(h, 1);
    host_ask(h, 0, false);
    cr_assert_eq(runs(0), 0, "within the rate limit");
    rbc_domain_rt(&h->rbc, &h->domains[2], true, h->now);
    rested();
    cr_assert_eq(runs(0), 1);
    rbc_domain_rt(&h->rbc, &h->domains[2], false, h->now);
    rested();
    cr_assert_eq(h->vcpus[1].cls, RBC_UNDER);
    struct rbc_settings set = h->rbc.set;
    set.period_ns = 0;
    cr_assert_eq(rbc_configure(&h->rbc, &set, h->now), -EINVAL);
    end();
}

Test(sched_core, switching_the_policy_on_balances)
{
    begin(RBC_R_CREDIT, 2);
    for (uint32_t n = 0; n < 2; n++)
        add_on(n, true, 1, 0);
    for (uint32_t n = 0; n < 2; n++)
        host_wake(h, n);
    for (uint32_t n = 2; n < 4; n++) {
        add_on(n, false, 2, 1);
        host_wake(h, n);
    }
    host_settle(h);
    struct rbc_mask all = rbc_mask_all();
    rbc_vcpu_affinity(&h->rbc, &h->vcpus[0], &all, h->now);
    rbc_vcpu_affinity(&h->rbc, &h->vcpus[1], &all, h->now);
    host_settle(h);
    cr_assert_eq(h->cpus[0].rt, 2);
    struct rbc_settings set = h->rbc.set;
    set.policy = RBC_R_B_CREDIT;
    cr_assert_eq(rbc_configure(&h->rbc, &set, h->now), 0);
    rested();
    cr_assert_eq(h->cpus[0].rt, 1);
    cr_assert_eq(h->cpus[1].rt, 1);
    end();
}

Test(sched_core, processors_come_and_go)
{
    begin(RBC_R_B_CREDIT, 2);
    for (uint32_t n = 0; n < 6; n++) {
        add(n, n < 2, n % 2);
        host_wake(h, n);
    }
    rested();
    cr_assert_eq(rbc_cpu_remove(&h->rbc, 1, h->now), -EBUSY);
    host_sleep(h, (uint32_t)runs(1));
    h->kicked[1] = false;
    h->now += 40 * MS;
    host_sleep(h, 0);
    host_sleep(h, 1);
    for (uint32_t n = 2; n < 6; n++)
        host_sleep(h, n);
    host_ask(h, 0, false);
    host_ask(h, 1, false);
    cr_assert_eq(rbc_cpu_remove(&h->rbc, 1, h->now), 0);
    h->kicked[1] = false;
    for (uint32_t n = 0; n < 6; n++)
        host_wake(h, n);
    rested();
    cr_assert_eq(h->cpus[0].rt, 2);
    cr_assert_eq(rbc_cpu_add(&h->rbc, &h->cpus[1], 1, h->now), 0);
    rested();
    cr_assert_eq(h->cpus[1].rt, 1, "balance finds the new processor");
    end();
}

Test(sched_core, what_is_refused)
{
    begin(RBC_R_B_CREDIT, 1);
    add(0, false, 0);
    struct rbc_mask none = rbc_mask_of(9);
    struct rbc_vcpu other;
    cr_assert_eq(rbc_vcpu_add(&h->rbc, &h->domains[0], &other, &none, 0, 0), -EINVAL);
    cr_assert_eq(rbc_cpu_add(&h->rbc, &h->cpus[0], 0, 0), -EEXIST);
    cr_assert_eq(rbc_domain_share(&h->rbc, &h->domains[0], 0, 0), -EINVAL);
    cr_assert_eq(rbc_domain_remove(&h->rbc, &h->domains[0]), -EBUSY);
    host_wake(h, 0);
    host_settle(h);
    cr_assert_eq(rbc_vcpu_remove(&h->rbc, &h->vcpus[0]), -EBUSY);
    cr_assert_eq(rbc_vcpu_place(&h->rbc, &h->vcpus[0], 0), -EBUSY);
    cr_assert_eq(rbc_cpu_remove(&h->rbc, 0, 0), -EBUSY);
    end();
}
