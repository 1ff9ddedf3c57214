#include "control/wire/client.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/wire/address.h"
#include "control/wire/client_private.h"
#include "control/wire/clock.h"

/* ---- start and stop */

static int make_descriptors(struct client *c)
{
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (c->wake < 0 || c->epoll < 0)
        return -errno;
    struct epoll_event e = {.events = EPOLLIN, .data.fd = c->wake};
    return epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->wake, &e) < 0 ? -errno : 0;
}

static int start_thread(struct client *c)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals belong to the daemon's main thread */
    int err = pthread_create(&c->thread, NULL, client_thread, c);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -err;
}

static void client_free(struct client *c)
{
    while (c->chunks) {
        struct chunk *next = c->chunks->next;
        free(c->chunks);
        c->chunks = next;
    }
    calls_free(&c->calls);
    inbox_free(&c->inbox);
    outbox_free(&c->outbox);
    outbox_free(&c->deferred);
    if (c->wake >= 0)
        close(c->wake);
    if (c->epoll >= 0)
        close(c->epoll);
    pthread_mutex_destroy(&c->send);
    pthread_mutex_destroy(&c->table);
    free(c->address);
    free(c);
}

/* Whom the address names, else what the user expects. */
static void expect_from(struct client *c)
{
    struct address_tcp a;
    c->expect.role = c->ops.expect;
    if (!c->address || address_parse_tcp(c->address, &a) < 0 || !a.peer[0])
        return;
    char *slash = strchr(a.peer, '/');
    *slash = '\0';
    c->expect.role = identity_role_parse(a.peer);
    snprintf(c->expect.name, sizeof(c->expect.name), "%s", slash + 1);
}

int client_start(const char *address, const char *name, const struct client_ops *ops, void *ctx,
                 struct client **out)
{
    int err = address_check(address);
    if (!err && address_is_tcp(address) && !(ops && ops->identity))
        err = -ENOKEY;
    if (err)
        return err;
    struct client *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->channel.fd = c->wake = c->epoll = -1;
    if (ops)
        c->ops = *ops;
    c->ctx = ctx;
    snprintf(c->name, sizeof(c->name), "%s", name ? name : "client");
    pthread_mutex_init(&c->send, NULL);
    pthread_mutex_init(&c->table, NULL);
    inbox_init(&c->inbox, STREAM_INBOX_LARGE);
    c->address = strdup(address);
    expect_from(c);
    err = c->address ? calls_init(&c->calls, CLIENT_PENDING_MAX, 1) : -ENOMEM;
    if (!err)
        err = make_descriptors(c);
    if (!err)
        err = start_thread(c);
    if (err)
        client_free(c);
    else
        *out = c;
    return err;
}

void client_wake(struct client *c)
{
    uint64_t one = 1;
    ssize_t ignored = write(c->wake, &one, sizeof(one)); /* full: it is awake anyway */
    (void)ignored;
}

void client_stop(struct client *c)
{
    if (!c)
        return;
    pthread_mutex_lock(
        &c->send); /* whoever got an id before is ended by the thread; later ones are refused */
    atomic_store(&c->stopping, true);
    pthread_mutex_unlock(&c->send);
    client_wake(c);
    pthread_join(c->thread, NULL);
    client_free(c);
}

void client_reset(struct client *c)
{
    pthread_mutex_lock(&c->send);
    if (c->channel.fd >= 0)
        shutdown(c->channel.fd, SHUT_RDWR);
    pthread_mutex_unlock(&c->send);
}

const struct identity_peer *client_peer(struct client *c)
{
    return &c->peer;
}

unsigned client_inflight(struct client *c)
{
    pthread_mutex_lock(&c->table);
    unsigned n = c->calls.count;
    pthread_mutex_unlock(&c->table);
    return n;
}

/* ---- bytes kept for a call */

static uint8_t *take_chunk(struct client *c)
{
    struct chunk *k = c->chunks;
    if (!k)
        return malloc(CLIENT_CHUNK);
    c->chunks = k->next;
    c->chunk_count--;
    return (uint8_t *)k;
}

int call_keep(struct client *c, struct call *call, size_t n)
{
    size_t capacity = n <= CLIENT_CHUNK ? CLIENT_CHUNK : n;
    if (c->held + capacity > CLIENT_HELD_MAX)
        return -EBUSY;
    call->bytes = capacity == CLIENT_CHUNK ? take_chunk(c) : malloc(capacity);
    if (!call->bytes)
        return -ENOMEM;
    call->length = (uint32_t)n;
    call->capacity = (uint32_t)capacity;
    c->held += capacity;
    return 0;
}

