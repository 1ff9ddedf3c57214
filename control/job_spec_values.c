#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/job_spec_private.h"
#include "control/wire/identity.h"

static bool digit(char ch)
{
    return ch >= '0' && ch <= '9';
}

/* Reads digits at *s and moves it behind them; UINT64_MAX if they are too many. false: none. */
static bool number(const char **s, uint64_t *n)
{
    const char *at = *s;
    bool over = false;

    *n = 0;
    for (; digit(*at); at++)
        over |= __builtin_mul_overflow(*n, 10, n) || __builtin_add_overflow(*n, *at - '0', n);
    if (over)
        *n = UINT64_MAX;
    bool any = at > *s;
    *s = at;
    return any;
}

/* Times `unit`, UINT64_MAX if that is too much. */
static uint64_t times(uint64_t n, uint64_t unit)
{
    uint64_t product;

    return __builtin_mul_overflow(n, unit, &product) ? UINT64_MAX : product;
}

static int whole(struct job_spec_parse *p, const char *value, uint32_t least, uint32_t most,
                 uint32_t *out)
{
    char shown[JOB_SPEC_SHOWN];
    const char *at = value;
    uint64_t n;

    if (!number(&at, &n) || *at)
        return job_spec_refuse(p, "'%s' is no whole number: give one from %u to %u",
                               job_spec_show(value, shown), least, most);
    if (n < least || n > most)
        return job_spec_refuse(p, "%s is out of bounds: give a number from %u to %u",
                               job_spec_show(value, shown), least, most);
    *out = (uint32_t)n;
    return 0;
}

int job_spec_take_name(struct job_spec_parse *p, char *value)
{
    if (strlen(value) > JOB_SPEC_NAME_MAX)
        return job_spec_refuse(p, "longer than %d characters", JOB_SPEC_NAME_MAX);
    for (const char *ch = value; *ch; ch++)
        if (*ch < ' ' || *ch > '~')
            return job_spec_refuse(p, "only printable ASCII characters can be in it");
    p->spec->name = value;
    return 0;
}

static int argument(struct job_spec_parse *p, const char *value)
{
    if (strlen(value) > JOB_SPEC_ARG_MAX)
        return job_spec_refuse(p, "longer than %d bytes: put it into a script after a line '%%%%'",
                               JOB_SPEC_ARG_MAX);
    return 0;
}

int job_spec_take_command(struct job_spec_parse *p, char *value)
{
    p->spec->command = value;
    return argument(p, value);
}

static int path(struct job_spec_parse *p, const char *value, const char **out)
{
    size_t name;

    if (strlen(value) > JOB_SPEC_PATH_MAX)
        return job_spec_refuse(p, "the path is longer than %d bytes", JOB_SPEC_PATH_MAX);
    for (const char *at = value; *at; at += name) {
        at += strspn(at, "/");
        name = strcspn(at, "/");
        if (name == 2 && memcmp(at, "..", 2) == 0)
            return job_spec_refuse(p, "'..' cannot be in it: give the path from the cloud's root");
    }
    *out = value;
    return 0;
}

int job_spec_take_workdir(struct job_spec_parse *p, char *value)
{
    char shown[JOB_SPEC_SHOWN];

    if (*value != '/')
        return job_spec_refuse(p,
                               "'%s' does not begin with '/': give the path from the cloud's root",
                               job_spec_show(value, shown));
    return path(p, value, &p->spec->workdir);
}

static int file(struct job_spec_parse *p, const char *value, const char **out)
{
    if (value[strlen(value) - 1] == '/')
        return job_spec_refuse(p,
                               "a file is wanted, and that is a directory: leave out the last '/'");
    int rc = path(p, value, out);
    return rc == 0 ? job_spec_check_file(p, value) : rc;
}

int job_spec_take_input(struct job_spec_parse *p, char *value)
{
    struct job_spec *s = p->spec;

    if (s->inputs_n == JOB_SPEC_INPUTS_MAX)
        return job_spec_refuse(p, "more than %d: name the largest", JOB_SPEC_INPUTS_MAX);
    int rc = file(p, value, &s->inputs[s->inputs_n]);
    if (rc == 0 && s->inputs_n++ == 0)
        s->input = value;
    return rc;
}

int job_spec_take_output(struct job_spec_parse *p, char *value)
{
    return file(p, value, &p->spec->output);
}

int job_spec_take_error(struct job_spec_parse *p, char *value)
{
    return file(p, value, &p->spec->error);
}

int job_spec_take_cpus(struct job_spec_parse *p, char *value)
{
    char shown[JOB_SPEC_SHOWN];
    const char *at = value;
    uint64_t units, fraction = 0, scale = 1000;
    bool good = number(&at, &units);

    if (good && *at == '.') {
        good = digit(*++at);
        for (; digit(*at) && scale > 1; at++) {
            scale /= 10;
            fraction += (uint64_t)(*at - '0') * scale;
        }
    }
    if (!good || *at)
        return job_spec_refuse(p, "'%s' is no number of processors: write 2, 0.5 or 1.125",
                               job_spec_show(value, shown));
    uint64_t milli = times(units, 1000);
    if (milli <= JOB_SPEC_CPUS_MAX)
        milli += fraction;
    if (milli < JOB_SPEC_CPUS_MIN || milli > JOB_SPEC_CPUS_MAX)
        return job_spec_refuse(p, "%s is out of bounds: give 0.001 to %u",
                               job_spec_show(value, shown), JOB_SPEC_CPUS_MAX / 1000);
    p->spec->milli_cpus = (uint32_t)milli;
    return 0;
}

