/* The centre from outside: files that are open or written, their homes, orphans, nodes. */
#include "control_fake.h"

static struct cloud cloud;
static struct fake_node node;
static struct mount a, b;

static void begin(void)
{
    memset(&cloud, 0, sizeof(cloud));
    cloud_make(&cloud);
    node_start(&node, &cloud, "node-1");
    mount_start(&a, &cloud, "mnt-1");
    mount_start(&b, &cloud, "mnt-2");
}

static void end(void)
{
    mount_stop(&a);
    mount_stop(&b);
    node_stop(&node);
    cloud_end(&cloud);
}

TestSuite(control_centre_files, .init = begin, .fini = end, .timeout = 600);

/* ---- attributes that the home owns */

Test(control_centre_files, a_close_is_seen_by_others_at_once)
{
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    node_has(&node, ino, 100, 5);
    cr_assert_eq(release(&a, ino, true, 100, 5), 0);
    unsigned asked = node_count(&node, &node.asked);
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_expect_eq(got.size, 100);
    cr_expect_eq(got.version, 5);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_READ);
    cr_expect_eq(node_count(&node, &node.asked), asked); /* the mount said all */
}

Test(control_centre_files, a_written_file_is_asked_about_at_its_home)
{
    Star__EntryReply *r = NULL;
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    node_has(&node, ino, 4096, 7);
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_expect_eq(got.size, 4096);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_NONE);
    cr_expect_eq(node_count(&node, &node.asked), 1);
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0); /* it knows best itself */
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_WRITE);
    cr_expect_eq(node_count(&node, &node.asked), 1);
    node_has(&node, ino, 8192, 8);
    cr_assert_eq(lookup(&b, "x", &r), 0);
    cr_expect_eq(r->attr->size, 8192);
    cr_expect_eq(r->lease, STAR__LEASE__LEASE_NONE);
    star__entry_reply__free_unpacked(r, NULL);
}

/* What the log knows may be older than what was acknowledged, so it is the last resort. */
Test(control_centre_files, a_home_that_is_away_is_waited_for)
{
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    node_stop(&node);
    struct ask *early = getattr(&b, ino);
    cr_expect(ask_waits(early, 300));
    struct ask *root = getattr(&b, 1);
    cr_assert_eq(attr_end(root, &got), 0, "the root needs no node");
    memset(&node, 0, sizeof(node));
    node_put(&node, ino, 4096, 7, 1);
    node_start_with(&node, &cloud, "node-1");
    cr_assert_eq(attr_end(early, &got), 0);
    cr_expect_eq(got.size, 4096);
    /* It dies when it is being asked. */
    node_has(&node, ino, 8192, 8);
    atomic_store(&node.silent, true);
    unsigned asked = node_count(&node, &node.asked);
    early = getattr(&b, ino);
    eventually(node_count(&node, &node.asked) > asked);
    atomic_store(&node.silent, false);
    client_reset(node.client);
    cr_assert_eq(attr_end(early, &got), 0);
    cr_expect_eq(got.size, 8192);
    node_stop(&node);
    struct ask *late = getattr(&b, ino);
    int64_t waited = mount_waits(&b, late);
    cr_expect(waited > 5000 && waited < 15000, "%" PRId64 " ms", waited);
    cr_expect_eq(attr_end(late, &got), 0);
    node_start(&node, &cloud, "node-1");
}

/* Its writer was never heard of again: the home says what became of the file. */
Test(control_centre_files, a_lost_writer)
{
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x"), other = file_new(&a, T(CREATE), "y");
    node_has(&node, ino, 333, 9);
    mount_bye(&a); /* without RELEASE */
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_expect_eq(got.size, 333);
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_READ);
    cr_expect_eq(node_count(&node, &node.asked), 1); /* once is enough */
    cr_assert_eq(attr_end(getattr(&b, other), &got), 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_READ); /* the home knows nothing newer */
    cloud_kill(&cloud);
    cloud_start(&cloud);
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_expect_eq(got.size, 333); /* it is in the log */
}

