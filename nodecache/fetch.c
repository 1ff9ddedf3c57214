/* Fetching from the pool into the flat files, by readers themselves and ahead of them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "control/wire/clock.h"
#include "nodecache/clean.h"

#define FETCH_THREADS 4
/* Read-ahead that finds the queue full is not done. */
#define FETCH_QUEUE_MAX 64

struct fetch_job {
    struct fetch_job *prev, *next;
    struct file *file;
    uint64_t start, end;
};

struct fetcher {
    pthread_t threads[FETCH_THREADS];
    unsigned running;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct fetch_job *jobs;
    unsigned queued;
    bool stop;
};

static int read_extent(struct store *s, const struct map_extent *e, uint64_t from, uint64_t to,
                       uint8_t *out, char *detail)
{
    return pack_read(s->options.pool, pool_key_or_none(&e->key), e->pack, e->number, e->pack_offset,
                     e->record_length, e->record_offset + (uint32_t)(from - e->offset), out,
                     (uint32_t)(to - from), detail);
}

/* One window's share of [start, end). */
static int read_window(struct store *s, const struct map_window *w, uint64_t start, uint64_t end,
                       uint8_t *out, struct ranges *stored, char *detail)
{
    uint64_t at = start;
    int rc = 0;

    for (const struct map_extent *e = maps_find(w, at); rc == 0 && e && e < w->extents + w->count;
         e++) {
        uint64_t from = e->offset > at ? e->offset : at;
        if (from >= end)
            break;
        at = e->offset + e->length < end ? e->offset + e->length : end;
        rc = read_extent(s, e, from, at, out + (from - start), detail);
        if (rc == 0 && stored)
            rc = ranges_insert(stored, from, at);
    }
    return rc;
}

static int pool_once(struct store *s, uint64_t ino, uint64_t start, uint64_t end, uint8_t *out,
                     struct ranges *stored, char *detail)
{
    uint64_t at = start;

    while (at < end) {
        struct map_window *w;
        int rc = maps_get(&s->maps, s->options.centre, s->options.centre_ctx, ino, at, &w);
        if (rc < 0) {
            snprintf(detail, NODE_DETAIL, "the map of inode %" PRIu64 ": %s", ino, strerror(-rc));
            return rc;
        }
        uint64_t stop = w->key.start + MAPS_WINDOW < end ? w->key.start + MAPS_WINDOW : end;
        rc = w->gone ? -ESTALE : read_window(s, w, at, stop, out + (at - start), stored, detail);
        maps_put(w);
        if (rc < 0)
            return rc;
        at = stop;
    }
    return 0;
}

int pool_bytes(struct store *s, uint64_t ino, uint64_t start, uint64_t end, uint64_t limit,
               uint8_t *out, struct ranges *stored, char *detail)
{
    uint64_t stop = end < limit ? end : limit;
    int rc;

    memset(out, 0, end - start);
    if (start >= stop)
        return 0;
    if (!s->options.pool)
        return -ENOTCONN;
    rc = pool_once(s, ino, start, stop, out, stored, detail);
    if (rc == -ENOENT || rc == -EBADMSG) {
        /* Moved meanwhile, perhaps: the map is asked for once more. */
        maps_forget(&s->maps, ino);
        memset(out, 0, end - start);
        if (stored)
            ranges_clear(stored);
        rc = pool_once(s, ino, start, stop, out, stored, detail);
        if (rc == -ENOENT || rc == -EBADMSG) {
            store_damaged(s, ino, detail); /* it names pack and record */
            rc = -EIO;
        }
    }
    if (rc == 0)
        atomic_fetch_add_explicit(&s->fetched_bytes, stop - start, memory_order_relaxed);
    return rc;
}

static struct fetching *overlapping(struct file *f, uint64_t start, uint64_t end)
{
    struct fetching *i;

    DL_FOREACH (f->fetches, i) {
        if (start < i->end && end > i->start)
            return i;
    }
    return NULL;
}

