/*
 * A discrete-event simulator over the core of R_B_Credit (hv/sched/rbc.h): what its three policies
 * do with given processors and guests.
 *
 * Exact: time is whole nanoseconds, events at one moment come in the order in which they were made,
 * and all randomness comes from the seed (each vCPU has a stream of its own, so that one guest more
 * at the end changes nothing of what the others want). The same scenario and seed give the same
 * result everywhere.
 *
 * SCENARIO, a text. `#` begins a comment. Durations: 250ns 10us 1.5ms 2s. One line each:
 *   processors N          1 .. 256; all alike
 *   time D, warmup D      how long, and how much of it is not counted (10s, 0s)
 *   switch D              cost of a change of vCPU, charged to the next one as in Xen (2us)
 *   migrate D             and what is added if it ran elsewhere before (10us)
 *   kick D                from a kick until the processor asks the scheduler (1us)
 *   path D                processor time from a wake to where a guest's task goes on (0)
 *   seed N                (1)
 *   policy credit | r_credit | r_b_credit
 *   tick D, period D, rt_slice D, ratelimit D, hot D, guard_alone N, guard_shared N, rt_steal
 *                         as rbc.h has them
 *   gantt D D             the strips show that long, from there (time/2, 100ms)
 *   domain NAME [x N] [vcpus N] [weight N] [cap N] [rt] [on 0-3,7] [boot D] BEHAVIOUR
 * x N: N such domains. boot: processor time that each vCPU needs before its behaviour begins. Each
 * vCPU begins near a random processor, as on a machine that has run for a while.
 *
 * BEHAVIOUR of each vCPU:
 *   hog
 *       always wants to run
 *   periodic D work D [deadline D] [offset D]
 *       a job every D, from a random offset or that one; the deadline is the next job by default
 *   io D work D
 *       events, D apart in the mean (exponential)
 *   burst D sleep D
 *       busy for a while, asleep for a while (both exponential)
 *
 * LATENCY is from a wake until the vCPU executes (with `path`: until its task goes on). Jobs and
 * events that come while a vCPU is awake wait for their turn in it, and are no wakes; more than
 * SIM_BACKLOG of them are lost (a job lost is a deadline missed).
 */
#ifndef UMBEL_HV_SCHED_SIM_H
#define UMBEL_HV_SCHED_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "hv/sched/rbc.h"

#define SIM_TEXT_MAX    (64u << 10) /* bytes of a scenario */
#define SIM_LINES_MAX   512         /* of domains */
#define SIM_VCPUS_MAX   4096        /* together */
#define SIM_NAME_MAX    31
#define SIM_WHY         240
#define SIM_BACKLOG     64
#define SIM_TIME_MAX    INT64_C(3600000000000) /* an hour */
#define SIM_LEAST       INT64_C(10000)         /* shortest period, sleep or work: 10 us */
#define SIM_EVENTS_MAX  UINT64_C(1000000000)   /* of one run */
#define SIM_SAMPLES_MAX (size_t)(64u << 20)    /* of one group of domains */
#define SIM_STRIPS_MAX  200000

enum sim_kind { SIM_HOG, SIM_PERIODIC, SIM_IO, SIM_BURST };

/* One line "domain". */
struct sim_domain {
    char name[SIM_NAME_MAX + 1];
    enum sim_kind kind;
    uint32_t copies, vcpus, weight, cap;
    bool rt;
    struct rbc_mask affinity;
    int64_t boot, every, work, deadline;
    int64_t offset; /* -1: random */
};

struct sim_scenario {
    uint32_t processors;
    int64_t time, warmup, switch_ns, migrate_ns, kick_ns, path_ns;
    int64_t gantt_from, gantt_for;
    uint64_t seed;
    struct rbc_settings set;
    struct sim_domain *domains;
    size_t domains_n;
    uint32_t vcpus; /* of all domains */
};

/* 0; -EFBIG, -EINVAL or -ENOMEM with the reason ("line 3: ...", printable) in why. What is written
 * in sc is freed by sim_scenario_free, also after an error. */
int sim_parse(const char *text, size_t len, struct sim_scenario *sc, char why[SIM_WHY]);
void sim_scenario_free(struct sim_scenario *sc);

struct sim_samples {
    int64_t *ns;
    size_t n, room;
};

/* All copies of one line "domain". */
struct sim_group {
    struct sim_samples latency; /* sorted */
    int64_t used;               /* processor time in guests, without switches */
    uint64_t jobs, misses;      /* periodic: done or lost, and too late or lost */
    uint64_t lost;
    uint64_t moves, preempted;
};

struct sim_strip {
    uint32_t cpu, vcpu; /* index among all */
    uint32_t line;      /* of its domain */
    int64_t from, to;
};

struct sim_result {
    struct sim_group *groups; /* one a line */
    size_t groups_n;
    struct sim_samples rt; /* latencies of the domains marked rt, sorted */
    int64_t counted;       /* nanoseconds, after the warmup, summed over runs */
    uint32_t processors;
    int64_t busy, switching; /* of processors: in guests, in switches */
    int64_t rt_used, ordinary_used;
    uint64_t rt_jobs, rt_misses;
    uint64_t switches, moves, events;
    struct rbc_counts counts;
    double weight_error; /* largest of |got - due| / due among domains of hogs; of the worst run */
    struct sim_strip *strips;
    size_t strips_n;
    uint32_t runs;
};

/* One run. -ENOMEM, -E2BIG: more events or samples than the bounds allow. NULL after an error. */
int sim_run(const struct sim_scenario *sc, enum rbc_policy policy, uint64_t seed,
            struct sim_result **out);
/* Runs with seed, seed + 1, ... taken together; the strips are the first one's. */
int sim_runs(const struct sim_scenario *sc, enum rbc_policy policy, uint64_t seed, uint32_t runs,
             struct sim_result **out);
void sim_result_free(struct sim_result *r);

int64_t sim_mean(const struct sim_samples *s);
/* The least value that per mille of them do not exceed; 0 without samples. 1000: the largest. */
int64_t sim_quantile(const struct sim_samples *s, uint32_t per_mille);

const char *sim_policy_name(enum rbc_policy policy);
int sim_policy_parse(const char *word, enum rbc_policy *policy); /* -EINVAL */

struct sim_shown {
    enum rbc_policy policy;
    const struct sim_result *result;
};
void sim_print(FILE *f, const struct sim_scenario *sc, const struct sim_shown *shown, size_t n);
void sim_json(FILE *f, const struct sim_scenario *sc, const struct sim_shown *shown, size_t n);
/* Latency distributions of the policies, and a Gantt strip for each. -errno. */
int sim_svg(const char *path, const struct sim_scenario *sc, const struct sim_shown *shown,
            size_t n);

#endif
