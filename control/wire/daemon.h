/*
 * What every daemon needs around its work: to say that it is ready, a pid file, and to be stopped.
 *
 * Order in a daemon: daemon_start() first in *_run, before any thread is made (threads inherit the
 * blocked signals); start the work; daemon_pid_write(); daemon_ready(fd, NULL);
 * daemon_wait_for_stop(); stop the work; daemon_pid_remove().
 */
#ifndef UMBEL_WIRE_DAEMON_H
#define UMBEL_WIRE_DAEMON_H

/* Blocks SIGTERM and SIGINT (they are taken by daemon_wait_for_stop or daemon_stop_fd) and ignores
 * SIGPIPE. A child that the daemon starts must call daemon_child() between fork and exec. */
int daemon_start(void);

/* Undoes daemon_start in a child: default handling of these signals, nothing blocked.
 * Async-signal-safe. */
void daemon_child(void);

/* Waits for SIGTERM or SIGINT and returns its number, < 0: -errno. */
int daemon_wait_for_stop(void);

/* For a daemon with a loop of its own: a descriptor (signalfd, non-blocking) that becomes readable
 * at SIGTERM or SIGINT. */
int daemon_stop_fd(void);

/* Writes "ready\n", or "error: TEXT\n", to fd and closes it. fd < 0: nothing. */
void daemon_ready(int fd, const char *error);

/* Writes the caller's pid to path as a whole or not at all. NULL: nothing. */
int daemon_pid_write(const char *path);
/* Removes the pid file, if it still names the caller. NULL: nothing. */
void daemon_pid_remove(const char *path);

#endif
