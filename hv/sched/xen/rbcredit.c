/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * R_B_Credit in Xen 4.17: the hypervisor's side of the core (rbc.h). All decisions are made there;
 * here are locks, timers, and the translation of units, masks and parameters. README.md beside this
 * file says how it is built, booted and steered.
 *
 * It has Xen's number for Credit (and is built instead of it), since libxl knows a closed list of
 * schedulers; what libxl sends to Credit arrives here.
 *
 * LOCKS  One per pool, pool->lock: it is the schedule lock of all processors of the pool, and
 * guards the core with all that is in it. Order, outermost first:
 *
 *   cpupool_lock, domctl_lock, sysctl_lock (the callers')
 *     sched_free_cpu_lock              (only around switch_sched)
 *       pool->lock                     always with interrupts off
 *         locks of timers and of the trace buffer
 *
 * Two pools' locks are never held together by this file. Hooks that Xen calls with the schedule
 * lock held: do_schedule, wake, sleep, yield, context_saved (without), migrate, pick_resource,
 * adjust_affinity. The others take it themselves.
 *
 * WHO IS WHERE  unit->res follows the core's v->cpu, always under the lock: by moved() when the
 * core moves a vCPU, by migrate() when Xen does. Units are known to the core from insert_unit to
 * remove_unit (unit->in).
 *
 * PROCESSORS THAT LEAVE  Xen first takes a processor out of the pool's mask, then moves away what
 * is on it, then takes it from the scheduler. The core only hears of the last step. So each hook
 * compares the mask with the one it saw last (rb_heed_pool), and what the core has as a vCPU's
 * affinity is always its hard affinity within that mask.
 */
#include <xen/cpu.h>
#include <xen/domain.h>
#include <xen/init.h>
#include <xen/inttypes.h>
#include <xen/softirq.h>

#include "rbcredit.h"

/* ---- between Xen and the core */

static struct rb_unit *unit_of(const struct sched_unit *unit)
{
    return unit->priv;
}

static uint32_t who(const struct sched_unit *unit)
{
    return ((uint32_t)unit->domain->domain_id << 16) | unit->unit_id;
}

static struct rbc_mask mask_of(const cpumask_t *cpus)
{
    struct rbc_mask m = {};
    unsigned int cpu;

    for_each_cpu(cpu, cpus) rbc_mask_set(&m, cpu);
    return m;
}

/* What it may use: never nothing. Xen breaks affinities that leave nothing, but later. */
static struct rbc_mask usable(const struct rb_pool *p, const cpumask_t *hard)
{
    struct rbc_mask all = mask_of(&p->valid), m = mask_of(hard), both = rbc_mask_and(&all, &m);
    struct rbc_mask can = rbc_mask_and(&both, &p->rbc.online);

    if (!rbc_mask_empty(&can))
        return both;
    can = rbc_mask_and(&m, &p->rbc.online);
    return rbc_mask_empty(&can) ? rbc_mask_all() : m;
}

static void kick(void *arg, uint32_t cpu)
{
    cpu_raise_softirq(cpu, SCHEDULE_SOFTIRQ);
}

static void moved(void *arg, struct rbc_vcpu *v, uint32_t from, uint32_t to)
{
    struct rb_unit *u = v->owner;

    u->moved = true;
    sched_set_res(u->unit, get_sched_res(to));
    TRACE_4D(EVENT_MOVED, who(u->unit), from, to, v->rt);
}

static const struct rbc_ops rbc_ops = {.kick = kick, .moved = moved};

void rb_heed_pool(struct rb_pool *p, s_time_t now)
{
    const struct cpupool *pool = p->ops->cpupool;
    struct rbc_link *d, *at;

    if (pool == NULL || cpumask_equal(&p->valid, pool->res_valid))
        return;
    cpumask_copy(&p->valid, pool->res_valid);
    for (d = p->rbc.domains.next; d != &p->rbc.domains; d = d->next) {
        const struct rbc_domain *domain = container_of(d, struct rbc_domain, link);
        for (at = domain->vcpus.next; at != &domain->vcpus; at = at->next) {
            struct rbc_vcpu *v = container_of(at, struct rbc_vcpu, domain_link);
            struct rb_unit *u = v->owner;
            struct rbc_mask may = usable(p, u->unit->cpu_hard_affinity);
            rbc_vcpu_affinity(&p->rbc, v, &may, now);
        }
    }
}

/* Xen clears is_running before it calls context_saved, and others may act in between. */
static void saved_meanwhile(struct rb_pool *p, struct rb_unit *u, s_time_t now)
{
    if (u->v.unsaved && !u->unit->is_running)
        rbc_saved(&p->rbc, &u->v, now);
}

/* ---- pools */

static int rb_init(struct scheduler *ops)
{
    struct rb_pool *p = xzalloc(struct rb_pool);
    struct rbc_settings set = rb_settings();

    if (p == NULL)
        return -ENOMEM;
    spin_lock_init(&p->lock);
    rbc_init(&p->rbc, &set, &rbc_ops, p);
    p->ops = ops;
    ops->sched_data = p;
    printk("R_B_Credit: policy %s, slices of %" PRId64 " us (real-time %" PRId64 ")\n",
           rb_policy_name(set.policy), set.period_ns / 1000, set.rt_slice_ns / 1000);
    return 0;
}

static void rb_deinit(struct scheduler *ops)
{
    struct rb_pool *p = rb_pool_of(ops);

    ops->sched_data = NULL;
    if (p == NULL)
        return;
    ASSERT(p->rbc.cpus_n == 0 && !p->accounting);
    xfree(p);
}

/* In debug builds: the core's invariants, once a period. */
static void check(const struct rb_pool *p)
{
#ifndef NDEBUG
    const char *wrong = rbc_check(&p->rbc);

    if (wrong != NULL) {
        printk("R_B_Credit: %s\n", wrong);
        BUG();
    }
#endif
}

static void account(void *arg)
{
    struct rb_pool *p = arg;
    s_time_t now = NOW(), period;
    unsigned long flags;

    spin_lock_irqsave(&p->lock, flags);
    rb_heed_pool(p, now);
    rbc_account(&p->rbc, now);
    check(p);
    period = p->rbc.set.period_ns;
    spin_unlock_irqrestore(&p->lock, flags);
    set_timer(&p->account, now + period);
}

/* ---- processors */

static void tick(void *arg)
{
    struct rb_cpu *c = arg;
    struct rb_pool *p = c->pool;
    s_time_t now = NOW();
    unsigned long flags;

    spin_lock_irqsave(&p->lock, flags);
    rb_heed_pool(p, now);
    rbc_tick(&p->rbc, c->c.id, now);
    if (c->ticking)
        set_timer(&c->tick, now + p->rbc.set.tick_ns - now % p->rbc.set.tick_ns);
    spin_unlock_irqrestore(&p->lock, flags);
}

/* Idle processors are left in peace. */
static void keep_ticking(struct rb_cpu *c, bool busy, s_time_t now)
{
    int64_t period = c->pool->rbc.set.tick_ns;

    if (busy == c->ticking)
        return;
    c->ticking = busy;
    if (busy)
        set_timer(&c->tick, now + period - now % period);
    else
        stop_timer(&c->tick);
}

static void *rb_alloc_pdata(const struct scheduler *ops, int cpu)
{
    struct rb_cpu *c = xzalloc(struct rb_cpu);

    if (c == NULL)
        return ERR_PTR(-ENOMEM);
    c->pool = rb_pool_of(ops);
    return c;
}

static void rb_free_pdata(const struct scheduler *ops, void *pdata, int cpu)
{
    xfree(pdata);
}

/* The lock that the processor had until now is held. */
static spinlock_t *rb_switch_sched(struct scheduler *ops, unsigned int cpu, void *pdata,
                                   void *vdata)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_cpu *c = pdata;
    s_time_t now = NOW();

    ASSERT(!local_irq_is_enabled() && pdata != NULL && vdata != NULL);
    idle_vcpu[cpu]->sched_unit->priv = vdata;
    spin_lock(&p->lock);
    init_timer(&c->tick, tick, c, cpu);
    if (!p->accounting) {
        p->accounting = true;
        init_timer(&p->account, account, p, cpu);
        set_timer(&p->account, now + p->rbc.set.period_ns);
    }
    if (rbc_cpu_add(&p->rbc, &c->c, cpu, now) != 0)
        BUG();
    spin_unlock(&p->lock);
    return &p->lock;
}

