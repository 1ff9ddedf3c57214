/* A machine for the core of R_B_Credit: it keeps what a hypervisor would, and does what it is told,
 * in any order that is allowed. */
#ifndef UMBEL_TESTS_SCHED_HOST_H
#define UMBEL_TESTS_SCHED_HOST_H

#include <stdlib.h>
#include <string.h>

#include "hv/sched/rbc.h"

#define HOST_CPUS    8
#define HOST_DOMAINS 6
#ifndef HOST_VCPUS
#define HOST_VCPUS 24
#endif
#define US INT64_C(1000)
#define MS INT64_C(1000000)

struct host {
    struct rbc rbc;
    struct rbc_cpu cpus[HOST_CPUS];
    struct rbc_domain domains[HOST_DOMAINS];
    struct rbc_vcpu vcpus[HOST_VCPUS];
    bool there[HOST_VCPUS], wants[HOST_VCPUS]; /* to run */
    uint32_t at[HOST_VCPUS];                   /* processor, as told by ops.moved */
    bool kicked[HOST_CPUS];
    struct rbc_vcpu *old[HOST_CPUS]; /* not saved yet */
    struct rbc_next next[HOST_CPUS];
    uint64_t kicks;
    int64_t now;
    const char *why; /* first thing that was wrong */
};

static inline void host_wrong(struct host *h, const char *why)
{
    if (why != NULL && h->why == NULL)
        h->why = why;
}

static inline void host_kick(void *arg, uint32_t cpu)
{
    struct host *h = arg;

    if (cpu >= HOST_CPUS || h->kicked[cpu])
        host_wrong(h, "a processor was kicked twice, or is none");
    else
        h->kicked[cpu] = true;
    h->kicks++;
}

static inline void host_moved(void *arg, struct rbc_vcpu *v, uint32_t from, uint32_t to)
{
    struct host *h = arg;
    size_t n = (size_t)(v - h->vcpus);

    if (h->at[n] != from || to >= HOST_CPUS)
        host_wrong(h, "a vCPU moved from where it was not");
    if (v->state == RBC_RUNNING || v->unsaved)
        host_wrong(h, "a vCPU moved while it was on a processor");
    h->at[n] = to;
}

static inline void host_init(struct host *h, enum rbc_policy policy, uint32_t cpus)
{
    static const struct rbc_ops ops = {host_kick, host_moved};
    struct rbc_settings set = rbc_defaults(policy);

    memset(h, 0, sizeof(*h));
    rbc_init(&h->rbc, &set, &ops, h);
    for (uint32_t n = 0; n < cpus; n++)
        rbc_cpu_add(&h->rbc, &h->cpus[n], n, 0);
    for (uint32_t n = 0; n < HOST_DOMAINS; n++)
        rbc_domain_add(&h->rbc, &h->domains[n]);
}

static inline int host_add(struct host *h, uint32_t vcpu, uint32_t domain,
                           const struct rbc_mask *affinity, uint32_t near)
{
    struct rbc_mask all = rbc_mask_all();
    int rc = rbc_vcpu_add(&h->rbc, &h->domains[domain], &h->vcpus[vcpu], affinity ? affinity : &all,
                          near, h->now);

    h->there[vcpu] = rc == 0;
    h->wants[vcpu] = false;
    h->at[vcpu] = h->vcpus[vcpu].cpu;
    return rc;
}

static inline void host_wake(struct host *h, uint32_t vcpu)
{
    h->wants[vcpu] = true;
    rbc_wake(&h->rbc, &h->vcpus[vcpu], h->now);
}

static inline void host_sleep(struct host *h, uint32_t vcpu)
{
    h->wants[vcpu] = false;
    rbc_sleep(&h->rbc, &h->vcpus[vcpu]);
}

static inline void host_saved(struct host *h, uint32_t cpu)
{
    struct rbc_vcpu *old = h->old[cpu];

    h->old[cpu] = NULL;
    if (old != NULL)
        rbc_saved(&h->rbc, old, h->now);
}

