/* The handler of mounts' requests. */
#include "nodecache/serve.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "control/wire/service.h"
#include "nodecache/link_private.h"

struct serve {
    struct service *service;
    struct store *store;
    struct link *link;
    char cloud[64];
};

/* ---- answers ---- */

static void answer(struct service_conn *conn, const struct message *m, int status,
                   const ProtobufCMessage *body)
{
    /* A connection that is gone: its mount asks again. */
    (void)service_reply(conn, m, status, body, NULL, 0);
}

static void refuse(struct service_conn *conn, const struct message *m, int rc, const char *detail)
{
    char name[16];

    if (detail && detail[0])
        (void)service_error(conn, m, rc, "%s", detail);
    else
        (void)service_error(conn, m, rc, "%s: %s", frame_type_name(m->type, name), strerror(-rc));
}

static void answer_write(struct serve *v, struct service_conn *conn, const struct message *m,
                         int rc, const struct attrs *attrs, uint64_t offset, uint64_t written)
{
    Star__WriteReply reply = STAR__WRITE_REPLY__INIT;
    struct wire_attrs wire;

    /* Frozen meanwhile, perhaps: what was done may not count any more, but it was done. */
    if (rc >= 0 && link_fenced(v->link))
        rc = -ECONNRESET;
    if (rc < 0) {
        refuse(conn, m, rc, NULL);
        return;
    }
    put_attrs(&wire, attrs, store_node(v->store));
    reply.attrs = &wire.attrs;
    reply.offset = offset;
    reply.written = written;
    reply.instance = store_instance(v->store);
    answer(conn, m, 0, &reply.base);
}

/* ---- requests ---- */

static void do_hello(struct serve *v, struct service_conn *conn, const struct message *m,
                     const Star__Hello *hello)
{
    Star__HelloReply reply = STAR__HELLO_REPLY__INIT;

    if (hello->protocol != PROTOCOL_VERSION) {
        (void)service_error(conn, m, -EPROTONOSUPPORT, "this node speaks protocol %u, not %u",
                            PROTOCOL_VERSION, hello->protocol);
        return;
    }
    const struct identity_peer *id = service_peer(conn);
    if (id->tls && (id->who.role != IDENTITY_MOUNT || strcmp(id->who.name, hello->name) != 0)) {
        (void)service_error(conn, m, -EPERM, "your certificate says %s/%s, you say mount/%.40s",
                            identity_role_text(id->who.role), id->who.name, hello->name);
        return;
    }
    if (hello->cloud[0] && v->cloud[0] && strcmp(hello->cloud, v->cloud) != 0) {
        (void)service_error(conn, m, -EXDEV, "this node belongs to another cloud");
        return;
    }
    reply.node = store_node(v->store);
    reply.node_instance = store_instance(v->store);
    reply.cloud = v->cloud;
    answer(conn, m, 0, &reply.base);
}

/* Tickets that a connection has shown lately, so that each is verified once. */
#define SEEN_TICKETS 64u

struct seen {
    uint8_t bytes[TICKET_BYTES];
    uint8_t mac[TICKET_MAC_SIZE];
    int64_t until; /* clock_boot_ms; 0: none */
};

/* Of its thread. */
struct connection {
    uint8_t *buffer; /* NODE_IO_MAX; NULL: not used yet */
    struct seen seen[SEEN_TICKETS];
};

static struct connection *conn_own(struct service_conn *conn)
{
    struct connection *c = service_data(conn);

    if (!c) {
        c = calloc(1, sizeof(*c));
        service_set_data(conn, c);
    }
    return c;
}

static uint8_t *conn_buffer(struct service_conn *conn)
{
    struct connection *c = conn_own(conn);

    if (c && !c->buffer)
        c->buffer = malloc(NODE_IO_MAX);
    return c ? c->buffer : NULL;
}

static void on_close(void *ctx, struct service_conn *conn)
{
    struct connection *c = service_data(conn);

    (void)ctx;
    if (c)
        free(c->buffer);
    free(c);
    service_set_data(conn, NULL);
}

/* Nothing is done without the centre's word for it. */
static int take_ticket(struct serve *v, struct service_conn *conn, const Star__Ticket *in,
                       struct ticket *out)
{
    struct connection *c = conn_own(conn);
    uint8_t bytes[TICKET_BYTES];
    int rc = get_ticket(in, out);

