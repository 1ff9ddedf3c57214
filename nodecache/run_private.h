/*
 * How a run goes, and what the files run*.c share.
 *
 *   node --socket--> spawner --fork--> supervisor --fork, exec--> bwrap --clone--> init --fork-->
 * command
 *
 * The spawner is a small process (`umbel supervise`) without threads: forking it costs little,
 * forking the node much. Each supervisor is a session of its own and outlives both. It is the
 * subreaper of its run, so that "no child is left" is the end of all of it; the run has a process
 * space of its own whose first process is init (runinit/), and dies with it; bwrap and so init die
 * with the supervisor. Should a supervisor be killed, its run is.
 */
#ifndef UMBEL_NODE_RUN_PRIVATE_H
#define UMBEL_NODE_RUN_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "control/wire/job_run.h"
#include "nodecache/run.h"
#include "nodecache/run_cgroup.h"
#include "nodecache/run_folder.h"

/* What the spawner has ready for all supervisors, and they use after the fork. */
struct run_world {
    int jobs;     /* STORE/jobs */
    int init_exe; /* the program of runinit/ */
    const char *mount_path;
    _Atomic uint64_t *lease;
    struct run_cgroups cgroups;
    char **sandbox; /* the arguments of bwrap that all runs have */
    size_t n_sandbox;
};

/* Between node and spawner, packets: the run's name; back, with the supervisor's pidfd (none if
 * error is not 0). */
struct run_spawned {
    int32_t error;
    char name[RUN_NAME_MAX];
};

/* Descriptors below are given away by number in the sandbox: standard ones, and those of init. */
#define RUN_FDS_FIXED 10

/* Signals to a supervisor, with sigqueue's value: a signal's number for the run, 0: its end. */
#define RUN_SIGNAL SIGRTMIN
/* SIGTERM to it is the end as well, with the node's own reason: the node stops. */

/* run_spawn.c. The node's control groups, named after STORE/jobs. */
int run_groups_open(int jobs, struct run_cgroups *out, char detail[RUN_DETAIL]);
/* Starts the spawner; the node's end of the socket, or -errno. */
int run_spawner_start(const char *exe, const char *store, const char *mount, pid_t *pid);
/* What the spawner has answered; *pidfd is the receiver's. -EAGAIN: nothing now. -EPIPE: gone. */
int run_spawner_answer(int fd, struct run_spawned *out, int *pidfd);

/* run_supervise.c: in the forked child. Exit status. */
int run_supervise(struct run_world *w, const char *name);

/* run_command.c: pure. argv of the command in list (at most max, NULL behind), its strings in text;
 * -E2BIG. A command of plain words needs no shell. */
struct run_argv {
    char *text;  /* freed by free() */
    char **argv; /* the same */
    unsigned n;
};
int run_command_words(const char *command, bool script, const uint8_t *script_text,
                      size_t script_size, struct run_argv *out);
void run_argv_free(struct run_argv *a);

/* run_sandbox.c */
int run_sandbox_prepare(struct run_world *w, char detail[RUN_DETAIL]);
/* The block for init; a descriptor, or -errno. */
int run_sandbox_block(const struct run_world *w, const Star__JobStart *s);
struct run_pipes {
    int control; /* init's end */
    int block;
    int out, err; /* the ends to be written */
};
/* In the forked child: goes into the group and becomes bwrap; returns only if it cannot. */
int run_sandbox_enter(const struct run_world *w, const char *name, const Star__JobStart *s,
                      const struct run_pipes *p);

/* run_output.c: copies what the run writes. A thread of its own from the first byte on, so that a
 * mount that hangs does not keep the supervisor from looking at the lease. */
struct run_stream {
    int from;      /* the pipe; -1: at its end */
    char *path;    /* below the mount; NULL: nowhere */
    bool truncate; /* nobody else has emptied it */
    int to;        /* -1: not opened yet */
    uint64_t bytes, lost;
    int error; /* the first one, -errno; nothing is copied after it */
};
struct run_output {
    const struct run_world *world;
    const Star__JobStart *start;
    struct run_stream out, err;
    uint8_t digest[16]; /* of all of stdout, what was too much included */
    pthread_t thread;
    bool running;
    int done; /* eventfd: readable when all is copied */
};
/* Takes the pipes' ends; err may be -1. */
int run_output_init(struct run_output *o, const struct run_world *w, const Star__JobStart *s,
                    int out, int err);
/* After poll() on the pipes: an end is noted, with the first byte the thread starts. */
int run_output_turn(struct run_output *o);
/* All has ended. false: the thread is not done yet. */
bool run_output_is_done(const struct run_output *o);
/* What went wrong, in people's words; empty: nothing. */
void run_output_detail(const struct run_output *o, char *out, size_t size);

#endif
