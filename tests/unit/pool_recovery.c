/* The recovery key as people type it, the cloud's keys wrapped for it, and where they lie. */
#include "nodecache/pool/recovery.h"
#include "tests/pool_memory.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>

#define CLOUD "3c8f0d5e-cloud"
#define KEYS  3u

static char detail[POOL_DETAIL];

struct sample {
    struct recovery_key key;
    struct recovery_lock lock;
    struct pool_key keys[KEYS];
    uint8_t wrapped[RECOVERY_WRAP_MAX];
    size_t len;
};

static struct sample make(void)
{
    struct sample s;

    cr_assert_eq(recovery_new(&s.key), 0);
    cr_assert_eq(recovery_lock_of(&s.key, &s.lock), 0);
    for (uint32_t i = 0; i < KEYS; i++) {
        s.keys[i].generation = i + 1;
        memset(s.keys[i].bytes, 'a' + (int)i, POOL_KEY);
    }
    cr_assert_eq(recovery_wrap(&s.lock, CLOUD, s.keys, KEYS, s.wrapped, &s.len), 0);
    return s;
}

static int unwrap(const struct recovery_key *k, const char *cloud, const uint8_t *data, size_t len)
{
    struct pool_key keys[RECOVERY_KEYS_MAX] = {{.generation = 0}};
    static const struct pool_key none;
    uint32_t n = 99;
    int rc = recovery_unwrap(k, cloud, data, len, keys, &n);

    cr_assert(rc == 0 || n == 0);
    for (uint32_t i = 0; rc != 0 && i < RECOVERY_KEYS_MAX; i++)
        cr_assert_eq(memcmp(&keys[i], &none, sizeof(none)), 0, "a key after an error");
    return rc;
}

/* ---- typed */

Test(pool_recovery, text_there_and_back)
{
    for (int i = 0; i < 200; i++) {
        char text[RECOVERY_TEXT];
        struct recovery_key k, again;
        cr_assert_eq(recovery_new(&k), 0);
        cr_assert_eq(recovery_text(&k, text), 0);
        cr_assert_eq(strlen(text), RECOVERY_TEXT - 1);
        cr_assert_eq(recovery_parse(text, &again), 0);
        cr_assert_eq(memcmp(&k, &again, sizeof(k)), 0);
    }
}

/* Frozen: what lies on paper must be readable in ten years. */
Test(pool_recovery, text_is_frozen)
{
    struct recovery_key k, again;
    struct recovery_lock lock;
    char text[RECOVERY_TEXT], hex[RECOVERY_LOCK_TEXT];

    for (size_t i = 0; i < RECOVERY_BYTES; i++)
        k.bytes[i] = (uint8_t)(i * 13 + 1);
    cr_assert_eq(recovery_text(&k, text), 0);
    cr_assert_str_eq(text, "0471PA-1N897N-RTBPGE-89VANQ-RK8XXT-ZRGVMN");
    cr_assert_eq(recovery_lock_of(&k, &lock), 0);
    recovery_lock_text(&lock, hex);
    cr_assert_str_eq(hex, "33bcc19d65443a970df6d21c1f1c2523138deea65c6d626049328b77cec15005d0680433"
                          "a3a371ec93a840a7a60d1ad8d6b007ecf4f7732bfbad054c6c0ebdab");
    cr_assert_eq(recovery_parse("o47ip aIn8 97nrtb-pge89vanq\trk8xxt zrgvmn\n", &again), 0);
    cr_assert_eq(memcmp(&k, &again, sizeof(k)), 0);
}

Test(pool_recovery, every_single_typo_is_told)
{
    static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    char text[RECOVERY_TEXT];
    struct sample s = make();
    struct recovery_key k;

    cr_assert_eq(recovery_text(&s.key, text), 0);
    for (size_t i = 0; text[i] != '\0'; i++) {
        char right = text[i];
        for (const char *c = alphabet; right != '-' && *c != '\0'; c++) {
            text[i] = *c;
            cr_assert_eq(recovery_parse(text, &k), *c == right ? 0 : -EBADMSG, "%zu %c", i, *c);
        }
        text[i] = right;
    }
    for (size_t i = 1; text[i] != '\0'; i++) { /* two of them swapped */
        char other[RECOVERY_TEXT];
        memcpy(other, text, sizeof(other));
        other[i] = text[i - 1];
        other[i - 1] = text[i];
        if (text[i] != text[i - 1] && text[i] != '-' && text[i - 1] != '-')
            cr_assert_eq(recovery_parse(other, &k), -EBADMSG);
    }
    text[RECOVERY_TEXT - 2] = '\0';
    cr_assert_eq(recovery_parse(text, &k), -EINVAL);
    cr_assert_eq(recovery_parse("", &k), -EINVAL);
    cr_assert_eq(recovery_parse("hello", &k), -EINVAL);
    cr_assert_eq(recovery_parse("000000-000000-000000-000000-000000-0000001", &k), -EINVAL);
    cr_assert_eq(recovery_parse("U00000-000000-000000-000000-000000-000000", &k), -EINVAL);
}

