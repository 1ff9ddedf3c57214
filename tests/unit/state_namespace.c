/* The state: making, finding, listing and removing; attributes, homes, nodes. */
#include "tests/state_world.h"

#include <criterion/criterion.h>

static struct world w;

static void set_up(void)
{
    world_start(&w);
}

static void tear_down(void)
{
    cr_assert_eq(world_check(&w), 0);
    world_commit(&w);
    cr_assert_eq(world_check(&w), 0);
    world_end(&w);
}

TestSuite(state_namespace, .init = set_up, .fini = tear_down);

static uint64_t ok(int64_t ino)
{
    cr_assert_gt(ino, 0, "%d", (int)ino);
    return (uint64_t)ino;
}

/* --- making and removing --- */

Test(state_namespace, make_find_remove)
{
    uint64_t d = ok(w_mkdir(&w, ROOT, "d"));
    uint64_t f = ok(w_create(&w, d, "f"));

    cr_assert_eq(w_lookup(&w, ROOT, "d"), d);
    cr_assert_eq(w_lookup(&w, d, "f"), f);
    cr_assert_eq(w_lookup(&w, d, "."), d);
    cr_assert_eq(w_lookup(&w, d, ".."), ROOT);
    cr_assert_eq(w_lookup(&w, ROOT, ".."), ROOT);
    cr_assert_eq(w_inode(&w, ROOT).nlink, 3);
    cr_assert_eq(w_inode(&w, d).entries, 1);
    cr_assert_eq(w_create(&w, d, "f"), -EEXIST);
    cr_assert_eq(w_create(&w, f, "x"), -ENOTDIR);
    cr_assert_eq(w_create(&w, 999, "x"), -ESTALE);
    cr_assert_eq(w_rmdir(&w, ROOT, "d"), -ENOTEMPTY);
    cr_assert_eq(w_unlink(&w, ROOT, "d"), -EISDIR);
    cr_assert_eq(w_rmdir(&w, d, "f"), -ENOTDIR);
    cr_assert_eq(w_rmdir(&w, d, "."), -EINVAL);
    cr_assert_eq(w_rmdir(&w, d, ".."), -ENOTEMPTY);
    cr_assert_eq(w_unlink(&w, d, "g"), -ENOENT);
    cr_assert_eq(w_unlink(&w, d, "f"), 0);
    Star__RemoveReply *r = world_reply(&w, &star__remove_reply__descriptor);
    cr_assert_eq(r->ino, f);
    cr_assert_eq(r->nlink, 0);
    cr_assert(w_inode(&w, f).orphan);
    cr_assert_eq(w_link(&w, f, d, "again"), -ENOENT);
    cr_assert_eq(w_rmdir(&w, ROOT, "d"), 0);
    cr_assert_eq(w_create(&w, d, "x"), -ENOENT, "a removed directory takes nothing");
    cr_assert_eq(w_inode(&w, ROOT).nlink, 2);
    struct state_totals t;
    state_totals(w.s, &t);
    cr_assert_eq(t.orphans, 2);
    cr_assert_eq(t.inodes, 3);
    cr_assert_eq(w_reap(&w, f), 0);
    cr_assert_eq(w_reap(&w, d), 0);
    cr_assert_eq(w_reap(&w, ROOT), 0, "what is no orphan is left alone");
    state_totals(w.s, &t);
    cr_assert_eq(t.inodes, 1);
    struct inode i;
    cr_assert_eq(state_inode(w.s, f, &i), -ESTALE);
}

