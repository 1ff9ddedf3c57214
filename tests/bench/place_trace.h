/*
 * What a cluster's jobs are like, for place_sim: drawn from the distributions of two published
 * traces, not made up. The figures are counts and quantiles of their files.
 *
 * Nodes, needs, running times, times between arrivals: Alibaba's cluster-trace-gpu-v2023
 * (github.com/alibaba/clusterdata; Weng et al., "Beware of Fragmentation", USENIX ATC 2023),
 * openb_node_list_all_node.csv (1,523 nodes) and openb_pod_list_default.csv (8,152 tasks). Needs
 * are processors and memory of all tasks, each of the rarest counted as the nearest of the 42 most
 * common and largest ones. Running times are those of tasks with about as many processors, without
 * the 5% longest (services, up to 145 days). GPUs are left out.
 *
 * Inputs: Facebook's jobs of 2010 in SWIM (github.com/SWIMProjectUCB/SWIM; Chen, Alspaugh, Katz,
 * "Interactive Analytical Processing in Big Data Systems", VLDB 2012),
 * FB-2010_samples_24_times_1hr_withInputPaths_0.tsv: 25,428 jobs read 17,158 files; the n-th most
 * read is read about n^-0.79 times as often as the first; sizes without the 5% largest (beyond
 * 112 GB), which are read by many machines at a time.
 *
 * Not in the traces, hence assumed: speeds of processors (0.8, 1 or 1.25 of the reference), and
 * that files and jobs have nothing to do with each other.
 */
#ifndef UMBEL_TESTS_BENCH_PLACE_TRACE_H
#define UMBEL_TESTS_BENCH_PLACE_TRACE_H

#include <stddef.h>
#include <stdint.h>

struct trace_random {
    uint64_t state;
};
uint64_t trace_random(struct trace_random *r);
double trace_uniform(struct trace_random *r); /* [0, 1) */

struct trace_node {
    uint32_t milli_cpus;
    uint64_t memory;
    uint32_t speed; /* thousandths of the reference processor */
};
/* Node k of n: the same shares of kinds for any n. */
struct trace_node trace_node(size_t k, size_t n, struct trace_random *r);

struct trace_job {
    uint32_t milli_cpus;
    uint64_t memory;
    double seconds; /* on reference processors */
    double gap;     /* since the job before, in mean gaps */
};
struct trace_job trace_job(struct trace_random *r);

#define TRACE_FILES_PER_JOB (17158.0 / 25428)
#define TRACE_POPULARITY    0.79
uint64_t trace_file_size(struct trace_random *r);

#endif
