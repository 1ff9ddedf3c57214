#include "fs/straight_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "control/wire/stamp.h"
#include "fs/centre.h"
#include "fs/data.h"
#include "fs/leases.h"

struct straight_file *straight_ref(struct straight_file *f)
{
    atomic_fetch_add(&f->refs, 1);
    return f;
}

void straight_unref(struct straight_file *f)
{
    if (atomic_fetch_sub(&f->refs, 1) > 1)
        return;
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* --- the end --- */

/* From here on the file is as the log knows it. i is locked. */
static void forget_unconfirmed(struct straight_file *f, struct inode *i)
{
    i->errors++;
    i->straight_error = f->error;
    i->home_known = false;
    i->attr_known = false;
    i->watch.on = false;
}

static void drop_pages(struct straight_file *f)
{
    struct notify_job *job = notify_job_new(f->ino, NULL, NULL);

    if (!job)
        return; /* the kernel goes on to show what it was given */
    job->pages = job->attr = true;
    if (!notify_queue(f->w->notify, job))
        free(job);
}

static void detach(struct straight_file *f)
{
    struct inode *i = inode_lock(&f->w->inodes, f->ino);
    bool mine = i && i->straight == f;

    if (mine) {
        i->straight = NULL;
        i->pins--;
        i->located = false;
        inode_forget_map(i);
        if (f->error)
            forget_unconfirmed(f, i);
        else if (i->logged_version < f->version)
            i->logged_version = f->version;
    }
    if (i)
        inode_unlock(&f->w->inodes, i);
    if (mine && f->error)
        drop_pages(f);
    if (mine) {
        straight_file_ended(f->w->writer);
        straight_unref(f);
    }
}

static void run_waiters(struct straight_waiter *list, int status)
{
    while (list) {
        struct straight_waiter *one = list;
        list = one->next;
        one->fn(one->arg, status);
        free(one);
    }
}

/* Writes that waited go on elsewhere, or hear why they cannot. */
static void go_elsewhere(struct kreq *list, int error)
{
    while (list) {
        struct kreq *q = list;
        list = q->straight_next;
        if (error) {
            kreq_fail_now(q, error, q->done);
        } else {
            q->finished = 0;
            data_ask(q, q->done);
        }
    }
}

/* After an error nothing is waited for but a confirm on its way: it may still be taken. */
static bool is_over(const struct straight_file *f)
{
    if (f->state != STRAIGHT_ENDS)
        return false;
    if (!f->error)
        return !f->cuts && !f->filling;
    for (const struct straight_cut *c = f->cuts; c; c = c->next)
        if (c->confirming)
            return false;
    return true;
}

/* --- writes --- */

/* The file's lock is held. -EAGAIN: no buffer. */
static int copy_in(struct straight_file *f, struct kreq *q)
{
    struct straight_writer *s = f->w->writer;
    const uint8_t *from = q->payload;
    int rc = 0;

    while (rc == 0 && q->finished < q->length) {
        struct piece *p = f->filling;
        if (!p && !(p = f->filling = piece_get(s, !f->cuts)))
            return -EAGAIN;
        if (p->length == 0)
            p->offset = f->next;
        uint64_t room = POOL_RECORD_MAX - f->next % POOL_RECORD_MAX;
        uint64_t part = q->length - q->finished < room ? q->length - q->finished : room;
        memcpy(p->data + p->length, from + q->finished, part);
        p->length += (uint32_t)part;
        q->finished += part;
        f->next += part;
        f->version++;
        f->mtime = q->now;
        if (f->next > f->size)
            f->size = f->next;
        if (part == room) {
            f->filling = NULL;
            rc = cut_add(f, p);
        }
    }
    return rc;
}

static void note_attrs(struct straight_file *f, struct kreq *q, Star__HomeAttrs *a, Star__Time *t)
{
    star__home_attrs__init(a);
    *t = stamp_of(q->now);
    a->ino = f->ino;
    a->size = f->size;
    a->mtime = a->ctime = t;
    a->version = f->version;
    a->home_epoch = f->epoch;
    a->bytes = f->next;
}

/* As a home would. */
static void answer(struct kreq *q, Star__HomeAttrs *a)
{
    Star__WriteReply reply = STAR__WRITE_REPLY__INIT;
    uint8_t packed[256];
    struct message m = {.kind = FRAME_REPLY, .body = packed};

    reply.attrs = a;
    reply.offset = q->offset;
    reply.written = q->length;
    m.body_len = star__write_reply__pack(&reply, packed);
    q->done(q, &m);
}

/* Writes in the order in which they came, as far as there is room. One thread at a time. */
static void resume_writes(struct straight_file *f)
{
    Star__HomeAttrs a;
    Star__Time t;

    pthread_mutex_lock(&f->lock);
    if (f->resuming) {
        pthread_mutex_unlock(&f->lock);
        return;
    }
    f->resuming = true;
    while (f->writes && f->state == STRAIGHT_ON) {
        struct kreq *q = f->writes;
        int rc = q->offset + q->finished == f->next ? copy_in(f, q) : -ESPIPE;
        if (rc == -EAGAIN) {
            straight_wants_room(f->w->writer, f);
            break;
        }
        if (rc < 0) { /* not the next one, or the file has failed: its end decides about it */
            cut_close(f);
            f->state = STRAIGHT_ENDS;
            break;
        }
        f->writes = q->straight_next;
        note_attrs(f, q, &a, &t);
        pthread_mutex_unlock(&f->lock);
        answer(q, &a);
        pthread_mutex_lock(&f->lock);
    }
    f->resuming = false;
    pthread_mutex_unlock(&f->lock);
}

/* Writes are taken only while nobody else can look. */
static void end_if_shared(struct straight_file *f)
{
    struct inode *i = inode_lock(&f->w->inodes, f->ino);
    bool shared = i && i->straight == f && !leases_write_is_private(f->w, i);

    if (i)
        inode_unlock(&f->w->inodes, i);
    if (!shared)
        return;
    pthread_mutex_lock(&f->lock);
    if (f->state == STRAIGHT_ON) {
        cut_close(f);
        f->state = STRAIGHT_ENDS;
    }
    pthread_mutex_unlock(&f->lock);
}

void straight_moved(struct straight_file *f)
{
    struct straight_waiter *done = NULL;
    struct kreq *writes = NULL;

    end_if_shared(f);
    resume_writes(f);
    cuts_confirm(f);
    pthread_mutex_lock(&f->lock);
    bool over = is_over(f) && !f->resuming;
    if (over)
        f->state = STRAIGHT_OVER;
    else if (f->state == STRAIGHT_ON || f->state == STRAIGHT_OVER)
        done = cuts_settle(f);
    int error = f->error;
    pthread_mutex_unlock(&f->lock);
    if (over) {
        detach(f);
        pthread_mutex_lock(&f->lock);
        done = f->waiters;
        f->waiters = NULL;
        writes = f->writes;
        f->writes = NULL;
        struct straight_waiter *none = cuts_settle(f); /* frees what no thread is at */
        (void)none;
        pthread_mutex_unlock(&f->lock);
        straight_room_came(f->w->writer);
    }
    run_waiters(done, error);
    go_elsewhere(writes, error);
}

/* --- the begin --- */

static int take_begin(struct kreq *q, struct straight_file *f, const Star__StraightReply *r)
{
    const Star__HomeAttrs *a = r->attrs;
    struct inode *i = a && a->ino == f->ino ? inode_lock(&f->w->inodes, f->ino) : NULL;

    if (!i)
        return -EPROTO;
    Star__Lease lease = leases_take(q, i, r->lease);
    i->located = false;
    inode_forget_map(i);
    inode_note_home(i, a);
    inode_unlock(&f->w->inodes, i);
    pthread_mutex_lock(&f->lock);
    f->epoch = a->home_epoch;
    f->version = a->version;
    f->size = a->size;
    if (f->state == STRAIGHT_BEGINS && lease == STAR__LEASE__LEASE_WRITE && !f->cancelled)
        f->state = STRAIGHT_ON;
    else
        f->state = STRAIGHT_ENDS;
    pthread_mutex_unlock(&f->lock);
    return 0;
}

static void begin_failed(struct straight_file *f, int status)
{
    struct inode *i = inode_lock(&f->w->inodes, f->ino);

    log_info("inode %" PRIu64 " is not written straight to the pool for now: %s", f->ino,
             strerror(-status));
    if (i) {
        straight_watch_later(&i->watch, atomic_load(&f->w->direct_size));
        inode_unlock(&f->w->inodes, i);
    }
    pthread_mutex_lock(&f->lock);
    f->state = STRAIGHT_ENDS;
    pthread_mutex_unlock(&f->lock);
}

/* q is a request of its own: nobody in the kernel waits for it. */
static void on_begun(struct kreq *q, const struct message *reply)
{
    struct straight_file *f = q->straight_begins;
    int status;
    Star__StraightReply *r = kreq_unpack(reply, &star__straight_reply__descriptor, &status);

    if (r)
        status = take_begin(q, f, r);
    if (r)
        star__straight_reply__free_unpacked(r, NULL);
    if (status < 0)
        begin_failed(f, status);
    straight_moved(f);
    straight_unref(f);
    kreq_free(q);
}

static void begin(struct straight_file *f)
{
    struct kreq *q = kreq_new(f->w, NULL, f->ino);
    Star__Straight body = STAR__STRAIGHT__INIT;

    if (!q) {
        begin_failed(f, -ENOMEM);
        straight_moved(f);
        straight_unref(f);
        return;
    }
    q->straight_begins = f;
    body.ino = f->ino;
    /* Asked once more after a broken connection it begins once more: nothing was written yet. */
    kreq_ask_within(q, STAR__MSG_TYPE__STRAIGHT_BEGIN, &body.base, COMMAND_DEADLINE_MS,
                    CLIENT_RESEND, on_begun);
}

/* i is locked. */
static struct straight_file *file_new(struct worker *w, struct inode *i, uint64_t offset)
{
    if (!straight_file_begins(w->writer))
        return NULL;
    struct straight_file *f = calloc(1, sizeof(*f));
    if (!f) {
        straight_file_ended(w->writer);
        return NULL;
    }
    atomic_store(&f->refs, 1);
    pthread_mutex_init(&f->lock, NULL);
    f->w = w;
    f->ino = i->ino;
    f->generation = atomic_load(&w->centre.generation);
    f->next = offset;
    i->straight = f;
    i->pins++;
    return f;
}

static bool may_begin(struct worker *w, const struct inode *i, const struct kreq *q)
{
    return i->lease == STAR__LEASE__LEASE_WRITE && i->recalls == 0 && msession_leased(w) &&
           i->data_changes == 1 /* q */ && i->writers == 1 && !q->append && !q->cached_page;
}

/* The write is the next one of a file that is written so, or begins it. i is locked. */
static struct straight_file *file_for(struct worker *w, struct inode *i, const struct kreq *q,
                                      bool *begins)
{
    uint64_t least = atomic_load(&w->direct_size);
    bool wanted = !q->append && straight_watch_write(&i->watch, q->offset, q->length, least);

    *begins = false;
    if (q->append)
        i->watch.on = false;
    if (i->straight)
        return i->watch.on && !q->cached_page && leases_write_is_private(w, i) ? i->straight : NULL;
    if (!wanted || !may_begin(w, i, q))
        return NULL;
    struct straight_file *f = file_new(w, i, q->offset);
    *begins = f != NULL;
    return f;
}

bool straight_take(struct kreq *q, kreq_fn done)
{
    struct worker *w = q->w;
    struct inode *i = inode_lock(&w->inodes, q->ino);
    bool begins, taken = false;

    if (!i)
        return false;
    struct straight_file *f = file_for(w, i, q, &begins);
    if (f) {
        straight_ref(f);
        q->done = done;
        q->finished = 0;
        q->now = msession_time(w);
        q->deadline_ms = clock_boot_ms() + DATA_DEADLINE_MS;
        q->straight_next = NULL;
        pthread_mutex_lock(&f->lock);
        taken = f->state == STRAIGHT_BEGINS || f->state == STRAIGHT_ON;
        if (taken)
            LL_APPEND2(f->writes, q, straight_next);
        pthread_mutex_unlock(&f->lock);
    }
    if (f && begins)
        straight_ref(f);
    inode_unlock(&w->inodes, i);
    if (f && begins)
        begin(f);
    else if (f)
        straight_moved(f);
    if (f)
        straight_unref(f);
    return taken;
}

bool straight_take_again(struct kreq *q, kreq_fn done)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);
    bool may = i && !i->straight && straight_watch_again(&i->watch, q->offset, q->length);

    if (i)
        inode_unlock(&q->w->inodes, i);
    return may && straight_take(q, done);
}

