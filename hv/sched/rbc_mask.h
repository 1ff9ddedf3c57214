/*
 * Sets of processors. Every operation takes RBC_WORDS steps, whatever is in the set.
 */
#ifndef UMBEL_HV_SCHED_RBC_MASK_H
#define UMBEL_HV_SCHED_RBC_MASK_H

/* The hypervisor has its own headers for these: -DRBC_TYPES_H='"..."'. */
#ifdef RBC_TYPES_H
#include RBC_TYPES_H
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

/* Processors are numbered from 0; Debian's Xen is built for 256. A multiple of 64. */
#ifndef RBC_CPUS_MAX
#define RBC_CPUS_MAX 256
#endif
#define RBC_WORDS (RBC_CPUS_MAX / 64)
#define RBC_NONE  UINT32_C(0xffffffff) /* no processor */

struct rbc_mask {
    uint64_t w[RBC_WORDS];
};

static inline void rbc_mask_set(struct rbc_mask *m, uint32_t cpu)
{
    m->w[cpu / 64] |= (uint64_t)1 << cpu % 64;
}

static inline void rbc_mask_clear(struct rbc_mask *m, uint32_t cpu)
{
    m->w[cpu / 64] &= ~((uint64_t)1 << cpu % 64);
}

static inline void rbc_mask_put(struct rbc_mask *m, uint32_t cpu, bool in)
{
    if (in)
        rbc_mask_set(m, cpu);
    else
        rbc_mask_clear(m, cpu);
}

static inline bool rbc_mask_has(const struct rbc_mask *m, uint32_t cpu)
{
    return cpu < RBC_CPUS_MAX && (m->w[cpu / 64] >> cpu % 64 & 1) != 0;
}

static inline bool rbc_mask_empty(const struct rbc_mask *m)
{
    uint64_t any = 0;

    for (unsigned n = 0; n < RBC_WORDS; n++)
        any |= m->w[n];
    return any == 0;
}

static inline struct rbc_mask rbc_mask_all(void)
{
    struct rbc_mask m;

    for (unsigned n = 0; n < RBC_WORDS; n++)
        m.w[n] = ~(uint64_t)0;
    return m;
}

static inline struct rbc_mask rbc_mask_of(uint32_t cpu)
{
    struct rbc_mask m;

    for (unsigned n = 0; n < RBC_WORDS; n++)
        m.w[n] = 0;
    rbc_mask_set(&m, cpu);
    return m;
}

static inline struct rbc_mask rbc_mask_and(const struct rbc_mask *a, const struct rbc_mask *b)
{
    struct rbc_mask m;

    for (unsigned n = 0; n < RBC_WORDS; n++)
        m.w[n] = a->w[n] & b->w[n];
    return m;
}

/* The first processor of the set after cpu, going round; cpu itself comes last. RBC_NONE: empty. */
static inline uint32_t rbc_mask_next(const struct rbc_mask *m, uint32_t cpu)
{
    uint32_t from = cpu < RBC_CPUS_MAX - 1 ? cpu + 1 : 0;
    uint64_t word = m->w[from / 64] & (~(uint64_t)0 << from % 64);

    for (uint32_t n = 0, at = from / 64; n <= RBC_WORDS; n++) {
        if (word != 0)
            return at * 64 + (uint32_t)__builtin_ctzll(word);
        at = (at + 1) % RBC_WORDS;
        word = m->w[at];
    }
    return RBC_NONE;
}

#endif
