/* The spawner: a small process that forks supervisors. Its side, and the node's. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/wire/log.h"
#include "nodecache/run_private.h"

/* How often supervisors that have ended are reaped while no new one is asked for. */
#define REAP_MS 500
/* More than the spawner gives bwrap. */
#define SPAWNER_START_MS 30000
/* The spawner's end of the socket. */
#define SPAWNER_FD 3

static int pidfd_of(pid_t pid)
{
    long fd = syscall(SYS_pidfd_open, pid, 0);

    return fd < 0 ? -errno : (int)fd;
}

int run_groups_open(int jobs, struct run_cgroups *out, char detail[RUN_DETAIL])
{
    char base[40];
    struct stat st;

    if (fstat(jobs, &st) < 0)
        return -errno;
    snprintf(base, sizeof(base), "%jx-%jx", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return run_cgroups_open(out, base, detail);
}

void run_spawned_close(const struct run_spawned_fds *fds)
{
    if (fds->pidfd >= 0)
        close(fds->pidfd);
    if (fds->channel >= 0)
        close(fds->channel);
}

/* ---- the spawner */

static int open_world(struct run_world *w, const struct run_spawner_options *o,
                      char detail[RUN_DETAIL])
{
    int rc;

    *w = (struct run_world){.mount_path = o->mount};
    w->jobs = run_folder_open(o->store);
    if (w->jobs < 0 || !(w->lease = run_lease_map(w->jobs, false))) {
        rc = w->jobs < 0 ? w->jobs : -errno;
        snprintf(detail, RUN_DETAIL, "%.180s/jobs: %s", o->store, strerror(-rc));
        return rc;
    }
    rc = run_groups_open(w->jobs, &w->cgroups, detail);
    return rc < 0 ? rc : run_sandbox_prepare(w, detail);
}

static int answer(int fd, const char *name, int error, const struct run_spawned_fds *fds,
                  const char *detail)
{
    struct run_spawned a = {.error = error};
    union {
        char buf[CMSG_SPACE(sizeof(*fds))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {.iov_base = &a, .iov_len = sizeof(a)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    snprintf(a.name, sizeof(a.name), "%s", name);
    snprintf(a.detail, sizeof(a.detail), "%s", detail);
    if (fds) {
        m.msg_control = control.buf;
        m.msg_controllen = sizeof(control.buf);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(*fds));
        memcpy(CMSG_DATA(c), fds, sizeof(*fds));
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The pidfd before anybody can have reaped it. */
static int fork_one(struct run_world *w, int fd, const char *name, struct run_spawned_fds *fds)
{
    int channel[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0)
        return -errno;
    pid_t pid = fork();
    int pidfd = pid < 0 ? -errno : pid > 0 ? pidfd_of(pid) : 0;
    if (pid > 0 && pidfd < 0)
        kill(pid, SIGKILL); /* nobody could watch it */
    if (pid == 0) {
        close(fd);
        close(channel[0]);
        w->channel = channel[1];
        run_supervise(w, name);
    }
    close(channel[1]);
    *fds = (struct run_spawned_fds){.pidfd = pidfd, .channel = channel[0]};
    if (pidfd < 0)
        close(channel[0]);
    return pidfd < 0 ? pidfd : 0;
}

static int spawn_one(struct run_world *w, int fd, const char *name)
{
    struct run_spawned_fds fds = {.pidfd = -1, .channel = -1};
    int rc = fork_one(w, fd, name, &fds);

    if (rc < 0)
        return answer(fd, name, -rc, NULL, "");
    rc = answer(fd, name, 0, &fds, "");
    run_spawned_close(&fds);
    return rc;
}

/* Those for supervisors, which may come before a new one looks for them. */
static void block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, RUN_SIGNAL);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int serve(struct run_world *w, int fd)
{
    for (;;) {
        char name[RUN_NAME_MAX] = "";
        struct pollfd p = {.fd = fd, .events = POLLIN};
        struct run_key key;
        int ready = poll(&p, 1, REAP_MS);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        if (ready <= 0)
            continue;
        ssize_t n = recv(fd, name, sizeof(name) - 1, 0);
        if (n <= 0)
            return n == 0 ? 0 : -errno; /* the node is gone */
        if (run_key_parse(name, &key) == 0 && spawn_one(w, fd, name) < 0)
            return -EPIPE;
    }
}

int run_spawner(const struct run_spawner_options *o)
{
    char detail[RUN_DETAIL] = "";
    struct run_world w;
    int rc = open_world(&w, o, detail);

    block_signals();
    int told = answer(o->fd, "", -rc, NULL, detail);
    if (rc < 0 || told < 0) {
        if (w.cgroups.base[0]) /* should the node be gone */
            (void)run_cgroups_remove_node(&w.cgroups);
        return 1; /* the node says why */
    }
    rc = serve(&w, o->fd);
    (void)run_cgroups_remove_node(&w.cgroups); /* in use: the last run does it */
    return rc < 0 && rc != -ECONNRESET && rc != -EPIPE;
}

/* ---- the node's side */

static int spawn_spawner(const char *exe, const char *store, const char *mount, pid_t *pid)
{
    char number[8];
    const char *args[] = {"umbel", "supervise", "--store", store, "--mount",
                          mount,   "--fd",      number,    NULL};
    /* Symbols are looked up once, not again in each process that is forked from it. */
    char now[] = "LD_BIND_NOW=1", path[PATH_MAX] = "PATH=", *env[] = {now, path, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int fd[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) < 0)
        return -errno;
    snprintf(number, sizeof(number), "%d", SPAWNER_FD);
    snprintf(path, sizeof(path), "PATH=%s", getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd[1], SPAWNER_FD);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    int rc = -posix_spawn(pid, exe ? exe : "/proc/self/exe", &actions, &attr,
                          (char *const *)(uintptr_t)args, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    close(fd[1]);
    if (rc == 0 && fcntl(fd[0], F_SETFL, O_NONBLOCK) < 0)
        rc = -errno;
    if (rc < 0)
        close(fd[0]);
    return rc < 0 ? rc : fd[0];
}

/* It builds the sandbox first, and says whether it can. */
int run_spawner_start(const char *exe, const char *store, const char *mount, pid_t *pid,
                      char detail[RUN_DETAIL])
{
    struct run_spawned hello = {.error = 0};
    struct run_spawned_fds none;
    int fd = spawn_spawner(exe, store, mount, pid), rc = fd < 0 ? fd : 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};

    snprintf(detail, RUN_DETAIL, "the process that starts jobs does not start");
    if (rc < 0)
        return rc;
    rc = poll(&p, 1, SPAWNER_START_MS) > 0 ? run_spawner_answer(fd, &hello, &none) : -ETIMEDOUT;
    if (rc == 0 && hello.error != 0) {
        rc = -hello.error;
        snprintf(detail, RUN_DETAIL, "%s", hello.detail);
    }
    if (rc < 0) {
        close(fd);
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
        *pid = 0;
        return rc;
    }
    detail[0] = 0;
    return fd;
}

int run_spawner_answer(int fd, struct run_spawned *out, struct run_spawned_fds *fds)
{
    union {
        char buf[CMSG_SPACE(sizeof(*fds))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = out, .iov_len = sizeof(*out)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof(control.buf)};
    ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);

    *fds = (struct run_spawned_fds){.pidfd = -1, .channel = -1};
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EPIPE;
    if (n != (ssize_t)sizeof(*out))
        return -EPIPE;
    out->name[sizeof(out->name) - 1] = out->detail[sizeof(out->detail) - 1] = 0;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(*fds)))
        memcpy(fds, CMSG_DATA(c), sizeof(*fds));
    return out->name[0] && out->error == 0 && fds->pidfd < 0 ? -EPIPE : 0;
}
