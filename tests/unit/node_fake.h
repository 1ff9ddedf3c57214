/* A stand-in for the centre, and helpers, for the tests of the node's store and flush. */
#ifndef UMBEL_TEST_NODE_FAKE_H
#define UMBEL_TEST_NODE_FAKE_H

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nodecache/flush.h"
#include "nodecache/store_private.h"

#define FAKE_FILES   1024
#define FAKE_EXTENTS 512

struct fake_file {
    uint64_t ino, size, version, epoch, cut, map_version;
    uint64_t cut_version, cut_size;
    bool homed; /* here; version and size are what the log knows */
    struct timespec mtime;
    bool gone;
    size_t count;
    struct {
        uint64_t offset, length, pack, pack_offset, record_offset, record_length;
        uint32_t number;
    } extents[FAKE_EXTENTS];
};

struct fake {
    pthread_mutex_t lock;
    struct fake_file *files[FAKE_FILES];
    size_t count;
    uint64_t next_pack;
    unsigned confirms, maps, moves;
    unsigned fail_moves; /* so many are refused */
    _Atomic unsigned discards;
    unsigned lose_answers;  /* so many confirms are taken, but answered -ETIMEDOUT */
    unsigned fail_confirms; /* so many are answered -EIO, not taken */
    uint64_t refuse;        /* inode */
    _Atomic bool away;      /* every call: -ETIMEDOUT */
    _Atomic bool fail_discards;
    void (*on_confirm)(void *arg); /* before it is taken */
    void *on_confirm_arg;
};

static inline struct fake_file *fake_file(struct fake *k, uint64_t ino)
{
    for (size_t i = 0; i < k->count; i++) {
        if (k->files[i]->ino == ino)
            return k->files[i];
    }
    cr_assert(k->count < FAKE_FILES);
    struct fake_file *f = calloc(1, sizeof(*f));
    f->ino = ino;
    k->files[k->count++] = f;
    return f;
}

/* Takes [start, end) out of a map. */
static inline void fake_cut_out(struct fake_file *f, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < f->count; i++) {
        uint64_t a = f->extents[i].offset, b = a + f->extents[i].length;
        if (b <= start || a >= end)
            continue;
        if (a < start && b > end) {
            cr_assert(f->count < FAKE_EXTENTS);
            f->extents[f->count] = f->extents[i];
            f->extents[f->count].offset = end;
            f->extents[f->count].length = b - end;
            f->extents[f->count].record_offset += end - a;
            f->count++;
            f->extents[i].length = start - a;
        } else if (a < start) {
            f->extents[i].length = start - a;
        } else if (b > end) {
            f->extents[i].offset = end;
            f->extents[i].length = b - end;
            f->extents[i].record_offset += end - a;
        } else {
            f->extents[i] = f->extents[--f->count];
            i--;
        }
    }
}

static inline int fake_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b; /* offset comes first */

    return x < y ? -1 : x > y;
}

/* As the centre of a sealed cloud. */
static inline struct pool_key fake_pack_key(uint64_t pack)
{
    struct pool_key key = {.bytes = {7, 7, 7}, .generation = 1};

    pool_pack_key(&key, pack, &key);
    return key;
}

static inline struct pool_key fake_record_key(uint64_t pack, uint32_t number)
{
    struct pool_key key = fake_pack_key(pack);

    pool_record_key(&key, number, &key);
    return key;
}

