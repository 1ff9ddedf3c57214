/* umbel node and umbel mount on a machine that has joined. */
#include "tools/joined.h"

#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/wire/identity.h"
#include "control/wire/log.h"
#include "fs/mount.h"
#include "nodecache/node.h"
#include "tools/foreground.h"
#include "tools/mounting.h"
#include "tools/options.h"
#include "tools/text.h"

#define JOIN_CONF "join.conf"

/* ---- join.conf */

static int value(const char *text, const char *key, char *out, size_t size)
{
    return text_value(text, key, out, size) && out[0] ? 0 : -EINVAL;
}

int joined_read(struct joined *j, const char *dir, const char *role)
{
    char path[PATH_MAX], *text = NULL;
    size_t n = strlen(role);

    *j = (struct joined){.r.lock = -1};
    if (!realpath(dir, j->r.path) || root_path(&j->r, JOIN_CONF, path) != 0 ||
        root_path(&j->r, "identity", j->identity) != 0) {
        snprintf(j->r.detail, sizeof(j->r.detail), "%.300s: %s", dir, strerror(errno));
        return -errno;
    }
    int rc = text_read_file(path, &text, NULL);
    if (rc != 0) {
        snprintf(j->r.detail, sizeof(j->r.detail),
                 "%.300s has joined no cloud (%s): umbel join --dir %.100s ...", dir, strerror(-rc),
                 dir);
        return rc;
    }
    if (value(text, "cloud", j->r.conf.cloud, sizeof(j->r.conf.cloud)) ||
        value(text, "pool", j->r.conf.pool, sizeof(j->r.conf.pool)) ||
        value(text, "centre", j->centre, sizeof(j->centre)) ||
        value(text, "identity", j->who, sizeof(j->who)) || address_check(j->centre)) {
        snprintf(j->r.detail, sizeof(j->r.detail), "%.300s is damaged: join again", path);
        rc = -EINVAL;
    } else if (strncmp(j->who, role, n) != 0 || j->who[n] != '/') {
        snprintf(j->r.detail, sizeof(j->r.detail), "%.300s has joined as %s, not as a %s", dir,
                 j->who, role);
        rc = -EPERM;
    }
    free(text);
    j->name = j->who + n + (rc == 0);
    return rc;
}

int joined_write(const struct joined *j, char detail[CONF_DETAIL])
{
    char path[PATH_MAX];
    int rc = root_path(&j->r, JOIN_CONF, path);
    FILE *f = rc == 0 ? fopen(path, "wxe") : NULL;

    if (!f) {
        snprintf(detail, CONF_DETAIL, "cannot write %.300s: %s", path, strerror(errno));
        return -errno;
    }
    fprintf(f, "# Written by `umbel join`.\ncloud = %s\npool = %s\ncentre = %s\nidentity = %s\n",
            j->r.conf.cloud, j->r.conf.pool, j->centre, j->who);
    if (fflush(f) != 0 || fsync(fileno(f)) != 0)
        rc = -errno;
    if (fclose(f) != 0 && rc == 0)
        rc = -errno;
    if (rc != 0)
        snprintf(detail, CONF_DETAIL, "cannot write %.300s: %s", path, strerror(-rc));
    return rc;
}

bool joined_is_asked(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strncmp(argv[i], "--identity", 10) == 0)
            return true;
    return false;
}

/* ---- options */

struct options {
    struct foreground_options daemon;
    const char *dir, *cloud, *listen, *store, *point, *jobs_mount;
    uint64_t capacity;
    bool foreground, is_mount;
    int soft_ms;
};

