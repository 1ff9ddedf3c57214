/*
 * What the store and the flush ask of the centre, as a table of functions, so that tests can stand
 * in for it. All block, each with its own deadline; 0 or -errno. -ETIMEDOUT, -ECONNRESET, -EAGAIN
 * and -EBUSY: it is not known whether it happened; the same call may be made again.
 */
#ifndef UMBEL_NODE_CENTRE_CALLS_H
#define UMBEL_NODE_CENTRE_CALLS_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "nodecache/pool/pool.h"
#include "star.pb-c.h"

struct centre_calls {
    /* *out is freed with star__map_reply__free_unpacked(). */
    int (*map)(void *ctx, uint64_t ino, uint64_t offset, uint64_t length, Star__MapReply **out);
    /* A page of the files homed here that the pool has not wholly; *out is freed with
     * star__homed_reply__free_unpacked(). */
    int (*homed)(void *ctx, uint64_t after, Star__HomedReply **out);
    /* keys: room for `count`; [0..got) are those of the packs first, first + 1, ... */
    int (*alloc_packs)(void *ctx, uint32_t count, uint64_t *first, uint32_t *got,
                       struct pool_key *keys);
    int (*confirm)(void *ctx, const Star__Confirm *confirm, Star__ConfirmReply **out);
    int (*discard_pack)(void *ctx, uint64_t pack);
    /* gc: one pack to move records into; and these lie in new packs, on stable storage. */
    int (*alloc_gc)(void *ctx, uint64_t *pack, struct pool_key *key);
    int (*moved)(void *ctx, const Star__Moved *moved, uint64_t *count);
    /* Meta packs: a part of the copy of the state of that number (*length: 0 at its
     * end; what is asked for before, what came after); and it lies in these packs. */
    int (*meta_fetch)(void *ctx, uint64_t count, uint64_t offset, void *buf, uint32_t *length);
    int (*meta_stored)(void *ctx, const Star__MetaStored *stored);
};

static inline bool centre_unsure(int rc)
{
    return rc == -ETIMEDOUT || rc == -ECONNRESET || rc == -EAGAIN || rc == -EBUSY;
}

#endif
