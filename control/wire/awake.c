#include "control/wire/awake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DEVICE "/dev/cpu_dma_latency"
/* PM_QOS_CPU_LATENCY_DEFAULT_VALUE: microseconds that mean "no wish". */
#define NO_WISH (2000 * 1000000)

struct awake {
    int device;
    int wake; /* eventfd: the first request after rest, and the end */
    pthread_t thread;
    atomic_uint count;   /* requests of this tick */
    atomic_bool resting; /* the thread sleeps until the next request */
    atomic_bool stopping;
    atomic_bool holds;
};

static void wish(struct awake *a, bool hold)
{
    int32_t us = hold ? 0 : NO_WISH;
    if (atomic_load(&a->holds) != hold && write(a->device, &us, sizeof(us)) == (ssize_t)sizeof(us))
        atomic_store(&a->holds, hold);
}

static void wake(struct awake *a)
{
    uint64_t one = 1;
    ssize_t ignored = write(a->wake, &one, sizeof(one)); /* full: it is awake anyway */
    (void)ignored;
}

void awake_touch(struct awake *a)
{
    if (!a)
        return;
    atomic_fetch_add_explicit(&a->count, 1, memory_order_relaxed);
    if (atomic_load_explicit(&a->resting, memory_order_relaxed) &&
        atomic_exchange(&a->resting, false))
        wake(a);
}

bool awake_holds(struct awake *a)
{
    return a && atomic_load(&a->holds);
}

/* Sleeps for a tick, or until something comes. */
static void pause_for(struct awake *a, int ms)
{
    struct pollfd p = {.fd = a->wake, .events = POLLIN};
    uint64_t count;
    if (poll(&p, 1, ms) > 0) {
        ssize_t ignored = read(a->wake, &count, sizeof(count));
        (void)ignored;
    }
}

static void *awake_thread(void *arg)
{
    struct awake *a = arg;
    int quiet = 0;
    pthread_setname_np(pthread_self(), "awake");
    while (!atomic_load(&a->stopping)) {
        bool rest = quiet > AWAKE_LINGER;
        if (rest)
            atomic_store(
                &a->resting,
                true); /* a request that comes just now is counted, and the next one wakes us */
        pause_for(a, rest ? -1 : AWAKE_TICK_MS);
        atomic_store(&a->resting, false);
        quiet = atomic_exchange(&a->count, 0) >= AWAKE_BUSY ? 0 : rest ? 1 : quiet + 1;
        if (quiet == 0 || quiet > AWAKE_LINGER)
            wish(a, quiet == 0);
    }
    wish(a, false);
    return NULL;
}

static int start_thread(struct awake *a)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&a->thread, NULL, awake_thread, a);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -err;
}

int awake_start(struct awake **out)
{
    *out = NULL;
    struct awake *a = calloc(1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    int err = 0;
    a->device = open(DEVICE, O_WRONLY | O_CLOEXEC);
    a->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (a->device < 0 || a->wake < 0)
        err = -errno;
    if (!err)
        err = start_thread(a);
    if (!err) {
        *out = a;
        return 0;
    }
    if (a->device >= 0)
        close(a->device);
    if (a->wake >= 0)
        close(a->wake);
    free(a);
    return err;
}

void awake_stop(struct awake *a)
{
    if (!a)
        return;
    atomic_store(&a->stopping, true);
    wake(a);
    pthread_join(a->thread, NULL);
    close(a->device); /* also ends the wish */
    close(a->wake);
    free(a);
}
