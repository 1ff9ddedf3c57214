/* The Credit of the core against the published algorithm (Xen's scheduler documentation and the
 * comments of its credit scheduler), on examples worked out by hand: 10 credits a millisecond, so
 * 300 a period and processor. */
#include <criterion/criterion.h>

#include "tests/sched_host.h"

static struct host *h;

static void begin(uint32_t cpus)
{
    free(h);
    h = calloc(1, sizeof(*h));
    host_init(h, RBC_CREDIT, cpus);
    host_settle(h);
}

static void end(void)
{
    cr_assert_null(h->why, "%s", h->why);
    cr_assert_null(rbc_check(&h->rbc), "%s", rbc_check(&h->rbc));
    free(h);
    h = NULL;
}

/* The domain has one vCPU, of the same number, that runs or waits. */
static void domain(uint32_t n, uint32_t weight, uint32_t cap)
{
    rbc_domain_share(&h->rbc, &h->domains[n], weight, cap);
    cr_assert_eq(host_add(h, n, n, NULL, n), 0);
    host_wake(h, n);
    host_settle(h);
}

/* A tick finds each on its processor, so that it is active. */
static void active(uint32_t cpus)
{
    for (uint32_t cpu = 0; cpu < cpus; cpu++)
        rbc_tick(&h->rbc, cpu, h->now);
}

static void set_credit(uint32_t n, int32_t credit)
{
    h->rbc.ledger.granted += credit - h->vcpus[n].credit;
    h->vcpus[n].credit = credit;
}

static int credit(uint32_t n)
{
    return h->vcpus[n].credit;
}

Test(sched_credit, running_costs_ten_a_millisecond)
{
    begin(1);
    domain(0, 256, 0);
    h->now = 12345678; /* 123.45678 credits */
    rbc_tick(&h->rbc, 0, h->now);
    cr_assert_eq(credit(0), -123);
    h->now = 12399999; /* 123.99999: nothing is charged twice */
    rbc_tick(&h->rbc, 0, h->now);
    cr_assert_eq(credit(0), -123);
    h->now = 12400000;
    rbc_tick(&h->rbc, 0, h->now);
    cr_assert_eq(credit(0), -124);
    end();
}

/* Weights 256 and 512 on one processor: of 300 credits one gets 100, the other 200. */
Test(sched_credit, by_weight)
{
    begin(1);
    domain(0, 256, 0);
    domain(1, 512, 0);
    active(1);
    host_sleep(h, 0);
    host_settle(h); /* the other one runs */
    host_wake(h, 0);
    active(1);
    cr_assert(h->vcpus[0].active && h->vcpus[1].active);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), 100);
    cr_assert_eq(credit(1), 200);
    end();
}

/* A division that does not come out even is rounded up, for each domain: 300 / 7 x (1, 2, 4) are
 * 42.9, 85.7 and 171.4. */
Test(sched_credit, shares_are_rounded_up)
{
    begin(3);
    domain(0, 100, 0);
    domain(1, 200, 0);
    domain(2, 400, 0);
    active(3);
    h->rbc.cpus_n = 1; /* 300 credits for the three */
    rbc_account(&h->rbc, h->now);
    h->rbc.cpus_n = 3;
    cr_assert_eq(credit(0), 43);
    cr_assert_eq(credit(1), 86);
    cr_assert_eq(credit(2), 172);
    end();
}

/* 256 and 768 on two processors, 600 credits: the heavy one could have 450, but one vCPU can use
 * 300. It comes first, and what it leaves, (450 - 300) x 1024 / 256 = 600, makes 1200 x 256 / 1024
 * = 300 for the other. */
Test(sched_credit, what_one_cannot_use_goes_to_the_others)
{
    begin(2);
    domain(0, 256, 0);
    domain(1, 768, 0);
    active(2); /* the last to become active is first in the list */
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), 300);
    cr_assert_eq(credit(1), 300);
    end();
}

/* The other way round the light one has had its 150 when the heavy one leaves 150. Therefore the
 * heavy one comes first in the next period: 150 + 300 is more than 300, so it stops earning and
 * keeps half. */
