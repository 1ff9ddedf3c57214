/* From records back to files: checkpoint and journal at the start. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nodecache/index_records.h"

void disk_row_put(struct disk_row *disk, uint64_t ino, const struct row *row)
{
    *disk = (struct disk_row){
        .ino = ino,
        .home_epoch = row->home_epoch,
        .version = row->version,
        .size = row->size,
        .base_limit = row->base_limit,
        .cut_number = row->cut_number,
        .cut_pack = row->cut_pack,
        .synced_size = row->synced_size,
        .synced_version = row->synced_version,
        .logged_version = row->logged_version,
        .mtime_sec = row->mtime.tv_sec,
        .ctime_sec = row->ctime.tv_sec,
        .mtime_nsec = (uint32_t)row->mtime.tv_nsec,
        .ctime_nsec = (uint32_t)row->ctime.tv_nsec,
        .flags = (row->is_home ? ROW_IS_HOME : 0) | (row->mapped ? ROW_MAPPED : 0) |
                 (row->doubt ? ROW_DOUBT : 0) | (row->cut_partial ? ROW_PARTIAL : 0) |
                 (row->sync_failed ? ROW_UNSYNCED : 0),
    };
}

int disk_row_get(const struct disk_row *disk, struct row *row)
{
    if (disk->mtime_nsec >= 1000000000u || disk->ctime_nsec >= 1000000000u)
        return -EINVAL;
    *row = (struct row){
        .home_epoch = disk->home_epoch,
        .version = disk->version,
        .size = disk->size,
        .base_limit = disk->base_limit,
        .cut_number = disk->cut_number,
        .cut_pack = disk->cut_pack,
        .synced_size = disk->synced_size,
        .synced_version = disk->synced_version,
        .logged_version = disk->logged_version,
        .mtime = {.tv_sec = disk->mtime_sec, .tv_nsec = (long)disk->mtime_nsec},
        .ctime = {.tv_sec = disk->ctime_sec, .tv_nsec = (long)disk->ctime_nsec},
        .is_home = disk->flags & ROW_IS_HOME,
        .mapped = disk->flags & ROW_MAPPED,
        .doubt = disk->flags & ROW_DOUBT,
        .cut_partial = disk->flags & ROW_PARTIAL,
        .sync_failed = disk->flags & ROW_UNSYNCED,
    };
    return 0;
}

static int apply_range(struct file *f, const struct disk_range *d, uint16_t type)
{
    int rc;

    if (d->start >= d->end)
        return -EINVAL;
    sums_drop(&f->sums, d->start, d->end);
    if (type == RECORD_FILL)
        return ranges_insert(&f->present, d->start, d->end);
    rc = ranges_remove(&f->present, d->start, d->end);
    if (rc == 0)
        rc = ranges_remove(&f->staged, d->start, d->end);
    return rc < 0 ? rc : ranges_remove(&f->synced, d->start, d->end);
}

static int apply_ranges(struct file *f, const struct disk_ranges *d, uint16_t type)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < d->count; i++) {
        uint64_t start = d->ranges[i].start, end = d->ranges[i].end;
        if (start >= end)
            return -EINVAL;
        switch (type) {
        case RECORD_PRESENT:
            rc = ranges_insert(&f->present, start, end);
            break;
        case RECORD_STAGED:
            rc = ranges_insert(&f->staged, start, end);
            break;
        case RECORD_SYNC_RANGES:
            rc = ranges_insert(&f->synced, start, end);
            break;
        default: /* RECORD_CLEAN */
            sums_drop(&f->sums, start, end);
            rc = ranges_remove(&f->staged, start, end);
            if (rc == 0)
                rc = ranges_remove(&f->synced, start, end);
        }
    }
    return rc;
}

static int apply_sums(struct file *f, const struct disk_sums *d)
{
    int rc = 0;

    if (d->block > UINT64_MAX / SUM_BLOCK - d->count)
        return -EINVAL;
    for (uint32_t i = 0; rc == 0 && i < d->count; i++)
        rc = sums_set(&f->sums, d->block + i, d->sums[i]);
    return rc;
}