Test(control_centre_files, truncate_goes_through_the_home)
{
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    node_has(&node, ino, 4096, 7);
    cr_assert_eq(release(&a, ino, true, 4096, 7), 0);
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_assert_eq(attr_end(setattr(&a, ino, 1 << 3, 10), &got), 0);
    cr_expect_eq(got.size, 10);
    cr_expect_eq(got.version, 8);
    cr_expect_eq(node_count(&node, &node.changed), 1);
    cr_expect_eq(mount_recalls(&b), 1);
    cr_expect(b.recalls[0].data);
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_expect_eq(got.size, 10);
    /* The mode is none of the home's business. */
    cr_assert_eq(attr_end(setattr(&a, ino, 1 << 0, 0600), &got), 0);
    cr_expect_eq(node_count(&node, &node.changed), 1);
    cr_expect_eq(attr_end(setattr(&a, 1, 1 << 3, 10), &got), -EISDIR);
    cr_expect_eq(attr_end(setattr(&a, ino, 1 << 3, UINT64_MAX), &got), -EFBIG);
}

Test(control_centre_files, open_with_truncate)
{
    struct opened o;
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    node_has(&node, ino, 4096, 7);
    cr_assert_eq(release(&a, ino, true, 4096, 7), 0);
    cr_assert_eq(open_end(open_file(&b, ino, O_WRONLY | O_TRUNC), &o), 0);
    cr_expect_eq(o.size, 0);
    cr_expect_eq(o.version, 8);
    cr_expect_eq(o.lease, STAR__LEASE__LEASE_WRITE);
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_expect_eq(got.size, 0);
}

/* The same OPEN twice truncates once: others may have written in between. */
Test(control_centre_files, a_resent_open_does_not_truncate_again)
{
    Star__Open body = STAR__OPEN__INIT;
    struct opened o;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    node_has(&node, ino, 4096, 7);
    cr_assert_eq(release(&a, ino, true, 4096, 7), 0);
    body.head = HEAD(&a);
    body.ino = ino;
    body.flags = O_RDWR | O_TRUNC;
    cr_assert_eq(open_end(ask(a.client, T(OPEN), &body), &o), 0);
    cr_expect_eq(node_count(&node, &node.changed), 1);
    node_has(&node, ino, 50, 9);
    cr_assert_eq(open_end(ask(a.client, T(OPEN), &body), &o), 0);
    cr_expect_eq(node_count(&node, &node.changed), 1);
}

Test(control_centre_files, sync_attrs)
{
    Star__HomeAttrs body = STAR__HOME_ATTRS__INIT;
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    body.ino = ino;
    body.size = 77;
    body.version = 3;
    body.home_epoch = 1;
    cr_assert_eq(ask_end(ask(a.client, T(SYNC_ATTRS), &body)), 0);
    cloud_kill(&cloud);
    atomic_store(&a.away, true); /* it dies, too */
    client_stop(node.client);
    cloud_start(&cloud);
    struct ask *attr = getattr(&b, ino);
    mount_waits(&b, attr);
    cr_assert_eq(attr_end(attr, &got), 0);
    cr_expect_eq(got.size, 77);
    body.home_epoch = 9;
    body.version = 4;
    cr_expect_eq(ask_end(ask(b.client, T(SYNC_ATTRS), &body)), -ESTALE);
    node_start(&node, &cloud, "node-1");
    atomic_store(&a.away, false);
}

/* A node that comes back knows better than the log: what was answered is recalled. */
Test(control_centre_files, a_node_comes_back_with_news)
{
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_READ);
    node_has(&node, ino, 12, 3);
    client_reset(node.client);
    eventually(atomic_load(&node.connects) == 2);
    cr_expect_eq(mount_recalls(&b), 1);
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_expect_eq(got.size, 12);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_READ);
}

/* ---- homes */

Test(control_centre_files, a_home_is_taken_once)
{
    struct opened oa, ob;

    uint64_t ino = file_new(&a, T(MKNOD), "x");
    struct ask *pa = open_file(&a, ino, O_RDWR), *pb = open_file(&b, ino, O_RDWR);
    cr_assert_eq(open_end(pa, &oa), 0);
    cr_assert_eq(open_end(pb, &ob), 0);
    cr_expect_eq(oa.epoch, ob.epoch);
    cr_expect_eq(oa.node, node.number);
    cr_expect_eq(ob.node, node.number);
    cr_expect(oa.lease == STAR__LEASE__LEASE_NONE || ob.lease == STAR__LEASE__LEASE_NONE);
}

