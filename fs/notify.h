/*
 * Invalidation of the kernel's caches, in a small pool of threads of its own: a notify may wait for
 * a page that an unanswered READ has locked, or for the lock of a directory that a create in flight
 * holds. So it is never sent from a thread that answers requests.
 *
 * Jobs of one inode run one after the other, in the order in which they came; those with names
 * apart from those with pages or attributes, which must not wait for a directory's lock.
 */
#ifndef UMBEL_FS_NOTIFY_H
#define UMBEL_FS_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Threads are started as they are needed: those that wait for a lock in the kernel wait for
 * requests that others of these jobs may have to let through, so there must always be one more. */
#define NOTIFY_THREADS_MAX 128

struct notify_pool;
struct fuse_session;

struct notify_name {
    uint8_t len;
    char name[256]; /* with NUL */
};

struct notify_job {
    struct notify_job *next;
    uint64_t ino;
    bool pages;      /* pages or listing, and attributes; not in a job with names */
    bool attr;       /* attributes */
    uint64_t offset; /* pages: range; length 0: all */
    uint64_t length;
    struct notify_name *names; /* entries of the directory ino; owned by the job */
    size_t names_n;
    int64_t
        listed_ms; /* newest part of a listing, which a process may be about to take in; 0: none */
    void (*done)(
        void *arg); /* in a thread of the pool, when the kernel holds nothing of it any more */
    void *arg;
};

/* A listing that was answered so recently is invalidated a second time: a part is put into the
 * cache when its reader gets there. (A slower reader is why the listing is dropped again at every
 * opendir for a while.) An inode that is there refuses older attributes by itself; names are put in
 * place under the lock that INVAL_ENTRY takes. */
#define NOTIFY_YOUNG_MS 50
#define NOTIFY_AGAIN_MS 20

/* An inode that the kernel was told of but does not have: a process is about to take the answer in,
 * or the kernel has forgotten it and is about to say so. It is asked so often, until one of both is
 * seen, or for so long: the centre waits for a recall a little longer. */
#define NOTIFY_FIND_MS     5
#define NOTIFY_FIND_MAX_MS 8000

/* known: whether the kernel holds a reference, as far as it has said. */
int notify_start(struct fuse_session *se, bool (*known)(void *ctx, uint64_t ino), void *ctx,
                 struct notify_pool **out);
/* Runs what is queued, then frees. false: after deadline_ms some still wait in the kernel; nothing
 * is freed, and the process must end. */
bool notify_stop(struct notify_pool *p, int64_t deadline_ms);
struct notify_job *notify_job_new(uint64_t ino, void (*done)(void *arg),
                                  void *arg); /* NULL: no memory */
/* Takes job over. false: no memory; the job is still the caller's. */
bool notify_queue(struct notify_pool *p, struct notify_job *job);

#endif
