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
