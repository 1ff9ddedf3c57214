#include "control/wire/ticket.h"

#include <errno.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "control/wire/clock.h"

int ticket_key_make(struct ticket_key *k)
{
    k->generation = random_id();
    return RAND_bytes(k->key, sizeof(k->key)) == 1 ? 0 : -EIO;
}

static uint8_t *put(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        *at++ = (uint8_t)(value >> (8 * i));
    return at;
}

void ticket_bytes(const Star__Ticket *t, uint8_t out[TICKET_BYTES])
{
    uint8_t *at = out;

    at = put(at, t->ino);
    at = put(at, t->home_epoch);
    at = put(at, t->size);
    at = put(at, t->version);
    at = put(at, t->session);
    at = put(at, t->expires);
    at = put(at, t->generation);
    at = put(at, t->mtime ? (uint64_t)t->mtime->sec : 0);
    at = put(at, t->mtime ? t->mtime->nsec : 0);
    at = put(at, t->rights);
    at = put(at, t->node);
    *at++ = t->mapped != 0;
    *at++ = t->mtime != NULL;
    memcpy(at, "t1", 2); /* no other use of a key signs this */
}

static int mac_of(const struct ticket_key *k, const Star__Ticket *t, uint8_t mac[TICKET_MAC_SIZE])
{
    uint8_t bytes[TICKET_BYTES];
    unsigned len = 0;

    ticket_bytes(t, bytes);
    if (!HMAC(EVP_sha256(), k->key, sizeof(k->key), bytes, sizeof(bytes), mac, &len) ||
        len != TICKET_MAC_SIZE)
        return -EIO;
    return 0;
}

int ticket_sign(const struct ticket_key *k, Star__Ticket *t, uint8_t mac[TICKET_MAC_SIZE])
{
    t->generation = k->generation;
    t->mac = (ProtobufCBinaryData){.len = TICKET_MAC_SIZE, .data = mac};
    return mac_of(k, t, mac);
}

int ticket_verify(const struct ticket_key *k, const Star__Ticket *t)
{
    uint8_t mac[TICKET_MAC_SIZE];

    if (k->generation == 0 || t->generation != k->generation || t->mac.len != TICKET_MAC_SIZE ||
        mac_of(k, t, mac) < 0 || CRYPTO_memcmp(mac, t->mac.data, TICKET_MAC_SIZE) != 0)
        return -EKEYREJECTED;
    return 0;
}
