/* Jobs on their way to nodes, and what nodes are told of them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/jobs.h"
#include "control/wire/clock.h"
#include "control/wire/job_run.h"

/* --- waiting --- */

static struct job_queue_run run_of(const struct job *job, uint32_t copy)
{
    const Star__Job *row = job->row;

    return (struct job_queue_run){
        .job = job->id,
        .copy = copy,
        .priority = row->priority,
        .need = {.milli_cpus = row->milli_cpus, .memory = row->memory, .node = row->node},
        .copies = (uint32_t)row->n_copies,
        .since = (uint64_t)clock_boot_ms()};
}

static void enqueue_copy(struct centre *c, struct job *job, uint32_t k)
{
    const Star__JobCopy *copy = job->row->copies[k];
    struct job_queue_run run = run_of(job, k + 1);
    uint32_t nodes[JOB_SPEC_COPIES_MAX] = {0};
    int rc;

    if (job->copies[k].queued || job_copy_ended(copy))
        return;
    for (uint32_t m = 0; m < job->row->n_copies; m++)
        nodes[m] = m != k && job->row->copies[m]->placed ? job->row->copies[m]->node : 0;
    if (copy->placed)
        rc = job_queue_add_placed(c->jobs->queue, &run, copy->node);
    else
        rc = job_queue_add(c->jobs->queue, &run, job->row->n_copies > 1 ? nodes : NULL);
    job->copies[k].queued = rc == 0;
    if (rc == 0 && copy->placed)
        rc = jobs_site_add(c, job, k);
    if (rc < 0)
        jobs_copy_gone(c, job, k, STAR__JOB_END__END_FAILED, "it could not be queued");
}

void jobs_enqueue(struct centre *c, struct job *job)
{
    for (uint32_t k = 0; k < job->row->n_copies && !job->over; k++)
        enqueue_copy(c, job, k);
    c->jobs->place = true;
}

static void set_state(struct centre *c, struct job *job, Star__JobState state)
{
    if (job->row->state == STAR__JOB_STATE__JOB_PENDING)
        c->jobs->pending--;
    job->row->state = state;
}

static void count_wait(struct jobs *j, uint64_t ms)
{
    size_t k = 0;

    while (k < JOBS_WAIT_BOUNDS && ms > jobs_wait_bounds[k])
        k++;
    j->waited[k]++;
    j->waited_ms += ms;
    j->count.placed++;
}

static void place_one(struct centre *c, const struct job_queue_placed *p, uint64_t now)
{
    struct job *job = jobs_known(c, p->job);

    if (!job || job->over) {
        job_queue_remove(c->jobs->queue, p->job, p->copy);
        return;
    }
    Star__JobCopy *copy = job->row->copies[p->copy - 1];
    struct job_copy *mine = &job->copies[p->copy - 1];
    copy->placed = true;
    copy->node = p->node;
    copy->attempt = ++job->row->attempt;
    copy->state = STAR__JOB_RUN_STATE__RUN_NONE;
    mine->started = mine->sending = false;
    mine->ready = READY_NEXT;
    if (job->row->state == STAR__JOB_STATE__JOB_PENDING)
        set_state(c, job, STAR__JOB_STATE__JOB_STARTING);
    count_wait(c->jobs, now - p->since);
    jobs_dirty(c, job);
    if (jobs_site_add(c, job, p->copy - 1) < 0)
        jobs_copy_gone(c, job, p->copy - 1, STAR__JOB_END__END_FAILED, "no memory to follow it");
}

void jobs_place(struct centre *c)
{
    struct job_queue_placed p;
    uint64_t now = (uint64_t)clock_boot_ms();

    for (unsigned n = 0; n < JOBS_PLACE_MAX; n++) {
        if (!job_queue_next(c->jobs->queue, now, &p)) {
            c->jobs->place = false;
            return;
        }
        place_one(c, &p, now);
    }
}

/* --- JOB_START --- */

struct told {
    struct centre *c;
    uint64_t job;
    uint32_t copy, attempt;
};

static struct told *told_new(struct centre *c, const struct job *job, uint32_t k)
{
    struct told *t = malloc(sizeof(*t));

    if (t)
        *t = (struct told){
            .c = c, .job = job->id, .copy = k, .attempt = job->row->copies[k]->attempt};
    return t;
}

static struct job *told_job(const struct told *t)
{
    struct job *job = t->c->jobs ? jobs_known(t->c, t->job) : NULL;

    return job && !job->over && job->row->copies[t->copy]->attempt == t->attempt ? job : NULL;
}

/* The connection is what failed: the node says with its next one what it has. */
static bool is_unheard(int status)
{
    return status == -ETIMEDOUT || status == -ECONNRESET || status == -ENOTCONN;
}

