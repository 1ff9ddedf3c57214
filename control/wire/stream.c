#include "control/wire/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* An emptied outbox or inbox larger than this gives its memory back. */
#define OUTBOX_KEEP ((size_t)256 << 10)
/* With less room than this behind what is left, what is left moves to the front: it is small, the
 * recv larger. */
#define INBOX_ROOM_LEAST ((size_t)32 << 10)

void stream_tune(int fd)
{
    int size = STREAM_SOCKET_BUFFER;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* the kernel cuts it */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

/* ---- receiving */

void inbox_init(struct inbox *in, size_t base)
{
    *in = (struct inbox){.base = base};
}

void inbox_free(struct inbox *in)
{
    free(in->data);
    *in = (struct inbox){.base = in->base, .limit = in->limit};
}

void inbox_reset(struct inbox *in)
{
    in->start = in->end = 0;
}

/* Size of the frame at the start, or of a header while that is not known. inbox_next has checked
 * the header. */
static size_t frame_needed(const struct inbox *in)
{
    struct message m;
    if (in->end - in->start < FRAME_HEADER_SIZE || frame_get_header(in->data + in->start, &m) < 0)
        return FRAME_HEADER_SIZE;
    return FRAME_HEADER_SIZE + m.body_len + m.payload_len;
}

static int inbox_resize(struct inbox *in, size_t size)
{
    uint8_t *data = malloc(size);
    if (!data)
        return -ENOMEM;
    if (in->end > in->start)
        memcpy(data, in->data + in->start, in->end - in->start);
    free(in->data);
    in->data = data;
    in->size = size;
    in->end -= in->start;
    in->start = 0;
    return 0;
}

/* Makes room for the rest of the frame begun, and shrinks what a large frame made grow. */
static int inbox_make_room(struct inbox *in)
{
    if (in->start == in->end) {
        in->start = in->end = 0;
        return in->size == in->base ? 0 : inbox_resize(in, in->base);
    }
    size_t need = frame_needed(in);
    if (need > in->size)
        return inbox_resize(in, need + STREAM_INBOX_SMALL);
    if (in->start > 0 && (in->start + need > in->size || in->size - in->end < INBOX_ROOM_LEAST)) {
        memmove(in->data, in->data + in->start, in->end - in->start);
        in->end -= in->start;
        in->start = 0;
    }
    return 0;
}

ssize_t inbox_receive(struct inbox *in, struct channel *c, int flags, bool *drained)
{
    int err = inbox_make_room(in);
    if (err)
        return err;
    ssize_t n = channel_receive(c, in->data + in->end, in->size - in->end, flags, drained);
    if (n > 0)
        in->end += (size_t)n;
    return n;
}

int inbox_next(struct inbox *in, struct message *m)
{
    size_t have = in->end - in->start;
    if (have < FRAME_HEADER_SIZE)
        return 0;
    const uint8_t *at = in->data + in->start;
    int err = frame_get_header(at, m);
    if (err)
        return err;
    size_t total = FRAME_HEADER_SIZE + m->body_len + m->payload_len;
    if (in->limit && total > in->limit)
        return -EPROTO;
    if (have < total)
        return 0;
    m->body = at + FRAME_HEADER_SIZE;
    m->payload = m->body + m->body_len;
    in->start += total;
    return 1;
}

/* ---- sending */

ssize_t frame_size(struct message *m, const ProtobufCMessage *body)
{
    m->body_len = body ? protobuf_c_message_get_packed_size(body) : 0;
    if (m->body_len > FRAME_BODY_MAX || m->payload_len > FRAME_PAYLOAD_MAX)
        return -EMSGSIZE;
    return (ssize_t)(FRAME_HEADER_SIZE + m->body_len);
}

void frame_write(const struct message *m, const ProtobufCMessage *body, uint8_t *out)
{
    frame_put_header(m, out);
    if (body)
        protobuf_c_message_pack(body, out + FRAME_HEADER_SIZE);
}

int packed_make(struct packed *p, struct message *m, const ProtobufCMessage *body)
{
    ssize_t size = frame_size(m, body);
    p->bytes = p->small;
    if (size < 0)
        return (int)size;
    p->length = (size_t)size;
    if (p->length > sizeof(p->small)) {
        p->bytes = malloc(p->length);
        if (!p->bytes)
            return -ENOMEM;
    }
    frame_write(m, body, p->bytes);
    return 0;
}

void packed_free(struct packed *p)
{
    if (p->bytes != p->small)
        free(p->bytes);
}

size_t iov_length(const struct iovec *iov, int n)
{
    size_t total = 0;
    for (int i = 0; i < n; i++)
        total += iov[i].iov_len;
    return total;
}

void iov_advance(struct iovec **iov, int *n, size_t done)
{
    while (*n > 0 && done >= (*iov)->iov_len) {
        done -= (*iov)->iov_len;
        (*iov)++;
        (*n)--;
    }
    if (*n > 0) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + done;
        (*iov)->iov_len -= done;
    }
}

void outbox_free(struct outbox *out)
{
    free(out->data);
    *out = (struct outbox){0};
}

uint8_t *outbox_grow(struct outbox *out, size_t n)
{
    size_t waiting = outbox_waiting(out);
    if (out->end + n > out->size) {
        size_t size = out->size ? out->size : 4096;
        while (size < waiting + n)
            size *= 2;
        if (size > out->size || out->start < waiting) { /* else it is cheap to move to the front */
            size = size > out->size ? size : size * 2;
            uint8_t *data = malloc(size);
            if (!data)
                return NULL;
            if (waiting)
                memcpy(data, out->data + out->start, waiting);
            free(out->data);
            out->data = data;
            out->size = size;
        } else {
            memcpy(out->data, out->data + out->start, waiting);
        }
        out->start = 0;
        out->end = waiting;
    }
    uint8_t *room = out->data + out->end;
    out->end += n;
    return room;
}

int outbox_add(struct outbox *out, const struct iovec *iov, int n)
{
    uint8_t *at = outbox_grow(out, iov_length(iov, n));
    if (!at)
        return -ENOMEM;
    for (int i = 0; i < n; i++) {
        if (iov[i].iov_len)
            memcpy(at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    return 0;
}

int outbox_send(struct outbox *out, struct channel *c)
{
    while (out->start < out->end) {
        struct iovec iov = {out->data + out->start, out->end - out->start};
        ssize_t n = channel_send(c, &iov, 1, MSG_DONTWAIT);
        if (n < 0)
            return (int)n;
        out->start += (size_t)n;
    }
    out->start = out->end = 0;
    if (out->size > OUTBOX_KEEP)
        outbox_free(out);
    return channel_flush(c);
}
