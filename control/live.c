/* Live inodes: who holds what, which leases may be granted, and recalls. */
#include "control/centre.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/log.h"

/* --- live inodes and holders --- */

struct live *live_find(struct centre *c, uint64_t ino)
{
    struct live *l;

    HASH_FIND(hh, c->lives, &ino, sizeof(ino), l);
    return l;
}

struct live *live_get(struct centre *c, uint64_t ino)
{
    struct live *l = live_find(c, ino);

    if (l)
        return l;
    l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->ino = ino;
    HASH_ADD(hh, c->lives, ino, sizeof(l->ino), l);
    return l;
}

void live_drop_if_idle(struct centre *c, struct live *l)
{
    if (l->holders || l->busy || l->names || l->waiting || l->refs || l->have_home ||
        l->home_unknown)
        return;
    if (l->locks && !lock_table_empty(l->locks))
        return;
    HASH_DEL(c->lives, l);
    lock_table_free(l->locks);
    free(l);
}

struct holder *holder_find(const struct live *l, const struct session *s)
{
    struct holder *h;

    DL_FOREACH (l->holders, h)
        if (h->session == s)
            return h;
    return NULL;
}

struct holder *holder_get(struct centre *c, struct live *l, struct session *s)
{
    struct holder *h = holder_find(l, s);

    if (h)
        return h;
    h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->session = s;
    h->live = l;
    DL_APPEND(l->holders, h);
    DL_APPEND2(s->holders, h, s_prev, s_next);
    c->holders++;
    return h;
}

void holder_free(struct centre *c, struct holder *h)
{
    struct live *l = h->live;

    DL_DELETE(l->holders, h);
    DL_DELETE2(h->session->holders, h, s_prev, s_next);
    c->holders--;
    free(h);
    live_drop_if_idle(c, l);
}

void holder_drop_if_idle(struct centre *c, struct holder *h)
{
    if (h->lease == STAR__LEASE__LEASE_NONE && h->recalls == 0 && !holder_opens(h))
        holder_free(c, h);
}

bool live_open_anywhere(const struct live *l)
{
    struct holder *h;

    DL_FOREACH (l->holders, h)
        if (holder_opens(h))
            return true;
    return false;
}

bool live_written(const struct live *l)
{
    return live_written_by_other(l, NULL);
}

bool live_written_by_other(const struct live *l, const struct session *s)
{
    struct holder *h;

    DL_FOREACH (l->holders, h)
        if (h->session != s && holder_writes(h))
            return true;
    return false;
}

static bool held_by_other(const struct live *l, const struct session *s)
{
    struct holder *h;

    DL_FOREACH (l->holders, h)
        if (h->session != s &&
            (holder_opens(h) || h->recalls > 0 || h->lease != STAR__LEASE__LEASE_NONE))
            return true;
    return false;
}

void lives_free_all(struct centre *c)
{
    struct live *l, *tmp;

    HASH_ITER (hh, c->lives, l, tmp) {
        HASH_DEL(c->lives, l);
        lock_table_free(l->locks);
        free(l);
    }
}

/* --- leases --- */

static bool may_be_granted(const struct centre *c, const struct session *s)
{
    return s && !s->doomed && s->reclaimed && c->serving && c->lease_stops == 0;
}

/* The holder that a new lease is noted in. NULL: no lease, the mount asks each time. */
static struct holder *holder_for_lease(struct centre *c, struct live *l, struct session *s)
{
    struct holder *h = holder_find(l, s);

    if (!h && c->holders < HOLDERS_MAX)
        h = holder_get(c, l, s);
    return h;
}

static Star__Lease grant(struct centre *c, struct session *s, struct live *l)
{
    struct holder *h;

    if (l->busy || l->home_unknown || live_written_by_other(l, s))
        return STAR__LEASE__LEASE_NONE;
    h = holder_for_lease(c, l, s);
    if (!h)
        return STAR__LEASE__LEASE_NONE;
    if (!holder_writes(h))
        h->lease = STAR__LEASE__LEASE_READ;
    else if (!held_by_other(l, s))
        h->lease = STAR__LEASE__LEASE_WRITE;
    else /* shared writing; what it was granted before stays noted, so that it is recalled */
        return STAR__LEASE__LEASE_NONE;
    return h->lease;
}

Star__Lease lease_grant(struct centre *c, struct session *s, uint64_t ino)
{
    struct live *l = may_be_granted(c, s) ? live_get(c, ino) : NULL;

    if (!l)
        return STAR__LEASE__LEASE_NONE;
    Star__Lease lease = grant(c, s, l);
    live_drop_if_idle(c, l);
    return lease;
}

static bool name_is_busy(const struct live *l, const void *name, size_t len)
{
    for (const struct busy_name *b = l->names; b; b = b->next)
        if (b->len == len && memcmp(b->name, name, len) == 0)
            return true;
    return false;
}

bool entry_lease_grant(struct centre *c, struct session *s, uint64_t dir, const void *name,
                       size_t len)
{
    struct live *l = may_be_granted(c, s) ? live_get(c, dir) : NULL;

    if (!l)
        return false;
    bool busy = len > 0 ? name_is_busy(l, name, len) : l->names != NULL;
    struct holder *h = busy ? NULL : holder_for_lease(c, l, s);
    if (h && h->lease == STAR__LEASE__LEASE_NONE)
        h->lease = STAR__LEASE__LEASE_READ;
    live_drop_if_idle(c, l);
    return h != NULL;
}

/* --- recalls --- */

