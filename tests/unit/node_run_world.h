/* Runs of jobs for tests: a centre that only remembers, and a cloud that is a plain folder, or what
 * is mounted at $UMBEL_TEST_CLOUD (which is emptied: integration/runs.sh). */
#ifndef UMBEL_TEST_NODE_RUN_WORLD_H
#define UMBEL_TEST_NODE_RUN_WORLD_H

#include "nodecache/run.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/job_run.h"
#include "nodecache/run_cgroup.h"
#include "nodecache/run_folder.h"

#define UID       12345
#define WAIT_MS   60000
#define ENDED_MAX 512

/* A centre that remembers. */
struct world {
    char dir[PATH_MAX], exe[PATH_MAX], cloud[PATH_MAX];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    Star__JobRunReport *ended[ENDED_MAX];
    size_t n;
    unsigned reports, alls, running;
    bool refuse, keep; /* answers nothing; confirms nothing */
    struct runs *runs;
    struct order *orders;
};

struct order {
    Star__JobStart m;
    Star__JobRun run;
    Star__Cred cred;
    char out[32], err[32];
    struct order *next;
};

static inline int on_report(void *ctx, const Star__JobReport *m, Star__JobReportReply **out)
{
    struct world *w = ctx;
    Star__JobReportReply *a = calloc(1, sizeof(*a));
    int rc = 0;

    star__job_report_reply__init(a);
    a->done = calloc(m->n_runs + 1, sizeof(*a->done));
    pthread_mutex_lock(&w->lock);
    w->reports++;
    w->alls += m->all;
    for (size_t i = 0; i < m->n_runs && !w->refuse; i++) {
        const Star__JobRunReport *r = m->runs[i];
        if (r->state != STAR__JOB_RUN_STATE__RUN_ENDED) {
            w->running++;
            continue;
        }
        size_t size = star__job_run_report__get_packed_size(r);
        uint8_t *data = malloc(size + 1);
        star__job_run_report__pack(r, data);
        if (w->n < ENDED_MAX)
            w->ended[w->n++] = star__job_run_report__unpack(NULL, size, data);
        free(data);
        if (!w->keep) {
            Star__JobRun *done = a->done[a->n_done++] = calloc(1, sizeof(**a->done));
            star__job_run__init(done);
            done->job = r->run->job;
            done->copy = r->run->copy;
            done->attempt = r->run->attempt;
        }
    }
    if (w->refuse) {
        star__job_report_reply__free_unpacked(a, NULL);
        a = NULL;
        rc = -ECONNRESET;
    }
    *out = a;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return rc;
}

static inline int open_runs(struct world *w, char detail[RUN_DETAIL])
{
    struct runs_options o = {
        .store = w->dir, .mount = w->cloud, .exe = w->exe, .report = on_report, .ctx = w};

    int rc = runs_open(&o, &w->runs, detail);
    if (rc == 0) {
        unsigned before = w->alls;
        runs_heard(w->runs, clock_boot_ms());
        runs_connected(w->runs);
        pthread_mutex_lock(&w->lock);
        while (w->alls == before)
            pthread_cond_wait(&w->changed, &w->lock);
        pthread_mutex_unlock(&w->lock);
        usleep(20000); /* for the answer to be taken */
    }
    return rc;
}

static inline char *in_cloud(const struct world *w, const char *path)
{
    static char full[PATH_MAX + 64];

    snprintf(full, sizeof(full), "%s/%s", w->cloud, path);
    return full;
}

static inline void find_exe(struct world *w)
{
    const char *given = getenv("UMBEL_BINARY");

    if (given) {
        snprintf(w->exe, sizeof(w->exe), "%s", given);
        return;
    }
    ssize_t n = readlink("/proc/self/exe", w->exe, sizeof(w->exe) - 1);
    cr_assert_gt(n, 0);
    w->exe[n] = 0;
    for (int i = 0; i < 3; i++)
        *strrchr(w->exe, '/') = 0;
    strcat(w->exe, "/tools/umbel");
}

static inline struct world *setup(void)
{
    struct world *w = calloc(1, sizeof(*w));
    const char *at = getenv("UMBEL_TEST_DIR");
    char detail[RUN_DETAIL];

    find_exe(w);
    if (access(w->exe, X_OK) < 0)
        cr_skip_test("no umbel program at %s (UMBEL_BINARY)", w->exe);
    snprintf(w->dir, sizeof(w->dir), "%s/node_run.XXXXXX", at ? at : "/var/tmp");
    cr_assert(mkdtemp(w->dir));
    chmod(w->dir, 0711);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    const char *cloud = getenv("UMBEL_TEST_CLOUD");
    if (cloud)
        snprintf(w->cloud, sizeof(w->cloud), "%s", cloud);
    else
        snprintf(w->cloud, sizeof(w->cloud), "%.4000s/cloud", w->dir);
    mkdir(w->cloud, 0755);
    mkdir(in_cloud(w, "home"), 0755);
    cr_assert_eq(chown(in_cloud(w, "home"), UID, UID), 0);
    int rc = open_runs(w, detail);
    if (rc == -EPERM || rc == -ENOENT || rc == -EACCES || rc == -EROFS)
        cr_skip_test("no jobs on this machine: %s", detail);
    cr_assert_eq(rc, 0, "%s", detail);
    return w;
}

static inline bool group_is_left(const struct world *w);

static inline void teardown(struct world *w)
{
    char command[2 * PATH_MAX + 16];

    runs_close(w->runs, true);
    cr_expect_not(group_is_left(w), "a control group is left");
    for (size_t i = 0; i < w->n; i++)
        star__job_run_report__free_unpacked(w->ended[i], NULL);
    snprintf(command, sizeof(command), "rm -rf '%s' '%s'/*", w->dir, w->cloud);
    cr_assert_eq(system(command), 0);
    for (struct order *o = w->orders, *next; o; o = next) {
        next = o->next;
        free(o);
    }
    free(w);
}

