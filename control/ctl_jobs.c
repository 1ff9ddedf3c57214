/* .umbel/jobs: new, and a folder for each job, which only its owner and root may look into. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/ctl_tree.h"
#include "control/jobs.h"

enum { JOB_SPEC_FILE, JOB_STATUS_FILE, JOB_CTL_FILE, JOB_FILES };

static const struct {
    const char *name;
    uint32_t mode;
} job_files[JOB_FILES] = {{"spec", 0400}, {"status", 0400}, {"ctl", 0200}};

/* The row as it is now; *own: to be freed, if it is not the leader's. */
static const Star__Job *row_of(struct centre *c, uint64_t id, Star__Job **own)
{
    const struct job *job = c->jobs ? jobs_find(c, id) : NULL;

    *own = NULL;
    if (job)
        return job->row;
    return state_job(c->state, id, own) == 0 ? *own : NULL;
}

static void row_free(Star__Job *own)
{
    if (own)
        star__job__free_unpacked(own, NULL);
}

struct ctl_owner ctl_job_owner(struct centre *c, uint64_t ino)
{
    struct ctl_owner o = {0};
    Star__Job *own;

    if (kind_of(ino) == KIND_JOBS) {
        o.mode = S_IFDIR | S_ISVTX | 0777; /* who owns a job may take its folder away */
        return o;
    }
    if (kind_of(ino) == KIND_JOBS_NEW) {
        o.mode = S_IFREG | 0666;
        return o;
    }
    if (kind_of(ino) == KIND_JOBS_LIST) {
        o.mode = S_IFREG | 0444; /* each sees his own */
        return o;
    }
    const Star__Job *row = row_of(c, object_of(ino), &own);
    if (!row)
        return o;
    o.uid = row->cred->uid;
    o.gid = row->cred->gid;
    if (kind_of(ino) == KIND_JOB)
        o.mode = S_IFDIR | 0500;
    else if (file_of(ino) < JOB_FILES)
        o.mode = S_IFREG | job_files[file_of(ino)].mode;
    row_free(own);
    return o;
}

/* A number without leading zeros; 0: it is none. */
static uint64_t number_of(const void *text, size_t len)
{
    const char *digits = text;
    uint64_t n = 0;

    if (len == 0 || len > 15 || digits[0] == '0')
        return 0;
    for (size_t k = 0; k < len; k++) {
        if (digits[k] < '0' || digits[k] > '9')
            return 0;
        n = n * 10 + (uint64_t)(digits[k] - '0');
    }
    return n > OBJECT_MAX ? 0 : n;
}

uint64_t ctl_job_find(struct centre *c, uint64_t parent, const ProtobufCBinaryData *name)
{
    (void)c; /* ctl_attr() says whether there is such a job */
    if (kind_of(parent) == KIND_JOBS) {
        if (ctl_name_is(name, "new"))
            return ctl_ino(KIND_JOBS_NEW, 0, 0);
        if (ctl_name_is(name, "list"))
            return ctl_ino(KIND_JOBS_LIST, 0, 0);
        if (name->len > 5 && memcmp(name->data, "list.", 5) == 0) {
            uint64_t after = number_of(name->data + 5, name->len - 5);
            return after ? ctl_ino(KIND_JOBS_LIST, after, 0) : 0;
        }
        uint64_t id = number_of(name->data, name->len);
        return id ? ctl_ino(KIND_JOB, id, 0) : 0;
    }
    for (unsigned k = 0; k < JOB_FILES; k++)
        if (ctl_name_is(name, job_files[k].name))
            return ctl_ino(KIND_JOB_FILE, object_of(parent), k);
    return 0;
}

/* --- its own files --- */

/* stdout, stderr: of the only copy, or of the one whose result counts; stdout.2: of copy 2. 0: it
 * is no such name. */
static uint32_t file_named(const Star__Job *row, const ProtobufCBinaryData *name)
{
    static const char *const names[] = {"stdout", "stderr"};

    for (uint32_t which = 0; which < 2; which++) {
        size_t len = strlen(names[which]);
        if (name->len < len || memcmp(name->data, names[which], len) != 0)
            continue;
        if (name->len == len)
            return (row->winner ? row->winner : 1) * 2 + which;
        if (name->len != len + 2 || name->data[len] != '.')
            continue;
        uint64_t copy = number_of(name->data + len + 1, 1);
        return copy > 0 && copy <= row->n_copies ? (uint32_t)copy * 2 + which : 0;
    }
    return 0;
}

