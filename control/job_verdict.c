#include "control/job_verdict.h"

#include <string.h>

bool job_copy_lost(const Star__JobCopy *c)
{
    return c->state == STAR__JOB_RUN_STATE__RUN_UNKNOWN ||
           (c->state == STAR__JOB_RUN_STATE__RUN_ENDED && c->result &&
            c->result->end == STAR__JOB_END__END_LEASE);
}

bool job_copy_ended(const Star__JobCopy *c)
{
    return c->state == STAR__JOB_RUN_STATE__RUN_ENDED || job_copy_lost(c);
}

bool job_agree(const Star__JobCopy *a, const Star__JobCopy *b)
{
    const Star__JobRunReport *x = a->result, *y = b->result;

    if (job_copy_lost(a) || job_copy_lost(b) || !x || !y)
        return false;
    return x->end == y->end && x->status == y->status && x->digest.len == y->digest.len &&
           (x->digest.len == 0 || memcmp(x->digest.data, y->digest.data, x->digest.len) == 0);
}

enum job_verdict job_verdict(const Star__Job *job, uint32_t *winner)
{
    size_t n = job->n_copies, lost = 0;

    *winner = 0;
    for (size_t k = 0; k < n; k++) {
        if (!job_copy_ended(job->copies[k]))
            return JOB_VERDICT_WAIT;
        lost += job_copy_lost(job->copies[k]);
    }
    for (size_t k = 0; k < n; k++) {
        size_t same = 0;
        for (size_t m = k; m < n; m++)
            same += job_agree(job->copies[k], job->copies[m]);
        if (same * 2 > n) {
            *winner = (uint32_t)k + 1;
            return JOB_VERDICT_RESULT;
        }
    }
    return lost * 2 >= n ? JOB_VERDICT_LOST : JOB_VERDICT_SPLIT;
}
