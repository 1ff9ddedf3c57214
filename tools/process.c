#include "tools/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "hv/hv_detach.h"
#include "hv/hv_held.h"
#include "tools/progress.h"
#include "tools/text.h"

#define READY_FD    3
#define ARGS_MAX    24
#define TICK_MS     100
#define LOG_MAX     (16ll << 20) /* a larger log is set aside (NAME.log.1) at the next start */
#define KILL_END_MS 5000         /* the kernel's own work on a killed process */

static int run_path(const struct root *r, const char *name, const char *suffix, char *out)
{
    if (snprintf(out, PATH_MAX, "%s/run/%s%s", r->path, name, suffix) >= PATH_MAX)
        return -ENAMETOOLONG;
    return 0;
}

int process_hold(const struct root *r, const char *name, const char *note, pid_t *holder)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[PATH_MAX];

    *holder = 0;
    if (run_path(r, name, ".lock", path) != 0)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (fcntl(fd, F_SETLK, &lock) != 0) {
        int error = errno;
        close(fd);
        if (error != EAGAIN && error != EACCES)
            return -error;
        pid_t pid = process_pid(r, name);
        *holder = pid > 0 ? pid : 0;
        return -EBUSY;
    }
    if (note != NULL) {
        if (ftruncate(fd, 0) != 0)
            return -errno;
        int rc = text_write_all(fd, note, strlen(note));
        if (rc != 0)
            return rc;
    }
    return 0; /* fd stays open: closing it would give the lock up */
}

pid_t process_pid(const struct root *r, const char *name)
{
    char path[PATH_MAX];

    return run_path(r, name, ".lock", path) != 0 ? -ENAMETOOLONG : hv_held_by(path);
}

int process_note(const struct root *r, const char *name, char *out, size_t size)
{
    char path[PATH_MAX], *text = NULL;

    int rc = run_path(r, name, ".lock", path);
    if (rc == 0)
        rc = text_read_file(path, &text, NULL);
    if (rc != 0)
        return rc;
    if (snprintf(out, size, "%s", text) >= (int)size)
        rc = -ENAMETOOLONG;
    else if (text[0] == '\0')
        rc = -ENOENT;
    free(text);
    return rc;
}

/* Whether the pid file names this process. */
static bool is_ready(const struct root *r, const char *name, pid_t pid)
{
    char path[PATH_MAX], *text = NULL;

    if (run_path(r, name, ".pid", path) != 0 || text_read_file(path, &text, NULL) != 0)
        return false;
    bool ready = strtol(text, NULL, 10) == pid;
    free(text);
    return ready;
}

bool process_is_ready(const struct root *r, const char *name)
{
    pid_t pid = process_pid(r, name);

    return pid > 0 && is_ready(r, name, pid);
}

/* The kernel's flags of a process (proc(5), stat, field 9): it ends, it dumps core, a signal killed
 * it. */
#define PROCESS_ENDS (0x4ul | 0x200ul | 0x400ul)

static bool kill_is_pending(pid_t pid)
{
    char path[64], value[32], *text = NULL;
    unsigned long long pending = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    if (text_read_file(path, &text, NULL) != 0)
        return true;
    if (text_value(text, "SigPnd:", value, sizeof(value)))
        pending |= strtoull(value, NULL, 16);
    if (text_value(text, "ShdPnd:", value, sizeof(value)))
        pending |= strtoull(value, NULL, 16);
    free(text);
    return (pending & 1ull << (SIGKILL - 1)) != 0;
}

/* A killed process holds its lock a little longer than it lives. */
static bool is_ending(pid_t pid)
{
    char path[64], *text = NULL, state = 'X';
    unsigned long flags = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (text_read_file(path, &text, NULL) != 0)
        return true;
    const char *rest = strrchr(text, ')'); /* its name may hold anything */
    bool known =
        rest != NULL && sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %lu", &state, &flags) == 2;
    free(text);
    return !known || state == 'Z' || state == 'X' || (flags & PROCESS_ENDS) != 0 ||
           kill_is_pending(pid);
}

static void sleep_ms(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    nanosleep(&t, NULL);
}

/* ---- starting */

