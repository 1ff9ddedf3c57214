/* Seals, and the encoding of header, footer and trailer. */
#include "nodecache/pool/pack_format.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static const char header_magic[8] = {'U', 'M', 'B', 'E', 'L', 'P', 'A', 'K'};
static const char trailer_magic[8] = {'U', 'M', 'B', 'E', 'L', 'E', 'N', 'D'};

#define SEALING_XXH3 0u
#define SEALING_GCM  1u
#define NSEC_PER_SEC 1000000000u

static void put32(uint8_t *to, uint32_t value)
{
    value = htole32(value);
    memcpy(to, &value, sizeof value);
}

static void put64(uint8_t *to, uint64_t value)
{
    value = htole64(value);
    memcpy(to, &value, sizeof value);
}

static uint32_t get32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return le32toh(value);
}

static uint64_t get64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return le64toh(value);
}

uint32_t run_pages(uint32_t length)
{
    return length / POOL_PAGE_CONTENT + (length % POOL_PAGE_CONTENT != 0);
}

uint64_t run_sealed(uint32_t length)
{
    return length + (uint64_t)run_pages(length) * POOL_SEAL;
}

uint32_t run_page_length(const struct run *run, uint32_t page)
{
    uint32_t rest = run->length - page * POOL_PAGE_CONTENT;
    return rest < POOL_PAGE_CONTENT ? rest : POOL_PAGE_CONTENT;
}

void run_place(const struct run *run, uint32_t page, uint8_t place[RUN_PLACE])
{
    put64(place, run->pack);
    put32(place + 8, (uint32_t)run->kind);
    put32(place + 12, run->number);
    put32(place + 16, page);
    put32(place + 20, run->length);
}

void run_seal(const struct run *run, uint32_t page, const void *content, uint8_t seal[POOL_SEAL])
{
    uint8_t place[RUN_PLACE];
    XXH128_canonical_t canonical;

    run_place(run, page, place);
    /* The place goes in as the seed: no hashing state to set up, and the content is read in one go.
     */
    XXH64_hash_t seed = XXH3_64bits(place, sizeof place);
    XXH128_hash_t hash = XXH3_128bits_withSeed(content, run_page_length(run, page), seed);
    XXH128_canonicalFromHash(&canonical, hash);
    static_assert(sizeof canonical.digest == POOL_SEAL, "a seal is a 128-bit hash");
    memcpy(seal, canonical.digest, POOL_SEAL);
}

/* "record 7", "header", ... */
static const char *run_text(const struct run *run, char text[24])
{
    static const char *const names[] = {"record", "header", "footer", "trailer"};

    if (run->kind == RUN_RECORD)
        snprintf(text, 24, "record %" PRIu32, run->number);
    else
        snprintf(text, 24, "%s", names[run->kind]);
    return text;
}

int run_fail(const struct run *run, char *detail, const char *text)
{
    char name[24];
    return pool_fail(detail, -EBADMSG, "pack %016" PRIx64 ", %s: %s", run->pack,
                     run_text(run, name), text);
}

int run_mismatch(const struct run *run, uint32_t page, char *detail)
{
    char name[24];

    return pool_fail(detail, -EBADMSG,
                     "pack %016" PRIx64 ", %s, page %" PRIu32 " (at byte %" PRIu64
                     "): the seal does not match",
                     run->pack, run_text(run, name), page, run->at + (uint64_t)page * POOL_PAGE);
}

int run_check(const struct run *run, uint32_t page, const void *content,
              const uint8_t seal[POOL_SEAL], char *detail)
{
    uint8_t expected[POOL_SEAL];

    run_seal(run, page, content, expected);
    return memcmp(expected, seal, POOL_SEAL) == 0 ? 0 : run_mismatch(run, page, detail);
}

void header_put(uint8_t content[PACK_END_CONTENT], uint64_t pack, const struct pool_key *key)
{
    memset(content, 0, PACK_END_CONTENT);
    memcpy(content, header_magic, sizeof header_magic);
    put32(content + 8, PACK_FORMAT);
    put32(content + 12, key != NULL ? SEALING_GCM : SEALING_XXH3);
    put64(content + 16, pack);
    put32(content + 24, key != NULL ? key->generation : 0);
}

