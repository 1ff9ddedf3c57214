/* Nodes: hello, reports, what they ask of the state, what they are told to forget. */
#include "control/centre.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/placement.h"
#include "control/wire/clock.h"

/* Extents in one answer to MAP; the node asks on from where it ends. */
#define MAP_EXTENTS_MAX 16384
/* One answer to HOMED: so many files of so many inodes looked at, some milliseconds of the loop. */
#define HOMED_PAGE_MAX 4096
#define HOMED_SCAN_MAX 32768

struct node *node_find(struct centre *c, uint32_t id)
{
    struct node *n;

    HASH_FIND(hh, c->nodes, &id, sizeof(id), n);
    return n;
}

struct node *node_of_peer(struct centre *c, struct peer *p)
{
    struct link *link = peer_data(p);

    (void)c;
    return link ? link->node : NULL;
}

bool node_usable(const struct node *n)
{
    return n->peer && strcmp(n->state, "ready") == 0 && n->store_error[0] == '\0';
}

bool node_keeps_homes(const struct node *n)
{
    return strcmp(n->state, "ready") == 0 || strcmp(n->state, "draining") == 0;
}

double node_load(const struct node *n)
{
    return n->load + n->rate / PLACEMENT_RATE_LOAD + n->readers * PLACEMENT_READER_LOAD;
}

bool node_is_local(const struct node *n, const struct session *s)
{
    return s && s->machine[0] && strcmp(n->machine, s->machine) == 0;
}

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from ? from : "");
}

struct load {
    struct centre *c;
    int rc;
};

static bool load_node(void *arg, const struct state_node *sn)
{
    struct load *l = arg;
    struct node *n = node_find(l->c, sn->id);

    if (!n) {
        n = calloc(1, sizeof(*n));
        if (!n) {
            l->rc = -ENOMEM;
            return false;
        }
        n->id = sn->id;
        n->seen_ms = l->c->now;
        HASH_ADD(hh, l->c->nodes, id, sizeof(n->id), n);
    }
    copy_text(n->name, sizeof(n->name), sn->name);
    copy_text(n->address, sizeof(n->address), sn->address);
    copy_text(n->machine, sizeof(n->machine), sn->machine);
    if (n->changing == 0) { /* else what was decided since is on its way */
        copy_text(n->state, sizeof(n->state), sn->state);
        copy_text(n->store, sizeof(n->store), sn->store);
        n->starts = sn->starts;
    }
    copy_text(n->origin, sizeof(n->origin), sn->origin);
    n->capacity = sn->capacity;
    n->known = true;
    return true;
}

int nodes_load(struct centre *c)
{
    struct load l = {.c = c};
    struct node *n;

    for (n = c->nodes; n; n = n->hh.next)
        n->known = false;
    int rc = state_nodes(c->state, load_node, &l);

    return rc < 0 ? rc : l.rc;
}

/* --- hello --- */

static struct node *node_named(struct centre *c, const char *name)
{
    struct node *n;

    for (n = c->nodes; n; n = n->hh.next)
        if (strcmp(n->name, name) == 0)
            return n;
    return NULL;
}

static void on_node_logged(struct op *op, const struct state_result *r)
{
    struct centre *c = op->c;
    Star__Hello *hello = (Star__Hello *)op->body;
    Star__HelloReply answer = STAR__HELLO_REPLY__INIT;

    if (r->status < 0) {
        op_refuse(op, r);
        return;
    }
    nodes_load(c);
    struct node *n = node_named(c, hello->name);
    if (!n || !peer_is_open(op->peer)) {
        op_reply(op, -ENOMEM, NULL);
        return;
    }
    if (n->peer && n->peer != op->peer) {
        struct link *old = peer_data(n->peer);
        old->node = NULL;
        peer_close(n->peer);
    }
    struct link *link = peer_data(op->peer);
    link->role = STAR__ROLE__NODE;
    link->node = n;
    n->peer = op->peer;
    n->instance = hello->instance;
    if (ticket_key_make(&n->key) < 0) {
        op_error(op, -EIO, "no key for tickets: this machine gives no random numbers");
        peer_close(op->peer);
        return;
    }
    answer.ticket_key = (ProtobufCBinaryData){sizeof(n->key.key), n->key.key};
    answer.ticket_generation = n->key.generation;
    answer.clock_ms = (uint64_t)clock_boot_ms();
    answer.lines_lost = n->lost;
    n->reported = n->lost = n->jobs_known = false;
    n->hellos++;
    jobs_node_changed(c, n);
    n->moved = 0;
    n->store_error[0] = n->pool_error[0] = '\0';
    n->seen_ms = n->hello_ms = c->now;
    events_add(&c->events, "node", "%s is here", n->name);
    answer.node = n->id;
    hello_settings(c, &answer);
    op_reply(op, 0, &answer.base);
}

