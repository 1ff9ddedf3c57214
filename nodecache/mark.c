/* The store's mark. */
#include "nodecache/mark.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#define MARK_MAGIC 0x4b52414d4c424d55ull /* "UMBLMARK" */
#define SLOT_SIZE  512

#define SLOT_CLEAN     1u
#define SLOT_TAIL_LOST 2u

struct slot {
    uint64_t magic;
    uint32_t format;
    uint32_t flags;
    uint64_t generation;
    char store[40];
    char boot[40];
    uint64_t instance;
    uint64_t segment, offset;
    uint64_t ino_mark;
    uint64_t check; /* XXH3-64 of all before */
};
_Static_assert(sizeof(struct slot) <= SLOT_SIZE, "one sector");

struct mark {
    int fd;
    struct sync_ops ops;
    pthread_mutex_t lock;
    uint64_t generation;
    struct mark_values values;
    _Atomic uint64_t ino_mark;
};

static int slot_write(struct mark *m, bool durable)
{
    char sector[SLOT_SIZE] = {0};
    struct slot s = {.magic = MARK_MAGIC,
                     .format = MARK_FORMAT,
                     .flags = (m->values.clean ? SLOT_CLEAN : 0) |
                              (m->values.tail_lost ? SLOT_TAIL_LOST : 0),
                     .generation = m->generation + 1,
                     .instance = m->values.instance,
                     .segment = m->values.journal.segment,
                     .offset = m->values.journal.offset,
                     .ino_mark = m->values.ino_mark};

    memcpy(s.store, m->values.store, sizeof(s.store));
    memcpy(s.boot, m->values.boot, sizeof(s.boot));
    s.check = XXH3_64bits(&s, offsetof(struct slot, check));
    memcpy(sector, &s, sizeof(s));
    ssize_t n = pwrite(m->fd, sector, SLOT_SIZE, (off_t)(s.generation % 2) * SLOT_SIZE);
    if (n != SLOT_SIZE)
        return n < 0 ? -errno : -EIO;
    m->generation++;
    return durable ? sync_fd(&m->ops, m->fd, true) : 0;
}

static bool slot_read(struct mark *m, int index, struct slot *s)
{
    if (pread(m->fd, s, sizeof(*s), (off_t)index * SLOT_SIZE) != sizeof(*s))
        return false;
    s->store[sizeof(s->store) - 1] = s->boot[sizeof(s->boot) - 1] = 0;
    return s->magic == MARK_MAGIC && s->check == XXH3_64bits(s, offsetof(struct slot, check));
}

static int mark_load(struct mark *m, char *detail)
{
    struct slot s[2];
    bool good[2] = {slot_read(m, 0, &s[0]), slot_read(m, 1, &s[1])};

    if (!good[0] && !good[1]) {
        snprintf(detail, NODE_DETAIL, "the store's mark is damaged");
        return -EBADMSG;
    }
    const struct slot *best = &s[good[1] && (!good[0] || s[1].generation > s[0].generation)];
    if (best->format != MARK_FORMAT) {
        snprintf(detail, NODE_DETAIL, "the store has format %u, this program knows %u",
                 best->format, MARK_FORMAT);
        return -EPROTONOSUPPORT;
    }
    m->generation = best->generation;
    memcpy(m->values.store, best->store, sizeof(best->store));
    memcpy(m->values.boot, best->boot, sizeof(best->boot));
    m->values.instance = best->instance;
    m->values.clean = best->flags & SLOT_CLEAN;
    m->values.tail_lost = best->flags & SLOT_TAIL_LOST;
    m->values.journal = (struct journal_mark){best->segment, best->offset};
    m->values.ino_mark = best->ino_mark;
    return 0;
}

int mark_open(int dir, bool create, const struct sync_ops *ops, struct mark_values *values,
              struct mark **out, char detail[NODE_DETAIL])
{
    struct mark *m = calloc(1, sizeof(*m));
    int rc;

    if (!m)
        return -ENOMEM;
    if (ops)
        m->ops = *ops;
    pthread_mutex_init(&m->lock, NULL);
    m->fd = openat(dir, "mark", O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (m->fd < 0) {
        rc = -errno;
        snprintf(detail, NODE_DETAIL, "the store's mark: %s", strerror(errno));
        goto fail;
    }
    if (create) {
        m->values = *values;
        rc = slot_write(m, false);
        if (rc == 0)
            rc = slot_write(m, true);
        if (rc == 0)
            rc = sync_fd(&m->ops, dir, false);
    } else {
        rc = mark_load(m, detail);
    }
    if (rc < 0)
        goto fail;
    *values = m->values;
    atomic_store(&m->ino_mark, m->values.ino_mark);
    *out = m;
    return 0;
fail:
    mark_close(m);
    return rc;
}

void mark_close(struct mark *m)
{
    if (!m)
        return;
    if (m->fd >= 0)
        close(m->fd);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

int mark_set(struct mark *m, const struct mark_values *values, bool durable)
{
    pthread_mutex_lock(&m->lock);
    m->values = *values;
    m->values.ino_mark = atomic_load(&m->ino_mark);
    int rc = slot_write(m, durable);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

int mark_set_journal(struct mark *m, struct journal_mark journal)
{
    int rc = 0;

    pthread_mutex_lock(&m->lock);
    struct journal_mark *old = &m->values.journal;
    if (journal.segment > old->segment ||
        (journal.segment == old->segment && journal.offset > old->offset)) {
        *old = journal;
        rc = slot_write(m, false);
    }
    pthread_mutex_unlock(&m->lock);
    return rc;
}

int mark_set_told(struct mark *m)
{
    pthread_mutex_lock(&m->lock);
    m->values.tail_lost = false;
    int rc = slot_write(m, true);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

int mark_raise_ino(struct mark *m, uint64_t ino)
{
    int rc = 0;

    if (ino < atomic_load_explicit(&m->ino_mark, memory_order_acquire))
        return 0;
    pthread_mutex_lock(&m->lock);
    uint64_t old = m->values.ino_mark;
    if (ino >= old) {
        m->values.ino_mark = ino + MARK_INO_STEP;
        rc = slot_write(m, true);
        if (rc == 0)
            atomic_store_explicit(&m->ino_mark, m->values.ino_mark, memory_order_release);
        else
            m->values.ino_mark = old;
    }
    pthread_mutex_unlock(&m->lock);
    return rc;
}
