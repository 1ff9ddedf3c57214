/*
 * A state in a folder of its own, and short ways to apply entries to it. For tests: everything that
 * must work and does not ends the program.
 */
#ifndef UMBEL_TESTS_STATE_WORLD_H
#define UMBEL_TESTS_STATE_WORLD_H

#include "control/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ROOT STATE_ROOT_INO

struct world {
    char dir[128];
    struct state *s;
    uint64_t count, ino;
    Star__Time now;
    uint32_t uid, gid, umask; /* of the next commands */
    uint32_t node;            /* stamped into entries */
    uint64_t session, seq, acked;
    struct state_result result; /* of the last command */
    ProtobufCMessage *reply;    /* unpacked, by world_reply */
    /* Called with each entry after it was applied, if set. */
    void (*watch)(struct world *w, const uint8_t *entry, size_t len);
};

static inline void world_need(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "state_world: %s\n", what);
        abort();
    }
}

static inline void world_open(struct world *w)
{
    char detail[256] = "";

    if (state_open(w->dir, &w->s, detail) < 0)
        world_need(false, detail);
}

static inline void world_start(struct world *w)
{
    const char *tmp = getenv("TMPDIR");

    memset(w, 0, sizeof(*w));
    snprintf(w->dir, sizeof(w->dir), "%s/umbel-state-XXXXXX", tmp ? tmp : "/tmp");
    world_need(mkdtemp(w->dir) != NULL, "no folder for the test");
    world_open(w);
    star__time__init(&w->now);
    w->now.sec = 1000;
    w->ino = ROOT;
}

static inline void world_drop_reply(struct world *w)
{
    if (w->reply)
        protobuf_c_message_free_unpacked(w->reply, NULL);
    w->reply = NULL;
}

static inline void world_end(struct world *w)
{
    char command[192];

    world_drop_reply(w);
    if (w->s)
        state_close(w->s, true);
    w->s = NULL;
    snprintf(command, sizeof(command), "rm -rf '%s'", w->dir);
    world_need(system(command) == 0, "rm");
}

static inline void world_commit(struct world *w)
{
    if (state_in_turn(w->s))
        world_need(state_commit(w->s) == 0, "commit");
}

/* As a clean stop and start. */
static inline void world_reopen(struct world *w)
{
    world_commit(w);
    state_close(w->s, true);
    world_open(w);
}

/* The entry as the leader would pack it; malloc'd. */
static inline uint8_t *world_pack(struct world *w, uint32_t type, const ProtobufCMessage *body,
                                  size_t *len)
{
    Star__LogEntry e = STAR__LOG_ENTRY__INIT;

    e.type = type;
    e.body.len = protobuf_c_message_get_packed_size(body);
    e.body.data = malloc(e.body.len + 1);
    world_need(e.body.data != NULL, "no memory");
    protobuf_c_message_pack(body, e.body.data);
    e.session = w->session;
    e.seq = w->seq;
    e.acked = w->acked;
    e.now = &w->now;
    e.node = w->node;
    if (type == STAR__MSG_TYPE__MKNOD || type == STAR__MSG_TYPE__MKDIR ||
        type == STAR__MSG_TYPE__SYMLINK || type == STAR__MSG_TYPE__CREATE ||
        type == STAR__LOG_TYPE__LOG_JOB_FILE)
        e.ino = ++w->ino;
    *len = star__log_entry__get_packed_size(&e);
    uint8_t *packed = malloc(*len + 1);
    world_need(packed != NULL, "no memory");
    star__log_entry__pack(&e, packed);
    free(e.body.data);
    return packed;
}

/* Applies in the open turn (or a new one, left open). Time goes on by a second. */
static inline int world_apply(struct world *w, uint32_t type, const ProtobufCMessage *body)
{
    size_t len;

    w->now.sec++;
    uint8_t *packed = world_pack(w, type, body, &len);
    if (!state_in_turn(w->s))
        world_need(state_begin(w->s) == 0, "begin");
    world_need(state_apply(w->s, ++w->count, packed, len, &w->result) == 0, "apply");
    if (w->watch)
        w->watch(w, packed, len);
    free(packed);
    return w->result.status;
}

/* The last command's reply, unpacked; valid until the next call. */
static inline void *world_reply(struct world *w, const ProtobufCMessageDescriptor *type)
{
    world_drop_reply(w);
    w->reply = protobuf_c_message_unpack(type, NULL, w->result.body_len, w->result.body);
    world_need(w->reply != NULL, "a reply is not what it should be");
    return w->reply;
}

static inline ProtobufCBinaryData world_bytes(const char *text)
{
    return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)text};
}

/* --- commands; ino 0 or -errno --- */

#define WORLD_HEAD(w)                                                                              \
    Star__Cred cred = STAR__CRED__INIT;                                                            \
    Star__Head head = STAR__HEAD__INIT;                                                            \
    cred.uid = (w)->uid;                                                                           \
    cred.gid = (w)->gid;                                                                           \
    cred.umask = (w)->umask;                                                                       \
    head.cred = &cred

/* The new inode's number, or -errno. */
static inline int64_t world_make(struct world *w, uint32_t type, uint64_t parent, const char *name,
                                 uint32_t mode, const char *target)
{
    Star__Make q = STAR__MAKE__INIT;

    WORLD_HEAD(w);
    q.head = &head;
    q.parent = parent;
    q.name = world_bytes(name);
    q.mode = mode;
    if (target)
        q.target = world_bytes(target);
    int rc = world_apply(w, type, &q.base);
    return rc < 0 ? rc : (int64_t)w->ino;
}

