/* Runs of jobs, with real processes: what the executor does without a centre. */
#include "tests/unit/node_run_world.h"

Test(node_run, exit_status_output_and_who_it_is)
{
    struct world *w = setup();
    Star__JobRunReport *r = run(w, 1, "/bin/true");

    IS_END(r, END_EXIT, 0);
    cr_expect_eq(r->output_bytes, 0);
    cr_expect_not(folder_is_left(w, "1.1.1"));
    r = run(w, 2, "id -u; id -g; pwd; echo $UMBEL_JOB_ID; echo oops >&2; exit 7");
    IS_END(r, END_EXIT, 7);
    char want[PATH_MAX + 64];
    snprintf(want, sizeof(want), "12345\n12345\n%s\n2\n", in_cloud(w, "home"));
    cr_expect_str_eq(text_of(w, "out2"), want);
    cr_expect_str_eq(text_of(w, "err2"), "oops\n");
    cr_expect_eq(r->output_bytes, strlen(want));
    cr_expect_eq(r->digest.len, 16);
    IS_END(run(w, 3, "exit 137"), END_EXIT, 137);
    IS_END(run(w, 4, "kill -SEGV $$"), END_SIGNAL, SIGSEGV);
    r = run(w, 5, "/no/such/program");
    IS_END(r, END_EXIT, 127);
    cr_expect(strstr(r->detail, "/no/such/program"), "%s", r->detail);
    teardown(w);
}

Test(node_run, digests_are_equal_if_the_output_is)
{
    struct world *w = setup();
    Star__JobRunReport *a = run(w, 1, "echo one; sleep 0.1; echo two");
    Star__JobRunReport *b = run(w, 2, "printf 'one\\ntwo\\n'"), *c = run(w, 3, "echo three");

    cr_assert(a->digest.len == 16 && b->digest.len == 16 && c->digest.len == 16);
    cr_expect_eq(memcmp(a->digest.data, b->digest.data, 16), 0);
    cr_expect_neq(memcmp(a->digest.data, c->digest.data, 16), 0);
    teardown(w);
}

Test(node_run, what_it_sees_of_the_machine)
{
    struct world *w = setup();

    /* Its own process space, a system that cannot be written, a /tmp of its own. */
    IS_END(run(w, 1, "test $(ls -d /proc/[0-9]* | wc -l) -lt 8"), END_EXIT, 0);
    IS_END(run(w, 2, "touch /etc/x || touch /usr/x || touch /x"), END_EXIT, 1);
    IS_END(run(w, 3, "echo x >/tmp/umbel-run-x && test -e /tmp/umbel-run-x"), END_EXIT, 0);
    cr_expect_eq(access("/tmp/umbel-run-x", F_OK), -1);
    IS_END(run(w, 4, "touch made && test -O made"), END_EXIT, 0);
    IS_END(run(w, 5, "test -e /root || test -e /var/lib"), END_EXIT, 1);
    IS_END(run(w, 6, "grep -q '^CapEff:.0*$' /proc/self/status"), END_EXIT, 0);
    cr_expect_eq(access(in_cloud(w, "home/made"), F_OK), 0);
    /* root is root over files of the cloud only. */
    struct order *o = order(w, 7,
                            "id -u; touch rooted; mount -t tmpfs x /tmp || echo no; "
                            "f=/proc/sys/kernel/core_pattern; v=$(cat $f); echo $v >$f || echo no");
    o->cred.uid = o->cred.gid = 0;
    start(w, o);
    IS_END(wait_end(w, 7), END_EXIT, 0);
    cr_expect_str_eq(text_of(w, "out7"), "0\nno\nno\n");
    teardown(w);
}

