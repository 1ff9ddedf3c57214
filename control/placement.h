/*
 * Where data goes: pure functions over what the centre knows of its nodes.
 */
#ifndef UMBEL_CONTROL_PLACEMENT_H
#define UMBEL_CONTROL_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct placement_node {
    uint32_t id;
    bool usable; /* connected, ready, its store answers */
    bool local;  /* on the asker's machine */
    uint64_t capacity, staged;
    double load; /* work waiting per core */
};

/* The home for a new or newly written file: a local node that has room, else the node with the best
 * score, (room for staging) / (1 + load); ties go to the lower id. 0: no node is usable. A node has
 * room while less than PLACEMENT_STAGED_MAX percent of it is staged; if none has, the least full
 * one is taken: it pushes back by itself. */
#define PLACEMENT_STAGED_MAX 95
uint32_t placement_home(const struct placement_node *nodes, size_t n);

#endif
