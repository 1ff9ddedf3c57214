#include "fs/straight_read.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "fs/centre.h"
#include "fs/data.h"
#include "fs/pool_access.h"
#include "fs/record_cache.h"
#include "fs/waits.h"

#define OVERDUE_CHECK_MS 500
#define OVERDUE_MAX      64 /* ended in one turn */

/* A request (q), or one record to be read ahead (q NULL). */
struct task {
    struct task *prev, *next; /* waiting or running */
    struct kreq *q;           /* NULL also when it was ended meanwhile */
    bool for_request;
    struct pool_map *map;
    const struct pool_extent *extent; /* ahead: that one */
    uint64_t offset;
    uint32_t length;
    int64_t deadline_ms;
    bool whole; /* records are read whole, as the rest of them is wanted next */
    uint8_t *data;
    struct record *record; /* or all of it lies in there, from record_at on: nothing is copied */
    uint32_t record_at;
};

struct straight_reader {
    struct worker *w;
    pthread_mutex_t lock;
    pthread_cond_t work, fetched;
    struct task *requests, *ahead, *running;
    unsigned ahead_n;
    struct record_cache cache;
    pthread_t threads[READ_THREADS];
    unsigned threads_n;
    bool stop, ticking;
    _Atomic uint64_t bytes;
};

/* --- the end of a request --- */

static void task_free(struct task *t)
{
    pool_map_unref(t->map);
    free(t->data);
    free(t);
}

static void tell_damage(struct worker *w, uint64_t ino, const char *detail)
{
    Star__Damage body = STAR__DAMAGE__INIT;
    char line[POOL_DETAIL + 64], *lines[] = {line};

    snprintf(line, sizeof(line), "inode %" PRIu64 ": %s", ino, detail);
    log_error("%s", line);
    body.n_lines = 1;
    body.lines = lines;
    msession_call(w, STAR__MSG_TYPE__DAMAGE, &body.base, NULL, 0, METADATA_DEADLINE_MS,
                  CLIENT_RESEND, NULL, NULL, NULL);
}

static bool is_moved(int rc)
{
    return rc == -ENOENT || rc == -ESTALE || rc == -EBADMSG;
}

/* The map is asked for once more; then a node may have it, or reach the pool. */
static void failed(struct kreq *q, int rc, const char *detail)
{
    struct worker *w = q->w;

    if (is_moved(rc) && !q->map_again) {
        struct inode *i = inode_lock(&w->inodes, q->ino);
        q->map_again = true;
        if (i) {
            inode_forget_map(i);
            inode_unlock(&w->inodes, i);
        }
        straight_read(q);
        return;
    }
    if (is_moved(rc))
        tell_damage(w, q->ino, detail);
    else
        log_warning("inode %" PRIu64 " cannot be read from the pool: %s: %s", q->ino, strerror(-rc),
                    detail);
    data_through_node(q, waits_is_away(rc));
}

static void finish(struct kreq *q, int rc, const char *detail, const uint8_t *data, size_t length)
{
    struct message m = {.kind = FRAME_REPLY, .payload = data, .payload_len = length};

    if (rc == -ECANCELED || rc == -ENOMEM)
        kreq_fail_now(q, rc, q->done);
    else if (rc < 0)
        failed(q, rc, detail);
    else
        q->done(q, &m);
}

/* --- records --- */

static int read_piece(struct straight_reader *r, const struct pool_extent *e, uint32_t offset,
                      uint32_t length, uint8_t *out, char *detail)
{
    struct pool *pool;
    int rc = pool_access_get(r->w->pool, &pool, detail);

    if (rc < 0 && rc != -ENOMEM)
        return -EHOSTDOWN; /* it cannot be opened from here: that says nothing of the pack */
    if (rc == 0)
        rc = pack_read(pool, pool_key_or_none(&e->key), e->pack, e->number, e->pack_offset,
                       e->record_length, offset, out, length, detail);
    if (rc == 0)
        atomic_fetch_add(&r->bytes, length);
    return rc;
}

/* One that is being fetched is waited for: a thread is at it, and the driver has its deadline. */
static int wait_fetched(struct straight_reader *r, struct record *rec)
{
    while (rec->state == RECORD_FETCHING)
        pthread_cond_wait(&r->fetched, &r->lock);
    return rec->state == RECORD_READY ? 0 : rec->error;
}

