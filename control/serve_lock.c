/* Requests on advisory locks (locks.h): set, test, cancel; and what happens when their holders go.
 */
#include "control/centre.h"

#include <errno.h>

/* A search for a circle of waiting owners, over all files: the longest circle, and the locks and
 * waiters that are looked at in all. What it does not find in time waits until it is interrupted.
 */
#define DEADLOCK_DEPTH_MAX 16
#define DEADLOCK_STEPS_MAX 4096

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

    while ((op = lock_grant_next(l->locks)))
        op_reply(op, 0, NULL);
    table_idle(c, l);
}

static struct live *lockable(struct centre *c, uint64_t ino, int *rc)
{
    struct inode i;

    *rc = state_inode(c->state, ino, &i);
    struct live *l = *rc == 0 ? live_get(c, ino) : NULL;
    if (l && !l->locks)
        l->locks = lock_table_new();
    if (l && l->locks)
        return l;
    if (l)
        live_drop_if_idle(c, l);
    *rc = *rc < 0 ? *rc : -ENOMEM;
    return NULL;
}

int lock_take(struct centre *c, uint64_t ino, const struct lock_spec *spec)
{
    int rc;
    struct live *l = lockable(c, ino, &rc);

    if (!l)
        return rc;
    rc = lock_set(l->locks, spec);
    table_idle(c, l);
    return rc;
}

static struct op *find_waiter(struct session *s, uint64_t id)
{
    struct op *op;

    LL_FOREACH2(s->lock_waits, op, s_next)
    if (op->request.id == id)
        return op;
    return NULL;
}

/* Ends the waiting; the caller answers op and then lets others go on (grant_waiters). */
static struct live *stop_waiting(struct op *op)
{
    struct live *l = live_find(op->c, ((Star__Lock *)op->body)->ino);

    lock_cancel(l->locks, op); /* a waiter keeps the inode and its table */
    return l;
}

struct circle {
    struct centre *c;
    const struct lock_spec *asks;
    unsigned depth, steps;
};

/* Does the owner of this lock wait, directly or through others, for the one that asks? */
static bool leads_back(void *arg, const struct lock_spec *held)
{
    struct circle *k = arg;
    struct lock_spec spec;
    struct session *s;
    struct op *op;
    bool found = false;

    if (held->session == k->asks->session && held->owner == k->asks->owner)
        return true;
    HASH_FIND(hh, k->c->sessions, &held->session, sizeof(held->session), s);
    if (!s || k->depth == 0)
        return false;
    k->depth--;
    LL_FOREACH2(s->lock_waits, op, s_next)
    {
        if (k->steps == 0 || found)
            break;
        k->steps--;
        spec_of(op, (Star__Lock *)op->body, &spec);
        struct live *l = live_find(k->c, ((Star__Lock *)op->body)->ino);
        if (!spec.flock && spec.owner == held->owner)
            found = lock_each_conflict(l->locks, &spec, leads_back, k);
    }
    k->depth++;
    return found;
}

/* POSIX asks for EDEADLK when waiting for spec would close a circle. */
static bool deadlocks(struct centre *c, const struct live *l, const struct lock_spec *spec)
{
    struct circle k = {
        .c = c, .asks = spec, .depth = DEADLOCK_DEPTH_MAX, .steps = DEADLOCK_STEPS_MAX};

    return !spec->flock && lock_each_conflict(l->locks, spec, leads_back, &k);
}

static int wait_for_lock(struct op *op, struct live *l, const struct lock_spec *spec)
{
    if (deadlocks(op->c, l, spec))
        return -EDEADLK;
    int rc = lock_wait(l->locks, spec, op);
    if (rc == 0) {
        LL_PREPEND2(op->session->lock_waits, op, s_next);
        op->waits_for_lock = true;
    }
    return rc;
}

void serve_setlk(struct op *op)
{
    Star__Lock *q = (Star__Lock *)op->body;
    struct centre *c = op->c;
    struct lock_spec spec;
    int rc;

    if (!rights_allow(op))
        return;
    if (bad_lock(op, q)) {
        op_reply(op, -EINVAL, NULL);
        return;
    }
    /* A mount that reconnects asks again for what it still waits for: the newer question counts. */
    struct op *twin = find_waiter(op->session, op->request.id);
    if (twin) {
        struct live *l = stop_waiting(twin);
        op_end(twin);
        grant_waiters(c, l);
    }
    struct live *l = lockable(c, q->ino, &rc);
    if (!l) {
        op_reply(op, rc, NULL);
        return;
    }
    spec_of(op, q, &spec);
    rc = lock_set(l->locks, &spec);
    if (rc == -EAGAIN && q->wait) {
        rc = wait_for_lock(op, l, &spec);
        if (rc == 0) { /* answered when granted or cancelled; what it let go may be others' now */
            grant_waiters(c, l);
            return;
        }
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
    struct op *waiter = find_waiter(op->session, ((Star__CancelLock *)op->body)->id);
    struct centre *c = op->c;

    if (waiter) {
        struct live *l = stop_waiting(waiter);
        op_reply(waiter, -EINTR, NULL);
        grant_waiters(c, l);
    }
    op_reply(op, 0, NULL);
}

void locks_session_gone(struct centre *c, struct session *s)
{
    struct live *l, *tmp;

    while (s->lock_waits) {
        struct op *op = s->lock_waits;
        l = stop_waiting(op);
        op_end(op);
        table_idle(c, l);
    }
    HASH_ITER (hh, c->lives, l, tmp) {
        if (!l->locks)
            continue;
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
