/*
 * CONFIRM: one entry that turns packs live and switches whole cuts of files to them.
 *
 * Each file of it is, in this order:
 *   refused  there is no such inode any more, or the node is not its home in that epoch: its bytes
 *            stay staged until the node is told to drop them, or meets the newer epoch
 *   taken    a cut that is not older than the last confirmed one, by its number or else by its
 *            data's version
 *   stale    anything else: a cut of before the confirmed one must not bring back old data
 * One stale file fails the whole with -ESTALE, unchanged: the node cuts again with new packs. The
 * same if its packs were given up meanwhile.
 *
 * A mount that writes straight to the pool says the same of a file without a home, in the epoch
 * that it was given; its packs are its session's.
 *
 * A lost answer: the packs are no longer `allocated`, and all that was taken has its cut confirmed.
 * Nothing changes then, and the answer is the same as before.
 */
#include "control/state_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define RECORD_MAX                                                                                 \
    (1u << 20) /* content of one record; also the stretch of a file that it stays in */

struct confirm {
    struct apply *a;
    const Star__Confirm *q;
    uint64_t session; /* 0: a node speaks */
    bool fresh;       /* all packs are allocated */
    uint64_t *refused;
    size_t n_refused;
};

/* --- does it make sense --- */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

int st_all_different(uint64_t *list, size_t n)
{
    bool sorted = true;

    for (size_t i = 1; i < n && sorted; i++)
        sorted = list[i - 1] < list[i];
    if (sorted)
        return 0;
    qsort(list, n, sizeof(*list), by_number);
    for (size_t i = 1; i < n; i++)
        if (list[i - 1] == list[i])
            return -EINVAL;
    return 0;
}

const Star__ConfirmPack *st_pack_named(Star__ConfirmPack *const *packs, size_t n, uint64_t pack,
                                       size_t *last)
{
    for (size_t k = 0; k < n; k++) {
        size_t at = (*last + k) % n;
        if (packs[at]->pack == pack) {
            *last = at;
            return packs[at];
        }
    }
    return NULL;
}

static int check_record(const Star__Confirm *q, const Star__CutRecord *r, size_t *last)
{
    const Star__ConfirmPack *p = st_pack_named(q->packs, q->n_packs, r->pack, last);

    if (!p || r->pack == 0 || r->pack >= PACK_NUMBER_MAX || r->number >= RECORD_NUMBERS)
        return -EINVAL;
    if (r->length == 0 || r->length > RECORD_MAX || r->offset > INT64_MAX - r->length ||
        r->offset / RECORD_MAX != (r->offset + r->length - 1) / RECORD_MAX)
        return -EINVAL;
    return r->length > p->size || r->pack_offset > p->size - r->length ? -EINVAL : 0;
}

static int check_different(struct state *s, const Star__Confirm *q)
{
    size_t n = q->n_packs + q->n_files, at = 0;

    for (size_t f = 0; f < q->n_files; f++)
        n += q->files[f]->n_records;
    uint64_t *list = st_alloc(s, (n + 1) * sizeof(*list));
    if (!list)
        return s->broken ? s->broken : -EINVAL;
    for (size_t p = 0; p < q->n_packs; p++)
        list[at++] = q->packs[p]->pack;
    int rc = st_all_different(list, at);
    at = 0;
    for (size_t f = 0; f < q->n_files; f++)
        list[at++] = q->files[f]->attrs->ino;
    if (rc == 0)
        rc = st_all_different(list, at);
    at = 0;
    for (size_t f = 0; f < q->n_files; f++)
        for (size_t r = 0; r < q->files[f]->n_records; r++)
            list[at++] = q->files[f]->records[r]->pack << STATE_RECORD_BITS |
                         q->files[f]->records[r]->number;
    return rc < 0 ? rc : st_all_different(list, at);
}

static int check_message(struct state *s, const Star__Confirm *q)
{
    size_t last = 0;
    int rc = q->n_packs > PACKS_MAX ? -EINVAL : 0;

    for (size_t f = 0; rc == 0 && f < q->n_files; f++) {
        const Star__CutFile *file = q->files[f];
        if (!file->attrs || file->cut == 0 || !st_home_ok(file->attrs))
            return -EINVAL;
        for (size_t r = 0; rc == 0 && r < file->n_records; r++)
            rc = check_record(q, file->records[r], &last);
    }
    return rc < 0 ? rc : check_different(s, q);
}

int st_packs_check(struct state *s, uint32_t node, uint64_t session,
                   Star__ConfirmPack *const *packs, size_t n, bool *fresh)
{
    size_t allocated = 0;

    for (size_t k = 0; k < n; k++) {
        int rc = st_pack_load(s, packs[k]->pack);
        if (rc == -ENOENT && packs[k]->pack > s->meta.last_pack)
            return -EINVAL;
        if (rc == -ENOENT)
            continue; /* condemned and deleted since */
        if (rc < 0)
            return rc;
        if (s->pack_row.writer != node || s->pack_row.session != session)
            return -EPERM;
        if (s->pack_row.state == PACK_LIVE && s->pack_row.size != packs[k]->size)
            return -EINVAL;
        allocated += s->pack_row.state == PACK_ALLOCATED;
    }
    *fresh = allocated == n;
    return *fresh || allocated == 0 ? 0 : -ESTALE;
}

/* --- one file --- */

enum verdict { REFUSED, TAKEN, STALE };

/* Of before a truncation that a longer one hides: what is dead in it is not known any more. The
 * node cuts again. */
static bool is_too_old(const struct inode_row *r, uint64_t version)
{
    return r->file.trunc_version > r->file.cut_version && r->file.trunc_older > 0 &&
           version < r->file.trunc_version - r->file.trunc_older;
}

