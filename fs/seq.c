#include "fs/seq.h"

#include <errno.h>
#include <stdlib.h>

#define WORDS (SEQ_WINDOW / 64)

int seq_init(struct seq_tracker *t)
{
    t->done = calloc(WORDS, sizeof(t->done[0]));
    if (!t->done)
        return -ENOMEM;
    pthread_mutex_init(&t->lock, NULL);
    t->next = t->lowest = 1;
    return 0;
}

void seq_destroy(struct seq_tracker *t)
{
    if (!t->done)
        return;
    pthread_mutex_destroy(&t->lock);
    free(t->done);
    t->done = NULL;
}

static uint64_t *word(struct seq_tracker *t, uint64_t seq)
{
    return &t->done[(seq % SEQ_WINDOW) / 64];
}

static uint64_t bit(uint64_t seq)
{
    return 1ull << (seq % 64);
}

uint64_t seq_begin(struct seq_tracker *t, uint64_t *acked)
{
    uint64_t seq = 0;

    pthread_mutex_lock(&t->lock);
    if (t->next - t->lowest < SEQ_WINDOW)
        seq = t->next++;
    *acked = t->lowest;
    pthread_mutex_unlock(&t->lock);
    return seq;
}

void seq_end(struct seq_tracker *t, uint64_t seq)
{
    pthread_mutex_lock(&t->lock);
    if (seq >= t->lowest && seq < t->next)
        *word(t, seq) |= bit(seq);
    while (t->lowest < t->next && (*word(t, t->lowest) & bit(t->lowest))) {
        *word(t, t->lowest) &= ~bit(t->lowest);
        t->lowest++;
    }
    pthread_mutex_unlock(&t->lock);
}

uint64_t seq_acked(struct seq_tracker *t)
{
    pthread_mutex_lock(&t->lock);
    uint64_t lowest = t->lowest;
    pthread_mutex_unlock(&t->lock);
    return lowest;
}

uint64_t seq_next(struct seq_tracker *t)
{
    pthread_mutex_lock(&t->lock);
    uint64_t next = t->next;
    pthread_mutex_unlock(&t->lock);
    return next;
}
