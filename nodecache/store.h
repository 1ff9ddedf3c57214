/*
 * The flat-file store: one sparse file per inode at the offsets of the user's file, the index of
 * what is present and what is staged, and a hard limit on all of it.
 *
 * Every change is in the page cache and in the journal before its call returns: it outlives the
 * process. It outlives the machine after store_fsync. Staged bytes go only after the pool has them
 * and the centre has said so.
 *
 * Threads: any, for all functions except open and close. Lock order: file.h.
 *
 * Errors of the calls below, besides those of the file system: -ESTALE (the ticket is of an older
 * epoch, the inode is gone, or the node takes nothing new: ask the centre where to go), -EACCES
 * (the ticket lacks the right), -EBUSY (changes: no room now, ask again; flush and eviction work on
 * it), -ENOSPC (none came free for long), -EIO, and for reads what the pool or the centre answered.
 */
#ifndef UMBEL_NODE_STORE_H
#define UMBEL_NODE_STORE_H

#include "nodecache/centre_calls.h"
#include "nodecache/file.h"
#include "nodecache/hot.h"
#include "nodecache/journal.h"
#include "nodecache/pool/pool.h"

/* How long a change waits for room before it is answered -EBUSY: others wait behind it. */
#define ROOM_PATIENCE_MS 200
/* When no change found room for so long, it is -ENOSPC. */
#define NODE_SPACE_DEADLINE_MS 30000
/* A file offset is an off_t. */
#define NODE_SIZE_MAX ((uint64_t)INT64_MAX)
/* One read or write: a frame's payload. */
#define NODE_IO_MAX (1u << 20)
#define NODE_INDEX  (1u << 20) /* the unit of a file's map */

#define RIGHT_READ  1u
#define RIGHT_WRITE 2u

struct store;

struct ticket {
    uint64_t ino;
    unsigned rights;
    uint64_t home_epoch, size, version;
    struct timespec mtime;
    bool mapped;
};

struct store_options {
    const char *dir; /* made if it is not there */
    uint64_t capacity;
    const char *boot_id; /* of the machine */
    struct pool *pool;   /* may be NULL (tests): then nothing is mapped */
    const struct centre_calls *centre;
    void *centre_ctx;
    struct sync_ops sync;
    int space_deadline_ms; /* 0: NODE_SPACE_DEADLINE_MS */
    /* What is worth a line in the log; may be NULL. */
    void (*say)(void *ctx, const char *line);
    void *say_ctx;
};

/* Recovers what is there. -EBUSY: another process uses it. -EBADMSG: it is damaged (detail says
 * where): it is not opened, so that nothing is lost silently. */
int store_open(const struct store_options *options, struct store **out, char detail[NODE_DETAIL]);
/* clean: syncs everything and leaves the mark that makes it trusted after a reboot. No call may be
 * running. */
int store_close(struct store *s, bool clean);

/* Empties the folder of a store that was closed, for a node that has left, but for what lies in
 * lost/. */
int store_remove(const char *dir);

const char *store_id(const struct store *s);
/* Stays the same over restarts within one boot of the machine, as everything acknowledged is still
 * there. */
uint64_t store_instance(const struct store *s);
void store_set_node(struct store *s, uint32_t node);
uint32_t store_node(const struct store *s);
/* percent of the capacity, percent, seconds; nonsense is ignored. */
void store_set_water(struct store *s, uint64_t high, uint64_t low, uint64_t flush_age);
/* Bytes that are free in the pool, as far as is known. */
void store_set_pool_free(struct store *s, uint64_t bytes);
/* true: writes and fallocates are answered -ESTALE, nothing is cached. */
void store_set_closed(struct store *s, bool closed);

/* --- data --- */

int store_write(struct store *s, const struct ticket *t, uint64_t offset, bool append,
                struct timespec now, const void *data, size_t length, struct attrs *attrs,
                uint64_t *placed);

/* As store_write at the end of the file. expected: where the sender believes that to be. If this
 * very append (told by its end and `now`) was done already, it is answered as done; again: an
 * earlier attempt may have been done, and if the end is elsewhere, nobody can tell: -EIO. A first
 * attempt is answered -EBUSY, undone, if the end moved while it waited for room. */
int store_append(struct store *s, const struct ticket *t, uint64_t expected, bool again,
                 struct timespec now, const void *data, size_t length, struct attrs *attrs,
                 uint64_t *placed);

struct store_reading {
    struct attrs attrs;
    size_t length; /* short only at the end of the file */
    int fd;        /* >= 0: the bytes are at offset of fd; else in data */
    uint64_t offset;
    uint8_t *data;
    struct file *file; /* the store's */
};
/* buffer: NODE_IO_MAX bytes of the caller's, used if the bytes cannot be sent from the file. End
 * each success with store_read_done. */
int store_read(struct store *s, const struct ticket *t, uint64_t offset, size_t length,
               uint8_t *buffer, struct store_reading *r, char detail[NODE_DETAIL]);
void store_read_done(struct store *s, struct store_reading *r);

int store_fsync(struct store *s, const struct ticket *t, struct attrs *attrs);
/* *done: so many bytes of the range are finished. Fewer than length: there was room or time for
 * zeros in this part only, and the caller goes on behind it. */
