/* Names of a job's files: what stands behind `%` in them, and whether two jobs would write one. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/job_spec_private.h"

/* Digits of the largest job number. */
#define NUMBER_MAX 20

/* "%a" or "%3a" at `at`: its length; 0: none, or "%%". */
static size_t directive(const char *at, char *what, int *width)
{
    size_t n = 1;

    *width = 0;
    if (at[0] != '%')
        return 0;
    if (at[n] >= '1' && at[n] <= '9')
        *width = at[n++] - '0';
    *what = at[n];
    return at[n] && strchr("aAjc", at[n]) ? n + 1 : 0;
}

static bool names(const char *path, const char *any)
{
    char what;
    int width;

    for (size_t n; *path; path += n) {
        n = directive(path, &what, &width);
        if (n && strchr(any, what))
            return true;
        n = n ? n : path[0] == '%' ? 2 : 1;
    }
    return false;
}

int job_spec_check_file(struct job_spec_parse *p, const char *path)
{
    char what, word[4] = "", shown[JOB_SPEC_SHOWN];
    size_t longest = 0, n;
    int width;

    for (; *path; path += n) {
        n = directive(path, &what, &width);
        longest += n ? NUMBER_MAX : 1;
        if (!n && path[0] == '%' && path[1] != '%') {
            strncat(word, path, sizeof(word) - 1);
            return job_spec_refuse(p,
                                   "'%s' is not known: %%a is the array's index, %%j the job's "
                                   "number, %%A the array's first, %%c the copy's; %%%% is a "
                                   "percent sign",
                                   job_spec_show(word, shown));
        }
        n = n ? n : path[0] == '%' ? 2 : 1;
    }
    if (longest > JOB_SPEC_PATH_MAX)
        return job_spec_refuse(p, "the path is longer than %d bytes", JOB_SPEC_PATH_MAX);
    return 0;
}

void job_spec_file(const char *path, const struct job_spec_member *m,
                   char out[JOB_SPEC_PATH_MAX + 1])
{
    size_t at = 0, n;
    char what;
    int width;

    for (; *path && at < JOB_SPEC_PATH_MAX; path += n) {
        n = directive(path, &what, &width);
        if (n) {
            uint64_t number = what == 'a'   ? m->index
                              : what == 'j' ? m->job
                              : what == 'A' ? m->first
                                            : m->copy;
            at +=
                (size_t)snprintf(out + at, JOB_SPEC_PATH_MAX + 1 - at, "%0*" PRIu64, width, number);
        } else {
            out[at++] = *path;
            n = path[0] == '%' ? 2 : 1;
        }
    }
    out[at < JOB_SPEC_PATH_MAX ? at : JOB_SPEC_PATH_MAX] = '\0';
}

int job_spec_path(const char *workdir, const char *path, char out[JOB_SPEC_PATH_MAX + 1])
{
    const char *const parts[] = {path[0] == '/' ? "" : workdir, path};
    size_t at = 0;

    for (size_t k = 0; k < 2; k++)
        for (const char *from = parts[k]; *from;) {
            from += strspn(from, "/");
            size_t n = strcspn(from, "/");
            if (n > 0 && !(n == 1 && *from == '.')) {
                if (at + 1 + n > JOB_SPEC_PATH_MAX)
                    return -ENAMETOOLONG;
                out[at++] = '/';
                memcpy(out + at, from, n);
                at += n;
            }
            from += n;
        }
    if (at == 0)
        out[at++] = '/';
    out[at] = '\0';
    return 0;
}

/* ---- whether two jobs would write the same file */

static bool digit_or_directive(const char *at)
{
    char what;
    int width;

    return (*at >= '0' && *at <= '9') || directive(at, &what, &width);
}

enum answer { NO, YES, DOUBTFUL };

/* By what they begin with: numbers that are named alike in both, with an end that can be seen, are
 * equal, and what has all its numbers equal is the same job. */
static enum answer clash_from_front(const char *a, const char *b)
{
    char what;
    int width;

    for (;;) {
        size_t n = directive(a, &what, &width), m = directive(b, &what, &width);
        if (n && m) {
            if (n != m || memcmp(a, b, n) != 0 || digit_or_directive(a + n) ||
                digit_or_directive(b + m))
                return DOUBTFUL;
        } else if (n || m) {
            return digit_or_directive(n ? b : a) ? DOUBTFUL : NO;
        } else if (*a != *b || !*a) {
            return NO;
        } else {
            n = m = a[0] == '%' ? 2 : 1; /* a doubled one in both */
        }
        a += n;
        b += m;
    }
}

/* What follows the last number. */
static const char *tail(const char *path)
{
    const char *end = path;
    char what;
    int width;

    for (size_t n; *path; path += n) {
        n = directive(path, &what, &width);
        if (n)
            end = path + n;
        n = n ? n : path[0] == '%' ? 2 : 1;
    }
    return end;
}

static enum answer clash_from_behind(const char *a, const char *b)
{
    const char *x = tail(a), *y = tail(b);
    size_t n = strlen(x), m = strlen(y), both = n < m ? n : m;

    if (memcmp(x + n - both, y + m - both, both) != 0)
        return NO;
    if (n == m)
        return YES;
    char before = n > m ? x[n - both - 1] : y[m - both - 1];
    return before >= '0' && before <= '9' ? YES : NO;
}

static int check_distinct(struct job_spec_parse *p, const char *key, const char *path)
{
    const struct job_spec *s = p->spec;

    p->key = key;
    if (!*path)
        return 0;
    if (!s->array && names(path, "a"))
        return job_spec_refuse(p, "%%a is an array's index, and there is no array");
    if (strcmp(key, "input") == 0)
        return 0;
    if (s->array_last > s->array_first && !names(path, "aj"))
        return job_spec_refuse(p,
                               "all %u jobs of the array would write the same file: put %%a (the "
                               "index) or %%j (the job's number) into its name",
                               s->array_last - s->array_first + 1);
    if (s->copies > 1 && !names(path, "c"))
        return job_spec_refuse(p,
                               "all %u copies would write the same file: put %%c (the copy's "
                               "number) into its name, or leave it out (stdout is the winner's)",
                               s->copies);
    return 0;
}

/* Two keys, and more than one job that has them. */
static int check_apart(struct job_spec_parse *p)
{
    char a[JOB_SPEC_PATH_MAX + 1], b[JOB_SPEC_PATH_MAX + 1];
    const struct job_spec *s = p->spec;

    p->key = "error";
    if (!*s->output || !*s->error || (s->array_last == s->array_first && s->copies == 1))
        return 0;
    if (job_spec_path(s->workdir, s->output, a) < 0 || job_spec_path(s->workdir, s->error, b) < 0)
        return 0; /* no such path can be opened */
    if (clash_from_front(a, b) != DOUBTFUL || clash_from_behind(a, b) == NO)
        return 0;
    return job_spec_refuse(p, "one job's error and another's output could be the same file: let "
                              "the names begin or end differently");
}

int job_spec_check_files(struct job_spec_parse *p)
{
    int rc = 0;

    for (size_t n = 0; rc == 0 && n < p->spec->inputs_n; n++)
        rc = check_distinct(p, "input", p->spec->inputs[n]);
    if (rc == 0)
        rc = check_distinct(p, "output", p->spec->output);
    if (rc == 0)
        rc = check_distinct(p, "error", p->spec->error);
    if (rc == 0)
        rc = check_apart(p);
    return rc;
}
