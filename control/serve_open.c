/* Requests on open files: open, create's second half, release, fsync's second half, shared writing;
 * and orphans. */
#include "control/centre.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/placement.h"
#include "control/wire/clock.h"

/* Orphans in one entry of the log: some milliseconds of apply. */
#define REAP_BATCH_MAX 1024

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
    struct centre *c = op->c;

    if (op->counted)
        return 0;
    if (!op->session || op->session->gone)
        return -ESTALE;
    struct live *l = live_get(c, ino);
    struct holder *h = l ? holder_get(c, l, op->session) : NULL;
    if (!h) {
        if (l)
            live_drop_if_idle(c, l);
        return -ENOMEM;
    }
    op->counted = true;
    op->counted_ino = ino;
    op->counted_write = (flags & O_ACCMODE) != O_RDONLY;
    *(op->counted_write ? &h->writers : &h->readers) += 1;
    return 0;
}

/* Some handles of h are closed. */
static void handles_closed(struct centre *c, struct holder *h, uint32_t readers, uint32_t writers)
{
    uint64_t ino = h->live->ino;

    h->readers -= readers < h->readers ? readers : h->readers;
    h->writers -= writers < h->writers ? writers : h->writers;
    if (!holder_writes(h) && h->lease == STAR__LEASE__LEASE_WRITE)
        h->lease = STAR__LEASE__LEASE_READ; /* nobody else has it open: a WRITE lease says so */
    holder_drop_if_idle(c, h);
    reap_if_unused(c, ino);
}

void open_uncount(struct op *op)
{
    struct live *l = op->counted ? live_find(op->c, op->counted_ino) : NULL;
    struct holder *h = l ? holder_find(l, op->session) : NULL;

    op->counted = false;
    if (h)
        handles_closed(op->c, h, !op->counted_write, op->counted_write);
}

/* What the cache table has of an inode's newest version, by node. */
struct copies {
    struct centre *c;
    struct placement_copy *list;
    size_t n;
    uint64_t version;
};

static bool note_copy(void *arg, const struct state_copy_line *line)
{
    struct copies *k = arg;

    for (size_t i = 0; i < k->n; i++)
        if (k->list[i].id == line->node && line->version == k->version)
            k->list[i].cached = line->cached;
    return true;
}

/* LOCATE; NULL: it is another request. */
static const Star__Inode *located(const struct op *op)
{
    return op->request.type == STAR__MSG_TYPE__LOCATE ? (const Star__Inode *)op->body : NULL;
}

static bool is_through_node(const struct op *op)
{
    const Star__Inode *q = located(op);

    return q && q->through_node;
}

static bool is_avoided(const struct op *op, uint32_t node)
{
    const Star__Inode *q = located(op);

    for (size_t i = 0; q && i < q->n_avoid; i++)
        if (q->avoid[i] == node)
            return true;
    return false;
}

static struct node *node_to_read_at(struct op *op, const struct inode *i)
{
    struct centre *c = op->c;
    struct copies k = {.c = c, .version = i->version};
    struct node *n;

    k.list = calloc(HASH_COUNT(c->nodes) + 1, sizeof(*k.list));
    if (!k.list)
        return NULL;
    for (n = c->nodes; n; n = n->hh.next)
        k.list[k.n++] = (struct placement_copy){.id = n->id,
                                                .usable = node_usable(n),
                                                .local = node_is_local(n, op->session),
                                                .avoid = is_avoided(op, n->id),
                                                .load = node_load(n)};
    state_copies(c->state, i->ino, 0, 0, note_copy, &k);
    uint32_t id = placement_read(k.list, k.n);
    free(k.list);
    n = id ? node_find(c, id) : NULL;
    if (n)
        n->readers++;
    return n;
}

/* The node to read and write at. Whoever writes, or may not keep what he reads, goes to the home,
 * if there is one: a reader elsewhere would not hear of the next write. */
static struct node *where_to_go(struct op *op, const struct inode *i, bool reads, bool *copy)
{
    struct node *home = i->home ? node_find(op->c, i->home) : NULL;

    *copy = !(home && node_keeps_homes(home)) || (reads && straight_newest(op->c, i));
    return *copy ? node_to_read_at(op, i) : home;
}

static bool has_writers(const struct op *op, uint64_t ino)
{
    struct live *l = live_find(op->c, ino);
    struct holder *h = l && op->session ? holder_find(l, op->session) : NULL;

    return h && h->writers > 0;
}

/* n may be NULL: the mount cannot use it, and asks again. If it cannot be signed, n refuses it. */
static void ticket_for(struct op *op, const struct node *n, struct open_answer *a)
{
    a->reply.ticket = &a->ticket;
    if (!n)
        return;
    a->ticket.node = n->id;
    a->ticket.session = op->session ? op->session->id : 0;
    a->ticket.expires = (uint64_t)clock_boot_ms() + TICKET_LIFE_MS;
    a->reply.ticket_ms = TICKET_LIFE_MS;
    (void)ticket_sign(&n->key, &a->ticket, a->mac);
}

