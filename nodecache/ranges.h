/*
 * A set of byte ranges: sorted, disjoint, never touching (they are merged).
 *
 * Search is O(log n). Changes move at most one chunk of RANGES_CHUNK entries and the table of
 * chunks, so that a file written at a million random places stays cheap. A set of one range (the
 * usual file) lies inside the struct.
 *
 * Memory: insert and remove may have to allocate. ranges_prepare_...() makes the next insert or
 * remove of exactly that range sure to succeed; whoever must not fail halfway (a change that is
 * already journaled) calls it first. Not thread-safe: the owner's lock protects it.
 */
#ifndef UMBEL_NODE_RANGES_H
#define UMBEL_NODE_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 64 MiB of memory for one set; a file that is more scattered is refused with -E2BIG. */
#define RANGES_MAX   (4u << 20)
#define RANGES_CHUNK 128u

struct range {
    uint64_t start, end; /* [start, end) */
};

struct ranges_chunk;

struct ranges {
    uint64_t total;  /* bytes in the set */
    uint32_t count;  /* ranges in the set */
    uint32_t chunks; /* 0: the only range, if any, is in `one` */
    uint32_t room;   /* of table */
    struct range one;
    struct ranges_chunk **table;
    struct ranges_chunk *spare;
};

/* All zero is an empty set too. */
void ranges_init(struct ranges *r);
void ranges_clear(struct ranges *r);

/* -ENOMEM; -E2BIG: more than RANGES_MAX. An empty range (start >= end) changes nothing. */
int ranges_prepare_insert(struct ranges *r, uint64_t start, uint64_t end);
int ranges_prepare_remove(struct ranges *r, uint64_t start, uint64_t end);
int ranges_insert(struct ranges *r, uint64_t start, uint64_t end);
int ranges_remove(struct ranges *r, uint64_t start, uint64_t end);
/* Removes everything at and beyond limit. Never fails. */
void ranges_truncate(struct ranges *r, uint64_t limit);

/* The first range that ends beyond `at` (it may begin before it). */
bool ranges_next(const struct ranges *r, uint64_t at, struct range *out);
/* The first stretch of [at, limit) that is not in the set. */
bool ranges_gap(const struct ranges *r, uint64_t at, uint64_t limit, struct range *out);
bool ranges_contains(const struct ranges *r, uint64_t start, uint64_t end);
bool ranges_intersects(const struct ranges *r, uint64_t start, uint64_t end);
/* Bytes of [start, end) that are in the set. */
uint64_t ranges_bytes(const struct ranges *r, uint64_t start, uint64_t end);
/* How many aligned blocks of `block` bytes (a power of two) inside the aligned hull of [start, end)
 * hold a byte of the set. */
uint64_t ranges_blocks(const struct ranges *r, uint64_t start, uint64_t end, uint64_t block);
/* End of the last range, 0 if empty. */
uint64_t ranges_end(const struct ranges *r);

/* to must be empty. */
int ranges_copy(struct ranges *to, const struct ranges *from);
int ranges_add_all(struct ranges *to, const struct ranges *from);
int ranges_remove_all(struct ranges *from, const struct ranges *what);
/* Keeps in r only what is also in other. */
int ranges_keep(struct ranges *r, const struct ranges *other);

#endif
