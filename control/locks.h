/*
 * Advisory locks of one inode: POSIX (fcntl) ranges and flock, which do not see each other. Pure:
 * no I/O, no clock.
 *
 * An owner is (session, owner number of that mount's kernel). POSIX locks of one owner split, merge
 * and replace each other by range; a flock is one lock on everything. Waiters are granted in the
 * order of arrival as far as they do not conflict with what is held.
 */
#ifndef UMBEL_CONTROL_LOCKS_H
#define UMBEL_CONTROL_LOCKS_H

#include <stdbool.h>
#include <stdint.h>

#define LOCK_END_MAX INT64_MAX
/* Ranges and waiters of one inode; beyond: -ENOLCK. */
#define LOCKS_PER_INODE_MAX 16384

enum lock_type { RANGE_READ = 0, RANGE_WRITE = 1, RANGE_UNLOCK = 2 };

struct lock_spec {
    uint64_t session, owner;
    uint32_t pid;
    enum lock_type type;
    uint64_t start, end; /* inclusive */
    bool flock;
};

struct lock_table;

struct lock_table *lock_table_new(void);
void lock_table_free(struct lock_table *t);
bool lock_table_empty(const struct lock_table *t);

/* Sets, changes or (RANGE_UNLOCK) removes. -EAGAIN: conflict; a flock of another kind that the
 * owner had is gone then, so waiters may go on (as in Linux; it is why two that upgrade do not wait
 * for each other). -ENOLCK: too many. -ENOMEM; -EINVAL: start > end. */
int lock_set(struct lock_table *t, const struct lock_spec *spec);
/* The first lock that conflicts with spec: true. */
bool lock_conflict(const struct lock_table *t, const struct lock_spec *spec,
                   struct lock_spec *found);
/* fn for all of them until it says true; true: it did. */
typedef bool (*lock_fn)(void *arg, const struct lock_spec *held);
bool lock_each_conflict(const struct lock_table *t, const struct lock_spec *spec, lock_fn fn,
                        void *arg);

/* Queues a waiter under its cookie. */
int lock_wait(struct lock_table *t, const struct lock_spec *spec, void *cookie);
/* Removes a waiter; false: there was none with this cookie. */
bool lock_cancel(struct lock_table *t, const void *cookie);
/* Grants the first waiter that can be: its cookie, or NULL. */
void *lock_grant_next(struct lock_table *t);

/* Everything of a session, or of one owner of it (flock or POSIX). */
void lock_drop_session(struct lock_table *t, uint64_t session);
void lock_drop_owner(struct lock_table *t, uint64_t session, uint64_t owner, bool flock);

#endif
