/*
 * Locks: service.lock guards the list and the counts; conn.send guards fd and open, and is held
 * over a blocking send. They are never held together but in service_stop (lock, then only shutdown,
 * which needs none).
 */
#include "control/wire/service.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/wire/address.h"
#include "control/wire/channel.h"
#include "control/wire/clock.h"
#include "control/wire/stream.h"

/* Without free descriptors or memory for a connection, the next try is made after this time. */
#define ACCEPT_PAUSE_MS 100
/* A payload from a file up to this size is read and sent with its header by one call: the peer
 * wakes once. */
#define FILE_COPY_MAX (64u << 10)

struct service_conn {
    struct service *service;
    struct service_conn *prev, *next; /* under service.lock */
    pthread_t thread;
    bool finished; /* under service.lock: the thread can be joined */
    atomic_uint refs;
    _Atomic(void *) data;
    int socket;             /* open as long as the conn lives, so that shutdown is always safe */
    struct channel channel; /* of socket */
    struct identity_peer peer;
    bool half_open; /* under service.lock: its handshake is not done */
    bool cut;       /* under service.lock: nor will it be */

    pthread_mutex_t send;
    bool open;
    uint8_t *copy; /* for payloads from files that are copied; made when needed */
    size_t copy_size;
};

struct service {
    char *address;
    char name[16];
    struct service_ops ops;
    void *ctx;
    struct listener listener;
    int wake;
    pthread_t acceptor;
    atomic_bool stopping;
    atomic_bool careful; /* a file could not be read after its header was out: from now on copy, so
                            that errors come before it */
    _Atomic uint64_t garbage;

    pthread_mutex_t lock;
    struct service_conn *conns;
    unsigned count;
    unsigned half_open;
};

/* ---- connections */

struct service_conn *service_ref(struct service_conn *conn)
{
    atomic_fetch_add_explicit(&conn->refs, 1, memory_order_relaxed);
    return conn;
}

void service_unref(struct service_conn *conn)
{
    if (atomic_fetch_sub_explicit(&conn->refs, 1, memory_order_acq_rel) > 1)
        return;
    channel_close(&conn->channel);
    close(conn->socket);
    pthread_mutex_destroy(&conn->send);
    free(conn->copy);
    free(conn);
}

void service_set_data(struct service_conn *conn, void *data)
{
    atomic_store_explicit(&conn->data, data, memory_order_release);
}

void *service_data(struct service_conn *conn)
{
    return atomic_load_explicit(&conn->data, memory_order_acquire);
}

/* ---- sending */

const struct identity_peer *service_peer(const struct service_conn *conn)
{
    return &conn->peer;
}

void service_hang_up(struct service_conn *conn)
{
    shutdown(conn->socket, SHUT_RDWR);
}

/* Until the socket has one of the events. */
static int wait_socket(const struct service_conn *conn, short events, int64_t until)
{
    struct pollfd p = {.fd = conn->socket, .events = events};
    int64_t left = until - clock_boot_ms();
    if (left <= 0)
        return -ETIMEDOUT;
    int n = poll(&p, 1, (int)left);
    return n > 0 || (n < 0 && errno == EINTR) ? 0 : n < 0 ? -errno : -ETIMEDOUT;
}

/* With send held, over TLS, whose socket never blocks. */
static int send_encrypted(struct service_conn *conn, struct iovec *iov, int n)
{
    int64_t until = clock_boot_ms() + SERVICE_SEND_DEADLINE_MS;
    int err = 0;
    while (!err && (n > 0 || channel_waiting(&conn->channel))) {
        ssize_t done =
            n > 0 ? channel_send(&conn->channel, iov, n, 0) : channel_flush(&conn->channel);
        if (done > 0) {
            iov_advance(&iov, &n, (size_t)done);
            until = clock_boot_ms() + SERVICE_SEND_DEADLINE_MS;
        }
        err = done == -EAGAIN ? wait_socket(conn, POLLOUT, until) : done < 0 ? (int)done : 0;
    }
    return err;
}

static int send_plain(struct service_conn *conn, struct iovec *iov, int n, int flags)
{
    while (n > 0) {
        ssize_t done = channel_send(&conn->channel, iov, n, flags);
        if (done < 0) /* also EAGAIN: SERVICE_SEND_DEADLINE_MS is over */
            return (int)done;
        iov_advance(&iov, &n, (size_t)done);
    }
    return 0;
}

/* With send held. Sends everything or breaks the connection. */
static int send_all(struct service_conn *conn, struct iovec *iov, int n, int flags)
{
    int err = channel_is_tls(&conn->channel) ? send_encrypted(conn, iov, n)
                                             : send_plain(conn, iov, n, flags);
    if (!err)
        return 0;
    conn->open = false;
    shutdown(conn->socket, SHUT_RDWR);
    return -ENOTCONN;
}

