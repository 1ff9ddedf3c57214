/* From what a start finds on the disk to a store in order: replay, what a crash of the machine
 * took, the folder of flat files against the index, a fresh checkpoint. Then, with the centre: what
 * is in doubt. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "nodecache/clean.h"

static void on_sync(void *ctx, struct journal_mark mark)
{
    struct store *s = ctx;

    if (s->mark && mark_set_journal(s->mark, mark) < 0)
        store_say(s, "the store's mark cannot be written");
}

/* Calls fn for each file of the table, alone in the world. */
static int for_each(struct store *s, int (*fn)(struct store *s, struct file *f, char *detail),
                    char *detail)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < FILE_SHARDS; i++) {
        uint64_t *inos = NULL;
        size_t count = 0;
        rc = shard_inos(&s->table.shards[i], &inos, &count);
        for (size_t n = 0; rc == 0 && n < count; n++) {
            struct file *f = file_peek(&s->table, inos[n]);
            if (f)
                rc = fn(s, f, detail);
            file_unref(f);
        }
        free(inos);
    }
    return rc;
}

static int lose_power(struct store *s, struct file *f, char *detail)
{
    (void)detail;
    if (!f->is_home) {
        file_forget(&s->table, f); /* clean data only, and that may not have reached the disk */
        return 0;
    }
    return index_power_loss(f);
}

/* Takes blocks from the flat file that the index does not know of. */
static int trim(struct store *s, struct file *f, const struct stat *st)
{
    uint64_t known = ranges_blocks(&f->present, 0, ranges_end(&f->present), SPACE_BLOCK);
    int rc = 0;

    if ((uint64_t)st->st_blocks * 512 > known * SPACE_BLOCK)
        rc = change_punch(s, f, 0, (uint64_t)st->st_size);
    file_close_fd(&s->table, f);
    return rc;
}

/* The flat file against the index. */
static int check_file(struct store *s, struct file *f, char *detail)
{
    struct stat st;
    char path[32];
    int rc = clean_recover(f);

    if (rc < 0)
        return rc;
    f->charge = file_charge(f);
    space_force(&s->space, f->charge);
    file_path(path, f->ino);
    if (fstatat(s->files_dir, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            return -errno;
        st = (struct stat){0};
    } else {
        f->has_file = true;
    }
    /* It may have been given up, and the journal's word of that was lost: the centre knows. */
    if (!f->has_file && f->staged.count > 0 && s->values.tail_lost) {
        f->doubt = true;
        store_settle(s, f, false);
        return 0;
    }
    if ((uint64_t)st.st_size < ranges_end(&f->staged)) {
        snprintf(detail, NODE_DETAIL,
                 "files/%s is damaged: staged data up to byte %" PRIu64
                 ", the file ends at %" PRIu64,
                 path, ranges_end(&f->staged), (uint64_t)st.st_size);
        return -EBADMSG;
    }
    if ((uint64_t)st.st_size < ranges_end(&f->present)) {
        struct charge c;
        store_say(s, "files/%s is shorter than it was: its cached data is dropped", path);
        charge_begin(&c, f, 0, ranges_end(&f->present), 0);
        sums_drop(&f->sums, (uint64_t)st.st_size, UINT64_MAX);
        ranges_truncate(&f->present, (uint64_t)st.st_size);
        rc = clean_recover(f);
        charge_end(s, &c, f);
    }
    if (rc == 0 && f->has_file && f->present.count == 0)
        rc = file_unlink(&s->table, f);
    else if (rc == 0 && f->has_file)
        rc = trim(s, f, &st);
    store_settle(s, f, false);
    if (rc < 0)
        snprintf(detail, NODE_DETAIL, "files/%s: %s", path, strerror(-rc));
    return rc;
}

/* Removes flat files without a row: dropped, or never acknowledged. */
static int sweep_folder(struct store *s, const char *name)
{
    int fd = openat(s->files_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct dirent *e;

    if (fd < 0)
        return -errno;
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return -ENOMEM;
    }
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        char *end;
        uint64_t ino = strtoull(e->d_name, &end, 10);
        struct file *f = *end ? NULL : file_peek(&s->table, ino);
        if (!f)
            (void)unlinkat(fd, e->d_name, 0); /* stays: the next start tries again */
        file_unref(f);
    }
    closedir(d);
    return 0;
}

