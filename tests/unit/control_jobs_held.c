/* The centre from outside: jobs go to where their inputs lie; what health and metrics say of them.
 */
#include "control_fake.h"

static struct cloud cloud;
static struct fake_node nodes[2];
static struct mount a;

/* As nodes that run jobs say. */
static void report(struct fake_node *n, bool jobs, uint32_t milli_cpus)
{
    Star__NodePower power = STAR__NODE_POWER__INIT;
    Star__NodeReport body = STAR__NODE_REPORT__INIT;

    power.jobs = jobs;
    power.cores = milli_cpus / 1000;
    power.milli_cpus = milli_cpus;
    power.core_speed = 1000;
    power.memory = 1ull << 34;
    power.detail = (char *)(jobs ? "" : "bubblewrap is not there");
    body.capacity = 1ull << 30;
    body.power = &power;
    cr_assert_eq(ask_end(ask(n->client, T(NODE_REPORT), &body)), 0);
}

static void says_all(struct fake_node *n)
{
    Star__JobReport body = STAR__JOB_REPORT__INIT;

    body.all = true;
    cr_assert_eq(ask_end(ask(n->client, T(JOB_REPORT), &body)), 0);
}

static void holds(struct fake_node *n, uint64_t ino, uint64_t version, uint64_t cached)
{
    Star__Copy copy = STAR__COPY__INIT, *list[] = {&copy};
    Star__Copies body = STAR__COPIES__INIT;

    copy.ino = ino;
    copy.version = version;
    copy.cached = cached;
    body.node = n->number;
    body.n_copies = 1;
    body.copies = list;
    cr_assert_eq(ask_end(ask(n->client, T(COPIES), &body)), 0);
}

static void begin(void)
{
    memset(&cloud, 0, sizeof(cloud));
    cloud_make(&cloud);
    node_start(&nodes[0], &cloud, "node-1");
    node_start(&nodes[1], &cloud, "node-2");
    mount_start(&a, &cloud, "mnt-1");
    for (size_t k = 0; k < 2; k++) {
        report(&nodes[k], true, k == 0 ? 4000 : 16000);
        says_all(&nodes[k]);
    }
}

static void end(void)
{
    mount_stop(&a);
    node_stop(&nodes[0]);
    node_stop(&nodes[1]);
    cloud_end(&cloud);
}

TestSuite(control_jobs_held, .init = begin, .fini = end, .timeout = 600);

/* Its number, or 0. */
static uint64_t submit(const char *spec)
{
    struct iovec payload = {(void *)(uintptr_t)spec, strlen(spec)};
    Star__CtlWrite body = STAR__CTL_WRITE__INIT;
    struct ask *q = calloc(1, sizeof(*q));
    Star__CtlReply *r = NULL;
    uint64_t id = 0;

    body.ino = ctl_find(&a, "jobs/new");
    body.head = HEAD(&a);
    cr_assert_eq(client_call(a.client, T(CTL_WRITE), &body.base, &payload, 1, 0, CLIENT_RESEND,
                             on_ask, q, &q->id),
                 0);
    ask_reply(q, ctl_reply, &r);
    if (r) {
        cr_expect_eq(sscanf(r->text, "id %" SCNu64, &id), 1);
        star__ctl_reply__free_unpacked(r, NULL);
    }
    return id;
}

static bool job_says(uint64_t id, const char *words)
{
    char path[64];

    snprintf(path, sizeof(path), "jobs/%" PRIu64 "/status", id);
    return ctl_says(&a, path, words);
}

/* The fake nodes take no jobs, so it ends at once; but where it was sent to is told. */
static void runs_on(uint64_t id, const char *node)
{
    char line[64];

    cr_assert_neq(id, 0);
    snprintf(line, sizeof(line), "\nnode %s\n", node);
    eventually(!job_says(id, "\nnode -\n"));
    cr_expect(job_says(id, line), "job %" PRIu64 " is not at %s", id, node);
}

Test(control_jobs_held, a_job_goes_to_the_bytes_of_its_inputs)
{
    uint64_t one = file_new(&a, T(MKNOD), "one"), two = file_new(&a, T(MKNOD), "two");

    runs_on(submit("command = true\n"), "node-2");
    holds(&nodes[0], one, 0, 1000);
    runs_on(submit("command = true\ninput = one\n"), "node-1");
    runs_on(submit("command = true\ninput = /one\nworkdir = /nowhere\n"), "node-1");
    runs_on(submit("command = true\ninput = one\nworkdir = /nowhere\n"), "node-2");
    runs_on(submit("command = true\ninput = missing\n"), "node-2");
    runs_on(submit("command = true\ninput = one\ncpus = 8\n"), "node-2");
    holds(&nodes[1], two, 0, 999);
    runs_on(submit("command = true\ninput = two\ninput = one\n"), "node-1");
    holds(&nodes[1], one, 0, 2);
    runs_on(submit("command = true\ninput = two\ninput = one\n"), "node-2");
    /* Each job of an array has its own. */
    uint64_t part[2] = {file_new(&a, T(MKNOD), "part-0"), file_new(&a, T(MKNOD), "part-1")};
    holds(&nodes[0], part[0], 0, 10);
    holds(&nodes[1], part[1], 0, 10);
    uint64_t id = submit("command = true\narray = 2\ninput = part-%a\n");
    runs_on(id, "node-1");
    runs_on(id + 1, "node-2");
}

