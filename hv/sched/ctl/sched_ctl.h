/*
 * How a domain of the real Xen stands with R_B_Credit: real-time or not, its weight, its cap.
 * Through libxenlight, which is loaded by each call; nothing is kept between calls, so threads may
 * call it at once.
 *
 * Xen has no word for "real-time" there. R_B_Credit takes two of Credit's weights for it (see
 * hv/sched/xen/README.md): whoever sets weights by xl says the same that way.
 */
#ifndef UMBEL_HV_SCHED_CTL_SCHED_CTL_H
#define UMBEL_HV_SCHED_CTL_SCHED_CTL_H

#include <stdbool.h>
#include <stdint.h>

#define SCHED_WEIGHT_RT       65535 /* as a weight: real-time from now on */
#define SCHED_WEIGHT_ORDINARY 65534 /* as a weight: ordinary again, with the weight that it had */
#define SCHED_WEIGHT_MAX      65533
#define SCHED_WHY             256

struct sched_ctl_params {
    bool real_time;
    uint32_t weight; /* 0 while real-time: Xen tells the mark in its place */
    uint32_t cap; /* per cent of a processor; 0: none. Kept, and without effect, while real-time */
};

enum sched_ctl_mark { SCHED_MARK_AS_IT_IS, SCHED_MARK_ON, SCHED_MARK_OFF };

struct sched_ctl_change {
    enum sched_ctl_mark mark;
    uint32_t weight; /* 0: as it is; else up to SCHED_WEIGHT_MAX */
    int64_t cap;     /* -1: as it is; 0: none */
};

/* The weights that libxl must be told one after the other (0: none) for the change of a domain that
 * is real-time or not; how many of them. Pure. A weight given to a domain that is and stays
 * real-time takes its mark away for a moment. */
unsigned sched_ctl_weights(const struct sched_ctl_change *change, bool real_time,
                           uint32_t weights[2]);

/* domain: a name or a number. 0, or -errno with a sentence in why:
 * -ENOSYS: built without libxenlight, or it is not on this machine; -ENODEV: this is not a dom0 of
 * Xen; -ENOENT: no such domain; -ENOTSUP: Xen, or the domain's pool, has another scheduler; -EIO:
 * Xen refuses. */
int sched_ctl_get(const char *domain, struct sched_ctl_params *params, char why[SCHED_WHY]);
/* Changes and then gets. What is done before an error stays done. */
int sched_ctl_set(const char *domain, const struct sched_ctl_change *change,
                  struct sched_ctl_params *params, char why[SCHED_WHY]);

#endif
