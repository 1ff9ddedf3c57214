/* What run_cgroup.c and run_cgroup_node.c share. */
#ifndef UMBEL_NODE_RUN_CGROUP_PRIVATE_H
#define UMBEL_NODE_RUN_CGROUP_PRIVATE_H

#include "nodecache/run_cgroup.h"

/* Trees apart in v1; one in v2, which the first of them stands for. */
bool run_cgroup_has_tree(const struct run_cgroups *c, enum run_controller k);
/* The path of a file of a group; name NULL: the node's own; file NULL: the group itself. */
int run_cgroup_path(const struct run_cgroups *c, enum run_controller k, const char *name,
                    const char *file, char out[PATH_MAX]);
/* Makes the node's group, with what v2 needs above it, and holds it. */
int run_cgroups_make_node(struct run_cgroups *c, char detail[RUN_DETAIL]);

#endif
