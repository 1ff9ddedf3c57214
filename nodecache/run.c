/* Runs of jobs on this node: life, and what the centre asks. */
#include "nodecache/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "nodecache/deadline.h"
#include "nodecache/run_table.h"

/* The supervisors' grace, and for them to write their results. */
#define CLOSE_MS (JOB_GRACE_MS + JOB_MARGIN_MS)
/* What a run may be: beyond, the kernel would say it less clearly. */
#define MEMORY_LEAST (1u << 20)
#define GROUPS_MAX   65536
/* For a group without a supervisor to be empty, 10 ms apart. */
#define SWEEP_TRIES 100

/* ---- the table; lock is held */

struct run *runs_find(struct runs *r, const struct run_key *k)
{
    struct run *run;

    HASH_FIND(hh, r->table, k, sizeof(*k), run);
    return run;
}

struct run *runs_add(struct runs *r, const struct run_key *k, enum run_state state)
{
    struct run *run = calloc(1, sizeof(*run));

    if (!run)
        return NULL;
    run->key = *k;
    run->state = state;
    run_key_name(k, run->name);
    HASH_ADD(hh, r->table, key, sizeof(run->key), run);
    r->active += state != RUN_OVER;
    return run;
}

void runs_drop(struct runs *r, struct run *run)
{
    HASH_DEL(r->table, run);
    r->active -= run->state != RUN_OVER;
    if (run->result)
        star__job_run_report__free_unpacked(run->result, NULL);
    free(run);
}

void runs_tell(struct runs *r)
{
    r->tell = true;
    pthread_cond_broadcast(&r->changed);
}

void runs_wake(struct runs *r)
{
    uint64_t one = 1;

    (void)!write(r->wake, &one, sizeof(one)); /* an eventfd takes it, or is readable already */
}

/* ---- what the centre asks */

static int refuse(char detail[RUN_DETAIL], int rc, const char *text)
{
    snprintf(detail, RUN_DETAIL, "%s", text);
    return rc;
}

static int check(const Star__JobStart *m, struct run_key *k, char detail[RUN_DETAIL])
{
    if (!m->run || m->run->job == 0 || m->run->copy == 0 || m->run->attempt == 0)
        return refuse(detail, -EINVAL, "a start without a job, copy or attempt");
    if (!m->cred || m->cred->n_groups > GROUPS_MAX || m->cred->uid == UINT32_MAX ||
        m->cred->gid == UINT32_MAX)
        return refuse(detail, -EINVAL, "a start that does not say as whom");
    if ((!m->command || !m->command[0]) && m->script.len == 0)
        return refuse(detail, -EINVAL, "a start without a command or script");
    if (m->memory > 0 && m->memory < MEMORY_LEAST)
        return refuse(detail, -EINVAL, "less memory than any program needs");
    for (size_t i = 0; i < m->n_env; i++)
        if (!strchr(m->env[i], '=') || m->env[i][0] == '=')
            return refuse(detail, -EINVAL, "an environment that is not NAME=VALUE");
    *k = (struct run_key){.job = m->run->job, .copy = m->run->copy, .attempt = m->run->attempt};
    return 0;
}

/* A place in the table; *out NULL: it is known. lock is held. */
static int reserve(struct runs *r, const struct run_key *k, struct run **out,
                   char detail[RUN_DETAIL])
{
    struct run *run;

    *out = NULL;
    while ((run = runs_find(r, k)) && run->state == RUN_NOTING) /* twice: the first one decides */
        pthread_cond_wait(&r->changed, &r->lock);
    if (run)
        return 0;
    if (r->stop || !r->all_said)
        return refuse(detail, -EAGAIN, "the node has not told yet what it runs");
    if (HASH_COUNT(r->table) >= JOB_RUNS_MAX)
        return refuse(detail, -EAGAIN, "the node has as many runs as it takes");
    *out = runs_add(r, k, RUN_NOTING);
    return *out ? 0 : refuse(detail, -ENOMEM, "no memory for one more run");
}

int runs_job_start(struct runs *r, const Star__JobStart *m, char detail[RUN_DETAIL])
{
    struct run_key key;
    struct run *run = NULL;
    int rc = check(m, &key, detail);

    if (rc < 0)
        return rc;
    pthread_mutex_lock(&r->lock);
    rc = reserve(r, &key, &run, detail);
    pthread_mutex_unlock(&r->lock);
    if (rc < 0 || !run)
        return rc;
    rc = run_folder_make(r->jobs, run->name, m);
    if (rc < 0)
        snprintf(detail, RUN_DETAIL, "noting run %s on the node's disk: %s", run->name,
                 strerror(-rc));
    pthread_mutex_lock(&r->lock);
    if (rc < 0) {
        runs_drop(r, run);
    } else {
        run->state = RUN_WAITING;
        run->began_ms = clock_boot_ms();
        run->began = clock_real();
        r->waiting++;
    }
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    runs_wake(r);
    return rc;
}

