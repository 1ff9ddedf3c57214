/*
 * The first process of a run's own process space, in the sandbox: a small static program of which
 * the umbel binary holds a copy (so that a run costs no dynamic linking). It becomes the submitter
 * for the command that it starts, hands signals on, and tells the supervisor the true end of it,
 * which bubblewrap would make a shell's number of.
 *
 * It finds the control socket, the block and itself at fixed descriptors. The block comes from the
 * supervisor: the head, n_groups numbers, then strings, each with its NUL: workdir, input, output,
 * error (empty: none), n_env of the environment, n_argv of the command; then the script's bytes.
 */
#ifndef UMBEL_RUN_INIT_H
#define UMBEL_RUN_INIT_H

#include <stdint.h>

enum { RUN_INIT_CONTROL = 3, RUN_INIT_BLOCK = 4, RUN_INIT_EXE = 5 };

#define RUN_INIT_MAGIC 0x494e5552u
/* In the sandbox's own /tmp. */
#define RUN_INIT_SCRIPT "/tmp/.umbel-script"

struct run_init_head {
    uint32_t magic;
    uint32_t uid, gid, umask;
    uint32_t n_groups, n_env, n_argv;
    uint32_t script; /* bytes; 0: none */
};

enum run_init_kind {
    RUN_INIT_FAILED = 1, /* value: errno; text: what could not be done. The command did not start */
    RUN_INIT_ENDED = 2,  /* value: the command's wait status */
    RUN_INIT_NOTE = 3,   /* text: why there was nothing to execute; its end follows */
};

/* A packet from it. What goes to it is one byte: a signal for all processes of the run. */
struct run_init_told {
    uint32_t kind;
    int32_t value;
    uint64_t cpu_us;
    char text[200];
};

#endif
