/* The state: RENAME by its rules, and random namespace operations compared with the kernel's own
 * filesystem. */
#include "tests/state_world.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

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

TestSuite(state_rename, .init = set_up, .fini = tear_down);

enum { NOREPLACE = 1, EXCHANGE = 2 };

static Star__RenameReply *reply(void)
{
    return world_reply(&w, &star__rename_reply__descriptor);
}

Test(state_rename, files)
{
    uint64_t d = (uint64_t)w_mkdir(&w, ROOT, "d"), a = (uint64_t)w_create(&w, ROOT, "a");
    uint64_t b = (uint64_t)w_create(&w, d, "b");

    cr_assert_eq(w_rename(&w, ROOT, "x", d, "b", 0), -ENOENT);
    cr_assert_eq(w_rename(&w, ROOT, "a", a, "b", 0), -ENOTDIR);
    cr_assert_eq(w_rename(&w, ROOT, "a", d, "b", NOREPLACE), -EEXIST);
    cr_assert_eq(w_rename(&w, ROOT, "a", d, "c", EXCHANGE), -ENOENT);
    cr_assert_eq(w_rename(&w, ROOT, "a", d, "b", NOREPLACE | EXCHANGE), -EINVAL);
    cr_assert_eq(w_rename(&w, ROOT, "a", d, "b", 4), -EINVAL);
    cr_assert_eq(w_rename(&w, ROOT, "a", d, ".", 0), -EINVAL);
    cr_assert_eq(w_rename(&w, ROOT, "..", d, "c", 0), -EINVAL);
    cr_assert_eq(w_rename(&w, ROOT, "a", d, "b", 0), 0);
    cr_assert_eq(reply()->moved, a);
    cr_assert_eq(reply()->replaced, b);
    cr_assert_eq(reply()->replaced_nlink, 0);
    cr_assert_eq(w_lookup(&w, d, "b"), a);
    cr_assert_eq(w_lookup(&w, ROOT, "a"), 0);
    cr_assert(w_inode(&w, b).orphan);
    cr_assert_eq(w_inode(&w, a).ctime.sec, w.now.sec);
    cr_assert_eq(w_inode(&w, d).mtime.sec, w.now.sec);
    cr_assert_eq(w_inode(&w, ROOT).mtime.sec, w.now.sec);
    cr_assert_eq(w_inode(&w, ROOT).entries, 1);
}

Test(state_rename, two_names_of_one_inode)
{
    uint64_t a = (uint64_t)w_create(&w, ROOT, "a");

    w_link(&w, a, ROOT, "b");
    uint64_t change = w_inode(&w, ROOT).change;
    cr_assert_eq(w_rename(&w, ROOT, "a", ROOT, "b", 0), 0);
    cr_assert_eq(reply()->moved, a);
    cr_assert_eq(reply()->replaced, 0);
    cr_assert_eq(w_rename(&w, ROOT, "a", ROOT, "a", 0), 0);
    cr_assert_eq(w_rename(&w, ROOT, "a", ROOT, "a", NOREPLACE), -EEXIST);
    cr_assert_eq(w_inode(&w, a).nlink, 2);
    cr_assert_eq(w_inode(&w, ROOT).change, change);
    w_create(&w, ROOT, "c");
    cr_assert_eq(w_rename(&w, ROOT, "c", ROOT, "b", 0), 0);
    cr_assert_eq(reply()->replaced, a);
    cr_assert_eq(reply()->replaced_nlink, 1);
}

