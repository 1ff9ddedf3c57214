/* Extended attributes, and what setting an ACL does to the mode. */
#include "control/state_private.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/xattr.h>

/* --- rows --- */

int st_xattr_get(struct state *s, uint64_t ino, const char *name, MDB_val *val)
{
    struct key k = st_key_name(ino, name, strlen(name));
    int rc = st_get(s, DB_XATTRS, &k, val);

    return rc == -ENOENT ? -ENODATA : rc;
}

int st_xattr_put(struct state *s, struct stored *i, const void *name, size_t name_len,
                 const void *val, size_t len)
{
    struct key k = st_key_name(i->ino, name, name_len);
    MDB_val old;
    void *at;
    int rc = i->r.xattr_names ? st_get(s, DB_XATTRS, &k, &old) : -ENOENT;

    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (rc == 0) {
        i->r.xattr_bytes -= old.mv_size;
    } else {
        i->r.xattr_names += (uint32_t)name_len + 1;
        i->r.xattr_bytes += name_len;
    }
    i->r.xattr_bytes += len;
    rc = st_reserve(s, DB_XATTRS, &k, len, &at);
    if (rc == 0 && len > 0)
        memcpy(at, val, len);
    return rc;
}

int st_xattr_del(struct state *s, struct stored *i, const void *name, size_t name_len)
{
    struct key k = st_key_name(i->ino, name, name_len);
    MDB_val old;
    int rc = i->r.xattr_names ? st_get(s, DB_XATTRS, &k, &old) : -ENOENT;

    if (rc < 0)
        return rc == -ENOENT ? -ENODATA : rc;
    i->r.xattr_names -= (uint32_t)name_len + 1;
    i->r.xattr_bytes -= name_len + old.mv_size;
    return st_del(s, DB_XATTRS, &k);
}

int st_xattrs_free(struct state *s, struct stored *i)
{
    struct key k = st_key1(i->ino);
    MDB_val key, val;
    MDB_cursor *cur;

    if (i->r.xattr_names == 0)
        return 0;
    int rc = st_cursor(s, DB_XATTRS, &cur);
    while (rc == 0) {
        rc = st_seek(s, cur, &k, &key, &val);
        if (rc < 0 || !st_under(&key, i->ino))
            break;
        rc = st_cursor_del(s, DB_XATTRS, cur, &val);
    }
    if (cur)
        mdb_cursor_close(cur);
    i->r.xattr_names = 0;
    i->r.xattr_bytes = 0;
    return rc == -ENOENT ? 0 : rc;
}

/* --- commands --- */

static bool is_name(const ProtobufCBinaryData *name, const char *text)
{
    return name->len == strlen(text) && memcmp(name->data, text, name->len) == 0;
}

static bool has_prefix(const ProtobufCBinaryData *name, const char *prefix)
{
    return name->len > strlen(prefix) && memcmp(name->data, prefix, strlen(prefix)) == 0;
}

static int check_name(const ProtobufCBinaryData *name)
{
    static const char *const spaces[] = {"user.", "trusted.", "security.", "umbel."};

    if (name->len == 0 || memchr(name->data, '\0', name->len))
        return -EINVAL;
    if (name->len > STATE_XATTR_NAME_MAX)
        return -ERANGE;
    if (is_name(name, XATTR_ACCESS_ACL) || is_name(name, XATTR_DEFAULT_ACL))
        return 0;
    for (size_t n = 0; n < sizeof(spaces) / sizeof(spaces[0]); n++)
        if (has_prefix(name, spaces[n]))
            return 0;
    return -EOPNOTSUPP;
}

