/* Bodies of the journal's records, as they stand on the disk (little-endian, natural alignment).
 * Private to index*.c. */
#ifndef UMBEL_NODE_INDEX_RECORDS_H
#define UMBEL_NODE_INDEX_RECORDS_H

#include "nodecache/index.h"

/* Never renumber. */
enum record_type {
    RECORD_HEAD = 1,        /* of a checkpoint: disk_head */
    RECORD_END = 2,         /* of a checkpoint: disk_end */
    RECORD_ROW = 3,         /* disk_row */
    RECORD_WRITE = 4,       /* disk_write */
    RECORD_FILL = 5,        /* disk_range */
    RECORD_DISCARD = 6,     /* disk_range */
    RECORD_CLEAN = 7,       /* disk_ranges: no longer staged */
    RECORD_SYNC = 8,        /* disk_sync */
    RECORD_SYNC_RANGES = 9, /* disk_ranges: on stable storage, as of the RECORD_SYNC that follows */
    RECORD_FORGET = 10,     /* disk_forget */
    RECORD_PRESENT = 11,    /* of a checkpoint: disk_ranges */
    RECORD_STAGED = 12,     /* of a checkpoint: disk_ranges */
    RECORD_ROW_SEQ = 13,    /* of a checkpoint: disk_row_seq, behind each row */
    RECORD_SUMS = 14,       /* disk_sums */
};

#define CHECKPOINT_FORMAT 1u
#define DISK_RANGES_MAX   1024u
#define DISK_SUMS_MAX     1024u

#define ROW_IS_HOME  1u
#define ROW_MAPPED   2u
#define ROW_DOUBT    4u
#define ROW_PARTIAL  8u
#define ROW_UNSYNCED 16u

struct disk_head {
    uint32_t format, reserved;
    uint64_t segment; /* the first to replay */
    uint64_t seq;     /* of the last record before that segment */
    uint64_t max_ino;
};
struct disk_end {
    uint64_t rows;
};
struct disk_row {
    uint64_t ino, home_epoch, version, size, base_limit, cut_number, cut_pack;
    uint64_t synced_size, synced_version, logged_version;
    int64_t mtime_sec, ctime_sec;
    uint32_t mtime_nsec, ctime_nsec;
    uint32_t flags, reserved;
};
struct disk_row_seq {
    uint64_t ino, seq;
};
struct disk_write {
    uint64_t ino, start, end, version, size;
    int64_t sec;
    uint32_t nsec, reserved;
};
struct disk_range {
    uint64_t ino, start, end;
};
struct disk_sync {
    uint64_t ino, version, size;
    uint32_t all; /* everything staged; else what the RECORD_SYNC_RANGES before named */
    uint32_t reserved;
};
struct disk_forget {
    uint64_t ino;
};
struct disk_ranges {
    uint64_t ino;
    uint32_t count, reserved;
    struct range ranges[DISK_RANGES_MAX];
};
/* Checksums of neighbouring blocks. */
struct disk_sums {
    uint64_t ino, block;
    uint32_t count, reserved;
    uint64_t sums[DISK_SUMS_MAX];
};
_Static_assert(sizeof(struct disk_row) == 112 && sizeof(struct disk_write) == 56 &&
                   sizeof(struct range) == 16,
               "on-disk layout");

static inline size_t disk_ranges_size(uint32_t count)
{
    return offsetof(struct disk_ranges, ranges) + count * sizeof(struct range);
}

static inline size_t disk_sums_size(uint32_t count)
{
    return offsetof(struct disk_sums, sums) + count * sizeof(uint64_t);
}

void disk_row_put(struct disk_row *disk, uint64_t ino, const struct row *row);
int disk_row_get(const struct disk_row *disk, struct row *row); /* -EINVAL */
void row_apply(struct file *f, const struct row *row);
void write_apply(struct file *f, const struct disk_write *w);
void index_set_checkpoint_size(struct index *x, uint64_t size);

/* One record into the table. skip_old: leave out what the file's row already holds. */
int record_apply(struct table *t, const struct record *r, bool skip_old);
int checkpoint_load(struct index *x, struct table *t, struct disk_head *head, char *detail);

#endif
