/* Reading: from the flat file when the bytes are there, else by way of the pool. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/fault.h"
#include "nodecache/clean.h"

/* Up to here copying is cheaper than sendfile. */
#define READ_COPY_MAX (32u << 10)
/* A reader that goes on where it stopped so often is a sequential one. */
#define READ_SEQUENTIAL 2
#define READ_LARGE      (128u << 10)
/* Reads that come in another order than they were asked are still one stream. */
#define READ_DISORDER (1u << 20)
#define READ_AHEAD    (8u << 20)
/* A cold random read fetches no more than this around it. */
#define READ_AROUND (64u << 10)
/* Rounds of fetching for one read; each makes progress, unless writers and eviction undo it. */
#define READ_ROUNDS 64
/* Looks for data in a file that changes meanwhile; the next one holds its lock. */
#define SEEK_TRIES 8

bool read_missing(const struct file *f, uint64_t start, uint64_t end, struct range *missing)
{
    if (!f->mapped)
        return false;
    if (end > f->base_limit)
        end = f->base_limit;
    return start < end && ranges_gap(&f->present, start, end, missing);
}

static int read_flat(int fd, uint8_t *out, size_t length, uint64_t offset)
{
    int rc = fault("node.read");

    while (rc == 0 && length > 0) {
        ssize_t n = pread(fd, out, length, (off_t)offset);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -EIO; /* present bytes are always there */
        if (n > 0) {
            out += n;
            length -= (size_t)n;
            offset += (uint64_t)n;
        }
    }
    return rc;
}

/* Present bytes from the flat file, fetched ones from `got`, zeros elsewhere. f->lock is held,
 * nothing is missing. */
static int compose(struct store *s, struct file *f, uint64_t start, uint64_t end, uint8_t *out,
                   const struct fetched *got)
{
    uint64_t at = start;
    struct range next;
    int rc = 0;

    memset(out, 0, end - start);
    while (got && at < end && ranges_next(&got->good, at, &next) && next.start < end) {
        uint64_t from = next.start > at ? next.start : at;
        at = next.end < end ? next.end : end;
        memcpy(out + (from - start), got->data + (from - got->start), at - from);
    }
    at = start;
    while (rc == 0 && at < end && ranges_next(&f->present, at, &next) && next.start < end) {
        uint64_t from = next.start > at ? next.start : at;
        int fd = file_fd(&s->table, f, false);
        at = next.end < end ? next.end : end;
        rc = fd < 0 ? fd : read_flat(fd, out + (from - start), at - from, from);
    }
    return rc < 0 ? store_failed(s, rc, "read", f->ino) : 0;
}

/* Is everything that is missing in [start, end) among what was fetched just now? */
static bool fetched_all(const struct file *f, uint64_t start, uint64_t end,
                        const struct fetched *got)
{
    struct range missing;

    while (read_missing(f, start, end, &missing)) {
        if (!ranges_contains(&got->good, missing.start, missing.end))
            return false;
        start = missing.end;
    }
    return true;
}

/* What to fetch for a reader of [start, end): whole indices for streams, less around random reads.
 */
static struct range around(const struct file *f, uint64_t start, uint64_t end, bool stream)
{
    uint64_t unit = stream ? NODE_INDEX : READ_AROUND;
    struct range r = {start - start % unit, end + (unit - end % unit) % unit};

    if (r.end > f->size)
        r.end = f->size;
    return r;
}

/* [start, end) to out, fetching as needed. f is locked, and unlocked while it fetches. */
static int gather(struct store *s, struct file *f, uint64_t start, uint64_t end, bool stream,
                  uint8_t *out, char *detail)
{
    struct fetched got = {0};
    struct range missing;
    bool exact = false;
    int rc = 0;

    for (int round = 0;; round++) {
        bool complete = !read_missing(f, start, end, &missing) || fetched_all(f, start, end, &got);
        rc = complete ? clean_verify(s, f, start, end) : 0;
        if (rc == -EAGAIN && round < READ_ROUNDS)
            continue; /* what was damaged is fetched */
        rc = rc == -EAGAIN ? -EIO : rc;
        if (rc < 0)
            break;
        if (complete) {
            rc = compose(s, f, start, end, out, &got);
            break;
        }
        if (round == READ_ROUNDS) {
            rc = -EIO;
            snprintf(detail, NODE_DETAIL, "the bytes are evicted as fast as they are fetched");
            break;
        }
        struct range want = around(f, missing.start, end, stream);
        if (exact)
            want = (struct range){missing.start, end};
        pthread_mutex_unlock(&f->lock);
        rc = fetch_range(s, f, want.start, want.end, &got, detail);
        pthread_mutex_lock(&f->lock);
        if (rc == -EAGAIN)
            rc = 0;
        if (rc == 0 && f->gone)
            rc = -ESTALE;
        if (rc < 0 && !exact && !f->gone && (want.start < missing.start || want.end > end)) {
            exact = true; /* what is damaged may lie beside what is wanted */
            continue;
        }
        if (rc < 0)
            break;
        if (end > f->size) {
            /* Truncated meanwhile: what is beyond is zero. */
            uint64_t from = f->size > start ? f->size : start;
            memset(out + (from - start), 0, end - from);
            end = from;
        }
    }
    fetched_clear(&got);
    return rc;
}

