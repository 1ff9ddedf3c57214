/* SPDX-License-Identifier: GPL-2.0-only */
/* R_B_Credit in Xen: what it is told (command line, xl), and what it tells (xl debug-keys r). */
#include <xen/init.h>
#include <xen/inttypes.h>
#include <xen/param.h>

#include "rbcredit.h"

/* Marks by way of Credit's weight (README.md): libxl lets 1 to 65535 pass. */
#define WEIGHT_RT       65535 /* real-time from now on; weight and cap are kept for later */
#define WEIGHT_ORDINARY 65534 /* ordinary again, with the weight that it had */
#define WEIGHT_LARGEST  65533
#define CAP_AS_IT_IS    0xffff /* of struct xen_domctl_sched_credit */

/* ---- parameters of the command line */

static enum rbc_policy __read_mostly policy = RBC_R_B_CREDIT;
static const char *const policies[] = {"credit", "rcredit", "rbcredit"};

static int __init parse_policy(const char *s)
{
    for (unsigned n = 0; n < ARRAY_SIZE(policies); n++)
        if (strcmp(s, policies[n]) == 0) {
            policy = n;
            return 0;
        }
    return -EINVAL;
}
custom_param("rbcredit_policy", parse_policy);

/* Thousandths; microseconds. 0: the core's own default. */
static unsigned int __read_mostly guard_alone, guard_shared, rt_slice_us;
integer_param("rbcredit_guard_alone", guard_alone);
integer_param("rbcredit_guard_shared", guard_shared);
integer_param("rbcredit_rt_slice_us", rt_slice_us);

const char *rb_policy_name(enum rbc_policy p)
{
    return policies[p];
}

struct rbc_settings rb_settings(void)
{
    struct rbc_settings set = rbc_defaults(policy);

    set.ratelimit_ns = MICROSECS(min(max(sched_ratelimit_us, 0), 30000));
    if (guard_alone != 0)
        set.guard_alone = min(guard_alone, 1000U);
    if (guard_shared != 0)
        set.guard_shared = min(guard_shared, 1000U);
    if (rt_slice_us != 0)
        set.rt_slice_ns = MICROSECS(min(max(rt_slice_us, 100U), 1000000U));
    return set;
}

/* ---- parameters */

static int put_share(struct rb_pool *p, struct rb_domain *d, uint32_t weight, uint32_t cap)
{
    bool rt = d->d.rt;
    int rc;

    if (cap == CAP_AS_IT_IS)
        cap = d->d.cap;
    if (weight == WEIGHT_RT)
        rt = true;
    else if (weight != 0)
        rt = false;
    if (weight == 0 || weight > WEIGHT_LARGEST)
        weight = d->d.weight;
    rc = rbc_domain_share(&p->rbc, &d->d, weight, cap);
    if (rc != 0 || rt == d->d.rt)
        return rc;
    rbc_domain_rt(&p->rbc, &d->d, rt, NOW());
    TRACE_2D(EVENT_MARKED, d->domain->domain_id, rt);
    return 0;
}

int rb_adjust(const struct scheduler *ops, struct domain *domain,
              struct xen_domctl_scheduler_op *op)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_domain *d = domain->sched_priv;
    unsigned long flags;
    int rc = 0;

    spin_lock_irqsave(&p->lock, flags);
    rb_heed_pool(p, NOW());
    switch (op->cmd) {
    case XEN_DOMCTL_SCHEDOP_getinfo:
        op->u.credit.weight = d->d.rt ? WEIGHT_RT : d->d.weight;
        op->u.credit.cap = d->d.cap;
        break;
    case XEN_DOMCTL_SCHEDOP_putinfo:
        rc = put_share(p, d, op->u.credit.weight, op->u.credit.cap);
        break;
    default:
        rc = -EINVAL;
    }
    spin_unlock_irqrestore(&p->lock, flags);
    return rc;
}

static int put_settings(struct rb_pool *p, const struct xen_sysctl_credit_schedule *in)
{
    struct rbc_settings set = p->rbc.set;

    if (in->tslice_ms < XEN_SYSCTL_CSCHED_TSLICE_MIN ||
        in->tslice_ms > XEN_SYSCTL_CSCHED_TSLICE_MAX ||
        in->ratelimit_us > XEN_SYSCTL_SCHED_RATELIMIT_MAX ||
        (in->ratelimit_us != 0 && in->ratelimit_us < XEN_SYSCTL_SCHED_RATELIMIT_MIN) ||
        in->vcpu_migr_delay_us > XEN_SYSCTL_CSCHED_MGR_DLY_MAX_US)
        return -EINVAL;
    set.period_ns = MILLISECS(in->tslice_ms);
    set.tick_ns = set.period_ns / 3; /* as in Credit */
    set.ratelimit_ns = MICROSECS(in->ratelimit_us);
    set.hot_ns = MICROSECS(in->vcpu_migr_delay_us);
    return rbc_configure(&p->rbc, &set, NOW());
}

