/* TLS between machines: who is let in, and what damaged or slow streams do. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "control/wire/address.h"
#include "control/wire/clock.h"
#include "control/wire/stream.h"
#include "wire_servers.h"

#define PATIENCE_MS 60000
#define DAY         86400

#define OnBoth(name)                                                                               \
    static void both_##name(struct server *s);                                                     \
    Test(wire_tls, name##_service)                                                                 \
    {                                                                                              \
        struct server *s = server_new_tls(false);                                                  \
        both_##name(s);                                                                            \
        server_free(s);                                                                            \
    }                                                                                              \
    Test(wire_tls, name##_hub)                                                                     \
    {                                                                                              \
        struct server *s = server_new_tls(true);                                                   \
        both_##name(s);                                                                            \
        server_free(s);                                                                            \
    }                                                                                              \
    static void both_##name(struct server *s)

/* ---- who is let in */

struct outcome {
    atomic_uint fails, connects;
    atomic_int err;
    char detail[256]; /* read when fails has grown */
    struct identity_name who;
};

static void on_fail(void *ctx, struct client *c, int err, const char *detail)
{
    struct outcome *o = ctx;
    (void)c;
    if (atomic_load(&o->fails) == 0) {
        o->err = err;
        snprintf(o->detail, sizeof(o->detail), "%s", detail);
    }
    atomic_fetch_add(&o->fails, 1);
}

static int on_connect(void *ctx, struct client *c)
{
    struct outcome *o = ctx;
    int err = client_handshake(c, STAR__MSG_TYPE__HELLO, NULL, PATIENCE_MS, NULL, NULL, NULL);
    if (!err) {
        cr_assert(client_peer(c)->tls);
        o->who = client_peer(c)->who;
        atomic_fetch_add(&o->connects, 1);
    }
    return err;
}

/* Tries as id to reach the server (address NULL: its own). true: it was let in. */
static bool let_in(struct server *s, const char *address, const struct identity *id,
                   enum identity_role expect, struct outcome *o)
{
    struct client_ops ops = {
        .identity = id, .expect = expect, .on_connect = on_connect, .on_fail = on_fail};
    struct client *c;
    *o = (struct outcome){0};
    cr_assert_eq(client_start(address ? address : s->address, "tls", &ops, o, &c), 0);
    eventually(o->fails > 0 || o->connects > 0);
    client_stop(c);
    return o->connects > 0;
}

static struct identity *made(struct server *s, const char *cloud, enum identity_role role,
                             const char *name, int64_t from, int64_t until)
{
    struct authority_times times = {from, until};
    return identity_made(s->folder, cloud, role, name, from || until ? &times : NULL);
}

OnBoth(members_of_the_cloud)
{
    struct outcome o;
    server_start(s);
    struct identity *node = made(s, "test", IDENTITY_NODE, "node-2", 0, 0);
    cr_assert(let_in(s, NULL, node, IDENTITY_CONTROL, &o), "%s", o.detail);
    cr_assert_eq(o.who.role, IDENTITY_CONTROL);
    cr_assert_str_eq(o.who.name, "control-1");
    cr_assert_str_eq(o.who.cloud, "test");
    server_stop(s);
    identity_free(node);
}

OnBoth(another_cloud)
{
    struct outcome o;
    server_start(s);
    struct identity *other = made(s, "other", IDENTITY_NODE, "node-2", 0, 0);
    cr_assert_not(let_in(s, NULL, other, IDENTITY_CONTROL, &o));
    cr_assert_eq(o.err, -EACCES);
    cr_assert_not_null(strstr(o.detail, "another cloud"), "%s", o.detail);
    eventually(s->refused > 0);
    server_stop(s);
    identity_free(other);
}

/* The client is careful; here the server would let it in. */
OnBoth(server_of_another_cloud)
{
    struct outcome o;
    struct identity *ours = s->identity;
    s->identity = made(s, "other", IDENTITY_CONTROL, "control-1", 0, 0);
    server_start(s);
    cr_assert_not(let_in(s, NULL, ours, IDENTITY_CONTROL, &o));
    cr_assert_eq(o.err, -EACCES);
    cr_assert_not_null(strstr(o.detail, "another cloud"), "%s", o.detail);
    eventually(s->refused > 0);
    cr_assert_not_null(strstr(s->refusal, "another cloud"), "%s", s->refusal);
    server_stop(s);
    identity_free(ours);
}

