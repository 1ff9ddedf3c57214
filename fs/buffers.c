/* Spare memory for messages of the kernel: each is a little larger than 1 MiB, and fresh pages cost
 * as much as a copy. */
#include "fs/worker.h"

#include <stdlib.h>

/* Kept at most; the kernel has this many large requests in the background at once. */
#define BUFFERS_SPARE_MAX 64

struct buffers {
    pthread_mutex_t lock;
    void *spare[BUFFERS_SPARE_MAX];
    unsigned count;
};

struct buffers *buffers_new(void)
{
    struct buffers *b = calloc(1, sizeof(*b));

    if (b)
        pthread_mutex_init(&b->lock, NULL);
    return b;
}

void buffers_free(struct buffers *b)
{
    if (!b)
        return;
    while (b->count > 0)
        free(b->spare[--b->count]);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

void *buffers_get(struct buffers *b)
{
    void *memory = NULL;

    pthread_mutex_lock(&b->lock);
    if (b->count > 0)
        memory = b->spare[--b->count];
    pthread_mutex_unlock(&b->lock);
    return memory;
}

void buffers_put(struct buffers *b, void *memory)
{
    pthread_mutex_lock(&b->lock);
    if (b->count < BUFFERS_SPARE_MAX) {
        b->spare[b->count++] = memory;
        memory = NULL;
    }
    pthread_mutex_unlock(&b->lock);
    free(memory);
}
