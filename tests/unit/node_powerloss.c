/* What a crash of the machine leaves: everything that was synced, nothing that never was, and
 * always a store that opens.
 *
 * The double stands between the store and fsync: it copies what each sync made durable. To lose
 * power is to build the store anew from these copies (strict), or from them and a random part of
 * what was not synced (lucky). */
#include "node_fake.h"
#include "nodecache/store_private.h"

#include <dirent.h>
#include <fcntl.h>

#define SIZE    (128u << 10)
#define FILES   4
#define HISTORY 400
#define ENTRIES 4096

struct entry {
    char path[96]; /* in the store, "files/05/5" */
    ino_t file;
};

static struct rig rig;
static char shadow[96]; /* one copy per file, named by its inode number on the disk */
static struct entry entries[ENTRIES];
static size_t entry_count;
static pthread_mutex_t double_lock = PTHREAD_MUTEX_INITIALIZER;

static void copy_file(const char *from, const char *to, off_t limit)
{
    char buffer[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    off_t at = 0;
    struct stat st;

    if (in < 0) {
        close(out);
        return; /* gone since */
    }
    cr_assert(out >= 0, "%s: %s", to, strerror(errno));
    fstat(in, &st);
    if (limit < 0 || limit > st.st_size)
        limit = st.st_size;
    while (at < limit) {
        ssize_t n = pread(in, buffer, sizeof(buffer), at);
        if (n <= 0)
            break;
        if (at + n > limit)
            n = (ssize_t)(limit - at);
        cr_assert_eq(pwrite(out, buffer, (size_t)n, at), n);
        at += n;
    }
    close(in);
    close(out);
}

static void folder_synced(const char *path)
{
    const char *name = path + strlen(rig.store_dir);
    size_t kept = 0, length = strlen(name);
    char prefix[96];
    DIR *d = opendir(path);
    struct dirent *e;

    /* Its old entries go, the present ones come. */
    snprintf(prefix, sizeof(prefix), "%.90s", length > 0 ? name + 1 : "");
    for (size_t i = 0; i < entry_count; i++) {
        char *slash = strrchr(entries[i].path, '/');
        size_t parent = slash ? (size_t)(slash - entries[i].path) : 0;
        if (parent != strlen(prefix) || strncmp(entries[i].path, prefix, parent) != 0)
            entries[kept++] = entries[i];
    }
    entry_count = kept;
    while (d && (e = readdir(d))) {
        struct stat st;
        if (fstatat(dirfd(d), e->d_name, &st, 0) < 0 || !S_ISREG(st.st_mode))
            continue;
        cr_assert(entry_count < ENTRIES);
        struct entry *n = &entries[entry_count++];
        snprintf(n->path, sizeof(n->path), "%.60s%s%.30s", prefix, prefix[0] ? "/" : "", e->d_name);
        n->file = st.st_ino;
    }
    if (d)
        closedir(d);
}

static int remember(void *ctx, int fd, bool data_only)
{
    char link[64], path[256], to[256];
    struct stat st;

    (void)ctx;
    (void)data_only;
    pthread_mutex_lock(&double_lock);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path) - 1);
    cr_assert_gt(n, 0);
    path[n] = 0;
    fstat(fd, &st);
    if (S_ISDIR(st.st_mode)) {
        folder_synced(path);
    } else {
        snprintf(to, sizeof(to), "%s/%lu", shadow, (unsigned long)st.st_ino);
        copy_file(link, to, -1);
    }
    pthread_mutex_unlock(&double_lock);
    return 0;
}

static int remember_tree(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)flag;
    (void)ftw;
    if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) {
        int fd = open(path, O_RDONLY);
        remember(NULL, fd, false);
        close(fd);
    }
    return 0;
}

static int make_folder(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    char to[320];

    (void)flag;
    (void)ftw;
    if (S_ISDIR(st->st_mode)) {
        snprintf(to, sizeof(to), "%s-new%s", rig.store_dir, path + strlen(rig.store_dir));
        mkdir(to, 0700);
    }
    return 0;
}

