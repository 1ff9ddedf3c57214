/*
 * A request of the kernel on its way: who asked, and where to go on when an answer comes.
 */
#ifndef UMBEL_FS_KREQ_H
#define UMBEL_FS_KREQ_H

#include "control/wire/control_ino.h"
#include "fs/worker.h"

struct kreq;
typedef void (*kreq_fn)(struct kreq *q, const struct message *reply);

struct kreq {
    struct worker *w;
    atomic_uint refs;
    fuse_req_t req; /* NULL: nobody in the kernel waits, or it was answered */
    kreq_fn then;   /* what the next answer goes to */
    uint64_t seq;   /* a mutation's number, until it is answered */
    uint64_t ino;   /* the file, or the directory of a name */
    uint64_t other; /* second inode */
    uint64_t fh, other_fh;
    uint64_t offset, other_offset, length;
    uint32_t flags, mode;
    struct fuse_ctx ctx;
    uint32_t *groups; /* of the caller, once they were asked for (squash); owned */
    size_t groups_n;
    unsigned returns_seen; /* inode_table.returns_done when this began */
    size_t size;           /* the kernel's buffer */
    char *name;            /* owned */
    uint64_t changes[2];   /* directories that this changes, until it ends: see dir_memory.h */

    /* In inode.pending (pending.c); of the inode's lock. */
    struct kreq *pending_next, **pending_at;
    bool sent;         /* it may be at a node now */
    atomic_bool ended; /* the kernel was answered: no more attempts */

    /* Data requests (data.c). */
    uint16_t type; /* of the message to the node */
    kreq_fn done;
    int64_t deadline_ms;
    int64_t began_ms; /* waits.c, with the next ones */
    bool interruptible, waiting;
    atomic_bool interrupted;
    kreq_fn answer;          /* what done leads to */
    bool no_node;            /* WRITE: there is none that takes data */
    unsigned straight_tries; /* to write it straight although it went to a node before */
    int64_t room_until_ms;   /* 0: the node has not said yet that it has no room */
    uint64_t finished;       /* FALLOCATE: bytes of the range, from its start */
    unsigned attempts;
    uint32_t node; /* where the newest attempt went */
    bool copy;     /* others can serve it too */
    uint32_t avoid[DATA_AVOID_MAX];
    unsigned avoid_n; /* nodes that failed it */
    bool plus, append, datasync, hole, cached_page, kill;
    bool placed; /* append: offset is the end of file that we know */
    bool again;  /* an earlier attempt may have been done */
    bool sync;   /* a write that is answered only when it is on stable storage */
    void (*synced)(struct kreq *q, int status); /* FSYNC: where it ends */
    bool through_node;                          /* it cannot be read from the pool */
    bool pool_away;                             /* as the pool does not answer us */
    bool direct_once;                           /* the centre said just now: from the pool */
    bool counted;                               /* in inode.data_changes */
    bool map_again;                             /* the pool did not have what the map said, once */
    struct kreq *straight_next;                 /* WRITEs of one file that wait */
    struct straight_file *straight_begins;      /* referenced */
    unsigned map_round;                         /* the inode's when the map was asked for */
    struct timespec now;                        /* of the first attempt */
    void *memory;                               /* what payload lies in, owned */
    bool memory_pooled;                         /* belongs to the worker's buffers */
    const void *payload;
    size_t payload_len;
    uint64_t write_count; /* FSYNC: the inode's when it was sent */
    uint64_t version;     /* FSYNC: what the home has on stable storage */
    uint64_t pages_left;  /* WRITE past pages: the inode's as they are taken; 0: of a range only */
    int result;
};

struct kreq *kreq_new(struct worker *w, fuse_req_t req, uint64_t ino); /* NULL: answered ENOMEM */
void kreq_free(struct kreq *q);
/* Its memory stays: for a payload that is being sent while the answer may already come in. */
void kreq_ref(struct kreq *q);
void kreq_unref(struct kreq *q);
/* Answers the kernel with an error (or 0 for success) and frees. */
void kreq_end(struct kreq *q, int status);
/* An errno that the kernel may see. */
int kreq_errno(int status);

/* Cred and Head of a message. kreq_head: numbers the mutation, -EBUSY: too many are unanswered. */
struct head_box {
    Star__Head head;
    Star__Cred cred;
};
void kreq_cred(struct kreq *q, Star__Cred *cred);
/* For requests that only a centre which maps our users wants to know it of: NULL otherwise. */
Star__Cred *kreq_cred_if_squashed(struct kreq *q, Star__Cred *cred);
int kreq_head(struct kreq *q, struct head_box *box);
void kreq_answered(struct kreq *q); /* the mutation has its result, or never will */

ProtobufCBinaryData kreq_bytes(const char *s);

/* Unpacks a reply of the given type. NULL: *status says why (the reply's own error, or -EPROTO). */
void *kreq_unpack(const struct message *reply, const ProtobufCMessageDescriptor *type, int *status);

/* Asks the centre: then runs exactly once with the answer, perhaps before this returns. */
void kreq_ask(struct kreq *q, uint16_t type, const ProtobufCMessage *body, kreq_fn then);
void kreq_ask_within(struct kreq *q, uint16_t type, const ProtobufCMessage *body, int deadline_ms,
                     unsigned flags, kreq_fn then);
/* For failures before anything was sent. */
void kreq_fail_now(struct kreq *q, int status, kreq_fn then);

/* File handles as the kernel holds them. */
#define FH_WRITES  1u /* opened for writing */
#define FH_APPEND  2u
#define FH_CACHED  4u
#define FH_CONTROL 8u
#define FH_READS   16u
uint64_t fh_make(struct worker *w, uint32_t flags);
uint32_t fh_flags(uint64_t fh);
/* -EIO: it belongs to a session that was lost. */
int fh_check(struct worker *w, uint64_t fh);

static inline bool is_control(uint64_t ino)
{
    return (ino & CONTROL_INODE) != 0;
}

/* Control files that take a whole text: what is written is gathered, and goes to the centre at the
 * next read or at close. Others take each write as one command. */
static inline bool control_gathers(uint64_t ino)
{
    return is_control(ino) && (ino & CONTROL_INO_GATHERS) != 0;
}

/* Control files: everything except the name of their root. */
bool kreq_name_is_control(uint64_t parent, const char *name);

#endif
