/* One group of files: freeze, write, confirm. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/stamp.h"
#include "nodecache/flush_private.h"

/* Between attempts to have the same Confirm answered. */
#define CONFIRM_RETRY_MIN_MS 100
#define CONFIRM_RETRY_MAX_MS 5000

/* ---- what to write ---- */

/* The map windows of a file's staged bytes, asked for before the file is locked. */
struct windows {
    struct map_window **all;
    size_t count;
};

static void windows_put(struct windows *w)
{
    for (size_t i = 0; i < w->count; i++)
        maps_put(w->all[i]);
    free(w->all);
    *w = (struct windows){0};
}

static int windows_get(struct store *s, struct file *f, const struct ranges *staged,
                       struct windows *w)
{
    struct range next;
    uint64_t at = 0;

    while (ranges_next(staged, at, &next)) {
        uint64_t start = next.start > at ? next.start : at;
        struct map_window **all = realloc(w->all, (w->count + 1) * sizeof(*all));
        if (!all)
            return -ENOMEM;
        w->all = all;
        int rc = maps_get(&s->maps, s->options.centre, s->options.centre_ctx, f->ino, start,
                          &w->all[w->count]);
        if (rc < 0)
            return rc;
        w->count++;
        at = start - start % MAPS_WINDOW + MAPS_WINDOW;
    }
    return 0;
}

static unsigned extents_in(const struct windows *w, uint64_t start, uint64_t end)
{
    unsigned n = 0;

    for (size_t i = 0; i < w->count; i++) {
        const struct map_window *one = w->all[i];
        if (one->key.start > start || start - one->key.start >= MAPS_WINDOW)
            continue;
        const struct map_extent *e = maps_find(one, start);
        for (; e && e < one->extents + one->count && e->offset < end; e++)
            n++;
    }
    return n;
}

/* Indices to write whole: more than one staged range, or a map that is getting scattered. *limit:
 * where the cut must end. f->lock is held. */
static int plan(const struct file *f, const struct windows *w, struct ranges *whole,
                uint64_t *limit)
{
    uint64_t at = 0;
    struct range first, second;

    *limit = LIMIT_NONE;
    for (unsigned n = 0; ranges_next(&f->staged, at, &first); n++) {
        uint64_t start = first.start > at ? first.start : at;
        uint64_t index = start - start % NODE_INDEX, end = index + NODE_INDEX;
        if (n == FLUSH_INDICES_MAX) {
            *limit = index;
            break;
        }
        bool many = ranges_next(&f->staged, first.end, &second) && second.start < end;
        if (many || extents_in(w, index, end) >= FLUSH_MERGE_EXTENTS) {
            int rc = ranges_insert(whole, index, end < f->size ? end : f->size);
            if (rc < 0)
                return rc;
        }
        at = end;
    }
    return 0;
}

/* The centre is away, or the process has no memory: it is not this file's fault. */
static bool nobody_gets_further(int rc)
{
    return centre_unsure(rc) || rc == -ESHUTDOWN || rc == -ENOMEM;
}

/* Clean bytes that go into a pack once more are verified: what is damaged here comes from the pool.
 * f->lock is held. */
static int verify_whole(struct store *s, struct file *f, const struct ranges *whole)
{
    struct range next;
    uint64_t at = 0;
    int rc = 0;

    while ((rc == 0 || rc == -EAGAIN) && ranges_next(whole, at, &next)) {
        rc = clean_verify(s, f, next.start, next.end);
        at = next.end;
    }
    return rc == -EAGAIN ? 0 : rc;
}

/* Freezes one file. 0 with m->begun false: there is nothing to do. */
static int begin(struct group *g, struct member *m, struct ranges *whole)
{
    struct store *s = g->flush->store;
    struct file *f = m->file;
    struct ranges staged;
    struct windows w = {0};
    uint64_t limit;
    int rc;

    ranges_init(&staged);
    pthread_mutex_lock(&f->lock);
    bool mapped = f->mapped;
    rc = mapped ? ranges_copy(&staged, &f->staged) : 0;
    pthread_mutex_unlock(&f->lock);
    if (rc == 0 && mapped)
        rc = windows_get(s, f, &staged, &w);
    if (rc < 0) {
        snprintf(g->detail, sizeof(g->detail), "the map of inode %" PRIu64 ": %s", f->ino,
                 strerror(-rc));
        if (!nobody_gets_further(rc))
            m->failed = rc;
    }
    pthread_mutex_lock(&f->lock);
    if (rc == 0 && !f->gone && f->is_home && file_dirty(f) && !f->cut) {
        rc = plan(f, &w, whole, &limit);
        if (rc == 0)
            rc = verify_whole(s, f, whole);
        if (rc == 0)
            rc = cut_begin(f, whole, limit);
        m->begun = rc == 0;
    }
    pthread_mutex_unlock(&f->lock);
    windows_put(&w);
    ranges_clear(&staged);
    return rc;
}

