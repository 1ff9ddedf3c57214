/*
 * The mount: a keeper, which mounts and holds the /dev/fuse descriptor, and a worker, which serves
 * it.
 */
#ifndef UMBEL_MOUNT_H
#define UMBEL_MOUNT_H

struct mount_options {
    const char *name; /* "mnt": for the session and the pid files */
    const char *mountpoint;
    const char *centre; /* address of the centre */
    const char
        *identity;     /* folder of our certificate (identity.h), for other machines; NULL: none */
    const char *cloud; /* cloud id */
    int soft_ms; /* after so long, data that cannot be reached is EIO; 0: hard, it is waited for */
    const char *keeper_pid_file; /* written when the mount can be used; may be NULL */
    const char *worker_pid_file;
    /* Runs in the worker before anything else: < 0 ends it, with a line in detail. May be NULL. */
    int (*worker_begin)(void *arg, char detail[256]);
    void *worker_arg;
    int ready_fd; /* "ready\n" or "error: TEXT\n" once, then closed; -1: none */
};

/* Mounts, starts the worker, waits until it ends. 0 or -errno. umount(8) ends it, and SIGTERM,
 * which unmounts: while the mount is in use that is tried for a while, then it stays, and the pid
 * files are there again. A second signal meanwhile takes the mount from those who use it. */
int mount_run(const struct mount_options *options);

#endif
