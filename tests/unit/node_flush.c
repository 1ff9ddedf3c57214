/* The flush: what the pool gets is a moment of each file, whatever happens meanwhile; nothing
 * staged is ever lost. */
#include "node_fake.h"

#include <linux/falloc.h>

#define MIB (1u << 20)

static struct rig rig;

static void setup(void)
{
    rig_start(&rig, 512 * MIB);
    rig_open(&rig, true);
}

static void teardown(void)
{
    rig_end(&rig);
}

TestSuite(node_flush, .init = setup, .fini = teardown, .timeout = 600);

/* What the pool says of [offset, offset + length), read by the map alone. n < 0: zeros. */
static void expect_pool(uint64_t ino, int n, uint64_t offset, size_t length)
{
    struct fake_file *f = fake_file(&rig.fake, ino);
    uint8_t *data = calloc(1, length);
    char detail[POOL_DETAIL];

    for (size_t i = 0; i < f->count; i++) {
        uint64_t a = f->extents[i].offset, b = a + f->extents[i].length;
        uint64_t from = a > offset ? a : offset, to = b < offset + length ? b : offset + length;
        if (from >= to)
            continue;
        struct pool_key key = fake_record_key(f->extents[i].pack, f->extents[i].number);
        cr_assert_eq(pack_read(rig.pool, &key, f->extents[i].pack, f->extents[i].number,
                               f->extents[i].pack_offset, (uint32_t)f->extents[i].record_length,
                               (uint32_t)(f->extents[i].record_offset + from - a),
                               data + (from - offset), (uint32_t)(to - from), detail),
                     0, "%s", detail);
    }
    for (size_t i = 0; i < length; i++) {
        uint8_t want = n < 0 ? 0 : rig_byte((unsigned)n, offset + i);
        cr_assert_eq(data[i], want, "pool, inode %lu, byte %lu: %u, not %u", (unsigned long)ino,
                     (unsigned long)(offset + i), data[i], want);
    }
    free(data);
}

static int flush_fails(struct flush_result *result)
{
    return flush_wait(rig.flush, NULL, 0, 10000, result);
}

Test(node_flush, many_small_files_share_a_pack)
{
    for (uint64_t i = 0; i < 300; i++)
        rig_write(&rig, 100 + i, (unsigned)i, i, 100 + i);
    rig_flush(&rig);
    cr_assert_leq(rig.fake.confirms, 4);
    for (uint64_t i = 0; i < 300; i++)
        expect_pool(100 + i, (int)i, i, 100 + i);
    cr_assert_eq(rig_counts(&rig).staged, 0);
    rig_check(&rig);
}

Test(node_flush, a_large_file_is_one_confirm_of_several_packs)
{
    rig_write(&rig, 5, 1, 0, 150 * MIB);
    rig_flush(&rig);
    cr_assert_eq(rig.fake.confirms, 1);
    struct fake_file *f = fake_file(&rig.fake, 5);
    cr_assert_eq(f->count, 150);
    cr_assert_neq(f->extents[0].pack, f->extents[149].pack);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, 0, 150 * MIB);
}

Test(node_flush, scattered_writes_are_merged)
{
    rig_write(&rig, 5, 1, 0, 2 * MIB);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    for (unsigned i = 0; i < 20; i++)
        rig_write(&rig, 5, 2, 10000 + i * 20000, 100);
    rig_write(&rig, 5, 2, MIB + 5000, 100);
    rig_flush(&rig);
    struct fake_file *f = fake_file(&rig.fake, 5);
    cr_assert_eq(f->count, 4, "one record for the first index, three extents in the second: %zu",
                 f->count);
    /* One range at a time: merged when the map has six extents in the index. */
    for (unsigned i = 0; i < 12; i++) {
        rig_write(&rig, 5, 3, MIB + 100000 + i * 20000, 100);
        rig_flush(&rig);
        cr_assert_leq(f->count, 1 + 8);
    }
    rig_evict(&rig, 5);
    expect_pool(5, 1, 0, 10000);
    expect_pool(5, 2, 10000, 100);
    expect_pool(5, 1, 10100, 19900);
    expect_pool(5, 2, MIB + 5000, 100);
    for (unsigned i = 0; i < 12; i++) {
        rig_expect(&rig, 5, 3, MIB + 100000 + i * 20000, 100);
        rig_expect(&rig, 5, 1, MIB + 100100 + i * 20000, 19900);
    }
    rig_check(&rig);
}

