/* umbel down: jobs first, then mounts, nodes and control processes, each with a bounded wait. */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "control/control.h"
#include "control/wire/clock.h"
#include "control/wire/job_run.h"
#include "nodecache/node.h"
#include "nodecache/run.h"
#include "tools/commands.h"
#include "tools/mounting.h"
#include "tools/options.h"
#include "tools/text.h"

/* A keeper tries for 15 s to unmount a mount that is in use; then it stays, and says so by its pid
 * file. With --force it is told again meanwhile, and takes the mount away. */
#define UNMOUNT_MS       17000
#define UNMOUNT_FORCE_MS 8000
/* After the unmount the worker finishes what it has, and says goodbye. */
#define KEEPER_END_MS  50000
#define KEEPER_POLL_MS 300
#define KILL_END_MS    5000
#define USERS_MAX      8
/* For runs of jobs to end: their grace, and the rest of what they wrote. */
#define JOBS_END_MS  (JOB_GRACE_MS + 15000)
#define JOBS_POLL_MS 50

struct down {
    const char *root;
    bool force;
    struct root cloud;
    int64_t asked_ms; /* when those that are being stopped were asked to */
    unsigned stopped, left, runs;
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
    {"force", 'f', NULL, 0,
     "take mounts from those who use them, and kill what does not stop in time (acknowledged data "
     "stays "
     "safe)",
     0},
    {0},
};
static const struct argp argp = {
    options,
    parse,
    NULL,
    "Stops a cloud: ends what jobs run, unmounts its mounts, then stops its nodes and its control "
    "process. A mount "
    "that is in "
    "use is waited for; then it stays, and so does the cloud."
    "\vStaged data stays staged on the nodes; the next `umbel up` finds everything.",
    NULL,
    NULL,
    NULL};

static bool is_keeper(const char *name)
{
    return strncmp(name, "keeper-", 7) == 0;
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

    if (is_keeper(name) && process_is_ready(&down->cloud, name) &&
        process_note(&down->cloud, name, point, sizeof(point)) == 0) {
        warnx("%s is in use and stays mounted%s", point,
              down->force ? "; unmounting it by force" : "");
        mounting_tell_users(point, USERS_MAX);
        return;
    }
    warnx("%s (pid %d) has not stopped after %d s%s", name, (int)process_pid(&down->cloud, name),
          (is_keeper(name) ? KEEPER_END_MS : PROCESS_STOP_MS) / 1000,
          down->force ? "; killing it" : "");
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
    bool keeper = is_keeper(name);

    /* First of all the kernel's requests must end: a process that waits for one cannot be killed.
     */
    if (keeper && process_note(&down->cloud, name, point, sizeof(point)) == 0 &&
        mounting_is_mounted(point, NULL, NULL))
        umount2(point, MNT_DETACH | MNT_FORCE); /* whether it worked is seen below */
    process_signal(&down->cloud, name, SIGKILL);
    if (keeper)
        kill_worker(&down->cloud, name);
    process_wait_end(&down->cloud, name, KILL_END_MS);
}

static int wait_keeper(struct down *down, const char *name)
{
    const struct root *r = &down->cloud;
    int64_t end = down->asked_ms + KEEPER_END_MS;
    bool again = false;

    while (process_wait_end(r, name, KEEPER_POLL_MS) != 0) {
        int64_t now = clock_boot_ms();
        if (down->force && !again && now - down->asked_ms >= UNMOUNT_FORCE_MS) {
            again = true;
            process_signal(r, name, SIGUSR1);
        }
        if (now >= end || (now - down->asked_ms >= UNMOUNT_MS && process_is_ready(r, name)))
            return -EBUSY;
    }
    return 0;
}

static int wait_for(struct down *down, const char *name)
{
    return is_keeper(name) ? wait_keeper(down, name)
                           : process_wait_end(&down->cloud, name, PROCESS_STOP_MS);
}

static bool wait_one(void *arg, const char *name)
{
    struct down *down = arg;
    pid_t pid = process_pid(&down->cloud, name);

    if (pid > 0 && wait_for(down, name) != 0) {
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
        warnx("what a killed mount left at %s is still there: %s", point, strerror(-rc));
        mounting_tell_users(point, USERS_MAX);
        down->left++;
    }
    return true;
}

