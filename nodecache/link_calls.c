/* What a node asks of the centre: packs, maps, confirmations, metadata in the pool. */
#include <errno.h>
#include <semaphore.h>
#include <string.h>

#include "control/wire/clock.h"
#include "nodecache/link_private.h"

struct waiter {
    sem_t answered;
    const ProtobufCMessageDescriptor *type;
    ProtobufCMessage *reply;
    int status;
};

static void on_answer(void *arg, const struct message *reply)
{
    struct waiter *w = arg;

    w->status = reply->status;
    if (reply->status >= 0 && w->type)
        w->reply = frame_unpack(reply, w->type);
    sem_post(&w->answered);
}

int link_call(struct link *l, uint16_t type, const ProtobufCMessage *body, unsigned flags,
              const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **reply)
{
    struct waiter w = {.type = reply_type};
    int rc = -ESHUTDOWN;

    sem_init(&w.answered, 0, 0);
    pthread_rwlock_rdlock(&l->client_lock);
    if (l->client && !l->client_stops)
        rc = client_call(l->client, type, body, NULL, 0, LINK_CALL_MS, flags, on_answer, &w, NULL);
    pthread_rwlock_unlock(&l->client_lock);
    if (rc == 0) {
        while (sem_wait(&w.answered) < 0) /* bounded by the call's deadline */
            ;
        rc = w.status;
    }
    sem_destroy(&w.answered);
    if (rc >= 0 && reply_type && !w.reply)
        rc = -EPROTO;
    if (reply)
        *reply = w.reply;
    return rc;
}

void link_answer(struct link *l, const struct message *m, int status, const ProtobufCMessage *body)
{
    pthread_rwlock_rdlock(&l->client_lock);
    /* A stream that is gone: the centre asks again. */
    if (!l->client_stops)
        (void)client_reply(l->client, m, status, body);
    pthread_rwlock_unlock(&l->client_lock);
}

int link_ask(struct link *l, uint16_t type, const ProtobufCMessage *body,
             const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **reply)
{
    return link_call(l, type, body, CLIENT_RESEND, reply_type, reply);
}

static int call_map(void *ctx, uint64_t ino, uint64_t offset, uint64_t length, Star__MapReply **out)
{
    Star__MapRequest m = STAR__MAP_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;

    m.ino = ino;
    m.offset = offset;
    m.length = length;
    int rc = link_ask(ctx, STAR__MSG_TYPE__MAP, &m.base, &star__map_reply__descriptor, &reply);
    *out = (Star__MapReply *)reply;
    return rc < 0 ? rc : 0;
}

static int call_homed(void *ctx, uint64_t after, Star__HomedReply **out)
{
    Star__Homed m = STAR__HOMED__INIT;
    ProtobufCMessage *reply = NULL;

    m.after = after;
    int rc = link_ask(ctx, STAR__MSG_TYPE__HOMED, &m.base, &star__homed_reply__descriptor, &reply);
    *out = (Star__HomedReply *)reply;
    return rc < 0 ? rc : 0;
}

static int alloc(struct link *l, uint32_t count, bool fresh, bool gc, uint64_t *first,
                 uint32_t *got, struct pool_key *keys)
{
    Star__AllocPacks m = STAR__ALLOC_PACKS__INIT;
    ProtobufCMessage *reply = NULL;

    m.count = count;
    m.seq = random_id();
    m.fresh = fresh;
    m.gc = gc;
    int rc = link_ask(l, STAR__MSG_TYPE__ALLOC_PACKS, &m.base, &star__alloc_packs_reply__descriptor,
                      &reply);
    if (rc < 0)
        return rc;
    Star__AllocPacksReply *r = (Star__AllocPacksReply *)reply;
    *first = r->first;
    *got = r->count;
    rc = r->count > count ? -EPROTO
                          : pool_keys_take(keys, r->count, r->key_generation, r->keys, r->n_keys);
    protobuf_c_message_free_unpacked(reply, NULL);
    return rc;
}

int link_fresh(struct link *l)
{
    uint64_t first;
    uint32_t got;
    int rc = 0;

    /* Nobody allocates before it is known, or his packs would be taken for an earlier process's. */
    pthread_mutex_lock(&l->fresh_lock);
    if (!l->fresh_told)
        rc = alloc(l, 0, true, false, &first, &got, NULL);
    l->fresh_told = l->fresh_told || rc == 0;
    pthread_mutex_unlock(&l->fresh_lock);
    return rc;
}

