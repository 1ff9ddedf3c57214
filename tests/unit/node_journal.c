/* The journal: what was appended is replayed; torn tails are cut, damage is told. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nodecache/journal.h"

static char dir_name[64];
static int dir;

static void setup(void)
{
    strcpy(dir_name, "/tmp/umbel-journal-test-XXXXXX");
    cr_assert_not_null(mkdtemp(dir_name));
    dir = open(dir_name, O_RDONLY | O_DIRECTORY);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void teardown(void)
{
    close(dir);
    nftw(dir_name, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

TestSuite(node_journal, .init = setup, .fini = teardown, .timeout = 600);

static size_t body_length(uint64_t seq)
{
    return (size_t)(seq * 37 % 200);
}

static int append_when(struct journal *j, uint64_t seq, enum journal_when when)
{
    uint8_t body[256];
    uint64_t got = 0;

    memset(body, (int)seq, sizeof(body));
    struct record r = {.type = (uint16_t)(seq % 7), .body = body, .length = body_length(seq)};
    int rc = journal_append(j, &r, 1, when, &got);
    if (rc == 0)
        cr_assert_eq(got, seq);
    return rc;
}

static int append(struct journal *j, uint64_t seq)
{
    return append_when(j, seq, JOURNAL_NOW);
}

static int expect(void *ctx, const struct record *r)
{
    uint64_t *next = ctx;

    cr_assert_eq(r->seq, *next);
    cr_assert_eq(r->type, r->seq % 7);
    cr_assert_eq(r->length, body_length(r->seq));
    for (size_t i = 0; i < r->length; i++)
        cr_assert_eq(((const uint8_t *)r->body)[i], (uint8_t)r->seq);
    ++*next;
    return 0;
}

static uint64_t last_segment;

/* Replays from segment 1; the number of records. */
static int replay(struct journal_mark mark, bool crashed, uint64_t *count, bool *torn)
{
    char detail[NODE_DETAIL] = "";
    uint64_t next = 1;
    struct journal_replay r = {
        .first = 1, .mark = mark, .machine_crashed = crashed, .record = expect, .ctx = &next};
    int rc = journal_replay(dir, &r, detail);

    *count = next - 1;
    *torn = r.torn;
    last_segment = r.last_segment;
    if (rc < 0)
        cr_assert_neq(detail[0], 0, "an error is explained");
    return rc;
}

static const struct journal_mark nothing = {0, 0};

/* n records in segment 1; synced: one sync after record `synced`. */
static uint64_t make(unsigned n, unsigned synced)
{
    struct journal *j;

    cr_assert_eq(journal_start(dir, 1, 1, 1 << 20, NULL, NULL, NULL, &j), 0);
    for (unsigned i = 1; i <= n; i++) {
        cr_assert_eq(append(j, i), 0);
        if (i == synced)
            cr_assert_eq(journal_sync(j, UINT64_MAX), 0);
    }
    uint64_t size = journal_size(j);
    journal_stop(j);
    return size;
}

