/* A file that is written straight to the pool. Private to straight_*.c. */
#ifndef UMBEL_FS_STRAIGHT_PRIVATE_H
#define UMBEL_FS_STRAIGHT_PRIVATE_H

#include "fs/straight_write.h"
#include "nodecache/pool/pool.h"

/* A record being filled, or on its way. */
struct piece {
    struct piece *prev, *next;
    uint64_t offset; /* in the file */
    uint32_t length;
    uint8_t *data; /* POOL_RECORD_MAX */
};

struct cut_entry {
    uint64_t offset, pack_offset;
    uint32_t length, number;
};

/* One pack of a cut. */
struct lane {
    struct straight_cut *cut;
    struct lane *prev, *next; /* in the writer's queue */
    struct piece *pieces;
    bool queued; /* in the queue, or a thread is at it */
    bool used, finished;
    struct pack_writer *writer; /* of the thread that is at it */
    uint64_t pack, size;
    struct cut_entry *entries;
    size_t count, room;
};

struct straight_cut {
    struct straight_cut *prev, *next; /* of the file, in order */
    struct straight_file *file;
    struct lane lanes[STRAIGHT_LANES];
    unsigned open_lanes; /* used, and not finished */
    size_t records;
    bool closed, confirming;
    uint64_t number, size, version; /* the moment */
    struct timespec mtime;
    uint64_t seq; /* of its STRAIGHT_CONFIRM */
};

struct straight_waiter {
    struct straight_waiter *next;
    const struct straight_cut *after; /* the last cut that it waits for */
    straight_fn fn;
    void *arg;
};

enum straight_state { STRAIGHT_BEGINS, STRAIGHT_ON, STRAIGHT_ENDS, STRAIGHT_OVER };

struct straight_file {
    atomic_uint refs;
    struct worker *w;
    uint64_t ino;
    unsigned generation; /* of the session */
    pthread_mutex_t lock;
    enum straight_state state;
    bool cancelled; /* it shall end as soon as it has begun */
    int error;      /* the first one: nothing is confirmed any more */
    uint64_t epoch, version, next, size;
    struct timespec mtime;
    uint64_t cuts_begun;
    struct piece *filling;
    struct straight_cut *cuts; /* not confirmed; the last one may be open */
    struct straight_waiter *waiters;
    struct kreq *writes; /* WRITEs that wait, by straight_next */
    bool resuming;       /* a thread is at them */
    int64_t until_ms;    /* when it is too late for a recall; 0: there is none */
};

struct straight_file *straight_ref(struct straight_file *f);
void straight_unref(struct straight_file *f);

/* straight_packs.c. The file's lock is held. */
/* first: it has none. NULL: there is none, see straight_wants_room. */
struct piece *piece_get(struct straight_writer *s, bool first);
void piece_put(struct straight_writer *s, struct piece *p);
/* false: too many are written so. */
bool straight_file_begins(struct straight_writer *s);
void straight_file_ended(struct straight_writer *s);
unsigned straight_files(struct straight_writer *s);
/* Buffers may have come back: who waits for them goes on. Without any lock. */
void straight_room_came(struct straight_writer *s);
/* A full piece goes to its pack. */
int cut_add(struct straight_file *f, struct piece *p);
/* What is open becomes a moment of the file. */
void cut_close(struct straight_file *f);
void straight_fail(struct straight_file *f, int error);
/* Frees cuts that are confirmed, or, after an error, that no thread is at; runs nothing. The
 * waiters that are done come out. */
struct straight_waiter *cuts_settle(struct straight_file *f);
/* Confirms what can be. Without the lock. */
void cuts_confirm(struct straight_file *f);
void straight_wants_room(struct straight_writer *s, struct straight_file *f);

/* straight_write.c. Without the lock: something has changed. */
void straight_moved(struct straight_file *f);

#endif
