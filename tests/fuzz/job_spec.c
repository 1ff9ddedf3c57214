/* Specs of jobs: what is taken is within its bounds; what is refused has one printable line that
 * says why; and what is taken and written down anew is taken as the same. */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/job_spec.h"

#define must(what)                                                                                 \
    do {                                                                                           \
        if (!(what))                                                                               \
            abort();                                                                               \
    } while (0)

static void bounded(const struct job_spec *s)
{
    must(*s->command || s->script_len);
    must(strlen(s->script) == s->script_len && strlen(s->name) <= JOB_SPEC_NAME_MAX);
    must(s->workdir[0] == '/' && strlen(s->workdir) <= JOB_SPEC_PATH_MAX);
    must(s->milli_cpus >= JOB_SPEC_CPUS_MIN && s->milli_cpus <= JOB_SPEC_CPUS_MAX);
    must(s->memory >= JOB_SPEC_MEMORY_MIN && s->memory <= JOB_SPEC_MEMORY_MAX);
    must(s->time_s >= 1 && s->time_s <= JOB_SPEC_TIME_MAX);
    must(s->copies >= 1 && s->copies <= JOB_SPEC_COPIES_MAX);
    must(s->retries <= JOB_SPEC_RETRIES_MAX && abs(s->priority) <= JOB_SPEC_PRIORITY_MAX);
    must(s->array_first <= s->array_last && s->array_last <= JOB_SPEC_INDEX_MAX);
    must(job_spec_jobs(s) >= 1 && job_spec_jobs(s) <= JOB_SPEC_ARRAY_MAX);
    must(s->env_n <= JOB_SPEC_ENV_MAX && s->after_n <= JOB_SPEC_AFTER_MAX);
    for (size_t n = 0; n < s->env_n; n++)
        must(strchr(s->env[n], '=') && !strchr(s->env[n], '\n'));
    for (size_t n = 0; n < s->after_n; n++) {
        must(s->after[n].first >= 1 && s->after[n].first <= s->after[n].last);
        must(n == 0 || s->after[n - 1].last + 1 < s->after[n].first);
    }
}

static void put_text(FILE *f, const char *key, const char *value)
{
    must(!strchr(value, '\n') && !strchr(value, '\r'));
    if (*value)
        fprintf(f, "%s = %s\n", key, value);
}

static void put_together(const struct job_spec *s, FILE *f)
{
    put_text(f, "name", s->name);
    put_text(f, "command", s->command);
    put_text(f, "workdir", s->workdir);
    put_text(f, "input", s->input);
    put_text(f, "output", s->output);
    put_text(f, "error", s->error);
    put_text(f, "node", s->node);
    fprintf(f, "cpus = %u.%03u\n", s->milli_cpus / 1000, s->milli_cpus % 1000);
    fprintf(f, "memory = %" PRIu64 "\ntime = %us\ncopies = %u\n", s->memory, s->time_s, s->copies);
    fprintf(f, "retries = %u\npriority = %d\n", s->retries, s->priority);
    if (s->array)
        fprintf(f, "array = %u-%u\n", s->array_first, s->array_last);
    for (size_t n = 0; n < s->after_n; n++)
        fprintf(f, "after = %" PRIu64 "-%" PRIu64 "\n", s->after[n].first, s->after[n].last);
    for (size_t n = 0; n < s->env_n; n++)
        fprintf(f, "env = %s\n", s->env[n]);
    if (s->script_len)
        fprintf(f, "%%%%\n%s", s->script);
}

static void same(const struct job_spec *a, const struct job_spec *b)
{
    must(!strcmp(a->name, b->name) && !strcmp(a->command, b->command));
    must(!strcmp(a->workdir, b->workdir) && !strcmp(a->node, b->node));
    must(!strcmp(a->input, b->input) && !strcmp(a->output, b->output));
    must(!strcmp(a->error, b->error) && !strcmp(a->script, b->script));
    must(a->milli_cpus == b->milli_cpus && a->memory == b->memory && a->time_s == b->time_s);
    must(a->copies == b->copies && a->retries == b->retries && a->priority == b->priority);
    must(a->array == b->array && a->array_first == b->array_first);
    must(a->array_last == b->array_last && a->env_n == b->env_n && a->after_n == b->after_n);
    for (size_t n = 0; n < a->env_n; n++)
        must(!strcmp(a->env[n], b->env[n]));
    for (size_t n = 0; n < a->after_n; n++)
        must(a->after[n].first == b->after[n].first && a->after[n].last == b->after[n].last);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[JOB_SPEC_WHY], *text = NULL;
    struct job_spec s, again;
    size_t len = 0;
    int rc = job_spec_parse(data, size, &s, why);

    if (rc != 0) {
        must(memchr(why, '\0', sizeof(why)) && why[0] && !s.own);
        for (const char *ch = why; *ch; ch++)
            must(*ch >= ' ' && *ch <= '~');
        return 0;
    }
    bounded(&s);
    FILE *f = open_memstream(&text, &len);
    must(f);
    put_together(&s, f);
    must(fclose(f) == 0);
    rc = job_spec_parse(text, len, &again, why);
    /* Written in full it may be longer than a text can be. */
    must(rc == 0 || (rc == -EFBIG && len > JOB_SPEC_MAX));
    if (rc == 0)
        same(&s, &again);
    job_spec_free(&again);
    job_spec_free(&s);
    free(text);
    return 0;
}
