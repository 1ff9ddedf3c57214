#include "fs/pool_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nodecache/pool/pool.h"

static bool extent_ok(const Star__Extent *e, uint64_t from)
{
    return e->length > 0 && e->offset >= from && e->offset <= INT64_MAX - e->length &&
           e->record_length > 0 && e->record_length <= POOL_RECORD_MAX &&
           e->record_offset < e->record_length && e->length <= e->record_length - e->record_offset;
}

/* A full answer ends where its last extent does. */
static uint64_t answered_to(const Star__MapReply *r, uint64_t end)
{
    const Star__Extent *last = r->n_extents > 0 ? r->extents[r->n_extents - 1] : NULL;

    if (r->n_extents < POOL_MAP_ANSWER_MAX || last->offset + last->length >= end)
        return end;
    return last->offset + last->length;
}

int pool_map_new(uint64_t ino, uint64_t start, uint64_t end, const Star__MapReply *r,
                 struct pool_map **out)
{
    uint64_t from = 0;

    if (r->gone)
        return -ESTALE;
    struct pool_map *m = calloc(1, sizeof(*m) + r->n_extents * sizeof(m->extents[0]));
    if (!m)
        return -ENOMEM;
    for (size_t k = 0; k < r->n_extents; k++) {
        const Star__Extent *e = r->extents[k];
        if (!extent_ok(e, from)) {
            free(m);
            return -EPROTO;
        }
        from = e->offset + e->length;
        m->extents[k] = (struct pool_extent){.offset = e->offset,
                                             .length = e->length,
                                             .pack = e->pack,
                                             .pack_offset = e->pack_offset,
                                             .number = e->number,
                                             .record = e->record,
                                             .record_offset = (uint32_t)e->record_offset,
                                             .record_length = (uint32_t)e->record_length};
        int rc = pool_key_take(&m->extents[k].key, e->key_generation, e->key.data, e->key.len);
        if (e->key.len > 0)
            explicit_bzero(e->key.data, e->key.len);
        if (rc < 0) {
            free(m);
            return rc;
        }
    }
    atomic_store(&m->refs, 1);
    m->ino = ino;
    m->start = start;
    m->end = answered_to(r, end);
    m->size = r->size;
    m->count = r->n_extents;
    if (m->end <= start) {
        free(m);
        return -EPROTO;
    }
    *out = m;
    return 0;
}

struct pool_map *pool_map_ref(struct pool_map *m)
{
    atomic_fetch_add(&m->refs, 1);
    return m;
}

void pool_map_unref(struct pool_map *m)
{
    if (m && atomic_fetch_sub(&m->refs, 1) == 1) {
        explicit_bzero(m->extents, m->count * sizeof(m->extents[0])); /* keys */
        free(m);
    }
}

const struct pool_extent *pool_map_find(const struct pool_map *m, uint64_t from)
{
    size_t low = 0, high = m->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct pool_extent *e = &m->extents[middle];
        if (e->offset + e->length > from)
            high = middle;
        else
            low = middle + 1;
    }
    return low < m->count ? &m->extents[low] : NULL;
}

uint64_t pool_map_seek(const struct pool_map *m, uint64_t from, bool hole)
{
    const struct pool_extent *e = pool_map_find(m, from), *end = m->extents + m->count;

    if (!hole) {
        if (!e || e->offset >= m->end)
            return m->end;
        return e->offset > from ? e->offset : from;
    }
    while (e && e < end && e->offset <= from && from < m->end) {
        from = e->offset + e->length;
        e++;
    }
    return from < m->end ? from : m->end;
}
