/* A service or a hub for the tests of the wire, with the same answers:
 *   GETATTR      attr.ino as asked                    SYNC_ATTRS   notes the ino, in order; empty
 *   READ         length bytes, each (uint8_t)offset   SETLK        is held until server_release()
 *   WRITE        written = length, instance = sum     UNLINK       -ENOENT with a detail
 *   HELLO        session 42                           CTL_WRITE    nothing, ever
 *   STATFS       hangs up                             others       -EOPNOTSUPP
 */
#ifndef UMBEL_TESTS_WIRE_SERVERS_H
#define UMBEL_TESTS_WIRE_SERVERS_H

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/wire/authority.h"
#include "control/wire/client.h"
#include "control/wire/hub.h"
#include "control/wire/service.h"

#define NOTED_MAX 200000

struct server {
    bool is_hub, tls;
    struct identity *identity; /* tls */
    char folder[64];
    _Atomic unsigned refused;
    char refusal[256]; /* the first; read when refused has grown */
    bool anonymous;    /* hub */
    char address[256];
    struct service *service;
    struct hub *hub;
    uv_loop_t loop;
    uv_async_t async;
    pthread_t thread;
    void (*on_loop)(struct server *s); /* run once on the hub's loop by server_run */
    atomic_bool stop, release;
    atomic_uint opened, closed;
    _Atomic uint64_t garbage;
    bool push_at_hello;        /* hub: a RECALL goes out before HELLO's answer, and one after it */
    struct peer *last;         /* hub: the peer that said HELLO last */
    uint64_t noted[NOTED_MAX]; /* of SYNC_ATTRS; read after server_stop */
    atomic_uint noted_count;
    pthread_mutex_t lock; /* of what is held: a service answers from any thread */
    struct message held;  /* SETLK */
    struct service_conn *held_conn;
    struct peer *held_peer;
};

static inline void answer(struct server *s, void *who, const struct message *m, int status,
                          const ProtobufCMessage *body, const void *payload, size_t length)
{
    struct iovec iov = {(void *)(uintptr_t)payload, length};
    int err = s->is_hub ? peer_reply(who, m, status, body, payload, length)
                        : service_reply(who, m, status, body, &iov, length ? 1 : 0);
    cr_assert(err == 0 || err == -ENOTCONN);
}

static inline void answer_read(struct server *s, void *who, const struct message *m)
{
    Star__Read *r = (Star__Read *)frame_unpack(m, &star__read__descriptor);
    Star__ReadReply body = STAR__READ_REPLY__INIT;
    uint8_t *data = malloc(r->length + 1);
    memset(data, (int)r->offset, r->length);
    answer(s, who, m, 0, &body.base, data, r->length);
    free(data);
    protobuf_c_message_free_unpacked(&r->base, NULL);
}

static inline void answer_write(struct server *s, void *who, const struct message *m)
{
    Star__WriteReply body = STAR__WRITE_REPLY__INIT;
    body.written = m->payload_len;
    for (size_t i = 0; i < m->payload_len; i++)
        body.instance += m->payload[i];
    answer(s, who, m, 0, &body.base, NULL, 0);
}

static inline void answer_sync(struct server *s, void *who, const struct message *m)
{
    Star__HomeAttrs *a = (Star__HomeAttrs *)frame_unpack(m, &star__home_attrs__descriptor);
    unsigned at = atomic_fetch_add(&s->noted_count, 1);
    if (at < NOTED_MAX)
        s->noted[at] = a->ino;
    protobuf_c_message_free_unpacked(&a->base, NULL);
    answer(s, who, m, 0, NULL, NULL, 0);
}

static inline void answer_hello(struct server *s, void *who, const struct message *m)
{
    Star__HelloReply body = STAR__HELLO_REPLY__INIT;
    Star__Recall recall = STAR__RECALL__INIT;
    body.session = 42;
    if (s->is_hub)
        s->last = who;
    if (s->push_at_hello)
        peer_request(who, STAR__MSG_TYPE__RECALL, &recall.base, 1000, NULL, NULL);
    answer(s, who, m, 0, &body.base, NULL, 0);
    recall.ino = 1;
    if (s->push_at_hello)
        peer_request(who, STAR__MSG_TYPE__RECALL, &recall.base, 1000, NULL, NULL);
}

static inline void hold(struct server *s, void *who, const struct message *m)
{
    pthread_mutex_lock(&s->lock);
    s->held = *m;
    if (s->is_hub)
        s->held_peer = peer_ref(who);
    else
        s->held_conn = service_ref(who);
    pthread_mutex_unlock(&s->lock);
}