Test(control_centre_files, what_needs_a_node_waits_for_it)
{
    struct opened o;
    struct got got;

    uint64_t ino = file_new(&a, T(MKNOD), "x"), homed = file_new(&a, T(CREATE), "y");
    client_stop(node.client);
    struct ask *create = make(&a, T(CREATE), 1, "z"), *open = open_file(&b, ino, O_RDWR);
    struct ask *cut = setattr(&b, homed, 1 << 3, 0);
    cr_expect(ask_waits(create, 300));
    cr_expect(ask_waits(open, 1) && ask_waits(cut, 1));
    node_start(&node, &cloud, "node-1");
    cr_expect_eq(ask_end(create), 0);
    cr_expect_eq(open_end(open, &o), 0);
    cr_expect_eq(attr_end(cut, &got), 0);
    cr_expect_eq(o.node, node.number);
}

Test(control_centre_files, a_drained_node_keeps_nothing)
{
    struct fake_node second;
    struct opened o;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    node_start(&second, &cloud, "node-2");
    cr_assert_eq(ask_end(ctl_write(&b, "nodes/node-1/ctl", "drain\n")), 0);
    cr_expect_eq(node_count(&node, &node.drains), 1);
    cr_expect(ctl_says(&b, "nodes/node-1/status", "state drained\n"));
    cr_assert_eq(open_end(open_file(&b, ino, O_RDWR), &o), 0);
    cr_expect_eq(o.node, second.number);
    cr_expect_eq(o.epoch, 2);
    /* That a connection broke does not mean that it is wanted again; a start does. */
    client_reset(node.client);
    eventually(atomic_load(&node.connects) == 2);
    cr_expect(ctl_says(&b, "nodes/node-1/status", "state drained\n"));
    node_stop(&node);
    node_start(&node, &cloud, "node-1");
    cr_expect(ctl_says(&b, "nodes/node-1/status", "state ready\n"));
    node_stop(&second);
}

/* Its files fall back to what the pool holds, and nobody goes on with what he remembers. */
Test(control_centre_files, a_node_is_forgotten)
{
    Star__Copies copies = STAR__COPIES__INIT;
    Star__Copy one = STAR__COPY__INIT, *list[] = {&one};
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    cr_assert_eq(release(&a, ino, true, 100, 5), 0);
    one.ino = ino;
    one.version = 5;
    one.staged = 100;
    copies.copies = list;
    copies.n_copies = 1;
    cr_assert_eq(ask_end(ask(node.client, T(COPIES), &copies)), 0);
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    cr_expect_eq(got.size, 100);
    cr_expect_eq(ask_end(ctl_write(&b, "nodes/node-1/ctl", "forget")), -EBUSY);
    client_stop(node.client);
    eventually(ctl_says(&b, "nodes/node-1/status", "here no\n"));
    mount_forget_recalls(&a);
    mount_forget_recalls(&b);
    /* Not before it must have fenced itself: it may only be cut off. */
    struct ask *forget = ctl_write(&b, "nodes/node-1/ctl", "forget");
    while (!atomic_load(&forget->done)) {
        cr_assert_eq(mount_renew(&a), 0);
        cr_assert_eq(mount_renew(&b), 0);
        nap(200);
    }
    cr_assert_eq(ask_end(forget), 0);
    cr_expect(ctl_says(&b, "events", "node-lost node-1"));
    cr_expect_eq(mount_recalls(&a), 1);
    cr_expect_eq(mount_recalls(&b), 1); /* also who asked for it */
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_expect_eq(got.size, 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_READ);
    cr_expect(ctl_says(&b, "events", "lost /x: 100 bytes"));
    node_start(&node, &cloud, "node-9");
}

