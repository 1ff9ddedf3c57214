#include "fs/leases.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/centre.h"

/* linux/fuse.h of kernel 6.16: forget all dentries that were looked up before now. No body. */
#define NOTIFY_INC_EPOCH 8

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

/* The counter grows first: an answer to something asked before now grants nothing on an inode made
 * after now, since the centre may have given it before it hears this. */
static void send_returns(struct worker *w, uint64_t *inos, size_t n)
{
    Star__ReturnLeases body = STAR__RETURN_LEASES__INIT;

    atomic_fetch_add(&w->inodes.returns_sent, 1);
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

static bool may_take(const struct kreq *q, const struct inode *i)
{
    return i->recalls == 0 && q->returns_seen >= i->born && msession_leased(q->w);
}

Star__Lease leases_take(const struct kreq *q, struct inode *i, Star__Lease lease)
{
    if (lease == STAR__LEASE__LEASE_NONE || !may_take(q, i))
        return STAR__LEASE__LEASE_NONE;
    i->lease = lease;
    i->granted_ms = clock_boot_ms();
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

double leases_take_entry(const struct kreq *q, uint64_t dir, bool granted)
{
    struct inode *i = granted ? inode_lock(&q->w->inodes, dir) : NULL;
    double timeout = 0;

    if (!i)
        return 0;
    if (may_take(q, i)) {
        if (i->lease == STAR__LEASE__LEASE_NONE)
            i->lease = STAR__LEASE__LEASE_READ;
        i->granted_ms = clock_boot_ms();
        timeout = entry_timeout(q->w);
    }
    inode_unlock(&q->w->inodes, i);
    return timeout;
}

bool leases_write_is_private(const struct worker *w, const struct inode *i)
{
    return (i->lease == STAR__LEASE__LEASE_WRITE && !atomic_load(&w->centre.fenced)) ||
           i->write_recalls > 0;
}

/* --- recalled --- */

struct recall {
    struct worker *w;
    struct client *client;
    struct message header;
    uint64_t ino;
    bool took_write;
};

static void unmark(struct worker *w, uint64_t ino, bool took_write)
{
    struct inode *i = inode_lock(&w->inodes, ino);

    if (!i)
        return;
    i->recalls--;
    if (took_write)
        i->write_recalls--;
    inode_unlock(&w->inodes, i);
}

static void recalled(void *arg)
{
    struct recall *r = arg;

    unmark(r->w, r->ino, r->took_write);
    msession_reply(r->w, r->client, &r->header, 0);
    free(r);
}

static int take_names(struct notify_job *job, const Star__Recall *body)
{
    if (body->n_names == 0)
        return 0;
    job->names = calloc(body->n_names, sizeof(*job->names));
    if (!job->names)
        return -ENOMEM;
    for (size_t n = 0; n < body->n_names; n++) {
        const ProtobufCBinaryData *name = &body->names[n];
        if (name->len == 0 || name->len > 255 || memchr(name->data, '\0', name->len))
            return -EINVAL;
        job->names[n].len = (uint8_t)name->len;
        memcpy(job->names[n].name, name->data, name->len);
    }
    job->names_n = body->n_names;
    return 0;
}

/* i is locked: from here on nothing of it is answered from memory. true: a WRITE lease ends. */
static bool mark(struct inode *i, const Star__Recall *body)
{
    bool took_write =
        i->lease == STAR__LEASE__LEASE_WRITE && body->keep != STAR__LEASE__LEASE_WRITE;
    bool whole = body->data && body->length == 0 && body->n_names == 0;

    i->recalls++;
    if (took_write)
        i->write_recalls++;
    if (body->keep < i->lease)
        i->lease = body->keep;
    i->attr_known = false;
    i->no_privileges = false;
    if (whole && body->keep == STAR__LEASE__LEASE_NONE) {
        i->located = false; /* somebody will write: perhaps elsewhere */
        i->listing_stale = true;
    }
    return took_write;
}

static int begin_recall(struct recall *r, const Star__Recall *body)
{
    struct worker *w = r->w;
    struct notify_job *job = notify_job_new(body->ino, recalled, r);
    int rc = job ? take_names(job, body) : -ENOMEM;

    if (rc < 0)
        goto fail;
    job->pages = body->data;
    job->attr = body->attr;
    if (body->offset <= INT64_MAX && body->length <= INT64_MAX - body->offset && body->length > 0) {
        job->offset = body->offset;
        job->length = body->length;
    }
    r->ino = body->ino;
    struct inode *i = inode_lock(&w->inodes, body->ino);
    if (i) {
        r->took_write = mark(i, body);
        job->granted_ms = i->granted_ms;
        inode_unlock(&w->inodes, i);
    } else {
        job->done = NULL;
    }
    if (i && notify_queue(w->notify, job))
        return 0;
    rc = i ? -ENOMEM : 1;
    if (i)
        unmark(w, body->ino, r->took_write);
fail:
    if (job)
        free(job->names);
    free(job);
    return rc;
}

void leases_recall(struct worker *w, struct client *client, const struct message *m)
{
    Star__Recall *body = (Star__Recall *)frame_unpack(m, &star__recall__descriptor);
    struct recall *r = body ? malloc(sizeof(*r)) : NULL;
    int rc = body ? -ENOMEM : -EINVAL;

    if (r) {
        *r = (struct recall){.w = w, .client = client, .header = *m};
        r->header.body = r->header.payload = NULL;
        r->header.body_len = r->header.payload_len = 0;
        rc = begin_recall(r, body);
    }
    if (rc != 0) { /* > 0: the kernel holds nothing of it */
        client_reply(client, m, rc > 0 ? 0 : rc, NULL);
        free(r);
    }
    if (body)
        star__recall__free_unpacked(body, NULL);
}

/* --- everything --- */

struct drop {
    struct worker *w;
    bool held;
    void (*done)(void *arg);
    void *arg;
    atomic_uint left; /* jobs, and one for the beginning */
    atomic_uint refs; /* those, and the timer's */
    atomic_bool told;
};

struct drop_one {
    struct drop *drop;
    uint64_t ino;
    bool took_write;
};

static void drop_unref(struct drop *d)
{
    if (atomic_fetch_sub(&d->refs, 1) == 1)
        free(d);
}

static void drop_tell(struct drop *d)
{
    if (!atomic_exchange(&d->told, true) && d->done)
        d->done(d->arg);
}

static void drop_part_done(struct drop *d)
{
    if (atomic_fetch_sub(&d->left, 1) == 1)
        drop_tell(d);
    drop_unref(d);
}

static void drop_overdue(void *arg)
{
    struct drop *d = arg;

    drop_tell(d);
    drop_unref(d);
}

static void drop_waited(void *arg)
{
    drop_part_done(arg);
}

static void drop_part_add(struct drop *d)
{
    atomic_fetch_add(&d->left, 1);
    atomic_fetch_add(&d->refs, 1);
}

static void dropped(void *arg)
{
    struct drop_one *one = arg;

    unmark(one->drop->w, one->ino, one->took_write);
    drop_part_done(one->drop);
    free(one);
}

static bool worth_dropping(const struct inode *i)
{
    return i->lease != STAR__LEASE__LEASE_NONE || i->readers || i->writers || i->ino == ROOT_INODE;
}

static void drop_inode(void *arg, struct inode *i)
{
    struct drop *d = arg;

    if (!worth_dropping(i))
        return;
    struct drop_one *one = calloc(1, sizeof(*one));
    struct notify_job *job = one ? notify_job_new(i->ino, dropped, one) : NULL;
    if (!job) {
        log_error(
            "no memory to invalidate the kernel's caches: ending, so that nothing stale is served");
        abort();
    }
    *one = (struct drop_one){.drop = d, .ino = i->ino};
    one->took_write = d->held && i->lease == STAR__LEASE__LEASE_WRITE;
    i->recalls++;
    if (one->took_write)
        i->write_recalls++;
    i->lease = STAR__LEASE__LEASE_NONE;
    i->attr_known = false;
    i->no_privileges = false;
    i->listing_stale = true;
    job->pages = true;
    job->granted_ms = i->granted_ms;
    drop_part_add(d);
    if (!notify_queue(d->w->notify, job)) {
        log_error(
            "no memory to invalidate the kernel's caches: ending, so that nothing stale is served");
        abort();
    }
}

/* All names at once, without taking a directory's lock. */
static void drop_entries(struct drop *d)
{
    struct worker *w = d->w;
    struct {
        uint32_t len;
        int32_t error;
        uint64_t unique;
    } header = {.len = sizeof(header), .error = NOTIFY_INC_EPOCH};

    if (!atomic_load(&w->init_done))
        return;
    if (w->init.inc_epoch) {
        if (write(w->fd, &header, sizeof(header)) < 0 && errno != ENOTCONN && errno != ENODEV)
            log_error("forgetting all names in the kernel: %s", strerror(errno));
        return;
    }
    int64_t left = atomic_load(&w->leases->entries_until_ms) - clock_boot_ms();
    if (left <= 0)
        return;
    drop_part_add(d);
    if (timer_queue_after(w->timer, left, drop_waited, d) < 0)
        drop_part_done(d);
}

void leases_drop_all(struct worker *w, bool held, void (*done)(void *arg), void *arg)
{
    struct drop *d = calloc(1, sizeof(*d));

    if (!d) {
        log_error(
            "no memory to invalidate the kernel's caches: ending, so that nothing stale is served");
        abort();
    }
    d->w = w;
    d->held = held;
    d->done = done;
    d->arg = arg;
    atomic_store(&d->left, 1);
    atomic_store(&d->refs, 1);
    if (done) {
        atomic_fetch_add(&d->refs, 1);
        if (timer_queue_after(w->timer, DROP_MAX_MS, drop_overdue, d) < 0)
            drop_unref(d);
    }
    inode_table_each(&w->inodes, drop_inode, d);
    drop_entries(d);
    drop_part_done(d);
}