Test(sched_credit, who_leaves_something_comes_first_next_time)
{
    begin(2);
    domain(1, 256, 0);
    domain(0, 768, 0);
    cr_assert_eq(h->vcpus[1].cpu, 1);
    active(2);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), 300);
    cr_assert_eq(credit(1), 150);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(1), 225);
    cr_assert_eq(credit(0), 300, "600 is halved");
    cr_assert(!h->vcpus[0].active && !h->vcpus[1].active);
    end();
}

/* Two vCPUs of one domain have half of its share each; its weight counts for each of them. */
Test(sched_credit, weight_is_per_vcpu)
{
    begin(3);
    domain(0, 256, 0);
    domain(1, 256, 0);
    cr_assert_eq(host_add(h, 2, 1, NULL, 2), 0);
    host_wake(h, 2);
    host_settle(h);
    active(3);
    h->rbc.cpus_n = 1;
    rbc_account(&h->rbc, h->now);
    h->rbc.cpus_n = 3;
    cr_assert_eq(credit(0), 100);
    cr_assert_eq(credit(1), 100);
    cr_assert_eq(credit(2), 100);
    end();
}

/* Below 0 is OVER, at 0 and above UNDER. */
Test(sched_credit, classes)
{
    begin(2);
    domain(0, 256, 0);
    domain(1, 256, 0);
    active(2);
    set_credit(0, -301);
    set_credit(1, -300);
    rbc_account(&h->rbc, h->now); /* 300 each */
    cr_assert_eq(credit(0), -1);
    cr_assert_eq(h->vcpus[0].cls, RBC_OVER);
    cr_assert_eq(credit(1), 0);
    cr_assert_eq(h->vcpus[1].cls, RBC_UNDER);
    end();
}

/* Kept within -300 and 300. -900 + 300 becomes -300. 100 + 300 is 400: inactive, with 200. */
Test(sched_credit, bounds)
{
    begin(2);
    domain(0, 256, 0);
    domain(1, 256, 0);
    active(2);
    set_credit(0, -900);
    set_credit(1, 100);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), -300);
    cr_assert(h->vcpus[0].active);
    cr_assert_eq(credit(1), 200);
    cr_assert(!h->vcpus[1].active);
    cr_assert_eq(h->rbc.balance, -100);
    h->now += 10 * MS;
    rbc_tick(&h->rbc, h->vcpus[1].cpu, h->now); /* it ran 10 ms: 100 credits */
    cr_assert(h->vcpus[1].active);
    cr_assert_eq(credit(1), 100);
    end();
}

/* A debt of all together is paid back: -200 twice makes 300 + 400 = 700, and the peak of each grows
 * from 300 to 300 + 400 / 2 = 500. So each gets 350. */
Test(sched_credit, debt_of_all)
{
    begin(2);
    domain(0, 256, 0);
    domain(1, 256, 0);
    active(2);
    set_credit(0, -200);
    set_credit(1, -200);
    h->rbc.balance = -400;
    h->rbc.cpus_n = 1;
    rbc_account(&h->rbc, h->now);
    h->rbc.cpus_n = 2;
    cr_assert_eq(credit(0), 150);
    cr_assert_eq(credit(1), 150);
    cr_assert_eq(h->rbc.balance, 300);
    end();
}

/* A cap of 50 %: 150 credits a period, of its fair 300. Below -150 it is parked, until it has 0. */
Test(sched_credit, cap)
{
    begin(2);
    domain(0, 256, 50);
    domain(1, 256, 0);
    active(2);
    set_credit(0, -300);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), -150);
    cr_assert(!h->vcpus[0].parked, "-150 is not below -150");
    set_credit(0, -301);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), -151);
    cr_assert(h->vcpus[0].parked);
    host_settle(h);
    cr_assert_eq(h->vcpus[0].state, RBC_PARKED);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), -1);
    cr_assert_eq(h->vcpus[0].state, RBC_PARKED);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), 149);
    host_settle(h);
    cr_assert_eq(h->vcpus[0].state, RBC_RUNNING);
    cr_assert_eq(h->vcpus[0].cls, RBC_UNDER, "unparking does not boost");
    end();
}

