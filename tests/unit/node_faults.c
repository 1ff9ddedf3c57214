/* A failing disk under the store: clear errors to the writer, no crash, nothing staged lost. Only
 * with UMBEL_FAULTS. */
#include <fcntl.h>

#include "node_fake.h"
#include "nodecache/cut.h"

#define MIB (1u << 20)

static struct rig rig;
static char fault_file[96];

/* "" disarms. */
static void arm(const char *faults)
{
    static unsigned n;
    char fresh[128];

    /* Another inode each time, so that the change is seen. */
    snprintf(fresh, sizeof(fresh), "%s.%u", fault_file, n++);
    FILE *f = fopen(fresh, "w");
    fputs(faults, f);
    fclose(f);
    rename(fresh, fault_file);
}

static void setup(void)
{
    rig_start(&rig, 256 * MIB);
    snprintf(fault_file, sizeof(fault_file), "%s/faults", rig.dir);
    setenv("UMBEL_FAULT_FILE", fault_file, 1);
    rig.options.space_deadline_ms = 400;
    rig_open(&rig, true);
}

static void teardown(void)
{
    arm("");
    rig_end(&rig);
}

TestSuite(node_faults, .init = setup, .fini = teardown, .timeout = 600);

#ifdef UMBEL_FAULTS
#define NEEDS_FAULTS() ((void)0)
#else
#define NEEDS_FAULTS() cr_skip("built without UMBEL_FAULTS")
#endif

static void check_intact(void)
{
    rig_expect(&rig, 5, 1, 0, 100000);
    rig_check(&rig);
}

static void fails_and_recovers(const char *faults, int error)
{
    char text[NODE_DETAIL];

    rig_write(&rig, 5, 1, 0, 100000);
    arm(faults);
    cr_assert_eq(rig_try_write(&rig, 5, 2, 200000, 5000), error);
    cr_assert_eq(rig_try_write(&rig, 6, 2, 0, 5000), error);
    store_error(rig.store, text);
    cr_assert_neq(text[0], 0, "the report says it");
    check_intact();
    arm("");
    rig_write(&rig, 5, 2, 200000, 5000);
    rig_close(&rig, false);
    rig_open(&rig, true);
    rig_expect(&rig, 5, 2, 200000, 5000);
    check_intact();
}

Test(node_faults, full_disk_under_the_journal)
{
    NEEDS_FAULTS();
    fails_and_recovers("node.journal=ENOSPC", -ENOSPC);
}

Test(node_faults, broken_disk_under_the_journal)
{
    NEEDS_FAULTS();
    fails_and_recovers("node.journal=EIO", -EIO);
}

static int count_record(void *ctx, const struct record *r)
{
    unsigned *count = ctx;

    cr_assert_eq(r->seq, ++*count);
    return 0;
}

Test(node_faults, what_waits_for_the_journal_waits_on_when_its_disk_fails)
{
    const struct record r = {.type = 1, .body = "one", .length = 3};
    char path[96], detail[NODE_DETAIL];
    unsigned count = 0;
    struct journal *j;
    uint64_t seq;

    NEEDS_FAULTS();
    snprintf(path, sizeof(path), "%s/journal", rig.dir);
    cr_assert_eq(mkdir(path, 0700), 0);
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    cr_assert_eq(journal_start(dir, 1, 1, MIB, NULL, NULL, NULL, &j), 0);
    cr_assert_eq(journal_append(j, &r, 1, JOURNAL_LATER, &seq), 0);
    arm("node.journal=ENOSPC");
    cr_assert_eq(journal_push(j), -ENOSPC);
    cr_assert_eq(journal_sync(j, seq), -ENOSPC);
    cr_assert_eq(journal_append(j, &r, 1, JOURNAL_NOW, &seq), -ENOSPC);
    cr_assert_eq(journal_append(j, &r, 1, JOURNAL_LATER, &seq), 0);
    arm("");
    cr_assert_eq(journal_append(j, &r, 1, JOURNAL_NOW, &seq), 0);
    cr_assert_eq(seq, 3);
    journal_stop(j);
    struct journal_replay replay = {.first = 1, .record = count_record, .ctx = &count};
    cr_assert_eq(journal_replay(dir, &replay, detail), 0, "%s", detail);
    cr_assert_eq(count, 3);
    close(dir);
}

