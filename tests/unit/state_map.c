/* The state: file maps, records, packs, cuts. Random ones are compared with a model that knows each
 * byte's record. */
#include "tests/state_world.h"

#include <criterion/criterion.h>

enum { FILES = 5, RECORDS_MAX = 12, PACK_SIZE = 1 << 22 };
/* The part of the files that is used: over the border of two 1 MiB stretches. */
#define BASE   ((1u << 20) - 6000u)
#define WINDOW 12000u
#define NEVER  UINT64_MAX

struct cell {
    uint64_t record; /* 0: nothing in the pool */
    uint32_t offset;
};

struct file {
    uint64_t ino, size, version, epoch, cut;
    uint32_t home;
    struct cell cells[WINDOW];
};

static struct world w;
static struct file files[FILES];
static uint64_t seed = 7;

static unsigned random_below(unsigned n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

static void set_up(void)
{
    world_start(&w);
    cr_assert_eq(w_node(&w, 0, "node-1", "ready"), 1);
    cr_assert_eq(w_node(&w, 0, "node-2", "ready"), 2);
    w.node = 1;
}

static void tear_down(void)
{
    cr_assert_eq(world_check(&w), 0);
    world_end(&w);
}

TestSuite(state_map, .init = set_up, .fini = tear_down);

/* --- commands --- */

static uint64_t alloc_packs(uint32_t count)
{
    Star__AllocPacks q = STAR__ALLOC_PACKS__INIT;

    q.count = count;
    cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &q.base), 0);
    Star__AllocPacksReply *r = world_reply(&w, &star__alloc_packs_reply__descriptor);
    cr_assert_eq(r->count, count);
    return r->first;
}

/* A confirm in the making: any number of packs, files, records. */
struct cut {
    Star__Confirm q;
    Star__ConfirmPack pack[4], *packs[4];
    Star__CutFile file[FILES], *files[FILES];
    Star__HomeAttrs attrs[FILES];
    Star__Time mtime[FILES];
    Star__CutRecord record[FILES][RECORDS_MAX], *records[FILES][RECORDS_MAX];
    uint32_t next_number;
};

static void cut_start(struct cut *c, uint64_t pack, uint32_t packs)
{
    memset(c, 0, sizeof(*c));
    star__confirm__init(&c->q);
    c->q.node = w.node;
    c->q.packs = c->packs;
    c->q.files = c->files;
    c->q.n_packs = packs;
    for (uint32_t n = 0; n < packs; n++) {
        star__confirm_pack__init(&c->pack[n]);
        c->pack[n].pack = pack + n;
        c->pack[n].size = PACK_SIZE;
        c->packs[n] = &c->pack[n];
    }
}

static Star__CutFile *cut_file(struct cut *c, const struct file *f, uint64_t number,
                               uint64_t base_limit)
{
    size_t n = c->q.n_files++;

    star__cut_file__init(&c->file[n]);
    star__home_attrs__init(&c->attrs[n]);
    star__time__init(&c->mtime[n]);
    c->files[n] = &c->file[n];
    c->mtime[n].sec = w.now.sec;
    c->attrs[n].ino = f->ino;
    c->attrs[n].size = f->size;
    c->attrs[n].version = f->version;
    c->attrs[n].home_epoch = f->epoch;
    c->attrs[n].mtime = &c->mtime[n];
    c->file[n].attrs = &c->attrs[n];
    c->file[n].cut = number;
    c->file[n].base_limit = base_limit;
    c->file[n].records = c->records[n];
    return &c->file[n];
}

static Star__CutRecord *cut_record(struct cut *c, uint64_t offset, uint64_t length)
{
    size_t f = c->q.n_files - 1, n = c->file[f].n_records++;
    Star__CutRecord *r = &c->record[f][n];

    star__cut_record__init(r);
    c->records[f][n] = r;
    r->offset = offset;
    r->length = length;
    r->number = c->next_number++;
    r->pack = c->pack[r->number % c->q.n_packs].pack;
    r->pack_offset = r->number * 20000;
    return r;
}

static int cut_apply(struct cut *c)
{
    return world_apply(&w, STAR__MSG_TYPE__CONFIRM, &c->q.base);
}

static size_t refused(void)
{
    return ((Star__ConfirmReply *)world_reply(&w, &star__confirm_reply__descriptor))->n_refused;
}

