/*
 * The control-file tree .umbel (section 8 of the design): small virtual files whose text is made
 * when it is read.
 *
 * An inode number says all: top bit | kind << 56 | object << 8 | file, so it outlives workers and
 * centres.
 */
#include "control/centre.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/wire/clock.h"

#ifndef UMBEL_VERSION
#define UMBEL_VERSION "0"
#endif

#define CTL_BIT         (1ull << 63)
#define CTL_TEXT_MAX    FRAME_PAYLOAD_MAX
#define CTL_COMMAND_MAX 65536
#define OBJECT_MAX      0xffffffffffffull

enum kind {
    KIND_TOP,
    KIND_FILE,
    KIND_SETTINGS,
    KIND_SETTING,
    KIND_NODES,
    KIND_NODE,
    KIND_NODE_FILE
};

static uint64_t ctl_ino(enum kind kind, uint64_t object, unsigned file)
{
    return CTL_BIT | (uint64_t)kind << 56 | object << 8 | file;
}

static enum kind kind_of(uint64_t ino)
{
    return (enum kind)(ino >> 56 & 0x7f);
}

static uint64_t object_of(uint64_t ino)
{
    return ino >> 8 & OBJECT_MAX;
}

static unsigned file_of(uint64_t ino)
{
    return (unsigned)(ino & 0xff);
}

bool ctl_is_ino(uint64_t ino)
{
    return (ino & CTL_BIT) != 0;
}

/* --- text --- */

struct text {
    char *at;
    size_t len, size;
    bool cut;
    uint64_t after, last; /* of a list in pages: this one begins behind after, and got to last */
    bool more;
};

/* A page of a list ends where so much is left: more than the lines of one object take. */
#define PAGE_SLACK ((size_t)128 << 10)

/* May lines of object id be added to the page? */
static bool page_takes(struct text *t, uint64_t id)
{
    if (id != t->last && t->len > CTL_TEXT_MAX - PAGE_SLACK)
        t->more = true;
    else
        t->last = id;
    return !t->more && !t->cut;
}

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *format, ...)
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

static void text_version(struct centre *c, struct text *t)
{
    put(t, "umbel %s\nprotocol %u\nstate %u\ncloud %s\n", UMBEL_VERSION, PROTOCOL_VERSION,
        STATE_FORMAT, c->options->cloud);
}

static void text_keys(const struct control_keys *k, struct text *t)
{
    char recovery[72];

    k->recovery(k->ctx, recovery);
    put(t, "key_generation %" PRIu32 "\nkey_file %s\nrecovery_key %s\n", k->newest(k->ctx), k->file,
        recovery);
    put(t, "recovery_key_stored %s\n", k->wrapped(k->ctx, NULL) == 0 ? "yes" : "no");
}

static void text_status(struct centre *c, struct text *t)
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
    put(t, "cloud %s\nversion %s\nstate %s\n", c->options->cloud, UMBEL_VERSION,
        c->serving ? "serving" : "grace");
    put(t, "pool %s\n", c->options->pool);
    const struct control_keys *keys = c->options->keys;
    put(t, "seal %s\n", keys ? "on" : "off");
    if (keys)
        text_keys(keys, t);
    put(t, "uptime %" PRId64 "\n", (clock_boot_ms() - c->started_ms) / 1000);
    put(t, "controls 1\nnodes %u\nnodes_here %u\nmounts %u\n", HASH_COUNT(c->nodes), here,
        connected);
    put(t, "capacity %" PRIu64 "\nused %" PRIu64 "\nstaged %" PRIu64 "\ncached %" PRIu64 "\n",
        capacity, used, staged, cached);
    put(t, "inodes %" PRIu64 "\norphans %" PRIu64 "\nbytes %" PRIu64 "\npooled %" PRIu64 "\n",
        s.inodes, s.orphans, s.bytes, s.mapped);
    put(t, "mounts_pool_read %" PRIu64 "\nmounts_pool_written %" PRIu64 "\n", pool_read,
        pool_written);
    put(t, "packs %" PRIu64 "\nrecords %" PRIu64 "\n", s.packs, s.records);
    put(t, "log_applied %" PRIu64 "\nlog_disk_free %" PRIu64 "\nlog_ballast %" PRIu64 "\n",
        consensus_applied(c->log), consensus_free_bytes(c->log), consensus_ballast_bytes(c->log));
}

