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
#include "nodecache/store_private.h"

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
    int rc = 0;

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
        charge_begin(&c, f, (uint64_t)st.st_size, ranges_end(&f->present), 0);
        ranges_truncate(&f->present, (uint64_t)st.st_size);
        charge_end(s, &c, f);
    }
    if (f->has_file && f->present.count == 0)
        rc = file_unlink(&s->table, f);
    else if (f->has_file)
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

struct truth {
    bool gone, confirmed;
    uint64_t map_end, version, home_epoch;
};

/* What the log and the pool say of f: where its data ends, and whether its last cut was confirmed.
 */
static int ask(struct store *s, const struct file *f, struct truth *t)
{
    uint64_t at = 0, size;

    *t = (struct truth){0};
    do {
        struct map_window *w;
        int rc = maps_get(&s->maps, s->options.centre, s->options.centre_ctx, f->ino, at, &w);
        if (rc < 0)
            return rc;
        t->gone = w->gone;
        t->version = w->version;
        t->home_epoch = w->home_epoch;
        size = w->size;
        for (uint32_t i = 0; i < w->count; i++) {
            const struct map_extent *e = &w->extents[i];
            if (f->cut_pack != 0 && e->pack >= f->cut_pack)
                t->confirmed = true;
            t->map_end = e->offset + e->length;
        }
        maps_put(w);
        at += MAPS_WINDOW;
    } while (at < size && !t->gone);
    return 0;
}

static int resolve(struct store *s, struct file *f, char *detail)
{
    struct truth t;
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
    row_of(f, &row);
    if (t.confirmed)
        row.base_limit = LIMIT_NONE;
    row.cut_pack = 0;
    row.mapped = row.mapped || t.map_end > 0;
    uint64_t end = t.map_end < row.base_limit ? t.map_end : row.base_limit;
    if (end > row.size)
        row.size = end;
    row.version = (t.version > row.version ? t.version : row.version) + 1;
    row.synced_size = row.size;
    row.synced_version = row.version;
    row.doubt = false;
    rc = index_row(&s->index, f, &row);
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

int store_resolve_doubts(struct store *s, char detail[NODE_DETAIL])
{
    return for_each(s, resolve, detail);
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
