/* Scenario texts. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define WORDS_MAX 64 /* of a line */

struct parser {
    struct sim_scenario *sc;
    char *why;
    unsigned line;
    char *word[WORDS_MAX];
    size_t words, at;
    bool gantt;
};

__attribute__((format(printf, 2, 3))) static int wrong(struct parser *p, const char *format, ...)
{
    int n = snprintf(p->why, SIM_WHY, "line %u: ", p->line);
    va_list args;

    va_start(args, format);
    vsnprintf(p->why + n, SIM_WHY - (size_t)n, format, args);
    va_end(args);
    for (char *ch = p->why; *ch; ch++)
        if (*ch < ' ' || *ch > '~')
            *ch = '?';
    return -EINVAL;
}

static const char *next_word(struct parser *p)
{
    return p->at < p->words ? p->word[p->at++] : NULL;
}

static bool accept(struct parser *p, const char *word)
{
    if (p->at >= p->words || strcmp(p->word[p->at], word) != 0)
        return false;
    p->at++;
    return true;
}

/* ---- values */

/* Digits of *text as a number up to most; false: none, or too large. */
static bool digits(const char **text, uint64_t most, uint64_t *out)
{
    const char *ch = *text;
    uint64_t value = 0;

    for (; *ch >= '0' && *ch <= '9'; ch++) {
        value = value * 10 + (uint64_t)(*ch - '0');
        if (value > most)
            return false;
    }
    if (ch == *text)
        return false;
    *text = ch;
    *out = value;
    return true;
}

static int number(struct parser *p, const char *what, uint64_t least, uint64_t most, uint64_t *out)
{
    const char *word = next_word(p), *ch = word;

    if (word == NULL)
        return wrong(p, "%s needs a number", what);
    if (!digits(&ch, most, out) || *ch != '\0' || *out < least)
        return wrong(p, "%s is '%.40s', which is no number from %llu to %llu", what, word,
                     (unsigned long long)least, (unsigned long long)most);
    return 0;
}

static int number32(struct parser *p, const char *what, uint32_t least, uint32_t most,
                    uint32_t *out)
{
    uint64_t value = 0;
    int rc = number(p, what, least, most, &value);

    if (rc == 0)
        *out = (uint32_t)value;
    return rc;
}

static bool parse_duration(const char *word, int64_t *out)
{
    static const struct {
        const char *unit;
        uint64_t ns;
    } units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};
    uint64_t whole, part = 0, scale = 1;
    const char *ch = word;

    if (!digits(&ch, SIM_TIME_MAX, &whole))
        return false;
    if (*ch == '.') {
        const char *begin = ++ch;
        if (!digits(&ch, 999999999, &part) || ch - begin > 9)
            return false;
        for (; begin < ch; begin++)
            scale *= 10;
    }
    for (size_t n = 0; n < sizeof(units) / sizeof(units[0]); n++)
        if (strcmp(ch, units[n].unit) == 0) {
            unsigned __int128 ns =
                (unsigned __int128)whole * units[n].ns + part * units[n].ns / scale;
            *out = (int64_t)ns;
            return ns <= SIM_TIME_MAX;
        }
    return false;
}

static int duration(struct parser *p, const char *what, int64_t least, int64_t most, int64_t *out)
{
    const char *word = next_word(p);

    if (word == NULL)
        return wrong(p, "%s needs a duration, as 5ms", what);
    if (!parse_duration(word, out))
        return wrong(p, "%s is '%.40s', which is no duration (250ns 10us 1.5ms 2s)", what, word);
    if (*out < least || *out > most)
        return wrong(p, "%s is '%.40s', which is not within %lld to %lld ns", what, word,
                     (long long)least, (long long)most);
    return 0;
}