static int open_log(const struct root *r, const char *name)
{
    char path[PATH_MAX], old[PATH_MAX];
    struct stat st;

    if (snprintf(path, sizeof(path), "%s/log/%s.log", r->path, name) >= PATH_MAX ||
        snprintf(old, sizeof(old), "%s/log/%s.log.1", r->path, name) >= PATH_MAX)
        return -ENAMETOOLONG;
    if (stat(path, &st) == 0 && st.st_size > LOG_MAX && rename(path, old) != 0)
        return -errno;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

struct birth {
    int log, ready;
    char **argv;
};

/* In the new process: becomes the daemon, or ends with a line in the pipe. */
static void become(const void *arg)
{
    const struct birth *b = arg;
    /* Above the numbers that are about to be taken. */
    int high_log = fcntl(b->log, F_DUPFD, READY_FD + 1),
        high_ready = fcntl(b->ready, F_DUPFD, READY_FD + 1);
    int null = open("/dev/null", O_RDONLY);

    if (high_log >= 0 && high_ready >= 0 && null >= 0 && dup2(null, 0) == 0 &&
        dup2(high_log, 1) == 1 && dup2(high_log, 2) == 2 &&
        dup2(high_ready, READY_FD) == READY_FD && chdir("/") == 0 &&
        close_range(READY_FD + 1, ~0u, 0) == 0) {
        umask(077);
        execv("/proc/self/exe", b->argv);
    }
    dprintf(READY_FD, "error: cannot run umbel: %s\n", strerror(errno));
    _exit(EXIT_FAILURE);
}

/* The line that the daemon says of itself. -ETIMEDOUT; -EPIPE: it ended without a word. */
static int read_ready(int fd, const char *name, char *line, size_t size)
{
    int64_t end = clock_boot_ms() + PROCESS_START_MS;
    struct progress progress;
    size_t have = 0;
    int rc = -ETIMEDOUT;

    progress_begin(&progress, "%s: starting", name);
    while (clock_boot_ms() < end) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        progress_tick(&progress, 0, 0, NULL);
        if (poll(&p, 1, TICK_MS) <= 0)
            continue;
        ssize_t n = read(fd, line + have, size - 1 - have);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n > 0)
            have += (size_t)n;
        line[have] = '\0';
        if (n <= 0 || memchr(line, '\n', have) != NULL || have + 1 == size) {
            rc = have > 0 ? 0 : -EPIPE;
            break;
        }
    }
    progress_end(&progress);
    line[strcspn(line, "\n")] = '\0';
    return rc;
}

static void stop_late_starter(const struct root *r, const char *name)
{
    process_signal(r, name, SIGKILL);
    process_wait_end(r, name, KILL_END_MS);
}

static int judge(const struct root *r, const char *name, int rc, const char *line, char *detail)
{
    if (rc == 0 && strcmp(line, "ready") == 0)
        return 0;
    if (rc == 0 && strncmp(line, "error: ", 7) == 0)
        snprintf(detail, PROCESS_DETAIL, "%s: %s", name, line + 7);
    else if (rc == -ETIMEDOUT)
        snprintf(detail, PROCESS_DETAIL,
                 "%s was not ready after %d s and was ended; see %.300s/log/%s.log", name,
                 PROCESS_START_MS / 1000, r->path, name);
    else
        snprintf(detail, PROCESS_DETAIL, "%s ended while it started; see %.300s/log/%s.log", name,
                 r->path, name);
    if (rc == -ETIMEDOUT)
        stop_late_starter(r, name);
    return rc == -ETIMEDOUT ? rc : -EIO;
}