/* Only a new start ends a drain: a broken connection does not mean that it is wanted again. One
 * that is started on demand is ready when it takes jobs. */
static const char *state_after_hello(const struct node *n, const Star__Hello *hello)
{
    if (n && node_is_coming(n))
        return "starting";
    return n && !hello->fresh && strcmp(n->state, "drained") == 0 ? "drained" : "ready";
}

void node_hello(struct centre *c, struct peer *p, const struct message *m, Star__Hello *hello)
{
    struct node *n = node_named(c, hello->name);
    Star__LogNode body = STAR__LOG_NODE__INIT;

    if (n && !node_is_coming(n) && strcmp(n->store, hello->store) != 0) {
        peer_error(p, m, -EEXIST,
                   "there is a node %s with another store; give this one another name",
                   hello->name);
    } else if (n ? strcmp(n->state, "gone") == 0 : demand_owns_name(hello->name)) {
        peer_error(p, m, -ENODEV,
                   "node %s was given up for good; give it a new name and an empty store",
                   hello->name);
    } else {
        struct op *op = op_new(c, NULL, p, m, &hello->base);
        if (!op) {
            peer_error(p, m, -ENOMEM, "no memory");
            goto out;
        }
        body.node = n ? n->id : 0;
        body.name = hello->name;
        body.address = hello->address;
        body.machine = hello->machine;
        body.capacity = hello->capacity;
        body.store = hello->store;
        body.state = (char *)(uintptr_t)state_after_hello(n, hello);
        op_submit(op, STAR__LOG_TYPE__LOG_NODE, &body.base, false, on_node_logged);
        return;
    }
out:
    star__hello__free_unpacked(hello, NULL);
}

void node_entry(const struct node *n, const char *state, Star__LogNode *entry)
{
    star__log_node__init(entry);
    entry->node = n->id;
    entry->name = (char *)n->name;
    entry->address = (char *)n->address;
    entry->machine = (char *)n->machine;
    entry->capacity = n->capacity;
    entry->store = (char *)n->store;
    entry->state = (char *)state;
    entry->origin = (char *)n->origin;
    entry->starts = n->starts;
}

struct changed {
    struct centre *c;
    struct node *n;
};

static void on_state_logged(void *arg, int status, const struct state_result *r)
{
    struct changed *d = arg;

    (void)r; /* refused or not: what the state says now counts */
    d->n->changing--;
    if (status == 0)
        nodes_load(d->c);
    free(d);
}

int node_set_state(struct centre *c, struct node *n, const char *state)
{
    struct changed *d = malloc(sizeof(*d));
    Star__LogNode body;

    if (!d)
        return -ENOMEM;
    *d = (struct changed){.c = c, .n = n};
    node_entry(n, state, &body);
    int rc =
        centre_submit(c, STAR__LOG_TYPE__LOG_NODE, &body.base, CONSENSUS_NOW, on_state_logged, d);
    if (rc < 0) {
        free(d);
        return rc;
    }
    n->changing++;
    copy_text(n->state, sizeof(n->state), state);
    jobs_node_changed(c, n);
    return 0;
}

void node_disconnected(struct centre *c, struct node *n)
{
    n->peer = NULL;
    n->seen_ms = c->now;
    jobs_node_changed(c, n);
    if (!c->stopping)
        events_add(&c->events, "node-away", "%s went away", n->name);
}

static void ignore_result(void *arg, int status, const struct state_result *r)
{
    (void)arg, (void)status, (void)r;
}

void node_free_all(struct centre *c)
{
    struct node *n, *tmp;

    HASH_ITER (hh, c->nodes, n, tmp) {
        HASH_DEL(c->nodes, n);
        free(n->logged);
        free(n->drops);
        free(n);
    }
}