Test(control_centre_files, a_released_node_is_told_to_leave)
{
    struct fake_node second;
    struct opened o;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    node_start(&second, &cloud, "node-2");
    atomic_store(&node.stays, true);
    cr_expect_eq(ask_end(ctl_write(&b, "nodes/node-1/ctl", "release\n")), -EBUSY);
    cr_expect(ctl_says(&b, "nodes/node-1/status", "state drained\n"));
    atomic_store(&node.stays, false);
    cr_assert_eq(ask_end(ctl_write(&b, "nodes/node-1/ctl", "release\n")), 0);
    cr_expect_eq(node_count(&node, &node.leaves), 2);
    cr_expect(ctl_says(&b, "nodes/node-1/status", "state gone\n"));
    cr_expect(ctl_says(&b, "events", "node-released node-1"));
    cr_expect_eq(ask_end(ctl_write(&b, "nodes/node-1/ctl", "release")), -EBUSY);
    cr_assert_eq(open_end(open_file(&b, ino, O_RDWR), &o), 0);
    cr_expect_eq(o.node, second.number);
    node_stop(&second);
}

/* Readers go where it is cached, and elsewhere if that fails. */
Test(control_centre_files, a_reader_is_sent_to_a_copy_and_then_to_another)
{
    Star__Copies copies = STAR__COPIES__INIT;
    Star__Copy one = STAR__COPY__INIT, *list[] = {&one};
    Star__Inode where = STAR__INODE__INIT;
    struct fake_node second;
    struct opened o;

    uint64_t ino = file_new(&a, T(MKNOD), "x");
    node_start(&second, &cloud, "node-2");
    one.ino = ino;
    one.cached = 100;
    copies.copies = list;
    copies.n_copies = 1;
    cr_assert_eq(ask_end(ask(second.client, T(COPIES), &copies)), 0);
    cr_assert_eq(open_end(open_file(&a, ino, O_RDONLY), &o), 0);
    cr_expect_eq(o.node, second.number);
    where.ino = ino;
    where.avoid = &second.number;
    where.n_avoid = 1;
    cr_assert_eq(open_end(ask(a.client, T(LOCATE), &where), &o), 0);
    cr_expect_eq(o.node, node.number);
    node_stop(&node);
    eventually(ctl_says(&b, "nodes/node-1/status", "here no\n"));
    cr_assert_eq(open_end(ask(a.client, T(LOCATE), &where), &o), 0);
    cr_expect_eq(o.node, second.number, "there is no other");
    node_start(&node, &cloud, "node-1");
    node_stop(&second);
}

/* ---- orphans */

Test(control_centre_files, an_orphan_lives_while_it_is_open)
{
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    cr_assert_eq(ask_end(unlink_name(&b, "x")), 0);
    nap(100);
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_expect_eq(got.nlink, 0);
    cr_expect_not(node_dropped(&node, ino));
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    eventually(node_dropped(&node, ino)); /* after the log has it */
    cr_expect_eq(attr_end(getattr(&a, ino), &got), -ESTALE);
    cr_expect(ctl_says(&a, "status", "orphans 0\n"));
    cr_expect(ctl_says(&a, "fsck", "problems 0\n"));
}

/* Its end may be in the log already. */
Test(control_centre_files, an_orphan_that_nobody_has_open_is_not_opened)
{
    uint64_t ino = file_new(&a, T(CREATE), "x");

    cr_assert_eq(ask_end(unlink_name(&b, "x")), 0);
    cr_expect_eq(open_now(&b, ino, O_RDONLY), 0); /* a has it open */
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    cr_expect_eq(open_now(&a, ino, O_RDONLY), 0);
    cr_assert_eq(release(&a, ino, false, 0, 0), 0);
    cr_assert_eq(release(&b, ino, false, 0, 0), 0);
    cr_expect_eq(open_now(&a, ino, O_RDONLY), -ESTALE);
    eventually(node_dropped(&node, ino));
}

Test(control_centre_files, what_a_session_had_open_ends_with_it)
{
    uint64_t ino = file_new(&a, T(CREATE), "x");

    cr_assert_eq(ask_end(unlink_name(&b, "x")), 0);
    cr_expect_not(node_dropped(&node, ino));
    mount_bye(&a);
    eventually(node_dropped(&node, ino));
}

/* An open that failed holds nothing. */
Test(control_centre_files, a_failed_open_is_not_counted)
{
    struct opened o;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    atomic_store(&node.refuse, true);
    cr_expect_eq(open_end(open_file(&b, ino, O_WRONLY | O_TRUNC), &o), -EIO);
    atomic_store(&node.refuse, false);
    cr_assert_eq(ask_end(unlink_name(&a, "x")), 0);
    eventually(node_dropped(&node, ino));
}

