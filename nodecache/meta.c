#include "nodecache/meta.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A pack takes no more from here on. */
#define FULL (POOL_PACK_TARGET - 2 * POOL_RECORD_MAX)

struct copy {
    struct pool *pool;
    const struct centre_calls *centre;
    void *ctx;
    const Star__WriteMeta *q;
    struct pack_writer *writer;
    Star__ConfirmPack *packs;
    size_t n, room;
    uint32_t records;
    uint8_t *buffer;
    char *detail;
};

static int pack_begin(struct copy *c)
{
    uint64_t pack = 0;
    struct pool_key key;

    if (c->n == c->room) {
        size_t room = c->room ? c->room * 2 : 8;
        Star__ConfirmPack *grown = realloc(c->packs, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        c->packs = grown;
        c->room = room;
    }
    int rc = c->centre->alloc_gc(c->ctx, &pack, &key);
    if (rc < 0)
        return rc;
    star__confirm_pack__init(&c->packs[c->n]);
    c->packs[c->n++].pack = pack;
    rc = pack_create(c->pool, pool_key_or_none(&key), pack, &c->writer, c->detail);
    pool_key_wipe(&key);
    return rc;
}

static int pack_end(struct copy *c, bool last)
{
    const struct pack_file f = {.ino = POOL_INO_META,
                                .size = c->q->size,
                                .version = c->q->count,
                                .cut = c->q->count,
                                .base_limit = UINT64_MAX,
                                .mtime_sec = time(NULL),
                                .records = last ? c->records : 0};
    struct pack_writer *w = c->writer;

    if (!w)
        return 0;
    c->writer = NULL;
    int rc = pack_add_file(w, &f, c->detail);
    if (rc < 0) {
        pack_abandon(w);
        return rc;
    }
    return pack_finish(w, &c->packs[c->n - 1].size, c->detail);
}

static int add_part(struct copy *c, uint64_t at, uint32_t *length)
{
    struct pack_record r = {.ino = POOL_INO_META, .offset = at};
    int rc = c->centre->meta_fetch(c->ctx, c->q->count, at, c->buffer, length);

    if (rc == 0 && *length == 0)
        rc = -EPROTO; /* shorter than it was said to be */
    if (rc == 0 && c->writer && pack_bytes(c->writer) >= FULL)
        rc = pack_end(c, false);
    if (rc == 0 && !c->writer)
        rc = pack_begin(c);
    r.length = *length;
    if (rc == 0)
        rc = pack_add_record(c->writer, c->buffer, &r, c->detail);
    c->records++;
    return rc;
}

static int write_all(struct copy *c)
{
    int rc = 0;

    for (uint64_t at = 0; rc == 0 && at < c->q->size;) {
        uint64_t left = c->q->size - at;
        uint32_t length = left < POOL_RECORD_MAX ? (uint32_t)left : POOL_RECORD_MAX;
        rc = add_part(c, at, &length);
        at += length;
    }
    return rc < 0 ? rc : pack_end(c, true);
}

static int tell(struct copy *c, bool *sent)
{
    Star__MetaStored m = STAR__META_STORED__INIT;
    Star__ConfirmPack **list = calloc(c->n + 1, sizeof(*list));

    if (!list)
        return -ENOMEM;
    for (size_t k = 0; k < c->n; k++)
        list[k] = &c->packs[k];
    m.count = c->q->count;
    m.packs = list;
    m.n_packs = c->n;
    *sent = true;
    int rc = c->centre->meta_stored(c->ctx, &m);
    free(list);
    return rc;
}

int meta_write(struct pool *pool, const struct centre_calls *centre, void *ctx, struct flush *fl,
               const Star__WriteMeta *q, char detail[NODE_DETAIL])
{
    struct copy c = {.pool = pool, .centre = centre, .ctx = ctx, .q = q, .detail = detail};
    bool sent = false;
    int rc = q->size == 0 || q->size > (uint64_t)INT64_MAX ? -EINVAL : 0;

    detail[0] = '\0';
    if (rc == 0 && !(c.buffer = malloc(POOL_RECORD_MAX)))
        rc = -ENOMEM;
    if (rc == 0)
        rc = write_all(&c);
    if (c.writer)
        pack_abandon(c.writer);
    if (rc == 0)
        rc = tell(&c, &sent);
    for (size_t k = 0; rc < 0 && k < c.n; k++)
        flush_discard(fl, c.packs[k].pack, sent);
    if (rc < 0 && detail[0] == '\0')
        snprintf(detail, NODE_DETAIL, "%s", strerror(-rc));
    free(c.buffer);
    free(c.packs);
    return rc;
}