Test(control_jobs_held, a_home_holds_what_the_pool_has_not)
{
    uint64_t ino = file_new(&a, T(CREATE), "x");
    struct opened o;

    cr_assert_eq(open_end(open_file(&a, ino, O_RDWR), &o), 0);
    cr_assert_neq(o.node, 0);
    struct fake_node *home = nodes[0].number == o.node ? &nodes[0] : &nodes[1];
    struct fake_node *other = home == &nodes[0] ? &nodes[1] : &nodes[0];
    node_has(home, ino, 5000, 7);
    cr_assert_eq(release(&a, ino, true, 5000, 7), 0);
    holds(other, ino, 1, 100000); /* of an older content */
    report(other, true, 64000);
    runs_on(submit("command = true\ncpus = 1\ninput = x\n"), home->name);
}

Test(control_jobs_held, health_and_metrics_say_how_jobs_fare)
{
    cr_expect_not(ctl_says(&a, "health", "jobs"));
    uint64_t id = submit("command = true\nnode = node-1\ncpus = 3\n");
    runs_on(id, "node-1");
    cr_expect(ctl_says(&a, "metrics", "umbel_jobs_submitted_total 1\n"));
    cr_expect(ctl_says(&a, "metrics", "umbel_jobs_placed_total 1\n"));
    cr_expect(ctl_says(&a, "metrics", "umbel_job_placement_seconds_count 1\n"));
    cr_expect_eq(submit("command = true\ncpus = 17\n"), 0);
    cr_expect(ctl_says(&a, "metrics", "umbel_jobs_refused_total 1\n"));

    report(&nodes[0], false, 4000);
    eventually(ctl_says(&a, "health", "note node node-1 runs no jobs: bubblewrap is not there\n"));
    cr_expect(ctl_says(&a, "health", "problems 0\n"));

    /* The only node that could is away, which may pass; that it has become smaller does not. */
    report(&nodes[1], true, 4000);
    report(&nodes[0], true, 2000);
    id = submit("command = true\nnode = node-1\ncpus = 2\narray = 3\n");
    report(&nodes[0], true, 1000);
    eventually(ctl_says(&a, "health", "wait for what no node has, the first is"));
    cr_expect_not(ctl_says(&a, "health", "problems 0\n"));
    cr_expect(ctl_says(&a, "metrics", "umbel_jobs{state=\"pending\"} "));
}

Test(control_jobs_held, health_tells_that_the_queue_is_nearly_full)
{
    cr_assert_eq(ask_end(ctl_write(&a, "settings/job_queue_max", "10")), 0);
    node_stop(&nodes[1]);
    cr_assert_neq(submit("command = true\nnode = node-2\narray = 8\n"), 0);
    cr_expect_not(ctl_says(&a, "health", "are pending"));
    cr_assert_neq(submit("command = true\nnode = node-2\n"), 0);
    cr_expect(ctl_says(&a, "health", "problem jobs: 9 are pending, and job_queue_max is 10"));
    cr_expect(ctl_says(&a, "metrics", "umbel_jobs_queued 9\n"));
    cr_expect_eq(submit("command = true\nnode = node-2\narray = 2\n"), 0);
    node_start(&nodes[1], &cloud, "node-2");
}

/* More rows than go into one entry of the log. */
Test(control_jobs_held, a_large_array_is_whole_when_it_is_answered)
{
    node_stop(&nodes[1]);
    uint64_t id = submit("command = true\nnode = node-2\narray = 5000\n");
    cr_assert_neq(id, 0);
    cr_expect(job_says(id + 4999, "array_index 4999\n"));
    eventually(ctl_says(&a, "metrics", "umbel_jobs_queued 5000\n"));
    cloud_kill(&cloud);
    cloud_start(&cloud);
    for (int n = 0; n < 200 && !ctl_says(&a, "status", "state serving\n"); n++) {
        cr_assert_eq(mount_renew(&a), 0); /* the grace period is as long as its lease */
        nap(100);
    }
    eventually(ctl_says(&a, "metrics", "umbel_jobs_queued 5000\n"));
    report(&nodes[0], true, 4000);
    uint64_t later = submit("command = true\nafter = 1-5000\n");
    cr_expect_eq(later, id + 5000);
    cr_expect(job_says(later, "reason dependency: job 1 has not ended\n"));
    char path[64];
    snprintf(path, sizeof(path), "jobs/%" PRIu64 "/ctl", id + 4000);
    cr_assert_eq(ask_end(ctl_write(&a, path, "cancel")), 0);
    cr_expect(job_says(id + 4000, "state cancelled\n"));
    cr_expect(ctl_says(&a, "metrics", "umbel_jobs{state=\"pending\"} 5000\n"));
    node_start(&nodes[1], &cloud, "node-2");
}
