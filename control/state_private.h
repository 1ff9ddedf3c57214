/*
 * Private to state*.c: rows as they stand in LMDB, and how the files call each other.
 *
 * Errors. st_get, st_put, st_del and cursors return 0, -ENOENT, or what LMDB's own error means; the
 * latter also sets state.broken, and from then on state_apply and state_commit fail. So a command
 * may return any -errno: if the state is not broken, that is its result. A command checks
 * everything before it changes the first row.
 *
 * Rows are fixed structures in the machine's (little-endian) order without holes; keys are
 * big-endian, so LMDB's order of bytes is the order of numbers. A row begins with its format where
 * it may have to grow.
 */
#ifndef UMBEL_CONTROL_STATE_PRIVATE_H
#define UMBEL_CONTROL_STATE_PRIVATE_H

#include <endian.h>
#include <lmdb.h>
#include <string.h>

#include "control/state.h"

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "rows are stored in the machine's order");

enum db {
    DB_META,
    DB_INODES,    /* ino -> inode_row */
    DB_ENTRIES,   /* directory, cookie -> entry_row, name: the order of readdir */
    DB_NAMES,     /* directory, name -> name_row */
    DB_XATTRS,    /* ino, name -> value */
    DB_TARGETS,   /* ino -> symlink's target */
    DB_EXTENTS,   /* ino, offset -> extent_row */
    DB_RECORDS,   /* record -> record_row */
    DB_PACKS,     /* pack -> pack_row */
    DB_COPIES,    /* ino, node -> copy_row */
    DB_HELD,      /* node, ino: index of DB_COPIES */
    DB_NODES,     /* node -> node_row */
    DB_SESSIONS,  /* session -> session_row */
    DB_RESULTS,   /* session, seq -> status, packed body */
    DB_SETTINGS,  /* name -> text */
    DB_ORPHANS,   /* ino */
    DB_MOVED,     /* pack, number -> record: of records that lie in another pack than their first */
    DB_TOKENS,    /* hash -> token_row */
    DB_REVOKED,   /* "ROLE/NAME" -> when: int64_t */
    DB_JOBS,      /* job -> packed Job: the leader says whole rows */
    DB_JOB_SPECS, /* batch -> text; batch, 0 -> jobs that have it: uint32_t; batch, 1 -> JobRest */
    DB_JOB_FILES, /* job, file -> ino: that is the file's name */
    DB_DEMAND,    /* node -> demand_row: those that were started on demand */
    DB_COUNT
};

struct meta_row {
    uint32_t format;
    uint32_t last_node;
    uint64_t applied, last_ino, last_pack;
    int64_t sec;
    uint32_t nsec, zero;
    struct state_totals totals;
};

#define INODE_ROW_FORMAT 1
enum { INODE_ACCESS_ACL = 1, INODE_DEFAULT_ACL = 2 };

struct inode_row {
    uint8_t format, flags;
    uint16_t zero;
    uint32_t mode, nlink, uid, gid, home;
    uint64_t rdev, size;
    int64_t atime, mtime, ctime;
    uint32_t atime_ns, mtime_ns, ctime_ns;
    uint32_t xattr_names; /* bytes of the list of names */
    uint64_t xattr_bytes; /* names and values */
    uint64_t version, change;
    uint64_t parent, cookie; /* the entry that is known to lead here; parent 0: none is.
                                Directories: always, the root excepted (its own parent, cookie 0) */
    union {
        struct {
            uint64_t home_epoch, cut, map_version, mapped;
            /* What the pool holds: what is left if the home is given up. */
            uint64_t cut_version, cut_size;
            int64_t cut_mtime;
            uint32_t cut_mtime_ns;
            /* The newest truncation since that cut: a cut of before it must not bring back what is
             * beyond. If there was a shorter one before, at version trunc_version - trunc_older,
             * cuts of before that one are refused: one size does not say what they may keep. 0:
             * none. */
            uint32_t trunc_older;
            uint64_t trunc_version, trunc_size;
        } file;
        struct {
            uint64_t entries, next_cookie;
        } dir;
    };
};
_Static_assert(sizeof(struct inode_row) == 200, "the row has no holes");

