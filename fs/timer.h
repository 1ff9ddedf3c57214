/* Things to be done later, in one thread. What runs there must not block. */
#ifndef UMBEL_FS_TIMER_H
#define UMBEL_FS_TIMER_H

#include <stdint.h>

struct timer_queue;

int timer_queue_start(struct timer_queue **out);
/* Joins the thread. What is still due is run now, so that nobody waits for ever. */
void timer_queue_stop(struct timer_queue *t);
/* -ENOMEM. */
int timer_queue_after(struct timer_queue *t, int64_t ms, void (*fn)(void *arg), void *arg);

#endif
