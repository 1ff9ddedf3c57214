/* Giving room back: clean data that was not used for long, rows of files without data, dropped
 * inodes. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "nodecache/clean.h"
#include "nodecache/cut.h"

/* Between looks at rows when nothing else can go. */
#define ROWS_LOOK_MS 1000
/* Files that go with one word to the centre, which costs an entry of its log; and files looked at
 * before a checkpoint that is due. */
#define EVICT_BATCH 256

int discard_clean(struct store *s, struct file *f, uint64_t start, uint64_t end)
{
    struct range clean;
    int rc = 0;

    while (rc == 0 && clean_next(f, start, end, &clean)) {
        rc = index_discard(&s->index, f, clean.start, clean.end);
        start = clean.end;
    }
    return rc;
}

static bool busy(const struct file *f)
{
    return f->cut || f->fetches || f->fd_users > 0;
}

static bool has_clean_bytes(const struct file *f)
{
    return f->present.total > f->staged.total;
}

int evict_clean(struct store *s, struct file *f, uint64_t *bytes)
{
    uint64_t before = f->present.total, end = ranges_end(&f->present);
    struct charge c;
    int rc;

    if (busy(f))
        return -EBUSY;
    if (!has_clean_bytes(f))
        return 0;
    /* The word that these bytes are clean is on the disk before they go: else a crash of the
     * machine would take them for staged. One sync does for all that was flushed before it. */
    rc = f->is_home ? journal_sync(s->index.journal, f->seq) : 0;
    if (rc < 0)
        return store_failed(s, rc, "eviction", f->ino);
    charge_begin(&c, f, 0, end, 0);
    rc = discard_clean(s, f, 0, end);
    if (rc == 0 && f->present.count == 0) {
        file_close_fd(&s->table, f);
        rc = file_unlink(&s->table, f);
    } else if (rc == 0) {
        rc = change_punch(s, f, 0, end);
    }
    charge_end(s, &c, f);
    store_settle(s, f, true);
    *bytes += before - f->present.total;
    return rc < 0 ? store_failed(s, rc, "eviction", f->ino) : 0;
}

/* A row that says nothing which the centre does not know. */
static bool forgettable(struct store *s, const struct file *f)
{
    bool idle = clock_boot_ms() - atomic_load(&f->used_at) > ROW_IDLE_MS;

    return f->present.count == 0 && !file_dirty(f) && !f->cut && !f->fetches && !f->doubt &&
           f->fd_users == 0 && (!f->is_home || f->logged_version >= f->version) &&
           (idle || atomic_load(&s->table.count) > FILES_MAX / 2);
}

static int forget(struct store *s, struct file *f)
{
    uint64_t max = atomic_load(&s->forgotten_max);
    int rc = index_forget(&s->index, f);

    if (rc < 0)
        return rc;
    while (f->ino > max && !atomic_compare_exchange_weak(&s->forgotten_max, &max, f->ino))
        ;
    rc = file_unlink(&s->table, f);
    space_give(&s->space, f->charge);
    f->charge = 0;
    maps_forget(&s->maps, f->ino);
    file_forget(&s->table, f);
    store_settle(s, f, false);
    return rc;
}

/* Nothing is clean: only rows could go, and looking at all of them is not worth it each time. */
static bool only_rows(struct store *s)
{
    return atomic_load(&s->present_total) == atomic_load(&s->staged_total) &&
           atomic_load(&s->table.count) <= FILES_MAX / 2;
}

void evict_for_room(struct store *s, uint64_t target)
{
    int64_t now = clock_boot_ms();

    if (only_rows(s) && now - s->rows_looked_at < ROWS_LOOK_MS)
        return;
    s->rows_looked_at = now;
    evict_down_to(s, target, true);
}

/* --- two steps: the cache table first, so that nobody is sent here for what goes --- */

struct batch {
    struct file *files[EVICT_BATCH]; /* referenced */
    unsigned n;
    uint64_t bytes; /* that will go */
};

/* f->lock is held, f is referenced for the batch. */
static void batch_add(struct store *s, struct batch *b, struct file *f)
{
    f->leaving = true;
    line_changed(s, f);
    b->bytes += f->present.total - f->staged.total;
    b->files[b->n++] = f;
}

static void tell_centre(struct store *s)
{
    pthread_mutex_lock(&s->tell_lock);
    if (s->tell)
        s->tell(s->tell_ctx);
    pthread_mutex_unlock(&s->tell_lock);
}

/* Who has used the file meanwhile has found its bytes, and made it stay. */
static int batch_evict(struct store *s, struct batch *b, uint64_t *bytes)
{
    int rc = 0;

    if (b->n > 0)
        tell_centre(s);
    for (unsigned i = 0; i < b->n; i++) {
        struct file *f = b->files[i];
        pthread_mutex_lock(&f->lock);
        int one = !f->leaving || f->gone ? 0 : evict_clean(s, f, bytes);
        if (f->leaving && has_clean_bytes(f))
            line_changed(s, f); /* they are still here */
        f->leaving = false;
        if (!f->gone && forgettable(s, f))
            (void)forget(s, f); /* fails: the row just stays */
        admit_unlock(f);
        rc = rc < 0 ? rc : one;
    }
    b->n = 0;
    b->bytes = 0;
    return rc;
}

