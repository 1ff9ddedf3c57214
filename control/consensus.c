/* The replicated log on libraft: submit, batch, apply. Snapshots are in consensus_snapshot.c. */
#include "control/consensus_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"

#define SPACE_CHECK_MS    200
#define WATCH_MS          50
#define WATCH_ELECTION_MS 5
/* The watch is this late only if the process did not run. */
#define WATCH_GAP_MS          1000
#define ADDRESS_OF_ONLY_VOTER "self"

_Noreturn static void die(const char *what, int status)
{
    log_error("%s: %s; the process ends, as it must not go on with a log it cannot write", what,
              strerror(-status));
    abort();
}

/* --- transport: one voter talks to nobody --- */

static int transport_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
    (void)t, (void)id, (void)address;
    return 0;
}

static int transport_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
    (void)t, (void)cb;
    return 0;
}

static int transport_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id,
                             const char *address, raft_uv_connect_cb cb)
{
    (void)t, (void)req, (void)id, (void)address, (void)cb;
    return RAFT_NOCONNECTION;
}

static void transport_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
    cb(t);
}

/* --- turns --- */

static void turn_commit(struct consensus *c)
{
    if (!state_in_turn(c->state))
        return;
    int rc = state_commit(c->state);
    if (rc < 0)
        die("state: commit", rc);
    c->turn_entries = 0;
}

void consensus_commit_turn(struct consensus *c)
{
    turn_commit(c);
}

static void on_turn_timer(uv_timer_t *timer)
{
    turn_commit(timer->data);
}

static void turn_open(struct consensus *c)
{
    if (state_in_turn(c->state))
        return;
    int rc = state_begin(c->state);
    if (rc < 0)
        die("state: begin", rc);
    uv_timer_start(&c->turn_timer, on_turn_timer, CONSENSUS_TURN_MS, 0);
}

/* --- apply --- */

static struct pending *pending_pop(struct consensus *c, uint64_t instance, uint64_t serial)
{
    struct pending *p = c->pending_head;

    if (!p || instance != c->instance)
        return NULL;
    if (p->serial != serial)
        die("log: entries out of order", -EPROTO);
    c->pending_head = p->next;
    if (!c->pending_head)
        c->pending_tail = NULL;
    c->pending_count--;
    return p;
}

static void apply_one(struct consensus *c, const struct batch_prefix *prefix, uint64_t k,
                      const uint8_t *entry, size_t len)
{
    struct state_result r = {0};

    turn_open(c);
    int rc = state_apply(c->state, ++c->count, entry, len, &r);
    if (rc < 0)
        die("state: apply", rc);
    struct pending *p = pending_pop(c, prefix->instance, prefix->serial + k);
    if (p) {
        p->fn(p->arg, 0, &r);
        free(p);
    }
    if (++c->turn_entries >= CONSENSUS_TURN_ENTRIES || state_turn_full(c->state))
        turn_commit(c);
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct consensus *c = fsm->data;
    const uint8_t *at = buf->base, *end = at + buf->len;
    struct batch_prefix prefix;

    *result = NULL;
    c->log_bytes += buf->len;
    if (buf->len < sizeof(prefix))
        die("log: short entry", -EPROTO);
    memcpy(&prefix, at, sizeof(prefix));
    at += sizeof(prefix);
    for (uint64_t k = 0; k < prefix.n; k++) {
        uint64_t len;
        if ((size_t)(end - at) < sizeof(len))
            die("log: short entry", -EPROTO);
        memcpy(&len, at, sizeof(len));
        at += sizeof(len);
        if (len > (size_t)(end - at))
            die("log: short entry", -EPROTO);
        apply_one(c, &prefix, k, at, len);
        at += (len + 7) & ~7ull;
    }
    return 0;
}

/* --- submit --- */

