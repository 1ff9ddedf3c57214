/* Cuts of files that are written straight to the pool: the threads that write their packs, and
 * their confirms. */
#include "fs/straight_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#include "control/wire/stamp.h"
#include "fs/centre.h"
#include "fs/pool_access.h"

/* Asked for at once; what is left ends with the session. */
#define PACKS_STOCK 16
/* Between two tries to begin a pack. */
#define POOL_RETRY_MS 500
/* Files that wait for a buffer at one time; beyond, a file is looked at when its own come back. */
#define HUNGRY_MAX 256

struct straight_writer {
    struct worker *w;
    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t work;
    struct lane *queue;
    struct piece *spare;
    unsigned pieces; /* in all */
    atomic_uint files;
    struct straight_file *hungry[HUNGRY_MAX];
    size_t hungry_n;
    pthread_t threads[STRAIGHT_THREADS];
    unsigned threads_n;
    bool stop;
    pthread_mutex_t stock_lock; /* held while packs are asked for */
    uint64_t pack_next, packs_left;
    struct pool_key keys[PACKS_STOCK]; /* the last packs_left are of packs that are left */
    unsigned stock_generation;
    _Atomic uint64_t bytes;
};

/* --- memory --- */

bool straight_file_begins(struct straight_writer *s)
{
    if (atomic_fetch_add(&s->files, 1) < STRAIGHT_FILES_MAX)
        return true;
    atomic_fetch_sub(&s->files, 1);
    return false;
}

void straight_file_ended(struct straight_writer *s)
{
    atomic_fetch_sub(&s->files, 1);
}

unsigned straight_files(struct straight_writer *s)
{
    return s ? atomic_load(&s->files) : 0;
}

