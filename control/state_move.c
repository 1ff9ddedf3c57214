/*
 * MOVED: one entry that turns a gc's new packs live and switches records to them.
 *
 * A record is switched only if it still lies where the copy was taken from; one that has died or
 * moved since is left alone, and what was copied of it is dead in the new pack. A new pack of which
 * nothing is used is condemned at once.
 *
 * A lost answer: the packs are no longer `allocated`, and nothing changes; how many records were
 * moved is then told as 0. Packs that were given up meanwhile (the node started anew, or is gone):
 * -ESTALE, and nothing changes.
 */
#include "control/state_private.h"

#include <errno.h>

struct move {
    struct state *s;
    const Star__Moved *q;
    bool *taken;                    /* by record */
    uint64_t *live_bytes, *records; /* by new pack */
};

static int check_record(const Star__Moved *q, const Star__MovedRecord *r, size_t *last)
{
    if (r->pack >= PACK_NUMBER_MAX || r->number >= RECORD_NUMBERS || r->pack == r->from_pack ||
        r->pack == r->record >> STATE_RECORD_BITS)
        return -EINVAL;
    return st_pack_named(q->packs, q->n_packs, r->pack, last) ? 0 : -EINVAL;
}

static int check_different(const struct move *m, uint64_t *list)
{
    const Star__Moved *q = m->q;

    for (size_t n = 0; n < q->n_packs; n++)
        list[n] = q->packs[n]->pack;
    int rc = st_all_different(list, q->n_packs);
    for (size_t n = 0; n < q->n_records; n++)
        list[n] = q->records[n]->record;
    if (rc == 0)
        rc = st_all_different(list, q->n_records);
    for (size_t n = 0; n < q->n_records; n++)
        list[n] = q->records[n]->pack << STATE_RECORD_BITS | q->records[n]->number;
    return rc < 0 ? rc : st_all_different(list, q->n_records);
}

static int check_message(const struct move *m)
{
    const Star__Moved *q = m->q;
    uint64_t *list = st_alloc(m->s, (q->n_packs + q->n_records + 1) * sizeof(*list));
    size_t last = 0;
    int rc = q->n_packs == 0 || q->n_packs > PACKS_MAX ? -EINVAL : 0;

    for (size_t n = 0; rc == 0 && n < q->n_records; n++)
        rc = check_record(q, q->records[n], &last);
    if (rc == 0 && !list)
        rc = m->s->broken ? m->s->broken : -EINVAL;
    return rc < 0 ? rc : check_different(m, list);
}

/* Which records still lie where they were read. */
static int judge(struct move *m)
{
    size_t last = 0;

    for (size_t n = 0; n < m->q->n_records; n++) {
        const Star__MovedRecord *r = m->q->records[n];
        struct record_row row;
        int rc = st_record_load(m->s, r->record, &row);
        if (rc < 0 && rc != -ENOENT)
            return rc;
        m->taken[n] = rc == 0 && row.pack == r->from_pack && row.number == r->from_number;
        const Star__ConfirmPack *p = st_pack_named(m->q->packs, m->q->n_packs, r->pack, &last);
        if (m->taken[n] && (row.length > p->size || r->pack_offset > p->size - row.length))
            return -EINVAL;
    }
    return 0;
}

static int switch_one(struct move *m, const Star__MovedRecord *r, size_t *last)
{
    struct record_row from, to;
    int rc = st_record_load(m->s, r->record, &from);

    if (rc < 0)
        return rc;
    to = from;
    to.pack = r->pack;
    to.pack_offset = r->pack_offset;
    to.number = r->number;
    st_pack_named(m->q->packs, m->q->n_packs, r->pack, last);
    m->live_bytes[*last] += to.length;
    m->records[*last]++;
    rc = st_record_place(m->s, r->record, &from, &to);
    return rc < 0 ? rc : st_pack_live(m->s, from.pack, -(int64_t)from.length, -1);
}

static int set_packs(struct move *m, int64_t now)
{
    for (size_t n = 0; n < m->q->n_packs; n++) {
        int rc = st_pack_load(m->s, m->q->packs[n]->pack);
        if (rc < 0)
            return rc == -ENOENT ? st_fail(m->s, MDB_CORRUPTED) : rc;
        m->s->pack_row.state = m->records[n] > 0 ? PACK_LIVE : PACK_CONDEMNED;
        m->s->pack_row.size = m->q->packs[n]->size;
        m->s->pack_row.live_bytes = m->live_bytes[n];
        m->s->pack_row.live_records = m->records[n];
        m->s->pack_row.born = now;
        m->s->pack_dirty = true;
    }
    return 0;
}

static int switch_all(struct move *m, int64_t now, uint64_t *moved)
{
    size_t last = 0;
    int rc = judge(m);

    for (size_t n = 0; rc == 0 && n < m->q->n_records; n++) {
        if (!m->taken[n])
            continue;
        rc = switch_one(m, m->q->records[n], &last);
        ++*moved;
    }
    return rc < 0 ? rc : set_packs(m, now);
}

static int move_memory(struct move *m)
{
    size_t packs = m->q->n_packs, records = m->q->n_records + 1;

    m->taken = st_alloc(m->s, records * sizeof(*m->taken));
    m->live_bytes = st_alloc(m->s, 2 * packs * sizeof(*m->live_bytes));
    if (!m->taken || !m->live_bytes)
        return m->s->broken ? m->s->broken : -EINVAL;
    m->records = m->live_bytes + packs;
    memset(m->live_bytes, 0, 2 * packs * sizeof(*m->live_bytes));
    return 0;
}

int st_cmd_moved(struct apply *a, const ProtobufCMessage *body)
{
    struct move m = {.s = a->s, .q = (const Star__Moved *)body};
    Star__MovedReply reply = STAR__MOVED_REPLY__INIT;
    bool fresh = false;
    int rc = check_message(&m);

    if (rc == 0 && !st_node_speaks(a->s, m.q->node))
        rc = a->s->broken ? a->s->broken : -ESTALE;
    if (rc == 0)
        rc = st_packs_check(a->s, m.q->node, 0, m.q->packs, m.q->n_packs, &fresh);
    if (rc == 0)
        rc = move_memory(&m);
    if (rc == 0 && fresh)
        rc = switch_all(&m, a->sec, &reply.moved);
    return rc < 0 ? rc : st_reply(a, &reply.base);
}
