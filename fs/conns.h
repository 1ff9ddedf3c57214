/*
 * Connections to nodes. A node serves one connection in one thread, so a mount opens as many as it
 * has requests in flight, up to NODE_CONNECTIONS_MAX; a request goes to one that is idle, else to
 * the one with the fewest.
 */
#ifndef UMBEL_FS_CONNS_H
#define UMBEL_FS_CONNS_H

#include <stdbool.h>
#include <stdint.h>

#include "control/wire/client.h"

#define NODE_CONNECTIONS_MAX 16
/* Addresses of nodes ever used; beyond: -EMFILE. */
#define NODES_MAX 1024

struct conns;

/* identity: for nodes on other machines; it must outlive the connections. */
int conns_start(const char *name, const char *cloud, const struct identity *identity,
                struct conns **out);
void conns_stop(struct conns *n); /* ends everything pending with -ESHUTDOWN */
/* Opens a connection to address if there is none yet. */
void conns_warm(struct conns *n, const char *address);
/* As client_call. away_ms: the deadline if no connection to that node stands; 0: then nothing is
 * sent, -ENOTCONN. A request that changes data must not wait here: it could be sent, time out, and
 * be done after the next attempt. */
int conns_call(struct conns *n, const char *address, uint16_t type, const ProtobufCMessage *body,
               const struct iovec *payload, int payload_n, int deadline_ms, int away_ms,
               client_reply_fn fn, void *arg);

#endif
