/* What the mount knows of inodes: how long, whose word counts, and when a lease goes back. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/inode_table.h"

static struct inode_table t;
static uint64_t returned;
static unsigned returned_n;

static void on_returned(void *ctx, uint64_t ino)
{
    (void)ctx;
    returned = ino;
    returned_n++;
}

static void setup(void)
{
    returned_n = 0;
    inode_table_init(&t, on_returned, NULL);
}

static void teardown(void)
{
    inode_table_destroy(&t);
}

TestSuite(inode_table, .init = setup, .fini = teardown);

static bool known(uint64_t ino)
{
    struct inode *i = inode_lock(&t, ino);

    if (i)
        inode_unlock(&t, i);
    return i != NULL;
}

Test(inode_table, lives_as_long_as_it_is_needed)
{
    struct inode *i = inode_lock_make(&t, 7);

    i->nlookup = 1;
    i->readers = 1;
    inode_unlock(&t, i);
    i = inode_lock(&t, 7);
    i->nlookup = 0;
    inode_unlock(&t, i);
    cr_assert(known(7), "it is open");
    i = inode_lock(&t, 7);
    i->readers = 0;
    inode_unlock(&t, i);
    cr_assert_not(known(7));
    cr_assert_eq(returned_n, 0, "there was no lease to give back");
}

Test(inode_table, a_forgotten_lease_goes_back)
{
    struct inode *i = inode_lock_make(&t, 8);

    i->nlookup = 1;
    i->lease = STAR__LEASE__LEASE_READ;
    inode_unlock(&t, i);
    cr_assert_eq(returned_n, 0);
    i = inode_lock(&t, 8);
    i->nlookup = 0;
    inode_unlock(&t, i);
    cr_assert_eq(returned_n, 1);
    cr_assert_eq(returned, 8);
}

Test(inode_table, remembers_the_returns_before_its_birth)
{
    atomic_fetch_add(&t.returns_begun, 3);
    struct inode *i = inode_lock_make(&t, 9);
    cr_assert_eq(i->born, 3);
    inode_unlock(&t, i);
}

static void attr_message(Star__Attr *a, uint64_t ino, uint64_t size, uint64_t version,
                         uint64_t change)
{
    star__attr__init(a);
    a->ino = ino;
    a->mode = S_IFREG | 0644;
    a->size = size;
    a->version = version;
    a->change = change;
}

Test(inode_table, newer_attributes_win)
{
    struct inode *i = inode_lock_make(&t, 10);
    Star__Attr a;

    attr_message(&a, 10, 100, 1, 5);
    inode_note_attr(i, &a);
    attr_message(&a, 10, 50, 1, 4);
    inode_note_attr(i, &a);
    cr_assert_eq(i->attr.st.st_size, 100, "an answer from before the last change is no news");
    i->attr_known = false;
    inode_note_attr(i, &a);
    cr_assert_eq(i->attr.st.st_size, 50, "nothing was known");
    inode_unlock(&t, i);
}

Test(inode_table, the_home_knows_size_and_mtime_better)
{
    struct inode *i = inode_lock_make(&t, 11);
    Star__HomeAttrs h = STAR__HOME_ATTRS__INIT;
    Star__Time mtime = STAR__TIME__INIT, ctime = STAR__TIME__INIT;
    Star__Attr a;
    struct attr merged;

    mtime.sec = 1000;
    ctime.sec = 1000;
    h.ino = 11;
    h.size = 4096;
    h.version = 9;
    h.home_epoch = 1;
    h.bytes = 4096;
    h.mtime = &mtime;
    h.ctime = &ctime;
    inode_note_home(i, &h);
    h.version = 8;
    h.size = 1;
    inode_note_home(i, &h);
    cr_assert_eq(i->home.size, 4096);
    h.ino = 12;
    h.version = 20;
    inode_note_home(i, &h);
    cr_assert_eq(i->home.size, 4096, "that is another file");

    attr_message(&a, 11, 0, 3, 1);
    attr_from_star(&merged, &a);
    inode_merge(i, &merged);
    cr_assert_eq(merged.st.st_size, 4096);
    cr_assert_eq(merged.st.st_blocks, 8);
    cr_assert_eq(merged.st.st_mtim.tv_sec, 1000);

    attr_message(&a, 11, 77, 9, 2);
    attr_from_star(&merged, &a);
    inode_merge(i, &merged);
    cr_assert_eq(merged.st.st_size, 77, "the centre has heard of that version");

    h.ino = 11;
    h.home_epoch = 2;
    h.version = 1;
    h.size = 5;
    inode_note_home(i, &h);
    cr_assert_eq(i->home.size, 5, "a new home counts anew");
    inode_unlock(&t, i);
}

static void open_reply(Star__OpenReply *r, Star__Ticket *k, uint64_t ino, uint32_t rights,
                       uint64_t epoch)
{
    star__open_reply__init(r);
    star__ticket__init(k);
    k->ino = ino;
    k->rights = rights;
    k->home_epoch = epoch;
    r->ticket = k;
    r->address = (char *)"unix:/run/node-1";
}

/* Tickets are signed whole: the newest is the one that counts, and the centre gives it all rights.
 */
Test(inode_table, the_newest_ticket_counts)
{
    struct inode *i = inode_lock_make(&t, 13);
    Star__OpenReply r;
    Star__Ticket k;

    open_reply(&r, &k, 13, 3, 1);
    cr_assert_eq(inode_note_place(i, &r), 0);
    cr_assert_eq(i->ticket.rights, 3);
    open_reply(&r, &k, 13, 1, 1);
    cr_assert_eq(inode_note_place(i, &r), 0);
    cr_assert_eq(i->ticket.rights, 1);
    open_reply(&r, &k, 13, 1, 2);
    cr_assert_eq(inode_note_place(i, &r), 0);
    cr_assert_eq(i->ticket.rights, 1, "another epoch, another right");
    open_reply(&r, &k, 99, 3, 2);
    cr_assert_eq(inode_note_place(i, &r), -EPROTO);
    r.ticket = NULL;
    cr_assert_eq(inode_note_place(i, &r), -EPROTO);
    open_reply(&r, &k, 13, 1, 2);
    r.address = (char *)"";
    cr_assert_eq(inode_note_place(i, &r), 0);
    cr_assert_not(i->located);
    inode_unlock(&t, i);
}

Test(inode_table, handles_hear_of_later_errors_only)
{
    struct inode *i = inode_lock_make(&t, 14);

    i->errors = 4;
    cr_assert_eq(inode_handle_add(i, 100), 0);
    cr_assert_eq(inode_handle_add(i, 101), 0);
    cr_assert_eq(inode_handle(i, 100)->errors_seen, 4);
    inode_handle_remove(i, 100);
    cr_assert_null(inode_handle(i, 100));
    cr_assert_not_null(inode_handle(i, 101));
    inode_handle_remove(i, 100);
    inode_unlock(&t, i);
}