int read_bytes(struct store *s, struct file *f, uint64_t start, uint64_t end, uint8_t *out,
               char *detail)
{
    pthread_mutex_lock(&f->lock);
    int rc = gather(s, f, start, end, true, out, detail);
    pthread_mutex_unlock(&f->lock);
    return rc;
}

/* Is this reader a stream? Remembers where it is. */
static bool note_reader(struct file *f, uint64_t offset, size_t length)
{
    uint64_t distance = offset > f->read_next ? offset - f->read_next : f->read_next - offset;

    if (distance <= READ_DISORDER && (f->sequential > 0 || offset == f->read_next)) {
        f->sequential++;
    } else {
        f->sequential = 0;
        f->ahead = 0;
    }
    if (offset + length > f->read_next || distance > READ_DISORDER)
        f->read_next = offset + length;
    return f->sequential >= READ_SEQUENTIAL || length >= READ_LARGE;
}

static void read_ahead(struct store *s, struct file *f, uint64_t from)
{
    struct range missing;
    uint64_t start = from > f->ahead ? from : f->ahead;
    uint64_t end = from + READ_AHEAD < f->size ? from + READ_AHEAD : f->size;

    /* In whole steps, so that it does not trickle. */
    if (start >= end || (start > from && end - start < READ_AHEAD / 2 && end < f->size))
        return;
    if (!read_missing(f, start, end, &missing))
        return;
    f->ahead = end;
    fetch_ahead(s, f, missing.start, end);
}

int store_read(struct store *s, const struct ticket *t, uint64_t offset, size_t length,
               uint8_t *buffer, struct store_reading *r, char detail[NODE_DETAIL])
{
    struct range missing;
    struct file *f;

    detail[0] = 0;
    if (length > NODE_IO_MAX || offset > NODE_SIZE_MAX - length)
        return -EINVAL;
    int rc = admit_lock(s, t, RIGHT_READ, &f);
    if (rc < 0)
        return rc;
    *r = (struct store_reading){.fd = -1, .offset = offset, .data = buffer, .file = f};
    if (offset < f->size)
        r->length = f->size - offset < length ? (size_t)(f->size - offset) : length;
    uint64_t end = offset + r->length;
    bool stream = note_reader(f, offset, r->length);
    bool send = r->length > READ_COPY_MAX && ranges_contains(&f->present, offset, end);
    if (send) {
        rc = clean_verify(s, f, offset, end);
        send = rc == 0;
        rc = rc == -EAGAIN ? 0 : rc;
    }
    if (rc == 0 && !send && r->length > 0) {
        /* Small reads copy under the lock; the page cache has them, as a rule. */
        rc = gather(s, f, offset, end, stream, buffer, detail);
    } else if (rc == 0 && send) {
        r->fd = file_fd(&s->table, f, false);
        rc = r->fd < 0 ? r->fd : 0;
        f->fd_users += rc == 0;
    }
    if (rc == 0 && stream && f->mapped && read_missing(f, end, f->size, &missing) &&
        missing.start < end + READ_AHEAD)
        read_ahead(s, f, end);
    file_attrs(f, &r->attrs);
    pthread_mutex_unlock(&f->lock);
    atomic_fetch_add_explicit(&s->read_bytes, r->length, memory_order_relaxed);
    if (rc == 0)
        hot_note(&s->hot, t->ino, r->length);
    if (rc < 0) {
        r->file = NULL;
        file_unref(f);
    }
    return rc;
}

