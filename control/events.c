#include "control/events.h"

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
    char *copy = strdup(line);
    if (!copy)
        return;
    char **slot = &e->line[e->next++ % EVENTS_MAX];
    free(*slot);
    *slot = copy;
    if (e->next - e->first > EVENTS_MAX)
        e->first = e->next - EVENTS_MAX;
}

char *events_text(const struct events *e, size_t *len)
{
    size_t size = 1, n = 0;

    for (uint64_t i = e->first; i < e->next; i++)
        size += strlen(e->line[i % EVENTS_MAX]) + 1;
    char *text = malloc(size);
    if (!text)
        return NULL;
    for (uint64_t i = e->first; i < e->next; i++) {
        n = (size_t)(stpcpy(text + n, e->line[i % EVENTS_MAX]) - text);
        text[n++] = '\n';
    }
    text[n] = '\0';
    *len = n;
    return text;
}

void events_free(struct events *e)
{
    for (size_t i = 0; i < EVENTS_MAX; i++)
        free(e->line[i]);
    memset(e, 0, sizeof(*e));
}
