/* The cloud's keys, wrapped for the recovery key: recovery.h has the bytes. */
#include "nodecache/pool/recovery_internal.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define MAGIC  "UMBELKEY"
#define FORMAT 1u
#define TAG    16
#define NONCE  12

struct head {
    char magic[8];
    uint32_t format, keys;
    char cloud[POOL_CLOUD_MAX];
    uint8_t recovery[RECOVERY_HALF], once[RECOVERY_HALF];
};
_Static_assert(sizeof(struct head) == RECOVERY_HEAD, "as recovery.h says");
_Static_assert(RECOVERY_HALF == POOL_KEY, "HKDF's output is a key");

/* What both sides can work out: one by the pair that was made for this, one by the recovery key. */
static int wrapping_key(EVP_PKEY *own, const uint8_t other[RECOVERY_HALF], const uint8_t *proof,
                        const struct head *head, uint8_t out[POOL_KEY])
{
    struct {
        char label[16];
        uint8_t recovery[RECOVERY_HALF], once[RECOVERY_HALF];
    } info = {.label = "umbel wrap 1"};
    EVP_PKEY *theirs = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, other, RECOVERY_HALF);
    EVP_PKEY_CTX *ctx = theirs != NULL ? EVP_PKEY_CTX_new(own, NULL) : NULL;
    uint8_t shared[RECOVERY_HALF];
    size_t len = sizeof(shared);
    int rc = ctx != NULL ? 0 : -ENOMEM;

    memcpy(info.recovery, head->recovery, RECOVERY_HALF);
    memcpy(info.once, head->once, RECOVERY_HALF);
    /* A point of low order, which would give zeros, is refused here. */
    if (rc == 0 && (EVP_PKEY_derive_init(ctx) != 1 || EVP_PKEY_derive_set_peer(ctx, theirs) != 1 ||
                    EVP_PKEY_derive(ctx, shared, &len) != 1 || len != sizeof(shared)))
        rc = -EBADMSG;
    if (rc == 0)
        rc =
            recovery_derive(shared, sizeof(shared), proof, RECOVERY_HALF, &info, sizeof(info), out);
    OPENSSL_cleanse(shared, sizeof(shared));
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(theirs);
    return rc;
}

/* In place; the tag stands behind the data. */
static int gcm(bool seal, const uint8_t key[POOL_KEY], const struct head *head, uint8_t *data,
               int len)
{
    static const uint8_t nonce[NONCE];
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t nothing[1], *tag = data + len;
    int done, rc = -ENOMEM;

    if (ctx == NULL || EVP_CipherInit_ex2(ctx, EVP_aes_256_gcm(), key, nonce, seal, NULL) != 1 ||
        EVP_CipherUpdate(ctx, NULL, &done, (const uint8_t *)head, sizeof(*head)) != 1 ||
        EVP_CipherUpdate(ctx, data, &done, data, len) != 1 ||
        (!seal && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG, tag) != 1))
        goto out;
    rc = EVP_CipherFinal_ex(ctx, nothing, &done) == 1 ? 0 : -EBADMSG;
    if (rc == 0 && seal && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, tag) != 1)
        rc = -ENOMEM;
out:
    EVP_CIPHER_CTX_free(ctx);
    return rc;
}

int recovery_wrap(const struct recovery_lock *lock, const char *cloud, const struct pool_key *keys,
                  uint32_t n, uint8_t out[RECOVERY_WRAP_MAX], size_t *len)
{
    struct head head = {.magic = MAGIC, .format = htole32(FORMAT), .keys = htole32(n)};
    size_t name = strlen(cloud);
    uint8_t key[POOL_KEY];
    EVP_PKEY *once = NULL;

    if (n == 0 || n > RECOVERY_KEYS_MAX || name == 0 || name > sizeof(head.cloud))
        return -EINVAL;
    memcpy(head.cloud, cloud, name);
    memcpy(head.recovery, lock->public_half, RECOVERY_HALF);
    once = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    int rc = once != NULL ? recovery_public_half(once, head.once) : -ENOMEM;
    if (rc == 0)
        rc = wrapping_key(once, lock->public_half, lock->proof, &head, key);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        memcpy(out + RECOVERY_HEAD + (size_t)i * POOL_KEY, keys[i].bytes, POOL_KEY);
    if (rc == 0)
        rc = gcm(true, key, &head, out + RECOVERY_HEAD, (int)(n * POOL_KEY));
    memcpy(out, &head, sizeof(head));
    *len = RECOVERY_HEAD + (size_t)n * POOL_KEY + TAG;
    if (rc != 0)
        OPENSSL_cleanse(out, *len);
    OPENSSL_cleanse(key, sizeof(key));
    EVP_PKEY_free(once);
    return rc;
}

/* All that can be told without a key. */
static int check_head(const struct head *head, const char *cloud, size_t len)
{
    char name[POOL_CLOUD_MAX + 1] = "";
    uint32_t n = le32toh(head->keys);

    if (memcmp(head->magic, MAGIC, sizeof(head->magic)) != 0)
        return -EBADMSG;
    if (le32toh(head->format) > FORMAT)
        return -EPROTONOSUPPORT;
    if (le32toh(head->format) != FORMAT || n == 0 || n > RECOVERY_KEYS_MAX ||
        len != RECOVERY_HEAD + (size_t)n * POOL_KEY + TAG)
        return -EBADMSG;
    memcpy(name, head->cloud, POOL_CLOUD_MAX);
    return strcmp(name, cloud) == 0 ? 0 : -EXDEV;
}

int recovery_unwrap(const struct recovery_key *k, const char *cloud, const uint8_t *data,
                    size_t len, struct pool_key *keys, uint32_t *n)
{
    uint8_t body[RECOVERY_WRAP_MAX - RECOVERY_HEAD], key[POOL_KEY];
    struct recovery_lock lock;
    EVP_PKEY *pair = NULL;
    struct head head;

    *n = 0;
    if (len < RECOVERY_HEAD || len > RECOVERY_WRAP_MAX)
        return -EBADMSG;
    memcpy(&head, data, sizeof(head));
    memcpy(body, data + RECOVERY_HEAD, len - RECOVERY_HEAD);
    int rc = check_head(&head, cloud, len);
    if (rc == 0)
        rc = recovery_lock_of(k, &lock);
    if (rc != 0)
        return rc;
    if (memcmp(head.recovery, lock.public_half, RECOVERY_HALF) != 0)
        rc = -EKEYREJECTED;
    if (rc == 0)
        rc = recovery_pair(k, &pair);
    if (rc == 0)
        rc = wrapping_key(pair, head.once, lock.proof, &head, key);
    if (rc == 0)
        rc = gcm(false, key, &head, body, (int)(len - RECOVERY_HEAD - TAG));
    for (uint32_t i = 0; rc == 0 && i < le32toh(head.keys); i++) {
        memcpy(keys[i].bytes, body + (size_t)i * POOL_KEY, POOL_KEY);
        keys[i].generation = ++*n;
    }
    OPENSSL_cleanse(body, sizeof(body));
    OPENSSL_cleanse(key, sizeof(key));
    recovery_lock_wipe(&lock);
    EVP_PKEY_free(pair);
    return rc;
}
