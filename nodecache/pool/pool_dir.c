/*
 * dir: a pool in a local directory (or in one that the system has mounted from elsewhere). Objects
 * are plain files under their final names, made with O_EXCL: pack ids are never reused, so there is
 * nothing to rename over. Calls block for as long as the kernel does; there is no other deadline
 * that a file has.
 */
#include "nodecache/pool/fd_cache.h"
#include "nodecache/pool/pool_fault.h"
#include "nodecache/pool/pool_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct dir {
    char *path;
    int root; /* the number stays the same when another folder is adopted */
    struct fd_cache cache;
};

struct dir_object {
    struct dir *dir;
    int fd;
    uint64_t written;
    char name[]; /* below the root */
};

static int dir_fail(char *detail, int error, const char *what, const char *name)
{
    return pool_fail(detail, error, "cannot %s \"%s\" in the pool: %s", what, name,
                     strerror(-error));
}

static bool name_ok(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len >= PATH_MAX || name[0] == '/' || name[len - 1] == '/')
        return false;
    return strstr(name, "..") == NULL && strstr(name, "//") == NULL;
}

static int sync_folder(int folder)
{
    int rc = pool_fault("pool.sync_folder");

    /* EINVAL: this filesystem has no syncing of folders; there is nothing more to be had. */
    if (rc == 0 && fsync(folder) != 0 && errno != EINVAL)
        rc = -errno;
    return rc;
}

/* The pool's own folder; made if create is set. */
static int root_open(const char *path, bool create)
{
    bool made = create && mkdir(path, 0700) == 0;

    if (create && !made && errno != EEXIST)
        return -errno;
    int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || !made)
        return root < 0 ? -errno : root;
    int parent = openat(root, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = parent < 0 ? -errno : sync_folder(parent);
    if (parent >= 0)
        close(parent);
    if (rc != 0)
        close(root);
    return rc != 0 ? rc : root;
}

static int dir_open(const char *path, bool create, void **ctx, char *detail)
{
    int rc = 0;

    if (path[0] != '/')
        return pool_fail(detail, -EINVAL, "the pool's path \"%s\" must start with /", path);
    struct dir *d = calloc(1, sizeof *d);
    if (d == NULL)
        return pool_fail(detail, -ENOMEM, "no memory for opening the pool");
    d->path = strdup(path);
    d->root = d->path == NULL ? -ENOMEM : root_open(path, create);
    rc = d->root < 0 ? d->root : fd_cache_init(&d->cache);
    if (rc == 0) {
        *ctx = d;
        return 0;
    }
    if (d->root >= 0)
        close(d->root);
    free(d->path);
    free(d);
    return pool_fail(detail, rc, "cannot open the pool %s: %s", path, strerror(-rc));
}

static void dir_close(void *ctx)
{
    struct dir *d = ctx;

    fd_cache_destroy(&d->cache);
    close(d->root);
    free(d->path);
    free(d);
}

/* The folder may have been moved, or a filesystem mounted over it or taken away from it. */
static int dir_look(void *ctx, char *detail)
{
    struct dir *d = ctx;
    struct stat named, opened;
    int rc = 0;

    if (stat(d->path, &named) != 0 || fstat(d->root, &opened) != 0)
        rc = -errno;
    else if (named.st_dev != opened.st_dev || named.st_ino != opened.st_ino)
        rc = -ESTALE;
    if (rc == -ESTALE)
        return pool_fail(detail, rc, "the pool's folder %s is not the one that was opened",
                         d->path);
    return rc == 0 ? 0 : pool_fail(detail, rc, "the pool's folder %s: %s", d->path, strerror(-rc));
}

/* Whoever uses the number meanwhile has the one or the other. Kept descriptors do not match the new
 * folder and go when they are met. */
static int dir_adopt(void *ctx, void *fresh, char *detail)
{
    struct dir *d = ctx, *other = fresh;

    if (dup3(other->root, d->root, O_CLOEXEC) >= 0)
        return 0;
    return pool_fail(detail, -errno, "cannot use the pool's folder %s: %s", d->path,
                     strerror(errno));
}

/* ---- writing */

/* Makes each folder above the object. */
static int make_folders(struct dir *d, const char *name)
{
    char path[PATH_MAX];

    for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        snprintf(path, sizeof path, "%.*s", (int)(slash - name), name);
        if (mkdirat(d->root, path, 0700) != 0 && errno != EEXIST)
            return -errno;
    }
    return 0;
}

