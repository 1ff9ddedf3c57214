#include "tools/ctl.h"

#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/wire/words.h"
#include "tools/mounting.h"
#include "tools/options.h"
#include "tools/progress.h"
#include "tools/text.h"

#define TICK_MS 200

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ctl_options *o = state->input;

    switch (key) {
    case 'r':
        o->root = arg;
        return 0;
    case 'm':
        o->mount = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"root", 'r', "DIR", 0, "the cloud that lives there (it must be mounted)", 90},
    {"mount", 'm', "MNT", 0,
     "the cloud that is mounted there; else $UMBEL_MOUNT, or the mount that holds the working "
     "directory",
     90},
    {0},
};
const struct argp ctl_argp = {options, parse, NULL, NULL, NULL, NULL, NULL};

/* Is this folder the root of a mount? */
static bool has_control_files(const char *folder)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/.umbel/version", folder) >= (int)sizeof(path))
        return false;
    return access(path, F_OK) == 0;
}

static int use_mount(struct ctl *c, const char *mount, const char *whence)
{
    if (realpath(mount, c->mount) == NULL) {
        int error = errno;
        warnx("%s%s: %s", whence, mount, strerror(error));
        return -error;
    }
    if (!has_control_files(c->mount)) {
        warnx("%s%s is not where a cloud is mounted (there is no .umbel/version)", whence, mount);
        return -ENOTCONN;
    }
    return 0;
}

static int use_root(struct ctl *c, const char *dir)
{
    char mount[PATH_MAX];
    struct root r;

    if (root_open(&r, dir, false) != 0) {
        warnx("%s", r.detail);
        return -EINVAL;
    }
    if (mounting_any(&r, mount) != 0) {
        if (process_pid(&r, "control-1") > 0)
            warnx("the cloud in %s is not mounted; mount it: umbel mount --root %s MNT", r.path,
                  r.path);
        else
            warnx("the cloud in %s is not running; start it: umbel up --root %s --mount MNT",
                  r.path, r.path);
        return -ENOTCONN;
    }
    return use_mount(c, mount, "");
}

/* Walks up from where (which becomes that folder). */
static bool walk_up(char *where)
{
    while (!has_control_files(where)) {
        char *slash = strrchr(where, '/');

        if (slash == NULL || where[1] == '\0')
            return false;
        slash[slash == where] = '\0';
    }
    return true;
}

int ctl_find(struct ctl *c, const struct ctl_options *o, const char *path)
{
    const char *from_environment = getenv("UMBEL_MOUNT");

    if (o->root != NULL && o->mount != NULL) {
        warnx("--root and --mount exclude each other");
        return -EINVAL;
    }
    if (o->root != NULL)
        return use_root(c, o->root);
    if (o->mount != NULL)
        return use_mount(c, o->mount, "");
    if (path != NULL && realpath(path, c->mount) != NULL && walk_up(c->mount))
        return 0;
    if (from_environment != NULL && from_environment[0] != '\0')
        return use_mount(c, from_environment, "UMBEL_MOUNT=");
    if (getcwd(c->mount, sizeof(c->mount)) != NULL && walk_up(c->mount))
        return 0;
    warnx(
        "which cloud? Say --root DIR or --mount MNT, set UMBEL_MOUNT, or go into a mounted cloud");
    return -ENOENT;
}

static int file_path(const struct ctl *c, const char *file, char *out)
{
    if (snprintf(out, PATH_MAX, "%s/.umbel/%s", c->mount, file) >= PATH_MAX)
        return -ENAMETOOLONG;
    return 0;
}

int ctl_read(const struct ctl *c, const char *file, char **text)
{
    char path[PATH_MAX];
    int rc = file_path(c, file, path);

    return rc != 0 ? rc : text_read_file(path, text, NULL);
}

void ctl_tell(const struct ctl *c, const char *file, int error)
{
    warnx("cannot use %s/.umbel/%s: %s", c->mount, file, strerror(-error));
}

/* The cloud writes one line into `errors` for each command that it refuses. */
static char *last_error_line(const struct ctl *c)
{
    char *text = NULL;

    if (ctl_read(c, "errors", &text) != 0)
        return NULL;
    for (size_t n = strlen(text); n > 0 && text[n - 1] == '\n'; n--)
        text[n - 1] = '\0';
    char *last = strrchr(text, '\n');
    char *line = strdup(last != NULL ? last + 1 : text);
    free(text);
    return line;
}

/* One write(2): the cloud takes each as one command. */
static int write_once(const struct ctl *c, const char *file, const char *command)
{
    char path[PATH_MAX], *line = NULL;
    int rc = file_path(c, file, path);

    if (rc != 0)
        return rc;
    int len = asprintf(&line, "%s\n", command);
    if (len < 0)
        return -ENOMEM;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        rc = -errno;
    } else {
        ssize_t n = write(fd, line, (size_t)len);
        if (n != len)
            rc = n < 0 ? -errno : -EIO;
        if (close(fd) != 0 && rc == 0)
            rc = -errno;
    }
    free(line);
    return rc;
}

static void tell_refused(const struct ctl *c, const char *file, int rc, const char *before)
{
    char *line = last_error_line(c);

    /* A line that stood there before is about something else. */
    if (line != NULL && line[0] != '\0' && (before == NULL || strcmp(line, before) != 0))
        warnx("%s", line);
    else
        ctl_tell(c, file, rc);
    free(line);
}

