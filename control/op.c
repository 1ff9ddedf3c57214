/* Ops: requests on their way through recalls, homes and the log. */
#include "control/centre.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/log.h"

struct op *op_new(struct centre *c, struct session *s, struct peer *p, const struct message *m,
                  ProtobufCMessage *body)
{
    struct op *op = calloc(1, sizeof(*op));

    if (!op)
        return NULL;
    op->c = c;
    op->session = s;
    if (s)
        s->refs++;
    op->peer = p ? peer_ref(p) : NULL;
    if (m) {
        op->request = *m;
        op->request.body = op->request.payload = NULL;
    }
    op->body = body;
    DL_APPEND2(c->all, op, prev, next_op);
    c->ops++;
    return op;
}

void op_wait(struct op *op, op_fn next)
{
    op->next = next;
    if (op->pending == 0)
        next(op);
}

void op_answered(struct op *op, int status)
{
    if (status < 0 && op->status == 0)
        op->status = status;
    if (--op->pending == 0)
        op->next(op);
}

/* --- marks --- */

static struct live *op_hold(struct op *op, uint64_t ino)
{
    for (unsigned i = 0; i < op->live_n; i++)
        if (op->live[i]->ino == ino)
            return op->live[i];
    struct live *l = op->live_n < OP_LIVE_MAX ? live_get(op->c, ino) : NULL;
    if (!l) {
        op->status = op->status ? op->status : -ENOMEM;
        return NULL;
    }
    l->refs++;
    l->busy++;
    op->live[op->live_n++] = l;
    return l;
}

void op_busy_inode(struct op *op, uint64_t ino)
{
    op_hold(op, ino);
}

/* true: the op had names of l. */
static bool unmark_names(struct op *op, struct live *l)
{
    struct busy_name **b = &l->names;
    bool had = false;

    while (*b) {
        if ((*b)->op == op) {
            struct busy_name *dead = *b;
            *b = dead->next;
            free(dead);
            had = true;
        } else {
            b = &(*b)->next;
        }
    }
    return had;
}

/* Not at once: who takes marks back has more to do before another op may begin. */
static void wake_waiting(struct centre *c, struct live *l)
{
    struct op *op;

    while ((op = l->waiting)) {
        l->waiting = op->wait_next;
        op->wait_next = NULL;
        if (c->woken)
            c->woken_tail->wait_next = op;
        else
            c->woken = op;
        c->woken_tail = op;
    }
}

void ops_wake(struct centre *c)
{
    struct op *op = c->woken;

    c->woken = c->woken_tail = NULL;
    while (op) {
        struct op *next = op->wait_next;
        op->wait_next = NULL;
        op->start(op);
        op = next;
    }
}

void op_unmark(struct op *op)
{
    if (op->gives_up)
        op->live[0]->giving_up = false;
    op->gives_up = false;
    for (unsigned i = 0; i < op->live_n; i++) {
        struct live *l = op->live[i];
        if (unmark_names(op, l))
            wake_waiting(op->c, l);
        l->busy--;
        l->refs--;
        live_drop_if_idle(op->c, l);
    }
    op->live_n = 0;
}

static bool same_name(const struct busy_name *b, const ProtobufCBinaryData *name)
{
    return b->len == name->len && memcmp(b->name, name->data, name->len) == 0;
}

static struct live *changed_by_other(struct op *op, const struct entry_ref *e)
{
    struct live *l = live_find(op->c, e->dir);

    for (const struct busy_name *b = l ? l->names : NULL; b; b = b->next)
        if (b->op != op && same_name(b, e->name))
            return l;
    return NULL;
}

static void mark_name(struct op *op, const struct entry_ref *e)
{
    struct live *l = op_hold(op, e->dir);
    struct busy_name *b = l ? malloc(sizeof(*b) + e->name->len) : NULL;

    if (!b) {
        op->status = op->status ? op->status : -ENOMEM;
        return;
    }
    b->op = op;
    b->len = e->name->len;
    memcpy(b->name, e->name->data, e->name->len);
    b->next = l->names;
    l->names = b;
}

bool op_busy_names(struct op *op, const struct entry_ref *names, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        struct live *l = changed_by_other(op, &names[k]);
        if (l) {
            LL_APPEND2(l->waiting, op, wait_next);
            return false;
        }
    }
    for (size_t k = 0; k < n; k++)
        mark_name(op, &names[k]);
    return true;
}

