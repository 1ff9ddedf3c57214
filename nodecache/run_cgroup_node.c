/*
 * The control group of a node, below which those of its runs stand: found and made by libcgroup,
 * held as long as anybody needs it, and removed.
 *
 * Who needs it holds a shared lock (flock) on its folder, in v1 on that of the first controller:
 * the kernel gives it up when the last of these processes has ended, however that was. Who removes
 * a group has the lock alone, and removes the folder with the lock at last: so nobody holds one of
 * which a part is missing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <libcgroup.h>

#include "control/wire/log.h"
#include "nodecache/run_cgroup_private.h"

/* All groups of nodes stand there. */
#define TOP "umbel"
/* Somebody may be removing the group, or a process be born where none may be. */
#define TRIES      50
#define BETWEEN_NS 10000000L
/* A container's processes, moved out of its uppermost group. */
#define OUTSIDE "init"

static const char *controller_name(enum run_controller k)
{
    static const char *const names[] = {"cpu", "memory", "pids", "cpuacct"};

    return names[k];
}

static void pause_between(void)
{
    nanosleep(&(struct timespec){.tv_nsec = BETWEEN_NS}, NULL);
}

static int from_libcgroup(int rc)
{
    if (rc == 0)
        return 0;
    if (rc == ECGOTHER && cgroup_get_last_errno() > 0)
        return -cgroup_get_last_errno();
    return rc == ECGROUPNOTOWNER || rc == ECGROUPNOTALLOWED ? -EACCES : -EIO;
}

static void why(char detail[RUN_DETAIL], const char *what, int rc)
{
    snprintf(detail, RUN_DETAIL, "%s: %s", what,
             rc == ECGOTHER ? strerror(cgroup_get_last_errno()) : cgroup_strerror(rc));
}

/* ---- v2: a group has the controllers that all groups above it pass on */

static int write_at(const char *folder, const char *file, const char *text)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", folder, file) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int pass_on(const char *folder)
{
    return write_at(folder, "cgroup.subtree_control", "+cpu +memory +pids");
}

/* A group passes controllers on or has processes, unless it is the machine's uppermost one. The
 * uppermost one that a container sees is not, and has the container's processes. */
static int empty_top(const char *top)
{
    char path[PATH_MAX], outside[PATH_MAX], *line = NULL;
    size_t size = 0;
    int rc = 0;

    if (snprintf(path, sizeof(path), "%s/cgroup.procs", top) >= (int)sizeof(path) ||
        snprintf(outside, sizeof(outside), "%s/" OUTSIDE, top) >= (int)sizeof(outside))
        return -ENAMETOOLONG;
    if (mkdir(outside, 0755) < 0 && errno != EEXIST)
        return -errno;
    FILE *f = fopen(path, "re");
    if (!f)
        return -errno;
    while (getline(&line, &size, f) > 0) {
        line[strcspn(line, "\n")] = 0;
        /* 0: of another process space, which we cannot name */
        int one = strcmp(line, "0") == 0 ? -EBUSY : write_at(outside, "cgroup.procs", line);
        if (one < 0 && one != -ESRCH)
            rc = one;
    }
    free(line);
    fclose(f);
    return rc;
}

static int pass_on_top(const char *top, char detail[RUN_DETAIL])
{
    int rc = pass_on(top);

    for (int i = 0; rc == -EBUSY && i < TRIES; i++) { /* one may be born meanwhile */
        if (i == 0)
            log_warning("the processes in this container's uppermost control group go into its "
                        "group '" OUTSIDE "', so that there can be others");
        rc = empty_top(top);
        if (rc == 0)
            rc = pass_on(top);
    }
    if (rc < 0)
        snprintf(detail, RUN_DETAIL, "%.100s cannot pass on cpu, memory and pids: %s", top,
                 strerror(-rc));
    return rc;
}

