/* Check: inodes, entries, extended attributes, symlinks, orphans. */
#include "control/state_check.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

/* --- inodes --- */

static void check_row(struct check *c, const struct stored *i)
{
    const struct inode_row *r = &i->r;
    uint32_t type = r->mode & S_IFMT;

    if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFIFO &&
        type != S_IFSOCK && type != S_IFCHR && type != S_IFBLK)
        st_check_problem(c, "inode %" PRIu64 " has mode %o", i->ino, r->mode);
    if (i->ino == 0 || i->ino > c->s->meta.last_ino)
        st_check_problem(c, "inode %" PRIu64 " is beyond the last number given, %" PRIu64, i->ino,
                         c->s->meta.last_ino);
    if (r->atime_ns > 999999999 || r->mtime_ns > 999999999 || r->ctime_ns > 999999999)
        st_check_problem(c, "inode %" PRIu64 " has a time that is none", i->ino);
    if (r->home && type != S_IFREG)
        st_check_problem(c, "inode %" PRIu64 " is no file but has a home", i->ino);
    if (r->flags & ~(INODE_ACCESS_ACL | INODE_DEFAULT_ACL))
        st_check_problem(c, "inode %" PRIu64 " has unknown flags", i->ino);
    if ((r->flags & INODE_DEFAULT_ACL) && type != S_IFDIR)
        st_check_problem(c, "inode %" PRIu64 " is no directory but has a default ACL", i->ino);
    if (type == S_IFREG && r->home && r->file.home_epoch == 0)
        st_check_problem(c, "inode %" PRIu64 " has a home but no epoch", i->ino);
    if (type == S_IFREG && r->file.cut_size > r->size && r->file.cut_version == r->version)
        st_check_problem(c, "inode %" PRIu64 ": its cut is longer than it", i->ino);
}

static int add_inode(struct check *c, const MDB_val *key, const MDB_val *val)
{
    struct stored i = {.ino = st_key_u64(key, 0)};
    struct seen_inode *e = st_check_add(c, &c->inodes, i.ino);

    if (!e)
        return -ENOMEM;
    if (key->mv_size != 8 || val->mv_size != sizeof(i.r)) {
        st_check_problem(c, "inode %" PRIu64 " has a row of %zu bytes", i.ino, val->mv_size);
        return 0;
    }
    memcpy(&i.r, val->mv_data, sizeof(i.r));
    check_row(c, &i);
    e->type = i.r.mode & S_IFMT;
    e->nlink = i.r.nlink;
    e->parent = i.r.parent;
    e->flags = i.r.flags;
    e->home = i.r.home;
    e->names_bytes = i.r.xattr_names;
    e->xattr_bytes = i.r.xattr_bytes;
    e->size = i.r.size;
    if (e->type == S_IFDIR) {
        e->next_cookie = i.r.dir.next_cookie;
        e->entries = i.r.dir.entries;
    } else {
        e->mapped = i.r.file.mapped;
    }
    c->totals.inodes++;
    c->totals.mapped += e->mapped;
    if (e->type == S_IFREG)
        c->totals.bytes += i.r.size;
    return 0;
}

/* --- entries --- */

static void check_known_entry(struct check *c, struct seen_inode *target, const struct name_row *e,
                              uint64_t dir)
{
    struct stored i;

    if (target->parent != dir || st_inode_load(c->s, e->ino, &i) < 0 || i.r.cookie != e->cookie)
        return;
    target->known_entry = true;
}

