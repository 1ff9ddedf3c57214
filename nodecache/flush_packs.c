/* Writing packs: records go into one pack after the other; a full one is synced by a thread beside.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nodecache/flush_private.h"

struct finishing {
    pthread_t thread;
    struct pack_writer *writer;
    uint64_t pack, size;
    int rc;
    char detail[POOL_DETAIL];
};

bool flush_stopping(struct flush *fl)
{
    pthread_mutex_lock(&fl->lock);
    bool stop = fl->stop;
    pthread_mutex_unlock(&fl->lock);
    return stop;
}

/* key is to be wiped. */
static int pack_id(struct flush *fl, uint64_t *id, struct pool_key *key)
{
    struct pool_key keys[FLUSH_ALLOC_PACKS];
    uint64_t first;
    uint32_t got;
    int rc = 0;

    pthread_mutex_lock(&fl->lock);
    if (fl->packs_left == 0) {
        pthread_mutex_unlock(&fl->lock);
        rc = fl->centre->alloc_packs(fl->centre_ctx, FLUSH_ALLOC_PACKS, &first, &got, keys);
        if (rc == 0 && (got == 0 || got > FLUSH_ALLOC_PACKS || first == 0))
            rc = -EPROTO;
        pthread_mutex_lock(&fl->lock);
        /* Two threads may both have asked: the older batch is just left unused. */
        if (rc == 0) {
            fl->pack_next = first;
            fl->packs_left = got;
            memcpy(fl->keys + FLUSH_ALLOC_PACKS - got, keys, got * sizeof(keys[0]));
        }
    }
    if (rc == 0) {
        *id = fl->pack_next++;
        *key = fl->keys[FLUSH_ALLOC_PACKS - fl->packs_left];
        pool_key_wipe(&fl->keys[FLUSH_ALLOC_PACKS - fl->packs_left--]);
    }
    pthread_mutex_unlock(&fl->lock);
    explicit_bzero(keys, sizeof(keys));
    return rc;
}

static void *finish_main(void *arg)
{
    struct finishing *f = arg;

    f->rc = pack_finish(f->writer, &f->size, f->detail);
    return NULL;
}

/* Waits for the pack that is being synced, if there is one. */
static int finish_join(struct group *g)
{
    struct finishing *f = g->finishing;

    if (!f)
        return 0;
    pthread_join(f->thread, NULL);
    int rc = f->rc;
    for (size_t i = 0; i < g->packs_count; i++) {
        if (g->packs[i].pack == f->pack)
            g->packs[i].size = f->size;
    }
    if (rc < 0) {
        snprintf(g->detail, sizeof(g->detail), "%s", f->detail);
        g->pool_failed = true;
    }
    free(f);
    g->finishing = NULL;
    return rc;
}

/* Hands the current pack to a thread that finishes it. */
static int finish_start(struct group *g)
{
    int rc = finish_join(g);
    struct finishing *f;

    if (!g->writer || rc < 0)
        return rc;
    f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->writer = g->writer;
    f->pack = g->pack;
    rc = -pthread_create(&f->thread, NULL, finish_main, f);
    if (rc < 0) {
        free(f);
        return rc;
    }
    g->finishing = f;
    g->writer = NULL;
    return 0;
}

static int pack_begin(struct group *g)
{
    struct pool_key key;
    int rc;

    if (g->packs_count == g->packs_room) {
        size_t room = g->packs_room ? g->packs_room * 2 : 8;
        void *packs = realloc(g->packs, room * sizeof(*g->packs));
        if (!packs)
            return -ENOMEM;
        g->packs = packs;
        g->packs_room = room;
    }
    rc = pack_id(g->flush, &g->pack, &key);
    if (rc < 0) {
        snprintf(g->detail, sizeof(g->detail), "allocating packs: %s", strerror(-rc));
        return rc;
    }
    rc = pack_create(g->flush->pool, pool_key_or_none(&key), g->pack, &g->writer, g->detail);
    pool_key_wipe(&key);
    if (rc < 0) {
        g->pool_failed = true;
        return rc;
    }
    g->packs[g->packs_count].pack = g->pack;
    g->packs[g->packs_count].size = 0;
    g->packs_count++;
    return 0;
}

