/* Homes: which node has the newest version of a file, and the attributes that it owns while the
 * file is written. */
#include "control/centre.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/placement.h"
#include "control/wire/clock.h"
#include "control/wire/stamp.h"

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

/* The home need not be asked any more: the log, or what was heard, is the newest. */
static void home_known(struct centre *c, uint64_t ino)
{
    struct live *l = live_find(c, ino);

    if (!l)
        return;
    l->home_unknown = false;
    live_drop_if_idle(c, l);
}

/* How much the home holds is not in the log: it is remembered for as long as the file is in use. */
static void note_bytes(struct live *l, const Star__HomeAttrs *a)
{
    if (a->home_epoch < l->bytes_epoch ||
        (a->home_epoch == l->bytes_epoch && a->version < l->bytes_version))
        return;
    l->bytes = a->bytes;
    l->bytes_version = a->version;
    l->bytes_epoch = a->home_epoch;
}

/* Remembers what a home said, if it is news. */
int home_heard(struct centre *c, const Star__HomeAttrs *a)
{
    struct live *known = live_find(c, a->ino);
    struct inode i;

    if (known)
        note_bytes(known, a);

    if (a->ino == 0 || state_inode(c->state, a->ino, &i) < 0 || i.home == 0 ||
        a->home_epoch != i.home_epoch)
        return 0;
    if (a->version <= i.version) {
        home_known(c, a->ino);
        return 0;
    }
    struct live *l = live_get(c, a->ino);
    if (!l)
        return -ENOMEM;
    note_bytes(l, a);
    l->home_unknown = false;
    if (l->have_home && l->home.home_epoch == a->home_epoch && l->home.version >= a->version)
        return 0;
    home_attrs_copy(&l->home, l->home_times, a);
    l->have_home = true;
    return 0;
}

void home_caught_up(struct centre *c, uint64_t ino)
{
    struct live *l = live_find(c, ino);
    struct inode i;
    bool gone = state_inode(c->state, ino, &i) < 0;

    if (l && (gone || i.home == 0))
        l->home_unknown = false;
    if (l && l->have_home &&
        (gone || i.version >= l->home.version || i.home_epoch != l->home.home_epoch))
        l->have_home = false;
    if (l)
        live_drop_if_idle(c, l);
    if (!gone)
        node_note_logged(c, &i);
}

void home_writer_lost(struct centre *c, struct live *l)
{
    struct inode i;

    l->home_unknown = l->home_unknown || (state_inode(c->state, l->ino, &i) == 0 && i.home != 0);
}

struct logged {
    struct centre *c;
    uint64_t ino;
};

static void attrs_logged(void *arg, int status, const struct state_result *r)
{
    struct logged *done = arg;

    (void)r;
    if (status == 0)
        home_caught_up(done->c, done->ino);
    free(done);
}

/* If it cannot be submitted, then what was heard stays remembered, and the next who asks tries
 * again. */
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
    if (centre_submit(c, STAR__LOG_TYPE__LOG_HOME_ATTRS, &body.base, CONSENSUS_SOON, attrs_logged,
                      arg) < 0)
        free(arg);
}

struct present {
    uint32_t node;
    uint64_t version, bytes;
    bool known;
};

static bool find_present(void *arg, const struct state_copy_line *line)
{
    struct present *p = arg;

    if (line->node != p->node)
        return true;
    p->known = line->version >= p->version;
    p->bytes = line->cached + line->staged;
    return false;
}

/* Never 0 where there may be data: tools take such a file for one hole. */
static uint64_t blocks_staged(const struct inode *i, uint64_t size, uint64_t present)
{
    uint64_t blocks = state_blocks(size, i->mapped + present);

    return blocks == 0 && size > 0 ? 1 : blocks;
}

/* Of a file whose newest data is staged, as its home told it last; else the size is the best bound.
 */
