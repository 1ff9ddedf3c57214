/*
 * Where files lie in the pool: the centre's MAP answers, kept by window of each file, least
 * recently used ones go.
 *
 * A window is immutable and counted by references. maps_forget() makes every later maps_get() ask
 * again; an answer that was asked for before is used by its asker but not kept. Threads: any; the
 * lock is a leaf and not held during calls of the centre.
 */
#ifndef UMBEL_NODE_MAPS_H
#define UMBEL_NODE_MAPS_H

#include <pthread.h>
#include <stdatomic.h>

#include <uthash.h>

#include "nodecache/centre_calls.h"
#include "nodecache/ranges.h"

/* Of a file; with 8 extents per index at most 2048 extents, so an answer fits a frame well. */
#define MAPS_WINDOW (256ull << 20)
/* The centre's bound for one answer: there may be more extents. */
#define MAPS_ANSWER_MAX 16384u
/* Extents kept in all: about 100 MiB of memory. */
#define MAPS_EXTENTS_MAX (1u << 20)

struct map_extent {
    uint64_t offset, length;
    uint64_t pack, pack_offset, record;
    uint32_t record_offset, record_length;
    uint32_t number;     /* in the pack, now */
    struct pool_key key; /* of the record; generation 0: unsealed */
};

struct map_key {
    uint64_t ino, start;
};
struct map_window {
    UT_hash_handle hh;
    struct map_key key;
    _Atomic unsigned refs;
    struct map_window *prev, *next;           /* newest first */
    struct map_window *file_prev, *file_next; /* of one file */
    bool gone;                                /* the centre knows no such inode */
    uint64_t size, version, home_epoch, cut_size, cut_version;
    struct timespec mtime;
    uint32_t count;
    struct map_extent extents[];
};

struct map_file {
    UT_hash_handle hh;
    uint64_t ino;
    struct map_window *windows;
};

struct maps {
    pthread_mutex_t lock;
    struct map_file *files;
    struct map_window *windows, *lru;
    uint64_t extents;
    uint64_t forgotten; /* counts maps_forget() */
};

void maps_init(struct maps *m);
void maps_destroy(struct maps *m);
/* The window that holds `offset`, with a reference. -EPROTO: the centre's answer makes no sense. */
int maps_get(struct maps *m, const struct centre_calls *centre, void *ctx, uint64_t ino,
             uint64_t offset, struct map_window **out);
/* The extents from offset to the end of the file, as many as one answer holds: go on behind the
 * last one until there are none. Always asks, and does not keep. */
int maps_rest(const struct centre_calls *centre, void *ctx, uint64_t ino, uint64_t offset,
              struct map_window **out);
/* The first stretch of the file in the pool that ends beyond `at`, however far away. *found: there
 * is one. */
int maps_next(struct maps *m, const struct centre_calls *centre, void *ctx, uint64_t ino,
              uint64_t at, struct range *out, bool *found);
void maps_put(struct map_window *w);
void maps_forget(struct maps *m, uint64_t ino);
/* The first extent of w that ends beyond offset; NULL: none. */
const struct map_extent *maps_find(const struct map_window *w, uint64_t offset);

#endif
