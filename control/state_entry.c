/* Directories: entries by name and by cookie, lookup, readdir, and the commands that make and
 * remove them. */
#include "control/state_private.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

/* --- names --- */

static bool is_dot(const void *name, size_t len)
{
    return len == 1 && memcmp(name, ".", 1) == 0;
}

static bool is_dotdot(const void *name, size_t len)
{
    return len == 2 && memcmp(name, "..", 2) == 0;
}

bool st_is_dots(const ProtobufCBinaryData *name)
{
    return is_dot(name->data, name->len) || is_dotdot(name->data, name->len);
}

int st_name_check(const ProtobufCBinaryData *name)
{
    if (name->len == 0 || memchr(name->data, '/', name->len) || memchr(name->data, '\0', name->len))
        return -EINVAL;
    return name->len > STATE_NAME_MAX ? -ENAMETOOLONG : 0;
}

/* --- entries --- */

static int dir_load(struct state *s, uint64_t ino, struct stored *dir)
{
    int rc = st_inode_load(s, ino, dir);

    if (rc == 0 && !S_ISDIR(dir->r.mode))
        rc = -ENOTDIR;
    return rc;
}

int st_dir_load(struct state *s, uint64_t ino, struct stored *dir)
{
    int rc = dir_load(s, ino, dir);

    return rc == 0 && dir->r.nlink == 0 ? -ENOENT : rc;
}

int st_entry_find(struct state *s, uint64_t dir, const void *name, size_t len, struct name_row *e)
{
    struct key k = st_key_name(dir, name, len);

    return st_get_row(s, DB_NAMES, &k, e, sizeof(*e));
}

static int entry_put(struct state *s, const struct stored *dir, const ProtobufCBinaryData *name,
                     const struct name_row *e)
{
    struct entry_row row = {.ino = e->ino, .type = e->type};
    struct key by_cookie = st_key2(dir->ino, e->cookie);
    struct key by_name = st_key_name(dir->ino, name->data, name->len);
    void *at;
    int rc = st_put(s, DB_NAMES, &by_name, e, sizeof(*e));

    if (rc == 0)
        rc = st_reserve(s, DB_ENTRIES, &by_cookie, sizeof(row) + name->len, &at);
    if (rc == 0) {
        memcpy(at, &row, sizeof(row));
        memcpy((uint8_t *)at + sizeof(row), name->data, name->len);
    }
    return rc;
}

int st_entry_add(struct state *s, struct stored *dir, const ProtobufCBinaryData *name, uint64_t ino,
                 uint32_t type, uint64_t *cookie)
{
    struct name_row e = {.cookie = dir->r.dir.next_cookie++, .ino = ino, .type = type & S_IFMT};

    dir->r.dir.entries++;
    *cookie = e.cookie;
    return entry_put(s, dir, name, &e);
}

int st_entry_remove(struct state *s, struct stored *dir, const ProtobufCBinaryData *name,
                    uint64_t cookie)
{
    struct key by_cookie = st_key2(dir->ino, cookie);
    struct key by_name = st_key_name(dir->ino, name->data, name->len);
    int rc = st_del(s, DB_NAMES, &by_name);

    if (rc == 0)
        rc = st_del(s, DB_ENTRIES, &by_cookie);
    dir->r.dir.entries--;
    return rc == -ENOENT ? st_fail(s, MDB_CORRUPTED) : rc;
}

int st_entry_retarget(struct state *s, const struct stored *dir, const ProtobufCBinaryData *name,
                      uint64_t cookie, uint64_t ino, uint32_t type)
{
    struct name_row e = {.cookie = cookie, .ino = ino, .type = type & S_IFMT};

    return entry_put(s, dir, name, &e);
}

/* --- lookup, readdir --- */

