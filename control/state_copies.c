/* The cache table: which node holds what of which file, staged or cached. */
#include "control/state_private.h"

#include <errno.h>
#include <sys/stat.h>

static struct key held_key(uint32_t node, uint64_t ino)
{
    return st_key2(node, ino);
}

static int line_put(struct state *s, uint64_t ino, uint32_t node, const struct copy_row *row)
{
    struct key k = st_key_copy(ino, node), h = held_key(node, ino);
    MDB_val old;
    int rc = st_get(s, DB_COPIES, &k, &old);

    if (rc == -ENOENT)
        rc = st_put(s, DB_HELD, &h, "", 0);
    return rc < 0 ? rc : st_put(s, DB_COPIES, &k, row, sizeof(*row));
}

static int line_del(struct state *s, uint64_t ino, uint32_t node)
{
    struct key k = st_key_copy(ino, node), h = held_key(node, ino);
    int rc = st_del(s, DB_COPIES, &k);

    if (rc == 0) {
        rc = st_del(s, DB_HELD, &h);
        if (rc == -ENOENT)
            rc = st_fail(s, MDB_CORRUPTED);
    }
    return rc == -ENOENT ? 0 : rc;
}

static uint32_t key_node(const MDB_val *key)
{
    uint32_t node = 0;

    if (key->mv_size == 12)
        memcpy(&node, (const uint8_t *)key->mv_data + 8, sizeof(node));
    return be32toh(node);
}

int st_copies_of_inode(struct state *s, uint64_t ino)
{
    struct key k = st_key1(ino);
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(s, DB_COPIES, &cur);

    if (rc < 0)
        return rc;
    while ((rc = st_seek(s, cur, &k, &key, &val)) == 0 && st_under(&key, ino)) {
        rc = line_del(s, ino, key_node(&key));
        if (rc < 0)
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

/* What is only cached goes; a line that is staged stays, as the data waits there for the node to
 * come back. */
static int line_unhold(struct state *s, uint64_t ino, uint32_t node, bool staged_too)
{
    struct key k = st_key_copy(ino, node);
    struct copy_row row;
    int rc = st_get_row(s, DB_COPIES, &k, &row, sizeof(row));

    if (rc < 0)
        return rc == -ENOENT ? st_fail(s, MDB_CORRUPTED) : rc;
    if (staged_too || row.staged == 0)
        return line_del(s, ino, node);
    if (row.cached == 0)
        return 0;
    row.cached = 0;
    return st_put(s, DB_COPIES, &k, &row, sizeof(row));
}

int st_copies_of_node(struct state *s, uint32_t node, bool staged_too)
{
    struct key k = held_key(node, 0);
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(s, DB_HELD, &cur);

    if (rc < 0)
        return rc;
    while ((rc = st_seek(s, cur, &k, &key, &val)) == 0 && st_under(&key, node)) {
        uint64_t ino = st_key_u64(&key, 8);
        rc = line_unhold(s, ino, node, staged_too);
        if (rc < 0)
            break;
        k = held_key(node, ino + 1);
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

/* --- commands --- */

static int copy(struct state *s, uint32_t node, const Star__Copy *q)
{
    struct copy_row row = {.version = q->version, .cached = q->cached, .staged = q->staged};
    struct stored i;

    if (q->gone || (q->cached == 0 && q->staged == 0))
        return line_del(s, q->ino, node);
    int rc = st_inode_load(s, q->ino, &i);
    if (rc < 0)
        return rc == -ESTALE ? 0 : rc; /* deleted meanwhile: the node is told to drop it */
    return S_ISREG(i.r.mode) ? line_put(s, q->ino, node, &row) : 0;
}

int st_cmd_copies(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Copies *q = (const Star__Copies *)body;
    int rc = 0;

    if (!st_node_speaks(a->s, q->node))
        return a->s->broken ? a->s->broken : -ESTALE;
    for (size_t n = 0; rc == 0 && n < q->n_copies; n++)
        rc = copy(a->s, q->node, q->copies[n]);
    return rc;
}

int st_cmd_drop_copies(struct apply *a, const ProtobufCMessage *body)
{
    return st_copies_of_node(a->s, ((const Star__LogHome *)body)->node, false);
}

/* --- reader --- */

int state_copies(struct state *s, uint64_t ino, uint64_t after_ino, uint32_t after_node,
                 state_copy_fn fn, void *arg)
{
    struct key k = st_key_copy(ino ? ino : after_ino, ino && ino != after_ino ? 0 : after_node);
    struct copy_row row;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(s, DB_COPIES, &cur);

    if (rc < 0)
        return rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0; rc = st_next(s, cur, &key, &val)) {
        struct state_copy_line line = {.ino = st_key_u64(&key, 0), .node = key_node(&key)};
        if (ino && line.ino != ino)
            break;
        if (line.ino == after_ino && line.node == after_node)
            continue;
        rc = st_row(s, &val, &row, sizeof(row));
        line.version = row.version;
        line.cached = row.cached;
        line.staged = row.staged;
        if (rc < 0 || !fn(arg, &line))
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}
