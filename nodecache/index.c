/* Changes of files as journal records. */
#include "nodecache/index.h"

#include <errno.h>
#include <string.h>

#include "nodecache/index_records.h"

#define JOURNAL_BOUND_MIN (256u << 10)
#define JOURNAL_STEP      (256u << 10) /* what a segment takes ahead */
#define JOURNAL_BOUND_MAX (16u << 20)
/* A segment may grow to this many times its bound while a checkpoint is being written; then writes
 * wait for it. */
#define SEGMENT_SLACK 2u

uint64_t index_bound(uint64_t capacity)
{
    uint64_t bound = capacity / 256;

    if (bound < JOURNAL_BOUND_MIN)
        return JOURNAL_BOUND_MIN;
    return bound > JOURNAL_BOUND_MAX ? JOURNAL_BOUND_MAX : bound;
}

uint64_t index_base_charge(uint64_t bound)
{
    /* Old and new segment; the folders of the flat files; mark and lock. What the journal may take
     * beyond its bound, when the index is large, is in FILE_CHARGE. */
    return 2 * (SEGMENT_SLACK * bound + JOURNAL_STEP) + (256 + 16) * SPACE_BLOCK;
}

static uint64_t segment_bound(struct index *x)
{
    uint64_t size = atomic_load(&x->checkpoint_size);

    return size > x->bound ? size : x->bound;
}

bool index_wants_checkpoint(struct index *x)
{
    return journal_size(x->journal) > segment_bound(x);
}

void row_of(const struct file *f, struct row *row)
{
    *row = (struct row){.home_epoch = f->home_epoch,
                        .version = f->version,
                        .size = f->size,
                        .base_limit = f->base_limit,
                        .cut_number = f->cut_number,
                        .cut_pack = f->cut_pack,
                        .synced_size = f->synced_size,
                        .synced_version = f->synced_version,
                        .logged_version = f->logged_version,
                        .mtime = f->mtime,
                        .ctime = f->ctime,
                        .is_home = f->is_home,
                        .mapped = f->mapped,
                        .doubt = f->doubt,
                        .cut_partial = f->cut_partial,
                        .sync_failed = f->sync_failed};
}

void row_apply(struct file *f, const struct row *row)
{
    f->home_epoch = row->home_epoch;
    f->version = row->version;
    f->size = row->size;
    f->base_limit = row->base_limit;
    f->cut_number = row->cut_number;
    f->cut_pack = row->cut_pack;
    f->synced_size = row->synced_size;
    f->synced_version = row->synced_version;
    f->logged_version = row->logged_version;
    f->mtime = row->mtime;
    f->ctime = row->ctime;
    f->is_home = row->is_home;
    f->mapped = row->mapped;
    f->doubt = row->doubt;
    f->cut_partial = row->cut_partial;
    f->sync_failed = row->sync_failed;
    f->known = true;
    if (ranges_end(&f->present) > f->size)
        sums_drop(&f->sums, f->size, UINT64_MAX);
    ranges_truncate(&f->present, f->size);
    ranges_truncate(&f->staged, f->size);
    ranges_truncate(&f->synced, f->size);
}

/* Appends n records, with f's row before them if the journal has none yet. */
static int append(struct index *x, struct file *f, struct record *records, unsigned n,
                  const struct row *row, enum journal_when when)
{
    struct record all[JOURNAL_BATCH_MAX];
    struct disk_row disk;
    unsigned count = 0;
    uint64_t seq;

    if (!f->journaled || f->row_stale) {
        disk_row_put(&disk, f->ino, row);
        all[count++] = (struct record){.type = RECORD_ROW, .body = &disk, .length = sizeof(disk)};
    }
    for (unsigned i = 0; i < n; i++)
        all[count++] = records[i];
    int rc = count > 0 ? journal_append(x->journal, all, count, when, &seq) : 0;
    if (rc < 0)
        return rc;
    if (count > 0)
        f->seq = seq;
    f->journaled = true;
    f->row_stale = false;
    return 0;
}

static int append_row(struct index *x, struct file *f, const struct row *row,
                      enum journal_when when)
{
    struct disk_row disk;
    struct record r = {.type = RECORD_ROW, .body = &disk, .length = sizeof(disk)};

