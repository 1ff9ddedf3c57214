#include "fs/timer.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "control/wire/clock.h"

struct due {
    struct due *next; /* in order of time */
    int64_t at_ms;
    void (*fn)(void *arg);
    void *arg;
};

struct timer_queue {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* on CLOCK_MONOTONIC */
    pthread_t thread;
    struct due *first;
    bool stopping;
};

static void wait_until(struct timer_queue *t, int64_t ms_from_now)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += ms_from_now / 1000;
    ts.tv_nsec += (long)(ms_from_now % 1000) * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&t->changed, &t->lock, &ts);
}

static void *timer_main(void *arg)
{
    struct timer_queue *t = arg;

    pthread_setname_np(pthread_self(), "timer");
    pthread_mutex_lock(&t->lock);
    while (t->first || !t->stopping) {
        struct due *d = t->first;
        int64_t left = d ? d->at_ms - clock_boot_ms() : INT64_MAX;
        if (!d) {
            pthread_cond_wait(&t->changed, &t->lock);
        } else if (left > 0 && !t->stopping) {
            wait_until(t, left);
        } else {
            t->first = d->next;
            pthread_mutex_unlock(&t->lock);
            d->fn(d->arg);
            free(d);
            pthread_mutex_lock(&t->lock);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

int timer_queue_start(struct timer_queue **out)
{
    struct timer_queue *t = calloc(1, sizeof(*t));
    pthread_condattr_t attr;

    if (!t)
        return -ENOMEM;
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->changed, &attr);
    pthread_condattr_destroy(&attr);
    int rc = -pthread_create(&t->thread, NULL, timer_main, t);
    if (rc < 0) {
        pthread_cond_destroy(&t->changed);
        pthread_mutex_destroy(&t->lock);
        free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void timer_queue_stop(struct timer_queue *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int timer_queue_after(struct timer_queue *t, int64_t ms, void (*fn)(void *arg), void *arg)
{
    struct due *d = malloc(sizeof(*d));

    if (!d)
        return -ENOMEM;
    *d = (struct due){.at_ms = clock_boot_ms() + ms, .fn = fn, .arg = arg};
    pthread_mutex_lock(&t->lock);
    struct due **at = &t->first;
    while (*at && (*at)->at_ms <= d->at_ms)
        at = &(*at)->next;
    d->next = *at;
    *at = d;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
    return 0;
}
