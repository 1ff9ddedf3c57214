/*
 * The sandbox of runs. bubblewrap builds it once for the node: a mount namespace with the system
 * read-only and nothing else of the machine. Each run gets a copy of it, with what is its own:
 * /tmp, /dev/shm, /proc, the cloud. (bwrap for each run, measured: four times the CPU of all the
 * rest.)
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nodecache/run_private.h"

#define BWRAP    "bwrap"
#define ARGS_MAX 256
/* For bwrap to build it; it takes some ms. */
#define BUILD_MS 20000
/* In its own session's number space: where bwrap tells the process that holds the namespace. */
#define INFO_FD  3
#define INFO_MAX 512

/* ---- building it */

struct args {
    char *list[ARGS_MAX];
    size_t n;
    bool failed;
};

static void add(struct args *a, const char *text)
{
    char *copy = a->n + 1 < ARGS_MAX ? strdup(text) : NULL;

    if (copy)
        a->list[a->n++] = copy;
    else
        a->failed = true;
}

#define ADD(a, ...)                                                                                \
    do {                                                                                           \
        const char *const given[] = {__VA_ARGS__};                                                 \
        for (size_t k = 0; k < sizeof(given) / sizeof(given[0]); k++)                              \
            add(a, given[k]);                                                                      \
    } while (0)

static void free_args(struct args *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->list[i]);
}

/* The system, as it lies here, links as links. What is not there is left out. */
static void add_system(struct args *a)
{
    static const char *const paths[] = {
        "/usr",   "/bin",    "/sbin", "/lib", "/lib32",
        "/lib64", "/libx32", "/etc",  "/opt", "/run/systemd/resolve" /* resolv.conf leads there */};
    char target[PATH_MAX];
    struct stat st;

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (lstat(paths[i], &st) < 0)
            continue;
        ssize_t n = S_ISLNK(st.st_mode) ? readlink(paths[i], target, sizeof(target) - 1) : -1;
        if (n > 0) {
            target[n] = 0;
            ADD(a, "--symlink", target, paths[i]);
        } else {
            ADD(a, "--ro-bind", paths[i], paths[i]);
        }
    }
}

/* Where the cloud will be, and the way there. */
static void add_mountpoint(struct args *a, const char *path)
{
    char part[PATH_MAX];

    for (const char *at = strchr(path + 1, '/');; at = strchr(at + 1, '/')) {
        snprintf(part, sizeof(part), "%.*s", at ? (int)(at - path) : PATH_MAX - 1, path);
        ADD(a, "--perms", "0755", "--dir", part);
        if (!at)
            break;
    }
}

static void add_all(struct args *a, const char *mount_path)
{
    char number[8];

    snprintf(number, sizeof(number), "%d", INFO_FD);
    ADD(a, BWRAP, "--die-with-parent", "--info-fd", number);
    add_system(a);
    ADD(a, "--dev", "/dev", "--dir", "/proc", "--dir", "/tmp", "--dir", "/var", "--dir", "/var/tmp",
        "--dir", "/run", "--dir", "/dev/shm");
    if (strncmp(mount_path, "/tmp/", 5) != 0 && strncmp(mount_path, "/var/tmp/", 9) != 0 &&
        strncmp(mount_path, "/dev/", 5) != 0)
        add_mountpoint(a, mount_path);
    /* Else what a run of root writes there would be the others', too. */
    ADD(a, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--", "/bin/cat");
}

struct builder {
    int in[2], out[2], info[2];
    pid_t pid;
};

static int start_bwrap(struct builder *b, struct args *a)
{
    posix_spawn_file_actions_t actions;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, b->in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, b->out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, b->info[1], INFO_FD);
    int rc = -posix_spawnp(&b->pid, BWRAP, &actions, NULL, a->list, environ);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

static int read_within(int fd, char *buf, size_t size)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    if (poll(&p, 1, BUILD_MS) <= 0)
        return -ETIMEDOUT;
    ssize_t n = read(fd, buf, size);
    return n < 0 ? -errno : n == 0 ? -EPIPE : (int)n;
}