Test(node_run, scripts_input_output_and_groups)
{
    struct world *w = setup();
    uint32_t groups[] = {4711, 4712};
    char *env[] = {(char *)"GREETING=hello", (char *)"PATH=/bin"};
    struct order *o = order(w, 1, "");
    const char script[] = "#!/bin/bash\nread line\necho \"$GREETING $line $PATH\"\nid -G\n";

    cr_assert_eq(system("true"), 0);
    int fd = open(in_cloud(w, "home/in"), O_WRONLY | O_CREAT, 0644);
    cr_assert_eq(write(fd, "you\n", 4), 4);
    close(fd);
    o->m.script.data = (uint8_t *)(uintptr_t)script;
    o->m.script.len = sizeof(script) - 1;
    o->m.input = (char *)"in";
    o->m.output = (char *)"/home/result";
    o->m.env = env;
    o->m.n_env = 2;
    o->cred.groups = groups;
    o->cred.n_groups = 2;
    start(w, o);
    IS_END(wait_end(w, 1), END_EXIT, 0);
    cr_expect_str_eq(text_of(w, "home/result"), "hello you /bin\n12345 4711 4712\n");
    cr_expect_str_eq(text_of(w, "out1"), "");
    /* command and script: it gets the script's path. */
    o = order(w, 2, "sh -e");
    o->m.script.data = (uint8_t *)(uintptr_t) "false\necho never\n";
    o->m.script.len = 17;
    start(w, o);
    IS_END(wait_end(w, 2), END_EXIT, 1);
    o = order(w, 3, "true");
    o->m.workdir = (char *)"/nowhere";
    start(w, o);
    Star__JobRunReport *r = wait_end(w, 3);
    cr_expect_eq(r->end, STAR__JOB_END__END_FAILED);
    cr_expect(strstr(r->detail, "nowhere: No such file"), "%s", r->detail);
    o = order(w, 4, "true");
    o->m.output = (char *)"/forbidden";
    start(w, o);
    r = wait_end(w, 4);
    cr_expect_eq(r->end, STAR__JOB_END__END_FAILED);
    cr_expect(strstr(r->detail, "forbidden: Permission denied"), "%s", r->detail);
    teardown(w);
}

Test(node_run, time_and_a_command_that_ignores_sigterm)
{
    struct world *w = setup();
    struct order *o = order(w, 1, "trap '' TERM; while :; do sleep 1; done");
    int64_t began = clock_boot_ms();

    o->m.time_s = 3; /* the shell must have got so far */
    start(w, o);
    o = order(w, 2, "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done");
    o->m.time_s = 3;
    start(w, o);
    Star__JobRunReport *r = wait_end(w, 2);
    cr_expect_eq(r->end, STAR__JOB_END__END_TIME);
    cr_expect_str_eq(text_of(w, "out2"), "bye\n");
    r = wait_end(w, 1);
    cr_expect_eq(r->end, STAR__JOB_END__END_TIME);
    cr_expect_geq(clock_boot_ms() - began, 3000 + JOB_GRACE_MS, "the grace was not kept");
    teardown(w);
}

Test(node_run, out_of_memory_is_named)
{
    struct world *w = setup();
    struct order *o = order(w, 1, "head -c 200M /dev/zero | tail -c 200M | wc -c");

    o->m.memory = 32u << 20;
    o->m.command = (char *)"a=$(head -c 100M /dev/zero | tr '\\0' x); echo ${#a}";
    start(w, o);
    Star__JobRunReport *r = wait_end(w, 1);
    cr_expect_eq(r->end, STAR__JOB_END__END_MEMORY, "end %d, %s", (int)r->end, r->detail);
    cr_expect(r->memory_peak > (16u << 20) && r->memory_peak <= (33u << 20), "%ju",
              (uintmax_t)r->memory_peak);
    teardown(w);
}

Test(node_run, a_fork_bomb_is_bounded_and_ends)
{
    struct world *w = setup();
    struct order *o = order(w, 1, "b() { b | b & b; }; b; sleep 100");

    o->m.time_s = 2;
    start(w, o);
    Star__JobRunReport *r = wait_end(w, 1);
    cr_expect(r->end == STAR__JOB_END__END_TIME || r->end == STAR__JOB_END__END_EXIT, "%d",
              (int)r->end);
    teardown(w);
}

