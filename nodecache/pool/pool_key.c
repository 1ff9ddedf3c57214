/* Keys of packs and of records, from the cloud's key: HKDF-SHA256 (RFC 5869). */
#include "nodecache/pool/pool_internal.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <protobuf-c/protobuf-c.h>

#define LABEL 16 /* bytes; so that no key of one kind can be one of another */

/* What a key is for: a label and two numbers. */
struct purpose {
    char label[LABEL];
    uint64_t first;
    uint32_t second;
} __attribute__((packed));

static int derive(const struct pool_key *from, int mode, struct purpose *purpose,
                  struct pool_key *out)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)from->bytes, POOL_KEY),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, purpose, sizeof *purpose),
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_end(),
    };
    struct pool_key key = {.generation = from->generation};
    int rc = ctx == NULL || EVP_KDF_derive(ctx, key.bytes, POOL_KEY, params) != 1 ? -ENOMEM : 0;

    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    if (rc == 0)
        *out = key;
    pool_key_wipe(&key);
    return rc;
}

int pool_pack_key(const struct pool_key *cloud, uint64_t pack, struct pool_key *out)
{
    struct purpose purpose = {
        .label = "umbel pack", .first = htole64(pack), .second = htole32(cloud->generation)};

    return derive(cloud, EVP_KDF_HKDF_MODE_EXTRACT_AND_EXPAND, &purpose, out);
}

int pool_run_key(const struct pool_key *pack, uint32_t kind, uint32_t number, struct pool_key *out)
{
    struct purpose purpose = {
        .label = "umbel run", .first = htole64(kind), .second = htole32(number)};

    /* A pack's key is uniform already. */
    return derive(pack, EVP_KDF_HKDF_MODE_EXPAND_ONLY, &purpose, out);
}

int pool_record_key(const struct pool_key *pack, uint32_t number, struct pool_key *out)
{
    return pool_run_key(pack, 0, number, out);
}

void pool_key_wipe(struct pool_key *key)
{
    OPENSSL_cleanse(key, sizeof *key);
}

int pool_key_take(struct pool_key *out, uint32_t generation, const void *bytes, size_t len)
{
    if (len != (generation != 0 ? POOL_KEY : 0u))
        return -EPROTO;
    *out = (struct pool_key){.generation = generation};
    if (len > 0)
        memcpy(out->bytes, bytes, len);
    return 0;
}

int pool_keys_take(struct pool_key *out, uint32_t count, uint32_t generation,
                   ProtobufCBinaryData *keys, size_t n)
{
    int rc = n != (generation != 0 ? count : 0) ? -EPROTO : 0;

    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = pool_key_take(&out[i], generation, n > 0 ? keys[i].data : NULL,
                           n > 0 ? keys[i].len : 0);
    for (size_t i = 0; i < n; i++)
        OPENSSL_cleanse(keys[i].data, keys[i].len);
    return rc;
}
