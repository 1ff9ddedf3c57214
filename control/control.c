/* The centre's process: loop, timers, start and stop. */
#include "control/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/centre.h"
#include "control/wire/clock.h"
#include "control/wire/daemon.h"
#include "control/wire/log.h"

#define TICK_MS 100

static void on_peer_close(void *ctx, struct peer *p)
{
    struct centre *c = ctx;
    struct link *link = peer_data(p);

    if (!link)
        return;
    if (link->session && link->session->peer == p)
        session_disconnected(c, link->session);
    if (link->node && link->node->peer == p)
        node_disconnected(c, link->node);
    peer_set_data(p, NULL);
    free(link);
}

static bool reap_found(void *arg, uint64_t ino)
{
    reap_if_unused(arg, ino);
    return true;
}

/* The lease clock goes on. What this process slept through does not count: mounts could not renew.
 */
static void clock_step(struct centre *c)
{
    int64_t tick = clock_boot_ms(), step = tick - c->tick_ms;

    if (step > CLOCK_STEP_MAX_MS)
        log_warning("did not run for %lld ms; leases are given that much more time",
                    (long long)step);
    c->now += step < CLOCK_STEP_MAX_MS ? step : CLOCK_STEP_MAX_MS;
    c->tick_ms = tick;
}

static void on_tick(uv_timer_t *timer)
{
    struct centre *c = timer->data;

    clock_step(c);
    if (!c->leading)
        return;
    grace_check(c);
    sessions_tick(c, c->now);
    nodes_tick(c, c->now);
    gc_tick(c, c->now);
    meta_tick(c, c->now);
    keys_tick(c, c->now);
    hot_files_tick(c, c->now);
    scrub_tick(c, c->now);
    jobs_tick(c, c->now);
    demand_tick(c, c->now);
    /* No memory for more: as many as before are kept. */
    (void)events_limit(&c->events, setting_u64(c, "event_limit"));
    (void)events_limit(&c->errors, setting_u64(c, "event_limit"));
    if (c->serving && !c->swept) {
        c->swept = true;
        state_orphans(c->state, 0, reap_found, c);
    }
    reap_submit(c);
}

static void on_idle(uv_idle_t *handle)
{
    (void)handle; /* on_prepare() does the work */
}

void centre_goes_on(struct centre *c, bool more)
{
    if (more)
        uv_idle_start(&c->more, on_idle);
    else
        uv_idle_stop(&c->more);
}

static void on_prepare(uv_prepare_t *handle)
{
    struct centre *c = handle->data;

    if (c->stopping)
        return;
    ops_wake(c);
    jobs_turn(c);
    if (c->reap_n >= REAP_BATCH_MIN)
        reap_submit(c);
}

/* --- leadership --- */

static void start_refused(struct centre *c, const char *text, int rc)
{
    log_error("%s", text);
    c->result = rc;
    c->leading = false;
    daemon_ready(c->options->ready_fd, text);
    uv_stop(&c->loop);
}

static void start_failed(struct centre *c, const char *what, int rc)
{
    char text[256];

    snprintf(text, sizeof(text), "%.200s: %s", what, strerror(-rc));
    start_refused(c, text, rc);
}

static void on_unusable(void *ctx, const char *text)
{
    start_refused(ctx, text, -ENOTRECOVERABLE);
}

static void on_refused(void *ctx, const char *detail)
{
    struct centre *c = ctx;

    events_add(&c->events, "refused", "%s", detail);
}

static bool start_tcp(struct centre *c)
{
    const struct hub_ops ops = {.on_request = centre_request,
                                .on_close = on_peer_close,
                                .identity = c->identity,
                                .anonymous = c->authority != NULL,
                                .on_refused = on_refused};
    if (!c->options->listen_tcp)
        return true;
    int rc = hub_start(&c->loop, c->options->listen_tcp, &ops, c, &c->hub_tcp);
    if (rc < 0)
        start_failed(c, c->options->listen_tcp, rc);
    return rc == 0;
}

static void on_leader(void *ctx)
{
    struct centre *c = ctx;
    static const struct hub_ops ops = {.on_request = centre_request, .on_close = on_peer_close};

    c->grace_ms = c->now;
    c->leading = true;
    int rc = sessions_load(c);
    if (rc == 0)
        rc = nodes_load(c);
    if (rc == 0)
        rc = jobs_load(c);
    if (rc == 0)
        rc = demand_load(c);
    if (rc < 0) {
        start_failed(c, "sessions, nodes and jobs", rc);
        return;
    }
    rc = hub_start(&c->loop, c->options->listen, &ops, c, &c->hub);
    if (rc < 0) {
        start_failed(c, c->options->listen, rc);
        return;
    }
    if (!start_tcp(c))
        return;
    grace_check(c);
    rc = daemon_pid_write(c->options->pid_file);
    if (rc < 0)
        log_warning("%s: %s", c->options->pid_file, strerror(-rc));
    daemon_ready(c->options->ready_fd, NULL);
}

