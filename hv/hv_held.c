#include "hv/hv_held.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/pidfd.h>
#include <unistd.h>

pid_t hv_held_by(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int error = 0, fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (fcntl(fd, F_GETLK, &lock) != 0)
        error = -errno;
    close(fd);
    if (error != 0)
        return error;
    return lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

int hv_held_signal(const char *path, int signal)
{
    pid_t pid = hv_held_by(path);
    int rc = 0;

    if (pid <= 0)
        return pid;
    int fd = pidfd_open(pid, 0);
    if (fd < 0)
        return errno == ESRCH ? 0 : -errno;
    /* If it still holds the lock now, the descriptor cannot be of another process with its number.
     */
    if (hv_held_by(path) == pid && pidfd_send_signal(fd, signal, NULL, 0) != 0 && errno != ESRCH)
        rc = -errno;
    close(fd);
    return rc;
}
