/* What the control files say. */
#include "control/ctl_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/wire/clock.h"

#ifndef UMBEL_VERSION
#define UMBEL_VERSION "0"
#endif

/* A page of a list ends where so much is left: more than the lines of one object take. */
#define PAGE_SLACK ((size_t)128 << 10)

bool text_page_takes(struct text *t, uint64_t id)
{
    if (id != t->last && t->len > CTL_TEXT_MAX - PAGE_SLACK)
        t->more = true;
    else
        t->last = id;
    return !t->more && !t->cut;
}

void text_put(struct text *t, const char *format, ...)
{
    va_list ap;

    for (;;) {
        size_t room = t->size - t->len;
        va_start(ap, format);
        int n = vsnprintf(t->at ? t->at + t->len : NULL, room, format, ap);
        va_end(ap);
        if (n < 0 || (size_t)n < room) {
            t->len += n < 0 ? 0 : (size_t)n;
            return;
        }
        size_t size = (t->size + (size_t)n + 1) * 2;
        char *grown = t->len + (size_t)n + 1 > CTL_TEXT_MAX ? NULL : realloc(t->at, size);
        if (!grown) {
            t->cut = true;
            return;
        }
        t->at = grown;
        t->size = size;
    }
}

void text_version(struct centre *c, struct text *t)
{
    text_put(t, "umbel %s\nprotocol %u\nstate %u\ncloud %s\n", UMBEL_VERSION, PROTOCOL_VERSION,
             STATE_FORMAT, c->options->cloud);
}

static void text_keys(const struct control_keys *k, struct text *t)
{
    char recovery[72];

    k->recovery(k->ctx, recovery);
    text_put(t, "key_generation %" PRIu32 "\nkey_file %s\nrecovery_key %s\n", k->newest(k->ctx),
             k->file, recovery);
    text_put(t, "recovery_key_stored %s\n", k->wrapped(k->ctx, NULL) == 0 ? "yes" : "no");
}

void text_status(struct centre *c, struct text *t)
{
    struct state_totals s = {0};
    uint64_t capacity = 0, used = 0, staged = 0, cached = 0;
    unsigned here = 0, connected = 0;
    struct session *m;
    struct node *n;

    state_totals(c->state, &s);
    for (n = c->nodes; n; n = n->hh.next) {
        if (!n->peer)
            continue;
        here++;
        capacity += n->capacity;
        used += n->used;
        staged += n->staged;
        cached += n->cached;
    }
    uint64_t pool_read = c->ended_pool_read, pool_written = c->ended_pool_written;
    for (m = c->sessions; m; m = m->hh.next) {
        connected += m->peer != NULL;
        pool_read += m->pool_read;
        pool_written += m->pool_written;
    }
    text_put(t, "cloud %s\nversion %s\nstate %s\n", c->options->cloud, UMBEL_VERSION,
             c->serving ? "serving" : "grace");
    text_put(t, "pool %s\n", c->options->pool);
    const struct control_keys *keys = c->options->keys;
    text_put(t, "seal %s\n", keys ? "on" : "off");
    if (keys)
        text_keys(keys, t);
    text_put(t, "uptime %" PRId64 "\n", (clock_boot_ms() - c->started_ms) / 1000);
    text_put(t, "controls 1\nnodes %u\nnodes_here %u\nmounts %u\n", HASH_COUNT(c->nodes), here,
             connected);
    text_put(t, "capacity %" PRIu64 "\nused %" PRIu64 "\nstaged %" PRIu64 "\ncached %" PRIu64 "\n",
             capacity, used, staged, cached);
    text_put(t, "inodes %" PRIu64 "\norphans %" PRIu64 "\nbytes %" PRIu64 "\npooled %" PRIu64 "\n",
             s.inodes, s.orphans, s.bytes, s.mapped);
    text_put(t, "mounts_pool_read %" PRIu64 "\nmounts_pool_written %" PRIu64 "\n", pool_read,
             pool_written);
    text_put(t, "packs %" PRIu64 "\nrecords %" PRIu64 "\n", s.packs, s.records);
    text_put(t, "log_applied %" PRIu64 "\nlog_disk_free %" PRIu64 "\nlog_ballast %" PRIu64 "\n",
             consensus_applied(c->log), consensus_free_bytes(c->log),
             consensus_ballast_bytes(c->log));
}

static void put_waiting(struct centre *c, struct text *t, const struct session *s)
{
    const struct node *n = node_find(c, s->waiting_node);

    text_put(t, "problem mount %s: %u requests wait, since %u s, for ", s->name, s->waiting,
             s->waiting_s);
    if (n && !n->peer)
        text_put(t, "node %s, which is away\n", n->name);
    else if (n)
        text_put(t, "node %s, or for the pool behind it\n", n->name);
    else
        text_put(t, "the pool\n");
}

