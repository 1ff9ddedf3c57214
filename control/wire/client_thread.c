/* The thread of a client: connects, receives, expires deadlines, connects again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/wire/address.h"
#include "control/wire/client_private.h"
#include "control/wire/clock.h"

static bool is_stopping(struct client *c)
{
    return atomic_load_explicit(&c->stopping, memory_order_relaxed);
}

/* ---- ending calls */

static void end_call(const struct call *call, int status)
{
    struct message m = {.kind = FRAME_REPLY, .type = call->type, .id = call->id, .status = status};
    if (call->fn)
        call->fn(call->arg, &m);
}

static void expire(struct client *c)
{
    int64_t now = clock_boot_ms();
    uint32_t at = 0;
    for (;;) {
        struct call call;
        pthread_mutex_lock(&c->table);
        bool found = calls_expire(&c->calls, now, &at, &call);
        if (found)
            call_drop_bytes(c, &call);
        pthread_mutex_unlock(&c->table);
        if (!found)
            return;
        end_call(&call, -ETIMEDOUT);
    }
}

/* Ends calls with status: all, or those that went out on the stream that broke and must not go out
 * again. */
static void end_calls(struct client *c, bool all, int status)
{
    for (uint32_t i = 0;; i++) {
        struct call call = {0};
        pthread_mutex_lock(&c->table);
        bool more = i < c->calls.size;
        struct call *slot = more ? &c->calls.slots[i] : NULL;
        if (more && slot->id && (all || (slot->sent && !slot->resend))) {
            call_drop_bytes(c, slot);
            call = *slot;
            calls_remove(&c->calls, slot);
        }
        pthread_mutex_unlock(&c->table);
        if (!more)
            return;
        if (call.id)
            end_call(&call, status);
    }
}

static void take_reply(struct client *c, const struct message *m)
{
    struct call call = {0};
    pthread_mutex_lock(&c->table);
    struct call *slot = calls_find(&c->calls, m->id);
    if (slot) {
        call_drop_bytes(c, slot);
        call = *slot;
        calls_remove(&c->calls, slot);
    }
    pthread_mutex_unlock(&c->table);
    if (call.fn)
        call.fn(call.arg, m); /* no call: its deadline has passed */
}

/* ---- waiting */

enum { EVENT_WAKE = 1, EVENT_SOCKET = 2, EVENT_ROOM = 4 };

/* Waits for events, at most until the given time (clock_boot_ms), the next deadline or a tick. */
static unsigned wait_events(struct client *c, int64_t until)
{
    struct epoll_event events[2];
    int64_t now = clock_boot_ms();
    pthread_mutex_lock(&c->table);
    int64_t at = now + CLIENT_TICK_MS;
    if (c->calls.earliest < at)
        at = c->calls.earliest;
    if (until < at)
        at = until;
    c->wake_at = at;
    pthread_mutex_unlock(&c->table);
    int n = epoll_wait(c->epoll, events, 2, at > now ? (int)(at - now) : 0);
    unsigned got = 0;
    for (int i = 0; i < n; i++) {
        if (events[i].data.fd == c->wake) {
            uint64_t count;
            ssize_t ignored = read(c->wake, &count, sizeof(count));
            (void)ignored;
            got |= EVENT_WAKE;
        } else {
            got |= events[i].events & EPOLLOUT ? EVENT_ROOM : 0;
            got |= events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? EVENT_SOCKET : 0;
        }
    }
    return got;
}

/* With the stream down. */
static void pause_for(struct client *c, int64_t ms)
{
    int64_t until = clock_boot_ms() + ms;
    while (!is_stopping(c) && clock_boot_ms() < until) {
        wait_events(c, until);
        expire(c);
    }
}

/* ---- receiving */

static void deliver(struct client *c, struct message *m)
{
    m->stream = c->stream;
    if (m->kind == FRAME_REPLY)
        take_reply(c, m);
    else if (c->ops.on_push)
        c->ops.on_push(c->ctx, c, m);
    else
        (void)client_reply(c, m, -EOPNOTSUPP, NULL); /* the stream is gone: nobody waits */
}

static int deliver_all(struct client *c)
{
    struct message m;
    int more;
    while ((more = inbox_next(&c->inbox, &m)) > 0)
        deliver(c, &m);
    return more;
}