struct piece *piece_get(struct straight_writer *s, bool first)
{
    pthread_mutex_lock(&s->lock);
    struct piece *p = s->spare;
    if (p) {
        DL_DELETE(s->spare, p);
    } else if ((first || s->pieces < STRAIGHT_BUFFERS) && (p = calloc(1, sizeof(*p)))) {
        p->data = malloc(POOL_RECORD_MAX);
        s->pieces += p->data != NULL;
        if (!p->data) {
            free(p);
            p = NULL;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return p;
}

void piece_put(struct straight_writer *s, struct piece *p)
{
    pthread_mutex_lock(&s->lock);
    bool kept = s->pieces <= STRAIGHT_BUFFERS;
    p->length = 0;
    if (kept)
        DL_APPEND(s->spare, p);
    else
        s->pieces--;
    pthread_mutex_unlock(&s->lock);
    if (kept)
        return;
    free(p->data);
    free(p);
}

void straight_wants_room(struct straight_writer *s, struct straight_file *f)
{
    bool there = false;

    pthread_mutex_lock(&s->lock);
    for (size_t k = 0; k < s->hungry_n && !there; k++)
        there = s->hungry[k] == f;
    if (!there && s->hungry_n < HUNGRY_MAX)
        s->hungry[s->hungry_n++] = straight_ref(f);
    pthread_mutex_unlock(&s->lock);
}

void straight_room_came(struct straight_writer *s)
{
    struct straight_file *hungry[HUNGRY_MAX];

    pthread_mutex_lock(&s->lock);
    size_t n = s->hungry_n;
    memcpy(hungry, s->hungry, n * sizeof(hungry[0]));
    s->hungry_n = 0;
    pthread_mutex_unlock(&s->lock);
    for (size_t k = 0; k < n; k++) {
        straight_moved(hungry[k]);
        straight_unref(hungry[k]);
    }
}

/* --- calls that wait --- */

struct waited {
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool answered;
    int status;
    uint64_t first;
    uint32_t count;
    struct pool_key *keys; /* PACKS_STOCK */
};

/* The keys of the packs, at the end of the stock's. */
static int take_keys(Star__AllocPacksReply *r, struct pool_key keys[PACKS_STOCK])
{
    return r->count == 0 || r->count > PACKS_STOCK
               ? -EPROTO
               : pool_keys_take(keys + PACKS_STOCK - r->count, r->count, r->key_generation, r->keys,
                                r->n_keys);
}

static void on_packs(void *arg, const struct message *reply)
{
    struct waited *a = arg;
    Star__AllocPacksReply *r =
        reply->status < 0
            ? NULL
            : (Star__AllocPacksReply *)frame_unpack(reply, &star__alloc_packs_reply__descriptor);

    pthread_mutex_lock(&a->lock);
    a->answered = true;
    a->status = reply->status < 0 ? reply->status : r ? take_keys(r, a->keys) : -EPROTO;
    a->first = r ? r->first : 0;
    a->count = r ? r->count : 0;
    pthread_cond_signal(&a->done);
    pthread_mutex_unlock(&a->lock);
    if (r)
        star__alloc_packs_reply__free_unpacked(r, NULL);
}

static int ask_packs(struct straight_writer *s)
{
    struct waited a = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER, .keys = s->keys};
    Star__StraightPacks body = STAR__STRAIGHT_PACKS__INIT;
    Star__Head head = STAR__HEAD__INIT;

    head.seq = seq_begin(&s->w->centre.seq, &head.acked);
    if (head.seq == 0)
        return -EBUSY;
    body.head = &head;
    body.count = PACKS_STOCK;
    int rc = msession_call(s->w, STAR__MSG_TYPE__STRAIGHT_PACKS, &body.base, NULL, 0,
                           METADATA_DEADLINE_MS, CLIENT_RESEND, on_packs, &a, NULL);
    if (rc == 0) {
        pthread_mutex_lock(&a.lock);
        while (!a.answered)
            pthread_cond_wait(&a.done, &a.lock); /* the call has its deadline */
        pthread_mutex_unlock(&a.lock);
        rc = a.status;
    }
    seq_end(&s->w->centre.seq, head.seq);
    if (rc == 0) {
        s->pack_next = a.first;
        s->packs_left = a.count;
    }
    return rc;
}

/* Packs are of a session: those of an earlier one are garbage. key is to be wiped. */
static int pack_id(struct straight_writer *s, unsigned generation, uint64_t *id,
                   struct pool_key *key)
{
    int rc = 0;