/* ... also if the file goes while the open is on its way. */
Test(control_centre_files, an_open_fails_after_the_unlink)
{
    uint64_t ino = file_new(&a, T(CREATE), "x");

    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    atomic_store(&node.silent, true);
    struct ask *open = open_file(&b, ino, O_WRONLY | O_TRUNC);
    cr_expect(ask_waits(open, 100));
    cr_assert_eq(ask_end(unlink_name(&a, "x")), 0);
    cr_expect(ask_waits(open, 100));
    cr_expect_not(node_dropped(&node, ino));
    client_reset(node.client); /* the home's answer is lost */
    cr_expect_lt(ask_end(open), 0);
    atomic_store(&node.silent, false);
    eventually(atomic_load(&node.connects) == 2);
    eventually(ctl_says(&a, "status", "orphans 0\n"));
}

/* ---- reconnects */

/* What was open before counts until the mount has named all, and then once. */
Test(control_centre_files, opens_are_counted_once_over_reconnects)
{
    uint64_t ino = file_new(&a, T(CREATE), "x"), closed = file_new(&a, T(CREATE), "y");

    a.opens[0] = (Star__HeldOpen)STAR__HELD_OPEN__INIT;
    a.opens[0].ino = ino;
    a.opens[0].writers = 1;
    a.opens_n = 1; /* y was closed, but nobody heard it */
    cr_assert_eq(ask_end(unlink_name(&b, "y")), 0);
    cr_assert_eq(ask_end(unlink_name(&b, "x")), 0);
    for (unsigned k = 0; k < 3; k++) {
        unsigned before = atomic_load(&a.connects);
        client_reset(a.client);
        eventually(atomic_load(&a.connects) > before);
    }
    cr_expect(atomic_load(&a.resumed));
    eventually(node_dropped(&node, closed));
    cr_expect_not(node_dropped(&node, ino));
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    eventually(node_dropped(&node, ino));
}

/* The time in which it was not connected does not count as its silence. */
Test(control_centre_files, a_recall_waits_for_who_comes_back)
{
    Star__Reclaim done = STAR__RECLAIM__INIT;
    struct got got;

    uint64_t ino = file_new(&a, T(MKNOD), "x");
    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    atomic_store(&b.away, true);
    atomic_store(&b.partial, true);
    client_reset(b.client);
    nap(200);
    struct ask *change = setattr(&a, ino, 1 << 0, 0600);
    for (unsigned k = 0; k < 15; k++) {
        cr_expect(ask_waits(change, 500));
        cr_assert_eq(mount_renew(&a), 0);
    }
    atomic_store(&b.away, false);
    eventually(atomic_load(&b.connects) == 2);
    for (unsigned k = 0; k < 8; k++) {
        cr_expect(ask_waits(change, 500));
        cr_assert_eq(mount_renew(&a), 0);
    }
    done.done = true;
    done.seq_floor = 1;
    cr_assert_eq(ask_end(ask(b.client, T(RECLAIM), &done)), 0);
    cr_expect_eq(attr_end(change, &got), 0);
    cr_expect_not(ctl_says(&a, "events", "mount-fenced"));
}

/* Until RECLAIM is done the mount's kernel may serve what it had: it is recalled as before. What is
 * opened in that time stays open. */
