/* A group of files on its way to the pool. Private to flush*.c. */
#ifndef UMBEL_NODE_FLUSH_PRIVATE_H
#define UMBEL_NODE_FLUSH_PRIVATE_H

#include "nodecache/cut.h"
#include "nodecache/flush.h"

/* More are left to the next process. */
#define FLUSH_DISCARDS_MAX 256

struct flush {
    struct store *store;
    struct pool *pool;
    const struct centre_calls *centre;
    void *centre_ctx;
    pthread_t threads[FLUSH_THREADS];
    unsigned running;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool stop;
    uint64_t all_before; /* files staged up to then (clock_boot_ns) are due; under the staged-list
                            lock */
    uint64_t pressure;   /* bytes that must go because the store is full */
    int64_t backoff_until;
    int backoff_ms;
    uint64_t failures;       /* rounds that failed */
    uint64_t refusals;       /* cuts that the centre refused */
    char error[NODE_DETAIL]; /* of the last one; "" after a good one */
    bool pool_failed;
    uint64_t failed_ino; /* the last file that failed by itself, and why */
    char failed_error[NODE_DETAIL];
    uint64_t discards[FLUSH_DISCARDS_MAX]; /* to be told to the centre once more */
    size_t discards_n;
    uint64_t pack_next, packs_left; /* allocated, not used yet */
    struct pool_key
        keys[FLUSH_ALLOC_PACKS]; /* of these, the last packs_left ones are still needed */
};

/* One record as it will be confirmed. */
struct cut_record {
    uint64_t offset, pack, pack_offset;
    uint32_t length, number;
};

struct member {
    struct file *file;
    struct cut_record *records;
    size_t count, room;
    bool begun, cancelled;
    int failed; /* -errno: its bytes cannot be had; the others go on */
};

struct finishing; /* a pack being synced by a thread of its own */

struct group {
    struct flush *flush;
    struct member *members;
    size_t count;
    struct pack_writer *writer;
    uint64_t pack; /* writer's */
    struct {
        uint64_t pack, size;
    } * packs;
    size_t packs_count, packs_room;
    struct finishing *finishing;
    size_t records;  /* in all */
    uint8_t *buffer; /* POOL_RECORD_MAX */
    char detail[POOL_DETAIL];
    bool pool_failed;
    bool confirmed; /* the centre has taken it */
    size_t failed;
    unsigned refused;
};

/* flush_group.c: writes and confirms. Members' files are referenced and `flushing`. */
int group_flush(struct group *g);

/* flush_packs.c */
int packs_add(struct group *g, struct member *m, uint64_t offset, uint32_t length);
int packs_add_file(struct group *g, const struct member *m);
/* Every pack of the group is on stable storage after this. */
int packs_finish(struct group *g);
/* The group fails: nothing of its packs will be confirmed. sent: the centre has seen a Confirm of
 * them, so they go only when it says so. */
void packs_discard(struct group *g, bool sent);
/* Tells the centre what it could not be told. */
void packs_discard_again(struct flush *fl);
bool flush_stopping(struct flush *fl);

#endif
