/*
 * Which writes go straight to the pool: those of a file that was empty and is written from front to
 * back, from direct_size on; or from its first byte, if its size is announced and as large, or if
 * umbel.direct asks for it. Pure.
 */
#ifndef UMBEL_FS_STRAIGHT_WATCH_H
#define UMBEL_FS_STRAIGHT_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* An fsync makes packs of what there is. Who asks for so many with less than so many bytes between
 * them writes a journal, not an upload: a node does that better. */
#define STRAIGHT_SYNC_BYTES (16u << 20)
#define STRAIGHT_SYNCS_MAX  4
/* Files that are larger go straight while nodes have no room: a record. Smaller ones are better off
 * in the packs that nodes make of many. */
#define STRAIGHT_NO_ROOM_BYTES (1u << 20)

struct straight_watch {
    bool on;
    bool asked;         /* umbel.direct, or there is no node */
    bool only;          /* there is no node */
    bool no_room;       /* nodes have none */
    uint64_t next;      /* all writes together end here */
    uint64_t announced; /* size that it was given before it had data */
    uint64_t not_before;
    uint64_t synced; /* where the last fsync found it */
    unsigned syncs;  /* in a row, with few bytes between them */
};

/* The file is empty now. */
void straight_watch_empty(struct straight_watch *w, bool asked);
/* Its size was set, or room for so much was asked for, and nothing written. */
void straight_watch_size(struct straight_watch *w, uint64_t size);
/* A write is about to begin. true: it may go straight, and all after it. direct_size 0: not known.
 */
bool straight_watch_write(struct straight_watch *w, uint64_t offset, uint64_t length,
                          uint64_t direct_size);
/* It could not be begun now: it is tried again when as much has been written once more. */
void straight_watch_later(struct straight_watch *w, uint64_t direct_size);
/* The last write, which nodes do not take, is about to begin once more. true: it may go straight.
 */
bool straight_watch_again(struct straight_watch *w, uint64_t offset, uint64_t length);
/* An fsync. true: there are too many of them. */
bool straight_watch_sync(struct straight_watch *w);

#endif