struct meddler {
    unsigned calls;
    uint64_t ino;
};

static void overwrite_in_confirm(void *arg)
{
    struct meddler *m = arg;

    if (m->calls++ == 0)
        rig_write(&rig, m->ino, 2, 1000, 500);
}

Test(node_flush, bytes_written_during_the_confirm_stay_staged)
{
    struct meddler m = {.ino = 5};

    rig.fake.on_confirm_arg = &m;
    rig.fake.on_confirm = overwrite_in_confirm;
    rig_write(&rig, 5, 1, 0, 10000);
    struct flush_result r;
    const uint64_t ino = 5;
    cr_assert_eq(flush_wait(rig.flush, &ino, 1, 10000, &r), 0);
    cr_assert_eq(rig_counts(&rig).staged, 500);
    expect_pool(5, 1, 0, 10000);
    rig_expect(&rig, 5, 2, 1000, 500);
    rig_flush(&rig);
    expect_pool(5, 2, 1000, 500);
    expect_pool(5, 1, 1500, 8500);
    rig_check(&rig);
}

static void truncate_in_confirm(void *arg)
{
    struct meddler *m = arg;

    if (m->calls++ == 0) {
        rig_truncate(&rig, m->ino, 3000);
        rig_truncate(&rig, m->ino, 9000);
    }
}

Test(node_flush, truncation_during_the_confirm_is_not_undone)
{
    struct meddler m = {.ino = 5};

    rig.fake.on_confirm_arg = &m;
    rig.fake.on_confirm = truncate_in_confirm;
    rig_write(&rig, 5, 1, 0, 10000);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, 0, 3000);
    rig_expect(&rig, 5, -1, 3000, 6000);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, 0, 3000);
    rig_expect(&rig, 5, -1, 3000, 6000);
    rig_check(&rig);
}

/* A pack is a moment: writers change the file all the time, and each version fills it with one
 * value at once. */
struct painter {
    pthread_t thread;
    _Atomic bool stop;
    _Atomic unsigned done;
};

static void *paint(void *arg)
{
    struct painter *p = arg;
    uint8_t *data = malloc(256 * 1024);
    struct ticket t = rig_ticket(5);

    for (unsigned n = 1; !p->stop; n++) {
        struct attrs attrs;
        uint64_t placed;
        memset(data, (int)(n % 251), 256 * 1024);
        /* Descending, so that a mix of moments shows as a low part that is newer than a high one.
         */
        for (int part = 15; part >= 0; part--) {
            int rc = store_write(rig.store, &t, (uint64_t)part * 256 * 1024, false,
                                 (struct timespec){.tv_sec = n}, data, 256 * 1024, &attrs, &placed);
            cr_assert_eq(rc, 0, "%s", strerror(-rc));
        }
        p->done = n;
    }
    free(data);
    return NULL;
}

Test(node_flush, the_pool_has_a_moment_of_a_file_that_is_being_overwritten)
{
    struct painter p = {.stop = false};
    uint8_t *data = malloc(4 * MIB);

    pthread_create(&p.thread, NULL, paint, &p);
    while (p.done < 2)
        usleep(1000);
    for (int round = 0; round < 25; round++) {
        const uint64_t ino = 5;
        struct flush_result r;
        char detail[POOL_DETAIL];
        cr_assert_eq(flush_wait(rig.flush, &ino, 1, 10000, &r), 0, "%s", r.detail);
        pthread_mutex_lock(&rig.fake.lock);
        struct fake_file copy = *fake_file(&rig.fake, 5);
        pthread_mutex_unlock(&rig.fake.lock);
        uint64_t n = (uint64_t)copy.mtime.tv_sec;
        (void)n;
        for (size_t i = 0; i < copy.count; i++) {
            struct pool_key key = fake_record_key(copy.extents[i].pack, copy.extents[i].number);
            cr_assert_eq(
                pack_read(rig.pool, &key, copy.extents[i].pack, copy.extents[i].number,
                          copy.extents[i].pack_offset, (uint32_t)copy.extents[i].record_length,
                          (uint32_t)copy.extents[i].record_offset, data + copy.extents[i].offset,
                          (uint32_t)copy.extents[i].length, detail),
                0, "%s", detail);
        }
        /* From the top: some parts of the newer value, then the one before; one change at most. */
        unsigned changes = 0;
        for (size_t i = 4 * MIB - 1; i > 0; i--)
            changes += data[i] != data[i - 1];
        cr_assert_leq(changes, 1, "round %d: a mix of moments", round);
    }
    p.stop = true;
    pthread_join(p.thread, NULL);
    free(data);
    rig_flush(&rig);
    rig_check(&rig);
}

