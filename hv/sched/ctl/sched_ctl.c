/* What must be said for a change of a domain's parameters. */
#include "hv/sched/ctl/sched_ctl.h"

unsigned sched_ctl_weights(const struct sched_ctl_change *change, bool real_time,
                           uint32_t weights[2])
{
    unsigned n = 0;
    bool rt = change->mark == SCHED_MARK_AS_IT_IS ? real_time : change->mark == SCHED_MARK_ON;

    if (change->weight != 0)
        weights[n++] = change->weight; /* makes it ordinary, too */
    else if (!rt && real_time)
        weights[n++] = SCHED_WEIGHT_ORDINARY;
    if (rt && (!real_time || change->weight != 0))
        weights[n++] = SCHED_WEIGHT_RT;
    return n;
}
