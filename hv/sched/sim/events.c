#include "events.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

int sim_events_add(struct sim_events *e, int64_t at, uint32_t kind, uint32_t id, uint32_t turn)
{
    if (e->n == e->room) {
        size_t room = e->room ? 2 * e->room : 256;
        struct sim_event *heap = reallocarray(e->heap, room, sizeof(*heap));
        if (heap == NULL)
            return -ENOMEM;
        e->heap = heap;
        e->room = room;
    }
    struct sim_event new = {at, e->made++, kind, id, turn};
    size_t n = e->n++;
    for (; n > 0 && before(&new, &e->heap[(n - 1) / 2]); n = (n - 1) / 2)
        e->heap[n] = e->heap[(n - 1) / 2];
    e->heap[n] = new;
    return 0;
}

struct sim_event sim_events_take(struct sim_events *e)
{
    struct sim_event first = e->heap[0], last = e->heap[--e->n];
    size_t n = 0, child;

    while ((child = 2 * n + 1) < e->n) {
        if (child + 1 < e->n && before(&e->heap[child + 1], &e->heap[child]))
            child++;
        if (!before(&e->heap[child], &last))
            break;
        e->heap[n] = e->heap[child];
        n = child;
    }
    e->heap[n] = last;
    return first;
}

void sim_events_free(struct sim_events *e)
{
    free(e->heap);
    *e = (struct sim_events){0};
}
