/*
 * What a machine can do, and what of it is left.
 *
 * The unit of a core's speed. A fixed computation, chained so that no compiler and no vector unit
 * shortens it (64-bit multiplications, shifts and dependent loads from a table of 256 KiB, which is
 * the second level of today's caches): POWER_ROUNDS rounds. A core that does a million rounds in
 * one second has speed 1. It is the idea of MIPS ratings and of HEP-SPEC: work that is the same
 * everywhere, divided by the time that it took; not their numbers. The reference machine (2 virtual
 * cores of an Intel Xeon, 2026) has about 100. It counts the thread's CPU time, so that others
 * beside it cost it nothing but their share of the caches, and is the best of POWER_TRIES.
 *
 * What is used comes from /proc/stat and /proc/meminfo.
 */
#ifndef UMBEL_NODE_POWER_H
#define UMBEL_NODE_POWER_H

#include <stdint.h>

#define POWER_ROUNDS 1000000u
#define POWER_TRIES  3

/* Speed of the core that it runs on; some 20 ms. 0: there is no memory, or no clock. */
uint64_t power_core_speed(void);

/* Sums since the start of the machine, and memory now. */
struct power_sample {
    int64_t at_ms;        /* clock_boot_ms() */
    uint64_t busy_us;     /* of all cores; waiting for a disk is not busy */
    uint64_t jobs_us;     /* of it, of this node's jobs: the caller's */
    uint64_t memory;      /* bytes: what the machine has */
    uint64_t memory_free; /* bytes that could be had now, caches given up */
    uint64_t jobs_memory; /* of the rest, of this node's jobs: the caller's */
};

/* Pure. text: the first line of /proc/stat; hz: its ticks in a second. -EINVAL. */
int power_parse_stat(const char *text, long hz, uint64_t *busy_us);
/* Pure. text: /proc/meminfo. -EINVAL. */
int power_parse_meminfo(const char *text, uint64_t *memory, uint64_t *memory_free);
/* Everything but the caller's. -errno. */
int power_sample(struct power_sample *out);

struct power_use {
    uint32_t milli_busy;  /* of the cores, in thousandths of one, by what is not a job here */
    uint64_t memory_busy; /* bytes, the same */
};

/* Pure: between two samples. Without time between them, nothing is known: what was stays. */
void power_between(const struct power_sample *before, const struct power_sample *now,
                   uint32_t cores, struct power_use *use);

/* Processors that this process may use. */
uint32_t power_cores(void);

#endif
