/* Whether a node runs jobs, and why not. */
#include "nodecache/jobs.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int report(void *ctx, const Star__JobReport *m, Star__JobReportReply **out)
{
    (void)ctx;
    (void)m;
    *out = NULL;
    return -ECONNRESET;
}

static Star__JobStart start_of(Star__JobRun *run, Star__Cred *cred)
{
    Star__JobStart m = STAR__JOB_START__INIT;

    star__job_run__init(run);
    star__cred__init(cred);
    run->job = run->copy = run->attempt = 1;
    m.run = run;
    m.cred = cred;
    m.command = (char *)"true";
    return m;
}

/* Measured and looked: within some seconds. */
static void wait_known(struct jobs *j, Star__NodePower *p, char why[RUN_DETAIL])
{
    for (int i = 0; i < 500; i++) {
        star__node_power__init(p);
        jobs_power(j, p, why);
        if (p->memory > 0 && !strstr(why, "just been started"))
            return;
        usleep(20000);
    }
}

Test(node_jobs, without_a_mount_there_are_none)
{
    struct jobs_options o = {.store = "/nowhere", .report = report};
    Star__NodePower p = STAR__NODE_POWER__INIT;
    char why[RUN_DETAIL] = "";
    Star__JobRun run;
    Star__Cred cred;
    Star__JobStart m = start_of(&run, &cred);
    struct jobs *j;

    cr_assert_eq(jobs_open(&o, &j), 0);
    jobs_heard(j, 1);
    jobs_connected(j);
    jobs_power(j, &p, why);
    cr_expect_not(p.jobs);
    cr_expect(strstr(p.detail, "--jobs-mount"), "%s", p.detail);
    cr_expect_eq(jobs_start(j, &m, why), -EOPNOTSUPP);
    cr_expect_eq(jobs_start(NULL, &m, why), -EOPNOTSUPP);
    jobs_pause(j, 1000);
    jobs_close(j);
}

Test(node_jobs, a_folder_is_no_mount)
{
    char dir[] = "/var/tmp/node_jobs.XXXXXX", command[64], why[RUN_DETAIL] = "";
    Star__NodePower p = STAR__NODE_POWER__INIT;
    Star__JobRun run;
    Star__Cred cred;
    Star__JobStart m = start_of(&run, &cred);
    struct jobs *j;

    cr_assert(mkdtemp(dir));
    struct jobs_options o = {
        .store = dir, .mount = dir, .exe = getenv("UMBEL_BINARY"), .report = report};
    cr_assert_eq(jobs_open(&o, &j), 0);
    wait_known(j, &p, why);
    cr_expect_not(p.jobs);
    /* Or, on a machine where it cannot be so far: what else is missing. */
    cr_expect_neq(why[0], 0);
    cr_expect(p.memory > 0 && p.cores > 0 && p.milli_cpus == p.cores * 1000);
    cr_expect_eq(jobs_start(j, &m, why), -EAGAIN);
    jobs_stop(j);
    jobs_close(j);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}
