/* What `umbel rebuild` gathers from the footers of packs, and puts together. */
#ifndef UMBEL_TOOLS_REBUILD_H
#define UMBEL_TOOLS_REBUILD_H

#include "control/state.h"
#include "nodecache/pool/pool.h"
#include "tools/keyring.h"

/* A record of a file's cut, where a pack has it. */
struct piece {
    uint64_t ino, version, cut, offset;
    uint64_t record, pack, pack_offset;
    uint32_t number, length;
    bool moved; /* by gc: so its cut was confirmed */
};

/* What the footer of a pack says of a file's cut. */
struct cut_said {
    uint64_t ino, version, cut, size, base_limit;
    int64_t mtime;
    uint32_t mtime_ns, records;
};

/* A part of a copy of the state, and what a pack says of that copy. */
struct meta_part {
    uint64_t count, offset, pack, pack_offset;
    uint32_t number, length;
};
struct meta_said {
    uint64_t count, size;
    uint32_t records; /* in all; 0: the last pack was not seen */
};

struct list {
    void *rows;
    size_t n, room, size; /* size: of a row */
};
void *list_add(struct list *l); /* zeroed; NULL: no memory */

struct rebuild {
    struct pool *pool;
    struct keyring keys; /* count 0: the pool is not sealed */
    struct state *state;
    uint64_t count;                  /* commands applied */
    struct list packs;               /* uint64_t: all that the pool holds, ascending */
    struct list parts, metas;        /* pass 1 */
    struct list pieces, cuts, fresh; /* pass 2; fresh: Star__ConfirmPack of packs that are new */
    uint64_t last_pack, last_ino, meta_last_ino;
    uint64_t pack;     /* whose footer is being read */
    size_t pack_first; /* its first piece */
    int rc;
    /* The account. */
    uint64_t meta_count;
    int64_t meta_time;
    uint64_t cuts_taken, files_found, cuts_partial, packs_damaged, files_damaged, nodes_lost;
    char detail[POOL_DETAIL];
};

/* rebuild_read.c: pass 1 finds the copies of the state and puts the newest whole one to path
 * (-ENOENT: there is none); pass 2 reads what the packs say that the state does not count. */
int rebuild_find(struct rebuild *r);
int rebuild_meta(struct rebuild *r, const char *path);
int rebuild_read(struct rebuild *r);

/* rebuild_apply.c: r->state, which is open, learns all of it. */
int rebuild_begin(struct rebuild *r); /* reads what is newer */
int rebuild_apply(struct rebuild *r);
/* Nobody is connected, no node is home; what is missing is told; a new log may begin. */
int rebuild_end(struct rebuild *r);

#endif
