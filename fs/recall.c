/*
 * What must go: a recall of the centre, or everything at once.
 *
 * A recall is answered when its parts have ended. Pages and attributes are one; names are another,
 * in a lane of their own, since INVAL_ENTRY waits for the directory's lock, which a request of this
 * very mount may hold while it waits at the centre for the one that caused the recall. Names that
 * do not go within NAMES_PATIENCE_MS are therefore forgotten with all others (INC_EPOCH), and for
 * CONTENDED_MS none of that directory is kept: where mounts meet, names are asked for instead of
 * recalled.
 */
#include "fs/leases.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "fs/centre.h"
#include "fs/dir_memory.h"
#include "fs/pending.h"
#include "fs/straight_write.h"

/* linux/fuse.h of kernel 6.16: forget all dentries that were looked up before now. No body. */
#define NOTIFY_INC_EPOCH 8

/* Measured: INVAL_ENTRY of an unlocked directory takes below 0.1 ms. */
#define NAMES_PATIENCE_MS 2
/* Without INC_EPOCH names end by their timeout, seconds later: such a directory is better left
 * alone for long. */
#define CONTENDED_MS          1000
#define CONTENDED_NO_EPOCH_MS 60000

/* So long pages that are locked are waited for; then what locks them is failed, and what comes
 * later too, until they have gone. Well below the centre's own patience (10 s): beyond that it ends
 * the session. */
#define RECALL_PATIENCE_MS 4000
#define RECALL_CHECK_MS    250
#define RECALL_OVERDUE_MAX 64 /* looked after at one time */

struct recall {
    struct recall *prev, *next; /* in recalls.all */
    int64_t since_ms;
    struct worker *w;
    struct client *client;
    struct message header;
    uint64_t ino;
    bool took_write;
    atomic_uint parts;      /* still to end before the answer */
    atomic_uint refs;       /* those, and the timer's */
    atomic_bool names_gone; /* by the job, or by the timer */
    int64_t names_until_ms; /* when the kernel has none of the directory any more; 0: not known. The
                               timer's */
};

/* Those whose pages have not gone yet, the oldest first. The lock is a leaf. */
struct recalls {
    pthread_mutex_t lock;
    struct recall *all;
    bool ticking;
};

int recalls_start(struct worker *w)
{
    w->recalls = calloc(1, sizeof(*w->recalls));
    if (!w->recalls)
        return -ENOMEM;
    pthread_mutex_init(&w->recalls->lock, NULL);
    return 0;
}

void recalls_stop(struct worker *w)
{
    if (!w->recalls)
        return;
    pthread_mutex_destroy(&w->recalls->lock);
    free(w->recalls);
    w->recalls = NULL;
}

static void check_overdue(void *arg)
{
    struct worker *w = arg;
    struct recalls *all = w->recalls;
    uint64_t late[RECALL_OVERDUE_MAX];
    int64_t now = clock_boot_ms();
    size_t n = 0;

    pthread_mutex_lock(&all->lock);
    for (struct recall *r = all->all; r && n < RECALL_OVERDUE_MAX; r = r->next)
        if (now - r->since_ms >= RECALL_PATIENCE_MS)
            late[n++] = r->ino;
    all->ticking = all->all && timer_queue_after(w->timer, RECALL_CHECK_MS, check_overdue, w) == 0;
    pthread_mutex_unlock(&all->lock);
    for (size_t k = 0; k < n; k++)
        pending_end(w, late[k]);
}

static void watch(struct recall *r)
{
    struct recalls *all = r->w->recalls;

    r->since_ms = clock_boot_ms();
    pthread_mutex_lock(&all->lock);
    DL_APPEND(all->all, r);
    if (!all->ticking)
        all->ticking = timer_queue_after(r->w->timer, RECALL_CHECK_MS, check_overdue, r->w) == 0;
    pthread_mutex_unlock(&all->lock);
}

static void unwatch(struct recall *r)
{
    struct recalls *all = r->w->recalls;

    pthread_mutex_lock(&all->lock);
    DL_DELETE(all->all, r);
    pthread_mutex_unlock(&all->lock);
}

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

