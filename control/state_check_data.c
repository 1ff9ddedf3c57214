/* Check: file maps, records, packs, the cache table; nodes, sessions, results, settings. */
#include "control/state_check.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

/* --- packs, records, extents --- */

static int add_pack(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t id = st_key_u64(key, 0);
    struct seen_pack *p = st_check_add(c, &c->packs, id);
    struct pack_row r;
    int rc = p ? st_row(c->s, val, &r, sizeof(r)) : -ENOMEM;

    if (rc < 0)
        return rc;
    p->live_bytes = r.live_bytes;
    p->live_records = r.live_records;
    p->size = r.size;
    p->state = r.state;
    if (r.state < PACK_ALLOCATED || r.state > PACK_META)
        st_check_problem(c, "pack %" PRIu64 " has state %u", id, r.state);
    if (r.state != PACK_LIVE && r.live_records)
        st_check_problem(c, "pack %" PRIu64 " is not live but has live records", id);
    if (id > c->s->meta.last_pack)
        st_check_problem(c, "pack %" PRIu64 " is beyond the last number given", id);
    c->totals.packs++;
    return 0;
}

static int add_record(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t id = st_key_u64(key, 0);
    struct seen_record *e = st_check_add(c, &c->records, id);
    struct record_row r;
    int rc = e ? st_row(c->s, val, &r, sizeof(r)) : -ENOMEM;

    if (rc < 0)
        return rc;
    e->pack = r.pack;
    e->length = r.length;
    e->refs = r.refs;
    e->number = r.number;
    if (r.pack != id >> STATE_RECORD_BITS)
        c->moved++;
    else if (r.number != (id & ((1u << STATE_RECORD_BITS) - 1)))
        st_check_problem(c, "record %" PRIx64 " is said to be number %u of its first pack", id,
                         r.number);
    c->totals.records++;
    struct seen_pack *p = st_check_find(&c->packs, r.pack);
    if (!p || p->state != PACK_LIVE) {
        st_check_problem(c, "record %" PRIx64 " lies in pack %" PRIu64 ", which is %s", id, r.pack,
                         p ? "not live" : "not there");
        return 0;
    }
    p->found_bytes += r.length;
    p->found_records++;
    if (r.length > p->size || r.pack_offset > p->size - r.length)
        st_check_problem(c, "record %" PRIx64 " goes beyond the end of pack %" PRIu64, id, r.pack);
    return 0;
}

/* Extents come in order, so the one before in the same file is enough to compare with. */
static int check_extent(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t ino = st_key_u64(key, 0), at = st_key_u64(key, 8);
    struct seen_inode *i = st_check_inode(c, ino);
    struct extent_row r;
    int rc = st_row(c->s, val, &r, sizeof(r));

    if (rc < 0)
        return rc;
    if (!i || i->type != S_IFREG) {
        st_check_problem(c, "an extent of inode %" PRIu64 ", which is no file", ino);
        return 0;
    }
    if (r.length == 0 || at < i->map_end || at > i->size || r.length > i->size - at)
        st_check_problem(c,
                         "inode %" PRIu64 ": the extent at %" PRIu64
                         " is empty, overlaps or goes beyond the end",
                         ino, at);
    i->map_end = at + r.length;
    i->found_mapped += r.length;
    struct seen_record *rec = st_check_find(&c->records, r.record);
    if (!rec || r.record_offset > rec->length || r.length > rec->length - r.record_offset) {
        st_check_problem(c, "inode %" PRIu64 ": the extent at %" PRIu64 " points %s", ino, at,
                         rec ? "beyond its record" : "to no record");
        return 0;
    }
    rec->found_refs++;
    return 0;
}

/* Each moved record is in the index once, and nothing else is. */
static int check_moved(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t pack = st_key_u64(key, 0), number = st_key_u64(key, 8), id;
    int rc = st_row(c->s, val, &id, sizeof(id));

    if (rc < 0)
        return rc;
    struct seen_record *r = st_check_find(&c->records, id);
    if (!r || r->pack != pack || r->number != number || pack == id >> STATE_RECORD_BITS)
        st_check_problem(c,
                         "the index has record %" PRIx64 " as number %" PRIu64 " of pack %" PRIu64
                         ", where it is not",
                         id, number, pack);
    c->found_moved++;
    return 0;
}