/* Everything under the store that has a name now, for the lucky kind. */
static char lucky_paths[ENTRIES][96];
static size_t lucky_count;
static int list_lucky(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)flag;
    (void)ftw;
    if (S_ISREG(st->st_mode) && lucky_count < ENTRIES)
        snprintf(lucky_paths[lucky_count++], 96, "%.90s", path + strlen(rig.store_dir) + 1);
    return 0;
}

static void restore(const char *path, const char *from, off_t limit)
{
    char to[320];

    snprintf(to, sizeof(to), "%s-new/%s", rig.store_dir, path);
    copy_file(from, to, limit);
}

/* Kills the node and the machine. */
enum luck {
    STRICT,       /* only what was synced */
    LUCKY,        /* and some of the rest */
    JOURNAL_ONLY, /* and all of the journal, as when another file was synced, but no file's bytes */
};

static void lose_power(enum luck luck)
{
    char from[320], moved[160];

    flush_stop(rig.flush);
    rig.flush = NULL;
    rig.options.sync.sync = NULL; /* what closing may sync does not count */
    /* What is on the disk now must be copied before the close tidies up. */
    nftw(rig.store_dir, make_folder, 16, FTW_PHYS);
    for (size_t i = 0; i < entry_count; i++) {
        snprintf(from, sizeof(from), "%s/%lu", shadow, (unsigned long)entries[i].file);
        restore(entries[i].path, from, -1);
    }
    lucky_count = 0;
    if (luck != STRICT)
        nftw(rig.store_dir, list_lucky, 16, FTW_PHYS);
    for (size_t i = 0; i < lucky_count; i++) {
        struct stat st;
        bool journal = strstr(lucky_paths[i], "index/") != NULL;
        /* Flat files as they are now: the kernel wrote them back. The journal with a part of its
         * tail. */
        if (strcmp(lucky_paths[i], "mark") == 0 || strcmp(lucky_paths[i], "lock") == 0 ||
            (luck == LUCKY && random() % 2) || (luck == JOURNAL_ONLY && !journal))
            continue;
        snprintf(from, sizeof(from), "%s/%s", rig.store_dir, lucky_paths[i]);
        stat(from, &st);
        off_t limit = -1, synced;
        if (journal) {
            char copy[320];
            struct stat old;
            snprintf(copy, sizeof(copy), "%s/%lu", shadow, (unsigned long)st.st_ino);
            if (!strstr(lucky_paths[i], "journal.") || stat(copy, &old) < 0)
                continue;
            synced = old.st_size;
            if (luck == LUCKY)
                limit = synced + (st.st_size > synced ? random() % (st.st_size - synced + 1) : 0);
        }
        restore(lucky_paths[i], from, limit);
    }
    store_close(rig.store, false);
    rig.store = NULL;
    snprintf(moved, sizeof(moved), "%s-old-%ld", rig.store_dir, random());
    cr_assert_eq(rename(rig.store_dir, moved), 0);
    snprintf(from, sizeof(from), "%s-new", rig.store_dir);
    cr_assert_eq(rename(from, rig.store_dir), 0);
    nftw(moved, rig_remove, 16, FTW_DEPTH | FTW_PHYS);
    snprintf(rig.boot, sizeof(rig.boot), "boot-%ld", random());
}

static void power_up(void)
{
    char detail[NODE_DETAIL] = "";

    rig.options.sync.sync = remember;
    rig_open(&rig, true);
    entry_count = 0;
    nftw(rig.store_dir, remember_tree, 16, FTW_PHYS);
    bool news;
    int rc = store_resolve_doubts(rig.store, &news, detail);
    cr_assert_eq(rc, 0, "%s", detail);
    cr_assert_eq(store_doubts_told(rig.store), 0);
    rig_check(&rig);
}

