/* The file of the cloud's keys, and what the centre asks of it: no key is used that the pool has
 * not got wrapped. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/pool_memory.h"
#include "tools/conf.c"
#include "tools/keyring.c"
#include "tools/text.c"

static char path[64] = "/tmp/umbel-keyring-XXXXXX", why[CONF_DETAIL];

static struct recovery_key some(struct recovery_lock *lock)
{
    struct recovery_key k;

    cr_assert_eq(recovery_new(&k), 0);
    cr_assert_eq(recovery_lock_of(&k, lock), 0);
    return k;
}

/* As the first `umbel up` leaves it. */
static struct keyring begin(struct recovery_key *key)
{
    struct keyring k = {.cloud = "test"};
    struct recovery_lock lock;

    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    snprintf(k.path, sizeof(k.path), "%s", path);
    cr_assert_eq(keyring_add(&k, why), 0);
    *key = some(&lock);
    keyring_lock(&k, &lock);
    keyring_stored(&k, k.serial);
    cr_assert_eq(keyring_write(&k, why), 0, "%s", why);
    return k;
}

Test(keyring, the_file_there_and_back)
{
    struct recovery_key key;
    struct keyring k = begin(&key), back;

    cr_assert_eq(keyring_add(&k, why), 0);
    cr_assert_eq(keyring_write(&k, why), 0, "%s", why);
    cr_assert_eq(keyring_read(&back, path, why), 0, "%s", why);
    cr_assert_eq(back.count, 2);
    cr_assert_eq(back.sealing, 1, "the pool has not got the second");
    cr_assert_eq(back.serial, 2);
    cr_assert_eq(back.stored, 1);
    cr_assert_eq(memcmp(&back.lock, &k.lock, sizeof(k.lock)), 0);
    cr_assert_eq(memcmp(back.keys, k.keys, 2 * sizeof(k.keys[0])), 0);
    unlink(path);
}

Test(keyring, what_is_no_file_of_keys)
{
    static const char one[] =
        "key 1 0000000000000000000000000000000000000000000000000000000000000000\n";
    static const char *const bad[] = {
        "sealing 1\n",       "sealing 2\n", "sealing 0\n", "recovery 1 1 ab\n",
        "recovery 1 2 ab\n", "key 3 00\n",  "words\n",     "key 1\n"};
    struct recovery_key key;
    struct keyring k = begin(&key);
    char text[512];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "%s%s", i == 0 ? "" : one, bad[i]);
        cr_assert_eq(conf_replace_file(path, text), 0);
        cr_assert_eq(keyring_read(&k, path, why), -EBADMSG, "%s", text);
        cr_assert_eq(k.count, 0);
    }
    cr_assert_eq(conf_replace_file(path, one), 0);
    cr_assert_eq(keyring_read(&k, path, why), 0, "a file without a recovery key: %s", why);
    cr_assert_eq(k.sealing, 1);
    unlink(path);
}

Test(keyring, rotate)
{
    char detail[CONTROL_KEYS_DETAIL];
    struct recovery_key key;
    struct keyring k = begin(&key);
    struct control_keys c = keyring_control(&k);
    struct control_wrapped w;
    uint8_t out[CONTROL_KEY];

    cr_assert_eq(c.wrapped(c.ctx, &w), 0, "the pool has all");
    cr_assert_eq(c.rotate(c.ctx, detail), 0, "%s", detail);
    cr_assert_eq(c.newest(c.ctx), 1, "not before the pool has it");
    cr_assert_eq(c.rotate(c.ctx, detail), -EBUSY);
    cr_assert_eq(c.wrapped(c.ctx, &w), 1);
    struct pool_key got[RECOVERY_KEYS_MAX];
    uint32_t n;
    cr_assert_eq(recovery_unwrap(&key, "test", w.data, w.len, got, &n), 0);
    cr_assert_eq(n, 2);
    cr_assert_eq(c.stored(c.ctx, w.serial - 1), 0);
    cr_assert_eq(c.newest(c.ctx), 1, "that was the one before");
    cr_assert_eq(c.stored(c.ctx, w.serial), 0);
    cr_assert_eq(c.newest(c.ctx), 2);
    cr_assert_eq(c.wrapped(c.ctx, NULL), 0);
    cr_assert_eq(c.pack(c.ctx, 1, 7, out), 0, "the older still opens");
    cr_assert_eq(c.pack(c.ctx, 3, 7, out), -ENOKEY);
    unlink(path);
}

