/* The state: jobs, their specs and their own files. */
#include "tests/state_world.h"

#include <criterion/criterion.h>

static struct world w;

static void set_up(void)
{
    world_start(&w);
}

static void tear_down(void)
{
    cr_assert_eq(world_check(&w), 0);
    world_reopen(&w);
    cr_assert_eq(world_check(&w), 0);
    world_end(&w);
}

TestSuite(state_job, .init = set_up, .fini = tear_down);

static int submit_rows(uint32_t count, uint64_t after_last, uint32_t rows)
{
    Star__LogJobSubmit body = STAR__LOG_JOB_SUBMIT__INIT;
    Star__Job job = STAR__JOB__INIT;
    Star__Cred cred = STAR__CRED__INIT;
    Star__JobCopy copy = STAR__JOB_COPY__INIT, *copies[] = {&copy};

    cred.uid = 1000;
    cred.gid = 100;
    job.cred = &cred;
    job.copies = copies;
    job.n_copies = 1;
    body.job = &job;
    body.spec.data = (uint8_t *)"command = true\n";
    body.spec.len = 15;
    body.count = count;
    body.after_last = after_last;
    body.rows = rows;
    return world_apply(&w, STAR__LOG_TYPE__LOG_JOB_SUBMIT, &body.base);
}

static int submit(uint32_t count, uint64_t after_last)
{
    return submit_rows(count, after_last, 0);
}

static int more(uint64_t batch, uint32_t rows)
{
    Star__LogJobMore body = STAR__LOG_JOB_MORE__INIT;

    body.batch = batch;
    body.rows = rows;
    return world_apply(&w, STAR__LOG_TYPE__LOG_JOB_MORE, &body.base);
}

static int forget(uint64_t id)
{
    Star__LogJobChange body = STAR__LOG_JOB_CHANGE__INIT;

    body.n_forget = 1;
    body.forget = &id;
    return world_apply(&w, STAR__LOG_TYPE__LOG_JOB_CHANGE, &body.base);
}

static void set_state(uint64_t id, Star__JobState state)
{
    Star__LogJobChange body = STAR__LOG_JOB_CHANGE__INIT;
    Star__Job *job;

    cr_assert_eq(state_job(w.s, id, &job), 0);
    job->state = state;
    body.n_jobs = 1;
    body.jobs = &job;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_JOB_CHANGE, &body.base), 0);
    star__job__free_unpacked(job, NULL);
}

static uint64_t file_of(uint64_t id, uint32_t file)
{
    Star__LogJobFile body = STAR__LOG_JOB_FILE__INIT;

    body.job = id;
    body.file = file;
    if (world_apply(&w, STAR__LOG_TYPE__LOG_JOB_FILE, &body.base) < 0)
        return 0;
    Star__EntryReply *r = world_reply(&w, &star__entry_reply__descriptor);
    return r->attr->ino;
}

Test(state_job, an_array_has_consecutive_numbers_and_one_text)
{
    char *text;
    size_t len;
    Star__Job *job;

    cr_assert_eq(submit(3, 0), 0);
    cr_expect_eq(state_last_job(w.s), 3);
    cr_assert_eq(state_job(w.s, 2, &job), 0);
    cr_expect_eq(job->batch, 1);
    cr_expect_eq(job->index, 1);
    star__job__free_unpacked(job, NULL);
    cr_assert_eq(state_job_spec(w.s, 1, &text, &len), 0);
    cr_expect_str_eq(text, "command = true\n");
    free(text);
    cr_expect_eq(submit(1, 4), -EINVAL, "job 4 is the one itself");
    cr_expect_eq(submit(1, 3), 0);
}

struct counting {
    uint64_t last, n;
};

static bool count_row(void *arg, const Star__Job *row)
{
    struct counting *k = arg;

    k->n += row->id <= k->last;
    return row->id < k->last;
}

static uint64_t rows(uint64_t first, uint64_t last)
{
    struct counting k = {.last = last};

    cr_assert_eq(state_jobs(w.s, first - 1, count_row, &k), 0);
    return k.n;
}

static bool note_batch(void *arg, uint64_t batch)
{
    *(uint64_t *)arg = *(uint64_t *)arg * 10 + batch;
    return true;
}