    pthread_mutex_lock(&s->stock_lock);
    if (atomic_load(&s->w->centre.generation) != generation)
        rc = -ESTALE;
    if (s->stock_generation != generation)
        s->packs_left = 0;
    s->stock_generation = generation;
    if (rc == 0 && s->packs_left == 0)
        rc = ask_packs(s);
    if (rc == 0) {
        *id = s->pack_next++;
        *key = s->keys[PACKS_STOCK - s->packs_left];
        pool_key_wipe(&s->keys[PACKS_STOCK - s->packs_left--]);
    }
    pthread_mutex_unlock(&s->stock_lock);
    return rc;
}

/* --- a pack --- */

static bool may_pass(int rc)
{
    return rc != -ENOSPC && rc != -EDQUOT && rc != -ESTALE && rc != -ESHUTDOWN && rc != -EROFS &&
           rc != -EACCES && rc != -EPERM;
}

static int open_once(struct straight_writer *s, struct lane *l, char *detail)
{
    struct pool_key key = {0};
    struct pool *pool;
    int rc = pool_access_get(s->w->pool, &pool, detail);

    if (rc == 0)
        rc = pack_id(s, l->cut->file->generation, &l->pack, &key);
    if (rc == 0)
        rc = pack_create(pool, pool_key_or_none(&key), l->pack, &l->writer, detail);
    pool_key_wipe(&key);
    return rc;
}

static bool given_up(const struct straight_writer *s, struct straight_file *f)
{
    pthread_mutex_lock(&f->lock);
    bool failed = f->error != 0;
    pthread_mutex_unlock(&f->lock);
    return failed || atomic_load(&s->w->stopping);
}

/* A pool that is away is waited for: what is written stays in memory, and the writer waits. */
static int open_pack(struct straight_writer *s, struct lane *l, char *detail)
{
    const struct timespec pause = {.tv_nsec = POOL_RETRY_MS * 1000000L};
    int64_t until = clock_boot_ms() + STRAIGHT_POOL_MS;
    int rc;

    while ((rc = open_once(s, l, detail)) < 0 && may_pass(rc) && clock_boot_ms() < until &&
           !given_up(s, l->cut->file))
        nanosleep(&pause, NULL);
    return rc;
}

static int note_record(struct lane *l, const struct pack_record *r)
{
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 16;
        struct cut_entry *grown = realloc(l->entries, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        l->entries = grown;
        l->room = room;
    }
    l->entries[l->count++] = (struct cut_entry){.offset = r->offset,
                                                .pack_offset = r->pack_offset,
                                                .length = r->length,
                                                .number = r->number};
    return 0;
}

static int write_piece(struct straight_writer *s, struct lane *l, const struct piece *p,
                       char *detail)
{
    struct pack_record r = {.ino = l->cut->file->ino, .offset = p->offset, .length = p->length};
    int rc = l->writer ? 0 : open_pack(s, l, detail);

    if (rc == 0)
        rc = pack_add_record(l->writer, p->data, &r, detail);
    if (rc == 0)
        rc = note_record(l, &r);
    if (rc == 0)
        atomic_fetch_add(&s->bytes, p->length);
    return rc;
}

/* The cut is closed: its moment is known. */
static int finish_pack(struct lane *l, char *detail)
{
    const struct straight_cut *c = l->cut;
    struct pack_file file = {.ino = c->file->ino,
                             .size = c->size,
                             .version = c->version,
                             .cut = c->number,
                             .base_limit = UINT64_MAX,
                             .mtime_sec = c->mtime.tv_sec,
                             .mtime_nsec = (uint32_t)c->mtime.tv_nsec,
                             /* one of the cut's packs says it */
                             .records = l == &c->lanes[0] ? (uint32_t)c->records : 0};
    struct pack_writer *writer = l->writer;

    l->writer = NULL;
    if (!writer)
        return -EIO;
    int rc = pack_add_file(writer, &file, detail);
    if (rc < 0)
        pack_abandon(writer);
    else
        rc = pack_finish(writer, &l->size, detail);
    return rc;
}

/* --- threads --- */

/* The file's lock is held. */
static void lane_queue(struct straight_writer *s, struct lane *l)
{
    if (l->queued || l->finished)
        return;
    l->queued = true;
    straight_ref(l->cut->file);
    pthread_mutex_lock(&s->lock);
    DL_APPEND(s->queue, l);
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
}

static void lane_failed(struct lane *l, int rc, const char *detail)
{
    struct straight_file *f = l->cut->file;

    pthread_mutex_lock(&f->lock);
    if (!f->error)
        log_error("inode %" PRIu64 ": what was not synced cannot be written to the pool: %s: %s",
                  f->ino, strerror(-rc), detail);
    straight_fail(f, rc);
    pthread_mutex_unlock(&f->lock);
}

/* The next piece. NULL: *finish, or there is none now and the lane is out of the queue. */
static struct piece *next_piece(struct lane *l, bool *finish, bool *failed)
{
    struct straight_file *f = l->cut->file;