Test(node_flush, a_lost_answer_is_asked_for_again)
{
    rig.fake.lose_answers = 3;
    rig_write(&rig, 5, 1, 0, 3 * MIB);
    rig_flush(&rig);
    cr_assert_eq(rig.fake.confirms, 4);
    cr_assert_eq(fake_file(&rig.fake, 5)->map_version, 1, "taken once");
    cr_assert_eq(rig_counts(&rig).staged, 0);
    expect_pool(5, 1, 0, 3 * MIB);
}

Test(node_flush, a_refused_cut_stays_staged)
{
    struct flush_result r;

    rig.fake.refuse = 6;
    rig_write(&rig, 5, 1, 0, 1000);
    rig_write(&rig, 6, 1, 0, 1000);
    cr_assert_lt(flush_fails(&r), 0);
    cr_assert_eq(rig_counts(&rig).staged, 1000);
    rig_expect(&rig, 6, 1, 0, 1000);
    rig.fake.refuse = 0;
    rig_flush(&rig);
    expect_pool(6, 1, 0, 1000);
    rig_check(&rig);
}

Test(node_flush, the_centre_says_no)
{
    struct flush_result r;

    rig.fake.fail_confirms = 1;
    rig_write(&rig, 5, 1, 0, 1000);
    cr_assert_eq(flush_fails(&r), -EIO);
    cr_assert_gt(rig.fake.discards, 0, "packs that nobody will confirm are given back");
    cr_assert_eq(rig_counts(&rig).staged, 1000);
    rig_flush(&rig);
    expect_pool(5, 1, 0, 1000);
}

Test(node_flush, while_the_pool_is_away_nothing_is_lost)
{
    struct flush_result r;
    char away[96], here[96], error[NODE_DETAIL];

    snprintf(here, sizeof(here), "%s/pool/packs", rig.dir);
    snprintf(away, sizeof(away), "%s/pool/packs-away", rig.dir);
    rig_write(&rig, 5, 1, 0, 3 * MIB);
    rig_write(&rig, 6, 1, 0, 10);
    const uint64_t six = 6;
    cr_assert_eq(flush_wait(rig.flush, &six, 1, 10000, &r), 0);
    cr_assert_eq(rename(here, away), 0);
    fclose(fopen(here, "w"));
    cr_assert_lt(flush_fails(&r), 0);
    cr_assert_neq(r.detail[0], 0);
    flush_pool_error(rig.flush, error);
    cr_assert_neq(error[0], 0);
    rig_write(&rig, 5, 2, MIB, 1000);
    rig_expect(&rig, 5, 1, 0, MIB);
    rig_expect(&rig, 5, 2, MIB, 1000);
    cr_assert_eq(rig_counts(&rig).staged, 3 * MIB);
    cr_assert_eq(unlink(here), 0);
    cr_assert_eq(rename(away, here), 0);
    rig_flush(&rig);
    flush_pool_error(rig.flush, error);
    cr_assert_eq(error[0], 0);
    expect_pool(5, 1, 0, MIB);
    expect_pool(5, 2, MIB, 1000);
    rig_check(&rig);
}