static void fill_blocks(struct centre *c, const struct live *l, const struct inode *i,
                        Star__Attr *attr)
{
    struct present p = {.node = i->home, .version = i->version};

    if (i->home == 0 || i->version <= i->cut_version)
        return;
    if (l && l->bytes_epoch == i->home_epoch && l->bytes_version >= i->version) {
        p.known = true;
        p.bytes = l->bytes;
    } else {
        state_copies(c->state, i->ino, 0, 0, find_present, &p);
    }
    if (p.known)
        attr->blocks = blocks_staged(i, i->size, p.bytes);
}

void attr_now(struct centre *c, const struct inode *i, Star__Attr *attr, Star__Time times[3])
{
    struct live *l = live_find(c, i->ino);

    state_attr(i, attr, times);
    fill_blocks(c, l, i, attr);
    if (!l || !l->have_home || l->home.home_epoch != i->home_epoch || l->home.version <= i->version)
        return;
    attr->size = l->home.size;
    attr->blocks = blocks_staged(i, l->home.size, l->home.bytes);
    attr->version = l->home.version;
    attr->mtime->sec = l->home.mtime->sec;
    attr->mtime->nsec = l->home.mtime->nsec;
    if (l->home.ctime->sec > attr->ctime->sec ||
        (l->home.ctime->sec == attr->ctime->sec && l->home.ctime->nsec > attr->ctime->nsec)) {
        attr->ctime->sec = l->home.ctime->sec;
        attr->ctime->nsec = l->home.ctime->nsec;
    }
}

void fill_ticket(struct centre *c, const struct inode *i, uint32_t rights, Star__Ticket *t,
                 Star__Time *mtime)
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

/* --- waiting for a node --- */

bool node_awaited(struct op *op, uint32_t node, op_fn again)
{
    struct centre *c = op->c;

    if (op->node_until_ms == 0)
        op->node_until_ms = c->now + NODE_WAIT_MS;
    if (c->now >= op->node_until_ms)
        return false;
    op->wait_node = node;
    op->next = again;
    LL_APPEND2(c->nodeless, op, wait_next);
    return true;
}

/* The op ends if it does not come in time. */
static void wait_for_node(struct op *op, uint32_t node, op_fn again)
{
    struct node *n = node_find(op->c, node);

    if (!node_awaited(op, node, again))
        op_error(op, -EIO, "node %s, the home of inode %" PRIu64 ", is away", n ? n->name : "?",
                 op->home_ino);
}

/* --- asking --- */

bool home_must_be_asked(struct centre *c, const struct session *s, const struct inode *i)
{
    struct live *l;

    if (i->home == 0)
        return straight_must_be_asked(c, s, i);
    if (!(l = live_find(c, i->ino)))
        return false;
    if (l->home_unknown)
        return true;
    if (!live_written(l))
        return false;
    struct holder *h = s ? holder_find(l, s) : NULL;
    return !(h && h->lease == STAR__LEASE__LEASE_WRITE);
}

/* 0, or why the answer says nothing. */
static int take_answer(struct op *op, const struct message *reply)
{
    struct centre *c = op->c;

    if (reply->status < 0)
        return reply->status;
    Star__HomeAttrs *a = (Star__HomeAttrs *)frame_unpack(reply, &star__home_attrs__descriptor);
    if (!a)
        return -EPROTO;
    int rc = a->ino == op->home_ino ? home_heard(c, a) : -EPROTO;
    if (rc == 0) {
        home_attrs_copy(&op->home, op->home_times, a);
        struct live *l = live_find(c, a->ino);
        if (l && l->have_home && !live_written(l))
            home_log_attrs(c, &l->home); /* its writer is gone: nobody else will */
    }
    star__home_attrs__free_unpacked(a, NULL);
    return rc;
}

static void ask_again(struct op *op)
{
    home_ask(op, op->home_ino, op->asked_next);
}

