/*
 * Who runs: a daemon holds a record lock on a file of its own as long as it lives, and the kernel
 * names the holder (F_GETLK). So neither a pid file that a killed daemon left nor a pid that
 * another program has since been given deceives anybody.
 */
#ifndef UMBEL_HV_HELD_H
#define UMBEL_HV_HELD_H

#include <sys/types.h>

/* The process that holds the lock file; 0: nobody does, or there is no such file. -errno. Not to be
 * asked by the holder itself: closing the file gives its lock up. */
pid_t hv_held_by(const char *path);

/* Sends a signal to the holder. 0: sent, or nobody is there. -errno. */
int hv_held_signal(const char *path, int signal);

#endif
