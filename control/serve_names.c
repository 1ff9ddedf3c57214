/* Requests on names: lookup, make, link, remove, rename, readdir. */
#include "control/centre.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What one entry takes in the kernel's buffer (struct fuse_dirent, fuse_direntplus), names are
 * padded to 8. */
#define DIRENT_SIZE         24u
#define DIRENTPLUS_SIZE     152u
#define READDIR_ENTRIES_MAX 4096u

void answer_attr(struct op *op, const struct inode *i, Star__Attr *attr, Star__Time times[3],
                 Star__Lease *lease)
{
    attr_now(op->c, i, attr, times);
    *lease = lease_grant(op->c, op->session, i->ino);
}

/* false: the op is answered. */
static bool check_name(struct op *op, const ProtobufCBinaryData *name)
{
    if (name->len > STATE_NAME_MAX) {
        op_reply(op, -ENAMETOOLONG, NULL);
        return false;
    }
    if (name->len == 0 || memchr(name->data, '/', name->len) ||
        memchr(name->data, '\0', name->len)) {
        op_error(op, -EINVAL, "a name is empty or holds a slash or a NUL");
        return false;
    }
    return true;
}

/* --- lookup --- */

void serve_lookup(struct op *op)
{
    Star__Lookup *q = (Star__Lookup *)op->body;
    Star__EntryReply r = STAR__ENTRY_REPLY__INIT;
    Star__Attr attr;
    Star__Time times[3];
    struct inode i;

    if (!rights_allow(op))
        return;
    int rc = op->status;
    if (rc == 0)
        rc = state_lookup(op->c->state, q->parent, q->name.data, q->name.len, &i);
    if (rc == 0 && i.ino != op->home_ino && home_must_be_asked(op->c, op->session, &i)) {
        home_ask(op, i.ino, serve_lookup); /* and look again: the name may lead elsewhere then */
        return;
    }
    if (rc == 0) {
        answer_attr(op, &i, &attr, times, &r.lease);
        r.attr = &attr;
    } else if (rc != -ENOENT) {
        op_reply(op, rc, NULL);
        return;
    }
    r.entry_lease = entry_lease_grant(op->c, op->session, q->parent, q->name.data, q->name.len);
    if (rc == -ENOENT && r.entry_lease)
        rc = 0;
    op_reply(op, rc, &r.base);
}

/* The directory as the mount may keep it. The op has taken its marks back: they would forbid it. */
struct dir_answer {
    Star__Attr attr;
    Star__Time times[3];
    Star__Lease lease;
};

static Star__Attr *answer_dir(struct op *op, uint64_t dir, struct dir_answer *a)
{
    struct inode i;

    a->lease = STAR__LEASE__LEASE_NONE;
    if (state_inode(op->c->state, dir, &i) < 0)
        return NULL;
    answer_attr(op, &i, &a->attr, a->times, &a->lease);
    return &a->attr;
}

/* On a name that the op took away: granted only if it is away now. The answer may be one that is
 * given again, or the rename of a file onto itself. */
static bool gone_lease(struct op *op, uint64_t dir, const ProtobufCBinaryData *name)
{
    struct inode i;

    return state_lookup(op->c->state, dir, name->data, name->len, &i) == -ENOENT &&
           entry_lease_grant(op->c, op->session, dir, name->data, name->len);
}

/* On a name that the op has made: it may lead elsewhere by now, or nowhere. */
static bool made_lease(struct op *op, uint64_t dir, const ProtobufCBinaryData *name, uint64_t ino)
{
    struct inode i;

    return state_lookup(op->c->state, dir, name->data, name->len, &i) == 0 && i.ino == ino &&
           entry_lease_grant(op->c, op->session, dir, name->data, name->len);
}

/* --- make --- */

