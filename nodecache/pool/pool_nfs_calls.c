/* Single calls of NFSv3 and MOUNT: send, wait, take what is needed of the reply. */
#include "nodecache/pool/pool_internal.h"
#include "nodecache/pool/pool_nfs_libnfs.h"
#include "nodecache/pool/pool_nfs_rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOUNT_PROGRAM_NUMBER 100005
#define MOUNT_VERSION_NUMBER 3
#define PORTMAPPER_PORT      111
#define TCP_PROTOCOL         6
/* Of one part of a folder's listing. */
#define READDIR_BYTES (32u << 10)
/* A folder of the pool holds 1/256 of its packs; more than this is no pool of ours. */
#define NAMES_BYTES_MAX (64u << 20)
#define STATVFS_BLOCK   4096u

/* One call: where its reply goes. */
struct call {
    struct np_conn *conn;
    int rc;
    void *out;
};

static int wait_for(struct call *c, int queued)
{
    int rc = np_call_queued(c->conn, queued);

    if (rc == 0)
        rc = np_conn_run(c->conn, 0, NFS_REPLY_MS);
    return rc != 0 ? rc : c->rc;
}

/* Of every reply whose body begins with an nfsstat3: true if it is NFS3_OK. */
static bool good(struct call *c, int status, const void *reply)
{
    if (np_call_replied(c->conn, status, &c->rc))
        c->rc = np_error((int)*(const nfsstat3 *)reply);
    return c->rc == 0;
}

static nfs_fh3 fh3(const struct np_fh *fh)
{
    nfs_fh3 out = {.data = {.data_len = fh->len, .data_val = (char *)(uintptr_t)fh->data}};
    return out;
}

static int take_fh(struct np_fh *out, uint32_t len, const char *data)
{
    if (len == 0 || len > NFS_FH_MAX)
        return -EREMOTEIO;
    out->len = len;
    memcpy(out->data, data, len);
    return 0;
}

static void take_attributes(struct np_file *out, const fattr3 *a)
{
    out->known = true;
    out->folder = a->type == NF3DIR;
    out->fsid = a->fsid;
    out->fileid = a->fileid;
    out->size = a->size;
}

/* ---- names */

static void lookup_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct call *c = arg;
    const LOOKUP3res *res = data;
    struct np_file *out = c->out;

    (void)rpc;
    if (!good(c, status, res))
        return;
    const LOOKUP3resok *ok = &res->LOOKUP3res_u.resok;
    c->rc = take_fh(&out->fh, ok->object.data.data_len, ok->object.data.data_val);
    out->known = false;
    if (ok->obj_attributes.attributes_follow)
        take_attributes(out, &ok->obj_attributes.post_op_attr_u.attributes);
}

int np_lookup(struct np_conn *c, const struct np_fh *dir, const char *name, struct np_file *out)
{
    struct call call = {.conn = c, .out = out};
    LOOKUP3args args = {.what = {.dir = fh3(dir), .name = (char *)(uintptr_t)name}};
    int rc = wait_for(&call, rpc_nfs3_lookup_async(c->rpc, lookup_reply, &args, &call));

    return rc == 0 && !out->known ? np_getattr(c, &out->fh, out) : rc;
}

static void getattr_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct call *c = arg;
    const GETATTR3res *res = data;

    (void)rpc;
    if (good(c, status, res))
        take_attributes(c->out, &res->GETATTR3res_u.resok.obj_attributes);
}

int np_getattr(struct np_conn *c, const struct np_fh *fh, struct np_file *out)
{
    struct call call = {.conn = c, .out = out};
    GETATTR3args args = {.object = fh3(fh)};

    if (&out->fh != fh)
        out->fh = *fh;
    return wait_for(&call, rpc_nfs3_getattr_async(c->rpc, getattr_reply, &args, &call));
}

/* A reply of which only the status counts: CREATE, MKDIR, SETATTR, REMOVE. The handle is looked up,
 * as a server may leave it out. */
static void status_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    (void)rpc;
    (void)good(arg, status, data);
}