/* What is left on the last processor of a pool belongs to domains that are gone, and only not freed
 * yet: Xen does not move those. */
static void forget_dead(struct rb_pool *p, uint32_t cpu)
{
    struct rbc_link *d;
    struct rbc_link *at, *next;

    for (d = p->rbc.domains.next; d != &p->rbc.domains; d = d->next) {
        struct rbc_domain *domain = container_of(d, struct rbc_domain, link);
        for (at = domain->vcpus.next; at != &domain->vcpus; at = next) {
            struct rbc_vcpu *v = container_of(at, struct rbc_vcpu, domain_link);
            struct rb_unit *u = v->owner;
            next = at->next;
            if (v->cpu == cpu && u->unit->domain->is_dying && rbc_vcpu_remove(&p->rbc, v) == 0)
                u->in = false;
        }
    }
}

/* Xen has switched the processor to another scheduler, and moved everything away from it. */
static void rb_deinit_pdata(const struct scheduler *ops, void *pdata, int cpu)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_cpu *c = pdata;
    bool last;
    unsigned long flags;

    spin_lock_irqsave(&p->lock, flags);
    rb_heed_pool(p, NOW());
    c->ticking = false;
    spin_unlock_irqrestore(&p->lock, flags);
    kill_timer(&c->tick);

    spin_lock_irqsave(&p->lock, flags);
    if (rbc_cpu_remove(&p->rbc, cpu, NOW()) != 0) {
        forget_dead(p, cpu);
        if (rbc_cpu_remove(&p->rbc, cpu, NOW()) != 0)
            BUG();
    }
    last = p->rbc.cpus_n == 0;
    if (!last)
        migrate_timer(&p->account, rbc_mask_next(&p->rbc.online, cpu));
    spin_unlock_irqrestore(&p->lock, flags);
    if (last) {
        kill_timer(&p->account);
        p->accounting = false;
    }
}

