/*
 * The control groups of runs, by libcgroup: v2, or v1 controllers that are mounted apart, whatever
 * this machine has. All runs of a node stand below one group of its own, umbel/BASE, which tells
 * what they use together.
 *
 * Threads: of a struct run_cgroups only `hold` changes after run_cgroups_open(): by
 * run_cgroup_make() and run_cgroups_keep(), each of one thread in its process.
 */
#ifndef UMBEL_NODE_RUN_CGROUP_H
#define UMBEL_NODE_RUN_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "nodecache/run.h"

enum run_controller { RUN_CPU, RUN_MEMORY, RUN_PIDS, RUN_CPUACCT, RUN_CONTROLLERS };

struct run_cgroups {
    bool v2;
    char base[64];                          /* "umbel/0123abc" */
    char mounts[RUN_CONTROLLERS][PATH_MAX]; /* empty: not there (only cpuacct may be) */
    int hold;                               /* the node's group is needed; -1: it is not said */
};

struct run_limits {
    uint32_t milli_cpus; /* 0: no limit */
    uint64_t memory;     /* bytes; 0: no limit */
    uint32_t pids;       /* 0: no limit */
};

struct run_group_usage {
    uint64_t cpu_us, memory, memory_peak;
    uint64_t oom_kills; /* processes that the kernel has killed, as the memory was at an end */
};

/* BASE names the node among all of the machine. Makes its group, which stays as long as somebody
 * has it open: this process, or one that was forked from it. detail: what is missing. */
int run_cgroups_open(struct run_cgroups *c, const char *base, char detail[RUN_DETAIL]);
/* The group stays where it is. Needless after run_cgroups_open() has failed, and harmless. */
void run_cgroups_close(struct run_cgroups *c);
/* From time to time, by one thread of the node: somebody who cleans up may have removed the group.
 */
int run_cgroups_keep(struct run_cgroups *c);
/* Removes what nodes that are no more have left on this machine, whosever they were. */
void run_cgroups_sweep(const struct run_cgroups *c);
/* The group of one run. One that an earlier attempt has left is taken over. */
int run_cgroup_make(struct run_cgroups *c, const char *name, const struct run_limits *limits,
                    char detail[RUN_DETAIL]);
/* The calling process goes into it. */
int run_cgroup_enter(const struct run_cgroups *c, const char *name);
/* SIGKILL to all that are in it, again and again while `tries`, 10 ms apart, are not over; 0: it is
 * empty, or not there. -EBUSY. */
int run_cgroup_kill(const struct run_cgroups *c, const char *name, int tries);
/* Of one run. What cannot be read is 0. */
void run_cgroup_usage(const struct run_cgroups *c, const char *name, struct run_group_usage *out);
/* Of all runs of the node together. Memory is what can only be had back by ending them: files that
 * the kernel keeps for them are not in it, as it counts those as available. */
void run_cgroup_all(const struct run_cgroups *c, struct run_usage *out);
/* 0: it is gone. -EBUSY: processes are in it. */
int run_cgroup_remove(const struct run_cgroups *c, const char *name);
/* The node's own. -EBUSY: runs are in it, or somebody else has it open. */
int run_cgroups_remove_node(const struct run_cgroups *c);
/* Every group of a run that is there. */
int run_cgroup_each(const struct run_cgroups *c, void (*fn)(void *arg, const char *name),
                    void *arg);

/* The number behind `key ` in a flat-keyed file's text ("oom_kill 3\n"); 0: there is none. */
uint64_t run_cgroup_key(const char *text, const char *key);
/* What cpu.cfs_quota_us and cpu.cfs_period_us, or cpu.max, are given. */
void run_cgroup_quota(uint32_t milli_cpus, uint64_t *quota_us, uint64_t *period_us);

#endif
