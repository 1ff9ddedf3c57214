/*
 * R_B_Credit: which vCPU runs on which processor, and for how long.
 *
 * Three policies of one core:
 *   RBC_CREDIT      Xen's Credit: domains share the processors by weight, up to their cap. Marks
 *                   "real-time" are kept, and mean nothing.
 *   RBC_R_CREDIT    real-time vCPUs come first on their processor. They are placed as any other,
 *                   but only a processor that would idle steals them (with rt_steal all do, as
 *                   Credit with one class more would).
 *   RBC_R_B_CREDIT  and they are balanced: while a processor without a real-time vCPU exists
 *                   that one may use, it shares its own with no other.
 *
 * Pure: no clock, no allocation, no randomness, no floating point, no recursion, no I/O. Time comes
 * from the caller, in nanoseconds, and never runs back. All structures are the caller's; what the
 * core asks of it goes through struct rbc_ops. Nothing of libc is used but memset.
 *
 * LOCKS  One lock of the caller guards a struct rbc with all its processors, domains and vCPUs:
 * every function here is called with it held, except the rbc_mask_*. So there is no lock order
 * within; the lock nests inside whatever protects the list of processors and domains (in Xen: below
 * cpupool_lock, and it is the schedule lock of all processors of the pool, as RTDS has it). The ops
 * are called with it held: they must not call back, and must not wait. One lock, since balance is a
 * decision about all processors; it is held for what is said at "cost".
 *
 * COST  n: vCPUs; p: processors; a decision: rbc_wake, rbc_sleep, rbc_schedule, rbc_saved,
 * rbc_tick. Queues are lists, one a class, and sets of processors are bitmaps, so a decision takes
 * O(p / 64) steps. More is needed only in these cases:
 *   - stealing passes over queued vCPUs that may not run here (affinity, cache still hot, not yet
 *     saved), one step each;
 *   - a real-time vCPU that finds one on every processor looks for the least loaded, O(p);
 *   - balance looks at each real-time vCPU of a processor that has several, while one has none;
 *   - a processor that was idle offers what else is in its queue to other idle ones.
 * rbc_account is O(n + p), once a period.
 *
 * CLASSES, best first, round robin within one:
 *   RT     vCPU of a domain marked real-time (not in RBC_CREDIT)
 *   BOOST  woke while UNDER; until a tick finds it running, or the accounting
 *   UNDER  has credit (>= 0)
 *   OVER   has spent more than it had
 *   IDLE   nothing to run
 * The class of the processor's next vCPU is the best that is queued there. If that is OVER or IDLE,
 * a vCPU of a strictly better class is stolen from another processor's queue, if there is one.
 *
 * STATES of a vCPU
 *   BLOCKED --rbc_wake--> QUEUED       BOOST if it was UNDER, unless parked or just placed
 *   BLOCKED --rbc_wake--> PARKED       if its domain has spent its cap
 *   BLOCKED --rbc_wake--> LEAVING      if it must move and is not saved yet
 *   QUEUED  --rbc_schedule, chosen--> RUNNING
 *   QUEUED, PARKED, LEAVING --rbc_sleep--> BLOCKED
 *   QUEUED  --rbc_account, over its cap--> PARKED --rbc_account, credit >= 0--> QUEUED
 *   RUNNING --rbc_schedule, not runnable--> BLOCKED
 *   RUNNING --rbc_schedule, parked--> PARKED
 *   RUNNING --rbc_schedule, preempted or slice over--> QUEUED at the tail of its class
 *   RUNNING --rbc_schedule, preempted by a real-time vCPU--> QUEUED at the head of its class:
 *                                      it keeps its turn, and the rest of its slice
 *   RUNNING --rbc_schedule, must move--> LEAVING --rbc_saved--> QUEUED at the other processor
 * It must move because of its affinity or by the balance of real-time vCPUs.
 *
 * A vCPU is in one queue exactly if it is QUEUED, and current on one processor exactly if RUNNING.
 * rbc_sleep and rbc_wake of a RUNNING vCPU change no state: whether it still can run is said to
 * rbc_schedule. rbc_wake of one that is not BLOCKED does nothing.
 *
 * SAVED  After rbc_schedule has chosen another one, the state of the old one is on its processor
 * until the caller has switched, and says rbc_saved. Until then it does not leave that processor.
 *
 * CREDIT  A running ordinary vCPU pays RBC_CREDITS_PER_MS; what is left of a division is paid
 * later. Every period (30 ms) what all processors can do in it, less what real-time vCPUs have
 * used, is shared out to domains with active vCPUs, by weight x vCPUs, up to their peak (all of
 * their vCPUs all the time) and cap; what a domain cannot take goes to those after it. Then: credit
 * < 0 is OVER, else UNDER; below -cap it is parked until it is >= 0; it is kept above -period;
 * above +period the vCPU is no longer active, and keeps half. A tick that finds it running makes it
 * active again (in the policies with real-time vCPUs also a tick's worth of time: ticks may always
 * find the same real-time vCPU running). Real-time vCPUs have no credit, and no cap.
 *
 * PREEMPTION  Better classes preempt worse ones, but not before the running vCPU has had
 * `ratelimit`; real-time ones preempt ordinary ones at once, whatever it says.
 *
 * GUARD  What real-time vCPUs may use of a processor in each period while ordinary ones wait there,
 * in thousandths: guard_alone where one real-time vCPU is runnable (default 1000: off; such a
 * domain was given the processor), guard_shared where there are more (default 950). What is beyond
 * it comes after the ordinary vCPUs until the period ends. A wake does not preempt then.
 *
 * BALANCE (RBC_R_B_CREDIT) happens at insertion, at wake, whenever a processor loses its last
 * runnable real-time vCPU, and at ticks. Those that wait move first; one that runs moves if only it
 * may. Among processors without a runnable real-time vCPU those are preferred where none belongs at
 * all, then idle ones, then the nearest. If every processor has one, a waking one goes where the
 * fewest are.
 *
 * Different from Xen's credit.c, on purpose, in all policies:
 *   - no soft affinity, SMT or NUMA: the core sees processors that are all alike;
 *   - classes changed by the accounting take effect at once, not at the next tick;
 *   - a steal takes the best class there is, not the first queue that has one, and is tried again
 *     if the vCPU was only not saved yet;
 *   - a vCPU that finds an idle processor is moved to it, not only the processor woken; one that
 *     was preempted is offered to idle processors as well;
 *   - time is not charged twice when less than a credit is left (burn_credits keeps both the
 *     residual and the start time);
 *   - a yielding vCPU that is alone in its class lets the next one pass, and stays queued where it
 *     is.
 */
