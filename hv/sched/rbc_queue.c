/* Queues, and who belongs where. */
#include "rbc_private.h"

static void refresh(struct rbc *s, const struct rbc_cpu *c)
{
    bool online = rbc_mask_has(&s->online, c->id);

    rbc_mask_put(&s->rt_free, c->id, online && c->rt == 0);
    rbc_mask_put(&s->rt_none, c->id, online && c->rt_homes == 0);
    rbc_mask_put(&s->rt_many, c->id, c->rt >= 2);
}

void rbc_uncount(struct rbc *s, const struct rbc_vcpu *v)
{
    struct rbc_cpu *c = s->cpus[rbc_place(v)];

    if (!v->rt)
        return;
    c->rt_homes--;
    c->rt -= rbc_runnable(v);
    refresh(s, c);
}

void rbc_count(struct rbc *s, const struct rbc_vcpu *v)
{
    struct rbc_cpu *c = s->cpus[rbc_place(v)];

    if (!v->rt)
        return;
    c->rt_homes++;
    c->rt += rbc_runnable(v);
    refresh(s, c);
}

void rbc_set_state(struct rbc *s, struct rbc_vcpu *v, enum rbc_state state)
{
    rbc_uncount(s, v);
    v->state = (uint8_t)state;
    rbc_count(s, v);
}

static void queue_add(struct rbc *s, struct rbc_cpu *c, struct rbc_vcpu *v, struct rbc_link *at)
{
    v->in = v->cls;
    rbc_list_add(&v->queue_link, at);
    c->queued++;
    rbc_mask_set(&s->queued[v->in], c->id);
}

static void queue_del(struct rbc *s, struct rbc_cpu *c, struct rbc_vcpu *v)
{
    rbc_list_del(&v->queue_link);
    c->queued--;
    if (rbc_list_empty(&c->queue[v->in]))
        rbc_mask_clear(&s->queued[v->in], c->id);
}

void rbc_enqueue(struct rbc *s, struct rbc_vcpu *v)
{
    struct rbc_cpu *c = s->cpus[v->cpu];

    rbc_set_state(s, v, RBC_QUEUED);
    queue_add(s, c, v, c->queue[v->cls].prev);
}

void rbc_enqueue_first(struct rbc *s, struct rbc_vcpu *v)
{
    struct rbc_cpu *c = s->cpus[v->cpu];

    rbc_set_state(s, v, RBC_QUEUED);
    queue_add(s, c, v, &c->queue[v->cls]);
}

void rbc_dequeue(struct rbc *s, struct rbc_vcpu *v, enum rbc_state state)
{
    RBC_ASSERT(v->state == RBC_QUEUED);
    queue_del(s, s->cpus[v->cpu], v);
    rbc_set_state(s, v, state);
}

void rbc_reclass(struct rbc *s, struct rbc_vcpu *v, enum rbc_class cls)
{
    struct rbc_cpu *c = s->cpus[v->cpu];

    v->cls = (uint8_t)cls;
    if (v->state == RBC_QUEUED && v->in != v->cls) {
        queue_del(s, c, v);
        queue_add(s, c, v, c->queue[v->cls].prev);
    }
}

/* Those of one queue that became worse: they go before all that were worse already. */
static void sort_down(struct rbc *s, struct rbc_cpu *c, enum rbc_class from)
{
    struct rbc_link *head = &c->queue[from], *at, *before;

    for (at = head->prev; at != head; at = before) {
        struct rbc_vcpu *v = RBC_QUEUED_VCPU(at);
        before = at->prev;
        if (v->cls > from) {
            queue_del(s, c, v);
            queue_add(s, c, v, &c->queue[v->cls]);
        }
    }
}

/* And better: behind all that were better already. */
static void sort_up(struct rbc *s, struct rbc_cpu *c, enum rbc_class from)
{
    struct rbc_link *head = &c->queue[from], *at, *next;

    for (at = head->next; at != head; at = next) {
        struct rbc_vcpu *v = RBC_QUEUED_VCPU(at);
        next = at->next;
        if (v->cls < from) {
            queue_del(s, c, v);
            queue_add(s, c, v, c->queue[v->cls].prev);
        }
    }
}

void rbc_sort(struct rbc *s, struct rbc_cpu *c)
{
    sort_up(s, c, RBC_OVER); /* first, while OVER holds only those that were in it */
    sort_down(s, c, RBC_UNDER);
    sort_down(s, c, RBC_BOOST);
}

void rbc_move(struct rbc *s, struct rbc_vcpu *v, uint32_t to)
{
    uint32_t from = v->cpu;
    bool queued = v->state == RBC_QUEUED;

    RBC_ASSERT(v->state != RBC_RUNNING && !v->unsaved);
    if (queued)
        queue_del(s, s->cpus[from], v);
    rbc_uncount(s, v);
    v->cpu = to;
    v->dest = RBC_NONE;
    rbc_count(s, v);
    if (queued)
        queue_add(s, s->cpus[to], v, s->cpus[to]->queue[v->cls].prev);
    if (from == to)
        return;
    v->counts.moves++;
    s->counts.moves++;
    if (s->ops.moved != NULL)
        s->ops.moved(s->arg, v, from, to);
}

void rbc_kick(struct rbc *s, uint32_t cpu)
{
    struct rbc_cpu *c = s->cpus[cpu];

    rbc_mask_clear(&s->idle, cpu);
    if (c->kicked)
        return;
    c->kicked = true;
    s->ops.kick(s->arg, cpu);
}