static void damage(uint64_t at)
{
    int fd = openat(dir, "journal.1", O_RDWR);
    uint8_t byte;

    cr_assert_eq(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x40;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

Test(node_journal, records_come_back_over_segments)
{
    struct journal *j;
    uint64_t count, segment, seq;
    bool torn;

    cr_assert_eq(journal_start(dir, 1, 1, 1 << 20, NULL, NULL, NULL, &j), 0);
    for (uint64_t i = 1; i <= 300; i++) {
        cr_assert_eq(append(j, i), 0);
        if (i % 100 == 0) {
            cr_assert_eq(journal_rotate(j, &segment, &seq), 0);
            cr_assert_eq(segment, 1 + i / 100);
            cr_assert_eq(seq, i);
        }
    }
    journal_stop(j);
    cr_assert_eq(replay(nothing, false, &count, &torn), 0);
    cr_assert_eq(count, 300);
    cr_assert(!torn);
    cr_assert_eq(journal_remove(dir, 2), 0);
    cr_assert_eq(replay((struct journal_mark){4, 0}, false, &count, &torn), -EBADMSG,
                 "a segment in the middle is missing");
}

Test(node_journal, a_torn_tail_is_cut_at_any_byte)
{
    uint64_t size = make(20, 0), last = UINT64_MAX, count;
    bool torn;

    for (uint64_t cut = size; cut-- > 0;) {
        cr_assert_eq(truncate(strcat(strcpy((char[128]){0}, dir_name), "/journal.1"), (off_t)cut),
                     0);
        cr_assert_eq(replay(nothing, false, &count, &torn), 0);
        cr_assert(count < 20 && count <= last);
        last = count;
        /* But not if all of it was promised. */
        cr_assert_eq(replay((struct journal_mark){1, size}, false, &count, &torn), -EBADMSG);
        cr_assert_eq(replay((struct journal_mark){1, size}, true, &count, &torn), -EBADMSG);
    }
}

static void blank_segment(const char *name, off_t zeros)
{
    int fd = openat(dir, name, O_RDWR | O_CREAT, 0600);

    cr_assert_eq(ftruncate(fd, zeros), 0);
    close(fd);
}

/* A start makes its segment before its checkpoint, and may be killed in between. */
Test(node_journal, a_torn_tail_before_blank_segments_is_still_one)
{
    uint64_t size = make(20, 0), count;
    bool torn;

    cr_assert_eq(truncate(strcat(strcpy((char[128]){0}, dir_name), "/journal.1"), (off_t)size - 5),
                 0);
    blank_segment("journal.2", 0);
    blank_segment("journal.3", 4096);
    for (int crashed = 0; crashed < 2; crashed++) {
        cr_assert_eq(replay(nothing, crashed, &count, &torn), 0);
        cr_assert(torn);
        cr_assert_eq(count, 19);
        cr_assert_eq(last_segment, 3, "the next one is fresh");
    }
    int fd = openat(dir, "journal.3", O_RDWR);
    cr_assert_eq(pwrite(fd, "x", 1, 100), 1);
    close(fd);
    cr_assert_eq(replay(nothing, true, &count, &torn), -EBADMSG, "that one was used");
}

Test(node_journal, damage_in_the_middle_is_an_error)
{
    uint64_t size = make(20, 0), count;
    bool torn;

    for (uint64_t at = 0; at < size; at += 7) {
        damage(at);
        int rc = replay(nothing, false, &count, &torn);
        /* In the very last record it cannot be told from a torn write. */
        cr_assert(rc == -EBADMSG || (rc == 0 && torn && count == 19), "byte %lu: %d", at, rc);
        damage(at);
    }
    cr_assert_eq(replay(nothing, false, &count, &torn), 0);
    cr_assert_eq(count, 20);
}

Test(node_journal, after_a_crash_of_the_machine_only_synced_damage_is_an_error)
{
    uint64_t count;
    bool torn;

    make(20, 10); /* records 11 to 20 know that 1 to 10 are synced */
    damage(20);
    cr_assert_eq(replay(nothing, true, &count, &torn), -EBADMSG);
    damage(20);
    uint64_t at = 0;
    for (uint64_t i = 1; i <= 14; i++)
        at += record_size(body_length(i));
    damage(at + 4); /* record 15 */
    cr_assert_eq(replay(nothing, true, &count, &torn), 0,
                 "the disk may have kept later blocks only");
    cr_assert(torn);
    cr_assert_eq(count, 14);
    cr_assert_eq(replay(nothing, false, &count, &torn), -EBADMSG);
}

Test(node_journal, the_bound_is_kept)
{
    struct journal *j;
    uint64_t count, i = 1;
    bool torn;

    cr_assert_eq(journal_start(dir, 1, 1, 4096, NULL, NULL, NULL, &j), 0);
    while (append(j, i) == 0)
        i++;
    cr_assert_eq(append(j, i), -ENOSPC);
    cr_assert_leq(journal_size(j), 4096);
    journal_stop(j);
    cr_assert_eq(replay(nothing, false, &count, &torn), 0);
    cr_assert_eq(count, i - 1);
}

struct slow_disk {
    _Atomic unsigned syncs;
    _Atomic bool fail;
};

static int slow_sync(void *ctx, int fd, bool data_only)
{
    struct slow_disk *d = ctx;

    (void)fd;
    (void)data_only;
    atomic_fetch_add(&d->syncs, 1);
    usleep(2000);
    return atomic_load(&d->fail) ? -EIO : 0;
}

static void *append_and_sync(void *arg)
{
    struct journal *j = arg;
    struct record r = {.type = 1, .body = "x", .length = 1};
    uint64_t seq;

    for (int i = 0; i < 50; i++) {
        cr_assert_eq(journal_append(j, &r, 1, JOURNAL_NOW, &seq), 0);
        cr_assert_eq(journal_sync(j, seq), 0);
    }
    return NULL;
}

Test(node_journal, syncs_at_once_share_one)
{
    struct slow_disk disk = {0};
    struct sync_ops ops = {.sync = slow_sync, .ctx = &disk};
    struct journal *j;
    pthread_t threads[8];

    cr_assert_eq(journal_start(dir, 1, 1, 1 << 20, &ops, NULL, NULL, &j), 0);
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, append_and_sync, j);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    cr_assert_lt(atomic_load(&disk.syncs), 200, "%u syncs for 400", atomic_load(&disk.syncs));
    /* After a sync that failed nobody knows what is on the disk. */
    struct record r = {.type = 1, .body = "x", .length = 1};
    uint64_t seq;
    cr_assert_eq(journal_append(j, &r, 1, JOURNAL_NOW, &seq), 0);
    atomic_store(&disk.fail, true);
    cr_assert_eq(journal_sync(j, seq), -EIO);
    atomic_store(&disk.fail, false);
    cr_assert_eq(journal_sync(j, seq), -EIO);
    cr_assert_eq(journal_append(j, &r, 1, JOURNAL_NOW, &seq), -EIO);
    journal_stop(j);
}

/* --- records that wait --- */

/* What a process that was killed now would find again. */
static uint64_t on_file(void)
{
    uint64_t count = 0;
    bool torn = false;

    cr_assert_eq(replay(nothing, false, &count, &torn), 0);
    cr_assert_not(torn);
    return count;
}

Test(node_journal, records_that_may_wait_keep_the_order_of_the_appends)
{
    struct journal *j;

    cr_assert_eq(journal_start(dir, 1, 1, 1 << 20, NULL, NULL, NULL, &j), 0);
    cr_assert_eq(append(j, 1), 0);
    cr_assert_eq(append_when(j, 2, JOURNAL_LATER), 0);
    cr_assert_eq(append_when(j, 3, JOURNAL_LATER), 0);
    cr_assert_eq(on_file(), 1, "they wait");
    cr_assert_eq(append(j, 4), 0);
    cr_assert_eq(on_file(), 4, "the next that may not wait takes them along");
    cr_assert_eq(append_when(j, 5, JOURNAL_LATER), 0);
    cr_assert_eq(journal_push(j), 0);
    cr_assert_eq(on_file(), 5);
    cr_assert_eq(append_when(j, 6, JOURNAL_LATER), 0);
    cr_assert_eq(journal_sync(j, 6), 0);
    cr_assert_eq(on_file(), 6);
    journal_stop(j);
}

Test(node_journal, what_waits_is_bounded_and_counts_as_size)
{
    struct journal *j;
    uint64_t size = 0, seq = 0;

    cr_assert_eq(journal_start(dir, 1, 1, 1 << 20, NULL, NULL, NULL, &j), 0);
    while (size < 2 * (JOURNAL_BODY_MAX + 4096)) {
        cr_assert_eq(append_when(j, ++seq, JOURNAL_LATER), 0);
        size += record_size(body_length(seq));
        cr_assert_eq(journal_size(j), size);
    }
    cr_assert_gt(on_file(), seq / 3, "a full buffer is written");
    uint64_t segment;
    cr_assert_eq(journal_rotate(j, &segment, &seq), 0);
    cr_assert_eq(on_file(), seq);
    journal_stop(j);
}

static int no_sync(void *ctx, int fd, bool data_only)
{
    (void)ctx, (void)fd, (void)data_only;
    return 0;
}

Test(node_journal, a_sync_covers_what_waited_at_its_beginning)
{
    const struct sync_ops ops = {.sync = no_sync};
    struct journal *j;

    cr_assert_eq(journal_start(dir, 1, 1, 1 << 20, &ops, NULL, NULL, &j), 0);
    for (uint64_t seq = 1; seq <= 10; seq++) {
        cr_assert_eq(append_when(j, seq, JOURNAL_LATER), 0);
        if (seq == 5)
            cr_assert_eq(journal_sync(j, 3), 0);
    }
    cr_assert_eq(on_file(), 5);
    struct journal_mark end = journal_end(j);
    cr_assert_eq(journal_push(j), 0);
    struct journal_mark same = journal_end(j);
    cr_assert_eq(end.offset, same.offset);
    journal_stop(j);
}
