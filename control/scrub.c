/* A run of scrub: the nodes' copies, all nodes at the same time; then the pool (scrub_pool.c). */
#include "control/scrub.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what was found --- */

static bool lines_room(struct scrub *s, size_t more)
{
    if (s->lines_n >= SCRUB_LINES_MAX)
        return false;
    if (s->lines_len + more > s->lines_size) {
        size_t size = (s->lines_size + more) * 2;
        char *grown = realloc(s->lines, size);
        if (!grown)
            return false;
        s->lines = grown;
        s->lines_size = size;
    }
    return true;
}

void scrub_line(struct scrub *s, bool problem, const char *format, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    s->problems += problem;
    size_t more = strlen(text) + sizeof("problem \n");
    if (!lines_room(s, more)) {
        s->lines_left_out++;
        return;
    }
    s->lines_len += (size_t)snprintf(s->lines + s->lines_len, more, "%s %s\n",
                                     problem ? "problem" : "healed", text);
    s->lines_n++;
}

/* A name may hold anything, and a line of the report only one line. */
const char *scrub_path(struct scrub *s, uint64_t ino, char out[512])
{
    state_path(s->c->state, ino, out, 512);
    for (char *p = out; *p; p++)
        if (iscntrl((unsigned char)*p))
            *p = '?';
    return out;
}

char *scrub_text(struct centre *c, size_t *len)
{
    struct scrub *s = c->scrub;
    char *text = NULL;
    FILE *f = open_memstream(&text, len);

    if (!f)
        return NULL;
    if (!s) {
        fputs("running 0\nphase never\n", f);
        fclose(f);
        return text;
    }
    fprintf(f, "running %d\nphase %s\nbytes %" PRIu64 "\nbytes_total %" PRIu64 "\n", s->running,
            s->phase, s->bytes, s->bytes_total);
    fprintf(f,
            "node_files %" PRIu64 "\nnode_bytes %" PRIu64 "\nnode_damaged %" PRIu64
            "\nnode_healed %" PRIu64 "\n",
            s->node_files, s->node_bytes, s->node_damaged, s->node_healed);
    fprintf(f,
            "pool_packs %" PRIu64 "\npool_bytes %" PRIu64 "\npool_damaged %" PRIu64
            "\npool_healed %" PRIu64 "\n",
            s->pool_packs, s->pool_bytes, s->pool_damaged, s->pool_healed);
    fprintf(f, "problems %" PRIu64 "\nerror %s\nlines_left_out %u\n", s->problems,
            s->error[0] ? s->error : "none", s->lines_left_out);
    if (s->lines_len > 0)
        fwrite(s->lines, 1, s->lines_len, f);
    fclose(f);
    return text;
}

/* --- the end --- */

static void scrub_release(struct scrub *s)
{
    struct scrub_node *n, *next;

    scrub_pool_free(s);
    LL_FOREACH_SAFE (s->nodes, n, next)
        free(n);
    free(s->lines);
    free(s);
}

void scrub_free(struct centre *c)
{
    if (c->scrub)
        scrub_release(c->scrub);
    c->scrub = NULL;
}

void scrub_end(struct scrub *s, int status, const char *detail)
{
    struct centre *c = s->c;

    s->running = false;
    s->again_ms = 0;
    s->phase = status < 0 ? "ended" : "done";
    if (status < 0) {
        snprintf(s->error, sizeof(s->error), "%s", detail && *detail ? detail : strerror(-status));
        s->problems++;
    }
    if (s->pool_healed > 0)
        c->gc_bad_n = 0; /* what kept these packs from being rewritten may be mended */
    if (!c->stopping)
        events_add(&c->events, "scrub",
                   "%s: %" PRIu64 " bytes at nodes, %" PRIu64 " damaged blocks, %" PRIu64
                   " healed; %" PRIu64 " bytes in the pool, %" PRIu64 " damaged records, %" PRIu64
                   " healed; %" PRIu64 " problems",
                   status < 0 ? s->error : "done", s->node_bytes, s->node_damaged, s->node_healed,
                   s->pool_bytes, s->pool_damaged, s->pool_healed, s->problems);
}

void scrub_wait(struct scrub *s, void (*then)(struct scrub *s))
{
    s->then = then;
    s->again_ms = s->c->now + SCRUB_RETRY_MS;
}

/* --- nodes --- */

static void node_step(struct scrub_node *k);

static void nodes_done(struct scrub *s)
{
    struct scrub_node *k;

    LL_FOREACH (s->nodes, k)
        if (!k->done)
            return;
    if (s->stop)
        scrub_end(s, -ECANCELED, "it was stopped");
    else if (s->what & SCRUB_POOL)
        scrub_pool(s);
    else
        scrub_end(s, 0, NULL);
}

static void node_done(struct scrub_node *k)
{
    k->done = true;
    nodes_done(k->run);
}

static const char *node_name(struct centre *c, uint32_t id)
{
    struct node *n = node_find(c, id);

    return n ? n->name : "?";
}

static void node_failed(struct scrub_node *k, int status)
{
    struct scrub *s = k->run;

    if (++k->tries < SCRUB_TRIES && !s->stop) {
        k->again_ms = s->c->now + SCRUB_RETRY_MS;
        return;
    }
    scrub_line(s, true, "node %s: not all of its copies were looked at: %s", node_name(s->c, k->id),
               strerror(-status));
    node_done(k);
}

