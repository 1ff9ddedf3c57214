/* Requests on advisory locks (locks.h): set, test, cancel; and what happens when their holders go. */
#include "control/centre.h"

#include <errno.h>

static void spec_of(const struct op *op, const Star__Lock *q, struct lock_spec *spec)
{
    *spec = (struct lock_spec){.session = op->session->id,
                               .owner = q->owner,
                               .pid = q->pid,
                               .type = (enum lock_type)q->type,
                               .start = q->start,
                               .end = q->end,
                               .flock = q->flock};
}

static bool bad_lock(const struct op *op, const Star__Lock *q)
{
    return !op->session || q->type > RANGE_UNLOCK || q->start > q->end || q->end > LOCK_END_MAX;
}

static void table_idle(struct centre *c, struct live *l)
{
    if (l->locks && lock_table_empty(l->locks)) {
        lock_table_free(l->locks);
        l->locks = NULL;
    }
    live_drop_if_idle(c, l);
}

static void grant_waiters(struct centre *c, struct live *l)
{
    struct op *op;

    while (l->locks && (op = lock_grant_next(l->locks)))
        op_reply(op, 0, NULL);
    table_idle(c, l);
}

struct wanted {
    const struct session *session;
    uint64_t id; /* of the frame */
};

static bool is_wanted(void *cookie, const void *arg)
{
    const struct op *w = cookie;
    const struct wanted *wanted = arg;

    return w->session == wanted->session && w->request.id == wanted->id;
}

/* A mount that reconnects asks again for what it still waits for: the newer question counts. */
static void forget_twin(struct live *l, struct op *op)
{
    struct wanted wanted = {.session = op->session, .id = op->request.id};
    struct op *old = lock_find_waiter(l->locks, is_wanted, &wanted);

    if (old) {
        lock_cancel(l->locks, old);
        op_end(old);
    }
}

void serve_setlk(struct op *op)
{
    Star__Lock *q = (Star__Lock *)op->body;
    struct centre *c = op->c;
    struct lock_spec spec;
    struct inode i;

    if (bad_lock(op, q)) {
        op_reply(op, -EINVAL, NULL);
        return;
    }
    int rc = state_inode(c->state, q->ino, &i);
    struct live *l = rc == 0 ? live_get(c, q->ino) : NULL;
    if (!l || (!l->locks && !(l->locks = lock_table_new()))) {
        op_reply(op, rc < 0 ? rc : -ENOMEM, NULL);
        return;
    }
    spec_of(op, q, &spec);
    forget_twin(l, op);
    rc = lock_set(l->locks, &spec);
    if (rc == -EAGAIN && q->wait) {
        if (lock_deadlocks(l->locks, &spec))
            rc = -EDEADLK;
        else
            rc = lock_wait(l->locks, &spec, op);
        if (rc == 0)
            return; /* answered when granted or cancelled */
    }
    op_reply(op, rc, NULL);
    grant_waiters(c, l);
}

void serve_getlk(struct op *op)
{
    Star__Lock *q = (Star__Lock *)op->body;
    Star__LockReply r = STAR__LOCK_REPLY__INIT;
    Star__Lock conflict = STAR__LOCK__INIT;
    struct lock_spec spec, found;

    if (bad_lock(op, q)) {
        op_reply(op, -EINVAL, NULL);
        return;
    }
    spec_of(op, q, &spec);
    struct live *l = live_find(op->c, q->ino);
    conflict.type = RANGE_UNLOCK;
    if (l && l->locks && lock_conflict(l->locks, &spec, &found)) {
        conflict.type = (uint32_t)found.type;
        conflict.start = found.start;
        conflict.end = found.end;
        /* A process id means nothing on another machine's mount; the kernel shows 0 as "remote". */
        conflict.pid = found.session == spec.session ? found.pid : 0;
    }
    r.conflict = &conflict;
    op_reply(op, 0, &r.base);
}

void serve_cancel_lock(struct op *op)
{
    Star__CancelLock *q = (Star__CancelLock *)op->body;
    struct wanted wanted = {.session = op->session, .id = q->id};
    struct centre *c = op->c;
    struct live *l, *tmp;

    HASH_ITER(hh, c->lives, l, tmp) {
        struct op *w = l->locks ? lock_find_waiter(l->locks, is_wanted, &wanted) : NULL;
        if (w) {
            lock_cancel(l->locks, w);
            op_reply(w, -EINTR, NULL);
            grant_waiters(c, l);
            break;
        }
    }
    op_reply(op, 0, NULL);
}

void locks_session_gone(struct centre *c, struct session *s)
{
    struct live *l, *tmp;

    HASH_ITER(hh, c->lives, l, tmp) {
        struct op *w;
        if (!l->locks)
            continue;
        while ((w = lock_take_waiter(l->locks, s->id)))
            op_end(w);
        lock_drop_session(l->locks, s->id);
        grant_waiters(c, l);
    }
}

void lock_release_owner(struct centre *c, struct session *s, uint64_t ino, uint64_t owner)
{
    struct live *l = live_find(c, ino);

    if (!l || !l->locks)
        return;
    lock_drop_owner(l->locks, s->id, owner, true);
    grant_waiters(c, l);
}
