/* A process that is nobody's child: how daemons begin. */
#ifndef UMBEL_HV_DETACH_H
#define UMBEL_HV_DETACH_H

/* Forks twice, so that the process is nobody's child and no leader of its session, and calls
 * become(arg) in it, which must not return and may call only what may be called after a fork. 0: it
 * has begun. -errno; -EAGAIN: the second fork failed. */
int hv_detach(void (*become)(const void *arg), const void *arg);

#endif
