#include "control/job_spec.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/job_spec_private.h"
#include "control/wire/words.h"

struct own {
    const char **env;
    struct job_range *after;
    char text[]; /* with a NUL */
};

static const struct key {
    const char *name;
    job_spec_take *take;
    bool often;
} keys[] = {
    {"name", job_spec_take_name, false},
    {"command", job_spec_take_command, false},
    {"workdir", job_spec_take_workdir, false},
    {"cpus", job_spec_take_cpus, false},
    {"memory", job_spec_take_memory, false},
    {"time", job_spec_take_time, false},
    {"reliability", job_spec_take_reliability, false},
    {"copies", job_spec_take_copies, false},
    {"after", job_spec_take_after, true},
    {"retries", job_spec_take_retries, false},
    {"env", job_spec_take_env, true},
    {"input", job_spec_take_input, true},
    {"output", job_spec_take_output, false},
    {"error", job_spec_take_error, false},
    {"node", job_spec_take_node, false},
    {"image", job_spec_take_image, false},
    {"array", job_spec_take_array, false},
    {"priority", job_spec_take_priority, false},
};
#define KEYS (sizeof(keys) / sizeof(keys[0]))

int job_spec_refuse(struct job_spec_parse *p, const char *format, ...)
{
    size_t at = 0;
    va_list args;

    if (p->line)
        at = (size_t)snprintf(p->why, JOB_SPEC_WHY, "line %u: ", p->line);
    if (p->key)
        at += (size_t)snprintf(p->why + at, JOB_SPEC_WHY - at, "%s: ", p->key);
    va_start(args, format);
    vsnprintf(p->why + at, JOB_SPEC_WHY - at, format, args);
    va_end(args);
    return -EINVAL;
}

const char *job_spec_show(const char *word, char buf[JOB_SPEC_SHOWN])
{
    size_t n = 0;

    for (; word[n] && n < JOB_SPEC_SHOWN - 4; n++)
        buf[n] = word[n] >= ' ' && word[n] <= '~' ? word[n] : '?';
    strcpy(buf + n, word[n] ? "..." : "");
    return buf;
}

static bool space(char ch)
{
    return ch == ' ' || ch == '\t';
}

/* Cuts white space off both ends of [s, end). */
static char *trim(char *s, char *end)
{
    while (s < end && space(*s))
        s++;
    while (end > s && space(end[-1]))
        end--;
    *end = '\0';
    return s;
}

/* The key that was meant, or NULL: "mem" is nearer to "name" by letters, but begins "memory". */
static const char *nearest(const char *word)
{
    char lower[WORDS_MAX + 1];
    const char *best = NULL;
    size_t len = 0;

    for (; word[len] && len < WORDS_MAX; len++)
        lower[len] = (char)tolower((unsigned char)word[len]);
    lower[len] = '\0';
    for (size_t k = 0; k < KEYS; k++)
        words_nearer(lower, keys[k].name, &best);
    for (size_t k = 0; k < KEYS && len > 1; k++)
        if (strncmp(keys[k].name, lower, len) == 0)
            best = keys[k].name;
    return words_near_enough(lower, best) ? best : NULL;
}

static int unknown(struct job_spec_parse *p, const char *word)
{
    const char *best = nearest(word);
    char shown[JOB_SPEC_SHOWN];

    job_spec_show(word, shown);
    if (best)
        return job_spec_refuse(p, "unknown key '%s': did you mean '%s'?", shown, best);
    return job_spec_refuse(p,
                           "unknown key '%s': known are name, command, workdir, cpus, memory, "
                           "time, reliability, copies, after, retries, env, input, output, error, "
                           "node, array, priority",
                           shown);
}

static int take_key(struct job_spec_parse *p, unsigned seen[KEYS], const char *word, char *value)
{
    size_t k = 0;

    while (k < KEYS && strcmp(keys[k].name, word) != 0)
        k++;
    if (k == KEYS)
        return unknown(p, word);
    p->key = keys[k].name;
    if (seen[k] && !keys[k].often)
        return job_spec_refuse(p, "given already in line %u: leave one out", seen[k]);
    seen[k] = p->line;
    if (!*value)
        return job_spec_refuse(p, "there is no value: give one, or leave the line out");
    for (const char *ch = value; *ch; ch++)
        if (((unsigned char)*ch < ' ' && *ch != '\t') || *ch == 0x7f)
            return job_spec_refuse(p, "there is a control character (byte %u) in the value",
                                   (unsigned char)*ch);
    return keys[k].take(p, value);
}

static int take_line(struct job_spec_parse *p, unsigned seen[KEYS], char *line, char *end)
{
    char shown[JOB_SPEC_SHOWN];

    p->key = NULL;
    line = trim(line, end);
    if (!*line || *line == '#')
        return 0;
    char *equals = strchr(line, '=');
    if (!equals || equals == line)
        return job_spec_refuse(p, "'%s' is no line 'key = value' (a script follows a line '%%%%')",
                               job_spec_show(line, shown));
    char *value = trim(equals + 1, equals + strlen(equals));
    return take_key(p, seen, trim(line, equals), value);
}

