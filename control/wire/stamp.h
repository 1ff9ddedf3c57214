/* A stamp as messages have it. */
#ifndef UMBEL_WIRE_STAMP_H
#define UMBEL_WIRE_STAMP_H

#include <time.h>

#include "control/wire/star.pb-c.h"

static inline Star__Time stamp_of(struct timespec t)
{
    Star__Time stamp = STAR__TIME__INIT;

    stamp.sec = t.tv_sec;
    stamp.nsec = (uint32_t)t.tv_nsec;
    return stamp;
}

#endif
