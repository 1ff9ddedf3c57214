#include "fs/inode_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/clock.h"

#define FUSE_BLOCK_SIZE 4096

void inode_table_init(struct inode_table *t, void (*returned)(void *ctx, uint64_t ino), void *ctx)
{
    for (unsigned n = 0; n < INODE_SHARDS; n++) {
        pthread_mutex_init(&t->shards[n].lock, NULL);
        t->shards[n].inodes = NULL;
    }
    atomic_store(&t->returns_begun, 0);
    atomic_store(&t->returns_done, 0);
    t->returned = returned;
    t->ctx = ctx;
}

void inode_forget_names(struct inode *i)
{
    struct known_name *k, *tmp;

    i->complete = false;
    HASH_ITER (hh, i->names, k, tmp) {
        HASH_DEL(i->names, k);
        free(k);
    }
    for (unsigned n = 0; n < GONE_NAMES; n++) {
        free(i->gone[n]);
        i->gone[n] = NULL;
    }
}

void inode_forget_map(struct inode *i)
{
    pool_map_unref(i->map);
    i->map = NULL;
    i->map_round++;
}

static void inode_free(struct inode *i)
{
    inode_forget_map(i);
    inode_forget_names(i);
    while (i->handles) {
        struct handle *h = i->handles;
        i->handles = h->next;
        free(h);
    }
    lock_list_free(&i->locks);
    free(i->address);
    free(i);
}

void inode_table_destroy(struct inode_table *t)
{
    for (unsigned n = 0; n < INODE_SHARDS; n++) {
        struct inode *i, *tmp;
        HASH_ITER (hh, t->shards[n].inodes, i, tmp) {
            HASH_DEL(t->shards[n].inodes, i);
            inode_free(i);
        }
        pthread_mutex_destroy(&t->shards[n].lock);
    }
}

static struct inode_shard *shard_of(struct inode_table *t, uint64_t ino)
{
    return &t->shards[(ino ^ ino >> 6) % INODE_SHARDS];
}

struct inode *inode_lock(struct inode_table *t, uint64_t ino)
{
    struct inode_shard *s = shard_of(t, ino);
    struct inode *i;

    pthread_mutex_lock(&s->lock);
    HASH_FIND(hh, s->inodes, &ino, sizeof(ino), i);
    if (!i)
        pthread_mutex_unlock(&s->lock);
    return i;
}

struct inode *inode_lock_make(struct inode_table *t, uint64_t ino)
{
    struct inode_shard *s = shard_of(t, ino);
    struct inode *i;

    pthread_mutex_lock(&s->lock);
    HASH_FIND(hh, s->inodes, &ino, sizeof(ino), i);
    if (i)
        return i;
    i = calloc(1, sizeof(*i));
    if (!i) {
        pthread_mutex_unlock(&s->lock);
        return NULL;
    }
    i->ino = ino;
    i->born = atomic_load(&t->returns_begun);
    HASH_ADD(hh, s->inodes, ino, sizeof(i->ino), i);
    return i;
}

static bool unused(const struct inode *i)
{
    return i->nlookup == 0 && i->pins == 0 && i->recalls == 0 && i->readers == 0 &&
           i->writers == 0 && i->invalidates == 0 && i->changing == 0 && i->data_changes == 0 &&
           !i->waiters && !i->pending && !i->locks;
}

void inode_unlock(struct inode_table *t, struct inode *i)
{
    struct inode_shard *s = shard_of(t, i->ino);

    if (unused(i)) {
        if (i->lease != STAR__LEASE__LEASE_NONE)
            t->returned(t->ctx, i->ino);
        HASH_DEL(s->inodes, i);
        inode_free(i);
    }
    pthread_mutex_unlock(&s->lock);
}

void inode_table_each(struct inode_table *t, void (*fn)(void *arg, struct inode *i), void *arg)
{
    for (unsigned n = 0; n < INODE_SHARDS; n++) {
        struct inode *i, *tmp;
        pthread_mutex_lock(&t->shards[n].lock);
        HASH_ITER (hh, t->shards[n].inodes, i, tmp)
            fn(arg, i);
        pthread_mutex_unlock(&t->shards[n].lock);
    }
}

static struct timespec time_of(const Star__Time *t)
{
    struct timespec ts = {0};

    if (t) {
        ts.tv_sec = t->sec;
        ts.tv_nsec = t->nsec < 1000000000u ? (long)t->nsec : 0;
    }
    return ts;
}

