/* Checksums of clean bytes: what the disk spoils is found before anybody sees it. */
#include "control/wire/clock.h"
#include "node_fake.h"
#include "nodecache/clean.h"

#define MIB (1u << 20)
#define INO 5u

static struct rig rig;

static void setup(void)
{
    rig_start(&rig, 256 * MIB);
    rig_open(&rig, true);
}

static void teardown(void)
{
    rig_end(&rig);
}

TestSuite(node_sums, .init = setup, .fini = teardown, .timeout = 600);

static unsigned damage_lines(void)
{
    static char lines[STORE_DAMAGE_MAX][NODE_DETAIL];

    return store_take_damage(rig.store, lines);
}

static uint64_t fetched(void)
{
    return rig_counts(&rig).fetched_bytes;
}

static void flushed_file(size_t length)
{
    rig_write(&rig, INO, 1, 0, length);
    rig_flush(&rig);
    rig_check(&rig);
}

/* ---- the table ---- */

Test(node_sums, the_table_equals_a_model)
{
    enum { BLOCKS = 500 };
    uint64_t model[BLOCKS] = {0}, count = 0;
    struct sums s = {0};

    srandom(7);
    for (int i = 0; i < 20000; i++) {
        uint64_t block = (uint64_t)random() % BLOCKS, end = block + (uint64_t)random() % 40;
        if (random() % 3) {
            model[block] = (uint64_t)random() | 1;
            cr_assert_eq(sums_set(&s, block, model[block]), 0);
        } else if (random() % 2) {
            model[block] = 0;
            cr_assert_eq(sums_set(&s, block, 0), 0);
        } else if (end > block) {
            /* not on the edge of a block: those that are touched go, too */
            sums_drop(&s, block * SUM_BLOCK + 5, end * SUM_BLOCK - 5);
            for (uint64_t b = block; b < end && b < BLOCKS; b++)
                model[b] = 0;
        }
        block = (uint64_t)random() % BLOCKS;
        cr_assert_eq(sums_get(&s, block), model[block]);
    }
    for (unsigned b = 0; b < BLOCKS; b++) {
        count += model[b] != 0;
        cr_assert_eq(sums_get(&s, b), model[b]);
    }
    cr_assert_eq(s.count, count);
    sums_drop(&s, 1, UINT64_MAX);
    cr_assert_eq(s.count, 0);
    cr_assert_null(s.parts);
}

Test(node_sums, a_sum_is_not_that_of_another_place)
{
    uint8_t bytes[100] = {1};

    cr_assert_neq(sum_of(1, bytes, 100), sum_of(2, bytes, 100));
    cr_assert_neq(sum_of(1, bytes, 100), sum_of(1, bytes, 99));
}

/* ---- reading ---- */

Test(node_sums, a_spoiled_byte_comes_from_the_pool_again)
{
    flushed_file(3 * MIB + 777);
    for (uint64_t at = 0; at < 3 * MIB; at += 300001) {
        cr_assert(rig_spoil(&rig, INO, at, at + 1));
        rig_expect(&rig, INO, 1, at - at % 8, 8); /* a small read */
        cr_assert_eq(damage_lines(), 1);
    }
    cr_assert(rig_spoil(&rig, INO, 2 * MIB + 50000, 3 * MIB));
    cr_assert(rig_spoil(&rig, INO, 3 * MIB + 776, 3 * MIB + 777)); /* the last byte */
    rig_expect(&rig, INO, 1, 0, 3 * MIB + 777);                    /* large ones */
    cr_assert_eq(damage_lines(), 2);
    rig_check(&rig);
}

Test(node_sums, what_is_fetched_is_kept_with_sums)
{
    flushed_file(MIB);
    rig_evict(&rig, INO);
    rig_expect(&rig, INO, 1, 0, MIB);
    rig_check(&rig);
    uint64_t before = fetched();
    rig_expect(&rig, INO, 1, 0, MIB);
    cr_assert_eq(fetched(), before, "it was there");
    cr_assert(rig_spoil(&rig, INO, 400000, MIB));
    rig_expect(&rig, INO, 1, 0, MIB);
    cr_assert_eq(damage_lines(), 1);
    cr_assert_gt(fetched(), before);
}

Test(node_sums, sums_outlive_a_restart)
{
    flushed_file(MIB + 10);
    for (int clean = 0; clean < 2; clean++) {
        rig_close(&rig, clean);
        rig_open(&rig, true);
        rig_check(&rig);
        rig_expect(&rig, INO, 1, 0, MIB + 10);
        cr_assert_eq(fetched(), 0, "all was still there");
    }
    cr_assert(rig_spoil(&rig, INO, 12345, MIB));
    rig_close(&rig, true);
    rig_open(&rig, true);
    rig_expect(&rig, INO, 1, 0, MIB + 10);
    cr_assert_eq(damage_lines(), 1);
}

