/*
 * Fault points, for tests: a place that can fail asks fault("pool.write") first. Compiled in only
 * with UMBEL_FAULTS; otherwise it is 0 and costs nothing.
 *
 * Armed by the environment:  UMBEL_FAULT="name=ENOSPC@3,other=EIO,third=KILL@2"
 * or by the text of the file that UMBEL_FAULT_FILE names, which is read again whenever it changes
 * (then hits count from 0). NAME=ERROR fails every hit, NAME=ERROR@N only the N-th, NAME=ERROR@N+
 * the N-th and all later. ERROR is EIO, ENOSPC ... (errno names), a number, or KILL: the process
 * kills itself there.
 */
#ifndef UMBEL_WIRE_FAULT_H
#define UMBEL_WIRE_FAULT_H

#ifdef UMBEL_FAULTS
/* 0 or -errno. Thread-safe. */
int fault(const char *name);
#else
static inline int fault(const char *name)
{
    (void)name;
    return 0;
}
#endif

#endif