Test(node_faults, full_disk_under_the_files)
{
    NEEDS_FAULTS();
    fails_and_recovers("node.write=ENOSPC", -ENOSPC);
}

Test(node_faults, no_descriptors)
{
    NEEDS_FAULTS();
    rig_write(&rig, 5, 1, 0, 100000);
    arm("node.open=EMFILE");
    cr_assert_eq(rig_try_write(&rig, 6, 2, 0, 5000), -EMFILE);
    check_intact();
}

Test(node_faults, a_failed_sync_is_told_and_mended)
{
    struct ticket t = rig_ticket(5);
    struct attrs attrs;

    NEEDS_FAULTS();
    rig_write(&rig, 5, 1, 0, 100000);
    arm("node.sync=EIO@1");
    cr_assert_eq(store_fsync(rig.store, &t, &attrs), -EIO);
    cr_assert_eq(store_fsync(rig.store, &t, &attrs), 0);
    check_intact();
}

static bool sync_failed(uint64_t ino)
{
    struct file *f = file_peek(&rig.store->table, ino);
    bool failed = f->sync_failed;

    file_unref(f);
    return failed;
}

/* The kernel takes the pages for clean, and keeps them over a restart of the process. */
Test(node_faults, a_failed_sync_is_not_forgotten_over_a_restart)
{
    struct ticket t = rig_ticket(5);
    struct attrs attrs;

    NEEDS_FAULTS();
    rig_write(&rig, 5, 1, 0, 100000);
    arm("node.sync=EIO@1");
    cr_assert_eq(store_fsync(rig.store, &t, &attrs), -EIO);
    arm("");
    rig_close(&rig, false);
    rig_open(&rig, true);
    cr_assert(sync_failed(5));
    cr_assert_eq(store_fsync(rig.store, &t, &attrs), 0, "written again");
    cr_assert_not(sync_failed(5));
    rig_close(&rig, false);
    rig_open(&rig, true);
    cr_assert_not(sync_failed(5));
    check_intact();
}

Test(node_faults, a_journal_that_cannot_be_synced_takes_nothing_more)
{
    struct ticket t = rig_ticket(5);
    struct attrs attrs;

    NEEDS_FAULTS();
    rig_write(&rig, 5, 1, 0, 100000);
    arm("node.sync=EIO@3+"); /* after the bytes and the folder */
    cr_assert_eq(store_fsync(rig.store, &t, &attrs), -EIO);
    arm("");
    cr_assert_eq(store_fsync(rig.store, &t, &attrs), -EIO);
    cr_assert_eq(rig_try_write(&rig, 5, 2, 0, 10), -EIO);
    check_intact();
    flush_stop(rig.flush);
    rig.flush = NULL;
    cr_assert_lt(store_close(rig.store, true), 0, "that is not clean");
    rig_open(&rig, true);
    check_intact();
    rig_write(&rig, 5, 1, 0, 10);
}

Test(node_faults, a_read_error_stops_the_flush_and_loses_nothing)
{
    struct flush_result r;

    NEEDS_FAULTS();
    rig_write(&rig, 5, 1, 0, 100000);
    arm("node.read=EIO");
    cr_assert_lt(flush_wait(rig.flush, NULL, 0, 5000, &r), 0);
    arm("");
    rig_flush(&rig);
    rig_evict(&rig, 5);
    check_intact();
}

