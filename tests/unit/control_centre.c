/* The centre from outside: sessions, names, leases and their recall. */
#include "control_fake.h"

static struct cloud cloud;
static struct fake_node node;

static void begin(void)
{
    memset(&cloud, 0, sizeof(cloud));
    cloud_make(&cloud);
    node_start(&node, &cloud, "node-1");
}

static void end(void)
{
    node_stop(&node);
    cloud_end(&cloud);
}

TestSuite(control_centre, .init = begin, .fini = end, .timeout = 600);

/* ---- sessions */

struct raw_hello {
    Star__Hello body;
    atomic_int status, again;
};

static int raw_connect(void *ctx, struct client *client)
{
    struct raw_hello *h = ctx;

    atomic_store(&h->status,
                 client_handshake(client, T(HELLO), &h->body.base, FAKE_MS, NULL, NULL, NULL));
    atomic_store(&h->again,
                 client_handshake(client, T(HELLO), &h->body.base, FAKE_MS, NULL, NULL, NULL));
    return 0;
}

static void say(Star__Hello *body, int first, int second)
{
    struct raw_hello h = {.body = *body, .status = 1, .again = 1};
    static const struct client_ops ops = {.on_connect = raw_connect};
    struct client *client;

    cr_assert_eq(client_start(cloud.address, "raw", &ops, &h, &client), 0);
    eventually(atomic_load(&h.again) != 1);
    client_stop(client);
    cr_expect_eq(h.status, first);
    cr_expect_eq(h.again, second);
}

Test(control_centre, hello)
{
    Star__Hello hello = STAR__HELLO__INIT;
    Star__Inode inode = STAR__INODE__INIT;
    struct client *client;

    hello.protocol = PROTOCOL_VERSION;
    hello.role = STAR__ROLE__MOUNT;
    hello.name = (char *)"mnt-1";
    say(&hello, 0, -EINVAL); /* once on each connection */
    hello.session = 123456;
    say(&hello, -ESTALE, -EINVAL);
    hello.session = 0;
    hello.protocol++;
    say(&hello, -EPROTONOSUPPORT, -EPROTONOSUPPORT);
    hello.protocol--;
    hello.cloud = (char *)"another";
    say(&hello, -EXDEV, -EXDEV);
    hello.cloud = (char *)CLOUD_ID;
    hello.role = STAR__ROLE__ADMIN;
    say(&hello, -EINVAL, -EINVAL);
    cr_assert_eq(client_start(cloud.address, "raw", &(struct client_ops){0}, NULL, &client), 0);
    inode.ino = 1;
    cr_expect_eq(ask_end(ask(client, T(GETATTR), &inode)), -EPERM);
    cr_expect_eq(ask_end(ask(client, T(BYE), NULL)), -EPERM);
    cr_expect_eq(ask_end(ask(client, 500, NULL)), -EOPNOTSUPP);
    client_stop(client);
}

Test(control_centre, bye_ends_a_session)
{
    struct mount a;

    mount_start(&a, &cloud, "mnt-1");
    uint64_t first = a.session;
    mount_bye(&a);
    cr_expect_eq(mount_renew(&a), -EPERM);
    client_reset(a.client);
    eventually(atomic_load(&a.hello) == -ESTALE);
    cr_expect_eq(a.session, first);
    mount_stop(&a);
}

Test(control_centre, same_node_with_another_store_is_refused)
{
    Star__Hello hello = STAR__HELLO__INIT;

    hello.protocol = PROTOCOL_VERSION;
    hello.role = STAR__ROLE__NODE;
    hello.name = (char *)"node-1";
    hello.store = (char *)"another store";
    say(&hello, -EEXIST, -EINVAL);
}

/* ---- names */