static inline void answer_getattr(struct server *s, void *who, const struct message *m)
{
    Star__Inode *i = (Star__Inode *)frame_unpack(m, &star__inode__descriptor);
    Star__Attr attr = STAR__ATTR__INIT;
    Star__AttrReply body = STAR__ATTR_REPLY__INIT;
    attr.ino = i->ino;
    body.attr = &attr;
    answer(s, who, m, 0, &body.base, NULL, 0);
    protobuf_c_message_free_unpacked(&i->base, NULL);
}

static inline void serve_one(struct server *s, void *who, const struct message *m)
{
    switch (m->type) {
    case STAR__MSG_TYPE__GETATTR:
        answer_getattr(s, who, m);
        break;
    case STAR__MSG_TYPE__READ:
        answer_read(s, who, m);
        break;
    case STAR__MSG_TYPE__WRITE:
        answer_write(s, who, m);
        break;
    case STAR__MSG_TYPE__SYNC_ATTRS:
        answer_sync(s, who, m);
        break;
    case STAR__MSG_TYPE__HELLO:
        answer_hello(s, who, m);
        break;
    case STAR__MSG_TYPE__SETLK:
        hold(s, who, m);
        break;
    case STAR__MSG_TYPE__CTL_WRITE:
        break;
    case STAR__MSG_TYPE__UNLINK:
        if (s->is_hub)
            peer_error(who, m, -ENOENT, "no file %d", 7);
        else
            service_error(who, m, -ENOENT, "no file %d", 7);
        break;
    default:
        answer(s, who, m, -EOPNOTSUPP, NULL, NULL, 0);
    }
}

static inline void on_service_request(void *ctx, struct service_conn *conn, const struct message *m)
{
    serve_one(ctx, conn, m);
}

static inline void on_service_open(void *ctx, struct service_conn *conn)
{
    (void)conn;
    atomic_fetch_add(&((struct server *)ctx)->opened, 1);
}

static inline void on_service_close(void *ctx, struct service_conn *conn)
{
    (void)conn;
    atomic_fetch_add(&((struct server *)ctx)->closed, 1);
}

static inline void on_hub_request(void *ctx, struct peer *p, const struct message *m)
{
    struct server *s = ctx;
    if (m->type == STAR__MSG_TYPE__STATFS)
        peer_close(p);
    else
        serve_one(ctx, p, m);
    atomic_store(&s->garbage, hub_garbage(s->hub));
}

static inline void on_hub_close(void *ctx, struct peer *p)
{
    struct server *s = ctx;
    if (s->last == p)
        s->last = NULL;
    atomic_fetch_add(&s->closed, 1);
    atomic_store(&s->garbage, hub_garbage(s->hub));
}

static inline void on_refused(void *ctx, const char *detail)
{
    struct server *s = ctx;
    pthread_mutex_lock(&s->lock); /* a service has many threads */
    if (atomic_load(&s->refused) == 0)
        snprintf(s->refusal, sizeof(s->refusal), "%s", detail);
    if (s->hub)
        atomic_store(&s->garbage, hub_garbage(s->hub));
    atomic_fetch_add(&s->refused, 1);
    pthread_mutex_unlock(&s->lock);
}

static inline void release_held(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->held_peer) {
        peer_reply(s->held_peer, &s->held, 0, NULL, NULL, 0);
        peer_unref(s->held_peer);
    }
    if (s->held_conn) {
        service_reply(s->held_conn, &s->held, 0, NULL, NULL, 0);
        service_unref(s->held_conn);
    }
    s->held_peer = NULL;
    s->held_conn = NULL;
    pthread_mutex_unlock(&s->lock);
}

static inline void on_async(uv_async_t *async)
{
    struct server *s = async->data;
    if (atomic_exchange(&s->release, false))
        release_held(s);
    if (s->on_loop) {
        s->on_loop(s);
        s->on_loop = NULL;
    }
    if (atomic_exchange(&s->stop, false)) {
        release_held(s);
        hub_close(s->hub, NULL, NULL);
        uv_close((uv_handle_t *)async, NULL);
    }
}

static inline void *run_loop(void *arg)
{
    struct server *s = arg;
    uv_run(&s->loop, UV_RUN_DEFAULT);
    return NULL;
}

