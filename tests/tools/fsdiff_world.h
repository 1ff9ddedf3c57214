/*
 * What fsdiff works on: the reference and the mounts, open handles, the log of operations, and the
 * comparing. Nothing here returns from a difference: it prints what it knows and ends the program
 * with status 1.
 */
#ifndef FSDIFF_WORLD_H
#define FSDIFF_WORLD_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define HANDLES   32
#define LOG_LINES 40
#define LOG_LINE  400
#define REL_MAX   1200
#define FULL_MAX  (REL_MAX + 1024)
#define FILE_MAX  (3u << 20) /* no operation reaches beyond */
#define DATA_MAX  (5u << 20) /* appends do, a little */
#define TREE_MAX  4096       /* files in the tree */
#define NAMES_MAX 256        /* in a folder */
#define XATTR_MAX 8192
/* Times that operations set lie before it, those that the clock sets after it. So a time before it
 * is compared. */
#define EXPLICIT_BEFORE 1000000000

enum { REFERENCE = 0, MOUNT_A = 1, MOUNT_B = 2 };

struct handle {
    bool open;
    int fd[2]; /* at the reference, at the mount */
    int mount;
    int flags;
    char rel[REL_MAX]; /* when it was opened */
};

struct world {
    const char *root[3];
    int mounts;
    uint64_t random, seed, op, ops;
    uint64_t skip; /* operations that are left out */
    bool verbose;
    bool loose_append;
    struct handle handles[HANDLES];
    char log[LOG_LINES][LOG_LINE];
    uint64_t logged;
    uint8_t *noise;   /* 2 * DATA_MAX bytes to write from */
    uint8_t *data[2]; /* DATA_MAX each: what was read at the reference, at the mount */
    uint64_t bytes_written, bytes_compared, refusals;
};

/* What one call did: rc, and errno if rc < 0. */
struct outcome {
    long rc;
    int error;
};

#define DO(two, i, call)                                                                           \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long rc_ = (long)(call);                                                                   \
        (two)[i] = (struct outcome){rc_, rc_ < 0 ? errno : 0};                                     \
    } while (0)

/* ---- random */