static void pending_fail(struct consensus *c, int status)
{
    while (c->pending_head) {
        struct pending *p = c->pending_head;
        c->pending_head = p->next;
        c->pending_count--;
        p->fn(p->arg, status, NULL);
        free(p);
    }
    c->pending_tail = NULL;
}

static void lose_leadership(struct consensus *c)
{
    if (!c->leading)
        return;
    c->leading = false;
    pending_fail(c, -ENOTCONN);
    c->ops.on_follower(c->ctx);
}

struct batch {
    struct raft_apply req;
    struct consensus *c;
};

static void on_batch_applied(struct raft_apply *req, int status, void *result)
{
    struct batch *b = req->data;

    (void)result;
    if (status != 0 && !b->c->stopping)
        lose_leadership(b->c);
    free(b);
}

static void batch_send(struct consensus *c)
{
    struct raft_buffer buf = {.len = c->batch_len, .base = NULL};

    if (c->batch_n == 0)
        return;
    struct batch *b = calloc(1, sizeof(*b));
    buf.base = raft_malloc(c->batch_len);
    if (!b || !buf.base)
        die("log: submit", -ENOMEM);
    struct batch_prefix prefix = {
        .instance = c->instance, .serial = c->serial - c->batch_n + 1, .n = c->batch_n};
    memcpy(c->batch, &prefix, sizeof(prefix));
    memcpy(buf.base, c->batch, c->batch_len);
    b->c = c;
    b->req.data = b;
    c->batch_n = 0;
    c->batch_len = 0;
    c->batch_now = false;
    uv_timer_stop(&c->soon);
    int rv = raft_apply(&c->raft, &b->req, &buf, 1, on_batch_applied);
    if (rv != 0) {
        free(b); /* the buffer is libraft's in any case */
        if (rv != RAFT_NOTLEADER && rv != RAFT_SHUTDOWN) {
            log_error("log: submit: %s", raft_errmsg(&c->raft));
            die("log: submit", -EIO);
        }
        lose_leadership(c);
    }
}

/* Room for one more entry of len bytes in this turn's batch. */
static uint8_t *batch_room(struct consensus *c, size_t len)
{
    size_t padded = sizeof(uint64_t) + ((len + 7) & ~(size_t)7);

    if (c->batch_len == 0)
        c->batch_len = sizeof(struct batch_prefix);
    if (c->batch_len + padded > c->batch_size) {
        size_t size = (c->batch_len + padded) * 2;
        uint8_t *grown = realloc(c->batch, size);
        if (!grown)
            return NULL;
        c->batch = grown;
        c->batch_size = size;
    }
    uint8_t *at = c->batch + c->batch_len;
    uint64_t n = len;
    memset(at + padded - 8, 0, 8);
    memcpy(at, &n, sizeof(n));
    c->batch_len += padded;
    return at + sizeof(n);
}

static void on_prepare(uv_prepare_t *handle)
{
    struct consensus *c = handle->data;

    if (c->batch_now)
        batch_send(c);
}

static void on_soon(uv_timer_t *timer)
{
    batch_send(timer->data);
}

static void batch_when(struct consensus *c, enum consensus_when when)
{
    if (when == CONSENSUS_NOW)
        c->batch_now = true;
    else if (!uv_is_active((uv_handle_t *)&c->soon))
        uv_timer_start(&c->soon, on_soon, CONSENSUS_SOON_MS, 0);
}

static void stamp(struct consensus *c, Star__LogEntry *entry, Star__Time *now, bool new_ino)
{
    struct timespec t = clock_real();
    uint64_t ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;

    if (ns < c->last_ns)
        ns = c->last_ns;
    c->last_ns = ns;
    star__time__init(now);
    now->sec = (int64_t)(ns / 1000000000u);
    now->nsec = (uint32_t)(ns % 1000000000u);
    entry->now = now;
    if (new_ino)
        entry->ino = ++c->last_ino;
}

int consensus_submit(struct consensus *c, Star__LogEntry *entry, bool new_ino,
                     enum consensus_when when, consensus_fn fn, void *arg)
{
    Star__Time now;