/* The limits that its control group sets, and what that tells. */
Test(node_run, limits_are_kept_and_use_is_told)
{
    struct world *w = setup();
    struct order *o = order(w, 1, "i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done");
    int64_t began = clock_boot_ms();

    o->m.milli_cpus = 500;
    start(w, o);
    Star__JobRunReport *r = wait_end(w, 1);
    int64_t took = clock_boot_ms() - began;
    IS_END(r, END_EXIT, 0);
    cr_expect_gt(r->cpu_us, 1000);
    /* Half a processor, and what may be used up in the first and the last period. */
    cr_expect_leq(r->cpu_us, (uint64_t)took * 1000 / 2 + 200000);
    cr_expect_gt(r->memory_peak, 65536);
    o = order(w, 2, "for n in 1 2 3 4 5 6 7 8 9; do sleep 2 & done; wait");
    o->m.pids_max = 4;
    start(w, o);
    r = wait_end(w, 2);
    cr_expect(r->end == STAR__JOB_END__END_EXIT && r->status != 0, "%d %d", (int)r->end,
              (int)r->status);
    cr_expect(strstr(text_of(w, "err2"), "fork"), "%s", text_of(w, "err2"));
    teardown(w);
}

Test(node_run, more_output_than_is_kept)
{
    struct world *w = setup();
    bool full = getenv("UMBEL_TEST_FULL") && strcmp(getenv("UMBEL_TEST_FULL"), "1") == 0;
    uint64_t gib = full ? 10 : 1;
    struct stat st;
    Star__JobRunReport *r = run(w, 1, full ? "head -c 10G /dev/zero" : "head -c 1G /dev/zero");

    IS_END(r, END_EXIT, 0);
    cr_expect_eq(r->output_bytes, 1u << 20);
    cr_expect_eq(r->output_lost, (gib << 30) - (1u << 20));
    cr_assert_eq(stat(in_cloud(w, "out1"), &st), 0);
    cr_expect_eq(st.st_size, 1u << 20);
    teardown(w);
}

Test(node_run, cancelled_and_signalled)
{
    struct world *w = setup();
    Star__JobSignal s = STAR__JOB_SIGNAL__INIT;
    struct order *o = order(w, 1, "trap 'echo usr' USR1; echo up; while :; do sleep 0.1; done");
    char detail[RUN_DETAIL] = "";

    start(w, o);
    for (int i = 0; i < 1000 && text_of(w, "out1")[0] == 0; i++)
        usleep(10000);
    s.run = &o->run;
    s.signal = SIGUSR1;
    cr_expect_eq(runs_job_signal(w->runs, &s, detail), 0, "%s", detail);
    for (int i = 0; i < 1000 && !strstr(text_of(w, "out1"), "usr"); i++)
        usleep(10000);
    cr_expect_str_eq(text_of(w, "out1"), "up\nusr\n");
    pthread_mutex_lock(&w->lock);
    while (w->running == 0)
        pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
    s.end = true;
    s.why = (char *)"by user 7";
    cr_expect_eq(runs_job_signal(w->runs, &s, detail), 0, "%s", detail);
    Star__JobRunReport *r = wait_end(w, 1);
    cr_expect_eq(r->end, STAR__JOB_END__END_CANCELLED);
    cr_expect_str_eq(r->detail, "by user 7");
    cr_expect_eq(runs_job_signal(w->runs, &s, detail), -ESRCH);
    teardown(w);
}

static void set_lease(const struct world *w, int64_t until)
{
    char path[PATH_MAX + 16];
    uint64_t lease = (uint64_t)until;

    snprintf(path, sizeof(path), "%s/jobs/lease", w->dir);
    int fd = open(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, &lease, sizeof(lease), 0), (ssize_t)sizeof(lease));
    close(fd);
}

/* Waited for without moving the lease. */
static const Star__JobRunReport *first_end(struct world *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->n == 0)
        pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
    return w->ended[0];
}

Test(node_run, the_lease_ends_it)
{
    struct world *w = setup();
    struct order *o = order(w, 1, "sleep 600");
    int64_t began = clock_boot_ms();

    start(w, o);
    set_lease(w, began + 1000); /* it has heard nothing for all but a second of it */
    cr_expect_eq(first_end(w)->end, STAR__JOB_END__END_LEASE);
    teardown(w);
}

