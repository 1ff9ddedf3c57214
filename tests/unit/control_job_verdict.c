/* What the copies of a job mean together. */
#include "control/job_verdict.h"

#include <criterion/criterion.h>

#define COPIES 5

static Star__JobRunReport reports[COPIES];
static Star__JobCopy copies[COPIES];
static Star__JobCopy *list[COPIES];
static Star__Job job;

static void make(size_t n)
{
    star__job__init(&job);
    for (size_t k = 0; k < n; k++) {
        star__job_copy__init(&copies[k]);
        star__job_run_report__init(&reports[k]);
        list[k] = &copies[k];
    }
    job.copies = list;
    job.n_copies = n;
}

static void ends(size_t k, Star__JobEnd end, int status, const char *digest)
{
    reports[k].end = end;
    reports[k].status = status;
    reports[k].digest.data = (uint8_t *)(uintptr_t)digest;
    reports[k].digest.len = strlen(digest);
    copies[k].result = &reports[k];
    copies[k].state = STAR__JOB_RUN_STATE__RUN_ENDED;
}

Test(job_verdict, one_copy_speaks_for_itself)
{
    uint32_t winner;

    make(1);
    cr_expect_eq(job_verdict(&job, &winner), JOB_VERDICT_WAIT);
    ends(0, STAR__JOB_END__END_EXIT, 3, "a");
    cr_expect_eq(job_verdict(&job, &winner), JOB_VERDICT_RESULT);
    cr_expect_eq(winner, 1);
    ends(0, STAR__JOB_END__END_LEASE, 0, "");
    cr_expect_eq(job_verdict(&job, &winner), JOB_VERDICT_LOST);
    copies[0].state = STAR__JOB_RUN_STATE__RUN_UNKNOWN;
    cr_expect_eq(job_verdict(&job, &winner), JOB_VERDICT_LOST);
}

Test(job_verdict, the_majority_counts_and_the_odd_one_is_known)
{
    uint32_t winner;

    make(3);
    ends(0, STAR__JOB_END__END_EXIT, 0, "odd");
    ends(1, STAR__JOB_END__END_EXIT, 0, "a");
    cr_expect_eq(job_verdict(&job, &winner), JOB_VERDICT_WAIT);
    ends(2, STAR__JOB_END__END_EXIT, 0, "a");
    cr_expect_eq(job_verdict(&job, &winner), JOB_VERDICT_RESULT);
    cr_expect_eq(winner, 2);
    cr_expect_not(job_agree(list[1], list[0]));
    ends(2, STAR__JOB_END__END_EXIT, 1, "a");
    cr_expect_eq(job_verdict(&job, &winner), JOB_VERDICT_SPLIT, "all differ");
}

Test(job_verdict, half_is_no_majority_and_lost_ones_do_not_agree)
{
    uint32_t winner;

    make(2);
    ends(0, STAR__JOB_END__END_EXIT, 0, "a");
    ends(1, STAR__JOB_END__END_LEASE, 0, "");
    cr_expect_eq(job_verdict(&job, &winner), JOB_VERDICT_LOST);
    make(3);
    ends(0, STAR__JOB_END__END_LEASE, 0, "");
    ends(1, STAR__JOB_END__END_LEASE, 0, "");
    ends(2, STAR__JOB_END__END_EXIT, 0, "a");
    cr_expect_eq(job_verdict(&job, &winner), JOB_VERDICT_LOST);
    cr_expect_eq(winner, 0);
}
