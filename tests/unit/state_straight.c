/* The state: what a mount confirms that writes straight to the pool, and what fences it. */
#include "tests/state_world.h"

#include <criterion/criterion.h>

static struct world w;
static uint64_t mount, ino;

static int take_home(uint32_t node, uint64_t epoch, Star__HomeAttrs *flushed)
{
    Star__LogHome q = STAR__LOG_HOME__INIT;

    w.session = 0;
    q.ino = ino;
    q.node = node;
    q.epoch = epoch;
    q.flushed = flushed;
    return world_apply(&w, STAR__LOG_TYPE__LOG_TAKE_HOME, &q.base);
}

static void set_up(void)
{
    world_start(&w);
    cr_assert_eq(w_node(&w, 0, "node-1", "ready"), 1);
    mount = w_session(&w, "mnt");
    w.node = 1;
    ino = (uint64_t)w_create(&w, STATE_ROOT_INO, "file");
    w.node = 0;
}

static void tear_down(void)
{
    cr_assert_eq(world_check(&w), 0);
    world_end(&w);
}

TestSuite(state_straight, .init = set_up, .fini = tear_down);

static uint64_t packs(uint64_t session)
{
    Star__StraightPacks q = STAR__STRAIGHT_PACKS__INIT;

    w.session = session;
    q.count = 2;
    cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__STRAIGHT_PACKS, &q.base), 0);
    Star__AllocPacksReply *r = world_reply(&w, &star__alloc_packs_reply__descriptor);
    cr_assert_eq(r->count, 2);
    return r->first;
}

/* -errno, or how many files were refused. */
static int confirm(uint64_t session, uint64_t pack, uint64_t epoch, uint64_t version,
                   uint64_t offset, uint64_t length)
{
    Star__StraightConfirm q = STAR__STRAIGHT_CONFIRM__INIT;
    Star__Confirm cut = STAR__CONFIRM__INIT;
    Star__ConfirmPack p = STAR__CONFIRM_PACK__INIT, *ps[] = {&p};
    Star__CutFile f = STAR__CUT_FILE__INIT, *fs[] = {&f};
    Star__HomeAttrs a = STAR__HOME_ATTRS__INIT;
    Star__Time t = STAR__TIME__INIT;
    Star__CutRecord r = STAR__CUT_RECORD__INIT, *rs[] = {&r};

    p.pack = r.pack = pack;
    p.size = 4 << 20;
    t.sec = 77;
    a.ino = ino;
    a.size = offset + length;
    a.version = version;
    a.home_epoch = epoch;
    a.mtime = a.ctime = &t;
    r.offset = offset;
    r.length = length;
    r.pack_offset = 4096;
    f.attrs = &a;
    f.cut = version;
    f.base_limit = UINT64_MAX;
    f.n_records = 1;
    f.records = rs;
    cut.n_packs = cut.n_files = 1;
    cut.packs = ps;
    cut.files = fs;
    q.cut = &cut;
    w.session = session;
    int rc = world_apply(&w, STAR__MSG_TYPE__STRAIGHT_CONFIRM, &q.base);
    if (rc < 0)
        return rc;
    return (int)((Star__ConfirmReply *)world_reply(&w, &star__confirm_reply__descriptor))
        ->n_refused;
}

struct found {
    uint64_t pack;
    enum pack_state state;
};

static bool find(void *arg, const struct state_pack *p)
{
    struct found *f = arg;

    if (p->id == f->pack)
        f->state = p->state;
    return true;
}

static enum pack_state state_of(uint64_t pack)
{
    struct found f = {.pack = pack};

    cr_assert_eq(state_packs(w.s, 0, find, &f), 0);
    return f.state;
}

static uint64_t begun(void)
{
    uint64_t epoch = w_inode(&w, ino).home_epoch + 1;

    cr_assert_eq(take_home(0, epoch, NULL), 0);
    cr_assert_eq(w_inode(&w, ino).home, 0);
    return epoch;
}

Test(state_straight, cuts_make_the_file)
{
    uint64_t epoch = begun(), pack = packs(mount);

    cr_assert_eq(confirm(mount, pack, epoch, 5, 0, 1000), 0);
    cr_expect_eq(w_inode(&w, ino).size, 1000);
    cr_expect_eq(w_inode(&w, ino).mtime.sec, 77);
    cr_expect_eq(state_of(pack), PACK_LIVE);
    cr_assert_eq(confirm(mount, pack + 1, epoch, 9, 1000, 500), 0);
    cr_expect_eq(w_inode(&w, ino).size, 1500);
    cr_expect_eq(w_inode(&w, ino).mapped, 1500);
    cr_expect_eq(w_inode(&w, ino).version, w_inode(&w, ino).cut_version);
}

Test(state_straight, who_takes_the_home_fences_it)
{
    uint64_t epoch = begun(), pack = packs(mount);

    cr_assert_eq(confirm(mount, pack, epoch, 5, 0, 1000), 0);
    cr_assert_eq(take_home(1, epoch + 1, NULL), 0);
    cr_expect_eq(confirm(mount, pack + 1, epoch, 9, 1000, 500), 1, "refused");
    cr_expect_eq(w_inode(&w, ino).size, 1000);
    cr_expect_eq(state_of(pack + 1), PACK_CONDEMNED);
}

Test(state_straight, the_end_of_the_session_fences_it)
{
    uint64_t epoch = begun(), pack = packs(mount);
    Star__LogSession end = STAR__LOG_SESSION__INIT;

    cr_assert_eq(confirm(mount, pack, epoch, 5, 0, 1000), 0);
    w.session = 0;
    end.session = mount;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_SESSION_END, &end.base), 0);
    cr_expect_eq(state_of(pack), PACK_LIVE, "what was confirmed stays");
    cr_expect_eq(state_of(pack + 1), PACK_CONDEMNED, "the rest is garbage");
    cr_expect_eq(confirm(mount, pack + 1, epoch, 9, 1000, 500), -ESTALE);
    cr_expect_eq(w_inode(&w, ino).size, 1000);
}

Test(state_straight, packs_are_their_sessions_own)
{
    uint64_t epoch = begun(), pack = packs(mount), other = w_session(&w, "other");

    cr_expect_eq(confirm(other, pack, epoch, 5, 0, 1000), -EPERM);
    cr_expect_eq(confirm(0, pack, epoch, 5, 0, 1000), -EINVAL, "nobody's");
    cr_expect_eq(w_inode(&w, ino).size, 0);
}

Test(state_straight, a_home_with_more_than_the_pool_is_not_given_up)
{
    Star__NodeAttrs said = STAR__NODE_ATTRS__INIT;
    Star__HomeAttrs a = STAR__HOME_ATTRS__INIT, *list[] = {&a};

    a.ino = ino;
    a.size = 123;
    a.version = 3;
    a.home_epoch = w_inode(&w, ino).home_epoch;
    said.n_attrs = 1;
    said.attrs = list;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_HOME_ATTRS, &said.base), 0);
    cr_expect_eq(take_home(0, a.home_epoch + 1, NULL), -EBUSY);
    cr_expect_eq(w_inode(&w, ino).home, 1);
    a.version = 2;
    cr_expect_eq(take_home(0, a.home_epoch + 1, &a), -ESTALE, "an old word of it");
    a.version = 4;
    a.size = 456;
    cr_expect_eq(take_home(0, a.home_epoch + 1, &a), 0, "its last word, and all is flushed");
    cr_expect_eq(w_inode(&w, ino).size, 456);
    cr_expect_eq(w_inode(&w, ino).cut_version, 4);
}
