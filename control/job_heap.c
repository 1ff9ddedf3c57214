#include "control/job_heap.h"

#include <errno.h>
#include <stdlib.h>

#define HEAP_LEAST 4

bool job_heap_before(const struct job_heap_item *a, const struct job_heap_item *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    if (a->job != b->job)
        return a->job < b->job;
    return a->copy < b->copy;
}

int job_heap_reserve(struct job_heap *h, size_t n)
{
    size_t size = h->size ? h->size : HEAP_LEAST;

    if (n <= h->size)
        return 0;
    while (size < n)
        size *= 2;
    struct job_heap_item **items = reallocarray(h->items, size, sizeof(*items));
    if (!items)
        return -ENOMEM;
    h->items = items;
    h->size = size;
    return 0;
}

static void set(struct job_heap *h, size_t at, struct job_heap_item *item)
{
    h->items[at] = item;
    item->at = at;
}

static void up(struct job_heap *h, struct job_heap_item *item)
{
    size_t at = item->at;

    while (at > 0 && job_heap_before(item, h->items[(at - 1) / 2])) {
        set(h, at, h->items[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    set(h, at, item);
}

static void down(struct job_heap *h, struct job_heap_item *item)
{
    size_t at = item->at, child;

    while ((child = 2 * at + 1) < h->n) {
        if (child + 1 < h->n && job_heap_before(h->items[child + 1], h->items[child]))
            child++;
        if (!job_heap_before(h->items[child], item))
            break;
        set(h, at, h->items[child]);
        at = child;
    }
    set(h, at, item);
}

void job_heap_moved(struct job_heap *h, struct job_heap_item *item)
{
    up(h, item);
    down(h, item);
}

void job_heap_put(struct job_heap *h, struct job_heap_item *item)
{
    set(h, h->n++, item);
    up(h, item);
}

void job_heap_take(struct job_heap *h, struct job_heap_item *item)
{
    struct job_heap_item *last = h->items[--h->n];

    if (last == item)
        return;
    set(h, item->at, last);
    job_heap_moved(h, last);
}

void job_heap_free(struct job_heap *h)
{
    free(h->items);
    *h = (struct job_heap){0};
}