int runs_job_signal(struct runs *r, const Star__JobSignal *m, char detail[RUN_DETAIL])
{
    struct run_key key = {0};
    int rc = 0;

    if (!m->run || (!m->end && (m->signal < 1 || m->signal > SIGRTMAX)))
        return refuse(detail, -EINVAL, "no such signal");
    key = (struct run_key){.job = m->run->job, .copy = m->run->copy, .attempt = m->run->attempt};
    char name[RUN_NAME_MAX];
    run_key_name(&key, name);
    if (m->end && m->why && m->why[0])
        (void)run_folder_set_why(r->jobs, name, m->why); /* without it there is no reason to read */
    pthread_mutex_lock(&r->lock);
    struct run *run = runs_find(r, &key);
    if (!run || run->state == RUN_OVER)
        rc = refuse(detail, -ESRCH, "there is no such run here, or it has ended");
    else if (run->state != RUN_GOES && !m->end)
        rc = refuse(detail, -EAGAIN, "it has not begun yet");
    else if (run->state != RUN_GOES)
        run->end_asked = RUN_CANCEL;
    else
        rc = run_supervisor_tell(run->by, m->end ? RUN_CANCEL : m->signal);
    pthread_mutex_unlock(&r->lock);
    if (rc < 0 && !detail[0])
        snprintf(detail, RUN_DETAIL, "run %s: %s", name, strerror(-rc));
    return rc;
}

/* ---- what the node says of itself */

void runs_connected(struct runs *r)
{
    pthread_mutex_lock(&r->lock);
    r->connected = true;
    r->all_due = true;
    r->all_said = false;
    runs_tell(r);
    pthread_mutex_unlock(&r->lock);
}

void runs_heard(struct runs *r, int64_t said_ms)
{
    pthread_mutex_lock(&r->lock);
    bool known = r->all_said;
    pthread_mutex_unlock(&r->lock);
    if (known)
        runs_move_lease(r, said_ms);
}

void runs_move_lease(struct runs *r, int64_t said_ms)
{
    uint64_t until = (uint64_t)(said_ms + JOB_LEASE_MS), was = atomic_load(r->lease);

    /* Answers of several threads; an older one never shortens it. */
    while (was < until && !atomic_compare_exchange_weak(r->lease, &was, until))
        ;
}

void runs_usage(struct runs *r, struct run_usage *out)
{
    run_cgroup_all(&r->cgroups, out);
}

unsigned runs_active(struct runs *r)
{
    pthread_mutex_lock(&r->lock);
    unsigned n = r->active;
    pthread_mutex_unlock(&r->lock);
    return n;
}

/* ---- life */

static bool in_path(const char *program)
{
    const char *at = getenv("PATH");
    char path[PATH_MAX];

    while (at && *at) {
        size_t n = strcspn(at, ":");
        if (snprintf(path, sizeof(path), "%.*s/%s", (int)n, at, program) < (int)sizeof(path) &&
            access(path, X_OK) == 0)
            return true;
        at += n + (at[n] == ':');
    }
    return false;
}

static int open_all(struct runs *r, char detail[RUN_DETAIL])
{
    if (geteuid() != 0)
        return refuse(detail, -EPERM, "jobs need a node that runs as root");
    if (!in_path("bwrap"))
        return refuse(detail, -ENOENT, "bubblewrap (bwrap) is not installed");
    r->jobs = run_folder_open(r->options.store);
    if (r->jobs < 0 || !(r->lease = run_lease_map(r->jobs, true))) {
        int rc = r->jobs < 0 ? r->jobs : -errno;
        snprintf(detail, RUN_DETAIL, "%.180s/jobs: %s", r->options.store, strerror(-rc));
        return rc;
    }
    /* Of an earlier boot, whose clock was further. */
    if (atomic_load(r->lease) > (uint64_t)clock_boot_ms() + JOB_LEASE_MS)
        atomic_store(r->lease, 0);
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    r->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->epoll < 0 || r->wake < 0)
        return -errno;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->wake, &e) < 0)
        return -errno;
    int rc = run_groups_open(r->jobs, &r->cgroups, detail);
    if (rc == 0) {
        run_cgroups_sweep(&r->cgroups);
        rc = runs_start_spawner(r, detail);
    }
    return rc < 0 ? rc : runs_adopt(r, detail);
}