    disk_row_put(&disk, f->ino, row);
    int rc = append(x, f, &r, f->journaled && !f->row_stale ? 1 : 0, row, when);
    if (rc == 0)
        row_apply(f, row);
    return rc;
}

int index_row(struct index *x, struct file *f, const struct row *row)
{
    return append_row(x, f, row, JOURNAL_NOW);
}

int index_row_later(struct index *x, struct file *f, const struct row *row)
{
    return append_row(x, f, row, JOURNAL_LATER);
}

int index_ready(struct index *x)
{
    if (journal_is_broken(x->journal))
        return -EIO;
    return journal_size(x->journal) > SEGMENT_SLACK * segment_bound(x) ? -EXFULL : 0;
}

int index_write(struct index *x, struct file *f, uint64_t start, uint64_t end,
                const struct row *row)
{
    struct disk_write disk = {.ino = f->ino,
                              .start = start,
                              .end = end,
                              .version = row->version,
                              .size = row->size,
                              .sec = row->mtime.tv_sec,
                              .nsec = (uint32_t)row->mtime.tv_nsec};
    struct record r = {.type = RECORD_WRITE, .body = &disk, .length = sizeof(disk)};
    int rc = ranges_prepare_insert(&f->present, start, end);
    if (rc == 0)
        rc = ranges_prepare_insert(&f->staged, start, end);
    if (rc == 0)
        rc = append(x, f, &r, 1, row, JOURNAL_NOW);
    if (rc == 0)
        write_apply(f, &disk);
    return rc;
}

void write_apply(struct file *f, const struct disk_write *w)
{
    /* Room was made for both, or this is a replay, where the caller compares the totals. */
    (void)ranges_insert(&f->present, w->start, w->end);
    (void)ranges_insert(&f->staged, w->start, w->end);
    f->version = w->version;
    f->size = w->size;
    f->mtime = f->ctime = (struct timespec){.tv_sec = w->sec, .tv_nsec = (long)w->nsec};
}

static int range_change(struct index *x, struct file *f, uint16_t type, uint64_t start,
                        uint64_t end)
{
    struct disk_range disk = {.ino = f->ino, .start = start, .end = end};
    struct record r = {.type = type, .body = &disk, .length = sizeof(disk)};
    struct row row;

    row_of(f, &row);
    return append(x, f, &r, 1, &row, JOURNAL_NOW);
}

int index_fill(struct index *x, struct file *f, uint64_t start, uint64_t end)
{
    int rc = ranges_prepare_insert(&f->present, start, end);

    if (rc == 0)
        rc = range_change(x, f, RECORD_FILL, start, end);
    if (rc == 0)
        sums_drop(&f->sums, start, end);
    return rc < 0 ? rc : ranges_insert(&f->present, start, end);
}

int index_discard(struct index *x, struct file *f, uint64_t start, uint64_t end)
{
    struct ranges *sets[] = {&f->present, &f->staged, &f->synced};
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < 3; i++)
        rc = ranges_prepare_remove(sets[i], start, end);
    if (rc == 0)
        rc = range_change(x, f, RECORD_DISCARD, start, end);
    if (rc == 0)
        sums_drop(&f->sums, start, end);
    for (unsigned i = 0; rc == 0 && i < 3; i++)
        rc = ranges_remove(sets[i], start, end);
    return rc;
}

static void sums_drop_all(struct sums *s, const struct ranges *where)
{
    struct range next;
    uint64_t at = 0;

    while (ranges_next(where, at, &next)) {
        sums_drop(s, next.start, next.end);
        at = next.end;
    }
}

/* Appends a list of ranges as records of this type, each as long as a record may be. */
static int append_ranges(struct index *x, struct file *f, uint16_t type, const struct ranges *set,
                         enum journal_when when)
{
    struct disk_ranges disk = {.ino = f->ino};
    struct range next;
    struct row row;
    uint64_t at = 0;
    int rc = 0;

    row_of(f, &row);
    while (rc == 0 && ranges_next(set, at, &next)) {
        disk.ranges[disk.count++] = next;
        at = next.end;
        if (disk.count == DISK_RANGES_MAX || at >= ranges_end(set)) {
            struct record r = {.type = type, .body = &disk, .length = disk_ranges_size(disk.count)};
            rc = append(x, f, &r, 1, &row, when);
            disk.count = 0;
        }
    }
    return rc;
}

