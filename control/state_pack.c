/*
 * Packs: allocated -> live -> condemned -> gone. A pack id is given out once, so whatever a late
 * writer or deleter does touches garbage only.
 */
#include "control/state_private.h"

#include <errno.h>

/* --- rows --- */

static int pack_store(struct state *s, uint64_t pack, const struct pack_row *r)
{
    struct key k = st_key1(pack);

    return st_put(s, DB_PACKS, &k, r, sizeof(*r));
}

int st_pack_flush(struct state *s)
{
    if (!s->pack_dirty)
        return 0;
    s->pack_dirty = false;
    return pack_store(s, s->pack, &s->pack_row);
}

int st_pack_load(struct state *s, uint64_t pack)
{
    struct key k = st_key1(pack);

    if (s->pack == pack && pack != 0)
        return 0;
    int rc = st_pack_flush(s);
    s->pack = 0;
    if (rc == 0)
        rc = st_get_row(s, DB_PACKS, &k, &s->pack_row, sizeof(s->pack_row));
    if (rc == 0)
        s->pack = pack;
    return rc;
}

int st_pack_live(struct state *s, uint64_t pack, int64_t bytes, int64_t records)
{
    int rc = st_pack_load(s, pack);

    if (rc < 0)
        return rc == -ENOENT ? st_fail(s, MDB_CORRUPTED) : rc; /* a record lies in it */
    s->pack_row.live_bytes += (uint64_t)bytes;
    s->pack_row.live_records += (uint64_t)records;
    s->pack_dirty = true;
    return 0;
}

static void pack_set(struct state *s, enum pack_state state)
{
    s->pack_row.state = state;
    s->pack_dirty = true;
}

/* --- commands --- */

static int rows_add(struct state *s, uint32_t count, const struct pack_row *row)
{
    int rc = 0;

    if (s->meta.last_pack + count >= 1ull << (64 - STATE_RECORD_BITS))
        return -ENOSPC;
    for (uint32_t n = 0; rc == 0 && n < count; n++) {
        struct key k = st_key1(++s->meta.last_pack);
        rc = st_append(s, DB_PACKS, &k, row, sizeof(*row));
        s->meta.totals.packs++;
    }
    return rc;
}

static int alloc_rows(struct apply *a, struct node_row *node, const Star__AllocPacks *q)
{
    struct pack_row row = {
        .state = PACK_ALLOCATED, .writer = a->e->node, .generation = q->key_generation};
    uint64_t first = a->s->meta.last_pack + 1;
    int rc = rows_add(a->s, q->count, &row);

    if (rc < 0)
        return rc;
    node->alloc_seq = q->seq;
    node->alloc_first = first;
    node->alloc_count = q->count;
    return st_node_store(a->s, a->e->node, node);
}

int st_cmd_alloc_packs(struct apply *a, const ProtobufCMessage *body)
{
    const Star__AllocPacks *q = (const Star__AllocPacks *)body;
    Star__AllocPacksReply reply = STAR__ALLOC_PACKS_REPLY__INIT;
    struct node_row node;

    if ((q->count == 0 && !q->fresh) || q->count > ALLOC_PACKS_MAX)
        return st_refuse(a, -EINVAL, "1 to %u packs can be allocated at once", ALLOC_PACKS_MAX);
    if (!st_node_speaks(a->s, a->e->node))
        return a->s->broken ? a->s->broken : -ESTALE;
    int rc = st_node_load(a->s, a->e->node, &node);
    /* Asked again, as the answer was lost: the same packs, which nobody else knows of. */
    bool again = q->seq != 0 && q->seq == node.alloc_seq && q->count == node.alloc_count;
    if (rc == 0 && !again && q->fresh)
        rc = st_packs_of_gone(a->s, a->e->node, 0);
    if (rc == 0 && !again)
        rc = alloc_rows(a, &node, q);
    if (rc < 0)
        return rc;
    reply.first = node.alloc_first;
    reply.count = q->count;
    /* Asked again after a change of the key: under the old one. */
    rc = q->count > 0 ? state_pack_generation(a->s, reply.first, &reply.key_generation) : 0;
    if (rc == -ENOENT)
        rc = 0; /* given up, and gone: whoever asks is late */
    if (rc < 0)
        return rc;
    return st_reply(a, &reply.base);
}

/* Asked again, as the answer was lost: that is the session's dedupe's. */
int st_cmd_straight_packs(struct apply *a, const ProtobufCMessage *body)
{
    const Star__StraightPacks *q = (const Star__StraightPacks *)body;
    Star__AllocPacksReply reply = STAR__ALLOC_PACKS_REPLY__INIT;
    struct pack_row row = {
        .state = PACK_ALLOCATED, .session = a->e->session, .generation = q->key_generation};

    if (q->count == 0 || q->count > ALLOC_PACKS_MAX)
        return st_refuse(a, -EINVAL, "1 to %u packs can be allocated at once", ALLOC_PACKS_MAX);
    if (row.session == 0)
        return -EINVAL;
    reply.first = a->s->meta.last_pack + 1;
    reply.count = q->count;
    reply.key_generation = q->key_generation;
    int rc = rows_add(a->s, q->count, &row);
    if (rc == 0)
        rc = st_session_has_packs(a->s, row.session);
    return rc < 0 ? rc : st_reply(a, &reply.base);
}

