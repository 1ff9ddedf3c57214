/* fsync of a file: its bytes, then the word of it in the journal. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "nodecache/store_private.h"

/* What an fsync makes durable: how the file stood when it began. */
struct moment {
    uint64_t version, size;
    struct ranges staged;
    int fd;
    bool name; /* the folder entry too */
};

static int sync_folder(struct store *s, uint64_t ino)
{
    char name[8];

    snprintf(name, sizeof(name), "%02x", (unsigned)(ino & 0xff));
    int fd = openat(s->files_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = sync_fd(&s->options.sync, fd, false);
    close(fd);
    return rc;
}

static int moment_take(struct store *s, struct file *f, struct moment *m)
{
    int rc = 0;

    m->version = f->version;
    m->size = f->size;
    m->name = f->has_file && !f->name_synced;
    m->fd = f->staged.count > 0 ? file_fd(&s->table, f, false) : -1;
    if (m->fd < 0 && f->staged.count > 0)
        return m->fd;
    rc = ranges_copy(&m->staged, &f->staged);
    if (rc == 0 && m->fd >= 0)
        f->fd_users++;
    return rc;
}

/* f->lock is held. */
static int moment_record(struct store *s, struct file *f, struct moment *m)
{
    struct charge c;
    int rc = 0;

    if (f->synced_version > m->version)
        return 0; /* it began anew meanwhile */
    charge_begin(&c, f, 0, 0, 0);
    if (f->version == m->version) {
        rc = index_synced(&s->index, f, NULL, m->version, m->size);
    } else {
        /* Changed meanwhile: what was staged then and still is. */
        rc = ranges_keep(&m->staged, &f->staged);
        if (rc == 0)
            rc = index_synced(&s->index, f, &m->staged, m->version,
                              m->size < f->size ? m->size : f->size);
    }
    charge_end(s, &c, f);
    return rc;
}

/* After a failed sync the kernel takes its pages for clean: they are written again, or the next
 * sync would promise what was never written. f->lock is held. */
static int write_again(const struct moment *m)
{
    uint8_t buffer[65536];
    struct range next;
    uint64_t at = 0;

    while (ranges_next(&m->staged, at, &next)) {
        uint64_t start = next.start > at ? next.start : at;
        size_t step =
            next.end - start < sizeof(buffer) ? (size_t)(next.end - start) : sizeof(buffer);
        ssize_t n = pread(m->fd, buffer, step, (off_t)start);
        if (n <= 0 || pwrite(m->fd, buffer, (size_t)n, (off_t)start) != n)
            return -EIO;
        at = start + (uint64_t)n;
    }
    return 0;
}

/* Kept over a restart, as what the kernel has in memory is too. f->lock is held. */
static int note_failed(struct store *s, struct file *f, bool failed)
{
    struct charge c;
    struct row row;

    row_of(f, &row);
    row.sync_failed = failed;
    charge_begin(&c, f, 0, 0, 0);
    int rc = index_row(&s->index, f, &row);
    charge_end(s, &c, f);
    f->sync_failed = failed || rc < 0; /* in memory at least */
    return rc;
}

/* What a sync of the bytes has shown. again: they had been written again before it. f->lock is
 * held.
 */
static int sync_result(struct store *s, struct file *f, struct moment *m, bool again, int rc)
{
    if (rc < 0 && m->fd >= 0 && !f->sync_failed)
        (void)note_failed(s, f, true); /* the first error is told */
    if (rc == 0 && f->gone)
        rc = -ESTALE;
    if (rc == 0 && m->name)
        f->name_synced = true;
    if (rc == 0 && again)
        rc = note_failed(s, f, false);
    return rc == 0 ? moment_record(s, f, m) : rc;
}

static int sync_bytes(struct store *s, const struct file *f, const struct moment *m)
{
    int rc = m->fd >= 0 ? sync_fd(&s->options.sync, m->fd, true) : 0;

    return rc == 0 && m->name ? sync_folder(s, f->ino) : rc;
}

/* One sync of a file at a time: the kernel tells an error of writing back to one caller only, and
 * the other one would take the bytes for written. f->lock is held. */
static int await_turn(struct store *s, struct file *f, const struct ticket *t)
{
    int rc = 0;

    while (rc == 0 && f->syncing) {
        store_wait(f);
        rc = admit(s, f, t, 0);
    }
    return rc == -EAGAIN ? -ESTALE : rc; /* dropped while it waited */
}

static int sync_unlocked(struct store *s, struct file *f, const struct moment *m, int rc)
{
    f->syncing = true;
    pthread_mutex_unlock(&f->lock);
    if (rc == 0)
        rc = sync_bytes(s, f, m);
    pthread_mutex_lock(&f->lock);
    f->syncing = false;
    pthread_cond_broadcast(&f->changed);
    return rc;
}

int store_fsync(struct store *s, const struct ticket *t, struct attrs *attrs)
{
    struct moment m = {.fd = -1};
    struct file *f;
    uint64_t seq;
    bool again = false;
    int rc = admit_lock(s, t, 0, &f);

    if (rc < 0)
        return rc;
    rc = await_turn(s, f, t);
    if (rc < 0)
        goto out;
    if (f->synced_version == f->version && !(f->has_file && !f->name_synced && f->staged.count > 0))
        goto out; /* nothing changed since */
    rc = moment_take(s, f, &m);
    if (rc < 0)
        goto out;
    again = f->sync_failed && m.fd >= 0;
    if (again)
        rc = write_again(&m);
    rc = sync_unlocked(s, f, &m, rc);
    if (m.fd >= 0)
        f->fd_users--;
    rc = sync_result(s, f, &m, again, rc);
out:
    file_attrs(f, attrs);
    seq = f->seq;
    pthread_mutex_unlock(&f->lock);
    ranges_clear(&m.staged);
    /* Also when nothing changed: another thread's fsync may have recorded it and be syncing the
     * journal only now. */
    if (rc == 0)
        rc = journal_sync(s->index.journal, seq);
    if (rc < 0)
        store_failed(s, rc, "fsync", f->ino);
    file_unref(f);
    return rc;
}