OnBoth(somebody_else_answers)
{
    struct outcome o;
    char address[300];
    struct identity *control = s->identity;
    s->identity = made(s, "test", IDENTITY_NODE, "node-2", 0, 0);
    server_start(s);
    cr_assert_not(let_in(s, NULL, control, IDENTITY_CONTROL, &o));
    cr_assert_eq(o.err, -EACCES);
    cr_assert_not_null(strstr(o.detail, "node/node-2 answers there, not control"), "%s", o.detail);
    snprintf(address, sizeof(address), "%s/node/node-3", s->address);
    cr_assert_not(let_in(s, address, control, 0, &o));
    cr_assert_not_null(strstr(o.detail, "not node/node-3"), "%s", o.detail);
    snprintf(address, sizeof(address), "%s/node/node-2", s->address);
    cr_assert(let_in(s, address, control, IDENTITY_CONTROL, &o), "%s", o.detail);
    server_stop(s);
    identity_free(control);
}

OnBoth(times)
{
    struct outcome o;
    server_start(s);
    struct identity *early = made(s, "test", IDENTITY_NODE, "early", 3000, DAY);
    struct identity *late = made(s, "test", IDENTITY_NODE, "late", -DAY, -3000);
    struct identity *future = made(s, "test", IDENTITY_NODE, "future", 2 * DAY, 3 * DAY);
    struct identity *soon = made(s, "test", IDENTITY_NODE, "soon", -DAY, -3598);
    cr_assert(let_in(s, NULL, early, 0, &o), "clocks that differ by an hour: %s", o.detail);
    cr_assert(let_in(s, NULL, late, 0, &o), "clocks that differ by an hour: %s", o.detail);
    cr_assert_not(let_in(s, NULL, future, 0, &o));
    cr_assert_eq(o.err, -EACCES);
    eventually(s->refused > 0);
    cr_assert_not_null(strstr(s->refusal, "not valid yet"), "%s", s->refusal);
    sleep(4); /* it was loaded when it was just good enough */
    s->refused = 0;
    cr_assert_not(let_in(s, NULL, soon, 0, &o));
    cr_assert_not_null(strstr(o.detail, "expired"), "%s", o.detail);
    eventually(s->refused > 0);
    cr_assert_not_null(strstr(s->refusal, "expired"), "%s", s->refusal);
    server_stop(s);
    identity_free(early);
    identity_free(late);
    identity_free(future);
    identity_free(soon);
}

static struct identity *joiner(struct server *s, bool right)
{
    struct authority *a;
    struct identity *id;
    char ca[128], detail[IDENTITY_DETAIL];
    uint8_t fingerprint[32];
    snprintf(ca, sizeof(ca), "%s/ca-test", s->folder);
    cr_assert_eq(authority_open(ca, "test", &a, detail), 0, "%s", detail);
    authority_fingerprint(a, fingerprint);
    fingerprint[5] ^= !right;
    cr_assert_eq(identity_for_join(fingerprint, &id, detail), 0, "%s", detail);
    authority_close(a);
    return id;
}

OnBoth(no_certificate)
{
    struct outcome o;
    struct identity *nobody = joiner(s, true);
    server_start(s);
    cr_assert_not(let_in(s, NULL, nobody, IDENTITY_CONTROL, &o));
    cr_assert_eq(o.err, -EACCES, "%s", o.detail);
    cr_assert_not_null(strstr(o.detail, "wants a certificate"), "%s", o.detail);
    eventually(s->refused > 0);
    cr_assert_not_null(strstr(s->refusal, "no certificate"), "%s", s->refusal);
    server_stop(s);
    identity_free(nobody);
}

Test(wire_tls, a_hub_that_takes_joiners)
{
    struct server *s = server_new_tls(true);
    struct outcome o;
    s->anonymous = true;
    struct identity *nobody = joiner(s, true), *misled = joiner(s, false);
    server_start(s);
    cr_assert(let_in(s, NULL, nobody, IDENTITY_CONTROL, &o), "%s", o.detail);
    cr_assert_not(let_in(s, NULL, misled, IDENTITY_CONTROL, &o), "the fingerprint is another");
    cr_assert_eq(o.err, -EACCES);
    struct identity *other = made(s, "other", IDENTITY_NODE, "node-2", 0, 0);
    cr_assert_not(let_in(s, NULL, other, 0, &o), "a wrong certificate is not no certificate");
    server_stop(s);
    identity_free(nobody);
    identity_free(misled);
    identity_free(other);
    server_free(s);
}

/* A mount's certificate is no server's, whatever its role is taken for. */
OnBoth(a_mount_does_not_serve)
{
    struct outcome o;
    struct identity *control = s->identity;
    s->identity = made(s, "test", IDENTITY_MOUNT, "laptop", 0, 0);
    server_start(s);
    cr_assert_not(let_in(s, NULL, control, 0, &o));
    cr_assert_eq(o.err, -EACCES, "%s", o.detail);
    server_stop(s);
    identity_free(control);
}

/* ---- a stream that is cut or changed on its way */

struct wire {
    struct channel c; /* our end */
    int near, far;    /* what lies between it and the server */
    size_t passed;    /* bytes towards the server */
    size_t cut, flip; /* SIZE_MAX: never */
};

