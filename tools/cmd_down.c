/* umbel down: mounts first, then nodes, then control processes, each with a bounded wait. */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/mounting.h"
#include "tools/options.h"
#include "tools/text.h"

/* Mounts that people still use get this long to become free. */
#define UNMOUNT_MS  15000
#define KILL_END_MS 5000
#define USERS_MAX   8

struct down {
    const char *root;
    bool force;
    struct root cloud;
    unsigned stopped, left;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct down *down = state->input;

    switch (key) {
    case 'r':
        down->root = arg;
        return 0;
    case 'f':
        down->force = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    case ARGP_KEY_END:
        if (down->root == NULL)
            argp_error(state, "say which cloud: --root DIR");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"root", 'r', "DIR", 0, "where the cloud lives", 0},
    {"force", 'f', NULL, 0, "kill what does not stop in time (acknowledged data stays safe)", 0},
    {0},
};
static const struct argp argp = {
    options,
    parse,
    NULL,
    "Stops a cloud: unmounts its mounts, then stops its nodes and its control process."
    "\vStaged data stays staged on the nodes; the next `umbel up` finds everything.",
    NULL,
    NULL,
    NULL};

static int timeout_of(const char *name)
{
    return strncmp(name, "keeper-", 7) == 0 ? UNMOUNT_MS : PROCESS_STOP_MS;
}

static bool ask_to_stop(void *arg, const char *name)
{
    struct down *down = arg;
    int rc = process_signal(&down->cloud, name, SIGTERM);

    if (rc != 0)
        warnx("cannot signal %s: %s", name, strerror(-rc));
    return true;
}

/* Whose mountpoint it is matters to people, not the keeper's name. */
static void tell_stuck(struct down *down, const char *name)
{
    char point[PATH_MAX];

    if (strncmp(name, "keeper-", 7) == 0 &&
        process_note(&down->cloud, name, point, sizeof(point)) == 0) {
        warnx("%s is still mounted after %d s%s", point, UNMOUNT_MS / 1000,
              down->force ? "; unmounting it by force" : "");
        mounting_tell_users(point, USERS_MAX);
        return;
    }
    warnx("%s (pid %d) has not stopped after %d s%s", name, (int)process_pid(&down->cloud, name),
          timeout_of(name) / 1000, down->force ? "; killing it" : "");
}

static void kill_worker(const struct root *r, const char *keeper)
{
    char worker[ROOT_NAME_MAX + 8];

    mounting_worker_name(keeper, worker);
    process_signal(r, worker, SIGKILL);
    process_wait_end(r, worker, KILL_END_MS);
}

static void kill_one(struct down *down, const char *name)
{
    char point[PATH_MAX];
    bool keeper = strncmp(name, "keeper-", 7) == 0;

    /* First of all the kernel's requests must end: a process that waits for one cannot be killed. */
    if (keeper && process_note(&down->cloud, name, point, sizeof(point)) == 0 &&
        mounting_is_mounted(point, NULL, NULL))
        umount2(point, MNT_DETACH | MNT_FORCE); /* whether it worked is seen below */
    process_signal(&down->cloud, name, SIGKILL);
    if (keeper)
        kill_worker(&down->cloud, name);
    process_wait_end(&down->cloud, name, KILL_END_MS);
}

static bool wait_one(void *arg, const char *name)
{
    struct down *down = arg;
    pid_t pid = process_pid(&down->cloud, name);

    if (pid > 0 && process_wait_end(&down->cloud, name, timeout_of(name)) != 0) {
        tell_stuck(down, name);
        if (down->force)
            kill_one(down, name);
    }
    if (process_pid(&down->cloud, name) > 0)
        down->left++;
    else if (pid > 0)
        down->stopped++;
    return true;
}

static bool clear_dead(void *arg, const char *name)
{
    struct down *down = arg;
    char point[PATH_MAX];

    if (process_pid(&down->cloud, name) == 0 && down->force)
        kill_worker(&down->cloud, name);
    int rc = mounting_clear_dead(&down->cloud, name);
    if (rc != 0 && process_note(&down->cloud, name, point, sizeof(point)) == 0) {
        warnx("cannot unmount what a killed mount left at %s: %s", point, strerror(-rc));
        down->left++;
    }
    return true;
}

static int stop_kind(struct down *down, const char *prefix)
{
    int rc = process_each(&down->cloud, prefix, ask_to_stop, down);

    if (rc == 0)
        rc = process_each(&down->cloud, prefix, wait_one, down);
    if (rc == 0 && strcmp(prefix, "keeper-") == 0)
        rc = process_each(&down->cloud, prefix, clear_dead, down);
    if (rc != 0)
        warnx("cannot read %s/run: %s", down->cloud.path, strerror(-rc));
    else if (down->left > 0)
        rc = -EBUSY;
    return rc;
}

int cmd_down(int argc, char **argv)
{
    static const char *const kinds[] = {"keeper-", "node-", "control-"};
    struct down down = {0};
    int rc = 0;

    if (options_parse(&argp, argc, argv, &down) != 0)
        return EXIT_USAGE;
    if (root_open(&down.cloud, down.root, true) != 0) {
        warnx("%s", down.cloud.detail);
        return EXIT_FAILED;
    }
    for (size_t i = 0; rc == 0 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        rc = stop_kind(&down, kinds[i]);
    if (rc != 0)
        warnx("the cloud is not down: %u of its processes still run%s", down.left,
              down.force ? "" : "; --force kills them");
    else
        printf("%s\n", down.stopped > 0 ? "the cloud is down" : "the cloud was not running");
    root_close(&down.cloud);
    return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}
