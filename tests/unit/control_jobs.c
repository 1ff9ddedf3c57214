/* Jobs at the leader, with nodes that only pretend: started, told, reported, lost, run again. What
 * waits for a lost node's lease takes its time: JOB_RERUN_MS. */
#include "control/wire/job_run.h"
#include "control_fake.h"

/* A node is not said to be lost as long as it reports. */
#define REPORT_MS 1000

static struct cloud cloud;
static struct fake_node one, two;
static struct mount a;

static void end(void)
{
    mount_stop(&a);
    node_stop(&one);
    node_stop(&two);
    cloud_end(&cloud);
}

static void begin(void)
{
    memset(&cloud, 0, sizeof(cloud));
    cloud_make(&cloud);
    node_start(&one, &cloud, "node-1");
    node_start(&two, &cloud, "node-2");
    mount_start(&a, &cloud, "mnt-1");
}

TestSuite(control_jobs, .init = begin, .fini = end, .timeout = 600);

/* ---- what nodes say */

static int node_power(struct fake_node *n, bool jobs)
{
    Star__NodeReport body = STAR__NODE_REPORT__INIT;
    Star__NodePower power = STAR__NODE_POWER__INIT;

    power.jobs = jobs;
    power.cores = 4;
    power.core_speed = 1000;
    power.milli_cpus = 4000;
    power.memory = 4ull << 30;
    body.capacity = 1ull << 30;
    body.power = &power;
    return client_call_wait(n->client, T(NODE_REPORT), &body.base, FAKE_MS, 0, NULL, NULL, NULL,
                            NULL, NULL);
}

/* How many of the runs that it named are done with, and are to be ended. */
struct told {
    size_t done, end;
};

static struct told report_runs(struct fake_node *n, Star__JobRunReport **runs, size_t count,
                               bool all)
{
    Star__JobReport body = STAR__JOB_REPORT__INIT;
    Star__JobReportReply *r = NULL;
    struct told told = {0};

    body.runs = runs;
    body.n_runs = count;
    body.all = all;
    cr_assert_eq(ask_reply(ask(n->client, T(JOB_REPORT), &body), job_report_reply, &r), 0);
    told.done = r->n_done;
    told.end = r->n_end;
    star__job_report_reply__free_unpacked(r, NULL);
    return told;
}

static struct told report(struct fake_node *n, const struct fake_run *run, Star__JobRunState state,
                          Star__JobEnd how, int status, bool all)
{
    Star__JobRunReport r = STAR__JOB_RUN_REPORT__INIT, *list = &r;
    Star__JobRun key = STAR__JOB_RUN__INIT;
    Star__Time t = STAR__TIME__INIT;

    key.job = run->job;
    key.copy = run->copy;
    key.attempt = run->attempt;
    t.sec = 1000;
    r.run = &key;
    r.state = state;
    r.end = how;
    r.status = status;
    r.began = r.ended = &t;
    return report_runs(n, &list, 1, all);
}

static struct told runs_now(struct fake_node *n, const struct fake_run *run)
{
    return report(n, run, STAR__JOB_RUN_STATE__RUN_RUNNING, STAR__JOB_END__END_NONE, 0, false);
}

static struct told exits(struct fake_node *n, const struct fake_run *run, int status)
{
    return report(n, run, STAR__JOB_RUN_STATE__RUN_ENDED, STAR__JOB_END__END_EXIT, status, false);
}

/* It takes jobs from now on. */
static void open_for_jobs(struct fake_node *n)
{
    report_runs(n, NULL, 0, true);
    cr_assert_eq(node_power(n, true), 0);
}

/* ---- what users say */

static int write_as(uint32_t uid, uint64_t ino, const char *text, char answer[300])
{
    struct iovec payload = {(void *)(uintptr_t)text, strlen(text)};
    Star__CtlWrite body = STAR__CTL_WRITE__INIT;
    struct ask *w = calloc(1, sizeof(*w));

    body.ino = ino;
    body.head = HEAD(&a);
    body.head->cred->uid = body.head->cred->gid = uid;
    cr_assert_eq(client_call(a.client, T(CTL_WRITE), &body.base, &payload, 1, 0, CLIENT_RESEND,
                             on_ask, w, &w->id),
                 0);
    eventually(atomic_load(&w->done));
    answer[0] = '\0';
    if (w->status < 0) {
        Star__ErrorReply *e =
            (Star__ErrorReply *)frame_unpack(&w->reply, &star__error_reply__descriptor);
        snprintf(answer, 300, "%s", e ? e->detail : "");
        if (e)
            star__error_reply__free_unpacked(e, NULL);
    } else {
        Star__CtlReply *r = (Star__CtlReply *)frame_unpack(&w->reply, &star__ctl_reply__descriptor);
        snprintf(answer, 300, "%s", r ? r->text : "");
        if (r)
            star__ctl_reply__free_unpacked(r, NULL);
    }
    return ask_end(w);
}