/* The machine stood still between the node's order and the supervisor. */
Test(node_run, none_begins_after_the_lease)
{
    struct world *w = setup();
    struct order *o = order(w, 1, "echo began");

    set_lease(w, clock_boot_ms() - 1);
    start(w, o);
    cr_expect_eq(first_end(w)->end, STAR__JOB_END__END_LEASE);
    cr_expect_str_eq(text_of(w, "out1"), "");
    runs_heard(w->runs, clock_boot_ms());
    IS_END(run(w, 2, "true"), END_EXIT, 0);
    teardown(w);
}

/* It stood still while the run went on. */
Test(node_run, no_grace_is_left_long_after_the_lease)
{
    struct world *w = setup();
    struct order *o = order(w, 1, "trap '' TERM; echo began; while :; do sleep 1; done");

    start(w, o);
    for (int i = 0; i < 1000 && !text_of(w, "out1")[0]; i++)
        usleep(10000);
    int64_t began = clock_boot_ms();
    set_lease(w, began - JOB_GRACE_MS);
    cr_expect_eq(first_end(w)->end, STAR__JOB_END__END_LEASE);
    if (wait_ms() == WAIT_MS)
        cr_expect_lt(clock_boot_ms() - began, JOB_GRACE_MS);
    teardown(w);
}

/* Adoption: runs outlive the node, whatever became of them. A child is the node that is killed. */
Test(node_run, a_killed_node_finds_its_runs_again)
{
#ifdef __SANITIZE_THREAD__
    cr_skip_test("ThreadSanitizer lets no fork start threads");
#endif
    struct world *w = setup();
    char detail[RUN_DETAIL] = "";
    int up[2];

    cr_assert_eq(pipe(up), 0);
    runs_close(w->runs, false);
    pid_t pid = fork();
    if (pid == 0) {
        alarm((unsigned)wait_ms() / 1000); /* it must not outlive a test that has failed */
        if (open_runs(w, detail) != 0)
            _exit(1);
        w->keep = true;
        struct order *goes = order(w, 1, "echo began; sleep 4; echo ended");
        struct order *killed = order(w, 2, "echo began; sleep 600");
        struct order *over = order(w, 3, "exit 3");
        if (runs_job_start(w->runs, &goes->m, detail) ||
            runs_job_start(w->runs, &killed->m, detail) ||
            runs_job_start(w->runs, &over->m, detail))
            _exit(2);
        wait_end(w, 3);
        while (!text_of(w, "out1")[0] || !text_of(w, "out2")[0])
            usleep(10000);
        (void)!write(up[1], "x", 1);
        pause();
    }
    char byte;
    close(up[1]);
    cr_assert_eq(read(up[0], &byte, 1), 1, "the child has ended with an error");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    /* The second one's supervisor too. */
    char path[PATH_MAX + 16];
    snprintf(path, sizeof(path), "%s/jobs", w->dir);
    int jobs = open(path, O_RDONLY | O_DIRECTORY);
    pid_t supervisor = run_folder_holder(jobs, "2.1.1");
    cr_assert_gt(supervisor, 0);
    kill(supervisor, SIGKILL);
    cr_assert_eq(open_runs(w, detail), 0, "%s", detail);
    IS_END(wait_end(w, 3), END_EXIT, 3);
    Star__JobRunReport *r = wait_end(w, 2);
    cr_expect_eq(r->end, STAR__JOB_END__END_FAILED);
    cr_expect(strstr(r->detail, "supervisor"), "%s", r->detail);
    IS_END(wait_end(w, 1), END_EXIT, 0);
    cr_expect_str_eq(text_of(w, "out1"), "began\nended\n");
    cr_expect_not(folder_is_left(w, "1.1.1") || folder_is_left(w, "2.1.1") ||
                  folder_is_left(w, "3.1.1"));
    close(jobs);
    teardown(w);
}

