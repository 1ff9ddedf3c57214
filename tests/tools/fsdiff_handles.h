/*
 * fsdiff's random choices, and its operations on open handles.
 */
#ifndef FSDIFF_HANDLES_H
#define FSDIFF_HANDLES_H

#include "fsdiff_world.h"

#include <linux/falloc.h>
#include <sys/mman.h>

#define DEPTH     3
#define SEEKS_MAX 100000 /* stretches of data and holes in a file */

/* ---- choosing */

static const char *const leaf_names[] = {"f0", "f1", "f2", "f3", "f4",
                                         "d0", "d1", "d2", "l0", "l1"};
static const char *const folder_names[] = {"d0", "d0", "d0", "d1", "d1", "d2", "l0", "f0"};
#define ONE_OF(w, array) ((array)[below(w, sizeof(array) / sizeof((array)[0]))])

/* A name, which may exist or not; kind is 'f' or 'd' for what it is mostly wanted for. */
static inline void choose_path(struct world *w, char kind, char rel[REL_MAX])
{
    uint32_t depth = below(w, DEPTH);
    size_t len = 0;

    rel[0] = '\0';
    for (uint32_t i = 0; i < depth; i++)
        len += (size_t)snprintf(rel + len, REL_MAX - len, "%s/", ONE_OF(w, folder_names));
    if (chance(w, 1)) /* the longest name there is, or one byte more */
        snprintf(rel + len, REL_MAX - len, "%0*d", 255 + (int)below(w, 2), 7);
    else if (kind == 'd' && chance(w, 80))
        snprintf(rel + len, REL_MAX - len, "d%u", below(w, 3));
    else if (kind == 'f' && chance(w, 70))
        snprintf(rel + len, REL_MAX - len, "f%u", below(w, 5));
    else
        snprintf(rel + len, REL_MAX - len, "%s", ONE_OF(w, leaf_names));
}

/* Mostly near a border: of a page, a sealed page, a FUSE request, a record. */
static inline uint32_t choose_offset(struct world *w, uint32_t limit)
{
    static const uint32_t borders[] = {4096, 32768, 32752, 131072, 1u << 20, 1u << 20};
    uint32_t at = below(w, limit + 1);

    if (chance(w, 15))
        return 0;
    if (chance(w, 55)) {
        uint32_t border = ONE_OF(w, borders);
        at = at / border * border + (chance(w, 50) ? below(w, 3) : 0);
        at -= at > 0 && chance(w, 30);
    }
    return at < limit ? at : limit;
}

static inline uint32_t choose_length(struct world *w, uint32_t limit)
{
    uint32_t kind = below(w, 100), most;

    if (kind < 3)
        return 0;
    most = kind < 45 ? 5000 : kind < 75 ? 70000 : kind < 95 ? 300000 : 1300000;
    uint32_t len = choose_offset(w, most) + 1;
    return len < limit ? len : limit;
}

static inline int choose_mount(struct world *w)
{
    return MOUNT_A + (int)below(w, (uint32_t)w->mounts);
}

static inline mode_t choose_mode(struct world *w)
{
    static const mode_t modes[] = {0644, 0644,  0600,  0755,  0777, 0,
                                   0444, 04755, 02755, 01777, 02644};
    return ONE_OF(w, modes);
}

/* An open handle, or NULL. */
static inline struct handle *choose_handle(struct world *w)
{
    uint32_t first = below(w, HANDLES);

    for (uint32_t i = 0; i < HANDLES; i++) {
        struct handle *h = &w->handles[(first + i) % HANDLES];
        if (h->open)
            return h;
    }
    return NULL;
}

static inline int handle_number(const struct world *w, const struct handle *h)
{
    return (int)(h - w->handles);
}

#define NOTE_HANDLE(w, h, format, ...)                                                             \
    note(w, "%s h%d(%s) " format, side_name((h)->mount), handle_number(w, h),                      \
         (h)->rel __VA_OPT__(, ) __VA_ARGS__)

/* ---- handles */

