/* Ops: requests on their way through recalls, homes and the log. */
#include "control/centre.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"

struct op *op_new(struct centre *c, struct session *s, struct peer *p, const struct message *m, ProtobufCMessage *body)
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
    if (op->live_n == OP_LIVE_MAX)
        return NULL;
    struct live *l = live_get(op->c, ino);
    if (!l)
        return NULL;
    l->refs++;
    l->busy++;
    op->live[op->live_n++] = l;
    return l;
}

bool op_busy_inode(struct op *op, uint64_t ino)
{
    return op_hold(op, ino) != NULL;
}

static void unmark_names(struct op *op, struct live *l)
{
    struct busy_name **b = &l->names;

    while (*b) {
        if ((*b)->op == op) {
            struct busy_name *dead = *b;
            *b = dead->next;
            free(dead);
        } else {
            b = &(*b)->next;
        }
    }
}

/* Takes all marks back and starts those who waited for them. */
void op_unmark(struct op *op)
{
    struct op *again = NULL, *w;

    for (unsigned i = 0; i < op->live_n; i++) {
        struct live *l = op->live[i];
        unmark_names(op, l);
        l->busy--;
        l->refs--;
        while ((w = l->waiting)) {
            l->waiting = w->wait_next;
            w->wait_next = again;
            again = w;
        }
        live_drop_if_idle(op->c, l);
    }
    op->live_n = 0;
    while ((w = again)) {
        again = w->wait_next;
        w->wait_next = NULL;
        w->start(w);
    }
}

bool op_busy_name(struct op *op, uint64_t dir, const void *name, size_t len)
{
    struct live *l = op_hold(op, dir);
    struct busy_name *b;

    if (!l) {
        op->status = -ENOMEM;
        return true;
    }
    for (b = l->names; b; b = b->next) {
        if (b->op != op && b->len == len && memcmp(b->name, name, len) == 0) {
            l->refs++; /* op_unmark must not let it go */
            op_unmark(op);
            l->refs--;
            struct op **tail = &l->waiting;
            while (*tail)
                tail = &(*tail)->wait_next;
            *tail = op;
            return false;
        }
    }
    b = malloc(sizeof(*b) + len);
    if (!b) {
        op->status = -ENOMEM;
        return true;
    }
    b->op = op;
    b->len = len;
    memcpy(b->name, name, len);
    b->next = l->names;
    l->names = b;
    return true;
}

/* --- ends --- */

void op_end(struct op *op)
{
    struct centre *c = op->c;
    struct session *s = op->session;

    if (op->listed)
        LL_DELETE2(s->ops, op, s_next);
    op_unmark(op);
    if (s && --s->refs == 0 && s->gone)
        free(s);
    if (op->peer)
        peer_unref(op->peer);
    if (op->body)
        protobuf_c_message_free_unpacked(op->body, NULL);
    free(op->data);
    free(op);
    c->ops--;
}

void op_reply(struct op *op, int status, const ProtobufCMessage *body)
{
    if (op->peer && op->request.kind == FRAME_REQUEST) {
        if (status < 0 && op->detail[0])
            peer_error(op->peer, &op->request, status, "%s", op->detail);
        else
            peer_reply(op->peer, &op->request, status, status < 0 ? NULL : body, NULL, 0);
    }
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

/* --- the log --- */

static void on_applied(void *arg, int status, const struct state_result *r)
{
    struct op *op = arg;

    if (status < 0) {
        /* Not known to have happened: no answer; the mount asks the next leader with the same seq. */
        op_end(op);
        return;
    }
    op->done(op, r);
}

static int submit(struct op *op, uint32_t type, const ProtobufCMessage *body, bool new_ino, bool keyed)
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
    int rc = consensus_submit(op->c->log, &e, new_ino, on_applied, op);
    if (buf != small)
        free(buf);
    return rc;
}

static void submit_or_end(struct op *op, uint32_t type, const ProtobufCMessage *body, bool new_ino, bool keyed,
                          op_done_fn done)
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
        op_error(op, rc, "the disk under the centre's log is full to its reserve; free space there");
    else if (rc < 0)
        op_reply(op, rc, NULL);
}

void op_submit(struct op *op, uint32_t type, const ProtobufCMessage *body, bool new_ino, op_done_fn done)
{
    submit_or_end(op, type, body, new_ino, true, done);
}

void op_submit_own(struct op *op, uint32_t type, const ProtobufCMessage *body, op_done_fn done)
{
    submit_or_end(op, type, body, false, false, done);
}

int centre_submit(struct centre *c, uint32_t type, const ProtobufCMessage *body, consensus_fn fn, void *arg)
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
    int rc = consensus_submit(c->log, &e, false, fn, arg);
    free(buf);
    return rc;
}

/* --- exactly once --- */

bool op_deduped(struct op *op, Star__Head *head, op_done_fn done)
{
    struct session *s = op->session;
    struct op *twin;
    struct state_result r;

    if (op->listed)
        return false; /* started again after waiting */
    if (!s || !head || head->seq == 0) {
        op_error(op, -EINVAL, "a mutation needs a session and a seq");
        return true;
    }
    op->seq = head->seq;
    op->acked = head->acked;
    LL_SEARCH_SCALAR2(s->ops, twin, seq, op->seq, s_next);
    if (twin) {
        struct peer *old = twin->peer;
        twin->peer = op->peer;
        op->peer = old;
        twin->request = op->request;
        op_end(op);
        return true;
    }
    LL_PREPEND2(s->ops, op, s_next);
    op->listed = true;
    if (state_dedupe(op->c->state, s->id, op->seq, &r) == 1) {
        op->replayed = true;
        done(op, &r);
        return true;
    }
    return false;
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

void ops_unpark(struct centre *c)
{
    struct op *op = c->grace_head;

    c->grace_head = c->grace_tail = NULL;
    c->grace_n = 0;
    while (op) {
        struct op *next = op->wait_next;
        op->wait_next = NULL;
        op->start(op);
        op = next;
    }
}
