/*
 * The flush: takes staged files, cuts them into records, writes packs to the pool, has the centre
 * confirm them, and only then counts the bytes as clean.
 *
 * When: a file has been staged longer than the flush age; the store is above its high-water mark
 * and eviction is not enough; somebody asks. FLUSH_THREADS work at once, each on files of its own
 * (file->flushing, under the store's staged-list lock).
 *
 * A group of files makes one Confirm; a file's cut is never split, so a large file brings several
 * packs. While a pack is being synced the next one is written. A lost answer is asked for again
 * with the same packs and cut numbers; the centre takes a cut once. When the pool or the centre
 * fails, the cut ends unconfirmed, everything stays staged, and the flush backs off. A file whose
 * own bytes cannot be read is left out and backs off alone. Cut number and lowest pack are on
 * stable storage before a Confirm is sent.
 *
 * Locks: flush->lock (leaf); file->lock inside for each piece of work; neither is held during calls
 * of pool and centre.
 */
#ifndef UMBEL_NODE_FLUSH_H
#define UMBEL_NODE_FLUSH_H

#include "nodecache/store.h"

#define FLUSH_THREADS 2
/* Files in one group, besides those of one pack's size. With one record each the Confirm stays
 * below 1 MiB. */
#define FLUSH_GROUP_FILES 4096
/* Indices in the cut of one file: with one record each of 40 bytes the Confirm fits a frame. Only a
 * file with more than 128 GiB staged has more: the rest goes with its next cut. */
#define FLUSH_INDICES_MAX (128u << 10)
/* A 1 MiB index with so many extents is written whole. */
#define FLUSH_MERGE_EXTENTS  6
#define FLUSH_BACKOFF_MIN_MS 500
#define FLUSH_BACKOFF_MAX_MS 30000
#define FLUSH_ALLOC_PACKS    16

struct flush;

int flush_start(struct store *s, struct pool *pool, const struct centre_calls *centre,
                void *centre_ctx, struct flush **out);
void flush_stop(struct flush *fl);

struct flush_result {
    uint64_t files, bytes, failed;
    char detail[NODE_DETAIL];
};
/* Waits until what is staged now of these inodes (count 0: of all) is confirmed, or a round has
 * failed, or the deadline: -ETIMEDOUT. */
int flush_wait(struct flush *fl, const uint64_t *inos, size_t count, int deadline_ms,
               struct flush_result *result);
/* A pack that was allocated will not be used: tells the centre, now or later, and removes what was
 * written of it. sent: the centre may have confirmed it; then the object goes only when it says so.
 */
void flush_discard(struct flush *fl, uint64_t pack, bool sent);
/* The pool is there again: what waits for it need not wait longer. */
void flush_pool_back(struct flush *fl);
/* "" while the pool answers. */
void flush_pool_error(struct flush *fl, char out[NODE_DETAIL]);

#endif