static inline int fake_map(void *ctx, uint64_t ino, uint64_t offset, uint64_t length,
                           Star__MapReply **out)
{
    struct fake *k = ctx;
    Star__MapReply *r = malloc(sizeof(*r));

    star__map_reply__init(r);
    pthread_mutex_lock(&k->lock);
    bool away = k->away;
    k->maps++;
    struct fake_file *f = fake_file(k, ino);
    qsort(f->extents, f->count, sizeof(f->extents[0]), fake_compare);
    r->size = f->size;
    r->version = f->version;
    r->home_epoch = f->epoch;
    r->cut_size = f->cut_size;
    r->cut_version = f->cut_version;
    r->map_version = f->map_version;
    r->gone = f->gone;
    r->extents = calloc(f->count + 1, sizeof(Star__Extent *));
    for (size_t i = 0; i < f->count; i++) {
        if (f->extents[i].offset >= offset + length ||
            f->extents[i].offset + f->extents[i].length <= offset)
            continue;
        Star__Extent *e = malloc(sizeof(*e));
        star__extent__init(e);
        e->offset = f->extents[i].offset;
        e->length = f->extents[i].length;
        e->pack = f->extents[i].pack;
        e->record = f->extents[i].pack << 20 | f->extents[i].number;
        e->number = f->extents[i].number;
        e->record_offset = f->extents[i].record_offset;
        e->pack_offset = f->extents[i].pack_offset;
        e->record_length = f->extents[i].record_length;
        struct pool_key key = fake_record_key(e->pack, e->number);
        e->key.data = malloc(POOL_KEY);
        e->key.len = POOL_KEY;
        memcpy(e->key.data, key.bytes, POOL_KEY);
        e->key_generation = key.generation;
        r->extents[r->n_extents++] = e;
    }
    pthread_mutex_unlock(&k->lock);
    if (away) {
        star__map_reply__free_unpacked(r, NULL);
        return -ETIMEDOUT;
    }
    *out = r;
    return 0;
}

/* One file in each answer. */
static inline int fake_homed(void *ctx, uint64_t after, Star__HomedReply **out)
{
    struct fake *k = ctx;
    struct fake_file *next = NULL;

    if (k->away)
        return -ETIMEDOUT;
    Star__HomedReply *r = calloc(1, sizeof(*r));
    star__homed_reply__init(r);
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->count; i++) {
        struct fake_file *f = k->files[i];
        if (f->ino > after && f->homed && !f->gone && f->version > f->cut_version &&
            (!next || f->ino < next->ino))
            next = f;
    }
    pthread_mutex_unlock(&k->lock);
    r->done = !next;
    r->last = after;
    if (next) {
        r->files = malloc(sizeof(Star__HomeAttrs *));
        r->files[r->n_files++] = malloc(sizeof(Star__HomeAttrs));
        star__home_attrs__init(r->files[0]);
        r->last = r->files[0]->ino = next->ino;
        r->files[0]->version = next->version;
        r->files[0]->home_epoch = next->epoch;
    }
    *out = r;
    return 0;
}

static inline int fake_alloc(void *ctx, uint32_t count, uint64_t *first, uint32_t *got,
                             struct pool_key *keys)
{
    struct fake *k = ctx;

    pthread_mutex_lock(&k->lock);
    bool away = k->away;
    *first = k->next_pack + 1;
    *got = count;
    k->next_pack += count;
    for (uint32_t i = 0; i < count; i++)
        keys[i] = fake_pack_key(*first + i);
    pthread_mutex_unlock(&k->lock);
    return away ? -ETIMEDOUT : 0;
}

static inline void fake_take(struct fake_file *f, const Star__CutFile *c)
{
    f->cut = c->cut;
    f->map_version++;
    f->size = c->attrs->size;
    f->version = f->cut_version = c->attrs->version;
    f->cut_size = f->size;
    fake_cut_out(f, c->base_limit, UINT64_MAX);
    for (size_t i = 0; i < c->n_records; i++) {
        const Star__CutRecord *r = c->records[i];
        cr_assert_eq(r->offset / NODE_INDEX, (r->offset + r->length - 1) / NODE_INDEX);
        fake_cut_out(f, r->offset, r->offset + r->length);
        cr_assert(f->count < FAKE_EXTENTS);
        f->extents[f->count].offset = r->offset;
        f->extents[f->count].length = r->length;
        f->extents[f->count].pack = r->pack;
        f->extents[f->count].pack_offset = r->pack_offset;
        f->extents[f->count].record_offset = 0;
        f->extents[f->count].record_length = r->length;
        f->extents[f->count].number = r->number;
        f->count++;
    }
    fake_cut_out(f, f->size, UINT64_MAX);
}