static void setup(void)
{
    rig_start(&rig, 64u << 20);
    snprintf(shadow, sizeof(shadow), "%s/shadow", rig.dir);
    mkdir(shadow, 0700);
    entry_count = 0;
    power_up();
}

static void teardown(void)
{
    rig_end(&rig);
}

TestSuite(node_powerloss, .init = setup, .fini = teardown, .timeout = 600);

static void sync_file(uint64_t ino)
{
    struct ticket t = rig_ticket(ino);
    struct attrs attrs;

    cr_assert_eq(store_fsync(rig.store, &t, &attrs), 0);
}

static uint64_t size_of(uint64_t ino)
{
    struct attrs attrs = {0};

    return store_getattr(rig.store, ino, &attrs) < 0 ? 0 : attrs.size;
}

Test(node_powerloss, synced_stays_unsynced_goes)
{
    uint64_t instance = store_instance(rig.store);

    rig_write(&rig, 5, 1, 0, 10000);
    sync_file(5);
    rig_write(&rig, 5, 2, 20000, 5000);
    rig_write(&rig, 6, 3, 0, 5000);
    lose_power(STRICT);
    power_up();
    cr_assert_neq(store_instance(rig.store), instance, "writers must hear of it");
    cr_assert_eq(size_of(5), 10000);
    rig_expect(&rig, 5, 1, 0, 10000);
    cr_assert_eq(size_of(6), 0);
}

Test(node_powerloss, the_journal_alone_does_not_make_data)
{
    rig_write(&rig, 5, 1, 0, 10000);
    sync_file(5);
    rig_write(&rig, 5, 2, 20000, 5000);
    rig_write(&rig, 6, 3, 0, 5000);
    lose_power(JOURNAL_ONLY);
    power_up();
    cr_assert_eq(size_of(5), 10000);
    rig_expect(&rig, 5, 1, 0, 10000);
    cr_assert_eq(size_of(6), 0);
    rig_truncate(&rig, 5, 30000);
    rig_expect(&rig, 5, -1, 10000, 20000);
}

Test(node_powerloss, the_version_grows_so_that_the_centre_listens)
{
    rig_write(&rig, 5, 1, 0, 1000);
    sync_file(5);
    for (unsigned i = 0; i < 10; i++)
        rig_write(&rig, 5, 2, 1000 + i * 10, 10);
    fake_file(&rig.fake, 5)->version = rig_attrs(&rig, 5).version;
    fake_file(&rig.fake, 5)->size = 1100;
    fake_file(&rig.fake, 5)->epoch = 1;
    uint64_t before = fake_file(&rig.fake, 5)->version;
    lose_power(LUCKY);
    power_up();
    struct attrs a = rig_attrs(&rig, 5);
    if (a.size == 1000)
        cr_assert(a.version > before || a.version == 1, "%lu", (unsigned long)a.version);
}

Test(node_powerloss, what_was_flushed_comes_from_the_pool)
{
    /* Never synced, but confirmed: the word of it in the journal may be lost. */
    for (int luck = STRICT; luck <= JOURNAL_ONLY; luck++) {
        uint64_t ino = 10 + (uint64_t)luck;
        rig_write(&rig, ino, 1, 0, 50000);
        rig_flush(&rig);
        rig_write(&rig, ino, 2, 60000, 100);
        lose_power((enum luck)luck);
        power_up();
        cr_assert_geq(size_of(ino), 50000);
        rig_expect(&rig, ino, 1, 0, 50000);
    }
}

/* Writes A, syncs it, overwrites it with B of another length, flushes that. */
static void overwrite_and_flush(uint64_t ino, size_t a, size_t b)
{
    rig_write(&rig, ino, 1, 0, a);
    sync_file(ino);
    rig_write(&rig, ino, 2, 0, b);
    rig_flush(&rig);
}

