/*
 * File maps: extents from ranges of a file to records. A record's references are counted in
 * extents, a pack's live bytes and records in records that have any. Extents of a file do not
 * overlap and end at or before its size.
 */
#include "control/state_private.h"

#include <errno.h>

struct extent {
    uint64_t at;
    struct extent_row r;
};

/* --- records --- */

int st_record_load(struct state *s, uint64_t record, struct record_row *r)
{
    struct key k = st_key1(record);

    return st_get_row(s, DB_RECORDS, &k, r, sizeof(*r));
}

static int record_load(struct state *s, uint64_t record, struct record_row *r)
{
    int rc = st_record_load(s, record, r);

    return rc == -ENOENT ? st_fail(s, MDB_CORRUPTED) : rc; /* an extent points to it */
}

static bool was_moved(uint64_t record, const struct record_row *r)
{
    return r->pack != record >> STATE_RECORD_BITS;
}

static int moved_forget(struct state *s, uint64_t record, const struct record_row *r)
{
    struct key k = st_key2(r->pack, r->number);
    int rc = was_moved(record, r) ? st_del(s, DB_MOVED, &k) : 0;

    return rc == -ENOENT ? st_fail(s, MDB_CORRUPTED) : rc;
}

int st_record_place(struct state *s, uint64_t record, const struct record_row *from,
                    const struct record_row *r)
{
    struct key k = st_key1(record), moved = st_key2(r->pack, r->number);
    int rc = moved_forget(s, record, from);

    if (rc == 0 && was_moved(record, r))
        rc = st_put(s, DB_MOVED, &moved, &record, sizeof(record));
    return rc < 0 ? rc : st_put(s, DB_RECORDS, &k, r, sizeof(*r));
}

static int record_refs(struct state *s, uint64_t record, int delta)
{
    struct key k = st_key1(record);
    struct record_row r;
    int rc = record_load(s, record, &r);

    if (rc < 0)
        return rc;
    r.refs = (uint32_t)((int64_t)r.refs + delta);
    if (r.refs > 0)
        return st_put(s, DB_RECORDS, &k, &r, sizeof(r));
    s->meta.totals.records--;
    rc = moved_forget(s, record, &r);
    if (rc == 0)
        rc = st_del(s, DB_RECORDS, &k);
    return rc < 0 ? rc : st_pack_live(s, r.pack, -(int64_t)r.length, -1);
}

/* --- extents --- */

static int extent_of(struct state *s, uint64_t ino, const MDB_val *key, const MDB_val *val,
                     struct extent *e)
{
    if (!st_under(key, ino))
        return -ENOENT;
    e->at = st_key_u64(key, 8);
    return st_row(s, val, &e->r, sizeof(e->r));
}

/* The first extent of the file that ends beyond `from`. */
static int extent_seek(struct state *s, MDB_cursor *cur, uint64_t ino, uint64_t from,
                       struct extent *e)
{
    struct key k = st_key2(ino, from);
    MDB_val key, val;
    int rc = st_seek(s, cur, &k, &key, &val);

    if (rc == 0 && st_under(&key, ino) && st_key_u64(&key, 8) == from)
        return extent_of(s, ino, &key, &val, e);
    rc = rc == 0 ? st_prev(s, cur, &key, &val) : rc == -ENOENT ? st_last(s, cur, &key, &val) : rc;
    if (rc == 0)
        rc = extent_of(s, ino, &key, &val, e);
    if (rc == 0 && e->at + e->r.length > from)
        return 0;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    rc = st_seek(s, cur, &k, &key, &val);
    return rc < 0 ? rc : extent_of(s, ino, &key, &val, e);
}

static int extent_put(struct state *s, uint64_t ino, const struct extent *e)
{
    struct key k = st_key2(ino, e->at);

    return st_put(s, DB_EXTENTS, &k, &e->r, sizeof(e->r));
}

/* Takes [from, to) out of e, which meets it. */
static int extent_cut(struct state *s, uint64_t ino, const struct extent *e, uint64_t from,
                      uint64_t to)
{
    uint64_t end = e->at + e->r.length;
    struct extent left = *e, right = *e;
    int parts = 0, rc = 0;

    if (e->at < from) {
        left.r.length = from - e->at;
        rc = extent_put(s, ino, &left);
        parts++;
    } else {
        struct key k = st_key2(ino, e->at);
        rc = st_del(s, DB_EXTENTS, &k);
    }
    if (rc == 0 && end > to) {
        right.at = to;
        right.r.length = end - to;
        right.r.record_offset = e->r.record_offset + (uint32_t)(to - e->at);
        rc = extent_put(s, ino, &right);
        parts++;
    }
    return rc < 0 || parts == 1 ? rc : record_refs(s, e->r.record, parts - 1);
}

