/* Which processor: at wake, by balance, by stealing. */
#include "rbc_private.h"

static struct rbc_mask allowed(const struct rbc *s, const struct rbc_vcpu *v)
{
    return rbc_mask_and(&v->affinity, &s->online);
}

/* Of those in a and b: near itself, or the next after it. */
static uint32_t nearest(const struct rbc_mask *a, const struct rbc_mask *b, uint32_t near)
{
    struct rbc_mask both = rbc_mask_and(a, b);

    return rbc_mask_has(&both, near) ? near : rbc_mask_next(&both, near);
}

/* An idle one of the set, else any; RBC_NONE. */
static uint32_t idle_first(const struct rbc *s, const struct rbc_mask *in, uint32_t near)
{
    uint32_t cpu = nearest(in, &s->idle, near);

    return cpu != RBC_NONE ? cpu : nearest(in, in, near);
}

/* Without real-time vCPUs that run or wait, best without any that belong there; RBC_NONE. */
static uint32_t free_of_rt(const struct rbc *s, const struct rbc_mask *may, uint32_t near)
{
    struct rbc_mask none = rbc_mask_and(may, &s->rt_none);
    struct rbc_mask free = rbc_mask_and(may, &s->rt_free);
    uint32_t cpu = idle_first(s, &none, near);

    return cpu != RBC_NONE ? cpu : idle_first(s, &free, near);
}

/* The one with the fewest runnable real-time vCPUs; near, if it is one of them. */
static uint32_t least_rt(const struct rbc *s, const struct rbc_mask *may, uint32_t near)
{
    uint32_t best = rbc_mask_has(may, near) ? near : rbc_mask_next(may, near);

    if (best == RBC_NONE)
        return RBC_NONE;
    uint32_t first = best;
    for (uint32_t cpu = rbc_mask_next(may, first); cpu != first; cpu = rbc_mask_next(may, cpu))
        if (s->cpus[cpu]->rt < s->cpus[best]->rt)
            best = cpu;
    return best;
}

static uint32_t pick_rt(const struct rbc *s, const struct rbc_vcpu *v, const struct rbc_mask *may)
{
    /* It alone belongs to its processor. */
    if (rbc_mask_has(may, v->cpu) && s->cpus[v->cpu]->rt_homes == 1 && v->rt &&
        !rbc_list_empty(&v->domain_link))
        return v->cpu;
    uint32_t cpu = free_of_rt(s, may, v->cpu);
    return cpu != RBC_NONE ? cpu : least_rt(s, may, v->cpu);
}

/* As Credit: its own processor if that is idle, else an idle one, else its own, else the next. */
static uint32_t pick_ordinary(const struct rbc *s, const struct rbc_vcpu *v,
                              const struct rbc_mask *may)
{
    return idle_first(s, may, v->cpu);
}

uint32_t rbc_vcpu_pick(const struct rbc *s, const struct rbc_vcpu *v, const struct rbc_mask *also)
{
    struct rbc_mask may = allowed(s, v);

    if (also != NULL)
        may = rbc_mask_and(&may, also);
    return v->rt && rbc_balanced(s) ? pick_rt(s, v, &may) : pick_ordinary(s, v, &may);
}

/* ---- wake */

/* What a vCPU of the class is worth on this processor: less is better. */
static unsigned rank(const struct rbc *s, const struct rbc_cpu *c, uint8_t cls)
{
    return cls == RBC_RT && rbc_guarded(s, c) ? RBC_IDLE : cls;
}

static bool preempts(const struct rbc *s, const struct rbc_cpu *c, const struct rbc_vcpu *v)
{
    return rank(s, c, v->cls) < rank(s, c, c->cur->cls);
}