Test(state_namespace, names_are_checked)
{
    char longest[STATE_NAME_MAX + 2];

    memset(longest, 'n', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    cr_assert_eq(w_create(&w, ROOT, longest), -ENAMETOOLONG);
    longest[STATE_NAME_MAX] = '\0';
    uint64_t f = ok(w_create(&w, ROOT, longest));
    cr_assert_eq(w_lookup(&w, ROOT, longest), f);
    cr_assert_eq(w_create(&w, ROOT, ""), -EINVAL);
    cr_assert_eq(w_create(&w, ROOT, "a/b"), -EINVAL);
    cr_assert_eq(w_create(&w, ROOT, "."), -EEXIST);
    cr_assert_eq(w_mkdir(&w, ROOT, ".."), -EEXIST);
    struct inode i;
    cr_assert_eq(state_lookup(w.s, ROOT, longest, 256, &i), -ENAMETOOLONG);
    cr_assert_eq(state_lookup(w.s, f, "x", 1, &i), -ENOTDIR);
    cr_assert_eq(w_rename(&w, ROOT, longest, ROOT, "\xff\xfe odd \n", 0), 0);
    cr_assert_eq(w_lookup(&w, ROOT, "\xff\xfe odd \n"), f);
}

Test(state_namespace, links)
{
    uint64_t d = ok(w_mkdir(&w, ROOT, "d")), f = ok(w_create(&w, ROOT, "f"));

    cr_assert_eq(w_link(&w, f, d, "g"), 0);
    Star__EntryReply *r = world_reply(&w, &star__entry_reply__descriptor);
    cr_assert_eq(r->attr->nlink, 2);
    cr_assert_eq(r->parent->ino, d);
    cr_assert_eq(w_link(&w, f, d, "g"), -EEXIST);
    cr_assert_eq(w_link(&w, d, ROOT, "e"), -EPERM);
    cr_assert_eq(w_link(&w, 777, d, "h"), -ESTALE);
    cr_assert_eq(w_unlink(&w, ROOT, "f"), 0);
    cr_assert_eq(w_inode(&w, f).nlink, 1);
    cr_assert_not(w_inode(&w, f).orphan);
    /* A later link is known again. */
    char path[64];
    cr_assert_eq(state_path(w.s, f, path, sizeof(path)), 0);
    cr_assert_str_eq(path, "(inode 3)");
    cr_assert_eq(w_link(&w, f, d, "h"), 0);
    cr_assert_eq(state_path(w.s, f, path, sizeof(path)), 0);
    cr_assert_str_eq(path, "/d/h");
}

Test(state_namespace, link_count_has_an_end)
{
    uint64_t f = ok(w_create(&w, ROOT, "f"));
    char name[16];
    int rc = 0;

    for (unsigned n = 1; n < STATE_LINK_MAX; n++) {
        snprintf(name, sizeof(name), "l%u", n);
        rc |= w_link(&w, f, ROOT, name);
    }
    cr_assert_eq(rc, 0);
    cr_assert_eq(w_link(&w, f, ROOT, "more"), -EMLINK);
    cr_assert_eq(w_inode(&w, f).nlink, STATE_LINK_MAX);
}

Test(state_namespace, kinds_of_inodes)
{
    w.uid = 7;
    w.gid = 8;
    w.umask = 027;
    uint64_t p = ok(world_make(&w, STAR__MSG_TYPE__MKNOD, ROOT, "p", S_IFIFO | 0666, NULL));
    cr_assert_eq(w_inode(&w, p).mode, S_IFIFO | 0640);
    cr_assert_eq(w_inode(&w, p).uid, 7);
    cr_assert_eq(w_inode(&w, p).gid, 8);
    uint64_t f = ok(world_make(&w, STAR__MSG_TYPE__MKNOD, ROOT, "f", 0666, NULL));
    cr_assert_eq(w_inode(&w, f).mode, S_IFREG | 0640);
    cr_assert_eq(world_make(&w, STAR__MSG_TYPE__MKNOD, ROOT, "d", S_IFDIR | 0755, NULL), -EPERM);
    cr_assert_eq(world_make(&w, STAR__MSG_TYPE__MKNOD, ROOT, "q", 0150000, NULL), -EINVAL);
    uint64_t l = ok(w_symlink(&w, ROOT, "l", "to/there"));
    cr_assert_eq(w_inode(&w, l).mode, S_IFLNK | 0777);
    cr_assert_eq(w_inode(&w, l).size, 8);
    cr_assert_eq(w_symlink(&w, ROOT, "m", ""), -ENOENT);
    char target[16];
    size_t len;
    cr_assert_eq(state_readlink(w.s, l, target, sizeof(target), &len), 0);
    cr_assert_eq(len, 8);
    cr_assert_eq(memcmp(target, "to/there", 8), 0);
    cr_assert_eq(state_readlink(w.s, f, target, sizeof(target), &len), -EINVAL);
    cr_assert_eq(state_readlink(w.s, l, target, 4, &len), -ERANGE);
    cr_assert_eq(w_link(&w, l, ROOT, "l2"), 0, "a symlink can have two names");
    cr_assert_eq(w_unlink(&w, ROOT, "l"), 0);
    cr_assert_eq(w_unlink(&w, ROOT, "l2"), 0);
    cr_assert_eq(w_reap(&w, l), 0);
}

Test(state_namespace, set_group_id_directories)
{
    uint64_t d = ok(w_mkdir(&w, ROOT, "d"));
    Star__SetAttr q = STAR__SET_ATTR__INIT;

    q.ino = d;
    q.valid = 1 | 4;
    q.mode = 02775;
    q.gid = 50;
    cr_assert_eq(w_setattr(&w, &q), 0);
    cr_assert_eq(w_inode(&w, d).mode, S_IFDIR | 02775, "chown leaves a directory's bits");
    w.gid = 8;
    uint64_t e = ok(w_mkdir(&w, d, "e")), f = ok(w_create(&w, d, "f"));
    cr_assert_eq(w_inode(&w, e).mode, S_IFDIR | 02755);
    cr_assert_eq(w_inode(&w, e).gid, 50);
    cr_assert_eq(w_inode(&w, f).mode, S_IFREG | 0644);
    cr_assert_eq(w_inode(&w, f).gid, 50);
}

Test(state_namespace, inode_numbers_are_new)
{
    ok(w_create(&w, ROOT, "a"));
    w.ino = 1; /* the next one would be 2 again */
    cr_assert_eq(w_create(&w, ROOT, "b"), -EINVAL);
    w.ino = 9;
    cr_assert_eq(w_create(&w, ROOT, "a"), -EEXIST);
    cr_assert_eq(state_last_ino(w.s), 10, "a number is used up by a command that failed, too");
}

/* --- times and counters --- */

Test(state_namespace, times_and_change)
{
    uint64_t d = ok(w_mkdir(&w, ROOT, "d")), f = ok(w_create(&w, d, "f"));
    struct inode before = w_inode(&w, d), i;

    cr_assert_eq(before.mtime.sec, w.now.sec);
    w_create(&w, d, "f");
    i = w_inode(&w, d);
    cr_assert_eq(i.change, before.change, "a refusal changes nothing");
    cr_assert_eq(i.mtime.sec, before.mtime.sec);
    w_link(&w, f, d, "g");
    i = w_inode(&w, f);
    cr_assert_eq(i.ctime.sec, w.now.sec);
    cr_assert_lt(i.mtime.sec, w.now.sec);
    w_unlink(&w, d, "g");
    cr_assert_eq(w_inode(&w, f).ctime.sec, w.now.sec);
    cr_assert_eq(w_inode(&w, d).mtime.sec, w.now.sec);
    cr_assert_gt(w_inode(&w, d).change, before.change);
    uint64_t newest = state_last_time_ns(w.s);
    cr_assert_eq(newest, (uint64_t)w.now.sec * 1000000000u);
    w.now.sec = 5; /* a clock that goes back is not followed */
    w_unlink(&w, d, "f");
    cr_assert_eq(state_last_time_ns(w.s), newest);
}

Test(state_namespace, setattr_times_and_owner)
{
    uint64_t f = ok(w_create(&w, ROOT, "f"));
    Star__SetAttr q = STAR__SET_ATTR__INIT;
    Star__Time t = STAR__TIME__INIT;

    t.sec = -77;
    t.nsec = 123456789;
    q.ino = f;
    q.valid = 16 | 32;
    q.atime = q.mtime = &t;
    cr_assert_eq(w_setattr(&w, &q), 0);
    Star__AttrReply *r = world_reply(&w, &star__attr_reply__descriptor);
    cr_assert_eq(r->attr->mtime->sec, -77);
    cr_assert_eq(r->attr->mtime->nsec, 123456789);
    cr_assert_eq(r->attr->ctime->sec, w.now.sec);
    q.valid = 16 | 32 | 128 | 256;
    cr_assert_eq(w_setattr(&w, &q), 0);
    cr_assert_eq(w_inode(&w, f).atime.sec, w.now.sec);
    cr_assert_eq(w_inode(&w, f).mtime.sec, w.now.sec);
    t.nsec = 1000000000;
    cr_assert_eq(w_setattr(&w, &q), -EINVAL);
    q.atime = q.mtime = NULL;
    q.valid = 32;
    cr_assert_eq(w_setattr(&w, &q), -EINVAL);
    q.valid = 2;
    q.uid = UINT32_MAX;
    cr_assert_eq(w_setattr(&w, &q), -EINVAL);
    q.ino = 4711;
    cr_assert_eq(w_setattr(&w, &q), -ESTALE);
}

static uint32_t chown_from(uint64_t f, uint32_t mode, uint32_t uid, uint32_t gid)
{
    Star__SetAttr q = STAR__SET_ATTR__INIT;

    cr_assert_eq(w_chmod(&w, f, mode), 0);
    w.uid = uid;
    w.gid = gid;
    q.ino = f;
    q.valid = 2;
    q.uid = 9;
    cr_assert_eq(w_setattr(&w, &q), 0);
    w.uid = w.gid = 0;
    return w_inode(&w, f).mode & 07777;
}

Test(state_namespace, chown_and_write_take_set_id_bits)
{
    uint64_t f = ok(w_create(&w, ROOT, "f"));
    Star__SetAttr q = STAR__SET_ATTR__INIT;

    cr_assert_eq(chown_from(f, 06755, 0, 0), 0755, "root's chown takes them, too");
    cr_assert_eq(chown_from(f, 02644, 0, 0), 02644, "without group execution it is no set-id bit");
    cr_assert_eq(chown_from(f, 02644, 5, 5), 0644);
    cr_assert_eq(chown_from(f, 02644, 5, 0), 02644, "a member of the group keeps it");
    cr_assert_eq(w_chmod(&w, f, 06755), 0);
    cr_assert_eq(
        w_xattr(&w, STAR__MSG_TYPE__SETXATTR, f, "security.capability", "caps", 4, 0, false), 0);
    q.ino = f;
    q.valid = 2048;
    cr_assert_eq(w_setattr(&w, &q), 0);
    cr_assert_eq(w_inode(&w, f).mode & 07777, 0755);
    size_t len;
    cr_assert_eq(state_getxattr(w.s, f, "security.capability", NULL, 0, &len), -ENODATA);
    cr_assert_eq(w_chmod(&w, f, 06744), 0);
    cr_assert_eq(w_setattr(&w, &q), 0);
    cr_assert_eq(w_inode(&w, f).mode & 07777, 02744);
}

Test(state_namespace, size_without_a_home)
{
    uint64_t f = ok(w_create(&w, ROOT, "f")), d = ok(w_mkdir(&w, ROOT, "d"));
    Star__SetAttr q = STAR__SET_ATTR__INIT;
    struct state_totals t;

    q.ino = f;
    q.valid = 8;
    q.size = 1000;
    cr_assert_eq(w_setattr(&w, &q), 0);
    Star__AttrReply *r = world_reply(&w, &star__attr_reply__descriptor);
    cr_assert_eq(r->attr->size, 1000);
    cr_assert_eq(r->attr->blocks, 0, "all of it is a hole");
    cr_assert_eq(r->attr->mtime->sec, w.now.sec);
    state_totals(w.s, &t);
    cr_assert_eq(t.bytes, 1000);
    q.size = (uint64_t)INT64_MAX + 1;
    cr_assert_eq(w_setattr(&w, &q), -EFBIG);
    q.ino = d;
    q.size = 0;
    cr_assert_eq(w_setattr(&w, &q), -EISDIR);
    q.ino = ok(w_symlink(&w, ROOT, "l", "x"));
    cr_assert_eq(w_setattr(&w, &q), -EINVAL);
    w_unlink(&w, ROOT, "f");
    w_reap(&w, f);
    state_totals(w.s, &t);
    cr_assert_eq(t.bytes, 0);
}

/* --- homes --- */

static int says(uint64_t ino, uint64_t epoch, uint64_t version, uint64_t size)
{
    Star__HomeAttrs h = STAR__HOME_ATTRS__INIT, *list = &h;
    Star__NodeAttrs q = STAR__NODE_ATTRS__INIT;
    Star__Time t = STAR__TIME__INIT;

    t.sec = 100000;
    h.ino = ino;
    h.home_epoch = epoch;
    h.version = version;
    h.size = size;
    h.mtime = h.ctime = &t;
    q.n_attrs = 1;
    q.attrs = &list;
    return world_apply(&w, STAR__LOG_TYPE__LOG_HOME_ATTRS, &q.base);
}

Test(state_namespace, what_homes_say)
{
    int node = w_node(&w, 0, "node-1", "ready");
    cr_assert_eq(node, 1);
    w.node = 1;
    uint64_t f = ok(w_create(&w, ROOT, "f"));
    struct inode i = w_inode(&w, f);
    cr_assert_eq(i.home, 1);
    cr_assert_eq(i.home_epoch, 1);
    uint64_t change = i.change;
    cr_assert_eq(says(f, 1, 5, 5000), 0);
    i = w_inode(&w, f);
    cr_assert_eq(i.size, 5000);
    cr_assert_eq(i.version, 5);
    cr_assert_eq(i.mtime.sec, 100000);
    cr_assert_gt(i.change, change);
    cr_assert_eq(says(f, 1, 5, 1), 0, "not newer");
    cr_assert_eq(says(f, 2, 9, 1), 0, "another epoch");
    cr_assert_eq(says(99, 1, 9, 1), 0, "no such file");
    cr_assert_eq(w_inode(&w, f).size, 5000);

    /* A size goes by the home only. */
    Star__SetAttr q = STAR__SET_ATTR__INIT;
    Star__HomeAttrs h = STAR__HOME_ATTRS__INIT;
    q.ino = f;
    q.valid = 8;
    q.size = 100;
    cr_assert_eq(w_setattr(&w, &q), -EAGAIN);
    h.ino = f;
    h.home_epoch = 1;
    h.version = 6;
    h.size = 100;
    q.home = &h;
    cr_assert_eq(w_setattr(&w, &q), 0);
    cr_assert_eq(w_inode(&w, f).size, 100);

    Star__LogHome take = STAR__LOG_HOME__INIT;
    take.ino = f;
    take.node = 2;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_TAKE_HOME, &take.base), -ENODEV);
    cr_assert_eq(w_node(&w, 0, "node-2", "ready"), 2);
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_TAKE_HOME, &take.base), 0);
    Star__LogHome *r = world_reply(&w, &star__log_home__descriptor);
    cr_assert_eq(r->epoch, 2);
    cr_assert_eq(says(f, 1, 99, 1), 0);
    cr_assert_eq(w_inode(&w, f).size, 100, "the old home has nothing to say");
    take.epoch = 2;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_TAKE_HOME, &take.base), -ESTALE);
    take.ino = ROOT;
    take.epoch = 0;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_TAKE_HOME, &take.base), -EINVAL);
}

