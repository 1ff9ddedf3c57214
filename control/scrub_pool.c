/* Scrub of the pool: packs are verified by a node; records that are damaged are looked up in the
 * file maps, healed from nodes that hold their bytes clean, or named. */
#include "control/scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void next_batch(struct scrub *s);

/* --- packs --- */

static bool is_kept(const struct state_pack *p)
{
    return (p->state == PACK_LIVE && p->live_records > 0) || p->state == PACK_META;
}

static bool add_size(void *arg, const struct state_pack *p)
{
    struct scrub *s = arg;

    s->bytes_total += is_kept(p) ? p->size : 0;
    return true;
}

void scrub_pool_total(struct scrub *s)
{
    (void)state_packs(s->c->state, 0, add_size, s); /* only for the progress */
}

static bool take_pack(void *arg, const struct state_pack *p)
{
    struct scrub *s = arg;

    if (!is_kept(p))
        return true;
    if (s->packs_n == SCRUB_PACKS_MAX || (s->packs_n > 0 && s->batch_bytes >= SCRUB_PACKS_BYTES))
        return false;
    s->sizes[s->packs_n] = p->size;
    s->packs[s->packs_n++] = p->id;
    s->batch_bytes += p->size;
    return true;
}

struct one_pack {
    uint64_t id;
    bool live, meta;
};

static bool see_pack(void *arg, const struct state_pack *p)
{
    struct one_pack *one = arg;

    one->live = p->id == one->id && p->state == PACK_LIVE;
    one->meta = p->id == one->id && p->state == PACK_META;
    return false;
}

static struct one_pack pack_now(struct scrub *s, uint64_t id)
{
    struct one_pack one = {.id = id};

    (void)state_packs(s->c->state, id - 1, see_pack, &one);
    return one;
}

/* --- what is damaged --- */

struct find_record {
    struct scrub *s;
    const char *detail;
    uint32_t number;
    bool all;
    int rc;
};

static int add_bad(struct scrub *s, const struct state_record *r, const char *detail)
{
    struct scrub_bad *b = NULL;

    HASH_FIND(hh, s->bad, &r->id, sizeof(r->id), b);
    if (b)
        return 0;
    if (HASH_COUNT(s->bad) >= SCRUB_BAD_MAX) {
        scrub_line(s, true, "pack %016" PRIx64 ", record %u: %s (it is one of more than %u)",
                   r->pack, r->number, detail, SCRUB_BAD_MAX);
        return 0;
    }
    b = calloc(1, sizeof(*b));
    if (!b || !(b->detail = strdup(detail))) {
        free(b);
        return -ENOMEM;
    }
    b->at = *r;
    HASH_ADD(hh, s->bad, at.id, sizeof(b->at.id), b);
    s->pool_damaged++;
    return 0;
}

static bool on_record(void *arg, const struct state_record *r)
{
    struct find_record *f = arg;

    if (!f->all && r->number != f->number)
        return false;
    f->rc = add_bad(f->s, r, f->detail);
    return f->all && f->rc == 0;
}

/* Of a pack with damage: one record of it, or all. Those that nothing needs any more are no damage.
 */
static int note_damage(struct scrub *s, uint64_t pack, uint32_t number, bool all,
                       const char *detail)
{
    struct find_record f = {.s = s, .detail = detail, .number = number, .all = all};
    struct one_pack now = pack_now(s, pack);

    if (now.meta)
        scrub_line(s, true,
                   "a copy of the centre's state (`umbel flush /` makes a new one): %.400s",
                   detail);
    if (!now.live)
        return 0;
    int rc = state_pack_records(s->c->state, pack, number, on_record, &f);
    return rc < 0 ? rc : f.rc;
}

void scrub_pool_free(struct scrub *s)
{
    struct scrub_bad *b, *next;
    struct scrub_part *p, *after;

    HASH_ITER (hh, s->bad, b, next) {
        HASH_DEL(s->bad, b);
        LL_FOREACH_SAFE (b->parts, p, after)
            free(p);
        free(b->detail);
        free(b);
    }
}

/* --- verifying --- */

static void scan_begin(struct scrub *s);

static void batch_failed(struct scrub *s, int status, const char *detail)
{
    if (++s->tries < SCRUB_TRIES && !s->stop)
        scrub_wait(s, next_batch);
    else
        scrub_end(s, status, detail);
}

