#include "tools/mounting.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "tools/text.h"

#define KEEPER        "keeper-"
#define DEAD_MS       2000 /* a mount that is served answers within this */
#define POLL_MS       20
#define END_WAIT_MS   2000
#define WORKER_END_MS 20000 /* it finishes what it has, and says goodbye to the centre */
#define NAME_TRIES    100   /* mounts of one cloud whose folders have the same name */

bool mounting_is_mounted(const char *point, char *type, char *source)
{
    char line[PATH_MAX * 2];
    struct mntent entry;
    bool found = false;
    FILE *f = setmntent("/proc/self/mounts", "re");

    if (f == NULL)
        return false;
    while (getmntent_r(f, &entry, line, sizeof(line)) != NULL) {
        if (strcmp(entry.mnt_dir, point) != 0)
            continue;
        found = true; /* the last one lies on top */
        if (type != NULL)
            snprintf(type, 64, "%s", entry.mnt_type);
        if (source != NULL)
            snprintf(source, 64, "%s", entry.mnt_fsname);
    }
    endmntent(f);
    return found;
}

/* realpath(3), but the last part may be a mountpoint that answers no more. */
static int canonical(const char *given, char *out)
{
    char folder[PATH_MAX], whole[PATH_MAX];

    if (realpath(given, out) != NULL)
        return 0;
    if (errno != ENOTCONN && errno != EIO && errno != ETIMEDOUT)
        return -errno;
    if (snprintf(folder, sizeof(folder), "%s", given) >= (int)sizeof(folder))
        return -ENAMETOOLONG;
    for (size_t n = strlen(folder); n > 1 && folder[n - 1] == '/'; n--)
        folder[n - 1] = '\0';
    char *slash = strrchr(folder, '/');
    const char *last = slash != NULL ? slash + 1 : folder;
    char name[NAME_MAX + 1];
    snprintf(name, sizeof(name), "%s", last);
    if (slash != NULL)
        slash[slash == folder] = '\0';
    if (realpath(slash != NULL ? folder : ".", whole) == NULL)
        return -errno;
    bool top = strcmp(whole, "/") == 0;
    if (snprintf(out, PATH_MAX, "%s/%s", top ? "" : whole, name) >= PATH_MAX)
        return -ENAMETOOLONG;
    return 0;
}

static bool is_inside(const char *path, const char *folder)
{
    size_t n = strlen(folder);

    return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == '\0' || n == 1);
}

struct search {
    const struct root *root;
    const char *point; /* NULL: any */
    bool running_only;
    char name[ROOT_NAME_MAX]; /* found: keeper-NAME */
    char found[PATH_MAX];     /* its mountpoint */
};

static bool search_one(void *arg, const char *name)
{
    struct search *s = arg;
    char note[PATH_MAX];

    if (process_note(s->root, name, note, sizeof(note)) != 0 ||
        (s->point != NULL && strcmp(note, s->point) != 0) ||
        (s->running_only && process_pid(s->root, name) <= 0))
        return true;
    snprintf(s->name, sizeof(s->name), "%s", name);
    snprintf(s->found, sizeof(s->found), "%s", note);
    return false;
}

int mounting_any(const struct root *r, char *out)
{
    struct search s = {.root = r, .running_only = true};
    int rc = process_each(r, KEEPER, search_one, &s);

    if (rc != 0)
        return rc;
    if (s.name[0] == '\0')
        return -ENOENT;
    memcpy(out, s.found, sizeof(s.found));
    return 0;
}

void mounting_worker_name(const char *keeper, char *out)
{
    snprintf(out, ROOT_NAME_MAX + 8, "mount-%.*s", ROOT_NAME_MAX, keeper + strlen(KEEPER));
}

/* Our filesystem lies on top there. */
static bool is_umbel(const char *point)
{
    char type[64];

    return mounting_is_mounted(point, type, NULL) && strcmp(type, "fuse.umbel") == 0;
}

static void sleep_ms(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    nanosleep(&t, NULL);
}

/* In a child: it may wait for ever for whoever serves the mount, and then must hold no lock of
 * ours. Exit status 1: nobody serves it. */
static void try_open(const char *point)
{
    close_range(3, ~0u, 0);
    /* Not by stat: the kernel may still answer that from what it keeps. */
    int fd = open(point, O_RDONLY | O_DIRECTORY);
    _exit(fd < 0 && (errno == ENOTCONN || errno == ECONNABORTED));
}