/* After a change of data: sometimes all of it, through any mount. */
static inline void changed(struct world *w, const struct handle *h)
{
    struct stat by_handle, st[3];

    same_handle(w, h);
    if (!same_path(w, h->rel, st) || !chance(w, 20) || fstat(h->fd[0], &by_handle) != 0 ||
        st[0].st_ino != by_handle.st_ino)
        return;
    same_content(w, h->rel, choose_mount(w));
}

static inline void close_handle(struct world *w, struct handle *h)
{
    struct outcome two[2];

    NOTE_HANDLE(w, h, "close");
    for (int i = 0; i < 2; i++)
        DO(two, i, close(h->fd[i]));
    h->open = false;
    same_outcome(w, two, h->mount);
}

static inline void op_close(struct world *w)
{
    struct handle *h = choose_handle(w);
    if (h != NULL)
        close_handle(w, h);
}

static inline int choose_flags(struct world *w)
{
    static const int ways[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR, O_RDWR};
    int flags = ONE_OF(w, ways);

    flags |= chance(w, 60) ? O_CREAT : 0;
    flags |= flags & O_CREAT && chance(w, 20) ? O_EXCL : 0;
    flags |= chance(w, 15) ? O_TRUNC : 0;
    flags |= chance(w, 20) ? O_APPEND : 0;
    flags |= chance(w, 10) ? O_NOFOLLOW : 0;
    flags |= chance(w, 2) ? O_DIRECTORY : 0;
    if (flags & O_DIRECTORY)
        flags &= ~O_CREAT; /* what the two mean together has changed between kernels */
    return flags;
}

static inline void op_open(struct world *w)
{
    struct handle *h = &w->handles[below(w, HANDLES)];
    struct outcome two[2];
    struct stat st;
    char rel[REL_MAX], path[FULL_MAX];
    int flags = choose_flags(w), mount = choose_mount(w);
    mode_t mode = choose_mode(w);

    choose_path(w, 'f', rel);
    /* Opening a FIFO waits for the other end; and it is a pipe of its own on each mount. */
    if (stat(full(w, REFERENCE, rel, path), &st) == 0 && S_ISFIFO(st.st_mode))
        return;
    if (h->open)
        close_handle(w, h);
    note(w, "%s h%d open(%s, %s%s%s%s%s%s%s, 0%o)", side_name(mount), handle_number(w, h), rel,
         (flags & O_ACCMODE) == O_RDONLY   ? "RDONLY"
         : (flags & O_ACCMODE) == O_WRONLY ? "WRONLY"
                                           : "RDWR",
         flags & O_CREAT ? "|CREAT" : "", flags & O_EXCL ? "|EXCL" : "",
         flags & O_TRUNC ? "|TRUNC" : "", flags & O_APPEND ? "|APPEND" : "",
         flags & O_NOFOLLOW ? "|NOFOLLOW" : "", flags & O_DIRECTORY ? "|DIRECTORY" : "", mode);
    for (int i = 0; i < 2; i++) {
        DO(two, i, open(full(w, i ? mount : 0, rel, path), flags | O_CLOEXEC, mode));
        h->fd[i] = (int)two[i].rc;
        two[i].rc = two[i].rc < 0 ? -1 : 0; /* numbers are not compared */
    }
    h->open = h->fd[0] >= 0;
    h->mount = mount;
    h->flags = flags;
    snprintf(h->rel, sizeof h->rel, "%s", rel);
    same_outcome(w, two, mount);
    if (h->open)
        same_handle(w, h);
    (void)same_path(w, rel, NULL);
    same_parent(w, rel);
}