/* An exclusive creation leaves its verifier in the times, and a mode of the server's choice. */
static int settle(struct np_conn *c, const struct np_fh *fh)
{
    struct call call = {.conn = c};
    SETATTR3args args = {.object = fh3(fh)};

    args.new_attributes.mode.set_it = 1;
    args.new_attributes.mode.set_mode3_u.mode = 0600;
    args.new_attributes.atime.set_it = SET_TO_SERVER_TIME;
    args.new_attributes.mtime.set_it = SET_TO_SERVER_TIME;
    return wait_for(&call, rpc_nfs3_setattr_async(c->rpc, status_reply, &args, &call));
}

int np_create(struct np_conn *c, const struct np_fh *dir, const char *name, const char verifier[8],
              struct np_file *out)
{
    struct call call = {.conn = c};
    CREATE3args args = {.where = {.dir = fh3(dir), .name = (char *)(uintptr_t)name}};
    int rc;

    args.how.mode = EXCLUSIVE;
    memcpy(args.how.createhow3_u.verf, verifier, sizeof args.how.createhow3_u.verf);
    rc = wait_for(&call, rpc_nfs3_create_async(c->rpc, status_reply, &args, &call));
    if (rc == 0)
        rc = np_lookup(c, dir, name, out);
    return rc == 0 ? settle(c, &out->fh) : rc;
}

int np_mkdir(struct np_conn *c, const struct np_fh *dir, const char *name)
{
    struct call call = {.conn = c};
    MKDIR3args args = {.where = {.dir = fh3(dir), .name = (char *)(uintptr_t)name}};

    args.attributes.mode.set_it = 1;
    args.attributes.mode.set_mode3_u.mode = 0700;
    return wait_for(&call, rpc_nfs3_mkdir_async(c->rpc, status_reply, &args, &call));
}

int np_remove(struct np_conn *c, const struct np_fh *dir, const char *name)
{
    struct call call = {.conn = c};
    REMOVE3args args = {.object = {.dir = fh3(dir), .name = (char *)(uintptr_t)name}};

    return wait_for(&call, rpc_nfs3_remove_async(c->rpc, status_reply, &args, &call));
}

/* ---- listing */

static int names_add(struct np_names *n, const char *name)
{
    size_t len = strnlen(name, 256) + 1;

    if (len > 256)
        return -EREMOTEIO;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return 0;
    if (n->used + len > n->room) {
        size_t room = n->room == 0 ? 4096 : n->room * 2;
        if (room > NAMES_BYTES_MAX)
            return -EFBIG;
        char *names = realloc(n->names, room);
        if (names == NULL)
            return -ENOMEM;
        n->names = names;
        n->room = room;
    }
    memcpy(n->names + n->used, name, len);
    n->used += len;
    n->count++;
    return 0;
}

static void readdir_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct call *c = arg;
    const READDIR3res *res = data;
    struct np_names *n = c->out;
    uint64_t before = n->cookie;

    (void)rpc;
    if (!good(c, status, res))
        return;
    const READDIR3resok *ok = &res->READDIR3res_u.resok;
    entry3 e; /* libnfs puts them where a 64-bit number may not lie */
    for (const void *next = ok->reply.entries; next != NULL && c->rc == 0; next = e.nextentry) {
        memcpy(&e, next, sizeof e);
        c->rc = names_add(n, e.name);
        n->cookie = e.cookie;
    }
    memcpy(n->verifier, ok->cookieverf, sizeof n->verifier);
    n->eof = ok->reply.eof != 0;
    if (c->rc == 0 && !n->eof && n->cookie == before)
        c->rc = -EREMOTEIO; /* it would go on for ever */
}

int np_readdir(struct np_conn *c, const struct np_fh *dir, struct np_names *n)
{
    struct call call = {.conn = c, .out = n};
    READDIR3args args = {.dir = fh3(dir), .cookie = n->cookie, .count = READDIR_BYTES};

    memcpy(args.cookieverf, n->verifier, sizeof args.cookieverf);
    return wait_for(&call, rpc_nfs3_readdir_async(c->rpc, readdir_reply, &args, &call));
}