Test(state_job, a_large_array_comes_in_parts)
{
    uint64_t next, last, seen = 0;
    Star__Job *job;

    cr_assert_eq(submit_rows(5, 0, 2), 0);
    cr_expect_eq(state_last_job(w.s), 5);
    cr_assert_eq(state_job_rest(w.s, 1, &next, &last), 0);
    cr_expect_eq(next, 3);
    cr_expect_eq(last, 5);
    cr_expect_eq(state_job(w.s, 3, &job), -ENOENT);
    cr_expect_eq(rows(1, 2), 2 - 1 + 1);
    cr_expect_eq(rows(1, 5), 2);
    cr_assert_eq(submit_rows(3, 0, 3), 0, "all of them at once");
    cr_expect_eq(state_job_rest(w.s, 6, &next, &last), -ENOENT);
    cr_assert_eq(submit_rows(2, 0, 1), 0);
    cr_assert_eq(state_job_rests(w.s, note_batch, &seen), 0);
    cr_expect_eq(seen, 19);
    cr_assert_eq(more(1, 2), 0);
    cr_assert_eq(state_job_rest(w.s, 1, &next, &last), 0);
    cr_expect_eq(next, 5);
    cr_assert_eq(state_job(w.s, 4, &job), 0);
    cr_expect_eq(job->index, 3);
    cr_expect_eq(job->batch, 1);
    cr_expect_not_null(job->submitted);
    star__job__free_unpacked(job, NULL);
    cr_assert_eq(more(1, 2), 0);
    cr_expect_eq(state_job_rest(w.s, 1, &next, &last), -ENOENT);
    cr_expect_eq(more(1, 2), 0, "all are there");
    cr_expect_eq(state_job(w.s, 5, &job), 0);
    star__job__free_unpacked(job, NULL);
    cr_expect_eq(rows(1, 9), 9 - 1 + 1);
    cr_expect_eq(rows(9, 10), 1);
    cr_assert_eq(more(9, 7), 0);
    cr_expect_eq(rows(1, 10), 10 - 1 + 1);
    cr_expect_eq(rows(10, 11), 1);
}

Test(state_job, only_ended_jobs_go_and_the_text_with_the_last)
{
    char *text;
    size_t len;

    cr_assert_eq(submit(2, 0), 0);
    cr_assert_eq(forget(1), 0);
    Star__Job *job;
    cr_assert_eq(state_job(w.s, 1, &job), 0, "it has not ended");
    star__job__free_unpacked(job, NULL);
    set_state(1, STAR__JOB_STATE__JOB_DONE);
    cr_assert_eq(forget(1), 0);
    cr_expect_eq(state_job(w.s, 1, &job), -ENOENT);
    cr_assert_eq(state_job_spec(w.s, 1, &text, &len), 0);
    free(text);
    set_state(2, STAR__JOB_STATE__JOB_FAILED);
    cr_assert_eq(forget(2), 0);
    cr_expect_eq(state_job_spec(w.s, 1, &text, &len), -ENOENT);
    cr_expect_eq(forget(2), 0, "it is gone");
    cr_assert_eq(submit(1, 0), 0);
    cr_expect_eq(state_last_job(w.s), 3, "numbers are not given again");
}

Test(state_job, its_files_are_its_submitters_and_go_with_it)
{
    struct inode i;

    cr_assert_eq(submit(1, 0), 0);
    uint64_t out = file_of(1, STATE_JOB_STDOUT(1)), err = file_of(1, STATE_JOB_STDERR(1));
    cr_assert_neq(out, 0);
    cr_assert_neq(out, err);
    cr_expect_eq(file_of(1, STATE_JOB_STDOUT(1)), out, "it is made once");
    cr_expect_eq(file_of(1, STATE_JOB_STDOUT(2)), 0, "there is no second copy");
    cr_expect_eq(file_of(7, STATE_JOB_STDOUT(1)), 0);
    cr_assert_eq(state_inode(w.s, out, &i), 0);
    cr_expect_eq(i.uid, 1000);
    cr_expect_eq(i.gid, 100);
    cr_expect_eq(i.mode, S_IFREG | 0600);
    cr_expect_eq(i.nlink, 1);
    cr_assert_eq(world_check(&w), 0);
    set_state(1, STAR__JOB_STATE__JOB_DONE);
    cr_assert_eq(forget(1), 0);
    cr_assert_eq(state_inode(w.s, out, &i), 0);
    cr_expect(i.orphan, "who has it open keeps it");
}
