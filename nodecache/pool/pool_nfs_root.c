/* From the URL's path to the handle of the pool's folder. */
#include "nodecache/pool/pool_nfs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *export_error(int rc)
{
    switch (rc) {
    case -ENOENT:
        return "the server has no such export";
    case -EACCES:
    case -EPERM:
        return "the server does not export it, or not to this machine, or not to ports above 1023";
    default:
        return strerror(-rc);
    }
}

/* Which part of the path is the export is the server's affair: the longest part that it mounts is
 * taken, and *below is set to the rest. */
static int mount_longest(struct nfs *n, struct np_conn *c, struct np_fh *out, const char **below,
                         char *detail)
{
    char path[NFS_URL_PATH];
    int first = 0, rc;

    snprintf(path, sizeof path, "%s", n->url.path);
    for (;;) {
        rc = np_mnt(c, path, out);
        if (first == 0)
            first = rc;
        char *slash = strrchr(path, '/');
        if (rc == 0 || !np_conn_ok(c) || slash == path ||
            (rc != -ENOENT && rc != -EACCES && rc != -EPERM && rc != -ENOTDIR))
            break;
        *slash = '\0';
    }
    *below = n->url.path + strlen(path);
    if (rc == 0)
        return 0;
    return pool_fail(detail, first, "mounting nfs://%.80s%.80s: %s", n->url.host, n->url.path,
                     np_conn_ok(c) ? export_error(first) : c->why);
}

static int mount_root(struct nfs *n, struct np_fh *out, const char **below, char *detail)
{
    uint16_t port = n->url.mount_port;
    struct np_conn *c;
    char address[64];
    int rc = 0;

    if (port == 0) {
        rc = np_conns_address(&n->conns, address, detail);
        if (rc == 0)
            rc = np_mount_port(&n->url, address, &port, detail);
    }
    if (rc == 0)
        rc = np_conns_extra(&n->conns, port, NFS_GREET_MOUNT, &c, detail);
    if (rc != 0)
        return rc;
    rc = mount_longest(n, c, out, below, detail);
    np_conn_close(c);
    return rc;
}

/* Down the folders below what was mounted; only the last one is ever made. */
static int descend(struct np_conn *c, const char *below, bool create, struct np_file *at)
{
    char part[256];
    int rc = 0;

    while (rc == 0 && *below == '/') {
        struct np_fh dir = at->fh;
        size_t len = strcspn(below + 1, "/");
        snprintf(part, sizeof part, "%.*s", (int)len, below + 1);
        below += 1 + len;
        if (len == 0)
            continue;
        rc = np_lookup(c, &dir, part, at);
        if (rc == -ENOENT && create && *below == '\0') {
            rc = np_mkdir(c, &dir, part);
            if (rc == 0 || rc == -EEXIST)
                rc = np_lookup(c, &dir, part, at);
        }
    }
    if (rc == 0 && !at->known)
        rc = np_getattr(c, &at->fh, at);
    return rc == 0 && !at->folder ? -ENOTDIR : rc;
}

static int sizes(struct nfs *n, struct np_conn *c, const struct np_fh *root)
{
    struct np_sizes s = {0};
    int rc = np_fsinfo(c, root, &s);

    if (rc != 0)
        return rc;
    if (s.read < NFS_IO_MIN || s.write < NFS_IO_MIN)
        return -EREMOTEIO;
    n->read_max = s.read < NFS_IO_MAX ? s.read : NFS_IO_MAX;
    n->write_max = s.write < NFS_IO_MAX ? s.write : NFS_IO_MAX;
    return 0;
}

int np_root_find(struct nfs *n, bool create, struct np_fh *out, char *detail)
{
    struct np_file at = {0};
    struct np_conn *c;
    const char *below;
    int rc = np_conns_extra(&n->conns, n->url.nfs_port, NFS_GREET_NFS, &c, detail);

    if (rc != 0)
        return rc;
    rc = mount_root(n, &at.fh, &below, detail);
    if (rc != 0)
        goto out;
    rc = descend(c, below, create, &at);
    if (rc == 0)
        rc = sizes(n, c, &at.fh);
    if (rc != 0)
        pool_fail(detail, rc, "the pool's folder nfs://%.80s%.100s: %s", n->url.host, n->url.path,
                  np_conn_ok(c) ? strerror(-rc) : c->why);
    *out = at.fh;
out:
    np_conn_close(c);
    return rc;
}
