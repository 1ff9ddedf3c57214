/* What a processor does next. */
#include "rbc_private.h"

/* Shorter timers cost more than they bring; the least rate limit that Xen allows. */
#define LEAST_SLICE_NS INT64_C(100000)
#define CREDIT_NS      (INT64_C(1000000)) /* of residual: a credit is 1 ms / RBC_CREDITS_PER_MS */

/* ---- paying */

static void guard_roll(const struct rbc *s, struct rbc_cpu *c, int64_t now)
{
    if (now - c->guard_from < s->set.period_ns)
        return;
    c->guard_from = now - now % s->set.period_ns;
    c->guard_used = 0;
}

/* Uses more than a little: it pays and earns, and is not boosted. */
static void notice(struct rbc *s, struct rbc_vcpu *v)
{
    if (v->state == RBC_RUNNING && v->cls == RBC_BOOST)
        v->cls = RBC_UNDER;
    if (!v->active)
        rbc_activate(s, v);
    v->unseen = 0;
}

static void noticed(struct rbc *s, struct rbc_vcpu *v, int64_t ran)
{
    if (v->active || s->set.policy == RBC_CREDIT)
        return;
    v->unseen += ran;
    if (v->unseen >= s->set.tick_ns)
        notice(s, v);
}

void rbc_charge(struct rbc *s, struct rbc_cpu *c, struct rbc_vcpu *v, int64_t now)
{
    int64_t ran = now - v->from;
    int64_t *residual = v->rt ? &s->rt_residual : &v->residual;

    guard_roll(s, c, now);
    if (ran <= 0)
        return;
    v->from = now;
    v->used_ns += ran;
    *residual += ran * RBC_CREDITS_PER_MS;
    int64_t credits = *residual / CREDIT_NS;
    *residual %= CREDIT_NS;
    if (v->rt) {
        int64_t within = now - c->guard_from;
        c->guard_used += ran < within ? ran : within;
        s->rt_spent += credits;
    } else {
        v->credit -= (int32_t)credits;
        s->ledger.spent += credits;
        noticed(s, v, ran);
    }
}

/* ---- guard */

static int64_t guard_limit(const struct rbc *s, const struct rbc_cpu *c)
{
    uint32_t share = c->rt >= 2 ? s->set.guard_shared : s->set.guard_alone;

    return share >= 1000 ? INT64_MAX : s->set.period_ns * share / 1000;
}

bool rbc_guarded(const struct rbc *s, const struct rbc_cpu *c)
{
    return c->guard_used >= guard_limit(s, c);
}

static enum rbc_class best_ordinary(const struct rbc_cpu *c)
{
    unsigned cls = RBC_BOOST;

    while (cls < RBC_CLASSES && rbc_list_empty(&c->queue[cls]))
        cls++;
    return (enum rbc_class)cls;
}

/* The class to serve. */
static enum rbc_class best(const struct rbc *s, const struct rbc_cpu *c)
{
    enum rbc_class ordinary = best_ordinary(c);

    if (rbc_list_empty(&c->queue[RBC_RT]) || (ordinary != RBC_IDLE && rbc_guarded(s, c)))
        return ordinary;
    return RBC_RT;
}

/* ---- the decision */

/* The current vCPU may not be disturbed yet. */
static bool rate_limited(const struct rbc *s, const struct rbc_cpu *c, int64_t now)
{
    const struct rbc_vcpu *v = c->cur;

    if (v->yielded || v->parked || v->dest != RBC_NONE || now - v->since >= s->set.ratelimit_ns)
        return false;
    /* Nothing holds real-time vCPUs back, but the guard. */
    if (v->rt)
        return best_ordinary(c) == RBC_IDLE || !rbc_guarded(s, c);
    return best(s, c) != RBC_RT;
}

