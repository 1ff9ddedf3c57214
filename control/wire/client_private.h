/*
 * Inside of a client: client.c holds what callers use, client_thread.c the thread.
 *
 * Two locks, taken in this order:
 *   send   the order of bytes on the stream: ids, outbox, fd, up. Held over a non-blocking sendmsg.
 *   table  the pending calls and the free list. Held for moments, so that replies never wait for a
 * large send. No lock is held while a callback runs.
 */
#ifndef UMBEL_WIRE_CLIENT_PRIVATE_H
#define UMBEL_WIRE_CLIENT_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "control/wire/calls.h"
#include "control/wire/channel.h"
#include "control/wire/client.h"
#include "control/wire/stream.h"

/* The thread looks at the clock at least so often; a call with a nearer deadline wakes it. */
#define CLIENT_TICK_MS 1000
/* Bytes that wait to be sent, or to be sent again, in all: some thousand large calls. Beyond:
 * -EBUSY. */
#define CLIENT_HELD_MAX ((size_t)256 << 20)
/* Small frames that are kept for RESEND are of this size and reused. */
#define CLIENT_CHUNK      512u
#define CLIENT_CHUNKS_MAX 256
/* Pushes that come during on_connect are kept up to this many bytes. */
#define CLIENT_DEFERRED_MAX ((size_t)16 << 20)
/* Receives in a row before the thread looks at deadlines and the outbox again. */
#define CLIENT_RECEIVES_MAX 16

struct chunk {
    struct chunk *next;
};

struct client {
    char *address;
    char name[16];
    struct client_ops ops;
    void *ctx;

    pthread_t thread;
    _Atomic int tid; /* of the thread, once it runs */
    atomic_bool stopping;
    int epoll; /* the socket and wake */
    int wake;  /* eventfd */

    pthread_mutex_t send;
    struct channel channel; /* fd -1: no stream; changed by the thread only */
    bool up;                /* calls may go out: on_connect has returned */
    bool want_write;        /* epoll waits for room */
    struct outbox outbox;
    _Atomic uint32_t stream; /* number of the stream, from 1; changed under send */

    pthread_mutex_t table;
    struct calls calls;
    int64_t wake_at; /* when the thread wakes by itself */
    size_t held;     /* bytes kept by calls */
    struct chunk *chunks;
    unsigned chunk_count;

    /* The thread's own. */
    struct identity_name expect;
    struct identity_peer peer;
    bool more; /* TLS holds bytes that the descriptor does not show any more */
    struct inbox inbox;
    bool handshaking;
    struct outbox deferred; /* whole frames that came during on_connect */
};

void *client_thread(void *arg);
void client_wake(struct client *c);

/* Both with table held. A buffer for n bytes of call; sets bytes, length, capacity. -ENOMEM,
 * -EBUSY. */
int call_keep(struct client *c, struct call *call, size_t n);
void call_drop_bytes(struct client *c, struct call *call);

/* With send held. Sends, or queues what the socket does not take. An error breaks the stream (the
 * thread will see). */
int stream_put(struct client *c, struct iovec *iov, int n);

/* The line of an ErrorReply, or "". */
void reply_detail(const struct message *reply, char detail[256]);
/* The reply's status, with *out (may be NULL) unpacked if it is >= 0; -EPROTO: it does not unpack.
 */
int reply_unpack(const struct message *reply, const ProtobufCMessageDescriptor *type,
                 ProtobufCMessage **out);

#endif