static int home_says(const struct file *f)
{
    Star__HomeAttrs h = STAR__HOME_ATTRS__INIT;

    h.ino = f->ino;
    h.size = f->size;
    h.version = f->version;
    h.home_epoch = f->epoch;
    return world_apply(&w, STAR__MSG_TYPE__SYNC_ATTRS, &h.base);
}

static int truncate_to(const struct file *f)
{
    Star__HomeAttrs h = STAR__HOME_ATTRS__INIT;
    Star__SetAttr q = STAR__SET_ATTR__INIT;

    h.ino = q.ino = f->ino;
    h.size = q.size = f->size;
    h.version = f->version;
    h.home_epoch = f->epoch;
    q.valid = 8;
    q.home = &h;
    return w_setattr(&w, &q);
}

static int take_home(struct file *f, uint32_t node)
{
    Star__LogHome q = STAR__LOG_HOME__INIT;

    q.ino = f->ino;
    q.node = node;
    f->home = node;
    f->epoch++;
    f->cut = 0;
    return world_apply(&w, STAR__LOG_TYPE__LOG_TAKE_HOME, &q.base);
}

static struct file file_new(const char *name)
{
    struct file f = {.epoch = 1, .home = 1};
    int64_t ino = w_create(&w, ROOT, name);

    cr_assert_gt(ino, 0);
    f.ino = (uint64_t)ino;
    return f;
}

static struct state_pack pack_of(uint64_t id);

/* --- what is there --- */

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
    return f.p; /* state 0: not there */
}

struct extents {
    Star__Extent e[64];
    size_t n;
};

static bool collect(void *arg, const Star__Extent *e)
{
    struct extents *x = arg;

    cr_assert_lt(x->n, 64);
    x->e[x->n++] = *e;
    return true;
}

static struct extents map_of(uint64_t ino, uint64_t offset, uint64_t length)
{
    struct extents x = {.n = 0};

    cr_assert_eq(state_map(w.s, ino, offset, length, collect, &x), 0);
    return x;
}

static int refs(uint32_t type, uint64_t pack)
{
    Star__PackRefs q = STAR__PACK_REFS__INIT;
    Star__PackRef one = STAR__PACK_REF__INIT;

    q.n_pack = 1;
    q.pack = &pack;
    one.pack = pack;
    return world_apply(&w, type, type == STAR__MSG_TYPE__DISCARD_PACK ? &one.base : &q.base);
}

/* --- by the rules --- */

Test(state_map, life_of_a_pack)
{
    uint64_t p = alloc_packs(3);
    struct file f = file_new("f");
    struct cut c;

    cr_assert_eq(p, 1);
    cr_assert_eq(pack_of(1).state, PACK_ALLOCATED);
    cr_assert_eq(pack_of(1).writer, 1);
    f.size = 1000;
    f.version = 3;
    cut_start(&c, 1, 1);
    cut_file(&c, &f, 1, NEVER);
    cut_record(&c, 0, 1000);
    cr_assert_eq(cut_apply(&c), 0);
    cr_assert_eq(refused(), 0);
    struct inode i = w_inode(&w, f.ino);
    cr_assert_eq(i.size, 1000);
    cr_assert_eq(i.version, 3);
    cr_assert_eq(i.cut, 1);
    cr_assert_eq(i.mapped, 1000);
    cr_assert_eq(pack_of(1).state, PACK_LIVE);
    cr_assert_eq(pack_of(1).live_bytes, 1000);
    cr_assert_eq(pack_of(1).size, PACK_SIZE);
    struct extents x = map_of(f.ino, 500, 1);
    cr_assert_eq(x.n, 1);
    cr_assert_eq(x.e[0].record, (1u << STATE_RECORD_BITS));
    cr_assert_eq(x.e[0].pack, 1);
    cr_assert_eq(x.e[0].record_length, 1000);

    cr_assert_eq(refs(STAR__LOG_TYPE__LOG_CONDEMN, 1), 0);
    cr_assert_eq(pack_of(1).state, PACK_LIVE, "it has a live record");
    cr_assert_eq(refs(STAR__MSG_TYPE__DISCARD_PACK, 1), -EBUSY);
    cr_assert_eq(refs(STAR__MSG_TYPE__DISCARD_PACK, 2), 0);
    cr_assert_eq(pack_of(2).state, PACK_CONDEMNED, "its object may lie in the pool");
    cr_assert_eq(refs(STAR__MSG_TYPE__DELETED_PACKS, 2), 0);
    cr_assert_eq(pack_of(2).state, 0);
    cr_assert_eq(refs(STAR__MSG_TYPE__DELETED_PACKS, 3), 0);
    cr_assert_eq(pack_of(3).state, PACK_ALLOCATED, "only condemned ones are deleted");
    w.node = 2;
    cr_assert_eq(refs(STAR__MSG_TYPE__DISCARD_PACK, 3), -EPERM);
    w.node = 1;
    w_unlink(&w, ROOT, "f");
    cr_assert_eq(pack_of(1).live_records, 1, "an orphan keeps its data");
    w_reap(&w, f.ino);
    cr_assert_eq(pack_of(1).live_records, 0);
    cr_assert_eq(refs(STAR__LOG_TYPE__LOG_CONDEMN, 1), 0);
    cr_assert_eq(pack_of(1).state, PACK_CONDEMNED);
    cr_assert_eq(alloc_packs(1), 4, "a number is never given again");
    Star__AllocPacks q = STAR__ALLOC_PACKS__INIT;
    cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &q.base), -EINVAL);
    q.count = 2;
    for (q.seq = 77; q.seq < 79; q.seq++) {
        for (int again = 0; again < 2; again++) {
            cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &q.base), 0);
            Star__AllocPacksReply *r = world_reply(&w, &star__alloc_packs_reply__descriptor);
            cr_assert_eq(r->first, q.seq == 77 ? 5 : 7, "a lost answer costs no packs");
        }
    }
}

