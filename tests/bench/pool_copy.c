/* Writes packs to a pool, or reads their records and verifies them, from one thread or several: to
 * be compared with nfs-cp of as many bytes (tests/bench/nfs.sh).
 *
 *   pool_copy write|read URL MEGABYTES THREADS
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nodecache/pool/pool.h"

#define PACK_RECORDS 60

struct worker {
    pthread_t thread;
    struct pool *pool;
    bool write;
    uint64_t first, records;
    int rc;
    char detail[POOL_DETAIL];
};

/* Where a record of 1 MiB lies in such a pack: README.md of the room. */
static uint64_t place(uint64_t i)
{
    uint64_t pages = (POOL_RECORD_MAX + POOL_PAGE_CONTENT - 1) / POOL_PAGE_CONTENT;
    return 64 + i % PACK_RECORDS * (POOL_RECORD_MAX + pages * POOL_SEAL);
}

static int write_packs(struct worker *w, uint8_t *buf)
{
    struct pack_writer *out = NULL;
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < w->records; i++) {
        struct pack_record r = {.ino = 1, .offset = i << 20, .length = POOL_RECORD_MAX};
        if (i % PACK_RECORDS == 0) {
            rc = out != NULL ? pack_finish(out, NULL, w->detail) : 0;
            if (rc == 0)
                rc = pack_create(w->pool, NULL, w->first + i / PACK_RECORDS, &out, w->detail);
        }
        memcpy(buf, &i, sizeof i);
        if (rc == 0)
            rc = pack_add_record(out, buf, &r, w->detail);
    }
    return rc == 0 && out != NULL ? pack_finish(out, NULL, w->detail) : rc;
}

static int read_packs(struct worker *w, uint8_t *buf)
{
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < w->records; i++) {
        rc = pack_read(w->pool, NULL, w->first + i / PACK_RECORDS, (uint32_t)(i % PACK_RECORDS),
                       place(i), POOL_RECORD_MAX, 0, buf, POOL_RECORD_MAX, w->detail);
        if (rc == 0 && memcmp(buf, &i, sizeof i) != 0)
            rc = -EILSEQ;
    }
    return rc;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    uint8_t *buf = calloc(1, POOL_RECORD_MAX);

    w->rc = buf == NULL ? -ENOMEM : w->write ? write_packs(w, buf) : read_packs(w, buf);
    free(buf);
    return NULL;
}

int main(int argc, char **argv)
{
    struct worker workers[16];
    char detail[POOL_DETAIL];
    struct pool *p;
    int failed = 0;

    if (argc != 5 || atoi(argv[4]) < 1 || atoi(argv[4]) > 16) {
        fprintf(stderr, "usage: pool_copy write|read URL MEGABYTES THREADS\n");
        return 2;
    }
    int threads = atoi(argv[4]);
    if (pool_open(argv[2], "bench", true, &p, detail) != 0) {
        fprintf(stderr, "pool_copy: %s\n", detail);
        return 1;
    }
    for (int i = 0; i < threads; i++) {
        workers[i] = (struct worker){.pool = p,
                                     .write = strcmp(argv[1], "write") == 0,
                                     .first = 1 + (uint64_t)i * 100000,
                                     .records = strtoull(argv[3], NULL, 10) / (unsigned)threads};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            abort();
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].rc != 0)
            failed = fprintf(stderr, "pool_copy: %s\n", workers[i].detail);
    }
    pool_close(p);
    return failed != 0;
}
