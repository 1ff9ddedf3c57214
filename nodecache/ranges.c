/* Sets of byte ranges: a table of sorted chunks, or one range in place. */
#include "nodecache/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct ranges_chunk {
    uint32_t count;
    struct range items[RANGES_CHUNK];
};

/* A position: chunk and index in it. */
struct place {
    uint32_t chunk, index;
};

void ranges_init(struct ranges *r)
{
    memset(r, 0, sizeof(*r));
}

void ranges_clear(struct ranges *r)
{
    for (uint32_t i = 0; i < r->chunks; i++)
        free(r->table[i]);
    free(r->table);
    free(r->spare);
    ranges_init(r);
}

static struct range *item(const struct ranges *r, struct place p)
{
    if (r->chunks == 0)
        return (struct range *)&r->one;
    return &r->table[p.chunk]->items[p.index];
}

static bool valid(const struct ranges *r, struct place p)
{
    if (r->chunks == 0)
        return p.index < r->count;
    return p.chunk < r->chunks;
}

static struct place step(const struct ranges *r, struct place p)
{
    p.index++;
    if (r->chunks > 0 && p.index >= r->table[p.chunk]->count) {
        p.chunk++;
        p.index = 0;
    }
    return p;
}

/* The first range with end >= at (touching counts). */
static struct place find(const struct ranges *r, uint64_t at)
{
    struct place p = {0, 0};

    if (r->chunks == 0) {
        p.index = r->count > 0 && r->one.end < at ? 1 : 0;
        return p;
    }
    uint32_t low = 0, high = r->chunks;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct ranges_chunk *c = r->table[middle];
        if (c->items[c->count - 1].end < at)
            low = middle + 1;
        else
            high = middle;
    }
    p.chunk = low;
    if (low == r->chunks)
        return p;
    const struct ranges_chunk *c = r->table[low];
    high = c->count;
    low = 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->items[middle].end < at)
            low = middle + 1;
        else
            high = middle;
    }
    p.index = low;
    return p;
}

/* Makes sure that one more range can be added at p without allocating. */
static int make_room(struct ranges *r, struct place p)
{
    if (r->count >= RANGES_MAX)
        return -E2BIG;
    if (r->chunks == 0 && r->count == 0)
        return 0;
    if (r->chunks > 0) {
        uint32_t at = p.chunk < r->chunks ? p.chunk : r->chunks - 1;
        if (r->table[at]->count < RANGES_CHUNK)
            return 0;
    }
    if (r->chunks + 1 > r->room) {
        uint32_t room = r->room ? r->room * 2 : 4;
        struct ranges_chunk **table = realloc(r->table, room * sizeof(struct ranges_chunk *));
        if (!table)
            return -ENOMEM;
        r->table = table;
        r->room = room;
    }
    if (!r->spare)
        r->spare = malloc(sizeof(*r->spare));
    return r->spare ? 0 : -ENOMEM;
}

static void table_insert(struct ranges *r, uint32_t at, struct ranges_chunk *c)
{
    memmove(&r->table[at + 1], &r->table[at], (r->chunks - at) * sizeof(struct ranges_chunk *));
    r->table[at] = c;
    r->chunks++;
}

static void to_chunks(struct ranges *r)
{
    struct ranges_chunk *c = r->spare;

    r->spare = NULL;
    c->count = r->count;
    c->items[0] = r->one;
    r->table[0] = c;
    r->chunks = 1;
}

