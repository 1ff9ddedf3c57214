/* umbel job: what becomes of jobs. */
#include <err.h>
#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/wire/words.h"
#include "tools/commands.h"
#include "tools/job_files.h"
#include "tools/options.h"
#include "tools/text.h"

struct job_options {
    struct ctl_options ctl;
    bool json, follow, error;
    char *words[256];
    size_t n;
    bool takes_words;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct job_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->ctl;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'f':
        o->follow = true;
        return 0;
    case 'e':
        o->error = true;
        return 0;
    case ARGP_KEY_ARG:
        if (!o->takes_words || o->n == sizeof(o->words) / sizeof(o->words[0]))
            argp_error(state, "'%s' is one argument too many", arg);
        o->words[o->n++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->takes_words && o->n == 0)
            argp_error(state, "say which job");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&ctl_argp, 0, NULL, 90}, {0}};

static int begin(struct job_options *o, struct ctl *c, const struct argp *argp, int argc,
                 char **argv)
{
    if (options_parse(argp, argc, argv, o) != 0)
        return EXIT_USAGE;
    return ctl_find(c, &o->ctl, NULL) != 0 ? EXIT_FAILED : EXIT_DONE;
}

/* fn for each number of the arguments, until one fails. */
static int for_each(const struct ctl *c, const struct job_options *o,
                    int (*fn)(const struct ctl *c, uint64_t id, const struct job_options *o))
{
    struct job_ids ids;

    for (size_t i = 0; i < o->n; i++) {
        if (job_ids_parse(o->words[i], &ids) < 0)
            return EXIT_USAGE;
        for (uint64_t n = ids.last - ids.first + 1, id = ids.first; n > 0; n--, id++)
            if (fn(c, id, o) != 0)
                return EXIT_FAILED;
    }
    return EXIT_DONE;
}

/* ---- ls */

/* "ID STATE UID NODE SUBMITTED BEGAN ENDED NAME" */
enum { FIELDS = 8 };
struct row {
    char *field[FIELDS];
};

static bool cut_row(char *line, struct row *r)
{
    for (int i = 0; i < FIELDS; i++) {
        r->field[i] = line;
        char *space = i + 1 < FIELDS ? strchr(line, ' ') : NULL;
        if (i + 1 < FIELDS && space == NULL)
            return false;
        if (space != NULL) {
            *space = '\0';
            line = space + 1;
        }
    }
    return true;
}

static double seconds(const char *text)
{
    return strcmp(text, "-") == 0 ? 0 : strtod(text, NULL);
}

static void print_row(const struct row *r)
{
    char *end, user[40], took[24] = "";
    unsigned long uid = strtoul(r->field[2], &end, 10);
    const struct passwd *who = *end == '\0' ? getpwuid((uid_t)uid) : NULL;
    double began = seconds(r->field[5]), ended = seconds(r->field[6]);

    snprintf(user, sizeof(user), "%s", who != NULL ? who->pw_name : r->field[2]);
    if (began > 0)
        snprintf(took, sizeof(took), "%.1f s", (ended > 0 ? ended : (double)time(NULL)) - began);
    printf("%8s %-10s %-12s %-12s %10s  %s\n", r->field[0], r->field[1], user, r->field[3], took,
           r->field[7]);
}

static void print_row_json(const struct row *r, bool first)
{
    static const char *const names[FIELDS] = {"id",        "state", "user",  "node",
                                              "submitted", "began", "ended", "name"};

    fputs(first ? "{" : ",\n{", stdout);
    for (int i = 0; i < FIELDS; i++) {
        printf("%s\"%s\": ", i > 0 ? ", " : "", names[i]);
        if (strcmp(r->field[i], "-") == 0)
            fputs("null", stdout);
        else if (i == FIELDS - 1)
            text_json(r->field[i]);
        else
            text_json_value(r->field[i]);
    }
    fputs("}", stdout);
}

/* The list comes in pages; *last: the newest that was shown. */
static int print_page(char *text, bool json, bool *first, uint64_t *last)
{
    int rows = 0;
    char *line;
    struct row r;

    while ((line = text_line(&text)) != NULL) {
        if (line[0] == '\0' || !cut_row(line, &r))
            continue;
        if (json)
            print_row_json(&r, *first);
        else
            print_row(&r);
        *first = false;
        (void)text_parse_number(r.field[0], 0, UINT64_MAX, last);
        rows++;
    }
    return rows;
}

static int print_all(const struct ctl *c, bool json)
{
    char file[40] = "jobs/list";
    bool first = true;
    uint64_t last = 0;
    int rows;

    do {
        char *text = NULL;
        int rc = ctl_read(c, file, &text);
        if (rc != 0) {
            ctl_tell(c, file, rc);
            return EXIT_FAILED;
        }
        rows = print_page(text, json, &first, &last);
        free(text);
        snprintf(file, sizeof(file), "jobs/list.%" PRIu64, last);
    } while (rows > 0);
    return EXIT_DONE;
}

