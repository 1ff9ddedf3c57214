/*
 * Differential test of a filesystem: the same random operations go to a local reference folder and,
 * through one mount or the other, to the filesystem under test; result, errno, data and attributes
 * must be the same after each.
 *
 *   fsdiff [OPTION...] REFERENCE MOUNT_A [MOUNT_B]
 *
 * All folders must be empty at the start, and are emptied at the end if no difference was found.
 * MOUNT_A and MOUNT_B show the same folder. Needs root.
 *
 *   --seed N       other operations; the same seed gives the same ones
 *   --ops N        how many
 *   --check N      after every N operations the whole tree is compared
 *   --skip OP,...  leaves operations out
 *   --sabotage N   after N operations one byte of a file at MOUNT_A is changed behind the
 *                  reference's back. It must be found, but operations up to the next comparing
 *                  may overwrite it: a multiple of --check leaves them no time
 *   --loose-append does not compare where an O_APPEND handle stands after a write: FUSE computes it
 *                  from a size that another mount may have changed
 *   --verbose      prints each operation
 *
 * Exit status: 0 no difference, 1 a difference (with the last operations), 2 wrong usage or a
 * broken environment.
 */
#include "fsdiff_handles.h"

#include <assert.h>
#include <getopt.h>
#include <linux/fs.h>

#define CHECK_DEFAULT  250
#define OPS_DEFAULT    5000
#define XATTR_VALUE    300 /* four of them fit into any filesystem's block */
#define EXPLICIT_RANGE 900000000

static const char *const targets[] = {"f0",   "f1", "d0", "d1",     "d0/f0",
                                      "./f2", "l0", "l1", "nowhere"};
static const char *const xattr_names[] = {"user.a", "user.b", "user.long_name_of_an_attribute",
                                          "user.\xc3\xbc"};

/* ---- names */

/* Defines op_NAME: call is done at both sides with the path in `path`, of a name that is mostly of
 * that kind. */
#define PATH_OP(NAME, kind, setup, text, call)                                                     \
    static void op_##NAME(struct world *w)                                                         \
    {                                                                                              \
        struct outcome two[2];                                                                     \
        char rel[REL_MAX], path[FULL_MAX];                                                         \
        int mount = choose_mount(w);                                                               \
        choose_path(w, kind, rel);                                                                 \
        setup;                                                                                     \
        note text;                                                                                 \
        for (int i = 0; i < 2; i++) {                                                              \
            full(w, i ? mount : 0, rel, path);                                                     \
            DO(two, i, call);                                                                      \
        }                                                                                          \
        same_outcome(w, two, mount);                                                               \
        (void)same_path(w, rel, NULL);                                                             \
        same_parent(w, rel);                                                                       \
    }

PATH_OP(truncate, 'f', uint32_t size = choose_offset(w, FILE_MAX),
        (w, "%s truncate(%s, %u)", side_name(mount), rel, size), truncate(path, size))
PATH_OP(unlink, 'f', , (w, "%s unlink(%s)", side_name(mount), rel), unlink(path))
PATH_OP(mkdir, 'd', mode_t mode = choose_mode(w) | 0700,
        (w, "%s mkdir(%s, 0%o)", side_name(mount), rel, mode), mkdir(path, mode))
PATH_OP(rmdir, 'd', , (w, "%s rmdir(%s)", side_name(mount), rel), rmdir(path))
PATH_OP(symlink, 'l', const char *target = ONE_OF(w, targets),
        (w, "%s symlink(%s -> %s)", side_name(mount), rel, target), symlink(target, path))
PATH_OP(mkfifo, 'f', mode_t mode = choose_mode(w),
        (w, "%s mknod(%s, FIFO, 0%o)", side_name(mount), rel, mode), mknod(path, S_IFIFO | mode, 0))
PATH_OP(chmod, 'f', mode_t mode = choose_mode(w),
        (w, "%s chmod(%s, 0%o)", side_name(mount), rel, mode), chmod(path, mode))
static const uid_t owners[] = {0, 1000, 65534, (uid_t)-1};
PATH_OP(chown, 'f', uid_t uid = ONE_OF(w, owners);
        gid_t gid = ONE_OF(w, owners),
        (w, "%s lchown(%s, %d, %d)", side_name(mount), rel, (int)uid, (int)gid),
        lchown(path, uid, gid))

static struct timespec choose_time(struct world *w)
{
    uint32_t kind = below(w, 100);

    if (kind < 10)
        return (struct timespec){.tv_nsec = UTIME_NOW};
    if (kind < 20)
        return (struct timespec){.tv_nsec = UTIME_OMIT};
    return (struct timespec){.tv_sec = (time_t)below(w, EXPLICIT_RANGE) -
                                       (kind < 25 ? EXPLICIT_RANGE : 0),
                             .tv_nsec = below(w, 1000000000)};
}