Test(state_namespace, nodes_have_one_number_each)
{
    cr_assert_eq(w_node(&w, 0, "node-1", "ready"), 1);
    cr_assert_eq(w_node(&w, 0, "node-2", "ready"), 2);
    cr_assert_eq(w_node(&w, 0, "node-1", "ready"), 1, "known by its name and store");
    cr_assert_eq(w_node(&w, 1, "node-2", "ready"), -EEXIST);
    cr_assert_eq(w_node(&w, 5, "node-5", "ready"), -ENOENT);
    cr_assert_eq(w_node(&w, 1, "node-1", "asleep"), -EINVAL);
    cr_assert_eq(w_node(&w, 0, "", "ready"), -EINVAL);
    cr_assert_eq(w_node(&w, 2, "node-2", "gone"), 2);
    cr_assert_eq(w_node(&w, 2, "node-2", "ready"), -ENODEV, "given up is for ever");
    cr_assert_eq(w_node(&w, 0, "node-3", "ready"), 3);
    w.node = 2;
    uint64_t f = ok(w_create(&w, ROOT, "f"));
    cr_assert_eq(w_inode(&w, f).home, 0, "a node that was given up is no home");
}

/* --- listing --- */

struct page {
    char names[4096];
    unsigned n, most;
    uint64_t last;
};

