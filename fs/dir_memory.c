#include "fs/dir_memory.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/centre.h"
#include "fs/leases.h"
#include "fs/ops.h"

static char **find_gone(struct inode *i, const char *name)
{
    for (unsigned n = 0; n < GONE_NAMES; n++)
        if (i->gone[n] && strcmp(i->gone[n], name) == 0)
            return &i->gone[n];
    return NULL;
}

static struct known_name *find_known(const struct inode *i, const char *name)
{
    struct known_name *k;

    HASH_FIND_STR(i->names, name, k);
    return k;
}

static void know(struct inode *i, const char *name)
{
    if (!i->complete || find_known(i, name))
        return;
    size_t size = strlen(name) + 1;
    struct known_name *k =
        HASH_COUNT(i->names) < KNOWN_NAMES_MAX ? malloc(sizeof(*k) + size) : NULL;
    if (!k) {
        inode_forget_names(i);
        return;
    }
    memcpy(k->name, name, size);
    HASH_ADD_STR(i->names, name, k);
}

static void unknow(struct inode *i, const char *name)
{
    struct known_name *k = find_known(i, name);

    if (!k)
        return;
    HASH_DEL(i->names, k);
    free(k);
}

void dir_forget(struct inode *i)
{
    i->attr_leased = false;
    inode_forget_names(i);
}

void dir_made(struct kreq *q, uint64_t dir)
{
    struct inode *i = inode_lock(&q->w->inodes, dir);

    if (!i)
        return;
    i->complete = i->lease != STAR__LEASE__LEASE_NONE && leases_may_take(q, i) && !i->names;
    inode_unlock(&q->w->inodes, i);
}

void dir_changed(struct kreq *q, uint64_t dir, const Star__Attr *attr, Star__Lease lease)
{
    struct inode *i = inode_lock(&q->w->inodes, dir);

    if (!i)
        return;
    if (attr && attr->ino == dir)
        inode_note_attr(i, attr);
    else
        i->attr_known = false;
    i->attr_leased = i->attr_known && leases_take(q, i, lease) != STAR__LEASE__LEASE_NONE;
    if (dir == ROOT_INODE && i->attr_known)
        attr_remember_root(q->w, &i->attr.st);
    inode_unlock(&q->w->inodes, i);
}

void dir_name_gone(struct kreq *q, uint64_t dir, const char *name, bool granted)
{
    char *copy = granted ? strdup(name) : NULL;
    struct inode *i = copy ? inode_lock(&q->w->inodes, dir) : NULL;

    if (i && leases_may_take(q, i)) {
        if (i->lease == STAR__LEASE__LEASE_NONE)
            i->lease = STAR__LEASE__LEASE_READ; /* so does the centre */
        char **at = find_gone(i, name);
        if (!at)
            at = &i->gone[i->gone_next++ % GONE_NAMES];
        free(*at);
        *at = copy;
        copy = NULL;
        unknow(i, name);
    }
    if (i)
        inode_unlock(&q->w->inodes, i);
    free(copy);
}

void dir_name_comes(struct worker *w, uint64_t dir, const char *name)
{
    struct inode *i = inode_lock(&w->inodes, dir);
    char **at = i ? find_gone(i, name) : NULL;

    if (at) {
        free(*at);
        *at = NULL;
    }
    if (i) {
        know(i, name);
        inode_unlock(&w->inodes, i);
    }
}

static bool is_ours(struct worker *w, const struct inode *i)
{
    return i->lease != STAR__LEASE__LEASE_NONE && i->recalls == 0 && msession_leased(w);
}

void dir_change_begins(struct kreq *q, uint64_t dir)
{
    struct inode *i = inode_lock(&q->w->inodes, dir);

    if (!i)
        return;
    i->changing++;
    q->changes[q->changes[0] != 0] = dir;
    inode_unlock(&q->w->inodes, i);
}

void dir_change_ended(struct kreq *q)
{
    for (unsigned k = 0; k < 2; k++) {
        struct inode *i = q->changes[k] ? inode_lock(&q->w->inodes, q->changes[k]) : NULL;
        q->changes[k] = 0;
        if (!i)
            continue;
        i->changing--;
        inode_unlock(&q->w->inodes, i);
    }
}

void dir_change_unsure(struct kreq *q)
{
    for (unsigned k = 0; k < 2; k++) {
        struct inode *i = q->changes[k] ? inode_lock(&q->w->inodes, q->changes[k]) : NULL;
        if (!i)
            continue;
        i->attr_known = false;
        dir_forget(i);
        inode_unlock(&q->w->inodes, i);
    }
}

/* Replies are written with the inode locked: a recall that comes now invalidates them. */
static bool answered(struct kreq *q, struct inode *i, bool known)
{
    inode_unlock(&q->w->inodes, i);
    if (known)
        kreq_free(q);
    return known;
}

bool dir_answer_attr(struct kreq *q)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (!i)
        return false;
    bool known =
        i->attr_leased && i->changing == 0 && S_ISDIR(i->attr.st.st_mode) && is_ours(q->w, i);
    if (known) {
        fuse_reply_attr(q->req, &i->attr.st, LEASED_TIMEOUT);
        q->req = NULL;
    }
    return answered(q, i, known);
}

bool dir_answer_gone(struct kreq *q, const char *name)
{
    bool too_long = strlen(name) > NAME_MAX; /* which is not the same as gone */
    struct inode *i = too_long ? NULL : inode_lock(&q->w->inodes, q->ino);

    if (!i)
        return false;
    bool gone = find_gone(i, name) || (i->complete && !find_known(i, name));
    bool known = gone && is_ours(q->w, i);
    if (known) {
        struct fuse_entry_param none = {.entry_timeout = leases_name_timeout(q->w, i)};
        if (none.entry_timeout > 0)
            fuse_reply_entry(q->req, &none);
        else
            fuse_reply_err(q->req, ENOENT);
        q->req = NULL;
    }
    return answered(q, i, known);
}
