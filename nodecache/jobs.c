/* Jobs on this node: runs, and what is left for more. */
#include "nodecache/jobs.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "nodecache/deadline.h"
#include "nodecache/power.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

#define LOOK_MS 500
/* What is missing for runs (a program, control groups) does not come by itself. */
#define OPEN_AGAIN_MS 10000
/* A look that has not come back for so long hangs at the mount: no jobs until it does. */
#define LOOK_OLD_MS 5000

struct jobs {
    struct jobs_options options;
    char mount[PATH_MAX];
    uint32_t cores;
    uint64_t speed; /* 0: not measured yet */
    pthread_t thread;
    int64_t open_ms;            /* when runs are opened again; the thread's */
    char missing[RUN_DETAIL];   /* why they could not be; the thread's */
    bool wanted, looks;         /* wanted: fixed; looks: there is a thread to be joined */
    pthread_rwlock_t runs_lock; /* read-locked while they are used; before lock */
    struct runs *runs;          /* set once, by the thread; taken away by jobs_stop() */
    bool connected;             /* before there were runs; under runs_lock */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* everything below */
    bool stop, mounted;
    int64_t looked_ms, paused_until;
    struct power_sample last;
    struct power_use use;
    char why[RUN_DETAIL];
};

/* ---- looking */

static bool is_mounted(const char *path, char why[RUN_DETAIL])
{
    struct statfs fs;
    struct stat here, above;
    char parent[PATH_MAX + 4];

    snprintf(parent, sizeof(parent), "%s/..", path);
    if (stat(path, &here) < 0 || statfs(path, &fs) < 0 || stat(parent, &above) < 0)
        snprintf(why, RUN_DETAIL, "%.180s: %s", path, strerror(errno));
    else if (fs.f_type != FUSE_SUPER_MAGIC || here.st_dev == above.st_dev)
        snprintf(why, RUN_DETAIL, "the cloud is not mounted at %.180s", path);
    else
        return true;
    return false;
}

/* Its runs are found again as soon as they can be. */
static void open_runs(struct jobs *j, char why[RUN_DETAIL])
{
    struct runs_options o = {.store = j->options.store,
                             .mount = j->mount,
                             .exe = j->options.exe,
                             .report = j->options.report,
                             .ctx = j->options.ctx};
    struct runs *runs = NULL;

    if (runs_open(&o, &runs, why) < 0) {
        if (!why[0])
            snprintf(why, RUN_DETAIL, "runs of jobs cannot be kept here");
        return;
    }
    pthread_rwlock_wrlock(&j->runs_lock);
    j->runs = runs;
    if (j->connected)
        runs_connected(runs);
    pthread_rwlock_unlock(&j->runs_lock);
}

static void look(struct jobs *j)
{
    char why[RUN_DETAIL] = "";
    struct power_sample now;
    struct run_usage used = {0};
    bool known = power_sample(&now) == 0;

    if (!j->runs && clock_boot_ms() >= j->open_ms) {
        open_runs(j, j->missing);
        j->open_ms = clock_boot_ms() + OPEN_AGAIN_MS;
    }
    if (!j->runs)
        snprintf(why, sizeof(why), "%s", j->missing);
    bool mounted = !why[0] && is_mounted(j->mount, why);
    if (j->runs) {
        runs_usage(j->runs, &used);
        now.jobs_us = used.cpu_us;
        now.jobs_memory = used.memory;
    }
    pthread_mutex_lock(&j->lock);
    if (known) {
        power_between(&j->last, &now, j->cores, &j->use);
        j->last = now;
    }
    j->looked_ms = clock_boot_ms();
    j->mounted = mounted;
    if (strcmp(j->why, why) != 0 && why[0])
        log_warning("no jobs here: %s", why);
    snprintf(j->why, sizeof(j->why), "%s", why);
    pthread_mutex_unlock(&j->lock);
}

