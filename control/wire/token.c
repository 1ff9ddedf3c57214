#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "control/wire/authority.h"

#define PREFIX "umbel1."

static char *put_hex(char *out, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out += sprintf(out, "%02x", bytes[i]);
    return out;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* false: not 2n hex digits. */
static bool get_hex(const char *text, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = digit(text[2 * i]), low = high < 0 ? -1 : digit(text[2 * i + 1]);
        if (low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

int token_make(const struct authority *a, struct token *t, char out[TOKEN_TEXT])
{
    if (RAND_bytes(t->secret, sizeof(t->secret)) != 1)
        return -EIO;
    authority_fingerprint(a, t->fingerprint);
    char *at = put_hex(stpcpy(out, PREFIX), t->fingerprint, sizeof(t->fingerprint));
    *at++ = '.';
    put_hex(at, t->secret, sizeof(t->secret));
    return 0;
}

int token_parse(const char *text, struct token *out)
{
    size_t middle = strlen(PREFIX) + 2 * sizeof(out->fingerprint);
    if (strlen(text) != TOKEN_TEXT - 1 || strncmp(text, PREFIX, strlen(PREFIX)) != 0 ||
        text[middle] != '.' ||
        !get_hex(text + strlen(PREFIX), out->fingerprint, sizeof(out->fingerprint)) ||
        !get_hex(text + middle + 1, out->secret, sizeof(out->secret)))
        return -EINVAL;
    return 0;
}

void token_hash(const uint8_t secret[TOKEN_SECRET], uint8_t out[TOKEN_HASH])
{
    SHA256(secret, TOKEN_SECRET, out);
}
