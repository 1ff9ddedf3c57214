#include "fs/waits.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/pending.h"

struct waits {
    pthread_mutex_t lock; /* leaf */
    unsigned n;
    int64_t since_ms; /* the first of them */
    uint32_t node;    /* where the newest attempt of one of them went; 0: the pool, from here */
};

int waits_new(struct waits **out)
{
    struct waits *t = calloc(1, sizeof(*t));

    if (!t)
        return -ENOMEM;
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return 0;
}

void waits_free(struct waits *t)
{
    if (!t)
        return;
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* --- the rule --- */

bool waits_is_away(int status)
{
    switch (status) {
    case -ENOTCONN:
    case -ECONNRESET:
    case -ETIMEDOUT:
    case -EHOSTDOWN: /* the pool, as its driver says it */
    case -EHOSTUNREACH:
    case -EAGAIN:
        return true;
    default:
        return false;
    }
}

int64_t waits_deadline(int64_t began_ms, int64_t now_ms, int soft_ms)
{
    return soft_ms > 0 ? began_ms + soft_ms : now_ms + DATA_DEADLINE_MS;
}

bool waits_is_over(int64_t began_ms, int64_t now_ms, int soft_ms)
{
    return soft_ms > 0 && now_ms >= began_ms + soft_ms;
}

/* --- interrupts --- */

/* A reader is answered at once. Others end where they would be tried again: what is at a node has
 * its true result. */
static void interrupted(void *arg)
{
    struct kreq *q = arg;

    if (q->type == STAR__MSG_TYPE__READ)
        pending_interrupt(q);
    kreq_unref(q);
}

/* Called with locks of libfuse held. */
static void on_interrupt(fuse_req_t req, void *data)
{
    struct kreq *q = data;

    (void)req;
    if (atomic_exchange(&q->interrupted, true))
        return;
    kreq_ref(q);
    if (timer_queue_after(q->w->timer, 0, interrupted, q) < 0)
        kreq_unref(q);
}

/* Who ends it from elsewhere (pending.c) holds the inode's lock, and then there is no req. When
 * this returns, on_interrupt does not run any more. */
static void watch(struct kreq *q, bool on)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (q->req && (on || q->interruptible))
        fuse_req_interrupt_func(q->req, on ? on_interrupt : NULL, on ? q : NULL);
    q->interruptible = on && q->req;
    if (i)
        inode_unlock(&q->w->inodes, i);
}

void waits_begin(struct kreq *q)
{
    int64_t now = clock_boot_ms();

    q->began_ms = now;
    q->deadline_ms = waits_deadline(now, now, q->w->options->soft_ms);
    watch(q, true);
}

void waits_end(struct kreq *q)
{
    struct waits *t = q->w->waits;

    watch(q, false);
    if (!q->waiting)
        return;
    q->waiting = false;
    pthread_mutex_lock(&t->lock);
    t->n--;
    pthread_mutex_unlock(&t->lock);
}

/* --- waiting --- */

static void note(struct kreq *q, int64_t now)
{
    struct waits *t = q->w->waits;

    if (now - q->began_ms < WAIT_TOLD_MS)
        return;
    pthread_mutex_lock(&t->lock);
    if (!q->waiting && t->n++ == 0)
        t->since_ms = q->began_ms;
    t->node = q->node;
    pthread_mutex_unlock(&t->lock);
    q->waiting = true;
}

int waits_again(struct kreq *q, int status)
{
    int64_t now = clock_boot_ms();
    int soft = q->w->options->soft_ms;

    if (atomic_load(&q->ended)) /* the kernel was answered: it comes to its end by itself */
        return 0;
    if (atomic_load(&q->interrupted))
        return q->again ? -EIO : -EINTR; /* again: it may have been done */
    if (waits_is_away(status) && !waits_is_over(q->began_ms, now, soft)) {
        note(q, now);
        q->deadline_ms = waits_deadline(q->began_ms, now, soft);
    }
    return now >= q->deadline_ms ? -EIO : 0;
}

void waits_anew(struct kreq *q)
{
    q->began_ms = clock_boot_ms();
    q->deadline_ms = waits_deadline(q->began_ms, q->began_ms, q->w->options->soft_ms);
}

void waits_tell(struct worker *w, Star__Renew *renew)
{
    struct waits *t = w->waits;

    pthread_mutex_lock(&t->lock);
    renew->waiting = t->n;
    renew->waiting_node = t->n > 0 ? t->node : 0;
    renew->waiting_s = t->n > 0 ? (uint32_t)((clock_boot_ms() - t->since_ms) / 1000) : 0;
    pthread_mutex_unlock(&t->lock);
}