/* Whether the attribute fits, and is (not) there as the flags want. */
static int check_put(struct state *s, const struct stored *i, const Star__Xattr *q)
{
    struct key k = st_key_name(i->ino, q->name.data, q->name.len);
    MDB_val old = {0};

    if (q->flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if (q->value.len > STATE_XATTR_VALUE_MAX)
        return -E2BIG;
    int rc = st_get(s, DB_XATTRS, &k, &old);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    bool there = rc == 0;
    if (there && (q->flags & XATTR_CREATE))
        return -EEXIST;
    if (!there && (q->flags & XATTR_REPLACE))
        return -ENODATA;
    uint64_t bytes = i->r.xattr_bytes - old.mv_size + (there ? 0 : q->name.len) + q->value.len;
    uint64_t names = i->r.xattr_names + (there ? 0 : q->name.len + 1);
    return bytes > XATTR_BYTES_MAX || names > XATTR_NAMES_MAX ? -ENOSPC : 0;
}

static int drop_acl(struct state *s, struct stored *i, const ProtobufCBinaryData *name)
{
    int rc = st_xattr_del(s, i, name->data, name->len);

    i->r.flags &=
        (uint8_t) ~(is_name(name, XATTR_ACCESS_ACL) ? INODE_ACCESS_ACL : INODE_DEFAULT_ACL);
    return rc;
}

static int check_acl(const struct stored *i, const Star__Xattr *q)
{
    if (S_ISLNK(i->r.mode))
        return -EOPNOTSUPP;
    if (is_name(&q->name, XATTR_DEFAULT_ACL) && !S_ISDIR(i->r.mode))
        return -EACCES;
    if (q->value.len == 0 || q->value.len == 4) /* no ACL, or one without entries: takes it away */
        return 0;
    return st_acl_check(q->value.data, q->value.len);
}

static int set_acl(struct apply *a, struct stored *i, const Star__Xattr *q)
{
    bool access = is_name(&q->name, XATTR_ACCESS_ACL);
    int whole = q->value.len <= 4;
    int rc = 0;

    if (!whole && access) {
        whole = st_acl_to_mode(q->value.data, q->value.len, &i->r.mode);
        if (q->kill_sgid)
            i->r.mode &= ~(uint32_t)S_ISGID;
    }
    if (whole) {
        rc = drop_acl(a->s, i, &q->name);
        return rc == -ENODATA ? 0 : rc;
    }
    i->r.flags |= access ? INODE_ACCESS_ACL : INODE_DEFAULT_ACL;
    return st_xattr_put(a->s, i, q->name.data, q->name.len, q->value.data, q->value.len);
}

static int finish(struct apply *a, struct stored *i)
{
    st_ctime_now(a, i);
    int rc = st_inode_store(a->s, i);
    return rc < 0 ? rc : st_attr_reply(a, i);
}

int st_cmd_setxattr(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Xattr *q = (const Star__Xattr *)body;
    bool acl = is_name(&q->name, XATTR_ACCESS_ACL) || is_name(&q->name, XATTR_DEFAULT_ACL);
    struct stored i;
    int rc = check_name(&q->name);

    if (rc == 0)
        rc = st_inode_load(a->s, q->ino, &i);
    if (rc == 0 && acl)
        rc = check_acl(&i, q);
    if (rc == 0)
        rc = check_put(a->s, &i, q);
    if (rc < 0)
        return rc;
    rc = acl ? set_acl(a, &i, q)
             : st_xattr_put(a->s, &i, q->name.data, q->name.len, q->value.data, q->value.len);
    return rc < 0 ? rc : finish(a, &i);
}

int st_cmd_removexattr(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Xattr *q = (const Star__Xattr *)body;
    bool acl = is_name(&q->name, XATTR_ACCESS_ACL) || is_name(&q->name, XATTR_DEFAULT_ACL);
    struct stored i;
    int rc = check_name(&q->name);

    if (rc == 0)
        rc = st_inode_load(a->s, q->ino, &i);
    if (rc < 0)
        return rc;
    rc = acl ? drop_acl(a->s, &i, &q->name) : st_xattr_del(a->s, &i, q->name.data, q->name.len);
    if (acl && rc == -ENODATA) /* as local filesystems do */
        return st_attr_reply(a, &i);
    return rc < 0 ? rc : finish(a, &i);
}

/* --- readers --- */

int state_getxattr(struct state *s, uint64_t ino, const char *name, void *value, size_t size,
                   size_t *len)
{
    struct stored i;
    MDB_val val;
    int rc = st_inode_load(s, ino, &i);

    *len = 0;
    if (rc < 0)
        return rc;
    if (strlen(name) > STATE_XATTR_NAME_MAX)
        return -ERANGE;
    if (i.r.xattr_names == 0)
        return -ENODATA;
    rc = st_xattr_get(s, ino, name, &val);
    if (rc < 0)
        return rc;
    *len = val.mv_size;
    if (!value)
        return 0;
    if (val.mv_size > size)
        return -ERANGE;
    memcpy(value, val.mv_data, val.mv_size);
    return 0;
}

int state_listxattr(struct state *s, uint64_t ino, char *buf, size_t size, size_t *len)
{
    struct key k = st_key1(ino);
    MDB_val key, val;
    MDB_cursor *cur;
    struct stored i;
    int rc = st_inode_load(s, ino, &i);

    *len = 0;
    if (rc < 0 || i.r.xattr_names == 0)
        return rc;
    *len = i.r.xattr_names;
    if (!buf)
        return 0;
    if (*len > size)
        return -ERANGE;
    rc = st_cursor(s, DB_XATTRS, &cur);
    if (rc < 0)
        return rc;
    size_t at = 0;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0; rc = st_next(s, cur, &key, &val)) {
        size_t n = key.mv_size - 8;
        if (!st_under(&key, ino))
            break;
        if (n + 1 > *len - at) {
            rc = st_fail(s, MDB_CORRUPTED);
            break;
        }
        memcpy(buf + at, (const char *)key.mv_data + 8, n);
        at += n;
        buf[at++] = '\0';
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}
