/* Changes of files: write, truncate, fallocate, copy. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/fault.h"
#include "nodecache/clean.h"
#include "nodecache/cut.h"
#include "nodecache/store_private.h"

/* Zeros are staged in steps of this, so that a large hole goes with the flush's pace instead of
 * needing all at once. */
#define ZERO_STEP (16u << 20)

static int poison(struct file *f, uint64_t start, uint64_t end)
{
    int rc = 0;

    for (struct fetching *i = f->fetches; rc == 0 && i; i = i->next) {
        if (start < i->end && end > i->start)
            rc = ranges_insert(&i->poison, start, end);
    }
    return rc;
}

int change_begin(struct store *s, struct file *f, uint64_t start, uint64_t end)
{
    int rc = poison(f, start, end);

    return rc == 0 && f->cut ? cut_preserve(s, f, start, end) : rc;
}

static int write_all(int fd, const uint8_t *data, size_t length, uint64_t offset)
{
    int rc = fault("node.write");

    while (rc == 0 && length > 0) {
        ssize_t n = pwrite(fd, data, length, (off_t)offset);
        if (n < 0 && errno != EINTR)
            rc = -errno;
        else if (n == 0)
            rc = -EIO;
        else if (n > 0) {
            data += n;
            length -= (size_t)n;
            offset += (uint64_t)n;
        }
    }
    return rc;
}

/* A row after one more change at `now`. */
static void next_row(const struct file *f, struct timespec now, struct row *row)
{
    row_of(f, row);
    row->version++;
    row->mtime = row->ctime = now;
}

/* Bytes [start, end) become data (NULL: zeros), staged. Space was taken. */
static int stage(struct store *s, struct file *f, uint64_t start, uint64_t end, const uint8_t *data,
                 struct timespec now)
{
    struct row row;
    int fd, rc = index_ready(&s->index);

    if (rc == -EXFULL)
        store_kick_upkeep(s);
    if (rc < 0)
        return store_failed(s, rc, "journal", f->ino);
    fd = file_fd(&s->table, f, true);
    if (fd < 0)
        return store_failed(s, fd, "write", f->ino);
    /* Clean bytes count no more before they are overwritten: if that stops halfway, the pool has
     * them. */
    rc = discard_clean(s, f, start, end);
    if (rc == 0)
        rc = data ? write_all(fd, data, end - start, start) : change_zero(fd, start, end);
    next_row(f, now, &row);
    if (end > row.size)
        row.size = end;
    if (rc == 0)
        rc = index_write(&s->index, f, start, end, &row);
    if (rc == 0)
        return 0;
    (void)change_punch(s, f, start, end); /* else blocks are left that nobody counts */
    return store_failed(s, rc, "write", f->ino);
}

/* One attempt; f->lock is held. -EAGAIN: *need bytes of room are missing; -EBUSY: a cut or a
 * checkpoint must end first. */
static int try_stage(struct store *s, struct file *f, uint64_t start, uint64_t end,
                     const uint8_t *data, struct timespec now, uint64_t *need)
{
    struct charge c;
    int rc = clean_touched(f, start, end) ? clean_begin(s, f, start, end) : 0;

    if (rc < 0)
        return rc;
    *need = charge_need(f, start, end);
    if (!space_try(&s->space, *need))
        return -EAGAIN;
    charge_begin(&c, f, start, end, *need);
    rc = change_begin(s, f, start, end);
    if (rc == 0)
        rc = stage(s, f, start, end, data, now);
    if (rc == -EAGAIN || rc == -EXFULL)
        rc = -EBUSY;
    charge_end(s, &c, f);
    (void)clean_end(s, f, start, end, NULL); /* fails: that part of the cache goes */
    if (rc == 0)
        store_settle(s, f, false);
    return rc;
}

/* No room now. -EBUSY: it may come free; -ENOSPC: it cannot, or has not for long. */
static int shortage(struct store *s, uint64_t need)
{
    int64_t now = clock_boot_ms(), limit = s->options.space_deadline_ms;
    int64_t since = atomic_load(&s->short_since);
    int64_t seen = atomic_exchange(&s->short_seen, now);

    if (need > s->options.capacity)
        return -ENOSPC;
    if (since == 0 || now - seen > limit) { /* what nobody met for so long is over */
        atomic_store(&s->short_since, now);
        return -EBUSY;
    }
    return now - since < limit ? -EBUSY : -ENOSPC;
}

/* An append. What follows `placed` is for one whose sender says where it takes the end to be. */
struct append {
    bool placed, again, done;
    uint64_t expected;
};

/* Nanoseconds of one sender tell its appends apart: the kernel runs one after the other. */
static bool append_is_done(const struct file *f, uint64_t expected, uint64_t length,
                           struct timespec now)
{
    return f->size == expected + length && f->mtime.tv_sec == now.tv_sec &&
           f->mtime.tv_nsec == now.tv_nsec;
}