/* --- ends --- */

void op_end(struct op *op)
{
    struct centre *c = op->c;
    struct session *s = op->session;

    if (op->listed)
        LL_DELETE2(s->ops, op, s_next);
    if (op->waits_for_lock)
        LL_DELETE2(s->lock_waits, op, s_next);
    if (op->ask)
        jobs_ask_end(op);
    op_unmark(op);
    open_uncount(op);
    c->lease_stops -= op->stops_leases;
    if (s && --s->refs == 0 && s->gone)
        free(s);
    if (op->peer)
        peer_unref(op->peer);
    if (op->body)
        protobuf_c_message_free_unpacked(op->body, NULL);
    DL_DELETE2(c->all, op, prev, next_op);
    free(op->data);
    free(op);
    c->ops--;
}

void ops_end_all(struct centre *c)
{
    c->grace_head = c->grace_tail = c->woken = c->woken_tail = c->nodeless = c->gc_waiting = NULL;
    c->check_waiting = NULL;
    for (struct live *l = c->lives; l; l = l->hh.next)
        l->waiting = NULL;
    while (c->all)
        op_end(c->all);
}

/* The connection that it came by is the session's: an older one's answers are lost, and the mount
 * asks again. */
static bool op_is_heard(const struct op *op)
{
    return op->peer && peer_is_open(op->peer) && (!op->session || op->session->peer == op->peer);
}

/* An answer that cannot be sent must not leave the other side waiting: an error instead, or it
 * connects again. */
static int send_answer(struct op *op, int status, const ProtobufCMessage *body)
{
    int rc;

    if (status < 0 && op->detail[0])
        rc = peer_error(op->peer, &op->request, status, "%s", op->detail);
    else
        rc = peer_reply(op->peer, &op->request, status, status < 0 ? NULL : body, NULL, 0);
    if (rc == 0 || rc == -ENOTCONN)
        return rc;
    log_error("an answer to a request of type %u cannot be sent: %s", op->request.type,
              strerror(-rc));
    if (peer_error(op->peer, &op->request, -EIO, "the centre's answer cannot be sent: %s",
                   strerror(-rc)) < 0)
        peer_close(op->peer);
    return rc;
}

void op_reply(struct op *op, int status, const ProtobufCMessage *body)
{
    bool heard = op_is_heard(op);

    if (op->peer && op->request.kind == FRAME_REQUEST && send_answer(op, status, body) < 0)
        heard = false;
    if (heard && status >= 0)
        op->counted = false;
    op_end(op);
}

void op_error(struct op *op, int status, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsnprintf(op->detail, sizeof(op->detail), format, ap);
    va_end(ap);
    op->c->refused++;
    if (op->note_errors)
        events_add(&op->c->errors, "refused", "%s", op->detail);
    op_reply(op, status, NULL);
}

void op_refuse(struct op *op, const struct state_result *r)
{
    Star__ErrorReply *e =
        r->body_len > 0 ? star__error_reply__unpack(NULL, r->body_len, r->body) : NULL;

    if (e && e->detail[0])
        op_error(op, r->status, "%s", e->detail);
    else
        op_reply(op, r->status, NULL);
    if (e)
        star__error_reply__free_unpacked(e, NULL);
}

/* --- the log --- */

static void on_applied(void *arg, int status, const struct state_result *r)
{
    struct op *op = arg;

    if (status < 0) {
        /* Not known to have happened: no answer; the mount asks the next leader with the same seq.
         */
        op_end(op);
        return;
    }
    op->done(op, r);
}

/* A node's word of what it holds is asked for by nobody yet; it comes behind nearly every write. */
static enum consensus_when when_of(uint32_t type)
{
    return type == STAR__MSG_TYPE__COPIES ? CONSENSUS_SOON : CONSENSUS_NOW;
}

static int submit(struct op *op, uint32_t type, const ProtobufCMessage *body, bool new_ino,
                  bool keyed)
{
    Star__LogEntry e = STAR__LOG_ENTRY__INIT;
    uint8_t small[1024], *buf = small;
    size_t len = body ? protobuf_c_message_get_packed_size(body) : 0;

    if (len > sizeof(small) && !(buf = malloc(len)))
        return -ENOMEM;
    if (body)
        protobuf_c_message_pack(body, buf);
    e.type = type;
    e.body.data = buf;
    e.body.len = len;
    e.node = op->node;
    if (keyed && op->session && op->seq) {
        e.session = op->session->id;
        e.seq = op->seq;
        e.acked = op->acked;
    }
    int rc = consensus_submit(op->c->log, &e, new_ino, when_of(type), on_applied, op);
    if (buf != small)
        free(buf);
    return rc;
}

