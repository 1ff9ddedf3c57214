/* Opening and closing the store, and what all its parts share. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utlist.h>

#include "control/wire/clock.h"
#include "nodecache/store_private.h"

/* ---- what all parts share ---- */

void store_say(struct store *s, const char *format, ...)
{
    char line[512];
    va_list args;

    if (!s->options.say)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    s->options.say(s->options.say_ctx, line);
}

int store_failed(struct store *s, int rc, const char *what, uint64_t ino)
{
    bool fresh;

    if (rc != -EIO && rc != -ENOSPC && rc != -EROFS && rc != -EDQUOT && rc != -EMFILE &&
        rc != -ENFILE)
        return rc;
    pthread_mutex_lock(&s->error_lock);
    fresh = s->error_at == 0 || clock_boot_ms() - s->error_at > STORE_ERROR_MS;
    snprintf(s->error, sizeof(s->error), "%s (inode %" PRIu64 "): %s", what, ino, strerror(-rc));
    s->error_at = clock_boot_ms();
    pthread_mutex_unlock(&s->error_lock);
    if (fresh)
        store_say(s, "the store's disk: %s (inode %" PRIu64 "): %s", what, ino, strerror(-rc));
    return rc;
}

void store_error(struct store *s, char out[NODE_DETAIL])
{
    pthread_mutex_lock(&s->error_lock);
    bool recent = s->error_at != 0 && clock_boot_ms() - s->error_at <= STORE_ERROR_MS;
    snprintf(out, NODE_DETAIL, "%s", recent ? s->error : "");
    pthread_mutex_unlock(&s->error_lock);
}

void store_damaged(struct store *s, uint64_t ino, const char *detail)
{
    store_say(s, "inode %" PRIu64 ": %s", ino, detail);
    pthread_mutex_lock(&s->error_lock);
    if (s->damage_n < STORE_DAMAGE_MAX)
        snprintf(s->damage[s->damage_n++], NODE_DETAIL, "inode %" PRIu64 ": %.200s", ino, detail);
    pthread_mutex_unlock(&s->error_lock);
}

unsigned store_take_damage(struct store *s, char out[STORE_DAMAGE_MAX][NODE_DETAIL])
{
    pthread_mutex_lock(&s->error_lock);
    unsigned n = s->damage_n;
    memcpy(out, s->damage, sizeof(s->damage));
    s->damage_n = 0;
    pthread_mutex_unlock(&s->error_lock);
    return n;
}

void store_wait(struct file *f)
{
    struct timespec until = deadline_in(STORE_POLL_MS);

    pthread_cond_timedwait(&f->changed, &f->lock, &until);
}

static void total_move(_Atomic uint64_t *total, _Atomic uint64_t *mine, uint64_t now)
{
    uint64_t before = atomic_exchange(mine, now);

    if (now >= before)
        atomic_fetch_add(total, now - before);
    else
        atomic_fetch_sub(total, before - now);
}

static void settle_staged(struct store *s, struct file *f)
{
    bool dirty = !f->gone && file_dirty(f);

    if (dirty == f->on_staged_list)
        return;
    pthread_mutex_lock(&s->staged_lock);
    f->on_staged_list = dirty;
    if (dirty) {
        f->staged_since = clock_boot_ns();
        DL_APPEND2(s->staged, f, staged_prev, staged_next);
        file_ref(f);
    } else {
        DL_DELETE2(s->staged, f, staged_prev, staged_next);
        f->flush_due = 0;
    }
    pthread_mutex_unlock(&s->staged_lock);
    if (!dirty)
        file_unref(f);
}

void staged_again(struct store *s, struct file *f, int64_t since)
{
    pthread_mutex_lock(&s->staged_lock);
    f->staged_since = since;
    if (f->flush_due < since)
        f->flush_due = 0;
    DL_DELETE2(s->staged, f, staged_prev, staged_next);
    /* Back into order: behind the last one that is not younger. What somebody waits for stays in
     * front. */
    struct file *at = s->staged ? s->staged->staged_prev : NULL;
    while (at && at->staged_since > since && at->flush_due == 0)
        at = at == s->staged ? NULL : at->staged_prev;
    if (at && f->flush_due == 0)
        DL_APPEND_ELEM2(s->staged, at, f, staged_prev, staged_next);
    else
        DL_PREPEND2(s->staged, f, staged_prev, staged_next);
    pthread_mutex_unlock(&s->staged_lock);
}