static bool more_must_go(struct store *s, const struct batch *b, uint64_t target)
{
    uint64_t used = atomic_load(&s->space.used);

    return used > target + b->bytes || atomic_load(&s->table.count) > FILES_MAX / 2 + b->n;
}

/* Fills the batch with what was not used for long. false: there is no more, or a checkpoint is due.
 */
static bool batch_fill(struct store *s, struct batch *b, uint64_t target, bool in_turns,
                       int64_t round)
{
    unsigned looked = 0;

    while (b->n < EVICT_BATCH && more_must_go(s, b, target)) {
        if (in_turns && ++looked > EVICT_BATCH && index_wants_checkpoint(&s->index))
            return false; /* writers may be waiting for that */
        struct file *f = file_oldest(&s->table, round);
        if (!f)
            return false;
        pthread_mutex_lock(&f->lock);
        bool leaves = !f->gone && !busy(f) && has_clean_bytes(f);
        if (leaves)
            batch_add(s, b, f);
        else if (!f->gone && forgettable(s, f))
            (void)forget(s, f); /* fails: the row just stays */
        pthread_mutex_unlock(&f->lock);
        file_looked_at(&s->table, f, round);
        if (!leaves)
            file_unref(f);
    }
    return true;
}

void evict_down_to(struct store *s, uint64_t target, bool in_turns)
{
    struct batch *b = calloc(1, sizeof(*b));
    int64_t round = clock_boot_ns();
    uint64_t bytes = 0;
    bool more = b != NULL;

    while (more && !atomic_load(&s->stopping) && more_must_go(s, b, target)) {
        more = batch_fill(s, b, target, in_turns, round);
        (void)batch_evict(s, b, &bytes); /* errors were noted; -EBUSY: another time */
    }
    free(b);
}

int store_evict(struct store *s, uint64_t ino, uint64_t *bytes)
{
    struct batch *b;
    struct file *f;
    int rc = 0;

    if (ino == 0) {
        evict_down_to(s, 0, false);
        return 0;
    }
    f = file_peek(&s->table, ino);
    if (!f)
        return 0;
    b = calloc(1, sizeof(*b));
    pthread_mutex_lock(&f->lock);
    if (!b)
        rc = -ENOMEM;
    else if (!f->gone && busy(f))
        rc = -EBUSY;
    else if (!f->gone && has_clean_bytes(f))
        batch_add(s, b, file_ref(f));
    admit_unlock(f);
    if (rc == 0)
        rc = batch_evict(s, b, bytes);
    free(b);
    return rc;
}

/* A second name for the flat file. -EALREADY: it has one, of an attempt that did not get through.
 */
static int link_lost(struct store *s, struct file *f, const char *from, char to[64])
{
    struct stat mine, named;
    int n = snprintf(to, 64, "%" PRIu64 ".epoch%" PRIu64, f->ino, f->home_epoch);

    if (linkat(s->files_dir, from, s->lost_dir, to, 0) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    if (fstatat(s->files_dir, from, &mine, AT_SYMLINK_NOFOLLOW) < 0 ||
        fstatat(s->lost_dir, to, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (mine.st_ino == named.st_ino)
        return -EALREADY;
    snprintf(to + n, 64 - (size_t)n, ".%016" PRIx64, random_id());
    return linkat(s->files_dir, from, s->lost_dir, to, 0) < 0 ? -errno : 0;
}

int set_aside(struct store *s, struct file *f)
{
    char from[32], to[64];

    if (!f->has_file)
        return 0;
    file_path(from, f->ino);
    int rc = link_lost(s, f, from, to);
    if (rc < 0)
        return rc == -EALREADY ? 0 : rc;
    store_say(s,
              "inode %" PRIu64 ": its home is elsewhere now; %" PRIu64
              " staged bytes of epoch %" PRIu64 " are kept in lost/%s",
              f->ino, f->staged.total, f->home_epoch, to);
    /* Its blocks stay on the disk, so they stay charged. */
    space_force(&s->space,
                ranges_blocks(&f->present, 0, ranges_end(&f->present), SPACE_BLOCK) * SPACE_BLOCK);
    return 0;
}

int drop_locked(struct store *s, struct file *f, bool deleted)
{
    int rc = 0;

    if (f->cut)
        cut_cancel(f);
    for (struct fetching *i = f->fetches; i; i = i->next)
        i->poisoned_all = true;
    if (!deleted && f->staged.count > 0)
        rc = set_aside(s, f);
    if (rc == 0)
        rc = forget(s, f);
    return rc < 0 ? store_failed(s, rc, "drop", f->ino) : 0;
}

int store_drop(struct store *s, uint64_t ino, bool deleted)
{
    struct file *f = file_peek(&s->table, ino);
    int rc = 0;

    maps_forget(&s->maps, ino);
    if (!f)
        return 0;
    pthread_mutex_lock(&f->lock);
    if (!f->gone)
        rc = drop_locked(s, f, deleted);
    admit_unlock(f);
    return rc;
}