/* The lock is held, and let go meanwhile. */
static int fetch(struct straight_reader *r, const struct pool_extent *e, struct record *rec,
                 char *detail)
{
    pthread_mutex_unlock(&r->lock);
    int rc = read_piece(r, e, 0, e->record_length, rec->data, detail);
    pthread_mutex_lock(&r->lock);
    rec->state = rc == 0 ? RECORD_READY : RECORD_FAILED;
    rec->error = rc;
    pthread_cond_broadcast(&r->fetched);
    return rc;
}

/* *out stays used if 0. -ENOBUFS: no room in the cache. */
static int record_get(struct straight_reader *r, const struct pool_extent *e, struct record **out,
                      char *detail)
{
    struct record *rec = record_cache_get(&r->cache, e->record);
    int rc;

    if (rec && rec->length != e->record_length) {
        record_cache_put(&r->cache, rec);
        return -ENOBUFS;
    }
    if (rec) {
        rc = wait_fetched(r, rec);
        if (rc < 0)
            snprintf(detail, POOL_DETAIL, "pack %" PRIu64 ", record %u: %s", e->pack, e->number,
                     strerror(-rc));
    } else {
        rec = record_cache_add(&r->cache, e->record, e->record_length);
        rc = rec ? fetch(r, e, rec, detail) : -ENOBUFS;
    }
    if (rc < 0 && rec)
        record_cache_put(&r->cache, rec);
    *out = rec;
    return rc;
}

/* Bytes [from, to) of the file, which lie in e. */
static int copy_extent(struct straight_reader *r, const struct task *t, const struct pool_extent *e,
                       uint64_t from, uint64_t to, char *detail)
{
    uint32_t at = e->record_offset + (uint32_t)(from - e->offset);
    uint8_t *out = t->data + (from - t->offset);
    struct record *rec;
    int rc = -ENOBUFS;

    pthread_mutex_lock(&r->lock);
    if (t->whole || record_cache_has(&r->cache, e->record))
        rc = record_get(r, e, &rec, detail);
    pthread_mutex_unlock(&r->lock);
    if (rc == -ENOBUFS)
        return read_piece(r, e, at, (uint32_t)(to - from), out, detail);
    if (rc < 0)
        return rc;
    memcpy(out, rec->data + at, to - from);
    pthread_mutex_lock(&r->lock);
    record_cache_put(&r->cache, rec);
    pthread_mutex_unlock(&r->lock);
    return 0;
}

/* All of the request from one record. -ENOBUFS: it is not like that. */
static int run_single(struct straight_reader *r, struct task *t, char *detail)
{
    const struct pool_extent *e = pool_map_find(t->map, t->offset);
    int rc = -ENOBUFS;

    if (!e || t->length == 0 || e->offset > t->offset ||
        t->offset + t->length > e->offset + e->length)
        return rc;
    pthread_mutex_lock(&r->lock);
    if (t->whole || record_cache_has(&r->cache, e->record))
        rc = record_get(r, e, &t->record, detail);
    pthread_mutex_unlock(&r->lock);
    if (rc < 0)
        t->record = NULL;
    t->record_at = e->record_offset + (uint32_t)(t->offset - e->offset);
    return rc;
}

static int run_request(struct straight_reader *r, struct task *t, char *detail)
{
    uint64_t end = t->offset + t->length, at = t->offset;
    const struct pool_extent *last = t->map->extents + t->map->count;
    int rc = run_single(r, t, detail);

    if (rc != -ENOBUFS)
        return rc;
    rc = 0;
    t->data = malloc(t->length ? t->length : 1);
    if (!t->data)
        return -ENOMEM;
    for (const struct pool_extent *e = pool_map_find(t->map, at); at < end; e++) {
        uint64_t from = e && e < last && e->offset < end ? e->offset : end;
        if (from > at) { /* a hole */
            memset(t->data + (at - t->offset), 0, from - at);
            at = from;
        }
        if (at == end)
            break;
        uint64_t to = e->offset + e->length < end ? e->offset + e->length : end;
        rc = copy_extent(r, t, e, at, to, detail);
        if (rc < 0)
            return rc;
        at = to;
    }
    return 0;
}

