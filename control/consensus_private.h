/* Shared by consensus.c and consensus_snapshot.c. */
#ifndef UMBEL_CONTROL_CONSENSUS_PRIVATE_H
#define UMBEL_CONTROL_CONSENSUS_PRIVATE_H

#include <raft.h>
#include <raft/uv.h>

#include "control/ballast.h"
#include "control/consensus.h"

#define CONSENSUS_PATH_MAX 4096
/* One append to the log: at most so many entries and about so many bytes (a segment of libraft has
 * 8 MiB). */
#define CONSENSUS_BATCH_MAX   1024
#define CONSENSUS_BATCH_BYTES (4u << 20)

/* One raft entry holds what was submitted in one turn of the loop: this prefix, then n times an
 * 8-byte length and a packed LogEntry padded to whole multiples of 8 (libraft wants them). instance
 * and serial say which start of which process submitted it, so that an applied entry finds its
 * waiter and a replayed one finds none. */
struct batch_prefix {
    uint64_t instance;
    uint64_t serial; /* of the first */
    uint64_t n;
};

struct pending {
    struct pending *next;
    consensus_fn fn;
    void *arg;
    uint64_t serial;
};

/* What libraft keeps as its snapshot. The digest is XXH3-128 of the file. */
struct snapshot_stub {
    char magic[8]; /* "UMBSNAP1" */
    uint64_t count;
    uint64_t digest[2];
    char file[64]; /* in snapshots/ */
};

/* A snapshot being copied; one at a time. */
struct snapshot_copy {
    uv_work_t work;
    struct consensus *c;
    struct raft_io_snapshot_put *put; /* libraft's core to libraft's files: we stand between */
    struct raft_io_snapshot_put inner;
    bool recording; /* the files have inner */
    const struct raft_snapshot *snapshot;
    raft_io_snapshot_put_cb cb;
    unsigned trailing;
    struct snapshot_stub *stub;
    char path[CONSENSUS_PATH_MAX];
    int status;
    char detail[256];
};

struct consensus {
    uv_loop_t *loop;
    char *dir;
    struct consensus_ops ops;
    void *ctx;
    struct state *state;
    uint64_t instance, serial;
    uint64_t count; /* commands that the log has handed to apply, from the first one on */
    uint64_t last_ino, last_ns;
    uint64_t reserve, free_bytes;
    struct ballast ballast;
    uint64_t copy_lacks; /* bytes for which the snapshot waits; 0: it does not */
    int64_t space_ms, watched_ms;
    uint64_t watched_serial; /* the oldest pending entry at the last look, and since when it is */
    int64_t append_ms;
    uint64_t log_bytes; /* of entries since the newest snapshot */
    unsigned snapshot_min;
    bool snapshot_often; /* exactly so many entries, for tests */
    unsigned turn_entries;
    bool leading, barrier_out, stopping;

    struct pending *pending_head, *pending_tail;
    unsigned pending_count;
    uint8_t *batch; /* prefix and entries of this turn */
    size_t batch_len, batch_size;
    unsigned batch_n;
    bool batch_now; /* somebody waits for an entry of it */

    struct raft raft;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft_uv_transport transport;
    struct raft_barrier barrier;
    int (*inner_snapshot_put)(struct raft_io *io, unsigned trailing,
                              struct raft_io_snapshot_put *req,
                              const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb);
    struct snapshot_copy *copy;
    bool copy_running;
    uint64_t recorded; /* count of the newest snapshot that libraft has on disk; 0: none */

    uv_prepare_t prepare;
    uv_timer_t turn_timer, watch, copy_retry, soon;
    int open_handles;
    void (*done)(void *arg);
    void *done_arg;
};

/* consensus_space.c */
int consensus_space_start(struct consensus *c, char *detail);
void consensus_space_watch(struct consensus *c);
/* How many bytes of `bytes` are not free beyond what is kept; 0: there is room. */
uint64_t consensus_space_lack(struct consensus *c, uint64_t bytes);
/* For state_on_full. */
bool consensus_space_give(void *arg, uint64_t bytes);

int consensus_open_state(struct consensus *c, char *detail);
/* The state holds all that the log does: what was set aside before it was rebuilt may go. */
void consensus_forget_untrusted(struct consensus *c);
void consensus_wrap_snapshots(struct consensus *c);
int consensus_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs);
int consensus_snapshot_finalize(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs);
int consensus_restore(struct raft_fsm *fsm, struct raft_buffer *buf);
/* A copy that waits for its retry is given up. */
void consensus_cancel_copy(struct consensus *c);
/* The second half of consensus_stop, when no copy is being made. */
void consensus_close_engine(struct consensus *c);

#endif
