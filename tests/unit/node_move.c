/* gc's moves at a node: what is copied is what was there, whoever reads meanwhile. */
#include "node_fake.h"

#include "nodecache/move.h"

#define MIB (1u << 20)

static struct rig rig;

static void setup(void)
{
    rig_start(&rig, 512 * MIB);
    rig_open(&rig, true);
}

static void teardown(void)
{
    rig_end(&rig);
}

TestSuite(node_move, .init = setup, .fini = teardown, .timeout = 100);

/* A request for all records of files that lie in the pool, by pack and number. */
struct request {
    Star__MoveRecords m;
    Star__MoveRecord record[1024], *list[1024];
    Star__PackKey key[1024], *keys[1024];
    struct pool_key bytes[1024];
};

static int by_place(const void *a, const void *b)
{
    const Star__MoveRecord *x = a, *y = b;

    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

static void ask_all(struct request *q)
{
    size_t n = 0;

    star__move_records__init(&q->m);
    for (size_t f = 0; f < rig.fake.count; f++) {
        for (size_t e = 0; e < rig.fake.files[f]->count; e++, n++) {
            star__move_record__init(&q->record[n]);
            q->record[n].pack = rig.fake.files[f]->extents[e].pack;
            q->record[n].number = rig.fake.files[f]->extents[e].number;
            q->record[n].record = q->record[n].pack << 20 | q->record[n].number;
            q->record[n].pack_offset = rig.fake.files[f]->extents[e].pack_offset;
            q->record[n].length = (uint32_t)rig.fake.files[f]->extents[e].record_length;
            q->list[n] = &q->record[n];
        }
    }
    qsort(q->record, n, sizeof(q->record[0]), by_place);
    q->m.records = q->list;
    q->m.n_records = n;
    q->m.keys = q->keys;
    for (size_t i = 0; i < n; i++) {
        size_t k = q->m.n_keys;
        if (i > 0 && q->record[i].pack == q->record[i - 1].pack)
            continue;
        star__pack_key__init(&q->key[k]);
        q->bytes[k] = fake_pack_key(q->record[i].pack);
        q->key[k].pack = q->record[i].pack;
        q->key[k].key_generation = q->bytes[k].generation;
        q->key[k].key = (ProtobufCBinaryData){.len = POOL_KEY, .data = q->bytes[k].bytes};
        q->keys[k] = &q->key[k];
        q->m.n_keys++;
    }
}

static int move(const struct request *q, struct move_result *out)
{
    return move_records(rig.pool, &fake_calls, &rig.fake, rig.flush, &q->m, NULL, NULL, NULL, out);
}

static void move_all(struct move_result *out)
{
    static struct request q;

    ask_all(&q);
    int rc = move(&q, out);
    cr_assert_eq(rc, 0, "%s: %s", strerror(-rc), out->detail);
}

struct seen {
    uint64_t pack;
    unsigned records, origins, files, named;
};

static void see_record(void *arg, const struct pack_record *r)
{
    struct seen *s = arg;

    s->records += !POOL_INO_IS(r->ino);
    if (r->ino != POOL_INO_MOVES)
        return;
    uint8_t *entries = malloc(r->length);
    char detail[POOL_DETAIL];
    struct pool_key key = fake_record_key(s->pack, r->number);
    cr_assert_eq(pack_read(rig.pool, &key, s->pack, r->number, r->pack_offset, r->length, 0,
                           entries, r->length, detail),
                 0);
    for (uint32_t at = 0; at < r->length; at += POOL_ORIGIN, s->origins++) {
        struct pack_origin o;
        pack_origin_get(entries + at, &o);
        cr_assert_gt(o.record, 0);
        cr_assert_gt(o.version, 0);
        s->named += o.cut > 0;
    }
    free(entries);
}

static void see_file(void *arg, const struct pack_file *f)
{
    struct seen *s = arg;

    s->files++;
    cr_assert_eq(f->records, 0, "not all of a cut may have come along");
}

static bool check_pack(void *arg, uint64_t pack)
{
    struct seen s = {.pack = pack};
    char detail[POOL_DETAIL] = "";

    if (pack <= *(uint64_t *)arg)
        return true;
    struct pool_key key = fake_pack_key(pack);
    cr_assert_eq(pack_verify(rig.pool, &key, pack, NULL, detail), 0, "%s", detail);
    cr_assert_eq(pack_index(rig.pool, &key, pack, see_record, see_file, &s, detail), 0);
    cr_assert_gt(s.records, 0);
    cr_assert_eq(s.origins, s.records, "each record's origin is known");
    cr_assert_eq(s.named, s.records);
    cr_assert_gt(s.files, 0);
    return true;
}

static uint64_t newest_pack(void)
{
    return rig.fake.next_pack;
}

static bool drop_old(void *arg, uint64_t pack)
{
    char detail[POOL_DETAIL];

    if (pack <= *(uint64_t *)arg)
        cr_assert_eq(pack_remove(rig.pool, pack, detail), 0);
    return true;
}

/* What was in several packs is in few; the old ones go; who still holds their map finds the new
 * place. */
Test(node_move, merged_and_read_back)
{
    struct move_result r;
    char detail[POOL_DETAIL];
    uint8_t first[100];

    for (unsigned n = 0; n < 20; n++) {
        rig_write(&rig, 100 + n, n, 0, 50000 + n);
        rig_write(&rig, 7, n, n * (uint64_t)MIB, 300000);
        rig_flush(&rig);
    }
    rig_evict(&rig, 7);
    rig_evict(&rig, 100);
    rig_read(&rig, 7, 0, 100, first); /* the map of it is kept now */
    rig_evict(&rig, 7);
    uint64_t before = newest_pack();
    move_all(&r);
    cr_expect_eq(r.records, 40);
    cr_expect_eq(r.packs, 1);
    cr_expect_eq(r.failed, 0);
    cr_assert_eq(pack_list(rig.pool, check_pack, &before, detail), 0);
    cr_assert_eq(pack_list(rig.pool, drop_old, &before, detail), 0);
    for (unsigned n = 0; n < 20; n++) {
        rig_expect(&rig, 7, (int)n, n * (uint64_t)MIB, 300000);
        rig_expect(&rig, 100 + n, (int)n, 0, 50000 + n);
    }

    /* Once more: from the pack that gc wrote, which holds many cuts of one file. */
    before = newest_pack();
    move_all(&r);
    cr_expect_eq(r.records, 40);
    cr_assert_eq(pack_list(rig.pool, check_pack, &before, detail), 0);
    cr_assert_eq(pack_list(rig.pool, drop_old, &before, detail), 0);
    rig_evict(&rig, 7);
    for (unsigned n = 0; n < 20; n++)
        rig_expect(&rig, 7, (int)n, n * (uint64_t)MIB, 300000);
}

Test(node_move, more_than_one_pack)
{
    struct move_result r;

    rig_write(&rig, 5, 1, 0, 150 * MIB);
    rig_flush(&rig);
    uint64_t before = newest_pack();
    move_all(&r);
    cr_expect_eq(r.records, 150);
    cr_expect_eq(r.packs, 3);
    char detail[POOL_DETAIL];
    cr_assert_eq(pack_list(rig.pool, check_pack, &before, detail), 0);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, 0, 150 * MIB);
}