static void check_counts(struct check *c)
{
    const struct seen_inode *i = c->inodes.rows;
    const struct seen_record *r = c->records.rows;
    const struct seen_pack *p = c->packs.rows;

    if (c->moved != c->found_moved)
        st_check_problem(c, "%" PRIu64 " records were moved, the index has %" PRIu64, c->moved,
                         c->found_moved);
    for (size_t n = 0; n < c->inodes.n; n++, i++)
        if (i->mapped != i->found_mapped)
            st_check_problem(c, "inode %" PRIu64 " has %" PRIu64 " bytes mapped, counted %" PRIu64,
                             i->ino, i->mapped, i->found_mapped);
    for (size_t n = 0; n < c->records.n; n++, r++)
        if (r->refs == 0 || r->refs != r->found_refs)
            st_check_problem(c, "record %" PRIx64 " has %u references, counted %u", r->id, r->refs,
                             r->found_refs);
    for (size_t n = 0; n < c->packs.n; n++, p++)
        if (p->live_bytes != p->found_bytes || p->live_records != p->found_records)
            st_check_problem(c,
                             "pack %" PRIu64 " has %" PRIu64 " bytes in %" PRIu64
                             " records, counted %" PRIu64 " in %" PRIu64,
                             p->id, p->live_bytes, p->live_records, p->found_bytes,
                             p->found_records);
}

/* --- the cache table --- */

static int check_copy(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t ino = st_key_u64(key, 0);
    struct seen_inode *i = st_check_inode(c, ino);
    uint32_t node = 0;
    struct node_row r;
    MDB_val held;

    if (key->mv_size != 12 || val->mv_size != sizeof(struct copy_row)) {
        st_check_problem(c, "a cache line of inode %" PRIu64 " is none", ino);
        return 0;
    }
    memcpy(&node, (const uint8_t *)key->mv_data + 8, sizeof(node));
    node = be32toh(node);
    if (!i || i->type != S_IFREG)
        st_check_problem(c, "a cache line of inode %" PRIu64 ", which is no file", ino);
    int rc = st_node_load(c->s, node, &r);
    if (rc == -ENOENT || (rc == 0 && strcmp(r.state, "gone") == 0))
        st_check_problem(c, "a cache line of inode %" PRIu64 " at node %u, which is %s", ino, node,
                         rc < 0 ? "not there" : "given up");
    else if (rc < 0)
        return rc;
    struct key k = st_key2(node, ino);
    rc = st_get(c->s, DB_HELD, &k, &held);
    if (rc == -ENOENT)
        st_check_problem(c, "the cache line of inode %" PRIu64 " at node %u is not in the index",
                         ino, node);
    return rc == -ENOENT ? 0 : rc;
}

static int check_held(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t node = st_key_u64(key, 0), ino = st_key_u64(key, 8);
    struct key k = st_key_copy(ino, (uint32_t)node);
    MDB_val line;
    int rc = st_get(c->s, DB_COPIES, &k, &line);

    (void)val;
    if (rc == -ENOENT)
        st_check_problem(c,
                         "the index has a cache line of inode %" PRIu64 " at node %" PRIu64
                         ", which is not there",
                         ino, node);
    return rc == -ENOENT ? 0 : rc;
}

int st_check_data(struct check *c)
{
    int rc = st_check_each(c, DB_PACKS, add_pack);

    if (rc == 0)
        rc = st_check_each(c, DB_RECORDS, add_record);
    if (rc == 0)
        rc = st_check_each(c, DB_MOVED, check_moved);
    if (rc == 0)
        rc = st_check_each(c, DB_EXTENTS, check_extent);
    if (rc == 0)
        check_counts(c);
    if (rc == 0)
        rc = st_check_each(c, DB_COPIES, check_copy);
    if (rc == 0)
        rc = st_check_each(c, DB_HELD, check_held);
    return rc;
}

/* --- nodes, sessions, settings --- */