/* One voter cannot lose its leadership but by its own log, and there is nobody to hand over to. */
static void on_follower(void *ctx)
{
    (void)ctx;
    log_error("leadership is lost: the log cannot be written; the process ends");
    abort();
}

/* --- stop --- */

static void on_consensus_stopped(void *arg)
{
    struct centre *c = arg;

    c->log = NULL;
    demand_stop(c);
    uv_close((uv_handle_t *)&c->tick, NULL);
    uv_close((uv_handle_t *)&c->prepare, NULL);
    uv_close((uv_handle_t *)&c->more, NULL);
    uv_close((uv_handle_t *)&c->sigterm, NULL);
    uv_close((uv_handle_t *)&c->sigint, NULL);
    uv_close((uv_handle_t *)&c->sigusr1, NULL);
}

static void stop_log(struct centre *c)
{
    consensus_stop(c->log, on_consensus_stopped, c);
}

static void stop_meta(struct centre *c)
{
    meta_stop(c, stop_log); /* so does this */
}

static void on_hub_closed(void *arg)
{
    struct centre *c = arg;

    c->hub = NULL;
    ctl_check_stop(c, stop_meta); /* it reads the state */
}

static void on_tcp_closed(void *arg)
{
    struct centre *c = arg;

    c->hub_tcp = NULL;
    hub_close(c->hub, on_hub_closed, c);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct centre *c = handle->data;

    if (c->stopping)
        return;
    log_info("signal %d: stopping", number);
    c->stopping = true;
    c->serving = c->leading = false;
    uv_timer_stop(&c->tick);
    uv_idle_stop(&c->more);
    if (c->hub_tcp)
        hub_close(c->hub_tcp, on_tcp_closed, c);
    else if (c->hub)
        hub_close(c->hub, on_hub_closed, c);
    else
        consensus_stop(c->log, on_consensus_stopped, c);
}

static void on_hold(uv_signal_t *handle, int number)
{
    (void)number;
    demand_hold(handle->data);
}

/* --- run --- */

static void start_handles(struct centre *c)
{
    uv_timer_init(&c->loop, &c->tick);
    c->tick.data = c;
    uv_timer_start(&c->tick, on_tick, TICK_MS, TICK_MS);
    uv_prepare_init(&c->loop, &c->prepare);
    c->prepare.data = c;
    uv_prepare_start(&c->prepare, on_prepare);
    uv_idle_init(&c->loop, &c->more);
    uv_signal_init(&c->loop, &c->sigterm);
    c->sigterm.data = c;
    uv_signal_start(&c->sigterm, on_signal, SIGTERM);
    uv_signal_init(&c->loop, &c->sigint);
    c->sigint.data = c;
    uv_signal_start(&c->sigint, on_signal, SIGINT);
    uv_signal_init(&c->loop, &c->sigusr1);
    c->sigusr1.data = c;
    uv_signal_start(&c->sigusr1, on_hold, CONTROL_HOLD);
}

static void centre_free(struct centre *c)
{
    ops_end_all(c);
    session_free_all(c);
    lives_free_all(c);
    jobs_free_all(c);
    node_free_all(c);
    gc_free(c);
    meta_free(c);
    hot_files_free(c);
    scrub_free(c);
    events_free(&c->events);
    events_free(&c->errors);
    identity_free(c->identity);
    authority_close(c->authority);
    free(c->reap);
    free(c);
}

int control_run(const struct control_options *options)
{
    struct consensus_ops ops = {
        .on_leader = on_leader, .on_follower = on_follower, .on_unusable = on_unusable};
    char detail[256] = "";
    struct centre *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->options = options;
    c->instance = random_id();
    c->started_ms = c->tick_ms = clock_boot_ms();
    signal(SIGPIPE, SIG_IGN);
    int rc = identities_load(c, detail);
    if (rc < 0) {
        log_error("%s", detail);
        daemon_ready(options->ready_fd, detail);
        centre_free(c);
        return rc;
    }
    uv_loop_init(&c->loop);
    rc = consensus_start(&c->loop, options->dir, options->reserve, &ops, c, &c->log, detail);
    if (rc < 0) {
        log_error("%s", detail[0] ? detail : strerror(-rc));
        daemon_ready(options->ready_fd, detail[0] ? detail : strerror(-rc));
        centre_free(c);
        return rc;
    }
    c->state = consensus_state(c->log);
    start_handles(c);
    uv_run(&c->loop, UV_RUN_DEFAULT);
    rc = c->result;
    daemon_pid_remove(options->pid_file);
    log_info("stopped");
    /* libuv's threads may still be at work for the log, perhaps for ever, and they use the loop. */
    if (rc < 0)
        _exit(EXIT_FAILURE);
    uv_loop_close(&c->loop);
    centre_free(c);
    return 0;
}
