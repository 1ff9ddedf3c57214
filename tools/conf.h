/*
 * umbel.conf: what a cloud on this machine is. "key = value" lines, '#' comments.
 */
#ifndef UMBEL_TOOLS_CONF_H
#define UMBEL_TOOLS_CONF_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

/* Grows when an older `umbel` would misunderstand what lies under a root. */
#define CONF_FORMAT       1
#define CONF_DETAIL       512
#define CONF_NODES_MAX    64
#define CONF_CAPACITY_MIN (64ull << 20) /* below, staging one full pack would fill a node */

struct conf {
    uint64_t format;
    char cloud[64];          /* a random UUID */
    char pool[PATH_MAX + 8]; /* URL */
    uint64_t nodes, controls;
    uint64_t capacity; /* bytes, of each node */
    char listen[300];  /* "HOST:PORT" for other machines; "": none */
    bool seal;         /* packs are encrypted: for the life of the cloud */
};

/* -ENOENT; -EPROTONOSUPPORT: of a newer format; -EINVAL and others, told in detail. */
int conf_read(const char *path, struct conf *c, char detail[CONF_DETAIL]);

/* Replaces path at once and for good (written, synced, renamed). */
int conf_write(const char *path, const struct conf *c, char detail[CONF_DETAIL]);

/* Replaces the file at once and for good, readable for its owner alone. -errno. */
int conf_replace_file(const char *path, const char *text);

/* A new random UUID. */
int conf_new_cloud(char out[64]);

#endif
