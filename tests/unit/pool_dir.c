/* The dir: driver and the opening of pools, on real files. */
#include "nodecache/pool/fd_cache.h"
#include "nodecache/pool/pool_internal.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char detail[POOL_DETAIL];
static char base[128], url[160];

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/umbel-pool-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_neq(mkdtemp(base), NULL);
    snprintf(url, sizeof url, "dir:%s/pool", base);
}

static void tear_down(void)
{
    char command[192];
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    cr_assert_eq(system(command), 0);
}

TestSuite(pool_dir, .init = set_up, .fini = tear_down);

static struct pool *open_pool(void)
{
    struct pool *p;
    cr_assert_eq(pool_open(url, "cloud-1", true, &p, detail), 0, "%s", detail);
    return p;
}

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/pool/%s", base, name);
    FILE *f = fopen(path, "w");
    cr_assert_neq(f, NULL);
    cr_assert_geq(fputs(text, f), 0);
    fclose(f);
}

/* Each pack of these tests has count records of len bytes, all with the value of the low byte of
 * its id. */
static int write_pack(struct pool *p, uint64_t pack, uint32_t count, uint32_t len)
{
    struct pack_writer *w;
    struct pack_record record = {.length = len};
    uint8_t *content = malloc(len);
    int rc = pack_create(p, NULL, pack, &w, detail);

    memset(content, (int)(pack & 0xff), len);
    if (rc != 0)
        goto out;
    for (uint32_t i = 0; i < count && rc == 0; i++)
        rc = pack_add_record(w, content, &record, detail);
    if (rc == 0) {
        rc = pack_finish(w, NULL, detail);
    } else {
        pack_abandon(w);
    }
out:
    free(content);
    return rc;
}

static int read_pack(struct pool *p, uint64_t pack, uint32_t len, char *why)
{
    uint8_t *buf = malloc(len);
    int rc = pack_read(p, NULL, pack, 0, 64, len, 0, buf, len, why);

    for (uint32_t i = 0; i < len && rc == 0; i++) {
        if (buf[i] != (pack & 0xff))
            rc = -EILSEQ; /* wrong bytes */
    }
    free(buf);
    return rc;
}

/* ---- opening */

Test(pool_dir, urls)
{
    struct pool *p;

    cr_assert_eq(pool_open("/tmp/x", "c", true, &p, detail), -EINVAL);
    cr_assert_eq(pool_open("ftp://x", "c", true, &p, detail), -EINVAL);
    cr_assert_eq(pool_open("dir:relative", "c", true, &p, detail), -EINVAL);
    cr_assert_eq(pool_open("", "c", true, &p, detail), -EINVAL);
    cr_assert_eq(pool_open(url, "", true, &p, detail), -EINVAL);
    cr_assert_eq(pool_open(url, "two words", true, &p, detail), -EINVAL);
    cr_assert_eq(pool_open(url, NULL, true, &p, detail), -EINVAL);
    cr_assert_eq(pool_open(url, "c", false, &p, detail), -ENOENT);
    cr_assert_eq(pool_open("dir:/no/such/parent", "c", true, &p, detail), -ENOENT);
}

Test(pool_dir, marker)
{
    struct pool *p = open_pool();
    struct stat st;
    char path[256];
    struct statvfs vfs;

    snprintf(path, sizeof path, "%s/pool", base);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0700, "what is in the pool is for nobody else");
    cr_assert_eq(pool_statvfs(p, &vfs, detail), 0, "%s", detail);
    cr_assert_gt(vfs.f_blocks, 0);
    pool_close(p);
    cr_assert_eq(pool_open(url, "cloud-1", false, &p, detail), 0, "%s", detail);
    pool_close(p);
    cr_assert_eq(pool_open(url, NULL, false, &p, detail), 0, "%s", detail);
    pool_close(p);
    cr_assert_eq(pool_open(url, "cloud-2", true, &p, detail), -EXDEV);
    cr_assert_eq(pool_open(url, "cloud-", true, &p, detail), -EXDEV);
    write_file("umbel-pool", "umbel-pool 2\nsomething new\n");
    cr_assert_eq(pool_open(url, "cloud-1", true, &p, detail), -EPROTONOSUPPORT);
    write_file("umbel-pool", "holiday pictures");
    cr_assert_eq(pool_open(url, "cloud-1", true, &p, detail), -EBADMSG);
}