/* Returns the new length. */
static size_t without_cr(char *s, size_t len)
{
    size_t to = 0;

    for (size_t n = 0; n < len; n++)
        if (s[n] != '\r' || s[n + 1] != '\n')
            s[to++] = s[n];
    s[to] = '\0';
    return to;
}

static int take_script(struct job_spec_parse *p, char *s, char *end, bool cr)
{
    size_t len = (size_t)(end - s);

    p->key = NULL;
    if (cr)
        len = without_cr(s, len);
    if (strspn(s, " \t\r\n") == len)
        return job_spec_refuse(p, "there is no script behind '%%%%'");
    p->spec->script = s;
    p->spec->script_len = len;
    return 0;
}

static int take_text(struct job_spec_parse *p, char *at, char *end)
{
    unsigned seen[KEYS] = {0};
    int rc = 0;

    if (end - at >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0) /* as some editors begin a text */
        at += 3;
    while (rc == 0 && at < end) {
        char *lf = memchr(at, '\n', (size_t)(end - at));
        char *next = lf ? lf + 1 : end;
        char *stop = lf ? lf : end;
        bool cr = lf && stop > at && stop[-1] == '\r';
        if (cr)
            stop--;
        p->line++;
        /* Looked at before trim(), which ends the line. */
        char *last = stop;
        while (last > at && space(last[-1]))
            last--;
        if (last - at == 2 && memcmp(at, "%%", 2) == 0)
            return take_script(p, next, end, cr);
        rc = take_line(p, seen, at, stop);
        at = next;
    }
    return rc;
}

static int check_whole(struct job_spec_parse *p)
{
    struct job_spec *s = p->spec;

    p->line = 0;
    p->key = NULL;
    if (!*s->command && !s->script_len)
        return job_spec_refuse(
            p, "there is nothing to run: give 'command = ...', or a script after a line '%%%%'");
    if (p->normal && s->copies > 1)
        return job_spec_refuse(p, "reliability = normal is one copy: leave out copies, or this");
    if (p->high && s->copies && s->copies < JOB_SPEC_COPIES_HIGH)
        return job_spec_refuse(p, "reliability = high needs copies of %u or more, or none given",
                               JOB_SPEC_COPIES_HIGH);
    if (!s->copies)
        s->copies = p->high ? JOB_SPEC_COPIES_HIGH : 1;
    if (*s->node && s->copies > 1)
        return job_spec_refuse(p, "copies run on different nodes: leave out node, or copies");
    return job_spec_check_files(p);
}

static void defaults(struct job_spec *s)
{
    *s = (struct job_spec){.name = "",
                           .command = "",
                           .workdir = "/",
                           .input = "",
                           .output = "",
                           .error = "",
                           .node = "",
                           .script = "",
                           .memory = 256u << 20,
                           .milli_cpus = 1000,
                           .time_s = 24 * 3600};
}

static int text_allowed(struct job_spec_parse *p, const char *text, size_t len)
{
    const char *nul = memchr(text, '\0', len);

    if (!nul)
        return 0;
    p->line = 1;
    for (const char *ch = text; ch < nul; ch++)
        p->line += *ch == '\n';
    return job_spec_refuse(p, "there is a NUL byte: a spec is plain text");
}

int job_spec_parse(const void *text, size_t len, struct job_spec *spec, char why[JOB_SPEC_WHY])
{
    struct job_spec_parse p = {.spec = spec, .why = why};
    struct own *own = NULL;
    int rc;

    why[0] = '\0';
    defaults(spec);
    if (len > JOB_SPEC_MAX) {
        job_spec_refuse(&p, "the spec is longer than 1 MiB: put the data into a file of the cloud");
        return -EFBIG;
    }
    rc = text_allowed(&p, text, len);
    if (rc != 0)
        return rc;
    own = calloc(1, sizeof(*own) + len + 1);
    if (!own) {
        job_spec_refuse(&p, "out of memory");
        return -ENOMEM;
    }
    if (len)
        memcpy(own->text, text, len);
    rc = take_text(&p, own->text, own->text + len);
    if (rc == 0)
        rc = check_whole(&p);
    own->env = p.env;
    own->after = p.after;
    spec->env = p.env;
    spec->after = p.after;
    spec->own = own;
    if (rc != 0)
        job_spec_free(spec);
    return rc;
}

void job_spec_free(struct job_spec *spec)
{
    struct own *own = spec->own;

    if (own) {
        free(own->env);
        free(own->after);
        free(own);
    }
    *spec = (struct job_spec){0};
}

uint32_t job_spec_jobs(const struct job_spec *spec)
{
    return spec->array_last - spec->array_first + 1;
}

int job_spec_check_after(const struct job_spec *spec, uint64_t next, char why[JOB_SPEC_WHY])
{
    struct job_spec_parse p = {.why = why, .key = "after"};

    if (!spec->after_n || spec->after[spec->after_n - 1].last < next)
        return 0;
    p.line = spec->after[spec->after_n - 1].line;
    return job_spec_refuse(
        &p, "there is no job %" PRIu64 " yet: name jobs that were submitted before this one",
        spec->after[spec->after_n - 1].last);
}
