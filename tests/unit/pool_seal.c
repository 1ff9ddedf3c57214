/* Sealed packs: read back with the right key and place only, nothing in plain, no (key, nonce)
 * twice.
 */
#include "nodecache/pool/pack_seal.h"
#include "tests/pool_memory.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define PACK    UINT64_C(0x1234567890abcd)
#define PC      POOL_PAGE_CONTENT
#define RECORDS 8
#define FLIPS   500

static char detail[POOL_DETAIL];
static const uint32_t sizes[RECORDS] = {1, 100, PC, PC + 1, 2 * PC - 1, 5000, 17, 3 * PC + 9};

struct sample {
    struct memory_pool memory;
    struct pool *pool;
    struct pool_key cloud, key;
    struct pack_record record[RECORDS];
    uint8_t *content[RECORDS];
    uint64_t size;
    struct memory_object *object;
};

static struct pool_key cloud_key(uint32_t generation)
{
    struct pool_key key = {.generation = generation};
    for (size_t i = 0; i < POOL_KEY; i++)
        key.bytes[i] = (uint8_t)(i * 7 + generation);
    return key;
}

static struct memory_object *object_of(struct sample *s, uint64_t pack)
{
    char name[PACK_NAME];

    pack_name(pack, name);
    return memory_find(&s->memory, name);
}

static void write_pack(struct sample *s, uint64_t pack)
{
    struct pack_writer *w;
    struct pool_key key;

    cr_assert_eq(pool_pack_key(&s->cloud, pack, &key), 0);
    cr_assert_eq(pack_create(s->pool, &key, pack, &w, detail), 0, "%s", detail);
    for (uint32_t i = 0; i < RECORDS; i++) {
        const struct pack_file file = {.ino = 100 + i, .size = sizes[i]};
        s->record[i] = (struct pack_record){.ino = 100 + i, .length = sizes[i]};
        cr_assert_eq(pack_add_record(w, s->content[i], &s->record[i], detail), 0, "%s", detail);
        cr_assert_eq(pack_add_file(w, &file, detail), 0);
    }
    cr_assert_eq(pack_finish(w, &s->size, detail), 0, "%s", detail);
}

static struct sample *sample_new(void)
{
    struct sample *s = calloc(1, sizeof *s);

    cr_assert_eq(memory_pool_open(&s->memory, &s->pool, detail), 0, "%s", detail);
    s->cloud = cloud_key(3);
    for (uint32_t i = 0; i < RECORDS; i++) {
        s->content[i] = malloc(sizes[i]);
        memset(s->content[i], 'a' + (int)i, sizes[i]);
    }
    write_pack(s, PACK);
    s->object = object_of(s, PACK);
    cr_assert_eq(pool_pack_key(&s->cloud, PACK, &s->key), 0);
    return s;
}

static void sample_free(struct sample *s)
{
    pool_close(s->pool);
    memory_pool_free(&s->memory);
    for (uint32_t i = 0; i < RECORDS; i++)
        free(s->content[i]);
    free(s);
}

static int read_as(struct sample *s, const struct pool_key *pack_key, uint64_t pack, uint32_t i,
                   uint32_t number, uint32_t from, void *buf, uint32_t len)
{
    struct pool_key key;

    cr_assert_eq(pool_record_key(pack_key, number, &key), 0);
    return pack_read(s->pool, &key, pack, number, s->record[i].pack_offset, sizes[i], from, buf,
                     len, detail);
}

Test(pool_seal, round_trip)
{
    struct sample *s = sample_new();
    uint8_t *buf = malloc(POOL_RECORD_MAX);
    struct pack_about about;
    uint64_t bytes;

    cr_assert_eq(pack_about(s->pool, PACK, &about, detail), 0, "%s", detail);
    cr_assert(about.sealed && about.generation == 3);
    cr_assert_eq(pack_verify(s->pool, &s->key, PACK, &bytes, detail), 0, "%s", detail);
    cr_assert_eq(bytes, s->size);
    for (uint32_t i = 0; i < RECORDS; i++) {
        for (uint32_t from = 0; from < sizes[i]; from += 4099) {
            uint32_t len = sizes[i] - from < 5000 ? sizes[i] - from : 5000;
            cr_assert_eq(read_as(s, &s->key, PACK, i, i, from, buf, len), 0, "%s", detail);
            cr_assert_eq(memcmp(buf, s->content[i] + from, len), 0);
        }
    }
    free(buf);
    sample_free(s);
}