static void put_waiting(struct centre *c, struct text *t, const struct session *s)
{
    const struct node *n = node_find(c, s->waiting_node);

    put(t, "problem mount %s: %u requests wait, since %u s, for ", s->name, s->waiting,
        s->waiting_s);
    if (n && !n->peer)
        put(t, "node %s, which is away\n", n->name);
    else if (n)
        put(t, "node %s, or for the pool behind it\n", n->name);
    else
        put(t, "the pool\n");
}

static void text_health(struct centre *c, struct text *t)
{
    unsigned problems = 0, usable = 0;
    struct session *s;
    struct node *n;

    for (n = c->nodes; n; n = n->hh.next) {
        if (strcmp(n->state, "gone") == 0)
            continue;
        usable += node_usable(n);
        if (!n->peer)
            problems++, put(t, "problem node %s is away\n", n->name);
        if (n->pool_error[0])
            problems++, put(t, "problem node %s: pool: %s\n", n->name, n->pool_error);
        if (n->store_error[0])
            problems++, put(t, "problem node %s: store: %s\n", n->name, n->store_error);
    }
    if (!usable)
        problems++, put(t, "problem no node can take data\n");
    if (consensus_room(c->log) < 0)
        problems++,
            put(t, "problem the disk under the log is full to its reserve: changes get ENOSPC\n");
    if (pool_quota_reached(c))
        problems++, put(t, "problem pool_quota is used up: what is staged stays at the nodes\n");
    if (c->gc_stuck > 0)
        problems++, put(t,
                        "problem %" PRIu64
                        " packs cannot be deleted from the pool, the first is %" PRIu64 "\n",
                        c->gc_stuck, c->gc_first_stuck);
    if (c->keys_error[0])
        problems++, put(t,
                        "problem the pool has not got the wrapped keys, so the recovery key would "
                        "not open what is newest: %s\n",
                        c->keys_error);
    if (consensus_snapshot_lacks(c->log) > 0)
        problems++, put(t,
                        "problem the disk under the log lacks %" PRIu64
                        " bytes for a snapshot: the log grows until it is taken\n",
                        consensus_snapshot_lacks(c->log));
    for (s = c->sessions; s; s = s->hh.next) {
        if (!s->peer)
            problems++, put(t, "problem mount %s is away\n", s->name);
        else if (s->waiting)
            problems++, put_waiting(c, t, s);
    }
    put(t, "health %s\nproblems %u\n", problems ? "degraded" : "ok", problems);
}

static void text_metrics(struct centre *c, struct text *t)
{
    struct state_totals s = {0};
    struct node *n;

    state_totals(c->state, &s);
    put(t, "# TYPE umbel_requests_total counter\numbel_requests_total %" PRIu64 "\n", c->requests);
    put(t, "# TYPE umbel_mutations_total counter\numbel_mutations_total %" PRIu64 "\n",
        c->mutations);
    put(t, "# TYPE umbel_refused_total counter\numbel_refused_total %" PRIu64 "\n", c->refused);
    put(t, "# TYPE umbel_recalls_total counter\numbel_recalls_total %" PRIu64 "\n",
        c->recalls_sent);
    put(t,
        "# TYPE umbel_garbage_connections_total counter\numbel_garbage_connections_total %" PRIu64
        "\n",
        hub_garbage(c->hub) + (c->hub_tcp ? hub_garbage(c->hub_tcp) : 0));
    put(t, "# TYPE umbel_ops_in_flight gauge\numbel_ops_in_flight %u\n", c->ops);
    put(t, "# TYPE umbel_live_inodes gauge\numbel_live_inodes %u\n", HASH_COUNT(c->lives));
    put(t, "# TYPE umbel_inodes gauge\numbel_inodes %" PRIu64 "\n", s.inodes);
    put(t, "# TYPE umbel_packs gauge\numbel_packs %" PRIu64 "\n", s.packs);
    put(t, "# TYPE umbel_node_bytes gauge\n");
    for (n = c->nodes; n; n = n->hh.next)
        put(t,
            "umbel_node_bytes{node=\"%s\",kind=\"staged\"} %" PRIu64
            "\numbel_node_bytes{node=\"%s\",kind=\"cached\"} %" PRIu64 "\n",
            n->name, n->staged, n->name, n->cached);
    put(t, "# TYPE umbel_node_transfer_bytes_total counter\n");
    for (n = c->nodes; n; n = n->hh.next)
        put(t,
            "umbel_node_transfer_bytes_total{node=\"%s\",kind=\"read\"} %" PRIu64
            "\numbel_node_transfer_bytes_total{node=\"%s\",kind=\"write\"} %" PRIu64
            "\numbel_node_transfer_bytes_total{node=\"%s\",kind=\"fetched\"} %" PRIu64
            "\numbel_node_transfer_bytes_total{node=\"%s\",kind=\"flushed\"} %" PRIu64 "\n",
            n->name, n->read_bytes, n->name, n->write_bytes, n->name, n->fetched_bytes, n->name,
            n->flushed_bytes);
}