static int check_name(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t dir = st_key_u64(key, 0);
    const char *name = (const char *)key->mv_data + 8;
    ProtobufCBinaryData text = {.len = key->mv_size - 8, .data = (uint8_t *)key->mv_data + 8};
    struct seen_inode *d = st_check_inode(c, dir), *target;
    struct name_row e;
    struct entry_row row;
    MDB_val entry;

    if (key->mv_size <= 8 || val->mv_size != sizeof(e) || st_name_check(&text) < 0 ||
        st_is_dots(&text)) {
        st_check_problem(c, "directory %" PRIu64 " has a name that is none", dir);
        return 0;
    }
    int len = (int)text.len;
    memcpy(&e, val->mv_data, sizeof(e));
    if (!d || d->type != S_IFDIR) {
        st_check_problem(c, "'%.*s' lies in inode %" PRIu64 ", which is no directory", len, name,
                         dir);
        return 0;
    }
    d->found_entries++;
    if (e.cookie < COOKIE_FIRST || e.cookie >= d->next_cookie)
        st_check_problem(c, "'%.*s' in %" PRIu64 " has cookie %" PRIu64 ", never given", len, name,
                         dir, e.cookie);
    struct key k = st_key2(dir, e.cookie);
    int rc = st_get(c->s, DB_ENTRIES, &k, &entry);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == 0 && entry.mv_size >= sizeof(row))
        memcpy(&row, entry.mv_data, sizeof(row));
    if (rc < 0 || entry.mv_size != sizeof(row) + text.len || row.ino != e.ino ||
        row.type != e.type || memcmp((uint8_t *)entry.mv_data + sizeof(row), name, text.len) != 0)
        st_check_problem(c, "'%.*s' in %" PRIu64 " is not the same by name and by cookie", len,
                         name, dir);
    target = st_check_inode(c, e.ino);
    if (!target || target->type != e.type) {
        st_check_problem(c, "'%.*s' in %" PRIu64 " leads to inode %" PRIu64 ", which is %s", len,
                         name, dir, e.ino, target ? "of another type" : "not there");
        return 0;
    }
    target->links++;
    if (target->type == S_IFDIR) {
        d->subdirs++;
        if (target->parent != dir)
            st_check_problem(c, "directory %" PRIu64 " lies in %" PRIu64 " but says %" PRIu64,
                             e.ino, dir, target->parent);
    }
    check_known_entry(c, target, &e, dir);
    return 0;
}

static int check_entry(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t dir = st_key_u64(key, 0), cookie = st_key_u64(key, 8);
    struct name_row e;

    int rc =
        key->mv_size == 16 && val->mv_size > sizeof(struct entry_row)
            ? st_entry_find(c->s, dir, (const uint8_t *)val->mv_data + sizeof(struct entry_row),
                            val->mv_size - sizeof(struct entry_row), &e)
            : -ENOENT;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc < 0 || e.cookie != cookie)
        st_check_problem(c, "directory %" PRIu64 ": cookie %" PRIu64 " leads to no name", dir,
                         cookie);
    return 0;
}

/* --- what hangs at an inode --- */

static int check_xattr(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t ino = st_key_u64(key, 0);
    struct seen_inode *i = st_check_inode(c, ino);
    const char *name = (const char *)key->mv_data + 8;
    size_t len = key->mv_size - 8;
    bool access = len == strlen(XATTR_ACCESS_ACL) && memcmp(name, XATTR_ACCESS_ACL, len) == 0;
    bool dflt = len == strlen(XATTR_DEFAULT_ACL) && memcmp(name, XATTR_DEFAULT_ACL, len) == 0;

    if (key->mv_size <= 8 || !i) {
        st_check_problem(c, "an attribute of inode %" PRIu64 ", which is not there", ino);
        return 0;
    }
    i->found_names += (uint32_t)len + 1;
    i->found_xattr_bytes += len + val->mv_size;
    if (val->mv_size > STATE_XATTR_VALUE_MAX)
        st_check_problem(c, "inode %" PRIu64 ": attribute '%.*s' is too long", ino, (int)len, name);
    if (!access && !dflt)
        return 0;
    i->acls |= access ? INODE_ACCESS_ACL : INODE_DEFAULT_ACL;
    if (st_acl_check(val->mv_data, val->mv_size) < 0) {
        st_check_problem(c, "inode %" PRIu64 " has an ACL that is none", ino);
    } else if (access) {
        struct stored row;
        uint32_t mode;
        int rc = st_inode_load(c->s, ino, &row);
        if (rc < 0)
            return rc;
        mode = row.r.mode;
        if (st_acl_to_mode(val->mv_data, val->mv_size, &mode) || mode != row.r.mode)
            st_check_problem(c, "inode %" PRIu64 ": its ACL says mode %o, its mode is %o", ino,
                             mode, row.r.mode);
    }
    return 0;
}

static int check_target(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t ino = st_key_u64(key, 0);
    struct seen_inode *i = st_check_inode(c, ino);

    if (!i || i->type != S_IFLNK || i->size != val->mv_size)
        st_check_problem(c, "a symlink's target for inode %" PRIu64 ", which is %s", ino,
                         !i                   ? "not there"
                         : i->type == S_IFLNK ? "of another length"
                                              : "no symlink");
    else
        i->target = true;
    return 0;
}

static int check_orphan(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t ino = st_key_u64(key, 0);
    struct seen_inode *i = st_check_inode(c, ino);

    (void)val;
    c->totals.orphans++;
    if (!i)
        st_check_problem(c, "orphan %" PRIu64 " is not there", ino);
    else
        i->orphan = true;
    return 0;
}