Test(node_sums, a_spoiled_byte_that_nobody_can_replace_is_an_error)
{
    struct ticket t = rig_ticket(INO);
    struct store_reading reading;
    static uint8_t buffer[NODE_IO_MAX];
    char detail[NODE_DETAIL] = "";

    flushed_file(MIB);
    cr_assert(rig_spoil(&rig, INO, 100000, MIB));
    rig.fake.away = true; /* so nobody says where in the pool it lies */
    cr_assert_lt(store_read(rig.store, &t, 0, MIB, buffer, &reading, detail), 0);
    rig_expect(&rig, INO, 1, 500000, 100000); /* the rest is here */
    rig.fake.away = false;
    rig_expect(&rig, INO, 1, 0, MIB);
}

/* ---- changes around damage ---- */

Test(node_sums, a_write_beside_a_spoiled_byte_does_not_bless_it)
{
    flushed_file(10 * SUM_BLOCK);
    cr_assert(rig_spoil(&rig, INO, 100, 101));
    rig_write(&rig, INO, 2, 200, 50); /* the same block */
    rig_check(&rig);
    rig_expect(&rig, INO, 1, 0, 200);
    rig_expect(&rig, INO, 2, 200, 50);
    rig_expect(&rig, INO, 1, 250, 10 * SUM_BLOCK - 250);
    cr_assert_eq(damage_lines(), 1);
}

Test(node_sums, what_a_write_leaves_of_a_block_is_still_verified)
{
    flushed_file(4 * SUM_BLOCK);
    rig_write(&rig, INO, 2, SUM_BLOCK + 200, SUM_BLOCK); /* parts of two blocks */
    rig_check(&rig);
    cr_assert_eq(damage_lines(), 0);
    cr_assert(rig_spoil(&rig, INO, SUM_BLOCK + 7, SUM_BLOCK + 8));
    cr_assert(rig_spoil(&rig, INO, 3 * SUM_BLOCK - 7, 3 * SUM_BLOCK - 6));
    rig_expect(&rig, INO, 1, 0, SUM_BLOCK + 200);
    rig_expect(&rig, INO, 2, SUM_BLOCK + 200, SUM_BLOCK);
    rig_expect(&rig, INO, 1, 2 * SUM_BLOCK + 200, 2 * SUM_BLOCK - 200);
    cr_assert_eq(damage_lines(), 2);
}

Test(node_sums, a_cut_off_block_is_still_verified)
{
    flushed_file(4 * SUM_BLOCK);
    rig_truncate(&rig, INO, SUM_BLOCK + 1000);
    rig_check(&rig);
    cr_assert(rig_spoil(&rig, INO, SUM_BLOCK + 7, SUM_BLOCK + 8));
    rig_expect(&rig, INO, 1, 0, SUM_BLOCK + 1000);
    cr_assert_eq(damage_lines(), 1);
    cr_assert(rig_spoil(&rig, INO, SUM_BLOCK + 7, SUM_BLOCK + 8));
    rig_truncate(&rig, INO, SUM_BLOCK + 500);
    rig_expect(&rig, INO, 1, 0, SUM_BLOCK + 500);
}

/* The flush merges small pieces with what is clean around them, and must not seal damage. */
Test(node_sums, a_spoiled_byte_does_not_reach_the_pool)
{
    flushed_file(MIB);
    rig_write(&rig, INO, 2, 1000, 100);
    rig_write(&rig, INO, 2, 500000, 100);
    cr_assert(rig_spoil(&rig, INO, 300000, 300001));
    cr_assert(rig_spoil(&rig, INO, 2000, 2001));
    rig_flush(&rig);
    cr_assert_eq(fake_file(&rig.fake, INO)->count, 1, "one record: they were merged");
    rig_evict(&rig, INO);
    rig_expect(&rig, INO, 1, 0, 1000);
    rig_expect(&rig, INO, 2, 1000, 100);
    rig_expect(&rig, INO, 1, 1100, 498900);
    rig_expect(&rig, INO, 1, 500100, MIB - 500100);
    rig_check(&rig);
}

static struct scrub_result scrubbed;

/* All of it, in calls of `limits`; sums in *files, *bytes. Returns how much was damaged; unhealed
 * damage fails. */
static unsigned scrub_all(struct scrub_limits limits, uint64_t *files, uint64_t *bytes)
{
    struct scrub_place at = {.shard = 0};
    unsigned damaged = 0, calls = 0;

    *files = *bytes = 0;
    while (!at.done) {
        cr_assert_eq(store_scrub(rig.store, &at, &limits, &scrubbed), 0);
        cr_assert_lt(calls++, 10000, "it comes to an end");
        *files += scrubbed.files;
        *bytes += scrubbed.bytes;
        damaged += scrubbed.damaged;
        for (unsigned n = 0; n < scrubbed.damaged; n++)
            cr_assert(scrubbed.damage[n].healed, "%s", scrubbed.damage[n].detail);
    }
    return damaged;
}

static const struct scrub_limits all = {.bytes = UINT64_MAX, .rate = INT64_MAX, .ms = INT_MAX};

