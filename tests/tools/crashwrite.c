/*
 * A writer for tests that kill things, and the check of what is left.
 *
 *   crashwrite [OPTION...] LOG DIR          writes files in DIR, and to LOG what was acknowledged
 *   crashwrite --verify [--synced-only [--names-acked]] LOG DIR
 *
 * LOG lies outside of the filesystem under test and must not exist yet. Several processes create,
 * write, append, sync, rename and unlink files in DIR, each its own. Each operation stands in LOG
 * before it begins and again when it was acknowledged.
 *
 *   --procs N     so many processes (4)
 *   --ops N       ends after so many operations of each (1000, or no limit with --seconds)
 *   --seconds N   ends after that time
 *   --seed N      other operations
 *   --tolerate    goes on after EIO, ETIMEDOUT, ENOTCONN, ECONNABORTED and ESTALE; such an
 * operation may have happened or not. DIR is opened again then, as it may have been mounted anew.
 * Otherwise an error ends the program
 *   --verify      every acknowledged operation must be there, wholly
 *   --synced-only only what an acknowledged fsync followed must be; the rest may be missing or cut
 *                 short, but holds only bytes that were written; of the names, some moment not
 *                 before the last fsync
 *   --names-acked every acknowledged change of a name must be there, also without fsync
 *
 * SIGTERM ends the writing after the current operations. Exit status: 0 fine, 1 an operation failed
 * or something is lost or wrong, 2 wrong usage or a broken environment.
 */
#include "crashwrite_verify.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

#define OPS_DEFAULT 1000
#define SLOTS       12     /* names of a process at one time */
#define LENGTH_MAX  200000 /* of one write */
#define ERROR_PAUSE                                                                                \
    20000000L        /* ns, so that a dead mount does not make the log grow without end            \
                      */
#define KEEP_OPEN 50 /* per cent of the files that are kept open */

struct slot {
    char name[NAME_BYTES];
    bool exists;
    uint32_t size;
    int fd; /* -1: not open */
};

