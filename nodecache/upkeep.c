/* The store's own thread: checkpoints when the journal has grown, eviction when the store is full.
 */
#include <errno.h>

#include "control/wire/clock.h"
#include "nodecache/store_private.h"

/* Between looks without a kick. */
#define UPKEEP_PERIOD_MS 200
/* After a checkpoint that failed. */
#define CHECKPOINT_RETRY_MS 5000

void store_kick_upkeep(struct store *s)
{
    pthread_mutex_lock(&s->upkeep_lock);
    s->upkeep_kicked = true;
    pthread_cond_signal(&s->upkeep_cond);
    pthread_mutex_unlock(&s->upkeep_lock);
}

static void wait_for_work(struct store *s)
{
    struct timespec until = deadline_in(UPKEEP_PERIOD_MS);

    pthread_mutex_lock(&s->upkeep_lock);
    if (!s->upkeep_kicked)
        pthread_cond_timedwait(&s->upkeep_cond, &s->upkeep_lock, &until);
    s->upkeep_kicked = false;
    pthread_mutex_unlock(&s->upkeep_lock);
}

static void make_room(struct store *s)
{
    uint64_t used = atomic_load(&s->space.used), high = atomic_load(&s->space.high);

    space_take_pressure(&s->space);
    if (used <= high && atomic_load(&s->space.waiting) == 0 &&
        atomic_load(&s->table.count) <= FILES_MAX / 2)
        return;
    uint64_t low = atomic_load(&s->low_bytes);
    if (atomic_load(&s->space.waiting) > 0 && used <= low)
        low = 0; /* one change wants more than is left above the low-water mark */
    evict_for_room(s, low);
    pthread_mutex_lock(&s->upkeep_lock);
    if (s->need_flush &&
        (atomic_load(&s->space.used) > low || atomic_load(&s->table.count) > FILES_MAX / 10 * 9))
        s->need_flush(s->need_flush_ctx);
    pthread_mutex_unlock(&s->upkeep_lock);
}

void store_on_need_flush(struct store *s, void (*fn)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&s->upkeep_lock);
    s->need_flush = fn;
    s->need_flush_ctx = ctx;
    pthread_mutex_unlock(&s->upkeep_lock);
}

static void *upkeep_main(void *arg)
{
    struct store *s = arg;
    char detail[NODE_DETAIL];
    int64_t not_before = 0;

    while (!atomic_load(&s->stopping)) {
        wait_for_work(s);
        int pushed = journal_push(s->index.journal);
        if (pushed < 0)
            store_failed(s, pushed, "journal", 0);
        if (index_wants_checkpoint(&s->index) && clock_boot_ms() >= not_before) {
            int rc = index_checkpoint(&s->index, &s->table, detail);
            if (rc < 0) {
                store_failed(s, rc, "checkpoint of the index", 0);
                not_before = clock_boot_ms() + CHECKPOINT_RETRY_MS;
            }
        }
        make_room(s);
    }
    return NULL;
}

int upkeep_start(struct store *s)
{
    int rc = pthread_create(&s->upkeep, NULL, upkeep_main, s);

    s->upkeep_runs = rc == 0;
    return -rc;
}

void upkeep_stop(struct store *s)
{
    if (!s->upkeep_runs)
        return;
    store_kick_upkeep(s);
    pthread_join(s->upkeep, NULL);
    s->upkeep_runs = false;
}
