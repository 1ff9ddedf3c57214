/* The supervisor of one run: starts it, watches its limits and the node's lease, ends it, and
 * writes what became of it. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "control/wire/stamp.h"
#include "nodecache/run_private.h"

/* Processes of a run that are not the submitter's: init. */
#define OWN_PIDS 1
/* After SIGKILL: a process may be in the kernel, at a mount that does not answer. Its result must
 * not wait for that for ever, but until nothing of it can land: it may run again then. */
#define KILL_WAIT_MS (JOB_STUCK_MS + JOB_MARGIN_MS)
/* After the end: for the mount to take what was written, in its second try if need be; the lease
 * may end it earlier. */
#define OUTPUT_WAIT_MS (2 * JOB_STUCK_MS + JOB_MARGIN_MS)
/* The lease is looked at so often; it moves on as a rule each second. */
#define LEASE_LOOK_MS 1000
/* The group's files may say for a moment that it is in use, though nobody is left. */
#define REMOVE_TRIES 100
/* For the next run. The node lets it go much earlier, unless it is frozen. */
#define NEXT_WAIT_MS 60000

enum phase { RUNNING, ENDING, KILLED, OVER };

struct supervisor {
    struct run_world *world;
    const char *name;
    unsigned round;
    int dir, lock;
    Star__JobStart *start;
    int signals, control;
    pid_t child;
    enum phase phase;
    int64_t began_ms, phase_until; /* clock_boot_ms() */
    struct timespec began;
    struct run_output output;
    bool has_output;
    bool copied;   /* all of it: its thread is no more */
    bool told_all; /* init is ending: no more comes, and the kernel may need a while for the rest */
    bool ended;    /* it has told of the command's end */
    int status;    /* its wait status */
    uint64_t cpu_us;
    bool failed;      /* it has not started */
    Star__JobEnd why; /* why it is being ended; END_NONE */
    char detail[JOB_DETAIL_MAX];
};

/* ---- starting */

static bool one_file(const Star__JobStart *s)
{
    return s->output && s->output[0] && s->error && strcmp(s->output, s->error) == 0;
}

static int become_group(const Star__JobStart *s)
{
    /* root that it is, the groups say only which files of the cloud it may write. */
    return setgroups(s->cred->n_groups, s->cred->groups) < 0 ? -errno : 0;
}

static int make_group(struct supervisor *v)
{
    const Star__JobStart *s = v->start;
    struct run_limits limits = {.milli_cpus = s->milli_cpus,
                                .memory = s->memory,
                                .pids = s->pids_max > 0 ? s->pids_max + OWN_PIDS : 0};

    return run_cgroup_make(&v->world->cgroups, v->name, &limits, v->detail);
}