Test(control_centre, create_gives_home_ticket_and_leases)
{
    Star__EntryReply *r = NULL;
    struct opened o;
    struct mount a;

    mount_start(&a, &cloud, "mnt-1");
    cr_assert_eq(make_now(&a, T(CREATE), "x", &r), 0);
    cr_assert_not_null(r->open);
    opened_from(&o, r->open);
    cr_expect_eq(o.node, node.number);
    cr_expect_str_eq(o.address, "unix:/nowhere");
    cr_expect_eq(o.epoch, 1);
    cr_expect_eq(o.rights, 3);
    cr_expect_eq(o.lease, STAR__LEASE__LEASE_WRITE);
    cr_expect_eq(r->lease, STAR__LEASE__LEASE_WRITE);
    cr_expect(r->entry_lease);
    cr_expect_eq(r->attr->mode, S_IFREG | 0644);
    cr_expect_not_null(r->parent);
    star__entry_reply__free_unpacked(r, NULL);
    cr_expect_eq(make_now(&a, T(CREATE), "x", NULL), -EEXIST);
    cr_expect_eq(make_now(&a, T(MKDIR), "a/b", NULL), -EINVAL);
    cr_expect_eq(make_now(&a, T(MKDIR), "", NULL), -EINVAL);
    char longer[300];
    memset(longer, 'n', sizeof(longer));
    longer[256] = '\0';
    cr_expect_eq(make_now(&a, T(MKDIR), longer, NULL), -ENAMETOOLONG);
    longer[255] = '\0';
    cr_expect_eq(make_now(&a, T(MKDIR), longer, NULL), 0);
    mount_stop(&a);
}

Test(control_centre, lookup_grants_leases)
{
    Star__EntryReply *r = NULL;
    struct mount a, b;
    struct got got;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&a, T(MKNOD), "x");
    cr_assert_eq(lookup(&b, "x", &r), 0);
    cr_expect_eq(r->attr->ino, ino);
    cr_expect_eq(r->lease, STAR__LEASE__LEASE_READ);
    cr_expect(r->entry_lease);
    star__entry_reply__free_unpacked(r, NULL);
    cr_assert_eq(lookup(&b, "nothing", &r), 0);
    cr_expect_null(r->attr);
    cr_expect(r->entry_lease);
    star__entry_reply__free_unpacked(r, NULL);
    cr_assert_eq(attr_end(getattr(&a, 1), &got), 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_READ);
    cr_expect_eq(attr_end(getattr(&a, 4711), &got), -ESTALE);
    mount_stop(&a);
    mount_stop(&b);
}

/* The other mount has let go of the name before anybody hears that it exists. */
Test(control_centre, a_name_is_recalled_before_the_answer)
{
    Star__EntryReply *r = NULL;
    struct mount a, b;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    lookup(&b, "x", &r);
    star__entry_reply__free_unpacked(r, NULL);
    atomic_store(&b.silent, true);
    struct ask *create = make(&a, T(CREATE), 1, "x");
    eventually(mount_recalls(&b) == 1);
    cr_expect_eq(b.recalls[0].ino, 1);
    cr_expect_str_eq(b.recalls[0].name, "x");
    cr_expect(b.recalls[0].attr && b.recalls[0].data);
    cr_expect_eq(b.recalls[0].keep, STAR__LEASE__LEASE_READ);
    cr_expect(ask_waits(create, 200));
    /* What is about to change is not leased again. */
    cr_expect_eq(lookup(&b, "x", &r), -ENOENT);
    cr_expect_null(r);
    mount_speak(&b);
    cr_expect_eq(ask_end(create), 0);
    /* The creator itself is not recalled. */
    cr_expect_eq(mount_recalls(&a), 0);
    mount_stop(&a);
    mount_stop(&b);
}

