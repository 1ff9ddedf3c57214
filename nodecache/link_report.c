/* What the centre should know of this node: its report each second, changed lines of the cache
 * table, attributes that the log may not have, and how the pool looks from here. */
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "nodecache/link_private.h"

/* Looking for the pool may wait for one that is away, so it is done seldom. */
#define LINK_STATVFS_MS 5000

struct attrs_batch {
    struct link *link;
    struct wire_attrs wire[LINK_ATTRS_MAX];
    Star__HomeAttrs *list[LINK_ATTRS_MAX];
    size_t count;
};

static int batch_send(struct attrs_batch *b, bool done)
{
    Star__NodeAttrs m = STAR__NODE_ATTRS__INIT;

    m.attrs = b->list;
    m.n_attrs = b->count;
    m.done = done;
    b->count = 0;
    return link_ask(b->link, STAR__MSG_TYPE__NODE_ATTRS, &m.base, NULL, NULL);
}

static int batch_add(void *arg, const struct attrs *attrs)
{
    struct attrs_batch *b = arg;

    put_attrs(&b->wire[b->count], attrs, store_node(b->link->store));
    b->list[b->count] = &b->wire[b->count].attrs;
    b->count++;
    return b->count == LINK_ATTRS_MAX ? batch_send(b, false) : 0;
}

int link_report_attrs(struct link *l)
{
    struct attrs_batch *b = calloc(1, sizeof(*b));

    if (!b)
        return -ENOMEM;
    b->link = l;
    int rc = store_unlogged(l->store, batch_add, b);
    if (rc >= 0)
        rc = batch_send(b, true);
    free(b);
    return rc;
}

static int send_lines(struct link *l, const struct copy_line *lines, size_t count)
{
    Star__Copies m = STAR__COPIES__INIT;
    Star__Copy *copies = calloc(count, sizeof(*copies));
    Star__Copy **list = calloc(count, sizeof(*list));
    int rc = copies && list ? 0 : -ENOMEM;

    for (size_t i = 0; rc == 0 && i < count; i++) {
        star__copy__init(&copies[i]);
        copies[i].ino = lines[i].ino;
        copies[i].version = lines[i].version;
        copies[i].cached = lines[i].cached;
        copies[i].staged = lines[i].staged;
        copies[i].gone = lines[i].gone;
        list[i] = &copies[i];
    }
    m.copies = list;
    m.n_copies = count;
    m.node = store_node(l->store);
    if (rc == 0)
        rc = link_ask(l, STAR__MSG_TYPE__COPIES, &m.base, NULL, NULL);
    free(copies);
    free(list);
    return rc;
}

int link_send_lines(struct link *l)
{
    bool more = true;
    int rc = 0;

    pthread_mutex_lock(&l->lines_lock);
    if (!l->lines)
        l->lines = malloc(LINK_COPIES_MAX * sizeof(*l->lines));
    if (!l->lines)
        rc = -ENOMEM;
    while (rc == 0 && more) {
        /* What failed goes first and whole: a line that is gone is in no later batch. */
        bool again = l->lines_n > 0;
        if (!again)
            l->lines_n = store_changed_lines(l->store, l->lines, LINK_COPIES_MAX);
        more = again || l->lines_n == LINK_COPIES_MAX;
        rc = l->lines_n > 0 ? send_lines(l, l->lines, l->lines_n) : 0;
        if (rc >= 0) {
            rc = 0;
            l->lines_n = 0;
        }
    }
    pthread_mutex_unlock(&l->lines_lock);
    return rc;
}

static void look_at_pool(struct link *l, struct pool_state *p)
{
    struct statvfs v;
    bool was_away = p->error[0] != 0;

    p->error[0] = 0;
    if (pool_look(l->pool, p->error) == 0 && pool_statvfs(l->pool, &v, p->error) == 0) {
        p->total = (uint64_t)v.f_blocks * v.f_frsize;
        p->free = (uint64_t)v.f_bavail * v.f_frsize;
        p->error[0] = 0;
        store_set_pool_free(l->store, p->free);
    }
    if (p->error[0] != 0 && !was_away)
        log_warning("the pool is away: %s", p->error);
    else if (p->error[0] == 0 && was_away)
        flush_pool_back(l->flush);
}

static void *pool_main(void *arg)
{
    struct link *l = arg;
    struct pool_state *p = calloc(1, sizeof(*p));

    prctl(PR_SET_NAME, "pool-look");
    pthread_mutex_lock(&l->lock);
    while (p && !l->stop) {
        struct timespec until = deadline_in(LINK_STATVFS_MS);
        pthread_mutex_unlock(&l->lock);
        look_at_pool(l, p);
        pthread_mutex_lock(&l->lock);
        l->pool_state = *p;
        while (!l->stop && pthread_cond_timedwait(&l->changed, &l->lock, &until) == 0)
            ;
    }
    pthread_mutex_unlock(&l->lock);
    free(p);
    return NULL;
}

static void take_settings(struct link *l, const Star__NodeReportReply *r)
{
    store_set_water(l->store, r->high_water, r->low_water, r->flush_age);
    if (!r->draining)
        store_set_closed(l->store, false);
}

static size_t put_hot(struct store *s, Star__HotFile *out, Star__HotFile **list)
{
    struct hot_file hot[HOT_TAKE_MAX];
    unsigned n = store_take_hot(s, hot);

    for (unsigned i = 0; i < n; i++) {
        star__hot_file__init(&out[i]);
        out[i].ino = hot[i].ino;
        out[i].bytes = hot[i].bytes;
        list[i] = &out[i];
    }
    return n;
}

