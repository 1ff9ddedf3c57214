/*
 * A node: stages and caches file data in a flat-file store, flushes it to the pool, serves mounts.
 */
#ifndef UMBEL_NODE_H
#define UMBEL_NODE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct node_options {
    const char *name;  /* "node-1" */
    const char *store; /* folder of the flat-file store; created at first start */
    /* Where mounts reach it; one may be NULL. tcp needs the identity, as does a centre elsewhere.
     */
    const char *listen;     /* "unix:/path" */
    const char *listen_tcp; /* "tcp:HOST:PORT", as others reach it */
    const char *identity; /* folder of our certificate (identity.h); NULL: all is on this machine */
    const char *centre;   /* address of the centre */
    const char *pool;     /* pool URL */
    const char *cloud;    /* cloud id */
    const char *jobs_mount; /* where the cloud is mounted on this machine; NULL: no jobs here */
    uint64_t capacity;      /* bytes: a hard limit for everything that the store keeps on disk */
    int ready_fd; /* >= 0: "ready\n" or "error: TEXT\n" is written there once, then it is closed */
    const char *pid_file; /* written when ready, removed at the end; may be NULL */
};

/* In the store of a node that is in its cloud no more: one line that says why. */
#define NODE_GONE_FILE "gone"

/* After NODE_END_JOBS it takes no jobs for so long: then whoever has sent it has given up. */
#define NODE_JOBS_PAUSE_MS 60000
/* The signal that makes a node end its runs of jobs, as the cloud's mount is about to go. */
#define NODE_END_JOBS SIGUSR1

/* Runs until SIGTERM or SIGINT, then stops cleanly (staged data stays staged). 0 or -errno; the
 * reason was logged and told to ready_fd. It also ends, with 0, when it is released: the store is
 * empty then; and with -ENODEV when the cloud has given it up. */
int node_run(const struct node_options *options);

#endif