/* Out of the session's list already. The op goes on if this was its last. */
static void recall_end(struct recall *r)
{
    struct op *op = r->op;
    struct live *l = live_find(op->c, r->ino);
    struct holder *h = l ? holder_find(l, r->session) : NULL;

    if (h) {
        h->recalls--;
        holder_drop_if_idle(op->c, h);
    }
    if (r->sent)
        r->session = NULL;
    else
        free(r);
    op_answered(op, 0);
}

static void on_recalled(void *arg, const struct message *reply)
{
    struct recall *r = arg;

    r->sent = false;
    if (!r->session) {
        free(r);
        return;
    }
    if (reply->status < 0) {
        /* No answer: it must reclaim, or its lease must end. */
        if (r->session->peer && reply->status != -ECONNRESET)
            log_warning("mount %s did not answer a recall of inode %llu: %s", r->session->name,
                        (unsigned long long)r->ino, strerror(-reply->status));
        return;
    }
    DL_DELETE(r->session->recalls, r);
    recall_end(r);
}

/* false: it cannot be asked for want of memory: the op must fail, and the lease stays. */
static bool recall_send(struct op *op, struct holder *h, const Star__Recall *spec)
{
    struct session *s = h->session;
    struct recall *r = calloc(1, sizeof(*r));
    int rc = r ? -ENOTCONN : -ENOMEM;

    if (r && s->peer)
        rc = peer_request(s->peer, STAR__MSG_TYPE__RECALL, &spec->base, RECALL_DEADLINE_MS,
                          on_recalled, r);
    if (rc < 0 && rc != -ENOTCONN) {
        op->status = op->status ? op->status : rc;
        free(r);
        return false;
    }
    *r = (struct recall){
        .session = s, .op = op, .ino = spec->ino, .since_ms = op->c->now, .sent = rc == 0};
    DL_APPEND(s->recalls, r);
    h->recalls++;
    op->pending++;
    op->c->recalls_sent++;
    return true;
}

/* Those that may keep something of l, by a lease or as they have not answered yet. */
static bool may_keep(const struct op *op, const struct holder *h)
{
    return h->session != op->session && (h->lease != STAR__LEASE__LEASE_NONE || h->recalls > 0);
}

void recall_attr(struct op *op, uint64_t ino)
{
    struct live *l = live_find(op->c, ino);
    Star__Recall spec = STAR__RECALL__INIT;
    struct holder *h;

    if (!l)
        return;
    spec.ino = ino;
    spec.attr = true;
    DL_FOREACH (l->holders, h) {
        spec.keep = h->lease;
        if (may_keep(op, h))
            recall_send(op, h, &spec);
    }
}

static void recall_whole(struct op *op, struct holder *h, uint64_t offset, uint64_t length)
{
    Star__Recall spec = STAR__RECALL__INIT;

    spec.ino = h->live->ino;
    spec.attr = spec.data = true;
    spec.offset = offset;
    spec.length = length;
    spec.keep = STAR__LEASE__LEASE_NONE;
    if (recall_send(op, h, &spec))
        h->lease = STAR__LEASE__LEASE_NONE;
}

void recall_all(struct op *op, uint64_t ino)
{
    recall_pages(op, ino, 0, 0);
}

void recall_pages(struct op *op, uint64_t ino, uint64_t offset, uint64_t length)
{
    struct live *l = live_find(op->c, ino);
    struct holder *h;

    if (!l)
        return;
    DL_FOREACH (l->holders, h)
        if (may_keep(op, h) || (h->session != op->session && holder_opens(h)))
            recall_whole(op, h, offset, length);
}

void recall_write(struct op *op, uint64_t ino)
{
    struct live *l = live_find(op->c, ino);
    struct holder *h;

    if (!l)
        return;
    DL_FOREACH (l->holders, h)
        if (may_keep(op, h) && (h->lease == STAR__LEASE__LEASE_WRITE || h->recalls > 0))
            recall_whole(op, h, 0, 0);
}

void recall_name(struct op *op, uint64_t dir, const ProtobufCBinaryData *name)
{
    struct live *l = live_find(op->c, dir);
    Star__Recall spec = STAR__RECALL__INIT;
    ProtobufCBinaryData one = *name;
    struct holder *h;

    if (!l)
        return;
    spec.ino = dir;
    spec.attr = spec.data = true;
    spec.n_names = 1;
    spec.names = &one;
    spec.keep = STAR__LEASE__LEASE_READ;
    DL_FOREACH (l->holders, h)
        if (may_keep(op, h))
            recall_send(op, h, &spec);
}

/* Those that are begun by ops which go on here are new, and stay. */
void recalls_settle(struct session *s)
{
    struct recall *all = s->recalls, *r;

    s->recalls = NULL;
    while ((r = all)) {
        DL_DELETE(all, r);
        recall_end(r);
    }
}

/* Only while it is connected does it owe an answer; else its lease runs, or it reclaims. */
void recalls_tick(struct centre *c, struct session *s, int64_t now)
{
    struct recall *r = s->recalls; /* the oldest */
    int64_t since = r && r->since_ms > s->hello_ms ? r->since_ms : s->hello_ms;

    if (r && s->peer && now - since > RECALL_DEADLINE_MS && !s->doomed)
        session_doom(c, s, "does not answer a recall of inode %llu", (unsigned long long)r->ino);
}

void recalls_free(struct session *s)
{
    struct recall *r, *tmp;

    DL_FOREACH_SAFE (s->recalls, r, tmp)
        free(r);
    s->recalls = NULL;
}