static int take_reply(struct scrub *s, const Star__ScrubPacksReply *r)
{
    int rc = 0;

    for (size_t n = 0; rc == 0 && n < r->n_records; n++)
        rc = note_damage(s, r->records[n]->pack, r->records[n]->number, false,
                         r->records[n]->detail);
    for (size_t n = 0; rc == 0 && n < r->n_packs; n++)
        rc = note_damage(s, r->packs[n]->pack, 0, true, r->packs[n]->detail);
    s->pool_packs += s->packs_n;
    s->pool_bytes += s->batch_bytes;
    s->bytes += s->batch_bytes;
    s->after = s->packs[s->packs_n - 1];
    s->tries = 0;
    return rc;
}

static void on_packs(void *arg, const struct message *reply)
{
    struct scrub *s = arg;

    if (s->c->stopping)
        return;
    if (reply->status < 0) {
        Star__ErrorReply *e =
            (Star__ErrorReply *)frame_unpack(reply, &star__error_reply__descriptor);
        batch_failed(s, reply->status, e ? e->detail : "");
        if (e)
            star__error_reply__free_unpacked(e, NULL);
        return;
    }
    Star__ScrubPacksReply *r =
        (Star__ScrubPacksReply *)frame_unpack(reply, &star__scrub_packs_reply__descriptor);
    int rc = r ? take_reply(s, r) : -EPROTO;
    if (r)
        star__scrub_packs_reply__free_unpacked(r, NULL);
    if (rc < 0)
        scrub_end(s, rc, NULL);
    else
        next_batch(s);
}

/* The keys travel as those of records to be moved do. */
static int packs_send(struct scrub *s, struct node *n)
{
    Star__MoveRecord record[SCRUB_PACKS_MAX], *records[SCRUB_PACKS_MAX];
    Star__ConfirmPack pack[SCRUB_PACKS_MAX], *packs[SCRUB_PACKS_MAX];
    Star__MoveRecords keys = STAR__MOVE_RECORDS__INIT;
    Star__ScrubPacks body = STAR__SCRUB_PACKS__INIT;

    for (size_t k = 0; k < s->packs_n; k++) {
        star__move_record__init(&record[k]);
        star__confirm_pack__init(&pack[k]);
        record[k].pack = pack[k].pack = s->packs[k];
        pack[k].size = s->sizes[k];
        records[k] = &record[k];
        packs[k] = &pack[k];
    }
    keys.records = records;
    keys.n_records = s->packs_n;
    int rc = keys_of_moves(s->c, &keys);
    body.packs = packs;
    body.n_packs = s->packs_n;
    body.keys = keys.keys;
    body.n_keys = keys.n_keys;
    body.rate = setting_u64(s->c, "scrub_rate");
    if (rc == 0)
        rc = peer_request(n->peer, STAR__MSG_TYPE__SCRUB_PACKS, &body.base,
                          NODE_COMMAND_DEADLINE_MS, on_packs, s);
    keys_moves_free(&keys);
    return rc;
}

static void next_batch(struct scrub *s)
{
    s->packs_n = 0;
    s->batch_bytes = 0;
    if (s->stop) {
        scrub_end(s, -ECANCELED, "it was stopped");
        return;
    }
    int rc = state_packs(s->c->state, s->after, take_pack, s);
    if (rc < 0) {
        scrub_end(s, rc, NULL);
    } else if (s->packs_n == 0) {
        scan_begin(s);
    } else {
        struct node *n = gc_node(s->c);
        rc = n ? packs_send(s, n) : -EAGAIN;
        if (rc < 0)
            batch_failed(s, rc, n ? "" : "no node is here to read the pool");
    }
}

void scrub_pool(struct scrub *s)
{
    s->phase = "pool";
    next_batch(s);
}

/* --- whose they are --- */

static void heal_begin(struct scrub *s);