static void rb_move_timers(const struct scheduler *ops, struct sched_resource *sr)
{
    struct rb_cpu *c = sr->sched_priv;

    migrate_timer(&c->tick, sr->master_cpu);
    migrate_timer(&c->pool->account, sr->master_cpu);
}

/* ---- domains and units */

static void *rb_alloc_domdata(const struct scheduler *ops, struct domain *domain)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_domain *d = xzalloc(struct rb_domain);
    unsigned long flags;

    if (d == NULL)
        return ERR_PTR(-ENOMEM);
    d->domain = domain;
    spin_lock_irqsave(&p->lock, flags);
    rbc_domain_add(&p->rbc, &d->d);
    spin_unlock_irqrestore(&p->lock, flags);
    return d;
}

static void rb_free_domdata(const struct scheduler *ops, void *data)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_domain *d = data;
    unsigned long flags;

    if (d == NULL)
        return;
    spin_lock_irqsave(&p->lock, flags);
    if (rbc_domain_remove(&p->rbc, &d->d) != 0)
        BUG();
    spin_unlock_irqrestore(&p->lock, flags);
    xfree(d);
}

static void *rb_alloc_udata(const struct scheduler *ops, struct sched_unit *unit, void *domdata)
{
    struct rb_unit *u = xzalloc(struct rb_unit);

    if (u == NULL)
        return NULL;
    u->unit = unit;
    u->domain = domdata;
    return u;
}

static void rb_free_udata(const struct scheduler *ops, void *udata)
{
    xfree(udata);
}

