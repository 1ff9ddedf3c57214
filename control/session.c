/* Sessions of mounts: hello, renewal, reclaim, expiry; and the grace period after a start. */
#include "control/centre.h"

#include <errno.h>
#include <inttypes.h>
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

static struct session *session_add(struct centre *c, uint64_t id, const char *name,
                                   const char *machine)
{
    struct session *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->id = id;
    snprintf(s->name, sizeof(s->name), "%s", name);
    snprintf(s->machine, sizeof(s->machine), "%s", machine);
    s->renewed_ms = c->now;
    HASH_ADD(hh, c->sessions, id, sizeof(s->id), s);
    return s;
}

struct load {
    struct centre *c;
    int rc;
};

static bool load_one(void *arg, const struct state_session *session)
{
    struct load *l = arg;

    if (!session_find(l->c, session->id) &&
        !session_add(l->c, session->id, session->name, session->machine))
        l->rc = -ENOMEM;
    return l->rc == 0;
}

int sessions_load(struct centre *c)
{
    struct load l = {.c = c};
    int rc = state_sessions(c->state, load_one, &l);

    return rc < 0 ? rc : l.rc;
}

static void hello_reply(struct centre *c, struct session *s, struct peer *p,
                        const struct message *m, bool resumed)
{
    Star__HelloReply r = STAR__HELLO_REPLY__INIT;

    r.session = s->id;
    r.resumed = resumed;
    hello_settings(c, &r);
    r.real_ns = clock_real_ns();
    peer_reply(p, m, 0, &r.base, NULL, 0);
}

static void ignore_result(void *arg, int status, const struct state_result *r)
{
    (void)arg, (void)status, (void)r;
}

static void log_end(struct centre *c, uint64_t id)
{
    Star__LogSession body = STAR__LOG_SESSION__INIT;

    body.session = id;
    int rc = centre_submit(c, STAR__LOG_TYPE__LOG_SESSION_END, &body.base, CONSENSUS_NOW,
                           ignore_result, NULL);
    if (rc < 0 && rc != -ENOTCONN)
        log_warning(
            "the end of session %llu is not in the log, so it ends again after the next start: %s",
            (unsigned long long)id, strerror(-rc));
}

static void attach(struct centre *c, struct session *s, struct peer *p)
{
    struct link *link = peer_data(p);

    if (s->peer) {
        struct link *old = peer_data(s->peer);
        old->session = NULL;
        peer_close(s->peer);
    }
    link->role = STAR__ROLE__MOUNT;
    link->session = s;
    s->peer = p;
    s->who = peer_identity(p)->who;
    s->renewed_ms = s->hello_ms = c->now;
}

static void on_session_open(struct op *op, const struct state_result *r)
{
    struct centre *c = op->c;
    Star__Hello *hello = (Star__Hello *)op->body;

    if (r->status < 0) {
        op_refuse(op, r);
        return;
    }
    Star__LogSession *opened = star__log_session__unpack(NULL, r->body_len, r->body);
    uint64_t id = opened ? opened->session : 0;
    if (opened)
        star__log_session__free_unpacked(opened, NULL);
    struct session *s =
        id && peer_is_open(op->peer) ? session_add(c, id, hello->name, hello->machine) : NULL;
    if (!s) {
        if (id)
            log_end(c, id); /* nobody will ever use it */
        op_reply(op, -ENOMEM, NULL);
        return;
    }
    s->reclaimed = true;
    attach(c, s, op->peer);
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
    if (!s || s->doomed || strcmp(s->name, hello->name) != 0) {
        peer_error(p, m, -ESTALE, "session %llu has expired", (unsigned long long)hello->session);
    } else {
        attach(c, s, p);
        s->reclaimed = s->reclaiming = false;
        hello_reply(c, s, p, m, true);
    }
    star__hello__free_unpacked(hello, NULL);
}

/* Refusals of the mount's own: nobody asked the centre. */
static void note_refused(struct centre *c, const struct session *s, const Star__ControlsRefused *r)
{
    if (r && r->full > 0)
        events_add(&c->errors, "refused",
                   "%s: user %u has too many control files open there, or too much text in them "
                   "(%" PRIu64 " times): close some",
                   s->name, r->uid, r->full);
    if (r && r->killed > 0)
        events_add(&c->errors, "refused",
                   "%s: %" PRIu64 " specs of user %u were dropped: who wrote them was killed",
                   s->name, r->killed, r->uid);
}

