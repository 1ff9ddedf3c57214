/* The sandbox of a run: bubblewrap, and the block for its first process. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nodecache/run_private.h"
#include "nodecache/runinit/init.h"

#define BWRAP    "bwrap"
#define ARGS_MAX 256
#define ARG_TEXT 32
/* The system's own, for a command to be found and to find its libraries. */
#define RUN_PATH "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

/* ---- arguments of bwrap */

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

/* The system, read-only: as it lies here, links as links. What is not there is left out. */
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

int run_sandbox_prepare(struct run_world *w, char detail[RUN_DETAIL])
{
    struct args a = {.n = 0};

    ADD(&a, BWRAP, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--as-pid-1");
    add_system(&a);
    ADD(&a, "--dev", "/dev", "--proc", "/proc", "--dir", "/tmp", "--dir", "/var", "--perms",
        "1777", "--dir", "/var/tmp", "--dir", "/run");
    w->sandbox = calloc(a.n + 1, sizeof(*w->sandbox));
    if (a.failed || !w->sandbox) {
        snprintf(detail, RUN_DETAIL, "the arguments of bwrap: %s", strerror(ENOMEM));
        return -ENOMEM;
    }
    memcpy(w->sandbox, a.list, a.n * sizeof(*a.list));
    w->n_sandbox = a.n;
    return 0;
}

/* root in there is root over the submitter's files, not over the machine. init needs the rest to
 * become the submitter and to signal him. */
static void add_capabilities(struct args *a, bool root)
{
    ADD(a, "--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add",
        "CAP_KILL", "--cap-add", "CAP_SETPCAP");
    if (root)
        ADD(a, "--cap-add", "CAP_CHOWN", "--cap-add", "CAP_DAC_OVERRIDE", "--cap-add", "CAP_FOWNER",
            "--cap-add", "CAP_FSETID");
}

/* bwrap would make them for itself alone. */
static void add_parents(struct args *a, const char *path)
{
    char parent[PATH_MAX];

    for (const char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        snprintf(parent, sizeof(parent), "%.*s", (int)(at - path), path);
        ADD(a, "--perms", "0755", "--dir", parent);
    }
}

static void add_run(struct args *a, const struct run_world *w, const Star__JobStart *s)
{
    char number[ARG_TEXT];

    /* Its bytes count as the run's memory; the bound only names the end of it better. */
    if (s->memory > 0) {
        snprintf(number, sizeof(number), "%" PRIu64, s->memory);
        ADD(a, "--size", number);
    }
    ADD(a, "--perms", "1777", "--tmpfs", "/tmp");
    add_parents(a, w->mount_path);
    ADD(a, "--bind", w->mount_path, w->mount_path);
    /* root owns /proc/sys and what else there is of the machine, and needs no capability for it. */
    if (s->cred->uid == 0)
        ADD(a, "--remount-ro", "/proc");
    add_capabilities(a, s->cred->uid == 0);
    snprintf(number, sizeof(number), "/proc/self/fd/%d", RUN_INIT_EXE);
    ADD(a, "--chdir", "/", "--", number);
}

static int place(int fd, int at)
{
    if (fd == at)
        return fcntl(fd, F_SETFD, 0) < 0 ? -errno : 0;
    return dup2(fd, at) < 0 ? -errno : 0;
}

/* The pipes' ends lie above the fixed numbers, see run_supervise.c. */
static int place_all(const struct run_world *w, const struct run_pipes *p)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int rc = null < 0 ? -errno : place(null, 0);

    if (rc == 0)
        rc = place(p->out, 1);
    if (rc == 0)
        rc = place(p->err, 2);
    if (rc == 0)
        rc = place(p->control, RUN_INIT_CONTROL);
    if (rc == 0)
        rc = place(p->block, RUN_INIT_BLOCK);
    if (rc == 0)
        rc = place(w->init_exe, RUN_INIT_EXE);
    return rc;
}

int run_sandbox_enter(const struct run_world *w, const char *name, const Star__JobStart *s,
                      const struct run_pipes *p)
{
    char path[] = "PATH=" RUN_PATH, *env[] = {path, NULL};
    struct args a = {.n = 0};
    sigset_t none;
    int rc;

    memcpy(a.list, w->sandbox, w->n_sandbox * sizeof(*a.list));
    a.n = w->n_sandbox;
    add_run(&a, w, s);
    rc = a.failed ? -ENOMEM : run_cgroup_enter(&w->cgroups, name);
    if (rc == 0)
        rc = place_all(w, p);
    if (rc < 0)
        return rc;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvpe(BWRAP, a.list, env);
    return -errno;
}

