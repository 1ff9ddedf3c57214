/*
 * What the files of the nfs: driver share.
 *
 * A pool's root is a handle, found once by MOUNT and LOOKUP. All else hangs below it by names of at
 * most three parts; their handles are remembered for a while (pool_nfs_names.c).
 */
#ifndef UMBEL_POOL_NFS_H
#define UMBEL_POOL_NFS_H

#include "nodecache/pool/pool_internal.h"
#include "nodecache/pool/pool_nfs_conns.h"

/* A call's whole time, with what it is sent again for: one reply's deadline and some. */
#define NFS_CALL_MS 12000
/* A write waits so long for a server that is being restarted; then the flush fails, and the node
 * tries again later. */
#define NFS_PATIENCE_MS 60000
/* Before a call is sent once more, also to a server that says JUKEBOX. */
#define NFS_RETRY_MS 200
#define NFS_NAME     64 /* bytes of an object's name with its NUL: "packs/XX/16 digits" has 26 */

/* Bytes of one READ or WRITE. libnfs takes replies of up to 1 MiB and 4 KiB. */
#define NFS_IO_MAX (1u << 20)
#define NFS_IO_MIN 4096u
/* READs in flight for one call of the driver. */
#define NFS_READS 4

#define NFS_NAMES_SLOTS 1024 /* 256 folders, and the packs in use */
/* A handle is good for as long as its file lives; this only bounds how long a file is read on that
 * somebody has moved away. */
#define NFS_NAMES_MS 10000

struct np_name {
    char name[NFS_NAME]; /* "": free */
    int64_t since;
    struct np_fh fh;
};

/* Buffers of writers, 512 KiB each, that are kept for the next ones: what two objects keep. */
#define NFS_SPARE_MAX 64

struct chunk;
struct nfs {
    struct np_url url;
    struct np_conns conns;
    /* Of one call; what the server says anew at each look at the pool. */
    _Atomic uint32_t read_max, write_max;
    pthread_mutex_t lock; /* what follows; a leaf */
    struct np_fh root;
    struct np_name *names; /* NFS_NAMES_SLOTS */
    struct chunk *spare;   /* by next */
    unsigned spare_n;
};

/* One thing to do on a connection. It is done again from the start if the connection breaks, or if
 * a remembered handle was stale: so it must be one that may be done twice. */
typedef int (*np_op)(struct nfs *n, struct np_conn *c, void *arg);
int np_do(struct nfs *n, bool patient, np_op op, void *arg, char *detail);
/* "cannot WHAT NAME in the pool: ..." unless the line is set already (away). */
int np_fail(char *detail, int error, const char *what, const char *name);
bool np_name_ok(const char *name);

/* ---- pool_nfs_names.c */

/* The handle of an object or a folder below the root. Its folders are made if make is set. */
int np_find(struct nfs *n, struct np_conn *c, const char *name, struct np_fh *out);
/* Of the folder that the object is in; *last is the object's own name. */
int np_find_parent(struct nfs *n, struct np_conn *c, const char *name, bool make, struct np_fh *out,
                   const char **last);
/* Asks the server for every part, whatever is remembered. */
int np_find_fresh(struct nfs *n, struct np_conn *c, const char *name, struct np_file *out);
void np_names_drop(struct nfs *n, const char *name);
void np_names_clear(struct nfs *n);
void np_root(struct nfs *n, struct np_fh *out);

/* ---- pool_nfs_root.c */

/* Finds the root of the URL at the server (makes its last folder if create is set). */
int np_root_find(struct nfs *n, bool create, struct np_fh *out, char *detail);

/* ---- the table's functions: pool_nfs_write.c, pool_nfs_read.c */

int np_object_create(void *ctx, const char *name, void **object, char *detail);
int np_object_room(void *object, void **at, size_t *len, char *detail);
int np_object_append(void *object, const void *data, size_t len, char *detail);
int np_object_finish(void *object, char *detail);
void np_object_abandon(void *object);
void np_spare_free(struct nfs *n);
ssize_t np_object_read(void *ctx, const char *name, uint64_t offset, struct iovec *iov, int count,
                       char *detail);

#endif
