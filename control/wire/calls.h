/*
 * Requests that wait for their reply, found by id. Ids are given in growing order and stand at slot
 * id & mask: no probing, no allocation for each call. A slot that a slow call still holds is
 * stepped over by leaving out that id. Not thread-safe: client and hub lock, or have one thread.
 */
#ifndef UMBEL_WIRE_CALLS_H
#define UMBEL_WIRE_CALLS_H

#include <stdbool.h>

#include "control/wire/frame.h"

#define CALLS_NO_DEADLINE INT64_MAX

typedef void (*call_reply_fn)(void *arg, const struct message *reply);

struct call {
    uint64_t id;      /* 0: the slot is free */
    int64_t deadline; /* clock_boot_ms, or CALLS_NO_DEADLINE */
    call_reply_fn fn; /* may be NULL */
    void *arg;
    void *owner;    /* hub: the peer asked */
    uint8_t *bytes; /* client: the whole frame, as long as it may have to be sent */
    uint32_t length;
    uint32_t capacity; /* of bytes */
    uint16_t type;
    bool resend;
    bool sent;
};

struct calls {
    struct call *slots;
    uint32_t size; /* a power of two */
    uint32_t count;
    uint32_t max;
    uint64_t next_id;
    int64_t earliest; /* no deadline is before this */
};

/* first_id: where ids begin. -ENOMEM. */
int calls_init(struct calls *t, uint32_t max, uint64_t first_id);
void calls_free(struct calls *t);

/* A new call with an id, all else zero but the deadline, valid until the next calls_add. NULL: max
 * are pending, or no memory (*err says). */
struct call *calls_add(struct calls *t, int64_t deadline, int *err);
struct call *calls_find(struct calls *t, uint64_t id);
/* Frees the slot; the caller has copied what it needs. */
void calls_remove(struct calls *t, struct call *c);
/* An id that no call has or will have: for requests that are not kept here. */
uint64_t calls_skip_id(struct calls *t);

/* Takes one call that is overdue at now out of the table. false: none is. Begins with *at = 0.
 * After the last one, `earliest` is exact. */
bool calls_expire(struct calls *t, int64_t now, uint32_t *at, struct call *out);

#endif