Test(state_map, a_lost_answer)
{
    uint64_t p = alloc_packs(3);
    struct file f = file_new("f"), g = file_new("g");
    struct cut c, late;

    f.size = g.size = 100;
    f.version = g.version = 1;
    cut_start(&c, p, 1);
    cut_file(&c, &f, 1, NEVER);
    cut_record(&c, 0, 100);
    cut_file(&c, &g, 1, NEVER);
    cut_record(&c, 0, 100);
    w_unlink(&w, ROOT, "g");
    w_reap(&w, g.ino);
    cr_assert_eq(cut_apply(&c), 0);
    cr_assert_eq(refused(), 1, "what was deleted meanwhile");
    uint64_t map_version = w_inode(&w, f.ino).map_version;
    cr_assert_eq(cut_apply(&c), 0);
    cr_assert_eq(refused(), 1);
    cr_assert_eq(w_inode(&w, f.ino).map_version, map_version, "nothing happens twice");

    /* Again when the pack has gone the way of all packs. */
    f.version = 2;
    cut_start(&late, p + 1, 1);
    cut_file(&late, &f, 2, NEVER);
    cut_record(&late, 0, 100);
    cr_assert_eq(cut_apply(&late), 0);
    cr_assert_eq(pack_of(p).live_records, 0);
    refs(STAR__LOG_TYPE__LOG_CONDEMN, p);
    cr_assert_eq(cut_apply(&c), 0);
    cr_assert_eq(refused(), 1);
    refs(STAR__MSG_TYPE__DELETED_PACKS, p);
    cr_assert_eq(cut_apply(&c), 0);
    cr_assert_eq(map_of(f.ino, 0, 100).e[0].pack, p + 1);
    late.pack[0].size++;
    cr_assert_eq(cut_apply(&late), -EINVAL, "not what was confirmed");
}

Test(state_map, a_pack_that_was_given_up_takes_nothing)
{
    uint64_t p = alloc_packs(2);
    struct file f = file_new("f");
    struct cut c;

    f.size = 100;
    f.version = 1;
    cut_start(&c, p, 2);
    cut_file(&c, &f, 1, NEVER);
    cut_record(&c, 0, 50);
    cut_record(&c, 50, 50);
    cr_assert_eq(refs(STAR__MSG_TYPE__DISCARD_PACK, p), 0);
    cr_assert_eq(cut_apply(&c), -ESTALE, "one of two");
    cr_assert_eq(refs(STAR__MSG_TYPE__DISCARD_PACK, p + 1), 0);
    cr_assert_eq(cut_apply(&c), -ESTALE, "never refused: the node would drop its data");
    cr_assert_eq(w_inode(&w, f.ino).mapped, 0);
}

