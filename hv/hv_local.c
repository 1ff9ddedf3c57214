/* Node processes on this machine: where they are, how they fare, and their end. Starting them is in
 * hv_local_start.c. */
#include "hv/hv_local.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hv/hv_held.h"
#include "hv/hv_local_private.h"

/* For the kernel to end a killed process. */
#define KILLED_MS 1000
#define POLL_MS   20
/* Open folders while a store is removed. */
#define REMOVE_FDS 16

int hv_local_path(char out[PATH_MAX], const char *folder, const char *name, const char *suffix)
{
    return snprintf(out, PATH_MAX, "%s/%s%s", folder, name, suffix) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* Names come from the centre, or from folders: what is no node's name must not be touched. */
static bool is_name(const struct local *l, const char *name)
{
    size_t n = strlen(l->o.prefix);

    return strlen(name) < HV_NAME && strncmp(name, l->o.prefix, n) == 0 && name[n] != '\0' &&
           strspn(name + n, "0123456789") == strlen(name + n);
}

pid_t hv_local_pid(const struct local *l, const char *name)
{
    char lock[PATH_MAX];
    int rc = is_name(l, name) ? hv_local_path(lock, l->o.run, name, ".lock") : -EINVAL;

    return rc < 0 ? rc : hv_held_by(lock);
}

static int offer(void *self, struct hv_offer *out, char detail[HV_DETAIL])
{
    const struct local *l = self;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    cpu_set_t may;

    if (l->o.why_not) {
        snprintf(detail, HV_DETAIL, "%s", l->o.why_not);
        return -EOPNOTSUPP;
    }
    CPU_ZERO(&may);
    if (sched_getaffinity(0, sizeof(may), &may) != 0)
        return -errno;
    out->milli_cpus = (uint32_t)CPU_COUNT(&may) * 1000;
    out->memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    return 0;
}

/* The first line that it said of its start. */
static void what_it_said(const struct local *l, const char *name, char detail[HV_DETAIL])
{
    char path[PATH_MAX];
    ssize_t n = -1;

    detail[0] = '\0';
    int fd =
        hv_local_path(path, l->o.run, name, ".said") == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        n = read(fd, detail, HV_DETAIL - 1);
        close(fd);
    }
    detail[n > 0 ? n : 0] = '\0';
    detail[strcspn(detail, "\n")] = '\0';
    if (strncmp(detail, "error: ", 7) == 0)
        memmove(detail, detail + 7, strlen(detail + 7) + 1);
}

static int state(void *self, const char *name, enum hv_state *out, char detail[HV_DETAIL])
{
    const struct local *l = self;
    char store[PATH_MAX], gone[PATH_MAX];
    struct stat st;
    pid_t pid = hv_local_pid(l, name);

    if (pid < 0)
        return pid;
    *out = HV_RUNS;
    if (pid > 0)
        return 0;
    int rc = hv_local_path(store, l->o.stores, name, "");
    if (rc < 0 || snprintf(gone, sizeof(gone), "%s/%s", store, l->o.gone_file) >= PATH_MAX)
        return -ENAMETOOLONG;
    if (lstat(gone, &st) == 0) {
        *out = HV_LEFT;
    } else if (lstat(store, &st) == 0) {
        *out = HV_ENDED;
        what_it_said(l, name, detail);
    } else {
        *out = HV_ABSENT;
    }
    return 0;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

static int stop(void *self, const char *name, int now, char detail[HV_DETAIL])
{
    struct local *l = self;
    char lock[PATH_MAX];
    pid_t pid = hv_local_pid(l, name);

    if (pid <= 0)
        return pid;
    int rc = hv_local_path(lock, l->o.run, name, ".lock");
    if (rc == 0)
        rc = hv_held_signal(lock, now ? SIGKILL : SIGTERM);
    if (rc < 0)
        snprintf(detail, HV_DETAIL, "cannot signal %s (pid %d): %s", name, (int)pid, strerror(-rc));
    for (int ms = 0; rc == 0 && now && ms < KILLED_MS && hv_local_pid(l, name) > 0; ms += POLL_MS) {
        if (atomic_load(&l->cancel))
            return -ECANCELED;
        sleep_ms(POLL_MS);
    }
    return rc;
}

/* ---- nothing is left of it */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)at;
    if ((type == FTW_DP ? rmdir(path) : unlink(path)) == 0 || errno == ENOENT)
        return 0;
    return -errno;
}

