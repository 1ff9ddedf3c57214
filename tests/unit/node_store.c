/* The store: what is written is read again, through truncation, holes, eviction, restarts, and
 * within the capacity. */
#include "node_fake.h"
#include "nodecache/store_private.h"

#include <linux/falloc.h>

#define MIB (1u << 20)

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

TestSuite(node_store, .init = setup, .fini = teardown, .timeout = 600);

Test(node_store, write_and_read)
{
    rig_write(&rig, 5, 1, 0, 10000);
    rig_write(&rig, 5, 2, 4000, 100);
    rig_expect(&rig, 5, 1, 0, 4000);
    rig_expect(&rig, 5, 2, 4000, 100);
    rig_expect(&rig, 5, 1, 4100, 5900);
    struct attrs a = rig_attrs(&rig, 5);
    cr_assert_eq(a.size, 10000);
    cr_assert_eq(a.version, 2);
    cr_assert_eq(a.mtime.tv_sec, 1002);
    uint8_t out[16];
    cr_assert_eq(rig_read(&rig, 5, 9990, 16, out), 10, "short only at the end");
    cr_assert_eq(rig_read(&rig, 5, 10000, 16, out), 0);
    rig_write(&rig, 5, 3, 5 * MIB, 1);
    rig_expect(&rig, 5, -1, 10000, 5 * MIB - 10000);
    rig_check(&rig);
}

Test(node_store, append_is_placed_at_the_end)
{
    struct ticket t = rig_ticket(9);
    struct attrs attrs;
    uint64_t placed;

    rig_write(&rig, 9, 1, 0, 100);
    cr_assert_eq(
        store_write(rig.store, &t, 7, true, (struct timespec){0}, "abc", 3, &attrs, &placed), 0);
    cr_assert_eq(placed, 100);
    cr_assert_eq(attrs.size, 103);
}

/* A mount knows where the file ends, sends an append, and sends it again when the connection broke.
 */
Test(node_store, append_that_is_sent_again)
{
    struct ticket t = rig_ticket(10);
    struct timespec first = {.tv_sec = 100, .tv_nsec = 1}, second = {.tv_sec = 100, .tv_nsec = 2};
    struct attrs attrs;
    uint64_t placed = 0;

    cr_assert_eq(store_append(rig.store, &t, 0, false, first, "one", 3, &attrs, &placed), 0);
    cr_assert_eq(placed, 0);
    /* It was done. */
    cr_assert_eq(store_append(rig.store, &t, 0, true, first, "one", 3, &attrs, &placed), 0);
    cr_assert_eq(placed, 0);
    cr_assert_eq(attrs.size, 3);
    /* It was not, and the end is where it was. */
    cr_assert_eq(store_append(rig.store, &t, 3, true, second, "two", 3, &attrs, &placed), 0);
    cr_assert_eq(placed, 3);
    /* Somebody else moved the end: of a first attempt it is certain that it was not done. */
    cr_assert_eq(store_append(rig.store, &t, 3, false, first, "six", 3, &attrs, &placed), 0);
    cr_assert_eq(placed, 6);
    cr_assert_eq(store_append(rig.store, &t, 3, true, second, "two", 3, &attrs, &placed), -EIO);
    cr_assert_eq(attrs.size, 9);
}

Test(node_store, epochs_fence)
{
    struct ticket t = rig_ticket(9);
    struct attrs attrs;
    uint64_t placed;

    t.home_epoch = 5;
    cr_assert_eq(
        store_write(rig.store, &t, 0, false, (struct timespec){0}, "abc", 3, &attrs, &placed), 0);
    t.home_epoch = 4;
    cr_assert_eq(
        store_write(rig.store, &t, 0, false, (struct timespec){0}, "xyz", 3, &attrs, &placed),
        -ESTALE);
    t.home_epoch = 5;
    t.rights = RIGHT_READ;
    cr_assert_eq(
        store_write(rig.store, &t, 0, false, (struct timespec){0}, "xyz", 3, &attrs, &placed),
        -EACCES);
    /* A newer epoch without our bytes: they are put aside, never shown, never lost. */
    t.home_epoch = 6;
    struct store_reading r;
    char detail[NODE_DETAIL];
    uint8_t *buffer = malloc(NODE_IO_MAX);
    cr_assert_eq(store_read(rig.store, &t, 0, 10, buffer, &r, detail), 0);
    cr_assert_eq(r.length, 0);
    store_read_done(rig.store, &r);
    free(buffer);
    char command[160];
    snprintf(command, sizeof(command), "test $(ls %s/lost | wc -l) = 1", rig.store_dir);
    cr_assert_eq(system(command), 0);
    rig_check(&rig);
}

