/* Looking at all clean bytes, so that damage is found while the pool can still mend it. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "control/wire/clock.h"
#include "nodecache/clean.h"

/* Bytes looked at under a file's lock at once. */
#define SCRUB_STEP (256u << 10)

struct scrub {
    struct store *store;
    uint64_t rate; /* bytes per second */
    int64_t began; /* clock_boot_ms */
    struct scrub_result *result;
};

/* Sleeps until the bytes so far are due. */
static int keep_pace(struct scrub *k)
{
    while (!atomic_load(&k->store->stopping)) {
        int64_t due = k->began + (int64_t)(k->result->bytes / (k->rate / 1000 + 1));
        int64_t wait = due - clock_boot_ms();
        if (wait <= 0)
            return 0;
        wait = wait < STORE_POLL_MS ? wait : STORE_POLL_MS;
        struct timespec t = {.tv_nsec = (long)wait * 1000000};
        nanosleep(&t, NULL);
    }
    return -ESHUTDOWN;
}

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
            k->result->damaged++;
            rc = 0;
        }
    }
    return rc;
}

static int scrub_file(struct scrub *k, struct file *f)
{
    uint64_t at = 0, end;
    int rc = 0;

    do {
        struct range here;
        pthread_mutex_lock(&f->lock);
        end = f->gone || !ranges_next(&f->present, at, &here) ? 0 : ranges_end(&f->present);
        if (end > 0 && here.start > at)
            at = here.start - here.start % SUM_BLOCK;
        if (at < end)
            rc = scrub_step(k, f, at, at + SCRUB_STEP < end ? at + SCRUB_STEP : end);
        pthread_mutex_unlock(&f->lock);
        at += SCRUB_STEP;
        if (rc == 0)
            rc = keep_pace(k);
    } while (rc == 0 && at < end);
    return rc;
}

int store_scrub(struct store *s, uint64_t bytes_per_second, struct scrub_result *result)
{
    struct scrub k = {
        .store = s, .rate = bytes_per_second, .began = clock_boot_ms(), .result = result};
    int rc = 0;

    *result = (struct scrub_result){0};
    for (unsigned i = 0; rc == 0 && i < FILE_SHARDS; i++) {
        uint64_t *inos = NULL;
        size_t count = 0;
        rc = shard_inos(&s->table.shards[i], &inos, &count);
        for (size_t n = 0; rc == 0 && n < count; n++) {
            struct file *f = file_peek(&s->table, inos[n]);
            if (!f)
                continue;
            uint64_t before = result->bytes;
            rc = scrub_file(&k, f);
            result->files += result->bytes > before;
            file_unref(f);
        }
        free(inos);
    }
    return rc;
}
