/*
 * A heap of runs, or of lines of runs, in the order in which they are placed.
 */
#ifndef UMBEL_CONTROL_JOB_HEAP_H
#define UMBEL_CONTROL_JOB_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* At the beginning of what is in a heap; in one at a time. */
struct job_heap_item {
    int32_t priority;
    uint32_t copy;
    uint64_t job;
    size_t at;
};

struct job_heap {
    struct job_heap_item **items; /* the first one is first */
    size_t n, size;
};

/* Higher priority, then the lower job, then the lower copy. */
bool job_heap_before(const struct job_heap_item *a, const struct job_heap_item *b);
/* Room for `n` items, so that putting them in cannot fail. -ENOMEM. */
int job_heap_reserve(struct job_heap *h, size_t n);
/* There must be room. */
void job_heap_put(struct job_heap *h, struct job_heap_item *item);
void job_heap_take(struct job_heap *h, struct job_heap_item *item);
/* Its order has changed. */
void job_heap_moved(struct job_heap *h, struct job_heap_item *item);
void job_heap_free(struct job_heap *h);

#endif