static void on_home_said(void *arg, const struct message *reply)
{
    struct op *op = arg;
    struct inode i;
    int rc = take_answer(op, reply);

    if (reply->status == -ECONNRESET && op->c->now < op->node_until_ms)
        op->next = ask_again; /* it may be back soon */
    /* It knows nothing newer than the log. */
    if (rc == -ENOENT && state_inode(op->c->state, op->home_ino, &i) == 0 &&
        i.home_epoch == op->home_epoch)
        home_known(op->c, op->home_ino);
    op_answered(op, rc == -ENOMEM ? rc : 0);
}

/* -ENOTCONN: it is away. */
static int ask_home(struct op *op, const struct inode *i)
{
    struct node *n = node_find(op->c, i->home);
    Star__Inode body = STAR__INODE__INIT;

    op->home_epoch = i->home_epoch;
    body.ino = i->ino;
    int rc = -ENOTCONN;
    if (n && n->peer)
        rc = peer_request(n->peer, STAR__MSG_TYPE__HOME_GETATTR, &body.base, HOME_DEADLINE_MS,
                          on_home_said, op);
    if (rc == 0)
        op->pending++;
    return rc;
}

void home_ask(struct op *op, uint64_t ino, op_fn next)
{
    struct centre *c = op->c;
    struct inode i;

    op->home_ino = ino;
    op->asked_next = next;
    if (state_inode(c->state, ino, &i) == 0 && straight_must_be_asked(c, op->session, &i)) {
        recall_attr(op, ino); /* its writer confirms first */
    } else if (state_inode(c->state, ino, &i) == 0 && home_must_be_asked(c, op->session, &i)) {
        struct node *n = node_find(c, i.home);
        if (op->node_until_ms == 0)
            op->node_until_ms = c->now + NODE_WAIT_MS;
        int rc = ask_home(op, &i);
        if (rc == -ENOTCONN && n && node_keeps_homes(n) && node_awaited(op, n->id, ask_again))
            return;
        /* Away for long: its data waits for it, and what the log knows is the best answer. */
        if (rc < 0 && rc != -ENOTCONN)
            op->status = op->status ? op->status : rc;
    }
    op_wait(op, next);
}

/* --- a home for a file --- */

/* As the placement policy sees them. NULL: no memory. promised: what files may bring that were made
 * since the last report counts, too. */
static struct placement_node *list_nodes(struct centre *c, const struct session *s, bool promised,
                                         size_t *count)
{
    struct placement_node *list = calloc(HASH_COUNT(c->nodes) + 1, sizeof(*list));
    const struct node *n;

    *count = 0;
    for (n = list ? c->nodes : NULL; n; n = n->hh.next)
        list[(*count)++] = (struct placement_node){
            .id = n->id,
            .usable = node_usable(n),
            .local = node_is_local(n, s),
            .capacity = n->capacity,
            .staged = n->staged + (promised ? n->promised * (uint64_t)PLACEMENT_FILE_BYTES : 0),
            .load = n->load};
    return list;
}

struct node *home_choose(struct centre *c, const struct session *s)
{
    size_t count;
    struct placement_node *list = list_nodes(c, s, true, &count);
    uint32_t id = list ? placement_home(list, count) : 0;

    free(list);
    return id ? node_find(c, id) : NULL;
}

bool homes_are_full(struct centre *c)
{
    size_t count;
    struct placement_node *list = list_nodes(c, NULL, false, &count);
    bool full = list && placement_full(list, count);

    free(list);
    return full;
}

/* One that takes data, and is away for no longer than it may be. */
static bool node_may_come(const struct centre *c)
{
    for (const struct node *n = c->nodes; n; n = n->hh.next)
        if (strcmp(n->state, "ready") == 0 && !n->peer && !n->lost)
            return true;
    return false;
}

static void home_take_again(struct op *op);
static bool home_is_given_up(struct op *op, const struct inode *i, op_fn again);

