/* Advisory locks. The centre keeps them; the mount remembers its own, for a centre that starts
 * anew. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "fs/centre.h"
#include "fs/ops.h"

/* One SETLK on its way. */
struct lock_wait {
    struct kreq *q;
    Star__Lock lock;
    uint64_t id;          /* of the frame */
    pthread_mutex_t busy; /* held until id is known and the interrupt function is in place */
    bool answered;        /* under busy */
    unsigned again;       /* asked so often after a refusal */
    bool was_held;        /* as a flock of this mount, or one on its way out, when it was sent */
};

/* A flock ends with the last close, whose RELEASE the kernel sends without waiting for it: it comes
 * in before a later flock, but another reader may handle it a little later. So a refusal by one's
 * own mount is doubted: asked again after 2, 4, 8 and 16 ms. */
#define FLOCK_AGAIN_MS  2
#define FLOCK_AGAIN_MAX 4

static uint64_t lock_end(const struct flock *l)
{
    if (l->l_len == 0)
        return HELD_LOCK_END;
    return (uint64_t)(l->l_start + l->l_len - 1);
}

static void fill_lock(Star__Lock *lock, uint64_t ino, uint64_t owner, const struct flock *l)
{
    star__lock__init(lock);
    lock->ino = ino;
    lock->owner = owner;
    lock->pid = (uint32_t)l->l_pid;
    lock->type = (uint32_t)l->l_type;
    lock->start = (uint64_t)l->l_start;
    lock->end = lock_end(l);
}

/* --- test --- */

static void on_tested(struct kreq *q, const struct message *reply)
{
    int status;
    Star__LockReply *r = kreq_unpack(reply, &star__lock_reply__descriptor, &status);
    struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    if (!r) {
        kreq_end(q, status);
        return;
    }
    if (r->conflict && r->conflict->type != F_UNLCK && r->conflict->start <= INT64_MAX) {
        l.l_type = (short)r->conflict->type;
        l.l_start = (off_t)r->conflict->start;
        if (r->conflict->end < HELD_LOCK_END)
            l.l_len = (off_t)(r->conflict->end - r->conflict->start + 1);
        l.l_pid = (pid_t)r->conflict->pid;
    }
    fuse_reply_lock(q->req, &l);
    star__lock_reply__free_unpacked(r, NULL);
    kreq_free(q);
}

void fs_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);
    Star__Lock body;

    if (!q)
        return;
    int rc = fh_check(q->w, fi->fh);
    if (rc < 0 || is_control(ino)) {
        kreq_end(q, rc < 0 ? rc : -EOPNOTSUPP);
        return;
    }
    fill_lock(&body, ino, fi->lock_owner, lock);
    kreq_ask(q, STAR__MSG_TYPE__GETLK, &body.base, on_tested);
}

/* --- set --- */

static void remember(struct worker *w, const Star__Lock *lock)
{
    struct held_lock held = {.owner = lock->owner,
                             .start = lock->start,
                             .end = lock->end,
                             .pid = lock->pid,
                             .type = lock->type,
                             .flock = lock->flock};
    struct inode *i = inode_lock(&w->inodes, lock->ino);

    if (!i)
        return;
    if (lock_list_set(&i->locks, &held) < 0)
        log_warning("no memory to remember a lock on inode %llu: it ends if the centre restarts",
                    (unsigned long long)lock->ino);
    if (!lock->flock && lock->type != F_UNLCK)
        i->had_locks = true;
    inode_unlock(&w->inodes, i);
}

/* A flock that changes its kind is gone before the new one is asked for, as at the centre. */
static void forget_converted(struct worker *w, const Star__Lock *lock)
{
    struct inode *i = inode_lock(&w->inodes, lock->ino);
    struct held_lock gone = {
        .owner = lock->owner, .end = HELD_LOCK_END, .type = F_UNLCK, .flock = true};
    bool other = false;

    if (!i)
        return;
    for (const struct held_lock *h = i->locks; h; h = h->next)
        other |= h->flock && h->owner == lock->owner && h->type != lock->type;
    if (other && lock_list_set(&i->locks, &gone) < 0)
        log_warning("no memory to forget a flock on inode %llu", (unsigned long long)lock->ino);
    inode_unlock(&w->inodes, i);
}

static void wait_free(struct lock_wait *l)
{
    pthread_mutex_destroy(&l->busy);
    free(l);
}

/* The kernel no longer waits for a lock that was granted. */
static void give_back(struct worker *w, const Star__Lock *granted)
{
    Star__Lock lock = *granted;

    lock.type = F_UNLCK;
    lock.wait = false;
    remember(w, &lock);
    int rc = msession_call(w, STAR__MSG_TYPE__SETLK, &lock.base, NULL, 0, METADATA_DEADLINE_MS,
                           CLIENT_RESEND, NULL, NULL, NULL);
    if (rc < 0)
        log_warning("cannot give back a lock on inode %llu: %s", (unsigned long long)lock.ino,
                    strerror(-rc));
}

