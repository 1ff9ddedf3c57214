/* umbel run: a command line as a job. */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/job_files.h"
#include "tools/options.h"
#include "tools/text.h"

/* A command of these alone needs no quotes in a shell. */
#define PLAIN "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789%+,-./:=@_"

struct run_options {
    struct ctl_options ctl;
    FILE *spec;
    const char *script;
    bool workdir, wait, follow, json;
    char **command;
};

/* ---- the spec */

static int put(FILE *spec, const char *key, const char *value)
{
    if (strchr(value, '\n') != NULL) {
        warnx("%s: a value is one line; what has several belongs into a script (--script)", key);
        return -EINVAL;
    }
    fprintf(spec, "%s = %s\n", key, value);
    return 0;
}

static void put_quoted(FILE *out, const char *word)
{
    if (word[0] != '\0' && word[strspn(word, PLAIN)] == '\0') {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word; word++)
        if (*word == '\'')
            fputs("'\\''", out);
        else
            fputc(*word, out);
    fputc('\'', out);
}

/* One word is a shell's line, as it is; several are a program and its arguments. */
static int put_command(FILE *spec, char **words)
{
    char *line = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&line, &size);

    if (out == NULL)
        return -ENOMEM;
    for (size_t i = 0; words[i] != NULL; i++) {
        if (i > 0)
            fputc(' ', out);
        if (words[1] == NULL)
            fputs(words[i], out);
        else
            put_quoted(out, words[i]);
    }
    int rc = fclose(out) != 0 ? -ENOMEM : put(spec, "command", line);
    free(line);
    return rc;
}

static int put_script(FILE *spec, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    int rc = text_read_file(strcmp(path, "-") == 0 ? "/dev/stdin" : path, &text, &size);

    if (rc < 0) {
        errno = -rc;
        warn("%s", path);
        return rc;
    }
    fputs("%%\n", spec);
    fwrite(text, 1, size, spec);
    free(text);
    return 0;
}

/* Where we are, if that is in the cloud. */
static int put_workdir(FILE *spec, const struct ctl *c)
{
    char here[PATH_MAX], inside[PATH_MAX];
    size_t n = strlen(c->mount);

    if (getcwd(here, sizeof(here)) == NULL || strncmp(here, c->mount, n) != 0 ||
        (here[n] != '/' && here[n] != '\0'))
        return 0;
    int rc = ctl_inside(c, ".", inside);
    return rc < 0 ? rc : put(spec, "workdir", inside);
}

/* ---- the command line */

enum { LONG_ONLY = 256, PRIORITY, RETRIES, RELIABILITY, INPUT, OUTPUT, ERROR, NODE, SCRIPT };

static const char *key_of(int key)
{
    switch (key) {
    case 'n':
        return "name";
    case 'c':
        return "cpus";
    case 'm':
        return "memory";
    case 't':
        return "time";
    case 'C':
        return "copies";
    case 'a':
        return "array";
    case 'A':
        return "after";
    case 'e':
        return "env";
    case 'd':
        return "workdir";
    case PRIORITY:
        return "priority";
    case RETRIES:
        return "retries";
    case RELIABILITY:
        return "reliability";
    case INPUT:
        return "input";
    case OUTPUT:
        return "output";
    case ERROR:
        return "error";
    case NODE:
        return "node";
    default:
        return NULL;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct run_options *o = state->input;
    const char *spec_key = key_of(key);

    if (spec_key != NULL) {
        o->workdir = o->workdir || key == 'd';
        if (put(o->spec, spec_key, arg) < 0)
            argp_error(state, "wrong value of %s", spec_key);
        return 0;
    }
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->ctl;
        return 0;
    case SCRIPT:
        o->script = arg;
        return 0;
    case 'w':
        o->wait = true;
        return 0;
    case 'f':
        o->follow = true;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case ARGP_KEY_ARG: /* all behind the first one is the command's own */
        o->command = &state->argv[state->next - 1];
        state->next = state->argc;
        return 0;
    case ARGP_KEY_END:
        if (o->command == NULL && o->script == NULL)
            argp_error(state, "say what to run");
        if (o->json && o->follow)
            argp_error(state, "--follow prints what the job prints, so there is no JSON");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"name", 'n', "NAME", 0, "what it is called in lists", 0},
    {"cpus", 'c', "N", 0, "processors: 1, 0.5, 2.25 (1 if not given)", 0},
    {"memory", 'm', "SIZE", 0, "512M, 2G (256M)", 0},
    {"time", 't', "TIME", 0, "it is ended then: 90, 30s, 10m, 2h, 1d (1d)", 0},
    {"workdir", 'd', "PATH", 0, "in the cloud; else where you are, if that is in it, else /", 0},
    {"env", 'e', "NAME=VALUE", 0, "a variable; may be given again", 0},
    {"array", 'a', "N|A-B", 0, "so many jobs; each has its number in UMBEL_ARRAY_INDEX", 0},
    {"after", 'A', "IDS", 0, "starts when these have ended well: \"42 57-99\"", 0},
    {"copies", 'C', "N", 0, "runs it on N nodes; the majority's result counts", 0},
    {"reliability", RELIABILITY, "high", 0, "three copies", 0},
    {"retries", RETRIES, "N", 0, "runs it again, so often, if it fails or its node is lost", 0},
    {"priority", PRIORITY, "N", 0, "-1000 to 1000; higher ones first", 0},
    {"input", INPUT, "PATH", 0, "standard input, a file in the cloud", 0},
    {"output", OUTPUT, "PATH", 0, "standard output goes there; else to the job's own file", 0},
    {"error", ERROR, "PATH", 0, "the same for standard error", 0},
    {"node", NODE, "NAME", 0, "only there", 0},
    {"script", SCRIPT, "FILE", 0, "a script to be run (- for standard input)", 0},
    {"wait", 'w', NULL, 0, "until it has ended, and end as it did", 1},
    {"follow", 'f', NULL, 0, "print what it prints meanwhile, and end as it did", 1},
    {"json", 'j', NULL, 0, "say its number as JSON", 1},
    {0},
};
static const struct argp_child children[] = {{&ctl_argp, 0, NULL, 90}, {0}};
static const struct argp argp = {
    options,
    parse,
    "COMMAND [ARGUMENT...]",
    "Runs a command as a job on a node of the cloud, as you, with the cloud mounted."
    "\vPrints \"id N\" (of an array \"id FIRST-LAST\"). One word is a line for the shell; several "
    "are a program and its arguments, taken as they are. With --wait or --follow the exit status "
    "is "
    "the job's own, 128 + N if signal N ended it, and 1 if it did not end well in another way. "
    "`umbel job` shows jobs and ends them.",
    children,
    NULL,
    NULL};

