/*
 * The capacity: a hard limit on what the store keeps on disk. Space is taken before anything is
 * written and given back after it is gone, so that `used` is never less than what du would count.
 *
 * Threads: any; the lock is a leaf and only waiters take it.
 */
#ifndef UMBEL_NODE_SPACE_H
#define UMBEL_NODE_SPACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SPACE_BLOCK 4096u

struct space {
    uint64_t capacity;
    _Atomic uint64_t used;
    _Atomic uint64_t high; /* bytes: above, pressure() is called */
    _Atomic unsigned waiting;
    _Atomic bool pressed;        /* pressure() was called and not yet taken */
    void (*pressure)(void *ctx); /* wakes who flushes and evicts; must not block */
    void *ctx;
    pthread_mutex_t lock;
    pthread_cond_t freed;
};

void space_init(struct space *s, uint64_t capacity, void (*pressure)(void *ctx), void *ctx);
void space_destroy(struct space *s);
bool space_try(struct space *s, uint64_t bytes);
/* Waits until so many bytes are free (it does not take them) or until the deadline: -ENOSPC. */
int space_wait(struct space *s, uint64_t bytes, int64_t deadline_ms);
void space_give(struct space *s, uint64_t bytes);
/* Without asking: for what is on the disk already. */
void space_force(struct space *s, uint64_t bytes);
/* The pressure was seen; the next crossing calls again. */
void space_take_pressure(struct space *s);

#endif
