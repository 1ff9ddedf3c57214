/* Processors, domains and vCPUs come, change and go. */
#include "rbc_private.h"

#define MS INT64_C(1000000)

struct rbc_settings rbc_defaults(enum rbc_policy policy)
{
    return (struct rbc_settings){.policy = policy,
                                 .tick_ns = 10 * MS,
                                 .period_ns = 30 * MS,
                                 .rt_slice_ns = MS / 2,
                                 .ratelimit_ns = MS,
                                 .hot_ns = 0,
                                 .guard_alone = 1000,
                                 .guard_shared = 950};
}

static bool sensible(const struct rbc_settings *set)
{
    /* A second is more than any of them is for, and keeps credits within 32 bits. */
    return set->policy <= RBC_R_B_CREDIT && set->tick_ns > 0 && set->tick_ns <= set->period_ns &&
           set->period_ns >= MS && set->period_ns <= 1000 * MS && set->rt_slice_ns > 0 &&
           set->rt_slice_ns <= 1000 * MS && set->ratelimit_ns >= 0 &&
           set->ratelimit_ns <= set->period_ns && set->hot_ns >= 0 && set->guard_alone >= 1 &&
           set->guard_alone <= 1000 && set->guard_shared >= 1 && set->guard_shared <= 1000;
}

void rbc_init(struct rbc *s, const struct rbc_settings *set, const struct rbc_ops *ops, void *arg)
{
    RBC_ASSERT(sensible(set));
    memset(s, 0, sizeof(*s));
    s->set = *set;
    s->ops = *ops;
    s->arg = arg;
    rbc_list_init(&s->domains);
    rbc_list_init(&s->active);
}

/* ---- classes that follow marks and policy */

static void remark(struct rbc *s, struct rbc_vcpu *v, bool rt, int64_t now)
{
    if (v->rt == rt)
        return;
    if (v->state == RBC_RUNNING)
        rbc_charge(s, s->cpus[v->cpu], v, now);
    rbc_deactivate(s, v);
    rbc_drop_credit(s, v);
    rbc_uncount(s, v);
    v->rt = rt;
    v->parked = false;
    rbc_count(s, v);
    rbc_reclass(s, v, rt ? RBC_RT : RBC_UNDER);
    if (v->state == RBC_RUNNING)
        rbc_kick(s, v->cpu); /* it may not be the first any more */
    else if (v->state == RBC_QUEUED)
        rbc_dispatch(s, v);
    else if (v->state == RBC_PARKED)
        rbc_ready(s, v);
}

static void remark_domain(struct rbc *s, struct rbc_domain *d, int64_t now)
{
    bool rt = d->rt && s->set.policy != RBC_CREDIT;

    for (struct rbc_link *at = d->vcpus.next; at != &d->vcpus; at = at->next)
        remark(s, RBC_OF(at, struct rbc_vcpu, domain_link), rt, now);
}

void rbc_domain_rt(struct rbc *s, struct rbc_domain *d, bool rt, int64_t now)
{
    d->rt = rt;
    remark_domain(s, d, now);
    rbc_spread(s);
}

int rbc_configure(struct rbc *s, const struct rbc_settings *set, int64_t now)
{
    if (!sensible(set))
        return -EINVAL;
    s->set = *set;
    for (struct rbc_link *at = s->domains.next; at != &s->domains; at = at->next)
        remark_domain(s, RBC_OF(at, struct rbc_domain, link), now);
    rbc_spread(s);
    return 0;
}

/* ---- domains */

void rbc_domain_add(struct rbc *s, struct rbc_domain *d)
{
    memset(d, 0, sizeof(*d));
    rbc_list_init(&d->active_link);
    rbc_list_init(&d->vcpus);
    rbc_list_init(&d->active);
    d->weight = RBC_WEIGHT_DEFAULT;
    rbc_list_add(&d->link, s->domains.prev);
}

int rbc_domain_remove(struct rbc *s, struct rbc_domain *d)
{
    (void)s;
    if (!rbc_list_empty(&d->vcpus))
        return -EBUSY;
    rbc_list_del(&d->link);
    return 0;
}

int rbc_domain_share(struct rbc *s, struct rbc_domain *d, uint32_t weight, uint32_t cap)
{
    if (weight == 0 || weight > RBC_WEIGHT_MAX || cap > RBC_CAP_MAX)
        return -EINVAL;
    s->weight -= (uint64_t)d->weight * d->active_n;
    s->weight += (uint64_t)weight * d->active_n;
    d->weight = weight;
    d->cap = cap;
    return 0;
}

/* ---- vCPUs */

static bool usable(const struct rbc *s, const struct rbc_mask *affinity)
{
    struct rbc_mask may = rbc_mask_and(affinity, &s->online);

    return !rbc_mask_empty(&may);
}

int rbc_vcpu_add(struct rbc *s, struct rbc_domain *d, struct rbc_vcpu *v,
                 const struct rbc_mask *affinity, uint32_t near, int64_t now)
{
    if (!usable(s, affinity))
        return -EINVAL;
    memset(v, 0, sizeof(*v));
    rbc_list_init(&v->queue_link);
    rbc_list_init(&v->active_link);
    rbc_list_init(&v->domain_link);
    v->domain = d;
    v->affinity = *affinity;
    v->rt = d->rt && s->set.policy != RBC_CREDIT;
    v->cls = v->rt ? RBC_RT : RBC_UNDER;
    v->state = RBC_BLOCKED;
    v->dest = RBC_NONE;
    v->cpu = near;
    v->from = v->since = v->last_ran = now;
    v->cpu = rbc_vcpu_pick(s, v, NULL);
    rbc_list_add(&v->domain_link, d->vcpus.prev);
    rbc_count(s, v);
    return 0;
}