static int judge(struct confirm *c, const Star__CutFile *f, struct stored *i, enum verdict *v)
{
    int rc = st_inode_load(c->a->s, f->attrs->ino, i);
    const struct inode_row *r = &i->r;

    *v = REFUSED;
    if (rc == -ESTALE)
        return 0;
    if (rc < 0 || !S_ISREG(r->mode) || r->home != c->q->node ||
        f->attrs->home_epoch != r->file.home_epoch || is_too_old(r, f->attrs->version))
        return rc;
    *v = STALE;
    if (!c->fresh ? f->cut <= r->file.cut : f->attrs->version >= r->file.cut_version)
        *v = TAKEN;
    return 0;
}

/* Up to where the cut's records are the file's content: it may have been truncated since. */
static uint64_t limit_of(const struct stored *i, const Star__HomeAttrs *cut)
{
    uint64_t limit = cut->size < i->r.size ? cut->size : i->r.size;

    if (cut->version < i->r.file.trunc_version && i->r.file.trunc_size < limit)
        limit = i->r.file.trunc_size;
    return limit;
}

static int take(struct confirm *c, const Star__CutFile *f, struct stored *i)
{
    struct state *s = c->a->s;
    bool news;
    int rc = (c->session ? st_straight_says : st_home_says)(c->a, i, f->attrs, &news);

    uint64_t limit = limit_of(i, f->attrs);
    if (rc == 0)
        rc = st_map_cut(s, i, f->base_limit < limit ? f->base_limit : limit, UINT64_MAX);
    for (size_t n = 0; rc == 0 && n < f->n_records; n++) {
        const Star__CutRecord *r = f->records[n];
        struct record_row row = {.pack = r->pack,
                                 .pack_offset = r->pack_offset,
                                 .length = (uint32_t)r->length,
                                 .refs = 1,
                                 .number = r->number};
        uint64_t use = r->offset >= limit              ? 0
                       : limit - r->offset < r->length ? limit - r->offset
                                                       : r->length;
        if (use > 0)
            rc =
                st_map_insert(s, i, r->offset, use, r->pack << STATE_RECORD_BITS | r->number, &row);
    }
    if (f->cut > i->r.file.cut)
        i->r.file.cut = f->cut;
    i->r.file.cut_version = f->attrs->version;
    i->r.file.cut_size = limit;
    i->r.file.cut_mtime = f->attrs->mtime ? f->attrs->mtime->sec : i->r.mtime;
    i->r.file.cut_mtime_ns = f->attrs->mtime ? f->attrs->mtime->nsec : i->r.mtime_ns;
    return rc < 0 ? rc : st_inode_store(s, i);
}

/* --- the whole --- */

static int judge_all(struct confirm *c, struct stored *i, bool take_them)
{
    c->n_refused = 0;
    for (size_t n = 0; n < c->q->n_files; n++) {
        enum verdict v;
        int rc = judge(c, c->q->files[n], i, &v);
        if (rc == 0 && v == STALE)
            rc = -ESTALE;
        if (rc == 0 && v == TAKEN && take_them)
            rc = take(c, c->q->files[n], i);
        if (rc < 0)
            return rc;
        if (v == REFUSED)
            c->refused[c->n_refused++] = c->q->files[n]->attrs->ino;
    }
    return 0;
}

static int packs_set(struct confirm *c, bool done)
{
    struct state *s = c->a->s;

    for (size_t n = 0; n < c->q->n_packs; n++) {
        int rc = st_pack_load(s, c->q->packs[n]->pack);
        if (rc < 0)
            return rc == -ENOENT ? st_fail(s, MDB_CORRUPTED) : rc;
        /* Of a pack of which nothing was taken, only the object in the pool is left to be deleted.
         */
        s->pack_row.state = done && s->pack_row.live_records == 0 ? PACK_CONDEMNED : PACK_LIVE;
        s->pack_row.size = c->q->packs[n]->size;
        s->pack_row.born = c->a->sec;
        s->pack_dirty = true;
    }
    return 0;
}

static int confirm(struct apply *a, const Star__Confirm *q, uint64_t session)
{
    struct confirm c = {.a = a, .q = q, .session = session};
    Star__ConfirmReply reply = STAR__CONFIRM_REPLY__INIT;
    struct stored i;
    int rc = check_message(a->s, c.q);

    if (rc == 0)
        rc = st_packs_check(a->s, c.q->node, session, c.q->packs, c.q->n_packs, &c.fresh);
    if (rc < 0)
        return rc;
    c.refused = st_alloc(a->s, (c.q->n_files + 1) * sizeof(*c.refused));
    if (!c.refused)
        return a->s->broken ? a->s->broken : -EINVAL;
    rc = judge_all(&c, &i, false);
    if (rc == 0 && c.fresh)
        rc = packs_set(&c, false);
    if (rc == 0 && c.fresh)
        rc = judge_all(&c, &i, true);
    if (rc == 0 && c.fresh)
        rc = packs_set(&c, true);
    if (rc < 0)
        return rc;
    reply.n_refused = c.n_refused;
    reply.refused = c.refused;
    return st_reply(a, &reply.base);
}

int st_cmd_confirm(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Confirm *q = (const Star__Confirm *)body;

    if (!st_node_speaks(a->s, q->node))
        return a->s->broken ? a->s->broken : -ESTALE;
    return confirm(a, q, 0);
}

/* That the session lives was seen already. */
int st_cmd_straight_confirm(struct apply *a, const ProtobufCMessage *body)
{
    const Star__StraightConfirm *q = (const Star__StraightConfirm *)body;

    if (!q->cut || q->cut->node != 0 || a->e->session == 0)
        return -EINVAL;
    return confirm(a, q->cut, a->e->session);
}
