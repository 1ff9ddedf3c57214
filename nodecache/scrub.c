/* Looking at all clean bytes, so that damage is found while the pool can still mend it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "nodecache/clean.h"

/* Bytes looked at under a file's lock at once. */
#define SCRUB_STEP (256u << 10)
/* Another thread may fetch the same bytes at the same time: then it is looked at again. */
#define HEAL_TRIES 5

struct scrub {
    struct store *store;
    const struct scrub_limits *limits;
    int64_t began; /* clock_boot_ms */
    struct scrub_result *result;
    struct fetched got;
    bool pool_fails; /* it does not answer: what is damaged later in this call is not waited for */
};

/* Sleeps until the bytes so far are due. */
static int keep_pace(struct scrub *k)
{
    while (!atomic_load(&k->store->stopping)) {
        int64_t due = k->began + (int64_t)(k->result->bytes / (k->limits->rate / 1000 + 1));
        int64_t wait = due - clock_boot_ms();
        if (wait <= 0)
            return 0;
        wait = wait < STORE_POLL_MS ? wait : STORE_POLL_MS;
        struct timespec t = {.tv_nsec = (long)wait * 1000000};
        nanosleep(&t, NULL);
    }
    return -ESHUTDOWN;
}

static bool is_enough(const struct scrub *k)
{
    return k->result->bytes >= k->limits->bytes || clock_boot_ms() - k->began >= k->limits->ms ||
           k->result->damaged + SCRUB_STEP / SUM_BLOCK > SCRUB_DAMAGE_MAX;
}

static void note(struct scrub *k, const struct file *f, uint64_t start, uint64_t end)
{
    k->result->damage[k->result->damaged++] =
        (struct scrub_damage){.ino = f->ino, .start = start, .end = end < f->size ? end : f->size};
}

/* f is locked. */
static int scrub_step(struct scrub *k, struct file *f, uint64_t start, uint64_t end)
{
    int rc = 0;

    for (uint64_t at = start; rc == 0 && at < end; at += SUM_BLOCK) {
        uint64_t stop = at + SUM_BLOCK < end ? at + SUM_BLOCK : end;
        uint64_t clean = ranges_bytes(&f->present, at, stop) - ranges_bytes(&f->staged, at, stop);
        if (clean == 0)
            continue;
        k->result->bytes += clean;
        rc = clean_verify(k->store, f, at, stop);
        if (rc == -EAGAIN) {
            note(k, f, at, stop);
            rc = 0;
        }
    }
    return rc;
}

/* What was dropped comes from the pool again. */
static void heal(struct scrub *k, struct file *f, struct scrub_damage *d)
{
    int rc = k->pool_fails ? -ENOTCONN : d->start < d->end ? -EAGAIN : 0;

    for (int tries = 0; rc == -EAGAIN && tries < HEAL_TRIES; tries++)
        rc = fetch_range(k->store, f, d->start, d->end, &k->got, d->detail);
    d->healed = rc == 0;
    if (rc < 0 && d->detail[0] == '\0')
        snprintf(d->detail, sizeof(d->detail), "%s",
                 k->pool_fails ? "the pool did not answer just before" : strerror(-rc));
    /* -EIO: the pool's copy is damaged as well. */
    if (rc < 0 && rc != -EIO && rc != -ESTALE && rc != -EAGAIN)
        k->pool_fails = true;
}

/* From *at on; 1: there is more of it. */
static int scrub_file(struct scrub *k, struct file *f, uint64_t *at)
{
    uint64_t end;
    int rc = 0;

    do {
        struct range here;
        unsigned known = k->result->damaged;
        if (is_enough(k))
            return 1;
        pthread_mutex_lock(&f->lock);
        end = f->gone || !ranges_next(&f->present, *at, &here) ? 0 : ranges_end(&f->present);
        if (end > 0 && here.start > *at)
            *at = here.start - here.start % SUM_BLOCK;
        if (*at < end)
            rc = scrub_step(k, f, *at, *at + SCRUB_STEP < end ? *at + SCRUB_STEP : end);
        pthread_mutex_unlock(&f->lock);
        *at += SCRUB_STEP;
        for (unsigned n = known; n < k->result->damaged; n++)
            heal(k, f, &k->result->damage[n]);
        if (rc == 0)
            rc = keep_pace(k);
    } while (rc == 0 && *at < end);
    return rc;
}

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* From the place on; 1: there is more in the shard. */
static int scrub_shard(struct scrub *k, struct scrub_place *place)
{
    uint64_t *inos = NULL;
    size_t count = 0;
    int rc = shard_inos(&k->store->table.shards[place->shard], &inos, &count);

    if (rc == 0 && count > 0)
        qsort(inos, count, sizeof(*inos), by_number);
    for (size_t n = 0; rc == 0 && n < count; n++) {
        if (inos[n] < place->ino)
            continue;
        struct file *f = file_peek(&k->store->table, inos[n]);
        uint64_t at = inos[n] == place->ino ? place->offset : 0, before = k->result->bytes;
        if (!f)
            continue;
        rc = scrub_file(k, f, &at);
        file_unref(f);
        *place = (struct scrub_place){.shard = place->shard, .ino = inos[n], .offset = at};
        k->result->files += rc == 0 && (at > SCRUB_STEP || k->result->bytes > before);
    }
    free(inos);
    return rc;
}

int store_scrub(struct store *s, struct scrub_place *from, const struct scrub_limits *limits,
                struct scrub_result *result)
{
    struct scrub k = {.store = s, .limits = limits, .began = clock_boot_ms(), .result = result};
    int rc = 0;

    memset(result, 0, sizeof(*result));
    while (rc == 0 && from->shard < FILE_SHARDS) {
        rc = scrub_shard(&k, from);
        if (rc == 0)
            *from = (struct scrub_place){.shard = from->shard + 1};
    }
    from->done = rc == 0;
    fetched_clear(&k.got);
    return rc < 0 ? rc : 0;
}

/* ---- for others, who have lost it ---- */

/* f is locked. */
static int read_clean(struct store *s, struct file *f, uint64_t start, uint64_t end, uint8_t *out)
{
    int rc = !ranges_contains(&f->present, start, end) || ranges_intersects(&f->staged, start, end)
                 ? -ENODATA
                 : clean_verify(s, f, start, end);
    int fd = rc < 0 ? -1 : file_fd(&s->table, f, false);

    if (rc == 0 && fd < 0)
        rc = fd;
    for (uint64_t at = start; rc == 0 && at < end;) {
        ssize_t n = pread(fd, out + (at - start), end - at, (off_t)at);
        if (n < 0 && errno != EINTR)
            rc = store_failed(s, -errno, "read", f->ino);
        else if (n == 0)
            rc = -EIO; /* present bytes are always there */
        at += n > 0 ? (uint64_t)n : 0;
    }
    return rc == -EAGAIN ? -ENODATA : rc;
}

int store_clean_bytes(struct store *s, const struct ticket *t, uint64_t start, uint64_t end,
                      uint8_t *out)
{
    struct file *f = file_peek(&s->table, t->ino);

    if (!f)
        return -ENODATA;
    file_unref(f);
    int rc = admit_lock(s, t, RIGHT_READ, &f);
    if (rc < 0)
        return rc;
    rc = read_clean(s, f, start, end, out);
    admit_unlock(f);
    return rc;
}
