/* umbel sched: the scheduler of virtual machines; its simulator is here. */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <stdlib.h>

#include "hv/sched/sim/sim.h"
#include "tools/commands.h"
#include "tools/options.h"
#include "tools/text.h"

#define RUNS_MAX 10000

struct sched_options {
    char *words[2];
    size_t n;
    bool all, policy_given, seed_given, json;
    enum rbc_policy policy;
    uint64_t seed, runs;
    const char *svg;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sched_options *o = state->input;

    switch (key) {
    case 'p':
        o->policy_given = true;
        o->all = strcmp(arg, "all") == 0;
        if (!o->all && sim_policy_parse(arg, &o->policy) != 0)
            argp_error(state, "--policy '%s' is none of credit, r_credit, r_b_credit, all", arg);
        return 0;
    case 's':
        o->seed_given = true;
        if (text_parse_number(arg, 0, INT64_MAX, &o->seed) != 0)
            argp_error(state, "--seed '%s' is no number", arg);
        return 0;
    case 'r':
        if (text_parse_number(arg, 1, RUNS_MAX, &o->runs) != 0)
            argp_error(state, "--runs '%s' is no number from 1 to %d", arg, RUNS_MAX);
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'g':
        o->svg = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (o->n == 2)
            argp_error(state, "'%s' is one argument too many", arg);
        o->words[o->n++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->n == 0 || strcmp(o->words[0], "sim") != 0)
            argp_error(state, "say what: sim or set");
        if (o->n == 1)
            argp_error(state, "say which scenario");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"policy", 'p', "NAME", 0, "credit, r_credit, r_b_credit, or all of them", 0},
    {"seed", 's', "N", 0, "instead of the scenario's", 0},
    {"runs", 'r', "N", 0, "that many, with seeds from there on, taken together", 0},
    {"json", 'j', NULL, 0, "for programs", 0},
    {"svg", 'g', "FILE", 0, "draw latency distributions and who ran when", 0},
    {0}};
static const struct argp argp = {options,
                                 parse,
                                 "sim SCENARIO\nset DOMAIN ...",
                                 "sim: simulate Xen's Credit and R_B_Credit on given processors "
                                 "and guests. hv/sched/sim/sim.h says how a scenario is written.\n"
                                 "set: how a domain of the real Xen is scheduled (`umbel sched set "
                                 "--help`).",
                                 NULL,
                                 NULL,
                                 NULL};

/* Runs the policies that are wanted and shows what came out. */
static int simulate(const struct sched_options *o, const struct sim_scenario *sc)
{
    struct sim_shown shown[3];
    struct sim_result *r;
    size_t n = 0;
    int rc = 0;

    for (unsigned p = RBC_CREDIT; p <= RBC_R_B_CREDIT && rc == 0; p++) {
        if (!o->all && p != (unsigned)(o->policy_given ? o->policy : sc->set.policy))
            continue;
        rc = sim_runs(sc, (enum rbc_policy)p, o->seed_given ? o->seed : sc->seed, (uint32_t)o->runs,
                      &r);
        if (rc == 0)
            shown[n++] = (struct sim_shown){(enum rbc_policy)p, r};
    }
    if (rc == -E2BIG)
        warnx("%s: the run is too long: more than %llu events", o->words[1],
              (unsigned long long)SIM_EVENTS_MAX);
    else if (rc != 0)
        warnx("%s: %s", o->words[1], strerror(-rc));
    if (rc == 0)
        (o->json ? sim_json : sim_print)(stdout, sc, shown, n);
    if (rc == 0 && o->svg != NULL && (rc = sim_svg(o->svg, sc, shown, n)) != 0)
        warnx("%s: %s", o->svg, strerror(-rc));
    while (n > 0)
        sim_result_free((struct sim_result *)shown[--n].result);
    return rc != 0 ? EXIT_FAILED : EXIT_DONE;
}

static int set(int argc, char **argv)
{
    static char title[] = "umbel sched set"; /* libc keeps pointers to it until the end */

    argv[0] = title;
    program_invocation_name = program_invocation_short_name = title;
    return cmd_sched_set(argc, argv);
}

int cmd_sched(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "set") == 0)
        return set(argc - 1, argv + 1);
    struct sched_options o = {.runs = 1};
    struct sim_scenario sc;
    char why[SIM_WHY], *text;
    size_t len;
    int status = EXIT_FAILED;

    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    int rc = text_read_file(o.words[1], &text, &len);
    if (rc != 0) {
        warnx("%s: %s", o.words[1], strerror(-rc));
        return EXIT_FAILED;
    }
    rc = sim_parse(text, len, &sc, why);
    if (rc != 0)
        warnx("%s: %s", o.words[1], why);
    else
        status = simulate(&o, &sc);
    sim_scenario_free(&sc);
    free(text);
    return status;
}
