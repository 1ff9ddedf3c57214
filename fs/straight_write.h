/*
 * Writing straight to the pool: a file that this mount alone has open, and writes from front to
 * back, is cut into packs here, and its bytes pass no node.
 *
 * A write is acknowledged when its bytes are in this process's memory, under the WRITE lease, as
 * one at a node is when they are in the node's. They become records of up to 1 MiB; several packs
 * of a cut are written at once. A cut is confirmed when all its packs are on stable storage, cuts
 * of a file one after the other: so the pool holds a moment of the file at any time. fsync, a
 * recall, a read, the last close and everything else that is not the next write close the cut and
 * wait for its confirm; what is not a sync ends this way of writing, and what follows goes through
 * a home.
 *
 * Errors. What was acknowledged and not synced is lost when the pool fails, when the mount dies, or
 * when a recall cannot be answered in time (STRAIGHT_END_MS): fsync says so, on each handle once.
 * What was confirmed stays.
 *
 * Threads: STRAIGHT_THREADS write packs, and may wait for the pool; they are started when the first
 * file is written so. Everything here may be called from any thread. Locks: a file's lock is inside
 * its inode's, the writer's inside that.
 */
#ifndef UMBEL_FS_STRAIGHT_WRITE_H
#define UMBEL_FS_STRAIGHT_WRITE_H

#include "fs/kreq.h"

/* Packs of one cut that are written at once; while they are synced, those of the next one are
 * written. */
#define STRAIGHT_LANES   4
#define STRAIGHT_THREADS (2 * STRAIGHT_LANES)
/* Memory for records, over all files, 1 MiB each: 8 for each pack of a cut. */
#define STRAIGHT_BUFFERS (8 * STRAIGHT_LANES)
/* Records of one cut: each pack takes a few less than POOL_PACK_TARGET, so that none is ever full.
 */
#define STRAIGHT_CUT_RECORDS (60 * STRAIGHT_LANES)
/* Consecutive records of one pack. */
#define STRAIGHT_STRETCH 8
/* The centre ends the session of a mount that does not answer a recall within 10 s. */
#define STRAIGHT_END_MS 8000
/* A pack that cannot be begun is tried so long. */
#define STRAIGHT_POOL_MS 60000
/* Files that are written so at one time; more go through nodes. Each may have a buffer. */
#define STRAIGHT_FILES_MAX 64
/* So long the end of a mount waits for what was closed but is not confirmed. */
#define STRAIGHT_DRAIN_MS 120000

struct straight_writer;
struct straight_file;

int straight_writer_new(struct worker *w, struct straight_writer **out);
void straight_writer_stop(struct straight_writer *s);
void straight_writer_free(struct straight_writer *s); /* after the timer's end */
uint64_t straight_bytes_written(const struct straight_writer *s);

/* A WRITE that is about to go to a node. true: it is taken, and done gets an answer as a home gives
 * it, or an error; or it is asked again, as data_ask would. */
bool straight_take(struct kreq *q, kreq_fn done);
/* A WRITE that nodes do not take, for want of room or because there is none: the same, if it is the
 * next one of a file that is written from front to back. */
bool straight_take_again(struct kreq *q, kreq_fn done);

typedef void (*straight_fn)(void *arg, int status);
/* When all that was acknowledged of the file is confirmed: fn, perhaps at once. 1: the file is not
 * written so, and fn will not run; 0: it will. end: what follows goes through a home; then a
 * failure is the handles' to hear at fsync. late: in time for a recall. */
int straight_sync(struct worker *w, uint64_t ino, bool end, bool late, straight_fn fn, void *arg);
/* Bytes of q's file that its handle has not heard of are lost: why, once. */
int straight_lost(struct kreq *q);
bool straight_is_on(struct worker *w, uint64_t ino);
/* At the end of the mount: until all that was acknowledged is confirmed or has failed. */
void straight_drain(struct worker *w);

#endif
