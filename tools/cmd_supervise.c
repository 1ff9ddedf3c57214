/* umbel supervise: what a node starts, to have runs of jobs started and watched. */
#include <err.h>

#include "control/wire/log.h"
#include "nodecache/run.h"
#include "tools/commands.h"
#include "tools/options.h"
#include "tools/text.h"

enum { KEY_STORE = 1000, KEY_MOUNT };

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct run_spawner_options *o = state->input;
    uint64_t n;

    switch (key) {
    case KEY_STORE:
        o->store = arg;
        return 0;
    case KEY_MOUNT:
        o->mount = arg;
        return 0;
    case 'f':
        if (text_parse_number(arg, 3, 1u << 20, &n) != 0)
            argp_error(state, "--fd: '%s' is not a descriptor's number", arg);
        o->fd = (int)n;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    case ARGP_KEY_END:
        if (!o->store || !o->mount || o->fd < 0)
            argp_error(state, "say --store DIR, --mount PATH and --fd N");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"store", KEY_STORE, "DIR", 0, "the node's store", 0},
    {"mount", KEY_MOUNT, "PATH", 0, "where the cloud is mounted on this machine", 0},
    {"fd", 'f', "N", 0, "the socket on which the node says what to start", 0},
    {0},
};
static const struct argp argp = {
    options,
    parse,
    NULL,
    "Starts the runs of a node's jobs, each with a process that watches it. A node starts this "
    "itself; it is of no use by hand.",
    NULL,
    NULL,
    NULL};

int cmd_supervise(int argc, char **argv)
{
    struct run_spawner_options o = {.fd = -1};

    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    log_start("jobs", LOG_LEVEL_INFO);
    return run_spawner(&o) == 0 ? EXIT_DONE : EXIT_FAILED;
}