/* --- sync and end --- */

/* Too late for a recall: what is not confirmed is lost, and the handles hear of it. */
static void too_late(void *arg)
{
    struct straight_file *f = arg;

    pthread_mutex_lock(&f->lock);
    bool waits = f->state != STRAIGHT_OVER && f->until_ms && clock_boot_ms() >= f->until_ms;
    if (waits && !f->error) {
        log_error("inode %" PRIu64 ": others wait for it, and the pool does not answer: what was "
                  "not synced is lost",
                  f->ino);
        straight_fail(f, -EIO);
        f->state = STRAIGHT_ENDS;
    }
    pthread_mutex_unlock(&f->lock);
    straight_moved(f);
    straight_unref(f);
}

/* The file's lock is held. false: nothing is to be waited for. */
static bool add_waiter(struct straight_file *f, bool end, straight_fn fn, void *arg, int *rc)
{
    if (f->state == STRAIGHT_ON || f->state == STRAIGHT_ENDS)
        cut_close(f);
    if (end && f->state == STRAIGHT_ON)
        f->state = STRAIGHT_ENDS;
    if (!end && f->state == STRAIGHT_ON && !f->cuts)
        return false;
    struct straight_waiter *one = malloc(sizeof(*one));
    if (!one) {
        *rc = -ENOMEM;
        return false;
    }
    *one = (struct straight_waiter){.after = f->cuts ? f->cuts->prev : NULL, .fn = fn, .arg = arg};
    LL_APPEND(f->waiters, one);
    return true;
}