static int call_alloc(void *ctx, uint32_t count, uint64_t *first, uint32_t *got,
                      struct pool_key *keys)
{
    int rc = link_fresh(ctx);

    return rc < 0 ? rc : alloc(ctx, count, false, false, first, got, keys);
}

static int call_alloc_gc(void *ctx, uint64_t *pack, struct pool_key *key)
{
    uint32_t got = 0;
    int rc = link_fresh(ctx);

    if (rc == 0)
        rc = alloc(ctx, 1, false, true, pack, &got, key);
    return rc == 0 && (got == 0 || *pack == 0) ? -EPROTO : rc;
}

static int call_moved(void *ctx, const Star__Moved *moved, uint64_t *count)
{
    ProtobufCMessage *reply = NULL;
    int rc =
        link_ask(ctx, STAR__MSG_TYPE__MOVED, &moved->base, &star__moved_reply__descriptor, &reply);

    if (rc == -EPROTO)
        rc = -ECONNRESET; /* an answer that cannot be read: it may have been taken */
    if (rc >= 0) {
        *count = ((Star__MovedReply *)reply)->moved;
        protobuf_c_message_free_unpacked(reply, NULL);
    }
    return rc < 0 ? rc : 0;
}

static int call_confirm(void *ctx, const Star__Confirm *confirm, Star__ConfirmReply **out)
{
    ProtobufCMessage *reply = NULL;
    int rc = link_ask(ctx, STAR__MSG_TYPE__CONFIRM, &confirm->base,
                      &star__confirm_reply__descriptor, &reply);

    if (rc == -EPROTO)
        rc = -ECONNRESET; /* an answer that cannot be read: it may have been taken */
    *out = (Star__ConfirmReply *)reply;
    return rc < 0 ? rc : 0;
}

static int call_discard(void *ctx, uint64_t pack)
{
    Star__PackRef m = STAR__PACK_REF__INIT;

    m.pack = pack;
    int rc = link_ask(ctx, STAR__MSG_TYPE__DISCARD_PACK, &m.base, NULL, NULL);
    return rc < 0 ? rc : 0;
}

struct part {
    sem_t answered;
    void *buf;
    uint32_t length;
    int status;
};

static void on_part(void *arg, const struct message *reply)
{
    struct part *p = arg;

    p->status = reply->status;
    if (reply->status >= 0 && reply->payload_len > p->length)
        p->status = -EPROTO;
    p->length = p->status < 0 ? 0 : (uint32_t)reply->payload_len;
    if (p->length > 0)
        memcpy(p->buf, reply->payload, p->length);
    sem_post(&p->answered);
}

static int call_meta_fetch(void *ctx, uint64_t count, uint64_t offset, void *buf, uint32_t *length)
{
    Star__MetaFetch m = STAR__META_FETCH__INIT;
    struct part p = {.buf = buf, .length = *length};
    struct link *l = ctx;
    int rc = -ESHUTDOWN;

    m.count = count;
    m.offset = offset;
    m.length = *length;
    sem_init(&p.answered, 0, 0);
    pthread_rwlock_rdlock(&l->client_lock);
    if (l->client && !l->client_stops)
        rc = client_call(l->client, STAR__MSG_TYPE__META_FETCH, &m.base, NULL, 0, LINK_CALL_MS, 0,
                         on_part, &p, NULL);
    pthread_rwlock_unlock(&l->client_lock);
    if (rc == 0) {
        while (sem_wait(&p.answered) < 0) /* bounded by the call's deadline */
            ;
        rc = p.status;
    }
    sem_destroy(&p.answered);
    *length = p.length;
    return rc < 0 ? rc : 0;
}

static int call_meta_stored(void *ctx, const Star__MetaStored *stored)
{
    int rc = link_ask(ctx, STAR__MSG_TYPE__META_STORED, &stored->base, NULL, NULL);
    return rc < 0 ? rc : 0;
}

const struct centre_calls *link_calls(void)
{
    static const struct centre_calls calls = {.map = call_map,
                                              .homed = call_homed,
                                              .alloc_packs = call_alloc,
                                              .confirm = call_confirm,
                                              .discard_pack = call_discard,
                                              .alloc_gc = call_alloc_gc,
                                              .meta_fetch = call_meta_fetch,
                                              .meta_stored = call_meta_stored,
                                              .moved = call_moved};
    return &calls;
}
