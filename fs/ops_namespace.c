/* Names: lookup, the calls that make and remove them, rename, symbolic links. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/answer.h"
#include "fs/control_files.h"
#include "fs/dir_memory.h"
#include "fs/ops.h"

void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, parent);
    Star__Lookup body = STAR__LOOKUP__INIT;
    Star__Cred cred;

    if (!q)
        return;
    if (kreq_name_is_control(parent, name)) {
        control_lookup(q, name);
        return;
    }
    if (dir_answer_gone(q, name))
        return;
    body.parent = parent;
    body.name = kreq_bytes(name);
    body.cred = kreq_cred_if_squashed(q, &cred);
    kreq_ask(q, STAR__MSG_TYPE__LOOKUP, &body.base, kanswer_on_entry);
}

void fs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
    kanswer_forget(fuse_req_userdata(req), ino, nlookup);
    fuse_reply_none(req);
}

void fs_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    struct worker *w = fuse_req_userdata(req);

    for (size_t n = 0; n < count; n++)
        kanswer_forget(w, forgets[n].ino, forgets[n].nlookup);
    fuse_reply_none(req);
}

/* --- make --- */

static void make(struct kreq *q, uint16_t type, const char *name, Star__Make *body)
{
    struct head_box box;
    int rc = kreq_head(q, &box);

    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    dir_change_begins(q, q->ino);
    dir_name_comes(q->w, q->ino, name);
    body->head = &box.head;
    body->parent = q->ino;
    body->name = kreq_bytes(name);
    kreq_ask(q, type, &body->base, kanswer_on_entry);
}

void fs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, parent);
    Star__Make body = STAR__MAKE__INIT;

    if (!q)
        return;
    if (kreq_name_is_control(parent, name)) {
        kreq_end(q, -EPERM);
        return;
    }
    body.mode = mode;
    body.rdev = rdev;
    make(q, STAR__MSG_TYPE__MKNOD, name, &body);
}

void fs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, parent);
    Star__Make body = STAR__MAKE__INIT;

    if (!q)
        return;
    if (kreq_name_is_control(parent, name)) {
        control_mkdir(q, name);
        return;
    }
    body.mode = (mode & ~(mode_t)S_IFMT) | S_IFDIR;
    make(q, STAR__MSG_TYPE__MKDIR, name, &body);
}

void fs_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, parent);
    Star__Make body = STAR__MAKE__INIT;

    if (!q)
        return;
    if (kreq_name_is_control(parent, name)) {
        kreq_end(q, -EPERM);
        return;
    }
    body.mode = S_IFLNK | 0777;
    body.target = kreq_bytes(link);
    make(q, STAR__MSG_TYPE__SYMLINK, name, &body);
}

static void on_linked(struct kreq *q, const struct message *reply)
{
    kanswer_changed(q->w, q->other);
    kanswer_on_entry(q, reply);
}

void fs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, newparent);
    Star__Link body = STAR__LINK__INIT;
    struct head_box box;

    if (!q)
        return;
    int rc =
        is_control(ino) || kreq_name_is_control(newparent, newname) ? -EXDEV : kreq_head(q, &box);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    dir_change_begins(q, newparent);
    dir_name_comes(q->w, newparent, newname);
    q->other = ino;
    body.head = &box.head;
    body.ino = ino;
    body.parent = newparent;
    body.name = kreq_bytes(newname);
    kreq_ask(q, STAR__MSG_TYPE__LINK, &body.base, on_linked);
}

/* --- remove, rename --- */

/* The kernel's message does not last until the answer. */
static int name_keep(struct kreq *q, const char *name)
{
    q->name = strdup(name);
    return q->name ? 0 : -ENOMEM;
}

static void on_removed(struct kreq *q, const struct message *reply)
{
    int status;
    Star__RemoveReply *r = kreq_unpack(reply, &star__remove_reply__descriptor, &status);

    if (r) {
        kanswer_changed(q->w, r->ino);
        dir_changed(q, q->ino, r->parent, r->parent_lease);
        dir_name_gone(q, q->ino, q->name, r->entry_lease);
        star__remove_reply__free_unpacked(r, NULL);
    }
    kreq_end(q, status);
}

