/*
 * The centre's state: what the replicated log says, in LMDB. state_apply() is the only writer and
 * is deterministic: the same entries in the same order give the same bytes on every control
 * process. It looks at no clock, no random number and nothing outside the state and the entry.
 *
 * LMDB runs with MDB_NOSYNC | MDB_NOMETASYNC: it is intact after the process died; after the
 * machine died (state_open: boot id changed and no clean mark) the caller throws it away and
 * rebuilds it from snapshot + log.
 *
 * Turns. state_begin() opens one write transaction, any number of state_apply() follow,
 * state_commit() makes them visible and durable against the process's death. Readers (all other
 * functions) see the state inside the open write transaction when there is one, so a mutation is
 * seen by what follows it in the same turn.
 *
 * Threads: one (the loop's), except state_copy() and what is done with a state_view(), which may
 * run in one other thread each at the same time as everything else.
 *
 * Errors of apply. A command that cannot be done has a result with -errno: that is a success of
 * apply. A return < 0 from state_apply itself (LMDB's map full, I/O error, corrupt entry) must end
 * the process (invariant 7).
 */
#ifndef UMBEL_CONTROL_STATE_H
#define UMBEL_CONTROL_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "star.pb-c.h"

#define STATE_FORMAT   3u
#define STATE_ROOT_INO 1u
/* Fixed and huge: address space, not disk (the file is sparse). ThreadSanitizer leaves less of it.
 */
#if defined(__SANITIZE_THREAD__)
#define STATE_MAP_SIZE (1ull << 36)
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STATE_MAP_SIZE (1ull << 36)
#endif
#endif
#ifndef STATE_MAP_SIZE
#define STATE_MAP_SIZE (1ull << 40)
#endif
#define STATE_NAME_MAX        255u
#define STATE_SYMLINK_MAX     4095u
#define STATE_XATTR_VALUE_MAX 65536u
#define STATE_XATTR_NAME_MAX  255u
#define STATE_LINK_MAX        65000u
/* Bits of an inode number used by packs' record numbers: record id = pack << 20 | number. */
#define STATE_RECORD_BITS 20

struct state;

/* Creates or opens dir/data.mdb, with dir/mark and dir/lock.mdb beside it. A data.mdb without a
 * mark is a copy that was put there: put it whole (rename it into place when it is synced). detail
 * (256 bytes) gets one line on errors. -EBUSY: another process has it open. -ENOTRECOVERABLE: the
 * machine went down since (or the copy is not intact): the caller removes the files and restores a
 * snapshot. -EPROTONOSUPPORT: written by a newer format. */
int state_open(const char *dir, struct state **out, char *detail);
/* clean: leave the mark that makes the files trusted after a reboot (syncs them first). */
void state_close(struct state *s, bool clean);
/* Called when the disk has no room for the state's file: gives some of `bytes` back to the disk
 * from a reserve; false: there is none. */
typedef bool (*state_room_fn)(void *arg, uint64_t bytes);
void state_on_full(struct state *s, state_room_fn fn, void *arg);
/* The turn has used most of the space that was taken ahead of it: commit before the next command.
 */
bool state_turn_full(const struct state *s);
/* Bytes of the file in use: what a copy takes at most. */
uint64_t state_bytes(struct state *s);
/* A compacted copy of the last committed turn to path (synced). Any thread. */
int state_copy(struct state *s, const char *path, char *detail);

int state_begin(struct state *s);
int state_commit(struct state *s);
bool state_in_turn(const struct state *s);

/* Applies one packed LogEntry as command number `count` (1, 2, ...). If count <= state_applied()
 * nothing happens and *result is empty (a replay after restart). *result: the packed star Result
 * (status and the reply's body, e.g. EntryReply with attr filled but no leases, tickets), owned by
 * the state, valid until the next state_apply. */
struct state_result {
    int status;          /* 0 or -errno */
    const uint8_t *body; /* packed reply message */
    size_t body_len;
    bool replayed; /* (session, seq) was known: this is its first result again */
};
int state_apply(struct state *s, uint64_t count, const void *entry, size_t len,
                struct state_result *result);
uint64_t state_applied(const struct state *s);

/* The newest inode number and pack id in use: the leader allocates above. */
uint64_t state_last_ino(struct state *s);
uint64_t state_last_pack(struct state *s);
/* Newest stamp applied: the leader never stamps earlier. */
uint64_t state_last_time_ns(struct state *s);

