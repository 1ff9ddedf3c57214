/* The state: ACLs by their rules, and random ones compared with the kernel's own filesystem. */
#include "tests/state_world.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ACCESS  "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

struct acl {
    size_t len;
    uint8_t bytes[4 + 8 * 16];
};

static struct world w;

static void set_up(void)
{
    world_start(&w);
}

static void tear_down(void)
{
    cr_assert_eq(world_check(&w), 0);
    world_end(&w);
}

TestSuite(state_acl, .init = set_up, .fini = tear_down);

static void add(struct acl *a, uint16_t tag, uint16_t perm, uint32_t id)
{
    if (a->len == 0) {
        memcpy(a->bytes, (uint8_t[4]){2}, 4);
        a->len = 4;
    }
    memcpy(a->bytes + a->len, &tag, 2);
    memcpy(a->bytes + a->len + 2, &perm, 2);
    memcpy(a->bytes + a->len + 4, &id, 4);
    a->len += 8;
}

/* u::p, u:5:q, g::r, m::m, o::o; without u:5 and mask if m > 7. */
static struct acl simple(uint16_t u, uint16_t named, uint16_t g, uint16_t m, uint16_t o)
{
    struct acl a = {0};

    add(&a, USER_OBJ, u, UINT32_MAX);
    if (m <= 7)
        add(&a, USER, named, 5);
    add(&a, GROUP_OBJ, g, UINT32_MAX);
    if (m <= 7)
        add(&a, MASK, m, UINT32_MAX);
    add(&a, OTHER, o, UINT32_MAX);
    return a;
}

static int put(uint64_t ino, const char *name, const struct acl *a, bool kill)
{
    return w_xattr(&w, STAR__MSG_TYPE__SETXATTR, ino, name, a->bytes, a->len, 0, kill);
}

static int take(uint64_t ino, const char *name)
{
    return w_xattr(&w, STAR__MSG_TYPE__REMOVEXATTR, ino, name, NULL, 0, 0, false);
}

static struct acl get(uint64_t ino, const char *name)
{
    struct acl a = {0};

    int rc = state_getxattr(w.s, ino, name, a.bytes, sizeof(a.bytes), &a.len);
    cr_assert(rc == 0 || rc == -ENODATA);
    return a;
}

static uint32_t mode_of(uint64_t ino)
{
    return w_inode(&w, ino).mode & 07777;
}

Test(state_acl, access_acl_is_the_mode)
{
    uint64_t f = (uint64_t)w_create(&w, ROOT, "f");
    struct acl a = simple(7, 6, 5, 4, 1);

    cr_assert_eq(put(f, ACCESS, &a, false), 0);
    Star__AttrReply *r = world_reply(&w, &star__attr_reply__descriptor);
    cr_assert_eq(r->attr->mode, S_IFREG | 0741, "the group bits are the mask");
    cr_assert(w_inode(&w, f).has_acl);
    cr_assert_eq(w_chmod(&w, f, 0620), 0);
    struct acl b = get(f, ACCESS), c = simple(6, 6, 5, 2, 0);
    cr_assert_eq(b.len, c.len);
    cr_assert_eq(memcmp(b.bytes, c.bytes, b.len), 0,
                 "chmod changes the mask, not the group's entry");
    a = simple(6, 0, 4, 8, 4);
    cr_assert_eq(put(f, ACCESS, &a, false), 0);
    cr_assert_eq(mode_of(f), 0644);
    cr_assert_not(w_inode(&w, f).has_acl, "an ACL that says no more than the mode is not kept");
    cr_assert_eq(get(f, ACCESS).len, 0);
    a = simple(7, 6, 5, 4, 1);
    cr_assert_eq(put(f, ACCESS, &a, false), 0);
    cr_assert_eq(take(f, ACCESS), 0);
    cr_assert_eq(mode_of(f), 0741, "without its ACL the mode stays");
    cr_assert_eq(take(f, ACCESS), 0, "as on local filesystems");
}

Test(state_acl, set_group_id_is_killed_when_asked)
{
    uint64_t f = (uint64_t)w_create(&w, ROOT, "f");
    struct acl a = simple(7, 6, 5, 5, 1);

    cr_assert_eq(w_chmod(&w, f, 02755), 0);
    cr_assert_eq(put(f, ACCESS, &a, false), 0);
    cr_assert_eq(mode_of(f), 02751);
    cr_assert_eq(put(f, ACCESS, &a, true), 0);
    cr_assert_eq(mode_of(f), 0751);
}