Test(pool_seal, nothing_lies_in_plain)
{
    struct sample *s = sample_new();

    /* Contents are single letters many times over: eight of one would be no accident. */
    for (uint32_t i = 0; i < RECORDS; i++) {
        uint8_t run[8];
        memset(run, 'a' + (int)i, sizeof run);
        cr_expect_null(memmem(s->object->bytes, s->object->size, run, sizeof run));
    }
    cr_expect_null(memmem(s->object->bytes, s->object->size, "UMBELEND", 8));
    /* Footer entries of the files: an inode number in 8 bytes, then a size in 8. */
    const uint8_t entry[16] = {100, [8] = 1};
    cr_expect_null(memmem(s->object->bytes, s->object->size, entry, sizeof entry));
    sample_free(s);
}

Test(pool_seal, flipped_bits)
{
    struct sample *s = sample_new();
    uint8_t *buf = malloc(POOL_RECORD_MAX);
    uint32_t footer = RECORDS * (PACK_RECORD_ENTRY + PACK_FILE_ENTRY);
    uint64_t body_end = s->size - PACK_END - run_sealed(footer), seed = 5;

    for (int n = 0; n < 4 * FLIPS; n++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t r = seed >> 33, at;
        if (n < FLIPS)
            at = r % PACK_END;
        else if (n < 2 * FLIPS)
            at = s->size - 1 - r % (PACK_END + run_sealed(footer));
        else
            at = PACK_END + r % (body_end - PACK_END);
        s->object->bytes[at] ^= (uint8_t)(1u << (n % 8));
        cr_assert_eq(pack_verify(s->pool, &s->key, PACK, NULL, detail), -EBADMSG, "byte %" PRIu64,
                     at);
        for (uint32_t i = 0; i < RECORDS; i++) {
            uint64_t from = s->record[i].pack_offset, end = from + run_sealed(sizes[i]);
            bool hit = at >= from && at < end;
            int rc = read_as(s, &s->key, PACK, i, i, 0, buf, sizes[i]);
            cr_assert_eq(rc, hit ? -EBADMSG : 0);
            for (uint32_t k = 0; hit && k < sizes[i]; k++)
                cr_assert_eq(buf[k], 0, "unverified bytes were handed out");
        }
        s->object->bytes[at] ^= (uint8_t)(1u << (n % 8));
    }
    cr_assert_eq(pack_verify(s->pool, &s->key, PACK, NULL, detail), 0, "%s", detail);
    free(buf);
    sample_free(s);
}

Test(pool_seal, cut_off_anywhere)
{
    struct sample *s = sample_new();
    size_t whole = s->object->size;

    for (size_t size = 0; size < whole; size += size < 200 || size + 2000 > whole ? 1 : 997) {
        s->object->size = size;
        cr_assert_eq(pack_verify(s->pool, &s->key, PACK, NULL, detail), -EBADMSG);
    }
    s->object->size = whole;
    sample_free(s);
}

