/* What place_sim.c (the simulation) and place_svg.c (its picture) share. */
#ifndef UMBEL_TESTS_BENCH_PLACE_SIM_H
#define UMBEL_TESTS_BENCH_PLACE_SIM_H

#include <stddef.h>
#include <stdint.h>

enum rule { RULE_UMBEL, RULE_RANDOM, RULE_ROUND_ROBIN, RULE_FIRST_FIT, RULES };
extern const char *const rule_names[RULES];

struct outcome {
    double load; /* offered, as asked for */
    enum rule rule;
    double used;                    /* of what is scarcer, while jobs arrive; 1: all of it */
    double waited, waited_99, most; /* seconds from arrival to start */
    double moved;                   /* bytes */
    double turnaround;              /* mean seconds from arrival to end */
};

#define LOADS_MAX 16

/* Draws outcomes[load][rule]; -errno. */
int place_svg(const char *path, const struct outcome (*outcomes)[RULES], size_t loads,
              const char *title);

#endif
