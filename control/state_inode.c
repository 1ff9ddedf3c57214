/* Inodes: load, store, what others see of them, and the commands that change attributes or home. */
#include "control/state_private.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <sys/stat.h>

#define XATTR_CAPABILITY "security.capability"

/* --- rows --- */

int st_inode_load(struct state *s, uint64_t ino, struct stored *i)
{
    struct key k = st_key1(ino);
    int rc = st_get_row(s, DB_INODES, &k, &i->r, sizeof(i->r));

    i->ino = ino;
    if (rc == 0 && i->r.format != INODE_ROW_FORMAT)
        rc = st_fail(s, MDB_CORRUPTED);
    return rc == -ENOENT ? -ESTALE : rc;
}

int st_inode_store(struct state *s, const struct stored *i)
{
    struct key k = st_key1(i->ino);

    return st_put(s, DB_INODES, &k, &i->r, sizeof(i->r));
}

int st_inode_new(struct state *s, const struct stored *i)
{
    struct key k = st_key1(i->ino);

    s->meta.totals.inodes++;
    return st_append(s, DB_INODES, &k, &i->r, sizeof(i->r));
}

int st_root_make(struct state *s)
{
    struct stored root = {.ino = STATE_ROOT_INO,
                          .r = {.format = INODE_ROW_FORMAT,
                                .mode = S_IFDIR | 0755,
                                .nlink = 2,
                                .parent = STATE_ROOT_INO,
                                .dir.next_cookie = COOKIE_FIRST}};

    return st_inode_new(s, &root);
}

int st_orphan_add(struct state *s, struct stored *i)
{
    struct key k = st_key1(i->ino);

    i->r.nlink = 0;
    s->meta.totals.orphans++;
    return st_put(s, DB_ORPHANS, &k, "", 0);
}

/* --- what others see --- */

void st_inode_public(const struct stored *i, struct inode *out)
{
    const struct inode_row *r = &i->r;

    *out = (struct inode){.ino = i->ino,
                          .mode = r->mode,
                          .nlink = r->nlink,
                          .uid = r->uid,
                          .gid = r->gid,
                          .rdev = r->rdev,
                          .size = r->size,
                          .atime = {r->atime, r->atime_ns},
                          .mtime = {r->mtime, r->mtime_ns},
                          .ctime = {r->ctime, r->ctime_ns},
                          .version = r->version,
                          .change = r->change,
                          .home = r->home,
                          .has_acl = r->flags != 0,
                          .orphan = r->nlink == 0};
    out->parent = r->parent;
    if (S_ISDIR(r->mode)) {
        out->entries = r->dir.entries;
    } else {
        out->home_epoch = r->file.home_epoch;
        out->cut = r->file.cut;
        out->map_version = r->file.map_version;
        out->mapped = r->file.mapped;
        out->cut_version = r->file.cut_version;
        out->cut_size = r->file.cut_size;
    }
}

int state_inode(struct state *s, uint64_t ino, struct inode *out)
{
    struct stored i;
    int rc = st_inode_load(s, ino, &i);

    if (rc == 0)
        st_inode_public(&i, out);
    return rc;
}