void line_changed(struct store *s, struct file *f)
{
    if (atomic_exchange(&f->on_changed_list, true))
        return;
    file_ref(f);
    pthread_mutex_lock(&s->changed_lock);
    f->changed_next = NULL;
    *s->changed_end = f;
    s->changed_end = &f->changed_next;
    pthread_mutex_unlock(&s->changed_lock);
}

void store_settle(struct store *s, struct file *f, bool lost)
{
    total_move(&s->staged_total, &f->staged_bytes, f->gone ? 0 : f->staged.total);
    total_move(&s->present_total, &f->present_bytes, f->gone ? 0 : f->present.total);
    settle_staged(s, f);
    line_changed(s, f);
    if (lost && s->lost_kick)
        s->lost_kick(s->lost_ctx);
}

size_t store_changed_lines(struct store *s, struct copy_line *lines, size_t max)
{
    size_t n = 0;

    while (n < max) {
        pthread_mutex_lock(&s->changed_lock);
        struct file *f = s->changed;
        if (f && !(s->changed = f->changed_next))
            s->changed_end = &s->changed;
        pthread_mutex_unlock(&s->changed_lock);
        if (!f)
            break;
        atomic_store(&f->on_changed_list, false); /* before it is read: a later change counts */
        pthread_mutex_lock(&f->lock);
        uint64_t staged = f->gone ? 0 : f->staged.total;
        uint64_t present = f->gone ? 0 : f->present.total;
        bool gone = f->leaving ? staged == 0 : present == 0;
        if (!gone || !f->told_gone)
            lines[n++] = (struct copy_line){.ino = f->ino,
                                            .version = f->version,
                                            .staged = staged,
                                            .cached = f->leaving ? 0 : present - staged,
                                            .gone = gone};
        f->told_gone = gone;
        pthread_mutex_unlock(&f->lock);
        file_unref(f);
    }
    return n;
}

void store_change_all_lines(struct store *s)
{
    for (unsigned i = 0; i < FILE_SHARDS; i++) {
        uint64_t *inos = NULL;
        size_t count = 0;
        if (shard_inos(&s->table.shards[i], &inos, &count) < 0)
            continue; /* no memory: the lines follow when they change */
        for (size_t n = 0; n < count; n++) {
            struct file *f = file_peek(&s->table, inos[n]);
            if (f && atomic_load(&f->present_bytes) > 0)
                line_changed(s, f);
            file_unref(f);
        }
        free(inos);
    }
}

void store_on_lost_lines(struct store *s, void (*kick)(void *ctx), void *ctx)
{
    s->lost_ctx = ctx;
    s->lost_kick = kick;
}

void store_before_eviction(struct store *s, void (*tell)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&s->tell_lock);
    s->tell = tell;
    s->tell_ctx = ctx;
    pthread_mutex_unlock(&s->tell_lock);
}

void store_counts(struct store *s, struct store_counts *out)
{
    uint64_t staged = atomic_load(&s->staged_total), present = atomic_load(&s->present_total);

    *out = (struct store_counts){.capacity = s->options.capacity,
                                 .used = atomic_load(&s->space.used),
                                 .staged = staged,
                                 .cached = present > staged ? present - staged : 0,
                                 .files = atomic_load(&s->table.count),
                                 .read_bytes = atomic_load(&s->read_bytes),
                                 .write_bytes = atomic_load(&s->write_bytes),
                                 .fetched_bytes = atomic_load(&s->fetched_bytes),
                                 .flushed_bytes = atomic_load(&s->flushed_bytes)};
}

unsigned store_take_hot(struct store *s, struct hot_file out[HOT_TAKE_MAX])
{
    return hot_take(&s->hot, out);
}

const char *store_id(const struct store *s)
{
    return s->values.store;
}

uint64_t store_instance(const struct store *s)
{
    return s->values.instance;
}

void store_set_node(struct store *s, uint32_t node)
{
    atomic_store(&s->node, node);
}