Test(pool_dir, half_written_marker)
{
    struct pool *p = open_pool();

    write_file("umbel-pool", "umbel-pool 1\nclo");
    pool_close(p);
    cr_assert_eq(pool_open(url, "cloud-1", false, &p, detail), -EBADMSG);
    p = open_pool(); /* nothing is in it: so its creation was cut off */
    cr_assert_eq(write_pack(p, 1, 1, 10), 0, "%s", detail);
    pool_close(p);
    write_file("umbel-pool", "umbel-pool 1\nclo");
    cr_assert_eq(pool_open(url, "cloud-1", true, &p, detail), -EBADMSG, "it is in use");
}

Test(pool_dir, created_by_many_at_once)
{
    int status, bad = 0;

    for (int i = 0; i < 8; i++) {
        pid_t pid = fork();
        cr_assert_geq(pid, 0);
        if (pid == 0) {
            struct pool *p;
            _exit(pool_open(url, "cloud-1", true, &p, detail) == 0 ? 0 : 1);
        }
    }
    for (int i = 0; i < 8; i++) {
        cr_assert_gt(wait(&status), 0);
        bad += status != 0;
    }
    cr_assert_eq(bad, 0);
}

/* ---- packs as files */

static bool collect(void *arg, uint64_t pack)
{
    uint64_t *sum = arg;
    *sum += pack;
    return true;
}

static bool only_one(void *arg, uint64_t pack)
{
    (void)pack;
    ++*(int *)arg;
    return false;
}

Test(pool_dir, create_list_remove)
{
    struct pool *p = open_pool();
    uint64_t found = 0, wanted = 0;
    int calls = 0;

    cr_assert_eq(pack_list(p, collect, &found, detail), 0, "%s", detail);
    cr_assert_eq(found, 0);
    for (uint64_t i = 1; i <= 20; i++) {
        uint64_t pack = i * 0x123456789;
        cr_assert_eq(write_pack(p, pack, 2, 40000), 0, "%s", detail);
        wanted += pack;
    }
    cr_assert_eq(write_pack(p, 0x123456789, 1, 10), -EEXIST);
    cr_assert_eq(pack_verify(p, NULL, 0x123456789, NULL, detail), 0, "%s", detail);
    write_file("packs/89/0000000123456789x", "no pack");
    write_file("packs/89/0000000123456788", "in the wrong folder");
    write_file("packs/README", "no folder");
    cr_assert_eq(pack_list(p, collect, &found, detail), 0, "%s", detail);
    cr_assert_eq(found, wanted);
    cr_assert_eq(pack_list(p, only_one, &calls, detail), 0);
    cr_assert_eq(calls, 1);
    cr_assert_eq(pack_remove(p, 0x123456789, detail), 0, "%s", detail);
    cr_assert_eq(pack_remove(p, 0x123456789, detail), 0, "removing twice is fine");
    cr_assert_eq(pack_verify(p, NULL, 0x123456789, NULL, detail), -ENOENT);
    pool_close(p);
}

/* A descriptor that is kept open must not hide that another process removed the pack, nor hold its
 * space for ever. */
Test(pool_dir, removed_behind_our_back)
{
    struct pool *p = open_pool(), *other = open_pool();

    cr_assert_eq(write_pack(p, 5, 1, 5000), 0, "%s", detail);
    cr_assert_eq(read_pack(p, 5, 5000, detail), 0, "%s", detail);
    cr_assert_eq(pack_remove(other, 5, detail), 0, "%s", detail);
    cr_assert_eq(read_pack(p, 5, 5000, detail), -ENOENT);
    cr_assert_eq(read_pack(p, 5, 5000, detail), -ENOENT);
    pool_close(p);
    pool_close(other);
}

static void move(const char *from, const char *to)
{
    char a[256], b[256];
    snprintf(a, sizeof a, "%s/%s", base, from);
    snprintf(b, sizeof b, "%s/%s", base, to);
    cr_assert_eq(rename(a, b), 0, "%s", strerror(errno));
}

