/* The keeper's dealings with the kernel's mount. */
#ifndef UMBEL_FS_KEEPER_H
#define UMBEL_FS_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An unmount, which may have to write dirty pages through the worker, is tried for so long. */
#define UNMOUNT_DEADLINE_MS 15000
/* Kernel's read-ahead, if we may set it; its default of 128 KiB costs half of the sequential speed.
 */
#define READ_AHEAD_KB 1024

/* A mount as /proc/self/mountinfo shows it. */
struct mount_place {
    char path[4096]; /* absolute, without symbolic links */
    unsigned major, minor;
};

/* Checks path and fills place->path. detail gets one line with what to do. */
int place_check(const char *path, struct mount_place *place, char detail[256]);
/* Fills the device numbers of what is mounted there now. -ENOENT: nothing is. */
int place_find(struct mount_place *place);
/* Our filesystem is still mounted there. */
bool place_is_ours(const struct mount_place *place);
/* Writes back, unmounts. -EBUSY: it is in use, or takes too long. */
int place_unmount(const struct mount_place *place, int64_t deadline_ms);
/* All requests fail, now and later, so that nobody waits for a worker that is gone; off the tree.
 */
int place_take_down(const struct mount_place *place);
void place_read_ahead(const struct mount_place *place);

#endif