static inline int64_t w_mkdir(struct world *w, uint64_t parent, const char *name)
{
    return world_make(w, STAR__MSG_TYPE__MKDIR, parent, name, 0755, NULL);
}

static inline int64_t w_create(struct world *w, uint64_t parent, const char *name)
{
    return world_make(w, STAR__MSG_TYPE__CREATE, parent, name, S_IFREG | 0644, NULL);
}

static inline int64_t w_symlink(struct world *w, uint64_t parent, const char *name,
                                const char *target)
{
    return world_make(w, STAR__MSG_TYPE__SYMLINK, parent, name, 0, target);
}

static inline int w_remove(struct world *w, uint32_t type, uint64_t parent, const char *name)
{
    Star__Remove q = STAR__REMOVE__INIT;

    WORLD_HEAD(w);
    q.head = &head;
    q.parent = parent;
    q.name = world_bytes(name);
    return world_apply(w, type, &q.base);
}

static inline int w_unlink(struct world *w, uint64_t parent, const char *name)
{
    return w_remove(w, STAR__MSG_TYPE__UNLINK, parent, name);
}

static inline int w_rmdir(struct world *w, uint64_t parent, const char *name)
{
    return w_remove(w, STAR__MSG_TYPE__RMDIR, parent, name);
}

static inline int w_link(struct world *w, uint64_t ino, uint64_t parent, const char *name)
{
    Star__Link q = STAR__LINK__INIT;

    WORLD_HEAD(w);
    q.head = &head;
    q.ino = ino;
    q.parent = parent;
    q.name = world_bytes(name);
    return world_apply(w, STAR__MSG_TYPE__LINK, &q.base);
}

static inline int w_rename(struct world *w, uint64_t parent, const char *name, uint64_t new_parent,
                           const char *new_name, uint32_t flags)
{
    Star__Rename q = STAR__RENAME__INIT;

    WORLD_HEAD(w);
    q.head = &head;
    q.parent = parent;
    q.name = world_bytes(name);
    q.new_parent = new_parent;
    q.new_name = world_bytes(new_name);
    q.flags = flags;
    return world_apply(w, STAR__MSG_TYPE__RENAME, &q.base);
}

static inline int w_xattr(struct world *w, uint32_t type, uint64_t ino, const char *name,
                          const void *value, size_t len, uint32_t flags, bool kill_sgid)
{
    Star__Xattr q = STAR__XATTR__INIT;

    WORLD_HEAD(w);
    q.head = &head;
    q.ino = ino;
    q.name = world_bytes(name);
    q.value = (ProtobufCBinaryData){.len = len, .data = (uint8_t *)value};
    q.flags = flags;
    q.kill_sgid = kill_sgid;
    return world_apply(w, type, &q.base);
}

static inline int w_setattr(struct world *w, Star__SetAttr *q)
{
    WORLD_HEAD(w);
    q->head = &head;
    int rc = world_apply(w, STAR__MSG_TYPE__SETATTR, &q->base);
    q->head = NULL;
    return rc;
}

static inline int w_chmod(struct world *w, uint64_t ino, uint32_t mode)
{
    Star__SetAttr q = STAR__SET_ATTR__INIT;

    q.ino = ino;
    q.valid = 1;
    q.mode = mode;
    return w_setattr(w, &q);
}

static inline int w_reap(struct world *w, uint64_t ino)
{
    Star__LogInodes q = STAR__LOG_INODES__INIT;

    q.n_ino = 1;
    q.ino = &ino;
    return world_apply(w, STAR__LOG_TYPE__LOG_REAP, &q.base);
}

/* The node's number, or -errno. */
static inline int w_node(struct world *w, uint32_t node, const char *name, const char *state)
{
    Star__LogNode q = STAR__LOG_NODE__INIT;

    q.node = node;
    q.name = (char *)name;
    q.address = (char *)"unix:/run/node";
    q.machine = (char *)"machine";
    q.store = (char *)name; /* one store each */
    q.state = (char *)state;
    int rc = world_apply(w, STAR__LOG_TYPE__LOG_NODE, &q.base);
    if (rc < 0)
        return rc;
    return (int)((Star__LogNode *)world_reply(w, &star__log_node__descriptor))->node;
}

static inline uint64_t w_session(struct world *w, const char *name)
{
    Star__LogSession q = STAR__LOG_SESSION__INIT;

    q.name = (char *)name;
    world_need(world_apply(w, STAR__LOG_TYPE__LOG_SESSION_OPEN, &q.base) == 0, "session");
    return ((Star__LogSession *)world_reply(w, &star__log_session__descriptor))->session;
}

static inline struct inode w_inode(struct world *w, uint64_t ino)
{
    struct inode i;

    world_need(state_inode(w->s, ino, &i) == 0, "an inode is missing");
    return i;
}

/* 0 if the name is not there. */
static inline uint64_t w_lookup(struct world *w, uint64_t dir, const char *name)
{
    struct inode i;
    int rc = state_lookup(w->s, dir, name, strlen(name), &i);

    return rc == 0 ? i.ino : 0;
}

static inline void world_report(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "check: %s\n", line);
}

/* Problems found by state_check, printed. */
static inline int64_t world_check(struct world *w)
{
    return state_check(w->s, world_report, NULL);
}

#endif
