/*
 * META_STORED: a copy of the state lies in the pool. The newest copies are kept, older ones are
 * condemned: the newest may turn out to be damaged just when it is needed.
 */
#include "control/state_private.h"

#include <errno.h>

#define META_KEPT 2 /* copies */

static bool among(const Star__MetaStored *q, uint64_t pack)
{
    for (size_t n = 0; n < q->n_packs; n++)
        if (q->packs[n]->pack == pack)
            return true;
    return false;
}

struct metas {
    uint64_t newest[META_KEPT]; /* what they end with, descending; 0: none */
    uint64_t *old;              /* packs of others */
    size_t n, room;
};

static void note_copy(struct metas *m, uint64_t count)
{
    for (size_t k = 0; k < META_KEPT; k++) {
        if (m->newest[k] == count)
            return;
        if (m->newest[k] < count) {
            memmove(m->newest + k + 1, m->newest + k, (META_KEPT - 1 - k) * sizeof(m->newest[0]));
            m->newest[k] = count;
            return;
        }
    }
}

static bool see_newest(void *arg, const struct state_pack *p)
{
    if (p->state == PACK_META)
        note_copy(arg, p->meta);
    return true;
}

static bool see_old(void *arg, const struct state_pack *p)
{
    struct metas *m = arg;

    if (p->state == PACK_META && p->meta < m->newest[META_KEPT - 1] && m->n < m->room)
        m->old[m->n++] = p->id;
    return true;
}

/* As many as one message may name: the rest goes with the next copy. */
static int condemn_old(struct state *s)
{
    struct metas m = {.room = PACKS_MAX};

    m.old = st_alloc(s, m.room * sizeof(*m.old));
    if (!m.old)
        return s->broken ? s->broken : -EINVAL;
    int rc = st_pack_flush(s);
    if (rc == 0)
        rc = state_packs(s, 0, see_newest, &m);
    if (rc == 0)
        rc = state_packs(s, 0, see_old, &m);
    for (size_t n = 0; rc == 0 && n < m.n; n++) {
        rc = st_pack_load(s, m.old[n]);
        s->pack_row.state = rc == 0 ? PACK_CONDEMNED : s->pack_row.state;
        s->pack_dirty = rc == 0;
    }
    return rc;
}

int st_cmd_meta_stored(struct apply *a, const ProtobufCMessage *body)
{
    const Star__MetaStored *q = (const Star__MetaStored *)body;
    struct state *s = a->s;
    bool fresh = false;

    if (q->n_packs == 0 || q->n_packs > PACKS_MAX || q->count == 0 ||
        q->count > (uint64_t)a->sec * 1000000000u + a->nsec || among(q, 0))
        return -EINVAL;
    if (!st_node_speaks(s, q->node))
        return s->broken ? s->broken : -ESTALE;
    int rc = st_packs_check(s, q->node, 0, q->packs, q->n_packs, &fresh);
    for (size_t n = 0; rc == 0 && fresh && n < q->n_packs; n++) {
        rc = st_pack_load(s, q->packs[n]->pack);
        if (rc < 0)
            return rc == -ENOENT ? st_fail(s, MDB_CORRUPTED) : rc;
        s->pack_row.state = PACK_META;
        s->pack_row.size = q->packs[n]->size;
        s->pack_row.born = a->sec;
        s->pack_row.meta = q->count;
        s->pack_dirty = true;
    }
    return rc < 0 || !fresh ? rc : condemn_old(s);
}
