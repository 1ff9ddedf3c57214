/* What recovery.c and recovery_wrap.c share. */
#ifndef UMBEL_POOL_RECOVERY_INTERNAL_H
#define UMBEL_POOL_RECOVERY_INTERNAL_H

#include <openssl/types.h>

#include "nodecache/pool/recovery.h"

/* HKDF-SHA256. */
int recovery_derive(const void *from, size_t from_len, const void *salt, size_t salt_len,
                    const void *info, size_t info_len, uint8_t out[RECOVERY_HALF]);
/* The recovery key's X25519 pair; EVP_PKEY_free(). */
int recovery_pair(const struct recovery_key *k, EVP_PKEY **pair);
int recovery_public_half(EVP_PKEY *pair, uint8_t out[RECOVERY_HALF]);

#endif