static void answer_file(struct op *op)
{
    Star__EntryReply r = STAR__ENTRY_REPLY__INIT;
    Star__Attr attr;
    Star__Time times[3];
    struct inode i;
    int rc = op->status < 0 ? op->status : state_inode(op->c->state, op->wait_ino, &i);

    if (rc == 0 && i.ino != op->home_ino && home_must_be_asked(op->c, op->session, &i)) {
        home_ask(op, i.ino, answer_file);
        return;
    }
    if (rc == 0) {
        answer_attr(op, &i, &attr, times, &r.lease);
        r.attr = &attr;
    }
    op_reply(op, rc, &r.base);
}

static void file_made(struct op *op, const struct state_result *r)
{
    Star__EntryReply *e =
        r->status == 0 ? star__entry_reply__unpack(NULL, r->body_len, r->body) : NULL;

    if (!e || !e->attr) {
        op_reply(op, r->status < 0 ? r->status : -ENOMEM, NULL);
    } else {
        op->wait_ino = e->attr->ino;
        answer_file(op);
    }
    if (e)
        star__entry_reply__free_unpacked(e, NULL);
}

bool ctl_job_file(struct op *op)
{
    const Star__CtlLookup *q = (const Star__CtlLookup *)op->body;
    Star__LogJobFile body = STAR__LOG_JOB_FILE__INIT;
    Star__Job *own;

    if (!ctl_is_ino(q->parent) || kind_of(q->parent) != KIND_JOB)
        return false;
    const Star__Job *row = row_of(op->c, object_of(q->parent), &own);
    uint32_t file = row ? file_named(row, &q->name) : 0;
    row_free(own);
    if (!file)
        return false;
    if (!op->c->serving) {
        op_park(op);
        return true;
    }
    if (state_job_file(op->c->state, object_of(q->parent), file, &op->wait_ino) == 0) {
        answer_file(op);
        return true;
    }
    body.job = object_of(q->parent);
    body.file = file;
    op_submit(op, STAR__LOG_TYPE__LOG_JOB_FILE, &body.base, true, file_made);
    return true;
}

/* --- names --- */

struct job_listing {
    struct ctl_listing *l;
    uint64_t base; /* cookies of jobs are their numbers above it */
};

static bool list_job(void *arg, const Star__Job *row)
{
    struct job_listing *j = arg;
    struct ctl_listing *l = j->l;

    if (l->n == l->size) {
        l->cookie = j->base + row->id; /* there is more */
        return false;
    }
    char *name = l->names[l->n];
    snprintf(name, sizeof(l->names[0]), "%" PRIu64, row->id);
    l->cookie = j->base + row->id - 1;
    ctl_list(l, name, ctl_ino(KIND_JOB, row->id, 0), S_IFDIR);
    return true;
}

static void list_jobs(struct centre *c, struct ctl_listing *l)
{
    struct job_listing j = {.l = l};
    uint64_t last = state_last_job(c->state), after = last > JOBS_LISTED ? last - JOBS_LISTED : 0;

    ctl_list(l, "new", ctl_ino(KIND_JOBS_NEW, 0, 0), S_IFREG);
    ctl_list(l, "list", ctl_ino(KIND_JOBS_LIST, 0, 0), S_IFREG);
    l->names = calloc(l->size, sizeof(*l->names));
    if (!l->names)
        return; /* a shorter list; the next one is whole */
    j.base = l->cookie;
    if (l->q->cookie > j.base && l->q->cookie - j.base > after)
        after = l->q->cookie - j.base;
    state_jobs(c->state, after, list_job, &j);
}

void ctl_job_list(struct centre *c, struct ctl_listing *l, uint64_t ino)
{
    if (kind_of(ino) == KIND_JOBS) {
        list_jobs(c, l);
        return;
    }
    for (unsigned k = 0; k < JOB_FILES; k++)
        ctl_list(l, job_files[k].name, ctl_ino(KIND_JOB_FILE, object_of(ino), k), S_IFREG);
    /* Their numbers are only known when they are looked for. */
    ctl_list(l, "stdout", ctl_ino(KIND_JOB_FILE, object_of(ino), JOB_FILES), S_IFREG);
    ctl_list(l, "stderr", ctl_ino(KIND_JOB_FILE, object_of(ino), JOB_FILES + 1), S_IFREG);
}

/* --- what the files say --- */

static void put_time(struct text *t, const char *key, const Star__Time *at)
{
    if (at)
        text_put(t, "%s %" PRId64 ".%03u\n", key, at->sec, at->nsec / 1000000);
}