Test(node_store, truncate_and_holes_before_the_pool_knows)
{
    struct ticket t = rig_ticket(5);
    struct attrs attrs;
    uint64_t done;

    rig_write(&rig, 5, 1, 0, 100000);
    rig_truncate(&rig, 5, 30000);
    rig_truncate(&rig, 5, 60000);
    rig_expect(&rig, 5, 1, 0, 30000);
    rig_expect(&rig, 5, -1, 30000, 30000);
    cr_assert_eq(store_fallocate(rig.store, &t, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000,
                                 9000, (struct timespec){0}, &attrs, &done),
                 0);
    rig_expect(&rig, 5, 1, 0, 5000);
    rig_expect(&rig, 5, -1, 5000, 9000);
    rig_expect(&rig, 5, 1, 14000, 16000);
    cr_assert_eq(store_fallocate(rig.store, &t, FALLOC_FL_ZERO_RANGE, 50000, 50000,
                                 (struct timespec){0}, &attrs, &done),
                 0);
    cr_assert_eq(attrs.size, 100000);
    cr_assert_eq(store_fallocate(rig.store, &t, 0, 0, 200000, (struct timespec){0}, &attrs, &done),
                 0);
    cr_assert_eq(attrs.size, 200000);
    cr_assert_eq(store_fallocate(rig.store, &t, FALLOC_FL_COLLAPSE_RANGE, 0, 4096,
                                 (struct timespec){0}, &attrs, &done),
                 -EOPNOTSUPP);
    rig_check(&rig);
    uint64_t found;
    cr_assert_eq(store_seek(rig.store, &t, 0, true, &found), 0);
    cr_assert_eq(found, 5000);
    cr_assert_eq(store_seek(rig.store, &t, 5000, false, &found), 0);
    cr_assert_eq(found, 14000);
    cr_assert_eq(store_seek(rig.store, &t, 30000, false, &found), -ENXIO);
    cr_assert_eq(store_seek(rig.store, &t, 30000, true, &found), 0);
    cr_assert_eq(found, 30000);
    cr_assert_eq(store_seek(rig.store, &t, 200000, true, &found), -ENXIO);
}

Test(node_store, flushed_and_evicted_data_comes_back)
{
    rig_write(&rig, 5, 1, 0, 3 * MIB / 2);
    rig_write(&rig, 6, 1, 10 * MIB, 100);
    rig_flush(&rig);
    struct store_counts c = rig_counts(&rig);
    cr_assert_eq(c.staged, 0);
    cr_assert_eq(c.cached, 3 * MIB / 2 + 100);
    rig_evict(&rig, 0);
    cr_assert_eq(rig_counts(&rig).cached, 0);
    rig_expect(&rig, 5, 1, 0, 3 * MIB / 2);
    rig_expect(&rig, 6, -1, 5 * MIB, MIB);
    rig_expect(&rig, 6, 1, 10 * MIB, 100);
    cr_assert_gt(rig_counts(&rig).cached, 3 * MIB / 2, "it is kept");
    rig_check(&rig);
}

Test(node_store, holes_and_truncation_over_flushed_data)
{
    struct ticket t = rig_ticket(5);
    struct attrs attrs;
    uint64_t done;

    rig_write(&rig, 5, 1, 0, 2 * MIB);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    cr_assert_eq(store_fallocate(rig.store, &t, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000,
                                 9000, (struct timespec){0}, &attrs, &done),
                 0);
    rig_truncate(&rig, 5, MIB);
    rig_truncate(&rig, 5, 2 * MIB);
    for (int round = 0; round < 2; round++) {
        rig_expect(&rig, 5, 1, 0, 5000);
        rig_expect(&rig, 5, -1, 5000, 9000);
        rig_expect(&rig, 5, 1, 14000, MIB - 14000);
        rig_expect(&rig, 5, -1, MIB, MIB);
        rig_check(&rig);
        rig_flush(&rig);
        rig_evict(&rig, 5);
    }
    uint64_t found;
    cr_assert_eq(store_seek(rig.store, &t, 0, true, &found), 0);
    cr_assert_eq(found, MIB);
}

