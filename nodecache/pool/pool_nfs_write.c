/*
 * Writing an object: UNSTABLE WRITEs in flight, COMMIT behind them, and every byte kept until a
 * COMMIT has answered with the verifier that its WRITE had. Another verifier means that the server
 * has started anew in between and may have lost the bytes: they are written once more. A
 * connection that breaks changes nothing but that what was in flight is sent again on the next one:
 * all these calls may be done twice.
 */
#include "nodecache/pool/pool_fault.h"
#include "nodecache/pool/pool_nfs.h"
#include "nodecache/pool/pool_nfs_libnfs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <utlist.h>

/* Of one WRITE, and how many are in flight: README.md has what was measured. */
#define PIECE     (512u << 10)
#define IN_FLIGHT 8u
/* Written since the last COMMIT when the next one goes out: a few times for a pack, as a server's
 * disk has its price for each, and not more than needed, as fresh memory has its own (README.md).
 */
#define COMMIT_BYTES (8u << 20)
/* Kept bytes at which append waits: those under one COMMIT, and as many behind it. */
#define KEEP_BYTES (2 * COMMIT_BYTES)
/* Connections that one object may lose, and times that it may be told that its bytes are lost: a
 * server that does that is not one. */
#define LOSSES_MAX 64

enum state { WAITING, FLYING, WRITTEN };

struct object;
struct chunk {
    struct chunk *prev, *next; /* next: also of the pool's spare ones */
    struct object *o;
    uint64_t offset;
    uint32_t len, done, room;
    enum state state;
    bool covered;                      /* by the COMMIT in flight */
    char verifier[NFS3_WRITEVERFSIZE]; /* of its first WRITE */
    char data[];
};

struct object {
    struct nfs *n;
    struct np_conn *conn; /* or NULL */
    struct np_file file;
    struct chunk *chunks;  /* in the order of their offsets */
    struct chunk *filling; /* the last one, not in the list yet */
    uint64_t written;
    size_t kept, uncommitted; /* bytes in chunks; of those WRITTEN and not covered */
    unsigned waiting, flying, losses;
    bool commit_flies, finishing;
    int error;        /* of the object, -errno */
    int64_t progress; /* np_now_ms() of the last success, or of the caller's arrival */
    int64_t pause;    /* nothing is sent before, as the server wants it */
    char name[];
};

static void set_state(struct chunk *c, enum state state)
{
    struct object *o = c->o;

    o->waiting -= c->state == WAITING;
    o->flying -= c->state == FLYING;
    if (c->state == WRITTEN && !c->covered)
        o->uncommitted -= c->len;
    c->state = state;
    c->covered = false;
    o->waiting += state == WAITING;
    o->flying += state == FLYING;
    if (state == WRITTEN)
        o->uncommitted += c->len;
}

/* Fresh memory costs more than the bytes in it: what one object does not need the next one fills
 * again, the last one first, as it is in the processor's cache. */
static void chunk_spare(struct nfs *n, struct chunk *c)
{
    pthread_mutex_lock(&n->lock);
    bool kept = n->spare_n < NFS_SPARE_MAX;
    if (kept) {
        LL_PREPEND(n->spare, c);
        n->spare_n++;
    }
    pthread_mutex_unlock(&n->lock);
    if (!kept)
        free(c);
}

static struct chunk *chunk_take_spare(struct nfs *n)
{
    pthread_mutex_lock(&n->lock);
    struct chunk *c = n->spare;
    if (c != NULL) {
        LL_DELETE(n->spare, c);
        n->spare_n--;
    }
    pthread_mutex_unlock(&n->lock);
    return c;
}

void np_spare_free(struct nfs *n)
{
    struct chunk *c;

    while ((c = chunk_take_spare(n)) != NULL)
        free(c);
}

static void chunk_free(struct chunk *c)
{
    struct object *o = c->o;

    set_state(c, WAITING);
    o->waiting--;
    o->kept -= c->len;
    DL_DELETE(o->chunks, c);
    chunk_spare(o->n, c);
}

static void again_later(struct object *o)
{
    o->pause = np_now_ms() + NFS_RETRY_MS;
}

/* ---- replies */

