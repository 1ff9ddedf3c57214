/* Homes: which node has the newest version of a file, and the attributes that it owns while the file is written. */
#include "control/centre.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/placement.h"
#include "control/wire/clock.h"

#define PLACEMENT_NODES_MAX 4096

void home_attrs_copy(Star__HomeAttrs *to, Star__Time times[2], const Star__HomeAttrs *from)
{
    *to = *from;
    star__time__init(&times[0]);
    star__time__init(&times[1]);
    if (from->mtime) {
        times[0].sec = from->mtime->sec;
        times[0].nsec = from->mtime->nsec;
    }
    if (from->ctime) {
        times[1].sec = from->ctime->sec;
        times[1].nsec = from->ctime->nsec;
    }
    to->mtime = &times[0];
    to->ctime = &times[1];
    to->base.n_unknown_fields = 0;
    to->base.unknown_fields = NULL;
}

/* Remembers what a home said, if it is news. */
void home_heard(struct centre *c, const Star__HomeAttrs *a)
{
    struct inode i;

    if (a->ino == 0 || state_inode(c->state, a->ino, &i) < 0)
        return;
    struct live *l = live_find(c, a->ino);
    if (a->home_epoch != i.home_epoch || a->version <= i.version) {
        if (l && a->home_epoch == i.home_epoch)
            l->home_unknown = false;
        return;
    }
    if (!l && !(l = live_get(c, a->ino)))
        return;
    l->home_unknown = false;
    if (l->have_home && l->home.home_epoch == a->home_epoch && l->home.version >= a->version)
        return;
    home_attrs_copy(&l->home, l->home_times, a);
    l->have_home = true;
}

struct logged {
    struct centre *c;
    uint64_t ino;
};

static void attrs_logged(void *arg, int status, const struct state_result *r)
{
    struct logged *done = arg;
    struct centre *c = done->c;
    uint64_t ino = done->ino;
    struct inode i;

    (void)r;
    free(done);
    if (status < 0)
        return;
    node_note_logged(c, ino);
    struct live *l = live_find(c, ino);
    if (l && l->have_home && (state_inode(c->state, ino, &i) < 0 || i.version >= l->home.version ||
                              i.home_epoch != l->home.home_epoch)) {
        l->have_home = false;
        live_drop_if_idle(c, l);
    }
}

void home_log_attrs(struct centre *c, const Star__HomeAttrs *a)
{
    Star__NodeAttrs body = STAR__NODE_ATTRS__INIT;
    Star__HomeAttrs *one = (Star__HomeAttrs *)a;
    struct logged *arg = malloc(sizeof(*arg));

    if (!arg)
        return;
    *arg = (struct logged){.c = c, .ino = a->ino};
    body.n_attrs = 1;
    body.attrs = &one;
    if (centre_submit(c, STAR__LOG_TYPE__LOG_HOME_ATTRS, &body.base, attrs_logged, arg) < 0)
        free(arg);
}

void attr_now(struct centre *c, const struct inode *i, Star__Attr *attr, Star__Time times[3])
{
    struct live *l = live_find(c, i->ino);

    state_attr(i, attr, times);
    if (!l || !l->have_home || l->home.home_epoch != i->home_epoch || l->home.version <= i->version)
        return;
    attr->size = l->home.size;
    attr->blocks = (l->home.size + 511) / 512;
    attr->version = l->home.version;
    attr->mtime->sec = l->home.mtime->sec;
    attr->mtime->nsec = l->home.mtime->nsec;
    if (l->home.ctime->sec > attr->ctime->sec ||
        (l->home.ctime->sec == attr->ctime->sec && l->home.ctime->nsec > attr->ctime->nsec)) {
        attr->ctime->sec = l->home.ctime->sec;
        attr->ctime->nsec = l->home.ctime->nsec;
    }
}

