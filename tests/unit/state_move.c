/* The state: records that gc moves into other packs. */
#include "tests/state_world.h"

#include <criterion/criterion.h>

enum { RECORDS = 8, PACK_SIZE = 1 << 22, LENGTH = 1000 };

static struct world w;
static uint64_t ino, seed = 11, version = 1, cut;

static unsigned random_below(unsigned n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

static uint64_t alloc_packs(uint32_t count)
{
    Star__AllocPacks q = STAR__ALLOC_PACKS__INIT;

    q.count = count;
    cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &q.base), 0);
    return ((Star__AllocPacksReply *)world_reply(&w, &star__alloc_packs_reply__descriptor))->first;
}

/* Records [first, first + count) of LENGTH bytes, one behind the other in the file. */
static uint64_t confirm(uint64_t first, uint64_t count)
{
    Star__Confirm q = STAR__CONFIRM__INIT;
    Star__ConfirmPack pack = STAR__CONFIRM_PACK__INIT, *packs = &pack;
    Star__CutFile file = STAR__CUT_FILE__INIT, *files = &file;
    Star__HomeAttrs attrs = STAR__HOME_ATTRS__INIT;
    Star__CutRecord record[RECORDS], *records[RECORDS];

    q.node = w.node;
    q.n_packs = q.n_files = 1;
    q.packs = &packs;
    q.files = &files;
    pack.pack = alloc_packs(1);
    pack.size = PACK_SIZE;
    file.attrs = &attrs;
    file.cut = ++cut;
    file.base_limit = UINT64_MAX;
    file.records = records;
    file.n_records = count;
    attrs.ino = ino;
    attrs.size = RECORDS * LENGTH;
    attrs.version = ++version;
    attrs.home_epoch = 1;
    for (uint32_t n = 0; n < count; n++) {
        star__cut_record__init(&record[n]);
        records[n] = &record[n];
        record[n].offset = (first + n) * LENGTH;
        record[n].length = LENGTH;
        record[n].number = n;
        record[n].pack_offset = 64 + n * 2000;
        record[n].pack = pack.pack;
    }
    cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__CONFIRM, &q.base), 0);
    return pack.pack;
}

static void set_up(void)
{
    version = 1;
    cut = 0;
    world_start(&w);
    cr_assert_eq(w_node(&w, 0, "node-1", "ready"), 1);
    cr_assert_eq(w_node(&w, 0, "node-2", "ready"), 2);
    w.node = 1;
    ino = (uint64_t)w_create(&w, ROOT, "f");
}

static void tear_down(void)
{
    cr_assert_eq(world_check(&w), 0);
    world_end(&w);
}

TestSuite(state_move, .init = set_up, .fini = tear_down);

struct find_pack {
    uint64_t id;
    struct state_pack p;
};

static bool find_pack(void *arg, const struct state_pack *p)
{
    struct find_pack *f = arg;

    if (p->id == f->id)
        f->p = *p;
    return p->id < f->id;
}

static struct state_pack pack_of(uint64_t id)
{
    struct find_pack f = {.id = id};

    cr_assert_eq(state_packs(w.s, id - 1, find_pack, &f), 0);
    return f.p;
}

struct list {
    struct state_record r[64];
    size_t n;
};

static bool add_record(void *arg, const struct state_record *r)
{
    struct list *l = arg;

    cr_assert(l->n == 0 || l->r[l->n - 1].number < r->number);
    l->r[l->n++] = *r;
    return l->n < 64;
}

static struct list records_of(uint64_t pack)
{
    struct list l = {.n = 0};

    cr_assert_eq(state_pack_records(w.s, pack, 0, add_record, &l), 0);
    return l;
}

struct extents {
    Star__Extent e[64];
    size_t n;
};

static bool add_extent(void *arg, const Star__Extent *e)
{
    struct extents *x = arg;

    cr_assert_lt(x->n, 64);
    x->e[x->n++] = *e;
    return true;
}

static struct extents map(void)
{
    struct extents x = {.n = 0};

    cr_assert_eq(state_map(w.s, ino, 0, UINT64_MAX, add_extent, &x), 0);
    return x;
}