Test(node_powerloss, a_confirmed_cut_is_not_overtaken_by_older_synced_bytes)
{
    for (int luck = STRICT; luck <= JOURNAL_ONLY; luck++) {
        uint64_t ino = 20 + (uint64_t)luck * 4;
        overwrite_and_flush(ino, 50000, 50000);
        overwrite_and_flush(ino + 1, 50000, 90000);
        overwrite_and_flush(ino + 2, 50000, 20000); /* the rest is as it was in both */
        lose_power((enum luck)luck);
        power_up();
        for (int again = 0; again < 2; again++) {
            rig_expect(&rig, ino, 2, 0, 50000);
            rig_expect(&rig, ino + 1, 2, 0, 90000);
            rig_expect(&rig, ino + 2, 2, 0, 20000);
            rig_expect(&rig, ino + 2, 1, 20000, 30000);
            rig_write(&rig, ino, 3, 60000, 10);
            rig_flush(&rig);
            rig_evict(&rig, 0);
        }
    }
}

Test(node_powerloss, the_row_of_a_cut_may_be_durable_without_what_is_clean)
{
    overwrite_and_flush(5, 50000, 50000);
    /* The row before the clean ranges, as another file's sync may have caught it. */
    struct file *f = file_peek(&rig.store->table, 5);
    uint64_t size = f->synced_size;
    cr_assert_eq(f->cut_pack, 0);
    cr_assert_eq(f->synced.count, 0);
    cr_assert_eq(ranges_insert(&f->synced, 0, size), 0);
    cr_assert_eq(index_power_loss(f), 0);
    cr_assert(f->doubt);
    file_unref(f);
}

/* The last confirmed cut was newer than the sync but left its bytes out; the cut that would have
 * had them was noted only. */
Test(node_powerloss, a_cut_that_was_only_noted_does_not_take_synced_bytes)
{
    struct flush_result result;

    overwrite_and_flush(5, 50000, 50000);
    rig_write(&rig, 5, 3, 0, 50000);
    sync_file(5);
    fake_file(&rig.fake, 5)->cut_version = rig_attrs(&rig, 5).version;
    rig.fake.fail_confirms = 1000;
    (void)flush_wait(rig.flush, NULL, 0, 500, &result);
    struct file *f = file_peek(&rig.store->table, 5);
    cr_assert_neq(f->cut_pack, 0);
    cr_assert_not(f->cut_partial);
    file_unref(f);
    lose_power(STRICT);
    rig.fake.fail_confirms = 0;
    power_up();
    rig_expect(&rig, 5, 3, 0, 50000);
}

/* What is newer than the cut is kept, whatever the cut had. */
Test(node_powerloss, bytes_synced_behind_a_cut_are_kept)
{
    overwrite_and_flush(5, 50000, 50000);
    rig_write(&rig, 5, 3, 10000, 5000);
    sync_file(5);
    lose_power(STRICT);
    power_up();
    rig_expect(&rig, 5, 2, 0, 10000);
    rig_expect(&rig, 5, 3, 10000, 5000);
    rig_expect(&rig, 5, 2, 15000, 35000);
}

Test(node_powerloss, a_truncation_before_a_confirmed_cut_does_not_hide_the_cut)
{
    rig_write(&rig, 5, 1, 0, 50000);
    rig_flush(&rig);
    rig_truncate(&rig, 5, 1000);
    rig_write(&rig, 5, 2, 2000, 30000);
    rig_flush(&rig);
    lose_power(STRICT);
    power_up();
    cr_assert_eq(size_of(5), 32000);
    rig_expect(&rig, 5, 1, 0, 1000);
    rig_expect(&rig, 5, -1, 1000, 1000);
    rig_expect(&rig, 5, 2, 2000, 30000);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 2, 2000, 30000);
}

/* ---- what the centre knows and the index has forgotten ---- */

static struct fake_file *centre_knows(uint64_t ino, uint64_t size, uint64_t version)
{
    struct fake_file *f = fake_file(&rig.fake, ino);

    f->homed = true;
    f->epoch = 1;
    f->size = size;
    f->version = version;
    return f;
}

struct told {
    uint64_t ino;
    struct attrs attrs;
};