static int write_took(struct chunk *c, const WRITE3resok *ok)
{
    bool first = c->done == 0;

    if (ok->count == 0 || ok->count > c->len - c->done)
        return -EREMOTEIO;
    if (!first && memcmp(c->verifier, ok->verf, sizeof c->verifier) != 0) {
        c->done = 0; /* the part before may be lost */
        set_state(c, WAITING);
        return 0;
    }
    memcpy(c->verifier, ok->verf, sizeof c->verifier);
    c->done += ok->count;
    if (c->done < c->len)
        set_state(c, WAITING);
    else if (first && ok->committed == FILE_SYNC)
        chunk_free(c);
    else
        set_state(c, WRITTEN);
    return 0;
}

static void write_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct chunk *c = arg;
    struct object *o = c->o;
    const WRITE3res *res = data;
    int rc;

    (void)rpc;
    if (!np_call_replied(o->conn, status, &rc)) {
        set_state(c, WAITING);
        return;
    }
    rc = np_error((int)res->status);
    if (rc == 0) {
        o->progress = np_now_ms();
        rc = write_took(c, &res->WRITE3res_u.resok);
    } else {
        set_state(c, WAITING);
    }
    if (rc == -EAGAIN)
        again_later(o);
    else if (rc != 0 && o->error == 0)
        o->error = rc;
}

static void uncover(struct object *o)
{
    struct chunk *c;

    DL_FOREACH (o->chunks, c) {
        if (c->covered)
            set_state(c, WRITTEN);
    }
}

static void committed(struct object *o, const char *verifier)
{
    struct chunk *c, *next;
    bool lost = false;

    DL_FOREACH_SAFE (o->chunks, c, next) {
        if (!c->covered)
            continue;
        if (memcmp(c->verifier, verifier, sizeof c->verifier) == 0) {
            chunk_free(c);
        } else {
            lost = true;
            c->done = 0;
            set_state(c, WAITING);
        }
    }
    if (lost && ++o->losses > LOSSES_MAX && o->error == 0)
        o->error = -EREMOTEIO;
}

static void commit_reply(struct rpc_context *rpc, int status, void *data, void *arg)
{
    struct object *o = arg;
    const COMMIT3res *res = data;
    int rc;

    (void)rpc;
    o->commit_flies = false;
    if (np_call_replied(o->conn, status, &rc))
        rc = np_error((int)res->status);
    if (rc == 0) {
        o->progress = np_now_ms();
        committed(o, res->COMMIT3res_u.resok.verf);
        return;
    }
    uncover(o);
    if (rc == -EAGAIN)
        again_later(o);
    else if (rc != -ECONNRESET && o->error == 0)
        o->error = rc;
}

/* ---- sending */

static int send_write(struct object *o, struct chunk *c)
{
    WRITE3args args = {.file = {.data = {.data_len = o->file.fh.len, .data_val = o->file.fh.data}},
                       .offset = c->offset + c->done,
                       .count = c->len - c->done,
                       .stable = UNSTABLE,
                       .data = {.data_len = c->len - c->done, .data_val = c->data + c->done}};

    set_state(c, FLYING);
    int queued = rpc_nfs3_write_async(o->conn->rpc, write_reply, &args, c);
    if (queued != 0)
        set_state(c, WAITING);
    return np_call_queued(o->conn, queued);
}

/* Covers what has been answered. The range is "all": what is still in flight is not covered. */
static int send_commit(struct object *o)
{
    COMMIT3args args = {
        .file = {.data = {.data_len = o->file.fh.len, .data_val = o->file.fh.data}}};
    struct chunk *c;

    DL_FOREACH (o->chunks, c) {
        if (c->state == WRITTEN)
            c->covered = true;
    }
    o->uncommitted = 0;
    o->commit_flies = true;
    int queued = rpc_nfs3_commit_async(o->conn->rpc, commit_reply, &args, o);
    if (queued != 0) {
        o->commit_flies = false;
        uncover(o);
    }
    return np_call_queued(o->conn, queued);
}