static void rb_insert_unit(const struct scheduler *ops, struct sched_unit *unit)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_unit *u = unit_of(unit);
    s_time_t now = NOW();
    struct rbc_mask may;
    unsigned long flags;

    if (is_idle_unit(unit))
        return;
    spin_lock_irqsave(&p->lock, flags);
    ASSERT(!u->in);
    rb_heed_pool(p, now);
    may = usable(p, unit->cpu_hard_affinity);
    if (rbc_vcpu_add(&p->rbc, &u->domain->d, &u->v, &may, sched_unit_master(unit), now) != 0)
        BUG();
    u->v.owner = u;
    u->in = true;
    sched_set_res(unit, get_sched_res(u->v.cpu));
    if (unit_runnable(unit) && !unit->is_running)
        rbc_wake(&p->rbc, &u->v, now);
    spin_unlock_irqrestore(&p->lock, flags);
}

static void rb_remove_unit(const struct scheduler *ops, struct sched_unit *unit)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_unit *u = unit_of(unit);
    unsigned long flags;

    spin_lock_irqsave(&p->lock, flags);
    if (u->in) {
        saved_meanwhile(p, u, NOW());
        if (rbc_vcpu_remove(&p->rbc, &u->v) != 0)
            BUG();
        u->in = false;
    }
    spin_unlock_irqrestore(&p->lock, flags);
}

/* ---- decisions */

/* Xen also places vCPUs without asking: when the machine comes back from sleep. */
static void heed_place(struct rb_pool *p, struct rb_unit *u)
{
    if (u->v.state == RBC_BLOCKED && !u->v.unsaved && u->v.cpu != sched_unit_master(u->unit))
        rbc_vcpu_place(&p->rbc, &u->v, sched_unit_master(u->unit));
}

static void rb_wake(const struct scheduler *ops, struct sched_unit *unit)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_unit *u = unit_of(unit);
    s_time_t now = NOW();

    if (is_idle_unit(unit) || !u->in)
        return;
    rb_heed_pool(p, now);
    heed_place(p, u);
    if (u->v.state != RBC_BLOCKED)
        return;
    rbc_wake(&p->rbc, &u->v, now);
    if (u->v.rt) {
        uint32_t at = u->v.dest != RBC_NONE ? u->v.dest : u->v.cpu;
        TRACE_3D(EVENT_PLACED, who(unit), at, p->rbc.cpus[at]->rt);
    }
}

static void rb_sleep(const struct scheduler *ops, struct sched_unit *unit)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_unit *u = unit_of(unit);

    if (is_idle_unit(unit) || !u->in)
        return;
    rb_heed_pool(p, NOW());
    rbc_sleep(&p->rbc, &u->v);
}

static void rb_yield(const struct scheduler *ops, struct sched_unit *unit)
{
    struct rb_unit *u = unit_of(unit);

    if (!is_idle_unit(unit) && u->in)
        rbc_yield(&u->v);
}

static void rb_context_saved(const struct scheduler *ops, struct sched_unit *unit)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_unit *u = unit_of(unit);
    s_time_t now = NOW();
    unsigned long flags;

    if (is_idle_unit(unit))
        return;
    spin_lock_irqsave(&p->lock, flags);
    rb_heed_pool(p, now);
    if (u->in)
        saved_meanwhile(p, u, now);
    spin_unlock_irqrestore(&p->lock, flags);
}

/* The next one that can run indeed: a vCPU may have been paused and not been put to sleep yet. */
static struct rbc_next next_runnable(struct rb_pool *p, uint32_t cpu, const struct sched_unit *cur,
                                     bool runnable, bool tasklet, s_time_t now)
{
    struct rbc_next next = rbc_schedule(&p->rbc, cpu, runnable, tasklet, now);

    while (next.v != NULL) {
        struct rb_unit *u = next.v->owner;
        if (unit_runnable_state(u->unit))
            break;
        next = rbc_schedule(&p->rbc, cpu, false, tasklet, now);
        if (u->unit != cur)
            rbc_saved(&p->rbc, &u->v, now);
    }
    /* By that detour what ran may be back: then nothing is switched. */
    if (next.v != NULL && next.v->unsaved)
        rbc_saved(&p->rbc, next.v, now);
    return next;
}