void text_health(struct centre *c, struct text *t)
{
    unsigned problems = 0, usable = 0;
    struct session *s;
    struct node *n;

    for (n = c->nodes; n; n = n->hh.next) {
        if (strcmp(n->state, "gone") == 0 || node_is_coming(n))
            continue;
        usable += node_usable(n);
        if (!n->peer)
            problems++, text_put(t, "problem node %s is away\n", n->name);
        if (n->pool_error[0])
            problems++, text_put(t, "problem node %s: pool: %s\n", n->name, n->pool_error);
        if (n->store_error[0])
            problems++, text_put(t, "problem node %s: store: %s\n", n->name, n->store_error);
    }
    if (!usable)
        problems++, text_put(t, "problem no node can take data\n");
    text_demand_health(c, t, &problems);
    if (consensus_room(c->log) < 0)
        problems++,
            text_put(t,
                     "problem the disk under the log is full to its reserve: changes get ENOSPC\n");
    if (pool_quota_reached(c))
        problems++,
            text_put(t, "problem pool_quota is used up: what is staged stays at the nodes\n");
    if (c->gc_stuck > 0)
        problems++, text_put(t,
                             "problem %" PRIu64
                             " packs cannot be deleted from the pool, the first is %" PRIu64 "\n",
                             c->gc_stuck, c->gc_first_stuck);
    if (c->keys_error[0])
        problems++,
            text_put(t,
                     "problem the pool has not got the wrapped keys, so the recovery key would "
                     "not open what is newest: %s\n",
                     c->keys_error);
    if (consensus_snapshot_lacks(c->log) > 0)
        problems++, text_put(t,
                             "problem the disk under the log lacks %" PRIu64
                             " bytes for a snapshot: the log grows until it is taken\n",
                             consensus_snapshot_lacks(c->log));
    for (s = c->sessions; s; s = s->hh.next) {
        if (!s->peer)
            problems++, text_put(t, "problem mount %s is away\n", s->name);
        else if (s->waiting)
            problems++, put_waiting(c, t, s);
    }
    problems += text_jobs_health(c, t);
    text_put(t, "health %s\nproblems %u\n", problems ? "degraded" : "ok", problems);
}

void text_metrics(struct centre *c, struct text *t)
{
    struct state_totals s = {0};
    struct node *n;

    state_totals(c->state, &s);
    text_put(t, "# TYPE umbel_requests_total counter\numbel_requests_total %" PRIu64 "\n",
             c->requests);
    text_put(t, "# TYPE umbel_mutations_total counter\numbel_mutations_total %" PRIu64 "\n",
             c->mutations);
    text_put(t, "# TYPE umbel_refused_total counter\numbel_refused_total %" PRIu64 "\n",
             c->refused);
    text_put(t, "# TYPE umbel_recalls_total counter\numbel_recalls_total %" PRIu64 "\n",
             c->recalls_sent);
    text_put(
        t,
        "# TYPE umbel_garbage_connections_total counter\numbel_garbage_connections_total %" PRIu64
        "\n",
        hub_garbage(c->hub) + (c->hub_tcp ? hub_garbage(c->hub_tcp) : 0));
    text_put(t, "# TYPE umbel_ops_in_flight gauge\numbel_ops_in_flight %u\n", c->ops);
    text_put(t, "# TYPE umbel_live_inodes gauge\numbel_live_inodes %u\n", HASH_COUNT(c->lives));
    text_put(t, "# TYPE umbel_inodes gauge\numbel_inodes %" PRIu64 "\n", s.inodes);
    text_put(t, "# TYPE umbel_packs gauge\numbel_packs %" PRIu64 "\n", s.packs);
    text_jobs(c, t);
    text_demand(c, t);
    text_put(t, "# TYPE umbel_node_bytes gauge\n");
    for (n = c->nodes; n; n = n->hh.next)
        text_put(t,
                 "umbel_node_bytes{node=\"%s\",kind=\"staged\"} %" PRIu64
                 "\numbel_node_bytes{node=\"%s\",kind=\"cached\"} %" PRIu64 "\n",
                 n->name, n->staged, n->name, n->cached);
    text_put(t, "# TYPE umbel_node_transfer_bytes_total counter\n");
    for (n = c->nodes; n; n = n->hh.next)
        text_put(t,
                 "umbel_node_transfer_bytes_total{node=\"%s\",kind=\"read\"} %" PRIu64
                 "\numbel_node_transfer_bytes_total{node=\"%s\",kind=\"write\"} %" PRIu64
                 "\numbel_node_transfer_bytes_total{node=\"%s\",kind=\"fetched\"} %" PRIu64
                 "\numbel_node_transfer_bytes_total{node=\"%s\",kind=\"flushed\"} %" PRIu64 "\n",
                 n->name, n->read_bytes, n->name, n->write_bytes, n->name, n->fetched_bytes,
                 n->name, n->flushed_bytes);
}

