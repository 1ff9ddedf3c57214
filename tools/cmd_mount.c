/* umbel mount: one more mount, and the daemon behind each. */
#include "fs/mount.h"

#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/foreground.h"
#include "tools/joined.h"
#include "tools/mounting.h"
#include "tools/options.h"

/* It stands in names of files. */
#define NAME_LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

struct options {
    struct foreground_options daemon;
    const char *point;
    bool foreground;
    int soft_ms;
};

struct worker_lock {
    const struct root *root;
    const char *name;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->daemon;
        return 0;
    case 'g':
        o->foreground = true;
        return 0;
    case 'S':
        if (mounting_parse_soft(arg, &o->soft_ms) != 0)
            argp_error(state, "--soft: '%s' is no time from 5s to 24h", arg);
        return 0;
    case 'H':
        o->soft_ms = 0;
        return 0;
    case ARGP_KEY_ARG:
        if (o->point != NULL)
            argp_error(state, "one mountpoint at a time, not '%s' too", arg);
        o->point = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->daemon.name != NULL &&
            (strspn(o->daemon.name, NAME_LETTERS) != strlen(o->daemon.name) ||
             strlen(o->daemon.name) >= sizeof(((struct mounting *)0)->name)))
            argp_error(state, "--name: '%s' cannot name a mount", o->daemon.name);
        if (o->daemon.root == NULL || o->point == NULL)
            argp_error(state, "say which cloud and where: --root DIR MNT");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"foreground", 'g', NULL, 0, "do not go into the background", 0},
    {"soft", 'S', "TIME", 0,
     "what cannot be reached for so long (30s, 5m, 1h) is an input/output error", 0},
    {"hard", 'H', NULL, 0,
     "what cannot be reached is waited for, until the reader is interrupted (the default)", 0},
    {0},
};
static const struct argp_child children[] = {{&foreground_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    options,  parse, "MNT", "Mounts a cloud that runs on this machine. `umount MNT` ends it.",
    children, NULL,  NULL};

/* So that `down` finds it when its keeper is gone. */
static int hold_worker(void *arg, char detail[256])
{
    const struct worker_lock *lock = arg;
    pid_t holder = 0;
    int rc = process_hold(lock->root, lock->name, NULL, &holder);

    if (rc == -EBUSY)
        snprintf(detail, 256, "%.100s runs already (pid %d)", lock->name, (int)holder);
    else if (rc != 0)
        snprintf(detail, 256, "cannot lock run/%.100s.lock: %s", lock->name, strerror(-rc));
    return rc;
}

/* The name under which it would run is chosen as in the background. */
static int foreground(const struct options *o)
{
    char keeper[ROOT_NAME_MAX + 8], centre[PATH_MAX], keeper_pid[PATH_MAX], worker_pid[PATH_MAX];
    char worker[ROOT_NAME_MAX + 8], detail[PROCESS_DETAIL];
    char identity[PATH_MAX];
    struct mounting m;
    struct root r;

    if (root_open(&r, o->daemon.root, false) != 0) {
        foreground_fail(&o->daemon, "%s", r.detail);
        return EXIT_FAILED;
    }
    if (mounting_check(&r, o->point, &m, detail) != 0) {
        foreground_fail(&o->daemon, "%s", detail);
        return EXIT_FAILED;
    }
    if (o->daemon.name != NULL)
        snprintf(m.name, sizeof(m.name), "%s", o->daemon.name);
    snprintf(keeper, sizeof(keeper), "keeper-%s", m.name);
    snprintf(worker, sizeof(worker), "mount-%s", m.name);
    int rc = foreground_begin(&o->daemon, keeper, m.point, &r);
    if (rc != 0)
        return rc;
    if (root_socket(&r, "control-1", centre) != 0 ||
        root_path(&r, "identity/" ROOT_MOUNT_IDENTITY, identity) != 0) {
        foreground_fail(&o->daemon, "%s: the path is too long", r.path);
        return EXIT_FAILED;
    }
    foreground_run_path(&r, keeper, ".pid", keeper_pid);
    foreground_run_path(&r, worker, ".pid", worker_pid);
    struct worker_lock lock = {.root = &r, .name = worker};
    const struct mount_options mount = {
        .name = m.name,
        .mountpoint = m.point,
        .centre = centre,
        .identity = r.conf.listen[0] != '\0' ? identity : NULL,
        .cloud = r.conf.cloud,
        .soft_ms = o->soft_ms,
        .keeper_pid_file = keeper_pid,
        .worker_pid_file = worker_pid,
        .worker_begin = hold_worker,
        .worker_arg = &lock,
        .ready_fd = o->daemon.ready_fd,
    };
    return mount_run(&mount) == 0 ? EXIT_DONE : EXIT_FAILED;
}

static int background(const struct options *o)
{
    char detail[PROCESS_DETAIL] = "";
    struct mounting m;
    struct root r;
    int rc = root_open(&r, o->daemon.root, true);

    if (rc != 0) {
        warnx("%s", r.detail);
        return EXIT_FAILED;
    }
    if (process_pid(&r, "control-1") <= 0) {
        snprintf(detail, sizeof(detail), "this cloud is not running: umbel up --root %.300s",
                 r.path);
        rc = -ENOTCONN;
    }
    if (rc == 0)
        rc = mounting_check(&r, o->point, &m, detail);
    m.soft_ms = o->soft_ms;
    if (rc == 0)
        rc = mounting_start(&r, &m, detail);
    if (rc != 0)
        warnx("%s", detail);
    else
        printf("%s at %s\n", m.was_running ? "was mounted" : "mounted", m.point);
    root_close(&r);
    return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}

int cmd_mount(int argc, char **argv)
{
    struct options o = {.daemon.ready_fd = -1};

    if (joined_is_asked(argc, argv))
        return joined_mount(argc, argv);
    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    if (geteuid() != 0) {
        foreground_fail(&o.daemon, "this needs root: mounting is root's");
        return EXIT_FAILED;
    }
    return o.foreground ? foreground(&o) : background(&o);
}
