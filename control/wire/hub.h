/*
 * A server of the star on a libuv loop, for control processes: all callbacks run on the loop's
 * thread, none may block. Frames that arrive in one turn of the loop are delivered in order.
 *
 * Unix sockets ("unix:/path", mode 0600) with peer credentials, and tcp: with TLS, as service.h. A
 * peer with more than HUB_SEND_MAX bytes waiting to be sent is cut off (it reconnects and asks
 * again). Garbage closes the connection and counts.
 *
 * With hub_ops.anonymous a peer over TLS may come without a certificate: peer_identity says role
 * NONE. It may send frames up to HUB_ANONYMOUS_FRAME, has HUB_ANONYMOUS_MS for all that it wants,
 * and counts as half open (CHANNEL_HALF_OPEN_MAX) to its end.
 */
#ifndef UMBEL_WIRE_HUB_H
#define UMBEL_WIRE_HUB_H

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "control/wire/frame.h"
#include "control/wire/identity.h"

#define HUB_CONNECTIONS_MAX 4096
#define HUB_SEND_MAX        (64u << 20)
#define HUB_ANONYMOUS_FRAME ((size_t)16 << 10)
#define HUB_ANONYMOUS_MS    20000

struct hub;
struct peer;

struct hub_ops {
    void (*on_request)(void *ctx, struct peer *p,
                       const struct message *m); /* requests and notifies */
    /* Once for each peer, at the end of the turn in which it was closed or broke, never inside
     * another call of this header but hub_close and hub_flush. p is valid until this returns
     * (longer with a reference); its open peer_requests have ended -ECONNRESET. */
    void (*on_close)(void *ctx, struct peer *p);
    /* tcp: addresses need one; it must outlive the hub. */
    const struct identity *identity;
    bool anonymous;
    /* Somebody was turned away in the handshake (there is no on_close then): a line for people,
     * with where it came from. May be NULL. */
    void (*on_refused)(void *ctx, const char *detail);
};

int hub_start(uv_loop_t *loop, const char *address, const struct hub_ops *ops, void *ctx,
              struct hub **out);
/* Closes everything; done (may be NULL) runs when the loop has forgotten all handles; then the hub
 * is freed. */
void hub_close(struct hub *h, void (*done)(void *arg), void *arg);

/* A peer is freed after on_close when its last reference is dropped; sending to a closed one is
 * -ENOTCONN. */
struct peer *peer_ref(struct peer *p);
void peer_unref(struct peer *p);
void peer_set_data(struct peer *p, void *data);
void *peer_data(struct peer *p);
/* Of a unix socket; over TLS all are 0. */
void peer_cred(const struct peer *p, uid_t *uid, gid_t *gid, pid_t *pid);
/* Who is at the other end; valid as long as p. */
const struct identity_peer *peer_identity(const struct peer *p);
/* No more is received or taken for sending from now on; what was said before is sent if the socket
 * takes it. on_close follows at the end of the turn. */
void peer_close(struct peer *p);
bool peer_is_open(const struct peer *p);

/* Answers a request (for a notify it does nothing): only its type and id are used, so a copied
 * `struct message` header will do later. */
int peer_reply(struct peer *p, const struct message *request, int status,
               const ProtobufCMessage *body, const void *payload, size_t payload_len);
int peer_error(struct peer *p, const struct message *request, int status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The same with a body that is already packed. */
int peer_reply_packed(struct peer *p, const struct message *request, int status, const void *body,
                      size_t body_len);

/* A request of ours. < 0: fn will not run. 0: fn (may be NULL) runs exactly once on the loop: the
 * peer's reply, -ETIMEDOUT or -ECONNRESET. */
typedef void (*peer_reply_fn)(void *arg, const struct message *reply);
int peer_request(struct peer *p, uint16_t type, const ProtobufCMessage *body, int deadline_ms,
                 peer_reply_fn fn, void *arg);
int peer_notify(struct peer *p, uint16_t type, const ProtobufCMessage *body);

/* Sends now what was said to all peers. It happens by itself at the end of each turn of the loop,
 * after the poll phase and again before the loop sleeps, with one system call for each peer: needed
 * only before something slow. */
void hub_flush(struct hub *h);

uint64_t hub_garbage(const struct hub *h); /* connections closed for garbage since start */
/* Where a tcp: hub listens, as address_bound. */
int hub_bound(const struct hub *h, char *out);
/* Runs f for each peer that is open; f may call peer_close. */
void hub_each(struct hub *h, void (*f)(void *arg, struct peer *p), void *arg);

#endif
