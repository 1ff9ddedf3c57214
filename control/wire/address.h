/*
 * Addresses of the star:
 *   unix:/absolute/path             paths longer than sun_path work too, through /proc/self/fd
 *   tcp:HOST:PORT                   HOST is a name, an IPv4 address or [an IPv6 address]
 *   tcp:HOST:PORT/ROLE/NAME         the same, and who is to be reached there (identity.h): whoever
 *                                   connects turns away from anybody else
 * Over unix sockets the kernel says who is at the other end; over TCP always TLS (channel.h).
 *
 * Where one process can be reached by several roads its addresses stand in one text, divided by
 * spaces; address_choose takes one of them.
 */
#ifndef UMBEL_WIRE_ADDRESS_H
#define UMBEL_WIRE_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

/* RFC 1035. */
#define ADDRESS_HOST_MAX 253
#define ADDRESS_PEER_MAX 80
/* A text of addresses, with its end. */
#define ADDRESSES_MAX 256

/* A host that does not answer is given up after this: three of TCP's first retransmissions (1, 3
 * and 7 s) would make it longer than anybody waits. */
#define ADDRESS_CONNECT_MS 5000
/* Of one name so many are tried, one after the other. */
#define ADDRESS_CANDIDATES_MAX 4
/* A machine that vanished is noticed after IDLE + PROBES * INTERVAL seconds of silence (10 s: a
 * lease), or when sent bytes stay unconfirmed for USER_TIMEOUT. That one also ends a connection
 * whose other end takes nothing, so it is as long as SERVICE_SEND_DEADLINE_MS. */
#define ADDRESS_KEEPALIVE_IDLE_S     4
#define ADDRESS_KEEPALIVE_INTERVAL_S 2
#define ADDRESS_KEEPALIVE_PROBES     3
#define ADDRESS_USER_TIMEOUT_MS      30000

/* The parts of a tcp: address. */
struct address_tcp {
    char host[ADDRESS_HOST_MAX + 1]; /* without brackets */
    char port[6];
    bool v6;
    char peer[ADDRESS_PEER_MAX]; /* "ROLE/NAME", or "" */
};

/* A listening socket and what identifies its file: inode numbers are used again at once, so the
 * time, too. */
struct listener {
    int fd;
    dev_t dev;
    ino_t ino;
    struct timespec changed;
};

/* One place to connect to. */
struct address_candidate {
    struct sockaddr_storage addr;
    socklen_t length;
};

/* 0, or -EINVAL: not of a known form. One address, no list. Port 0 (any free one) is for listeners
 * only and is refused by whatever connects. */
int address_check(const char *address);
bool address_is_tcp(const char *address);
/* -EINVAL: not a tcp: address. Pure. */
int address_parse_tcp(const char *address, struct address_tcp *out);

/* From a text of addresses the one for who is on the same machine and sees the same files (unix: if
 * there is one), or for others (tcp: only). -ENOENT: there is none; -ENAMETOOLONG. */
int address_choose(const char *addresses, bool local, char *out, size_t size);

/* A connected, non-blocking, close-on-exec stream socket, or -errno. unix: never waits. tcp: waits
 * up to ADDRESS_CONNECT_MS for each candidate. */
int address_connect(const char *address);

/* The same in steps, for who must not wait: where to connect to (of a tcp: address; names are
 * looked up, which takes as long as the system's resolver wants), and one try: a socket with *more
 * false, or one that is connected when it can be written to and address_finish says 0. */
int address_resolve(const char *address, struct address_candidate *out, int *n);
int address_try(const struct address_candidate *to, bool *more);
/* 0, or why the socket is not connected. */
int address_finish(int fd);

/* A listening, non-blocking, close-on-exec socket; a unix file has mode 0600. A stale socket file
 * is replaced; -EADDRINUSE: a live server answers there, or something else stands there. */
int address_listen(const char *address, struct listener *out);

/* Where a tcp: listener really listens (port 0 means any): "tcp:HOST:PORT". */
int address_bound(const struct listener *l, char out[ADDRESSES_MAX]);

/* Closes the listener and removes its file, unless another server has replaced it. */
void address_close(const char *address, struct listener *l);

/* Options of a TCP connection: no delay, and the bounds above. */
int address_tune_tcp(int fd);

/* Who is at the other end of a unix socket. -EPERM: neither root nor our own user. */
int address_peer(int fd, uid_t *uid, gid_t *gid, pid_t *pid);

/* The other end as text, for people: "10.0.0.2:41000", or "" of a unix socket. */
void address_peer_text(int fd, char out[64]);

#endif