/* open_flags < 0: it is not opened, too. */
static void answer_made(struct op *op, const Star__EntryReply *made, uint64_t parent,
                        const ProtobufCBinaryData *name, int64_t open_flags)
{
    Star__EntryReply answer = STAR__ENTRY_REPLY__INIT;
    struct centre *c = op->c;
    struct dir_answer dir;
    struct open_answer open;
    Star__Attr attr;
    Star__Time times[3];
    struct inode i;

    int rc = made && made->attr ? state_inode(c->state, made->attr->ino, &i) : -EIO;
    if (rc == 0 && open_flags >= 0)
        rc = open_count(op, i.ino, (uint32_t)open_flags);
    if (rc < 0) { /* -ESTALE: the answer was lost, and what was made has gone since */
        op_reply(op, rc, NULL);
        return;
    }
    op_unmark(op);
    if (open_flags >= 0) {
        answer_open(op, &i, (uint32_t)open_flags, &open);
        answer.open = &open.reply;
    }
    answer_attr(op, &i, &attr, times, &answer.lease);
    answer.attr = &attr;
    answer.parent = answer_dir(op, parent, &dir);
    answer.parent_lease = dir.lease;
    answer.fresh = !op->replayed && (op->request.type == STAR__MSG_TYPE__MKDIR ||
                                     op->request.type == STAR__MSG_TYPE__CREATE);
    answer.entry_lease = made_lease(op, parent, name, i.ino);
    op_reply(op, 0, &answer.base);
}

static void answer_entry(struct op *op, const struct state_result *res, uint64_t parent,
                         const ProtobufCBinaryData *name, int64_t open_flags)
{
    if (res->status < 0) {
        op_refuse(op, res);
        return;
    }
    Star__EntryReply *made = star__entry_reply__unpack(NULL, res->body_len, res->body);
    answer_made(op, made, parent, name, open_flags);
    if (made)
        star__entry_reply__free_unpacked(made, NULL);
}

static void make_done(struct op *op, const struct state_result *res)
{
    Star__Make *q = (Star__Make *)op->body;

    answer_entry(op, res, q->parent, &q->name,
                 op->request.type == STAR__MSG_TYPE__CREATE ? (int64_t)q->flags : -1);
}

static void make_submit(struct op *op)
{
    op_submit(op, op->request.type, op->body, true, make_done);
}

void serve_make(struct op *op)
{
    Star__Make *q = (Star__Make *)op->body;

    if (op_deduped(op, q->head, make_done) || !rights_allow(op))
        return;
    if (!check_name(op, &q->name))
        return;
    if (q->target.len > STATE_SYMLINK_MAX) {
        op_reply(op, -ENAMETOOLONG, NULL);
        return;
    }
    if (op->request.type == STAR__MSG_TYPE__CREATE) {
        struct node *home;
        if (!home_for_new(op, serve_make, &home))
            return;
        op->node = home ? home->id : 0;
    }
    struct entry_ref entry = {q->parent, &q->name};
    if (!op_busy_names(op, &entry, 1))
        return;
    recall_name(op, q->parent, &q->name);
    op_wait(op, make_submit);
}

/* --- link --- */

static void link_done(struct op *op, const struct state_result *res)
{
    Star__Link *q = (Star__Link *)op->body;

    answer_entry(op, res, q->parent, &q->name, -1);
}

static void link_submit(struct op *op)
{
    op_submit(op, STAR__MSG_TYPE__LINK, op->body, false, link_done);
}

static void link_ask(struct op *op)
{
    home_ask(op, ((Star__Link *)op->body)->ino, link_submit);
}

void serve_link(struct op *op)
{
    Star__Link *q = (Star__Link *)op->body;

    if (op_deduped(op, q->head, link_done) || !rights_allow(op))
        return;
    if (!check_name(op, &q->name))
        return;
    struct entry_ref entry = {q->parent, &q->name};
    if (!op_busy_names(op, &entry, 1))
        return;
    op_busy_inode(op, q->ino);
    recall_name(op, q->parent, &q->name);
    recall_attr(op, q->ino);
    op_wait(op, link_ask);
}