static int sweep(struct store *s)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < 256; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%02x", i);
        rc = sweep_folder(s, name);
    }
    return rc;
}

/* Side files of cuts that ended with the process go; what was put aside stays, and counts. */
static int side_folders(struct store *s)
{
    int dirs[] = {s->cuts_dir, s->lost_dir};

    for (unsigned i = 0; i < 2; i++) {
        int fd = openat(dirs[i], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *e;
        if (!d) {
            int rc = -errno;
            if (fd >= 0)
                close(fd);
            return rc;
        }
        while ((e = readdir(d))) {
            struct stat st;
            if (e->d_name[0] == '.')
                continue;
            if (dirs[i] == s->cuts_dir)
                (void)unlinkat(fd, e->d_name, 0);
            else if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
                space_force(&s->space, (uint64_t)st.st_blocks * 512);
        }
        closedir(d);
    }
    return 0;
}

static int finish(struct store *s, bool first, bool crashed, char *detail)
{
    struct mark_values fresh = s->values;
    int rc;

    rc = index_checkpoint(&s->index, &s->table, detail);
    if (rc < 0)
        return rc;
    if (first && syncfs(s->dir) < 0)
        return -errno;
    if (crashed)
        fresh.instance = random_id();
    fresh.clean = false;
    memcpy(fresh.boot, s->boot_id, sizeof(fresh.boot));
    fresh.journal = journal_end(s->index.journal);
    if (first)
        rc = mark_open(s->dir, true, &s->options.sync, &fresh, &s->mark, detail);
    else
        rc = mark_set(s->mark, &fresh, true);
    s->values = fresh;
    return rc;
}

int recover(struct store *s, bool first, char *detail)
{
    bool crashed = !first && !s->values.clean && strcmp(s->values.boot, s->boot_id) != 0;
    struct index_load load = {.first = first,
                              .machine_crashed = crashed,
                              .mark = s->values.journal,
                              .on_sync = on_sync,
                              .ctx = s};
    int rc;

    if (first) {
        for (uint64_t i = 0; i < 4; i++)
            (void)journal_remove(s->index_dir, i); /* of a first start that did not get through */
    }
    rc = index_open(&s->index, &s->table, &load, detail);
    if (rc < 0)
        return rc;
    if (load.torn)
        store_say(s, "the journal ended in the middle of a record, which was never acknowledged");
    s->values.tail_lost = s->values.tail_lost || crashed;
    atomic_store(&s->unsettled, s->values.tail_lost);
    if (crashed) {
        store_say(s, "the machine went down: what was not synced is dropped");
        rc = for_each(s, lose_power, detail);
    }
    if (rc == 0)
        rc = for_each(s, check_file, detail);
    if (rc == 0)
        rc = sweep(s);
    if (rc == 0)
        rc = side_folders(s);
    if (rc == 0)
        rc = finish(s, first, crashed, detail);
    /* Tickets for inodes up to here may be older than a row that was forgotten. */
    uint64_t seen = atomic_load(&s->table.max_ino);
    atomic_store(&s->forgotten_max,
                 crashed && s->values.ino_mark > seen ? s->values.ino_mark : seen);
    return rc;
}

/* ---- with the centre ---- */

/* Versions of what was lost are never given out again: mounts may have heard of some that the log
 * has not. No home makes such a jump by itself. */
#define VERSION_LOST_STEP (1ull << 32)

struct truth {
    bool gone, confirmed, mapped;
    uint64_t cut_size, cut_version, version, home_epoch;
};

/* What the log says of f: where it ends in the pool, and whether its last cut was confirmed. */
static int ask(struct store *s, const struct file *f, struct truth *t)
{
    uint64_t at = 0;
    bool more = true;

    *t = (struct truth){0};
    while (more) {
        struct map_window *w;
        int rc = maps_rest(s->options.centre, s->options.centre_ctx, f->ino, at, &w);
        if (rc < 0)
            return rc;
        t->gone = w->gone;
        t->version = w->version;
        t->cut_size = w->cut_size;
        t->cut_version = w->cut_version;
        t->home_epoch = w->home_epoch;
        for (uint32_t i = 0; i < w->count; i++) {
            const struct map_extent *e = &w->extents[i];
            /* By the pack that it came in: gc may have moved it since. */
            if (f->cut_pack != 0 && e->record / POOL_PACK_RECORDS_MAX >= f->cut_pack)
                t->confirmed = true;
            t->mapped = true;
            at = e->offset + e->length;
        }
        more = w->count > 0 && f->cut_pack != 0 && !t->confirmed;
        maps_put(w);
    }
    return 0;
}

/* Did the last cut have all that was synced? What was cut off since then is not in doubt: its
 * record is durable, and so is everything before it. A cut that was noted and not confirmed says
 * nothing of the ones before it, but noting it synced the journal: what they made clean is known.
 */
static bool overtaken(const struct file *f, const struct row *row, const struct truth *t)
{
    if (f->cut_pack != 0 && !t->confirmed)
        return false;
    return f->synced.count > 0 && t->cut_version >= f->synced_version && !row->cut_partial &&
           row->base_limit == LIMIT_NONE;
}

/* The pool has newer bytes than what is left here, which goes. f stays in doubt until all is done.
 */
static int give_way(struct store *s, struct file *f, const struct row *row)
{
    struct charge c;
    struct row first = *row;
    int rc;

    first.mapped = true;
    first.doubt = true;
    charge_begin(&c, f, 0, ranges_end(&f->present), 0);
    rc = index_row(&s->index, f, &first);
    if (rc == 0)
        rc = index_discard(&s->index, f, 0, ranges_end(&f->present));
    if (rc == 0)
        rc = journal_sync(s->index.journal, f->seq); /* before a file with synced bytes goes */
    file_close_fd(&s->table, f);
    if (rc == 0)
        rc = file_unlink(&s->table, f);
    charge_end(s, &c, f);
    return rc;
}

static int resolve(struct store *s, struct file *f, char *detail)
{
    struct truth t;
    struct charge c;
    struct row row;
    int rc = 0;

    if (!f->doubt)
        return 0;
    rc = ask(s, f, &t);
    pthread_mutex_lock(&f->lock);
    if (rc < 0)
        goto out;
    if (t.gone || t.home_epoch > f->home_epoch) {
        rc = drop_locked(s, f, t.gone);
        goto out;
    }
    if (!f->has_file && f->staged.count > 0) {
        rc = -EBADMSG;
        goto out;
    }
    row_of(f, &row);
    if (t.confirmed)
        row.base_limit = LIMIT_NONE;
    if (overtaken(f, &row, &t))
        rc = give_way(s, f, &row);
    if (rc < 0)
        goto out;
    row.cut_pack = 0;
    row.mapped = row.mapped || t.mapped;
    uint64_t end = t.cut_size < row.base_limit ? t.cut_size : row.base_limit;
    if (end > row.size)
        row.size = end;
    row.version = (t.version > row.version ? t.version : row.version) + VERSION_LOST_STEP;
    row.synced_size = row.size;
    row.synced_version = row.version;
    row.doubt = false;
    charge_begin(&c, f, 0, 0, 0);
    rc = index_row(&s->index, f, &row);
    charge_end(s, &c, f);
    store_say(s, "inode %" PRIu64 ": after the machine's crash its size is %" PRIu64, f->ino,
              row.size);
    store_settle(s, f, false);
out:
    pthread_mutex_unlock(&f->lock);
    if (rc < 0)
        snprintf(detail, NODE_DETAIL, "what a crash has left of inode %" PRIu64 ": %s", f->ino,
                 strerror(-rc));
    return rc;
}

/* f is homed here, and nothing of it in that epoch is known: it begins as an empty file in doubt.
 */
static void begin_forgotten(struct file *f, const Star__HomeAttrs *a)
{
    f->known = f->is_home = f->doubt = true;
    f->home_epoch = a->home_epoch;
    f->version = a->version;
    f->size = f->synced_size = 0;
    f->base_limit = LIMIT_NONE;
    f->cut_number = f->cut_pack = 0;
}

/* The centre has heard of this version: does the index know it? */
static int compare(struct store *s, const Star__HomeAttrs *a)
{
    struct file *f = file_get(&s->table, a->ino);
    int rc = 0;

    if (!f)
        return -ENOMEM;
    pthread_mutex_lock(&f->lock);
    if (f->known && f->home_epoch < a->home_epoch) {
        rc = drop_locked(s, f, false);
        admit_unlock(f);
        return rc < 0 ? rc : compare(s, a);
    }
    if (!f->known) {
        begin_forgotten(f, a);
    } else if (f->home_epoch == a->home_epoch && f->version < a->version) {
        f->doubt = true;
    }
    admit_unlock(f);
    return 0;
}

static int ask_homed(struct store *s)
{
    uint64_t after = 0;
    bool done = false;
    int rc = 0;

    while (rc == 0 && !done) {
        Star__HomedReply *page;
        rc = s->options.centre->homed(s->options.centre_ctx, after, &page);
        if (rc < 0)
            break;
        for (size_t i = 0; rc == 0 && i < page->n_files; i++)
            rc = compare(s, page->files[i]);
        done = page->done;
        if (rc == 0 && !done && page->last <= after)
            rc = -EPROTO;
        after = page->last;
        star__homed_reply__free_unpacked(page, NULL);
    }
    return rc;
}

int store_resolve_doubts(struct store *s, bool *news, char detail[NODE_DETAIL])
{
    int rc = 0;

    *news = s->values.tail_lost;
    if (s->values.tail_lost) {
        rc = ask_homed(s);
        if (rc < 0)
            snprintf(detail, NODE_DETAIL, "asking the centre what a crash has left: %s",
                     strerror(-rc));
    }
    if (rc == 0)
        rc = for_each(s, resolve, detail);
    if (rc == 0)
        atomic_store(&s->unsettled, false);
    return rc;
}

int store_doubts_told(struct store *s)
{
    int rc = 0;

    if (!s->values.tail_lost)
        return 0;
    rc = journal_sync(s->index.journal,
                      UINT64_MAX); /* what was settled, before the word that it was */
    if (rc == 0)
        rc = mark_set_told(s->mark);
    if (rc == 0)
        s->values.tail_lost = false;
    return rc;
}

/* ---- what the log may not know ---- */

int store_getattr(struct store *s, uint64_t ino, struct attrs *attrs)
{
    struct file *f = file_peek(&s->table, ino);
    int rc = -ENOENT;

    if (!f)
        return rc;
    pthread_mutex_lock(&f->lock);
    if (!f->gone && f->is_home) {
        file_attrs(f, attrs);
        rc = 0;
    }
    admit_unlock(f);
    return rc;
}

void store_logged(struct store *s, uint64_t ino, uint64_t version)
{
    struct file *f = file_peek(&s->table, ino);

    if (!f)
        return;
    pthread_mutex_lock(&f->lock);
    /* Kept in the row by the next checkpoint; forgetting it costs one more report. */
    if (version > f->logged_version)
        f->logged_version = version;
    admit_unlock(f);
}

int store_unlogged(struct store *s, int (*fn)(void *arg, const struct attrs *attrs), void *arg)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < FILE_SHARDS; i++) {
        uint64_t *inos = NULL;
        size_t count = 0;
        rc = shard_inos(&s->table.shards[i], &inos, &count);
        for (size_t n = 0; rc == 0 && n < count; n++) {
            struct attrs attrs;
            struct file *f = file_peek(&s->table, inos[n]);
            if (!f)
                continue;
            pthread_mutex_lock(&f->lock);
            bool unlogged = !f->gone && f->is_home && f->version > f->logged_version;
            file_attrs(f, &attrs);
            admit_unlock(f);
            if (unlogged)
                rc = fn(arg, &attrs);
        }
        free(inos);
    }
    return rc;
}
