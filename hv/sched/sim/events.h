/* The simulator's future: a heap of events, by time, then by the order in which they were made. */
#ifndef UMBEL_HV_SCHED_SIM_EVENTS_H
#define UMBEL_HV_SCHED_SIM_EVENTS_H

#include <stddef.h>
#include <stdint.h>

struct sim_event {
    int64_t at;
    uint64_t order;
    uint32_t kind, id, turn;
};

struct sim_events {
    struct sim_event *heap;
    size_t n, room;
    uint64_t made;
};

int sim_events_add(struct sim_events *e, int64_t at, uint32_t kind, uint32_t id, uint32_t turn);
/* The next one; there is one. */
struct sim_event sim_events_take(struct sim_events *e);
void sim_events_free(struct sim_events *e);

#endif
