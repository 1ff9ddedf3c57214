/*
 * Keeps the machine's idle processors from sleeping while we work.
 *
 * A request passes from thread to thread (application, FUSE, mount, server, and back). In a virtual
 * machine waking a sleeping processor costs some 25 us for each such step, more than all the work:
 * here a call to the centre takes 61 us with sleeping processors and 8 us without. So while
 * requests come in numbers, we hold the kernel's latency request (/dev/cpu_dma_latency at 0: idle
 * processors poll), and let go when they end. Needs root and the device; without them everything
 * works, only slower.
 *
 * One for each process that sees the requests first: the mount. Thread-safe.
 */
#ifndef UMBEL_WIRE_AWAKE_H
#define UMBEL_WIRE_AWAKE_H

#include <stdbool.h>

/* Requests are counted over this time. */
#define AWAKE_TICK_MS 10
/* From so many requests in a tick on it is worth it: 2000/s, each of which would have cost a sleep
 * or two. */
#define AWAKE_BUSY 20
/* After so many ticks with less, it is let go. */
#define AWAKE_LINGER 5

struct awake;

/* -errno of opening the device, or of making the thread; *out is NULL then, which the others take.
 */
int awake_start(struct awake **out);
/* A request has come: costs a few nanoseconds. */
void awake_touch(struct awake *a);
/* Whether the processors are held now. */
bool awake_holds(struct awake *a);
void awake_stop(struct awake *a);

#endif