static inline void server_start(struct server *s)
{
    const struct service_ops service_ops = {.on_request = on_service_request,
                                            .on_open = on_service_open,
                                            .on_close = on_service_close,
                                            .identity = s->identity,
                                            .on_refused = on_refused};
    const struct hub_ops hub_ops = {.on_request = on_hub_request,
                                    .on_close = on_hub_close,
                                    .identity = s->identity,
                                    .anonymous = s->anonymous,
                                    .on_refused = on_refused};
    if (!s->is_hub) {
        cr_assert_eq(service_start(s->address, "test", &service_ops, s, &s->service), 0);
        if (s->tls)
            cr_assert_eq(service_bound(s->service, s->address), 0);
        return;
    }
    cr_assert_eq(uv_loop_init(&s->loop), 0);
    cr_assert_eq(uv_async_init(&s->loop, &s->async, on_async), 0);
    s->async.data = s;
    cr_assert_eq(hub_start(&s->loop, s->address, &hub_ops, s, &s->hub), 0);
    if (s->tls)
        cr_assert_eq(hub_bound(s->hub, s->address), 0);
    cr_assert_eq(pthread_create(&s->thread, NULL, run_loop, s), 0);
}

static inline void server_stop(struct server *s)
{
    if (!s->is_hub) {
        release_held(s);
        atomic_store(&s->garbage, service_garbage(s->service));
        service_stop(s->service);
        return;
    }
    atomic_store(&s->stop, true);
    uv_async_send(&s->async);
    pthread_join(s->thread, NULL);
    cr_assert_eq(uv_loop_close(&s->loop), 0, "nothing is left in the loop");
}

/* Answers the held SETLK. */
static inline void server_release(struct server *s)
{
    if (s->is_hub) {
        atomic_store(&s->release, true);
        uv_async_send(&s->async);
    } else {
        release_held(s);
    }
}

/* Runs f on the hub's loop. */
static inline void server_run(struct server *s, void (*f)(struct server *s))
{
    s->on_loop = f;
    uv_async_send(&s->async);
}

/* An identity signed by the authority in folder/ca, which is made with the first one. */
static inline struct identity *identity_made(const char *folder, const char *cloud,
                                             enum identity_role role, const char *name,
                                             const struct authority_times *times)
{
    char ca[128], dir[192], detail[IDENTITY_DETAIL];
    struct identity_name who = {.role = role};
    struct authority *a;
    struct identity *id;
    snprintf(ca, sizeof(ca), "%s/ca-%s", folder, cloud);
    snprintf(dir, sizeof(dir), "%s/%s-%s", folder, cloud, name);
    snprintf(who.name, sizeof(who.name), "%s", name);
    mkdir(ca, 0700);
    cr_assert_eq(authority_create(ca, cloud, detail), 0, "%s", detail);
    cr_assert_eq(authority_open(ca, cloud, &a, detail), 0, "%s", detail);
    cr_assert_eq(authority_issue(a, dir, &who, times, detail), 0, "%s", detail);
    authority_close(a);
    cr_assert_eq(identity_load(dir, cloud, &id, detail), 0, "%s", detail);
    return id;
}

static inline struct server *server_new(bool is_hub)
{
    static atomic_int number;
    struct server *s = calloc(1, sizeof(*s));
    s->is_hub = is_hub;
    pthread_mutex_init(&s->lock, NULL);
    snprintf(s->address, sizeof(s->address), "unix:/tmp/umbel-wire-%ld-%d", (long)getpid(),
             number++);
    return s;
}

/* One that speaks TLS on a free port of the loopback. One identity serves both ends. */
static inline struct server *server_new_tls(bool is_hub)
{
    struct server *s = server_new(is_hub);
    s->tls = true;
    snprintf(s->folder, sizeof(s->folder), "/tmp/umbel-wire-ids-XXXXXX");
    cr_assert_not_null(mkdtemp(s->folder));
    s->identity = identity_made(s->folder, "test", IDENTITY_CONTROL, "control-1", NULL);
    strcpy(s->address, "tcp:127.0.0.1:0");
    return s;
}

static inline void server_free(struct server *s)
{
    char command[96];
    identity_free(s->identity);
    snprintf(command, sizeof(command), "rm -rf '%s'", s->folder);
    if (s->folder[0])
        cr_assert_eq(system(command), 0);
    free(s);
}

/* client_start, with what the server's address needs. */
static inline int server_client(struct server *s, const char *name, const struct client_ops *ops,
                                void *ctx, struct client **out)
{
    struct client_ops o = ops ? *ops : (struct client_ops){0};
    if (s->tls && !o.identity)
        o.identity = s->identity;
    return client_start(s->address, name, &o, ctx, out);
}

/* Waits until what is true, at most 20 s: sanitized programs on busy machines are slow. */
#define eventually(what)                                                                           \
    do {                                                                                           \
        bool is_ = false;                                                                          \
        for (int tries_ = 0; tries_ < 4000 && !(is_ = (what)); tries_++)                           \
            usleep(5000);                                                                          \
        cr_assert(is_, "in the end: " #what);                                                      \
    } while (0)

#endif