    if (rc == 0 && !c)
        rc = -ENOMEM;
    if (rc < 0)
        return rc;
    if (in->mac.len != TICKET_MAC_SIZE)
        return -EKEYREJECTED;
    ticket_bytes(in, bytes);
    struct seen *s = &c->seen[in->ino % SEEN_TICKETS];
    if (s->until == 0 || memcmp(s->bytes, bytes, sizeof(bytes)) != 0 ||
        memcmp(s->mac, in->mac.data, sizeof(s->mac)) != 0) {
        int64_t until = 0;
        rc = link_ticket(v->link, in, &until);
        if (rc < 0)
            return rc;
        memcpy(s->bytes, bytes, sizeof(bytes));
        memcpy(s->mac, in->mac.data, sizeof(s->mac));
        s->until = until;
    }
    return clock_boot_ms() < s->until ? 0 : -EKEYEXPIRED;
}

static void do_read(struct serve *v, struct service_conn *conn, const struct message *m,
                    const Star__Read *read)
{
    Star__ReadReply reply = STAR__READ_REPLY__INIT;
    char detail[NODE_DETAIL] = "";
    struct store_reading r;
    struct wire_attrs wire;
    struct ticket t;
    uint8_t *buffer = conn_buffer(conn);
    int rc = buffer ? take_ticket(v, conn, read->ticket, &t) : -ENOMEM;

    if (rc == 0)
        rc = store_read(v->store, &t, read->offset, read->length, buffer, &r, detail);
    if (rc == 0 && link_fenced(v->link)) {
        store_read_done(v->store, &r);
        rc = -ESTALE;
    }
    if (rc < 0) {
        refuse(conn, m, rc, detail);
        return;
    }
    put_attrs(&wire, &r.attrs, store_node(v->store));
    reply.attrs = &wire.attrs;
    if (r.fd >= 0) {
        (void)service_reply_file(conn, m, &reply.base, r.fd, (off_t)r.offset, r.length);
    } else {
        struct iovec iov = {.iov_base = r.data, .iov_len = r.length};
        (void)service_reply(conn, m, 0, &reply.base, &iov, r.length > 0 ? 1 : 0);
    }
    store_read_done(v->store, &r);
}

/* Who asked has given up by then, and may have done something else: a change must not come late. */
static int in_time(uint64_t not_after)
{
    return not_after != 0 && (uint64_t)clock_boot_ms() > not_after ? -ETIMEDOUT : 0;
}

static void do_write(struct serve *v, struct service_conn *conn, const struct message *m,
                     const Star__Write *write)
{
    uint64_t placed = 0;
    struct attrs attrs;
    struct ticket t;
    int rc = take_ticket(v, conn, write->ticket, &t);

    if (rc == 0)
        rc = in_time(write->not_after);
    if (rc == 0 && write->append && write->placed)
        rc = store_append(v->store, &t, write->offset, write->again, get_time(write->now),
                          m->payload, m->payload_len, &attrs, &placed);
    else if (rc == 0)
        rc = store_write(v->store, &t, write->offset, write->append, get_time(write->now),
                         m->payload, m->payload_len, &attrs, &placed);
    answer_write(v, conn, m, rc, &attrs, placed, m->payload_len);
}

static void do_fsync(struct serve *v, struct service_conn *conn, const struct message *m,
                     const Star__Fsync *fsync)
{
    struct attrs attrs;
    struct ticket t;
    int rc = take_ticket(v, conn, fsync->ticket, &t);

    if (rc == 0 && fsync->instance != 0 && fsync->instance != store_instance(v->store)) {
        (void)service_error(conn, m, -EIO,
                            "the node's machine went down since these writes: instance %" PRIx64,
                            store_instance(v->store));
        return;
    }
    if (rc == 0)
        rc = store_fsync(v->store, &t, &attrs);
    answer_write(v, conn, m, rc, &attrs, 0, 0);
}

static void do_fallocate(struct serve *v, struct service_conn *conn, const struct message *m,
                         const Star__Fallocate *f)
{
    uint64_t done = 0;
    struct attrs attrs;
    struct ticket t;
    int rc = take_ticket(v, conn, f->ticket, &t);

    if (rc == 0)
        rc = in_time(f->not_after);
    if (rc == 0)
        rc = store_fallocate(v->store, &t, f->mode, f->offset, f->length, get_time(f->now), &attrs,
                             &done);
    answer_write(v, conn, m, rc, &attrs, f->offset, done);
}

