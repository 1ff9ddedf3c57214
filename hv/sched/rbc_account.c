/* Credit: who gets how much of it. */
#include "rbc_private.h"

void rbc_activate(struct rbc *s, struct rbc_vcpu *v)
{
    struct rbc_domain *d = v->domain;

    v->active = true;
    rbc_list_add(&v->active_link, &d->active);
    d->active_n++;
    s->weight += d->weight;
    if (rbc_list_empty(&d->active_link))
        rbc_list_add(&d->active_link, &s->active);
}

void rbc_deactivate(struct rbc *s, struct rbc_vcpu *v)
{
    struct rbc_domain *d = v->domain;

    if (!v->active)
        return;
    v->active = false;
    rbc_list_del(&v->active_link);
    d->active_n--;
    s->weight -= d->weight;
    if (d->active_n == 0)
        rbc_list_del(&d->active_link);
}

void rbc_drop_credit(struct rbc *s, struct rbc_vcpu *v)
{
    s->ledger.dropped += v->credit;
    v->credit = 0;
    v->residual = 0;
}

static int64_t up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static void unpark(struct rbc *s, struct rbc_vcpu *v)
{
    v->parked = false; /* a running one just goes on */
    if (v->state == RBC_PARKED)
        rbc_ready(s, v);
}

/* cap: of this vCPU, in credits; 0: none. The queue follows in rbc_sort. */
static void judge_over(struct rbc *s, struct rbc_vcpu *v, int32_t cap)
{
    int32_t least = -rbc_period_credits(s);

    v->cls = RBC_OVER;
    if (cap != 0 && v->credit < -cap && !v->parked) {
        v->parked = true;
        if (v->state == RBC_QUEUED || v->state == RBC_LEAVING) {
            if (v->state == RBC_QUEUED)
                rbc_dequeue(s, v, RBC_PARKED);
            v->state = RBC_PARKED;
            v->dest = RBC_NONE;
        } else if (v->state == RBC_RUNNING) {
            rbc_kick(s, v->cpu);
        }
    }
    if (v->credit < least) {
        s->ledger.raised += least - v->credit;
        v->credit = least;
    }
}

static void judge_under(struct rbc *s, struct rbc_vcpu *v)
{
    v->cls = RBC_UNDER;
    if (v->parked)
        unpark(s, v);
    if (v->credit <= rbc_period_credits(s))
        return;
    rbc_deactivate(s, v);
    s->ledger.halved += v->credit - v->credit / 2;
    v->credit /= 2;
}

/* What one domain may get of what is left: *total is for it and those after it, whose weight is
 * left; all: the weight of all. */
static int64_t fair(struct rbc *s, struct rbc_domain *d, int64_t all, int64_t left, int64_t *total,
                    bool *extra, int64_t *cap)
{
    int64_t n = d->active_n, period = rbc_period_credits(s), peak = n * period;
    int64_t share = up(*total * d->weight * n, all);

    if (s->balance < 0)
        peak += up(-s->balance * d->weight * n, all);
    *cap = 0;
    if (d->cap != 0) {
        int64_t whole = up(d->cap * period, 100);
        peak = whole < peak ? whole : peak;
        *cap = up(whole, n);
    }
    if (share < peak) {
        *extra = true; /* it could take more */
        return up(share, n);
    }
    if (left != 0)
        *total += up((share - peak) * all, left);
    if (*extra) { /* next time it comes first, so that those before it get what it leaves */
        rbc_list_del(&d->active_link);
        rbc_list_add(&d->active_link, &s->active);
    }
    return up(peak, n);
}

static void grant(struct rbc *s, struct rbc_domain *d, int64_t each, int64_t cap, int64_t *balance)
{
    struct rbc_link *at, *next;

    for (at = d->active.next; at != &d->active; at = next) {
        struct rbc_vcpu *v = RBC_OF(at, struct rbc_vcpu, active_link);
        next = at->next;
        v->credit += (int32_t)each;
        s->ledger.granted += each;
        if (v->credit < 0)
            judge_over(s, v, (int32_t)cap);
        else
            judge_under(s, v);
        *balance += v->credit;
    }
}

void rbc_account(struct rbc *s, int64_t now)
{
    int64_t total = (int64_t)rbc_period_credits(s) * s->cpus_n, all = (int64_t)s->weight;
    int64_t left = all, balance = 0, rt = s->rt_spent < total ? s->rt_spent : total;
    struct rbc_link *at, *next;
    bool extra = false;

    (void)now;
    s->rt_spent = 0; /* more than all there is cannot be had back */
    total -= rt;
    if (s->balance < 0)
        total -= s->balance;
    for (at = s->active.next; all != 0 && at != &s->active; at = next) {
        struct rbc_domain *d = RBC_OF(at, struct rbc_domain, active_link);
        int64_t cap;
        next = at->next;
        left -= (int64_t)d->weight * d->active_n;
        int64_t each = fair(s, d, all, left, &total, &extra, &cap);
        grant(s, d, each, cap, &balance);
    }
    s->balance = balance;
    for (uint32_t cpu = rbc_mask_next(&s->online, RBC_NONE), n = 0; n < s->cpus_n;
         cpu = rbc_mask_next(&s->online, cpu), n++)
        rbc_sort(s, s->cpus[cpu]);
}