static int job_ls(int argc, char **argv)
{
    static const struct argp_option options[] = {{"json", 'j', NULL, 0, "as JSON", 0}, {0}};
    static const struct argp argp = {
        options,  parse,
        NULL,     "Lists your jobs (root: all): number, state, user, node, time running, name.",
        children, NULL,
        NULL};
    struct job_options o = {.json = false};
    struct ctl c;
    int status = begin(&o, &c, &argp, argc, argv);

    if (status != EXIT_DONE)
        return status;
    if (o.json)
        fputs("[", stdout);
    else
        printf("%8s %-10s %-12s %-12s %10s  %s\n", "JOB", "STATE", "USER", "NODE", "TIME", "NAME");
    status = print_all(&c, o.json);
    if (o.json)
        puts("]");
    return status;
}

/* ---- show */

static int show_one(const struct ctl *c, uint64_t id, const struct job_options *o)
{
    char *text = NULL, *rest, *line;
    const char *comma = "{";
    int rc = job_status(c, id, &text);

    if (rc < 0)
        return rc;
    rest = text;
    while ((line = text_line(&rest)) != NULL) {
        size_t n = strcspn(line, " ");
        if (line[0] == '\0' || line[n] == '\0')
            continue;
        line[n] = '\0';
        if (!o->json) {
            printf("%-14s %s\n", line, line + n + 1);
            continue;
        }
        /* Copies have a line each, so their key has the number too. */
        fputs(comma, stdout);
        comma = ", ";
        if (strcmp(line, "copy") == 0)
            printf("\"copy_%.*s\"", (int)strcspn(line + n + 1, " "), line + n + 1);
        else
            text_json(line);
        fputs(": ", stdout);
        text_json_value(line + n + 1);
    }
    puts(o->json ? "}" : "");
    free(text);
    return 0;
}

static int job_show(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "as JSON, one object a line", 0}, {0}};
    static const struct argp argp = {
        options,  parse, "JOB...", "Shows how jobs fare: JOB is a number, or FIRST-LAST.",
        children, NULL,  NULL};
    struct job_options o = {.takes_words = true};
    struct ctl c;
    int status = begin(&o, &c, &argp, argc, argv);

    return status == EXIT_DONE ? for_each(&c, &o, show_one) : status;
}

/* ---- logs */

static int logs_of(const struct ctl *c, uint64_t id, const struct job_options *o)
{
    return job_logs(c, id, o->error ? "stderr" : "stdout", STDOUT_FILENO, o->follow);
}

static int job_logs_command(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"follow", 'f', NULL, 0, "go on until the job has ended", 0},
        {"stderr", 'e', NULL, 0, "its standard error instead", 0},
        {0}};
    static const struct argp argp = {options,  parse, "JOB...", "Prints what jobs have printed.",
                                     children, NULL,  NULL};
    struct job_options o = {.takes_words = true};
    struct ctl c;
    int status = begin(&o, &c, &argp, argc, argv);

    return status == EXIT_DONE ? for_each(&c, &o, logs_of) : status;
}

/* ---- cancel, signal */

static int cancel_one(const struct ctl *c, uint64_t id, const struct job_options *o)
{
    char file[64];

    (void)o;
    snprintf(file, sizeof(file), "jobs/%" PRIu64 "/ctl", id);
    return ctl_write(c, file, "cancel");
}

static int job_cancel(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,     parse,
        "JOB...", "Ends jobs: SIGTERM, and after a moment SIGKILL for all their processes.",
        children, NULL,
        NULL};
    struct job_options o = {.takes_words = true};
    struct ctl c;
    int status = begin(&o, &c, &argp, argc, argv);

    return status == EXIT_DONE ? for_each(&c, &o, cancel_one) : status;
}

static int job_signal(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,     parse, "SIGNAL JOB", "Sends a signal, by its number, to a job's processes.",
        children, NULL,  NULL};
    struct job_options o = {.takes_words = true};
    char file[64], command[64];
    struct job_ids ids;
    uint64_t number;
    struct ctl c;
    int status = begin(&o, &c, &argp, argc, argv);

    if (status != EXIT_DONE)
        return status;
    if (o.n != 2 || text_parse_number(o.words[0], 1, 64, &number) < 0 ||
        job_ids_parse(o.words[1], &ids) < 0 || ids.first != ids.last) {
        warnx("say a signal from 1 to 64 and one job (see --help)");
        return EXIT_USAGE;
    }
    snprintf(file, sizeof(file), "jobs/%" PRIu64 "/ctl", ids.first);
    snprintf(command, sizeof(command), "signal %" PRIu64, number);
    return ctl_write(&c, file, command) == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* ---- wait, rm */

static int job_wait_command(int argc, char **argv)
{
    static const struct argp argp = {NULL,
                                     parse,
                                     "JOB...",
                                     "Waits until jobs have ended. Exit status: of one job its "
                                     "own, as with umbel run --wait; of "
                                     "several 0 if all have ended well, else 1.",
                                     children,
                                     NULL,
                                     NULL};
    struct job_options o = {.takes_words = true};
    struct job_ids ids = {0, 0};
    uint64_t failed, all = 0;
    struct ctl c;
    int status = begin(&o, &c, &argp, argc, argv);

    for (size_t i = 0; i < o.n && status == EXIT_DONE; i++) {
        if (job_ids_parse(o.words[i], &ids) < 0)
            return EXIT_USAGE;
        if (job_wait(&c, &ids, false, &failed) < 0)
            return EXIT_FAILED;
        all += failed;
    }
    if (status != EXIT_DONE)
        return status;
    if (o.n == 1 && ids.first == ids.last)
        return job_exit_status(&c, ids.first);
    if (all > 0)
        warnx("%" PRIu64 " jobs did not end well", all);
    return all > 0 ? EXIT_FAILED : EXIT_DONE;
}

