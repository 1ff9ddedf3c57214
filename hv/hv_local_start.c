/* How a node process begins. It takes its lock before it is executed, and ends if nobody is left to
 * hear that it has it: so at no moment is there a process that the next centre does not find. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "hv/hv_detach.h"
#include "hv/hv_local_private.h"

/* Descriptors in the new process: 0 to 2, what it says of its start, its lock (for life: to close
 * it would give the lock up), and the pipe to us, which ends when the program is executed. */
enum { FD_SAID = 3, FD_LOCK, FD_PIPE, FD_END };
#define ARGS_MAX 32
#define HAS_LOCK 'L'
/* From fork to exec; a machine that takes longer has no room for a node. */
#define EXEC_MS 5000
#define POLL_MS 100

struct birth {
    int log, said, lock, pipe;
    const char *program;
    char **argv;
};

/* ---- in the new process: only what may be called between fork and exec */

static void complain(int fd)
{
    int error = errno;

    if (write(fd, &error, sizeof(error)) != (ssize_t)sizeof(error))
        _exit(EXIT_FAILURE); /* nobody hears it; it ends either way */
    _exit(EXIT_FAILURE);
}

static void fresh_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL); /* of some it cannot be changed, which is as well */
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The descriptors get their numbers, and nothing else is left open. */
static int place_fds(const struct birth *b)
{
    int from[] = {-1, b->log, b->log, b->said, b->lock, b->pipe};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    from[0] = null;
    for (int fd = 0; fd < FD_END; fd++)
        if (from[fd] < 0 || (from[fd] = fcntl(from[fd], F_DUPFD, FD_END)) < 0)
            return -1;
    for (int fd = 0; fd < FD_END; fd++)
        if (dup2(from[fd], fd) != fd)
            return -1;
    return close_range(FD_END, ~0u, 0);
}

static void become(const void *arg)
{
    const struct birth *b = arg;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const char has = HAS_LOCK;

    fresh_signals();
    if (place_fds(b) != 0)
        complain(b->pipe);
    if (chdir("/") != 0 || fcntl(FD_PIPE, F_SETFD, FD_CLOEXEC) != 0 ||
        fcntl(FD_LOCK, F_SETLK, &lock) != 0)
        complain(FD_PIPE);
    if (write(FD_PIPE, &has, 1) != 1)
        _exit(EXIT_FAILURE);
    umask(077);
    execv(b->program, b->argv);
    complain(FD_PIPE);
}

/* ---- in ours */

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* HAS_LOCK and the end of the pipe: it is executed. An errno instead, or behind it: it is not. */
static int hear(struct local *l, int fd)
{
    int64_t until = now_ms() + EXEC_MS;
    char said[1 + sizeof(int)];
    size_t n = 0;
    int error;

    while (now_ms() < until && !atomic_load(&l->cancel)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, POLL_MS) <= 0)
            continue;
        ssize_t more = read(fd, said + n, sizeof(said) - n);
        if (more < 0 && errno == EINTR)
            continue;
        if (more > 0 && (n += (size_t)more) < sizeof(said))
            continue;
        if (n == 1 && said[0] == HAS_LOCK)
            return 0;
        if (n < sizeof(error))
            return -EPIPE;
        memcpy(&error, said + n - sizeof(error), sizeof(error));
        return error > 0 ? -error : -EPIPE;
    }
    return atomic_load(&l->cancel) ? -ECANCELED : -ETIMEDOUT;
}

static int open_file(const char *folder, const char *name, const char *suffix, int flags)
{
    char path[PATH_MAX];
    int rc = hv_local_path(path, folder, name, suffix);
    int fd = rc < 0 ? -1 : open(path, flags | O_CREAT | O_CLOEXEC, 0600);

    return rc < 0 ? rc : fd < 0 ? -errno : fd;
}

