/*
 * The driver `local`: a node is one more process on this machine, with a store and a capacity of
 * its own. Nobody's child: it outlives the centre, and the next one finds it by its lock file.
 *
 *   STORES/NAME/          its store: the program makes what is in it
 *   RUN/NAME.lock         held by the process from before it is executed until it ends (hv_held.h)
 *   RUN/NAME.said         what it said of its start: "ready", or "error: TEXT"
 *   RUN/NAME.{pid,sock}   the program's own
 *   LOGS/NAME.log         its standard output and error; that of the last one that went is kept as
 *                         LOGS/ended-node.log
 */
#ifndef UMBEL_HV_LOCAL_H
#define UMBEL_HV_LOCAL_H

#include "hv/hv.h"

/* All strings must outlive the driver. */
struct hv_local_options {
    const char *program;
    /* argv from [0] on, ended by NULL; "--name NAME --capacity BYTES --ready-fd N" is added. */
    const char *const *args;
    const char *stores, *run, *logs; /* absolute paths of folders */
    const char *identities; /* folder of a folder for each node, which goes with it; NULL: none */
    const char *prefix;     /* of all names; a number follows */
    const char *gone_file;  /* in a store: its node has left the cloud */
    /* Bytes that a store may take, at most, instead of what the spec says: asked at each start, in
     * hv's thread, since it may have changed. NULL: as the spec says. */
    uint64_t (*capacity)(const void *arg);
    const void *capacity_arg;
    uint64_t capacity_min; /* a node that would get less is not started: -ENOSPC */
    const char *why_not;   /* no node can be had, for this reason; NULL: they can */
};

extern const struct hv_driver hv_local;

/* self of hv_local, and what it looks at to be cancelled. -ENOMEM. */
int hv_local_open(const struct hv_local_options *options, void **self, atomic_bool **cancel);

#endif
