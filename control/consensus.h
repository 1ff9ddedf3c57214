/*
 * The replicated log, behind one header so that its engine (libraft) can be replaced.
 *
 * What is submitted is applied to the state in the log's order, on every control process, exactly
 * once. This file hides: batching (all entries submitted in one turn of the loop are one append),
 * the mapping of applied entries to who waits for them, snapshots (a stub in libraft, the copy of
 * the state in a file of ours), and when the state's turns are committed.
 *
 * The log is the write-ahead log: an entry counts as done when the log has it on stable storage.
 * The state's own transaction may commit later (CONSENSUS_TURN_ENTRIES, CONSENSUS_TURN_MS): after a
 * crash the log is replayed.
 *
 * Failure. libraft reports neither a full disk nor, cleanly, a failed write: consensus_room() looks
 * at the disk before, a ballast holds what the log needs after that, and an append that is overdue
 * by CONSENSUS_APPEND_DEADLINE_MS ends the process, as does any error in apply (invariant 7).
 *
 * Threads: the loop's only.
 */
#ifndef UMBEL_CONTROL_CONSENSUS_H
#define UMBEL_CONTROL_CONSENSUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "control/state.h"

/* Election and heartbeat of section 6 of the design. */
#define CONSENSUS_ELECTION_MS  400
#define CONSENSUS_HEARTBEAT_MS 80
/* Leader reads stop so long before the election timeout could make another leader. */
#define CONSENSUS_READ_MARGIN_MS     50
#define CONSENSUS_APPEND_DEADLINE_MS 20000
/* At most so many applied entries, and so much time, lie between two commits of the state: what a
 * replay after a crash costs, and what batching saves (an LMDB commit is about 15 us). */
#define CONSENSUS_TURN_ENTRIES 512
#define CONSENSUS_TURN_MS      20
/* Entries between snapshots: at least this, growing with the state (half its inodes). */
#define CONSENSUS_SNAPSHOT_MIN 65536
/* ... or so many bytes of them, growing with the state (about half of what it takes for each
 * inode). */
#define CONSENSUS_SNAPSHOT_MIN_BYTES   (128ull << 20)
#define CONSENSUS_SNAPSHOT_INODE_BYTES 256ull
/* Entries kept behind a snapshot, for a deputy that lags a little; 0 means something else to
 * libraft. */
#define CONSENSUS_SNAPSHOT_TRAILING 128
/* What may come SOON waits so long for an entry that is asked for NOW, and shares its append: an
 * append of its own would keep the next mutation waiting for a disk that it does not need
 * (measured: a file's attributes, logged behind its close, doubled the time of the next create). */
#define CONSENSUS_SOON_MS 10
/* A failed copy for a snapshot is tried again after so long. */
#define CONSENSUS_COPY_RETRY_MS 5000
/* Entries waiting to be applied; beyond, consensus_submit says -EBUSY. */
#define CONSENSUS_PENDING_MAX 65536
/* One log segment of libraft is 8 MiB and two more are prepared; the state needs room too. */
#define CONSENSUS_RESERVE_DEFAULT (128ull << 20)

struct consensus;

struct consensus_ops {
    /* This process leads and every older entry has been applied. */
    void (*on_leader)(void *ctx);
    /* It leads no longer: everything pending has been answered -ENOTCONN... and must be asked
     * elsewhere. */
    void (*on_follower)(void *ctx);
    /* Log and state contradict each other: nothing can be served. text says so in one line. */
    void (*on_unusable)(void *ctx, const char *text);
};

/* Opens dir (created at first use), restores the state from the newest snapshot if it is behind,
 * starts the log. detail (256 bytes) gets one line on errors. reserve: bytes held for
 * the log and the state under dir (a file, ballast.h), and half as much again kept free beside it.
 */
int consensus_start(uv_loop_t *loop, const char *dir, uint64_t reserve,
                    const struct consensus_ops *ops, void *ctx, struct consensus **out,
                    char *detail);

/* Stops; done runs when nothing is in flight any more and c is freed. The state is closed clean. */
void consensus_stop(struct consensus *c, void (*done)(void *arg), void *arg);

/* The state that the log writes. */
struct state *consensus_state(struct consensus *c);

/* status < 0: the entry was not and will not be applied by this submit (lost leadership); result is
 * NULL. Otherwise result is what state_apply gave, valid during the call. */
typedef void (*consensus_fn)(void *arg, int status, const struct state_result *result);

/* NOW: at the end of this turn of the loop. SOON: nobody waits for it (CONSENSUS_SOON_MS). Order is
 * that of submission in any case. */
enum consensus_when { CONSENSUS_NOW, CONSENSUS_SOON };

/* Stamps entry (now, and ino if new_ino is set) and appends it. fn runs when it has been applied.
 * -EBUSY: too much pending. -ENOTCONN: not the leader. */
int consensus_submit(struct consensus *c, Star__LogEntry *entry, bool new_ino,
                     enum consensus_when when, consensus_fn fn, void *arg);

/* 0, or -ENOSPC when the disk under the log is down to the reserve: the ballast is not whole, or
 * less than half of the reserve is free beside it. What frees space (confirms, reaps) goes on then,
 * for as long as the ballast lasts. */
int consensus_room(const struct consensus *c);

/* May reads be answered from the state now? Always with one voter; else while leadership is
 * certain. */
bool consensus_leads(const struct consensus *c);

/* What was applied is in the state's last committed turn: before a copy of it is made. */
void consensus_commit_turn(struct consensus *c);
uint64_t consensus_applied(const struct consensus *c);
uint64_t consensus_free_bytes(const struct consensus *c);
uint64_t consensus_ballast_bytes(const struct consensus *c);
/* Bytes that a snapshot waits for; 0: it does not wait. Until it is taken the log grows. */
uint64_t consensus_snapshot_lacks(const struct consensus *c);

#endif
