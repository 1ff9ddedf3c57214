/* The frozen moment of a file. */
#include "nodecache/cut.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/fault.h"

#define COPY_STEP (64u << 10)

static void cut_free(struct store *s, struct file *f)
{
    struct cut *c = f->cut;
    char name[32];

    if (c->side_fd >= 0) {
        close(c->side_fd);
        snprintf(name, sizeof(name), "%" PRIu64, f->ino);
        (void)unlinkat(s->cuts_dir, name, 0); /* else the next start removes it */
    }
    space_give(&s->space, c->side_charge); /* taken before the file was opened, which may fail */
    ranges_clear(&c->frozen);
    ranges_clear(&c->unread);
    ranges_clear(&c->side);
    ranges_clear(&c->rewritten);
    clean_pieces_clear(&c->pieces);
    free(c);
    f->cut = NULL;
    pthread_cond_broadcast(&f->changed);
}

int cut_begin(struct file *f, const struct ranges *whole, uint64_t limit)
{
    struct cut *c = calloc(1, sizeof(*c));
    struct ranges present;
    int rc;

    if (!c)
        return -ENOMEM;
    ranges_init(&present);
    c->side_fd = -1;
    c->trunc_limit = LIMIT_NONE;
    c->base_limit = f->base_limit;
    c->mapped = f->mapped;
    c->frozen_at = clock_boot_ns();
    file_attrs(f, &c->attrs);
    rc = ranges_copy(&c->frozen, &f->staged);
    if (rc == 0 && whole->count > 0) {
        rc = ranges_copy(&present, &f->present);
        if (rc == 0)
            rc = ranges_keep(&present, whole);
        if (rc == 0)
            rc = ranges_add_all(&c->frozen, &present);
    }
    c->partial = ranges_end(&c->frozen) > limit;
    ranges_truncate(&c->frozen, limit);
    if (rc == 0)
        rc = ranges_copy(&c->unread, &c->frozen);
    ranges_clear(&present);
    if (rc < 0) {
        ranges_clear(&c->frozen);
        ranges_clear(&c->unread);
        free(c);
        return rc;
    }
    f->cut = c;
    return 0;
}

static int copy_bytes(int from, int to, uint64_t start, uint64_t end)
{
    uint8_t buffer[COPY_STEP];

    while (start < end) {
        size_t step = end - start < COPY_STEP ? (size_t)(end - start) : COPY_STEP;
        ssize_t n = pread(from, buffer, step, (off_t)start);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        if (pwrite(to, buffer, (size_t)n, (off_t)start) != n)
            return errno ? -errno : -EIO;
        start += (uint64_t)n;
    }
    return 0;
}