/* A fork into a process space of its own; by hand, as unshare() would cost us our threads. */
static int clone_run(struct supervisor *v, const struct run_pipes *p)
{
    v->began = clock_real();
    v->began_ms = clock_boot_ms();
    v->child = (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWIPC | SIGCHLD, 0, 0, 0, 0);
    if (v->child < 0)
        return -errno;
    if (v->child == 0)
        run_init(v->world, v->name, v->start, p);
    return 0;
}

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int begin(struct supervisor *v)
{
    int control[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    int rc = make_group(v);

    if (rc == 0)
        rc = become_group(v->start);
    if (rc == 0 && (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0 ||
                    pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0))
        rc = -errno;
    if (rc == 0)
        rc = run_output_init(&v->output, v->world, v->start, out[0], err[0]);
    v->has_output = rc == 0;
    struct run_pipes p = {
        .control = control[1], .out = out[1], .err = one_file(v->start) ? out[1] : err[1]};
    if (rc == 0)
        rc = clone_run(v, &p);
    v->control = control[0];
    close_all((const int[]){control[1], out[1], err[1]}, 3);
    if (rc < 0 && !v->detail[0])
        snprintf(v->detail, sizeof(v->detail), "starting it: %s", strerror(-rc));
    return rc;
}

/* ---- ending */

static void send_signal(struct supervisor *v, int number)
{
    unsigned char byte = (unsigned char)number;

    /* Full or gone: SIGKILL follows, or it has ended. */
    (void)!send(v->control, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void wait_for_kernel(struct supervisor *v)
{
    v->phase = KILLED;
    v->phase_until = clock_boot_ms() + KILL_WAIT_MS;
}

static void kill_all(struct supervisor *v)
{
    wait_for_kernel(v);
    if (v->child > 0)
        kill(v->child, SIGKILL); /* init, and all with it */
    (void)run_cgroup_kill(&v->world->cgroups, v->name, 0);
}

static void end_run(struct supervisor *v, Star__JobEnd why, const char *detail)
{
    if (v->phase != RUNNING || v->ended)
        return;
    v->why = why;
    snprintf(v->detail, sizeof(v->detail), "%s", detail);
    v->phase = ENDING;
    v->phase_until = clock_boot_ms() + JOB_GRACE_MS;
    send_signal(v, SIGTERM);
    send_signal(v, SIGCONT); /* a stopped one would not hear it */
}

static void end_asked(struct supervisor *v)
{
    char why[JOB_DETAIL_MAX];

    run_folder_why(v->dir, why, sizeof(why));
    end_run(v, STAR__JOB_END__END_CANCELLED, why);
}

/* A machine that has stood still has no grace left: the job may be running elsewhere. */
static void end_with_lease(struct supervisor *v, int64_t lease)
{
    end_run(v, STAR__JOB_END__END_LEASE, "its node had not heard the centre for too long");
    if (v->phase == ENDING)
        v->phase_until = lease + JOB_GRACE_MS;
}

/* Later the job may be running elsewhere. */
static void stop_output_after_lease(struct supervisor *v)
{
    if (clock_boot_ms() >= (int64_t)atomic_load(v->world->lease) + JOB_GRACE_MS)
        run_output_stop(&v->output);
}

static int64_t look_at_limits(struct supervisor *v)
{
    int64_t now = clock_boot_ms(), next = now + LEASE_LOOK_MS;
    int64_t lease = (int64_t)atomic_load(v->world->lease);

    if (v->phase == RUNNING && now > lease)
        end_with_lease(v, lease);
    if (v->phase == RUNNING && v->start->time_s > 0) {
        int64_t until = v->began_ms + (int64_t)v->start->time_s * 1000;
        if (now >= until)
            end_run(v, STAR__JOB_END__END_TIME, "");
        else if (until < next)
            next = until;
    }
    if (v->phase == ENDING && now >= v->phase_until)
        kill_all(v);
    /* Its end is the kernel's to bring, which may have to wait for the mount, too. */
    if (v->phase == RUNNING && v->ended && v->told_all)
        wait_for_kernel(v);
    if (v->phase == KILLED && now >= v->phase_until)
        v->phase = OVER;
    if (v->has_output)
        stop_output_after_lease(v);
    if (v->phase != RUNNING && v->phase_until < next)
        next = v->phase_until;
    return next > now ? next - now : 0;
}

/* ---- what it tells, what it is told */

static void take_told(struct supervisor *v)
{
    struct run_told told;
    ssize_t n;

    while ((n = recv(v->control, &told, sizeof(told), MSG_DONTWAIT)) == (ssize_t)sizeof(told)) {
        told.text[sizeof(told.text) - 1] = 0;
        if (told.kind == RUN_TOLD_FAILED) {
            v->failed = true;
            snprintf(v->detail, sizeof(v->detail), "%s: %s", told.text, strerror(told.value));
        } else if (told.kind == RUN_TOLD_NOTE) {
            snprintf(v->detail, sizeof(v->detail), "%s", told.text);
        } else if (told.kind == RUN_TOLD_ENDED) {
            v->ended = true;
            v->status = told.value;
            v->cpu_us = told.cpu_us;
        }
    }
    v->told_all = v->told_all || n == 0;
}

/* init's end is the end of its process space: the kernel has ended all there before. */
static void reap(struct supervisor *v)
{
    int status;

    if (waitpid(v->child, &status, WNOHANG) == v->child) {
        v->child = 0;
        v->phase = OVER;
    }
}

static void take_signals(struct supervisor *v)
{
    struct signalfd_siginfo info;

    while (read(v->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        unsigned round = (unsigned)info.ssi_int >> 8;
        int number = info.ssi_int & 0xff;
        if (round != 0 && round != v->round)
            continue; /* for a run that was over by then */
        if (info.ssi_signo == SIGTERM || ((int)info.ssi_signo == RUN_SIGNAL && number == RUN_STOP))
            end_run(v, STAR__JOB_END__END_LEASE, "its node was stopped");
        else if ((int)info.ssi_signo == RUN_SIGNAL && number == RUN_CANCEL)
            end_asked(v);
        else if ((int)info.ssi_signo == RUN_SIGNAL)
            send_signal(v, number);
    }
}

static void watch(struct supervisor *v)
{
    while (v->phase != OVER) {
        int ms = (int)look_at_limits(v);
        bool copied = v->output.running;
        struct pollfd p[] = {{.fd = v->signals, .events = POLLIN},
                             {.fd = v->told_all ? -1 : v->control, .events = POLLIN},
                             {.fd = copied ? -1 : v->output.out.from, .events = POLLIN},
                             {.fd = copied ? -1 : v->output.err.from, .events = POLLIN}};
        if (v->phase == OVER || poll(p, 4, ms) < 0)
            continue;
        take_told(v);
        if (p[0].revents)
            take_signals(v);
        int rc = run_output_turn(&v->output);
        if (rc < 0 && v->phase == RUNNING) {
            end_run(v, STAR__JOB_END__END_FAILED, "no thread for what it writes");
        }
        reap(v);
    }
    take_told(v);
}

/* ---- the result */

/* false: its thread may hang at the mount. */
static bool wait_for_output(struct supervisor *v)
{
    int64_t until = clock_boot_ms() + OUTPUT_WAIT_MS;
    bool done = false;

    while (!done && clock_boot_ms() < until) {
        struct pollfd p = {.fd = v->output.done, .events = POLLIN};
        stop_output_after_lease(v);
        (void)run_output_turn(&v->output);
        done = run_output_is_done(&v->output);
        if (!done)
            poll(&p, 1, LEASE_LOOK_MS);
    }
    if (!done && v->why == STAR__JOB_END__END_NONE && !v->failed) {
        v->why = STAR__JOB_END__END_FAILED;
        snprintf(v->detail, sizeof(v->detail), "the cloud's mount has not taken what it wrote");
    } else if (done && v->output.running) {
        pthread_join(v->output.thread, NULL);
    }
    return done;
}

static void put_status(const struct supervisor *v, Star__JobRunReport *r)
{
    if (!v->ended) {
        r->end = STAR__JOB_END__END_SIGNAL;
        r->status = SIGKILL;
    } else if (WIFSIGNALED(v->status)) {
        r->end = STAR__JOB_END__END_SIGNAL;
        r->status = WTERMSIG(v->status);
    } else {
        r->end = STAR__JOB_END__END_EXIT;
        r->status = WEXITSTATUS(v->status);
    }
}

static void put_end(struct supervisor *v, const struct run_group_usage *used, Star__JobRunReport *r,
                    char bad[JOB_DETAIL_MAX])
{
    put_status(v, r);
    bool good = r->end == STAR__JOB_END__END_EXIT && r->status == 0;

    if (v->failed) {
        r->end = STAR__JOB_END__END_FAILED;
    } else if (v->why != STAR__JOB_END__END_NONE) {
        r->end = v->why;
    } else if (used->oom_kills > 0 && !good) {
        r->end = STAR__JOB_END__END_MEMORY;
    } else if (!v->ended) {
        r->end = STAR__JOB_END__END_FAILED;
        snprintf(v->detail, sizeof(v->detail), "its first process was ended from outside");
    } else if (bad[0] && good) {
        r->end = STAR__JOB_END__END_FAILED; /* it did well, and its output is not whole */
    }
    if (used->oom_kills > 0 && !v->detail[0])
        snprintf(v->detail, sizeof(v->detail),
                 good ? "a process of it was killed, as the memory was at an end"
                      : "out of memory");
    r->detail = v->detail[0] ? v->detail : bad;
}

static int write_result(struct supervisor *v)
{
    Star__JobRunReport r = STAR__JOB_RUN_REPORT__INIT;
    Star__JobRun run = STAR__JOB_RUN__INIT;
    Star__Time began = stamp_of(v->began), ended = stamp_of(clock_real());
    struct run_group_usage used;
    char bad[JOB_DETAIL_MAX] = "";

    run_cgroup_usage(&v->world->cgroups, v->name, &used);
    if (v->copied)
        run_output_detail(&v->output, bad, sizeof(bad));
    run = *v->start->run;
    r.run = &run;
    r.state = STAR__JOB_RUN_STATE__RUN_ENDED;
    put_end(v, &used, &r, bad);
    r.began = &began;
    r.ended = &ended;
    r.cpu_us = used.cpu_us > 0 ? used.cpu_us : v->cpu_us;
    r.memory_peak = used.memory_peak;
    if (v->copied) {
        r.digest.data = v->output.digest;
        r.digest.len = sizeof(v->output.digest);
        r.output_bytes = v->output.out.bytes;
        r.output_lost = v->output.out.lost + v->output.err.lost;
    }
    return run_folder_set_result(v->dir, &r);
}

static void remove_group(const struct supervisor *v)
{
    int rc = -EBUSY;

    for (int i = 0; rc == -EBUSY && i < REMOVE_TRIES; i++) {
        rc = run_cgroup_remove(&v->world->cgroups, v->name);
        if (rc == -EBUSY)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    if (rc < 0) /* the node tries again */
        log_warning("the control group of run %s: %s", v->name, strerror(-rc));
}

/* ---- life */

static int open_run(struct supervisor *v)
{
    v->dir = openat(v->world->jobs, v->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = v->dir < 0 ? -errno : run_folder_start(v->dir, &v->start);

    /* Read before: closing any descriptor of it would give up the lock. */
    if (rc == 0)
        v->lock = rc = run_folder_hold(v->dir);
    return rc < 0 ? rc : 0;
}

static void close_run(struct supervisor *v)
{
    if (v->has_output)
        run_output_free(&v->output);
    star__job_start__free_unpacked(v->start, NULL);
    close_all((const int[]){v->control, v->dir, v->lock}, 3);
}

static int take_signals_here(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, RUN_SIGNAL);
    run_output_signals();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

/* Asked for before its node, or all of the machine, stood still. */
static bool is_too_late(struct supervisor *v)
{
    if (clock_boot_ms() <= (int64_t)atomic_load(v->world->lease))
        return false;
    v->began = clock_real();
    v->why = STAR__JOB_END__END_LEASE;
    snprintf(v->detail, sizeof(v->detail), "its node had not heard the centre for too long");
    return true;
}

/* true: nothing of it is left here, and another run may follow. */
static bool go(struct supervisor *v)
{
    bool late = is_too_late(v), clean = !late && begin(v) == 0;

    if (clean)
        watch(v);
    v->failed = v->failed || !(clean || late);
    clean = clean && v->child == 0;
    if (v->has_output && v->phase == OVER)
        v->copied = wait_for_output(v);
    int rc = write_result(v);
    if (rc < 0) /* the node sees that there is none */
        log_error("the result of run %s: %s", v->name, strerror(-rc));
    return (late || (clean && v->copied)) && rc == 0;
}

/* The result is there. Nobody listens: nothing follows. */
static bool tell_over(const struct supervisor *v)
{
    struct run_over over = {.round = v->round, .again = 1};

    return send(v->world->channel, &over, sizeof(over), MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
}

/* true: the node may give another one. false: the process ends, which tells the node as well, and
 * takes with it what hangs at the mount. */
static bool supervise_one(struct run_world *w, int signals, unsigned round, const char *name)
{
    struct supervisor v = {.world = w,
                           .name = name,
                           .round = round,
                           .signals = signals,
                           .dir = -1,
                           .lock = -1,
                           .control = -1};
    int rc = open_run(&v);

    if (rc < 0) {
        /* Given up meanwhile, or somebody else has it: nothing of it has begun. */
        if (rc != -ESTALE && rc != -EBUSY)
            log_error("run %s: %s", name, strerror(-rc));
        return false;
    }
    bool again = go(&v);
    remove_group(&v);
    if (again)
        close_run(&v);
    return again && tell_over(&v);
}

static bool next_run(const struct run_world *w, char name[RUN_NAME_MAX])
{
    struct pollfd p = {.fd = w->channel, .events = POLLIN};
    struct run_key key;
    ssize_t n = poll(&p, 1, NEXT_WAIT_MS) > 0 ? recv(w->channel, name, RUN_NAME_MAX - 1, 0) : 0;

    name[n < 0 ? 0 : n] = 0;
    return run_key_parse(name, &key) == 0; /* not so without a node */
}

_Noreturn void run_supervise(struct run_world *w, const char *first)
{
    char name[RUN_NAME_MAX];
    unsigned round = 1;

    prctl(PR_SET_NAME, "umbel-run");
    setsid();
    snprintf(name, sizeof(name), "%s", first);
    int signals = take_signals_here();
    if (signals < 0)
        log_error("run %s: %s", name, strerror(-signals));
    while (signals >= 0 && supervise_one(w, signals, round, name) && next_run(w, name))
        round++;
    /* Should there be no node any more, which would have it open. */
    (void)run_cgroups_remove_node(&w->cgroups);
    _exit(0); /* a thread may hang at the mount */
}