Test(node_store, a_restart_keeps_everything)
{
    rig_write(&rig, 5, 1, 0, 100000);
    rig_write(&rig, 6, 1, 0, 5000);
    rig_flush(&rig);
    rig_write(&rig, 5, 2, 50000, 1000);
    rig_truncate(&rig, 5, 90000);
    rig_write(&rig, 7, 3, 123, 456);
    cr_assert_eq(store_drop(rig.store, 6, true), 0);
    for (int round = 0; round < 4; round++) {
        struct attrs before = rig_attrs(&rig, 5);
        struct store_counts counts = rig_counts(&rig);
        uint64_t instance = store_instance(rig.store);
        rig_close(&rig, round % 2);
        rig_open(&rig, true);
        struct attrs after = rig_attrs(&rig, 5);
        cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0);
        cr_assert_eq(store_instance(rig.store), instance);
        cr_assert_eq(rig_counts(&rig).staged, counts.staged);
        cr_assert_eq(rig_counts(&rig).cached, counts.cached);
        rig_expect(&rig, 5, 1, 0, 50000);
        rig_expect(&rig, 5, 2, 50000, 1000);
        rig_expect(&rig, 5, 1, 51000, 39000);
        rig_expect(&rig, 7, 3, 123, 456);
        cr_assert_eq(store_getattr(rig.store, 6, &after), -ENOENT);
        rig_check(&rig);
    }
}

Test(node_store, a_row_that_was_forgotten_begins_from_the_centre)
{
    /* The ticket of the creation still says size 0; the truth is at the centre. */
    rig_write(&rig, 5, 1, 0, 5000);
    rig_flush(&rig);
    cr_assert_eq(store_drop(rig.store, 5, false), 0);
    rig_expect(&rig, 5, 1, 0, 5000);
    rig_write(&rig, 5, 2, 5000, 10);
    cr_assert_eq(rig_attrs(&rig, 5).size, 5010);
    cr_assert_gt(rig_attrs(&rig, 5).version, 1);
}

enum random_kind { CHANGES, WITH_FLUSH, WITH_DAMAGE };

static void run_random(unsigned seed, enum random_kind kind)
{
    enum { SIZE = 3 * MIB, FILES = 3 };
    static uint8_t model[FILES][SIZE], got[MIB];
    size_t size[FILES] = {0};
    unsigned spoiled = 0;

    memset(model, 0, sizeof(model));
    srandom(seed);
    for (int n = 0; n < 1500; n++) {
        unsigned i = (unsigned)random() % FILES;
        uint64_t ino = 100 + i, at = (uint64_t)random() % (SIZE - 70000);
        size_t length = 1 + (size_t)random() % (random() % 4 ? 3000 : 70000);
        struct ticket t = rig_ticket(ino);
        struct attrs attrs;
        uint64_t done;
        switch (random() % (kind == CHANGES ? 8 : kind == WITH_FLUSH ? 12 : 20)) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
            rig_write(&rig, ino, (unsigned)n, at, length);
            rig_fill(&model[i][at], (unsigned)n, at, length);
            if (at + length > size[i])
                size[i] = at + length;
            break;
        case 5:
            if (random() % 3)
                break;
            rig_truncate(&rig, ino, at);
            if (at < size[i])
                memset(&model[i][at], 0, size[i] - at);
            size[i] = at;
            break;
        case 6:
            cr_assert_eq(store_fallocate(rig.store, &t, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                         at, length, (struct timespec){0}, &attrs, &done),
                         0);
            memset(&model[i][at], 0, length);
            break;
        case 7: {
            size_t there = rig_read(&rig, ino, at, length, got);
            cr_assert_eq(there, at >= size[i] ? 0 : size[i] - at < length ? size[i] - at : length);
            cr_assert_eq(memcmp(got, &model[i][at], there), 0, "seed %u, step %d", seed, n);
            break;
        }
        case 8:
            rig_flush(&rig);
            break;
        case 9:
            rig_evict(&rig, ino);
            break;
        case 10:
            if (random() % 8 == 0) {
                rig_close(&rig, random() % 2);
                rig_open(&rig, true);
            }
            break;
        case 11:
            cr_assert_eq(store_fsync(rig.store, &t, &attrs), 0);
            break;
        default:
            spoiled += rig_spoil(&rig, ino, at, SIZE);
        }
        if (n % 100 == 0)
            rig_check(&rig);
    }
    for (unsigned i = 0; i < FILES; i++) {
        for (size_t at = 0; at < size[i]; at += MIB) {
            size_t there = rig_read(&rig, 100 + i, at, MIB, got);
            cr_assert_eq(memcmp(got, &model[i][at], there), 0, "seed %u, at %zu", seed, at);
        }
    }
    rig_check(&rig);
    if (kind == WITH_DAMAGE)
        cr_assert_gt(spoiled, 50);
    else
        cr_assert_leq(rig_du(&rig), rig_counts(&rig).used);
}