#ifndef UMBEL_HV_SCHED_RBC_H
#define UMBEL_HV_SCHED_RBC_H

#include "rbc_mask.h"

#define RBC_CREDITS_PER_MS 10
#define RBC_WEIGHT_DEFAULT 256
#define RBC_WEIGHT_MAX     65535
#define RBC_CAP_MAX        (100u * RBC_CPUS_MAX) /* per cent of one processor; 0: none */

enum rbc_policy { RBC_CREDIT, RBC_R_CREDIT, RBC_R_B_CREDIT };
enum rbc_class { RBC_RT, RBC_BOOST, RBC_UNDER, RBC_OVER, RBC_IDLE };
#define RBC_CLASSES RBC_IDLE /* that have queues */
enum rbc_state { RBC_BLOCKED, RBC_QUEUED, RBC_RUNNING, RBC_LEAVING, RBC_PARKED };

struct rbc_settings {
    enum rbc_policy policy;
    int64_t tick_ns;   /* the caller calls rbc_tick that often; 10 ms */
    int64_t period_ns; /* and rbc_account; also the slice of ordinary vCPUs; 30 ms */
    /* Of real-time vCPUs among each other; 500 us: the shorter, the sooner a short job passes a
     * long one, and below it switches begin to count (README.md). */
    int64_t rt_slice_ns;
    int64_t ratelimit_ns; /* 1 ms; 0: none */
    int64_t hot_ns;       /* a vCPU that ran less long ago is not stolen; 0: none */
    uint32_t guard_alone, guard_shared;
    bool rt_steal; /* in RBC_R_CREDIT only; false */
};

struct rbc_vcpu;

