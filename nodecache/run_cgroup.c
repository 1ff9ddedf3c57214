/*
 * The control groups of runs, made, entered and removed by hand: libcgroup, which has made the
 * node's own (run_cgroup_node.c), reads the mounts again for each of that, which cost more than all
 * other work of a short run.
 */
#include "nodecache/run_cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "nodecache/run_cgroup_private.h"

/* The kernel's least quota is 1 ms; a longer period lets a small share be one. */
#define PERIOD_US        100000u
#define PERIOD_LONG_US   1000000u
#define QUOTA_LEAST_US   1000u
#define FILE_TEXT_MAX    4096
#define PROCS_TEXT_MAX   65536
#define BETWEEN_KILLS_NS 10000000L

void run_cgroup_quota(uint32_t milli_cpus, uint64_t *quota_us, uint64_t *period_us)
{
    *period_us =
        milli_cpus * (uint64_t)PERIOD_US / 1000 >= QUOTA_LEAST_US ? PERIOD_US : PERIOD_LONG_US;
    *quota_us = milli_cpus * *period_us / 1000;
    if (*quota_us < QUOTA_LEAST_US)
        *quota_us = QUOTA_LEAST_US;
}

uint64_t run_cgroup_key(const char *text, const char *key)
{
    size_t n = strlen(key);

    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, n) == 0 && line[n] == ' ')
            return strtoull(line + n + 1, NULL, 10);
    }
    return 0;
}

/* ---- paths and files; the kernel's interface, which libcgroup has only as a whole */