    if (!c->leading || c->stopping)
        return -ENOTCONN;
    if (c->pending_count >= CONSENSUS_PENDING_MAX)
        return -EBUSY;
    stamp(c, entry, &now, new_ino);
    size_t len = star__log_entry__get_packed_size(entry);
    struct pending *p = malloc(sizeof(*p));
    uint8_t *at = p ? batch_room(c, len) : NULL;
    if (!at) {
        free(p);
        return -ENOMEM;
    }
    star__log_entry__pack(entry, at);
    entry->now = NULL;
    *p = (struct pending){.fn = fn, .arg = arg, .serial = ++c->serial};
    if (c->pending_tail)
        c->pending_tail->next = p;
    else
        c->pending_head = p;
    c->pending_tail = p;
    c->pending_count++;
    batch_when(c, when);
    if (++c->batch_n == CONSENSUS_BATCH_MAX || c->batch_len > CONSENSUS_BATCH_BYTES)
        batch_send(c);
    return 0;
}

/* --- leadership, disk --- */

static void on_barrier(struct raft_barrier *req, int status)
{
    struct consensus *c = req->data;

    c->barrier_out = false;
    if (status != 0 || c->stopping || c->leading)
        return;
    if (state_applied(c->state) != c->count) {
        char text[256];
        snprintf(text, sizeof(text),
                 "the state in %.80s holds %" PRIu64 " commands and the log %" PRIu64
                 ": part of it is missing or from another copy; put the whole folder back",
                 c->dir, state_applied(c->state), c->count);
        c->stopping = true;
        c->ops.on_unusable(c->ctx, text);
        return;
    }
    consensus_forget_untrusted(c);
    c->last_ino = state_last_ino(c->state);
    c->last_ns = state_last_time_ns(c->state);
    c->leading = true;
    log_info("leading; %llu commands applied", (unsigned long long)c->count);
    c->ops.on_leader(c->ctx);
}

static void watch_leadership(struct consensus *c)
{
    bool leader = raft_state(&c->raft) == RAFT_LEADER;

    if (leader && !c->leading && !c->barrier_out) {
        c->barrier.data = c;
        c->barrier_out = true; /* on_barrier may run at once */
        if (raft_barrier(&c->raft, &c->barrier, on_barrier) != 0)
            c->barrier_out = false;
    } else if (!leader) {
        lose_leadership(c);
    }
}

/* Time in which this process did not run (frozen, suspended) is not the disk's. */
static void watch_append(struct consensus *c, int64_t now)
{
    uint64_t oldest = c->pending_head ? c->pending_head->serial : 0;

    if (oldest != c->watched_serial || now - c->watched_ms > WATCH_GAP_MS)
        c->append_ms = now;
    c->watched_serial = oldest;
    c->watched_ms = now;
    if (oldest && now - c->append_ms > CONSENSUS_APPEND_DEADLINE_MS)
        die("log: append is overdue", -ETIMEDOUT);
}

/* libraft counts entries, and keeps them all in memory until a snapshot: when they are large it is
 * taken earlier. */
static void watch_threshold(struct consensus *c)
{
    struct state_totals totals;

    if (c->snapshot_often || state_totals(c->state, &totals) < 0)
        return;
    uint64_t entries = totals.inodes / 2;
    uint64_t bytes = totals.inodes * CONSENSUS_SNAPSHOT_INODE_BYTES;
    if (entries < c->snapshot_min)
        entries = c->snapshot_min;
    if (bytes < CONSENSUS_SNAPSHOT_MIN_BYTES)
        bytes = CONSENSUS_SNAPSHOT_MIN_BYTES;
    if (c->log_bytes > bytes)
        entries = 1;
    raft_set_snapshot_threshold(&c->raft, entries < UINT32_MAX ? (unsigned)entries : UINT32_MAX);
}

