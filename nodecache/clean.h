/*
 * Clean bytes of the flat files are verified before they are used: a disk that gives back something
 * else is found, and what it spoiled comes from the pool again.
 *
 * Whoever makes the clean bytes of a file more or fewer calls clean_begin before and clean_end
 * after. In between the sums of the blocks that are touched are gone from the index; if the process
 * ends there, the next start finds clean bytes without a sum and drops them (the pool has them).
 * Staged bytes have no sums: they are what the node was told, and the flush seals them.
 *
 * All functions: file->lock is held.
 */
#ifndef UMBEL_NODE_CLEAN_H
#define UMBEL_NODE_CLEAN_H

#include "nodecache/store_private.h"

/* Verifies the clean bytes in all blocks that [start, end) touches. -EAGAIN: some were damaged;
 * that is noted as damage, and they are absent now. Other errors: the journal's. */
int clean_verify(struct store *s, struct file *f, uint64_t start, uint64_t end);
/* The first clean stretch that ends beyond `at`, cut at `at` and limit. */
bool clean_next(const struct file *f, uint64_t at, uint64_t limit, struct range *out);
/* Is a byte of [start, end) clean? */
bool clean_touched(const struct file *f, uint64_t start, uint64_t end);
/* Bytes in [start, end) are going to become clean, or to be clean no more: verifies the blocks at
 * its edges, whose other clean bytes get a new sum afterwards. Damaged ones are made absent. */
int clean_begin(struct store *s, struct file *f, uint64_t start, uint64_t end);
/* New sums for the clean bytes of all blocks that [start, end) touches and that have none. data
 * (may be NULL) holds the bytes [start, end); what it does not have is read. */
int clean_end(struct store *s, struct file *f, uint64_t start, uint64_t end, const uint8_t *data);
/* After a start, before anybody uses f: clean bytes without a sum are dropped. */
int clean_recover(struct file *f);
/* Is there a sum wherever there are clean bytes, and nowhere else? For checks. */
bool clean_sums_fit(const struct file *f);

/* Sums of what a cut has read, for clean_end of the same bytes (they need not be read again). */
struct clean_piece {
    uint64_t start, end, sum; /* inside one block */
};
struct clean_pieces {
    struct clean_piece *all; /* ascending */
    size_t count, room;
};
int clean_pieces_add(struct clean_pieces *p, uint64_t start, uint64_t end, const uint8_t *data);
void clean_pieces_clear(struct clean_pieces *p);
/* As clean_end for all blocks of the file that have none. */
int clean_end_pieces(struct store *s, struct file *f, const struct ranges *where,
                     const struct clean_pieces *p);

#endif