static bool page_entry(void *arg, const char *name, size_t len, uint64_t ino, uint32_t type,
                       uint64_t cookie)
{
    struct page *p = arg;

    (void)ino, (void)type;
    if (p->n == p->most)
        return false;
    cr_assert_gt(cookie, p->last);
    p->last = cookie;
    p->n++;
    snprintf(p->names + strlen(p->names), sizeof(p->names) - strlen(p->names), "%.*s ", (int)len,
             name);
    return true;
}

static const char *list(uint64_t dir, unsigned at_once)
{
    static struct page p;
    bool eof = false;

    p = (struct page){0};
    while (!eof) {
        p.n = 0;
        p.most = at_once;
        cr_assert_eq(state_readdir(w.s, dir, p.last, page_entry, &p, &eof), 0);
        cr_assert(eof || p.n == at_once);
    }
    return p.names;
}

Test(state_namespace, listing)
{
    uint64_t d = ok(w_mkdir(&w, ROOT, "d"));

    cr_assert_str_eq(list(d, 100), ". .. ");
    for (char c = 'e'; c > 'a'; c--)
        ok(w_create(&w, d, (char[]){c, 0}));
    ok(w_create(&w, ROOT, "other"));
    cr_assert_str_eq(list(d, 100), ". .. e d c b ");
    for (unsigned n = 1; n < 8; n++)
        cr_assert_str_eq(list(d, n), ". .. e d c b ");
    world_commit(&w);
    cr_assert_str_eq(list(d, 1), ". .. e d c b ", "outside of a turn");
    w_unlink(&w, d, "d");
    w_rename(&w, d, "c", d, "b", 0);
    cr_assert_str_eq(list(d, 2), ". .. e b ");
    bool eof;
    struct page p = {.most = 1};
    uint64_t f = w_lookup(&w, d, "e");
    cr_assert_eq(state_readdir(w.s, f, 0, page_entry, &p, &eof), -ENOTDIR);
    cr_assert_eq(state_readdir(w.s, d, UINT64_MAX, page_entry, &p, &eof), 0);
    cr_assert(eof);
}