Test(state_acl, only_where_they_belong)
{
    uint64_t f = (uint64_t)w_create(&w, ROOT, "f"), l = (uint64_t)w_symlink(&w, ROOT, "l", "f");
    struct acl a = simple(7, 6, 5, 5, 1);

    cr_assert_eq(put(f, DEFAULT, &a, false), -EACCES);
    cr_assert_eq(put(l, ACCESS, &a, false), -EOPNOTSUPP);
    a.bytes[0] = 3;
    cr_assert_eq(put(f, ACCESS, &a, false), -EOPNOTSUPP, "an unknown version");
}

Test(state_acl, malformed)
{
    uint64_t f = (uint64_t)w_create(&w, ROOT, "f");
    struct acl a = simple(7, 6, 5, 5, 1);

    for (size_t len = 1; len < a.len; len++) {
        struct acl part = a;
        part.len = len;
        if (len != 4) /* no entries: takes the ACL away */
            cr_assert_eq(put(f, ACCESS, &part, false), -EINVAL, "%zu bytes", len);
    }
    a = simple(8, 6, 5, 5, 1);
    cr_assert_eq(put(f, ACCESS, &a, false), -EINVAL);
    a = (struct acl){0};
    add(&a, USER_OBJ, 7, UINT32_MAX);
    add(&a, USER, 7, 5);
    add(&a, GROUP_OBJ, 7, UINT32_MAX);
    add(&a, OTHER, 7, UINT32_MAX);
    cr_assert_eq(put(f, ACCESS, &a, false), -EINVAL, "a named entry needs a mask");
    a = (struct acl){0};
    add(&a, GROUP_OBJ, 7, UINT32_MAX);
    add(&a, USER_OBJ, 7, UINT32_MAX);
    add(&a, OTHER, 7, UINT32_MAX);
    cr_assert_eq(put(f, ACCESS, &a, false), -EINVAL);
    cr_assert_eq(mode_of(f), 0644);
}

Test(state_acl, default_acl_is_inherited)
{
    uint64_t d = (uint64_t)w_mkdir(&w, ROOT, "d");
    struct acl a = simple(7, 6, 5, 7, 0);

    cr_assert_eq(put(d, DEFAULT, &a, false), 0);
    cr_assert_eq(mode_of(d), 0755, "it does not speak of the directory itself");
    w.umask = 077; /* not applied: the ACL takes its place */
    uint64_t f = (uint64_t)w_create(&w, d, "f"), e = (uint64_t)w_mkdir(&w, d, "e");
    struct acl want = simple(6, 6, 5, 4, 0), got = get(f, ACCESS);
    cr_assert_eq(mode_of(f), 0640);
    cr_assert_eq(got.len, want.len);
    cr_assert_eq(memcmp(got.bytes, want.bytes, want.len), 0);
    cr_assert_eq(get(f, DEFAULT).len, 0);
    got = get(e, DEFAULT);
    cr_assert_eq(got.len, a.len);
    cr_assert_eq(memcmp(got.bytes, a.bytes, a.len), 0);
    cr_assert_eq(mode_of(e), 0750);
    cr_assert_eq(take(d, DEFAULT), 0);
    uint64_t g = (uint64_t)w_create(&w, d, "g");
    cr_assert_eq(mode_of(g), 0600);
    cr_assert_not(w_inode(&w, g).has_acl);
}

/* --- the same here and on the filesystem of the test's folder --- */

enum { OPS = 5000, OBJECTS = 24 };

static uint64_t seed = 42;
static char real[160];
static struct {
    uint64_t ino;
    char path[224];
    bool dir;
} objects[OBJECTS];
static unsigned object_count, made;