static inline struct order *order(struct world *w, uint64_t job, const char *command)
{
    struct order *o = calloc(1, sizeof(*o));

    o->next = w->orders;
    w->orders = o;
    star__job_start__init(&o->m);
    star__job_run__init(&o->run);
    star__cred__init(&o->cred);
    o->run = (Star__JobRun){.base = o->run.base, .job = job, .copy = 1, .attempt = 1};
    o->cred.uid = o->cred.gid = UID;
    o->cred.umask = 022;
    o->m.run = &o->run;
    o->m.cred = &o->cred;
    o->m.name = (char *)"test";
    o->m.command = (char *)(uintptr_t)command;
    o->m.workdir = (char *)"/home";
    o->m.milli_cpus = 1000;
    o->m.memory = 256u << 20;
    o->m.pids_max = 64;
    o->m.output_max = 1u << 20;
    snprintf(o->out, sizeof(o->out), "out%ju", (uintmax_t)job);
    snprintf(o->err, sizeof(o->err), "err%ju", (uintmax_t)job);
    o->m.own_output = o->out;
    o->m.own_error = o->err;
    const char *own[] = {o->out, o->err};
    for (int i = 0; i < 2; i++) {
        int fd = open(in_cloud(w, own[i]), O_WRONLY | O_CREAT, 0600);
        cr_assert(fd >= 0 && fchown(fd, UID, UID) == 0);
        close(fd);
    }
    return o;
}

static inline void start(struct world *w, const struct order *o)
{
    char detail[RUN_DETAIL] = "";

    cr_assert_eq(runs_job_start(w->runs, &o->m, detail), 0, "%s", detail);
}

/* Sanitized programs take longer, emulated machines (tests/vm) as well. */
static inline int wait_ms(void)
{
    const char *slow = getenv("UMBEL_SANITIZE");

    return slow && slow[0] ? 4 * WAIT_MS : WAIT_MS;
}

static inline Star__JobRunReport *wait_end(struct world *w, uint64_t job)
{
    int64_t until = clock_boot_ms() + wait_ms();
    Star__JobRunReport *found = NULL;

    pthread_mutex_lock(&w->lock);
    while (!found && clock_boot_ms() < until) {
        for (size_t i = 0; i < w->n; i++)
            if (w->ended[i]->run->job == job)
                found = w->ended[i];
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_sec++;
        if (!found)
            pthread_cond_timedwait(&w->changed, &w->lock, &t);
        runs_heard(w->runs, clock_boot_ms());
    }
    pthread_mutex_unlock(&w->lock);
    cr_assert(found, "job %ju does not end", (uintmax_t)job);
    return found;
}

static inline Star__JobRunReport *run(struct world *w, uint64_t job, const char *command)
{
    struct order *o = order(w, job, command);

    start(w, o);
    return wait_end(w, job);
}

static inline char *text_of(const struct world *w, const char *path)
{
    static char text[65536];
    int fd = open(in_cloud(w, path), O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    text[n < 0 ? 0 : n] = 0;
    if (fd >= 0)
        close(fd);
    return text;
}

#define IS_END(r, wanted, code)                                                                    \
    do {                                                                                           \
        const Star__JobRunReport *is = (r);                                                        \
        cr_expect_eq(is->end, STAR__JOB_END__##wanted, "end %d: %s", (int)is->end, is->detail);    \
        cr_expect_eq(is->status, code, "status %d: %s", (int)is->status, is->detail);              \
    } while (0)

static inline void one_group(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
}

static inline void base_of(const struct world *w, char base[40])
{
    char jobs[PATH_MAX + 8];
    struct stat st;

    snprintf(jobs, sizeof(jobs), "%s/jobs", w->dir);
    cr_assert_eq(stat(jobs, &st), 0);
    snprintf(base, 40, "%jx-%jx", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
}

static inline void groups_of(const struct world *w, struct run_cgroups *c)
{
    char base[40], detail[RUN_DETAIL];

    base_of(w, base);
    cr_assert_eq(run_cgroups_open(c, base, detail), 0, "%s", detail);
}

/* In how many trees a node's group is. */
static inline unsigned groups_called(const char *node)
{
    static const char *const trees[] = {"",        "/unified", "/cpu", "/cpuacct", "/cpu,cpuacct",
                                        "/memory", "/pids"};
    char path[128];
    unsigned n = 0;

    for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++) {
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/umbel/%s", trees[i], node);
        n += access(path, F_OK) == 0;
    }
    return n;
}

static inline bool group_is_left(const struct world *w)
{
    char base[40];

    base_of(w, base);
    return groups_called(base) > 0;
}

static inline bool folder_is_left(const struct world *w, const char *name)
{
    char path[PATH_MAX + 64];

    snprintf(path, sizeof(path), "%s/jobs/%s", w->dir, name);
    for (int i = 0; i < 500 && access(path, F_OK) == 0; i++)
        usleep(10000);
    return access(path, F_OK) == 0;
}

/* This process has one: the spawner. */
static inline void kill_children(void)
{
    FILE *f = fopen("/proc/thread-self/children", "r");
    int pid;

    cr_assert(f);
    while (fscanf(f, "%d", &pid) == 1)
        kill(pid, SIGKILL);
    fclose(f);
}

static inline bool has_group(const struct run_cgroups *c)
{
    char path[2 * PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s", c->mounts[RUN_MEMORY], c->base);
    return access(path, F_OK) == 0;
}

#endif