static int remove_one(const struct ctl *c, uint64_t id, const struct job_options *o)
{
    char path[PATH_MAX + 64];

    (void)o;
    snprintf(path, sizeof(path), "%s/.umbel/jobs/%" PRIu64, c->mount, id);
    if (rmdir(path) == 0)
        return 0;
    int rc = -errno;
    if (rc == -EBUSY)
        warnx("job %" PRIu64 " has not ended: cancel it first", id);
    else
        warn("job %" PRIu64, id);
    return rc;
}

static int job_rm(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,     parse, "JOB...", "Forgets jobs that have ended, and what they have printed.",
        children, NULL,  NULL};
    struct job_options o = {.takes_words = true};
    struct ctl c;
    int status = begin(&o, &c, &argp, argc, argv);

    return status == EXIT_DONE ? for_each(&c, &o, remove_one) : status;
}

/* ---- submit */

static int job_submit_command(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,     parse, "FILE", "Hands in a job's specification (- for standard input).",
        children, NULL,  NULL};
    struct job_options o = {.takes_words = true};
    char *text = NULL;
    size_t size = 0;
    struct job_ids ids;
    struct ctl c;
    int status = begin(&o, &c, &argp, argc, argv);

    if (status != EXIT_DONE)
        return status;
    if (o.n != 1) {
        warnx("one file at a time");
        return EXIT_USAGE;
    }
    int rc = text_read_file(strcmp(o.words[0], "-") == 0 ? "/dev/stdin" : o.words[0], &text, &size);
    if (rc < 0) {
        errno = -rc;
        warn("%s", o.words[0]);
        return EXIT_FAILED;
    }
    rc = job_submit(&c, text, size, &ids);
    free(text);
    if (rc < 0)
        return EXIT_FAILED;
    printf(ids.first == ids.last ? "id %" PRIu64 "\n" : "id %" PRIu64 "-%" PRIu64 "\n", ids.first,
           ids.last);
    return EXIT_DONE;
}

/* ---- which of them */

static const struct subcommand {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} subcommands[] = {
    {"ls", "list them", job_ls},
    {"show", "how one fares", job_show},
    {"logs", "what it has printed", job_logs_command},
    {"cancel", "end it", job_cancel},
    {"signal", "send it a signal", job_signal},
    {"wait", "until it has ended", job_wait_command},
    {"submit", "hand in a specification", job_submit_command},
    {"rm", "forget one that has ended", job_rm},
};
enum { SUBCOMMANDS = sizeof(subcommands) / sizeof(subcommands[0]) };

static void usage(FILE *out)
{
    fputs("Usage: umbel job COMMAND [OPTION...] [JOB...]\n\n", out);
    for (size_t i = 0; i < SUBCOMMANDS; i++)
        fprintf(out, "  %-8s %s\n", subcommands[i].name, subcommands[i].summary);
    fputs("\nJOB is a job's number, or FIRST-LAST. `umbel run` makes jobs.\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage.\n",
          out);
}

/* `umbel job --mount MNT cancel 7` as well as `umbel job cancel --mount MNT 7`: options that name
 * the cloud may stand before the word, which comes to the front. */
static void word_first(int argc, char **argv)
{
    static const char *const with_value[] = {"--mount", "--root", "-m", "-r"};
    int at = 1;

    while (at < argc && argv[at][0] == '-' && argv[at][1] != '\0' && strcmp(argv[at], "--") != 0) {
        bool value = false;
        for (size_t i = 0; i < sizeof(with_value) / sizeof(with_value[0]); i++)
            value = value || strcmp(argv[at], with_value[i]) == 0;
        at += value ? 2 : 1;
    }
    if (at >= argc)
        return;
    char *word = argv[at];
    memmove(&argv[2], &argv[1], (size_t)(at - 1) * sizeof(*argv));
    argv[1] = word;
}

int cmd_job(int argc, char **argv)
{
    static char title[32]; /* libc keeps pointers to it until the end */
    const char *best = NULL;

    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        usage(stdout);
        return EXIT_DONE;
    }
    word_first(argc, argv);
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        if (strcmp(subcommands[i].name, argv[1]) == 0) {
            snprintf(title, sizeof(title), "umbel job %s", argv[1]);
            argv[1] = title;
            program_invocation_name = program_invocation_short_name = title;
            return subcommands[i].run(argc - 1, argv + 1);
        }
        words_nearer(argv[1], subcommands[i].name, &best);
    }
    options_unknown(argv[1][0] == '-' ? "option" : "command", argv[1],
                    argv[1][0] == '-' ? NULL : best);
    return EXIT_USAGE;
}
