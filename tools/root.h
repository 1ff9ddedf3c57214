/*
 * The folder of a cloud: ROOT/{umbel.conf, identity, control-1, node-N, pool, log, run}.
 *
 * `up`, `down` and `mount` change what runs there under an flock of the folder itself, so that only
 * one of them does so at a time; daemons do not hold it.
 */
#ifndef UMBEL_TOOLS_ROOT_H
#define UMBEL_TOOLS_ROOT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/conf.h"
#include "tools/keyring.h"

#define ROOT_NAME_MAX 40
/* What mounts of this machine are called in their certificate. */
#define ROOT_MOUNT_IDENTITY "local"

struct root {
    char path[PATH_MAX];
    int lock; /* -1: not held */
    struct conf conf;
    bool created; /* by this root_create */
    bool resized; /* so is the capacity: nodes that run have the old one */
    char detail[CONF_DETAIL];
};

/* What `umbel up` was given; 0 or NULL: not said. */
struct root_wish {
    const char *pool, *listen;
    uint64_t nodes, controls, capacity;
    const char *seal;           /* "on", "off" */
    const struct keyring *keys; /* of a cloud that had them already */
    /* Shows the recovery key that was made: it is kept nowhere. -errno: nobody can have seen it. */
    int (*show_recovery)(const char *text);
};

/* All of these: 0 or -errno, and then a line for people in r->detail. */

/* The cloud in dir, which must exist. lock: as above (-EBUSY: another command holds it). */
int root_open(struct root *r, const char *dir, bool lock);

/* The same, but makes the cloud if dir is not there or empty, and brings umbel.conf to what is
 * wished. */
int root_create(struct root *r, const char *dir, const struct root_wish *wish);

void root_close(struct root *r);

/* ROOT/RELATIVE in out[PATH_MAX]; -ENAMETOOLONG. */
int root_path(const struct root *r, const char *relative, char *out);

/* Where other machines reach the centre (port_offset 0) or node-N (N), "tcp:HOST:PORT" in
 * out[PATH_MAX]. -ENOENT: the cloud listens for none. */
int root_listen(const struct root *r, unsigned port_offset, char *out);

/* Nodes that the centre starts when jobs need them: this and a number. */
#define ROOT_DEMAND_PREFIX "node-d"
#define ROOT_CONF_NAME     "umbel.conf"
bool root_is_on_demand(const char *name);

/* Such a node in a cloud that listens: a certificate of its own, made now if need be, and one of
 * the ports that the cloud's own nodes leave free. *wanted false: the cloud listens for none. 0 or
 * -errno, told in r->detail. */
int root_demand_listen(struct root *r, const char *name, char *out, bool *wanted);

/* "unix:ROOT/run/NAME.sock". */
int root_socket(const struct root *r, const char *name, char *out);

#endif
