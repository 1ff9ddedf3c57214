/*
 * The first process of a run's own process space: a fork of the supervisor, so that a run costs no
 * program but its own. It goes into the sandbox, becomes the submitter for the command that it
 * starts, hands signals on, and tells the true end of it. With it everything else in the space
 * ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
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

#include "nodecache/run_private.h"

/* The system's own, for a command to be found. */
#define RUN_PATH "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
/* Of a line of the environment that is made here. */
#define ENV_TEXT (PATH_MAX + 32)
/* Some paths at once, and execvp()'s. */
#define COMMAND_STACK (256u << 10)

enum { CONTROL = 3 }; /* all that stays open behind 0, 1, 2 */

struct init {
    const struct run_world *world;
    const Star__JobStart *start;
    struct run_argv command;
    char **env;
    size_t n_env;
};

static void tell(enum run_told_kind kind, int32_t value, uint64_t cpu_us, const char *what,
                 const char *text)
{
    struct run_told told = {.kind = kind, .value = value, .cpu_us = cpu_us};

    snprintf(told.text, sizeof(told.text), "%s%s%s", what, text[0] ? " " : "", text);
    (void)!send(CONTROL, &told, sizeof(told), MSG_NOSIGNAL); /* nobody left: nobody asks */
}

static _Noreturn void fail(int err, const char *what, const char *text)
{
    tell(RUN_TOLD_FAILED, err, 0, what, text);
    _exit(1);
}

/* ---- what the command gets */

static bool in_own(const Star__JobStart *s, const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < s->n_env; i++)
        if (strncmp(s->env[i], name, n) == 0 && s->env[i][n] == '=')
            return true;
    return false;
}

/* The first one of a name counts, so ours are left out where the submitter has his own. */
static void add_env(struct init *in, const char *name, const char *value)
{
    char text[ENV_TEXT];

    if (in_own(in->start, name))
        return;
    snprintf(text, sizeof(text), "%s=%s", name, value);
    if (!(in->env[in->n_env++] = strdup(text)))
        fail(ENOMEM, "the environment", "");
}

static void add_number(struct init *in, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    add_env(in, name, text);
}

static void make_env(struct init *in)
{
    const Star__JobStart *s = in->start;
    enum { OURS = 16 };

    in->env = calloc(s->n_env + OURS + 1, sizeof(*in->env));
    if (!in->env)
        fail(ENOMEM, "the environment", "");
    for (; in->n_env < s->n_env; in->n_env++)
        in->env[in->n_env] = s->env[in->n_env];
    add_env(in, "PATH", RUN_PATH);
    add_env(in, "HOME", "/tmp");
    add_env(in, "TMPDIR", "/tmp");
    add_env(in, "LANG", "C.UTF-8");
    add_env(in, "UMBEL_MOUNT", in->world->mount_path);
    add_env(in, "UMBEL_JOB_NAME", s->name ? s->name : "");
    add_number(in, "UMBEL_JOB_ID", s->run->job);
    add_number(in, "UMBEL_JOB_COPY", s->run->copy);
    add_number(in, "UMBEL_JOB_ATTEMPT", s->run->attempt);
    add_number(in, "UMBEL_JOB_MILLICPUS", s->milli_cpus);
    add_number(in, "UMBEL_JOB_MEMORY", s->memory);
}

static void write_script(const Star__JobStart *s)
{
    if (s->script.len == 0)
        return;
    int fd = open(RUN_SCRIPT, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0555);
    if (fd < 0)
        fail(errno, "the script", "");
    for (size_t done = 0; done < s->script.len;) {
        ssize_t n = write(fd, s->script.data + done, s->script.len - done);
        if (n < 0)
            fail(errno, "the script", "");
        done += (size_t)n;
    }
    if (fchmod(fd, 0555) < 0 || close(fd) < 0)
        fail(errno, "the script", "");
}

/* ---- the command's process */

/* What root's runs keep: over files. The mount is the cloud's, all else is read-only. */
static const unsigned root_caps[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID};

static bool root_keeps(unsigned cap)
{
    for (size_t i = 0; i < sizeof(root_caps) / sizeof(root_caps[0]); i++)
        if (root_caps[i] == cap)
            return true;
    return false;
}