static void text_ring(const struct events *e, struct text *t)
{
    size_t len;
    char *all = events_text(e, CTL_TEXT_MAX - 1, &len);

    if (all)
        put(t, "%s", all);
    free(all);
}

static void text_events(struct centre *c, struct text *t)
{
    text_ring(&c->events, t);
}

static void text_errors(struct centre *c, struct text *t)
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

    if (!page_takes(a->t, line->ino))
        return false;
    state_path(a->c->state, line->ino, path, sizeof(path));
    if (line->staged)
        put(a->t, "%s %s staged %" PRIu64 "\n", path, name, line->staged);
    if (line->cached)
        put(a->t, "%s %s cached %" PRIu64 "\n", path, name, line->cached);
    return true;
}

/* The page behind it is cache.INO. */
static void text_cache(struct centre *c, struct text *t)
{
    struct cache_text a = {.c = c, .t = t};

    state_copies(c->state, 0, t->after, t->after ? UINT32_MAX : 0, cache_line, &a);
    if (t->more)
        put(t, "# next %" PRIu64 "\n", t->last);
}

static bool pack_line(void *arg, const struct state_pack *p)
{
    static const char *const states[] = {"?", "allocated", "live", "condemned", "meta"};
    struct text *t = arg;

    if (!page_takes(t, p->id))
        return false;
    put(t, "%" PRIu64 " %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu32 "\n", p->id,
        states[p->state <= PACK_META ? p->state : 0], p->size, p->live_bytes, p->live_records,
        p->generation);
    return true;
}

/* The page behind it is packs.ID; "# end" says that there is none. */
static void text_packs(struct centre *c, struct text *t)
{
    state_packs(c->state, t->after, pack_line, t);
    if (t->more)
        put(t, "# next %" PRIu64 "\n", t->last);
    else
        put(t, "# end\n");
}

static void text_gc(struct centre *c, struct text *t)
{
    const struct gc_counts *g = gc_show(c);

    put(t, "running %d\n", c->gc != NULL);
    put(t, "packs_deleted %" PRIu64 "\nbytes_freed %" PRIu64 "\n", g->deleted, g->freed);
    put(t, "packs_rewritten %" PRIu64 "\nrecords_moved %" PRIu64 "\nbytes_moved %" PRIu64 "\n",
        g->rewritten, g->records, g->moved);
    put(t, "bytes_to_move %" PRIu64 "\nrecords_failed %" PRIu64 "\n", g->todo, g->failed);
    put(t, "packs_of_older_keys %" PRIu64 "\nallocated_under_older_keys %" PRIu64 "\n", g->old,
        g->old_allocated);
}

static void text_scrub(struct centre *c, struct text *t)
{
    size_t len;
    char *all = scrub_text(c, &len);

    if (all)
        put(t, "%s", all);
    free(all);
}

static void problem_line(void *arg, const char *line)
{
    put(arg, "problem %s\n", line);
}

struct ctl_file {
    const char *name;
    uint32_t mode;
    void (*text)(struct centre *c, struct text *t);
    bool pages; /* NAME.N is the page behind N */
};

