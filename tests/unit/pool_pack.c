/* Packs: what was written is read back, and nothing that was damaged ever is. */
#include "nodecache/pool/pack_format.h"
#include "tests/pool_memory.h"

#include <criterion/criterion.h>
#include <pthread.h>

#define FLIPS   2000 /* per class of bytes */
#define PACK    UINT64_C(0x1234567890abcd)
#define RECORDS 48

#define PC POOL_PAGE_CONTENT
static const uint32_t border_sizes[] = {
    1,
    2,
    15,
    16,
    17,
    255,
    4095,
    4096,
    4097,
    PC - 17,
    PC - 16,
    PC - 15,
    PC - 1,
    PC,
    PC + 1,
    PC + 15,
    PC + 16,
    PC + 17,
    POOL_PAGE,
    POOL_PAGE + 1,
    2 * PC - 1,
    2 * PC,
    2 * PC + 1,
    2 * POOL_PAGE,
    3 * PC + 1,
    31 * PC,
    32 * PC - 1,
    32 * PC,
    32 * PC + 1,
    POOL_RECORD_MAX - 1,
    POOL_RECORD_MAX,
};

static char detail[POOL_DETAIL];

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint32_t below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(next_random(state) % limit);
}

static void fill(uint8_t *to, size_t len, uint64_t seed)
{
    uint64_t state = seed * 2654435761u + 88172645463325252u;
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(next_random(&state) >> 32);
}

/* A pack with its records' contents. */
struct sample {
    struct memory_pool memory;
    struct pool *pool;
    uint32_t records, files;
    struct pack_record record[RECORDS];
    uint8_t *content[RECORDS];
    struct pack_file file[RECORDS];
    uint64_t size;
    struct memory_object *object;
};

static struct pack_file some_file(uint32_t i)
{
    return (struct pack_file){.ino = 100 + i,
                              .size = (uint64_t)i << 20,
                              .version = i + 7,
                              .cut = i,
                              .base_limit = UINT64_MAX - i,
                              .mtime_sec = -5 + (int64_t)i,
                              .mtime_nsec = 999999999 - i};
}

static void write_sample(struct sample *s, uint64_t pack, const uint32_t *sizes, uint32_t count)
{
    struct pack_writer *w;
    char name[PACK_NAME];

    cr_assert_eq(pack_create(s->pool, NULL, pack, &w, detail), 0, "%s", detail);
    for (uint32_t i = 0; i < count; i++) {
        s->content[i] = malloc(sizes[i]);
        fill(s->content[i], sizes[i], i + 1);
        s->record[i] =
            (struct pack_record){.ino = 100 + i, .offset = (uint64_t)i << 20, .length = sizes[i]};
        cr_assert_eq(pack_add_record(w, s->content[i], &s->record[i], detail), 0, "%s", detail);
        cr_assert_eq(s->record[i].number, i);
        s->file[i] = some_file(i);
        cr_assert_eq(pack_add_file(w, &s->file[i], detail), 0, "%s", detail);
    }
    s->records = s->files = count;
    cr_assert_eq(pack_finish(w, &s->size, detail), 0, "%s", detail);
    pack_name(pack, name);
    s->object = memory_find(&s->memory, name);
}

static struct sample *new_sample(const uint32_t *sizes, uint32_t count)
{
    struct sample *s = calloc(1, sizeof *s);
    cr_assert_eq(memory_pool_open(&s->memory, &s->pool, detail), 0, "%s", detail);
    write_sample(s, PACK, sizes, count);
    return s;
}

static void free_sample(struct sample *s)
{
    pool_close(s->pool);
    memory_pool_free(&s->memory);
    for (uint32_t i = 0; i < s->records; i++)
        free(s->content[i]);
    free(s);
}

static int read_record(struct sample *s, uint32_t i, uint32_t offset, void *buf, uint32_t len)
{
    const struct pack_record *r = &s->record[i];
    return pack_read(s->pool, NULL, PACK, r->number, r->pack_offset, r->length, offset, buf, len,
                     detail);
}

/* ---- good packs */