Test(state_map, nothing_taken)
{
    uint64_t p = alloc_packs(1);
    struct file f = file_new("f");
    struct cut c;

    f.size = 100;
    f.version = 1;
    cut_start(&c, p, 1);
    cut_file(&c, &f, 1, NEVER);
    cut_record(&c, 0, 100);
    cr_assert_eq(take_home(&f, 2), 0);
    cr_assert_eq(cut_apply(&c), 0);
    cr_assert_eq(refused(), 1);
    cr_assert_eq(pack_of(p).state, PACK_CONDEMNED);
    cr_assert_eq(w_inode(&w, f.ino).size, 0);
}

Test(state_map, an_older_cut_brings_nothing_back)
{
    uint64_t p = alloc_packs(3);
    struct file f = file_new("f");
    struct cut old, newer, same;

    f.size = 100;
    f.version = 1;
    cut_start(&old, p, 1);
    cut_file(&old, &f, 1, NEVER);
    cut_record(&old, 0, 100);
    f.version = 2;
    cut_start(&newer, p + 1,
              1); /* the node was started again and does not know that it sent the first */
    cut_file(&newer, &f, 1, NEVER);
    cut_record(&newer, 0, 100);
    cr_assert_eq(cut_apply(&newer), 0);
    cr_assert_eq(cut_apply(&old), -ESTALE);
    cr_assert_eq(map_of(f.ino, 0, 100).e[0].pack, p + 1);
    cr_assert_eq(pack_of(p).state, PACK_ALLOCATED);
    f.version = 3;
    cut_start(&same, p + 2, 1);
    cut_file(&same, &f, 1, NEVER);
    cut_record(&same, 0, 100);
    cr_assert_eq(cut_apply(&same), 0, "newer data under a number that was used counts");
    cr_assert_eq(map_of(f.ino, 0, 100).e[0].pack, p + 2);
}

Test(state_map, truncated_while_it_was_flushed)
{
    uint64_t p = alloc_packs(2);
    struct file f = file_new("f");
    struct cut c;

    f.size = 1000;
    f.version = 10;
    cut_start(&c, p, 1);
    cut_file(&c, &f, 1, NEVER);
    cut_record(&c, 0, 600);
    cut_record(&c, 600, 400);
    f.size = 500;
    f.version = 11;
    cr_assert_eq(truncate_to(&f), 0);
    f.size = 800; /* and grown again: the end is a hole */
    f.version = 12;
    cr_assert_eq(home_says(&f), 0);
    cr_assert_eq(cut_apply(&c), 0);
    cr_assert_eq(w_inode(&w, f.ino).size, 800);
    cr_assert_eq(w_inode(&w, f.ino).mapped, 500);
    cr_assert_eq(pack_of(p).live_records, 1);
    cr_assert_eq(pack_of(p).live_bytes, 600);

    f.version = 13;
    cut_start(&c, p + 1, 1);
    cut_file(&c, &f, 2, 300); /* truncated to 300 and grown, unlogged */
    cut_record(&c, 700, 100);
    cr_assert_eq(cut_apply(&c), 0);
    cr_assert_eq(w_inode(&w, f.ino).mapped, 400);
    struct extents x = map_of(f.ino, 0, NEVER);
    cr_assert_eq(x.n, 2);
    cr_assert_eq(x.e[0].length, 300);
    cr_assert_eq(x.e[1].offset, 700);
}

/* 100, written at 500, 400: of a cut of before that all beyond 100 is dead, of one in between only
 * what is beyond 400. */
