/*
 * Jobs through the control files of a mounted cloud: what `umbel run` and `umbel job` share. All of
 * it tells what goes wrong on standard error.
 */
#ifndef UMBEL_TOOLS_JOB_FILES_H
#define UMBEL_TOOLS_JOB_FILES_H

#include "tools/ctl.h"

struct job_ids {
    uint64_t first, last; /* both in it */
};

/* "42" or "42-141"; -EINVAL after a line on standard error. */
int job_ids_parse(const char *text, struct job_ids *out);

/* Hands a spec in. -errno. */
int job_submit(const struct ctl *c, const char *spec, size_t size, struct job_ids *out);

/* jobs/ID/status, malloc'd; -errno. */
int job_status(const struct ctl *c, uint64_t id, char **text);

/* Until all of them have ended. -errno: it cannot be known. *failed: how many did not end as
 * `done`; may be NULL. quiet: no progress line. */
int job_wait(const struct ctl *c, const struct job_ids *ids, bool quiet, uint64_t *failed);

/* What a command that stands for the job should end with: its own exit status, 128 + N after a
 * signal, as a shell has it, else EXIT_FAILED. Says why on standard error if it is not 0. */
int job_exit_status(const struct ctl *c, uint64_t id);

/* Copies jobs/ID/FILE to fd; follow: until the job has ended, and everything is there. */
int job_logs(const struct ctl *c, uint64_t id, const char *file, int fd, bool follow);
/* stdout and stderr at once, each to ours. */
int job_follow(const struct ctl *c, uint64_t id);

#endif