static void run_ahead(struct straight_reader *r, struct task *t)
{
    char detail[POOL_DETAIL] = "";
    struct record *rec;

    pthread_mutex_lock(&r->lock);
    /* Its error is met again by who wants the record. */
    if (!record_cache_has(&r->cache, t->extent->record) &&
        record_get(r, t->extent, &rec, detail) == 0)
        record_cache_put(&r->cache, rec);
    pthread_mutex_unlock(&r->lock);
}

/* --- threads --- */

/* The lock is held. */
static struct task *take_task(struct straight_reader *r)
{
    struct task *t;

    while (!r->stop && !r->requests && !r->ahead)
        pthread_cond_wait(&r->work, &r->lock);
    if (r->stop)
        return NULL;
    if ((t = r->requests)) {
        DL_DELETE(r->requests, t);
    } else {
        t = r->ahead;
        DL_DELETE(r->ahead, t);
        r->ahead_n--;
    }
    DL_APPEND(r->running, t);
    return t;
}

static struct kreq *task_ended(struct straight_reader *r, struct task *t)
{
    pthread_mutex_lock(&r->lock);
    DL_DELETE(r->running, t);
    struct kreq *q = t->q;
    t->q = NULL;
    pthread_mutex_unlock(&r->lock);
    return q;
}

/* Nobody was answered for it meanwhile. */
static bool is_wanted(struct straight_reader *r, const struct task *t)
{
    pthread_mutex_lock(&r->lock);
    bool wanted = t->q && !atomic_load(&t->q->ended);
    pthread_mutex_unlock(&r->lock);
    return wanted;
}

static void run_task(struct straight_reader *r, struct task *t)
{
    char detail[POOL_DETAIL] = "";
    int rc = -ECANCELED;

    if (!t->for_request)
        run_ahead(r, t);
    else if (is_wanted(r, t))
        rc = run_request(r, t, detail);
    struct kreq *q = task_ended(r, t);
    if (q)
        finish(q, rc, detail, t->record ? t->record->data + t->record_at : t->data, t->length);
    if (t->record) {
        pthread_mutex_lock(&r->lock);
        record_cache_put(&r->cache, t->record);
        pthread_mutex_unlock(&r->lock);
    }
    task_free(t);
}

static void *reader_main(void *arg)
{
    struct straight_reader *r = arg;

    pthread_setname_np(pthread_self(), "pool-read");
    for (;;) {
        pthread_mutex_lock(&r->lock);
        struct task *t = take_task(r);
        pthread_mutex_unlock(&r->lock);
        if (!t)
            return NULL;
        run_task(r, t);
    }
}

/* Requests that the pool does not answer in time. */
static size_t overdue(struct task *list, int64_t now, struct kreq **out, size_t room)
{
    size_t n = 0;

    for (struct task *t = list; t && n < room; t = t->next) {
        if (!t->q || now < t->deadline_ms)
            continue;
        out[n++] = t->q;
        t->q = NULL;
    }
    return n;
}

static void tick(void *arg)
{
    struct straight_reader *r = arg;
    struct kreq *late[OVERDUE_MAX];
    int64_t now = clock_boot_ms();

    pthread_mutex_lock(&r->lock);
    size_t n = overdue(r->running, now, late, OVERDUE_MAX);
    n += overdue(r->requests, now, late + n, OVERDUE_MAX - n);
    r->ticking = !r->stop && (r->requests || r->running) &&
                 timer_queue_after(r->w->timer, OVERDUE_CHECK_MS, tick, r) == 0;
    pthread_mutex_unlock(&r->lock);
    for (size_t k = 0; k < n; k++) {
        log_warning("inode %" PRIu64 ": the pool does not answer", late[k]->ino);
        data_again(late[k], -ETIMEDOUT);
    }
}

static int start_threads(struct straight_reader *r)
{
    int rc = 0;

    while (r->threads_n < READ_THREADS && rc == 0) {
        rc = -pthread_create(&r->threads[r->threads_n], NULL, reader_main, r);
        r->threads_n += rc == 0;
    }
    return r->threads_n > 0 ? 0 : rc;
}

