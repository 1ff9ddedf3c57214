/*
 * The keeper: mounts, holds the descriptor of /dev/fuse and the saved INIT message, starts the
 * worker, waits. It has one thread and no state that it could not lose, so that it practically
 * cannot fail.
 */
#define FUSE_USE_VERSION 314
#include "fs/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/wire/daemon.h"
#include "control/wire/log.h"
#include "fs/worker.h"

/* The worker needs START_DEADLINE_MS for the centre, twice (session, root). */
#define READY_DEADLINE_MS (2 * START_DEADLINE_MS + 5000)
/* After the unmount the worker finishes what it has (DRAIN_MS, twice at the worst, and BYE). */
#define END_DEADLINE_MS (2 * DRAIN_MS + 10000)

/* So long until it is asked by SIGTERM: without fusectl a lazy unmount does not end the connection.
 */
#define END_SOON_MS 2000
/* A mount in use is tried again so often. */
#define UNMOUNT_AGAIN_MS 200
/* One that nobody can have used yet. */
#define UNMOUNT_UNUSED_MS 2000

struct keeper {
    const struct mount_options *options;
    struct mount_place place;
    struct fuse_session *se;
    struct keeper_page *page;
    int fd;        /* /dev/fuse */
    int signal_fd; /* SIGTERM, SIGINT, SIGUSR1, SIGCHLD */
    int report_fd; /* what the worker says at its start */
    pid_t worker;  /* 0: none */
    int status;    /* of the worker's end */
    bool mounted;
    bool force; /* nobody is waited for */
    char detail[256];
};

/* --- mount --- */

static int map_page(struct keeper *k)
{
    int fd = memfd_create("umbel-keeper", MFD_CLOEXEC);

    if (fd < 0)
        return -errno;
    int rc = ftruncate(fd, sizeof(*k->page)) < 0 ? -errno : 0;
    if (rc == 0) {
        k->page = mmap(NULL, sizeof(*k->page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        rc = k->page == MAP_FAILED ? -errno : 0;
    }
    close(fd); /* the mapping stays, also in workers */
    if (rc < 0)
        k->page = NULL;
    return rc;
}

/* All users of the mount are one to the centre, which checks what that one may: the kernel would
 * refuse it to the others. */
static int all_are_one(struct keeper *k, bool *yes)
{
    struct identity *id = NULL;
    int rc = k->options->identity
                 ? identity_load(k->options->identity, k->options->cloud, &id, k->detail)
                 : 0;

    *yes = id && identity_self(id)->squash == SQUASH_ALL;
    identity_free(id);
    return rc;
}

static int mount_it(struct keeper *k)
{
    char *argv[] = {
        (char *)(uintptr_t) "umbel", (char *)(uintptr_t) "-o",
        (char *)(uintptr_t) "default_permissions,allow_other,fsname=umbel,subtype=umbel", NULL};
    bool one;

    if (all_are_one(k, &one) < 0)
        return -EPERM;
    if (one)
        argv[2] += strlen("default_permissions,");
    static const struct fuse_lowlevel_ops none; /* the keeper never serves */
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);

    k->se = fuse_session_new(&args, &none, sizeof(none), NULL);
    fuse_opt_free_args(&args);
    if (!k->se) {
        snprintf(k->detail, sizeof(k->detail), "libfuse cannot make a session");
        return -ENOMEM;
    }
    if (fuse_session_mount(k->se, k->place.path) != 0) {
        snprintf(k->detail, sizeof(k->detail),
                 "mounting on %.150s failed (the log says why); are you root?", k->place.path);
        return -EPERM;
    }
    k->mounted = true;
    k->fd = fuse_session_fd(k->se);
    int rc = place_find(&k->place);
    if (rc < 0)
        snprintf(k->detail, sizeof(k->detail), "%.180s was unmounted at once", k->place.path);
    return rc;
}

/* --- worker --- */

/* In the worker. */
static int begin_worker(const struct mount_options *options, int report_fd)
{
    char detail[256] = "";
    int rc = options->worker_begin ? options->worker_begin(options->worker_arg, detail) : 0;

    if (rc < 0)
        dprintf(report_fd, "error: %s\n", detail);
    return rc;
}

static int start_worker(struct keeper *k)
{
    pid_t keeper = getpid();
    int pipe_fds[2];

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid < 0) {
        int rc = -errno;
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return rc;
    }
    if (pid == 0) {
        sigset_t set;
        /* Without its keeper it would serve on, and nobody could end it. */
        if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != keeper)
            _exit(1);
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
        close(pipe_fds[0]);
        close(k->signal_fd);
        if (k->options->ready_fd >= 0)
            close(k->options->ready_fd);
        int rc = begin_worker(k->options, pipe_fds[1]);
        if (rc == 0)
            rc = worker_run(k->options, k->fd, k->page, pipe_fds[1]);
        _exit(rc < 0 ? 1 : 0);
    }
    close(pipe_fds[1]);
    k->report_fd = pipe_fds[0];
    k->worker = pid;
    return 0;
}

