#include "fs/reclaim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fs/centre.h"
#include "fs/leases.h"

/* Opens or locks in one message: far below FRAME_BODY_MAX. */
#define RECLAIM_BATCH 4096
#define RECLAIM_MS    10000

struct held {
    Star__HeldOpen *opens;
    size_t opens_n, opens_size;
    Star__Lock *locks;
    size_t locks_n, locks_size;
    int rc;
};

static void *grown(void *array, size_t n, size_t *size, size_t element)
{
    if (n < *size)
        return array;
    size_t more = *size ? *size * 2 : 256;
    void *bigger = realloc(array, more * element);
    if (bigger)
        *size = more;
    return bigger;
}

static void list_locks(struct held *h, const struct inode *i)
{
    for (const struct held_lock *l = i->locks; l; l = l->next) {
        Star__Lock *more = grown(h->locks, h->locks_n, &h->locks_size, sizeof(*more));
        if (!more) {
            h->rc = -ENOMEM;
            return;
        }
        h->locks = more;
        Star__Lock *k = &h->locks[h->locks_n++];
        star__lock__init(k);
        k->ino = i->ino;
        k->owner = l->owner;
        k->pid = l->pid;
        k->type = l->type;
        k->start = l->start;
        k->end = l->end;
        k->flock = l->flock;
    }
}

static void list_inode(void *arg, struct inode *i)
{
    struct held *h = arg;

    list_locks(h, i);
    if (!i->readers && !i->writers)
        return;
    Star__HeldOpen *more = grown(h->opens, h->opens_n, &h->opens_size, sizeof(*more));
    if (!more) {
        h->rc = -ENOMEM;
        return;
    }
    h->opens = more;
    Star__HeldOpen *o = &h->opens[h->opens_n++];
    star__held_open__init(o);
    o->ino = i->ino;
    o->readers = i->readers;
    o->writers = i->writers;
    o->cached = i->cached;
}

/* Another mount has it now: what was done under it is not safe, and each handle hears so once. */
static void lock_lost(struct worker *w, const Star__Lock *k)
{
    struct held_lock gone = {
        .owner = k->owner, .start = k->start, .end = k->end, .type = F_UNLCK, .flock = k->flock};
    struct inode *i = inode_lock(&w->inodes, k->ino);

    log_error("a lock on inode %llu was lost to another mount", (unsigned long long)k->ino);
    if (!i)
        return;
    if (lock_list_set(&i->locks, &gone) < 0)
        log_warning("no memory to forget a lock on inode %llu", (unsigned long long)k->ino);
    i->errors++;
    inode_unlock(&w->inodes, i);
}

/* One message from *open and *lock on. */
static int send_batch(struct worker *w, struct client *client, struct held *h, size_t *open,
                      size_t *lock, uint64_t floor)
{
    Star__ReclaimReply *reply = NULL;
    Star__Reclaim body = STAR__RECLAIM__INIT;
    Star__HeldOpen *opens[RECLAIM_BATCH];
    Star__Lock *locks[RECLAIM_BATCH];
    char detail[256] = "";

    while (*open < h->opens_n && body.n_opens < RECLAIM_BATCH)
        opens[body.n_opens++] = &h->opens[(*open)++];
    while (*lock < h->locks_n && body.n_locks < RECLAIM_BATCH)
        locks[body.n_locks++] = &h->locks[(*lock)++];
    body.opens = opens;
    body.locks = locks;
    body.seq_floor = floor;
    int rc =
        client_handshake(client, STAR__MSG_TYPE__RECLAIM, &body.base, RECLAIM_MS,
                         &star__reclaim_reply__descriptor, (ProtobufCMessage **)&reply, detail);
    for (size_t k = 0; reply && k < reply->n_lost; k++)
        lock_lost(w, reply->lost[k]);
    if (reply)
        star__reclaim_reply__free_unpacked(reply, NULL);
    if (rc < 0)
        log_error("the centre does not take back what is open here: %s%s%s", strerror(-rc),
                  detail[0] ? ": " : "", detail);
    return rc;
}

struct reclaim_done {
    struct worker *w;
    uint64_t floor;
    unsigned round;
};

static void everything_dropped(void *arg)
{
    struct reclaim_done *d = arg;
    Star__Reclaim body = STAR__RECLAIM__INIT;

    body.done = true;
    body.seq_floor = d->floor;
    /* Not to be sent again, nor late: a new stream begins with a new RECLAIM. */
    int rc = 0;
    if (d->round == atomic_load(&d->w->centre.reclaims))
        rc = msession_call(d->w, STAR__MSG_TYPE__RECLAIM, &body.base, NULL, 0, RECLAIM_MS, 0, NULL,
                           NULL, NULL);
    if (rc < 0)
        log_warning("cannot end the reclaim: %s", strerror(-rc));
    free(d);
}

int reclaim(struct worker *w, struct client *client)
{
    struct reclaim_done *done = malloc(sizeof(*done));
    struct held h = {0};
    size_t open = 0, lock = 0;
    int rc;

    if (!done)
        return -ENOMEM;
    pthread_rwlock_wrlock(&w->centre.opens_lock);
    *done = (struct reclaim_done){.w = w,
                                  .floor = seq_next(&w->centre.seq),
                                  .round = atomic_fetch_add(&w->centre.reclaims, 1) + 1};
    inode_table_each(&w->inodes, list_inode, &h);
    pthread_rwlock_unlock(&w->centre.opens_lock);
    rc = h.rc;
    while (rc == 0) {
        rc = send_batch(w, client, &h, &open, &lock, done->floor);
        if (open == h.opens_n && lock == h.locks_n)
            break;
    }
    free(h.opens);
    free(h.locks);
    if (rc < 0) {
        free(done);
        return rc;
    }
    leases_drop_all(w, true, everything_dropped, done);
    return 0;
}

static void close_inode(void *arg, struct inode *i)
{
    (void)arg;
    i->readers = i->writers = i->cached = 0;
    while (i->handles)
        inode_handle_remove(i, i->handles->fh);
    lock_list_free(&i->locks);
    i->had_locks = false;
    i->unsynced = 0;
    i->home_known = false;
}

void reclaim_nothing(struct worker *w)
{
    pthread_rwlock_wrlock(&w->centre.opens_lock);
    inode_table_each(&w->inodes, close_inode, NULL);
    pthread_rwlock_unlock(&w->centre.opens_lock);
}
