/* Requests on open files: open, create's second half, release, fsync's second half, shared writing; and orphans. */
#include "control/centre.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RIGHT_READ 1u
#define RIGHT_WRITE 2u

bool flags_write(uint32_t flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

static uint32_t rights_of(uint32_t flags)
{
    return flags_write(flags) ? RIGHT_READ | RIGHT_WRITE : RIGHT_READ;
}

int open_count(struct op *op, uint64_t ino, uint32_t flags)
{
    if (op->counted || !op->session || op->session->gone)
        return op->session && !op->session->gone ? 0 : -ESTALE;
    struct live *l = live_get(op->c, ino);
    struct holder *h = l ? holder_get(op->c, l, op->session) : NULL;
    if (!h)
        return -ENOMEM;
    if ((flags & O_ACCMODE) != O_RDONLY)
        h->writers++;
    else
        h->readers++;
    op->counted = true;
    return 0;
}

static void open_uncount(struct op *op, uint64_t ino, uint32_t flags)
{
    struct live *l = live_find(op->c, ino);
    struct holder *h = l ? holder_find(l, op->session) : NULL;

    if (!op->counted || !h)
        return;
    op->counted = false;
    uint32_t *n = (flags & O_ACCMODE) != O_RDONLY ? &h->writers : &h->readers;
    if (*n > 0)
        (*n)--;
    holder_drop_if_idle(op->c, h);
}

/* The node to read and write at: the home, else one that caches it, else any. */
struct best_copy {
    struct centre *c;
    struct node *node;
    uint64_t version, cached;
};

static bool better_copy(void *arg, const struct state_copy_line *line)
{
    struct best_copy *b = arg;
    struct node *n = node_find(b->c, line->node);

    if (n && node_usable(n) && line->version == b->version && line->cached > b->cached) {
        b->node = n;
        b->cached = line->cached;
    }
    return true;
}

static struct node *where_to_go(struct centre *c, struct session *s, const struct inode *i)
{
    struct node *home = i->home ? node_find(c, i->home) : NULL;

    if (home && node_keeps_homes(home))
        return home;
    struct best_copy b = {.c = c, .version = i->version};
    state_copies(c->state, i->ino, 0, 0, better_copy, &b);
    return b.node ? b.node : home_choose(c, s);
}

void answer_open(struct op *op, const struct inode *i, uint32_t flags, struct open_answer *a)
{
    struct node *n = where_to_go(op->c, op->session, i);

    star__open_reply__init(&a->reply);
    fill_ticket(op->c, i, rights_of(flags), &a->ticket, &a->mtime);
    a->reply.ticket = &a->ticket;
    a->reply.address = n ? n->address : "";
    a->reply.node = n ? n->id : 0;
    a->reply.lease = lease_grant(op->c, op->session, i->ino);
}

/* --- open --- */

static void open_fail(struct op *op, int rc)
{
    Star__Open *q = (Star__Open *)op->body;

    open_uncount(op, q->ino, q->flags);
    op_reply(op, rc, NULL);
}

static void open_answer(struct op *op)
{
    Star__Open *q = (Star__Open *)op->body;
    struct open_answer a;
    Star__Attr attr;
    Star__Time times[3];
    struct inode i;

    int rc = state_inode(op->c->state, q->ino, &i);
    if (rc == 0)
        rc = open_count(op, q->ino, q->flags);
    if (rc < 0) {
        open_fail(op, rc);
        return;
    }
    op_unmark(op);
    answer_open(op, &i, q->flags, &a);
    attr_now(op->c, &i, &attr, times);
    a.reply.attr = &attr;
    op_reply(op, 0, &a.reply.base);
}

static void open_ask(struct op *op)
{
    op->status = 0; /* a home that is away says nothing here; reading will find out */
    home_ask(op, ((Star__Open *)op->body)->ino, open_answer);
}

static void open_truncated(struct op *op, const struct state_result *res)
{
    if (res->status < 0)
        open_fail(op, res->status);
    else
        open_answer(op);
}

static void open_log_truncate(struct op *op)
{
    Star__Open *q = (Star__Open *)op->body;
    Star__SetAttr body = STAR__SET_ATTR__INIT;

    if (op->status < 0) {
        open_fail(op, op->status);
        return;
    }
    body.ino = q->ino;
    body.valid = (1u << 3) | (q->kill_suidgid ? 1u << 11 : 0);
    body.home = &op->home;
    op_submit_own(op, STAR__MSG_TYPE__SETATTR, &body.base, open_truncated);
}

static void open_has_home(struct op *op)
{
    Star__Open *q = (Star__Open *)op->body;
    struct inode i;

    int rc = state_inode(op->c->state, q->ino, &i);
    if (rc < 0)
        open_fail(op, rc);
    else if (q->flags & O_TRUNC)
        home_setattr(op, &i, true, 0, NULL, open_log_truncate);
    else
        open_ask(op);
}

static void open_recalled(struct op *op)
{
    Star__Open *q = (Star__Open *)op->body;

    if (flags_write(q->flags))
        home_take(op, q->ino, open_has_home);
    else
        open_ask(op);
}

/* A reader ends another mount's right to write without telling. */
static void recall_writers(struct op *op, uint64_t ino)
{
    struct live *l = live_find(op->c, ino);

    if (l && live_written_by_other(l, op->session))
        recall_all(op, ino);
}

void serve_open(struct op *op)
{
    Star__Open *q = (Star__Open *)op->body;
    struct inode i;

    if (op_deduped(op, q->head, open_truncated))
        return;
    int rc = state_inode(op->c->state, q->ino, &i);
    if (rc == 0 && !S_ISREG(i.mode))
        rc = S_ISDIR(i.mode) ? -EISDIR : -EINVAL;
    if (rc == 0)
        rc = open_count(op, q->ino, q->flags);
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    if (flags_write(q->flags)) {
        op_busy_inode(op, q->ino);
        recall_all(op, q->ino);
    } else {
        recall_writers(op, q->ino);
    }
    op_wait(op, open_recalled);
}

/* After a node went away, or said that the ticket is old. */
static void locate_answer(struct op *op)
{
    Star__Inode *q = (Star__Inode *)op->body;
    struct open_answer a;
    struct inode i;

    int rc = state_inode(op->c->state, q->ino, &i);
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    struct live *l = live_find(op->c, q->ino);
    struct holder *h = l && op->session ? holder_find(l, op->session) : NULL;
    answer_open(op, &i, h && h->writers ? O_RDWR : O_RDONLY, &a);
    op_reply(op, 0, &a.reply.base);
}

void serve_locate(struct op *op)
{
    Star__Inode *q = (Star__Inode *)op->body;
    struct live *l = live_find(op->c, q->ino);
    struct holder *h = l && op->session ? holder_find(l, op->session) : NULL;

    if (h && h->writers)
        home_take(op, q->ino, locate_answer);
    else
        locate_answer(op);
}

/* --- release --- */

static uint32_t less(uint32_t have, uint32_t gone)
{
    return gone < have ? have - gone : 0;
}

static void close_handles(struct centre *c, struct session *s, const Star__Release *q)
{
    struct live *l = live_find(c, q->ino);
    struct holder *h = l ? holder_find(l, s) : NULL;

    if (!h)
        return;
    h->readers = less(h->readers, q->readers);
    h->writers = less(h->writers, q->writers);
    if (h->writers == 0 && h->lease == STAR__LEASE__LEASE_WRITE)
        h->lease = STAR__LEASE__LEASE_READ;
    holder_drop_if_idle(c, h);
}

void serve_release(struct op *op)
{
    Star__Release *q = (Star__Release *)op->body;
    struct centre *c = op->c;
    struct session *s = op->session;
    struct inode i;

    if (!s) {
        op_reply(op, -EINVAL, NULL);
        return;
    }
    if (q->attrs && q->attrs->ino == q->ino && state_inode(c->state, q->ino, &i) == 0 &&
        q->attrs->home_epoch == i.home_epoch && q->attrs->version > i.version) {
        home_heard(c, q->attrs);
        home_log_attrs(c, q->attrs);
    }
    if (q->flock_owner)
        lock_release_owner(c, s, q->ino, q->flock_owner);
    if (q->seq >= s->seq_floor)
        close_handles(c, s, q);
    uint64_t ino = q->ino;
    op_reply(op, 0, NULL);
    reap_if_unused(c, ino);
}

/* --- fsync's second half --- */

static void sync_done(struct op *op, const struct state_result *res)
{
    struct centre *c = op->c;
    Star__HomeAttrs *a = (Star__HomeAttrs *)op->body;
    struct live *l = live_find(c, a->ino);
    struct inode i;

    if (l && l->have_home && state_inode(c->state, a->ino, &i) == 0 && i.version >= l->home.version)
        l->have_home = false;
    if (l)
        live_drop_if_idle(c, l);
    node_note_logged(c, a->ino);
    op_reply(op, res->status, NULL);
}

void serve_sync_attrs(struct op *op)
{
    Star__HomeAttrs *a = (Star__HomeAttrs *)op->body;
    Star__NodeAttrs body = STAR__NODE_ATTRS__INIT;
    struct inode i;

    int rc = state_inode(op->c->state, a->ino, &i);
    if (rc < 0 || i.version >= a->version) {
        op_reply(op, rc, NULL);
        return;
    }
    if (a->home_epoch != i.home_epoch) {
        op_error(op, -ESTALE, "inode %" PRIu64 " has another home now", a->ino);
        return;
    }
    home_heard(op->c, a);
    body.n_attrs = 1;
    body.attrs = &a;
    op_submit_own(op, STAR__LOG_TYPE__LOG_HOME_ATTRS, &body.base, sync_done);
}

/* --- shared writing --- */

static void invalidated(struct op *op)
{
    op_reply(op, op->status, NULL);
}

void serve_invalidate(struct op *op)
{
    Star__Invalidate *q = (Star__Invalidate *)op->body;

    if (q->attrs)
        home_heard(op->c, q->attrs);
    recall_pages(op, q->ino, q->offset, q->length);
    op_wait(op, invalidated);
}

/* --- orphans --- */

void reap_if_unused(struct centre *c, uint64_t ino)
{
    struct live *l = live_find(c, ino);
    struct inode i;

    if (!c->serving || (l && live_open_anywhere(l)) || state_inode(c->state, ino, &i) < 0 || !i.orphan)
        return;
    if (c->reap_n == c->reap_size) {
        size_t size = c->reap_size ? c->reap_size * 2 : 64;
        uint64_t *grown = realloc(c->reap, size * sizeof(*grown));
        if (!grown)
            return; /* the sweep at the next start finds it */
        c->reap = grown;
        c->reap_size = size;
    }
    c->reap[c->reap_n++] = ino;
}

struct reaped {
    struct centre *c;
    size_t n;
    uint64_t ino[];
};

/* Nodes forget what they hold of files that are no more. */
static void reaped(void *arg, int status, const struct state_result *r)
{
    struct reaped *d = arg;
    struct node *n;

    (void)r;
    if (status == 0)
        for (n = d->c->nodes; n; n = n->hh.next)
            node_drop(d->c, n, d->ino, d->n, true);
    free(d);
}

void reap_submit(struct centre *c)
{
    Star__LogInodes body = STAR__LOG_INODES__INIT;

    if (c->reap_n == 0)
        return;
    struct reaped *d = malloc(sizeof(*d) + c->reap_n * sizeof(d->ino[0]));
    if (!d)
        return;
    d->c = c;
    d->n = 0;
    for (size_t k = 0; k < c->reap_n; k++) {
        struct live *l = live_find(c, c->reap[k]);
        if (!l || !live_open_anywhere(l))
            d->ino[d->n++] = c->reap[k];
    }
    c->reap_n = 0;
    body.n_ino = d->n;
    body.ino = d->ino;
    if (d->n == 0 || centre_submit(c, STAR__LOG_TYPE__LOG_REAP, &body.base, reaped, d) < 0)
        free(d);
}
