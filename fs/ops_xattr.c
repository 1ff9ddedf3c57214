/* Extended attributes. ACLs are among them: setting one may change the mode. */
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "fs/answer.h"
#include "fs/centre.h"
#include "fs/ops.h"

/* --- ask --- */

static void answer_value(struct kreq *q, const struct message *reply)
{
    int status;
    Star__XattrReply *r = kreq_unpack(reply, &star__xattr_reply__descriptor, &status);

    if (!r) {
        kreq_end(q, status);
        return;
    }
    if (q->size == 0) {
        fuse_reply_xattr(q->req, r->value.len);
        kreq_free(q);
    } else if (r->value.len > q->size) {
        kreq_end(q, -ERANGE);
    } else {
        fuse_reply_buf(q->req, (const char *)r->value.data, r->value.len);
        kreq_free(q);
    }
    star__xattr_reply__free_unpacked(r, NULL);
}

/* The kernel asks before the first write to each file. */
static bool answer_no_capability(struct kreq *q, const char *name)
{
    struct worker *w = q->w;
    struct inode *i =
        strcmp(name, "security.capability") == 0 ? inode_lock(&w->inodes, q->ino) : NULL;

    if (!i)
        return false;
    bool known = i->no_capability && i->lease != STAR__LEASE__LEASE_NONE && i->recalls == 0 &&
                 msession_leased(w);
    inode_unlock(&w->inodes, i);
    if (known)
        kreq_end(q, -ENODATA);
    return known;
}

void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);
    Star__Xattr body = STAR__XATTR__INIT;
    Star__Head head = STAR__HEAD__INIT;
    Star__Cred cred;

    if (!q)
        return;
    if (is_control(ino)) {
        kreq_end(q, -ENODATA);
        return;
    }
    if (answer_no_capability(q, name))
        return;
    q->size = size;
    body.ino = ino;
    body.name = kreq_bytes(name);
    head.cred = kreq_cred_if_squashed(q, &cred);
    body.head = head.cred ? &head : NULL;
    kreq_ask(q, STAR__MSG_TYPE__GETXATTR, &body.base, answer_value);
}

void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);
    Star__Inode body = STAR__INODE__INIT;

    if (!q)
        return;
    q->size = size;
    if (is_control(ino)) {
        if (size == 0)
            fuse_reply_xattr(req, 0);
        else
            fuse_reply_buf(req, NULL, 0);
        kreq_free(q);
        return;
    }
    body.ino = ino;
    kreq_ask(q, STAR__MSG_TYPE__LISTXATTR, &body.base, answer_value);
}

/* --- change --- */

static void on_changed(struct kreq *q, const struct message *reply)
{
    struct fuse_entry_param e;
    int status;
    Star__AttrReply *r = kreq_unpack(reply, &star__attr_reply__descriptor, &status);

    kanswer_changed(q->w, q->ino);
    if (r && r->attr)
        status = kanswer_take(q, r->attr, r->lease, false, &e);
    if (r)
        star__attr_reply__free_unpacked(r, NULL);
    kreq_end(q, status);
}

/* libfuse 3.14 takes the message for the long form, whatever was agreed upon, and drops its flags:
 * read the kernel's bytes instead. */
static int read_setxattr(struct worker *w, const char **name, Star__Xattr *body)
{
    const struct fuse_in_header *header = worker_message(w);
    const struct fuse_setxattr_in *in = (const void *)(header + 1);
    size_t fixed = w->init.setxattr_ext ? sizeof(*in) : FUSE_COMPAT_SETXATTR_IN_SIZE;

    if (header->len < sizeof(*header) + fixed)
        return -EINVAL;
    size_t rest = header->len - sizeof(*header) - fixed;
    const char *text = (const char *)in + fixed;
    size_t name_len = strnlen(text, rest);
    if (name_len == rest || rest - name_len - 1 < in->size)
        return -EINVAL;
    *name = text;
    body->value.data = (uint8_t *)(uintptr_t)(text + name_len + 1);
    body->value.len = in->size;
    body->flags = in->flags;
    body->kill_sgid = w->init.setxattr_ext && (in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID);
    return 0;
}

void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
                 int flags)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);
    Star__Xattr body = STAR__XATTR__INIT;
    struct head_box box;

    (void)value, (void)size, (void)flags;
    if (!q)
        return;
    int rc = is_control(ino) ? -EOPNOTSUPP : read_setxattr(q->w, &name, &body);
    if (rc == 0)
        rc = kreq_head(q, &box);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    body.head = &box.head;
    body.ino = ino;
    body.name = kreq_bytes(name);
    kanswer_changed(q->w, ino);
    kreq_ask(q, STAR__MSG_TYPE__SETXATTR, &body.base, on_changed);
}

void fs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct kreq *q = kreq_new(fuse_req_userdata(req), req, ino);
    Star__Xattr body = STAR__XATTR__INIT;
    struct head_box box;

    if (!q)
        return;
    int rc = is_control(ino) ? -EOPNOTSUPP : kreq_head(q, &box);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    body.head = &box.head;
    body.ino = ino;
    body.name = kreq_bytes(name);
    kanswer_changed(q->w, ino);
    kreq_ask(q, STAR__MSG_TYPE__REMOVEXATTR, &body.base, on_changed);
}
