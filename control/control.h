/*
 * The centre: one control process (a raft group of one voter here).
 */
#ifndef UMBEL_CONTROL_H
#define UMBEL_CONTROL_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

/* Keys of a sealed cloud, by generation of the cloud's key. The centre derives and hands out; how
 * they are kept, derived and wrapped for the recovery key is the caller's. Called by the loop, so
 * quick (changes sync a small file, and are rare); 0 or -errno (-ENOKEY: no such generation). */
#define CONTROL_KEY         32
#define CONTROL_KEYS_DETAIL 256
struct control_wrapped {
    uint32_t serial;
    size_t len;
    uint8_t data[4096];
};
struct control_keys {
    void *ctx;
    const char *file; /* where they are kept, for people */
    /* Under which new packs are sealed; 0: it cannot be told now. */
    uint32_t (*newest)(void *ctx);
    int (*pack)(void *ctx, uint32_t generation, uint64_t pack, uint8_t key[CONTROL_KEY]);
    int (*record)(void *ctx, const uint8_t pack_key[CONTROL_KEY], uint32_t number,
                  uint8_t key[CONTROL_KEY]);
    /* 1: the pool lacks these, as far as is known; 0: it lacks none. out may be NULL. */
    int (*wrapped)(void *ctx, struct control_wrapped *out);
    /* The pool has them on stable storage. Only now a new generation becomes the newest. */
    int (*stored)(void *ctx, uint32_t serial);
    /* A new generation; another recovery key, of which only this (a text) is needed. Wrapped next.
     */
    int (*rotate)(void *ctx, char detail[CONTROL_KEYS_DETAIL]);
    int (*replace)(void *ctx, const char *lock, char detail[CONTROL_KEYS_DETAIL]);
    /* Public half of the recovery key, for comparing; "none". */
    void (*recovery)(void *ctx, char text[72]);
};

struct hv_local_options;

/* Nodes that the centre may start when jobs need them. */
struct control_nodes {
    const struct hv_local_options *local; /* processes on this machine (hv_local.h) */
    uint64_t capacity;                    /* bytes that the store of each may take, at most */
};

/* The signal that tells a control process that its cloud is about to be stopped: it starts no nodes
 * for a while. */
#define CONTROL_HOLD SIGUSR1

struct control_options {
    const char *name;   /* "control-1" */
    const char *dir;    /* log/, snapshots and state/; created at first start */
    const char *listen; /* "unix:/path" */
    const char *cloud;  /* cloud id */
    const char *pool;   /* pool URL: handed to nodes and mounts, never touched here */
    uint64_t reserve;   /* bytes to keep free under the log; 0: CONTROL_RESERVE_DEFAULT */
    /* For other machines; all three, or none. */
    const char *listen_tcp; /* "tcp:HOST:PORT" */
    const char *identity;   /* folder of our certificate (identity.h) */
    const char *authority;  /* folder of the cloud's authority, to let others join */
    int ready_fd;           /* as node_options */
    const char *pid_file;
    const struct control_keys *keys;   /* NULL: the cloud is unsealed */
    const struct control_nodes *nodes; /* NULL: it starts none */
};

/* Runs until SIGTERM or SIGINT. 0; -errno: it could not start. When it cannot go on with its log it
 * ends the process with status 1: nothing of it may be used any more. */
int control_run(const struct control_options *options);

#endif