static inline uint64_t rnd(struct world *w)
{
    uint64_t z = w->random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint32_t below(struct world *w, uint32_t limit)
{
    return (uint32_t)(rnd(w) % limit);
}

static inline bool chance(struct world *w, uint32_t percent)
{
    return below(w, 100) < percent;
}

/* ---- log and end */

static inline const char *side_name(int side)
{
    static const char *const names[] = {"reference", "A", "B"};
    return names[side];
}

/* One line for the operation that is about to run. */
__attribute__((format(printf, 2, 3))) static inline void note(struct world *w, const char *format,
                                                              ...)
{
    char *line = w->log[w->logged++ % LOG_LINES];
    int len = snprintf(line, LOG_LINE, "#%" PRIu64 " ", w->op);
    va_list args;

    va_start(args, format);
    vsnprintf(line + len, LOG_LINE - (size_t)len, format, args);
    va_end(args);
    if (w->verbose)
        printf("%s\n", line);
}

/* Adds the result to the last line. */
static inline void note_outcome(struct world *w, const struct outcome *o)
{
    char *line = w->log[(w->logged - 1) % LOG_LINES];
    size_t len = strlen(line);

    if (o->rc < 0)
        snprintf(line + len, LOG_LINE - len, " = %s", strerrorname_np(o->error));
    else
        snprintf(line + len, LOG_LINE - len, " = %ld", o->rc);
}

__attribute__((format(printf, 2, 3), noreturn)) static inline void differ(struct world *w,
                                                                          const char *format, ...)
{
    va_list args;
    uint64_t first = w->logged > LOG_LINES ? w->logged - LOG_LINES : 0;

    fflush(stdout);
    fprintf(stderr, "the last operations:\n");
    for (uint64_t i = first; i < w->logged; i++)
        fprintf(stderr, "  %s\n", w->log[i % LOG_LINES]);
    fprintf(stderr, "DIFFERENCE at operation %" PRIu64 " (seed %" PRIu64 "): ", w->op, w->seed);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    exit(1);
}

/* Something that has nothing to do with the mount. */
__attribute__((noreturn)) static inline void broken(const char *what, const char *path)
{
    fprintf(stderr, "fsdiff: %s: %s: %s\n", what, path, strerror(errno));
    exit(2);
}

static inline void same_outcome(struct world *w, const struct outcome two[2], int mount)
{
    char text[2][64];

    note_outcome(w, &two[1]);
    w->refusals += two[0].rc < 0;
    if (two[0].rc == two[1].rc && two[0].error == two[1].error)
        return;
    for (int i = 0; i < 2; i++)
        snprintf(text[i], sizeof text[i], "%ld%s%s", two[i].rc, two[i].rc < 0 ? " " : "",
                 two[i].rc < 0 ? strerrorname_np(two[i].error) : "");
    differ(w, "result: reference %s, %s %s", text[0], side_name(mount), text[1]);
}

static inline void same_data(struct world *w, const char *what, const char *rel, uint64_t offset,
                             size_t len, int mount)
{
    size_t first = 0, last = len, bad = 0;

    w->bytes_compared += len;
    if (memcmp(w->data[0], w->data[1], len) == 0)
        return;
    while (w->data[0][first] == w->data[1][first])
        first++;
    while (w->data[0][last - 1] == w->data[1][last - 1])
        last--;
    for (size_t i = first; i < last; i++)
        bad += w->data[0][i] != w->data[1][i];
    differ(w,
           "%s of %s: %zu of %zu bytes differ, the first at %" PRIu64 " (reference %02x, %s %02x), "
           "the last at %" PRIu64,
           what, rel, bad, len, offset + first, w->data[0][first], side_name(mount),
           w->data[1][first], offset + last - 1);
}

/* ---- paths and attributes */

static inline const char *full(const struct world *w, int side, const char *rel, char to[FULL_MAX])
{
    if (rel[0] == '\0')
        snprintf(to, FULL_MAX, "%s", w->root[side]);
    else
        snprintf(to, FULL_MAX, "%s/%s", w->root[side], rel);
    return to;
}

static inline void attribute(struct world *w, const char *rel, int mount, const char *what,
                             uint64_t reference, uint64_t got)
{
    if (reference != got)
        differ(w,
               "%s of \"%s\": reference 0%" PRIo64 " (%" PRIu64 "), %s 0%" PRIo64 " (%" PRIu64 ")",
               what, rel, reference, reference, side_name(mount), got, got);
}

/* Not compared, as local filesystems differ in them: sizes and link counts of folders, blocks, and
 * times that were not set by anybody. */
static inline void same_stat(struct world *w, const char *rel, int mount, const struct stat *a,
                             const struct stat *b)
{
    attribute(w, rel, mount, "type and mode", a->st_mode, b->st_mode);
    attribute(w, rel, mount, "owner", a->st_uid, b->st_uid);
    attribute(w, rel, mount, "group", a->st_gid, b->st_gid);
    if (!S_ISDIR(a->st_mode))
        attribute(w, rel, mount, "link count", a->st_nlink, b->st_nlink);
    if (S_ISREG(a->st_mode) || S_ISLNK(a->st_mode))
        attribute(w, rel, mount, "size", (uint64_t)a->st_size, (uint64_t)b->st_size);
    bool set = a->st_mtim.tv_sec < EXPLICIT_BEFORE;
    if ((set || b->st_mtim.tv_sec < EXPLICIT_BEFORE) &&
        (a->st_mtim.tv_sec != b->st_mtim.tv_sec || a->st_mtim.tv_nsec != b->st_mtim.tv_nsec))
        differ(w, "mtime of \"%s\": reference %jd.%09ld, %s %jd.%09ld", rel,
               (intmax_t)a->st_mtim.tv_sec, a->st_mtim.tv_nsec, side_name(mount),
               (intmax_t)b->st_mtim.tv_sec, b->st_mtim.tv_nsec);
}

/* The attributes of a name, through every mount. True if it exists. */
static inline bool same_path(struct world *w, const char *rel, struct stat st[3])
{
    struct stat own[3];
    struct outcome two[2];
    char path[FULL_MAX];

    if (st == NULL)
        st = own;
    DO(two, 0, lstat(full(w, REFERENCE, rel, path), &st[0]));
    for (int m = MOUNT_A; m <= w->mounts; m++) {
        DO(two, 1, lstat(full(w, m, rel, path), &st[m]));
        if (two[0].error != two[1].error)
            differ(w, "lstat of \"%s\": reference %s, %s %s", rel,
                   two[0].error ? strerrorname_np(two[0].error) : "fine", side_name(m),
                   two[1].error ? strerrorname_np(two[1].error) : "fine");
        if (two[0].rc == 0)
            same_stat(w, rel, m, &st[0], &st[m]);
    }
    return two[0].rc == 0;
}

static inline void same_parent(struct world *w, const char *rel)
{
    char parent[REL_MAX];
    snprintf(parent, sizeof parent, "%s", rel);
    char *slash = strrchr(parent, '/');
    *(slash != NULL ? slash : parent) = '\0';
    (void)same_path(w, parent, NULL);
}

static inline void same_handle(struct world *w, const struct handle *h)
{
    struct stat st[2];

    for (int i = 0; i < 2; i++) {
        if (fstat(h->fd[i], &st[i]) != 0)
            differ(w, "fstat of \"%s\" at %s: %s", h->rel, side_name(i == 0 ? 0 : h->mount),
                   strerror(errno));
    }
    same_stat(w, h->rel, h->mount, &st[0], &st[1]);
    off_t a = lseek(h->fd[0], 0, SEEK_CUR), b = lseek(h->fd[1], 0, SEEK_CUR);
    if (a != b && w->loose_append && h->flags & O_APPEND)
        b = lseek(h->fd[1], a, SEEK_SET);
    if (a != b)
        differ(w, "position of the handle of \"%s\": reference %jd, %s %jd", h->rel, (intmax_t)a,
               side_name(h->mount), (intmax_t)b);
}

/* ---- contents */

static inline void same_content(struct world *w, const char *rel, int mount)
{
    struct outcome two[2];
    char path[FULL_MAX];
    int fd[2];

    for (int i = 0; i < 2; i++) {
        DO(two, i, fd[i] = open(full(w, i == 0 ? 0 : mount, rel, path), O_RDONLY | O_NOFOLLOW));
        if (fd[i] < 0)
            differ(w, "cannot open \"%s\" at %s to compare it: %s", rel,
                   side_name(i == 0 ? 0 : mount), strerror(errno));
        DO(two, i, pread(fd[i], w->data[i], DATA_MAX, 0));
        close(fd[i]);
    }
    if (two[0].rc != two[1].rc)
        differ(w, "reading all of \"%s\": reference %ld, %s %ld %s", rel, two[0].rc,
               side_name(mount), two[1].rc, two[1].rc < 0 ? strerrorname_np(two[1].error) : "");
    if (two[0].rc > 0)
        same_data(w, "content", rel, 0, (size_t)two[0].rc, mount);
}

static inline int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
    int count;
    char *name[NAMES_MAX];
};