/* What is there all the time is listed once, whatever comes and goes meanwhile. */
Test(state_namespace, listing_while_it_changes)
{
    uint64_t d = ok(w_mkdir(&w, ROOT, "d"));
    char name[16];
    bool eof = false;
    struct page p = {.most = 3};
    unsigned seen = 0, more = 0;

    for (unsigned n = 0; n < 200; n++) {
        snprintf(name, sizeof(name), n % 2 ? "stay%u" : "go%u", n);
        ok(w_create(&w, d, name));
    }
    while (!eof) {
        p.n = 0;
        p.names[0] = '\0';
        cr_assert_eq(state_readdir(w.s, d, p.last, page_entry, &p, &eof), 0);
        for (const char *at = p.names; (at = strstr(at, "stay")); at++)
            seen++;
        snprintf(name, sizeof(name), "go%u", more * 2);
        if (more < 100)
            cr_assert_eq(w_unlink(&w, d, name), 0);
        more++;
    }
    cr_assert_eq(seen, 100);
}

Test(state_namespace, paths)
{
    char path[32], deep[400] = "";
    uint64_t d = ok(w_mkdir(&w, ROOT, "d")), e = ok(w_mkdir(&w, d, "e")),
             f = ok(w_create(&w, e, "f"));

    cr_assert_eq(state_path(w.s, f, path, sizeof(path)), 0);
    cr_assert_str_eq(path, "/d/e/f");
    cr_assert_eq(state_path(w.s, ROOT, path, sizeof(path)), 0);
    cr_assert_str_eq(path, "/");
    cr_assert_eq(w_rename(&w, ROOT, "d", ROOT, "ddddddddddddddddddddddddddddd", 0), 0);
    cr_assert_eq(state_path(w.s, f, path, sizeof(path)), 0);
    cr_assert_str_eq(path, ".../e/f");
    w_unlink(&w, e, "f");
    cr_assert_eq(state_path(w.s, f, path, sizeof(path)), 0);
    cr_assert_str_eq(path, "(inode 4)");
    cr_assert_eq(state_path(w.s, 12345, path, sizeof(path)), 0);
    cr_assert_str_eq(path, "(inode 12345)");
    for (unsigned n = 0; n < 30; n++) {
        e = ok(w_mkdir(&w, e, "0123456789"));
        strcat(deep, "/0123456789");
    }
    char full[512];
    cr_assert_eq(state_path(w.s, e, full, sizeof(full)), 0);
    cr_assert(strstr(full, deep) != NULL);
}

