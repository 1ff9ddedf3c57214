/* The cloud's wrapped keys beside the marker: "keys/SSSSSSSSAAAAAAAA", serial and attempt in hex.
 */
#include "nodecache/pool/pool_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define FOLDER "keys"
#define DIGITS 16
/* All hangs on them on the day when they are needed: one may be damaged. */
#define COPIES 2
/* What the folder may hold without being thought strange: a put leaves COPIES, and more for
 * each attempt whose end nobody heard of. */
#define NAMES_MAX 4096

_Static_assert(sizeof(FOLDER "/") + DIGITS <= PACK_NAME, "the name fits");

struct names {
    uint64_t *at; /* serial << 32 | attempt */
    size_t n, room;
    int rc;
};

static void name_of(uint64_t number, char name[PACK_NAME])
{
    snprintf(name, PACK_NAME, FOLDER "/%016" PRIx64, number);
}

static bool see_name(void *arg, const char *name)
{
    struct names *l = arg;

    if (strlen(name) != DIGITS || strspn(name, "0123456789abcdef") != DIGITS)
        return true;
    if (l->n == l->room) {
        size_t room = l->room ? l->room * 2 : 16;
        uint64_t *grown = room <= NAMES_MAX ? realloc(l->at, room * sizeof(*grown)) : NULL;
        if (grown == NULL) {
            l->rc = room <= NAMES_MAX ? -ENOMEM : -E2BIG;
            return false;
        }
        l->at = grown;
        l->room = room;
    }
    l->at[l->n++] = strtoull(name, NULL, 16);
    return true;
}

static int newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x < y) - (x > y);
}

/* l->at is to be freed. */
static int look(struct pool *p, struct names *l, char *detail)
{
    int rc = pool_here(p, detail);

    *l = (struct names){0};
    if (rc == 0)
        rc = p->driver->list(p->ctx, FOLDER, see_name, l, detail);
    if (rc == 0 && l->rc != 0)
        rc = pool_fail(detail, l->rc, "the pool's wrapped keys cannot be listed: %s",
                       strerror(-l->rc));
    if (rc == 0 && l->n > 0)
        qsort(l->at, l->n, sizeof(*l->at), newest_first);
    return rc;
}

static int write_object(struct pool *p, const char *name, const void *data, size_t len,
                        char *detail)
{
    void *object;
    int rc = p->driver->create(p->ctx, name, &object, detail);

    if (rc != 0)
        return rc;
    rc = p->driver->append(object, data, len, detail);
    if (rc == 0)
        return p->driver->finish(object, detail);
    p->driver->abandon(object);
    return rc;
}

/* Of the same serial others may lie there: attempts of who did not hear that they had succeeded.
 * They say the same; removing them could cross with one that removes ours. */
static int remove_older(struct pool *p, uint32_t serial, char *detail)
{
    char name[PACK_NAME];
    struct names l;
    int rc = look(p, &l, detail);

    for (size_t i = 0; rc == 0 && i < l.n; i++) {
        if (l.at[i] >> 32 >= serial)
            continue;
        name_of(l.at[i], name);
        rc = p->driver->remove(p->ctx, name, detail);
    }
    free(l.at);
    return rc;
}

int pool_keys_put(struct pool *p, uint32_t serial, const void *data, size_t len, char *detail)
{
    char name[PACK_NAME];
    uint32_t attempt;
    int rc = pool_here(p, detail);

    if (rc == 0 && (len == 0 || len > POOL_KEYS_MAX || serial == 0))
        rc = pool_fail(detail, -EINVAL, "these are no wrapped keys");
    for (unsigned copy = 0; rc == 0 && copy < COPIES; copy++) {
        if (getrandom(&attempt, sizeof(attempt), 0) != (ssize_t)sizeof(attempt))
            return pool_fail(detail, -EIO, "the system gives no random numbers");
        name_of((uint64_t)serial << 32 | attempt, name);
        rc = write_object(p, name, data, len, detail);
    }
    return rc != 0 ? rc : remove_older(p, serial, detail);
}

int pool_keys_get(struct pool *p, bool (*fn)(void *arg, uint32_t serial, const void *, size_t),
                  void *arg, char *detail)
{
    uint8_t data[POOL_KEYS_MAX + 1];
    char name[PACK_NAME];
    bool more = true;
    struct names l;
    int rc = look(p, &l, detail);

    for (size_t i = 0; rc == 0 && more && i < l.n; i++) {
        struct iovec iov = {data, sizeof(data)};
        name_of(l.at[i], name);
        ssize_t got = p->driver->read(p->ctx, name, 0, &iov, 1, detail);
        if (got >= 0)
            more = fn(arg, (uint32_t)(l.at[i] >> 32), data, (size_t)got);
        else if (got != -ENOENT) /* somebody has put newer ones meanwhile */
            rc = (int)got;
    }
    free(l.at);
    return rc;
}