Test(pool_pack, round_trip_at_borders)
{
    const uint32_t count = sizeof border_sizes / sizeof border_sizes[0];
    struct sample *s = new_sample(border_sizes, count);
    uint8_t *buf = malloc(POOL_RECORD_MAX + 2);
    uint64_t seed = 1, bytes = 0;

    cr_assert_eq(s->size, s->object->size);
    cr_assert_eq(pack_verify(s->pool, NULL, PACK, &bytes, detail), 0, "%s", detail);
    cr_assert_eq(bytes, s->size);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = s->record[i].length;
        for (int n = 0; n < 200; n++) {
            uint32_t from = n == 0 ? 0 : below(&seed, length);
            uint32_t len = n == 0 ? length : below(&seed, length - from) + 1;
            if (n % 3 == 1) { /* near a border of pages */
                from = from / PC * PC + below(&seed, 3);
                from = from >= length ? length - 1 : from;
                len = len > length - from ? length - from : len;
            }
            buf[len] = 0xa5; /* nothing may be written behind */
            cr_assert_eq(read_record(s, i, from, buf, len), 0, "%s", detail);
            cr_assert_eq(memcmp(buf, s->content[i] + from, len), 0);
            cr_assert_eq(buf[len], 0xa5);
        }
    }
    free(buf);
    free_sample(s);
}

/* A driver may lend places of any size: pages that fit are sealed there, others lie across two. */
static void write_lent(size_t lends, const struct pool_key *key, const struct sample *s,
                       struct memory_pool *m)
{
    const struct pool_driver lender = memory_lender();
    struct pack_writer *w;
    struct pool *p;
    char address[32];

    snprintf(address, sizeof address, "%" PRIxPTR, (uintptr_t)m);
    cr_assert_eq(pool_open_driver(&lender, address, "test", true, &p, detail), 0, "%s", detail);
    m->lends = lends;
    cr_assert_eq(pack_create(p, key, PACK, &w, detail), 0, "%s", detail);
    for (uint32_t i = 0; i < s->records; i++) {
        struct pack_record r = s->record[i];
        cr_assert_eq(pack_add_record(w, s->content[i], &r, detail), 0, "%s", detail);
        cr_assert_eq(r.pack_offset, s->record[i].pack_offset);
        cr_assert_eq(pack_add_file(w, &s->file[i], detail), 0, "%s", detail);
    }
    cr_assert_eq(pack_finish(w, NULL, detail), 0, "%s", detail);
    cr_assert_eq(pack_verify(p, key, PACK, NULL, detail), 0, "%s", detail);
    pool_close(p);
}

Test(pool_pack, the_same_bytes_in_lent_places)
{
    const struct pool_key key = {.bytes = {1, 2, 3}, .generation = 1};
    const size_t sizes[] = {1, 15, 1000, POOL_PAGE - 1, POOL_PAGE, POOL_PAGE + 1, 512 << 10};
    struct sample *s = new_sample(border_sizes, sizeof border_sizes / sizeof border_sizes[0]);
    char name[PACK_NAME];

    pack_name(PACK, name);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct memory_pool lent = {0}, sealed = {0};
        /* Byte by byte what realloc() makes of it would take minutes: the large records go. */
        const uint32_t records = s->records;
        s->records = sizes[i] < 1000 ? 10 : records;
        write_lent(sizes[i], NULL, s, &lent);
        write_lent(sizes[i], &key, s, &sealed);
        s->records = records;
        const struct memory_object *o = memory_find(&lent, name);
        if (sizes[i] >= 1000)
            cr_assert(o->size == s->size && memcmp(o->bytes, s->object->bytes, o->size) == 0,
                      "places of %zu bytes", sizes[i]);
        memory_pool_free(&lent);
        memory_pool_free(&sealed);
    }
    free_sample(s);
}

struct seen {
    struct sample *s;
    uint32_t records, files;
};

static void see_record(void *arg, const struct pack_record *r)
{
    struct seen *seen = arg;
    const struct pack_record *want = &seen->s->record[seen->records++];
    cr_assert(r->number == want->number && r->ino == want->ino && r->offset == want->offset &&
              r->length == want->length && r->pack_offset == want->pack_offset);
}

