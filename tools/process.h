/*
 * The processes of a cloud, as `up`, `down` and `mount` see them.
 *
 * A daemon holds a record lock on ROOT/run/NAME.lock as long as it lives, so the kernel itself says
 * who runs (F_GETLK names the process): a pid file that a killed daemon left, or a pid that another
 * program has since been given, deceives nobody. The pid file ROOT/run/NAME.pid says that the
 * holder is ready.
 */
#ifndef UMBEL_TOOLS_PROCESS_H
#define UMBEL_TOOLS_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "tools/root.h"

/* Recovery of a large state and of a full node's index is part of a start. */
#define PROCESS_START_MS 60000
/* A node stops when its calls have ended; 60 s is the longest deadline of one. */
#define PROCESS_STOP_MS 70000
#define PROCESS_DETAIL  768

/* In a daemon: takes the lock for the rest of its life. note (may be NULL) is kept in the file: a
 * keeper's mountpoint. -EBUSY: *holder has it. */
int process_hold(const struct root *r, const char *name, const char *note, pid_t *holder);

/* The one that holds the lock says that it is ready: its pid file names it. */
bool process_is_ready(const struct root *r, const char *name);

/* Who runs under that name; 0: nobody. -errno. */
pid_t process_pid(const struct root *r, const char *name);

/* The note of the last one that ran under that name. -ENOENT; -ENAMETOOLONG. */
int process_note(const struct root *r, const char *name, char *out, size_t size);

/* Starts `umbel ARG...` in the background unless NAME runs already, and waits until it is ready.
 * args ends with NULL and does not hold --ready-fd. *was_running may be NULL. */
int process_start(const struct root *r, const char *name, const char *const *args,
                  bool *was_running, char detail[PROCESS_DETAIL]);

/* Sends a signal to the process that holds the lock. 0: sent, or nobody is there. */
int process_signal(const struct root *r, const char *name, int signal);

/* Waits until nobody runs under that name. -ETIMEDOUT. */
int process_wait_end(const struct root *r, const char *name, int timeout_ms);

/* The names with a lock file that begin with prefix ("node-", "keeper-"), until fn returns false.
 */
int process_each(const struct root *r, const char *prefix, bool (*fn)(void *arg, const char *name),
                 void *arg);

#endif
