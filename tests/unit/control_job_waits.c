/* Which jobs somebody waits for: ranges that come and go. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "control/job_waits.h"

Test(job_waits, ranges_lie_over_each_other)
{
    struct job_waits *w = NULL;

    cr_expect_not(job_waits_has(w, 5));
    cr_assert_eq(job_waits_add(&w, 5, 5), 0);
    cr_assert_eq(job_waits_add(&w, 3, 1000), 0);
    cr_assert_eq(job_waits_add(&w, 256, 511), 0);
    cr_expect_not(job_waits_has(w, 2));
    cr_expect(job_waits_has(w, 3));
    cr_expect(job_waits_has(w, 1000));
    cr_expect_not(job_waits_has(w, 1001));
    job_waits_remove(&w, 3, 1000);
    cr_expect(job_waits_has(w, 5));
    cr_expect_not(job_waits_has(w, 4));
    cr_expect_not(job_waits_has(w, 255));
    cr_expect(job_waits_has(w, 256));
    cr_expect(job_waits_has(w, 511));
    cr_expect_not(job_waits_has(w, 512));
    job_waits_remove(&w, 5, 5);
    job_waits_remove(&w, 256, 511);
    cr_expect_null(w, "nothing is left");
}

#define RANGES 200
#define JOBS   3000

Test(job_waits, as_if_all_were_counted)
{
    struct {
        uint64_t first, last;
    } ranges[RANGES];
    static unsigned counted[JOBS];
    struct job_waits *w = NULL;
    unsigned seed = 4711;
    size_t n = 0;

    for (unsigned step = 0; step < 5000; step++) {
        bool more = n == 0 || (n < RANGES && rand_r(&seed) % 2);
        size_t k = more ? n++ : (size_t)rand_r(&seed) % n;
        if (more) {
            ranges[k].first = (unsigned)rand_r(&seed) % JOBS;
            ranges[k].last =
                ranges[k].first + (unsigned)rand_r(&seed) % (rand_r(&seed) % 4 ? 3 : JOBS);
            ranges[k].last = ranges[k].last < JOBS ? ranges[k].last : JOBS - 1;
            cr_assert_eq(job_waits_add(&w, ranges[k].first, ranges[k].last), 0);
        } else {
            job_waits_remove(&w, ranges[k].first, ranges[k].last);
        }
        for (uint64_t id = ranges[k].first; id <= ranges[k].last; id++)
            counted[id] += more ? 1u : -1u;
        if (!more)
            ranges[k] = ranges[--n];
        for (unsigned probe = 0; probe < 20; probe++) {
            uint64_t id = (unsigned)rand_r(&seed) % JOBS;
            cr_assert_eq(job_waits_has(w, id), counted[id] > 0, "job %u in step %u", (unsigned)id,
                         step);
        }
    }
    job_waits_free(&w);
    cr_expect_null(w);
}
