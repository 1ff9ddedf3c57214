/*
 * What lies between a stream socket and the frames on it: nothing (unix sockets), or TLS 1.3 with
 * certificates on both sides (TCP, always).
 *
 * A plain channel is its descriptor: no lock, no copy. With TLS the socket is non-blocking, and a
 * lock is held around each piece of work of the library, never while anybody waits, so one thread
 * may receive while others send (who send keep their own order, as on a plain socket). Whoever
 * waits, waits for the descriptor, outside.
 *
 * Encrypted bytes that the socket does not take are kept here, up to CHANNEL_OUT_MAX: then
 * channel_waiting() says so, and channel_flush() goes on when the socket has room.
 */
#ifndef UMBEL_WIRE_CHANNEL_H
#define UMBEL_WIRE_CHANNEL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "control/wire/identity.h"

/* From the accepted or connected socket to the end of the handshake. */
#define CHANNEL_HANDSHAKE_MS 10000
/* Handshakes under way at one server; one more cuts off the oldest. An honest one takes
 * milliseconds. */
#define CHANNEL_HALF_OPEN_MAX 64
/* Encrypted together and sent by one call. */
#define CHANNEL_OUT_MAX ((size_t)224 << 10)
/* Received by one call. */
#define CHANNEL_IN_SIZE ((size_t)256 << 10)
/* New keys after so many bytes: AES-GCM under one key is good for 2^24.5 records of 16 KiB
 * (RFC 8446, 5.5), which is 380 GiB. */
#define CHANNEL_REKEY_BYTES ((uint64_t)64 << 30)

struct tls;

struct channel {
    int fd;          /* -1: none. Borrowed: whoever opened it closes it, after channel_close */
    struct tls *tls; /* NULL: plain */
};

/* ---- TLS */

/* expect: whom a client wants to reach: another role, or another name if one is given, is refused.
 * NULL for servers. anonymous: a server that lets in who shows no certificate. */
int channel_tls(struct channel *c, const struct identity *id, bool server, bool anonymous,
                const struct identity_name *expect);
/* 0: done, and *who is known. -EAGAIN: wait for the descriptor (readable, and writable if
 * channel_waiting). Else refused or broken, and channel_text tells why: -EPROTO: what came is no
 * TLS; -EACCES: one side refuses the other; -ECONNRESET. */
int channel_handshake(struct channel *c, struct identity_name *who);
/* A line about what went wrong last, or "". */
const char *channel_text(const struct channel *c);
/* Frees what TLS needs; the descriptor stays open. */
void channel_close(struct channel *c);

ssize_t tls_receive(struct tls *t, void *data, size_t room, bool *drained);
ssize_t tls_send(struct tls *t, const struct iovec *iov, int n);
bool tls_waiting(struct tls *t);
int tls_flush(struct tls *t);

/* ---- bytes */

static inline bool channel_is_tls(const struct channel *c)
{
    return c->tls != NULL;
}

/* > 0: bytes; -ECONNRESET at the end of the stream; -EAGAIN (plain: only if flags has
 * MSG_DONTWAIT); -EPROTO: what came was not made by the other side; -errno. *drained: there is no
 * more for now. */
static inline ssize_t channel_receive(struct channel *c, void *data, size_t room, int flags,
                                      bool *drained)
{
    ssize_t n;
    if (c->tls)
        return tls_receive(c->tls, data, room, drained);
    do
        n = recv(c->fd, data, room, flags);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *drained = (size_t)n < room;
    return n > 0 ? n : -ECONNRESET;
}

/* How many bytes were taken (sent, or with TLS perhaps waiting), -EAGAIN: none, or -errno. flags:
 * of sendmsg, for plain ones. */
static inline ssize_t channel_send(struct channel *c, const struct iovec *iov, int n, int flags)
{
    struct msghdr h = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n};
    ssize_t done;
    if (c->tls)
        return tls_send(c->tls, iov, n);
    do
        done = sendmsg(c->fd, &h, flags | MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

/* Whether bytes that were taken wait for room in the socket. */
static inline bool channel_waiting(struct channel *c)
{
    return c->tls && tls_waiting(c->tls);
}

/* 0: nothing waits any more; -EAGAIN; -errno. */
static inline int channel_flush(struct channel *c)
{
    return c->tls ? tls_flush(c->tls) : 0;
}

#endif
