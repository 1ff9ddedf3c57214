#include "control/events.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/clock.h"

void events_add(struct events *e, const char *kind, const char *format, ...)
{
    char line[EVENT_LINE_MAX];
    struct timespec now = clock_real();
    struct tm tm;
    va_list ap;

    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ %s ", now.tv_nsec / 1000000, kind);
    va_start(ap, format);
    vsnprintf(line + n, sizeof(line) - n, format, ap);
    va_end(ap);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            *p = '?';
    if (e->limit == 0 && events_limit(e, EVENTS_DEFAULT) < 0)
        return;
    char *copy = strdup(line);
    if (!copy)
        return;
    char **slot = &e->line[e->next++ % e->limit];
    free(*slot);
    *slot = copy;
    if (e->next - e->first > e->limit)
        e->first = e->next - e->limit;
}

int events_limit(struct events *e, uint64_t limit)
{
    char **fresh;

    if (limit == e->limit || limit == 0)
        return 0;
    fresh = calloc(limit, sizeof(*fresh));
    if (!fresh)
        return -ENOMEM;
    for (; e->next - e->first > limit; e->first++)
        free(e->line[e->first % e->limit]);
    for (uint64_t i = e->first; i < e->next; i++)
        fresh[i % limit] = e->line[i % e->limit];
    free(e->line);
    e->line = fresh;
    e->limit = limit;
    return 0;
}

char *events_text(const struct events *e, size_t max, size_t *len)
{
    uint64_t from = e->next;
    size_t size = 0, n = 0;

    for (; from > e->first; from--) {
        size_t line = strlen(e->line[(from - 1) % e->limit]) + 1;
        if (line > max - size)
            break;
        size += line;
    }
    char *text = malloc(size + 1);
    if (!text)
        return NULL;
    for (uint64_t i = from; i < e->next; i++) {
        n = (size_t)(stpcpy(text + n, e->line[i % e->limit]) - text);
        text[n++] = '\n';
    }
    text[n] = '\0';
    *len = n;
    return text;
}

void events_free(struct events *e)
{
    for (uint64_t i = e->first; i < e->next; i++)
        free(e->line[i % e->limit]);
    free(e->line);
    memset(e, 0, sizeof(*e));
}
