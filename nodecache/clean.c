#include "nodecache/clean.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/wire/fault.h"
#include "nodecache/cut.h"

/* Sums in one journal record. */
#define SUMS_AT_ONCE 256u

static bool has_clean(const struct file *f)
{
    return f->present.total != f->staged.total;
}

bool clean_next(const struct file *f, uint64_t at, uint64_t limit, struct range *out)
{
    struct range here;

    while (at < limit && ranges_next(&f->present, at, &here) && here.start < limit) {
        uint64_t from = here.start > at ? here.start : at;
        at = here.end < limit ? here.end : limit;
        if (ranges_gap(&f->staged, from, at, out))
            return true;
    }
    return false;
}

bool clean_touched(const struct file *f, uint64_t start, uint64_t end)
{
    struct range piece;

    return has_clean(f) && clean_next(f, start, end, &piece);
}

/* The clean bytes of a block, one piece behind the other. */
static int read_block(struct store *s, struct file *f, uint64_t block, uint8_t out[SUM_BLOCK],
                      size_t *length)
{
    uint64_t at = block * SUM_BLOCK, limit = at + SUM_BLOCK;
    struct range piece;
    int rc = fault("node.verify");

    *length = 0;
    while (rc == 0 && clean_next(f, at, limit, &piece)) {
        int fd = file_fd(&s->table, f, false);
        size_t size = (size_t)(piece.end - piece.start);
        ssize_t n = fd < 0 ? 0 : pread(fd, out + *length, size, (off_t)piece.start);
        if (fd < 0)
            rc = fd;
        else if (n < 0 && errno != EINTR)
            rc = -errno;
        else if (n == 0)
            rc = -EIO; /* present bytes are always there */
        *length += n > 0 ? (size_t)n : 0;
        at = piece.start + (n > 0 ? (uint64_t)n : 0);
    }
    return rc;
}

/* The block's clean bytes are here no more. What is being sent or flushed from the flat file keeps
 * its blocks until they are filled anew. */
static int make_absent(struct store *s, struct file *f, uint64_t block)
{
    uint64_t start = block * SUM_BLOCK, end = start + SUM_BLOCK;
    struct charge c;

    if (f->cut && ranges_intersects(&f->cut->unread, start, end))
        cut_cancel(f);
    charge_begin(&c, f, start, end, 0);
    int rc = discard_clean(s, f, start, end);
    bool punch = !f->cut && f->fd_users == 0;
    /* As for eviction: that they were clean is on the disk before they go. */
    if (rc == 0 && punch && f->is_home)
        rc = journal_sync(s->index.journal, f->seq);
    if (rc == 0 && punch)
        rc = change_punch(s, f, start, end);
    charge_end(s, &c, f);
    store_settle(s, f, true);
    return rc < 0 ? store_failed(s, rc, "dropping damaged bytes", f->ino) : 0;
}

static int verify_block(struct store *s, struct file *f, uint64_t block)
{
    uint64_t start = block * SUM_BLOCK, sum = sums_get(&f->sums, block);
    uint8_t bytes[SUM_BLOCK];
    char line[128];
    struct range piece;
    size_t length;
    int rc;

    if (!clean_next(f, start, start + SUM_BLOCK, &piece))
        return 0;
    if (sum != 0) {
        rc = read_block(s, f, block, bytes, &length);
        if (rc == 0 && sum_of(block, bytes, length) == sum)
            return 0;
        snprintf(line, sizeof(line),
                 "this node's copy was damaged at bytes %" PRIu64 " to %" PRIu64
                 " and is taken from the pool again",
                 piece.start, start + SUM_BLOCK);
        store_damaged(s, f->ino, line);
    }
    rc = make_absent(s, f, block);
    return rc < 0 ? rc : -EAGAIN;
}

