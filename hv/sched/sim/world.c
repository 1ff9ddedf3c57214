/* Processors, events, and the scheduler between them. */
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct sim_vm *vm_of(struct rbc_vcpu *v)
{
    return v != NULL ? v->owner : NULL;
}

static int later(struct sim_world *w, int64_t in, enum sim_event_kind kind, uint32_t id,
                 uint32_t turn)
{
    return sim_events_add(&w->events, w->now + in, kind, id, turn);
}

static void kick(void *arg, uint32_t cpu)
{
    struct sim_world *w = arg;
    int rc = later(w, w->sc->kick_ns, EVENT_ASK, cpu, 0);

    if (rc != 0 && w->rc == 0)
        w->rc = rc;
}

/* ---- time in guests */

static int strip(struct sim_world *w, const struct sim_cpu *p, int64_t from, int64_t to)
{
    struct sim_result *r = w->r;
    int64_t first = w->sc->gantt_from, last = first + w->sc->gantt_for;

    if (to <= first || from >= last || from >= to || r->strips_n == SIM_STRIPS_MAX)
        return 0;
    if ((r->strips_n & (r->strips_n - 1)) == 0) { /* doubles */
        size_t room = r->strips_n ? 2 * r->strips_n : 1;
        struct sim_strip *strips = reallocarray(r->strips, room, sizeof(*strips));
        if (strips == NULL)
            return -ENOMEM;
        r->strips = strips;
    }
    r->strips[r->strips_n++] = (struct sim_strip){.cpu = (uint32_t)(p - w->cpus),
                                                  .vcpu = (uint32_t)(p->run - w->vms),
                                                  .line = p->run->line,
                                                  .from = from > first ? from : first,
                                                  .to = to < last ? to : last};
    return 0;
}

/* What the processor did since it began counts. */
static int settle(struct sim_world *w, struct sim_cpu *p)
{
    int64_t from = p->began, ran = w->now - from;

    p->began = w->now;
    if (p->switching) {
        if (w->counting)
            w->r->switching += ran;
        return 0;
    }
    if (p->run == NULL)
        return 0;
    if (p->run->left != INT64_MAX)
        p->run->left -= ran;
    if (w->counting) {
        p->run->used += ran;
        w->r->busy += ran;
    }
    return strip(w, p, from, w->now);
}

/* It executes its vCPU until the phase is done. */
static int execute(struct sim_world *w, struct sim_cpu *p)
{
    p->began = w->now;
    if (p->run == NULL)
        return 0;
    sim_behave_runs(w, p->run);
    if (p->run->left == INT64_MAX)
        return w->rc;
    int rc = later(w, p->run->left, EVENT_DONE, (uint32_t)(p - w->cpus), p->turn);
    return rc ? rc : w->rc;
}

/* ---- decisions */

static int decide(struct sim_world *w, struct sim_cpu *p, bool runnable)
{
    uint32_t id = (uint32_t)(p - w->cpus);
    int rc = settle(w, p);
    struct rbc_next next = rbc_schedule(&w->rbc, id, runnable, false, w->now);
    struct sim_vm *vm = vm_of(next.v);

    p->turn++;
    if (rc == 0 && next.slice_ns >= 0)
        rc = later(w, next.slice_ns, EVENT_SLICE, id, p->turn);
    if (rc != 0)
        return rc;
    if (vm == p->run)
        return execute(w, p);
    p->old = p->run;
    p->run = vm;
    p->switching = true;
    int64_t cost = w->sc->switch_ns;
    if (vm != NULL && vm->last != RBC_NONE && vm->last != id)
        cost += w->sc->migrate_ns;
    if (w->counting)
        w->r->switches++;
    return later(w, cost, EVENT_SWITCHED, id, p->turn);
}

static int switched(struct sim_world *w, struct sim_cpu *p)
{
    struct sim_vm *old = p->old;
    int rc = settle(w, p);

    p->switching = false;
    p->old = NULL;
    if (p->run != NULL)
        p->run->last = (uint32_t)(p - w->cpus);
    if (rc == 0)
        rc = execute(w, p);
    if (old != NULL)
        rbc_saved(&w->rbc, &old->v, w->now);
    if (rc == 0 && p->asked) {
        p->asked = false;
        rc = decide(w, p, true);
    }
    return rc ? rc : w->rc;
}

static int ask(struct sim_world *w, struct sim_cpu *p)
{
    p->asked = p->switching;
    return p->switching ? 0 : decide(w, p, true);
}

static int done(struct sim_world *w, struct sim_cpu *p)
{
    int rc = settle(w, p);

    if (rc != 0)
        return rc;
    if (sim_behave_done(w, p->run))
        return execute(w, p);
    return decide(w, p, false);
}

static void begin_counting(struct sim_world *w)
{
    for (uint32_t n = 0; n < w->sc->processors; n++)
        settle(w, &w->cpus[n]);
    for (uint32_t n = 0; n < w->sc->vcpus; n++) {
        w->vms[n].moves0 = w->vms[n].v.counts.moves;
        w->vms[n].preempted0 = w->vms[n].v.counts.preempted;
    }
    w->counting = true;
    memset(&w->r->counts, 0, sizeof(w->r->counts));
    w->r->counts = w->rbc.counts;
}

