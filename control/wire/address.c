#include "control/wire/address_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Connections that wait to be accepted; the kernel cuts it to net.core.somaxconn. */
#define LISTEN_BACKLOG 1024
/* Two servers that start on one address take turns by a lock on the folder, held for microseconds.
 */
#define LOCK_TRIES   200
#define LOCK_WAIT_NS 5000000

static const char *path_of(const char *address)
{
    return address && strncmp(address, "unix:/", 6) == 0 && address[6] ? address + 5 : NULL;
}

bool address_is_tcp(const char *address)
{
    return address && strncmp(address, "tcp:", 4) == 0;
}

int address_check(const char *address)
{
    struct address_tcp tcp;
    return path_of(address) ? 0 : address_parse_tcp(address, &tcp);
}

static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? -errno : fd;
}

static int connect_to(int fd, const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int link = -1;
    int err = 0;
    if (strlen(path) < sizeof(sun.sun_path)) {
        memcpy(sun.sun_path, path, strlen(path) + 1);
    } else {
        link = open(path, O_PATH | O_CLOEXEC);
        if (link < 0)
            return -errno;
        snprintf(sun.sun_path, sizeof(sun.sun_path), "/proc/self/fd/%d", link);
    }
    if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
        err = -errno;
    if (link >= 0)
        close(link);
    return err;
}

int address_connect(const char *address)
{
    const char *path = path_of(address);
    if (!path)
        return tcp_connect(address);
    int fd = new_socket();
    if (fd < 0)
        return fd;
    int err = connect_to(fd, path);
    if (!err)
        return fd;
    close(fd);
    return err;
}

/* The folder that holds path, locked; *name is what follows. */
static int lock_folder(const char *path, const char **name)
{
    *name = strrchr(path, '/') + 1;
    if (!**name)
        return -EINVAL;
    char *folder = strndup(path, (size_t)(*name - path));
    if (!folder)
        return -ENOMEM;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = fd < 0 ? -errno : 0;
    free(folder);
    if (err)
        return err;
    for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || i == LOCK_TRIES) {
            err = errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
            close(fd);
            return err;
        }
        nanosleep(&(struct timespec){.tv_nsec = LOCK_WAIT_NS}, NULL);
    }
    return fd;
}

/* Removes what a dead server left at the address. */
static int clear_stale(const char *address, const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EADDRINUSE;
    int fd = address_connect(address);
    if (fd >= 0)
        close(fd);
    if (fd != -ECONNREFUSED)
        return fd == -ENOENT ? 0 : -EADDRINUSE; /* also -EAGAIN: its backlog is full */
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int bind_to(int fd, const char *path, int folder, const char *name)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int n;
    if (strlen(path) < sizeof(sun.sun_path))
        n = snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
    else
        n = snprintf(sun.sun_path, sizeof(sun.sun_path), "/proc/self/fd/%d/%s", folder, name);
    if (n >= (int)sizeof(sun.sun_path))
        return -ENAMETOOLONG;
    if (fchmod(fd, 0600) <
        0) /* bind gives the file this mode: there is no moment with a wider one */
        return -errno;
    return bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ? -errno : 0;
}

int address_listen(const char *address, struct listener *out)
{
    const char *path = path_of(address);
    const char *name;
    struct stat st;
    int fd = -1;
    if (!path)
        return tcp_listen(address, out);
    int folder = lock_folder(path, &name);
    if (folder < 0)
        return folder;
    int err = clear_stale(address, path);
    if (err)
        goto out;
    fd = err = new_socket();
    if (fd < 0)
        goto out;
    err = bind_to(fd, path, folder, name);
    if (!err &&
        (listen(fd, LISTEN_BACKLOG) < 0 || fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0))
        err = -errno;
    if (!err)
        *out =
            (struct listener){.fd = fd, .dev = st.st_dev, .ino = st.st_ino, .changed = st.st_ctim};
out:
    close(folder);
    if (err && fd >= 0)
        close(fd);
    return err;
}

void address_close(const char *address, struct listener *l)
{
    const char *path = path_of(address);
    struct stat st;
    if (path && lstat(path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino &&
        st.st_ctim.tv_sec == l->changed.tv_sec && st.st_ctim.tv_nsec == l->changed.tv_nsec)
        unlink(path);
    close(l->fd);
    l->fd = -1;
}

int address_peer(int fd, uid_t *uid, gid_t *gid, pid_t *pid)
{
    struct ucred cred;
    socklen_t length = sizeof(cred);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) < 0)
        return -errno;
    *uid = cred.uid;
    *gid = cred.gid;
    *pid = cred.pid;
    return cred.uid == 0 || cred.uid == geteuid() ? 0 : -EPERM;
}
