/*
 * Hot files: what nodes report as read most is cached by more of them, and the extra copies go when
 * it cools. In the leader's memory only: after a start the copies that are there are ordinary ones,
 * which their nodes evict when they need the room.
 */
#include "control/centre.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/hot_policy.h"
#include "control/placement.h"

#define HOT_TICK_MS 1000
/* Files looked after; nodes name at most 16 a second each. */
#define HOT_FILES_MAX 256
/* Nodes that have a copy because of us, of one file. */
#define HOT_EXTRA_MAX 8
/* Copies of one file that are counted; hot_copies may not be more. */
#define HOT_COPIES_MAX 16
/* After a copy that could not be made, and until the rate at the old copies has settled. */
#define HOT_PAUSE_MS 10000
/* A file that takes more than this share of a node's capacity pushes out too much else. */
#define HOT_SHARE 4

struct hot_entry {
    uint64_t ino;
    struct hot_rate rate;
    uint64_t bytes; /* since the last tick */
    bool busy;      /* a node is at it */
    int64_t not_before;
    uint32_t extra[HOT_EXTRA_MAX];
    UT_hash_handle hh;
};

static struct hot_entry *hot_find(struct centre *c, uint64_t ino)
{
    struct hot_entry *f;

    HASH_FIND(hh, c->hot, &ino, sizeof(ino), f);
    return f;
}

void hot_files_note(struct centre *c, const Star__NodeReport *q)
{
    for (size_t k = 0; k < q->n_hot; k++) {
        struct hot_entry *f = hot_find(c, q->hot[k]->ino);
        if (!f && HASH_COUNT(c->hot) < HOT_FILES_MAX && (f = calloc(1, sizeof(*f)))) {
            f->ino = q->hot[k]->ino;
            HASH_ADD(hh, c->hot, ino, sizeof(f->ino), f);
        }
        if (f && __builtin_add_overflow(f->bytes, q->hot[k]->bytes, &f->bytes))
            f->bytes = UINT64_MAX;
    }
}

/* --- at a node --- */

struct hot_ask {
    struct centre *c;
    uint64_t ino;
    uint32_t node;
    bool warm;
};

static void name_of(struct centre *c, uint64_t ino, char *out, size_t size)
{
    if (state_path(c->state, ino, out, size) < 0)
        snprintf(out, size, "inode %" PRIu64, ino);
}

/* A failed attempt is no event: the file is read where it was. */
static void on_done(void *arg, const struct message *reply)
{
    struct hot_ask *a = arg;
    struct centre *c = a->c;
    struct hot_entry *f = hot_find(c, a->ino);
    struct node *n = node_find(c, a->node);
    char path[1024];

    if (f) {
        f->busy = false;
        f->not_before = c->now + HOT_PAUSE_MS;
    }
    if (f && n && reply->status >= 0 && a->warm && f->rate.extra < HOT_EXTRA_MAX) {
        f->extra[f->rate.extra++] = a->node;
        name_of(c, a->ino, path, sizeof(path));
        events_add(&c->events, "hot", "%s: %.0f bytes/s are read; %s caches it too", path,
                   f->rate.rate, n->name);
    }
    free(a);
}

static int ask(struct centre *c, struct hot_entry *f, struct node *n, bool warm)
{
    Star__FlushRequest body = STAR__FLUSH_REQUEST__INIT;
    struct hot_ask *a = malloc(sizeof(*a));

    if (!a)
        return -ENOMEM;
    *a = (struct hot_ask){.c = c, .ino = f->ino, .node = n->id, .warm = warm};
    body.ino = &f->ino;
    body.n_ino = 1;
    int rc = peer_request(n->peer, warm ? STAR__MSG_TYPE__WARM : STAR__MSG_TYPE__EVICT, &body.base,
                          NODE_COMMAND_DEADLINE_MS, on_done, a);
    if (rc < 0)
        free(a);
    f->busy = rc == 0;
    return rc;
}