static int record_room(struct member *m)
{
    if (m->count < m->room)
        return 0;
    size_t room = m->room ? m->room * 2 : 1;
    struct cut_record *records = realloc(m->records, room * sizeof(*records));
    if (!records)
        return -ENOMEM;
    m->records = records;
    m->room = room;
    return 0;
}

static int add_file(struct group *g, const struct member *m, uint32_t records);

int packs_add(struct group *g, struct member *m, uint64_t offset, uint32_t length)
{
    struct pack_record r = {.ino = m->file->ino, .offset = offset, .length = length};
    int rc = record_room(m);

    for (int tries = 0; rc == 0 && tries < 2; tries++) {
        if (!g->writer)
            rc = pack_begin(g);
        if (rc < 0)
            break;
        rc = pack_add_record(g->writer, g->buffer, &r, g->detail);
        if (rc != -EFBIG) {
            g->pool_failed = rc < 0;
            break;
        }
        rc = m->count > 0 && m->records[m->count - 1].pack == g->pack ? add_file(g, m, 0) : 0;
        if (rc == 0)
            rc = finish_start(g); /* full: the next one */
    }
    if (rc < 0)
        return rc;
    m->records[m->count++] = (struct cut_record){.offset = offset,
                                                 .pack = g->pack,
                                                 .pack_offset = r.pack_offset,
                                                 .length = length,
                                                 .number = r.number};
    g->records++;
    return 0;
}

/* Each pack with records of the cut names the file; the last one says how many they are. */
static int add_file(struct group *g, const struct member *m, uint32_t records)
{
    const struct cut *c = m->file->cut;
    struct pack_file f = {.ino = m->file->ino,
                          .size = c->attrs.size,
                          .version = c->attrs.version,
                          .cut = m->file->cut_number + 1,
                          .base_limit = c->base_limit,
                          .mtime_sec = c->attrs.mtime.tv_sec,
                          .mtime_nsec = (uint32_t)c->attrs.mtime.tv_nsec,
                          .records = records};
    int rc = pack_add_file(g->writer, &f, g->detail);

    g->pool_failed = rc < 0;
    return rc;
}

int packs_add_file(struct group *g, const struct member *m)
{
    if (m->count == 0 || !g->writer)
        return 0; /* only truncated: the log says so */
    return add_file(g, m, (uint32_t)m->count);
}

int packs_finish(struct group *g)
{
    int rc = finish_start(g);

    return rc == 0 ? finish_join(g) : rc;
}

static void remember(struct flush *fl, uint64_t pack)
{
    pthread_mutex_lock(&fl->lock);
    if (fl->discards_n < FLUSH_DISCARDS_MAX)
        fl->discards[fl->discards_n++] = pack;
    pthread_mutex_unlock(&fl->lock);
}

/* The object goes if the centre says yes, or if it cannot have been confirmed. */
static int discard(struct flush *fl, uint64_t pack, bool sent)
{
    char ignored[POOL_DETAIL];
    int rc = fl->centre->discard_pack(fl->centre_ctx, pack);

    /* If that fails, the centre has it deleted, as it is condemned or will be. */
    if (rc == 0 || !sent)
        (void)pack_remove(fl->pool, pack, ignored);
    return rc;
}

void flush_discard(struct flush *fl, uint64_t pack, bool sent)
{
    if (centre_unsure(discard(fl, pack, sent)))
        remember(fl, pack);
}

void packs_discard_again(struct flush *fl)
{
    int rc = 0;

    while (rc == 0) {
        pthread_mutex_lock(&fl->lock);
        uint64_t pack = fl->discards_n > 0 ? fl->discards[--fl->discards_n] : 0;
        pthread_mutex_unlock(&fl->lock);
        if (pack == 0)
            break;
        rc = discard(fl, pack, true);
        if (centre_unsure(rc))
            remember(fl, pack);
    }
}

void packs_discard(struct group *g, bool sent)
{
    struct flush *fl = g->flush;

    (void)finish_join(g); /* its error was met, or does not matter any more */
    if (g->writer)
        pack_abandon(g->writer);
    g->writer = NULL;
    for (size_t i = 0; i < g->packs_count; i++)
        flush_discard(fl, g->packs[i].pack, sent);
    g->packs_count = 0;
}
