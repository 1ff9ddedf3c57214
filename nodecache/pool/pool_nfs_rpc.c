/* Connections on libnfs' raw calls; see the header for what it is that is worked around. */
#include "nodecache/pool/pool_nfs_rpc.h"
#include "nodecache/pool/pool_internal.h"
#include "nodecache/pool/pool_nfs_libnfs.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* Guards libnfs' static counters (of transactions and of reserved ports), nothing of ours. Not held
 * across anything that waits. */
static pthread_mutex_t libnfs_lock = PTHREAD_MUTEX_INITIALIZER;

int64_t np_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool np_conn_ok(const struct np_conn *c)
{
    return c->rpc != NULL;
}

/* Every call in flight is called back before this returns. */
static int gone(struct np_conn *c, int error, const char *why)
{
    struct rpc_context *rpc = c->rpc;

    snprintf(c->why, sizeof c->why, "%s", why);
    c->rpc = NULL;
    if (rpc != NULL)
        rpc_destroy_context(rpc);
    c->pending = 0;
    return error;
}

static int broken(struct np_conn *c, const char *otherwise)
{
    char why[sizeof c->why];
    const char *said = rpc_get_error(c->rpc);

    snprintf(why, sizeof why, "%s", said != NULL ? said : otherwise);
    return gone(c, -ECONNRESET, why);
}

int np_call_queued(struct np_conn *c, int queued)
{
    if (queued != 0)
        return gone(c, -ENOMEM, "no memory for a call");
    c->pending++;
    return 0;
}

bool np_call_replied(struct np_conn *c, int status, int *rc)
{
    if (c->pending > 0)
        c->pending--;
    c->progress = np_now_ms();
    c->refused = c->refused || status == RPC_STATUS_ERROR;
    *rc = status == RPC_STATUS_SUCCESS ? 0 : -ECONNRESET;
    return *rc == 0;
}

int np_error(int status)
{
    switch (status) {
    case NFS3ERR_DQUOT:
        return -EDQUOT;
    case NFS3ERR_BADHANDLE:
        return -ESTALE;
    case NFS3ERR_NOTSUPP:
        return -EOPNOTSUPP;
    default:
        return nfsstat3_to_errno(status);
    }
}

static int serve(struct np_conn *c, short events)
{
    if (rpc_service(c->rpc, events) < 0)
        return broken(c, "the server closed the connection");
    return c->refused ? gone(c, -ECONNRESET, "the server refuses the call itself (by its RPC)") : 0;
}

/* One turn; until: np_now_ms(). */
static int turn(struct np_conn *c, int64_t until)
{
    int64_t left = until - np_now_ms();
    struct pollfd p = {.fd = rpc_get_fd(c->rpc), .events = (short)rpc_which_events(c->rpc)};
    int n;

    if (left <= 0)
        return -ETIMEDOUT;
    n = poll(&p, 1, (int)left);
    if (n < 0)
        return errno == EINTR ? 0 : broken(c, "poll fails");
    return n > 0 ? serve(c, p.revents) : 0;
}

int np_conn_push(struct np_conn *c)
{
    struct pollfd p = {0};

    if (c->rpc == NULL)
        return -ECONNRESET;
    p.fd = rpc_get_fd(c->rpc);
    p.events = (short)rpc_which_events(c->rpc);
    return poll(&p, 1, 0) > 0 ? serve(c, p.revents) : 0;
}

int np_conn_run(struct np_conn *c, unsigned left, int ms)
{
    char why[64];
    int rc = 0;

    if (c->rpc == NULL)
        return -ECONNRESET;
    c->progress = np_now_ms();
    while (rc == 0 && c->pending > left)
        rc = turn(c, c->progress + ms);
    if (rc != -ETIMEDOUT)
        return rc;
    snprintf(why, sizeof why, "no reply within %d s", ms / 1000);
    return gone(c, rc, why);
}

bool np_conn_alive(struct np_conn *c)
{
    struct pollfd p = {.events = POLLIN};

    if (c->rpc == NULL || c->pending > 0)
        return false;
    p.fd = rpc_get_fd(c->rpc);
    return poll(&p, 1, 0) == 0;
}

static void connected(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct np_conn *c = arg;

    (void)rpc, (void)data;
    c->linked = status == RPC_STATUS_SUCCESS;
}

static void null_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct np_conn *c = arg;
    int rc;

    (void)rpc, (void)data;
    (void)np_call_replied(c, status, &rc); /* the turn sees that it was refused */
}

static int start(struct np_conn *c, const struct np_url *url, const char *address, uint16_t port)
{
    int rc = -ENOMEM;

    pthread_mutex_lock(&libnfs_lock);
    c->rpc = rpc_init_context();
    if (c->rpc != NULL) {
        if (url->uid >= 0)
            rpc_set_uid(c->rpc, (int)url->uid);
        if (url->gid >= 0)
            rpc_set_gid(c->rpc, (int)url->gid);
        rc = rpc_connect_async(c->rpc, address, port, connected, c);
    }
    pthread_mutex_unlock(&libnfs_lock);
    if (c->rpc == NULL)
        return gone(c, rc, "no memory for a connection");
    return rc == 0 ? 0 : broken(c, "connecting fails");
}

/* Until the program has answered once: a frozen server still takes connections. */
static int greet(struct np_conn *c, enum np_greeting greeting, int64_t until)
{
    int one = 1, rc = 0;

    while (rc == 0 && !c->linked)
        rc = turn(c, until);
    if (rc == 0) {
        setsockopt(rpc_get_fd(c->rpc), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (greeting == NFS_GREET_NFS)
            rc = np_call_queued(c, rpc_nfs3_null_async(c->rpc, null_reply, c));
        else if (greeting == NFS_GREET_MOUNT)
            rc = np_call_queued(c, rpc_mount3_null_async(c->rpc, null_reply, c));
    }
    while (rc == 0 && c->pending > 0)
        rc = turn(c, until);
    if (rc == -ETIMEDOUT)
        return gone(c, rc, "no answer");
    if (rc == -ECONNRESET && c->refused)
        rc = gone(c, -EPROTONOSUPPORT,
                  greeting == NFS_GREET_MOUNT ? "what listens there does not speak MOUNT version 3"
                                              : "what listens there does not speak NFS version 3");
    return rc;
}

int np_conn_open(const struct np_url *url, const char *address, uint16_t port,
                 enum np_greeting greeting, int ms, struct np_conn **out, char *detail)
{
    struct np_conn *c = calloc(1, sizeof *c);
    int rc;

    if (c == NULL)
        return pool_fail(detail, -ENOMEM, "no memory for a connection");
    rc = start(c, url, address, port);
    if (rc == 0)
        rc = greet(c, greeting, np_now_ms() + ms);
    if (rc == 0) {
        *out = c;
        return 0;
    }
    pool_fail(detail, rc, "the pool's NFS server %.80s, port %u%s: %.120s", url->host, port,
              greeting == NFS_GREET_MOUNT ? " (mount)" : "", c->why);
    np_conn_close(c);
    return rc;
}

void np_conn_close(struct np_conn *c)
{
    if (c == NULL)
        return;
    gone(c, 0, "");
    free(c);
}