Test(state_map, truncated_twice_while_it_was_flushed)
{
    uint64_t p = alloc_packs(3);
    struct file f = file_new("f");
    struct cut old, between;

    f.size = 1000;
    f.version = 4;
    cut_start(&old, p, 1);
    cut_file(&old, &f, 1, NEVER);
    cut_record(&old, 0, 1000);
    f.size = 100;
    f.version = 5;
    cr_assert_eq(truncate_to(&f), 0);
    f.size = 600;
    f.version = 6;
    cr_assert_eq(home_says(&f), 0);
    cut_start(&between, p + 1, 1);
    cut_file(&between, &f, 2, NEVER);
    cut_record(&between, 0, 600);
    f.size = 400;
    f.version = 7;
    cr_assert_eq(truncate_to(&f), 0);
    for (unsigned again = 0; again < 2; again++) { /* its answer was lost */
        cr_assert_eq(cut_apply(&old), 0);
        cr_assert_eq(refused(), 1);
        cr_assert_eq(w_inode(&w, f.ino).mapped, 0);
    }
    cr_assert_eq(cut_apply(&between), 0);
    cr_assert_eq(refused(), 0);
    cr_assert_eq(w_inode(&w, f.ino).mapped, 400);
    /* One after the other, each shorter: the last one says all. */
    f.version = 8;
    cut_start(&old, p + 2, 1);
    cut_file(&old, &f, 3, NEVER);
    cut_record(&old, 0, 400);
    for (f.version = 9; f.version < 12; f.version++) {
        f.size -= 100;
        cr_assert_eq(truncate_to(&f), 0);
    }
    cr_assert_eq(cut_apply(&old), 0);
    cr_assert_eq(refused(), 0);
    cr_assert_eq(w_inode(&w, f.ino).mapped, 100);
}

