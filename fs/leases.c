#include "fs/leases.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/centre.h"

struct leases {
    pthread_mutex_t lock;
    uint64_t *returned;
    size_t returned_n, returned_size;
    bool timer_set;
    _Atomic int64_t entries_until_ms; /* without INC_EPOCH: the kernel keeps no entry longer */
};

int leases_start(struct worker *w)
{
    w->leases = calloc(1, sizeof(*w->leases));
    if (!w->leases)
        return -ENOMEM;
    pthread_mutex_init(&w->leases->lock, NULL);
    return 0;
}

void leases_stop(struct worker *w)
{
    if (!w->leases)
        return;
    pthread_mutex_destroy(&w->leases->lock);
    free(w->leases->returned);
    free(w->leases);
    w->leases = NULL;
}

/* --- returned --- */

/* Two counters: what is asked before a return was really sent grants nothing on an inode made after
 * the return was begun, since the centre may have given it before it hears this. */
static void send_returns(struct worker *w, uint64_t *inos, size_t n)
{
    Star__ReturnLeases body = STAR__RETURN_LEASES__INIT;

    atomic_fetch_add(&w->inodes.returns_begun, 1);
    body.ino = inos;
    for (size_t k = 0; k < n; k++) {
        struct inode *i = inode_lock(&w->inodes, inos[k]);
        if (i)
            inode_unlock(&w->inodes, i); /* known again */
        else
            inos[body.n_ino++] = inos[k];
    }
    if (body.n_ino > 0)
        msession_notify(w, STAR__MSG_TYPE__RETURN_LEASES,
                        &body.base); /* no stream: it will reclaim anyway */
    atomic_fetch_add(&w->inodes.returns_done, 1);
}

static void return_tick(void *arg)
{
    struct worker *w = arg;
    struct leases *l = w->leases;

    pthread_mutex_lock(&l->lock);
    uint64_t *inos = l->returned;
    size_t n = l->returned_n;
    l->returned = NULL;
    l->returned_n = l->returned_size = 0;
    l->timer_set = false;
    pthread_mutex_unlock(&l->lock);
    for (size_t at = 0; at < n; at += RETURN_BATCH)
        send_returns(w, inos + at, n - at < RETURN_BATCH ? n - at : RETURN_BATCH);
    free(inos);
}

void leases_returned(void *ctx, uint64_t ino)
{
    struct worker *w = ctx;
    struct leases *l = w->leases;

    pthread_mutex_lock(&l->lock);
    if (l->returned_n == l->returned_size) {
        size_t size = l->returned_size ? l->returned_size * 2 : RETURN_BATCH;
        uint64_t *grown = realloc(l->returned, size * sizeof(*grown));
        if (grown) {
            l->returned = grown;
            l->returned_size = size;
        }
    }
    /* Not returned for want of memory: the centre recalls it one day, and we answer that we do not
     * have it. */
    if (l->returned_n < l->returned_size)
        l->returned[l->returned_n++] = ino;
    if (!l->timer_set)
        l->timer_set = timer_queue_after(w->timer, RETURN_MS, return_tick, w) == 0;
    pthread_mutex_unlock(&l->lock);
}

/* --- granted --- */

bool leases_may_take(const struct kreq *q, const struct inode *i)
{
    return i->recalls == 0 && q->returns_seen >= i->born && msession_leased(q->w);
}

Star__Lease leases_take(const struct kreq *q, struct inode *i, Star__Lease lease)
{
    if (lease == STAR__LEASE__LEASE_NONE || !leases_may_take(q, i))
        return STAR__LEASE__LEASE_NONE;
    i->lease = lease;
    return lease;
}

static double entry_timeout(struct worker *w)
{
    if (w->init.inc_epoch)
        return LEASED_TIMEOUT;
    int64_t until = atomic_load(&w->centre.renewed_ms) + atomic_load(&w->centre.fence_ms);
    int64_t left = until - clock_boot_ms();
    if (left <= 0)
        return 0;
    atomic_store(&w->leases->entries_until_ms, until);
    return (double)left / 1000.0;
}

double leases_name_timeout(struct worker *w, struct inode *dir)
{
    double timeout = clock_boot_ms() >= dir->contended_until_ms ? entry_timeout(w) : 0;

    dir->names_kept |= timeout > 0;
    return timeout;
}

double leases_take_entry(const struct kreq *q, uint64_t dir, bool granted)
{
    struct inode *i = granted ? inode_lock(&q->w->inodes, dir) : NULL;
    double timeout = 0;

    if (!i)
        return 0;
    if (leases_may_take(q, i)) {
        if (i->lease == STAR__LEASE__LEASE_NONE)
            i->lease = STAR__LEASE__LEASE_READ;
        timeout = leases_name_timeout(q->w, i);
    }
    inode_unlock(&q->w->inodes, i);
    return timeout;
}

double leases_take_listing(const struct kreq *q, uint64_t dir, bool granted)
{
    struct inode *i = inode_lock(&q->w->inodes, dir);

    if (i) {
        i->listed_ms = clock_boot_ms();
        inode_unlock(&q->w->inodes, i);
    }
    return leases_take_entry(q, dir, granted);
}

int64_t leases_entries_until(struct worker *w)
{
    return atomic_load(&w->leases->entries_until_ms);
}

/* By the clock: a process that was frozen runs on before its timer does. */
bool leases_write_is_private(struct worker *w, const struct inode *i)
{
    return (i->lease == STAR__LEASE__LEASE_WRITE && msession_leased(w)) ||
           (i->write_recalls > 0 && msession_alive(w));
}