/* An inode on its way through a command. */
struct stored {
    uint64_t ino;
    struct inode_row r;
};

struct entry_row {
    uint64_t ino;
    uint32_t type, zero;
};
struct name_row {
    uint64_t cookie, ino;
    uint32_t type, zero;
};
struct extent_row {
    uint64_t length, record;
    uint32_t record_offset, zero;
};
struct record_row {
    uint64_t pack, pack_offset; /* where it lies now; the id names the pack that it came in */
    uint32_t length, refs;      /* refs: extents that point here; at 0 the row goes */
    uint32_t number, zero;      /* in that pack */
};
struct pack_row {
    uint32_t state, writer; /* writer: node; 0: the mount of that session */
    uint64_t size, live_bytes, live_records;
    int64_t born;  /* when it became live: gc leaves young ones alone */
    uint64_t meta; /* PACK_META: which copy of the state: the stamp of its last command, ns */
    uint64_t session;
    uint32_t generation, zero; /* of the cloud key; 0: unsealed */
};
struct copy_row {
    uint64_t version, cached, staged;
};
struct node_row {
    uint64_t capacity;
    uint64_t alloc_seq, alloc_first, alloc_count; /* its last ALLOC_PACKS, which it may ask again */
    char name[64], address[256], machine[40], store[40], state[16];
};
struct demand_row {
    char origin[16];
    uint32_t starts, zero;
};
struct session_row {
    uint64_t acked; /* results below are erased and never executed again */
    uint32_t results;
    uint32_t has_packs; /* it was given some */
    char name[64], machine[40];
};

/* Without syncing: the raft log is the write-ahead log. */
#define STATE_LMDB_FLAGS (MDB_NOSYNC | MDB_NOMETASYNC | MDB_NOTLS | MDB_NORDAHEAD)

/* First cookie of an entry; "." and ".." are before. */
#define COOKIE_DOT    1u
#define COOKIE_DOTDOT 2u
#define COOKIE_FIRST  3u

/* Results that one session may leave unacknowledged: twice what a client keeps in flight. */
#define RESULTS_MAX 131072u
/* Linux gives at most so many bytes of names (XATTR_LIST_MAX); values of one inode together. */
#define XATTR_NAMES_MAX 65536u
#define XATTR_BYTES_MAX (1u << 20)
/* Versions of data that was lost with its home are never given out again: a jump that no home makes
 * by itself. */
#define VERSION_LOST_STEP (1ull << 32)
/* In one ALLOC_PACKS: 64 GiB of data. */
#define ALLOC_PACKS_MAX 1024u

/* Memory of one command: protobuf bodies, lists. All of it goes at the next command. */
struct arena {
    struct arena_chunk *chunk;
    size_t total;
};

struct buffer {
    uint8_t *data;
    size_t len, size;
};

struct state {
    MDB_env *env;
    MDB_dbi dbi[DB_COUNT];
    MDB_txn *write;            /* the open turn */
    MDB_txn *read;             /* reused outside of turns */
    bool reading;              /* read is at the last committed turn */
    int broken;                /* -errno: LMDB failed */
    int mark;                  /* descriptor of the mark file, locked */
    uint64_t page;             /* bytes of one of LMDB's pages */
    uint64_t allocated;        /* of the file; UINT64_MAX: not of interest */
    uint64_t used;             /* of it, when the turn began */
    uint64_t dirty;            /* bytes that the turn may have added since: an upper bound */
    uintptr_t leaf[DB_COUNT];  /* where each database was changed last: counted already */
    const atomic_bool *cancel; /* of a view */
    state_room_fn room;
    void *room_arg;
    struct meta_row meta;
    struct arena arena;
    struct buffer reply, kept;
    /* The pack row in hand: commands that touch many records of a pack write it once. */
    uint64_t pack;
    struct pack_row pack_row;
    bool pack_dirty;
};

/* One command being applied. */
struct apply {
    struct state *s;
    const Star__LogEntry *e;
    uint64_t count;
    int64_t sec; /* its time */
    uint32_t nsec;
};

