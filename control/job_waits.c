#include "control/job_waits.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>

/* A block of numbers. */
struct job_waits {
    uint64_t block;
    uint64_t whole;                    /* ranges that have all of it */
    uint64_t parts;                    /* ranges that have some of it */
    int64_t step[JOB_WAITS_BLOCK + 1]; /* of parts: begun here, less those that ended before */
    UT_hash_handle hh;
};

static struct job_waits *find(struct job_waits *w, uint64_t block)
{
    struct job_waits *b;

    HASH_FIND(hh, w, &block, sizeof(block), b);
    return b;
}

static int make(struct job_waits **w, uint64_t block)
{
    if (find(*w, block))
        return 0;
    struct job_waits *b = calloc(1, sizeof(*b));
    if (!b)
        return -ENOMEM;
    b->block = block;
    HASH_ADD(hh, *w, block, sizeof(b->block), b);
    return 0;
}

static void drop_if_unused(struct job_waits **w, struct job_waits *b)
{
    if (b->whole || b->parts)
        return;
    HASH_DEL(*w, b);
    free(b);
}

/* The part of the range that is in the block, by 1 or -1. */
static void count(struct job_waits *b, uint64_t first, uint64_t last, int by)
{
    uint64_t begin = b->block * JOB_WAITS_BLOCK;
    size_t from = first > begin ? (size_t)(first - begin) : 0;
    size_t to = last - begin < JOB_WAITS_BLOCK ? (size_t)(last - begin) : JOB_WAITS_BLOCK - 1;

    if (from == 0 && to == JOB_WAITS_BLOCK - 1) {
        b->whole += (uint64_t)(int64_t)by;
        return;
    }
    b->parts += (uint64_t)(int64_t)by;
    b->step[from] += by;
    b->step[to + 1] -= by;
}

int job_waits_add(struct job_waits **w, uint64_t first, uint64_t last)
{
    uint64_t from = first / JOB_WAITS_BLOCK, to = last / JOB_WAITS_BLOCK, block = from;

    for (; block <= to; block++)
        if (make(w, block) < 0)
            break;
    bool all = block > to;
    for (uint64_t n = from; n < block; n++) {
        struct job_waits *b = find(*w, n);
        if (all)
            count(b, first, last, 1);
        else
            drop_if_unused(w, b);
    }
    return all ? 0 : -ENOMEM;
}

void job_waits_remove(struct job_waits **w, uint64_t first, uint64_t last)
{
    for (uint64_t block = first / JOB_WAITS_BLOCK; block <= last / JOB_WAITS_BLOCK; block++) {
        struct job_waits *b = find(*w, block);
        if (!b)
            continue;
        count(b, first, last, -1);
        drop_if_unused(w, b);
    }
}

bool job_waits_has(struct job_waits *w, uint64_t id)
{
    const struct job_waits *b = find(w, id / JOB_WAITS_BLOCK);
    int64_t open = 0;

    if (!b || b->whole)
        return b != NULL;
    for (size_t n = 0; n <= id % JOB_WAITS_BLOCK; n++)
        open += b->step[n];
    return open > 0;
}

void job_waits_free(struct job_waits **w)
{
    struct job_waits *b, *next;

    HASH_ITER (hh, *w, b, next) {
        HASH_DEL(*w, b);
        free(b);
    }
}