/* ---- jobs: they work in the mounts */

/* A node that was killed may have left runs. */
static bool end_jobs(void *arg, const char *name)
{
    struct down *down = arg;
    char store[PATH_MAX];

    if (process_is_ready(&down->cloud, name))
        (void)process_signal(&down->cloud, name, NODE_END_JOBS); /* gone since: the next line */
    if (root_path(&down->cloud, name, store) == 0)
        (void)runs_held(store, true); /* cannot be read: seen when they are counted */
    return true;
}

static bool count_runs(void *arg, const char *name)
{
    struct down *down = arg;
    char store[PATH_MAX];
    int held = root_path(&down->cloud, name, store) == 0 ? runs_held(store, false) : 0;

    if (held < 0)
        warnx("cannot read %s/jobs: %s", store, strerror(-held));
    down->runs += held > 0 ? (unsigned)held : 0;
    return held >= 0;
}

/* Jobs that end make room, and others ask for more: no node is to be started for them now. */
static bool hold(void *arg, const char *name)
{
    struct down *down = arg;

    if (process_is_ready(&down->cloud, name))
        (void)process_signal(&down->cloud, name, CONTROL_HOLD); /* gone since: it starts none */
    return true;
}

static void stop_jobs(struct down *down)
{
    int64_t until = clock_boot_ms() + JOBS_END_MS;

    (void)process_each(&down->cloud, "node-", end_jobs, down);
    do {
        down->runs = 0;
        (void)process_each(&down->cloud, "node-", count_runs, down);
        if (down->runs > 0)
            nanosleep(&(struct timespec){.tv_nsec = JOBS_POLL_MS * 1000000L}, NULL);
    } while (down->runs > 0 && clock_boot_ms() < until);
    if (down->runs > 0)
        warnx("%u runs of jobs have not ended yet", down->runs);
}

/* Those of a node that was killed are still there. */
static bool sweep_groups(void *arg, const char *name)
{
    const struct down *down = arg;
    char store[PATH_MAX];

    if (process_pid(&down->cloud, name) == 0 && root_path(&down->cloud, name, store) == 0)
        runs_sweep(store);
    return true;
}

static int stop_kind(struct down *down, const char *prefix)
{
    down->asked_ms = clock_boot_ms();
    int rc = process_each(&down->cloud, prefix, ask_to_stop, down);

    if (rc == 0)
        rc = process_each(&down->cloud, prefix, wait_one, down);
    if (rc == 0 && strcmp(prefix, "keeper-") == 0)
        rc = process_each(&down->cloud, prefix, clear_dead, down);
    if (rc == 0 && strcmp(prefix, "node-") == 0)
        rc = process_each(&down->cloud, prefix, sweep_groups, down);
    if (rc != 0)
        warnx("cannot read %s/run: %s", down->cloud.path, strerror(-rc));
    else if (down->left > 0)
        rc = -EBUSY;
    return rc;
}

int cmd_down(int argc, char **argv)
{
    /* Nodes once more at the end: the control process may just have started one. */
    static const char *const kinds[] = {"keeper-", "node-", "control-", "node-"};
    struct down down = {0};
    int rc = 0;

    if (options_parse(&argp, argc, argv, &down) != 0)
        return EXIT_USAGE;
    if (root_open(&down.cloud, down.root, true) != 0) {
        warnx("%s", down.cloud.detail);
        return EXIT_FAILED;
    }
    (void)process_each(&down.cloud, "control-", hold, &down);
    stop_jobs(&down);
    for (size_t i = 0; rc == 0 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        rc = stop_kind(&down, kinds[i]);
    if (rc != 0)
        warnx("the cloud is not down: %u of its mounts and processes are still there%s", down.left,
              down.force ? "" : "; --force ends them");
    else
        printf("%s\n", down.stopped > 0 ? "the cloud is down" : "the cloud was not running");
    root_close(&down.cloud);
    return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}