/* --- state_db.c --- */
struct key {
    size_t len;
    uint8_t bytes[8 + STATE_NAME_MAX + 1];
};
struct key st_key1(uint64_t a);
struct key st_key2(uint64_t a, uint64_t b);
struct key st_key_name(uint64_t a, const void *name, size_t len); /* len <= 255 */
struct key st_key_copy(uint64_t ino, uint32_t node);
uint64_t st_key_u64(const MDB_val *key, size_t at);

/* The turn goes beyond what was allocated ahead: more, or -ENOSPC (and broken). */
int st_space_more(struct state *s);
MDB_txn *st_txn(struct state *s); /* the turn, or the reader; NULL: broken */
int st_fail(struct state *s, int lmdb_rc);
/* *val points into the map: valid until the next change. */
int st_get(struct state *s, enum db db, const struct key *k, MDB_val *val);
/* A row of exactly that size; another size is a broken state. */
int st_get_row(struct state *s, enum db db, const struct key *k, void *row, size_t size);
int st_put(struct state *s, enum db db, const struct key *k, const void *val, size_t len);
/* The key is beyond all others. */
int st_append(struct state *s, enum db db, const struct key *k, const void *val, size_t len);
/* Room for len bytes in place. */
int st_reserve(struct state *s, enum db db, const struct key *k, size_t len, void **val);
int st_del(struct state *s, enum db db, const struct key *k);
int st_cursor(struct state *s, enum db db, MDB_cursor **out);
/* First row at or beyond k / next row / last row; -ENOENT at the end. */
int st_seek(struct state *s, MDB_cursor *cur, const struct key *k, MDB_val *key, MDB_val *val);
int st_next(struct state *s, MDB_cursor *cur, MDB_val *key, MDB_val *val);
int st_prev(struct state *s, MDB_cursor *cur, MDB_val *key, MDB_val *val);
int st_last(struct state *s, MDB_cursor *cur, MDB_val *key, MDB_val *val);
/* The row that it stands on, whose value val is. */
int st_cursor_del(struct state *s, enum db db, MDB_cursor *cur, const MDB_val *val);
bool st_under(const MDB_val *key, uint64_t prefix); /* key begins with that number */
int st_row(struct state *s, const MDB_val *val, void *row, size_t size);

void *st_alloc(struct state *s, size_t size); /* of the arena; NULL: broken, or too much */
void st_arena_reset(struct state *s);
void st_arena_free(struct state *s);
int st_buffer_room(struct state *s, struct buffer *b, size_t len);

