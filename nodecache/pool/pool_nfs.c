/*
 * nfs: a pool on an NFS server, by libnfs, without a mount of the kernel's. NFSv3 only: the write
 * verifier is what shows that a server has lost uncommitted bytes, and libnfs' calls for version 4
 * hide it. Objects are files under their final names, made exclusively, as in dir:.
 */
#include "nodecache/pool/pool_nfs.h"
#include "nodecache/pool/pool_fault.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool np_name_ok(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len >= NFS_NAME || name[0] == '/' || name[len - 1] == '/')
        return false;
    return strstr(name, "..") == NULL && strstr(name, "//") == NULL;
}

int np_fail(char *detail, int error, const char *what, const char *name)
{
    const char *why = strerror(-error);

    if (error == NFS_AWAY || error == -ETIMEDOUT)
        return error; /* the line says more already */
    if (error == -EROFS)
        why = "the export is read-only";
    else if (error == -ENOSPC || error == -EDQUOT)
        why = "the export is full";
    else if (error == -EACCES || error == -EPERM)
        why = "the server refuses it to this user (squashed? the URL may say uid= and gid=)";
    return pool_fail(detail, error == -EDQUOT ? -ENOSPC : error, "cannot %s \"%s\" in the pool: %s",
                     what, name, why);
}

static void doze(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    nanosleep(&t, NULL);
}

static bool of_the_connection(int rc)
{
    return rc == -ECONNRESET || rc == -ETIMEDOUT;
}

int np_do(struct nfs *n, bool patient, np_op op, void *arg, char *detail)
{
    int64_t deadline = np_now_ms() + (patient ? NFS_PATIENCE_MS : NFS_CALL_MS);
    bool stale = false;
    int rc;

    for (;;) {
        struct np_conn *c;
        char why[sizeof c->why];
        rc = np_conns_get(&n->conns, deadline, patient, false, &c, detail);
        if (rc != 0)
            return rc;
        rc = op(n, c, arg);
        if (rc == -ETIMEDOUT)
            np_conns_away(&n->conns, c);
        snprintf(why, sizeof why, "%s", c->why[0] != '\0' ? c->why : "the call was refused");
        np_conns_put(&n->conns, c, false, !of_the_connection(rc));
        if (rc == -ESTALE && !stale) {
            stale = true;
            np_names_clear(n);
            continue;
        }
        if (!of_the_connection(rc) && rc != -EAGAIN)
            return rc;
        if (rc == -EAGAIN)
            snprintf(why, sizeof why, "it asks to be asked later");
        if (np_now_ms() + NFS_RETRY_MS >= deadline)
            return pool_fail(detail, NFS_AWAY, "the pool's NFS server %.80s, port %u: %.120s",
                             n->url.host, n->url.nfs_port, why);
        doze(NFS_RETRY_MS);
    }
}

/* ---- opening */

/* libnfs takes fresh memory for each call, and glibc by itself gives it back to the kernel each
 * time: that was half the time of writing. This is for the whole process; it keeps at most so much
 * more in each arena. */
#define HEAP_KEEP (64 << 20)

static void keep_heap(void)
{
    mallopt(M_MMAP_THRESHOLD, 4 << 20); /* more than any call's buffer */
    mallopt(M_TRIM_THRESHOLD, HEAP_KEEP);
}

static void np_free(struct nfs *n)
{
    np_conns_destroy(&n->conns);
    np_spare_free(n);
    pthread_mutex_destroy(&n->lock);
    free(n->names);
    free(n);
}

static int np_open(const char *rest, bool create, void **ctx, char *detail)
{
    struct nfs *n = calloc(1, sizeof *n);
    int rc;

    if (n == NULL)
        return pool_fail(detail, -ENOMEM, "no memory for opening the pool");
    keep_heap();
    pthread_mutex_init(&n->lock, NULL);
    np_conns_init(&n->conns, &n->url);
    n->names = calloc(NFS_NAMES_SLOTS, sizeof *n->names);
    rc = n->names != NULL ? np_url_parse(rest, &n->url, detail)
                          : pool_fail(detail, -ENOMEM, "no memory for opening the pool");
    if (rc == 0)
        rc = np_root_find(n, create, &n->root, detail);
    if (rc == 0)
        *ctx = n;
    else
        np_free(n);
    return rc;
}

static void np_close(void *ctx)
{
    np_free(ctx);
}

/* ---- where the URL leads */

static int same_root(struct nfs *n, struct np_conn *c, void *arg)
{
    struct np_file now = {0};
    struct np_fh root;

    (void)arg;
    np_root(n, &root);
    return np_getattr(c, &root, &now);
}

/* A handle that is good leads to what was opened; whether another folder has that name now is asked
 * as well. */
