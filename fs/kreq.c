#include "fs/kreq.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fs/centre.h"
#include "fs/dir_memory.h"

struct kreq *kreq_new(struct worker *w, fuse_req_t req, uint64_t ino)
{
    struct kreq *q = calloc(1, sizeof(*q));

    if (!q) {
        if (req)
            fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    q->w = w;
    atomic_store(&q->refs, 1);
    q->req = req;
    q->ino = ino;
    if (req)
        q->ctx = *fuse_req_ctx(req);
    q->returns_seen = atomic_load(&w->inodes.returns_done);
    atomic_fetch_add(&w->requests, 1);
    return q;
}

void kreq_ref(struct kreq *q)
{
    atomic_fetch_add(&q->refs, 1);
}

void kreq_unref(struct kreq *q)
{
    struct worker *w = q->w;

    if (atomic_fetch_sub(&q->refs, 1) > 1)
        return;
    if (q->memory_pooled)
        buffers_put(w->buffers, q->memory);
    else
        free(q->memory);
    free(q->name);
    free(q->groups);
    free(q);
    atomic_fetch_sub(&w->requests, 1);
}

void kreq_free(struct kreq *q)
{
    dir_change_ended(q);
    kreq_answered(q);
    kreq_unref(q);
}

int kreq_errno(int status)
{
    int err = -status;

    if (err <= 0)
        return 0;
    switch (err) {
    case ENOSYS: /* the kernel would never ask again */
        return EOPNOTSUPP;
    case ECONNRESET:
    case ESHUTDOWN:
    case ENOTCONN:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EPROTO:
    case EBADMSG:
    case EMSGSIZE:
    case EKEYEXPIRED:
    case EKEYREJECTED:
        return EIO;
    default:
        return err < 512 ? err : EIO; /* above: the kernel's own */
    }
}

void kreq_end(struct kreq *q, int status)
{
    if (status == -ETIMEDOUT)
        dir_change_unsure(q);
    if (q->req)
        fuse_reply_err(q->req, kreq_errno(status));
    kreq_free(q);
}

/* As many as NFS would never carry; whoever is in more has the rest for nothing. */
#define GROUPS_MAX 1024

static bool is_squashed(const struct worker *w)
{
    return w->identity && identity_self(w->identity)->squash != SQUASH_NONE;
}

/* "Groups:\t1 2 3 ". */
static int parse_groups(const char *line, uint32_t *out)
{
    int n = 0;
    char *end;

    for (const char *at = line; n < GROUPS_MAX; at = end) {
        unsigned long id = strtoul(at, &end, 10);
        if (end == at)
            break;
        out[n++] = (uint32_t)id;
    }
    return n;
}

/* The caller waits for us, so the kernel still knows its groups. Not by fuse_req_getgroups: that of
 * libfuse 3.14 reads beyond its buffer. */
static void take_groups(struct kreq *q)
{
    uint32_t list[GROUPS_MAX];
    char path[48], *line = NULL;
    size_t size = 0;
    int n = 0;

    if (q->groups || !q->req)
        return;
    snprintf(path, sizeof(path), "/proc/%lu/status", (unsigned long)q->ctx.pid);
    FILE *f = fopen(path, "re");
    while (f && n == 0 && getline(&line, &size, f) > 0)
        if (strncmp(line, "Groups:", 7) == 0)
            n = parse_groups(line + 7, list);
    if (f)
        fclose(f);
    free(line);
    if (n == 0 || !(q->groups = malloc((size_t)n * sizeof(*q->groups))))
        return; /* without them it may less */
    memcpy(q->groups, list, (size_t)n * sizeof(*list));
    q->groups_n = (size_t)n;
}

Star__Cred *kreq_cred_if_squashed(struct kreq *q, Star__Cred *cred)
{
    if (!is_squashed(q->w))
        return NULL;
    kreq_cred(q, cred);
    return cred;
}

void kreq_cred(struct kreq *q, Star__Cred *cred)
{
    star__cred__init(cred);
    if (is_squashed(q->w))
        take_groups(q);
    cred->groups = q->groups;
    cred->n_groups = q->groups_n;
    cred->uid = q->ctx.uid;
    cred->gid = q->ctx.gid;
    cred->umask = q->ctx.umask;
}

int kreq_head(struct kreq *q, struct head_box *box)
{
    uint64_t acked = 0;

    q->seq = seq_begin(&q->w->centre.seq, &acked);
    if (q->seq == 0)
        return -EBUSY;
    star__head__init(&box->head);
    kreq_cred(q, &box->cred);
    box->head.seq = q->seq;
    box->head.acked = acked;
    box->head.cred = &box->cred;
    return 0;
}

void kreq_answered(struct kreq *q)
{
    if (q->seq)
        seq_end(&q->w->centre.seq, q->seq);
    q->seq = 0;
}

ProtobufCBinaryData kreq_bytes(const char *s)
{
    return (ProtobufCBinaryData){.len = strlen(s), .data = (uint8_t *)(uintptr_t)s};
}

void *kreq_unpack(const struct message *reply, const ProtobufCMessageDescriptor *type, int *status)
{
    *status = reply->status;
    if (reply->status < 0)
        return NULL;
    void *body = frame_unpack(reply, type);
    if (!body)
        *status = -EPROTO;
    return body;
}

static void on_answer(void *arg, const struct message *reply)
{
    struct kreq *q = arg;

    kreq_answered(q);
    q->then(q, reply);
}

void kreq_fail_now(struct kreq *q, int status, kreq_fn then)
{
    struct message m = {.kind = FRAME_REPLY, .status = status};

    kreq_answered(q);
    then(q, &m);
}

void kreq_ask_within(struct kreq *q, uint16_t type, const ProtobufCMessage *body, int deadline_ms,
                     unsigned flags, kreq_fn then)
{
    q->then = then;
    int rc = msession_call(q->w, type, body, NULL, 0, deadline_ms, flags, on_answer, q, NULL);
    if (rc < 0)
        kreq_fail_now(q, rc, then);
}

void kreq_ask(struct kreq *q, uint16_t type, const ProtobufCMessage *body, kreq_fn then)
{
    kreq_ask_within(q, type, body, METADATA_DEADLINE_MS, CLIENT_RESEND, then);
}

/* fh: bits 0-7 flags, 8-31 generation of the session, 32-63 a number. */
#define FH_GENERATION_BITS 24
#define FH_GENERATION_MASK ((1u << FH_GENERATION_BITS) - 1)

uint64_t fh_make(struct worker *w, uint32_t flags)
{
    uint64_t generation = atomic_load(&w->centre.generation) & FH_GENERATION_MASK;
    uint64_t number = atomic_fetch_add(&w->next_handle, 1);

    return number << 32 | generation << 8 | (flags & 0xff);
}

uint32_t fh_flags(uint64_t fh)
{
    return (uint32_t)(fh & 0xff);
}

int fh_check(struct worker *w, uint64_t fh)
{
    uint32_t generation = (uint32_t)(fh >> 8) & FH_GENERATION_MASK;

    return generation == (atomic_load(&w->centre.generation) & FH_GENERATION_MASK) ? 0 : -EIO;
}

bool kreq_name_is_control(uint64_t parent, const char *name)
{
    return is_control(parent) || (parent == ROOT_INODE && strcmp(name, CONTROL_NAME) == 0);
}