/* --- decisions --- */

struct hot_copies {
    const struct inode *i;
    uint32_t node[HOT_COPIES_MAX];
    unsigned n;
};

static bool count_copy(void *arg, const struct state_copy_line *line)
{
    struct hot_copies *k = arg;

    if (line->version == k->i->version && line->cached >= k->i->size && k->n < HOT_COPIES_MAX)
        k->node[k->n++] = line->node;
    return true;
}

static bool among(const uint32_t *list, unsigned n, uint32_t id)
{
    for (unsigned k = 0; k < n; k++)
        if (list[k] == id)
            return true;
    return false;
}

/* The node for one more copy, or NULL. */
static struct node *choose(struct centre *c, const struct inode *i, const struct hot_copies *k)
{
    struct node *best = NULL, *n;

    for (n = c->nodes; n; n = n->hh.next) {
        bool room = n->staged <= n->capacity && i->size <= (n->capacity - n->staged) / HOT_SHARE;
        if (node_usable(n) && room && !among(k->node, k->n, n->id) &&
            (!best || node_load(n) < node_load(best)))
            best = n;
    }
    return best;
}

static void add_copy(struct centre *c, struct hot_entry *f, const struct inode *i,
                     const struct hot_copies *k)
{
    struct node *n = choose(c, i, k);

    if (!n || ask(c, f, n, true) < 0)
        f->not_before = c->now + HOT_PAUSE_MS;
}

/* The home keeps its copy, and what has gone by itself need not be taken away. */
static void remove_copy(struct centre *c, struct hot_entry *f, const struct inode *i,
                        const struct hot_copies *k)
{
    struct node *n = node_find(c, f->extra[--f->rate.extra]);
    char path[1024];

    f->rate.cool_ms = 0;
    if (!n || !n->peer || n->id == i->home || !among(k->node, k->n, n->id) ||
        ask(c, f, n, false) < 0)
        return;
    name_of(c, f->ino, path, sizeof(path));
    events_add(&c->events, "cooled", "%s: %.0f bytes/s are read; %s gives its copy back", path,
               f->rate.rate, n->name);
}

/* false: it is to be forgotten. */
static bool look_after(struct centre *c, struct hot_entry *f, const struct hot_limits *limits)
{
    struct hot_copies k = {0};
    struct inode i;

    if (f->busy || c->now < f->not_before)
        return true;
    if (state_inode(c->state, f->ino, &i) < 0)
        return false;
    k.i = &i;
    state_copies(c->state, f->ino, 0, 0, count_copy, &k);
    f->rate.copies = k.n;
    enum hot_step step = hot_decide(&f->rate, limits, c->now);
    if (step == HOT_ADD && f->rate.extra < HOT_EXTRA_MAX && straight_newest(c, &i))
        add_copy(c, f, &i, &k);
    else if (step == HOT_REMOVE)
        remove_copy(c, f, &i, &k);
    return f->busy || f->rate.rate > 0 || f->rate.extra > 0;
}

void hot_files_tick(struct centre *c, int64_t now)
{
    struct hot_limits limits;
    struct hot_entry *f, *tmp;
    int64_t ms = now - c->hot_ms;

    if (ms < HOT_TICK_MS)
        return;
    c->hot_ms = now;
    limits.rate = setting_u64(c, "hot_rate");
    limits.copies = (unsigned)setting_u64(c, "hot_copies");
    limits.cool_after = (int64_t)setting_u64(c, "hot_cool") * 1000;
    HASH_ITER (hh, c->hot, f, tmp) {
        hot_sample(&f->rate, f->bytes, ms);
        f->bytes = 0;
        if (look_after(c, f, &limits))
            continue;
        HASH_DEL(c->hot, f);
        free(f);
    }
}

void hot_files_free(struct centre *c)
{
    struct hot_entry *f, *tmp;

    HASH_ITER (hh, c->hot, f, tmp) {
        HASH_DEL(c->hot, f);
        free(f);
    }
}