/* ---- writing ---- */

/* One record: frozen bytes over what the buffer holds. */
static int write_record(struct group *g, struct member *m, uint64_t start, uint64_t end)
{
    struct file *f = m->file;
    int rc;

    pthread_mutex_lock(&f->lock);
    rc = cut_read(g->flush->store, f, start, end, g->buffer);
    pthread_mutex_unlock(&f->lock);
    if (rc < 0 && rc != -ECANCELED) {
        snprintf(g->detail, sizeof(g->detail), "inode %" PRIu64 ": its staged bytes: %s", f->ino,
                 strerror(-rc));
        m->failed = rc;
    }
    return rc < 0 ? rc : packs_add(g, m, start, (uint32_t)(end - start));
}

/* The frozen ranges of one index, one record each. */
static int write_parts(struct group *g, struct member *m, uint64_t start, uint64_t end)
{
    const struct cut *c = m->file->cut;
    struct range next;
    int rc = 0;

    while (rc == 0 && start < end && ranges_next(&c->frozen, start, &next) && next.start < end) {
        uint64_t from = next.start > start ? next.start : start;
        start = next.end < end ? next.end : end;
        rc = write_record(g, m, from, start);
    }
    return rc;
}

/* One index as one record, with what lies in the pool between the frozen bytes. */
static int write_whole(struct group *g, struct member *m, uint64_t start, uint64_t end)
{
    const struct cut *c = m->file->cut;
    int rc = 0;

    /* frozen does not change before the cut ends, and only this thread ends it. */
    if (!ranges_contains(&c->frozen, start, end)) {
        memset(g->buffer, 0, end - start);
        if (c->mapped)
            rc = pool_bytes(g->flush->store, m->file->ino, start, end, c->base_limit, g->buffer,
                            NULL, g->detail);
    }
    if (nobody_gets_further(rc))
        return rc;
    /* Old bytes that cannot be had do not hold up the new ones. */
    g->detail[0] = 0;
    return rc < 0 ? write_parts(g, m, start, end) : write_record(g, m, start, end);
}

static int write_file(struct group *g, struct member *m, const struct ranges *whole)
{
    const struct cut *c = m->file->cut;
    struct range next;
    uint64_t at = 0;
    int rc = 0;

    while (rc == 0 && ranges_next(&c->frozen, at, &next)) {
        uint64_t start = next.start > at ? next.start : at;
        uint64_t end = start - start % NODE_INDEX + NODE_INDEX;
        struct range all;
        bool is_whole = ranges_next(whole, start, &all) && all.start <= start;
        if (is_whole) {
            start -= start % NODE_INDEX;
            end = end < all.end ? end : all.end;
        } else {
            end = end < next.end ? end : next.end;
        }
        rc = is_whole ? write_whole(g, m, start, end) : write_record(g, m, start, end);
        at = end;
        if (rc == 0 && flush_stopping(g->flush))
            rc = -ESHUTDOWN;
    }
    return rc == 0 ? packs_add_file(g, m) : rc;
}

/* This one cannot be had: the others go on. */
static void member_failed(struct group *g, struct member *m)
{
    struct flush *fl = g->flush;

    m->cancelled = true;
    g->failed++;
    pthread_mutex_lock(&m->file->lock);
    if (m->begun)
        cut_cancel(m->file); /* its writers need not keep what nobody will read */
    pthread_mutex_unlock(&m->file->lock);
    if (m->file->retry_ms == 0)
        store_say(fl->store, "flush: %s; it stays staged", g->detail);
    pthread_mutex_lock(&fl->lock);
    fl->failed_ino = m->file->ino;
    snprintf(fl->failed_error, sizeof(fl->failed_error), "%s", g->detail);
    pthread_mutex_unlock(&fl->lock);
    g->detail[0] = 0;
}

/* Freezes and writes all members, one after the other. A file that is cancelled or fails is left
 * out. */
static int write_all(struct group *g)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < g->count; i++) {
        struct member *m = &g->members[i];
        struct ranges whole;
        ranges_init(&whole);
        rc = begin(g, m, &whole);
        if (rc == 0 && m->begun)
            rc = write_file(g, m, &whole);
        ranges_clear(&whole);
        if (m->failed < 0) {
            member_failed(g, m);
            rc = 0;
        } else if (rc == -ECANCELED) {
            m->cancelled = true;
            rc = 0;
        }
    }
    return rc == 0 ? packs_finish(g) : rc;
}

