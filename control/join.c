/* Who comes from another machine: tokens, certificates for joiners, who says HELLO as whom, and by
 * which address a mount reaches a node. */
#include "control/centre.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/wire/log.h"

/* How long a token can be used, if nothing else is said; at most. */
#define TOKEN_LIFE_S     3600
#define TOKEN_LIFE_MAX_S (30 * 86400)

int identities_load(struct centre *c, char detail[256])
{
    const struct control_options *o = c->options;
    int rc = 0;

    if (o->listen_tcp)
        rc = identity_load(o->identity, o->cloud, &c->identity, detail);
    if (rc == 0 && o->listen_tcp && o->authority)
        rc = authority_open(o->authority, o->cloud, &c->authority, detail);
    return rc;
}

/* --- tokens --- */

struct asked {
    char identity[80], squash[48];
    uint64_t seconds;
};

/* "node|mount NAME [SECONDS] [SQUASH]" */
static int parse_token(char *text, struct asked *a)
{
    char *save = NULL, *end;
    const char *role = strtok_r(text, " \t", &save), *name = strtok_r(NULL, " \t", &save);
    const char *seconds = strtok_r(NULL, " \t", &save), *squash = strtok_r(NULL, " \t", &save);
    struct identity_name who;

    a->seconds = TOKEN_LIFE_S;
    if (!role || !name || strtok_r(NULL, " \t", &save) || !identity_name_ok(name) ||
        (strcmp(role, "node") != 0 && strcmp(role, "mount") != 0))
        return -EINVAL;
    if (seconds) {
        a->seconds = strtoull(seconds, &end, 10);
        if (*end || seconds[0] < '0' || seconds[0] > '9' || a->seconds == 0 ||
            a->seconds > TOKEN_LIFE_MAX_S)
            return -EINVAL;
    }
    if (squash && strcmp(role, "mount") != 0)
        return -EINVAL;
    snprintf(a->identity, sizeof(a->identity), "%s/%s", role, name);
    /* As exports of NFS have it: root there is nobody here, unless it is said otherwise. */
    if (identity_squash_parse(squash                       ? squash
                              : strcmp(role, "mount") == 0 ? "root_squash"
                                                           : "none",
                              &who) < 0)
        return -EINVAL;
    identity_squash_format(&who, a->squash);
    return 0;
}

static void on_token_logged(struct op *op, const struct state_result *r)
{
    Star__CtlReply reply = STAR__CTL_REPLY__INIT;
    char text[TOKEN_TEXT + 2];

    if (r->status < 0) {
        op_refuse(op, r);
        return;
    }
    snprintf(text, sizeof(text), "%s\n", (char *)op->data);
    reply.text = text;
    op_reply(op, 0, &reply.base);
}

static bool name_is_taken(struct centre *c, const char *identity)
{
    for (struct node *n = c->nodes; n; n = n->hh.next)
        if (strncmp(identity, "node/", 5) == 0 && strcmp(n->name, identity + 5) == 0)
            return true;
    return strncmp(identity, "node/", 5) == 0 && demand_owns_name(identity + 5);
}

void join_token(struct op *op, char *rest)
{
    struct centre *c = op->c;
    Star__LogToken body = STAR__LOG_TOKEN__INIT;
    uint8_t hash[TOKEN_HASH];
    struct asked a;
    struct token t;
    char *text;

    if (!c->authority) {
        op_error(op, -ENOTCONN,
                 "this cloud listens for no other machine: umbel up --listen HOST:PORT");
        return;
    }
    if (parse_token(rest, &a) < 0) {
        op_error(op, -EINVAL,
                 "token node|mount NAME [SECONDS (at most %d)] [none | root_squash[=UID:GID] | "
                 "all_squash=UID:GID] (of mounts)",
                 TOKEN_LIFE_MAX_S);
        return;
    }
    if (name_is_taken(c, a.identity)) {
        op_error(op, -EEXIST, "there is a %s already", a.identity);
        return;
    }
    free(op->data);
    op->data = text = malloc(TOKEN_TEXT);
    int rc = text ? token_make(c->authority, &t, text) : -ENOMEM;
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    token_hash(t.secret, hash);
    body.hash = (ProtobufCBinaryData){sizeof(hash), hash};
    body.identity = a.identity;
    body.squash = a.squash;
    body.expires = time(NULL) + (int64_t)a.seconds;
    op_submit_own(op, STAR__LOG_TYPE__LOG_TOKEN, &body.base, on_token_logged);
}