int clean_verify(struct store *s, struct file *f, uint64_t start, uint64_t end)
{
    struct range piece;
    uint64_t at = start - start % SUM_BLOCK;
    int rc = 0;

    if (!has_clean(f))
        return 0;
    end += end % SUM_BLOCK != 0 ? SUM_BLOCK - end % SUM_BLOCK : 0;
    while (clean_next(f, at, end, &piece)) {
        uint64_t block = piece.start / SUM_BLOCK;
        int one = verify_block(s, f, block);
        if (one < 0 && one != -EAGAIN)
            return one;
        rc = one < 0 ? one : rc;
        at = (block + 1) * SUM_BLOCK;
    }
    return rc;
}

int clean_begin(struct store *s, struct file *f, uint64_t start, uint64_t end)
{
    int rc = 0;

    if (start >= end || !has_clean(f))
        return 0;
    if (start % SUM_BLOCK != 0)
        rc = clean_verify(s, f, start, start + 1);
    if ((rc == 0 || rc == -EAGAIN) && end % SUM_BLOCK != 0)
        rc = clean_verify(s, f, end - 1, end);
    return rc == -EAGAIN ? 0 : rc;
}

/* ---- new sums ---- */

/* Sums of neighbouring blocks, on their way to the journal. */
struct batch {
    uint64_t first;
    uint32_t count;
    uint64_t sums[SUMS_AT_ONCE];
};

static int batch_flush(struct store *s, struct file *f, struct batch *b)
{
    int rc = b->count > 0 ? index_sums(&s->index, f, b->first, b->count, b->sums) : 0;

    b->count = 0;
    return rc;
}

static int batch_add(struct store *s, struct file *f, struct batch *b, uint64_t block, uint64_t sum)
{
    int rc = 0;

    if (b->count == SUMS_AT_ONCE || (b->count > 0 && block != b->first + b->count))
        rc = batch_flush(s, f, b);
    if (b->count == 0)
        b->first = block;
    b->sums[b->count++] = sum;
    return rc;
}

/* What is known of the bytes without reading them. */
struct known {
    uint64_t start, end;
    const uint8_t *data;
    const struct clean_pieces *pieces;
};

static int piece_compare(const void *key, const void *entry)
{
    uint64_t start = *(const uint64_t *)key;
    const struct clean_piece *p = entry;

    return start < p->start ? -1 : start > p->start;
}

/* The sum of a block whose clean bytes are [start, end), if no look at the disk is needed; else 0.
 */
static uint64_t known_sum(const struct known *k, uint64_t block, uint64_t start, uint64_t end)
{
    if (k->data && start >= k->start && end <= k->end)
        return sum_of(block, k->data + (start - k->start), (size_t)(end - start));
    if (!k->pieces || k->pieces->count == 0)
        return 0;
    const struct clean_piece *p =
        bsearch(&start, k->pieces->all, k->pieces->count, sizeof(*k->pieces->all), piece_compare);
    return p && p->end == end ? p->sum : 0;
}

static int sum_block(struct store *s, struct file *f, uint64_t block, const struct known *k,
                     uint64_t *sum)
{
    uint64_t start = block * SUM_BLOCK, limit = start + SUM_BLOCK;
    uint8_t bytes[SUM_BLOCK];
    struct range first, more;
    size_t length;

    *sum = 0;
    if (clean_next(f, start, limit, &first) && !clean_next(f, first.end, limit, &more))
        *sum = known_sum(k, block, first.start, first.end);
    if (*sum != 0)
        return 0;
    int rc = read_block(s, f, block, bytes, &length);
    if (rc == 0)
        *sum = sum_of(block, bytes, length);
    return rc;
}

static int resum(struct store *s, struct file *f, uint64_t start, uint64_t end,
                 const struct known *k)
{
    struct batch b = {.count = 0};
    struct range piece;
    uint64_t at = start - start % SUM_BLOCK, sum;
    int rc = 0;

    end += end % SUM_BLOCK != 0 ? SUM_BLOCK - end % SUM_BLOCK : 0;
    while (rc == 0 && clean_next(f, at, end, &piece)) {
        uint64_t block = piece.start / SUM_BLOCK;
        at = (block + 1) * SUM_BLOCK;
        if (sums_get(&f->sums, block) != 0)
            continue;
        rc = sum_block(s, f, block, k, &sum);
        if (rc == 0)
            rc = batch_add(s, f, &b, block, sum);
        else
            rc = make_absent(s, f, block); /* it cannot be read: the pool has it */
    }
    return rc == 0 ? batch_flush(s, f, &b) : rc;
}

