#include "fs/read_ahead.h"

static bool follows(const struct read_ahead *r, uint64_t offset)
{
    uint64_t low = r->next > READ_AHEAD_SLACK ? r->next - READ_AHEAD_SLACK : 0;

    return offset >= low && offset <= r->next + READ_AHEAD_SLACK;
}

/* Half of the distance is left: time to go on, in large steps. */
static bool due(const struct read_ahead *r)
{
    return r->asked < r->next + r->distance / 2;
}

bool read_ahead(struct read_ahead *r, uint64_t offset, uint64_t length, uint64_t size,
                uint64_t *from, uint64_t *to)
{
    uint64_t end = offset + length;

    *from = *to = 0;
    if (!follows(r, offset)) {
        *r = (struct read_ahead){.next = end, .asked = end};
        return false;
    }
    if (end > r->next)
        r->next = end;
    if (r->distance == 0)
        r->distance = READ_AHEAD_MIN;
    if (!due(r))
        return true;
    *from = r->asked > r->next ? r->asked : r->next;
    *to = r->next + r->distance < size ? r->next + r->distance : size;
    if (*to <= *from) {
        *from = *to = 0;
        return true;
    }
    r->asked = *to;
    if (r->distance < READ_AHEAD_MAX)
        r->distance *= 2;
    return true;
}
