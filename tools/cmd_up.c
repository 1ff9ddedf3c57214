/* umbel up: a whole cloud on this machine. */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nodecache/node.h"
#include "tools/commands.h"
#include "tools/mounting.h"
#include "tools/options.h"
#include "tools/text.h"

struct up {
    const char *root, *mount;
    struct root_wish wish;
};

static void parse_controls(struct argp_state *state, const char *arg, struct up *up)
{
    if (text_parse_number(arg, 1, 99, &up->wish.controls) != 0)
        argp_error(state, "--controls: '%s' is not a number of control processes", arg);
    if (up->wish.controls == 2)
        argp_error(
            state,
            "--controls 2 is refused: two voters cannot fail over (each needs the other for a "
            "majority)");
    if (up->wish.controls != 1)
        argp_error(state, "--controls %s is refused: this version runs one control process", arg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct up *up = state->input;

    switch (key) {
    case 'r':
        up->root = arg;
        return 0;
    case 'm':
        up->mount = arg;
        return 0;
    case 'l':
        up->wish.listen = arg;
        return 0;
    case 'p':
        up->wish.pool = arg;
        return 0;
    case 'n':
        if (text_parse_number(arg, 1, CONF_NODES_MAX, &up->wish.nodes) != 0)
            argp_error(state, "--nodes: '%s' is not a number from 1 to %d", arg, CONF_NODES_MAX);
        return 0;
    case 'c':
        parse_controls(state, arg, up);
        return 0;
    case 's':
        if (text_parse_size(arg, &up->wish.capacity) != 0)
            argp_error(state, "--capacity: '%s' is not a size such as 512M or 10G", arg);
        if (up->wish.capacity < CONF_CAPACITY_MIN)
            argp_error(state, "--capacity: a node needs at least %lluM", CONF_CAPACITY_MIN >> 20);
        return 0;
    case 'S':
        if (strcmp(arg, "on") != 0 && strcmp(arg, "off") != 0)
            argp_error(state, "--seal: '%s' is neither on nor off", arg);
        up->wish.seal = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    case ARGP_KEY_END:
        if (up->root == NULL)
            argp_error(state, "say where the cloud lives: --root DIR");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"root", 'r', "DIR", 0, "where the cloud lives; made at first use", 0},
    {"mount", 'm', "MNT", 0, "mount it there", 0},
    {"nodes", 'n', "N", 0, "number of nodes (1); may grow later", 0},
    {"controls", 'c', "N", 0, "number of control processes (1)", 0},
    {"pool", 'p', "URL", 0, "where data lives for good (dir:DIR/pool)", 0},
    {"listen", 'l', "HOST:PORT", 0,
     "where other machines reach this cloud: the centre there, node-N at PORT+N", 0},
    {"capacity", 's', "SIZE", 0,
     "what each node may take on its disk, such as 512M or 10G (half of what is free, at most 64G)",
     0},
    {"seal", 'S', "on|off", 0,
     "whether what lies in the pool is encrypted (on), or has checksums only; cannot change", 0},
    {0},
};
static const struct argp argp = {options,
                                 parse,
                                 NULL,
                                 "Starts a cloud on this machine and returns when it can be used."
                                 "\vParts that run already are left running, so it may be called "
                                 "at any time: after a crash it starts "
                                 "what is missing. The cloud's folder belongs to root alone.",
                                 NULL,
                                 NULL,
                                 NULL};

struct running_mount {
    const struct root *root;
    char point[PATH_MAX]; /* empty: none */
};

static void told(const char *name, const struct root *r, const char *lock, const char *what)
{
    printf("%-10s %s (pid %d)\n", name, what, (int)process_pid(r, lock));
    fflush(stdout);
}

/* A node takes its capacity at its start; mounts wait for it meanwhile. */
static int restart(const struct root *r, const char *name, const char *const *args, char *detail)
{
    int rc = process_signal(r, name, SIGTERM);

    if (rc == 0)
        rc = process_wait_end(r, name, PROCESS_STOP_MS);
    if (rc != 0) {
        snprintf(
            detail, PROCESS_DETAIL,
            "%s does not stop to take its new capacity: %s; it takes it after umbel down and up",
            name, strerror(-rc));
        return rc;
    }
    rc = process_start(r, name, args, NULL, detail);
    if (rc == 0)
        told(name, r, name, "restarted");
    return rc;
}

/* point: of the mount on which a node's jobs run; NULL. */
static int start(const struct root *r, const char *kind, const char *name, const char *point,
                 char *detail)
{
    const char *args[] = {kind,  "--root", r->path, "--name", name, point ? "--jobs-mount" : NULL,
                          point, NULL};
    bool was_running = false;
    int rc = process_start(r, name, args, &was_running, detail);

    if (rc == 0 && was_running && r->resized && strcmp(kind, "node") == 0)
        return restart(r, name, args, detail);
    if (rc == 0)
        told(name, r, name, was_running ? "was running" : "started");
    return rc;
}

/* Released or given up: the centre takes it never again. */
static bool is_gone(const struct root *r, const char *name)
{
    char path[PATH_MAX], line[80] = "";

    if (snprintf(path, sizeof(path), "%s/%s/" NODE_GONE_FILE, r->path, name) >= (int)sizeof(path))
        return false;
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    if (!fgets(line, sizeof(line), f))
        line[0] = '\0';
    fclose(f);
    line[strcspn(line, "\n")] = '\0';
    printf("%-10s is not started: %s\n", name, line);
    return true;
}

/* Of the mounts that run: without --mount the nodes' jobs have one of them. */
static bool find_mount(void *arg, const char *name)
{
    struct running_mount *m = arg;

    if (process_is_ready(m->root, name) &&
        process_note(m->root, name, m->point, sizeof(m->point)) < 0)
        m->point[0] = '\0';
    return m->point[0] == '\0';
}

static int start_all(const struct root *r, struct mounting *m, char *detail)
{
    struct running_mount running = {.root = r};

    if (m == NULL)
        (void)process_each(r, "keeper-", find_mount, &running);
    const char *point = m != NULL ? m->point : running.point[0] ? running.point : NULL;
    int rc = start(r, "control", "control-1", point, detail);

    for (uint64_t i = 1; rc == 0 && i <= r->conf.nodes; i++) {
        char name[ROOT_NAME_MAX];
        snprintf(name, sizeof(name), "node-%ju", (uintmax_t)i);
        if (is_gone(r, name))
            continue;
        rc = start(r, "node", name, point, detail);
        if (rc != 0 && is_gone(r, name)) /* it has just heard of it */
            rc = 0;
    }
    if (rc != 0 || m == NULL)
        return rc;
    rc = mounting_start(r, m, detail);
    if (rc == 0)
        printf("%-10s %s at %s\n", "mount", m->was_running ? "was running" : "started", m->point);
    return rc;
}

/* In the order in which they can be told before anything is changed. */
static int up_locked(struct root *r, const struct up *up, char *detail)
{
    struct mounting m;

    if (up->mount != NULL) {
        int rc = mounting_check(r, up->mount, &m, detail);
        if (rc != 0)
            return rc;
    }
    if (r->created)
        printf("new cloud %s in %s\n", r->conf.cloud, r->path);
    return start_all(r, up->mount != NULL ? &m : NULL, detail);
}

static int show_recovery(const char *text)
{
    printf("recovery key of this new cloud:\n\n    %s\n\n"
           "Write it down and keep it away from this machine: it is shown only now and stored "
           "nowhere. Should this\nmachine be lost, `umbel rebuild` opens the sealed pool with it; "
           "so can whoever has it and the pool.\n`umbel key check` says whether it was written "
           "down well; `umbel key replace` makes another one.\n\n",
           text);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : -EIO;
}

int cmd_up(int argc, char **argv)
{
    char detail[PROCESS_DETAIL] = "";
    struct up up = {.wish.show_recovery = show_recovery};
    struct root r;

    if (options_parse(&argp, argc, argv, &up) != 0)
        return EXIT_USAGE;
    if (geteuid() != 0) {
        warnx("this needs root: it mounts, and the cloud's folder is for root alone");
        return EXIT_FAILED;
    }
    if (root_create(&r, up.root, &up.wish) != 0) {
        warnx("%s", r.detail);
        return EXIT_FAILED;
    }
    int rc = up_locked(&r, &up, detail);
    if (rc != 0)
        warnx("%s", detail);
    root_close(&r);
    return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}