static void recall_unref(struct recall *r)
{
    if (atomic_fetch_sub(&r->refs, 1) == 1)
        free(r);
}

static void part_done(struct recall *r)
{
    if (atomic_fetch_sub(&r->parts, 1) > 1)
        return;
    unmark(r->w, r->ino, r->took_write);
    msession_reply(r->w, r->client, &r->header, 0);
}

static void pages_gone(void *arg)
{
    unwatch(arg);
    part_done(arg);
    recall_unref(arg);
}

static void straight_done(void *arg, int status)
{
    struct recall *r = arg;

    (void)status; /* what was lost, and is not the file's any more, fsync says */
    part_done(r);
    recall_unref(r);
}

static void names_gone(void *arg)
{
    struct recall *r = arg;

    if (!atomic_exchange(&r->names_gone, true))
        part_done(r);
    recall_unref(r);
}

/* --- names that do not go --- */

static void inc_epoch(struct worker *w)
{
    struct {
        uint32_t len;
        int32_t error;
        uint64_t unique;
    } header = {.len = sizeof(header), .error = NOTIFY_INC_EPOCH};

    if (write(w->fd, &header, sizeof(header)) < 0 && errno != ENOTCONN && errno != ENODEV)
        log_error("forgetting all names in the kernel: %s", strerror(errno));
}

/* Until when names that were given to the kernel must be waited for. A listing's are put in place
 * late: they take the epoch of that moment. */
static int64_t names_until(struct worker *w, const struct inode *i)
{
    return w->init.inc_epoch ? i->listed_ms + NOTIFY_YOUNG_MS : leases_entries_until(w);
}

/* From now on no names of the directory are given; those that were are waited for. */
static void mark_contended(struct recall *r)
{
    struct worker *w = r->w;
    int64_t now = clock_boot_ms();
    struct inode *i = inode_lock(&w->inodes, r->ino);

    r->names_until_ms = now;
    if (!i)
        return;
    i->contended_until_ms = now + (w->init.inc_epoch ? CONTENDED_MS : CONTENDED_NO_EPOCH_MS);
    if (names_until(w, i) > now)
        r->names_until_ms = names_until(w, i);
    inode_unlock(&w->inodes, i);
}

/* Under the inode's lock: who sees that no names are kept may rely on it, and a rename that brings
 * one comes after. */
static void names_forgotten(struct recall *r)
{
    struct worker *w = r->w;
    struct inode *i = inode_lock(&w->inodes, r->ino);

    if (i && clock_boot_ms() < i->contended_until_ms)
        i->names_kept = false;
    if (w->init.inc_epoch)
        inc_epoch(w);
    if (i)
        inode_unlock(&w->inodes, i);
}

static void names_overdue(void *arg)
{
    struct recall *r = arg;

    if (atomic_load(&r->names_gone)) {
        recall_unref(r);
        return;
    }
    if (!r->names_until_ms)
        mark_contended(r);
    int64_t left = r->names_until_ms - clock_boot_ms();
    if (left > 0 && timer_queue_after(r->w->timer, left, names_overdue, r) == 0)
        return;
    names_forgotten(r);
    names_gone(r);
}

static int wait_for_names(struct recall *r)
{
    atomic_fetch_add(&r->refs, 1);
    return timer_queue_after(r->w->timer, NAMES_PATIENCE_MS, names_overdue, r);
}

/* --- a recall --- */

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

/* i is locked: nothing of it is answered from memory any more. */
static void forget(struct inode *i)
{
    i->attr_known = false;
    dir_forget(i);
    i->no_capability = false;
    i->no_privileges = false;
    inode_forget_map(i);
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
    forget(i);
    if (body->data) { /* a part of the listing may be on its way into the kernel's cache */
        i->listing_stale = true;
        i->recalled_ms = clock_boot_ms();
    }
    if (whole && body->keep == STAR__LEASE__LEASE_NONE)
        i->located = false; /* somebody will write: perhaps elsewhere */
    return took_write;
}

/* The parts of a recall as jobs; none of them is owned by anyone else yet. */
struct jobs {
    struct notify_job *pages, *names;
};

static void jobs_free(struct jobs *j)
{
    if (j->names)
        free(j->names->names);
    free(j->names);
    free(j->pages);
}

