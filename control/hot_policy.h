/*
 * Hot files: when another node shall cache a file, and when one copy too many goes. Plain C without
 * I/O.
 *
 * A copy is added when each of those that there are is read faster than the limit; one is taken
 * away when the others would be read at less than half of it, for some time. So what was added is
 * not taken away at once, and the other way round.
 */
#ifndef UMBEL_CONTROL_HOT_POLICY_H
#define UMBEL_CONTROL_HOT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* Weight of the newest second: a burst of one second does not make a file hot, three do. */
#define HOT_SMOOTH 0.3
/* A rate below this is nothing: the file is forgotten. */
#define HOT_NOTHING 4096.0

struct hot_rate {
    double rate;     /* bytes per second read at nodes, smoothed */
    int64_t cool_ms; /* since when one copy less would do; 0: it would not */
    unsigned copies; /* nodes that have all of it */
    unsigned extra;  /* of them made by the centre */
};

struct hot_limits {
    uint64_t rate;      /* of one copy, in bytes per second; 0: no file is hot */
    unsigned copies;    /* that a file may have */
    int64_t cool_after; /* ms */
};

enum hot_step { HOT_STAY, HOT_ADD, HOT_REMOVE };

/* So many bytes were read in the last `ms` > 0. */
void hot_sample(struct hot_rate *h, uint64_t bytes, int64_t ms);
/* What to do now; keeps cool_ms. */
enum hot_step hot_decide(struct hot_rate *h, const struct hot_limits *l, int64_t now);

#endif