/* exec gives root all of the bounding set, so what is not for it goes there. */
static int drop_bounding(bool root)
{
    for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (!(root && root_keeps(cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return -errno;
    return 0;
}

static int drop_capabilities(bool root)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (size_t i = 0; root && i < sizeof(root_caps) / sizeof(root_caps[0]); i++) {
        data[0].permitted |= 1u << root_caps[i];
        data[0].effective |= 1u << root_caps[i];
    }
    return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

static void become_submitter(const Star__Cred *c)
{
    bool root = c->uid == 0;
    int rc = drop_bounding(root);

    if (rc < 0)
        fail(-rc, "giving up capabilities", "");
    /* By hand: the library would have all threads of the memory's owner do it. */
    if (syscall(SYS_setgroups, c->n_groups, c->groups) < 0 ||
        syscall(SYS_setresgid, c->gid, c->gid, c->gid) < 0 ||
        syscall(SYS_setresuid, c->uid, c->uid, c->uid) < 0)
        fail(errno, "becoming the submitter", "");
    if ((rc = drop_capabilities(root)) < 0)
        fail(-rc, "giving up capabilities", "");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail(errno, "giving up privileges", "");
    umask(c->umask & 0777);
}

/* A path in the cloud: absolute there, or relative to the workdir, where we are. */
static const char *real_path(const struct init *in, const char *path, char out[PATH_MAX])
{
    bool absolute = path[0] == '/';

    if (snprintf(out, PATH_MAX, "%s%s", absolute ? in->world->mount_path : "", path) >= PATH_MAX)
        fail(ENAMETOOLONG, path, "");
    return out;
}

static void go_to_workdir(const struct init *in)
{
    const char *dir = in->start->workdir && in->start->workdir[0] ? in->start->workdir : "/";
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", in->world->mount_path, dir + (dir[0] == '/')) >=
        (int)sizeof(path))
        fail(ENAMETOOLONG, "workdir", dir);
    if (chdir(path) < 0)
        fail(errno, "workdir", dir);
}

/* So that a path that cannot be written fails the run before it has done anything. */
static void make_output(const struct init *in, const char *what, const char *given)
{
    char path[PATH_MAX];

    if (!given || !given[0])
        return;
    int fd = open(real_path(in, given, path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        fail(errno, what, given);
    close(fd);
}

/* In init's own memory, as vfork() has it: a fork would copy it for nothing. So nothing is
 * allocated or changed here that init uses. */
static int run_command(void *arg)
{
    struct init *in = arg;
    const Star__JobStart *s = in->start;
    const char *input = s->input && s->input[0] ? s->input : NULL;
    char path[PATH_MAX];
    sigset_t none;

    setsid();
    become_submitter(s->cred);
    go_to_workdir(in);
    if (input) {
        int fd = open(real_path(in, input, path), O_RDONLY | O_CLOEXEC);
        if (fd < 0 || dup2(fd, 0) < 0)
            fail(errno, "input", input);
    }
    make_output(in, "output", s->output);
    make_output(in, "error", s->error);
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(in->command.argv[0], in->command.argv);
    /* As a shell has it. */
    int err = errno;
    tell(RUN_TOLD_NOTE, 0, 0, in->command.argv[0], strerror(err));
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
        tell(RUN_TOLD_ENDED, status, cpu_us(&used), "", "");
        _exit(0); /* and the kernel ends all others here */
    }
}

static _Noreturn void wait_for(pid_t command, int signals)
{
    struct pollfd p[] = {{.fd = signals, .events = POLLIN}, {.fd = CONTROL, .events = POLLIN}};
    struct signalfd_siginfo info;
    unsigned char number;

    for (;;) {
        if (poll(p, 2, -1) < 0)
            continue;
        if (p[1].revents & POLLIN && recv(CONTROL, &number, 1, MSG_DONTWAIT) == 1)
            kill(-1, number);
        else if (p[1].revents & (POLLHUP | POLLERR))
            _exit(1); /* the supervisor is gone */
        while (read(signals, &info, sizeof(info)) > 0)
            ;
        reap(command);
    }
}

/* Placed by number, everything else closed: what the supervisor has is not the run's. */
static int place(const struct run_world *w, const struct run_pipes *p)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    close(w->channel); /* its end is the supervisor's */
    if (null < 0 || dup2(null, 0) < 0 || dup2(p->out, 1) < 0 || dup2(p->err, 2) < 0 ||
        dup3(p->control, CONTROL, O_CLOEXEC) < 0)
        return -errno;
    return 0;
}

_Noreturn void run_init(const struct run_world *w, const char *name, const Star__JobStart *s,
                        const struct run_pipes *p)
{
    struct init in = {.world = w, .start = s};
    const char *what = "the run's first process";
    sigset_t set;
    int rc;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_NAME, "umbel-init");
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    rc = place(w, p);
    if (rc < 0)
        _exit(1);
    rc = run_cgroup_enter(&w->cgroups, name);
    if (rc == 0)
        rc = run_sandbox_enter(w, s, &what);
    if (rc == 0)
        rc = run_command_words(s->command ? s->command : "", s->script.len > 0, s->script.data,
                               s->script.len, &in.command);
    if (rc < 0)
        fail(-rc, what, "");
    close_range(CONTROL + 1, ~0u, 0);
    umask(022);
    write_script(s);
    make_env(&in);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    environ = in.env; /* in which execvp() looks for PATH */
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    char *stack = mmap(NULL, COMMAND_STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    pid_t command =
        signals < 0 || stack == MAP_FAILED
            ? -1
            : clone(run_command, stack + COMMAND_STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, &in);
    if (command < 0)
        fail(errno, "a process for the command", "");
    wait_for(command, signals);
}