/* ---- confirming ---- */

/* The number of the cut and its lowest pack are durable before anyone can confirm it. */
static int note_cuts(struct group *g)
{
    struct store *s = g->flush->store;
    uint64_t lowest = 0;
    int rc = 0;

    for (size_t i = 0; i < g->packs_count; i++) {
        if (lowest == 0 || g->packs[i].pack < lowest)
            lowest = g->packs[i].pack;
    }
    for (size_t i = 0; rc == 0 && i < g->count; i++) {
        struct member *m = &g->members[i];
        struct row row;
        if (!m->begun || m->cancelled)
            continue;
        pthread_mutex_lock(&m->file->lock);
        if (m->file->gone || m->file->cut->cancelled) {
            m->cancelled = true;
        } else {
            row_of(m->file, &row);
            row.cut_number++;
            row.cut_pack = lowest;
            row.cut_partial = m->file->cut->partial;
            rc = index_row_later(&s->index, m->file, &row);
        }
        pthread_mutex_unlock(&m->file->lock);
    }
    if (rc == 0)
        rc = journal_sync(s->index.journal, UINT64_MAX);
    if (rc < 0) {
        snprintf(g->detail, sizeof(g->detail), "journal: %s", strerror(-rc));
        store_failed(s, rc, "noting a cut", 0);
    }
    return rc;
}

/* The message lives in one arena, which is freed as a whole. */
struct message_parts {
    Star__Confirm confirm;
    Star__ConfirmPack *packs;
    Star__ConfirmPack **pack_list;
    Star__CutFile *files;
    Star__CutFile **file_list;
    Star__HomeAttrs *attrs;
    Star__Time *times;
    Star__CutRecord *records;
    Star__CutRecord **record_list;
};

static void parts_free(struct message_parts *p)
{
    free(p->packs);
    free(p->pack_list);
    free(p->files);
    free(p->file_list);
    free(p->attrs);
    free(p->times);
    free(p->records);
    free(p->record_list);
}

static int parts_alloc(const struct group *g, struct message_parts *p)
{
    star__confirm__init(&p->confirm);
    p->packs = calloc(g->packs_count + 1, sizeof(*p->packs));
    p->pack_list = calloc(g->packs_count + 1, sizeof(*p->pack_list));
    p->files = calloc(g->count, sizeof(*p->files));
    p->file_list = calloc(g->count, sizeof(*p->file_list));
    p->attrs = calloc(g->count, sizeof(*p->attrs));
    p->times = calloc(2 * g->count, sizeof(*p->times));
    p->records = calloc(g->records + 1, sizeof(*p->records));
    p->record_list = calloc(g->records + 1, sizeof(*p->record_list));
    return p->packs && p->pack_list && p->files && p->file_list && p->attrs && p->times &&
                   p->records && p->record_list
               ? 0
               : -ENOMEM;
}

static void put_file(struct message_parts *p, const struct member *m, uint32_t node,
                     size_t *records)
{
    size_t i = p->confirm.n_files;
    const struct cut *c = m->file->cut;
    Star__HomeAttrs *a = &p->attrs[i];
    Star__CutFile *f = &p->files[i];

    star__home_attrs__init(a);
    p->times[2 * i] = stamp_of(c->attrs.mtime);
    p->times[2 * i + 1] = stamp_of(c->attrs.ctime);
    a->ino = c->attrs.ino;
    a->size = c->attrs.size;
    a->mtime = &p->times[2 * i];
    a->ctime = &p->times[2 * i + 1];
    a->version = c->attrs.version;
    a->home_epoch = c->attrs.home_epoch;
    a->node = node;
    a->bytes = c->attrs.bytes;
    star__cut_file__init(f);
    f->attrs = a;
    f->cut = m->file->cut_number;
    f->base_limit = c->base_limit;
    f->records = &p->record_list[*records];
    for (size_t n = 0; n < m->count; n++) {
        Star__CutRecord *r = &p->records[*records];
        star__cut_record__init(r);
        r->offset = m->records[n].offset;
        r->length = m->records[n].length;
        r->number = m->records[n].number;
        r->pack = m->records[n].pack;
        r->pack_offset = m->records[n].pack_offset;
        p->record_list[(*records)++] = r;
    }
    f->n_records = m->count;
    p->file_list[p->confirm.n_files++] = f;
}