void rbc_dispatch(struct rbc *s, struct rbc_vcpu *v)
{
    struct rbc_cpu *c = s->cpus[v->cpu];
    struct rbc_mask idle = rbc_mask_and(&s->idle, &v->affinity);

    RBC_ASSERT(v->state == RBC_QUEUED);
    if (rbc_mask_has(&idle, v->cpu)) {
        rbc_kick(s, v->cpu);
        return;
    }
    /* A balanced real-time vCPU is where it should be, if it can have its processor. */
    if (v->rt && rbc_balanced(s)) {
        idle = rbc_mask_and(&idle, &s->rt_free);
        if (!rbc_guarded(s, c))
            memset(&idle, 0, sizeof(idle));
    }
    if (!v->unsaved && !rbc_mask_empty(&idle)) {
        s->idle_last = rbc_mask_next(&idle, s->idle_last);
        rbc_move(s, v, s->idle_last);
        rbc_kick(s, v->cpu);
    } else if (c->cur == NULL ? !c->tasklet : preempts(s, c, v)) {
        rbc_kick(s, v->cpu);
    }
}

/* Where a vCPU that can run again goes. */
static uint32_t target(const struct rbc *s, const struct rbc_vcpu *v)
{
    struct rbc_mask may = allowed(s, v);

    if (!v->rt || !rbc_balanced(s))
        return rbc_mask_has(&may, v->cpu) ? v->cpu : pick_ordinary(s, v, &may);
    if (rbc_mask_has(&may, v->cpu) && rbc_mask_has(&s->rt_free, v->cpu))
        return v->cpu;
    uint32_t cpu = free_of_rt(s, &may, v->cpu);
    return cpu != RBC_NONE ? cpu : least_rt(s, &may, v->cpu);
}

/* Not RUNNING. It goes there now, or when it is saved. */
static void send(struct rbc *s, struct rbc_vcpu *v, uint32_t to)
{
    if (to != v->cpu && v->unsaved) {
        if (v->state == RBC_QUEUED)
            rbc_dequeue(s, v, RBC_LEAVING);
        rbc_uncount(s, v);
        v->state = RBC_LEAVING;
        v->dest = to;
        rbc_count(s, v);
        return;
    }
    if (to != v->cpu)
        rbc_move(s, v, to);
    if (v->state != RBC_QUEUED)
        rbc_enqueue(s, v);
    rbc_dispatch(s, v);
}

void rbc_ready(struct rbc *s, struct rbc_vcpu *v)
{
    uint32_t to = target(s, v);

    if (v->rt && to != v->cpu) {
        v->counts.rt_moves++;
        s->counts.rt_moves++;
    }
    send(s, v, to);
}

void rbc_wake(struct rbc *s, struct rbc_vcpu *v, int64_t now)
{
    (void)now;
    if (v->state != RBC_BLOCKED)
        return;
    v->counts.wakes++;
    s->counts.wakes++;
    if (v->parked) {
        rbc_set_state(s, v, RBC_PARKED);
        return;
    }
    if (v->cls == RBC_UNDER && !v->placed) {
        v->cls = RBC_BOOST;
        v->counts.boosts++;
        s->counts.boosts++;
    }
    v->placed = false;
    rbc_ready(s, v);
    if (!v->rt)
        return;
    rbc_spread(s);
    if (s->cpus[rbc_place(v)]->rt >= 2) {
        v->counts.rt_met++;
        s->counts.rt_met++;
    }
}

void rbc_sleep(struct rbc *s, struct rbc_vcpu *v)
{
    switch (v->state) {
    case RBC_RUNNING:
        rbc_kick(s, v->cpu);
        return;
    case RBC_QUEUED:
        rbc_dequeue(s, v, RBC_BLOCKED);
        break;
    case RBC_LEAVING:
        rbc_uncount(s, v);
        v->state = RBC_BLOCKED;
        v->dest = RBC_NONE;
        rbc_count(s, v);
        break;
    case RBC_PARKED:
        rbc_set_state(s, v, RBC_BLOCKED);
        break;
    default:
        return;
    }
    if (v->rt)
        rbc_spread(s); /* its processor may be one without a real-time vCPU now */
}

void rbc_yield(struct rbc_vcpu *v)
{
    if (v->state == RBC_RUNNING)
        v->yielded = true;
}

/* ---- balance of real-time vCPUs */

