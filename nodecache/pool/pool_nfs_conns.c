/* Lending connections, and knowing that the server is away. */
#include "nodecache/pool/pool_nfs_conns.h"
#include "nodecache/pool/pool_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the server's address */

/* glibc's own thread does it, as getaddrinfo() itself knows no deadline. */
struct np_resolving {
    struct gaicb request;
    struct addrinfo hints;
};

static int resolve_start(struct np_conns *s)
{
    struct np_resolving *r = calloc(1, sizeof *r);
    struct gaicb *list[1];

    if (r == NULL)
        return -ENOMEM;
    r->hints.ai_socktype = SOCK_STREAM;
    r->request.ar_name = s->url->host;
    r->request.ar_request = &r->hints;
    list[0] = &r->request;
    if (getaddrinfo_a(GAI_NOWAIT, list, 1, NULL) != 0) {
        free(r);
        return -EAGAIN;
    }
    s->resolving = r;
    return 0;
}

static int numeric(const struct addrinfo *ai, char buf[64])
{
    return getnameinfo(ai->ai_addr, ai->ai_addrlen, buf, 64, NULL, 0, NI_NUMERICHOST) == 0
               ? 0
               : -EADDRNOTAVAIL;
}

static bool is_numeric(const char *host)
{
    struct in6_addr any;

    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

/* Under `trying`, or before others know the pool: one look-up at a time. */
int np_conns_address(struct np_conns *s, char buf[64], char *detail)
{
    const struct timespec patience = {.tv_sec = NFS_RESOLVE_MS / 1000};
    int rc = 0, said;

    if (is_numeric(s->url->host)) {
        snprintf(buf, 64, "%.63s", s->url->host);
        return 0;
    }
    if (s->resolving == NULL)
        rc = resolve_start(s);
    if (rc != 0)
        return pool_fail(detail, rc, "cannot look up the pool's host %.100s", s->url->host);
    const struct gaicb *list[1] = {&s->resolving->request};
    said = gai_suspend(list, 1, &patience);
    if (said == EAI_AGAIN || said == EAI_INTR)
        return pool_fail(detail, -ETIMEDOUT, "looking up the pool's host %.100s takes too long",
                         s->url->host);
    said = gai_error(&s->resolving->request);
    if (said != 0)
        rc = pool_fail(detail, -EHOSTUNREACH, "the pool's host %.100s: %s", s->url->host,
                       gai_strerror(said));
    else
        rc = numeric(s->resolving->request.ar_result, buf);
    if (s->resolving->request.ar_result != NULL)
        freeaddrinfo(s->resolving->request.ar_result);
    free(s->resolving);
    s->resolving = NULL;
    return rc;
}

/* ---- */

int np_conns_init(struct np_conns *s, const struct np_url *url)
{
    pthread_condattr_t attr;

    memset(s, 0, sizeof *s);
    s->url = url;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    return 0;
}

static struct np_conn *take_all_idle(struct np_conns *s)
{
    struct np_conn *all = s->idle;

    s->idle = NULL;
    s->open -= s->idle_n;
    s->idle_n = 0;
    return all;
}

static void close_all(struct np_conn *all)
{
    while (all != NULL) {
        struct np_conn *next = all->next;
        np_conn_close(all);
        all = next;
    }
}

void np_conns_destroy(struct np_conns *s)
{
    close_all(take_all_idle(s));
    /* A look-up that glibc cannot take back is left to it, with its memory. */
    if (s->resolving != NULL && gai_cancel(&s->resolving->request) != EAI_NOTCANCELED)
        free(s->resolving);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
}

int np_conns_extra(struct np_conns *s, uint16_t port, enum np_greeting greeting,
                   struct np_conn **out, char *detail)
{
    char address[64];
    int rc = np_conns_address(s, address, detail);

    if (rc != 0)
        return rc;
    return np_conn_open(s->url, address, port, greeting, NFS_CONNECT_MS, out, detail);
}

/* The lock is held. */
static void went_away(struct np_conns *s, const char *why)
{
    int64_t now = np_now_ms();

    if (s->away_since == 0) {
        s->away_since = now;
        s->backoff_ms = NFS_BACKOFF_MIN_MS;
    } else if (s->backoff_ms < NFS_BACKOFF_MAX_MS) {
        s->backoff_ms *= 2;
    }
    s->next_try = now + s->backoff_ms;
    snprintf(s->why, sizeof s->why, "%s", why);
    pthread_cond_broadcast(&s->changed);
}

/* The lock is held, but not while it connects; only one does, so that a dead server meets one
 * caller and not all. */
static int try_one(struct np_conns *s, struct np_conn **out)
{
    char why[POOL_DETAIL] = "";

    s->trying = true;
    s->open++;
    pthread_mutex_unlock(&s->lock);
    int rc = np_conns_extra(s, s->url->nfs_port, NFS_GREET_NFS, out, why);
    pthread_mutex_lock(&s->lock);
    s->trying = false;
    if (rc == 0) {
        s->away_since = 0;
    } else {
        s->open--;
        went_away(s, why);
    }
    pthread_cond_broadcast(&s->changed);
    return rc;
}

/* The lock is held. */
static void wait_until(struct np_conns *s, int64_t ms)
{
    struct timespec until = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    pthread_cond_timedwait(&s->changed, &s->lock, &until);
}

/* An idle one that still lives; the lock is held. */
static struct np_conn *take_idle(struct np_conns *s)
{
    while (s->idle != NULL) {
        struct np_conn *c = s->idle;
        s->idle = c->next;
        s->idle_n--;
        c->next = NULL;
        if (np_conn_alive(c))
            return c;
        np_conn_close(c);
        s->open--;
    }
    return NULL;
}

static int64_t patience_of(const struct np_conns *s, int64_t deadline, bool patient)
{
    int64_t grace = s->away_since + NFS_AWAY_GRACE_MS;

    return patient || grace > deadline ? deadline : grace;
}

int np_conns_get(struct np_conns *s, int64_t deadline, bool patient, bool writer,
                 struct np_conn **out, char *detail)
{
    int rc = 1; /* not decided */

    pthread_mutex_lock(&s->lock);
    while (rc > 0) {
        int64_t now = np_now_ms();
        bool away = s->away_since != 0;
        bool may = !writer || s->writers < NFS_WRITERS_MAX;
        bool room = may && s->open < NFS_CONNS_MAX;
        if (!away && may && (*out = take_idle(s)) != NULL) {
            rc = 0;
        } else if (!s->trying && (away ? now >= s->next_try : room)) {
            if (try_one(s, out) == 0)
                rc = 0;
        } else if (away && now >= patience_of(s, deadline, patient)) {
            rc = pool_fail(detail, NFS_AWAY, "%s", s->why);
        } else if (now >= deadline) {
            rc = pool_fail(detail, -ETIMEDOUT, "all %d connections to the pool are in use",
                           NFS_CONNS_MAX);
        } else {
            int64_t until = away ? patience_of(s, deadline, patient) : deadline;
            if (away && !s->trying && s->next_try < until)
                until = s->next_try;
            wait_until(s, until);
        }
    }
    if (rc == 0 && writer)
        s->writers++;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void np_conns_put(struct np_conns *s, struct np_conn *c, bool writer, bool good)
{
    struct np_conn *closing = NULL;

    pthread_mutex_lock(&s->lock);
    if (writer)
        s->writers--;
    if (!good || !np_conn_ok(c) || c->pending > 0) {
        closing = take_all_idle(s);
        c->next = closing;
        closing = c;
        s->open--;
    } else if (s->idle_n >= NFS_IDLE_MAX) {
        c->next = NULL;
        closing = c;
        s->open--;
    } else {
        c->next = s->idle;
        s->idle = c;
        s->idle_n++;
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    close_all(closing);
}

void np_conns_away(struct np_conns *s, const struct np_conn *c)
{
    char why[POOL_DETAIL];

    snprintf(why, sizeof why, "the pool's NFS server %.80s, port %u: %.120s", s->url->host,
             s->url->nfs_port, c->why);
    pthread_mutex_lock(&s->lock);
    if (s->away_since == 0)
        went_away(s, why);
    pthread_mutex_unlock(&s->lock);
}
