/*
 * What the files of the pool share. Nothing here is for other rooms.
 */
#ifndef UMBEL_POOL_INTERNAL_H
#define UMBEL_POOL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "nodecache/pool/pool.h"

#define PACK_NAME 32 /* bytes for "packs/XX/XXXXXXXXXXXXXXXX" */

struct pool {
    const struct pool_driver *driver;
    void *ctx;        /* set once: before the pool is used, or when it is no longer away */
    atomic_bool here; /* ctx is set */
    char *rest;       /* of the URL */
    char *cloud;      /* or NULL: any */
    pthread_mutex_t lock;
    char why[POOL_DETAIL]; /* it is away; under the lock */
};

extern const struct pool_driver pool_dir, pool_nfs;

/* pool_open() with a driver that stands in no table (tests bring one that keeps objects in memory).
 */
int pool_open_driver(const struct pool_driver *driver, const char *rest_of_url, const char *cloud,
                     bool create, struct pool **out, char *detail);

/* 0, or -EIO while it is away: asked before each call of the driver that begins something. */
int pool_here(struct pool *p, char *detail);

/* As pool_record_key(), for any run: kind and number as in its pages' associated data. */
int pool_run_key(const struct pool_key *pack, uint32_t kind, uint32_t number, struct pool_key *out);

void pack_name(uint64_t pack, char name[PACK_NAME]);

/* Writes the line into detail (if there is one) and returns error, which is -errno. */
int pool_fail(char *detail, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
