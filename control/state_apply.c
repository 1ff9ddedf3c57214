/* One log entry: unpack, admit (sessions), run its command, keep the result. */
#include "control/state_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

typedef int (*command_fn)(struct apply *a, const ProtobufCMessage *body);

struct command {
    uint32_t type;
    const ProtobufCMessageDescriptor *body;
    command_fn run;
};

static const struct command commands[] = {
    {STAR__MSG_TYPE__SETATTR, &star__set_attr__descriptor, st_cmd_setattr},
    {STAR__MSG_TYPE__MKNOD, &star__make__descriptor, st_cmd_make},
    {STAR__MSG_TYPE__MKDIR, &star__make__descriptor, st_cmd_make},
    {STAR__MSG_TYPE__SYMLINK, &star__make__descriptor, st_cmd_make},
    {STAR__MSG_TYPE__CREATE, &star__make__descriptor, st_cmd_make},
    {STAR__MSG_TYPE__LINK, &star__link__descriptor, st_cmd_link},
    {STAR__MSG_TYPE__UNLINK, &star__remove__descriptor, st_cmd_unlink},
    {STAR__MSG_TYPE__RMDIR, &star__remove__descriptor, st_cmd_rmdir},
    {STAR__MSG_TYPE__RENAME, &star__rename__descriptor, st_cmd_rename},
    {STAR__MSG_TYPE__RELEASE, &star__release__descriptor, st_cmd_release},
    {STAR__MSG_TYPE__SETXATTR, &star__xattr__descriptor, st_cmd_setxattr},
    {STAR__MSG_TYPE__REMOVEXATTR, &star__xattr__descriptor, st_cmd_removexattr},
    {STAR__MSG_TYPE__SYNC_ATTRS, &star__home_attrs__descriptor, st_cmd_sync_attrs},
    {STAR__MSG_TYPE__ALLOC_PACKS, &star__alloc_packs__descriptor, st_cmd_alloc_packs},
    {STAR__MSG_TYPE__CONFIRM, &star__confirm__descriptor, st_cmd_confirm},
    {STAR__MSG_TYPE__MOVED, &star__moved__descriptor, st_cmd_moved},
    {STAR__MSG_TYPE__STRAIGHT_PACKS, &star__straight_packs__descriptor, st_cmd_straight_packs},
    {STAR__MSG_TYPE__STRAIGHT_CONFIRM, &star__straight_confirm__descriptor,
     st_cmd_straight_confirm},
    {STAR__MSG_TYPE__META_STORED, &star__meta_stored__descriptor, st_cmd_meta_stored},
    {STAR__MSG_TYPE__DISCARD_PACK, &star__pack_ref__descriptor, st_cmd_discard_pack},
    {STAR__MSG_TYPE__COPIES, &star__copies__descriptor, st_cmd_copies},
    {STAR__MSG_TYPE__DELETED_PACKS, &star__pack_refs__descriptor, st_cmd_deleted_packs},
    {STAR__LOG_TYPE__LOG_SESSION_OPEN, &star__log_session__descriptor, st_cmd_session_open},
    {STAR__LOG_TYPE__LOG_SESSION_END, &star__log_session__descriptor, st_cmd_session_end},
    {STAR__LOG_TYPE__LOG_TAKE_HOME, &star__log_home__descriptor, st_cmd_take_home},
    {STAR__LOG_TYPE__LOG_NODE, &star__log_node__descriptor, st_cmd_node},
    {STAR__LOG_TYPE__LOG_SETTING, &star__log_setting__descriptor, st_cmd_setting},
    {STAR__LOG_TYPE__LOG_REAP, &star__log_inodes__descriptor, st_cmd_reap},
    {STAR__LOG_TYPE__LOG_CONDEMN, &star__pack_refs__descriptor, st_cmd_condemn},
    {STAR__LOG_TYPE__LOG_REBUILD, &star__rebuild__descriptor, st_cmd_rebuild},
    {STAR__LOG_TYPE__LOG_HOME_ATTRS, &star__node_attrs__descriptor, st_cmd_home_attrs},
    {STAR__LOG_TYPE__LOG_TOKEN, &star__log_token__descriptor, st_cmd_token},
    {STAR__LOG_TYPE__LOG_JOIN, &star__log_join__descriptor, st_cmd_join},
    {STAR__LOG_TYPE__LOG_REVOKE, &star__log_revoke__descriptor, st_cmd_revoke},
    {STAR__LOG_TYPE__LOG_JOB_SUBMIT, &star__log_job_submit__descriptor, st_cmd_job_submit},
    {STAR__LOG_TYPE__LOG_JOB_MORE, &star__log_job_more__descriptor, st_cmd_job_more},
    {STAR__LOG_TYPE__LOG_JOB_CHANGE, &star__log_job_change__descriptor, st_cmd_job_change},
    {STAR__LOG_TYPE__LOG_JOB_FILE, &star__log_job_file__descriptor, st_cmd_job_file},
    {STAR__LOG_TYPE__LOG_DROP_COPIES, &star__log_home__descriptor, st_cmd_drop_copies},
};

