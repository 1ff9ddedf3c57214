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

static int take_line(struct keyring *k, char *line)
{
    char *save = NULL, *word = strtok_r(line, " ", &save), *number = strtok_r(NULL, " ", &save),
         *hex = strtok_r(NULL, " ", &save);
    uint64_t generation;

    if (word == NULL || word[0] == '#')
        return 0;
    if (strcmp(word, "key") != 0 || hex == NULL || k->count == KEYRING_MAX ||
        text_parse_number(number, k->count + 1u, k->count + 1u, &generation) != 0 ||
        !from_hex(hex, k->keys[k->count].bytes))
        return -EBADMSG;
    k->keys[k->count].generation = (uint32_t)generation;
    k->count++;
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
    if (rc == 0 && k->count == 0)
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
    const size_t line = HEX_KEY + 32, size = 256 + k->count * line;
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
    return 0;
}

void keyring_wipe(struct keyring *k)
{
    k->count = 0;
    explicit_bzero(k->keys, sizeof(k->keys));
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
    if (rc == 0)
        *k = fresh;
    keyring_wipe(&fresh);
    return rc;
}

static uint32_t newest(void *ctx)
{
    struct keyring *k = ctx;

    return refresh(k) == 0 ? k->count : 0;
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

struct control_keys keyring_control(struct keyring *k)
{
    return (struct control_keys){
        .ctx = k, .file = k->path, .newest = newest, .pack = pack_key, .record = record_key};
}
