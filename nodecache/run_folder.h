/*
 * STORE/jobs on the disk:
 *
 *     lease                    u64, CLOCK_BOOTTIME in ms: until then runs may go on; mapped
 *     JOB.COPY.ATTEMPT/start   packed JobStart. Its supervisor holds a record lock on it until the
 *                              result is there, so the kernel says who that is, and nobody is
 * deceived JOB.COPY.ATTEMPT/why     text: why it is to be ended JOB.COPY.ATTEMPT/result  packed
 * JobRunReport, written as a whole or not at all
 *
 * Nothing is synced: after a crash of the machine no run is left, and the centre is told so.
 * Functions return 0 or -errno; jobs is the folder's descriptor.
 */
#ifndef UMBEL_NODE_RUN_FOLDER_H
#define UMBEL_NODE_RUN_FOLDER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/wire/star.pb-c.h"

/* Three numbers and two dots. */
#define RUN_NAME_MAX 48

struct run_key {
    uint64_t job;
    uint32_t copy, attempt;
};

void run_key_name(const struct run_key *k, char out[RUN_NAME_MAX]);
/* -EINVAL: it is not such a name, as run_key_name() writes it. */
int run_key_parse(const char *name, struct run_key *out);

/* STORE/jobs; made if it is not there. The descriptor, or -errno. */
int run_folder_open(const char *store);
/* The mapped lease; read-only for supervisors. NULL: errno. Unmapped by nobody: it is one page. */
_Atomic uint64_t *run_lease_map(int jobs, bool writable);

/* The run's folder and its start. -EEXIST: it is there. */
int run_folder_make(int jobs, const char *name, const Star__JobStart *start);
/* *out is freed by star__job_start__free_unpacked. -EBADMSG: it is damaged. */
int run_folder_start(int dir, Star__JobStart **out);
int run_folder_result(int jobs, const char *name, Star__JobRunReport **out); /* -ENOENT: none yet */
int run_folder_set_result(int dir, const Star__JobRunReport *result);
int run_folder_set_why(int jobs, const char *name, const char *why);
void run_folder_why(int dir, char *out, size_t size); /* empty: nothing was said */
int run_folder_remove(int jobs, const char *name);

/* In the supervisor: the lock, until the descriptor that it answers is closed, or any other one of
 * the same file. dir: the run's folder. -EBUSY: another one has it. -ESTALE: the node has given it
 * up. */
int run_folder_hold(int dir);
/* Who holds it; 0: nobody does. */
pid_t run_folder_holder(int jobs, const char *name);
/* Nobody may begin it any more: takes its start away, under the lock. -EBUSY: somebody holds it. */
int run_folder_give_up(int jobs, const char *name);

#endif
