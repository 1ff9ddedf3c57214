/*
 * The rights of mounts whose users are mapped (squash): checked here, with the ids that they are
 * mapped to, as the kernel of such a mount checks with others, if at all. Nothing of this costs a
 * mount that is trusted.
 *
 * What a mount of this kind may do without a user is bound to what it has open: tickets, maps with
 * their keys, attributes and locks. Opening is checked.
 *
 * The check stands before the names are marked busy: who loses a right at the same moment may have
 * used it just before.
 */
#include "control/centre.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/access.h"

#define ACL_NAME "system.posix_acl_access"
#define NOBODY   65534u
/* It is answered as done. A reader's fsync: what the file has become its writers say. */
#define NOTHING_TO_DO 1

bool rights_are_checked(const struct session *s)
{
    return s && s->who.squash != SQUASH_NONE;
}

/* --- who asks --- */

static Star__Cred *cred_of(const struct op *op)
{
    Star__Head *head = NULL;

    switch (op->request.type) {
    case STAR__MSG_TYPE__LOOKUP:
        return ((Star__Lookup *)op->body)->cred;
    case STAR__MSG_TYPE__READDIR:
    case STAR__MSG_TYPE__CTL_READDIR:
        return ((Star__ReadDir *)op->body)->cred;
    case STAR__MSG_TYPE__CTL_LOOKUP:
    case STAR__MSG_TYPE__CTL_RMDIR:
        return ((Star__CtlLookup *)op->body)->cred;
    case STAR__MSG_TYPE__CTL_READ:
        return ((Star__Inode *)op->body)->cred;
    case STAR__MSG_TYPE__SETATTR:
        head = ((Star__SetAttr *)op->body)->head;
        break;
    case STAR__MSG_TYPE__MKNOD:
    case STAR__MSG_TYPE__MKDIR:
    case STAR__MSG_TYPE__SYMLINK:
    case STAR__MSG_TYPE__CREATE:
        head = ((Star__Make *)op->body)->head;
        break;
    case STAR__MSG_TYPE__LINK:
        head = ((Star__Link *)op->body)->head;
        break;
    case STAR__MSG_TYPE__UNLINK:
    case STAR__MSG_TYPE__RMDIR:
        head = ((Star__Remove *)op->body)->head;
        break;
    case STAR__MSG_TYPE__RENAME:
        head = ((Star__Rename *)op->body)->head;
        break;
    case STAR__MSG_TYPE__OPEN:
        head = ((Star__Open *)op->body)->head;
        break;
    case STAR__MSG_TYPE__GETXATTR:
    case STAR__MSG_TYPE__SETXATTR:
    case STAR__MSG_TYPE__REMOVEXATTR:
        head = ((Star__Xattr *)op->body)->head;
        break;
    case STAR__MSG_TYPE__CTL_WRITE:
        head = ((Star__CtlWrite *)op->body)->head;
        break;
    default:
        break;
    }
    return head ? head->cred : NULL;
}

void rights_map(struct op *op)
{
    Star__Cred *cred = rights_are_checked(op->session) ? cred_of(op) : NULL;

    if (cred)
        access_squash(&op->session->who, cred);
}

static struct access_who who_asks(const struct op *op)
{
    const Star__Cred *cred = cred_of(op);

    if (!cred)
        return (struct access_who){.uid = NOBODY, .gid = NOBODY};
    return (struct access_who){
        .uid = cred->uid, .gid = cred->gid, .groups = cred->groups, .groups_n = cred->n_groups};
}

/* --- one inode --- */

static int inode_allows(struct op *op, const struct inode *i, const struct access_who *who,
                        unsigned want)
{
    struct access_what what = {.mode = i->mode, .uid = i->uid, .gid = i->gid};
    uint8_t *acl = i->has_acl ? malloc(STATE_XATTR_VALUE_MAX) : NULL;
    int rc = i->has_acl && !acl ? -ENOMEM : 0;

    if (acl) {
        rc = state_getxattr(op->c->state, i->ino, ACL_NAME, acl, STATE_XATTR_VALUE_MAX,
                            &what.acl_len);
        what.acl = rc == 0 ? acl : NULL;
        rc = rc == -ENODATA ? 0 : rc; /* it has a default ACL only */
    }
    if (rc == 0 && !access_allowed(&what, who, want))
        rc = -EACCES;
    free(acl);
    return rc;
}

