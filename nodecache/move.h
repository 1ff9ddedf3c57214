/*
 * gc: copies records out of old packs into new ones.
 *
 * Each record is read whole and verified, so what lies in the new pack is what lay in the old one;
 * one that cannot be read stays where it is and is counted, unless `other` (which may be NULL) has
 * its content. When all new packs are on stable
 * storage one MOVED tells the centre, which switches those that still lie where they were read.
 * Any failure before that gives the new packs up. Nothing of a node's store is touched: any node
 * can do it, in any number of threads.
 */
#ifndef UMBEL_NODE_MOVE_H
#define UMBEL_NODE_MOVE_H

#include "nodecache/flush.h"

/* What is known elsewhere of records that lie damaged in the pool, or whose footer does. */
struct move_other {
    /* Where the record's content begins, and in which file. false: not known. */
    bool (*place)(void *arg, const Star__MoveRecord *q, uint64_t *ino, uint64_t *offset);
    /* All of its content that a file still needs, zeros elsewhere. -ENODATA: it is not here. */
    int (*content)(void *arg, const Star__MoveRecord *q, uint8_t *out);
    void *arg;
};

struct move_result {
    uint64_t records, bytes, packs; /* copied; how many were switched is the centre's word */
    uint64_t *done;         /* the records that were copied, if `other` was given; to be freed */
    uint64_t failed;        /* could not be read */
    uint64_t *failed_packs; /* where those lie, each once; to be freed */
    size_t failed_packs_n;
    char detail[NODE_DETAIL]; /* why: the first of them, or what ended it all */
};
/* Records of one pack stand together in m. stop is asked between records: true ends it with
 * -ESHUTDOWN. */
int move_records(struct pool *pool, const struct centre_calls *centre, void *ctx, struct flush *fl,
                 const Star__MoveRecords *m, const struct move_other *other,
                 bool (*stop)(void *arg), void *stop_arg, struct move_result *out);

#endif
