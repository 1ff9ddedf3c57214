/* Requests on inodes: attributes, extended attributes, statfs. */
#include "control/centre.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/wire/clock.h"
#include "control/wire/stamp.h"

#define STATFS_BLOCK 4096u
/* Reported where no node has told the pool's size yet. */
#define STATFS_UNKNOWN_BYTES (1ull << 40)
#define UMBEL_XATTR          "umbel."
#define XATTR_TEXT_MAX       8192

/* --- getattr --- */

static void getattr_finish(struct op *op)
{
    Star__Inode *q = (Star__Inode *)op->body;
    Star__AttrReply r = STAR__ATTR_REPLY__INIT;
    Star__Attr attr;
    Star__Time times[3];
    struct inode i;

    int rc = op->status;
    if (rc == 0)
        rc = state_inode(op->c->state, q->ino, &i);
    if (rc == 0) {
        answer_attr(op, &i, &attr, times, &r.lease);
        r.attr = &attr;
    }
    op_reply(op, rc, &r.base);
}

void serve_getattr(struct op *op)
{
    home_ask(op, ((Star__Inode *)op->body)->ino, getattr_finish);
}

/* --- setattr --- */

static void answer_changed(struct op *op, uint64_t ino, const struct state_result *res)
{
    Star__AttrReply r = STAR__ATTR_REPLY__INIT;
    Star__Attr attr;
    Star__Time times[3];
    struct inode i;

    if (res->status < 0) {
        op_refuse(op, res);
        return;
    }
    op_unmark(op);
    int rc = state_inode(op->c->state, ino, &i);
    if (rc == 0) {
        answer_attr(op, &i, &attr, times, &r.lease);
        r.attr = &attr;
    }
    op_reply(op, rc, &r.base);
}

static void setattr_done(struct op *op, const struct state_result *res)
{
    answer_changed(op, ((Star__SetAttr *)op->body)->ino, res);
}

static void setattr_submit(struct op *op)
{
    Star__SetAttr body = *(Star__SetAttr *)op->body;

    if (op->status < 0) {
        op_error(op, op->status, "the home of inode %" PRIu64 " did not change it: %s", body.ino,
                 strerror(-op->status));
        return;
    }
    body.home = op->home.base.descriptor ? &op->home : NULL;
    op_submit(op, STAR__MSG_TYPE__SETATTR, &body.base, false, setattr_done);
}

static void setattr_recalled(struct op *op);

static void setattr_at_home(struct op *op)
{
    Star__SetAttr *q = (Star__SetAttr *)op->body;
    struct home_change change = {.set_size = (q->valid & FATTR_SIZE) != 0, .size = q->size};
    Star__Time now = STAR__TIME__INIT;
    struct inode i;

    int rc = state_inode(op->c->state, q->ino, &i);
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    if (q->valid & FATTR_MTIME_NOW) {
        now = stamp_of(clock_real());
        change.mtime = &now;
    } else if (q->valid & FATTR_MTIME) {
        change.mtime = q->mtime;
    }
    home_setattr(op, &i, &change, setattr_recalled, setattr_submit);
}

/* The leases of others are back. */
static void setattr_recalled(struct op *op)
{
    Star__SetAttr *q = (Star__SetAttr *)op->body;
    struct inode i;

    int rc = op->status;
    if (rc == 0)
        rc = state_inode(op->c->state, q->ino, &i);
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    struct live *l = live_find(op->c, q->ino);
    if (q->valid & FATTR_SIZE)
        home_take(op, q->ino, setattr_at_home);
    else if ((q->valid & (FATTR_MTIME | FATTR_MTIME_NOW)) && i.home && l &&
             (live_written(l) || l->home_unknown))
        setattr_at_home(op);
    else
        setattr_submit(op);
}

void serve_setattr(struct op *op)
{
    Star__SetAttr *q = (Star__SetAttr *)op->body;
    struct inode i;

    if (op_deduped(op, q->head, setattr_done) || !rights_allow(op))
        return;
    int rc = state_inode(op->c->state, q->ino, &i);
    if (rc == 0 && (q->valid & FATTR_SIZE)) {
        if (S_ISDIR(i.mode))
            rc = -EISDIR;
        else if (!S_ISREG(i.mode))
            rc = -EINVAL;
        else if (q->size > INT64_MAX)
            rc = -EFBIG;
    }
    if (rc == 0 && (q->valid & FATTR_MTIME) && !q->mtime)
        rc = -EINVAL;
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    op_busy_inode(op, q->ino);
    if (q->valid & FATTR_SIZE)
        recall_all(op, q->ino);
    else
        recall_attr(op, q->ino);
    op_wait(op, setattr_recalled);
}

/* --- readlink, xattrs --- */

void serve_readlink(struct op *op)
{
    char target[STATE_SYMLINK_MAX + 1];
    Star__Target r = STAR__TARGET__INIT;
    size_t len = 0;

    int rc =
        state_readlink(op->c->state, ((Star__Inode *)op->body)->ino, target, sizeof(target), &len);
    r.target.data = (uint8_t *)target;
    r.target.len = len;
    op_reply(op, rc, &r.base);
}

struct where {
    struct centre *c;
    char *text;
    size_t len;
};

static bool where_copy(void *arg, const struct state_copy_line *line)
{
    struct where *w = arg;
    struct node *n = node_find(w->c, line->node);

    w->len += (size_t)snprintf(w->text + w->len, XATTR_TEXT_MAX - w->len,
                               "node %s staged %" PRIu64 " cached %" PRIu64 "\n", n ? n->name : "?",
                               line->staged, line->cached);
    return w->len + 256 < XATTR_TEXT_MAX;
}

