/* What guests do. */
#include <errno.h>

#include "world.h"

static const struct sim_domain *line_of(const struct sim_world *w, const struct sim_vm *vm)
{
    return &w->sc->domains[vm->line];
}

static void fail(struct sim_world *w, int rc)
{
    if (rc != 0 && w->rc == 0)
        w->rc = rc;
}

static void add(struct sim_world *w, const struct sim_vm *vm, int64_t at)
{
    fail(w, sim_events_add(&w->events, at, EVENT_WAKE, (uint32_t)(vm - w->vms), 0));
}

/* Its behaviour begins now. */
static void begin(struct sim_world *w, struct sim_vm *vm)
{
    const struct sim_domain *d = line_of(w, vm);

    switch (d->kind) {
    case SIM_HOG:
        return;
    case SIM_PERIODIC:
        vm->next =
            w->now + (d->offset >= 0 ? d->offset
                                     : (int64_t)sim_random_below(&vm->random, (uint64_t)d->every));
        break;
    default:
        vm->next = w->now + sim_random_exponential(&vm->random, d->every);
    }
    add(w, vm, vm->next);
}

int sim_behave_begin(struct sim_world *w)
{
    for (uint32_t n = 0; n < w->sc->vcpus; n++) {
        struct sim_vm *vm = &w->vms[n];
        const struct sim_domain *d = line_of(w, vm);
        vm->woke = -1;
        if (d->boot > 0) {
            vm->phase = PHASE_BOOT;
            vm->left = d->boot;
        } else if (d->kind == SIM_HOG) {
            vm->phase = PHASE_WORK;
            vm->left = INT64_MAX;
        } else {
            begin(w, vm);
            continue;
        }
        rbc_wake(&w->rbc, &vm->v, w->now);
    }
    return w->rc;
}

static int64_t work_of(struct sim_world *w, struct sim_vm *vm)
{
    const struct sim_domain *d = line_of(w, vm);

    return d->kind != SIM_BURST ? d->work : sim_random_exponential(&vm->random, d->work) + 1;
}

/* A job is too late, or lost. */
static void missed(struct sim_world *w, const struct sim_vm *vm)
{
    if (!w->counting || line_of(w, vm)->kind != SIM_PERIODIC)
        return;
    w->r->groups[vm->line].misses++;
    if (line_of(w, vm)->rt)
        w->r->rt_misses++;
}

static void counted(struct sim_world *w, const struct sim_vm *vm)
{
    if (!w->counting)
        return;
    w->r->groups[vm->line].jobs++;
    if (line_of(w, vm)->rt)
        w->r->rt_jobs++;
}

int sim_behave_wake(struct sim_world *w, struct sim_vm *vm)
{
    const struct sim_domain *d = line_of(w, vm);

    if (vm->due_n == SIM_BACKLOG) {
        if (w->counting)
            w->r->groups[vm->line].lost++;
        counted(w, vm);
        missed(w, vm);
    } else {
        vm->due[(vm->due_first + vm->due_n++) % SIM_BACKLOG] = w->now;
    }
    if (d->kind == SIM_PERIODIC || d->kind == SIM_IO) {
        vm->next =
            w->now + (d->kind == SIM_PERIODIC ? d->every
                                              : sim_random_exponential(&vm->random, d->every) + 1);
        add(w, vm, vm->next);
    }
    if (vm->phase != PHASE_ASLEEP)
        return w->rc;
    vm->phase = w->sc->path_ns > 0 ? PHASE_PATH : PHASE_WORK;
    vm->left = w->sc->path_ns > 0 ? w->sc->path_ns : work_of(w, vm);
    vm->woke = w->now;
    rbc_wake(&w->rbc, &vm->v, w->now);
    return w->rc;
}

void sim_behave_runs(struct sim_world *w, struct sim_vm *vm)
{
    if (vm->woke < 0 || vm->phase == PHASE_PATH)
        return;
    if (w->counting) {
        fail(w, sim_samples_add(&w->r->groups[vm->line].latency, w->now - vm->woke));
        if (line_of(w, vm)->rt)
            fail(w, sim_samples_add(&w->r->rt, w->now - vm->woke));
    }
    vm->woke = -1;
}

/* The job that is under way is done. */
static void job_done(struct sim_world *w, struct sim_vm *vm)
{
    int64_t due = vm->due[vm->due_first];

    vm->due_first = (vm->due_first + 1) % SIM_BACKLOG;
    vm->due_n--;
    counted(w, vm);
    if (w->now - due > line_of(w, vm)->deadline)
        missed(w, vm);
}

bool sim_behave_done(struct sim_world *w, struct sim_vm *vm)
{
    const struct sim_domain *d = line_of(w, vm);

    switch (vm->phase) {
    case PHASE_PATH:
        vm->phase = PHASE_WORK;
        vm->left = work_of(w, vm);
        sim_behave_runs(w, vm);
        return true;
    case PHASE_BOOT:
        if (d->kind == SIM_HOG) {
            vm->phase = PHASE_WORK;
            vm->left = INT64_MAX;
            return true;
        }
        begin(w, vm);
        break;
    default:
        job_done(w, vm);
        if (vm->due_n > 0) {
            vm->left = work_of(w, vm);
            return true;
        }
        if (d->kind == SIM_BURST)
            add(w, vm, w->now + sim_random_exponential(&vm->random, d->every) + 1);
    }
    vm->phase = PHASE_ASLEEP;
    return false;
}