int state_lookup(struct state *s, uint64_t parent, const void *name, size_t len, struct inode *out)
{
    struct stored dir;
    struct name_row e;
    int rc = dir_load(s, parent, &dir);

    if (rc < 0)
        return rc;
    if (is_dot(name, len))
        return state_inode(s, parent, out);
    if (is_dotdot(name, len))
        return state_inode(s, dir.r.parent, out);
    if (len > STATE_NAME_MAX)
        return -ENAMETOOLONG;
    rc = st_entry_find(s, parent, name, len, &e);
    return rc < 0 ? rc : state_inode(s, e.ino, out);
}

struct listing {
    struct state *s;
    MDB_cursor *cur;
    state_entry_fn fn;
    void *arg;
    bool stopped;
};

static int list_entries(struct listing *l, uint64_t dir, uint64_t after)
{
    struct key k = st_key2(dir, after < COOKIE_FIRST ? COOKIE_FIRST : after + 1);
    struct entry_row row;
    MDB_val key, val;
    int rc = st_cursor(l->s, DB_ENTRIES, &l->cur);

    if (rc < 0)
        return rc;
    for (rc = st_seek(l->s, l->cur, &k, &key, &val); rc == 0;
         rc = st_next(l->s, l->cur, &key, &val)) {
        if (!st_under(&key, dir))
            break;
        if (val.mv_size < sizeof(row)) {
            rc = st_fail(l->s, MDB_CORRUPTED);
            break;
        }
        memcpy(&row, val.mv_data, sizeof(row));
        l->stopped = !l->fn(l->arg, (const char *)val.mv_data + sizeof(row),
                            val.mv_size - sizeof(row), row.ino, row.type, st_key_u64(&key, 8));
        if (l->stopped)
            break;
    }
    mdb_cursor_close(l->cur);
    return rc == -ENOENT ? 0 : rc;
}

int state_readdir(struct state *s, uint64_t dir, uint64_t cookie, state_entry_fn fn, void *arg,
                  bool *eof)
{
    struct listing l = {.s = s, .fn = fn, .arg = arg};
    struct stored d;
    int rc = dir_load(s, dir, &d);

    *eof = false;
    if (rc < 0)
        return rc;
    if (cookie < COOKIE_DOT)
        l.stopped = !fn(arg, ".", 1, dir, S_IFDIR, COOKIE_DOT);
    if (!l.stopped && cookie < COOKIE_DOTDOT)
        l.stopped = !fn(arg, "..", 2, d.r.parent, S_IFDIR, COOKIE_DOTDOT);
    if (!l.stopped && cookie < UINT64_MAX)
        rc = list_entries(&l, dir, cookie);
    *eof = rc == 0 && !l.stopped;
    return rc;
}

int state_readlink(struct state *s, uint64_t ino, char *buf, size_t size, size_t *len)
{
    struct key k = st_key1(ino);
    struct stored i;
    MDB_val val;
    int rc = st_inode_load(s, ino, &i);

    if (rc < 0)
        return rc;
    if (!S_ISLNK(i.r.mode))
        return -EINVAL;
    rc = st_get(s, DB_TARGETS, &k, &val);
    if (rc < 0)
        return rc == -ENOENT ? st_fail(s, MDB_CORRUPTED) : rc;
    if (val.mv_size > size)
        return -ERANGE;
    memcpy(buf, val.mv_data, val.mv_size);
    *len = val.mv_size;
    return 0;
}

/* --- making --- */

static int entry_reply(struct apply *a, const struct stored *i, const struct stored *dir)
{
    Star__EntryReply reply = STAR__ENTRY_REPLY__INIT;
    Star__Attr attr, parent;
    Star__Time times[3], parent_times[3];

    st_attr(i, &attr, times);
    st_attr(dir, &parent, parent_times);
    reply.attr = &attr;
    reply.parent = &parent;
    return st_reply(a, &reply.base);
}

/* A new name in the directory: its row, if nothing speaks against it. */
static int room_for(struct state *s, uint64_t parent, const ProtobufCBinaryData *name,
                    struct stored *dir)
{
    struct name_row e;
    int rc = dir_load(s, parent, dir);