/* --- what the log knows --- */

void node_note_logged(struct centre *c, const struct inode *i)
{
    struct node *n = i->home ? node_find(c, i->home) : NULL;

    if (!n || !n->peer)
        return;
    if (!n->logged && !(n->logged = calloc(NODE_BATCH_MAX, sizeof(*n->logged))))
        return; /* only a help: what is not told is sent again after a reconnect */
    if (n->logged_n == NODE_BATCH_MAX)
        return;
    Star__HomeAttrs *a = &n->logged[n->logged_n++];
    star__home_attrs__init(a);
    a->ino = i->ino;
    a->version = i->version;
    a->home_epoch = i->home_epoch;
}

static void tell_logged(struct node *n)
{
    Star__NodeAttrs body = STAR__NODE_ATTRS__INIT;
    Star__HomeAttrs *list[NODE_BATCH_MAX];

    for (size_t k = 0; k < n->logged_n; k++)
        list[k] = &n->logged[k];
    body.n_attrs = n->logged_n;
    body.attrs = list;
    if (n->peer && n->logged_n)
        peer_notify(n->peer, STAR__MSG_TYPE__ATTRS_LOGGED, &body.base);
    n->logged_n = 0;
}

static void drops_send(struct node *n);

void nodes_tick(struct centre *c, int64_t now)
{
    struct node *n;

    for (n = c->nodes; n; n = n->hh.next) {
        tell_logged(n);
        drops_send(n);
        /* One that is connected and does not report is frozen. It may take long to recover before
         * its first report. */
        if ((n->peer && !n->reported) || n->lost || now - n->seen_ms < LEASE_MS ||
            strcmp(n->state, "gone") == 0 || node_is_coming(n))
            continue;
        Star__LogHome body = STAR__LOG_HOME__INIT;
        body.node = n->id;
        if (centre_submit(c, STAR__LOG_TYPE__LOG_DROP_COPIES, &body.base, CONSENSUS_NOW,
                          ignore_result, NULL) < 0)
            continue; /* at the next tick */
        n->lost = true;
        events_add(&c->events, "node-lost",
                   "%s was not heard for %d s; its staged files wait for it", n->name,
                   LEASE_MS / 1000);
        if (n->peer)
            peer_close(n->peer);
    }
    homes_tick(c);
}

/* --- settings --- */

uint64_t setting_u64(struct centre *c, const char *name)
{
    char value[64];

    return state_setting(c->state, name, value, sizeof(value)) < 0 ? 0 : strtoull(value, NULL, 10);
}

void hello_settings(struct centre *c, Star__HelloReply *r)
{
    r->lease_ms = LEASE_MS;
    r->renew_ms = RENEW_MS;
    r->fence_ms = FENCE_MS;
    r->centre_instance = c->instance;
    r->cloud = (char *)c->options->cloud;
    r->pool = (char *)c->options->pool;
    r->high_water = setting_u64(c, "high_water");
    r->low_water = setting_u64(c, "low_water");
    r->flush_age = setting_u64(c, "flush_age");
    r->root = STATE_ROOT_INO;
    r->direct_size = setting_u64(c, "direct_size");
}

/* --- reports --- */

/* seen_ms is that of the last report. */
static void note_rate(struct centre *c, struct node *n, const Star__NodeReport *q)
{
    uint64_t moved = q->read_bytes + q->write_bytes;
    int64_t ms = c->now - n->seen_ms;

    n->rate = n->moved && moved > n->moved && ms > 0
                  ? (double)(moved - n->moved) * 1000.0 / (double)ms
                  : 0;
    n->moved = moved;
    n->promised = n->readers = 0;
}

static void note_error(struct centre *c, struct node *n, const char *what, char *kept, size_t size,
                       const char *now)
{
    if (strcmp(kept, now) == 0)
        return;
    if (*now)
        events_add(&c->events, what, "%s: %s", n->name, now);
    else
        events_add(&c->events, what, "%s: works again", n->name);
    copy_text(kept, size, now);
}

