/* LMDB behind few functions: keys, rows, cursors, and the memory of one command. */
#include "control/state_private.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

/* First chunk: all but the largest confirms. In all: as frame.h's bound on an unpacked body. */
#define ARENA_CHUNK ((size_t)256 << 10)
#define ARENA_MAX   ((size_t)128 << 20)

/* --- keys --- */

static void put_u64(uint8_t *at, uint64_t v)
{
    v = htobe64(v);
    memcpy(at, &v, sizeof(v));
}

struct key st_key1(uint64_t a)
{
    struct key k;

    k.len = 8;
    put_u64(k.bytes, a);
    return k;
}

struct key st_key2(uint64_t a, uint64_t b)
{
    struct key k;

    k.len = 16;
    put_u64(k.bytes, a);
    put_u64(k.bytes + 8, b);
    return k;
}

struct key st_key_name(uint64_t a, const void *name, size_t len)
{
    struct key k;

    if (len > STATE_NAME_MAX)
        len = STATE_NAME_MAX;
    k.len = 8 + len;
    put_u64(k.bytes, a);
    memcpy(k.bytes + 8, name, len);
    return k;
}

struct key st_key_copy(uint64_t ino, uint32_t node)
{
    struct key k;

    k.len = 12;
    put_u64(k.bytes, ino);
    node = htobe32(node);
    memcpy(k.bytes + 8, &node, sizeof(node));
    return k;
}

uint64_t st_key_u64(const MDB_val *key, size_t at)
{
    uint64_t v = 0;

    if (key->mv_size >= at + sizeof(v))
        memcpy(&v, (const uint8_t *)key->mv_data + at, sizeof(v));
    return be64toh(v);
}

bool st_under(const MDB_val *key, uint64_t prefix)
{
    return key->mv_size >= 8 && st_key_u64(key, 0) == prefix;
}

/* --- errors, transactions --- */

static int errno_of(int rc)
{
    switch (rc) {
    case MDB_MAP_FULL:
        return -ENOSPC;
    case MDB_VERSION_MISMATCH:
    case MDB_INVALID:
        return -EPROTO;
    default:
        return rc > 0 ? -rc : -EIO;
    }
}

int st_fail(struct state *s, int rc)
{
    if (rc == MDB_SUCCESS)
        return 0;
    if (rc == MDB_NOTFOUND)
        return -ENOENT;
    s->broken = errno_of(rc);
    return s->broken;
}

MDB_txn *st_txn(struct state *s)
{
    if (s->write)
        return s->write;
    if (s->reading)
        return s->read;
    int rc = s->read ? mdb_txn_renew(s->read) : mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->read);
    if (rc != MDB_SUCCESS) {
        st_fail(s, rc);
        return NULL;
    }
    s->reading = true;
    return s->read;
}

/* --- rows --- */

static MDB_val val_of(const struct key *k)
{
    return (MDB_val){.mv_size = k->len, .mv_data = (void *)k->bytes};
}

int st_get(struct state *s, enum db db, const struct key *k, MDB_val *val)
{
    MDB_txn *txn = st_txn(s);
    MDB_val key = val_of(k);

    return txn ? st_fail(s, mdb_get(txn, s->dbi[db], &key, val)) : s->broken;
}

int st_row(struct state *s, const MDB_val *val, void *row, size_t size)
{
    if (val->mv_size != size)
        return st_fail(s, MDB_CORRUPTED);
    memcpy(row, val->mv_data, size);
    return 0;
}

int st_get_row(struct state *s, enum db db, const struct key *k, void *row, size_t size)
{
    MDB_val val;
    int rc = st_get(s, db, k, &val);

    return rc < 0 ? rc : st_row(s, &val, row, size);
}

/* --- space --- */

/* A leaf that is changed for the first time in a row takes itself and what stands above it; a split
 * that the address does not show is in the sixteenth. */
#define LEAF_PAGES    3
#define CHANGES_SPLIT 16

/* A row at `at`, len bytes, was changed: counts the pages that this may have dirtied. */
static int note_dirty(struct state *s, enum db db, const void *at, size_t len)
{
    uintptr_t leaf = (uintptr_t)at & ~(uintptr_t)(s->page - 1);

    if (s->allocated == UINT64_MAX)
        return 0;
    s->dirty += s->page / CHANGES_SPLIT;
    if (len > s->page / 4) /* it may have pages of its own */
        s->dirty += (len / s->page + 2 + LEAF_PAGES) * s->page;
    else if (leaf != s->leaf[db])
        s->dirty += LEAF_PAGES * s->page;
    s->leaf[db] = leaf;
    return st_space_more(s);
}