    if (rc == 0)
        rc = st_name_check(name);
    if (rc < 0)
        return rc;
    if (st_is_dots(name))
        return -EEXIST;
    if (dir->r.nlink == 0)
        return -ENOENT;
    rc = st_entry_find(s, parent, name->data, name->len, &e);
    if (rc == -ENOENT)
        return 0;
    return rc < 0 ? rc : -EEXIST;
}

/* The type bits that this message makes. */
static int make_mode(const struct apply *a, const Star__Make *q, uint32_t *mode)
{
    uint32_t type = q->mode & S_IFMT;

    switch (a->e->type) {
    case STAR__MSG_TYPE__MKDIR:
        type = S_IFDIR;
        break;
    case STAR__MSG_TYPE__SYMLINK:
        *mode = S_IFLNK | 0777;
        return 0;
    case STAR__MSG_TYPE__CREATE:
        type = S_IFREG;
        break;
    default:
        if (type == 0)
            type = S_IFREG;
        if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK && type != S_IFCHR &&
            type != S_IFBLK)
            return type == S_IFDIR ? -EPERM : -EINVAL;
    }
    *mode = type | (q->mode & 07777);
    return 0;
}

static int check_make(const struct apply *a, const Star__Make *q)
{
    if (a->e->ino <= a->s->meta.last_ino || a->e->ino >> 63)
        return -EINVAL; /* the leader stamps new numbers */
    if (a->e->type == STAR__MSG_TYPE__SYMLINK) {
        if (q->target.len == 0)
            return -ENOENT;
        if (q->target.len > STATE_SYMLINK_MAX)
            return -ENAMETOOLONG;
        if (memchr(q->target.data, '\0', q->target.len))
            return -EINVAL;
    }
    return 0;
}

/* The inode as it will be, but for its ACLs: owner, set-group-id directories, home. */
static void make_inode(const struct apply *a, const Star__Make *q, const struct stored *dir,
                       struct stored *i)
{
    const Star__Cred *cred = q->head ? q->head->cred : NULL;
    struct inode_row *r = &i->r;

    r->format = INODE_ROW_FORMAT;
    r->nlink = 1;
    r->uid = cred ? cred->uid : 0;
    r->gid = cred ? cred->gid : 0;
    if (dir->r.mode & S_ISGID) {
        r->gid = dir->r.gid;
        if (S_ISDIR(r->mode))
            r->mode |= S_ISGID;
    }
    r->atime = r->mtime = r->ctime = a->sec;
    r->atime_ns = r->mtime_ns = r->ctime_ns = a->nsec;
    r->change = 1;
    r->parent = dir->ino;
    if (S_ISCHR(r->mode) || S_ISBLK(r->mode))
        r->rdev = q->rdev;
    if (S_ISDIR(r->mode)) {
        r->nlink = 2;
        r->dir.next_cookie = COOKIE_FIRST;
    }
    if (S_ISLNK(r->mode))
        r->size = q->target.len;
    /* A node that was given up since the leader chose it is no home. */
    if (a->e->type == STAR__MSG_TYPE__CREATE && a->e->node != 0 &&
        st_node_speaks(a->s, a->e->node)) {
        r->home = a->e->node;
        r->file.home_epoch = 1;
    }
}

/* As Linux' posix_acl_create: the directory's default ACL takes the place of the umask. */
static int inherit(struct apply *a, const Star__Make *q, const struct stored *dir, struct stored *i)
{
    const Star__Cred *cred = q->head ? q->head->cred : NULL;
    struct state *s = a->s;
    MDB_val val;

    if (S_ISLNK(i->r.mode))
        return 0;
    if (!(dir->r.flags & INODE_DEFAULT_ACL)) {
        i->r.mode &= ~(cred ? cred->umask & 0777u : 0);
        return 0;
    }
    int rc = st_xattr_get(s, dir->ino, XATTR_DEFAULT_ACL, &val);
    if (rc < 0)
        return rc == -ENODATA ? st_fail(s, MDB_CORRUPTED) : rc;
    size_t len = val.mv_size;
    uint8_t *acl = st_alloc(s, 2 * len);
    if (!acl)
        return -ENOMEM;
    memcpy(acl, val.mv_data, len);
    memcpy(acl + len, val.mv_data, len);
    if (S_ISDIR(i->r.mode))
        rc = st_xattr_put(s, i, XATTR_DEFAULT_ACL, strlen(XATTR_DEFAULT_ACL), acl + len, len);
    if (S_ISDIR(i->r.mode))
        i->r.flags |= INODE_DEFAULT_ACL;
    if (rc == 0 && !st_acl_create(acl, len, &i->r.mode)) {
        i->r.flags |= INODE_ACCESS_ACL;
        rc = st_xattr_put(s, i, XATTR_ACCESS_ACL, strlen(XATTR_ACCESS_ACL), acl, len);
    }
    return rc;
}