void answer_open(struct op *op, const struct inode *i, uint32_t flags, struct open_answer *a)
{
    struct node *n = NULL;
    bool copy = false;

    star__open_reply__init(&a->reply);
    a->reply.lease = lease_grant(op->c, op->session, i->ino);
    bool reads = a->reply.lease != STAR__LEASE__LEASE_NONE && !flags_write(flags);
    bool direct = reads && straight_reads(op->c, op->session, i);
    if (!direct || is_through_node(op))
        n = where_to_go(op, i, reads, &copy);
    a->reply.no_node = flags_write(flags) && i->home == 0 && !n;
    a->reply.no_room = flags_write(flags) && n && homes_are_full(op->c);
    direct = direct || (i->home == 0 && !n && straight_settled(op->c, op->session, i));
    a->reply.direct = direct && !n;
    a->reply.straight = flags_write(flags) && straight_asked(op->c, i);
    /* One ticket serves all handles that the mount has. */
    fill_ticket(op->c, i, rights_of(flags) | (has_writers(op, i->ino) ? RIGHT_WRITE : 0),
                &a->ticket, &a->mtime);
    ticket_for(op, n, a);
    a->reply.address = node_reached_by(op->session, n, a->address);
    a->reply.node = n ? n->id : 0;
    a->reply.copy = n && copy;
}

/* --- open --- */

static void open_answer(struct op *op)
{
    Star__Open *q = (Star__Open *)op->body;
    struct open_answer a;
    Star__Attr attr;
    Star__Time times[3];
    struct inode i;

    int rc = op->status;
    if (rc == 0)
        rc = state_inode(op->c->state, q->ino, &i);
    if (rc == 0)
        rc = open_count(op, q->ino, q->flags);
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    op_unmark(op);
    answer_open(op, &i, q->flags, &a);
    attr_now(op->c, &i, &attr, times);
    a.reply.attr = &attr;
    op_reply(op, 0, &a.reply.base);
}

static void open_truncated(struct op *op, const struct state_result *res)
{
    if (res->status < 0)
        op_reply(op, res->status, NULL);
    else
        open_answer(op);
}

/* Under the seq of the OPEN: sent again, it does not truncate again what others have written since.
 */
static void open_log_truncate(struct op *op)
{
    Star__Open *q = (Star__Open *)op->body;
    Star__SetAttr body = STAR__SET_ATTR__INIT;

    if (op->status < 0) {
        op_reply(op, op->status, NULL);
        return;
    }
    body.ino = q->ino;
    body.valid = FATTR_SIZE | (q->kill_suidgid ? FATTR_KILL_SUIDGID : 0);
    body.home = op->home.base.descriptor ? &op->home : NULL;
    op_submit(op, STAR__MSG_TYPE__SETATTR, &body.base, false, open_truncated);
}

static void open_recalled(struct op *op);

static void open_has_home(struct op *op)
{
    static const struct home_change to_nothing = {.set_size = true};
    Star__Open *q = (Star__Open *)op->body;
    struct inode i;

    int rc = state_inode(op->c->state, q->ino, &i);
    if (rc < 0)
        op_reply(op, rc, NULL);
    else if ((q->flags & O_TRUNC) && !op->replayed)
        home_setattr(op, &i, &to_nothing, open_recalled, open_log_truncate);
    else
        home_ask(op, q->ino, open_answer);
}

static void open_recalled(struct op *op)
{
    Star__Open *q = (Star__Open *)op->body;

    if (op->status < 0)
        op_reply(op, op->status, NULL);
    else if (flags_write(q->flags))
        home_take(op, q->ino, open_has_home);
    else
        home_ask(op, q->ino, open_answer);
}

/* Its REAP may be on its way: who opened it now would lose it. */
static bool is_being_reaped(struct centre *c, const struct inode *i)
{
    const struct live *l = live_find(c, i->ino);

    return i->orphan && !(l && live_open_anywhere(l));
}

static void open_begin(struct op *op)
{
    Star__Open *q = (Star__Open *)op->body;
    struct inode i;

    int rc = state_inode(op->c->state, q->ino, &i);
    if (rc == 0 && !S_ISREG(i.mode))
        rc = S_ISDIR(i.mode) ? -EISDIR : -EINVAL;
    if (rc == 0 && is_being_reaped(op->c, &i))
        rc = -ESTALE;
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
        recall_write(op, q->ino); /* a reader ends another mount's right to write without telling */
    }
    op_wait(op, open_recalled);
}

/* Its truncate is in the log. */
static void open_replayed(struct op *op, const struct state_result *res)
{
    if (res->status < 0)
        op_reply(op, res->status, NULL);
    else
        open_begin(op);
}

