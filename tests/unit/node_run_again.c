/* Supervisors that have one run after the other, and what must not go from one to the next. */
#include <dirent.h>
#include <poll.h>
#include <sys/syscall.h>

#include "nodecache/run_private.h"
#include "tests/unit/node_run_world.h"

/* Who has this run, once it has begun. */
static pid_t supervisor_of(struct world *w, uint64_t job)
{
    char path[PATH_MAX + 16], name[RUN_NAME_MAX];
    pid_t pid = 0;

    snprintf(path, sizeof(path), "%s/jobs", w->dir);
    snprintf(name, sizeof(name), "%ju.1.1", (uintmax_t)job);
    int jobs = open(path, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 2000 && pid == 0; i++) {
        pid = run_folder_holder(jobs, name);
        usleep(5000);
    }
    close(jobs);
    cr_assert_gt(pid, 0);
    return pid;
}

static unsigned descriptors_of(pid_t pid)
{
    char path[64];
    unsigned n = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    cr_assert(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* What runs with this command go on until. */
#define UNTIL_LET "until [ -e let ]; do sleep 0.02; done"
static void let(struct world *w)
{
    int fd = open(in_cloud(w, "home/let"), O_WRONLY | O_CREAT, 0644);

    cr_assert_geq(fd, 0);
    close(fd);
}

static void let_no_more(struct world *w)
{
    cr_assert_eq(unlink(in_cloud(w, "home/let")), 0);
}

/* The one that is idle after this. */
static pid_t one_idle(struct world *w)
{
    struct order *o = order(w, 1, "echo one; " UNTIL_LET);

    start(w, o);
    pid_t pid = supervisor_of(w, 1);
    let(w);
    IS_END(wait_end(w, 1), END_EXIT, 0);
    let_no_more(w);
    return pid;
}

/* A zombie is gone as well. */
static bool is_gone(pid_t pid)
{
    char path[64], state = 'X';

    for (int i = 0; i < 1500; i++) {
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        FILE *f = fopen(path, "r");
        if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
            state = 'X';
        if (f)
            fclose(f);
        if (state == 'X' || state == 'Z')
            return true;
        usleep(10000);
    }
    return false;
}

Test(node_run_again, the_same_one_has_the_next_run_and_nothing_of_the_last)
{
    struct world *w = setup();
    pid_t pid = one_idle(w);

    for (uint64_t i = 2; i <= 20; i++)
        IS_END(run(w, i, i % 2 ? "echo odd; exit 3" : "true"), END_EXIT, i % 2 ? 3 : 0);
    unsigned before = descriptors_of(pid);
    struct order *other = order(w, 21, "id -u; id -G; cd home; " UNTIL_LET);
    uint32_t groups[] = {777};
    other->cred.uid = other->cred.gid = UID + 1;
    other->cred.groups = groups;
    other->cred.n_groups = 1;
    other->m.workdir = (char *)"/";
    cr_assert_eq(chown(in_cloud(w, "out21"), UID + 1, UID + 1), 0);
    start(w, other);
    cr_expect_eq(supervisor_of(w, 21), pid);
    let(w);
    Star__JobRunReport *r = wait_end(w, 21);
    IS_END(r, END_EXIT, 0);
    cr_expect_str_eq(text_of(w, "out21"), "12346\n12346 777\n");
    cr_expect_str_eq(text_of(w, "out1"), "one\n");
    cr_expect_eq(r->output_bytes, strlen("12346\n12346 777\n"));
    IS_END(run(w, 22, "true"), END_EXIT, 0);
    cr_expect_eq(descriptors_of(pid), before, "descriptors are left of runs");
    teardown(w);
}

static void signal_supervisor(pid_t pid, int value)
{
    union sigval v = {.sival_int = value};

    cr_assert_eq(sigqueue(pid, RUN_SIGNAL, v), 0);
}

/* It was on its way when its run ended. */
Test(node_run_again, a_signal_for_the_last_run_does_not_meet_the_next)
{
    struct world *w = setup();
    struct order *second = order(w, 2, UNTIL_LET), *third = order(w, 3, "sleep 600");
    pid_t pid = one_idle(w);

    signal_supervisor(pid, run_signal_value(1, RUN_CANCEL));
    start(w, second);
    cr_expect_eq(supervisor_of(w, 2), pid);
    signal_supervisor(pid, run_signal_value(1, RUN_CANCEL));
    signal_supervisor(pid, run_signal_value(1, SIGKILL));
    usleep(200000); /* it would end it at once */
    let(w);
    IS_END(wait_end(w, 2), END_EXIT, 0);
    start(w, third);
    cr_expect_eq(supervisor_of(w, 3), pid);
    signal_supervisor(pid, run_signal_value(3, SIGTERM));
    IS_END(wait_end(w, 3), END_SIGNAL, SIGTERM);
    teardown(w);
}

/* Nobody is left to give it another one. */
Test(node_run_again, it_goes_with_its_node)
{
    struct world *w = setup();
    char detail[RUN_DETAIL];
    struct order *second = order(w, 2, UNTIL_LET);
    pid_t idle = one_idle(w);

    cr_expect_eq(kill(idle, 0), 0, "it waits for another one");
    runs_close(w->runs, false);
    cr_expect(is_gone(idle));
    cr_assert_eq(open_runs(w, detail), 0, "%s", detail);
    start(w, second);
    pid_t busy = supervisor_of(w, 2);
    runs_close(w->runs, false);
    usleep(100000);
    cr_expect_eq(kill(busy, 0), 0, "its run goes on");
    cr_assert_eq(open_runs(w, detail), 0, "%s", detail);
    let(w);
    IS_END(wait_end(w, 2), END_EXIT, 0);
    cr_expect(is_gone(busy), "another node adopted it, and cannot give it a run");
    teardown(w);
}

/* The machine gets its memory back. */
Test(node_run_again, one_without_work_is_let_go)
{
    struct world *w = setup();
    pid_t pid = one_idle(w);

    cr_expect_eq(kill(pid, 0), 0);
    cr_expect(is_gone(pid), "it waits for ever");
    IS_END(run(w, 2, "true"), END_EXIT, 0);
    teardown(w);
}

/* Killed while it had nothing to do: the next run is none the worse. */
Test(node_run_again, a_dead_one_is_not_asked)
{
    struct world *w = setup();
    pid_t pid = one_idle(w);

    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    cr_assert_geq(pidfd, 0);
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(poll(&p, 1, wait_ms()), 1); /* all of it: its threads, its end of the channel */
    close(pidfd);
    IS_END(run(w, 2, "true"), END_EXIT, 0);
    teardown(w);
}