uint32_t store_node(const struct store *s)
{
    return atomic_load(&((struct store *)s)->node);
}

void store_set_water(struct store *s, uint64_t high, uint64_t low, uint64_t flush_age)
{
    if (high > 0 && high <= 100 && low < high) {
        atomic_store(&s->space.high, s->options.capacity / 100 * high);
        atomic_store(&s->low_bytes, s->options.capacity / 100 * low);
    }
    if (flush_age > 0 && flush_age < UINT32_MAX)
        atomic_store(&s->flush_age_ms, flush_age * 1000);
}

void store_set_pool_free(struct store *s, uint64_t bytes)
{
    atomic_store(&s->pool_free, bytes);
}

void store_set_closed(struct store *s, bool closed)
{
    atomic_store(&s->closed, closed);
}

/* ---- opening ---- */

/* Until the centre says otherwise. */
#define DEFAULT_HIGH_WATER 80
#define DEFAULT_LOW_WATER  60
#define DEFAULT_FLUSH_AGE  30

static int open_dir(int at, const char *name)
{
    if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int open_dirs(struct store *s, char *detail)
{
    struct {
        int *fd;
        const char *name;
    } all[] = {{&s->index_dir, "index"},
               {&s->files_dir, "files"},
               {&s->cuts_dir, "cuts"},
               {&s->lost_dir, "lost"}};

    s->dir = open_dir(AT_FDCWD, s->options.dir);
    if (s->dir < 0)
        goto fail;
    for (unsigned i = 0; i < 4; i++) {
        *all[i].fd = open_dir(s->dir, all[i].name);
        if (*all[i].fd < 0)
            goto fail;
    }
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%02x", i);
        if (mkdirat(s->files_dir, name, 0700) < 0 && errno != EEXIST)
            goto fail;
    }
    s->lock_fd = openat(s->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        goto fail;
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        snprintf(detail, NODE_DETAIL, "another process uses the store %s", s->options.dir);
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    }
    return 0;
fail:;
    int rc = -errno;
    snprintf(detail, NODE_DETAIL, "the store %s: %s", s->options.dir, strerror(-rc));
    return rc;
}

static void pressure(void *ctx)
{
    store_kick_upkeep(ctx);
}

static unsigned fds_max(void)
{
    struct rlimit limit;

    /* Half for flat files, the rest for connections and the pool. */
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 256;
    return limit.rlim_cur / 2 < STORE_FDS_MAX ? (unsigned)(limit.rlim_cur / 2) : STORE_FDS_MAX;
}

static void store_free(struct store *s)
{
    int *fds[] = {&s->index_dir, &s->files_dir, &s->cuts_dir, &s->lost_dir, &s->lock_fd, &s->dir};

    index_close(&s->index);
    mark_close(s->mark);
    while (s->changed) {
        struct file *f = s->changed;
        s->changed = f->changed_next;
        file_unref(f);
    }
    while (s->staged) {
        struct file *f = s->staged;
        DL_DELETE2(s->staged, f, staged_prev, staged_next);
        file_unref(f);
    }
    table_destroy(&s->table);
    maps_destroy(&s->maps);
    for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
    }
    space_destroy(&s->space);
    pthread_mutex_destroy(&s->staged_lock);
    pthread_mutex_destroy(&s->changed_lock);
    pthread_mutex_destroy(&s->tell_lock);
    pthread_mutex_destroy(&s->error_lock);
    hot_destroy(&s->hot);
    pthread_mutex_destroy(&s->upkeep_lock);
    pthread_cond_destroy(&s->upkeep_cond);
    free(s);
}

static struct store *store_new(const struct store_options *options)
{
    struct store *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->options = *options;
    if (s->options.space_deadline_ms <= 0)
        s->options.space_deadline_ms = NODE_SPACE_DEADLINE_MS;
    snprintf(s->boot_id, sizeof(s->boot_id), "%s", options->boot_id);
    s->changed_end = &s->changed;
    s->dir = s->lock_fd = s->index_dir = s->files_dir = s->cuts_dir = s->lost_dir = -1;
    space_init(&s->space, options->capacity, pressure, s);
    maps_init(&s->maps);
    pthread_mutex_init(&s->staged_lock, NULL);
    pthread_mutex_init(&s->changed_lock, NULL);
    pthread_mutex_init(&s->tell_lock, NULL);
    pthread_mutex_init(&s->error_lock, NULL);
    hot_init(&s->hot);
    pthread_mutex_init(&s->upkeep_lock, NULL);
    pthread_cond_init(&s->upkeep_cond, NULL);
    store_set_water(s, DEFAULT_HIGH_WATER, DEFAULT_LOW_WATER, DEFAULT_FLUSH_AGE);
    return s;
}

