/* Verifying a whole pack: one pass through a window over the object, however small its records are.
 */
#include "nodecache/pool/pack_seal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW (2u << 20) /* more than the largest record with its seals */
static_assert(WINDOW >= POOL_RECORD_MAX + (POOL_RECORD_MAX / POOL_PAGE_CONTENT + 1) * POOL_SEAL,
              "a record fits into the window");

struct window {
    struct pool *pool;
    uint64_t pack;
    uint64_t at, end; /* bytes [at, end) of the pack are in the buffer */
    uint64_t limit;   /* nothing from here on is asked for */
    uint8_t *bytes;
    const struct pool_key *key; /* the pack's */
    struct sealer sealer;
};

/* Moves the window to `at`, which lies in it or at its end, and fills it. */
static int window_move(struct window *w, uint64_t at, char *detail)
{
    char name[PACK_NAME];
    size_t keep = (size_t)(w->end - at);
    uint64_t want = w->limit - w->end;

    memmove(w->bytes, w->bytes + (at - w->at), keep);
    w->at = at;
    if (want > WINDOW - keep)
        want = WINDOW - keep;
    struct iovec iov = {w->bytes + keep, (size_t)want};
    pack_name(w->pack, name);
    ssize_t got = w->pool->driver->read(w->pool->ctx, name, w->end, &iov, 1, detail);
    if (got < 0)
        return (int)got;
    w->end += (uint64_t)got;
    return 0;
}

static int verify_record(struct window *w, const struct pack_record *record, char *detail)
{
    const struct run run = {.pack = w->pack,
                            .kind = RUN_RECORD,
                            .number = record->number,
                            .length = record->length,
                            .at = record->pack_offset};
    uint64_t sealed = run_sealed(run.length);
    int rc = 0;

    if (run.at + sealed > w->end) {
        rc = window_move(w, run.at, detail);
        if (rc != 0)
            return rc;
        if (run.at + sealed > w->end)
            return run_fail(&run, detail, "the pack ends inside it");
    }
    uint8_t *from = w->bytes + (run.at - w->at);
    rc = sealer_run(&w->sealer, w->key, &run, detail);
    for (uint32_t page = 0; page < run_pages(run.length) && rc == 0; page++) {
        uint8_t *seal = from + run_page_length(&run, page);
        rc = page_open(&w->sealer, &run, page, from, seal, detail);
        from = seal + POOL_SEAL;
    }
    return rc;
}

int pack_scrub(struct pool *p, const struct pool_key *key, uint64_t pack, pack_bad_fn bad,
               void *arg, uint64_t *bytes, char *detail)
{
    struct window w = {.pool = p, .pack = pack, .at = PACK_END, .end = PACK_END, .key = key};
    struct pack_shape shape = {.size = 0};
    struct pack_record record;
    uint8_t *footer = NULL;
    int rc = pack_load(p, key, pack, &shape, &footer, detail);

    if (rc != 0)
        goto out;
    w.limit = shape.footer_at;
    w.bytes = malloc(WINDOW);
    if (w.bytes == NULL) {
        rc = pool_fail(detail, -ENOMEM, "no memory for verifying a pack");
        goto out;
    }
    rc = sealer_init(&w.sealer, false, key, detail);
    for (uint32_t i = 0; i < shape.records && rc == 0; i++) {
        pack_record_get(footer + (size_t)i * PACK_RECORD_ENTRY, &record);
        rc = verify_record(&w, &record, detail);
        if (rc == -EBADMSG && bad != NULL)
            rc = bad(arg, &record, detail);
    }
    if (rc == 0 && bytes != NULL)
        *bytes = shape.size;
out:
    sealer_destroy(&w.sealer);
    free(w.bytes);
    free(footer);
    return rc;
}

int pack_verify(struct pool *p, const struct pool_key *key, uint64_t pack, uint64_t *bytes,
                char *detail)
{
    return pack_scrub(p, key, pack, NULL, NULL, bytes, detail);
}
