/*
 * Mounts that read and write the pool themselves.
 *
 * Reading: a file that only the pool has is read there by a mount without a node on its machine, as
 * long as it holds a lease.
 *
 * Writing: a mount that alone has a file open becomes its only writer (STRAIGHT_BEGIN): the home
 * flushes and is given up, which begins a home epoch without a node. What that mount confirms in
 * this epoch is the file. Nobody needs to know more of it: another mount that opens the file, or
 * asks for its attributes, recalls the lease, and the mount confirms all before it answers that.
 * Whoever takes the home then begins the next epoch, and late confirms are refused.
 */
#include "control/centre.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/* The mount's writer waits meanwhile; then it goes on through its home. */
#define FLUSH_DEADLINE_MS 30000
/* Lines in one DAMAGE that are taken. */
#define DAMAGE_LINES_MAX 16

/* --- reading --- */

bool straight_newest(struct centre *c, const struct inode *i)
{
    const struct live *l = live_find(c, i->ino);

    if (!S_ISREG(i->mode) || i->version > i->cut_version)
        return false;
    return !l ||
           !(l->home_unknown || live_written(l) ||
             (l->have_home && l->home.home_epoch == i->home_epoch && l->home.version > i->version));
}

/* 1: yes, 0: no, which counts for a file whose directory says yes; -1: it says nothing. */
static int says(struct centre *c, uint64_t ino)
{
    char value[8] = "";
    size_t len = 0;
    int rc = state_getxattr(c->state, ino, STRAIGHT_XATTR, value, sizeof(value), &len);

    if (rc == -ENODATA || rc == -ESTALE)
        return -1;
    return rc == 0 && len == 1 && value[0] == '0' ? 0 : 1;
}

bool straight_asked(struct centre *c, const struct inode *i)
{
    int own = says(c, i->ino);

    return own >= 0 ? own == 1 : i->parent && says(c, i->parent) == 1;
}

static bool node_is_near(struct centre *c, const struct session *s)
{
    for (const struct node *n = c->nodes; n; n = n->hh.next)
        if (node_usable(n) && strcmp(n->machine, s->machine) == 0)
            return true;
    return false;
}

struct cached {
    struct centre *c;
    uint64_t version;
    bool found;
};

static bool find_cached(void *arg, const struct state_copy_line *line)
{
    struct cached *f = arg;
    const struct node *n = node_find(f->c, line->node);

    f->found = n && node_usable(n) && line->version == f->version && line->cached > 0;
    return !f->found;
}

bool straight_reads(struct centre *c, const struct session *s, const struct inode *i)
{
    struct cached f = {.c = c, .version = i->version};

    if (!s || node_is_near(c, s) || !straight_newest(c, i))
        return false;
    return state_copies(c->state, i->ino, 0, 0, find_cached, &f) == 0 && !f.found;
}

bool straight_settled(struct centre *c, const struct session *s, const struct inode *i)
{
    const struct live *l = live_find(c, i->ino);
    const struct holder *h;

    if (!S_ISREG(i->mode) || i->home != 0 || i->version > i->cut_version)
        return false;
    if (l)
        DL_FOREACH (l->holders, h)
            if (h->session != s && (h->lease == STAR__LEASE__LEASE_WRITE || h->recalls > 0))
                return false;
    return true;
}

void serve_damage(struct op *op)
{
    const Star__Damage *q = (const Star__Damage *)op->body;

    for (size_t k = 0; k < q->n_lines && k < DAMAGE_LINES_MAX; k++)
        events_add(&op->c->events, "damage", "%s: %s", op->session->name, q->lines[k]);
    op_reply(op, 0, NULL);
}

/* --- writing: the begin --- */

bool straight_must_be_asked(struct centre *c, const struct session *s, const struct inode *i)
{
    const struct live *l = i->home == 0 && S_ISREG(i->mode) ? live_find(c, i->ino) : NULL;

    return l && live_written_by_other(l, s);
}

static bool open_elsewhere(const struct op *op, uint64_t ino)
{
    const struct live *l = live_find(op->c, ino);
    const struct holder *h;

    if (!l)
        return false;
    DL_FOREACH (l->holders, h)
        if (h->session != op->session && (holder_opens(h) || h->recalls > 0))
            return true;
    return false;
}