/* While it waited with the end of the file at `end`, the connection may have broken and the append
 * been sent again and done. If the end has moved otherwise, that cannot be told: who still listens
 * asks anew, and who does not has sent it again. */
static int append_waited(const struct file *f, struct append *a, uint64_t end, uint64_t length,
                         struct timespec now)
{
    if (!a->placed)
        return 0;
    a->done = append_is_done(f, a->expected, length, now);
    if (a->done || f->size == end)
        return 0;
    return a->again ? -EIO : -EBUSY;
}

/* Stages with patience. f is locked, and unlocked while it waits: t must still hold then.
 * append: NULL: it goes to *start. */
static int stage_wait(struct store *s, struct file *f, const struct ticket *t, uint64_t *start,
                      uint64_t length, struct append *append, const uint8_t *data,
                      struct timespec now)
{
    int64_t deadline = clock_boot_ms() + ROOM_PATIENCE_MS;
    uint64_t need = 0;
    int rc, verdict;

    for (;;) {
        if (append)
            *start = f->size;
        if (*start > NODE_SIZE_MAX || length > NODE_SIZE_MAX - *start)
            return -EFBIG;
        if (!data && *start >= f->size)
            return 0; /* zeros never make a file longer; it may have been truncated meanwhile */
        if (!data && length > f->size - *start)
            length = f->size - *start;
        rc = try_stage(s, f, *start, *start + length, data, now, &need);
        if (rc == 0 && atomic_load_explicit(&s->short_since, memory_order_relaxed) != 0)
            atomic_store(&s->short_since, 0);
        if (rc != -EAGAIN && rc != -EBUSY)
            return rc;
        verdict = shortage(s, need);
        if (need > s->options.capacity || clock_boot_ms() >= deadline)
            return verdict;
        if (rc == -EBUSY) {
            store_wait(f);
        } else {
            pthread_mutex_unlock(&f->lock);
            (void)space_wait(&s->space, need, deadline); /* it is looked at again */
            pthread_mutex_lock(&f->lock);
        }
        rc = admit(s, f, t, RIGHT_WRITE);
        if (rc == -EAGAIN)
            rc = -ESTALE; /* dropped while it waited */
        if (rc == 0 && append)
            rc = append_waited(f, append, *start, length, now);
        if (rc < 0)
            return rc;
        if (append && append->done) {
            *start = append->expected;
            return 0;
        }
    }
}

int store_write(struct store *s, const struct ticket *t, uint64_t offset, bool append,
                struct timespec now, const void *data, size_t length, struct attrs *attrs,
                uint64_t *placed)
{
    struct append end = {0};
    struct file *f;
    int rc;

    if (length > NODE_IO_MAX)
        return -EINVAL;
    rc = admit_lock(s, t, RIGHT_WRITE, &f);
    if (rc < 0)
        return rc;
    if (length > 0)
        rc = stage_wait(s, f, t, &offset, length, append ? &end : NULL, data, now);
    file_attrs(f, attrs);
    *placed = offset;
    admit_unlock(f);
    if (rc == 0)
        atomic_fetch_add_explicit(&s->write_bytes, length, memory_order_relaxed);
    return rc;
}

int store_append(struct store *s, const struct ticket *t, uint64_t expected, bool again,
                 struct timespec now, const void *data, size_t length, struct attrs *attrs,
                 uint64_t *placed)
{
    struct append a = {.placed = true, .again = again, .expected = expected};
    struct file *f;
    int rc;

    if (length > NODE_IO_MAX)
        return -EINVAL;
    rc = admit_lock(s, t, RIGHT_WRITE, &f);
    if (rc < 0)
        return rc;
    *placed = expected;
    a.done = append_is_done(f, expected, length, now);
    if (!a.done && again && f->size != expected)
        rc = -EIO;
    else if (!a.done && length > 0)
        rc = stage_wait(s, f, t, placed, length, &a, data, now);
    file_attrs(f, attrs);
    admit_unlock(f);
    if (rc == 0 && !a.done)
        atomic_fetch_add_explicit(&s->write_bytes, length, memory_order_relaxed);
    return rc;
}

int change_zero(int fd, uint64_t start, uint64_t end)
{
    struct stat st;
    int rc = fault("node.write");

    if (rc < 0)
        return rc;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
                  (off_t)(end - start)) < 0)
        return -errno;
    /* The flat file reaches as far as what is staged: recovery checks that. */
    if (fstat(fd, &st) < 0)
        return -errno;
    return (uint64_t)st.st_size < end && ftruncate(fd, (off_t)end) < 0 ? -errno : 0;
}