/* Many ops may wait for one name: they go on one after the other, at once. */
Test(control_centre, many_wait_for_one_name)
{
    struct ask *asks[200];
    Star__EntryReply *r = NULL;
    struct mount a, b;
    unsigned made = 0, exist = 0, renamed = 0;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    file_new(&a, T(MKNOD), "y");
    lookup(&b, "x", &r);
    star__entry_reply__free_unpacked(r, NULL);
    atomic_store(&b.silent, true);
    for (unsigned k = 0; k < 200; k++)
        asks[k] = k % 2 ? make(&a, T(MKNOD), 1, "x") : rename_name(&a, "y", "x");
    eventually(mount_recalls(&b) == 2); /* y and x, for the first one alone */
    cr_expect(ask_waits(asks[199], 100));
    mount_speak(&b);
    for (unsigned k = 0; k < 200; k++) {
        int rc = ask_end(asks[k]);
        made += rc == 0 && k % 2;
        renamed += rc == 0 && k % 2 == 0;
        exist += rc == -EEXIST || rc == -ENOENT;
    }
    cr_expect_eq(made + renamed + exist, 200);
    cr_expect_leq(renamed, 1);
    cr_expect_leq(made, 1);
    mount_stop(&a);
    mount_stop(&b);
}

/* Whoever has not answered an earlier recall may still keep what it had: the next change waits for
 * it, too. */
Test(control_centre, an_unanswered_recall_counts_for_all)
{
    struct mount a, b, c;
    struct got got;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    mount_start(&c, &cloud, "mnt-3");
    uint64_t ino = file_new(&a, T(MKNOD), "x");
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_assert_eq(got.lease, STAR__LEASE__LEASE_READ);
    atomic_store(&b.silent, true);
    struct ask *first = setattr(&a, ino, 1 << 3, 0);
    eventually(mount_recalls(&b) == 1);
    struct ask *second = setattr(&c, ino, 1 << 0, 0600);
    cr_expect(ask_waits(second, 200));
    cr_expect(ask_waits(first, 1));
    mount_speak(&b);
    cr_expect_eq(ask_end(first), 0);
    cr_expect_eq(attr_end(second, &got), 0);
    cr_expect_eq(got.mode, S_IFREG | 0600);
    mount_stop(&a);
    mount_stop(&b);
    mount_stop(&c);
}

Test(control_centre, unlink_and_rename_recall_what_changes)
{
    struct mount a, b;
    struct got got;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    uint64_t x = file_new(&a, T(MKNOD), "x"), y = file_new(&a, T(MKNOD), "y");
    attr_end(getattr(&b, x), &got);
    attr_end(getattr(&b, y), &got);
    cr_assert_eq(ask_end(rename_name(&a, "x", "y")), 0);
    eventually(mount_recalls(&b) == 2); /* b holds no lease on the directory */
    cr_expect((b.recalls[0].ino == x && b.recalls[1].ino == y) ||
              (b.recalls[0].ino == y && b.recalls[1].ino == x));
    cr_expect_eq(attr_end(getattr(&b, x), &got), 0);
    eventually(attr_end(getattr(&b, y), &got) == -ESTALE);
    mount_forget_recalls(&b);
    cr_assert_eq(ask_end(unlink_name(&a, "y")), 0);
    cr_expect_eq(mount_recalls(&b), 1);
    eventually(attr_end(getattr(&b, x), &got) == -ESTALE);
    cr_expect_eq(ask_end(unlink_name(&a, "y")), -ENOENT);
    mount_stop(&a);
    mount_stop(&b);
}

Test(control_centre, returned_leases_are_not_recalled)
{
    Star__ReturnLeases body = STAR__RETURN_LEASES__INIT;
    struct mount a, b;
    struct got got;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&a, T(MKNOD), "x");
    attr_end(getattr(&b, ino), &got);
    body.ino = &ino;
    body.n_ino = 1;
    cr_assert_eq(client_notify(b.client, T(RETURN_LEASES), &body.base), 0);
    cr_assert_eq(mount_renew(&b), 0); /* it was heard */
    cr_assert_eq(attr_end(setattr(&a, ino, 1 << 0, 0600), &got), 0);
    cr_expect_eq(mount_recalls(&b), 0);
    mount_stop(&a);
    mount_stop(&b);
}

