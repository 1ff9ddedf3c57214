/*
 * What a command that takes its time says on standard error: one changing line on a terminal, else
 * a line now and then.
 */
#ifndef UMBEL_TOOLS_PROGRESS_H
#define UMBEL_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    char what[96];
    bool terminal, shown;
    int64_t started, last; /* clock_boot_ms */
};

void progress_begin(struct progress *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* As often as you like. total 0: nobody knows how much there is to do. note may be NULL. */
void progress_tick(struct progress *p, uint64_t done, uint64_t total, const char *note);

/* Takes the line away. */
void progress_end(struct progress *p);

#endif
