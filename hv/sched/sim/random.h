/* Random numbers of the simulator: integers only, the same on every machine. */
#ifndef UMBEL_HV_SCHED_SIM_RANDOM_H
#define UMBEL_HV_SCHED_SIM_RANDOM_H

#include <stdint.h>

struct sim_random {
    uint64_t state;
};

/* splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t sim_random(struct sim_random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 .. n - 1, n > 0. */
static inline uint64_t sim_random_below(struct sim_random *r, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)sim_random(r) * n) >> 64);
}

/* Exponential, by von Neumann's method: comparisons of uniform numbers only. At most 64 means. */
static inline int64_t sim_random_exponential(struct sim_random *r, int64_t mean)
{
    for (uint64_t whole = 0; whole < 64; whole++) {
        uint64_t first = sim_random(r), last = first, next;
        unsigned n = 1;
        while ((next = sim_random(r)) < last) {
            last = next;
            n++;
        }
        if (n % 2 == 1)
            return (int64_t)whole * mean +
                   (int64_t)(((unsigned __int128)first * (uint64_t)mean) >> 64);
    }
    return 64 * mean;
}

#endif
