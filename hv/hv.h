/*
 * Nodes that are started on demand, and ended again: what the centre asks for, whatever they run
 * on.
 *
 * A *driver* is a small table of functions that block for a second or two: `local` (hv_local.h,
 * node processes on this machine), later Xen and SSH. hv runs them one after the other in a thread
 * of its own and calls back in the loop, so that nobody's loop waits.
 *
 * A node's name is given once and never again, so what a driver finds under a name belongs to that
 * node. Drivers remember nothing in memory: after a restart of the centre they find what runs.
 */
#ifndef UMBEL_HV_H
#define UMBEL_HV_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define HV_NAME   64
#define HV_DETAIL 256
/* Calls that wait for the thread; beyond, a call is -EBUSY. More than nodes that there may be. */
#define HV_CALLS_MAX 1024
/* Names that one hv_find answers; whoever asks again finds the rest. */
#define HV_FOUND_MAX 1024

struct hv_spec {
    char name[HV_NAME];
    uint64_t capacity; /* bytes that its store may take, at most */
};

/* The largest node that can be had. */
struct hv_offer {
    uint32_t milli_cpus;
    uint64_t memory; /* bytes */
};

enum hv_state {
    HV_ABSENT, /* nothing is there under that name */
    HV_RUNS,   /* which does not say that the node works: the centre hears of that from the node */
    HV_ENDED,  /* it runs no more; detail: what it said at last, or "" */
    HV_LEFT    /* the same, and it has emptied its store: the cloud has let it go */
};

/* All return 0 or -errno, and then one line in detail (it is "" before). They look at *cancel while
 * they wait, and return -ECANCELED soon after it is set. */
struct hv_driver {
    const char *name; /* at most 15 characters */
    /* -EOPNOTSUPP: none can be had, and detail says why. */
    int (*offer)(void *self, struct hv_offer *out, char detail[HV_DETAIL]);
    /* Begins the start. What it had before is kept. 0 also if it runs already. */
    int (*start)(void *self, const struct hv_spec *spec, char detail[HV_DETAIL]);
    int (*state)(void *self, const char *name, enum hv_state *out, char detail[HV_DETAIL]);
    /* Asks it to end, or (now) ends it; it may still run when this returns. */
    int (*stop)(void *self, const char *name, int now, char detail[HV_DETAIL]);
    /* Nothing of it is left, its data neither. -EBUSY: it runs. */
    int (*destroy)(void *self, const char *name, char detail[HV_DETAIL]);
    /* The names of all that is there, running or not: at most `most`; *n of them. */
    int (*find)(void *self, char (*names)[HV_NAME], size_t most, size_t *n, char detail[HV_DETAIL]);
    void (*close)(void *self);
};

struct hv_answer {
    int status; /* 0 or -errno */
    struct hv_offer offer;
    enum hv_state state;
    const char (*names)[HV_NAME]; /* of hv_find; until the callback returns */
    size_t names_n;
    char detail[HV_DETAIL];
};
typedef void (*hv_done_fn)(void *arg, const struct hv_answer *answer);

struct hv;

/* The driver's self is hv's from now on, also if this fails. cancel: the one that the driver looks
 * at, as long-lived as self. All functions: loop's thread only. */
int hv_open(uv_loop_t *loop, const struct hv_driver *driver, void *self, atomic_bool *cancel,
            struct hv **out);
const char *hv_driver_name(const struct hv *hv);

/* -ENOMEM, -EBUSY: done is never called; else it is, once, unless hv_close() comes first. */
int hv_offer(struct hv *hv, hv_done_fn done, void *arg);
int hv_start(struct hv *hv, const struct hv_spec *spec, hv_done_fn done, void *arg);
int hv_state(struct hv *hv, const char *name, hv_done_fn done, void *arg);
int hv_stop(struct hv *hv, const char *name, int now, hv_done_fn done, void *arg);
int hv_destroy(struct hv *hv, const char *name, hv_done_fn done, void *arg);
int hv_find(struct hv *hv, hv_done_fn done, void *arg);

/* Cancels what goes on and waits for it (some 100 ms); callbacks that were not called yet never
 * are, their args are the caller's to free. The handle is closed by the loop, which must go on to
 * run. NULL is allowed. */
void hv_close(struct hv *hv);

#endif
