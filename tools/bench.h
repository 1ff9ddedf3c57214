/*
 * Measurements of `umbel bench`: each test is run by one or several processes in a folder of their
 * own (one folder is listed by all), which start together; its result is the sum of their work over
 * the time from the first start to the last end.
 */
#ifndef UMBEL_TOOLS_BENCH_H
#define UMBEL_TOOLS_BENCH_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_PROCESSES_MAX 64

struct bench_size {
    uint64_t file_bytes; /* of the large file, all processes together */
    /* Of the small files, all processes together: a filesystem that holds a descriptor for each
     * file that the kernel remembers (libfuse's passthrough_ll) has not many. */
    unsigned files;
    unsigned entries; /* in the folder that is listed */
    unsigned rounds;  /* of all tests; the median counts */
    int random_ms;    /* how long random I/O goes on */
};

/* What one process has to do, in its own folder. */
struct bench_job {
    char dir[PATH_MAX];
    unsigned number, processes;
    const struct bench_size *size;
    uint64_t seed;
    int archive; /* what is unpacked; -1: none */
};

struct bench_test {
    const char *name;
    bool by_bytes; /* MB/s, else operations per second */
    /* Untimed; may be NULL. 0 or -errno. */
    int (*prepare)(struct bench_job *job);
    /* Timed. *work: operations or bytes done. */
    int (*run)(struct bench_job *job, uint64_t *work);
};

/* In the order in which they must run: later ones use the files of earlier ones. The last has no
 * name. */
extern const struct bench_test bench_tests[];

/* Runs one test in dir/pN with so many processes. *rate: per second. -errno; then detail (256
 * bytes) says what. */
int bench_run(const struct bench_test *test, const char *dir, unsigned processes,
              const struct bench_size *size, double *rate, char *detail);

#endif