/* --- remove --- */

static void answer_removed(struct op *op, const Star__RemoveReply *r)
{
    const Star__Remove *q = (const Star__Remove *)op->body;
    Star__RemoveReply answer = STAR__REMOVE_REPLY__INIT;
    struct dir_answer dir;

    op_unmark(op);
    answer.ino = r->ino;
    answer.nlink = r->nlink;
    answer.parent = answer_dir(op, q->parent, &dir);
    answer.parent_lease = dir.lease;
    answer.entry_lease = gone_lease(op, q->parent, &q->name);
    op_reply(op, 0, &answer.base);
}

static void remove_done(struct op *op, const struct state_result *res)
{
    struct centre *c = op->c;

    if (res->status < 0) {
        op_refuse(op, res);
        return;
    }
    Star__RemoveReply *r = star__remove_reply__unpack(NULL, res->body_len, res->body);
    uint64_t gone = r && r->nlink == 0 ? r->ino : 0;
    if (r) {
        answer_removed(op, r);
        star__remove_reply__free_unpacked(r, NULL);
    } else {
        op_reply(op, -EIO, NULL);
    }
    if (gone)
        reap_if_unused(c, gone);
}

static void remove_submit(struct op *op)
{
    op_submit(op, op->request.type, op->body, false, remove_done);
}

void serve_remove(struct op *op)
{
    Star__Remove *q = (Star__Remove *)op->body;
    struct inode victim;

    if (op_deduped(op, q->head, remove_done) || !rights_allow(op))
        return;
    if (!check_name(op, &q->name))
        return;
    struct entry_ref entry = {q->parent, &q->name};
    if (!op_busy_names(op, &entry, 1))
        return;
    recall_name(op, q->parent, &q->name);
    if (state_lookup(op->c->state, q->parent, q->name.data, q->name.len, &victim) == 0) {
        op_busy_inode(op, victim.ino);
        recall_attr(op, victim.ino);
    }
    op_wait(op, remove_submit);
}

/* --- rename --- */

static void answer_renamed(struct op *op, const Star__RenameReply *r)
{
    const Star__Rename *q = (const Star__Rename *)op->body;
    Star__RenameReply answer = STAR__RENAME_REPLY__INIT;
    struct dir_answer from, to;

    op_unmark(op);
    answer.moved = r->moved;
    answer.replaced = r->replaced;
    answer.replaced_nlink = r->replaced_nlink;
    answer.parent = answer_dir(op, q->parent, &from);
    answer.parent_lease = from.lease;
    if (q->new_parent != q->parent) {
        answer.new_parent = answer_dir(op, q->new_parent, &to);
        answer.new_parent_lease = to.lease;
    }
    answer.entry_lease = gone_lease(op, q->parent, &q->name);
    op_reply(op, 0, &answer.base);
}

static void rename_done(struct op *op, const struct state_result *res)
{
    struct centre *c = op->c;

    if (res->status < 0) {
        op_refuse(op, res);
        return;
    }
    Star__RenameReply *r = star__rename_reply__unpack(NULL, res->body_len, res->body);
    uint64_t gone = r && r->replaced && r->replaced_nlink == 0 ? r->replaced : 0;
    if (r) {
        answer_renamed(op, r);
        star__rename_reply__free_unpacked(r, NULL);
    } else {
        op_reply(op, -EIO, NULL);
    }
    if (gone)
        reap_if_unused(c, gone);
}

static void rename_submit(struct op *op)
{
    op_submit(op, STAR__MSG_TYPE__RENAME, op->body, false, rename_done);
}

static void rename_touch(struct op *op, uint64_t dir, const ProtobufCBinaryData *name)
{
    struct inode i;

    recall_name(op, dir, name);
    if (state_lookup(op->c->state, dir, name->data, name->len, &i) == 0) {
        op_busy_inode(op, i.ino);
        recall_attr(op, i.ino);
    }
}

