/*
 * The pool: where data lives for good, as immutable packs of sealed records.
 *
 * A pool is a driver (dir: or nfs:) behind struct pool_driver, a small table of functions
 * on named objects. Packs are written once, from front to back, then synced, and never changed.
 *
 * Pack (object "packs/XX/XXXXXXXXXXXXXXXX", the id in hex; the folder is its low byte):
 *   header | records | footer index | trailer with the footer's place
 * Each of these is cut into pages: up to POOL_PAGE_CONTENT bytes of content followed by a 16-byte
 * seal, so that a cold random 4 KiB read fetches at most two pages = 64 KiB. The exact bytes:
 * README.md. Sealed clouds: AES-256-GCM, with (pack id, kind, record number, page number, length)
 * as associated data. Unsealed (not encrypted) clouds: XXH3-128 over the same and the content. A
 * page that was moved, swapped or damaged is found. Both take the same room. The footer holds for
 * each record: number, inode, file offset, length, pack offset; and for each file its attributes at
 * the cut, so that a namespace can be rebuilt from the pool alone.
 *
 * No byte is ever returned unverified: after an error the buffer holds zeros. Threads: a struct
 * pool may be used by any number of threads at once; a pack_writer by one at a time. Locks: only
 * the drivers have some, never held across I/O. Errors: -errno plus one line in detail
 * (POOL_DETAIL bytes, or NULL).
 */
#ifndef UMBEL_POOL_H
#define UMBEL_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>

#define POOL_DETAIL       256
#define POOL_PAGE         32768u
#define POOL_SEAL         16u
#define POOL_PAGE_CONTENT (POOL_PAGE - POOL_SEAL)
#define POOL_RECORD_MAX   (1u << 20)
/* A writer takes no more records beyond this; the flush starts another pack. */
#define POOL_PACK_TARGET (64u << 20)
/* Of records, and of files. A record id has 20 bits for the number. */
#define POOL_PACK_RECORDS_MAX (1u << 20)
#define POOL_CLOUD_MAX        128 /* bytes of a cloud id: printable, no spaces */

struct pool;

/* url: "dir:/path" or "nfs://host/export/path?..." (README.md; created if create is set; the parent
 * must exist). cloud NULL: whichever cloud's
 * it is (not with create). -EINVAL: unknown form; -ENOENT: no pool there; -EPROTONOSUPPORT: the
 * pool was made by a newer format; -EXDEV: it belongs to another cloud (its "umbel-pool" marker
 * names a different cloud id); -EBADMSG: its marker is damaged. Several processes may create the
 * same pool at once. */
int pool_open(const char *url, const char *cloud, bool create, struct pool **out, char *detail);
/* As pool_open without create, but a pool that is away does not matter yet: 0 with the reason in
 * detail ("" if it is there). Until pool_look finds it everything else is -EIO with that reason.
 * Still errors: -EINVAL, -EPROTONOSUPPORT, -EXDEV, -ENOMEM. */
int pool_open_later(const char *url, const char *cloud, struct pool **out, char *detail);
/* Looks where the URL leads now: 0 if this cloud's pool is there, and from then on that is what is
 * used. Else -errno; what was in use before can still be read, but takes no new pack. May wait for
 * a pool that is away; for one thread at a time. */
int pool_look(struct pool *p, char *detail);
void pool_close(struct pool *p);
/* Whose pool it is, as its marker says. */
int pool_cloud(struct pool *p, char cloud[POOL_CLOUD_MAX + 1], char *detail);
int pool_statvfs(struct pool *p, struct statvfs *out, char *detail);

/* Driver table. Names are relative, without "..". All calls block, each with the driver's own
 * deadline. */
