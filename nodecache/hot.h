/*
 * Which files are read most at this node, in a fixed number of slots: a Space-Saving summary
 * (Metwally, Agrawal, El Abbadi: Efficient computation of frequent and top-k elements in data
 * streams, 2005). A file that gets more than 1/HOT_SLOTS of all bytes read is surely among them.
 *
 * Threads: any. The lock is a leaf.
 */
#ifndef UMBEL_NODE_HOT_H
#define UMBEL_NODE_HOT_H

#include <pthread.h>
#include <stdint.h>

#define HOT_SLOTS 64
/* Files in one report. */
#define HOT_TAKE_MAX 16
/* Less than this, in bytes between two reports, is not worth telling. */
#define HOT_LEAST (256u << 10)

struct hot_file {
    uint64_t ino;
    uint64_t bytes; /* read */
    uint64_t over;  /* of them, at most so many are others' */
};

struct hot {
    pthread_mutex_t lock;
    unsigned n;
    struct hot_file slots[HOT_SLOTS];
};

void hot_init(struct hot *h);
void hot_destroy(struct hot *h);
void hot_note(struct hot *h, uint64_t ino, uint64_t bytes);
/* Those of which at least HOT_LEAST bytes were surely read since the last call, with these bytes,
 * most first; returns how many. */
unsigned hot_take(struct hot *h, struct hot_file out[HOT_TAKE_MAX]);

#endif
