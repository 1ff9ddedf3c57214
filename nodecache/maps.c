/* The cache of MAP answers. */
#include "nodecache/maps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "nodecache/pool/pool.h"

void maps_init(struct maps *m)
{
    memset(m, 0, sizeof(*m));
    pthread_mutex_init(&m->lock, NULL);
}

static void drop(struct maps *m, struct map_window *w)
{
    struct map_file *f;

    HASH_FIND(hh, m->files, &w->key.ino, sizeof(w->key.ino), f);
    DL_DELETE2(f->windows, w, file_prev, file_next);
    if (!f->windows) {
        HASH_DEL(m->files, f);
        free(f);
    }
    HASH_DEL(m->windows, w);
    DL_DELETE(m->lru, w);
    m->extents -= w->count + 1u;
    maps_put(w);
}

void maps_destroy(struct maps *m)
{
    while (m->lru)
        drop(m, m->lru);
    pthread_mutex_destroy(&m->lock);
}

void maps_put(struct map_window *w)
{
    if (w && atomic_fetch_sub(&w->refs, 1) == 1) {
        explicit_bzero(w->extents, w->count * sizeof(w->extents[0])); /* keys */
        free(w);
    }
}

/* The answer is checked wholly here, so that nobody else has to. */
static int take_extent(const Star__Extent *e, uint64_t from, struct map_extent *out)
{
    if (e->length == 0 || e->length > POOL_RECORD_MAX || e->offset < from ||
        e->offset + e->length < e->offset || e->record_length > POOL_RECORD_MAX ||
        e->record_offset > e->record_length || e->length > e->record_length - e->record_offset ||
        e->pack == 0)
        return -EPROTO;
    *out = (struct map_extent){.offset = e->offset,
                               .length = e->length,
                               .pack = e->pack,
                               .pack_offset = e->pack_offset,
                               .record = e->record,
                               .number = e->number,
                               .record_offset = (uint32_t)e->record_offset,
                               .record_length = (uint32_t)e->record_length};
    int rc = pool_key_take(&out->key, e->key_generation, e->key.data, e->key.len);
    if (e->key.len > 0)
        explicit_bzero(e->key.data, e->key.len);
    return rc;
}

static int window_make(uint64_t ino, uint64_t start, const Star__MapReply *reply,
                       struct map_window **out)
{
    if (reply->n_extents > MAPS_EXTENTS_MAX)
        return -EPROTO;
    struct map_window *w = calloc(1, sizeof(*w) + reply->n_extents * sizeof(struct map_extent));
    if (!w)
        return -ENOMEM;
    w->key = (struct map_key){ino, start};
    atomic_init(&w->refs, 1);
    w->gone = reply->gone;
    w->size = reply->size;
    w->version = reply->version;
    w->home_epoch = reply->home_epoch;
    w->cut_size = reply->cut_size;
    w->cut_version = reply->cut_version;
    if (reply->mtime)
        w->mtime = (struct timespec){reply->mtime->sec, (long)reply->mtime->nsec};
    uint64_t from = 0;
    for (size_t i = 0; i < reply->n_extents; i++) {
        int rc = take_extent(reply->extents[i], from, &w->extents[i]);
        if (rc < 0) {
            free(w);
            return rc;
        }
        from = w->extents[i].offset + w->extents[i].length;
        w->count++;
    }
    *out = w;
    return 0;
}

static void keep(struct maps *m, struct map_window *w)
{
    struct map_window *old;
    struct map_file *f;

    HASH_FIND(hh, m->windows, &w->key, sizeof(w->key), old);
    if (old)
        drop(m, old);
    HASH_FIND(hh, m->files, &w->key.ino, sizeof(w->key.ino), f);
    if (!f) {
        f = calloc(1, sizeof(*f));
        if (!f)
            return; /* not kept: it is only a cache */
        f->ino = w->key.ino;
        HASH_ADD(hh, m->files, ino, sizeof(f->ino), f);
    }
    DL_PREPEND2(f->windows, w, file_prev, file_next);
    HASH_ADD(hh, m->windows, key, sizeof(w->key), w);
    DL_PREPEND(m->lru, w);
    atomic_fetch_add(&w->refs, 1);
    m->extents += w->count + 1u;
    while (m->extents > MAPS_EXTENTS_MAX && m->lru->prev != w)
        drop(m, m->lru->prev);
}

int maps_get(struct maps *m, const struct centre_calls *centre, void *ctx, uint64_t ino,
             uint64_t offset, struct map_window **out)
{
    struct map_key key = {ino, offset - offset % MAPS_WINDOW};
    struct map_window *w;
    Star__MapReply *reply = NULL;

    pthread_mutex_lock(&m->lock);
    HASH_FIND(hh, m->windows, &key, sizeof(key), w);
    if (w) {
        atomic_fetch_add(&w->refs, 1);
        DL_DELETE(m->lru, w);
        DL_PREPEND(m->lru, w);
    }
    uint64_t forgotten = m->forgotten;
    pthread_mutex_unlock(&m->lock);
    if (w) {
        *out = w;
        return 0;
    }
    if (!centre)
        return -ENOTCONN;
    int rc = centre->map(ctx, ino, key.start, MAPS_WINDOW, &reply);
    if (rc < 0)
        return rc;
    /* What does not fit one answer would be taken for holes. */
    rc = reply->n_extents < MAPS_ANSWER_MAX ? window_make(ino, key.start, reply, &w) : -E2BIG;
    star__map_reply__free_unpacked(reply, NULL);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&m->lock);
    if (m->forgotten == forgotten && !w->gone)
        keep(m, w);
    pthread_mutex_unlock(&m->lock);
    *out = w;
    return 0;
}

int maps_rest(const struct centre_calls *centre, void *ctx, uint64_t ino, uint64_t offset,
              struct map_window **out)
{
    Star__MapReply *reply = NULL;

    if (!centre)
        return -ENOTCONN;
    int rc = centre->map(ctx, ino, offset, UINT64_MAX - offset, &reply);
    if (rc < 0)
        return rc;
    rc = window_make(ino, offset, reply, out);
    star__map_reply__free_unpacked(reply, NULL);
    return rc;
}

int maps_next(struct maps *m, const struct centre_calls *centre, void *ctx, uint64_t ino,
              uint64_t at, struct range *out, bool *found)
{
    struct map_window *w;
    int rc = maps_get(m, centre, ctx, ino, at, &w);

    *found = false;
    if (rc < 0)
        return rc;
    const struct map_extent *e = maps_find(w, at);
    if (!e && !w->gone) {
        uint64_t next = w->key.start + MAPS_WINDOW;
        maps_put(w);
        rc = maps_rest(centre, ctx, ino, next, &w);
        if (rc < 0)
            return rc;
        e = maps_find(w, at);
    }
    *found = e != NULL;
    if (e)
        *out = (struct range){e->offset, e->offset + e->length};
    maps_put(w);
    return 0;
}

void maps_forget(struct maps *m, uint64_t ino)
{
    struct map_file *f;

    pthread_mutex_lock(&m->lock);
    m->forgotten++;
    HASH_FIND(hh, m->files, &ino, sizeof(ino), f);
    for (bool last = !f; !last;) {
        last = !f->windows->file_next; /* the last one takes f with it */
        drop(m, f->windows);
    }
    pthread_mutex_unlock(&m->lock);
}

const struct map_extent *maps_find(const struct map_window *w, uint64_t offset)
{
    uint32_t low = 0, high = w->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (w->extents[middle].offset + w->extents[middle].length <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->count ? &w->extents[low] : NULL;
}
