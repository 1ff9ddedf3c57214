/*
 * What the node knows of one inode, and the table of all of them.
 *
 * Invariants, under file->lock: staged, synced and cut->... are subsets of present; present is a
 * subset of [0, size). Bytes of the flat file outside `present` mean nothing. A byte that is not
 * present lies in the pool if `mapped` and below base_limit, else it is zero.
 *
 * Locks, in this order: file->lock (one at a time) > shard lock, staged-list lock, changed-list
 * lock, journal, space, map cache. A shard's lock is held for a look-up or a list move only. A file
 * is freed when its last reference goes; the table holds one until the file is `gone`.
 */
#ifndef UMBEL_NODE_FILE_H
#define UMBEL_NODE_FILE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <uthash.h>

#include "nodecache/ranges.h"
#include "nodecache/space.h"
#include "nodecache/sums.h"

#define FILE_SHARDS 16u
/* Rows of the index in memory, of about 600 bytes; beyond, new inodes wait as for space. From half
 * of it on, rows without data are forgotten at once. */
#define FILES_MAX (2u << 20)
/* Charged against the capacity per inode and per range: two checkpoints, the journal between them,
 * a folder entry. */
#define FILE_CHARGE  1024u
#define RANGE_CHARGE 64u
#define LIMIT_NONE   UINT64_MAX

struct cut;

/* What the log may know of a file's data. */
struct attrs {
    uint64_t ino, size, version, home_epoch, bytes;
    struct timespec mtime, ctime;
};

/* A fetch from the pool in flight; lives on its thread's stack or in the fetch queue. */
struct fetching {
    struct fetching *prev, *next;
    uint64_t start, end;
    struct ranges poison; /* changed meanwhile: must not be filled in */
    bool poisoned_all;
};

struct file {
    UT_hash_handle hh;
    uint64_t ino;
    _Atomic unsigned refs;
    struct file *lru_prev, *lru_next; /* shard's, newest first */
    struct file *fd_prev, *fd_next;   /* shard's list of files with an open descriptor */
    _Atomic int64_t used_at;          /* clock_boot_ms of the last use */
    int64_t looked_at;                /* round of eviction that met it; under the shard's lock */
    _Atomic bool fd_hot;
    _Atomic bool forgotten; /* = gone, for who holds the shard's lock only */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a fetch, an fsync or the cut ended, frozen bytes were read */
    bool known;             /* base attributes were taken from a ticket or the centre */
    bool gone;              /* no longer in the table: look it up again */
    bool journaled;         /* the journal or checkpoint has a row for it */
    bool row_stale;         /* but not with the newest scalars: the next record brings them */
    bool is_home;
    bool mapped;
    bool cut_partial; /* the cut noted last has left staged bytes out */
    bool leaving;     /* its clean bytes are about to go: the cache table has its line no more */
    bool told_gone;   /* the line that was told last says that nothing is here */
    bool doubt;       /* recovered after a crash of the machine, not yet compared with the centre */
    bool has_file;    /* there is a flat file */
    bool sync_failed; /* the kernel may have thrown written bytes away as clean */
    bool syncing;     /* an fsync is at its bytes, outside the lock */
    bool name_synced; /* its folder entry is on stable storage */
    uint64_t home_epoch, version, size;
    struct timespec mtime, ctime;
    uint64_t base_limit; /* pool bytes at and beyond this are dead */
    uint64_t cut_number; /* last one used in home_epoch */
    uint64_t cut_pack;   /* lowest pack of a cut that was sent and not yet answered; 0: none */
    uint64_t synced_size, synced_version; /* what a crash of the machine leaves */
    uint64_t logged_version;              /* what the centre's log has */
    uint64_t seq;                         /* journal sequence of the last change */
    struct ranges present, staged, synced;
    struct sums sums; /* of the clean bytes */
    uint64_t charge;  /* bytes taken of the capacity */
    struct cut *cut;  /* running, or NULL */
    struct fetching *fetches;
    uint64_t read_next;  /* where a sequential reader would go on */
    unsigned sequential; /* reads in a row that did */
    uint64_t ahead;      /* read-ahead was asked for up to here */
    int fd;
    unsigned fd_users; /* fd is in use outside the lock */

    struct file *staged_prev, *staged_next; /* under the staged-list lock */
    bool flushing;                          /* a flush has taken it */
    int64_t flush_due; /* someone waits for what was staged up to then (clock_boot_ns); 0: nobody */
    int64_t staged_since;          /* clock_boot_ns of the oldest staged byte */
    int64_t failed_at, retry_at;   /* clock_boot_ns: it could not be flushed; not again before */
    int failed, retry_ms;          /* why */
    bool on_staged_list;           /* changed under both locks */
    _Atomic uint64_t staged_bytes; /* copies of the totals, readable without the lock */
    _Atomic uint64_t present_bytes;
    struct file *changed_next; /* under the changed-list lock */
    _Atomic bool on_changed_list;
};

struct shard {
    pthread_mutex_t lock;
    struct file *files;
    struct file *lru; /* head: newest; its prev: oldest */
    struct file *fds;
    unsigned open_fds;
};

struct table {
    struct shard shards[FILE_SHARDS];
    _Atomic uint64_t count;
    _Atomic uint64_t max_ino; /* largest ever in the table */
    unsigned fds_per_shard;
    int files_dir;
};

int table_init(struct table *t, int files_dir, unsigned fds_max);
/* Closes and frees everything; no references may be left. */
void table_destroy(struct table *t);

/* A reference; NULL: not in the table. */
struct file *file_find(struct table *t, uint64_t ino);
/* The same, without counting as a use. */
struct file *file_peek(struct table *t, uint64_t ino);
/* Finds or makes. NULL: no memory. -> check `known` under the lock. */
struct file *file_get(struct table *t, uint64_t ino);
struct file *file_ref(struct file *f);
void file_unref(struct file *f);
/* Takes it out of the table; f->lock is held, `gone` is set. */
void file_forget(struct table *t, struct file *f);
/* The least recently used file, with a reference, among those that file_looked_at() was not told of
 * since `round` began. NULL: none. */
struct file *file_oldest(struct table *t, int64_t round);
/* It was looked at in this round, and goes behind all others. */
void file_looked_at(struct table *t, struct file *f, int64_t round);
/* All inode numbers of one shard, malloc'd. */
int shard_inos(struct shard *s, uint64_t **inos, size_t *count);

/* The flat file's descriptor, opened (and made, if create) when needed. f->lock is held. -ENOENT:
 * there is none. It stays open while fd_users > 0; otherwise another thread may close it once the
 * lock is dropped. */
int file_fd(struct table *t, struct file *f, bool create);
void file_close_fd(struct table *t, struct file *f);
/* Removes the flat file. f->lock is held. */
int file_unlink(struct table *t, struct file *f);
void file_path(char out[32], uint64_t ino); /* "XX/INO" */

/* The capacity that f takes as it is. */
uint64_t file_charge(const struct file *f);
void file_attrs(const struct file *f, struct attrs *out);
bool file_dirty(const struct file *f); /* has something for the pool */

#endif