static void see_file(void *arg, const struct pack_file *f)
{
    struct seen *seen = arg;
    const struct pack_file *want = &seen->s->file[seen->files++];
    cr_assert(f->ino == want->ino && f->size == want->size && f->version == want->version &&
              f->cut == want->cut && f->base_limit == want->base_limit &&
              f->mtime_sec == want->mtime_sec && f->mtime_nsec == want->mtime_nsec);
}

Test(pool_pack, index_tells_what_was_written)
{
    struct sample *s = new_sample(border_sizes, 20);
    struct seen seen = {.s = s};

    cr_assert_eq(pack_index(s->pool, NULL, PACK, see_record, see_file, &seen, detail), 0, "%s",
                 detail);
    cr_assert_eq(seen.records, 20);
    cr_assert_eq(seen.files, 20);
    cr_assert_eq(pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail), 0, "%s", detail);
    cr_assert_eq(pack_index(s->pool, NULL, PACK + 1, NULL, NULL, NULL, detail), -ENOENT);
    cr_assert_eq(pack_verify(s->pool, NULL, PACK + 1, NULL, detail), -ENOENT);
    cr_assert_eq(pack_read(s->pool, NULL, PACK + 1, 0, PACK_END, 1, 0, &seen, 1, detail), -ENOENT);
    free_sample(s);
}

Test(pool_pack, empty_pack)
{
    struct sample *s = new_sample(NULL, 0);
    cr_assert_eq(s->size, 2 * PACK_END);
    cr_assert_eq(pack_verify(s->pool, NULL, PACK, NULL, detail), 0, "%s", detail);
    free_sample(s);
}

/* The footer is longer than one call of the driver reads, and records are smaller than their seals.
 */
Test(pool_pack, many_tiny_records)
{
    const uint32_t count = 150000;
    struct memory_pool memory = {.objects = NULL};
    struct pool *p;
    struct pack_writer *w;
    struct pack_record record = {.number = 0};
    uint64_t places[3] = {0};
    uint8_t byte;

    cr_assert_eq(memory_pool_open(&memory, &p, detail), 0);
    cr_assert_eq(pack_create(p, NULL, 9, &w, detail), 0);
    for (uint32_t i = 0; i < count; i++) {
        byte = (uint8_t)i;
        record.ino = i;
        record.length = 1;
        cr_assert_eq(pack_add_record(w, &byte, &record, detail), 0, "%s", detail);
        places[i == 0 ? 0 : i == count / 2 ? 1 : 2] = record.pack_offset;
    }
    cr_assert_eq(pack_finish(w, NULL, detail), 0, "%s", detail);
    cr_assert_eq(pack_verify(p, NULL, 9, NULL, detail), 0, "%s", detail);
    cr_assert_eq(pack_read(p, NULL, 9, count / 2, places[1], 1, 0, &byte, 1, detail), 0, "%s",
                 detail);
    cr_assert_eq(byte, (uint8_t)(count / 2));
    cr_assert_eq(pack_read(p, NULL, 9, count - 1, places[2], 1, 0, &byte, 1, detail), 0, "%s",
                 detail);
    cr_assert_eq(byte, (uint8_t)(count - 1));
    pool_close(p);
    memory_pool_free(&memory);
}

/* A cold random read of 4 KiB costs one call and at most two pages. */
Test(pool_pack, reads_only_the_pages_it_needs)
{
    const uint32_t sizes[] = {POOL_RECORD_MAX};
    struct sample *s = new_sample(sizes, 1);
    uint8_t *buf = malloc(POOL_RECORD_MAX);
    uint64_t seed = 5;

    s->memory.count_reads = true;
    for (int i = 0; i < 1000; i++) {
        uint32_t from = below(&seed, POOL_RECORD_MAX - 4096);
        s->memory.read_calls = s->memory.read_bytes = 0;
        cr_assert_eq(read_record(s, 0, from, buf, 4096), 0, "%s", detail);
        cr_assert_eq(memcmp(buf, s->content[0] + from, 4096), 0);
        cr_assert_eq(s->memory.read_calls, 1);
        cr_assert_leq(s->memory.read_bytes, 2 * POOL_PAGE);
    }
    s->memory.read_calls = 0;
    cr_assert_eq(read_record(s, 0, 1, buf, POOL_RECORD_MAX - 2), 0, "%s", detail);
    cr_assert_eq(s->memory.read_calls, 1);
    cr_assert_eq(read_record(s, 0, 7, buf, 0), 0);
    free(buf);
    free_sample(s);
}