static int told_one(void *arg, const struct attrs *attrs)
{
    struct told *told = arg;

    if (attrs->ino == told->ino)
        told->attrs = *attrs;
    return 0;
}

/* What the centre will hear of it. */
static struct attrs told_of(uint64_t ino)
{
    struct told told = {.ino = ino};

    cr_assert_eq(store_unlogged(rig.store, told_one, &told), 0);
    cr_assert_eq(told.attrs.ino, ino, "the centre hears nothing of inode %lu", (unsigned long)ino);
    return told.attrs;
}

Test(node_powerloss, a_file_whose_row_was_lost_falls_back_to_its_last_cut)
{
    rig_write(&rig, 7, 1, 0, 5000);
    centre_knows(7, 5000, 9);
    centre_knows(8, 9000, 30)->cut_size = 3000;
    fake_file(&rig.fake, 8)->cut_version = 20;
    lose_power(STRICT);
    power_up();
    cr_assert_eq(told_of(7).size, 0);
    cr_assert_gt(told_of(7).version, 9);
    cr_assert_eq(told_of(7).home_epoch, 1);
    cr_assert_eq(told_of(8).size, 3000);
    cr_assert_gt(told_of(8).version, 30);
    /* The next process of the same boot has nothing to settle. */
    uint64_t version = told_of(7).version;
    rig_close(&rig, false);
    rig_open(&rig, true);
    cr_assert_eq(told_of(7).version, version);
}

Test(node_powerloss, a_file_whose_newest_records_were_lost_is_as_long_as_what_is_left)
{
    rig_write(&rig, 5, 1, 0, 1000);
    sync_file(5); /* the journal ends here: nothing in it says that there was more */
    rig_write(&rig, 5, 2, 1000, 4000);
    centre_knows(5, 5000, rig_attrs(&rig, 5).version);
    uint64_t before = rig_attrs(&rig, 5).version;
    lose_power(STRICT);
    power_up();
    cr_assert_eq(told_of(5).size, 1000);
    cr_assert_gt(told_of(5).version, before);
    rig_expect(&rig, 5, 1, 0, 1000);
}

Test(node_powerloss, it_is_asked_until_the_centre_was_told)
{
    char detail[NODE_DETAIL] = "";
    bool news;

    centre_knows(7, 5000, 9);
    lose_power(STRICT);
    rig_open(&rig, true);
    rig.fake.away = true;
    cr_assert_eq(store_resolve_doubts(rig.store, &news, detail), -ETIMEDOUT);
    rig_close(&rig, false);
    rig.fake.away = false;
    for (unsigned k = 0; k < 3; k++) {
        rig_open(&rig, true);
        cr_assert_eq(store_resolve_doubts(rig.store, &news, detail), 0);
        cr_assert_eq(news, k < 2);
        cr_assert_eq(told_of(7).size, 0);
        cr_assert_eq(k == 1 ? store_doubts_told(rig.store) : 0, 0);
        rig_close(&rig, false);
    }
}

static void flat_file_goes(uint64_t ino)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/files/%02x/%lu", rig.store_dir, (unsigned)(ino & 0xff),
             (unsigned long)ino);
    cr_assert(unlink(path) == 0 || errno == ENOENT);
}

/* The file system may have made the unlinking of a flat file durable before the journal had its
 * word. */
Test(node_powerloss, a_deleted_file_is_gone_before_the_journal_says_so)
{
    char detail[NODE_DETAIL] = "";
    bool news;

    rig_write(&rig, 5, 1, 0, 10000);
    rig_write(&rig, 6, 1, 0, 10000);
    sync_file(5);
    sync_file(6);
    fake_file(&rig.fake, 5)->gone = true;
    cr_assert_eq(store_drop(rig.store, 5, true), 0);
    lose_power(STRICT);
    flat_file_goes(5);
    power_up();
    cr_assert_eq(size_of(5), 0);
    rig_expect(&rig, 6, 1, 0, 10000);
    /* But what the centre still has must be there. */
    lose_power(STRICT);
    flat_file_goes(6);
    rig_open(&rig, true);
    cr_assert_eq(store_resolve_doubts(rig.store, &news, detail), -EBADMSG);
    cr_assert(strstr(detail, "inode 6"), "%s", detail);
}