static void begin_answer(struct op *op)
{
    uint64_t ino = ((Star__Straight *)op->body)->ino;
    Star__StraightReply r = STAR__STRAIGHT_REPLY__INIT;
    Star__HomeAttrs attrs = STAR__HOME_ATTRS__INIT;
    Star__Attr attr;
    Star__Time times[3];
    struct inode i;

    int rc = op->status ? op->status : state_inode(op->c->state, ino, &i);
    if (rc == 0 && i.home != 0)
        rc = -ESTALE;
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    op_unmark(op);
    r.lease = lease_grant(op->c, op->session, ino);
    if (r.lease != STAR__LEASE__LEASE_WRITE || open_elsewhere(op, ino)) {
        op_error(op, -EBUSY, "another mount has inode %" PRIu64 " open", ino);
        return;
    }
    attr_now(op->c, &i, &attr, times);
    attrs.ino = ino;
    attrs.size = attr.size;
    attrs.version = attr.version;
    attrs.mtime = attr.mtime;
    attrs.ctime = attr.ctime;
    attrs.home_epoch = i.home_epoch;
    r.attrs = &attrs;
    op_reply(op, 0, &r.base);
}

static void on_home_given_up(struct op *op, const struct state_result *r)
{
    if (r->status < 0) {
        op_refuse(op, r);
        return;
    }
    home_caught_up(op->c, op->home_ino);
    recall_all(op, op->home_ino); /* places that were told in the meantime are old */
    op_wait(op, begin_answer);
}

static void begin_take(struct op *op)
{
    Star__LogHome body = STAR__LOG_HOME__INIT;

    if (op->status < 0) {
        op_reply(op, op->status, NULL);
        return;
    }
    body.ino = op->home_ino;
    body.epoch = op->home_epoch + 1;
    body.flushed = op->home.ino ? &op->home : NULL;
    op_submit_own(op, STAR__LOG_TYPE__LOG_TAKE_HOME, &body.base, on_home_given_up);
}

/* The pool has all: nodes forget what they have, as it will be old. */
static void begin_drop(struct op *op)
{
    struct inode i;
    int rc = op->status ? op->status : state_inode(op->c->state, op->home_ino, &i);

    if (rc == 0 && (i.home_epoch != op->home_epoch || (!op->home.ino && i.version > i.cut_version)))
        rc = -EAGAIN;
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    home_drop_copies(op, op->home_ino, i.home);
    op_wait(op, begin_take);
}

/* What the home says must be the same before and after the flush. */
static void on_home_said(void *arg, const struct message *reply)
{
    struct op *op = arg;
    Star__HomeAttrs *a =
        reply->status < 0 ? NULL
                          : (Star__HomeAttrs *)frame_unpack(reply, &star__home_attrs__descriptor);
    int rc = reply->status == -ENOENT ? 0 : a && a->ino == op->home_ino ? 0 : -EAGAIN;
    uint64_t version = rc == 0 && a ? a->version : 0;

    if (rc == 0 && op->asked_twice && version != op->home.version)
        rc = -EAGAIN;
    if (rc == 0 && a)
        home_attrs_copy(&op->home, op->home_times, a);
    if (a)
        star__home_attrs__free_unpacked(a, NULL);
    op_answered(op, rc);
}

static void ask_home(struct op *op, uint16_t type, peer_reply_fn fn, int deadline_ms, op_fn next)
{
    Star__FlushRequest flush = STAR__FLUSH_REQUEST__INIT;
    Star__Inode inode = STAR__INODE__INIT;
    struct inode i;
    int rc = op->status ? op->status : state_inode(op->c->state, op->home_ino, &i);
    struct node *n = rc == 0 && i.home ? node_find(op->c, i.home) : NULL;

    flush.n_ino = 1;
    flush.ino = &op->home_ino;
    inode.ino = op->home_ino;
    if (rc == 0 && i.home && (i.home_epoch != op->home_epoch || !n || !n->peer))
        rc = -EAGAIN;
    if (rc == 0 && n)
        rc = peer_request(n->peer, type, type == STAR__MSG_TYPE__FLUSH ? &flush.base : &inode.base,
                          deadline_ms, fn, op);
    op->pending += rc == 0 && n;
    if (rc < 0)
        op_reply(op, rc == -ENOTCONN ? -EAGAIN : rc, NULL);
    else
        op_wait(op, next);
}