int rbc_vcpu_remove(struct rbc *s, struct rbc_vcpu *v)
{
    if (v->state == RBC_RUNNING || v->unsaved)
        return -EBUSY;
    rbc_sleep(s, v);
    rbc_uncount(s, v);
    rbc_deactivate(s, v);
    rbc_drop_credit(s, v);
    rbc_list_del(&v->domain_link);
    return 0;
}

int rbc_vcpu_affinity(struct rbc *s, struct rbc_vcpu *v, const struct rbc_mask *affinity,
                      int64_t now)
{
    (void)now;
    if (!usable(s, affinity))
        return -EINVAL;
    v->affinity = *affinity;
    bool here = rbc_mask_has(affinity, rbc_place(v));
    if (v->state == RBC_QUEUED) {
        if (here) {
            rbc_dispatch(s, v);
        } else {
            rbc_dequeue(s, v, RBC_BLOCKED);
            rbc_ready(s, v);
        }
    } else if (!here && (v->state == RBC_RUNNING || v->state == RBC_LEAVING)) {
        uint32_t to = rbc_vcpu_pick(s, v, NULL);
        rbc_uncount(s, v);
        v->dest = v->state == RBC_RUNNING && to == v->cpu ? RBC_NONE : to;
        rbc_count(s, v);
        if (v->state == RBC_RUNNING)
            rbc_kick(s, v->cpu);
    }
    rbc_spread(s);
    return 0;
}

int rbc_vcpu_place(struct rbc *s, struct rbc_vcpu *v, uint32_t cpu)
{
    if (cpu >= RBC_CPUS_MAX || !rbc_mask_has(&s->online, cpu))
        return -EINVAL;
    if (v->state != RBC_BLOCKED || v->unsaved)
        return -EBUSY;
    rbc_uncount(s, v);
    v->cpu = cpu;
    rbc_count(s, v);
    v->placed = true;
    return 0;
}

/* ---- processors */

int rbc_cpu_add(struct rbc *s, struct rbc_cpu *c, uint32_t id, int64_t now)
{
    if (id >= RBC_CPUS_MAX)
        return -EINVAL;
    if (s->cpus[id] != NULL)
        return -EEXIST;
    memset(c, 0, sizeof(*c));
    c->id = id;
    for (int cls = 0; cls < RBC_CLASSES; cls++)
        rbc_list_init(&c->queue[cls]);
    c->guard_from = now - now % s->set.period_ns;
    s->cpus[id] = c;
    s->cpus_n++;
    rbc_mask_set(&s->online, id);
    rbc_mask_set(&s->rt_free, id);
    rbc_mask_set(&s->rt_none, id);
    rbc_spread(s);
    rbc_kick(s, id);
    return 0;
}

/* fn for each vCPU, until one says other than 0. */
static int each_vcpu(struct rbc *s, int (*fn)(struct rbc *s, struct rbc_vcpu *v, uint32_t id),
                     uint32_t id)
{
    int rc = 0;

    for (struct rbc_link *d = s->domains.next; d != &s->domains && rc == 0; d = d->next) {
        struct rbc_link *head = &RBC_OF(d, struct rbc_domain, link)->vcpus;
        for (struct rbc_link *at = head->next; at != head && rc == 0; at = at->next)
            rc = fn(s, RBC_OF(at, struct rbc_vcpu, domain_link), id);
    }
    return rc;
}

static int must_stay(struct rbc *s, struct rbc_vcpu *v, uint32_t id)
{
    struct rbc_mask may = rbc_mask_and(&v->affinity, &s->online);

    if (v->cpu != id && v->dest != id)
        return 0;
    rbc_mask_clear(&may, id);
    return (v->cpu == id && (v->state == RBC_RUNNING || v->unsaved)) || rbc_mask_empty(&may)
               ? -EBUSY
               : 0;
}

static int send_away(struct rbc *s, struct rbc_vcpu *v, uint32_t id)
{
    if (v->dest == id) { /* it is on its way here */
        uint32_t to = rbc_vcpu_pick(s, v, NULL);
        rbc_uncount(s, v);
        v->dest = v->state == RBC_RUNNING && to == v->cpu ? RBC_NONE : to;
        rbc_count(s, v);
    } else if (v->cpu == id && v->state == RBC_QUEUED) {
        rbc_dequeue(s, v, RBC_BLOCKED);
        rbc_ready(s, v);
    } else if (v->cpu == id) {
        rbc_move(s, v, rbc_vcpu_pick(s, v, NULL));
    }
    return 0;
}

int rbc_cpu_remove(struct rbc *s, uint32_t id, int64_t now)
{
    struct rbc_cpu *c = id < RBC_CPUS_MAX ? s->cpus[id] : NULL;

    (void)now;
    if (c == NULL)
        return -EINVAL;
    if (c->cur != NULL || each_vcpu(s, must_stay, id) != 0)
        return -EBUSY;
    rbc_mask_clear(&s->online, id);
    rbc_mask_clear(&s->idle, id);
    rbc_mask_clear(&s->rt_free, id);
    rbc_mask_clear(&s->rt_none, id);
    c->kicked = true; /* nobody is to be asked there any more */
    each_vcpu(s, send_away, id);
    RBC_ASSERT(c->queued == 0 && c->rt_homes == 0);
    rbc_mask_clear(&s->rt_many, id);
    s->cpus[id] = NULL;
    s->cpus_n--;
    rbc_spread(s);
    return 0;
}