static int launch(const struct root *r, const char *name, const char *const *args, char *detail)
{
    char *argv[ARGS_MAX + 4], line[512] = "", fd_text[8], stale[PATH_MAX];
    int n = 0, ready[2] = {-1, -1}, rc;

    argv[n++] = (char *)"umbel";
    for (; *args != NULL && n <= ARGS_MAX; args++)
        argv[n++] = (char *)*args;
    snprintf(fd_text, sizeof(fd_text), "%d", READY_FD);
    argv[n++] = (char *)"--ready-fd";
    argv[n++] = fd_text;
    argv[n] = NULL;
    if (run_path(r, name, ".pid", stale) == 0)
        unlink(stale); /* of a killed one; none there is as well */

    int log = open_log(r, name);
    if (log < 0) {
        snprintf(detail, PROCESS_DETAIL, "cannot write %.300s/log/%s.log: %s", r->path, name,
                 strerror(-log));
        return log;
    }
    rc = pipe2(ready, O_CLOEXEC) == 0
             ? hv_detach(become, &(struct birth){.log = log, .ready = ready[1], .argv = argv})
             : -errno;
    close(log);
    if (ready[1] >= 0)
        close(ready[1]);
    if (rc != 0) {
        snprintf(detail, PROCESS_DETAIL, "cannot start %s: %s", name, strerror(-rc));
    } else {
        rc = read_ready(ready[0], name, line, sizeof(line));
        rc = judge(r, name, rc, line, detail);
    }
    if (ready[0] >= 0)
        close(ready[0]);
    return rc;
}

/* One that runs may still be on its way up or down. 0: ready; -ENOENT: gone. */
static int wait_running(const struct root *r, const char *name, char *detail)
{
    int64_t end = clock_boot_ms() + PROCESS_START_MS;
    struct progress progress;
    int rc = -ETIMEDOUT;
    pid_t pid;

    progress_begin(&progress, "%s: waiting for it to be ready", name);
    do {
        pid = process_pid(r, name);
        if (pid <= 0) {
            rc = pid == 0 ? -ENOENT : pid;
            break;
        }
        if (is_ready(r, name, pid) && !is_ending(pid)) {
            rc = 0;
            break;
        }
        progress_tick(&progress, 0, 0, NULL);
        sleep_ms(TICK_MS);
    } while (clock_boot_ms() < end);
    progress_end(&progress);
    if (rc == -ETIMEDOUT)
        snprintf(detail, PROCESS_DETAIL,
                 "%s runs (pid %d) but is not ready after %d s; see %.300s/log/%s.log", name, pid,
                 PROCESS_START_MS / 1000, r->path, name);
    else if (rc != 0 && rc != -ENOENT)
        snprintf(detail, PROCESS_DETAIL, "cannot tell whether %s runs: %s", name, strerror(-rc));
    return rc;
}

int process_start(const struct root *r, const char *name, const char *const *args,
                  bool *was_running, char detail[PROCESS_DETAIL])
{
    int rc = wait_running(r, name, detail);

    if (was_running != NULL)
        *was_running = rc == 0;
    if (rc != -ENOENT)
        return rc;
    return launch(r, name, args, detail);
}

/* ---- stopping */

int process_signal(const struct root *r, const char *name, int signal)
{
    char path[PATH_MAX];

    return run_path(r, name, ".lock", path) != 0 ? -ENAMETOOLONG : hv_held_signal(path, signal);
}

int process_wait_end(const struct root *r, const char *name, int timeout_ms)
{
    int64_t end = clock_boot_ms() + timeout_ms;
    struct progress progress;
    pid_t pid;

    progress_begin(&progress, "%s: stopping", name);
    while ((pid = process_pid(r, name)) > 0 && clock_boot_ms() < end) {
        int fd = pidfd_open(pid, 0);

        if (fd >= 0) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            poll(&p, 1, TICK_MS);
            close(fd);
        }
        progress_tick(&progress, 0, 0, NULL);
    }
    progress_end(&progress);
    return pid > 0 ? -ETIMEDOUT : pid;
}

int process_each(const struct root *r, const char *prefix, bool (*fn)(void *arg, const char *name),
                 void *arg)
{
    char path[PATH_MAX], name[ROOT_NAME_MAX];
    struct dirent *e;

    if (root_path(r, "run", path) != 0)
        return -ENAMETOOLONG;
    DIR *d = opendir(path);
    if (d == NULL)
        return errno == ENOENT ? 0 : -errno;
    while ((e = readdir(d)) != NULL) {
        size_t n = strlen(e->d_name);

        if (n <= 5 || n - 5 >= sizeof(name) || strcmp(e->d_name + n - 5, ".lock") != 0 ||
            strncmp(e->d_name, prefix, strlen(prefix)) != 0)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(n - 5), e->d_name);
        if (!fn(arg, name))
            break;
    }
    closedir(d);
    return 0;
}