/* Nor what an administrator does to it: moved away, put back, replaced by a whole copy. */
Test(pool_dir, moved_and_replaced_behind_our_back)
{
    struct pool *p = open_pool();

    cr_assert_eq(write_pack(p, 5, 1, 5000), 0, "%s", detail);
    cr_assert_eq(read_pack(p, 5, 5000, detail), 0, "%s", detail);
    move("pool/packs/05/0000000000000005", "away");
    cr_assert_eq(read_pack(p, 5, 5000, detail), -ENOENT);
    write_file("packs/05/0000000000000005", "no pack at all");
    cr_assert_eq(read_pack(p, 5, 5000, detail), -EBADMSG);
    move("away", "pool/packs/05/0000000000000005");
    cr_assert_eq(read_pack(p, 5, 5000, detail), 0, "%s", detail);
    pool_close(p);
}

static int open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(d) != NULL)
        count++;
    closedir(d);
    return count;
}

/* ---- a pool that is away */

Test(pool_dir, opened_before_it_is_there)
{
    struct pool *p, *maker;
    struct statvfs vfs;
    uint64_t bytes;
    int calls = 0;

    cr_assert_eq(pool_open_later("ftp://x", "cloud-1", &p, detail), -EINVAL);
    cr_assert_eq(pool_open_later(url, "cloud-1", &p, detail), 0);
    cr_assert_neq(detail[0], '\0', "why it is away");
    for (int i = 0; i < 2; i++) {
        detail[0] = '\0';
        cr_assert_eq(write_pack(p, 1, 1, 10), -EIO);
        cr_assert_neq(strstr(detail, base), NULL, "it says where: %s", detail);
        cr_assert_eq(read_pack(p, 1, 10, detail), -EIO);
        cr_assert_eq(pack_verify(p, NULL, 1, &bytes, detail), -EIO);
        cr_assert_eq(pack_remove(p, 1, detail), -EIO, "it may be there");
        cr_assert_eq(pack_list(p, only_one, &calls, detail), -EIO);
        cr_assert_eq(pool_statvfs(p, &vfs, detail), -EIO);
        cr_assert_eq(pool_look(p, detail), -ENOENT);
        char path[256];
        snprintf(path, sizeof path, "%s/pool", base);
        if (i == 0) /* the folder on which it is to be mounted */
            cr_assert_eq(mkdir(path, 0700), 0);
    }
    maker = open_pool();
    cr_assert_eq(pool_look(p, detail), 0, "%s", detail);
    cr_assert_eq(write_pack(p, 1, 1, 10), 0, "%s", detail);
    cr_assert_eq(read_pack(maker, 1, 10, detail), 0, "%s", detail);
    pool_close(maker);
    pool_close(p);
    cr_assert_eq(pool_open_later(url, "cloud-1", &p, detail), 0);
    cr_assert_eq(detail[0], '\0', "%s", detail);
    pool_close(p);
    cr_assert_eq(pool_open_later(url, "cloud-2", &p, detail), -EXDEV);
}

/* The pool, or one of its folders, is moved away between the first byte and the last. */
Test(pool_dir, moved_away_while_a_pack_is_written)
{
    static const char *const from[] = {"pool", "pool/packs/02", "pool/packs"};
    uint8_t content[10] = {0};

    for (unsigned i = 0; i < 3; i++) {
        struct pool *p = open_pool(), *other;
        struct pack_record record = {.length = sizeof(content)};
        struct pack_writer *w;
        cr_assert_eq(pack_create(p, NULL, 2 + 256 * i, &w, detail), 0, "%s", detail);
        cr_assert_eq(pack_add_record(w, content, &record, detail), 0, "%s", detail);
        move(from[i], "old");
        if (i == 0) { /* a copy of it stands there now */
            other = open_pool();
            pool_close(other);
        }
        cr_assert_lt(pack_finish(w, NULL, detail), 0, "it would be confirmed: %s", from[i]);
        cr_assert_neq(detail[0], '\0');
        pool_close(p);
        move("old", i == 0 ? "older" : from[i]);
    }
}