/* What the disk has left is shared with all others on it: half of it. */
static int room_for(const struct local *l, const struct hv_spec *spec, uint64_t *capacity,
                    char detail[HV_DETAIL])
{
    struct statvfs fs;

    if (statvfs(l->o.stores, &fs) != 0)
        return -errno;
    uint64_t half = (uint64_t)fs.f_bavail * fs.f_frsize / 2;
    uint64_t most = l->o.capacity ? l->o.capacity(l->o.capacity_arg) : spec->capacity;
    *capacity = most && most < half ? most : half;
    if (*capacity >= l->o.capacity_min)
        return 0;
    snprintf(detail, HV_DETAIL, "no room on the disk under %.120s for one more store", l->o.stores);
    return -ENOSPC;
}

static int make_store(const struct local *l, const char *name, char detail[HV_DETAIL])
{
    char path[PATH_MAX];
    struct stat st;
    int rc = hv_local_path(path, l->o.stores, name, "");

    if (rc == 0 && mkdir(path, 0700) != 0 && errno != EEXIST)
        rc = -errno;
    if (rc == 0 && (lstat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        rc = -ENOTDIR;
    if (rc < 0)
        snprintf(detail, HV_DETAIL, "cannot make the store %.180s: %s", path, strerror(-rc));
    return rc;
}

static int launch(struct local *l, const char *name, uint64_t capacity, char detail[HV_DETAIL])
{
    struct birth b = {.log = -1, .said = -1, .lock = -1, .program = l->o.program};
    char *argv[ARGS_MAX], bytes[24], fd_text[8];
    size_t n = 0;
    int pipes[2] = {-1, -1}, rc = 0;

    while (l->o.args[n] && n < ARGS_MAX - 7) {
        argv[n] = (char *)(uintptr_t)l->o.args[n];
        n++;
    }
    snprintf(bytes, sizeof(bytes), "%" PRIu64, capacity);
    snprintf(fd_text, sizeof(fd_text), "%d", FD_SAID);
    argv[n++] = (char *)"--name";
    argv[n++] = (char *)(uintptr_t)name;
    argv[n++] = (char *)"--capacity";
    argv[n++] = bytes;
    argv[n++] = (char *)"--ready-fd";
    argv[n++] = fd_text;
    argv[n] = NULL;
    b.argv = argv;
    if ((b.log = open_file(l->o.logs, name, ".log", O_WRONLY | O_APPEND)) < 0)
        rc = b.log;
    else if ((b.said = open_file(l->o.run, name, ".said", O_WRONLY | O_TRUNC)) < 0)
        rc = b.said;
    else if ((b.lock = open_file(l->o.run, name, ".lock", O_RDWR)) < 0)
        rc = b.lock;
    else if (pipe2(pipes, O_CLOEXEC) != 0)
        rc = -errno;
    if (rc < 0) {
        snprintf(detail, HV_DETAIL, "cannot prepare the start of %s: %s", name, strerror(-rc));
        goto out;
    }
    b.pipe = pipes[1];
    rc = hv_detach(become, &b);
    close(pipes[1]);
    pipes[1] = -1;
    if (rc == 0)
        rc = hear(l, pipes[0]);
    if (rc < 0)
        snprintf(detail, HV_DETAIL, "cannot run %.150s: %s", l->o.program, strerror(-rc));
out:
    for (int k = 0; k < 2; k++)
        if (pipes[k] >= 0)
            close(pipes[k]);
    if (b.lock >= 0)
        close(b.lock);
    if (b.said >= 0)
        close(b.said);
    if (b.log >= 0)
        close(b.log);
    return rc;
}

int hv_local_start(void *self, const struct hv_spec *spec, char detail[HV_DETAIL])
{
    struct local *l = self;
    uint64_t capacity = 0;
    pid_t pid = hv_local_pid(l, spec->name);

    if (pid != 0)
        return pid < 0 ? pid : 0;
    int rc = l->o.why_not ? -EOPNOTSUPP : 0;
    if (rc < 0)
        snprintf(detail, HV_DETAIL, "%s", l->o.why_not);
    if (rc == 0)
        rc = room_for(l, spec, &capacity, detail);
    if (rc == 0)
        rc = make_store(l, spec->name, detail);
    if (rc == 0)
        rc = launch(l, spec->name, capacity, detail);
    return rc;
}