/* --- JOIN --- */

static int sign(struct centre *c, const Star__Join *q, const Star__LogToken *t,
                Star__JoinReply *reply, char detail[IDENTITY_DETAIL])
{
    struct identity_name who = {0};
    const char *slash = strchr(t->identity, '/');
    int rc = identity_squash_parse(t->squash[0] ? t->squash : "none", &who);

    who.role = strncmp(t->identity, "node/", 5) == 0 ? IDENTITY_NODE : IDENTITY_MOUNT;
    snprintf(who.name, sizeof(who.name), "%s", slash ? slash + 1 : "");
    if (rc == 0)
        rc = authority_sign(c->authority, q->request.data, q->request.len, &who, NULL,
                            reply->certificate.data, detail);
    if (rc < 0)
        return rc;
    reply->certificate.len = (size_t)rc;
    rc = authority_certificate(c->authority, reply->authority.data);
    if (rc < 0)
        return rc;
    reply->authority.len = (size_t)rc;
    return 0;
}

static void on_join_logged(struct op *op, const struct state_result *r)
{
    struct centre *c = op->c;
    Star__JoinReply reply = STAR__JOIN_REPLY__INIT;
    uint8_t cert[AUTHORITY_DER_MAX], ca[AUTHORITY_DER_MAX];
    char detail[IDENTITY_DETAIL] = "";

    if (r->status < 0) {
        events_add(&c->events, "join-refused", "%s", strerror(-r->status));
        op_refuse(op, r);
        return;
    }
    Star__LogToken *t = star__log_token__unpack(NULL, r->body_len, r->body);
    reply.certificate.data = cert;
    reply.authority.data = ca;
    int rc = t ? sign(c, (const Star__Join *)op->body, t, &reply, detail) : -ENOMEM;
    if (rc < 0) {
        op_error(op, rc, "%s", detail[0] ? detail : strerror(-rc));
    } else {
        events_add(&c->events, "join", "%s has a certificate now; its users: %s", t->identity,
                   t->squash[0] ? t->squash : "none");
        reply.cloud = (char *)(uintptr_t)c->options->cloud;
        reply.pool = (char *)(uintptr_t)c->options->pool;
        reply.identity = t->identity;
        op_reply(op, 0, &reply.base);
    }
    if (t)
        star__log_token__free_unpacked(t, NULL);
}

static void join(struct op *op)
{
    const Star__Join *q = (const Star__Join *)op->body;
    Star__LogJoin body = STAR__LOG_JOIN__INIT;
    uint8_t hash[TOKEN_HASH], key[SHA256_DIGEST_LENGTH], cert[AUTHORITY_DER_MAX];
    struct identity_name nobody = {.role = IDENTITY_MOUNT, .name = "x"};
    char detail[IDENTITY_DETAIL], identity[80];

    if (q->secret.len != TOKEN_SECRET || strlen(q->name) > 40) {
        op_error(op, -EINVAL, "this is no token");
        return;
    }
    /* A token is not used up by a request that cannot be signed. */
    int rc = authority_sign(op->c->authority, q->request.data, q->request.len, &nobody, NULL, cert,
                            detail);
    if (rc < 0) {
        op_error(op, rc, "%s", detail);
        return;
    }
    token_hash(q->secret.data, hash);
    SHA256(q->request.data, q->request.len, key);
    snprintf(identity, sizeof(identity), "%s%s",
             q->role == STAR__ROLE__NODE    ? "node/"
             : q->role == STAR__ROLE__MOUNT ? "mount/"
                                            : "",
             q->name);
    body.hash = (ProtobufCBinaryData){sizeof(hash), hash};
    body.key = (ProtobufCBinaryData){sizeof(key), key};
    body.identity = identity;
    op_submit_own(op, STAR__LOG_TYPE__LOG_JOIN, &body.base, on_join_logged);
}

