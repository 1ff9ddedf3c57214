/* The thread that has runs started and sees them end. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/frame.h"
#include "control/wire/log.h"
#include "control/wire/stamp.h"
#include "nodecache/run_table.h"

/* Asked of the spawner and not answered: far below what its socket holds. */
#define ASKED_MAX 32
/* A spawner that ends at once is not started again and again. */
#define SPAWNER_AGAIN_MS 1000
/* Groups that a supervisor has left, as it was killed. */
#define SWEEP_MS 30000
/* Of runs whose supervisors are gone: how often their last processes are looked for. */
#define STUCK_LOOK_MS 50
#define STUCK_MAX     64
/* It may begin in the moment in which it is given up. */
#define ADOPT_TRIES 3
#define EVENTS_MAX  64

/* ---- ends */

static void free_report(Star__JobRunReport *m)
{
    if (m)
        star__job_run_report__free_unpacked(m, NULL);
}

/* A report of our own making, in memory that free_unpacked() knows. */
static Star__JobRunReport *failed_report(const struct run *run, const char *detail)
{
    Star__JobRunReport m = STAR__JOB_RUN_REPORT__INIT;
    Star__JobRun key = STAR__JOB_RUN__INIT;
    Star__Time began = stamp_of(run->began), ended = stamp_of(clock_real());

    key.job = run->key.job;
    key.copy = run->key.copy;
    key.attempt = run->key.attempt;
    m.run = &key;
    m.state = STAR__JOB_RUN_STATE__RUN_ENDED;
    m.end = STAR__JOB_END__END_FAILED;
    m.detail = (char *)(uintptr_t)detail;
    m.began = &began;
    m.ended = &ended;
    return (Star__JobRunReport *)frame_copy(&m.base);
}

/* Only the watcher's thread ends runs, and adoption before it. Nobody else drops one that is not
 * over. */
static void set_over(struct runs *r, struct run *run, Star__JobRunReport *result)
{
    pthread_mutex_lock(&r->lock);
    run->by = NULL; /* whoever was told of it drops it, or has another run for it */
    r->waiting -= run->state == RUN_WAITING;
    r->active--;
    run->state = RUN_OVER;
    run->result = result;
    run->told = false;
    runs_tell(r);
    pthread_mutex_unlock(&r->lock);
}

static void tell_failed(struct runs *r, struct run *run, const char *detail)
{
    Star__JobRunReport *result = failed_report(run, detail);
    int dir = openat(r->jobs, run->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)run_cgroup_remove(&r->cgroups, run->name); /* swept later if not now */
    int rc = dir < 0 || !result ? -ENOMEM : run_folder_set_result(dir, result);
    if (rc < 0) /* found without a result at the next start: the same comes of it */
        log_warning("the result of run %s cannot be noted: %s", run->name, strerror(-rc));
    if (dir >= 0)
        close(dir);
    set_over(r, run, result);
}

/* Without a supervisor that would say it. What is left of it may be at the mount: it may run again
 * when that has ended. */
static void set_failed(struct runs *r, struct run *run, const char *detail)
{
    if (run_cgroup_kill(&r->cgroups, run->name, 0) == 0) {
        tell_failed(r, run, detail);
        return;
    }
    run->stuck_until = clock_boot_ms() + JOB_STUCK_MS + JOB_MARGIN_MS;
    snprintf(run->stuck_why, sizeof(run->stuck_why), "%s", detail);
    pthread_mutex_lock(&r->lock);
    r->waiting -= run->state == RUN_WAITING;
    run->by = NULL;
    run->state = RUN_STUCK;
    r->stuck++;
    pthread_mutex_unlock(&r->lock);
}

static void look_at_stuck(struct runs *r)
{
    struct run *stuck[STUCK_MAX];
    unsigned n = 0;

    pthread_mutex_lock(&r->lock);
    for (struct run *run = r->stuck > 0 ? r->table : NULL; run && n < STUCK_MAX; run = run->hh.next)
        if (run->state == RUN_STUCK)
            stuck[n++] = run;
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < n; i++) {
        struct run *run = stuck[i];
        bool left = run_cgroup_kill(&r->cgroups, run->name, 0) < 0;
        if (left && clock_boot_ms() < run->stuck_until)
            continue;
        if (left)
            log_warning("run %s has no supervisor, and processes of it cannot be ended", run->name);
        r->stuck--;
        tell_failed(r, run, run->stuck_why);
    }
}

/* What its supervisor has left. */
static void run_ended(struct runs *r, struct run *run)
{
    Star__JobRunReport *result = NULL;
    int rc = run_folder_result(r->jobs, run->name, &result);

    if (rc == 0 && result->run && result->run->job == run->key.job) {
        set_over(r, run, result);
        return;
    }
    free_report(result);
    set_failed(r, run, "its supervisor has ended without a result");
}

