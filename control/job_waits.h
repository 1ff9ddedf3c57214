/*
 * Which jobs somebody waits for: ranges of numbers that come and go, and may lie over each other.
 * Plain C without I/O; one thread.
 *
 * Numbers are kept in blocks of JOB_WAITS_BLOCK, each with how many ranges begin and end where in
 * it: a question looks at one block, whatever the number of ranges, and a range costs as many steps
 * as it has blocks.
 */
#ifndef UMBEL_CONTROL_JOB_WAITS_H
#define UMBEL_CONTROL_JOB_WAITS_H

#include <stdbool.h>
#include <stdint.h>

#define JOB_WAITS_BLOCK 256

struct job_waits; /* NULL: none */

/* Both in it. -ENOMEM: nothing has changed. */
int job_waits_add(struct job_waits **w, uint64_t first, uint64_t last);
/* One that was added. */
void job_waits_remove(struct job_waits **w, uint64_t first, uint64_t last);
bool job_waits_has(struct job_waits *w, uint64_t id);
void job_waits_free(struct job_waits **w);

#endif