Test(state_rename, directories)
{
    uint64_t a = (uint64_t)w_mkdir(&w, ROOT, "a"), b = (uint64_t)w_mkdir(&w, ROOT, "b");
    uint64_t c = (uint64_t)w_mkdir(&w, a, "c"), e = (uint64_t)w_mkdir(&w, c, "e");

    w_create(&w, ROOT, "f");
    cr_assert_eq(w_rename(&w, ROOT, "a", ROOT, "f", 0), -ENOTDIR);
    cr_assert_eq(w_rename(&w, ROOT, "f", ROOT, "a", 0), -EISDIR);
    cr_assert_eq(w_rename(&w, ROOT, "b", ROOT, "a", 0), -ENOTEMPTY);
    cr_assert_eq(w_rename(&w, ROOT, "a", a, "x", 0), -EINVAL);
    cr_assert_eq(w_rename(&w, ROOT, "a", e, "x", 0), -EINVAL);
    cr_assert_eq(w_rename(&w, ROOT, "a", e, "x", NOREPLACE), -EINVAL);
    cr_assert_eq(w_rename(&w, c, "e", ROOT, "a", 0), -ENOTEMPTY);
    cr_assert_eq(w_rename(&w, c, "e", ROOT, "a", EXCHANGE), -EINVAL);
    cr_assert_eq(w_rename(&w, ROOT, "a", c, "e", EXCHANGE), -EINVAL);
    cr_assert_eq(w_inode(&w, ROOT).nlink, 4);

    cr_assert_eq(w_rename(&w, a, "c", ROOT, "b", 0), 0); /* over an empty one */
    cr_assert_eq(reply()->replaced, b);
    cr_assert_eq(w_inode(&w, ROOT).nlink, 4);
    cr_assert_eq(w_inode(&w, a).nlink, 2);
    cr_assert_eq(w_inode(&w, c).parent, ROOT);
    cr_assert_eq(w_lookup(&w, c, ".."), ROOT);
    cr_assert_eq(w_inode(&w, b).nlink, 0);
    cr_assert_eq(w_rename(&w, ROOT, "f", b, "x", 0), -ENOENT, "into a removed directory");
    cr_assert_eq(w_rename(&w, b, "f", ROOT, "x", 0), -ENOENT);
}

Test(state_rename, exchange)
{
    uint64_t a = (uint64_t)w_mkdir(&w, ROOT, "a"), b = (uint64_t)w_mkdir(&w, ROOT, "b");
    uint64_t c = (uint64_t)w_mkdir(&w, a, "c"), f = (uint64_t)w_create(&w, b, "f");

    w_create(&w, c, "inside");
    cr_assert_eq(w_rename(&w, a, "c", b, "f", EXCHANGE), 0);
    cr_assert_eq(reply()->replaced, 0);
    cr_assert_eq(w_lookup(&w, a, "c"), f);
    cr_assert_eq(w_lookup(&w, b, "f"), c);
    cr_assert_eq(w_lookup(&w, c, ".."), b);
    cr_assert_eq(w_inode(&w, a).nlink, 2);
    cr_assert_eq(w_inode(&w, b).nlink, 3);
    cr_assert_eq(w_inode(&w, f).ctime.sec, w.now.sec);
    cr_assert_eq(w_inode(&w, c).ctime.sec, w.now.sec);
    char path[64];
    state_path(w.s, f, path, sizeof(path));
    cr_assert_str_eq(path, "/a/c");
    cr_assert_eq(w_rename(&w, ROOT, "a", ROOT, "b", EXCHANGE), 0);
    cr_assert_eq(w_lookup(&w, ROOT, "a"), b);
    state_path(w.s, f, path, sizeof(path));
    cr_assert_str_eq(path, "/b/c");
}

/* --- the same operations, here and on the filesystem of the test's folder --- */

enum { DIRS = 40, NAMES = 6, OPS = 20000 };

static struct {
    uint64_t ino;
    int fd;
} dirs[DIRS];
static unsigned dir_count;
static uint64_t seed = 0x5eed5eed;