/* Makes one absent stretch present. f->lock is held. */
static int fill(struct store *s, struct file *f, uint64_t start, uint64_t end, const uint8_t *data)
{
    struct charge c;
    uint64_t at = start;
    int rc = clean_begin(s, f, start, end);

    if (rc < 0)
        return rc;
    uint64_t need = charge_need(f, start, end);
    if (!space_try(&s->space, need))
        return -ENOSPC;
    charge_begin(&c, f, start, end, need);
    int fd = file_fd(&s->table, f, true);
    if (fd < 0)
        rc = fd;
    while (rc == 0 && at < end) {
        ssize_t n = pwrite(fd, data + (at - start), end - at, (off_t)at);
        if (n < 0 && errno != EINTR)
            rc = -errno;
        else if (n > 0)
            at += (uint64_t)n;
    }
    if (rc == 0)
        rc = index_fill(&s->index, f, start, end);
    charge_end(s, &c, f);
    return rc == 0 ? clean_end(s, f, start, end, data) : rc;
}

/* Keeps what was fetched, as far as it is still wanted and there is room. f->lock is held. */
static void keep(struct store *s, struct file *f, const struct fetched *got)
{
    struct ranges wanted;
    struct range next;
    uint64_t at = 0;
    int rc;

    ranges_init(&wanted);
    rc = ranges_copy(&wanted, &got->good);
    if (rc == 0)
        rc = ranges_keep(&wanted, &got->stored);
    if (rc == 0)
        rc = ranges_remove_all(&wanted, &f->present);
    while (rc == 0 && ranges_next(&wanted, at, &next)) {
        rc = fill(s, f, next.start, next.end, got->data + (next.start - got->start));
        at = next.end;
    }
    /* It is only a cache: the reader has the bytes. */
    if (rc < 0 && rc != -ENOSPC)
        store_failed(s, rc, "caching", f->ino);
    ranges_clear(&wanted);
    store_settle(s, f, false);
}

/* The good part: within the size, below the base limit, not overtaken. f->lock is held. */
static int good_part(const struct file *f, const struct fetching *mine, struct fetched *got)
{
    uint64_t end = got->end;
    int rc = 0;

    ranges_clear(&got->good);
    if (mine->poisoned_all || f->gone)
        return 0;
    if (end > f->size)
        end = f->size;
    if (end > f->base_limit)
        end = f->base_limit;
    rc = ranges_insert(&got->good, got->start, end);
    return rc < 0 ? rc : ranges_remove_all(&got->good, &mine->poison);
}

static int fetched_room(struct fetched *got, uint64_t start, uint64_t end)
{
    size_t size = (size_t)(end - start);

    if (got->room < size) {
        uint8_t *data = realloc(got->data, size);
        if (!data)
            return -ENOMEM;
        got->data = data;
        got->room = size;
    }
    got->start = start;
    got->end = end;
    ranges_clear(&got->good);
    ranges_clear(&got->stored);
    return 0;
}

void fetched_clear(struct fetched *got)
{
    ranges_clear(&got->good);
    ranges_clear(&got->stored);
    free(got->data);
    got->data = NULL;
    got->room = 0;
}

int fetch_range(struct store *s, struct file *f, uint64_t start, uint64_t end, struct fetched *out,
                char *detail)
{
    struct fetching mine = {.start = start, .end = end};
    int64_t deadline = clock_boot_ms() + STORE_WAIT_MS;
    bool waited = false;
    int rc;

    pthread_mutex_lock(&f->lock);
    while (overlapping(f, start, end) && clock_boot_ms() < deadline && !f->gone) {
        store_wait(f); /* that one brings it */
        waited = true;
    }
    uint64_t limit = f->base_limit;
    rc = waited ? -EAGAIN : fetched_room(out, start, end);
    if (rc == 0)
        DL_APPEND(f->fetches, &mine);
    pthread_mutex_unlock(&f->lock);
    if (rc < 0)
        return rc;
    rc = pool_bytes(s, f->ino, start, end, limit, out->data, &out->stored, detail);
    pthread_mutex_lock(&f->lock);
    DL_DELETE(f->fetches, &mine);
    if (rc == 0)
        rc = good_part(f, &mine, out);
    if (rc == 0 && !f->gone && !atomic_load(&s->closed))
        keep(s, f, out);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    ranges_clear(&mine.poison);
    return rc;
}