int job_spec_take_memory(struct job_spec_parse *p, char *value)
{
    static const char units[] = "kmgtKMGT";
    char shown[JOB_SPEC_SHOWN];
    const char *at = value;
    uint64_t n;
    bool good = number(&at, &n);
    const char *unit = *at ? strchr(units, *at) : NULL;

    if (unit) {
        n = times(n, 1ull << (10 * ((unit - units) % 4 + 1)));
        at += at[1] == 'i' ? 2 : 1;
    }
    if (*at == 'B')
        at++;
    if (!good || *at)
        return job_spec_refuse(p, "'%s' is no size: write 512M or 2G, or bytes without a unit",
                               job_spec_show(value, shown));
    if (n < JOB_SPEC_MEMORY_MIN || n > JOB_SPEC_MEMORY_MAX)
        return job_spec_refuse(p, "%s is out of bounds: give 4M to 1024T",
                               job_spec_show(value, shown));
    p->spec->memory = n;
    return 0;
}

int job_spec_take_time(struct job_spec_parse *p, char *value)
{
    static const struct {
        char name;
        uint32_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 24 * 3600}};
    char shown[JOB_SPEC_SHOWN];
    const char *at = value;
    uint64_t n;
    bool good = number(&at, &n);

    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++)
        if (*at == units[u].name) {
            n = times(n, units[u].seconds);
            at++;
            break;
        }
    if (!good || *at)
        return job_spec_refuse(p, "'%s' is no time: write 90 (seconds), 30s, 10m, 2h or 1d",
                               job_spec_show(value, shown));
    if (n < 1 || n > JOB_SPEC_TIME_MAX)
        return job_spec_refuse(p, "%s is out of bounds: give 1s to 30d",
                               job_spec_show(value, shown));
    p->spec->time_s = (uint32_t)n;
    return 0;
}

int job_spec_take_reliability(struct job_spec_parse *p, char *value)
{
    char shown[JOB_SPEC_SHOWN];

    p->high = strcmp(value, "high") == 0;
    p->normal = strcmp(value, "normal") == 0;
    if (!p->high && !p->normal)
        return job_spec_refuse(p, "'%s' is neither normal nor high", job_spec_show(value, shown));
    return 0;
}

int job_spec_take_copies(struct job_spec_parse *p, char *value)
{
    return whole(p, value, 1, JOB_SPEC_COPIES_MAX, &p->spec->copies);
}

int job_spec_take_retries(struct job_spec_parse *p, char *value)
{
    return whole(p, value, 0, JOB_SPEC_RETRIES_MAX, &p->spec->retries);
}

int job_spec_take_priority(struct job_spec_parse *p, char *value)
{
    char shown[JOB_SPEC_SHOWN];
    const char *at = value + (*value == '-' || *value == '+');
    uint64_t n;
    bool good = number(&at, &n) && !*at;

    if (!good || n > JOB_SPEC_PRIORITY_MAX)
        return job_spec_refuse(p, "'%s' is no priority: give a whole number from -%d to %d",
                               job_spec_show(value, shown), JOB_SPEC_PRIORITY_MAX,
                               JOB_SPEC_PRIORITY_MAX);
    p->spec->priority = *value == '-' ? -(int32_t)n : (int32_t)n;
    return 0;
}

/* Room for one more in an array that doubles. */
static int grow(struct job_spec_parse *p, void *array, size_t n, size_t each)
{
    void **at = array;

    if (n & (n - 1))
        return 0;
    void *more = reallocarray(*at, n ? 2 * n : 1, each);
    if (!more) {
        job_spec_refuse(p, "out of memory");
        return -ENOMEM;
    }
    *at = more;
    return 0;
}

/* "57" or "57-99" at *s, which moves behind it. */
static bool range(const char **s, uint64_t *first, uint64_t *last)
{
    if (!number(s, first))
        return false;
    *last = *first;
    if (**s != '-')
        return true;
    ++*s;
    return number(s, last);
}

