/* The mount's memory of its own locks, as fcntl(2) cuts and joins them. */
#include <criterion/criterion.h>
#include <fcntl.h>

#include "fs/lock_list.h"

static struct held_lock *list;

static void teardown(void)
{
    lock_list_free(&list);
}

TestSuite(lock_list, .fini = teardown);

static void set(uint64_t owner, uint32_t type, uint64_t start, uint64_t end, bool flock)
{
    struct held_lock l = {.owner = owner, .type = type, .start = start, .end = end, .flock = flock};

    cr_assert_eq(lock_list_set(&list, &l), 0);
}

static unsigned count(void)
{
    unsigned n = 0;

    for (const struct held_lock *l = list; l; l = l->next)
        n++;
    return n;
}

/* The type that owner holds at one byte; F_UNLCK: none. */
static uint32_t at(uint64_t owner, uint64_t byte, bool flock)
{
    uint32_t type = F_UNLCK;

    for (const struct held_lock *l = list; l; l = l->next)
        if (l->owner == owner && l->flock == flock && l->start <= byte && byte <= l->end) {
            cr_assert_eq(type, F_UNLCK, "two locks of one owner on one byte");
            type = l->type;
        }
    return type;
}

Test(lock_list, unlock_in_the_middle_splits)
{
    set(1, F_WRLCK, 0, 99, false);
    set(1, F_UNLCK, 40, 59, false);
    cr_assert_eq(count(), 2);
    cr_assert_eq(at(1, 39, false), F_WRLCK);
    cr_assert_eq(at(1, 40, false), F_UNLCK);
    cr_assert_eq(at(1, 59, false), F_UNLCK);
    cr_assert_eq(at(1, 60, false), F_WRLCK);
}

Test(lock_list, a_new_lock_replaces_what_it_covers)
{
    set(1, F_RDLCK, 0, 9, false);
    set(1, F_RDLCK, 20, 29, false);
    set(1, F_RDLCK, 40, 49, false);
    set(1, F_WRLCK, 5, 44, false);
    cr_assert_eq(at(1, 4, false), F_RDLCK);
    cr_assert_eq(at(1, 5, false), F_WRLCK);
    cr_assert_eq(at(1, 25, false), F_WRLCK);
    cr_assert_eq(at(1, 44, false), F_WRLCK);
    cr_assert_eq(at(1, 45, false), F_RDLCK);
    set(1, F_UNLCK, 0, HELD_LOCK_END, false);
    cr_assert_eq(count(), 0);
}

Test(lock_list, owners_and_kinds_are_apart)
{
    set(1, F_WRLCK, 0, HELD_LOCK_END, false);
    set(2, F_WRLCK, 10, 19, false);
    set(1, F_WRLCK, 0, HELD_LOCK_END, true);
    set(1, F_UNLCK, 0, HELD_LOCK_END, false);
    cr_assert_eq(at(2, 10, false), F_WRLCK);
    cr_assert_eq(at(1, 10, true), F_WRLCK);
    cr_assert_eq(count(), 2);
}

Test(lock_list, random_against_a_byte_map)
{
    uint32_t map[2][64];
    uint32_t x = 12345;

    for (unsigned o = 0; o < 2; o++)
        for (unsigned b = 0; b < 64; b++)
            map[o][b] = F_UNLCK;
    for (unsigned n = 0; n < 5000; n++) {
        x = x * 1103515245u + 12345u;
        unsigned owner = x >> 16 & 1, start = x >> 17 & 63,
                 end = start + ((x >> 23) % (64 - start));
        uint32_t type = (x >> 13) % 3;
        set(owner, type, start, end, false);
        for (unsigned b = start; b <= end; b++)
            map[owner][b] = type;
        for (unsigned o = 0; o < 2; o++)
            for (unsigned b = 0; b < 64; b++)
                cr_assert_eq(at(o, b, false), map[o][b], "owner %u byte %u step %u", o, b, n);
    }
}