static void home_taken(struct op *op)
{
    op_fn next = op->home_next;

    if (op->status < 0)
        op_reply(op, op->status, NULL);
    else
        next(op);
}

static void on_home_taken(struct op *op, const struct state_result *r)
{
    /* Another op took it first, or the node was given up just now: what is there now? */
    if (r->status == -ESTALE || r->status == -ENODEV) {
        home_take_again(op);
        return;
    }
    if (r->status < 0) {
        op_reply(op, r->status, NULL);
        return;
    }
    recall_all(op, op->home_ino); /* places that were told in the meantime are old */
    op_wait(op, home_taken);
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
    body.epoch = op->home_epoch + 1;
    op_submit_own(op, STAR__LOG_TYPE__LOG_TAKE_HOME, &body.base, on_home_taken);
}

static void on_dropped(void *arg, const struct message *reply)
{
    struct op *op = arg;

    /* A node that does not hear it meets the new epoch with the next ticket. */
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
    if (peer_request(n->peer, STAR__MSG_TYPE__DROP, &body.base, HOME_DEADLINE_MS, on_dropped,
                     d->op) == 0)
        d->op->pending++;
    return true;
}

void home_drop_copies(struct op *op, uint64_t ino, uint32_t too)
{
    struct drop_arg d = {.op = op};
    struct state_copy_line line = {.ino = ino, .node = too};

    state_copies(op->c->state, ino, 0, 0, drop_copy, &d);
    if (too)
        drop_copy(&d, &line); /* its lines may be behind; twice does no harm */
}

static void home_take_again(struct op *op)
{
    home_take(op, op->home_ino, op->home_next);
}

/* A mount is about to write it straight to the pool: until the log has it nothing goes to the home.
 */
static bool home_is_given_up(struct op *op, const struct inode *i, op_fn again)
{
    const struct live *l = live_find(op->c, i->ino);

    return l && l->giving_up && node_awaited(op, i->home, again);
}

/* Others than op have it open for writing: what they wrote may be at the home alone. */
static bool written_besides(const struct op *op, const struct live *l)
{
    uint64_t writers = 0;
    const struct holder *h;

    DL_FOREACH (l->holders, h)
        writers += h->writers;
    return writers > (op->counted && op->counted_write && op->counted_ino == l->ino ? 1 : 0);
}

/* A home that is lost and has nothing that the pool has not: nobody waits for it. */
static bool home_is_spare(const struct op *op, const struct inode *i, const struct node *home)
{
    const struct live *l = live_find(op->c, i->ino);

    if (!home->lost || i->version > i->cut_version)
        return false;
    return !l ||
           !(l->home_unknown || written_besides(op, l) ||
             (l->have_home && l->home.home_epoch == i->home_epoch && l->home.version > i->version));
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
    op->home_next = next;
    op->home_ino = ino;
    op->home_epoch = i.home_epoch;
    if (home_is_given_up(op, &i, home_take_again))
        return;
    if (home && node_keeps_homes(home) && !home_is_spare(op, &i, home)) {
        next(op);
        return;
    }
    if (!home_for_new(op, home_take_again, &home))
        return;
    if (!home && i.home == 0) {
        next(op); /* what the pool has of it is all there is */
        return;
    }
    op->node = home ? home->id : 0;
    struct drop_arg d = {.op = op, .keep = op->node};
    state_copies(c->state, ino, 0, 0, drop_copy, &d);
    op_wait(op, take_submit);
}

/* --- nodes that came back --- */

static bool node_came(struct centre *c, uint32_t node)
{
    struct node *n = node ? node_find(c, node) : home_choose(c, NULL);

    return n && n->peer;
}

void homes_tick(struct centre *c)
{
    struct op *op = c->nodeless;

    c->nodeless = NULL;
    while (op) {
        struct op *next = op->wait_next;
        op->wait_next = NULL;
        if (node_came(c, op->wait_node) || c->now >= op->node_until_ms)
            op->next(op);
        else
            LL_APPEND2(c->nodeless, op, wait_next);
        op = next;
    }
}

