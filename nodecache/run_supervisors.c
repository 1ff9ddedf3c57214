/* The node's side of supervisors: whom it knows, who is idle, and what it tells them. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "nodecache/run_table.h"

/* Each is a process of some 500 KiB. As many as start anew within a moment on a machine of many
 * cores; more are forked and end with their runs. */
#define IDLE_MAX 64
/* Then the machine has better use for its memory than to save a fork. */
#define IDLE_MS 10000
/* Should a supervisor lose a little memory with each run, it does not matter. */
#define ROUNDS_MAX 256
/* For all idle ones to end; it takes some ms. */
#define END_MS 3000

int run_supervisor_add(struct runs *r, const struct run_spawned_fds *fds,
                       struct run_supervisor **out)
{
    struct run_supervisor *s = calloc(1, sizeof(*s));
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};

    if (!s)
        return -ENOMEM;
    *s = (struct run_supervisor){.pidfd = fds->pidfd, .channel = fds->channel};
    if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, s->channel >= 0 ? s->channel : s->pidfd, &e) < 0) {
        int rc = -errno;
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void run_supervisor_drop(struct runs *r, struct run_supervisor *s)
{
    epoll_ctl(r->epoll, EPOLL_CTL_DEL, s->channel >= 0 ? s->channel : s->pidfd, NULL);
    run_spawned_close(&(struct run_spawned_fds){.pidfd = s->pidfd, .channel = s->channel});
    free(s);
}

enum run_supervisor_said run_supervisor_said(const struct run_supervisor *s)
{
    struct run_over over;
    ssize_t n = s->channel < 0 ? 0 : recv(s->channel, &over, sizeof(over), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return RUN_SAID_NOTHING;
    if (n == (ssize_t)sizeof(over) && over.again == 1 && over.round == s->round && s->run)
        return RUN_SAID_AGAIN;
    return RUN_SAID_GONE;
}

void run_supervisor_rest(struct runs *r, struct run_supervisor *s)
{
    if (r->n_idle >= IDLE_MAX || s->round >= ROUNDS_MAX) {
        run_supervisor_drop(r, s);
        return;
    }
    s->idle_ms = clock_boot_ms();
    s->next = r->idle;
    r->idle = s;
    r->n_idle++;
}

static void remove_idle(struct runs *r, struct run_supervisor **at)
{
    *at = (*at)->next;
    r->n_idle--;
}

struct run_supervisor *run_supervisor_ask_idle(struct runs *r, const char *name)
{
    while (r->idle) {
        struct run_supervisor *s = r->idle;
        remove_idle(r, &r->idle);
        s->round++;
        if (send(s->channel, name, strlen(name), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
            return s;
        run_supervisor_drop(r, s);
    }
    return NULL;
}

void run_supervisor_is_gone(struct runs *r, struct run_supervisor *s)
{
    for (struct run_supervisor **at = &r->idle; *at; at = &(*at)->next)
        if (*at == s) {
            remove_idle(r, at);
            break;
        }
    run_supervisor_drop(r, s);
}

void run_supervisors_thin(struct runs *r, int64_t now_ms)
{
    struct run_supervisor **at = &r->idle;

    while (*at) {
        struct run_supervisor *s = *at;
        if (now_ms - s->idle_ms < IDLE_MS) {
            at = &s->next;
            continue;
        }
        remove_idle(r, at);
        run_supervisor_drop(r, s);
    }
}

/* Their ends are waited for: until then they have the node's control group open. */
void run_supervisors_end(struct runs *r)
{
    int64_t until = clock_boot_ms() + END_MS, now;

    for (struct run_supervisor *s = r->idle; s; s = s->next)
        (void)shutdown(s->channel, SHUT_RDWR); /* gone already */
    for (struct run_supervisor *s = r->idle; s; s = s->next) {
        struct pollfd p = {.fd = s->pidfd, .events = POLLIN};
        if ((now = clock_boot_ms()) < until)
            (void)poll(&p, 1, (int)(until - now));
    }
    run_supervisors_thin(r, INT64_MAX);
}

int run_supervisor_tell(const struct run_supervisor *s, int number)
{
    siginfo_t info = {.si_signo = RUN_SIGNAL, .si_code = SI_QUEUE};

    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_int = run_signal_value(s->round, number);
    return syscall(SYS_pidfd_send_signal, s->pidfd, RUN_SIGNAL, &info, 0) < 0 ? -errno : 0;
}
