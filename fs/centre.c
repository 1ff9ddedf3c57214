#include "fs/centre.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "control/wire/address.h"
#include "fs/control_files.h"
#include "fs/kreq.h"
#include "fs/leases.h"
#include "fs/pool_access.h"
#include "fs/reclaim.h"
#include "fs/straight_read.h"
#include "fs/straight_write.h"
#include "fs/waits.h"

#define HELLO_MS 5000
/* Before the centre has told its own (section 6). */
#define RENEW_MS_DEFAULT 3000
#define FENCE_MS_DEFAULT 8000
#define FENCE_CHECK_MS   200
/* The mount ends even if the centre does not hear of it: the session expires there. */
#define BYE_MS 3000

struct centre_link {
    struct worker *w;
    struct client *client;
    uint64_t session; /* of the client's thread; read by others after it was started */
    int64_t renew_sent_ms;
    int failed; /* what on_fail has said last */
};

static void session_is_lost(struct worker *w)
{
    uint64_t one = 1;

    atomic_store(&w->centre.connected, false);
    if (write(w->centre.lost_fd, &one, sizeof(one)) < 0)
        log_error("cannot tell that the session is lost: %s", strerror(errno));
}

static void heard(struct worker *w, int64_t sent_ms)
{
    struct centre *c = &w->centre;

    if (sent_ms > atomic_load(&c->renewed_ms))
        atomic_store(&c->renewed_ms, sent_ms);
    if (clock_boot_ms() - sent_ms < atomic_load(&c->fence_ms) && atomic_exchange(&c->fenced, false))
        log_info("the centre is back");
}

bool msession_leased(struct worker *w)
{
    struct centre *c = &w->centre;

    return !atomic_load(&c->fenced) &&
           clock_boot_ms() - atomic_load(&c->renewed_ms) < atomic_load(&c->fence_ms);
}

bool msession_alive(struct worker *w)
{
    struct centre *c = &w->centre;

    return msession_leased(w) ||
           clock_boot_ms() - atomic_load(&c->resumed_ms) < atomic_load(&c->fence_ms);
}

/* --- the stream --- */

static void start_result(struct worker *w, int rc, const char *detail)
{
    struct centre *c = &w->centre;

    pthread_mutex_lock(&c->start_lock);
    c->started = c->started || rc == 0;
    c->start_error = rc;
    snprintf(c->start_detail, sizeof(c->start_detail), "%s", detail);
    pthread_cond_broadcast(&c->start_changed);
    pthread_mutex_unlock(&c->start_lock);
}

static int say_hello(struct centre_link *l, struct client *client, Star__HelloReply **reply,
                     char *detail)
{
    struct worker *w = l->w;
    Star__Hello hello = STAR__HELLO__INIT;
    char machine[37] = "";

    int rc = clock_machine(machine);
    if (rc < 0)
        return rc;
    hello.protocol = PROTOCOL_VERSION;
    hello.role = STAR__ROLE__MOUNT;
    hello.name = (char *)(uintptr_t)w->options->name;
    if (address_is_tcp(w->options->centre)) /* who we are says our certificate */
        hello.name = (char *)(uintptr_t)identity_self(w->identity)->name;
    hello.cloud = (char *)(uintptr_t)w->options->cloud;
    hello.session = l->session;
    hello.instance = w->centre.instance;
    hello.machine = machine;
    return client_handshake(client, STAR__MSG_TYPE__HELLO, &hello.base, HELLO_MS,
                            &star__hello_reply__descriptor, (ProtobufCMessage **)reply, detail);
}

static void take_settings(struct worker *w, const Star__HelloReply *r)
{
    pool_access_url(w->pool, r->pool);
    atomic_store(&w->direct_size, r->direct_size);
    if (r->renew_ms)
        atomic_store(&w->centre.renew_ms, r->renew_ms);
    if (r->fence_ms)
        atomic_store(&w->centre.fence_ms, r->fence_ms);
}