Test(node_faults, checkpoints_that_fail_leave_the_journal)
{
    NEEDS_FAULTS();
    rig_write(&rig, 5, 1, 0, 100000);
    arm("node.checkpoint=ENOSPC");
    int rc = 0;
    for (unsigned n = 0; rc == 0 && n < 200000; n++)
        rc = rig_try_write(&rig, 6, n, n % 1000, 10);
    cr_assert_eq(rc, -ENOSPC, "the journal is bounded: %d", rc);
    check_intact();
    cr_assert_leq(rig_du(&rig), 256 * MIB);
    rig_close(&rig, false);
    arm("");
    rig_open(&rig, true);
    check_intact();
    rig_write(&rig, 6, 1, 0, 10);
}

static void overwrite(void *arg)
{
    (void)arg;
    (void)rig_try_write(&rig, 5, 1, 50000, 10); /* may fail */
}

Test(node_faults, a_side_file_that_cannot_be_opened_costs_nothing)
{
    struct ranges none = {0};
    char path[160];

    flush_stop(rig.flush);
    rig.flush = NULL;
    rig_write(&rig, 5, 1, 0, 100000);
    uint64_t used = rig_counts(&rig).used;
    snprintf(path, sizeof(path), "%s/cuts/5", rig.store_dir);
    cr_assert_eq(mkdir(path, 0700), 0); /* in its place */
    struct file *f = file_peek(&rig.store->table, 5);
    pthread_mutex_lock(&f->lock);
    cr_assert_eq(cut_begin(f, &none, LIMIT_NONE), 0);
    cr_assert_eq(cut_preserve(rig.store, f, 0, 40960), 0, "a write does not fail for a flush");
    cr_assert(f->cut->cancelled);
    cr_assert_eq(cut_end(rig.store, f, false, false), 0);
    pthread_mutex_unlock(&f->lock);
    file_unref(f);
    cr_assert_eq(rmdir(path), 0);
    cr_assert_eq(rig_counts(&rig).used, used);
}

/* As when the process is killed between the two. */
Test(node_faults, what_is_put_aside_stays_until_the_journal_knows)
{
    char path[160];

    NEEDS_FAULTS();
    rig_write(&rig, 5, 1, 0, 100000);
    for (int i = 0; i < 2; i++) {
        arm("node.journal=EIO");
        cr_assert_lt(store_drop(rig.store, 5, false), 0);
        arm("");
        rig_close(&rig, false);
        rig_open(&rig, true);
        check_intact();
    }
    cr_assert_eq(store_drop(rig.store, 5, false), 0);
    snprintf(path, sizeof(path), "%s/files/05/5", rig.store_dir);
    cr_assert_lt(access(path, F_OK), 0);
    snprintf(path, sizeof(path), "%s/lost/5.epoch1", rig.store_dir);
    cr_assert_eq(access(path, F_OK), 0);
    cr_assert_leq(rig_du(&rig), rig_counts(&rig).used);
}

/* The flat file may hold half of it; what is read is what was there before. */
Test(node_faults, an_overwrite_of_cached_bytes_that_fails_changes_nothing)
{
    static const char *const faults[] = {"node.write=EIO", "node.journal=EIO@1+",
                                         "node.journal=EIO@2+"};

    NEEDS_FAULTS();
    rig_write(&rig, 5, 1, 0, 100000);
    rig_flush(&rig);
    for (unsigned i = 0; i < 3; i++) {
        rig_expect(&rig, 5, 1, 0, 100000); /* cached */
        arm(faults[i]);
        cr_assert_eq(rig_try_write(&rig, 5, 2, 10000, 50000), -EIO, "%s", faults[i]);
        arm("");
        check_intact();
        cr_assert_leq(rig_du(&rig), rig_counts(&rig).used);
        rig_close(&rig, false);
        rig_open(&rig, true);
        check_intact();
    }
}

Test(node_faults, side_files_that_fail)
{
    struct flush_result r;

    NEEDS_FAULTS();
    rig_write(&rig, 5, 1, 0, 100000);
    rig.fake.on_confirm = overwrite;
    arm("node.side=EIO");
    (void)flush_wait(rig.flush, NULL, 0, 5000, &r);
    arm("");
    rig_flush(&rig);
    check_intact();
}
