/* The first process of a run. Linked statically, with the C library alone. */
#include "nodecache/runinit/init.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct block {
    const struct run_init_head *head;
    const gid_t *groups;
    const char *workdir, *input, *output, *error;
    char **env, **argv;
    const char *script;
};

static void tell(uint32_t kind, int32_t value, uint64_t cpu_us, const char *what, const char *text)
{
    struct run_init_told told = {.kind = kind, .value = value, .cpu_us = cpu_us};

    snprintf(told.text, sizeof(told.text), "%s%s%s", what, text[0] ? " " : "", text);
    /* Nobody there: nobody is left who could be told. */
    (void)!send(RUN_INIT_CONTROL, &told, sizeof(told), MSG_NOSIGNAL);
}

static _Noreturn void fail(int err, const char *what, const char *text)
{
    tell(RUN_INIT_FAILED, err, 0, what, text);
    _exit(1);
}

/* ---- the block */

static char *next_string(char **at, const char *end)
{
    char *s = *at, *nul = s < end ? memchr(s, 0, (size_t)(end - s)) : NULL;

    if (!nul)
        fail(EINVAL, "the block of the run is damaged", "");
    *at = nul + 1;
    return s;
}

static char **strings(char **at, const char *end, uint32_t n)
{
    char **list = calloc((size_t)n + 1, sizeof(*list));

    if (!list)
        fail(ENOMEM, "the block of the run", "");
    for (uint32_t i = 0; i < n; i++)
        list[i] = next_string(at, end);
    return list;
}

static void read_block(struct block *b)
{
    struct stat st;

    if (fstat(RUN_INIT_BLOCK, &st) < 0 || st.st_size < (off_t)sizeof(*b->head))
        fail(EINVAL, "the run has no block", "");
    char *base =
        mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, RUN_INIT_BLOCK, 0);
    if (base == MAP_FAILED)
        fail(errno, "the block of the run", "");
    char *end = base + st.st_size, *at = base + sizeof(*b->head);
    b->head = (const struct run_init_head *)(const void *)base;
    if (b->head->magic != RUN_INIT_MAGIC ||
        b->head->n_groups > (size_t)(end - at) / sizeof(gid_t) ||
        b->head->n_env > (size_t)(end - at) || b->head->n_argv > (size_t)(end - at))
        fail(EINVAL, "the block of the run is damaged", "");
    b->groups = (const gid_t *)(const void *)at;
    at += b->head->n_groups * sizeof(gid_t);
    b->workdir = next_string(&at, end);
    b->input = next_string(&at, end);
    b->output = next_string(&at, end);
    b->error = next_string(&at, end);
    b->env = strings(&at, end, b->head->n_env);
    b->argv = strings(&at, end, b->head->n_argv);
    b->script = at;
    if (b->head->script > (size_t)(end - at) || b->head->n_argv == 0)
        fail(EINVAL, "the block of the run is damaged", "");
}

static void write_script(const struct block *b)
{
    size_t done = 0;

    if (b->head->script == 0)
        return;
    int fd = open(RUN_INIT_SCRIPT, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0555);
    if (fd < 0)
        fail(errno, "the script", "");
    while (done < b->head->script) {
        ssize_t n = write(fd, b->script + done, b->head->script - done);
        if (n < 0)
            fail(errno, "the script", "");
        done += (size_t)n;
    }
    if (fchmod(fd, 0555) < 0 || close(fd) < 0)
        fail(errno, "the script", "");
}

/* ---- the command's process */

static void become_submitter(const struct block *b)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};

    if (setgroups(b->head->n_groups, b->groups) < 0 ||
        setresgid(b->head->gid, b->head->gid, b->head->gid) < 0 ||
        setresuid(b->head->uid, b->head->uid, b->head->uid) < 0)
        fail(errno, "becoming the submitter", "");
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (b->head->uid != 0 && syscall(SYS_capset, &head, none) < 0)
        fail(errno, "giving up capabilities", "");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail(errno, "giving up privileges", "");
    umask(b->head->umask & 0777);
}

/* So that a path that cannot be written fails the run before it has done anything. */
static void make_output(const char *what, const char *path)
{
    if (!path[0])
        return;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        fail(errno, what, path);
    close(fd);
}

static _Noreturn void run_command(const struct block *b)
{
    const char *input = b->input[0] ? b->input : "/dev/null";
    sigset_t none;

    setsid();
    become_submitter(b);
    if (chdir(b->workdir) < 0)
        fail(errno, "workdir", b->workdir);
    int fd = open(input, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || dup2(fd, 0) < 0)
        fail(errno, "input", input);
    make_output("output", b->output);
    make_output("error", b->error);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    environ = b->env;
    execvp(b->argv[0], b->argv);
    /* As a shell has it. */
    int err = errno;
    tell(RUN_INIT_NOTE, 0, 0, b->argv[0], strerror(err));
    _exit(err == ENOENT ? 127 : 126);
}

/* ---- until its end */

static uint64_t cpu_us(const struct rusage *u)
{
    return (uint64_t)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000u +
           (uint64_t)(u->ru_utime.tv_usec + u->ru_stime.tv_usec);
}

static void reap(pid_t command)
{
    struct rusage used;
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != command)
            continue;
        if (getrusage(RUSAGE_CHILDREN, &used) < 0)
            memset(&used, 0, sizeof(used));
        tell(RUN_INIT_ENDED, status, cpu_us(&used), "", "");
        _exit(0); /* and the kernel ends all others here */
    }
}

int main(void)
{
    struct block b = {0};
    struct pollfd p[2];
    unsigned char number;
    sigset_t all;

    fcntl(RUN_INIT_CONTROL, F_SETFD, FD_CLOEXEC);
    close(RUN_INIT_EXE);
    read_block(&b);
    close(RUN_INIT_BLOCK);
    umask(022);
    write_script(&b);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&all);
    sigaddset(&all, SIGCHLD);
    int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        fail(errno, "signalfd", "");
    pid_t command = fork();
    if (command < 0)
        fail(errno, "a process for the command", "");
    if (command == 0)
        run_command(&b);
    /* The pipes' ends here would keep nobody from seeing their end: this process ends first. */
    p[0] = (struct pollfd){.fd = signals, .events = POLLIN};
    p[1] = (struct pollfd){.fd = RUN_INIT_CONTROL, .events = POLLIN};
    for (;;) {
        struct signalfd_siginfo info;
        if (poll(p, 2, -1) < 0)
            continue;
        if (p[1].revents & POLLIN && recv(RUN_INIT_CONTROL, &number, 1, MSG_DONTWAIT) == 1)
            kill(-1, number);
        else if (p[1].revents & (POLLHUP | POLLERR))
            _exit(1); /* the supervisor is gone */
        while (read(signals, &info, sizeof(info)) > 0)
            ;
        reap(command);
    }
}