int rb_adjust_global(const struct scheduler *ops, struct xen_sysctl_scheduler_op *op)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct xen_sysctl_credit_schedule *io = &op->u.sched_credit;
    unsigned long flags;
    int rc = 0;

    spin_lock_irqsave(&p->lock, flags);
    if (op->cmd == XEN_SYSCTL_SCHEDOP_putinfo)
        rc = put_settings(p, io);
    else if (op->cmd != XEN_SYSCTL_SCHEDOP_getinfo)
        rc = -EINVAL;
    if (rc == 0) {
        io->tslice_ms = p->rbc.set.period_ns / MILLISECS(1);
        io->ratelimit_us = p->rbc.set.ratelimit_ns / MICROSECS(1);
        io->vcpu_migr_delay_us = p->rbc.set.hot_ns / MICROSECS(1);
    }
    spin_unlock_irqrestore(&p->lock, flags);
    return rc;
}

/* ---- xl debug-keys r */

static void dump_vcpu(const struct rbc_vcpu *v)
{
    static const char *const states[] = {"blocked", "queued", "running", "leaving", "parked"};
    static const char *const classes[] = {"rt", "boost", "under", "over", "idle"};
    const struct rb_unit *u = v->owner;

    printk("    d%dv%u %s %s cpu %u credit %d used %" PRId64 " us, wakes %" PRIu64 " moves %" PRIu64
           " steals %" PRIu64 " rt_moves %" PRIu64 " rt_met %" PRIu64 "\n",
           u->unit->domain->domain_id, u->unit->unit_id, states[v->state], classes[v->cls], v->cpu,
           v->credit, v->used_ns / 1000, v->counts.wakes, v->counts.moves, v->counts.steals,
           v->counts.rt_moves, v->counts.rt_met);
}

void rb_dump_settings(const struct scheduler *ops)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rbc_link *d, *at;
    const char *wrong;
    unsigned long flags;

    spin_lock_irqsave(&p->lock, flags);
    printk("R_B_Credit: policy %s, %u processors, period %" PRId64 " us, real-time slice %" PRId64
           " us, rate limit %" PRId64 " us, guard %u / %u\n",
           policies[p->rbc.set.policy], p->rbc.cpus_n, p->rbc.set.period_ns / 1000,
           p->rbc.set.rt_slice_ns / 1000, p->rbc.set.ratelimit_ns / 1000, p->rbc.set.guard_alone,
           p->rbc.set.guard_shared);
    printk("  wakes %" PRIu64 " boosts %" PRIu64 " preempted %" PRIu64 " steals %" PRIu64
           " moves %" PRIu64 " rt_moves %" PRIu64 " rt_met %" PRIu64 "\n",
           p->rbc.counts.wakes, p->rbc.counts.boosts, p->rbc.counts.preempted, p->rbc.counts.steals,
           p->rbc.counts.moves, p->rbc.counts.rt_moves, p->rbc.counts.rt_met);
    for (d = p->rbc.domains.next; d != &p->rbc.domains; d = d->next) {
        const struct rbc_domain *domain = container_of(d, struct rbc_domain, link);
        printk("  domain weight %u cap %u%s\n", domain->weight, domain->cap,
               domain->rt ? " real-time" : "");
        for (at = domain->vcpus.next; at != &domain->vcpus; at = at->next)
            dump_vcpu(container_of(at, struct rbc_vcpu, domain_link));
    }
    wrong = rbc_check(&p->rbc);
    printk("  invariants: %s\n", wrong != NULL ? wrong : "kept");
    spin_unlock_irqrestore(&p->lock, flags);
}

void rb_dump_cpu_state(const struct scheduler *ops, int cpu)
{
    struct rb_pool *p = rb_pool_of(ops);
    const struct rbc_cpu *c;
    unsigned long flags;

    spin_lock_irqsave(&p->lock, flags);
    c = p->rbc.cpus[cpu];
    if (c != NULL) {
        printk("  queued %u, real-time %u of %u, decisions %" PRIu64 " (idle %" PRIu64 ")\n",
               c->queued, c->rt, c->rt_homes, c->schedules, c->idles);
        if (c->cur != NULL)
            dump_vcpu(c->cur);
    }
    spin_unlock_irqrestore(&p->lock, flags);
}
