/*
 * What the files of the pool share. Nothing here is for other rooms.
 */
#ifndef UMBEL_POOL_INTERNAL_H
#define UMBEL_POOL_INTERNAL_H

#include "nodecache/pool/pool.h"

#define PACK_NAME 32 /* bytes for "packs/XX/XXXXXXXXXXXXXXXX" */

struct pool {
    const struct pool_driver *driver;
    void *ctx;
};

extern const struct pool_driver pool_dir;

/* pool_open() with a driver that stands in no table (tests bring one that keeps objects in memory).
 */
int pool_open_driver(const struct pool_driver *driver, const char *rest_of_url, const char *cloud,
                     bool create, struct pool **out, char *detail);

void pack_name(uint64_t pack, char name[PACK_NAME]);

/* Writes the line into detail (if there is one) and returns error, which is -errno. */
int pool_fail(char *detail, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