/* ---- doing it */

static int make_spec(struct run_options *o, const struct ctl *c)
{
    int rc = o->workdir ? 0 : put_workdir(o->spec, c);

    if (rc == 0 && o->command != NULL)
        rc = put_command(o->spec, o->command);
    if (rc == 0 && o->script != NULL)
        rc = put_script(o->spec, o->script);
    return rc;
}

static void say_ids(const struct job_ids *ids, bool json)
{
    if (json)
        printf("{\"first\": %" PRIu64 ", \"last\": %" PRIu64 "}\n", ids->first, ids->last);
    else if (ids->first == ids->last)
        printf("id %" PRIu64 "\n", ids->first);
    else
        printf("id %" PRIu64 "-%" PRIu64 "\n", ids->first, ids->last);
    fflush(stdout);
}

static int wait_for(const struct ctl *c, const struct job_ids *ids)
{
    uint64_t failed = 0;

    if (job_wait(c, ids, false, &failed) < 0)
        return EXIT_FAILED;
    if (ids->first == ids->last)
        return job_exit_status(c, ids->first);
    if (failed > 0)
        warnx("%" PRIu64 " of %" PRIu64 " jobs did not end well", failed,
              ids->last - ids->first + 1);
    return failed > 0 ? EXIT_FAILED : EXIT_DONE;
}

static int run(struct run_options *o, const struct ctl *c, const char *spec, size_t size)
{
    struct job_ids ids;

    if (job_submit(c, spec, size, &ids) < 0)
        return EXIT_FAILED;
    if (!o->follow)
        say_ids(&ids, o->json);
    if (!o->follow)
        return o->wait ? wait_for(c, &ids) : EXIT_DONE;
    for (uint64_t id = ids.first; id <= ids.last; id++)
        if (job_follow(c, id) < 0)
            return EXIT_FAILED;
    return wait_for(c, &ids);
}

int cmd_run(int argc, char **argv)
{
    struct run_options o = {.wait = false};
    char *spec = NULL;
    size_t size = 0;
    struct ctl c;

    o.spec = open_memstream(&spec, &size);
    if (o.spec == NULL) {
        warn("no memory");
        return EXIT_FAILED;
    }
    int status = options_parse_in_order(&argp, argc, argv, &o) != 0 ? EXIT_USAGE : EXIT_DONE;
    if (status == EXIT_DONE && (ctl_find(&c, &o.ctl, NULL) != 0 || make_spec(&o, &c) != 0))
        status = EXIT_FAILED;
    if (fclose(o.spec) != 0 && status == EXIT_DONE) {
        warn("no memory");
        status = EXIT_FAILED;
    }
    if (status == EXIT_DONE)
        status = run(&o, &c, spec, size);
    free(spec);
    return status;
}
