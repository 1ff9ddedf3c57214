/*
 * Records read from the pool, in memory: bounded, the least recently used go. A record never
 * changes, so what is here is good for ever. Pure: no locks, no I/O.
 */
#ifndef UMBEL_FS_RECORD_CACHE_H
#define UMBEL_FS_RECORD_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

enum record_state { RECORD_FETCHING, RECORD_READY, RECORD_FAILED };

struct record {
    UT_hash_handle hh;
    struct record *prev, *next; /* of those that nobody uses, the least recently used first */
    uint64_t id;
    uint32_t length;
    unsigned users;
    enum record_state state;
    int error; /* FAILED: why */
    uint8_t data[];
};

struct record_cache {
    struct record *all, *unused;
    size_t bytes, limit;
};

/* Marks it used. NULL: it is not there. */
struct record *record_cache_get(struct record_cache *c, uint64_t id);
/* A new one, FETCHING, used once. NULL: all that is here is in use, or there is no memory. */
struct record *record_cache_add(struct record_cache *c, uint64_t id, uint32_t length);
/* It is not used any more. What has FAILED goes with its last user. */
void record_cache_put(struct record_cache *c, struct record *r);
bool record_cache_has(struct record_cache *c, uint64_t id);
void record_cache_free(struct record_cache *c); /* nothing is used */

#endif
