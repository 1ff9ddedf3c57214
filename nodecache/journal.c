/* Appending to the journal, and group commit. */
#include "nodecache/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "control/wire/fault.h"

#define RECORD_MAGIC 0x4a4d4255u /* "UBMJ" */
#define BUFFER_SIZE  (JOURNAL_BODY_MAX + 4096u)
/* Space is taken from the file system in steps of this, so that most syncs need no change of its
 * metadata. */
#define ALLOCATE_STEP (256u << 10)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are little-endian, as written");

struct header {
    uint32_t magic;
    uint16_t type;
    uint16_t reserved;
    uint32_t length;
    uint32_t segment; /* low bits */
    uint64_t seq;
    uint64_t synced;
    uint64_t check; /* of the body, with the check of the header before this as seed: XXH3-64 */
};
_Static_assert(sizeof(struct header) == 40, "on-disk layout");

struct journal {
    int dir, fd;
    struct sync_ops sync_ops;
    journal_mark_fn mark;
    void *mark_ctx;
    pthread_mutex_t lock;
    pthread_cond_t synced_cond;
    uint64_t segment, size, bound;
    size_t pending;     /* the last bytes of size: in buffer, not written yet */
    uint64_t allocated; /* the file is that long; zeros behind size */
    uint64_t seq;       /* of the last record appended */
    uint64_t synced;    /* all up to here are on stable storage */
    bool syncing;       /* one thread is in fdatasync */
    bool broken;
    uint8_t *buffer;
};

int sync_fd(const struct sync_ops *ops, int fd, bool data_only)
{
    int rc = fault("node.sync");

    if (rc < 0)
        return rc;
    if (ops && ops->sync)
        return ops->sync(ops->ctx, fd, data_only);
    rc = data_only ? fdatasync(fd) : fsync(fd);
    return rc < 0 ? -errno : 0;
}

static void segment_name(char out[40], uint64_t segment)
{
    snprintf(out, 40, "journal.%" PRIu64, segment);
}

static int segment_create(int dir, uint64_t segment, const struct sync_ops *ops)
{
    char name[40];

    segment_name(name, segment);
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int rc = sync_fd(ops, dir, false);
    if (rc < 0) {
        close(fd);
        unlinkat(dir, name, 0);
        return rc;
    }
    return fd;
}

int journal_sync_segment(int dir, uint64_t segment, const struct sync_ops *ops)
{
    char name[40];

    segment_name(name, segment);
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = sync_fd(ops, fd, true);
    close(fd);
    return rc;
}

int journal_remove(int dir, uint64_t segment)
{
    char name[40];

    segment_name(name, segment);
    return unlinkat(dir, name, 0) < 0 ? -errno : 0;
}

size_t record_size(size_t body_length)
{
    return sizeof(struct header) + ((body_length + 7) & ~(size_t)7);
}

static uint64_t record_check(const uint8_t *data, size_t size)
{
    return XXH3_64bits_withSeed(data + sizeof(struct header), size - sizeof(struct header),
                                XXH3_64bits(data, offsetof(struct header, check)));
}

void record_put(uint8_t *out, uint64_t segment, uint64_t seq, uint64_t synced,
                const struct record *r)
{
    struct header h = {.magic = RECORD_MAGIC,
                       .type = r->type,
                       .length = (uint32_t)r->length,
                       .segment = (uint32_t)segment,
                       .seq = seq,
                       .synced = synced};
    size_t size = record_size(r->length);

    memset(out + size - 8, 0, 8); /* padding */
    memcpy(out, &h, sizeof(h));
    if (r->length > 0)
        memcpy(out + sizeof(h), r->body, r->length);
    h.check = record_check(out, size);
    memcpy(out + offsetof(struct header, check), &h.check, sizeof(h.check));
}