int service_reply(struct service_conn *conn, const struct message *request, int status,
                  const ProtobufCMessage *body, const struct iovec *payload, int payload_n)
{
    if (request->kind == FRAME_NOTIFY)
        return 0;
    if (payload_n < 0 || payload_n > STREAM_IOV_MAX)
        return -EMSGSIZE;
    struct message m = {.kind = FRAME_REPLY,
                        .type = request->type,
                        .id = request->id,
                        .status = status,
                        .payload_len = iov_length(payload, payload_n)};
    struct packed p;
    int err = packed_make(&p, &m, body);
    if (err)
        return err;
    struct iovec iov[STREAM_IOV_MAX + 1];
    iov[0] = (struct iovec){p.bytes, p.length};
    if (payload_n > 0)
        memcpy(iov + 1, payload, (size_t)payload_n * sizeof(*payload));
    pthread_mutex_lock(&conn->send);
    err = conn->open ? send_all(conn, iov, payload_n + 1, 0) : -ENOTCONN;
    pthread_mutex_unlock(&conn->send);
    packed_free(&p);
    return err;
}

static int read_whole(int fd, off_t offset, uint8_t *out, size_t length)
{
    while (length > 0) {
        ssize_t n = pread(fd, out, length, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0) {
            memset(out, 0, length);
            return 0;
        }
        out += n;
        offset += n;
        length -= (size_t)n;
    }
    return 0;
}

/* With send held. Copied: errors of the file come before anything was sent. */
static int send_copied(struct service_conn *conn, struct packed *p, int fd, off_t offset,
                       size_t length)
{
    if (conn->copy_size < length) {
        free(conn->copy);
        conn->copy_size = length <= FILE_COPY_MAX ? FILE_COPY_MAX : FRAME_PAYLOAD_MAX;
        conn->copy = malloc(conn->copy_size);
        if (!conn->copy) {
            conn->copy_size = 0;
            return -ENOMEM;
        }
    }
    int err = read_whole(fd, offset, conn->copy, length);
    if (err)
        return err;
    struct iovec iov[] = {{p->bytes, p->length}, {conn->copy, length}};
    return send_all(conn, iov, 2, 0);
}

/* With send held. The kernel passes the file's pages to the socket. */
static int send_pages(struct service_conn *conn, struct packed *p, int fd, off_t offset,
                      size_t length)
{
    static const uint8_t zeros[64 << 10];
    struct iovec head = {p->bytes, p->length};
    int err = send_all(conn, &head, 1, MSG_MORE);
    while (!err && length > 0) {
        ssize_t n = sendfile(conn->socket, fd, &offset, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) { /* the header is out: there is no way back to a frame's beginning */
            err = -errno;
            conn->open = false;
            shutdown(conn->socket, SHUT_RDWR);
            atomic_store(&conn->service->careful, true);
            return err;
        }
        if (n == 0) {
            n = (ssize_t)(length < sizeof(zeros) ? length : sizeof(zeros));
            struct iovec fill = {(void *)(uintptr_t)zeros, (size_t)n};
            err = send_all(conn, &fill, 1, 0);
        }
        length -= (size_t)n;
    }
    return err;
}

int service_reply_file(struct service_conn *conn, const struct message *request,
                       const ProtobufCMessage *body, int fd, off_t offset, size_t length)
{
    struct message m = {
        .kind = FRAME_REPLY, .type = request->type, .id = request->id, .payload_len = length};
    struct packed p;
    int err = packed_make(&p, &m, body);
    if (err)
        return err;
    pthread_mutex_lock(&conn->send);
    if (!conn->open)
        err = -ENOTCONN;
    else if (length <= FILE_COPY_MAX || channel_is_tls(&conn->channel) ||
             atomic_load_explicit(&conn->service->careful, memory_order_relaxed))
        err = send_copied(conn, &p, fd, offset, length);
    else
        err = send_pages(conn, &p, fd, offset, length);
    pthread_mutex_unlock(&conn->send);
    packed_free(&p);
    return err;
}

int service_error(struct service_conn *conn, const struct message *request, int status,
                  const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    Star__ErrorReply body = STAR__ERROR_REPLY__INIT;
    body.detail = text;
    return service_reply(conn, request, status, &body.base, NULL, 0);
}

/* ---- receiving: one thread for each connection */

/* -EPROTO: garbage. */
static int serve_received(struct service_conn *conn, struct inbox *in)
{
    struct service *s = conn->service;
    struct message m;
    int more;
    while ((more = inbox_next(in, &m)) > 0) {
        if (m.kind == FRAME_REPLY) /* nobody was asked */
            return -EPROTO;
        s->ops.on_request(s->ctx, conn, &m);
    }
    return more;
}