void session_renew(struct centre *c, struct session *s, struct peer *p, const struct message *m,
                   Star__Renew *renew)
{
    Star__RenewReply r = STAR__RENEW_REPLY__INIT;

    if (s->doomed || s->gone) {
        peer_error(p, m, -ESTALE, "session %llu has expired", (unsigned long long)s->id);
        return;
    }
    s->renewed_ms = c->now;
    s->pool_read = renew->pool_read;
    s->pool_written = renew->pool_written;
    s->waiting = renew->waiting;
    s->waiting_node = renew->waiting_node;
    s->waiting_s = renew->waiting_s;
    note_refused(c, s, renew->controls);
    r.centre_instance = c->instance;
    r.direct_size = setting_u64(c, "direct_size");
    r.real_ns = clock_real_ns();
    peer_reply(p, m, 0, &r.base, NULL, 0);
}

/* --- reclaim --- */

/* What the mount has open follows; what was open before counts until `done`, as do its leases: only
 * then has its kernel forgotten everything. Locks stay: a centre that kept running knows them, and
 * an unlock that got lost is sent again. */
static void reclaim_begin(struct session *s)
{
    struct holder *h;
    struct op *op;

    DL_FOREACH2(s->holders, h, s_next)
    {
        h->was_open = holder_opens(h);
        h->was_written = holder_writes(h);
        h->readers = h->writers = 0;
    }
    LL_FOREACH2(s->ops, op, s_next)
    op->counted = false; /* the mount does not name it: it has no answer yet */
    s->reclaiming = true;
}

static void reclaim_end(struct centre *c, struct session *s)
{
    struct holder *h, *tmp;

    DL_FOREACH_SAFE2(s->holders, h, tmp, s_next)
    {
        uint64_t ino = h->live->ino;
        bool closed = h->was_open && !h->readers && !h->writers;
        if (h->was_written && !h->writers)
            home_writer_lost(c, h->live);
        h->was_open = h->was_written = false;
        h->lease = STAR__LEASE__LEASE_NONE;
        holder_drop_if_idle(c, h);
        if (closed)
            reap_if_unused(c, ino);
    }
    s->reclaiming = false;
    s->reclaimed = true;
    recalls_settle(s);
}

static int reclaim_open(struct centre *c, struct session *s, const Star__HeldOpen *o)
{
    struct inode i;

    if (state_inode(c->state, o->ino, &i) < 0)
        return 0; /* it is gone: the handle will meet ESTALE */
    struct live *l = live_get(c, o->ino);
    struct holder *h = l ? holder_get(c, l, s) : NULL;
    if (!h) {
        if (l)
            live_drop_if_idle(c, l);
        return -ENOMEM;
    }
    /* Whose rights are checked is believed only after a restart of ours, when nobody else knows. */
    bool known = !rights_are_checked(s) || !c->serving;
    if (known || h->was_open)
        h->readers += o->readers;
    if (known || h->was_written)
        h->writers += o->writers;
    holder_drop_if_idle(c, h);
    return 0;
}

/* 1: another mount has it. */
static int reclaim_lock(struct centre *c, struct session *s, const Star__Lock *k)
{
    struct lock_spec spec = {.session = s->id,
                             .owner = k->owner,
                             .pid = k->pid,
                             .type = k->type,
                             .start = k->start,
                             .end = k->end,
                             .flock = k->flock};
    struct inode i;

    if (k->type >= RANGE_UNLOCK || k->end > LOCK_END_MAX || k->start > k->end)
        return -EINVAL;
    if (state_inode(c->state, k->ino, &i) < 0)
        return 0;
    int rc = lock_take(c, k->ino, &spec);
    if (rc == -EAGAIN)
        events_add(&c->events, "lock-lost",
                   "%s held a lock on inode %llu that another mount has now", s->name,
                   (unsigned long long)k->ino);
    return rc == -EAGAIN ? 1 : rc;
}

static int reclaim_locks(struct centre *c, struct session *s, const Star__Reclaim *r,
                         Star__ReclaimReply *reply)
{
    int rc = 0;

    if (r->n_locks == 0)
        return 0;
    reply->lost = malloc(r->n_locks * sizeof(Star__Lock *));
    if (!reply->lost)
        return -ENOMEM;
    for (size_t i = 0; i < r->n_locks && rc >= 0; i++) {
        rc = reclaim_lock(c, s, r->locks[i]);
        if (rc > 0)
            reply->lost[reply->n_lost++] = r->locks[i];
    }
    return rc < 0 ? rc : 0;
}