/* ---- read-ahead ---- */

static void job_do(struct store *s, struct fetch_job *job)
{
    char detail[NODE_DETAIL];
    struct fetched got = {0};

    for (uint64_t at = job->start; at < job->end;) {
        struct range missing;
        pthread_mutex_lock(&job->file->lock);
        bool any = !job->file->gone && read_missing(job->file, at, job->end, &missing);
        uint64_t size = job->file->size;
        pthread_mutex_unlock(&job->file->lock);
        if (!any || atomic_load(&s->stopping))
            break;
        uint64_t start = missing.start - missing.start % NODE_INDEX;
        uint64_t end = start + NODE_INDEX < size ? start + NODE_INDEX : size;
        int rc = start < end ? fetch_range(s, job->file, start, end, &got, detail) : -EINVAL;
        if (rc < 0 && rc != -EAGAIN)
            break; /* the reader will meet the error itself */
        at = start + NODE_INDEX;
    }
    fetched_clear(&got);
}

static void *fetcher_main(void *arg)
{
    struct store *s = arg;
    struct fetcher *q = s->fetcher;

    pthread_setname_np(pthread_self(), "fetch");
    pthread_mutex_lock(&q->lock);
    for (;;) {
        while (!q->jobs && !q->stop)
            pthread_cond_wait(&q->work, &q->lock);
        struct fetch_job *job = q->jobs;
        if (!job)
            break;
        DL_DELETE(q->jobs, job);
        q->queued--;
        pthread_mutex_unlock(&q->lock);
        job_do(s, job);
        file_unref(job->file);
        free(job);
        pthread_mutex_lock(&q->lock);
    }
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

void fetch_ahead(struct store *s, struct file *f, uint64_t start, uint64_t end)
{
    struct fetcher *q = s->fetcher;

    for (uint64_t at = start; at < end; at = at - at % NODE_INDEX + NODE_INDEX) {
        struct fetch_job *job = malloc(sizeof(*job));
        if (!job)
            return; /* read-ahead is a favour */
        uint64_t stop = at - at % NODE_INDEX + NODE_INDEX;
        *job = (struct fetch_job){.file = f, .start = at, .end = stop < end ? stop : end};
        pthread_mutex_lock(&q->lock);
        bool taken = !q->stop && q->queued < FETCH_QUEUE_MAX;
        if (taken) {
            file_ref(f);
            DL_APPEND(q->jobs, job);
            q->queued++;
            pthread_cond_signal(&q->work);
        }
        pthread_mutex_unlock(&q->lock);
        if (!taken) {
            free(job);
            return;
        }
    }
}

int fetcher_start(struct store *s)
{
    struct fetcher *q = calloc(1, sizeof(*q));

    if (!q)
        return -ENOMEM;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->work, NULL);
    s->fetcher = q;
    for (; q->running < FETCH_THREADS; q->running++) {
        int rc = pthread_create(&q->threads[q->running], NULL, fetcher_main, s);
        if (rc != 0)
            return -rc;
    }
    return 0;
}

void fetcher_stop(struct store *s)
{
    struct fetcher *q = s->fetcher;
    struct fetch_job *job, *next;

    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    q->stop = true;
    DL_FOREACH_SAFE (q->jobs, job, next) {
        DL_DELETE(q->jobs, job);
        file_unref(job->file);
        free(job);
    }
    pthread_cond_broadcast(&q->work);
    pthread_mutex_unlock(&q->lock);
    while (q->running > 0)
        pthread_join(q->threads[--q->running], NULL);
    pthread_cond_destroy(&q->work);
    pthread_mutex_destroy(&q->lock);
    free(q);
    s->fetcher = NULL;
}
