/* The link's insides. Private to centre_link.c (HELLO, life), link_calls.c, link_report.c,
 * pushes.c, job_push.c and scrub_push.c. */
#ifndef UMBEL_NODE_LINK_PRIVATE_H
#define UMBEL_NODE_LINK_PRIVATE_H

#include "control/wire/client.h"
#include "control/wire/ticket.h"
#include "nodecache/centre_link.h"
#include "nodecache/deadline.h"

#define LINK_WORKERS 4

/* A push of the centre: a copy of its frame. */
struct push {
    struct push *prev, *next;
    struct link *link;
    struct message m; /* body is body[] */
    uint8_t body[];
};

struct worker {
    struct link *link;
    pthread_t thread;
    struct push *queue;
    pthread_cond_t work; /* its own: a push wakes one thread, not all */
};

struct pool_state {
    uint64_t total, free;
    char error[POOL_DETAIL];
};

/* A key of tickets, and how its centre's clock stands to ours: it said `clock_ms` at our `at_ms`.
 */
struct link_key {
    struct ticket_key key;
    int64_t clock_ms, at_ms;
};

struct link {
    struct link_options options;
    struct link_key keys[2]; /* newest first; under lock */
    /* Read-locked around each use of the client, none of which waits; link_stop takes it for
     * writing to know that nobody is inside. */
    pthread_rwlock_t client_lock;
    struct client *client;
    bool client_stops;
    struct store *store;
    struct flush *flush;
    struct pool *pool;
    struct jobs *jobs;
    uint64_t instance; /* of this process */
    int failed;        /* what was said last of why there is no connection; the client's thread */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* everything below */
    bool stop, ready, hello;
    int refused; /* why the last HELLO was: -errno */
    char detail[NODE_DETAIL];
    char cloud[64];
    uint64_t connects;
    uint64_t centre_instance;
    bool centre_new;          /* another process: it may not have heard all */
    bool lines_gone;          /* so it says: it has forgotten all lines of ours */
    _Atomic int64_t heard_ms; /* clock_boot_ms when we said what it has answered last */
    _Atomic int64_t fence_ms;
    enum link_end end;
    pthread_t pool_thread;
    bool looks_at_pool;
    struct pool_state pool_state; /* as seen last */
    bool lines_lost;              /* send changed lines now */
    pthread_mutex_t fresh_lock;   /* until the centre knows that this is a new process */
    bool fresh_told;
    pthread_mutex_t lines_lock; /* one sends lines at a time: an older one never overtakes */
    struct copy_line *lines;    /* a batch on its way, or that has failed; under lines_lock */
    size_t lines_n;
    struct worker workers[LINK_WORKERS];
    unsigned running;
    unsigned queued, long_running;
    pthread_t reporter;
    bool reports;
};

/* A request, waiting for its answer: as client_call_wait, but safe while the link stops. flags:
 * CLIENT_RESEND. */
int link_call(struct link *l, uint16_t type, const ProtobufCMessage *body, unsigned flags,
              const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **reply);
/* The same with CLIENT_RESEND: for what may be done twice. */
int link_ask(struct link *l, uint16_t type, const ProtobufCMessage *body,
             const ProtobufCMessageDescriptor *reply_type, ProtobufCMessage **reply);
void link_answer(struct link *l, const struct message *m, int status, const ProtobufCMessage *body);

/* The centre has answered what was said at `said`. */
void link_heard(struct link *l, int64_t said);
/* said: when we asked, so that the centre's clock is rather taken to be ahead. */
void link_take_clock(struct link *l, uint64_t clock_ms, int64_t said);

/* link_report.c */
int reports_start(struct link *l); /* -errno: of a thread; reports_stop() all the same */
void reports_stop(struct link *l); /* after the client has stopped */

/* The changed lines of the cache table; 0: the centre has committed them all. */
int link_send_lines(struct link *l);

/* This node has left or was given up: the process ends. */
void link_ends(struct link *l, enum link_end how);

/* pushes.c */
void link_on_push(void *ctx, struct client *c, const struct message *m);
int pushes_start(struct link *l);
void pushes_stop(struct link *l); /* after the client has stopped */
void push_answer(struct push *p, int status, const ProtobufCMessage *body);
void push_refuse(struct push *p, int status, const char *detail);
bool link_stops(void *link); /* for long work */

/* job_push.c */
void push_job_start(struct push *p, const Star__JobStart *m);
void push_job_signal(struct push *p, const Star__JobSignal *m);

/* scrub_push.c */
void push_scrub(struct push *p, const Star__Scrub *m);
void push_scrub_packs(struct push *p, const Star__ScrubPacks *m);
void push_heal(struct push *p, const Star__HealRecords *m);

/* message.c: between protobuf and the store's types */
struct wire_attrs {
    Star__HomeAttrs attrs;
    Star__Time mtime, ctime;
};
void put_attrs(struct wire_attrs *out, const struct attrs *in, uint32_t node);
struct timespec get_time(const Star__Time *t);              /* NULL: now */
int get_ticket(const Star__Ticket *in, struct ticket *out); /* -EINVAL */

#endif
