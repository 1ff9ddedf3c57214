/*
 * The store's mark: a small file of two slots that says whose store this is, in which boot of the
 * machine it was last used, whether it was closed cleanly, and how much of the journal is on stable
 * storage.
 *
 * Each write goes to the slot that is not the newest, so that a torn write leaves the one before.
 * Threads: any.
 */
#ifndef UMBEL_NODE_MARK_H
#define UMBEL_NODE_MARK_H

#include "nodecache/journal.h"

#define MARK_FORMAT 1u

struct mark_values {
    char store[40];    /* id of the store, fixed for its life */
    char boot[40];     /* boot id of the machine of the last use */
    uint64_t instance; /* kept over restarts within one boot: the page cache survived */
    bool clean;
    bool tail_lost; /* the machine crashed, and the centre has not heard what is left */
    struct journal_mark journal;
    uint64_t
        ino_mark; /* no inode number at or beyond this was ever seen; always on stable storage */
};

struct mark;

/* -ENOENT: no file there and !create; -EBADMSG: no slot is intact; -EPROTONOSUPPORT: a newer
 * format. With create the file is made with the given values. */
int mark_open(int dir, bool create, const struct sync_ops *ops, struct mark_values *values,
              struct mark **out, char detail[NODE_DETAIL]);
void mark_close(struct mark *m);

/* Each writes the whole; durable: synced before it returns. */
int mark_set(struct mark *m, const struct mark_values *values, bool durable);
int mark_set_journal(struct mark *m, struct journal_mark journal);
/* tail_lost ends, durably. */
int mark_set_told(struct mark *m);
/* Makes ino_mark greater than ino, in steps of MARK_INO_STEP. */
int mark_raise_ino(struct mark *m, uint64_t ino);

/* One fdatasync for so many new files; after a crash of the machine so many are asked for at the
 * centre once. */
#define MARK_INO_STEP 65536u

#endif
