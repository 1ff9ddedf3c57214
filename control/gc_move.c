/* gc: rewriting sparse packs. A node copies the records (MOVE_RECORDS) and says so (MOVED, logged).
 */
#include "control/gc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- which packs --- */

static bool is_bad(const struct centre *c, uint64_t pack)
{
    for (size_t n = 0; n < c->gc_bad_n; n++)
        if (c->gc_bad[n] == pack)
            return true;
    return false;
}

static void note_bad(struct centre *c, uint64_t pack)
{
    if (!c->gc_bad)
        c->gc_bad = calloc(GC_BAD_MAX, sizeof(*c->gc_bad));
    if (c->gc_bad && c->gc_bad_n < GC_BAD_MAX && !is_bad(c, pack))
        c->gc_bad[c->gc_bad_n++] = pack;
}

struct look {
    struct gc *g;
    struct gc_limits limits;
    int64_t now;
    uint32_t newest_key;
    int rc;
};

static bool look_at(void *arg, const struct state_pack *p)
{
    struct look *l = arg;
    struct gc *g = l->g;
    struct gc_pack pack = {.id = p->id,
                           .size = p->size,
                           .live_bytes = p->live_bytes,
                           .live_records = p->live_records,
                           .age = l->now - p->born,
                           .old = p->generation < l->newest_key};

    if (p->state != PACK_LIVE || !gc_is_candidate(&pack, &l->limits) ||
        (is_bad(g->c, p->id) && g->own))
        return true;
    if (g->chosen_n == g->chosen_size) {
        size_t size = g->chosen_size ? g->chosen_size * 2 : 64;
        struct gc_pack *grown = realloc(g->chosen, size * sizeof(*grown));
        if (!grown) {
            l->rc = -ENOMEM;
            return false;
        }
        g->chosen = grown;
        g->chosen_size = size;
    }
    g->chosen[g->chosen_n++] = pack;
    return g->chosen_n < GC_CANDIDATES_MAX;
}

static int choose(struct gc *g)
{
    struct centre *c = g->c;
    struct look l = {.g = g,
                     .limits = {.ratio = (unsigned)setting_u64(c, "gc_live_ratio"),
                                .bytes = g->own ? GC_OWN_BYTES : GC_ROUND_BYTES,
                                .age = g->own ? (int64_t)setting_u64(c, "gc_min_age") : INT64_MIN,
                                .reseal = g->reseal,
                                .freed_min = g->own ? GC_OWN_FREED : 0},
                     .newest_key = gc_newest_key(g),
                     .now = (int64_t)(state_last_time_ns(c->state) / 1000000000u)};

    g->chosen_n = g->at = g->from = 0;
    int rc = state_packs(c->state, 0, look_at, &l);
    if (rc == 0)
        rc = l.rc;
    if (rc == 0)
        g->chosen_n = gc_choose(g->chosen, g->chosen_n, &l.limits);
    g->counts.todo = g->counts.moved;
    for (size_t n = 0; rc == 0 && n < g->chosen_n; n++)
        g->counts.todo += g->chosen[n].live_bytes;
    return rc;
}

/* --- which records --- */

static bool take_record(void *arg, const struct state_record *r)
{
    struct gc *g = arg;

    if (g->records_n == GC_MOVE_RECORDS || g->records_bytes >= GC_MOVE_BYTES)
        return false;
    Star__MoveRecord *m = &g->records[g->records_n];
    star__move_record__init(m);
    m->record = r->id;
    m->pack = r->pack;
    m->number = r->number;
    m->pack_offset = r->pack_offset;
    m->length = r->length;
    g->list[g->records_n++] = m;
    g->records_bytes += r->length;
    g->from = r->number + 1;
    return true;
}

static bool batch_full(const struct gc *g)
{
    return g->records_n == GC_MOVE_RECORDS || g->records_bytes >= GC_MOVE_BYTES;
}

/* From where the last batch ended on. */
static int fill_batch(struct gc *g)
{
    int rc = 0;

    if (!g->records)
        g->records = calloc(GC_MOVE_RECORDS, sizeof(*g->records));
    if (!g->list)
        g->list = calloc(GC_MOVE_RECORDS, sizeof(*g->list));
    if (!g->records || !g->list)
        return -ENOMEM;
    g->records_n = 0;
    g->records_bytes = 0;
    g->batch_at = g->at;
    g->batch_from = g->from;
    while (rc == 0 && g->at < g->chosen_n && !batch_full(g)) {
        /* A number beyond the last one that there can be: the pack has had its turn. */
        if (g->from >> STATE_RECORD_BITS == 0)
            rc = state_pack_records(g->c->state, g->chosen[g->at].id, g->from, take_record, g);
        if (!batch_full(g)) {
            g->at++;
            g->from = 0;
        }
    }
    return rc;
}