void session_reclaim(struct centre *c, struct session *s, struct peer *p, const struct message *m,
                     Star__Reclaim *r)
{
    Star__ReclaimReply reply = STAR__RECLAIM_REPLY__INIT;
    int rc = 0;

    if (s->reclaimed) {
        peer_error(p, m, -EINVAL, "a session is reclaimed once after it was resumed");
        return;
    }
    if (!s->reclaiming)
        reclaim_begin(s);
    s->seq_floor = r->seq_floor;
    for (size_t i = 0; i < r->n_opens && rc == 0; i++)
        rc = reclaim_open(c, s, r->opens[i]);
    if (rc == 0)
        rc = reclaim_locks(c, s, r, &reply);
    if (rc < 0) {
        peer_error(p, m, rc, "what the mount held cannot be reclaimed: %s", strerror(-rc));
        goto out;
    }
    if (r->done)
        reclaim_end(c, s);
    peer_reply(p, m, 0, &reply.base, NULL, 0);
    if (r->done)
        grace_check(c);
out:
    free(reply.lost);
}

/* --- ends --- */

void session_doom(struct centre *c, struct session *s, const char *why, ...)
{
    char text[128];
    va_list ap;

    va_start(ap, why);
    vsnprintf(text, sizeof(text), why, ap);
    va_end(ap);
    s->doomed = true;
    events_add(&c->events, "mount-fenced", "%s %s; its session ends", s->name, text);
    if (s->peer)
        peer_close(s->peer);
}

static void session_end(struct centre *c, struct session *s)
{
    struct holder *h, *tmp;

    HASH_DEL(c->sessions, s);
    c->ended_pool_read += s->pool_read;
    c->ended_pool_written += s->pool_written;
    s->refs++; /* ops that end below let go of it */
    s->gone = s->doomed = true;
    if (s->peer) {
        struct link *link = peer_data(s->peer);
        link->session = NULL;
        peer_close(s->peer);
        s->peer = NULL;
    }
    locks_session_gone(c, s);
    DL_FOREACH_SAFE2(s->holders, h, tmp, s_next)
    {
        uint64_t ino = h->live->ino;
        bool open = holder_opens(h);
        if (holder_writes(h))
            home_writer_lost(c, h->live);
        holder_free(c, h);
        if (open)
            reap_if_unused(c, ino);
    }
    recalls_settle(s);
    log_end(c, s->id);
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

    HASH_ITER (hh, c->sessions, s, tmp) {
        recalls_tick(c, s, now);
        if (s->peer && !s->reclaimed && !s->doomed && now - s->hello_ms > LEASE_MS)
            session_doom(c, s, "does not finish to say what it has open");
        if (now - s->renewed_ms > LEASE_MS && (c->serving || s->doomed)) {
            events_add(&c->events, "mount-lost", "%s was not heard for %d s; its session ends",
                       s->name, LEASE_MS / 1000);
            session_end(c, s);
        }
    }
}

/* --- the grace period --- */

/* Nobody else may hold what the former leader gave away: a session has reclaimed, or its lease has
 * ended; nodes have told what the log may not know. */
void grace_check(struct centre *c)
{
    bool all = true;
    struct session *s;
    struct node *n;

    if (!c->leading || c->serving)
        return;
    for (s = c->sessions; s; s = s->hh.next) {
        if (!s->reclaimed && c->now - s->renewed_ms <= LEASE_MS)
            return;
        all &= s->reclaimed;
    }
    for (n = c->nodes; n; n = n->hh.next) {
        if (n->reported || !node_keeps_homes(n))
            continue;
        if (c->now - c->grace_ms <= LEASE_MS)
            return;
        all = false;
    }
    c->serving = true;
    log_info("serving%s", all ? "" : "; not everybody came back in time");
    sessions_tick(c, c->now);
    ops_unpark(c);
}

void session_free_all(struct centre *c)
{
    struct session *s, *tmp;
    struct holder *h, *htmp;

    HASH_ITER (hh, c->sessions, s, tmp) {
        DL_FOREACH_SAFE2(s->holders, h, htmp, s_next)
        holder_free(c, h);
        HASH_DEL(c->sessions, s);
        recalls_free(s);
        free(s);
    }
}