bool home_for_new(struct op *op, op_fn again, struct node **home)
{
    struct node *n = *home = home_choose(op->c, op->session);

    if (n)
        n->promised++;
    return n || !node_may_come(op->c) || !node_awaited(op, 0, again);
}

/* --- truncate and utimens --- */

/* A change that may or may not have been made. */
static void change_unsure(struct centre *c, uint64_t ino)
{
    struct live *l = live_get(c, ino);

    if (!l)
        return;
    l->home_unknown = true;
    live_drop_if_idle(c, l);
}

static void on_home_changed(void *arg, const struct message *reply)
{
    struct op *op = arg;
    int rc = take_answer(op, reply);

    if (rc < 0)
        change_unsure(op->c, op->home_ino);
    op_answered(op, rc);
}

void home_setattr(struct op *op, const struct inode *i, const struct home_change *change,
                  op_fn again, op_fn next)
{
    struct centre *c = op->c;
    struct node *n = node_find(c, i->home);
    Star__HomeSetAttr body = STAR__HOME_SET_ATTR__INIT;
    Star__Ticket ticket;
    Star__Time base_mtime, now = stamp_of(clock_real());

    op->home_ino = i->ino;
    op->home_epoch = i->home_epoch;
    if (i->home == 0) { /* the log alone says what it is */
        op_wait(op, next);
        return;
    }
    if (home_is_given_up(op, i, again))
        return;
    fill_ticket(c, i, RIGHT_READ | RIGHT_WRITE, &ticket, &base_mtime);
    body.ticket = &ticket;
    body.set_size = change->set_size;
    body.size = change->size;
    body.set_mtime = change->mtime != NULL;
    body.mtime = (Star__Time *)change->mtime;
    body.now = &now;
    int rc = -ENOTCONN;
    if (n && n->peer)
        rc = peer_request(n->peer, STAR__MSG_TYPE__HOME_SETATTR, &body.base, HOME_DEADLINE_MS,
                          on_home_changed, op);
    if (rc == -ENOTCONN) {
        wait_for_node(op, i->home, again);
        return;
    }
    if (rc < 0)
        op->status = rc;
    else
        op->pending++;
    op_wait(op, next);
}

/* --- attributes from a node that came back --- */

static void node_attrs_logged(struct op *op, const struct state_result *r)
{
    struct node *n = op->peer ? node_of_peer(op->c, op->peer) : NULL;
    Star__NodeAttrs *body = (Star__NodeAttrs *)op->body;
    struct centre *c = op->c;

    for (size_t k = 0; k < body->n_attrs; k++)
        home_caught_up(c, body->attrs[k]->ino);
    if (n && body->done && r->status >= 0)
        n->reported = true;
    op_reply(op, r->status, NULL);
    grace_check(c);
}

static void node_attrs_submit(struct op *op)
{
    op_submit(op, STAR__LOG_TYPE__LOG_HOME_ATTRS, op->body, false, node_attrs_logged);
}

/* What the node found after a crash is news to everybody: from now on it is what is answered, and
 * what was answered before is recalled. Its writer, if there is one, knows best. */
static int node_says(struct op *op, const Star__HomeAttrs *a)
{
    int rc = home_heard(op->c, a);
    struct live *l = live_find(op->c, a->ino);

    if (rc == 0 && l && l->have_home && l->home.version == a->version && !live_written(l))
        recall_all(op, a->ino);
    return rc;
}

void serve_node_attrs(struct op *op)
{
    Star__NodeAttrs *body = (Star__NodeAttrs *)op->body;

    for (size_t k = 0; k < body->n_attrs && op->status == 0; k++)
        op->status = node_says(op, body->attrs[k]);
    op_wait(op, node_attrs_submit);
}