int change_punch(struct store *s, struct file *f, uint64_t start, uint64_t end)
{
    struct range gap;
    uint64_t mask = SPACE_BLOCK - 1;
    int fd;

    if (!f->has_file || start >= end)
        return 0;
    fd = file_fd(&s->table, f, false);
    if (fd < 0)
        return fd;
    /* Whole blocks of which no byte is present. */
    start &= ~mask;
    end = end > NODE_SIZE_MAX - SPACE_BLOCK ? NODE_SIZE_MAX : (end + mask) & ~mask;
    while (ranges_gap(&f->present, start, end, &gap)) {
        uint64_t from = (gap.start + mask) & ~mask;
        uint64_t to = gap.end == NODE_SIZE_MAX ? gap.end : gap.end & ~mask;
        if (from < to && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                                   (off_t)(to - from)) < 0)
            return -errno;
        start = gap.end;
    }
    return 0;
}

static int truncate_down(struct store *s, struct file *f, uint64_t size, struct row *row)
{
    struct charge c;
    uint64_t end = ranges_end(&f->present);
    /* The centre's log forgets at once what the pool has beyond, and the flat file may be shorter
     * on the disk before the journal says so: neither may overtake it. Of what is neither in the
     * pool nor synced, nothing was promised. */
    bool promised = f->mapped || f->cut || f->synced.count > 0 || f->synced_size > size;
    int rc = clean_begin(s, f, size, end);

    if (rc == 0)
        rc = poison(f, size, UINT64_MAX);
    if (rc == 0 && f->cut)
        rc = cut_truncate(f, size);
    if (rc < 0)
        return rc;
    if (f->mapped || f->cut)
        row->base_limit = size < f->base_limit ? size : f->base_limit;
    row->synced_size = size;
    row->size = size;
    charge_begin(&c, f, size, end > size ? end : size, 0);
    rc = index_row(&s->index, f, row);
    if (rc == 0 && promised)
        rc = journal_sync(s->index.journal, f->seq);
    if (rc == 0 && f->has_file && end > size) {
        int fd = file_fd(&s->table, f, false);
        rc = fd < 0 ? fd : ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
        if (rc < 0) {
            /* The bytes are dead already; their blocks stay until the file goes. */
            store_failed(s, rc, "truncate", f->ino);
            rc = 0;
        }
    }
    charge_end(s, &c, f);
    if (size > 0)
        (void)clean_end(s, f, size - 1, size, NULL); /* fails: that part of the cache goes */
    return rc;
}

int change_setattr(struct store *s, struct file *f, const struct setattr *set)
{
    struct row row;
    int rc;

    next_row(f, set->now, &row);
    if (set->set_mtime)
        row.mtime = set->mtime;
    else if (!set->set_size)
        row.mtime = f->mtime;
    if (set->set_size && set->size < f->size) {
        rc = truncate_down(s, f, set->size, &row);
    } else {
        if (set->set_size) {
            row.size = set->size;
            if (f->version == f->synced_version)
                row.synced_size = set->size;
        }
        struct charge c;
        charge_begin(&c, f, 0, 0, 0);
        rc = index_row(&s->index, f, &row);
        charge_end(s, &c, f);
    }
    if (rc == 0)
        store_settle(s, f, false);
    return rc < 0 ? store_failed(s, rc, "setattr", f->ino) : 0;
}

int store_setattr(struct store *s, const struct ticket *t, const struct setattr *set,
                  struct attrs *attrs)
{
    struct file *f;
    int rc;

    if (set->set_size && set->size > NODE_SIZE_MAX)
        return -EFBIG;
    rc = admit_lock(s, t, RIGHT_WRITE, &f);
    if (rc < 0)
        return rc;
    rc = change_setattr(s, f, set);
    file_attrs(f, attrs);
    admit_unlock(f);
    return rc;
}

/* Bytes that the pool does not have and no cut is reading need not be staged to be zero: they just
 * go. */
static int discard(struct store *s, struct file *f, uint64_t start, uint64_t end,
                   struct timespec now)
{
    struct charge c;
    struct row row;
    int rc = change_begin(s, f, start, end);

    if (rc < 0)
        return rc;
    next_row(f, now, &row);
    charge_begin(&c, f, start, end, 0);
    rc = index_row(&s->index, f, &row);
    if (rc == 0 && ranges_intersects(&f->present, start, end)) {
        rc = index_discard(&s->index, f, start, end);
        if (rc == 0 && f->present.count == 0 && f->fd_users == 0) {
            file_close_fd(&s->table, f);
            rc = journal_sync(s->index.journal, f->seq); /* before a file with synced bytes goes */
            if (rc == 0)
                rc = file_unlink(&s->table, f);
        } else if (rc == 0) {
            rc = change_punch(s, f, start, end);
        }
    }
    charge_end(s, &c, f);
    store_settle(s, f, false);
    return rc < 0 ? store_failed(s, rc, "punching a hole", f->ino) : 0;
}