Test(keyring, replace_while_a_rotation_is_on_its_way)
{
    char detail[CONTROL_KEYS_DETAIL], text[RECOVERY_LOCK_TEXT];
    struct recovery_key old, new;
    struct keyring k = begin(&old);
    struct control_keys c = keyring_control(&k);
    struct control_wrapped first, second;
    struct pool_key got[RECOVERY_KEYS_MAX];
    struct recovery_lock lock;
    uint32_t n;

    cr_assert_eq(c.rotate(c.ctx, detail), 0, "%s", detail);
    cr_assert_eq(c.wrapped(c.ctx, &first), 1);
    new = some(&lock);
    recovery_lock_text(&lock, text);
    cr_assert_eq(c.replace(c.ctx, "no lock", detail), -EINVAL);
    cr_assert_eq(c.replace(c.ctx, text, detail), 0, "%s", detail);
    cr_assert_eq(c.stored(c.ctx, first.serial), 0);
    cr_assert_eq(c.wrapped(c.ctx, &second), 1, "the pool has that of before");
    cr_assert_gt(second.serial, first.serial);
    cr_assert_eq(recovery_unwrap(&old, "test", second.data, second.len, got, &n), -EKEYREJECTED);
    cr_assert_eq(recovery_unwrap(&new, "test", second.data, second.len, got, &n), 0);
    cr_assert_eq(n, 2);
    cr_assert_eq(c.stored(c.ctx, second.serial), 0);
    cr_assert_eq(c.newest(c.ctx), 2);
    unlink(path);
}

Test(keyring, no_change_without_its_file)
{
    char detail[CONTROL_KEYS_DETAIL];
    struct recovery_key key;
    struct keyring k = begin(&key);
    struct control_keys c = keyring_control(&k);

    unlink(path);
    cr_assert_lt(c.rotate(c.ctx, detail), 0);
    cr_assert_eq(c.newest(c.ctx), 0, "nothing can be sealed");
    cr_assert_eq(k.count, 1);
}

Test(keyring, recovered_from_the_pool)
{
    struct memory_pool m = {.objects = NULL};
    struct recovery_key key, other;
    struct keyring k = begin(&key), back = {.cloud = "test"};
    uint8_t wrapped[RECOVERY_WRAP_MAX];
    struct recovery_lock lock;
    struct pool *p;
    size_t len;

    cr_assert_eq(memory_pool_open(&m, &p, why), 0, "%s", why);
    cr_assert_eq(keyring_recover(&back, p, &key, why), -ENODATA);
    cr_assert_eq(keyring_wrap(&k, wrapped, &len), 0);
    cr_assert_eq(pool_keys_put(p, 5, wrapped, len, why), 0, "%s", why);
    cr_assert_eq(keyring_recover(&back, p, &key, why), 0, "%s", why);
    cr_assert_eq(back.count, 1);
    cr_assert_eq(back.sealing, 1);
    cr_assert_eq(back.serial, 6, "what is wrapped next is newer than all that lie there");
    cr_assert_eq(memcmp(&back.lock, &k.lock, sizeof(k.lock)), 0);
    other = some(&lock);
    cr_assert_eq(keyring_recover(&back, p, &other, why), -EKEYREJECTED);
    cr_assert_eq(back.count, 0);
    /* Torn, as a crash leaves it: the one before counts. */
    cr_assert_eq(pool_keys_put(p, 5, wrapped, 100, why), 0);
    cr_assert_eq(keyring_recover(&back, p, &key, why), 0, "%s", why);
    for (struct memory_object *o = m.objects; o != NULL; o = o->next)
        if (o->size == len)
            o->bytes[210] ^= 1;
    cr_assert_eq(keyring_recover(&back, p, &key, why), -EBADMSG);
    pool_close(p);
    memory_pool_free(&m);
    unlink(path);
}