/* > 0: bytes; 0: none now; -errno. */
static ssize_t receive_some(struct client *c, bool *drained)
{
    *drained = true;
    ssize_t n = inbox_receive(&c->inbox, &c->channel, MSG_DONTWAIT, drained);
    c->more = n > 0 && !*drained && channel_is_tls(&c->channel);
    return n == -EAGAIN ? 0 : n;
}

static int receive(struct client *c)
{
    bool drained = false;
    for (int i = 0; i < CLIENT_RECEIVES_MAX && !drained; i++) {
        ssize_t n = receive_some(c, &drained);
        int err = n < 0 ? (int)n : n > 0 ? deliver_all(c) : 0;
        if (err || n == 0)
            return err;
    }
    return 0;
}

static int watch(struct client *c, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = c->channel.fd};
    return epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->channel.fd, &e) < 0 ? -errno : 0;
}

static int send_waiting(struct client *c)
{
    pthread_mutex_lock(&c->send);
    int err = outbox_send(&c->outbox, &c->channel);
    if (!err && c->want_write) {
        err = watch(c, EPOLLIN);
        c->want_write = false;
    }
    pthread_mutex_unlock(&c->send);
    return err == -EAGAIN ? 0 : err;
}

/* ---- on_connect */

static int defer(struct client *c, const struct message *m)
{
    uint8_t header[FRAME_HEADER_SIZE];
    struct iovec iov[] = {{header, sizeof(header)},
                          {(void *)(uintptr_t)m->body, m->body_len},
                          {(void *)(uintptr_t)m->payload, m->payload_len}};
    frame_put_header(m, header);
    if (outbox_waiting(&c->deferred) + iov_length(iov, 3) > CLIENT_DEFERRED_MAX)
        return -ENOBUFS;
    return outbox_add(&c->deferred, iov, 3);
}

static void deliver_deferred(struct client *c)
{
    struct inbox in = {
        .data = c->deferred.data, .start = c->deferred.start, .end = c->deferred.end};
    struct message m;
    while (inbox_next(&in, &m) > 0)
        deliver(c, &m);
    outbox_free(&c->deferred);
}

/* Waits for the reply with this id. 0, with *m in place, or -errno. */
static int handshake_reply(struct client *c, uint64_t id, int64_t deadline, struct message *m)
{
    for (;;) {
        int more;
        while ((more = inbox_next(&c->inbox, m)) > 0) {
            if (m->kind == FRAME_REPLY && m->id == id)
                return 0;
            int err = m->kind == FRAME_REPLY ? 0 : defer(c, m); /* replies to nothing: left over */
            if (err)
                return err;
        }
        if (more < 0)
            return more;
        if (is_stopping(c))
            return -ESHUTDOWN;
        if (clock_boot_ms() >= deadline)
            return -ETIMEDOUT;
        unsigned got = wait_events(c, c->more ? 0 : deadline);
        bool drained;
        ssize_t n = got & EVENT_SOCKET || c->more ? receive_some(c, &drained) : 0;
        int err = n < 0 ? (int)n : got & EVENT_ROOM ? send_waiting(c) : 0;
        if (err)
            return err;
    }
}

int client_handshake(struct client *c, uint16_t type, const ProtobufCMessage *body, int deadline_ms,
                     const ProtobufCMessageDescriptor *type_of_reply, ProtobufCMessage **reply,
                     char *detail)
{
    if (reply)
        *reply = NULL;
    if (detail)
        detail[0] = '\0';
    if (gettid() != atomic_load(&c->tid) || !c->handshaking)
        return -EINVAL;
    struct message m = {.kind = FRAME_REQUEST, .type = type};
    struct packed p;
    int64_t deadline = deadline_ms > 0 ? clock_boot_ms() + deadline_ms : CALLS_NO_DEADLINE;
    int err = packed_make(&p, &m, body);
    if (err)
        return err;
    pthread_mutex_lock(&c->send);
    pthread_mutex_lock(&c->table);
    m.id = calls_skip_id(&c->calls);
    pthread_mutex_unlock(&c->table);
    frame_put_header(&m, p.bytes);
    struct iovec iov = {p.bytes, p.length};
    err = stream_put(c, &iov, 1);
    pthread_mutex_unlock(&c->send);
    packed_free(&p);
    uint64_t id = m.id;
    if (!err)
        err = handshake_reply(c, id, deadline, &m);
    if (err)
        return err;
    if (detail)
        reply_detail(&m, detail);
    return reply_unpack(&m, type_of_reply, reply);
}