static int cut_all(struct state *s, MDB_cursor *cur, struct stored *i, uint64_t from, uint64_t to)
{
    struct extent e;
    int rc;

    while ((rc = extent_seek(s, cur, i->ino, from, &e)) == 0 && e.at < to) {
        uint64_t end = e.at + e.r.length;
        rc = extent_cut(s, i->ino, &e, from, to);
        if (rc < 0)
            break;
        uint64_t gone = (end < to ? end : to) - (e.at > from ? e.at : from);
        i->r.file.mapped -= gone;
        s->meta.totals.mapped -= gone;
        from = end;
        if (from >= to)
            break;
    }
    return rc == -ENOENT ? 0 : rc;
}

int st_map_cut(struct state *s, struct stored *i, uint64_t from, uint64_t to)
{
    uint64_t before = i->r.file.mapped;
    MDB_cursor *cur;

    if (before == 0 || from >= to)
        return 0;
    int rc = st_cursor(s, DB_EXTENTS, &cur);
    if (rc < 0)
        return rc;
    rc = cut_all(s, cur, i, from, to);
    mdb_cursor_close(cur);
    if (i->r.file.mapped != before)
        i->r.file.map_version++;
    return rc;
}

int st_map_insert(struct state *s, struct stored *i, uint64_t offset, uint64_t use, uint64_t record,
                  const struct record_row *row)
{
    struct extent e = {.at = offset, .r = {.length = use, .record = record}};
    struct key k = st_key1(record);
    int rc = st_map_cut(s, i, offset, offset + use);

    if (rc == 0)
        rc = st_put(s, DB_RECORDS, &k, row, sizeof(*row));
    if (rc == 0)
        rc = extent_put(s, i->ino, &e);
    if (rc == 0)
        rc = st_pack_live(s, row->pack, row->length, 1);
    s->meta.totals.records++;
    s->meta.totals.mapped += use;
    i->r.file.mapped += use;
    i->r.file.map_version++;
    return rc;
}

/* --- reading --- */

static int extent_public(struct state *s, const struct extent *e, Star__Extent *out)
{
    struct record_row r;
    int rc = record_load(s, e->r.record, &r);

    if (rc < 0)
        return rc;
    star__extent__init(out);
    out->offset = e->at;
    out->length = e->r.length;
    out->record = e->r.record;
    out->record_offset = e->r.record_offset;
    out->pack = r.pack;
    out->pack_offset = r.pack_offset;
    out->record_length = r.length;
    out->number = r.number;
    return 0;
}

int state_map(struct state *s, uint64_t ino, uint64_t offset, uint64_t length, state_extent_fn fn,
              void *arg)
{
    uint64_t end = length > UINT64_MAX - offset ? UINT64_MAX : offset + length;
    Star__Extent out;
    struct stored i;
    struct extent e;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_inode_load(s, ino, &i);

    if (rc == 0)
        rc = st_cursor(s, DB_EXTENTS, &cur);
    if (rc < 0)
        return rc;
    rc = extent_seek(s, cur, ino, offset, &e);
    while (rc == 0 && e.at < end) {
        rc = extent_public(s, &e, &out);
        if (rc < 0 || !fn(arg, &out))
            break;
        rc = st_next(s, cur, &key, &val);
        if (rc == 0)
            rc = extent_of(s, ino, &key, &val, &e);
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

int state_parts(struct state *s, uint64_t ino, uint64_t offset, state_part_fn fn, void *arg)
{
    struct key k = st_key2(ino, offset);
    struct extent_row row;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(s, DB_EXTENTS, &cur);

    if (rc < 0)
        return rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0; rc = st_next(s, cur, &key, &val)) {
        rc = st_row(s, &val, &row, sizeof(row));
        if (rc < 0)
            break;
        const struct state_part p = {.ino = st_key_u64(&key, 0),
                                     .offset = st_key_u64(&key, 8),
                                     .length = row.length,
                                     .record = row.record,
                                     .record_offset = row.record_offset};
        if (!fn(arg, &p))
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}
