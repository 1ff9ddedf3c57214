/* Text from outside: addresses, names in certificates, tokens, squash rules. What is taken must
 * come out again as it went in. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/address.h"
#include "control/wire/authority.h"

#define must(what)                                                                                 \
    do {                                                                                           \
        if (!(what))                                                                               \
            abort();                                                                               \
    } while (0)

static void try_address(const char *text)
{
    struct address_tcp a;
    char back[ADDRESS_HOST_MAX + ADDRESS_PEER_MAX + 32], chosen[64];
    if (address_parse_tcp(text, &a) == 0) {
        snprintf(back, sizeof(back), a.v6 ? "tcp:[%s]:%s%s%s" : "tcp:%s:%s%s%s", a.host, a.port,
                 a.peer[0] ? "/" : "", a.peer);
        must(strcmp(back, text) == 0);
        must(address_check(text) == 0);
    }
    for (int local = 0; local < 2; local++)
        if (address_choose(text, local, chosen, sizeof(chosen)) == 0)
            must(strstr(text, chosen) && !strchr(chosen, ' '));
}

static void try_identity(const char *text)
{
    struct identity_name who, again;
    char back[IDENTITY_TEXT], squash[48];
    if (identity_parse(text, &who) == 0) {
        must(identity_format(&who, back) == 0 && strcmp(back, text) == 0);
        must(identity_name_ok(who.name));
    }
    if (identity_squash_parse(text, &who) == 0) {
        identity_squash_format(&who, squash);
        must(identity_squash_parse(squash, &again) == 0);
        must(again.squash == who.squash && again.uid == who.uid && again.gid == who.gid);
    }
}

static void try_token(const char *text)
{
    struct token t;
    uint8_t hash[TOKEN_HASH];
    if (token_parse(text, &t) == 0)
        token_hash(t.secret, hash);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    try_address(text);
    try_identity(text);
    try_token(text);
    free(text);
    return 0;
}