/* Real-time marks mean nothing here. */
Test(sched_credit, marks)
{
    begin(1);
    domain(0, 256, 0);
    rbc_domain_rt(&h->rbc, &h->domains[0], true, h->now);
    active(1);
    cr_assert(!h->vcpus[0].rt && h->vcpus[0].active);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), 300);
    end();
}

/* One processor, three hogs of equal weight, 30 ms each in turn. First accounting at 30 ms: only
 * the first is active (a tick found it), gets all 300, has used 300: 0, UNDER. Second runs 30..60:
 * at 60 two are active, 150 each: 150 and -150. */
Test(sched_credit, the_first_periods_of_three_hogs)
{
    begin(1);
    for (uint32_t n = 0; n < 3; n++)
        domain(n, 256, 0);
    cr_assert_eq(h->cpus[0].cur, &h->vcpus[0]);
    host_run(h, 30 * MS);
    cr_assert_eq(credit(0), 0);
    cr_assert_eq(h->cpus[0].cur, &h->vcpus[1]);
    host_run(h, 60 * MS);
    cr_assert_eq(credit(0), 150);
    cr_assert_eq(credit(1), -150 - 0);
    cr_assert_eq(h->vcpus[1].cls, RBC_OVER);
    cr_assert_eq(h->cpus[0].cur, &h->vcpus[2]);
    end();
}

/* The vCPUs that are queued in the class, in their order. */
static void queue_is(enum rbc_class cls, const uint32_t *order, size_t n)
{
    const struct rbc_link *head = &h->cpus[0].queue[cls], *at = head->next;

    for (size_t k = 0; k < n; k++, at = at->next) {
        cr_assert_neq(at, head, "class %d has only %zu", cls, k);
        cr_assert_eq(at, &h->vcpus[order[k]].queue_link, "class %d, place %zu", cls, k);
    }
    cr_assert_eq(at, head);
}

/* Who changes class keeps its turn among those who change with it: up behind those who are there
 * already, down before them, as the published sort of the queue has it. */
Test(sched_credit, order_after_accounting)
{
    begin(1);
    for (uint32_t n = 0; n < 5; n++)
        domain(n, 256, 0);
    for (uint32_t n = 0; n < 5; n++) { /* a tick finds each */
        active(1);
        h->now += 30 * MS;
        host_ask(h, 0, false);
    }
    cr_assert_eq(h->cpus[0].cur, &h->vcpus[0]);
    queue_is(RBC_UNDER, (const uint32_t[]){1, 2, 3, 4}, 4);
    set_credit(2, 0);
    set_credit(4, 0);
    rbc_account(&h->rbc, h->now); /* 60 for each: 1 and 3 have less than 0 */
    queue_is(RBC_UNDER, (const uint32_t[]){2, 4}, 2);
    queue_is(RBC_OVER, (const uint32_t[]){1, 3}, 2);
    h->rbc.balance = 0;
    set_credit(1, 0);
    set_credit(2, -300);
    rbc_account(&h->rbc, h->now);
    queue_is(RBC_UNDER, (const uint32_t[]){4, 1}, 2);
    queue_is(RBC_OVER, (const uint32_t[]){2, 3}, 2);
    end();
}

/* What real-time vCPUs used is not shared out: 15 of 30 ms leave 150 credits. The other one has
 * used 100. */
Test(sched_credit, less_what_real_time_used)
{
    free(h);
    h = calloc(1, sizeof(*h));
    host_init(h, RBC_R_B_CREDIT, 1);
    rbc_domain_rt(&h->rbc, &h->domains[1], true, 0);
    domain(0, 256, 0);
    h->now = 10 * MS;
    active(1);
    cr_assert_eq(credit(0), -100);
    domain(1, 256, 0);
    cr_assert_eq(h->cpus[0].cur, &h->vcpus[1]);
    h->now = 25 * MS;
    host_sleep(h, 1);
    host_settle(h);
    rbc_account(&h->rbc, h->now);
    cr_assert_eq(credit(0), 50);
    cr_assert_eq(credit(1), 0);
    end();
}