static int apply_sync(struct file *f, const struct disk_sync *d)
{
    f->synced_version = d->version;
    f->synced_size = d->size;
    if (!d->all)
        return 0;
    ranges_clear(&f->synced);
    return ranges_copy(&f->synced, &f->staged);
}

static int apply_write(struct file *f, const struct disk_write *w)
{
    if (w->start >= w->end || w->end > w->size || w->nsec >= 1000000000u)
        return -EINVAL;
    int rc = ranges_prepare_insert(&f->present, w->start, w->end);
    if (rc == 0)
        rc = ranges_prepare_insert(&f->staged, w->start, w->end);
    if (rc == 0)
        write_apply(f, w);
    return rc;
}

static int apply_to(struct table *t, struct file *f, const struct record *r)
{
    struct row row;
    int rc;

    switch (r->type) {
    case RECORD_ROW:
        rc = disk_row_get(r->body, &row);
        if (rc == 0)
            row_apply(f, &row);
        f->journaled = true;
        return rc;
    case RECORD_WRITE:
        return apply_write(f, r->body);
    case RECORD_FILL:
    case RECORD_DISCARD:
        return apply_range(f, r->body, r->type);
    case RECORD_SYNC:
        return apply_sync(f, r->body);
    case RECORD_SUMS:
        return apply_sums(f, r->body);
    case RECORD_FORGET:
        file_forget(t, f);
        return 0;
    default:
        return apply_ranges(f, r->body, r->type);
    }
}

/* Does the body have the length that its type asks for? */
static bool length_fits(const struct record *r)
{
    const struct disk_ranges *d = r->body;
    const struct disk_sums *sums = r->body;

    switch (r->type) {
    case RECORD_ROW:
        return r->length == sizeof(struct disk_row);
    case RECORD_ROW_SEQ:
        return r->length == sizeof(struct disk_row_seq);
    case RECORD_WRITE:
        return r->length == sizeof(struct disk_write);
    case RECORD_FILL:
    case RECORD_DISCARD:
        return r->length == sizeof(struct disk_range);
    case RECORD_SYNC:
        return r->length == sizeof(struct disk_sync);
    case RECORD_FORGET:
        return r->length == sizeof(struct disk_forget);
    case RECORD_SUMS:
        return r->length >= disk_sums_size(0) && sums->count <= DISK_SUMS_MAX &&
               r->length == disk_sums_size(sums->count);
    case RECORD_CLEAN:
    case RECORD_SYNC_RANGES:
    case RECORD_PRESENT:
    case RECORD_STAGED:
        return r->length >= disk_ranges_size(0) && d->count <= DISK_RANGES_MAX &&
               r->length == disk_ranges_size(d->count);
    default:
        return false;
    }
}

int record_apply(struct table *t, const struct record *r, bool skip_old)
{
    uint64_t ino;
    int rc = 0;

    if (!length_fits(r))
        return -EINVAL;
    memcpy(&ino, r->body, sizeof(ino)); /* first in every body */
    if (ino > atomic_load(&t->max_ino))
        atomic_store(&t->max_ino, ino);
    struct file *f = r->type == RECORD_ROW ? file_get(t, ino) : file_find(t, ino);
    if (!f) {
        /* A record about a file that was forgotten before the checkpoint was written, but behind
         * its start. */
        return r->type == RECORD_ROW ? -ENOMEM : 0;
    }
    if (r->type == RECORD_ROW_SEQ) {
        f->seq = ((const struct disk_row_seq *)r->body)->seq;
    } else if (!skip_old || r->seq > f->seq) {
        rc = apply_to(t, f, r);
        if (skip_old)
            f->seq = r->seq;
    }
    file_unref(f);
    return rc;
}

static int replay_record(void *ctx, const struct record *r)
{
    return record_apply(ctx, r, true);
}

/* Reads the checkpoint's records between head and end. */
static int checkpoint_records(struct table *t, const uint8_t *data, size_t size,
                              struct disk_head *head, char *detail)
{
    struct record r;
    uint64_t synced, rows = 0;
    size_t at = record_get(data, size, 0, &r, &synced);
    bool ended = false;