Test(state_map, malformed_confirms)
{
    uint64_t p = alloc_packs(1);
    struct file f = file_new("f");
    struct cut c;

    f.size = 3 << 20;
    f.version = 1;
#define BAD(change)                                                                                \
    do {                                                                                           \
        cut_start(&c, p, 1);                                                                       \
        Star__CutFile *file = cut_file(&c, &f, 1, NEVER);                                          \
        Star__CutRecord *r = cut_record(&c, 0, 100), *r2 = cut_record(&c, 200, 100);               \
        (void)file, (void)r, (void)r2;                                                             \
        change;                                                                                    \
        cr_assert_eq(cut_apply(&c), -EINVAL, #change);                                             \
    } while (0)
    BAD(r->length = 0);
    BAD(r->length = (1 << 20) + 1);
    BAD(r->offset = (1 << 20) - 50);
    BAD(r->offset = NEVER);
    BAD(r->pack = p + 1);
    BAD(r->pack = 0);
    BAD(r2->number = r->number);
    BAD(r->number = 1 << STATE_RECORD_BITS);
    BAD(r->pack_offset = PACK_SIZE - 99);
    BAD(r->pack_offset = NEVER);
    BAD(file->cut = 0);
    BAD(file->attrs = NULL);
    BAD(file->attrs->size = NEVER);
    BAD(file->attrs->mtime->nsec = 1000000000);
    BAD(cut_file(&c, &f, 2, NEVER));
    BAD(c.pack[0].pack = p + 7; r->pack = r2->pack = p + 7);
    BAD(c.pack[1] = c.pack[0]; c.packs[1] = &c.pack[1]; c.q.n_packs = 2);
    w.node = 2;
    cut_start(&c, p, 1);
    cr_assert_eq(cut_apply(&c), -EPERM, "another node's pack");
    w.node = c.q.node = 77;
    cr_assert_eq(cut_apply(&c), -ESTALE);
    w.node = 1;
    cr_assert_eq(pack_of(p).state, PACK_ALLOCATED);
}

/* --- a node is given up --- */

struct line {
    unsigned n;
    struct state_copy_line last;
};

static bool one_line(void *arg, const struct state_copy_line *l)
{
    struct line *x = arg;

    x->n++;
    x->last = *l;
    return true;
}

static unsigned lines(uint64_t ino, uint64_t after_ino, uint32_t after_node)
{
    struct line x = {0};

    cr_assert_eq(state_copies(w.s, ino, after_ino, after_node, one_line, &x), 0);
    return x.n;
}

static int copies(uint32_t node, uint64_t ino, uint64_t cached, uint64_t staged, bool gone)
{
    Star__Copies q = STAR__COPIES__INIT;
    Star__Copy c = STAR__COPY__INIT, *list = &c;

    q.node = node;
    q.n_copies = 1;
    q.copies = &list;
    c.ino = ino;
    c.cached = cached;
    c.staged = staged;
    c.gone = gone;
    return world_apply(&w, STAR__MSG_TYPE__COPIES, &q.base);
}

static int drop_copies(uint32_t node)
{
    Star__LogHome q = STAR__LOG_HOME__INIT;

    q.node = node;
    return world_apply(&w, STAR__LOG_TYPE__LOG_DROP_COPIES, &q.base);
}

Test(state_map, cache_table)
{
    struct file f = file_new("f"), g = file_new("g");

    cr_assert_eq(copies(1, f.ino, 100, 50, false), 0);
    cr_assert_eq(copies(2, f.ino, 100, 0, false), 0);
    cr_assert_eq(copies(1, g.ino, 100, 0, false), 0);
    cr_assert_eq(copies(1, ROOT, 100, 0, false), 0);
    cr_assert_eq(copies(1, 999, 100, 0, false), 0);
    cr_assert_eq(copies(9, f.ino, 100, 0, false), -ESTALE);
    cr_assert_eq(lines(0, 0, 0), 3);
    cr_assert_eq(lines(f.ino, 0, 0), 2);
    cr_assert_eq(lines(f.ino, f.ino, 1), 1);
    cr_assert_eq(lines(0, f.ino, 1), 2);
    cr_assert_eq(lines(0, f.ino, 2), 1);
    cr_assert_eq(copies(1, g.ino, 0, 0, false), 0);
    cr_assert_eq(copies(1, g.ino, 100, 0, true), 0);
    cr_assert_eq(lines(g.ino, 0, 0), 0);
    cr_assert_eq(copies(1, g.ino, 1, 0, false), 0);
    cr_assert_eq(drop_copies(1), 0);
    cr_assert_eq(lines(g.ino, 0, 0), 0, "cached lines of a lost node go");
    struct line x = {0};
    cr_assert_eq(state_copies(w.s, f.ino, 0, 0, one_line, &x), 0);
    cr_assert_eq(x.n, 2);
    cr_assert_eq(lines(f.ino, f.ino, 1), 1);
    cr_assert_eq(w_node(&w, 1, "node-1", "gone"), 1);
    cr_assert_eq(lines(f.ino, 0, 0), 1, "of one that was given up, staged lines too");
    w_unlink(&w, ROOT, "f");
    w_reap(&w, f.ino);
    cr_assert_eq(lines(0, 0, 0), 0);
}

/* A process that was killed leaves packs which only the next one can give back. */
Test(state_map, packs_of_an_earlier_process_are_garbage)
{
    uint64_t p = alloc_packs(3);
    struct file f = file_new("f"), g = file_new("g");
    Star__AllocPacks q = STAR__ALLOC_PACKS__INIT;
    struct cut c, late;

    f.size = g.size = 1000;
    f.version = g.version = 5;
    cut_start(&c, p, 1);
    cut_file(&c, &f, 1, NEVER);
    cut_record(&c, 0, 1000);
    cr_assert_eq(cut_apply(&c), 0);
    q.count = 2;
    q.seq = 77;
    q.fresh = true;
    w.node = 1;
    cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &q.base), 0);
    cr_assert_eq(pack_of(p).state, PACK_LIVE, "that one was confirmed");
    cr_assert_eq(pack_of(p + 1).state, PACK_CONDEMNED);
    cr_assert_eq(pack_of(p + 2).state, PACK_CONDEMNED);
    cr_assert_eq(pack_of(p + 3).state, PACK_ALLOCATED);
    /* Asked again: the packs of this process stay. */
    cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &q.base), 0);
    cr_assert_eq(pack_of(p + 3).state, PACK_ALLOCATED);
    cr_assert_eq(pack_of(p + 4).state, PACK_ALLOCATED);
    cut_start(&late, p + 1, 1);
    cut_file(&late, &g, 1, NEVER);
    cut_record(&late, 0, 1000);
    cr_assert_eq(cut_apply(&late), -ESTALE);
    cr_assert_eq(cut_apply(&c), 0, "a repeat of what was taken");
    /* One that begins without wanting any. */
    q.count = 0;
    q.seq = 78;
    cr_assert_eq(world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &q.base), 0);
    cr_assert_eq(pack_of(p + 4).state, PACK_CONDEMNED);
}