struct writer {
    unsigned proc;
    int log, dir;
    const char *path;                              /* of dir */
    __typeof__(((struct statfs *)0)->f_type) type; /* of its filesystem */
    bool tolerate;
    uint64_t random, n, ops, failed;
    unsigned names; /* given out */
    struct slot slots[SLOTS];
    uint8_t data[LENGTH_MAX];
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static uint32_t below(struct writer *w, uint32_t limit)
{
    w->random = mix(w->random);
    return (uint32_t)(w->random % limit);
}

static void log_line(struct writer *w, const char *line)
{
    size_t len = strlen(line);

    if (write(w->log, line, len) != (ssize_t)len) {
        perror("crashwrite: the log");
        exit(2);
    }
}

static bool tolerated(int error)
{
    return error == EIO || error == ETIMEDOUT || error == ENOTCONN || error == ECONNABORTED ||
           error == ESTALE;
}

/* The folder by its path, unless the filesystem is away and the path shows what lies beneath. */
static void open_again(struct writer *w)
{
    struct statfs fs;
    int fd = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (fstatfs(fd, &fs) == 0 && fs.f_type == w->type) {
        close(w->dir);
        w->dir = fd;
    } else {
        close(fd);
    }
}

/* ---- operations: 0 or -errno */

static int slot_close(struct slot *s)
{
    int fd = s->fd;

    s->fd = -1;
    return fd >= 0 && close(fd) != 0 ? -errno : 0;
}

/* The slot's descriptor, or a new one that the caller closes. */
static int slot_open(struct writer *w, struct slot *s, int flags)
{
    int fd = s->fd >= 0 && flags == O_RDWR ? s->fd : openat(w->dir, s->name, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int slot_done(const struct slot *s, int fd, int rc)
{
    if (fd != s->fd && close(fd) != 0 && rc == 0)
        rc = -errno;
    return rc;
}

static int do_create(struct writer *w, struct slot *s)
{
    int fd = openat(w->dir, s->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0)
        return -errno;
    s->exists = true;
    s->size = 0;
    s->fd = fd;
    return below(w, 100) < KEEP_OPEN ? 0 : slot_close(s);
}

static int do_write(struct writer *w, struct slot *s, const struct op *op)
{
    int fd = slot_open(w, s, op->kind == APPEND ? O_WRONLY | O_APPEND : O_RDWR);
    uint32_t done = 0;
    int rc = 0;

    if (fd < 0)
        return fd;
    fill(w->data, op->seed, op->offset, op->length);
    while (done < op->length && rc == 0) {
        ssize_t n = op->kind == APPEND
                        ? write(fd, w->data + done, op->length - done)
                        : pwrite(fd, w->data + done, op->length - done, op->offset + done);
        if (n > 0)
            done += (uint32_t)n;
        else if (n == 0 || errno != EINTR)
            rc = n == 0 ? -EIO : -errno;
    }
    if (op->offset + op->length > s->size)
        s->size = op->offset + op->length;
    return slot_done(s, fd, rc);
}

static int do_fsync(struct writer *w, struct slot *s)
{
    int fd = slot_open(w, s, O_RDWR);

    if (fd < 0)
        return fd;
    return slot_done(s, fd, fsync(fd) != 0 ? -errno : 0);
}

static int do_rename(struct writer *w, struct slot *s, struct slot *to)
{
    if (renameat(w->dir, s->name, w->dir, to->name) != 0)
        return -errno;
    int rc = slot_close(to);
    to->exists = true;
    to->size = s->size;
    to->fd = s->fd;
    s->exists = false;
    s->fd = -1;
    return rc;
}

static int do_unlink(struct writer *w, struct slot *s)
{
    s->exists = false;
    return unlinkat(w->dir, s->name, 0) != 0 ? -errno : slot_close(s);
}

/* ---- the run of one process */

static void new_name(struct writer *w, struct slot *s)
{
    (void)slot_close(s); /* of a file that an error left open: whatever it says */
    s->exists = false;
    snprintf(s->name, sizeof s->name, "p%u-%u", w->proc, w->names++);
}

/* Chooses what to do with which files. */
static void choose(struct writer *w, struct op *op, struct slot **slot, struct slot **to)
{
    uint32_t pick = below(w, 100);
    struct slot *s = *slot = &w->slots[below(w, SLOTS)];

    *to = &w->slots[below(w, SLOTS)];
    *op = (struct op){.seed = mix(w->random + w->proc)};
    if (!s->exists) {
        op->kind = CREATE;
        return;
    }
    op->kind = pick < 25   ? WRITE
               : pick < 60 ? APPEND
               : pick < 82 ? FSYNC
               : pick < 92 ? RENAME
                           : UNLINK;
    if (op->kind == RENAME && *to == s)
        op->kind = FSYNC;
    if (op->kind == WRITE || op->kind == APPEND) {
        uint32_t most = below(w, 4) == 0 ? LENGTH_MAX : 9000;
        op->offset = op->kind == WRITE ? below(w, s->size + 1) : s->size;
        op->length = 1 + below(w, most);
        if (op->length > FILE_BYTES - op->offset)
            op->kind = FSYNC; /* it is full */
    }
}

static void log_begin(struct writer *w, const struct op *op, const struct slot *s,
                      const struct slot *to)
{
    char line[LINE_BYTES], more[80] = "";

    if (op->kind == WRITE || op->kind == APPEND)
        snprintf(more, sizeof more, " %" PRIu32 " %" PRIu32 " %" PRIu64, op->offset, op->length,
                 op->seed);
    else if (op->kind == RENAME)
        snprintf(more, sizeof more, " %s", to->name);
    snprintf(line, sizeof line, "b %u %" PRIu64 " %s %s%s\n", w->proc, w->n, kind_names[op->kind],
             s->name, more);
    log_line(w, line);
}

static int run_op(struct writer *w, const struct op *op, struct slot *s, struct slot *to)
{
    switch (op->kind) {
    case CREATE:
        return do_create(w, s);
    case WRITE:
    case APPEND:
        return do_write(w, s, op);
    case FSYNC:
        return do_fsync(w, s);
    case RENAME:
        return do_rename(w, s, to);
    default:
        return do_unlink(w, s);
    }
}

static bool write_one(struct writer *w)
{
    const struct timespec pause = {.tv_nsec = ERROR_PAUSE};
    struct slot *s, *to;
    struct op op;
    char line[LINE_BYTES];

    choose(w, &op, &s, &to);
    w->n++;
    log_begin(w, &op, s, to);
    int rc = run_op(w, &op, s, to);
    if (rc == 0) {
        snprintf(line, sizeof line, "d %u %" PRIu64 "\n", w->proc, w->n);
        log_line(w, line);
        return true;
    }
    snprintf(line, sizeof line, "e %u %" PRIu64 " %d\n", w->proc, w->n, -rc);
    log_line(w, line);
    w->failed++;
    if (!w->tolerate || !tolerated(-rc)) {
        fprintf(stderr, "crashwrite: process %u, operation %" PRIu64 " (%s %s): %s\n", w->proc,
                w->n, kind_names[op.kind], s->name, strerror(-rc));
        return false;
    }
    new_name(w, s);
    if (op.kind == RENAME)
        new_name(w, to);
    open_again(w);
    nanosleep(&pause, NULL);
    return true;
}

static int write_all(struct writer *w, time_t end)
{
    struct timespec now;
    bool good = true;

    for (int i = 0; i < SLOTS; i++) {
        w->slots[i].fd = -1;
        new_name(w, &w->slots[i]);
    }
    while (good && !stopped && w->n < w->ops) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (end != 0 && now.tv_sec >= end)
            break;
        good = write_one(w);
    }
    for (int i = 0; i < SLOTS; i++)
        (void)slot_close(&w->slots[i]); /* what counts was acknowledged before */
    printf("crashwrite: process %u: %" PRIu64 " operations, %" PRIu64 " failed\n", w->proc, w->n,
           w->failed);
    return good ? 0 : 1;
}

/* ---- all processes */

static int start_all(struct writer *w, unsigned procs, unsigned seconds)
{
    struct sigaction action = {.sa_handler = on_signal};
    pid_t pids[PROCS_MAX];
    struct timespec now;
    uint64_t seed = w->random;
    int status, rc = 0;

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (unsigned i = 0; i < procs; i++) {
        fflush(NULL);
        pids[i] = fork();
        if (pids[i] < 0) {
            perror("crashwrite: fork");
            exit(2);
        }
        if (pids[i] == 0) {
            w->proc = i;
            w->random = mix(seed * PROCS_MAX + i);
            exit(write_all(w, seconds != 0 ? now.tv_sec + seconds : 0));
        }
    }
    for (unsigned left = procs; left > 0;) {
        pid_t pid = wait(&status);
        if (pid < 0 && errno == EINTR) {
            for (unsigned i = 0; i < procs; i++) {
                if (pids[i] > 0)
                    kill(pids[i], SIGTERM);
            }
            continue;
        }
        for (unsigned i = 0; i < procs; i++)
            pids[i] = pids[i] == pid ? 0 : pids[i];
        rc |= !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        left--;
    }
    return rc;
}

static int usage(void)
{
    fprintf(stderr, "usage: crashwrite [--procs N] [--ops N] [--seconds N] [--seed N] [--tolerate] "
                    "LOG DIR\n       crashwrite --verify [--synced-only [--names-acked]] LOG "
                    "DIR\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"procs", required_argument, NULL, 'p'},
        {"ops", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'},
        {"tolerate", no_argument, NULL, 'e'},
        {"verify", no_argument, NULL, 'v'},
        {"synced-only", no_argument, NULL, 'y'},
        {"names-acked", no_argument, NULL, 'k'},
        {NULL, 0, NULL, 0},
    };
    static struct writer w = {.random = 1};
    static struct verify v;
    unsigned long procs = 4, seconds = 0;
    bool verifying = false;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p')
            procs = strtoul(optarg, NULL, 0);
        else if (option == 'n')
            w.ops = strtoull(optarg, NULL, 0);
        else if (option == 't')
            seconds = strtoul(optarg, NULL, 0);
        else if (option == 's')
            w.random = strtoull(optarg, NULL, 0);
        else if (option == 'e')
            w.tolerate = true;
        else if (option == 'v')
            verifying = true;
        else if (option == 'y')
            v.synced_only = true;
        else if (option == 'k')
            v.names_acked = true;
        else
            return usage();
    }
    if (argc - optind != 2 || procs < 1 || procs > PROCS_MAX)
        return usage();
    v.log = argv[optind];
    v.dir = argv[optind + 1];
    if (verifying)
        return verify(&v);
    w.log = open(v.log, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    w.dir = open(v.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct statfs fs;
    if (w.log < 0 || w.dir < 0 || fstatfs(w.dir, &fs) != 0) {
        perror(w.log < 0 ? v.log : v.dir);
        return 2;
    }
    w.path = v.dir;
    w.type = fs.f_type;
    if (w.ops == 0)
        w.ops = seconds == 0 ? OPS_DEFAULT : UINT64_MAX;
    return start_all(&w, (unsigned)procs, (unsigned)seconds);
}