static int check_homes(struct check *c)
{
    const struct seen_inode *i = c->inodes.rows;
    struct node_row r;

    for (size_t n = 0; n < c->inodes.n; n++, i++) {
        int rc = i->home ? st_node_load(c->s, i->home, &r) : 0;
        if (rc == -ENOENT || (i->home && rc == 0 && strcmp(r.state, "gone") == 0))
            st_check_problem(c, "inode %" PRIu64 " has node %u as its home, which is %s", i->ino,
                             i->home, rc < 0 ? "not there" : "given up");
        else if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_node(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t id = st_key_u64(key, 0);
    struct node_row r;
    int rc = st_row(c->s, val, &r, sizeof(r));

    if (rc < 0)
        return rc;
    if (id == 0 || id > c->s->meta.last_node || r.name[0] == '\0')
        st_check_problem(c, "node %" PRIu64 " has a number never given, or no name", id);
    return 0;
}

static int check_result(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t id = st_key_u64(key, 0), seq = st_key_u64(key, 8);
    struct session_row r;
    struct key k = st_key1(id);
    int rc = st_get_row(c->s, DB_SESSIONS, &k, &r, sizeof(r));

    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc < 0 || seq < r.acked || val->mv_size < sizeof(int32_t))
        st_check_problem(c, "a result %" PRIu64 " of session %" PRIu64 ", which %s", seq, id,
                         rc < 0 ? "is not there" : "has acknowledged it");
    return 0;
}

static int check_session(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t id = st_key_u64(key, 0);
    struct key k = st_key2(id, 0);
    struct session_row r;
    uint32_t results = 0;
    MDB_val rkey, rval;
    MDB_cursor *cur;
    int rc = st_row(c->s, val, &r, sizeof(r));

    if (rc == 0)
        rc = st_cursor(c->s, DB_RESULTS, &cur);
    if (rc < 0)
        return rc;
    for (rc = st_seek(c->s, cur, &k, &rkey, &rval); rc == 0;
         rc = st_next(c->s, cur, &rkey, &rval)) {
        if (!st_under(&rkey, id))
            break;
        results++;
    }
    mdb_cursor_close(cur);
    if (results != r.results)
        st_check_problem(c, "session %" PRIu64 " has %u results, counted %u", id, r.results,
                         results);
    if (id > c->s->meta.applied)
        st_check_problem(c, "session %" PRIu64 " is from the future", id);
    return rc == -ENOENT ? 0 : rc;
}

static int check_setting(struct check *c, const MDB_val *key, const MDB_val *val)
{
    if (!st_setting_known(key->mv_data, key->mv_size) || val->mv_size != sizeof(uint64_t))
        st_check_problem(c, "a value for setting '%.*s', which does not exist", (int)key->mv_size,
                         (const char *)key->mv_data);
    return 0;
}

static int check_job(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t id = st_key_u64(key, 0);
    Star__Job *job = star__job__unpack(NULL, val->mv_size, val->mv_data);
    MDB_val text;
    int rc = 0;

    if (!job || job->id != id || id > state_last_job(c->s)) {
        st_check_problem(c, "job %" PRIu64 " has a row that is none, or a number never given", id);
    } else {
        struct key k = st_key1(job->batch);
        rc = st_get(c->s, DB_JOB_SPECS, &k, &text);
        if (rc == -ENOENT)
            st_check_problem(c, "job %" PRIu64 " has no spec", id);
    }
    if (job)
        star__job__free_unpacked(job, NULL);
    return rc == -ENOENT ? 0 : rc;
}

int st_check_rest(struct check *c)
{
    int rc = check_homes(c);

    if (rc == 0)
        rc = st_check_each(c, DB_NODES, check_node);
    if (rc == 0)
        rc = st_check_each(c, DB_RESULTS, check_result);
    if (rc == 0)
        rc = st_check_each(c, DB_SESSIONS, check_session);
    if (rc == 0)
        rc = st_check_each(c, DB_SETTINGS, check_setting);
    if (rc == 0)
        rc = st_check_each(c, DB_JOBS, check_job);
    return rc;
}