int st_cmd_discard_pack(struct apply *a, const ProtobufCMessage *body)
{
    const Star__PackRef *q = (const Star__PackRef *)body;
    int rc = st_pack_load(a->s, q->pack);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc; /* deleted meanwhile */
    if (a->s->pack_row.writer != a->e->node)
        return -EPERM;
    if (a->s->pack_row.state == PACK_ALLOCATED)
        pack_set(a->s, PACK_CONDEMNED); /* part of it may lie in the pool */
    return a->s->pack_row.state == PACK_CONDEMNED ? 0 : -EBUSY;
}

int st_cmd_condemn(struct apply *a, const ProtobufCMessage *body)
{
    const Star__PackRefs *q = (const Star__PackRefs *)body;
    struct state *s = a->s;

    for (size_t n = 0; n < q->n_pack; n++) {
        int rc = st_pack_load(s, q->pack[n]);
        if (rc == 0 && s->pack_row.state == PACK_LIVE && s->pack_row.live_records == 0)
            pack_set(s, PACK_CONDEMNED);
        if (rc < 0 && rc != -ENOENT)
            return rc;
    }
    return 0;
}

int st_cmd_deleted_packs(struct apply *a, const ProtobufCMessage *body)
{
    const Star__PackRefs *q = (const Star__PackRefs *)body;
    struct state *s = a->s;

    for (size_t n = 0; n < q->n_pack; n++) {
        struct key k = st_key1(q->pack[n]);
        int rc = st_pack_load(s, q->pack[n]);
        if (rc == 0 && s->pack_row.state == PACK_CONDEMNED) {
            s->pack = 0;
            s->meta.totals.packs--;
            rc = st_del(s, DB_PACKS, &k);
        }
        if (rc < 0 && rc != -ENOENT)
            return rc;
    }
    return 0;
}

int st_packs_of_gone(struct state *s, uint32_t node, uint64_t session)
{
    struct key k = st_key1(0);
    struct pack_row row;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_pack_flush(s);

    s->pack = 0;
    if (rc == 0)
        rc = st_cursor(s, DB_PACKS, &cur);
    if (rc < 0)
        return rc;
    while ((rc = st_seek(s, cur, &k, &key, &val)) == 0) {
        uint64_t pack = st_key_u64(&key, 0);
        rc = st_row(s, &val, &row, sizeof(row));
        if (rc == 0 && row.state == PACK_ALLOCATED && row.writer == node &&
            row.session == session) {
            row.state = PACK_CONDEMNED;
            rc = pack_store(s, pack, &row);
        }
        if (rc < 0)
            break;
        k = st_key1(pack + 1);
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

/* --- reader --- */

int state_pack_generation(struct state *s, uint64_t pack, uint32_t *generation)
{
    struct key k = st_key1(pack);
    struct pack_row row;
    int rc = st_get_row(s, DB_PACKS, &k, &row, sizeof(row));

    if (rc == 0)
        *generation = row.generation;
    return rc;
}

int state_packs(struct state *s, uint64_t after, state_pack_fn fn, void *arg)
{
    struct key k = st_key1(after + 1);
    struct pack_row row;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = after == UINT64_MAX ? -ENOENT : st_cursor(s, DB_PACKS, &cur);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0; rc = st_next(s, cur, &key, &val)) {
        rc = st_row(s, &val, &row, sizeof(row));
        if (rc < 0)
            break;
        struct state_pack p = {.id = st_key_u64(&key, 0),
                               .state = row.state,
                               .size = row.size,
                               .live_bytes = row.live_bytes,
                               .live_records = row.live_records,
                               .generation = row.generation,
                               .writer = row.writer,
                               .born = row.born,
                               .meta = row.meta};
        if (!fn(arg, &p))
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

static bool tell_record(uint64_t id, const struct record_row *r, state_record_fn fn, void *arg)
{
    const struct state_record record = {.id = id,
                                        .pack = r->pack,
                                        .pack_offset = r->pack_offset,
                                        .number = r->number,
                                        .length = r->length};

    return fn(arg, &record);
}

/* Those that came in it and were not moved. *more: fn wants more. */
static int records_own(struct state *s, uint64_t pack, uint32_t from, state_record_fn fn, void *arg,
                       bool *more)
{
    struct key k = st_key1(pack << STATE_RECORD_BITS | from);
    struct record_row row;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(s, DB_RECORDS, &cur);

    if (rc < 0)
        return rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0 && *more; rc = st_next(s, cur, &key, &val)) {
        uint64_t id = st_key_u64(&key, 0);
        if (id >> STATE_RECORD_BITS != pack)
            break;
        rc = st_row(s, &val, &row, sizeof(row));
        if (rc < 0)
            break;
        if (row.pack == pack)
            *more = tell_record(id, &row, fn, arg);
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

static int records_moved(struct state *s, uint64_t pack, uint32_t from, state_record_fn fn,
                         void *arg, bool *more)
{
    struct key k = st_key2(pack, from);
    struct record_row row;
    uint64_t id;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(s, DB_MOVED, &cur);

    if (rc < 0)
        return rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0 && *more && st_under(&key, pack);
         rc = st_next(s, cur, &key, &val)) {
        rc = st_row(s, &val, &id, sizeof(id));
        if (rc == 0)
            rc = st_record_load(s, id, &row);
        if (rc < 0)
            break;
        *more = tell_record(id, &row, fn, arg);
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

int state_pack_records(struct state *s, uint64_t pack, uint32_t from, state_record_fn fn, void *arg)
{
    bool more = true;
    int rc = pack == 0 || pack >= PACK_NUMBER_MAX || from >= RECORD_NUMBERS
                 ? -EINVAL
                 : records_own(s, pack, from, fn, arg, &more);

    return rc < 0 || !more ? rc : records_moved(s, pack, from, fn, arg, &more);
}
