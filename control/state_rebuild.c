/*
 * REBUILD: a copy of the state learns from the packs what happened after it was made. Applied by
 * `umbel rebuild` alone, before the state begins a new log.
 *
 * Nobody is asked and no node is home: all that speaks are packs. So a cut counts if it is newer
 * than the one that the state knows, and a record lies where a pack has it.
 */
#include "control/state_private.h"

#include <errno.h>
#include <sys/stat.h>

/* More than a cloud adds to either while a copy of its state is the newest. */
#define EPOCH_STEP   (1ull << 20)
#define VERSION_STEP VERSION_LOST_STEP

/* --- packs --- */

static int pack_there(struct apply *a, const Star__ConfirmPack *p)
{
    struct state *s = a->s;
    struct key k = st_key1(p->pack);
    struct pack_row row = {.state = p->meta ? PACK_META : PACK_LIVE,
                           .size = p->size,
                           .born = a->sec,
                           .meta = p->meta,
                           .generation = p->key_generation};

    if (p->pack == 0 || p->pack >= PACK_NUMBER_MAX || p->size > (uint64_t)INT64_MAX)
        return -EINVAL;
    int rc = st_pack_load(s, p->pack);
    if (rc == 0 && s->pack_row.state != PACK_LIVE && s->pack_row.state != PACK_META) {
        s->pack_row = row;
        s->pack_dirty = true;
    } else if (rc == -ENOENT) {
        rc = st_put(s, DB_PACKS, &k, &row, sizeof(row));
        s->meta.totals.packs++;
    }
    if (p->pack > s->meta.last_pack)
        s->meta.last_pack = p->pack;
    return rc;
}

static int pack_lost(struct apply *a, uint64_t pack)
{
    struct state *s = a->s;
    struct key k = st_key1(pack);
    int rc = st_pack_load(s, pack);

    if (rc < 0 || s->pack_row.live_records > 0)
        return rc == -ENOENT ? 0 : rc; /* what lay in it is lost, and reads say so */
    s->pack = 0;
    s->pack_dirty = false;
    s->meta.totals.packs--;
    return st_del(s, DB_PACKS, &k);
}

/* The pack is there, live, and has room for that. */
static int pack_takes(struct state *s, uint64_t pack, uint64_t offset, uint64_t length)
{
    int rc = st_pack_load(s, pack);

    if (rc < 0)
        return rc == -ENOENT ? -EINVAL : rc;
    return s->pack_row.state != PACK_LIVE || length > s->pack_row.size ||
                   offset > s->pack_row.size - length
               ? -EINVAL
               : 0;
}

/* --- records --- */

static int record_there(struct state *s, const Star__MovedRecord *m)
{
    struct record_row from, to;
    int rc = st_record_load(s, m->record, &from);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc; /* dead, or of a cut that comes later */
    if (m->number >= RECORD_NUMBERS || m->pack == from.pack ||
        m->pack == m->record >> STATE_RECORD_BITS)
        return -EINVAL;
    to = from;
    to.pack = m->pack;
    to.number = m->number;
    to.pack_offset = m->pack_offset;
    rc = pack_takes(s, to.pack, to.pack_offset, to.length);
    if (rc == 0)
        rc = st_record_place(s, m->record, &from, &to);
    if (rc == 0)
        rc = st_pack_live(s, from.pack, -(int64_t)from.length, -1);
    return rc < 0 ? rc : st_pack_live(s, to.pack, to.length, 1);
}

/* --- cuts --- */

static uint64_t id_of(const Star__CutRecord *r)
{
    return r->record ? r->record : r->pack << STATE_RECORD_BITS | r->number;
}

