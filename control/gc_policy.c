#include "control/gc_policy.h"

#include <stdlib.h>

/* For each record: its last page's seal (16), its entry in the footer (32), at most one of its file
 * (56), where it came from (24); and seals of the footer's pages. */
#define RECORD_EXTRA 132u
/* A seal of 16 bytes for each 32752: a little less than 1/2047. */
#define SEAL_SHARE 2047u
/* Header, trailer, and seals of what is only there once. */
#define PACK_EXTRA 1024u

uint64_t gc_rewritten_size(uint64_t live_bytes, uint64_t live_records)
{
    return live_bytes + live_bytes / SEAL_SHARE + live_records * RECORD_EXTRA + PACK_EXTRA;
}

bool gc_is_candidate(const struct gc_pack *p, const struct gc_limits *l)
{
    uint64_t after = gc_rewritten_size(p->live_bytes, p->live_records);

    if (l->reseal && p->old && p->live_records > 0)
        return true;
    return p->live_records > 0 && p->age >= l->age && after / 100 < UINT64_MAX / 100 &&
           after * 100 < p->size * l->ratio;
}

/* By live share: x.live / x.size against y.live / y.size. Sizes are far below 2^32. */
static int by_share(const void *a, const void *b)
{
    const struct gc_pack *x = a, *y = b;
    uint64_t l = x->live_bytes * y->size, r = y->live_bytes * x->size;

    if (l != r)
        return l < r ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

size_t gc_choose(struct gc_pack *packs, size_t n, const struct gc_limits *l)
{
    uint64_t bytes = 0, freed = 0;
    size_t found = 0, take = 0;

    for (size_t k = 0; k < n; k++)
        if (gc_is_candidate(&packs[k], l))
            packs[found++] = packs[k];
    if (found > 0)
        qsort(packs, found, sizeof(*packs), by_share);
    while (take < found && (take == 0 || bytes + packs[take].live_bytes <= l->bytes)) {
        uint64_t after = gc_rewritten_size(packs[take].live_bytes, packs[take].live_records);
        bytes += packs[take].live_bytes;
        freed += packs[take].size > after ? packs[take].size - after : 0;
        take++;
    }
    return freed < l->freed_min && !l->reseal ? 0 : take;
}
