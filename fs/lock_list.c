#include "fs/lock_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

static bool meets(const struct held_lock *a, const struct held_lock *b)
{
    return a->owner == b->owner && a->flock == b->flock && a->start <= b->end && b->start <= a->end;
}

/* Cuts the range of gone out of *at; spare becomes the part behind it, if one is left on both
 * sides. */
static bool cut(struct held_lock **at, const struct held_lock *gone, struct held_lock *spare)
{
    struct held_lock *l = *at;
    bool before = l->start<gone->start, after = l->end> gone->end;

    if (before && after) {
        *spare = *l;
        spare->start = gone->end + 1;
        l->end = gone->start - 1;
        l->next = spare;
        return true;
    }
    if (before) {
        l->end = gone->start - 1;
    } else if (after) {
        l->start = gone->end + 1;
    } else {
        *at = l->next;
        free(l);
    }
    return false;
}

int lock_list_set(struct held_lock **list, const struct held_lock *lock)
{
    struct held_lock *added = malloc(sizeof(*added)), *spare = malloc(sizeof(*spare));
    struct held_lock **at = list;

    if (!added || !spare) {
        free(added);
        free(spare);
        return -ENOMEM;
    }
    while (*at) {
        struct held_lock *l = *at;
        if (meets(l, lock) && cut(at, lock, spare))
            spare = NULL; /* it was split: nothing else can meet */
        if (*at == l)
            at = &l->next;
    }
    free(spare);
    if (lock->type == F_UNLCK) {
        free(added);
        return 0;
    }
    *added = *lock;
    added->next = *list;
    *list = added;
    return 0;
}

void lock_list_free(struct held_lock **list)
{
    while (*list) {
        struct held_lock *l = *list;
        *list = l->next;
        free(l);
    }
}