Test(node_flush, while_the_centre_is_away_a_stop_does_not_hang)
{
    rig_write(&rig, 5, 1, 0, 1000);
    rig.fake.away = true;
    struct flush_result r;
    cr_assert_lt(flush_wait(rig.flush, NULL, 0, 300, &r), 0);
    rig_close(&rig, true);
    rig.fake.away = false;
    rig_open(&rig, true);
    cr_assert_eq(rig_counts(&rig).staged, 1000);
    rig_flush(&rig);
    expect_pool(5, 1, 0, 1000);
}

Test(node_flush, a_restart_between_confirm_and_answer_flushes_anew)
{
    rig_write(&rig, 5, 1, 0, 10000);
    rig_flush(&rig);
    rig_truncate(&rig, 5, 2000);
    rig_write(&rig, 5, 2, 5000, 1000);
    rig.fake.lose_answers = 1000;
    struct flush_result r;
    cr_assert_lt(flush_wait(rig.flush, NULL, 0, 500, &r), 0);
    rig_close(&rig, false);
    rig.fake.lose_answers = 0;
    cr_assert_eq(fake_file(&rig.fake, 5)->cut, 2, "the cut was taken");
    rig_open(&rig, true);
    rig_expect(&rig, 5, 1, 0, 2000);
    rig_expect(&rig, 5, -1, 2000, 3000);
    rig_expect(&rig, 5, 2, 5000, 1000);
    rig_flush(&rig);
    cr_assert_gt(fake_file(&rig.fake, 5)->cut, 2);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, 0, 2000);
    rig_expect(&rig, 5, -1, 2000, 3000);
    rig_expect(&rig, 5, 2, 5000, 1000);
    rig_check(&rig);
}

static void flat_path(uint64_t ino, char out[160])
{
    snprintf(out, 160, "%s/files/%02x/%lu", rig.store_dir, (unsigned)(ino & 0xff),
             (unsigned long)ino);
}

/* The staged bytes of one file cannot be read: all others get through, and the flush names it. */
Test(node_flush, an_unreadable_file_does_not_hold_up_the_others)
{
    struct flush_result result;
    char path[160], name[32];

    for (uint64_t ino = 5; ino < 25; ino++)
        rig_write(&rig, ino, (unsigned)ino, 0, 5000);
    flat_path(12, path);
    cr_assert_eq(truncate(path, 0), 0);
    cr_assert_eq(flush_fails(&result), -EIO);
    cr_assert_eq(result.failed, 1);
    cr_assert(strstr(result.detail, "inode 12"), "%s", result.detail);
    for (uint64_t ino = 5; ino < 25; ino++) {
        if (ino != 12)
            expect_pool(ino, (int)ino, 0, 5000);
    }
    cr_assert_eq(rig_counts(&rig).staged, 5000);
    /* By itself, and another one by itself. */
    uint64_t one = 12, other = 30;
    rig_write(&rig, 30, 30, 0, 100);
    cr_assert_eq(flush_wait(rig.flush, &one, 1, 10000, &result), -EIO);
    snprintf(name, sizeof(name), "inode %lu", (unsigned long)one);
    cr_assert(strstr(result.detail, name), "%s", result.detail);
    cr_assert_eq(flush_wait(rig.flush, &other, 1, 10000, &result), 0);
    /* Written anew, it goes too. */
    rig_write(&rig, 12, 12, 0, 5000);
    rig_flush(&rig);
    expect_pool(12, 12, 0, 5000);
}

static bool pack_exists(uint64_t pack)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/pool/packs/%02x/%016lx", rig.dir, (unsigned)(pack & 0xff),
             (unsigned long)pack);
    return access(path, F_OK) == 0;
}

/* Its object goes at once, as no Confirm names it; the centre hears of it later. */
Test(node_flush, a_pack_that_cannot_be_discarded_is_discarded_later)
{
    struct flush_result result;
    char path[160];

    rig_write(&rig, 5, 1, 0, 3 * MIB);
    flat_path(5, path);
    cr_assert_eq(truncate(path, 2 * MIB + 1000), 0);
    rig.fake.fail_discards = true;
    cr_assert_eq(flush_fails(&result), -EIO);
    cr_assert_gt(rig.fake.next_pack, 0);
    cr_assert_not(pack_exists(1));
    rig.fake.fail_discards = false;
    rig_write(&rig, 5, 1, 0, 3 * MIB);
    rig_flush(&rig);
    for (int i = 0; i < 100 && rig.fake.discards == 0; i++)
        usleep(10000);
    cr_assert_gt(rig.fake.discards, 0);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, 0, 3 * MIB);
}