int store_fallocate(struct store *s, const struct ticket *t, uint32_t mode, uint64_t offset,
                    uint64_t length, struct timespec now, struct attrs *attrs, uint64_t *done);
/* -ENXIO: offset is at or beyond the end (also: no data behind it). */
int store_seek(struct store *s, const struct ticket *t, uint64_t offset, bool hole,
               uint64_t *found);
int store_copy_range(struct store *s, const struct ticket *from, uint64_t from_offset,
                     const struct ticket *to, uint64_t to_offset, uint64_t length,
                     struct timespec now, struct attrs *attrs, uint64_t *copied,
                     char detail[NODE_DETAIL]);

/* --- for the centre --- */

/* Attributes of an inode whose home is here. -ENOENT: not known here, the log is right. */
int store_getattr(struct store *s, uint64_t ino, struct attrs *attrs);
struct setattr {
    bool set_size, set_mtime;
    uint64_t size;
    struct timespec mtime, now;
};
int store_setattr(struct store *s, const struct ticket *t, const struct setattr *set,
                  struct attrs *attrs);
/* The centre's log has this version. */
void store_logged(struct store *s, uint64_t ino, uint64_t version);
/* Calls fn for each home whose newest version the log may not have; fn < 0 ends it. */
int store_unlogged(struct store *s, int (*fn)(void *arg, const struct attrs *attrs), void *arg);
/* Compares what a crash of the machine has left with what the centre knows: files of which the
 * index has forgotten something fall back to what is on stable storage here or in the pool. Must
 * return 0 before data is served. *news: the centre must hear of it (store_unlogged) before data is
 * served, then store_doubts_told(). -EBADMSG: what was promised is not there. */
int store_resolve_doubts(struct store *s, bool *news, char detail[NODE_DETAIL]);
int store_doubts_told(struct store *s);
/* Forgets an inode. deleted: its staged bytes too; otherwise staged bytes are put aside in lost/
 * and said so. */
int store_drop(struct store *s, uint64_t ino, bool deleted);
/* Drops what is clean of an inode (0: of all). *bytes grows by what was dropped. -EBUSY: in use,
 * try again. */
int store_evict(struct store *s, uint64_t ino, uint64_t *bytes);
/* Fetches the whole file. */
int store_warm(struct store *s, uint64_t ino, uint64_t *bytes, char detail[NODE_DETAIL]);

/* Verifies clean bytes, from *from on until the end of the store or one of the limits; what is
 * damaged is dropped and fetched again. It is also said as damage. *from: zeros at first; then
 * where to go on, until it says done. -ESHUTDOWN: the store is being closed; the counts are those
 * so far.
 */
struct scrub_place {
    uint64_t shard, ino, offset;
    bool done;
};
struct scrub_limits {
    uint64_t bytes, rate; /* rate: bytes per second */
    int ms;
};
#define SCRUB_DAMAGE_MAX 256u
struct scrub_damage { /* a block of 32 KiB, or what the file has of it */
    uint64_t ino, start, end;
    bool healed;
    char detail[NODE_DETAIL]; /* why not */
};
struct scrub_result {
    uint64_t files, bytes; /* files: that are done with */
    unsigned damaged;
    struct scrub_damage damage[SCRUB_DAMAGE_MAX]; /* a full list ends the call */
};
int store_scrub(struct store *s, struct scrub_place *from, const struct scrub_limits *limits,
                struct scrub_result *result);
/* [start, end) of a file as the pool has it, verified, if all of it is clean here. -ENODATA: it is
 * not. */
int store_clean_bytes(struct store *s, const struct ticket *t, uint64_t start, uint64_t end,
                      uint8_t *out);

/* A line of the cache table that changed. */
struct copy_line {
    uint64_t ino, version, cached, staged;
    bool gone;
};
/* Up to max changed lines, in no order. */
size_t store_changed_lines(struct store *s, struct copy_line *lines, size_t max);
void store_change_all_lines(struct store *s); /* every line counts as changed */
/* kick is called when lines were lost, which the centre should know soon. */
void store_on_lost_lines(struct store *s, void (*kick)(void *ctx), void *ctx);

/* tell is called before clean data goes, without locks that its work could need: when it returns, the
 * centre has the changed lines, in which that data is no more, or cannot be asked and sends nobody
 * here. NULL: no more calls, and none is running. */
void store_before_eviction(struct store *s, void (*tell)(void *ctx), void *ctx);

struct store_counts {
    uint64_t capacity, used, staged, cached, files;
    uint64_t read_bytes, write_bytes, fetched_bytes, flushed_bytes;
};
void store_counts(struct store *s, struct store_counts *out);
/* "" or what is wrong with the store's disk, as of the last minute. */
void store_error(struct store *s, char out[NODE_DETAIL]);

/* Damage met in the pool since the last call, one line each, up to STORE_DAMAGE_MAX (what came
 * beyond is only in the log); returns how many. */
#define STORE_DAMAGE_MAX 16u
unsigned store_take_damage(struct store *s, char out[STORE_DAMAGE_MAX][NODE_DETAIL]);

/* The files that were read most since the last call; returns how many (hot.h). */
unsigned store_take_hot(struct store *s, struct hot_file out[HOT_TAKE_MAX]);

/* Checks the invariants while nothing else happens (tests): the number of violations. */
unsigned store_check(struct store *s, void (*report)(void *ctx, const char *line), void *ctx);

#endif
