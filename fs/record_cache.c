#include "fs/record_cache.h"

#include <stdlib.h>
#include <utlist.h>

static struct record *find(struct record_cache *c, uint64_t id)
{
    struct record *r;

    HASH_FIND(hh, c->all, &id, sizeof(id), r);
    return r;
}

static void take_out(struct record_cache *c, struct record *r)
{
    HASH_DEL(c->all, r);
    c->bytes -= r->length;
}

struct record *record_cache_get(struct record_cache *c, uint64_t id)
{
    struct record *r = find(c, id);

    if (r && r->users++ == 0)
        DL_DELETE(c->unused, r);
    return r;
}

bool record_cache_has(struct record_cache *c, uint64_t id)
{
    return find(c, id) != NULL;
}

struct record *record_cache_add(struct record_cache *c, uint64_t id, uint32_t length)
{
    struct record *r = NULL;

    while (c->unused && c->bytes + length > c->limit) {
        struct record *oldest = c->unused;
        DL_DELETE(c->unused, oldest);
        take_out(c, oldest);
        if (!r && oldest->length == length) /* fresh pages cost as much as a copy */
            r = oldest;
        else
            free(oldest);
    }
    if (c->bytes + length > c->limit) {
        free(r);
        return NULL;
    }
    if (!r)
        r = malloc(sizeof(*r) + length);
    if (!r)
        return NULL;
    *r = (struct record){.id = id, .length = length, .users = 1};
    HASH_ADD(hh, c->all, id, sizeof(r->id), r);
    c->bytes += length;
    return r;
}

void record_cache_put(struct record_cache *c, struct record *r)
{
    if (--r->users > 0)
        return;
    if (r->state == RECORD_FAILED) {
        take_out(c, r);
        free(r);
        return;
    }
    DL_APPEND(c->unused, r);
}

void record_cache_free(struct record_cache *c)
{
    struct record *r, *tmp;

    HASH_ITER (hh, c->all, r, tmp) {
        take_out(c, r);
        free(r);
    }
    c->unused = NULL;
}
