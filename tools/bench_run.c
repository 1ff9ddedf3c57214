#include "tools/bench.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/wire/clock.h"

/* What the processes and their parent share. */
struct board {
    atomic_uint ready;
    atomic_bool go;
    struct result {
        int error;
        uint64_t work;
        int64_t start_ns, end_ns;
    } results[BENCH_PROCESSES_MAX];
};

static void pause_briefly(void)
{
    poll(NULL, 0, 1);
}

static void work(const struct bench_test *test, struct bench_job *job, struct board *board)
{
    struct result *r = &board->results[job->number];

    r->error = test->prepare != NULL ? test->prepare(job) : 0;
    atomic_fetch_add(&board->ready, 1);
    while (!atomic_load(&board->go))
        pause_briefly();
    r->start_ns = clock_boot_ns();
    if (r->error == 0)
        r->error = test->run(job, &r->work);
    r->end_ns = clock_boot_ns();
}

static pid_t start_one(const struct bench_test *test, struct bench_job *job, struct board *board)
{
    pid_t parent = getpid(), pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent)
        work(test, job, board);
    _exit(EXIT_SUCCESS);
}

static int wait_all(pid_t *pids, unsigned count)
{
    int rc = 0;

    for (unsigned i = 0; i < count; i++) {
        int status;

        while (waitpid(pids[i], &status, 0) < 0)
            if (errno != EINTR)
                return -errno;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS)
            rc = -ECHILD;
    }
    return rc;
}

static int sum_up(const struct board *board, unsigned processes, double *rate)
{
    int64_t start = INT64_MAX, end = 0;
    uint64_t sum = 0;

    for (unsigned i = 0; i < processes; i++) {
        const struct result *r = &board->results[i];

        if (r->error != 0)
            return r->error;
        sum += r->work;
        start = r->start_ns < start ? r->start_ns : start;
        end = r->end_ns > end ? r->end_ns : end;
    }
    if (end <= start)
        return -ERANGE;
    *rate = (double)sum * 1e9 / (double)(end - start);
    return 0;
}

static int start_all(const struct bench_test *test, const char *dir, unsigned processes,
                     const struct bench_size *size, struct board *board, pid_t *pids,
                     unsigned *started)
{
    for (*started = 0; *started < processes; ++*started) {
        struct bench_job job = {.number = *started,
                                .processes = processes,
                                .size = size,
                                .seed = 88172645463325252ull + *started,
                                .archive = -1};

        if (snprintf(job.dir, sizeof(job.dir), "%s/p%u", dir, *started) >= PATH_MAX)
            return -ENAMETOOLONG;
        if (mkdir(job.dir, 0700) != 0 && errno != EEXIST)
            return -errno;
        pids[*started] = start_one(test, &job, board);
        if (pids[*started] < 0)
            return -errno;
    }
    while (atomic_load(&board->ready) < processes) {
        if (waitpid(-1, NULL, WNOHANG) > 0)
            return -ECHILD; /* none may end before the start */
        pause_briefly();
    }
    return 0;
}

int bench_run(const struct bench_test *test, const char *dir, unsigned processes,
              const struct bench_size *size, double *rate, char *detail)
{
    pid_t pids[BENCH_PROCESSES_MAX];
    unsigned started = 0;
    struct board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (board == MAP_FAILED)
        return -ENOMEM;
    int rc = start_all(test, dir, processes, size, board, pids, &started);
    /* What was left to be written before is written now, not during the test: who waits for the
     * disk would pay for who does not. */
    sync();
    atomic_store(&board->go, true);
    int ended = wait_all(pids, started);
    if (rc == 0)
        rc = ended;
    if (rc == 0)
        rc = sum_up(board, processes, rate);
    if (rc != 0)
        snprintf(detail, 256, "%s in %.120s: %s%s", test->name, dir, strerror(-rc),
                 rc == -EMFILE || rc == -ENFILE
                     ? "; what serves it needs more descriptors (ulimit -n)"
                     : "");
    munmap(board, sizeof(*board));
    return rc;
}