int job_spec_take_array(struct job_spec_parse *p, char *value)
{
    char shown[JOB_SPEC_SHOWN];
    const char *at = value;
    uint64_t first, last;

    if (!range(&at, &first, &last) || *at)
        return job_spec_refuse(p, "'%s' is no array: write 100 (jobs, from 0 on) or 1-100",
                               job_spec_show(value, shown));
    if (!strchr(value, '-')) {
        if (!first)
            return job_spec_refuse(p, "an array of no jobs: give 1 or more");
        last = first - 1;
        first = 0;
    }
    if (last < first)
        return job_spec_refuse(p, "%s is upside down: the first index comes first",
                               job_spec_show(value, shown));
    if (last > JOB_SPEC_INDEX_MAX || last - first >= JOB_SPEC_ARRAY_MAX)
        return job_spec_refuse(p, "%s is too much: at most %u jobs, and no index beyond %u",
                               job_spec_show(value, shown), JOB_SPEC_ARRAY_MAX, JOB_SPEC_INDEX_MAX);
    p->spec->array = true;
    p->spec->array_first = (uint32_t)first;
    p->spec->array_last = (uint32_t)last;
    return 0;
}

/* Puts the range to its place, and what it touches into it. */
static int put_range(struct job_spec_parse *p, struct job_range r)
{
    size_t n = p->spec->after_n, at = 0, end;
    int rc = grow(p, &p->after, n, sizeof(*p->after));

    if (rc != 0)
        return rc;
    while (at < n && p->after[at].last < r.first - 1)
        at++;
    for (end = at; end < n && p->after[end].first <= r.last + 1; end++) {
        if (p->after[end].first < r.first)
            r.first = p->after[end].first;
        if (p->after[end].last >= r.last) {
            r.last = p->after[end].last;
            r.line = p->after[end].line;
        }
    }
    memmove(p->after + at + 1, p->after + end, (n - end) * sizeof(*p->after));
    p->after[at] = r;
    p->spec->after_n = n - (end - at) + 1;
    return 0;
}

static uint64_t after_jobs(const struct job_spec_parse *p)
{
    uint64_t jobs = 0;

    for (size_t n = 0; n < p->spec->after_n; n++)
        jobs += p->after[n].last - p->after[n].first + 1;
    return jobs;
}

int job_spec_take_after(struct job_spec_parse *p, char *value)
{
    char shown[JOB_SPEC_SHOWN];
    const char *at = value;
    int rc = 0;

    while (rc == 0 && *at) {
        const char *word = at;
        struct job_range r = {.line = p->line};
        size_t gap;
        bool good = range(&at, &r.first, &r.last);
        gap = strspn(at, " \t,");
        if (!good || (*at && !gap))
            return job_spec_refuse(p, "'%s' is no number of a job: write 42 or 42 57-99",
                                   job_spec_show(word, shown));
        if (r.first < 1 || r.last < r.first || r.last - r.first >= JOB_SPEC_AFTER_JOBS ||
            r.last == UINT64_MAX)
            return job_spec_refuse(p,
                                   "'%s': numbers of jobs begin with 1, the lower comes first, and "
                                   "there are at most %d in all",
                                   job_spec_show(word, shown), JOB_SPEC_AFTER_JOBS);
        at += gap;
        if (++p->ranges > JOB_SPEC_AFTER_MAX)
            return job_spec_refuse(p, "more than %d: write neighbours as one, 57-99",
                                   JOB_SPEC_AFTER_MAX);
        rc = put_range(p, r);
        if (rc == 0 && after_jobs(p) > JOB_SPEC_AFTER_JOBS)
            return job_spec_refuse(p, "more than %d jobs in all", JOB_SPEC_AFTER_JOBS);
    }
    return rc;
}

/* Length of the variable's name, or 0 if it is none. */
static size_t variable(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789");

    return digit(*s) || s[n] != '=' ? 0 : n;
}

int job_spec_take_env(struct job_spec_parse *p, char *value)
{
    char shown[JOB_SPEC_SHOWN];
    struct job_spec *s = p->spec;
    size_t name = variable(value);
    int rc;

    if (!name)
        return job_spec_refuse(p, "'%s' is no NAME=VALUE (letters, digits and '_' in NAME)",
                               job_spec_show(value, shown));
    if (strncmp(value, "UMBEL_", 6) == 0)
        return job_spec_refuse(p, "'%s': names that begin with UMBEL_ are Umbel's own",
                               job_spec_show(value, shown));
    rc = argument(p, value);
    if (rc != 0)
        return rc;
    if (s->env_n == JOB_SPEC_ENV_MAX)
        return job_spec_refuse(p, "more than %d variables: set them in a script", JOB_SPEC_ENV_MAX);
    for (size_t n = 0; n < s->env_n; n++)
        if (strncmp(p->env[n], value, name + 1) == 0)
            return job_spec_refuse(p, "'%s': that variable is set already",
                                   job_spec_show(value, shown));
    rc = grow(p, &p->env, s->env_n, sizeof(*p->env));
    if (rc == 0)
        p->env[s->env_n++] = value;
    return rc;
}

int job_spec_take_node(struct job_spec_parse *p, char *value)
{
    char shown[JOB_SPEC_SHOWN];

    if (!identity_name_ok(value))
        return job_spec_refuse(p, "'%s' can be no node's name: see .umbel/nodes",
                               job_spec_show(value, shown));
    p->spec->node = value;
    return 0;
}

int job_spec_take_image(struct job_spec_parse *p, char *value)
{
    (void)value;
    job_spec_refuse(p, "not available yet: leave the line out");
    return -EOPNOTSUPP;
}
