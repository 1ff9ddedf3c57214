/* Live inodes: who holds what, which leases may be granted, and recalls. */
#include "control/centre.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/clock.h"
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
    if (l->holders || l->busy || l->names || l->waiting || l->refs || l->have_home || l->home_unknown)
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

    DL_FOREACH(l->holders, h)
        if (h->session == s)
            return h;
    return NULL;
}

struct holder *holder_get(struct centre *c, struct live *l, struct session *s)
{
    struct holder *h = holder_find(l, s);

    (void)c;
    if (h)
        return h;
    h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->session = s;
    h->live = l;
    DL_APPEND(l->holders, h);
    DL_APPEND2(s->holders, h, s_prev, s_next);
    s->holder_count++;
    return h;
}

void holder_free(struct centre *c, struct holder *h)
{
    struct live *l = h->live;

    DL_DELETE(l->holders, h);
    DL_DELETE2(h->session->holders, h, s_prev, s_next);
    h->session->holder_count--;
    free(h);
    live_drop_if_idle(c, l);
}

void holder_drop_if_idle(struct centre *c, struct holder *h)
{
    if (h->lease == STAR__LEASE__LEASE_NONE && h->readers == 0 && h->writers == 0)
        holder_free(c, h);
}

bool live_open_anywhere(const struct live *l)
{
    struct holder *h;

    DL_FOREACH(l->holders, h)
        if (h->readers || h->writers)
            return true;
    return false;
}

bool live_written(const struct live *l)
{
    struct holder *h;

    DL_FOREACH(l->holders, h)
        if (h->writers)
            return true;
    return false;
}

bool live_written_by_other(const struct live *l, const struct session *s)
{
    struct holder *h;

    DL_FOREACH(l->holders, h)
        if (h->session != s && h->writers)
            return true;
    return false;
}

static bool held_by_other(const struct live *l, const struct session *s)
{
    struct holder *h;

    DL_FOREACH(l->holders, h)
        if (h->session != s && (h->readers || h->writers || h->lease != STAR__LEASE__LEASE_NONE))
            return true;
    return false;
}

/* --- leases --- */

Star__Lease lease_grant(struct centre *c, struct session *s, uint64_t ino)
{
    if (!s || s->doomed || !s->reclaimed)
        return STAR__LEASE__LEASE_NONE;
    struct live *l = live_get(c, ino);
    if (!l)
        return STAR__LEASE__LEASE_NONE;
    struct holder *h = holder_find(l, s);
    if (l->busy || l->home_unknown || live_written_by_other(l, s)) {
        live_drop_if_idle(c, l);
        return STAR__LEASE__LEASE_NONE;
    }
    if (h && h->writers) {
        if (h->lease == STAR__LEASE__LEASE_WRITE)
            return h->lease;
        if (held_by_other(l, s))
            return STAR__LEASE__LEASE_NONE;
        h->lease = STAR__LEASE__LEASE_WRITE;
        return h->lease;
    }
    if (!h)
        h = holder_get(c, l, s);
    if (!h) {
        live_drop_if_idle(c, l);
        return STAR__LEASE__LEASE_NONE;
    }
    h->lease = STAR__LEASE__LEASE_READ;
    return h->lease;
}

static bool name_is_busy(const struct live *l, const void *name, size_t len)
{
    for (const struct busy_name *b = l->names; b; b = b->next)
        if (b->len == len && memcmp(b->name, name, len) == 0)
            return true;
    return false;
}

bool entry_lease_grant(struct centre *c, struct session *s, uint64_t dir, const void *name, size_t len)
{
    if (!s || s->doomed || !s->reclaimed)
        return false;
    struct live *l = live_get(c, dir);
    if (!l)
        return false;
    /* The session that changes the name itself is told by its own kernel's locks; another one must not cache it now. */
    if (len > 0 ? name_is_busy(l, name, len) : l->names != NULL) {
        live_drop_if_idle(c, l);
        return false;
    }
    struct holder *h = holder_get(c, l, s);
    if (!h) {
        live_drop_if_idle(c, l);
        return false;
    }
    if (h->lease == STAR__LEASE__LEASE_NONE)
        h->lease = STAR__LEASE__LEASE_READ;
    return true;
}

/* --- recalls --- */

static void on_recalled(void *arg, const struct message *reply)
{
    struct recall *r = arg;

    /* A connection that broke or a deadline that passed answers nothing: the session must reclaim or expire. */
    if (!r->session) {
        free(r);
        return;
    }
    if (reply->status < 0 && r->session->peer) {
        log_warning("mount %s did not answer a recall of inode %llu: %s", r->session->name,
                    (unsigned long long)r->ino, strerror(-reply->status));
    }
    if (reply->status < 0) {
        r->since_ms = r->since_ms > 0 ? -r->since_ms : r->since_ms; /* unanswered: settled by reclaim or expiry */
        return;
    }
    DL_DELETE(r->session->recalls, r);
    struct op *op = r->op;
    free(r);
    if (op)
        op_answered(op, 0);
}

