/* A scrub, as the centre asks for it: of this node's clean bytes, of packs; and healing what others
 * have found. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/wire/clock.h"
#include "nodecache/link_private.h"
#include "nodecache/move.h"

/* Sleeps in such steps, so that a stop is seen. */
#define PACE_MS 50

/* ---- clean bytes ---- */

struct scrub_answer {
    Star__ScrubReply reply;
    Star__ScrubPlace next;
    Star__ScrubDamage damage[SCRUB_DAMAGE_MAX], *list[SCRUB_DAMAGE_MAX];
    struct scrub_result result;
};

static void fill_answer(struct scrub_answer *a, const struct scrub_place *at)
{
    star__scrub_reply__init(&a->reply);
    star__scrub_place__init(&a->next);
    a->next.shard = at->shard;
    a->next.ino = at->ino;
    a->next.offset = at->offset;
    a->reply.next = at->done ? NULL : &a->next;
    a->reply.files = a->result.files;
    a->reply.bytes = a->result.bytes;
    for (unsigned n = 0; n < a->result.damaged; n++) {
        struct scrub_damage *d = &a->result.damage[n];
        star__scrub_damage__init(&a->damage[n]);
        a->damage[n].ino = d->ino;
        a->damage[n].offset = d->start;
        a->damage[n].length = d->end > d->start ? d->end - d->start : 0;
        a->damage[n].healed = d->healed;
        a->damage[n].detail = d->healed ? (char *)"" : d->detail;
        a->list[n] = &a->damage[n];
    }
    a->reply.n_damage = a->result.damaged;
    a->reply.damage = a->list;
}

void push_scrub(struct push *p, const Star__Scrub *m)
{
    const struct scrub_limits limits = {
        .bytes = m->bytes, .ms = m->ms < INT32_MAX ? (int)m->ms : INT32_MAX, .rate = m->rate};
    struct scrub_place at = {.shard = m->from ? m->from->shard : 0,
                             .ino = m->from ? m->from->ino : 0,
                             .offset = m->from ? m->from->offset : 0};
    struct scrub_answer *a = malloc(sizeof(*a));
    int rc = a ? store_scrub(p->link->store, &at, &limits, &a->result) : -ENOMEM;

    if (rc < 0) {
        push_refuse(p, rc, "the node's copies cannot be looked at");
    } else {
        fill_answer(a, &at);
        push_answer(p, 0, &a->reply.base);
    }
    free(a);
}

/* ---- packs ---- */

struct packs_scrub {
    struct link *link;
    const Star__ScrubPacks *asked;
    int64_t began;
    uint64_t pack; /* in hand */
    Star__ScrubPacksReply reply;
    size_t records_room, packs_room;
};

/* Room for one more in a list of pointers, and what it points to. NULL: no memory. */
static void *add(void ***list, size_t *n, size_t *room, size_t size)
{
    void *one = calloc(1, size);

    if (one && *n == *room) {
        size_t more = *room ? *room * 2 : 16;
        void **grown = realloc(*list, more * sizeof(*grown));
        if (!grown) {
            free(one);
            return NULL;
        }
        *list = grown;
        *room = more;
    }
    if (one)
        (*list)[(*n)++] = one;
    return one;
}

static int bad_record(void *arg, const struct pack_record *r, const char *detail)
{
    struct packs_scrub *k = arg;
    Star__BadRecord *b =
        add((void ***)&k->reply.records, &k->reply.n_records, &k->records_room, sizeof(*b));

    if (!b)
        return -ENOMEM;
    star__bad_record__init(b);
    b->pack = k->pack;
    b->number = r->number;
    b->detail = strdup(detail);
    return b->detail ? 0 : -ENOMEM;
}

static int bad_pack(struct packs_scrub *k, const char *detail)
{
    Star__BadPack *b =
        add((void ***)&k->reply.packs, &k->reply.n_packs, &k->packs_room, sizeof(*b));

    if (!b)
        return -ENOMEM;
    star__bad_pack__init(b);
    b->pack = k->pack;
    b->detail = strdup(detail);
    return b->detail ? 0 : -ENOMEM;
}

static int pack_key_of(const struct packs_scrub *k, uint64_t pack, struct pool_key *key)
{
    *key = (struct pool_key){.generation = 0};
    for (size_t n = 0; n < k->asked->n_keys; n++) {
        const Star__PackKey *one = k->asked->keys[n];
        if (one->pack == pack)
            return pool_key_take(key, one->key_generation, one->key.data, one->key.len);
    }
    return 0;
}

static int scrub_pack(struct packs_scrub *k, const Star__ConfirmPack *pack, char *detail)
{
    struct pool_key key;
    uint64_t bytes = 0;
    char line[POOL_DETAIL];

    k->pack = pack->pack;
    detail[0] = '\0';
    int rc = pack_key_of(k, pack->pack, &key);
    if (rc == 0)
        rc = pack_scrub(k->link->pool, pool_key_or_none(&key), pack->pack, bad_record, k, &bytes,
                        detail);
    pool_key_wipe(&key);
    if (rc == -EBADMSG || rc == -ENOENT || rc == -EPROTONOSUPPORT) {
        rc = bad_pack(k, detail[0] ? detail : strerror(-rc));
    } else if (rc == 0 && bytes != pack->size) {
        snprintf(line, sizeof(line),
                 "pack %016" PRIx64 " has %" PRIu64 " bytes in the pool and %" PRIu64
                 " in the state",
                 pack->pack, bytes, pack->size);
        rc = bad_pack(k, line);
    }
    k->reply.bytes += pack->size;
    return rc;
}

