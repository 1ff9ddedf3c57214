/*
 * Whether who closes a file was killed: the kernel closes what a process leaves open, and says
 * nothing of why. /proc says it, as that process waits for the answer.
 */
#ifndef UMBEL_FS_KILLED_H
#define UMBEL_FS_KILLED_H

#include <stdbool.h>
#include <sys/types.h>

/* The thread is at its end, and by a signal. false also where that cannot be seen: it is of another
 * process space (0), or /proc is not to be had. */
bool killed_is(pid_t thread);
/* `other` is a thread of the same process, or there is no such thread any more. */
bool killed_with(pid_t thread, pid_t other);

/* Pure: /proc/THREAD/stat says so. */
bool killed_says(const char *stat);

#endif