void store_read_done(struct store *s, struct store_reading *r)
{
    struct file *f = r->file;

    (void)s;
    if (r->fd >= 0) {
        pthread_mutex_lock(&f->lock);
        f->fd_users--;
        pthread_mutex_unlock(&f->lock);
    }
    file_unref(f);
    r->file = NULL;
}

/* Where the next byte of data, or of a hole, is: data is what is present or in the pool. */

/* The first stretch of data at or behind `at`. f is locked, and unlocked while the centre is asked,
 * unless it changes all the time. */
static int next_data(struct store *s, struct file *f, uint64_t at, struct range *out, bool *any)
{
    for (int tries = 0;; tries++) {
        uint64_t seq = f->seq;
        bool ask = f->mapped && at < f->base_limit && at < f->size;
        bool locked = tries == SEEK_TRIES, there = false;
        struct range pool = {0};
        int rc = 0;
        if (ask && !locked)
            pthread_mutex_unlock(&f->lock);
        if (ask)
            rc = maps_next(&s->maps, s->options.centre, s->options.centre_ctx, f->ino, at, &pool,
                           &there);
        if (ask && !locked)
            pthread_mutex_lock(&f->lock);
        if (rc == 0 && f->gone)
            rc = -ESTALE;
        if (rc < 0)
            return rc;
        if (ask && !locked && f->seq != seq)
            continue; /* what was flushed and evicted meanwhile is in neither */
        if (pool.end > f->base_limit)
            pool.end = f->base_limit;
        there = there && pool.start < pool.end;
        bool here = ranges_next(&f->present, at, out);
        if (there && (!here || pool.start < out->start))
            *out = pool;
        *any = here || there;
        return 0;
    }
}

int store_seek(struct store *s, const struct ticket *t, uint64_t offset, bool hole, uint64_t *found)
{
    struct range data = {0};
    struct file *f;
    bool any = false;
    int rc = admit_lock(s, t, RIGHT_READ, &f);

    if (rc < 0)
        return rc;
    if (offset >= f->size) {
        rc = -ENXIO;
        goto out;
    }
    rc = next_data(s, f, offset, &data, &any);
    while (hole && rc == 0 && any && data.start <= offset && data.end < f->size) {
        offset = data.end;
        rc = next_data(s, f, offset, &data, &any);
    }
    if (rc < 0)
        goto out;
    if (hole)
        *found = any && data.start <= offset ? f->size : offset;
    else if (any && data.start < f->size)
        *found = data.start > offset ? data.start : offset;
    else
        rc = -ENXIO;
out:
    admit_unlock(f);
    return rc;
}

int store_warm(struct store *s, uint64_t ino, uint64_t *bytes, char detail[NODE_DETAIL])
{
    struct file *f = file_get(&s->table, ino);
    struct fetched got = {0};
    bool fetched = false;
    uint64_t at = 0;
    int rc;

    if (!f)
        return -ENOMEM;
    pthread_mutex_lock(&f->lock);
    rc = admit_by_map(s, f);
    while (rc == 0 || rc == -EAGAIN) {
        struct range missing, stored;
        bool any;
        if (f->gone || !read_missing(f, at, f->size, &missing))
            break;
        pthread_mutex_unlock(&f->lock);
        rc = maps_next(&s->maps, s->options.centre, s->options.centre_ctx, ino, missing.start,
                       &stored, &any);
        pthread_mutex_lock(&f->lock);
        if (rc < 0 || !any)
            break;
        if (stored.start > missing.start) {
            at = stored.start; /* over the hole */
            continue;
        }
        if (f->gone || missing.start >= f->size)
            break;
        uint64_t start = missing.start - missing.start % NODE_INDEX;
        uint64_t end = start + NODE_INDEX < f->size ? start + NODE_INDEX : f->size;
        uint64_t before = f->present.total;
        pthread_mutex_unlock(&f->lock);
        rc = fetch_range(s, f, start, end, &got, detail);
        pthread_mutex_lock(&f->lock);
        if (rc == 0) {
            *bytes += f->present.total > before ? f->present.total - before : 0;
            at = end;
            fetched = true;
        }
    }
    if (rc == 0 && !f->gone && fetched && f->present.total == 0) {
        rc = -ENOSPC;
        snprintf(detail, NODE_DETAIL, "there is no room to keep it");
    }
    pthread_mutex_unlock(&f->lock);
    fetched_clear(&got);
    file_unref(f);
    return rc == -EAGAIN ? 0 : rc;
}
