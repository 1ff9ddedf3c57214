/* The nfs: driver, against a real NFS-Ganesha that each test starts for itself. */
#include "nodecache/pool/pool_internal.h"
#include "nodecache/pool/pool_nfs_url.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char detail[POOL_DETAIL];
static char base[128], url[256];
static unsigned port, mount_port;
static FILE *say, *hear;
static pid_t server;

/* ---- URLs */

static int parse(const char *rest, struct np_url *u)
{
    return np_url_parse(rest, u, detail);
}

Test(pool_nfs_url, good)
{
    struct np_url u;

    cr_assert_eq(parse("//host/export", &u), 0, "%s", detail);
    cr_assert_str_eq(u.host, "host");
    cr_assert_str_eq(u.path, "/export");
    cr_assert_eq(u.version, 3);
    cr_assert_eq(u.nfs_port, 2049);
    cr_assert_eq(u.mount_port, 0);
    cr_assert_eq(u.uid, -1);
    cr_assert_eq(
        parse("//[::1]/a/b c/?nfsport=1&mountport=65535&uid=0&gid=4294967294&version=3", &u), 0,
        "%s", detail);
    cr_assert_str_eq(u.host, "::1");
    cr_assert_str_eq(u.path, "/a/b c");
    cr_assert_eq(u.nfs_port, 1);
    cr_assert_eq(u.mount_port, 65535);
    cr_assert_eq(u.uid, 0);
    cr_assert_eq(u.gid, 4294967294);
    cr_assert_eq(parse("//10.0.0.1/", &u), 0, "%s", detail);
    cr_assert_str_eq(u.path, "/");
}

Test(pool_nfs_url, bad)
{
    static const char *const urls[] = {
        "",
        "/",
        "//",
        "//host",
        "///export",
        "//host?version=3",
        "//-host/x",
        "//ho st/x",
        "//host:2049/x",
        "//[::1/x",
        "//[host]/x",
        "//host/a//b",
        "//host/a/../b",
        "//host/./a",
        "//host/a\nb",
        "//host/a?",
        "//host/a?version",
        "//host/a?version=",
        "//host/a?version=2",
        "//host/a?version=4",
        "//host/a?version=3&",
        "//host/a?version=3&version=3",
        "//host/a?nfsport=0",
        "//host/a?nfsport=65536",
        "//host/a?nfsport=+1",
        "//host/a?nfsport=99999999999999999999",
        "//host/a?uid=-1",
        "//host/a?uid=4294967295",
        "//host/a?colour=red",
        "//host/a?nfsport=1?mountport=2",
    };
    struct np_url u;
    char longer[3000];

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        detail[0] = '\0';
        cr_assert_eq(parse(urls[i], &u), -EINVAL, "%s", urls[i]);
        cr_assert_neq(detail[0], '\0', "%s", urls[i]);
    }
    memset(longer, 'a', sizeof longer);
    memcpy(longer, "//h/", 4);
    longer[sizeof longer - 1] = '\0';
    cr_assert_eq(parse(longer, &u), -EINVAL);
    memcpy(longer, "//hh", 4);
    cr_assert_eq(parse(longer, &u), -EINVAL);
}

/* ---- a server */

