/* Sessions of mounts: hello, renewal, reclaim, expiry; and the grace period after a start. */
#include "control/centre.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"

static struct session *session_find(struct centre *c, uint64_t id)
{
    struct session *s;

    HASH_FIND(hh, c->sessions, &id, sizeof(id), s);
    return s;
}

static struct session *session_add(struct centre *c, uint64_t id, const char *name)
{
    struct session *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->id = id;
    snprintf(s->name, sizeof(s->name), "%s", name);
    s->renewed_ms = clock_boot_ms();
    HASH_ADD(hh, c->sessions, id, sizeof(s->id), s);
    return s;
}

static bool load_one(void *arg, const struct state_session *session)
{
    struct centre *c = arg;

    return session_find(c, session->id) || session_add(c, session->id, session->name);
}

void sessions_load(struct centre *c)
{
    state_sessions(c->state, load_one, c);
}

static void hello_reply(struct centre *c, struct session *s, struct peer *p, const struct message *m, bool resumed)
{
    Star__HelloReply r = STAR__HELLO_REPLY__INIT;

    r.session = s->id;
    r.resumed = resumed;
    hello_settings(c, &r);
    peer_reply(p, m, 0, &r.base, NULL, 0);
}

static void attach(struct session *s, struct peer *p)
{
    struct link *link = peer_data(p);

    if (s->peer && s->peer != p) {
        struct link *old = peer_data(s->peer);
        struct peer *dead = s->peer;
        old->session = NULL;
        s->peer = NULL;
        peer_close(dead);
    }
    link->role = STAR__ROLE__MOUNT;
    link->session = s;
    s->peer = p;
    s->renewed_ms = clock_boot_ms();
}

static void on_session_open(struct op *op, const struct state_result *r)
{
    struct centre *c = op->c;
    Star__Hello *hello = (Star__Hello *)op->body;
    Star__LogSession *opened = star__log_session__unpack(NULL, r->body_len, r->body);

    if (r->status < 0 || !opened || !peer_is_open(op->peer)) {
        if (opened)
            star__log_session__free_unpacked(opened, NULL);
        op_reply(op, r->status < 0 ? r->status : -EIO, NULL);
        return;
    }
    struct session *s = session_add(c, opened->session, hello->name);
    star__log_session__free_unpacked(opened, NULL);
    if (!s) {
        op_reply(op, -ENOMEM, NULL);
        return;
    }
    s->reclaimed = true;
    attach(s, op->peer);
    events_add(&c->events, "mount", "%s joined, session %llu", s->name, (unsigned long long)s->id);
    hello_reply(c, s, op->peer, &op->request, false);
    op_end(op);
}

static void session_open(struct op *op)
{
    Star__Hello *hello = (Star__Hello *)op->body;
    Star__LogSession body = STAR__LOG_SESSION__INIT;

    body.name = hello->name;
    body.machine = hello->machine;
    op_submit(op, STAR__LOG_TYPE__LOG_SESSION_OPEN, &body.base, false, on_session_open);
}

void session_hello(struct centre *c, struct peer *p, const struct message *m, Star__Hello *hello)
{
    if (hello->session == 0) {
        struct op *op = op_new(c, NULL, p, m, &hello->base);
        if (!op) {
            peer_error(p, m, -ENOMEM, "no memory");
            star__hello__free_unpacked(hello, NULL);
            return;
        }
        session_open(op);
        return;
    }
    struct session *s = session_find(c, hello->session);
    if (!s || s->doomed) {
        peer_error(p, m, -ESTALE, "session %llu has expired", (unsigned long long)hello->session);
    } else {
        attach(s, p);
        s->reclaimed = s->reclaiming = false;
        hello_reply(c, s, p, m, true);
    }
    star__hello__free_unpacked(hello, NULL);
}

void session_renew(struct centre *c, struct session *s, struct peer *p, const struct message *m, Star__Renew *renew)
{
    Star__RenewReply r = STAR__RENEW_REPLY__INIT;

    (void)renew;
    if (s->doomed || s->gone) {
        peer_error(p, m, -ESTALE, "session %llu has expired", (unsigned long long)s->id);
        return;
    }
    s->renewed_ms = clock_boot_ms();
    r.centre_instance = c->instance;
    peer_reply(p, m, 0, &r.base, NULL, 0);
}

/* --- reclaim --- */

/* The mount has dropped every lease; what it has open follows. What does not follow until `done` is closed. Locks stay:
 * a centre that kept running knows them, and an unlock that got lost is sent again. */
static void reclaim_begin(struct session *s)
{
    struct holder *h;
    struct op *op;

    DL_FOREACH2(s->holders, h, s_next) {
        h->lease = STAR__LEASE__LEASE_NONE;
        h->stale = true;
    }
    LL_FOREACH2(s->ops, op, s_next)
        op->counted = false;
    s->reclaiming = true;
}

static void reclaim_end(struct centre *c, struct session *s)
{
    struct holder *h, *tmp;

    DL_FOREACH_SAFE2(s->holders, h, tmp, s_next) {
        if (!h->stale)
            continue;
        uint64_t ino = h->live->ino;
        if (h->writers)
            h->live->home_unknown = true;
        holder_free(c, h);
        reap_if_unused(c, ino);
    }
    s->reclaiming = false;
    s->reclaimed = true;
    recalls_settle(c, s);
}