static void do_seek(struct serve *v, struct service_conn *conn, const struct message *m,
                    const Star__Seek *seek)
{
    Star__SeekReply reply = STAR__SEEK_REPLY__INIT;
    struct ticket t;
    int rc = take_ticket(v, conn, seek->ticket, &t);

    if (rc == 0)
        rc = store_seek(v->store, &t, seek->offset, seek->hole, &reply.offset);
    if (rc < 0)
        refuse(conn, m, rc, NULL);
    else
        answer(conn, m, 0, &reply.base);
}

static void do_copy(struct serve *v, struct service_conn *conn, const struct message *m,
                    const Star__CopyRange *c)
{
    char detail[NODE_DETAIL] = "";
    struct attrs attrs = {0};
    struct ticket from, to = {0};
    uint64_t copied = 0;
    int rc = take_ticket(v, conn, c->from, &from);

    if (rc == 0)
        rc = take_ticket(v, conn, c->to, &to);
    if (rc == 0)
        rc = in_time(c->not_after);
    if (rc == 0)
        rc = store_copy_range(v->store, &from, c->from_offset, &to, c->to_offset, c->length,
                              get_time(c->now), &attrs, &copied, detail);
    answer_write(v, conn, m, rc, &attrs, c->to_offset, copied);
}

static const ProtobufCMessageDescriptor *body_of(uint16_t type)
{
    switch (type) {
    case STAR__MSG_TYPE__HELLO:
        return &star__hello__descriptor;
    case STAR__MSG_TYPE__READ:
        return &star__read__descriptor;
    case STAR__MSG_TYPE__WRITE:
        return &star__write__descriptor;
    case STAR__MSG_TYPE__FSYNC:
        return &star__fsync__descriptor;
    case STAR__MSG_TYPE__FALLOCATE:
        return &star__fallocate__descriptor;
    case STAR__MSG_TYPE__SEEK:
        return &star__seek__descriptor;
    case STAR__MSG_TYPE__COPY_RANGE:
        return &star__copy_range__descriptor;
    default:
        return NULL;
    }
}

static void dispatch(struct serve *v, struct service_conn *conn, const struct message *m,
                     const ProtobufCMessage *body)
{
    switch (m->type) {
    case STAR__MSG_TYPE__HELLO:
        do_hello(v, conn, m, (const Star__Hello *)body);
        break;
    case STAR__MSG_TYPE__READ:
        do_read(v, conn, m, (const Star__Read *)body);
        break;
    case STAR__MSG_TYPE__WRITE:
        do_write(v, conn, m, (const Star__Write *)body);
        break;
    case STAR__MSG_TYPE__FSYNC:
        do_fsync(v, conn, m, (const Star__Fsync *)body);
        break;
    case STAR__MSG_TYPE__FALLOCATE:
        do_fallocate(v, conn, m, (const Star__Fallocate *)body);
        break;
    case STAR__MSG_TYPE__SEEK:
        do_seek(v, conn, m, (const Star__Seek *)body);
        break;
    default:
        do_copy(v, conn, m, (const Star__CopyRange *)body);
    }
}

static void on_request(void *ctx, struct service_conn *conn, const struct message *m)
{
    const ProtobufCMessageDescriptor *type = body_of(m->type);
    ProtobufCMessage *body;

    if (!type) {
        refuse(conn, m, -EOPNOTSUPP, NULL);
        return;
    }
    if (m->type != STAR__MSG_TYPE__HELLO && link_fenced(((struct serve *)ctx)->link)) {
        refuse(conn, m, -ESTALE, "this node has not heard the centre for too long to serve");
        return;
    }
    body = frame_unpack(m, type);
    if (!body) {
        refuse(conn, m, -EPROTO, "the message cannot be read");
        return;
    }
    dispatch(ctx, conn, m, body);
    protobuf_c_message_free_unpacked(body, NULL);
}

static void on_refused(void *ctx, const char *detail)
{
    (void)ctx;
    log_warning("%s", detail);
}

int serve_start(const char *address, const struct identity *identity, struct link *l,
                struct store *s, struct serve **out)
{
    struct service_ops ops = {.on_request = on_request,
                              .on_close = on_close,
                              .identity = identity,
                              .on_refused = on_refused};
    struct serve *v = calloc(1, sizeof(*v));

    if (!v)
        return -ENOMEM;
    v->store = s;
    v->link = l;
    snprintf(v->cloud, sizeof(v->cloud), "%s", link_cloud(l));
    int rc = service_start(address, "node", &ops, v, &v->service);
    if (rc < 0)
        free(v);
    else
        *out = v;
    return rc;
}

void serve_stop(struct serve *v)
{
    if (!v)
        return;
    service_stop(v->service);
    free(v);
}