static int handle(struct sim_world *w, const struct sim_event *e)
{
    struct sim_cpu *p = &w->cpus[e->id];

    switch ((enum sim_event_kind)e->kind) {
    case EVENT_ACCOUNT:
        rbc_account(&w->rbc, w->now);
        return later(w, w->sc->set.period_ns, EVENT_ACCOUNT, 0, 0);
    case EVENT_TICK:
        for (uint32_t n = 0; n < w->sc->processors; n++)
            rbc_tick(&w->rbc, n, w->now);
        return later(w, w->sc->set.tick_ns, EVENT_TICK, 0, 0);
    case EVENT_WARM:
        begin_counting(w);
        return 0;
    case EVENT_WAKE:
        return sim_behave_wake(w, &w->vms[e->id]);
    case EVENT_ASK:
        return ask(w, p);
    case EVENT_SLICE:
        return e->turn == p->turn ? ask(w, p) : 0;
    case EVENT_DONE:
        return e->turn == p->turn && !p->switching ? done(w, p) : 0;
    case EVENT_SWITCHED:
        return switched(w, p);
    }
    return -EINVAL;
}

/* ---- a run */

static int make(struct sim_world *w, enum rbc_policy policy, uint64_t seed)
{
    static const struct rbc_ops ops = {.kick = kick};
    const struct sim_scenario *sc = w->sc;
    struct rbc_settings set = sc->set;
    uint32_t vm = 0;
    size_t domain = 0;

    set.policy = policy;
    rbc_init(&w->rbc, &set, &ops, w);
    for (uint32_t n = 0; n < sc->processors; n++)
        rbc_cpu_add(&w->rbc, &w->cpus[n].c, n, 0);
    for (uint32_t line = 0; line < sc->domains_n; line++)
        for (uint32_t copy = 0; copy < sc->domains[line].copies; copy++, domain++) {
            const struct sim_domain *d = &sc->domains[line];
            rbc_domain_add(&w->rbc, &w->domains[domain]);
            rbc_domain_share(&w->rbc, &w->domains[domain], d->weight, d->cap);
            rbc_domain_rt(&w->rbc, &w->domains[domain], d->rt, 0);
            for (uint32_t n = 0; n < d->vcpus; n++, vm++) {
                struct sim_vm *new = &w->vms[vm];
                new->line = line;
                new->domain = (uint32_t)domain;
                new->last = RBC_NONE;
                new->random.state = seed * 0x2545f4914f6cdd1du + vm * 0xd1342543de82ef95u;
                uint32_t near = (uint32_t)sim_random_below(&new->random, sc->processors);
                int rc = rbc_vcpu_add(&w->rbc, &w->domains[domain], &new->v, &d->affinity, near, 0);
                if (rc != 0)
                    return rc;
                new->v.owner = new;
            }
        }
    return sim_behave_begin(w);
}

static size_t domains_of(const struct sim_scenario *sc)
{
    size_t n = 0;

    for (size_t line = 0; line < sc->domains_n; line++)
        n += sc->domains[line].copies;
    return n;
}

static int run(struct sim_world *w)
{
    int rc = later(w, w->sc->warmup, EVENT_WARM, 0, 0);

    if (rc == 0)
        rc = later(w, w->sc->set.period_ns, EVENT_ACCOUNT, 0, 0);
    if (rc == 0)
        rc = later(w, w->sc->set.tick_ns, EVENT_TICK, 0, 0);
    for (uint64_t n = 0; rc == 0; n++) {
        struct sim_event e = sim_events_take(&w->events);
        if (e.at >= w->sc->time)
            break;
        w->now = e.at;
        rc = n < SIM_EVENTS_MAX ? handle(w, &e) : -E2BIG;
        w->r->events = n;
    }
    w->now = w->sc->time;
    for (uint32_t n = 0; rc == 0 && n < w->sc->processors; n++)
        rc = settle(w, &w->cpus[n]);
    return rc;
}

int sim_run(const struct sim_scenario *sc, enum rbc_policy policy, uint64_t seed,
            struct sim_result **out)
{
    struct sim_world *w = calloc(1, sizeof(*w));
    int rc = -ENOMEM;

    *out = NULL;
    if (w == NULL)
        return rc;
    w->sc = sc;
    w->domains_n = domains_of(sc);
    w->cpus = calloc(sc->processors, sizeof(*w->cpus));
    w->domains = calloc(w->domains_n, sizeof(*w->domains));
    w->vms = calloc(sc->vcpus, sizeof(*w->vms));
    w->r = calloc(1, sizeof(*w->r));
    if (w->cpus == NULL || w->domains == NULL || w->vms == NULL || w->r == NULL)
        goto out;
    w->r->groups_n = sc->domains_n;
    w->r->groups = calloc(sc->domains_n, sizeof(*w->r->groups));
    if (w->r->groups == NULL)
        goto out;
    rc = make(w, policy, seed);
    if (rc == 0)
        rc = run(w);
    if (rc == 0) {
        sim_collect(w);
        *out = w->r;
        w->r = NULL;
    }
out:
    sim_result_free(w->r);
    sim_events_free(&w->events);
    free(w->vms);
    free(w->domains);
    free(w->cpus);
    free(w);
    return rc;
}