static void submit_or_end(struct op *op, uint32_t type, const ProtobufCMessage *body, bool new_ino,
                          bool keyed, op_done_fn done)
{
    int rc = op->status;

    op->c->mutations++;
    op->done = done;
    if (rc == 0 && op->session && op->seq && type != STAR__MSG_TYPE__RELEASE)
        rc = consensus_room(op->c->log);
    if (rc == 0)
        rc = submit(op, type, body, new_ino, keyed);
    if (rc == -ENOTCONN)
        op_end(op);
    else if (rc == -ENOSPC)
        op_error(op, rc,
                 "the disk under the centre's log is full to its reserve; free space there");
    else if (rc < 0)
        op_reply(op, rc, NULL);
}

void op_submit(struct op *op, uint32_t type, const ProtobufCMessage *body, bool new_ino,
               op_done_fn done)
{
    submit_or_end(op, type, body, new_ino, true, done);
}

void op_submit_own(struct op *op, uint32_t type, const ProtobufCMessage *body, op_done_fn done)
{
    submit_or_end(op, type, body, false, false, done);
}

int centre_submit(struct centre *c, uint32_t type, const ProtobufCMessage *body,
                  enum consensus_when when, consensus_fn fn, void *arg)
{
    Star__LogEntry e = STAR__LOG_ENTRY__INIT;
    size_t len = protobuf_c_message_get_packed_size(body);
    uint8_t *buf = malloc(len + 1);

    if (!buf)
        return -ENOMEM;
    protobuf_c_message_pack(body, buf);
    e.type = type;
    e.body.data = buf;
    e.body.len = len;
    int rc = consensus_submit(c->log, &e, false, when, fn, arg);
    free(buf);
    return rc;
}

/* --- exactly once --- */

/* The same mutation, sent again by a mount that has a new connection: its answer goes there. */
static void join_twin(struct op *twin, struct op *op)
{
    struct peer *old = twin->peer;

    if (twin->request.type != op->request.type) {
        op_error(op, -EINVAL, "seq %llu is another mutation's", (unsigned long long)op->seq);
        return;
    }
    twin->peer = op->peer;
    op->peer = old;
    twin->request = op->request;
    op_end(op);
}

bool op_deduped(struct op *op, const Star__Head *head, op_done_fn done)
{
    struct session *s = op->session;
    struct op *twin;
    struct state_result r;

    if (op->listed)
        return false; /* it begins again after waiting */
    if (!s || !head || head->seq == 0) {
        op_error(op, -EINVAL, "a mutation needs a session and a seq");
        return true;
    }
    op->seq = head->seq;
    op->acked = head->acked;
    LL_SEARCH_SCALAR2(s->ops, twin, seq, op->seq, s_next);
    if (twin) {
        join_twin(twin, op);
        return true;
    }
    LL_PREPEND2(s->ops, op, s_next);
    op->listed = true;
    int rc = state_dedupe(op->c->state, s->id, op->seq, &r);
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return true;
    }
    if (rc == 1) {
        op->replayed = true;
        done(op, &r);
    }
    return rc == 1;
}

/* --- the grace period --- */

void op_park(struct op *op)
{
    struct centre *c = op->c;

    if (c->grace_n >= GRACE_QUEUE_MAX) {
        op_error(op, -EBUSY, "too many requests wait for the centre's grace period");
        return;
    }
    c->grace_n++;
    if (c->grace_tail)
        c->grace_tail->wait_next = op;
    else
        c->grace_head = op;
    c->grace_tail = op;
}

/* What came by a connection that has broken since is asked again by the next one. */
void ops_unpark(struct centre *c)
{
    struct op *op = c->grace_head;

    c->grace_head = c->grace_tail = NULL;
    c->grace_n = 0;
    while (op) {
        struct op *next = op->wait_next;
        op->wait_next = NULL;
        if (peer_is_open(op->peer))
            op->start(op);
        else
            op_end(op);
        op = next;
    }
}