Test(state_map, files_of_a_node_that_is_given_up)
{
    uint64_t p = alloc_packs(2);
    struct file f = file_new("f"), never = file_new("never"), whole = file_new("whole");
    struct cut c;

    f.size = whole.size = 1000;
    f.version = whole.version = 5;
    cut_start(&c, p, 1);
    cut_file(&c, &f, 1, NEVER);
    cut_record(&c, 0, 1000);
    cut_file(&c, &whole, 1, NEVER);
    cut_record(&c, 0, 1000);
    cr_assert_eq(cut_apply(&c), 0);
    struct inode at_cut = w_inode(&w, f.ino);
    f.size = 700; /* truncated, then written on: only the truncation can be kept */
    f.version = 6;
    cr_assert_eq(truncate_to(&f), 0);
    f.size = never.size = 5000;
    f.version = never.version = 9;
    cr_assert_eq(home_says(&f), 0);
    cr_assert_eq(home_says(&never), 0);
    cr_assert_eq(w_inode(&w, f.ino).size, 5000);

    cr_assert_eq(w_node(&w, 1, "node-1", "gone"), 1);
    struct inode i = w_inode(&w, f.ino);
    cr_assert_eq(i.home, 0);
    cr_assert_eq(i.home_epoch, 2, "what that home may still say is refused");
    cr_assert_eq(i.size, 700);
    cr_assert_eq(i.mapped, 700);
    cr_assert_eq(i.mtime.sec, at_cut.mtime.sec);
    cr_assert_gt(i.version, 1ull << 32, "no home gave out that version");
    i = w_inode(&w, never.ino);
    cr_assert_eq(i.size, 0);
    i = w_inode(&w, whole.ino);
    cr_assert_eq(i.size, 1000);
    cr_assert_eq(i.version, 5);
    cr_assert_eq(pack_of(p + 1).state, PACK_CONDEMNED, "what it had still to write");
    cr_assert_eq(cut_apply(&c), -ESTALE);
    cr_assert_eq(copies(1, f.ino, 1, 0, false), -ESTALE);
    f.version = UINT64_MAX;
    cr_assert_eq(home_says(&f), 0);
    cr_assert_eq(w_inode(&w, f.ino).size, 700);
    cr_assert_eq(take_home(&f, 2), 0);
    cr_assert_eq(w_inode(&w, f.ino).home_epoch, 3);
}

/* --- at random --- */

static void model_cut(struct file *f, uint64_t from)
{
    for (uint64_t at = from < BASE ? 0 : from - BASE; at < WINDOW; at++)
        f->cells[at] = (struct cell){0};
}

static void model_insert(struct file *f, uint64_t offset, uint64_t length, uint64_t record)
{
    for (uint64_t n = 0; n < length; n++)
        f->cells[offset - BASE + n] = (struct cell){record, (uint32_t)n};
}

static void compare_file(const struct file *f)
{
    static struct cell got[WINDOW];
    uint64_t from = BASE + random_below(WINDOW), length = 1 + random_below(WINDOW), mapped = 0;
    struct extents x = map_of(f->ino, 0, NEVER);

    memset(got, 0, sizeof(got));
    for (size_t n = 0; n < x.n; n++) {
        const Star__Extent *e = &x.e[n];
        cr_assert_leq(e->record_offset + e->length, e->record_length);
        for (uint64_t b = 0; b < e->length; b++)
            got[e->offset - BASE + b] = (struct cell){e->record, (uint32_t)(e->record_offset + b)};
        mapped += e->length;
    }
    for (unsigned b = 0; b < WINDOW; b++)
        cr_assert(got[b].record == f->cells[b].record && got[b].offset == f->cells[b].offset,
                  "byte %u: record %lx, should be %lx", b, got[b].record, f->cells[b].record);
    struct inode i = w_inode(&w, f->ino);
    cr_assert_eq(i.mapped, mapped);
    cr_assert_eq(i.size, f->size);
    cr_assert_eq(i.version, f->version);
    /* A part gives the same extents as the whole. */
    struct extents part = map_of(f->ino, from, length);
    size_t first = 0, count = 0;
    for (size_t n = 0; n < x.n; n++) {
        bool meets = x.e[n].offset < from + length && x.e[n].offset + x.e[n].length > from;
        if (meets && count++ == 0)
            first = n;
    }
    cr_assert_eq(part.n, count);
    for (size_t n = 0; n < count; n++)
        cr_assert_eq(part.e[n].offset, x.e[first + n].offset);
}