void serve_open(struct op *op)
{
    if (!op_deduped(op, ((Star__Open *)op->body)->head, open_replayed) && rights_allow(op))
        open_begin(op);
}

/* After a node went away, or said that the ticket is old. */
static void locate_answer(struct op *op)
{
    Star__Inode *q = (Star__Inode *)op->body;
    struct open_answer a;
    struct inode i;

    int rc = op->status;
    if (rc == 0)
        rc = state_inode(op->c->state, q->ino, &i);
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

    if (!rights_allow(op))
        return;
    if (h && h->writers)
        home_take(op, q->ino, locate_answer);
    else
        locate_answer(op);
}

/* --- release --- */

static bool is_news(struct centre *c, const Star__Release *q)
{
    struct inode i;

    return q->attrs && q->attrs->ino == q->ino && state_inode(c->state, q->ino, &i) == 0 &&
           q->attrs->home_epoch == i.home_epoch && q->attrs->version > i.version;
}

/* What the mount says goes into the log, or, if the last writer is gone and so nobody else will
 * tell it, what was heard of the home: that is not older. */
static void log_attrs(struct centre *c, const Star__Release *q, bool news)
{
    struct live *l = live_find(c, q->ino);

    if (l && l->have_home && !live_written(l))
        home_log_attrs(c, &l->home);
    else if (news)
        home_log_attrs(c, q->attrs);
}

void serve_release(struct op *op)
{
    Star__Release *q = (Star__Release *)op->body;
    struct centre *c = op->c;
    struct session *s = op->session;

    if (!rights_allow(op))
        return;
    bool news = is_news(c, q);

    int rc = news ? home_heard(c, q->attrs) : 0;
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    if (q->flock_owner)
        lock_release_owner(c, s, q->ino, q->flock_owner);
    struct live *l = live_find(c, q->ino);
    struct holder *h = l ? holder_find(l, s) : NULL;
    if (h && q->seq >= s->seq_floor)
        handles_closed(c, h, q->readers, q->writers);
    log_attrs(c, q, news);
    op_reply(op, 0, NULL);
}

/* --- fsync's second half --- */

static void sync_done(struct op *op, const struct state_result *res)
{
    home_caught_up(op->c, ((Star__HomeAttrs *)op->body)->ino);
    op_reply(op, res->status, NULL);
}

void serve_sync_attrs(struct op *op)
{
    Star__HomeAttrs *a = (Star__HomeAttrs *)op->body;
    Star__NodeAttrs body = STAR__NODE_ATTRS__INIT;
    struct inode i;

    if (!rights_allow(op))
        return;
    int rc = state_inode(op->c->state, a->ino, &i);
    if (rc < 0 || i.version >= a->version) {
        op_reply(op, rc, NULL);
        return;
    }
    if (a->home_epoch != i.home_epoch) {
        op_error(op, -ESTALE, "inode %" PRIu64 " has another home now", a->ino);
        return;
    }
    rc = home_heard(op->c, a);
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
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

    if (!rights_allow(op))
        return;
    if (q->attrs)
        op->status = home_heard(op->c, q->attrs);
    recall_pages(op, q->ino, q->offset, q->length);
    op_wait(op, invalidated);
}

/* --- orphans --- */

void reap_if_unused(struct centre *c, uint64_t ino)
{
    struct live *l = live_find(c, ino);
    struct inode i;

    if (!c->serving || (l && live_open_anywhere(l)) || state_inode(c->state, ino, &i) < 0 ||
        !i.orphan)
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
    if (status == 0) {
        for (size_t k = 0; k < d->n; k++)
            home_caught_up(d->c, d->ino[k]);
        for (n = d->c->nodes; n; n = n->hh.next)
            node_drop(n, d->ino, d->n);
    }
    free(d);
}

/* What cannot be submitted now stays for the next turn. */
void reap_submit(struct centre *c)
{
    Star__LogInodes body = STAR__LOG_INODES__INIT;
    size_t taken = c->reap_n < REAP_BATCH_MAX ? c->reap_n : REAP_BATCH_MAX;

    if (taken == 0)
        return;
    struct reaped *d = malloc(sizeof(*d) + taken * sizeof(d->ino[0]));
    if (!d)
        return;
    d->c = c;
    d->n = 0;
    for (size_t k = c->reap_n - taken; k < c->reap_n; k++) {
        struct live *l = live_find(c, c->reap[k]);
        if (!l || !live_open_anywhere(l))
            d->ino[d->n++] = c->reap[k];
    }
    body.n_ino = d->n;
    body.ino = d->ino;
    int rc = d->n > 0
                 ? centre_submit(c, STAR__LOG_TYPE__LOG_REAP, &body.base, CONSENSUS_SOON, reaped, d)
                 : 0;
    if (rc < 0 || d->n == 0)
        free(d);
    if (rc == 0)
        c->reap_n -= taken;
}
