#include "control/wire/hub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/hub_private.h"

/* Requests of ours that wait for peers, in all: some recalls for each of many mounts. Beyond:
 * -EBUSY. */
#define HUB_PENDING_MAX 65536
/* Connections taken in one turn of the loop. */
#define HUB_ACCEPTS_MAX 16
/* Without free descriptors, accepting goes on after this time. */
#define HUB_PAUSE_MS 100
/* Deadlines are looked at no more often than this. */
#define HUB_TIMER_LEAST_MS 5
/* How often it is looked who has not finished a handshake. */
#define HUB_HALF_TICK_MS 500

uint64_t hub_garbage(const struct hub *h)
{
    return h->garbage;
}

/* ---- sending at the end of a turn */

/* An active idle handle makes the loop poll without sleeping. */
static void on_idle(uv_idle_t *idle)
{
    struct hub *h = idle->data;
    struct peer *p = h->more;
    h->more = NULL;
    if (!h->dirty)
        uv_idle_stop(idle);
    while (p) {
        struct peer *next = p->next_more;
        p->more = false;
        peer_receive(p);
        peer_unref(p);
        p = next;
    }
}

void hub_mark_more(struct peer *p)
{
    struct hub *h = p->hub;
    if (p->more)
        return;
    p->more = true;
    p->next_more = h->more;
    h->more = peer_ref(p);
    uv_idle_start(&h->idle, on_idle);
}

void hub_mark(struct peer *p)
{
    struct hub *h = p->hub;
    if (p->dirty)
        return;
    if (!h->dirty)
        uv_idle_start(&h->idle, on_idle);
    p->dirty = true;
    p->next_dirty = h->dirty;
    h->dirty = p;
}

void hub_flush(struct hub *h)
{
    while (h->dirty) { /* what on_close callbacks send to others comes here, too */
        struct peer *p = h->dirty;
        h->dirty = p->next_dirty;
        p->dirty = false;
        if (!h->dirty && !h->more)
            uv_idle_stop(&h->idle);
        peer_flush(p);
    }
}

static void on_check(uv_check_t *check)
{
    hub_flush(check->data);
}

static void on_prepare(uv_prepare_t *prepare)
{
    hub_flush(prepare->data);
}

/* ---- deadlines */

static void on_timer(uv_timer_t *timer)
{
    struct hub *h = timer->data;
    struct call call;
    uint32_t at = 0;
    int64_t now = clock_boot_ms();
    h->timer_at = CALLS_NO_DEADLINE;
    while (calls_expire(&h->calls, now, &at, &call)) {
        struct message m = {
            .kind = FRAME_REPLY, .type = call.type, .id = call.id, .status = -ETIMEDOUT};
        if (call.fn)
            call.fn(call.arg, &m);
    }
    hub_timer(h, h->calls.earliest);
}

void hub_timer(struct hub *h, int64_t deadline)
{
    if (h->closing || deadline >= h->timer_at)
        return;
    int64_t wait = deadline - clock_boot_ms();
    if (wait < HUB_TIMER_LEAST_MS)
        wait = HUB_TIMER_LEAST_MS;
    h->timer_at = deadline;
    uv_update_time(
        h->loop); /* the timer counts from the loop's time, which a long turn leaves behind */
    uv_timer_start(&h->timer, on_timer, (uint64_t)wait, 0);
}

/* ---- peers of whom it is not known who they are */

static void on_half_timer(uv_timer_t *timer)
{
    struct hub *h = timer->data;
    int64_t now = clock_boot_ms();
    for (struct peer *p = h->peers; p; p = p->next)
        if (p->half_until && p->half_until <= now)
            peer_give_up(p, p->shaking ? "it does not finish the handshake in time"
                                       : "it did not join in time");
}

/* The list has the newest first. */
static void cut_oldest_half_open(struct hub *h)
{
    struct peer *oldest = NULL;
    for (struct peer *p = h->peers; p; p = p->next)
        if (p->half_until && p->open)
            oldest = p;
    if (oldest)
        peer_give_up(oldest, "too many others do not finish their handshakes");
}

void hub_half_open(struct hub *h, int change)
{
    if (change > 0 && h->half_open >= CHANNEL_HALF_OPEN_MAX)
        cut_oldest_half_open(h);
    h->half_open += (unsigned)change;
    if (h->half_open == 0)
        uv_timer_stop(&h->half_timer);
    else if (change > 0 && h->half_open == 1)
        uv_timer_start(&h->half_timer, on_half_timer, HUB_HALF_TICK_MS, HUB_HALF_TICK_MS);
}