static void put_why_waiting(struct centre *c, const Star__Job *row, struct text *t)
{
    static const char *const names[] = {[JOB_QUEUE_TURN] = "turn",
                                        [JOB_QUEUE_RESOURCES] = "resources",
                                        [JOB_QUEUE_NODE] = "node",
                                        [JOB_QUEUE_COPIES] = "copies"};
    char why[JOB_PLACE_WHY] = "", more[JOB_PLACE_WHY];
    const struct job *job = jobs_find(c, row->id);

    for (uint32_t k = 0; job && k < row->n_copies; k++) {
        if (row->copies[k]->placed)
            continue;
        enum job_queue_wait is = job_queue_why(c->jobs->queue, row->id, k + 1, why);
        if (is == JOB_QUEUE_NOT && job->batch->watched)
            text_put(t, "reason dependency: job %" PRIu64 " has not ended\n", job->batch->watched);
        else if (is != JOB_QUEUE_NOT) {
            demand_why(c, more, sizeof(more));
            text_put(t, "reason %s: %s%s\n", names[is], why,
                     is == JOB_QUEUE_TURN || row->node ? "" : more);
        }
        return;
    }
}

static const char *name_of_node(struct centre *c, uint32_t id)
{
    const struct node *n = node_find(c, id);

    return n ? n->name : "?";
}

/* All that it runs or ran on at this attempt: "node-1,node-3"; "-": none yet. */
static void put_nodes(struct centre *c, const Star__Job *row, struct text *t)
{
    bool first = true;

    for (uint32_t k = 0; k < row->n_copies; k++) {
        if (!row->copies[k]->placed)
            continue;
        text_put(t, "%s%s", first ? "" : ",", name_of_node(c, row->copies[k]->node));
        first = false;
    }
    if (first)
        text_put(t, "-");
}

static void put_result(const Star__JobRunReport *r, struct text *t)
{
    if (r->end == STAR__JOB_END__END_EXIT)
        text_put(t, "exit %d\n", r->status);
    if (r->end == STAR__JOB_END__END_SIGNAL)
        text_put(t, "signal %d\n", r->status);
    text_put(t, "cpu_seconds %" PRIu64 ".%03" PRIu64 "\nmemory_peak %" PRIu64 "\n",
             r->cpu_us / 1000000, r->cpu_us / 1000 % 1000, r->memory_peak);
    text_put(t, "output_bytes %" PRIu64 "\n", r->output_bytes);
    if (r->output_lost)
        text_put(t, "output_lost %" PRIu64 "\n", r->output_lost);
    if (r->detail[0])
        text_put(t, "detail %s\n", r->detail);
}

static void put_copy(struct centre *c, uint32_t k, const Star__Job *row, struct text *t)
{
    const Star__JobCopy *copy = row->copies[k];
    const Star__JobRunReport *r = job_copy_ended(copy) ? copy->result : NULL;

    text_put(t, "copy %u node %s state %s", k + 1, copy->placed ? name_of_node(c, copy->node) : "-",
             job_copy_lost(copy)                               ? "lost"
             : job_copy_ended(copy)                            ? "ended"
             : copy->state == STAR__JOB_RUN_STATE__RUN_RUNNING ? "running"
             : copy->placed                                    ? "starting"
                                                               : "pending");
    if (r) {
        if (r->end == STAR__JOB_END__END_EXIT || r->end == STAR__JOB_END__END_SIGNAL)
            text_put(t, " %s %d", r->end == STAR__JOB_END__END_EXIT ? "exit" : "signal", r->status);
        text_put(t, " digest ");
        for (size_t m = 0; m < r->digest.len; m++)
            text_put(t, "%02x", r->digest.data[m]);
        if (r->digest.len == 0)
            text_put(t, "-");
    }
    if (row->winner && job_copy_ended(copy))
        text_put(t, " %s", job_agree(row->copies[row->winner - 1], copy) ? "ok" : "odd");
    text_put(t, "\n");
}

static void put_status(struct centre *c, const Star__Job *row, struct text *t)
{
    const Star__JobCopy *copy = row->copies[row->winner ? row->winner - 1 : 0];

    text_put(t, "id %" PRIu64 "\n", row->id);
    if (row->name[0])
        text_put(t, "name %s\n", row->name);
    text_put(t, "state %s\n", jobs_state_name(row->state));
    if (row->why[0])
        text_put(t, "reason %s\n", row->why);
    else if (row->state < STAR__JOB_STATE__JOB_RUNNING)
        put_why_waiting(c, row, t);
    text_put(t, "user %u\ngroup %u\n", row->cred->uid, row->cred->gid);
    if (row->array)
        text_put(t, "array_first %" PRIu64 "\narray_index %u\n", row->batch, row->index);
    put_time(t, "submitted", row->submitted);
    put_time(t, "began", row->began);
    put_time(t, "ended", row->ended);
    text_put(t, "attempt %u\nretries %u\ncopies %zu\npriority %d\n", copy->attempt, row->retries,
             row->n_copies, row->priority);
    text_put(t, "cpus %u.%03u\nmemory %" PRIu64 "\ntime %u\nnode ", row->milli_cpus / 1000,
             row->milli_cpus % 1000, row->memory, row->time_s);
    put_nodes(c, row, t);
    text_put(t, "\n");
    if (jobs_state_is_over(row->state) && copy->result)
        put_result(copy->result, t);
    for (uint32_t k = 0; row->n_copies > 1 && k < row->n_copies; k++)
        put_copy(c, k, row, t);
}

