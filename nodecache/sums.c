#include "nodecache/sums.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <xxhash.h>

#define PART_BLOCKS 32u /* 1 MiB: most files are smaller, and have one part of a few sums */

struct sums_part {
    UT_hash_handle hh;
    uint64_t number;
    uint32_t room, used;
    uint64_t sums[]; /* room of them, for the part's first blocks */
};

static struct sums_part *part_find(const struct sums *s, uint64_t number)
{
    struct sums_part *p;

    HASH_FIND(hh, s->parts, &number, sizeof(number), p);
    return p;
}

static void part_free(struct sums *s, struct sums_part *p)
{
    s->count -= p->used;
    HASH_DEL(s->parts, p);
    free(p);
}

void sums_clear(struct sums *s)
{
    struct sums_part *p, *next;

    HASH_ITER (hh, s->parts, p, next)
        part_free(s, p);
}

uint64_t sums_get(const struct sums *s, uint64_t block)
{
    struct sums_part *p = part_find(s, block / PART_BLOCKS);
    uint32_t at = block % PART_BLOCKS;

    return p && at < p->room ? p->sums[at] : 0;
}

static uint32_t room_for(uint32_t at)
{
    uint32_t room = 1;

    while (room <= at)
        room *= 2;
    return room;
}

/* The part with room for the block. NULL: no memory. */
static struct sums_part *part_make(struct sums *s, uint64_t block)
{
    struct sums_part *old = part_find(s, block / PART_BLOCKS);
    uint32_t room = room_for(block % PART_BLOCKS);

    if (old && old->room >= room)
        return old;
    struct sums_part *p = calloc(1, sizeof(*p) + room * sizeof(p->sums[0]));
    if (!p)
        return NULL;
    p->number = block / PART_BLOCKS;
    p->room = room;
    if (old) {
        p->used = old->used;
        memcpy(p->sums, old->sums, old->room * sizeof(p->sums[0]));
        HASH_DEL(s->parts, old);
        free(old);
    }
    HASH_ADD(hh, s->parts, number, sizeof(p->number), p);
    return p;
}

static void take_away(struct sums *s, struct sums_part *p, uint32_t at)
{
    if (at >= p->room || p->sums[at] == 0)
        return;
    p->sums[at] = 0;
    p->used--;
    s->count--;
}

int sums_set(struct sums *s, uint64_t block, uint64_t sum)
{
    uint32_t at = block % PART_BLOCKS;
    struct sums_part *p;

    if (sum == 0) {
        sums_drop(s, block * SUM_BLOCK, (block + 1) * SUM_BLOCK);
        return 0;
    }
    p = part_make(s, block);
    if (!p)
        return -ENOMEM;
    p->used += p->sums[at] == 0;
    s->count += p->sums[at] == 0;
    p->sums[at] = sum;
    return 0;
}

static void part_drop(struct sums *s, struct sums_part *p, uint64_t first, uint64_t last)
{
    uint64_t begin = p->number * PART_BLOCKS;

    if (last < begin || first >= begin + PART_BLOCKS)
        return;
    for (uint32_t at = first > begin ? (uint32_t)(first - begin) : 0;
         at < p->room && begin + at <= last; at++)
        take_away(s, p, at);
    if (p->used == 0)
        part_free(s, p);
}

void sums_drop(struct sums *s, uint64_t start, uint64_t end)
{
    struct sums_part *p, *next;

    if (start >= end || s->count == 0)
        return;
    uint64_t first = start / SUM_BLOCK, last = (end - 1) / SUM_BLOCK;
    if (last / PART_BLOCKS - first / PART_BLOCKS < HASH_COUNT(s->parts)) {
        for (uint64_t number = first / PART_BLOCKS; number <= last / PART_BLOCKS; number++) {
            p = part_find(s, number);
            if (p)
                part_drop(s, p, first, last);
        }
        return;
    }
    HASH_ITER (hh, s->parts, p, next)
        part_drop(s, p, first, last);
}

void sums_each(const struct sums *s,
               void (*fn)(void *arg, uint64_t block, uint32_t count, const uint64_t *sums),
               void *arg)
{
    struct sums_part *p, *next;

    HASH_ITER (hh, s->parts, p, next) {
        for (uint32_t at = 0; at < p->room;) {
            uint32_t end = at;
            while (end < p->room && p->sums[end] != 0)
                end++;
            if (end > at)
                fn(arg, p->number * PART_BLOCKS + at, end - at, p->sums + at);
            at = end + 1;
        }
    }
}

uint64_t sum_of(uint64_t block, const void *bytes, size_t length)
{
    uint64_t sum = XXH3_64bits_withSeed(bytes, length, block);

    return sum != 0 ? sum : 1;
}