static const struct ctl_file top_files[] = {
    {"version", 0444, text_version, false},
    {"status", 0444, text_status, false},
    {"health", 0444, text_health, false},
    {"metrics", 0444, text_metrics, false},
    {"events", 0440, text_events, false},
    {"errors", 0444, text_errors, false},
    {"cache", 0440, text_cache, true},
    {"packs", 0440, text_packs, true},
    {"gc", 0444, text_gc, false},
    {"scrub", 0440, text_scrub, false},
    {"fsck", 0400, NULL, false},
    {"ctl", 0200, NULL, false},
};
static const struct ctl_file node_files[] = {{"status", 0444, NULL, false},
                                             {"ctl", 0200, NULL, false}};
static const char *const top_dirs[] = {"settings", "nodes"};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define TOP_CTL  (COUNT(top_files) - 1)
#define TOP_FSCK (COUNT(top_files) - 2)

static void text_node(struct node *n, struct text *t)
{
    put(t, "name %s\nid %u\nstate %s\nhere %s\naddress %s\nmachine %s\n", n->name, n->id, n->state,
        n->peer ? "yes" : "no", n->address, n->machine);
    put(t,
        "capacity %" PRIu64 "\nused %" PRIu64 "\nstaged %" PRIu64 "\ncached %" PRIu64
        "\nfiles %" PRIu64 "\n",
        n->capacity, n->used, n->staged, n->cached, n->files);
    put(t,
        "load %.2f\nread_bytes %" PRIu64 "\nwrite_bytes %" PRIu64 "\nfetched_bytes %" PRIu64
        "\nflushed_bytes %" PRIu64 "\n",
        n->load, n->read_bytes, n->write_bytes, n->fetched_bytes, n->flushed_bytes);
    put(t, "pool_error %s\nstore_error %s\n", n->pool_error[0] ? n->pool_error : "none",
        n->store_error[0] ? n->store_error : "none");
}

/* --- settings by place in the state's table --- */

struct nth_setting {
    uint64_t want, at;
    const char *by_name;
    char name[64], value[64];
    bool found;
};

static bool match_setting(void *arg, const char *name, const char *value, const char *help)
{
    struct nth_setting *s = arg;

    (void)help;
    if (s->by_name ? strcmp(s->by_name, name) == 0 : s->at == s->want) {
        s->found = true;
        s->want = s->at;
        snprintf(s->name, sizeof(s->name), "%s", name);
        snprintf(s->value, sizeof(s->value), "%s", value);
    }
    s->at++;
    return !s->found;
}

static bool setting_at(struct centre *c, uint64_t index, struct nth_setting *s)
{
    *s = (struct nth_setting){.want = index};
    state_settings(c->state, match_setting, s);
    return s->found;
}

/* --- lookup, attributes --- */

int ctl_attr(struct centre *c, uint64_t ino, Star__Attr *attr, Star__Time times[3])
{
    struct timespec now = clock_real();
    struct nth_setting s;
    uint32_t mode = 0;

    switch (kind_of(ino)) {
    case KIND_TOP:
    case KIND_SETTINGS:
    case KIND_NODES:
        mode = S_IFDIR | 0555;
        break;
    case KIND_FILE:
        if (file_of(ino) < COUNT(top_files))
            mode = S_IFREG | top_files[file_of(ino)].mode;
        break;
    case KIND_SETTING:
        if (setting_at(c, file_of(ino), &s))
            mode = S_IFREG | 0644;
        break;
    case KIND_NODE:
        if (node_find(c, (uint32_t)object_of(ino)))
            mode = S_IFDIR | 0555;
        break;
    case KIND_NODE_FILE:
        if (node_find(c, (uint32_t)object_of(ino)) && file_of(ino) < COUNT(node_files))
            mode = S_IFREG | node_files[file_of(ino)].mode;
        break;
    }
    if (!mode)
        return -ENOENT;
    star__attr__init(attr);
    for (int k = 0; k < 3; k++) {
        star__time__init(&times[k]);
        times[k].sec = now.tv_sec;
        times[k].nsec = (uint32_t)now.tv_nsec;
    }
    attr->atime = &times[0];
    attr->mtime = &times[1];
    attr->ctime = &times[2];
    attr->ino = ino;
    attr->mode = mode;
    attr->nlink = S_ISDIR(mode) ? 2 : 1;
    return 0;
}