static void on_refused_start(struct centre *c, struct job *job, uint32_t k,
                             const struct message *reply)
{
    Star__ErrorReply *e = (Star__ErrorReply *)frame_unpack(reply, &star__error_reply__descriptor);
    struct node *n = node_find(c, job->row->copies[k]->node);
    char why[JOB_SPEC_WHY];

    snprintf(why, sizeof(why), "node %s did not take it: %.160s", n ? n->name : "?",
             e && e->detail[0] ? e->detail : strerror(-reply->status));
    if (e)
        star__error_reply__free_unpacked(e, NULL);
    /* What passes by waiting is EAGAIN: the tick tries again. */
    if (reply->status != -EAGAIN || ++job->copies[k].refused >= JOBS_START_TRIES)
        jobs_copy_gone(c, job, k, STAR__JOB_END__END_FAILED, why);
}

static void on_started(void *arg, const struct message *reply)
{
    struct told *t = arg;
    struct job *job = told_job(t);

    if (job) {
        job->copies[t->copy].sending = false;
        if (reply->status >= 0)
            job->copies[t->copy].started = true;
        else if (!is_unheard(reply->status) &&
                 job->row->copies[t->copy]->state == STAR__JOB_RUN_STATE__RUN_NONE)
            on_refused_start(t->c, job, t->copy, reply);
    }
    free(t);
}

static char *own_file(char *to, size_t size, const struct job *job, const char *name, uint32_t k)
{
    if (job->row->n_copies == 1)
        snprintf(to, size, ".umbel/jobs/%" PRIu64 "/%s", job->id, name);
    else
        snprintf(to, size, ".umbel/jobs/%" PRIu64 "/%s.%u", job->id, name, k + 1);
    return to;
}

/* A file's name with the job's numbers, in buf; empty: it is not given. */
static char *own_name(const struct job *job, uint32_t k, const char *name,
                      char buf[JOB_SPEC_PATH_MAX + 1])
{
    const struct job_spec_member m = jobs_member(job, k);

    job_spec_file(name, &m, buf);
    return buf;
}

static int send_start(struct centre *c, struct node *n, struct job *job, uint32_t k)
{
    char input[JOB_SPEC_PATH_MAX + 1], output[JOB_SPEC_PATH_MAX + 1], error[JOB_SPEC_PATH_MAX + 1];
    const struct job_spec *spec = &job->batch->spec;
    Star__JobStart body = STAR__JOB_START__INIT;
    Star__JobRun run = STAR__JOB_RUN__INIT;
    char out[64], err[64], index[40];
    size_t env_n = spec->env_n;
    char **env = malloc((env_n + 1) * sizeof(*env));
    struct told *t = env ? told_new(c, job, k) : NULL;
    int rc = t ? 0 : -ENOMEM;

    if (rc < 0)
        goto out;
    for (size_t m = 0; m < env_n; m++)
        env[m] = (char *)(uintptr_t)spec->env[m];
    snprintf(index, sizeof(index), "UMBEL_ARRAY_INDEX=%u", job->row->index);
    if (job->row->array)
        env[env_n++] = index;
    run.job = job->id;
    run.copy = k + 1;
    run.attempt = job->row->copies[k]->attempt;
    body.run = &run;
    body.name = (char *)(uintptr_t)spec->name;
    body.cred = job->row->cred;
    body.command = (char *)(uintptr_t)spec->command;
    body.script.data = (uint8_t *)(uintptr_t)spec->script;
    body.script.len = spec->script_len;
    body.workdir = (char *)(uintptr_t)spec->workdir;
    body.n_env = env_n;
    body.env = env;
    body.input = own_name(job, k, spec->input, input);
    body.output = own_name(job, k, spec->output, output);
    body.error = own_name(job, k, spec->error, error);
    body.own_output = own_file(out, sizeof(out), job, "stdout", k);
    body.own_error = own_file(err, sizeof(err), job, "stderr", k);
    body.milli_cpus = spec->milli_cpus;
    body.memory = spec->memory;
    body.time_s = spec->time_s;
    body.output_max = setting_u64(c, "job_output_max");
    body.pids_max = (uint32_t)setting_u64(c, "job_pids_max");
    rc = peer_request(n->peer, STAR__MSG_TYPE__JOB_START, &body.base, JOBS_NODE_DEADLINE_MS,
                      on_started, t);
    if (rc < 0)
        free(t);
out:
    free(env);
    return rc;
}

void jobs_start_copy(struct centre *c, struct job *job, uint32_t k)
{
    struct node *n = node_find(c, job->row->copies[k]->node);
    struct job_copy *mine = &job->copies[k];

    mine->ready = 0;
    if (!n || !n->peer || mine->sending || mine->started)
        return; /* when it is back */
    int rc = job_batch_spec(c, job->batch);
    if (rc < 0) {
        jobs_copy_gone(c, job, k, STAR__JOB_END__END_FAILED, "its spec cannot be read");
        return;
    }
    rc = send_start(c, n, job, k);
    mine->sending = rc == 0; /* else the tick tries again */
    mine->hello = n->hellos;
}