/* --- moving --- */

static void round_end(struct gc *g);
static void batch_send(struct gc *g);

static void wait_for(struct gc *g, int64_t ms, void (*then)(struct gc *g))
{
    g->wait_ms = g->c->now + ms;
    g->then = then;
}

static void batch_again(struct gc *g)
{
    g->at = g->batch_at;
    g->from = g->batch_from;
    batch_send(g);
}

static void batch_failed(struct gc *g, int status, const char *detail)
{
    snprintf(g->detail, sizeof(g->detail), "%s", *detail ? detail : strerror(-status));
    g->move_rc = status;
    if (++g->tries < GC_MOVE_TRIES && !g->own) {
        wait_for(g, GC_MOVE_RETRY_MS, batch_again);
        return;
    }
    g->last_round = true;
    round_end(g);
}

static void batch_done(struct gc *g, const Star__MoveReply *r)
{
    struct gc_counts *n = &g->counts;

    n->records += r->records;
    n->moved += r->bytes;
    n->failed += r->failed;
    g->changed |= r->records > 0;
    for (size_t k = 0; k < r->n_failed_pack; k++)
        note_bad(g->c, r->failed_pack[k]);
    if (r->failed > 0) {
        events_add(&g->c->events, "damage",
                   "gc: %" PRIu64 " records cannot be read and stay where they are: %s", r->failed,
                   r->detail);
        snprintf(g->detail, sizeof(g->detail), "%.127s", r->detail);
        g->move_rc = -EBADMSG;
    } else {
        g->move_rc = 0;
    }
    g->tries = 0;
    batch_send(g);
}

static void on_moved(void *arg, const struct message *reply)
{
    struct gc *g = arg;

    if (g->c->stopping) {
        gc_end(g, -ESHUTDOWN);
    } else if (reply->status < 0) {
        Star__ErrorReply *e =
            (Star__ErrorReply *)frame_unpack(reply, &star__error_reply__descriptor);
        batch_failed(g, reply->status, e ? e->detail : "");
        if (e)
            star__error_reply__free_unpacked(e, NULL);
    } else {
        Star__MoveReply *r = (Star__MoveReply *)frame_unpack(reply, &star__move_reply__descriptor);
        if (r)
            batch_done(g, r);
        else
            batch_failed(g, -EPROTO, "");
        if (r)
            star__move_reply__free_unpacked(r, NULL);
    }
}

static void batch_send(struct gc *g)
{
    Star__MoveRecords body = STAR__MOVE_RECORDS__INIT;
    int rc = fill_batch(g);

    if (rc < 0) {
        gc_end(g, rc);
        return;
    }
    if (g->records_n == 0) {
        round_end(g);
        return;
    }
    struct node *n = gc_node(g->c);
    body.records = g->list;
    body.n_records = g->records_n;
    rc = keys_of_moves(g->c, &body);
    if (rc == 0)
        rc = n ? peer_request(n->peer, STAR__MSG_TYPE__MOVE_RECORDS, &body.base,
                              NODE_COMMAND_DEADLINE_MS, on_moved, g)
               : -EAGAIN;
    keys_moves_free(&body);
    if (rc < 0)
        batch_failed(g, rc, n ? "" : "no node is here");
}

/* --- rounds --- */

struct is_empty {
    uint64_t pack;
    bool yes;
};

static bool is_empty(void *arg, const struct state_pack *p)
{
    struct is_empty *e = arg;

    e->yes = p->id == e->pack && p->live_records == 0;
    return false;
}

/* The packs that are empty now may go when nobody can hold a lease of before. */
static void round_end(struct gc *g)
{
    for (size_t k = 0; k < g->chosen_n; k++) {
        struct is_empty e = {.pack = g->chosen[k].id};
        if (state_packs(g->c->state, e.pack - 1, is_empty, &e) == 0 && e.yes)
            g->counts.rewritten++;
    }
    if (g->own || !g->changed || g->c->now - g->begun_ms > GC_WAIT_MS)
        g->last_round = true;
    if (g->changed)
        wait_for(g, LEASE_MS, gc_condemn);
    else
        gc_condemn(g);
}

void gc_move(struct gc *g)
{
    int rc = 0;

    g->changed = false;
    if (!g->last_round)
        rc = choose(g);
    if (rc < 0)
        gc_end(g, rc);
    else if (!g->last_round && g->chosen_n > 0)
        batch_send(g);
    else
        gc_reseal_end(g);
}

void gc_move_free(struct gc *g)
{
    free(g->chosen);
    free(g->records);
    free(g->list);
}