static int np_look(void *ctx, char *detail)
{
    struct nfs *n = ctx;
    struct np_fh named, root;
    int rc = np_do(n, false, same_root, NULL, detail);

    if (rc == -ESTALE)
        return pool_fail(detail, rc,
                         "the pool's folder nfs://%.80s%.100s is not the one that was "
                         "opened",
                         n->url.host, n->url.path);
    if (rc != 0)
        return np_fail(detail, rc, "find", n->url.path);
    rc = np_root_find(n, false, &named, detail);
    if (rc != 0)
        return rc;
    np_root(n, &root);
    if (named.len == root.len && memcmp(named.data, root.data, root.len) == 0)
        return 0;
    return pool_fail(detail, -ESTALE,
                     "the pool's folder nfs://%.80s%.100s is not the one that was opened",
                     n->url.host, n->url.path);
}

static int np_adopt(void *ctx, void *fresh, char *detail)
{
    struct nfs *n = ctx;
    struct np_fh root;

    (void)detail;
    np_root(fresh, &root);
    pthread_mutex_lock(&n->lock);
    n->root = root;
    pthread_mutex_unlock(&n->lock);
    np_names_clear(n);
    return 0;
}

/* ---- folders */

struct named {
    const char *name;
    void *out;
};

static int size_op(struct nfs *n, struct np_conn *c, void *arg)
{
    struct named *a = arg;
    struct np_file *file = a->out;
    int rc = np_find(n, c, a->name, &file->fh);

    return rc == 0 ? np_getattr(c, &file->fh, file) : rc;
}

static int np_size(void *ctx, const char *name, uint64_t *size, char *detail)
{
    struct np_file file = {0};
    struct named a = {name, &file};
    int rc = np_name_ok(name) ? np_do(ctx, false, size_op, &a, detail) : -EINVAL;

    if (rc != 0)
        return np_fail(detail, rc, "stat", name);
    *size = file.size;
    return 0;
}

static int remove_op(struct nfs *n, struct np_conn *c, void *arg)
{
    struct named *a = arg;
    const char *last;
    struct np_fh dir;
    int rc = np_find_parent(n, c, a->name, false, &dir, &last);

    if (rc == 0)
        rc = np_remove(c, &dir, last);
    return rc == -ENOENT ? 0 : rc;
}

static int np_remove_object(void *ctx, const char *name, char *detail)
{
    struct named a = {name, NULL};
    struct nfs *n = ctx;
    int rc = np_name_ok(name) ? pool_fault("pool.remove") : -EINVAL;

    if (rc == 0)
        rc = np_do(n, false, remove_op, &a, detail);
    if (rc != 0)
        return np_fail(detail, rc, "remove", name);
    np_names_drop(n, name);
    return 0;
}

/* All of it before anybody is told: a folder that changes may make the server ask to begin again.
 */
static int list_op(struct nfs *n, struct np_conn *c, void *arg)
{
    struct named *a = arg;
    struct np_names *names = a->out;
    struct np_fh dir;
    int rc = np_find(n, c, a->name, &dir);

    names->used = names->count = 0;
    names->cookie = 0;
    names->eof = false;
    memset(names->verifier, 0, sizeof names->verifier);
    while (rc == 0 && !names->eof)
        rc = np_readdir(c, &dir, names);
    return rc;
}

static int np_list(void *ctx, const char *folder, bool (*fn)(void *arg, const char *name),
                   void *arg, char *detail)
{
    struct np_names names = {0};
    struct named a = {folder, &names};
    int rc = np_name_ok(folder) ? np_do(ctx, false, list_op, &a, detail) : -EINVAL;
    const char *name = names.names;

    for (size_t i = 0; rc == 0 && i < names.count; i++) {
        if (!fn(arg, name))
            break;
        name += strlen(name) + 1;
    }
    free(names.names);
    return rc == 0 || rc == -ENOENT ? 0 : np_fail(detail, rc, "list", folder);
}

static int statvfs_op(struct nfs *n, struct np_conn *c, void *arg)
{
    struct np_fh root;

    np_root(n, &root);
    return np_fsstat(c, &root, arg);
}

static int np_statvfs(void *ctx, struct statvfs *out, char *detail)
{
    int rc = np_do(ctx, false, statvfs_op, out, detail);
    return rc == 0 ? 0 : np_fail(detail, rc, "measure", "its free space");
}

static void np_forget(void *ctx, const char *name)
{
    np_names_drop(ctx, name);
}

const struct pool_driver pool_nfs = {
    .scheme = "nfs",
    .open = np_open,
    .close = np_close,
    .create = np_object_create,
    .append = np_object_append,
    .finish = np_object_finish,
    .abandon = np_object_abandon,
    .read = np_object_read,
    .size = np_size,
    .remove = np_remove_object,
    .list = np_list,
    .statvfs = np_statvfs,
    .room = np_object_room,
    .forget = np_forget,
    .look = np_look,
    .adopt = np_adopt,
};