static int reclaim_open(struct centre *c, struct session *s, const Star__HeldOpen *o)
{
    struct live *l = live_get(c, o->ino);
    struct holder *h = l ? holder_get(c, l, s) : NULL;

    if (!h)
        return -ENOMEM;
    h->readers = o->readers;
    h->writers = o->writers;
    h->stale = false;
    holder_drop_if_idle(c, h);
    return 0;
}

static int reclaim_lock(struct centre *c, struct session *s, const Star__Lock *k)
{
    struct live *l = live_get(c, k->ino);
    struct lock_spec spec = {.session = s->id, .owner = k->owner, .pid = k->pid, .type = k->type, .start = k->start,
                             .end = k->end, .flock = k->flock};

    if (!l || (!l->locks && !(l->locks = lock_table_new())))
        return -ENOMEM;
    return lock_set(l->locks, &spec);
}

void session_reclaim(struct centre *c, struct session *s, struct peer *p, const struct message *m, Star__Reclaim *r)
{
    int rc = 0;

    if (!s->reclaiming)
        reclaim_begin(s);
    s->seq_floor = r->seq_floor;
    for (size_t i = 0; i < r->n_opens && rc == 0; i++)
        rc = reclaim_open(c, s, r->opens[i]);
    for (size_t i = 0; i < r->n_locks && rc == 0; i++)
        rc = reclaim_lock(c, s, r->locks[i]);
    if (rc < 0) {
        peer_error(p, m, rc, "what the mount held cannot be reclaimed: %s", strerror(-rc));
        return;
    }
    if (r->done)
        reclaim_end(c, s);
    peer_reply(p, m, 0, NULL, NULL, 0);
    if (r->done)
        grace_check(c, clock_boot_ms());
}

/* --- ends --- */

static void ignore_result(void *arg, int status, const struct state_result *r)
{
    (void)arg, (void)status, (void)r;
}

static void session_end(struct centre *c, struct session *s)
{
    struct holder *h, *tmp;
    Star__LogSession body = STAR__LOG_SESSION__INIT;

    HASH_DEL(c->sessions, s);
    s->refs++; /* ops that end below let go of it */
    s->gone = s->doomed = true;
    if (s->peer) {
        struct link *link = peer_data(s->peer);
        link->session = NULL;
        peer_close(s->peer);
        s->peer = NULL;
    }
    locks_session_gone(c, s);
    DL_FOREACH_SAFE2(s->holders, h, tmp, s_next) {
        uint64_t ino = h->live->ino;
        bool open = h->readers || h->writers;
        if (h->writers)
            h->live->home_unknown = true;
        holder_free(c, h);
        if (open)
            reap_if_unused(c, ino);
    }
    recalls_settle(c, s);
    body.session = s->id;
    centre_submit(c, STAR__LOG_TYPE__LOG_SESSION_END, &body.base, ignore_result, NULL);
    if (--s->refs == 0)
        free(s);
}

void session_bye(struct centre *c, struct session *s, struct peer *p, const struct message *m)
{
    events_add(&c->events, "mount", "%s left", s->name);
    peer_reply(p, m, 0, NULL, NULL, 0);
    struct link *link = peer_data(p);
    link->session = NULL;
    s->peer = NULL;
    session_end(c, s);
}

void session_disconnected(struct centre *c, struct session *s)
{
    (void)c;
    s->peer = NULL;
}

void sessions_tick(struct centre *c, int64_t now)
{
    struct session *s, *tmp;

    HASH_ITER(hh, c->sessions, s, tmp) {
        recalls_tick(c, s, now);
        if (now - s->renewed_ms > LEASE_MS && (c->serving || s->doomed)) {
            events_add(&c->events, "mount-lost", "%s was not heard for %d s; its session ends", s->name,
                       LEASE_MS / 1000);
            session_end(c, s);
        }
    }
}

/* --- the grace period --- */

void grace_check(struct centre *c, int64_t now)
{
    struct session *s;
    struct node *n;
    bool over = now - c->started_ms > LEASE_MS, all = true;

    if (!c->leading || c->serving)
        return;
    for (s = c->sessions; s; s = s->hh.next)
        all &= s->reclaimed;
    for (n = c->nodes; n; n = n->hh.next)
        all &= n->reported || strcmp(n->state, "gone") == 0;
    if (!all && !over)
        return;
    c->serving = true;
    log_info("serving%s", all ? "" : "; not everybody came back in time");
    sessions_tick(c, now);
    ops_unpark(c);
}

void session_free_all(struct centre *c)
{
    struct session *s, *tmp;
    struct holder *h, *htmp;

    HASH_ITER(hh, c->sessions, s, tmp) {
        DL_FOREACH_SAFE2(s->holders, h, htmp, s_next)
            holder_free(c, h);
        HASH_DEL(c->sessions, s);
        recalls_settle(c, s);
        free(s);
    }
}