Test(control_centre, listing)
{
    Star__ReadDir body = STAR__READ_DIR__INIT;
    Star__ReadDirReply *r = NULL;
    struct mount a;
    unsigned seen = 0, plus = 0;
    char name[16];
    bool eof = false;

    mount_start(&a, &cloud, "mnt-1");
    for (unsigned k = 0; k < 100; k++) {
        snprintf(name, sizeof(name), "f%u", k);
        file_new(&a, T(MKNOD), name);
    }
    body.ino = 1;
    body.plus = true;
    body.max_bytes = 4096;
    while (!eof) {
        cr_assert_eq(ask_reply(ask(a.client, T(READDIR), &body), read_dir_reply, &r), 0);
        cr_expect(r->entry_lease);
        cr_expect_gt(r->n_entries + r->eof, 0);
        for (size_t k = 0; k < r->n_entries; k++) {
            body.cookie = r->entries[k]->cookie;
            plus += r->entries[k]->attr != NULL && r->entries[k]->lease == STAR__LEASE__LEASE_READ;
            seen++;
        }
        eof = r->eof;
        star__read_dir_reply__free_unpacked(r, NULL);
    }
    cr_expect_eq(seen, 102);
    cr_expect_eq(plus, 100);
    body.ino = 4711;
    cr_expect_eq(ask_reply(ask(a.client, T(READDIR), &body), read_dir_reply, &r), -ESTALE);
    mount_stop(&a);
}

/* A mount that says nothing any more keeps others waiting until its lease has ended, and not
 * longer. */
Test(control_centre, a_silent_mount_is_waited_for_until_its_lease_ends)
{
    struct mount a, b;
    struct got got;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&a, T(MKNOD), "x");
    attr_end(getattr(&b, ino), &got);
    cr_assert_eq(mount_renew(&b), 0);
    atomic_store(&b.silent, true);
    atomic_store(&b.away, true);
    client_reset(b.client);
    struct ask *change = setattr(&a, ino, 1 << 0, 0600);
    int64_t took = mount_waits(&a, change);
    cr_expect_eq(ask_end(change), 0);
    cr_expect(took >= 9500 && took < 13000, "%lld ms", (long long)took);
    atomic_store(&b.away, false);
    eventually(atomic_load(&b.hello) == -ESTALE);
    mount_stop(&a);
    mount_stop(&b);
}

/* ---- leases on files */

Test(control_centre, a_second_opener_ends_the_write_lease)
{
    struct mount a, b;
    struct opened o;
    struct got got;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&a, T(CREATE), "x");
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_WRITE);
    atomic_store(&a.silent, true);
    struct ask *reader = open_file(&b, ino, O_RDONLY);
    eventually(mount_recalls(&a) == 1);
    cr_expect_eq(a.recalls[0].ino, ino);
    cr_expect_eq(a.recalls[0].keep, STAR__LEASE__LEASE_NONE);
    cr_expect(a.recalls[0].attr && a.recalls[0].data);
    cr_expect(ask_waits(reader, 100));
    /* Meanwhile it does not get it back. */
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_NONE);
    mount_speak(&a);
    cr_assert_eq(open_end(reader, &o), 0);
    cr_expect_eq(o.lease, STAR__LEASE__LEASE_NONE);
    cr_expect_eq(o.rights, 1);
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_NONE);
    /* The reader closes: the writer is alone again. */
    cr_assert_eq(release(&b, ino, false, 0, 0), 0);
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_WRITE);
    /* The writer closes: both may read. */
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    cr_assert_eq(open_end(open_file(&b, ino, O_RDONLY), &o), 0);
    cr_expect_eq(o.lease, STAR__LEASE__LEASE_READ);
    cr_assert_eq(open_end(open_file(&a, ino, O_RDONLY), &o), 0);
    cr_expect_eq(o.lease, STAR__LEASE__LEASE_READ);
    mount_stop(&a);
    mount_stop(&b);
}

