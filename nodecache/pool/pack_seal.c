/* AES-256-GCM for pages, through OpenSSL. */
#include "nodecache/pool/pack_seal.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define NONCE 12u

static int failed(char *detail)
{
    return pool_fail(detail, -ENOMEM, "AES-256-GCM failed: no memory, or no such cipher here");
}

int sealer_init(struct sealer *s, bool seals, const struct pool_key *key, char *detail)
{
    *s = (struct sealer){.seals = seals};
    if (key == NULL)
        return 0;
    s->ctx = EVP_CIPHER_CTX_new();
    if (s->ctx == NULL ||
        EVP_CipherInit_ex2(s->ctx, EVP_aes_256_gcm(), key->bytes, NULL, seals, NULL) != 1) {
        sealer_destroy(s);
        return failed(detail);
    }
    return 0;
}

int sealer_key(struct sealer *s, const struct pool_key *key, char *detail)
{
    return EVP_CipherInit_ex2(s->ctx, NULL, key->bytes, NULL, s->seals, NULL) == 1 ? 0
                                                                                   : failed(detail);
}

int sealer_run(struct sealer *s, const struct pool_key *pack, const struct run *run, char *detail)
{
    struct pool_key key;
    int rc;

    if (s->ctx == NULL)
        return 0;
    rc = pool_run_key(pack, (uint32_t)run->kind, run->number, &key);
    rc = rc != 0 ? failed(detail) : sealer_key(s, &key, detail);
    pool_key_wipe(&key);
    return rc;
}

void sealer_destroy(struct sealer *s)
{
    EVP_CIPHER_CTX_free(s->ctx); /* cleanses */
    s->ctx = NULL;
}

/* Nonce and associated data of the page, and the content of a header, which is only authenticated.
 */
static bool begin(struct sealer *s, const struct run *run, uint32_t page, const uint8_t *content,
                  int len)
{
    uint8_t nonce[NONCE] = {0}, place[RUN_PLACE];
    uint32_t number = htole32(page);
    int done;

    memcpy(nonce, &number, sizeof number);
    run_place(run, page, place);
    return EVP_CipherInit_ex2(s->ctx, NULL, NULL, nonce, s->seals, NULL) == 1 &&
           EVP_CipherUpdate(s->ctx, NULL, &done, place, sizeof place) == 1 &&
           (run->kind != RUN_HEADER || EVP_CipherUpdate(s->ctx, NULL, &done, content, len) == 1);
}

int page_seal(struct sealer *s, const struct run *run, uint32_t page, const void *content,
              void *out, uint8_t seal[POOL_SEAL], char *detail)
{
    int len = (int)run_page_length(run, page), done = len;
    uint8_t nothing[1];

    if (s->ctx == NULL || run->kind == RUN_HEADER)
        memcpy(out, content, (size_t)len);
    if (s->ctx == NULL) {
        run_seal(run, page, content, seal);
        return 0;
    }
    if (!begin(s, run, page, content, len) ||
        (run->kind != RUN_HEADER && EVP_CipherUpdate(s->ctx, out, &done, content, len) != 1) ||
        done != len || EVP_CipherFinal_ex(s->ctx, nothing, &done) != 1 ||
        EVP_CIPHER_CTX_ctrl(s->ctx, EVP_CTRL_AEAD_GET_TAG, POOL_SEAL, seal) != 1)
        return failed(detail);
    return 0;
}

int page_open(struct sealer *s, const struct run *run, uint32_t page, void *bytes,
              const uint8_t seal[POOL_SEAL], char *detail)
{
    int len = (int)run_page_length(run, page), done = len;
    uint8_t tag[POOL_SEAL], nothing[1];

    if (s->ctx == NULL)
        return run_check(run, page, bytes, seal, detail);
    memcpy(tag, seal, sizeof tag); /* OpenSSL takes no const */
    if (!begin(s, run, page, bytes, len) ||
        (run->kind != RUN_HEADER && EVP_CipherUpdate(s->ctx, bytes, &done, bytes, len) != 1) ||
        done != len || EVP_CIPHER_CTX_ctrl(s->ctx, EVP_CTRL_AEAD_SET_TAG, POOL_SEAL, tag) != 1)
        return failed(detail);
    return EVP_CipherFinal_ex(s->ctx, nothing, &done) == 1 ? 0 : run_mismatch(run, page, detail);
}
