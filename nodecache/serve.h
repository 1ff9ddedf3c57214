/*
 * What a node does for mounts: HELLO, READ, WRITE, FSYNC, FALLOCATE, SEEK, COPY_RANGE, over the
 * wire's service.
 *
 * A request runs in its connection's thread. WRITE goes from the receive buffer to the flat file, a
 * READ of what is present from the flat file to the socket. Each connection has one buffer of
 * NODE_IO_MAX bytes, made at the first use.
 */
#ifndef UMBEL_NODE_SERVE_H
#define UMBEL_NODE_SERVE_H

#include "nodecache/store.h"

struct identity;
struct link;
struct serve;

/* identity: for a tcp: address. l: says whether this node may serve at all, and which cloud it is
 * of. */
int serve_start(const char *address, const struct identity *identity, struct link *l,
                struct store *s, struct serve **out);
void serve_stop(struct serve *v);

#endif