/* cat answers: everything before it was done. Its namespace, by a descriptor, outlives it. */
static int take_namespace(struct builder *b)
{
    char info[INFO_MAX], path[64], byte = '\n';
    int n = read_within(b->info[0], info, sizeof(info) - 1);

    if (n < 0)
        return n;
    info[n] = 0;
    const char *at = strstr(info, "\"child-pid\":");
    long pid = at ? strtol(at + strlen("\"child-pid\":"), NULL, 10) : 0;
    if (pid <= 0)
        return -EPROTO;
    if (write(b->in[1], &byte, 1) != 1)
        return -EPIPE;
    n = read_within(b->out[0], &byte, 1);
    if (n < 0)
        return n;
    snprintf(path, sizeof(path), "/proc/%ld/ns/mnt", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void close_pair(int fd[2])
{
    for (int i = 0; i < 2; i++)
        if (fd[i] >= 0)
            close(fd[i]);
}

int run_sandbox_prepare(struct run_world *w, char detail[RUN_DETAIL])
{
    struct builder b = {{-1, -1}, {-1, -1}, {-1, -1}, 0};
    struct args a = {.n = 0};
    int rc = 0;

    add_all(&a, w->mount_path);
    if (a.failed)
        rc = -E2BIG;
    if (rc == 0 &&
        (pipe2(b.in, O_CLOEXEC) < 0 || pipe2(b.out, O_CLOEXEC) < 0 || pipe2(b.info, O_CLOEXEC) < 0))
        rc = -errno;
    if (rc == 0)
        rc = start_bwrap(&b, &a);
    if (rc == 0) {
        close(b.out[1]); /* so that their end is seen, should bwrap fail */
        close(b.info[1]);
        b.out[1] = b.info[1] = -1;
        rc = take_namespace(&b);
    }
    w->sandbox = rc < 0 ? -1 : rc;
    if (b.pid > 0) {
        kill(b.pid, SIGKILL);
        waitpid(b.pid, NULL, 0);
    }
    close_pair(b.in);
    close_pair(b.out);
    close_pair(b.info);
    free_args(&a);
    if (rc < 0)
        snprintf(detail, RUN_DETAIL,
                 "bwrap cannot make a sandbox here (the node's log says why): %s", strerror(-rc));
    return rc < 0 ? rc : 0;
}

/* ---- a run's copy of it */

static int mount_own(const char *type, const char *at, unsigned long flags, const char *options)
{
    return mount(type, at, type, flags | MS_NOSUID | MS_NODEV, options) < 0 ? -errno : 0;
}

static void make_parents(const char *path)
{
    char part[PATH_MAX];

    for (const char *at = strchr(path + 1, '/');; at = strchr(at + 1, '/')) {
        snprintf(part, sizeof(part), "%.*s", at ? (int)(at - path) : PATH_MAX - 1, path);
        /* There, or the mount fails and says so. Open whatever the node's umask is: others' jobs go
         * this way too. */
        if (mkdir(part, 0755) == 0)
            (void)chmod(part, 0755);
        if (!at)
            break;
    }
}

static int place_cloud(int tree, const char *path)
{
    make_parents(path);
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, path, 4 /* MOVE_MOUNT_F_EMPTY_PATH */) < 0)
        return -errno;
    return mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, NULL) < 0 ? -errno
                                                                                          : 0;
}

int run_sandbox_enter(const struct run_world *w, const Star__JobStart *s, const char **what)
{
    char options[64] = "mode=1777";
    bool root = s->cred->uid == 0;
    int rc = 0;

    /* Its bytes count as the run's memory; the bound only names the end of it better. */
    if (s->memory > 0)
        snprintf(options, sizeof(options), "mode=1777,size=%" PRIu64, s->memory);
    *what = w->mount_path;
    int tree =
        (int)syscall(SYS_open_tree, AT_FDCWD, w->mount_path, OPEN_TREE_CLONE | (unsigned)O_CLOEXEC);
    if (tree < 0)
        return -errno;
    *what = "the sandbox";
    if (setns(w->sandbox, CLONE_NEWNS) < 0 || unshare(CLONE_NEWNS) < 0)
        rc = -errno;
    if (rc == 0)
        rc = mount_own("tmpfs", "/tmp", 0, options);
    if (rc == 0 && mount("/tmp", "/var/tmp", NULL, MS_BIND, NULL) < 0)
        rc = -errno;
    if (rc == 0)
        rc = mount_own("tmpfs", "/dev/shm", 0, options);
    /* root owns /proc/sys and what else there is of the machine, and needs no capability for it. */
    if (rc == 0)
        rc = mount_own("proc", "/proc", MS_NOEXEC | (root ? MS_RDONLY : 0), NULL);
    if (rc == 0) {
        *what = w->mount_path;
        rc = place_cloud(tree, w->mount_path);
    }
    close(tree);
    return rc;
}
