/* Writing a pack: seals into one buffer, which goes out whenever it is full, so in large writes; it
 * is the driver's own if that has one to give. */
#include "nodecache/pool/pack_seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WRITE_BUFFER                                                                               \
    (1u << 20) /* what NFS servers take in one call; fits into a processor's cache */
#define BUFFER_ALIGN 4096u
#define TABLE_START  4096u /* entries grow by doubling from here */

/* Encoded footer entries. */
struct table {
    uint8_t *bytes;
    size_t used, room;
};

struct pack_writer {
    struct pool *pool;
    uint64_t pack;
    void *object;
    uint8_t *buffer; /* NULL: the driver is to be asked for the next one */
    size_t room, fill;
    uint8_t *own;   /* the buffer, of a driver that gives none */
    uint64_t bytes; /* with those in the buffer */
    struct table records, files;
    struct pool_key key; /* generation 0: unsealed */
    struct sealer sealer;
    uint8_t *page; /* one that lies across the end of a buffer */
    int error;     /* the first one; nothing is written after it */
};

static int table_add(struct table *t, size_t len, uint8_t **entry)
{
    if (t->room - t->used < len) {
        size_t room = t->room == 0 ? TABLE_START : t->room * 2;
        uint8_t *bytes = realloc(t->bytes, room);
        if (bytes == NULL)
            return -ENOMEM;
        t->bytes = bytes;
        t->room = room;
    }
    *entry = t->bytes + t->used;
    t->used += len;
    return 0;
}

static void writer_free(struct pack_writer *w)
{
    free(w->records.bytes);
    free(w->files.bytes);
    free(w->own);
    free(w->page);
    sealer_destroy(&w->sealer);
    pool_key_wipe(&w->key);
    free(w);
}

static int need_buffer(struct pack_writer *w, char *detail)
{
    void *at;

    if (w->buffer != NULL)
        return 0;
    w->fill = 0;
    w->room = WRITE_BUFFER;
    if (w->own == NULL) {
        int rc = w->pool->driver->room(w->object, &at, &w->room, detail);
        if (rc != 0)
            return w->error = rc;
        w->buffer = at;
    } else {
        w->buffer = w->own;
    }
    return 0;
}

/* So many bytes have been put into the buffer. */
static int filled(struct pack_writer *w, size_t len, char *detail)
{
    int rc = 0;

    w->fill += len;
    w->bytes += len;
    if (w->fill < w->room)
        return 0;
    rc = w->pool->driver->append(w->object, w->buffer, w->fill, detail);
    w->buffer = NULL;
    return rc == 0 ? 0 : (w->error = rc);
}

static int put(struct pack_writer *w, const void *data, size_t len, char *detail)
{
    const uint8_t *from = data;
    int rc = 0;

    while (rc == 0 && len > 0) {
        rc = need_buffer(w, detail);
        if (rc != 0)
            break;
        size_t part = w->room - w->fill < len ? w->room - w->fill : len;
        memcpy(w->buffer + w->fill, from, part);
        rc = filled(w, part, detail);
        from += part;
        len -= part;
    }
    return rc;
}

/* Sealed where it is to lie, if it fits there. */
static int put_page(struct pack_writer *w, const struct run *run, uint32_t page,
                    const uint8_t *content, char *detail)
{
    uint32_t len = run_page_length(run, page);
    uint8_t seal[POOL_SEAL];
    int rc = need_buffer(w, detail);

    if (rc == 0 && w->room - w->fill >= len + POOL_SEAL) {
        uint8_t *at = w->buffer + w->fill;
        rc = page_seal(&w->sealer, run, page, content, at, at + len, detail);
        return rc == 0 ? filled(w, len + POOL_SEAL, detail) : rc;
    }
    if (rc == 0)
        rc = page_seal(&w->sealer, run, page, content, w->page, seal, detail);
    if (rc == 0)
        rc = put(w, w->page, len, detail);
    return rc == 0 ? put(w, seal, sizeof seal, detail) : rc;
}

/* run->at is filled in. */
static int put_run(struct pack_writer *w, struct run *run, const void *content, char *detail)
{
    const uint8_t *from = content;
    int rc;

    run->pack = w->pack;
    run->at = w->bytes;
    rc = sealer_run(&w->sealer, &w->key, run, detail);
    for (uint32_t page = 0; page < run_pages(run->length) && rc == 0; page++) {
        rc = put_page(w, run, page, from, detail);
        from += run_page_length(run, page);
    }
    return rc == 0 ? 0 : (w->error = rc);
}

static int put_header(struct pack_writer *w, char *detail)
{
    struct run run = {.kind = RUN_HEADER, .length = PACK_END_CONTENT};
    uint8_t content[PACK_END_CONTENT];

    header_put(content, w->pack, w->sealer.ctx != NULL ? &w->key : NULL);
    return put_run(w, &run, content, detail);
}