void serve_node_report(struct op *op)
{
    struct centre *c = op->c;
    struct node *n = node_of_peer(c, op->peer);
    Star__NodeReport *q = (Star__NodeReport *)op->body;
    Star__NodeReportReply r = STAR__NODE_REPORT_REPLY__INIT;

    if (!n) {
        op_reply(op, -EINVAL, NULL);
        return;
    }
    note_rate(c, n, q);
    hot_files_note(c, q);
    n->seen_ms = c->now;
    n->capacity = q->capacity;
    n->used = q->used;
    n->staged = q->staged;
    n->cached = q->cached;
    n->files = q->files;
    n->load = q->load;
    n->pool_total = q->pool_total;
    n->pool_free = q->pool_free;
    n->read_bytes = q->read_bytes;
    n->write_bytes = q->write_bytes;
    n->fetched_bytes = q->fetched_bytes;
    n->flushed_bytes = q->flushed_bytes;
    note_error(c, n, "pool", n->pool_error, sizeof(n->pool_error), q->pool_error);
    for (size_t k = 0; k < q->n_damage; k++)
        events_add(&c->events, "damage", "%s: %s", n->name, q->damage[k]);
    jobs_node_power(c, n, q->power);
    note_error(c, n, "store", n->store_error, sizeof(n->store_error), q->store_error);
    r.high_water = setting_u64(c, "high_water");
    r.low_water = setting_u64(c, "low_water");
    r.flush_age = setting_u64(c, "flush_age");
    r.clock_ms = (uint64_t)clock_boot_ms();
    r.draining = strcmp(n->state, "ready") != 0;
    op_reply(op, 0, &r.base);
}

/* --- map --- */

struct map_answer {
    Star__MapReply reply;
    Star__Extent *extents;
    Star__Extent **pointers;
    size_t n, size;
    int rc;
};

static bool map_one(void *arg, const Star__Extent *e)
{
    struct map_answer *m = arg;

    if (m->n == MAP_EXTENTS_MAX)
        return false;
    if (m->n == m->size) {
        size_t size = m->size ? m->size * 2 : 32;
        Star__Extent *grown = realloc(m->extents, size * sizeof(*grown));
        if (!grown) {
            m->rc = -ENOMEM;
            return false;
        }
        m->extents = grown;
        m->size = size;
    }
    m->extents[m->n++] = *e;
    return true;
}

/* A mount reads the pool itself: only what it holds, and only while there is nothing newer. */
static int map_for_mount(struct op *op, uint64_t ino)
{
    struct live *l = live_find(op->c, ino);
    struct holder *h = l ? holder_find(l, op->session) : NULL;
    struct inode i;

    if (!op->session)
        return 0;
    if (!op->c->serving)
        return -EAGAIN; /* what others hold is not known yet: it asks again */
    if (!h || (!holder_opens(h) && h->lease == STAR__LEASE__LEASE_NONE))
        return -EPERM;
    int rc = state_inode(op->c->state, ino, &i);
    if (rc < 0)
        return rc;
    return straight_newest(op->c, &i) || straight_settled(op->c, op->session, &i) ? 0 : -EAGAIN;
}

void serve_map(struct op *op)
{
    Star__MapRequest *q = (Star__MapRequest *)op->body;
    struct map_answer m = {0};
    Star__Time mtime = STAR__TIME__INIT;
    struct inode i;

    if (!rights_allow(op))
        return;
    int allowed = map_for_mount(op, q->ino);
    if (allowed < 0) {
        op_reply(op, allowed, NULL);
        return;
    }

    star__map_reply__init(&m.reply);
    int rc = state_inode(op->c->state, q->ino, &i);
    if (rc == -ESTALE) {
        m.reply.gone = true;
        rc = 0;
    } else if (rc == 0) {
        rc = state_map(op->c->state, q->ino, q->offset, q->length, map_one, &m);
        if (rc == 0)
            rc = m.rc;
        m.reply.size = i.size;
        m.reply.version = i.version;
        m.reply.home_epoch = i.home_epoch;
        m.reply.map_version = i.map_version;
        m.reply.cut_size = i.cut_size;
        m.reply.cut_version = i.cut_version;
        mtime.sec = i.mtime.sec;
        mtime.nsec = i.mtime.nsec;
        m.reply.mtime = &mtime;
    }
    uint8_t *keys = NULL;
    if (rc == 0)
        rc = keys_of_extents(op->c, m.extents, m.n, &keys);
    if (rc == 0 && m.n > 0) {
        m.pointers = malloc(m.n * sizeof(*m.pointers));
        if (!m.pointers)
            rc = -ENOMEM;
        for (size_t k = 0; rc == 0 && k < m.n; k++)
            m.pointers[k] = &m.extents[k];
        m.reply.extents = m.pointers;
        m.reply.n_extents = rc == 0 ? m.n : 0;
    }
    op_reply(op, rc, &m.reply.base);
    keys_free(keys, m.n);
    free(m.pointers);
    free(m.extents);
}