int header_get(const uint8_t content[PACK_END_CONTENT], uint64_t pack, struct pack_about *about,
               char *detail)
{
    const struct run run = {.pack = pack, .kind = RUN_HEADER};
    uint32_t sealing = get32(content + 12);

    if (memcmp(content, header_magic, sizeof header_magic) != 0)
        return run_fail(&run, detail, "this is no pack");
    if (get32(content + 8) > PACK_FORMAT)
        return pool_fail(detail, -EPROTONOSUPPORT,
                         "pack %016" PRIx64 " has format %" PRIu32 ", newer than %u", pack,
                         get32(content + 8), PACK_FORMAT);
    if (get32(content + 8) != PACK_FORMAT || sealing > SEALING_GCM)
        return run_fail(&run, detail, "unknown format or sealing");
    if (get64(content + 16) != pack)
        return run_fail(&run, detail, "it carries the id of another pack");
    *about =
        (struct pack_about){.sealed = sealing == SEALING_GCM, .generation = get32(content + 24)};
    if (about->sealed != (about->generation != 0))
        return run_fail(&run, detail, "sealing and key generation contradict each other");
    return 0;
}

void trailer_put(uint8_t content[PACK_END_CONTENT], uint64_t pack, const struct pack_shape *shape)
{
    memset(content, 0, PACK_END_CONTENT);
    memcpy(content, trailer_magic, sizeof trailer_magic);
    put64(content + 8, pack);
    put64(content + 16, shape->size);
    put64(content + 24, shape->footer_at);
    put32(content + 32, shape->footer_length);
    put32(content + 36, shape->records);
    put32(content + 40, shape->files);
}

int trailer_get(const uint8_t content[PACK_END_CONTENT], uint64_t pack, uint64_t size,
                struct pack_shape *shape, char *detail)
{
    const struct run run = {.pack = pack, .kind = RUN_TRAILER};

    if (memcmp(content, trailer_magic, sizeof trailer_magic) != 0)
        return run_fail(&run, detail, "it is missing: the pack was cut off or never finished");
    shape->size = get64(content + 16);
    shape->footer_at = get64(content + 24);
    shape->footer_length = get32(content + 32);
    shape->records = get32(content + 36);
    shape->files = get32(content + 40);
    if (get64(content + 8) != pack || shape->size != size)
        return run_fail(&run, detail, "it belongs to another pack, or one of another size");
    if (shape->records > POOL_PACK_RECORDS_MAX || shape->files > POOL_PACK_RECORDS_MAX ||
        shape->footer_length != shape->records * PACK_RECORD_ENTRY + shape->files * PACK_FILE_ENTRY)
        return run_fail(&run, detail, "absurd counts");
    uint64_t behind = run_sealed(shape->footer_length) + PACK_END;
    if (behind > size - PACK_END || shape->footer_at != size - behind)
        return run_fail(&run, detail, "it points outside the pack");
    return 0;
}

void pack_record_put(uint8_t entry[PACK_RECORD_ENTRY], const struct pack_record *record)
{
    put64(entry, record->ino);
    put64(entry + 8, record->offset);
    put64(entry + 16, record->pack_offset);
    put32(entry + 24, record->number);
    put32(entry + 28, record->length);
}

void pack_record_get(const uint8_t entry[PACK_RECORD_ENTRY], struct pack_record *record)
{
    record->ino = get64(entry);
    record->offset = get64(entry + 8);
    record->pack_offset = get64(entry + 16);
    record->number = get32(entry + 24);
    record->length = get32(entry + 28);
}

void pack_file_put(uint8_t entry[PACK_FILE_ENTRY], const struct pack_file *file)
{
    put64(entry, file->ino);
    put64(entry + 8, file->size);
    put64(entry + 16, file->version);
    put64(entry + 24, file->cut);
    put64(entry + 32, file->base_limit);
    put64(entry + 40, (uint64_t)file->mtime_sec);
    put32(entry + 48, file->mtime_nsec);
    put32(entry + 52, file->records);
}

bool pack_file_get(const uint8_t entry[PACK_FILE_ENTRY], struct pack_file *file)
{
    file->ino = get64(entry);
    file->size = get64(entry + 8);
    file->version = get64(entry + 16);
    file->cut = get64(entry + 24);
    file->base_limit = get64(entry + 32);
    file->mtime_sec = (int64_t)get64(entry + 40);
    file->mtime_nsec = get32(entry + 48);
    file->records = get32(entry + 52);
    return file_sane(file);
}

void pack_origin_put(uint8_t entry[POOL_ORIGIN], const struct pack_origin *origin)
{
    put64(entry, origin->record);
    put64(entry + 8, origin->version);
    put64(entry + 16, origin->cut);
}

void pack_origin_get(const uint8_t entry[POOL_ORIGIN], struct pack_origin *origin)
{
    origin->record = get64(entry);
    origin->version = get64(entry + 8);
    origin->cut = get64(entry + 16);
}

bool record_sane(const struct pack_record *record)
{
    return record->length >= 1 && record->length <= POOL_RECORD_MAX &&
           record->offset <= (uint64_t)INT64_MAX - record->length;
}

bool file_sane(const struct pack_file *file)
{
    return file->size <= (uint64_t)INT64_MAX && file->mtime_nsec < NSEC_PER_SEC;
}
