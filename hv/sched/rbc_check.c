/* What must hold between any two calls. */
#include "rbc_private.h"

static const char *check_queue(const struct rbc *s, const struct rbc_cpu *c, uint32_t *queued)
{
    for (unsigned cls = 0; cls < RBC_CLASSES; cls++) {
        const struct rbc_link *head = &c->queue[cls];
        if (rbc_list_empty(head) == rbc_mask_has(&s->queued[cls], c->id))
            return "a set of processors does not tell which queues are empty";
        for (const struct rbc_link *at = head->next; at != head; at = at->next) {
            const struct rbc_vcpu *v = RBC_QUEUED_VCPU(at);
            if (at->next->prev != at || at->prev->next != at)
                return "a queue is torn";
            if (v->state != RBC_QUEUED || v->cpu != c->id || v == c->cur)
                return "a vCPU is in a queue where it should not be";
            if (v->in != cls || v->cls != cls)
                return "a vCPU is in the queue of another class";
            ++*queued;
        }
    }
    return NULL;
}

static const char *check_cpu(const struct rbc *s, const struct rbc_cpu *c, uint32_t *queued)
{
    uint32_t before = *queued;
    const char *why = check_queue(s, c, queued);

    if (why != NULL)
        return why;
    if (*queued - before != c->queued)
        return "a queue's length is wrong";
    if (c->cur != NULL && (c->cur->state != RBC_RUNNING || c->cur->cpu != c->id))
        return "a processor's current vCPU does not run there";
    if (rbc_mask_has(&s->idle, c->id) && (c->cur != NULL || c->queued != 0))
        return "a processor is idle with a vCPU";
    if (rbc_mask_has(&s->rt_free, c->id) != (c->rt == 0) ||
        rbc_mask_has(&s->rt_none, c->id) != (c->rt_homes == 0) ||
        rbc_mask_has(&s->rt_many, c->id) != (c->rt >= 2))
        return "a set does not tell where real-time vCPUs are";
    return NULL;
}

static const char *check_class(const struct rbc *s, const struct rbc_vcpu *v)
{
    if (v->rt != (v->domain->rt && s->set.policy != RBC_CREDIT))
        return "a vCPU is not what its domain is marked as";
    if (v->rt != (v->cls == RBC_RT))
        return "a vCPU's class is wrong";
    if (v->rt && (v->active || v->credit != 0 || v->parked))
        return "a real-time vCPU has credit";
    return NULL;
}

static const char *check_vcpu(const struct rbc *s, const struct rbc_vcpu *v)
{
    struct rbc_mask may = rbc_mask_and(&v->affinity, &s->online);

    if (v->cpu >= RBC_CPUS_MAX || s->cpus[v->cpu] == NULL)
        return "a vCPU is at no processor";
    if (rbc_list_empty(&v->queue_link) != (v->state != RBC_QUEUED))
        return "a vCPU is lost, or in a queue without being queued";
    if ((v->state == RBC_RUNNING) != (s->cpus[v->cpu]->cur == v))
        return "a vCPU runs on no processor, or on one without running";
    if (v->dest != RBC_NONE && v->state != RBC_RUNNING && v->state != RBC_LEAVING)
        return "a vCPU is on its way without leaving";
    if (v->state == RBC_LEAVING && (v->dest == RBC_NONE || !v->unsaved))
        return "a vCPU leaves for nowhere, or has left";
    if (v->state == RBC_PARKED && !v->parked)
        return "a vCPU is kept back without a reason";
    if (v->state != RBC_BLOCKED && v->state != RBC_PARKED && !rbc_mask_has(&may, rbc_place(v)))
        return "a vCPU is where its affinity forbids";
    if (v->active != !rbc_list_empty(&v->active_link))
        return "an active vCPU is not among the active";
    return check_class(s, v);
}

/* Against what the vCPUs say. */
struct totals {
    uint32_t queued;
    uint64_t weight;
    int64_t credit;
};

static const char *check_domain(const struct rbc *s, const struct rbc_domain *d, struct totals *t)
{
    uint32_t active = 0;
    const char *why;

    for (const struct rbc_link *at = d->vcpus.next; at != &d->vcpus; at = at->next) {
        const struct rbc_vcpu *v = RBC_OF(at, struct rbc_vcpu, domain_link);
        if ((why = check_vcpu(s, v)) != NULL)
            return why;
        active += v->active;
        t->queued += v->state == RBC_QUEUED;
        t->credit += v->credit;
    }
    t->weight += (uint64_t)active * d->weight;
    if (active != d->active_n || (active == 0) != rbc_list_empty(&d->active_link))
        return "a domain's active vCPUs are miscounted";
    return NULL;
}

/* Counts anew how many real-time vCPUs belong to the processor. */
static const char *check_rt(const struct rbc *s, const struct rbc_cpu *c)
{
    uint32_t rt = 0, homes = 0;

    for (const struct rbc_link *d = s->domains.next; d != &s->domains; d = d->next) {
        const struct rbc_link *head = &RBC_OF(d, struct rbc_domain, link)->vcpus;
        for (const struct rbc_link *at = head->next; at != head; at = at->next) {
            const struct rbc_vcpu *v = RBC_OF(at, struct rbc_vcpu, domain_link);
            bool here = v->rt && rbc_place(v) == c->id;
            homes += here;
            rt += here && rbc_runnable(v);
        }
    }
    return rt == c->rt && homes == c->rt_homes ? NULL : "real-time vCPUs are miscounted";
}

const char *rbc_check(const struct rbc *s)
{
    struct totals t = {0};
    uint32_t queued = 0, cpus = 0;
    const char *why;

    for (uint32_t id = 0; id < RBC_CPUS_MAX; id++) {
        const struct rbc_cpu *c = s->cpus[id];
        if ((c != NULL) != rbc_mask_has(&s->online, id))
            return "a processor is there without being there";
        if (c == NULL)
            continue;
        cpus++;
        if ((why = check_cpu(s, c, &queued)) != NULL || (why = check_rt(s, c)) != NULL)
            return why;
    }
    for (const struct rbc_link *d = s->domains.next; d != &s->domains; d = d->next)
        if ((why = check_domain(s, RBC_OF(d, struct rbc_domain, link), &t)) != NULL)
            return why;
    if (cpus != s->cpus_n)
        return "processors are miscounted";
    if (queued != t.queued)
        return "a queue holds a vCPU of no domain";
    if (t.weight != s->weight)
        return "the weight of the active vCPUs is miscounted";
    if (t.credit != s->ledger.granted - s->ledger.spent + s->ledger.raised - s->ledger.halved -
                        s->ledger.dropped)
        return "credit came from nowhere, or went there";
    return NULL;
}
