/*
 * Checksums of clean bytes, one for each block of SUM_BLOCK bytes of a file that holds any.
 *
 * A sum covers all clean bytes (present and not staged) of its block, in ascending order and
 * without what lies between; so it holds until the block's clean bytes become more or fewer, and
 * whoever changes that drops it first (index.c does) and makes a new one (clean.h). A sum is never
 * zero: zero stands for none.
 *
 * Why blocks of 32 KiB: a sum costs 8 bytes of the index and of memory, so 1 TiB of cache takes 256
 * MiB; a read of 4 KiB reads and hashes 32, which takes some 6 us from the page cache (measured).
 *
 * Not thread-safe: file->lock protects it.
 */
#ifndef UMBEL_NODE_SUMS_H
#define UMBEL_NODE_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SUM_BLOCK 32768u
/* Charged against the capacity for each: two checkpoints and the journal between them. */
#define SUM_CHARGE 24u

struct sums_part;

struct sums {
    struct sums_part *parts; /* by the index of the file, of NODE_INDEX bytes */
    uint64_t count;
};

/* All zero is an empty table. */
void sums_clear(struct sums *s);
uint64_t sums_get(const struct sums *s, uint64_t block);
/* -ENOMEM: nothing was set. sum 0 takes it away, and never fails. */
int sums_set(struct sums *s, uint64_t block, uint64_t sum);
/* Takes away those of all blocks that have a byte in [start, end). */
void sums_drop(struct sums *s, uint64_t start, uint64_t end);
/* Calls fn for each row of sums of neighbouring blocks, in no order. */
void sums_each(const struct sums *s,
               void (*fn)(void *arg, uint64_t block, uint32_t count, const uint64_t *sums),
               void *arg);

/* The sum of length bytes (at most SUM_BLOCK) as the clean bytes of a block. */
uint64_t sum_of(uint64_t block, const void *bytes, size_t length);

#endif
