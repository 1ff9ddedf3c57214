/*
 * The centre: one control process (a raft group of one voter here).
 */
#ifndef UMBEL_CONTROL_H
#define UMBEL_CONTROL_H

#include <stdint.h>

/* Keys of a sealed cloud, by generation of the cloud's key. The centre derives and hands out; how
 * they are kept and derived is the caller's. Called by the loop, so quick; 0 or -errno (-ENOKEY: no
 * such generation). */
#define CONTROL_KEY 32
struct control_keys {
    void *ctx;
    const char *file; /* where they are kept, for people */
    /* Under which new packs are sealed; 0: it cannot be told now. */
    uint32_t (*newest)(void *ctx);
    int (*pack)(void *ctx, uint32_t generation, uint64_t pack, uint8_t key[CONTROL_KEY]);
    int (*record)(void *ctx, const uint8_t pack_key[CONTROL_KEY], uint32_t number,
                  uint8_t key[CONTROL_KEY]);
};

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
    const struct control_keys *keys; /* NULL: the cloud is unsealed */
};

/* Runs until SIGTERM or SIGINT. 0; -errno: it could not start. When it cannot go on with its log it
 * ends the process with status 1: nothing of it may be used any more. */
int control_run(const struct control_options *options);

#endif
