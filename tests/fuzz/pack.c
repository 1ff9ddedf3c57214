/*
 * Any bytes as a pack: reading, listing and verifying them must neither crash nor return anything
 * unverified. The seals of header, footer and trailer are mended in every other run, so that the
 * parsers behind them are reached.
 */
#include "nodecache/pool/pack_format.h"
#include "tests/pool_memory.h"

#define PACK 7u

static void use_record(void *arg, const struct pack_record *record)
{
    struct pool *p = arg;
    static uint8_t content[POOL_RECORD_MAX];
    char detail[POOL_DETAIL];

    if (pack_read(p, NULL, PACK, record->number, record->pack_offset, record->length, 0, content,
                  record->length, detail) == -EINVAL)
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

static void mend_run(uint8_t *bytes, size_t size, const struct run *run)
{
    for (uint32_t page = 0; page < run_pages(run->length); page++) {
        uint64_t at = run->at + (uint64_t)page * POOL_PAGE, len = run_page_length(run, page);
        if (at > size || len + POOL_SEAL > size - at)
            return;
        run_seal(run, page, bytes + at, bytes + at + len);
    }
}

static void mend(uint8_t *bytes, size_t size)
{
    struct run run = {.pack = PACK, .kind = RUN_HEADER, .length = PACK_END_CONTENT};

    if (size < 2 * PACK_END)
        return;
    mend_run(bytes, size, &run);
    run.kind = RUN_TRAILER;
    run.at = size - PACK_END;
    mend_run(bytes, size, &run);
    const uint8_t *trailer = bytes + size - PACK_END;
    run.kind = RUN_FOOTER;
    run.at = get(trailer + 24, 8);
    run.length = (uint32_t)get(trailer + 32, 4);
    if (run.length < size && run.at < size)
        mend_run(bytes, size, &run);
}

static void reads(struct pool *p, const uint8_t *data, size_t size)
{
    static uint8_t content[POOL_RECORD_MAX];
    char detail[POOL_DETAIL];

    if (size < 24)
        return;
    (void)pack_read(p, NULL, PACK, (uint32_t)get(data, 1), get(data + 1, 8),
                    (uint32_t)get(data + 9, 4), (uint32_t)get(data + 13, 4), content,
                    (uint32_t)get(data + 17, 4) % POOL_RECORD_MAX, detail);
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
    if (data[0] & 1)
        mend(((struct memory_object *)object)->bytes, size - 1);
    (void)pack_index(p, NULL, PACK, use_record, use_file, p, detail);
    (void)pack_verify(p, NULL, PACK, NULL, detail);
    reads(p, data, size);
    pool_close(p);
    memory_pool_free(&memory);
    return 0;
}
