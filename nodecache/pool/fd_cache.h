/*
 * Open descriptors of objects for reading, for the dir: driver: few, the least recently used goes
 * first, and none is kept long unused, as a descriptor of a removed object holds its space. Any
 * number of threads; the lock is never held across a system call that may block.
 */
#ifndef UMBEL_FD_CACHE_H
#define UMBEL_FD_CACHE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define FD_CACHE_SLOTS  32
#define FD_CACHE_NAME   48 /* objects with longer names are not cached */
#define FD_CACHE_IDLE_S 10 /* closed at the next use of the cache after that time */

struct fd_slot {
    char name[FD_CACHE_NAME]; /* empty: free */
    int fd;
    dev_t dev; /* which file that is */
    ino_t ino;
    unsigned users;
    bool stale; /* closed by its last user; no longer found */
    int64_t used_ns;
};

struct fd_cache {
    pthread_mutex_t lock;
    struct fd_slot slots[FD_CACHE_SLOTS];
};

/* A descriptor in use. */
struct fd_use {
    int fd;
    dev_t dev;
    ino_t ino;
    int slot;   /* -1: it is not in the cache */
    bool fresh; /* just opened: what it says is not out of date */
};

int fd_cache_init(struct fd_cache *c);
void fd_cache_destroy(struct fd_cache *c);
/* Opens name below root, or finds it open. -errno. Each success needs a put. */
int fd_cache_get(struct fd_cache *c, int root, const char *name, struct fd_use *use);
/* stale: it must not be found again. */
void fd_cache_put(struct fd_cache *c, const struct fd_use *use, bool stale);
/* The object was removed. */
void fd_cache_drop(struct fd_cache *c, const char *name);

#endif