static void remove_name(fuse_req_t req, uint16_t type, uint64_t parent, const char *name)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, parent);
    Star__Remove body = STAR__REMOVE__INIT;
    struct head_box box;

    if (!q)
        return;
    if (kreq_name_is_control(parent, name)) {
        if (type == STAR__MSG_TYPE__RMDIR && is_control(parent))
            control_rmdir(q, name);
        else
            kreq_end(q, -EPERM);
        return;
    }
    int rc = name_keep(q, name);
    if (rc == 0)
        rc = kreq_head(q, &box);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    dir_change_begins(q, parent);
    body.head = &box.head;
    body.parent = parent;
    body.name = kreq_bytes(name);
    kreq_ask(q, type, &body.base, on_removed);
}

void fs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, STAR__MSG_TYPE__UNLINK, parent, name);
}

void fs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, STAR__MSG_TYPE__RMDIR, parent, name);
}

static void on_renamed(struct kreq *q, const struct message *reply)
{
    int status;
    Star__RenameReply *r = kreq_unpack(reply, &star__rename_reply__descriptor, &status);

    if (r) {
        kanswer_changed(q->w, r->moved);
        if (r->replaced)
            kanswer_changed(q->w, r->replaced);
        dir_changed(q, q->ino, r->parent, r->parent_lease);
        if (q->other != q->ino)
            dir_changed(q, q->other, r->new_parent, r->new_parent_lease);
        if (!(q->flags & RENAME_EXCHANGE))
            dir_name_gone(q, q->ino, q->name, r->entry_lease);
        star__rename_reply__free_unpacked(r, NULL);
    }
    kreq_end(q, status);
}

/* The kernel moves its entry, with the timeout that it has. */
static void names_move(struct worker *w, uint64_t from, uint64_t to)
{
    struct inode *i = inode_lock(&w->inodes, from);
    bool kept = i && i->names_kept;

    if (i)
        inode_unlock(&w->inodes, i);
    i = kept ? inode_lock(&w->inodes, to) : NULL;
    if (!i)
        return;
    i->names_kept = true;
    inode_unlock(&w->inodes, i);
}

void fs_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
               const char *newname, unsigned flags)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, parent);
    Star__Rename body = STAR__RENAME__INIT;
    struct head_box box;

    if (!q)
        return;
    bool control = kreq_name_is_control(parent, name) || kreq_name_is_control(newparent, newname);
    int rc = control ? -EPERM : name_keep(q, name);
    if (rc == 0)
        rc = kreq_head(q, &box);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    q->other = newparent;
    q->flags = flags;
    dir_change_begins(q, parent);
    if (newparent != parent)
        dir_change_begins(q, newparent);
    dir_name_comes(q->w, newparent, newname);
    names_move(q->w, parent, newparent);
    if (flags & RENAME_EXCHANGE)
        names_move(q->w, newparent, parent);
    body.head = &box.head;
    body.parent = parent;
    body.name = kreq_bytes(name);
    body.new_parent = newparent;
    body.new_name = kreq_bytes(newname);
    body.flags = flags;
    kreq_ask(q, STAR__MSG_TYPE__RENAME, &body.base, on_renamed);
}

/* --- symbolic links --- */

static void on_target(struct kreq *q, const struct message *reply)
{
    int status;
    Star__Target *r = kreq_unpack(reply, &star__target__descriptor, &status);

    if (!r) {
        kreq_end(q, status);
        return;
    }
    fuse_reply_buf(q->req, (const char *)r->target.data, r->target.len);
    star__target__free_unpacked(r, NULL);
    kreq_free(q);
}

void fs_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);
    Star__Inode body = STAR__INODE__INIT;

    if (!q)
        return;
    body.ino = ino;
    kreq_ask(q, STAR__MSG_TYPE__READLINK, &body.base, on_target);
}
