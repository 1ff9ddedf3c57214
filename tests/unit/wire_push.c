/* What servers do by themselves: requests of a hub to its clients, slow peers, payloads from files.
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "control/wire/address.h"
#include "control/wire/client.h"
#include "control/wire/stream.h"
#include "wire_servers.h"

#define PATIENCE_MS 60000

/* A test twice: on a hub that is reached plainly, and over TLS. */
#define OnHub(name)                                                                                \
    static void on_hub_##name(struct server *s);                                                   \
    Test(wire_push, name)                                                                          \
    {                                                                                              \
        struct server *s = server_new(true);                                                       \
        on_hub_##name(s);                                                                          \
        server_free(s);                                                                            \
    }                                                                                              \
    Test(wire_push, name##_tls)                                                                    \
    {                                                                                              \
        struct server *s = server_new_tls(true);                                                   \
        on_hub_##name(s);                                                                          \
        server_free(s);                                                                            \
    }                                                                                              \
    static void on_hub_##name(struct server *s)

/* ---- pushes of a hub */

/* A client that answers RECALL of an even inode at once, and of an odd one only when told. */
struct mount {
    struct client *c;
    atomic_uint connects, pushed, notified;
    _Atomic uint64_t first;
    struct message kept;
    atomic_bool has_kept;
};

static int mount_connect(void *ctx, struct client *c)
{
    struct mount *t = ctx;
    int err = client_handshake(c, STAR__MSG_TYPE__HELLO, NULL, PATIENCE_MS, NULL, NULL, NULL);
    if (!err) {
        cr_assert(t->connects > 0 || t->pushed == 0, "pushes come after on_connect");
        atomic_fetch_add(&t->connects, 1);
    }
    return err;
}

static void mount_push(void *ctx, struct client *c, const struct message *m)
{
    struct mount *t = ctx;
    if (m->kind == FRAME_NOTIFY) {
        atomic_fetch_add(&t->notified, 1);
        return;
    }
    Star__Recall *r = (Star__Recall *)frame_unpack(m, &star__recall__descriptor);
    cr_assert_not_null(r);
    if (t->pushed == 0)
        t->first = r->ino;
    if (r->ino % 2 == 0) {
        cr_assert_eq(client_reply(c, m, -EAGAIN, NULL), 0);
    } else {
        t->kept = *m;
        atomic_store(&t->has_kept, true);
    }
    atomic_fetch_add(&t->pushed, 1);
    protobuf_c_message_free_unpacked(&r->base, NULL);
}

static const struct client_ops mount_ops = {.on_connect = mount_connect, .on_push = mount_push};

static struct mount *mount_new(struct server *s)
{
    struct mount *t = calloc(1, sizeof(*t));
    cr_assert_eq(server_client(s, "mount", &mount_ops, t, &t->c), 0);
    eventually(t->connects == 1);
    return t;
}

static void mount_free(struct mount *t)
{
    client_stop(t->c);
    free(t);
}

/* How a push ended, by the hub's thread. */
static atomic_uint answered;
static atomic_int last_status;

static void on_answer(void *arg, const struct message *reply)
{
    (void)arg;
    atomic_store(&last_status, reply->status);
    atomic_fetch_add(&answered, 1);
}

static void recall(struct server *s, uint64_t ino, int deadline_ms)
{
    Star__Recall body = STAR__RECALL__INIT;
    body.ino = ino;
    cr_assert_not_null(s->last);
    cr_assert_eq(
        peer_request(s->last, STAR__MSG_TYPE__RECALL, &body.base, deadline_ms, on_answer, NULL), 0);
}

static void recall_even(struct server *s)
{
    for (int i = 0; i < 1000; i++)
        recall(s, 2, PATIENCE_MS);
    cr_assert_eq(peer_notify(s->last, STAR__MSG_TYPE__ATTRS_LOGGED, NULL), 0);
}

static void recall_odd(struct server *s)
{
    recall(s, 1, PATIENCE_MS);
}

static void recall_odd_briefly(struct server *s)
{
    recall(s, 1, PATIENCE_MS);
    recall(s, 1, 30);
}

static void hang_up(struct server *s)
{
    peer_close(s->last);
    cr_assert_not(peer_is_open(s->last));
    cr_assert_eq(peer_notify(s->last, STAR__MSG_TYPE__ATTRS_LOGGED, NULL), -ENOTCONN);
    cr_assert_eq(peer_request(s->last, STAR__MSG_TYPE__RECALL, NULL, 10, on_answer, NULL),
                 -ENOTCONN);
}

OnHub(requests_and_notifies)
{
    server_start(s);
    struct mount *t = mount_new(s);
    server_run(s, recall_even);
    eventually(answered == 1000 && t->notified == 1);
    cr_assert_eq(last_status, -EAGAIN);
    server_run(s, recall_odd);
    eventually(t->has_kept);
    cr_assert_eq(client_reply(t->c, &t->kept, 0, NULL), 0); /* later, from another thread */
    eventually(answered == 1001);
    cr_assert_eq(last_status, 0);
    mount_free(t);
    server_stop(s);
}

OnHub(deadline)
{
    server_start(s);
    struct mount *t = mount_new(s);
    server_run(s, recall_odd_briefly);
    eventually(answered == 1);
    cr_assert_eq(last_status, -ETIMEDOUT);
    eventually(t->pushed == 2);
    cr_assert_eq(client_reply(t->c, &t->kept, 0, NULL), 0); /* too late: nobody's */
    server_run(s, hang_up);
    eventually(answered == 2);
    cr_assert_eq(last_status, -ECONNRESET);
    mount_free(t);
    server_stop(s);
}

/* An answer does not cross over to the next stream, where its id may mean something else. */
OnHub(answer_on_another_stream)
{
    server_start(s);
    struct mount *t = mount_new(s);
    server_run(s, recall_odd);
    eventually(t->has_kept);
    t->pushed = 0;
    client_reset(t->c);
    eventually(answered == 1 && t->connects == 2);
    cr_assert_eq(client_reply(t->c, &t->kept, 0, NULL), 0);
    server_run(s, recall_even);
    eventually(answered == 1001);
    mount_free(t);
    server_stop(s);
}

OnHub(during_handshake)
{
    s->push_at_hello = true;
    server_start(s);
    struct mount *t = mount_new(s);
    eventually(t->pushed == 2);
    cr_assert_eq(t->first, 0, "in order");
    mount_free(t);
    server_stop(s);
}

OnHub(no_handler)
{
    struct client *c;
    struct client_ops ops = {.on_connect = mount_connect};
    struct mount t = {0};
    server_start(s);
    cr_assert_eq(server_client(s, "mute", &ops, &t, &c), 0);
    eventually(t.connects == 1);
    server_run(s, recall_even);
    eventually(answered == 1000);
    cr_assert_eq(last_status, -EOPNOTSUPP);
    client_stop(c);
    server_stop(s);
}

/* A hub that ends answers its own requests, and its loop forgets everything. */
OnHub(hub_ends_with_requests_open)
{
    server_start(s);
    struct mount *t[3];
    for (int i = 0; i < 3; i++)
        t[i] = mount_new(s);
    server_run(s, recall_odd_briefly);
    eventually(t[2]->pushed == 2);
    server_stop(s);
    cr_assert_eq(answered, 2);
    cr_assert_eq(s->closed, 3);
    for (int i = 0; i < 3; i++)
        mount_free(t[i]);
}

/* ---- peers that do not read */

static int ask_without_reading(struct server *s, int requests)
{
    uint8_t bytes[256];
    Star__Read body = STAR__READ__INIT;
    struct message m = {.kind = FRAME_REQUEST, .type = STAR__MSG_TYPE__READ, .id = 1};
    body.length = FRAME_PAYLOAD_MAX;
    ssize_t n = frame_size(&m, &body.base);
    frame_write(&m, &body.base, bytes);
    int fd = address_connect(s->address);
    cr_assert_geq(fd, 0);
    fcntl(fd, F_SETFL, 0);
    for (int i = 0; i < requests; i++)
        if (send(fd, bytes, (size_t)n, MSG_NOSIGNAL) < 0)
            break;
    return fd;
}

Test(wire_push, hub_cuts_off_who_does_not_read)
{
    struct server *s = server_new(true);
    server_start(s);
    int fd =
        ask_without_reading(s, 100); /* 100 MiB of answers: more than HUB_SEND_MAX and the socket */
    eventually(s->closed == 1);
    struct mount *t = mount_new(s); /* others go on */
    server_run(s, recall_even);
    eventually(answered == 1000);
    mount_free(t);
    close(fd);
    server_stop(s);
    free(s);
}

Test(wire_push, service_serves_others_meanwhile)
{
    struct server *s = server_new(false);
    struct client *c;
    server_start(s);
    int fd = ask_without_reading(s, 100);
    cr_assert_eq(client_start(s->address, "other", NULL, NULL, &c), 0);
    cr_assert_eq(client_call_wait(c, STAR__MSG_TYPE__WRITE, NULL, PATIENCE_MS, 0, NULL, NULL, NULL,
                                  NULL, NULL),
                 0);
    client_stop(c);
    server_stop(s); /* and its thread, which waits for the socket, can be ended */
    cr_assert_eq(s->opened, s->closed);
    close(fd);
    free(s);
}

/* ---- a service's connections and files */

Test(wire_push, service_connection_limit)
{
    enum { MANY = SERVICE_CONNECTIONS_MAX + 20 };
    static int fds[MANY];
    struct server *s = server_new(false);
    server_start(s);
    for (int i = 0; i < MANY; i++)
        do
            fds[i] = address_connect(s->address);
        while (fds[i] == -EAGAIN && usleep(1000) == 0);
    unsigned refused = 0;
    eventually(s->opened == SERVICE_CONNECTIONS_MAX);
    usleep(100000);
    for (int i = 0; i < MANY; i++) {
        char byte;
        ssize_t n = recv(fds[i], &byte, 1, MSG_DONTWAIT);
        refused += n == 0 || (n < 0 && errno == ECONNRESET);
        close(fds[i]);
    }
    cr_assert_eq(refused, 20);
    eventually(s->closed == SERVICE_CONNECTIONS_MAX);
    struct client *c; /* there is room again */
    cr_assert_eq(client_start(s->address, "late", NULL, NULL, &c), 0);
    cr_assert_eq(client_call_wait(c, STAR__MSG_TYPE__WRITE, NULL, PATIENCE_MS, 0, NULL, NULL, NULL,
                                  NULL, NULL),
                 0);
    client_stop(c);
    server_stop(s);
    free(s);
}

static void on_file_request(void *ctx, struct service_conn *conn, const struct message *m)
{
    Star__Read *r = (Star__Read *)frame_unpack(m, &star__read__descriptor);
    int err = service_reply_file(conn, m, NULL, *(int *)ctx, (off_t)r->offset, r->length);
    if (err && err != -ENOTCONN) {
        err = service_error(conn, m, err, "the file");
        cr_assert(err == 0 || err == -ENOTCONN);
    }
    protobuf_c_message_free_unpacked(&r->base, NULL);
}

static int read_file(struct client *c, uint64_t offset, uint32_t length, uint8_t **out, size_t *n)
{
    Star__Read body = STAR__READ__INIT;
    void *payload;
    body.offset = offset;
    body.length = length;
    int err = client_call_wait(c, STAR__MSG_TYPE__READ, &body.base, PATIENCE_MS, 0, NULL, NULL,
                               NULL, &payload, n);
    *out = payload;
    return err;
}

/* The file holds (uint8_t)(offset / 1000) and ends at 700 000. */
static void check_file_read(struct client *c, uint64_t offset, uint32_t length)
{
    uint8_t *data;
    size_t n;
    int err = read_file(c, offset, length, &data, &n);
    cr_assert_eq(err, 0, "%d", err);
    cr_assert_eq(n, length);
    for (uint64_t i = 0; i < length; i++) {
        uint8_t expected = offset + i < 700000 ? (uint8_t)((offset + i) / 1000) : 0;
        cr_assert_eq(data[i], expected, "at %lu", (unsigned long)(offset + i));
    }
    free(data);
}

static void payload_from_a_file(struct server *s)
{
    char path[] = "/tmp/umbel-wire-file-XXXXXX";
    struct service *service;
    struct client *c;
    uint8_t *data;
    size_t n;
    int fd = mkstemp(path);
    unlink(path);
    FILE *f = fdopen(dup(fd), "w");
    for (int i = 0; i < 700000; i++)
        fputc((uint8_t)(i / 1000), f);
    fclose(f);
    struct service_ops ops = {.on_request = on_file_request, .identity = s->identity};
    cr_assert_eq(service_start(s->address, "files", &ops, &fd, &service), 0);
    if (s->tls)
        cr_assert_eq(service_bound(service, s->address), 0);
    cr_assert_eq(server_client(s, "reader", NULL, NULL, &c), 0);
    check_file_read(c, 0, 4096);
    check_file_read(c, 12345, 65536);
    check_file_read(c, 12345, 65537);
    check_file_read(c, 699000, 5000); /* shorter than promised: zeros */
    check_file_read(c, 400000, 1 << 20);
    check_file_read(c, 900000, 1 << 20);
    check_file_read(c, 900000, 1);
    cr_assert_eq(read_file(c, 0, FRAME_PAYLOAD_MAX + 1, &data, &n), -EMSGSIZE);

    int broken = open("/tmp", O_RDONLY | O_DIRECTORY); /* it can be opened, not read */
    int good = fd;
    fd = broken;
    cr_assert_eq(read_file(c, 0, 100, &data, &n), -EISDIR,
                 "nothing was sent yet: an error goes out");
    if (!s->tls) /* there the header goes out before the file is read */
        cr_assert_eq(read_file(c, 0, 1 << 20, &data, &n), -ECONNRESET,
                     "the header was out: the stream ends");
    cr_assert_eq(read_file(c, 0, 1 << 20, &data, &n), -EISDIR, "and who asks again learns why");
    fd = good;
    check_file_read(c, 0, 1 << 20);
    client_stop(c);
    service_stop(service);
    close(broken);
    close(good);
}

Test(wire_push, payload_from_a_file)
{
    struct server *s = server_new(false);
    payload_from_a_file(s);
    server_free(s);
}

Test(wire_push, payload_from_a_file_tls)
{
    struct server *s = server_new_tls(false);
    payload_from_a_file(s);
    server_free(s);
}
