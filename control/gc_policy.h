/*
 * gc: which packs are worth rewriting. Plain C without I/O.
 *
 * A pack of which so little lives that a new one with the same records would take less than
 * `ratio` percent of it, is. What the new one takes is estimated from above, so a pack just written
 * by gc never is a candidate, however small its records are. Young packs are left alone: what was
 * just written is often just about to be overwritten or deleted whole.
 *
 * Packs that were sealed under older keys of the cloud are rewritten too when that is asked for,
 * whatever lives in them.
 */
#ifndef UMBEL_CONTROL_GC_POLICY_H
#define UMBEL_CONTROL_GC_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gc_pack {
    uint64_t id, size, live_bytes, live_records;
    int64_t age; /* seconds */
    bool old;    /* sealed under an older key */
};

struct gc_limits {
    unsigned ratio;     /* percent; 0: no pack is rewritten */
    int64_t age;        /* seconds that a pack must have */
    uint64_t bytes;     /* live bytes that one run moves, about: a first pack is always taken */
    bool reseal;        /* rewrite what is old */
    uint64_t freed_min; /* less than that, all packs of the run together, is not worth the work */
};

/* Upper bound of the size of a pack with these records. */
uint64_t gc_rewritten_size(uint64_t live_bytes, uint64_t live_records);
bool gc_is_candidate(const struct gc_pack *p, const struct gc_limits *l);
/* Sorts the candidates among packs[0..n) to the front, those that free most for each byte moved
 * first, and returns how many of them a run takes. */
size_t gc_choose(struct gc_pack *packs, size_t n, const struct gc_limits *l);

#endif
