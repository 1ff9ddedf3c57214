/*
 * Any bytes as a pack: reading, listing and verifying them must neither crash nor return anything
 * unverified. The seals of header, footer and trailer are mended in every other run (the bytes are
 * taken for their plain text), so that the parsers behind them are reached. Half of the runs are of
 * a sealed pack.
 */
#include "nodecache/pool/pack_seal.h"
#include "tests/pool_memory.h"

#define PACK 7u

static const struct pool_key some_key = {.bytes = {1, 2, 3}, .generation = 1};

struct use {
    struct pool *pool;
    const struct pool_key *key;
};

static int read_some(const struct use *u, uint32_t number, uint64_t at, uint32_t record_length,
                     uint32_t offset, void *content, uint32_t length)
{
    char detail[POOL_DETAIL];
    struct pool_key key;

    if (u->key != NULL && pool_record_key(u->key, number, &key) != 0)
        abort();
    return pack_read(u->pool, u->key != NULL ? &key : NULL, PACK, number, at, record_length, offset,
                     content, length, detail);
}

static void use_record(void *arg, const struct pack_record *record)
{
    static uint8_t content[POOL_RECORD_MAX];

    if (read_some(arg, record->number, record->pack_offset, record->length, 0, content,
                  record->length) == -EINVAL)
        abort(); /* the index gave what cannot be read */
}

static void use_file(void *arg, const struct pack_file *file)
{
    (void)arg;
    if (!file_sane(file))
        abort();
}

static uint64_t get(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void mend_run(uint8_t *bytes, size_t size, const struct run *run, const struct pool_key *key)
{
    struct sealer sealer;

    if (sealer_init(&sealer, true, key, NULL) != 0 || sealer_run(&sealer, key, run, NULL) != 0)
        abort();
    for (uint32_t page = 0; page < run_pages(run->length); page++) {
        uint64_t at = run->at + (uint64_t)page * POOL_PAGE, len = run_page_length(run, page);
        uint8_t out[POOL_PAGE_CONTENT];
        if (at > size || len + POOL_SEAL > size - at)
            break;
        if (page_seal(&sealer, run, page, bytes + at, out, bytes + at + len, NULL) != 0)
            abort();
        memcpy(bytes + at, out, len);
    }
    sealer_destroy(&sealer);
}

static void mend(uint8_t *bytes, size_t size, const struct pool_key *key)
{
    struct run run = {.pack = PACK, .kind = RUN_HEADER, .length = PACK_END_CONTENT};

    if (size < 2 * PACK_END)
        return;
    mend_run(bytes, size, &run, key);
    const uint8_t *trailer = bytes + size - PACK_END;
    struct run footer = {.pack = PACK,
                         .kind = RUN_FOOTER,
                         .at = get(trailer + 24, 8),
                         .length = (uint32_t)get(trailer + 32, 4)};
    run.kind = RUN_TRAILER;
    run.at = size - PACK_END;
    mend_run(bytes, size, &run, key);
    if (footer.length < size && footer.at < size)
        mend_run(bytes, size, &footer, key);
}

static void reads(const struct use *u, const uint8_t *data, size_t size)
{
    static uint8_t content[POOL_RECORD_MAX];

    if (size < 24)
        return;
    (void)read_some(u, (uint32_t)get(data, 1), get(data + 1, 8), (uint32_t)get(data + 9, 4),
                    (uint32_t)get(data + 13, 4), content,
                    (uint32_t)get(data + 17, 4) % POOL_RECORD_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory_pool memory = {.objects = NULL};
    char name[PACK_NAME], detail[POOL_DETAIL];
    struct pool *p;
    void *object;

    if (size < 1 || memory_pool_open(&memory, &p, detail) != 0)
        return 0;
    pack_name(PACK, name);
    if (memory_create(&memory, name, &object, detail) != 0 ||
        memory_append(object, data + 1, size - 1, detail) != 0)
        abort();
    struct use use = {.pool = p, .key = data[0] & 2 ? &some_key : NULL};
    struct pack_about about;
    if (data[0] & 1)
        mend(((struct memory_object *)object)->bytes, size - 1, use.key);
    (void)pack_about(p, PACK, &about, detail);
    (void)pack_index(p, use.key, PACK, use_record, use_file, &use, detail);
    (void)pack_verify(p, use.key, PACK, NULL, detail);
    reads(&use, data, size);
    pool_close(p);
    memory_pool_free(&memory);
    return 0;
}