static int put(struct state *s, enum db db, const struct key *k, MDB_val *val, unsigned flags)
{
    MDB_val key = val_of(k);
    size_t len = val->mv_size;
    int rc = st_fail(s, s->write ? mdb_put(s->write, s->dbi[db], &key, val, flags | MDB_RESERVE)
                                 : EROFS);

    return rc < 0 ? rc : note_dirty(s, db, val->mv_data, len);
}

static int put_copy(struct state *s, enum db db, const struct key *k, const void *from, size_t len,
                    unsigned flags)
{
    MDB_val v = {.mv_size = len};
    int rc = put(s, db, k, &v, flags);

    if (rc == 0 && len > 0)
        memcpy(v.mv_data, from, len);
    return rc;
}

int st_put(struct state *s, enum db db, const struct key *k, const void *val, size_t len)
{
    return put_copy(s, db, k, val, len, 0);
}

int st_append(struct state *s, enum db db, const struct key *k, const void *val, size_t len)
{
    return put_copy(s, db, k, val, len, MDB_APPEND);
}

int st_reserve(struct state *s, enum db db, const struct key *k, size_t len, void **val)
{
    MDB_val v = {.mv_size = len};
    int rc = put(s, db, k, &v, 0);

    *val = v.mv_data;
    return rc;
}

int st_del(struct state *s, enum db db, const struct key *k)
{
    MDB_val key = val_of(k), val;

    if (!s->write)
        return st_fail(s, EROFS);
    int rc = st_fail(s, mdb_get(s->write, s->dbi[db], &key, &val));
    if (rc == 0)
        rc = note_dirty(s, db, val.mv_data, 0);
    return rc < 0 ? rc : st_fail(s, mdb_del(s->write, s->dbi[db], &key, NULL));
}

/* --- cursors --- */

int st_cursor(struct state *s, enum db db, MDB_cursor **out)
{
    MDB_txn *txn = st_txn(s);

    *out = NULL;
    return txn ? st_fail(s, mdb_cursor_open(txn, s->dbi[db], out)) : s->broken;
}

int st_seek(struct state *s, MDB_cursor *cur, const struct key *k, MDB_val *key, MDB_val *val)
{
    *key = val_of(k);
    return st_fail(s, mdb_cursor_get(cur, key, val, MDB_SET_RANGE));
}

int st_next(struct state *s, MDB_cursor *cur, MDB_val *key, MDB_val *val)
{
    return st_fail(s, mdb_cursor_get(cur, key, val, MDB_NEXT));
}

int st_prev(struct state *s, MDB_cursor *cur, MDB_val *key, MDB_val *val)
{
    return st_fail(s, mdb_cursor_get(cur, key, val, MDB_PREV));
}

int st_last(struct state *s, MDB_cursor *cur, MDB_val *key, MDB_val *val)
{
    return st_fail(s, mdb_cursor_get(cur, key, val, MDB_LAST));
}

int st_cursor_del(struct state *s, enum db db, MDB_cursor *cur, const MDB_val *val)
{
    int rc = note_dirty(s, db, val->mv_data, 0);

    return rc < 0 ? rc : st_fail(s, mdb_cursor_del(cur, 0));
}

/* --- memory of one command --- */

struct arena_chunk {
    struct arena_chunk *next;
    size_t size, used;
    max_align_t data[];
};

/* The first chunk stays for the next command. */
void st_arena_reset(struct state *s)
{
    struct arena *a = &s->arena;

    while (a->chunk && a->chunk->next) {
        struct arena_chunk *dead = a->chunk;
        a->chunk = dead->next;
        free(dead);
    }
    if (a->chunk)
        a->chunk->used = 0;
    a->total = 0;
}

void st_arena_free(struct state *s)
{
    st_arena_reset(s);
    free(s->arena.chunk);
    s->arena.chunk = NULL;
}

void *st_alloc(struct state *s, size_t size)
{
    struct arena *a = &s->arena;
    struct arena_chunk *c = a->chunk;

    if (size > ARENA_MAX)
        return NULL;
    size = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
    if (size > ARENA_MAX - a->total)
        return NULL;
    if (!c || size > c->size - c->used) {
        size_t room = size > ARENA_CHUNK ? size : ARENA_CHUNK;
        c = malloc(sizeof(*c) + room);
        if (!c) {
            s->broken = -ENOMEM;
            return NULL;
        }
        *c = (struct arena_chunk){.next = a->chunk, .size = room};
        a->chunk = c;
    }
    void *p = (uint8_t *)c->data + c->used;
    c->used += size;
    a->total += size;
    return p;
}

int st_buffer_room(struct state *s, struct buffer *b, size_t len)
{
    if (len > b->size) {
        uint8_t *grown = realloc(b->data, len * 2);
        if (!grown) {
            s->broken = -ENOMEM;
            return -ENOMEM;
        }
        b->data = grown;
        b->size = len * 2;
    }
    b->len = len;
    return 0;
}