struct pool_driver {
    const char *scheme;
    int (*open)(const char *rest_of_url, bool create, void **ctx, char *detail);
    void (*close)(void *ctx);
    /* A new object; -EEXIST if there is one. Makes the folders of its name. */
    int (*create)(void *ctx, const char *name, void **object, char *detail);
    int (*append)(void *object, const void *data, size_t len, char *detail);
    /* Data and name are on stable storage when this returns 0. Frees object in any case; removes it
     * on an error. */
    int (*finish)(void *object, char *detail);
    void (*abandon)(void *object); /* removes it, best effort */
    /* Fills the buffers of iov (at most POOL_IOV_MAX; the array may be changed) from offset on.
     * Bytes read, short only at the end of the object; -ENOENT. */
    ssize_t (*read)(void *ctx, const char *name, uint64_t offset, struct iovec *iov, int count,
                    char *detail);
    int (*size)(void *ctx, const char *name, uint64_t *size, char *detail);
    /* Gone for good, also after a crash, when this returns 0. -ENOENT is 0. */
    int (*remove)(void *ctx, const char *name, char *detail);
    /* Names in a folder, until fn returns false; a folder that is not there is empty. */
    int (*list)(void *ctx, const char *folder, bool (*fn)(void *arg, const char *name), void *arg,
                char *detail);
    int (*statvfs)(void *ctx, struct statvfs *out, char *detail);
    /* These may be NULL. Where the object's next bytes may be put (at least one), so that append
     * need not copy them: it is given the place itself then. The place is good until that. */
    int (*room)(void *object, void **at, size_t *len, char *detail);
    /* What is kept of the object in memory may be out of date. */
    void (*forget)(void *ctx, const char *name);
    /* Does the URL still lead to what is open? -ESTALE: to something else. */
    int (*look)(void *ctx, char *detail);
    /* Goes on, at once, with what fresh has opened; fresh is only closed after that. */
    int (*adopt)(void *ctx, void *fresh, char *detail);
};
#define POOL_IOV_MAX 128

/* Keys of sealed clouds. Cloud key (of a generation; it never leaves the machines that control the
 * cloud) -> key of a pack (for whoever writes or verifies it as a whole) -> key of one record (for
 * whoever may read that record). Each comes from the one before by HKDF-SHA256, and none leads
 * back. Whoever has a key wipes it after use. Where a key is asked for, NULL: the cloud is
 * unsealed.
 *
 * Why no nonce (the number of a page) ever repeats under one key: each run of a pack (header,
 * record, footer, trailer) has a key of its own, derived from pack id, kind and number. Pack ids
 * are never reused: the centre gives each out once, to one writer, for one attempt. A writer writes
 * each run once, front to back; an attempt that fails is given up with its id, and its object
 * removed; creating an object that is there already fails. gc copies records into packs of new ids.
 */
#define POOL_KEY 32
struct pool_key {
    uint8_t bytes[POOL_KEY];
    uint32_t generation; /* of the cloud key that it comes from, from 1 */
};
/* out may be the same as from. -ENOMEM. */
int pool_pack_key(const struct pool_key *cloud, uint64_t pack, struct pool_key *out);
/* number: where the record lies now (gc moves records, and then seals them anew). */
int pool_record_key(const struct pool_key *pack, uint32_t number, struct pool_key *out);
void pool_key_wipe(struct pool_key *key);
/* A key as the centre sends it: generation 0 and no bytes: none. -EPROTO: neither. */
int pool_key_take(struct pool_key *out, uint32_t generation, const void *bytes, size_t len);
/* The keys of count packs, in a message: all or (generation 0) none. They are wiped there. -EPROTO.
 */
struct ProtobufCBinaryData;
int pool_keys_take(struct pool_key *out, uint32_t count, uint32_t generation,
                   struct ProtobufCBinaryData *keys, size_t n);
static inline const struct pool_key *pool_key_or_none(const struct pool_key *key)
{
    return key->generation != 0 ? key : NULL;
}

/* The cloud's keys, wrapped for the recovery key (recovery.h), beside the marker. serial grows with
 * each change of what is wrapped: whoever comes late with older ones replaces nothing. put returns
 * when they are on stable storage and those of lower serials are gone; several of one serial say
 * the same. get: fn sees what lies there, the newest first, until it returns false; what a crash
 * left half written is among it. */
#define POOL_KEYS_MAX 8192
int pool_keys_put(struct pool *p, uint32_t serial, const void *data, size_t len, char *detail);
int pool_keys_get(struct pool *p,
                  bool (*fn)(void *arg, uint32_t serial, const void *data, size_t len), void *arg,
                  char *detail);

struct pack_writer;

/* What the footer remembers of a file's cut that has records in this pack. The last pack of the cut
 * says how many it has in all its packs, the others 0: whether a cut lies whole in the pool can be
 * seen without the state. */
struct pack_file {
    uint64_t ino, size, version, cut, base_limit;
    int64_t mtime_sec;
    uint32_t mtime_nsec;
    uint32_t records;
};
/* Records of no file carry one of these as their inode; real ones have the top bit clear.
 * MOVES: the last record of a pack that gc wrote, a struct pack_origin for each record before it.
 * META: a part of a copy of the centre's state, at its offset in it. */
