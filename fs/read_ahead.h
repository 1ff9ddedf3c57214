/*
 * When to read ahead: what the kernel's requests for one file look like. Pure.
 */
#ifndef UMBEL_FS_READ_AHEAD_H
#define UMBEL_FS_READ_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

/* The kernel has a few requests of 128 KiB in flight, which may pass each other by so much. */
#define READ_AHEAD_SLACK (1u << 20)
/* The distance begins here and doubles while a file is read on; at its largest it is what keeps
 * the readers of the pool busy with one record of 1 MiB each, twice. */
#define READ_AHEAD_MIN (1u << 20)
#define READ_AHEAD_MAX (16u << 20)

struct read_ahead {
    uint64_t next;     /* where the furthest request ended */
    uint64_t asked;    /* up to here it was read ahead */
    uint64_t distance; /* 0: not sequential so far */
};

/* A request of [offset, offset + length) has come, of a file of that size. true: the file is read
 * from front to back, and [*from, *to) is to be read ahead now (it may be empty). */
bool read_ahead(struct read_ahead *r, uint64_t offset, uint64_t length, uint64_t size,
                uint64_t *from, uint64_t *to);

#endif