Test(node_run, a_killed_supervisor_takes_its_run_with_it)
{
    struct world *w = setup();
    struct order *o = order(w, 1, "echo began; sleep 600 & sleep 600");
    char path[PATH_MAX + 16];

    start(w, o);
    for (int i = 0; i < 1000 && !text_of(w, "out1")[0]; i++)
        usleep(10000);
    snprintf(path, sizeof(path), "%s/jobs", w->dir);
    int jobs = open(path, O_RDONLY | O_DIRECTORY);
    pid_t supervisor = run_folder_holder(jobs, "1.1.1");
    cr_assert_gt(supervisor, 0);
    kill(supervisor, SIGKILL);
    cr_expect_eq(wait_end(w, 1)->end, STAR__JOB_END__END_FAILED);
    close(jobs);
    teardown(w);
}

Test(node_run, reports_are_sent_again_until_answered)
{
    struct world *w = setup();
    struct order *o = order(w, 1, "true");

    w->refuse = true;
    start(w, o);
    start(w, o); /* twice is once */
    pthread_mutex_lock(&w->lock);
    unsigned before = w->reports;
    while (w->reports < before + 2)
        pthread_cond_wait(&w->changed, &w->lock);
    w->refuse = false;
    pthread_mutex_unlock(&w->lock);
    IS_END(wait_end(w, 1), END_EXIT, 0);
    cr_expect_not(folder_is_left(w, "1.1.1"));
    cr_expect_eq(w->n, 1);
    teardown(w);
}

Test(node_run, what_makes_no_sense_is_refused)
{
    struct world *w = setup();
    char detail[RUN_DETAIL];
    struct order *o = order(w, 1, "");

    cr_expect_eq(runs_job_start(w->runs, &o->m, detail), -EINVAL);
    o = order(w, 1, "true");
    o->run.attempt = 0;
    cr_expect_eq(runs_job_start(w->runs, &o->m, detail), -EINVAL);
    o = order(w, 1, "true");
    o->m.cred = NULL;
    cr_expect_eq(runs_job_start(w->runs, &o->m, detail), -EINVAL);
    char *env[] = {(char *)"=x"};
    o = order(w, 1, "true");
    o->m.env = env;
    o->m.n_env = 1;
    cr_expect_eq(runs_job_start(w->runs, &o->m, detail), -EINVAL);
    cr_expect_eq(runs_active(w->runs), 0);
    teardown(w);
}

