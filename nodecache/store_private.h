/* The store's insides, for its own files, the cut and the flush. */
#ifndef UMBEL_NODE_STORE_PRIVATE_H
#define UMBEL_NODE_STORE_PRIVATE_H

#include "nodecache/deadline.h"
#include "nodecache/index.h"
#include "nodecache/maps.h"
#include "nodecache/mark.h"
#include "nodecache/store.h"

/* Descriptors of flat files kept open, if the process may have twice as many. */
#define STORE_FDS_MAX 4096u
/* A condition is looked at again after this long even if nobody signalled it. */
#define STORE_POLL_MS 50
/* A wait for another thread's fetch or cut. Longer than the pool's own deadlines. */
#define STORE_WAIT_MS 60000
/* An error of the store's disk is reported for this long after it was last seen. */
#define STORE_ERROR_MS 60000
/* A row without data is kept this long after its last use, so that its attributes need not be asked
 * again. */
#define ROW_IDLE_MS 60000

struct fetcher;

struct store {
    struct store_options options;
    char boot_id[40];
    int dir, lock_fd, index_dir, files_dir, cuts_dir, lost_dir;
    struct table table;
    struct index index;
    struct mark *mark;
    struct mark_values values;
    struct space space;
    struct maps maps;
    struct fetcher *fetcher;
    _Atomic uint32_t node;
    _Atomic bool closed, stopping;
    _Atomic bool unsettled; /* after a crash, until the centre was asked: nothing is flushed */
    _Atomic uint64_t forgotten_max; /* a row of an inode up to here may have been forgotten */
    _Atomic int64_t short_since, short_seen; /* clock_boot_ms: no change finds room; 0: one did */
    _Atomic uint64_t low_bytes;
    _Atomic uint64_t pool_free;
    _Atomic uint64_t flush_age_ms;

    pthread_mutex_t staged_lock; /* leaf */
    struct file
        *staged; /* those that somebody waits for, then oldest first; each holds a reference */
    _Atomic uint64_t staged_total, present_total;

    pthread_mutex_t changed_lock; /* leaf */
    struct file *changed;         /* first of a queue; each holds a reference */
    struct file **changed_end;
    void (*lost_kick)(void *ctx);
    void *lost_ctx;

    pthread_mutex_t tell_lock; /* held while the centre is asked; no other is */
    void (*tell)(void *ctx);
    void *tell_ctx;

    pthread_t upkeep;
    bool upkeep_runs;
    int64_t rows_looked_at;      /* its own */
    pthread_mutex_t upkeep_lock; /* leaf */
    pthread_cond_t upkeep_cond;
    bool upkeep_kicked;
    void (*need_flush)(void *ctx); /* eviction alone will not do; under upkeep_lock */
    void *need_flush_ctx;

    pthread_mutex_t error_lock; /* leaf; damage too */
    char damage[STORE_DAMAGE_MAX][NODE_DETAIL];
    unsigned damage_n;
    char error[NODE_DETAIL];
    int64_t error_at;

    struct hot hot;
    _Atomic uint64_t read_bytes, write_bytes, fetched_bytes, flushed_bytes;
};

