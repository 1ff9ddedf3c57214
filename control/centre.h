/*
 * Private to control/: the leader's memory, and how its files call each other.
 *
 * Everything runs on the loop's thread; nothing blocks. Work that must wait (a recall, a home's
 * answer, the log) is an op: a request with a place to go on from. Reading order: centre.h,
 * session.c, live.c, op.c, then the serve_*.c files, homes.c, nodes.c, packs.c, admin.c,
 * ctl_tree.c.
 *
 * What is replicated lies in the state (state.h) and is changed only through consensus_submit. What
 * is here (leases, opens, locks, connections) dies with the leader and is reclaimed by its holders
 * in the grace period.
 *
 * Order of a mutation (op.c): names and inodes are marked busy -> other sessions' leases are
 * recalled -> the home is asked if it owns what changes -> the log -> applied -> busy marks go ->
 * reply. While something is busy no lease on it is granted, so nobody can cache what is about to
 * change.
 */
#ifndef UMBEL_CONTROL_CENTRE_H
#define UMBEL_CONTROL_CENTRE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>
#include <utlist.h>
#include <uv.h>

#include "control/consensus.h"
#include "control/control.h"
#include "control/events.h"
#include "control/locks.h"
#include "control/state.h"
#include "control/wire/address.h"
#include "control/wire/authority.h"
#include "control/wire/hub.h"
#include "control/wire/ticket.h"
#include "hv/hv.h"

/* Section 6 of the design. */
#define LEASE_MS 10000
#define RENEW_MS 3000
#define FENCE_MS 8000
/* A mount that is connected and renews, but does not answer a recall for so long, is expired. */
#define RECALL_DEADLINE_MS LEASE_MS
/* A home that does not answer within this is treated as away for this request. */
#define HOME_DEADLINE_MS 10000
/* An op that needs a node waits so long for one to come back: a restart takes a few seconds. */
#define NODE_WAIT_MS 10000
/* Commands to nodes that move data (flush, evict, warm, drain). */
#define NODE_COMMAND_DEADLINE_MS 600000
/* Requests kept waiting while the grace period lasts. */
#define GRACE_QUEUE_MAX 65536
/* Pushed to one node in one message. */
#define NODE_BATCH_MAX 4096
/* Deleted files that one node has not heard of yet. */
#define NODE_DROPS_MAX (1u << 20)
/* Holds on inodes, of all sessions together (about 500 bytes each); beyond, no new lease is
 * granted. */
#define HOLDERS_MAX (1u << 20)
/* A step of the lease clock (centre.now) is at most this: more means that this process did not run,
 * and then mounts could not renew. */
#define CLOCK_STEP_MAX_MS 1000
/* Sessions: bounded by what joins within a lease. Live inodes: by holders, and by ops in flight. */

/* An address of a node, and who is to be reached there. */
#define NODE_ADDRESS_MAX (ADDRESSES_MAX + ADDRESS_PEER_MAX)

struct centre;
struct live;
struct op;
struct gc;
struct meta;
struct scrub;
struct jobs;
struct job;
struct job_ask;
struct demand;
struct text;
struct job_place_need;

/* Bits of Ticket.rights. */
#define RIGHT_READ  1u
#define RIGHT_WRITE 2u

/* One session's hold on one inode. */
struct holder {
    struct session *session;
    struct live *live;
    Star__Lease lease;
    unsigned recalls; /* on their way: until they are answered it may still keep what it had */
    uint32_t readers, writers;      /* open handles */
    bool was_open, was_written;     /* before it reconnected: counts until its RECLAIM is done */
    struct holder *prev, *next;     /* of the inode */
    struct holder *s_prev, *s_next; /* of the session */
};

static inline bool holder_opens(const struct holder *h)
{
    return h->readers || h->writers || h->was_open;
}

static inline bool holder_writes(const struct holder *h)
{
    return h->writers || h->was_written;
}

struct busy_name {
    struct busy_name *next;
    struct op *op;
    size_t len;
    char name[];
};

/* What the leader knows of an inode beyond the state; exists while anything below is in use. */
struct live {
    uint64_t ino;
    struct holder *holders;
    unsigned busy;           /* mutations in flight on the inode */
    struct busy_name *names; /* entries of this directory that are being changed */
    struct op *waiting;      /* ops that wait for a busy name here (list by wait_next) */
    struct lock_table *locks;
    bool have_home;       /* home below is newer than the log may be */
    Star__HomeAttrs home; /* newest attributes heard from the home; times point into home_times */
    Star__Time home_times[2];
    uint64_t bytes, bytes_version, bytes_epoch; /* what the home holds, as it said last */
    bool giving_up;    /* its home is being given up: nothing more goes there */
    bool home_unknown; /* a writer vanished: ask the home before answering */
    unsigned refs;     /* ops that hold it */
    UT_hash_handle hh;
};

