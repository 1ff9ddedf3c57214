/* umbel gc: what nothing needs in the pool any more goes, now and with an account of it. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/commands.h"
#include "tools/ctl.h"
#include "tools/options.h"
#include "tools/progress.h"
#include "tools/text.h"

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ctl_options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = options;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&ctl_argp, 0, NULL, 90}, {0}};
static const struct argp argp = {
    NULL,
    parse,
    NULL,
    "Frees what nothing needs any more in the pool: deletes packs without live data, and rewrites "
    "those of which little lives (setting gc_live_ratio) into new ones."
    "\vThe cloud does the same by itself, later and more slowly. What was done is printed as KEY "
    "VALUE lines; a pack that was emptied is deleted when no mount can still read by what it "
    "remembers, so this waits for about ten seconds then.",
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

int cmd_gc(int argc, char **argv)
{
    static const char *const told[] = {"packs_deleted", "bytes_freed", "packs_rewritten",
                                       "records_moved", "bytes_moved", "records_failed"};
    struct ctl_options options = {0};
    struct ctl c;

    if (options_parse(&argp, argc, argv, &options) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &options, NULL) != 0 ||
        ctl_write_watched(&c, "ctl", "gc", "collecting garbage", show) != 0)
        return EXIT_FAILED;
    for (size_t n = 0; n < sizeof(told) / sizeof(told[0]); n++)
        printf("%s %ju\n", told[n], (uintmax_t)ctl_number(&c, "gc", told[n]));
    return EXIT_DONE;
}