static uint64_t sum(const uint8_t *bytes, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* Packs are for years: if this fails, the format has changed, and old packs cannot be read any
 * more. */
Test(pool_pack, format_is_frozen)
{
    const uint32_t sizes[] = {5, PC + 1};
    struct sample *s = new_sample(sizes, 2);
    static const uint8_t start[24] = {'U',  'M',  'B',  'E',  'L',  'P',  'A',  'K',
                                      1,    0,    0,    0,    0,    0,    0,    0,
                                      0xcd, 0xab, 0x90, 0x78, 0x56, 0x34, 0x12, 0};

    cr_assert_eq(memcmp(s->object->bytes, start, sizeof start), 0);
    cr_assert_eq(s->record[0].pack_offset, 64);
    cr_assert_eq(s->record[1].pack_offset, 64 + 5 + 16);
    cr_assert_eq(s->size, 64 + 5 + 16 + PC + 1 + 32 + 2 * 32 + 2 * 56 + 16 + 64);
    cr_assert_eq(sum(s->object->bytes, s->object->size), UINT64_C(0x3150b2a6edb4a9ac),
                 "sum is now %" PRIx64, sum(s->object->bytes, s->object->size));
    free_sample(s);
}

/* ---- damage */

enum region { HEADER, CONTENT, SEAL, FOOTER, TRAILER, REGIONS };

/* A random byte of the region; its record, if it is one's. */
static uint64_t pick(const struct sample *s, enum region region, uint64_t *seed, uint32_t *record)
{
    uint64_t footer = run_sealed(s->records * PACK_RECORD_ENTRY + s->files * PACK_FILE_ENTRY);

    *record = UINT32_MAX;
    if (region == HEADER)
        return below(seed, PACK_END);
    if (region == TRAILER)
        return s->size - 1 - below(seed, PACK_END);
    if (region == FOOTER)
        return s->size - PACK_END - 1 - below(seed, (uint32_t)footer);
    *record = below(seed, s->records);
    const struct run run = {.length = s->record[*record].length};
    uint32_t page = below(seed, run_pages(run.length));
    uint64_t at = s->record[*record].pack_offset + (uint64_t)page * POOL_PAGE;
    uint32_t len = run_page_length(&run, page);
    return region == CONTENT ? at + below(seed, len) : at + len + below(seed, POOL_SEAL);
}

/* Each part of each record either comes back as written or is refused. */
static bool all_parts_right(struct sample *s, uint32_t i, uint8_t *buf)
{
    bool refused = false;

    for (uint32_t from = 0; from < s->record[i].length; from += PC) {
        uint32_t len = s->record[i].length - from < PC ? s->record[i].length - from : PC;
        int rc = read_record(s, i, from, buf, len);
        cr_assert(rc == 0 || rc == -EBADMSG, "%d %s", rc, detail);
        if (rc == 0)
            cr_assert_eq(memcmp(buf, s->content[i] + from, len), 0);
        refused |= rc != 0;
    }
    return !refused;
}

static void flip_bits(enum region region)
{
    const uint32_t sizes[] = {1, 100, PC, PC + 1, 2 * PC - 1, 5000, 17, 3 * PC + 9};
    struct sample *s = new_sample(sizes, 8);
    uint8_t *buf = malloc(POOL_RECORD_MAX);
    uint64_t seed = 77 + region;
    uint32_t record;

    for (int n = 0; n < FLIPS; n++) {
        uint64_t at = pick(s, region, &seed, &record);
        uint8_t bit = (uint8_t)(1u << below(&seed, 8));
        s->object->bytes[at] ^= bit;
        cr_assert_eq(pack_verify(s->pool, NULL, PACK, NULL, detail), -EBADMSG, "byte %" PRIu64, at);
        cr_assert_neq(strstr(detail, "pack 001234567890abcd"), NULL, "%s", detail);
        int rc = pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail);
        cr_assert_eq(rc, record == UINT32_MAX ? -EBADMSG : 0, "byte %" PRIu64, at);
        uint32_t read = record == UINT32_MAX ? below(&seed, s->records) : record;
        cr_assert_eq(all_parts_right(s, read, buf), record == UINT32_MAX);
        if (record != UINT32_MAX) {
            memset(buf, 0x55, s->record[read].length);
            rc = read_record(s, read, 0, buf, s->record[read].length);
            cr_assert_eq(rc, -EBADMSG);
            for (uint32_t i = 0; i < s->record[read].length; i++)
                cr_assert_eq(buf[i], 0, "unverified bytes were handed out");
        }
        s->object->bytes[at] ^= bit;
    }
    cr_assert_eq(pack_verify(s->pool, NULL, PACK, NULL, detail), 0, "%s", detail);
    free(buf);
    free_sample(s);
}