static void on_watch(uv_timer_t *timer)
{
    struct consensus *c = timer->data;
    int64_t now = clock_boot_ms();

    watch_leadership(c);
    watch_append(c, now);
    if (now - c->space_ms >= SPACE_CHECK_MS) {
        c->space_ms = now;
        consensus_space_watch(c);
        watch_threshold(c);
    }
    uv_timer_set_repeat(timer, c->leading ? WATCH_MS : WATCH_ELECTION_MS);
}

bool consensus_leads(const struct consensus *c)
{
    return c->leading;
}

uint64_t consensus_applied(const struct consensus *c)
{
    return c->count;
}

struct state *consensus_state(struct consensus *c)
{
    return c->state;
}

/* --- start and stop --- */

static int engine_unusable(const struct consensus *c, int rv, const char *why, char *detail)
{
    snprintf(detail, 256, "the log %.80s/log cannot be used (%.120s); put back what it lacks",
             c->dir, why[0] ? why : raft_strerror(rv));
    return -EIO;
}

static int engine_start(struct consensus *c, char *detail)
{
    char log_dir[CONSENSUS_PATH_MAX];

    snprintf(log_dir, sizeof(log_dir), "%s/log", c->dir);
    c->transport = (struct raft_uv_transport){.version = 1,
                                              .init = transport_init,
                                              .listen = transport_listen,
                                              .connect = transport_connect,
                                              .close = transport_close};
    int rv = raft_uv_init(&c->io, c->loop, log_dir, &c->transport);
    if (rv != 0)
        return engine_unusable(c, rv, c->io.errmsg, detail);
    /* It would set a damaged segment aside and go on without what that one holds. The torn end of
     * an open segment is cut off in any case. */
    raft_uv_set_auto_recovery(&c->io, false);
    consensus_wrap_snapshots(c);
    c->fsm = (struct raft_fsm){.version = 2,
                               .data = c,
                               .apply = fsm_apply,
                               .snapshot = consensus_snapshot,
                               .restore = consensus_restore,
                               .snapshot_finalize = consensus_snapshot_finalize};
    rv = raft_init(&c->raft, &c->io, &c->fsm, 1, ADDRESS_OF_ONLY_VOTER);
    if (rv != 0)
        return engine_unusable(c, rv, raft_errmsg(&c->raft), detail);
    c->raft.data = c;
    raft_set_election_timeout(&c->raft, CONSENSUS_ELECTION_MS);
    raft_set_heartbeat_timeout(&c->raft, CONSENSUS_HEARTBEAT_MS);
    raft_set_snapshot_threshold(&c->raft, c->snapshot_min);
    raft_set_snapshot_trailing(&c->raft, CONSENSUS_SNAPSHOT_TRAILING);
    raft_set_pre_vote(&c->raft, true);
    raft_set_capacity_threshold(
        &c->raft, 0); /* consensus_room looks at the disk itself; this looks at prepared files */

    struct raft_configuration conf;
    raft_configuration_init(&conf);
    rv = raft_configuration_add(&conf, 1, ADDRESS_OF_ONLY_VOTER, RAFT_VOTER);
    if (rv == 0)
        rv = raft_bootstrap(&c->raft, &conf);
    raft_configuration_close(&conf);
    if (rv == 0 || rv == RAFT_CANTBOOTSTRAP)
        rv = raft_start(&c->raft);
    return rv == 0 ? 0 : engine_unusable(c, rv, raft_errmsg(&c->raft), detail);
}

static int make_dirs(struct consensus *c, char *detail)
{
    static const char *const names[] = {"", "/log", "/snapshots", "/state"};
    char path[CONSENSUS_PATH_MAX];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (snprintf(path, sizeof(path), "%s%s", c->dir, names[i]) >= (int)sizeof(path)) {
            snprintf(detail, 256, "%s: path too long", c->dir);
            return -ENAMETOOLONG;
        }
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            int rc = -errno;
            snprintf(detail, 256, "%.200s: %s", path, strerror(-rc));
            return rc;
        }
    }
    return 0;
}