static int make_jobs(struct recall *r, const Star__Recall *body, struct jobs *j)
{
    int rc = 0;

    j->pages = notify_job_new(body->ino, pages_gone, r);
    j->names = body->n_names > 0 ? notify_job_new(body->ino, names_gone, r) : NULL;
    if (!j->pages || (body->n_names > 0 && !j->names))
        return -ENOMEM;
    if (j->names)
        rc = take_names(j->names, body);
    j->pages->pages = body->data;
    j->pages->attr = body->attr;
    if (body->offset <= INT64_MAX && body->length <= INT64_MAX - body->offset && body->length > 0) {
        j->pages->offset = body->offset;
        j->pages->length = body->length;
    }
    return rc;
}

/* The jobs are taken over. Without memory for one there is no way to go on: what the kernel holds
 * would be stale. */
static void queue_jobs(struct recall *r, struct jobs *j)
{
    bool names = j->names != NULL;

    atomic_store(&r->parts, names ? 3 : 2); /* one for what is written straight to the pool */
    atomic_store(&r->refs, names ? 3 : 2);
    watch(r);
    if ((names && (wait_for_names(r) < 0 || !notify_queue(r->w->notify, j->names))) ||
        !notify_queue(r->w->notify, j->pages)) {
        log_error(
            "no memory to invalidate the kernel's caches: ending, so that nothing stale is served");
        abort();
    }
}

/* > 0: nothing needs to be waited for. */
static int begin_recall(struct recall *r, const Star__Recall *body)
{
    struct jobs j = {0};
    int rc = make_jobs(r, body, &j);
    struct inode *i = rc == 0 ? inode_lock(&r->w->inodes, body->ino) : NULL;

    if (!i) {
        jobs_free(&j);
        return rc < 0 ? rc : 1;
    }
    r->ino = body->ino;
    r->took_write = mark(i, body);
    j.pages->listed_ms = i->listed_ms;
    bool kept = i->names_kept;
    inode_unlock(&r->w->inodes, i);
    if (j.names && !kept) {
        free(j.names->names);
        free(j.names);
        j.names = NULL;
    }
    queue_jobs(r, &j);
    bool end = body->keep != STAR__LEASE__LEASE_WRITE;
    if (straight_sync(r->w, r->ino, end, true, straight_done, r) != 0)
        straight_done(r, 0);
    return 0;
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

struct drop_straight {
    struct drop *drop;
    uint64_t ino;
};

static void straight_dropped(void *arg, int status)
{
    struct drop_straight *s = arg;

    (void)status;
    drop_part_done(s->drop);
    free(s);
}

/* Not with the inode locked. */
static void end_straight(void *arg)
{
    struct drop_straight *s = arg;

    if (straight_sync(s->drop->w, s->ino, true, true, straight_dropped, s) != 0)
        straight_dropped(s, 0);
}

/* i is locked. What was acknowledged is confirmed before others may believe the log. */
static void drop_straight(struct drop *d, const struct inode *i)
{
    struct drop_straight *s = malloc(sizeof(*s));

    if (s)
        *s = (struct drop_straight){.drop = d, .ino = i->ino};
    if (s)
        drop_part_add(d);
    if (!s || timer_queue_after(d->w->timer, 0, end_straight, s) < 0) {
        log_error("no memory to end what is written to the pool: ending, so that nothing stale is "
                  "served");
        abort();
    }
}

static bool worth_dropping(const struct inode *i)
{
    return i->lease != STAR__LEASE__LEASE_NONE || i->readers || i->writers || i->ino == ROOT_INODE;
}

static void drop_inode(void *arg, struct inode *i)
{
    struct drop *d = arg;

    forget(i);
    if (i->straight)
        drop_straight(d, i);
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
    i->listing_stale = true;
    i->recalled_ms = clock_boot_ms();
    job->pages = true;
    job->listed_ms = i->listed_ms;
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

    if (!atomic_load(&w->init_done))
        return;
    if (w->init.inc_epoch) {
        inc_epoch(w);
        return;
    }
    int64_t left = leases_entries_until(w) - clock_boot_ms();
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