/* *done: as of store_fallocate. Others wait behind it, and its sender does not wait for ever: it
 * ends with what it has when it took long, too. */
static int zero_range(struct store *s, struct file *f, const struct ticket *t, uint64_t start,
                      uint64_t end, struct timespec now, uint64_t *done)
{
    int64_t deadline = clock_boot_ms() + ROOM_PATIENCE_MS;
    uint64_t at = start;
    int rc = 0;

    if (end > f->size)
        end = f->size;
    if (start >= end)
        return 0;
    if (!f->mapped && !f->cut)
        return discard(s, f, start, end, now);
    while (rc == 0 && at < end && at < f->size) {
        uint64_t step = end - at < ZERO_STEP ? end - at : ZERO_STEP;
        rc = stage_wait(s, f, t, &at, step, NULL, NULL, now);
        if (rc == 0)
            at += step;
        if (rc == 0 && at < end && at < f->size && clock_boot_ms() >= deadline)
            rc = -EBUSY;
    }
    if (rc == -EBUSY && at > start) {
        *done = at - start;
        rc = 0;
    }
    return rc;
}

static int extend(struct store *s, struct file *f, uint64_t size, struct timespec now)
{
    struct setattr set = {.set_size = true, .size = size, .now = now};

    return size > f->size ? change_setattr(s, f, &set) : 0;
}

int store_fallocate(struct store *s, const struct ticket *t, uint32_t mode, uint64_t offset,
                    uint64_t length, struct timespec now, struct attrs *attrs, uint64_t *done)
{
    bool keep = mode & FALLOC_FL_KEEP_SIZE;
    uint32_t kind = mode & ~(uint32_t)FALLOC_FL_KEEP_SIZE;
    struct file *f;
    int rc;

    if (kind != 0 && kind != FALLOC_FL_PUNCH_HOLE && kind != FALLOC_FL_ZERO_RANGE)
        return -EOPNOTSUPP;
    if (length == 0 || (kind == FALLOC_FL_PUNCH_HOLE && !keep))
        return -EINVAL;
    if (offset > NODE_SIZE_MAX || length > NODE_SIZE_MAX - offset)
        return -EFBIG;
    rc = admit_lock(s, t, RIGHT_WRITE, &f);
    if (rc < 0)
        return rc;
    uint64_t end = offset + length, version = f->version;
    *done = length;
    /* Space is not held: staged bytes leave for the pool anyway. But what can never fit is refused.
     */
    uint64_t wanted = length - ranges_bytes(&f->present, offset, end);
    if (kind == 0 && wanted > s->options.capacity && wanted > atomic_load(&s->pool_free))
        rc = -ENOSPC;
    if (rc == 0 && kind != 0)
        rc = zero_range(s, f, t, offset, end, now, done);
    if (rc == 0 && *done == length && !keep)
        rc = extend(s, f, end, now);
    if (rc == 0 && f->version == version) {
        /* Nothing to do, but Linux's file systems touch the times all the same. */
        struct setattr touch = {.set_mtime = true, .mtime = now, .now = now};
        rc = change_setattr(s, f, &touch);
    }
    file_attrs(f, attrs);
    admit_unlock(f);
    return rc;
}

int store_copy_range(struct store *s, const struct ticket *from, uint64_t from_offset,
                     const struct ticket *to, uint64_t to_offset, uint64_t length,
                     struct timespec now, struct attrs *attrs, uint64_t *copied,
                     char detail[NODE_DETAIL])
{
    uint8_t *buffer = malloc(NODE_IO_MAX);
    int rc = 0;

    *copied = 0;
    if (!buffer)
        return -ENOMEM;
    if (from->ino == to->ino && from_offset < to_offset + length &&
        to_offset < from_offset + length) {
        rc = -EINVAL;
        goto out;
    }
    do {
        struct store_reading r;
        uint64_t placed;
        size_t step = length - *copied < NODE_IO_MAX ? (size_t)(length - *copied) : NODE_IO_MAX;
        rc = store_read(s, from, from_offset + *copied, step, buffer, &r, detail);
        if (rc < 0)
            break;
        if (r.fd >= 0) {
            ssize_t n = pread(r.fd, buffer, r.length, (off_t)r.offset);
            rc = n < 0 ? -errno : (size_t)n < r.length ? -EIO : 0;
        }
        size_t got = r.length;
        store_read_done(s, &r);
        if (rc < 0)
            break;
        rc = store_write(s, to, to_offset + *copied, false, now, buffer, got, attrs, &placed);
        if (rc < 0 || got == 0)
            break;
        *copied += got;
    } while (*copied < length);
    if (*copied > 0)
        rc = 0; /* a short copy, as from write(2) */
out:
    free(buffer);
    return rc;
}
