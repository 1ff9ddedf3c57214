/*
 * The ballast: a file of real bytes under the control folder. Free space that is only looked at can
 * be taken by anybody in between; what lies here is the centre's, and is given back to the disk
 * step by step when the log or the state need it.
 */
#ifndef UMBEL_CONTROL_BALLAST_H
#define UMBEL_CONTROL_BALLAST_H

#include <stdbool.h>
#include <stdint.h>

/* So much is given back at a time: two segments of the log. */
#define BALLAST_STEP ((uint64_t)16 << 20)

struct ballast {
    int fd;        /* -1: none */
    uint64_t want; /* its size when the disk has room */
    uint64_t held;
};

/* Opens path with what is left of it. want smaller than a step: there is none. 0 or -errno. */
int ballast_open(struct ballast *b, const char *path, uint64_t want);
void ballast_close(struct ballast *b);
/* Takes back what is missing, as far as `free` bytes of the disk beyond `keep` allow. A filesystem
 * that cannot reserve bytes has no ballast from then on (want 0). */
void ballast_fill(struct ballast *b, uint64_t free, uint64_t keep);
/* Gives up to `bytes` (rounded up to steps) to the disk. false: there is nothing left. */
bool ballast_release(struct ballast *b, uint64_t bytes);
/* All of it is there. */
bool ballast_whole(const struct ballast *b);

#endif
