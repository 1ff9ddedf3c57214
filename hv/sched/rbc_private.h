/* What the files of the core share. */
#ifndef UMBEL_HV_SCHED_RBC_PRIVATE_H
#define UMBEL_HV_SCHED_RBC_PRIVATE_H

#include "rbc.h"

#ifndef RBC_TYPES_H
#include <assert.h>
#include <errno.h>
#include <string.h>
#define RBC_ASSERT(what) assert(what)
#endif

#define RBC_OF(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))
#define RBC_QUEUED_VCPU(l)         RBC_OF(l, struct rbc_vcpu, queue_link)

/* ---- lists (rbc_queue.c) */

static inline void rbc_list_init(struct rbc_link *l)
{
    l->next = l->prev = l;
}

static inline bool rbc_list_empty(const struct rbc_link *l)
{
    return l->next == l;
}

/* Behind `at`. */
static inline void rbc_list_add(struct rbc_link *l, struct rbc_link *at)
{
    l->next = at->next;
    l->prev = at;
    at->next->prev = l;
    at->next = l;
}

static inline void rbc_list_del(struct rbc_link *l)
{
    l->next->prev = l->prev;
    l->prev->next = l->next;
    rbc_list_init(l);
}

static inline bool rbc_runnable(const struct rbc_vcpu *v)
{
    return v->state != RBC_BLOCKED && v->state != RBC_PARKED;
}

/* Where it belongs as soon as it can go there. */
static inline uint32_t rbc_place(const struct rbc_vcpu *v)
{
    return v->dest != RBC_NONE ? v->dest : v->cpu;
}

static inline bool rbc_balanced(const struct rbc *s)
{
    return s->set.policy == RBC_R_B_CREDIT;
}

static inline int32_t rbc_period_credits(const struct rbc *s)
{
    return (int32_t)(s->set.period_ns * RBC_CREDITS_PER_MS / 1000000);
}

/* ---- rbc_queue.c */

/* Around every change of state, rt, cpu or dest of a vCPU: keeps the counts of real-time vCPUs. */
void rbc_uncount(struct rbc *s, const struct rbc_vcpu *v);
void rbc_count(struct rbc *s, const struct rbc_vcpu *v);
void rbc_set_state(struct rbc *s, struct rbc_vcpu *v, enum rbc_state state);
/* To the tail of its class at its processor; to the head; from there. */
void rbc_enqueue(struct rbc *s, struct rbc_vcpu *v);
void rbc_enqueue_first(struct rbc *s, struct rbc_vcpu *v);
void rbc_dequeue(struct rbc *s, struct rbc_vcpu *v, enum rbc_state state);
/* Changes class; the queue follows (tail). */
void rbc_reclass(struct rbc *s, struct rbc_vcpu *v, enum rbc_class cls);
/* Puts queued vCPUs into the queues of their classes, each keeping its turn. */
void rbc_sort(struct rbc *s, struct rbc_cpu *c);
/* It is not RUNNING. */
void rbc_move(struct rbc *s, struct rbc_vcpu *v, uint32_t to);
void rbc_kick(struct rbc *s, uint32_t cpu);

/* ---- rbc_place.c */

/* The vCPU just became QUEUED, or might go elsewhere now: to an idle processor, to one without
 * real-time vCPUs, or before what runs there. */
void rbc_dispatch(struct rbc *s, struct rbc_vcpu *v);
/* v is runnable or becomes so: QUEUED at once, or LEAVING if it must go and is not saved. */
void rbc_ready(struct rbc *s, struct rbc_vcpu *v);
/* Spreads the real-time vCPUs of every processor that has several. */
void rbc_spread(struct rbc *s);
/* A queued vCPU of a class better than cls, from elsewhere to c; NULL: none. */
struct rbc_vcpu *rbc_steal(struct rbc *s, struct rbc_cpu *c, enum rbc_class cls, int64_t now);

/* ---- rbc_schedule.c */

/* The running vCPU pays up to now. */
void rbc_charge(struct rbc *s, struct rbc_cpu *c, struct rbc_vcpu *v, int64_t now);
/* Real-time vCPUs have had their share of this processor's period. */
bool rbc_guarded(const struct rbc *s, const struct rbc_cpu *c);

/* ---- rbc_account.c */

void rbc_activate(struct rbc *s, struct rbc_vcpu *v);
void rbc_deactivate(struct rbc *s, struct rbc_vcpu *v);
/* Its credit is gone. */
void rbc_drop_credit(struct rbc *s, struct rbc_vcpu *v);

#endif
