#include <criterion/criterion.h>
#include <errno.h>

#include "control/job_place.h"

#define GIB (1ull << 30)

static struct job_place_node machine(uint32_t id, uint32_t cpus, uint64_t memory)
{
    return (struct job_place_node){
        .id = id, .open = true, .core_speed = 1000, .milli_cpus = cpus * 1000, .memory = memory};
}

static uint32_t chosen(const struct job_place_node *nodes, size_t n,
                       const struct job_place_need *need, const struct job_place_held *held,
                       size_t held_n)
{
    const struct job_place_node *node = job_place_choose(nodes, n, need, held, held_n);

    return node ? node->id : 0;
}

Test(job_place, what_fits)
{
    struct job_place_need need = {.milli_cpus = 1500, .memory = 2 * GIB};
    struct job_place_node n = machine(4, 2, 4 * GIB);

    cr_assert(job_place_fits(&n, &need));
    need.node = 5;
    cr_assert_not(job_place_fits(&n, &need), "another node is wanted");
    need.node = 4;
    cr_assert(job_place_fits(&n, &need));
    n.open = false;
    cr_assert_not(job_place_fits(&n, &need));
    cr_assert(job_place_ever(&n, &need));
    n = machine(4, 2, 4 * GIB);
    n.barred = true;
    cr_assert_not(job_place_fits(&n, &need));
    n = machine(4, 2, 4 * GIB);
    n.runs = n.runs_max = 3;
    cr_assert_not(job_place_fits(&n, &need));
    n.runs = 2;
    cr_assert(job_place_fits(&n, &need));
    n.runs_max = 0;
    n.milli_reserved = 500;
    cr_assert(job_place_fits(&n, &need), "to the last thousandth");
    n.milli_reserved = 501;
    cr_assert_not(job_place_fits(&n, &need));
}

Test(job_place, what_others_use_counts)
{
    struct job_place_need need = {.milli_cpus = 1000, .memory = 2 * GIB};
    struct job_place_node n = machine(1, 2, 4 * GIB);

    n.memory_busy = 2 * GIB;
    cr_assert(job_place_fits(&n, &need));
    n.memory_busy++;
    cr_assert_not(job_place_fits(&n, &need), "memory that others have is not there");
    n.memory_busy = 9 * GIB;
    cr_assert_eq(job_place_free_memory(&n), 0, "more than there is, but not below nothing");
    n.memory_busy = 0;
    n.milli_reserved = 500;
    n.milli_busy = 501;
    cr_assert_not(job_place_fits(&n, &need));
    n.milli_reserved = 0;
    n.milli_busy = 2000;
    cr_assert(job_place_fits(&n, &need), "a node without jobs takes one, however busy others are");
    cr_assert_eq(job_place_remaining(&n), 0, "but it is the last to be chosen");
    need.milli_cpus = 2001;
    cr_assert_not(job_place_fits(&n, &need));
    need.milli_cpus = 4000000000u;
    n.milli_reserved = UINT64_MAX - 5;
    cr_assert_not(job_place_fits(&n, &need), "no sum runs over");
}

Test(job_place, most_input_then_most_capacity_then_lowest_id)
{
    struct job_place_need need = {.milli_cpus = 1000, .memory = GIB};
    struct job_place_node n[] = {machine(9, 2, 8 * GIB), machine(3, 4, 8 * GIB),
                                 machine(5, 2, 8 * GIB), machine(2, 4, 8 * GIB)};
    struct job_place_held held[] = {{5, 100}, {9, 100}, {7, 1000}};

    cr_assert_eq(chosen(n, 4, &need, NULL, 0), 2, "largest, then lowest id");
    cr_assert_eq(chosen(n, 4, &need, held, 3), 5, "what node 7 holds is of no use");
    held[1].bytes = 101;
    cr_assert_eq(chosen(n, 4, &need, held, 3), 9);
    n[0].milli_reserved = 1001;
    cr_assert_eq(chosen(n, 4, &need, held, 3), 5, "it must fit");
    n[2].milli_reserved = 1001;
    cr_assert_eq(chosen(n, 4, &need, held, 3), 2);
    n[1].core_speed = 1001;
    cr_assert_eq(chosen(n, 4, &need, NULL, 0), 3, "faster processors are more capacity");
    n[1].milli_busy = 1000;
    cr_assert_eq(chosen(n, 4, &need, NULL, 0), 2);
    need.memory = 9 * GIB;
    cr_assert_eq(chosen(n, 4, &need, NULL, 0), 0);
    cr_assert_eq(chosen(n, 0, &need, NULL, 0), 0);
}

static unsigned kept(struct job_place_node *nodes, size_t n)
{
    unsigned bits = 0;

    job_place_keep(nodes, n);
    for (size_t k = 0; k < n; k++)
        bits |= (unsigned)nodes[k].kept << k;
    return bits;
}