/* --- attributes with names --- */

static int put(uint64_t ino, const char *name, const char *value, uint32_t flags)
{
    return w_xattr(&w, STAR__MSG_TYPE__SETXATTR, ino, name, value, strlen(value), flags, false);
}

static int take(uint64_t ino, const char *name)
{
    return w_xattr(&w, STAR__MSG_TYPE__REMOVEXATTR, ino, name, NULL, 0, 0, false);
}

Test(state_namespace, xattrs)
{
    uint64_t f = ok(w_create(&w, ROOT, "f")), g = ok(w_create(&w, ROOT, "g"));
    char value[16], names[64];
    size_t len;

    cr_assert_eq(put(f, "user.b", "two", 0), 0);
    cr_assert_eq(put(f, "user.a", "one", 1), 0);
    cr_assert_eq(put(f, "user.a", "1", 1), -EEXIST);
    cr_assert_eq(put(f, "user.c", "1", 2), -ENODATA);
    cr_assert_eq(put(f, "user.a", "", 2), 0);
    cr_assert_eq(put(f, "user.a", "1", 4), -EINVAL);
    cr_assert_eq(put(f, "security.selinux", "x", 0), 0);
    cr_assert_eq(put(f, "trusted.t", "x", 0), 0);
    cr_assert_eq(put(f, "system.other", "x", 0), -EOPNOTSUPP);
    cr_assert_eq(put(f, "nothing", "x", 0), -EOPNOTSUPP);
    cr_assert_eq(put(f, "", "x", 0), -EINVAL);
    cr_assert_eq(put(999, "user.x", "x", 0), -ESTALE);
    cr_assert_eq(state_getxattr(w.s, f, "user.b", value, sizeof(value), &len), 0);
    cr_assert_eq(len, 3);
    cr_assert_eq(memcmp(value, "two", 3), 0);
    cr_assert_eq(state_getxattr(w.s, f, "user.b", value, 2, &len), -ERANGE);
    cr_assert_eq(state_getxattr(w.s, f, "user.b", NULL, 0, &len), 0);
    cr_assert_eq(state_getxattr(w.s, f, "user.a", value, sizeof(value), &len), 0);
    cr_assert_eq(len, 0);
    cr_assert_eq(state_getxattr(w.s, g, "user.b", value, sizeof(value), &len), -ENODATA);
    cr_assert_eq(state_listxattr(w.s, f, names, sizeof(names), &len), 0);
    static const char want[] = "security.selinux\0trusted.t\0user.a\0user.b";
    cr_assert_eq(len, sizeof(want));
    cr_assert_eq(memcmp(names, want, len), 0);
    cr_assert_eq(state_listxattr(w.s, f, names, 5, &len), -ERANGE);
    cr_assert_eq(state_listxattr(w.s, g, names, sizeof(names), &len), 0);
    cr_assert_eq(len, 0);
    cr_assert_eq(take(f, "user.a"), 0);
    cr_assert_eq(take(f, "user.a"), -ENODATA);
    cr_assert_eq(w_inode(&w, f).ctime.sec, w.now.sec - 1);
    cr_assert_eq(w_unlink(&w, ROOT, "f"), 0);
    cr_assert_eq(w_reap(&w, f), 0);
}

