/* Where people give the recovery key: a file or standard input, never the command line, which
 * others can see. */
#ifndef UMBEL_TOOLS_RECOVERY_READ_H
#define UMBEL_TOOLS_RECOVERY_READ_H

#include "nodecache/pool/recovery.h"

/* file NULL or "-": standard input, which is asked without an echo if it is a terminal. 0, or
 * -errno after a line on standard error. */
int recovery_read(const char *file, struct recovery_key *k);

#endif