int clean_end(struct store *s, struct file *f, uint64_t start, uint64_t end, const uint8_t *data)
{
    struct known k = {.start = start, .end = end, .data = data};
    struct charge c;

    if (start >= end || !has_clean(f))
        return 0;
    charge_begin(&c, f, 0, 0, 0);
    int rc = resum(s, f, start, end, &k);
    charge_end(s, &c, f);
    /* Without a sum it is dropped when it is next looked at. */
    return rc < 0 ? store_failed(s, rc, "checksums", f->ino) : 0;
}

int clean_end_pieces(struct store *s, struct file *f, const struct ranges *where,
                     const struct clean_pieces *p)
{
    struct known k = {.pieces = p};
    struct range next;
    struct charge c;
    uint64_t at = 0;
    int rc = 0;

    charge_begin(&c, f, 0, 0, 0);
    while (rc == 0 && ranges_next(where, at, &next)) {
        rc = resum(s, f, next.start, next.end, &k);
        at = next.end;
    }
    charge_end(s, &c, f);
    return rc < 0 ? store_failed(s, rc, "checksums", f->ino) : 0;
}

static int piece_add(struct clean_pieces *p, uint64_t start, uint64_t end, const uint8_t *data)
{
    if (p->count == p->room) {
        size_t room = p->room ? p->room * 2 : 4;
        struct clean_piece *all = realloc(p->all, room * sizeof(*all));
        if (!all)
            return -ENOMEM;
        p->all = all;
        p->room = room;
    }
    p->all[p->count++] = (struct clean_piece){
        .start = start, .end = end, .sum = sum_of(start / SUM_BLOCK, data, (size_t)(end - start))};
    return 0;
}

int clean_pieces_add(struct clean_pieces *p, uint64_t start, uint64_t end, const uint8_t *data)
{
    int rc = 0;

    for (uint64_t at = start; rc == 0 && at < end;) {
        uint64_t stop = at - at % SUM_BLOCK + SUM_BLOCK;
        if (stop > end)
            stop = end;
        rc = piece_add(p, at, stop, data + (at - start));
        at = stop;
    }
    return rc;
}

void clean_pieces_clear(struct clean_pieces *p)
{
    free(p->all);
    *p = (struct clean_pieces){0};
}

/* ---- all of a file ---- */

int clean_recover(struct file *f)
{
    struct range piece;
    uint64_t at = 0;
    int rc = 0;

    while (rc == 0 && clean_next(f, at, UINT64_MAX, &piece)) {
        uint64_t block = piece.start / SUM_BLOCK, limit = (block + 1) * SUM_BLOCK;
        at = piece.end < limit ? piece.end : limit;
        if (sums_get(&f->sums, block) == 0)
            rc = ranges_remove(&f->present, piece.start, at);
    }
    return rc;
}

static void count_fitting(void *arg, uint64_t block, uint32_t count, const uint64_t *sums)
{
    uint64_t *total = arg;

    (void)block;
    (void)sums;
    *total += count;
}

bool clean_sums_fit(const struct file *f)
{
    struct range piece;
    uint64_t at = 0, needed = 0, there = 0;

    while (clean_next(f, at, UINT64_MAX, &piece)) {
        uint64_t block = piece.start / SUM_BLOCK;
        if (sums_get(&f->sums, block) == 0)
            return false;
        needed++;
        at = (block + 1) * SUM_BLOCK;
    }
    sums_each(&f->sums, count_fitting, &there);
    return needed == there && there == f->sums.count;
}
