/*
 * The pool as this mount reaches it, opened when it is first needed.
 */
#ifndef UMBEL_FS_POOL_ACCESS_H
#define UMBEL_FS_POOL_ACCESS_H

#include <stdint.h>

#include "nodecache/pool/pool.h"

struct pool_access;

int pool_access_new(const char *cloud, struct pool_access **out);
void pool_access_free(struct pool_access *a);
/* The URL as the centre said it last. */
void pool_access_url(struct pool_access *a, const char *url);
/* May wait for the pool, so only in threads that may. -EIO and others, with one line in detail
 * (POOL_DETAIL bytes): it is away; then it is looked for again at most every POOL_LOOK_MS. */
int pool_access_get(struct pool_access *a, struct pool **out, char *detail);
#define POOL_LOOK_MS 1000

#endif