    pthread_mutex_lock(&f->lock);
    struct piece *p = l->pieces;
    if (p)
        DL_DELETE(l->pieces, p);
    *failed = f->error != 0;
    *finish = !p && l->cut->closed;
    if (!p && !*finish)
        l->queued = false;
    pthread_mutex_unlock(&f->lock);
    return p;
}

static void lane_end(struct lane *l, bool failed)
{
    struct straight_file *f = l->cut->file;
    char detail[POOL_DETAIL] = "";

    if (failed && l->writer) {
        pack_abandon(l->writer);
        l->writer = NULL;
    }
    int rc = failed ? 0 : finish_pack(l, detail);
    if (rc < 0)
        lane_failed(l, rc, detail);
    pthread_mutex_lock(&f->lock);
    l->finished = true;
    l->queued = false;
    l->cut->open_lanes--;
    pthread_mutex_unlock(&f->lock); /* from here on the lane may be gone */
}

static void run_lane(struct straight_writer *s, struct lane *l)
{
    struct straight_file *f = l->cut->file;
    char detail[POOL_DETAIL] = "";
    bool finish = false, failed = false;
    struct piece *p;

    while ((p = next_piece(l, &finish, &failed))) {
        int rc = failed ? 0 : write_piece(s, l, p, detail);
        piece_put(s, p);
        if (rc < 0)
            lane_failed(l, rc, detail);
        straight_room_came(s);
    }
    if (finish)
        lane_end(l, failed);
    straight_moved(f);
    straight_unref(f);
}

static void *writer_main(void *arg)
{
    struct straight_writer *s = arg;

    pthread_setname_np(pthread_self(), "pool-write");
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (!s->stop && !s->queue)
            pthread_cond_wait(&s->work, &s->lock);
        struct lane *l = s->queue;
        if (l)
            DL_DELETE(s->queue, l);
        pthread_mutex_unlock(&s->lock);
        if (!l)
            return NULL;
        run_lane(s, l);
    }
}

static int start_threads(struct straight_writer *s)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    if (s->stop)
        rc = -ESHUTDOWN;
    while (s->threads_n < STRAIGHT_THREADS && rc == 0) {
        rc = -pthread_create(&s->threads[s->threads_n], NULL, writer_main, s);
        s->threads_n += rc == 0;
    }
    if (s->threads_n > 0 && rc != -ESHUTDOWN)
        rc = 0;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int straight_writer_new(struct worker *w, struct straight_writer **out)
{
    struct straight_writer *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->w = w;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->stock_lock, NULL);
    pthread_cond_init(&s->work, NULL);
    *out = s;
    return 0;
}

void straight_writer_stop(struct straight_writer *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    for (unsigned n = 0; n < s->threads_n; n++)
        pthread_join(s->threads[n], NULL);
    s->threads_n = 0;
}

void straight_writer_free(struct straight_writer *s)
{
    if (!s)
        return;
    while (s->spare) {
        struct piece *p = s->spare;
        DL_DELETE(s->spare, p);
        free(p->data);
        free(p);
    }
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->stock_lock);
    pthread_cond_destroy(&s->work);
    explicit_bzero(s->keys, sizeof(s->keys));
    free(s);
}

uint64_t straight_bytes_written(const struct straight_writer *s)
{
    return s ? atomic_load(&s->bytes) : 0;
}

/* --- cuts --- */

static struct straight_cut *open_cut(struct straight_file *f)
{
    struct straight_cut *last = f->cuts ? f->cuts->prev : NULL; /* utlist: the head's prev */

    if (last && !last->closed)
        return last;
    struct straight_cut *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->file = f;
    c->number = ++f->cuts_begun;
    for (unsigned n = 0; n < STRAIGHT_LANES; n++)
        c->lanes[n].cut = c;
    DL_APPEND(f->cuts, c);
    return c;
}

static void close_cut(struct straight_file *f, struct straight_cut *c)
{
    c->closed = true;
    c->size = f->size;
    c->version = f->version;
    c->mtime = f->mtime;
    for (unsigned n = 0; n < STRAIGHT_LANES; n++)
        if (c->lanes[n].used)
            lane_queue(f->w->writer, &c->lanes[n]);
}