Test(pool_seal, wrong_keys)
{
    struct sample *s = sample_new();
    struct pool_key other, cloud = cloud_key(4);
    uint8_t buf[100];

    cr_assert_eq(pack_verify(s->pool, NULL, PACK, NULL, detail), -ENOKEY);
    cr_assert_neq(strstr(detail, "generation 3"), NULL, "%s", detail);
    cr_assert_eq(pack_index(s->pool, NULL, PACK, NULL, NULL, NULL, detail), -ENOKEY);
    cr_assert_eq(
        pack_read(s->pool, NULL, PACK, 1, s->record[1].pack_offset, 100, 0, buf, 100, detail),
        -EBADMSG);
    /* The next generation's. */
    cr_assert_eq(pool_pack_key(&cloud, PACK, &other), 0);
    cr_assert_eq(pack_verify(s->pool, &other, PACK, NULL, detail), -EBADMSG);
    cr_assert_neq(strstr(detail, "generation 3"), NULL, "%s", detail);
    cr_assert_eq(read_as(s, &other, PACK, 1, 1, 0, buf, 100), -EBADMSG);
    /* Another key that says it is of this generation. */
    cloud.generation = 3;
    cr_assert_eq(pool_pack_key(&cloud, PACK, &other), 0);
    cr_assert_eq(pack_verify(s->pool, &other, PACK, NULL, detail), -EBADMSG);
    /* Another pack's; another record's; the pack's own where a record's belongs. */
    cr_assert_eq(pool_pack_key(&s->cloud, PACK + 1, &other), 0);
    cr_assert_eq(pack_verify(s->pool, &other, PACK, NULL, detail), -EBADMSG);
    cr_assert_eq(pool_record_key(&s->key, 2, &other), 0);
    cr_assert_eq(
        pack_read(s->pool, &other, PACK, 1, s->record[1].pack_offset, 100, 0, buf, 100, detail),
        -EBADMSG);
    cr_assert_eq(
        pack_read(s->pool, &s->key, PACK, 1, s->record[1].pack_offset, 100, 0, buf, 100, detail),
        -EBADMSG);
    sample_free(s);
}

/* Who owns the pool could put packs of his own there, if checksums would do. */
Test(pool_seal, an_unsealed_pack_is_no_substitute)
{
    struct sample *s = sample_new();
    struct pack_writer *w;
    struct pack_record record = {.ino = 1, .length = 100};
    struct pool_key key;
    uint8_t buf[100];

    cr_assert_eq(pack_create(s->pool, NULL, 7, &w, detail), 0);
    cr_assert_eq(pack_add_record(w, s->content[1], &record, detail), 0);
    cr_assert_eq(pack_finish(w, NULL, detail), 0);
    cr_assert_eq(pool_pack_key(&s->cloud, 7, &key), 0);
    cr_assert_eq(pack_verify(s->pool, &key, 7, NULL, detail), -EBADMSG);
    cr_assert_neq(strstr(detail, "not sealed"), NULL, "%s", detail);
    cr_assert_eq(pool_record_key(&key, 0, &key), 0);
    cr_assert_eq(pack_read(s->pool, &key, 7, 0, record.pack_offset, 100, 0, buf, 100, detail),
                 -EBADMSG);
    sample_free(s);
}

Test(pool_seal, swapped)
{
    struct sample *s = sample_new();
    uint8_t page[POOL_PAGE], buf[10], *first = s->object->bytes + s->record[7].pack_offset;
    char name[PACK_NAME];

    memcpy(page, first, POOL_PAGE);
    memcpy(first, first + POOL_PAGE, POOL_PAGE);
    memcpy(first + POOL_PAGE, page, POOL_PAGE);
    cr_assert_eq(read_as(s, &s->key, PACK, 7, 7, 0, buf, 10), -EBADMSG);
    cr_assert_eq(read_as(s, &s->key, PACK, 7, 7, PC, buf, 10), -EBADMSG);
    cr_assert_eq(read_as(s, &s->key, PACK, 7, 7, 2 * PC, buf, 10), 0, "%s", detail);
    cr_assert_eq(read_as(s, &s->key, PACK, 7, 6, 2 * PC, buf, 10), -EBADMSG);
    /* One of these packs under the name of the other. */
    write_pack(s, PACK + 1);
    pack_name(PACK + 2, name);
    strcpy(object_of(s, PACK + 1)->name, name);
    struct pool_key key;
    cr_assert_eq(pool_pack_key(&s->cloud, PACK + 2, &key), 0);
    cr_assert_eq(pack_verify(s->pool, &key, PACK + 2, NULL, detail), -EBADMSG);
    cr_assert_eq(read_as(s, &key, PACK + 2, 1, 1, 0, buf, 10), -EBADMSG);
    sample_free(s);
}

/* ---- no (key, nonce) is used twice */

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, POOL_KEY);
}

/* Within a run the nonce is the page's number, so all that is left to show is that no two runs have
 * the same key, whatever pack, kind, number and generation they are of. */