/* --- the list --- */

struct list_text {
    struct centre *c;
    struct text *t;
    const Star__Cred *cred;
};

static void put_moment(const Star__Time *at, struct text *t)
{
    if (at)
        text_put(t, " %" PRId64 ".%03u", at->sec, at->nsec / 1000000);
    else
        text_put(t, " -");
}

static bool list_line(void *arg, const Star__Job *stored)
{
    struct list_text *l = arg;
    const struct job *job = jobs_known(l->c, stored->id);
    const Star__Job *row = job ? job->row : stored;

    if (l->cred->uid != 0 && l->cred->uid != row->cred->uid)
        return true;
    if (!text_page_takes(l->t, row->id))
        return false;
    text_put(l->t, "%" PRIu64 " %s %u ", row->id, jobs_state_name(row->state), row->cred->uid);
    put_nodes(l->c, row, l->t);
    put_moment(row->submitted, l->t);
    put_moment(row->began, l->t);
    put_moment(row->ended, l->t);
    text_put(l->t, " %s\n", row->name[0] ? row->name : "-");
    return true;
}

/* The page behind it is list.ID: it is empty when there is none. */
static int put_list(struct centre *c, uint64_t after, const Star__Cred *cred, struct text *t)
{
    struct list_text l = {.c = c, .t = t, .cred = cred};
    uint64_t last = state_last_job(c->state), first = last > JOBS_LISTED ? last - JOBS_LISTED : 0;

    if (!cred)
        return -EACCES;
    return state_jobs(c->state, after > first ? after : first, list_line, &l);
}

static int put_spec(struct centre *c, const Star__Job *row, struct text *t)
{
    size_t len;

    free(t->at);
    t->at = NULL;
    int rc = state_job_spec(c->state, row->batch, &t->at, &len);
    t->len = rc == 0 ? len : 0;
    return rc;
}

int ctl_job_text(struct centre *c, uint64_t ino, const Star__Cred *cred, struct text *t)
{
    Star__Job *own;
    int rc = 0;

    if (kind_of(ino) == KIND_JOBS_NEW) {
        text_put(t, "# write a job's spec here, and read its number back; least: command = ...\n");
        return 0;
    }
    if (kind_of(ino) == KIND_JOBS_LIST)
        return put_list(c, object_of(ino), cred, t);
    const Star__Job *row = row_of(c, object_of(ino), &own);
    if (!row)
        rc = -ENOENT;
    else if (file_of(ino) == JOB_SPEC_FILE)
        rc = put_spec(c, row, t);
    else if (file_of(ino) == JOB_STATUS_FILE)
        put_status(c, row, t);
    else
        rc = -EACCES;
    row_free(own);
    return rc;
}

/* --- commands --- */

static void answer_done(struct op *op)
{
    op_reply(op, op->status, NULL);
}

/* "signal 15": 15; 0: it is something else. */
static unsigned signal_of(const char *text)
{
    unsigned number = 0;
    char rest;

    return sscanf(text, " signal %2u %c", &number, &rest) == 1 && number < 65 ? number : 0;
}

static bool is_word(const char *text, const char *word)
{
    text += strspn(text, " \t\n");
    size_t len = strlen(word);
    return strncmp(text, word, len) == 0 && text[len + strspn(text + len, " \t\n")] == '\0';
}

static void command(struct op *op, uint64_t id, const char *text)
{
    struct job *job = jobs_find(op->c, id);
    unsigned number = signal_of(text);

    if (!is_word(text, "cancel") && number == 0) {
        op_error(op, -EINVAL, "'%.64s' is no command for a job: cancel, or signal N (1 to 64)",
                 text);
    } else if (!job || job->over) {
        op_error(op, -ESRCH, "job %" PRIu64 " has ended", id);
    } else if (number == 0) {
        jobs_cancel(op->c, job, "cancelled");
        op->next = answer_done; /* when the log has it */
        LL_APPEND2(op->c->jobs->answers, op, wait_next);
    } else {
        int rc = jobs_send_signal(op->c, job, (int)number);
        if (rc < 0)
            op_error(op, rc, "job %" PRIu64 " does not run: %s", id, strerror(-rc));
        else
            op_reply(op, 0, NULL);
    }
}

void ctl_job_write(struct op *op, uint64_t ino, char *text)
{
    if (kind_of(ino) == KIND_JOBS_NEW)
        jobs_submit(op, text, op->request.payload_len);
    else if (file_of(ino) == JOB_CTL_FILE)
        command(op, object_of(ino), text);
    else
        op_error(op, -EACCES, "this control file is not for writing");
}