static int send_all(struct object *o)
{
    struct chunk *c;
    int rc = 0;

    if (np_now_ms() < o->pause)
        return 0;
    if (o->waiting > 0) {
        DL_FOREACH (o->chunks, c) {
            if (rc != 0 || o->flying >= IN_FLIGHT)
                break;
            if (c->state == WAITING)
                rc = send_write(o, c);
        }
    }
    bool rest = o->finishing && o->waiting == 0 && o->flying == 0 && o->uncommitted > 0;
    if (rc == 0 && !o->commit_flies && (o->uncommitted >= COMMIT_BYTES || rest))
        rc = send_commit(o);
    return rc;
}

/* ---- the object's connection */

static void drop_conn(struct object *o, int rc)
{
    if (o->conn == NULL)
        return;
    if (rc == -ETIMEDOUT)
        np_conns_away(&o->n->conns, o->conn);
    np_conns_put(&o->n->conns, o->conn, true, rc == 0 && o->conn->pending == 0);
    o->conn = NULL;
}

static int need_conn(struct object *o, char *detail)
{
    if (o->conn != NULL)
        return 0;
    return np_conns_get(&o->n->conns, o->progress + NFS_PATIENCE_MS, true, true, &o->conn, detail);
}

static int lost_conn(struct object *o, int rc, char *detail)
{
    bool hopeless = ++o->losses > LOSSES_MAX || np_now_ms() >= o->progress + NFS_PATIENCE_MS;

    if (hopeless)
        rc = pool_fail(detail, NFS_AWAY, "the pool's NFS server %.80s, port %u: %.120s",
                       o->n->url.host, o->n->url.nfs_port, o->conn->why);
    drop_conn(o, rc == NFS_AWAY ? -ECONNRESET : rc);
    return hopeless ? rc : 0;
}

static bool enough(const struct object *o)
{
    if (o->finishing)
        return o->chunks == NULL;
    return o->waiting == 0 && o->kept <= KEEP_BYTES;
}

/* Waits for a reply; when there is none to come, the server wants a pause. */
static int wait_some(struct object *o)
{
    const struct timespec pause = {.tv_nsec = NFS_RETRY_MS * 1000000L};

    if (o->conn->pending > 0)
        return np_conn_run(o->conn, o->conn->pending - 1,
                           o->commit_flies ? NFS_COMMIT_MS : NFS_REPLY_MS);
    if (np_now_ms() >= o->progress + NFS_PATIENCE_MS)
        return -ETIMEDOUT;
    nanosleep(&pause, NULL);
    return 0;
}

/* Until enough is done for now. */
static int pump(struct object *o, char *detail)
{
    int rc = 0;

    o->progress = np_now_ms();
    while (rc == 0 && o->error == 0) {
        rc = need_conn(o, detail);
        if (rc != 0)
            break;
        rc = send_all(o);
        if (rc == 0 && enough(o)) {
            rc = np_conn_push(o->conn);
            if (rc == 0)
                break;
        }
        if (rc == 0)
            rc = wait_some(o);
        if (rc != 0)
            rc = lost_conn(o, rc, detail);
    }
    if (rc == 0 && o->error != 0)
        rc = np_fail(detail, o->error, "write", o->name);
    if (rc != 0 && o->error == 0)
        o->error = rc;
    return rc;
}

/* ---- the table's functions */

struct creating {
    struct object *o;
    char verifier[8];
};

static int create_op(struct nfs *n, struct np_conn *c, void *arg)
{
    struct creating *a = arg;
    const char *last;
    struct np_fh dir;
    int rc = np_find_parent(n, c, a->o->name, true, &dir, &last);

    if (rc == 0)
        rc = np_create(c, &dir, last, a->verifier, &a->o->file);
    return rc;
}

int np_object_create(void *ctx, const char *name, void **object, char *detail)
{
    struct nfs *n = ctx;
    struct creating a = {0};
    int rc = np_name_ok(name) ? pool_fault("pool.create") : -EINVAL;

    if (rc == 0 && getrandom(a.verifier, sizeof a.verifier, 0) != sizeof a.verifier)
        rc = -EIO;
    if (rc != 0)
        return np_fail(detail, rc, "create", name);
    a.o = calloc(1, sizeof *a.o + strlen(name) + 1);
    if (a.o == NULL)
        return np_fail(detail, -ENOMEM, "create", name);
    memcpy(a.o->name, name, strlen(name) + 1);
    a.o->n = n;
    rc = np_do(n, true, create_op, &a, detail);
    if (rc == 0)
        *object = a.o;
    else
        free(a.o);
    return rc == 0 ? 0 : np_fail(detail, rc, "create", name);
}

