/* umbel scrub: the nodes' copies and the pool are read and verified, and mended where they can be.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/commands.h"
#include "tools/ctl.h"
#include "tools/options.h"
#include "tools/progress.h"
#include "tools/text.h"

#define LOOK_MS 100

struct scrub {
    struct ctl_options options;
    bool json, nodes, pool, stop;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct scrub *s = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &s->options;
        return 0;
    case 'j':
        s->json = true;
        return 0;
    case 'n':
        s->nodes = true;
        return 0;
    case 'p':
        s->pool = true;
        return 0;
    case 's':
        s->stop = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"json", 'j', NULL, 0, "as one JSON object", 0},
    {"nodes", 'n', NULL, 0, "the nodes' copies only", 0},
    {"pool", 'p', NULL, 0, "the pool only", 0},
    {"stop", 's', NULL, 0, "end the scrub that is running", 0},
    {0},
};
static const struct argp_child children[] = {{&ctl_argp, 0, NULL, 90}, {0}};
static const struct argp argp = {
    options,
    parse,
    NULL,
    "Reads and verifies the clean copies at all nodes, and every record and footer in the pool "
    "that "
    "is in use. A damaged copy at a node is dropped and comes from the pool again; a damaged "
    "record "
    "of the pool is written anew from a node that has its bytes whole. What cannot be mended is "
    "named: the file, and the pack."
    "\vThe cloud may be in use meanwhile; the setting scrub_rate bounds how fast it reads. It goes "
    "on when this command is interrupted (--stop ends it); .umbel/scrub says how far it is. Exit "
    "status 0 only if nothing is left damaged.",
    children,
    NULL,
    NULL};

static uint64_t number_of(const char *text, const char *key)
{
    char value[32] = "";
    uint64_t n = 0;

    if (text_value(text, key, value, sizeof(value)))
        (void)text_parse_number(value, 0, UINT64_MAX, &n);
    return n;
}

/* Until it has ended; *text: what it says then. */
static int watch(const struct ctl *c, char **text)
{
    const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
    struct progress progress;
    char phase[32];
    int rc;

    progress_begin(&progress, "scrubbing");
    while ((rc = ctl_read(c, "scrub", text)) == 0 && number_of(*text, "running") != 0) {
        if (!text_value(*text, "phase", phase, sizeof(phase)))
            phase[0] = '\0';
        progress_tick(&progress, number_of(*text, "bytes"), number_of(*text, "bytes_total"), phase);
        free(*text);
        *text = NULL;
        nanosleep(&pause, NULL);
    }
    progress_end(&progress);
    if (rc != 0)
        ctl_tell(c, "scrub", rc);
    return rc;
}

/* "KEY VALUE" lines, but for those that are lists. */
static void print_counts_json(char *text)
{
    char *line;

    fputs("{", stdout);
    for (bool first = true; (line = text_line(&text)) != NULL;) {
        char *value = strchr(line, ' ');
        if (value == NULL || strncmp(line, "problem ", 8) == 0 || strncmp(line, "healed ", 7) == 0)
            continue;
        *value++ = '\0';
        fputs(first ? "" : ", ", stdout);
        first = false;
        text_json(line);
        fputs(": ", stdout);
        text_json_value(value);
    }
}

static void print_list_json(const char *name, const char *word, char *text)
{
    size_t n = strlen(word);
    char *line;

    printf(", \"%s\": [", name);
    for (bool first = true; (line = text_line(&text)) != NULL;) {
        if (strncmp(line, word, n) != 0)
            continue;
        fputs(first ? "" : ", ", stdout);
        first = false;
        text_json(line + n);
    }
    fputs("]", stdout);
}

static int print_json(const char *text)
{
    char *a = strdup(text), *b = strdup(text), *c = strdup(text);
    int rc = a != NULL && b != NULL && c != NULL ? 0 : -ENOMEM;

    if (rc == 0) {
        print_counts_json(a);
        print_list_json("damaged", "problem ", b);
        print_list_json("healed", "healed ", c);
        fputs("}\n", stdout);
    }
    free(a);
    free(b);
    free(c);
    return rc;
}

int cmd_scrub(int argc, char **argv)
{
    struct scrub s = {0};
    char *text = NULL;
    struct ctl c;

    if (options_parse(&argp, argc, argv, &s) != 0)
        return EXIT_USAGE;
    const char *command = s.stop              ? "scrub stop"
                          : s.nodes == s.pool ? "scrub"
                          : s.nodes           ? "scrub nodes"
                                              : "scrub pool";
    if (ctl_find(&c, &s.options, NULL) != 0 || ctl_write(&c, "ctl", command) != 0)
        return EXIT_FAILED;
    if (s.stop)
        return EXIT_DONE;
    int rc = watch(&c, &text);
    if (rc == 0 && s.json)
        rc = print_json(text);
    else if (rc == 0)
        fputs(text, stdout);
    bool clean = rc == 0 && number_of(text, "problems") == 0;
    free(text);
    return clean ? EXIT_DONE : EXIT_FAILED;
}
