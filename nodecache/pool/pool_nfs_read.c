/* Reading an object: its parts in parallel on one connection. */
#include "nodecache/pool/pool_nfs.h"
#include "nodecache/pool/pool_nfs_libnfs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct reading {
    const char *name;
    uint64_t offset;
    const struct iovec *iov;
    int count;
    size_t wanted;
    /* of one try */
    struct np_conn *conn;
    struct np_fh fh;
    size_t asked; /* bytes that a READ was sent for */
    size_t end;   /* the object ends here, as far as is known */
    int rc;
};

/* One READ in flight; at is relative to the reading's offset. */
struct part {
    struct reading *r;
    size_t at, len;
    bool busy;
};

static void scatter(const struct reading *r, size_t at, const char *data, size_t len)
{
    for (int i = 0; i < r->count && len > 0; i++) {
        size_t room = r->iov[i].iov_len;
        if (at >= room) {
            at -= room;
            continue;
        }
        size_t n = room - at < len ? room - at : len;
        memcpy((char *)r->iov[i].iov_base + at, data, n);
        data += n;
        len -= n;
        at = 0;
    }
}

static void read_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct part *p = arg;
    struct reading *r = p->r;
    const READ3res *res = data;
    int rc;

    (void)rpc;
    p->busy = false;
    if (np_call_replied(r->conn, status, &rc))
        rc = np_error((int)res->status);
    if (rc == 0) {
        const READ3resok *ok = &res->READ3res_u.resok;
        size_t got = ok->data.data_len;
        if (got > p->len || (got == 0 && !ok->eof)) {
            rc = -EREMOTEIO;
        } else {
            scatter(r, p->at, ok->data.data_val, got);
            p->at += got;
            p->len -= got;
            if (p->len > 0 && ok->eof) {
                r->end = p->at < r->end ? p->at : r->end;
                p->len = 0;
            }
        }
    }
    if (rc != 0 && r->rc == 0)
        r->rc = rc;
}

static int send_part(struct part *p)
{
    struct reading *r = p->r;
    READ3args args = {.file = {.data = {.data_len = r->fh.len, .data_val = r->fh.data}},
                      .offset = r->offset + p->at,
                      .count = (count3)p->len};

    p->busy = true;
    return np_call_queued(r->conn, rpc_nfs3_read_async(r->conn->rpc, read_reply, &args, p));
}

/* The next piece for a free place, or what a short reply left over. */
static int feed(struct reading *r, struct part *parts, size_t piece)
{
    int rc = 0;

    for (int i = 0; i < NFS_READS && rc == 0; i++) {
        struct part *p = &parts[i];
        if (p->busy)
            continue;
        if (p->len == 0) {
            size_t stop = r->end < r->wanted ? r->end : r->wanted;
            if (r->asked >= stop)
                continue;
            p->at = r->asked;
            p->len = stop - r->asked < piece ? stop - r->asked : piece;
            r->asked += p->len;
        }
        rc = send_part(p);
    }
    return rc;
}

static int read_once(struct nfs *n, struct np_conn *c, void *arg)
{
    struct reading *r = arg;
    struct part parts[NFS_READS] = {0};
    /* Equal pieces: the last one would else be a small one by itself. */
    uint32_t most = n->read_max;
    size_t pieces = (r->wanted + most - 1) / most;
    size_t piece = pieces > 0 ? (r->wanted + pieces - 1) / pieces : 0;
    int rc = np_find(n, c, r->name, &r->fh);

    if (rc != 0)
        return rc;
    r->conn = c;
    r->asked = 0;
    r->end = SIZE_MAX;
    r->rc = 0;
    for (int i = 0; i < NFS_READS; i++)
        parts[i].r = r;
    while (rc == 0 && r->rc == 0) {
        rc = feed(r, parts, piece);
        if (rc != 0 || c->pending == 0)
            break;
        rc = np_conn_run(c, c->pending - 1, NFS_REPLY_MS);
    }
    if (rc == 0 && r->rc != 0) /* the others' replies are waited for: they have places here */
        rc = np_conn_run(c, 0, NFS_REPLY_MS);
    return rc != 0 ? rc : r->rc;
}

ssize_t np_object_read(void *ctx, const char *name, uint64_t offset, struct iovec *iov, int count,
                       char *detail)
{
    struct reading r = {.name = name, .offset = offset, .iov = iov, .count = count};
    struct nfs *n = ctx;

    if (!np_name_ok(name) || offset > INT64_MAX || count < 0 || count > POOL_IOV_MAX)
        return np_fail(detail, -EINVAL, "read", name);
    for (int i = 0; i < count; i++)
        r.wanted += iov[i].iov_len;
    if (r.wanted == 0)
        return 0;
    int rc = np_do(n, false, read_once, &r, detail);
    if (rc != 0)
        return np_fail(detail, rc, "read", name);
    return (ssize_t)(r.end < r.wanted ? r.end : r.wanted);
}