/* Takes the worker's end if it came to one. */
static void reap(struct keeper *k)
{
    if (k->worker && waitpid(k->worker, &k->status, WNOHANG) == k->worker)
        k->worker = 0;
}

/* Reads the worker's line. 0: it serves. */
static int take_report(struct keeper *k)
{
    char line[300];
    ssize_t n = read(k->report_fd, line, sizeof(line) - 1);

    if (n <= 0) {
        snprintf(k->detail, sizeof(k->detail),
                 "the mount's worker died at its start (see the log)");
        return -EIO;
    }
    line[n] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "ready") == 0)
        return 0;
    snprintf(k->detail, sizeof(k->detail), "%.250s",
             strncmp(line, "error: ", 7) == 0 ? line + 7 : line);
    return -EIO;
}

/* -EINTR: asked to stop meanwhile. */
static int wait_ready(struct keeper *k)
{
    struct pollfd fds[2] = {{.fd = k->report_fd, .events = POLLIN},
                            {.fd = k->signal_fd, .events = POLLIN}};
    int64_t until = clock_boot_ms() + READY_DEADLINE_MS;

    for (;;) {
        int64_t left = until - clock_boot_ms();
        int n = left > 0 ? poll(fds, 2, (int)left) : 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0) {
            snprintf(k->detail, sizeof(k->detail), "the mount did not get ready in time");
            return -ETIMEDOUT;
        }
        if (n > 0 && fds[0].revents)
            return take_report(k);
        struct signalfd_siginfo info;
        if (n > 0 && read(k->signal_fd, &info, sizeof(info)) == sizeof(info) &&
            info.ssi_signo != SIGCHLD) {
            snprintf(k->detail, sizeof(k->detail), "stopped before it was ready");
            return -EINTR;
        }
    }
}

static int write_pid(const char *path, pid_t pid)
{
    char temporary[4096];

    if (!path)
        return 0;
    if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
        return -ENAMETOOLONG;
    FILE *f = fopen(temporary, "we");
    if (!f)
        return -errno;
    int bad = fprintf(f, "%d\n", (int)pid) < 0;
    bad |= fclose(f) != 0;
    if (bad || rename(temporary, path) < 0) {
        int rc = bad ? -EIO : -errno;
        unlink(temporary);
        return rc;
    }
    return 0;
}

static int write_pids(struct keeper *k)
{
    int rc = daemon_pid_write(k->options->keeper_pid_file);

    if (rc == 0)
        rc = write_pid(k->options->worker_pid_file, k->worker);
    if (rc < 0)
        snprintf(k->detail, sizeof(k->detail), "cannot write the pid files: %s", strerror(-rc));
    return rc;
}

/* --- the end --- */

/* true: it ended. */
static bool wait_worker(struct keeper *k, int64_t deadline_ms)
{
    int64_t until = clock_boot_ms() + deadline_ms;
    struct timespec pause = {.tv_nsec = 5000000};

    for (;;) {
        reap(k);
        if (!k->worker)
            return true;
        if (clock_boot_ms() >= until)
            return false;
        nanosleep(&pause, NULL);
    }
}

static void end_worker(struct keeper *k)
{
    if (!k->worker)
        return;
    kill(k->worker, SIGTERM);
    if (wait_worker(k, END_DEADLINE_MS))
        return;
    log_error("the mount's worker does not end: it is killed");
    kill(k->worker, SIGKILL);
    wait_worker(k, END_DEADLINE_MS);
}

static void unmount(struct keeper *k)
{
    if (!k->mounted)
        return;
    int rc = k->worker && !k->force ? place_unmount(&k->place, UNMOUNT_UNUSED_MS) : -EBUSY;
    if (rc < 0)
        rc = place_take_down(&k->place);
    if (rc < 0)
        log_error("unmounting %s: %s", k->place.path, strerror(-rc));
    k->mounted = false;
}

/* Closes the descriptor: the last one, so nobody hangs. libfuse's unmount only frees if the
 * connection has ended; else it would unmount what somebody else may have put there. */
static void end_session(struct keeper *k)
{
    struct pollfd fd = {.fd = fuse_session_fd(k->se)};

    if (fd.fd >= 0 && poll(&fd, 1, 0) == 1 && (fd.revents & POLLERR))
        fuse_session_unmount(k->se);
    fuse_session_destroy(k->se);
    k->se = NULL;
}

static void remove_pids(const struct keeper *k)
{
    daemon_pid_remove(k->options->keeper_pid_file);
    if (k->options->worker_pid_file)
        unlink(k->options->worker_pid_file);
}