Test(pool_dir, its_folder_is_replaced)
{
    struct pool *p = open_pool(), *other;
    int before = open_descriptors();

    cr_assert_eq(write_pack(p, 1, 1, 10), 0, "%s", detail);
    cr_assert_eq(read_pack(p, 1, 10, detail), 0, "%s", detail);
    cr_assert_eq(pool_look(p, detail), 0, "%s", detail);
    move("pool", "old");
    cr_assert_eq(write_pack(p, 2, 1, 10), -ENOENT, "it must not go where nobody looks");
    cr_assert_eq(read_pack(p, 1, 10, detail), 0, "what is open can be read: %s", detail);
    cr_assert_eq(pool_look(p, detail), -ENOENT);
    cr_assert_eq(pool_open(url, "cloud-2", true, &other, detail), 0, "%s", detail);
    pool_close(other);
    cr_assert_eq(pool_look(p, detail), -EXDEV);
    cr_assert_eq(write_pack(p, 2, 1, 10), -ESTALE);
    move("pool", "another");
    other = open_pool();
    cr_assert_eq(write_pack(other, 3, 1, 10), 0, "%s", detail);
    pool_close(other);
    cr_assert_eq(pool_look(p, detail), 0, "%s", detail);
    cr_assert_eq(read_pack(p, 3, 10, detail), 0, "%s", detail);
    cr_assert_eq(read_pack(p, 1, 10, detail), -ENOENT, "not from a kept descriptor");
    cr_assert_eq(write_pack(p, 2, 1, 10), 0, "%s", detail);
    cr_assert_leq(open_descriptors(), before + 2);
    pool_close(p);
}

/* ---- bounds */

Test(pool_dir, descriptors_are_bounded)
{
    struct pool *p = open_pool();
    int before = open_descriptors();

    for (uint64_t pack = 1; pack <= 3 * FD_CACHE_SLOTS; pack++)
        cr_assert_eq(write_pack(p, pack, 1, 100), 0, "%s", detail);
    cr_assert_eq(open_descriptors(), before);
    for (int round = 0; round < 3; round++) {
        for (uint64_t pack = 1; pack <= 3 * FD_CACHE_SLOTS; pack++)
            cr_assert_eq(read_pack(p, pack, 100, detail), 0, "%s", detail);
        cr_assert_leq(open_descriptors(), before + FD_CACHE_SLOTS);
    }
    pool_close(p);
    cr_assert_leq(open_descriptors(), before);
}

Test(pool_dir, names_stay_in_the_pool)
{
    static const char *const names[] = {"/etc/passwd", "../x", "packs/../../x", "", "packs/"};
    struct pool *p = open_pool();
    struct iovec iov = {detail, 1};
    uint64_t size;
    void *object;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cr_assert_eq(pool_dir.create(p->ctx, names[i], &object, detail), -EINVAL);
        cr_assert_eq(pool_dir.read(p->ctx, names[i], 0, &iov, 1, NULL), -EINVAL);
        cr_assert_eq(pool_dir.size(p->ctx, names[i], &size, detail), -EINVAL);
        cr_assert_eq(pool_dir.remove(p->ctx, names[i], detail), -EINVAL);
        cr_assert_eq(pool_dir.list(p->ctx, names[i], NULL, NULL, detail), -EINVAL);
    }
    pool_close(p);
}

/* ---- full disks */

/* The kernel takes a part of a write and refuses the rest. */
Test(pool_dir, short_write)
{
    struct pool *p = open_pool();
    struct rlimit limit = {.rlim_cur = (5 << 20) + 12345, .rlim_max = RLIM_INFINITY};

    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(write_pack(p, 3, 10, POOL_RECORD_MAX), -EFBIG);
    cr_assert_eq(pack_verify(p, NULL, 3, NULL, detail), -ENOENT, "the torso was removed");
    cr_assert_eq(write_pack(p, 4, 3, POOL_RECORD_MAX), 0, "%s", detail);
    cr_assert_eq(pack_verify(p, NULL, 4, NULL, detail), 0, "%s", detail);
    pool_close(p);
}

