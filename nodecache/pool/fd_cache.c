#include "nodecache/pool/fd_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Descriptors taken out under the lock, to be closed after it: closing a removed object frees its
 * blocks. */
struct closing {
    int fds[FD_CACHE_SLOTS];
    int count;
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int fd_cache_init(struct fd_cache *c)
{
    memset(c->slots, 0, sizeof c->slots);
    return -pthread_mutex_init(&c->lock, NULL);
}

void fd_cache_destroy(struct fd_cache *c)
{
    for (int i = 0; i < FD_CACHE_SLOTS; i++) {
        if (c->slots[i].name[0] != '\0')
            close(c->slots[i].fd);
    }
    pthread_mutex_destroy(&c->lock);
}

static void slot_empty(struct fd_slot *slot, struct closing *closing)
{
    closing->fds[closing->count++] = slot->fd;
    slot->name[0] = '\0';
}

static void sweep(struct fd_cache *c, int64_t now, struct closing *closing)
{
    for (int i = 0; i < FD_CACHE_SLOTS; i++) {
        struct fd_slot *slot = &c->slots[i];
        if (slot->name[0] != '\0' && slot->users == 0 &&
            now - slot->used_ns > FD_CACHE_IDLE_S * INT64_C(1000000000))
            slot_empty(slot, closing);
    }
}

static bool slot_find(struct fd_cache *c, const char *name, int64_t now, struct fd_use *use)
{
    for (int i = 0; i < FD_CACHE_SLOTS; i++) {
        struct fd_slot *slot = &c->slots[i];
        if (slot->stale || strcmp(slot->name, name) != 0)
            continue;
        slot->users++;
        slot->used_ns = now;
        *use = (struct fd_use){.fd = slot->fd, .dev = slot->dev, .ino = slot->ino, .slot = i};
        return true;
    }
    return false;
}

/* A free slot, or that of the longest unused descriptor; -1 if all are in use. */
static int slot_take(struct fd_cache *c, struct closing *closing)
{
    int best = -1;

    for (int i = 0; i < FD_CACHE_SLOTS; i++) {
        struct fd_slot *slot = &c->slots[i];
        if (slot->name[0] == '\0')
            return i;
        if (slot->users == 0 && (best < 0 || slot->used_ns < c->slots[best].used_ns))
            best = i;
    }
    if (best >= 0)
        slot_empty(&c->slots[best], closing);
    return best;
}

static void close_all(const struct closing *closing)
{
    for (int i = 0; i < closing->count; i++)
        close(closing->fds[i]);
}

static int open_fresh(int root, const char *name, struct fd_use *use)
{
    struct stat st;
    int fd = openat(root, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) != 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    *use = (struct fd_use){.fd = fd, .dev = st.st_dev, .ino = st.st_ino, .slot = -1, .fresh = true};
    return 0;
}

int fd_cache_get(struct fd_cache *c, int root, const char *name, struct fd_use *use)
{
    struct closing closing = {.count = 0};
    int64_t now = now_ns();

    pthread_mutex_lock(&c->lock);
    sweep(c, now, &closing);
    bool found = slot_find(c, name, now, use);
    pthread_mutex_unlock(&c->lock);
    close_all(&closing);
    if (found)
        return 0;

    int rc = open_fresh(root, name, use);
    if (rc != 0 || strlen(name) >= FD_CACHE_NAME)
        return rc;
    int fd = use->fd;
    closing.count = 0;
    pthread_mutex_lock(&c->lock);
    if (slot_find(c, name, now, use)) /* another thread was faster */
        closing.fds[closing.count++] = fd;
    else
        use->slot = slot_take(c, &closing);
    if (use->fresh && use->slot >= 0) {
        struct fd_slot *slot = &c->slots[use->slot];
        *slot = (struct fd_slot){
            .fd = fd, .dev = use->dev, .ino = use->ino, .users = 1, .used_ns = now};
        memcpy(slot->name, name, strlen(name) + 1);
    }
    pthread_mutex_unlock(&c->lock);
    close_all(&closing);
    return 0;
}

void fd_cache_put(struct fd_cache *c, const struct fd_use *use, bool stale)
{
    struct closing closing = {.count = 0};

    if (use->slot < 0) {
        close(use->fd);
        return;
    }
    pthread_mutex_lock(&c->lock);
    struct fd_slot *slot = &c->slots[use->slot];
    slot->stale |= stale;
    if (--slot->users == 0 && slot->stale)
        slot_empty(slot, &closing);
    pthread_mutex_unlock(&c->lock);
    close_all(&closing);
}

void fd_cache_drop(struct fd_cache *c, const char *name)
{
    struct closing closing = {.count = 0};

    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < FD_CACHE_SLOTS; i++) {
        struct fd_slot *slot = &c->slots[i];
        if (strcmp(slot->name, name) != 0)
            continue;
        slot->stale = true;
        if (slot->users == 0)
            slot_empty(slot, &closing);
    }
    pthread_mutex_unlock(&c->lock);
    close_all(&closing);
}
