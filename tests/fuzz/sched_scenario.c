/* Scenarios of the scheduler's simulator: what is taken is within its bounds, what is refused has
 * one printable line that says why. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hv/sched/sim/sim.h"

#define must(what)                                                                                 \
    do {                                                                                           \
        if (!(what))                                                                               \
            abort();                                                                               \
    } while (0)

static void bounded(const struct sim_scenario *sc)
{
    uint64_t vcpus = 0;

    must(sc->processors >= 1 && sc->processors <= RBC_CPUS_MAX);
    must(sc->time > 0 && sc->time <= SIM_TIME_MAX && sc->warmup < sc->time);
    must(sc->domains_n >= 1 && sc->domains_n <= SIM_LINES_MAX);
    for (size_t n = 0; n < sc->domains_n; n++) {
        const struct sim_domain *d = &sc->domains[n];
        must(d->weight >= 1 && d->weight <= RBC_WEIGHT_MAX && d->cap <= RBC_CAP_MAX);
        must(d->name[0] != '\0' && memchr(d->name, '\0', sizeof(d->name)) != NULL);
        must(d->kind == SIM_HOG || (d->every >= SIM_LEAST && d->work >= 1));
        vcpus += (uint64_t)d->copies * d->vcpus;
    }
    must(vcpus == sc->vcpus && vcpus <= SIM_VCPUS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[SIM_WHY];
    struct sim_scenario sc;

    if (size == 0)
        return 0;
    int rc = sim_parse((const char *)data, size, &sc, why);
    if (rc == 0)
        bounded(&sc);
    else
        must(memchr(why, '\0', sizeof(why)) != NULL && why[0] != '\0');
    for (const char *ch = why; rc != 0 && *ch; ch++)
        must(*ch >= ' ' && *ch <= '~');
    sim_scenario_free(&sc);
    return 0;
}