Test(node_store, random_changes_equal_a_model)
{
    run_random(1, CHANGES);
}

Test(node_store, random_changes_with_flush_eviction_and_restart_equal_a_model)
{
    for (unsigned seed = 10; seed < 14; seed++) {
        run_random(seed, WITH_FLUSH);
        teardown();
        setup();
    }
}

/* What the disk spoils among clean bytes is never seen, whatever is done around it. */
Test(node_store, random_changes_over_damage_equal_a_model)
{
    for (unsigned seed = 20; seed < 28; seed++) {
        run_random(seed, WITH_DAMAGE);
        teardown();
        setup();
    }
}

Test(node_store, the_capacity_is_hard)
{
    teardown();
    rig_start(&rig, 40 * MIB);
    rig.options.space_deadline_ms = 300;
    rig_open(&rig, false); /* nobody flushes */
    int rc = 0;
    unsigned n = 0;
    for (; rc == 0 && n < 100; n++)
        rc = rig_try_write(&rig, 10 + n, n, 0, MIB);
    cr_assert_eq(rc, -ENOSPC);
    cr_assert(n > 20 && n < 41, "%u", n);
    cr_assert_leq(rig_du(&rig), 40 * MIB);
    rig_check(&rig);
    for (unsigned i = 0; i + 1 < n; i++)
        rig_expect(&rig, 10 + i, (int)i, 0, MIB);
    /* Overwriting needs no room; what is dropped gives it back. */
    rig_write(&rig, 10, 77, 0, MIB);
    store_drop(rig.store, 11, true);
    rig_write(&rig, 200, 78, 0, MIB / 2);
}