/* That a job has a file counts as a link. */
static int check_job_file(struct check *c, const MDB_val *key, const MDB_val *val)
{
    uint64_t job = st_key_u64(key, 0), ino;
    int rc = st_row(c->s, val, &ino, sizeof(ino));

    if (rc < 0)
        return rc;
    struct key k = st_key1(job);
    MDB_val row;
    struct seen_inode *i = st_check_inode(c, ino);
    if (!i || i->type != S_IFREG)
        st_check_problem(c, "job %" PRIu64 " has inode %" PRIu64 ", which is no file", job, ino);
    else
        i->links++;
    rc = st_get(c->s, DB_JOBS, &k, &row);
    if (rc == -ENOENT)
        st_check_problem(c, "a file of job %" PRIu64 ", which is not there", job);
    return rc == -ENOENT ? 0 : rc;
}

/* --- each inode, when all was seen --- */

static void check_links(struct check *c, const struct seen_inode *i)
{
    bool dir = i->type == S_IFDIR, root = i->ino == STATE_ROOT_INO;
    uint32_t links = dir ? i->subdirs + (root || i->links ? 2 : 0) : i->links;

    if (dir && i->links > !root)
        st_check_problem(c, "directory %" PRIu64 " has %u names", i->ino, i->links);
    if (links != i->nlink)
        st_check_problem(c, "inode %" PRIu64 " has nlink %u, counted %u", i->ino, i->nlink, links);
    if (i->orphan != (i->nlink == 0))
        st_check_problem(c, "inode %" PRIu64 " has nlink %u and is %s orphan", i->ino, i->nlink,
                         i->orphan ? "an" : "no");
    if (dir && i->entries != i->found_entries)
        st_check_problem(c, "directory %" PRIu64 " has %" PRIu64 " entries, counted %" PRIu64,
                         i->ino, i->entries, i->found_entries);
    if (root ? i->parent != STATE_ROOT_INO : i->nlink && i->parent && !i->known_entry)
        st_check_problem(c, "inode %" PRIu64 ": the entry that it knows does not lead to it",
                         i->ino);
    if (dir && !root && i->parent == 0)
        st_check_problem(c, "directory %" PRIu64 " knows no parent", i->ino);
}

/* Every directory that has a name hangs, over its parents, at the root. */
static void check_reach(struct check *c, const struct seen_inode *i)
{
    const struct seen_inode *at = i;
    size_t steps = 0;

    while (at && at->ino != STATE_ROOT_INO && steps++ <= c->inodes.n)
        at = st_check_inode(c, at->parent);
    if (!at || at->ino != STATE_ROOT_INO)
        st_check_problem(c, "directory %" PRIu64 " is not below the root", i->ino);
}

static void check_seen(struct check *c)
{
    const struct seen_inode *i = c->inodes.rows;

    if (!st_check_inode(c, STATE_ROOT_INO))
        st_check_problem(c, "there is no root");
    for (size_t n = 0; n < c->inodes.n; n++, i++) {
        check_links(c, i);
        if (i->type == S_IFDIR && i->nlink > 0)
            check_reach(c, i);
        if (i->type == S_IFLNK && !i->target)
            st_check_problem(c, "symlink %" PRIu64 " has no target", i->ino);
        if (i->flags != i->acls)
            st_check_problem(c, "inode %" PRIu64 ": its flags say ACLs %u, found %u", i->ino,
                             i->flags, i->acls);
        if (i->names_bytes != i->found_names || i->xattr_bytes != i->found_xattr_bytes)
            st_check_problem(c, "inode %" PRIu64 ": bytes of its attributes are counted wrong",
                             i->ino);
    }
}

int st_check_names(struct check *c)
{
    int rc = st_check_each(c, DB_INODES, add_inode);

    if (rc == 0)
        rc = st_check_each(c, DB_NAMES, check_name);
    if (rc == 0)
        rc = st_check_each(c, DB_ENTRIES, check_entry);
    if (rc == 0)
        rc = st_check_each(c, DB_JOB_FILES, check_job_file);
    if (rc == 0)
        rc = st_check_each(c, DB_XATTRS, check_xattr);
    if (rc == 0)
        rc = st_check_each(c, DB_TARGETS, check_target);
    if (rc == 0)
        rc = st_check_each(c, DB_ORPHANS, check_orphan);
    if (rc == 0)
        check_seen(c);
    return rc;
}