/* Until the bytes so far are due. */
static void keep_pace(const struct packs_scrub *k)
{
    int64_t due = k->began + (int64_t)(k->reply.bytes / (k->asked->rate / 1000 + 1));

    for (int64_t now = clock_boot_ms(); now < due && !link_stops(k->link); now = clock_boot_ms()) {
        int64_t wait = due - now < PACE_MS ? due - now : PACE_MS;
        nanosleep(&(struct timespec){.tv_nsec = (long)wait * 1000000}, NULL);
    }
}

static void packs_free(struct packs_scrub *k)
{
    for (size_t n = 0; n < k->reply.n_records; n++) {
        free(k->reply.records[n]->detail);
        free(k->reply.records[n]);
    }
    for (size_t n = 0; n < k->reply.n_packs; n++) {
        free(k->reply.packs[n]->detail);
        free(k->reply.packs[n]);
    }
    free(k->reply.records);
    free(k->reply.packs);
}

void push_scrub_packs(struct push *p, const Star__ScrubPacks *m)
{
    struct packs_scrub k = {.link = p->link,
                            .asked = m,
                            .began = clock_boot_ms(),
                            .reply = STAR__SCRUB_PACKS_REPLY__INIT};
    char detail[POOL_DETAIL] = "";
    int rc = 0;

    for (size_t n = 0; rc == 0 && n < m->n_packs; n++) {
        rc = link_stops(p->link) ? -ESHUTDOWN : scrub_pack(&k, m->packs[n], detail);
        keep_pace(&k);
    }
    if (rc < 0)
        push_refuse(p, rc, detail[0] ? detail : strerror(-rc));
    else
        push_answer(p, 0, &k.reply.base);
    packs_free(&k);
}

/* ---- healing ---- */

struct healing {
    struct link *link;
    const Star__HealRecords *asked;
};

static const Star__RecordPart *parts_of(const struct healing *h, uint64_t record, size_t *n)
{
    const Star__HealRecords *q = h->asked;
    size_t first = 0;

    while (first < q->n_parts && q->parts[first]->record != record)
        first++;
    *n = first;
    return first < q->n_parts ? q->parts[first] : NULL;
}

static bool heal_place(void *arg, const Star__MoveRecord *q, uint64_t *ino, uint64_t *offset)
{
    size_t n;
    const Star__RecordPart *part = parts_of(arg, q->record, &n);

    if (!part || part->record_offset > part->offset)
        return false;
    *ino = part->ino;
    *offset = part->offset - part->record_offset;
    return true;
}

static int ticket_of(const struct healing *h, uint64_t ino, struct ticket *out)
{
    for (size_t n = 0; n < h->asked->n_files; n++)
        if (h->asked->files[n]->ino == ino)
            return get_ticket(h->asked->files[n], out);
    return -ENODATA;
}

/* Each part that a file still has; what none has is dead, and zero. */
static int heal_content(void *arg, const Star__MoveRecord *q, uint8_t *out)
{
    struct healing *h = arg;
    struct ticket t;
    size_t n;
    int rc = q->length > POOL_RECORD_MAX || !parts_of(h, q->record, &n) ? -ENODATA : 0;

    if (rc < 0)
        return rc;
    memset(out, 0, q->length);
    for (; rc == 0 && n < h->asked->n_parts && h->asked->parts[n]->record == q->record; n++) {
        const Star__RecordPart *p = h->asked->parts[n];
        if (p->record_offset > q->length || p->length > q->length - p->record_offset ||
            p->offset > NODE_SIZE_MAX - p->length)
            return -EINVAL;
        rc = ticket_of(h, p->ino, &t);
        if (rc == 0)
            rc = store_clean_bytes(h->link->store, &t, p->offset, p->offset + p->length,
                                   out + p->record_offset);
    }
    return rc;
}

void push_heal(struct push *p, const Star__HealRecords *m)
{
    struct link *l = p->link;
    struct healing h = {.link = l, .asked = m};
    const struct move_other other = {.place = heal_place, .content = heal_content, .arg = &h};
    Star__HealReply reply = STAR__HEAL_REPLY__INIT;
    struct move_result r;

    if (!m->what) {
        push_refuse(p, -EINVAL, "nothing to heal");
        return;
    }
    int rc = move_records(l->pool, link_calls(), l, l->flush, m->what, &other, link_stops, l, &r);
    reply.record = r.done;
    reply.n_record = r.done ? r.records : 0;
    reply.detail = r.detail;
    if (rc < 0)
        push_refuse(p, rc, r.detail);
    else
        push_answer(p, 0, &reply.base);
    free(r.done);
    free(r.failed_packs);
}