Test(node_store, fallocate_is_compared_with_the_cloud_not_the_node)
{
    struct ticket t = rig_ticket(5);
    struct attrs attrs;
    uint64_t done;

    cr_assert_eq(
        store_fallocate(rig.store, &t, 0, 0, 300 * MIB, (struct timespec){0}, &attrs, &done),
        -ENOSPC);
    store_set_pool_free(rig.store, 1024ull * MIB);
    cr_assert_eq(
        store_fallocate(rig.store, &t, 0, 0, 300 * MIB, (struct timespec){0}, &attrs, &done), 0);
    cr_assert_eq(attrs.size, 300 * MIB);
    cr_assert_eq(
        store_fallocate(rig.store, &t, 0, 0, 2048ull * MIB, (struct timespec){0}, &attrs, &done),
        -ENOSPC);
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Others wait behind it on the same connection. */
Test(node_store, a_change_that_finds_no_room_is_answered_soon)
{
    struct ticket t = rig_ticket(500);
    static uint8_t data[MIB];
    struct attrs attrs;
    uint64_t placed;
    int64_t began = 0;
    int rc = 0, busy = 0;

    teardown();
    rig_start(&rig, 24 * MIB);
    rig.options.space_deadline_ms = 1500;
    rig_open(&rig, false);
    for (uint64_t at = 0; rc == 0; at += MIB)
        rc =
            store_write(rig.store, &t, at, false, (struct timespec){0}, data, MIB, &attrs, &placed);
    cr_assert_eq(rc, -EBUSY);
    began = now_ms();
    for (; rc == -EBUSY; busy++) {
        int64_t asked = now_ms();
        rc = store_write(rig.store, &t, 1 << 30, false, (struct timespec){0}, data, MIB, &attrs,
                         &placed);
        cr_assert_lt(now_ms() - asked, ROOM_PATIENCE_MS + 400);
    }
    cr_assert_eq(rc, -ENOSPC);
    cr_assert_gt(busy, 2);
    cr_assert_lt(now_ms() - began, 4000);
    store_drop(rig.store, 500, true);
    rig_write(&rig, 501, 1, 0, MIB);
}

struct waiting_append {
    pthread_t thread;
    bool again;
    int rc;
    uint64_t placed;
    struct attrs attrs;
};

static void *append_one(void *arg)
{
    static uint8_t data[MIB];
    struct ticket t = rig_ticket(5);
    struct waiting_append *a = arg;

    a->rc = store_append(rig.store, &t, 100, a->again, (struct timespec){.tv_sec = 4000}, data, MIB,
                         &a->attrs, &a->placed);
    return NULL;
}

/* Appends 1 MiB at byte 100 of a full node, which gets a free place while the append waits, and the
 * file is made `size` long by something with the given time. */
static void append_meanwhile(struct waiting_append *a, uint64_t size, time_t now)
{
    struct setattr set = {.set_size = true, .size = size, .now = {.tv_sec = now}};
    struct ticket t = rig_ticket(5);
    struct attrs attrs;

    teardown();
    rig_start(&rig, 24 * MIB);
    rig_open(&rig, false);
    rig_write(&rig, 5, 1, 0, 100);
    for (uint64_t at = 0; rig_try_write(&rig, 6, 2, at, 65536) == 0; at += 65536)
        ;
    cr_assert_eq(pthread_create(&a->thread, NULL, append_one, a), 0);
    while (atomic_load(&rig.store->space.waiting) == 0)
        usleep(1000);
    cr_assert_eq(store_setattr(rig.store, &t, &set, &attrs), 0);
    store_drop(rig.store, 6, true);
    pthread_join(a->thread, NULL);
}

Test(node_store, an_append_that_waited_may_have_been_done_by_its_repetition)
{
    struct waiting_append first = {0}, other = {0}, again = {.again = true};

    append_meanwhile(&first, 100 + MIB, 4000);
    cr_assert_eq(first.rc, 0);
    cr_assert_eq(first.placed, 100);
    cr_assert_eq(first.attrs.size, 100 + MIB, "once");
    append_meanwhile(&other, 300, 4001);
    cr_assert_eq(other.rc, -EBUSY);
    cr_assert_eq(rig_attrs(&rig, 5).size, 300);
    append_meanwhile(&again, 300, 4001);
    cr_assert_eq(again.rc, -EIO);
    cr_assert_eq(rig_attrs(&rig, 5).size, 300);
}

Test(node_store, a_full_node_flushes_and_evicts_its_way)
{
    teardown();
    rig_start(&rig, 64 * MIB);
    rig.options.space_deadline_ms = 20000;
    rig_open(&rig, true);
    store_set_water(rig.store, 60, 30, 3600);
    for (unsigned n = 0; n < 200; n++) {
        rig_write(&rig, 10 + n, n, 0, MIB);
        if (n % 20 == 0)
            cr_assert_leq(rig_du(&rig), 64 * MIB);
    }
    for (unsigned n = 0; n < 200; n += 7)
        rig_expect(&rig, 10 + n, (int)n, 0, MIB);
    cr_assert_leq(rig_du(&rig), 64 * MIB);
    rig_check(&rig);
}

static struct {
    pthread_mutex_t lock;
    unsigned now, most, count;
} syncs = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* As the kernel: the first of all who sync a file's bytes hears of the error, later ones do not. */
static int sync_slowly(void *ctx, int fd, bool data_only)
{
    char link[64], path[256] = "";
    bool first;

    (void)ctx;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    cr_assert_gt(readlink(link, path, sizeof(path) - 1), 0);
    if (!data_only || !strstr(path, "/files/"))
        return fsync(fd) < 0 ? -errno : 0;
    pthread_mutex_lock(&syncs.lock);
    first = syncs.count++ == 0;
    if (++syncs.now > syncs.most)
        syncs.most = syncs.now;
    pthread_mutex_unlock(&syncs.lock);
    usleep(100000);
    pthread_mutex_lock(&syncs.lock);
    syncs.now--;
    pthread_mutex_unlock(&syncs.lock);
    return first ? -EIO : 0;
}

static void *sync_one(void *arg)
{
    struct ticket t = rig_ticket(5);
    struct attrs attrs;
    int *rc = arg;

    *rc = store_fsync(rig.store, &t, &attrs);
    return NULL;
}

Test(node_store, one_fsync_of_a_file_at_a_time)
{
    pthread_t threads[3];
    int rc[3], failed = 0;

    rig_end(&rig);
    rig_start(&rig, 64 * MIB);
    rig.options.sync.sync = sync_slowly;
    rig_open(&rig, false);
    rig_write(&rig, 5, 1, 0, 10000);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, sync_one, &rc[i]), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        failed += rc[i] == -EIO;
        cr_assert(rc[i] == 0 || rc[i] == -EIO);
    }
    cr_assert_eq(failed, 1);
    cr_assert_eq(syncs.most, 1);
    cr_assert_eq(syncs.count, 2, "the last one finds nothing to do");
}

