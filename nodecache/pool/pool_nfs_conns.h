/*
 * The connections to one NFS server: a bounded number, each lent to one thread at a time, and what
 * is known about whether the server is there.
 *
 * The server is here or away. It goes away when it cannot be reached or does not answer; then one
 * caller at a time tries it again, with back-off, and the others wait for what it finds: for
 * NFS_AWAY_GRACE_MS from the moment it went away (a patient one until its own deadline), after that
 * they fail at once. So a dead server costs a caller a bounded time once, not every caller its
 * whole deadline.
 *
 * Threads: any. One lock, never held across anything that waits for the network.
 */
#ifndef UMBEL_POOL_NFS_CONNS_H
#define UMBEL_POOL_NFS_CONNS_H

#include <pthread.h>

#include "nodecache/pool/pool.h"
#include "nodecache/pool/pool_nfs_rpc.h"

/* A node has FLUSH_THREADS * 2 writers, FETCH_THREADS and its mounts' readers. */
#define NFS_CONNS_MAX 32
/* Objects being written keep theirs; the rest is for calls, so that a writer that also reads (gc)
 * cannot starve itself. */
#define NFS_WRITERS_MAX 24
#define NFS_IDLE_MAX    8
/* Long enough for a restart of the server; short enough for a reader that has other copies. */
#define NFS_AWAY_GRACE_MS  10000
#define NFS_BACKOFF_MIN_MS 200
#define NFS_BACKOFF_MAX_MS 2000
/* What a resolver takes at most by default is 2 tries of 5 s. */
#define NFS_RESOLVE_MS 5000

/* What a call returns while the server is away. */
#define NFS_AWAY (-EHOSTDOWN)

struct np_resolving;
struct np_conns {
    const struct np_url *url;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct np_conn *idle;
    unsigned open, idle_n, writers;
    bool trying;
    int64_t away_since; /* np_now_ms(); 0: it is here */
    int64_t next_try;
    int backoff_ms;
    char why[POOL_DETAIL];
    struct np_resolving *resolving; /* a look-up that has not ended */
};

int np_conns_init(struct np_conns *s, const struct np_url *url);
/* Nothing is lent. */
void np_conns_destroy(struct np_conns *s);

/* Waits until the deadline (np_now_ms). writer: it is kept for an object's life. NFS_AWAY with the
 * reason; -ETIMEDOUT: all are in use. */
int np_conns_get(struct np_conns *s, int64_t deadline, bool patient, bool writer,
                 struct np_conn **out, char *detail);
/* One that is gone, or broken, is closed, with all that lie idle: they lead to the same server. */
void np_conns_put(struct np_conns *s, struct np_conn *c, bool writer, bool good);
/* It does not answer, says c (which is then put). */
void np_conns_away(struct np_conns *s, const struct np_conn *c);
/* One more, not counted, which the caller closes: for MOUNT, and for the first look. */
int np_conns_extra(struct np_conns *s, uint16_t port, enum np_greeting greeting,
                   struct np_conn **out, char *detail);
/* The server's address as libnfs may have it; buf: 64 bytes. */
int np_conns_address(struct np_conns *s, char buf[64], char *detail);

#endif