Test(pool_pack, flipped_bits_in_header)
{
    flip_bits(HEADER);
}
Test(pool_pack, flipped_bits_in_content)
{
    flip_bits(CONTENT);
}
Test(pool_pack, flipped_bits_in_seals)
{
    flip_bits(SEAL);
}
Test(pool_pack, flipped_bits_in_footer)
{
    flip_bits(FOOTER);
}
Test(pool_pack, flipped_bits_in_trailer)
{
    flip_bits(TRAILER);
}

Test(pool_pack, cut_off_anywhere)
{
    const uint32_t sizes[] = {1, 300, PC, PC + 1, 7, 2 * PC + 3};
    struct sample *s = new_sample(sizes, 6);
    uint8_t *buf = malloc(POOL_RECORD_MAX);
    uint64_t seed = 3;

    for (int n = 0; n < 3000; n++) {
        size_t whole = s->object->size;
        /* The last 2000 lengths one by one, and others at random. */
        s->object->size = n < 2000 && (size_t)n + 1 < whole ? whole - 1 - (size_t)n
                                                            : below(&seed, (uint32_t)whole);
        cr_assert_eq(pack_verify(s->pool, NULL, PACK, NULL, detail), -EBADMSG);
        cr_assert_eq(pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail), -EBADMSG);
        uint32_t i = below(&seed, s->records);
        uint64_t end = s->record[i].pack_offset + run_sealed(s->record[i].length);
        cr_assert_eq(all_parts_right(s, i, buf), end <= s->object->size);
        s->object->size = whole;
    }
    free(buf);
    free_sample(s);
}

Test(pool_pack, bytes_behind_the_end)
{
    const uint32_t sizes[] = {300};
    struct sample *s = new_sample(sizes, 1);

    cr_assert_eq(memory_append(s->object, "", 1, detail), 0);
    cr_assert_eq(pack_verify(s->pool, NULL, PACK, NULL, detail), -EBADMSG);
    free_sample(s);
}

