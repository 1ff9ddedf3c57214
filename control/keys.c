/*
 * Keys of sealed clouds, added to answers on their way out: the log and the state know generations
 * only. A writer gets the keys of its packs, a reader those of the records that he may read.
 */
#include "control/centre.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int keys_stamp(struct centre *c, uint32_t *generation)
{
    const struct control_keys *k = c->options->keys;

    *generation = k ? k->newest(k->ctx) : 0;
    return k && *generation == 0 ? -ENOKEY : 0;
}

void keys_free(uint8_t *room, size_t n)
{
    if (room)
        explicit_bzero(room, n * CONTROL_KEY);
    free(room);
}

static int pack_key(struct centre *c, uint64_t pack, uint32_t generation, uint8_t key[CONTROL_KEY])
{
    const struct control_keys *k = c->options->keys;

    return k ? k->pack(k->ctx, generation, pack, key) : -ENOKEY;
}

/* --- packs --- */

static void reply_with_keys(struct op *op, Star__AllocPacksReply *reply)
{
    uint64_t first = reply->first;
    size_t n = reply->count;
    uint8_t *room = calloc(n + 1, CONTROL_KEY);
    ProtobufCBinaryData *keys = calloc(n + 1, sizeof(*keys));
    int rc = room && keys ? 0 : -ENOMEM;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        keys[i] = (ProtobufCBinaryData){.len = CONTROL_KEY, .data = room + i * CONTROL_KEY};
        rc = pack_key(op->c, first + i, reply->key_generation, keys[i].data);
    }
    reply->keys = keys;
    reply->n_keys = n;
    if (rc < 0)
        op_error(op, rc, "no key of generation %u for new packs: %s", reply->key_generation,
                 strerror(-rc));
    else
        op_reply(op, 0, &reply->base);
    reply->keys = NULL;
    reply->n_keys = 0;
    free(keys);
    keys_free(room, n);
}

void keys_reply_packs(struct op *op, const struct state_result *r)
{
    Star__AllocPacksReply *reply =
        r->status < 0 ? NULL : star__alloc_packs_reply__unpack(NULL, r->body_len, r->body);

    if (r->status < 0) {
        op_refuse(op, r);
        return;
    }
    if (!reply)
        op_reply(op, -ENOMEM, NULL);
    else if (reply->key_generation == 0)
        op_reply(op, 0, &reply->base);
    else
        reply_with_keys(op, reply);
    if (reply)
        star__alloc_packs_reply__free_unpacked(reply, NULL);
}

/* --- records --- */

/* The pack in hand: records that follow each other lie in one mostly. */
struct hand {
    uint64_t pack;
    uint32_t generation;
    uint8_t key[CONTROL_KEY];
};

static int take_pack(struct centre *c, struct hand *h, uint64_t pack)
{
    uint32_t generation = 0;

    if (h->pack == pack)
        return 0;
    h->pack = 0;
    int rc = state_pack_generation(c->state, pack, &generation);
    if (rc == 0 && generation != 0)
        rc = pack_key(c, pack, generation, h->key);
    if (rc < 0)
        return rc;
    h->pack = pack;
    h->generation = generation;
    return 0;
}

static int record_key(struct centre *c, const struct hand *h, uint32_t number,
                      uint8_t key[CONTROL_KEY])
{
    const struct control_keys *k = c->options->keys;

    return h->generation == 0 ? 0 : k->record(k->ctx, h->key, number, key);
}

int keys_of_record(struct centre *c, uint64_t pack, uint32_t number, uint32_t *generation,
                   uint8_t key[CONTROL_KEY])
{
    struct hand h = {.pack = 0};
    int rc = take_pack(c, &h, pack);

    if (rc == 0)
        rc = record_key(c, &h, number, key);
    *generation = rc == 0 ? h.generation : 0;
    explicit_bzero(&h, sizeof(h));
    return rc;
}

int keys_of_extents(struct centre *c, Star__Extent *extents, size_t n, uint8_t **room)
{
    struct hand h = {.pack = 0};
    int rc = 0;

    *room = NULL;
    if (!c->options->keys || n == 0)
        return 0;
    uint8_t *at = *room = calloc(n, CONTROL_KEY);
    if (!at)
        return -ENOMEM;
    for (size_t i = 0; rc == 0 && i < n; i++, at += CONTROL_KEY) {
        rc = take_pack(c, &h, extents[i].pack);
        if (rc == 0)
            rc = record_key(c, &h, extents[i].number, at);
        if (rc < 0 || h.generation == 0)
            continue;
        extents[i].key = (ProtobufCBinaryData){.len = CONTROL_KEY, .data = at};
        extents[i].key_generation = h.generation;
    }
    explicit_bzero(&h, sizeof(h));
    return rc;
}

/* --- whole packs --- */

struct move_key {
    Star__PackKey key;
    uint8_t bytes[CONTROL_KEY];
};

/* Records of one pack stand together. */
static size_t packs_of(const Star__MoveRecords *body, struct move_key *keys)
{
    size_t n = 0;

    for (size_t i = 0; i < body->n_records; i++) {
        if (i > 0 && body->records[i]->pack == body->records[i - 1]->pack)
            continue;
        if (keys)
            keys[n].key.pack = body->records[i]->pack;
        n++;
    }
    return n;
}

int keys_of_moves(struct centre *c, Star__MoveRecords *body)
{
    size_t n = packs_of(body, NULL);
    int rc = 0;

    if (!c->options->keys || n == 0)
        return 0;
    struct move_key *keys = calloc(n, sizeof(*keys));
    body->keys = calloc(n, sizeof(*body->keys));
    if (!keys || !body->keys) {
        free(keys);
        return -ENOMEM;
    }
    body->n_keys = n;
    for (size_t i = 0; i < n; i++) {
        star__pack_key__init(&keys[i].key);
        body->keys[i] = &keys[i].key;
    }
    packs_of(body, keys);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        Star__PackKey *k = &keys[i].key;
        rc = state_pack_generation(c->state, k->pack, &k->key_generation);
        if (rc < 0 || k->key_generation == 0)
            continue;
        k->key = (ProtobufCBinaryData){.len = CONTROL_KEY, .data = keys[i].bytes};
        rc = pack_key(c, k->pack, k->key_generation, keys[i].bytes);
    }
    return rc;
}

void keys_moves_free(Star__MoveRecords *body)
{
    if (body->n_keys > 0) {
        explicit_bzero(body->keys[0], body->n_keys * sizeof(struct move_key));
        free(body->keys[0]);
    }
    free(body->keys);
    body->keys = NULL;
    body->n_keys = 0;
}