/* "0-3,7" */
static int affinity(struct parser *p, struct rbc_mask *out)
{
    const char *word = next_word(p), *ch = word;
    uint64_t first, last;

    if (word == NULL)
        return wrong(p, "on needs processors, as 0-3,7");
    memset(out, 0, sizeof(*out));
    do {
        if (!digits(&ch, RBC_CPUS_MAX - 1, &first))
            break;
        last = first;
        if (*ch == '-' && (ch++, !digits(&ch, RBC_CPUS_MAX - 1, &last)))
            break;
        if (last < first)
            break;
        for (uint64_t cpu = first; cpu <= last; cpu++)
            rbc_mask_set(out, (uint32_t)cpu);
        if (*ch == '\0')
            return 0;
    } while (*ch++ == ',');
    return wrong(p, "on is '%.40s', which are no processors (as 0-3,7)", word);
}

/* ---- domains */

static int behaviour(struct parser *p, struct sim_domain *d)
{
    int rc;

    d->offset = -1;
    if (accept(p, "hog")) {
        d->kind = SIM_HOG;
        return 0;
    }
    if (accept(p, "periodic")) {
        d->kind = SIM_PERIODIC;
        rc = duration(p, "periodic", SIM_LEAST, SIM_TIME_MAX, &d->every);
        if (rc == 0 && !accept(p, "work"))
            rc = wrong(p, "periodic D needs work D");
        if (rc == 0)
            rc = duration(p, "work", 1, SIM_TIME_MAX, &d->work);
        d->deadline = d->every;
        if (rc == 0 && accept(p, "deadline"))
            rc = duration(p, "deadline", 1, SIM_TIME_MAX, &d->deadline);
        if (rc == 0 && accept(p, "offset"))
            rc = duration(p, "offset", 0, SIM_TIME_MAX, &d->offset);
        return rc;
    }
    if (accept(p, "io")) {
        d->kind = SIM_IO;
        rc = duration(p, "io", SIM_LEAST, SIM_TIME_MAX / 64, &d->every);
        if (rc == 0 && !accept(p, "work"))
            rc = wrong(p, "io D needs work D");
        return rc ? rc : duration(p, "work", 1, SIM_TIME_MAX, &d->work);
    }
    if (accept(p, "burst")) {
        d->kind = SIM_BURST;
        rc = duration(p, "burst", SIM_LEAST, SIM_TIME_MAX / 64, &d->work);
        if (rc == 0 && !accept(p, "sleep"))
            rc = wrong(p, "burst D needs sleep D");
        return rc ? rc : duration(p, "sleep", SIM_LEAST, SIM_TIME_MAX / 64, &d->every);
    }
    if (p->at == p->words)
        return wrong(p, "a domain needs a behaviour: hog, periodic, io or burst");
    return wrong(p,
                 "'%.40s' is unknown; before the behaviour (hog periodic io burst) may be: x vcpus "
                 "weight cap rt on boot",
                 p->word[p->at]);
}

static int domain_options(struct parser *p, struct sim_domain *d)
{
    int rc = 0;

    while (rc == 0) {
        if (accept(p, "x"))
            rc = number32(p, "x", 1, SIM_VCPUS_MAX, &d->copies);
        else if (accept(p, "vcpus"))
            rc = number32(p, "vcpus", 1, SIM_VCPUS_MAX, &d->vcpus);
        else if (accept(p, "weight"))
            rc = number32(p, "weight", 1, RBC_WEIGHT_MAX, &d->weight);
        else if (accept(p, "cap"))
            rc = number32(p, "cap", 0, RBC_CAP_MAX, &d->cap);
        else if (accept(p, "rt"))
            d->rt = true;
        else if (accept(p, "on"))
            rc = affinity(p, &d->affinity);
        else if (accept(p, "boot"))
            rc = duration(p, "boot", 0, SIM_TIME_MAX, &d->boot);
        else
            return behaviour(p, d);
    }
    return rc;
}