/* A recall that a session has not answered yet. Without an answer (the connection broke) it waits
 * until the session reclaims or ends. */
struct recall {
    struct recall *prev, *next; /* of the session */
    struct session *session;    /* NULL: settled, and only waits for the hub to let go */
    struct op *op;
    uint64_t ino;
    int64_t since_ms;
    bool sent; /* the hub has it: on_recalled will run */
};

struct session {
    uint64_t id;
    char name[64];
    char machine[40];         /* that it runs on */
    struct identity_name who; /* as its certificate says: whom its users are mapped to */
    struct peer *peer;        /* NULL: not connected */
    int64_t renewed_ms;       /* this and the next by the lease clock */
    int64_t hello_ms;
    bool reclaiming; /* in the middle of RECLAIM */
    bool reclaimed;  /* said RECLAIM done since this centre started (or is new) */
    bool doomed;     /* renewals are refused; expires when its lease has passed */
    bool gone;       /* ended; freed when the last op lets go */
    unsigned refs;   /* ops that name it */
    uint64_t seq_floor;
    uint64_t pool_read, pool_written;          /* bytes past the nodes, as it said last */
    uint32_t waiting, waiting_node, waiting_s; /* for data that it cannot reach, as it said last */
    struct holder *holders;
    struct recall *recalls;
    struct op *ops;        /* mutations in flight (list by s_next) */
    struct op *lock_waits; /* SETLKs that wait (list by s_next) */
    UT_hash_handle hh;
};

/* What a connection is: peer_data. */
struct link {
    Star__Role role;
    struct session *session;
    struct node *node;
    bool hello; /* was said: once for each connection */
};

struct node {
    uint32_t id;
    char name[64], address[256], machine[40], store[40];
    char state[16];    /* pending, starting, ready, draining, drained, gone */
    char origin[16];   /* the driver of hv that starts it, on demand; "": people start it */
    uint32_t starts;   /* if so: its start was begun so often */
    bool known;        /* the state has it */
    unsigned changing; /* changes of it that the log does not have yet */
    struct peer *peer; /* NULL: away */
    uint64_t instance;
    bool reported;         /* NODE_ATTRS done since it connected */
    int64_t seen_ms;       /* by the lease clock */
    struct ticket_key key; /* that tickets for it are signed with */
    bool lost;             /* away longer than a lease: its cached lines are gone */
    uint64_t capacity, used, staged, cached, files, pool_total, pool_free;
    uint64_t read_bytes, write_bytes, fetched_bytes, flushed_bytes;
    double load;
    uint64_t moved;    /* read and written, in the last report */
    double rate;       /* bytes per second between the last two reports */
    uint32_t promised; /* files that it was made home of since the last report */
    uint32_t readers;  /* sent there since then */
    char pool_error[128], store_error[128];
    Star__HomeAttrs *logged; /* to be told: these versions are in the log */
    size_t logged_n;
    uint64_t *drops; /* to be told: these files are no more */
    size_t drops_n, drops_size;
    size_t drops_sent;  /* of them, from the first on, in the request on its way */
    bool dropping;      /* there is one */
    uint32_t hellos;    /* counts its connections, from 1 */
    int64_t hello_ms;   /* when it connected, by the lease clock */
    bool jobs_known;    /* it has said all that it has of jobs since then */
    struct node_power { /* as it said last */
        bool jobs;
        uint32_t cores, milli_cpus, milli_busy;
        uint64_t core_speed, memory, memory_busy;
        char detail[128]; /* why it runs no jobs */
    } power;
    struct node_life { /* demand_life.c; all times by the lease clock */
        struct centre *c;
        bool asked;    /* hv was told to start it */
        bool calling;  /* an answer of hv is to come */
        bool draining; /* by us */
        bool ending;   /* what is left of it is being removed */
        bool over;     /* nothing is */
        bool full_told, released;
        int64_t since_ms; /* when its start, or its end, began */
        int64_t stop_ms;  /* of an end: it is not waited for from then on */
        int64_t next_ms;  /* nothing is done before */
        /* Since then; 0: it is not. jobless: it says why it runs no jobs. */
        int64_t idle_ms, full_ms, jobless_ms;
        uint32_t tries;       /* to have it back, as it had ended */
        char said[HV_DETAIL]; /* why its start failed */
    } life;
    UT_hash_handle hh;
};

