/*
 * A cut: one moment of a file, frozen while the flush reads it.
 *
 * At cut_begin the staged ranges are frozen, and of indices that are to be written whole the clean
 * present ones too. A later change of a frozen byte that was not yet read first copies the old byte
 * into a side file (cuts/INO). A truncation below unread frozen bytes cancels the cut: the file
 * stays staged and is flushed another time. Nothing is taken out of the staged set before the
 * centre has confirmed.
 *
 * All functions: file->lock is held.
 */
#ifndef UMBEL_NODE_CUT_H
#define UMBEL_NODE_CUT_H

#include "nodecache/clean.h"

struct cut {
    struct attrs attrs; /* of that moment */
    uint64_t base_limit;
    bool mapped;
    int64_t frozen_at; /* clock_boot_ns */
    struct ranges frozen;
    struct ranges unread;    /* of frozen */
    struct ranges side;      /* of frozen: the old bytes are in the side file */
    struct ranges rewritten; /* changed since */
    bool partial;            /* not all that was staged is frozen */
    uint64_t trunc_limit;    /* truncated since, down to here */
    bool cancelled;
    int side_fd;
    struct clean_pieces pieces; /* sums of what was read */
    uint64_t side_charge;
};

/* whole: the stretches (indices, cut at the size) that are to be written whole. limit: bytes at and
 * beyond it are left for the next cut (a multiple of NODE_INDEX, or LIMIT_NONE). */
int cut_begin(struct file *f, const struct ranges *whole, uint64_t limit);
/* Before [start, end) changes. -EAGAIN: no room for the old bytes; wait for the flush to read on.
 * If they cannot be kept, the cut is cancelled: the next one takes the new bytes. -ENOMEM */
int cut_preserve(struct store *s, struct file *f, uint64_t start, uint64_t end);
int cut_truncate(struct file *f, uint64_t size);
void cut_cancel(struct file *f);
/* Frozen bytes in [start, end), to out + (offset - start); they count as read. -ECANCELED */
int cut_read(struct store *s, struct file *f, uint64_t start, uint64_t end, uint8_t *out);
/* Ends it. confirmed: what was frozen and not changed since becomes clean; records: some were
 * written. */
int cut_end(struct store *s, struct file *f, bool confirmed, bool records);

#endif