Test(pool_pack, wrong_place)
{
    const uint32_t sizes[] = {3 * PC, 3 * PC, 5};
    struct sample *s = new_sample(sizes, 3);
    const struct pack_record *r = s->record;
    uint8_t *buf = malloc(3 * PC), *page = malloc(POOL_PAGE);
    char name[PACK_NAME];

    cr_assert_eq(pack_read(s->pool, NULL, PACK, 1, r[0].pack_offset, 3 * PC, 0, buf, 10, detail),
                 -EBADMSG);
    cr_assert_eq(
        pack_read(s->pool, NULL, PACK, 0, r[0].pack_offset, 3 * PC - 1, 0, buf, 10, detail),
        -EBADMSG);
    cr_assert_eq(pack_read(s->pool, NULL, PACK, 0, r[0].pack_offset, 2 * PC, 0, buf, 10, detail),
                 -EBADMSG);
    cr_assert_eq(
        pack_read(s->pool, NULL, PACK, 0, r[0].pack_offset + 1, 3 * PC, 0, buf, 10, detail),
        -EBADMSG);
    cr_assert_eq(pack_read(s->pool, NULL, PACK, 0, s->size - 5, 3 * PC, 0, buf, 10, detail),
                 -EBADMSG);
    cr_assert_eq(pack_read(s->pool, NULL, PACK, 0, s->size + 5000, 3 * PC, 0, buf, 10, detail),
                 -EBADMSG);
    /* Two pages of one record change places. */
    uint8_t *first = s->object->bytes + r[0].pack_offset;
    memcpy(page, first, POOL_PAGE);
    memcpy(first, first + POOL_PAGE, POOL_PAGE);
    memcpy(first + POOL_PAGE, page, POOL_PAGE);
    cr_assert_eq(read_record(s, 0, 0, buf, 10), -EBADMSG);
    cr_assert_eq(read_record(s, 0, PC, buf, 10), -EBADMSG);
    cr_assert_eq(read_record(s, 0, 2 * PC, buf, 10), 0);
    /* A whole record in the place of another of the same length. */
    memcpy(first, s->object->bytes + r[1].pack_offset, run_sealed(3 * PC));
    cr_assert_eq(read_record(s, 0, 2 * PC, buf, 10), -EBADMSG);
    cr_assert_eq(pack_verify(s->pool, NULL, PACK, NULL, detail), -EBADMSG);
    cr_assert_neq(strstr(detail, "record 0, page 0"), NULL, "%s", detail);
    /* The whole pack under the name of another one. */
    pack_name(PACK + 1, name);
    strcpy(s->object->name, name);
    cr_assert_eq(pack_read(s->pool, NULL, PACK + 1, 2, r[2].pack_offset, 5, 0, buf, 5, detail),
                 -EBADMSG);
    cr_assert_eq(pack_index(s->pool, NULL, PACK + 1, NULL, NULL, NULL, detail), -EBADMSG);
    free(buf);
    free(page);
    free_sample(s);
}

Test(pool_pack, contradicting_arguments)
{
    const uint32_t sizes[] = {1000};
    struct sample *s = new_sample(sizes, 1);
    uint8_t buf[64];

    cr_assert_eq(read_record(s, 0, 990, buf, 11), -EINVAL);
    cr_assert_eq(read_record(s, 0, 1001, buf, 0), -EINVAL);
    cr_assert_eq(read_record(s, 0, UINT32_MAX, buf, 2), -EINVAL);
    cr_assert_eq(pack_read(s->pool, NULL, PACK, 0, 64, POOL_RECORD_MAX + 1, 0, buf, 1, detail),
                 -EINVAL);
    cr_assert_eq(pack_read(s->pool, NULL, PACK, 0, 64, UINT32_MAX, 0, buf, 1, detail), -EINVAL);
    cr_assert_eq(pack_read(s->pool, NULL, PACK, 0, 64, 0, 0, buf, 0, detail), -EINVAL);
    cr_assert_eq(pack_read(s->pool, NULL, PACK, 0, 0, 1000, 0, buf, 1, detail), -EINVAL);
    cr_assert_eq(pack_read(s->pool, NULL, PACK, 0, UINT64_MAX, 1000, 0, buf, 1, detail), -EINVAL);
    cr_assert_eq(pack_read(s->pool, NULL, PACK, 0, UINT64_MAX - 100, 1000, 0, buf, 1, detail),
                 -EINVAL);
    free_sample(s);
}

/* ---- well sealed nonsense: a writer gone wrong */

static void seal_again(struct sample *s, enum run_kind kind, uint64_t at, uint32_t length)
{
    const struct run run = {.pack = PACK, .kind = kind, .length = length, .at = at};
    for (uint32_t page = 0; page < run_pages(length); page++) {
        uint8_t *from = s->object->bytes + at + (size_t)page * POOL_PAGE;
        run_seal(&run, page, from, from + run_page_length(&run, page));
    }
}

static void expect_bad_trailer(struct sample *s, size_t field, size_t width, uint64_t value)
{
    uint64_t at = s->size - PACK_END;
    uint8_t saved[PACK_END];

    memcpy(saved, s->object->bytes + at, PACK_END);
    for (size_t i = 0; i < width; i++)
        s->object->bytes[at + field + i] = (uint8_t)(value >> (8 * i));
    seal_again(s, RUN_TRAILER, at, PACK_END_CONTENT);
    cr_assert_eq(pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail), -EBADMSG,
                 "field %zu = %" PRIu64, field, value);
    memcpy(s->object->bytes + at, saved, PACK_END);
    cr_assert_eq(pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail), 0);
}

