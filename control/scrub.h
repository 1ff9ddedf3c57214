/*
 * Scrub: every node verifies its clean copies, then a node reads and verifies every pack.
 *
 * One run at a time, in steps that nodes answer within minutes. What is damaged at a node is
 * dropped there and fetched again. Records that are damaged in the pool are looked up in all file
 * maps (a slice each tick); then each node is asked to write those of which it has the files' clean
 * bytes into a new pack. What is left is named. The result stays in .umbel/scrub until the next
 * run.
 */
#ifndef UMBEL_CONTROL_SCRUB_H
#define UMBEL_CONTROL_SCRUB_H

#include "control/centre.h"

/* One step of a node's copies; it ends at whichever comes first. */
#define SCRUB_STEP_BYTES (256ull << 20)
#define SCRUB_STEP_MS    5000u
/* One request for packs: of about 64 MiB each. */
#define SCRUB_PACKS_MAX   64u
#define SCRUB_PACKS_BYTES (256ull << 20)
/* A node that went away, or a pool that did. */
#define SCRUB_TRIES    5u
#define SCRUB_RETRY_MS 1000
/* Damaged records that one run heals; what is beyond is named by its pack, and the next run sees to
 * it. */
#define SCRUB_BAD_MAX 65536u
/* File maps looked at in one tick, and their parts that are remembered of one record. */
#define SCRUB_PARTS_AT_ONCE 20000u
#define SCRUB_PARTS_MAX     1024u
/* One request to heal: not more than a pack. */
#define SCRUB_HEAL_RECORDS 60u
#define SCRUB_HEAL_PARTS   8192u
/* Lines of what was found that are kept; the counts go on. */
#define SCRUB_LINES_MAX 2000u

enum scrub_what { SCRUB_NODES = 1, SCRUB_POOL = 2 };

struct scrub_part {
    struct scrub_part *next;
    uint64_t ino, offset, length;
    uint32_t record_offset;
};

/* A live record that is damaged, or lies in a pack that is. */
struct scrub_bad {
    struct state_record at;
    struct scrub_part *parts;
    unsigned parts_n;
    bool healed;
    char healer[64];
    char *detail;
    UT_hash_handle hh; /* by at.id */
};

/* A node on its way through its copies. */
struct scrub_node {
    struct scrub *run;
    struct scrub_node *next;
    uint32_t id;
    uint64_t shard, ino, offset;
    unsigned tries;
    int64_t again_ms; /* 0: a request is on its way */
    bool done;
};

struct scrub {
    struct centre *c;
    unsigned what; /* enum scrub_what */
    bool running, stop;
    const char *phase;
    struct scrub_node *nodes;
    /* Packs. */
    uint64_t after; /* those up to here had their turn */
    uint64_t packs[SCRUB_PACKS_MAX], sizes[SCRUB_PACKS_MAX], batch_bytes;
    size_t packs_n;
    unsigned tries;
    void (*then)(struct scrub *s); /* with the tick at again_ms; 0: nothing waits */
    int64_t again_ms;
    int rc;
    /* Damaged records. */
    struct scrub_bad *bad; /* by pack and number, once they are sorted */
    uint64_t scan_ino, scan_offset;
    unsigned scanned;
    uint32_t heal_node;                   /* nodes up to this number had their turn */
    struct scrub_bad *heal_at, *heal_end; /* the request in hand: [heal_at, heal_end) of the list */
    char healer[64];
    /* What is shown. */
    uint64_t bytes, bytes_total;
    uint64_t node_files, node_bytes, node_damaged, node_healed;
    uint64_t pool_packs, pool_bytes, pool_damaged, pool_healed;
    uint64_t problems;
    char error[256];
    char *lines;
    size_t lines_len, lines_size;
    unsigned lines_n, lines_left_out;
};

/* scrub.c */
void scrub_line(struct scrub *s, bool problem, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void scrub_end(struct scrub *s, int status, const char *detail);
const char *scrub_path(struct scrub *s, uint64_t ino, char out[512]);
void scrub_wait(struct scrub *s, void (*then)(struct scrub *s)); /* a little */

/* scrub_pool.c */
void scrub_pool(struct scrub *s);
void scrub_pool_free(struct scrub *s);
void scrub_pool_total(struct scrub *s); /* adds to bytes_total */

#endif
