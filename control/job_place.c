#include "control/job_place.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

bool job_place_ever(const struct job_place_node *n, const struct job_place_need *need)
{
    return need->milli_cpus <= n->milli_cpus && need->memory <= n->memory;
}

/* What others use and what is promised, no more than there is. */
static uint64_t free_of(uint64_t all, uint64_t busy, uint64_t reserved)
{
    if (busy >= all || reserved >= all - busy)
        return 0;
    return all - busy - reserved;
}

uint64_t job_place_free_milli(const struct job_place_node *n)
{
    if (n->milli_reserved == 0)
        return n->milli_cpus;
    return free_of(n->milli_cpus, n->milli_busy, n->milli_reserved);
}

uint64_t job_place_free_memory(const struct job_place_node *n)
{
    return free_of(n->memory, n->memory_busy, n->memory_reserved);
}

bool job_place_fits(const struct job_place_node *n, const struct job_place_need *need)
{
    return n->open && !n->barred && (need->node == 0 || need->node == n->id) &&
           (n->runs_max == 0 || n->runs < n->runs_max) &&
           need->milli_cpus <= job_place_free_milli(n) && need->memory <= job_place_free_memory(n);
}

uint64_t job_place_remaining(const struct job_place_node *n)
{
    uint64_t milli = free_of(n->milli_cpus, n->milli_busy, n->milli_reserved), all;

    return __builtin_mul_overflow(milli, n->core_speed, &all) ? UINT64_MAX / 1000 : all / 1000;
}

static uint64_t bytes_at(uint32_t node, const struct job_place_held *held, size_t held_n)
{
    for (size_t n = 0; n < held_n; n++)
        if (held[n].node == node)
            return held[n].bytes;
    return 0;
}

struct candidate {
    const struct job_place_node *node;
    uint64_t bytes, remaining;
};

static bool better(const struct candidate *a, const struct candidate *b)
{
    if (a->bytes != b->bytes)
        return a->bytes > b->bytes;
    if (a->node->kept != b->node->kept)
        return b->node->kept;
    if (a->remaining != b->remaining)
        return a->remaining > b->remaining;
    return a->node->id < b->node->id;
}

const struct job_place_node *job_place_choose(const struct job_place_node *nodes, size_t n,
                                              const struct job_place_need *need,
                                              const struct job_place_held *held, size_t held_n)
{
    struct candidate best = {0};

    for (size_t k = 0; k < n; k++) {
        if (!job_place_fits(&nodes[k], need))
            continue;
        struct candidate c = {&nodes[k], bytes_at(nodes[k].id, held, held_n),
                              job_place_remaining(&nodes[k])};
        if (!best.node || better(&c, &best))
            best = c;
    }
    return best.node;
}

/* The largest number of processors below `bound`, and how many such nodes have together. */
static uint32_t next_smaller(const struct job_place_node *nodes, size_t n, uint64_t bound,
                             uint64_t *together)
{
    uint32_t size = 0;

    *together = 0;
    for (size_t k = 0; k < n; k++) {
        if (nodes[k].milli_cpus >= bound || nodes[k].milli_cpus < size)
            continue;
        if (nodes[k].milli_cpus > size)
            *together = 0;
        size = nodes[k].milli_cpus;
        *together += size;
    }
    return size;
}

void job_place_keep(struct job_place_node *nodes, size_t n)
{
    uint64_t all = 0, kept = 0, together, bound = UINT64_MAX;

    for (size_t k = 0; k < n; k++)
        all += nodes[k].milli_cpus;
    for (;;) {
        uint32_t size = next_smaller(nodes, n, bound, &together);
        kept += together;
        if (size == 0 || kept > all / 100 * JOB_PLACE_KEEP)
            break;
        bound = size;
    }
    for (size_t k = 0; k < n; k++)
        nodes[k].kept = nodes[k].milli_cpus >= bound;
}

/* "1.5 processors and 256.0 MiB of memory" */
#define AMOUNT 80
static const char *amount(uint64_t milli, uint64_t memory, char buf[AMOUNT])
{
    bool giga = memory >= 1ull << 30;

    snprintf(buf, AMOUNT, "%.7g processor%s and %.1f %s of memory", (double)milli / 1000,
             milli == 1000 ? "" : "s", (double)memory / (giga ? 1 << 30 : 1 << 20),
             giga ? "GiB" : "MiB");
    return buf;
}

int job_place_could(const struct job_place_node *nodes, size_t n, const struct job_place_need *need,
                    unsigned copies, char why[JOB_PLACE_WHY])
{
    char wanted[AMOUNT], had[AMOUNT];
    uint64_t milli = 0, memory = 0;
    unsigned could = 0, seen = 0;

    for (size_t k = 0; k < n; k++) {
        if (nodes[k].milli_cpus == 0 || (need->node != 0 && nodes[k].id != need->node))
            continue;
        seen++;
        could += job_place_ever(&nodes[k], need);
        milli = nodes[k].milli_cpus > milli ? nodes[k].milli_cpus : milli;
        memory = nodes[k].memory > memory ? nodes[k].memory : memory;
    }
    if (could >= copies)
        return 0;
    amount(need->milli_cpus, need->memory, wanted);
    amount(milli, memory, had);
    if (!seen)
        snprintf(why, JOB_PLACE_WHY, "%s",
                 need->node ? "that node is not there, or it runs no jobs"
                            : "no node of the cloud runs jobs");
    else if (need->node)
        snprintf(why, JOB_PLACE_WHY, "%s are wanted, but that node has %s", wanted, had);
    else if (!could)
        snprintf(why, JOB_PLACE_WHY,
                 "%s are wanted, but no node has both: the most is %s, each for itself", wanted,
                 had);
    else
        snprintf(why, JOB_PLACE_WHY, "%u nodes are wanted, one for each copy, but only %u %s %s",
                 copies, could, could == 1 ? "has" : "have", wanted);
    return -EAGAIN;
}

double job_place_share(const struct job_place_node *n, const struct job_place_need *need)
{
    double cpus = need->milli_cpus ? (double)job_place_free_milli(n) / need->milli_cpus : 1;
    double memory = need->memory ? (double)job_place_free_memory(n) / (double)need->memory : 1;

    return cpus < memory ? cpus : memory;
}

void job_place_why(const struct job_place_node *nodes, size_t n, const struct job_place_need *need,
                   char why[JOB_PLACE_WHY])
{
    const struct job_place_node *near = NULL;
    char wanted[AMOUNT], had[AMOUNT];

    for (size_t k = 0; k < n; k++)
        if (nodes[k].open && !nodes[k].barred && (need->node == 0 || need->node == nodes[k].id) &&
            (!near || job_place_share(&nodes[k], need) > job_place_share(near, need)))
            near = &nodes[k];
    if (!near) {
        snprintf(why, JOB_PLACE_WHY, "%s open for jobs",
                 need->node ? "its node is not" : "no node is");
        return;
    }
    amount(need->milli_cpus, need->memory, wanted);
    if (near->runs_max && near->runs >= near->runs_max)
        snprintf(why, JOB_PLACE_WHY, "node %" PRIu32 " has its %" PRIu32 " jobs", near->id,
                 near->runs_max);
    else
        snprintf(why, JOB_PLACE_WHY, "%s are wanted; node %" PRIu32 " has %s free", wanted,
                 near->id, amount(job_place_free_milli(near), job_place_free_memory(near), had));
}