/* Nothing steps through the nominal size of a file. */
Test(node_store, a_file_of_8_exbibytes)
{
    const uint64_t huge = (uint64_t)INT64_MAX, far = 1ull << 43;
    struct ticket t = rig_ticket(5);
    char detail[NODE_DETAIL] = "";
    uint64_t found, bytes = 0;
    bool news;

    rig_write(&rig, 5, 1, 0, 1000);
    rig_truncate(&rig, 5, huge);
    rig_write(&rig, 5, 2, far, 1000);
    rig_flush(&rig);
    fake_file(&rig.fake, 5)->epoch = 1;
    rig_evict(&rig, 5);
    rig.fake.maps = 0;
    cr_assert_eq(store_seek(rig.store, &t, 2000, false, &found), 0);
    cr_assert_eq(found, far);
    cr_assert_eq(store_seek(rig.store, &t, 0, true, &found), 0);
    cr_assert_eq(found, 1000);
    cr_assert_eq(store_seek(rig.store, &t, far + 1000, false, &found), -ENXIO);
    cr_assert_eq(store_warm(rig.store, 5, &bytes, detail), 0, "%s", detail);
    cr_assert_eq(bytes, 2000);
    rig_expect(&rig, 5, 1, 0, 1000);
    rig_expect(&rig, 5, 2, far, 1000);
    rig_write(&rig, 5, 3, 100, 10);
    struct attrs attrs;
    cr_assert_eq(store_fsync(rig.store, &t, &attrs), 0);
    rig_close(&rig, false);
    strcpy(rig.boot, "another-boot"); /* in doubt */
    rig_open(&rig, true);
    cr_assert_eq(store_resolve_doubts(rig.store, &news, detail), 0, "%s", detail);
    rig_expect(&rig, 5, 3, 100, 10);
    rig_expect(&rig, 5, 2, far, 1000);
    cr_assert_lt(rig.fake.maps, 30);
}

static void *zero_all(void *arg)
{
    struct ticket t = rig_ticket(5);
    struct attrs attrs;
    uint64_t done;
    int *rc = arg;

    do
        *rc = store_fallocate(rig.store, &t, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4 * MIB,
                              (struct timespec){.tv_sec = 3000}, &attrs, &done);
    while (*rc == -EBUSY);
    return NULL;
}

