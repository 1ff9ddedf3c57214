#include "nodecache/move.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

/* A new pack takes no more records from here on: one more, and those that say where they come from,
 * still fit. */
#define FULL (POOL_PACK_TARGET - 2 * POOL_RECORD_MAX)

/* An old pack: what its footer says, and its MOVES record if it has one. */
struct source {
    uint64_t pack;
    struct pool_key key;
    struct pack_record *records;
    size_t n, room;
    struct pack_file *files;
    size_t files_n, files_room;
    uint8_t *origins;
    size_t origins_n;
    int rc; /* it cannot be used */
};

/* A file's cut that has records in the new pack. */
struct named {
    struct {
        uint64_t ino, version, cut;
    } key;
    UT_hash_handle hh;
};

struct mover {
    struct pool *pool;
    const struct centre_calls *centre;
    void *ctx;
    struct flush *flush;
    const Star__MoveRecords *asked;
    const struct move_other *other;
    struct move_result *out;
    struct source from;
    struct pack_writer *writer;
    uint8_t *buffer, *origins; /* POOL_RECORD_MAX each */
    size_t origins_n;          /* of the writer's pack */
    struct named *named;       /* in it */
    Star__Moved moved;
    Star__ConfirmPack *packs;
    Star__MovedRecord *records;
    size_t packs_room, failed_room;
};

/* ---- an old pack ---- */

/* Room for one more; false: no memory. */
static bool grow(void **list, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return true;
    size_t more = *room ? *room * 2 : 64;
    void *grown = realloc(*list, more * size);
    if (!grown)
        return false;
    *list = grown;
    *room = more;
    return true;
}

static void see_record(void *arg, const struct pack_record *r)
{
    struct source *s = arg;

    if (grow((void **)&s->records, s->n, &s->room, sizeof(*r)))
        s->records[s->n++] = *r;
    else
        s->rc = -ENOMEM;
}

static void see_file(void *arg, const struct pack_file *f)
{
    struct source *s = arg;

    if (grow((void **)&s->files, s->files_n, &s->files_room, sizeof(*f)))
        s->files[s->files_n++] = *f;
    else
        s->rc = -ENOMEM;
}

static void source_free(struct source *s)
{
    free(s->records);
    free(s->files);
    free(s->origins);
    pool_key_wipe(&s->key);
    *s = (struct source){0};
}

static int by_ino(const void *a, const void *b)
{
    const struct pack_file *x = a, *y = b;

    return (x->ino > y->ino) - (x->ino < y->ino);
}

/* Of the source pack. */
static int read_one(struct mover *m, uint32_t number, uint64_t at, uint32_t length, uint8_t *out,
                    char *detail)
{
    const struct source *s = &m->from;
    struct pool_key key = {.generation = 0};
    int rc = s->key.generation != 0 ? pool_record_key(&s->key, number, &key) : 0;

    if (rc == 0)
        rc = pack_read(m->pool, pool_key_or_none(&key), s->pack, number, at, length, 0, out, length,
                       detail);
    pool_key_wipe(&key);
    return rc;
}

/* The pack's key as the centre sent it; none: the pack is unsealed. */
static int source_key(struct mover *m, uint64_t pack, struct pool_key *key)
{
    const Star__MoveRecords *q = m->asked;

    *key = (struct pool_key){.generation = 0};
    for (size_t i = 0; i < q->n_keys; i++)
        if (q->keys[i]->pack == pack)
            return pool_key_take(key, q->keys[i]->key_generation, q->keys[i]->key.data,
                                 q->keys[i]->key.len);
    return 0;
}

static int load_origins(struct mover *m, char *detail)
{
    struct source *s = &m->from;
    const struct pack_record *last = s->n > 0 ? &s->records[s->n - 1] : NULL;

    if (!last || last->ino != POOL_INO_MOVES)
        return 0;
    s->origins = malloc(POOL_RECORD_MAX);
    if (!s->origins)
        return -ENOMEM;
    s->origins_n = last->length / POOL_ORIGIN;
    return read_one(m, last->number, last->pack_offset, last->length, s->origins, detail);
}

static int source_load(struct mover *m, uint64_t pack, char *detail)
{
    struct source *s = &m->from;

    if (s->pack == pack)
        return s->rc;
    source_free(s);
    s->pack = pack;
    int rc = source_key(m, pack, &s->key);
    if (rc == 0)
        rc = pack_index(m->pool, pool_key_or_none(&s->key), pack, see_record, see_file, s, detail);
    if (rc == 0)
        rc = s->rc;
    if (rc == 0)
        rc = load_origins(m, detail);
    if (rc == 0 && s->files_n > 0)
        qsort(s->files, s->files_n, sizeof(*s->files), by_ino);
    return s->rc = rc;
}

/* The cut that brought record n: as the pack says where it was moved to, else the only one of the
 * file there. NULL: it is not known any more. */
