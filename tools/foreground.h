/*
 * What `umbel control`, `umbel node` and `umbel mount --foreground` share.
 */
#ifndef UMBEL_TOOLS_FOREGROUND_H
#define UMBEL_TOOLS_FOREGROUND_H

#include <argp.h>

#include "tools/process.h"

struct foreground_options {
    const char *root, *name;
    int ready_fd;           /* -1: none */
    const char *jobs_mount; /* where the cloud is mounted here, for jobs; NULL */
    uint64_t capacity;      /* of a node: bytes; 0: as umbel.conf says */
};

/* For argp: --root, --name, --ready-fd. Its input is a struct foreground_options. */
extern const struct argp foreground_argp;

/* Opens the root, takes the lock NAME, starts the log. 0 or an exit status; then it was told, to
 * ready_fd too. */
int foreground_begin(const struct foreground_options *o, const char *lock, const char *note,
                     struct root *r);

/* "error: TEXT" to standard error and to ready_fd. */
void foreground_fail(const struct foreground_options *o, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The paths of ROOT/run/NAME.pid, and so on; ends the process if they are too long (root_open has
 * refused that). */
void foreground_run_path(const struct root *r, const char *name, const char *suffix, char *out);

#endif
