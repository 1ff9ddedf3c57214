/*
 * Jobs: rows that the leader says whole, the texts of their specs, and their own files.
 *
 * A job's files are ordinary inodes that no directory names: the row in DB_JOB_FILES counts as
 * their link. They are made when somebody looks for them, as most jobs print nothing.
 */
#include "control/state_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "control/job_spec.h"

/* In DB_META, beside the row of the numbers. */
#define META_LAST_JOB 1u

/* --- readers --- */

uint64_t state_last_job(struct state *s)
{
    struct key k = st_key1(META_LAST_JOB);
    uint64_t last = 0;

    return st_get_row(s, DB_META, &k, &last, sizeof(last)) == 0 ? last : 0;
}

static int unpack_job(struct state *s, const MDB_val *val, Star__Job **out)
{
    *out = star__job__unpack(NULL, val->mv_size, val->mv_data);
    return *out ? 0 : st_fail(s, MDB_CORRUPTED);
}

int state_job(struct state *s, uint64_t id, Star__Job **out)
{
    struct key k = st_key1(id);
    MDB_val val;
    int rc = st_get(s, DB_JOBS, &k, &val);

    *out = NULL;
    return rc < 0 ? rc : unpack_job(s, &val, out);
}

int state_jobs(struct state *s, uint64_t after, state_job_fn fn, void *arg)
{
    struct key k = st_key1(after + 1);
    MDB_val key, val;
    MDB_cursor *cur;
    Star__Job *job;
    bool more = true;
    int rc = after == UINT64_MAX ? -ENOENT : st_cursor(s, DB_JOBS, &cur);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0 && more;) {
        rc = unpack_job(s, &val, &job);
        if (rc < 0)
            break;
        more = fn(arg, job);
        star__job__free_unpacked(job, NULL);
        if (more)
            rc = st_next(s, cur, &key, &val);
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

int state_job_spec(struct state *s, uint64_t batch, char **text, size_t *len)
{
    struct key k = st_key1(batch);
    MDB_val val;
    int rc = st_get(s, DB_JOB_SPECS, &k, &val);

    if (rc < 0)
        return rc;
    *len = val.mv_size;
    *text = malloc(*len + 1);
    if (!*text)
        return -ENOMEM;
    memcpy(*text, val.mv_data, *len);
    (*text)[*len] = '\0';
    return 0;
}

/* The key behind a batch's text and the number of its jobs says what of it has no rows yet. */
static struct key rest_key(uint64_t batch)
{
    return st_key2(batch, 1);
}

static int load_rest(struct state *s, uint64_t batch, Star__JobRest **out)
{
    struct key k = rest_key(batch);
    MDB_val val;
    int rc = st_get(s, DB_JOB_SPECS, &k, &val);

    *out = NULL;
    if (rc < 0)
        return rc;
    *out = star__job_rest__unpack(NULL, val.mv_size, val.mv_data);
    return *out && (*out)->job ? 0 : st_fail(s, MDB_CORRUPTED);
}

int state_job_rest(struct state *s, uint64_t batch, uint64_t *next, uint64_t *last)
{
    Star__JobRest *rest;
    int rc = load_rest(s, batch, &rest);

    if (rc < 0)
        return rc;
    *next = rest->next;
    *last = rest->last;
    star__job_rest__free_unpacked(rest, NULL);
    return 0;
}

int state_job_rests(struct state *s, state_batch_fn fn, void *arg)
{
    struct key k = st_key1(1), rest = rest_key(1);
    MDB_val key, val;
    MDB_cursor *cur;
    bool more = true;
    int rc = st_cursor(s, DB_JOB_SPECS, &cur);

    if (rc < 0)
        return rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0 && more; rc = st_next(s, cur, &key, &val))
        if (key.mv_size == rest.len && st_key_u64(&key, 8) == 1)
            more = fn(arg, st_key_u64(&key, 0));
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

int state_job_file(struct state *s, uint64_t job, uint32_t file, uint64_t *ino)
{
    struct key k = st_key2(job, file);

    return st_get_row(s, DB_JOB_FILES, &k, ino, sizeof(*ino));
}

/* --- writers --- */

static int put_job(struct state *s, const Star__Job *job, bool is_new)
{
    struct key k = st_key1(job->id);
    size_t len = star__job__get_packed_size(job);
    void *room;
    int rc;

    if (is_new) {
        uint8_t small[1024], *packed = len <= sizeof(small) ? small : malloc(len);
        if (!packed)
            return -ENOMEM;
        star__job__pack(job, packed);
        rc = st_append(s, DB_JOBS, &k, packed, len);
        if (packed != small)
            free(packed);
        return rc;
    }
    rc = st_reserve(s, DB_JOBS, &k, len, &room);
    if (rc == 0)
        star__job__pack(job, room);
    return rc;
}

/* The key behind a batch's text says how many jobs have it. */
static struct key users_key(uint64_t batch)
{
    return st_key2(batch, 0);
}

static int put_spec(struct state *s, uint64_t batch, uint32_t jobs, const ProtobufCBinaryData *text)
{
    struct key k = st_key1(batch), users = users_key(batch);
    int rc = st_put(s, DB_JOB_SPECS, &k, text->len ? text->data : (const uint8_t *)"", text->len);

    return rc < 0 ? rc : st_put(s, DB_JOB_SPECS, &users, &jobs, sizeof(jobs));
}

static int check_submit(struct apply *a, const Star__LogJobSubmit *q, uint64_t first)
{
    if (!q->job || !q->job->cred || q->job->n_copies == 0 ||
        q->job->n_copies > JOB_SPEC_COPIES_MAX || q->count == 0 || q->count > JOB_SPEC_ARRAY_MAX ||
        q->spec.len > JOB_SPEC_MAX || q->index > JOB_SPEC_INDEX_MAX - q->count + 1)
        return st_refuse(a, -EINVAL, "this is no job");
    if (q->after_last >= first)
        return st_refuse(a, -EINVAL,
                         "after: job %" PRIu64 " is not there: name jobs that were given before",
                         q->after_last);
    return 0;
}

static int put_rest(struct apply *a, Star__Job *job, uint64_t batch, uint64_t next, uint64_t last)
{
    Star__JobRest rest = STAR__JOB_REST__INIT;
    struct key k = rest_key(batch);

    rest.job = job;
    rest.next = next;
    rest.last = last;
    size_t len = star__job_rest__get_packed_size(&rest);
    uint8_t *packed = malloc(len);
    if (!packed)
        return -ENOMEM;
    star__job_rest__pack(&rest, packed);
    int rc = st_put(a->s, DB_JOB_SPECS, &k, packed, len);
    free(packed);
    return rc;
}

int st_cmd_job_more(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogJobMore *q = (const Star__LogJobMore *)body;
    struct key k = rest_key(q->batch);
    Star__JobRest *rest;
    int rc = load_rest(a->s, q->batch, &rest);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc; /* all are there */
    Star__Job *job = rest->job;
    uint64_t next = rest->next;
    for (uint32_t n = 0; rc == 0 && n < q->rows && next <= rest->last; n++) {
        job->id = next++;
        /* Others may have been given numbers meanwhile: it is not the last row. */
        rc = put_job(a->s, job, false);
        job->index++;
    }
    if (rc == 0)
        rc = next > rest->last ? st_del(a->s, DB_JOB_SPECS, &k)
                               : put_rest(a, job, q->batch, next, rest->last);
    star__job_rest__free_unpacked(rest, NULL);
    return rc;
}

int st_cmd_job_submit(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogJobSubmit *q = (const Star__LogJobSubmit *)body;
    Star__JobSubmitReply reply = STAR__JOB_SUBMIT_REPLY__INIT;
    Star__Time now = STAR__TIME__INIT;
    struct key k = st_key1(META_LAST_JOB);
    uint64_t first = state_last_job(a->s) + 1, last = first + q->count - 1;
    int rc = check_submit(a, q, first);

    if (rc < 0)
        return rc;
    now.sec = a->sec;
    now.nsec = a->nsec;
    Star__Job job = *q->job;
    uint32_t rows = q->rows && q->rows < q->count ? q->rows : q->count;
    job.batch = first;
    job.submitted = &now;
    for (uint32_t n = 0; rc == 0 && n < rows; n++) {
        job.id = first + n;
        job.index = q->index + n;
        rc = put_job(a->s, &job, true);
    }
    job.index = q->index + rows;
    if (rc == 0 && rows < q->count)
        rc = put_rest(a, &job, first, first + rows, last);
    if (rc == 0)
        rc = put_spec(a->s, first, q->count, &q->spec);
    if (rc == 0)
        rc = st_put(a->s, DB_META, &k, &last, sizeof(last));
    if (rc < 0)
        return rc;
    reply.first = first;
    reply.count = q->count;
    return st_reply(a, &reply.base);
}

/* --- LOG_JOB_CHANGE --- */

static int files_forget(struct apply *a, uint64_t job)
{
    struct state *s = a->s;
    struct key k = st_key1(job);
    struct stored i;
    uint64_t ino;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(s, DB_JOB_FILES, &cur);

    if (rc < 0)
        return rc;
    while ((rc = st_seek(s, cur, &k, &key, &val)) == 0 && st_under(&key, job)) {
        k = st_key2(job, st_key_u64(&key, 8));
        rc = st_row(s, &val, &ino, sizeof(ino));
        if (rc == 0)
            rc = st_del(s, DB_JOB_FILES, &k);
        if (rc == 0)
            rc = st_inode_load(s, ino, &i);
        if (rc == 0)
            rc = st_link_lost(a, &i, 0, 0);
        if (rc < 0)
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

/* One job less has that spec. */
static int spec_let_go(struct apply *a, uint64_t batch)
{
    struct key k = st_key1(batch), users = users_key(batch);
    uint32_t jobs;
    int rc = st_get_row(a->s, DB_JOB_SPECS, &users, &jobs, sizeof(jobs));

    if (rc == 0 && jobs > 1) {
        jobs--;
        return st_put(a->s, DB_JOB_SPECS, &users, &jobs, sizeof(jobs));
    }
    if (rc == 0)
        rc = st_del(a->s, DB_JOB_SPECS, &users);
    if (rc == 0)
        rc = st_del(a->s, DB_JOB_SPECS, &k);
    return rc == -ENOENT ? st_fail(a->s, MDB_CORRUPTED) : rc;
}

static int forget(struct apply *a, uint64_t id)
{
    struct key k = st_key1(id);
    Star__Job *job;
    int rc = state_job(a->s, id, &job);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    uint64_t batch = job->batch;
    bool ended = job->state >= STAR__JOB_STATE__JOB_DONE;
    star__job__free_unpacked(job, NULL);
    if (!ended)
        return 0;
    rc = files_forget(a, id);
    if (rc == 0)
        rc = st_del(a->s, DB_JOBS, &k);
    return rc == 0 ? spec_let_go(a, batch) : rc;
}

static bool row_ok(const Star__Job *job)
{
    return job->cred && job->submitted && job->n_copies > 0 && job->n_copies <= JOB_SPEC_COPIES_MAX;
}

int st_cmd_job_change(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogJobChange *q = (const Star__LogJobChange *)body;
    MDB_val val;
    int rc = 0;

    for (size_t n = 0; n < q->n_jobs; n++)
        if (!row_ok(q->jobs[n]))
            return -EINVAL;
    for (size_t n = 0; rc == 0 && n < q->n_jobs; n++) {
        struct key k = st_key1(q->jobs[n]->id);
        rc = st_get(a->s, DB_JOBS, &k, &val);
        if (rc == 0)
            rc = put_job(a->s, q->jobs[n], false);
        else if (rc == -ENOENT) /* forgotten meanwhile */
            rc = 0;
    }
    for (size_t n = 0; rc == 0 && n < q->n_forget; n++)
        rc = forget(a, q->forget[n]);
    return rc;
}

/* --- LOG_JOB_FILE --- */

/* The inode's number is the entry's. */
static int make_file(struct apply *a, const Star__LogJobFile *q, const Star__Job *job,
                     struct stored *i)
{
    struct key k = st_key2(q->job, q->file);

    if (a->e->ino == 0 || a->e->ino <= a->s->meta.last_ino)
        return -EINVAL;
    *i = (struct stored){.ino = a->e->ino};
    i->r.format = INODE_ROW_FORMAT;
    i->r.mode = S_IFREG | 0600;
    i->r.change = 1;
    i->r.nlink = 1;
    i->r.uid = job->cred->uid;
    i->r.gid = job->cred->gid;
    i->r.atime = i->r.mtime = i->r.ctime = a->sec;
    i->r.atime_ns = i->r.mtime_ns = i->r.ctime_ns = a->nsec;
    int rc = st_inode_new(a->s, i);
    return rc < 0 ? rc : st_put(a->s, DB_JOB_FILES, &k, &i->ino, sizeof(i->ino));
}

int st_cmd_job_file(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogJobFile *q = (const Star__LogJobFile *)body;
    Star__EntryReply reply = STAR__ENTRY_REPLY__INIT;
    Star__Attr attr;
    Star__Time times[3];
    struct stored i;
    Star__Job *job;
    uint64_t ino;
    int rc = state_job(a->s, q->job, &job);

    if (rc < 0)
        return rc;
    if (q->file / 2 == 0 || q->file / 2 > job->n_copies) {
        rc = -ENOENT;
        goto out;
    }
    rc = state_job_file(a->s, q->job, q->file, &ino);
    if (rc == -ENOENT)
        rc = make_file(a, q, job, &i);
    else if (rc == 0)
        rc = st_inode_load(a->s, ino, &i);
    if (rc < 0)
        goto out;
    st_attr(&i, &attr, times);
    reply.attr = &attr;
    rc = st_reply(a, &reply.base);
out:
    star__job__free_unpacked(job, NULL);
    return rc;
}
