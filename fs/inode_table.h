/*
 * What the mount knows of inodes that its kernel knows, has open, or is being asked about.
 *
 * inode_lock() finds an inode and holds its shard; inode_unlock() lets go and frees it when nothing
 * refers to it any more. Everything in struct inode belongs to that lock. One shard at a time;
 * under it only leaf locks (the seq tracker's, the list of leases to be returned) and short system
 * calls (a reply to the kernel) are taken.
 */
#ifndef UMBEL_FS_INODE_TABLE_H
#define UMBEL_FS_INODE_TABLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#include <uthash.h>

#include "control/wire/ticket.h"
#include "fs/lock_list.h"
#include "fs/pool_map.h"
#include "fs/read_ahead.h"
#include "fs/straight_watch.h"
#include "star.pb-c.h"

#define INODE_SHARDS 64

#define CONTROL_INODE (1ull << 63)

/* Names that are remembered as gone, per directory: files that are replaced through a second name
 * (lock files, editors) come and go by a few names. */
#define GONE_NAMES 4

/* A name in a directory of which all names are known. */
struct known_name {
    UT_hash_handle hh;
    char name[];
};

/* Attributes as the centre said them. */
struct attr {
    struct stat st;
    uint64_t version, change;
};

/* What a home said about a file's data. */
struct home_attrs {
    uint64_t size, version, home_epoch, bytes;
    struct timespec mtime, ctime;
    uint32_t node;
};

struct ticket {
    uint64_t home_epoch, size, version;
    struct timespec mtime;
    uint32_t rights, node;
    bool mapped;
    uint64_t session, expires, generation;
    uint8_t mac[TICKET_MAC_SIZE];
    size_t mac_len;
    int64_t until_ms; /* clock_boot_ms: then a new one is asked for */
};

/* An open file. The descriptor that the kernel shows us (fh) says everything that a new worker
 * would need. */
struct handle {
    struct handle *next;
    uint64_t fh;
    unsigned errors_seen; /* of inode.errors */
};

/* One who waits until no INVALIDATE of this inode is on its way. */
struct inode_waiter {
    struct inode_waiter *next;
    void (*fn)(void *arg);
    void *arg;
};

struct kreq;
struct straight_file;

struct inode {
    uint64_t ino;
    UT_hash_handle hh;
    uint64_t nlookup; /* references of the kernel */
    unsigned born;    /* returns_begun when it was made */
    unsigned pins;    /* work in flight that needs it to stay */

    Star__Lease lease;
    unsigned recalls; /* recalls whose kernel notifies have not returned */
    unsigned
        write_recalls; /* of those, the ones that took LEASE_WRITE: writes still count as leased */
    /* Directory. */
    bool listing_stale;         /* pages of the listing may be older than the lease */
    int64_t recalled_ms;        /* the newest recall of pages or listing */
    bool names_kept;            /* entry timeouts were given */
    int64_t listed_ms;          /* newest part of a listing */
    int64_t contended_until_ms; /* no entry timeouts until then: see recall.c */
    bool attr_leased;           /* attr came under the lease: see dir_memory.h */
    unsigned changing;          /* changes of it by this mount on their way */
    char *gone[GONE_NAMES];
    unsigned gone_next;
    bool complete; /* it was made here: names holds every name that it may have */
    struct known_name *names;

    bool attr_known; /* attr is as of now, but for what home says */
    struct attr attr;
    bool home_known;
    struct home_attrs home;
    uint64_t logged_version; /* newest data version that we know to be in the log */

    bool located; /* ticket and address can be used, or direct */
    bool direct;  /* it is read from the pool, under the lease */
    struct pool_map *map;
    unsigned map_round; /* grows whenever a map that was asked for earlier must not be kept */
    struct read_ahead ahead;
    struct straight_watch watch;
    struct straight_file *straight; /* it is written straight to the pool */
    int straight_error;             /* why some of that is lost: handles that have not heard it */
    unsigned data_changes;          /* WRITEs and the like, not answered yet */
    struct ticket ticket;
    char *address; /* NULL: nowhere */
    uint32_t node; /* at that address */
    bool copy;     /* it caches the file: another node can serve it too */

    uint32_t readers, writers, cached; /* open handles; cached: of those, with kernel caching */
    uint64_t pages_left, pages_taken; /* handles with kernel caching that were closed; of those, the
                                       * ones whose pages were taken from the kernel since */
    struct handle *handles;
    uint64_t unsynced; /* instance of the node that has writes without fsync; 0: none */
    uint64_t write_count;
    unsigned errors;      /* grows when such writes may be lost */
    unsigned invalidates; /* on their way without anybody in the kernel waiting */
    struct inode_waiter *waiters;
    struct kreq *pending; /* READs and pages written back that are not answered: pending.c */
    bool no_capability;   /* under a lease: security.capability is not there */
    bool no_privileges;   /* under a lease: no suid, sgid or capability to be killed by a write */
    unsigned unlocking;   /* handles with a flock whose RELEASE has not been sent yet */
    bool had_locks;       /* POSIX locks were taken: closing asks the centre */
    struct held_lock *locks;
};

struct inode_shard {
    pthread_mutex_t lock;
    struct inode *inodes;
};

struct inode_table {
    struct inode_shard shards[INODE_SHARDS];
    atomic_uint returns_begun, returns_done; /* batches of RETURN_LEASES: about to be sent, sent */
    /* An inode with a lease is forgotten. Called with its shard locked. */
    void (*returned)(void *ctx, uint64_t ino);
    void *ctx;
};

void inode_table_init(struct inode_table *t, void (*returned)(void *ctx, uint64_t ino), void *ctx);
void inode_table_destroy(struct inode_table *t);

struct inode *inode_lock(struct inode_table *t,
                         uint64_t ino); /* NULL: not known; nothing is locked */
struct inode *inode_lock_make(struct inode_table *t, uint64_t ino); /* NULL: no memory */
void inode_unlock(struct inode_table *t, struct inode *i);

/* Calls fn for every inode, its shard locked. */
void inode_table_each(struct inode_table *t, void (*fn)(void *arg, struct inode *i), void *arg);

/* Takes over what the centre or the home says, if it is news. */
void inode_note_attr(struct inode *i, const Star__Attr *a);
void inode_note_home(struct inode *i, const Star__HomeAttrs *a);
int inode_note_place(struct inode *i, const Star__OpenReply *r);

/* a, with what we know from the home if that is newer. */
void inode_merge(const struct inode *i, struct attr *a);
void attr_from_star(struct attr *to, const Star__Attr *a);

/* Where it lies in the pool is not known any more. */
void inode_forget_map(struct inode *i);
/* What dir_memory.h keeps. */
void inode_forget_names(struct inode *i);

struct handle *inode_handle(struct inode *i, uint64_t fh); /* NULL: not known */
int inode_handle_add(struct inode *i, uint64_t fh);
void inode_handle_remove(struct inode *i, uint64_t fh);

#endif