int run_cgroup_path(const struct run_cgroups *c, enum run_controller k, const char *name,
                    const char *file, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/%s%s%s%s%s", c->mounts[k], c->base, name ? "/" : "",
                     name ? name : "", file ? "/" : "", file ? file : "");
    return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int read_text(const struct run_cgroups *c, enum run_controller k, const char *name,
                     const char *file, char *text, size_t size)
{
    char path[PATH_MAX];
    int fd = -1, rc = c->mounts[k][0] ? run_cgroup_path(c, k, name, file, path) : -ENOENT;

    text[0] = 0;
    if (rc == 0 && (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        rc = -errno;
    if (rc == 0) {
        ssize_t n = read(fd, text, size - 1);
        rc = n < 0 ? -errno : 0;
        text[n < 0 ? 0 : n] = 0;
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

static uint64_t read_number(const struct run_cgroups *c, enum run_controller k, const char *name,
                            const char *file, const char *key)
{
    char text[FILE_TEXT_MAX];

    if (read_text(c, k, name, file, text, sizeof(text)) < 0)
        return 0;
    return key ? run_cgroup_key(text, key) : strtoull(text, NULL, 10);
}

static int write_text(const struct run_cgroups *c, enum run_controller k, const char *name,
                      const char *file, const char *text)
{
    char path[PATH_MAX];
    int rc = run_cgroup_path(c, k, name, file, path);
    int fd = rc == 0 ? open(path, O_WRONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return rc < 0 ? rc : -errno;
    rc = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int write_number(const struct run_cgroups *c, enum run_controller k, const char *name,
                        const char *file, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    return write_text(c, k, name, file, text);
}

/* ---- making */

static int limit_v1(const struct run_cgroups *c, const char *name, const struct run_limits *l)
{
    uint64_t quota, period;
    int rc = 0;

    if (l->milli_cpus > 0) {
        run_cgroup_quota(l->milli_cpus, &quota, &period);
        if (period != PERIOD_US) /* which is the kernel's own */
            rc = write_number(c, RUN_CPU, name, "cpu.cfs_period_us", period);
        if (rc == 0)
            rc = write_number(c, RUN_CPU, name, "cpu.cfs_quota_us", quota);
    }
    if (rc == 0 && l->memory > 0)
        rc = write_number(c, RUN_MEMORY, name, "memory.limit_in_bytes", l->memory);
    /* Memory and swap together: else it would swap for hours instead of being out of memory. */
    if (rc == 0 && l->memory > 0) {
        rc = write_number(c, RUN_MEMORY, name, "memory.memsw.limit_in_bytes", l->memory);
        rc = rc == -ENOENT || rc == -EACCES ? 0 : rc; /* a kernel that does not account swap */
    }
    if (rc == 0 && l->pids > 0)
        rc = write_number(c, RUN_PIDS, name, "pids.max", l->pids);
    return rc;
}

static int limit_v2(const struct run_cgroups *c, const char *name, const struct run_limits *l)
{
    uint64_t quota, period;
    char text[48];
    int rc = 0;

    if (l->milli_cpus > 0) {
        run_cgroup_quota(l->milli_cpus, &quota, &period);
        snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64, quota, period);
        rc = write_text(c, RUN_CPU, name, "cpu.max", text);
    }
    if (rc == 0 && l->memory > 0)
        rc = write_number(c, RUN_MEMORY, name, "memory.max", l->memory);
    if (rc == 0 && l->memory > 0) {
        rc = write_text(c, RUN_MEMORY, name, "memory.swap.max", "0");
        rc = rc == -ENOENT || rc == -EACCES ? 0 : rc;
    }
    if (rc == 0 && l->pids > 0)
        rc = write_number(c, RUN_PIDS, name, "pids.max", l->pids);
    return rc;
}

bool run_cgroup_has_tree(const struct run_cgroups *c, enum run_controller k)
{
    return c->mounts[k][0] && (!c->v2 || k == RUN_CPU);
}

static int make_group(const struct run_cgroups *c, const char *name)
{
    char path[PATH_MAX];
    int rc = 0;

    for (enum run_controller k = RUN_CPU; rc == 0 && k < RUN_CONTROLLERS; k++) {
        if (!run_cgroup_has_tree(c, k))
            continue;
        rc = run_cgroup_path(c, k, name, NULL, path);
        if (rc == 0 && mkdir(path, 0755) < 0 && errno != EEXIST)
            rc = -errno;
    }
    return rc;
}

int run_cgroup_make(struct run_cgroups *c, const char *name, const struct run_limits *limits,
                    char detail[RUN_DETAIL])
{
    int rc = make_group(c, name);

    if (rc == -ENOENT) { /* somebody who cleans up has taken the node's group away */
        rc = run_cgroups_make_node(c, detail);
        if (rc < 0)
            return rc;
        rc = make_group(c, name);
    }
    if (rc == 0)
        rc = c->v2 ? limit_v2(c, name, limits) : limit_v1(c, name, limits);
    if (rc < 0)
        snprintf(detail, RUN_DETAIL, "the run's control group: %s", strerror(-rc));
    return rc;
}

int run_cgroup_enter(const struct run_cgroups *c, const char *name)
{
    int rc = 0;

    for (enum run_controller k = RUN_CPU; rc == 0 && k < RUN_CONTROLLERS; k++)
        if (run_cgroup_has_tree(c, k))
            rc = write_text(c, k, name, "cgroup.procs", "0"); /* the writer */
    return rc;
}

/* ---- what is there */

void run_cgroup_usage(const struct run_cgroups *c, const char *name, struct run_group_usage *out)
{
    memset(out, 0, sizeof(*out));
    if (c->v2) {
        out->cpu_us = read_number(c, RUN_CPU, name, "cpu.stat", "usage_usec");
        out->memory = read_number(c, RUN_MEMORY, name, "memory.current", NULL);
        out->memory_peak = read_number(c, RUN_MEMORY, name, "memory.peak", NULL);
        out->oom_kills = read_number(c, RUN_MEMORY, name, "memory.events", "oom_kill");
    } else {
        out->cpu_us = read_number(c, RUN_CPUACCT, name, "cpuacct.usage", NULL) / 1000;
        out->memory = read_number(c, RUN_MEMORY, name, "memory.usage_in_bytes", NULL);
        out->memory_peak = read_number(c, RUN_MEMORY, name, "memory.max_usage_in_bytes", NULL);
        out->oom_kills = read_number(c, RUN_MEMORY, name, "memory.oom_control", "oom_kill");
    }
    if (out->memory_peak < out->memory)
        out->memory_peak = out->memory; /* memory.peak is there from 5.19 on */
}

void run_cgroup_all(const struct run_cgroups *c, struct run_usage *out)
{
    char text[FILE_TEXT_MAX];

    out->cpu_us = c->v2 ? read_number(c, RUN_CPU, NULL, "cpu.stat", "usage_usec")
                        : read_number(c, RUN_CPUACCT, NULL, "cpuacct.usage", NULL) / 1000;
    (void)read_text(c, RUN_MEMORY, NULL, "memory.stat", text, sizeof(text)); /* then it is empty */
    out->memory = c->v2 ? run_cgroup_key(text, "anon") + run_cgroup_key(text, "shmem")
                        : run_cgroup_key(text, "total_rss") + run_cgroup_key(text, "total_shmem");
}

/* From 5.14 on. */
static int kill_v2(const struct run_cgroups *c, const char *name)
{
    return write_text(c, RUN_MEMORY, name, "cgroup.kill", "1");
}

/* The processes of one controller's group; how many. */
static int kill_listed(const struct run_cgroups *c, enum run_controller k, const char *name)
{
    char *text = malloc(PROCS_TEXT_MAX), *end;
    int n = 0, rc = text ? read_text(c, k, name, "cgroup.procs", text, PROCS_TEXT_MAX) : -ENOMEM;

    for (const char *at = text; rc == 0 && *at; at = *end ? end + 1 : end) {
        long pid = strtol(at, &end, 10);
        if (end == at)
            break;
        if (pid > 1) { /* 0: of another process space; never init */
            kill((pid_t)pid, SIGKILL);
            n++;
        }
    }
    free(text);
    return rc == -ENOENT || rc == -ENODEV ? 0 : rc < 0 ? rc : n;
}

int run_cgroup_kill(const struct run_cgroups *c, const char *name, int tries)
{
    for (int i = 0;; i++) {
        int left = 0;
        if (c->v2)
            (void)kill_v2(c, name); /* not there: one after the other */
        for (enum run_controller k = RUN_CPU; k <= RUN_PIDS; k++) {
            int n = !run_cgroup_has_tree(c, k) ? 0 : kill_listed(c, k, name);
            if (n < 0)
                return n;
            left += n;
        }
        if (left == 0)
            return 0;
        if (i >= tries)
            return -EBUSY;
        nanosleep(&(struct timespec){.tv_nsec = BETWEEN_KILLS_NS}, NULL);
    }
}

int run_cgroup_remove(const struct run_cgroups *c, const char *name)
{
    int rc = 0;

    for (enum run_controller k = RUN_CPU; k < RUN_CONTROLLERS; k++) {
        char path[PATH_MAX];
        if (!run_cgroup_has_tree(c, k))
            continue;
        int one = run_cgroup_path(c, k, name, NULL, path);
        if (one == 0 && rmdir(path) < 0 && errno != ENOENT)
            one = -errno;
        rc = rc == 0 ? one : rc;
    }
    return rc;
}

int run_cgroup_each(const struct run_cgroups *c, void (*fn)(void *arg, const char *name), void *arg)
{
    for (enum run_controller k = RUN_CPU; k < RUN_CONTROLLERS; k++) {
        char path[PATH_MAX];
        struct dirent *e;
        if (!run_cgroup_has_tree(c, k))
            continue;
        int rc = run_cgroup_path(c, k, NULL, NULL, path);
        DIR *dir = rc == 0 ? opendir(path) : NULL;
        if (!dir)
            return rc < 0 ? rc : errno == ENOENT ? 0 : -errno;
        while ((e = readdir(dir)))
            if (e->d_type == DT_DIR && e->d_name[0] != '.')
                fn(arg, e->d_name);
        closedir(dir);
    }
    return 0;
}
