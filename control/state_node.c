/* Nodes: their numbers are given once, by name and store; a node that was given up ("gone") never
 * speaks again. */
#include "control/state_private.h"

#include <errno.h>

static const char *const node_states[] = {"ready", "draining", "drained", "gone"};

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
    state_node_fn fn;
    void *arg;
};

static bool each_public(void *arg, uint32_t id, const struct node_row *r)
{
    struct state_node n = {.id = id, .capacity = r->capacity};
    struct each *e = arg;

    memcpy(n.name, r->name, sizeof(n.name));
    memcpy(n.address, r->address, sizeof(n.address));
    memcpy(n.machine, r->machine, sizeof(n.machine));
    memcpy(n.store, r->store, sizeof(n.store));
    memcpy(n.state, r->state, sizeof(n.state));
    return e->fn(e->arg, &n);
}

int state_nodes(struct state *s, state_node_fn fn, void *arg)
{
    struct each e = {.fn = fn, .arg = arg};

    return nodes_each(s, each_public, &e);
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

static int check_node(struct apply *a, const Star__LogNode *q)
{
    const struct node_row *r = NULL;

    if (q->name[0] == '\0' || strlen(q->name) >= sizeof(r->name) ||
        strlen(q->address) >= sizeof(r->address) || strlen(q->machine) >= sizeof(r->machine) ||
        strlen(q->store) >= sizeof(r->store))
        return st_refuse(
            a, -EINVAL,
            "a node's name is empty, or its name, address, machine or store is too long");
    for (size_t n = 0; n < sizeof(node_states) / sizeof(node_states[0]); n++)
        if (strcmp(q->state, node_states[n]) == 0)
            return 0;
    return st_refuse(a, -EINVAL, "'%.16s' is no state of a node: ready, draining, drained or gone",
                     q->state);
}

/* The number that this node has or shall have, and its row if it has one. */
static int node_number(struct apply *a, const Star__LogNode *q, uint32_t *id, struct node_row *r)
{
    struct find f = {.name = q->name};
    int rc = nodes_each(a->s, find_named, &f);

    if (rc < 0)
        return rc;
    if (f.id && strcmp(f.r.store, q->store) != 0)
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
    uint32_t id = 0;
    int rc = check_node(a, q);

    if (rc == 0)
        rc = node_number(a, q, &id, &r);
    if (rc < 0)
        return rc;
    r.capacity = q->capacity;
    set_text(r.name, sizeof(r.name), q->name);
    set_text(r.address, sizeof(r.address), q->address);
    set_text(r.machine, sizeof(r.machine), q->machine);
    set_text(r.store, sizeof(r.store), q->store);
    set_text(r.state, sizeof(r.state), q->state);
    if (id > a->s->meta.last_node)
        a->s->meta.last_node = id;
    rc = st_node_store(a->s, id, &r);
    if (rc == 0 && strcmp(r.state, "gone") == 0)
        rc = give_up(a, id);
    if (rc < 0)
        return rc;
    reply.node = id;
    return st_reply(a, &reply.base);
}