Test(pool_pack, absurd_trailer)
{
    const uint32_t sizes[] = {1000, 2000};
    struct sample *s = new_sample(sizes, 2);
    static const uint64_t values[] = {0,
                                      1,
                                      63,
                                      64,
                                      65,
                                      1000,
                                      INT32_MAX,
                                      UINT32_MAX,
                                      INT64_MAX,
                                      UINT64_MAX,
                                      1u << 20,
                                      (1u << 20) + 1,
                                      UINT64_MAX - 63};

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        expect_bad_trailer(s, 16, 8, values[i]); /* size */
        expect_bad_trailer(s, 24, 8, values[i]); /* footer's place */
        expect_bad_trailer(s, 32, 4, values[i]); /* and length */
        expect_bad_trailer(s, 36, 4, values[i]); /* records */
        expect_bad_trailer(s, 40, 4, values[i]); /* files */
    }
    /* 2 records and 2 files are as long as 9 records would nearly be: lengths that fit, counts that
     * do not. */
    expect_bad_trailer(s, 8, 8, PACK + 1);
    free_sample(s);
}

static void expect_bad_footer(struct sample *s, size_t field, size_t width, uint64_t value)
{
    uint32_t length = s->records * PACK_RECORD_ENTRY + s->files * PACK_FILE_ENTRY;
    uint64_t at = s->size - PACK_END - run_sealed(length);
    uint8_t saved[64];

    memcpy(saved, s->object->bytes + at + field, width);
    for (size_t i = 0; i < width; i++)
        s->object->bytes[at + field + i] = (uint8_t)(value >> (8 * i));
    seal_again(s, RUN_FOOTER, at, length);
    cr_assert_eq(pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail), -EBADMSG,
                 "field %zu = %" PRIu64, field, value);
    cr_assert_eq(pack_verify(s->pool, NULL, PACK, NULL, detail), -EBADMSG);
    memcpy(s->object->bytes + at + field, saved, width);
    seal_again(s, RUN_FOOTER, at, length);
    cr_assert_eq(pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail), 0);
}

Test(pool_pack, absurd_footer)
{
    const uint32_t sizes[] = {1000, 2000, PC + 5};
    struct sample *s = new_sample(sizes, 3);
    const size_t second = PACK_RECORD_ENTRY, files = 3 * PACK_RECORD_ENTRY;

    expect_bad_footer(s, second + 8, 8, INT64_MAX - 10);                /* ends beyond any file */
    expect_bad_footer(s, second + 16, 8, s->record[1].pack_offset - 1); /* overlap */
    expect_bad_footer(s, second + 16, 8, s->record[1].pack_offset + 1); /* gap */
    expect_bad_footer(s, second + 16, 8, s->size + 1);
    expect_bad_footer(s, second + 16, 8, UINT64_MAX);
    expect_bad_footer(s, second + 24, 4, 0); /* number */
    expect_bad_footer(s, second + 28, 4, 0); /* length */
    expect_bad_footer(s, second + 28, 4, 1999);
    expect_bad_footer(s, 2 * PACK_RECORD_ENTRY + 28, 4, PC + 6);
    expect_bad_footer(s, second + 28, 4, POOL_RECORD_MAX);
    expect_bad_footer(s, second + 28, 4, UINT32_MAX);
    expect_bad_footer(s, files + 8, 8, UINT64_MAX);  /* size */
    expect_bad_footer(s, files + 48, 4, 1000000000); /* nanoseconds */
    free_sample(s);
}

Test(pool_pack, newer_format)
{
    const uint32_t sizes[] = {1000};
    struct sample *s = new_sample(sizes, 1);

    s->object->bytes[8] = PACK_FORMAT + 1;
    seal_again(s, RUN_HEADER, 0, PACK_END_CONTENT);
    cr_assert_eq(pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail), -EPROTONOSUPPORT);
    s->object->bytes[8] = PACK_FORMAT;
    s->object->bytes[12] = 9; /* sealing */
    seal_again(s, RUN_HEADER, 0, PACK_END_CONTENT);
    cr_assert_eq(pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail), -EBADMSG);
    free_sample(s);
}