static void parts_fill(const struct group *g, struct message_parts *p)
{
    size_t records = 0;

    p->confirm.node = store_node(g->flush->store);
    for (size_t i = 0; i < g->packs_count; i++) {
        star__confirm_pack__init(&p->packs[i]);
        p->packs[i].pack = g->packs[i].pack;
        p->packs[i].size = g->packs[i].size;
        p->pack_list[i] = &p->packs[i];
    }
    p->confirm.packs = p->pack_list;
    p->confirm.n_packs = g->packs_count;
    p->confirm.files = p->file_list;
    for (size_t i = 0; i < g->count; i++) {
        const struct member *m = &g->members[i];
        if (m->begun && !m->cancelled)
            put_file(p, m, p->confirm.node, &records);
    }
}

static void nap(struct flush *fl, int ms)
{
    struct timespec until = deadline_in(ms);

    pthread_mutex_lock(&fl->lock);
    if (!fl->stop)
        pthread_cond_timedwait(&fl->work, &fl->lock, &until);
    pthread_mutex_unlock(&fl->lock);
}

/* Asks until it is known whether the cut was taken. */
static int confirm(struct group *g, const Star__Confirm *message, Star__ConfirmReply **reply)
{
    struct flush *fl = g->flush;
    int wait = CONFIRM_RETRY_MIN_MS;

    for (;;) {
        int rc = fl->centre->confirm(fl->centre_ctx, message, reply);
        if (!centre_unsure(rc)) {
            if (rc < 0)
                snprintf(g->detail, sizeof(g->detail), "the centre does not confirm: %s",
                         strerror(-rc));
            return rc;
        }
        if (flush_stopping(fl))
            return -ESHUTDOWN;
        nap(fl, wait);
        wait = wait * 2 < CONFIRM_RETRY_MAX_MS ? wait * 2 : CONFIRM_RETRY_MAX_MS;
    }
}

static bool refused(const Star__ConfirmReply *reply, uint64_t ino)
{
    for (size_t i = 0; reply && i < reply->n_refused; i++) {
        if (reply->refused[i] == ino)
            return true;
    }
    return false;
}

static void count_refusal(struct flush *fl)
{
    pthread_mutex_lock(&fl->lock);
    fl->refusals++;
    pthread_mutex_unlock(&fl->lock);
}

static int end_all(struct group *g, bool taken, const Star__ConfirmReply *reply)
{
    struct store *s = g->flush->store;
    int rc = 0;

    for (size_t i = 0; i < g->count; i++) {
        struct member *m = &g->members[i];
        if (!m->begun)
            continue;
        bool no = refused(reply, m->file->ino);
        pthread_mutex_lock(&m->file->lock);
        if (no && !m->file->gone && !m->cancelled) {
            store_say(s, "inode %" PRIu64 ": the centre refused its cut; it stays staged here",
                      m->file->ino);
            g->refused++;
            count_refusal(g->flush); /* before who waits for the file sees it done */
        }
        int one = cut_end(s, m->file, taken && !no && !m->cancelled, m->count > 0);
        if (no && m->file->on_staged_list)
            staged_again(s, m->file, clock_boot_ns());
        pthread_mutex_unlock(&m->file->lock);
        m->begun = false;
        if (rc == 0)
            rc = one;
    }
    int pushed = journal_push(s->index.journal);
    return rc < 0 || pushed == 0 ? rc : store_failed(s, pushed, "marking as clean", 0);
}

static bool anything(const struct group *g)
{
    for (size_t i = 0; i < g->count; i++) {
        if (g->members[i].begun && !g->members[i].cancelled)
            return true;
    }
    return false;
}

static int confirm_all(struct group *g)
{
    struct message_parts parts = {0};
    Star__ConfirmReply *reply = NULL;
    int rc = parts_alloc(g, &parts);

    if (rc == 0) {
        parts_fill(g, &parts);
        rc = confirm(g, &parts.confirm, &reply);
    }
    parts_free(&parts);
    g->confirmed = rc == 0;
    int ended = end_all(g, rc == 0, reply);
    if (reply)
        star__confirm_reply__free_unpacked(reply, NULL);
    return rc < 0 ? rc : ended;
}

int group_flush(struct group *g)
{
    int rc;

    g->buffer = malloc(POOL_RECORD_MAX);
    rc = g->buffer ? write_all(g) : -ENOMEM;
    if (rc == 0 && anything(g))
        rc = note_cuts(g);
    if (rc == 0 && anything(g)) {
        rc = confirm_all(g);
        /* Unless the centre said no, it may have them. */
        if (rc < 0 && rc != -ESHUTDOWN && !g->confirmed)
            packs_discard(g, true);
    } else {
        packs_discard(g, false);
        (void)end_all(g, false, NULL);
    }
    free(g->buffer);
    g->buffer = NULL;
    return rc;
}