struct rbc_ops {
    /* The processor shall call rbc_schedule soon. At most once until it has. */
    void (*kick)(void *arg, uint32_t cpu);
    /* A vCPU that does not run now belongs to processor `to` from here on. May be NULL. */
    void (*moved)(void *arg, struct rbc_vcpu *v, uint32_t from, uint32_t to);
};

/* Lists go round through a head; an element that is in none points at itself. */
struct rbc_link {
    struct rbc_link *next, *prev;
};

/* Counted from rbc_init, or from rbc_vcpu_add; for the caller to read. */
struct rbc_counts {
    uint64_t wakes, boosts, preempted, steals, moves;
    uint64_t rt_moves; /* moves by the balance of real-time vCPUs */
    uint64_t rt_met;   /* wakes of real-time vCPUs that left them on a processor with another one */
};

struct rbc_cpu {
    uint32_t id;
    struct rbc_vcpu *cur; /* NULL: idle */
    struct rbc_link queue[RBC_CLASSES];
    uint32_t queued;
    uint32_t rt;       /* runnable real-time vCPUs that belong here, or are on their way */
    uint32_t rt_homes; /* the same, with those that are blocked */
    bool kicked;
    bool tasklet;              /* the caller runs something of its own */
    int64_t guard_from;        /* the guard's period began then */
    int64_t guard_used;        /* by real-time vCPUs, since */
    uint64_t schedules, idles; /* decisions, and those that found nothing */
};

struct rbc_domain {
    struct rbc_link link;        /* among all domains */
    struct rbc_link active_link; /* among those with active vCPUs */
    struct rbc_link vcpus, active;
    uint32_t active_n;
    uint32_t weight, cap;
    bool rt;
};

struct rbc_vcpu {
    struct rbc_link queue_link, active_link, domain_link;
    struct rbc_domain *domain;
    void *owner; /* the caller's */
    struct rbc_mask affinity;
    uint32_t cpu;  /* where it runs, is queued, or was last */
    uint32_t dest; /* where it must go, if it runs or is LEAVING; else RBC_NONE */
    uint8_t state; /* enum rbc_state */
    uint8_t cls;   /* enum rbc_class */
    uint8_t in;    /* class of the queue that it is in, if QUEUED */
    bool rt, active, parked;
    bool unsaved;
    bool yielded;
    bool placed; /* the next wake is the end of a move: no boost */
    int32_t credit;
    int64_t residual;    /* of a credit, not paid yet: nanoseconds x RBC_CREDITS_PER_MS */
    int64_t from;        /* paid up to then */
    int64_t since;       /* runs since */
    int64_t turn, slice; /* its slice began then, and is so long */
    int64_t rest;        /* of a slice that a real-time vCPU interrupted */
    int64_t unseen;      /* used since it is not active */
    int64_t last_ran;
    int64_t used_ns; /* all the time that it was current */
    struct rbc_counts counts;
};

struct rbc {
    struct rbc_settings set;
    struct rbc_ops ops;
    void *arg;
    struct rbc_cpu *cpus[RBC_CPUS_MAX];
    uint32_t cpus_n;
    struct rbc_mask online, idle;
    struct rbc_mask queued[RBC_CLASSES]; /* processors that have that class queued */
    struct rbc_mask rt_free;             /* no runnable real-time vCPU there */
    struct rbc_mask rt_none;             /* no real-time vCPU belongs there at all */
    struct rbc_mask rt_many;             /* two runnable ones or more */
    struct rbc_mask missed;              /* would have stolen a vCPU that was not saved yet */
    uint32_t idle_last, steal_last;      /* where the last search ended */
    struct rbc_link domains, active;
    uint64_t weight;               /* of all active vCPUs */
    int64_t balance;               /* credit of all of them after the last accounting */
    int64_t rt_spent, rt_residual; /* credits that real-time vCPUs used, not accounted yet */
    struct rbc_counts counts;
    struct {
        int64_t granted, spent, raised, halved, dropped;
    } ledger; /* of credits: all that are held = granted - spent + raised - halved - dropped */
};

/* ---- set-up */