static void tell_damage(struct scrub_node *k, const Star__ScrubDamage *d)
{
    struct scrub *s = k->run;
    char path[512];

    s->node_damaged++;
    s->node_healed += d->healed ? 1 : 0;
    scrub_path(s, d->ino, path);
    if (d->healed)
        scrub_line(s, false, "%s: bytes %" PRIu64 " to %" PRIu64 " at node %s, from the pool", path,
                   d->offset, d->offset + d->length, node_name(s->c, k->id));
    else
        scrub_line(s, true,
                   "%s: bytes %" PRIu64 " to %" PRIu64
                   " were damaged at node %s, and do not come from the pool: %.250s",
                   path, d->offset, d->offset + d->length, node_name(s->c, k->id), d->detail);
}

static void on_step(void *arg, const struct message *reply)
{
    struct scrub_node *k = arg;
    struct scrub *s = k->run;

    if (s->c->stopping)
        return;
    Star__ScrubReply *r =
        reply->status < 0 ? NULL
                          : (Star__ScrubReply *)frame_unpack(reply, &star__scrub_reply__descriptor);
    if (!r) {
        node_failed(k, reply->status < 0 ? reply->status : -EPROTO);
        return;
    }
    k->tries = 0;
    s->node_files += r->files;
    s->node_bytes += r->bytes;
    s->bytes += r->bytes;
    for (size_t n = 0; n < r->n_damage; n++)
        tell_damage(k, r->damage[n]);
    bool more = r->next != NULL && !s->stop;
    if (r->next) {
        k->shard = r->next->shard;
        k->ino = r->next->ino;
        k->offset = r->next->offset;
    }
    star__scrub_reply__free_unpacked(r, NULL);
    if (more)
        node_step(k);
    else
        node_done(k);
}

static void node_step(struct scrub_node *k)
{
    struct centre *c = k->run->c;
    struct node *n = node_find(c, k->id);
    Star__Scrub body = STAR__SCRUB__INIT;
    Star__ScrubPlace from = STAR__SCRUB_PLACE__INIT;

    from.shard = k->shard;
    from.ino = k->ino;
    from.offset = k->offset;
    body.from = &from;
    body.bytes = SCRUB_STEP_BYTES;
    body.ms = SCRUB_STEP_MS;
    body.rate = setting_u64(c, "scrub_rate");
    int rc = n && n->peer ? peer_request(n->peer, STAR__MSG_TYPE__SCRUB, &body.base,
                                         NODE_COMMAND_DEADLINE_MS, on_step, k)
                          : -ENOTCONN;
    if (rc < 0)
        node_failed(k, rc);
}

static int add_nodes(struct scrub *s, const struct node *only)
{
    struct node *n;

    for (n = s->c->nodes; n; n = n->hh.next) {
        if ((only && n != only) || strcmp(n->state, "gone") == 0 || node_is_coming(n))
            continue;
        struct scrub_node *k = calloc(1, sizeof(*k));
        if (!k)
            return -ENOMEM;
        k->run = s;
        k->id = n->id;
        k->again_ms = s->c->now; /* the tick begins with it */
        LL_APPEND(s->nodes, k);
        s->bytes_total += n->cached;
    }
    return 0;
}

/* --- the beginning, and the tick --- */

static void begin(struct op *op, unsigned what, const struct node *only)
{
    struct centre *c = op->c;

    if (c->scrub && c->scrub->running) {
        op_error(op, -EBUSY, "a scrub is running: .umbel/scrub says how far it is");
        return;
    }
    struct scrub *s = calloc(1, sizeof(*s));
    if (!s) {
        op_reply(op, -ENOMEM, NULL);
        return;
    }
    s->c = c;
    s->what = what;
    s->phase = what & SCRUB_NODES ? "nodes" : "pool";
    int rc = what & SCRUB_NODES ? add_nodes(s, only) : 0;
    if (rc < 0) {
        scrub_release(s);
        op_reply(op, rc, NULL);
        return;
    }
    scrub_free(c);
    c->scrub = s;
    s->running = true;
    if (what & SCRUB_POOL)
        scrub_pool_total(s);
    op_reply(op, 0, NULL);
    if (!s->nodes)
        nodes_done(s);
}

void scrub_start(struct op *op, const char *what)
{
    struct scrub *s = op->c->scrub;

    if (strcmp(what, "stop") == 0) {
        if (s)
            s->stop = true;
        op_reply(op, 0, NULL);
    } else if (*what == '\0') {
        begin(op, SCRUB_NODES | SCRUB_POOL, NULL);
    } else if (strcmp(what, "nodes") == 0) {
        begin(op, SCRUB_NODES, NULL);
    } else if (strcmp(what, "pool") == 0) {
        begin(op, SCRUB_POOL, NULL);
    } else {
        op_error(op, -EINVAL, "scrub [nodes | pool | stop], not scrub %.64s", what);
    }
}

void scrub_node_start(struct op *op, struct node *n)
{
    if (!n->peer)
        op_error(op, -EAGAIN, "node %s is away", n->name);
    else
        begin(op, SCRUB_NODES, n);
}

void scrub_tick(struct centre *c, int64_t now)
{
    struct scrub *s = c->scrub;
    struct scrub_node *k;

    if (!s || !s->running || !c->serving)
        return;
    if (s->again_ms != 0 && now >= s->again_ms) {
        s->again_ms = 0;
        s->then(s);
        return;
    }
    LL_FOREACH (s->nodes, k) {
        if (k->done || k->again_ms == 0 || now < k->again_ms)
            continue;
        k->again_ms = 0;
        node_step(k);
        if (!s->running || c->scrub != s)
            return;
    }
}
