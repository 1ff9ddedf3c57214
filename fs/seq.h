/*
 * Numbers of mutations (star's Head): unique in a session, growing, and what the centre may forget.
 * Thread-safe.
 */
#ifndef UMBEL_FS_SEQ_H
#define UMBEL_FS_SEQ_H

#include <pthread.h>
#include <stdint.h>

/* Numbers between the oldest unanswered mutation and the newest: one that waits out its 60 s
 * deadline holds the window while others go on at the rate that FUSE can reach (about 10000/s). A
 * power of two. */
#define SEQ_WINDOW (1u << 20)

struct seq_tracker {
    pthread_mutex_t lock;
    uint64_t next;   /* not given out yet */
    uint64_t lowest; /* all below are answered */
    uint64_t *done;  /* bit (seq % SEQ_WINDOW) for [lowest, next) */
};

int seq_init(struct seq_tracker *t);
void seq_destroy(struct seq_tracker *t);

/* The next number and, in *acked, the lowest unanswered one. 0: the window is full. */
uint64_t seq_begin(struct seq_tracker *t, uint64_t *acked);
/* seq was answered, or nobody will ask for it again. */
void seq_end(struct seq_tracker *t, uint64_t seq);

uint64_t seq_acked(struct seq_tracker *t);
uint64_t seq_next(struct seq_tracker *t);

#endif