static int wait_readable(const struct service_conn *conn)
{
    struct pollfd p = {.fd = conn->socket, .events = POLLIN};
    return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0; /* service_stop shuts it down */
}

static void serve(struct service_conn *conn)
{
    struct inbox in;
    bool drained;
    int err = 0;
    inbox_init(&in, STREAM_INBOX_LARGE);
    while (!err) {
        ssize_t n = inbox_receive(&in, &conn->channel, 0, &drained);
        if (n == -EAGAIN) /* TLS: outside of its lock */
            err = wait_readable(conn);
        else
            err = n < 0 ? (int)n : serve_received(conn, &in);
    }
    if (err == -EPROTO)
        atomic_fetch_add(&conn->service->garbage, 1);
    inbox_free(&in);
}

/* ---- TLS: the handshake, in the connection's thread */

static int shake_hands(struct service_conn *conn)
{
    int64_t until = clock_boot_ms() + CHANNEL_HANDSHAKE_MS;
    int err;
    while ((err = channel_handshake(&conn->channel, &conn->peer.who)) == -EAGAIN) {
        short out = channel_waiting(&conn->channel) ? POLLOUT : 0;
        err = wait_socket(conn, POLLIN | out, until);
        if (err)
            return err;
    }
    return err;
}

static void refused(struct service_conn *conn, int err)
{
    struct service *s = conn->service;
    char where[64], detail[IDENTITY_DETAIL];
    const char *text = channel_text(&conn->channel);
    if (err == -EPROTO)
        atomic_fetch_add(&s->garbage, 1);
    if (!s->ops.on_refused || atomic_load(&s->stopping))
        return;
    address_peer_text(conn->socket, where);
    snprintf(detail, sizeof(detail), "%s is turned away: %s", where,
             text[0] ? text : strerror(-err));
    s->ops.on_refused(s->ctx, detail);
}

/* 0: whoever it is may be served. */
static int begin(struct service_conn *conn)
{
    struct service *s = conn->service;
    if (!channel_is_tls(&conn->channel))
        return 0;
    int err = shake_hands(conn);
    if (err)
        refused(conn, err);
    pthread_mutex_lock(&s->lock);
    conn->half_open = false;
    s->half_open--;
    pthread_mutex_unlock(&s->lock);
    return err;
}

static void *conn_thread(void *arg)
{
    struct service_conn *conn = arg;
    struct service *s = conn->service;
    pthread_setname_np(pthread_self(), s->name);
    bool begun = begin(conn) == 0;
    if (begun && s->ops.on_open)
        s->ops.on_open(s->ctx, conn);
    if (begun)
        serve(conn);
    shutdown(conn->socket, SHUT_RDWR); /* ends a send of another thread */
    pthread_mutex_lock(&conn->send);
    conn->open = false;
    pthread_mutex_unlock(&conn->send);
    if (begun && s->ops.on_close)
        s->ops.on_close(s->ctx, conn);
    pthread_mutex_lock(&s->lock);
    conn->finished = true;
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- accepting */

static int start_thread(pthread_t *thread, void *(*run)(void *), void *arg)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals belong to the daemon's main thread */
    int err = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -err;
}

static void forget(struct service *s, struct service_conn *conn)
{
    if (conn->prev)
        conn->prev->next = conn->next;
    else
        s->conns = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    s->count--;
}