/* What is not there the state says itself. */
static int may(struct op *op, uint64_t ino, const struct access_who *who, unsigned want)
{
    struct inode i;

    return state_inode(op->c->state, ino, &i) < 0 ? 0 : inode_allows(op, &i, who, want);
}

static const struct holder *held(const struct op *op, uint64_t ino)
{
    const struct live *l = live_find(op->c, ino);

    return l ? holder_find(l, op->session) : NULL;
}

static bool has_open(const struct op *op, uint64_t ino)
{
    const struct holder *h = held(op, ino);

    return h && holder_opens(h);
}

static bool has_open_to_write(const struct op *op, uint64_t ino)
{
    const struct holder *h = held(op, ino);

    return h && holder_writes(h);
}

/* --- names --- */

static int may_change_names(struct op *op, uint64_t dir, const struct access_who *who)
{
    return may(op, dir, who, ACCESS_WRITE | ACCESS_EXEC);
}

/* A name is taken away, or comes to lead elsewhere. moves: to another directory. */
static int may_take_name(struct op *op, uint64_t parent, const ProtobufCBinaryData *name,
                         const struct access_who *who, bool moves)
{
    struct inode dir, i;
    int rc = may_change_names(op, parent, who);

    if (rc < 0 || state_inode(op->c->state, parent, &dir) < 0 ||
        state_lookup(op->c->state, parent, name->data, name->len, &i) < 0)
        return rc;
    if (!access_sticky_allows(dir.mode, dir.uid, i.uid, who))
        return -EPERM;
    /* Its ".." changes. */
    return moves && S_ISDIR(i.mode) ? inode_allows(op, &i, who, ACCESS_WRITE) : 0;
}

static int may_rename(struct op *op, const struct access_who *who)
{
    const Star__Rename *q = (const Star__Rename *)op->body;
    bool moves = q->parent != q->new_parent;
    int rc = may_take_name(op, q->parent, &q->name, who, moves);

    return rc < 0 ? rc
                  : may_take_name(op, q->new_parent, &q->new_name, who,
                                  moves && q->flags == 2 /* RENAME_EXCHANGE */);
}

static int may_make(struct op *op, const struct access_who *who)
{
    const Star__Make *q = (const Star__Make *)op->body;

    if (who->uid != 0 && (S_ISCHR(q->mode) || S_ISBLK(q->mode)))
        return -EPERM;
    return may_change_names(op, q->parent, who);
}

/* --- attributes --- */

static int may_set_owner(const Star__SetAttr *q, const struct inode *i,
                         const struct access_who *who)
{
    if ((q->valid & FATTR_UID) && (who->uid != i->uid || q->uid != i->uid))
        return -EPERM;
    if ((q->valid & FATTR_GID) &&
        (who->uid != i->uid || (q->gid != i->gid && !access_in_group(who, q->gid))))
        return -EPERM;
    return 0;
}

static int may_set_times(struct op *op, const Star__SetAttr *q, const struct inode *i,
                         const struct access_who *who)
{
    bool given = (q->valid & FATTR_CTIME) ||
                 ((q->valid & FATTR_ATIME) && !(q->valid & FATTR_ATIME_NOW)) ||
                 ((q->valid & FATTR_MTIME) && !(q->valid & FATTR_MTIME_NOW));

    if (who->uid == i->uid || has_open_to_write(op, i->ino))
        return 0;
    if (given)
        return -EPERM;
    return q->valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)
               ? inode_allows(op, i, who, ACCESS_WRITE)
               : 0;
}