static int count_packs(void)
{
    char command[160];
    int n = 0;

    snprintf(command, sizeof(command), "find %s/pool/packs -type f | wc -l", rig.dir);
    FILE *f = popen(command, "r");
    cr_assert_eq(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

static void flip(uint64_t pack, uint64_t at)
{
    char path[160];
    uint8_t byte;

    snprintf(path, sizeof(path), "%s/pool/packs/%02x/%016lx", rig.dir, (unsigned)(pack & 0xff),
             (unsigned long)pack);
    FILE *f = fopen(path, "r+");
    cr_assert_not_null(f);
    cr_assert_eq(fseek(f, (long)at, SEEK_SET), 0);
    cr_assert_eq(fread(&byte, 1, 1, f), 1);
    byte ^= 4;
    cr_assert_eq(fseek(f, (long)at, SEEK_SET), 0);
    cr_assert_eq(fwrite(&byte, 1, 1, f), 1);
    fclose(f);
}

/* It stays where it is, and is named; nothing damaged gets a new seal. */
Test(node_move, a_damaged_record_stays)
{
    static struct request q;
    struct move_result r;

    for (uint64_t n = 0; n < 5; n++)
        rig_write(&rig, 10 + n, (unsigned)n, 0, 100000);
    rig_flush(&rig);
    ask_all(&q);
    flip(q.record[2].pack, q.record[2].pack_offset + 50000);
    cr_assert_eq(move(&q, &r), 0);
    cr_expect_eq(r.records, 4);
    cr_expect_eq(r.failed, 1);
    cr_assert_eq(r.failed_packs_n, 1);
    cr_expect_eq(r.failed_packs[0], q.record[2].pack);
    cr_expect(strstr(r.detail, "seal"), "%s", r.detail);
    free(r.failed_packs);
    unsigned stayed = 0;
    for (size_t f = 0; f < rig.fake.count; f++)
        stayed +=
            rig.fake.files[f]->count > 0 && rig.fake.files[f]->extents[0].pack == q.record[2].pack;
    cr_expect_eq(stayed, 1);
}

/* Whoever asks for what is not so gets nothing: neither a wrong record nor a pack. */
Test(node_move, a_wrong_request)
{
    static struct request q;
    struct move_result r;

    rig_write(&rig, 5, 1, 0, 3 * MIB);
    rig_flush(&rig);
    int packs = count_packs();
    ask_all(&q);
    for (size_t n = 0; n < q.m.n_records; n++)
        q.record[n].length--;
    cr_assert_eq(move(&q, &r), 0);
    cr_expect_eq(r.failed, 3);
    free(r.failed_packs);
    ask_all(&q);
    for (size_t n = 0; n < q.m.n_records; n++)
        q.record[n].pack += 1000; /* there is no such pack */
    cr_assert_eq(move(&q, &r), 0);
    cr_expect_eq(r.failed, 3);
    free(r.failed_packs);
    cr_expect_eq(count_packs(), packs);
    cr_expect_eq(rig.fake.moves, 0);
}

static bool now(void *arg)
{
    return ++*(unsigned *)arg > 2;
}

/* A move that fails leaves the map as it was and nothing in the pool. */
Test(node_move, a_failed_move_leaves_nothing)
{
    static struct request q;
    struct move_result r;
    unsigned asked = 0;

    rig_write(&rig, 5, 1, 0, 3 * MIB);
    rig_flush(&rig);
    int packs = count_packs();
    ask_all(&q);
    rig.fake.fail_moves = 1;
    cr_assert_eq(move(&q, &r), -ESTALE);
    cr_expect_eq(count_packs(), packs);
    cr_expect_eq(rig.fake.discards, 1);
    cr_assert_eq(
        move_records(rig.pool, &fake_calls, &rig.fake, rig.flush, &q.m, NULL, now, &asked, &r),
        -ESHUTDOWN);
    cr_expect_eq(count_packs(), packs);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, 0, 3 * MIB);
}

static void overwrite(void)
{
    rig_write(&rig, 5, 2, MIB, MIB);
    rig_flush(&rig);
}

/* A record that died between the question and the switch stays dead. */
Test(node_move, overwritten_meanwhile)
{
    static struct request q;
    struct move_result r;

    rig_write(&rig, 5, 1, 0, 3 * MIB);
    rig_flush(&rig);
    ask_all(&q);
    overwrite();
    cr_assert_eq(move(&q, &r), 0);
    cr_expect_eq(r.records, 3);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, 0, MIB);
    rig_expect(&rig, 5, 2, MIB, MIB);
    rig_expect(&rig, 5, 1, 2 * MIB, MIB);
}

