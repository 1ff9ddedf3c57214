#include "nodecache/hot.h"

#include <stdlib.h>
#include <string.h>

void hot_init(struct hot *h)
{
    memset(h, 0, sizeof(*h));
    pthread_mutex_init(&h->lock, NULL);
}

void hot_destroy(struct hot *h)
{
    pthread_mutex_destroy(&h->lock);
}

static struct hot_file *slot_of(struct hot *h, uint64_t ino)
{
    struct hot_file *least = &h->slots[0];

    for (unsigned i = 0; i < h->n; i++) {
        if (h->slots[i].ino == ino)
            return &h->slots[i];
        if (h->slots[i].bytes < least->bytes)
            least = &h->slots[i];
    }
    if (h->n < HOT_SLOTS) {
        least = &h->slots[h->n++];
        *least = (struct hot_file){.ino = ino};
    } else {
        *least = (struct hot_file){.ino = ino, .bytes = least->bytes, .over = least->bytes};
    }
    return least;
}

void hot_note(struct hot *h, uint64_t ino, uint64_t bytes)
{
    pthread_mutex_lock(&h->lock);
    slot_of(h, ino)->bytes += bytes;
    pthread_mutex_unlock(&h->lock);
}

static int most_first(const void *a, const void *b)
{
    const struct hot_file *x = a, *y = b;

    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

unsigned hot_take(struct hot *h, struct hot_file out[HOT_TAKE_MAX])
{
    struct hot_file all[HOT_SLOTS];
    unsigned n = 0;

    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < h->n; i++) {
        uint64_t sure = h->slots[i].bytes - h->slots[i].over;
        if (sure >= HOT_LEAST)
            all[n++] = (struct hot_file){.ino = h->slots[i].ino, .bytes = sure};
    }
    h->n = 0;
    pthread_mutex_unlock(&h->lock);
    qsort(all, n, sizeof(*all), most_first);
    n = n < HOT_TAKE_MAX ? n : HOT_TAKE_MAX;
    memcpy(out, all, n * sizeof(*out));
    return n;
}