static int queue(struct straight_reader *r, struct task *t)
{
    int rc = -ESHUTDOWN;

    pthread_mutex_lock(&r->lock);
    if (!r->stop)
        rc = start_threads(r);
    if (rc == 0 && !t->for_request && r->ahead_n >= READ_AHEAD_TASKS_MAX)
        rc = -EBUSY;
    if (rc == 0 && t->for_request) {
        DL_APPEND(r->requests, t);
        if (!r->ticking)
            r->ticking = timer_queue_after(r->w->timer, OVERDUE_CHECK_MS, tick, r) == 0;
    } else if (rc == 0) {
        DL_APPEND(r->ahead, t);
        r->ahead_n++;
    }
    if (rc == 0)
        pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

int straight_reader_new(struct worker *w, struct straight_reader **out)
{
    struct straight_reader *r = calloc(1, sizeof(*r));

    if (!r)
        return -ENOMEM;
    r->w = w;
    r->cache.limit = RECORD_CACHE_BYTES;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    pthread_cond_init(&r->fetched, NULL);
    *out = r;
    return 0;
}

static void end_waiting(struct task *list)
{
    struct task *t, *tmp;

    DL_FOREACH_SAFE (list, t, tmp) {
        if (t->q)
            kreq_fail_now(t->q, -ESHUTDOWN, t->q->done);
        task_free(t);
    }
}

void straight_reader_stop(struct straight_reader *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    struct task *requests = r->requests, *ahead = r->ahead;
    r->requests = r->ahead = NULL;
    pthread_cond_broadcast(&r->work);
    pthread_mutex_unlock(&r->lock);
    end_waiting(requests);
    end_waiting(ahead);
    for (unsigned n = 0; n < r->threads_n; n++)
        pthread_join(r->threads[n], NULL);
    r->threads_n = 0;
}

void straight_reader_free(struct straight_reader *r)
{
    if (!r)
        return;
    record_cache_free(&r->cache);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->work);
    pthread_cond_destroy(&r->fetched);
    free(r);
}

uint64_t straight_bytes_read(const struct straight_reader *r)
{
    return r ? atomic_load(&r->bytes) : 0;
}

/* --- a request with its map --- */

static struct task *task_new(struct pool_map *map)
{
    struct task *t = calloc(1, sizeof(*t));

    if (t)
        t->map = pool_map_ref(map);
    return t;
}

static void queue_ahead(struct straight_reader *r, struct pool_map *map, uint64_t from, uint64_t to)
{
    const struct pool_extent *e = from < to ? pool_map_find(map, from) : NULL;

    for (; e && e < map->extents + map->count && e->offset < to; e++) {
        struct task *t = task_new(map);
        if (!t)
            return;
        t->extent = e;
        if (queue(r, t) < 0) {
            task_free(t);
            return;
        }
    }
}

static void read_with(struct kreq *q, struct pool_map *map)
{
    struct straight_reader *r = q->w->reader;
    uint64_t from = 0, to = 0;
    uint64_t stop = map->size < map->end ? map->size : map->end;
    bool sequential = false;

    struct inode *i = inode_lock(&q->w->inodes, q->ino);
    if (i) {
        sequential = read_ahead(&i->ahead, q->offset, q->length, map->size, &from, &to);
        inode_unlock(&q->w->inodes, i);
    }
    struct task *t = task_new(map);
    if (!t) {
        kreq_fail_now(q, -ENOMEM, q->done);
        return;
    }
    t->q = q;
    t->for_request = true;
    t->whole = sequential;
    t->offset = q->offset;
    t->length = q->offset >= stop              ? 0
                : stop - q->offset < q->length ? (uint32_t)(stop - q->offset)
                                               : (uint32_t)q->length;
    t->deadline_ms = q->deadline_ms;
    int rc = queue(r, t);
    if (rc < 0) {
        task_free(t);
        kreq_fail_now(q, rc, q->done);
        return;
    }
    queue_ahead(r, map, from, to);
}

static void ask_map(struct kreq *q, uint64_t from);