static int umbel_xattr(struct centre *c, uint64_t ino, const char *name, char *text, size_t *len)
{
    struct where w = {.c = c, .text = text};
    struct inode i;

    if (strcmp(name, STRAIGHT_XATTR) == 0)
        return state_getxattr(c->state, ino, name, text, XATTR_TEXT_MAX, len);
    if (strcmp(name, UMBEL_XATTR "where") != 0)
        return -ENODATA;
    int rc = state_inode(c->state, ino, &i);
    if (rc < 0)
        return rc;
    struct node *home = i.home ? node_find(c, i.home) : NULL;
    w.len = (size_t)snprintf(text, XATTR_TEXT_MAX, "home %s\n", home ? home->name : "none");
    rc = state_copies(c->state, ino, 0, 0, where_copy, &w);
    w.len += (size_t)snprintf(text + w.len, XATTR_TEXT_MAX - w.len, "pool %" PRIu64 "\n", i.mapped);
    *len = w.len;
    return rc;
}

void serve_xattr_get(struct op *op)
{
    Star__Xattr *q = (Star__Xattr *)op->body;
    Star__XattrReply r = STAR__XATTR_REPLY__INIT;
    char name[STATE_XATTR_NAME_MAX + 1];
    size_t len = 0;
    char *value = malloc(STATE_XATTR_VALUE_MAX);
    int rc = -ENOMEM;

    if (!rights_allow(op)) {
        free(value);
        return;
    }
    if (!value)
        goto out;
    rc = -ERANGE;
    if (q->name.len == 0 || q->name.len > STATE_XATTR_NAME_MAX)
        goto out;
    memcpy(name, q->name.data, q->name.len);
    name[q->name.len] = '\0';
    if (strncmp(name, UMBEL_XATTR, strlen(UMBEL_XATTR)) == 0)
        rc = umbel_xattr(op->c, q->ino, name, value, &len);
    else
        rc = state_getxattr(op->c->state, q->ino, name, value, STATE_XATTR_VALUE_MAX, &len);
    r.value.data = (uint8_t *)value;
    r.value.len = len;
out:
    op_reply(op, rc, &r.base);
    free(value);
}

void serve_xattr_list(struct op *op)
{
    Star__XattrReply r = STAR__XATTR_REPLY__INIT;
    char *names = malloc(STATE_XATTR_VALUE_MAX);
    size_t len = 0;

    int rc = names ? state_listxattr(op->c->state, ((Star__Inode *)op->body)->ino, names,
                                     STATE_XATTR_VALUE_MAX, &len)
                   : -ENOMEM;
    r.value.data = (uint8_t *)names;
    r.value.len = len;
    op_reply(op, rc, &r.base);
    free(names);
}

static void xattr_done(struct op *op, const struct state_result *res)
{
    answer_changed(op, ((Star__Xattr *)op->body)->ino, res);
}

static void xattr_submit(struct op *op)
{
    op_submit(op, op->request.type, op->body, false, xattr_done);
}

void serve_xattr_change(struct op *op)
{
    Star__Xattr *q = (Star__Xattr *)op->body;

    if (op_deduped(op, q->head, xattr_done) || !rights_allow(op))
        return;
    bool straight = q->name.len == strlen(STRAIGHT_XATTR) &&
                    memcmp(q->name.data, STRAIGHT_XATTR, q->name.len) == 0;
    if (!straight && q->name.len >= strlen(UMBEL_XATTR) &&
        memcmp(q->name.data, UMBEL_XATTR, strlen(UMBEL_XATTR)) == 0) {
        op_error(op, -EOPNOTSUPP,
                 "%.*s cannot be set: of the umbel. attributes this version has umbel.where, to "
                 "read, and "
                 "umbel.direct",
                 (int)(q->name.len < 64 ? q->name.len : 64), (const char *)q->name.data);
        return;
    }
    if (q->name.len > STATE_XATTR_NAME_MAX) {
        op_reply(op, -ERANGE, NULL);
        return;
    }
    if (q->value.len > STATE_XATTR_VALUE_MAX) {
        op_reply(op, -E2BIG, NULL);
        return;
    }
    op_busy_inode(op, q->ino);
    recall_attr(op, q->ino);
    op_wait(op, xattr_submit);
}

/* --- statfs --- */

void serve_statfs(struct op *op)
{
    struct centre *c = op->c;
    Star__StatfsReply r = STAR__STATFS_REPLY__INIT;
    struct state_totals totals = {0};
    uint64_t total = 0, free_bytes = 0, staged = 0;
    struct node *n;

    int rc = state_totals(c->state, &totals);
    for (n = c->nodes; n; n = n->hh.next) {
        staged += n->staged;
        if (n->pool_total > total) {
            total = n->pool_total;
            free_bytes = n->pool_free;
        }
    }
    if (total == 0)
        total = free_bytes = STATFS_UNKNOWN_BYTES;
    uint64_t quota = setting_u64(c, "pool_quota");
    if (quota && quota < total) {
        uint64_t used = totals.mapped + staged;
        uint64_t left = used < quota ? quota - used : 0;
        total = quota;
        free_bytes = left < free_bytes ? left : free_bytes;
    } else {
        free_bytes = staged < free_bytes ? free_bytes - staged : 0;
    }
    r.block_size = STATFS_BLOCK;
    r.blocks = total / STATFS_BLOCK;
    r.free = r.available = free_bytes / STATFS_BLOCK;
    r.files_free = 1ull << 32;
    r.files = totals.inodes + r.files_free;
    op_reply(op, rc, &r.base);
}