static void wire_open(struct wire *w, struct server *s, size_t cut, size_t flip)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    *w = (struct wire){.c.fd = pair[0], .near = pair[1], .cut = cut, .flip = flip};
    w->far = address_connect(s->address);
    cr_assert_geq(w->far, 0);
    cr_assert_eq(channel_tls(&w->c, s->identity, false, false, NULL), 0);
}

static void wire_close(struct wire *w)
{
    channel_close(&w->c);
    close(w->c.fd);
    close(w->near);
    close(w->far);
}

/* Moves what there is, both ways. false: one side has ended. */
static bool wire_move(struct wire *w, int ms)
{
    struct pollfd p[] = {{.fd = w->near, .events = POLLIN}, {.fd = w->far, .events = POLLIN}};
    uint8_t bytes[4096];
    if (poll(p, 2, ms) <= 0)
        return false;
    if (p[0].revents) {
        ssize_t n = recv(w->near, bytes, sizeof(bytes), 0);
        if (n <= 0)
            return false;
        size_t take = w->cut - w->passed < (size_t)n ? w->cut - w->passed : (size_t)n;
        if (w->flip >= w->passed && w->flip < w->passed + take)
            bytes[w->flip - w->passed] ^= 0x41;
        if (send(w->far, bytes, take, MSG_NOSIGNAL) != (ssize_t)take)
            return false;
        w->passed += take;
        if (w->passed == w->cut)
            shutdown(w->far, SHUT_WR);
    }
    if (p[1].revents) {
        ssize_t n = recv(w->far, bytes, sizeof(bytes), 0);
        if (n <= 0 || send(w->near, bytes, (size_t)n, MSG_NOSIGNAL) != n)
            return false;
    }
    return true;
}

/* One GETATTR of inode 7. 0: answered rightly; else how it ended. */
static int wire_ask(struct wire *w, int ms)
{
    struct identity_name who;
    struct inbox in;
    struct message m = {.kind = FRAME_REQUEST, .type = STAR__MSG_TYPE__GETATTR, .id = 9};
    Star__Inode body = STAR__INODE__INIT;
    uint8_t bytes[256];
    bool drained;
    int err;
    while ((err = channel_handshake(&w->c, &who)) == -EAGAIN)
        if (!wire_move(w, ms))
            return -ECONNRESET;
    if (err)
        return err;
    body.ino = 7;
    size_t n = (size_t)frame_size(&m, &body.base);
    frame_write(&m, &body.base, bytes);
    cr_assert_eq(channel_send(&w->c, &(struct iovec){bytes, n}, 1, 0), (ssize_t)n);
    inbox_init(&in, STREAM_INBOX_SMALL);
    while ((err = inbox_next(&in, &m)) == 0) {
        ssize_t got = inbox_receive(&in, &w->c, MSG_DONTWAIT, &drained);
        err = got < 0 && got != -EAGAIN ? (int)got : 0;
        if (err || (got < 0 && !wire_move(w, ms)))
            break;
    }
    bool answered = err == 1;
    if (answered) {
        ProtobufCMessage *r = frame_unpack(&m, &star__attr_reply__descriptor);
        cr_assert(m.id == 9 && r && ((Star__AttrReply *)r)->attr->ino == 7);
        protobuf_c_message_free_unpacked(r, NULL);
    }
    inbox_free(&in);
    return answered ? 0 : err ? err : -ECONNRESET;
}

static size_t whole_exchange(struct server *s)
{
    struct wire w;
    wire_open(&w, s, SIZE_MAX, SIZE_MAX);
    cr_assert_eq(wire_ask(&w, 20000), 0);
    size_t n = w.passed;
    wire_close(&w);
    return n;
}

OnBoth(cut_at_every_byte)
{
    server_start(s);
    size_t whole = whole_exchange(s);
    cr_assert_gt(whole, 500);
    for (size_t cut = 1; cut + 8 < whole; cut++) { /* signatures differ in length by some bytes */
        struct wire w;
        wire_open(&w, s, cut, SIZE_MAX);
        cr_assert_lt(wire_ask(&w, 20000), 0, "cut at %zu of %zu", cut, whole);
        wire_close(&w);
    }
    cr_assert_geq(whole_exchange(s), 500, "and the server goes on");
    server_stop(s);
}

OnBoth(changed_at_every_byte)
{
    server_start(s);
    size_t whole = whole_exchange(s);
    unsigned passed = 0;
    for (size_t flip = 0; flip + 8 < whole; flip++) {
        struct wire w;
        /* A length that grew makes the server wait for more: then we end it, quickly. */
        wire_open(&w, s, SIZE_MAX, flip);
        passed += wire_ask(&w, 50) == 0;
        wire_close(&w);
    }
    /* TLS 1.3 ignores the version in the headers of the first records (RFC 8446, 5.1). */
    cr_assert_leq(passed, 8);
    cr_assert_geq(whole_exchange(s), 500);
    server_stop(s);
    cr_assert_gt(s->garbage, 0);
}

