#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/hub_private.h"

/* Receives of one peer in one turn of the loop, so that a busy one does not starve the others. */
#define PEER_RECEIVES_MAX 2

struct peer *peer_ref(struct peer *p)
{
    p->refs++;
    return p;
}

void peer_unref(struct peer *p)
{
    if (--p->refs > 0)
        return;
    inbox_free(&p->inbox);
    outbox_free(&p->outbox);
    free(p);
}

void peer_set_data(struct peer *p, void *data)
{
    p->data = data;
}

void *peer_data(struct peer *p)
{
    return p->data;
}

void peer_cred(const struct peer *p, uid_t *uid, gid_t *gid, pid_t *pid)
{
    if (uid)
        *uid = p->uid;
    if (gid)
        *gid = p->gid;
    if (pid)
        *pid = p->pid;
}

const struct identity_peer *peer_identity(const struct peer *p)
{
    return &p->identity;
}

bool peer_is_open(const struct peer *p)
{
    return p->open;
}

/* ---- the end */

void peer_close(struct peer *p)
{
    if (!p->open)
        return;
    p->open = false;
    hub_mark(p);
}

static void peer_fail(struct peer *p)
{
    p->failed = true;
    peer_close(p);
}

static void end_requests(struct hub *h, const struct peer *p)
{
    for (uint32_t i = 0; i < h->calls.size; i++) {
        struct call call = h->calls.slots[i];
        struct message m = {
            .kind = FRAME_REPLY, .type = call.type, .id = call.id, .status = -ECONNRESET};
        if (!call.id || call.owner != p)
            continue;
        calls_remove(&h->calls, &h->calls.slots[i]);
        if (call.fn)
            call.fn(call.arg, &m);
    }
}

static void not_half_open(struct peer *p)
{
    if (p->half_until)
        hub_half_open(p->hub, -1);
    p->half_until = 0;
}

static void handle_closed(uv_handle_t *handle)
{
    struct peer *p = handle->data;
    struct hub *h = p->hub;
    p->hub = NULL;
    inbox_free(&p->inbox); /* not before: the message in delivery stands in it */
    outbox_free(&p->outbox);
    peer_unref(p);
    hub_handle_closed(h);
}

void peer_finish(struct peer *p)
{
    struct hub *h = p->hub;
    p->open = false;
    if (!p->failed)
        (void)outbox_send(&p->outbox,
                          &p->channel); /* a refusal should reach who is closed for it */
    not_half_open(p);
    if (p->prev)
        p->prev->next = p->next;
    else
        h->peers = p->next;
    if (p->next)
        p->next->prev = p->prev;
    h->count--;
    end_requests(h, p);
    if (h->ops.on_close && !p->shaking)
        h->ops.on_close(h->ctx, p);
    uv_close((uv_handle_t *)&p->poll, handle_closed);
    channel_close(&p->channel);
    close(p->channel.fd); /* uv_close has taken it out of the loop */
    p->channel.fd = -1;
}

/* ---- receiving */

static void take_reply(struct peer *p, const struct message *m)
{
    struct call *slot = calls_find(&p->hub->calls, m->id);
    if (!slot || slot->owner != p)
        return; /* its deadline has passed */
    struct call call = *slot;
    calls_remove(&p->hub->calls, slot);
    if (call.fn)
        call.fn(call.arg, m);
}

static int deliver_all(struct peer *p)
{
    struct hub *h = p->hub;
    struct message m;
    int more = 0;
    while (p->open && (more = inbox_next(&p->inbox, &m)) > 0) {
        if (m.kind == FRAME_REPLY)
            take_reply(p, &m);
        else
            h->ops.on_request(h->ctx, p, &m);
    }
    return more < 0 ? more : 0;
}

static void receive(struct peer *p)
{
    bool drained = false;
    for (int i = 0; i < PEER_RECEIVES_MAX && !drained && p->open; i++) {
        ssize_t n = inbox_receive(&p->inbox, &p->channel, MSG_DONTWAIT, &drained);
        if (n == -EAGAIN)
            return;
        int err = n < 0 ? (int)n : deliver_all(p);
        if (err == -EPROTO)
            p->hub->garbage++;
        if (err)
            peer_fail(p);
    }
    if (!drained && p->open && channel_is_tls(&p->channel))
        hub_mark_more(p);
}

/* ---- TLS: the handshake */

static int watch(struct peer *p, bool writable);

static void turn_away(struct peer *p, const char *why)
{
    struct hub *h = p->hub;
    char where[64], detail[IDENTITY_DETAIL];
    if (h->ops.on_refused && !h->closing) {
        address_peer_text(p->channel.fd, where);
        snprintf(detail, sizeof(detail), "%s is turned away: %s", where, why);
        h->ops.on_refused(h->ctx, detail);
    }
    peer_fail(p);
}

void peer_give_up(struct peer *p, const char *why)
{
    if (p->open)
        turn_away(p, why);
}

static void known(struct peer *p)
{
    p->shaking = false;
    if (p->identity.who.role == IDENTITY_NONE) {
        p->half_until += HUB_ANONYMOUS_MS - CHANNEL_HANDSHAKE_MS;
        p->inbox.limit = HUB_ANONYMOUS_FRAME;
    } else {
        not_half_open(p);
    }
}

static void shake_hands(struct peer *p)
{
    int err = channel_handshake(&p->channel, &p->identity.who);
    if (err == -EPROTO)
        p->hub->garbage++;
    if (!err)
        known(p);
    if (!err || err == -EAGAIN)
        err = watch(p, channel_waiting(&p->channel));
    if (err)
        turn_away(p, channel_text(&p->channel)[0] ? channel_text(&p->channel) : strerror(-err));
    else if (!p->shaking)
        receive(p);
}

