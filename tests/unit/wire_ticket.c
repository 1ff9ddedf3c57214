/* Tickets: what was signed is taken, and nothing else. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/ticket.h"

struct signed_ticket {
    Star__Ticket t;
    Star__Time mtime;
    uint8_t mac[TICKET_MAC_SIZE];
};

static void make(struct signed_ticket *s, const struct ticket_key *k)
{
    star__ticket__init(&s->t);
    star__time__init(&s->mtime);
    s->mtime.sec = 1700000000;
    s->mtime.nsec = 5;
    s->t.ino = 77;
    s->t.rights = 1;
    s->t.home_epoch = 3;
    s->t.size = 1 << 20;
    s->t.version = 9;
    s->t.mtime = &s->mtime;
    s->t.mapped = true;
    s->t.node = 2;
    s->t.session = 12345;
    s->t.expires = 99999999;
    cr_assert_eq(ticket_sign(k, &s->t, s->mac), 0);
}

static bool same(const Star__Ticket *a, const Star__Ticket *b)
{
    uint8_t x[TICKET_BYTES], y[TICKET_BYTES];

    ticket_bytes(a, x);
    ticket_bytes(b, y);
    return memcmp(x, y, sizeof(x)) == 0 && a->mac.len == b->mac.len &&
           memcmp(a->mac.data, b->mac.data, a->mac.len) == 0;
}

/* On the wire: a flipped bit is refused, or it changes nothing that counts (an unknown field). */
Test(wire_ticket, every_flipped_bit_is_refused)
{
    struct ticket_key k;
    struct signed_ticket s;
    unsigned refused = 0, unread = 0, equal = 0;

    cr_assert_eq(ticket_key_make(&k), 0);
    make(&s, &k);
    cr_assert_eq(ticket_verify(&k, &s.t), 0);
    size_t len = star__ticket__get_packed_size(&s.t);
    uint8_t *bytes = malloc(len);
    star__ticket__pack(&s.t, bytes);
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        Star__Ticket *t = star__ticket__unpack(NULL, len, bytes);
        if (!t) {
            unread++;
        } else if (ticket_verify(&k, t) == 0) {
            cr_assert(same(t, &s.t), "bit %zu makes another ticket, which is taken", bit);
            equal++;
        } else {
            cr_assert_eq(ticket_verify(&k, t), -EKEYREJECTED);
            refused++;
        }
        if (t)
            star__ticket__free_unpacked(t, NULL);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert(refused > len * 4, "%u refused, %u unreadable, %u the same", refused, unread, equal);
    free(bytes);
}

#define CHANGED(change)                                                                            \
    do {                                                                                           \
        make(&s, &k);                                                                              \
        change;                                                                                    \
        cr_expect_eq(ticket_verify(&k, &s.t), -EKEYREJECTED, #change);                             \
    } while (0)

Test(wire_ticket, every_field_is_signed)
{
    struct ticket_key k, other;
    struct signed_ticket s;

    cr_assert_eq(ticket_key_make(&k), 0);
    cr_assert_eq(ticket_key_make(&other), 0);
    CHANGED(s.t.ino++);
    CHANGED(s.t.rights |= 2);
    CHANGED(s.t.home_epoch++);
    CHANGED(s.t.size++);
    CHANGED(s.t.version++);
    CHANGED(s.mtime.sec++);
    CHANGED(s.mtime.nsec++);
    CHANGED(s.t.mtime = NULL);
    CHANGED(s.t.mapped = false);
    CHANGED(s.t.node++);
    CHANGED(s.t.session++);
    CHANGED(s.t.expires++);
    CHANGED(s.t.generation++);
    CHANGED(s.t.mac.len = 0);
    CHANGED(s.t.mac.len--);
    CHANGED(s.mac[31] ^= 1);
    make(&s, &other);
    cr_expect_eq(ticket_verify(&k, &s.t), -EKEYREJECTED);
    other.generation = k.generation;
    make(&s, &other);
    cr_expect_eq(ticket_verify(&k, &s.t), -EKEYREJECTED, "another node's key");
    struct ticket_key none = {0};
    make(&s, &none);
    cr_expect_eq(ticket_verify(&none, &s.t), -EKEYREJECTED, "before there is a key");
}
