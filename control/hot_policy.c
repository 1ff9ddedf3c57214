#include "control/hot_policy.h"

void hot_sample(struct hot_rate *h, uint64_t bytes, int64_t ms)
{
    h->rate += ((double)bytes * 1000.0 / (double)ms - h->rate) * HOT_SMOOTH;
    if (h->rate < HOT_NOTHING)
        h->rate = 0;
}

enum hot_step hot_decide(struct hot_rate *h, const struct hot_limits *l, int64_t now)
{
    double limit = (double)l->rate;
    bool off = l->rate == 0;
    bool less_would_do = h->extra > 0 && (off || h->copies > l->copies || h->copies < 2 ||
                                          h->rate / (h->copies - 1) < limit / 2);

    if (!less_would_do)
        h->cool_ms = 0;
    else if (h->cool_ms == 0)
        h->cool_ms = now;
    if (less_would_do)
        return now - h->cool_ms >= l->cool_after ? HOT_REMOVE : HOT_STAY;
    return !off && h->copies > 0 && h->copies < l->copies && h->rate / h->copies > limit ? HOT_ADD
                                                                                         : HOT_STAY;
}