void join_request(struct centre *c, struct peer *p, const struct message *m)
{
    if (m->type != STAR__MSG_TYPE__JOIN || m->kind != FRAME_REQUEST) {
        peer_error(p, m, -EPERM, "without a certificate you may only join: umbel join");
        return;
    }
    if (!c->leading || !c->authority) {
        peer_error(p, m, -EAGAIN, "this control process lets nobody join now");
        return;
    }
    ProtobufCMessage *body = frame_unpack(m, &star__join__descriptor);
    struct op *op = body ? op_new(c, NULL, p, m, body) : NULL;
    if (op) {
        join(op);
        return;
    }
    peer_error(p, m, body ? -ENOMEM : -EINVAL, "JOIN is not valid");
    if (body)
        protobuf_c_message_free_unpacked(body, NULL);
}

/* --- who is who --- */

bool identity_fits(struct centre *c, struct peer *p, const struct message *m,
                   const Star__Hello *hello)
{
    const struct identity_peer *id = peer_identity(p);
    char text[80];

    if (!id->tls)
        return true;
    enum identity_role role = hello->role == STAR__ROLE__NODE    ? IDENTITY_NODE
                              : hello->role == STAR__ROLE__MOUNT ? IDENTITY_MOUNT
                                                                 : IDENTITY_NONE;
    snprintf(text, sizeof(text), "%s/%s", identity_role_text(id->who.role), id->who.name);
    int revoked = state_revoked(c->state, text);
    if (revoked == 0 && id->who.role == role && strcmp(id->who.name, hello->name) == 0)
        return true;
    if (revoked < 0)
        peer_error(p, m, revoked, "it cannot be told whether you may come in");
    else if (revoked)
        peer_error(p, m, -EKEYREVOKED, "the certificate of %s was revoked", text);
    else
        peer_error(p, m, -EPERM, "your certificate says %s, you say %s/%.40s", text,
                   identity_role_text(role), hello->name);
    events_add(&c->events, "refused", "%s, which says that it is %.40s%s", text, hello->name,
               revoked > 0 ? ": revoked" : "");
    return false;
}

struct close_one {
    enum identity_role role;
    const char *name;
};

static void close_if(void *arg, struct peer *p)
{
    const struct close_one *o = arg;
    const struct identity_name *who = &peer_identity(p)->who;

    if (who->role == o->role && strcmp(who->name, o->name) == 0)
        peer_close(p);
}

static void close_connections(struct centre *c, const char *identity)
{
    const char *slash = strchr(identity, '/');
    struct close_one o = {.role =
                              strncmp(identity, "node/", 5) == 0 ? IDENTITY_NODE : IDENTITY_MOUNT,
                          .name = slash ? slash + 1 : ""};

    events_add(&c->events, "revoked", "%s", identity);
    if (c->hub_tcp)
        hub_each(c->hub_tcp, close_if, &o);
}

static void on_revoked(struct op *op, const struct state_result *r)
{
    if (r->status < 0) {
        op_refuse(op, r);
        return;
    }
    close_connections(op->c, op->data);
    op_reply(op, 0, NULL);
}

void join_revoke(struct op *op, const char *identity)
{
    Star__LogRevoke body = STAR__LOG_REVOKE__INIT;

    free(op->data);
    op->data = strdup(identity);
    if (!op->data) {
        op_reply(op, -ENOMEM, NULL);
        return;
    }
    body.identity = op->data;
    op_submit_own(op, STAR__LOG_TYPE__LOG_REVOKE, &body.base, on_revoked);
}

/* --- addresses --- */

/* Only who reaches us by our unix socket sees the files of this machine; a boot id would not tell
 * (containers share it). Nodes elsewhere announce no unix address. */
char *node_reached_by(const struct session *s, const struct node *n, char out[NODE_ADDRESS_MAX])
{
    bool local = s && s->peer && !peer_identity(s->peer)->tls;

    out[0] = '\0';
    if (!n || address_choose(n->address, local, out, ADDRESSES_MAX) < 0)
        return out;
    if (address_is_tcp(out)) {
        size_t at = strlen(out);
        snprintf(out + at, NODE_ADDRESS_MAX - at, "/node/%s", n->name);
    }
    return out;
}
