/* Tickets: what a request may do, and from where a file that the node does not know begins. */
#include <errno.h>
#include <inttypes.h>

#include "control/wire/clock.h"
#include "nodecache/store_private.h"

/* Attempts to get hold of a file that is being forgotten at the same time. */
#define ADMIT_TRIES 64

struct base {
    uint64_t home_epoch, size, version;
    struct timespec mtime;
    bool mapped;
};

static int base_by_map(struct store *s, uint64_t ino, struct base *base)
{
    struct map_window *w;
    int rc = maps_get(&s->maps, s->options.centre, s->options.centre_ctx, ino, 0, &w);

    if (rc < 0)
        return rc;
    if (w->gone)
        rc = -ESTALE;
    *base = (struct base){.home_epoch = w->home_epoch,
                          .size = w->size,
                          .version = w->version,
                          .mtime = w->mtime,
                          .mapped = w->size > 0};
    maps_put(w);
    return rc;
}

static void set_base(struct file *f, const struct base *base)
{
    f->home_epoch = base->home_epoch;
    f->size = f->synced_size = base->size;
    f->version = f->synced_version = f->logged_version = base->version;
    f->mtime = f->ctime = base->mtime;
    f->mapped = f->mapped || base->mapped;
    f->is_home = false;
    f->base_limit = LIMIT_NONE;
    f->cut_number = f->cut_pack = 0;
    f->known = true;
}

/* A file that the node does not know. The ticket says from where it begins, unless a row of it may
 * have been forgotten since the ticket was made: then the centre is asked. */
static int begin(struct store *s, struct file *f, const struct ticket *t)
{
    struct base base = {t->home_epoch, t->size, t->version, t->mtime, t->mapped || t->size > 0};
    uint64_t max = atomic_load(&s->table.max_ino);
    int rc;

    if (atomic_load(&s->table.count) > FILES_MAX) {
        store_kick_upkeep(s);
        return -EBUSY;
    }
    rc = mark_raise_ino(s->mark, f->ino);
    if (rc < 0)
        return store_failed(s, rc, "mark", f->ino);
    if (f->ino <= atomic_load(&s->forgotten_max)) {
        rc = base_by_map(s, f->ino, &base);
        if (rc == 0 && base.home_epoch > t->home_epoch)
            rc = -ESTALE;
        /* Between the ticket and now nobody else can have become the home; epochs are logged first.
         */
        base.home_epoch = t->home_epoch;
    }
    if (rc < 0)
        return rc;
    set_base(f, &base);
    while (f->ino > max && !atomic_compare_exchange_weak(&s->table.max_ino, &max, f->ino))
        ;
    return 0;
}

/* What is here belongs to an older state of the file. */
static int begin_anew(struct store *s, struct file *f, const struct ticket *t)
{
    struct base base = {t->home_epoch, t->size, t->version, t->mtime, t->mapped || t->size > 0};
    int rc = 0;

    if (f->cut || f->fd_users > 0)
        return -EBUSY; /* the cut ends soon: it will be refused */
    if (f->staged.count > 0)
        rc = set_aside(s, f);
    if (rc == 0 && f->journaled) {
        struct charge c;
        uint64_t end = ranges_end(&f->present);
        charge_begin(&c, f, 0, end, 0);
        if (end > 0)
            rc = index_discard(&s->index, f, 0, end);
        file_close_fd(&s->table, f);
        if (rc == 0)
            rc = file_unlink(&s->table, f);
        charge_end(s, &c, f);
    }
    if (rc < 0)
        return store_failed(s, rc, "dropping an old state", f->ino);
    for (struct fetching *i = f->fetches; i; i = i->next)
        i->poisoned_all = true;
    maps_forget(&s->maps, f->ino);
    set_base(f, &base);
    if (f->journaled) {
        struct row row;
        row_of(f, &row);
        rc = index_row(&s->index, f, &row);
    }
    store_settle(s, f, true);
    return rc;
}

static int newer_epoch(struct store *s, struct file *f, const struct ticket *t)
{
    if (f->version == t->version && !file_dirty(f) && !f->cut) {
        f->home_epoch = t->home_epoch;
        f->is_home = false;
        f->cut_number = f->cut_pack = 0;
        f->mapped = f->mapped || t->mapped;
        f->base_limit = LIMIT_NONE;
        f->row_stale = true;
        return 0;
    }
    return begin_anew(s, f, t);
}

int admit(struct store *s, struct file *f, const struct ticket *t, unsigned right)
{
    int rc = 0;

    if (f->gone)
        return -EAGAIN;
    if ((t->rights & right) != right)
        return -EACCES;
    if (t->size > NODE_SIZE_MAX)
        return -EINVAL;
    if (!f->known)
        rc = begin(s, f, t);
    else if (t->home_epoch < f->home_epoch)
        rc = -ESTALE;
    else if (t->home_epoch > f->home_epoch)
        rc = newer_epoch(s, f, t);
    else if (!f->is_home && t->version > f->version)
        rc = begin_anew(s, f, t);
    if (rc < 0)
        return rc;
    if (right & RIGHT_WRITE) {
        if (atomic_load(&s->closed))
            return -ESTALE;
        if (t->version > f->version)
            f->version = t->version;
        if (!f->is_home)
            f->row_stale = true;
        f->is_home = true;
    }
    if (t->mapped && !f->mapped && !f->is_home)
        f->mapped = f->row_stale = true;
    return 0;
}

int admit_by_map(struct store *s, struct file *f)
{
    struct base base = {0};
    int rc;

    if (f->gone)
        return -EAGAIN;
    if (f->known)
        return 0;
    rc = mark_raise_ino(s->mark, f->ino);
    if (rc == 0)
        rc = base_by_map(s, f->ino, &base);
    if (rc == 0)
        set_base(f, &base);
    return rc;
}

int admit_lock(struct store *s, const struct ticket *t, unsigned right, struct file **out)
{
    int64_t deadline = clock_boot_ms() + STORE_WAIT_MS;
    int rc = -EAGAIN;

    for (int tries = 0; tries < ADMIT_TRIES || rc == -EBUSY; tries++) {
        struct file *f = file_get(&s->table, t->ino);
        if (!f)
            return -ENOMEM;
        pthread_mutex_lock(&f->lock);
        rc = admit(s, f, t, right);
        if (rc == 0) {
            if (f->leaving) { /* not now: it is used */
                f->leaving = false;
                line_changed(s, f);
            }
            *out = f;
            return 0;
        }
        if (rc == -EBUSY)
            store_wait(f);
        /* A row that never came to be is not left in the table. */
        if (!f->known && !f->gone && f->fetches == NULL && atomic_load(&f->refs) == 2)
            file_forget(&s->table, f);
        admit_unlock(f);
        if ((rc != -EAGAIN && rc != -EBUSY) || clock_boot_ms() > deadline)
            break;
    }
    return rc == -EAGAIN ? -ESTALE : rc == -EBUSY ? -ENOSPC : rc;
}

void admit_unlock(struct file *f)
{
    pthread_mutex_unlock(&f->lock);
    file_unref(f);
}
