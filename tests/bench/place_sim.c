/*
 * What control/job_place.h's choice of a node is worth: a cluster of different nodes and jobs like
 * those of published traces (place_trace.h), placed by it and by other rules. The queue is the
 * centre's own (control/job_queue.h), so only the choice differs.
 *
 *     place_sim [--nodes N] [--jobs N] [--seed N] [--load PERCENT]... [--svg FILE]
 *
 * Prints one line for each load and rule; the same seed gives the same lines. Load is how much of
 * the cluster the jobs that arrive need, of processors or memory, whichever is scarcer. A node
 * keeps the inputs that it has read, as a disk cache does; others come at 10 Gbit/s before the job
 * begins, while it holds its processors.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uthash.h>
#include <utlist.h>

#include "control/job_queue.h"
#include "place_sim.h"
#include "place_trace.h"

#define RATE        1250000.0    /* bytes in a millisecond: 10 Gbit/s */
#define CACHE_BYTES (1ull << 40) /* of a node, for inputs */

const char *const rule_names[RULES] = {"umbel", "random", "round robin", "first fit"};

struct job {
    struct job_queue_run run;
    double work; /* milliseconds on reference processors */
    uint64_t arrives, begins, ends;
    uint32_t file, node;
};

struct line_key {
    uint32_t file, node;
};

/* A file at a node. */
struct line {
    struct line_key key;
    UT_hash_handle hh;
    struct line *newer, *older;           /* at the node, by use: the head is the newest */
    struct line *file_before, *file_next; /* of the file: the head came last */
};

struct machine {
    struct trace_node is;
    struct line *lines;
    uint64_t cached;
};

struct file {
    uint64_t bytes;
    struct line *lines;
};

struct world {
    size_t nodes_n, jobs_n, files_n;
    struct machine *machines; /* node k + 1 is machines[k] */
    struct job *jobs;         /* job k + 1, by arrival */
    struct file *files;
    struct line *lines;
    struct job_queue *queue;
    uint32_t *ends, ends_n; /* heap of running jobs, the first to end first */
    enum rule rule;
    struct trace_random random;
    uint32_t last; /* node that round robin took last */
    double moved;
    uint64_t capacity; /* of what is scarcer */
    bool memory;       /* which is memory */
};