/* A move in the making: all of l, as read from where l says, to one pack. */
struct move {
    Star__Moved q;
    Star__ConfirmPack pack, *packs[2];
    Star__MovedRecord record[64], *records[64];
};

static void move_make(struct move *m, const struct list *l, uint64_t to)
{
    memset(m, 0, sizeof(*m));
    star__moved__init(&m->q);
    star__confirm_pack__init(&m->pack);
    m->pack.pack = to;
    m->pack.size = PACK_SIZE;
    m->packs[0] = m->packs[1] = &m->pack;
    m->q.node = w.node;
    m->q.n_packs = 1;
    m->q.packs = m->packs;
    m->q.n_records = l->n;
    m->q.records = m->records;
    for (uint32_t n = 0; n < l->n; n++) {
        star__moved_record__init(&m->record[n]);
        m->records[n] = &m->record[n];
        m->record[n].record = l->r[n].id;
        m->record[n].from_pack = l->r[n].pack;
        m->record[n].from_number = l->r[n].number;
        m->record[n].pack = to;
        m->record[n].number = n + 3; /* others' records are before them */
        m->record[n].pack_offset = 20000 + n * 1500;
    }
}

static int move_apply(struct move *m)
{
    return world_apply(&w, STAR__MSG_TYPE__MOVED, &m->q.base);
}

static uint64_t moved(void)
{
    return ((Star__MovedReply *)world_reply(&w, &star__moved_reply__descriptor))->moved;
}

Test(state_move, a_record_is_found_where_it_lies)
{
    uint64_t old = confirm(0, RECORDS);
    struct list before = records_of(old), after;
    uint64_t to = alloc_packs(1);
    struct move m;

    cr_assert_eq(before.n, RECORDS);
    move_make(&m, &before, to);
    cr_assert_eq(move_apply(&m), 0);
    cr_assert_eq(moved(), RECORDS);
    cr_assert_eq(records_of(old).n, 0);
    after = records_of(to);
    cr_assert_eq(after.n, RECORDS);
    struct extents x = map();
    cr_assert_eq(x.n, RECORDS);
    for (uint32_t n = 0; n < RECORDS; n++) {
        cr_assert_eq(x.e[n].record, old << STATE_RECORD_BITS | n, "the id stays");
        cr_assert_eq(x.e[n].pack, to);
        cr_assert_eq(x.e[n].number, n + 3);
        cr_assert_eq(x.e[n].pack_offset, 20000 + n * 1500);
        cr_assert_eq(after.r[n].id, before.r[n].id);
    }
    cr_assert_eq(pack_of(old).live_records, 0);
    cr_assert_eq(pack_of(old).live_bytes, 0);
    cr_assert_eq(pack_of(to).state, PACK_LIVE);
    cr_assert_eq(pack_of(to).live_records, RECORDS);
    cr_assert_eq(pack_of(to).live_bytes, RECORDS * LENGTH);
    cr_assert_eq(pack_of(to).born, w.now.sec);

    /* The same again, as the answer was lost: nothing happens. */
    cr_assert_eq(move_apply(&m), 0);
    cr_assert_eq(moved(), 0);
    cr_assert_eq(pack_of(to).live_records, RECORDS);

    /* On to a third pack; then it dies there. */
    uint64_t third = alloc_packs(1);
    move_make(&m, &after, third);
    cr_assert_eq(move_apply(&m), 0);
    cr_assert_eq(records_of(to).n, 0);
    cr_assert_eq(records_of(third).n, RECORDS);
    cr_assert_eq(world_check(&w), 0);
    cr_assert_eq(w_unlink(&w, ROOT, "f"), 0);
    cr_assert_eq(w_reap(&w, ino), 0);
    cr_assert_eq(pack_of(third).live_records, 0);
    cr_assert_eq(records_of(third).n, 0);
}