static unsigned random_below(unsigned n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

static const char *random_name(void)
{
    static const char *const names[NAMES] = {"a", "b", "c", "d", "e", "f"};

    return names[random_below(NAMES)];
}

static int outcome(int rc)
{
    return rc == 0 ? 0 : -errno;
}

static void dir_known(uint64_t ino, int fd)
{
    unsigned slot = dir_count < DIRS ? dir_count++ : 1 + random_below(DIRS - 1);

    if (dirs[slot].fd > 0)
        close(dirs[slot].fd);
    dirs[slot].ino = ino;
    dirs[slot].fd = fd;
}

static void make(unsigned d, const char *name, unsigned kind)
{
    int here, there;

    if (kind == 0) {
        here = w_mkdir(&w, dirs[d].ino, name) < 0 ? w.result.status : 0;
        there = outcome(mkdirat(dirs[d].fd, name, 0755));
        if (here == 0 && there == 0)
            dir_known(w.ino, openat(dirs[d].fd, name, O_RDONLY | O_DIRECTORY));
    } else if (kind == 1) {
        here = w_symlink(&w, dirs[d].ino, name, "target") < 0 ? w.result.status : 0;
        there = outcome(symlinkat("target", dirs[d].fd, name));
    } else {
        here = w_create(&w, dirs[d].ino, name) < 0 ? w.result.status : 0;
        there = outcome(mknodat(dirs[d].fd, name, S_IFREG | 0644, 0));
    }
    cr_assert_eq(here, there, "make %u: %d, the kernel says %d", kind, here, there);
}

static void link_name(unsigned d, const char *name, unsigned to, const char *new_name)
{
    uint64_t ino = w_lookup(&w, dirs[d].ino, name);

    if (ino == 0)
        return;
    int here = w_link(&w, ino, dirs[to].ino, new_name);
    int there = outcome(linkat(dirs[d].fd, name, dirs[to].fd, new_name, 0));
    if (here == -EEXIST && there == -EPERM)
        return; /* which of two reasons is named first does not matter */
    cr_assert_eq(here, there, "link: %d, the kernel says %d", here, there);
}

static void rename_name(unsigned d, const char *name, unsigned to, const char *new_name)
{
    unsigned flags = random_below(3);
    int here = w_rename(&w, dirs[d].ino, name, dirs[to].ino, new_name, flags);
    int there = outcome(renameat2(dirs[d].fd, name, dirs[to].fd, new_name, flags));

    cr_assert_eq(here, there, "rename with flags %u: %d, the kernel says %d", flags, here, there);
}

static void one_operation(void)
{
    unsigned d = random_below(dir_count), to = random_below(dir_count), op = random_below(10);
    const char *name = random_name(), *other = random_name();
    int here, there;

    if (op < 3) {
        make(d, name, op);
    } else if (op < 4) {
        link_name(d, name, to, other);
    } else if (op < 6) {
        here = op == 4 ? w_unlink(&w, dirs[d].ino, name) : w_rmdir(&w, dirs[d].ino, name);
        there = outcome(unlinkat(dirs[d].fd, name, op == 4 ? 0 : AT_REMOVEDIR));
        cr_assert_eq(here, there, "remove: %d, the kernel says %d", here, there);
    } else {
        rename_name(d, name, to, other);
    }
}

struct compare {
    int fd;
    unsigned entries;
    bool links;
};

static void compare_dir(uint64_t ino, int fd, bool links);

static bool compare_entry(void *arg, const char *name, size_t len, uint64_t ino, uint32_t type,
                          uint64_t cookie)
{
    struct compare *c = arg;
    char text[16] = "";
    struct stat st;

    (void)cookie;
    c->entries++;
    memcpy(text, name, len);
    if (text[0] == '.')
        return true;
    struct inode i = w_inode(&w, ino);
    cr_assert_eq(fstatat(c->fd, text, &st, AT_SYMLINK_NOFOLLOW), 0);
    cr_assert_eq(st.st_mode & S_IFMT, type);
    cr_assert_eq(i.mode & S_IFMT, type);
    if (c->links || !S_ISDIR(st.st_mode))
        cr_assert_eq(st.st_nlink, i.nlink);
    if (S_ISDIR(st.st_mode)) {
        int fd = openat(c->fd, text, O_RDONLY | O_DIRECTORY);
        compare_dir(ino, fd, c->links);
        close(fd);
    }
    return true;
}

static void compare_dir(uint64_t ino, int fd, bool links)
{
    struct compare c = {.fd = fd, .links = links};
    bool eof;
    unsigned there = 0;

    cr_assert_eq(state_readdir(w.s, ino, 0, compare_entry, &c, &eof), 0);
    DIR *d = fdopendir(dup(fd));
    rewinddir(d);
    while (readdir(d))
        there++;
    closedir(d);
    cr_assert_eq(c.entries, there);
}

Test(state_rename, as_the_kernel_does, .timeout = 600)
{
    char path[192];
    struct stat st;

    snprintf(path, sizeof(path), "%s/real", w.dir);
    cr_assert_eq(mkdir(path, 0755), 0);
    dir_known(ROOT, open(path, O_RDONLY | O_DIRECTORY));
    cr_assert_eq(fstat(dirs[0].fd, &st), 0);
    bool links = st.st_nlink == 2; /* some filesystems do not count links of directories */
    int probe = openat(dirs[0].fd, "probe", O_CREAT | O_WRONLY, 0600);
    close(probe);
    if (renameat2(dirs[0].fd, "probe", dirs[0].fd, "probe", NOREPLACE) == 0 || errno != EEXIST)
        cr_skip_test("the test's folder cannot rename with flags");
    unlinkat(dirs[0].fd, "probe", 0);
    for (int n = 0; n < OPS; n++) {
        one_operation();
        if (random_below(20) == 0)
            world_commit(&w);
        if (n % 1000 == 999) {
            compare_dir(ROOT, dirs[0].fd, links);
            cr_assert_eq(world_check(&w), 0);
        }
    }
    compare_dir(ROOT, dirs[0].fd, links);
}