/* Inserts a range before place p; room was made. */
static void put(struct ranges *r, struct place p, struct range value)
{
    r->total += value.end - value.start;
    if (r->chunks == 0 && r->count == 0) {
        r->one = value;
        r->count = 1;
        return;
    }
    if (r->chunks == 0)
        to_chunks(r);
    if (p.chunk >= r->chunks) {
        p.chunk = r->chunks - 1;
        p.index = r->table[p.chunk]->count;
    }
    struct ranges_chunk *c = r->table[p.chunk];
    if (c->count == RANGES_CHUNK) {
        /* At the very end a fresh chunk keeps sequential fills dense; elsewhere split in halves. */
        uint32_t keep = p.index == RANGES_CHUNK ? RANGES_CHUNK : RANGES_CHUNK / 2;
        struct ranges_chunk *next = r->spare;
        r->spare = NULL;
        next->count = RANGES_CHUNK - keep;
        memcpy(next->items, &c->items[keep], next->count * sizeof(struct range));
        c->count = keep;
        table_insert(r, p.chunk + 1, next);
        if (p.index > keep || keep == RANGES_CHUNK) {
            p.index -= keep;
            c = next;
        }
    }
    memmove(&c->items[p.index + 1], &c->items[p.index],
            (c->count - p.index) * sizeof(struct range));
    c->items[p.index] = value;
    c->count++;
    r->count++;
}

/* Removes the range at p; p then stands at the next one. */
static struct place cut_out(struct ranges *r, struct place p)
{
    r->total -= item(r, p)->end - item(r, p)->start;
    r->count--;
    if (r->chunks == 0)
        return p;
    struct ranges_chunk *c = r->table[p.chunk];
    memmove(&c->items[p.index], &c->items[p.index + 1],
            (c->count - p.index - 1) * sizeof(struct range));
    c->count--;
    if (c->count == 0) {
        free(c);
        memmove(&r->table[p.chunk], &r->table[p.chunk + 1],
                (r->chunks - p.chunk - 1) * sizeof(struct ranges_chunk *));
        r->chunks--;
        p.index = 0;
    } else if (p.index == c->count) {
        p.chunk++;
        p.index = 0;
    }
    return p;
}

int ranges_prepare_insert(struct ranges *r, uint64_t start, uint64_t end)
{
    struct place p = find(r, start);

    if (start >= end || (valid(r, p) && item(r, p)->start <= end))
        return 0; /* nothing, or an old one grows */
    return make_room(r, p);
}

int ranges_prepare_remove(struct ranges *r, uint64_t start, uint64_t end)
{
    if (start >= end)
        return 0;
    struct place p = find(r, start + 1);
    if (!valid(r, p) || item(r, p)->start >= start || item(r, p)->end <= end)
        return 0; /* none is split */
    return make_room(r, p);
}

int ranges_insert(struct ranges *r, uint64_t start, uint64_t end)
{
    if (start >= end)
        return 0;
    struct place p = find(r, start);
    if (!valid(r, p) || item(r, p)->start > end) {
        int rc = make_room(r, p);
        if (rc < 0)
            return rc;
        put(r, p, (struct range){start, end});
        return 0;
    }
    struct range *i = item(r, p);
    if (i->start > start) {
        r->total += i->start - start;
        i->start = start;
    }
    if (i->end >= end)
        return 0;
    /* Grow to the end, swallowing what is reached. */
    struct place q = step(r, p);
    uint64_t reach = end;
    while (valid(r, q) && item(r, q)->start <= reach) {
        if (item(r, q)->end > reach)
            reach = item(r, q)->end;
        q = cut_out(r, q);
    }
    i = item(r, p);
    r->total += reach - i->end;
    i->end = reach;
    return 0;
}

int ranges_remove(struct ranges *r, uint64_t start, uint64_t end)
{
    if (start >= end)
        return 0;
    struct place p = find(r, start + 1);
    while (valid(r, p)) {
        struct range *i = item(r, p);
        if (i->start >= end)
            break;
        if (i->start < start && i->end > end) {
            int rc = make_room(r, p);
            if (rc < 0)
                return rc;
            i = item(r, p);
            struct range tail = {end, i->end};
            r->total -= i->end - start;
            i->end = start;
            put(r, (struct place){p.chunk, p.index + 1}, tail);
            break;
        }
        if (i->start < start) {
            r->total -= i->end - start;
            i->end = start;
            p = step(r, p);
        } else if (i->end > end) {
            r->total -= end - i->start;
            i->start = end;
            break;
        } else {
            p = cut_out(r, p);
        }
    }
    return 0;
}

