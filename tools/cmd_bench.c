/* umbel bench: the same measurements in a mounted cloud and beside it, in one table. */
#include <err.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/bench.h"
#include "tools/commands.h"
#include "tools/options.h"
#include "tools/progress.h"
#include "tools/text.h"

#define FOLDERS   3 /* DIR, --against, --third */
#define RATES_MAX 64
#define ROUNDS    3

enum { WITH_ONE, WITH_MANY, WAYS };

struct bench {
    const char *given[FOLDERS];
    char dirs[FOLDERS][PATH_MAX]; /* made in the given ones */
    uint64_t processes;
    bool json, quick;
    struct bench_size size;
    double samples[RATES_MAX][WAYS][FOLDERS][ROUNDS];
    double rates[RATES_MAX][WAYS][FOLDERS]; /* their median; 0: not measured */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct bench *b = state->input;

    switch (key) {
    case 'a':
        b->given[1] = arg;
        return 0;
    case 't':
        b->given[2] = arg;
        return 0;
    case 'n':
        if (text_parse_number(arg, 1, BENCH_PROCESSES_MAX, &b->processes) != 0)
            argp_error(state, "--processes: '%s' is not a number from 1 to %d", arg,
                       BENCH_PROCESSES_MAX);
        return 0;
    case 'j':
        b->json = true;
        return 0;
    case 'q':
        b->quick = true;
        return 0;
    case ARGP_KEY_ARG:
        if (b->given[0] != NULL)
            argp_error(state, "'%s' is one argument too many", arg);
        b->given[0] = arg;
        return 0;
    case ARGP_KEY_END:
        if (b->given[0] == NULL)
            argp_error(state, "say in which folder of a mounted cloud");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"against", 'a', "DIR", 0, "the folder to compare with (a new one in $TMPDIR or /var/tmp)", 0},
    {"third", 't', "DIR", 0, "one more folder beside them, such as a FUSE passthrough's", 0},
    {"processes", 'n', "N", 0, "measure with one and with N processes (4)", 0},
    {"quick", 'q', NULL, 0, "smaller and less exact", 0},
    {"json", 'j', NULL, 0, "as JSON", 0},
    {0},
};
static const struct argp argp = {
    options,
    parse,
    "DIR",
    "Measures DIR, a folder in a mounted cloud, beside a plain folder of this machine."
    "\v\"Pages dropped\" means that the kernel's cached pages of the file were dropped first, "
    "not what lies below; \"warm\" that all was read just before. Each test is run in one folder "
    "after the other, in changing order; --quick has one round, else the median of three counts. "
    "The small files are shared out among the processes. "
    "Everything that it "
    "makes, it removes again.",
    NULL,
    NULL,
    NULL};

static const struct bench_size full = {.file_bytes = 512ull << 20,
                                       .files = 5000,
                                       .entries = 5000,
                                       .random_ms = 3000,
                                       .rounds = ROUNDS};
static const struct bench_size quick = {
    .file_bytes = 64ull << 20, .files = 1000, .entries = 5000, .random_ms = 300, .rounds = 1};

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)where;
    return type == FTW_DP ? rmdir(path) : unlink(path);
}