static inline int fake_confirm(void *ctx, const Star__Confirm *m, Star__ConfirmReply **out)
{
    struct fake *k = ctx;
    int rc = 0;

    if (k->on_confirm)
        k->on_confirm(k->on_confirm_arg);
    Star__ConfirmReply *r = malloc(sizeof(*r));
    star__confirm_reply__init(r);
    r->refused = calloc(m->n_files + 1, sizeof(uint64_t));
    pthread_mutex_lock(&k->lock);
    k->confirms++;
    if (k->away) {
        rc = -ETIMEDOUT;
    } else if (k->fail_confirms > 0) {
        k->fail_confirms--;
        rc = -EIO;
    }
    for (size_t i = 0; rc == 0 && i < m->n_files; i++) {
        const Star__CutFile *c = m->files[i];
        struct fake_file *f = fake_file(k, c->attrs->ino);
        if (f->gone || c->attrs->ino == k->refuse || c->attrs->home_epoch < f->epoch)
            r->refused[r->n_refused++] = c->attrs->ino;
        else if (c->cut > f->cut)
            fake_take(f, c);
    }
    if (rc == 0 && k->lose_answers > 0) {
        k->lose_answers--;
        rc = -ETIMEDOUT;
    }
    pthread_mutex_unlock(&k->lock);
    if (rc < 0)
        star__confirm_reply__free_unpacked(r, NULL);
    else
        *out = r;
    return rc;
}

static inline int fake_discard(void *ctx, uint64_t pack)
{
    struct fake *k = ctx;

    (void)pack;
    if (k->away || k->fail_discards)
        return -ETIMEDOUT;
    k->discards++;
    return 0;
}

static inline int fake_alloc_gc(void *ctx, uint64_t *pack, struct pool_key *key)
{
    uint32_t got;

    return fake_alloc(ctx, 1, pack, &got, key);
}

/* As the centre does: what still lies where it was read. */
static inline int fake_moved(void *ctx, const Star__Moved *m, uint64_t *count)
{
    struct fake *k = ctx;
    int rc = 0;

    pthread_mutex_lock(&k->lock);
    *count = 0;
    k->moves++;
    if (k->away || k->fail_moves > 0) {
        rc = k->away ? -ETIMEDOUT : -ESTALE;
        k->fail_moves -= k->fail_moves > 0;
    }
    for (size_t f = 0; rc == 0 && f < k->count; f++) {
        for (size_t e = 0; e < k->files[f]->count; e++) {
            for (size_t i = 0; i < m->n_records; i++) {
                const Star__MovedRecord *r = m->records[i];
                if (k->files[f]->extents[e].pack != r->from_pack ||
                    k->files[f]->extents[e].number != r->from_number)
                    continue;
                k->files[f]->extents[e].pack = r->pack;
                k->files[f]->extents[e].number = r->number;
                k->files[f]->extents[e].pack_offset = r->pack_offset;
                ++*count;
                break;
            }
        }
    }
    pthread_mutex_unlock(&k->lock);
    return rc;
}

static const struct centre_calls fake_calls = {.map = fake_map,
                                               .homed = fake_homed,
                                               .alloc_packs = fake_alloc,
                                               .confirm = fake_confirm,
                                               .discard_pack = fake_discard,
                                               .alloc_gc = fake_alloc_gc,
                                               .moved = fake_moved};

/* ---- a node without a process ---- */

struct rig {
    char dir[64]; /* holds store/ and pool/ */
    struct fake fake;
    struct pool *pool;
    struct store *store;
    struct flush *flush;
    struct store_options options;
    char boot[40];
    char store_dir[96];
};

static inline int rig_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void rig_say(void *ctx, const char *line)
{
    (void)ctx;
    if (getenv("NODE_TEST_LOG"))
        fprintf(stderr, "%s\n", line);
}

static inline int rig_open_detail(struct rig *r, bool flush, char *detail)
{
    int rc = store_open(&r->options, &r->store, detail);

    if (rc == 0 && flush)
        rc = flush_start(r->store, r->pool, &fake_calls, &r->fake, &r->flush);
    return rc;
}

static inline void rig_open(struct rig *r, bool flush)
{
    char detail[NODE_DETAIL] = "";
    int rc = rig_open_detail(r, flush, detail);

    cr_assert_eq(rc, 0, "%s (%d)", detail, rc);
    store_set_node(r->store, 1);
    store_set_water(r->store, 90, 60, 3600);
}