void ranges_truncate(struct ranges *r, uint64_t limit)
{
    /* Never splits, so never allocates. */
    (void)ranges_remove(r, limit, UINT64_MAX);
}

bool ranges_next(const struct ranges *r, uint64_t at, struct range *out)
{
    if (at == UINT64_MAX)
        return false;
    struct place p = find(r, at + 1);
    if (!valid(r, p))
        return false;
    *out = *item(r, p);
    return true;
}

bool ranges_gap(const struct ranges *r, uint64_t at, uint64_t limit, struct range *out)
{
    struct range next;

    while (at < limit) {
        if (!ranges_next(r, at, &next) || next.start >= limit) {
            *out = (struct range){at, limit};
            return true;
        }
        if (next.start > at) {
            *out = (struct range){at, next.start};
            return true;
        }
        at = next.end;
    }
    return false;
}

bool ranges_contains(const struct ranges *r, uint64_t start, uint64_t end)
{
    struct range next;

    return start >= end || (ranges_next(r, start, &next) && next.start <= start && next.end >= end);
}

bool ranges_intersects(const struct ranges *r, uint64_t start, uint64_t end)
{
    struct range next;

    return start < end && ranges_next(r, start, &next) && next.start < end;
}

uint64_t ranges_bytes(const struct ranges *r, uint64_t start, uint64_t end)
{
    struct range next;
    uint64_t sum = 0;

    while (start < end && ranges_next(r, start, &next) && next.start < end) {
        uint64_t from = next.start > start ? next.start : start;
        uint64_t to = next.end < end ? next.end : end;
        sum += to - from;
        start = to;
    }
    return sum;
}

uint64_t ranges_blocks(const struct ranges *r, uint64_t start, uint64_t end, uint64_t block)
{
    struct range next;
    uint64_t sum = 0;

    if (start >= end)
        return 0;
    uint64_t at = start & ~(block - 1);
    uint64_t limit =
        end > UINT64_MAX - block ? UINT64_MAX & ~(block - 1) : (end + block - 1) & ~(block - 1);
    while (at < limit && ranges_next(r, at, &next) && next.start < limit) {
        uint64_t first = (next.start > at ? next.start : at) / block;
        uint64_t last = ((next.end < limit ? next.end : limit) - 1) / block;
        sum += last - first + 1;
        at = (last + 1) * block;
    }
    return sum;
}

uint64_t ranges_end(const struct ranges *r)
{
    if (r->count == 0)
        return 0;
    if (r->chunks == 0)
        return r->one.end;
    const struct ranges_chunk *c = r->table[r->chunks - 1];
    return c->items[c->count - 1].end;
}

int ranges_copy(struct ranges *to, const struct ranges *from)
{
    return ranges_add_all(to, from);
}

int ranges_add_all(struct ranges *to, const struct ranges *from)
{
    struct range next;
    uint64_t at = 0;

    while (ranges_next(from, at, &next)) {
        int rc = ranges_insert(to, next.start, next.end);
        if (rc < 0)
            return rc;
        at = next.end;
    }
    return 0;
}

int ranges_remove_all(struct ranges *from, const struct ranges *what)
{
    struct range next;
    uint64_t at = 0;

    while (ranges_next(what, at, &next)) {
        int rc = ranges_remove(from, next.start, next.end);
        if (rc < 0)
            return rc;
        at = next.end;
    }
    return 0;
}

int ranges_keep(struct ranges *r, const struct ranges *other)
{
    struct range gap;
    uint64_t at = 0, end = ranges_end(r);

    while (ranges_gap(other, at, end, &gap)) {
        int rc = ranges_remove(r, gap.start, gap.end);
        if (rc < 0)
            return rc;
        at = gap.end;
    }
    return 0;
}
