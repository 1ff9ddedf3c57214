#include "control/wire/calls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* FUSE's background limit is 64 here, so most clients never grow. */
#define CALLS_SIZE_FIRST 256

int calls_init(struct calls *t, uint32_t max, uint64_t first_id)
{
    *t = (struct calls){.size = CALLS_SIZE_FIRST,
                        .max = max,
                        .next_id = first_id ? first_id : 1,
                        .earliest = CALLS_NO_DEADLINE};
    t->slots = calloc(t->size, sizeof(*t->slots));
    return t->slots ? 0 : -ENOMEM;
}

void calls_free(struct calls *t)
{
    free(t->slots);
    t->slots = NULL;
}

/* Ids that differ modulo the old size differ modulo the doubled one: nothing collides. */
static int grow(struct calls *t)
{
    uint32_t size = t->size * 2;
    struct call *slots = calloc(size, sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->size; i++)
        if (t->slots[i].id)
            slots[t->slots[i].id & (size - 1)] = t->slots[i];
    free(t->slots);
    t->slots = slots;
    t->size = size;
    return 0;
}

struct call *calls_add(struct calls *t, int64_t deadline, int *err)
{
    *err = t->count >= t->max ? -EBUSY : 0;
    if (!*err && t->count >= t->size / 2) /* half empty: stepping over taken slots stays short */
        *err = grow(t);
    if (*err)
        return NULL;
    while (t->next_id == 0 || t->slots[t->next_id & (t->size - 1)].id)
        t->next_id++;
    struct call *c = &t->slots[t->next_id & (t->size - 1)];
    *c = (struct call){.id = t->next_id++, .deadline = deadline};
    t->count++;
    if (deadline < t->earliest)
        t->earliest = deadline;
    return c;
}

struct call *calls_find(struct calls *t, uint64_t id)
{
    struct call *c = &t->slots[id & (t->size - 1)];
    return id && c->id == id ? c : NULL;
}

void calls_remove(struct calls *t, struct call *c)
{
    c->id = 0;
    if (--t->count == 0)
        t->earliest = CALLS_NO_DEADLINE;
}

uint64_t calls_skip_id(struct calls *t)
{
    if (t->next_id == 0)
        t->next_id++;
    return t->next_id++;
}

bool calls_expire(struct calls *t, int64_t now, uint32_t *at, struct call *out)
{
    if (*at == 0) {
        if (t->earliest > now)
            return false;
        t->earliest = CALLS_NO_DEADLINE; /* made anew below; calls_add keeps it right meanwhile */
    }
    while (*at < t->size) {
        struct call *c = &t->slots[(*at)++];
        if (!c->id)
            continue;
        if (c->deadline <= now) {
            *out = *c;
            int64_t earliest = t->earliest;
            calls_remove(t, c);
            t->earliest = earliest;
            return true;
        }
        if (c->deadline < t->earliest)
            t->earliest = c->deadline;
    }
    return false;
}