static void *must(void *memory)
{
    if (!memory) {
        fputs("place_sim: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* ---- the world */

/* In no order: the first nodes are not all of one kind. */
static void make_machines(struct world *w, struct trace_random *r)
{
    for (size_t n = 0; n < w->nodes_n; n++) {
        size_t k = trace_random(r) % (n + 1);
        w->machines[n].is = w->machines[k].is;
        w->machines[k].is = trace_node(n, w->nodes_n, r);
    }
}

static void make_files(struct world *w, struct trace_random *r)
{
    double *upto = must(calloc(w->files_n, sizeof(*upto))), all = 0;

    for (size_t n = 0; n < w->files_n; n++) {
        w->files[n].bytes = trace_file_size(r);
        all += pow((double)(n + 1), -TRACE_POPULARITY);
        upto[n] = all;
    }
    for (size_t n = 0; n < w->jobs_n; n++) {
        double u = trace_uniform(r) * all;
        size_t low = 0, high = w->files_n - 1;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (upto[middle] > u)
                high = middle;
            else
                low = middle + 1;
        }
        w->jobs[n].file = (uint32_t)low;
    }
    free(upto);
}

/* Arrivals so spread that what the jobs need is `load` of what the nodes have in that time. */
static void make_jobs(struct world *w, double load, struct trace_random *r)
{
    double *gaps = must(calloc(w->jobs_n, sizeof(*gaps)));
    double cpus = 0, memory = 0, milli_cpus_all = 0, memory_all = 0, all_gaps = 0, at = 0;

    for (size_t n = 0; n < w->nodes_n; n++) {
        milli_cpus_all += w->machines[n].is.milli_cpus;
        memory_all += (double)w->machines[n].is.memory;
    }
    for (size_t n = 0; n < w->jobs_n; n++) {
        struct trace_job t = trace_job(r);
        struct job *job = &w->jobs[n];
        job->run = (struct job_queue_run){.job = n + 1, .copy = 1, .copies = 1};
        job->run.need = (struct job_place_need){.milli_cpus = t.milli_cpus, .memory = t.memory};
        job->work = t.seconds * 1000;
        cpus += job->work * t.milli_cpus;
        memory += job->work * (double)t.memory;
        gaps[n] = t.gap;
        all_gaps += t.gap;
    }
    w->memory = memory / memory_all > cpus / milli_cpus_all;
    w->capacity = (uint64_t)(w->memory ? memory_all : milli_cpus_all);
    double scarcer = w->memory ? memory / memory_all : cpus / milli_cpus_all;
    for (size_t n = 0; n < w->jobs_n; n++) {
        at += gaps[n] / all_gaps * scarcer / load;
        w->jobs[n].arrives = w->jobs[n].run.since = (uint64_t)at;
    }
    free(gaps);
}

static void open_nodes(struct world *w)
{
    for (size_t n = 0; n < w->nodes_n; n++) {
        const struct trace_node *is = &w->machines[n].is;
        struct job_place_node node = {.id = (uint32_t)n + 1,
                                      .open = true,
                                      .core_speed = is->speed,
                                      .milli_cpus = is->milli_cpus,
                                      .memory = is->memory};
        if (job_queue_node(w->queue, &node) != 0)
            must(NULL);
    }
}

/* ---- the rules */

static const struct job_place_node *choose(void *context, const struct job_place_node *nodes,
                                           size_t n, const struct job_place_need *need,
                                           const struct job_place_held *held, size_t held_n)
{
    struct world *w = context;
    size_t k = 0;

    if (w->rule == RULE_UMBEL)
        return job_place_choose(nodes, n, need, held, held_n);
    if (w->rule == RULE_RANDOM) { /* the first of them behind a random one is not as random */
        do
            k = trace_random(&w->random) % n;
        while (!job_place_fits(&nodes[k], need));
        return &nodes[k];
    }
    if (w->rule == RULE_ROUND_ROBIN)
        k = w->last;
    while (!job_place_fits(&nodes[k % n], need)) /* some does: the queue has looked */
        k++;
    w->last = (uint32_t)(k % n + 1);
    return &nodes[k % n];
}

static size_t holders(void *context, uint64_t job, struct job_place_held *held, size_t most)
{
    const struct world *w = context;
    const struct file *file = &w->files[w->jobs[job - 1].file];
    size_t n = 0;

    for (const struct line *line = file->lines; line && n < most; line = line->file_next)
        held[n++] = (struct job_place_held){line->key.node, file->bytes};
    return n;
}

/* ---- what nodes keep */

static void drop(struct world *w, struct machine *m, struct line *line)
{
    m->cached -= w->files[line->key.file].bytes;
    DL_DELETE2(m->lines, line, newer, older);
    DL_DELETE2(w->files[line->key.file].lines, line, file_before, file_next);
    HASH_DEL(w->lines, line);
    free(line);
}

/* Returns how many bytes had to come. */
static uint64_t read_input(struct world *w, const struct job *job)
{
    struct machine *m = &w->machines[job->node - 1];
    struct line_key key = {job->file, job->node};
    uint64_t bytes = w->files[job->file].bytes;
    struct line *line;

    HASH_FIND(hh, w->lines, &key, sizeof(key), line);
    if (line) {
        DL_DELETE2(m->lines, line, newer, older);
        DL_PREPEND2(m->lines, line, newer, older);
        return 0;
    }
    while (m->lines && m->cached + bytes > CACHE_BYTES)
        drop(w, m, m->lines->newer); /* of a head, that is the last: the oldest */
    line = must(calloc(1, sizeof(*line)));
    line->key = key;
    HASH_ADD(hh, w->lines, key, sizeof(key), line);
    DL_PREPEND2(m->lines, line, newer, older);
    DL_PREPEND2(w->files[job->file].lines, line, file_before, file_next);
    m->cached += bytes;
    return bytes;
}

/* ---- what happens */

static bool sooner(const struct world *w, uint32_t a, uint32_t b)
{
    if (w->jobs[a].ends != w->jobs[b].ends)
        return w->jobs[a].ends < w->jobs[b].ends;
    return a < b;
}

static void ends_put(struct world *w, uint32_t job)
{
    uint32_t at = w->ends_n++;

    for (; at > 0 && sooner(w, job, w->ends[(at - 1) / 2]); at = (at - 1) / 2)
        w->ends[at] = w->ends[(at - 1) / 2];
    w->ends[at] = job;
}

static uint32_t ends_take(struct world *w)
{
    uint32_t first = w->ends[0], last = w->ends[--w->ends_n], at = 0, child;

    while ((child = 2 * at + 1) < w->ends_n) {
        child += child + 1 < w->ends_n && sooner(w, w->ends[child + 1], w->ends[child]);
        if (!sooner(w, w->ends[child], last))
            break;
        w->ends[at] = w->ends[child];
        at = child;
    }
    w->ends[at] = last;
    return first;
}

static void begin(struct world *w, const struct job_queue_placed *placed, uint64_t now)
{
    struct job *job = &w->jobs[placed->job - 1];

    job->node = placed->node;
    job->begins = now;
    double bytes = (double)read_input(w, job);
    w->moved += bytes;
    job->ends =
        now + (uint64_t)ceil(bytes / RATE + job->work * 1000 / w->machines[job->node - 1].is.speed);
    ends_put(w, (uint32_t)placed->job - 1);
}

static void simulate(struct world *w)
{
    struct job_queue_placed placed;
    size_t next = 0;

    while (next < w->jobs_n || w->ends_n > 0) {
        bool end = w->ends_n > 0 &&
                   (next == w->jobs_n || w->jobs[w->ends[0]].ends <= w->jobs[next].arrives);
        uint64_t now = end ? w->jobs[w->ends[0]].ends : w->jobs[next].arrives;
        if (end)
            job_queue_remove(w->queue, ends_take(w) + 1, 1);
        else if (job_queue_add(w->queue, &w->jobs[next++].run, NULL) != 0)
            must(NULL);
        while (job_queue_next(w->queue, now, &placed))
            begin(w, &placed, now);
    }
}

/* ---- what came of it */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static struct outcome outcome_of(const struct world *w, double load)
{
    struct outcome o = {.load = load, .rule = w->rule, .moved = w->moved};
    double *waits = must(calloc(w->jobs_n, sizeof(*waits))), used = 0;
    uint64_t window = w->jobs[w->jobs_n - 1].arrives, n = w->jobs_n;

    for (size_t k = 0; k < n; k++) {
        const struct job *job = &w->jobs[k];
        uint64_t until = job->ends < window ? job->ends : window;
        waits[k] = (double)(job->begins - job->arrives) / 1000;
        o.waited += waits[k] / (double)n;
        o.turnaround += (double)(job->ends - job->arrives) / 1000 / (double)n;
        if (job->begins < until)
            used += (double)(until - job->begins) *
                    (w->memory ? (double)job->run.need.memory : job->run.need.milli_cpus);
    }
    qsort(waits, n, sizeof(*waits), by_size);
    o.waited_99 = waits[n * 99 / 100];
    o.most = waits[n - 1];
    o.used = used / (double)window / (double)w->capacity;
    free(waits);
    return o;
}

static void free_world(struct world *w)
{
    for (size_t n = 0; n < w->nodes_n; n++)
        while (w->machines[n].lines)
            drop(w, &w->machines[n], w->machines[n].lines);
    job_queue_free(w->queue);
    free(w->machines);
    free(w->jobs);
    free(w->files);
    free(w->ends);
}

static struct outcome run(size_t nodes, size_t jobs, uint64_t seed, double load, enum rule rule)
{
    struct trace_random r = {seed}; /* the same nodes, jobs and files for all rules and loads */
    struct world w = {.nodes_n = nodes, .jobs_n = jobs, .rule = rule, .random = {seed + 1}};
    struct job_queue_rules rules = {holders, choose, &w};

    w.files_n = (size_t)((double)jobs * TRACE_FILES_PER_JOB) + 1;
    w.machines = must(calloc(nodes, sizeof(*w.machines)));
    w.jobs = must(calloc(jobs, sizeof(*w.jobs)));
    w.files = must(calloc(w.files_n, sizeof(*w.files)));
    w.ends = must(calloc(jobs, sizeof(*w.ends)));
    make_machines(&w, &r);
    make_jobs(&w, load, &r);
    make_files(&w, &r);
    if (job_queue_make(&w.queue, &rules) != 0)
        must(NULL);
    open_nodes(&w);
    clock_t began = clock();
    simulate(&w);
    struct outcome o = outcome_of(&w, load);
    fprintf(stderr, "%s at %.0f%%: %.1f us of processor time for each job\n", rule_names[rule],
            100 * load, (double)(clock() - began) / CLOCKS_PER_SEC * 1e6 / (double)jobs);
    free_world(&w);
    return o;
}

static void print(const struct outcome *o)
{
    printf("%4.0f%%  %-11s  %5.1f%%  %8.1f  %8.1f  %8.1f  %8.1f  %7.2f\n", 100 * o->load,
           rule_names[o->rule], 100 * o->used, o->waited, o->waited_99, o->most, o->turnaround,
           o->moved / 1e12);
}

struct options {
    size_t nodes, jobs, loads_n;
    uint64_t seed;
    double loads[LOADS_MAX];
    const char *svg;
};

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || n < least || n > most) {
        fprintf(stderr, "place_sim: '%s' is no number from %" PRIu64 " to %" PRIu64 "\n", text,
                least, most);
        exit(2);
    }
    return n;
}

