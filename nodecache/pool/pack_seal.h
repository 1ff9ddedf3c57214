/*
 * Sealing the pages of one run after the other: XXH3-128 (unsealed clouds), or AES-256-GCM under a
 * key of the run's own, nonce = page number. README.md says why no nonce repeats.
 *
 * A sealer is used by one thread at a time. It keeps one cipher context for all of its runs.
 */
#ifndef UMBEL_PACK_SEAL_H
#define UMBEL_PACK_SEAL_H

#include <openssl/evp.h>

#include "nodecache/pool/pack_format.h"

struct sealer {
    EVP_CIPHER_CTX *ctx; /* NULL: pages have checksums only */
    bool seals;          /* else it opens */
};

/* key: of the first run; NULL: checksums. -ENOMEM. */
int sealer_init(struct sealer *s, bool seals, const struct pool_key *key, char *detail);
/* The next run has this key. */
int sealer_key(struct sealer *s, const struct pool_key *key, char *detail);
/* The same, from the key of the pack. Nothing to do if there is no key. */
int sealer_run(struct sealer *s, const struct pool_key *pack, const struct run *run, char *detail);
void sealer_destroy(struct sealer *s); /* wipes */

/* Content of a page (run_page_length() bytes) to `out`, which has as many, with its seal. A header
 * stays as it is: its bytes are no secret. */
int page_seal(struct sealer *s, const struct run *run, uint32_t page, const void *content,
              void *out, uint8_t seal[POOL_SEAL], char *detail);
/* In place. -EBADMSG with the place in detail: what is in `bytes` then is not to be used. */
int page_open(struct sealer *s, const struct run *run, uint32_t page, void *bytes,
              const uint8_t seal[POOL_SEAL], char *detail);

#endif