/* f is referenced for us. */
static int file_sync(struct straight_file *f, bool end, bool late, straight_fn fn, void *arg)
{
    bool waits = false;
    int rc = 0;

    pthread_mutex_lock(&f->lock);
    if (f->state == STRAIGHT_BEGINS && late)
        f->cancelled |= end; /* nothing is acknowledged yet; the writes go elsewhere later */
    else if (f->state != STRAIGHT_OVER)
        waits = add_waiter(f, end, fn, arg, &rc);
    if (f->state == STRAIGHT_BEGINS && end)
        f->cancelled = true;
    if (waits && late && !f->until_ms) {
        f->until_ms = clock_boot_ms() + STRAIGHT_END_MS;
        if (timer_queue_after(f->w->timer, STRAIGHT_END_MS, too_late, straight_ref(f)) < 0) {
            f->until_ms = 0;
            straight_unref(f);
        }
    }
    int error = f->error;
    pthread_mutex_unlock(&f->lock);
    if (!waits)
        fn(arg, rc < 0 ? rc : error);
    straight_moved(f);
    straight_unref(f);
    return 0;
}

int straight_sync(struct worker *w, uint64_t ino, bool end, bool late, straight_fn fn, void *arg)
{
    struct inode *i = straight_files(w->writer) > 0 ? inode_lock(&w->inodes, ino) : NULL;
    struct straight_file *f = i && i->straight ? straight_ref(i->straight) : NULL;

    if (i)
        inode_unlock(&w->inodes, i);
    return f ? file_sync(f, end, late, fn, arg) : 1;
}

int straight_lost(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);
    struct handle *h = i && i->straight_error ? inode_handle(i, q->fh) : NULL;
    int rc = 0;

    if (h && h->errors_seen != i->errors) {
        h->errors_seen = i->errors;
        rc = i->straight_error;
    }
    if (i)
        inode_unlock(&q->w->inodes, i);
    return rc;
}

bool straight_is_on(struct worker *w, uint64_t ino)
{
    struct inode *i = inode_lock(&w->inodes, ino);
    bool on = i && i->straight;

    if (i)
        inode_unlock(&w->inodes, i);
    return on;
}

void straight_drain(struct worker *w)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    int64_t until = clock_boot_ms() + STRAIGHT_DRAIN_MS;

    while (straight_files(w->writer) > 0 && clock_boot_ms() < until)
        nanosleep(&pause, NULL);
    if (straight_files(w->writer) > 0)
        log_error("%u files that were closed are not in the pool as far as they were written: it "
                  "does not answer",
                  straight_files(w->writer));
}