Test(pool_recovery, lock_text)
{
    char text[RECOVERY_LOCK_TEXT];
    struct sample s = make();
    struct recovery_lock lock;

    recovery_lock_text(&s.lock, text);
    cr_assert_eq(recovery_lock_parse(text, &lock), 0);
    cr_assert_eq(memcmp(&lock, &s.lock, sizeof(lock)), 0);
    text[3] = 'G';
    cr_assert_eq(recovery_lock_parse(text, &lock), -EINVAL);
    text[3] = '\0';
    cr_assert_eq(recovery_lock_parse(text, &lock), -EINVAL);
}

/* ---- wrapped */

Test(pool_recovery, there_and_back)
{
    struct pool_key keys[RECOVERY_KEYS_MAX];
    struct sample s = make();
    uint32_t n;

    cr_assert_eq(recovery_unwrap(&s.key, CLOUD, s.wrapped, s.len, keys, &n), 0);
    cr_assert_eq(n, KEYS);
    for (uint32_t i = 0; i < KEYS; i++) {
        cr_assert_eq(keys[i].generation, i + 1);
        cr_assert_eq(memcmp(keys[i].bytes, s.keys[i].bytes, POOL_KEY), 0);
    }
}

Test(pool_recovery, as_many_as_there_can_be)
{
    static struct pool_key keys[RECOVERY_KEYS_MAX], back[RECOVERY_KEYS_MAX];
    struct sample s = make();
    uint32_t n;

    memset(keys, 'x', sizeof(keys));
    cr_assert_eq(recovery_wrap(&s.lock, CLOUD, keys, RECOVERY_KEYS_MAX, s.wrapped, &s.len), 0);
    cr_assert_eq(s.len, RECOVERY_WRAP_MAX);
    cr_assert_eq(recovery_unwrap(&s.key, CLOUD, s.wrapped, s.len, back, &n), 0);
    cr_assert_eq(n, RECOVERY_KEYS_MAX);
    cr_assert_eq(recovery_wrap(&s.lock, CLOUD, keys, RECOVERY_KEYS_MAX + 1, s.wrapped, &s.len),
                 -EINVAL);
    cr_assert_eq(recovery_wrap(&s.lock, CLOUD, keys, 0, s.wrapped, &s.len), -EINVAL);
    cr_assert_eq(recovery_wrap(&s.lock, "", keys, 1, s.wrapped, &s.len), -EINVAL);
}

Test(pool_recovery, nothing_repeats_and_nothing_is_plain)
{
    struct sample s = make();
    uint8_t again[RECOVERY_WRAP_MAX];
    size_t len;

    cr_assert_eq(recovery_wrap(&s.lock, CLOUD, s.keys, KEYS, again, &len), 0);
    cr_assert_neq(memcmp(s.wrapped + RECOVERY_HEAD, again + RECOVERY_HEAD, POOL_KEY), 0);
    for (uint32_t i = 0; i < KEYS; i++)
        cr_assert_null(memmem(s.wrapped, s.len, s.keys[i].bytes, 8));
    cr_assert_null(memmem(s.wrapped, s.len, s.key.bytes, 8));
    cr_assert_null(memmem(s.wrapped, s.len, s.lock.proof, 8));
    cr_assert_null(memmem(&s.lock, sizeof(s.lock), s.key.bytes, 8));
}

