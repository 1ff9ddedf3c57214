/* umbel control, umbel node: the daemons in the foreground. */
#include <err.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/control.h"
#include "control/wire/log.h"
#include "hv/hv_local.h"
#include "nodecache/node.h"
#include "tools/commands.h"
#include "tools/foreground.h"
#include "tools/joined.h"
#include "tools/keyring.h"
#include "tools/options.h"
#include "tools/text.h"

/* For tests: what is run as a node that is started on demand, instead of this program. */
#define NODE_PROGRAM_ENV "UMBEL_TEST_NODE_PROGRAM"

enum { KEY_JOBS_MOUNT = 1000, KEY_CAPACITY };

static error_t parse_daemon(int key, char *arg, struct argp_state *state)
{
    struct foreground_options *o = state->input;
    uint64_t n;

    switch (key) {
    case 'r':
        o->root = arg;
        return 0;
    case 'n':
        o->name = arg;
        return 0;
    case 'F':
        if (text_parse_number(arg, 3, 1u << 20, &n) != 0)
            argp_error(state, "--ready-fd: '%s' is not a descriptor's number", arg);
        o->ready_fd = (int)n;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option foreground_options[] = {
    {"root", 'r', "DIR", 0, "the cloud's folder", 0},
    {"name", 'n', "NAME", 0, "name of the process", 0},
    {"ready-fd", 'F', "N", 0, "where to write \"ready\" or \"error: TEXT\"", 0},
    {0},
};
const struct argp foreground_argp = {
    foreground_options, parse_daemon, NULL, NULL, NULL, NULL, NULL};

void foreground_fail(const struct foreground_options *o, const char *format, ...)
{
    char text[PROCESS_DETAIL];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    warnx("%s", text);
    if (o->ready_fd >= 0) {
        dprintf(o->ready_fd, "error: %s\n", text);
        close(o->ready_fd);
    }
}

void foreground_run_path(const struct root *r, const char *name, const char *suffix, char *out)
{
    if (snprintf(out, PATH_MAX, "%s/run/%s%s", r->path, name, suffix) >= PATH_MAX)
        errx(EXIT_FAILED, "%s: the path is too long", r->path);
}

int foreground_begin(const struct foreground_options *o, const char *lock, const char *note,
                     struct root *r)
{
    pid_t holder = 0;

    umask(077);
    if (root_open(r, o->root, false) != 0) {
        foreground_fail(o, "%s", r->detail);
        return EXIT_FAILED;
    }
    int rc = process_hold(r, lock, note, &holder);
    if (rc == -EBUSY)
        foreground_fail(o, "%s runs already (pid %d)", lock, (int)holder);
    else if (rc != 0)
        foreground_fail(o, "cannot lock %s/run/%s.lock: %s", r->path, lock, strerror(-rc));
    if (rc != 0)
        return EXIT_FAILED;
    log_start(lock, LOG_LEVEL_INFO);
    return 0;
}

/* NAME is PREFIX and a number that the cloud has. */
static int check_name(const struct foreground_options *o, const char *prefix, uint64_t most)
{
    size_t n = strlen(prefix);
    uint64_t number;

    if (strncmp(o->name, prefix, n) == 0 && text_parse_number(o->name + n, 1, most, &number) == 0)
        return 0;
    foreground_fail(o, "this cloud has no '%s' (%s1 to %s%ju)", o->name, prefix, prefix,
                    (uintmax_t)most);
    return EXIT_USAGE;
}

static error_t parse_end(int key, char *arg, struct argp_state *state)
{
    struct foreground_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = o;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    case ARGP_KEY_END:
        if (o->root == NULL || o->name == NULL)
            argp_error(state, "say --root DIR and --name NAME");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_daemon_end(int key, char *arg, struct argp_state *state)
{
    struct foreground_options *o = state->input;

    switch (key) {
    case KEY_JOBS_MOUNT:
        if (arg[0] != '/')
            argp_error(state, "--jobs-mount: '%s' is not an absolute path", arg);
        o->jobs_mount = arg;
        return 0;
    case KEY_CAPACITY:
        if (text_parse_size(arg, &o->capacity) != 0 || o->capacity < CONF_CAPACITY_MIN)
            argp_error(state, "--capacity: '%s' is not a size of at least %lluM", arg,
                       CONF_CAPACITY_MIN >> 20);
        return 0;
    default:
        return parse_end(key, arg, state);
    }
}

static const struct argp_option node_options[] = {
    {"jobs-mount", KEY_JOBS_MOUNT, "PATH", 0,
     "where the cloud is mounted on this machine: without it the node runs no jobs", 0},
    {"capacity", KEY_CAPACITY, "SIZE", 0, "what it may take on its disk (as umbel.conf says)", 0},
    {0},
};
static const struct argp_option control_options[] = {
    {"jobs-mount", KEY_JOBS_MOUNT, "PATH", 0,
     "where the cloud is mounted on this machine: without it no nodes are started for jobs", 0},
    {0},
};
static const struct argp_child children[] = {{&foreground_argp, 0, NULL, 0}, {0}};
static const struct argp control_argp = {
    control_options,
    parse_daemon_end,
    NULL,
    "Runs a control process of the cloud in the foreground, until SIGTERM; logs to standard error.",
    children,
    NULL,
    NULL};
static const struct argp node_argp = {
    node_options,
    parse_daemon_end,
    NULL,
    "Runs a node of the cloud in the foreground, until SIGTERM; logs to standard error.",
    children,
    NULL,
    NULL};

static int identity_path(const struct root *r, const char *name, char *out)
{
    char relative[ROOT_NAME_MAX + 16];

    snprintf(relative, sizeof(relative), "identity/%s", name);
    return root_path(r, relative, out);
}

/* What the centre needs to start a node as `umbel up` would. */
struct demand_nodes {
    struct control_nodes nodes;
    struct hv_local_options local;
    const char *args[8];
    char run[PATH_MAX], logs[PATH_MAX], identities[PATH_MAX], conf[PATH_MAX];
};

/* `umbel up --capacity` may have changed it. */
static uint64_t capacity_now(const void *arg)
{
    const struct demand_nodes *d = arg;
    char detail[CONF_DETAIL];
    struct conf conf;

    return conf_read(d->conf, &conf, detail) == 0 ? conf.capacity : d->nodes.capacity;
}

static int demand_nodes(struct demand_nodes *d, const struct foreground_options *o,
                        const struct root *r)
{
    const char *program = getenv(NODE_PROGRAM_ENV);
    size_t n = 0;

    if (root_path(r, "run", d->run) != 0 || root_path(r, "log", d->logs) != 0 ||
        root_path(r, "identity", d->identities) != 0 || root_path(r, ROOT_CONF_NAME, d->conf) != 0)
        return -ENAMETOOLONG;
    d->args[n++] = "umbel";
    d->args[n++] = "node";
    d->args[n++] = "--root";
    d->args[n++] = r->path;
    if (o->jobs_mount) {
        d->args[n++] = "--jobs-mount";
        d->args[n++] = o->jobs_mount;
    }
    d->args[n] = NULL;
    d->local = (struct hv_local_options){
        .program = program ? program : "/proc/self/exe",
        .args = d->args,
        .stores = r->path,
        .run = d->run,
        .logs = d->logs,
        .identities = d->identities,
        .prefix = ROOT_DEMAND_PREFIX,
        .gone_file = NODE_GONE_FILE,
        .capacity = capacity_now,
        .capacity_arg = d,
        .capacity_min = CONF_CAPACITY_MIN,
        .why_not = o->jobs_mount ? NULL
                                 : "the cloud was not mounted on this machine when its control "
                                   "process was started (umbel up --mount)"};
    d->nodes = (struct control_nodes){.local = &d->local, .capacity = r->conf.capacity};
    return 0;
}

int cmd_control(int argc, char **argv)
{
    struct foreground_options o = {.ready_fd = -1};
    char dir[PATH_MAX], address[PATH_MAX], pid_file[PATH_MAX];
    char tcp[PATH_MAX], identity[PATH_MAX], authority[PATH_MAX];
    struct demand_nodes demand;
    struct root r;

    if (options_parse(&control_argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    if (check_name(&o, "control-", 1) != 0)
        return EXIT_USAGE;
    int rc = foreground_begin(&o, o.name, NULL, &r);
    if (rc != 0)
        return rc;
    if (root_path(&r, o.name, dir) != 0 || root_socket(&r, o.name, address) != 0 ||
        root_path(&r, "identity", authority) != 0 || identity_path(&r, o.name, identity) != 0 ||
        demand_nodes(&demand, &o, &r) != 0) {
        foreground_fail(&o, "%s: the path is too long", r.path);
        return EXIT_FAILED;
    }
    foreground_run_path(&r, o.name, ".pid", pid_file);
    struct control_keys keys;
    struct keyring ring = {.count = 0};
    if (r.conf.seal) {
        char key_file[PATH_MAX], detail[CONF_DETAIL];
        if (root_path(&r, KEYRING_NAME, key_file) != 0)
            snprintf(detail, sizeof(detail), "%s: the path is too long", r.path),
                rc = -ENAMETOOLONG;
        else
            rc = keyring_read(&ring, key_file, detail);
        if (rc != 0) {
            foreground_fail(&o, "%s", detail);
            return EXIT_FAILED;
        }
        snprintf(ring.cloud, sizeof(ring.cloud), "%s", r.conf.cloud);
        prctl(PR_SET_DUMPABLE, 0); /* no core with keys in it */
        keys = keyring_control(&ring);
    }
    const struct control_options options = {
        .name = o.name,
        .dir = dir,
        .listen = address,
        .listen_tcp = root_listen(&r, 0, tcp) == 0 ? tcp : NULL,
        .identity = identity,
        .authority = authority,
        .cloud = r.conf.cloud,
        .pool = r.conf.pool,
        .ready_fd = o.ready_fd,
        .pid_file = pid_file,
        .keys = r.conf.seal ? &keys : NULL,
        .nodes = &demand.nodes,
    };
    rc = control_run(&options);
    keyring_wipe(&ring);
    return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}

int cmd_node(int argc, char **argv)
{
    struct foreground_options o = {.ready_fd = -1};
    char store[PATH_MAX], address[PATH_MAX], centre[PATH_MAX], pid_file[PATH_MAX];
    char tcp[PATH_MAX], identity[PATH_MAX];
    struct root r;

    if (joined_is_asked(argc, argv))
        return joined_node(argc, argv);
    if (options_parse(&node_argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    bool on_demand = root_is_on_demand(o.name);
    if (!on_demand && check_name(&o, "node-", CONF_NODES_MAX) != 0)
        return EXIT_USAGE;
    int rc = foreground_begin(&o, o.name, NULL, &r);
    if (rc == 0 && !on_demand)
        rc = check_name(&o, "node-", r.conf.nodes);
    if (rc != 0)
        return rc;
    if (root_path(&r, o.name, store) != 0 || root_socket(&r, o.name, address) != 0 ||
        root_socket(&r, "control-1", centre) != 0 || identity_path(&r, o.name, identity) != 0) {
        foreground_fail(&o, "%s: the path is too long", r.path);
        return EXIT_FAILED;
    }
    bool tcp_wanted;
    if (!on_demand) {
        tcp_wanted = root_listen(&r, (unsigned)atoi(o.name + 5), tcp) == 0;
    } else if (root_demand_listen(&r, o.name, tcp, &tcp_wanted) != 0) {
        foreground_fail(&o, "%s", r.detail);
        return EXIT_FAILED;
    }
    foreground_run_path(&r, o.name, ".pid", pid_file);
    const struct node_options options = {
        .name = o.name,
        .store = store,
        .listen = address,
        .listen_tcp = tcp_wanted ? tcp : NULL,
        .identity = tcp_wanted ? identity : NULL,
        .centre = centre,
        .pool = r.conf.pool,
        .cloud = r.conf.cloud,
        .jobs_mount = o.jobs_mount,
        .capacity = o.capacity ? o.capacity : r.conf.capacity,
        .ready_fd = o.ready_fd,
        .pid_file = pid_file,
    };
    return node_run(&options) == 0 ? EXIT_DONE : EXIT_FAILED;
}
