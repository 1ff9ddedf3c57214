/* SPDX-License-Identifier: GPL-2.0-only */
/* What the two files of R_B_Credit in Xen share. */
#ifndef UMBEL_HV_SCHED_XEN_RBCREDIT_H
#define UMBEL_HV_SCHED_XEN_RBCREDIT_H

#include <xen/cpumask.h>
#include <xen/sched.h>
#include <xen/spinlock.h>
#include <xen/timer.h>
#include <xen/trace.h>

#include "../private.h"

#include "rbc.h"

/* Numbers 0 to 5 are Xen's own schedulers'. */
#define TRC_SCHED_RBCREDIT 6
#define EVENT(n)           TRC_SCHED_CLASS_EVT(RBCREDIT, n)
#define EVENT_PLACED       EVENT(1) /* woke: who, processor, runnable real-time vCPUs there */
#define EVENT_MOVED        EVENT(2) /* who, from, to, real-time? */
#define EVENT_RUNS         EVENT(3) /* real-time ones only: who, processor, runnable ones there */
#define EVENT_MARKED       EVENT(4) /* domain, real-time? */

struct rb_pool {
    spinlock_t lock;
    struct rbc rbc;
    struct scheduler *ops;
    cpumask_t valid; /* the pool's processors, as heed_pool saw them last */
    struct timer account;
    bool accounting;
};

struct rb_cpu {
    struct rbc_cpu c;
    struct rb_pool *pool;
    struct timer tick;
    bool ticking;
};

struct rb_domain {
    struct rbc_domain d;
    struct domain *domain;
};

struct rb_unit {
    struct rbc_vcpu v;
    struct sched_unit *unit;
    struct rb_domain *domain;
    bool in;    /* the core knows it */
    bool moved; /* since it ran last */
};

static inline struct rb_pool *rb_pool_of(const struct scheduler *ops)
{
    return ops->sched_data;
}

/* The pool's mask may have changed since the last call: to be called, with the lock, before
 * anything of the core is. */
void rb_heed_pool(struct rb_pool *p, s_time_t now);

/* ---- rbcredit_params.c */

/* What the command line says. */
struct rbc_settings rb_settings(void);
const char *rb_policy_name(enum rbc_policy policy);
int rb_adjust(const struct scheduler *ops, struct domain *domain,
              struct xen_domctl_scheduler_op *op);
int rb_adjust_global(const struct scheduler *ops, struct xen_sysctl_scheduler_op *op);
void rb_dump_settings(const struct scheduler *ops);
void rb_dump_cpu_state(const struct scheduler *ops, int cpu);

#endif