static void remove_all(struct bench *b)
{
    for (int f = 0; f < FOLDERS; f++)
        if (b->dirs[f][0] != '\0' && nftw(b->dirs[f], remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
            warn("cannot remove %s", b->dirs[f]);
}

/* A folder of our own in each; the one to compare with is wherever temporary files that are kept on
 * a disk go. */
static int make_dirs(struct bench *b)
{
    const char *tmp = getenv("TMPDIR");

    if (b->given[1] == NULL)
        b->given[1] = tmp != NULL && tmp[0] == '/' ? tmp : "/var/tmp";
    for (int f = 0; f < FOLDERS; f++) {
        if (b->given[f] == NULL)
            continue;
        if (snprintf(b->dirs[f], PATH_MAX, "%s/bench-XXXXXX", b->given[f]) >= PATH_MAX ||
            mkdtemp(b->dirs[f]) == NULL) {
            int error = errno;
            warnx("cannot make a folder in %s: %s", b->given[f], strerror(error));
            b->dirs[f][0] = '\0';
            return -error;
        }
    }
    return 0;
}

static int by_rate(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* The tests of one number of processes, folder by folder within each test, so that all meet the
 * same weather, and in another order in each round. */
static int measure(struct bench *b, int way, unsigned round, struct progress *p, unsigned *done,
                   unsigned total)
{
    unsigned processes = way == WITH_ONE ? 1 : (unsigned)b->processes;
    char detail[256];

    for (unsigned t = 0; bench_tests[t].name != NULL; t++) {
        for (unsigned k = 0; k < FOLDERS; k++) {
            unsigned f = (k + t + round) % FOLDERS;
            if (b->dirs[f][0] == '\0')
                continue;
            progress_tick(p, (*done)++, total, bench_tests[t].name);
            int rc = bench_run(&bench_tests[t], b->dirs[f], processes, &b->size,
                               &b->samples[t][way][f][round], detail);
            if (rc != 0) {
                warnx("%s", detail);
                return rc;
            }
        }
    }
    return 0;
}

static void find_medians(struct bench *b)
{
    for (unsigned t = 0; bench_tests[t].name != NULL; t++)
        for (int way = 0; way < WAYS; way++)
            for (int f = 0; f < FOLDERS; f++) {
                double *s = b->samples[t][way][f];
                qsort(s, b->size.rounds, sizeof(*s), by_rate);
                b->rates[t][way][f] = s[b->size.rounds / 2];
            }
}

static int measure_all(struct bench *b)
{
    unsigned total = 0, done = 0, folders = 0;
    int ways = b->processes > 1 ? WAYS : 1, rc = 0;
    struct progress progress;

    while (bench_tests[total].name != NULL)
        total++;
    for (int f = 0; f < FOLDERS; f++)
        folders += b->dirs[f][0] != '\0';
    total *= folders * (unsigned)ways * b->size.rounds;
    progress_begin(&progress, "measuring");
    for (unsigned round = 0; rc == 0 && round < b->size.rounds; round++)
        for (int way = 0; rc == 0 && way < ways; way++)
            rc = measure(b, way, round, &progress, &done, total);
    progress_end(&progress);
    find_medians(b);
    return rc;
}

static double shown(const struct bench_test *test, double rate)
{
    return test->by_bytes ? rate / 1e6 : rate;
}

static void print_table(const struct bench *b)
{
    bool third = b->given[2] != NULL;

    printf("%-33s %5s %5s %12s %12s %6s", "test", "unit", "procs", "cloud", "local", "ratio");
    printf(third ? " %12s %6s\n" : "\n", "third", "ratio");
    for (unsigned t = 0; bench_tests[t].name != NULL; t++) {
        for (int way = 0; way < WAYS; way++) {
            const double *rate = b->rates[t][way];

            if (rate[0] <= 0)
                continue;
            printf("%-33s %5s %5u %12.0f %12.0f %6.2f", way == 0 ? bench_tests[t].name : "",
                   bench_tests[t].by_bytes ? "MB/s" : "ops/s",
                   way == 0 ? 1 : (unsigned)b->processes, shown(&bench_tests[t], rate[0]),
                   shown(&bench_tests[t], rate[1]), rate[0] / rate[1]);
            if (third)
                printf(" %12.0f %6.2f", shown(&bench_tests[t], rate[2]), rate[0] / rate[2]);
            putchar('\n');
        }
    }
    printf("\ncloud: %s   local: %s%s%s\nratio: the cloud's rate over the one to its left"
           "; median of %u\n",
           b->given[0], b->given[1], third ? "   third: " : "", third ? b->given[2] : "",
           b->size.rounds);
}

static void print_json(const struct bench *b)
{
    static const char *const names[FOLDERS] = {"cloud", "local", "third"};
    bool first = true;

    printf("{\"quick\": %s, \"rounds\": %u, \"results\": [", b->quick ? "true" : "false",
           b->size.rounds);
    for (unsigned t = 0; bench_tests[t].name != NULL; t++) {
        for (int way = 0; way < WAYS; way++) {
            const double *rate = b->rates[t][way];

            if (rate[0] <= 0)
                continue;
            printf("%s\n  {\"test\": \"%s\", \"unit\": \"%s\", \"processes\": %u", first ? "" : ",",
                   bench_tests[t].name, bench_tests[t].by_bytes ? "MB/s" : "ops/s",
                   way == 0 ? 1 : (unsigned)b->processes);
            for (int f = 0; f < FOLDERS; f++)
                if (rate[f] > 0)
                    printf(", \"%s\": %.1f", names[f], shown(&bench_tests[t], rate[f]));
            printf(", \"ratio\": %.3f", rate[0] / rate[1]);
            if (rate[2] > 0)
                printf(", \"ratio_third\": %.3f", rate[0] / rate[2]);
            putchar('}');
            first = false;
        }
    }
    puts("\n]}");
}

int cmd_bench(int argc, char **argv)
{
    struct bench *b = calloc(1, sizeof(*b));

    if (b == NULL) {
        warn("cannot measure");
        return EXIT_FAILED;
    }
    b->processes = 4;
    int status = EXIT_USAGE;
    if (options_parse(&argp, argc, argv, b) == 0) {
        b->size = b->quick ? quick : full;
        int rc = make_dirs(b);
        if (rc == 0)
            rc = measure_all(b);
        if (rc == 0 && b->json)
            print_json(b);
        else if (rc == 0)
            print_table(b);
        remove_all(b);
        status = rc == 0 ? EXIT_DONE : EXIT_FAILED;
    }
    free(b);
    return status;
}
