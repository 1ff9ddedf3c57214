/*
 * What the copies of a job's attempt mean together. Pure.
 */
#ifndef UMBEL_CONTROL_JOB_VERDICT_H
#define UMBEL_CONTROL_JOB_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "star.pb-c.h"

enum job_verdict {
    JOB_VERDICT_WAIT,   /* some have not ended */
    JOB_VERDICT_RESULT, /* *winner: the result of a majority */
    JOB_VERDICT_SPLIT,  /* no majority agrees */
    JOB_VERDICT_LOST    /* so many were lost that none can */
};

/* Copies agree when they ended alike, with the same status and the same digest of their output.
 * *winner: from 1; of those that agree the first. */
enum job_verdict job_verdict(const Star__Job *job, uint32_t *winner);
/* Whether the copies' results are the same. */
bool job_agree(const Star__JobCopy *a, const Star__JobCopy *b);
bool job_copy_ended(const Star__JobCopy *c); /* by itself or with its node */
bool job_copy_lost(const Star__JobCopy *c);

#endif
