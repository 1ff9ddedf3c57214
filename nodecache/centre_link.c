/* The connection to the centre: HELLO, calls, reports. */
#include "nodecache/centre_link.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "nodecache/link_private.h"

/* Looking for the pool may wait for one that is away, so it is done seldom. */
#define LINK_STATVFS_MS 5000

/* ---- the centre's calls ---- */

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

static int call(struct link *l, uint16_t type, const ProtobufCMessage *body,
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
    int rc = call(ctx, STAR__MSG_TYPE__MAP, &m.base, &star__map_reply__descriptor, &reply);
    *out = (Star__MapReply *)reply;
    return rc < 0 ? rc : 0;
}

static int call_homed(void *ctx, uint64_t after, Star__HomedReply **out)
{
    Star__Homed m = STAR__HOMED__INIT;
    ProtobufCMessage *reply = NULL;

    m.after = after;
    int rc = call(ctx, STAR__MSG_TYPE__HOMED, &m.base, &star__homed_reply__descriptor, &reply);
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
    int rc =
        call(l, STAR__MSG_TYPE__ALLOC_PACKS, &m.base, &star__alloc_packs_reply__descriptor, &reply);
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
    int rc = call(ctx, STAR__MSG_TYPE__MOVED, &moved->base, &star__moved_reply__descriptor, &reply);

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
    int rc = call(ctx, STAR__MSG_TYPE__CONFIRM, &confirm->base, &star__confirm_reply__descriptor,
                  &reply);

    if (rc == -EPROTO)
        rc = -ECONNRESET; /* an answer that cannot be read: it may have been taken */
    *out = (Star__ConfirmReply *)reply;
    return rc < 0 ? rc : 0;
}

