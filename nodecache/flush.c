/* The flush's threads: which files, when, and what after a failure. */
#include "nodecache/flush.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "control/wire/clock.h"
#include "nodecache/flush_private.h"

/* Between looks for files that have come of age. */
#define FLUSH_PERIOD_MS 250
/* Files looked at for one group. */
#define FLUSH_SCAN_MAX 65536

/* ---- choosing ---- */

/* Is f due? Under the staged-list lock; fl->lock is not held. */
static bool due(const struct flush *fl, const struct file *f, int64_t now, uint64_t pressure)
{
    int64_t age = (int64_t)atomic_load(&fl->store->flush_age_ms) * 1000000;

    return f->flush_due != 0 || (uint64_t)f->staged_since <= fl->all_before || pressure > 0 ||
           now - f->staged_since >= age;
}

/* Takes due files, oldest first, up to a pack's size. */
static size_t choose(struct flush *fl, struct member *members, uint64_t *bytes)
{
    struct store *s = fl->store;
    int64_t now = clock_boot_ns();
    size_t count = 0, seen = 0;
    struct file *f;

    pthread_mutex_lock(&fl->lock);
    uint64_t pressure = fl->pressure;
    pthread_mutex_unlock(&fl->lock);
    *bytes = 0;
    if (atomic_load(&s->unsettled))
        return 0;
    pthread_mutex_lock(&s->staged_lock);
    DL_FOREACH2(s->staged, f, staged_next)
    {
        if (count == FLUSH_GROUP_FILES || *bytes >= POOL_PACK_TARGET || ++seen > FLUSH_SCAN_MAX)
            break;
        if (f->flushing || f->retry_at > now)
            continue;
        if (!due(fl, f, now, pressure))
            break; /* the rest is younger; what somebody waits for stands in front */
        uint64_t size = atomic_load(&f->staged_bytes);
        if (count > 0 && *bytes + size > POOL_PACK_TARGET)
            break;
        f->flushing = true;
        members[count++] = (struct member){.file = file_ref(f)};
        *bytes += size;
        pressure = pressure > size ? pressure - size : 0;
    }
    pthread_mutex_unlock(&s->staged_lock);
    pthread_mutex_lock(&fl->lock);
    fl->pressure = fl->pressure > *bytes ? fl->pressure - *bytes : 0;
    pthread_mutex_unlock(&fl->lock);
    return count;
}

static int longer(int ms)
{
    ms = ms == 0 ? FLUSH_BACKOFF_MIN_MS : ms * 2;
    return ms < FLUSH_BACKOFF_MAX_MS ? ms : FLUSH_BACKOFF_MAX_MS;
}

/* A file that failed waits by itself. Under the staged-list lock. */
static void note_file(const struct member *m, bool confirmed)
{
    struct file *f = m->file;

    if (m->failed < 0) {
        f->failed = m->failed;
        f->failed_at = clock_boot_ns();
        f->retry_ms = longer(f->retry_ms);
        f->retry_at = f->failed_at + (int64_t)f->retry_ms * 1000000;
    } else if (confirmed) {
        f->failed_at = f->retry_at = 0;
        f->retry_ms = 0;
    }
}

static void release(struct flush *fl, const struct group *g)
{
    struct store *s = fl->store;
    struct member *members = g->members;

    pthread_mutex_lock(&s->staged_lock);
    for (size_t i = 0; i < g->count; i++) {
        members[i].file->flushing = false;
        note_file(&members[i], g->confirmed);
    }
    pthread_mutex_unlock(&s->staged_lock);
    for (size_t i = 0; i < g->count; i++) {
        free(members[i].records);
        file_unref(members[i].file);
    }
}

/* ---- threads ---- */

static void note(struct flush *fl, const struct group *g, int rc)
{
    pthread_mutex_lock(&fl->lock);
    if (rc < 0 && rc != -ESHUTDOWN) {
        bool first = fl->error[0] == 0;
        snprintf(fl->error, sizeof(fl->error), "%s", g->detail[0] ? g->detail : strerror(-rc));
        fl->pool_failed = g->pool_failed;
        fl->failures++;
        fl->backoff_ms = longer(fl->backoff_ms);
        fl->backoff_until = clock_boot_ms() + fl->backoff_ms;
        if (first)
            store_say(fl->store, "flush: %s; everything stays staged", fl->error);
    } else if (rc == 0 && (g->confirmed || g->failed == 0)) {
        if (fl->error[0])
            store_say(fl->store, "flush: works again");
        fl->error[0] = 0;
        fl->pool_failed = false;
        fl->backoff_ms = 0;
        fl->backoff_until = g->refused > 0 ? clock_boot_ms() + FLUSH_BACKOFF_MIN_MS : 0;
    }
    pthread_cond_broadcast(&fl->done);
    pthread_mutex_unlock(&fl->lock);
}