static bool held_here(struct worker *w, const Star__Lock *lock)
{
    struct inode *i = inode_lock(&w->inodes, lock->ino);
    bool held = false;

    if (!i)
        return false;
    held = i->unlocking > 0;
    for (const struct held_lock *h = i->locks; h; h = h->next)
        held |= h->flock && h->owner != lock->owner;
    inode_unlock(&w->inodes, i);
    return held;
}

static void ask_again(void *arg);

/* true: the refusal is not the last word. */
static bool doubted(struct lock_wait *l, int status)
{
    struct worker *w = l->q->w;

    if (status != -EAGAIN || !l->lock.flock || l->lock.wait || l->again == FLOCK_AGAIN_MAX ||
        !(l->was_held || held_here(w, &l->lock)))
        return false;
    return timer_queue_after(w->timer, FLOCK_AGAIN_MS << l->again++, ask_again, l) == 0;
}

static void on_lock_answer(void *arg, const struct message *reply)
{
    struct lock_wait *l = arg;
    struct kreq *q = l->q;
    struct worker *w = q->w;
    int status = reply->status;

    if (doubted(l, status))
        return;
    pthread_mutex_lock(&l->busy);
    l->answered = true;
    pthread_mutex_unlock(&l->busy);
    fuse_req_interrupt_func(q->req, NULL, NULL); /* returns when it does not run any more */
    if (status >= 0)
        remember(w, &l->lock);
    int rc = fuse_reply_err(q->req, kreq_errno(status));
    if (rc == -ENOENT && status >= 0 && l->lock.type != F_UNLCK)
        give_back(w, &l->lock);
    q->req = NULL;
    kreq_free(q);
    wait_free(l);
}

/* The true result follows: EINTR if it was not granted, else success. Called with locks of libfuse
 * held. */
static void on_interrupt(fuse_req_t req, void *data)
{
    struct lock_wait *l = data;
    Star__CancelLock body = STAR__CANCEL_LOCK__INIT;

    (void)req;
    body.id = l->id;
    int rc = msession_call(l->q->w, STAR__MSG_TYPE__CANCEL_LOCK, &body.base, NULL, 0,
                           METADATA_DEADLINE_MS, CLIENT_RESEND, NULL, NULL, NULL);
    if (rc < 0)
        log_warning("cannot interrupt the wait for a lock: %s", strerror(-rc));
}

static void send_lock(struct lock_wait *l)
{
    struct kreq *q = l->q;
    bool wait = l->lock.wait;

    l->was_held = l->lock.flock && held_here(q->w, &l->lock);
    pthread_mutex_lock(&l->busy);
    int rc =
        msession_call(q->w, STAR__MSG_TYPE__SETLK, &l->lock.base, NULL, 0,
                      wait ? 0 : METADATA_DEADLINE_MS, CLIENT_RESEND, on_lock_answer, l, &l->id);
    if (rc == 0 && wait && !l->answered)
        fuse_req_interrupt_func(q->req, on_interrupt, l);
    pthread_mutex_unlock(&l->busy);
    if (rc < 0) {
        wait_free(l);
        kreq_end(q, rc);
    }
}

static void ask_again(void *arg)
{
    send_lock(arg);
}

static void set_lock(struct kreq *q, const Star__Lock *lock)
{
    struct lock_wait *l = calloc(1, sizeof(*l));

    if (!l) {
        kreq_end(q, -ENOMEM);
        return;
    }
    l->q = q;
    l->lock = *lock;
    pthread_mutex_init(&l->busy, NULL);
    send_lock(l);
}

static int may_lock(struct kreq *q, const struct fuse_file_info *fi)
{
    if (is_control(q->ino))
        return -EOPNOTSUPP;
    return fh_check(q->w, fi->fh);
}

void fs_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
              int sleep)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);
    Star__Lock body;

    if (!q)
        return;
    int rc = may_lock(q, fi);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    fill_lock(&body, ino, fi->lock_owner, lock);
    body.wait = sleep && lock->l_type != F_UNLCK;
    set_lock(q, &body);
}

void fs_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);
    Star__Lock body = STAR__LOCK__INIT;

    if (!q)
        return;
    int rc = may_lock(q, fi);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    int kind = op & ~LOCK_NB;
    body.ino = ino;
    body.owner = fi->lock_owner;
    body.pid = (uint32_t)q->ctx.pid;
    body.type = kind == LOCK_SH ? F_RDLCK : kind == LOCK_EX ? F_WRLCK : F_UNLCK;
    body.end = HELD_LOCK_END;
    body.flock = true;
    body.wait = !(op & LOCK_NB) && kind != LOCK_UN;
    if (kind != LOCK_UN)
        forget_converted(q->w, &body);
    set_lock(q, &body);
}

void lock_close_owner(struct kreq *q, uint64_t owner)
{
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_pid = q->ctx.pid};
    Star__Lock body;

    fill_lock(&body, q->ino, owner, &all);
    set_lock(q, &body);
}