static inline void write_at(struct world *w, bool positioned)
{
    struct handle *h = choose_handle(w);
    struct outcome two[2];
    uint32_t offset = choose_offset(w, FILE_MAX);
    uint32_t len = choose_length(w, FILE_MAX - (positioned ? offset : 0));
    const uint8_t *from = w->noise + below(w, DATA_MAX);

    if (h == NULL)
        return;
    off_t end = lseek(h->fd[0], 0, SEEK_CUR);
    struct stat st;
    if (fstat(h->fd[0], &st) == 0 && h->flags & O_APPEND)
        end = st.st_size;
    if ((!positioned || h->flags & O_APPEND) && end + (off_t)len > FILE_MAX)
        return; /* files stay small */
    if (positioned)
        NOTE_HANDLE(w, h, "pwrite at %u, %u bytes", offset, len);
    else
        NOTE_HANDLE(w, h, "write at %jd, %u bytes", (intmax_t)end, len);
    for (int i = 0; i < 2; i++)
        DO(two, i, positioned ? pwrite(h->fd[i], from, len, offset) : write(h->fd[i], from, len));
    same_outcome(w, two, h->mount);
    w->bytes_written += two[0].rc > 0 ? (uint64_t)two[0].rc : 0;
    changed(w, h);
}

static inline void op_write(struct world *w)
{
    write_at(w, false);
}

static inline void op_pwrite(struct world *w)
{
    write_at(w, true);
}

static inline void read_at(struct world *w, bool positioned)
{
    struct handle *h = choose_handle(w);
    struct outcome two[2];
    uint32_t offset = choose_offset(w, FILE_MAX), len = choose_length(w, FILE_MAX);

    if (h == NULL)
        return;
    NOTE_HANDLE(w, h, "%s at %jd, %u bytes", positioned ? "pread" : "read",
                positioned ? (intmax_t)offset : (intmax_t)lseek(h->fd[0], 0, SEEK_CUR), len);
    for (int i = 0; i < 2; i++) {
        DO(two, i,
           positioned ? pread(h->fd[i], w->data[i], len, offset) : read(h->fd[i], w->data[i], len));
    }
    same_outcome(w, two, h->mount);
    if (two[0].rc > 0)
        same_data(w, "data", h->rel, positioned ? offset : 0, (size_t)two[0].rc, h->mount);
    same_handle(w, h);
}

static inline void op_read(struct world *w)
{
    read_at(w, false);
}

static inline void op_pread(struct world *w)
{
    read_at(w, true);
}

static inline void op_lseek(struct world *w)
{
    static const int ways[] = {SEEK_SET, SEEK_CUR, SEEK_END};
    struct handle *h = choose_handle(w);
    struct outcome two[2];
    int whence = ONE_OF(w, ways);
    off_t to = whence == SEEK_SET ? choose_offset(w, FILE_MAX) : -(off_t)choose_offset(w, 100000);

    if (h == NULL)
        return;
    NOTE_HANDLE(w, h, "lseek %jd, way %d", (intmax_t)to, whence);
    struct stat st;
    if (whence == SEEK_END && fstat(h->fd[0], &st) == 0 && S_ISDIR(st.st_mode))
        return; /* the end of a folder is no number */
    for (int i = 0; i < 2; i++)
        DO(two, i, lseek(h->fd[i], to, whence));
    same_outcome(w, two, h->mount);
}

static inline void op_ftruncate(struct world *w)
{
    struct handle *h = choose_handle(w);
    struct outcome two[2];
    uint32_t size = choose_offset(w, FILE_MAX);

    if (h == NULL)
        return;
    NOTE_HANDLE(w, h, "ftruncate to %u", size);
    for (int i = 0; i < 2; i++)
        DO(two, i, ftruncate(h->fd[i], size));
    same_outcome(w, two, h->mount);
    changed(w, h);
}

static inline void op_fsync(struct world *w)
{
    struct handle *h = choose_handle(w);
    struct outcome two[2];
    bool data = chance(w, 30);

    if (h == NULL)
        return;
    NOTE_HANDLE(w, h, "%s", data ? "fdatasync" : "fsync");
    for (int i = 0; i < 2; i++)
        DO(two, i, data ? fdatasync(h->fd[i]) : fsync(h->fd[i]));
    same_outcome(w, two, h->mount);
    same_handle(w, h);
}