Test(node_powerloss, an_evicted_file_is_not_taken_for_staged)
{
    rig_write(&rig, 5, 1, 0, 50000);
    sync_file(5);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    lose_power(STRICT);
    flat_file_goes(5);
    power_up();
    cr_assert_eq(size_of(5), 50000);
    rig_expect(&rig, 5, 1, 0, 50000);
}

/* The centre takes what is beyond out of the map at once. */
Test(node_powerloss, a_truncation_is_durable_before_the_centre_hears_of_it)
{
    rig_write(&rig, 5, 1, 0, 50000);
    sync_file(5);
    rig_flush(&rig);
    rig_truncate(&rig, 5, 1000);
    struct fake_file *k = fake_file(&rig.fake, 5);
    fake_cut_out(k, 1000, UINT64_MAX);
    k->size = k->cut_size = 1000;
    rig_write(&rig, 5, 2, 1000, 3000);
    lose_power(STRICT);
    power_up();
    cr_assert_eq(size_of(5), 1000);
    rig_expect(&rig, 5, 1, 0, 1000);
}

static unsigned syncs;

static int count_sync(void *ctx, int fd, bool data_only)
{
    syncs++;
    return remember(ctx, fd, data_only);
}

/* O_TRUNC of what was never synced nor flushed costs no sync. */
Test(node_powerloss, a_truncation_of_what_nobody_was_promised_is_free)
{
    rig_close(&rig, false);
    rig.options.sync.sync = count_sync;
    rig_open(&rig, true);
    rig_write(&rig, 5, 1, 0, 50000);
    syncs = 0;
    rig_truncate(&rig, 5, 0);
    cr_assert_eq(syncs, 0);
    rig_write(&rig, 5, 2, 0, 5000);
    sync_file(5);
    rig_truncate(&rig, 5, 1000);
    lose_power(STRICT);
    power_up();
    cr_assert_eq(size_of(5), 1000);
    rig_expect(&rig, 5, 2, 0, 1000);
}

Test(node_powerloss, a_clean_stop_survives_the_reboot)
{
    uint64_t instance = store_instance(rig.store);

    rig_write(&rig, 5, 1, 0, 10000);
    rig_close(&rig, true);
    strcpy(rig.boot, "another-boot");
    rig_open(&rig, true);
    cr_assert_eq(store_instance(rig.store), instance);
    cr_assert_eq(size_of(5), 10000);
    rig_expect(&rig, 5, 1, 0, 10000);
}

Test(node_powerloss, damage_is_told_not_swallowed)
{
    char path[160], detail[NODE_DETAIL] = "";

    rig_write(&rig, 5, 1, 0, 10000);
    sync_file(5);
    rig_close(&rig, false);
    snprintf(path, sizeof(path), "%s/files/05/5", rig.store_dir);
    cr_assert_eq(truncate(path, 5000), 0);
    cr_assert_eq(rig_open_detail(&rig, false, detail), -EBADMSG);
    cr_assert(strstr(detail, "05/5"), "%s", detail);
    snprintf(path, sizeof(path), "%s/index/checkpoint", rig.store_dir);
    cr_assert_eq(truncate(path, 100), 0);
    cr_assert_eq(rig_open_detail(&rig, false, detail), -EBADMSG);
    cr_assert(strstr(detail, "checkpoint"), "%s", detail);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rig_open_detail(&rig, false, detail), -EBADMSG);
    rig.store = NULL;
}

/* ---- random ---- */

struct model {
    uint8_t *moments[HISTORY]; /* moments[0]: at the last sync; the last: now */
    size_t sizes[HISTORY];
    unsigned count;
};

static struct model models[FILES];

