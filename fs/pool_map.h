/*
 * Where a stretch of a file lies in the pool: one MAP answer of the centre, checked, as it does not
 * change any more. Counted by references. Pure.
 */
#ifndef UMBEL_FS_POOL_MAP_H
#define UMBEL_FS_POOL_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nodecache/pool/pool.h"
#include "star.pb-c.h"

/* Asked for at once: at most 8 extents for each 1 MiB, below what one answer holds. */
#define POOL_MAP_WINDOW (1ull << 30)
/* The centre's bound for one answer: there may be more extents. */
#define POOL_MAP_ANSWER_MAX 16384u

struct pool_extent {
    uint64_t offset, length; /* in the file */
    uint64_t pack, pack_offset, record;
    uint32_t record_offset, record_length;
    uint32_t number;     /* of the record in that pack */
    struct pool_key key; /* of the record; generation 0: unsealed */
};

struct pool_map {
    atomic_uint refs;
    uint64_t ino;
    uint64_t start, end; /* what it says is of [start, end) */
    uint64_t size;       /* of the file */
    size_t count;
    struct pool_extent extents[]; /* in order, without overlaps; gaps are zeros */
};

/* The answer to a request of [start, end). -EPROTO: it contradicts itself. -ESTALE: the file is
 * gone. */
int pool_map_new(uint64_t ino, uint64_t start, uint64_t end, const Star__MapReply *r,
                 struct pool_map **out);
struct pool_map *pool_map_ref(struct pool_map *m);
void pool_map_unref(struct pool_map *m); /* NULL: nothing */
/* The first extent that ends beyond `from`; NULL: none. */
const struct pool_extent *pool_map_find(const struct pool_map *m, uint64_t from);
/* The first byte of data at or beyond from, or (hole) of no data, within [from, m->end). m->end:
 * there is none. */
uint64_t pool_map_seek(const struct pool_map *m, uint64_t from, bool hole);

#endif
