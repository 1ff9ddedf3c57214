/* The store's invariants, for tests. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "nodecache/clean.h"

struct check {
    void (*report)(void *ctx, const char *line);
    void *ctx;
    unsigned problems;
    uint64_t charged, staged, present;
};

static void problem(struct check *c, uint64_t ino, const char *what)
{
    char line[128];

    snprintf(line, sizeof(line), "inode %" PRIu64 ": %s", ino, what);
    c->report(c->ctx, line);
    c->problems++;
}

static bool inside(const struct ranges *in, const struct ranges *of)
{
    struct range next;
    uint64_t at = 0;

    while (ranges_next(in, at, &next)) {
        if (!ranges_contains(of, next.start, next.end))
            return false;
        at = next.end;
    }
    return true;
}

static void check_one(struct store *s, const struct file *f, struct check *c)
{
    if (ranges_end(&f->present) > f->size)
        problem(c, f->ino, "present bytes beyond the size");
    if (!inside(&f->staged, &f->present))
        problem(c, f->ino, "staged bytes are not present");
    if (!inside(&f->synced, &f->staged))
        problem(c, f->ino, "synced bytes are not staged");
    if (f->present.count > 0 && !f->has_file)
        problem(c, f->ino, "no flat file");
    if (!clean_sums_fit(f))
        problem(c, f->ino, "checksums do not fit the clean bytes");
    if (file_dirty(f) != f->on_staged_list)
        problem(c, f->ino, "wrong about the staged list");
    if (f->journaled && f->charge != file_charge(f))
        problem(c, f->ino, "wrong charge");
    if (f->base_limit != LIMIT_NONE && !f->mapped && !f->cut)
        problem(c, f->ino, "a base limit without a map");
    if (f->has_file) {
        struct stat st;
        char path[32];
        file_path(path, f->ino);
        if (fstatat(s->files_dir, path, &st, 0) < 0)
            problem(c, f->ino, "the flat file is missing");
        else if ((uint64_t)st.st_size < ranges_end(&f->present))
            problem(c, f->ino, "the flat file is short");
    }
    c->charged += f->charge;
    c->staged += f->staged.total;
    c->present += f->present.total;
}

unsigned store_check(struct store *s, void (*report)(void *ctx, const char *line), void *ctx)
{
    struct check c = {.report = report, .ctx = ctx};

    for (unsigned i = 0; i < FILE_SHARDS; i++) {
        uint64_t *inos = NULL;
        size_t count = 0;
        if (shard_inos(&s->table.shards[i], &inos, &count) < 0)
            problem(&c, 0, "no memory");
        for (size_t n = 0; n < count; n++) {
            struct file *f = file_peek(&s->table, inos[n]);
            if (!f)
                continue;
            pthread_mutex_lock(&f->lock);
            if (!f->gone)
                check_one(s, f, &c);
            admit_unlock(f);
        }
        free(inos);
    }
    if (c.staged != atomic_load(&s->staged_total))
        problem(&c, 0, "wrong total of staged bytes");
    if (c.present != atomic_load(&s->present_total))
        problem(&c, 0, "wrong total of present bytes");
    if (c.charged + index_base_charge(s->index.bound) > atomic_load(&s->space.used))
        problem(&c, 0, "more is charged to files than is in use");
    return c.problems;
}