/* ---- supervisors */

static void run_goes(struct runs *r, struct run *run, struct run_supervisor *s)
{
    s->run = run;
    pthread_mutex_lock(&r->lock);
    run->state = RUN_GOES;
    run->by = s;
    if (run->end_asked)
        (void)run_supervisor_tell(s, run->end_asked); /* gone: it is over */
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

/* Takes the descriptors. */
static int watch_new(struct runs *r, struct run *run, const struct run_spawned_fds *fds)
{
    struct run_supervisor *s;
    int rc = run_supervisor_add(r, fds, &s);

    if (rc < 0) {
        run_spawned_close(fds);
        return rc;
    }
    s->round = fds->channel >= 0;
    run_goes(r, run, s);
    return 0;
}

static void supervisor_said(struct runs *r, struct run_supervisor *s)
{
    enum run_supervisor_said said = run_supervisor_said(s);

    if (said == RUN_SAID_NOTHING)
        return;
    if (s->run)
        run_ended(r, s->run);
    s->run = NULL;
    if (said == RUN_SAID_AGAIN)
        run_supervisor_rest(r, s);
    else
        run_supervisor_is_gone(r, s);
}

/* The one that holds the run's lock, if it does so still when we have its pidfd. */
static int find_supervisor(struct runs *r, const struct run *run)
{
    pid_t pid = run_folder_holder(r->jobs, run->name);
    long fd = pid > 0 ? syscall(SYS_pidfd_open, pid, 0) : -1;

    if (fd >= 0 && run_folder_holder(r->jobs, run->name) == pid)
        return (int)fd;
    if (fd >= 0)
        close((int)fd);
    return -ESRCH;
}

/* Whether it began is not known: it goes on, has ended, or never will. */
static void adopt(struct runs *r, struct run *run)
{
    for (int i = 0; i < ADOPT_TRIES; i++) {
        Star__JobRunReport *result = NULL;
        int fd = find_supervisor(r, run);
        struct run_spawned_fds fds = {.pidfd = fd, .channel = -1};
        /* Even with a result: a thread of it may still be at the mount. */
        if (fd >= 0 && watch_new(r, run, &fds) == 0)
            return;
        if (fd < 0 && run_folder_result(r->jobs, run->name, &result) == 0) {
            set_over(r, run, result);
            return;
        }
        if (fd < 0 && run_folder_give_up(r->jobs, run->name) == 0)
            break;
    }
    Star__JobRunReport *result = NULL;
    if (run_folder_result(r->jobs, run->name, &result) == 0)
        set_over(r, run, result); /* written before it was given up */
    else
        set_failed(r, run, "its supervisor is gone: what became of it is not known");
}

static void began_before(struct runs *r, struct run *run)
{
    char path[RUN_NAME_MAX + 8];
    struct stat st;

    snprintf(path, sizeof(path), "%s/start", run->name);
    run->began_ms = clock_boot_ms();
    run->began = fstatat(r->jobs, path, &st, 0) == 0 ? st.st_mtim : clock_real();
}

int runs_adopt(struct runs *r, char detail[RUN_DETAIL])
{
    int fd = openat(r->jobs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    unsigned going = 0;

    if (!dir) {
        rc = -errno;
        snprintf(detail, RUN_DETAIL, "reading %.180s/jobs: %s", r->options.store, strerror(-rc));
        return rc;
    }
    while (rc == 0 && (e = readdir(dir))) {
        struct run_key key;
        struct run *run;
        if (run_key_parse(e->d_name, &key) < 0)
            continue;
        if (!(run = runs_add(r, &key, RUN_ASKED))) {
            rc = -ENOMEM;
            continue;
        }
        began_before(r, run);
        adopt(r, run);
        going += run->state == RUN_GOES;
    }
    closedir(dir);
    if (going > 0)
        log_info("%u runs of jobs go on", going);
    return rc;
}

/* ---- the spawner */

/* Each that it was asked for: begun or not? */
static void spawner_lost(struct runs *r)
{
    struct run *asked[ASKED_MAX];
    unsigned n = 0;

    log_warning("the process that starts jobs has ended");
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, r->spawner, NULL);
    close(r->spawner);
    r->spawner = -1;
    kill(r->spawner_pid, SIGKILL);
    waitpid(r->spawner_pid, NULL, 0);
    r->spawner_pid = 0;
    r->asked = 0;
    pthread_mutex_lock(&r->lock);
    for (struct run *run = r->table; run && n < ASKED_MAX; run = run->hh.next)
        if (run->state == RUN_ASKED)
            asked[n++] = run;
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < n; i++)
        adopt(r, asked[i]);
}

