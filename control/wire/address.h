/*
 * Addresses of the star: "unix:/absolute/path". Paths longer than sun_path work too, through
 * /proc/self/fd.
 */
#ifndef UMBEL_WIRE_ADDRESS_H
#define UMBEL_WIRE_ADDRESS_H

#include <sys/types.h>
#include <time.h>

/* A listening socket and what identifies its file: inode numbers are used again at once, so the
 * time, too. */
struct listener {
    int fd;
    dev_t dev;
    ino_t ino;
    struct timespec changed;
};

/* 0, or -EINVAL: not of a known form. */
int address_check(const char *address);

/* A connected, non-blocking, close-on-exec stream socket, or -errno. Never waits. */
int address_connect(const char *address);

/* A listening, non-blocking, close-on-exec socket; the file has mode 0600. A stale socket file is
 * replaced; -EADDRINUSE: a live server answers there, or something else stands there. */
int address_listen(const char *address, struct listener *out);

/* Closes the listener and removes its file, unless another server has replaced it. */
void address_close(const char *address, struct listener *l);

/* Who is at the other end. -EPERM: neither root nor our own user. */
int address_peer(int fd, uid_t *uid, gid_t *gid, pid_t *pid);

#endif