static const struct pack_file *cut_of(const struct source *s, size_t n, struct pack_origin *o)
{
    size_t low = 0, high = s->files_n;
    uint64_t ino = s->records[n].ino;

    if (n < s->origins_n)
        pack_origin_get(s->origins + n * POOL_ORIGIN, o);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->files[middle].ino < ino)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < s->files_n && s->files[low].ino == ino; low++) {
        const struct pack_file *f = &s->files[low];
        if (n < s->origins_n && (f->version != o->version || f->cut != o->cut))
            continue;
        o->version = f->version;
        o->cut = f->cut;
        return f;
    }
    return NULL;
}

/* ---- a new pack ---- */

static int pack_begin(struct mover *m)
{
    size_t n = m->moved.n_packs;
    uint64_t pack = 0;
    struct pool_key key;

    if (!grow((void **)&m->packs, n, &m->packs_room, sizeof(*m->packs)))
        return -ENOMEM;
    int rc = m->centre->alloc_gc(m->ctx, &pack, &key);
    if (rc < 0) {
        snprintf(m->out->detail, NODE_DETAIL, "allocating a pack: %s", strerror(-rc));
        return rc;
    }
    star__confirm_pack__init(&m->packs[n]);
    m->packs[n].pack = pack;
    m->moved.n_packs++;
    rc = pack_create(m->pool, pool_key_or_none(&key), pack, &m->writer, m->out->detail);
    pool_key_wipe(&key);
    return rc;
}

static void forget_named(struct mover *m)
{
    struct named *n, *next;

    HASH_ITER (hh, m->named, n, next) {
        HASH_DEL(m->named, n);
        free(n);
    }
}

/* Where its records come from goes last. */
static int pack_end(struct mover *m)
{
    struct pack_record r = {.ino = POOL_INO_MOVES,
                            .length = (uint32_t)(m->origins_n * POOL_ORIGIN)};
    struct pack_writer *w = m->writer;

    if (!w)
        return 0;
    int rc = pack_add_record(w, m->origins, &r, m->out->detail);
    m->writer = NULL;
    m->origins_n = 0;
    forget_named(m);
    if (rc < 0) {
        pack_abandon(w);
        return rc;
    }
    return pack_finish(w, &m->packs[m->moved.n_packs - 1].size, m->out->detail);
}

static int name_cut(struct mover *m, const struct pack_file *f)
{
    struct named *n, *known;
    struct pack_file part = *f;

    n = calloc(1, sizeof(*n));
    if (!n)
        return -ENOMEM;
    n->key.ino = f->ino;
    n->key.version = f->version;
    n->key.cut = f->cut;
    HASH_FIND(hh, m->named, &n->key, sizeof(n->key), known);
    if (known) {
        free(n);
        return 0;
    }
    HASH_ADD(hh, m->named, key, sizeof(n->key), n);
    part.records = 0; /* not all of them come along */
    return pack_add_file(m->writer, &part, m->out->detail);
}

/* ---- one record ---- */

/* A record whose content is in the buffer. */
struct copied {
    struct pack_record at;
    const struct pack_file *cut; /* NULL: not known any more */
    struct pack_origin origin;
};

static int write_record(struct mover *m, const Star__MoveRecord *q, struct copied *r)
{
    int rc = 0;

    r->origin.record = q->record;
    if (m->writer && (pack_bytes(m->writer) >= FULL || m->origins_n == POOL_ORIGINS_MAX))
        rc = pack_end(m);
    if (rc == 0 && !m->writer)
        rc = pack_begin(m);
    if (rc == 0)
        rc = pack_add_record(m->writer, m->buffer, &r->at, m->out->detail);
    if (rc == 0 && r->cut)
        rc = name_cut(m, r->cut);
    if (rc < 0)
        return rc;
    pack_origin_put(m->origins + m->origins_n++ * POOL_ORIGIN, &r->origin);
    Star__MovedRecord *to = &m->records[m->moved.n_records];
    star__moved_record__init(to);
    to->record = q->record;
    to->from_pack = q->pack;
    to->from_number = q->number;
    to->pack = m->packs[m->moved.n_packs - 1].pack;
    to->number = r->at.number;
    to->pack_offset = r->at.pack_offset;
    m->moved.records[m->moved.n_records++] = to;
    if (m->out->done)
        m->out->done[m->out->records] = q->record;
    m->out->records++;
    m->out->bytes += r->at.length;
    return 0;
}

/* What the footer and the centre say must be the same. */
static int find_record(struct mover *m, const Star__MoveRecord *q, struct copied *out, char *detail)
{
    int rc = source_load(m, q->pack, detail);

    if (rc < 0)
        return rc;
    const struct pack_record *r = q->number < m->from.n ? &m->from.records[q->number] : NULL;
    if (!r || POOL_INO_IS(r->ino) || r->length != q->length || r->pack_offset != q->pack_offset) {
        snprintf(detail, POOL_DETAIL,
                 "pack %016" PRIx64 ", record %u: its footer does not say what the centre says",
                 q->pack, q->number);
        return -EBADMSG;
    }
    out->at = *r;
    out->cut = cut_of(&m->from, q->number, &out->origin);
    return 0;
}