static int side_open(struct store *s, struct file *f)
{
    char name[32];

    if (f->cut->side_fd >= 0)
        return 0;
    snprintf(name, sizeof(name), "%" PRIu64, f->ino);
    f->cut->side_fd = openat(s->cuts_dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return f->cut->side_fd < 0 ? -errno : 0;
}

static int preserve_part(struct store *s, struct file *f, uint64_t start, uint64_t end)
{
    struct cut *c = f->cut;
    uint64_t need = ((end - 1) / SPACE_BLOCK - start / SPACE_BLOCK + 1) * SPACE_BLOCK;
    int rc = fault("node.side");

    if (rc < 0)
        return rc;
    if (!space_try(&s->space, need))
        return -EAGAIN;
    c->side_charge += need; /* given back when the side file goes */
    rc = side_open(s, f);
    int fd = rc == 0 ? file_fd(&s->table, f, false) : rc;
    if (fd < 0)
        return fd;
    rc = copy_bytes(fd, c->side_fd, start, end);
    if (rc == 0)
        rc = ranges_insert(&c->side, start, end);
    return rc == 0 ? ranges_remove(&c->unread, start, end) : rc;
}

void cut_cancel(struct file *f)
{
    f->cut->cancelled = true;
    ranges_clear(&f->cut->unread);
    pthread_cond_broadcast(&f->changed);
}

int cut_preserve(struct store *s, struct file *f, uint64_t start, uint64_t end)
{
    struct cut *c = f->cut;
    struct range next;
    uint64_t at = start;
    int rc;

    if (c->cancelled)
        return 0;
    rc = ranges_insert(&c->rewritten, start, end);
    while (rc == 0 && at < end && ranges_next(&c->unread, at, &next) && next.start < end) {
        uint64_t from = next.start > at ? next.start : at;
        uint64_t to = next.end < end ? next.end : end;
        rc = preserve_part(s, f, from, to);
        at = to;
    }
    if (rc < 0 && rc != -EAGAIN) {
        /* Better no cut now than a write that fails because of it. */
        store_failed(s, rc, "side file", f->ino);
        cut_cancel(f);
        rc = 0;
    }
    return rc;
}

int cut_truncate(struct file *f, uint64_t size)
{
    struct cut *c = f->cut;

    if (ranges_intersects(&c->unread, size, UINT64_MAX))
        cut_cancel(f);
    if (size < c->trunc_limit)
        c->trunc_limit = size;
    return ranges_insert(&c->rewritten, size, UINT64_MAX);
}

static int read_part(int fd, uint64_t start, uint64_t end, uint8_t *out)
{
    int rc = fault("node.read");

    while (rc == 0 && start < end) {
        ssize_t n = pread(fd, out, end - start, (off_t)start);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return -EIO;
        if (n > 0) {
            start += (uint64_t)n;
            out += n;
        }
    }
    return rc;
}

int cut_read(struct store *s, struct file *f, uint64_t start, uint64_t end, uint8_t *out)
{
    struct cut *c = f->cut;
    struct range next;
    uint64_t at = start;
    int rc = 0;

    if (c->cancelled || f->gone)
        return -ECANCELED;
    while (rc == 0 && at < end && ranges_next(&c->unread, at, &next) && next.start < end) {
        uint64_t from = next.start > at ? next.start : at;
        int fd = file_fd(&s->table, f, false);
        at = next.end < end ? next.end : end;
        rc = fd < 0 ? fd : read_part(fd, from, at, out + (from - start));
    }
    at = start;
    while (rc == 0 && at < end && ranges_next(&c->side, at, &next) && next.start < end) {
        uint64_t from = next.start > at ? next.start : at;
        at = next.end < end ? next.end : end;
        rc = read_part(c->side_fd, from, at, out + (from - start));
    }
    if (rc < 0)
        return store_failed(s, rc, "reading for the flush", f->ino);
    rc = ranges_remove(&c->unread, start, end);
    if (rc == 0)
        rc = clean_pieces_add(&c->pieces, start, end, out);
    pthread_cond_broadcast(&f->changed);
    return rc;
}

/* What becomes clean joins what is in the same blocks. */
static int join_clean(struct store *s, struct file *f, const struct ranges *frozen)
{
    struct range next;
    uint64_t at = 0;
    int rc = 0;

    while (rc == 0 && ranges_next(frozen, at, &next)) {
        rc = clean_begin(s, f, next.start, next.end);
        at = next.end;
    }
    return rc;
}

static int make_clean(struct store *s, struct file *f, bool records)
{
    struct cut *c = f->cut;
    struct charge charge;
    struct row row;
    int rc = ranges_remove_all(&c->frozen, &c->rewritten);

    if (rc == 0)
        rc = ranges_keep(&c->frozen, &f->staged);
    if (rc == 0)
        rc = join_clean(s, f, &c->frozen);
    if (rc < 0)
        return rc;
    row_of(f, &row);
    row.mapped = row.mapped || records;
    row.base_limit = row.mapped ? c->trunc_limit : LIMIT_NONE;
    row.cut_pack = 0;
    if (c->attrs.version > row.logged_version)
        row.logged_version = c->attrs.version;
    if (f->version == c->attrs.version && c->frozen.total == f->staged.total) {
        row.synced_version = f->version;
        row.synced_size = f->size;
    }
    uint64_t bytes = c->frozen.total;
    charge_begin(&charge, f, 0, 0, 0);
    rc = index_clean(&s->index, f, &c->frozen, &row);
    charge_end(s, &charge, f);
    if (rc == 0)
        (void)clean_end_pieces(s, f, &c->frozen, &c->pieces); /* fails: that part goes */
    if (rc == 0)
        atomic_fetch_add_explicit(&s->flushed_bytes, bytes, memory_order_relaxed);
    return rc;
}

int cut_end(struct store *s, struct file *f, bool confirmed, bool records)
{
    int64_t frozen_at = f->cut->frozen_at;
    int rc = 0;

    if (!f->gone && confirmed)
        rc = make_clean(s, f, records);
    cut_free(s, f);
    if (f->gone)
        return rc;
    if (confirmed)
        maps_forget(&s->maps, f->ino);
    store_settle(s, f, false);
    if (f->on_staged_list && confirmed)
        staged_again(s, f, frozen_at);
    return rc < 0 ? store_failed(s, rc, "marking as clean", f->ino) : 0;
}