Test(control_centre_files, in_the_middle_of_a_reclaim)
{
    Star__Reclaim done = STAR__RECLAIM__INIT;
    Star__EntryReply *r = NULL;
    struct got got;

    uint64_t had = file_new(&a, T(MKNOD), "x"), open = file_new(&a, T(MKNOD), "y");
    cr_assert_eq(attr_end(getattr(&b, open), &got), 0);
    lookup(&b, "z", &r);
    star__entry_reply__free_unpacked(r, NULL);
    cr_assert_eq(attr_end(getattr(&b, had), &got), 0);
    atomic_store(&b.partial, true);
    client_reset(b.client);
    eventually(atomic_load(&b.connects) == 2);
    cr_assert_eq(open_now(&b, open, O_RDONLY), 0);
    cr_assert_eq(attr_end(getattr(&b, had), &got), 0);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_NONE);
    mount_forget_recalls(&b);
    atomic_store(&b.silent, true);
    struct ask *change = setattr(&a, had, 1 << 0, 0600), *create = make(&a, T(MKNOD), 1, "z");
    eventually(mount_recalls(&b) == 2);
    cr_expect(ask_waits(change, 100) && ask_waits(create, 1));
    done.done = true;
    done.seq_floor = 1;
    cr_assert_eq(ask_end(ask(b.client, T(RECLAIM), &done)), 0);
    cr_expect_eq(ask_end(change), 0); /* it has forgotten everything */
    cr_expect_eq(ask_end(create), 0);
    cr_expect_eq(ask_end(ask(b.client, T(RECLAIM), &done)), -EINVAL);
    cr_assert_eq(ask_end(unlink_name(&a, "y")), 0);
    nap(50);
    cr_expect_eq(attr_end(getattr(&b, open), &got), 0); /* still open */
    cr_assert_eq(release(&b, open, false, 0, 0), 0);
    eventually(attr_end(getattr(&b, open), &got) == -ESTALE);
    mount_speak(&b);
}

/* An OPEN whose connection broke is asked again: it counts once. */
Test(control_centre_files, an_open_that_is_sent_twice_counts_once)
{
    struct opened o;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    atomic_store(&a.silent, true);
    struct ask *open = open_file(&b, ino, O_RDONLY); /* waits for a's recall */
    eventually(mount_recalls(&a) == 1);
    client_reset(b.client);
    eventually(atomic_load(&b.connects) == 2);
    cr_expect(ask_waits(open, 50));
    mount_speak(&a);
    cr_assert_eq(open_end(open, &o), 0);
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    cr_assert_eq(ask_end(unlink_name(&a, "x")), 0);
    nap(50);
    cr_expect_not(node_dropped(&node, ino));
    cr_assert_eq(release(&b, ino, false, 0, 0), 0);
    eventually(node_dropped(&node, ino));
}

/* What the node did not hear it is told again. */
Test(control_centre_files, a_lost_drop_is_repeated)
{
    uint64_t ino = file_new(&a, T(CREATE), "x"), away = file_new(&a, T(CREATE), "y");

    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    cr_assert_eq(release(&a, away, true, 0, 0), 0);
    atomic_store(&node.deaf, true);
    cr_assert_eq(ask_end(unlink_name(&a, "x")), 0);
    eventually(ctl_says(&a, "status", "orphans 0\n"));
    nap(200);
    client_stop(node.client);
    cr_assert_eq(ask_end(unlink_name(&a, "y")), 0);
    eventually(ctl_says(&a, "status", "orphans 0\n"));
    node_start(&node, &cloud, "node-1");
    eventually(node_dropped(&node, ino) && node_dropped(&node, away));
}

/* ---- blocks */

static uint64_t blocks_of(uint64_t ino)
{
    struct got got = {0};

    cr_assert_eq(attr_end(getattr(&b, ino), &got), 0);
    return got.blocks;
}

static void flushed_to(uint64_t ino, uint64_t pack);
static uint64_t packs_new(uint32_t count);

/* What lies somewhere counts, not the size; but a file that may have data never has none. */
Test(control_centre_files, a_sparse_file_takes_what_it_holds)
{
    Star__HomeAttrs attrs = STAR__HOME_ATTRS__INIT;
    Star__Copies copies = STAR__COPIES__INIT;
    Star__Copy one = STAR__COPY__INIT, *list[] = {&one};
    struct got got = {0};

    uint64_t ino = file_new(&a, T(CREATE), "x"), hole = file_new(&a, T(MKNOD), "y");
    attrs.ino = one.ino = ino;
    attrs.size = 1 << 30;
    attrs.version = one.version = 2;
    attrs.home_epoch = 1;
    attrs.bytes = 4096;
    node_has(&node, ino, attrs.size, 2);
    cr_assert_eq(ask_end(ask(a.client, T(SYNC_ATTRS), &attrs)), 0);
    cr_assert_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_expect_eq(got.blocks, 8);
    cr_assert_eq(release(&a, ino, true, 0, 0), 0);
    cr_expect_geq(blocks_of(ino), 8);
    one.staged = 8192;
    copies.copies = list;
    copies.n_copies = 1;
    cr_assert_eq(ask_end(ask(node.client, T(COPIES), &copies)), 0);
    cloud_kill(&cloud);
    cloud_start(&cloud);
    cr_expect_eq(blocks_of(ino), 16);
    flushed_to(ino, packs_new(1));
    cr_expect_eq(blocks_of(ino), 1); /* 100 bytes, in the pool */
    cr_assert_eq(attr_end(setattr(&a, hole, 1 << 3, 1 << 20), &got), 0);
    cr_expect_gt(got.blocks, 0); /* its home may have data */
}

