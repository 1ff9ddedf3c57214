#include "control/wire/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void stop_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

int daemon_start(void)
{
    sigset_t set;
    stop_signals(&set);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return -errno;
    return -pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void daemon_child(void)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int daemon_wait_for_stop(void)
{
    sigset_t set;
    stop_signals(&set);
    int signal_number;
    int err = sigwait(&set, &signal_number);
    return err ? -err : signal_number;
}

int daemon_stop_fd(void)
{
    sigset_t set;
    stop_signals(&set);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, text, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        length -= (size_t)n;
    }
    return 0;
}

void daemon_ready(int fd, const char *error)
{
    if (fd < 0)
        return;
    char text[1024];
    int n;
    if (error)
        n = snprintf(text, sizeof(text), "error: %s\n", error);
    else
        n = snprintf(text, sizeof(text), "ready\n");
    if (n >= (int)sizeof(text)) {
        n = sizeof(text) - 1;
        text[n - 1] = '\n';
    }
    /* Who asked may be gone: a daemon that works goes on without it. */
    (void)write_all(fd, text, (size_t)n);
    close(fd);
}

int daemon_pid_write(const char *path)
{
    if (!path)
        return 0;
    char tmp[PATH_MAX];
    char text[32];
    int err = 0;
    if (snprintf(tmp, sizeof(tmp), "%s.%ld.tmp", path, (long)getpid()) >= (int)sizeof(tmp))
        return -ENAMETOOLONG;
    int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    err = write_all(fd, text, (size_t)n);
    if (close(fd) < 0 && !err)
        err = -errno;
    if (!err && rename(tmp, path) < 0)
        err = -errno;
    if (err)
        unlink(tmp);
    return err;
}

void daemon_pid_remove(const char *path)
{
    if (!path)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    char text[32];
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    if (strtol(text, NULL, 10) == (long)getpid())
        unlink(path);
}
