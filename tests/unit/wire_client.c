/* Clients against a service and against a hub: each test runs on both. */
#include <fcntl.h>
#include <sys/socket.h>

#include "control/wire/address.h"
#include "control/wire/client.h"
#include "control/wire/clock.h"
#include "wire_servers.h"

/* Longer than any test takes. */
#define PATIENCE_MS 60000

/* A test four times: on each kind of server, plain and over TLS. */
#define Both(name)                                                                                 \
    static void both_##name(struct server *s);                                                     \
    Test(wire_client, name##_service)                                                              \
    {                                                                                              \
        struct server *s = server_new(false);                                                      \
        both_##name(s);                                                                            \
        server_free(s);                                                                            \
    }                                                                                              \
    Test(wire_client, name##_hub)                                                                  \
    {                                                                                              \
        struct server *s = server_new(true);                                                       \
        both_##name(s);                                                                            \
        server_free(s);                                                                            \
    }                                                                                              \
    Test(wire_client, name##_service_tls)                                                          \
    {                                                                                              \
        struct server *s = server_new_tls(false);                                                  \
        both_##name(s);                                                                            \
        server_free(s);                                                                            \
    }                                                                                              \
    Test(wire_client, name##_hub_tls)                                                              \
    {                                                                                              \
        struct server *s = server_new_tls(true);                                                   \
        both_##name(s);                                                                            \
        server_free(s);                                                                            \
    }                                                                                              \
    static void both_##name(struct server *s)

static struct client *client_of(struct server *s, const struct client_ops *ops, void *ctx)
{
    struct client *c;
    cr_assert_eq(server_client(s, "test", ops, ctx, &c), 0);
    return c;
}

static uint64_t getattr(struct client *c, uint64_t ino, unsigned flags)
{
    Star__Inode body = STAR__INODE__INIT;
    ProtobufCMessage *reply;
    body.ino = ino;
    int err = client_call_wait(c, STAR__MSG_TYPE__GETATTR, &body.base, PATIENCE_MS, flags,
                               &star__attr_reply__descriptor, &reply, NULL, NULL, NULL);
    cr_assert_eq(err, 0, "%d", err);
    uint64_t got = ((Star__AttrReply *)reply)->attr->ino;
    protobuf_c_message_free_unpacked(reply, NULL);
    return got;
}

/* How asynchronous calls ended. */
struct ends {
    atomic_uint ok, timedout, reset, shutdown, other;
    _Atomic uint64_t sum;
};

static void count_end(void *arg, const struct message *reply)
{
    struct ends *e = arg;
    atomic_uint *which = reply->status == 0             ? &e->ok
                         : reply->status == -ETIMEDOUT  ? &e->timedout
                         : reply->status == -ECONNRESET ? &e->reset
                         : reply->status == -ESHUTDOWN  ? &e->shutdown
                                                        : &e->other;
    if (reply->status == 0 && reply->type == STAR__MSG_TYPE__GETATTR) {
        Star__AttrReply *r = (Star__AttrReply *)frame_unpack(reply, &star__attr_reply__descriptor);
        cr_assert_not_null(r);
        atomic_fetch_add(&e->sum, r->attr->ino);
        protobuf_c_message_free_unpacked(&r->base, NULL);
    }
    atomic_fetch_add(which, 1);
}

static unsigned ended(struct ends *e)
{
    return e->ok + e->timedout + e->reset + e->shutdown + e->other;
}

static int start_getattr(struct client *c, uint64_t ino, int deadline_ms, unsigned flags,
                         struct ends *e)
{
    Star__Inode body = STAR__INODE__INIT;
    body.ino = ino;
    return client_call(c, STAR__MSG_TYPE__GETATTR, &body.base, NULL, 0, deadline_ms, flags,
                       count_end, e, NULL);
}

/* ---- calls */

Both(calls)
{
    server_start(s);
    struct client *c = client_of(s, NULL, NULL);
    for (uint64_t ino = 1; ino < 200; ino++)
        cr_assert_eq(getattr(c, ino, ino % 2 ? CLIENT_RESEND : 0), ino);
    char detail[256];
    int err = client_call_wait(c, STAR__MSG_TYPE__UNLINK, NULL, PATIENCE_MS, 0, NULL, NULL, detail,
                               NULL, NULL);
    cr_assert_eq(err, -ENOENT);
    cr_assert_str_eq(detail, "no file 7");
    err = client_call_wait(c, 999, NULL, PATIENCE_MS, 0, NULL, NULL, detail, NULL, NULL);
    cr_assert_eq(err, -EOPNOTSUPP);
    cr_assert_str_eq(detail, "");
    cr_assert_eq(client_inflight(c), 0);
    client_stop(c);
    server_stop(s);
}

static void payload_back(struct client *c, uint32_t length)
{
    Star__Read body = STAR__READ__INIT;
    void *payload;
    size_t n;
    body.offset = 0x5a;
    body.length = length;
    int err = client_call_wait(c, STAR__MSG_TYPE__READ, &body.base, PATIENCE_MS, 0, NULL, NULL,
                               NULL, &payload, &n);
    cr_assert_eq(err, 0, "%d", err);
    cr_assert_eq(n, length);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(((uint8_t *)payload)[i], 0x5a);
    free(payload);
}

struct written {
    atomic_uint count;
    _Atomic uint64_t sum;
};

static void on_written(void *arg, const struct message *reply)
{
    struct written *w = arg;
    Star__WriteReply *r = (Star__WriteReply *)frame_unpack(reply, &star__write_reply__descriptor);
    cr_assert_not_null(r);
    atomic_fetch_add(&w->sum, r->instance);
    protobuf_c_message_free_unpacked(&r->base, NULL);
    atomic_fetch_add(&w->count, 1);
}

Both(payloads_both_ways)
{
    enum { ROUNDS = 40 };
    struct written w = {0};
    uint8_t *data = malloc(FRAME_PAYLOAD_MAX);
    uint64_t expected = 0;
    server_start(s);
    struct client *c = client_of(s, NULL, NULL);
    payload_back(c, 0);
    payload_back(c, 1);
    payload_back(c, 100000);
    payload_back(c, FRAME_PAYLOAD_MAX);
    /* More than the socket takes: what does not fit is copied, and the buffer is free again at
     * once. */
    for (int i = 0; i < ROUNDS; i++) {
        struct iovec iov[] = {{data, 1000}, {data + 1000, FRAME_PAYLOAD_MAX - 1000}};
        memset(data, i + 1, FRAME_PAYLOAD_MAX);
        expected += (uint64_t)(i + 1) * FRAME_PAYLOAD_MAX;
        cr_assert_eq(client_call(c, STAR__MSG_TYPE__WRITE, NULL, iov, 2, PATIENCE_MS,
                                 i % 3 ? 0 : CLIENT_RESEND, on_written, &w, NULL),
                     0);
    }
    eventually(w.count == ROUNDS);
    cr_assert_eq(w.sum, expected);
    struct iovec more[] = {{data, FRAME_PAYLOAD_MAX}, {data, 1}};
    cr_assert_eq(
        client_call(c, STAR__MSG_TYPE__WRITE, NULL, more, 2, 1000, 0, on_written, &w, NULL),
        -EMSGSIZE);
    client_stop(c);
    server_stop(s);
    free(data);
}

Both(many_in_flight)
{
    enum { CALLS = 100000 };
    struct ends e = {0};
    server_start(s);
    struct client *c = client_of(s, NULL, NULL);
    for (uint64_t i = 1; i <= CALLS;) {
        int err = start_getattr(c, i, PATIENCE_MS, i % 2 ? CLIENT_RESEND : 0, &e);
        cr_assert(err == 0 || err == -EBUSY);
        if (err)
            usleep(1000);
        else
            i++;
    }
    eventually(e.ok == CALLS);
    cr_assert_eq(e.sum, (uint64_t)CALLS * (CALLS + 1) / 2);
    cr_assert_eq(client_inflight(c), 0);
    client_stop(c);
    server_stop(s);
    cr_assert_eq(ended(&e), CALLS);
}

static void wait_inside(void *arg, const struct message *reply)
{
    struct client *c = arg;
    (void)reply;
    cr_assert_eq(
        client_call_wait(c, STAR__MSG_TYPE__GETATTR, NULL, 1000, 0, NULL, NULL, NULL, NULL, NULL),
        -EDEADLK);
}

Both(no_waiting_in_a_callback)
{
    server_start(s);
    struct client *c = client_of(s, NULL, NULL);
    cr_assert_eq(client_call(c, 999, NULL, NULL, 0, PATIENCE_MS, 0, wait_inside, c, NULL), 0);
    eventually(client_inflight(c) == 0);
    cr_assert_eq(getattr(c, 5, 0), 5);
    cr_assert_eq(client_handshake(c, STAR__MSG_TYPE__HELLO, NULL, 1000, NULL, NULL, NULL), -EINVAL);
    client_stop(c);
    server_stop(s);
}

/* ---- deadlines */

Both(deadlines)
{
    struct ends e = {0};
    server_start(s);
    struct client *c = client_of(s, NULL, NULL);
    cr_assert_eq(getattr(c, 1, 0), 1);
    int64_t began = clock_boot_ms();
    int err = client_call_wait(c, STAR__MSG_TYPE__SETLK, NULL, 50, CLIENT_RESEND, NULL, NULL, NULL,
                               NULL, NULL);
    int64_t took = clock_boot_ms() - began;
    cr_assert_eq(err, -ETIMEDOUT);
    cr_assert(took >= 50 && took < 10000, "%ld ms", (long)took);
    server_release(s); /* the late reply belongs to nobody */
    for (uint64_t i = 1; i < 600; i++)
        cr_assert_eq(getattr(c, i, 0), i);
    /* A nearer deadline than that of earlier calls wakes the thread. */
    cr_assert_eq(client_call(c, STAR__MSG_TYPE__CTL_WRITE, NULL, NULL, 0, PATIENCE_MS, 0, count_end,
                             &e, NULL),
                 0);
    cr_assert_eq(
        client_call(c, STAR__MSG_TYPE__CTL_WRITE, NULL, NULL, 0, 0, 0, count_end, &e, NULL), 0);
    began = clock_boot_ms();
    err = client_call_wait(c, STAR__MSG_TYPE__CTL_WRITE, NULL, 30, 0, NULL, NULL, NULL, NULL, NULL);
    cr_assert_eq(err, -ETIMEDOUT);
    cr_assert_lt(clock_boot_ms() - began, 10000);
    cr_assert_eq(client_inflight(c), 2);
    client_stop(c);
    cr_assert_eq(e.shutdown, 2);
    cr_assert_eq(ended(&e), 2);
    server_stop(s);
}

Test(wire_client, deadline_without_a_server)
{
    struct server *s = server_new(false);
    struct client *c = client_of(s, NULL, NULL);
    int err = client_call_wait(c, STAR__MSG_TYPE__GETATTR, NULL, 40, CLIENT_RESEND, NULL, NULL,
                               NULL, NULL, NULL);
    cr_assert_eq(err, -ETIMEDOUT);
    cr_assert_eq(client_notify(c, STAR__MSG_TYPE__RETURN_LEASES, NULL), -ENOTCONN);
    client_stop(c);
    cr_assert_eq(client_start("tcp:1", "x", NULL, NULL, &c), -EINVAL);
    cr_assert_eq(client_start("tcp:localhost:1", "x", NULL, NULL, &c), -ENOKEY);
    server_free(s);
}

/* ---- reconnecting */

struct link {
    atomic_uint connects, disconnects;
    atomic_int refuse; /* so many connects are refused */
    _Atomic uint64_t session;
};

static int on_connect(void *ctx, struct client *c)
{
    struct link *l = ctx;
    Star__Hello hello = STAR__HELLO__INIT;
    ProtobufCMessage *reply;
    hello.name = (char *)(uintptr_t) "test";
    int err = client_handshake(c, STAR__MSG_TYPE__HELLO, &hello.base, PATIENCE_MS,
                               &star__hello_reply__descriptor, &reply, NULL);
    if (err < 0)
        return err;
    l->session = ((Star__HelloReply *)reply)->session;
    protobuf_c_message_free_unpacked(reply, NULL);
    if (atomic_fetch_sub(&l->refuse, 1) > 0)
        return -EAGAIN;
    atomic_fetch_add(&l->connects, 1);
    return 0;
}

static void on_disconnect(void *ctx, struct client *c)
{
    struct link *l = ctx;
    (void)c;
    atomic_fetch_add(&l->disconnects, 1);
}

static const struct client_ops link_ops = {.on_connect = on_connect,
                                           .on_disconnect = on_disconnect};

static int start_sync(struct client *c, uint64_t ino, struct ends *e)
{
    Star__HomeAttrs body = STAR__HOME_ATTRS__INIT;
    body.ino = ino;
    return client_call(c, STAR__MSG_TYPE__SYNC_ATTRS, &body.base, NULL, 0, PATIENCE_MS,
                       CLIENT_RESEND, count_end, e, NULL);
}

/* What was sent and what waits goes out in order, after HELLO. */
Both(resend_in_order)
{
    enum { CALLS = 5000 };
    struct ends e = {0}, lost = {0};
    struct link l = {0};
    server_start(s);
    struct client *c = client_of(s, &link_ops, &l);
    eventually(l.connects == 1);
    cr_assert_eq(l.session, 42);
    cr_assert_eq(client_call(c, STAR__MSG_TYPE__CTL_WRITE, NULL, NULL, 0, PATIENCE_MS, 0, count_end,
                             &lost, NULL),
                 0);
    cr_assert_eq(client_call(c, STAR__MSG_TYPE__SETLK, NULL, NULL, 0, PATIENCE_MS, CLIENT_RESEND,
                             count_end, &e, NULL),
                 0);
    cr_assert_eq(getattr(c, 3, 0), 3);
    server_stop(s); /* the held SETLK may have been answered by this */
    eventually(l.disconnects == 1);
    eventually(lost.reset == 1);
    for (uint64_t i = 1; i <= CALLS; i++)
        cr_assert_eq(start_sync(c, i, &e), 0);
    cr_assert_eq(start_getattr(c, 77, PATIENCE_MS, 0, &lost), 0); /* waits for the stream, too */
    l.refuse = 2;
    server_start(s);
    eventually(e.ok >= CALLS && lost.ok == 1);
    cr_assert_eq(lost.sum, 77);
    cr_assert_eq(l.connects, 2);
    client_stop(c);
    server_stop(s);
    cr_assert_eq(s->noted_count, CALLS);
    for (uint64_t i = 0; i < CALLS; i++)
        cr_assert_eq(s->noted[i], i + 1);
    cr_assert_eq(ended(&e), CALLS + 1);
    cr_assert_eq(ended(&lost), 2);
    cr_assert_eq(l.disconnects, 2);
}

struct caller {
    struct client *c;
    struct ends plain, resent;
    unsigned calls;
};

static void *call_much(void *arg)
{
    struct caller *k = arg;
    for (unsigned i = 0; i < k->calls; i++) {
        int err = start_getattr(k->c, 1, PATIENCE_MS, 0, &k->plain);
        cr_assert_eq(err, 0);
        err = start_getattr(k->c, 1, PATIENCE_MS, CLIENT_RESEND, &k->resent);
        cr_assert_eq(err, 0);
        if (i % 16 == 0)
            getattr(k->c, i, CLIENT_RESEND);
    }
    return NULL;
}

/* Every call ends exactly once, whatever happens to the stream meanwhile. */
Both(breaking_streams)
{
    enum { THREADS = 4, CALLS = 3000 };
    pthread_t threads[THREADS];
    struct caller callers[THREADS] = {0};
    struct link l = {0};
    server_start(s);
    struct client *c = client_of(s, &link_ops, &l);
    for (int i = 0; i < THREADS; i++) {
        callers[i].c = c;
        callers[i].calls = CALLS;
        pthread_create(&threads[i], NULL, call_much, &callers[i]);
    }
    for (int i = 0; i < 40; i++) {
        usleep(3000);
        client_reset(c);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        eventually(ended(&callers[i].plain) == CALLS && ended(&callers[i].resent) == CALLS);
        cr_assert_eq(callers[i].resent.ok, CALLS);
        cr_assert_eq(callers[i].plain.ok + callers[i].plain.reset, CALLS);
    }
    cr_assert_geq(l.connects, 1);
    client_stop(c);
    server_stop(s);
    cr_assert_eq(l.connects, l.disconnects);
}

Both(stop_with_calls_pending)
{
    struct ends e = {0};
    server_start(s);
    for (int round = 0; round < 30; round++) {
        struct client *c = client_of(s, NULL, NULL);
        if (round % 2)
            cr_assert_eq(getattr(c, 1, 0), 1);
        for (int i = 0; i < 100; i++)
            cr_assert_eq(client_call(c, STAR__MSG_TYPE__CTL_WRITE, NULL, NULL, 0, 0,
                                     i % 2 ? CLIENT_RESEND : 0, count_end, &e, NULL),
                         0);
        client_stop(c);
        cr_assert_eq(e.shutdown, (unsigned)(round + 1) * 100);
    }
    server_stop(s);
    cr_assert_eq(ended(&e), 3000);
}

/* ---- garbage */

static void expect_end(int fd)
{
    char bytes[64];
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
        ; /* TLS says an alert first */
    cr_assert(n == 0 || (n < 0 && errno == ECONNRESET), "%zd: %m", n);
    close(fd);
}

static int send_raw(struct server *s, const void *bytes, size_t n)
{
    int fd;
    while ((fd = address_connect(s->address)) == -EAGAIN)
        usleep(1000);
    cr_assert_geq(fd, 0);
    fcntl(fd, F_SETFL, 0);
    cr_assert_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
    return fd;
}

static void send_header(struct server *s, struct message m, int damage)
{
    uint8_t header[FRAME_HEADER_SIZE];
    frame_put_header(&m, header);
    if (damage >= 0)
        header[damage] ^= 0x80;
    expect_end(send_raw(s, header, sizeof(header)));
}

Both(garbage_closes_only_its_connection)
{
    static const char http[] = "GET / HTTP/1.1\r\nHost: somewhere else\r\n\r\n";
    server_start(s);
    struct client *c = client_of(s, NULL, NULL);
    cr_assert_eq(getattr(c, 1, 0), 1);
    expect_end(send_raw(s, http, sizeof(http)));
    send_header(s, (struct message){.kind = FRAME_REQUEST, .type = 1, .id = 1}, 0);
    send_header(
        s,
        (struct message){.kind = FRAME_REQUEST, .type = 1, .id = 1, .body_len = FRAME_BODY_MAX + 1},
        -1);
    send_header(s, (struct message){.kind = FRAME_REQUEST, .payload_len = FRAME_PAYLOAD_MAX + 1},
                -1);
    /* Cut off in the middle of a frame: no garbage, only an end. */
    uint8_t half[FRAME_HEADER_SIZE];
    frame_put_header(&(struct message){.kind = FRAME_REQUEST, .type = 1, .body_len = 1000}, half);
    close(send_raw(s, half, sizeof(half)));
    close(send_raw(s, half, 5));
    cr_assert_eq(getattr(c, 2, 0), 2);
    client_stop(c);
    eventually(s->closed >= (s->tls ? 1 : 6)); /* who never finished a handshake was never open */
    server_stop(s);
    if (s->tls)
        cr_assert_geq(s->garbage, 4); /* half a header of ours is no TLS either */
    else
        cr_assert_eq(s->garbage, 4);
}

/* A server that talks garbage is left, and tried again. */
Test(wire_client, garbage_from_the_server)
{
    struct server *s = server_new(false);
    struct listener l;
    struct ends e = {0};
    cr_assert_eq(address_listen(s->address, &l), 0);
    struct client *c = client_of(s, NULL, NULL);
    int fd;
    eventually((fd = accept(l.fd, NULL, NULL)) >= 0);
    cr_assert_eq(start_getattr(c, 1, PATIENCE_MS, CLIENT_RESEND, &e), 0);
    uint8_t junk[100] = {1, 2, 3};
    cr_assert_eq(send(fd, junk, sizeof(junk), MSG_NOSIGNAL), 100);
    int again;
    eventually((again = accept(l.fd, NULL, NULL)) >= 0);
    close(fd);
    close(again);
    address_close(s->address, &l);
    server_start(s);
    eventually(e.ok == 1);
    client_stop(c);
    server_stop(s);
    server_free(s);
}