/* ---- accepting */

static void on_accept(uv_poll_t *poll, int status, int events);

static void on_pause(uv_timer_t *pause)
{
    struct hub *h = pause->data;
    uv_poll_start(&h->accepting, UV_READABLE, on_accept);
}

static void on_accept(uv_poll_t *poll, int status, int events)
{
    struct hub *h = poll->data;
    (void)status; /* accept tells */
    (void)events;
    for (int i = 0; i < HUB_ACCEPTS_MAX; i++) {
        int fd = accept4(h->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && errno != EAGAIN) {
            uv_poll_stop(&h->accepting);
            uv_timer_start(&h->pause, on_pause, HUB_PAUSE_MS, 0);
        }
        if (fd < 0)
            return;
        if (h->count >= HUB_CONNECTIONS_MAX || peer_open(h, fd) < 0)
            close(fd);
    }
}

/* ---- start and end */

void hub_handle_closed(struct hub *h)
{
    if (--h->handles > 0)
        return;
    void (*done)(void *) = h->done;
    void *arg = h->done_arg;
    calls_free(&h->calls);
    free(h->address);
    free(h);
    if (done)
        done(arg);
}

static void on_closed(uv_handle_t *handle)
{
    hub_handle_closed(handle->data);
}

static void start_handles(struct hub *h)
{
    uv_timer_init(h->loop, &h->pause);
    uv_timer_init(h->loop, &h->timer);
    uv_timer_init(h->loop, &h->half_timer);
    uv_check_init(h->loop, &h->check);
    uv_prepare_init(h->loop, &h->prepare);
    uv_idle_init(h->loop, &h->idle);
    h->accepting.data = h->pause.data = h->timer.data = h->check.data = h->prepare.data =
        h->idle.data = h->half_timer.data = h;
    h->handles += 7;
    uv_check_start(&h->check, on_check);
    uv_prepare_start(&h->prepare, on_prepare);
}

int hub_start(uv_loop_t *loop, const char *address, const struct hub_ops *ops, void *ctx,
              struct hub **out)
{
    struct hub *h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    h->loop = loop;
    h->ops = *ops;
    h->ctx = ctx;
    h->listener.fd = -1;
    h->timer_at = CALLS_NO_DEADLINE;
    h->address = strdup(address);
    /* Ids begin anywhere: an answer to a hub that has died must not fit a request of the next one.
     */
    int err = h->address ? calls_init(&h->calls, HUB_PENDING_MAX, random_id()) : -ENOMEM;
    if (!err && address_is_tcp(address) && !ops->identity)
        err = -ENOKEY;
    if (!err)
        err = address_listen(address, &h->listener);
    if (!err)
        err = uv_poll_init(loop, &h->accepting, h->listener.fd);
    if (err) {
        if (h->listener.fd >= 0)
            address_close(address, &h->listener);
        calls_free(&h->calls);
        free(h->address);
        free(h);
        return err;
    }
    start_handles(h);
    err = uv_poll_start(&h->accepting, UV_READABLE, on_accept);
    if (err)
        hub_close(h, NULL, NULL);
    else
        *out = h;
    return err;
}

int hub_bound(const struct hub *h, char *out)
{
    return address_bound(&h->listener, out);
}

void hub_each(struct hub *h, void (*f)(void *arg, struct peer *p), void *arg)
{
    for (struct peer *p = h->peers; p; p = p->next)
        if (p->open && !p->shaking)
            f(arg, p);
}

void hub_close(struct hub *h, void (*done)(void *arg), void *arg)
{
    h->closing = true;
    h->done = done;
    h->done_arg = arg;
    while (h->peers) {
        peer_close(h->peers);
        hub_flush(h);
    }
    while (h->more) {
        struct peer *p = h->more;
        h->more = p->next_more;
        peer_unref(p);
    }
    uv_close((uv_handle_t *)&h->accepting, on_closed);
    uv_close((uv_handle_t *)&h->pause, on_closed);
    uv_close((uv_handle_t *)&h->timer, on_closed);
    uv_close((uv_handle_t *)&h->half_timer, on_closed);
    uv_close((uv_handle_t *)&h->check, on_closed);
    uv_close((uv_handle_t *)&h->prepare, on_closed);
    uv_close((uv_handle_t *)&h->idle, on_closed);
    address_close(h->address, &h->listener);
}