int st_cmd_make(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Make *q = (const Star__Make *)body;
    struct state *s = a->s;
    struct stored dir, i = {.ino = a->e->ino};
    struct key k = st_key1(i.ino);
    int rc = room_for(s, q->parent, &q->name, &dir);

    if (rc == 0)
        rc = check_make(a, q);
    if (rc == 0)
        rc = make_mode(a, q, &i.r.mode);
    if (rc < 0)
        return rc;
    make_inode(a, q, &dir, &i);
    rc = inherit(a, q, &dir, &i);
    if (rc == 0)
        rc = st_entry_add(s, &dir, &q->name, i.ino, i.r.mode, &i.r.cookie);
    if (rc == 0)
        rc = st_inode_new(s, &i);
    if (rc == 0 && S_ISLNK(i.r.mode))
        rc = st_put(s, DB_TARGETS, &k, q->target.data, q->target.len);
    dir.r.nlink += S_ISDIR(i.r.mode);
    st_mtime_now(a, &dir);
    if (rc == 0)
        rc = st_inode_store(s, &dir);
    return rc < 0 ? rc : entry_reply(a, &i, &dir);
}

int st_cmd_link(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Link *q = (const Star__Link *)body;
    struct state *s = a->s;
    struct stored dir, i;
    uint64_t cookie;
    int rc = st_inode_load(s, q->ino, &i);

    if (rc == 0)
        rc = room_for(s, q->parent, &q->name, &dir);
    if (rc < 0)
        return rc;
    if (S_ISDIR(i.r.mode))
        return -EPERM;
    if (i.r.nlink == 0)
        return -ENOENT;
    if (i.r.nlink >= STATE_LINK_MAX)
        return -EMLINK;
    rc = st_entry_add(s, &dir, &q->name, i.ino, i.r.mode, &cookie);
    if (i.r.parent == 0) { /* no entry was known any more */
        i.r.parent = dir.ino;
        i.r.cookie = cookie;
    }
    i.r.nlink++;
    st_ctime_now(a, &i);
    st_mtime_now(a, &dir);
    if (rc == 0)
        rc = st_inode_store(s, &i);
    if (rc == 0)
        rc = st_inode_store(s, &dir);
    return rc < 0 ? rc : entry_reply(a, &i, &dir);
}

/* --- removing --- */

int st_link_lost(struct apply *a, struct stored *i, uint64_t dir, uint64_t cookie)
{
    int rc = 0;

    st_ctime_now(a, i);
    if (S_ISDIR(i->r.mode) || i->r.nlink == 1) {
        rc = st_orphan_add(a->s, i); /* a directory keeps its parent, for ".." */
        if (!S_ISDIR(i->r.mode))
            i->r.parent = i->r.cookie = 0;
    } else {
        i->r.nlink--;
        if (i->r.parent == dir && i->r.cookie == cookie)
            i->r.parent = i->r.cookie = 0;
    }
    return rc < 0 ? rc : st_inode_store(a->s, i);
}

static int remove_entry(struct apply *a, const Star__Remove *q, struct stored *dir,
                        struct stored *i, const struct name_row *e)
{
    Star__RemoveReply reply = STAR__REMOVE_REPLY__INIT;
    Star__Attr parent;
    Star__Time times[3];
    int rc = st_entry_remove(a->s, dir, &q->name, e->cookie);

