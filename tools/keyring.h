/*
 * The keys of a sealed cloud: ROOT/identity/cloud.keys, for root alone. Whoever has this file can
 * read the pool. "key GENERATION HEX" lines; the newest generation seals what is written from now
 * on, the others open what was sealed before.
 */
#ifndef UMBEL_TOOLS_KEYRING_H
#define UMBEL_TOOLS_KEYRING_H

#include <limits.h>
#include <stdint.h>
#include <time.h>

#include "control/control.h"
#include "nodecache/pool/pool.h"
#include "tools/conf.h"

#define KEYRING_NAME "identity/cloud.keys"
#define KEYRING_MAX  64 /* generations: a change of the key each month for five years */
#define KEYRING_SALT 32

struct keyring {
    char path[PATH_MAX];
    uint32_t count;                    /* generations 1 to count */
    struct pool_key keys[KEYRING_MAX]; /* [i] is of generation i + 1 */
    struct timespec changed;           /* of the file, when it was read */
    uint64_t file;
};

/* All: 0 or -errno, then with a line in detail. Keys are wiped by keyring_wipe(). */

/* -EPERM: others than root could have read it, or it belongs to somebody else; -EBADMSG. */
int keyring_read(struct keyring *k, const char *path, char detail[CONF_DETAIL]);
int keyring_write(struct keyring *k, char detail[CONF_DETAIL]);
/* A new random key of the next generation. -ENOSPC: no more generations. */
int keyring_add(struct keyring *k, char detail[CONF_DETAIL]);
void keyring_wipe(struct keyring *k);

/* NULL: no such generation. */
const struct pool_key *keyring_key(const struct keyring *k, uint32_t generation);

/* What a control process asks. The file is read again when it has changed. k must stay. */
struct control_keys keyring_control(struct keyring *k);

#endif