/* An inode as stored. */
struct inode {
    uint64_t ino;
    uint32_t mode, nlink, uid, gid;
    uint64_t rdev;
    uint64_t size;
    struct {
        int64_t sec;
        uint32_t nsec;
    } atime, mtime, ctime;
    uint64_t version; /* data version (home's) */
    uint64_t change;
    uint64_t parent;     /* directories: their parent; files: one that is known to, or 0 */
    uint32_t home;       /* node number, 0: none */
    uint64_t home_epoch; /* of the newest home; stays when home becomes 0 */
    uint64_t cut;        /* last confirmed cut number of home_epoch */
    uint64_t map_version;
    uint64_t mapped;                /* bytes of content that lie in the pool */
    uint64_t cut_version, cut_size; /* what the pool has: left if the home loses the rest */
    uint64_t entries;               /* directories: number of entries */
    bool has_acl;                   /* posix ACL xattr present */
    bool orphan;                    /* nlink 0, kept while open */
};
/* -ESTALE: no such inode. */
int state_inode(struct state *s, uint64_t ino, struct inode *out);
/* Fills attr; its times point into times. */
/* st_blocks of a file that holds about so many bytes. */
uint64_t state_blocks(uint64_t size, uint64_t bytes);
void state_attr(const struct inode *i, Star__Attr *attr, Star__Time times[3]);

/* "." and ".." are answered, too. -ENOENT -ENOTDIR -ENAMETOOLONG -ESTALE */
int state_lookup(struct state *s, uint64_t parent, const void *name, size_t len, struct inode *out);

/* Entries after cookie in a stable order ("." and ".." included, first; cookies only grow, and none
 * is given twice in a directory). fn returns false to stop (that entry is not consumed). */
typedef bool (*state_entry_fn)(void *arg, const char *name, size_t len, uint64_t ino, uint32_t type,
                               uint64_t cookie);
int state_readdir(struct state *s, uint64_t dir, uint64_t cookie, state_entry_fn fn, void *arg,
                  bool *eof);

/* -EINVAL: no symlink. -ERANGE */
int state_readlink(struct state *s, uint64_t ino, char *buf, size_t size, size_t *len);
/* value may be NULL to ask the length. -ENODATA -ERANGE */
int state_getxattr(struct state *s, uint64_t ino, const char *name, void *value, size_t size,
                   size_t *len);
/* NUL-terminated names one after the other. */
int state_listxattr(struct state *s, uint64_t ino, char *buf, size_t size, size_t *len);

/* Extents that meet [offset, offset + length), whole and in order, with record locations. */
typedef bool (*state_extent_fn)(void *arg, const Star__Extent *extent);
int state_map(struct state *s, uint64_t ino, uint64_t offset, uint64_t length, state_extent_fn fn,
              void *arg);

/* Extents of all files, in the order of inode and offset, from (ino, offset) on. */
struct state_part {
    uint64_t ino, offset, length, record;
    uint32_t record_offset;
};
typedef bool (*state_part_fn)(void *arg, const struct state_part *part);
int state_parts(struct state *s, uint64_t ino, uint64_t offset, state_part_fn fn, void *arg);

struct state_session {
    uint64_t id;
    char name[64];
    char machine[40];
};
typedef bool (*state_session_fn)(void *arg, const struct state_session *session);
int state_sessions(struct state *s, state_session_fn fn, void *arg);
int state_session(struct state *s, uint64_t id, struct state_session *out);
/* The kept result of (session, seq), if there is one: 1, else 0. Lets the leader answer a resent
 * request without the log. *out is valid until the next state_dedupe or state_apply. */
int state_dedupe(struct state *s, uint64_t session, uint64_t seq, struct state_result *out);

struct state_node {
    uint32_t id;
    char name[64];
    char address[256];
    char machine[40];
    char store[40];
    uint64_t capacity;
    char state[16];
    char origin[16]; /* the driver of hv that it was started by, on demand; "" */
    uint32_t starts; /* so often its start was begun, if so */
};
/* Names of nodes that were started on demand: this and the node's number. Nobody else has such. */
#define STATE_DEMAND_PREFIX "node-d"
/* Of those that are gone, so many are remembered: the newest. */
#define STATE_DEMAND_GONE 16
/* Most that the setting nodes_max may say. */
#define STATE_NODES_MAX 256
typedef bool (*state_node_fn)(void *arg, const struct state_node *node);
int state_nodes(struct state *s, state_node_fn fn, void *arg);

/* Cache table. DROP_COPIES takes the cached lines of a node; staged ones stay (their data waits for
 * the node) until the node is "gone". By inode, or (ino 0) all, from (after_ino, after_node)
 * exclusive. */
struct state_copy_line {
    uint64_t ino;
    uint32_t node;
    uint64_t version, cached, staged;
};
typedef bool (*state_copy_fn)(void *arg, const struct state_copy_line *line);
int state_copies(struct state *s, uint64_t ino, uint64_t after_ino, uint32_t after_node,
                 state_copy_fn fn, void *arg);