static bool is_damage(int rc)
{
    return rc == -EBADMSG || rc == -ENOENT || rc == -EINVAL || rc == -EPROTONOSUPPORT;
}

/* Into the buffer. */
static int read_record(struct mover *m, const Star__MoveRecord *q, struct copied *out, char *detail)
{
    const struct move_other *other = m->other;
    int rc = find_record(m, q, out, detail);
    bool found = rc == 0;

    if (rc < 0 && is_damage(rc) && other) {
        /* The footer is of no use: the record may be. */
        *out = (struct copied){.at = {.length = q->length}};
        found = other->place(other->arg, q, &out->at.ino, &out->at.offset);
    }
    if (found)
        rc = read_one(m, q->number, q->pack_offset, q->length, m->buffer, detail);
    if (found && is_damage(rc) && other && other->content(other->arg, q, m->buffer) == 0)
        rc = 0;
    return rc;
}

/* Records of one pack stand together, so comparing with the last one is enough. */
static int note_failed(struct mover *m, uint64_t pack)
{
    struct move_result *r = m->out;

    if (r->failed_packs_n > 0 && r->failed_packs[r->failed_packs_n - 1] == pack)
        return 0;
    if (!grow((void **)&r->failed_packs, r->failed_packs_n, &m->failed_room,
              sizeof(*r->failed_packs)))
        return -ENOMEM;
    r->failed_packs[r->failed_packs_n++] = pack;
    return 0;
}

static int move_one(struct mover *m, const Star__MoveRecord *q)
{
    struct copied r = {.cut = NULL};
    char detail[POOL_DETAIL] = "";
    int rc = read_record(m, q, &r, detail);

    if (rc == 0)
        return write_record(m, q, &r);
    if (!is_damage(rc)) {
        snprintf(m->out->detail, NODE_DETAIL, "%s", detail);
        return rc; /* the pool does not answer: nothing of the others is tried */
    }
    if (m->out->failed++ == 0)
        snprintf(m->out->detail, NODE_DETAIL, "%s", detail);
    return note_failed(m, q->pack);
}

/* ---- all ---- */

static int mover_start(struct mover *m, size_t records)
{
    star__moved__init(&m->moved);
    m->buffer = malloc(POOL_RECORD_MAX);
    m->origins = malloc(POOL_RECORD_MAX);
    m->records = calloc(records + 1, sizeof(*m->records));
    m->moved.records = calloc(records + 1, sizeof(*m->moved.records));
    if (m->other && !(m->out->done = calloc(records + 1, sizeof(*m->out->done))))
        return -ENOMEM;
    return m->buffer && m->origins && m->records && m->moved.records ? 0 : -ENOMEM;
}

static int tell(struct mover *m, bool *sent)
{
    Star__ConfirmPack **list = calloc(m->moved.n_packs + 1, sizeof(*list));
    uint64_t count = 0;

    if (!list)
        return -ENOMEM;
    for (size_t n = 0; n < m->moved.n_packs; n++)
        list[n] = &m->packs[n];
    m->moved.packs = list;
    *sent = true;
    int rc = m->centre->moved(m->ctx, &m->moved, &count);
    if (rc < 0)
        snprintf(m->out->detail, NODE_DETAIL, "the centre does not switch the records: %s",
                 strerror(-rc));
    free(list);
    m->moved.packs = NULL;
    return rc;
}

int move_records(struct pool *pool, const struct centre_calls *centre, void *ctx, struct flush *fl,
                 const Star__MoveRecords *q, const struct move_other *other,
                 bool (*stop)(void *arg), void *stop_arg, struct move_result *out)
{
    struct mover m = {.pool = pool,
                      .centre = centre,
                      .ctx = ctx,
                      .flush = fl,
                      .asked = q,
                      .other = other,
                      .out = out};
    bool sent = false;

    *out = (struct move_result){0};
    int rc = mover_start(&m, q->n_records);
    for (size_t n = 0; rc == 0 && n < q->n_records; n++)
        rc = stop && stop(stop_arg) ? -ESHUTDOWN : move_one(&m, q->records[n]);
    if (rc == 0)
        rc = pack_end(&m);
    if (m.writer)
        pack_abandon(m.writer);
    if (rc == 0 && m.moved.n_packs > 0)
        rc = tell(&m, &sent);
    for (size_t n = 0; rc < 0 && n < m.moved.n_packs; n++)
        flush_discard(fl, m.packs[n].pack, sent);
    out->packs = m.moved.n_packs;
    if (rc < 0 && out->detail[0] == '\0')
        snprintf(out->detail, NODE_DETAIL, "%s", strerror(-rc));
    forget_named(&m);
    source_free(&m.from);
    free(m.buffer);
    free(m.origins);
    free(m.packs);
    free(m.records);
    free(m.moved.records);
    return rc;
}
