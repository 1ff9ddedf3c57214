/* What a machine can do, and what of it is left. */
#include "nodecache/power.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

Test(node_power, what_the_kernel_says)
{
    uint64_t busy, memory, memory_free;

    cr_assert_eq(power_parse_stat("cpu  100 20 30 4000 500 6 7 8 9 10\ncpu0 1\n", 100, &busy), 0);
    cr_expect_eq(busy, (100 + 20 + 30 + 6 + 7 + 8) * 10000ull);
    cr_expect_eq(power_parse_stat("cpu 1 2 3\n", 100, &busy), -EINVAL);
    cr_expect_eq(power_parse_stat("", 100, &busy), -EINVAL);
    cr_assert_eq(power_parse_meminfo("MemTotal:       24064 kB\nMemFree: 1 kB\n"
                                     "MemAvailable:   20000 kB\n",
                                     &memory, &memory_free),
                 0);
    cr_expect(memory == 24064 * 1024 && memory_free == 20000 * 1024);
    cr_expect_eq(power_parse_meminfo("MemTotal: 1 kB\n", &memory, &memory_free), -EINVAL);
}

Test(node_power, jobs_are_not_counted_among_the_others)
{
    struct power_sample a = {.at_ms = 1000, .busy_us = 5000000, .jobs_us = 1000000};
    struct power_sample b = {.at_ms = 2000,
                             .busy_us = 6500000,
                             .jobs_us = 1900000,
                             .memory = 1000,
                             .memory_free = 300,
                             .jobs_memory = 250};
    struct power_use use;

    power_between(&a, &b, 2, &use);
    cr_expect_eq(use.milli_busy, 600);
    cr_expect_eq(use.memory_busy, 450);
    /* The two clocks are not read at the same time: never below nothing, never above all. */
    b.jobs_us = 9000000;
    b.jobs_memory = 900;
    power_between(&a, &b, 2, &use);
    cr_expect(use.milli_busy == 0 && use.memory_busy == 0);
    b.busy_us = 99000000;
    power_between(&a, &b, 2, &use);
    cr_expect_eq(use.milli_busy, 2000);
    b.at_ms = a.at_ms;
    use.milli_busy = 7;
    power_between(&a, &b, 2, &use);
    cr_expect_eq(use.milli_busy, 7);
}

Test(node_power, this_machine)
{
    struct power_sample s;

    cr_assert_eq(power_sample(&s), 0);
    cr_expect(s.memory > s.memory_free && s.memory_free > 0 && s.busy_us > 0);
    cr_expect_gt(power_cores(), 0);
    uint64_t first = power_core_speed(), second = power_core_speed();
    cr_expect_gt(first, 0);
    cr_expect_gt(second, 0);
    printf("speed of a core: %ju, again: %ju\n", (uintmax_t)first, (uintmax_t)second);
}
