/* Results as a table and as JSON. */
#include <inttypes.h>

#include "sim.h"

static const char *const kinds[] = {
    [SIM_HOG] = "hog", [SIM_PERIODIC] = "periodic", [SIM_IO] = "io", [SIM_BURST] = "burst"};

static double us(int64_t ns)
{
    return (double)ns / 1e3;
}

static double share(int64_t part, const struct sim_result *r)
{
    return 100.0 * (double)part / ((double)r->counted * r->processors);
}

static void print_group(FILE *f, const struct sim_domain *d, const struct sim_group *g,
                        const struct sim_result *r)
{
    fprintf(f, "  %-12s %-8s %-2s %7.2f%%", d->name, kinds[d->kind], d->rt ? "rt" : "",
            share(g->used, r));
    if (g->latency.n > 0)
        fprintf(f, " %10zu %10.1f %10.1f %10.1f", g->latency.n, us(sim_mean(&g->latency)),
                us(sim_quantile(&g->latency, 990)), us(sim_quantile(&g->latency, 1000)));
    else
        fprintf(f, " %10s %10s %10s %10s", "-", "-", "-", "-");
    if (d->kind == SIM_PERIODIC)
        fprintf(f, " %8" PRIu64 "/%-8" PRIu64, g->misses, g->jobs);
    else
        fprintf(f, " %8s %-8s", "-", "");
    fprintf(f, " %9" PRIu64 " %9" PRIu64 "\n", g->moves, g->preempted);
}

void sim_print(FILE *f, const struct sim_scenario *sc, const struct sim_shown *shown, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        const struct sim_result *r = shown[k].result;
        fprintf(f, "%s: %u processors, %u run%s of %.3g s\n", sim_policy_name(shown[k].policy),
                r->processors, r->runs, r->runs == 1 ? "" : "s",
                (double)r->counted / r->runs / 1e9);
        fprintf(f, "  %-12s %-8s %-2s %8s %10s %10s %10s %10s %17s %9s %9s\n", "domain", "does", "",
                "used", "wakes", "mean us", "p99 us", "max us", "missed/jobs", "moves",
                "preempted");
        for (size_t g = 0; g < r->groups_n; g++)
            print_group(f, &sc->domains[g], &r->groups[g], r);
        fprintf(f,
                "  in guests %.2f%%, in switches %.2f%%; weight error %.2f%%; real-time vCPUs met "
                "%" PRIu64 " times\n%s",
                share(r->busy, r), share(r->switching, r), 100 * r->weight_error, r->counts.rt_met,
                k + 1 < n ? "\n" : "");
    }
}

static void json_samples(FILE *f, const struct sim_samples *s)
{
    fprintf(f,
            "{\"wakes\": %zu, \"mean_ns\": %" PRId64 ", \"p50_ns\": %" PRId64
            ", \"p99_ns\": %" PRId64 ", \"max_ns\": %" PRId64 "}",
            s->n, sim_mean(s), sim_quantile(s, 500), sim_quantile(s, 990), sim_quantile(s, 1000));
}

static void json_result(FILE *f, const struct sim_scenario *sc, const struct sim_shown *shown)
{
    const struct sim_result *r = shown->result;

    fprintf(f,
            "{\"policy\": \"%s\", \"runs\": %u, \"processors\": %u, \"counted_ns\": %" PRId64
            ", \"guests_ns\": %" PRId64 ", \"switching_ns\": %" PRId64 ", \"rt_ns\": %" PRId64
            ", \"ordinary_ns\": %" PRId64 ", \"rt_jobs\": %" PRIu64 ", \"rt_misses\": %" PRIu64
            ", \"switches\": %" PRIu64 ", \"moves\": %" PRIu64 ", \"rt_met\": %" PRIu64
            ", \"rt_moves\": %" PRIu64 ", \"weight_error\": %.6f, \"events\": %" PRIu64
            ",\n \"rt_latency\": ",
            sim_policy_name(shown->policy), r->runs, r->processors, r->counted, r->busy,
            r->switching, r->rt_used, r->ordinary_used, r->rt_jobs, r->rt_misses, r->switches,
            r->moves, r->counts.rt_met, r->counts.rt_moves, r->weight_error, r->events);
    json_samples(f, &r->rt);
    fputs(",\n \"domains\": [", f);
    for (size_t n = 0; n < r->groups_n; n++) {
        const struct sim_group *g = &r->groups[n];
        fprintf(f,
                "%s\n  {\"name\": \"%s\", \"does\": \"%s\", \"rt\": %s, \"used_ns\": %" PRId64
                ", \"jobs\": %" PRIu64 ", \"misses\": %" PRIu64 ", \"moves\": %" PRIu64
                ", \"latency\": ",
                n ? "," : "", sc->domains[n].name, kinds[sc->domains[n].kind],
                sc->domains[n].rt ? "true" : "false", g->used, g->jobs, g->misses, g->moves);
        json_samples(f, &g->latency);
        fputc('}', f);
    }
    fputs("]}", f);
}

void sim_json(FILE *f, const struct sim_scenario *sc, const struct sim_shown *shown, size_t n)
{
    fputc('[', f);
    for (size_t k = 0; k < n; k++) {
        fputs(k ? ",\n" : "", f);
        json_result(f, sc, &shown[k]);
    }
    fputs("]\n", f);
}