void jobs_start_ready(struct centre *c, struct job *job, uint64_t change)
{
    for (uint32_t k = 0; k < job->row->n_copies && !job->over; k++)
        if (job->copies[k].ready && job->copies[k].ready <= change)
            jobs_start_copy(c, job, k);
}

/* --- signals, ends --- */

static void on_told(void *arg, const struct message *reply)
{
    struct told *t = arg;
    struct job *job = told_job(t);

    /* There is no such run, nor will there be: its start was answered before, or never sent. */
    if (job && reply->status == -ESRCH && job->row->state == STAR__JOB_STATE__JOB_ENDING &&
        !job_copy_ended(job->row->copies[t->copy]) && !job->copies[t->copy].sending &&
        !job->copies[t->copy].started)
        jobs_copy_gone(t->c, job, t->copy, STAR__JOB_END__END_CANCELLED, "");
    free(t);
}

static int tell(struct centre *c, struct job *job, uint32_t k, int number, const char *why)
{
    struct node *n = node_find(c, job->row->copies[k]->node);
    Star__JobSignal body = STAR__JOB_SIGNAL__INIT;
    Star__JobRun run = STAR__JOB_RUN__INIT;
    struct told *t;

    if (!job->row->copies[k]->placed || job_copy_ended(job->row->copies[k]))
        return -ESRCH;
    if (!n || !n->peer)
        return -EAGAIN;
    t = told_new(c, job, k);
    if (!t)
        return -ENOMEM;
    run.job = job->id;
    run.copy = k + 1;
    run.attempt = job->row->copies[k]->attempt;
    body.run = &run;
    body.signal = number;
    body.end = number == 0;
    body.why = (char *)(uintptr_t)why;
    int rc = peer_request(n->peer, STAR__MSG_TYPE__JOB_SIGNAL, &body.base, JOBS_NODE_DEADLINE_MS,
                          on_told, t);
    if (rc < 0)
        free(t);
    return rc;
}

void jobs_tell_all_to_end(struct centre *c, struct job *job, const char *why)
{
    job->told_ms = c->now;
    for (uint32_t k = 0; k < job->row->n_copies && !job->over; k++) {
        Star__JobCopy *copy = job->row->copies[k];
        if (job_copy_ended(copy))
            continue;
        if (!copy->placed || job->copies[k].ready)
            jobs_copy_gone(c, job, k, STAR__JOB_END__END_CANCELLED, "");
        else
            (void)tell(c, job, k, 0, why); /* the tick goes on */
    }
}

void jobs_cancel(struct centre *c, struct job *job, const char *why)
{
    if (job->over || job->row->cancel)
        return;
    job->row->cancel = true;
    jobs_set_why(job, "%s", why);
    if (job->row->state == STAR__JOB_STATE__JOB_PENDING) {
        jobs_over(c, job, STAR__JOB_STATE__JOB_CANCELLED);
        return;
    }
    set_state(c, job, STAR__JOB_STATE__JOB_ENDING);
    jobs_dirty(c, job);
    jobs_tell_all_to_end(c, job, why);
}

int jobs_send_signal(struct centre *c, struct job *job, int number)
{
    int rc = -ESRCH;

    for (uint32_t k = 0; k < job->row->n_copies; k++) {
        int one = tell(c, job, k, number, "");
        rc = one == 0 || rc == 0 ? 0 : one;
    }
    return rc;
}

/* --- nodes --- */

void jobs_node_changed(struct centre *c, struct node *n)
{
    const struct node_power *p = &n->power;
    struct job_place_node is = {.id = n->id,
                                .open = n->peer && n->jobs_known && p->jobs &&
                                        strcmp(n->state, "ready") == 0,
                                .core_speed = p->core_speed,
                                .milli_cpus = p->jobs ? p->milli_cpus : 0,
                                .milli_busy = p->milli_busy,
                                .memory = p->memory,
                                .memory_busy = p->memory_busy,
                                .runs_max = JOB_RUNS_MAX};

    if (!c->jobs)
        return;
    if (strcmp(n->state, "gone") == 0)
        job_queue_node_gone(c->jobs->queue, n->id);
    else if (job_queue_node(c->jobs->queue, &is) < 0)
        return; /* its next report says it again */
    c->jobs->place = true;
}

void jobs_node_power(struct centre *c, struct node *n, const Star__NodePower *p)
{
    struct node_power *to = &n->power;

    if (!p)
        return;
    *to = (struct node_power){.jobs = p->jobs,
                              .cores = p->cores,
                              .milli_cpus = p->milli_cpus,
                              .milli_busy = p->milli_busy,
                              .core_speed = p->core_speed,
                              .memory = p->memory,
                              .memory_busy = p->memory_busy};
    snprintf(to->detail, sizeof(to->detail), "%s", p->detail);
    jobs_node_changed(c, n);
}