void serve_rename(struct op *op)
{
    Star__Rename *q = (Star__Rename *)op->body;

    if (op_deduped(op, q->head, rename_done) || !rights_allow(op))
        return;
    if (!check_name(op, &q->name) || !check_name(op, &q->new_name))
        return;
    struct entry_ref entries[] = {{q->parent, &q->name}, {q->new_parent, &q->new_name}};
    if (!op_busy_names(op, entries, 2))
        return;
    rename_touch(op, q->parent, &q->name);
    rename_touch(op, q->new_parent, &q->new_name);
    op_wait(op, rename_submit);
}

/* --- readdir --- */

struct listing {
    struct op *op;
    Star__ReadDir *q;
    Star__DirEntry **entries;
    size_t n, size, bytes;
    int rc;
};

static Star__DirEntry *entry_new(const char *name, size_t len)
{
    /* One block: entry, attributes, times, name. */
    struct block {
        Star__DirEntry e;
        Star__Attr attr;
        Star__Time times[3];
        uint8_t name[];
    } *b = malloc(sizeof(*b) + len);

    if (!b)
        return NULL;
    star__dir_entry__init(&b->e);
    memcpy(b->name, name, len);
    b->e.name.data = b->name;
    b->e.name.len = len;
    b->e.attr = &b->attr;
    b->attr.atime = b->times; /* attr_now fills them */
    return &b->e;
}

static void entry_plus(struct listing *l, Star__DirEntry *e)
{
    struct centre *c = l->op->c;
    Star__Time *times = e->attr->atime;
    struct inode i;

    if (state_inode(c->state, e->ino, &i) < 0 || home_must_be_asked(c, l->op->session, &i)) {
        e->attr = NULL;
        return;
    }
    Star__Attr *attr = e->attr;
    attr_now(c, &i, attr, times);
    e->lease = lease_grant(c, l->op->session, e->ino);
    if (e->lease == STAR__LEASE__LEASE_NONE)
        e->attr = NULL;
}

static bool list_one(void *arg, const char *name, size_t len, uint64_t ino, uint32_t type,
                     uint64_t cookie)
{
    struct listing *l = arg;
    bool dots = (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.');
    size_t bytes = (l->q->plus ? DIRENTPLUS_SIZE : DIRENT_SIZE) + ((len + 7) & ~(size_t)7);

    if (l->n > 0 && (l->bytes + bytes > l->q->max_bytes || l->n >= READDIR_ENTRIES_MAX))
        return false;
    if (l->n == l->size) {
        size_t size = l->size ? l->size * 2 : 64;
        Star__DirEntry **grown = realloc(l->entries, size * sizeof(*grown));
        if (!grown) {
            l->rc = -ENOMEM;
            return false;
        }
        l->entries = grown;
        l->size = size;
    }
    Star__DirEntry *e = entry_new(name, len);
    if (!e) {
        l->rc = -ENOMEM;
        return false;
    }
    e->ino = ino;
    e->type = type;
    e->cookie = cookie;
    if (l->q->plus && !dots)
        entry_plus(l, e);
    else
        e->attr = NULL;
    l->entries[l->n++] = e;
    l->bytes += bytes;
    return true;
}

void serve_readdir(struct op *op)
{
    struct listing l = {.op = op, .q = (Star__ReadDir *)op->body};
    Star__ReadDirReply r = STAR__READ_DIR_REPLY__INIT;
    bool eof = false;

    if (!rights_allow(op))
        return;
    int rc = state_readdir(op->c->state, l.q->ino, l.q->cookie, list_one, &l, &eof);
    if (rc == 0)
        rc = l.rc;
    if (rc == 0)
        r.entry_lease = entry_lease_grant(op->c, op->session, l.q->ino, "", 0);
    r.n_entries = l.n;
    r.entries = l.entries;
    r.eof = eof;
    op_reply(op, rc, &r.base);
    for (size_t k = 0; k < l.n; k++)
        free(l.entries[k]);
    free(l.entries);
}