/* ---- writing that fails */

Test(pool_pack, writer_limits)
{
    struct memory_pool memory = {.objects = NULL};
    struct pool *p;
    struct pack_writer *w;
    struct pack_record record = {.length = 0};
    struct pack_file file = {.mtime_nsec = 1000000000};
    uint8_t *content = calloc(1, POOL_RECORD_MAX);
    uint64_t size;
    int rc;

    cr_assert_eq(memory_pool_open(&memory, &p, detail), 0);
    cr_assert_eq(pack_create(p, NULL, 1, &w, detail), 0);
    cr_assert_eq(pack_create(p, NULL, 1, &w, detail), -EEXIST);
    cr_assert_eq(pack_add_record(w, content, &record, detail), -EINVAL);
    record.length = POOL_RECORD_MAX + 1;
    cr_assert_eq(pack_add_record(w, content, &record, detail), -EINVAL);
    record.length = 2;
    record.offset = INT64_MAX - 1;
    cr_assert_eq(pack_add_record(w, content, &record, detail), -EINVAL);
    cr_assert_eq(pack_add_file(w, &file, detail), -EINVAL);
    record.offset = 0;
    record.length = POOL_RECORD_MAX;
    while ((rc = pack_add_record(w, content, &record, detail)) == 0)
        cr_assert_lt(pack_bytes(w), POOL_PACK_TARGET + 2 * POOL_RECORD_MAX);
    cr_assert_eq(rc, -EFBIG);
    cr_assert_geq(pack_bytes(w), POOL_PACK_TARGET);
    file.mtime_nsec = 0;
    cr_assert_eq(pack_add_file(w, &file, detail), 0, "a full pack still takes its files");
    cr_assert_eq(pack_finish(w, &size, detail), 0, "%s", detail);
    cr_assert_eq(pack_verify(p, NULL, 1, NULL, detail), 0, "%s", detail);
    free(content);
    pool_close(p);
    memory_pool_free(&memory);
}

Test(pool_pack, pool_runs_full)
{
    struct memory_pool memory = {.objects = NULL};
    struct pool *p;
    struct pack_writer *w;
    struct pack_record record = {.length = POOL_RECORD_MAX};
    uint8_t *content = calloc(1, POOL_RECORD_MAX);
    int rc = 0;

    cr_assert_eq(memory_pool_open(&memory, &p, detail), 0);
    memory.room = 5 << 20;
    cr_assert_eq(pack_create(p, NULL, 1, &w, detail), 0);
    for (int i = 0; i < 20 && rc == 0; i++)
        rc = pack_add_record(w, content, &record, detail);
    cr_assert_eq(rc, -ENOSPC);
    memory.room = 0; /* too late: bytes are missing in the middle */
    cr_assert_eq(pack_add_record(w, content, &record, detail), -ENOSPC);
    cr_assert_eq(pack_finish(w, NULL, detail), -ENOSPC);
    cr_assert_eq(pack_verify(p, NULL, 1, NULL, detail), -ENOENT, "the torso was removed");

    memory.room = 1000; /* met only when the buffer goes out at the end */
    record.length = 2000;
    cr_assert_eq(pack_create(p, NULL, 2, &w, detail), 0);
    cr_assert_eq(pack_add_record(w, content, &record, detail), 0);
    cr_assert_eq(pack_finish(w, NULL, detail), -ENOSPC);
    memory.room = 0;
    memory.finish_error = -EIO;
    cr_assert_eq(pack_create(p, NULL, 3, &w, detail), 0);
    cr_assert_eq(pack_finish(w, NULL, detail), -EIO);
    cr_assert_eq(pack_create(p, NULL, 4, &w, detail), 0);
    pack_abandon(w);
    for (uint64_t pack = 1; pack <= 4; pack++)
        cr_assert_eq(pack_verify(p, NULL, pack, NULL, detail), -ENOENT);
    free(content);
    pool_close(p);
    memory_pool_free(&memory);
}