static int by_record(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Live records are those that some byte of some file still shows. */
static void compare_packs(void)
{
    static uint64_t seen[FILES * WINDOW];
    size_t n = 0, live = 0;
    struct state_totals t;

    for (unsigned f = 0; f < FILES; f++)
        for (unsigned b = 0; b < WINDOW; b++)
            if (files[f].cells[b].record &&
                (b == 0 || files[f].cells[b].record != files[f].cells[b - 1].record))
                seen[n++] = files[f].cells[b].record;
    qsort(seen, n, sizeof(seen[0]), by_record);
    for (size_t k = 0; k < n; k++)
        live += k == 0 || seen[k] != seen[k - 1];
    cr_assert_eq(state_totals(w.s, &t), 0);
    cr_assert_eq(t.records, live);
}

static void random_cut(void)
{
    static struct cut c;
    static uint64_t bases[FILES];
    uint32_t packs = 1 + random_below(2), kept = 0;
    bool truncated = random_below(4) == 0;
    struct file before[FILES];
    bool in[FILES] = {false};

    cut_start(&c, alloc_packs(packs), packs);
    for (unsigned n = 0; n < FILES; n++) {
        struct file *f = &files[n];
        if (random_below(3) || f->home != 1)
            continue;
        in[n] = true;
        f->version += 1 + random_below(3);
        f->size = BASE + random_below(WINDOW);
        bases[n] = random_below(3) ? NEVER : BASE + random_below(WINDOW);
        cut_file(&c, f, f->cut + 1 + random_below(2), bases[n]);
        before[n] = *f;
        for (unsigned r = random_below(RECORDS_MAX); r > 0; r--) {
            uint64_t offset = BASE + random_below(WINDOW - 1), end = BASE + random_below(WINDOW);
            if (offset < (1 << 20) && end > (1 << 20))
                end = 1 << 20;
            if (offset < end)
                cut_record(&c, offset, end - offset);
        }
        kept += c.file[c.q.n_files - 1].n_records > 0;
    }
    for (unsigned n = 0; truncated && n < FILES; n++) {
        struct file *f = &files[n];
        if (!in[n])
            continue;
        f->version++;
        f->size = BASE + random_below(WINDOW);
        cr_assert_eq(random_below(2) ? truncate_to(f) : home_says(f), 0);
        model_cut(f, f->size);
    }
    cr_assert_eq(cut_apply(&c), 0);
    cr_assert_eq(refused(), 0);
    for (unsigned n = 0, k = 0; n < FILES; n++) {
        struct file *f = &files[n];
        if (!in[n])
            continue;
        const Star__CutFile *q = &c.file[k++];
        model_cut(f, bases[n]);
        uint64_t limit = before[n].size < f->size ? before[n].size : f->size;
        for (size_t r = 0; r < q->n_records; r++) {
            uint64_t end = q->records[r]->offset + q->records[r]->length;
            end = end < limit ? end : limit;
            if (q->records[r]->offset < end)
                model_insert(f, q->records[r]->offset, end - q->records[r]->offset,
                             q->records[r]->pack << STATE_RECORD_BITS | q->records[r]->number);
        }
        model_cut(f, limit);
        f->cut = q->cut;
    }
    (void)kept;
}

static void random_operation(void)
{
    struct file *f = &files[random_below(FILES)];
    char name[16];

    switch (random_below(12)) {
    case 0: /* truncate, or grow */
        f->size = BASE + random_below(WINDOW);
        f->version++;
        cr_assert_eq(truncate_to(f), 0);
        model_cut(f, f->size);
        break;
    case 1: /* moved; back at once, so that it can be flushed */
        cr_assert_eq(take_home(f, 2), 0);
        cr_assert_eq(take_home(f, 1), 0);
        break;
    case 2: /* deleted; another one takes its place */
        snprintf(name, sizeof(name), "%d", (int)(f - files));
        cr_assert_eq(w_unlink(&w, ROOT, name), 0);
        cr_assert_eq(w_reap(&w, f->ino), 0);
        *f = file_new(name);
        break;
    default:
        random_cut();
    }
}

Test(state_map, as_a_map_of_bytes, .timeout = 600)
{
    char name[16];

    for (int n = 0; n < FILES; n++) {
        snprintf(name, sizeof(name), "%d", n);
        files[n] = file_new(name);
    }
    for (int n = 0; n < 3000; n++) {
        random_operation();
        if (random_below(10) == 0)
            world_commit(&w);
        if (random_below(8) == 0) {
            for (unsigned f = 0; f < FILES; f++)
                compare_file(&files[f]);
            compare_packs();
        }
        if (n % 500 == 0)
            cr_assert_eq(world_check(&w), 0);
    }
}