/* --- after a crash of the node's machine --- */

struct homed_page {
    struct centre *c;
    uint32_t node;
    Star__HomedReply reply;
    Star__HomeAttrs files[HOMED_PAGE_MAX];
    Star__HomeAttrs *pointers[HOMED_PAGE_MAX];
    size_t looked;
};

/* What a mount has heard of the home may be newer than the log. */
static bool homed_one(void *arg, const struct inode *i)
{
    struct homed_page *p = arg;

    if (p->looked == HOMED_SCAN_MAX || p->reply.n_files == HOMED_PAGE_MAX)
        return false;
    p->looked++;
    p->reply.last = i->ino;
    if (!S_ISREG(i->mode) || i->home != p->node)
        return true;
    struct live *l = live_find(p->c, i->ino);
    bool heard = l && l->have_home && l->home.home_epoch == i->home_epoch;
    if (i->version <= i->cut_version && !heard && !(l && live_written(l)))
        return true;
    Star__HomeAttrs *a = &p->files[p->reply.n_files];
    star__home_attrs__init(a);
    a->ino = i->ino;
    a->home_epoch = i->home_epoch;
    a->version = heard && l->home.version > i->version ? l->home.version : i->version;
    p->pointers[p->reply.n_files++] = a;
    return true;
}

/* Lines of clean data, which did not survive. The staged ones follow as the node finds them. */
static int homed_forget_lines(struct centre *c, uint32_t node)
{
    Star__LogHome body = STAR__LOG_HOME__INIT;

    body.node = node;
    return centre_submit(c, STAR__LOG_TYPE__LOG_DROP_COPIES, &body.base, CONSENSUS_NOW,
                         ignore_result, NULL);
}

void serve_homed(struct op *op)
{
    const Star__Homed *q = (const Star__Homed *)op->body;
    struct node *n = node_of_peer(op->c, op->peer);
    struct homed_page *p = n ? calloc(1, sizeof(*p)) : NULL;
    int rc;

    if (!p) {
        op_reply(op, n ? -ENOMEM : -EINVAL, NULL);
        return;
    }
    p->c = op->c;
    p->node = n->id;
    star__homed_reply__init(&p->reply);
    p->reply.last = q->after;
    rc = q->after == 0 ? homed_forget_lines(op->c, n->id) : 0;
    if (rc == 0)
        rc = state_inodes(op->c->state, q->after, homed_one, p);
    p->reply.files = p->pointers;
    p->reply.done = p->looked < HOMED_SCAN_MAX && p->reply.n_files < HOMED_PAGE_MAX;
    op_reply(op, rc, &p->reply.base);
    free(p);
}

/* --- what goes into the log as the node says it --- */

/* A file that was deleted while the node was away: the DROP did not reach it. */
static void drop_if_gone(struct op *op, uint64_t ino)
{
    struct node *n = node_of_peer(op->c, op->peer);
    struct inode i;

    if (n && ino && state_inode(op->c->state, ino, &i) == -ESTALE)
        node_drop(n, &ino, 1);
}

static void confirm_logged(struct op *op)
{
    const Star__Confirm *q = (const Star__Confirm *)op->body;

    for (size_t k = 0; k < q->n_files; k++) {
        if (!q->files[k]->attrs)
            continue;
        home_caught_up(op->c, q->files[k]->attrs->ino);
        drop_if_gone(op, q->files[k]->attrs->ino);
    }
}

static void copies_logged(struct op *op)
{
    const Star__Copies *q = (const Star__Copies *)op->body;

    for (size_t k = 0; k < q->n_copies; k++)
        if (!q->copies[k]->gone)
            drop_if_gone(op, q->copies[k]->ino);
}