static int call_discard(void *ctx, uint64_t pack)
{
    Star__PackRef m = STAR__PACK_REF__INIT;

    m.pack = pack;
    int rc = call(ctx, STAR__MSG_TYPE__DISCARD_PACK, &m.base, NULL, NULL);
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
    int rc = call(ctx, STAR__MSG_TYPE__META_STORED, &stored->base, NULL, NULL);
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

/* ---- HELLO ---- */

/* It has answered what was said at `said`. */
static void heard(struct link *l, int64_t said)
{
    if (said > atomic_load(&l->heard_ms))
        atomic_store(&l->heard_ms, said);
    if (l->jobs)
        jobs_heard(l->jobs, said);
}

bool link_fenced(struct link *l)
{
    return clock_boot_ms() - atomic_load(&l->heard_ms) > atomic_load(&l->fence_ms);
}

void link_ends(struct link *l, enum link_end how)
{
    uint64_t one = 1;

    pthread_mutex_lock(&l->lock);
    bool first = l->end == LINK_GOES_ON;
    if (first)
        l->end = how;
    pthread_mutex_unlock(&l->lock);
    if (first && l->options.end_fd >= 0 &&
        write(l->options.end_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        log_error("the end of this node cannot be told: %s", strerror(errno));
}

enum link_end link_end(struct link *l)
{
    pthread_mutex_lock(&l->lock);
    enum link_end end = l->end;
    pthread_mutex_unlock(&l->lock);
    return end;
}

/* said: when we asked, so that the centre's clock is rather taken to be ahead. */
static void take_clock(struct link *l, uint64_t clock_ms, int64_t said)
{
    pthread_mutex_lock(&l->lock);
    l->keys[0].clock_ms = (int64_t)clock_ms;
    l->keys[0].at_ms = said;
    pthread_mutex_unlock(&l->lock);
}

static void take_key(struct link *l, const Star__HelloReply *r, int64_t said)
{
    struct link_key k = {.key.generation = r->ticket_generation};

    if (r->ticket_key.len != sizeof(k.key.key))
        return; /* without it every ticket is refused */
    memcpy(k.key.key, r->ticket_key.data, sizeof(k.key.key));
    pthread_mutex_lock(&l->lock);
    l->keys[1] = l->keys[0];
    l->keys[0] = k;
    pthread_mutex_unlock(&l->lock);
    take_clock(l, r->clock_ms, said);
}

int link_ticket(struct link *l, const Star__Ticket *t, int64_t *until)
{
    struct link_key keys[2];
    int rc = -EKEYREJECTED;

    pthread_mutex_lock(&l->lock);
    memcpy(keys, l->keys, sizeof(keys));
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; rc < 0 && i < 2; i++) {
        rc = ticket_verify(&keys[i].key, t);
        *until = keys[i].at_ms + ((int64_t)t->expires - keys[i].clock_ms);
    }
    if (rc == 0 && t->node != store_node(l->store))
        rc = -EKEYREJECTED;
    return rc;
}

static void take_hello(struct link *l, const Star__HelloReply *r)
{
    if (r->fence_ms > 0)
        atomic_store(&l->fence_ms, r->fence_ms);
    store_set_node(l->store, r->node);
    store_set_water(l->store, r->high_water, r->low_water, r->flush_age);
    pthread_mutex_lock(&l->lock);
    if (!l->hello)
        log_info("the centre knows us as node %u", r->node);
    l->hello = true;
    l->refused = 0;
    l->connects++;
    l->centre_new = l->centre_new || l->centre_instance != r->centre_instance;
    l->lines_gone = l->lines_gone || r->lines_lost;
    l->centre_instance = r->centre_instance;
    snprintf(l->cloud, sizeof(l->cloud), "%s", r->cloud);
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static int on_connect(void *ctx, struct client *c)
{
    struct link *l = ctx;
    Star__Hello m = STAR__HELLO__INIT;
    ProtobufCMessage *reply = NULL;
    char detail[NODE_DETAIL] = "";

    m.protocol = PROTOCOL_VERSION;
    m.role = STAR__ROLE__NODE;
    m.name = (char *)l->options.name;
    m.cloud = (char *)l->options.cloud;
    m.instance = l->instance;
    m.address = (char *)l->options.address;
    m.capacity = l->options.capacity;
    m.machine = (char *)l->options.machine;
    m.store = (char *)store_id(l->store);
    pthread_mutex_lock(&l->lock);
    m.fresh = !l->hello;
    pthread_mutex_unlock(&l->lock);
    int64_t said = clock_boot_ms();
    int rc = client_handshake(c, STAR__MSG_TYPE__HELLO, &m.base, LINK_HELLO_MS,
                              &star__hello_reply__descriptor, &reply, detail);
    if (rc >= 0 && !reply)
        rc = -EPROTO;
    if (rc >= 0) {
        heard(l, said);
        take_key(l, (Star__HelloReply *)reply, said);
        take_hello(l, (Star__HelloReply *)reply);
        if (l->jobs)
            jobs_connected(l->jobs);
        protobuf_c_message_free_unpacked(reply, NULL);
        return 0;
    }
    if (rc == -ENODEV)
        link_ends(l, LINK_GIVEN_UP); /* before link_wait() tells of it */
    pthread_mutex_lock(&l->lock);
    if (l->refused != rc)
        log_warning("the centre does not take us: %s%s%s", strerror(-rc), detail[0] ? ": " : "",
                    detail);
    l->refused = rc;
    snprintf(l->detail, sizeof(l->detail), "%s", detail[0] ? detail : strerror(-rc));
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static void on_disconnect(void *ctx, struct client *c)
{
    struct link *l = ctx;

    (void)c;
    pthread_mutex_lock(&l->lock);
    bool stop = l->stop;
    pthread_mutex_unlock(&l->lock);
    if (!stop)
        log_warning("the connection to the centre is lost");
}

/* ---- what the centre should know ---- */

struct attrs_batch {
    struct link *link;
    struct wire_attrs wire[LINK_ATTRS_MAX];
    Star__HomeAttrs *list[LINK_ATTRS_MAX];
    size_t count;
};

static int batch_send(struct attrs_batch *b, bool done)
{
    Star__NodeAttrs m = STAR__NODE_ATTRS__INIT;

    m.attrs = b->list;
    m.n_attrs = b->count;
    m.done = done;
    b->count = 0;
    return call(b->link, STAR__MSG_TYPE__NODE_ATTRS, &m.base, NULL, NULL);
}

static int batch_add(void *arg, const struct attrs *attrs)
{
    struct attrs_batch *b = arg;

    put_attrs(&b->wire[b->count], attrs, store_node(b->link->store));
    b->list[b->count] = &b->wire[b->count].attrs;
    b->count++;
    return b->count == LINK_ATTRS_MAX ? batch_send(b, false) : 0;
}

int link_report_attrs(struct link *l)
{
    struct attrs_batch *b = calloc(1, sizeof(*b));

    if (!b)
        return -ENOMEM;
    b->link = l;
    int rc = store_unlogged(l->store, batch_add, b);
    if (rc >= 0)
        rc = batch_send(b, true);
    free(b);
    return rc;
}

static int send_lines(struct link *l, const struct copy_line *lines, size_t count)
{
    Star__Copies m = STAR__COPIES__INIT;
    Star__Copy *copies = calloc(count, sizeof(*copies));
    Star__Copy **list = calloc(count, sizeof(*list));
    int rc = copies && list ? 0 : -ENOMEM;

    for (size_t i = 0; rc == 0 && i < count; i++) {
        star__copy__init(&copies[i]);
        copies[i].ino = lines[i].ino;
        copies[i].version = lines[i].version;
        copies[i].cached = lines[i].cached;
        copies[i].staged = lines[i].staged;
        copies[i].gone = lines[i].gone;
        list[i] = &copies[i];
    }
    m.copies = list;
    m.n_copies = count;
    m.node = store_node(l->store);
    if (rc == 0)
        rc = call(l, STAR__MSG_TYPE__COPIES, &m.base, NULL, NULL);
    free(copies);
    free(list);
    return rc;
}

int link_send_lines(struct link *l)
{
    bool more = true;
    int rc = 0;

    pthread_mutex_lock(&l->lines_lock);
    if (!l->lines)
        l->lines = malloc(LINK_COPIES_MAX * sizeof(*l->lines));
    if (!l->lines)
        rc = -ENOMEM;
    while (rc == 0 && more) {
        /* What failed goes first and whole: a line that is gone is in no later batch. */
        bool again = l->lines_n > 0;
        if (!again)
            l->lines_n = store_changed_lines(l->store, l->lines, LINK_COPIES_MAX);
        more = again || l->lines_n == LINK_COPIES_MAX;
        rc = l->lines_n > 0 ? send_lines(l, l->lines, l->lines_n) : 0;
        if (rc >= 0) {
            rc = 0;
            l->lines_n = 0;
        }
    }
    pthread_mutex_unlock(&l->lines_lock);
    return rc;
}

static void look_at_pool(struct link *l, struct pool_state *p)
{
    struct statvfs v;
    bool was_away = p->error[0] != 0;

    p->error[0] = 0;
    if (pool_look(l->pool, p->error) == 0 && pool_statvfs(l->pool, &v, p->error) == 0) {
        p->total = (uint64_t)v.f_blocks * v.f_frsize;
        p->free = (uint64_t)v.f_bavail * v.f_frsize;
        p->error[0] = 0;
        store_set_pool_free(l->store, p->free);
    }
    if (p->error[0] != 0 && !was_away)
        log_warning("the pool is away: %s", p->error);
    else if (p->error[0] == 0 && was_away)
        flush_pool_back(l->flush);
}

static void *pool_main(void *arg)
{
    struct link *l = arg;
    struct pool_state *p = calloc(1, sizeof(*p));

    prctl(PR_SET_NAME, "pool-look");
    pthread_mutex_lock(&l->lock);
    while (p && !l->stop) {
        struct timespec until = deadline_in(LINK_STATVFS_MS);
        pthread_mutex_unlock(&l->lock);
        look_at_pool(l, p);
        pthread_mutex_lock(&l->lock);
        l->pool_state = *p;
        while (!l->stop && pthread_cond_timedwait(&l->changed, &l->lock, &until) == 0)
            ;
    }
    pthread_mutex_unlock(&l->lock);
    free(p);
    return NULL;
}

static void take_settings(struct link *l, const Star__NodeReportReply *r)
{
    store_set_water(l->store, r->high_water, r->low_water, r->flush_age);
    if (!r->draining)
        store_set_closed(l->store, false);
}

static size_t put_hot(struct store *s, Star__HotFile *out, Star__HotFile **list)
{
    struct hot_file hot[HOT_TAKE_MAX];
    unsigned n = store_take_hot(s, hot);

    for (unsigned i = 0; i < n; i++) {
        star__hot_file__init(&out[i]);
        out[i].ino = hot[i].ino;
        out[i].bytes = hot[i].bytes;
        list[i] = &out[i];
    }
    return n;
}

static void send_report(struct link *l)
{
    Star__NodeReport m = STAR__NODE_REPORT__INIT;
    ProtobufCMessage *reply = NULL;
    struct store_counts c;
    struct pool_state p;
    char pool_error[NODE_DETAIL], disk_error[NODE_DETAIL];
    char damage[STORE_DAMAGE_MAX][NODE_DETAIL], *lines[STORE_DAMAGE_MAX];
    Star__NodePower power = STAR__NODE_POWER__INIT;
    char why[RUN_DETAIL];
    Star__HotFile hot[HOT_TAKE_MAX], *hot_list[HOT_TAKE_MAX];
    double load = 0;

    pthread_mutex_lock(&l->lock);
    p = l->pool_state;
    pthread_mutex_unlock(&l->lock);
    store_counts(l->store, &c);
    flush_pool_error(l->flush, pool_error);
    store_error(l->store, disk_error);
    if (getloadavg(&load, 1) == 1)
        m.load = load / (double)sysconf(_SC_NPROCESSORS_ONLN);
    m.capacity = c.capacity;
    m.used = c.used;
    m.staged = c.staged;
    m.cached = c.cached;
    m.files = c.files;
    m.pool_total = p.total;
    m.pool_free = p.free;
    m.pool_error = p.error[0] ? p.error : pool_error;
    m.store_error = disk_error;
    m.read_bytes = c.read_bytes;
    m.write_bytes = c.write_bytes;
    m.fetched_bytes = c.fetched_bytes;
    m.flushed_bytes = c.flushed_bytes;
    m.n_hot = put_hot(l->store, hot, hot_list);
    m.hot = hot_list;
    if (l->jobs) {
        jobs_power(l->jobs, &power, why);
        m.power = &power;
    }
    m.n_damage = store_take_damage(l->store, damage);
    m.damage = lines;
    for (size_t i = 0; i < m.n_damage; i++)
        lines[i] = damage[i];
    /* Not sent again: the next one is newer. */
    int64_t said = clock_boot_ms();
    int rc = link_call(l, STAR__MSG_TYPE__NODE_REPORT, &m.base, 0,
                       &star__node_report_reply__descriptor, &reply);
    if (rc >= 0)
        heard(l, said);
    if (rc >= 0 && reply) {
        take_settings(l, (Star__NodeReportReply *)reply);
        take_clock(l, ((Star__NodeReportReply *)reply)->clock_ms, said);
    }
    if (reply)
        protobuf_c_message_free_unpacked(reply, NULL);
}

/* Until something is to be sent. false: stop. */
static bool wait_turn(struct link *l, uint64_t *connects, bool *connected, bool *all_lines)
{
    struct timespec until = deadline_in(LINK_COPIES_MS);

    pthread_mutex_lock(&l->lock);
    if (!l->stop && !l->lines_lost && l->connects == *connects)
        pthread_cond_timedwait(&l->changed, &l->lock, &until);
    l->lines_lost = false;
    *connected = l->connects != *connects;
    /* A new centre may have lost a DROP that it owed: the lines make it say so again. */
    *all_lines = *connects == 0 || l->centre_new || l->lines_gone;
    l->centre_new = l->lines_gone = false;
    *connects = l->connects;
    bool go_on = !l->stop;
    pthread_mutex_unlock(&l->lock);
    return go_on;
}

static void *report_main(void *arg)
{
    struct link *l = arg;
    int64_t next_report = 0;
    uint64_t connects = 0;
    bool connected, all_lines, owes_attrs = false;

    prctl(PR_SET_NAME, "report");
    while (wait_turn(l, &connects, &connected, &all_lines)) {
        if (all_lines)
            store_change_all_lines(l->store);
        owes_attrs = owes_attrs || connected;
        if (owes_attrs)
            owes_attrs = link_report_attrs(l) < 0;
        if (clock_boot_ms() >= next_report) {
            next_report = clock_boot_ms() + LINK_REPORT_MS;
            send_report(l);
        }
        (void)link_send_lines(l); /* fails: at the next turn */
    }
    return NULL;
}

static void on_lost_lines(void *ctx)
{
    struct link *l = ctx;

    pthread_mutex_lock(&l->lock);
    l->lines_lost = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

/* A centre that has not been heard lately sends nobody here: the lines follow when it is back. */
static void before_eviction(void *ctx)
{
    struct link *l = ctx;

    if (clock_boot_ms() - atomic_load(&l->heard_ms) < LINK_HEARD_MS)
        (void)link_send_lines(l);
}

/* ---- life ---- */

int link_new(const struct link_options *options, struct link **out)
{
    struct link *l = calloc(1, sizeof(*l));

    if (!l)
        return -ENOMEM;
    l->options = *options;
    l->instance = random_id();
    atomic_store(&l->fence_ms, LINK_FENCE_MS);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    pthread_mutex_init(&l->fresh_lock, NULL);
    pthread_mutex_init(&l->lines_lock, NULL);
    pthread_rwlock_init(&l->client_lock, NULL);
    for (unsigned i = 0; i < LINK_WORKERS; i++) {
        l->workers[i].link = l;
        pthread_cond_init(&l->workers[i].work, NULL);
    }
    *out = l;
    return 0;
}

/* Of a unix socket it is only that nobody listens yet. */
static void on_fail(void *ctx, struct client *c, int err, const char *detail)
{
    struct link *l = ctx;

    (void)c;
    if (err == l->failed || !l->options.identity)
        return;
    l->failed = err;
    log_warning("the centre: %s", detail);
}

int link_connect(struct link *l, struct store *s, struct flush *fl, struct pool *pool,
                 struct jobs *jobs)
{
    struct client_ops ops = {.on_connect = on_connect,
                             .on_disconnect = on_disconnect,
                             .on_push = link_on_push,
                             .on_fail = on_fail,
                             .identity = l->options.identity,
                             .expect = IDENTITY_CONTROL};

    l->store = s;
    l->flush = fl;
    l->pool = pool;
    l->jobs = jobs;
    return client_start(l->options.centre, "centre", &ops, l, &l->client);
}

/* These do not pass by waiting. */
static bool final(int rc)
{
    return rc == -EPROTONOSUPPORT || rc == -EXDEV || rc == -EPERM || rc == -EACCES ||
           rc == -EEXIST || rc == -EINVAL || rc == -ENODEV;
}

int link_wait(struct link *l, int ms, char detail[NODE_DETAIL])
{
    struct timespec until = deadline_in(ms);
    int rc = 0;

    pthread_mutex_lock(&l->lock);
    while (!l->hello && rc == 0 && !final(l->refused))
        rc = pthread_cond_timedwait(&l->changed, &l->lock, &until);
    if (l->hello)
        rc = 0;
    else if (final(l->refused))
        rc = l->refused;
    else
        rc = -ETIMEDOUT;
    snprintf(detail, NODE_DETAIL, "the centre at %s: %.160s", l->options.centre,
             l->detail[0] ? l->detail : "no answer");
    pthread_mutex_unlock(&l->lock);
    return rc;
}

int link_ready(struct link *l)
{
    int rc = pushes_start(l);

    if (rc < 0)
        return rc;
    store_on_lost_lines(l->store, on_lost_lines, l);
    store_before_eviction(l->store, before_eviction, l);
    rc = -pthread_create(&l->reporter, NULL, report_main, l);
    l->reports = rc == 0;
    if (rc == 0)
        rc = -pthread_create(&l->pool_thread, NULL, pool_main, l);
    l->looks_at_pool = l->reports && rc == 0;
    return rc;
}

const char *link_cloud(struct link *l)
{
    return l->cloud;
}

void link_stop(struct link *l)
{
    if (!l)
        return;
    if (l->store)
        store_on_lost_lines(l->store, NULL, NULL);
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    pthread_rwlock_wrlock(&l->client_lock);
    l->client_stops = true;
    pthread_rwlock_unlock(&l->client_lock);
    if (l->client)
        client_stop(l->client); /* ends all waiting calls */
    if (l->store)
        store_before_eviction(l->store, NULL, NULL);
    if (l->reports)
        pthread_join(l->reporter, NULL);
    l->reports = false;
    if (l->looks_at_pool)
        pthread_join(l->pool_thread, NULL);
    l->looks_at_pool = false;
    pushes_stop(l);
}

void link_free(struct link *l)
{
    if (!l)
        return;
    free(l->lines);
    pthread_rwlock_destroy(&l->client_lock);
    for (unsigned i = 0; i < LINK_WORKERS; i++)
        pthread_cond_destroy(&l->workers[i].work);
    pthread_mutex_destroy(&l->fresh_lock);
    pthread_mutex_destroy(&l->lines_lock);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