/* One group. false: nothing is due. */
static bool flush_some(struct flush *fl, struct member *members)
{
    struct group g = {.flush = fl, .members = members};
    uint64_t bytes;

    g.count = choose(fl, members, &bytes);
    if (g.count == 0)
        return false;
    int rc = group_flush(&g);
    free(g.packs);
    release(fl, &g);
    note(fl, &g, rc);
    if (rc == 0) {
        packs_discard_again(fl);
        store_kick_upkeep(fl->store); /* what became clean can be evicted */
    }
    return rc == 0;
}

static void wait_for_work(struct flush *fl)
{
    struct timespec until = deadline_in(FLUSH_PERIOD_MS);

    pthread_mutex_lock(&fl->lock);
    if (!fl->stop)
        pthread_cond_timedwait(&fl->work, &fl->lock, &until);
    pthread_mutex_unlock(&fl->lock);
}

static bool backing_off(struct flush *fl)
{
    pthread_mutex_lock(&fl->lock);
    bool wait = clock_boot_ms() < fl->backoff_until;
    pthread_mutex_unlock(&fl->lock);
    return wait;
}

static void *flush_main(void *arg)
{
    struct flush *fl = arg;
    struct member *members = calloc(FLUSH_GROUP_FILES, sizeof(*members));

    pthread_setname_np(pthread_self(), "flush");
    while (members && !flush_stopping(fl)) {
        if (backing_off(fl) || !flush_some(fl, members))
            wait_for_work(fl);
    }
    free(members);
    return NULL;
}

/* Eviction alone will not do. */
static void need_flush(void *ctx)
{
    struct flush *fl = ctx;
    struct store *s = fl->store;
    uint64_t used = atomic_load(&s->space.used), low = atomic_load(&s->low_bytes);

    pthread_mutex_lock(&fl->lock);
    fl->pressure = used > low ? used - low : used;
    pthread_cond_broadcast(&fl->work);
    pthread_mutex_unlock(&fl->lock);
}

int flush_start(struct store *s, struct pool *pool, const struct centre_calls *centre,
                void *centre_ctx, struct flush **out)
{
    struct flush *fl = calloc(1, sizeof(*fl));

    if (!fl)
        return -ENOMEM;
    fl->store = s;
    fl->pool = pool;
    fl->centre = centre;
    fl->centre_ctx = centre_ctx;
    pthread_mutex_init(&fl->lock, NULL);
    pthread_cond_init(&fl->work, NULL);
    pthread_cond_init(&fl->done, NULL);
    for (; fl->running < FLUSH_THREADS; fl->running++) {
        int rc = pthread_create(&fl->threads[fl->running], NULL, flush_main, fl);
        if (rc != 0) {
            flush_stop(fl);
            return -rc;
        }
    }
    store_on_need_flush(s, need_flush, fl);
    *out = fl;
    return 0;
}

void flush_stop(struct flush *fl)
{
    if (!fl)
        return;
    store_on_need_flush(fl->store, NULL, NULL);
    pthread_mutex_lock(&fl->lock);
    fl->stop = true;
    pthread_cond_broadcast(&fl->work);
    pthread_cond_broadcast(&fl->done);
    pthread_mutex_unlock(&fl->lock);
    while (fl->running > 0)
        pthread_join(fl->threads[--fl->running], NULL);
    pthread_cond_destroy(&fl->work);
    pthread_cond_destroy(&fl->done);
    pthread_mutex_destroy(&fl->lock);
    free(fl);
}

void flush_pool_back(struct flush *fl)
{
    store_say(fl->store, "the pool is there again");
    pthread_mutex_lock(&fl->lock);
    fl->backoff_ms = 0;
    fl->backoff_until = 0;
    pthread_cond_broadcast(&fl->work);
    pthread_mutex_unlock(&fl->lock);
}

void flush_pool_error(struct flush *fl, char out[NODE_DETAIL])
{
    pthread_mutex_lock(&fl->lock);
    /* What failed may have been deleted since: then nothing will show that the pool works again. */
    bool fails = fl->pool_failed && atomic_load(&fl->store->staged_total) > 0;
    snprintf(out, NODE_DETAIL, "%s", fails ? fl->error : "");
    pthread_mutex_unlock(&fl->lock);
}

/* ---- waiting for it ---- */

/* Marks what somebody waits for, and puts it in front. The bytes that are to go. */
static void ask(struct flush *fl, const uint64_t *inos, size_t count, int64_t now,
                struct flush_result *result)
{
    struct store *s = fl->store;
    struct file *f;