/* One file may be written by several machines: its times are by one clock. */
static void take_clock(struct worker *w, int64_t sent_ns, int64_t real_ns)
{
    if (real_ns > 0)
        atomic_store(&w->centre.ahead_ns, clock_ahead_ns(sent_ns, clock_real_ns(), real_ns));
}

struct timespec msession_time(struct worker *w)
{
    int64_t ns = clock_real_ns() + atomic_load(&w->centre.ahead_ns);

    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

static int on_connect(void *ctx, struct client *client)
{
    struct centre_link *l = ctx;
    struct worker *w = l->w;
    Star__HelloReply *r = NULL;
    char detail[256] = "";
    int64_t sent_ms = clock_boot_ms(), sent_ns = clock_real_ns();
    bool had_session = l->session != 0;

    int rc = say_hello(l, client, &r, detail);
    if (rc == 0 && had_session && (!r->resumed || r->session != l->session))
        rc = -ESTALE;
    if (rc < 0)
        goto out;
    take_settings(w, r);
    take_clock(w, sent_ns, r->real_ns);
    if (had_session)
        atomic_store(&w->centre.resumed_ms, sent_ms);
    if (had_session)
        rc = reclaim(w, client);
    if (rc < 0)
        goto out;
    l->session = r->session;
    heard(w, sent_ms);
    atomic_store(&w->centre.connected, true);
out:
    if (rc == -ESTALE && had_session)
        session_is_lost(w);
    else if (rc < 0)
        log_warning("the centre at %s refuses us: %s%s%s", w->options->centre, strerror(-rc),
                    detail[0] ? ": " : "", detail);
    start_result(w, rc, detail);
    if (r)
        star__hello_reply__free_unpacked(r, NULL);
    return rc;
}

static void on_disconnect(void *ctx, struct client *client)
{
    struct centre_link *l = ctx;

    (void)client;
    atomic_store(&l->w->centre.connected, false);
}

static void on_push(void *ctx, struct client *client, const struct message *m)
{
    struct centre_link *l = ctx;

    if (m->type == STAR__MSG_TYPE__RECALL)
        leases_recall(l->w, client, m);
    else if (m->kind == FRAME_REQUEST)
        client_reply(client, m, -EOPNOTSUPP, NULL);
}

/* One side refused the other: waiting will not help, so the start says why. */
static void on_fail(void *ctx, struct client *client, int err, const char *detail)
{
    struct centre_link *l = ctx;

    (void)client;
    if (err != -EACCES && err != -EPROTO)
        return;
    if (err != l->failed)
        log_warning("%s", detail);
    l->failed = err;
    start_result(l->w, err, detail);
}

static int link_new(struct worker *w, struct centre_link **out)
{
    const struct client_ops ops = {.on_connect = on_connect,
                                   .on_disconnect = on_disconnect,
                                   .on_push = on_push,
                                   .on_fail = on_fail,
                                   .identity = w->identity,
                                   .expect = IDENTITY_CONTROL};
    struct centre_link *l = calloc(1, sizeof(*l));

    if (!l)
        return -ENOMEM;
    l->w = w;
    int rc = client_start(w->options->centre, "centre", &ops, l, &l->client);
    if (rc < 0) {
        free(l);
        return rc;
    }
    *out = l;
    return 0;
}

static void link_free(struct centre_link *l)
{
    if (!l)
        return;
    client_stop(l->client);
    free(l);
}

/* --- calls --- */

int msession_call(struct worker *w, uint16_t type, const ProtobufCMessage *body,
                  const struct iovec *payload, int payload_n, int deadline_ms, unsigned flags,
                  client_reply_fn fn, void *arg, uint64_t *id)
{
    struct centre *c = &w->centre;
    int rc = -ESHUTDOWN;

    pthread_rwlock_rdlock(&c->link_lock);
    if (c->link)
        rc = client_call(c->link->client, type, body, payload, payload_n, deadline_ms, flags, fn,
                         arg, id);
    pthread_rwlock_unlock(&c->link_lock);
    return rc;
}

int msession_notify(struct worker *w, uint16_t type, const ProtobufCMessage *body)
{
    struct centre *c = &w->centre;
    int rc = -ESHUTDOWN;

    pthread_rwlock_rdlock(&c->link_lock);
    if (c->link)
        rc = client_notify(c->link->client, type, body);
    pthread_rwlock_unlock(&c->link_lock);
    return rc;
}

void msession_reply(struct worker *w, struct client *client, const struct message *header,
                    int status)
{
    struct centre *c = &w->centre;

    pthread_rwlock_rdlock(&c->link_lock);
    if (c->link && c->link->client == client)
        client_reply(client, header, status, NULL);
    pthread_rwlock_unlock(&c->link_lock);
}

/* --- renewal and fencing --- */

struct renewal {
    struct worker *w;
    int64_t sent_ms, sent_ns;
    struct controls_told controls;
};

static void on_renewed(void *arg, const struct message *reply)
{
    struct renewal *r = arg;
    int status;
    Star__RenewReply *said = kreq_unpack(reply, &star__renew_reply__descriptor, &status);

    if (said) {
        atomic_store(&r->w->direct_size, said->direct_size);
        take_clock(r->w, r->sent_ns, said->real_ns);
    }
    if (said)
        star__renew_reply__free_unpacked(said, NULL);
    if (reply->status >= 0) {
        controls_heard(r->w, &r->controls);
        heard(r->w, r->sent_ms);
    } else if (reply->status == -ESTALE) {
        session_is_lost(r->w);
    }
    free(r);
}

static void renew(struct worker *w)
{
    struct centre *c = &w->centre;
    Star__Renew body = STAR__RENEW__INIT;
    Star__ControlsRefused refused;
    struct renewal *r = malloc(sizeof(*r));

    if (!r)
        return; /* the next one, 3 s later, is still in time */
    *r = (struct renewal){.w = w, .sent_ms = clock_boot_ms(), .sent_ns = clock_real_ns()};
    body.acked = seq_acked(&c->seq);
    body.pool_read = straight_bytes_read(w->reader);
    body.pool_written = straight_bytes_written(w->writer);
    waits_tell(w, &body);
    r->controls = controls_tell(w, &body, &refused);
    pthread_rwlock_rdlock(&c->link_lock);
    body.session = c->link ? c->link->session : 0;
    pthread_rwlock_unlock(&c->link_lock);
    int deadline = (int)atomic_load(&c->fence_ms);
    if (msession_call(w, STAR__MSG_TYPE__RENEW, &body.base, NULL, 0, deadline, 0, on_renewed, r,
                      NULL) < 0)
        free(r);
}

static void renew_tick(void *arg)
{
    struct worker *w = arg;

    if (atomic_load(&w->stopping))
        return;
    if (atomic_load(&w->centre.connected))
        renew(w);
    if (timer_queue_after(w->timer, atomic_load(&w->centre.renew_ms), renew_tick, w) < 0)
        log_error("no memory to renew the lease: the mount will fence itself");
}

static void fence_tick(void *arg)
{
    struct worker *w = arg;
    struct centre *c = &w->centre;

    if (atomic_load(&w->stopping))
        return;
    int64_t silent = clock_boot_ms() - atomic_load(&c->renewed_ms);
    if (silent >= atomic_load(&c->fence_ms) && !atomic_exchange(&c->fenced, true)) {
        log_warning("nothing heard from the centre for %lld ms: nothing is served from memory "
                    "until it is back",
                    (long long)silent);
        leases_drop_all(w, false, NULL, NULL);
    }
    if (timer_queue_after(w->timer, FENCE_CHECK_MS, fence_tick, w) < 0)
        atomic_store(&c->fenced, true); /* cannot watch the clock: then use no lease */
}

/* --- start and end --- */

static int wait_started(struct worker *w, char detail[256])
{
    struct centre *c = &w->centre;
    struct timespec until;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += START_DEADLINE_MS / 1000;
    pthread_mutex_lock(&c->start_lock);
    while (!c->started && rc == 0)
        rc = -pthread_cond_timedwait(&c->start_changed, &c->start_lock, &until);
    if (c->started)
        rc = 0;
    else if (c->start_error < 0)
        snprintf(detail, 256, "the centre at %.100s refuses us: %s%s%.100s", w->options->centre,
                 strerror(-c->start_error), c->start_detail[0] ? ": " : "", c->start_detail);
    else
        snprintf(detail, 256,
                 "no centre answers at %.150s within %d s: is the cloud up (umbel up)?",
                 w->options->centre, START_DEADLINE_MS / 1000);
    pthread_mutex_unlock(&c->start_lock);
    return rc;
}

static int init_state(struct centre *c)
{
    pthread_condattr_t attr;

    pthread_rwlock_init(&c->link_lock, NULL);
    pthread_rwlock_init(&c->opens_lock, NULL);
    pthread_mutex_init(&c->start_lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->start_changed, &attr);
    pthread_condattr_destroy(&attr);
    c->instance = random_id();
    atomic_store(&c->renew_ms, RENEW_MS_DEFAULT);
    atomic_store(&c->fence_ms, FENCE_MS_DEFAULT);
    c->lost_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return c->lost_fd < 0 ? -errno : seq_init(&c->seq);
}

int msession_start(struct worker *w, char detail[256])
{
    int rc = init_state(&w->centre);

    if (rc == 0)
        rc = link_new(w, &w->centre.link);
    if (rc < 0) {
        snprintf(detail, 256, "cannot start a connection to %.150s: %s", w->options->centre,
                 strerror(-rc));
        return rc;
    }
    rc = wait_started(w, detail);
    if (rc < 0)
        return rc;
    renew_tick(w);
    fence_tick(w);
    return 0;
}

void msession_replace(struct worker *w)
{
    struct centre *c = &w->centre;
    struct centre_link *fresh = NULL, *old;

    log_error("the session with the centre has expired: what was open is closed (EIO); a new "
              "session begins");
    atomic_fetch_add(&c->generation, 1);
    reclaim_nothing(w);
    leases_drop_all(w, false, NULL, NULL); /* a new session makes old leases look alive */
    int rc = link_new(w, &fresh);
    if (rc < 0)
        log_error("no new session: %s", strerror(-rc));
    pthread_rwlock_wrlock(&c->link_lock);
    old = c->link;
    c->link = fresh;
    pthread_rwlock_unlock(&c->link_lock);
    link_free(old);
    leases_drop_all(w, false, NULL, NULL);
    uint64_t count;
    while (read(c->lost_fd, &count, sizeof(count)) > 0)
        ; /* said more than once of the same session */
}

void msession_bye(struct worker *w)
{
    struct centre *c = &w->centre;
    char detail[256] = "";

    if (!c->link || !atomic_load(&c->connected))
        return;
    int rc = client_call_wait(c->link->client, STAR__MSG_TYPE__BYE, NULL, BYE_MS, 0, NULL, NULL,
                              detail, NULL, NULL);
    if (rc < 0)
        log_warning("the centre did not hear that we leave: %s; our session expires there",
                    strerror(-rc));
}

void msession_stop(struct worker *w)
{
    struct centre *c = &w->centre;
    struct centre_link *old;

    if (c->lost_fd < 0)
        return;
    pthread_rwlock_wrlock(&c->link_lock);
    old = c->link;
    c->link = NULL;
    pthread_rwlock_unlock(&c->link_lock);
    link_free(old);
}

void msession_free(struct worker *w)
{
    struct centre *c = &w->centre;

    if (c->lost_fd >= 0)
        close(c->lost_fd);
    c->lost_fd = -1;
    seq_destroy(&c->seq);
}