static int may_setattr(struct op *op, const struct access_who *who)
{
    Star__SetAttr *q = (Star__SetAttr *)op->body;
    struct inode i;

    if (who->uid == 0 || state_inode(op->c->state, q->ino, &i) < 0)
        return 0;
    int rc = may_set_owner(q, &i, who);
    if (rc == 0 && (q->valid & (FATTR_MODE | FATTR_KILL_SUIDGID)) && who->uid != i.uid &&
        !((q->valid & FATTR_KILL_SUIDGID) && !(q->valid & FATTR_MODE) &&
          has_open_to_write(op, q->ino)))
        rc = -EPERM;
    if (rc == 0 && (q->valid & FATTR_SIZE) && !has_open_to_write(op, q->ino))
        rc = inode_allows(op, &i, who, ACCESS_WRITE);
    if (rc == 0)
        rc = may_set_times(op, q, &i, who);
    if (rc == 0 && (q->valid & FATTR_MODE) && !access_in_group(who, i.gid))
        q->mode &= ~(uint32_t)S_ISGID; /* as chmod(2) says */
    return rc;
}

static bool begins(const ProtobufCBinaryData *name, const char *with)
{
    return name->len >= strlen(with) && memcmp(name->data, with, strlen(with)) == 0;
}

static int may_xattr(struct op *op, const struct access_who *who, bool change)
{
    const Star__Xattr *q = (const Star__Xattr *)op->body;
    struct inode i;

    if (who->uid == 0 || state_inode(op->c->state, q->ino, &i) < 0)
        return 0;
    if (begins(&q->name, "trusted."))
        return change ? -EPERM : -ENODATA;
    if (begins(&q->name, "security."))
        return change ? -EPERM : 0;
    if (begins(&q->name, "system."))
        return change && who->uid != i.uid ? -EPERM : 0;
    return inode_allows(op, &i, who, change ? ACCESS_WRITE : ACCESS_READ);
}

/* --- data --- */

static int may_open(struct op *op, const struct access_who *who)
{
    const Star__Open *q = (const Star__Open *)op->body;
    unsigned want = (q->flags & O_ACCMODE) == O_WRONLY ? ACCESS_WRITE
                    : (q->flags & O_ACCMODE) == O_RDWR ? ACCESS_READ | ACCESS_WRITE
                                                       : ACCESS_READ;

    return may(op, q->ino, who, want | (q->flags & O_TRUNC ? ACCESS_WRITE : 0));
}

static int may_confirm(struct op *op)
{
    const Star__Confirm *cut = ((const Star__StraightConfirm *)op->body)->cut;

    for (size_t n = 0; cut && n < cut->n_files; n++)
        if (!cut->files[n]->attrs || !has_open_to_write(op, cut->files[n]->attrs->ino))
            return -EACCES;
    return 0;
}

/* Only its writers say what a file has become. */
static int may_release(struct op *op)
{
    Star__Release *q = (Star__Release *)op->body;

    if (q->attrs && !has_open_to_write(op, q->ino)) {
        star__home_attrs__free_unpacked(q->attrs, NULL);
        q->attrs = NULL;
    }
    return 0;
}

/* --- control files: no user of such a mount is root --- */

static int may_ctl(struct op *op, uint64_t ino, const struct access_who *who, unsigned want)
{
    Star__Attr attr;
    Star__Time times[3];

    if (!ctl_is_ino(ino) || ctl_attr(op->c, ino, &attr, times) < 0)
        return 0;
    const struct access_what what = {.mode = attr.mode, .uid = attr.uid, .gid = attr.gid};
    return access_allowed(&what, who, want) ? 0 : -EACCES;
}