/* v2, as far as a machine has it on which v1 has the controllers: a group without limits. */
Test(node_run, groups_of_v2)
{
    struct run_cgroups c = {.v2 = true, .hold = -1};
    const struct run_limits none = {0};
    struct run_group_usage used;
    char detail[RUN_DETAIL];
    unsigned n = 0;
    int up[2];

    snprintf(c.base, sizeof(c.base), "umbel-test-%d", getpid());
    for (int k = 0; k < RUN_CONTROLLERS; k++)
        snprintf(c.mounts[k], sizeof(c.mounts[k]), "%s",
                 access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? "/sys/fs/cgroup"
                                                                  : "/sys/fs/cgroup/unified");
    char path[PATH_MAX + 80];
    snprintf(path, sizeof(path), "%s/%s", c.mounts[0], c.base);
    if (mkdir(path, 0755) < 0)
        cr_skip_test("no control groups of v2 here: %s", path);
    cr_assert_eq(run_cgroup_make(&c, "1.1.1", &none, detail), 0, "%s", detail);
    cr_assert_eq(run_cgroup_each(&c, one_group, &n), 0);
    cr_expect_eq(n, 1);
    cr_assert_eq(pipe(up), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int rc = run_cgroup_enter(&c, "1.1.1");
        if (rc < 0 || fork() < 0 || write(up[1], "xx", 1) != 1)
            _exit(1);
        pause();
    }
    close(up[1]);
    char byte;
    cr_assert_eq(read(up[0], &byte, 1), 1);
    cr_expect_eq(run_cgroup_remove(&c, "1.1.1"), -EBUSY);
    run_cgroup_usage(&c, "1.1.1", &used);
    cr_expect_eq(used.oom_kills, 0);
    /* Both: the pipe's last end goes. */
    (void)run_cgroup_kill(&c, "1.1.1", 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    while (read(up[0], &byte, 1) > 0)
        ;
    cr_expect_eq(run_cgroup_kill(&c, "1.1.1", 200), 0);
    cr_expect_eq(run_cgroup_remove(&c, "1.1.1"), 0);
    cr_expect_eq(rmdir(path), 0);
}

/* Also those that have no process yet. */
Test(node_run, a_node_that_stops_ends_them_all)
{
    struct world *w = setup();
    /* As many as can be begun and ended while runs_end() waits, on a slow machine too. */
    const uint64_t n = wait_ms() == WAIT_MS ? 40 : 8;
    char name[PATH_MAX + 64];

    for (uint64_t i = 1; i <= n; i++)
        start(w, order(w, i, "sleep 600"));
    w->keep = true;
    int64_t began = clock_boot_ms();
    runs_end(w->runs);
    cr_expect_eq(runs_active(w->runs), 0);
    cr_expect_eq(runs_held(w->dir, false), 0);
    if (wait_ms() == WAIT_MS)
        cr_expect_lt(clock_boot_ms() - began, JOB_GRACE_MS + JOB_MARGIN_MS + 1000);
    for (uint64_t i = 1; i <= n; i++) {
        Star__JobRunReport *r = wait_end(w, i);
        cr_expect_eq(r->end, STAR__JOB_END__END_LEASE, "%s", r->detail);
        snprintf(name, sizeof(name), "%s/jobs/%ju.1.1/result", w->dir, (uintmax_t)i);
        cr_expect_eq(access(name, F_OK), 0, "it was not confirmed");
    }
    teardown(w);
}

/* What it was doing when it died is found out: begun or not. */
Test(node_run, the_spawner_is_started_again)
{
    struct world *w = setup();

    IS_END(run(w, 1, "/bin/true"), END_EXIT, 0);
    struct order *o = order(w, 2, "sleep 1");
    start(w, o);
    usleep(300000);
    kill_children();
    IS_END(wait_end(w, 2), END_EXIT, 0);
    IS_END(run(w, 3, "/bin/true"), END_EXIT, 0);
    teardown(w);
}

static void clean_up(const struct run_cgroups *c)
{
    char path[2 * PATH_MAX];

    for (int k = 0; k < RUN_CONTROLLERS; k++) {
        snprintf(path, sizeof(path), "%s/%s", c->mounts[k], c->base);
        cr_expect(!c->mounts[k][0] || rmdir(path) == 0 || (errno == ENOENT && k > 0), "%s: %s",
                  path, strerror(errno));
    }
    cr_assert_not(has_group(c));
}

/* Somebody cleans up. The second time also behind a supervisor that had it open. */
Test(node_run, the_node_s_group_is_made_again)
{
    struct world *w = setup();
    struct run_cgroups c;

    groups_of(w, &c);
    clean_up(&c);
    IS_END(run(w, 1, "/bin/true"), END_EXIT, 0);
    cr_expect_eq(run_cgroups_keep(&c), 0);
    cr_expect(has_group(&c));
    run_cgroups_sweep(&c);
    cr_expect(has_group(&c));
    clean_up(&c);
    run_cgroups_close(&c);
    IS_END(run(w, 2, "/bin/true"), END_EXIT, 0);
    teardown(w);
}

/* Its node was killed, and does not come back. */
Test(node_run, the_last_run_takes_the_group_away)
{
#ifdef __SANITIZE_THREAD__
    cr_skip_test("ThreadSanitizer lets no fork start threads");
#endif
    struct world *w = setup();
    struct run_cgroups c;
    char detail[RUN_DETAIL] = "";
    int up[2];

    cr_assert_eq(pipe(up), 0);
    groups_of(w, &c);
    run_cgroups_close(&c);
    runs_close(w->runs, false);
    pid_t pid = fork();
    if (pid == 0) {
        alarm((unsigned)wait_ms() / 1000);
        if (open_runs(w, detail) != 0)
            _exit(1);
        struct order *goes = order(w, 1, "echo began; sleep 2");
        if (runs_job_start(w->runs, &goes->m, detail))
            _exit(2);
        while (!text_of(w, "out1")[0])
            usleep(10000);
        (void)!write(up[1], "x", 1);
        pause();
    }
    char byte;
    close(up[1]);
    cr_assert_eq(read(up[0], &byte, 1), 1, "the child has ended with an error");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    usleep(500000);
    cr_expect(has_group(&c), "a run is in it");
    for (int i = 0; i < 1000 && has_group(&c); i++)
        usleep(10000);
    cr_expect_not(has_group(&c), "the node's group is left");
    cr_assert_eq(open_runs(w, detail), 0, "%s", detail);
    IS_END(wait_end(w, 1), END_EXIT, 0);
    teardown(w);
}

/* Whatever has become of them; but not that of a node that lives. */
Test(node_run, groups_that_nodes_have_left_are_swept)
{
    struct run_cgroups mine;
    char names[3][40], detail[RUN_DETAIL], path[PATH_MAX + 80];
    const struct run_limits some = {.milli_cpus = 100, .memory = 64u << 20, .pids = 10};
    int up[2];

    for (int i = 0; i < 3; i++)
        snprintf(names[i], sizeof(names[i]), "test-%d-%d", getpid(), i);
    if (run_cgroups_open(&mine, names[0], detail) < 0)
        cr_skip_test("no control groups on this machine: %s", detail);
    unsigned trees = groups_called(names[0]);
    cr_assert_geq(trees, 1);
    cr_assert_eq(pipe(up), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct run_cgroups c;
        alarm((unsigned)wait_ms() / 1000);
        bool good = run_cgroups_open(&c, names[1], detail) == 0 &&
                    run_cgroup_make(&c, "1.1.1", &some, detail) == 0;
        (void)!write(up[1], good ? "y" : "n", 1);
        pause();
    }
    char byte = 0;
    cr_assert_eq(read(up[0], &byte, 1), 1);
    cr_assert_eq(byte, 'y', "%s", detail);
    /* One of which somebody has taken a part away. */
    snprintf(path, sizeof(path), "%s/umbel/%s", mine.mounts[RUN_PIDS], names[2]);
    cr_assert_eq(mkdir(path, 0755), 0);
    run_cgroups_sweep(&mine);
    cr_expect_eq(groups_called(names[0]), trees, "our own");
    cr_expect_eq(groups_called(names[1]), trees, "one that is needed");
    cr_expect_eq(groups_called(names[2]), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    run_cgroups_sweep(&mine);
    cr_expect_eq(groups_called(names[0]), trees);
    cr_expect_eq(groups_called(names[1]), 0);
    cr_expect_eq(run_cgroups_remove_node(&mine), 0);
    run_cgroups_close(&mine);
    cr_expect_eq(groups_called(names[0]), 0);
}

/* The node was killed while it started. */
Test(node_run, a_spawner_without_a_node_leaves_nothing)
{
    struct world *w = setup();
    int pair[2], status;

    runs_close(w->runs, true);
    w->runs = NULL;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    close(pair[0]);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pair[1], 9);
        execl(w->exe, w->exe, "supervise", "--store", w->dir, "--mount", w->cloud, "--fd", "9",
              NULL);
        _exit(127);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%d", status);
    teardown(w);
}

/* Prints only: what a short run costs. */
Test(node_run, speed)
{
    struct world *w = setup();
    enum { N = 100 };
    struct run_usage used;
    int64_t began = clock_boot_ms();

    for (uint64_t i = 1; i <= N; i++) {
        struct order *o = order(w, i, "/bin/true");
        start(w, o);
    }
    for (uint64_t i = 1; i <= N; i++)
        IS_END(wait_end(w, i), END_EXIT, 0);
    int64_t took = clock_boot_ms() - began;
    runs_usage(w->runs, &used);
    printf("%d runs of /bin/true: %.2f ms each; %.2f ms of CPU each in their groups\n", N,
           (double)took / N, (double)used.cpu_us / 1000 / N);
    teardown(w);
}
