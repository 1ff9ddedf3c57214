/*
 * The folder of a machine that has joined a cloud elsewhere (`umbel join --dir DIR`):
 * DIR/{join.conf, identity/, run/, log/, store/}. `umbel node` and `umbel mount` find it by
 * --identity DIR.
 */
#ifndef UMBEL_TOOLS_JOINED_H
#define UMBEL_TOOLS_JOINED_H

#include <stdbool.h>

#include "control/wire/address.h"
#include "tools/root.h"

struct joined {
    struct root r;              /* of the folder: path and cloud only */
    char identity[PATH_MAX];    /* its folder */
    char centre[ADDRESSES_MAX]; /* "tcp:HOST:PORT" */
    char who[80];               /* "node/node-2" */
    const char *name;           /* in who */
};

/* Reads DIR. role: "node" or "mount", which it must have joined as. 0, or -errno with a line in
 * r.detail. */
int joined_read(struct joined *j, const char *dir, const char *role);
/* Writes join.conf. */
int joined_write(const struct joined *j, char detail[CONF_DETAIL]);

/* Whether the command line says --identity; then these are the commands. */
bool joined_is_asked(int argc, char **argv);
int joined_node(int argc, char **argv);
int joined_mount(int argc, char **argv);

#endif