/* From here on nothing more goes to the home. */
static void begin_flushed(struct op *op)
{
    struct live *l = live_find(op->c, op->home_ino);
    int rc = op->status;

    if (rc == 0 && (!l || l->busy > 1 || l->giving_up))
        rc = -EAGAIN; /* somebody changes it */
    if (rc == 0 && open_elsewhere(op, op->home_ino))
        rc = -EBUSY;
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    l->giving_up = op->gives_up = true;
    op->asked_twice = true;
    ask_home(op, STAR__MSG_TYPE__HOME_GETATTR, on_home_said, HOME_DEADLINE_MS, begin_drop);
}

static void on_flushed(void *arg, const struct message *reply)
{
    struct op *op = arg;
    int rc = reply->status < 0 ? -EAGAIN : 0;
    Star__FlushReply *r =
        rc == 0 ? (Star__FlushReply *)frame_unpack(reply, &star__flush_reply__descriptor) : NULL;

    if (rc == 0 && (!r || r->failed > 0))
        rc = -EAGAIN;
    if (r)
        star__flush_reply__free_unpacked(r, NULL);
    op_answered(op, rc);
}

static void begin_flush(struct op *op)
{
    ask_home(op, STAR__MSG_TYPE__FLUSH, on_flushed, FLUSH_DEADLINE_MS, begin_flushed);
}

static void begin_recalled(struct op *op)
{
    struct inode i;
    int rc = op->status ? op->status : state_inode(op->c->state, op->home_ino, &i);

    if (rc == 0 && open_elsewhere(op, op->home_ino))
        rc = -EBUSY;
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    op->home_epoch = i.home_epoch;
    ask_home(op, STAR__MSG_TYPE__HOME_GETATTR, on_home_said, HOME_DEADLINE_MS, begin_flush);
}

void serve_straight_begin(struct op *op)
{
    uint64_t ino = ((Star__Straight *)op->body)->ino;
    struct live *l = live_find(op->c, ino);
    struct holder *h = l ? holder_find(l, op->session) : NULL;
    struct inode i;
    int rc = state_inode(op->c->state, ino, &i);

    if (rc == 0 && !S_ISREG(i.mode))
        rc = -EINVAL;
    if (rc == 0 && (!h || !holder_writes(h)))
        rc = -EPERM;
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    op->home_ino = ino;
    op_busy_inode(op, ino);
    recall_all(op, ino);
    op_wait(op, begin_recalled);
}

/* --- packs and confirms --- */

void serve_straight_packs(struct op *op)
{
    Star__StraightPacks *q = (Star__StraightPacks *)op->body;

    if (op_deduped(op, q->head, keys_reply_packs))
        return;
    if (pool_quota_reached(op->c)) {
        op_error(op, -ENOSPC, "pool_quota is used up: delete files, or raise it");
        return;
    }
    int rc = keys_stamp(op->c, &q->key_generation);
    if (rc < 0) {
        op_error(op, rc, "the cloud's keys cannot be read, so no packs can be sealed");
        return;
    }
    op_submit(op, STAR__MSG_TYPE__STRAIGHT_PACKS, op->body, false, keys_reply_packs);
}

static void confirmed(struct op *op, const struct state_result *r)
{
    const Star__Confirm *cut = ((Star__StraightConfirm *)op->body)->cut;

    for (size_t k = 0; cut && k < cut->n_files; k++)
        if (cut->files[k]->attrs)
            home_caught_up(op->c, cut->files[k]->attrs->ino);
    if (peer_reply_packed(op->peer, &op->request, r->status, r->body, r->body_len) == -ENOMEM)
        peer_close(op->peer);
    op_end(op);
}

void serve_straight_confirm(struct op *op)
{
    Star__StraightConfirm *q = (Star__StraightConfirm *)op->body;

    if (op_deduped(op, q->head, confirmed) || !rights_allow(op))
        return;
    if (!q->cut) {
        op_reply(op, -EINVAL, NULL);
        return;
    }
    q->cut->node = 0;
    op_submit(op, STAR__MSG_TYPE__STRAIGHT_CONFIRM, op->body, false, confirmed);
}
