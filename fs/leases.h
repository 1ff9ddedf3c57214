/*
 * Leases at the mount: what the centre grants, recalls, and gets back.
 *
 * A recall marks the inode in the client's thread: from then on nothing is answered from memory.
 * Then the notify pool invalidates the kernel, then the recall is answered. A WRITE lease that is
 * being recalled still counts for writes (write_recalls): nobody else caches anything before the
 * recall is answered, and the kernel may hold pages locked that only the write's answer lets go.
 */
#ifndef UMBEL_FS_LEASES_H
#define UMBEL_FS_LEASES_H

#include "fs/kreq.h"

/* RETURN_LEASES are collected for so long, or until there are so many. */
#define RETURN_MS    100
#define RETURN_BATCH 512
/* Everything is dropped within this, or the kernel is waiting for something that waits for the
 * centre. */
#define DROP_MAX_MS 5000

int leases_start(struct worker *w);
void leases_stop(struct worker *w);

/* The inode table's callback. */
void leases_returned(void *ctx, uint64_t ino);

/* In the client's thread, i locked: what may be kept under the answer to q. */
Star__Lease leases_take(const struct kreq *q, struct inode *i, Star__Lease lease);
/* The first half of it: may an answer to q be kept at all? */
bool leases_may_take(const struct kreq *q, const struct inode *i);
/* dir is locked, its names leased: the timeout for an answer to the kernel now. */
double leases_name_timeout(struct worker *w, struct inode *dir);
/* Names in dir: the entry timeout for the kernel. */
double leases_take_entry(const struct kreq *q, uint64_t dir, bool granted);
double leases_take_listing(const struct kreq *q, uint64_t dir, bool granted);

/* Without INC_EPOCH: when the last entry timeout that was granted ends. */
int64_t leases_entries_until(struct worker *w);

/* --- recall.c --- */

int recalls_start(struct worker *w);
void recalls_stop(struct worker *w);

/* A RECALL came; in the client's thread. */
void leases_recall(struct worker *w, struct client *client, const struct message *m);

/* Nothing is kept any more. held: the centre still honours the WRITE leases until this has ended (a
 * reclaim). done (may be NULL) runs when the kernel has forgotten everything, at the latest after
 * DROP_MAX_MS. */
void leases_drop_all(struct worker *w, bool held, void (*done)(void *arg), void *arg);

/* A write to i (locked) that is now done may be acknowledged without telling the centre. */
bool leases_write_is_private(struct worker *w, const struct inode *i);

#endif
