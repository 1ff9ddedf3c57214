/* Requests as they arrive: who may ask what, unpacking, and to whom they go. */
#include "control/centre.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct route {
    const ProtobufCMessageDescriptor *body;
    op_fn serve;
    unsigned who;  /* bits of roles */
    bool any_time; /* also in the grace period */
};

#define BIT(role) (1u << (role))
#define MOUNTS    BIT(STAR__ROLE__MOUNT)
#define NODES     BIT(STAR__ROLE__NODE)
#define ROUTE(type, message, fn, roles, early)                                                     \
    [STAR__MSG_TYPE__##type] = {&star__##message##__descriptor, fn, roles, early}

static const struct route routes[] = {
    ROUTE(LOOKUP, lookup, serve_lookup, MOUNTS, false),
    ROUTE(GETATTR, inode, serve_getattr, MOUNTS, false),
    ROUTE(SETATTR, set_attr, serve_setattr, MOUNTS, false),
    ROUTE(READLINK, inode, serve_readlink, MOUNTS, false),
    ROUTE(MKNOD, make, serve_make, MOUNTS, false),
    ROUTE(MKDIR, make, serve_make, MOUNTS, false),
    ROUTE(SYMLINK, make, serve_make, MOUNTS, false),
    ROUTE(CREATE, make, serve_make, MOUNTS, false),
    ROUTE(LINK, link, serve_link, MOUNTS, false),
    ROUTE(UNLINK, remove, serve_remove, MOUNTS, false),
    ROUTE(RMDIR, remove, serve_remove, MOUNTS, false),
    ROUTE(RENAME, rename, serve_rename, MOUNTS, false),
    ROUTE(OPEN, open, serve_open, MOUNTS, false),
    ROUTE(RELEASE, release, serve_release, MOUNTS, false),
    ROUTE(READDIR, read_dir, serve_readdir, MOUNTS, false),
    ROUTE(GETXATTR, xattr, serve_xattr_get, MOUNTS, false),
    ROUTE(SETXATTR, xattr, serve_xattr_change, MOUNTS, false),
    ROUTE(LISTXATTR, inode, serve_xattr_list, MOUNTS, false),
    ROUTE(REMOVEXATTR, xattr, serve_xattr_change, MOUNTS, false),
    ROUTE(STATFS, inode, serve_statfs, MOUNTS, true),
    ROUTE(SYNC_ATTRS, home_attrs, serve_sync_attrs, MOUNTS, false),
    ROUTE(SETLK, lock, serve_setlk, MOUNTS, false),
    ROUTE(GETLK, lock, serve_getlk, MOUNTS, false),
    ROUTE(CANCEL_LOCK, cancel_lock, serve_cancel_lock, MOUNTS, false),
    ROUTE(INVALIDATE, invalidate, serve_invalidate, MOUNTS, false),
    ROUTE(LOCATE, inode, serve_locate, MOUNTS, false),
    ROUTE(STRAIGHT_BEGIN, straight, serve_straight_begin, MOUNTS, false),
    ROUTE(STRAIGHT_PACKS, straight_packs, serve_straight_packs, MOUNTS, true),
    ROUTE(STRAIGHT_CONFIRM, straight_confirm, serve_straight_confirm, MOUNTS, true),
    ROUTE(DAMAGE, damage, serve_damage, MOUNTS, true),
    ROUTE(CTL_LOOKUP, ctl_lookup, serve_ctl_lookup, MOUNTS, true),
    ROUTE(CTL_READDIR, read_dir, serve_ctl_readdir, MOUNTS, true),
    ROUTE(CTL_READ, inode, serve_ctl_read, MOUNTS, true),
    ROUTE(CTL_WRITE, ctl_write, serve_ctl_write, MOUNTS, false),
    ROUTE(CTL_RMDIR, ctl_lookup, serve_ctl_rmdir, MOUNTS, false),
    ROUTE(JOB_REPORT, job_report, serve_job_report, NODES, true),
    ROUTE(NODE_REPORT, node_report, serve_node_report, NODES, true),
    ROUTE(NODE_ATTRS, node_attrs, serve_node_attrs, NODES, true),
    ROUTE(HOMED, homed, serve_homed, NODES, true),
    ROUTE(MAP, map_request, serve_map, NODES | MOUNTS, true),
    ROUTE(ALLOC_PACKS, alloc_packs, serve_node_log, NODES, true),
    ROUTE(CONFIRM, confirm, serve_node_log, NODES, true),
    ROUTE(META_FETCH, meta_fetch, serve_meta_fetch, NODES, true),
    ROUTE(META_STORED, meta_stored, serve_node_log, NODES, true),
    ROUTE(MOVED, moved, serve_node_log, NODES, true),
    ROUTE(DISCARD_PACK, pack_ref, serve_node_log, NODES, true),
    ROUTE(COPIES, copies, serve_node_log, NODES, true),
    ROUTE(DELETED_PACKS, pack_refs, serve_node_log, NODES, true),
};

static const struct route *route_of(uint16_t type)
{
    return type < sizeof(routes) / sizeof(routes[0]) && routes[type].serve ? &routes[type] : NULL;
}

/* Again, after it was parked or has waited for a name. */
static void start_op(struct op *op)
{
    if (op->session && op->session->gone)
        op_error(op, -ESTALE, "the session has expired");
    else
        route_of(op->request.type)->serve(op);
}

/* GETATTR and LOOKUP of the control tree come as such: the mount need not know which tree an inode
 * is of. */
static bool answer_ctl_attr(struct op *op)
{
    Star__AttrReply r = STAR__ATTR_REPLY__INIT;
    Star__Attr attr;
    Star__Time times[3];

    if (op->request.type != STAR__MSG_TYPE__GETATTR || !ctl_is_ino(((Star__Inode *)op->body)->ino))
        return false;
    int rc = ctl_attr(op->c, ((Star__Inode *)op->body)->ino, &attr, times);
    r.attr = &attr;
    op_reply(op, rc, &r.base);
    return true;
}

static int keep_payload(struct op *op, const struct message *m)
{
    if (m->type != STAR__MSG_TYPE__CTL_WRITE)
        return 0;
    if (m->payload_len > ctl_text_max(((Star__CtlWrite *)op->body)->ino))
        return -E2BIG;
    char *text = malloc(m->payload_len + 1);
    if (!text)
        return -ENOMEM;
    memcpy(text, m->payload, m->payload_len);
    text[m->payload_len] = '\0';
    op->data = text;
    return 0;
}

static void run(struct centre *c, struct peer *p, const struct message *m, struct link *link)
{
    const struct route *r = route_of(m->type);

    if (!r) {
        peer_error(p, m, -EOPNOTSUPP, "the centre does not know this request");
        return;
    }
    if (!(r->who & BIT(link->role)) || (link->role == STAR__ROLE__MOUNT && !link->session)) {
        peer_error(p, m, -EPERM, "say HELLO first, and ask only what your role may ask");
        return;
    }
    ProtobufCMessage *body = frame_unpack(m, r->body);
    if (!body) {
        peer_error(p, m, -EINVAL, "the request's body is not valid");
        return;
    }
    struct op *op = op_new(c, link->session, p, m, body);
    if (!op) {
        protobuf_c_message_free_unpacked(body, NULL);
        peer_error(p, m, -ENOMEM, "no memory");
        return;
    }
    op->start = start_op;
    rights_map(op);
    int rc = keep_payload(op, m);
    if (rc < 0)
        op_reply(op, rc, NULL);
    else if (answer_ctl_attr(op))
        ;
    else if (!c->serving && !r->any_time)
        op_park(op);
    else
        r->serve(op);
}

static void hello(struct centre *c, struct peer *p, const struct message *m, struct link *link)
{
    if (link->hello) {
        peer_error(p, m, -EINVAL, "HELLO is said once on each connection");
        return;
    }
    Star__Hello *h = (Star__Hello *)frame_unpack(m, &star__hello__descriptor);

    if (!h) {
        peer_error(p, m, -EINVAL, "HELLO is not valid");
        return;
    }
    if (h->protocol != PROTOCOL_VERSION)
        peer_error(p, m, -EPROTONOSUPPORT,
                   "this centre speaks protocol %u, you speak %u: bring both to one version",
                   PROTOCOL_VERSION, h->protocol);
    else if (h->cloud[0] && strcmp(h->cloud, c->options->cloud) != 0)
        peer_error(p, m, -EXDEV, "this is cloud %s, not %s", c->options->cloud, h->cloud);
    else if (!identity_fits(c, p, m, h))
        ;
    else if (!c->leading)
        peer_error(p, m, -EAGAIN, "this control process does not lead yet");
    else if (h->role != STAR__ROLE__MOUNT && h->role != STAR__ROLE__NODE)
        peer_error(p, m, -EINVAL, "HELLO names no role that the centre serves");
    else {
        link->hello = true;
        (h->role == STAR__ROLE__MOUNT ? session_hello : node_hello)(c, p, m, h);
        return;
    }
    star__hello__free_unpacked(h, NULL);
}

static void return_leases(struct centre *c, struct session *s, const struct message *m)
{
    Star__ReturnLeases *r = (Star__ReturnLeases *)frame_unpack(m, &star__return_leases__descriptor);

    for (size_t k = 0; r && k < r->n_ino; k++) {
        struct live *l = live_find(c, r->ino[k]);
        struct holder *h = l ? holder_find(l, s) : NULL;
        if (!h)
            continue;
        h->lease = STAR__LEASE__LEASE_NONE;
        holder_drop_if_idle(c, h);
    }
    if (r)
        star__return_leases__free_unpacked(r, NULL);
    peer_reply(s->peer, m, r ? 0 : -EINVAL, NULL, NULL, 0);
}

static void session_request(struct centre *c, struct peer *p, const struct message *m,
                            struct session *s)
{
    if (m->type == STAR__MSG_TYPE__RETURN_LEASES) {
        return_leases(c, s, m);
    } else if (m->type == STAR__MSG_TYPE__BYE) {
        session_bye(c, s, p, m);
    } else if (m->type == STAR__MSG_TYPE__RENEW) {
        Star__Renew *r = (Star__Renew *)frame_unpack(m, &star__renew__descriptor);
        if (!r) {
            peer_error(p, m, -EINVAL, "RENEW is not valid");
            return;
        }
        session_renew(c, s, p, m, r);
        star__renew__free_unpacked(r, NULL);
    } else {
        Star__Reclaim *r = (Star__Reclaim *)frame_unpack(m, &star__reclaim__descriptor);
        if (!r) {
            peer_error(p, m, -EINVAL, "RECLAIM is not valid");
            return;
        }
        session_reclaim(c, s, p, m, r);
        star__reclaim__free_unpacked(r, NULL);
    }
}

void centre_request(void *ctx, struct peer *p, const struct message *m)
{
    struct centre *c = ctx;
    struct link *link = peer_data(p);

    c->requests++;
    if (peer_identity(p)->tls && peer_identity(p)->who.role == IDENTITY_NONE) {
        join_request(c, p, m);
        return;
    }
    if (!link) {
        link = calloc(1, sizeof(*link));
        if (!link) {
            peer_error(p, m, -ENOMEM, "no memory");
            return;
        }
        peer_set_data(p, link);
    }
    switch (m->type) {
    case STAR__MSG_TYPE__HELLO:
        hello(c, p, m, link);
        break;
    case STAR__MSG_TYPE__RENEW:
    case STAR__MSG_TYPE__RECLAIM:
    case STAR__MSG_TYPE__BYE:
    case STAR__MSG_TYPE__RETURN_LEASES:
        if (link->session)
            session_request(c, p, m, link->session);
        else if (m->kind == FRAME_REQUEST)
            peer_error(p, m, -EPERM, "say HELLO first");
        break;
    default:
        run(c, p, m, link);
    }
}
