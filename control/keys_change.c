/*
 * Changes of a sealed cloud's keys: a new generation, another recovery key. Who keeps the keys
 * (control.h) makes the change and wraps them; a node puts what was wrapped into the pool, and only
 * then a new generation is used: at every moment the recovery key and the pool open all that was
 * sealed. Nothing of it is in the log. What could not be put is tried again until it is there.
 */
#include "control/centre.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_PUT_DEADLINE_MS 120000
#define KEYS_RETRY_MS        10000

static struct op *pop(struct op **list)
{
    struct op *op = *list;

    if (op) {
        *list = op->wait_next;
        op->wait_next = NULL;
    }
    return op;
}

static void push(struct op **list, struct op *op)
{
    op->wait_next = *list;
    *list = op;
}

static void answer_all(struct centre *c, int status)
{
    struct op *op;

    while ((op = pop(&c->key_ops)))
        if (status < 0)
            op_error(
                op, status,
                "the change is made, but counts only when the pool has the wrapped keys, which "
                "is tried until it succeeds: %s",
                c->keys_error);
        else
            op_reply(op, 0, NULL);
    while (status < 0 && (op = pop(&c->rotations)))
        op_error(op, -EBUSY, "the pool has not got the change before yet: %s", c->keys_error);
}

static void put_failed(struct centre *c, int status, const char *detail)
{
    bool again = c->keys_error[0] != '\0';

    snprintf(c->keys_error, sizeof(c->keys_error), "%s",
             detail && *detail ? detail : strerror(-status));
    if (!again)
        events_add(&c->events, "keys", "the wrapped keys could not be put into the pool: %s",
                   c->keys_error);
    c->keys_ms = c->now + KEYS_RETRY_MS;
    answer_all(c, status);
}

static void put_wrapped(struct centre *c);

struct put {
    struct centre *c;
    uint32_t serial;
};

static void on_put(void *arg, const struct message *reply)
{
    struct put *p = arg;
    struct centre *c = p->c;
    const struct control_keys *k = c->options->keys;
    uint32_t serial = p->serial;
    int status = reply->status;

    free(p);
    c->keys_sent = false;
    if (c->stopping) {
        answer_all(c, -ESHUTDOWN);
        return;
    }
    if (status < 0) {
        Star__ErrorReply *e =
            (Star__ErrorReply *)frame_unpack(reply, &star__error_reply__descriptor);
        put_failed(c, status, e ? e->detail : "");
        if (e)
            star__error_reply__free_unpacked(e, NULL);
        return;
    }
    status = k->stored(k->ctx, serial);
    if (status < 0) {
        put_failed(c, status, "the file of keys cannot be written");
        return;
    }
    c->keys_error[0] = '\0';
    events_add(&c->events, "keys",
               "the pool has the wrapped keys; packs are sealed under generation %" PRIu32,
               k->newest(k->ctx));
    put_wrapped(c); /* there may have been another change meanwhile */
}

static int send_wrapped(struct centre *c, const struct control_wrapped *w)
{
    Star__PutKeys body = STAR__PUT_KEYS__INIT;
    struct node *n = gc_node(c);
    struct put *p = n ? malloc(sizeof(*p)) : NULL;

    if (!p)
        return n ? -ENOMEM : -EAGAIN;
    *p = (struct put){c, w->serial};
    body.serial = w->serial;
    body.wrapped = (ProtobufCBinaryData){w->len, (uint8_t *)(uintptr_t)w->data};
    int rc = peer_request(n->peer, STAR__MSG_TYPE__PUT_KEYS, &body.base, KEYS_PUT_DEADLINE_MS,
                          on_put, p);
    if (rc < 0)
        free(p);
    return rc;
}

/* The change is made when this returns 0; op waits for the pool to have it. */
static void changed(struct op *op, int rc, const char *detail)
{
    if (rc < 0)
        op_error(op, rc, "%s", detail[0] ? detail : strerror(-rc));
    else
        push(&op->c->key_ops, op);
}

static void rotate(struct op *op)
{
    const struct control_keys *k = op->c->options->keys;
    char detail[CONTROL_KEYS_DETAIL] = "";

    changed(op, k->rotate(k->ctx, detail), detail);
}

/* Ops wait until the pool lacks nothing, a rotation for its turn to begin. */
static void put_wrapped(struct centre *c)
{
    const struct control_keys *k = c->options->keys;
    struct control_wrapped w;
    int rc;

    if (c->keys_sent)
        return;
    while ((rc = k->wrapped(k->ctx, &w)) == 0) {
        struct op *next = pop(&c->rotations);

        answer_all(c, 0);
        if (!next)
            return;
        rotate(next);
    }
    if (rc > 0)
        rc = send_wrapped(c, &w);
    if (rc < 0)
        put_failed(c, rc, rc == -EAGAIN ? "no node is here" : NULL);
    else
        c->keys_sent = true;
}

void keys_tick(struct centre *c, int64_t now)
{
    if (!c->options->keys || !c->serving || c->keys_sent || now < c->keys_ms || !gc_node(c))
        return;
    c->keys_ms = now + KEYS_RETRY_MS;
    put_wrapped(c);
}

static bool may_change(struct op *op)
{
    if (!op->c->options->keys)
        op_error(op, -EOPNOTSUPP, "this cloud is not sealed: it has no keys");
    else if (!op->peer || peer_identity(op->peer)->tls)
        op_error(op, -EPERM,
                 "keys are changed through a mount on the machine of the centre, from no other");
    else
        return true;
    return false;
}

void keys_command(struct op *op, char *command)
{
    struct centre *c = op->c;
    const struct control_keys *k = c->options->keys;
    char detail[CONTROL_KEYS_DETAIL] = "";

    if (!may_change(op))
        return;
    if (strcmp(command, "rotate") == 0) {
        push(&c->rotations, op);
    } else if (strncmp(command, "replace ", 8) == 0) {
        changed(op, k->replace(k->ctx, command + 8, detail), detail);
        explicit_bzero(command, strlen(command));
    } else {
        op_error(op, -EINVAL, "key rotate, or key replace LOCK (umbel key makes it)");
        return;
    }
    put_wrapped(c);
}