static inline int list_names(const char *path, struct names *n)
{
    DIR *d = opendir(path);
    struct dirent *e;

    n->count = 0;
    if (d == NULL)
        return -errno;
    while (errno = 0, (e = readdir(d)) != NULL && n->count < NAMES_MAX) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            n->name[n->count++] = strdup(e->d_name);
    }
    int rc = -errno;
    closedir(d);
    qsort(n->name, (size_t)n->count, sizeof n->name[0], by_name);
    return rc;
}

static inline void free_names(struct names *n)
{
    for (int i = 0; i < n->count; i++)
        free(n->name[i]);
    n->count = 0;
}

/* The names in a folder, left in *out (to be freed) if it is not NULL. */
static inline void same_names(struct world *w, const char *rel, int mount, struct names *out)
{
    struct names two[2];
    char path[FULL_MAX];
    int rc[2];

    for (int i = 0; i < 2; i++)
        rc[i] = list_names(full(w, i == 0 ? 0 : mount, rel, path), &two[i]);
    if (rc[0] != rc[1])
        differ(w, "listing \"%s\": reference %s, %s %s", rel,
               rc[0] ? strerrorname_np(-rc[0]) : "fine", side_name(mount),
               rc[1] ? strerrorname_np(-rc[1]) : "fine");
    for (int i = 0; i < two[0].count || i < two[1].count; i++) {
        const char *a = i < two[0].count ? two[0].name[i] : NULL;
        const char *b = i < two[1].count ? two[1].name[i] : NULL;
        if (a == NULL || (b != NULL && strcmp(b, a) < 0))
            differ(w, "listing \"%s\": %s has \"%s\", the reference does not", rel,
                   side_name(mount), b);
        if (b == NULL || strcmp(a, b) != 0)
            differ(w, "listing \"%s\": the reference has \"%s\", %s does not", rel, a,
                   side_name(mount));
    }
    if (out != NULL)
        *out = two[0];
    else
        free_names(&two[0]);
    free_names(&two[1]);
}