static bool is_name(const ProtobufCBinaryData *n, const char *name)
{
    return n->len == strlen(name) && memcmp(n->data, name, n->len) == 0;
}

/* "NAME.N" of a list in pages: N, or 0. */
static uint64_t page_of(const struct ctl_file *f, const ProtobufCBinaryData *name)
{
    size_t len = strlen(f->name);
    char digits[24], *end;

    if (!f->pages || name->len < len + 2 || name->len - len > sizeof(digits) ||
        memcmp(name->data, f->name, len) != 0 || name->data[len] != '.' ||
        !isdigit(name->data[len + 1]))
        return 0;
    memcpy(digits, name->data + len + 1, name->len - len - 1);
    digits[name->len - len - 1] = '\0';
    uint64_t after = strtoull(digits, &end, 10);
    return *end || after > OBJECT_MAX ? 0 : after;
}

static uint64_t lookup_top(const ProtobufCBinaryData *name)
{
    for (unsigned k = 0; k < COUNT(top_files); k++)
        if (is_name(name, top_files[k].name) || page_of(&top_files[k], name))
            return ctl_ino(KIND_FILE, page_of(&top_files[k], name), k);
    if (is_name(name, "settings"))
        return ctl_ino(KIND_SETTINGS, 0, 0);
    if (is_name(name, "nodes"))
        return ctl_ino(KIND_NODES, 0, 0);
    return 0;
}

static uint64_t ctl_find(struct centre *c, uint64_t parent, const ProtobufCBinaryData *name)
{
    struct node *n;

    if (parent == STATE_ROOT_INO)
        return is_name(name, ".umbel") ? ctl_ino(KIND_TOP, 0, 0) : 0;
    if (!ctl_is_ino(parent))
        return 0;
    if (is_name(name, "."))
        return parent;
    switch (kind_of(parent)) {
    case KIND_TOP:
        return is_name(name, "..") ? STATE_ROOT_INO : lookup_top(name);
    case KIND_SETTINGS: {
        char text[64];
        if (is_name(name, ".."))
            return ctl_ino(KIND_TOP, 0, 0);
        if (name->len >= sizeof(text))
            return 0;
        memcpy(text, name->data, name->len);
        text[name->len] = '\0';
        struct nth_setting s = {.by_name = text};
        state_settings(c->state, match_setting, &s);
        return s.found ? ctl_ino(KIND_SETTING, 0, (unsigned)s.want) : 0;
    }
    case KIND_NODES:
        if (is_name(name, ".."))
            return ctl_ino(KIND_TOP, 0, 0);
        for (n = c->nodes; n; n = n->hh.next)
            if (is_name(name, n->name))
                return ctl_ino(KIND_NODE, n->id, 0);
        return 0;
    case KIND_NODE:
        if (is_name(name, ".."))
            return ctl_ino(KIND_NODES, 0, 0);
        for (unsigned k = 0; k < COUNT(node_files); k++)
            if (is_name(name, node_files[k].name))
                return ctl_ino(KIND_NODE_FILE, object_of(parent), k);
        return 0;
    default:
        return 0;
    }
}

void serve_ctl_lookup(struct op *op)
{
    Star__CtlLookup *q = (Star__CtlLookup *)op->body;
    Star__EntryReply r = STAR__ENTRY_REPLY__INIT;
    Star__Attr attr;
    Star__Time times[3];
    uint64_t ino = ctl_find(op->c, q->parent, &q->name);

    if (ino == 0 || (ctl_is_ino(ino) && ctl_attr(op->c, ino, &attr, times) < 0)) {
        op_reply(op, -ENOENT, NULL);
        return;
    }
    if (!ctl_is_ino(ino)) {
        struct inode root;
        if (state_inode(op->c->state, ino, &root) < 0) {
            op_reply(op, -EIO, NULL);
            return;
        }
        attr_now(op->c, &root, &attr, times);
    }
    r.attr = &attr;
    op_reply(op, 0, &r.base);
}

/* --- readdir --- */