Test(state_move, what_died_or_moved_meanwhile_is_left_alone)
{
    uint64_t old = confirm(0, RECORDS);
    struct list before = records_of(old);
    uint64_t to = alloc_packs(2);
    struct move m;

    uint64_t newer = confirm(2, 3); /* 2, 3, 4 are overwritten while the copy is made */
    move_make(&m, &before, to);
    cr_assert_eq(move_apply(&m), 0);
    cr_assert_eq(moved(), RECORDS - 3);
    struct extents x = map();
    for (uint32_t n = 0; n < RECORDS; n++)
        cr_assert_eq(x.e[n].pack, n >= 2 && n < 5 ? newer : to);
    cr_assert_eq(pack_of(to).live_records, RECORDS - 3);

    /* Another gc read them from where they are no more: its pack is garbage at once. */
    move_make(&m, &before, to + 1);
    cr_assert_eq(move_apply(&m), 0);
    cr_assert_eq(moved(), 0);
    cr_assert_eq(pack_of(to + 1).state, PACK_CONDEMNED);
    cr_assert_eq(pack_of(to).live_records, RECORDS - 3);

    /* The place was taken over by another record of the same number. */
    struct list there = records_of(to);
    uint64_t third = alloc_packs(1);
    there.r[0].number++;
    move_make(&m, &there, third);
    cr_assert_eq(move_apply(&m), 0);
    cr_assert_eq(moved(), RECORDS - 4);
}

Test(state_move, a_split_record_goes_whole)
{
    uint64_t old = confirm(0, 1), to;
    struct list before = records_of(old);
    struct move m;
    Star__HomeAttrs h = STAR__HOME_ATTRS__INIT;
    Star__SetAttr q = STAR__SET_ATTR__INIT;

    h.ino = q.ino = ino;
    h.size = q.size = LENGTH / 2; /* half of it is cut off: the record lives on */
    h.version = ++version;
    h.home_epoch = 1;
    q.valid = 8;
    q.home = &h;
    cr_assert_eq(w_setattr(&w, &q), 0);
    to = alloc_packs(1);
    move_make(&m, &before, to);
    cr_assert_eq(move_apply(&m), 0);
    cr_assert_eq(map().e[0].length, LENGTH / 2);
    cr_assert_eq(map().e[0].pack, to);
    cr_assert_eq(pack_of(to).live_bytes, LENGTH);
}

Test(state_move, refused_without_a_trace)
{
    uint64_t old = confirm(0, RECORDS), to = alloc_packs(2), size = PACK_SIZE;
    struct list before = records_of(old);
    struct move m;

#define REFUSED(want, change)                                                                      \
    do {                                                                                           \
        move_make(&m, &before, to);                                                                \
        change;                                                                                    \
        cr_assert_eq(move_apply(&m), want, "%s: %d", #change, w.result.status);                    \
        cr_assert_eq(records_of(old).n, RECORDS, "%s", #change);                                   \
        cr_assert_eq(pack_of(to).state, PACK_ALLOCATED);                                           \
    } while (0)
    REFUSED(-EPERM, m.q.node = 2);  /* another's pack */
    REFUSED(-ESTALE, m.q.node = 9); /* no such node */
    REFUSED(-EINVAL, m.q.n_packs = 0);
    REFUSED(-EINVAL, m.q.n_packs = 2);                              /* twice the same */
    REFUSED(-EINVAL, m.record[1].record = m.record[0].record);      /* twice */
    REFUSED(-EINVAL, m.record[1].number = m.record[0].number);      /* two in one place */
    REFUSED(-EINVAL, m.record[0].pack = to + 1);                    /* not among its packs */
    REFUSED(-EINVAL, m.record[0].from_pack = to);                   /* to where it is */
    REFUSED(-EINVAL, m.record[0].number = 1 << STATE_RECORD_BITS);  /* no such number */
    REFUSED(-EINVAL, m.record[7].pack_offset = size - LENGTH + 1);  /* beyond the end */
    REFUSED(-EINVAL, m.pack.pack = m.record[0].pack = to + 100000); /* never given out */
#undef REFUSED

    /* A pack that was given up is refused, whole: here with the node's process. */
    Star__AllocPacks fresh = STAR__ALLOC_PACKS__INIT;
    fresh.fresh = true;
    cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &fresh.base), 0);
    move_make(&m, &before, to);
    m.q.n_packs = 1;
    cr_assert_eq(move_apply(&m), 0, "condemned: as if confirmed before, nothing changes");
    cr_assert_eq(moved(), 0);
    cr_assert_eq(records_of(old).n, RECORDS);
    cr_assert_eq(pack_of(to).state, PACK_CONDEMNED);
}