Test(control_centre, shared_writing)
{
    Star__Invalidate body = STAR__INVALIDATE__INIT;
    struct mount a, b;
    struct opened o;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&a, T(CREATE), "x");
    cr_assert_eq(open_end(open_file(&b, ino, O_RDWR), &o), 0);
    cr_expect_eq(o.lease, STAR__LEASE__LEASE_NONE);
    cr_expect_eq(mount_recalls(&a), 1);
    mount_forget_recalls(&a);
    atomic_store(&a.silent, true);
    body.ino = ino;
    body.offset = 4096;
    body.length = 100;
    struct ask *told = ask(b.client, T(INVALIDATE), &body);
    eventually(mount_recalls(&a) == 1);
    cr_expect_eq(a.recalls[0].length, 100);
    cr_expect(a.recalls[0].data);
    cr_expect(ask_waits(told, 100));
    mount_speak(&a);
    cr_expect_eq(ask_end(told), 0);
    mount_stop(&a);
    mount_stop(&b);
}

/* ---- locks */

Test(control_centre, locks)
{
    Star__CancelLock cancel = STAR__CANCEL_LOCK__INIT;
    struct mount a, b, c;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    mount_start(&c, &cloud, "mnt-3");
    uint64_t ino = file_new(&a, T(MKNOD), "x");
    cr_assert_eq(ask_end(lock_file(&a, ino, F_WRLCK, false)), 0);
    cr_expect_eq(ask_end(lock_file(&b, ino, F_RDLCK, false)), -EAGAIN);
    cr_expect_eq(ask_end(lock_file(&b, 4711, F_RDLCK, false)), -ESTALE);
    struct ask *waits = lock_file(&b, ino, F_WRLCK, true);
    struct ask *waits_too = lock_file(&c, ino, F_WRLCK, true);
    cr_expect(ask_waits(waits, 100));
    cancel.id = waits_too->id;
    cr_assert_eq(ask_end(ask(c.client, T(CANCEL_LOCK), &cancel)), 0);
    cr_expect_eq(ask_end(waits_too), -EINTR);
    cr_expect_eq(ask_end(ask(c.client, T(CANCEL_LOCK), &cancel)), 0); /* too late: nothing */
    cr_assert_eq(ask_end(lock_file(&a, ino, F_UNLCK, false)), 0);
    cr_expect_eq(ask_end(waits), 0);
    /* A session that ends lets go. */
    waits = lock_file(&a, ino, F_RDLCK, true);
    cr_expect(ask_waits(waits, 100));
    mount_bye(&b);
    cr_expect_eq(ask_end(waits), 0);
    cr_expect_eq(ask_end(lock_file(&c, ino, F_RDLCK, false)), 0);
    mount_stop(&a);
    mount_stop(&b);
    mount_stop(&c);
}

/* What waits for a lock is asked again after a reconnect: it is granted once, and can be cancelled.
 */
Test(control_centre, a_waiting_lock_survives_a_reconnect)
{
    Star__CancelLock cancel = STAR__CANCEL_LOCK__INIT;
    struct mount a, b;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&a, T(MKNOD), "x");
    cr_assert_eq(ask_end(lock_file(&a, ino, F_WRLCK, false)), 0);
    struct ask *waits = lock_file(&b, ino, F_WRLCK, true);
    cr_expect(ask_waits(waits, 50));
    client_reset(b.client);
    eventually(atomic_load(&b.connects) == 2);
    cr_expect(ask_waits(waits, 100));
    cancel.id = waits->id;
    cr_assert_eq(ask_end(ask(b.client, T(CANCEL_LOCK), &cancel)), 0);
    cr_expect_eq(ask_end(waits), -EINTR);
    cr_assert_eq(ask_end(lock_file(&a, ino, F_UNLCK, false)), 0);
    cr_expect_eq(ask_end(lock_file(&b, ino, F_WRLCK, false)), 0);
    mount_stop(&a);
    mount_stop(&b);
}

static struct ask *flock_file(struct mount *m, uint64_t ino, uint32_t type, bool wait)
{
    Star__Lock body = STAR__LOCK__INIT;