int cut_add(struct straight_file *f, struct piece *p)
{
    struct straight_writer *s = f->w->writer;
    struct straight_cut *c = f->error ? NULL : open_cut(f);
    int rc = c ? start_threads(s) : f->error ? f->error : -ENOMEM;

    if (rc < 0) {
        piece_put(s, p);
        straight_fail(f, rc);
        return rc;
    }
    struct lane *l = &c->lanes[c->records / STRAIGHT_STRETCH % STRAIGHT_LANES];
    c->open_lanes += !l->used;
    l->used = true;
    DL_APPEND(l->pieces, p);
    c->records++;
    lane_queue(s, l);
    if (c->records >= STRAIGHT_CUT_RECORDS)
        close_cut(f, c);
    return 0;
}

void cut_close(struct straight_file *f)
{
    struct piece *p = f->filling;

    f->filling = NULL;
    if (p && p->length > 0)
        cut_add(f, p);
    else if (p)
        piece_put(f->w->writer, p);
    struct straight_cut *last = f->cuts ? f->cuts->prev : NULL;
    if (last && !last->closed)
        close_cut(f, last);
}

void straight_fail(struct straight_file *f, int error)
{
    if (f->error)
        return;
    f->error = error == -EDQUOT ? -ENOSPC : error == -ENOSPC ? error : -EIO;
    if (f->state == STRAIGHT_ON)
        f->state = STRAIGHT_ENDS;
    if (f->filling)
        piece_put(f->w->writer, f->filling);
    f->filling = NULL;
    struct straight_cut *last = f->cuts ? f->cuts->prev : NULL;
    if (last && !last->closed)
        close_cut(f, last); /* its packs are abandoned */
}

static void cut_free(struct straight_cut *c)
{
    for (unsigned n = 0; n < STRAIGHT_LANES; n++)
        free(c->lanes[n].entries);
    free(c);
}

static bool is_there(const struct straight_file *f, const struct straight_cut *cut)
{
    for (const struct straight_cut *c = f->cuts; c; c = c->next)
        if (c == cut)
            return true;
    return false;
}

struct straight_waiter *cuts_settle(struct straight_file *f)
{
    struct straight_waiter *done = NULL, **at = &f->waiters, **end = &done;
    struct straight_cut *c, *tmp;

    if (f->error)
        DL_FOREACH_SAFE (f->cuts, c, tmp) {
            if (c->open_lanes > 0 || c->confirming)
                continue;
            DL_DELETE(f->cuts, c);
            cut_free(c);
        }
    while (*at) {
        struct straight_waiter *one = *at;
        if (!f->error && is_there(f, one->after)) {
            at = &one->next;
            continue;
        }
        *at = one->next;
        one->next = NULL;
        *end = one;
        end = &one->next;
    }
    return done;
}

/* --- confirms --- */

static void send_confirm(struct straight_cut *c);

static void confirm_ended(struct straight_cut *c, int status)
{
    struct straight_file *f = c->file;

    seq_end(&f->w->centre.seq, c->seq);
    pthread_mutex_lock(&f->lock);
    c->confirming = false;
    if (status < 0) {
        if (!f->error)
            log_error("inode %" PRIu64 ": what was written to the pool is not taken: %s", f->ino,
                      strerror(-status));
        straight_fail(f, status);
    } else {
        DL_DELETE(f->cuts, c);
        cut_free(c);
    }
    pthread_mutex_unlock(&f->lock);
    straight_moved(f);
    straight_unref(f);
}

static void on_confirmed(void *arg, const struct message *reply)
{
    struct straight_cut *c = arg;
    struct worker *w = c->file->w;
    int status;
    Star__ConfirmReply *r = kreq_unpack(reply, &star__confirm_reply__descriptor, &status);

    if (r && r->n_refused > 0)
        status = -ESTALE;
    if (r)
        star__confirm_reply__free_unpacked(r, NULL);
    if (status == -ETIMEDOUT && !atomic_load(&w->stopping) &&
        atomic_load(&w->centre.generation) == c->file->generation)
        send_confirm(c); /* it may be in the log: only its answer says so */
    else
        confirm_ended(c, status);
}