static int check_cut(struct state *s, const Star__CutFile *f)
{
    for (size_t n = 0; n < f->n_records; n++) {
        const Star__CutRecord *r = f->records[n];
        struct record_row row;
        if (r->length == 0 || r->length > 1u << 20 || r->offset > INT64_MAX - r->length ||
            r->number >= RECORD_NUMBERS || (r->record && r->record >> STATE_RECORD_BITS == r->pack))
            return -EINVAL;
        int rc = st_record_load(s, id_of(r), &row);
        if (rc != -ENOENT)
            return rc < 0 ? rc : -EEXIST; /* a cut is newer than all that the state has */
        rc = pack_takes(s, r->pack, r->pack_offset, r->length);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int insert(struct state *s, struct stored *i, const Star__CutRecord *r, uint64_t size)
{
    struct record_row row = {.pack = r->pack,
                             .pack_offset = r->pack_offset,
                             .length = (uint32_t)r->length,
                             .refs = 1,
                             .number = r->number};
    uint64_t use = r->offset >= size              ? 0
                   : size - r->offset < r->length ? size - r->offset
                                                  : r->length;
    struct record_row taken;

    if (use == 0 || st_record_load(s, id_of(r), &taken) == 0)
        return s->broken; /* beyond the end, or named twice */
    int rc = st_map_insert(s, i, r->offset, use, id_of(r), &row);
    const struct record_row first = {.pack = id_of(r) >> STATE_RECORD_BITS};
    return rc < 0 ? rc : st_record_place(s, id_of(r), &first, &row);
}

static int take_cut(struct apply *a, const Star__CutFile *f)
{
    struct state *s = a->s;
    struct stored i;

    if (!f->attrs || !st_home_ok(f->attrs))
        return -EINVAL;
    int rc = st_inode_load(s, f->attrs->ino, &i);
    if (rc == 0 && !S_ISREG(i.r.mode))
        return -EINVAL;
    if (rc < 0 || f->attrs->version <= i.r.file.cut_version)
        return rc;
    rc = check_cut(s, f);
    uint64_t size = f->attrs->size, limit = f->base_limit < size ? f->base_limit : size;
    if (rc == 0)
        rc = st_map_cut(s, &i, limit, UINT64_MAX);
    for (size_t n = 0; rc == 0 && n < f->n_records; n++)
        rc = insert(s, &i, f->records[n], size);
    if (rc < 0)
        return rc;
    s->meta.totals.bytes += size - i.r.size;
    i.r.size = i.r.file.cut_size = size;
    i.r.version = i.r.file.cut_version = f->attrs->version;
    i.r.file.trunc_version = i.r.file.trunc_size = i.r.file.trunc_older = 0;
    if (f->attrs->mtime) {
        i.r.mtime = i.r.file.cut_mtime = f->attrs->mtime->sec;
        i.r.mtime_ns = i.r.file.cut_mtime_ns = f->attrs->mtime->nsec;
    }
    st_ctime_now(a, &i);
    return st_inode_store(s, &i);
}

/* --- all files --- */

/* What old nodes still hold is of an older epoch, and no version is given a second time. */
static int fence_all(struct state *s)
{
    struct key k = st_key1(0);
    MDB_val key, val;
    MDB_cursor *cur;
    struct stored i;
    int rc = st_cursor(s, DB_INODES, &cur);

    if (rc < 0)
        return rc;
    while ((rc = st_seek(s, cur, &k, &key, &val)) == 0) {
        i.ino = st_key_u64(&key, 0);
        rc = st_row(s, &val, &i.r, sizeof(i.r));
        if (rc == 0 && S_ISREG(i.r.mode)) {
            i.r.home = 0;
            i.r.file.home_epoch += EPOCH_STEP;
            i.r.file.cut = 0;
            i.r.version += VERSION_STEP;
            i.r.file.cut_version = i.r.version;
            rc = st_inode_store(s, &i);
        }
        if (rc < 0)
            break;
        k = st_key1(i.ino + 1);
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

int st_cmd_rebuild(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Rebuild *q = (const Star__Rebuild *)body;
    struct state *s = a->s;
    int rc = 0;

    if (q->last_pack >= PACK_NUMBER_MAX || q->last_ino >> 63)
        return -EINVAL;
    for (size_t n = 0; rc == 0 && n < q->n_packs; n++)
        rc = pack_there(a, q->packs[n]);
    for (size_t n = 0; rc == 0 && n < q->n_moved; n++)
        rc = record_there(s, q->moved[n]);
    for (size_t n = 0; rc == 0 && n < q->n_cuts; n++)
        rc = take_cut(a, q->cuts[n]);
    for (size_t n = 0; rc == 0 && n < q->n_lost; n++)
        rc = pack_lost(a, q->lost[n]);
    if (rc == 0 && q->last_pack > s->meta.last_pack)
        s->meta.last_pack = q->last_pack;
    if (rc == 0 && q->last_ino > s->meta.last_ino)
        s->meta.last_ino = q->last_ino;
    return rc == 0 && q->fence ? fence_all(s) : rc;
}