static bool scan_part(void *arg, const struct state_part *p)
{
    struct scrub *s = arg;
    struct scrub_bad *b = NULL;

    s->scan_ino = p->ino;
    s->scan_offset = p->offset;
    if (s->scanned++ == SCRUB_PARTS_AT_ONCE)
        return false;
    HASH_FIND(hh, s->bad, &p->record, sizeof(p->record), b);
    if (!b || b->parts_n == SCRUB_PARTS_MAX)
        return true;
    struct scrub_part *part = malloc(sizeof(*part));
    if (!part) {
        s->rc = -ENOMEM;
        return false;
    }
    *part = (struct scrub_part){
        .ino = p->ino, .offset = p->offset, .length = p->length, .record_offset = p->record_offset};
    LL_APPEND(b->parts, part);
    b->parts_n++;
    return true;
}

static void scan_slice(struct scrub *s)
{
    s->scanned = 0;
    int rc = state_parts(s->c->state, s->scan_ino, s->scan_offset, scan_part, s);
    rc = rc < 0 ? rc : s->rc;
    if (rc < 0) {
        scrub_end(s, rc, NULL);
    } else if (s->scanned <= SCRUB_PARTS_AT_ONCE) {
        heal_begin(s);
    } else {
        s->then = scan_slice;
        s->again_ms = s->c->now; /* with the next tick: others want the loop too */
    }
}

static void scan_begin(struct scrub *s)
{
    if (!s->bad) {
        scrub_end(s, 0, NULL);
        return;
    }
    s->phase = "names";
    scan_slice(s);
}

/* --- healing --- */

static int by_place(struct scrub_bad *a, struct scrub_bad *b)
{
    if (a->at.pack != b->at.pack)
        return a->at.pack < b->at.pack ? -1 : 1;
    return (a->at.number > b->at.number) - (a->at.number < b->at.number);
}

static void tell_bad(struct scrub *s, const struct scrub_bad *b)
{
    const struct scrub_part *p;
    char path[512];

    s->pool_healed += b->healed;
    LL_FOREACH (b->parts, p) {
        scrub_path(s, p->ino, path);
        if (b->healed)
            scrub_line(s, false,
                       "%s: bytes %" PRIu64 " to %" PRIu64 " in the pool, from node %s: pack "
                       "%016" PRIx64 ", record %u",
                       path, p->offset, p->offset + p->length, b->healer, b->at.pack, b->at.number);
        else
            scrub_line(s, true,
                       "%s: bytes %" PRIu64 " to %" PRIu64 " in the pool: pack %016" PRIx64
                       ", record %u: %.300s",
                       path, p->offset, p->offset + p->length, b->at.pack, b->at.number, b->detail);
    }
}

static bool same_record(void *arg, const struct state_record *r)
{
    struct state_record *want = arg;

    want->length = want->number == r->number && want->id == r->id;
    return false;
}

/* Does the state still look for it there? */
static bool is_there(struct scrub *s, const struct scrub_bad *b)
{
    struct state_record r = {.id = b->at.id, .number = b->at.number};

    return state_pack_records(s->c->state, b->at.pack, b->at.number, same_record, &r) == 0 &&
           r.length == 1;
}

static void heal_end(struct scrub *s)
{
    struct scrub_bad *b;

    for (b = s->bad; b; b = b->hh.next) {
        if (b->healed || is_there(s, b))
            tell_bad(s, b);
        else
            s->pool_damaged--; /* overwritten or deleted meanwhile, or moved whole */
    }
    scrub_end(s, 0, NULL);
}

struct heal_request {
    Star__HealRecords body;
    Star__MoveRecords what;
    Star__MoveRecord record[SCRUB_HEAL_RECORDS], *records[SCRUB_HEAL_RECORDS];
    Star__RecordPart part[SCRUB_HEAL_PARTS], *parts[SCRUB_HEAL_PARTS];
    Star__Ticket file[SCRUB_HEAL_PARTS], *files[SCRUB_HEAL_PARTS];
    Star__Time mtime[SCRUB_HEAL_PARTS];
};

static void heal_file(struct scrub *s, struct heal_request *q, uint64_t ino)
{
    size_t n = q->body.n_files;
    struct inode i;

    for (size_t k = 0; k < n; k++)
        if (q->files[k]->ino == ino)
            return;
    if (state_inode(s->c->state, ino, &i) < 0)
        return; /* deleted: the node will not find it either */
    fill_ticket(s->c, &i, RIGHT_READ, &q->file[n], &q->mtime[n]);
    q->files[n] = &q->file[n];
    q->body.n_files++;
}

