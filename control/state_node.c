/* Nodes: their numbers are given once, by name and store; a node that was given up ("gone") never
 * speaks again. */
#include "control/state_private.h"

#include <errno.h>
#include <stdio.h>

static const char *const node_states[] = {"pending",  "starting", "ready",
                                          "draining", "drained",  "gone"};

int st_node_load(struct state *s, uint32_t node, struct node_row *r)
{
    struct key k = st_key1(node);

    return st_get_row(s, DB_NODES, &k, r, sizeof(*r));
}

int st_node_store(struct state *s, uint32_t node, const struct node_row *r)
{
    struct key k = st_key1(node);

    return st_put(s, DB_NODES, &k, r, sizeof(*r));
}

bool st_node_speaks(struct state *s, uint32_t node)
{
    struct node_row r;

    return st_node_load(s, node, &r) == 0 && strcmp(r.state, "gone") != 0;
}

/* --- readers --- */

static int nodes_each(struct state *s, bool (*fn)(void *arg, uint32_t id, const struct node_row *r),
                      void *arg)
{
    struct key k = st_key1(0);
    struct node_row r;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(s, DB_NODES, &cur);

    if (rc < 0)
        return rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0; rc = st_next(s, cur, &key, &val)) {
        rc = st_row(s, &val, &r, sizeof(r));
        if (rc < 0 || !fn(arg, (uint32_t)st_key_u64(&key, 0), &r))
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

struct each {
    struct state *s;
    state_node_fn fn;
    void *arg;
    int rc;
};

static int demand_load(struct state *s, uint32_t node, struct demand_row *r)
{
    struct key k = st_key1(node);

    return st_get_row(s, DB_DEMAND, &k, r, sizeof(*r));
}

static bool each_public(void *arg, uint32_t id, const struct node_row *r)
{
    struct state_node n = {.id = id, .capacity = r->capacity};
    struct each *e = arg;
    struct demand_row d;

    memcpy(n.name, r->name, sizeof(n.name));
    memcpy(n.address, r->address, sizeof(n.address));
    memcpy(n.machine, r->machine, sizeof(n.machine));
    memcpy(n.store, r->store, sizeof(n.store));
    memcpy(n.state, r->state, sizeof(n.state));
    e->rc = demand_load(e->s, id, &d);
    if (e->rc < 0 && e->rc != -ENOENT)
        return false;
    if (e->rc == 0) {
        memcpy(n.origin, d.origin, sizeof(n.origin));
        n.starts = d.starts;
    }
    e->rc = 0;
    return e->fn(e->arg, &n);
}

int state_nodes(struct state *s, state_node_fn fn, void *arg)
{
    struct each e = {.s = s, .fn = fn, .arg = arg};
    int rc = nodes_each(s, each_public, &e);

    return rc < 0 ? rc : e.rc;
}

/* --- LOG_NODE --- */

struct find {
    const char *name;
    uint32_t id;
    struct node_row r;
};

static bool find_named(void *arg, uint32_t id, const struct node_row *r)
{
    struct find *f = arg;

    if (strcmp(r->name, f->name) != 0)
        return true;
    f->id = id;
    f->r = *r;
    return false;
}

static bool names_itself(const Star__LogNode *q)
{
    return q->node == 0 && q->origin[0] && q->name[0] == '\0';
}

static int check_node(struct apply *a, const Star__LogNode *q)
{
    const struct node_row *r = NULL;
    const struct demand_row *d = NULL;

    if ((q->name[0] == '\0' && !names_itself(q)) || strlen(q->name) >= sizeof(r->name) ||
        strlen(q->origin) >= sizeof(d->origin) || strlen(q->address) >= sizeof(r->address) ||
        strlen(q->machine) >= sizeof(r->machine) || strlen(q->store) >= sizeof(r->store))
        return st_refuse(
            a, -EINVAL,
            "a node's name is empty, or its name, address, machine, store or origin is too long");
    for (size_t n = 0; n < sizeof(node_states) / sizeof(node_states[0]); n++)
        if (strcmp(q->state, node_states[n]) == 0)
            return 0;
    return st_refuse(
        a, -EINVAL,
        "'%.16s' is no state of a node: pending, starting, ready, draining, drained or "
        "gone",
        q->state);
}

/* A node that has not been ready has been given nothing: its store may be another one. */
static bool has_begun(const struct node_row *r)
{
    return strcmp(r->state, "pending") != 0 && strcmp(r->state, "starting") != 0;
}

/* The number that this node has or shall have, and its row if it has one. */
static int node_number(struct apply *a, const Star__LogNode *q, uint32_t *id, struct node_row *r)
{
    struct find f = {.name = q->name};
    int rc = names_itself(q) ? 0 : nodes_each(a->s, find_named, &f);

    if (rc < 0)
        return rc;
    if (f.id && strcmp(f.r.store, q->store) != 0 && has_begun(&f.r))
        return st_refuse(a, -EEXIST, "there is a node %s with another store", q->name);
    if (f.id && q->node && f.id != q->node)
        return st_refuse(a, -EEXIST, "another node is called %s", q->name);
    *id = q->node ? q->node : f.id ? f.id : a->s->meta.last_node + 1;
    rc = st_node_load(a->s, *id, r);
    if (rc == -ENOENT && q->node == 0)
        return 0;
    if (rc == 0 && strcmp(r->state, "gone") == 0 && strcmp(q->state, "gone") != 0)
        return st_refuse(a, -ENODEV, "node %s was given up", q->name);
    return rc;
}

/* Files whose home it was fall back to what the pool has. */
static int homes_lost(struct apply *a, uint32_t node)
{
    struct state *s = a->s;
    struct key k = st_key1(0);
    MDB_val key, val;
    MDB_cursor *cur;
    struct stored i;
    int rc = st_cursor(s, DB_INODES, &cur);

    if (rc < 0)
        return rc;
    while ((rc = st_seek(s, cur, &k, &key, &val)) == 0) {
        i.ino = st_key_u64(&key, 0);
        rc = st_row(s, &val, &i.r, sizeof(i.r));
        if (rc == 0 && i.r.home == node) {
            rc = st_inode_lost_home(a, &i);
            if (rc == 0)
                rc = st_inode_store(s, &i);
        }
        if (rc < 0)
            break;
        k = st_key1(i.ino + 1);
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

static int give_up(struct apply *a, uint32_t node)
{
    int rc = st_copies_of_node(a->s, node, true);

    if (rc == 0)
        rc = st_packs_of_gone(a->s, node, 0);
    return rc < 0 ? rc : homes_lost(a, node);
}

/* ---- those that were started on demand */

static int demand_store(struct apply *a, uint32_t id, const Star__LogNode *q)
{
    struct demand_row d = {.starts = q->starts};
    struct key k = st_key1(id);

    if (q->origin[0] == '\0')
        return 0;
    memcpy(d.origin, q->origin, strlen(q->origin));
    return st_put(a->s, DB_DEMAND, &k, &d, sizeof(d));
}

struct ended {
    struct state *s;
    uint32_t oldest, n;
    int rc;
};

static bool count_ended(void *arg, uint32_t id, const struct node_row *r)
{
    struct ended *e = arg;
    struct demand_row d;

    if (strcmp(r->state, "gone") != 0)
        return true;
    e->rc = demand_load(e->s, id, &d);
    if (e->rc == 0 && e->n++ == 0)
        e->oldest = id;
    return e->rc == 0 || e->rc == -ENOENT;
}

/* They come and go for ever: the oldest of those that are gone are forgotten. */
static int forget_ended(struct apply *a)
{
    struct ended e = {.s = a->s};
    int rc = nodes_each(a->s, count_ended, &e);

    if (rc == 0 && e.rc < 0 && e.rc != -ENOENT)
        rc = e.rc;
    if (rc < 0 || e.n <= STATE_DEMAND_GONE)
        return rc;
    struct key k = st_key1(e.oldest);
    rc = st_del(a->s, DB_DEMAND, &k);
    return rc < 0 ? rc : st_del(a->s, DB_NODES, &k);
}

static void set_text(char *to, size_t size, const char *from)
{
    memset(to, 0, size); /* equal states have equal rows */
    memcpy(to, from, strlen(from));
}

int st_cmd_node(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogNode *q = (const Star__LogNode *)body;
    Star__LogNode reply = *q;
    struct node_row r = {0};
    char name[sizeof(r.name)];
    uint32_t id = 0;
    int rc = check_node(a, q);

    if (rc == 0)
        rc = node_number(a, q, &id, &r);
    if (rc < 0)
        return rc;
    r.capacity = q->capacity;
    if (names_itself(q))
        snprintf(name, sizeof(name), STATE_DEMAND_PREFIX "%u", id);
    else
        snprintf(name, sizeof(name), "%s", q->name);
    set_text(r.name, sizeof(r.name), name);
    set_text(r.address, sizeof(r.address), q->address);
    set_text(r.machine, sizeof(r.machine), q->machine);
    set_text(r.store, sizeof(r.store), q->store);
    set_text(r.state, sizeof(r.state), q->state);
    if (id > a->s->meta.last_node)
        a->s->meta.last_node = id;
    rc = st_node_store(a->s, id, &r);
    if (rc == 0)
        rc = demand_store(a, id, q);
    if (rc == 0 && strcmp(r.state, "gone") == 0)
        rc = give_up(a, id);
    if (rc == 0 && strcmp(r.state, "gone") == 0)
        rc = forget_ended(a);
    if (rc < 0)
        return rc;
    reply.node = id;
    reply.name = name;
    return st_reply(a, &reply.base);
}