static void clean_up(struct keeper *k)
{
    remove_pids(k); /* first: `up` must not take it for ready */
    unmount(k);
    wait_worker(k, END_SOON_MS); /* it saw the end of the connection */
    end_worker(k);
    if (k->se)
        end_session(k);
    if (k->report_fd >= 0)
        close(k->report_fd);
    if (k->signal_fd >= 0)
        close(k->signal_fd);
    if (k->page)
        munmap(k->page, sizeof(*k->page));
}

/* The worker is gone. Until a new one can take over: nobody shall hang. */
static int worker_died(struct keeper *k)
{
    if (WIFEXITED(k->status) && WEXITSTATUS(k->status) == 0) {
        log_info("%s is unmounted", k->place.path);
        return 0;
    }
    if (WIFSIGNALED(k->status))
        log_error("the mount's worker was killed by signal %d: %s is taken down",
                  WTERMSIG(k->status), k->place.path);
    else
        log_error("the mount's worker failed: %s is taken down", k->place.path);
    return -EIO;
}

/* Whether a signal asks to end. *force: whether it says to wait for nobody: SIGUSR1, or a second
 * interrupt from a terminal. SIGTERM again says nothing new. */
static bool take_signal(struct keeper *k, bool *force)
{
    struct signalfd_siginfo info;
    bool asked = false;

    *force = false;
    while (read(k->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        asked = asked || info.ssi_signo != SIGCHLD;
        *force = *force || info.ssi_signo == SIGUSR1 || info.ssi_signo == SIGINT;
    }
    return asked;
}

/* Asked to unmount. true: it is off the tree, or is to be taken off by force. */
static bool leave(struct keeper *k)
{
    int64_t until = clock_boot_ms() + UNMOUNT_DEADLINE_MS, left;
    struct timespec pause = {.tv_nsec = UNMOUNT_AGAIN_MS * 1000000L};
    int rc = -EBUSY;

    log_info("unmounting %s", k->place.path);
    remove_pids(k);
    while (rc < 0 && !k->force && (left = until - clock_boot_ms()) > 0) {
        rc = place_unmount(&k->place, left);
        if (rc < 0)
            nanosleep(&pause, NULL);
        take_signal(k, &k->force);
        reap(k);
        if (!k->worker)
            return true; /* it saw an unmount, or died */
    }
    if (rc < 0 && !place_is_ours(&k->place))
        rc = 0; /* it left the tree, only the call has not returned */
    k->mounted = rc < 0;
    if (rc == 0 || k->force)
        return true;
    log_warning("%s is in use: it stays mounted", k->place.path);
    if (write_pids(k) < 0)
        log_error("%s", k->detail);
    return false;
}

/* Until the worker ends or a signal asks to unmount. */
static int watch(struct keeper *k)
{
    for (;;) {
        struct pollfd fd = {.fd = k->signal_fd, .events = POLLIN};
        if (poll(&fd, 1, -1) < 0 && errno != EINTR)
            return -errno;
        bool force, asked = take_signal(k, &force);
        reap(k);
        if (!k->worker)
            return worker_died(k);
        if (asked && leave(k))
            return k->worker ? 0 : worker_died(k);
    }
}

static int take_signals(struct keeper *k)
{
    sigset_t set;

    int rc = daemon_start();
    if (rc < 0)
        return rc;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    k->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return k->signal_fd < 0 ? -errno : 0;
}

static int start(struct keeper *k)
{
    int rc = take_signals(k);

    if (rc == 0)
        rc = place_check(k->options->mountpoint, &k->place, k->detail);
    if (rc == 0)
        rc = map_page(k);
    if (rc == 0)
        rc = mount_it(k);
    if (rc == 0)
        rc = start_worker(k);
    if (rc == 0)
        rc = wait_ready(k);
    if (rc == 0)
        rc = write_pids(k);
    if (rc < 0 && !k->detail[0])
        snprintf(k->detail, sizeof(k->detail), "cannot mount on %.150s: %s", k->options->mountpoint,
                 strerror(-rc));
    return rc;
}

int mount_run(const struct mount_options *options)
{
    struct keeper k = {.options = options, .fd = -1, .signal_fd = -1, .report_fd = -1};

    prctl(PR_SET_NAME, "umbel-keeper");
    int rc = start(&k);
    if (rc < 0) {
        log_error("%s", k.detail);
        clean_up(&k);
        daemon_ready(options->ready_fd, k.detail);
        return rc;
    }
    place_read_ahead(&k.place);
    log_info("%s is mounted", k.place.path);
    daemon_ready(options->ready_fd, NULL);
    rc = watch(&k);
    clean_up(&k);
    return rc;
}