static const struct command *command_of(uint32_t type)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (commands[i].type == type)
            return &commands[i];
    return NULL;
}

/* --- replies --- */

int st_reply(struct apply *a, const ProtobufCMessage *body)
{
    struct buffer *b = &a->s->reply;
    int rc = st_buffer_room(a->s, b, protobuf_c_message_get_packed_size(body));

    if (rc == 0 && b->len > 0)
        protobuf_c_message_pack(body, b->data);
    return rc;
}

int st_refuse(struct apply *a, int status, const char *format, ...)
{
    Star__ErrorReply body = STAR__ERROR_REPLY__INIT;
    char detail[256];
    va_list ap;

    va_start(ap, format);
    vsnprintf(detail, sizeof(detail), format, ap);
    va_end(ap);
    body.detail = detail;
    int rc = st_reply(a, &body.base);
    return rc < 0 ? rc : status;
}

/* --- unpacking, into the command's memory --- */

static void *arena_alloc(void *state, size_t size)
{
    return st_alloc(state, size);
}

static void arena_free(void *state, void *p)
{
    (void)state, (void)p;
}

static ProtobufCMessage *unpack(struct state *s, const ProtobufCMessageDescriptor *type,
                                const void *data, size_t len)
{
    ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = s};

    return protobuf_c_message_unpack(type, &allocator, len, data);
}

/* --- apply --- */

/* The leader never stamps earlier than before; if it did, time would still not go back. */
static int take_stamp(struct apply *a)
{
    struct meta_row *m = &a->s->meta;
    const Star__Time *now = a->e->now;

    if (now && now->nsec > 999999999)
        return -EINVAL;
    if (now && (now->sec > m->sec || (now->sec == m->sec && now->nsec > m->nsec))) {
        m->sec = now->sec;
        m->nsec = now->nsec;
    }
    a->sec = m->sec;
    a->nsec = m->nsec;
    return 0;
}

static int run(struct apply *a)
{
    const struct command *c = command_of(a->e->type);

    if (!c)
        return -EOPNOTSUPP;
    ProtobufCMessage *body = unpack(a->s, c->body, a->e->body.data, a->e->body.len);
    if (!body)
        return a->s->broken ? a->s->broken : -EINVAL;
    int rc = c->run(a, body);
    if (rc >= 0 && a->s->broken == 0)
        rc = st_pack_flush(a->s);
    return rc;
}

/* Inode numbers are used up whether or not the command succeeds, so that a new leader never gives
 * one twice. */
static void use_ino(struct apply *a, uint64_t last)
{
    if (a->e->ino > last && a->e->ino >> 63 == 0)
        a->s->meta.last_ino = a->e->ino;
}

static int execute(struct apply *a, struct state_result *result)
{
    struct state *s = a->s;
    uint64_t last_ino = s->meta.last_ino;
    bool keep = false;
    int rc = take_stamp(a);

    if (rc == 0)
        rc = st_session_admit(a, result, &keep);
    if (rc != 0) {
        use_ino(a, last_ino);
        if (rc < 0)
            result->status = rc;
        return s->broken;
    }
    rc = run(a);
    use_ino(a, last_ino);
    if (s->broken)
        return s->broken;
    result->status = rc;
    result->body = s->reply.data;
    result->body_len = s->reply.len;
    return keep ? st_session_keep(a, rc, &s->reply) : 0;
}

int state_apply(struct state *s, uint64_t count, const void *entry, size_t len,
                struct state_result *result)
{
    struct apply a = {.s = s, .count = count};

    *result = (struct state_result){0};
    if (s->broken)
        return s->broken;
    if (!s->write)
        return -EINVAL;
    if (count <= s->meta.applied)
        return 0;
    if (count != s->meta.applied + 1)
        return -EPROTO; /* commands are missing */
    st_arena_reset(s);
    s->reply.len = 0;
    s->pack = 0;
    s->pack_dirty = false;
    s->meta.applied = count;
    a.e = (const Star__LogEntry *)unpack(s, &star__log_entry__descriptor, entry, len);
    if (!a.e) {
        result->status = -EINVAL;
        return s->broken;
    }
    return execute(&a, result);
}