static uint64_t submit(const char *spec)
{
    char answer[300];
    uint64_t id = 0;

    cr_assert_eq(write_as(0, ctl_find(&a, "jobs/new"), spec, answer), 0, "%s", answer);
    cr_assert_eq(sscanf(answer, "id %" SCNu64, &id), 1, "%s", answer);
    return id;
}

static int order(uint64_t id, const char *command)
{
    char path[64], answer[300];

    snprintf(path, sizeof(path), "jobs/%" PRIu64 "/ctl", id);
    return write_as(0, ctl_find(&a, path), command, answer);
}

static bool job_says(uint64_t id, const char *words)
{
    char path[64];

    snprintf(path, sizeof(path), "jobs/%" PRIu64 "/status", id);
    return ctl_says(&a, path, words);
}

#define is(id, words) cr_expect(job_says(id, words), "job %" PRIu64 " is not '%s'", id, words)

/* ---- the newest of what a node was asked */

static struct fake_run last_start(struct fake_node *n, unsigned count)
{
    struct fake_run run = {0};

    eventually(node_count(n, &n->starts_n) >= count);
    pthread_mutex_lock(&n->lock);
    run = n->starts[n->starts_n - 1];
    pthread_mutex_unlock(&n->lock);
    return run;
}

static struct fake_run last_signal(struct fake_node *n, unsigned count)
{
    struct fake_run run = {0};

    eventually(node_count(n, &n->signals_n) >= count);
    pthread_mutex_lock(&n->lock);
    run = n->signals[n->signals_n - 1];
    pthread_mutex_unlock(&n->lock);
    return run;
}

/* As time goes by: the mount and a node say that they live. */
static void live(struct fake_node *n)
{
    if (n)
        cr_assert_eq(node_power(n, n == &two), 0);
    cr_assert_eq(mount_renew(&a), 0);
    nap(REPORT_MS);
}

/* ---- the way of a job */

Test(control_jobs, started_reported_done)
{
    open_for_jobs(&one);
    uint64_t id = submit("command = true\nmemory = 16M\n");
    struct fake_run run = last_start(&one, 1);

    cr_expect(run.job == id && run.copy == 1 && run.attempt == 1);
    is(id, "state starting\n");
    cr_expect_eq(runs_now(&one, &run).end, 0);
    is(id, "state running\n");
    cr_expect_eq(exits(&one, &run, 0).done, 1);
    is(id, "state done\n");
    /* Said again, as the answer was lost: it may go. */
    cr_expect_eq(exits(&one, &run, 0).done, 1);
    is(id, "state done\n");
    cr_expect_eq(node_count(&one, &one.starts_n), 1);
}

Test(control_jobs, tried_again_while_retries_are_left)
{
    open_for_jobs(&one);
    uint64_t id = submit("command = false\nretries = 1\n");
    struct fake_run run = last_start(&one, 1);

    cr_expect_eq(exits(&one, &run, 1).done, 1);
    struct fake_run again = last_start(&one, 2);
    cr_expect(again.job == id && again.attempt == run.attempt + 1);
    /* What the old attempt says counts no more. */
    cr_expect_eq(exits(&one, &run, 0).done, 1);
    cr_expect_not(job_says(id, "state done\n"));
    cr_expect_eq(runs_now(&one, &run).end, 1);
    cr_expect_eq(exits(&one, &again, 1).done, 1);
    is(id, "state failed\n");
}

Test(control_jobs, a_node_that_refuses)
{
    atomic_store(&one.start_rc, -EAGAIN);
    open_for_jobs(&one);
    uint64_t later = submit("command = true\n");
    eventually(node_count(&one, &one.starts_n) >= 2); /* the tick asks again */
    is(later, "state starting\n");
    atomic_store(&one.start_rc, -EINVAL);
    eventually(job_says(later, "state failed\n"));
    cr_expect(job_says(later, "node-1 did not take it"));
}

/* The answer to a start that never comes is not the end of it. */
Test(control_jobs, a_start_without_an_answer)
{
    atomic_store(&one.start_rc, 1);
    open_for_jobs(&one);
    uint64_t id = submit("command = true\n");
    struct fake_run run = last_start(&one, 1);

    cr_expect_eq(runs_now(&one, &run).end, 0);
    is(id, "state running\n");
    cr_expect_eq(exits(&one, &run, 0).done, 1);
    is(id, "state done\n");
}

/* ---- cancel, signal */

