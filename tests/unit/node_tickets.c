/* A node does nothing for a mount without the centre's word for it. */
#include "node_fake.h"

#include "control/wire/client.h"
#include "control/wire/clock.h"
#include "control/wire/ticket.h"
#include "nodecache/link_private.h"
#include "nodecache/serve.h"

#define NODE 7
#define INO  100
#define MS   20000
#define HOUR (3600 * 1000)

static struct rig rig;
static struct link *node_link;
static struct serve *serving;
static struct client *client;
static struct ticket_key key;

/* As after a HELLO that was answered just now by a centre whose clock is an hour ahead. */
static void hear_centre(int64_t ago_ms)
{
    node_link->keys[0] =
        (struct link_key){.key = key, .clock_ms = clock_boot_ms() + HOUR, .at_ms = clock_boot_ms()};
    atomic_store(&node_link->heard_ms, clock_boot_ms() - ago_ms);
}

static void begin(void)
{
    static const struct client_ops none;
    struct link_options options = {.name = "node-1", .end_fd = -1};
    char address[128];

    rig_start(&rig, 64u << 20);
    rig_open(&rig, false);
    store_set_node(rig.store, NODE);
    cr_assert_eq(ticket_key_make(&key), 0);
    cr_assert_eq(link_new(&options, &node_link), 0);
    node_link->store = rig.store;
    hear_centre(0);
    snprintf(address, sizeof(address), "unix:/tmp/umbel-tickets-%d.sock", (int)getpid());
    cr_assert_eq(serve_start(address, NULL, node_link, rig.store, &serving), 0);
    cr_assert_eq(client_start(address, "tickets", &none, NULL, &client), 0);
    rig_write(&rig, INO, 1, 0, 4096);
}

static void end(void)
{
    client_stop(client);
    serve_stop(serving);
    link_free(node_link);
    rig_end(&rig);
}

TestSuite(node_tickets, .init = begin, .fini = end);

/* What a READ is answered with this ticket, after change. */
struct asked {
    Star__Ticket t;
    Star__Time mtime;
    uint8_t mac[TICKET_MAC_SIZE];
};

static void make(struct asked *a)
{
    struct ticket t = rig_ticket(INO);

    star__ticket__init(&a->t);
    star__time__init(&a->mtime);
    a->t.ino = INO;
    a->t.rights = RIGHT_READ;
    a->t.home_epoch = t.home_epoch;
    a->t.size = t.size;
    a->t.version = t.version;
    a->t.mtime = &a->mtime;
    a->t.node = NODE;
    a->t.expires = (uint64_t)clock_boot_ms() + HOUR + TICKET_LIFE_MS;
    cr_assert_eq(ticket_sign(&key, &a->t, a->mac), 0);
}

static int read_with(Star__Ticket *t)
{
    Star__Read body = STAR__READ__INIT;

    body.ticket = t;
    body.length = 4096;
    return client_call_wait(client, STAR__MSG_TYPE__READ, &body.base, MS, 0, NULL, NULL, NULL, NULL,
                            NULL);
}

Test(node_tickets, only_what_the_centre_signed_for_this_node)
{
    struct asked a;

    make(&a);
    cr_expect_eq(read_with(&a.t), 0);
    cr_expect_eq(read_with(&a.t), 0, "again, as it was seen");
    a.t.version++;
    cr_expect_eq(read_with(&a.t), -EKEYREJECTED, "the MAC of one that was seen");
    make(&a);
    a.mac[0] ^= 1;
    cr_expect_eq(read_with(&a.t), -EKEYREJECTED);
    make(&a);
    a.t.mac.len = 0;
    cr_expect_eq(read_with(&a.t), -EKEYREJECTED);
    cr_expect_eq(read_with(NULL), -EINVAL);
    make(&a);
    a.t.node = NODE + 1;
    cr_assert_eq(ticket_sign(&key, &a.t, a.mac), 0);
    cr_expect_eq(read_with(&a.t), -EKEYREJECTED, "signed, but for another node");
    make(&a);
    cr_expect_eq(read_with(&a.t), 0);
}

Test(node_tickets, until_it_expires_by_the_centres_clock)
{
    struct asked a;

    make(&a);
    a.t.expires = (uint64_t)clock_boot_ms() + HOUR - 1;
    cr_assert_eq(ticket_sign(&key, &a.t, a.mac), 0);
    cr_expect_eq(read_with(&a.t), -EKEYEXPIRED);
    cr_expect_eq(read_with(&a.t), -EKEYEXPIRED);
    a.t.expires = (uint64_t)clock_boot_ms() + HOUR + 300;
    cr_assert_eq(ticket_sign(&key, &a.t, a.mac), 0);
    cr_expect_eq(read_with(&a.t), 0);
    nanosleep(&(struct timespec){.tv_nsec = 400 * 1000000L}, NULL);
    cr_expect_eq(read_with(&a.t), -EKEYEXPIRED, "also if it was seen");
}

Test(node_tickets, of_an_older_key_until_it_expires_and_of_no_other)
{
    struct ticket_key older = key;
    struct asked a, old;

    make(&old);
    cr_assert_eq(ticket_key_make(&key), 0);
    node_link->keys[1] = node_link->keys[0];
    hear_centre(0);
    make(&a);
    cr_expect_eq(read_with(&a.t), 0);
    cr_expect_eq(read_with(&old.t), 0);
    node_link->keys[1].key.generation = 0;
    old.t.ino++;
    cr_assert_eq(ticket_sign(&older, &old.t, old.mac), 0);
    cr_expect_eq(read_with(&old.t), -EKEYREJECTED);
}

Test(node_tickets, a_node_that_does_not_hear_the_centre_is_fenced)
{
    struct asked a;

    make(&a);
    cr_expect_eq(read_with(&a.t), 0);
    hear_centre(LINK_FENCE_MS + 1);
    cr_expect_eq(read_with(&a.t), -ESTALE);
    hear_centre(0);
    cr_expect_eq(read_with(&a.t), 0);
}