int runs_open(const struct runs_options *options, struct runs **out, char detail[RUN_DETAIL])
{
    struct runs *r = calloc(1, sizeof(*r));
    int rc;

    *out = NULL;
    detail[0] = 0;
    if (!r)
        return -ENOMEM;
    r->options = *options;
    r->jobs = r->epoll = r->wake = r->spawner = -1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    rc = open_all(r, detail);
    if (rc == 0) {
        rc = -pthread_create(&r->watcher, NULL, runs_watch, r);
        r->watches = rc == 0;
    }
    if (rc == 0) {
        rc = -pthread_create(&r->reporter, NULL, runs_report, r);
        r->reports = rc == 0;
    }
    if (rc < 0 && !detail[0])
        snprintf(detail, RUN_DETAIL, "%s", strerror(-rc));
    if (rc < 0)
        runs_close(r, false);
    else
        *out = r;
    if (rc == 0)
        detail[0] = 0;
    return rc;
}

/* lock is held. */
static void end_all(struct runs *r)
{
    struct timespec until = deadline_in(CLOSE_MS);
    struct run *run, *next;
    int rc = 0;

    HASH_ITER (hh, r->table, run, next) {
        if (run->state == RUN_GOES)
            (void)run_supervisor_tell(run->by, RUN_STOP); /* gone: it is over */
        else if (run->state != RUN_OVER)
            run->end_asked = RUN_STOP;
    }
    while (r->active > 0 && rc == 0)
        rc = pthread_cond_timedwait(&r->changed, &r->lock, &until);
    if (r->active > 0)
        log_warning("%u runs have not ended; they do when their lease is over", r->active);
}

void runs_end(struct runs *r)
{
    pthread_mutex_lock(&r->lock);
    end_all(r);
    pthread_mutex_unlock(&r->lock);
}

static bool is_held(int jobs, const char *name, bool end)
{
    pid_t pid = run_folder_holder(jobs, name);
    long fd = pid > 0 && end ? syscall(SYS_pidfd_open, pid, 0) : -1;

    /* Still the one that holds it, so it is the supervisor whom the descriptor means. */
    if (fd >= 0 && run_folder_holder(jobs, name) == pid)
        (void)syscall(SYS_pidfd_send_signal, (int)fd, SIGTERM, NULL, 0); /* gone: it is over */
    if (fd >= 0)
        close((int)fd);
    return pid > 0;
}

int runs_held(const char *store, bool end)
{
    char path[PATH_MAX];
    struct dirent *e;
    int held = 0;

    if (snprintf(path, sizeof(path), "%s/jobs", store) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    while ((e = readdir(dir))) {
        struct run_key key;
        if (run_key_parse(e->d_name, &key) == 0)
            held += is_held(dirfd(dir), e->d_name, end);
    }
    closedir(dir);
    return held;
}

struct sweep {
    struct run_cgroups groups;
    int jobs;
};

static void sweep_one(void *arg, const char *name)
{
    struct sweep *s = arg;

    if (run_folder_holder(s->jobs, name) == 0 &&
        run_cgroup_kill(&s->groups, name, SWEEP_TRIES) == 0)
        (void)run_cgroup_remove(&s->groups, name); /* the node's next start takes it away */
}

void runs_sweep(const char *store)
{
    char path[PATH_MAX], detail[RUN_DETAIL];
    struct sweep s = {.jobs = -1};

    if (snprintf(path, sizeof(path), "%s/jobs", store) < (int)sizeof(path))
        s.jobs = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s.jobs < 0)
        return; /* it has never run jobs */
    if (run_groups_open(s.jobs, &s.groups, detail) == 0) {
        (void)run_cgroup_each(&s.groups, sweep_one, &s);
        (void)run_cgroups_remove_node(&s.groups); /* in use: runs go on */
        run_cgroups_sweep(&s.groups);
        run_cgroups_close(&s.groups);
    }
    close(s.jobs);
}

void runs_close(struct runs *r, bool end)
{
    struct run *run, *next;

    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->all_said = false; /* no new ones */
    if (end && r->watches)
        end_all(r);
    r->stop = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (r->wake >= 0)
        runs_wake(r);
    if (r->watches)
        pthread_join(r->watcher, NULL);
    if (r->reports)
        pthread_join(r->reporter, NULL);
    if (r->spawner >= 0)
        close(r->spawner);
    if (r->spawner_pid > 0)
        waitpid(r->spawner_pid, NULL, 0); /* it ends as its socket does */
    HASH_ITER (hh, r->table, run, next) {
        if (run->by)
            run_supervisor_drop(r, run->by);
        runs_drop(r, run);
    }
    run_supervisors_end(r);
    if (r->cgroups.base[0]) {
        (void)run_cgroups_remove_node(&r->cgroups); /* runs go on: it stays */
        run_cgroups_close(&r->cgroups);
    }
    if (r->lease)
        munmap((void *)(uintptr_t)r->lease, sizeof(*r->lease));
    const int fds[] = {r->jobs, r->epoll, r->wake};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
