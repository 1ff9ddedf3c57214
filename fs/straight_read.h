/*
 * Reading from the pool without a node: the centre says where the file lies (MAP), threads of the
 * mount read there, verified page by page, ahead of who reads from front to back.
 *
 * Threads: straight_read() and straight_seek() from any; what blocks runs in READ_THREADS threads,
 * which are started when the first file is read so. A request that is not done by its deadline is
 * answered EIO while its thread still waits for the pool.
 */
#ifndef UMBEL_FS_STRAIGHT_READ_H
#define UMBEL_FS_STRAIGHT_READ_H

#include "fs/kreq.h"
#include "fs/pool_map.h"

/* One record of 1 MiB each: enough to keep a server of some milliseconds busy. */
#define READ_THREADS 8
/* Records in memory, over all files. */
#define RECORD_CACHE_BYTES (64u << 20)
/* Read-ahead that finds more waiting is left out. */
#define READ_AHEAD_TASKS_MAX 64

struct straight_reader;

int straight_reader_new(struct worker *w, struct straight_reader **out);
/* Ends what waits with -ESHUTDOWN and joins the threads: as long as a call of the pool takes. */
void straight_reader_stop(struct straight_reader *r);
void straight_reader_free(struct straight_reader *r); /* after the timer's end */

/* q->type is READ or SEEK, q->done gets the answer. The place of q's inode says `direct`, or
 * q->direct_once is set. */
void straight_read(struct kreq *q);

uint64_t straight_bytes_read(const struct straight_reader *r);

#endif