typedef void (*op_fn)(struct op *op);
typedef void (*op_done_fn)(struct op *op, const struct state_result *r);

/* RENAME: two directories, what is moved, what is replaced. */
#define OP_LIVE_MAX 4

/* A request on its way. While answers are pending it cannot end. */
struct op {
    struct centre *c;
    struct op *prev, *next_op; /* of the centre */
    struct session *session;   /* NULL: a node's, or the centre's own; may be gone */
    struct peer *peer;         /* to answer; referenced; NULL: nobody waits */
    struct message request;    /* header only */
    ProtobufCMessage *body;    /* unpacked request, owned */
    uint64_t seq, acked;
    unsigned pending; /* answers awaited; next runs when it reaches 0 */
    int status;       /* first error among them */
    op_fn next;
    op_fn start; /* to begin again after waiting for a busy name or the grace period */
    op_done_fn done;
    bool listed;                    /* in session->ops */
    bool waits_for_lock;            /* in session->lock_waits */
    struct live *live[OP_LIVE_MAX]; /* marked busy, referenced */
    unsigned live_n;
    bool replayed;
    bool gives_up;     /* the home of live[0] */
    bool asked_twice;  /* STRAIGHT_BEGIN: the home, before and after its flush */
    bool stops_leases; /* counted in centre->lease_stops */
    bool note_errors;  /* a refusal is also a line in .umbel/errors */
    bool counted,
        counted_write; /* an open of counted_ino is counted for this op, until it is answered */
    uint64_t counted_ino;
    uint32_t node;      /* home to stamp */
    uint32_t wait_node; /* in centre->nodeless, until then by the lease clock */
    int64_t node_until_ms;
    op_fn home_next;               /* after home_take of home_ino */
    op_fn asked_next;              /* after home_ask of home_ino */
    uint64_t home_ino, home_epoch; /* what a home was asked about */
    uint64_t wait_ino;             /* of a job's file that is looked for */
    struct job_ask *ask;           /* of a spec that is handed in */
    Star__HomeAttrs home;          /* answer of a home */
    Star__Time home_times[2];
    bool reseal;          /* of a gc */
    void *data;           /* of the serve file; freed with free() */
    struct op *s_next;    /* of the session */
    struct op *wait_next; /* of live->waiting, centre->woken or centre->grace_head */
    char detail[256];
};

struct centre {
    uv_loop_t loop;
    const struct control_options *options;
    struct consensus *log;
    struct state *state;
    struct hub *hub, *hub_tcp; /* hub_tcp may be NULL */
    struct identity *identity;
    struct authority *authority;
    uint64_t instance;
    int64_t started_ms;
    int64_t now; /* the lease clock, in ms: CLOCK_BOOTTIME without the time in which this process
                    did not run (frozen, suspended). It goes on with the tick, so it may be some 100
                    ms behind */
    int64_t tick_ms;  /* CLOCK_BOOTTIME of the newest tick */
    int64_t grace_ms; /* lease clock at the beginning of the grace period */
    bool serving;     /* leads, and the grace period is over */
    bool leading;
    bool stopping;
    struct session *sessions;
    struct live *lives;
    struct node *nodes;
    struct op *grace_head, *grace_tail;
    unsigned grace_n;
    struct op *woken,
        *woken_tail; /* what they waited for has ended: they begin again before the loop sleeps */
    struct op *nodeless; /* ops that wait for a node to come back */
    struct op *all;      /* ops in flight */
    unsigned ops;
    unsigned holders;
    unsigned lease_stops; /* while > 0 no lease is granted: something changes that no op can mark */
    uint64_t *reap;       /* orphans to be reaped soon */
    size_t reap_n, reap_size;
    bool swept;               /* orphans of before the start are being reaped */
    struct ctl_check *check;  /* of the state, in a thread */
    struct op *check_waiting; /* they want one of their own after it */
    atomic_bool check_cancel;
    void (*checked)(struct centre *c); /* once, when none runs */
    struct gc *gc;                     /* the run that goes on, or NULL */
    struct op *gc_waiting;             /* they asked during a run: there is one more */
    struct gc_counts {                 /* of the newest run that did something or was asked for */
        uint64_t deleted, freed;       /* packs, bytes */
        uint64_t rewritten, records, moved; /* packs emptied; records, bytes copied */
        uint64_t todo;                      /* bytes that this round shall copy */
        uint64_t failed;                    /* records that could not be read */
        uint64_t old, old_allocated; /* packs of older keys after a run that reseals: those in use,
                                        and those that may come into use */
    } gc_counts;
    uint64_t *gc_bad; /* packs that have such: they are not tried again by themselves */
    size_t gc_bad_n;
    uint64_t gc_stuck, gc_first_stuck; /* packs that the newest run could not delete */
    int64_t gc_ms;
    struct hot_entry *hot; /* files that nodes report as read much */
    int64_t hot_ms;
    struct scrub *scrub;  /* the run that goes on, or the last one, or NULL */
    struct op *key_ops;   /* they wait for wrapped keys to be in the pool (list by wait_next) */
    struct op *rotations; /* they wait until the pool lacks nothing (list by wait_next) */
    bool keys_sent;       /* a node is putting them there */
    int64_t keys_ms;      /* when to try again */
    char keys_error[128]; /* why it failed; "": it did not */
    struct meta *meta;    /* the copy of the state that is on its way to the pool, or NULL */
    int64_t meta_next;
    uint64_t meta_count; /* commands applied when the newest was done; 0: none since the start */
    void (*meta_stopped)(struct centre *c);
    struct jobs *jobs;     /* NULL: not leading yet */
    struct demand *demand; /* NULL: not leading yet, or no nodes are started here */
    struct events events, errors;
    uint64_t ended_pool_read, ended_pool_written; /* of sessions that have ended */
    uint64_t requests, mutations, recalls_sent, refused;
    uv_timer_t tick;
    uv_prepare_t prepare;
    uv_idle_t more; /* the loop does not sleep, as a turn has left work: centre_goes_on() */
    uv_signal_t sigterm, sigint, sigusr1;
    int result;
};

