#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/wire/address_private.h"
#include "control/wire/clock.h"
#include "control/wire/identity.h"

/* Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn. */
#define LISTEN_BACKLOG 1024

/* ---- parsing: pure */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_name(const char *host)
{
    char before = '.';
    for (const char *p = host; *p; before = *p++) {
        bool edge = before == '.' || p[1] == '.' || p[1] == '\0';
        if (!is_letter(*p) && !(*p == '.' && before != '.') && !(*p == '-' && !edge))
            return false;
    }
    return before != '.';
}

/* Only digits and dots: an IPv4 address, which must be whole (getaddrinfo takes "1" for 0.0.0.1).
 */
static bool is_host(const char *host, bool v6)
{
    struct in6_addr six;
    struct in_addr four;
    if (v6)
        return inet_pton(AF_INET6, host, &six) == 1;
    if (host[strspn(host, "0123456789.")] == '\0')
        return inet_pton(AF_INET, host, &four) == 1;
    return is_name(host);
}

static bool is_port(const char *port)
{
    if (!*port || (port[0] == '0' && port[1]) || port[strspn(port, "0123456789")])
        return false;
    return atoi(port) <= 65535;
}

/* Copies [from, to). false: it does not fit, or is empty. */
static bool take(char *out, size_t size, const char *from, const char *to)
{
    size_t n = (size_t)(to - from);
    if (n == 0 || n >= size)
        return false;
    memcpy(out, from, n);
    out[n] = '\0';
    return true;
}

/* ROLE/NAME, as certificates have them. */
static bool is_peer(const char *peer)
{
    char role[16];
    const char *slash = strchr(peer, '/');
    return slash && take(role, sizeof(role), peer, slash) &&
           identity_role_parse(role) != IDENTITY_NONE && identity_name_ok(slash + 1);
}

int address_parse_tcp(const char *address, struct address_tcp *out)
{
    *out = (struct address_tcp){0};
    if (!address || strncmp(address, "tcp:", 4) != 0)
        return -EINVAL;
    const char *at = address + 4, *end;
    out->v6 = *at == '[';
    at += out->v6;
    end = strchr(at, out->v6 ? ']' : ':');
    if (!end || !take(out->host, sizeof(out->host), at, end) || !is_host(out->host, out->v6))
        return -EINVAL;
    at = end + out->v6;
    if (*at++ != ':')
        return -EINVAL;
    end = at + strcspn(at, "/");
    if (!take(out->port, sizeof(out->port), at, end) || !is_port(out->port))
        return -EINVAL;
    if (!*end)
        return 0;
    at = end + 1;
    return take(out->peer, sizeof(out->peer), at, at + strlen(at)) && is_peer(out->peer) ? 0
                                                                                         : -EINVAL;
}

int address_choose(const char *addresses, bool local, char *out, size_t size)
{
    const char *best = NULL, *p = addresses;
    size_t best_n = 0;
    while (*p) {
        size_t n = strcspn(p, " ");
        bool tcp = strncmp(p, "tcp:", 4) == 0;
        if (n > 0 && (tcp ? !best : local)) {
            best = p;
            best_n = n;
            if (!tcp)
                break;
        }
        p += n;
        p += strspn(p, " ");
    }
    if (!best)
        return -ENOENT;
    if (best_n >= size)
        return -ENAMETOOLONG;
    memcpy(out, best, best_n);
    out[best_n] = '\0';
    return 0;
}

/* ---- connecting */

static int look_up(const struct address_tcp *a, int flags, struct addrinfo **list)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    int err = getaddrinfo(a->host, a->port, &hints, list);
    return err == 0            ? 0
           : err == EAI_SYSTEM ? -errno
           : err == EAI_MEMORY ? -ENOMEM
           : err == EAI_AGAIN  ? -EAGAIN
                               : -EADDRNOTAVAIL;
}