static void parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"nodes", required_argument, NULL, 'n'}, {"jobs", required_argument, NULL, 'j'},
        {"seed", required_argument, NULL, 's'},  {"load", required_argument, NULL, 'l'},
        {"svg", required_argument, NULL, 'p'},   {0}};
    static const double loads[] = {0.5, 0.7, 0.9, 1.0, 1.1};
    int ch;

    *o = (struct options){.nodes = 1000, .jobs = 100000, .seed = 1};
    while ((ch = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (ch == 'n')
            o->nodes = number(optarg, 1, 100000);
        else if (ch == 'j')
            o->jobs = number(optarg, 1, 10000000);
        else if (ch == 's')
            o->seed = number(optarg, 0, UINT64_MAX - 1);
        else if (ch == 'l' && o->loads_n < LOADS_MAX)
            o->loads[o->loads_n++] = (double)number(optarg, 1, 1000) / 100;
        else if (ch == 'p')
            o->svg = optarg;
        else
            exit(2);
    }
    if (o->loads_n == 0) {
        o->loads_n = sizeof(loads) / sizeof(loads[0]);
        memcpy(o->loads, loads, sizeof(loads));
    }
}

int main(int argc, char **argv)
{
    struct outcome outcomes[LOADS_MAX][RULES];
    struct options o;
    char title[128];

    parse(argc, argv, &o);
    snprintf(title, sizeof(title), "%zu nodes, %zu jobs, seed %" PRIu64, o.nodes, o.jobs, o.seed);
    printf("%s\n\nload   rule         used    wait, s: mean     99%%      most  to end, s  moved, "
           "TB\n",
           title);
    for (size_t n = 0; n < o.loads_n; n++)
        for (enum rule rule = 0; rule < RULES; rule++) {
            outcomes[n][rule] = run(o.nodes, o.jobs, o.seed, o.loads[n], rule);
            print(&outcomes[n][rule]);
            fflush(stdout);
        }
    int rc =
        o.svg ? place_svg(o.svg, (const struct outcome(*)[RULES])outcomes, o.loads_n, title) : 0;
    if (rc != 0)
        fprintf(stderr, "place_sim: %s: %s\n", o.svg, strerror(-rc));
    return rc != 0 || ferror(stdout);
}
