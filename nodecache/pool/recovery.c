/* The recovery key as a text, and the lock that comes from it. */
#include "nodecache/pool/recovery_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

/* Crockford's base 32: no I, L, O, U. */
static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
#define KEY_DIGITS 32 /* of 5 bits */
#define SUM_DIGITS 4  /* one typo in a million is not found */
#define DIGITS     (KEY_DIGITS + SUM_DIGITS)
#define GROUP      6

_Static_assert(KEY_DIGITS * 5 == RECOVERY_BYTES * 8, "no bits are left over");
_Static_assert(DIGITS + DIGITS / GROUP == RECOVERY_TEXT, "digits, what is between, the end");

int recovery_new(struct recovery_key *k)
{
    return getrandom(k->bytes, sizeof(k->bytes), 0) == (ssize_t)sizeof(k->bytes) ? 0 : -EIO;
}

void recovery_wipe(struct recovery_key *k)
{
    OPENSSL_cleanse(k, sizeof(*k));
}

void recovery_lock_wipe(struct recovery_lock *lock)
{
    OPENSSL_cleanse(lock, sizeof(*lock));
}

/* The key, and behind it the first bits of its SHA-256. */
static int digits_of(const struct recovery_key *k, uint8_t digits[DIGITS])
{
    uint8_t sum[EVP_MAX_MD_SIZE], bytes[RECOVERY_BYTES + 1] = {0};

    if (EVP_Digest(k->bytes, sizeof(k->bytes), sum, NULL, EVP_sha256(), NULL) != 1)
        return -ENOMEM;
    memcpy(bytes, k->bytes, RECOVERY_BYTES);
    for (unsigned i = 0; i < KEY_DIGITS; i++) {
        unsigned at = i * 5 / 8, shift = i * 5 % 8;
        unsigned two = (unsigned)bytes[at] << 8 | bytes[at + 1];
        digits[i] = (uint8_t)(two >> (11 - shift) & 31);
    }
    for (unsigned i = 0; i < SUM_DIGITS; i++)
        digits[KEY_DIGITS + i] = sum[i] & 31;
    OPENSSL_cleanse(bytes, sizeof(bytes));
    return 0;
}

int recovery_text(const struct recovery_key *k, char text[RECOVERY_TEXT])
{
    uint8_t digits[DIGITS];
    char *out = text;
    int rc = digits_of(k, digits);

    for (unsigned i = 0; rc == 0 && i < DIGITS; i++) {
        if (i > 0 && i % GROUP == 0)
            *out++ = '-';
        *out++ = alphabet[digits[i]];
    }
    *out = '\0';
    OPENSSL_cleanse(digits, sizeof(digits));
    return rc;
}

static int digit_of(char c)
{
    c = (char)toupper((unsigned char)c);
    c = c == 'I' || c == 'L' ? '1' : c == 'O' ? '0' : c;
    const char *at = c != '\0' ? strchr(alphabet, c) : NULL;
    return at != NULL ? (int)(at - alphabet) : -1;
}

/* Exactly DIGITS of them. */
static int take_digits(const char *text, uint8_t digits[DIGITS])
{
    unsigned n = 0;

    for (; *text != '\0'; text++) {
        if (*text == '-' || isspace((unsigned char)*text))
            continue;
        int digit = digit_of(*text);
        if (digit < 0 || n == DIGITS)
            return -EINVAL;
        digits[n++] = (uint8_t)digit;
    }
    return n == DIGITS ? 0 : -EINVAL;
}

int recovery_parse(const char *text, struct recovery_key *k)
{
    uint8_t digits[DIGITS], again[DIGITS], bytes[RECOVERY_BYTES + 1] = {0};
    int rc = take_digits(text, digits);

    for (unsigned i = 0; rc == 0 && i < KEY_DIGITS; i++) {
        unsigned at = i * 5 / 8, bits = (unsigned)digits[i] << (11 - i * 5 % 8);
        bytes[at] |= (uint8_t)(bits >> 8);
        bytes[at + 1] |= (uint8_t)bits;
    }
    memcpy(k->bytes, bytes, RECOVERY_BYTES);
    if (rc == 0)
        rc = digits_of(k, again);
    if (rc == 0 && memcmp(digits, again, DIGITS) != 0)
        rc = -EBADMSG;
    if (rc != 0)
        recovery_wipe(k);
    OPENSSL_cleanse(bytes, sizeof(bytes));
    OPENSSL_cleanse(digits, sizeof(digits));
    OPENSSL_cleanse(again, sizeof(again));
    return rc;
}

/* ---- what comes from it */

int recovery_derive(const void *from, size_t from_len, const void *salt, size_t salt_len,
                    const void *info, size_t info_len, uint8_t out[RECOVERY_HALF])
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)from, from_len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, info_len),
        OSSL_PARAM_construct_end(),
    };
    int rc = ctx != NULL && EVP_KDF_derive(ctx, out, RECOVERY_HALF, params) == 1 ? 0 : -ENOMEM;

    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return rc;
}

int recovery_pair(const struct recovery_key *k, EVP_PKEY **pair)
{
    static const char salt[] = "umbel recovery 1", label[] = "key pair";
    uint8_t half[RECOVERY_HALF];
    int rc =
        recovery_derive(k->bytes, sizeof(k->bytes), salt, sizeof(salt), label, sizeof(label), half);

    *pair =
        rc == 0 ? EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, half, sizeof(half)) : NULL;
    OPENSSL_cleanse(half, sizeof(half));
    return *pair != NULL ? 0 : -ENOMEM;
}

int recovery_public_half(EVP_PKEY *pair, uint8_t out[RECOVERY_HALF])
{
    size_t len = RECOVERY_HALF;

    return EVP_PKEY_get_raw_public_key(pair, out, &len) == 1 && len == RECOVERY_HALF ? 0 : -ENOMEM;
}

int recovery_lock_of(const struct recovery_key *k, struct recovery_lock *lock)
{
    static const char salt[] = "umbel recovery 1", label[] = "proof";
    EVP_PKEY *pair = NULL;
    int rc = recovery_pair(k, &pair);

    if (rc == 0)
        rc = recovery_public_half(pair, lock->public_half);
    if (rc == 0)
        rc = recovery_derive(k->bytes, sizeof(k->bytes), salt, sizeof(salt), label, sizeof(label),
                             lock->proof);
    EVP_PKEY_free(pair);
    return rc;
}

static char *put_hex(char *out, const uint8_t *bytes)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < RECOVERY_HALF; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    return out;
}

void recovery_lock_text(const struct recovery_lock *lock, char text[RECOVERY_LOCK_TEXT])
{
    *put_hex(put_hex(text, lock->public_half), lock->proof) = '\0';
}

static void get_hex(const char *hex, uint8_t *bytes)
{
    for (size_t i = 0; i < RECOVERY_HALF; i++) {
        int high = OPENSSL_hexchar2int((unsigned char)hex[2 * i]);
        int low = OPENSSL_hexchar2int((unsigned char)hex[2 * i + 1]);
        bytes[i] = (uint8_t)(high << 4 | low);
    }
}

int recovery_lock_parse(const char *text, struct recovery_lock *lock)
{
    if (strlen(text) != RECOVERY_LOCK_TEXT - 1 ||
        strspn(text, "0123456789abcdef") != RECOVERY_LOCK_TEXT - 1)
        return -EINVAL;
    get_hex(text, lock->public_half);
    get_hex(text + 2 * RECOVERY_HALF, lock->proof);
    return 0;
}