/* --- state_apply.c --- */
/* The reply's body. */
int st_reply(struct apply *a, const ProtobufCMessage *body);
/* status, with an ErrorReply. */
int st_refuse(struct apply *a, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- commands: body is of the type that the table in state_apply.c names --- */
int st_cmd_setattr(struct apply *a, const ProtobufCMessage *body);
int st_cmd_home_attrs(struct apply *a, const ProtobufCMessage *body);
int st_cmd_sync_attrs(struct apply *a, const ProtobufCMessage *body);
int st_cmd_release(struct apply *a, const ProtobufCMessage *body);
int st_cmd_take_home(struct apply *a, const ProtobufCMessage *body);
int st_cmd_reap(struct apply *a, const ProtobufCMessage *body);
int st_cmd_make(struct apply *a, const ProtobufCMessage *body);
int st_cmd_link(struct apply *a, const ProtobufCMessage *body);
int st_cmd_unlink(struct apply *a, const ProtobufCMessage *body);
int st_cmd_rmdir(struct apply *a, const ProtobufCMessage *body);
int st_cmd_rename(struct apply *a, const ProtobufCMessage *body);
int st_cmd_setxattr(struct apply *a, const ProtobufCMessage *body);
int st_cmd_removexattr(struct apply *a, const ProtobufCMessage *body);
int st_cmd_alloc_packs(struct apply *a, const ProtobufCMessage *body);
int st_cmd_confirm(struct apply *a, const ProtobufCMessage *body);
int st_cmd_moved(struct apply *a, const ProtobufCMessage *body);
int st_cmd_straight_packs(struct apply *a, const ProtobufCMessage *body);
int st_cmd_straight_confirm(struct apply *a, const ProtobufCMessage *body);
int st_cmd_meta_stored(struct apply *a, const ProtobufCMessage *body);
int st_cmd_rebuild(struct apply *a, const ProtobufCMessage *body);
int st_cmd_discard_pack(struct apply *a, const ProtobufCMessage *body);
int st_cmd_condemn(struct apply *a, const ProtobufCMessage *body);
int st_cmd_deleted_packs(struct apply *a, const ProtobufCMessage *body);
int st_cmd_copies(struct apply *a, const ProtobufCMessage *body);
int st_cmd_drop_copies(struct apply *a, const ProtobufCMessage *body);
int st_cmd_node(struct apply *a, const ProtobufCMessage *body);
int st_cmd_setting(struct apply *a, const ProtobufCMessage *body);
int st_cmd_token(struct apply *a, const ProtobufCMessage *body);
int st_cmd_join(struct apply *a, const ProtobufCMessage *body);
int st_cmd_revoke(struct apply *a, const ProtobufCMessage *body);
int st_cmd_job_submit(struct apply *a, const ProtobufCMessage *body);
int st_cmd_job_more(struct apply *a, const ProtobufCMessage *body);
int st_cmd_job_change(struct apply *a, const ProtobufCMessage *body);
int st_cmd_job_file(struct apply *a, const ProtobufCMessage *body);
int st_cmd_session_open(struct apply *a, const ProtobufCMessage *body);
int st_cmd_session_end(struct apply *a, const ProtobufCMessage *body);

/* --- state_inode.c --- */
int st_inode_load(struct state *s, uint64_t ino, struct stored *i); /* -ESTALE */
int st_inode_store(struct state *s, const struct stored *i);
int st_inode_new(struct state *s, const struct stored *i); /* counts it */
int st_root_make(struct state *s);
void st_inode_public(const struct stored *i, struct inode *out);
void st_attr(const struct stored *i, Star__Attr *attr, Star__Time times[3]);
void st_ctime_now(const struct apply *a, struct stored *i); /* and change + 1 */
void st_mtime_now(const struct apply *a, struct stored *i); /* and ctime, change */
bool st_home_ok(const Star__HomeAttrs *h);                  /* it makes sense by itself */
/* What a home says, if it is this inode's home and news. The caller stores i. */
int st_home_says(struct apply *a, struct stored *i, const Star__HomeAttrs *h, bool *news);
/* The same from a mount that writes straight to the pool: the file has no home. */
int st_straight_says(struct apply *a, struct stored *i, const Star__HomeAttrs *h, bool *news);
int st_inode_lost_home(struct apply *a, struct stored *i); /* its node was given up */
int st_orphan_add(struct state *s, struct stored *i);
int st_attr_reply(struct apply *a, const struct stored *i);

/* --- state_entry.c --- */
int st_name_check(const ProtobufCBinaryData *name); /* -EINVAL -ENAMETOOLONG; "." and ".." pass */
bool st_is_dots(const ProtobufCBinaryData *name);
int st_dir_load(struct state *s, uint64_t ino,
                struct stored *dir); /* to change it: -ESTALE -ENOTDIR, -ENOENT if removed */
int st_entry_find(struct state *s, uint64_t dir, const void *name, size_t len, struct name_row *e);
/* The directory's row is changed in memory only; the caller stores it. */
int st_entry_add(struct state *s, struct stored *dir, const ProtobufCBinaryData *name, uint64_t ino,
                 uint32_t type, uint64_t *cookie);
int st_entry_remove(struct state *s, struct stored *dir, const ProtobufCBinaryData *name,
                    uint64_t cookie);
int st_entry_retarget(struct state *s, const struct stored *dir, const ProtobufCBinaryData *name,
                      uint64_t cookie, uint64_t ino, uint32_t type);
/* One link less, by the entry (dir, cookie); an orphan at 0. Stores i. */
int st_link_lost(struct apply *a, struct stored *i, uint64_t dir, uint64_t cookie);

/* --- state_xattr.c --- */
#define XATTR_ACCESS_ACL  "system.posix_acl_access"
#define XATTR_DEFAULT_ACL "system.posix_acl_default"
int st_xattr_get(struct state *s, uint64_t ino, const char *name, MDB_val *val); /* -ENODATA */
/* i's row is changed in memory only. */
int st_xattr_put(struct state *s, struct stored *i, const void *name, size_t name_len,
                 const void *val, size_t len);
int st_xattr_del(struct state *s, struct stored *i, const void *name,
                 size_t name_len); /* -ENODATA */
int st_xattrs_free(struct state *s, struct stored *i);

/* --- state_acl.c: the binary form of POSIX ACLs, without I/O --- */
#define ACL_ENTRIES_MAX ((STATE_XATTR_VALUE_MAX - 4) / 8)
int st_acl_check(const void *acl, size_t len); /* -EINVAL -EOPNOTSUPP */
/* Mode bits that say the same as the (checked) ACL as far as they can; 1: they say all, 0: they do
 * not. */
int st_acl_to_mode(const void *acl, size_t len, uint32_t *mode);
/* chmod: writes the mode's bits into the (checked) ACL. */
void st_acl_chmod(void *acl, size_t len, uint32_t mode);
/* A new inode in a directory with this default ACL: masks acl and *mode by each other; 1: *mode
 * says all. */
int st_acl_create(void *acl, size_t len, uint32_t *mode);

/* --- state_map.c --- */
/* Takes [from, to) out of the file's map. i's row is changed in memory only. */
int st_map_cut(struct state *s, struct stored *i, uint64_t from, uint64_t to);
/* The first `use` bytes of a new record are the file's content at offset. */
int st_map_insert(struct state *s, struct stored *i, uint64_t offset, uint64_t use, uint64_t record,
                  const struct record_row *row);
int st_record_load(struct state *s, uint64_t record, struct record_row *r); /* -ENOENT */
/* *r becomes the record's row; it lay at `from` before. Packs' counts are the caller's. */
int st_record_place(struct state *s, uint64_t record, const struct record_row *from,
                    const struct record_row *r);

/* --- state_confirm.c: what CONFIRM and MOVED share --- */
#define PACKS_MAX       8192u /* of one entry; what fits into a frame's body brings fewer */
#define RECORD_NUMBERS  (1ull << STATE_RECORD_BITS)
#define PACK_NUMBER_MAX (1ull << (64 - STATE_RECORD_BITS))
/* Sorts; -EINVAL if a number is there twice. */
int st_all_different(uint64_t *list, size_t n);
/* The pack of that id, or NULL. Records come in the order of their packs, so the search begins at
 * *last, the last one found. */
const Star__ConfirmPack *st_pack_named(Star__ConfirmPack *const *packs, size_t n, uint64_t pack,
                                       size_t *last);
/* 0: these packs of the node (node 0: of the session) may be confirmed (*fresh), or were before.
 * -ESTALE: some were given up. */
int st_packs_check(struct state *s, uint32_t node, uint64_t session,
                   Star__ConfirmPack *const *packs, size_t n, bool *fresh);

/* --- state_pack.c --- */
int st_pack_load(struct state *s, uint64_t pack); /* to state.pack_row; -ENOENT */
int st_pack_flush(struct state *s);
int st_pack_live(struct state *s, uint64_t pack, int64_t bytes, int64_t records);
/* What it never confirmed is garbage: a node, or (node 0) a session. */
int st_packs_of_gone(struct state *s, uint32_t node, uint64_t session);

/* --- state_node.c --- */
int st_node_load(struct state *s, uint32_t node, struct node_row *r); /* -ENOENT */
int st_node_store(struct state *s, uint32_t node, const struct node_row *r);
bool st_node_speaks(struct state *s, uint32_t node); /* known and not given up */

/* --- state_copies.c --- */
int st_copies_of_inode(struct state *s, uint64_t ino); /* frees them */
int st_copies_of_node(struct state *s, uint32_t node, bool staged_too);

/* --- state_session.c --- */
/* 0: execute it, and keep the result if *keep; 1: *result is the kept one; -ESTALE -EBUSY: not to
 * be executed. */
int st_session_admit(struct apply *a, struct state_result *result, bool *keep);
int st_session_has_packs(struct state *s, uint64_t session); /* from now on */
int st_session_keep(struct apply *a, int status, const struct buffer *body);

/* --- state_settings.c --- */
bool st_setting_known(const char *name, size_t len);

#endif
