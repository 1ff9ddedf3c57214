/*
 * Meta packs: a copy of the centre's state goes into the pool, for `umbel rebuild`.
 *
 * The copy is a row of records of POOL_INO_META at their offsets in it, in as many packs as it
 * takes. Each pack names it like a file's cut: size, and its number as version
 * and cut; the last pack says how many records it has. So a copy that lies there in part is known
 * as such.
 */
#ifndef UMBEL_NODE_META_H
#define UMBEL_NODE_META_H

#include "nodecache/flush.h"

/* Fetches it from the centre, writes, tells the centre. On an error nothing of it is left, or will
 * be. */
int meta_write(struct pool *pool, const struct centre_calls *centre, void *ctx, struct flush *fl,
               const Star__WriteMeta *m, char detail[NODE_DETAIL]);

#endif