/* ---- slow handshakes */

OnBoth(slow_handshakes_are_bounded)
{
    enum { MANY = CHANNEL_HALF_OPEN_MAX + 40 };
    static int fds[MANY];
    struct outcome o;
    uint8_t start[] = {0x16, 3, 1};
    server_start(s);
    for (int i = 0; i < MANY; i++) {
        fds[i] = address_connect(s->address);
        cr_assert_geq(fds[i], 0);
        cr_assert_eq(send(fds[i], start, sizeof(start), MSG_NOSIGNAL), (ssize_t)sizeof(start));
    }
    eventually(s->refused >= 40); /* the oldest */
    cr_assert(let_in(s, NULL, s->identity, 0, &o), "others are served: %s", o.detail);
    unsigned ended = 0;
    int64_t until = clock_boot_ms() + CHANNEL_HANDSHAKE_MS + 20000;
    while (ended < MANY && clock_boot_ms() < until) {
        ended = 0;
        for (int i = 0; i < MANY; i++) {
            char byte;
            ssize_t n = recv(fds[i], &byte, 1, MSG_DONTWAIT);
            ended += n == 0 || (n < 0 && errno != EAGAIN);
        }
        usleep(100000);
    }
    cr_assert_eq(ended, MANY, "nobody may take for ever");
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    server_stop(s);
}

/* ---- many threads on one stream, both ways at once, with large payloads */

struct worker {
    struct client *c;
    unsigned number;
    _Atomic uint64_t done;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    uint8_t *data = malloc(FRAME_PAYLOAD_MAX);
    for (unsigned i = 0; i < 30; i++) {
        uint32_t length = (i * 40009 + w->number * 977) % FRAME_PAYLOAD_MAX;
        Star__Read read = STAR__READ__INIT;
        void *payload;
        size_t n;
        read.offset = w->number;
        read.length = length;
        int err = client_call_wait(w->c, STAR__MSG_TYPE__READ, &read.base, PATIENCE_MS, 0, NULL,
                                   NULL, NULL, &payload, &n);
        cr_assert_eq(err, 0, "%d", err);
        cr_assert_eq(n, length);
        for (size_t k = 0; k < n; k++)
            cr_assert_eq(((uint8_t *)payload)[k], (uint8_t)w->number);
        free(payload);
        memset(data, (int)w->number, FRAME_PAYLOAD_MAX);
        struct iovec iov[] = {{data, length / 3}, {data, length - length / 3}};
        err = client_call(w->c, STAR__MSG_TYPE__WRITE, NULL, iov, 2, PATIENCE_MS, 0, NULL, NULL,
                          NULL);
        cr_assert_eq(err, 0);
    }
    free(data);
    atomic_store(&w->done, 1);
    return NULL;
}

OnBoth(many_threads_on_one_client)
{
    enum { THREADS = 8 };
    struct worker workers[THREADS] = {0};
    pthread_t threads[THREADS];
    struct client *c;
    server_start(s);
    cr_assert_eq(server_client(s, "many", NULL, NULL, &c), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.c = c, .number = i + 1};
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    eventually(client_inflight(c) == 0);
    client_stop(c);
    server_stop(s);
}

/* ---- a server that is not there */

Test(wire_tls, nobody_there)
{
    struct server *s = server_new_tls(true);
    struct outcome o;
    struct listener l;
    cr_assert_eq(address_listen("tcp:127.0.0.1:0", &l), 0);
    cr_assert_eq(address_bound(&l, s->address), 0);
    /* It listens and never accepts: the handshake has a deadline, and calls have theirs. */
    struct client *c;
    cr_assert_eq(server_client(s, "patient", NULL, NULL, &c), 0);
    int64_t began = clock_boot_ms();
    int err =
        client_call_wait(c, STAR__MSG_TYPE__GETATTR, NULL, 200, 0, NULL, NULL, NULL, NULL, NULL);
    cr_assert_eq(err, -ETIMEDOUT);
    cr_assert_lt(clock_boot_ms() - began, CHANNEL_HANDSHAKE_MS - 1000,
                 "a deadline is met while the handshake waits");
    client_stop(c); /* and so is the end */
    cr_assert_lt(clock_boot_ms() - began, CHANNEL_HANDSHAKE_MS - 1000);
    address_close(s->address, &l);
    cr_assert_not(let_in(s, NULL, s->identity, 0, &o));
    cr_assert_eq(o.err, -ECONNREFUSED);
    server_free(s);
}
