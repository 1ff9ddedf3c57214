/* The last lines of what happened, for .umbel/events and .umbel/errors: a bounded ring, oldest
 * dropped. Loop thread only. */
#ifndef UMBEL_CONTROL_EVENTS_H
#define UMBEL_CONTROL_EVENTS_H

#include <stddef.h>
#include <stdint.h>

/* Until events_limit() says otherwise. */
#define EVENTS_DEFAULT 1000
/* A whole path and some words. */
#define EVENT_LINE_MAX 4352

struct events {
    char **line;          /* number n is line[n % limit] */
    uint64_t limit;       /* 0: nothing was added yet */
    uint64_t first, next; /* numbers of the oldest kept and of the next one */
};

/* "TIME KIND text": one line; control characters become '?'. */
void events_add(struct events *e, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* From now on at most so many lines (at least 1) are kept. -ENOMEM: as before. */
int events_limit(struct events *e, uint64_t limit);
/* The newest of the kept lines, of at most max bytes together, each ended by a newline, malloc'd;
 * NULL: no memory. */
char *events_text(const struct events *e, size_t max, size_t *len);
void events_free(struct events *e);

#endif