/* ---- the stream */

static int by_id(const void *a, const void *b)
{
    const struct call *x = *(const struct call *const *)a, *y = *(const struct call *const *)b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* With send held. Sends what waits for a stream, in the order of ids; what is not sent again is
 * forgotten. */
static int send_pending(struct client *c)
{
    int err = 0;
    pthread_mutex_lock(&c->table);
    struct call **calls = malloc((c->calls.count + 1) * sizeof(struct call *));
    size_t n = 0;
    for (uint32_t i = 0; calls && i < c->calls.size; i++)
        if (c->calls.slots[i].id && c->calls.slots[i].bytes)
            calls[n++] = &c->calls.slots[i];
    if (!calls)
        err = -ENOMEM;
    else
        qsort(calls, n, sizeof(struct call *), by_id);
    for (size_t i = 0; i < n && !err; i++) {
        struct iovec iov = {calls[i]->bytes, calls[i]->length};
        calls[i]->sent = true;
        err = stream_put(c, &iov, 1);
        if (!calls[i]->resend)
            call_drop_bytes(c, calls[i]);
    }
    pthread_mutex_unlock(&c->table);
    free(calls);
    return err;
}

/* The socket becomes the client's. */
static int attach(struct client *c, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &e) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    pthread_mutex_lock(&c->send);
    c->channel.fd = fd;
    c->want_write = false;
    pthread_mutex_unlock(&c->send);
    return 0;
}

static void detach(struct client *c)
{
    pthread_mutex_lock(&c->send);
    channel_close(&c->channel);
    close(c->channel.fd); /* leaves epoll, too */
    c->channel.fd = -1;
    c->up = false;
    outbox_free(&c->outbox);
    pthread_mutex_unlock(&c->send);
}

/* Until the socket has one of the events, with an eye on the deadlines of calls. */
static int wait_socket(struct client *c, int64_t until, unsigned events)
{
    for (;;) {
        if (is_stopping(c))
            return -ESHUTDOWN;
        if (clock_boot_ms() >= until)
            return -ETIMEDOUT;
        unsigned got = wait_events(c, until);
        expire(c);
        if (got & events)
            return 0;
    }
}

static int open_unix(struct client *c)
{
    int fd = address_connect(c->address);
    return fd < 0 ? fd : attach(c, fd, EPOLLIN);
}

static int open_candidate(struct client *c, const struct address_candidate *to)
{
    bool more;
    int fd = address_try(to, &more);
    int err = fd < 0 ? fd : attach(c, fd, more ? EPOLLOUT : EPOLLIN);
    if (err || !more)
        return err;
    err = wait_socket(c, clock_boot_ms() + ADDRESS_CONNECT_MS, EVENT_ROOM | EVENT_SOCKET);
    if (!err)
        err = address_finish(fd);
    if (err)
        detach(c);
    return err;
}

static int open_tls(struct client *c)
{
    const struct identity_name *expect = c->expect.role ? &c->expect : NULL;
    int64_t until = clock_boot_ms() + CHANNEL_HANDSHAKE_MS;
    pthread_mutex_lock(&c->send);
    int err = channel_tls(&c->channel, c->ops.identity, false, false, expect);
    pthread_mutex_unlock(&c->send);
    while (!err && (err = channel_handshake(&c->channel, &c->peer.who)) == -EAGAIN) {
        bool waiting = channel_waiting(&c->channel);
        err = watch(c, EPOLLIN | (waiting ? EPOLLOUT : 0u));
        if (!err)
            err = wait_socket(c, until, EVENT_SOCKET | (waiting ? EVENT_ROOM : 0u));
    }
    if (!err)
        err = watch(c, EPOLLIN);
    c->more = true;
    return err;
}