struct ctl_listing {
    Star__ReadDir *q;
    Star__DirEntry *entries;
    Star__DirEntry **pointers;
    size_t n, size;
    uint64_t cookie;
};

static void list(struct ctl_listing *l, const char *name, uint64_t ino, uint32_t type)
{
    if (++l->cookie <= l->q->cookie || l->n == l->size)
        return;
    Star__DirEntry *e = &l->entries[l->n++];
    star__dir_entry__init(e);
    e->name.data = (uint8_t *)name;
    e->name.len = strlen(name);
    e->ino = ino;
    e->type = type;
    e->cookie = l->cookie;
}

struct setting_list {
    struct ctl_listing *l;
    unsigned k;
};

static bool list_setting(void *arg, const char *name, const char *value, const char *help)
{
    struct setting_list *s = arg;

    (void)value, (void)help;
    list(s->l, name, ctl_ino(KIND_SETTING, 0, s->k++), S_IFREG);
    return true;
}

static void list_all(struct centre *c, struct ctl_listing *l, uint64_t ino)
{
    struct setting_list s = {.l = l};
    struct node *n;

    list(l, ".", ino, S_IFDIR);
    list(l, "..", kind_of(ino) == KIND_TOP ? STATE_ROOT_INO : ctl_ino(KIND_TOP, 0, 0), S_IFDIR);
    switch (kind_of(ino)) {
    case KIND_TOP:
        for (unsigned k = 0; k < COUNT(top_files); k++)
            list(l, top_files[k].name, ctl_ino(KIND_FILE, 0, k), S_IFREG);
        for (unsigned k = 0; k < COUNT(top_dirs); k++)
            list(l, top_dirs[k], ctl_ino(k == 0 ? KIND_SETTINGS : KIND_NODES, 0, 0), S_IFDIR);
        break;
    case KIND_SETTINGS:
        state_settings(c->state, list_setting, &s);
        break;
    case KIND_NODES:
        for (n = c->nodes; n; n = n->hh.next)
            list(l, n->name, ctl_ino(KIND_NODE, n->id, 0), S_IFDIR);
        break;
    case KIND_NODE:
        for (unsigned k = 0; k < COUNT(node_files); k++)
            list(l, node_files[k].name, ctl_ino(KIND_NODE_FILE, object_of(ino), k), S_IFREG);
        break;
    default:
        break;
    }
}

void serve_ctl_readdir(struct op *op)
{
    struct ctl_listing l = {.q = (Star__ReadDir *)op->body};
    Star__ReadDirReply r = STAR__READ_DIR_REPLY__INIT;

    /* A page of names; the mount asks on with the last cookie. */
    l.size = l.q->max_bytes / 64 + 1;
    if (l.size > 1024)
        l.size = 1024;
    l.entries = calloc(l.size, sizeof(*l.entries));
    l.pointers = calloc(l.size, sizeof(*l.pointers));
    if (!l.entries || !l.pointers) {
        op_reply(op, -ENOMEM, NULL);
        goto out;
    }
    list_all(op->c, &l, l.q->ino);
    for (size_t k = 0; k < l.n; k++)
        l.pointers[k] = &l.entries[k];
    r.n_entries = l.n;
    r.entries = l.pointers;
    r.eof = l.n == 0 || l.entries[l.n - 1].cookie == l.cookie;
    op_reply(op, 0, &r.base);
out:
    free(l.entries);
    free(l.pointers);
}

/* --- fsck: in a thread, as it reads everything --- */

struct ctl_check {
    uv_work_t work;
    struct centre *c;
    struct op *op;
    struct state *view;
    struct text text;
};

static void answer_text(struct op *op, int rc, struct text *t)
{
    if (op->peer)
        peer_reply(op->peer, &op->request, rc, NULL, t->at, rc < 0 ? 0 : t->len);
    free(t->at);
    op_end(op);
}

static void check_work(uv_work_t *work)
{
    struct ctl_check *k = work->data;
    int64_t n = state_check(k->view, problem_line, &k->text);

    put(&k->text, "problems %" PRId64 "\n", n);
}

static void check_begin(struct op *op);

