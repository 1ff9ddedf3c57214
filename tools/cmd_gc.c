/* umbel gc: what nothing needs in the pool any more goes, now and with an account of it. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/commands.h"
#include "tools/ctl.h"
#include "tools/options.h"
#include "tools/progress.h"
#include "tools/text.h"

struct gc_options {
    struct ctl_options ctl;
    bool reseal;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct gc_options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->ctl;
        return 0;
    case 'R':
        options->reseal = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"reseal", 'R', NULL, 0,
     "rewrite all packs that were sealed before the newest `umbel key rotate`, too", 0},
    {0},
};
static const struct argp_child children[] = {{&ctl_argp, 0, NULL, 90}, {0}};
static const struct argp argp = {
    options,
    parse,
    NULL,
    "Frees what nothing needs any more in the pool: deletes packs without live data, and rewrites "
    "those of which little lives (setting gc_live_ratio) into new ones."
    "\vThe cloud does the same by itself, later and more slowly. What was done is printed as KEY "
    "VALUE lines; a pack that was emptied is deleted when no mount can still read by what it "
    "remembers, so this waits for about ten seconds then.\n\n"
    "--reseal also prints how many packs are in use under older keys after it (else than zero: "
    "exit "
    "status 1), and how many were given out under them to who may still write them: these are for "
    "a later run.",
    children,
    NULL,
    NULL};

static void show(const struct ctl *c, struct progress *p)
{
    char size[24], note[64];
    uint64_t moved = ctl_number(c, "gc", "bytes_moved");

    snprintf(note, sizeof(note), "%s freed", text_size(ctl_number(c, "gc", "bytes_freed"), size));
    progress_tick(p, moved, ctl_number(c, "gc", "bytes_to_move"), note);
}

/* A run ends after some minutes, with more to do perhaps. */
static int reseal(const struct ctl *c)
{
    uint64_t left = UINT64_MAX, before;

    do {
        before = left;
        int rc = ctl_write_watched(c, "ctl", "gc reseal", "sealing anew", show);
        if (rc != 0)
            return rc;
        left = ctl_number(c, "gc", "packs_of_older_keys");
    } while (left > 0 && left < before);
    return 0;
}

/* What is in use under older keys, or may come into use. */
static int tell_left(const struct ctl *c)
{
    uint64_t left = ctl_number(c, "gc", "packs_of_older_keys");
    uint64_t allocated = ctl_number(c, "gc", "allocated_under_older_keys");

    printf("packs_of_older_keys %ju\nallocated_under_older_keys %ju\n", (uintmax_t)left,
           (uintmax_t)allocated);
    if (left > 0)
        warnx("%ju packs are still sealed under older keys: see umbel events, and run it again",
              (uintmax_t)left);
    return left > 0 ? EXIT_FAILED : EXIT_DONE;
}

int cmd_gc(int argc, char **argv)
{
    static const char *const told[] = {"packs_deleted", "bytes_freed", "packs_rewritten",
                                       "records_moved", "bytes_moved", "records_failed"};
    struct gc_options o = {.reseal = false};
    struct ctl c;

    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &o.ctl, NULL) != 0 ||
        (o.reseal ? reseal(&c) : ctl_write_watched(&c, "ctl", "gc", "collecting garbage", show)) !=
            0)
        return EXIT_FAILED;
    for (size_t n = 0; n < sizeof(told) / sizeof(told[0]); n++)
        printf("%s %ju\n", told[n], (uintmax_t)ctl_number(&c, "gc", told[n]));
    return o.reseal ? tell_left(&c) : EXIT_DONE;
}
