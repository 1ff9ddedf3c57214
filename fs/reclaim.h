/* What the mount has open, told to a centre that may have forgotten it. */
#ifndef UMBEL_FS_RECLAIM_H
#define UMBEL_FS_RECLAIM_H

#include "fs/worker.h"

/* In on_connect, after a resumed HELLO: drops every lease, names opens and locks. RECLAIM with done
 * follows by itself when the kernel has forgotten everything. */
int reclaim(struct worker *w, struct client *client);
/* The session is lost: nothing is open any more. */
void reclaim_nothing(struct worker *w);

#endif
