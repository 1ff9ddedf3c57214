/*
 * Frames on a stream socket, below client, service and hub: where received bytes gather (inbox),
 * where bytes wait that the socket did not take (outbox), and how a message becomes bytes. Not
 * thread-safe: the users lock.
 */
#ifndef UMBEL_WIRE_STREAM_H
#define UMBEL_WIRE_STREAM_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "control/wire/channel.h"
#include "control/wire/frame.h"

/* Best effort: needs CAP_NET_ADMIN to pass net.core.wmem_max. Holds some 1 MiB payloads. */
#define STREAM_SOCKET_BUFFER (4 << 20)
/* An inbox of this size receives a frame with the largest payload and, beside it, many small ones
 * at once. */
#define STREAM_INBOX_LARGE ((size_t)FRAME_HEADER_SIZE + FRAME_PAYLOAD_MAX + (64u << 10))
/* For servers of many peers that send little each; grows to what a frame needs, and shrinks again.
 */
#define STREAM_INBOX_SMALL ((size_t)64 << 10)
/* Header and body up to this size are packed on the stack. */
#define STREAM_SMALL 1024
/* Pieces of one payload. */
#define STREAM_IOV_MAX 256

/* Makes the socket's buffers large. */
void stream_tune(int fd);

/* ---- receiving */

struct inbox {
    uint8_t *data; /* size bytes, made at the first receive */
    size_t size, start, end;
    size_t base;  /* the size that it has, if no larger frame is on its way */
    size_t limit; /* of a frame, for who is not known yet; 0: what a frame may have */
};

void inbox_init(struct inbox *in, size_t base);
void inbox_free(struct inbox *in);
/* Forgets what it holds: for the next stream. */
void inbox_reset(struct inbox *in);

/* One recv of as much as fits, and at least room for the rest of the frame begun. > 0: bytes;
 * -ECONNRESET at the end of the stream; -EAGAIN (flags has MSG_DONTWAIT); -errno. Everything that
 * inbox_next gave before is invalid afterwards. *drained: the socket was emptied. */
ssize_t inbox_receive(struct inbox *in, struct channel *c, int flags, bool *drained);

/* The next whole frame, its body and payload in place. 1: there is one; 0: more bytes are needed;
 * -EPROTO. */
int inbox_next(struct inbox *in, struct message *m);

/* ---- sending */

/* A header and body as bytes: on the stack if small. Free with packed_free. */
struct packed {
    uint8_t *bytes;
    size_t length;
    uint8_t small[STREAM_SMALL];
};

/* Bytes of header and body, or -EMSGSIZE. Sets m->body_len. */
ssize_t frame_size(struct message *m, const ProtobufCMessage *body);
/* Writes the header (lengths from m) and the body to out, which has frame_size bytes. */
void frame_write(const struct message *m, const ProtobufCMessage *body, uint8_t *out);
/* Both together. m->payload_len must be set. -EMSGSIZE, -ENOMEM. */
int packed_make(struct packed *p, struct message *m, const ProtobufCMessage *body);
void packed_free(struct packed *p);

/* Bytes of all pieces. */
size_t iov_length(const struct iovec *iov, int n);
/* Steps over done bytes. */
void iov_advance(struct iovec **iov, int *n, size_t done);

struct outbox {
    uint8_t *data;
    size_t size, start, end;
};

static inline size_t outbox_waiting(const struct outbox *out)
{
    return out->end - out->start;
}

void outbox_free(struct outbox *out);
/* Room for n more bytes at the end, counted as written. NULL: no memory. */
uint8_t *outbox_grow(struct outbox *out, size_t n);
int outbox_add(struct outbox *out, const struct iovec *iov, int n);
/* Sends without waiting. 0: all sent; -EAGAIN: some still wait, here or in the channel; -errno: the
 * stream is broken. */
int outbox_send(struct outbox *out, struct channel *c);

#endif