static int pass_on_ours(const struct run_cgroups *c, char detail[RUN_DETAIL])
{
    char path[PATH_MAX];
    int rc = 0;

    if (snprintf(path, sizeof(path), "%s/" TOP, c->mounts[RUN_CPU]) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    rc = pass_on(path);
    if (rc == 0)
        rc = run_cgroup_path(c, RUN_CPU, NULL, NULL, path);
    if (rc == 0)
        rc = pass_on(path);
    if (rc < 0)
        snprintf(detail, RUN_DETAIL, "%.100s cannot pass on cpu, memory and pids: %s", path,
                 strerror(-rc));
    return rc;
}

/* ---- the node's group */

static int create(const struct run_cgroups *c, char detail[RUN_DETAIL])
{
    struct cgroup *g = cgroup_new_cgroup(c->base);
    int rc = g ? 0 : ECGFAIL;

    for (enum run_controller k = RUN_CPU; rc == 0 && k < RUN_CONTROLLERS; k++)
        if (c->mounts[k][0] && !cgroup_add_controller(g, controller_name(k)))
            rc = ECGFAIL;
    if (rc == 0)
        rc = cgroup_create_cgroup(g, 1);
    if (rc != 0)
        why(detail, "the node's control group", rc);
    cgroup_free(&g);
    return from_libcgroup(rc);
}

/* Locked, and still there under its name: the lock, or -errno. */
static int lock_group(const char *path, int how)
{
    struct stat locked, there;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -errno : 0;

    if (rc == 0 && flock(fd, how | LOCK_NB) < 0)
        rc = -errno;
    if (rc == 0 && (fstat(fd, &locked) < 0 || stat(path, &there) < 0))
        rc = -errno;
    if (rc == 0 && (locked.st_ino != there.st_ino || locked.st_dev != there.st_dev))
        rc = -ENOENT;
    if (rc < 0 && fd >= 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

static int hold(struct run_cgroups *c)
{
    char path[PATH_MAX];
    int rc = run_cgroup_path(c, RUN_CPU, NULL, NULL, path);
    int fd = rc < 0 ? rc : lock_group(path, LOCK_SH);

    if (fd < 0)
        return fd;
    run_cgroups_close(c);
    c->hold = fd;
    return 0;
}

static bool is_whole(const struct run_cgroups *c)
{
    char path[PATH_MAX];

    for (enum run_controller k = RUN_CPU; k < RUN_CONTROLLERS; k++)
        if (run_cgroup_has_tree(c, k) &&
            (run_cgroup_path(c, k, NULL, NULL, path) < 0 || access(path, F_OK) < 0))
            return false;
    return true;
}

/* Somebody may be removing it at the same time, until it is held. */
int run_cgroups_make_node(struct run_cgroups *c, char detail[RUN_DETAIL])
{
    int rc = c->v2 ? pass_on_top(c->mounts[RUN_CPU], detail) : 0;

    if (rc < 0)
        return rc;
    for (int i = 0; i < TRIES; i++) {
        rc = create(c, detail);
        if (rc == 0 && c->v2)
            rc = pass_on_ours(c, detail);
        if (rc == 0 && (rc = hold(c)) < 0)
            snprintf(detail, RUN_DETAIL, "the node's control group: %s", strerror(-rc));
        if (rc == 0 && is_whole(c))
            return 0;
        pause_between();
    }
    return rc < 0 ? rc : -EBUSY;
}

int run_cgroups_keep(struct run_cgroups *c)
{
    char path[PATH_MAX], detail[RUN_DETAIL];
    struct stat held, there;

    if (c->hold >= 0 && run_cgroup_path(c, RUN_CPU, NULL, NULL, path) == 0 &&
        fstat(c->hold, &held) == 0 && stat(path, &there) == 0 && held.st_ino == there.st_ino)
        return 0;
    return run_cgroups_make_node(c, detail);
}

/* ---- removing one */

/* Of the node NAME; the folder with the lock, which the caller has alone, at last. */
static int remove_trees(const struct run_cgroups *c, const char *name)
{
    int rc = 0;

    for (int k = RUN_CONTROLLERS - 1; rc == 0 && k >= 0; k--) {
        char path[PATH_MAX];
        if (!run_cgroup_has_tree(c, (enum run_controller)k) ||
            (k != RUN_CPU && strcmp(c->mounts[k], c->mounts[RUN_CPU]) == 0)) /* one tree of both */
            continue;
        if (snprintf(path, sizeof(path), "%s/" TOP "/%s", c->mounts[k], name) >= (int)sizeof(path))
            rc = -ENAMETOOLONG;
        else if (rmdir(path) < 0 && errno != ENOENT)
            rc = -errno;
    }
    return rc;
}

int run_cgroups_remove_node(const struct run_cgroups *c)
{
    if (c->hold < 0)
        return -EBUSY; /* who knows who needs it: the next one who comes by */
    if (flock(c->hold, LOCK_EX | LOCK_NB) < 0) {
        (void)flock(c->hold, LOCK_SH | LOCK_NB); /* the kernel has taken it from us */
        return -EBUSY;
    }
    int rc = remove_trees(c, c->base + strlen(TOP) + 1);
    if (rc < 0)
        (void)flock(c->hold, LOCK_SH | LOCK_NB); /* only less */
    return rc;
}

/* Of a node that is no more: the groups of its runs first. */
static void remove_runs(const struct run_cgroups *c, const char *name)
{
    for (enum run_controller k = RUN_CPU; k < RUN_CONTROLLERS; k++) {
        char path[PATH_MAX];
        struct dirent *e;
        if (!run_cgroup_has_tree(c, k) ||
            snprintf(path, sizeof(path), "%s/" TOP "/%s", c->mounts[k], name) >= (int)sizeof(path))
            continue;
        DIR *dir = opendir(path);
        while (dir && (e = readdir(dir)))
            if (e->d_type == DT_DIR && e->d_name[0] != '.')
                (void)unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR); /* in use: all of it stays */
        if (dir)
            closedir(dir);
    }
}

static void sweep_one(const struct run_cgroups *c, const char *name)
{
    char path[PATH_MAX];

    if (strcmp(name, c->base + strlen(TOP) + 1) == 0 ||
        snprintf(path, sizeof(path), "%s/" TOP "/%s", c->mounts[RUN_CPU], name) >=
            (int)sizeof(path))
        return;
    if (mkdir(path, 0755) < 0 && errno != EEXIST) /* a part of it is left, without the lock */
        return;
    int fd = lock_group(path, LOCK_EX);
    if (fd < 0)
        return; /* somebody needs it */
    remove_runs(c, name);
    (void)remove_trees(c, name); /* processes are in it: the next one who comes by */
    close(fd);
}

void run_cgroups_sweep(const struct run_cgroups *c)
{
    for (enum run_controller k = RUN_CPU; k < RUN_CONTROLLERS; k++) {
        char path[PATH_MAX];
        struct dirent *e;
        if (!run_cgroup_has_tree(c, k) ||
            snprintf(path, sizeof(path), "%s/" TOP, c->mounts[k]) >= (int)sizeof(path))
            continue;
        DIR *dir = opendir(path);
        while (dir && (e = readdir(dir)))
            if (e->d_type == DT_DIR && e->d_name[0] != '.')
                sweep_one(c, e->d_name);
        if (dir)
            closedir(dir);
    }
}

/* ---- life */

static int find_mount(struct run_cgroups *c, enum run_controller k)
{
    char *mount = NULL;
    int rc = cgroup_get_subsys_mount_point(controller_name(k), &mount);

    if (rc == 0 && strlen(mount) >= sizeof(c->mounts[k]))
        rc = ECGFAIL;
    if (rc == 0)
        snprintf(c->mounts[k], sizeof(c->mounts[k]), "%s", mount);
    free(mount);
    return rc;
}

static bool is_v2(const char *mount)
{
    char path[PATH_MAX];

    return snprintf(path, sizeof(path), "%s/cgroup.controllers", mount) < (int)sizeof(path) &&
           access(path, F_OK) == 0;
}

static int find_mounts(struct run_cgroups *c, char detail[RUN_DETAIL])
{
    for (enum run_controller k = RUN_CPU; k <= RUN_PIDS; k++) {
        if (find_mount(c, k) != 0) {
            snprintf(detail, RUN_DETAIL, "the control group controller '%s' is not mounted",
                     controller_name(k));
            return -ENOENT;
        }
        bool v2 = is_v2(c->mounts[k]);
        if (k > RUN_CPU && v2 != c->v2) {
            snprintf(detail, RUN_DETAIL,
                     "the control group controllers cpu, memory and pids must be all of v1 or all "
                     "of v2: %.60s and %.60s are not",
                     c->mounts[RUN_CPU], c->mounts[k]);
            return -EOPNOTSUPP;
        }
        c->v2 = v2;
    }
    if (!c->v2)
        (void)find_mount(c, RUN_CPUACCT); /* without it the processes' own times count */
    return 0;
}

int run_cgroups_open(struct run_cgroups *c, const char *base, char detail[RUN_DETAIL])
{
    int rc = cgroup_init();

    memset(c, 0, sizeof(*c));
    c->hold = -1;
    snprintf(c->base, sizeof(c->base), TOP "/%s", base);
    if (rc != 0) {
        why(detail, "control groups", rc);
        return from_libcgroup(rc);
    }
    rc = find_mounts(c, detail);
    if (rc == 0)
        rc = run_cgroups_make_node(c, detail);
    if (rc < 0)
        run_cgroups_close(c);
    return rc;
}

void run_cgroups_close(struct run_cgroups *c)
{
    if (c->hold >= 0)
        close(c->hold);
    c->hold = -1;
}
