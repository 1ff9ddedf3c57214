/*
 * A client connection of the star, for processes with threads (mounts, nodes, the command line).
 *
 * A client owns one stream socket to one address and one thread that connects, receives, expires
 * deadlines and reconnects with back-off (CLIENT_BACKOFF_MIN_MS doubling to CLIENT_BACKOFF_MAX_MS).
 * Calls are asynchronous: the caller's thread sends, the client's thread runs the callback.
 *
 * Reconnect. When the stream breaks, calls made with CLIENT_RESEND stay pending with their encoded
 * bytes and are sent again, in the order of their ids, after on_connect has returned 0 on the new
 * stream; others are answered -ECONNRESET at once. Calls made while there is no stream wait for it
 * (RESEND or not) until their deadline. A call ends exactly once: with the peer's reply, or locally
 * with -ETIMEDOUT (its deadline passed), -ECONNRESET, or -ESHUTDOWN (client_stop). After -ETIMEDOUT
 * a late reply is dropped.
 *
 * Over tcp: the stream is TLS (channel.h). The other side must show a certificate of our cloud with
 * the role, and the name, that the address or client_ops.expect asks for.
 *
 * Threads. Every function may be called from any thread, also from callbacks, except client_stop
 * and client_free (never from a callback). Callbacks of one client never run at the same time. A
 * callback must not wait for another call of the same client (client_call_wait from one is
 * -EDEADLK), except on_connect, which gets its own synchronous call: client_handshake.
 */
#ifndef UMBEL_WIRE_CLIENT_H
#define UMBEL_WIRE_CLIENT_H

#include <stdbool.h>
#include <sys/uio.h>

#include "control/wire/frame.h"
#include "control/wire/identity.h"

#define CLIENT_BACKOFF_MIN_MS 5
#define CLIENT_BACKOFF_MAX_MS 1000
/* Pending calls of one client; beyond: -EBUSY. FUSE's own background limit is far below. */
#define CLIENT_PENDING_MAX 65536

#define CLIENT_RESEND 1u

struct client;

/* reply->body and payload are valid during the call only. Local ends have status < 0 and no body.
 */
typedef void (*client_reply_fn)(void *arg, const struct message *reply);

struct client_ops {
    /* tcp: addresses need an identity, which must outlive the client. expect: the role that must
     * answer, if the address names nobody (NONE: any of this cloud). */
    const struct identity *identity;
    enum identity_role expect;
    /* The stream is up: say HELLO with client_handshake(). < 0: the stream is closed and tried
     * again after the back-off. May be NULL. */
    int (*on_connect)(void *ctx, struct client *c);
    /* The stream is lost (only after a successful on_connect). May be NULL. */
    void (*on_disconnect)(void *ctx, struct client *c);
    /* A request or notify of the peer. Requests are answered with client_reply, now or later, from
     * any thread. May be NULL: requests are answered -EOPNOTSUPP. */
    void (*on_push)(void *ctx, struct client *c, const struct message *m);
    /* It did not come to a stream, or the other side refused us; detail is a line for people. Tried
     * again after the back-off. May be NULL. */
    void (*on_fail)(void *ctx, struct client *c, int err, const char *detail);
};

/* address: see address.h. Starts the thread; connecting happens there. ops is copied. name is for
 * the thread's name and logs. -EINVAL: the address is not of a known form; -ENOKEY: tcp: without an
 * identity. */
int client_start(const char *address, const char *name, const struct client_ops *ops, void *ctx,
                 struct client **out);

/* Ends every pending call with -ESHUTDOWN, joins the thread, frees. */
void client_stop(struct client *c);

/* Sends a request. body may be NULL (Empty). The payload is copied only with CLIENT_RESEND or when
 * the socket is full; otherwise it is written before the call returns. deadline_ms from now, <= 0:
 * none (only for lock waits). fn may be NULL. *id (may be NULL) gets the frame id. 0: fn will run
 * exactly once (perhaps it already has). < 0: fn will not run: -EBUSY, -EMSGSIZE, -ENOMEM,
 * -ESHUTDOWN. */
int client_call(struct client *c, uint16_t type, const ProtobufCMessage *body,
                const struct iovec *payload, int payload_n, int deadline_ms, unsigned flags,
                client_reply_fn fn, void *arg, uint64_t *id);

/* The same, waiting. Returns the reply's status (< 0: error). *reply (may be NULL) gets the
 * unpacked body if the status is >= 0 and type_of_reply is given: free with
 * protobuf_c_message_free_unpacked(). detail (may be NULL, 256 bytes) gets the ErrorReply's line,
 * or "". payload_out (may be NULL) gets a malloc'd copy of the payload. */
int client_call_wait(struct client *c, uint16_t type, const ProtobufCMessage *body, int deadline_ms,
                     unsigned flags, const ProtobufCMessageDescriptor *type_of_reply,
                     ProtobufCMessage **reply, char *detail, void **payload_out,
                     size_t *payload_len);

/* Only in on_connect: one request and its reply on the fresh stream, ahead of everything pending.
 * Same results as client_call_wait. Pushes that arrive meanwhile are delivered after on_connect.
 * Deadlines of pending calls are looked at again when on_connect has returned, so give a short one
 * here. */
int client_handshake(struct client *c, uint16_t type, const ProtobufCMessage *body, int deadline_ms,
                     const ProtobufCMessageDescriptor *type_of_reply, ProtobufCMessage **reply,
                     char *detail);

/* Answers a push request. A reply on a stream that is gone is dropped silently (the peer asks
 * again). */
int client_reply(struct client *c, const struct message *request_header, int status,
                 const ProtobufCMessage *body);

/* A message without an answer. -ENOTCONN: there is no stream; nothing is queued. */
int client_notify(struct client *c, uint16_t type, const ProtobufCMessage *body);

/* Closes the stream now, as if it had broken; the thread reconnects. */
void client_reset(struct client *c);

/* Who is at the other end; only in callbacks of the client. */
const struct identity_peer *client_peer(struct client *c);

/* Calls sent or queued and not yet answered. */
unsigned client_inflight(struct client *c);

#endif