static void model_sync(struct model *m)
{
    unsigned now = m->count - 1;

    for (unsigned i = 0; i < now; i++)
        free(m->moments[i]);
    m->moments[0] = m->moments[now];
    m->sizes[0] = m->sizes[now];
    m->count = 1;
}

static uint8_t *model_next(struct model *m)
{
    cr_assert(m->count < HISTORY);
    m->moments[m->count] = malloc(SIZE);
    memcpy(m->moments[m->count], m->moments[m->count - 1], SIZE);
    m->sizes[m->count] = m->sizes[m->count - 1];
    return m->moments[m->count++];
}

/* Every byte is as it was at some moment since the last sync (or zero, if it was not there then).
 */
static void model_compare(struct model *m, uint64_t ino, unsigned seed, int step)
{
    static uint8_t got[SIZE];
    size_t size = size_of(ino), least = SIZE;

    for (unsigned i = 0; i < m->count; i++)
        least = m->sizes[i] < least ? m->sizes[i] : least;
    cr_assert_geq(size, least, "seed %u, step %d: size %zu", seed, step, size);
    memset(got, 0, SIZE);
    if (size > 0)
        rig_read(&rig, ino, 0, size, got);
    for (size_t at = 0; at < size; at++) {
        bool seen = false;
        for (unsigned i = 0; i < m->count && !seen; i++)
            seen = m->moments[i][at] == got[at] || (at >= m->sizes[0] && got[at] == 0);
        cr_assert(seen, "seed %u, step %d, inode %lu: byte %zu is %u", seed, step,
                  (unsigned long)ino, at, got[at]);
    }
    /* From here on this is what the file is. */
    memcpy(model_next(m), got, SIZE);
    m->sizes[m->count - 1] = size;
    model_sync(m);
}

static void random_step(unsigned n)
{
    unsigned i = (unsigned)random() % FILES;
    struct model *m = &models[i];
    uint64_t ino = 100 + i, at = (uint64_t)random() % (SIZE - 9000);
    size_t length = 1 + (size_t)random() % 9000;
    uint8_t *next;

    switch (random() % 10) {
    case 0:
    case 1:
        sync_file(ino);
        model_sync(m);
        break;
    case 2:
        rig_truncate(&rig, ino, at);
        next = model_next(m);
        if (at < m->sizes[m->count - 1])
            memset(next + at, 0, m->sizes[m->count - 1] - at);
        m->sizes[m->count - 1] = at;
        break;
    case 3:
        rig_flush(&rig);
        for (unsigned k = 0; k < FILES; k++)
            model_sync(&models[k]); /* a confirmed cut is never hidden */
        break;
    case 4:
        if (random() % 2)
            rig_evict(&rig, ino);
        break;
    default:
        rig_write(&rig, ino, n, at, length);
        rig_fill(model_next(m) + at, n, at, length);
        if (at + length > m->sizes[m->count - 1])
            m->sizes[m->count - 1] = at + length;
    }
}

static void run_random(unsigned seed)
{
    srandom(seed);
    for (unsigned i = 0; i < FILES; i++) {
        models[i].moments[0] = calloc(1, SIZE);
        models[i].sizes[0] = 0;
        models[i].count = 1;
    }
    for (unsigned round = 0; round < 6; round++) {
        unsigned steps = 5 + (unsigned)random() % 60;
        for (unsigned n = 0; n < steps; n++)
            random_step(round * 100 + n);
        lose_power((enum luck)(random() % 3));
        power_up();
        for (unsigned i = 0; i < FILES; i++)
            model_compare(&models[i], 100 + i, seed, (int)round);
    }
    for (unsigned i = 0; i < FILES; i++) {
        model_sync(&models[i]);
        free(models[i].moments[0]);
    }
}

Test(node_powerloss, random_crashes_keep_what_was_synced)
{
    for (unsigned seed = 1; seed < 12; seed++) {
        run_random(seed);
        teardown();
        setup();
    }
}