static void *look_main(void *arg)
{
    struct jobs *j = arg;

    prctl(PR_SET_NAME, "jobs");
    uint64_t speed = power_core_speed();
    pthread_mutex_lock(&j->lock);
    j->speed = speed;
    while (!j->stop) {
        struct timespec until = deadline_in(LOOK_MS);
        pthread_mutex_unlock(&j->lock);
        look(j);
        pthread_mutex_lock(&j->lock);
        while (!j->stop && pthread_cond_timedwait(&j->changed, &j->lock, &until) == 0)
            ;
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

/* ---- what the centre asks and is told */

/* It runs jobs now; else why not. */
static bool can(struct jobs *j, char why[RUN_DETAIL])
{
    pthread_mutex_lock(&j->lock);
    bool old = j->wanted && clock_boot_ms() - j->looked_ms > LOOK_OLD_MS;
    bool paused = clock_boot_ms() < j->paused_until;
    bool yes = j->mounted && !old && !j->stop && !paused;
    if (!yes)
        snprintf(why, RUN_DETAIL, "%s",
                 j->why[0]           ? j->why
                 : j->stop || paused ? "it is being stopped"
                 : old               ? "looking for the cloud's mount takes too long"
                                     : "it has just been started");
    pthread_mutex_unlock(&j->lock);
    return yes;
}

int jobs_start(struct jobs *j, const Star__JobStart *m, char detail[RUN_DETAIL])
{
    int rc = -EOPNOTSUPP;

    if (!j || !j->wanted) {
        snprintf(detail, RUN_DETAIL, "this node runs no jobs");
        return rc;
    }
    pthread_rwlock_rdlock(&j->runs_lock);
    rc = can(j, detail) && j->runs ? runs_job_start(j->runs, m, detail) : -EAGAIN;
    pthread_rwlock_unlock(&j->runs_lock);
    return rc;
}

int jobs_signal(struct jobs *j, const Star__JobSignal *m, char detail[RUN_DETAIL])
{
    int rc = -ESRCH;

    snprintf(detail, RUN_DETAIL, "this node runs no jobs");
    if (!j)
        return rc;
    pthread_rwlock_rdlock(&j->runs_lock);
    if (j->runs)
        rc = runs_job_signal(j->runs, m, detail);
    pthread_rwlock_unlock(&j->runs_lock);
    return rc;
}

void jobs_connected(struct jobs *j)
{
    pthread_rwlock_wrlock(&j->runs_lock);
    j->connected = true;
    if (j->runs)
        runs_connected(j->runs);
    pthread_rwlock_unlock(&j->runs_lock);
}

void jobs_heard(struct jobs *j, int64_t said_ms)
{
    pthread_rwlock_rdlock(&j->runs_lock);
    if (j->runs)
        runs_heard(j->runs, said_ms);
    pthread_rwlock_unlock(&j->runs_lock);
}

void jobs_power(struct jobs *j, Star__NodePower *out, char why[RUN_DETAIL])
{
    why[0] = 0;
    out->jobs = can(j, why);
    out->detail = why;
    pthread_mutex_lock(&j->lock);
    out->cores = j->cores;
    out->core_speed = j->speed;
    out->milli_cpus = j->cores * 1000;
    out->milli_busy = j->use.milli_busy;
    out->memory = j->last.memory;
    out->memory_busy = j->use.memory_busy;
    pthread_mutex_unlock(&j->lock);
}

/* ---- life */

int jobs_open(const struct jobs_options *options, struct jobs **out)
{
    struct jobs *j = calloc(1, sizeof(*j));
    int rc = 0;

    *out = NULL;
    if (!j)
        return -ENOMEM;
    j->options = *options;
    j->cores = power_cores();
    pthread_rwlock_init(&j->runs_lock, NULL);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, NULL);
    if (!options->mount)
        snprintf(j->why, sizeof(j->why), "it was started without --jobs-mount");
    else if (options->mount[0] != '/' ||
             snprintf(j->mount, sizeof(j->mount), "%s", options->mount) >= (int)sizeof(j->mount))
        snprintf(j->why, sizeof(j->why), "--jobs-mount is not an absolute path");
    for (size_t n = strlen(j->mount); n > 1 && j->mount[n - 1] == '/'; n--)
        j->mount[n - 1] = 0;
    j->wanted = !j->why[0]; /* the thread writes there as well */
    if (j->wanted)
        rc = -pthread_create(&j->thread, NULL, look_main, j);
    j->looks = rc == 0 && j->wanted;
    if (rc < 0)
        jobs_close(j);
    else
        *out = j;
    return rc;
}

void jobs_pause(struct jobs *j, int ms)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->paused_until = clock_boot_ms() + ms;
    pthread_mutex_unlock(&j->lock);
    pthread_rwlock_rdlock(&j->runs_lock);
    if (j->runs)
        runs_end(j->runs);
    pthread_rwlock_unlock(&j->runs_lock);
}

void jobs_stop(struct jobs *j)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    j->mounted = false;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
    if (j->looks)
        pthread_join(j->thread, NULL);
    j->looks = false;
    pthread_rwlock_wrlock(&j->runs_lock);
    struct runs *runs = j->runs;
    j->runs = NULL;
    pthread_rwlock_unlock(&j->runs_lock);
    runs_close(runs, true);
}

void jobs_close(struct jobs *j)
{
    if (!j)
        return;
    jobs_stop(j);
    pthread_cond_destroy(&j->changed);
    pthread_mutex_destroy(&j->lock);
    pthread_rwlock_destroy(&j->runs_lock);
    free(j);
}