static int open_tcp(struct client *c)
{
    struct address_candidate list[ADDRESS_CANDIDATES_MAX];
    int n, err = address_resolve(c->address, list, &n);
    if (err)
        return err;
    for (int i = 0; i < n; i++) {
        err = open_candidate(c, &list[i]);
        if (!err || err == -ESHUTDOWN)
            break;
    }
    return err ? err : open_tls(c);
}

static int stream_open(struct client *c)
{
    bool tcp = address_is_tcp(c->address);
    c->more = false;
    c->peer = (struct identity_peer){.tls = tcp};
    inbox_reset(&c->inbox);
    int err = tcp ? open_tcp(c) : open_unix(c);
    if (err)
        return err;
    stream_tune(c->channel.fd);
    pthread_mutex_lock(&c->send);
    c->stream = c->stream + 1 ? c->stream + 1 : 1; /* 0 means: not known */
    pthread_mutex_unlock(&c->send);
    return 0;
}

/* Says why there is no stream. Of a refused handshake the reason may still be on its way when we
 * have already spoken. */
static void tell_failure(struct client *c, int err, bool only_refused)
{
    uint8_t rest[64];
    bool drained;
    char detail[IDENTITY_DETAIL];
    if (!c->ops.on_fail || is_stopping(c))
        return;
    if (channel_is_tls(&c->channel) && !channel_text(&c->channel)[0])
        (void)channel_receive(&c->channel, rest, sizeof(rest), MSG_DONTWAIT, &drained);
    const char *text = channel_text(&c->channel);
    if (only_refused && !text[0])
        return; /* on_connect knows why */
    snprintf(detail, sizeof(detail), "%.150s: %s", c->address, text[0] ? text : strerror(-err));
    c->ops.on_fail(c->ctx, c, err, detail);
}

static void stream_close(struct client *c)
{
    detach(c);
    outbox_free(&c->deferred);
}

static int stream_begin(struct client *c)
{
    int err = 0;
    if (c->ops.on_connect) {
        c->handshaking = true;
        err = c->ops.on_connect(c->ctx, c);
        c->handshaking = false;
    }
    if (err < 0)
        return err;
    pthread_mutex_lock(&c->send);
    err = send_pending(c);
    c->up = true;
    pthread_mutex_unlock(&c->send);
    return err;
}

/* Runs one stream from its beginning to its end. *lived: on_connect was content. */
static void stream_run(struct client *c, bool *lived)
{
    int err = stream_open(c);
    if (err) {
        tell_failure(c, err, false);
        if (c->channel.fd >= 0)
            stream_close(c);
        return;
    }
    err = stream_begin(c);
    *lived = c->up;
    if (!*lived)
        tell_failure(c, err, true);
    if (*lived)
        deliver_deferred(c);
    if (!err)
        err = deliver_all(c); /* what came behind the handshake's reply */
    while (!err && !is_stopping(c)) {
        unsigned got = wait_events(c, c->more ? 0 : INT64_MAX);
        if (got & EVENT_ROOM)
            err = send_waiting(c);
        if (!err && (got & EVENT_SOCKET || c->more))
            err = receive(c);
        expire(c);
    }
    stream_close(c);
    if (*lived && c->ops.on_disconnect)
        c->ops.on_disconnect(c->ctx, c);
    if (!is_stopping(c)) /* else all end -ESHUTDOWN */
        end_calls(c, false, -ECONNRESET);
}

void *client_thread(void *arg)
{
    struct client *c = arg;
    atomic_store(&c->tid, gettid());
    pthread_setname_np(pthread_self(), c->name);
    int64_t backoff = CLIENT_BACKOFF_MIN_MS;
    while (!is_stopping(c)) {
        bool lived = false;
        int64_t began = clock_boot_ms();
        stream_run(c, &lived);
        /* A server that hangs up on us at once is not asked again at once. */
        if (lived && clock_boot_ms() - began >= CLIENT_BACKOFF_MAX_MS)
            backoff = CLIENT_BACKOFF_MIN_MS;
        pause_for(c, backoff);
        if (backoff < CLIENT_BACKOFF_MAX_MS)
            backoff *= 2;
        if (backoff > CLIENT_BACKOFF_MAX_MS)
            backoff = CLIENT_BACKOFF_MAX_MS;
    }
    end_calls(c, true, -ESHUTDOWN);
    return NULL;
}