enum { KEY_IDENTITY = 1000, KEY_CLOUD, KEY_LISTEN, KEY_STORE, KEY_JOBS_MOUNT };

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case KEY_IDENTITY:
        o->dir = arg;
        return 0;
    case KEY_CLOUD:
        o->cloud = arg;
        return 0;
    case KEY_LISTEN:
        o->listen = arg;
        return 0;
    case KEY_STORE:
        o->store = arg;
        return 0;
    case KEY_JOBS_MOUNT:
        if (arg[0] != '/')
            argp_error(state, "--jobs-mount: '%s' is not an absolute path", arg);
        o->jobs_mount = arg;
        return 0;
    case 's':
        if (text_parse_size(arg, &o->capacity) != 0 || o->capacity < CONF_CAPACITY_MIN)
            argp_error(state, "--capacity: '%s' is not a size of at least %lluM", arg,
                       CONF_CAPACITY_MIN >> 20);
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
    case 'n':
        o->daemon.name = arg;
        return 0;
    case 'F':
        o->daemon.ready_fd = atoi(arg);
        return 0;
    case ARGP_KEY_ARG:
        if (!o->is_mount || o->point)
            argp_error(state, "'%s' is one argument too many", arg);
        o->point = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->is_mount && !o->point)
            argp_error(state, "say where: MNT");
        if (!o->is_mount && (!o->listen || !o->capacity))
            argp_error(state, "say --listen HOST:PORT, where mounts reach this node, and "
                              "--capacity SIZE");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option node_options[] = {
    {"identity", KEY_IDENTITY, "DIR", 0, "what `umbel join` made", 0},
    {"centre", KEY_CLOUD, "HOST:PORT", 0, "the centre, if it has moved", 0},
    {"listen", KEY_LISTEN, "HOST:PORT", 0, "where mounts reach this node", 0},
    {"store", KEY_STORE, "DIR", 0, "where it keeps data (DIR/store)", 0},
    {"capacity", 's', "SIZE", 0, "what it may take on its disk", 0},
    {"jobs-mount", KEY_JOBS_MOUNT, "PATH", 0,
     "where the cloud is mounted on this machine: without it the node runs no jobs", 0},
    {"ready-fd", 'F', "N", 0, "where to write \"ready\" or \"error: TEXT\"", 0},
    {0},
};
static const struct argp_option mount_options[] = {
    {"identity", KEY_IDENTITY, "DIR", 0, "what `umbel join` made", 0},
    {"cloud", KEY_CLOUD, "HOST:PORT", 0, "the centre, if it has moved", 0},
    {"foreground", 'g', NULL, 0, "do not go into the background", 0},
    {"soft", 'S', "TIME", 0,
     "what cannot be reached for so long (30s, 5m, 1h) is an input/output error", 0},
    {"hard", 'H', NULL, 0,
     "what cannot be reached is waited for, until the reader is interrupted (the default)", 0},
    {"name", 'n', "NAME", 0, "name of the process", 0},
    {"ready-fd", 'F', "N", 0, "where to write \"ready\" or \"error: TEXT\"", 0},
    {0},
};

/* --cloud or --centre. */
static int set_centre(struct joined *j, const char *given)
{
    if (!given)
        return 0;
    if (snprintf(j->centre, sizeof(j->centre), "tcp:%s", given) < (int)sizeof(j->centre) &&
        address_check(j->centre) == 0)
        return 0;
    snprintf(j->r.detail, sizeof(j->r.detail), "'%.100s' is not HOST:PORT", given);
    return -EINVAL;
}

/* Reads the folder, and takes the lock NAME there. 0 or an exit status. */
static int begin(struct options *o, struct joined *j, const char *role)
{
    umask(077);
    if (joined_read(j, o->dir, role) != 0 || set_centre(j, o->cloud) != 0) {
        foreground_fail(&o->daemon, "%s", j->r.detail);
        return EXIT_FAILED;
    }
    return 0;
}

static int hold(const struct options *o, const struct root *r, const char *lock, const char *note)
{
    pid_t holder = 0;
    int rc = process_hold(r, lock, note, &holder);

    if (rc == -EBUSY)
        foreground_fail(&o->daemon, "%s runs already (pid %d)", lock, (int)holder);
    else if (rc != 0)
        foreground_fail(&o->daemon, "cannot lock %s/run/%s.lock: %s", r->path, lock, strerror(-rc));
    log_start(lock, LOG_LEVEL_INFO);
    return rc == 0 ? 0 : EXIT_FAILED;
}

/* ---- node */