/* Names of user attributes, sorted and each with its NUL, into to; the length or -errno. */
static inline long list_xattrs(const char *path, char to[XATTR_MAX])
{
    char all[XATTR_MAX], *sorted[NAMES_MAX];
    ssize_t len = llistxattr(path, all, sizeof all);
    size_t count = 0, used = 0;

    if (len < 0)
        return -errno;
    for (char *at = all; at < all + len && count < NAMES_MAX; at += strlen(at) + 1) {
        if (strncmp(at, "user.", 5) == 0)
            sorted[count++] = at;
    }
    qsort(sorted, count, sizeof sorted[0], by_name);
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(sorted[i]) + 1;
        memcpy(to + used, sorted[i], size);
        used += size;
    }
    return (long)used;
}

static inline void same_xattrs(struct world *w, const char *rel, int mount)
{
    char names[2][XATTR_MAX], path[FULL_MAX];
    long len[2];

    for (int i = 0; i < 2; i++)
        len[i] = list_xattrs(full(w, i == 0 ? 0 : mount, rel, path), names[i]);
    if (len[0] != len[1] || (len[0] > 0 && memcmp(names[0], names[1], (size_t)len[0]) != 0))
        differ(w, "names of attributes of \"%s\": reference %ld bytes, %s %ld bytes", rel, len[0],
               side_name(mount), len[1]);
    for (char *at = names[0]; at < names[0] + len[0]; at += strlen(at) + 1) {
        ssize_t size[2];
        for (int i = 0; i < 2; i++)
            size[i] = lgetxattr(full(w, i == 0 ? 0 : mount, rel, path), at, w->data[i], XATTR_MAX);
        if (size[0] != size[1])
            differ(w, "attribute %s of \"%s\": reference %zd bytes, %s %zd", at, rel, size[0],
                   side_name(mount), size[1]);
        if (size[0] > 0)
            same_data(w, at, rel, 0, (size_t)size[0], mount);
    }
}

static inline void same_link(struct world *w, const char *rel, int mount)
{
    char target[2][FULL_MAX] = {{0}}, path[FULL_MAX];
    ssize_t len[2];

    for (int i = 0; i < 2; i++)
        len[i] = readlink(full(w, i == 0 ? 0 : mount, rel, path), target[i], FULL_MAX - 1);
    if (len[0] != len[1] || strcmp(target[0], target[1]) != 0)
        differ(w, "target of \"%s\": reference \"%s\", %s \"%s\"", rel, target[0], side_name(mount),
               target[1]);
}

/* ---- the whole tree */

/* Which inode stands for which: links must hang together in the same way. */
struct pairs {
    int count;
    struct {
        ino_t reference, mount;
    } of[TREE_MAX];
};

static inline void same_inode(struct world *w, struct pairs *p, const char *rel, int mount, ino_t a,
                              ino_t b)
{
    for (int i = 0; i < p->count; i++) {
        if ((p->of[i].reference == a) != (p->of[i].mount == b))
            differ(w, "links of \"%s\" hang together in another way at %s", rel, side_name(mount));
        if (p->of[i].reference == a)
            return;
    }
    if (p->count < TREE_MAX) {
        p->of[p->count].reference = a;
        p->of[p->count++].mount = b;
    }
}

static inline void same_tree(struct world *w, const char *rel, int mount, struct pairs *pairs)
{
    struct names names;
    struct stat st[3];
    char child[REL_MAX];

    same_names(w, rel, mount, &names);
    for (int i = 0; i < names.count; i++) {
        snprintf(child, sizeof child, "%s%s%s", rel, rel[0] ? "/" : "", names.name[i]);
        if (!same_path(w, child, st))
            differ(w, "\"%s\" is listed but does not exist", child);
        same_inode(w, pairs, child, mount, st[0].st_ino, st[mount].st_ino);
        same_xattrs(w, child, mount);
        if (S_ISREG(st[0].st_mode))
            same_content(w, child, mount);
        else if (S_ISLNK(st[0].st_mode))
            same_link(w, child, mount);
        else if (S_ISDIR(st[0].st_mode))
            same_tree(w, child, mount, pairs);
    }
    free_names(&names);
}

static inline void same_world(struct world *w)
{
    for (int m = MOUNT_A; m <= w->mounts; m++) {
        struct pairs *pairs = calloc(1, sizeof *pairs);
        if (pairs == NULL)
            broken("memory", "the tree");
        same_tree(w, "", m, pairs);
        free(pairs);
    }
    for (int i = 0; i < HANDLES; i++) {
        if (w->handles[i].open)
            same_handle(w, &w->handles[i]);
    }
}

#endif
