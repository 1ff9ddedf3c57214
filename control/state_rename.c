/* RENAME: all of its rules, checked before anything changes. */
#include "control/state_private.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#define NOREPLACE 1u
#define EXCHANGE  2u

/* One side: a directory, a name in it, and what the name leads to. dir points to the other side's
 * row if both are in one directory. */
struct side {
    const ProtobufCBinaryData *name;
    struct stored *dir, dir_row;
    struct stored i;
    struct name_row e;
    bool exists;
};

static int side_load(struct state *s, struct side *at, uint64_t parent,
                     const ProtobufCBinaryData *name, struct side *other)
{
    int rc = st_name_check(name);

    if (rc == 0 && st_is_dots(name))
        rc = -EINVAL;
    if (rc < 0)
        return rc;
    at->name = name;
    at->dir = &at->dir_row;
    if (other && other->dir->ino == parent)
        at->dir = other->dir;
    else
        rc = st_dir_load(s, parent, at->dir);
    if (rc == 0)
        rc = st_entry_find(s, parent, name->data, name->len, &at->e);
    if (rc == -ENOENT && other)
        return at->dir->r.nlink == 0 ? rc : 0; /* the target's name may be free */
    at->exists = rc == 0;
    return rc < 0 ? rc : st_inode_load(s, at->e.ino, &at->i);
}

/* Whether dir is ino or lies below it. Parents of directories make no circle, so the walk ends at
 * the root. */
static int is_below(struct state *s, uint64_t dir, uint64_t ino, bool *below)
{
    uint64_t steps = s->meta.totals.inodes;
    struct stored d;

    *below = true;
    while (dir != ino) {
        if (steps-- == 0)
            return st_fail(s, MDB_CORRUPTED);
        if (dir == STATE_ROOT_INO) {
            *below = false;
            return 0;
        }
        int rc = st_inode_load(s, dir, &d);
        if (rc < 0)
            return rc == -ESTALE ? st_fail(s, MDB_CORRUPTED) : rc;
        dir = d.r.parent;
    }
    return 0;
}

/* refusal, if what is on this side is a directory under which the other side's directory lies. */
static int check_not_above(struct state *s, const struct side *at, const struct side *other,
                           int refusal)
{
    bool below;

    if (!at->exists || !S_ISDIR(at->i.r.mode) || at->dir == other->dir)
        return 0;
    int rc = is_below(s, other->dir->ino, at->i.ino, &below);
    return rc < 0 ? rc : below ? refusal : 0;
}

static int check_target(const struct side *from, const struct side *to)
{
    bool dir = S_ISDIR(from->i.r.mode), to_dir = S_ISDIR(to->i.r.mode);

    if (dir != to_dir)
        return dir ? -ENOTDIR : -EISDIR;
    return to_dir && to->i.r.dir.entries > 0 ? -ENOTEMPTY : 0;
}

static int check(struct state *s, const Star__Rename *q, const struct side *from,
                 const struct side *to)
{
    int rc;

    if ((q->flags & NOREPLACE) && to->exists)
        return -EEXIST;
    if ((q->flags & EXCHANGE) && !to->exists)
        return -ENOENT;
    rc = check_not_above(s, from, to, -EINVAL);
    if (rc == 0)
        rc = check_not_above(s, to, from, q->flags & EXCHANGE ? -EINVAL : -ENOTEMPTY);
    if (rc == 0 && !(q->flags & EXCHANGE) && to->exists && to->i.ino != from->i.ino)
        rc = check_target(from, to);
    return rc;
}

static int store_dirs(struct apply *a, struct side *from, struct side *to)
{
    st_mtime_now(a, from->dir);
    int rc = st_inode_store(a->s, from->dir);

    if (rc == 0 && to->dir != from->dir) {
        st_mtime_now(a, to->dir);
        rc = st_inode_store(a->s, to->dir);
    }
    return rc;
}

/* The inode now hangs at this entry. */
static int settle(struct apply *a, struct stored *i, struct stored *old_dir, struct stored *new_dir,
                  uint64_t cookie)
{
    if (S_ISDIR(i->r.mode)) {
        old_dir->r.nlink--;
        new_dir->r.nlink++;
    }
    i->r.parent = new_dir->ino;
    i->r.cookie = cookie;
    st_ctime_now(a, i);
    return st_inode_store(a->s, i);
}

static int move(struct apply *a, struct side *from, struct side *to)
{
    struct state *s = a->s;
    uint64_t cookie;
    int rc = st_entry_remove(s, from->dir, from->name, from->e.cookie);

    if (rc == 0 && to->exists) {
        rc = st_entry_remove(s, to->dir, to->name, to->e.cookie);
        if (rc == 0)
            rc = st_link_lost(a, &to->i, to->dir->ino, to->e.cookie);
        to->dir->r.nlink -= S_ISDIR(to->i.r.mode);
    }
    if (rc == 0)
        rc = st_entry_add(s, to->dir, to->name, from->i.ino, from->i.r.mode, &cookie);
    if (rc == 0)
        rc = settle(a, &from->i, from->dir, to->dir, cookie);
    return rc < 0 ? rc : store_dirs(a, from, to);
}

/* The names stay where they are in the listing. */
static int exchange(struct apply *a, struct side *from, struct side *to)
{
    struct state *s = a->s;
    int rc = st_entry_retarget(s, from->dir, from->name, from->e.cookie, to->i.ino, to->i.r.mode);

    if (rc == 0)
        rc = st_entry_retarget(s, to->dir, to->name, to->e.cookie, from->i.ino, from->i.r.mode);
    if (rc == 0)
        rc = settle(a, &from->i, from->dir, to->dir, to->e.cookie);
    if (rc == 0)
        rc = settle(a, &to->i, to->dir, from->dir, from->e.cookie);
    return rc < 0 ? rc : store_dirs(a, from, to);
}

int st_cmd_rename(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Rename *q = (const Star__Rename *)body;
    Star__RenameReply reply = STAR__RENAME_REPLY__INIT;
    struct side from = {0}, to = {0};
    int rc;

    if (q->flags & ~(NOREPLACE | EXCHANGE) || q->flags == (NOREPLACE | EXCHANGE))
        return -EINVAL;
    rc = side_load(a->s, &from, q->parent, &q->name, NULL);
    if (rc == 0)
        rc = side_load(a->s, &to, q->new_parent, &q->new_name, &from);
    if (rc == 0)
        rc = check(a->s, q, &from, &to);
    if (rc < 0)
        return rc;
    reply.moved = from.i.ino;
    if (to.exists && to.i.ino == from.i.ino)
        return st_reply(a, &reply.base); /* two names of one inode: nothing happens */
    if (q->flags & EXCHANGE) {
        rc = exchange(a, &from, &to);
    } else {
        rc = move(a, &from, &to);
        if (to.exists) {
            reply.replaced = to.i.ino;
            reply.replaced_nlink = to.i.r.nlink;
        }
    }
    return rc < 0 ? rc : st_reply(a, &reply.base);
}