static void send_report(struct link *l)
{
    Star__NodeReport m = STAR__NODE_REPORT__INIT;
    ProtobufCMessage *reply = NULL;
    struct store_counts c;
    struct pool_state p;
    char pool_error[NODE_DETAIL], disk_error[NODE_DETAIL];
    char damage[STORE_DAMAGE_MAX][NODE_DETAIL], *lines[STORE_DAMAGE_MAX];
    Star__NodePower power = STAR__NODE_POWER__INIT;
    char why[RUN_DETAIL];
    Star__HotFile hot[HOT_TAKE_MAX], *hot_list[HOT_TAKE_MAX];
    double load = 0;

    pthread_mutex_lock(&l->lock);
    p = l->pool_state;
    pthread_mutex_unlock(&l->lock);
    store_counts(l->store, &c);
    flush_pool_error(l->flush, pool_error);
    store_error(l->store, disk_error);
    if (getloadavg(&load, 1) == 1)
        m.load = load / (double)sysconf(_SC_NPROCESSORS_ONLN);
    m.capacity = c.capacity;
    m.used = c.used;
    m.staged = c.staged;
    m.cached = c.cached;
    m.files = c.files;
    m.pool_total = p.total;
    m.pool_free = p.free;
    m.pool_error = p.error[0] ? p.error : pool_error;
    m.store_error = disk_error;
    m.read_bytes = c.read_bytes;
    m.write_bytes = c.write_bytes;
    m.fetched_bytes = c.fetched_bytes;
    m.flushed_bytes = c.flushed_bytes;
    m.n_hot = put_hot(l->store, hot, hot_list);
    m.hot = hot_list;
    if (l->jobs) {
        jobs_power(l->jobs, &power, why);
        m.power = &power;
    }
    m.n_damage = store_take_damage(l->store, damage);
    m.damage = lines;
    for (size_t i = 0; i < m.n_damage; i++)
        lines[i] = damage[i];
    /* Not sent again: the next one is newer. */
    int64_t said = clock_boot_ms();
    int rc = link_call(l, STAR__MSG_TYPE__NODE_REPORT, &m.base, 0,
                       &star__node_report_reply__descriptor, &reply);
    if (rc >= 0)
        link_heard(l, said);
    if (rc >= 0 && reply) {
        take_settings(l, (Star__NodeReportReply *)reply);
        link_take_clock(l, ((Star__NodeReportReply *)reply)->clock_ms, said);
    }
    if (reply)
        protobuf_c_message_free_unpacked(reply, NULL);
}

/* Until something is to be sent. false: stop. */
static bool wait_turn(struct link *l, uint64_t *connects, bool *connected, bool *all_lines)
{
    struct timespec until = deadline_in(LINK_COPIES_MS);

    pthread_mutex_lock(&l->lock);
    if (!l->stop && !l->lines_lost && l->connects == *connects)
        pthread_cond_timedwait(&l->changed, &l->lock, &until);
    l->lines_lost = false;
    *connected = l->connects != *connects;
    /* A new centre may have lost a DROP that it owed: the lines make it say so again. */
    *all_lines = *connects == 0 || l->centre_new || l->lines_gone;
    l->centre_new = l->lines_gone = false;
    *connects = l->connects;
    bool go_on = !l->stop;
    pthread_mutex_unlock(&l->lock);
    return go_on;
}

static void *report_main(void *arg)
{
    struct link *l = arg;
    int64_t next_report = 0;
    uint64_t connects = 0;
    bool connected, all_lines, owes_attrs = false;

    prctl(PR_SET_NAME, "report");
    while (wait_turn(l, &connects, &connected, &all_lines)) {
        if (all_lines)
            store_change_all_lines(l->store);
        owes_attrs = owes_attrs || connected;
        if (owes_attrs)
            owes_attrs = link_report_attrs(l) < 0;
        if (clock_boot_ms() >= next_report) {
            next_report = clock_boot_ms() + LINK_REPORT_MS;
            send_report(l);
        }
        (void)link_send_lines(l); /* fails: at the next turn */
    }
    return NULL;
}

static void on_lost_lines(void *ctx)
{
    struct link *l = ctx;

    pthread_mutex_lock(&l->lock);
    l->lines_lost = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

/* A centre that has not been heard lately sends nobody here: the lines follow when it is back. */
static void before_eviction(void *ctx)
{
    struct link *l = ctx;

    if (clock_boot_ms() - atomic_load(&l->heard_ms) < LINK_HEARD_MS)
        (void)link_send_lines(l);
}

/* ---- its threads */

int reports_start(struct link *l)
{
    store_on_lost_lines(l->store, on_lost_lines, l);
    store_before_eviction(l->store, before_eviction, l);
    int rc = -pthread_create(&l->reporter, NULL, report_main, l);
    l->reports = rc == 0;
    if (rc == 0)
        rc = -pthread_create(&l->pool_thread, NULL, pool_main, l);
    l->looks_at_pool = l->reports && rc == 0;
    return rc;
}

void reports_stop(struct link *l)
{
    if (l->reports)
        pthread_join(l->reporter, NULL);
    l->reports = false;
    if (l->looks_at_pool)
        pthread_join(l->pool_thread, NULL);
    l->looks_at_pool = false;
}