/* ---- garbage in the pool */

static uint64_t packs_new(uint32_t count)
{
    Star__AllocPacks body = STAR__ALLOC_PACKS__INIT;
    Star__AllocPacksReply *r = NULL;

    body.count = count;
    cr_assert_eq(ask_reply(ask(node.client, T(ALLOC_PACKS), &body), alloc_packs_reply, &r), 0);
    uint64_t first = r->first;
    star__alloc_packs_reply__free_unpacked(r, NULL);
    return first;
}

static void pack_discard(uint64_t pack)
{
    Star__PackRef body = STAR__PACK_REF__INIT;

    body.pack = pack;
    cr_assert_eq(ask_end(ask(node.client, T(DISCARD_PACK), &body)), 0);
}

static void flushed_to(uint64_t ino, uint64_t pack)
{
    Star__Confirm q = STAR__CONFIRM__INIT;
    Star__ConfirmPack p = STAR__CONFIRM_PACK__INIT, *packs[] = {&p};
    Star__CutFile f = STAR__CUT_FILE__INIT, *files[] = {&f};
    Star__CutRecord r = STAR__CUT_RECORD__INIT, *records[] = {&r};
    Star__HomeAttrs attrs = STAR__HOME_ATTRS__INIT;

    attrs.ino = ino;
    attrs.size = 100;
    attrs.version = 2;
    attrs.home_epoch = 1;
    r.pack = p.pack = pack;
    r.length = 100;
    p.size = 4096;
    f.attrs = &attrs;
    f.cut = 1;
    f.base_limit = UINT64_MAX;
    f.records = records;
    f.n_records = 1;
    q.files = files;
    q.n_files = 1;
    q.packs = packs;
    q.n_packs = 1;
    cr_assert_eq(ask_end(ask(node.client, T(CONFIRM), &q)), 0);
}

static struct ask *gc(void)
{
    return ctl_write(&a, "ctl", "gc\n");
}

Test(control_centre_files, a_pack_that_stays_does_not_stop_the_others)
{
    char line[64];
    uint64_t first = packs_new(4), ino = file_new(&a, T(CREATE), "x");

    flushed_to(ino, first + 3);
    cr_assert_eq(release(&a, ino, true, 100, 2), 0);
    node.pack_stuck = first;
    for (unsigned k = 0; k < 3; k++)
        pack_discard(first + k);
    cr_assert_eq(ask_end(unlink_name(&a, "x")), 0);
    cr_expect_eq(ask_end(gc()), -EIO); /* what was just deleted is garbage, too */
    snprintf(line, sizeof(line), "%" PRIu64 " condemned", first);
    cr_expect(ctl_says(&a, "packs", line));
    cr_expect(ctl_says(&a, "status", "packs 1\n"));
    snprintf(line, sizeof(line), "the first is pack %" PRIu64, first);
    cr_expect(ctl_says(&a, "events", line));
    cr_expect(ctl_says(&a, "health", "cannot be deleted"));
    node.pack_stuck = 0;
    struct ask *one = gc(), *two = gc(), *three = gc();
    cr_expect_eq(ask_end(one), 0);
    cr_expect_eq(ask_end(two), 0);
    cr_expect_eq(ask_end(three), 0);
    cr_expect(ctl_says(&a, "status", "packs 0\n"));
    cr_expect_not(ctl_says(&a, "health", "cannot be deleted"));
}

