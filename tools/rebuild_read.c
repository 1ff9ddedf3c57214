#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/rebuild.h"

void *list_add(struct list *l)
{
    if (l->n == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        void *grown = realloc(l->rows, room * l->size);
        if (grown == NULL)
            return NULL;
        l->rows = grown;
        l->room = room;
    }
    return memset((char *)l->rows + l->n++ * l->size, 0, l->size);
}

/* ---- pass 1 */

static bool see_pack(void *arg, uint64_t pack)
{
    struct rebuild *r = arg;
    uint64_t *row = list_add(&r->packs);

    if (row == NULL) {
        r->rc = -ENOMEM;
        return false;
    }
    *row = pack;
    r->last_pack = pack > r->last_pack ? pack : r->last_pack;
    return true;
}

static void see_part(void *arg, const struct pack_record *record)
{
    struct rebuild *r = arg;
    struct meta_part *p;

    if (record->ino != POOL_INO_META) {
        if (!POOL_INO_IS(record->ino) && record->ino > r->last_ino)
            r->last_ino = record->ino;
        return;
    }
    p = list_add(&r->parts);
    if (p == NULL)
        r->rc = -ENOMEM;
    else
        *p = (struct meta_part){.offset = record->offset,
                                .pack = r->pack,
                                .pack_offset = record->pack_offset,
                                .number = record->number,
                                .length = record->length};
}

