#include "control/locks.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

struct held {
    struct lock_spec spec;
    struct held *prev, *next;
};

struct waiter {
    struct lock_spec spec;
    void *cookie;
    struct waiter *prev, *next;
};

struct lock_table {
    struct held *held;
    struct waiter *waiters;
    unsigned count;
};

static bool same_owner(const struct lock_spec *a, const struct lock_spec *b)
{
    return a->session == b->session && a->owner == b->owner && a->flock == b->flock;
}

static bool overlaps(const struct lock_spec *a, const struct lock_spec *b)
{
    return a->start <= b->end && b->start <= a->end;
}

static bool conflicts(const struct lock_spec *a, const struct lock_spec *b)
{
    return a->flock == b->flock && !same_owner(a, b) && overlaps(a, b) &&
           (a->type == RANGE_WRITE || b->type == RANGE_WRITE);
}

struct lock_table *lock_table_new(void)
{
    return calloc(1, sizeof(struct lock_table));
}

void lock_table_free(struct lock_table *t)
{
    struct held *h, *htmp;
    struct waiter *w, *wtmp;

    if (!t)
        return;
    DL_FOREACH_SAFE (t->held, h, htmp)
        free(h);
    DL_FOREACH_SAFE (t->waiters, w, wtmp)
        free(w);
    free(t);
}

bool lock_table_empty(const struct lock_table *t)
{
    return !t->held && !t->waiters;
}

bool lock_conflict(const struct lock_table *t, const struct lock_spec *spec,
                   struct lock_spec *found)
{
    const struct held *h;

    DL_FOREACH (t->held, h) {
        if (conflicts(&h->spec, spec)) {
            if (found)
                *found = h->spec;
            return true;
        }
    }
    return false;
}

static void drop(struct lock_table *t, struct held *h)
{
    DL_DELETE(t->held, h);
    free(h);
    t->count--;
}

/* Takes [start, end] out of what the owner holds. A hole in the middle needs one more lock: `spare`
 * is it, made before, so that nothing can fail half-way. */
static void cut(struct lock_table *t, const struct lock_spec *spec, struct held **spare)
{
    struct held *h, *tmp;

    DL_FOREACH_SAFE (t->held, h, tmp) {
        if (!same_owner(&h->spec, spec) || !overlaps(&h->spec, spec))
            continue;
        bool left = h->spec.start<spec->start, right = h->spec.end> spec->end;
        if (left && right) {
            struct held *r = *spare;
            *spare = NULL;
            r->spec = h->spec;
            r->spec.start = spec->end + 1;
            h->spec.end = spec->start - 1;
            DL_APPEND(t->held, r);
            t->count++;
        } else if (left) {
            h->spec.end = spec->start - 1;
        } else if (right) {
            h->spec.start = spec->end + 1;
        } else {
            drop(t, h);
        }
    }
}

static void merge_neighbours(struct lock_table *t, struct held *fresh)
{
    struct held *h, *tmp;

    DL_FOREACH_SAFE (t->held, h, tmp) {
        if (h == fresh || !same_owner(&h->spec, &fresh->spec) || h->spec.type != fresh->spec.type)
            continue;
        if (h->spec.end + 1 == fresh->spec.start) {
            fresh->spec.start = h->spec.start;
            drop(t, h);
        } else if (fresh->spec.end + 1 == h->spec.start) {
            fresh->spec.end = h->spec.end;
            drop(t, h);
        }
    }
}

/* A flock that changes its kind lets go of the old one first, and has lost it if it then meets
 * another's: so does Linux, also with LOCK_NB. */
static void convert(struct lock_table *t, const struct lock_spec *spec)
{
    struct held *h, *tmp;

    DL_FOREACH_SAFE (t->held, h, tmp)
        if (same_owner(&h->spec, spec) && h->spec.type != spec->type)
            drop(t, h);
}

int lock_set(struct lock_table *t, const struct lock_spec *spec)
{
    struct held *fresh = NULL, *spare = NULL;

    if (spec->start > spec->end)
        return -EINVAL;
    if (spec->flock && spec->type != RANGE_UNLOCK)
        convert(t, spec);
    if (spec->type != RANGE_UNLOCK && lock_conflict(t, spec, NULL))
        return -EAGAIN;
    if (t->count + 2 > LOCKS_PER_INODE_MAX && spec->type != RANGE_UNLOCK)
        return -ENOLCK;
    spare = malloc(sizeof(*spare));
    if (!spare)
        return -ENOMEM;
    if (spec->type != RANGE_UNLOCK) {
        fresh = malloc(sizeof(*fresh));
        if (!fresh) {
            free(spare);
            return -ENOMEM;
        }
        fresh->spec = *spec;
    }
    cut(t, spec, &spare);
    free(spare);
    if (fresh) {
        DL_APPEND(t->held, fresh);
        t->count++;
        merge_neighbours(t, fresh);
    }
    return 0;
}

bool lock_each_conflict(const struct lock_table *t, const struct lock_spec *spec, lock_fn fn,
                        void *arg)
{
    const struct held *h;

    DL_FOREACH (t->held, h)
        if (conflicts(&h->spec, spec) && fn(arg, &h->spec))
            return true;
    return false;
}

int lock_wait(struct lock_table *t, const struct lock_spec *spec, void *cookie)
{
    struct waiter *w = malloc(sizeof(*w));

    if (!w)
        return -ENOMEM;
    if (t->count >= LOCKS_PER_INODE_MAX) {
        free(w);
        return -ENOLCK;
    }
    *w = (struct waiter){.spec = *spec, .cookie = cookie};
    DL_APPEND(t->waiters, w);
    t->count++;
    return 0;
}

static void waiter_drop(struct lock_table *t, struct waiter *w)
{
    DL_DELETE(t->waiters, w);
    free(w);
    t->count--;
}

bool lock_cancel(struct lock_table *t, const void *cookie)
{
    struct waiter *w;

    DL_FOREACH (t->waiters, w) {
        if (w->cookie == cookie) {
            waiter_drop(t, w);
            return true;
        }
    }
    return false;
}

void *lock_grant_next(struct lock_table *t)
{
    struct waiter *w, *tmp;

    DL_FOREACH_SAFE (t->waiters, w, tmp) {
        if (!lock_conflict(t, &w->spec, NULL) && lock_set(t, &w->spec) == 0) {
            void *cookie = w->cookie;
            waiter_drop(t, w);
            return cookie;
        }
    }
    return NULL;
}

void lock_drop_session(struct lock_table *t, uint64_t session)
{
    struct held *h, *tmp;

    DL_FOREACH_SAFE (t->held, h, tmp)
        if (h->spec.session == session)
            drop(t, h);
}

void lock_drop_owner(struct lock_table *t, uint64_t session, uint64_t owner, bool flock)
{
    struct held *h, *tmp;

    DL_FOREACH_SAFE (t->held, h, tmp)
        if (h->spec.session == session && h->spec.owner == owner && h->spec.flock == flock)
            drop(t, h);
}