/* --- small helpers (store.c) --- */
void store_say(struct store *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Remembers an error of the store's disk for the report. Returns rc. */
int store_failed(struct store *s, int rc, const char *what, uint64_t ino);
/* The pool's copy is damaged or gone: said once per read, in the log and in the next report. */
void store_damaged(struct store *s, uint64_t ino, const char *detail);
/* After a change of f, f->lock held: totals, staged list, changed lines. lost: the centre should
 * know soon. */
void store_settle(struct store *s, struct file *f, bool lost);
/* Its line of the cache table is to be told anew. */
void line_changed(struct store *s, struct file *f);
/* f is still staged after a flush that began at `since`: it finds its place in the list. f->lock is
 * held. */
void staged_again(struct store *s, struct file *f, int64_t since);
/* Waits on f->changed for at most STORE_POLL_MS; f->lock is held. */
void store_wait(struct file *f);
void store_kick_upkeep(struct store *s);
/* fn is called, from the upkeep thread, when eviction alone will not do. NULL: no more. */
void store_on_need_flush(struct store *s, void (*fn)(void *ctx), void *ctx);

/* --- capacity of a change: what [start, end) of f costs (charge.c) --- */
struct charge {
    uint64_t start, end;
    uint64_t blocks, ranges, sums;
    bool journaled;
    uint64_t taken;
};
/* The most that making [start, end) present can cost. f->lock is held. */
uint64_t charge_need(const struct file *f, uint64_t start, uint64_t end);
/* Notes how f stands; `taken` bytes were reserved with space_try. */
void charge_begin(struct charge *c, const struct file *f, uint64_t start, uint64_t end,
                  uint64_t taken);
/* Books the difference. */
void charge_end(struct store *s, struct charge *c, struct file *f);

/* --- admission (admit.c); f->lock is held --- */
/* Makes f the file that t speaks of. -EAGAIN: f is gone, look it up again. May ask the centre. */
int admit(struct store *s, struct file *f, const struct ticket *t, unsigned right);
/* Finds or makes the file and admits the ticket: *out is locked and referenced. */
int admit_lock(struct store *s, const struct ticket *t, unsigned right, struct file **out);
void admit_unlock(struct file *f);
/* A file without a ticket (warm): base attributes from the centre. */
int admit_by_map(struct store *s, struct file *f);

/* --- before bytes change (change.c); f->lock is held --- */
/* [start, end) will change: keeps frozen bytes for the cut, keeps fetches from filling it in.
 * -EAGAIN: there is no room to keep them; drop the lock, wait, try again. */
int change_begin(struct store *s, struct file *f, uint64_t start, uint64_t end);
int change_setattr(struct store *s, struct file *f, const struct setattr *set);
/* Makes [start, end) of the flat file zeros that take no blocks. */
int change_zero(int fd, uint64_t start, uint64_t end);
/* Makes absent bytes of the flat file take no blocks. */
int change_punch(struct store *s, struct file *f, uint64_t start, uint64_t end);

/* --- reading (read.c, fetch.c) --- */
/* Bytes [start, end) of the file as it is now, to out; fetches what is needed. f is referenced, not
 * locked. */
int read_bytes(struct store *s, struct file *f, uint64_t start, uint64_t end, uint8_t *out,
               char *detail);
/* Is a byte in [start, end) neither present nor known to be zero? The first such stretch. f->lock
 * is held. */
bool read_missing(const struct file *f, uint64_t start, uint64_t end, struct range *missing);
struct fetched {
    uint64_t start, end;
    struct ranges good;   /* right: not overtaken by a change */
    struct ranges stored; /* lies in the pool; the rest are holes, which are not worth keeping */
    uint8_t *data;
    size_t room;
};
/* Fetches [start, end) from the pool and keeps it as clean data if there is room. f is not locked.
 * -EAGAIN: another thread fetched some of it: look again. */
int fetch_range(struct store *s, struct file *f, uint64_t start, uint64_t end, struct fetched *out,
                char *detail);
void fetch_ahead(struct store *s, struct file *f, uint64_t start, uint64_t end);
int fetcher_start(struct store *s);
void fetcher_stop(struct store *s);
void fetched_clear(struct fetched *got);
/* Pool bytes of [start, end), zeros where the map has none or beyond limit. stored (may be NULL)
 * gets what the map has. */
int pool_bytes(struct store *s, uint64_t ino, uint64_t start, uint64_t end, uint64_t limit,
               uint8_t *out, struct ranges *stored, char *detail);

/* --- eviction (evict.c) --- */
/* Drops least recently used clean data until `used` is at most target. in_turns: it ends early when
 * a checkpoint is due. */
void evict_down_to(struct store *s, uint64_t target, bool in_turns);
/* The same for upkeep, which comes again and again: not if nothing can go. */
void evict_for_room(struct store *s, uint64_t target);
/* The clean part of [start, end) is no longer here. Journaled first: if this stops halfway, blocks
 * are left that nobody counts on. f->lock is held. */
int discard_clean(struct store *s, struct file *f, uint64_t start, uint64_t end);
/* f->lock held. *bytes: dropped. -EBUSY: in use. */
int evict_clean(struct store *s, struct file *f, uint64_t *bytes);
int drop_locked(struct store *s, struct file *f, bool deleted);
/* Staged bytes of a lost epoch get a name in lost/. The flat file stays until the caller has
 * journaled that it goes. */
int set_aside(struct store *s, struct file *f);

/* --- upkeep (upkeep.c) --- */
int upkeep_start(struct store *s);
void upkeep_stop(struct store *s);

/* --- recovery (recover.c) --- */
int recover(struct store *s, bool first, char *detail);

#endif