/* Opens or makes the mark. *first: an empty store, whose mark is made when all else stands. */
static int open_mark(struct store *s, bool *first, char *detail)
{
    int rc = mark_open(s->dir, false, &s->options.sync, &s->values, &s->mark, detail);

    *first = rc == -ENOENT;
    if (rc != -ENOENT)
        return rc;
    if (faccessat(s->index_dir, "checkpoint", F_OK, 0) == 0 &&
        faccessat(s->index_dir, "journal.3", F_OK, 0) == 0) {
        snprintf(detail, NODE_DETAIL, "the store's mark is missing");
        return -EBADMSG;
    }
    snprintf(s->values.store, sizeof(s->values.store), "%016" PRIx64 "%016" PRIx64, random_id(),
             random_id());
    s->values.instance = random_id();
    return 0;
}

int store_open(const struct store_options *options, struct store **out, char detail[NODE_DETAIL])
{
    bool first;
    int rc;
    struct store *s = store_new(options);

    detail[0] = 0;
    if (!s)
        return -ENOMEM;
    table_init(&s->table, -1, fds_max());
    rc = open_dirs(s, detail);
    if (rc < 0)
        goto fail;
    s->table.files_dir = s->files_dir;
    s->index.dir = s->index_dir;
    s->index.sync_ops = options->sync;
    s->index.bound = index_bound(options->capacity);
    space_force(&s->space, index_base_charge(s->index.bound));
    rc = open_mark(s, &first, detail);
    if (rc == 0)
        rc = recover(s, first, detail);
    if (rc == 0)
        rc = fetcher_start(s);
    if (rc == 0)
        rc = upkeep_start(s);
    if (rc < 0)
        goto fail;
    *out = s;
    return 0;
fail:
    if (!detail[0])
        snprintf(detail, NODE_DETAIL, "the store %s: %s", options->dir, strerror(-rc));
    fetcher_stop(s);
    store_free(s);
    return rc;
}

static int close_cleanly(struct store *s)
{
    char detail[NODE_DETAIL];
    int rc = syncfs(s->dir) < 0 ? -errno : 0;

    if (rc == 0)
        rc = index_checkpoint(&s->index, &s->table, detail);
    if (rc == 0)
        rc = journal_sync(s->index.journal, UINT64_MAX);
    if (rc < 0)
        return rc;
    s->values.clean = true;
    s->values.journal = journal_end(s->index.journal);
    return mark_set(s->mark, &s->values, true);
}

int store_close(struct store *s, bool clean)
{
    int rc = 0;

    if (!s)
        return 0;
    atomic_store(&s->stopping, true);
    upkeep_stop(s);
    fetcher_stop(s);
    if (clean)
        rc = close_cleanly(s);
    store_free(s);
    return rc;
}

/* ---- its end ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path) < 0 && errno != ENOENT ? errno : 0;
}

int store_remove(const char *dir)
{
    /* The mark goes first: without it nobody takes the rest for a store. */
    static const char *const parts[] = {"mark", "index", "cuts", "files", "jobs", "lock"};
    char path[PATH_MAX];
    int first = 0;

    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        int rc = 0;
        if (snprintf(path, sizeof(path), "%s/%s", dir, parts[i]) >= (int)sizeof(path))
            return -ENAMETOOLONG;
        if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
            rc = errno ? -errno : -EIO;
        if (rc < 0 && rc != -ENOENT && first == 0)
            first = rc;
    }
    snprintf(path, sizeof(path), "%s/lost", dir);
    if (rmdir(path) < 0 && errno != ENOTEMPTY && errno != EEXIST && errno != ENOENT && first == 0)
        first = -errno;
    return first;
}