static struct chunk *chunk_new(struct object *o)
{
    uint32_t most = o->n->write_max, room = most < PIECE ? most : PIECE;
    struct chunk *c = chunk_take_spare(o->n);

    if (c == NULL)
        c = malloc(sizeof *c + PIECE); /* write_max may grow */
    if (c == NULL)
        return NULL;
    memset(c, 0, sizeof *c);
    c->o = o;
    c->room = room;
    c->offset = o->written;
    return c;
}

/* The chunk that was filled takes its place among those to be sent. */
static void chunk_full(struct object *o)
{
    DL_APPEND(o->chunks, o->filling);
    o->kept += o->filling->len;
    o->waiting++;
    o->filling = NULL;
}

int np_object_room(void *object, void **at, size_t *len, char *detail)
{
    struct object *o = object;

    if (o->error != 0)
        return np_fail(detail, o->error, "write", o->name);
    if (o->filling == NULL && (o->filling = chunk_new(o)) == NULL)
        return np_fail(detail, o->error = -ENOMEM, "write", o->name);
    *at = o->filling->data + o->filling->len;
    *len = o->filling->room - o->filling->len;
    return 0;
}

int np_object_append(void *object, const void *data, size_t len, char *detail)
{
    struct object *o = object;
    const char *from = data;

    if (o->error == 0)
        o->error = pool_fault("pool.append");
    if (o->error != 0)
        return np_fail(detail, o->error, "write", o->name);
    while (len > 0) {
        if (o->filling == NULL && (o->filling = chunk_new(o)) == NULL)
            return np_fail(detail, o->error = -ENOMEM, "write", o->name);
        struct chunk *c = o->filling;
        uint32_t part = len < c->room - c->len ? (uint32_t)len : c->room - c->len;
        if (from != c->data + c->len)
            memcpy(c->data + c->len, from, part);
        c->len += part;
        o->written += part;
        from += part;
        len -= part;
        if (c->len == c->room)
            chunk_full(o);
    }
    return o->waiting > 0 ? pump(o, detail) : 0;
}

static void object_free(struct object *o)
{
    struct chunk *c, *next;

    drop_conn(o, o->error);
    DL_FOREACH_SAFE (o->chunks, c, next)
        chunk_free(c);
    if (o->filling != NULL)
        chunk_spare(o->n, o->filling);
    free(o);
}

void np_object_abandon(void *object)
{
    struct object *o = object;
    char name[NFS_NAME], ignored[POOL_DETAIL];
    struct nfs *n = o->n;

    strcpy(name, o->name); /* np_name_ok() has seen its length */
    object_free(o);
    /* Best effort: gc finds it otherwise. */
    (void)pool_nfs.remove(n, name, ignored);
}

/* It must be what the name leads to, and whole, as the server sees it now (LOOKUP says that too).
 */
static int check_op(struct nfs *n, struct np_conn *c, void *arg)
{
    const struct object *o = arg;
    struct np_file now = {0};
    int rc = np_find_fresh(n, c, o->name, &now);

    if (rc != 0)
        return rc == -ENOENT ? -ESTALE : rc;
    if (now.fileid != o->file.fileid || now.fsid != o->file.fsid)
        return -ESTALE;
    return now.size == o->written ? 0 : -EREMOTEIO;
}

int np_object_finish(void *object, char *detail)
{
    struct object *o = object;
    int rc = o->error != 0 ? o->error : pool_fault("pool.sync");

    if (rc != 0) {
        np_fail(detail, rc, "sync", o->name);
    } else {
        if (o->filling != NULL)
            chunk_full(o);
        o->finishing = true;
        rc = o->chunks != NULL ? pump(o, detail) : 0;
        if (rc == 0) {
            drop_conn(o, 0);
            rc = np_do(o->n, true, check_op, o, detail);
            if (rc != 0)
                rc = np_fail(detail, rc, "find", o->name);
        }
    }
    if (rc != 0) {
        o->error = rc;
        np_object_abandon(o);
    } else {
        object_free(o);
    }
    return rc;
}