PATH_OP(utimens, 'f', struct timespec times[2]; times[0] = choose_time(w);
        times[1] = choose_time(w),
        (w, "%s utimensat(%s, mtime %jd.%09ld)", side_name(mount), rel, (intmax_t)times[1].tv_sec,
         times[1].tv_nsec),
        utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW))

static const int xattr_flags[] = {0, 0, 0, XATTR_CREATE, XATTR_REPLACE};
PATH_OP(setxattr, 'f', const char *name = ONE_OF(w, xattr_names);
        size_t len = below(w, XATTR_VALUE); int flags = ONE_OF(w, xattr_flags);
        const uint8_t *value = w->noise + below(w, DATA_MAX),
        (w, "%s lsetxattr(%s, %s, %zu bytes, flags %d)", side_name(mount), rel, name, len, flags),
        lsetxattr(path, name, value, len, flags))
PATH_OP(removexattr, 'f', const char *name = ONE_OF(w, xattr_names),
        (w, "%s lremovexattr(%s, %s)", side_name(mount), rel, name), lremovexattr(path, name))
static const size_t xattr_rooms[] = {0, 10, XATTR_MAX, XATTR_MAX};
PATH_OP(getxattr, 'f', const char *name = ONE_OF(w, xattr_names);
        size_t room = ONE_OF(w, xattr_rooms),
        (w, "%s lgetxattr(%s, %s, room %zu)", side_name(mount), rel, name, room),
        lgetxattr(path, name, w->data[i], room))

static void op_listxattr(struct world *w)
{
    char rel[REL_MAX];
    int mount = choose_mount(w);

    choose_path(w, 'f', rel);
    note(w, "%s llistxattr(%s)", side_name(mount), rel);
    same_xattrs(w, rel, mount);
}

static void op_readlink(struct world *w)
{
    char rel[REL_MAX];
    int mount = choose_mount(w);

    choose_path(w, 'l', rel);
    note(w, "%s readlink(%s)", side_name(mount), rel);
    same_link(w, rel, mount);
}

static void op_readdir(struct world *w)
{
    char rel[REL_MAX] = "";
    int mount = choose_mount(w);

    if (chance(w, 80))
        choose_path(w, 'd', rel);
    note(w, "%s readdir(%s)", side_name(mount), rel);
    same_names(w, rel, mount, NULL);
}

static void op_stat(struct world *w)
{
    char rel[REL_MAX];

    choose_path(w, 'f', rel);
    note(w, "lstat(%s)", rel);
    (void)same_path(w, rel, NULL);
}

static void op_content(struct world *w)
{
    char rel[REL_MAX];
    struct stat st[3];
    int mount = choose_mount(w);

    choose_path(w, 'f', rel);
    note(w, "%s read all of %s", side_name(mount), rel);
    if (same_path(w, rel, st) && S_ISREG(st[0].st_mode))
        same_content(w, rel, mount);
}

static void op_sync_folder(struct world *w)
{
    char rel[REL_MAX] = "", path[FULL_MAX];
    struct outcome two[2];
    int mount = choose_mount(w), fd[2];

    if (chance(w, 70))
        choose_path(w, 'd', rel);
    note(w, "%s open and fsync folder %s", side_name(mount), rel);
    for (int i = 0; i < 2; i++) {
        fd[i] = open(full(w, i ? mount : 0, rel, path), O_RDONLY | O_DIRECTORY);
        DO(two, i, fd[i] < 0 ? -1 : fsync(fd[i]));
        if (fd[i] >= 0)
            close(fd[i]);
    }
    same_outcome(w, two, mount);
}

/* ---- two names */

static void both_names(struct world *w, const char *a, const char *b)
{
    (void)same_path(w, a, NULL);
    (void)same_path(w, b, NULL);
    same_parent(w, a);
    same_parent(w, b);
}

