/*
 * The node's connection to the centre: HELLO, reports, what the log should know, and the centre's
 * pushes.
 *
 * Threads. The client's own one only says HELLO and queues pushes. Some workers do the quick pushes
 * (attributes, drops: they may wait for one file's lock; the centre waits for an answer before it
 * sends what depends on it); each long one (flush, evict, warm, drain, deleting packs) gets a
 * thread of its own, at most LINK_LONG_MAX at once. One more thread reports each second, sends
 * changed lines of the cache table, and after each connect the attributes that the log may not
 * have. Looking for the pool has a thread of its own, as a pool that hangs must cost no report: the
 * node would be taken for lost.
 *
 * Locks: link->fresh_lock, held during the first call for packs; link->lines_lock, held while
 * changed lines are sent; link->lock, a leaf.
 */
#ifndef UMBEL_NODE_CENTRE_LINK_H
#define UMBEL_NODE_CENTRE_LINK_H

#include "nodecache/flush.h"
#include "nodecache/jobs.h"
#include "nodecache/store.h"

#define LINK_CALL_MS   30000
#define LINK_HELLO_MS  10000
#define LINK_REPORT_MS 1000
/* Changed lines are gathered for so long. */
#define LINK_COPIES_MS 200
/* With 40 bytes each, far below a frame. */
#define LINK_COPIES_MAX 4096
#define LINK_ATTRS_MAX  2048
#define LINK_LONG_MAX   16
/* Pushes that wait for a worker; beyond: -EBUSY. */
#define LINK_QUEUE_MAX 1024
/* A flush, eviction or drain that takes longer is answered -ETIMEDOUT and goes on. */
#define LINK_FLUSH_MS (10 * 60 * 1000)

/* Until the centre says otherwise: after so long without it this node serves no data, as the centre
 * may give away, a lease after it has heard the node last, what the node has (section 6). */
#define LINK_FENCE_MS 8000
/* Heard within so long, it is asked before clean data goes: some reports' time. */
#define LINK_HEARD_MS 3000

struct link;

enum link_end {
    LINK_GOES_ON,
    LINK_LEAVES,   /* released: nothing is here that anybody needs */
    LINK_GIVEN_UP, /* the centre has forgotten this node, and takes it never again */
};

struct link_options {
    const char *centre, *name, *cloud, *address;
    const struct identity *identity; /* NULL: the centre is on this machine */
    const char *machine;             /* clock_machine() */
    int end_fd; /* eventfd: written when link_end() is no longer LINK_GOES_ON */
    uint64_t capacity;
};

/* The link, not connected yet, and the centre's calls over it: each waits for the connection until
 * its deadline. */
int link_new(const struct link_options *options, struct link **out);
const struct centre_calls *link_calls(void); /* their ctx is the link */
/* Connects in the background, again and again. jobs: NULL only in tests. */
int link_connect(struct link *l, struct store *s, struct flush *fl, struct pool *pool,
                 struct jobs *jobs);
/* For jobs_options: sends a report of runs. ctx is the link. */
int link_report_runs(void *ctx, const Star__JobReport *m, Star__JobReportReply **out);
/* The first HELLO was answered: 0. -ETIMEDOUT: not within ms. Otherwise why the centre refuses;
 * detail. */
int link_wait(struct link *l, int ms, char detail[NODE_DETAIL]);
/* Tells the centre that this is a new process: packs of an earlier one that were not confirmed are
 * garbage from here on, and what MAP says of its cuts is final. Once told, it does nothing. */
int link_fresh(struct link *l);
/* Sends the attributes that the log may not have; on success it has them. */
int link_report_attrs(struct link *l);
/* The store is in order: reports begin and pushes are taken (until now they queue). */
int link_ready(struct link *l);
const char *link_cloud(struct link *l);
/* The centre was not heard for too long: what this node does now may never count. Any thread. */
bool link_fenced(struct link *l);
enum link_end link_end(struct link *l);
/* 0: it is the centre's word for this node, and good until clock_boot_ms() is *until.
 * -EKEYREJECTED: it is not (or of a key long gone). */
int link_ticket(struct link *l, const Star__Ticket *t, int64_t *until);
/* Ends the connection and the threads; calls are -ESHUTDOWN from now on. Before flush and store go.
 */
void link_stop(struct link *l);
void link_free(struct link *l);

#endif
