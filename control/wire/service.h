/*
 * A server of the star with one thread per connection, for nodes: requests of one connection are
 * handled one after the other in its thread, so a handler may do blocking file I/O; a mount opens
 * as many connections as it wants work done at once (at most SERVICE_CONNECTIONS_MAX in all).
 *
 * Unix sockets ("unix:/path", mode 0600): the peer's uid must be 0 or the server's own
 * (SO_PEERCRED), others are closed. tcp: is TLS (channel.h): the peer must show a certificate of
 * our cloud, within CHANNEL_HANDSHAKE_MS; of more than CHANNEL_HALF_OPEN_MAX that have not, the
 * oldest is cut off. Garbage closes the connection and counts, nothing else.
 */
#ifndef UMBEL_WIRE_SERVICE_H
#define UMBEL_WIRE_SERVICE_H

#include <sys/types.h>
#include <sys/uio.h>

#include "control/wire/frame.h"
#include "control/wire/identity.h"

#define SERVICE_CONNECTIONS_MAX 512
/* A peer that takes no bytes of an answer for so long is cut off. */
#define SERVICE_SEND_DEADLINE_MS 30000

struct service;
struct service_conn;

struct service_ops {
    /* m is valid during the call. Every request must be answered exactly once: now or later, from
     * any thread (then take a reference first). */
    void (*on_request)(void *ctx, struct service_conn *conn, const struct message *m);
    void (*on_open)(void *ctx, struct service_conn *conn);  /* may be NULL */
    void (*on_close)(void *ctx, struct service_conn *conn); /* may be NULL */
    /* tcp: addresses need one; it must outlive the service. */
    const struct identity *identity;
    /* Somebody was turned away before on_open: a line for people, with where it came from. In any
     * thread of the service. May be NULL. */
    void (*on_refused)(void *ctx, const char *detail);
};

/* -EADDRINUSE: a live server answers there (a stale socket file is replaced); -ENOKEY: tcp: without
 * an identity. */
int service_start(const char *address, const char *name, const struct service_ops *ops, void *ctx,
                  struct service **out);
/* Closes all connections, joins all threads, removes the socket file. */
void service_stop(struct service *s);

struct service_conn *service_ref(struct service_conn *conn);
void service_unref(struct service_conn *conn);
void service_set_data(struct service_conn *conn, void *data);
void *service_data(struct service_conn *conn);

/* Who is at the other end; valid as long as conn. */
const struct identity_peer *service_peer(const struct service_conn *conn);
/* Where a tcp: service listens, as address_bound. */
int service_bound(const struct service *s, char *out);
/* Closes it, as if it had broken: on_close follows in its thread. */
void service_hang_up(struct service_conn *conn);
/* Runs f for each connection that is open now, with a lock held: f may call service_peer and
 * service_hang_up only. */
void service_each(struct service *s, void (*f)(void *arg, struct service_conn *conn), void *arg);

/* Thread-safe. A gone connection: -ENOTCONN. */
int service_reply(struct service_conn *conn, const struct message *request, int status,
                  const ProtobufCMessage *body, const struct iovec *payload, int payload_n);
/* As service_reply with a payload of length bytes at offset of fd; large ones by sendfile, without
 * a copy here: the peer may then see what is written to the file until it reads. If the file turns
 * out shorter, the missing bytes are sent as zeros. length <= FRAME_PAYLOAD_MAX. An error of the
 * file before anything was sent is returned, and the request still wants an answer; later, the
 * connection is closed (service_error returns -ENOTCONN then), and the service goes on without
 * sendfile, so that the peer gets the error when it asks again. */
int service_reply_file(struct service_conn *conn, const struct message *request,
                       const ProtobufCMessage *body, int fd, off_t offset, size_t length);
/* status < 0 with an ErrorReply made by printf rules. */
int service_error(struct service_conn *conn, const struct message *request, int status,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Connections closed for garbage since start. */
uint64_t service_garbage(const struct service *s);

#endif