static void seek_answer(struct kreq *q, int status, uint64_t offset)
{
    Star__SeekReply reply = STAR__SEEK_REPLY__INIT;
    uint8_t packed[16];
    struct message m = {.kind = FRAME_REPLY, .status = status, .body = packed};

    reply.offset = offset;
    m.body_len = star__seek_reply__pack(&reply, packed);
    q->done(q, &m);
}

/* Window by window. q->finished: from where it is looked for. */
static void seek_with(struct kreq *q, const struct pool_map *map)
{
    uint64_t from = q->finished > q->offset ? q->finished : q->offset;

    if (q->offset >= map->size) {
        seek_answer(q, -ENXIO, 0);
        return;
    }
    uint64_t at = pool_map_seek(map, from, q->hole);
    if (at < map->end && at < map->size)
        seek_answer(q, 0, at);
    else if (at >= map->size)
        seek_answer(q, q->hole ? 0 : -ENXIO, map->size);
    else {
        q->finished = at;
        ask_map(q, at);
    }
}

static void go_with(struct kreq *q, struct pool_map *map)
{
    if (q->type == STAR__MSG_TYPE__SEEK)
        seek_with(q, map);
    else if (map->start <= q->offset &&
             (q->offset + q->length <= map->end || q->offset >= map->size))
        read_with(q, map);
    else /* the kernel asks for the rest; it takes a short answer for the end of the file */
        kreq_fail_now(q, -EIO, q->done);
}

/* --- the map --- */

/* Kept for the next request, if the place is still the one that it was asked for. */
static void keep_map(struct kreq *q, struct pool_map *map)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (!i)
        return;
    if (i->located && i->direct && i->map_round == q->map_round &&
        q->type == STAR__MSG_TYPE__READ) {
        pool_map_unref(i->map);
        i->map = pool_map_ref(map);
    }
    inode_unlock(&q->w->inodes, i);
}

static void on_map(struct kreq *q, const struct message *reply)
{
    struct pool_map *map = NULL;
    int status;
    Star__MapReply *r = kreq_unpack(reply, &star__map_reply__descriptor, &status);

    if (r) {
        status = pool_map_new(q->ino, q->other_offset, q->other_offset + POOL_MAP_WINDOW, r, &map);
        star__map_reply__free_unpacked(r, NULL);
    }
    if (status == -EAGAIN) {
        data_again(q, -ESTALE); /* there is something newer: it is elsewhere */
        return;
    }
    if (status == -ETIMEDOUT) {
        data_again(q, status);
        return;
    }
    if (status < 0) {
        kreq_fail_now(q, status, q->done);
        return;
    }
    keep_map(q, map);
    go_with(q, map);
    pool_map_unref(map);
}

/* Of the window that begins with the MiB of `from`, so that records are seen whole. */
static void ask_map(struct kreq *q, uint64_t from)
{
    Star__MapRequest body = STAR__MAP_REQUEST__INIT;
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    q->map_round = i ? i->map_round : 0;
    if (i)
        inode_unlock(&q->w->inodes, i);
    q->other_offset = from - from % POOL_RECORD_MAX;
    body.ino = q->ino;
    body.offset = q->other_offset;
    body.length = POOL_MAP_WINDOW;
    int64_t left = q->deadline_ms - clock_boot_ms();
    kreq_ask_within(q, STAR__MSG_TYPE__MAP, &body.base, left < 1 ? 1 : (int)left, CLIENT_RESEND,
                    on_map);
}

/* What is known, if it covers the request. */
static struct pool_map *known_map(struct kreq *q)
{
    struct pool_map *map = NULL;
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (!i)
        return NULL;
    const struct pool_map *m = i->located && i->direct ? i->map : NULL;
    if (m && m->start <= q->offset && (q->offset + q->length <= m->end || q->offset >= m->size))
        map = pool_map_ref(i->map);
    inode_unlock(&q->w->inodes, i);
    return map;
}

void straight_read(struct kreq *q)
{
    struct pool_map *map = q->type == STAR__MSG_TYPE__READ && !q->direct_once ? known_map(q) : NULL;

    q->finished = 0;
    if (!map) {
        ask_map(q, q->offset);
        return;
    }
    go_with(q, map);
    pool_map_unref(map);
}
