/*
 * The keys of a sealed cloud: ROOT/identity/cloud.keys, for root alone. Whoever has this file can
 * read the pool, also without the recovery key. Lines:
 *   key GENERATION HEX              from 1 on
 *   sealing GENERATION              which seals what is written from now on; the others open what
 * was sealed before. Behind the newest while the pool lacks that one recovery SERIAL STORED LOCK
 * what wraps for the recovery key (recovery.h), how often what is wrapped has changed, and which of
 * these the pool has
 */
#ifndef UMBEL_TOOLS_KEYRING_H
#define UMBEL_TOOLS_KEYRING_H

#include <limits.h>
#include <stdint.h>
#include <time.h>

#include "control/control.h"
#include "nodecache/pool/recovery.h"
#include "tools/conf.h"

#define KEYRING_NAME "identity/cloud.keys"
#define KEYRING_MAX  RECOVERY_KEYS_MAX /* a change of the key each month for five years */

struct keyring {
    char path[PATH_MAX];
    uint32_t count;                    /* generations 1 to count */
    char cloud[64];                    /* whose they are: set by the caller, for wrapping */
    struct pool_key keys[KEYRING_MAX]; /* [i] is of generation i + 1 */
    uint32_t sealing;
    uint32_t serial, stored; /* serial 0: there is no recovery key */
    struct recovery_lock lock;
    struct timespec changed; /* of the file, when it was read */
    uint64_t file;
};

/* All: 0 or -errno, then with a line in detail. Keys are wiped by keyring_wipe(). */

/* -EPERM: others than root could have read it, or it belongs to somebody else; -EBADMSG. */
int keyring_read(struct keyring *k, const char *path, char detail[CONF_DETAIL]);
int keyring_write(struct keyring *k, char detail[CONF_DETAIL]);
/* A new random key of the next generation. -ENOSPC: no more generations. */
int keyring_add(struct keyring *k, char detail[CONF_DETAIL]);
/* From now on it is this recovery key that the keys are wrapped for. */
void keyring_lock(struct keyring *k, const struct recovery_lock *lock);
/* All keys, wrapped. */
int keyring_wrap(const struct keyring *k, uint8_t out[RECOVERY_WRAP_MAX], size_t *len);
/* The pool has what was wrapped with that serial. */
void keyring_stored(struct keyring *k, uint32_t serial);
/* The keys as the pool has them (k->cloud is whose), all but k->path. -ENODATA: it has none; else
 * as recovery_unwrap(). The next change gets a serial above all that lie there. */
int keyring_recover(struct keyring *k, struct pool *p, const struct recovery_key *key,
                    char detail[CONF_DETAIL]);
void keyring_wipe(struct keyring *k);

/* NULL: no such generation. */
const struct pool_key *keyring_key(const struct keyring *k, uint32_t generation);

/* What a control process asks. The file is read again when it has changed. k must stay. */
struct control_keys keyring_control(struct keyring *k);

#endif