/* The processor asks; what ran is saved at once unless late. */
static inline void host_ask(struct host *h, uint32_t cpu, bool late)
{
    struct rbc_vcpu *cur = h->cpus[cpu].cur;

    host_saved(h, cpu);
    h->kicked[cpu] = false;
    h->next[cpu] =
        rbc_schedule(&h->rbc, cpu, cur != NULL && h->wants[cur - h->vcpus], false, h->now);
    if (h->next[cpu].v != NULL && h->at[h->next[cpu].v - h->vcpus] != cpu)
        host_wrong(h, "a vCPU runs where it does not belong");
    if (cur != NULL && cur != h->next[cpu].v)
        h->old[cpu] = cur;
    if (!late)
        host_saved(h, cpu);
}

/* Until nobody is kicked and all is saved. */
static inline void host_settle(struct host *h)
{
    for (unsigned round = 0; round < 10000; round++) {
        bool quiet = true;
        for (uint32_t cpu = 0; cpu < HOST_CPUS; cpu++) {
            if (h->rbc.cpus[cpu] == NULL)
                continue;
            quiet = quiet && !h->kicked[cpu] && h->old[cpu] == NULL;
            host_saved(h, cpu);
            if (h->kicked[cpu])
                host_ask(h, cpu, false);
        }
        if (quiet)
            return;
    }
    host_wrong(h, "it never comes to rest");
}

/* Time passes: ticks, accountings and ends of slices where they belong; kicks are served at once.
 */
static inline void host_run(struct host *h, int64_t until)
{
    int64_t ends[HOST_CPUS];

    for (uint32_t cpu = 0; cpu < HOST_CPUS; cpu++)
        ends[cpu] = h->next[cpu].v ? h->now + h->next[cpu].slice_ns : INT64_MAX;
    while (h->now < until && h->why == NULL) {
        int64_t tick = h->now - h->now % (10 * MS) + 10 * MS, then = tick < until ? tick : until;
        for (uint32_t cpu = 0; cpu < HOST_CPUS; cpu++)
            then = ends[cpu] < then ? ends[cpu] : then;
        h->now = then;
        if (then % (30 * MS) == 0)
            rbc_account(&h->rbc, then);
        for (uint32_t cpu = 0; cpu < HOST_CPUS && then == tick; cpu++)
            if (h->rbc.cpus[cpu] != NULL)
                rbc_tick(&h->rbc, cpu, then);
        for (uint32_t cpu = 0; cpu < HOST_CPUS; cpu++)
            if (h->rbc.cpus[cpu] != NULL && (h->kicked[cpu] || ends[cpu] <= then)) {
                host_ask(h, cpu, false);
                ends[cpu] = h->next[cpu].v ? then + h->next[cpu].slice_ns : INT64_MAX;
            }
        host_wrong(h, rbc_check(&h->rbc));
    }
}

/* What must hold when all is at rest: no processor idles beside work that it may do; a runnable
 * real-time vCPU shares no processor while one without exists that it may use; none waits behind an
 * ordinary one (unless the guard says so). */
static inline const char *host_rested(const struct host *h)
{
    for (uint32_t n = 0; n < HOST_VCPUS; n++) {
        const struct rbc_vcpu *v = &h->vcpus[n];
        struct rbc_mask may = rbc_mask_and(&v->affinity, &h->rbc.online);
        struct rbc_mask idle = rbc_mask_and(&may, &h->rbc.idle);
        struct rbc_mask free = rbc_mask_and(&may, &h->rbc.rt_free);
        if (!h->there[n])
            continue;
        if (h->wants[n] != (v->state != RBC_BLOCKED))
            return "a vCPU that wants to run cannot, or one that does not can";
        if (v->state == RBC_LEAVING || v->dest != RBC_NONE || v->unsaved)
            return "a vCPU is still under way";
        if (v->state == RBC_QUEUED && !rbc_mask_empty(&idle))
            return "a processor idles beside work that it may do";
        if (!v->rt || v->state == RBC_BLOCKED)
            continue;
        if (h->rbc.set.policy == RBC_R_B_CREDIT && h->rbc.cpus[v->cpu]->rt >= 2 &&
            !rbc_mask_empty(&free))
            return "a real-time vCPU shares a processor without need";
        const struct rbc_cpu *c = h->rbc.cpus[v->cpu];
        if (v->state == RBC_QUEUED && !c->cur->rt && c->guard_used == 0 &&
            h->now - c->guard_from < h->rbc.set.period_ns)
            return "a real-time vCPU waits behind an ordinary one";
    }
    return NULL;
}