Test(pool_seal, no_key_is_used_for_two_runs)
{
    enum { GENERATIONS = 2, PACKS = 40, NUMBERS = 100, KINDS = 4 };
    const size_t most = (size_t)GENERATIONS * PACKS * (NUMBERS + KINDS);
    uint8_t(*keys)[POOL_KEY] = calloc(most, POOL_KEY);
    struct pool_key pack, run;
    size_t n = 0;

    for (uint32_t g = 1; g <= GENERATIONS; g++) {
        struct pool_key cloud = cloud_key(g);
        for (uint64_t p = 0; p < PACKS; p++) {
            uint64_t id = p < 20 ? p + 1 : UINT64_C(1) << p; /* also far apart */
            cr_assert_eq(pool_pack_key(&cloud, id, &pack), 0);
            memcpy(keys[n++], pack.bytes, POOL_KEY);
            for (uint32_t k = 1; k < KINDS; k++) {
                cr_assert_eq(pool_run_key(&pack, k, 0, &run), 0);
                memcpy(keys[n++], run.bytes, POOL_KEY);
            }
            for (uint32_t r = 0; r < NUMBERS; r++) {
                cr_assert_eq(pool_record_key(&pack, r < 60 ? r : r << 13, &run), 0);
                memcpy(keys[n++], run.bytes, POOL_KEY);
            }
        }
    }
    qsort(keys, n, POOL_KEY, compare_keys);
    for (size_t i = 1; i < n; i++)
        cr_assert_neq(memcmp(keys[i - 1], keys[i], POOL_KEY), 0);
    free(keys);
}

/* The same content twice in one pack, and in two packs: nothing of it looks the same. Two pages
 * under one key and nonce would. */
Test(pool_seal, equal_content_never_looks_equal)
{
    struct sample *s = sample_new();
    struct pack_writer *w;
    struct pack_record r[4];
    uint8_t *same = calloc(1, 2 * PC);
    struct pool_key key;

    for (uint64_t pack = 1; pack <= 2; pack++) {
        cr_assert_eq(pool_pack_key(&s->cloud, pack, &key), 0);
        cr_assert_eq(pack_create(s->pool, &key, pack, &w, detail), 0);
        for (uint32_t i = 0; i < 2; i++) {
            struct pack_record *at = &r[(pack - 1) * 2 + i];
            *at = (struct pack_record){.length = 2 * PC};
            cr_assert_eq(pack_add_record(w, same, at, detail), 0);
        }
        cr_assert_eq(pack_finish(w, NULL, detail), 0);
    }
    const uint8_t *pages[8];
    for (uint32_t n = 0; n < 8; n++)
        pages[n] = object_of(s, n / 4 + 1)->bytes + r[n / 2].pack_offset + n % 2 * POOL_PAGE;
    for (uint32_t a = 0; a < 8; a++)
        for (uint32_t b = a + 1; b < 8; b++)
            cr_assert_neq(memcmp(pages[a], pages[b], 16), 0, "%u %u", a, b);
    free(same);
    sample_free(s);
}

/* ---- the bytes on the disk */

/* Derived keys and one whole pack: whoever changes them makes clouds unreadable. */
Test(pool_seal, format_is_frozen)
{
    struct sample *s = sample_new();
    struct pool_key key;
    char text[2 * POOL_KEY + 1];
    uint64_t sum = 14695981039346656037u;

    cr_assert_eq(pool_record_key(&s->key, 5, &key), 0);
    for (size_t i = 0; i < POOL_KEY; i++)
        sprintf(text + 2 * i, "%02x", key.bytes[i]);
    for (size_t i = 0; i < s->object->size; i++)
        sum = (sum ^ s->object->bytes[i]) * 1099511628211u;
    cr_expect_str_eq(text, "5594fd1febfbe3cd231cb386bee0ffe99f103c05bc6eb16f4fd14f4dca52a606", "%s",
                     text);
    cr_expect_eq(sum, UINT64_C(0x643fbc101a7ef9d3), "%016" PRIx64, sum);
    sample_free(s);
}