static void op_rename(struct world *w)
{
    static const unsigned flag_sets[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
    struct outcome two[2];
    char from[REL_MAX], to[REL_MAX], path[2][FULL_MAX];
    unsigned flags = ONE_OF(w, flag_sets);
    int mount = choose_mount(w);
    char kind = chance(w, 70) ? 'f' : 'd';

    choose_path(w, kind, from);
    choose_path(w, chance(w, 90) ? kind : 'f', to);
    note(w, "%s rename(%s, %s%s)", side_name(mount), from, to,
         flags == RENAME_NOREPLACE  ? ", NOREPLACE"
         : flags == RENAME_EXCHANGE ? ", EXCHANGE"
                                    : "");
    for (int i = 0; i < 2; i++) {
        full(w, i ? mount : 0, from, path[0]);
        full(w, i ? mount : 0, to, path[1]);
        DO(two, i, renameat2(AT_FDCWD, path[0], AT_FDCWD, path[1], flags));
    }
    same_outcome(w, two, mount);
    both_names(w, from, to);
}

static void op_link(struct world *w)
{
    struct outcome two[2];
    char from[REL_MAX], to[REL_MAX], path[2][FULL_MAX];
    int mount = choose_mount(w);

    choose_path(w, 'f', from);
    choose_path(w, 'f', to);
    note(w, "%s link(%s, %s)", side_name(mount), from, to);
    for (int i = 0; i < 2; i++) {
        full(w, i ? mount : 0, from, path[0]);
        full(w, i ? mount : 0, to, path[1]);
        DO(two, i, link(path[0], path[1]));
    }
    same_outcome(w, two, mount);
    both_names(w, from, to);
}

/* ---- the run */

struct op {
    const char *name;
    uint32_t weight;
    void (*run)(struct world *w);
};

static const struct op operations[] = {
    {"open", 14, op_open},
    {"close", 5, op_close},
    {"write", 12, op_write},
    {"pwrite", 12, op_pwrite},
    {"read", 7, op_read},
    {"pread", 8, op_pread},
    {"lseek", 3, op_lseek},
    {"ftruncate", 4, op_ftruncate},
    {"fsync", 3, op_fsync},
    {"fallocate", 4, op_fallocate},
    {"copy_range", 4, op_copy_range},
    {"seek_holes", 2, op_seek_holes},
    {"mmap", 3, op_mmap},
    {"truncate", 4, op_truncate},
    {"unlink", 5, op_unlink},
    {"mkdir", 5, op_mkdir},
    {"rmdir", 2, op_rmdir},
    {"symlink", 2, op_symlink},
    {"readlink", 1, op_readlink},
    {"mknod", 1, op_mkfifo},
    {"chmod", 3, op_chmod},
    {"chown", 3, op_chown},
    {"utimens", 4, op_utimens},
    {"setxattr", 3, op_setxattr},
    {"getxattr", 2, op_getxattr},
    {"listxattr", 1, op_listxattr},
    {"removexattr", 2, op_removexattr},
    {"rename", 7, op_rename},
    {"link", 4, op_link},
    {"readdir", 3, op_readdir},
    {"stat", 4, op_stat},
    {"content", 4, op_content},
    {"sync_folder", 1, op_sync_folder},
};
#define OPERATIONS (sizeof operations / sizeof operations[0])
static_assert(OPERATIONS <= 64, "a bit for each in world.skip");

static bool skip_operations(struct world *w, char *list)
{
    for (char *name; (name = strsep(&list, ",")) != NULL;) {
        size_t i = 0;
        while (i < OPERATIONS && strcmp(operations[i].name, name) != 0)
            i++;
        if (i == OPERATIONS) {
            fprintf(stderr, "fsdiff: there is no operation \"%s\"\n", name);
            return false;
        }
        w->skip |= UINT64_C(1) << i;
    }
    return true;
}

static uint32_t weight(const struct world *w, size_t i)
{
    return w->skip >> i & 1 ? 0 : operations[i].weight;
}

static void run_one(struct world *w)
{
    uint32_t total = 0;

    for (size_t i = 0; i < OPERATIONS; i++)
        total += weight(w, i);
    uint32_t pick = below(w, total);
    for (size_t i = 0; i < OPERATIONS; i++) {
        if (pick < weight(w, i)) {
            operations[i].run(w);
            return;
        }
        pick -= weight(w, i);
    }
}

/* Changes one byte of some file at mount A. False if there is no file with content. */
static bool sabotage(struct world *w)
{
    char rel[REL_MAX], path[FULL_MAX];
    struct stat st;
    uint8_t byte;

    for (int i = 0; i < 1000; i++) {
        choose_path(w, 'f', rel);
        full(w, MOUNT_A, rel, path);
        if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0)
            continue;
        off_t at = (off_t)(rnd(w) % (uint64_t)st.st_size);
        struct timespec times[2] = {st.st_atim, st.st_mtim};
        int fd = open(path, O_RDWR);
        if (fd < 0 || pread(fd, &byte, 1, at) != 1)
            broken("sabotage", path);
        byte ^= 1;
        if (pwrite(fd, &byte, 1, at) != 1 || futimens(fd, times) != 0)
            broken("sabotage", path);
        close(fd);
        fprintf(stderr, "sabotage: byte %jd of %s\n", (intmax_t)at, rel);
        return true;
    }
    return false;
}

