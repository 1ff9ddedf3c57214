/*
 * A pool driver that keeps its objects in memory, for tests: they can look at the bytes, damage
 * them, make calls fail, and count what is read. Reading is thread-safe, everything else is not.
 */
#ifndef UMBEL_TESTS_POOL_MEMORY_H
#define UMBEL_TESTS_POOL_MEMORY_H

#include "nodecache/pool/pool_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct memory_object {
    struct memory_object *next;
    struct memory_pool *pool;
    char name[64];
    uint8_t *bytes;
    size_t size, capacity;
    uint8_t *lent; /* the place that was handed out, of lends bytes */
};

struct memory_pool {
    struct memory_object *objects;
    size_t room;      /* bytes that fit in; 0: any number */
    int finish_error; /* what finish returns */
    size_t lends;     /* it has places of so many bytes for a writer (memory_lender; set it when the
                         pool is open) */
    uint64_t read_calls, read_bytes;
    bool count_reads;
};

static inline struct memory_object *memory_find(struct memory_pool *m, const char *name)
{
    struct memory_object *o = m->objects;
    while (o != NULL && strcmp(o->name, name) != 0)
        o = o->next;
    return o;
}

/* rest is the address of a struct memory_pool. */
static inline int memory_open(const char *rest, bool create, void **ctx, char *detail)
{
    uintptr_t address;
    (void)create;
    if (sscanf(rest, "%" SCNxPTR, &address) != 1)
        return pool_fail(detail, -EINVAL, "no address");
    memcpy(ctx, &address, sizeof address);
    return 0;
}

static inline void memory_close(void *ctx)
{
    (void)ctx;
}

static inline int memory_create(void *ctx, const char *name, void **object, char *detail)
{
    struct memory_pool *m = ctx;
    if (memory_find(m, name) != NULL)
        return pool_fail(detail, -EEXIST, "exists");
    struct memory_object *o = calloc(1, sizeof *o);
    if (o == NULL)
        return -ENOMEM;
    snprintf(o->name, sizeof o->name, "%s", name);
    o->pool = m;
    o->next = m->objects;
    m->objects = o;
    *object = o;
    return 0;
}

static inline int memory_append(void *object, const void *data, size_t len, char *detail)
{
    struct memory_object *o = object;
    if (o->pool->room != 0 && len > o->pool->room - o->size)
        return pool_fail(detail, -ENOSPC, "no room");
    if (o->size + len > o->capacity) { /* in steps that grow: a sanitizer copies at each */
        size_t capacity = (o->size + len) * 2;
        uint8_t *bytes = realloc(o->bytes, capacity);
        if (bytes == NULL)
            return -ENOMEM;
        o->bytes = bytes;
        o->capacity = capacity;
    }
    if (o->pool->lends != 0 && (data != o->lent || len > o->pool->lends))
        return pool_fail(detail, -EINVAL, "not what was lent");
    memcpy(o->bytes + o->size, data, len);
    o->size += len;
    free(o->lent);
    o->lent = NULL;
    return 0;
}

/* A fresh one each time: what is put into an older one is seen by a sanitizer. */
static inline int memory_room(void *object, void **at, size_t *len, char *detail)
{
    struct memory_object *o = object;
    free(o->lent);
    o->lent = malloc(o->pool->lends);
    *at = o->lent;
    *len = o->pool->lends;
    return o->lent != NULL ? 0 : pool_fail(detail, -ENOMEM, "no memory");
}

static inline int memory_remove(void *ctx, const char *name, char *detail)
{
    struct memory_pool *m = ctx;
    (void)detail;
    for (struct memory_object **at = &m->objects; *at != NULL; at = &(*at)->next) {
        struct memory_object *o = *at;
        if (strcmp(o->name, name) != 0)
            continue;
        *at = o->next;
        free(o->bytes);
        free(o->lent);
        free(o);
        return 0;
    }
    return 0;
}

static inline void memory_abandon(void *object)
{
    struct memory_object *o = object;
    memory_remove(o->pool, o->name, NULL);
}

static inline int memory_finish(void *object, char *detail)
{
    struct memory_object *o = object;
    int rc = o->pool->finish_error;
    if (rc != 0) {
        pool_fail(detail, rc, "finish");
        memory_abandon(o);
    }
    return rc;
}

static inline ssize_t memory_read(void *ctx, const char *name, uint64_t offset, struct iovec *iov,
                                  int count, char *detail)
{
    struct memory_pool *m = ctx;
    const struct memory_object *o = memory_find(m, name);
    size_t done = 0;

    if (o == NULL)
        return pool_fail(detail, -ENOENT, "no object %s", name);
    for (int i = 0; i < count && offset + done < o->size; i++) {
        size_t rest = o->size - offset - done;
        size_t part = iov[i].iov_len < rest ? iov[i].iov_len : rest;
        memcpy(iov[i].iov_base, o->bytes + offset + done, part);
        done += part;
    }
    if (m->count_reads) {
        m->read_calls++;
        m->read_bytes += done;
    }
    return (ssize_t)done;
}

static inline int memory_size(void *ctx, const char *name, uint64_t *size, char *detail)
{
    const struct memory_object *o = memory_find(ctx, name);
    if (o == NULL)
        return pool_fail(detail, -ENOENT, "no object %s", name);
    *size = o->size;
    return 0;
}

static inline int memory_list(void *ctx, const char *folder,
                              bool (*fn)(void *arg, const char *name), void *arg, char *detail)
{
    const struct memory_pool *m = ctx;
    size_t len = strlen(folder);
    (void)detail;
    for (const struct memory_object *o = m->objects; o != NULL; o = o->next) {
        if (strncmp(o->name, folder, len) == 0 && o->name[len] == '/' &&
            !fn(arg, o->name + len + 1))
            break;
    }
    return 0;
}

static inline int memory_statvfs(void *ctx, struct statvfs *out, char *detail)
{
    (void)ctx;
    (void)detail;
    memset(out, 0, sizeof *out);
    return 0;
}

static const struct pool_driver memory_driver = {
    .scheme = "memory",
    .open = memory_open,
    .close = memory_close,
    .create = memory_create,
    .append = memory_append,
    .finish = memory_finish,
    .abandon = memory_abandon,
    .read = memory_read,
    .size = memory_size,
    .remove = memory_remove,
    .list = memory_list,
    .statvfs = memory_statvfs,
};

/* The same, with places for a writer. */
static inline struct pool_driver memory_lender(void)
{
    struct pool_driver d = memory_driver;
    d.room = memory_room;
    return d;
}

/* A pool over m, as of cloud "test". */
static inline int memory_pool_open(struct memory_pool *m, struct pool **out, char *detail)
{
    char address[32];
    snprintf(address, sizeof address, "%" PRIxPTR, (uintptr_t)m);
    return pool_open_driver(&memory_driver, address, "test", true, out, detail);
}

static inline void memory_pool_free(struct memory_pool *m)
{
    while (m->objects != NULL)
        memory_remove(m, m->objects->name, NULL);
}

#endif