Test(pool_dir, full_filesystem)
{
    char path[256];
    struct pool *p;
    uint64_t pack = 1;
    int rc = 0;

    snprintf(path, sizeof path, "%s/small", base);
    cr_assert_eq(mkdir(path, 0700), 0);
    if (mount("none", path, "tmpfs", 0, "size=8m") != 0)
        cr_skip("a small tmpfs cannot be mounted here (%s): a full pool is NOT tested",
                strerror(errno));
    snprintf(url, sizeof url, "dir:%s/small/pool", base);
    p = open_pool();
    while (rc == 0 && pack < 20) {
        rc = write_pack(p, pack++, 2, POOL_RECORD_MAX);
    }
    cr_expect_eq(rc, -ENOSPC, "%d", rc);
    uint64_t full = pack - 1;
    cr_expect_eq(pack_verify(p, NULL, full, NULL, detail), -ENOENT, "the torso was removed");
    cr_expect_eq(pack_verify(p, NULL, 1, NULL, detail), 0, "%s", detail);
    cr_expect_eq(pack_remove(p, 1, detail), 0, "%s", detail);
    cr_expect_eq(write_pack(p, full + 100, 2, POOL_RECORD_MAX), 0, "room again: %s", detail);
    cr_expect_eq(pack_verify(p, NULL, full + 100, NULL, detail), 0, "%s", detail);
    pool_close(p);
    cr_assert_eq(umount2(path, MNT_DETACH), 0);
}

#ifdef UMBEL_FAULTS
static void with_fault(const char *fault, int expected)
{
    pid_t pid = fork(); /* faults are read once in a process */
    int status;

    cr_assert_geq(pid, 0);
    if (pid == 0) {
        struct pool *p;
        if (pool_open(url, "cloud-1", false, &p, detail) != 0)
            _exit(100);
        setenv("UMBEL_FAULT", fault, 1);
        int rc = write_pack(p, 1, 3, POOL_RECORD_MAX);
        int left = rc == 0
                       ? pack_verify(p, NULL, 1, NULL, detail)
                       : pool_dir.size(p->ctx, "packs/01/0000000000000001", &(uint64_t){0}, detail);
        _exit(rc != expected ? 101 : rc == 0 ? -left : left != -ENOENT);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "%s: %x", fault, (unsigned)status);
}

Test(pool_dir, faults)
{
    pool_close(open_pool());
    with_fault("pool.create=EACCES", -EACCES);
    with_fault("pool.append=ENOSPC@2", -ENOSPC);
    with_fault("pool.append=EIO@4", -EIO);
    with_fault("pool.sync=EIO", -EIO);
    with_fault("pool.sync_folder=EIO@2", -EIO);
    with_fault("pool.short=EIO@1,pool.short=EIO@3", 0);
}
#endif

/* ---- threads */

#define THREADS 6
#define PACKS   (2 * FD_CACHE_SLOTS)

struct crowd {
    struct pool *pool;
    atomic_int removed, failures;
    atomic_int next;
};

/* Reads packs, of which some go away meanwhile. */
static void *reader(void *arg)
{
    struct crowd *c = arg;
    uint64_t state = (uint64_t)atomic_fetch_add(&c->next, 1) + 1;
    char why[POOL_DETAIL];

    for (int i = 0; i < 3000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t pack = (state >> 33) % PACKS + 1;
        int removed = atomic_load(&c->removed);
        int rc = read_pack(c->pool, pack, 70000, why);
        bool may_miss = pack <= (uint64_t)atomic_load(&c->removed) + 1;
        bool must_miss = pack <= (uint64_t)removed;
        if ((rc != 0 && !(rc == -ENOENT && may_miss)) || (rc == 0 && must_miss))
            atomic_fetch_add(&c->failures, 1);
    }
    return NULL;
}

Test(pool_dir, concurrent_readers)
{
    struct crowd c = {.pool = open_pool()};
    pthread_t threads[THREADS];

    for (uint64_t pack = 1; pack <= PACKS; pack++)
        cr_assert_eq(write_pack(c.pool, pack, 1, 70000), 0, "%s", detail);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, reader, &c), 0);
    for (uint64_t pack = 1; pack <= PACKS / 4; pack++) {
        cr_assert_eq(pack_remove(c.pool, pack, detail), 0, "%s", detail);
        atomic_fetch_add(&c.removed, 1);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&c.failures), 0);
    pool_close(c.pool);
}
