/*
 * Any bytes as what people type, as a lock, and as wrapped keys that lie in the pool: nothing may
 * crash, what is taken for a recovery key must be one, and no bytes that were not wrapped with the
 * lock may give keys. First byte: bit 0, the rest is laid over genuine wrapped keys from byte 208
 * on.
 */
#include <stdlib.h>

#include "nodecache/pool/recovery.h"
#include "tests/pool_memory.h"

#define CLOUD "cloud-of-the-fuzzer"

static const struct recovery_key key = {.bytes = "a key that is known"};

static void typed(const uint8_t *data, size_t size)
{
    char text[600], back[RECOVERY_TEXT];
    struct recovery_key k, again;
    struct recovery_lock lock;

    if (size >= sizeof(text))
        return;
    memcpy(text, data, size);
    text[size] = '\0';
    (void)recovery_lock_parse(text, &lock);
    if (recovery_parse(text, &k) != 0)
        return;
    if (recovery_text(&k, back) != 0 || recovery_parse(back, &again) != 0 ||
        memcmp(&k, &again, sizeof(k)) != 0)
        abort();
}

static bool unwrap(void *arg, uint32_t serial, const void *data, size_t len)
{
    static struct pool_key keys[RECOVERY_KEYS_MAX];
    const uint8_t *genuine = arg;
    uint32_t n;

    (void)serial;
    int rc = recovery_unwrap(&key, CLOUD, data, len, keys, &n);
    if (rc == 0 ? memcmp(data, genuine, len) != 0 : n != 0)
        abort();
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t genuine[RECOVERY_WRAP_MAX];
    static size_t len;
    uint8_t mixed[RECOVERY_WRAP_MAX];
    struct memory_pool memory = {.objects = NULL};
    struct pool_key keys[3] = {{.bytes = "one"}, {.bytes = "two"}, {.bytes = "three"}};
    struct recovery_lock lock;
    char detail[POOL_DETAIL];
    struct pool *p;

    if (len == 0 && (recovery_lock_of(&key, &lock) != 0 ||
                     recovery_wrap(&lock, CLOUD, keys, 3, genuine, &len) != 0))
        abort();
    if (size < 1 || size > RECOVERY_WRAP_MAX - RECOVERY_HEAD ||
        memory_pool_open(&memory, &p, detail) != 0)
        return 0;
    typed(data + 1, size - 1);
    memcpy(mixed, genuine, sizeof(mixed));
    memcpy(mixed + (data[0] & 1 ? RECOVERY_HEAD : 0), data + 1, size - 1);
    if (pool_keys_put(p, 1, mixed, data[0] & 2 ? size : len, detail) != 0 ||
        pool_keys_get(p, unwrap, genuine, detail) != 0)
        abort();
    pool_close(p);
    memory_pool_free(&memory);
    return 0;
}