static inline void rig_start(struct rig *r, uint64_t capacity)
{
    char url[128], detail[POOL_DETAIL] = "";

    memset(r, 0, sizeof(*r));
    pthread_mutex_init(&r->fake.lock, NULL);
    snprintf(r->dir, sizeof(r->dir), "/tmp/umbel-node-test-XXXXXX");
    cr_assert_not_null(mkdtemp(r->dir));
    snprintf(r->store_dir, sizeof(r->store_dir), "%s/store", r->dir);
    snprintf(url, sizeof(url), "dir:%s/pool", r->dir);
    cr_assert_eq(pool_open(url, "test", true, &r->pool, detail), 0, "%s", detail);
    strcpy(r->boot, "boot-1");
    r->options = (struct store_options){.dir = r->store_dir,
                                        .capacity = capacity,
                                        .boot_id = r->boot,
                                        .pool = r->pool,
                                        .centre = &fake_calls,
                                        .centre_ctx = &r->fake,
                                        .space_deadline_ms = 3000,
                                        .say = rig_say};
}

static inline void rig_close(struct rig *r, bool clean)
{
    flush_stop(r->flush);
    r->flush = NULL;
    cr_assert_eq(store_close(r->store, clean), 0);
    r->store = NULL;
}

static inline void rig_end(struct rig *r)
{
    if (r->store)
        rig_close(r, false);
    pool_close(r->pool);
    for (size_t i = 0; i < r->fake.count; i++)
        free(r->fake.files[i]);
    nftw(r->dir, rig_remove, 16, FTW_DEPTH | FTW_PHYS);
}

static inline struct ticket rig_ticket(uint64_t ino)
{
    return (struct ticket){.ino = ino, .rights = RIGHT_READ | RIGHT_WRITE, .home_epoch = 1};
}

/* Byte `offset` of the n-th content of a file: every test can tell which write it sees. */
static inline uint8_t rig_byte(unsigned n, uint64_t offset)
{
    return (uint8_t)(offset * 31 + (offset >> 8) * 7 + n * 101 + 1);
}

static inline void rig_fill(uint8_t *out, unsigned n, uint64_t offset, size_t length)
{
    for (size_t i = 0; i < length; i++)
        out[i] = rig_byte(n, offset + i);
}

static inline int rig_try_write(struct rig *r, uint64_t ino, unsigned n, uint64_t offset,
                                size_t length)
{
    struct ticket t = rig_ticket(ino);
    struct attrs attrs;
    uint64_t placed;
    uint8_t *data = malloc(length);

    rig_fill(data, n, offset, length);
    int rc;
    do /* as a mount does */
        rc = store_write(r->store, &t, offset, false, (struct timespec){.tv_sec = 1000 + n}, data,
                         length, &attrs, &placed);
    while (rc == -EBUSY);
    free(data);
    return rc;
}

static inline void rig_write(struct rig *r, uint64_t ino, unsigned n, uint64_t offset,
                             size_t length)
{
    for (size_t done = 0; done < length;) {
        size_t step = length - done < NODE_IO_MAX ? length - done : NODE_IO_MAX;
        int rc = rig_try_write(r, ino, n, offset + done, step);
        cr_assert_eq(rc, 0, "write: %s", strerror(-rc));
        done += step;
    }
}

/* Reads through the store; returns the length. */
static inline size_t rig_read(struct rig *r, uint64_t ino, uint64_t offset, size_t length,
                              uint8_t *out)
{
    struct ticket t = rig_ticket(ino);
    struct store_reading reading;
    char detail[NODE_DETAIL] = "";
    uint8_t *buffer = malloc(NODE_IO_MAX);
    int rc = store_read(r->store, &t, offset, length, buffer, &reading, detail);

    cr_assert_eq(rc, 0, "read: %s %s", strerror(-rc), detail);
    if (reading.fd >= 0)
        cr_assert_eq(pread(reading.fd, out, reading.length, (off_t)reading.offset),
                     (ssize_t)reading.length);
    else
        memcpy(out, reading.data, reading.length);
    size_t got = reading.length;
    store_read_done(r->store, &reading);
    free(buffer);
    return got;
}

