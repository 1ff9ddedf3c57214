/*
 * The centre: one control process (a raft group of one voter here).
 */
#ifndef UMBEL_CONTROL_H
#define UMBEL_CONTROL_H

#include <stdint.h>

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
};

/* Runs until SIGTERM or SIGINT. 0; -errno: it could not start. When it cannot go on with its log it
 * ends the process with status 1: nothing of it may be used any more. */
int control_run(const struct control_options *options);

#endif