/* Off a processor that it shares; false: there is none for it. */
static bool spread_one(struct rbc *s, struct rbc_vcpu *v)
{
    struct rbc_mask may = allowed(s, v);
    uint32_t to = free_of_rt(s, &may, v->cpu);

    if (to == RBC_NONE)
        return false;
    v->counts.rt_moves++;
    s->counts.rt_moves++;
    if (v->state != RBC_RUNNING) {
        send(s, v, to);
        return true;
    }
    rbc_uncount(s, v);
    v->dest = to;
    rbc_count(s, v);
    rbc_kick(s, v->cpu);
    return true;
}

static void spread_cpu(struct rbc *s, struct rbc_cpu *c)
{
    struct rbc_link *at = c->queue[RBC_RT].next;

    /* Those that wait first: what runs should go on. */
    while (c->rt >= 2 && at != &c->queue[RBC_RT]) {
        struct rbc_vcpu *v = RBC_QUEUED_VCPU(at);
        at = at->next;
        spread_one(s, v);
    }
    if (c->rt >= 2 && c->cur != NULL && c->cur->rt && c->cur->dest == RBC_NONE)
        spread_one(s, c->cur);
}

void rbc_spread(struct rbc *s)
{
    struct rbc_mask many = s->rt_many;

    if (!rbc_balanced(s) || rbc_mask_empty(&many))
        return;
    for (uint32_t cpu = rbc_mask_next(&many, RBC_NONE);
         cpu != RBC_NONE && !rbc_mask_empty(&s->rt_free); cpu = rbc_mask_next(&many, cpu)) {
        spread_cpu(s, s->cpus[cpu]);
        rbc_mask_clear(&many, cpu);
    }
}

/* ---- stealing */

/* Alone on its processor, which it is the next to have. */
static bool rt_is_at_home(const struct rbc *s, const struct rbc_cpu *peer)
{
    return rbc_balanced(s) && peer->rt < 2 && !peer->tasklet && !rbc_guarded(s, peer);
}

static struct rbc_vcpu *steal_from(struct rbc *s, const struct rbc_cpu *peer,
                                   const struct rbc_cpu *c, unsigned cls, int64_t now)
{
    const struct rbc_link *head = &peer->queue[cls];

    /* An idle processor is about to take what is alone in its queue. */
    if (peer->cur == NULL && !peer->tasklet && peer->queued == 1)
        return NULL;
    for (struct rbc_link *at = head->next; at != head; at = at->next) {
        struct rbc_vcpu *v = RBC_QUEUED_VCPU(at);
        if (!rbc_mask_has(&v->affinity, c->id) ||
            (s->set.hot_ns != 0 && now - v->last_ran < s->set.hot_ns))
            continue;
        if (!v->unsaved)
            return v;
        rbc_mask_set(&s->missed, c->id);
    }
    return NULL;
}

struct rbc_vcpu *rbc_steal(struct rbc *s, struct rbc_cpu *c, enum rbc_class cls, int64_t now)
{
    /* Balanced ones do not meet by stealing; others stay where they are, but for want of work here.
     */
    bool rt =
        rbc_balanced(s) ? rbc_mask_has(&s->rt_free, c->id) : s->set.rt_steal || cls == RBC_IDLE;
    unsigned best = rt ? RBC_RT : RBC_BOOST;

    if (!rbc_mask_has(&s->online, c->id))
        return NULL;
    for (; best < (unsigned)cls; best++) {
        struct rbc_mask peers = s->queued[best];
        rbc_mask_clear(&peers, c->id);
        for (uint32_t cpu = s->steal_last; !rbc_mask_empty(&peers); rbc_mask_clear(&peers, cpu)) {
            cpu = rbc_mask_next(&peers, cpu);
            /* Who has work of his own leaves it there. */
            if (best == RBC_RT && cls != RBC_IDLE && rt_is_at_home(s, s->cpus[cpu]))
                continue;
            struct rbc_vcpu *v = steal_from(s, s->cpus[cpu], c, best, now);
            if (v == NULL)
                continue;
            s->steal_last = cpu;
            v->counts.steals++;
            s->counts.steals++;
            rbc_move(s, v, c->id);
            return v;
        }
    }
    return NULL;
}