Test(control_jobs, signals_go_to_the_run)
{
    open_for_jobs(&one);
    uint64_t id = submit("command = sleep 9\n");
    struct fake_run run = last_start(&one, 1);

    runs_now(&one, &run);
    cr_expect_eq(order(id, "signal 10\n"), 0);
    struct fake_run told = last_signal(&one, 1);
    cr_expect(told.job == id && told.attempt == run.attempt && told.signal == 10);
    for (const char *const *bad =
             (const char *const[]){"signal 0", "signal 65", "signal", "signal x", "signal 9 9",
                                   "signal -1", "kill", NULL};
         *bad; bad++)
        cr_expect_eq(order(id, *bad), -EINVAL, "'%s' was taken", *bad);
    exits(&one, &run, 0);
    cr_expect_eq(order(id, "signal 10"), -ESRCH);
    cr_expect_eq(order(id, "cancel"), -ESRCH);
}

Test(control_jobs, a_cancel_that_crosses_the_end)
{
    open_for_jobs(&one);
    uint64_t id = submit("command = true\nretries = 5\n");
    struct fake_run run = last_start(&one, 1);

    runs_now(&one, &run);
    atomic_store(&one.signal_rc, -ESRCH); /* it has just ended there */
    cr_expect_eq(order(id, "cancel\n"), 0);
    last_signal(&one, 1);
    is(id, "state ending\n");
    cr_expect_eq(exits(&one, &run, 0).done, 1);
    is(id, "state done\n"); /* it did all that it was to do */
    id = submit("command = false\nretries = 5\n");
    run = last_start(&one, 2);
    runs_now(&one, &run);
    cr_expect_eq(order(id, "cancel\n"), 0);
    cr_expect_eq(exits(&one, &run, 1).done, 1);
    is(id, "state cancelled\n"); /* and is not tried again */
    nap(100);
    cr_expect_eq(node_count(&one, &one.starts_n), 2);
}

Test(control_jobs, a_cancel_before_the_node_has_it)
{
    open_for_jobs(&one);
    atomic_store(&one.signal_rc, -ESRCH);
    atomic_store(&one.start_rc, -EAGAIN);
    uint64_t id = submit("command = true\n");

    last_start(&one, 1);
    cr_expect_eq(order(id, "cancel\n"), 0);
    eventually(job_says(id, "state cancelled\n"));
    uint64_t waits = submit("command = true\ncpus = 4\nafter = 1\n");
    cr_expect(waits > id);
    is(waits, "state failed\n"); /* as what it waited for did not end well */
}

/* ---- a connection that breaks; a node that has forgotten */

static void reconnect(struct fake_node *n)
{
    unsigned before = atomic_load(&n->connects);

    /* Another connection under its name: the centre closes the older one, and its client comes
     * again. */
    client_stop(n->client);
    node_start_with(n, &cloud, n->name);
    eventually(atomic_load(&n->connects) > before);
}

Test(control_jobs, a_node_that_has_forgotten_a_start_is_asked_again)
{
    open_for_jobs(&one);
    uint64_t id = submit("command = true\n");
    struct fake_run run = last_start(&one, 1);

    atomic_store(&one.connects, 0);
    reconnect(&one);
    is(id, "state starting\n");
    open_for_jobs(&one); /* it names nothing */
    struct fake_run again = last_start(&one, 2);
    cr_expect(again.job == id && again.attempt == run.attempt,
              "the same attempt, as nothing of it began");
    cr_expect_eq(exits(&one, &again, 0).done, 1);
    is(id, "state done\n");
}

Test(control_jobs, a_node_that_has_lost_a_run)
{
    open_for_jobs(&one);
    uint64_t id = submit("command = true\n"), more = submit("command = true\nretries = 1\n");
    last_start(&one, 2);
    struct fake_run first = one.starts[0], second = one.starts[1];

    runs_now(&one, &first);
    runs_now(&one, &second);
    atomic_store(&one.connects, 0);
    reconnect(&one);
    open_for_jobs(&one);
    eventually(job_says(id, "state lost\n"));
    struct fake_run again = last_start(&one, 3);
    cr_expect(again.job == more && again.attempt == second.attempt + 1);
    cr_expect_eq(exits(&one, &again, 0).done, 1);
    is(more, "state done\n");
}

/* ---- lost nodes */