int joined_node(int argc, char **argv)
{
    static const struct argp argp = {
        node_options, parse, NULL, "Runs the node as which this machine has joined.",
        NULL,         NULL,  NULL};
    struct options o = {.daemon.ready_fd = -1};
    char store[PATH_MAX], tcp[PATH_MAX], pid_file[PATH_MAX];
    struct joined j;

    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    int rc = begin(&o, &j, "node");
    if (rc == 0)
        rc = hold(&o, &j.r, j.name, NULL);
    if (rc != 0)
        return rc;
    snprintf(tcp, sizeof(tcp), "tcp:%.300s", o.listen);
    if (root_path(&j.r, "store", store) != 0 || address_check(tcp) != 0) {
        foreground_fail(&o.daemon, "--listen: '%.100s' is not HOST:PORT", o.listen);
        return EXIT_FAILED;
    }
    foreground_run_path(&j.r, j.name, ".pid", pid_file);
    const struct node_options options = {
        .name = j.name,
        .store = o.store ? o.store : store,
        .listen_tcp = tcp,
        .identity = j.identity,
        .centre = j.centre,
        .pool = j.r.conf.pool,
        .cloud = j.r.conf.cloud,
        .jobs_mount = o.jobs_mount,
        .capacity = o.capacity,
        .ready_fd = o.daemon.ready_fd,
        .pid_file = pid_file,
    };
    return node_run(&options) == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* ---- mount */

static int hold_worker(void *arg, char detail[256])
{
    const struct joined *j = arg;
    char worker[ROOT_NAME_MAX + 8];
    pid_t holder = 0;

    snprintf(worker, sizeof(worker), "mount-%.40s", j->r.detail); /* the mount's name, see below */
    int rc = process_hold(&j->r, worker, NULL, &holder);
    if (rc != 0)
        snprintf(detail, 256, "cannot lock run/%.60s.lock: %s", worker, strerror(-rc));
    return rc;
}

static int foreground(struct options *o, struct joined *j, const struct mounting *m)
{
    char keeper[ROOT_NAME_MAX + 8], worker[ROOT_NAME_MAX + 8];
    char keeper_pid[PATH_MAX], worker_pid[PATH_MAX];

    snprintf(keeper, sizeof(keeper), "keeper-%.40s", m->name);
    snprintf(worker, sizeof(worker), "mount-%.40s", m->name);
    int rc = hold(o, &j->r, keeper, m->point);
    if (rc != 0)
        return rc;
    foreground_run_path(&j->r, keeper, ".pid", keeper_pid);
    foreground_run_path(&j->r, worker, ".pid", worker_pid);
    snprintf(j->r.detail, sizeof(j->r.detail), "%s", m->name);
    const struct mount_options options = {
        .name = m->name,
        .mountpoint = m->point,
        .centre = j->centre,
        .identity = j->identity,
        .cloud = j->r.conf.cloud,
        .soft_ms = o->soft_ms,
        .keeper_pid_file = keeper_pid,
        .worker_pid_file = worker_pid,
        .worker_begin = hold_worker,
        .worker_arg = j,
        .ready_fd = o->daemon.ready_fd,
    };
    return mount_run(&options) == 0 ? EXIT_DONE : EXIT_FAILED;
}

static int background(const struct options *o, const struct joined *j, struct mounting *m)
{
    char keeper[ROOT_NAME_MAX + 8], detail[PROCESS_DETAIL] = "";
    const char *args[] = {
        "mount",  "--foreground", "--identity", j->r.path, "--cloud", j->centre + strlen("tcp:"),
        "--name", m->name,        m->point,     NULL,      NULL,      NULL};
    char soft[24];

    m->soft_ms = o->soft_ms;
    mounting_add_soft(m, args, 9, soft);
    snprintf(keeper, sizeof(keeper), "keeper-%.40s", m->name);
    if (process_start(&j->r, keeper, args, &m->was_running, detail) != 0) {
        warnx("%s", detail);
        return EXIT_FAILED;
    }
    printf("%s at %s\n", m->was_running ? "was mounted" : "mounted", m->point);
    return EXIT_DONE;
}

int joined_mount(int argc, char **argv)
{
    static const struct argp argp = {
        mount_options, parse, "MNT", "Mounts the cloud that this machine has joined as a mount.",
        NULL,          NULL,  NULL};
    struct options o = {.daemon.ready_fd = -1, .is_mount = true};
    char detail[PROCESS_DETAIL] = "";
    struct mounting m;
    struct joined j;

    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    if (geteuid() != 0) {
        foreground_fail(&o.daemon, "this needs root: mounting is root's");
        return EXIT_FAILED;
    }
    int rc = begin(&o, &j, "mount");
    if (rc != 0)
        return rc;
    if (mounting_check(&j.r, o.point, &m, detail) != 0) {
        foreground_fail(&o.daemon, "%s", detail);
        return EXIT_FAILED;
    }
    if (o.daemon.name)
        snprintf(m.name, sizeof(m.name), "%s", o.daemon.name);
    return o.foreground ? foreground(&o, &j, &m) : background(&o, &j, &m);
}
