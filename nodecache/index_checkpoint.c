/* Writing a checkpoint while everything goes on. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/wire/fault.h"
#include "nodecache/index_records.h"

#define WRITE_BUFFER (256u << 10)
#define TEMPORARY    "checkpoint.new"

struct output {
    int fd;
    int rc; /* first error */
    uint8_t *buffer;
    size_t filled;
    uint64_t written;
    uint64_t rows;
};

static void flush(struct output *o)
{
    size_t done = 0;

    if (o->rc == 0)
        o->rc = fault("node.checkpoint");
    while (o->rc == 0 && done < o->filled) {
        ssize_t n = write(o->fd, o->buffer + done, o->filled - done);
        if (n < 0 && errno != EINTR)
            o->rc = -errno;
        else if (n > 0)
            done += (size_t)n;
    }
    o->written += done;
    o->filled = 0;
}

static void put(struct output *o, uint16_t type, const void *body, size_t length)
{
    struct record r = {.type = type, .body = body, .length = length};

    if (o->filled + record_size(length) > WRITE_BUFFER)
        flush(o);
    record_put(o->buffer + o->filled, 0, 0, 0, &r);
    o->filled += record_size(length);
}

static void put_ranges(struct output *o, uint16_t type, uint64_t ino, const struct ranges *set)
{
    struct disk_ranges disk = {.ino = ino};
    struct range next;
    uint64_t at = 0;

    while (ranges_next(set, at, &next)) {
        disk.ranges[disk.count++] = next;
        at = next.end;
        if (disk.count == DISK_RANGES_MAX || at >= ranges_end(set)) {
            put(o, type, &disk, disk_ranges_size(disk.count));
            disk.count = 0;
        }
    }
}

struct sums_output {
    struct output *o;
    uint64_t ino;
};

static void put_sums(void *arg, uint64_t block, uint32_t count, const uint64_t *sums)
{
    struct sums_output *to = arg;
    struct disk_sums disk = {.ino = to->ino, .block = block};

    for (uint32_t done = 0; done < count; done += disk.count) {
        disk.block = block + done;
        disk.count = count - done < DISK_SUMS_MAX ? count - done : DISK_SUMS_MAX;
        memcpy(disk.sums, sums + done, disk.count * sizeof(*sums));
        put(to->o, RECORD_SUMS, &disk, disk_sums_size(disk.count));
    }
}

/* f->lock is held. */
static void put_file(struct output *o, const struct file *f)
{
    struct disk_row_seq seq = {.ino = f->ino, .seq = f->seq};
    struct sums_output sums = {.o = o, .ino = f->ino};
    struct disk_row disk;
    struct row row;

    row_of(f, &row);
    disk_row_put(&disk, f->ino, &row);
    put(o, RECORD_ROW, &disk, sizeof(disk));
    put(o, RECORD_ROW_SEQ, &seq, sizeof(seq));
    put_ranges(o, RECORD_PRESENT, f->ino, &f->present);
    put_ranges(o, RECORD_STAGED, f->ino, &f->staged);
    put_ranges(o, RECORD_SYNC_RANGES, f->ino, &f->synced);
    sums_each(&f->sums, put_sums, &sums);
    o->rows++;
}

static void put_shard(struct output *o, struct table *t, unsigned shard)
{
    uint64_t *inos = NULL;
    size_t count = 0;

    o->rc = shard_inos(&t->shards[shard], &inos, &count);
    for (size_t i = 0; o->rc == 0 && i < count; i++) {
        struct file *f = file_peek(t, inos[i]);
        if (!f)
            continue;
        pthread_mutex_lock(&f->lock);
        if (!f->gone && f->journaled)
            put_file(o, f);
        pthread_mutex_unlock(&f->lock);
        file_unref(f);
    }
    free(inos);
}

static int write_all(struct output *o, struct table *t, uint64_t segment, uint64_t seq)
{
    struct disk_head head = {.format = CHECKPOINT_FORMAT,
                             .segment = segment,
                             .seq = seq,
                             .max_ino = atomic_load(&t->max_ino)};

    put(o, RECORD_HEAD, &head, sizeof(head));
    for (unsigned i = 0; o->rc == 0 && i < FILE_SHARDS; i++)
        put_shard(o, t, i);
    struct disk_end end = {.rows = o->rows};
    put(o, RECORD_END, &end, sizeof(end));
    flush(o);
    return o->rc;
}

int index_checkpoint(struct index *x, struct table *t, char detail[NODE_DETAIL])
{
    struct output o = {.fd = -1};
    uint64_t segment, seq;
    int rc;

    /* Records from here on are replayed on top of the rows; a row that already holds one says so by
     * its sequence number. */
    rc = journal_rotate(x->journal, &segment, &seq);
    if (rc < 0)
        goto out;
    o.buffer = malloc(WRITE_BUFFER);
    rc = o.buffer ? 0 : -ENOMEM;
    if (rc < 0)
        goto out;
    o.fd = openat(x->dir, TEMPORARY, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    rc = o.fd < 0 ? -errno : write_all(&o, t, segment, seq);
    if (rc == 0)
        rc = sync_fd(&x->sync_ops, o.fd, false);
    if (rc == 0 && renameat(x->dir, TEMPORARY, x->dir, "checkpoint") < 0)
        rc = -errno;
    if (rc == 0)
        rc = sync_fd(&x->sync_ops, x->dir, false);
    if (rc < 0)
        goto out;
    for (uint64_t old = segment; old > 0 && journal_remove(x->dir, old - 1) == 0; old--)
        ;
    index_set_checkpoint_size(x, o.written);
out:
    if (rc < 0) {
        snprintf(detail, NODE_DETAIL, "checkpoint of the index: %s", strerror(-rc));
        (void)unlinkat(x->dir, TEMPORARY, 0); /* best effort: the next one overwrites it */
    }
    if (o.fd >= 0)
        close(o.fd);
    free(o.buffer);
    return rc;
}