    for (size_t i = 0; i < count; i++) {
        f = file_peek(&s->table, inos[i]);
        if (!f)
            continue;
        pthread_mutex_lock(&s->staged_lock);
        if (f->on_staged_list) {
            f->flush_due = now;
            f->retry_at = 0;
            DL_DELETE2(s->staged, f, staged_prev, staged_next);
            DL_PREPEND2(s->staged, f, staged_prev, staged_next);
            result->files++;
            result->bytes += atomic_load(&f->staged_bytes);
        }
        pthread_mutex_unlock(&s->staged_lock);
        file_unref(f);
    }
    if (count > 0)
        return;
    pthread_mutex_lock(&s->staged_lock);
    fl->all_before = (uint64_t)now;
    DL_FOREACH2(s->staged, f, staged_next)
    {
        result->files++;
        result->bytes += atomic_load(&f->staged_bytes);
        f->retry_at = 0;
    }
    pthread_mutex_unlock(&s->staged_lock);
}

/* What became of the files that somebody asked for. */
struct outcome {
    uint64_t left, failed;
    uint64_t failed_ino;
    int error;
};

/* Under the staged-list lock. */
static void count_file(const struct file *f, int64_t asked, struct outcome *o)
{
    if (f->failed_at <= asked) {
        o->left++;
    } else {
        o->failed++;
        o->failed_ino = f->ino;
        o->error = f->failed;
    }
}

/* all: counts them; otherwise it ends at the first one that is left. */
static struct outcome outcome_of(struct flush *fl, const uint64_t *inos, size_t count,
                                 int64_t asked, bool all)
{
    struct store *s = fl->store;
    struct outcome o = {0};
    struct file *f;

    for (size_t i = 0; i < count && (all || o.left == 0); i++) {
        f = file_peek(&s->table, inos[i]);
        if (!f)
            continue;
        pthread_mutex_lock(&s->staged_lock);
        if (f->on_staged_list && f->flush_due != 0 && f->flush_due <= asked)
            count_file(f, asked, &o);
        pthread_mutex_unlock(&s->staged_lock);
        file_unref(f);
    }
    if (count > 0)
        return o;
    pthread_mutex_lock(&s->staged_lock);
    DL_FOREACH2(s->staged, f, staged_next)
    {
        if (f->staged_since <= asked)
            count_file(f, asked, &o);
        else if (f->flush_due == 0)
            break; /* the rest is younger */
        if (o.left > 0 && !all)
            break;
    }
    pthread_mutex_unlock(&s->staged_lock);
    return o;
}

/* After all went well, but for single files. */
static int wait_result(struct flush *fl, const struct outcome *o, uint64_t refused,
                       struct flush_result *result)
{
    result->failed = refused + o->failed;
    if (o->failed > 0) {
        pthread_mutex_lock(&fl->lock);
        if (fl->failed_ino == o->failed_ino)
            snprintf(result->detail, NODE_DETAIL, "%s", fl->failed_error);
        else
            snprintf(result->detail, NODE_DETAIL, "inode %" PRIu64 ": %s", o->failed_ino,
                     strerror(-o->error));
        pthread_mutex_unlock(&fl->lock);
    } else if (refused > 0) {
        snprintf(result->detail, NODE_DETAIL, "the centre refused a cut; it stays staged");
    }
    return result->failed > 0 ? -EIO : 0;
}

int flush_wait(struct flush *fl, const uint64_t *inos, size_t count, int deadline_ms,
               struct flush_result *result)
{
    int64_t now = clock_boot_ns(), deadline = clock_boot_ms() + deadline_ms;
    struct outcome o;
    int rc = 0;

    *result = (struct flush_result){0};
    pthread_mutex_lock(&fl->lock);
    uint64_t failures = fl->failures, refusals = fl->refusals;
    fl->backoff_until = 0;
    pthread_mutex_unlock(&fl->lock);
    ask(fl, inos, count, now, result);
    while ((o = outcome_of(fl, inos, count, now, false)).left > 0) {
        struct timespec until = deadline_in(STORE_POLL_MS);
        pthread_mutex_lock(&fl->lock);
        pthread_cond_broadcast(&fl->work);
        if (fl->failures != failures) {
            rc = -EIO;
            snprintf(result->detail, NODE_DETAIL, "%s", fl->error);
        } else if (fl->stop) {
            rc = -ESHUTDOWN;
        } else if (clock_boot_ms() >= deadline) {
            rc = -ETIMEDOUT;
            snprintf(result->detail, NODE_DETAIL, "the flush took too long");
        } else {
            pthread_cond_timedwait(&fl->done, &fl->lock, &until);
        }
        pthread_mutex_unlock(&fl->lock);
        if (rc < 0) {
            o = outcome_of(fl, inos, count, now, true);
            result->failed = o.left + o.failed;
            return rc;
        }
    }
    pthread_mutex_lock(&fl->lock);
    refusals = fl->refusals - refusals;
    pthread_mutex_unlock(&fl->lock);
    return wait_result(fl, &o, refusals, result);
}