static inline void op_fallocate(struct world *w)
{
    static const int modes[] = {0,
                                FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    struct handle *h = choose_handle(w);
    struct outcome two[2];
    int mode = ONE_OF(w, modes);
    uint32_t offset = choose_offset(w, FILE_MAX - 1);
    uint32_t len = choose_length(w, FILE_MAX - offset);

    if (h == NULL)
        return;
    NOTE_HANDLE(w, h, "fallocate mode %#x at %u, %u bytes", (unsigned)mode, offset, len);
    for (int i = 0; i < 2; i++)
        DO(two, i, fallocate(h->fd[i], mode, offset, len));
    same_outcome(w, two, h->mount);
    changed(w, h);
}

/* All of it in as many calls as it takes: how much one call copies is the filesystem's choice. */
static inline long copy_all(int from, off_t at, int to, off_t to_at, size_t len)
{
    long done = 0;

    while (len > 0) {
        ssize_t n = copy_file_range(from, &at, to, &to_at, len, 0);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += n;
        len -= (size_t)n;
    }
    return done;
}

static inline void op_copy_range(struct world *w)
{
    struct handle *from = choose_handle(w), *to = choose_handle(w);
    struct outcome two[2];
    uint32_t at = choose_offset(w, FILE_MAX), to_at = choose_offset(w, FILE_MAX);
    uint32_t len = choose_length(w, FILE_MAX - to_at);

    if (from == NULL || from->mount != to->mount)
        return; /* across filesystems it may be refused */
    NOTE_HANDLE(w, from, "copy_file_range from %u to h%d(%s) at %u, %u bytes", at,
                handle_number(w, to), to->rel, to_at, len);
    for (int i = 0; i < 2; i++)
        DO(two, i, copy_all(from->fd[i], at, to->fd[i], to_at, len));
    same_outcome(w, two, to->mount);
    same_handle(w, from);
    changed(w, to);
}

/* Where holes are is the filesystem's choice, but they must not hide data. */
static inline void op_seek_holes(struct world *w)
{
    struct handle *h = choose_handle(w);
    struct stat st;
    off_t at = 0;

    if (h == NULL || (h->flags & O_ACCMODE) == O_WRONLY || fstat(h->fd[0], &st) != 0 ||
        !S_ISREG(st.st_mode))
        return;
    off_t position = lseek(h->fd[1], 0, SEEK_CUR);
    NOTE_HANDLE(w, h, "lseek over data and holes");
    ssize_t size = pread(h->fd[0], w->data[0], DATA_MAX, 0);
    for (int i = 0; i < SEEKS_MAX && at < size; i++) {
        off_t data = lseek(h->fd[1], at, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            differ(w, "SEEK_DATA from %jd of %s: %s", (intmax_t)at, h->rel, strerror(errno));
        data = data < 0 ? size : data;
        for (; at < data; at++) {
            if (at >= size || w->data[0][at] != 0)
                differ(w, "SEEK_DATA calls byte %jd of %s a hole", (intmax_t)at, h->rel);
        }
        if (data >= size)
            break;
        at = lseek(h->fd[1], data, SEEK_HOLE);
        if (at <= data || at > size)
            differ(w, "SEEK_HOLE from %jd of %s gives %jd", (intmax_t)data, h->rel, (intmax_t)at);
    }
    lseek(h->fd[1], position, SEEK_SET);
}

static inline void op_mmap(struct world *w)
{
    struct handle *h = choose_handle(w);
    struct stat st;

    if (h == NULL || (h->flags & O_ACCMODE) == O_WRONLY || fstat(h->fd[0], &st) != 0 ||
        !S_ISREG(st.st_mode) || st.st_size == 0)
        return;
    NOTE_HANDLE(w, h, "mmap");
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, chance(w, 50) ? MAP_SHARED : MAP_PRIVATE,
                     h->fd[1], 0);
    if (map == MAP_FAILED)
        differ(w, "mmap of %s: %s", h->rel, strerror(errno));
    memcpy(w->data[1], map, (size_t)st.st_size);
    munmap(map, (size_t)st.st_size);
    if (pread(h->fd[0], w->data[0], DATA_MAX, 0) != st.st_size)
        broken("reading the reference", h->rel);
    same_data(w, "mapping", h->rel, 0, (size_t)st.st_size, h->mount);
}

#endif