static void start_handles(struct consensus *c)
{
    uv_prepare_init(c->loop, &c->prepare);
    c->prepare.data = c;
    uv_prepare_start(&c->prepare, on_prepare);
    uv_timer_init(c->loop, &c->turn_timer);
    c->turn_timer.data = c;
    uv_timer_init(c->loop, &c->watch);
    c->watch.data = c;
    c->watched_ms = clock_boot_ms();
    uv_timer_start(&c->watch, on_watch, 0, WATCH_ELECTION_MS);
    uv_timer_init(c->loop, &c->copy_retry);
    c->copy_retry.data = c;
    uv_timer_init(c->loop, &c->soon);
    c->soon.data = c;
}

int consensus_start(uv_loop_t *loop, const char *dir, uint64_t reserve,
                    const struct consensus_ops *ops, void *ctx, struct consensus **out,
                    char *detail)
{
    struct consensus *c = calloc(1, sizeof(*c));
    int rc = -ENOMEM;

    if (!c || !(c->dir = strdup(dir)))
        goto out;
    c->loop = loop;
    c->ops = *ops;
    c->ctx = ctx;
    c->reserve = reserve ? reserve : CONSENSUS_RESERVE_DEFAULT;
    c->instance = random_id();
    c->snapshot_min = CONSENSUS_SNAPSHOT_MIN;
    const char *forced = getenv("UMBEL_SNAPSHOT_ENTRIES"); /* tests: snapshots often */
    c->snapshot_often = forced && atoi(forced) > 0;
    if (c->snapshot_often)
        c->snapshot_min = (unsigned)atoi(forced);
    c->ballast.fd = -1;
    rc = make_dirs(c, detail);
    if (rc == 0)
        rc = consensus_space_start(c, detail);
    if (rc == 0)
        rc = consensus_open_state(c, detail);
    if (rc < 0)
        goto out;
    consensus_space_watch(c);
    start_handles(c); /* before the engine: its start applies what the log holds */
    rc = engine_start(c, detail);
    if (rc < 0)
        goto out;
    *out = c;
    c = NULL;
out:
    /* After a failed start the process ends; libraft's half-open parts are not taken down one by
     * one. */
    if (c) {
        if (c->state)
            state_close(c->state, false);
        ballast_close(&c->ballast);
        free(c->batch);
        free(c->dir);
        free(c);
    }
    return rc;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct consensus *c = handle->data;

    if (--c->open_handles > 0)
        return;
    raft_uv_close(&c->io);
    void (*done)(void *) = c->done;
    void *arg = c->done_arg;
    ballast_close(&c->ballast);
    free(c->batch);
    free(c->dir);
    free(c);
    if (done)
        done(arg);
}

static void on_raft_closed(struct raft *raft)
{
    struct consensus *c = raft->data;

    pending_fail(c, -ESHUTDOWN);
    turn_commit(c);
    state_close(c->state, true);
    c->open_handles = 5;
    uv_close((uv_handle_t *)&c->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&c->turn_timer, on_handle_closed);
    uv_close((uv_handle_t *)&c->watch, on_handle_closed);
    uv_close((uv_handle_t *)&c->copy_retry, on_handle_closed);
    uv_close((uv_handle_t *)&c->soon, on_handle_closed);
}

void consensus_close_engine(struct consensus *c)
{
    raft_close(&c->raft, on_raft_closed);
    consensus_cancel_copy(
        c); /* libraft takes this only when it is closing, and before it has closed */
}

/* A snapshot that is being copied reads the state: it ends first. */
void consensus_stop(struct consensus *c, void (*done)(void *arg), void *arg)
{
    c->done = done;
    c->done_arg = arg;
    batch_send(c);
    c->stopping = true;
    c->leading = false;
    if (!c->copy_running)
        consensus_close_engine(c);
}