Test(pool_recovery, every_flipped_bit_is_refused)
{
    struct sample s = make();

    for (size_t bit = 0; bit < s.len * 8; bit++) {
        s.wrapped[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_lt(unwrap(&s.key, CLOUD, s.wrapped, s.len), 0, "bit %zu", bit);
        s.wrapped[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert_eq(unwrap(&s.key, CLOUD, s.wrapped, s.len), 0);
}

Test(pool_recovery, every_other_length_is_refused)
{
    struct sample s = make();

    for (size_t len = 0; len < s.len; len++)
        cr_assert_eq(unwrap(&s.key, CLOUD, s.wrapped, len), -EBADMSG, "%zu", len);
    cr_assert_eq(unwrap(&s.key, CLOUD, s.wrapped, s.len + 1), -EBADMSG);
    cr_assert_eq(unwrap(&s.key, CLOUD, s.wrapped, SIZE_MAX), -EBADMSG);
}

Test(pool_recovery, wrong_key_cloud_format)
{
    struct sample s = make(), other = make();

    cr_assert_eq(unwrap(&other.key, CLOUD, s.wrapped, s.len), -EKEYREJECTED);
    cr_assert_eq(unwrap(&s.key, "another", s.wrapped, s.len), -EXDEV);
    s.wrapped[8]++;
    cr_assert_eq(unwrap(&s.key, CLOUD, s.wrapped, s.len), -EPROTONOSUPPORT);
}

/* The public half lies in the pool: who runs the pool must not be able to make up keys with it. */
Test(pool_recovery, what_is_wrapped_without_the_proof_is_refused)
{
    struct sample s = make();

    memset(s.lock.proof, 0, sizeof(s.lock.proof));
    cr_assert_eq(recovery_wrap(&s.lock, CLOUD, s.keys, KEYS, s.wrapped, &s.len), 0);
    cr_assert_eq(unwrap(&s.key, CLOUD, s.wrapped, s.len), -EBADMSG);
}

/* A made up half of low order gives a shared secret of zeros. */
Test(pool_recovery, points_of_low_order_are_refused)
{
    struct sample s = make();

    for (uint8_t first = 0; first < 2; first++) {
        memset(s.wrapped + 176, 0, RECOVERY_HALF);
        s.wrapped[176] = first;
        cr_assert_eq(unwrap(&s.key, CLOUD, s.wrapped, s.len), -EBADMSG);
    }
}

/* ---- in the pool */

struct seen {
    unsigned n;
    uint32_t serial;
    char text[32];
    bool go_on;
};

static bool see(void *arg, uint32_t serial, const void *data, size_t len)
{
    struct seen *s = arg;

    if (s->n++ == 0) {
        s->serial = serial;
        snprintf(s->text, sizeof(s->text), "%.*s", (int)len, (const char *)data);
    }
    return s->go_on;
}

static struct seen look(struct pool *p, bool all)
{
    struct seen s = {.go_on = all};

    cr_assert_eq(pool_keys_get(p, see, &s, detail), 0, "%s", detail);
    return s;
}

Test(pool_recovery, in_the_pool)
{
    struct memory_pool m = {.objects = NULL};
    struct pool *p;

    cr_assert_eq(memory_pool_open(&m, &p, detail), 0, "%s", detail);
    cr_assert_eq(look(p, true).n, 0);
    cr_assert_eq(pool_keys_put(p, 1, "one", 3, detail), 0, "%s", detail);
    cr_assert_eq(pool_keys_put(p, 2, "two", 3, detail), 0, "%s", detail);
    struct seen s = look(p, true);
    cr_assert_eq(s.n, 2, "two copies of the newest, none of the older: %u", s.n);
    cr_assert_eq(s.serial, 2);
    cr_assert_str_eq(s.text, "two");
    cr_assert_eq(pool_keys_put(p, 1, "late", 4, detail), 0, "%s", detail);
    s = look(p, false);
    cr_assert_eq(s.n, 1);
    cr_assert_eq(s.serial, 2, "who comes late replaces nothing");
    cr_assert_eq(pool_keys_put(p, 2, "TWO", 3, detail), 0, "the answer was lost: %s", detail);
    cr_assert_eq(pool_keys_put(p, 0, "x", 1, detail), -EINVAL);
    cr_assert_eq(pool_keys_put(p, 9, "x", 0, detail), -EINVAL);
    cr_assert_eq(pool_keys_put(p, 9, "x", POOL_KEYS_MAX + 1, detail), -EINVAL);
    pool_close(p);
    memory_pool_free(&m);
}

/* What could not be written must not take away what is there. */
Test(pool_recovery, a_put_that_fails_leaves_the_older)
{
    struct memory_pool m = {.objects = NULL};
    struct pool *p;

    cr_assert_eq(memory_pool_open(&m, &p, detail), 0, "%s", detail);
    cr_assert_eq(pool_keys_put(p, 1, "one", 3, detail), 0, "%s", detail);
    m.finish_error = -EIO;
    cr_assert_eq(pool_keys_put(p, 2, "two", 3, detail), -EIO);
    m.finish_error = 0;
    struct seen s = look(p, true);
    cr_assert_eq(s.n, 2);
    cr_assert_eq(s.serial, 1);
    pool_close(p);
    memory_pool_free(&m);
}

Test(pool_recovery, names_of_others_are_passed_over)
{
    struct memory_pool m = {.objects = NULL};
    void *object = NULL;
    struct pool *p;

    cr_assert_eq(memory_pool_open(&m, &p, detail), 0, "%s", detail);
    static const char *const names[] = {"keys/x", "keys/0000000900000001.old", "keys/..",
                                        "keys/000000090000000G"};
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(memory_create(&m, names[i], &object, detail), 0);
        cr_assert_eq(memory_finish(object, detail), 0);
    }
    cr_assert_eq(look(p, true).n, 0);
    pool_close(p);
    memory_pool_free(&m);
}