/* ---- from elsewhere ---- */

static bool place(void *arg, const Star__MoveRecord *q, uint64_t *ino, uint64_t *offset)
{
    (void)arg;
    (void)q;
    *ino = 5;
    *offset = MIB;
    return true;
}

/* The second MiB of file 5, as it was written first. */
static int content(void *arg, const Star__MoveRecord *q, uint8_t *out)
{
    unsigned *asked = arg;

    ++*asked;
    rig_fill(out, 1, MIB, q->length);
    return 0;
}

static int nothing(void *arg, const Star__MoveRecord *q, uint8_t *out)
{
    unsigned *asked = arg;

    (void)q;
    (void)out;
    ++*asked;
    return -ENODATA;
}

static void heal(struct request *q, struct move_other *other, struct move_result *out)
{
    cr_assert_eq(
        move_records(rig.pool, &fake_calls, &rig.fake, rig.flush, &q->m, other, NULL, NULL, out),
        0);
}

/* Only what is damaged is asked for elsewhere; then the pool has it again. */
Test(node_move, a_damaged_record_comes_from_elsewhere)
{
    static struct request q;
    unsigned asked = 0;
    struct move_other other = {.place = place, .content = nothing, .arg = &asked};
    struct move_result r;

    rig_write(&rig, 5, 1, 0, 3 * MIB);
    rig_flush(&rig);
    ask_all(&q);
    size_t second = 0;
    while (rig.fake.files[0]->extents[second].offset != MIB)
        second++;
    flip(rig.fake.files[0]->extents[second].pack,
         rig.fake.files[0]->extents[second].pack_offset + 9);
    heal(&q, &other, &r);
    cr_expect_eq(r.records, 2);
    cr_expect_eq(r.failed, 1);
    cr_expect_eq(asked, 1);
    free(r.done);
    free(r.failed_packs);
    other.content = content;
    ask_all(&q);
    heal(&q, &other, &r);
    cr_expect_eq(r.records, 3);
    cr_expect_eq(r.failed, 0);
    cr_expect_eq(asked, 2);
    free(r.done);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, 0, 3 * MIB);
}

/* Without its footer a record can be read all the same, and gets a footer that names it. */
Test(node_move, a_pack_without_its_footer)
{
    static struct request q;
    unsigned asked = 0;
    struct move_other other = {.place = place, .content = nothing, .arg = &asked};
    char path[160];
    struct move_result r;
    struct stat st;

    rig_write(&rig, 5, 1, MIB, MIB);
    rig_flush(&rig);
    ask_all(&q);
    uint64_t pack = q.record[0].pack;
    snprintf(path, sizeof(path), "%s/pool/packs/%02x/%016lx", rig.dir, (unsigned)(pack & 0xff),
             (unsigned long)pack);
    cr_assert_eq(stat(path, &st), 0);
    flip(pack, (uint64_t)st.st_size - 5);
    heal(&q, &other, &r);
    cr_expect_eq(r.records, 1);
    cr_expect_eq(r.failed, 0);
    cr_expect_eq(asked, 0, "the record itself is whole");
    free(r.done);
    rig_evict(&rig, 5);
    rig_expect(&rig, 5, 1, MIB, MIB);
}