/* 1: nobody serves it; 0: somebody does; -EBUSY: it does not answer. */
static int is_dead(const char *point)
{
    int64_t end = clock_boot_ms() + DEAD_MS;
    pid_t child = fork(), ended;
    int status = 0;

    if (child < 0)
        return -errno;
    if (child == 0)
        try_open(point);
    while ((ended = waitpid(child, &status, WNOHANG)) == 0 && clock_boot_ms() < end)
        sleep_ms(POLL_MS);
    if (ended == 0)
        kill(child, SIGKILL); /* it ends when the kernel lets it */
    return ended != child ? -EBUSY : WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

/* A worker ends with its keeper; it may have something to finish. */
static int end_worker(const struct root *r, const char *keeper)
{
    char worker[ROOT_NAME_MAX + 8];

    mounting_worker_name(keeper, worker);
    process_signal(r, worker, SIGTERM);
    return process_wait_end(r, worker, WORKER_END_MS) != 0 ? -EBUSY : 0;
}

int mounting_clear_dead(const struct root *r, const char *keeper)
{
    char point[PATH_MAX];

    if (process_pid(r, keeper) != 0)
        return 0;
    int rc = end_worker(r, keeper);
    if (rc != 0 || process_note(r, keeper, point, sizeof(point)) != 0 || !is_umbel(point))
        return rc;
    rc = is_dead(point); /* 0: somebody else's */
    if (rc <= 0)
        return rc;
    return umount2(point, MNT_DETACH | MNT_FORCE) != 0 ? -errno : 0;
}

/* A name made of the folder's: it stands in names of files and logs. */
static void name_of(const char *point, unsigned attempt, char out[ROOT_NAME_MAX])
{
    const char *from = strrchr(point, '/');
    size_t n = 0;

    for (from = from != NULL ? from + 1 : point; *from != '\0' && n < 24; from++)
        out[n++] = isalnum((unsigned char)*from) || strchr("._-", *from) ? *from : '_';
    if (n == 0)
        out[n++] = 'm';
    out[n] = '\0';
    if (attempt > 1)
        snprintf(out + n, ROOT_NAME_MAX - n, "-%u", attempt);
}

static int choose_name(const struct root *r, struct mounting *m)
{
    for (unsigned i = 1; i <= NAME_TRIES; i++) {
        char keeper[ROOT_NAME_MAX + 8], worker[ROOT_NAME_MAX + 8];

        name_of(m->point, i, m->name);
        snprintf(keeper, sizeof(keeper), KEEPER "%s", m->name);
        mounting_worker_name(keeper, worker);
        if (process_pid(r, keeper) == 0 && process_pid(r, worker) == 0)
            return 0;
    }
    return -EMFILE;
}

/* In use by something else than a keeper of this cloud? What a killed one left is taken away. */
static int check_free(const struct root *r, const struct mounting *m, char *detail)
{
    struct search s = {.root = r, .point = m->point};
    char type[64] = "", source[64] = "";
    int rc;

    process_each(r, KEEPER, search_one, &s);
    if (s.name[0] != '\0' && (rc = mounting_clear_dead(r, s.name)) != 0) {
        snprintf(detail, PROCESS_DETAIL, "cannot take away what a killed mount left at %.300s: %s",
                 m->point, strerror(-rc));
        return rc;
    }
    if (mounting_is_mounted(m->point, type, source)) {
        snprintf(detail, PROCESS_DETAIL, "%.300s is in use: %s (%s) is mounted there", m->point,
                 source, type);
        return -EBUSY;
    }
    return 0;
}

/* A keeper that runs while nothing is mounted there is about to end, or its mount was detached
 * while it was in use: then it serves that to the end, under its name, and is none of ours here. */
static bool is_running(const struct root *r, const char *keeper, const char *point)
{
    int64_t end = clock_boot_ms() + END_WAIT_MS;

    while (process_pid(r, keeper) > 0) {
        if (is_umbel(point))
            return true;
        if (clock_boot_ms() >= end)
            break;
        sleep_ms(POLL_MS);
    }
    return false;
}

int mounting_check(const struct root *r, const char *given, struct mounting *m,
                   char detail[PROCESS_DETAIL])
{
    struct stat st;

    memset(m, 0, sizeof(*m));
    int rc = canonical(given, m->point);
    if (rc != 0) {
        snprintf(detail, PROCESS_DETAIL, "mountpoint %.300s: %s", given, strerror(-rc));
        return rc;
    }
    if (is_inside(m->point, r->path) || is_inside(r->path, m->point)) {
        snprintf(detail, PROCESS_DETAIL,
                 "mountpoint %.200s and root %.200s must not lie in one another", m->point,
                 r->path);
        return -EINVAL;
    }
    struct search s = {.root = r, .point = m->point, .running_only = true};
    process_each(r, KEEPER, search_one, &s);
    if (s.name[0] != '\0' && is_running(r, s.name, m->point)) {
        memcpy(m->name, s.name + strlen(KEEPER), strlen(s.name + strlen(KEEPER)) + 1);
        m->was_running = true;
        return 0;
    }
    rc = check_free(r, m, detail);
    if (rc == 0 && (stat(m->point, &st) != 0 || !S_ISDIR(st.st_mode))) {
        snprintf(detail, PROCESS_DETAIL, "mountpoint %.300s is not a folder", m->point);
        rc = -ENOTDIR;
    }
    if (rc == 0 && (rc = choose_name(r, m)) != 0)
        snprintf(detail, PROCESS_DETAIL, "too many mounts in folders of that name");
    return rc;
}

/* Long enough for a node that is only slow, and for a restart to be waited out. */
#define SOFT_MIN_S 5
#define SOFT_MAX_S 86400

int mounting_parse_soft(const char *text, int *ms)
{
    static const char units[] = "smh";
    static const uint64_t seconds[] = {1, 60, 3600};
    char digits[16];
    size_t n = strspn(text, "0123456789");
    const char *unit = text[n] != '\0' ? strchr(units, text[n]) : units;
    uint64_t value;

    if (n == 0 || n >= sizeof(digits) || unit == NULL || (text[n] != '\0' && text[n + 1] != '\0'))
        return -EINVAL;
    memcpy(digits, text, n);
    digits[n] = '\0';
    if (text_parse_number(digits, 1, SOFT_MAX_S, &value) != 0)
        return -EINVAL;
    value *= seconds[unit - units];
    if (value < SOFT_MIN_S || value > SOFT_MAX_S)
        return -EINVAL;
    *ms = (int)value * 1000;
    return 0;
}

void mounting_add_soft(const struct mounting *m, const char **args, size_t n, char *text)
{
    if (m->soft_ms == 0)
        return;
    snprintf(text, 24, "%ds", m->soft_ms / 1000);
    args[n] = "--soft";
    args[n + 1] = text;
}

int mounting_start(const struct root *r, struct mounting *m, char detail[PROCESS_DETAIL])
{
    char keeper[ROOT_NAME_MAX + 8];
    const char *args[] = {"mount", "--foreground", "--root", r->path, "--name",
                          m->name, m->point,       NULL,     NULL,    NULL};
    char soft[24];

    mounting_add_soft(m, args, 7, soft);
    snprintf(keeper, sizeof(keeper), KEEPER "%s", m->name);
    int rc = process_start(r, keeper, args, &m->was_running, detail);
    if (rc == 0 && !is_umbel(m->point)) {
        snprintf(detail, PROCESS_DETAIL, "%.300s was unmounted at once; see %.300s/log/%s.log",
                 m->point, r->path, keeper);
        rc = -ENOENT;
    }
    return rc;
}

/* ---- who uses a mount */

static bool link_leads_into(const char *link, const char *point)
{
    char target[PATH_MAX];
    ssize_t n = readlink(link, target, sizeof(target) - 1);

    if (n < 0)
        return false;
    target[n] = '\0';
    return is_inside(target, point);
}

static bool uses(const char *pid, const char *point)
{
    char path[PATH_MAX];
    struct dirent *e;
    bool found;

    snprintf(path, sizeof(path), "/proc/%s/cwd", pid);
    found = link_leads_into(path, point);
    snprintf(path, sizeof(path), "/proc/%s/root", pid);
    found = found || (link_leads_into(path, point) && strcmp(point, "/") != 0);
    snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    DIR *d = opendir(path);
    while (d != NULL && !found && (e = readdir(d)) != NULL) {
        snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, e->d_name);
        found = link_leads_into(path, point);
    }
    if (d != NULL)
        closedir(d);
    return found;
}

void mounting_tell_users(const char *point, unsigned most)
{
    struct dirent *e;
    DIR *d = opendir("/proc");

    while (d != NULL && most > 0 && (e = readdir(d)) != NULL) {
        char path[PATH_MAX], *comm = NULL;

        if (!isdigit((unsigned char)e->d_name[0]) || !uses(e->d_name, point))
            continue;
        snprintf(path, sizeof(path), "/proc/%s/comm", e->d_name);
        if (text_read_file(path, &comm, NULL) == 0)
            comm[strcspn(comm, "\n")] = '\0';
        fprintf(stderr, "  in use by process %s (%s)\n", e->d_name, comm != NULL ? comm : "?");
        free(comm);
        most--;
    }
    if (d != NULL)
        closedir(d);
}