/* One copy at most has parts in a pack. */
static void see_meta(void *arg, const struct pack_file *f)
{
    struct rebuild *r = arg;
    struct meta_said *m;

    if (f->ino != POOL_INO_META)
        return;
    for (size_t n = r->pack_first; n < r->parts.n; n++)
        ((struct meta_part *)r->parts.rows)[n].count = f->version;
    m = list_add(&r->metas);
    if (m == NULL)
        r->rc = -ENOMEM;
    else
        *m = (struct meta_said){f->version, f->size, f->records};
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* The pack's key; generation 0: it is not sealed, or there are no keys, which its header will tell.
 */
static int key_of(struct rebuild *r, uint64_t pack, struct pool_key *key, char *detail)
{
    struct pack_about about;

    *key = (struct pool_key){.generation = 0};
    if (r->keys.count == 0)
        return 0;
    int rc = pack_about(r->pool, pack, &about, detail);
    if (rc < 0)
        return rc;
    const struct pool_key *cloud = keyring_key(&r->keys, about.generation);
    if (cloud != NULL)
        return pool_pack_key(cloud, pack, key);
    snprintf(detail, POOL_DETAIL, "pack %ju is %s", (uintmax_t)pack,
             about.sealed ? "sealed under a key that is not among those given"
                          : "not sealed, as packs of this cloud are");
    return -EBADMSG;
}

static int index_pack(struct rebuild *r, void (*record)(void *, const struct pack_record *),
                      void (*file)(void *, const struct pack_file *), char *detail)
{
    struct pool_key key;
    int rc = key_of(r, r->pack, &key, detail);

    if (rc == 0)
        rc = pack_index(r->pool, pool_key_or_none(&key), r->pack, record, file, r, detail);
    pool_key_wipe(&key);
    return rc;
}

static int read_record(struct rebuild *r, uint64_t pack, uint32_t number, uint64_t at,
                       uint32_t length, void *out)
{
    struct pool_key key;
    int rc = key_of(r, pack, &key, r->detail);

    if (rc == 0 && key.generation != 0)
        rc = pool_record_key(&key, number, &key);
    if (rc == 0)
        rc = pack_read(r->pool, pool_key_or_none(&key), pack, number, at, length, 0, out, length,
                       r->detail);
    pool_key_wipe(&key);
    return rc;
}

int rebuild_find(struct rebuild *r)
{
    char ignored[POOL_DETAIL];
    int rc = pack_list(r->pool, see_pack, r, r->detail);

    if (rc == 0)
        rc = r->rc;
    if (rc == 0 && r->packs.n > 0)
        qsort(r->packs.rows, r->packs.n, sizeof(uint64_t), by_number);
    for (size_t n = 0; rc == 0 && n < r->packs.n; n++) {
        r->pack = ((uint64_t *)r->packs.rows)[n];
        r->pack_first = r->parts.n;
        /* One that was never finished, or is damaged: told when it turns out to matter. */
        rc = index_pack(r, see_part, see_meta, ignored);
        rc = rc == -EBADMSG ? 0 : rc;
        if (rc == 0)
            rc = r->rc;
        if (rc < 0)
            snprintf(r->detail, sizeof(r->detail), "%s", ignored);
    }
    return rc;
}

static int by_count_and_offset(const void *a, const void *b)
{
    const struct meta_part *x = a, *y = b;

    if (x->count != y->count)
        return x->count > y->count ? -1 : 1; /* the newest first */
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static const struct meta_said *said_of(const struct rebuild *r, uint64_t count)
{
    for (size_t n = 0; n < r->metas.n; n++) {
        const struct meta_said *m = (const struct meta_said *)r->metas.rows + n;
        if (m->count == count && m->records > 0)
            return m;
    }
    return NULL;
}

/* Parts [first, first + n) make one copy. */
static int write_copy(struct rebuild *r, const struct meta_part *p, size_t n, uint64_t size,
                      const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint8_t *buffer = malloc(POOL_RECORD_MAX);
    uint64_t at = 0;
    int rc = fd < 0 ? -errno : buffer == NULL ? -ENOMEM : 0;

    for (; rc == 0 && n > 0; n--, p++) {
        if (p->offset != at)
            rc = -EBADMSG;
        else
            rc = read_record(r, p->pack, p->number, p->pack_offset, p->length, buffer);
        if (rc == 0 && pwrite(fd, buffer, p->length, (off_t)at) != (ssize_t)p->length)
            rc = -EIO;
        at += p->length;
    }
    if (rc == 0 && at != size)
        rc = -EBADMSG;
    if (rc == 0 && fsync(fd) != 0)
        rc = -errno;
    if (fd >= 0)
        close(fd);
    free(buffer);
    return rc;
}

int rebuild_meta(struct rebuild *r, const char *path)
{
    struct meta_part *parts = r->parts.rows;

    if (r->parts.n > 0)
        qsort(parts, r->parts.n, sizeof(*parts), by_count_and_offset);
    for (size_t at = 0, end; at < r->parts.n; at = end) {
        for (end = at; end < r->parts.n && parts[end].count == parts[at].count;)
            end++;
        const struct meta_said *m = said_of(r, parts[at].count);
        int rc = m != NULL && m->records == end - at
                     ? write_copy(r, parts + at, end - at, m->size, path)
                     : -EBADMSG;
        if (rc == 0) {
            r->meta_count = m->count;
            return 0;
        }
        if (rc != -EBADMSG && rc != -ENOENT)
            return rc;
        printf("note copy %ju of the state is not whole, an older one is looked "
               "for\n",
               (uintmax_t)parts[at].count);
    }
    return -ENOENT;
}

/* ---- pass 2 */

static void see_piece(void *arg, const struct pack_record *record)
{
    struct rebuild *r = arg;
    struct piece *p;

    p = list_add(&r->pieces);
    if (p == NULL)
        r->rc = -ENOMEM;
    else
        *p = (struct piece){.ino = record->ino,
                            .offset = record->offset,
                            .record = r->pack << STATE_RECORD_BITS | record->number,
                            .pack = r->pack,
                            .pack_offset = record->pack_offset,
                            .number = record->number,
                            .length = record->length};
}

static void see_cut(void *arg, const struct pack_file *f)
{
    struct rebuild *r = arg;
    struct cut_said *c;

    if (POOL_INO_IS(f->ino))
        return;
    c = list_add(&r->cuts);
    if (c == NULL)
        r->rc = -ENOMEM;
    else
        *c = (struct cut_said){f->ino,        f->version,   f->cut,        f->size,
                               f->base_limit, f->mtime_sec, f->mtime_nsec, f->records};
}

/* A pack of gc says of each record where it comes from. */
static int name_moved(struct rebuild *r)
{
    struct piece *p = (struct piece *)r->pieces.rows + r->pack_first, last;
    size_t n = r->pieces.n - r->pack_first;
    uint8_t *origins = malloc(POOL_RECORD_MAX);

    if (origins == NULL)
        return -ENOMEM;
    last = p[n - 1];
    int rc = read_record(r, last.pack, last.number, last.pack_offset, last.length, origins);
    r->pieces.n--;
    for (size_t k = 0; rc == 0 && k < n - 1 && (k + 1) * POOL_ORIGIN <= last.length; k++) {
        struct pack_origin o;
        pack_origin_get(origins + k * POOL_ORIGIN, &o);
        p[k].record = o.record;
        p[k].version = o.version;
        p[k].cut = o.cut;
        p[k].moved = true;
    }
    free(origins);
    return rc;
}

static int by_ino(const void *a, const void *b)
{
    const struct cut_said *x = a, *y = b;

    return (x->ino > y->ino) - (x->ino < y->ino);
}

/* A pack of a flush has one cut of each file. */
static void name_flushed(struct rebuild *r, size_t cuts_first)
{
    struct cut_said *cuts = (struct cut_said *)r->cuts.rows + cuts_first;
    size_t n = r->cuts.n - cuts_first;

    if (n > 0)
        qsort(cuts, n, sizeof(*cuts), by_ino);
    for (size_t k = r->pack_first; n > 0 && k < r->pieces.n; k++) {
        struct piece *p = (struct piece *)r->pieces.rows + k;
        const struct cut_said key = {.ino = p->ino};
        const struct cut_said *c = bsearch(&key, cuts, n, sizeof(*cuts), by_ino);
        p->version = c != NULL ? c->version : 0;
        p->cut = c != NULL ? c->cut : 0;
    }
}

/* Which copy of the state has a part there. */
static uint64_t copy_in(const struct rebuild *r, uint64_t pack)
{
    for (size_t n = 0; n < r->parts.n; n++) {
        const struct meta_part *p = (const struct meta_part *)r->parts.rows + n;
        if (p->pack == pack)
            return p->count;
    }
    return 0;
}

static int read_pack(struct rebuild *r)
{
    size_t cuts_first = r->cuts.n;
    uint64_t size = 0;
    Star__ConfirmPack *fresh;

    r->pack_first = r->pieces.n;
    struct pool_key key;
    int rc = key_of(r, r->pack, &key, r->detail);
    uint32_t generation = key.generation;
    if (rc == 0)
        rc = pack_verify(r->pool, pool_key_or_none(&key), r->pack, &size, r->detail);
    pool_key_wipe(&key);
    if (rc == 0)
        rc = index_pack(r, see_piece, see_cut, r->detail);
    if (rc == 0)
        rc = r->rc;
    if (rc == -EBADMSG) {
        printf("note %s\n", r->detail);
        r->packs_damaged++;
        r->pieces.n = r->pack_first;
        r->cuts.n = cuts_first;
        return 0;
    }
    uint64_t meta = 0;
    const struct piece *last = (struct piece *)r->pieces.rows + r->pieces.n - 1;
    if (rc == 0 && r->pieces.n > r->pack_first && last->ino == POOL_INO_META) {
        r->pieces.n = r->pack_first;
        meta = copy_in(r, r->pack);
    } else if (rc == 0 && r->pieces.n > r->pack_first && last->ino == POOL_INO_MOVES)
        rc = name_moved(r);
    else if (rc == 0)
        name_flushed(r, cuts_first);
    fresh = rc == 0 ? list_add(&r->fresh) : NULL;
    if (fresh == NULL)
        return rc < 0 ? rc : -ENOMEM;
    star__confirm_pack__init(fresh);
    fresh->pack = r->pack;
    fresh->size = size;
    fresh->key_generation = generation;
    fresh->meta = meta;
    return 0;
}

struct known {
    uint64_t pack;
    struct state_pack p;
};

static bool see_known(void *arg, const struct state_pack *p)
{
    struct known *k = arg;

    if (p->id == k->pack)
        k->p = *p;
    return false;
}

/* What was given out before the copy and is not allocated in it was dealt with: live, or garbage.
 */
int rebuild_read(struct rebuild *r)
{
    int rc = 0;

    for (size_t n = 0; rc == 0 && n < r->packs.n; n++) {
        struct known k = {.pack = ((uint64_t *)r->packs.rows)[n]};
        rc = state_packs(r->state, k.pack - 1, see_known, &k);
        r->pack = k.pack;
        if (rc == 0 &&
            (k.p.state == PACK_ALLOCATED || (k.p.state == 0 && k.pack > state_last_pack(r->state))))
            rc = read_pack(r);
    }
    return rc;
}