struct confirm_box {
    Star__StraightConfirm body;
    Star__Confirm cut;
    Star__Head head;
    Star__CutFile file, *files[1];
    Star__HomeAttrs attrs;
    Star__Time time;
    Star__ConfirmPack packs[STRAIGHT_LANES], *pack_list[STRAIGHT_LANES];
    Star__CutRecord records[STRAIGHT_CUT_RECORDS], *record_list[STRAIGHT_CUT_RECORDS];
};

static void put_lane(struct confirm_box *b, const struct lane *l)
{
    Star__ConfirmPack *p = &b->packs[b->cut.n_packs];

    star__confirm_pack__init(p);
    p->pack = l->pack;
    p->size = l->size;
    b->pack_list[b->cut.n_packs++] = p;
    for (size_t k = 0; k < l->count; k++) {
        Star__CutRecord *r = &b->records[b->file.n_records];
        star__cut_record__init(r);
        r->offset = l->entries[k].offset;
        r->length = l->entries[k].length;
        r->number = l->entries[k].number;
        r->pack_offset = l->entries[k].pack_offset;
        r->pack = l->pack;
        b->record_list[b->file.n_records++] = r;
    }
}

static void fill_confirm(struct confirm_box *b, const struct straight_cut *c)
{
    star__straight_confirm__init(&b->body);
    star__confirm__init(&b->cut);
    star__head__init(&b->head);
    star__cut_file__init(&b->file);
    star__home_attrs__init(&b->attrs);
    b->body.head = &b->head;
    b->body.cut = &b->cut;
    b->head.seq = c->seq;
    b->head.acked = seq_acked(&c->file->w->centre.seq);
    b->time = stamp_of(c->mtime);
    b->attrs.ino = c->file->ino;
    b->attrs.size = c->size;
    b->attrs.version = c->version;
    b->attrs.home_epoch = c->file->epoch;
    b->attrs.mtime = b->attrs.ctime = &b->time;
    b->file.attrs = &b->attrs;
    b->file.cut = c->number;
    b->file.base_limit = UINT64_MAX;
    b->file.records = b->record_list;
    b->files[0] = &b->file;
    b->cut.n_files = 1;
    b->cut.files = b->files;
    b->cut.packs = b->pack_list;
    for (unsigned n = 0; n < STRAIGHT_LANES; n++)
        if (c->lanes[n].used)
            put_lane(b, &c->lanes[n]);
}

static void send_confirm(struct straight_cut *c)
{
    struct confirm_box *b = calloc(1, sizeof(*b));
    int rc = -ENOMEM;

    if (b) {
        fill_confirm(b, c);
        rc = msession_call(c->file->w, STAR__MSG_TYPE__STRAIGHT_CONFIRM, &b->body.base, NULL, 0,
                           METADATA_DEADLINE_MS, CLIENT_RESEND, on_confirmed, c, NULL);
    }
    free(b);
    if (rc < 0)
        confirm_ended(c, rc);
}

void cuts_confirm(struct straight_file *f)
{
    uint64_t acked;

    pthread_mutex_lock(&f->lock);
    struct straight_cut *c = f->cuts;
    bool ready = c && c->closed && c->open_lanes == 0 && !c->confirming && !f->error;
    if (ready && atomic_load(&f->w->centre.generation) != f->generation) {
        straight_fail(f, -EIO);
        ready = false;
    }
    if (ready && (c->seq = seq_begin(&f->w->centre.seq, &acked)) == 0) {
        straight_fail(f, -EIO);
        ready = false;
    }
    if (ready) {
        c->confirming = true;
        straight_ref(f);
    }
    pthread_mutex_unlock(&f->lock);
    if (ready)
        send_confirm(c);
}