/* Off the processor, to where its state belongs. */
static void put_off(struct rbc *s, struct rbc_cpu *c, struct rbc_vcpu *v, bool runnable,
                    int64_t now)
{
    c->cur = NULL;
    v->unsaved = true;
    if (runnable && !v->parked) {
        v->counts.preempted++;
        s->counts.preempted++;
    }
    if (runnable && !v->parked && v->dest == RBC_NONE) {
        v->rest = v->rt || best(s, c) != RBC_RT ? 0 : v->slice - (now - v->turn);
        if (v->rest >= LEAST_SLICE_NS)
            rbc_enqueue_first(s, v);
        else
            rbc_enqueue(s, v);
        return;
    }
    v->rest = 0;
    rbc_uncount(s, v);
    v->state = !runnable ? RBC_BLOCKED : v->parked ? RBC_PARKED : RBC_LEAVING;
    if (v->state != RBC_LEAVING)
        v->dest = RBC_NONE;
    rbc_count(s, v);
}

/* The first of a class or of the next ones, other than v. */
static struct rbc_vcpu *passing(const struct rbc_cpu *c, enum rbc_class cls,
                                const struct rbc_vcpu *v)
{
    for (unsigned n = cls; n < RBC_CLASSES; n++)
        for (struct rbc_link *at = c->queue[n].next; at != &c->queue[n]; at = at->next)
            if (RBC_QUEUED_VCPU(at) != v)
                return RBC_QUEUED_VCPU(at);
    return NULL;
}

/* old: that was put off just now, may be NULL. */
static struct rbc_vcpu *choose(struct rbc *s, struct rbc_cpu *c, const struct rbc_vcpu *old,
                               int64_t now, bool *moved)
{
    enum rbc_class cls = best(s, c);
    struct rbc_vcpu *v = NULL;

    *moved = false;
    if (cls == RBC_OVER || cls == RBC_IDLE)
        v = rbc_steal(s, c, cls, now);
    if (v != NULL) {
        *moved = true;
        return v;
    }
    if (cls == RBC_IDLE)
        return NULL;
    v = RBC_QUEUED_VCPU(c->queue[cls].next);
    if (v == old && v->yielded) {
        struct rbc_vcpu *other = passing(c, cls, v);
        if (other != NULL)
            v = other;
    }
    return v;
}

/* No longer than the guard leaves it. */
static int64_t guarded_slice(const struct rbc *s, const struct rbc_cpu *c, const struct rbc_vcpu *v,
                             int64_t slice, int64_t now)
{
    int64_t left = slice;

    if (v->rt && best_ordinary(c) != RBC_IDLE && guard_limit(s, c) != INT64_MAX)
        left = guard_limit(s, c) - c->guard_used;
    else if (!v->rt && !rbc_list_empty(&c->queue[RBC_RT])) /* which the guard holds back */
        left = c->guard_from + s->set.period_ns - now;
    slice = left < slice ? left : slice;
    return slice > LEAST_SLICE_NS ? slice : LEAST_SLICE_NS;
}

static int64_t slice_of(const struct rbc *s, const struct rbc_cpu *c, const struct rbc_vcpu *v,
                        int64_t now)
{
    int64_t slice = v->rt ? s->set.rt_slice_ns : s->set.period_ns;

    if (v->rest >= LEAST_SLICE_NS && v->rest < slice)
        slice = v->rest;
    return guarded_slice(s, c, v, slice, now);
}

/* The processor was idle, and more than one vCPU came to it before it asked: those that stay may
 * find another idle one. */
static void share_out(struct rbc *s, struct rbc_cpu *c)
{
    for (unsigned cls = RBC_RT; cls < RBC_CLASSES; cls++)
        for (struct rbc_link *at = c->queue[cls].next, *then; at != &c->queue[cls]; at = then) {
            then = at->next;
            if (rbc_mask_empty(&s->idle))
                return;
            rbc_dispatch(s, RBC_QUEUED_VCPU(at));
        }
}

