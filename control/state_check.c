/* Checks everything against everything: the common part. It reads all rows once or twice and
 * changes nothing. */
#include "control/state_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Lines reported; more would not help anybody. */
#define REPORTS_MAX 1000

void st_check_problem(struct check *c, const char *format, ...)
{
    char line[512];
    va_list ap;

    if (c->problems++ >= REPORTS_MAX || !c->fn)
        return;
    va_start(ap, format);
    vsnprintf(line, sizeof(line), format, ap);
    va_end(ap);
    c->fn(c->arg, line);
}

int st_check_each(struct check *c, enum db db, st_check_row_fn fn)
{
    struct key k = {.len = 1, .bytes = {0}};
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(c->s, db, &cur);

    if (rc < 0)
        return rc;
    for (rc = st_seek(c->s, cur, &k, &key, &val); rc == 0; rc = st_next(c->s, cur, &key, &val)) {
        rc = c->s->cancel && atomic_load(c->s->cancel) ? -ECANCELED : fn(c, &key, &val);
        if (rc < 0)
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

void *st_check_add(struct check *c, struct list *l, uint64_t id)
{
    (void)c;
    if (l->n == l->size) {
        size_t size = l->size ? l->size * 2 : 1024;
        void *grown = realloc(l->rows, size * l->row);
        if (!grown)
            return NULL;
        l->rows = grown;
        l->size = size;
    }
    uint8_t *at = (uint8_t *)l->rows + l->n++ * l->row;
    memset(at, 0, l->row);
    memcpy(at, &id, sizeof(id));
    return at;
}

static int by_id(const void *key, const void *row)
{
    uint64_t a = *(const uint64_t *)key, b = *(const uint64_t *)row;

    return (a > b) - (a < b);
}

void *st_check_find(const struct list *l, uint64_t id)
{
    return l->n ? bsearch(&id, l->rows, l->n, l->row, by_id) : NULL;
}

struct seen_inode *st_check_inode(struct check *c, uint64_t ino)
{
    return st_check_find(&c->inodes, ino);
}

static void total(struct check *c, const char *what, uint64_t kept, uint64_t counted)
{
    if (kept != counted)
        st_check_problem(c, "total of %s is %" PRIu64 ", counted %" PRIu64, what, kept, counted);
}

static void check_totals(struct check *c)
{
    const struct state_totals *k = &c->s->meta.totals, *n = &c->totals;

    total(c, "inodes", k->inodes, n->inodes);
    total(c, "orphans", k->orphans, n->orphans);
    total(c, "bytes", k->bytes, n->bytes);
    total(c, "packs", k->packs, n->packs);
    total(c, "records", k->records, n->records);
    total(c, "mapped bytes", k->mapped, n->mapped);
}

int64_t state_check(struct state *s, state_report_fn fn, void *arg)
{
    struct check c = {.s = s, .fn = fn, .arg = arg};

    c.inodes.row = sizeof(struct seen_inode);
    c.records.row = sizeof(struct seen_record);
    c.packs.row = sizeof(struct seen_pack);
    int rc = st_check_names(&c);
    if (rc == 0)
        rc = st_check_data(&c);
    if (rc == 0)
        rc = st_check_rest(&c);
    if (rc == 0)
        check_totals(&c);
    if (rc < 0)
        st_check_problem(&c, "the check could not go on: %s", strerror(-rc));
    free(c.inodes.rows);
    free(c.records.rows);
    free(c.packs.rows);
    return c.problems;
}
