/* umbel sched set: how a domain of the real Xen is scheduled. */
#include <err.h>
#include <stdio.h>
#include <string.h>

#include "hv/sched/ctl/sched_ctl.h"
#include "tools/commands.h"
#include "tools/options.h"
#include "tools/text.h"

#define CAP_MAX 25600 /* of all of 256 processors; Xen knows how many there are */

struct set_options {
    const char *domain;
    bool changes;
    struct sched_ctl_change change;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct set_options *o = state->input;
    uint64_t n = 0;

    switch (key) {
    case 't':
        if (strcmp(arg, "on") != 0 && strcmp(arg, "off") != 0)
            argp_error(state, "--real-time '%s' is neither on nor off", arg);
        o->change.mark = strcmp(arg, "on") == 0 ? SCHED_MARK_ON : SCHED_MARK_OFF;
        break;
    case 'w':
        if (text_parse_number(arg, 1, SCHED_WEIGHT_MAX, &n) != 0)
            argp_error(state, "--weight '%s' is no number from 1 to %d", arg, SCHED_WEIGHT_MAX);
        o->change.weight = (uint32_t)n;
        break;
    case 'c':
        if (text_parse_number(arg, 0, CAP_MAX, &n) != 0)
            argp_error(state, "--cap '%s' is no number from 0 to %d", arg, CAP_MAX);
        o->change.cap = (int64_t)n;
        break;
    case ARGP_KEY_ARG:
        if (o->domain != NULL)
            argp_error(state, "'%s' is one argument too many", arg);
        o->domain = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->domain == NULL)
            argp_error(state, "say which domain");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    o->changes = true;
    return 0;
}

static const struct argp_option options[] = {
    {"real-time", 't', "on|off", 0, "mark it as real-time, or take the mark away", 0},
    {"weight", 'w', "N", 0, "its share beside others, 1 to 65533 (new ones have 256)", 0},
    {"cap", 'c', "PERCENT", 0, "the most it may use, in per cent of a processor; 0: no limit", 0},
    {0}};
static const struct argp argp = {
    options,
    parse,
    "DOMAIN",
    "Show or change how a domain (a name or a number) is scheduled by R_B_Credit. For Xen's first "
    "domain, "
    "with the hypervisor that hv/sched/xen/build makes. A real-time domain has neither weight nor "
    "cap; both are kept for when the mark is taken away.",
    NULL,
    NULL,
    NULL};

int cmd_sched_set(int argc, char **argv)
{
    struct set_options o = {.change = {SCHED_MARK_AS_IT_IS, 0, -1}};
    struct sched_ctl_params p;
    char why[SCHED_WHY];

    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    int rc =
        o.changes ? sched_ctl_set(o.domain, &o.change, &p, why) : sched_ctl_get(o.domain, &p, why);
    if (rc != 0) {
        warnx("%s: %s", o.domain, why);
        return EXIT_FAILED;
    }
    if (p.real_time)
        printf("%s: real-time\n", o.domain);
    else if (p.cap != 0)
        printf("%s: weight %u, cap %u%%\n", o.domain, p.weight, p.cap);
    else
        printf("%s: weight %u\n", o.domain, p.weight);
    return EXIT_DONE;
}