/* The default when it was never set. -ENOENT: no such setting. */
int state_setting(struct state *s, const char *name, char *value, size_t size);
typedef bool (*state_setting_fn)(void *arg, const char *name, const char *value, const char *help);
int state_settings(struct state *s, state_setting_fn fn, void *arg);

/* Whether certificates of "ROLE/NAME" are refused: 1, 0, or -errno. */
int state_revoked(struct state *s, const char *identity);

/* META: holds a part of a copy of the state, no records. */
enum pack_state { PACK_ALLOCATED = 1, PACK_LIVE, PACK_CONDEMNED, PACK_META };
struct state_pack {
    uint64_t id;
    enum pack_state state;
    uint64_t size, live_bytes, live_records;
    uint32_t writer;
    int64_t born;        /* seconds; when it became live */
    uint64_t meta;       /* PACK_META: which copy: the stamp of its last command, ns */
    uint32_t generation; /* of the cloud key under which it is sealed; 0: unsealed */
};
typedef bool (*state_pack_fn)(void *arg, const struct state_pack *pack);
int state_packs(struct state *s, uint64_t after, state_pack_fn fn, void *arg);
/* -ENOENT: no such pack. */
int state_pack_generation(struct state *s, uint64_t pack, uint32_t *generation);

/* A record, and where it lies. Its id does not change when gc moves it. */
struct state_record {
    uint64_t id, pack, pack_offset;
    uint32_t number, length;
};
/* The records that lie in the pack, by their numbers in it, from that number on. */
typedef bool (*state_record_fn)(void *arg, const struct state_record *record);
int state_pack_records(struct state *s, uint64_t pack, uint32_t from, state_record_fn fn,
                       void *arg);

/* Orphans, for reaping when nobody has them open. */
typedef bool (*state_ino_fn)(void *arg, uint64_t ino);
int state_orphans(struct state *s, uint64_t after, state_ino_fn fn, void *arg);

/* bytes: sum of the sizes of regular files. */
struct state_totals {
    uint64_t inodes, orphans, bytes, packs, records, mapped;
};
int state_totals(struct state *s, struct state_totals *out);

/* Jobs, as the leader has said last. -ENOENT: no such job. *out: star__job__free_unpacked(). */
int state_job(struct state *s, uint64_t id, Star__Job **out);
/* Those beyond `after`, in order; job is only there during the call. */
typedef bool (*state_job_fn)(void *arg, const Star__Job *job);
int state_jobs(struct state *s, uint64_t after, state_job_fn fn, void *arg);
/* Jobs of the batch that have numbers, and no rows yet: from *next on. -ENOENT: there are none. */
int state_job_rest(struct state *s, uint64_t batch, uint64_t *next, uint64_t *last);
/* Every batch that has such. */
typedef bool (*state_batch_fn)(void *arg, uint64_t batch);
int state_job_rests(struct state *s, state_batch_fn fn, void *arg);
uint64_t state_last_job(struct state *s); /* the highest number given; 0: none */
/* The text of the batch's spec, to be freed, with a NUL behind it. -ENOENT -ENOMEM */
int state_job_spec(struct state *s, uint64_t batch, char **text, size_t *len);
/* A job's own file: the inode, which has no other name of its own. -ENOENT: it was not wanted yet.
 */
#define STATE_JOB_STDOUT(copy) ((copy)*2u)
#define STATE_JOB_STDERR(copy) ((copy)*2u + 1)
int state_job_file(struct state *s, uint64_t job, uint32_t file, uint64_t *ino);

/* All inodes beyond `after`, in order of their numbers; fn returns false to stop. */
typedef bool (*state_inode_fn)(void *arg, const struct inode *i);
int state_inodes(struct state *s, uint64_t after, state_inode_fn fn, void *arg);

/* After `umbel rebuild` has applied what it knows: the state begins a new log. In a turn. */
void state_begin_log(struct state *s);

/* A path for people: "/a/b" of some link of a directory or file (files: by a recorded parent),
 * "(inode 42)" if none is known. */
int state_path(struct state *s, uint64_t ino, char *buf, size_t size);

/* Checks everything against everything: link counts, parents, entry counts, map extents -> records
 * -> packs, references, live bytes, copies -> nodes, orphans, totals. report is called per problem.
 * Returns the number of problems. */
typedef void (*state_report_fn)(void *arg, const char *line);
int64_t state_check(struct state *s, state_report_fn fn, void *arg);

/* The last committed turn, for state_check in another thread while the state goes on. It keeps what
 * it sees from being reused: free it soon. *cancel, if it is not NULL, ends a check early. */
int state_view(struct state *s, const atomic_bool *cancel, struct state **view);
void state_view_free(struct state *view);

#endif