void call_drop_bytes(struct client *c, struct call *call)
{
    if (!call->bytes)
        return;
    c->held -= call->capacity;
    if (call->capacity == CLIENT_CHUNK && c->chunk_count < CLIENT_CHUNKS_MAX) {
        struct chunk *k = (struct chunk *)(void *)call->bytes;
        k->next = c->chunks;
        c->chunks = k;
        c->chunk_count++;
    } else {
        free(call->bytes);
    }
    call->bytes = NULL;
}

/* ---- sending */

static void watch_for_room(struct client *c)
{
    if (c->want_write)
        return;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.fd = c->channel.fd};
    if (epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->channel.fd, &e) == 0)
        c->want_write = true;
    else
        shutdown(c->channel.fd, SHUT_RDWR);
}

int stream_put(struct client *c, struct iovec *iov, int n)
{
    int err = 0;
    if (outbox_waiting(&c->outbox) == 0) {
        ssize_t done = channel_send(&c->channel, iov, n, MSG_DONTWAIT);
        if (done < 0 && done != -EAGAIN) {
            err = (int)done;
            goto out;
        }
        iov_advance(&iov, &n, done > 0 ? (size_t)done : 0);
    }
    if (n == 0) {
        if (channel_waiting(&c->channel))
            watch_for_room(c);
        return 0;
    }
    if (outbox_waiting(&c->outbox) + iov_length(iov, n) > CLIENT_HELD_MAX)
        err = -EBUSY; /* nothing is sent for seconds: the stream is no good */
    else
        err = outbox_add(&c->outbox, iov, n);
    if (!err)
        watch_for_room(c);
out:
    if (err)
        shutdown(c->channel.fd, SHUT_RDWR);
    return err;
}

/* One message outside of the table: reply or notify. */
static int send_message(struct client *c, struct message *m, const ProtobufCMessage *body)
{
    struct packed p;
    int err = packed_make(&p, m, body);
    if (err)
        return err;
    struct iovec iov = {p.bytes, p.length};
    pthread_mutex_lock(&c->send);
    if (!c->up || (m->stream && m->stream != c->stream))
        err = -ENOTCONN;
    else
        err = stream_put(c, &iov, 1);
    pthread_mutex_unlock(&c->send);
    packed_free(&p);
    return err;
}

/* With send held: enters the call, keeps its bytes if they may be needed later. Returns with *id
 * set and the header in p made out for it. */
static int enter_call(struct client *c, struct message *m, struct packed *p,
                      const struct iovec *payload, int payload_n, const struct call *like,
                      bool *wake)
{
    int err;
    pthread_mutex_lock(&c->table);
    struct call *call = calls_add(&c->calls, like->deadline, &err);
    if (!call)
        goto out;
    m->id = call->id;
    frame_put_header(m, p->bytes);
    call->fn = like->fn;
    call->arg = like->arg;
    call->type = m->type;
    call->resend = like->resend;
    call->sent = c->up;
    if (call->resend || !c->up) {
        err = call_keep(c, call, p->length + m->payload_len);
        if (err) {
            calls_remove(&c->calls, call);
            goto out;
        }
        uint8_t *at = mempcpy(call->bytes, p->bytes, p->length);
        for (int i = 0; i < payload_n; i++)
            if (payload[i].iov_len)
                at = mempcpy(at, payload[i].iov_base, payload[i].iov_len);
    }
    *wake = like->deadline < c->wake_at;
out:
    pthread_mutex_unlock(&c->table);
    return err;
}

int client_call(struct client *c, uint16_t type, const ProtobufCMessage *body,
                const struct iovec *payload, int payload_n, int deadline_ms, unsigned flags,
                client_reply_fn fn, void *arg, uint64_t *id)
{
    if (payload_n < 0 || payload_n > STREAM_IOV_MAX)
        return -EMSGSIZE;
    struct message m = {
        .kind = FRAME_REQUEST, .type = type, .payload_len = iov_length(payload, payload_n)};
    struct call like = {.deadline =
                            deadline_ms > 0 ? clock_boot_ms() + deadline_ms : CALLS_NO_DEADLINE,
                        .fn = fn,
                        .arg = arg,
                        .resend = (flags & CLIENT_RESEND) != 0};
    struct packed p;
    bool wake = false;
    int err = packed_make(&p, &m, body);
    if (err)
        return err;
    struct iovec iov[STREAM_IOV_MAX + 1];
    iov[0] = (struct iovec){p.bytes, p.length};
    if (payload_n > 0)
        memcpy(iov + 1, payload, (size_t)payload_n * sizeof(*payload));

    pthread_mutex_lock(&c->send);
    if (atomic_load_explicit(&c->stopping, memory_order_relaxed))
        err = -ESHUTDOWN;
    else
        err = enter_call(c, &m, &p, payload, payload_n, &like, &wake);
    if (!err && id)
        *id = m.id;
    if (!err && c->up)
        (void)stream_put(c, iov,
                         payload_n + 1); /* an error ends the stream, and with it the call */
    pthread_mutex_unlock(&c->send);
    if (wake)
        client_wake(c);
    packed_free(&p);
    return err;
}