/* A hole larger than the room in the node, where the pool has the bytes. */
Test(node_store, a_large_hole_goes_part_by_part)
{
    const uint64_t size = 48 * MIB;
    struct ticket t = rig_ticket(5);
    struct attrs attrs;
    uint64_t done = 0, at = 0;
    int rc, parts = 0;

    rig_end(&rig);
    rig_start(&rig, 64 * MIB);
    rig.options.space_deadline_ms = 20000;
    rig_open(&rig, true);
    rig_write(&rig, 5, 1, 0, size);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    rig.fake.away = true;
    rig_write(&rig, 6, 2, 0, 30 * MIB);
    while (at < size) {
        rc = store_fallocate(rig.store, &t, FALLOC_FL_ZERO_RANGE, at, size + MIB - at,
                             (struct timespec){.tv_sec = 3000}, &attrs, &done);
        cr_assert(rc == 0 || rc == -EBUSY, "%s", strerror(-rc));
        if (rc == 0)
            at += done;
        if (at < size)
            cr_assert_eq(attrs.size, size, "longer only at the end");
        rig.fake.away = false;
        parts += rc == 0;
    }
    cr_assert_gt(parts, 1);
    cr_assert_eq(at, size + MIB);
    cr_assert_eq(attrs.size, size + MIB);
    rig_expect(&rig, 5, -1, 0, size + MIB);
    rig_check(&rig);
}

/* It waits for room, and the file becomes shorter meanwhile. */
Test(node_store, zeros_that_waited_do_not_undo_a_truncation)
{
    pthread_t thread;
    int rc = 0, full = 0;

    rig_end(&rig);
    rig_start(&rig, 24 * MIB);
    rig_open(&rig, true);
    rig_write(&rig, 5, 1, 0, 4 * MIB);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    rig.fake.away = true;
    for (uint64_t at = 0; full == 0; at += 65536)
        full = rig_try_write(&rig, 6, 2, at, 65536);
    cr_assert(full == -EBUSY || full == -ENOSPC);
    cr_assert_eq(pthread_create(&thread, NULL, zero_all, &rc), 0);
    usleep(ROOM_PATIENCE_MS * 1000 / 4);
    rig_truncate(&rig, 5, 1000);
    rig.fake.away = false;
    struct flush_result result;
    (void)flush_wait(rig.flush, NULL, 0, 20000, &result);
    pthread_join(thread, NULL);
    cr_assert_eq(rc, 0, "%s", strerror(-rc));
    cr_assert_eq(rig_attrs(&rig, 5).size, 1000);
    rig_expect(&rig, 5, -1, 0, 1000);
    rig_check(&rig);
}

Test(node_store, copy_range)
{
    struct ticket from = rig_ticket(5), to = rig_ticket(6);
    struct attrs attrs;
    char detail[NODE_DETAIL];
    uint64_t copied;

    rig_write(&rig, 5, 1, 0, MIB);
    rig_write(&rig, 5, 1, MIB, MIB / 2);
    rig_flush(&rig);
    rig_evict(&rig, 5);
    cr_assert_eq(store_copy_range(rig.store, &from, 0, &to, 0, 10 * MIB, (struct timespec){0},
                                  &attrs, &copied, detail),
                 0);
    cr_assert_eq(copied, 3 * MIB / 2);
    rig_expect(&rig, 6, 1, 0, 3 * MIB / 2);
    cr_assert_eq(store_copy_range(rig.store, &from, 0, &from, 100, 200, (struct timespec){0},
                                  &attrs, &copied, detail),
                 -EINVAL);
}

Test(node_store, lines_of_the_cache_table)
{
    struct copy_line lines[16];

    rig_write(&rig, 5, 1, 0, 5000);
    cr_assert_eq(store_changed_lines(rig.store, lines, 16), 1);
    cr_assert_eq(lines[0].staged, 5000);
    cr_assert_eq(lines[0].cached, 0);
    cr_assert_eq(store_changed_lines(rig.store, lines, 16), 0);
    rig_flush(&rig);
    cr_assert_eq(store_changed_lines(rig.store, lines, 16), 1);
    cr_assert_eq(lines[0].cached, 5000);
    rig_evict(&rig, 5);
    cr_assert_eq(store_changed_lines(rig.store, lines, 16), 1);
    cr_assert(lines[0].gone);
    store_drop(rig.store, 5, true);
    cr_assert_eq(store_changed_lines(rig.store, lines, 16), 0, "that was told already");
    rig_write(&rig, 6, 1, 0, 5000);
    cr_assert_eq(store_changed_lines(rig.store, lines, 16), 1);
    store_drop(rig.store, 6, true);
    cr_assert_eq(store_changed_lines(rig.store, lines, 16), 1);
    cr_assert(lines[0].gone);
}

