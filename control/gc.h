/*
 * One run of gc: what packs.c (condemning, deleting) and gc_move.c (rewriting) share.
 *
 * Order of a run: what earlier ones left is deleted; packs without a live record are condemned and
 * deleted; then records are moved out of sparse packs (gc_policy.h), and when every lease of before
 * the switch has ended, the packs that are now empty are condemned and deleted. A run that somebody
 * asked for goes on as long as there is something to move; the centre's own move a bounded amount.
 *
 * A run that was asked to *reseal* moves out of packs of older keys as well, and then has copies of
 * the state made until none of the old ones is kept. What was allocated under an older key and is
 * confirmed later is for the next run.
 */
#ifndef UMBEL_CONTROL_GC_H
#define UMBEL_CONTROL_GC_H

#include "control/centre.h"
#include "control/gc_policy.h"

/* The same for a run of the centre's own, every GC_INTERVAL_MS at most; and by somebody who waits.
 */
#define GC_OWN_BYTES   (256ull << 20)
#define GC_ROUND_BYTES (1ull << 30)
/* Less than this in a run of the centre's own is not worth it. */
#define GC_OWN_FREED (4ull << 20)
/* Somebody who waits is answered after so long, and asks again if there is more. */
#define GC_WAIT_MS 480000
/* One request to a node: about one new pack, and far below a frame. */
#define GC_MOVE_BYTES   (60ull << 20)
#define GC_MOVE_RECORDS 8192u
/* A node that went away, or a pool that did. */
#define GC_MOVE_TRIES    5
#define GC_MOVE_RETRY_MS 1000
/* Copies of the state that one run asks for: as many as are kept, and some that fail. */
#define GC_METAS_MAX 4
/* Packs looked at in one round, and packs with damage that are remembered. */
#define GC_CANDIDATES_MAX 65536u
#define GC_BAD_MAX        1024u

struct gc {
    struct centre *c;
    struct op *ops; /* who asked for it (list by wait_next) */
    struct gc_counts counts;
    int64_t begun_ms;
    Star__PackRefs body;
    uint64_t *packs, *sizes; /* the batch in hand, ascending */
    size_t n, size;
    enum pack_state want;
    uint64_t after;  /* condemned packs up to here had their turn */
    bool condemning; /* what earlier runs left has had its turn */
    unsigned idle;
    uint64_t stuck, first_stuck; /* packs that could not be deleted */
    int rc;                      /* why */
    /* Moving. */
    bool own; /* nobody waits */
    bool reseal;
    unsigned metas; /* copies of the state that were asked for */
    bool changed;   /* the round has moved something */
    bool last_round;
    struct gc_pack *chosen;
    size_t chosen_n, chosen_size, at; /* at: the pack whose records are moved now */
    uint32_t from, batch_from;        /* its next record; the same and `at` of the batch's first */
    size_t batch_at;
    Star__MoveRecord *records, **list; /* GC_MOVE_RECORDS of them */
    size_t records_n;
    uint64_t records_bytes;
    unsigned tries;
    int move_rc; /* why records could not be moved */
    char detail[128];
    int64_t wait_ms; /* then goes on when the lease clock is there; 0: it does not wait */
    void (*then)(struct gc *g);
};

/* packs.c */
void gc_end(struct gc *g, int status);
void gc_leftovers(struct gc *g); /* deletes what is condemned, then goes on with gc_condemn */
void gc_condemn(struct gc *g);   /* goes on with gc_move when nothing is left to delete */

/* gc_move.c */
void gc_move(struct gc *g);
void gc_move_free(struct gc *g);

/* gc_reseal.c */
uint32_t gc_newest_key(struct gc *g); /* 0: the cloud is unsealed, or it cannot be told */
/* Nothing is left to move: goes on with copies of the state, and ends. */
void gc_reseal_end(struct gc *g);

#endif