static int domain(struct parser *p)
{
    struct sim_scenario *sc = p->sc;
    struct sim_domain d = {
        .copies = 1, .vcpus = 1, .weight = RBC_WEIGHT_DEFAULT, .affinity = rbc_mask_all()};
    const char *name = next_word(p);

    if (name == NULL)
        return wrong(p, "a domain needs a name");
    if (strlen(name) > SIM_NAME_MAX)
        return wrong(p, "a domain's name has more than %d letters", SIM_NAME_MAX);
    for (const char *ch = name; *ch; ch++)
        if (*ch <= ' ' || *ch > '~' || strchr("<>&'\"\\", *ch) != NULL)
            return wrong(p, "a domain's name has letters that cannot be drawn");
    strcpy(d.name, name);
    int rc = domain_options(p, &d);
    if (rc != 0)
        return rc;
    uint64_t vcpus = (uint64_t)d.copies * d.vcpus + sc->vcpus;
    if (sc->domains_n == SIM_LINES_MAX || vcpus > SIM_VCPUS_MAX)
        return wrong(p, "there are more than %d lines of domains, or %d vCPUs", SIM_LINES_MAX,
                     SIM_VCPUS_MAX);
    struct sim_domain *all = reallocarray(sc->domains, sc->domains_n + 1, sizeof(*all));
    if (all == NULL) {
        wrong(p, "out of memory");
        return -ENOMEM;
    }
    sc->domains = all;
    sc->domains[sc->domains_n++] = d;
    sc->vcpus = (uint32_t)vcpus;
    return 0;
}

/* ---- the rest */

struct setting {
    const char *name;
    size_t at; /* in struct sim_scenario, an int64_t */
    int64_t least, most;
};

#define AT(member) offsetof(struct sim_scenario, member)
static const struct setting settings[] = {
    {"time", AT(time), 1000000, SIM_TIME_MAX},
    {"warmup", AT(warmup), 0, SIM_TIME_MAX},
    {"switch", AT(switch_ns), 0, 1000000},
    {"migrate", AT(migrate_ns), 0, 1000000},
    {"kick", AT(kick_ns), 0, 1000000},
    {"path", AT(path_ns), 0, 100000000},
    {"tick", AT(set.tick_ns), 100000, 1000000000},
    {"period", AT(set.period_ns), 1000000, 1000000000},
    {"rt_slice", AT(set.rt_slice_ns), 100000, 1000000000},
    {"ratelimit", AT(set.ratelimit_ns), 0, 1000000000},
    {"hot", AT(set.hot_ns), 0, 1000000000},
};

static int setting(struct parser *p, const char *key)
{
    for (size_t n = 0; n < sizeof(settings) / sizeof(settings[0]); n++) {
        const struct setting *s = &settings[n];
        if (strcmp(key, s->name) != 0)
            continue;
        int64_t value = 0;
        int rc = duration(p, key, s->least, s->most, &value);
        if (rc == 0)
            memcpy((char *)p->sc + s->at, &value, sizeof(value));
        return rc;
    }
    return wrong(
        p,
        "'%.30s' is unknown; known are: processors domain time warmup switch migrate kick "
        "path seed policy gantt tick period rt_slice ratelimit hot guard_alone guard_shared "
        "rt_steal",
        key);
}

static int policy(struct parser *p)
{
    const char *word = next_word(p);

    if (word == NULL || sim_policy_parse(word, &p->sc->set.policy) != 0)
        return wrong(p, "policy is credit, r_credit or r_b_credit");
    return 0;
}

static int line(struct parser *p)
{
    struct sim_scenario *sc = p->sc;
    const char *key = next_word(p);
    int rc = 0;

    if (strcmp(key, "processors") == 0)
        rc = number32(p, key, 1, RBC_CPUS_MAX, &sc->processors);
    else if (strcmp(key, "seed") == 0)
        rc = number(p, key, 0, INT64_MAX, &sc->seed);
    else if (strcmp(key, "policy") == 0)
        rc = policy(p);
    else if (strcmp(key, "domain") == 0)
        rc = domain(p);
    else if (strcmp(key, "guard_alone") == 0)
        rc = number32(p, key, 1, 1000, &sc->set.guard_alone);
    else if (strcmp(key, "rt_steal") == 0)
        sc->set.rt_steal = true;
    else if (strcmp(key, "guard_shared") == 0)
        rc = number32(p, key, 1, 1000, &sc->set.guard_shared);
    else if (strcmp(key, "gantt") == 0) {
        p->gantt = true;
        rc = duration(p, "gantt's beginning", 0, SIM_TIME_MAX, &sc->gantt_from);
        if (rc == 0)
            rc = duration(p, "gantt's length", 1000, SIM_TIME_MAX, &sc->gantt_for);
    } else
        rc = setting(p, key);
    if (rc == 0 && p->at < p->words)
        return wrong(p, "'%.40s' is one word too many", p->word[p->at]);
    return rc;
}