/* ---- the block */

struct writer {
    FILE *to;
};

static void put(struct writer *b, const char *text)
{
    fwrite(text, 1, strlen(text) + 1, b->to);
}

/* A path in the cloud: absolute there, or relative to the workdir. */
static void put_path(struct writer *b, const struct run_world *w, const char *path)
{
    if (path && path[0] == '/')
        fputs(w->mount_path, b->to);
    put(b, path ? path : "");
}

static void put_workdir(struct writer *b, const struct run_world *w, const Star__JobStart *s)
{
    const char *dir = s->workdir && s->workdir[0] ? s->workdir : "/";

    if (dir[0] != '/')
        fputc('/', b->to);
    put_path(b, w, dir);
}

/* The first one of a name counts, so ours are left out where the submitter has his own. */
static unsigned put_default(struct writer *b, const Star__JobStart *s, const char *name,
                            const char *value)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < s->n_env; i++)
        if (strncmp(s->env[i], name, n) == 0 && s->env[i][n] == '=')
            return 0;
    fprintf(b->to, "%s=%s%c", name, value, 0);
    return 1;
}

static unsigned put_number(struct writer *b, const Star__JobStart *s, const char *name,
                           uint64_t value)
{
    char text[ARG_TEXT];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    return put_default(b, s, name, text);
}

static unsigned put_env(struct writer *b, const struct run_world *w, const Star__JobStart *s)
{
    unsigned n = (unsigned)s->n_env;

    for (size_t i = 0; i < s->n_env; i++)
        put(b, s->env[i]);
    n += put_default(b, s, "PATH", RUN_PATH);
    n += put_default(b, s, "HOME", "/tmp");
    n += put_default(b, s, "TMPDIR", "/tmp");
    n += put_default(b, s, "LANG", "C.UTF-8");
    n += put_default(b, s, "UMBEL_MOUNT", w->mount_path);
    n += put_default(b, s, "UMBEL_JOB_NAME", s->name ? s->name : "");
    n += put_number(b, s, "UMBEL_JOB_ID", s->run->job);
    n += put_number(b, s, "UMBEL_JOB_COPY", s->run->copy);
    n += put_number(b, s, "UMBEL_JOB_ATTEMPT", s->run->attempt);
    n += put_number(b, s, "UMBEL_JOB_MILLICPUS", s->milli_cpus);
    n += put_number(b, s, "UMBEL_JOB_MEMORY", s->memory);
    return n;
}

static int fill(FILE *to, const struct run_world *w, const Star__JobStart *s,
                const struct run_argv *argv)
{
    struct writer b = {.to = to};
    struct run_init_head head = {.magic = RUN_INIT_MAGIC,
                                 .uid = s->cred->uid,
                                 .gid = s->cred->gid,
                                 .umask = s->cred->umask,
                                 .n_groups = (uint32_t)s->cred->n_groups,
                                 .n_argv = argv->n,
                                 .script = (uint32_t)s->script.len};

    fwrite(&head, sizeof(head), 1, to);
    fwrite(s->cred->groups, sizeof(uint32_t), s->cred->n_groups, to);
    put_workdir(&b, w, s);
    put_path(&b, w, s->input);
    put_path(&b, w, s->output);
    put_path(&b, w, s->error);
    head.n_env = put_env(&b, w, s);
    for (unsigned i = 0; i < argv->n; i++)
        put(&b, argv->argv[i]);
    fwrite(s->script.data, 1, s->script.len, to);
    if (fflush(to) != 0 || ferror(to))
        return -EIO;
    return pwrite(fileno(to), &head, sizeof(head), 0) == (ssize_t)sizeof(head) ? 0 : -EIO;
}

int run_sandbox_block(const struct run_world *w, const Star__JobStart *s)
{
    struct run_argv argv;
    int rc = run_command_words(s->command ? s->command : "", s->script.len > 0, s->script.data,
                               s->script.len, &argv);
    int fd = rc < 0 ? rc : memfd_create("umbel-run", MFD_CLOEXEC);
    FILE *to = NULL;

    if (rc == 0 && fd < 0)
        rc = -errno;
    if (rc == 0 && !(to = fdopen(dup(fd), "w")))
        rc = -errno;
    if (rc == 0)
        rc = fill(to, w, s, &argv);
    if (to)
        fclose(to);
    run_argv_free(&argv);
    if (rc < 0 && fd >= 0)
        close(fd);
    return rc < 0 ? rc : fd;
}
