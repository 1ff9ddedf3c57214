/*
 * Jobs on this node: its runs (run.h), and what it can still do for more of them (power.h). Where
 * the cloud is not mounted on this machine, or control groups cannot be made, it says why and
 * refuses; what is missing is looked for each second, so that a mount may come later than the node.
 *
 * Threads: any may call. One thread inside measures and looks.
 */
#ifndef UMBEL_NODE_JOBS_H
#define UMBEL_NODE_JOBS_H

#include "nodecache/run.h"

struct jobs;

struct jobs_options {
    const char *store;
    const char *mount; /* where the cloud is mounted here; NULL: nowhere, so no jobs */
    const char *exe;   /* as in runs_options */
    int (*report)(void *ctx, const Star__JobReport *m, Star__JobReportReply **out);
    void *ctx;
};

int jobs_open(const struct jobs_options *options, struct jobs **out);

/* See run.h. -EOPNOTSUPP: this node runs none; -EAGAIN: not now; detail: why. j may be NULL in
 * these two. */
int jobs_start(struct jobs *j, const Star__JobStart *m, char detail[RUN_DETAIL]);
int jobs_signal(struct jobs *j, const Star__JobSignal *m, char detail[RUN_DETAIL]);
void jobs_connected(struct jobs *j);
void jobs_heard(struct jobs *j, int64_t said_ms);

/* As measured in the last second; out->detail is why[]. */
void jobs_power(struct jobs *j, Star__NodePower *out, char why[RUN_DETAIL]);

/* Ends all runs, and takes none for so long: the cloud's mount is about to go. */
void jobs_pause(struct jobs *j, int ms);
/* Before the link goes: ends all runs, whose results stay for the next process to report. */
void jobs_stop(struct jobs *j);
void jobs_close(struct jobs *j);

#endif
