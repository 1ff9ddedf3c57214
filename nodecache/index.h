/*
 * The persistent index: which change of a file is which journal record, how records become files
 * again, checkpoints.
 *
 * Rule: a change is journaled first, then made in memory, both under file->lock, so the journal's
 * order is the order of each file's life. Records set or remove ranges and overwrite scalars, so
 * replaying some that a checkpoint row already holds does no harm (they are skipped by sequence
 * number anyway).
 *
 * A checkpoint is a file of the same records: rows with their ranges, between a head and an end. It
 * is written to a temporary name, synced, renamed; then the segments before the one that it names
 * are removed.
 */
#ifndef UMBEL_NODE_INDEX_H
#define UMBEL_NODE_INDEX_H

#include "nodecache/file.h"
#include "nodecache/journal.h"

struct index {
    int dir;
    struct sync_ops sync_ops;
    struct journal *journal;
    uint64_t bound;                   /* least size of a segment before a checkpoint */
    _Atomic uint64_t checkpoint_size; /* of the last one: the journal may grow as large */
};

/* The journal's share of the capacity, charged at the start: two segments at their hard bound. */
uint64_t index_bound(uint64_t capacity);
uint64_t index_base_charge(uint64_t bound);

/* --- changes; f->lock is held. They append to the journal (with f's row first, if it has none yet)
 * and then change the scalars and ranges of f. On an error nothing has changed. --- */

/* All scalars of f become those of *row (ranges are cut at its size). */
struct row {
    uint64_t home_epoch, version, size, base_limit, cut_number, cut_pack;
    uint64_t synced_size, synced_version, logged_version;
    struct timespec mtime, ctime;
    bool is_home, mapped, doubt, cut_partial, sync_failed;
};
void row_of(const struct file *f, struct row *row);
int index_row(struct index *x, struct file *f, const struct row *row);
/* As JOURNAL_LATER. */
int index_row_later(struct index *x, struct file *f, const struct row *row);
/* Before bytes are written: can it be journaled? -EIO: no more; -EXFULL: after a checkpoint. */
int index_ready(struct index *x);
/* [start, end) was written: present and staged. */
int index_write(struct index *x, struct file *f, uint64_t start, uint64_t end,
                const struct row *row);
/* What makes clean bytes more or fewer takes away the sums of their blocks. */
/* These blocks' clean bytes have these sums. */
int index_sums(struct index *x, struct file *f, uint64_t block, uint32_t count,
               const uint64_t *sums);
/* [start, end) was fetched: present, clean. */
int index_fill(struct index *x, struct file *f, uint64_t start, uint64_t end);
/* [start, end) is no longer here at all. */
int index_discard(struct index *x, struct file *f, uint64_t start, uint64_t end);
/* These staged ranges are in the pool; as JOURNAL_LATER: the centre knows it, too. */
int index_clean(struct index *x, struct file *f, const struct ranges *clean, const struct row *row);
/* `durable` is on stable storage, as of version and size; NULL: all that is staged. */
int index_synced(struct index *x, struct file *f, const struct ranges *durable, uint64_t version,
                 uint64_t size);
int index_forget(struct index *x, struct file *f);

bool index_wants_checkpoint(struct index *x);
/* The caller makes sure that only one runs at a time. */
int index_checkpoint(struct index *x, struct table *t, char detail[NODE_DETAIL]);

/* Reads checkpoint and journal into the (empty) table and starts a fresh segment with a new
 * checkpoint later. first: an empty store; nothing is there yet. *torn: a torn tail was cut off. */
struct index_load {
    bool first;
    bool machine_crashed;
    struct journal_mark mark;
    journal_mark_fn on_sync;
    void *ctx;
    bool torn; /* result */
};
int index_open(struct index *x, struct table *t, struct index_load *load, char detail[NODE_DETAIL]);
void index_close(struct index *x);
/* What a crash of the machine leaves of f: what was synced. f must not be in use. */
int index_power_loss(struct file *f);

#endif
