#define FUSE_USE_VERSION 314
#include "fs/notify.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uthash.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"

struct lane_key {
    uint64_t ino;
    uint64_t names; /* 1: jobs with names */
};

struct lane {
    struct lane_key key;
    struct notify_job *first, **last;
    struct lane *next; /* in the ready list */
    UT_hash_handle hh;
};

struct notify_pool {
    struct fuse_session *se;
    bool (*known)(void *ctx, uint64_t ino);
    void *ctx;
    pthread_mutex_t lock;
    pthread_cond_t ready_cond;
    struct lane *lanes;
    struct lane *ready, **ready_last;
    unsigned ready_n, threads, idle;
    bool stopping;
};

struct notify_job *notify_job_new(uint64_t ino, void (*done)(void *arg), void *arg)
{
    struct notify_job *job = calloc(1, sizeof(*job));

    if (job) {
        job->ino = ino;
        job->done = done;
        job->arg = arg;
    }
    return job;
}

static void report(const struct notify_job *job, int rc)
{
    /* ENOENT: the kernel does not know it. ENOTCONN, ENODEV: unmounted. */
    if (rc < 0 && rc != -ENOENT && rc != -ENOTCONN && rc != -ENODEV && rc != -EBADF &&
        rc != -ENOTDIR)
        log_warning("invalidating inode %llu in the kernel: %s", (unsigned long long)job->ino,
                    strerror(-rc));
}

/* false: it has no such inode. */
static bool tell_kernel(struct fuse_session *se, const struct notify_job *job)
{
    int rc = 0;

    for (size_t n = 0; n < job->names_n; n++)
        report(job, fuse_lowlevel_notify_inval_entry(se, job->ino, job->names[n].name,
                                                     job->names[n].len));
    if (job->pages)
        rc = fuse_lowlevel_notify_inval_inode(se, job->ino, (off_t)job->offset, (off_t)job->length);
    else if (job->attr)
        rc = fuse_lowlevel_notify_inval_inode(se, job->ino, -1, 0);
    report(job, rc);
    return rc != -ENOENT;
}

static bool is_young(int64_t answered_ms)
{
    return answered_ms && clock_boot_ms() - answered_ms < NOTIFY_YOUNG_MS;
}

static void sleep_ms(long ms)
{
    struct timespec pause = {.tv_nsec = ms * 1000000L};

    nanosleep(&pause, NULL);
}

static void run(struct notify_pool *p, struct notify_job *job)
{
    bool listed = job->pages && is_young(job->listed_ms), found = tell_kernel(p->se, job);
    int64_t until = clock_boot_ms() + NOTIFY_FIND_MAX_MS;

    if (listed) {
        sleep_ms(NOTIFY_AGAIN_MS);
        found = tell_kernel(p->se, job);
    }
    while (!found && p->known(p->ctx, job->ino) && clock_boot_ms() < until) {
        sleep_ms(NOTIFY_FIND_MS);
        found = tell_kernel(p->se, job);
    }
    if (job->done)
        job->done(job->arg);
    free(job->names);
    free(job);
}

static void make_ready(struct notify_pool *p, struct lane *lane)
{
    lane->next = NULL;
    *p->ready_last = lane;
    p->ready_last = &lane->next;
    p->ready_n++;
    pthread_cond_signal(&p->ready_cond);
}

/* Runs the first job of the first ready lane; the lock is let go meanwhile. */
static void run_lane(struct notify_pool *p)
{
    struct lane *lane = p->ready;
    struct notify_job *job = lane->first;

    p->ready = lane->next;
    p->ready_n--;
    if (!p->ready)
        p->ready_last = &p->ready;
    lane->first = job->next;
    if (!lane->first)
        lane->last = &lane->first;
    pthread_mutex_unlock(&p->lock);
    run(p, job);
    pthread_mutex_lock(&p->lock);
    if (lane->first) {
        make_ready(p, lane);
    } else {
        HASH_DEL(p->lanes, lane);
        free(lane);
    }
}

static void *pool_main(void *arg)
{
    struct notify_pool *p = arg;

    pthread_setname_np(pthread_self(), "notify");
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->ready && !(p->stopping && !p->lanes)) {
            p->idle++;
            pthread_cond_wait(&p->ready_cond, &p->lock);
            p->idle--;
        }
        if (!p->ready)
            break;
        run_lane(p);
        if (p->stopping && !p->lanes)
            pthread_cond_broadcast(&p->ready_cond);
    }
    p->threads--;
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* With the lock held. */
static int add_thread(struct notify_pool *p)
{
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int rc = -pthread_create(&thread, &attr, pool_main, p);
    pthread_attr_destroy(&attr);
    if (rc == 0)
        p->threads++;
    return rc;
}

int notify_start(struct fuse_session *se, bool (*known)(void *ctx, uint64_t ino), void *ctx,
                 struct notify_pool **out)
{
    struct notify_pool *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->se = se;
    p->known = known;
    p->ctx = ctx;
    p->ready_last = &p->ready;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->ready_cond, NULL);
    pthread_mutex_lock(&p->lock);
    int rc = add_thread(p); /* one for certain: without it nothing could ever be invalidated */
    pthread_mutex_unlock(&p->lock);
    if (rc < 0) {
        free(p);
        return rc;
    }
    *out = p;
    return 0;
}

bool notify_stop(struct notify_pool *p, int64_t deadline_ms)
{
    int64_t until = clock_boot_ms() + deadline_ms;
    struct timespec pause = {.tv_nsec = 2000000};

    if (!p)
        return true;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->ready_cond);
    while (p->threads > 0 && clock_boot_ms() < until) {
        pthread_mutex_unlock(&p->lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&p->lock);
    }
    bool ended = p->threads == 0;
    pthread_mutex_unlock(&p->lock);
    if (!ended)
        return false;
    pthread_cond_destroy(&p->ready_cond);
    pthread_mutex_destroy(&p->lock);
    free(p);
    return true;
}

static struct lane *lane_get(struct notify_pool *p, const struct notify_job *job, bool *fresh)
{
    struct lane_key key = {.ino = job->ino, .names = job->names_n > 0};
    struct lane *lane;

    HASH_FIND(hh, p->lanes, &key, sizeof(key), lane);
    *fresh = !lane;
    if (lane)
        return lane;
    lane = calloc(1, sizeof(*lane));
    if (!lane)
        return NULL;
    lane->key = key;
    lane->last = &lane->first;
    HASH_ADD(hh, p->lanes, key, sizeof(lane->key), lane);
    return lane;
}

bool notify_queue(struct notify_pool *p, struct notify_job *job)
{
    bool fresh;

    job->next = NULL;
    pthread_mutex_lock(&p->lock);
    struct lane *lane = lane_get(p, job, &fresh);
    if (lane) {
        *lane->last = job;
        lane->last = &job->next;
        if (fresh)
            make_ready(p, lane);
        if (p->ready_n > p->idle && p->threads < NOTIFY_THREADS_MAX && add_thread(p) < 0)
            log_warning("no thread for invalidations: %u serve all of them", p->threads);
    }
    pthread_mutex_unlock(&p->lock);
    return lane != NULL;
}