/* Random cuts and moves against what each LENGTH of the file is. */
Test(state_move, random_cuts_and_moves)
{
    uint64_t record[RECORDS], place[RECORDS], first;
    struct move m;

    first = confirm(0, RECORDS);
    for (uint64_t n = 0; n < RECORDS; n++) {
        record[n] = first << STATE_RECORD_BITS | n;
        place[n] = first;
    }
    for (unsigned round = 0; round < 400; round++) {
        uint64_t from = random_below(RECORDS), count = 1 + random_below(RECORDS - (unsigned)from);
        if (random_below(3) == 0) {
            uint64_t pack = confirm(from, count);
            for (uint64_t n = 0; n < count; n++) {
                record[from + n] = pack << STATE_RECORD_BITS | n;
                place[from + n] = pack;
            }
        } else {
            uint64_t source = place[from], to = alloc_packs(1);
            struct list l = records_of(source);
            cr_assert_gt(l.n, 0);
            move_make(&m, &l, to);
            cr_assert_eq(move_apply(&m), 0);
            cr_assert_eq(moved(), l.n);
            for (uint64_t n = 0; n < RECORDS; n++)
                if (place[n] == source)
                    place[n] = to;
        }
        struct extents x = map();
        cr_assert_eq(x.n, RECORDS);
        for (uint64_t n = 0; n < RECORDS; n++) {
            cr_assert_eq(x.e[n].record, record[n]);
            cr_assert_eq(x.e[n].pack, place[n]);
        }
        if (round % 50 == 0)
            cr_assert_eq(world_check(&w), 0);
    }
}

static int meta_stored(uint64_t pack, uint64_t count)
{
    Star__MetaStored q = STAR__META_STORED__INIT;
    Star__ConfirmPack p = STAR__CONFIRM_PACK__INIT, *packs = &p;

    p.pack = pack;
    p.size = 1000;
    q.node = w.node;
    q.count = count;
    q.n_packs = 1;
    q.packs = &packs;
    return world_apply(&w, STAR__MSG_TYPE__META_STORED, &q.base);
}

/* The newest two copies of the state are kept, however late an older one comes. */
Test(state_move, copies_of_the_state)
{
    uint64_t p = alloc_packs(5);

    cr_assert_eq(meta_stored(p, 2), 0);
    cr_assert_eq(pack_of(p).state, PACK_META);
    cr_assert_eq(pack_of(p).meta, 2);
    cr_assert_eq(meta_stored(p + 1, 4), 0);
    cr_assert_eq(pack_of(p).state, PACK_META);
    cr_assert_eq(meta_stored(p + 2, 5), 0);
    cr_assert_eq(pack_of(p).state, PACK_CONDEMNED);
    cr_assert_eq(pack_of(p + 1).state, PACK_META);
    cr_assert_eq(meta_stored(p + 3, 3), 0);
    cr_assert_eq(pack_of(p + 3).state, PACK_CONDEMNED);
    cr_assert_eq(meta_stored(p + 2, 5), 0, "the same again");
    cr_assert_eq(pack_of(p + 2).state, PACK_META);
    cr_assert_eq(meta_stored(p + 4, UINT64_MAX), -EINVAL, "from the future");
    cr_assert_eq(pack_of(p + 4).state, PACK_ALLOCATED);
    w.node = 2;
    cr_assert_eq(meta_stored(p + 4, 6), -EPERM, "another's pack");
    w.node = 1;
    confirm(0, 1); /* gc lets them be */
    Star__PackRefs q = STAR__PACK_REFS__INIT;
    uint64_t both[] = {p + 1, p + 2};
    q.n_pack = 2;
    q.pack = both;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_CONDEMN, &q.base), 0);
    cr_assert_eq(pack_of(p + 1).state, PACK_META);
}
