/*
 * The advisory locks that this mount holds on one file: told to a centre that starts anew
 * (RECLAIM). Pure; the caller locks.
 */
#ifndef UMBEL_FS_LOCK_LIST_H
#define UMBEL_FS_LOCK_LIST_H

#include <stdbool.h>
#include <stdint.h>

#define HELD_LOCK_END INT64_MAX

struct held_lock {
    struct held_lock *next;
    uint64_t owner;
    uint64_t start, end; /* inclusive */
    uint32_t pid;
    uint32_t type; /* F_RDLCK, F_WRLCK, F_UNLCK */
    bool flock;
};

/* The centre has granted lock (or an unlock): what the owner held in its range is replaced.
 * -ENOMEM: the list is as it was. */
int lock_list_set(struct held_lock **list, const struct held_lock *lock);
void lock_list_free(struct held_lock **list);

#endif
