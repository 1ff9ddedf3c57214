/*
 * Reading a part of a run: only the pages that hold it, in one call of the driver, content straight
 * into the caller's buffer and seals beside it; pages that are wanted in part go through a bounce
 * buffer. Verified in place.
 */
#include "nodecache/pool/pack_seal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Pages per call of the driver: any part of a record. */
#define STEP_PAGES (POOL_RECORD_MAX / POOL_PAGE_CONTENT + 2)
static_assert(STEP_PAGES * 2 <= POOL_IOV_MAX, "a content and a seal for each page");

/* Pages [first, first + count) of a run, which hold its content bytes [begin, end). */
struct step {
    const struct run *run;
    uint32_t first, count;
    uint32_t begin, end;
    uint8_t *to;                  /* for begin */
    uint8_t *content[STEP_PAGES]; /* where each page's content is read to */
    uint8_t seals[STEP_PAGES][POOL_SEAL];
    uint8_t *bounce; /* for the first and the last page, if they are wanted in part */
};

/* The wanted bytes [*from, *from + return value) of the content of page i of the step. */
static uint32_t step_part(const struct step *s, uint32_t i, uint32_t *from)
{
    uint32_t start = (s->first + i) * POOL_PAGE_CONTENT;
    uint32_t end = start + run_page_length(s->run, s->first + i);

    *from = s->begin > start ? s->begin - start : 0;
    return (s->end < end ? s->end : end) - start - *from;
}

static uint8_t *step_to(const struct step *s, uint32_t i)
{
    uint32_t start = (s->first + i) * POOL_PAGE_CONTENT;
    return start > s->begin ? s->to + (start - s->begin) : s->to;
}

static int step_place(struct step *s, struct iovec *iov, char *detail)
{
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t from, len = run_page_length(s->run, s->first + i);
        if (step_part(s, i, &from) == len) {
            s->content[i] = step_to(s, i);
        } else {
            if (s->bounce == NULL)
                s->bounce = malloc((size_t)2 * POOL_PAGE);
            if (s->bounce == NULL)
                return pool_fail(detail, -ENOMEM, "no memory for reading a pack");
            s->content[i] = i == 0 ? s->bounce : s->bounce + POOL_PAGE;
        }
        iov[2 * i] = (struct iovec){s->content[i], len};
        iov[2 * i + 1] = (struct iovec){s->seals[i], POOL_SEAL};
    }
    return 0;
}

static int step_verify(const struct step *s, struct sealer *sealer, char *detail)
{
    for (uint32_t i = 0; i < s->count; i++) {
        int rc = page_open(sealer, s->run, s->first + i, s->content[i], s->seals[i], detail);
        if (rc != 0)
            return rc;
        uint32_t from, part = step_part(s, i, &from);
        if (s->content[i] != step_to(s, i))
            memcpy(step_to(s, i), s->content[i] + from, part);
    }
    return 0;
}

static int step_read(struct pool *p, struct sealer *sealer, struct step *s, char *detail)
{
    struct iovec iov[STEP_PAGES * 2];
    char name[PACK_NAME];
    size_t want = 0;
    int rc = step_place(s, iov, detail);

    if (rc != 0)
        return rc;
    for (uint32_t i = 0; i < s->count * 2; i++)
        want += iov[i].iov_len;
    pack_name(s->run->pack, name);
    ssize_t got = p->driver->read(p->ctx, name, s->run->at + (uint64_t)s->first * POOL_PAGE, iov,
                                  (int)s->count * 2, detail);
    if (got < 0)
        return (int)got;
    if ((size_t)got != want)
        return run_fail(s->run, detail, "the pack ends inside it");
    return step_verify(s, sealer, detail);
}

int run_read(struct pool *p, const struct pool_key *key, const struct run *run, uint32_t offset,
             void *buf, uint32_t length, char *detail)
{
    struct sealer sealer;
    uint32_t done = 0;
    int rc = 0;

    if (offset > run->length || length > run->length - offset ||
        run->at > (uint64_t)INT64_MAX - run_sealed(run->length))
        return pool_fail(detail, -EINVAL, "bytes that lie outside of a record were asked for");
    rc = pool_here(p, detail);
    if (rc == 0)
        rc = sealer_init(&sealer, false, key, detail);
    if (rc != 0)
        goto out;
    while (done < length && rc == 0) {
        struct step s = {.run = run, .begin = offset + done, .to = (uint8_t *)buf + done};
        uint32_t last = (offset + length - 1) / POOL_PAGE_CONTENT;
        s.first = s.begin / POOL_PAGE_CONTENT;
        s.count = last - s.first < STEP_PAGES ? last - s.first + 1 : STEP_PAGES;
        uint64_t covered = (uint64_t)(s.first + s.count) * POOL_PAGE_CONTENT;
        s.end = covered < offset + length ? (uint32_t)covered : offset + length;
        rc = step_read(p, &sealer, &s, detail);
        done += s.end - s.begin;
        free(s.bounce);
    }
    sealer_destroy(&sealer);
    if (rc == -EBADMSG && p->driver->forget != NULL) {
        char name[PACK_NAME];
        pack_name(run->pack, name);
        p->driver->forget(p->ctx, name);
    }
out:
    if (rc != 0)
        memset(buf, 0, length);
    return rc;
}

int pack_read(struct pool *p, const struct pool_key *key, uint64_t pack, uint32_t number,
              uint64_t pack_offset, uint32_t record_length, uint32_t offset, void *buf,
              uint32_t length, char *detail)
{
    const struct run run = {.pack = pack,
                            .kind = RUN_RECORD,
                            .number = number,
                            .length = record_length,
                            .at = pack_offset};

    if (record_length == 0 || record_length > POOL_RECORD_MAX || pack_offset < PACK_END)
        return pool_fail(detail, -EINVAL, "no record of %u bytes can be at byte %llu of a pack",
                         record_length, (unsigned long long)pack_offset);
    return run_read(p, key, &run, offset, buf, length, detail);
}