static inline void rig_expect(struct rig *r, uint64_t ino, int n, uint64_t offset, size_t length)
{
    for (size_t done = 0; done < length;) {
        static _Thread_local uint8_t data[NODE_IO_MAX];
        size_t step = length - done < NODE_IO_MAX ? length - done : NODE_IO_MAX;
        cr_assert_eq(rig_read(r, ino, offset + done, step, data), step, "short read at %lu",
                     (unsigned long)(offset + done));
        for (size_t i = 0; i < step; i++) {
            uint8_t want = n < 0 ? 0 : rig_byte((unsigned)n, offset + done + i);
            cr_assert_eq(data[i], want, "inode %lu, byte %lu: %u instead of %u", (unsigned long)ino,
                         (unsigned long)(offset + done + i), data[i], want);
        }
        done += step;
    }
}

static inline struct attrs rig_attrs(struct rig *r, uint64_t ino)
{
    struct attrs attrs = {0};

    cr_assert_eq(store_getattr(r->store, ino, &attrs), 0);
    return attrs;
}

static inline void rig_truncate(struct rig *r, uint64_t ino, uint64_t size)
{
    struct ticket t = rig_ticket(ino);
    struct setattr set = {.set_size = true, .size = size, .now = {.tv_sec = 2000}};
    struct attrs attrs;

    cr_assert_eq(store_setattr(r->store, &t, &set, &attrs), 0);
    cr_assert_eq(attrs.size, size);
}

static inline void rig_flush(struct rig *r)
{
    struct flush_result result;
    int rc = flush_wait(r->flush, NULL, 0, 20000, &result);

    cr_assert_eq(rc, 0, "flush: %s: %s", strerror(-rc), result.detail);
}

static inline void rig_evict(struct rig *r, uint64_t ino)
{
    uint64_t bytes = 0;
    int rc = -EBUSY;

    for (int i = 0; rc == -EBUSY && i < 500; i++) {
        rc = store_evict(r->store, ino, &bytes); /* busy: read-ahead is under way */
        if (rc == -EBUSY)
            usleep(1000);
    }
    cr_assert_eq(rc, 0);
}

/* The disk spoils a clean byte in [start, end) of the flat file; false: there is none. */
static inline bool rig_spoil(struct rig *r, uint64_t ino, uint64_t start, uint64_t end)
{
    struct file *f = file_peek(&r->store->table, ino);
    char path[160];
    bool found = false;
    uint8_t byte;

    if (!f)
        return false;
    snprintf(path, sizeof(path), "%s/files/%02x/%lu", r->store_dir, (unsigned)(ino & 0xff),
             (unsigned long)ino);
    pthread_mutex_lock(&f->lock);
    for (uint64_t at = start; at < end && !found; at++)
        if (ranges_contains(&f->present, at, at + 1) &&
            !ranges_intersects(&f->staged, at, at + 1)) {
            FILE *flat = fopen(path, "r+");
            cr_assert_not_null(flat, "%s", path);
            fseek(flat, (long)at, SEEK_SET);
            cr_assert_eq(fread(&byte, 1, 1, flat), 1);
            byte ^= 0x10;
            fseek(flat, (long)at, SEEK_SET);
            cr_assert_eq(fwrite(&byte, 1, 1, flat), 1);
            fclose(flat);
            found = true;
        }
    pthread_mutex_unlock(&f->lock);
    file_unref(f);
    return found;
}

static inline struct store_counts rig_counts(struct rig *r)
{
    struct store_counts c;

    store_counts(r->store, &c);
    return c;
}

static inline void rig_problem(void *ctx, const char *line)
{
    (void)ctx;
    fprintf(stderr, "store_check: %s\n", line);
}

static inline void rig_check(struct rig *r)
{
    cr_assert_eq(store_check(r->store, rig_problem, NULL), 0);
}

/* What du says of the store, in bytes. */
static uint64_t rig_du_sum;
static inline int rig_du_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)path;
    (void)flag;
    (void)ftw;
    rig_du_sum += (uint64_t)st->st_blocks * 512;
    return 0;
}
static inline uint64_t rig_du(struct rig *r)
{
    rig_du_sum = 0;
    nftw(r->store_dir, rig_du_one, 16, FTW_PHYS);
    return rig_du_sum;
}

#endif
