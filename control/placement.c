#include "control/placement.h"

static bool has_room(const struct placement_node *n)
{
    return n->staged < n->capacity / 100 * PLACEMENT_STAGED_MAX;
}

static double score(const struct placement_node *n)
{
    double free_bytes = n->staged < n->capacity ? (double)(n->capacity - n->staged) : 0.0;

    return free_bytes / (1.0 + (n->load > 0 ? n->load : 0));
}

static bool better(const struct placement_node *a, const struct placement_node *b)
{
    bool a_room = has_room(a), b_room = has_room(b);

    if (a_room != b_room)
        return a_room;
    if (a_room && a->local != b->local)
        return a->local;
    double sa = score(a), sb = score(b);
    if (sa < sb || sb < sa)
        return sa > sb;
    return a->id < b->id;
}

uint32_t placement_home(const struct placement_node *nodes, size_t n)
{
    const struct placement_node *best = NULL;

    for (size_t i = 0; i < n; i++)
        if (nodes[i].usable && (!best || better(&nodes[i], best)))
            best = &nodes[i];
    return best ? best->id : 0;
}

bool placement_full(const struct placement_node *nodes, size_t n)
{
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        if (nodes[i].usable && has_room(&nodes[i]))
            return false;
        any = any || nodes[i].usable;
    }
    return any;
}

/* Of `most`, nearly all. */
static bool nearly(uint64_t cached, uint64_t most)
{
    return cached >= most - most / 16;
}

static bool better_to_read(const struct placement_copy *a, const struct placement_copy *b,
                           uint64_t most)
{
    if (a->avoid != b->avoid)
        return b->avoid;
    bool a_has = nearly(a->cached, most), b_has = nearly(b->cached, most);
    if (a_has != b_has)
        return a_has;
    if (a->local != b->local)
        return a->local;
    if (a->load < b->load || b->load < a->load)
        return a->load < b->load;
    if (a->cached != b->cached)
        return a->cached > b->cached;
    return a->id < b->id;
}

uint32_t placement_read(const struct placement_copy *copies, size_t n)
{
    const struct placement_copy *best = NULL;
    uint64_t most = 0;

    for (size_t i = 0; i < n; i++)
        if (copies[i].usable && !copies[i].avoid && copies[i].cached > most)
            most = copies[i].cached;
    for (size_t i = 0; i < n; i++)
        if (copies[i].usable && (!best || better_to_read(&copies[i], best, most)))
            best = &copies[i];
    return best ? best->id : 0;
}
