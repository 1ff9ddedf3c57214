/* Which packs gc rewrites. */
#include "control/gc_policy.h"

#include <criterion/criterion.h>

#define MIB (1ull << 20)

static const struct gc_limits half = {.ratio = 50, .age = 600, .bytes = 100 * MIB};

static struct gc_pack pack(uint64_t id, uint64_t live, uint64_t records)
{
    return (struct gc_pack){
        .id = id, .size = 64 * MIB, .live_bytes = live, .live_records = records, .age = 1000};
}

Test(control_gc_policy, by_the_live_share)
{
    struct gc_pack p = pack(1, 31 * MIB, 31);

    cr_expect(gc_is_candidate(&p, &half));
    p.live_bytes = 33 * MIB;
    cr_expect_not(gc_is_candidate(&p, &half));
    p.live_bytes = 0;
    p.live_records = 0;
    cr_expect_not(gc_is_candidate(&p, &half), "that one is condemned, not rewritten");
    p = pack(1, 1, 1);
    p.age = 599;
    cr_expect_not(gc_is_candidate(&p, &half), "young");
    struct gc_limits off = half;
    off.ratio = 0;
    p.age = 1000;
    cr_expect_not(gc_is_candidate(&p, &off));
}

Test(control_gc_policy, what_is_to_be_sealed_anew)
{
    struct gc_limits l = half;
    struct gc_pack p[3] = {pack(1, 62 * MIB, 62), pack(2, 62 * MIB, 62), pack(3, 62 * MIB, 62)};

    p[1].old = p[2].old = true;
    p[1].age = 0;         /* young ones, too */
    p[1].size = 62 * MIB; /* a new one would be larger: that frees nothing */
    cr_expect_not(gc_is_candidate(&p[1], &l), "only when it is asked for");
    l.reseal = true;
    l.ratio = 0;
    l.freed_min = MIB;
    cr_expect(gc_is_candidate(&p[1], &l));
    cr_expect_not(gc_is_candidate(&p[0], &l), "of the newest key");
    struct gc_pack once[3] = {p[0], p[1], p[2]}, all[3] = {p[0], p[1], p[2]};
    cr_expect_eq(gc_choose(once, 3, &l), 1, "not more than its share in one round");
    l.bytes = UINT64_MAX;
    cr_expect_eq(gc_choose(all, 3, &l), 2);
    p[1].live_records = p[2].live_records = 0;
    cr_expect_eq(gc_choose(p, 3, &l), 0, "what is empty is condemned instead");
}

/* Whatever a pack holds, what gc makes of it is no candidate again. */
Test(control_gc_policy, never_the_same_again)
{
    struct gc_limits all = {.ratio = 100, .bytes = UINT64_MAX};

    for (uint64_t length = 1; length <= MIB; length = length * 3 + 1) {
        for (uint64_t records = 1; records * length <= 60 * MIB && records <= 1u << 20;
             records = records * 2 + 1) {
            /* Content, seals, header and trailer, footer; as the pool's README has them. */
            uint64_t pages = (length + 32751) / 32752;
            uint64_t footer = records * (32 + 56) + 32;
            uint64_t origins = records * 24;
            uint64_t size = 128 + records * (length + 16 * pages) + footer +
                            16 * ((footer + 32751) / 32752) + origins +
                            16 * ((origins + 32751) / 32752);
            struct gc_pack p = {.id = 1,
                                .size = size,
                                .live_bytes = records * length,
                                .live_records = records,
                                .age = 1};
            cr_assert_leq(size, gc_rewritten_size(p.live_bytes, records), "%lu records of %lu",
                          (unsigned long)records, (unsigned long)length);
            cr_assert_not(gc_is_candidate(&p, &all));
        }
    }
}

Test(control_gc_policy, the_emptiest_first_and_not_too_much)
{
    struct gc_pack packs[] = {pack(1, 60 * MIB, 60), pack(2, 20 * MIB, 20), pack(3, 5 * MIB, 5),
                              pack(4, 30 * MIB, 30), pack(5, 5 * MIB, 5)};
    struct gc_limits l = half;

    l.bytes = 30 * MIB;
    cr_assert_eq(gc_choose(packs, 5, &l), 3);
    cr_expect_eq(packs[0].id, 3);
    cr_expect_eq(packs[1].id, 5);
    cr_expect_eq(packs[2].id, 2);
    l.bytes = 1;
    cr_expect_eq(gc_choose(packs, 3, &l), 1, "one is always taken, or it would never end");
    l.freed_min = 60 * MIB;
    cr_expect_eq(gc_choose(packs, 1, &l), 0, "it frees 59");
    cr_expect_eq(gc_choose(packs, 0, &l), 0);
}
