/* The footer of a pack. Whoever gets an entry may rely on all of them. */
#include "nodecache/pool/pack_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* More than any writer makes. */
#define PACK_SIZE_MAX                                                                              \
    (POOL_PACK_TARGET + run_sealed(POOL_RECORD_MAX) + run_sealed(PACK_FOOTER_MAX) + PACK_END)

/* A run other than a record, under its own key. */
static int load_run(struct pool *p, const struct pool_key *key, const struct run *run, void *buf,
                    char *detail)
{
    struct pool_key own;
    int rc;

    if (key == NULL)
        return run_read(p, NULL, run, 0, buf, run->length, detail);
    rc = pool_run_key(key, (uint32_t)run->kind, 0, &own);
    if (rc != 0)
        return pool_fail(detail, rc, "no memory for the key of a pack");
    rc = run_read(p, &own, run, 0, buf, run->length, detail);
    pool_key_wipe(&own);
    return rc;
}

int pack_about(struct pool *p, uint64_t pack, struct pack_about *about, char *detail)
{
    const struct run run = {.pack = pack, .kind = RUN_HEADER, .length = PACK_END_CONTENT};
    uint8_t bytes[PACK_END];
    char name[PACK_NAME];
    struct iovec iov = {bytes, sizeof bytes};
    int rc = pool_here(p, detail);

    if (rc != 0)
        return rc;
    pack_name(pack, name);
    ssize_t got = p->driver->read(p->ctx, name, 0, &iov, 1, detail);
    if (got < 0)
        return (int)got;
    if ((size_t)got < sizeof bytes)
        return run_fail(&run, detail, "the pack ends inside it");
    bool summed = run_check(&run, 0, bytes, bytes + PACK_END_CONTENT, NULL) == 0;
    rc = header_get(bytes, pack, about, detail);
    /* Damaged, whatever it says. */
    if (!summed && (rc != 0 || !about->sealed))
        return run_mismatch(&run, 0, detail);
    return rc;
}

/* Why the header does not open: perhaps it is another key that it needs. */
static int wrong_key(struct pool *p, const struct pool_key *key, uint64_t pack, char *detail)
{
    const struct run run = {.pack = pack, .kind = RUN_HEADER, .length = PACK_END_CONTENT};
    struct pack_about about;
    int rc = pack_about(p, pack, &about, detail);

    if (rc != 0)
        return rc;
    if (!about.sealed)
        return run_fail(&run, detail, "it is not sealed, as packs of this cloud are");
    if (about.generation == key->generation)
        return run_mismatch(&run, 0, detail);
    return pool_fail(detail, -EBADMSG,
                     "pack %016" PRIx64 ", header: sealed under a key of generation %" PRIu32
                     ", not %" PRIu32 " (or damaged)",
                     pack, about.generation, key->generation);
}

static int no_key(uint64_t pack, const struct pack_about *about, char *detail)
{
    return pool_fail(detail, -ENOKEY,
                     "pack %016" PRIx64 " is sealed under the cloud's key of generation %" PRIu32
                     ", which is not at hand",
                     pack, about->generation);
}

static int load_header(struct pool *p, const struct pool_key *key, uint64_t pack, char *detail)
{
    const struct run run = {.pack = pack, .kind = RUN_HEADER, .length = PACK_END_CONTENT};
    uint8_t content[PACK_END_CONTENT];
    struct pack_about about;
    int rc;

    if (key == NULL) {
        rc = pack_about(p, pack, &about, detail);
        return rc == 0 && about.sealed ? no_key(pack, &about, detail) : rc;
    }
    rc = load_run(p, key, &run, content, detail);
    if (rc == -EBADMSG)
        return wrong_key(p, key, pack, detail);
    return rc != 0 ? rc : header_get(content, pack, &about, detail);
}

static int load_trailer(struct pool *p, const struct pool_key *key, uint64_t pack, uint64_t size,
                        struct pack_shape *shape, char *detail)
{
    const struct run run = {
        .pack = pack, .kind = RUN_TRAILER, .length = PACK_END_CONTENT, .at = size - PACK_END};
    uint8_t content[PACK_END_CONTENT];
    int rc = load_run(p, key, &run, content, detail);

