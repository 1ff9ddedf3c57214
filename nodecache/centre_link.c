/* The connection to the centre: HELLO, and its life. */
#include "nodecache/centre_link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/log.h"
#include "nodecache/link_private.h"

/* ---- HELLO ---- */

void link_heard(struct link *l, int64_t said)
{
    if (said > atomic_load(&l->heard_ms))
        atomic_store(&l->heard_ms, said);
    if (l->jobs)
        jobs_heard(l->jobs, said);
}

bool link_fenced(struct link *l)
{
    return clock_boot_ms() - atomic_load(&l->heard_ms) > atomic_load(&l->fence_ms);
}

void link_ends(struct link *l, enum link_end how)
{
    uint64_t one = 1;

    pthread_mutex_lock(&l->lock);
    bool first = l->end == LINK_GOES_ON;
    if (first)
        l->end = how;
    pthread_mutex_unlock(&l->lock);
    if (first && l->options.end_fd >= 0 &&
        write(l->options.end_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        log_error("the end of this node cannot be told: %s", strerror(errno));
}

enum link_end link_end(struct link *l)
{
    pthread_mutex_lock(&l->lock);
    enum link_end end = l->end;
    pthread_mutex_unlock(&l->lock);
    return end;
}

void link_take_clock(struct link *l, uint64_t clock_ms, int64_t said)
{
    pthread_mutex_lock(&l->lock);
    l->keys[0].clock_ms = (int64_t)clock_ms;
    l->keys[0].at_ms = said;
    pthread_mutex_unlock(&l->lock);
}

static void take_key(struct link *l, const Star__HelloReply *r, int64_t said)
{
    struct link_key k = {.key.generation = r->ticket_generation};

    if (r->ticket_key.len != sizeof(k.key.key))
        return; /* without it every ticket is refused */
    memcpy(k.key.key, r->ticket_key.data, sizeof(k.key.key));
    pthread_mutex_lock(&l->lock);
    l->keys[1] = l->keys[0];
    l->keys[0] = k;
    pthread_mutex_unlock(&l->lock);
    link_take_clock(l, r->clock_ms, said);
}

int link_ticket(struct link *l, const Star__Ticket *t, int64_t *until)
{
    struct link_key keys[2];
    int rc = -EKEYREJECTED;

    pthread_mutex_lock(&l->lock);
    memcpy(keys, l->keys, sizeof(keys));
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; rc < 0 && i < 2; i++) {
        rc = ticket_verify(&keys[i].key, t);
        *until = keys[i].at_ms + ((int64_t)t->expires - keys[i].clock_ms);
    }
    if (rc == 0 && t->node != store_node(l->store))
        rc = -EKEYREJECTED;
    return rc;
}

static void take_hello(struct link *l, const Star__HelloReply *r)
{
    if (r->fence_ms > 0)
        atomic_store(&l->fence_ms, r->fence_ms);
    store_set_node(l->store, r->node);
    store_set_water(l->store, r->high_water, r->low_water, r->flush_age);
    pthread_mutex_lock(&l->lock);
    if (!l->hello)
        log_info("the centre knows us as node %u", r->node);
    l->hello = true;
    l->refused = 0;
    l->connects++;
    l->centre_new = l->centre_new || l->centre_instance != r->centre_instance;
    l->lines_gone = l->lines_gone || r->lines_lost;
    l->centre_instance = r->centre_instance;
    snprintf(l->cloud, sizeof(l->cloud), "%s", r->cloud);
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static int on_connect(void *ctx, struct client *c)
{
    struct link *l = ctx;
    Star__Hello m = STAR__HELLO__INIT;
    ProtobufCMessage *reply = NULL;
    char detail[NODE_DETAIL] = "";

    m.protocol = PROTOCOL_VERSION;
    m.role = STAR__ROLE__NODE;
    m.name = (char *)l->options.name;
    m.cloud = (char *)l->options.cloud;
    m.instance = l->instance;
    m.address = (char *)l->options.address;
    m.capacity = l->options.capacity;
    m.machine = (char *)l->options.machine;
    m.store = (char *)store_id(l->store);
    pthread_mutex_lock(&l->lock);
    m.fresh = !l->hello;
    pthread_mutex_unlock(&l->lock);
    int64_t said = clock_boot_ms();
    int rc = client_handshake(c, STAR__MSG_TYPE__HELLO, &m.base, LINK_HELLO_MS,
                              &star__hello_reply__descriptor, &reply, detail);
    if (rc >= 0 && !reply)
        rc = -EPROTO;
    if (rc >= 0) {
        link_heard(l, said);
        take_key(l, (Star__HelloReply *)reply, said);
        take_hello(l, (Star__HelloReply *)reply);
        if (l->jobs)
            jobs_connected(l->jobs);
        protobuf_c_message_free_unpacked(reply, NULL);
        return 0;
    }
    if (rc == -ENODEV)
        link_ends(l, LINK_GIVEN_UP); /* before link_wait() tells of it */
    pthread_mutex_lock(&l->lock);
    if (l->refused != rc)
        log_warning("the centre does not take us: %s%s%s", strerror(-rc), detail[0] ? ": " : "",
                    detail);
    l->refused = rc;
    snprintf(l->detail, sizeof(l->detail), "%s", detail[0] ? detail : strerror(-rc));
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static void on_disconnect(void *ctx, struct client *c)
{
    struct link *l = ctx;

    (void)c;
    pthread_mutex_lock(&l->lock);
    bool stop = l->stop;
    pthread_mutex_unlock(&l->lock);
    if (!stop)
        log_warning("the connection to the centre is lost");
}

/* ---- life ---- */

int link_new(const struct link_options *options, struct link **out)
{
    struct link *l = calloc(1, sizeof(*l));

    if (!l)
        return -ENOMEM;
    l->options = *options;
    l->instance = random_id();
    atomic_store(&l->fence_ms, LINK_FENCE_MS);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    pthread_mutex_init(&l->fresh_lock, NULL);
    pthread_mutex_init(&l->lines_lock, NULL);
    pthread_rwlock_init(&l->client_lock, NULL);
    for (unsigned i = 0; i < LINK_WORKERS; i++) {
        l->workers[i].link = l;
        pthread_cond_init(&l->workers[i].work, NULL);
    }
    *out = l;
    return 0;
}

/* Of a unix socket it is only that nobody listens yet. */
static void on_fail(void *ctx, struct client *c, int err, const char *detail)
{
    struct link *l = ctx;

    (void)c;
    if (err == l->failed || !l->options.identity)
        return;
    l->failed = err;
    log_warning("the centre: %s", detail);
}

int link_connect(struct link *l, struct store *s, struct flush *fl, struct pool *pool,
                 struct jobs *jobs)
{
    struct client_ops ops = {.on_connect = on_connect,
                             .on_disconnect = on_disconnect,
                             .on_push = link_on_push,
                             .on_fail = on_fail,
                             .identity = l->options.identity,
                             .expect = IDENTITY_CONTROL};

    l->store = s;
    l->flush = fl;
    l->pool = pool;
    l->jobs = jobs;
    return client_start(l->options.centre, "centre", &ops, l, &l->client);
}

/* These do not pass by waiting. */
static bool final(int rc)
{
    return rc == -EPROTONOSUPPORT || rc == -EXDEV || rc == -EPERM || rc == -EACCES ||
           rc == -EEXIST || rc == -EINVAL || rc == -ENODEV;
}

int link_wait(struct link *l, int ms, char detail[NODE_DETAIL])
{
    struct timespec until = deadline_in(ms);
    int rc = 0;

    pthread_mutex_lock(&l->lock);
    while (!l->hello && rc == 0 && !final(l->refused))
        rc = pthread_cond_timedwait(&l->changed, &l->lock, &until);
    if (l->hello)
        rc = 0;
    else if (final(l->refused))
        rc = l->refused;
    else
        rc = -ETIMEDOUT;
    snprintf(detail, NODE_DETAIL, "the centre at %s: %.160s", l->options.centre,
             l->detail[0] ? l->detail : "no answer");
    pthread_mutex_unlock(&l->lock);
    return rc;
}

int link_ready(struct link *l)
{
    int rc = pushes_start(l);

    return rc < 0 ? rc : reports_start(l);
}

const char *link_cloud(struct link *l)
{
    return l->cloud;
}

void link_stop(struct link *l)
{
    if (!l)
        return;
    if (l->store)
        store_on_lost_lines(l->store, NULL, NULL);
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    pthread_rwlock_wrlock(&l->client_lock);
    l->client_stops = true;
    pthread_rwlock_unlock(&l->client_lock);
    if (l->client)
        client_stop(l->client); /* ends all waiting calls */
    if (l->store)
        store_before_eviction(l->store, NULL, NULL);
    reports_stop(l);
    pushes_stop(l);
}

void link_free(struct link *l)
{
    if (!l)
        return;
    free(l->lines);
    pthread_rwlock_destroy(&l->client_lock);
    for (unsigned i = 0; i < LINK_WORKERS; i++)
        pthread_cond_destroy(&l->workers[i].work);
    pthread_mutex_destroy(&l->fresh_lock);
    pthread_mutex_destroy(&l->lines_lock);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
