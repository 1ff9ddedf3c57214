/* Capacity accounting. */
#include "nodecache/space.h"

#include <errno.h>
#include <string.h>

#include "control/wire/clock.h"
#include "nodecache/deadline.h"

/* A waiter looks again after this long even if nobody woke it. */
#define SPACE_POLL_MS 50

void space_init(struct space *s, uint64_t capacity, void (*pressure)(void *ctx), void *ctx)
{
    memset(s, 0, sizeof(*s));
    s->capacity = capacity;
    atomic_init(&s->high, capacity);
    s->pressure = pressure;
    s->ctx = ctx;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->freed, NULL);
}

void space_destroy(struct space *s)
{
    pthread_cond_destroy(&s->freed);
    pthread_mutex_destroy(&s->lock);
}

static void press(struct space *s)
{
    if (!atomic_exchange(&s->pressed, true) && s->pressure)
        s->pressure(s->ctx);
}

bool space_try(struct space *s, uint64_t bytes)
{
    uint64_t used = atomic_load_explicit(&s->used, memory_order_relaxed);

    do {
        if (used > s->capacity || bytes > s->capacity - used) {
            press(s);
            return false;
        }
    } while (!atomic_compare_exchange_weak(&s->used, &used, used + bytes));
    if (used + bytes > atomic_load_explicit(&s->high, memory_order_relaxed) &&
        !atomic_load_explicit(&s->pressed, memory_order_relaxed))
        press(s);
    return true;
}

void space_force(struct space *s, uint64_t bytes)
{
    atomic_fetch_add(&s->used, bytes);
}

void space_give(struct space *s, uint64_t bytes)
{
    if (bytes == 0)
        return;
    atomic_fetch_sub(&s->used, bytes);
    if (atomic_load(&s->waiting) > 0) {
        pthread_mutex_lock(&s->lock);
        pthread_cond_broadcast(&s->freed);
        pthread_mutex_unlock(&s->lock);
    }
}

void space_take_pressure(struct space *s)
{
    atomic_store(&s->pressed, false);
}

static bool fits(struct space *s, uint64_t bytes)
{
    uint64_t used = atomic_load(&s->used);

    return used <= s->capacity && bytes <= s->capacity - used;
}

int space_wait(struct space *s, uint64_t bytes, int64_t deadline_ms)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    atomic_fetch_add(&s->waiting, 1);
    while (!fits(s, bytes)) {
        if (bytes > s->capacity || clock_boot_ms() >= deadline_ms) {
            rc = -ENOSPC;
            break;
        }
        press(s);
        struct timespec until = deadline_in(SPACE_POLL_MS);
        pthread_cond_timedwait(&s->freed, &s->lock, &until);
    }
    atomic_fetch_sub(&s->waiting, 1);
    pthread_mutex_unlock(&s->lock);
    return rc;
}