/* --- session.c --- */
void session_hello(struct centre *c, struct peer *p, const struct message *m, Star__Hello *hello);
void session_renew(struct centre *c, struct session *s, struct peer *p, const struct message *m,
                   Star__Renew *renew);
void session_reclaim(struct centre *c, struct session *s, struct peer *p, const struct message *m,
                     Star__Reclaim *r);
void session_bye(struct centre *c, struct session *s, struct peer *p, const struct message *m);
void session_disconnected(struct centre *c, struct session *s);
int sessions_load(
    struct centre *c); /* on becoming leader: all sessions of the state, not reclaimed yet */
void sessions_tick(struct centre *c, int64_t now);
void grace_check(struct centre *c);
/* It will not be renewed any more, and ends when its lease has passed. why: printf rules. */
void session_doom(struct centre *c, struct session *s, const char *why, ...)
    __attribute__((format(printf, 3, 4)));
void session_free_all(struct centre *c);

/* --- live.c: live inodes, leases, recall --- */
struct live *live_find(struct centre *c, uint64_t ino);
struct live *live_get(struct centre *c, uint64_t ino); /* made if needed; NULL: no memory */
void live_drop_if_idle(struct centre *c, struct live *l);
struct holder *holder_find(const struct live *l, const struct session *s);
struct holder *holder_get(struct centre *c, struct live *l, struct session *s);
void holder_drop_if_idle(struct centre *c, struct holder *h);
void holder_free(struct centre *c, struct holder *h);
bool live_open_anywhere(const struct live *l);
bool live_written_by_other(const struct live *l, const struct session *s);
bool live_written(const struct live *l);
void lives_free_all(struct centre *c);
/* What s may be granted on ino now, and the grant. NONE while busy. */
Star__Lease lease_grant(struct centre *c, struct session *s, uint64_t ino);
/* On a name in dir, or (len 0) on the listing. */
bool entry_lease_grant(struct centre *c, struct session *s, uint64_t dir, const void *name,
                       size_t len);
/* Recalls of op's other sessions; each adds one to op->pending until it is answered. op->status
 * tells what could not be sent. Whoever has not answered an earlier recall is recalled again, as it
 * may still keep what it had. */
void recall_attr(struct op *op, uint64_t ino);  /* attributes; they keep their lease otherwise */
void recall_all(struct op *op, uint64_t ino);   /* attributes and pages; nothing is kept */
void recall_write(struct op *op, uint64_t ino); /* the same from who may write without telling */
void recall_pages(struct op *op, uint64_t ino, uint64_t offset, uint64_t length);
void recall_name(struct op *op, uint64_t dir, const ProtobufCBinaryData *name);
void recalls_settle(struct session *s); /* the session has dropped everything: all are answered */
void recalls_tick(struct centre *c, struct session *s, int64_t now);
void recalls_free(struct session *s); /* at the end of the process: nobody waits */

