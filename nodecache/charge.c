/* What a change costs of the capacity. */
#include "nodecache/store_private.h"

static uint64_t hull_blocks(uint64_t start, uint64_t end)
{
    return start < end ? (end - 1) / SPACE_BLOCK - start / SPACE_BLOCK + 1 : 0;
}

static uint64_t all_ranges(const struct file *f)
{
    return (uint64_t)f->present.count + f->staged.count + f->synced.count;
}

uint64_t charge_need(const struct file *f, uint64_t start, uint64_t end)
{
    uint64_t blocks = hull_blocks(start, end) - ranges_blocks(&f->present, start, end, SPACE_BLOCK);

    /* Each of the three sets can grow by one range. */
    return blocks * SPACE_BLOCK + 3 * RANGE_CHARGE + ((end - start) / SUM_BLOCK + 2) * SUM_CHARGE +
           (f->journaled ? 0 : FILE_CHARGE);
}

void charge_begin(struct charge *c, const struct file *f, uint64_t start, uint64_t end,
                  uint64_t taken)
{
    *c = (struct charge){.start = start,
                         .end = end,
                         .blocks = ranges_blocks(&f->present, start, end, SPACE_BLOCK),
                         .ranges = all_ranges(f),
                         .sums = f->sums.count,
                         .journaled = f->journaled,
                         .taken = taken};
}

void charge_end(struct store *s, struct charge *c, struct file *f)
{
    uint64_t blocks = ranges_blocks(&f->present, c->start, c->end, SPACE_BLOCK);
    uint64_t ranges = all_ranges(f);
    int64_t change = ((int64_t)blocks - (int64_t)c->blocks) * (int64_t)SPACE_BLOCK +
                     ((int64_t)ranges - (int64_t)c->ranges) * (int64_t)RANGE_CHARGE +
                     ((int64_t)f->sums.count - (int64_t)c->sums) * (int64_t)SUM_CHARGE +
                     (f->journaled && !c->journaled ? (int64_t)FILE_CHARGE : 0);

    f->charge = (uint64_t)((int64_t)f->charge + change);
    if (change > (int64_t)c->taken)
        space_force(&s->space, (uint64_t)(change - (int64_t)c->taken));
    else
        space_give(&s->space, (uint64_t)((int64_t)c->taken - change));
}
