/* Deadlines of condition variables, which count CLOCK_REALTIME: only for waits that look again
 * anyway. */
#ifndef UMBEL_NODE_DEADLINE_H
#define UMBEL_NODE_DEADLINE_H

#include <time.h>

static inline struct timespec deadline_in(int ms)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

#endif