/* One bad page does not take what is fetched around it with it. */
Test(node_flush, a_damaged_page_is_all_that_cannot_be_read)
{
    struct ticket t = rig_ticket(5);
    struct store_reading reading;
    static uint8_t buffer[MIB];
    char path[160], detail[NODE_DETAIL] = "";

    rig_write(&rig, 5, 1, 0, MIB);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    snprintf(path, sizeof(path), "%s/pool/packs/01/%016x", rig.dir, 1);
    FILE *pack = fopen(path, "r+");
    cr_assert_not_null(pack, "%s", path);
    fseek(pack, 500000, SEEK_SET);
    fputs("damage", pack);
    fclose(pack);
    rig_expect(&rig, 5, 1, 0, 200000); /* a large read fetches all of it */
    rig_expect(&rig, 5, 1, 800000, 200000);
    rig_evict(&rig, 5);
    cr_assert_eq(store_read(rig.store, &t, 490000, 20000, buffer, &reading, detail), -EIO);
}

/* An index that would be merged with bytes that the pool has lost. */
Test(node_flush, what_the_pool_has_lost_does_not_hold_up_new_bytes)
{
    char detail[POOL_DETAIL];

    rig_write(&rig, 5, 1, 0, MIB);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    cr_assert_eq(pack_remove(rig.pool, fake_file(&rig.fake, 5)->extents[0].pack, detail), 0);
    rig_write(&rig, 5, 2, 1000, 100);
    rig_write(&rig, 5, 2, 5000, 100);
    rig_write(&rig, 6, 2, 0, 100);
    rig_flush(&rig);
    cr_assert_eq(rig_counts(&rig).staged, 0);
    unsigned found = 0;
    struct fake_file *f = fake_file(&rig.fake, 5);
    for (size_t i = 0; i < f->count; i++)
        found += f->extents[i].length == 100;
    cr_assert_eq(found, 2);
    expect_pool(6, 2, 0, 100);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 2, 1000, 100);
    rig_expect(&rig, 5, 2, 5000, 100);
}

Test(node_flush, files_come_of_age)
{
    store_set_water(rig.store, 90, 60, 1);
    rig_write(&rig, 5, 1, 0, 1000);
    for (int i = 0; i < 500 && rig_counts(&rig).staged > 0; i++)
        usleep(10000);
    cr_assert_eq(rig_counts(&rig).staged, 0);
}

Test(node_flush, a_dropped_file_is_left_out)
{
    rig_write(&rig, 5, 1, 0, 1000);
    rig_write(&rig, 6, 1, 0, 1000);
    fake_file(&rig.fake, 5)->gone = true;
    struct flush_result r;
    (void)flush_fails(&r);
    cr_assert_eq(store_drop(rig.store, 5, true), 0);
    rig_flush(&rig);
    expect_pool(6, 1, 0, 1000);
    cr_assert_eq(rig_counts(&rig).staged, 0);
    rig_check(&rig);
}

Test(node_flush, truncation_alone_reaches_the_map)
{
    rig_write(&rig, 5, 1, 0, 3 * MIB);
    rig_flush(&rig);
    rig_truncate(&rig, 5, 0);
    rig_flush(&rig);
    cr_assert_eq(fake_file(&rig.fake, 5)->count, 0);
    rig_truncate(&rig, 5, MIB);
    rig_expect(&rig, 5, -1, 0, MIB);
    rig_check(&rig);
}

Test(node_flush, speed)
{
    struct timespec a, b;

    rig_write(&rig, 5, 1, 0, 200 * MIB);
    clock_gettime(CLOCK_MONOTONIC, &a);
    rig_flush(&rig);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    fprintf(stderr, "flush of 200 MiB: %.0f MB/s\n", 200 * 1.048576 / seconds);
}