/* --- op.c --- */
struct op *op_new(struct centre *c, struct session *s, struct peer *p, const struct message *m,
                  ProtobufCMessage *body);
void op_wait(struct op *op,
             op_fn next); /* next runs now if nothing is pending, else when the last answer came */
void op_answered(struct op *op, int status); /* one pending answer came */
void op_error(struct op *op, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* What the state refused, with its reason if it gave one. */
void op_refuse(struct op *op, const struct state_result *r);
/* The open that was counted for it stays counted if the answer is a success that the mount can
 * hear, and only then. */
void op_reply(struct op *op, int status, const ProtobufCMessage *body);
void op_end(struct op *op);         /* frees; unmarks */
void ops_end_all(struct centre *c); /* at the end of the process */
/* Takes all marks back (op_end does so too): before leases are granted in the answer. */
void op_unmark(struct op *op);
void op_busy_inode(struct op *op, uint64_t ino);
struct entry_ref {
    uint64_t dir;
    const ProtobufCBinaryData *name;
};
/* Marks the names, all or none; false: somebody else changes one of them, and the op begins again
 * when that has ended. */
bool op_busy_names(struct op *op, const struct entry_ref *names, size_t n);
void ops_wake(struct centre *c); /* starts those whose waiting has ended */
/* Submits the op's body (or another one) as a log entry; done gets the result. Errors end the op.
 */
void op_submit(struct op *op, uint32_t type, const ProtobufCMessage *body, bool new_ino,
               op_done_fn done);
/* The same for an entry that is only a step towards it: not keyed by the op's seq. */
void op_submit_own(struct op *op, uint32_t type, const ProtobufCMessage *body, op_done_fn done);
void op_park(struct op *op); /* until the grace period is over */
void ops_unpark(struct centre *c);
/* A mutation whose head has seq: answers from the dedupe window or joins the one in flight. true:
 * taken care of. */
bool op_deduped(struct op *op, const Star__Head *head, op_done_fn done);
/* Entry without an op: the centre's own housekeeping. */
int centre_submit(struct centre *c, uint32_t type, const ProtobufCMessage *body,
                  enum consensus_when when, consensus_fn fn, void *arg);

/* --- control.c --- */
void centre_goes_on(struct centre *c, bool more); /* at the end of a turn */

/* --- serve.c --- */
void centre_request(void *ctx, struct peer *p, const struct message *m);

/* --- rights.c: of mounts whose users are mapped --- */
bool rights_are_checked(const struct session *s);
void rights_map(struct op *op); /* who asks, once, before all else */
/* Has what asks the right to it? false: the op is answered. For requests that change something:
 * behind op_deduped, as what was done once has its result. */
bool rights_allow(struct op *op);

/* --- serve_names.c, serve_inode.c, serve_open.c, serve_lock.c --- */
void serve_lookup(struct op *op);
void serve_make(struct op *op);
void serve_link(struct op *op);
void serve_remove(struct op *op);
void serve_rename(struct op *op);
void serve_readdir(struct op *op);
void serve_getattr(struct op *op);
void serve_setattr(struct op *op);
void serve_readlink(struct op *op);
void serve_xattr_get(struct op *op);
void serve_xattr_list(struct op *op);
void serve_xattr_change(struct op *op);
void serve_statfs(struct op *op);
void serve_open(struct op *op);
void serve_release(struct op *op);
void serve_locate(struct op *op);
void serve_sync_attrs(struct op *op);
void serve_invalidate(struct op *op);
void serve_setlk(struct op *op);
void serve_getlk(struct op *op);
void serve_cancel_lock(struct op *op);
void locks_session_gone(struct centre *c, struct session *s);
void lock_release_owner(struct centre *c, struct session *s, uint64_t ino, uint64_t owner);
int lock_take(struct centre *c, uint64_t ino, const struct lock_spec *spec); /* as lock_set */
/* After an inode lost a link or a handle: if it is an orphan that nobody has open, it is reaped at
 * the next tick, or when REAP_BATCH_MIN wait. At once, each unlink would have two entries in the
 * log, and the next one would wait for the second. */
#define REAP_BATCH_MIN 256
void reap_if_unused(struct centre *c, uint64_t ino);
void reap_submit(struct centre *c);

/* Attributes and lease for an answer; attr and times must live as long as the message. */
void answer_attr(struct op *op, const struct inode *i, Star__Attr *attr, Star__Time times[3],
                 Star__Lease *lease);
/* Fills an OpenReply's ticket and address. */
struct open_answer {
    Star__OpenReply reply;
    char address[NODE_ADDRESS_MAX];
    Star__Ticket ticket;
    Star__Time mtime;
    uint8_t mac[TICKET_MAC_SIZE];
};
void answer_open(struct op *op, const struct inode *i, uint32_t flags, struct open_answer *a);
int open_count(struct op *op, uint64_t ino, uint32_t flags); /* once for each op */
void open_uncount(struct op *op);
bool flags_write(uint32_t flags);

/* --- homes.c: homes and the attributes that they own --- */
/* The attributes of an inode as of now for this session: asks the home if need be, then calls next
 * (attr_now has what it said). A home that is away is waited for, as the log may be behind what it
 * has acknowledged; after NODE_WAIT_MS the log's answer is taken. Nothing may be pending.
 * op->status < 0: it could not be asked for want of memory. */
void home_ask(struct op *op, uint64_t ino, op_fn next);
bool home_must_be_asked(struct centre *c, const struct session *s, const struct inode *i);
int home_heard(struct centre *c, const Star__HomeAttrs *a); /* -ENOMEM: not remembered */
/* The log has what was heard of ino's home, or it never will. */
void home_caught_up(struct centre *c, uint64_t ino);
/* Somebody had it open for writing and cannot be asked any more: the home may be ahead of the log.
 */
void home_writer_lost(struct centre *c, struct live *l);
void attr_now(struct centre *c, const struct inode *i, Star__Attr *attr, Star__Time times[3]);
struct node *home_choose(struct centre *c, const struct session *s);
struct home_change {
    bool set_size;
    uint64_t size;
    const Star__Time *mtime; /* NULL: not set */
};
/* Changes i at its home; next finds what it says in op->home, or op->status < 0. again: begins anew
 * when the home, which was away, is back. Without a home next finds no word of one. */
void home_setattr(struct op *op, const struct inode *i, const struct home_change *change,
                  op_fn again, op_fn next);
/* Makes sure that ino has a home which keeps it, or none if no node takes data. */
void home_take(struct op *op, uint64_t ino, op_fn next);
/* Nodes that hold copies of ino, and the node `too`, forget them; each adds one to op->pending. */
void home_drop_copies(struct op *op, uint64_t ino, uint32_t too);
/* false: one may come, which is waited for; then again is called. *home NULL: no node takes data,
 * and none is to be expected: the file is written straight to the pool. */
bool home_for_new(struct op *op, op_fn again, struct node **home);
/* There are nodes that take data, but none has room. */
bool homes_are_full(struct centre *c);
/* op waits until node (0: any that takes data) is here; then again, also when NODE_WAIT_MS have
 * passed. false: they have passed already. */
bool node_awaited(struct op *op, uint32_t node, op_fn again);
void homes_tick(struct centre *c);
void fill_ticket(struct centre *c, const struct inode *i, uint32_t rights, Star__Ticket *t,
                 Star__Time *mtime);
void home_attrs_copy(Star__HomeAttrs *to, Star__Time times[2], const Star__HomeAttrs *from);
void serve_node_attrs(struct op *op);
void home_log_attrs(struct centre *c, const Star__HomeAttrs *a); /* into the log, nobody waits */

/* On a file or directory: files that are new there are written straight to the pool. */
#define STRAIGHT_XATTR "umbel.direct"
/* --- straight.c: mounts that read and write the pool themselves --- */
/* The pool has the newest of i, nobody else has it, and no node is on the mount's machine: only
 * under a lease, as nobody asks about the file then. */
bool straight_asked(struct centre *c, const struct inode *i);
bool straight_newest(struct centre *c, const struct inode *i); /* the pool has it */
bool straight_reads(struct centre *c, const struct session *s, const struct inode *i);
/* A file without a home: no other mount may have written what is not confirmed. */
bool straight_settled(struct centre *c, const struct session *s, const struct inode *i);
void serve_damage(struct op *op);
void serve_straight_begin(struct op *op);
void serve_straight_packs(struct op *op);

/* --- keys.c: of sealed clouds --- */
/* For a request for packs: under which key they will be. -ENOKEY */
int keys_stamp(struct centre *c, uint32_t *generation);
/* Answers a request for packs that was applied, with their keys. Ends the op. */
void keys_reply_packs(struct op *op, const struct state_result *r);
/* The record's key and its generation into extents[0..n); *room is to be freed with keys_free(). A
 * record that lies in an unsealed pack gets none. */
int keys_of_extents(struct centre *c, Star__Extent *extents, size_t n, uint8_t **room);
void keys_free(uint8_t *room, size_t n);
/* Fills body->keys: of the packs that its records lie in. */
int keys_of_moves(struct centre *c, Star__MoveRecords *body);
void keys_moves_free(Star__MoveRecords *body);
/* Key of the record with that number in the pack; *generation 0: unsealed. */
int keys_of_record(struct centre *c, uint64_t pack, uint32_t number, uint32_t *generation,
                   uint8_t key[CONTROL_KEY]);
/* --- keys_change.c --- */
/* "rotate" or "replace LOCK": answered when the pool has the wrapped keys. */
void keys_command(struct op *op, char *command);
void keys_tick(struct centre *c, int64_t now);

void serve_straight_confirm(struct op *op);
/* The newest of i may be known to a mount alone, which writes it into the pool. */
bool straight_must_be_asked(struct centre *c, const struct session *s, const struct inode *i);

/* --- nodes.c --- */
struct node *node_find(struct centre *c, uint32_t id);
struct node *node_of_peer(struct centre *c, struct peer *p);
bool node_usable(const struct node *n);
/* Work waiting per core, with what was sent there since it was reported. */
double node_load(const struct node *n);
bool node_is_local(const struct node *n, const struct session *s);
/* Not drained, released or forgotten: what it is home of stays there, also while it is away. */
bool node_keeps_homes(const struct node *n);
/* The leader acts by it at once; the log follows. */
int node_set_state(struct centre *c, struct node *n, const char *state);
/* n as an entry for the log, with another state; it points into n. */
void node_entry(const struct node *n, const char *state, Star__LogNode *entry);
int nodes_load(struct centre *c);
void node_hello(struct centre *c, struct peer *p, const struct message *m, Star__Hello *hello);
void node_disconnected(struct centre *c, struct node *n);
void nodes_tick(struct centre *c, int64_t now);
void serve_node_report(struct op *op);
void serve_map(struct op *op);
void serve_homed(struct op *op);
void serve_node_log(struct op *op); /* ALLOC_PACKS, CONFIRM, DISCARD_PACK, COPIES, DELETED_PACKS */
/* These files are no more: n is told until it has answered. */
void node_drop(struct node *n, const uint64_t *inos, size_t count);
/* The log knows the attributes of i's home: it is told so at the next tick. */
void node_note_logged(struct centre *c, const struct inode *i);
void node_free_all(struct centre *c);
void hello_settings(struct centre *c, Star__HelloReply *r);
uint64_t setting_u64(struct centre *c, const char *name);
bool pool_quota_reached(struct centre *c);
void gc_tick(struct centre *c, int64_t now);
/* Answered when all that was garbage at the call is deleted, and sparse packs are rewritten; with
 * reseal those too that were sealed under older keys. */
void gc_start(struct op *op, bool reseal);
struct node *gc_node(struct centre *c); /* one that can use the pool, best */
void gc_free(struct centre *c);         /* at the end of the process */
/* What the run that goes on has done, or the one before if there is nothing to tell yet. */
const struct gc_counts *gc_show(const struct centre *c);

/* --- hot.c: files that many read are cached by more nodes --- */
void hot_files_note(struct centre *c, const Star__NodeReport *report);
void hot_files_tick(struct centre *c, int64_t now);
void hot_files_free(struct centre *c);

/* --- scrub.c --- */
/* "", "nodes", "pool" or "stop": answers the op when the run has begun. */
void scrub_start(struct op *op, const char *what);
void scrub_node_start(struct op *op, struct node *n); /* its copies only */
void scrub_tick(struct centre *c, int64_t now);
char *scrub_text(struct centre *c, size_t *len); /* to be freed; NULL: no memory */
void scrub_free(struct centre *c);               /* at the end of the process */

/* --- meta.c: copies of the state in the pool --- */
/* Makes one, if anything was logged since the last; op has one answer more pending until then. */
void meta_after(struct op *op);
/* Makes one now; done is called when it is in the pool, or failed. -EBUSY: one is being made. */
int meta_now(struct centre *c, void (*done)(void *arg, int status), void *arg);
void meta_tick(struct centre *c, int64_t now);
void meta_stop(struct centre *c, void (*done)(struct centre *c)); /* done: none is being made */
void meta_free(struct centre *c);
void serve_meta_fetch(struct op *op);

/* --- join.c: who comes from another machine --- */
int identities_load(struct centre *c, char detail[256]);
/* "node|mount NAME [SECONDS] [SQUASH]": makes a token and answers the op with it. */
void join_token(struct op *op, char *rest);
/* "node/NAME" or "mount/NAME": answers the op. */
void join_revoke(struct op *op, const char *identity);
/* Whatever is asked by who has no certificate: JOIN, or it is refused. */
void join_request(struct centre *c, struct peer *p, const struct message *m);
/* Whether who says HELLO is who its certificate says. false: it was answered. */
bool identity_fits(struct centre *c, struct peer *p, const struct message *m,
                   const Star__Hello *hello);
/* The address at which the session's mount can reach n, in out; "" if there is none. */
char *node_reached_by(const struct session *s, const struct node *n, char out[NODE_ADDRESS_MAX]);

/* --- jobs*.c (jobs.h) --- */
int jobs_load(struct centre *c);  /* on becoming leader */
void jobs_turn(struct centre *c); /* before the loop sleeps: places, and writes what has changed */
void jobs_tick(struct centre *c, int64_t now);
void jobs_free_all(struct centre *c);
void jobs_node_power(struct centre *c, struct node *n, const Star__NodePower *p);
void jobs_node_changed(struct centre *c, struct node *n); /* it came, went, or is to leave */
void serve_job_report(struct op *op);
/* An ended one goes, with its files; the op is answered when it is gone. Fails: it is not. -EBUSY:
 * it has not ended, or others wait for it. */
int jobs_forget(struct op *op, uint64_t id);
void jobs_ask_end(struct op *op); /* op->ask goes */

/* --- demand*.c (demand.h): nodes that are started when jobs need them --- */
int demand_load(struct centre *c); /* on becoming leader, after jobs_load() */
void demand_tick(struct centre *c, int64_t now);
void demand_hold(struct centre *c); /* the cloud is about to be stopped: nothing is started */
void demand_stop(struct centre *c); /* the loop must run on to close what it had */
/* As job_queue_could(), over those nodes too that could be started. why: JOB_PLACE_WHY bytes. */
int demand_could(struct centre *c, const struct job_place_need *need, uint32_t copies, char *why);
/* As job_queue_hopeless(), where no node may come either that could take them. */
size_t demand_hopeless(struct centre *c, uint64_t *job, char *why);
/* Jobs that wait for what no node will have are ended, some in each turn. true: some are left. */
bool demand_turn(struct centre *c);
void demand_skip(struct centre *c, const struct job *job); /* it goes */
/* For what a job waits for, behind why it does: "; node-d4 is starting", or "". */
void demand_why(struct centre *c, char *why, size_t size);
bool node_is_coming(const struct node *n); /* it was never ready yet */
bool demand_owns_name(const char *name);   /* no other node may be called so */
void text_demand(struct centre *c, struct text *t);
void text_demand_health(struct centre *c, struct text *t, unsigned *problems);

/* --- admin.c, ctl_tree.c --- */
/* command is NUL-terminated; answers the op. */
void admin_command(struct op *op, char *command);
void admin_node_command(struct op *op, struct node *n, char *command);
/* All data of it into the pool, and nothing new to it; release: then it leaves for good. Answers
 * the op. */
void node_drain(struct op *op, struct node *n, bool release);

/* --- leave.c: nodes that leave for good --- */
/* Files that only n has the newest of, as far as the log, the cache table and mounts know. */
struct losses {
    uint64_t *ino;
    uint64_t *bytes; /* staged there */
    size_t n, size;
};
int losses_find(struct centre *c, const struct node *n, struct losses *l);
void losses_free(struct losses *l);
void node_forget(struct op *op, struct node *n);
/* n is drained: it is let go. Answers the op. */
void node_let_go(struct op *op, struct node *n);

void serve_ctl_lookup(struct op *op);
void serve_ctl_readdir(struct op *op);
void serve_ctl_read(struct op *op);
void serve_ctl_write(struct op *op);
void serve_ctl_rmdir(struct op *op);
bool ctl_is_ino(uint64_t ino);
#define CTL_COMMAND_MAX 65536u
size_t ctl_text_max(uint64_t ino); /* bytes that may be written into it at once */
/* Ends the check of the state that may be running; then done. */
void ctl_check_stop(struct centre *c, void (*done)(struct centre *c));
int ctl_attr(struct centre *c, uint64_t ino, Star__Attr *attr, Star__Time times[3]);

#endif