/* What is said above. */
struct rbc_settings rbc_defaults(enum rbc_policy policy);
void rbc_init(struct rbc *s, const struct rbc_settings *set, const struct rbc_ops *ops, void *arg);
/* New settings; -EINVAL (and no change) if one makes no sense. Every vCPU's class follows. */
int rbc_configure(struct rbc *s, const struct rbc_settings *set, int64_t now);

/* A processor comes, idle; it is kicked. c is the caller's until rbc_cpu_remove. -EINVAL, -EEXIST.
 */
int rbc_cpu_add(struct rbc *s, struct rbc_cpu *c, uint32_t id, int64_t now);
/* It takes no more vCPUs; those queued or blocked there go elsewhere. -EBUSY and no change: one
 * runs there, or one that is there may run nowhere else. */
int rbc_cpu_remove(struct rbc *s, uint32_t id, int64_t now);

void rbc_domain_add(struct rbc *s, struct rbc_domain *d);
/* -EBUSY: it has vCPUs. */
int rbc_domain_remove(struct rbc *s, struct rbc_domain *d);
/* -EINVAL: weight is 0 or too large, or the cap is. */
int rbc_domain_share(struct rbc *s, struct rbc_domain *d, uint32_t weight, uint32_t cap);
/* Marks it real-time, or not. Its vCPUs change class at once; what credit they had is dropped. */
void rbc_domain_rt(struct rbc *s, struct rbc_domain *d, bool rt, int64_t now);

/* A new vCPU, BLOCKED; near: the processor that it should have if nothing speaks against it.
 * -EINVAL: it may use none of the processors there are. */
int rbc_vcpu_add(struct rbc *s, struct rbc_domain *d, struct rbc_vcpu *v,
                 const struct rbc_mask *affinity, uint32_t near, int64_t now);
/* -EBUSY: it is RUNNING, or not saved yet. */
int rbc_vcpu_remove(struct rbc *s, struct rbc_vcpu *v);
/* Moves it at once if it must; if it runs, its processor is kicked. -EINVAL as rbc_vcpu_add. */
int rbc_vcpu_affinity(struct rbc *s, struct rbc_vcpu *v, const struct rbc_mask *affinity,
                      int64_t now);
/* The processor that rbc_vcpu_add would choose for it now, among those in also (NULL: all).
 * RBC_NONE: there is none. Changes nothing. */
uint32_t rbc_vcpu_pick(const struct rbc *s, const struct rbc_vcpu *v, const struct rbc_mask *also);
/* The caller has moved a BLOCKED vCPU that is saved. Its next wake does not boost it; ops.moved is
 * not called. -EBUSY in other states, -EINVAL: no such processor. */
int rbc_vcpu_place(struct rbc *s, struct rbc_vcpu *v, uint32_t cpu);

/* ---- decisions */

void rbc_wake(struct rbc *s, struct rbc_vcpu *v, int64_t now);
void rbc_sleep(struct rbc *s, struct rbc_vcpu *v);
/* At the next rbc_schedule of its processor it goes behind others, whatever the rate limit. */
void rbc_yield(struct rbc_vcpu *v);

struct rbc_next {
    struct rbc_vcpu *v; /* NULL: idle */
    int64_t slice_ns;   /* call rbc_schedule again after that at the latest; -1: when kicked */
    bool moved;         /* it comes from another processor's queue */
};
/* What the processor does from now on. runnable: the current vCPU (if any) can go on; tasklet: the
 * processor itself has something to do and will take no vCPU. If the current vCPU is replaced, the
 * caller owes rbc_saved for it. (A chosen vCPU that turns out not to be runnable: rbc_schedule once
 * more with runnable = false, then rbc_saved.) */
struct rbc_next rbc_schedule(struct rbc *s, uint32_t cpu, bool runnable, bool tasklet, int64_t now);
void rbc_saved(struct rbc *s, struct rbc_vcpu *v, int64_t now);

/* Every tick_ns on each processor that is not idle (on idle ones it does nothing). */
void rbc_tick(struct rbc *s, uint32_t cpu, int64_t now);
/* Every period_ns, once for all. */
void rbc_account(struct rbc *s, int64_t now);

/* ---- for tests and debug builds */

/* NULL, or which invariant is broken. O(n x p). */
const char *rbc_check(const struct rbc *s);

#endif