static void start(struct rbc *s, struct rbc_cpu *c, struct rbc_vcpu *v, const struct rbc_vcpu *old,
                  int64_t now)
{
    rbc_dequeue(s, v, RBC_RUNNING);
    v->from = now;
    if (v == old) {
        v->unsaved = false;
        v->counts.preempted--; /* it was not, after all */
        s->counts.preempted--;
    } else {
        v->since = now;
    }
    c->cur = v;
    rbc_mask_clear(&s->idle, c->id);
}

struct rbc_next rbc_schedule(struct rbc *s, uint32_t cpu, bool runnable, bool tasklet, int64_t now)
{
    struct rbc_cpu *c = s->cpus[cpu];
    struct rbc_vcpu *old = c->cur;
    struct rbc_next next = {NULL, -1, false};

    c->schedules++;
    rbc_mask_clear(&s->missed, cpu);
    c->kicked = true; /* by what is done below: it is here already */
    c->tasklet = tasklet;
    guard_roll(s, c, now);
    if (old != NULL) {
        rbc_charge(s, c, old, now);
        old->last_ran = now;
        if (runnable && !tasklet && rate_limited(s, c, now)) {
            int64_t left = s->set.ratelimit_ns - (now - old->since);
            next.v = old;
            next.slice_ns = guarded_slice(s, c, old, left, now);
            goto out;
        }
        put_off(s, c, old, runnable, now);
        if (old->rt)
            rbc_spread(s);
    }
    next.v = tasklet ? NULL : choose(s, c, old, now, &next.moved);
    if (next.v != NULL) {
        start(s, c, next.v, old, now);
        next.v->slice = next.slice_ns = slice_of(s, c, next.v, now);
        next.v->turn = now;
        next.v->rest = 0;
        if (old == NULL)
            share_out(s, c);
    } else {
        c->idles++;
        rbc_mask_put(&s->idle, cpu, !tasklet && rbc_mask_has(&s->online, cpu));
    }
    if (old != NULL)
        old->yielded = false;
out:
    c->kicked = false;
    return next;
}

/* A processor wanted to steal v when it could not yet: it shall ask once more. Without this,
 * processors whose slices end at one moment never steal from each other. */
static void offer(struct rbc *s, const struct rbc_vcpu *v)
{
    struct rbc_mask may = rbc_mask_and(&s->missed, &v->affinity);

    may = rbc_mask_and(&may, &s->online);
    uint32_t cpu = rbc_mask_next(&may, v->cpu);
    if (cpu == RBC_NONE || cpu == v->cpu)
        return;
    rbc_mask_clear(&s->missed, cpu);
    rbc_kick(s, cpu);
}

void rbc_saved(struct rbc *s, struct rbc_vcpu *v, int64_t now)
{
    (void)now;
    v->unsaved = false;
    if (v->state == RBC_LEAVING) {
        if (rbc_mask_has(&v->affinity, v->dest) && rbc_mask_has(&s->online, v->dest)) {
            rbc_move(s, v, v->dest);
            rbc_enqueue(s, v);
            rbc_dispatch(s, v);
        } else {
            rbc_uncount(s, v);
            v->dest = RBC_NONE;
            v->state = RBC_BLOCKED;
            rbc_count(s, v);
            rbc_ready(s, v);
        }
    } else if (v->state == RBC_QUEUED) {
        rbc_dispatch(s, v); /* where it is queued it may not be best */
        offer(s, v);
    }
    if (v->rt)
        rbc_spread(s);
}

/* ---- tick */

void rbc_tick(struct rbc *s, uint32_t cpu, int64_t now)
{
    struct rbc_cpu *c = s->cpus[cpu];
    struct rbc_vcpu *v = c->cur;

    if (v == NULL)
        return;
    rbc_charge(s, c, v, now);
    if (v->rt) {
        if (best_ordinary(c) != RBC_IDLE && rbc_guarded(s, c))
            rbc_kick(s, cpu);
    } else {
        notice(s, v);
        if (best(s, c) == RBC_RT)
            rbc_kick(s, cpu); /* the guard holds it back no longer */
    }
    rbc_spread(s);
}