/* Sparse packs are emptied into a new one, and go when no lease of before the switch is left. */
Test(control_centre_files, gc_moves_what_lives)
{
    uint64_t first = packs_new(3), x = file_new(&a, T(CREATE), "x");
    char line[80];

    flushed_to(x, first);
    node.move_to = first + 2;
    cr_assert_eq(release(&a, x, true, 100, 2), 0);
    struct ask *run = gc(); /* as long as a lease */
    while (ask_waits(run, 500)) {
        cr_assert_eq(mount_renew(&a), 0);
        cr_assert_eq(mount_renew(&b), 0);
    }
    cr_expect_eq(ask_end(run), 0);
    cr_expect_eq(node_count(&node, &node.moves), 1);
    snprintf(line, sizeof(line), "%" PRIu64 " live 2000 100 1", first + 2);
    cr_expect(ctl_says(&a, "packs", line));
    snprintf(line, sizeof(line), "%" PRIu64 " live", first);
    cr_expect_not(ctl_says(&a, "packs", line));
    cr_expect(ctl_says(&a, "gc", "packs_rewritten 1\n"));
    cr_expect(ctl_says(&a, "gc", "packs_deleted 1\n"));
    cr_expect(ctl_says(&a, "gc", "bytes_freed 4096\n"));

    /* It cannot be read: said, kept, and not an endless loop. */
    cr_assert_eq(ask_end(ctl_write(&a, "settings/gc_live_ratio", "95\n")), 0);
    cr_expect_eq(ask_end(gc()), -EBADMSG);
    cr_expect_eq(node_count(&node, &node.moves), 2);
    cr_expect(ctl_says(&a, "packs", "live 2000 100 1"));
    cr_expect(ctl_says(&a, "events", "it is damaged"));

    cr_assert_eq(ask_end(ctl_write(&a, "settings/gc_live_ratio", "0\n")), 0);
    cr_expect_eq(ask_end(gc()), 0);
    cr_expect_eq(node_count(&node, &node.moves), 2);
    cr_expect(ctl_says(&a, "fsck", "problems 0\n"));
}

/* More packs than one control file holds. */
Test(control_centre_files, all_packs_are_listed)
{
    enum { ROUNDS = 64, COUNT = 1024 };
    uint64_t seen = 0, next = 0;
    char file[40] = "packs", *save = NULL;
    unsigned pages = 0;

    for (unsigned k = 0; k < ROUNDS; k++)
        packs_new(COUNT);
    do {
        char *text = ctl_read(&a, file);
        next = 0;
        bool end = false;
        for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            cr_assert_not(end || next, "nothing comes behind the last line");
            if (sscanf(line, "# next %" SCNu64, &next) == 1)
                continue;
            end = strcmp(line, "# end") == 0;
            if (!end)
                cr_assert_eq(strtoull(line, NULL, 10), ++seen);
        }
        cr_assert(end || next == seen);
        free(text);
        snprintf(file, sizeof(file), "packs.%" PRIu64, next);
        pages++;
    } while (next);
    cr_expect_eq(seen, ROUNDS * COUNT);
    cr_expect_gt(pages, 1);
    cr_expect_eq(ctl_find(&a, "packs.x"), 0);
    cr_expect_eq(ctl_find(&a, "status.1"), 0);
    /* Checks run beside all else, one after the other. */
    cr_expect(ctl_says(&a, "fsck", "problems 0\n"));
}

/* At the quota no more packs are given out, so that nothing more is flushed. */
Test(control_centre_files, pool_quota)
{
    Star__AllocPacks body = STAR__ALLOC_PACKS__INIT;
    uint64_t ino = file_new(&a, T(CREATE), "x");

    cr_assert_eq(ask_end(ctl_write(&a, "settings/pool_quota", "100\n")), 0);
    flushed_to(ino, packs_new(1));
    body.count = 1;
    cr_expect_eq(ask_end(ask(node.client, T(ALLOC_PACKS), &body)), -ENOSPC);
    cr_expect(ctl_says(&a, "health", "pool_quota"));
    body.count = 0; /* a node that starts */
    body.fresh = true;
    cr_expect_eq(ask_end(ask(node.client, T(ALLOC_PACKS), &body)), 0);
    body.count = 1;
    body.fresh = false;
    cr_assert_eq(ask_end(ctl_write(&a, "settings/pool_quota", "101\n")), 0);
    cr_expect_eq(ask_end(ask(node.client, T(ALLOC_PACKS), &body)), 0);
    cr_expect_not(ctl_says(&a, "health", "pool_quota"));
}