void fill_ticket(struct centre *c, const struct inode *i, uint32_t rights, Star__Ticket *t, Star__Time *mtime)
{
    Star__Attr attr;
    Star__Time times[3];

    attr_now(c, i, &attr, times);
    star__ticket__init(t);
    star__time__init(mtime);
    t->ino = i->ino;
    t->rights = rights;
    t->home_epoch = i->home_epoch;
    t->size = attr.size;
    t->version = attr.version;
    mtime->sec = attr.mtime->sec;
    mtime->nsec = attr.mtime->nsec;
    t->mtime = mtime;
    t->mapped = i->mapped > 0;
}

/* --- asking --- */

bool home_must_be_asked(struct centre *c, const struct session *s, const struct inode *i)
{
    struct live *l;

    if (i->home == 0 || !(l = live_find(c, i->ino)))
        return false;
    if (l->home_unknown)
        return true;
    if (!live_written(l))
        return false;
    struct holder *h = s ? holder_find(l, s) : NULL;
    return !(h && h->lease == STAR__LEASE__LEASE_WRITE);
}

static void on_home_attrs(void *arg, const struct message *reply)
{
    struct op *op = arg;
    Star__HomeAttrs *a = NULL;
    int status = reply->status;

    if (status >= 0) {
        a = (Star__HomeAttrs *)frame_unpack(reply, &star__home_attrs__descriptor);
        if (!a) {
            status = -EPROTO;
        } else {
            home_heard(op->c, a);
            home_attrs_copy(&op->home, op->home_times, a);
            struct live *l = live_find(op->c, a->ino);
            if (l && l->have_home && !live_written(l))
                home_log_attrs(op->c, a); /* its writer is gone: nobody else will */
            star__home_attrs__free_unpacked(a, NULL);
        }
    }
    if (status == -ENOENT)
        status = 0; /* the home knows nothing newer than the log */
    op_answered(op, status);
}

void home_ask(struct op *op, uint64_t ino, op_fn next)
{
    struct centre *c = op->c;
    struct inode i;
    Star__Inode body = STAR__INODE__INIT;

    if (state_inode(c->state, ino, &i) == 0 && home_must_be_asked(c, op->session, &i)) {
        struct node *n = node_find(c, i.home);
        body.ino = ino;
        op->pending++;
        if (!n || !n->peer ||
            peer_request(n->peer, STAR__MSG_TYPE__HOME_GETATTR, &body.base, HOME_DEADLINE_MS, on_home_attrs, op) < 0) {
            /* Its data waits for it; what the log knows is the best answer there is. */
            op->pending--;
        }
    }
    op_wait(op, next);
}

/* --- a home for a file --- */

struct node *home_choose(struct centre *c, const struct session *s)
{
    static const size_t max = PLACEMENT_NODES_MAX;
    struct placement_node *list = calloc(max < HASH_COUNT(c->nodes) + 1 ? max : HASH_COUNT(c->nodes) + 1, sizeof(*list));
    size_t count = 0;
    struct node *n;

    (void)s; /* every mount and node is on this machine in a cloud that speaks over unix sockets */
    if (!list)
        return NULL;
    for (n = c->nodes; n && count < max; n = n->hh.next)
        list[count++] = (struct placement_node){.id = n->id, .usable = node_usable(n), .local = true,
                                                .capacity = n->capacity, .staged = n->staged, .load = n->load};
    uint32_t id = placement_home(list, count);
    free(list);
    return id ? node_find(c, id) : NULL;
}

static void on_home_taken(struct op *op, const struct state_result *r)
{
    if (r->status < 0) {
        op_reply(op, r->status, NULL);
        return;
    }
    op_fn next = op->home_next;
    next(op);
}

static void take_submit(struct op *op)
{
    Star__LogHome body = STAR__LOG_HOME__INIT;

    if (op->status < 0) {
        op_reply(op, op->status, NULL);
        return;
    }
    body.ino = op->home_ino;
    body.node = op->node;
    op_submit_own(op, STAR__LOG_TYPE__LOG_TAKE_HOME, &body.base, on_home_taken);
}

static void on_dropped(void *arg, const struct message *reply)
{
    struct op *op = arg;

    /* A node that is away is caught by its epoch when it comes back. */
    (void)reply;
    op_answered(op, 0);
}

struct drop_arg {
    struct op *op;
    uint32_t keep;
};