static void node_logged(struct op *op, const struct state_result *r)
{
    if (peer_reply_packed(op->peer, &op->request, r->status, r->body, r->body_len) == -ENOMEM)
        peer_close(op->peer); /* it connects again and asks what became of it */
    if (op->request.type == STAR__MSG_TYPE__CONFIRM)
        confirm_logged(op);
    else if (op->request.type == STAR__MSG_TYPE__COPIES)
        copies_logged(op);
    op_end(op);
}

bool pool_quota_reached(struct centre *c)
{
    uint64_t quota = setting_u64(c, "pool_quota");
    struct state_totals totals = {0};

    state_totals(c->state, &totals);
    return quota > 0 && totals.mapped >= quota;
}

static void serve_alloc_packs(struct op *op, const struct node *n)
{
    Star__AllocPacks *q = (Star__AllocPacks *)op->body;

    /* Without packs nothing more is flushed: writers wait, and then meet a full node. A node that
     * starts asks for none. */
    if (q->count > 0 && !q->gc && pool_quota_reached(op->c)) {
        op_error(op, -ENOSPC, "pool_quota is used up: delete files, or raise it");
        return;
    }
    int rc = keys_stamp(op->c, &q->key_generation);
    if (rc < 0) {
        op_error(op, rc, "the cloud's keys cannot be read, so no packs can be sealed");
        return;
    }
    op->node = n->id; /* the writer */
    op_submit(op, op->request.type, op->body, false, keys_reply_packs);
}

void serve_node_log(struct op *op)
{
    struct node *n = node_of_peer(op->c, op->peer);

    if (!n) {
        op_error(op, -EPERM, "only nodes may say this");
        return;
    }
    if (op->request.type == STAR__MSG_TYPE__ALLOC_PACKS) {
        serve_alloc_packs(op, n);
        return;
    }
    if (op->request.type == STAR__MSG_TYPE__CONFIRM)
        ((Star__Confirm *)op->body)->node = n->id;
    else if (op->request.type == STAR__MSG_TYPE__META_STORED)
        ((Star__MetaStored *)op->body)->node = n->id;
    else if (op->request.type == STAR__MSG_TYPE__MOVED)
        ((Star__Moved *)op->body)->node = n->id;
    else if (op->request.type == STAR__MSG_TYPE__COPIES)
        ((Star__Copies *)op->body)->node = n->id;
    op->node = n->id;
    op_submit(op, op->request.type, op->body, false, node_logged);
}

/* --- drop --- */

static void on_drop_answered(void *arg, const struct message *reply)
{
    struct node *n = arg;

    n->dropping = false;
    if (reply->status < 0)
        return; /* again at the next tick, or when it is back */
    n->drops_n -= n->drops_sent;
    memmove(n->drops, n->drops + n->drops_sent, n->drops_n * sizeof(n->drops[0]));
    drops_send(n);
}

static void drops_send(struct node *n)
{
    Star__Drop body = STAR__DROP__INIT;

    if (n->dropping || n->drops_n == 0 || !n->peer)
        return;
    n->drops_sent = n->drops_n < NODE_BATCH_MAX ? n->drops_n : NODE_BATCH_MAX;
    body.n_ino = n->drops_sent;
    body.ino = n->drops;
    body.deleted = true;
    n->dropping = peer_request(n->peer, STAR__MSG_TYPE__DROP, &body.base, HOME_DEADLINE_MS,
                               on_drop_answered, n) == 0;
}

/* false: no memory. */
static bool drops_grow(struct node *n, size_t count)
{
    size_t size = n->drops_size ? n->drops_size : 64;

    while (size < n->drops_n + count)
        size *= 2;
    if (size == n->drops_size)
        return true;
    uint64_t *grown = realloc(n->drops, size * sizeof(*grown));
    if (!grown)
        return false;
    n->drops = grown;
    n->drops_size = size;
    return true;
}

void node_drop(struct node *n, const uint64_t *inos, size_t count)
{
    if (strcmp(n->state, "gone") == 0)
        return;
    /* What is too much is found when the node says what it holds. */
    if (n->drops_n + count > NODE_DROPS_MAX || !drops_grow(n, count))
        return;
    memcpy(n->drops + n->drops_n, inos, count * sizeof(*inos));
    n->drops_n += count;
    drops_send(n);
}