static void recall_send(struct op *op, struct holder *h, Star__Recall *spec)
{
    struct centre *c = op->c;
    struct session *s = h->session;
    struct recall *r = calloc(1, sizeof(*r));

    if (!r) {
        op->status = op->status ? op->status : -ENOMEM;
        return;
    }
    r->session = s;
    r->op = op;
    r->ino = spec->ino;
    r->since_ms = clock_boot_ms();
    DL_APPEND(s->recalls, r);
    op->pending++;
    c->recalls_sent++;
    if (!s->peer || peer_request(s->peer, STAR__MSG_TYPE__RECALL, &spec->base, RECALL_DEADLINE_MS, on_recalled, r) < 0)
        r->since_ms = -r->since_ms; /* no connection: it will reclaim, or its lease will end */
}

void recall_attr(struct op *op, uint64_t ino)
{
    struct live *l = live_find(op->c, ino);
    struct holder *h;

    if (!l)
        return;
    DL_FOREACH(l->holders, h) {
        if (h->session == op->session || h->lease == STAR__LEASE__LEASE_NONE)
            continue;
        Star__Recall spec = STAR__RECALL__INIT;
        spec.ino = ino;
        spec.attr = true;
        spec.keep = h->lease;
        recall_send(op, h, &spec);
    }
}

void recall_all(struct op *op, uint64_t ino)
{
    struct live *l = live_find(op->c, ino);
    struct holder *h, *tmp;

    if (!l)
        return;
    DL_FOREACH_SAFE(l->holders, h, tmp) {
        if (h->session == op->session || (h->lease == STAR__LEASE__LEASE_NONE && !h->readers && !h->writers))
            continue;
        Star__Recall spec = STAR__RECALL__INIT;
        spec.ino = ino;
        spec.attr = spec.data = true;
        spec.keep = STAR__LEASE__LEASE_NONE;
        h->lease = STAR__LEASE__LEASE_NONE;
        recall_send(op, h, &spec);
    }
}

void recall_pages(struct op *op, uint64_t ino, uint64_t offset, uint64_t length)
{
    struct live *l = live_find(op->c, ino);
    struct holder *h;

    if (!l)
        return;
    DL_FOREACH(l->holders, h) {
        if (h->session == op->session)
            continue;
        Star__Recall spec = STAR__RECALL__INIT;
        spec.ino = ino;
        spec.attr = spec.data = true;
        spec.offset = offset;
        spec.length = length;
        spec.keep = STAR__LEASE__LEASE_NONE;
        h->lease = STAR__LEASE__LEASE_NONE;
        recall_send(op, h, &spec);
    }
}

void recall_name(struct op *op, uint64_t dir, const void *name, size_t len)
{
    struct live *l = live_find(op->c, dir);
    struct holder *h;
    ProtobufCBinaryData n = {.len = len, .data = (uint8_t *)name};

    if (!l)
        return;
    DL_FOREACH(l->holders, h) {
        if (h->session == op->session || h->lease == STAR__LEASE__LEASE_NONE)
            continue;
        Star__Recall spec = STAR__RECALL__INIT;
        spec.ino = dir;
        spec.attr = spec.data = true;
        spec.n_names = 1;
        spec.names = &n;
        spec.keep = STAR__LEASE__LEASE_READ;
        recall_send(op, h, &spec);
    }
}

void recalls_settle(struct centre *c, struct session *s)
{
    struct recall *r, *tmp;

    (void)c;
    DL_FOREACH_SAFE(s->recalls, r, tmp) {
        struct op *op = r->op;
        DL_DELETE(s->recalls, r);
        if (r->since_ms < 0)
            free(r); /* nothing of the wire refers to it any more */
        else
            r->session = NULL; /* on_recalled frees it */
        if (op)
            op_answered(op, 0);
    }
}

void recalls_tick(struct centre *c, struct session *s, int64_t now)
{
    struct recall *r;

    DL_FOREACH(s->recalls, r) {
        int64_t since = r->since_ms < 0 ? -r->since_ms : r->since_ms;
        if (now - since > RECALL_DEADLINE_MS && !s->doomed) {
            s->doomed = true;
            events_add(&c->events, "mount-fenced", "%s does not answer a recall of inode %llu; its session ends",
                       s->name, (unsigned long long)r->ino);
            if (s->peer)
                peer_close(s->peer);
            return;
        }
    }
}
