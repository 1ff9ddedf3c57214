/* What a run says. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

int sim_samples_add(struct sim_samples *s, int64_t ns)
{
    if (s->n == s->room) {
        size_t room = s->room ? 2 * s->room : 64;
        int64_t *all = room <= SIM_SAMPLES_MAX ? reallocarray(s->ns, room, sizeof(*all)) : NULL;
        if (all == NULL)
            return room <= SIM_SAMPLES_MAX ? -ENOMEM : -E2BIG;
        s->ns = all;
        s->room = room;
    }
    s->ns[s->n++] = ns;
    return 0;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void sort(struct sim_samples *s)
{
    if (s->n > 1)
        qsort(s->ns, s->n, sizeof(*s->ns), compare);
}

static int append(struct sim_samples *to, const struct sim_samples *from)
{
    int rc = 0;

    for (size_t n = 0; n < from->n && rc == 0; n++)
        rc = sim_samples_add(to, from->ns[n]);
    return rc;
}

int64_t sim_mean(const struct sim_samples *s)
{
    __int128 sum = 0;

    for (size_t n = 0; n < s->n; n++)
        sum += s->ns[n];
    return s->n ? (int64_t)(sum / (__int128)s->n) : 0;
}

int64_t sim_quantile(const struct sim_samples *s, uint32_t per_mille)
{
    size_t rank = (s->n * per_mille + 999) / 1000; /* of n, from 1 */

    return s->n ? s->ns[rank ? rank - 1 : 0] : 0;
}

/* ---- fairness */

struct due {
    double weight, most, got, is; /* is: what it should have got; < 0: not settled yet */
};

/* Shares all by weight, none more than it can use. */
static void fill(struct due *d, size_t n, double all)
{
    bool full = true;

    while (full) {
        double weight = 0;
        full = false;
        for (size_t k = 0; k < n; k++)
            weight += d[k].is < 0 ? d[k].weight : 0;
        double left = all;
        for (size_t k = 0; k < n; k++)
            left -= d[k].is < 0 ? 0 : d[k].is;
        for (size_t k = 0; k < n; k++)
            if (d[k].is < 0 && left * d[k].weight / weight >= d[k].most) {
                d[k].is = d[k].most;
                full = true;
            }
        for (size_t k = 0; k < n && !full; k++)
            if (d[k].is < 0)
                d[k].is = left * d[k].weight / weight;
    }
}

/* Among domains of hogs that may run everywhere; others say nothing about weights. */
static double weight_error(const struct sim_world *w)
{
    const struct sim_scenario *sc = w->sc;
    struct due *due = calloc(w->domains_n, sizeof(*due));
    double all = 0, worst = 0, counted = (double)(sc->time - sc->warmup);

    if (due == NULL)
        return NAN;
    for (size_t n = 0; n < w->domains_n; n++)
        due[n].is = -1;
    for (uint32_t n = 0; n < sc->vcpus; n++) {
        const struct sim_vm *vm = &w->vms[n];
        const struct sim_domain *d = &sc->domains[vm->line];
        struct due *its = &due[vm->domain];
        bool everywhere = true;
        for (uint32_t cpu = 0; cpu < sc->processors; cpu++)
            everywhere = everywhere && rbc_mask_has(&d->affinity, cpu);
        if (d->kind != SIM_HOG || d->boot > 0 || d->rt || !everywhere)
            continue;
        its->weight += d->weight;
        its->most += counted;
        if (d->cap != 0)
            its->most = fmin(d->vcpus * counted, d->cap * counted / 100);
        its->got += (double)vm->used;
        all += (double)vm->used;
    }
    size_t kept = 0;
    for (size_t n = 0; n < w->domains_n; n++)
        if (due[n].weight > 0)
            due[kept++] = due[n];
    fill(due, kept, all);
    for (size_t n = 0; n < kept; n++)
        if (due[n].is > 0)
            worst = fmax(worst, fabs(due[n].got - due[n].is) / due[n].is);
    free(due);
    return worst;
}

/* ---- one run, several */

void sim_collect(struct sim_world *w)
{
    struct sim_result *r = w->r;
    const struct sim_scenario *sc = w->sc;

    for (uint32_t n = 0; n < sc->vcpus; n++) {
        const struct sim_vm *vm = &w->vms[n];
        struct sim_group *g = &r->groups[vm->line];
        g->used += vm->used;
        g->moves += vm->v.counts.moves - vm->moves0;
        g->preempted += vm->v.counts.preempted - vm->preempted0;
        *(sc->domains[vm->line].rt ? &r->rt_used : &r->ordinary_used) += vm->used;
    }
    for (size_t n = 0; n < r->groups_n; n++) {
        r->moves += r->groups[n].moves;
        sort(&r->groups[n].latency);
    }
    sort(&r->rt);
    const uint64_t before = r->counts.rt_met, moved = r->counts.rt_moves;
    r->counts = w->rbc.counts;
    r->counts.rt_met -= before;
    r->counts.rt_moves -= moved;
    r->counted = sc->time - sc->warmup;
    r->processors = sc->processors;
    r->weight_error = weight_error(w);
    r->runs = 1;
}

static int merge(struct sim_result *to, const struct sim_result *from)
{
    int rc = append(&to->rt, &from->rt);

    for (size_t n = 0; n < to->groups_n && rc == 0; n++) {
        struct sim_group *a = &to->groups[n];
        const struct sim_group *b = &from->groups[n];
        rc = append(&a->latency, &b->latency);
        a->used += b->used;
        a->jobs += b->jobs;
        a->misses += b->misses;
        a->lost += b->lost;
        a->moves += b->moves;
        a->preempted += b->preempted;
    }
    to->counted += from->counted;
    to->busy += from->busy;
    to->switching += from->switching;
    to->rt_used += from->rt_used;
    to->ordinary_used += from->ordinary_used;
    to->rt_jobs += from->rt_jobs;
    to->rt_misses += from->rt_misses;
    to->switches += from->switches;
    to->moves += from->moves;
    to->events += from->events;
    to->counts.rt_met += from->counts.rt_met;
    to->counts.rt_moves += from->counts.rt_moves;
    to->weight_error = fmax(to->weight_error, from->weight_error);
    to->runs += from->runs;
    return rc;
}

int sim_runs(const struct sim_scenario *sc, enum rbc_policy policy, uint64_t seed, uint32_t runs,
             struct sim_result **out)
{
    struct sim_result *all, *one;
    int rc = sim_run(sc, policy, seed, &all);

    for (uint32_t n = 1; n < runs && rc == 0; n++) {
        rc = sim_run(sc, policy, seed + n, &one);
        if (rc == 0)
            rc = merge(all, one);
        sim_result_free(one);
    }
    if (rc != 0) {
        sim_result_free(all);
        *out = NULL;
        return rc;
    }
    sort(&all->rt);
    for (size_t n = 0; n < all->groups_n; n++)
        sort(&all->groups[n].latency);
    *out = all;
    return 0;
}

void sim_result_free(struct sim_result *r)
{
    if (r == NULL)
        return;
    for (size_t n = 0; n < r->groups_n && r->groups != NULL; n++)
        free(r->groups[n].latency.ns);
    free(r->groups);
    free(r->rt.ns);
    free(r->strips);
    free(r);
}