/* ---- the filesystem */

static void fsinfo_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct call *c = arg;
    const FSINFO3res *res = data;
    struct np_sizes *out = c->out;

    (void)rpc;
    if (!good(c, status, res))
        return;
    out->read = res->FSINFO3res_u.resok.rtmax;
    out->write = res->FSINFO3res_u.resok.wtmax;
}

int np_fsinfo(struct np_conn *c, const struct np_fh *fh, struct np_sizes *out)
{
    struct call call = {.conn = c, .out = out};
    FSINFO3args args = {.fsroot = fh3(fh)};

    return wait_for(&call, rpc_nfs3_fsinfo_async(c->rpc, fsinfo_reply, &args, &call));
}

static void fsstat_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct call *c = arg;
    const FSSTAT3res *res = data;
    struct statvfs *out = c->out;

    (void)rpc;
    if (!good(c, status, res))
        return;
    const FSSTAT3resok *ok = &res->FSSTAT3res_u.resok;
    memset(out, 0, sizeof *out);
    out->f_bsize = out->f_frsize = STATVFS_BLOCK;
    out->f_blocks = ok->tbytes / STATVFS_BLOCK;
    out->f_bfree = ok->fbytes / STATVFS_BLOCK;
    out->f_bavail = ok->abytes / STATVFS_BLOCK;
    out->f_files = ok->tfiles;
    out->f_ffree = ok->ffiles;
    out->f_favail = ok->afiles;
    out->f_namemax = 255;
}

int np_fsstat(struct np_conn *c, const struct np_fh *fh, struct statvfs *out)
{
    struct call call = {.conn = c, .out = out};
    FSSTAT3args args = {.fsroot = fh3(fh)};

    return wait_for(&call, rpc_nfs3_fsstat_async(c->rpc, fsstat_reply, &args, &call));
}

/* ---- MOUNT and the portmapper */

static void mnt_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct call *c = arg;
    const mountres3 *res = data;

    (void)rpc;
    if (!np_call_replied(c->conn, status, &c->rc))
        return;
    c->rc = mountstat3_to_errno((int)res->fhs_status);
    if (c->rc == 0)
        c->rc = take_fh(c->out, res->mountres3_u.mountinfo.fhandle.fhandle3_len,
                        res->mountres3_u.mountinfo.fhandle.fhandle3_val);
}

int np_mnt(struct np_conn *c, const char *path, struct np_fh *out)
{
    struct call call = {.conn = c, .out = out};

    return wait_for(&call, rpc_mount3_mnt_async(c->rpc, mnt_reply, (char *)(uintptr_t)path, &call));
}

static void getport_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct call *c = arg;

    (void)rpc;
    if (np_call_replied(c->conn, status, &c->rc))
        *(uint32_t *)c->out = *(const uint32_t *)data;
}

int np_mount_port(const struct np_url *url, const char *address, uint16_t *port, char *detail)
{
    struct np_conn *c;
    uint32_t found = 0;
    struct call call = {.out = &found};
    int rc = np_conn_open(url, address, PORTMAPPER_PORT, NFS_GREET_NOT, NFS_CONNECT_MS, &c, detail);

    if (rc != 0)
        return rc;
    call.conn = c;
    rc = wait_for(&call, rpc_pmap2_getport_async(c->rpc, MOUNT_PROGRAM_NUMBER, MOUNT_VERSION_NUMBER,
                                                 TCP_PROTOCOL, getport_reply, &call));
    np_conn_close(c);
    if (rc == 0 && (found == 0 || found > UINT16_MAX))
        rc = -EPROTONOSUPPORT;
    if (rc != 0)
        return pool_fail(detail, rc,
                         "the portmapper of %.100s knows no MOUNT version 3 over TCP (the URL may "
                         "name it: mountport=)",
                         url->host);
    *port = (uint16_t)found;
    return 0;
}