    if (at == 0 || r.type != RECORD_HEAD || r.length != sizeof(*head))
        goto damaged;
    memcpy(head, r.body, sizeof(*head));
    if (head->format != CHECKPOINT_FORMAT) {
        snprintf(detail, NODE_DETAIL, "the index has format %u, this program knows %u",
                 head->format, CHECKPOINT_FORMAT);
        return -EPROTONOSUPPORT;
    }
    while (!ended) {
        size_t n = record_get(data + at, size - at, 0, &r, &synced);
        if (n == 0)
            goto damaged;
        if (r.type == RECORD_END && r.length == sizeof(struct disk_end)) {
            ended = true;
            if (((const struct disk_end *)r.body)->rows != rows || at + n != size)
                goto damaged;
        } else {
            rows += r.type == RECORD_ROW;
            int rc = record_apply(t, &r, false);
            if (rc == -ENOMEM)
                return rc;
            if (rc < 0)
                goto damaged;
        }
        at += n;
    }
    return 0;
damaged:
    snprintf(detail, NODE_DETAIL, "the index (checkpoint) is damaged at byte %zu", at);
    return -EBADMSG;
}

int checkpoint_load(struct index *x, struct table *t, struct disk_head *head, char *detail)
{
    struct stat st;
    int rc = 0;
    int fd = openat(x->dir, "checkpoint", O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        rc = -errno;
        snprintf(detail, NODE_DETAIL, "the index (checkpoint): %s", strerror(errno));
        return rc == -ENOENT ? -EBADMSG : rc;
    }
    if (fstat(fd, &st) < 0) {
        rc = -errno;
        goto out;
    }
    if (st.st_size == 0) {
        snprintf(detail, NODE_DETAIL, "the index (checkpoint) is empty");
        rc = -EBADMSG;
        goto out;
    }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        rc = -errno;
        goto out;
    }
    rc = checkpoint_records(t, map, (size_t)st.st_size, head, detail);
    munmap(map, (size_t)st.st_size);
    if (head->max_ino > atomic_load(&t->max_ino))
        atomic_store(&t->max_ino, head->max_ino);
    atomic_store(&x->checkpoint_size, (uint64_t)st.st_size);
out:
    close(fd);
    return rc;
}

/* Removes segments that a checkpoint has made needless, and what an interrupted start left. */
static void remove_segments(struct index *x, uint64_t below)
{
    while (below > 0 && journal_remove(x->dir, below - 1) == 0)
        below--;
}

int index_open(struct index *x, struct table *t, struct index_load *load, char detail[NODE_DETAIL])
{
    struct disk_head head = {0};
    uint64_t segment = 1, seq = 1;
    int rc;

    if (!load->first) {
        rc = checkpoint_load(x, t, &head, detail);
        if (rc < 0)
            return rc;
        struct journal_replay replay = {.first = head.segment,
                                        .mark = load->mark,
                                        .machine_crashed = load->machine_crashed,
                                        .record = replay_record,
                                        .ctx = t,
                                        .last_seq = head.seq};
        rc = journal_replay(x->dir, &replay, detail);
        if (rc < 0)
            return rc;
        load->torn = replay.torn;
        /* Blocks that it does not know are given back next; it must not forget after that. */
        for (uint64_t n = head.segment; rc == 0 && n <= replay.last_segment; n++)
            rc = journal_sync_segment(x->dir, n, &x->sync_ops);
        if (rc < 0) {
            snprintf(detail, NODE_DETAIL, "syncing the journal: %s", strerror(-rc));
            return rc;
        }
        segment = replay.last_segment + 1;
        seq = replay.last_seq + 1;
        remove_segments(x, head.segment);
    }
    rc = journal_start(x->dir, segment, seq, UINT64_MAX, &x->sync_ops, load->on_sync, load->ctx,
                       &x->journal);
    if (rc < 0)
        snprintf(detail, NODE_DETAIL, "a new journal segment: %s", strerror(-rc));
    else
        index_set_checkpoint_size(x, atomic_load(&x->checkpoint_size));
    return rc;
}
