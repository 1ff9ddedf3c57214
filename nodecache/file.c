/* The table of files: look-up, order of use, open descriptors. */
#include "nodecache/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utlist.h>

#include "control/wire/clock.h"
#include "control/wire/fault.h"

static struct shard *shard_of(struct table *t, uint64_t ino)
{
    return &t->shards[(ino ^ (ino >> 16)) % FILE_SHARDS];
}

int table_init(struct table *t, int files_dir, unsigned fds_max)
{
    memset(t, 0, sizeof(*t));
    t->files_dir = files_dir;
    t->fds_per_shard = fds_max / FILE_SHARDS > 4 ? fds_max / FILE_SHARDS : 4;
    for (unsigned i = 0; i < FILE_SHARDS; i++)
        pthread_mutex_init(&t->shards[i].lock, NULL);
    return 0;
}

static void file_free(struct file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    ranges_clear(&f->present);
    ranges_clear(&f->staged);
    ranges_clear(&f->synced);
    sums_clear(&f->sums);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void table_destroy(struct table *t)
{
    for (unsigned i = 0; i < FILE_SHARDS; i++) {
        struct shard *s = &t->shards[i];
        struct file *f, *next;
        HASH_ITER (hh, s->files, f, next) {
            HASH_DEL(s->files, f);
            file_free(f);
        }
        pthread_mutex_destroy(&s->lock);
    }
}

static struct file *file_new(uint64_t ino)
{
    struct file *f = calloc(1, sizeof(*f));

    if (!f)
        return NULL;
    f->ino = ino;
    f->fd = -1;
    f->base_limit = LIMIT_NONE;
    atomic_init(&f->refs, 1); /* the table's */
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    return f;
}

static struct file *look_up(struct table *t, uint64_t ino, bool create)
{
    struct shard *s = shard_of(t, ino);
    struct file *f;

    pthread_mutex_lock(&s->lock);
    HASH_FIND(hh, s->files, &ino, sizeof(ino), f);
    if (!f && create) {
        f = file_new(ino);
        if (!f)
            goto out;
        HASH_ADD(hh, s->files, ino, sizeof(ino), f);
        DL_PREPEND2(s->lru, f, lru_prev, lru_next);
        atomic_fetch_add(&t->count, 1);
    } else if (f && s->lru != f) {
        DL_DELETE2(s->lru, f, lru_prev, lru_next);
        DL_PREPEND2(s->lru, f, lru_prev, lru_next);
    }
    if (f) {
        atomic_store_explicit(&f->used_at, clock_boot_ms(), memory_order_relaxed);
        atomic_fetch_add(&f->refs, 1);
    }
out:
    pthread_mutex_unlock(&s->lock);
    return f;
}

struct file *file_find(struct table *t, uint64_t ino)
{
    return look_up(t, ino, false);
}

struct file *file_peek(struct table *t, uint64_t ino)
{
    struct shard *s = shard_of(t, ino);
    struct file *f;

    pthread_mutex_lock(&s->lock);
    HASH_FIND(hh, s->files, &ino, sizeof(ino), f);
    if (f)
        file_ref(f);
    pthread_mutex_unlock(&s->lock);
    return f;
}

struct file *file_get(struct table *t, uint64_t ino)
{
    return look_up(t, ino, true);
}

struct file *file_ref(struct file *f)
{
    atomic_fetch_add(&f->refs, 1);
    return f;
}

void file_unref(struct file *f)
{
    if (f && atomic_fetch_sub(&f->refs, 1) == 1)
        file_free(f);
}

void file_forget(struct table *t, struct file *f)
{
    struct shard *s = shard_of(t, f->ino);

    file_close_fd(t, f);
    pthread_mutex_lock(&s->lock);
    HASH_DEL(s->files, f);
    DL_DELETE2(s->lru, f, lru_prev, lru_next);
    atomic_store(&f->forgotten, true);
    pthread_mutex_unlock(&s->lock);
    f->gone = true;
    atomic_fetch_sub(&t->count, 1);
    pthread_cond_broadcast(&f->changed);
    file_unref(f); /* the caller has one of its own */
}

struct file *file_oldest(struct table *t, int64_t round)
{
    struct file *best = NULL;
    int64_t best_at = INT64_MAX;

    for (unsigned i = 0; i < FILE_SHARDS; i++) {
        struct shard *s = &t->shards[i];
        struct file *old = NULL;
        pthread_mutex_lock(&s->lock);
        struct file *f = s->lru ? s->lru->lru_prev : NULL;
        int64_t at = f ? atomic_load_explicit(&f->used_at, memory_order_relaxed) : INT64_MAX;
        if (f && f->looked_at < round && at < best_at) {
            old = best;
            best = file_ref(f);
            best_at = at;
        }
        pthread_mutex_unlock(&s->lock);
        file_unref(old);
    }
    return best;
}

void file_looked_at(struct table *t, struct file *f, int64_t round)
{
    struct shard *s = shard_of(t, f->ino);

    pthread_mutex_lock(&s->lock);
    /* Unlinked meanwhile: then it is in no list. */
    if (!atomic_load(&f->forgotten)) {
        DL_DELETE2(s->lru, f, lru_prev, lru_next);
        DL_PREPEND2(s->lru, f, lru_prev, lru_next);
        f->looked_at = round;
    }
    pthread_mutex_unlock(&s->lock);
}

int shard_inos(struct shard *s, uint64_t **inos, size_t *count)
{
    struct file *f, *next;
    size_t n = 0;
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    uint64_t *list = malloc((HASH_COUNT(s->files) + 1) * sizeof(uint64_t));
    if (!list) {
        rc = -ENOMEM;
        goto out;
    }
    HASH_ITER (hh, s->files, f, next)
        list[n++] = f->ino;
    *inos = list;
    *count = n;
out:
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void file_path(char out[32], uint64_t ino)
{
    snprintf(out, 32, "%02x/%" PRIu64, (unsigned)(ino & 0xff), ino);
}

/* Closes one descriptor that is not in use: a clock hand with a second chance. The shard's lock is
 * held. A file's lock comes before the shard's, so it is only tried. */
static void close_one(struct shard *s)
{
    for (unsigned tries = 2 * s->open_fds; tries > 0 && s->fds; tries--) {
        struct file *f = s->fds;
        DL_DELETE2(s->fds, f, fd_prev, fd_next);
        DL_APPEND2(s->fds, f, fd_prev, fd_next);
        if (atomic_exchange(&f->fd_hot, false) || pthread_mutex_trylock(&f->lock) != 0)
            continue;
        bool idle = f->fd_users == 0 && f->fd >= 0;
        if (idle) {
            close(f->fd);
            f->fd = -1;
            DL_DELETE2(s->fds, f, fd_prev, fd_next);
            s->open_fds--;
        }
        pthread_mutex_unlock(&f->lock);
        if (idle)
            return;
    }
}

static int open_flat(struct table *t, struct file *f, bool create)
{
    char path[32];
    int rc = fault("node.open");

    if (rc < 0)
        return rc;
    file_path(path, f->ino);
    int flags = O_RDWR | O_CLOEXEC | O_NOATIME | O_NOFOLLOW;
    int fd = openat(t->files_dir, path, create ? flags | O_CREAT : flags, 0600);
    if (fd < 0 && errno == EPERM)
        fd = openat(t->files_dir, path, (create ? flags | O_CREAT : flags) & ~O_NOATIME, 0600);
    return fd < 0 ? -errno : fd;
}

int file_fd(struct table *t, struct file *f, bool create)
{
    if (f->fd >= 0) {
        atomic_store_explicit(&f->fd_hot, true, memory_order_relaxed);
        return f->fd;
    }
    if (!f->has_file && !create)
        return -ENOENT;
    int fd = open_flat(t, f, create);
    if (fd < 0)
        return fd;
    if (!f->has_file) {
        f->has_file = true;
        f->name_synced = false;
    }
    struct shard *s = shard_of(t, f->ino);
    pthread_mutex_lock(&s->lock);
    if (s->open_fds >= t->fds_per_shard)
        close_one(s);
    f->fd = fd;
    DL_APPEND2(s->fds, f, fd_prev, fd_next);
    s->open_fds++;
    pthread_mutex_unlock(&s->lock);
    return fd;
}

void file_close_fd(struct table *t, struct file *f)
{
    struct shard *s = shard_of(t, f->ino);

    if (f->fd < 0)
        return;
    pthread_mutex_lock(&s->lock);
    DL_DELETE2(s->fds, f, fd_prev, fd_next);
    s->open_fds--;
    pthread_mutex_unlock(&s->lock);
    if (f->fd_users == 0) {
        close(f->fd);
        f->fd = -1;
    }
    /* else the last user's reference frees the file, and that closes it */
}

int file_unlink(struct table *t, struct file *f)
{
    char path[32];

    if (!f->has_file)
        return 0;
    file_path(path, f->ino);
    if (unlinkat(t->files_dir, path, 0) < 0 && errno != ENOENT)
        return -errno;
    f->has_file = false;
    f->name_synced = false;
    return 0;
}

uint64_t file_charge(const struct file *f)
{
    uint64_t ranges = (uint64_t)f->present.count + f->staged.count + f->synced.count;

    return FILE_CHARGE + ranges * RANGE_CHARGE + f->sums.count * SUM_CHARGE +
           ranges_blocks(&f->present, 0, ranges_end(&f->present), SPACE_BLOCK) * SPACE_BLOCK;
}

void file_attrs(const struct file *f, struct attrs *out)
{
    *out = (struct attrs){.ino = f->ino,
                          .size = f->size,
                          .version = f->version,
                          .home_epoch = f->home_epoch,
                          .bytes = f->present.total,
                          .mtime = f->mtime,
                          .ctime = f->ctime};
}

bool file_dirty(const struct file *f)
{
    return f->staged.count > 0 || (f->is_home && f->mapped && f->base_limit != LIMIT_NONE);
}