int state_inodes(struct state *s, uint64_t after, state_inode_fn fn, void *arg)
{
    struct key k = st_key1(after + 1);
    struct inode out;
    struct stored i;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = after == UINT64_MAX ? -ENOENT : st_cursor(s, DB_INODES, &cur);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0; rc = st_next(s, cur, &key, &val)) {
        i.ino = st_key_u64(&key, 0);
        rc = st_row(s, &val, &i.r, sizeof(i.r));
        if (rc < 0)
            break;
        st_inode_public(&i, &out);
        if (!fn(arg, &out))
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

static void fill_time(Star__Time *t, int64_t sec, uint32_t nsec)
{
    star__time__init(t);
    t->sec = sec;
    t->nsec = nsec;
}

uint64_t state_blocks(uint64_t size, uint64_t bytes)
{
    uint64_t held = bytes < size ? bytes : size;

    return held / 512 + (held % 512 != 0);
}

void state_attr(const struct inode *i, Star__Attr *attr, Star__Time times[3])
{
    /* What is staged only its home knows. */
    uint64_t bytes = i->home && i->version > i->cut_version ? i->size : i->mapped;

    star__attr__init(attr);
    attr->ino = i->ino;
    attr->mode = i->mode;
    attr->nlink = i->nlink;
    attr->uid = i->uid;
    attr->gid = i->gid;
    attr->rdev = i->rdev;
    attr->size = i->size;
    attr->blocks = S_ISREG(i->mode) ? state_blocks(i->size, bytes) : 0;
    attr->version = i->version;
    attr->change = i->change;
    fill_time(&times[0], i->atime.sec, i->atime.nsec);
    fill_time(&times[1], i->mtime.sec, i->mtime.nsec);
    fill_time(&times[2], i->ctime.sec, i->ctime.nsec);
    attr->atime = &times[0];
    attr->mtime = &times[1];
    attr->ctime = &times[2];
}

void st_attr(const struct stored *i, Star__Attr *attr, Star__Time times[3])
{
    struct inode p;

    st_inode_public(i, &p);
    state_attr(&p, attr, times);
}

int st_attr_reply(struct apply *a, const struct stored *i)
{
    Star__AttrReply reply = STAR__ATTR_REPLY__INIT;
    Star__Attr attr;
    Star__Time times[3];

    st_attr(i, &attr, times);
    reply.attr = &attr;
    return st_reply(a, &reply.base);
}

/* --- times, size --- */

void st_ctime_now(const struct apply *a, struct stored *i)
{
    if (a->sec > i->r.ctime || (a->sec == i->r.ctime && a->nsec > i->r.ctime_ns)) {
        i->r.ctime = a->sec;
        i->r.ctime_ns = a->nsec;
    }
    i->r.change++;
}

void st_mtime_now(const struct apply *a, struct stored *i)
{
    i->r.mtime = a->sec;
    i->r.mtime_ns = a->nsec;
    st_ctime_now(a, i);
}

/* The distance to the newest truncation that was shorter than the one after it; a longer one than
 * fits refuses more cuts than it must. */
static uint32_t older_truncation(const struct inode_row *r, uint64_t version, uint64_t size)
{
    uint64_t at = 0;

    if (r->file.trunc_version > r->file.cut_version)
        at = size > r->file.trunc_size ? r->file.trunc_version
             : r->file.trunc_older > 0 ? r->file.trunc_version - r->file.trunc_older
                                       : 0;
    if (at == 0 || at >= version)
        return 0;
    return version - at < UINT32_MAX ? (uint32_t)(version - at) : UINT32_MAX;
}

/* At this version the file ended at size: what older cuts have beyond it is dead. */
static int truncated(struct apply *a, struct stored *i, uint64_t version, uint64_t size)
{
    if (version <= i->r.file.cut_version)
        return 0; /* the pool has the file as it was afterwards */
    i->r.file.trunc_older = older_truncation(&i->r, version, size);
    i->r.file.trunc_version = version;
    i->r.file.trunc_size = size;
    if (i->r.file.cut_size > size)
        i->r.file.cut_size = size;
    return st_map_cut(a->s, i, size, UINT64_MAX);
}

static int size_set(struct apply *a, struct stored *i, uint64_t size)
{
    struct state_totals *t = &a->s->meta.totals;
    bool shrinks = size < i->r.size;

    t->bytes = t->bytes - i->r.size + size;
    i->r.size = size;
    return shrinks ? truncated(a, i, i->r.version, size) : 0;
}

static bool later(const Star__Time *t, int64_t sec, uint32_t nsec)
{
    return t->sec > sec || (t->sec == sec && t->nsec > nsec);
}

static bool time_ok(const Star__Time *t)
{
    return !t || t->nsec <= 999999999;
}

bool st_home_ok(const Star__HomeAttrs *h)
{
    return h->size <= INT64_MAX && time_ok(h->mtime) && time_ok(h->ctime);
}

int st_straight_says(struct apply *a, struct stored *i, const Star__HomeAttrs *h, bool *news)
{
    struct inode_row *r = &i->r;

    *news = false;
    if (!st_home_ok(h))
        return -EINVAL;
    if (!S_ISREG(r->mode) || h->home_epoch != r->file.home_epoch || h->version <= r->version)
        return 0;
    *news = true;
    r->version = h->version;
    r->change++;
    if (h->mtime) {
        r->mtime = h->mtime->sec;
        r->mtime_ns = h->mtime->nsec;
    }
    if (h->ctime && later(h->ctime, r->ctime, r->ctime_ns)) {
        r->ctime = h->ctime->sec;
        r->ctime_ns = h->ctime->nsec;
    }
    return size_set(a, i, h->size);
}

int st_home_says(struct apply *a, struct stored *i, const Star__HomeAttrs *h, bool *news)
{
    if (i->r.home != 0)
        return st_straight_says(a, i, h, news);
    *news = false;
    return st_home_ok(h) ? 0 : -EINVAL;
}

int st_inode_lost_home(struct apply *a, struct stored *i)
{
    struct inode_row *r = &i->r;

    r->home = 0;
    r->file.home_epoch++; /* what it may still say of it is refused */
    if (r->version <= r->file.cut_version) {
        r->change++;
        return 0;
    }
    if (r->file.cut_version > 0) {
        r->mtime = r->file.cut_mtime;
        r->mtime_ns = r->file.cut_mtime_ns;
    }
    r->version += VERSION_LOST_STEP;
    st_ctime_now(a, i);
    int rc = size_set(a, i, r->file.cut_size);
    r->file.cut_version = r->version;
    return rc;
}

/* --- SETATTR --- */

/* Linux: chown of anything but a directory takes suid, and sgid where the group may execute; where
 * it may not, sgid goes too unless the caller belongs to the group or is root. */
static void kill_on_chown(struct stored *i, const Star__Cred *cred)
{
    if (S_ISDIR(i->r.mode))
        return;
    i->r.mode &= ~(uint32_t)S_ISUID;
    if ((i->r.mode & S_IXGRP) || (cred && cred->uid != 0 && cred->gid != i->r.gid))
        i->r.mode &= ~(uint32_t)S_ISGID;
}

/* A write or truncate by somebody without CAP_FSETID. */
static void kill_on_write(struct stored *i)
{
    i->r.mode &= ~(uint32_t)S_ISUID;
    if (i->r.mode & S_IXGRP)
        i->r.mode &= ~(uint32_t)S_ISGID;
}

static int check_setattr(const struct stored *i, const Star__SetAttr *q)
{
    if (!time_ok(q->atime) || !time_ok(q->mtime) || ((q->valid & FATTR_ATIME) && !q->atime) ||
        ((q->valid & FATTR_MTIME) && !q->mtime))
        return -EINVAL;
    if (((q->valid & FATTR_UID) && q->uid == UINT32_MAX) ||
        ((q->valid & FATTR_GID) && q->gid == UINT32_MAX))
        return -EINVAL;
    if (q->home && (q->home->ino != i->ino || !st_home_ok(q->home)))
        return -EINVAL;
    if (!(q->valid & FATTR_SIZE))
        return 0;
    if (!S_ISREG(i->r.mode))
        return S_ISDIR(i->r.mode) ? -EISDIR : -EINVAL;
    if (q->size > INT64_MAX)
        return -EFBIG;
    /* The home moved between its answer and this entry: only the new one can set a size. */
    if (i->r.home && (!q->home || q->home->home_epoch != i->r.file.home_epoch))
        return -EAGAIN;
    return 0;
}

static int chmod_acl(struct apply *a, struct stored *i)
{
    MDB_val val;
    int rc = st_xattr_get(a->s, i->ino, XATTR_ACCESS_ACL, &val);

    if (rc < 0)
        return rc == -ENODATA ? st_fail(a->s, MDB_CORRUPTED) : rc;
    void *acl = st_alloc(a->s, val.mv_size);
    if (!acl)
        return -ENOMEM;
    memcpy(acl, val.mv_data, val.mv_size);
    st_acl_chmod(acl, val.mv_size, i->r.mode);
    return st_xattr_put(a->s, i, XATTR_ACCESS_ACL, strlen(XATTR_ACCESS_ACL), acl, val.mv_size);
}

static int set_mode_owner(struct apply *a, struct stored *i, const Star__SetAttr *q)
{
    const Star__Cred *cred = q->head ? q->head->cred : NULL;
    int rc = 0;

    if (q->valid & (FATTR_UID | FATTR_GID))
        kill_on_chown(i, cred);
    if (q->valid & FATTR_UID)
        i->r.uid = q->uid;
    if (q->valid & FATTR_GID)
        i->r.gid = q->gid;
    if (q->valid & FATTR_MODE) {
        i->r.mode = (i->r.mode & S_IFMT) | (q->mode & 07777);
        if (i->r.flags & INODE_ACCESS_ACL)
            rc = chmod_acl(a, i);
    }
    if (rc == 0 && (q->valid & FATTR_KILL_SUIDGID) && !S_ISDIR(i->r.mode))
        kill_on_write(i);
    if (rc == 0 && !S_ISDIR(i->r.mode) &&
        (q->valid & (FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_KILL_SUIDGID))) {
        rc = st_xattr_del(a->s, i, XATTR_CAPABILITY, strlen(XATTR_CAPABILITY));
        rc = rc == -ENODATA ? 0 : rc;
    }
    return rc;
}

/* Size and mtime; the home's word counts where there is one. */
static int set_data_attrs(struct apply *a, struct stored *i, const Star__SetAttr *q)
{
    bool news = false;
    int rc = 0;

    if (q->home) {
        rc = st_home_says(a, i, q->home, &news);
        if (rc < 0)
            return rc;
        if (i->r.home && q->home->home_epoch == i->r.file.home_epoch)
            return q->valid & FATTR_SIZE ? truncated(a, i, q->home->version, q->size) : 0;
    }
    if (q->valid & FATTR_SIZE) {
        i->r.version++;
        i->r.mtime = a->sec;
        i->r.mtime_ns = a->nsec;
        rc = size_set(a, i, q->size);
        /* Nobody else holds newer data: this is what the pool holds. */
        i->r.file.cut_version = i->r.version;
        i->r.file.cut_size = q->size;
        i->r.file.cut_mtime = i->r.mtime;
        i->r.file.cut_mtime_ns = i->r.mtime_ns;
    }
    if (q->valid & FATTR_MTIME_NOW) {
        i->r.mtime = a->sec;
        i->r.mtime_ns = a->nsec;
    } else if (q->valid & FATTR_MTIME) {
        i->r.mtime = q->mtime->sec;
        i->r.mtime_ns = q->mtime->nsec;
    }
    return rc;
}

int st_cmd_setattr(struct apply *a, const ProtobufCMessage *body)
{
    const Star__SetAttr *q = (const Star__SetAttr *)body;
    struct stored i;
    int rc = st_inode_load(a->s, q->ino, &i);

    if (rc == 0)
        rc = check_setattr(&i, q);
    if (rc == 0)
        rc = set_mode_owner(a, &i, q);
    if (rc == 0)
        rc = set_data_attrs(a, &i, q);
    if (rc < 0)
        return rc;
    if (q->valid & FATTR_ATIME_NOW) {
        i.r.atime = a->sec;
        i.r.atime_ns = a->nsec;
    } else if (q->valid & FATTR_ATIME) {
        i.r.atime = q->atime->sec;
        i.r.atime_ns = q->atime->nsec;
    }
    st_ctime_now(a, &i);
    rc = st_inode_store(a->s, &i);
    return rc < 0 ? rc : st_attr_reply(a, &i);
}

/* --- what homes say --- */

static int home_attrs(struct apply *a, const Star__HomeAttrs *h)
{
    struct stored i;
    bool news;
    int rc = st_inode_load(a->s, h->ino, &i);

    if (rc < 0)
        return rc == -ESTALE ? 0 : rc;
    rc = st_home_says(a, &i, h, &news);
    return rc < 0 || !news ? rc : st_inode_store(a->s, &i);
}

int st_cmd_home_attrs(struct apply *a, const ProtobufCMessage *body)
{
    const Star__NodeAttrs *q = (const Star__NodeAttrs *)body;

    /* One that makes no sense must not keep the others out. */
    for (size_t n = 0; n < q->n_attrs && !a->s->broken; n++)
        home_attrs(a, q->attrs[n]);
    return a->s->broken;
}

int st_cmd_sync_attrs(struct apply *a, const ProtobufCMessage *body)
{
    return home_attrs(a, (const Star__HomeAttrs *)body);
}

int st_cmd_release(struct apply *a, const ProtobufCMessage *body)
{
    const Star__Release *q = (const Star__Release *)body;

    return q->attrs && q->attrs->ino == q->ino ? home_attrs(a, q->attrs) : 0;
}

/* The home's last word: the pool has its data, and now the log has the rest. */
static int flushed(struct apply *a, struct stored *i, const Star__HomeAttrs *h)
{
    bool news;
    int rc = h->ino == i->ino && h->home_epoch == i->r.file.home_epoch && h->version >= i->r.version
                 ? st_home_says(a, i, h, &news)
                 : -ESTALE;

    if (rc < 0)
        return rc;
    i->r.file.cut_version = i->r.version;
    i->r.file.cut_size = i->r.size;
    i->r.file.cut_mtime = i->r.mtime;
    i->r.file.cut_mtime_ns = i->r.mtime_ns;
    return 0;
}

int st_cmd_take_home(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogHome *q = (const Star__LogHome *)body;
    Star__LogHome reply = STAR__LOG_HOME__INIT;
    struct stored i;
    int rc = st_inode_load(a->s, q->ino, &i);

    if (rc < 0)
        return rc;
    if (!S_ISREG(i.r.mode))
        return -EINVAL;
    if (q->node && !st_node_speaks(a->s, q->node))
        return a->s->broken ? a->s->broken : -ENODEV;
    if (q->epoch && q->epoch != i.r.file.home_epoch + 1)
        return -ESTALE;
    if (q->flushed)
        rc = flushed(a, &i, q->flushed);
    if (rc < 0)
        return rc;
    if (q->node == 0 && i.r.version > i.r.file.cut_version)
        return -EBUSY; /* the home has what the pool has not */
    i.r.home = q->node;
    i.r.file.home_epoch++;
    i.r.file.cut = 0;
    rc = st_inode_store(a->s, &i);
    if (rc < 0)
        return rc;
    reply.ino = q->ino;
    reply.node = q->node;
    reply.epoch = i.r.file.home_epoch;
    return st_reply(a, &reply.base);
}

/* --- REAP --- */

static int reap(struct apply *a, uint64_t ino)
{
    struct state *s = a->s;
    struct key k = st_key1(ino);
    struct stored i;
    int rc = st_inode_load(s, ino, &i);

    if (rc < 0 || i.r.nlink > 0)
        return rc == -ESTALE ? 0 : rc;
    if (S_ISREG(i.r.mode))
        rc = st_map_cut(s, &i, 0, UINT64_MAX);
    if (rc == 0 && S_ISREG(i.r.mode))
        s->meta.totals.bytes -= i.r.size;
    if (rc == 0)
        rc = st_xattrs_free(s, &i);
    if (rc == 0)
        rc = st_copies_of_inode(s, ino);
    if (rc == 0 && S_ISLNK(i.r.mode))
        rc = st_del(s, DB_TARGETS, &k);
    if (rc == 0)
        rc = st_del(s, DB_ORPHANS, &k);
    if (rc == 0)
        rc = st_del(s, DB_INODES, &k);
    if (rc == -ENOENT)
        rc = st_fail(s, MDB_CORRUPTED);
    s->meta.totals.orphans--;
    s->meta.totals.inodes--;
    return rc;
}

int st_cmd_reap(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogInodes *q = (const Star__LogInodes *)body;
    int rc = 0;

    for (size_t n = 0; rc == 0 && n < q->n_ino; n++)
        rc = reap(a, q->ino[n]);
    return rc;
}

int state_orphans(struct state *s, uint64_t after, state_ino_fn fn, void *arg)
{
    struct key k = st_key1(after + 1);
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = after == UINT64_MAX ? -ENOENT : st_cursor(s, DB_ORPHANS, &cur);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0; rc = st_next(s, cur, &key, &val))
        if (!fn(arg, st_key_u64(&key, 0)))
            break;
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}