/* Runs of one that ends, two takes over; what one says afterwards is nobody's. */
Test(control_jobs, a_lost_node_s_job_runs_elsewhere_when_its_lease_is_over)
{
    open_for_jobs(&one);
    uint64_t id = submit("command = true\nretries = 1\n"), once = submit("command = true\n"),
             cancelled = submit("command = true\nretries = 1\n");
    last_start(&one, 3);
    struct fake_run first = one.starts[0], second = one.starts[1];

    runs_now(&one, &first);
    runs_now(&one, &second);
    open_for_jobs(&two);
    atomic_store(&one.away, true);
    client_stop(one.client);
    int64_t since = clock_boot_ms();
    cr_expect_eq(order(cancelled, "cancel"), 0);
    while (job_says(id, "state running\n"))
        live(&two);
    cr_expect_geq(clock_boot_ms() - since, JOB_RERUN_MS - JOB_MARGIN_MS,
                  "its lease was not waited for");
    is(once, "state lost\n");
    struct fake_run again = last_start(&two, 1);
    cr_expect(again.job == id && again.attempt == first.attempt + 1);
    eventually(job_says(cancelled, "state cancelled\n"));
    cr_expect(ctl_says(&a, "events", "node node-1 was not heard"));
    atomic_store(&one.away, false);
    atomic_store(&one.connects, 0);
    node_start_with(&one, &cloud, "node-1");
    cr_expect_eq(runs_now(&one, &first).end, 1, "the old attempt is not ended");
    cr_expect_eq(exits(&one, &first, 0).done, 1);
    cr_expect_not(job_says(id, "state done\n"), "the old attempt's result counts");
    cr_expect_eq(exits(&two, &again, 0).done, 1);
    is(id, "state done\n");
    cr_expect_eq(node_count(&two, &two.starts_n), 1);
}

/* It was started without a mount, say: connected, and its runs are nobody's. */
Test(control_jobs, a_node_that_does_not_say_what_it_runs)
{
    open_for_jobs(&one);
    uint64_t id = submit("command = true\nretries = 1\n");
    struct fake_run run = last_start(&one, 1);

    runs_now(&one, &run);
    open_for_jobs(&two);
    atomic_store(&one.connects, 0);
    reconnect(&one);
    int64_t since = clock_boot_ms();
    while (job_says(id, "state running\n")) {
        cr_assert_eq(node_power(&one, false), 0);
        live(&two);
        cr_assert_lt(clock_boot_ms() - since, 2 * JOB_RERUN_MS, "the job hangs");
    }
    cr_expect_geq(clock_boot_ms() - since, JOB_RERUN_MS - JOB_MARGIN_MS,
                  "its lease was not waited for");
    struct fake_run again = last_start(&two, 1);
    cr_expect(again.job == id && again.attempt == run.attempt + 1);
    /* Later it does say. */
    cr_expect_eq(
        report(&one, &run, STAR__JOB_RUN_STATE__RUN_RUNNING, STAR__JOB_END__END_NONE, 0, true).end,
        1);
    cr_expect_eq(exits(&two, &again, 0).done, 1);
    is(id, "state done\n");
}

/* The centre's restart: runs are found again, and a start that was only decided is sent. */
Test(control_jobs, the_centre_starts_again)
{
    open_for_jobs(&one);
    uint64_t id = submit("command = true\n"), begun = submit("command = true\n");
    last_start(&one, 2);
    struct fake_run first = one.starts[0], second = one.starts[1];

    runs_now(&one, &second);
    atomic_store(&one.connects, 0);
    cloud_kill(&cloud);
    cloud_start(&cloud);
    eventually(atomic_load(&one.connects) >= 1);
    report(&one, &second, STAR__JOB_RUN_STATE__RUN_RUNNING, STAR__JOB_END__END_NONE, 0, true);
    cr_assert_eq(node_power(&one, true), 0);
    struct fake_run again = last_start(&one, 3);
    cr_expect(again.job == id && again.attempt == first.attempt);
    eventually(job_says(begun, "state running\n"));
    cr_expect_eq(exits(&one, &second, 0).done, 1);
    cr_expect_eq(exits(&one, &again, 0).done, 1);
    is(id, "state done\n");
    is(begun, "state done\n");
}

/* ---- others' jobs */

Test(control_jobs, nobody_waits_for_another_user_s_job)
{
    char answer[300];

    open_for_jobs(&one);
    submit("command = true\n");
    cr_expect_eq(write_as(4711, ctl_find(&a, "jobs/new"), "command = true\nafter = 1\n", answer),
                 -EACCES);
    cr_expect(strstr(answer, "line 2: after: job 1 is another user's"), "%s", answer);
    cr_expect_eq(write_as(4711, ctl_find(&a, "jobs/new"), "command = true\n", answer), 0);
    cr_expect_eq(write_as(4711, ctl_find(&a, "jobs/new"), "command = true\nafter = 2\n", answer),
                 0);
    cr_expect_eq(write_as(0, ctl_find(&a, "jobs/new"), "command = true\nafter = 1-3\n", answer), 0,
                 "%s", answer);
}