void attr_from_star(struct attr *to, const Star__Attr *a)
{
    memset(to, 0, sizeof(*to));
    to->st.st_ino = a->ino;
    to->st.st_mode = a->mode;
    to->st.st_nlink = a->nlink;
    to->st.st_uid = a->uid;
    to->st.st_gid = a->gid;
    to->st.st_rdev = a->rdev;
    to->st.st_size = (off_t)a->size;
    to->st.st_blocks = (blkcnt_t)a->blocks;
    to->st.st_blksize = FUSE_BLOCK_SIZE;
    to->st.st_atim = time_of(a->atime);
    to->st.st_mtim = time_of(a->mtime);
    to->st.st_ctim = time_of(a->ctime);
    to->version = a->version;
    to->change = a->change;
}

static bool later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

void inode_merge(const struct inode *i, struct attr *a)
{
    if (!i->home_known || i->home.version <= a->version || !S_ISREG(a->st.st_mode))
        return;
    a->st.st_size = (off_t)i->home.size;
    a->st.st_mtim = i->home.mtime;
    if (later(&i->home.ctime, &a->st.st_ctim))
        a->st.st_ctim = i->home.ctime;
    blkcnt_t blocks = (blkcnt_t)((i->home.bytes + 511) / 512);
    blkcnt_t most = (blkcnt_t)((i->home.size + 511) / 512);
    if (blocks < a->st.st_blocks)
        blocks = a->st.st_blocks;
    if (blocks == 0 && most > 0)
        blocks = 1; /* tools take 0 for a hole as long as the file */
    a->st.st_blocks = blocks < most ? blocks : most;
    a->version = i->home.version;
}

void inode_note_attr(struct inode *i, const Star__Attr *a)
{
    if (i->attr_known && a->change < i->attr.change)
        return;
    attr_from_star(&i->attr, a);
    i->attr_known = true;
}

void inode_note_home(struct inode *i, const Star__HomeAttrs *a)
{
    bool news = !i->home_known || a->home_epoch > i->home.home_epoch ||
                (a->home_epoch == i->home.home_epoch && a->version > i->home.version);

    if (a->ino != i->ino || !news)
        return;
    i->home_known = true;
    i->home = (struct home_attrs){.size = a->size,
                                  .version = a->version,
                                  .home_epoch = a->home_epoch,
                                  .bytes = a->bytes,
                                  .mtime = time_of(a->mtime),
                                  .ctime = time_of(a->ctime),
                                  .node = a->node};
}

int inode_note_place(struct inode *i, const Star__OpenReply *r)
{
    const Star__Ticket *t = r->ticket;

    if (!t || t->ino != i->ino)
        return -EPROTO;
    if (!i->address || strcmp(i->address, r->address) != 0) {
        char *address = r->address[0] ? strdup(r->address) : NULL;
        if (r->address[0] && !address)
            return -ENOMEM;
        free(i->address);
        i->address = address;
    }
    i->ticket = (struct ticket){.home_epoch = t->home_epoch,
                                .size = t->size,
                                .version = t->version,
                                .mtime = time_of(t->mtime),
                                .rights = t->rights,
                                .mapped = t->mapped,
                                .node = t->node,
                                .session = t->session,
                                .expires = t->expires,
                                .generation = t->generation,
                                .until_ms = clock_boot_ms() + r->ticket_ms - r->ticket_ms / 6};
    if (t->mac.len == TICKET_MAC_SIZE)
        memcpy(i->ticket.mac, t->mac.data, i->ticket.mac_len = TICKET_MAC_SIZE);
    /* Without a lease each request asks anew. */
    i->direct = r->direct && i->lease != STAR__LEASE__LEASE_NONE;
    i->located = i->address != NULL || i->direct;
    inode_forget_map(i);
    i->node = r->node;
    i->copy = r->copy;
    return 0;
}

struct handle *inode_handle(struct inode *i, uint64_t fh)
{
    struct handle *h = i->handles;

    while (h && h->fh != fh)
        h = h->next;
    return h;
}

int inode_handle_add(struct inode *i, uint64_t fh)
{
    struct handle *h = malloc(sizeof(*h));

    if (!h)
        return -ENOMEM;
    *h = (struct handle){.next = i->handles, .fh = fh, .errors_seen = i->errors};
    i->handles = h;
    return 0;
}

void inode_handle_remove(struct inode *i, uint64_t fh)
{
    for (struct handle **at = &i->handles; *at; at = &(*at)->next) {
        struct handle *h = *at;
        if (h->fh == fh) {
            *at = h->next;
            free(h);
            return;
        }
    }
}
