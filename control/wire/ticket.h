/*
 * Signed tickets: what the centre grants and a node checks.
 *
 * The MAC is HMAC-SHA256 over all fields of the ticket but itself, under a key that only the centre
 * and the one node know. The key is new for each connection of a node to the centre (its
 * generation); it is told there and written nowhere.
 *
 * Threads: any; nothing is shared.
 */
#ifndef UMBEL_WIRE_TICKET_H
#define UMBEL_WIRE_TICKET_H

#include <stdbool.h>
#include <stdint.h>

#include "star.pb-c.h"

#define TICKET_KEY_SIZE 32
#define TICKET_MAC_SIZE 32
/* All fields that are signed, in fixed places, so that two tickets can be compared. */
#define TICKET_BYTES 92
/* A ticket is good for so long. What ends it sooner are epochs and the fence of its node. */
#define TICKET_LIFE_MS 60000

struct ticket_key {
    uint64_t generation; /* 0: there is none */
    uint8_t key[TICKET_KEY_SIZE];
};

/* A new random key; -EIO: there is no randomness. */
int ticket_key_make(struct ticket_key *k);
void ticket_bytes(const Star__Ticket *t, uint8_t out[TICKET_BYTES]);
/* Sets t->generation, and t->mac to mac, which must live as long as t. -EIO. */
int ticket_sign(const struct ticket_key *k, Star__Ticket *t, uint8_t mac[TICKET_MAC_SIZE]);
/* 0; -EKEYREJECTED: of another key, or changed. */
int ticket_verify(const struct ticket_key *k, const Star__Ticket *t);

#endif
