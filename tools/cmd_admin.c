/* The steering commands: each is one line written to one control file. */
#include <err.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/ctl.h"
#include "tools/options.h"
#include "tools/text.h"

struct admin {
    struct ctl_options ctl;
    const char *args[2];
    unsigned count, least, most;
    const char *what; /* what the first argument is */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct admin *a = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->ctl;
        return 0;
    case ARGP_KEY_ARG:
        if (a->count >= a->most)
            argp_error(state, "'%s' is one argument too many", arg);
        a->args[a->count++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (a->count < a->least)
            argp_error(state, "say which %s", a->what);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&ctl_argp, 0, NULL, 90}, {0}};

static int parse_admin(struct admin *a, const char *args_doc, const char *doc, int argc,
                       char **argv)
{
    const struct argp argp = {NULL, parse, args_doc, doc, children, NULL, NULL};

    return options_parse(&argp, argc, argv, a);
}

/* flush, evict, warm: VERB PATH to .umbel/ctl. */
static int on_path(struct admin *a, const char *verb, const char *what)
{
    char inside[PATH_MAX] = "", command[PATH_MAX + 16];
    struct ctl c;

    if (ctl_find(&c, &a->ctl, a->args[0]) != 0)
        return EXIT_FAILED;
    if (a->args[0] != NULL && ctl_inside(&c, a->args[0], inside) != 0)
        return EXIT_FAILED;
    snprintf(command, sizeof(command), "%s%s%s", verb, inside[0] != '\0' ? " " : "", inside);
    return ctl_write_slow(&c, "ctl", command, what) == 0 ? EXIT_DONE : EXIT_FAILED;
}

int cmd_flush(int argc, char **argv)
{
    struct admin a = {.most = 1};

    if (parse_admin(&a, "[PATH]",
                    "Brings what is staged (of PATH, or all) into the pool, and waits for it. / is "
                    "the whole "
                    "cloud; then a copy of the centre's state goes into the pool, too, for `umbel "
                    "rebuild`.",
                    argc, argv) != 0)
        return EXIT_USAGE;
    return on_path(&a, "flush", "flushing");
}

int cmd_evict(int argc, char **argv)
{
    struct admin a = {.least = 1, .most = 1, .what = "file or folder"};

    if (parse_admin(&a, "PATH",
                    "Takes PATH's data off the nodes; what is staged is flushed first. / is the "
                    "whole cloud.",
                    argc, argv) != 0)
        return EXIT_USAGE;
    return on_path(&a, "evict", "evicting");
}

int cmd_warm(int argc, char **argv)
{
    struct admin a = {.least = 1, .most = 1, .what = "file or folder"};

    if (parse_admin(&a, "PATH",
                    "Fetches PATH's data from the pool onto a node. / is the whole cloud.", argc,
                    argv) != 0)
        return EXIT_USAGE;
    return on_path(&a, "warm", "warming");
}

static void tell_no_such(const struct ctl *c, const char *folder, const char *what,
                         const char *word)
{
    char *best = ctl_nearest(c, folder, word);

    if (best != NULL)
        warnx("there is no %s '%s'; the nearest is '%s'", what, word, best);
    else
        warnx("there is no %s '%s'", what, word);
    free(best);
}

/* The path of .umbel/FOLDER/NAME/FILE, relative; tells and fails if NAME is not there. */
static int object_file(const struct ctl *c, const char *folder, const char *what, const char *name,
                       const char *file, char *out)
{
    char whole[PATH_MAX];

    if (strchr(name, '/') != NULL || name[0] == '.' || name[0] == '\0' ||
        snprintf(out, PATH_MAX, "%s/%s%s%s", folder, name, file[0] != '\0' ? "/" : "", file) >=
            PATH_MAX ||
        snprintf(whole, sizeof(whole), "%s/.umbel/%s", c->mount, out) >= (int)sizeof(whole) ||
        (access(whole, F_OK) != 0 && errno == ENOENT)) {
        tell_no_such(c, folder, what, name);
        return -ENOENT;
    }
    return 0;
}

static int on_node(int argc, char **argv, const char *verb, const char *what, const char *doc)
{
    struct admin a = {.least = 1, .most = 1, .what = "node"};
    char file[PATH_MAX];
    struct ctl c;

    if (parse_admin(&a, "NODE", doc, argc, argv) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &a.ctl, NULL) != 0 ||
        object_file(&c, "nodes", "node", a.args[0], "ctl", file) != 0)
        return EXIT_FAILED;
    return ctl_write_slow(&c, file, verb, what) == 0 ? EXIT_DONE : EXIT_FAILED;
}

int cmd_drain(int argc, char **argv)
{
    return on_node(argc, argv, "drain", "draining",
                   "Flushes everything that NODE holds, and gives it nothing new.");
}

int cmd_release(int argc, char **argv)
{
    return on_node(argc, argv, "release", "releasing", "Drains NODE and lets it leave the cloud.");
}

int cmd_forget(int argc, char **argv)
{
    return on_node(argc, argv, "forget", "forgetting",
                   "Gives up NODE, which is lost: files whose newest data was only there fall back "
                   "to what the "
                   "pool holds, and are named in `umbel events`.");
}

static int show_setting(const struct ctl *c, const char *name, void *arg)
{
    char file[PATH_MAX], *text = NULL;

    (void)arg;
    int rc = object_file(c, "settings", "setting", name, "", file);
    if (rc != 0)
        return rc;
    rc = ctl_read(c, file, &text);
    if (rc != 0) {
        ctl_tell(c, file, rc);
        return rc;
    }
    text[strcspn(text, "\n")] = '\0';
    printf("%-16s %s\n", name, text);
    free(text);
    return 0;
}

int cmd_set(int argc, char **argv)
{
    struct admin a = {.least = 0, .most = 2};
    char file[PATH_MAX];
    struct ctl c;
    int rc;

    if (parse_admin(&a, "[NAME [VALUE]]", "Shows all settings, or one, or changes it.", argc,
                    argv) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &a.ctl, NULL) != 0)
        return EXIT_FAILED;
    if (a.count == 2) {
        rc = object_file(&c, "settings", "setting", a.args[0], "", file);
        if (rc == 0)
            rc = ctl_write(&c, file, a.args[1]);
    } else if (a.count == 1) {
        rc = show_setting(&c, a.args[0], NULL);
    } else {
        rc = ctl_each(&c, "settings", show_setting, NULL);
    }
    return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}