/* Cuts the line, which it changes, into words. */
static int cut(struct parser *p, char *text)
{
    char *rest = text, *word;

    text[strcspn(text, "#")] = '\0';
    p->words = p->at = 0;
    while ((word = strsep(&rest, " \t\r")) != NULL) {
        if (*word == '\0')
            continue;
        if (p->words == WORDS_MAX)
            return wrong(p, "there are more than %d words", WORDS_MAX);
        p->word[p->words++] = word;
    }
    return 0;
}

/* What no line can see alone. */
static int whole(struct parser *p)
{
    struct sim_scenario *sc = p->sc;
    struct rbc_mask there = {{0}};

    if (sc->processors == 0)
        return wrong(p, "the scenario says no number of processors");
    if (sc->domains_n == 0)
        return wrong(p, "the scenario has no domain");
    if (sc->warmup >= sc->time)
        return wrong(p, "the warmup is as long as the whole time");
    if (sc->set.tick_ns > sc->set.period_ns || sc->set.ratelimit_ns > sc->set.period_ns)
        return wrong(p, "tick and ratelimit cannot be longer than the period");
    for (uint32_t cpu = 0; cpu < sc->processors; cpu++)
        rbc_mask_set(&there, cpu);
    for (size_t n = 0; n < sc->domains_n; n++) {
        struct rbc_mask may = rbc_mask_and(&there, &sc->domains[n].affinity);
        if (rbc_mask_empty(&may))
            return wrong(p, "domain %s may use none of the processors", sc->domains[n].name);
    }
    if (!p->gantt) {
        sc->gantt_from = sc->time / 2;
        sc->gantt_for = 100000000;
    }
    return 0;
}

int sim_parse(const char *text, size_t len, struct sim_scenario *sc, char why[SIM_WHY])
{
    struct parser p = {.sc = sc, .why = why, .line = 1};
    int rc = 0;

    *sc = (struct sim_scenario){.time = INT64_C(10000000000),
                                .switch_ns = 2000,
                                .migrate_ns = 10000,
                                .kick_ns = 1000,
                                .seed = 1,
                                .set = rbc_defaults(RBC_R_B_CREDIT)};
    why[0] = '\0';
    if (len > SIM_TEXT_MAX) {
        wrong(&p, "the scenario is longer than %u bytes", SIM_TEXT_MAX);
        return -EFBIG;
    }
    if (memchr(text, '\0', len) != NULL)
        return wrong(&p, "the scenario is no text");
    char *copy = malloc(len + 1), *rest = copy, *one;
    if (copy == NULL) {
        wrong(&p, "out of memory");
        return -ENOMEM;
    }
    memcpy(copy, text, len);
    copy[len] = '\0';
    for (; rc == 0 && (one = strsep(&rest, "\n")) != NULL; p.line++) {
        rc = cut(&p, one);
        if (rc == 0 && p.words > 0)
            rc = line(&p);
        if (rc != 0)
            break;
    }
    if (rc == 0)
        rc = whole(&p);
    free(copy);
    return rc;
}

void sim_scenario_free(struct sim_scenario *sc)
{
    free(sc->domains);
    sc->domains = NULL;
    sc->domains_n = 0;
}

static const char *const policies[] = {
    [RBC_CREDIT] = "credit", [RBC_R_CREDIT] = "r_credit", [RBC_R_B_CREDIT] = "r_b_credit"};

const char *sim_policy_name(enum rbc_policy policy)
{
    return policies[policy];
}

int sim_policy_parse(const char *word, enum rbc_policy *policy)
{
    for (unsigned n = 0; n < sizeof(policies) / sizeof(policies[0]); n++)
        if (strcmp(word, policies[n]) == 0) {
            *policy = (enum rbc_policy)n;
            return 0;
        }
    return -EINVAL;
}
