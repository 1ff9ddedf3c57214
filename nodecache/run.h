/*
 * Runs of jobs on this node: what JOB_START asks for is noted in STORE/jobs, started, watched, and
 * reported until the centre has it.
 *
 * Each run has a supervisor, a process of its own that outlives this one (run_private.h says how):
 * it confines the command, enforces its limits and the node's lease, and writes the result into the
 * run's folder. So a node that was killed finds everything again: runs_open() adopts what still
 * runs and reports what has ended meanwhile.
 *
 * Threads: any may call. One thread inside waits for the supervisors, one reports.
 */
#ifndef UMBEL_NODE_RUN_H
#define UMBEL_NODE_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "control/wire/star.pb-c.h"

#define RUN_DETAIL 256

struct runs;

struct runs_options {
    const char *store; /* STORE/jobs is made there */
    const char *mount; /* where the cloud is mounted on this machine */
    const char *exe;   /* the umbel program; NULL: this process's own */
    /* Sends a JobReport and waits for the answer; 0: *out is to be freed by us. Fails: it is sent
     * again. Called by the reporting thread. */
    int (*report)(void *ctx, const Star__JobReport *m, Star__JobReportReply **out);
    void *ctx;
};

/* What jobs of this node use now, all together. */
struct run_usage {
    uint64_t cpu_us; /* since the node's first job */
    uint64_t memory; /* bytes, files in the kernel's cache left out */
};

/* Finds what earlier processes have left, and starts. Nothing is reported before runs_connected().
 * -errno: this machine cannot run jobs; detail says why, for people. */
int runs_open(const struct runs_options *options, struct runs **out, char detail[RUN_DETAIL]);

/* A HELLO was answered: a report with `all` follows, and what was said before is said again. */
void runs_connected(struct runs *r);
/* The centre has answered what was asked at that time (clock_boot_ms()): the lease moves on, if it
 * knows what runs here. It gives up the runs of a node that does not say so. */
void runs_heard(struct runs *r, int64_t said_ms);

/* 0: it is on the disk and will be reported, whatever comes. Known already: 0. -EAGAIN: too many;
 * -EINVAL, -E2BIG: what is asked makes no sense; -ENOSPC and others of the disk. detail: why. */
int runs_job_start(struct runs *r, const Star__JobStart *m, char detail[RUN_DETAIL]);
/* A signal to all its processes, or its end (SIGTERM, JOB_GRACE_MS, SIGKILL). -ESRCH: there is no
 * such run, or it has ended. */
int runs_job_signal(struct runs *r, const Star__JobSignal *m, char detail[RUN_DETAIL]);

void runs_usage(struct runs *r, struct run_usage *out);
/* How many have not ended. */
unsigned runs_active(struct runs *r);

/* Ends all runs, as runs_close() does, and goes on. */
void runs_end(struct runs *r);

/* Supervisors that live, of a node's store, whether the node does or not; -errno. end: they are
 * asked to end their runs. */
int runs_held(const char *store, bool end);
/* Of a store whose node does not run: takes away the control groups that it has left on this
 * machine, but for those of runs that go on. */
void runs_sweep(const char *store);

/* end: all runs are ended first (at most JOB_GRACE_MS and some seconds), and their results stay for
 * the next process to report; else they go on until their lease is over. NULL: nothing. */
void runs_close(struct runs *r, bool end);

/* ---- the process that starts supervisors: `umbel supervise` */

struct run_spawner_options {
    int fd; /* the node's end of it is the other of a socket pair; its end is ours */
    const char *store, *mount;
};

/* Until the node is gone. What it starts goes on. Exit status. */
int run_spawner(const struct run_spawner_options *options);

#endif