/* Joins the threads of connections: of those that have ended, or all. */
static void reap(struct service *s, bool all)
{
    pthread_mutex_lock(&s->lock);
    for (struct service_conn *conn = s->conns, *next; conn; conn = next) {
        next = conn->next;
        if (!conn->finished && !all)
            continue;
        forget(s, conn);
        pthread_mutex_unlock(&s->lock); /* only this thread changes the list */
        pthread_join(conn->thread, NULL);
        service_unref(conn);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

static int tune_plain(int fd)
{
    uid_t uid;
    gid_t gid;
    pid_t pid;
    struct timeval patience = {.tv_sec = SERVICE_SEND_DEADLINE_MS / 1000};
    int err = address_peer(fd, &uid, &gid, &pid);
    if (!err && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        err = -errno;
    return err;
}

static int tune_tls(const struct service *s, struct service_conn *conn)
{
    int err = address_tune_tcp(conn->socket);
    if (!err && fcntl(conn->socket, F_SETFL, O_NONBLOCK) < 0)
        err = -errno;
    if (!err)
        err = channel_tls(&conn->channel, s->ops.identity, true, false, NULL);
    conn->peer.tls = conn->half_open = true;
    return err;
}

/* With the lock held. The list has the newest first. */
static void cut_oldest_half_open(struct service *s)
{
    struct service_conn *oldest = NULL;
    for (struct service_conn *conn = s->conns; conn; conn = conn->next)
        if (conn->half_open && !conn->cut)
            oldest = conn;
    if (oldest) {
        oldest->cut = true;
        shutdown(oldest->socket, SHUT_RDWR);
    }
}

static int list_conn(struct service *s, struct service_conn *conn)
{
    pthread_mutex_lock(&s->lock);
    if (conn->half_open && s->half_open >= CHANNEL_HALF_OPEN_MAX)
        cut_oldest_half_open(s);
    int err = start_thread(&conn->thread, conn_thread, conn);
    if (!err) {
        conn->next = s->conns;
        if (s->conns)
            s->conns->prev = conn;
        s->conns = conn;
        s->count++;
        s->half_open += conn->half_open;
    }
    pthread_mutex_unlock(&s->lock);
    return err;
}

static int open_conn(struct service *s, int fd)
{
    struct service_conn *conn =
        s->count < SERVICE_CONNECTIONS_MAX ? calloc(1, sizeof(*conn)) : NULL;
    if (!conn)
        return s->count < SERVICE_CONNECTIONS_MAX ? -ENOMEM : -EBUSY;
    *conn = (struct service_conn){.service = s, .socket = fd, .channel.fd = fd, .open = true};
    atomic_init(&conn->refs, 1);
    pthread_mutex_init(&conn->send, NULL);
    int err = address_is_tcp(s->address) ? tune_tls(s, conn) : tune_plain(fd);
    stream_tune(fd);
    if (!err)
        err = list_conn(s, conn);
    if (err) {
        channel_close(&conn->channel);
        pthread_mutex_destroy(&conn->send);
        free(conn);
    }
    return err;
}

static void *accept_thread(void *arg)
{
    struct service *s = arg;
    struct pollfd fds[] = {{.fd = s->listener.fd, .events = POLLIN},
                           {.fd = s->wake, .events = POLLIN}};
    pthread_setname_np(pthread_self(), s->name);
    while (!atomic_load(&s->stopping)) {
        int fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC);
        int err = fd < 0 ? -errno : 0;
        reap(s, false);
        if (fd >= 0 && open_conn(s, fd) < 0)
            close(fd);
        if (err == -EAGAIN)
            poll(fds, 2, -1);
        else if (err && err != -EINTR && err != -ECONNABORTED)
            poll(fds + 1, 1, ACCEPT_PAUSE_MS);
    }
    return NULL;
}

/* ---- start and stop */

static void service_free(struct service *s)
{
    if (s->listener.fd >= 0)
        address_close(s->address, &s->listener);
    if (s->wake >= 0)
        close(s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s->address);
    free(s);
}

int service_start(const char *address, const char *name, const struct service_ops *ops, void *ctx,
                  struct service **out)
{
    int err = address_check(address);
    if (!err && address_is_tcp(address) && !ops->identity)
        err = -ENOKEY;
    struct service *s = err ? NULL : calloc(1, sizeof(*s));
    if (!s)
        return err ? err : -ENOMEM;
    s->ops = *ops;
    s->ctx = ctx;
    s->listener.fd = -1;
    snprintf(s->name, sizeof(s->name), "%s", name ? name : "service");
    pthread_mutex_init(&s->lock, NULL);
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->wake < 0)
        err = -errno;
    s->address = strdup(address);
    if (!err)
        err = s->address ? address_listen(address, &s->listener) : -ENOMEM;
    if (!err)
        err = start_thread(&s->acceptor, accept_thread, s);
    if (err)
        service_free(s);
    else
        *out = s;
    return err;
}

void service_stop(struct service *s)
{
    if (!s)
        return;
    uint64_t one = 1;
    atomic_store(&s->stopping, true);
    ssize_t ignored = write(s->wake, &one, sizeof(one)); /* cannot be full: nobody else writes */
    (void)ignored;
    pthread_join(s->acceptor, NULL);
    pthread_mutex_lock(&s->lock);
    for (struct service_conn *conn = s->conns; conn; conn = conn->next)
        shutdown(conn->socket, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    reap(s, true);
    service_free(s);
}

int service_bound(const struct service *s, char *out)
{
    return address_bound(&s->listener, out);
}

void service_each(struct service *s, void (*f)(void *arg, struct service_conn *conn), void *arg)
{
    pthread_mutex_lock(&s->lock);
    for (struct service_conn *conn = s->conns; conn; conn = conn->next)
        if (!conn->half_open && !conn->finished)
            f(arg, conn);
    pthread_mutex_unlock(&s->lock);
}

uint64_t service_garbage(const struct service *s)
{
    return atomic_load(&((struct service *)(uintptr_t)s)->garbage);
}