/* ---- any sequence of what can happen */

/* A number below n, from wherever. */
struct host_source {
    uint32_t (*below)(void *arg, uint32_t n);
    void *arg;
};

static inline uint32_t host_below(const struct host_source *from, uint32_t n)
{
    return from->below(from->arg, n);
}

static inline struct rbc_mask host_some(const struct host_source *from)
{
    struct rbc_mask m = rbc_mask_of(host_below(from, HOST_CPUS));

    m.w[0] |= host_below(from, 4) == 0 ? ~UINT64_C(0) : host_below(from, 1u << HOST_CPUS);
    return m;
}

static inline void host_remove(struct host *h, uint32_t vcpu)
{
    if (rbc_vcpu_remove(&h->rbc, &h->vcpus[vcpu]) == 0)
        h->there[vcpu] = h->wants[vcpu] = false;
}

static inline void host_change(struct host *h, const struct host_source *from, uint32_t vcpu,
                               uint32_t cpu)
{
    struct rbc_domain *d = &h->domains[host_below(from, HOST_DOMAINS)];
    struct rbc_settings set = h->rbc.set;
    struct rbc_mask some = host_some(from);

    switch (host_below(from, 8)) {
    case 0:
        rbc_domain_rt(&h->rbc, d, host_below(from, 2) != 0, h->now);
        break;
    case 1:
        rbc_domain_share(&h->rbc, d, 1 + host_below(from, 1024), host_below(from, 3) * 40);
        break;
    case 2:
        if (h->there[vcpu])
            rbc_vcpu_affinity(&h->rbc, &h->vcpus[vcpu], &some, h->now);
        break;
    case 3:
        if (h->there[vcpu])
            host_remove(h, vcpu);
        break;
    case 4:
        if (!h->there[vcpu])
            host_add(h, vcpu, host_below(from, HOST_DOMAINS), &some, cpu);
        break;
    case 5:
        if (h->rbc.cpus[cpu] == NULL && rbc_cpu_add(&h->rbc, &h->cpus[cpu], cpu, h->now) == 0)
            break;
        if (h->old[cpu] == NULL && h->rbc.cpus_n > 1 && rbc_cpu_remove(&h->rbc, cpu, h->now) == 0)
            h->kicked[cpu] = false;
        break;
    case 6:
        if (h->there[vcpu] && rbc_vcpu_place(&h->rbc, &h->vcpus[vcpu], cpu) == 0)
            h->at[vcpu] = cpu;
        break;
    default:
        set.policy = (enum rbc_policy)host_below(from, 3);
        set.guard_alone = host_below(from, 2) ? 1000 : 500;
        rbc_configure(&h->rbc, &set, h->now);
    }
}

static inline void host_step(struct host *h, const struct host_source *from)
{
    uint32_t what = host_below(from, 16), vcpu = host_below(from, HOST_VCPUS);
    uint32_t cpu = host_below(from, HOST_CPUS);

    h->now += (int64_t)host_below(from, 4000) * US;
    if (what < 5 && h->there[vcpu])
        host_wake(h, vcpu);
    else if (what < 8 && h->there[vcpu])
        host_sleep(h, vcpu);
    else if (what == 8 && h->there[vcpu])
        rbc_yield(&h->vcpus[vcpu]);
    else if (what < 12 && h->rbc.cpus[cpu] != NULL)
        host_ask(h, cpu, what == 11);
    else if (what == 12 && h->rbc.cpus[cpu] != NULL)
        rbc_tick(&h->rbc, cpu, h->now);
    else if (what == 13)
        rbc_account(&h->rbc, h->now);
    else if (what == 14)
        host_change(h, from, vcpu, cpu);
    else if (what == 15) {
        host_settle(h);
        host_wrong(h, host_rested(h));
    }
    host_wrong(h, rbc_check(&h->rbc));
}

#endif