Test(job_place, the_largest_are_kept_if_they_are_few)
{
    struct job_place_node n[24];
    struct job_place_need need = {.milli_cpus = 1000, .memory = GIB};
    struct job_place_held held[] = {{3, 1}};

    for (uint32_t k = 0; k < 24; k++)
        n[k] = machine(k + 1, 8, 8 * GIB);
    cr_assert_eq(kept(n, 24), 0, "none is larger than the others");
    cr_assert_eq(kept(n, 0), 0);
    n[2] = machine(3, 9, 8 * GIB);
    cr_assert_eq(kept(n, 24), 1u << 2);
    cr_assert_eq(chosen(n, 24, &need, NULL, 0), 1, "the largest, but kept");
    cr_assert_eq(chosen(n, 24, &need, held, 1), 3, "it holds the input");
    need.milli_cpus = 9000;
    cr_assert_eq(chosen(n, 24, &need, NULL, 0), 3, "what it is kept for");
    n[5] = machine(6, 10, 8 * GIB);
    cr_assert_eq(kept(n, 24), 1u << 5 | 1u << 2);
    n[5] = machine(6, 13, 8 * GIB);
    cr_assert_eq(kept(n, 24), 1u << 5, "both are more than a tenth: only the larger one");
    n[5] = machine(6, 21, 8 * GIB);
    cr_assert_eq(kept(n, 24), 0, "that is more than a tenth by itself");
    cr_assert_eq(kept(n + 5, 1), 0, "one node is all there is");
}

Test(job_place, remaining_capacity_has_no_overflow)
{
    struct job_place_node n = machine(1, 1000, GIB);

    cr_assert_eq(job_place_remaining(&n), 1000 * 1000);
    n.core_speed = UINT64_MAX;
    cr_assert_eq(job_place_remaining(&n), UINT64_MAX / 1000);
}

Test(job_place, could_ever)
{
    struct job_place_need need = {.milli_cpus = 4000, .memory = GIB};
    struct job_place_node n[] = {machine(1, 2, 16 * GIB), machine(2, 4, 2 * GIB), machine(3, 0, 0)};
    char why[JOB_PLACE_WHY];

    n[1].open = false;
    n[1].milli_reserved = 4000;
    cr_assert_eq(job_place_could(n, 3, &need, 1, why), 0, "not now, but some time");
    cr_assert_eq(job_place_could(n, 3, &need, 2, why), -EAGAIN);
    cr_assert_str_eq(why, "2 nodes are wanted, one for each copy, but only 1 has 4 processors and "
                          "1.0 GiB of memory");
    need.memory = 3 * GIB;
    need.milli_cpus = 2500;
    cr_assert_eq(job_place_could(n, 3, &need, 1, why), -EAGAIN);
    cr_assert_str_eq(why,
                     "2.5 processors and 3.0 GiB of memory are wanted, but no node has both: the "
                     "most is 4 processors and 16.0 GiB of memory, each for itself");
    need.node = 2;
    cr_assert_eq(job_place_could(n, 3, &need, 1, why), -EAGAIN);
    cr_assert_str_eq(why, "2.5 processors and 3.0 GiB of memory are wanted, but that node has 4 "
                          "processors and 2.0 GiB of memory");
    need.node = 3;
    cr_assert_eq(job_place_could(n, 3, &need, 1, why), -EAGAIN);
    cr_assert_str_eq(why, "that node is not there, or it runs no jobs");
    need.node = 0;
    cr_assert_eq(job_place_could(n, 0, &need, 1, why), -EAGAIN);
    cr_assert_str_eq(why, "no node of the cloud runs jobs");
}

Test(job_place, why_not_now)
{
    struct job_place_need need = {.milli_cpus = 1000, .memory = 512 << 20};
    struct job_place_node n[] = {machine(1, 2, 16 * GIB), machine(2, 4, 2 * GIB)};
    char why[JOB_PLACE_WHY];

    n[0].milli_reserved = 1500;
    n[1].milli_reserved = 3900;
    job_place_why(n, 2, &need, why);
    cr_assert_str_eq(why,
                     "1 processor and 512.0 MiB of memory are wanted; node 1 has 0.5 processors "
                     "and 16.0 GiB of memory free");
    n[0].open = n[1].open = false;
    job_place_why(n, 2, &need, why);
    cr_assert_str_eq(why, "no node is open for jobs");
    need.node = 2;
    job_place_why(n, 2, &need, why);
    cr_assert_str_eq(why, "its node is not open for jobs");
    n[1].open = true;
    n[1].runs = n[1].runs_max = 7;
    job_place_why(n, 2, &need, why);
    cr_assert_str_eq(why, "node 2 has its 7 jobs");
}