static void remove_all(const char *path, bool itself)
{
    char child[FULL_MAX];
    struct names names;
    struct stat st;

    if (lstat(path, &st) != 0)
        broken("cleaning up", path);
    if (S_ISDIR(st.st_mode)) {
        if (list_names(path, &names) != 0)
            broken("cleaning up", path);
        for (int i = 0; i < names.count; i++) {
            snprintf(child, sizeof child, "%.*s/%s", REL_MAX + 700, path, names.name[i]);
            remove_all(child, true);
        }
        free_names(&names);
    }
    if (itself && (S_ISDIR(st.st_mode) ? rmdir(path) : unlink(path)) != 0)
        broken("cleaning up", path);
}

static void expect_empty(const char *path)
{
    struct names names;
    int rc = list_names(path, &names);

    errno = rc != 0 ? -rc : names.count > 0 ? ENOTEMPTY : 0;
    if (errno != 0)
        broken("it must be an empty folder", path);
}

static void prepare(struct world *w)
{
    struct stat st;

    for (int i = 0; i <= w->mounts; i++) {
        if (stat(w->root[i], &st) != 0 || strlen(w->root[i]) > 900)
            broken("cannot be used", w->root[i]);
        expect_empty(w->root[i]);
        if (chown(w->root[i], 0, 0) != 0 || chmod(w->root[i], 0755) != 0)
            broken("owner and mode", w->root[i]);
    }
    w->noise = malloc(2 * (size_t)DATA_MAX);
    w->data[0] = malloc(DATA_MAX);
    w->data[1] = malloc(DATA_MAX);
    if (w->noise == NULL || w->data[0] == NULL || w->data[1] == NULL)
        broken("memory", "buffers");
    for (size_t i = 0; i < 2 * (size_t)DATA_MAX; i += sizeof(uint64_t)) {
        uint64_t value = rnd(w);
        memcpy(w->noise + i, &value, sizeof value);
    }
}

static void run(struct world *w, uint64_t check, uint64_t sabotage_at)
{
    bool sabotaged = false;

    for (w->op = 1; w->op <= w->ops; w->op++) {
        run_one(w);
        if (sabotage_at != 0 && w->op >= sabotage_at && !sabotaged)
            sabotaged = sabotage(w);
        if (w->op % check == 0)
            same_world(w);
    }
    same_world(w);
    for (int i = 0; i < HANDLES; i++) {
        if (w->handles[i].open)
            close_handle(w, &w->handles[i]);
    }
    same_world(w);
    remove_all(w->root[REFERENCE], false);
    remove_all(w->root[MOUNT_A], false);
    for (int i = 0; i <= w->mounts; i++)
        expect_empty(w->root[i]);
}

static int usage(void)
{
    fprintf(stderr, "usage: fsdiff [--seed N] [--ops N] [--check N] [--skip OP,OP...] "
                    "[--sabotage N] [--loose-append] [--verbose] REFERENCE MOUNT_A [MOUNT_B]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},     {"ops", required_argument, NULL, 'n'},
        {"check", required_argument, NULL, 'c'},    {"skip", required_argument, NULL, 'x'},
        {"sabotage", required_argument, NULL, 'b'}, {"verbose", no_argument, NULL, 'v'},
        {"loose-append", no_argument, NULL, 'a'},   {NULL, 0, NULL, 0},
    };
    static struct world w = {.seed = 1, .ops = OPS_DEFAULT};
    uint64_t check = CHECK_DEFAULT, sabotage_at = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            w.seed = strtoull(optarg, NULL, 0);
        else if (option == 'n')
            w.ops = strtoull(optarg, NULL, 0);
        else if (option == 'c')
            check = strtoull(optarg, NULL, 0);
        else if (option == 'b')
            sabotage_at = strtoull(optarg, NULL, 0);
        else if (option == 'a')
            w.loose_append = true;
        else if (option == 'v')
            w.verbose = true;
        else if (option != 'x' || !skip_operations(&w, optarg))
            return usage();
    }
    w.mounts = argc - optind - 1;
    if (w.mounts < 1 || w.mounts > 2 || check == 0)
        return usage();
    if (geteuid() != 0) {
        fprintf(stderr, "fsdiff: it must run as root: owners are among what it compares\n");
        return 2;
    }
    umask(0);
    w.random = w.seed;
    for (int i = 0; i <= w.mounts; i++)
        w.root[i] = argv[optind + i];
    prepare(&w);
    run(&w, check, sabotage_at);
    printf("fsdiff: seed %" PRIu64 ": %" PRIu64 " operations (%" PRIu64
           " of them refused by both), %" PRIu64 " bytes written, %" PRIu64
           " compared: no difference\n",
           w.seed, w.ops, w.refusals, w.bytes_written, w.bytes_compared);
    return 0;
}
