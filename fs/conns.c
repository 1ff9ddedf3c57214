#include "fs/conns.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"

/* Time for HELLO on a fresh connection. */
#define HELLO_MS 5000

struct node;

struct connection {
    struct node *node;
    struct client *client;
    atomic_bool up;
    int failed; /* of the client's thread */
};

struct node {
    struct conns *all;
    char *address;
    struct connection connections[NODE_CONNECTIONS_MAX];
    unsigned count;
    UT_hash_handle hh;
};

struct conns {
    pthread_mutex_t lock;
    struct node *nodes; /* never removed before the end */
    char *name, *cloud;
    const struct identity *identity;
};

static int on_connect(void *ctx, struct client *client)
{
    struct connection *c = ctx;
    Star__Hello hello = STAR__HELLO__INIT;
    char detail[256] = "";

    hello.protocol = PROTOCOL_VERSION;
    hello.role = STAR__ROLE__MOUNT;
    hello.name = c->node->all->name;
    hello.cloud = c->node->all->cloud;
    int rc =
        client_handshake(client, STAR__MSG_TYPE__HELLO, &hello.base, HELLO_MS, NULL, NULL, detail);
    if (rc < 0)
        log_warning("node at %s refuses us: %s%s%s", c->node->address, strerror(-rc),
                    detail[0] ? ": " : "", detail);
    else
        atomic_store(&c->up, true);
    return rc;
}

static void on_disconnect(void *ctx, struct client *client)
{
    struct connection *c = ctx;

    (void)client;
    atomic_store(&c->up, false);
}

/* One side refused the other; the rest is told by the calls that end. */
static void on_fail(void *ctx, struct client *client, int err, const char *detail)
{
    struct connection *c = ctx;

    (void)client;
    if ((err == -EACCES || err == -EPROTO) && err != c->failed)
        log_warning("%s", detail);
    c->failed = err;
}

int conns_start(const char *name, const char *cloud, const struct identity *identity,
                struct conns **out)
{
    struct conns *n = calloc(1, sizeof(*n));

    if (!n)
        return -ENOMEM;
    n->identity = identity;
    /* Nodes on other machines know us by our certificate. */
    n->name = strdup(identity ? identity_self(identity)->name : name);
    n->cloud = strdup(cloud);
    if (!n->name || !n->cloud) {
        free(n->name);
        free(n->cloud);
        free(n);
        return -ENOMEM;
    }
    pthread_mutex_init(&n->lock, NULL);
    *out = n;
    return 0;
}

void conns_stop(struct conns *n)
{
    struct node *node, *tmp;

    if (!n)
        return;
    HASH_ITER (hh, n->nodes, node, tmp) {
        for (unsigned k = 0; k < node->count; k++)
            client_stop(node->connections[k].client);
        HASH_DEL(n->nodes, node);
        free(node->address);
        free(node);
    }
    pthread_mutex_destroy(&n->lock);
    free(n->name);
    free(n->cloud);
    free(n);
}

static struct node *node_get(struct conns *n, const char *address, int *rc)
{
    struct node *node;

    HASH_FIND_STR(n->nodes, address, node);
    if (node)
        return node;
    if (HASH_COUNT(n->nodes) >= NODES_MAX) {
        *rc = -EMFILE;
        return NULL;
    }
    node = calloc(1, sizeof(*node));
    if (node)
        node->address = strdup(address);
    if (!node || !node->address) {
        free(node);
        *rc = -ENOMEM;
        return NULL;
    }
    node->all = n;
    HASH_ADD_KEYPTR(hh, n->nodes, node->address, strlen(node->address), node);
    return node;
}

static int add_connection(struct node *node, struct connection **out)
{
    const struct client_ops ops = {.on_connect = on_connect,
                                   .on_disconnect = on_disconnect,
                                   .on_fail = on_fail,
                                   .identity = node->all->identity,
                                   .expect = IDENTITY_NODE};
    struct connection *c = &node->connections[node->count];
    char name[32];

    snprintf(name, sizeof(name), "node-data-%u", node->count + 1);
    c->node = node;
    int rc = client_start(node->address, name, &ops, c, &c->client);
    if (rc < 0)
        return rc;
    node->count++;
    *out = c;
    return 0;
}

/* The connection with the fewest requests; of those that stand, if any does. */
static struct connection *fewest_requests(struct node *node, bool up, unsigned *fewest)
{
    struct connection *best = NULL;

    *fewest = UINT32_MAX;
    for (unsigned k = 0; k<node->count && * fewest> 0; k++) {
        struct connection *c = &node->connections[k];
        unsigned n = up && !atomic_load(&c->up) ? UINT32_MAX : client_inflight(c->client);
        if (n < *fewest) {
            *fewest = n;
            best = c;
        }
    }
    return best;
}

/* With the lock held. One more connection is opened when all are busy; the request does not wait
 * for it. */
static int choose(struct node *node, bool *up, struct connection **out)
{
    struct connection *fresh = NULL;
    unsigned fewest;
    int rc = 0;

    *out = fewest_requests(node, true, &fewest);
    *up = *out != NULL;
    if (!*out)
        *out = fewest_requests(node, false, &fewest);
    if (node->count == 0 || (*up && fewest > 0 && node->count < NODE_CONNECTIONS_MAX))
        rc = add_connection(node, &fresh);
    if (!*out)
        *out = fresh;
    return *out ? 0 : rc;
}

void conns_warm(struct conns *n, const char *address)
{
    struct connection *fresh;
    int rc = 0;

    pthread_mutex_lock(&n->lock);
    struct node *node = node_get(n, address, &rc);
    if (node && node->count == 0)
        rc = add_connection(node, &fresh);
    pthread_mutex_unlock(&n->lock);
    if (rc < 0)
        log_warning("no connection to the node at %s: %s", address, strerror(-rc));
}

int conns_call(struct conns *n, const char *address, uint16_t type, const ProtobufCMessage *body,
               const struct iovec *payload, int payload_n, int deadline_ms, int away_ms,
               client_reply_fn fn, void *arg)
{
    struct connection *c = NULL;
    bool up = false;
    int rc = 0;

    pthread_mutex_lock(&n->lock);
    struct node *node = node_get(n, address, &rc);
    if (node)
        rc = choose(node, &up, &c);
    pthread_mutex_unlock(&n->lock);
    if (rc < 0)
        return rc;
    if (!up && away_ms == 0)
        return -ENOTCONN;
    if (!up && away_ms < deadline_ms)
        deadline_ms = away_ms;
    return client_call(c->client, type, body, payload, payload_n, deadline_ms, 0, fn, arg, NULL);
}
