/*
 * Private to fs/: the worker's parts, and how its files call each other.
 *
 * Threads: the main thread (waits for the end), WORKER_READERS readers of /dev/fuse, one thread of
 * the client to the centre, one per connection to a node, the notify pool, the timer. A request is
 * answered asynchronously: a reader makes a kreq, sends, and goes back to reading; the thread that
 * receives the answer replies to the kernel.
 *
 * Order. Answers and recalls of the centre are handled in the order in which they came, in the
 * client's thread: the kernel has been told everything that was granted before a recall of it goes
 * to the notify pool.
 *
 * Locks, outermost first: centre.link_lock (read side around a call), centre.opens_lock, one shard
 * of the inode table, then leaves (seq, leases to be returned, connections, controls). No lock is
 * held while something waits for the network or for the notify pool.
 */
#ifndef UMBEL_FS_WORKER_H
#define UMBEL_FS_WORKER_H

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 314
#endif
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "control/wire/awake.h"
#include "control/wire/client.h"
#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "fs/conns.h"
#include "fs/init_patch.h"
#include "fs/inode_table.h"
#include "fs/mount.h"
#include "fs/notify.h"
#include "fs/seq.h"
#include "fs/timer.h"

#define ROOT_INODE   1ull
#define CONTROL_NAME ".umbel"

#define WORKER_READERS 3
/* A mutation or question waits so long for the centre (a leader's election takes below 1 s, a
 * restart a few). */
#define METADATA_DEADLINE_MS 60000
/* A command in a control file: the centre answers when its nodes have done it, or gives them up
 * after 600 s. */
#define COMMAND_DEADLINE_MS 630000
/* statfs, and getattr of the root: then the last known answer. */
#define NEVER_BLOCK_MS 500
/* A data request waits so long for an answer. When what it needs is away it goes on: waits.h. */
#define DATA_DEADLINE_MS 60000
/* One attempt: a node may have to fetch from a slow pool. */
#define DATA_ATTEMPT_MS 30000
/* A change that was sent must have begun at the node so long before we give it up: then it does not
 * come late, when the application has done something else. */
#define DATA_EXPIRY_MS 1000
/* So long a full node may take to make room, and so often it is asked. */
#define ROOM_DEADLINE_MS 40000
#define ROOM_RETRY_MS    100
/* One attempt at a node that we have no connection to: then the centre is asked where else to go.
 */
#define DATA_AWAY_MS 3000
/* Later attempts wait a little, so that two confused peers do not spin. */
#define DATA_RETRY_MS 100
/* A read at one of several copies: then another one is asked. A cold read of a slow pool may take
 * that long; it is only asked twice. */
#define DATA_COPY_MS      5000
#define DATA_COPY_AWAY_MS 500
/* So many nodes are left out before the answer of the next one counts. */
#define DATA_AVOID_MAX 3
/* To finish what is in flight at the end. */
#define DRAIN_MS 10000
/* To reach the centre at the start. */
#define START_DEADLINE_MS 20000
/* Largest copy_file_range of one request: it must end well before the deadline. */
#define COPY_RANGE_MAX (64u << 20)
/* "Infinite" for the kernel, under a lease. */
#define LEASED_TIMEOUT 1e9

/* The part of fs/keeper.c's memory that outlives a worker. */
struct keeper_page {
    struct init_message init;
};

struct leases;   /* leases.c */
struct recalls;  /* recall.c */
struct controls; /* control_files.c */
struct pool_access;
struct straight_reader;
struct straight_writer;
struct waits; /* waits.c */

struct centre_link; /* centre.c: one client and its session */

struct centre {
    struct centre_link *link;
    pthread_rwlock_t link_lock;  /* written when a lost session is replaced */
    pthread_rwlock_t opens_lock; /* read: a handle is closed and its RELEASE numbered; written: what
                                    is open is listed */
    struct seq_tracker seq;
    uint64_t instance;      /* of this process */
    atomic_uint generation; /* grows when a session is lost: older handles are dead */
    atomic_bool connected, fenced;
    atomic_uint reclaims;       /* begun since the start */
    _Atomic int64_t ahead_ns;   /* its time of day before ours */
    _Atomic int64_t renewed_ms; /* when the newest answered RENEW or HELLO was sent; 0: never */
    _Atomic int64_t resumed_ms; /* when the newest HELLO was sent that found our session alive */
    atomic_uint renew_ms, fence_ms;
    int lost_fd;                /* eventfd: the session has expired */
    pthread_mutex_t start_lock; /* of the rest */
    pthread_cond_t start_changed;
    bool started;
    int start_error; /* the newest refusal */
    char start_detail[256];
};

struct statfs_cache {
    pthread_mutex_t lock;
    bool known;
    struct statvfs st;
    bool root_known;
    struct stat root;
};

struct worker {
    const struct mount_options *options;
    struct keeper_page *page;
    struct fuse_session *se;
    int fd; /* of /dev/fuse */
    struct init_result init;
    atomic_bool init_done;
    uint64_t init_unique;
    struct awake *awake; /* NULL: not to be had here */
    pthread_t readers[WORKER_READERS];
    pthread_key_t reader_key; /* struct reader of this thread */
    atomic_bool stopping;
    int ended_fd; /* eventfd: a reader has seen the end of the connection */
    struct inode_table inodes;
    struct centre centre;
    struct identity *identity; /* NULL: everything is on this machine */
    struct conns *conns;
    struct notify_pool *notify;
    struct timer_queue *timer;
    struct leases *leases;
    struct recalls *recalls;
    struct controls *controls;
    struct pool_access *pool;
    struct straight_reader *reader;
    struct straight_writer *writer;
    struct waits *waits;
    _Atomic uint64_t direct_size; /* the setting; 0: not known */
    struct statfs_cache statfs;
    struct buffers *buffers;
    atomic_uint next_handle;
    atomic_uint requests; /* in flight */
};

/* --- worker.c --- */
/* Serves the descriptor until the filesystem is unmounted or SIGTERM. report_fd: "ready\n" or
 * "error: TEXT\n". */
int worker_run(const struct mount_options *options, int fuse_fd, struct keeper_page *page,
               int report_fd);
/* The message that this thread is handling, as the kernel wrote it. Only in an operation called by
 * a reader. */
const void *worker_message(struct worker *w);
/* Keeps the memory of the message that is being handled: its reader takes another one. Freed with
 * buffers_put. */
void *worker_keep_message(struct worker *w);

/* --- buffers.c --- */
struct buffers *buffers_new(void);
void buffers_free(struct buffers *b);
void *buffers_get(struct buffers *b); /* NULL: none is spare */
void buffers_put(struct buffers *b, void *memory);

/* --- ops.c: the table --- */
const struct fuse_lowlevel_ops *worker_ops(void);
void worker_init_conn(void *userdata, struct fuse_conn_info *conn);

#endif