    if (rc == -EBADMSG)
        return run_fail(&run, detail, "damaged, or the pack was cut off or never finished");
    return rc != 0 ? rc : trailer_get(content, pack, size, shape, detail);
}

/* Records tile the pack: so none overlap, and none lie outside. */
static int check_footer(const struct run *run, const struct pack_shape *shape,
                        const uint8_t *footer, char *detail)
{
    uint64_t at = PACK_END;
    struct pack_record record;
    struct pack_file file;

    for (uint32_t i = 0; i < shape->records; i++, footer += PACK_RECORD_ENTRY) {
        pack_record_get(footer, &record);
        if (record.number != i || record.pack_offset != at || !record_sane(&record))
            return run_fail(run, detail, "records overlap, leave a gap or lie outside");
        at += run_sealed(record.length);
        if (at > shape->footer_at)
            return run_fail(run, detail, "records lie outside of the pack");
    }
    if (at != shape->footer_at)
        return run_fail(run, detail, "there are bytes that belong to no record");
    for (uint32_t i = 0; i < shape->files; i++, footer += PACK_FILE_ENTRY) {
        if (!pack_file_get(footer, &file))
            return run_fail(run, detail, "absurd attributes of a file");
    }
    return 0;
}

static int load_footer(struct pool *p, const struct pool_key *key, uint64_t pack,
                       const struct pack_shape *shape, uint8_t **out, char *detail)
{
    const struct run run = {
        .pack = pack, .kind = RUN_FOOTER, .length = shape->footer_length, .at = shape->footer_at};
    uint8_t *footer = malloc(run.length > 0 ? run.length : 1);
    int rc;

    if (footer == NULL)
        return pool_fail(detail, -ENOMEM, "no memory for the footer of a pack");
    rc = load_run(p, key, &run, footer, detail);
    if (rc == 0)
        rc = check_footer(&run, shape, footer, detail);
    if (rc == 0)
        *out = footer;
    else
        free(footer);
    return rc;
}

int pack_load(struct pool *p, const struct pool_key *key, uint64_t pack, struct pack_shape *shape,
              uint8_t **footer, char *detail)
{
    char name[PACK_NAME];
    uint64_t size = 0;
    int rc = pool_here(p, detail);

    if (rc != 0)
        return rc;
    pack_name(pack, name);
    rc = p->driver->size(p->ctx, name, &size, detail);
    if (rc != 0)
        return rc;
    if (size < 2 * PACK_END || size > PACK_SIZE_MAX)
        return pool_fail(detail, -EBADMSG,
                         "pack %016" PRIx64 ": no pack has %" PRIu64
                         " bytes (was it cut off, or never finished?)",
                         pack, size);
    rc = load_header(p, key, pack, detail); /* first: it tells the format of the rest */
    if (rc == 0)
        rc = load_trailer(p, key, pack, size, shape, detail);
    if (rc == 0)
        rc = load_footer(p, key, pack, shape, footer, detail);
    return rc;
}

int pack_index(struct pool *p, const struct pool_key *key, uint64_t pack,
               void (*record)(void *arg, const struct pack_record *),
               void (*file)(void *arg, const struct pack_file *), void *arg, char *detail)
{
    struct pack_shape shape = {.size = 0};
    struct pack_record one_record;
    struct pack_file one_file;
    uint8_t *footer;
    int rc = pack_load(p, key, pack, &shape, &footer, detail);

    if (rc != 0)
        return rc;
    const uint8_t *entry = footer;
    for (uint32_t i = 0; i < shape.records; i++, entry += PACK_RECORD_ENTRY) {
        pack_record_get(entry, &one_record);
        if (record != NULL)
            record(arg, &one_record);
    }
    for (uint32_t i = 0; i < shape.files; i++, entry += PACK_FILE_ENTRY) {
        pack_file_get(entry, &one_file); /* was checked */
        if (file != NULL)
            file(arg, &one_file);
    }
    free(footer);
    return 0;
}