static unsigned random_below(unsigned n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

static int outcome(int rc)
{
    return rc == 0 ? 0 : -errno;
}

/* Mostly in order; sometimes something is missing, twice there, or wrong. */
static struct acl random_acl(void)
{
    static const uint16_t tags[] = {USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER};
    struct acl a = {0};

    for (unsigned t = 0; t < 6; t++) {
        bool named = tags[t] == USER || tags[t] == GROUP;
        unsigned times = named             ? random_below(3)
                         : tags[t] == MASK ? random_below(2)
                                           : random_below(40) != 0;
        if (tags[t] == MASK && a.len > 20)
            times = random_below(20) != 0;
        for (unsigned n = 0; n < times; n++)
            add(&a, tags[t], (uint16_t)(random_below(60) ? random_below(8) : 9),
                named ? random_below(5) : UINT32_MAX);
    }
    if (random_below(60) == 0)
        a.bytes[4] ^= 3;
    return a;
}

static void same(unsigned o)
{
    static const char *const names[] = {ACCESS, DEFAULT};
    struct stat st;

    cr_assert_eq(lstat(objects[o].path, &st), 0);
    cr_assert_eq(w_inode(&w, objects[o].ino).mode, st.st_mode, "%s: %o, the kernel says %o",
                 objects[o].path, w_inode(&w, objects[o].ino).mode, st.st_mode);
    for (int n = 0; n < 2; n++) {
        struct acl a = get(objects[o].ino, names[n]), b = {0};
        ssize_t len = getxattr(objects[o].path, names[n], b.bytes, sizeof(b.bytes));
        cr_assert_eq(a.len, len < 0 ? 0 : (size_t)len, "%s of %s", names[n], objects[o].path);
        cr_assert_eq(memcmp(a.bytes, b.bytes, a.len), 0, "%s of %s", names[n], objects[o].path);
    }
}

static void object_known(uint64_t ino, const char *path, bool dir)
{
    unsigned slot = object_count < OBJECTS ? object_count++ : 1 + random_below(OBJECTS - 1);

    objects[slot].ino = ino;
    objects[slot].dir = dir;
    snprintf(objects[slot].path, sizeof(objects[slot].path), "%s", path);
    same(slot);
}

static void make(unsigned o)
{
    char name[16], path[224];
    uint32_t mode = random_below(010000);
    bool dir = random_below(2) == 0;

    if (!objects[o].dir || strlen(objects[o].path) > 150)
        return;
    snprintf(name, sizeof(name), "%u", made++);
    snprintf(path, sizeof(path), "%.180s/%s", objects[o].path, name);
    mode &= 01777; /* mkdir and mknod treat the set-id bits in ways of their own */
    w.umask = random_below(01000);
    umask(w.umask);
    int64_t here = world_make(&w, dir ? STAR__MSG_TYPE__MKDIR : STAR__MSG_TYPE__MKNOD,
                              objects[o].ino, name, dir ? mode : S_IFREG | mode, NULL);
    int there = dir ? outcome(mkdir(path, mode)) : outcome(mknod(path, S_IFREG | mode, 0));
    cr_assert_eq(here < 0 ? here : 0, there);
    if (there == 0)
        object_known((uint64_t)here, path, dir);
}

static void change(unsigned o)
{
    const char *name = random_below(2) ? ACCESS : DEFAULT;
    int here, there;

    switch (random_below(5)) {
    case 0: {
        uint32_t mode = random_below(010000);
        here = w_chmod(&w, objects[o].ino, mode);
        there = outcome(chmod(objects[o].path, mode));
        break;
    }
    case 1:
        here = take(objects[o].ino, name);
        there = outcome(removexattr(objects[o].path, name));
        break;
    default: {
        struct acl a = random_acl();
        here = put(objects[o].ino, name, &a, false);
        there = outcome(setxattr(objects[o].path, name, a.bytes, a.len, 0));
        break;
    }
    }
    if (here == -EACCES && there == -EINVAL)
        there = here; /* a bad default ACL on a file: either reason will do */
    cr_assert_eq(here, there, "%s of %s: %d, the kernel says %d", name, objects[o].path, here,
                 there);
    same(o);
}

Test(state_acl, as_the_kernel_does, .timeout = 600)
{
    struct acl a = simple(7, 6, 5, 4, 1);

    snprintf(real, sizeof(real), "%s/real", w.dir);
    cr_assert_eq(mkdir(real, 0755), 0);
    cr_assert_eq(chmod(real, 0755), 0);
    if (geteuid() != 0 || setxattr(real, ACCESS, a.bytes, a.len, 0) != 0)
        cr_skip_test("needs root, and ACLs on the test's folder");
    cr_assert_eq(put(ROOT, ACCESS, &a, false), 0);
    object_known(ROOT, real, true);
    for (int n = 0; n < OPS; n++) {
        unsigned o = random_below(object_count);
        if (random_below(3) == 0)
            make(o);
        else
            change(o);
    }
    umask(022);
}