static void rb_do_schedule(const struct scheduler *ops, struct sched_unit *cur, s_time_t now,
                           bool tasklet)
{
    struct rb_pool *p = rb_pool_of(ops);
    unsigned int cpu = sched_get_resource_cpu(smp_processor_id());
    struct sched_unit *to = sched_idle_unit(cpu);
    struct rbc_next next;

    rb_heed_pool(p, now);
    ASSERT((p->rbc.cpus[cpu]->cur == NULL) == is_idle_unit(cur));
    next = next_runnable(p, cpu, cur, unit_runnable_state(cur), tasklet, now);
    if (next.v != NULL) {
        struct rb_unit *u = next.v->owner;
        to = u->unit;
        ASSERT(sched_unit_master(to) == cpu);
        to->migrated = u->moved;
        u->moved = false;
        if (next.v->rt && to != cur)
            TRACE_3D(EVENT_RUNS, who(to), cpu, p->rbc.cpus[cpu]->rt);
    } else {
        to->migrated = false;
    }
    keep_ticking(get_sched_res(cpu)->sched_priv, next.v != NULL, now);
    cur->next_task = to;
    cur->next_time = next.slice_ns;
}

/* ---- placement on Xen's behalf */

static struct sched_resource *rb_pick_resource(const struct scheduler *ops,
                                               const struct sched_unit *unit)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_unit *u = unit_of(unit);
    struct rbc_mask may;
    uint32_t cpu = RBC_NONE;

    rb_heed_pool(p, NOW());
    if (u != NULL && u->in)
        cpu = rbc_vcpu_pick(&p->rbc, &u->v, NULL);
    if (cpu == RBC_NONE) {
        may = usable(p, unit->cpu_hard_affinity);
        may = rbc_mask_and(&may, &p->rbc.online);
        cpu = rbc_mask_next(&may, sched_unit_master(unit));
    }
    ASSERT(cpu != RBC_NONE);
    return get_sched_res(cpu);
}

/* It does not run, and has been put to sleep. */
static void rb_migrate(const struct scheduler *ops, struct sched_unit *unit, unsigned int cpu)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_unit *u = unit_of(unit);

    saved_meanwhile(p, u, NOW());
    if (rbc_vcpu_place(&p->rbc, &u->v, cpu) != 0)
        BUG();
    sched_set_res(unit, get_sched_res(cpu));
}

static void rb_adjust_affinity(const struct scheduler *ops, struct sched_unit *unit,
                               const cpumask_t *hard, const cpumask_t *soft)
{
    struct rb_pool *p = rb_pool_of(ops);
    struct rb_unit *u = unit_of(unit);
    struct rbc_mask may;

    if (hard == NULL || is_idle_unit(unit) || u == NULL || !u->in)
        return;
    rb_heed_pool(p, NOW());
    may = usable(p, hard);
    rbc_vcpu_affinity(&p->rbc, &u->v, &may, NOW());
}

static const struct scheduler sched_rbcredit_def = {
    .name = "R_B_Credit",
    .opt_name = "rbcredit",
    .sched_id = XEN_SCHEDULER_CREDIT,

    .init = rb_init,
    .deinit = rb_deinit,
    .alloc_udata = rb_alloc_udata,
    .free_udata = rb_free_udata,
    .alloc_pdata = rb_alloc_pdata,
    .free_pdata = rb_free_pdata,
    .deinit_pdata = rb_deinit_pdata,
    .alloc_domdata = rb_alloc_domdata,
    .free_domdata = rb_free_domdata,
    .switch_sched = rb_switch_sched,
    .insert_unit = rb_insert_unit,
    .remove_unit = rb_remove_unit,

    .sleep = rb_sleep,
    .wake = rb_wake,
    .yield = rb_yield,
    .context_saved = rb_context_saved,
    .do_schedule = rb_do_schedule,

    .pick_resource = rb_pick_resource,
    .migrate = rb_migrate,
    .adjust = rb_adjust,
    .adjust_affinity = rb_adjust_affinity,
    .adjust_global = rb_adjust_global,
    .move_timers = rb_move_timers,

    .dump_settings = rb_dump_settings,
    .dump_cpu_state = rb_dump_cpu_state,
};
REGISTER_SCHEDULER(sched_rbcredit_def);