int address_resolve(const char *address, struct address_candidate *out, int *n)
{
    struct address_tcp a;
    struct addrinfo *list;
    int err = address_parse_tcp(address, &a);
    if (!err && strcmp(a.port, "0") == 0)
        err = -EINVAL;
    if (!err)
        err = look_up(&a, 0, &list);
    if (err)
        return err;
    *n = 0;
    for (struct addrinfo *i = list; i && *n < ADDRESS_CANDIDATES_MAX; i = i->ai_next) {
        if (i->ai_addrlen > sizeof(out[*n].addr))
            continue;
        memcpy(&out[*n].addr, i->ai_addr, i->ai_addrlen);
        out[(*n)++].length = i->ai_addrlen;
    }
    freeaddrinfo(list);
    return *n > 0 ? 0 : -EADDRNOTAVAIL;
}

int address_tune_tcp(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, ADDRESS_KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, ADDRESS_KEEPALIVE_INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, ADDRESS_KEEPALIVE_PROBES},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, ADDRESS_USER_TIMEOUT_MS},
    };
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if (setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int)) < 0)
            return -errno;
    return 0;
}

int address_try(const struct address_candidate *to, bool *more)
{
    int fd = socket(to->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int err = address_tune_tcp(fd);
    *more = false;
    if (!err && connect(fd, (const struct sockaddr *)&to->addr, to->length) < 0) {
        err = errno == EINPROGRESS || errno == EINTR ? 0 : -errno;
        *more = err == 0;
    }
    if (!err)
        return fd;
    close(fd);
    return err;
}

int address_finish(int fd)
{
    int err = 0;
    socklen_t length = sizeof(err);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &length) < 0 ? -errno : -err;
}

static int wait_connected(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int64_t until = clock_boot_ms() + ADDRESS_CONNECT_MS, left;
    while ((left = until - clock_boot_ms()) > 0) {
        int n = poll(&p, 1, (int)left);
        if (n > 0)
            return address_finish(fd);
        if (n < 0 && errno != EINTR)
            return -errno;
    }
    return -ETIMEDOUT;
}

int tcp_connect(const char *address)
{
    struct address_candidate list[ADDRESS_CANDIDATES_MAX];
    int n, err = address_resolve(address, list, &n);
    if (err)
        return err;
    for (int i = 0; i < n; i++) {
        bool more;
        int fd = address_try(&list[i], &more);
        err = fd < 0 ? fd : more ? wait_connected(fd) : 0;
        if (!err)
            return fd;
        if (fd >= 0)
            close(fd);
    }
    return err;
}

/* ---- listening */

int tcp_listen(const char *address, struct listener *out)
{
    struct address_tcp a;
    struct addrinfo *list;
    int one = 1, fd = -1;
    int err = address_parse_tcp(address, &a);
    if (!err && a.peer[0])
        err = -EINVAL;
    if (!err)
        err = look_up(&a, AI_PASSIVE, &list);
    if (err)
        return err;
    fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* REUSEADDR: connections of a former process may still be in TIME_WAIT. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        err = -errno;
    freeaddrinfo(list);
    if (!err)
        *out = (struct listener){.fd = fd};
    else if (fd >= 0)
        close(fd);
    return err;
}

static int numeric(const struct sockaddr_storage *addr, socklen_t length, char *host, char *port)
{
    return getnameinfo((const struct sockaddr *)addr, length, host, INET6_ADDRSTRLEN, port, 6,
                       NI_NUMERICHOST | NI_NUMERICSERV) == 0
               ? 0
               : -EINVAL;
}

int address_bound(const struct listener *l, char out[ADDRESSES_MAX])
{
    struct sockaddr_storage addr;
    socklen_t length = sizeof(addr);
    char host[INET6_ADDRSTRLEN], port[6];
    if (getsockname(l->fd, (struct sockaddr *)&addr, &length) < 0)
        return -errno;
    if ((addr.ss_family != AF_INET && addr.ss_family != AF_INET6) ||
        numeric(&addr, length, host, port) < 0)
        return -EINVAL;
    snprintf(out, ADDRESSES_MAX, addr.ss_family == AF_INET6 ? "tcp:[%s]:%s" : "tcp:%s:%s", host,
             port);
    return 0;
}

void address_peer_text(int fd, char out[64])
{
    struct sockaddr_storage addr;
    socklen_t length = sizeof(addr);
    char host[INET6_ADDRSTRLEN], port[6];
    out[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&addr, &length) == 0 && addr.ss_family != AF_UNIX &&
        numeric(&addr, length, host, port) == 0)
        snprintf(out, 64, addr.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}