/* Never through a link, nor into what is mounted there. */
static int remove_tree(const char *folder, const char *name, char detail[HV_DETAIL])
{
    char path[PATH_MAX];
    struct stat st;
    int rc = hv_local_path(path, folder, name, "");

    if (rc == 0 && lstat(path, &st) != 0)
        return errno == ENOENT ? 0 : -errno;
    if (rc == 0)
        rc = nftw(path, remove_one, REMOVE_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (rc == -1)
        rc = -errno;
    if (rc < 0)
        snprintf(detail, HV_DETAIL, "cannot remove %.180s: %s", path, strerror(-rc));
    return rc;
}

static int remove_file(const char *folder, const char *name, const char *suffix)
{
    char path[PATH_MAX];
    int rc = hv_local_path(path, folder, name, suffix);

    return rc < 0 || unlink(path) == 0 || errno == ENOENT ? rc : -errno;
}

/* One is kept, for people. */
static void keep_log(const struct local *l, const char *name)
{
    char log[PATH_MAX], kept[PATH_MAX];

    if (hv_local_path(log, l->o.logs, name, ".log") < 0 ||
        hv_local_path(kept, l->o.logs, "ended-node", ".log") < 0 || rename(log, kept) != 0)
        (void)remove_file(l->o.logs, name, ".log");
    (void)remove_file(l->o.logs, name, ".log.1");
}

static int destroy(void *self, const char *name, char detail[HV_DETAIL])
{
    static const char *const suffixes[] = {".pid", ".sock", ".said", ".lock"};
    const struct local *l = self;
    pid_t pid = hv_local_pid(l, name);

    if (pid != 0)
        return pid < 0 ? pid : -EBUSY;
    int rc = remove_tree(l->o.stores, name, detail);
    if (rc == 0 && l->o.identities)
        rc = remove_tree(l->o.identities, name, detail);
    for (size_t k = 0; rc == 0 && k < sizeof(suffixes) / sizeof(suffixes[0]); k++)
        rc = remove_file(l->o.run, name, suffixes[k]);
    if (rc == 0)
        keep_log(l, name);
    return rc;
}

/* ---- what is there */

struct found {
    char (*names)[HV_NAME];
    size_t most, n;
};

static void found_add(struct found *f, const char *name)
{
    for (size_t k = 0; k < f->n; k++)
        if (strcmp(f->names[k], name) == 0)
            return;
    if (f->n < f->most)
        snprintf(f->names[f->n++], HV_NAME, "%s", name);
}

static int look(const struct local *l, const char *folder, const char *suffix, struct found *f)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    char name[HV_NAME];
    size_t tail = strlen(suffix);

    if (!d)
        return errno == ENOENT ? 0 : -errno;
    while ((e = readdir(d))) {
        size_t n = strlen(e->d_name);
        if (n <= tail || n - tail >= sizeof(name) || strcmp(e->d_name + n - tail, suffix) != 0)
            continue;
        memcpy(name, e->d_name, n - tail);
        name[n - tail] = '\0';
        if (is_name(l, name))
            found_add(f, name);
    }
    closedir(d);
    return 0;
}

static int find(void *self, char (*names)[HV_NAME], size_t most, size_t *n, char detail[HV_DETAIL])
{
    const struct local *l = self;
    struct found f = {.names = names, .most = most};
    int rc = look(l, l->o.stores, "", &f);

    if (rc == 0)
        rc = look(l, l->o.run, ".lock", &f);
    if (rc < 0)
        snprintf(detail, HV_DETAIL, "cannot look for nodes: %s", strerror(-rc));
    *n = f.n;
    return rc;
}

/* ---- */

static void local_close(void *self)
{
    free(self);
}

const struct hv_driver hv_local = {.name = "local",
                                   .offer = offer,
                                   .start = hv_local_start,
                                   .state = state,
                                   .stop = stop,
                                   .destroy = destroy,
                                   .find = find,
                                   .close = local_close};

int hv_local_open(const struct hv_local_options *options, void **self, atomic_bool **cancel)
{
    struct local *l = calloc(1, sizeof(*l));

    if (!l)
        return -ENOMEM;
    l->o = *options;
    *self = l;
    *cancel = &l->cancel;
    return 0;
}