static void heal_add(struct scrub *s, struct heal_request *q, const struct scrub_bad *b)
{
    Star__MoveRecord *r = &q->record[q->what.n_records];
    const struct scrub_part *p;

    star__move_record__init(r);
    r->record = b->at.id;
    r->pack = b->at.pack;
    r->number = b->at.number;
    r->pack_offset = b->at.pack_offset;
    r->length = b->at.length;
    q->records[q->what.n_records++] = r;
    LL_FOREACH (b->parts, p) {
        Star__RecordPart *to = &q->part[q->body.n_parts];
        star__record_part__init(to);
        to->record = b->at.id;
        to->ino = p->ino;
        to->offset = p->offset;
        to->length = p->length;
        to->record_offset = p->record_offset;
        q->parts[q->body.n_parts++] = to;
        heal_file(s, q, p->ino);
    }
}

/* From heal_at on; heal_at becomes the first, heal_end the first behind. */
static void heal_fill(struct scrub *s, struct heal_request *q)
{
    struct scrub_bad *b;

    star__heal_records__init(&q->body);
    star__move_records__init(&q->what);
    q->body.what = &q->what;
    q->what.records = q->records;
    q->body.parts = q->parts;
    q->body.files = q->files;
    for (b = s->heal_at; b; b = b->hh.next) {
        if (b->healed || b->parts_n == 0)
            continue;
        if (q->what.n_records == SCRUB_HEAL_RECORDS ||
            q->body.n_parts + b->parts_n > SCRUB_HEAL_PARTS)
            break;
        heal_add(s, q, b);
    }
    s->heal_end = b;
}

static void heal_next(struct scrub *s);

static void on_healed(void *arg, const struct message *reply)
{
    struct scrub *s = arg;

    if (s->c->stopping)
        return;
    Star__HealReply *r =
        reply->status < 0 ? NULL
                          : (Star__HealReply *)frame_unpack(reply, &star__heal_reply__descriptor);
    for (size_t n = 0; r && n < r->n_record; n++) {
        struct scrub_bad *b = NULL;
        HASH_FIND(hh, s->bad, &r->record[n], sizeof(r->record[n]), b);
        if (!b)
            continue;
        b->healed = true;
        snprintf(b->healer, sizeof(b->healer), "%s", s->healer);
    }
    if (r)
        star__heal_reply__free_unpacked(r, NULL);
    s->heal_at = s->heal_end;
    heal_next(s);
}

/* The next one that is here and has not had its turn. */
static struct node *next_healer(struct scrub *s)
{
    struct node *n, *next = NULL;

    for (n = s->c->nodes; n; n = n->hh.next)
        if (n->peer && n->id > s->heal_node && (!next || n->id < next->id))
            next = n;
    return next;
}

static int heal_send(struct scrub *s, struct node *n, struct heal_request *q)
{
    int rc = keys_of_moves(s->c, &q->what);

    snprintf(s->healer, sizeof(s->healer), "%s", n->name);
    if (rc == 0)
        rc = peer_request(n->peer, STAR__MSG_TYPE__HEAL_RECORDS, &q->body.base,
                          NODE_COMMAND_DEADLINE_MS, on_healed, s);
    keys_moves_free(&q->what);
    return rc;
}

/* Each node is asked for all that those before it did not have. */
static void heal_next(struct scrub *s)
{
    struct heal_request *q = calloc(1, sizeof(*q));
    struct node *n = NULL;
    int rc = q ? -EAGAIN : -ENOMEM;

    while (rc == -EAGAIN && (n = next_healer(s))) {
        heal_fill(s, q);
        if (q->what.n_records > 0)
            rc = heal_send(s, n, q);
        if (rc < 0) { /* nothing more for it, or it went away */
            s->heal_node = n->id;
            s->heal_at = s->bad;
            rc = -EAGAIN;
        }
    }
    free(q);
    if (rc == -ENOMEM)
        scrub_end(s, rc, NULL);
    else if (rc < 0)
        heal_end(s);
}

static void heal_begin(struct scrub *s)
{
    HASH_SORT(s->bad, by_place);
    s->phase = "healing";
    s->heal_at = s->bad;
    heal_next(s);
}