static void begin_server(void)
{
    int to[2], from[2];
    char line[256] = "";

    cr_assert_eq(pipe2(to, O_CLOEXEC), 0);
    cr_assert_eq(pipe2(from, O_CLOEXEC), 0);
    server = fork();
    cr_assert_geq(server, 0);
    if (server == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        execlp("bash", "bash", UMBEL_SOURCE_DIR "/tests/integration/lib_ganesha.sh", "serve", base,
               (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    say = fdopen(to[1], "w");
    hear = fdopen(from[0], "r");
    if (fgets(line, sizeof line, hear) == NULL || strncmp(line, "skip", 4) == 0)
        cr_skip("no NFS server: %s: the nfs: driver is NOT tested", line);
    cr_assert_eq(sscanf(line, "%u %u", &port, &mount_port), 2, "%s", line);
}

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/umbel-nfs-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_neq(mkdtemp(base), NULL);
    begin_server();
    snprintf(url, sizeof url, "nfs://127.0.0.1%s/export/pool?nfsport=%u&mountport=%u", base, port,
             mount_port);
}

static void tear_down(void)
{
    char command[192];

    if (say != NULL)
        fclose(say);
    if (server > 0)
        waitpid(server, NULL, 0);
    snprintf(command, sizeof command, "rm -rf --one-file-system '%s'", base);
    cr_assert_eq(system(command), 0);
}

static void order(const char *what)
{
    char line[64] = "";

    fprintf(say, "%s\n", what);
    fflush(say);
    cr_assert_neq(fgets(line, sizeof line, hear), NULL);
    cr_assert_str_eq(line, "ok\n", "%s", what);
}

TestSuite(pool_nfs, .init = set_up, .fini = tear_down, .timeout = 110);

static struct pool *open_pool(void)
{
    struct pool *p;
    cr_assert_eq(pool_open(url, "cloud-1", true, &p, detail), 0, "%s", detail);
    return p;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint8_t byte_at(uint64_t object, uint64_t at)
{
    return (uint8_t)((object * 131 + at / 4096 * 17 + at % 251) & 0xff);
}

static void fill(uint8_t *buf, uint64_t object, uint64_t at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = byte_at(object, at + i);
}

/* Objects by the driver itself: what packs are made of is tested elsewhere. */
static const char *object_name(uint64_t object)
{
    static char name[32];
    snprintf(name, sizeof name, "packs/%02x/%016x", (unsigned)(object & 0xff), (unsigned)object);
    return name;
}

static int write_parts(struct pool *p, uint64_t object, size_t len, void (*between)(size_t at))
{
    size_t step = 1000003;
    uint8_t *buf = malloc(step);
    void *o;
    int rc = p->driver->create(p->ctx, object_name(object), &o, detail);

    for (size_t at = 0; rc == 0 && at < len; at += step) {
        size_t part = len - at < step ? len - at : step;
        fill(buf, object, at, part);
        rc = p->driver->append(o, buf, part, detail);
        if (between != NULL)
            between(at);
        if (rc != 0)
            p->driver->abandon(o);
    }
    free(buf);
    return rc != 0 ? rc : p->driver->finish(o, detail);
}

static int write_object(struct pool *p, uint64_t object, size_t len)
{
    return write_parts(p, object, len, NULL);
}

static ssize_t read_part(struct pool *p, uint64_t object, uint64_t at, size_t len)
{
    uint8_t *buf = malloc(len + 1);
    size_t a = len / 3, b = len > 1 ? 1 : 0;
    struct iovec iov[3] = {{buf, a}, {buf + a, b}, {buf + a + b, len - a - b}};
    ssize_t got;

    got = p->driver->read(p->ctx, object_name(object), at, iov, 3, detail);
    for (ssize_t i = 0; i < got; i++) {
        if (buf[i] != byte_at(object, at + (uint64_t)i)) {
            got = -EILSEQ; /* wrong bytes */
            break;
        }
    }
    free(buf);
    return got;
}

Test(pool_nfs, marker)
{
    struct pool *p = open_pool();
    struct statvfs v;
    char path[256], other[300];
    struct stat st;

    snprintf(path, sizeof path, "%s/export/pool", base);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0700, "what is in the pool is for nobody else");
    strcat(path, "/umbel-pool");
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600, "%o", st.st_mode);
    cr_assert_eq(pool_statvfs(p, &v, detail), 0, "%s", detail);
    cr_assert_gt(v.f_blocks, 0);
    cr_assert_eq(pool_look(p, detail), 0, "%s", detail);
    pool_close(p);
    cr_assert_eq(pool_open(url, "cloud-2", true, &p, detail), -EXDEV);
    cr_assert_eq(pool_open(url, "cloud-1", false, &p, detail), 0, "%s", detail);
    pool_close(p);
    snprintf(other, sizeof other, "nfs://127.0.0.1%s/nowhere?nfsport=%u&mountport=%u", base, port,
             mount_port);
    cr_assert_lt(pool_open(other, "c", true, &p, detail), 0);
    cr_assert_neq(strstr(detail, "export"), NULL, "%s", detail);
    snprintf(other, sizeof other, "nfs://127.0.0.1%s/export/a/b?nfsport=%u&mountport=%u", base,
             port, mount_port);
    cr_assert_eq(pool_open(other, "c", true, &p, detail), -ENOENT, "the parent must exist");
    snprintf(other, sizeof other, "nfs://127.0.0.1%s/readonly/pool?nfsport=%u&mountport=%u", base,
             port, mount_port);
    cr_assert_eq(pool_open(other, "c", true, &p, detail), -EROFS, "%s", detail);
    snprintf(other, sizeof other, "nfs://127.0.0.1%s/export?nfsport=1&mountport=%u", base,
             mount_port);
    cr_assert_lt(pool_open(other, "c", true, &p, detail), 0);
    cr_assert_neq(strstr(detail, "port 1"), NULL, "%s", detail);
    snprintf(other, sizeof other, "nfs://127.0.0.1%s/export?nfsport=%u&mountport=%u", base,
             mount_port, mount_port);
    cr_assert_eq(pool_open(other, "c", true, &p, detail), -EPROTONOSUPPORT, "%s", detail);
}

static bool count_one(void *arg, uint64_t pack)
{
    (void)pack;
    ++*(int *)arg;
    return true;
}

Test(pool_nfs, create_read_list_remove)
{
    static const size_t sizes[] = {0, 1, 4096, 524288, 524289, 1048576, 5000000, 40000000};
    struct pool *p = open_pool(), *other = open_pool();
    int calls = 0;

    for (unsigned i = 0; i < 8; i++) {
        cr_assert_eq(write_object(p, 1 + i, sizes[i]), 0, "%zu: %s", sizes[i], detail);
        cr_assert_eq(read_part(p, 1 + i, 0, sizes[i] + 10), (ssize_t)sizes[i], "short at its end");
        cr_assert_eq(read_part(p, 1 + i, sizes[i] + 5, 10), 0);
        if (sizes[i] > 100)
            cr_assert_eq(read_part(p, 1 + i, sizes[i] / 3, sizes[i] / 2), (ssize_t)(sizes[i] / 2));
    }
    cr_assert_eq(write_object(p, 3, 10), -EEXIST);
    cr_assert_eq(read_part(p, 3, 0, 4096), 4096, "it is still there");
    for (unsigned i = 0; i < 300; i++)
        cr_assert_eq(write_object(p, 0x10077 + i * 256, 10), 0, "%s", detail);
    cr_assert_eq(pack_list(p, count_one, &calls, detail), 0, "%s", detail);
    cr_assert_eq(calls, 308);
    cr_assert_eq(pack_remove(other, 8, detail), 0, "%s", detail);
    cr_assert_eq(pack_remove(p, 8, detail), 0, "removing twice is fine");
    cr_assert_eq(read_part(p, 8, 0, 10), -ENOENT, "a kept handle hides nothing");
    cr_assert_eq(p->driver->create(p->ctx, "../x", (void *[]){NULL}, detail), -EINVAL);
    pool_close(p);
    pool_close(other);
}

static void restart_once(size_t at)
{
    if (at / 1000003 == 20) {
        order("kill");
        order("start");
    }
}

static char torn[256];

/* A machine that crashes loses what was not committed: here all of it. */
static void crash_once(size_t at)
{
    if (at / 1000003 == 5) {
        usleep(300000); /* the WRITEs reach the server */
        order("kill");
        cr_assert_eq(truncate(torn, 0), 0, "%s", strerror(errno));
        order("start");
    }
}

Test(pool_nfs, server_restarts_while_it_is_written)
{
    struct pool *p = open_pool();

    cr_assert_eq(write_parts(p, 1, 50000000, restart_once), 0, "%s", detail);
    cr_assert_eq(read_part(p, 1, 0, 50000000), 50000000, "%s", detail);
    snprintf(torn, sizeof torn, "%s/export/pool/packs/02/%016x", base, 2);
    cr_assert_eq(write_parts(p, 2, 10000000, crash_once), 0, "%s", detail);
    cr_assert_eq(read_part(p, 2, 0, 10000000), 10000000, "%s", detail);
    order("kill");
    order("start");
    cr_assert_eq(read_part(p, 1, 0, 1000000), 1000000, "by the old handle: %s", detail);
    cr_assert_eq(write_object(p, 3, 100), 0, "%s", detail);
    pool_close(p);
}

Test(pool_nfs, server_hangs)
{
    struct pool *p = open_pool();
    int64_t before, first, later;

    cr_assert_eq(write_object(p, 1, 1000), 0, "%s", detail);
    order("freeze");
    before = now_ms();
    cr_assert_eq(read_part(p, 1, 0, 1000), -EHOSTDOWN, "%s", detail);
    first = now_ms() - before;
    cr_assert_neq(strstr(detail, "no "), NULL, "no reply, no answer: %s", detail);
    while (now_ms() - before < 25000 && read_part(p, 1, 0, 1000) < 0)
        ;
    before = now_ms();
    for (int i = 0; i < 3; i++)
        cr_assert_eq(read_part(p, 1, 0, 1000), -EHOSTDOWN, "%s", detail);
    later = now_ms() - before;
    cr_assert_lt(later, first * 3 / 2, "three later ones, %d ms against %d", (int)later,
                 (int)first);
    order("thaw");
    before = now_ms();
    while (read_part(p, 1, 0, 1000) != 1000)
        cr_assert_lt(now_ms() - before, 15000, "it does not come back: %s", detail);
    cr_assert_eq(write_object(p, 2, 1000), 0, "%s", detail);
    pool_close(p);
}

Test(pool_nfs, full_export)
{
    struct pool *p;
    int rc = 0;
    uint64_t object = 1;

    snprintf(url, sizeof url, "nfs://127.0.0.1%s/small?nfsport=%u&mountport=%u", base, port,
             mount_port);
    p = open_pool();
    while (rc == 0 && object < 20)
        rc = write_object(p, object++, 2 << 20);
    cr_expect_eq(rc, -ENOSPC, "%d %s", rc, detail);
    cr_expect_eq(read_part(p, object - 1, 0, 10), -ENOENT, "the torso was removed");
    cr_expect_eq(read_part(p, 1, 0, 2 << 20), 2 << 20, "%s", detail);
    cr_expect_eq(pack_remove(p, 1, detail), 0, "%s", detail);
    cr_expect_eq(write_object(p, 100, 1 << 20), 0, "room again: %s", detail);
    pool_close(p);
}

struct crowd {
    struct pool *pool;
    int failures;
};

static void *crowd_main(void *arg)
{
    struct crowd *c = arg;
    char why[POOL_DETAIL];
    uint8_t buf[5000];

    for (unsigned i = 0; i < 300; i++) {
        struct iovec iov = {buf, sizeof buf};
        char name[32];
        snprintf(name, sizeof name, "packs/%02x/%016x", i % 10 + 1, i % 10 + 1);
        if (c->pool->driver->read(c->pool->ctx, name, i * 7, &iov, 1, why) != sizeof buf ||
            buf[4999] != byte_at(i % 10 + 1, i * 7 + 4999))
            c->failures++;
    }
    return NULL;
}

/* More threads than connections. */
Test(pool_nfs, many_readers)
{
    struct pool *p = open_pool();
    struct crowd crowd[40];
    pthread_t threads[40];

    for (uint64_t i = 1; i <= 10; i++)
        cr_assert_eq(write_object(p, i, 100000), 0, "%s", detail);
    for (int i = 0; i < 40; i++) {
        crowd[i] = (struct crowd){.pool = p};
        cr_assert_eq(pthread_create(&threads[i], NULL, crowd_main, &crowd[i]), 0);
    }
    for (int i = 0; i < 40; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(crowd[i].failures, 0);
    }
    pool_close(p);
}
