/* What the files of the simulator share. */
#ifndef UMBEL_HV_SCHED_SIM_WORLD_H
#define UMBEL_HV_SCHED_SIM_WORLD_H

#include "events.h"
#include "random.h"
#include "sim.h"

enum sim_event_kind {
    EVENT_ACCOUNT, /* once for all */
    EVENT_TICK,    /* of all processors */
    EVENT_WARM,    /* counting begins */
    EVENT_WAKE,    /* of a vCPU: something comes in */
    EVENT_ASK,     /* of a processor: it was kicked */
    EVENT_SLICE,   /* its slice is over, if turn is still its turn */
    EVENT_DONE,    /* what its vCPU does now is done, likewise */
    EVENT_SWITCHED
};

enum sim_phase { PHASE_ASLEEP, PHASE_BOOT, PHASE_PATH, PHASE_WORK };

struct sim_vm {
    struct rbc_vcpu v;
    uint32_t line, domain; /* its own domain, of all copies */
    enum sim_phase phase;
    int64_t left; /* processor time to the end of the phase; of hogs INT64_MAX */
    int64_t woke; /* not measured yet; -1: measured */
    int64_t next; /* when the next job comes */
    int64_t used;
    uint32_t last;               /* processor */
    uint64_t moves0, preempted0; /* when counting began */
    int64_t due[SIM_BACKLOG];    /* releases of the jobs that wait, the first is under way */
    uint32_t due_first, due_n;
    struct sim_random random;
};

struct sim_cpu {
    struct rbc_cpu c;
    struct sim_vm *run, *old; /* old: not saved yet */
    bool switching, asked;
    int64_t began; /* the present phase or switch */
    uint32_t turn;
    bool awake; /* ticks come */
};

struct sim_world {
    const struct sim_scenario *sc;
    struct rbc rbc;
    struct sim_cpu *cpus;
    struct rbc_domain *domains;
    size_t domains_n;
    struct sim_vm *vms;
    struct sim_events events;
    int64_t now;
    bool counting;
    int rc; /* of what callbacks cannot return */
    struct sim_result *r;
};

int sim_samples_add(struct sim_samples *s, int64_t ns);
/* The run is over: w->r is completed. */
void sim_collect(struct sim_world *w);

/* ---- behave.c: what guests want */

/* First events of all vCPUs. */
int sim_behave_begin(struct sim_world *w);
/* Something comes in for it. */
int sim_behave_wake(struct sim_world *w, struct sim_vm *vm);
/* Its phase is done. True: it goes on with another; false: it sleeps. */
bool sim_behave_done(struct sim_world *w, struct sim_vm *vm);
/* It executes again after a wake: the latency is known. */
void sim_behave_runs(struct sim_world *w, struct sim_vm *vm);

#endif
