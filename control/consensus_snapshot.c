/*
 * Snapshots: libraft keeps a stub {count, file, digest}; the state itself is a compacted LMDB copy
 * in snapshots/.
 *
 * The copy is made in a thread while the loop serves, from the last committed turn, which may hold
 * more commands than the stub's count: that does no harm, as the state skips commands that it has
 * applied already.
 */
#include "control/consensus_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "control/wire/log.h"

#define STUB_MAGIC "UMBSNAP1"
#define COPY_CHUNK (1u << 20)
/* In state/: what was there before the state had to be rebuilt. */
#define UNTRUSTED "data.mdb.untrusted"

static int file_digest(const char *path, uint64_t digest[2])
{
    int rc = -ENOMEM, fd = -1;
    XXH3_state_t *h = XXH3_createState();
    char *buf = malloc(COPY_CHUNK);

    if (!h || !buf)
        goto out;
    XXH3_128bits_reset(h);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        rc = -errno;
        goto out;
    }
    for (;;) {
        ssize_t n = read(fd, buf, COPY_CHUNK);
        if (n < 0) {
            rc = -errno;
            goto out;
        }
        if (n == 0)
            break;
        XXH3_128bits_update(h, buf, (size_t)n);
    }
    XXH128_hash_t sum = XXH3_128bits_digest(h);
    digest[0] = sum.low64;
    digest[1] = sum.high64;
    rc = 0;
out:
    if (fd >= 0)
        close(fd);
    free(buf);
    XXH3_freeState(h);
    return rc;
}

/* --- taking --- */

int consensus_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct consensus *c = fsm->data;
    struct snapshot_stub *stub = raft_calloc(1, sizeof(*stub));

    *bufs = raft_malloc(sizeof(**bufs));
    if (!stub || !*bufs) {
        raft_free(stub);
        raft_free(*bufs);
        return RAFT_NOMEM;
    }
    memcpy(stub->magic, STUB_MAGIC, sizeof(stub->magic));
    stub->count = c->count;
    snprintf(stub->file, sizeof(stub->file), "state-%" PRIu64, c->count);
    c->log_bytes = 0;
    raft_set_snapshot_threshold(&c->raft, c->snapshot_min);
    (*bufs)[0] = (struct raft_buffer){.base = stub, .len = sizeof(*stub)};
    *n_bufs = 1;
    return 0;
}

int consensus_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    (void)fsm;
    for (unsigned i = 0; *bufs && i < *n_bufs; i++)
        raft_free((*bufs)[i].base);
    raft_free(*bufs);
    *bufs = NULL;
    *n_bufs = 0;
    return 0;
}

