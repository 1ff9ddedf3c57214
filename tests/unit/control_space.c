/* The disk under the centre is full: the ballast, the state's file, the log, snapshots. On a small
 * filesystem of its own; without the right to mount one only the ballast itself is tested. */
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "control/ballast.h"
#include "control_fake.h"
#include "tests/state_world.h"

#define MIB ((uint64_t)1 << 20)

static char folder[64];
static bool mounted;

static void begin(void)
{
    snprintf(folder, sizeof(folder), "/tmp/umbel-space-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    mounted = mount("none", folder, "tmpfs", 0, "size=192m") == 0;
}

static void end(void)
{
    if (mounted)
        umount2(folder, MNT_DETACH);
    rmdir(folder);
}

TestSuite(control_space, .init = begin, .fini = end, .timeout = 600);

static uint64_t free_bytes(void)
{
    struct statvfs v;

    cr_assert_eq(statvfs(folder, &v), 0);
    return (uint64_t)v.f_bavail * v.f_frsize;
}

/* Somebody else takes all but `left` bytes. */
static void fill(uint64_t left)
{
    char path[96];

    snprintf(path, sizeof(path), "%s/filler", folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0600), rc = -1;
    /* The log may be preparing a segment at the same time. */
    for (int tries = 0; rc != 0 && tries < 200; tries++) {
        uint64_t now = free_bytes();
        off_t end = lseek(fd, 0, SEEK_END);
        rc = now > left ? fallocate(fd, 0, end, (off_t)(now - left)) : 0;
        if (rc != 0)
            usleep(10000);
    }
    cr_assert_eq(rc, 0);
    close(fd);
}

static bool unfill(void *arg, uint64_t bytes)
{
    char path[96];

    (void)arg, (void)bytes;
    snprintf(path, sizeof(path), "%s/filler", folder);
    return unlink(path) == 0;
}

Test(control_space, ballast)
{
    struct ballast b;
    char path[96];
    struct stat st;

    snprintf(path, sizeof(path), "%s/ballast", folder);
    cr_assert_eq(ballast_open(&b, path, BALLAST_STEP - 1), 0);
    cr_expect(ballast_whole(&b), "so little is not held");
    cr_assert_eq(ballast_open(&b, path, 40 * MIB), 0);
    cr_expect_not(ballast_whole(&b));
    ballast_fill(&b, 30 * MIB, 30 * MIB);
    cr_expect_eq(b.held, 0);
    ballast_fill(&b, 50 * MIB, 30 * MIB);
    cr_expect_eq(b.held, 16 * MIB);
    ballast_fill(&b, UINT64_MAX, 30 * MIB);
    cr_expect(ballast_whole(&b));
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_geq((uint64_t)st.st_blocks * 512, 40 * MIB, "real bytes");
    cr_expect(ballast_release(&b, 1));
    cr_expect_eq(b.held, 24 * MIB);
    ballast_close(&b);
    cr_assert_eq(ballast_open(&b, path, 40 * MIB), 0);
    cr_expect_eq(b.held, 24 * MIB, "as it was left");
    cr_expect(ballast_release(&b, 64 * MIB));
    cr_expect_not(ballast_release(&b, 1));
    ballast_close(&b);
    unlink(path);
}

/* --- the state's file --- */

static int put_value(struct world *w, unsigned k)
{
    static char value[STATE_XATTR_VALUE_MAX];
    Star__Xattr q = STAR__XATTR__INIT;
    char name[32];
    size_t len;

    snprintf(name, sizeof(name), "user.%u", k % 15);
    q.ino = w->ino - k / 15;
    q.name = world_bytes(name);
    q.value = (ProtobufCBinaryData){sizeof(value) - 1, (uint8_t *)value};
    uint8_t *packed = world_pack(w, STAR__MSG_TYPE__SETXATTR, &q.base, &len);
    int rc = state_apply(w->s, ++w->count, packed, len, &w->result);
    free(packed);
    if (rc == 0)
        cr_assert_eq(w->result.status, 0);
    return rc;
}

static void full_turn(struct world *w)
{
    char name[32];

    setenv("TMPDIR", folder, 1);
    world_start(w);
    unsetenv("TMPDIR");
    for (unsigned k = 0; k < 100; k++) {
        snprintf(name, sizeof(name), "f%u", k);
        w_create(w, ROOT, name);
    }
    world_commit(w);
    fill(0);
    cr_assert_eq(state_begin(w->s), 0);
}

/* More in one turn than was taken ahead: without a reserve that is an error, not a SIGBUS. */
Test(control_space, a_turn_on_a_full_disk)
{
    struct world w;
    int rc = 0;

    if (!mounted)
        cr_skip_test("this needs the right to mount");
    full_turn(&w);
    bool told = false;
    for (unsigned k = 0; rc == 0 && k < 1000; k++) {
        told |= state_turn_full(w.s);
        rc = put_value(&w, k);
    }
    cr_expect_eq(rc, -ENOSPC);
    cr_expect(told, "a commit in time was asked for");
    state_close(w.s, false);
    w.s = NULL;
    unfill(NULL, 0);
    world_end(&w);
}

Test(control_space, a_turn_on_a_full_disk_with_a_reserve)
{
    struct world w;

    if (!mounted)
        cr_skip_test("this needs the right to mount");
    full_turn(&w);
    state_on_full(w.s, unfill, NULL);
    for (unsigned k = 0; k < 1000; k++)
        cr_assert_eq(put_value(&w, k), 0);
    world_commit(&w);
    cr_expect_eq(world_check(&w), 0);
    world_end(&w);
}

/* --- the whole centre --- */

/* About 90 KB for the log. */
static int node_tells(struct fake_node *n, uint64_t ino, uint64_t version)
{
    enum { COUNT = 4000 };
    static Star__HomeAttrs one[COUNT];
    static Star__HomeAttrs *list[COUNT];
    Star__NodeAttrs body = STAR__NODE_ATTRS__INIT;

    for (unsigned k = 0; k < COUNT; k++) {
        star__home_attrs__init(&one[k]);
        one[k].ino = ino;
        one[k].size = 1ull << 40;
        one[k].version = version * COUNT + k;
        one[k].home_epoch = 1;
        list[k] = &one[k];
    }
    body.n_attrs = COUNT;
    body.attrs = list;
    return ask_end(ask(n->client, T(NODE_ATTRS), &body));
}

static uint64_t ballast_bytes(struct mount *m)
{
    char *text = ctl_read(m, "status"), *at = strstr(text, "log_ballast ");
    uint64_t bytes = at ? strtoull(at + strlen("log_ballast "), NULL, 10) : UINT64_MAX;

    free(text);
    return bytes;
}

/* Changes are refused, what frees space or was promised goes on from the ballast, and with space
 * all is as before. */
Test(control_space, the_centre_lives_on_its_ballast)
{
    struct cloud cloud = {.reserve = 64 * MIB};
    struct fake_node node;
    struct mount a;
    char name[32];

    if (!mounted)
        cr_skip_test("this needs the right to mount");
    setenv("UMBEL_SNAPSHOT_ENTRIES", "300", 1);
    snprintf(cloud.dir, sizeof(cloud.dir), "%s/c", folder);
    cr_assert_eq(mkdir(cloud.dir, 0700), 0);
    snprintf(cloud.address, sizeof(cloud.address), "unix:%s/sock", cloud.dir);
    cloud_start(&cloud);
    unsetenv("UMBEL_SNAPSHOT_ENTRIES");
    node_start(&node, &cloud, "node-1");
    mount_start(&a, &cloud, "mnt-1");
    uint64_t ino = file_new(&a, T(CREATE), "x");
    cr_expect_eq(ballast_bytes(&a), 64 * MIB);
    fill(0);
    eventually(make_now(&a, T(MKDIR), "refused", NULL) == -ENOSPC);
    cr_expect(ctl_says(&a, "health", "ENOSPC"));
    for (unsigned k = 0; k < 600; k++) {
        cr_assert_eq(node_tells(&node, ino, 1 + k), 0, "report %u", k);
        cr_assert_eq(mount_renew(&a), 0);
    }
    cr_expect_lt(ballast_bytes(&a), 64 * MIB);
    cr_expect_gt(ballast_bytes(&a), 0);
    cr_expect(ctl_says(&a, "health", "bytes for a snapshot"));
    cloud_kill(&cloud);
    cloud_start(&cloud);
    eventually(ctl_says(&a, "status", "state serving"));
    cr_expect_eq(make_now(&a, T(MKDIR), "refused", NULL), -ENOSPC);
    unfill(NULL, 0);
    eventually(ballast_bytes(&a) == 64 * MIB);
    for (unsigned k = 0; k < 20; k++) {
        snprintf(name, sizeof(name), "d%u", k);
        cr_expect_eq(make_now(&a, T(MKDIR), name, NULL), 0);
    }
    cr_expect(ctl_says(&a, "fsck", "problems 0\n"));
    mount_stop(&a);
    node_stop(&node);
    cloud_stop(&cloud);
}