    body.ino = ino;
    body.owner = 7;
    body.type = type;
    body.end = INT64_MAX;
    body.flock = true;
    body.wait = wait;
    return ask(m->client, T(SETLK), &body);
}

/* Each lets go of its shared lock before it waits, so one of them gets on. */
Test(control_centre, two_flocks_that_upgrade_do_not_hang)
{
    struct mount a, b, c;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    mount_start(&c, &cloud, "mnt-3");
    uint64_t ino = file_new(&a, T(MKNOD), "x");
    cr_assert_eq(ask_end(flock_file(&a, ino, F_RDLCK, false)), 0);
    cr_assert_eq(ask_end(flock_file(&b, ino, F_RDLCK, false)), 0);
    struct ask *first = flock_file(&a, ino, F_WRLCK, true);
    cr_expect(ask_waits(first, 100));
    cr_assert_eq(ask_end(flock_file(&b, ino, F_WRLCK, true)), 0);
    cr_expect(ask_waits(first, 100));
    cr_assert_eq(ask_end(flock_file(&b, ino, F_UNLCK, false)), 0);
    cr_expect_eq(ask_end(first), 0);
    /* What a waiter let go is granted to others at once. */
    cr_assert_eq(ask_end(flock_file(&a, ino, F_RDLCK, false)), 0);
    cr_assert_eq(ask_end(flock_file(&b, ino, F_RDLCK, false)), 0);
    cr_assert_eq(ask_end(flock_file(&c, ino, F_RDLCK, false)), 0);
    cr_assert_eq(ask_end(flock_file(&a, ino, F_WRLCK, false)), -EAGAIN);
    struct ask *last = flock_file(&a, ino, F_WRLCK, true);
    cr_assert_eq(ask_end(flock_file(&b, ino, F_UNLCK, false)), 0);
    cr_expect_eq(ask_end(flock_file(&c, ino, F_WRLCK, false)), 0, "only c had one left");
    cr_assert_eq(ask_end(flock_file(&c, ino, F_UNLCK, false)), 0);
    cr_expect_eq(ask_end(last), 0);
    mount_stop(&a);
    mount_stop(&b);
    mount_stop(&c);
}

/* A holds x and waits for y, B holds y and wants x: over two files and two mounts, and in one. */
Test(control_centre, a_circle_over_files_is_a_deadlock)
{
    struct mount a, b, c;

    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
    mount_start(&c, &cloud, "mnt-3");
    uint64_t x = file_new(&a, T(MKNOD), "x"), y = file_new(&a, T(MKNOD), "y"),
             z = file_new(&a, T(MKNOD), "z");
    cr_assert_eq(ask_end(lock_file(&a, x, F_WRLCK, false)), 0);
    cr_assert_eq(ask_end(lock_file(&b, y, F_WRLCK, false)), 0);
    cr_assert_eq(ask_end(lock_file(&c, z, F_RDLCK, false)), 0);
    struct ask *first = lock_file(&a, y, F_WRLCK, true);
    cr_expect(ask_waits(first, 100));
    struct ask *second = lock_file(&b, z, F_WRLCK, true);
    cr_expect(ask_waits(second, 100));
    cr_expect_eq(ask_end(lock_file(&c, x, F_RDLCK, true)), -EDEADLK);
    cr_expect_eq(ask_end(lock_file(&b, x, F_RDLCK, true)), -EDEADLK);
    cr_expect_eq(ask_end(lock_file(&c, x, F_RDLCK, false)), -EAGAIN);
    cr_assert_eq(ask_end(lock_file(&c, z, F_UNLCK, false)), 0);
    cr_expect_eq(ask_end(second), 0);
    cr_assert_eq(ask_end(lock_file(&b, y, F_UNLCK, false)), 0);
    cr_expect_eq(ask_end(first), 0);
    mount_stop(&a);
    mount_stop(&b);
    mount_stop(&c);
}
