/*
 * How a run goes, and what the files run*.c share.
 *
 *   node --socket--> spawner --fork--> supervisor --clone--> init --fork, exec--> command
 *
 * The spawner is a small process (`umbel supervise`) without threads: forking it costs little,
 * forking the node much. Each supervisor is a session of its own and outlives both. Its run has a
 * process space of its own; when init, the first process there, ends, the kernel ends all others,
 * and only then does the supervisor see its end. init dies with the supervisor: should that be
 * killed, its run is.
 *
 * A supervisor has one run at a time. When that is over it says so on its channel to the node, and
 * may be given another one there: a new address space costs more than all else that a short run
 * needs of it. Without a node at the channel's other end it ends with its run.
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
    int jobs;    /* STORE/jobs */
    int sandbox; /* the mount namespace that all runs have copies of */
    const char *mount_path;
    _Atomic uint64_t *lease;
    struct run_cgroups cgroups;
    int channel; /* in a supervisor: its end of it */
};

/* Between node and spawner, packets: the run's name; back, with the supervisor's pidfd and the
 * node's end of its channel (none if error is not 0). Before the first one a packet with an empty
 * name: whether runs can be started. */
struct run_spawned {
    int32_t error;
    char name[RUN_NAME_MAX];
    char detail[RUN_DETAIL];
};

/* On the channel: down, the name of the supervisor's next run; up, that its run is over. */
struct run_over {
    uint32_t round; /* which of its runs; the first one is 1 */
    uint32_t again; /* 1: it takes another one; 0: it ends */
};

/* Signals to a supervisor, with sigqueue's value: run_signal_value(). Of SIGTERM, which is a stop
 * of whatever it has, only one can be pending; of this one each is heard. */
#define RUN_SIGNAL SIGRTMIN
/* Beyond signals' numbers: the run's end, as it was asked for; as its node stops. */
#define RUN_CANCEL 0xfe
#define RUN_STOP   0xff

/* number: one of these, or the signal for the run. round: of which run; a supervisor that has gone
 * on to another one ignores it. 0: whichever it has. */
static inline int run_signal_value(unsigned round, int number)
{
    return (int)(round << 8) | number;
}

/* run_spawn.c. The node's control groups, named after STORE/jobs. */
int run_groups_open(int jobs, struct run_cgroups *out, char detail[RUN_DETAIL]);
/* Starts the spawner; the node's end of the socket, or -errno: no runs can be started; detail. */
int run_spawner_start(const char *exe, const char *store, const char *mount, pid_t *pid,
                      char detail[RUN_DETAIL]);
/* A supervisor's descriptors in the node; -1: none. */
struct run_spawned_fds {
    int pidfd, channel;
};
/* What the spawner has answered; the descriptors are the receiver's. -EAGAIN: nothing now. -EPIPE:
 * gone. */
int run_spawner_answer(int fd, struct run_spawned *out, struct run_spawned_fds *fds);
void run_spawned_close(const struct run_spawned_fds *fds);

/* run_supervise.c: in the forked child; name: its first run. */
_Noreturn void run_supervise(struct run_world *w, const char *name);

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

/* run_sandbox.c. Has bwrap build the sandbox. */
int run_sandbox_prepare(struct run_world *w, char detail[RUN_DETAIL]);
/* The caller's own copy of it, with the cloud. Fails: *what could not be had. */
int run_sandbox_enter(const struct run_world *w, const Star__JobStart *s, const char **what);

/* run_init.c: in the cloned child. */
struct run_pipes {
    int control; /* run_told packets go up; one byte each comes down: a signal for all of the run */
    int out, err; /* the ends to be written */
};
/* In the sandbox's own /tmp. */
#define RUN_SCRIPT "/tmp/.umbel-script"
_Noreturn void run_init(const struct run_world *w, const char *name, const Star__JobStart *s,
                        const struct run_pipes *p);
enum run_told_kind {
    RUN_TOLD_FAILED = 1, /* value: errno; text: what could not be done. The command did not start */
    RUN_TOLD_ENDED = 2,  /* value: the command's wait status */
    RUN_TOLD_NOTE = 3,   /* text: why there was nothing to execute; its end follows */
};
struct run_told {
    uint32_t kind;
    int32_t value;
    uint64_t cpu_us;
    char text[200];
};

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
    int stop; /* eventfd: readable when nothing more may be written */
};
/* Takes the pipes' ends; err may be -1. */
int run_output_init(struct run_output *o, const struct run_world *w, const Star__JobStart *s,
                    int out, int err);
/* After poll() on the pipes: an end is noted, with the first byte the thread starts. */
int run_output_turn(struct run_output *o);
/* Once in a process: how run_output_stop() reaches the thread. */
void run_output_signals(void);
/* Nothing more is written, but for what is at the mount by now, which begins no further try; what
 * is lost of it is an error. From time to time until it is done: a call may begin just then. */
void run_output_stop(struct run_output *o);
/* All has ended. false: the thread is not done yet. */
bool run_output_is_done(const struct run_output *o);
/* What went wrong, in people's words; empty: nothing. */
void run_output_detail(const struct run_output *o, char *out, size_t size);
/* It is done, and its thread, if there was one, joined. */
void run_output_free(struct run_output *o);

#endif