size_t record_get(const uint8_t *data, size_t size, uint64_t segment, struct record *r,
                  uint64_t *synced)
{
    struct header h;

    if (size < sizeof(h))
        return 0;
    memcpy(&h, data, sizeof(h));
    if (h.magic != RECORD_MAGIC || h.segment != (uint32_t)segment || h.reserved != 0 ||
        h.length > JOURNAL_BODY_MAX || record_size(h.length) > size)
        return 0;
    size_t whole = record_size(h.length);
    if (record_check(data, whole) != h.check)
        return 0;
    *r =
        (struct record){.type = h.type, .body = data + sizeof(h), .length = h.length, .seq = h.seq};
    *synced = h.synced;
    return whole;
}

int journal_start(int dir, uint64_t segment, uint64_t next_seq, uint64_t bound,
                  const struct sync_ops *ops, journal_mark_fn mark, void *ctx, struct journal **out)
{
    struct journal *j = calloc(1, sizeof(*j));
    int rc = -ENOMEM;

    if (!j)
        return rc;
    j->fd = -1;
    j->dir = dir;
    j->bound = bound;
    j->segment = segment;
    j->seq = j->synced = next_seq - 1;
    j->mark = mark;
    j->mark_ctx = ctx;
    if (ops)
        j->sync_ops = *ops;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->synced_cond, NULL);
    j->buffer = malloc(BUFFER_SIZE);
    if (!j->buffer)
        goto fail;
    rc = segment_create(dir, segment, &j->sync_ops);
    if (rc < 0)
        goto fail;
    j->fd = rc;
    *out = j;
    return 0;
fail:
    journal_stop(j);
    return rc;
}

void journal_stop(struct journal *j)
{
    if (!j)
        return;
    if (j->fd >= 0)
        close(j->fd);
    pthread_cond_destroy(&j->synced_cond);
    pthread_mutex_destroy(&j->lock);
    free(j->buffer);
    free(j);
}

/* If it fails, the file grows by the write itself. */
static bool allocate(struct journal *j, uint64_t end)
{
    if (end > j->allocated && fallocate(j->fd, 0, (off_t)j->allocated, ALLOCATE_STEP) == 0)
        j->allocated += ALLOCATE_STEP;
    return end <= j->allocated;
}

/* The buffer's first bytes to the end of what was written. All or nothing; the lock is held. */
static int write_whole(struct journal *j, size_t size)
{
    uint64_t start = j->size - j->pending;
    size_t done = 0;
    int rc = fault("node.journal");

    (void)allocate(j, start + size);
    while (rc == 0 && done < size) {
        ssize_t n = pwrite(j->fd, j->buffer + done, size - done, (off_t)(start + done));
        if (n < 0 && errno != EINTR)
            rc = -errno;
        else if (n > 0)
            done += (size_t)n;
        else if (n == 0)
            rc = -EIO;
    }
    if (rc < 0 && done > 0) {
        if (ftruncate(j->fd, (off_t)start) < 0)
            j->broken = true;
        j->allocated = start;
    } else if (start + size > j->allocated) {
        j->allocated = start + size;
    }
    return rc;
}

/* If it fails, what waited goes on waiting. The lock is held. */
static int push(struct journal *j)
{
    int rc = j->broken ? -EIO : 0;

    if (rc == 0 && j->pending > 0)
        rc = write_whole(j, j->pending);
    if (rc == 0)
        j->pending = 0;
    return rc;
}

int journal_push(struct journal *j)
{
    pthread_mutex_lock(&j->lock);
    int rc = push(j);
    pthread_mutex_unlock(&j->lock);
    return rc;
}

int journal_append(struct journal *j, const struct record *records, unsigned n,
                   enum journal_when when, uint64_t *seq)
{
    size_t size = 0;

