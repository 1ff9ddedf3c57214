/*
 * Where data goes and where it is read: pure functions over what the centre knows of its nodes.
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

/* There are usable nodes, but none has room. */
bool placement_full(const struct placement_node *nodes, size_t n);

/* Reports come once a second. Until the next one a node counts as having so much more staged for
 * each file that was given to it: else all that is made within a second goes to one node. A guess:
 * most files are smaller, and those that are larger show in the report. */
#define PLACEMENT_FILE_BYTES (1u << 20)

struct placement_copy {
    uint32_t id;
    bool usable, local;
    bool avoid;      /* it failed the asker just now */
    uint64_t cached; /* bytes of the newest version; 0: none */
    double load;     /* work waiting per core, and readers sent there since it was reported */
};

/* The node to read a file at whose newest data is in the pool: of those that hold nearly as much as
 * the one that holds most (all of it, as a rule), a local one, else the least loaded, else the one
 * with more of it, else the lower id. If nobody holds any, the same among all: it fetches. One to
 * be avoided is taken only if there is no other. 0: no node is usable. */
uint32_t placement_read(const struct placement_copy *copies, size_t n);

/* A reader adds so much to a node's load until the next report; so does this rate of transfer, in
 * bytes per second, which is about what keeps one core at work with TLS. */
#define PLACEMENT_READER_LOAD 0.25
#define PLACEMENT_RATE_LOAD   (512.0 * (1 << 20))

#endif
