/* Where the inputs of a job lie, by the cache table. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/jobs.h"

/* Nodes that are counted for one job; those that hold most of them are told. */
#define HELD_NODES 64
/* Names of a path: it is looked at for each job that is placed. */
#define PATH_NAMES 64

struct held {
    struct centre *c;
    const struct inode *file;
    bool home_known; /* the table has what the home holds */
    size_t n;
    struct job_place_held nodes[HELD_NODES];
};

struct job_spec_member jobs_member(const struct job *job, uint32_t k)
{
    return (struct job_spec_member){
        .job = job->id, .first = job->row->batch, .index = job->row->index, .copy = k + 1};
}

/* Links are not followed: who has one in the way loses the nearness, not the job. */
static bool find_file(struct centre *c, const char *path, struct inode *i)
{
    uint64_t at = STATE_ROOT_INO;
    unsigned names = 0;

    for (path += strspn(path, "/"); *path; path += strspn(path, "/")) {
        size_t n = strcspn(path, "/");
        if (++names > PATH_NAMES || state_lookup(c->state, at, path, n, i) < 0)
            return false;
        at = i->ino;
        path += n;
    }
    return names > 0 && S_ISREG(i->mode);
}

static void add(struct held *h, uint32_t node, uint64_t bytes)
{
    size_t k = 0;

    while (k < h->n && h->nodes[k].node != node)
        k++;
    if (bytes == 0 || k == HELD_NODES)
        return;
    if (k == h->n)
        h->nodes[h->n++] = (struct job_place_held){.node = node};
    h->nodes[k].bytes += bytes;
}

static bool add_line(void *arg, const struct state_copy_line *line)
{
    struct held *h = arg;

    if (line->version < h->file->version)
        return true; /* of an older content */
    h->home_known |= line->node == h->file->home;
    add(h, line->node, line->cached + line->staged);
    return true;
}

static void add_file(struct held *h, const char *path)
{
    struct inode i;

    if (!find_file(h->c, path, &i))
        return;
    h->file = &i;
    h->home_known = false;
    (void)state_copies(h->c->state, i.ino, 0, 0, add_line, h); /* an error of the state ends us */
    /* The home has what the pool has not, also before its next report. */
    if (i.home != 0 && !h->home_known && i.version > i.cut_version)
        add(h, i.home, i.size);
    h->file = NULL;
}

static int by_bytes(const void *a, const void *b)
{
    const struct job_place_held *x = a, *y = b;

    return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes)
                                : (x->node > y->node) - (x->node < y->node);
}

size_t jobs_held(void *context, uint64_t id, struct job_place_held *held, size_t most)
{
    struct held h = {.c = context};
    struct job *job = jobs_known(h.c, id);
    char file[JOB_SPEC_PATH_MAX + 1], path[JOB_SPEC_PATH_MAX + 1];

    if (!job || job_batch_spec(h.c, job->batch) < 0)
        return 0;
    const struct job_spec *spec = &job->batch->spec;
    const struct job_spec_member m = jobs_member(job, 0);
    for (size_t k = 0; k < spec->inputs_n; k++) {
        job_spec_file(spec->inputs[k], &m, file);
        if (job_spec_path(spec->workdir, file, path) == 0)
            add_file(&h, path);
    }
    if (h.n > 1)
        qsort(h.nodes, h.n, sizeof(h.nodes[0]), by_bytes);
    size_t n = h.n < most ? h.n : most;
    memcpy(held, h.nodes, n * sizeof(*held));
    return n;
}
