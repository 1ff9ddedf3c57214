#include "tools/keyring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/text.h"

#define HEX_KEY (2 * POOL_KEY)

static bool from_hex(const char *hex, uint8_t *out)
{
    if (strlen(hex) != HEX_KEY || strspn(hex, "0123456789abcdef") != HEX_KEY)
        return false;
    for (size_t i = 0; i < POOL_KEY; i++) {
        const char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        out[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return true;
}

/* For the eyes of its owner, who is who asks, or root. */
static int check_rights(const char *path, const struct stat *st, char *detail)
{
    if ((st->st_uid == 0 || st->st_uid == geteuid()) && (st->st_mode & 077) == 0)
        return 0;
    snprintf(detail, CONF_DETAIL,
             "%.200s: mode %03o, owner %u: others may have read the cloud's keys, and who has them "
             "can read the pool. Make it mode 600 and root's own",
             path, st->st_mode & 0777u, st->st_uid);
    return -EPERM;
}

static int take_key(struct keyring *k, const char *number, const char *hex)
{
    uint64_t generation;

    if (k->count == KEYRING_MAX ||
        text_parse_number(number, k->count + 1u, k->count + 1u, &generation) != 0 ||
        !from_hex(hex, k->keys[k->count].bytes))
        return -EBADMSG;
    k->keys[k->count].generation = (uint32_t)generation;
    k->count++;
    return 0;
}

static int take_recovery(struct keyring *k, const char *serial, const char *stored,
                         const char *lock)
{
    uint64_t s, has;

    if (text_parse_number(serial, 1, UINT32_MAX - 1, &s) != 0 ||
        text_parse_number(stored, 0, s, &has) != 0 || recovery_lock_parse(lock, &k->lock) != 0)
        return -EBADMSG;
    k->serial = (uint32_t)s;
    k->stored = (uint32_t)has;
    return 0;
}

static int take_line(struct keyring *k, char *line)
{
    char *word[5] = {NULL}, *save = NULL;
    size_t n = 0;
    uint64_t generation;

    for (char *w = strtok_r(line, " ", &save); w != NULL && n < 5; w = strtok_r(NULL, " ", &save))
        word[n++] = w;
    if (n == 0 || word[0][0] == '#')
        return 0;
    if (n == 3 && strcmp(word[0], "key") == 0)
        return take_key(k, word[1], word[2]);
    if (n == 4 && strcmp(word[0], "recovery") == 0)
        return take_recovery(k, word[1], word[2], word[3]);
    if (n != 2 || strcmp(word[0], "sealing") != 0 ||
        text_parse_number(word[1], 1, KEYRING_MAX, &generation) != 0)
        return -EBADMSG;
    k->sealing = (uint32_t)generation;
    return 0;
}

int keyring_read(struct keyring *k, const char *path, char detail[CONF_DETAIL])
{
    char *text = NULL, *rest, *line;
    struct stat st;
    size_t len = 0;

    *k = (struct keyring){.count = 0};
    snprintf(k->path, sizeof(k->path), "%s", path);
    if (stat(path, &st) != 0) {
        snprintf(detail, CONF_DETAIL, "the cloud's keys, %.200s: %s", path, strerror(errno));
        return -errno;
    }
    int rc = check_rights(path, &st, detail);
    if (rc != 0)
        return rc;
    rc = text_read_file(path, &text, &len);
    for (rest = text; rc == 0 && (line = text_line(&rest)) != NULL;)
        rc = take_line(k, line);
    if (rc == 0 && k->sealing == 0)
        k->sealing = k->count;
    if (rc == 0 && (k->count == 0 || k->sealing > k->count))
        rc = -EBADMSG;
    if (rc != 0)
        snprintf(detail, CONF_DETAIL, "the cloud's keys, %.200s: %s", path,
                 rc == -EBADMSG ? "damaged" : strerror(-rc));
    if (text != NULL)
        explicit_bzero(text, len);
    free(text);
    k->changed = st.st_mtim;
    k->file = st.st_ino;
    if (rc != 0)
        keyring_wipe(k);
    return rc;
}

int keyring_write(struct keyring *k, char detail[CONF_DETAIL])
{
    const size_t line = HEX_KEY + 32, size = 512 + RECOVERY_LOCK_TEXT + k->count * line;
    char *text = calloc(1, size);
    size_t n = 0;

    if (text == NULL)
        return snprintf(detail, CONF_DETAIL, "no memory"), -ENOMEM;
    n +=
        (size_t)snprintf(text, size,
                         "# The keys of this cloud: whoever has them can read its pool. Written by "
                         "`umbel up` and `umbel key`.\n");
    for (uint32_t i = 0; i < k->count; i++) {
        n += (size_t)snprintf(text + n, size - n, "key %u ", k->keys[i].generation);
        for (size_t b = 0; b < POOL_KEY; b++)
            n += (size_t)snprintf(text + n, size - n, "%02x", k->keys[i].bytes[b]);
        n += (size_t)snprintf(text + n, size - n, "\n");
    }
    n += (size_t)snprintf(text + n, size - n, "sealing %u\n", k->sealing);
    if (k->serial > 0) {
        char lock[RECOVERY_LOCK_TEXT];
        recovery_lock_text(&k->lock, lock);
        snprintf(text + n, size - n, "recovery %u %u %s\n", k->serial, k->stored, lock);
        explicit_bzero(lock, sizeof(lock));
    }
    int rc = conf_replace_file(k->path, text);
    if (rc != 0)
        snprintf(detail, CONF_DETAIL, "cannot write %.200s: %s", k->path, strerror(-rc));
    explicit_bzero(text, size);
    free(text);
    return rc;
}

int keyring_add(struct keyring *k, char detail[CONF_DETAIL])
{
    if (k->count == KEYRING_MAX) {
        snprintf(detail, CONF_DETAIL, "a cloud has %d generations of its key at most", KEYRING_MAX);
        return -ENOSPC;
    }
    struct pool_key *key = &k->keys[k->count];
    if (getrandom(key->bytes, POOL_KEY, 0) != POOL_KEY) {
        snprintf(detail, CONF_DETAIL, "the system gives no random numbers");
        return -EIO;
    }
    key->generation = ++k->count;
    if (k->serial > 0)
        k->serial++; /* sealing follows when the pool has it */
    else
        k->sealing = k->count;
    return 0;
}

void keyring_lock(struct keyring *k, const struct recovery_lock *lock)
{
    k->lock = *lock;
    k->serial++;
}

int keyring_wrap(const struct keyring *k, uint8_t out[RECOVERY_WRAP_MAX], size_t *len)
{
    return k->serial == 0 ? -ENOKEY
                          : recovery_wrap(&k->lock, k->cloud, k->keys, k->count, out, len);
}

void keyring_stored(struct keyring *k, uint32_t serial)
{
    if (serial <= k->stored || serial > k->serial)
        return;
    k->stored = serial;
    if (serial == k->serial) /* else more may have been added than what was wrapped */
        k->sealing = k->count;
}

struct recovering {
    struct keyring *k;
    const struct recovery_key *key;
    uint32_t newest; /* serial that lies there */
    int rc;
};

/* What is damaged has a copy, or an older one in its place; what another key opens is newer than
 * what this one would. */
static bool try_wrapped(void *arg, uint32_t serial, const void *data, size_t len)
{
    struct recovering *r = arg;
    struct keyring *k = r->k;

    r->newest = serial > r->newest ? serial : r->newest;
    r->rc = recovery_unwrap(r->key, k->cloud, data, len, k->keys, &k->count);
    return r->rc == -EBADMSG;
}

static const char *why_not(int rc)
{
    switch (rc) {
    case -ENODATA:
        return "the pool holds no wrapped keys: it is not sealed, or made by an umbel without "
               "recovery keys";
    case -EKEYREJECTED:
        return "this is not the recovery key of this cloud (any more)";
    case -EBADMSG:
        return "the wrapped keys in the pool are damaged, or not this cloud's own";
    case -EXDEV:
        return "the wrapped keys in the pool are another cloud's";
    case -EPROTONOSUPPORT:
        return "the wrapped keys in the pool are of a newer umbel; use that one";
    default:
        return strerror(-rc);
    }
}

int keyring_recover(struct keyring *k, struct pool *p, const struct recovery_key *key,
                    char detail[CONF_DETAIL])
{
    struct recovering r = {.k = k, .key = key, .rc = -ENODATA};
    char why[POOL_DETAIL] = "";
    int rc = pool_keys_get(p, try_wrapped, &r, why);

    if (rc == 0 && (rc = r.rc) == 0)
        rc = recovery_lock_of(key, &k->lock);
    k->sealing = k->count;
    k->serial = r.newest + 1;
    k->stored = r.newest;
    if (rc != 0) {
        snprintf(detail, CONF_DETAIL, "%s", why[0] != '\0' ? why : why_not(rc));
        keyring_wipe(k);
    }
    return rc;
}

void keyring_wipe(struct keyring *k)
{
    k->count = 0;
    explicit_bzero(k->keys, sizeof(k->keys));
    recovery_lock_wipe(&k->lock);
}

const struct pool_key *keyring_key(const struct keyring *k, uint32_t generation)
{
    return generation >= 1 && generation <= k->count ? &k->keys[generation - 1] : NULL;
}

/* ---- for the control process */

/* What is there stays when the file cannot be read: old packs can still be opened. */
static int refresh(struct keyring *k)
{
    char detail[CONF_DETAIL];
    struct keyring fresh;
    struct stat st;

    if (stat(k->path, &st) != 0)
        return -errno;
    if (st.st_ino == k->file && st.st_mtim.tv_sec == k->changed.tv_sec &&
        st.st_mtim.tv_nsec == k->changed.tv_nsec)
        return 0;
    int rc = keyring_read(&fresh, k->path, detail);
    if (rc == 0) {
        memcpy(fresh.cloud, k->cloud, sizeof(fresh.cloud));
        *k = fresh;
    }
    keyring_wipe(&fresh);
    return rc;
}

static uint32_t newest(void *ctx)
{
    struct keyring *k = ctx;

    return refresh(k) == 0 ? k->sealing : 0;
}

static int give(struct pool_key *key, uint8_t out[CONTROL_KEY], int rc)
{
    _Static_assert(CONTROL_KEY == POOL_KEY, "the same keys");
    if (rc == 0)
        memcpy(out, key->bytes, POOL_KEY);
    pool_key_wipe(key);
    return rc;
}

static int pack_key(void *ctx, uint32_t generation, uint64_t pack, uint8_t out[CONTROL_KEY])
{
    struct keyring *k = ctx;
    struct pool_key key;

    if (generation > k->count)
        refresh(k);
    const struct pool_key *cloud = keyring_key(k, generation);
    if (cloud == NULL)
        return -ENOKEY;
    return give(&key, out, pool_pack_key(cloud, pack, &key));
}

static int record_key(void *ctx, const uint8_t pack_key[CONTROL_KEY], uint32_t number,
                      uint8_t out[CONTROL_KEY])
{
    struct pool_key key = {.generation = 0};

    (void)ctx;
    memcpy(key.bytes, pack_key, POOL_KEY);
    return give(&key, out, pool_record_key(&key, number, &key));
}

static int wrapped(void *ctx, struct control_wrapped *out)
{
    _Static_assert(sizeof(out->data) >= RECOVERY_WRAP_MAX, "it fits");
    struct keyring *k = ctx;
    int rc = refresh(k);

    if (rc < 0 || k->stored == k->serial)
        return rc;
    if (out == NULL)
        return 1;
    out->serial = k->serial;
    rc = keyring_wrap(k, out->data, &out->len);
    return rc < 0 ? rc : 1;
}

/* Nothing has changed when the file cannot be written. */
static int keep(struct keyring *k, struct keyring *fresh, char *detail)
{
    int rc = keyring_write(fresh, detail);

    if (rc == 0)
        *k = *fresh;
    keyring_wipe(fresh);
    return rc;
}

static int stored(void *ctx, uint32_t serial)
{
    char detail[CONF_DETAIL];
    struct keyring *k = ctx, fresh;
    int rc = refresh(k);

    if (rc < 0)
        return rc;
    fresh = *k;
    keyring_stored(&fresh, serial);
    return keep(k, &fresh, detail);
}

static int change_fails(struct keyring *k, int rc, const char *why, char *detail)
{
    snprintf(detail, CONTROL_KEYS_DETAIL, "%.240s", why[0] != '\0' ? why : k->path);
    return rc;
}

static int rotate(void *ctx, char detail[CONTROL_KEYS_DETAIL])
{
    char why[CONF_DETAIL] = "";
    struct keyring *k = ctx, fresh;
    int rc = refresh(k);

    if (rc < 0)
        return change_fails(k, rc, "the file of keys cannot be read", detail);
    if (k->serial == 0)
        return change_fails(k, -ENOKEY, "there is no recovery key yet: umbel key replace", detail);
    if (k->stored != k->serial)
        return change_fails(k, -EBUSY, "the pool has not got the change before yet", detail);
    fresh = *k;
    rc = keyring_add(&fresh, why);
    if (rc == 0)
        rc = keep(k, &fresh, why);
    return rc < 0 ? change_fails(k, rc, why, detail) : 0;
}

static int replace(void *ctx, const char *text, char detail[CONTROL_KEYS_DETAIL])
{
    char why[CONF_DETAIL] = "";
    struct keyring *k = ctx, fresh;
    struct recovery_lock lock;
    int rc = refresh(k);

    if (rc < 0)
        return change_fails(k, rc, "the file of keys cannot be read", detail);
    rc = recovery_lock_parse(text, &lock);
    if (rc < 0)
        return change_fails(k, rc, "that is no lock of a recovery key", detail);
    fresh = *k;
    keyring_lock(&fresh, &lock);
    recovery_lock_wipe(&lock);
    rc = keep(k, &fresh, why);
    return rc < 0 ? change_fails(k, rc, why, detail) : 0;
}

static void recovery(void *ctx, char text[72])
{
    struct keyring *k = ctx;
    char lock[RECOVERY_LOCK_TEXT];

    snprintf(text, 72, "none");
    if (refresh(k) < 0 || k->serial == 0)
        return;
    recovery_lock_text(&k->lock, lock);
    snprintf(text, 72, "%.*s", 2 * RECOVERY_HALF, lock);
    explicit_bzero(lock, sizeof(lock));
}

struct control_keys keyring_control(struct keyring *k)
{
    return (struct control_keys){.ctx = k,
                                 .file = k->path,
                                 .newest = newest,
                                 .pack = pack_key,
                                 .record = record_key,
                                 .wrapped = wrapped,
                                 .stored = stored,
                                 .rotate = rotate,
                                 .replace = replace,
                                 .recovery = recovery};
}
