/*
 * Fault points of the pool, for tests: compiled in with UMBEL_FAULTS only. This room uses libraries
 * only, so it has its own, but they are armed as all fault points of Umbel are
 * (control/wire/fault.h): UMBEL_FAULT="NAME=ERROR[@HIT[+]],..." or the file that UMBEL_FAULT_FILE
 * names, read again when it changes; ERROR is an errno's name or number, or KILL.
 *
 * pool.create pool.append pool.sync pool.sync_folder pool.read pool.remove: the call fails with
 * that error. pool.short: a write takes only half of what is left.
 */
#ifndef UMBEL_POOL_FAULT_H
#define UMBEL_POOL_FAULT_H

#ifdef UMBEL_FAULTS
/* 0 or -errno. */
int pool_fault(const char *name);
#else
static inline int pool_fault(const char *name)
{
    (void)name;
    return 0;
}
#endif

#endif
