/*
 * The bytes of a pack (README.md has the layout in full). Everything is little-endian.
 *
 * A pack is a row of runs: header, records, footer, trailer. Each run is content cut into pages,
 * and each page is followed by its seal. So there is one way to seal, to read and to verify.
 */
#ifndef UMBEL_PACK_FORMAT_H
#define UMBEL_PACK_FORMAT_H

#include "nodecache/pool/pool_internal.h"

#define PACK_FORMAT       1u
#define PACK_END_CONTENT  48u                            /* content of header and of trailer */
#define PACK_END          (PACK_END_CONTENT + POOL_SEAL) /* sealed */
#define PACK_RECORD_ENTRY 32u
#define PACK_FILE_ENTRY   56u
#define PACK_FOOTER_MAX   (POOL_PACK_RECORDS_MAX * (PACK_RECORD_ENTRY + PACK_FILE_ENTRY))

enum run_kind { RUN_RECORD = 0, RUN_HEADER = 1, RUN_FOOTER = 2, RUN_TRAILER = 3 };

struct run {
    uint64_t pack;
    enum run_kind kind;
    uint32_t number; /* of a record; 0 for the other kinds */
    uint32_t length; /* content bytes */
    uint64_t at;     /* of the first page in the pack */
};

/* What the trailer tells. */
struct pack_shape {
    uint64_t size; /* of the whole object */
    uint64_t footer_at;
    uint32_t footer_length;
    uint32_t records, files;
};

/* Pages of a run, its bytes with seals, and the content bytes of one page of it. */
uint32_t run_pages(uint32_t length);
uint64_t run_sealed(uint32_t length);
uint32_t run_page_length(const struct run *run, uint32_t page);

/* The checksum of a page with this content (run_page_length() bytes). */
void run_seal(const struct run *run, uint32_t page, const void *content, uint8_t seal[POOL_SEAL]);
/* What a seal binds a page to (README.md). */
#define RUN_PLACE 24
void run_place(const struct run *run, uint32_t page, uint8_t place[RUN_PLACE]);
/* -EBADMSG with the place in detail. */
int run_mismatch(const struct run *run, uint32_t page, char *detail);
/* 0, or as run_mismatch(). */
int run_check(const struct run *run, uint32_t page, const void *content,
              const uint8_t seal[POOL_SEAL], char *detail);
/* -EBADMSG with pack and run named before the text. */
int run_fail(const struct run *run, char *detail, const char *text);

/* Reads and verifies content bytes [offset, offset + length) of a run (pack_read.c). key: the
 * run's, or NULL. */
int run_read(struct pool *p, const struct pool_key *key, const struct run *run, uint32_t offset,
             void *buf, uint32_t length, char *detail);

/* Content of header and trailer. The get functions check all but the seal: -EBADMSG,
 * -EPROTONOSUPPORT. */
void header_put(uint8_t content[PACK_END_CONTENT], uint64_t pack, const struct pool_key *key);
int header_get(const uint8_t content[PACK_END_CONTENT], uint64_t pack, struct pack_about *about,
               char *detail);
void trailer_put(uint8_t content[PACK_END_CONTENT], uint64_t pack, const struct pack_shape *shape);
int trailer_get(const uint8_t content[PACK_END_CONTENT], uint64_t pack, uint64_t size,
                struct pack_shape *shape, char *detail);

/* Entries of the footer. The get functions only decode. */
void pack_record_put(uint8_t entry[PACK_RECORD_ENTRY], const struct pack_record *record);
void pack_record_get(const uint8_t entry[PACK_RECORD_ENTRY], struct pack_record *record);
void pack_file_put(uint8_t entry[PACK_FILE_ENTRY], const struct pack_file *file);
bool pack_file_get(const uint8_t entry[PACK_FILE_ENTRY],
                   struct pack_file *file); /* false: absurd */

/* True if these may stand in a record (offset and length) or a file. */
bool record_sane(const struct pack_record *record);
bool file_sane(const struct pack_file *file);

/* Trailer, header and footer of a pack, read and checked: records tile the pack from the header to
 * the footer. *footer is the content (record entries, then file entries), to be freed
 * (pack_index.c). */
int pack_load(struct pool *p, const struct pool_key *key, uint64_t pack, struct pack_shape *shape,
              uint8_t **footer, char *detail);

#endif