#define POOL_INO_MOVES   UINT64_MAX
#define POOL_INO_META    (UINT64_MAX - 1)
#define POOL_INO_IS(ino) ((ino) >= POOL_INO_META)
struct pack_record {
    uint32_t number; /* 0, 1, ... in the order of adding */
    uint64_t ino;
    uint64_t offset;      /* in the file */
    uint32_t length;      /* content bytes, 1 to POOL_RECORD_MAX */
    uint64_t pack_offset; /* of its first page */
};

/* Where a record that gc moved comes from: its id in file maps, and the cut that brought it. 24
 * bytes each in a MOVES record, little-endian. */
struct pack_origin {
    uint64_t record, version, cut;
};
#define POOL_ORIGIN      24u
#define POOL_ORIGINS_MAX (POOL_RECORD_MAX / POOL_ORIGIN)
void pack_origin_put(uint8_t entry[POOL_ORIGIN], const struct pack_origin *origin);
void pack_origin_get(const uint8_t entry[POOL_ORIGIN], struct pack_origin *origin);

/* key: the pack's; it is copied. -EEXIST: the id was used before. A writer buffers 1 MiB, and 88
 * bytes for each record with its file. */
int pack_create(struct pool *p, const struct pool_key *key, uint64_t pack, struct pack_writer **out,
                char *detail);
/* Seals and appends one record; fills number and pack_offset of *record from ino, offset, length.
 * -EFBIG: the pack is full (POOL_PACK_TARGET or POOL_PACK_RECORDS_MAX): finish it and start
 * another; -EINVAL: length or offset out of bounds. The writer is still good after these two; after
 * another error it only repeats that error. */
int pack_add_record(struct pack_writer *w, const void *content, struct pack_record *record,
                    char *detail);
int pack_add_file(struct pack_writer *w, const struct pack_file *file, char *detail);
/* Bytes so far, without footer and trailer. */
uint64_t pack_bytes(const struct pack_writer *w);
/* Writes footer and trailer, syncs. Frees w in any case. On an error the object is removed (best
 * effort). */
int pack_finish(struct pack_writer *w, uint64_t *size, char *detail);
void pack_abandon(struct pack_writer *w);

/* Reads length bytes at offset of a record's content, verified; key: the record's; fetches only the
 * pages that hold them, by one call of the driver. -EBADMSG: damaged (detail names pack, record and
 * page; the next read asks the pool anew); -ENOENT: no such pack; -EINVAL: the arguments contradict
 * each other; -EIO and others: the driver's. */
int pack_read(struct pool *p, const struct pool_key *key, uint64_t pack, uint32_t number,
              uint64_t pack_offset, uint32_t record_length, uint32_t offset, void *buf,
              uint32_t length, char *detail);
int pack_remove(struct pool *p, uint64_t pack, char *detail);
/* The packs that the pool holds, in no order, unfinished ones among them. fn returns false to end
 * it. */
int pack_list(struct pool *p, bool (*fn)(void *arg, uint64_t pack), void *arg, char *detail);
/* What the header says, which needs no key. Of a sealed pack this is not verified: the key will
 * tell. -ENOENT, -EBADMSG, -EPROTONOSUPPORT. */
struct pack_about {
    bool sealed;
    uint32_t generation; /* of the cloud key under which it is */
};
int pack_about(struct pool *p, uint64_t pack, struct pack_about *about, char *detail);
/* Footer. key: the pack's. -ENOKEY: none is given, and the pack is sealed. Verified as a whole
 * before the first callback; callbacks may be NULL. -EBADMSG; -EPROTONOSUPPORT: of a newer format.
 */
int pack_index(struct pool *p, const struct pool_key *key, uint64_t pack,
               void (*record)(void *arg, const struct pack_record *),
               void (*file)(void *arg, const struct pack_file *), void *arg, char *detail);
/* Reads and verifies every page and the footer. key: the pack's. bytes: of the whole object; may be
 * NULL. */
int pack_verify(struct pool *p, const struct pool_key *key, uint64_t pack, uint64_t *bytes,
                char *detail);
/* As pack_verify, but goes on behind a damaged record, of which bad is told. An error is about
 * everything else: header, footer or trailer damaged, or what the driver says. */
typedef int (*pack_bad_fn)(void *arg, const struct pack_record *record, const char *detail);
int pack_scrub(struct pool *p, const struct pool_key *key, uint64_t pack, pack_bad_fn bad,
               void *arg, uint64_t *bytes, char *detail);

#endif