int client_reply(struct client *c, const struct message *request, int status,
                 const ProtobufCMessage *body)
{
    if (request->kind == FRAME_NOTIFY)
        return 0;
    struct message m = {.kind = FRAME_REPLY,
                        .type = request->type,
                        .id = request->id,
                        .status = status,
                        .stream = request->stream};
    int err = send_message(c, &m, body);
    return err == -ENOTCONN ? 0 : err;
}

int client_notify(struct client *c, uint16_t type, const ProtobufCMessage *body)
{
    struct message m = {.kind = FRAME_NOTIFY, .type = type};
    return send_message(c, &m, body);
}

/* ---- waiting calls */

struct waiting {
    sem_t done;
    int status;
    const ProtobufCMessageDescriptor *type;
    ProtobufCMessage **reply;
    char *detail;
    void **payload;
    size_t *payload_len;
};

void reply_detail(const struct message *reply, char detail[256])
{
    detail[0] = '\0';
    if (reply->status >= 0 || reply->body_len == 0)
        return;
    ProtobufCMessage *m = frame_unpack(reply, &star__error_reply__descriptor);
    if (!m)
        return;
    snprintf(detail, 256, "%s", ((Star__ErrorReply *)m)->detail);
    protobuf_c_message_free_unpacked(m, NULL);
}

int reply_unpack(const struct message *reply, const ProtobufCMessageDescriptor *type,
                 ProtobufCMessage **out)
{
    if (!out)
        return reply->status;
    *out = NULL;
    if (reply->status < 0 || !type)
        return reply->status;
    *out = frame_unpack(reply, type);
    return *out ? reply->status : -EPROTO;
}

static int copy_payload(const struct message *reply, void **out, size_t *length)
{
    *length = 0;
    *out = NULL;
    if (reply->payload_len == 0)
        return 0;
    *out = malloc(reply->payload_len);
    if (!*out)
        return -ENOMEM;
    memcpy(*out, reply->payload, reply->payload_len);
    *length = reply->payload_len;
    return 0;
}

static void waiting_done(void *arg, const struct message *reply)
{
    struct waiting *w = arg;
    w->status = reply_unpack(reply, w->type, w->reply);
    if (w->detail)
        reply_detail(reply, w->detail);
    if (w->payload && w->status >= 0) {
        int err = copy_payload(reply, w->payload, w->payload_len);
        if (err) {
            if (w->reply && *w->reply)
                protobuf_c_message_free_unpacked(*w->reply, NULL);
            if (w->reply)
                *w->reply = NULL;
            w->status = err;
        }
    }
    sem_post(&w->done);
}

int client_call_wait(struct client *c, uint16_t type, const ProtobufCMessage *body, int deadline_ms,
                     unsigned flags, const ProtobufCMessageDescriptor *type_of_reply,
                     ProtobufCMessage **reply, char *detail, void **payload_out,
                     size_t *payload_len)
{
    size_t ignored;
    struct waiting w = {.type = type_of_reply,
                        .reply = reply,
                        .detail = detail,
                        .payload = payload_out,
                        .payload_len = payload_len ? payload_len : &ignored};
    if (reply)
        *reply = NULL;
    if (detail)
        detail[0] = '\0';
    if (payload_out) {
        *payload_out = NULL;
        *w.payload_len = 0;
    }
    if (gettid() == atomic_load(&c->tid))
        return -EDEADLK;
    sem_init(&w.done, 0, 0);
    int err = client_call(c, type, body, NULL, 0, deadline_ms, flags, waiting_done, &w, NULL);
    if (!err) {
        while (sem_wait(&w.done) < 0)
            ; /* EINTR: the call ends by itself at its deadline */
        err = w.status;
    }
    sem_destroy(&w.done);
    return err;
}