void peer_receive(struct peer *p)
{
    if (p->open && !p->shaking)
        receive(p);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct peer *p = poll->data;
    if (!p->open)
        return;
    if (p->shaking) {
        shake_hands(p);
        return;
    }
    if (events & UV_WRITABLE)
        hub_mark(p);
    if (status < 0 || events & UV_READABLE)
        receive(p); /* an error of the socket comes out of recv, too */
}

/* ---- sending */

static int watch(struct peer *p, bool writable)
{
    if (p->want_write == writable)
        return 0;
    p->want_write = writable;
    return uv_poll_start(&p->poll, UV_READABLE | (writable ? UV_WRITABLE : 0), on_poll);
}

void peer_flush(struct peer *p)
{
    if (p->open) {
        int err = outbox_send(&p->outbox, &p->channel);
        if (err == -EAGAIN || !err)
            err = watch(p, err == -EAGAIN);
        if (!err)
            return;
        p->failed = true;
    }
    peer_finish(p);
}

/* Room for n more bytes to the peer, or NULL and why. */
static uint8_t *room_for(struct peer *p, size_t n, int *err)
{
    *err = -ENOTCONN;
    if (!p->open)
        return NULL;
    if (outbox_waiting(&p->outbox) + n > HUB_SEND_MAX) {
        peer_fail(p);
        return NULL;
    }
    uint8_t *at = outbox_grow(&p->outbox, n);
    if (!at) {
        *err = -ENOMEM;
        return NULL;
    }
    *err = 0;
    hub_mark(p);
    return at;
}

static int put(struct peer *p, struct message *m, const ProtobufCMessage *body, const void *payload)
{
    int err;
    ssize_t size = frame_size(m, body);
    if (size < 0)
        return (int)size;
    uint8_t *at = room_for(p, (size_t)size + m->payload_len, &err);
    if (!at)
        return err;
    frame_write(m, body, at);
    if (m->payload_len)
        memcpy(at + size, payload, m->payload_len);
    return 0;
}

int peer_reply(struct peer *p, const struct message *request, int status,
               const ProtobufCMessage *body, const void *payload, size_t payload_len)
{
    if (request->kind == FRAME_NOTIFY)
        return 0;
    struct message m = {.kind = FRAME_REPLY,
                        .type = request->type,
                        .id = request->id,
                        .status = status,
                        .payload_len = payload_len};
    return put(p, &m, body, payload);
}

int peer_reply_packed(struct peer *p, const struct message *request, int status, const void *body,
                      size_t body_len)
{
    if (request->kind == FRAME_NOTIFY)
        return 0;
    struct message m = {.kind = FRAME_REPLY,
                        .type = request->type,
                        .id = request->id,
                        .status = status,
                        .body_len = body_len};
    int err;
    if (body_len > FRAME_BODY_MAX)
        return -EMSGSIZE;
    uint8_t *at = room_for(p, FRAME_HEADER_SIZE + body_len, &err);
    if (!at)
        return err;
    frame_put_header(&m, at);
    if (body_len)
        memcpy(at + FRAME_HEADER_SIZE, body, body_len);
    return 0;
}

int peer_error(struct peer *p, const struct message *request, int status, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    Star__ErrorReply body = STAR__ERROR_REPLY__INIT;
    body.detail = text;
    return peer_reply(p, request, status, &body.base, NULL, 0);
}

int peer_notify(struct peer *p, uint16_t type, const ProtobufCMessage *body)
{
    struct message m = {.kind = FRAME_NOTIFY, .type = type};
    return put(p, &m, body, NULL);
}

int peer_request(struct peer *p, uint16_t type, const ProtobufCMessage *body, int deadline_ms,
                 peer_reply_fn fn, void *arg)
{
    if (!p->open)
        return -ENOTCONN;
    struct hub *h = p->hub;
    int64_t deadline = deadline_ms > 0 ? clock_boot_ms() + deadline_ms : CALLS_NO_DEADLINE;
    int err;
    struct call *call = calls_add(&h->calls, deadline, &err);
    if (!call)
        return err;
    call->owner = p;
    call->fn = fn;
    call->arg = arg;
    call->type = type;
    struct message m = {.kind = FRAME_REQUEST, .type = type, .id = call->id};
    err = put(p, &m, body, NULL);
    if (err)
        calls_remove(&h->calls, call);
    else
        hub_timer(h, deadline);
    return err;
}

/* ---- the beginning */

static int begin_tls(struct peer *p)
{
    p->identity.tls = p->shaking = true;
    int err = address_tune_tcp(p->channel.fd);
    return err ? err
               : channel_tls(&p->channel, p->hub->ops.identity, true, p->hub->ops.anonymous, NULL);
}

int peer_open(struct hub *h, int fd)
{
    struct peer *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->hub = h;
    p->channel.fd = fd;
    p->refs = 1;
    inbox_init(&p->inbox, STREAM_INBOX_SMALL);
    int err =
        address_is_tcp(h->address) ? begin_tls(p) : address_peer(fd, &p->uid, &p->gid, &p->pid);
    if (!err)
        err = uv_poll_init(h->loop, &p->poll, fd);
    if (err) {
        channel_close(&p->channel);
        free(p);
        return err;
    }
    stream_tune(fd);
    p->poll.data = p;
    p->open = true;
    p->next = h->peers;
    if (h->peers)
        h->peers->prev = p;
    h->peers = p;
    h->count++;
    h->handles++;
    if (p->shaking) {
        hub_half_open(h, 1);
        p->half_until = clock_boot_ms() + CHANNEL_HANDSHAKE_MS;
    }
    if (uv_poll_start(&p->poll, UV_READABLE, on_poll) < 0)
        peer_fail(p);
    return 0;
}
