/*
 * Runs of jobs: what the centre and the nodes must agree on beyond the messages (star.proto, JobRun
 * and after it).
 *
 * A run that the centre starts again elsewhere, as it has lost the node, must not be there twice.
 * So a run ends by itself when its node has not heard the centre for JOB_LEASE_MS: its supervisor
 * looks at the lease that the node keeps (CLOCK_BOOTTIME), also while the node is frozen or dead.
 * The centre starts it again JOB_RERUN_MS after the time when it answered that node last.
 *
 * SIGKILL ends a process when it leaves the kernel. One that is in a call to the cloud's mount (its
 * file's node is frozen, say) executes nothing of its program any more, but it is there, and its
 * write may still land, until the mount has answered. For who was killed the mount begins no
 * further try, and none takes longer than JOB_STUCK_MS: so long is waited, too, before such a run
 * counts as ended. Only under a mount that is frozen itself does one stay longer; that mount's
 * session is over by then, and what it wakes up with is refused (fs: fencing).
 */
#ifndef UMBEL_WIRE_JOB_RUN_H
#define UMBEL_WIRE_JOB_RUN_H

/* Longer than a centre takes to start again, so that its restart ends nobody's work; short beside
 * the jobs for which it matters that a dead node's are run again. */
#define JOB_LEASE_MS 30000
/* Between SIGTERM and SIGKILL. */
#define JOB_GRACE_MS 5000
/* A try of a request to the mount: fs/worker.h, DATA_DEADLINE_MS and METADATA_DEADLINE_MS. */
#define JOB_STUCK_MS 60000
/* For SIGKILL to have ended all other processes, and clocks that do not run alike. */
#define JOB_MARGIN_MS 2000
#define JOB_RERUN_MS  (JOB_LEASE_MS + JOB_GRACE_MS + JOB_STUCK_MS + JOB_MARGIN_MS)

/* What a node has at once, ended ones that are not yet `done` included: -EAGAIN to JOB_START
 * beyond. All of them fit into one JOB_REPORT. */
#define JOB_RUNS_MAX 4096
/* Bytes of JobRunReport.detail. */
#define JOB_DETAIL_MAX 256

#endif