static bool drop_copy(void *arg, const struct state_copy_line *line)
{
    struct drop_arg *d = arg;
    struct node *n = node_find(d->op->c, line->node);
    Star__Drop body = STAR__DROP__INIT;
    uint64_t ino = line->ino;

    if (line->node == d->keep || !n || !n->peer)
        return true;
    body.n_ino = 1;
    body.ino = &ino;
    d->op->pending++;
    if (peer_request(n->peer, STAR__MSG_TYPE__DROP, &body.base, HOME_DEADLINE_MS, on_dropped, d->op) < 0)
        d->op->pending--;
    return true;
}

void home_take(struct op *op, uint64_t ino, op_fn next)
{
    struct centre *c = op->c;
    struct inode i;

    int rc = state_inode(c->state, ino, &i);
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    struct node *home = i.home ? node_find(c, i.home) : NULL;
    if (home && node_keeps_homes(home)) {
        next(op);
        return;
    }
    home = home_choose(c, op->session);
    if (!home) {
        op_error(op, -EIO, "no node is ready to take data");
        return;
    }
    op->home_next = next;
    op->home_ino = ino;
    op->node = home->id;
    struct drop_arg d = {.op = op, .keep = home->id};
    state_copies(c->state, ino, 0, 0, drop_copy, &d);
    op_wait(op, take_submit);
}

/* --- truncate and utimens --- */

void home_setattr(struct op *op, const struct inode *i, bool set_size, uint64_t size, const Star__Time *mtime, op_fn next)
{
    struct centre *c = op->c;
    struct node *n = node_find(c, i->home);
    Star__HomeSetAttr body = STAR__HOME_SET_ATTR__INIT;
    Star__Ticket ticket;
    Star__Time base_mtime, now = STAR__TIME__INIT;
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    now.sec = t.tv_sec;
    now.nsec = (uint32_t)t.tv_nsec;
    fill_ticket(c, i, 3, &ticket, &base_mtime);
    body.ticket = &ticket;
    body.set_size = set_size;
    body.size = size;
    body.set_mtime = mtime != NULL;
    body.mtime = (Star__Time *)mtime;
    body.now = &now;
    op->pending++;
    if (!n || !n->peer ||
        peer_request(n->peer, STAR__MSG_TYPE__HOME_SETATTR, &body.base, HOME_DEADLINE_MS, on_home_attrs, op) < 0) {
        op->pending--;
        op_error(op, -EIO, "node %s, the home of inode %llu, is away", n ? n->name : "?",
                 (unsigned long long)i->ino);
        return;
    }
    op_wait(op, next);
}

/* --- attributes from a node that came back --- */

static void node_attrs_logged(struct op *op, const struct state_result *r)
{
    struct node *n = op->peer ? node_of_peer(op->c, op->peer) : NULL;
    Star__NodeAttrs *body = (Star__NodeAttrs *)op->body;
    struct centre *c = op->c;

    for (size_t k = 0; k < body->n_attrs; k++) {
        struct live *l = live_find(c, body->attrs[k]->ino);
        if (l) {
            l->home_unknown = false;
            live_drop_if_idle(c, l);
        }
        node_note_logged(c, body->attrs[k]->ino);
    }
    if (n && body->done)
        n->reported = true;
    op_reply(op, r->status, NULL);
    grace_check(c, clock_boot_ms());
}

static void node_attrs_submit(struct op *op)
{
    op_submit(op, STAR__LOG_TYPE__LOG_HOME_ATTRS, op->body, false, node_attrs_logged);
}

void serve_node_attrs(struct op *op)
{
    Star__NodeAttrs *body = (Star__NodeAttrs *)op->body;
    struct inode i;

    for (size_t k = 0; k < body->n_attrs; k++) {
        const Star__HomeAttrs *a = body->attrs[k];
        if (state_inode(op->c->state, a->ino, &i) < 0 || a->home_epoch != i.home_epoch || a->version <= i.version)
            continue;
        struct live *l = live_find(op->c, a->ino);
        if (l && !live_written(l))
            recall_all(op, a->ino); /* what the node found after a crash of the machine is news to everybody */
    }
    op_wait(op, node_attrs_submit);
}