static int allowed(struct op *op)
{
    const struct access_who who = who_asks(op);
    const ProtobufCMessage *body = op->body;

    switch (op->request.type) {
    case STAR__MSG_TYPE__LOOKUP:
        return may(op, ((const Star__Lookup *)body)->parent, &who, ACCESS_EXEC);
    case STAR__MSG_TYPE__READDIR:
        return may(op, ((const Star__ReadDir *)body)->ino, &who, ACCESS_READ);
    case STAR__MSG_TYPE__SETATTR:
        return may_setattr(op, &who);
    case STAR__MSG_TYPE__MKNOD:
    case STAR__MSG_TYPE__MKDIR:
    case STAR__MSG_TYPE__SYMLINK:
    case STAR__MSG_TYPE__CREATE:
        return may_make(op, &who);
    case STAR__MSG_TYPE__LINK:
        return may_change_names(op, ((const Star__Link *)body)->parent, &who);
    case STAR__MSG_TYPE__UNLINK:
    case STAR__MSG_TYPE__RMDIR:
        return may_take_name(op, ((const Star__Remove *)body)->parent,
                             &((const Star__Remove *)body)->name, &who, false);
    case STAR__MSG_TYPE__RENAME:
        return may_rename(op, &who);
    case STAR__MSG_TYPE__OPEN:
        return may_open(op, &who);
    case STAR__MSG_TYPE__GETXATTR:
        return may_xattr(op, &who, false);
    case STAR__MSG_TYPE__SETXATTR:
    case STAR__MSG_TYPE__REMOVEXATTR:
        return may_xattr(op, &who, true);
    case STAR__MSG_TYPE__RELEASE:
        return may_release(op);
    case STAR__MSG_TYPE__LOCATE:
        return has_open(op, ((const Star__Inode *)body)->ino) ? 0 : -EACCES;
    case STAR__MSG_TYPE__MAP:
        return has_open(op, ((const Star__MapRequest *)body)->ino) ? 0 : -EACCES;
    case STAR__MSG_TYPE__SETLK:
        return has_open(op, ((const Star__Lock *)body)->ino) ? 0 : -EBADF;
    case STAR__MSG_TYPE__SYNC_ATTRS:
        return has_open_to_write(op, ((const Star__HomeAttrs *)body)->ino) ? 0 : NOTHING_TO_DO;
    case STAR__MSG_TYPE__INVALIDATE:
        return has_open_to_write(op, ((const Star__Invalidate *)body)->ino) ? 0 : -EACCES;
    case STAR__MSG_TYPE__STRAIGHT_BEGIN:
        return has_open_to_write(op, ((const Star__Straight *)body)->ino) ? 0 : -EACCES;
    case STAR__MSG_TYPE__STRAIGHT_CONFIRM:
        return may_confirm(op);
    case STAR__MSG_TYPE__CTL_READ:
        return may_ctl(op, ((const Star__Inode *)body)->ino, &who, ACCESS_READ);
    case STAR__MSG_TYPE__CTL_WRITE:
        return may_ctl(op, ((const Star__CtlWrite *)body)->ino, &who, ACCESS_WRITE);
    case STAR__MSG_TYPE__GETATTR: /* who knows an inode may look at it: that is in its name's path
                                   */
    case STAR__MSG_TYPE__READLINK:
    case STAR__MSG_TYPE__LISTXATTR:
    case STAR__MSG_TYPE__STATFS:
    case STAR__MSG_TYPE__GETLK:
    case STAR__MSG_TYPE__CANCEL_LOCK:
    case STAR__MSG_TYPE__STRAIGHT_PACKS:
    case STAR__MSG_TYPE__DAMAGE:
    case STAR__MSG_TYPE__CTL_RMDIR: /* its owner is asked for there */
        return 0;
    case STAR__MSG_TYPE__CTL_LOOKUP:
        return may_ctl(op, ((const Star__CtlLookup *)body)->parent, &who, ACCESS_EXEC);
    case STAR__MSG_TYPE__CTL_READDIR:
        return may_ctl(op, ((const Star__ReadDir *)body)->ino, &who, ACCESS_READ);
    default:
        return -EPERM; /* whoever adds a request says here who may ask it */
    }
}

bool rights_allow(struct op *op)
{
    int rc = rights_are_checked(op->session) ? allowed(op) : 0;

    if (rc != 0)
        op_reply(op, rc == NOTHING_TO_DO ? 0 : rc, NULL);
    return rc == 0;
}