Test(state_namespace, xattrs_have_bounds)
{
    uint64_t f = ok(w_create(&w, ROOT, "f"));
    static char big[STATE_XATTR_VALUE_MAX + 1];
    char name[300] = "user.";
    int rc, n = 0;

    cr_assert_eq(w_xattr(&w, STAR__MSG_TYPE__SETXATTR, f, "user.b", big, sizeof(big), 0, false),
                 -E2BIG);
    do {
        snprintf(name, sizeof(name), "user.%d", n++);
        rc = w_xattr(&w, STAR__MSG_TYPE__SETXATTR, f, name, big, sizeof(big) - 1, 0, false);
    } while (rc == 0);
    cr_assert_eq(rc, -ENOSPC);
    cr_assert_eq(n, 16, "1 MiB in all, names included");
    memset(name + 5, 'n', 251);
    name[256] = '\0';
    cr_assert_eq(put(f, name, "x", 0), -ERANGE);
    name[255] = '\0';
    cr_assert_eq(put(f, name, "x", 0), 0);
    uint64_t g = ok(w_create(&w, ROOT, "g"));
    for (n = 0, rc = 0; rc == 0 && n < 1000; n++) {
        memcpy(name + 5, (char[]){(char)('a' + n / 26), (char)('a' + n % 26)}, 2);
        rc = put(g, name, "", 0);
    }
    cr_assert_eq(rc, -ENOSPC);
    static char names[65536];
    size_t len;
    cr_assert_eq(state_listxattr(w.s, g, names, sizeof(names), &len), 0,
                 "what was taken can be listed");
}