int index_clean(struct index *x, struct file *f, const struct ranges *clean, const struct row *row)
{
    struct ranges staged, synced;
    int rc;

    ranges_init(&staged);
    ranges_init(&synced);
    rc = ranges_copy(&staged, &f->staged);
    if (rc == 0)
        rc = ranges_copy(&synced, &f->synced);
    if (rc == 0)
        rc = ranges_remove_all(&staged, clean);
    if (rc == 0)
        rc = ranges_remove_all(&synced, clean);
    /* The row first: it says that the pool's map has no dead part, which must be known before bytes
     * count as clean. */
    if (rc == 0)
        rc = index_row_later(x, f, row);
    if (rc == 0)
        rc = append_ranges(x, f, RECORD_CLEAN, clean, JOURNAL_LATER);
    if (rc == 0) {
        struct ranges old[2] = {f->staged, f->synced};
        f->staged = staged;
        f->synced = synced;
        staged = old[0];
        synced = old[1];
        sums_drop_all(&f->sums, clean);
    }
    ranges_clear(&staged);
    ranges_clear(&synced);
    return rc;
}

int index_sums(struct index *x, struct file *f, uint64_t block, uint32_t count,
               const uint64_t *sums)
{
    struct disk_sums disk = {.ino = f->ino, .block = block, .count = count};
    struct record r = {.type = RECORD_SUMS, .body = &disk, .length = disk_sums_size(count)};
    struct row row;
    int rc;

    if (count > DISK_SUMS_MAX)
        return -EINVAL;
    memcpy(disk.sums, sums, count * sizeof(*sums));
    row_of(f, &row);
    rc = append(x, f, &r, 1, &row, JOURNAL_LATER);
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = sums_set(&f->sums, block + i, sums[i]);
    return rc;
}

int index_synced(struct index *x, struct file *f, const struct ranges *durable, uint64_t version,
                 uint64_t size)
{
    struct disk_sync disk = {.ino = f->ino, .version = version, .size = size, .all = !durable};
    struct record r = {.type = RECORD_SYNC, .body = &disk, .length = sizeof(disk)};
    struct ranges fresh;
    struct row row;
    int rc;

    ranges_init(&fresh);
    row_of(f, &row);
    rc = ranges_copy(&fresh, durable ? &f->synced : &f->staged);
    if (rc == 0 && durable)
        rc = ranges_add_all(&fresh, durable);
    if (rc == 0 && durable)
        rc = append_ranges(x, f, RECORD_SYNC_RANGES, durable, JOURNAL_NOW);
    if (rc == 0)
        rc = append(x, f, &r, 1, &row, JOURNAL_NOW);
    if (rc == 0) {
        struct ranges old = f->synced;
        f->synced = fresh;
        fresh = old;
        f->synced_version = version;
        f->synced_size = size;
    }
    ranges_clear(&fresh);
    return rc;
}

int index_forget(struct index *x, struct file *f)
{
    struct disk_forget disk = {.ino = f->ino};
    struct record r = {.type = RECORD_FORGET, .body = &disk, .length = sizeof(disk)};
    uint64_t seq;

    return f->journaled ? journal_append(x->journal, &r, 1, JOURNAL_NOW, &seq) : 0;
}

void index_close(struct index *x)
{
    journal_stop(x->journal);
    x->journal = NULL;
}

void index_set_checkpoint_size(struct index *x, uint64_t size)
{
    atomic_store(&x->checkpoint_size, size);
    journal_set_bound(x->journal, 2 * SEGMENT_SLACK * segment_bound(x));
}

int index_power_loss(struct file *f)
{
    struct ranges present;
    int rc;

    ranges_init(&present);
    f->size = f->synced_size;
    ranges_truncate(&f->synced, f->size);
    rc = ranges_copy(&present, &f->synced);
    if (rc < 0)
        goto out;
    ranges_clear(&f->present);
    ranges_clear(&f->staged);
    sums_clear(&f->sums);
    rc = ranges_copy(&f->staged, &present);
    f->present = present;
    ranges_init(&present);
    /* What was synced may be older than a confirmed cut, of which the word that it is clean was
     * lost. */
    f->doubt =
        f->version != f->synced_version || f->cut_pack != 0 || (f->synced.count > 0 && f->mapped);
out:
    ranges_clear(&present);
    return rc;
}