    if (rc == 0)
        rc = st_link_lost(a, i, dir->ino, e->cookie);
    dir->r.nlink -= S_ISDIR(i->r.mode);
    st_mtime_now(a, dir);
    if (rc == 0)
        rc = st_inode_store(a->s, dir);
    if (rc < 0)
        return rc;
    st_attr(dir, &parent, times);
    reply.ino = i->ino;
    reply.nlink = i->r.nlink;
    reply.parent = &parent;
    return st_reply(a, &reply.base);
}

static int find_victim(struct state *s, const Star__Remove *q, struct stored *dir, struct stored *i,
                       struct name_row *e)
{
    int rc = dir_load(s, q->parent, dir);

    if (rc == 0)
        rc = st_name_check(&q->name);
    if (rc == 0)
        rc = st_entry_find(s, q->parent, q->name.data, q->name.len, e);
    if (rc == 0)
        rc = st_inode_load(s, e->ino, i);
    return rc;
}

int st_cmd_unlink(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Remove *q = (const Star__Remove *)body;
    struct stored dir, i;
    struct name_row e;
    int rc = st_is_dots(&q->name) ? -EISDIR : find_victim(a->s, q, &dir, &i, &e);

    if (rc == 0 && S_ISDIR(i.r.mode))
        rc = -EISDIR;
    return rc < 0 ? rc : remove_entry(a, q, &dir, &i, &e);
}

int st_cmd_rmdir(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Remove *q = (const Star__Remove *)body;
    struct stored dir, i;
    struct name_row e;
    int rc;

    if (st_is_dots(&q->name))
        return q->name.len == 1 ? -EINVAL : -ENOTEMPTY;
    rc = find_victim(a->s, q, &dir, &i, &e);
    if (rc == 0 && !S_ISDIR(i.r.mode))
        rc = -ENOTDIR;
    if (rc == 0 && i.r.dir.entries > 0)
        rc = -ENOTEMPTY;
    return rc < 0 ? rc : remove_entry(a, q, &dir, &i, &e);
}

/* --- a path for people --- */

static int name_of(struct state *s, const struct stored *i, const char **name, size_t *len)
{
    struct key k = st_key2(i->r.parent, i->r.cookie);
    MDB_val val;
    int rc = i->r.parent == 0 || i->r.nlink == 0 ? -ENOENT : st_get(s, DB_ENTRIES, &k, &val);

    if (rc == 0 && val.mv_size < sizeof(struct entry_row))
        rc = st_fail(s, MDB_CORRUPTED);
    if (rc < 0)
        return rc;
    *name = (const char *)val.mv_data + sizeof(struct entry_row);
    *len = val.mv_size - sizeof(struct entry_row);
    return 0;
}

/* Written from its end; what does not fit is left out at the front, as "...". */
int state_path(struct state *s, uint64_t ino, char *buf, size_t size)
{
    struct stored i;
    const char *name;
    size_t len, at = size;
    int rc = st_inode_load(s, ino, &i);

    if (size < 32)
        return -ERANGE;
    buf[--at] = '\0';
    while (rc == 0 && i.ino != STATE_ROOT_INO) {
        rc = name_of(s, &i, &name, &len);
        if (rc < 0)
            break;
        if (len + 1 > at - 3) {
            at -= 3;
            memcpy(buf + at, "...", 3);
            goto out;
        }
        at -= len;
        memcpy(buf + at, name, len);
        buf[--at] = '/';
        rc = st_inode_load(s, i.r.parent, &i);
    }
    if (rc == -ENOENT || rc == -ESTALE) {
        snprintf(buf, size, "(inode %llu)", (unsigned long long)ino);
        return 0;
    }
    if (rc < 0)
        return rc;
    if (buf[at] == '\0')
        buf[--at] = '/';
out:
    memmove(buf, buf + at, size - at);
    return 0;
}