/* All but the newest that libraft has recorded and the one before, which it keeps, too. */
static void remove_old_snapshots(struct consensus *c, uint64_t newest, uint64_t before)
{
    char dir[CONSENSUS_PATH_MAX];
    struct dirent *e;
    uint64_t n;

    snprintf(dir, sizeof(dir), "%s/snapshots", c->dir);
    DIR *d = opendir(dir);
    if (!d)
        return;
    while ((e = readdir(d)))
        if (sscanf(e->d_name, "state-%" SCNu64, &n) == 1 && n != newest && n != before)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

static void copy_work(uv_work_t *work)
{
    struct snapshot_copy *copy = work->data;

    copy->status = state_copy(copy->c->state, copy->path, copy->detail);
    if (copy->status == 0)
        copy->status = file_digest(copy->path, copy->stub->digest);
}

static void copy_start(struct snapshot_copy *copy);

static void on_copy_retry(uv_timer_t *timer)
{
    struct consensus *c = timer->data;

    if (c->copy)
        copy_start(c->copy);
}

static void copy_retry(struct snapshot_copy *copy, const char *why)
{
    log_error("snapshot %s: %s; tried again in %d s", copy->path, why,
              CONSENSUS_COPY_RETRY_MS / 1000);
    uv_timer_start(&copy->c->copy_retry, on_copy_retry, CONSENSUS_COPY_RETRY_MS, 0);
}

/* libraft has written the stub. */
static void on_put(struct raft_io_snapshot_put *put, int status)
{
    struct raft_io_snapshot_put *outer = put->data;
    struct snapshot_copy *copy =
        (struct snapshot_copy *)((char *)put - offsetof(struct snapshot_copy, inner));
    struct consensus *c = copy->c;
    raft_io_snapshot_put_cb cb = copy->cb;

    if (status == 0) {
        remove_old_snapshots(c, copy->stub->count, c->recorded);
        c->recorded = copy->stub->count;
        log_info("snapshot at command %" PRIu64, c->recorded);
    } else if (!c->stopping) {
        log_error("the log cannot record snapshot %s: %s; the next one comes", copy->path,
                  raft_strerror(status));
    }
    c->copy = NULL;
    free(copy);
    cb(outer, status);
}

static void after_copy(uv_work_t *work, int status)
{
    struct snapshot_copy *copy = work->data;
    struct consensus *c = copy->c;

    (void)status;
    c->copy_running = false;
    if (c->stopping) {
        consensus_close_engine(c);
    } else if (copy->status < 0) {
        unlink(copy->path);
        copy_retry(copy, strerror(-copy->status));
    } else {
        copy->inner.data = copy->put;
        int rv =
            c->inner_snapshot_put(&c->io, copy->trailing, &copy->inner, copy->snapshot, on_put);
        copy->recording = rv == 0;
        if (rv != 0)
            copy_retry(copy, c->io.errmsg);
    }
}

/* The copy must not take what the log lives on. The older of the two that are kept is given up
 * before the log grows without end. */
static uint64_t copy_lacks(struct consensus *c)
{
    uint64_t bytes = state_bytes(c->state);
    uint64_t lack = consensus_space_lack(c, bytes);

    if (lack > 0 && c->recorded > 0) {
        remove_old_snapshots(c, c->recorded, c->recorded);
        lack = consensus_space_lack(c, bytes);
    }
    return lack;
}

static void copy_start(struct snapshot_copy *copy)
{
    struct consensus *c = copy->c;
    char why[96];

    c->copy_lacks = copy_lacks(c);
    if (c->copy_lacks > 0) {
        snprintf(why, sizeof(why), "%" PRIu64 " bytes more must be free on the disk under the log",
                 c->copy_lacks);
        copy_retry(copy, why);
        return;
    }
    copy->work.data = copy;
    c->copy_running = true;
    if (uv_queue_work(c->loop, &copy->work, copy_work, after_copy) != 0) {
        c->copy_running = false;
        copy_retry(copy, "no thread");
    }
}

void consensus_cancel_copy(struct consensus *c)
{
    struct snapshot_copy *copy = c->copy;

    if (!copy || copy->recording)
        return;
    uv_timer_stop(&c->copy_retry);
    c->copy = NULL;
    copy->cb(copy->put, RAFT_CANCELED);
    free(copy);
}

static int put_snapshot(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                        const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct raft *raft = io->data; /* set by raft_init */
    struct consensus *c = raft->data;
    struct snapshot_copy *copy = calloc(1, sizeof(*copy));

    if (!copy)
        return RAFT_NOMEM;
    *copy = (struct snapshot_copy){.c = c,
                                   .put = req,
                                   .snapshot = snapshot,
                                   .cb = cb,
                                   .trailing = trailing,
                                   .stub = snapshot->bufs[0].base};
    snprintf(copy->path, sizeof(copy->path), "%s/snapshots/%s", c->dir, copy->stub->file);
    c->copy = copy;
    consensus_commit_turn(c);
    copy_start(copy);
    return 0;
}

void consensus_wrap_snapshots(struct consensus *c)
{
    c->inner_snapshot_put = c->io.snapshot_put;
    c->io.snapshot_put = put_snapshot;
}

/* --- restoring --- */

static int sync_folder(const char *path)
{
    int rc = 0, fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (fsync(fd) != 0)
        rc = -errno;
    close(fd);
    return rc;
}

static int copy_file(const char *from, const char *to)
{
    int rc = 0, out = -1, in = open(from, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (in < 0 || fstat(in, &st) != 0) {
        rc = -errno;
        goto out;
    }
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0) {
        rc = -errno;
        goto out;
    }
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = sendfile(out, in, NULL, (size_t)left);
        if (n <= 0) {
            rc = n < 0 ? -errno : -EIO;
            goto out;
        }
        left -= n;
    }
    if (fsync(out) != 0)
        rc = -errno;
out:
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return rc;
}

/* Until its replacement is known to be good. The first one counts: later ones are attempts. */
static int set_aside(const char *dir)
{
    char path[CONSENSUS_PATH_MAX + 16], aside[CONSENSUS_PATH_MAX + 32];

    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    snprintf(aside, sizeof(aside), "%s/" UNTRUSTED, dir);
    if (access(aside, F_OK) == 0 || rename(path, aside) == 0 || errno == ENOENT)
        return 0;
    return -errno;
}

void consensus_forget_untrusted(struct consensus *c)
{
    char path[CONSENSUS_PATH_MAX + 32];

    snprintf(path, sizeof(path), "%s/state/" UNTRUSTED, c->dir);
    if (unlink(path) == 0)
        log_info("%s is not needed any more, and removed", path);
}

/* The mark goes last, and when the rest is gone for certain: without it the files count as a good
 * copy (state.c). */