    for (unsigned i = 0; i < n; i++) {
        if (records[i].length > JOURNAL_BODY_MAX)
            return -EMSGSIZE;
        size += record_size(records[i].length);
    }
    if (size > BUFFER_SIZE)
        return -EMSGSIZE;
    pthread_mutex_lock(&j->lock);
    int rc = j->pending + size > BUFFER_SIZE || j->broken ? push(j) : 0;
    if (rc == 0 && j->size + size > j->bound)
        rc = -ENOSPC;
    if (rc < 0)
        goto out;
    uint8_t *at = j->buffer + j->pending;
    for (unsigned i = 0; i < n; i++) {
        record_put(at, j->segment, j->seq + 1 + i, j->synced, &records[i]);
        at += record_size(records[i].length);
    }
    bool waits = when == JOURNAL_LATER && allocate(j, j->size + size);
    if (!waits)
        rc = write_whole(j, j->pending + size);
    if (rc < 0)
        goto out;
    j->pending = waits ? j->pending + size : 0;
    j->size += size;
    j->seq += n;
    *seq = j->seq;
out:
    pthread_mutex_unlock(&j->lock);
    return rc;
}

/* The lock is held, and dropped during the sync. */
static int sync_once(struct journal *j, struct journal_mark *mark)
{
    uint64_t target = j->seq;
    int fd = j->fd; /* rotation waits for `syncing` */

    mark->segment = j->segment;
    mark->offset = j->size;
    j->syncing = true;
    pthread_mutex_unlock(&j->lock);
    int rc = sync_fd(&j->sync_ops, fd, true);
    pthread_mutex_lock(&j->lock);
    j->syncing = false;
    if (rc < 0)
        j->broken = true;
    else
        j->synced = target;
    pthread_cond_broadcast(&j->synced_cond);
    return rc;
}

int journal_sync(struct journal *j, uint64_t seq)
{
    struct journal_mark mark = {0, 0};
    bool marked = false;
    int rc = 0;

    pthread_mutex_lock(&j->lock);
    uint64_t wanted = seq < j->seq ? seq : j->seq;
    while (rc == 0 && j->synced < wanted) {
        if (j->broken) {
            rc = -EIO;
        } else if (j->syncing) {
            pthread_cond_wait(&j->synced_cond, &j->lock); /* for one fdatasync */
        } else {
            rc = push(j);
            if (rc == 0)
                rc = sync_once(j, &mark);
            marked = rc == 0;
        }
    }
    if (rc == 0 && j->broken)
        rc = -EIO;
    pthread_mutex_unlock(&j->lock);
    if (marked && j->mark)
        j->mark(j->mark_ctx, mark);
    return rc;
}

int journal_rotate(struct journal *j, uint64_t *segment, uint64_t *seq)
{
    /* Most of it outside the lock, so that appends wait for a short sync only. */
    int rc = journal_sync(j, UINT64_MAX);

    if (rc < 0)
        return rc;
    pthread_mutex_lock(&j->lock);
    while (j->syncing)
        pthread_cond_wait(&j->synced_cond, &j->lock);
    rc = push(j);
    if (rc < 0)
        goto out;
    rc = sync_fd(&j->sync_ops, j->fd, true);
    if (rc < 0) {
        j->broken = true;
        goto out;
    }
    j->synced = j->seq;
    int fd = segment_create(j->dir, j->segment + 1, &j->sync_ops);
    if (fd < 0) {
        rc = fd;
        goto out;
    }
    close(j->fd);
    j->fd = fd;
    j->segment++;
    j->size = j->allocated = 0;
    *segment = j->segment;
    *seq = j->seq;
out:
    pthread_mutex_unlock(&j->lock);
    return rc;
}

void journal_set_bound(struct journal *j, uint64_t bound)
{
    pthread_mutex_lock(&j->lock);
    j->bound = bound;
    pthread_mutex_unlock(&j->lock);
}

struct journal_mark journal_end(struct journal *j)
{
    pthread_mutex_lock(&j->lock);
    struct journal_mark end = {j->segment, j->size};
    pthread_mutex_unlock(&j->lock);
    return end;
}

uint64_t journal_size(struct journal *j)
{
    return journal_end(j).offset;
}

uint64_t journal_seq(struct journal *j)
{
    pthread_mutex_lock(&j->lock);
    uint64_t seq = j->seq;
    pthread_mutex_unlock(&j->lock);
    return seq;
}

bool journal_is_broken(struct journal *j)
{
    pthread_mutex_lock(&j->lock);
    bool broken = j->broken;
    pthread_mutex_unlock(&j->lock);
    return broken;
}
