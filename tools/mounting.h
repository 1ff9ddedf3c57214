/*
 * Mounts of a cloud on this machine. Each is a daemon keeper-NAME whose lock file's note is its
 * mountpoint.
 */
#ifndef UMBEL_TOOLS_MOUNTING_H
#define UMBEL_TOOLS_MOUNTING_H

#include "tools/process.h"

struct mounting {
    char point[PATH_MAX];     /* canonical */
    char name[ROOT_NAME_MAX]; /* without "keeper-" */
    bool was_running;
    int soft_ms; /* 0: hard */
};

/* Whether something is mounted exactly there; type and source (64 bytes each, may be NULL) say
 * what. */
bool mounting_is_mounted(const char *point, char *type, char *source);

/* --soft TIME: "30", "30s", "5m", "1h" in ms. -EINVAL. */
int mounting_parse_soft(const char *text, int *ms);
/* The same for args[], to a process of its own: --soft Ns, or nothing. text: 24 bytes. */
void mounting_add_soft(const struct mounting *m, const char **args, size_t n, char *text);

/* What can be told before anything is started. */
int mounting_check(const struct root *r, const char *given, struct mounting *m,
                   char detail[PROCESS_DETAIL]);

/* Starts it, or finds it running; it is mounted there when this returns 0. Needs the root's lock.
 */
int mounting_start(const struct root *r, struct mounting *m, char detail[PROCESS_DETAIL]);

/* The mountpoint of any mount of this cloud that runs, in out[PATH_MAX]. -ENOENT. */
int mounting_any(const struct root *r, char *out);

/* The name of a keeper's worker, in out[ROOT_NAME_MAX + 8]. */
void mounting_worker_name(const char *keeper, char *out);

/* Ends and unmounts what a killed keeper left behind: its worker, and the mountpoint in its note.
 * 0: nothing is left. */
int mounting_clear_dead(const struct root *r, const char *keeper);

/* A line per process that uses the mount at point (at most `most`), to standard error. */
void mounting_tell_users(const char *point, unsigned most);

#endif