/* Every folder of the name, up to the root: another process may have made one and not have synced
 * it yet. */
static int sync_folders(struct dir *d, const char *name)
{
    char path[PATH_MAX];
    char *slash;
    int rc = 0;

    snprintf(path, sizeof path, "%s", name);
    while (rc == 0 && (slash = strrchr(path, '/')) != NULL) {
        *slash = '\0';
        int folder = openat(d->root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (folder < 0)
            return -errno;
        rc = sync_folder(folder);
        close(folder);
    }
    return rc != 0 ? rc : sync_folder(d->root);
}

static int create_file(struct dir *d, const char *name)
{
    int fd = openat(d->root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

static int dir_create(void *ctx, const char *name, void **object, char *detail)
{
    struct dir *d = ctx;
    int rc = name_ok(name) ? pool_fault("pool.create") : -EINVAL;

    if (rc != 0)
        return dir_fail(detail, rc, "create", name);
    rc = dir_look(d, detail); /* nothing may be confirmed that lies elsewhere */
    if (rc != 0)
        return rc;
    struct dir_object *o = calloc(1, sizeof *o + strlen(name) + 1);
    if (o == NULL)
        return dir_fail(detail, -ENOMEM, "create", name);
    memcpy(o->name, name, strlen(name) + 1);
    o->dir = d;
    o->fd = create_file(d, name);
    if (o->fd == -ENOENT) {
        rc = make_folders(d, name);
        o->fd = rc != 0 ? rc : create_file(d, name);
    }
    if (o->fd < 0) {
        rc = dir_fail(detail, o->fd, "create", name);
        free(o);
        return rc;
    }
    *object = o;
    return 0;
}

static int dir_append(void *object, const void *data, size_t len, char *detail)
{
    struct dir_object *o = object;
    const char *from = data;
    size_t left = len;
    int rc = 0;

    while (left > 0 && rc == 0) {
        rc = pool_fault("pool.append");
        if (rc != 0)
            break;
        size_t part = pool_fault("pool.short") != 0 ? (left + 1) / 2 : left;
        ssize_t n = write(o->fd, from, part);
        if (n > 0) {
            from += n;
            left -= (size_t)n;
        } else if (n == 0) {
            rc = -EIO; /* a file that takes nothing and says nothing */
        } else if (errno != EINTR) {
            rc = -errno;
        }
    }
    if (rc != 0)
        return dir_fail(detail, rc, "write", o->name);
    /* Let the disk start now, so that finish has little to wait for. Only a hint: errors show at
     * fdatasync. */
    (void)sync_file_range(o->fd, (off_t)o->written, (off_t)len, SYNC_FILE_RANGE_WRITE);
    o->written += len;
    return 0;
}

static void dir_abandon(void *object)
{
    struct dir_object *o = object;

    if (o->fd >= 0)
        close(o->fd);
    (void)unlinkat(o->dir->root, o->name, 0); /* best effort: gc finds it otherwise */
    free(o);
}

/* The folder, or a part of it, may have been moved away while the object was written: then it lies
 * where nobody looks. */
static int still_there(const struct dir_object *o, const struct stat *mine, char *detail)
{
    struct stat named;
    int rc = dir_look(o->dir, detail);

    if (rc != 0)
        return rc;
    if (fstatat(o->dir->root, o->name, &named, AT_SYMLINK_NOFOLLOW) != 0 ||
        named.st_dev != mine->st_dev || named.st_ino != mine->st_ino)
        rc = dir_fail(detail, -ESTALE, "find", o->name);
    return rc;
}

static int dir_finish(void *object, char *detail)
{
    struct dir_object *o = object;
    struct stat mine;
    int rc = pool_fault("pool.sync");

    if (rc == 0 && (fdatasync(o->fd) != 0 || fstat(o->fd, &mine) != 0))
        rc = -errno;
    if (close(o->fd) != 0 && rc == 0)
        rc = -errno;
    o->fd = -1;
    if (rc == 0)
        rc = sync_folders(o->dir, o->name);
    if (rc != 0)
        dir_fail(detail, rc, "sync", o->name);
    else
        rc = still_there(o, &mine, detail);
    if (rc != 0)
        dir_abandon(o);
    else
        free(o);
    return rc;
}

/* ---- reading */

/* Moves iov past n bytes; returns how many buffers are left. */
static int iov_skip(struct iovec **iov, int count, size_t n)
{
    while (count > 0 && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)++;
        count--;
    }
    if (count > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
    return count;
}

static ssize_t read_all(int fd, uint64_t offset, struct iovec *iov, int count)
{
    ssize_t done = 0;
    int rc = pool_fault("pool.read");

    if (rc != 0)
        return rc;
    while (count > 0) {
        ssize_t n = preadv(fd, iov, count, (off_t)(offset + (uint64_t)done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += n;
        count = iov_skip(&iov, count, (size_t)n);
    }
    return done;
}

/* A kept descriptor may be of an object that was removed, moved or replaced meanwhile. */
static bool gone(const struct dir *d, const char *name, const struct fd_use *use)
{
    struct stat st;

    if (use->fresh)
        return false;
    return fstatat(d->root, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || st.st_dev != use->dev ||
           st.st_ino != use->ino;
}

static ssize_t dir_read(void *ctx, const char *name, uint64_t offset, struct iovec *iov, int count,
                        char *detail)
{
    struct dir *d = ctx;
    struct iovec copy[POOL_IOV_MAX];
    struct fd_use use;
    ssize_t rc = -ESTALE;

    if (!name_ok(name) || offset > INT64_MAX || count < 0 || count > POOL_IOV_MAX)
        return dir_fail(detail, -EINVAL, "read", name);
    /* What a kept descriptor could not do is tried once more with a new one. */
    for (bool again = true; again && rc == -ESTALE;) {
        rc = fd_cache_get(&d->cache, d->root, name, &use);
        if (rc != 0)
            break;
        again = !use.fresh;
        memcpy(copy, iov, (size_t)count * sizeof *iov);
        rc = gone(d, name, &use) ? -ESTALE : read_all(use.fd, offset, copy, count);
        fd_cache_put(&d->cache, &use, rc == -ESTALE);
    }
    return rc < 0 ? dir_fail(detail, (int)rc, "read", name) : rc;
}

static int dir_size(void *ctx, const char *name, uint64_t *size, char *detail)
{
    struct dir *d = ctx;
    struct stat st;
    int rc = 0;

    if (!name_ok(name))
        rc = -EINVAL;
    else if (fstatat(d->root, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        rc = -errno;
    if (rc != 0)
        return dir_fail(detail, rc, "stat", name);
    *size = (uint64_t)st.st_size;
    return 0;
}

/* ---- folders */

static int dir_remove(void *ctx, const char *name, char *detail)
{
    struct dir *d = ctx;
    int rc = name_ok(name) ? pool_fault("pool.remove") : -EINVAL;

    if (rc == 0 && unlinkat(d->root, name, 0) != 0)
        rc = -errno;
    fd_cache_drop(&d->cache, name);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0)
        rc = sync_folders(d, name); /* it must not come back after a crash */
    return rc != 0 ? dir_fail(detail, rc, "remove", name) : 0;
}

static void dir_forget(void *ctx, const char *name)
{
    struct dir *d = ctx;

    fd_cache_drop(&d->cache, name);
}

static int dir_list(void *ctx, const char *folder, bool (*fn)(void *arg, const char *name),
                    void *arg, char *detail)
{
    struct dir *d = ctx;
    struct dirent *entry;
    DIR *stream = NULL;
    int rc = 0;

    int fd = name_ok(folder) ? openat(d->root, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0 && errno == ENOENT && name_ok(folder))
        return 0;
    if (fd >= 0)
        stream = fdopendir(fd);
    if (stream == NULL) {
        rc = name_ok(folder) ? -errno : -EINVAL;
        if (fd >= 0)
            close(fd);
        return dir_fail(detail, rc, "list", folder);
    }
    while (errno = 0, (entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            !fn(arg, entry->d_name))
            break;
    }
    if (entry == NULL && errno != 0)
        rc = dir_fail(detail, -errno, "list", folder);
    closedir(stream);
    return rc;
}

static int dir_statvfs(void *ctx, struct statvfs *out, char *detail)
{
    struct dir *d = ctx;

    if (fstatvfs(d->root, out) == 0)
        return 0;
    return pool_fail(detail, -errno, "cannot ask for the pool's free space: %s", strerror(errno));
}

const struct pool_driver pool_dir = {
    .scheme = "dir",
    .open = dir_open,
    .close = dir_close,
    .create = dir_create,
    .append = dir_append,
    .finish = dir_finish,
    .abandon = dir_abandon,
    .read = dir_read,
    .size = dir_size,
    .remove = dir_remove,
    .list = dir_list,
    .statvfs = dir_statvfs,
    .forget = dir_forget,
    .look = dir_look,
    .adopt = dir_adopt,
};