static void text_ring(const struct events *e, struct text *t)
{
    size_t len;
    char *all = events_text(e, CTL_TEXT_MAX - 1, &len);

    if (all)
        text_put(t, "%s", all);
    free(all);
}

void text_events(struct centre *c, struct text *t)
{
    text_ring(&c->events, t);
}

void text_errors(struct centre *c, struct text *t)
{
    text_ring(&c->errors, t);
}

struct cache_text {
    struct centre *c;
    struct text *t;
};

static bool cache_line(void *arg, const struct state_copy_line *line)
{
    struct cache_text *a = arg;
    struct node *n = node_find(a->c, line->node);
    const char *name = n ? n->name : "?";
    char path[4200];

    if (!text_page_takes(a->t, line->ino))
        return false;
    state_path(a->c->state, line->ino, path, sizeof(path));
    if (line->staged)
        text_put(a->t, "%s %s staged %" PRIu64 "\n", path, name, line->staged);
    if (line->cached)
        text_put(a->t, "%s %s cached %" PRIu64 "\n", path, name, line->cached);
    return true;
}

/* The page behind it is cache.INO. */
void text_cache(struct centre *c, struct text *t)
{
    struct cache_text a = {.c = c, .t = t};

    state_copies(c->state, 0, t->after, t->after ? UINT32_MAX : 0, cache_line, &a);
    if (t->more)
        text_put(t, "# next %" PRIu64 "\n", t->last);
}

static bool pack_line(void *arg, const struct state_pack *p)
{
    static const char *const states[] = {"?", "allocated", "live", "condemned", "meta"};
    struct text *t = arg;

    if (!text_page_takes(t, p->id))
        return false;
    text_put(t, "%" PRIu64 " %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu32 "\n", p->id,
             states[p->state <= PACK_META ? p->state : 0], p->size, p->live_bytes, p->live_records,
             p->generation);
    return true;
}

/* The page behind it is packs.ID; "# end" says that there is none. */
void text_packs(struct centre *c, struct text *t)
{
    state_packs(c->state, t->after, pack_line, t);
    if (t->more)
        text_put(t, "# next %" PRIu64 "\n", t->last);
    else
        text_put(t, "# end\n");
}

void text_gc(struct centre *c, struct text *t)
{
    const struct gc_counts *g = gc_show(c);

    text_put(t, "running %d\n", c->gc != NULL);
    text_put(t, "packs_deleted %" PRIu64 "\nbytes_freed %" PRIu64 "\n", g->deleted, g->freed);
    text_put(t, "packs_rewritten %" PRIu64 "\nrecords_moved %" PRIu64 "\nbytes_moved %" PRIu64 "\n",
             g->rewritten, g->records, g->moved);
    text_put(t, "bytes_to_move %" PRIu64 "\nrecords_failed %" PRIu64 "\n", g->todo, g->failed);
    text_put(t, "packs_of_older_keys %" PRIu64 "\nallocated_under_older_keys %" PRIu64 "\n", g->old,
             g->old_allocated);
}

void text_scrub(struct centre *c, struct text *t)
{
    size_t len;
    char *all = scrub_text(c, &len);

    if (all)
        text_put(t, "%s", all);
    free(all);
}

void text_node(struct node *n, struct text *t)
{
    text_put(t, "name %s\nid %u\nstate %s\nhere %s\naddress %s\nmachine %s\n", n->name, n->id,
             n->state, n->peer ? "yes" : "no", n->address, n->machine);
    if (n->origin[0])
        text_put(t, "on_demand %s\nstarts %u\n", n->origin, n->starts);
    if (n->origin[0] && n->life.said[0])
        text_put(t, "start_error %s\n", n->life.said);
    text_put(t,
             "capacity %" PRIu64 "\nused %" PRIu64 "\nstaged %" PRIu64 "\ncached %" PRIu64
             "\nfiles %" PRIu64 "\n",
             n->capacity, n->used, n->staged, n->cached, n->files);
    text_put(t,
             "load %.2f\nread_bytes %" PRIu64 "\nwrite_bytes %" PRIu64 "\nfetched_bytes %" PRIu64
             "\nflushed_bytes %" PRIu64 "\n",
             n->load, n->read_bytes, n->write_bytes, n->fetched_bytes, n->flushed_bytes);
    if (n->power.jobs)
        text_put(t,
                 "jobs yes\ncores %u\ncore_speed %" PRIu64 "\nmilli_cpus %u\nmilli_busy %u\n"
                 "memory %" PRIu64 "\nmemory_busy %" PRIu64 "\n",
                 n->power.cores, n->power.core_speed, n->power.milli_cpus, n->power.milli_busy,
                 n->power.memory, n->power.memory_busy);
    else
        text_put(t, "jobs no: %s\n", n->power.detail[0] ? n->power.detail : "not known yet");
    text_put(t, "pool_error %s\nstore_error %s\n", n->pool_error[0] ? n->pool_error : "none",
             n->store_error[0] ? n->store_error : "none");
}
