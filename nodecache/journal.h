/*
 * The journal: an append-only sequence of small binary records in segment files "journal.N".
 *
 *   record = header (magic, type, length, segment, sequence, synced, check) | body
 *
 * One append is one write(2): what it holds is in the page cache and so outlives the process. One
 * that may come later (JOURNAL_LATER) waits in memory for the next that may not, for journal_push
 * or journal_sync, or until the buffer is full; the order stays that of the appends.
 * journal_sync makes it outlive the machine; syncs that overlap share one fdatasync. `synced` in a
 * header is the newest sequence number known to be on stable storage when the record was made,
 * which tells replay whether a damaged place was ever promised.
 *
 * Replay. A bad record followed by nothing is a torn tail and is cut off silently, unless the mark
 * (mark.h) says that it was synced. A bad record followed by good ones is damage (-EBADMSG), except
 * after a crash of the machine where the disk may have kept later blocks only: then it is damage if
 * any later record knows it as synced. Blank segments behind it are those of starts that ended
 * before their checkpoint: they do not count.
 *
 * Errors. A failed write is taken back by truncation; records that waited go on waiting. If that
 * fails too, or a sync fails, the journal is broken: every later append and sync is -EIO, because
 * what is on the disk is unknown.
 *
 * Threads: any. The lock is a leaf.
 */
#ifndef UMBEL_NODE_JOURNAL_H
#define UMBEL_NODE_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_BODY_MAX (128u << 10)
/* Records in one append: an inode's row, and the change. */
#define JOURNAL_BATCH_MAX 4u
#define NODE_DETAIL       256

/* How to reach stable storage; a test double records what did. NULL functions: fdatasync(2) and
 * fsync(2). */
struct sync_ops {
    int (*sync)(void *ctx, int fd, bool data_only);
    void *ctx;
};
int sync_fd(const struct sync_ops *ops, int fd, bool data_only); /* 0 or -errno */

/* Up to where the journal is surely on stable storage, or at a clean stop its exact end. */
struct journal_mark {
    uint64_t segment, offset;
};

struct record {
    uint16_t type;
    const void *body;
    size_t length;
    uint64_t seq; /* replay only */
};

struct journal;

/* Called after each successful sync, with no lock held by the journal; may be NULL. */
typedef void (*journal_mark_fn)(void *ctx, struct journal_mark mark);

/* Starts a fresh segment; its first record gets next_seq. bound: the hard size of a segment. */
int journal_start(int dir, uint64_t segment, uint64_t next_seq, uint64_t bound,
                  const struct sync_ops *ops, journal_mark_fn mark, void *ctx,
                  struct journal **out);
void journal_stop(struct journal *j);

/* JOURNAL_LATER: only for what nobody was told yet, and what a restart finds out again. It is
 * written at once if its space cannot be taken ahead. */
enum journal_when { JOURNAL_NOW, JOURNAL_LATER };
/* Appends n records with one write. *seq: of the last. -ENOSPC (also: segment full), -EIO. Nothing
 * is appended then. */
int journal_append(struct journal *j, const struct record *records, unsigned n,
                   enum journal_when when, uint64_t *seq);
/* Everything appended so far outlives the process when this returns 0. -ENOSPC, -EIO */
int journal_push(struct journal *j);
/* Everything up to record seq (UINT64_MAX: the last) is on stable storage when this returns 0. */
int journal_sync(struct journal *j, uint64_t seq);
/* Syncs the segment and goes on in a fresh one, *segment; *seq: of the last record before it. */
int journal_rotate(struct journal *j, uint64_t *segment, uint64_t *seq);
void journal_set_bound(struct journal *j, uint64_t bound);
uint64_t journal_size(struct journal *j); /* of the current segment */
bool journal_is_broken(struct journal *j);
uint64_t journal_seq(struct journal *j); /* of the last record */
struct journal_mark journal_end(struct journal *j);

/* A segment of an earlier process to stable storage. -ENOENT. */
int journal_sync_segment(int dir, uint64_t segment, const struct sync_ops *ops);
/* -ENOENT: it is not there. */
int journal_remove(int dir, uint64_t segment);

struct journal_replay {
    uint64_t first;           /* segment */
    struct journal_mark mark; /* must be there */
    bool machine_crashed;
    int (*record)(void *ctx, const struct record *r);
    void *ctx;
    /* results */
    uint64_t last_segment, last_seq;
    bool torn;
};
/* -EBADMSG: damaged (detail says where). Errors of record() end it. */
int journal_replay(int dir, struct journal_replay *replay, char detail[NODE_DETAIL]);

/* Records outside a segment (checkpoints) use the same form. record_put writes header and body to
 * out (room for record_size); record_get reads one at data: its size, 0 if there is no whole and
 * intact one. */
size_t record_size(size_t body_length);
void record_put(uint8_t *out, uint64_t segment, uint64_t seq, uint64_t synced,
                const struct record *r);
size_t record_get(const uint8_t *data, size_t size, uint64_t segment, struct record *r,
                  uint64_t *synced);

#endif