int runs_start_spawner(struct runs *r, char detail[RUN_DETAIL])
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = r};
    int fd = run_spawner_start(r->options.exe, r->options.store, r->options.mount, &r->spawner_pid,
                               detail);

    r->spawner_ms = clock_boot_ms();
    if (fd < 0)
        return fd;
    r->spawner = fd;
    return epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static void take_answers(struct runs *r)
{
    struct run_spawned_fds fds;
    struct run_spawned a;
    struct run_key key;
    int rc;

    while ((rc = run_spawner_answer(r->spawner, &a, &fds)) == 0) {
        struct run *run = NULL;
        char why[96];
        r->asked -= r->asked > 0;
        pthread_mutex_lock(&r->lock);
        if (run_key_parse(a.name, &key) == 0)
            run = runs_find(r, &key);
        pthread_mutex_unlock(&r->lock);
        int err = -a.error;
        if (run && err == 0)
            err = watch_new(r, run, &fds);
        else if (err == 0)
            run_spawned_close(&fds); /* without a node it ends, as its run does */
        if (run && err < 0) {
            snprintf(why, sizeof(why), "no process for it: %s", strerror(-err));
            set_failed(r, run, why);
        }
    }
    if (rc != -EAGAIN)
        spawner_lost(r);
}

/* First come, first started. */
static struct run *next_waiting(struct runs *r)
{
    struct run *run;

    pthread_mutex_lock(&r->lock);
    run = r->waiting > 0 && !r->stop ? r->table : NULL;
    while (run && run->state != RUN_WAITING)
        run = run->hh.next;
    if (run) {
        run->state = RUN_ASKED;
        r->waiting--;
    }
    pthread_mutex_unlock(&r->lock);
    return run;
}

/* It was lost, and does not start again: nor do those that wait for it. */
static void start_spawner_again(struct runs *r)
{
    char detail[RUN_DETAIL];
    struct run *run;

    if (clock_boot_ms() - r->spawner_ms < SPAWNER_AGAIN_MS || runs_start_spawner(r, detail) == 0)
        return;
    log_error("jobs cannot be started: %s", detail);
    while ((run = next_waiting(r)))
        set_failed(r, run, detail);
}

static void ask_spawner(struct runs *r, const struct run *run)
{
    r->asked++;
    if (send(r->spawner, run->name, strlen(run->name), MSG_NOSIGNAL) < 0)
        spawner_lost(r);
}

static void start_waiting(struct runs *r)
{
    struct run *run;

    if (r->spawner < 0)
        start_spawner_again(r);
    while (r->asked < ASKED_MAX && r->spawner >= 0 && (run = next_waiting(r))) {
        struct run_supervisor *s = run_supervisor_ask_idle(r, run->name);
        if (s)
            run_goes(r, run, s);
        else
            ask_spawner(r, run);
    }
}

/* ---- groups that are left */

static void sweep_one(void *arg, const char *name)
{
    struct runs *r = arg;
    struct run_key key;
    bool goes = false;

    if (run_key_parse(name, &key) < 0)
        return;
    pthread_mutex_lock(&r->lock);
    struct run *run = runs_find(r, &key);
    goes = run && run->state != RUN_OVER;
    pthread_mutex_unlock(&r->lock);
    if (!goes && run_cgroup_kill(&r->cgroups, name, 0) == 0)
        (void)run_cgroup_remove(&r->cgroups, name); /* at the next sweep */
}

/* ---- the thread */

static bool stops(struct runs *r)
{
    pthread_mutex_lock(&r->lock);
    bool stop = r->stop;
    pthread_mutex_unlock(&r->lock);
    return stop;
}

static void handle(struct runs *r, const struct epoll_event *e)
{
    uint64_t count;

    if (!e->data.ptr)
        (void)!read(r->wake, &count, sizeof(count));
    else if (e->data.ptr == r)
        take_answers(r);
    else
        supervisor_said(r, e->data.ptr);
}

void *runs_watch(void *arg)
{
    struct runs *r = arg;
    struct epoll_event events[EVENTS_MAX];
    int64_t sweep_ms = 0;

    prctl(PR_SET_NAME, "runs");
    while (!stops(r)) {
        if (clock_boot_ms() >= sweep_ms) {
            (void)run_cgroups_keep(&r->cgroups); /* a run that needs it makes it */
            (void)run_cgroup_each(&r->cgroups, sweep_one, r);
            sweep_ms = clock_boot_ms() + SWEEP_MS;
        }
        run_supervisors_thin(r, clock_boot_ms()); /* before one of them is asked */
        start_waiting(r);
        look_at_stuck(r);
        int n = epoll_wait(r->epoll, events, EVENTS_MAX,
                           r->stuck > 0 ? STUCK_LOOK_MS : SPAWNER_AGAIN_MS);
        for (int i = 0; i < n; i++)
            handle(r, &events[i]);
    }
    return NULL;
}