Test(node_sums, a_scrub_finds_all_of_a_thousand)
{
    uint64_t files, bytes;
    unsigned spoiled = 0;

    for (unsigned i = 0; i < 40; i++)
        rig_write(&rig, 100 + i, 1, 0, 40 * SUM_BLOCK);
    rig_flush(&rig);
    srandom(3);
    for (unsigned i = 0; i < 40; i++) {
        for (unsigned b = 0; b < 25; b++) { /* one in a block, so that each counts */
            uint64_t at = b * SUM_BLOCK + (uint64_t)random() % SUM_BLOCK;
            spoiled += rig_spoil(&rig, 100 + i, at, at + 1);
        }
    }
    cr_assert_eq(spoiled, 1000);
    cr_assert_eq(scrub_all(all, &files, &bytes), 1000);
    cr_assert_eq(files, 40);
    cr_assert_eq(bytes, 40 * 40 * SUM_BLOCK);
    /* They are here again, and whole. */
    uint64_t before = fetched();
    for (unsigned i = 0; i < 40; i++)
        rig_expect(&rig, 100 + i, 1, 0, 40 * SUM_BLOCK);
    cr_assert_eq(fetched(), before);
    cr_assert_eq(scrub_all(all, &files, &bytes), 0);
    rig_check(&rig);
}

Test(node_sums, a_scrub_in_small_parts_misses_nothing)
{
    struct scrub_limits small = all;
    uint64_t files, bytes;
    unsigned spoiled = 0;

    small.bytes = 300000;
    for (unsigned i = 0; i < 20; i++)
        rig_write(&rig, 100 + i, 1, 0, (i + 1) * 70001);
    rig_flush(&rig);
    for (unsigned i = 0; i < 20; i++)
        spoiled += rig_spoil(&rig, 100 + i, i * 70001, i * 70001 + 1);
    cr_assert_eq(spoiled, 20);
    cr_assert_eq(scrub_all(small, &files, &bytes), 20);
    cr_assert_eq(files, 20);
    cr_assert_eq(bytes, 20 * 21 / 2 * 70001);
    rig_check(&rig);
}

static int spoil_pack(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    FILE *pack = flag == FTW_F && st->st_size > 200000 ? fopen(path, "r+") : NULL;

    (void)ftw;
    if (!pack)
        return 0;
    /* The page of byte 100000: runs begin behind the header of 64 bytes. */
    fseek(pack, 64 + 3 * 32768 + 2000, SEEK_SET);
    fputs("damage", pack);
    fclose(pack);
    return 0;
}

static void spoil_packs(void)
{
    char packs[128];

    snprintf(packs, sizeof(packs), "%s/pool/packs", rig.dir);
    cr_assert_eq(nftw(packs, spoil_pack, 8, FTW_PHYS), 0);
}

Test(node_sums, a_scrub_says_what_the_pool_cannot_heal)
{
    struct scrub_place at = {.shard = 0};

    flushed_file(MIB);
    cr_assert(rig_spoil(&rig, INO, 100000, 100001));
    spoil_packs();
    cr_assert_eq(store_scrub(rig.store, &at, &all, &scrubbed), 0);
    cr_assert_eq(scrubbed.damaged, 1);
    cr_assert_eq(scrubbed.damage[0].ino, INO);
    cr_assert(!scrubbed.damage[0].healed);
    cr_assert_neq(scrubbed.damage[0].detail[0], '\0');
    cr_assert_leq(scrubbed.damage[0].start, 100000);
    cr_assert_gt(scrubbed.damage[0].end, 100000);
}

Test(node_sums, clean_bytes_are_given_only_if_all_are_whole)
{
    static uint8_t bytes[MIB];
    const struct ticket t = rig_ticket(INO);

    flushed_file(MIB);
    cr_assert_eq(store_clean_bytes(rig.store, &t, 1000, 500000, bytes), 0);
    cr_assert_eq(store_clean_bytes(rig.store, &t, 0, MIB + 1, bytes), -ENODATA);
    rig_write(&rig, INO, 2, 3000, 10);
    cr_assert_eq(store_clean_bytes(rig.store, &t, 1000, 500000, bytes), -ENODATA, "some is staged");
    cr_assert_eq(store_clean_bytes(rig.store, &t, 200000, 300000, bytes), 0);
    cr_assert(rig_spoil(&rig, INO, 250000, 250001));
    cr_assert_eq(store_clean_bytes(rig.store, &t, 200000, 300000, bytes), -ENODATA,
                 "some is spoiled");
}

/* What verifying costs: prints, and judges nothing. */
Test(node_sums, speed)
{
    enum { SIZE = 128 * MIB };
    const size_t steps[] = {4096, 128 << 10, MIB};

    for (int clean = 0; clean < 2; clean++) {
        if (clean)
            rig_flush(&rig);
        else
            rig_write(&rig, INO, 1, 0, SIZE);
        for (unsigned i = 0; i < 3; i++) {
            static uint8_t out[MIB];
            int64_t began = clock_boot_ns();
            for (size_t at = 0; at < SIZE; at += steps[i])
                cr_assert_eq(rig_read(&rig, INO, at, steps[i], out), steps[i]);
            fprintf(stderr, "reads of %zu KiB, %s: %ld MB/s\n", steps[i] >> 10,
                    clean ? "verified" : "not verified",
                    (long)(SIZE * 1000ll / (clock_boot_ns() - began)));
        }
    }
}