static int remove_state_files(struct consensus *c)
{
    static const char *const names[] = {"data.mdb", "data.mdb.new", "lock.mdb", "mark"};
    char dir[CONSENSUS_PATH_MAX], path[CONSENSUS_PATH_MAX + 16];

    snprintf(dir, sizeof(dir), "%s/state", c->dir);
    int rc = set_aside(dir);
    for (size_t i = 0; rc == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        if (unlink(path) != 0 && errno != ENOENT)
            rc = -errno;
        else
            rc = sync_folder(dir);
    }
    return rc;
}

/* On a full disk the ballast makes room. */
static int open_with_room(struct consensus *c, const char *dir, char *detail)
{
    int rc;

    do {
        rc = state_open(dir, &c->state, detail);
    } while (rc == -ENOSPC && consensus_space_give(c, BALLAST_STEP));
    return rc;
}

int consensus_open_state(struct consensus *c, char *detail)
{
    char dir[CONSENSUS_PATH_MAX];

    snprintf(dir, sizeof(dir), "%s/state", c->dir);
    int rc = open_with_room(c, dir, detail);
    if (rc == -ENOTRECOVERABLE) {
        log_warning(
            "%s; the state is rebuilt from the newest snapshot and the log, and the old one "
            "is kept as " UNTRUSTED " until that has succeeded",
            detail);
        rc = remove_state_files(c);
        if (rc == 0)
            rc = open_with_room(c, dir, detail);
    }
    if (rc == 0)
        state_on_full(c->state, consensus_space_give, c);
    return rc;
}

static int check_snapshot(const char *path, const struct snapshot_stub *stub)
{
    uint64_t digest[2];
    int rc = file_digest(path, digest);

    if (rc == 0 && memcmp(digest, stub->digest, sizeof(digest)) != 0)
        rc = -EBADMSG;
    if (rc < 0)
        log_error("snapshot %s: %s; put the file back from a copy of this folder", path,
                  rc == -EBADMSG ? "its digest is wrong, it is damaged" : strerror(-rc));
    return rc;
}

/* The snapshot is known to be good, so nothing else is needed: not the older one, not what was set
 * aside.
 */
static int copy_with_room(struct consensus *c, const struct snapshot_stub *stub, const char *from,
                          const char *fresh)
{
    int rc = copy_file(from, fresh);

    if (rc != -ENOSPC)
        return rc;
    unlink(fresh);
    remove_old_snapshots(c, stub->count, stub->count);
    consensus_forget_untrusted(c);
    do {
        rc = copy_file(from, fresh);
    } while (rc == -ENOSPC && consensus_space_give(c, BALLAST_STEP));
    return rc;
}

/* The copy appears whole or not at all. */
static int install(struct consensus *c, const struct snapshot_stub *stub)
{
    char from[CONSENSUS_PATH_MAX + 80], fresh[CONSENSUS_PATH_MAX + 32], to[CONSENSUS_PATH_MAX + 32],
        detail[256] = "";

    snprintf(from, sizeof(from), "%s/snapshots/%s", c->dir, stub->file);
    snprintf(fresh, sizeof(fresh), "%s/state/data.mdb.new", c->dir);
    snprintf(to, sizeof(to), "%s/state/data.mdb", c->dir);
    int rc = check_snapshot(from, stub);
    if (rc < 0)
        return rc;
    state_close(c->state, false);
    c->state = NULL;
    rc = remove_state_files(c);
    if (rc == 0)
        rc = copy_with_room(c, stub, from, fresh);
    if (rc == 0 && rename(fresh, to) != 0)
        rc = -errno;
    if (rc == 0)
        rc = consensus_open_state(c, detail);
    if (rc < 0)
        log_error("snapshot %s: %s", from, *detail ? detail : strerror(-rc));
    else
        log_info("state restored from %s", stub->file);
    return rc;
}

int consensus_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct consensus *c = fsm->data;
    struct snapshot_stub stub;

    if (buf->len < sizeof(stub) || memcmp(buf->base, STUB_MAGIC, 8) != 0)
        return RAFT_MALFORMED;
    memcpy(&stub, buf->base, sizeof(stub));
    stub.file[sizeof(stub.file) - 1] = '\0';
    if (strchr(stub.file, '/'))
        return RAFT_MALFORMED;
    if (state_applied(c->state) < stub.count && install(c, &stub) < 0)
        return RAFT_CORRUPT;
    if (state_applied(c->state) < stub.count) {
        log_error("snapshot %s holds fewer commands than it should", stub.file);
        return RAFT_CORRUPT;
    }
    c->count = c->recorded = stub.count;
    raft_free(buf->base);
    return 0;
}
