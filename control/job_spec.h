/*
 * What a user wants run: the text that is written into .umbel/jobs/new. Plain C without I/O.
 *
 *     # the nightly sums
 *     name = sums
 *     cpus = 2
 *     memory = 1G
 *     time = 30m
 *     array = 0-99
 *     command = ./sums --part $UMBEL_ARRAY_INDEX
 *
 * Lines `key = value`, comments `# ...`, blank lines. Behind a line `%%` the rest of the text is a
 * script, taken as it is. White space around keys and values is cut off; there is no quoting and no
 * line goes on in the next. Lines may end in CR LF; if that of `%%` does, those of the script
 * become LF. A key may be given once, but for `env`, `after` and `input`.
 *
 *     name         at most 64 printable characters (ASCII)
 *     command      for /bin/sh -c; with a script: is given the script's path as its last argument
 *     workdir      path in the cloud, from its root; default /
 *     cpus         1, 0.5, 2.25: 0.001 to 1024, default 1
 *     memory       512M, 2G, bytes without a unit: at least 4M, default 256M
 *     time         90, 30s, 10m, 2h, 1d: until it is ended; at most 30d, default 1d
 *     reliability  normal | high: high is copies = 3, or more if copies says so
 *     copies       1 to 7: so many nodes run it, and the majority's result counts
 *     after        42 57-99: numbers of jobs, of the same user, that must have ended well before
 *     retries      0 to 100, default 0
 *     env          NAME=VALUE; names that begin with UMBEL_ are Umbel's own
 *     input        a file's path in the cloud, from its root or from workdir. May be given up to 16
 *                  times: the first one is standard input, and all of them count for where the job
 *                  runs: where most of their bytes lie
 *     output, error   the same, once each: where standard output and error go
 *     node         a node's name: only there
 *     image        refused: there is nothing yet that could run it
 *     array        100 or 0-99: so many jobs, each with its UMBEL_ARRAY_INDEX
 *     priority     -1000 to 1000, default 0; higher ones first
 *
 * Paths have no component `..`: none leads out of the cloud (links are for who opens them to mind).
 * `output` and `error` may be the same file.
 *
 * In input, output and error a job's numbers can stand, as Slurm has it: %a the index in the array,
 * %j the job's number, %A that of the array's first job, %c the copy's number; %3a: with zeros, to
 * 3 digits (1 to 9); %% is a percent sign. An array must not write one file many times: each name
 * has %a or %j; those of copies have %c; and output and error must be told apart before the first
 * number or behind the last (x%a and x1%a are one file for jobs 11 and 1).
 */
#ifndef UMBEL_CONTROL_JOB_SPEC_H
#define UMBEL_CONTROL_JOB_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOB_SPEC_MAX          (1u << 20) /* bytes of the text */
#define JOB_SPEC_NAME_MAX     64
#define JOB_SPEC_PATH_MAX     4095 /* PATH_MAX without its NUL */
#define JOB_SPEC_CPUS_MIN     1    /* thousandths of a processor */
#define JOB_SPEC_CPUS_MAX     (1024u * 1000)
#define JOB_SPEC_MEMORY_MIN   (4ull << 20) /* less does not even start a shell in its cgroup */
#define JOB_SPEC_MEMORY_MAX   (1ull << 50)
#define JOB_SPEC_TIME_MAX     (30u * 24 * 3600)
#define JOB_SPEC_COPIES_MAX   7
#define JOB_SPEC_COPIES_HIGH  3
#define JOB_SPEC_RETRIES_MAX  100
#define JOB_SPEC_PRIORITY_MAX 1000
#define JOB_SPEC_ENV_MAX      1000 /* variables */
#define JOB_SPEC_ARG_MAX                                                                           \
    (131072 - 100) /* of a command or variable: the kernel's MAX_ARG_STRLEN, a little left */
#define JOB_SPEC_AFTER_MAX  1000   /* ranges */
#define JOB_SPEC_AFTER_JOBS 100000 /* jobs in them: as many as may be queued by default */
#define JOB_SPEC_ARRAY_MAX  100000 /* jobs: as many as may be queued by default */
#define JOB_SPEC_INDEX_MAX  999999999u
#define JOB_SPEC_INPUTS_MAX 16  /* each is looked up when the job is placed */
#define JOB_SPEC_WHY        256 /* a reason's line, with its NUL */

struct job_range {
    uint64_t first, last; /* both in it */
    unsigned line;        /* that says `last` */
};

struct job_spec {
    /* Never NULL; empty if not given (but workdir is "/" then). */
    const char *name, *command, *workdir, *input, *output, *error, *node;
    const char *inputs[JOB_SPEC_INPUTS_MAX]; /* all, `input` first */
    size_t inputs_n;
    const char *script; /* NUL behind its last byte; empty: there is none */
    size_t script_len;
    const char *const *env; /* "NAME=VALUE", no NAME twice */
    size_t env_n;
    const struct job_range *after; /* ascending, none touches another */
    size_t after_n;
    uint64_t memory;     /* bytes */
    uint32_t milli_cpus; /* thousandths of a processor */
    uint32_t time_s;     /* seconds, never 0 */
    uint32_t copies;     /* 1 to JOB_SPEC_COPIES_MAX */
    uint32_t retries;
    int32_t priority;
    bool array;
    uint32_t array_first, array_last; /* 0, 0 if it is no array */
    void *own;                        /* what the above lies in */
};

/*
 * Reads a spec; `text` is not kept. 0, and job_spec_free() is the caller's; else `spec` holds
 * nothing, `why` is one line without its end ("line 3: unknown key 'cpu': did you mean 'cpus'?",
 * printable whatever was in the text), and the result is
 *     -EFBIG       the text is longer than JOB_SPEC_MAX
 *     -EINVAL      it says nothing that could be run
 *     -EOPNOTSUPP  it wants what is not available yet (image)
 *     -ENOMEM
 */
int job_spec_parse(const void *text, size_t len, struct job_spec *spec, char why[JOB_SPEC_WHY]);
void job_spec_free(struct job_spec *spec);

/* Which of a spec's jobs. */
struct job_spec_member {
    uint64_t job, first; /* its number, and that of the array's first */
    uint32_t index, copy;
};
/* `path` (input, output, error) with the job's numbers. */
void job_spec_file(const char *path, const struct job_spec_member *m,
                   char out[JOB_SPEC_PATH_MAX + 1]);
/* From the cloud's root, without `.` and doubled slashes. -ENAMETOOLONG */
int job_spec_path(const char *workdir, const char *path, char out[JOB_SPEC_PATH_MAX + 1]);

/* How many jobs the spec makes: 1, or those of the array. */
uint32_t job_spec_jobs(const struct job_spec *spec);

/* `after` may only name jobs that exist, so there are no cycles: -EINVAL and why, if one of them
 * has the number `next` (which the spec's first job would get) or a higher one. */
int job_spec_check_after(const struct job_spec *spec, uint64_t next, char why[JOB_SPEC_WHY]);

#endif