struct writer {
    pthread_t thread;
    unsigned id;
};

static void *write_much(void *arg)
{
    struct writer *w = arg;

    for (unsigned n = 0; n < 400; n++) {
        uint64_t at = (uint64_t)w->id * 64 * 1024 + n % 16 * 4096;
        rig_write(&rig, 50 + n % 3, w->id, at, 4096);
        if (n % 50 == 0) {
            struct ticket t = rig_ticket(50 + n % 3);
            struct attrs attrs;
            cr_assert_eq(store_fsync(rig.store, &t, &attrs), 0);
        }
        rig_expect(&rig, 50 + n % 3, (int)w->id, at, 4096);
    }
    return NULL;
}

Test(node_store, threads_write_read_flush_and_evict_at_once)
{
    struct writer writers[4];

    for (unsigned i = 0; i < 4; i++) {
        writers[i].id = i;
        pthread_create(&writers[i].thread, NULL, write_much, &writers[i]);
    }
    for (int n = 0; n < 20; n++) {
        uint64_t bytes;
        rig_flush(&rig);
        store_evict(rig.store, 50 + (uint64_t)n % 3, &bytes); /* may be busy */
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(writers[i].thread, NULL);
    rig_check(&rig);
}

/* What the centre hears before clean data goes, and what somebody does at that moment. */
struct eviction {
    unsigned calls;
    bool gone, was_here, read;
};

static void on_eviction(void *arg)
{
    struct eviction *e = arg;
    struct copy_line lines[16];
    size_t n = store_changed_lines(rig.store, lines, 16);

    e->calls++;
    for (size_t i = 0; i < n; i++)
        e->gone = e->gone || (lines[i].ino == 60 && lines[i].gone);
    struct file *f = file_peek(&rig.store->table, 60);
    e->was_here = f && atomic_load(&f->present_bytes) > 0;
    file_unref(f);
    if (e->read)
        rig_expect(&rig, 60, 7, 0, 65536);
}

Test(node_store, the_cache_table_knows_before_clean_data_goes)
{
    struct eviction e = {0};
    struct copy_line lines[16];

    rig_write(&rig, 60, 7, 0, 65536);
    rig_flush(&rig);
    while (store_changed_lines(rig.store, lines, 16) > 0)
        ;
    store_before_eviction(rig.store, on_eviction, &e);
    rig_evict(&rig, 60);
    cr_expect_eq(e.calls, 1);
    cr_expect(e.gone, "the line says that it is gone");
    cr_expect(e.was_here, "and it is still here then");
    struct file *f = file_peek(&rig.store->table, 60);
    cr_expect(!f || atomic_load(&f->present_bytes) == 0, "and afterwards no more");
    file_unref(f);
    cr_expect_eq(store_changed_lines(rig.store, lines, 16), 0, "that was told already");
    store_before_eviction(rig.store, NULL, NULL);
    rig_check(&rig);
}

Test(node_store, what_is_used_while_it_leaves_stays)
{
    struct eviction e = {.read = true};
    struct copy_line lines[16];

    rig_write(&rig, 60, 7, 0, 65536);
    rig_flush(&rig);
    store_before_eviction(rig.store, on_eviction, &e);
    uint64_t bytes = 0;
    cr_assert_eq(store_evict(rig.store, 60, &bytes), 0);
    store_before_eviction(rig.store, NULL, NULL);
    cr_expect(e.gone && e.was_here);
    cr_expect_eq(bytes, 0);
    cr_assert_eq(store_changed_lines(rig.store, lines, 16), 1, "its line is told anew");
    cr_expect(lines[0].ino == 60 && !lines[0].gone && lines[0].cached == 65536);
    rig_check(&rig);
}

Test(node_store, two_processes_cannot_share_a_store)
{
    char detail[NODE_DETAIL];
    struct store *other;

    cr_assert_eq(store_open(&rig.options, &other, detail), -EBUSY);
}