static void check_done(uv_work_t *work, int status)
{
    struct ctl_check *k = work->data;
    struct centre *c = k->c;
    struct op *next = c->check_waiting;

    (void)status;
    state_view_free(k->view);
    answer_text(k->op, 0, &k->text);
    free(k);
    c->check = NULL;
    if (c->checked) {
        c->checked(c);
    } else if (next) {
        c->check_waiting = next->wait_next;
        next->wait_next = NULL;
        check_begin(next);
    }
}

static void check_begin(struct op *op)
{
    struct centre *c = op->c;
    struct ctl_check *k = calloc(1, sizeof(*k));
    int rc = k ? state_view(c->state, &c->check_cancel, &k->view) : -ENOMEM;

    if (rc == 0) {
        k->c = c;
        k->op = op;
        k->work.data = k;
        c->check = k;
        rc = uv_queue_work(&c->loop, &k->work, check_work, check_done);
    }
    if (rc == 0)
        return;
    c->check = NULL;
    if (k)
        state_view_free(k->view);
    free(k);
    op_error(op, rc == -ENOMEM ? rc : -EIO, "the state cannot be checked: %s", strerror(-rc));
}

static void check_start(struct op *op)
{
    struct centre *c = op->c;

    if (c->check)
        LL_APPEND2(c->check_waiting, op, wait_next);
    else
        check_begin(op);
}

void ctl_check_stop(struct centre *c, void (*done)(struct centre *c))
{
    atomic_store(&c->check_cancel, true);
    c->checked = done;
    if (!c->check)
        done(c);
}

/* --- read and write --- */

void serve_ctl_read(struct op *op)
{
    uint64_t ino = ((Star__Inode *)op->body)->ino;
    struct centre *c = op->c;
    struct nth_setting s;
    struct text t = {.after = object_of(ino)};
    int rc = 0;

    if (!rights_allow(op))
        return;
    if (kind_of(ino) == KIND_FILE && file_of(ino) == TOP_FSCK) {
        check_start(op);
        return;
    }
    if (kind_of(ino) == KIND_FILE && file_of(ino) < TOP_FSCK) {
        top_files[file_of(ino)].text(c, &t);
    } else if (kind_of(ino) == KIND_SETTING && setting_at(c, file_of(ino), &s)) {
        put(&t, "%s\n", s.value);
    } else if (kind_of(ino) == KIND_NODE_FILE && file_of(ino) == 0) {
        struct node *n = node_find(c, (uint32_t)object_of(ino));
        if (n)
            text_node(n, &t);
        else
            rc = -ENOENT;
    } else {
        rc = -EACCES; /* ctl files are for writing */
    }
    answer_text(op, rc, &t);
}

static void setting_done(struct op *op, const struct state_result *r)
{
    if (r->status < 0)
        op_refuse(op, r);
    else
        op_reply(op, 0, NULL);
}

static void write_setting(struct op *op, const char *name, char *value)
{
    Star__LogSetting body = STAR__LOG_SETTING__INIT;

    while (*value && isspace((unsigned char)*value))
        value++;
    for (size_t len = strlen(value); len > 0 && isspace((unsigned char)value[len - 1]);)
        value[--len] = '\0';
    body.name = (char *)name;
    body.value = value;
    op_submit_own(op, STAR__LOG_TYPE__LOG_SETTING, &body.base, setting_done);
}

void serve_ctl_write(struct op *op)
{
    uint64_t ino = ((Star__CtlWrite *)op->body)->ino;
    char *text = op->data; /* NUL-terminated by centre_request */
    struct nth_setting s;
    struct node *n;

    if (!rights_allow(op))
        return;
    op->note_errors = true;
    if (strlen(text) != op->request.payload_len)
        op_error(op, -EINVAL, "a command holds a NUL byte");
    else if (kind_of(ino) == KIND_FILE && file_of(ino) == TOP_CTL)
        admin_command(op, text);
    else if (kind_of(ino) == KIND_SETTING && setting_at(op->c, file_of(ino), &s))
        write_setting(op, s.name, text);
    else if (kind_of(ino) == KIND_NODE_FILE && file_of(ino) == 1 &&
             (n = node_find(op->c, (uint32_t)object_of(ino))))
        admin_node_command(op, n, text);
    else
        op_error(op, -EACCES, "this control file is not for writing");
}
