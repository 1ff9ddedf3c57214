/*
 * One connection to an NFS server, on libnfs' raw asynchronous calls and a poll loop of our own.
 *
 * What libnfs 4.0.0 does, and what is done about it here:
 * - A context is for one thread at a time, and contexts share static counters that are set when one
 *   is made and when it connects: both happen under one lock (pool_nfs_rpc.c).
 * - It has no deadlines that hold: connecting, and waiting for a reply, are bounded here by poll().
 * - Its own reconnecting changes the descriptor behind one's back and sends calls again without
 *   end: never enabled. A connection that failed once is destroyed, with all its calls.
 * - Destroying a context calls back every call in flight: it is done before the waiting function
 *   returns, while what the callbacks write to is still there.
 * - It looks host names up without a deadline: it gets numeric addresses only.
 * - It leaves Nagle's algorithm on, which costs 40 ms now and then: turned off once connected.
 * - Lengths in replies may exceed what was asked for: each is checked here before it is used.
 *
 * Errors: -errno. Two are of the connection and not of the file: -ETIMEDOUT (no reply) and
 * -ECONNRESET (broken); then the connection is gone (np_conn_ok) and `why` says why. -EAGAIN: the
 * server asks to be asked later (JUKEBOX).
 */
#ifndef UMBEL_POOL_NFS_RPC_H
#define UMBEL_POOL_NFS_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/statvfs.h>

#include "nodecache/pool/pool_nfs_url.h"

#define NFS_FH_MAX 64 /* NFS3_FHSIZE */
/* Without any reply for so long, a connection is given up. A server that works answers within
 * milliseconds; a COMMIT may wait for the disk. */
#define NFS_REPLY_MS  10000
#define NFS_COMMIT_MS 30000
/* Connecting, and the first reply on it. */
#define NFS_CONNECT_MS 3000

struct np_fh {
    uint32_t len;
    char data[NFS_FH_MAX];
};

/* A file or a folder, as the server last showed it. */
struct np_file {
    struct np_fh fh;
    bool known; /* what follows */
    bool folder;
    uint64_t fsid, fileid, size;
};

struct rpc_context;
struct np_conn {
    struct np_conn *next;
    struct rpc_context *rpc; /* NULL: it is gone */
    unsigned pending;        /* calls without a reply */
    int64_t progress;        /* np_now_ms() of the last reply */
    bool linked;             /* it is connected */
    bool refused;            /* a call, by RPC itself: it is of no use */
    char why[160];
};

int64_t np_now_ms(void);

/* By which program's NULL call a new connection is tried out. */
enum np_greeting { NFS_GREET_NFS, NFS_GREET_MOUNT, NFS_GREET_NOT };
/* address: numeric. Waits up to ms for the connection and one answer on it. */
int np_conn_open(const struct np_url *url, const char *address, uint16_t port,
                 enum np_greeting greeting, int ms, struct np_conn **out, char *detail);
void np_conn_close(struct np_conn *c);
bool np_conn_ok(const struct np_conn *c);
/* Nothing came that nobody asked for, in particular not its end. For a connection at rest. */
bool np_conn_alive(struct np_conn *c);
/* Sends and takes what can be had at once. */
int np_conn_push(struct np_conn *c);
/* Runs it until at most `left` calls are pending. Ends with an error after ms without a reply. */
int np_conn_run(struct np_conn *c, unsigned left, int ms);

/* Before a call that the caller queues itself, and what each callback does first: true if the reply
 * may be looked at, else *rc is set. */
int np_call_queued(struct np_conn *c, int queued);
bool np_call_replied(struct np_conn *c, int status, int *rc);
/* Of an nfsstat3. */
int np_error(int status);

/* ---- pool_nfs_calls.c: one call each, and its reply */

int np_lookup(struct np_conn *c, const struct np_fh *dir, const char *name, struct np_file *out);
int np_getattr(struct np_conn *c, const struct np_fh *fh, struct np_file *out);
/* Exclusive, by a verifier: the same call again finds the file that the first one made. Mode 0600.
 */
int np_create(struct np_conn *c, const struct np_fh *dir, const char *name, const char verifier[8],
              struct np_file *out);
/* Mode 0700. */
int np_mkdir(struct np_conn *c, const struct np_fh *dir, const char *name);
int np_remove(struct np_conn *c, const struct np_fh *dir, const char *name);
struct np_sizes {
    uint32_t read, write; /* most bytes of one call */
};
int np_fsinfo(struct np_conn *c, const struct np_fh *fh, struct np_sizes *out);
int np_fsstat(struct np_conn *c, const struct np_fh *fh, struct statvfs *out);

/* A folder's names, one part of them by each call. */
struct np_names {
    char *names; /* one after the other, each with its NUL */
    size_t used, room, count;
    uint64_t cookie;
    char verifier[8];
    bool eof;
};
int np_readdir(struct np_conn *c, const struct np_fh *dir, struct np_names *n);

/* MOUNT3's MNT. */
int np_mnt(struct np_conn *c, const char *path, struct np_fh *out);
/* The port of MOUNT3 by the portmapper at address. */
int np_mount_port(const struct np_url *url, const char *address, uint16_t *port, char *detail);

#endif
