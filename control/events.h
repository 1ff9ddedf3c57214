/* The last lines of what happened, for .umbel/events and .umbel/errors: a bounded ring, oldest
 * dropped. Loop thread only. */
#ifndef UMBEL_CONTROL_EVENTS_H
#define UMBEL_CONTROL_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#define EVENTS_MAX     1000
#define EVENT_LINE_MAX 512

struct events {
    char *line[EVENTS_MAX];
    uint64_t first, next; /* numbers of the oldest kept and of the next one */
};

/* "TIME KIND text": one line; control characters become '?'. */
void events_add(struct events *e, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* All kept lines, each ended by a newline, malloc'd; NULL: no memory. */
char *events_text(const struct events *e, size_t *len);
void events_free(struct events *e);

#endif