int ctl_write(const struct ctl *c, const char *file, const char *command)
{
    char *before = last_error_line(c);
    int rc = write_once(c, file, command);

    if (rc != 0)
        tell_refused(c, file, rc, before);
    free(before);
    return rc;
}

/* ---- commands that take their time */

struct slow {
    const struct ctl *ctl;
    const char *file, *command;
    ctl_show_fn show;
    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    bool done;
    int rc;
};

static void *slow_write(void *arg)
{
    struct slow *s = arg;
    int rc = write_once(s->ctl, s->file, s->command);

    pthread_mutex_lock(&s->lock);
    s->rc = rc;
    s->done = true;
    pthread_cond_signal(&s->done_cond);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void show_staged(const struct ctl *c, struct progress *p)
{
    char *text = NULL, value[32] = "", size[24], note[64] = "";
    uint64_t bytes;

    if (ctl_read(c, "status", &text) == 0 && text_value(text, "staged", value, sizeof(value)) &&
        text_parse_number(value, 0, UINT64_MAX, &bytes) == 0)
        snprintf(note, sizeof(note), "%s staged", text_size(bytes, size));
    free(text);
    progress_tick(p, 0, 0, note[0] != '\0' ? note : NULL);
}

static void wait_slow(struct slow *s, const char *what)
{
    struct progress progress;

    progress_begin(&progress, "%s", what);
    pthread_mutex_lock(&s->lock);
    while (!s->done) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        if (pthread_cond_clockwait(&s->done_cond, &s->lock, CLOCK_MONOTONIC, &until) == 0)
            continue;
        pthread_mutex_unlock(&s->lock);
        s->show(s->ctl, &progress);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    progress_end(&progress);
}

int ctl_write_slow(const struct ctl *c, const char *file, const char *command, const char *what)
{
    return ctl_write_watched(c, file, command, what, show_staged);
}

uint64_t ctl_number(const struct ctl *c, const char *file, const char *key)
{
    char *text = NULL, value[32] = "";
    uint64_t number = 0;

    if (ctl_read(c, file, &text) == 0 && text_value(text, key, value, sizeof(value)) &&
        text_parse_number(value, 0, UINT64_MAX, &number) != 0)
        number = 0;
    free(text);
    return number;
}

int ctl_write_watched(const struct ctl *c, const char *file, const char *command, const char *what,
                      ctl_show_fn show)
{
    struct slow s = {
        .show = show,
        .ctl = c,
        .file = file,
        .command = command,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .done_cond = PTHREAD_COND_INITIALIZER,
    };
    char *before = last_error_line(c);
    pthread_t thread;
    int rc = -pthread_create(&thread, NULL, slow_write, &s);

    if (rc == 0) {
        wait_slow(&s, what);
        pthread_join(thread, NULL);
        rc = s.rc;
    }
    if (rc != 0)
        tell_refused(c, file, rc, before);
    free(before);
    return rc;
}

/* ---- names */

bool ctl_is_top(const char *path)
{
    char whole[PATH_MAX];

    return realpath(path, whole) != NULL && strcmp(whole, "/") == 0;
}

int ctl_inside(const struct ctl *c, const char *path, char *out)
{
    char whole[PATH_MAX];
    size_t n = strlen(c->mount);

    if (realpath(ctl_is_top(path) ? c->mount : path, whole) == NULL) {
        int error = errno;
        warnx("%s: %s", path, strerror(error));
        return -error;
    }
    if (strncmp(whole, c->mount, n) != 0 || (whole[n] != '/' && whole[n] != '\0')) {
        warnx("%s is not in the cloud mounted at %s", path, c->mount);
        return -EXDEV;
    }
    if (strchr(whole, '\n') != NULL) {
        warnx("a command is one line, and this path has several: %s", path);
        return -EINVAL;
    }
    memcpy(out, whole[n] == '\0' ? "/" : whole + n, whole[n] == '\0' ? 2 : strlen(whole + n) + 1);
    return 0;
}

static int not_hidden(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static int scan(const struct ctl *c, const char *folder, struct dirent ***names)
{
    char path[PATH_MAX];
    int rc = file_path(c, folder, path);

    if (rc != 0)
        return rc;
    int n = scandir(path, names, not_hidden, versionsort);
    return n < 0 ? -errno : n;
}

int ctl_each(const struct ctl *c, const char *folder,
             int (*fn)(const struct ctl *c, const char *name, void *arg), void *arg)
{
    struct dirent **names;
    int n = scan(c, folder, &names), rc = 0;

    if (n < 0) {
        ctl_tell(c, folder, n);
        return n;
    }
    for (int i = 0; i < n; i++) {
        if (rc == 0)
            rc = fn(c, names[i]->d_name, arg);
        free(names[i]);
    }
    free(names);
    return rc;
}

char *ctl_nearest(const struct ctl *c, const char *folder, const char *word)
{
    struct dirent **names;
    const char *best = NULL;
    int n = scan(c, folder, &names);

    if (n < 0)
        return NULL;
    for (int i = 0; i < n; i++)
        words_nearer(word, names[i]->d_name, &best);
    char *copy = best != NULL ? strdup(best) : NULL;
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return copy;
}