int pack_create(struct pool *p, const struct pool_key *key, uint64_t pack, struct pack_writer **out,
                char *detail)
{
    char name[PACK_NAME];
    int rc = pool_here(p, detail);

    if (rc != 0)
        return rc;
    rc = -ENOMEM;
    struct pack_writer *w = calloc(1, sizeof *w);
    if (w == NULL)
        goto out;
    w->pool = p;
    w->pack = pack;
    if (p->driver->room == NULL)
        w->own = aligned_alloc(BUFFER_ALIGN, WRITE_BUFFER);
    w->page = malloc(POOL_PAGE_CONTENT);
    if ((w->own == NULL && p->driver->room == NULL) || w->page == NULL)
        goto out;
    rc = sealer_init(&w->sealer, true, key, detail);
    if (rc != 0)
        goto out;
    if (key != NULL)
        w->key = *key;
    pack_name(pack, name);
    rc = p->driver->create(p->ctx, name, &w->object, detail);
    if (rc != 0)
        goto out;
    rc = put_header(w, detail);
    if (rc != 0)
        p->driver->abandon(w->object);
out:
    if (rc == -ENOMEM)
        pool_fail(detail, rc, "no memory for writing a pack");
    if (rc == 0)
        *out = w;
    else if (w != NULL)
        writer_free(w);
    return rc;
}

/* 0, or why the pack takes no more with that many entries. */
static int writer_ready(const struct pack_writer *w, size_t entries, char *detail)
{
    if (w->error != 0)
        return pool_fail(detail, w->error, "an earlier write of this pack failed");
    if (entries >= POOL_PACK_RECORDS_MAX)
        return pool_fail(detail, -EFBIG, "the pack is full");
    return 0;
}

int pack_add_record(struct pack_writer *w, const void *content, struct pack_record *record,
                    char *detail)
{
    uint8_t *entry;
    int rc = writer_ready(w, w->records.used / PACK_RECORD_ENTRY, detail);

    if (rc != 0)
        return rc;
    if (w->bytes >= POOL_PACK_TARGET)
        return pool_fail(detail, -EFBIG, "the pack is full");
    if (!record_sane(record))
        return pool_fail(detail, -EINVAL, "a record of %u bytes at %llu", record->length,
                         (unsigned long long)record->offset);
    record->number = (uint32_t)(w->records.used / PACK_RECORD_ENTRY);
    rc = table_add(&w->records, PACK_RECORD_ENTRY, &entry);
    if (rc != 0)
        return w->error = pool_fail(detail, rc, "no memory for the pack's footer");
    struct run run = {.kind = RUN_RECORD, .number = record->number, .length = record->length};
    rc = put_run(w, &run, content, detail);
    record->pack_offset = run.at;
    pack_record_put(entry, record);
    return rc;
}

int pack_add_file(struct pack_writer *w, const struct pack_file *file, char *detail)
{
    uint8_t *entry;
    int rc = writer_ready(w, w->files.used / PACK_FILE_ENTRY, detail);

    if (rc != 0)
        return rc;
    if (!file_sane(file))
        return pool_fail(detail, -EINVAL, "absurd attributes of inode %llu",
                         (unsigned long long)file->ino);
    rc = table_add(&w->files, PACK_FILE_ENTRY, &entry);
    if (rc != 0)
        return w->error = pool_fail(detail, rc, "no memory for the pack's footer");
    pack_file_put(entry, file);
    return 0;
}

uint64_t pack_bytes(const struct pack_writer *w)
{
    return w->bytes;
}

/* Footer, trailer and what is still in the buffer. */
static int put_end(struct pack_writer *w, uint64_t *size, char *detail)
{
    struct pack_shape shape = {.footer_at = w->bytes};
    struct run run = {.kind = RUN_FOOTER};
    uint8_t content[PACK_END_CONTENT], *files;
    int rc = 0;

    shape.records = (uint32_t)(w->records.used / PACK_RECORD_ENTRY);
    shape.files = (uint32_t)(w->files.used / PACK_FILE_ENTRY);
    for (size_t done = 0; done < w->files.used && rc == 0; done += PACK_FILE_ENTRY) {
        rc = table_add(&w->records, PACK_FILE_ENTRY, &files);
        if (rc == 0)
            memcpy(files, w->files.bytes + done, PACK_FILE_ENTRY);
    }
    if (rc != 0)
        return pool_fail(detail, rc, "no memory for the pack's footer");
    shape.footer_length = run.length = (uint32_t)w->records.used;
    shape.size = shape.footer_at + run_sealed(run.length) + PACK_END;
    rc = put_run(w, &run, w->records.bytes, detail);
    if (rc != 0)
        return rc;
    trailer_put(content, w->pack, &shape);
    run = (struct run){.kind = RUN_TRAILER, .length = PACK_END_CONTENT};
    rc = put_run(w, &run, content, detail);
    if (rc == 0 && w->buffer != NULL && w->fill > 0)
        rc = w->pool->driver->append(w->object, w->buffer, w->fill, detail);
    *size = w->bytes;
    return rc;
}

int pack_finish(struct pack_writer *w, uint64_t *size, char *detail)
{
    uint64_t bytes = 0;
    int rc = w->error;

    if (rc == 0)
        rc = put_end(w, &bytes, detail);
    else
        pool_fail(detail, rc, "an earlier write of this pack failed");
    if (rc == 0)
        rc = w->pool->driver->finish(w->object, detail);
    else
        w->pool->driver->abandon(w->object);
    if (rc == 0 && size != NULL)
        *size = bytes;
    writer_free(w);
    return rc;
}

void pack_abandon(struct pack_writer *w)
{
    w->pool->driver->abandon(w->object);
    writer_free(w);
}
