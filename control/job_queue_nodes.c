#include <errno.h>
#include <stdlib.h>

#include "control/job_queue_private.h"

struct job_place_node *jq_node(const struct job_queue *q, uint32_t id)
{
    struct slot *s;

    HASH_FIND(hh, q->slots, &id, sizeof(id), s);
    return s ? &q->nodes[s->at] : NULL;
}

struct job_place_node *jq_want_node(struct job_queue *q, uint32_t id)
{
    struct job_place_node *node = jq_node(q, id);

    if (node)
        return node;
    if (q->nodes_n == q->nodes_size) {
        size_t size = q->nodes_size ? 2 * q->nodes_size : 8;
        struct job_place_node *nodes = reallocarray(q->nodes, size, sizeof(*nodes));
        if (!nodes)
            return NULL;
        q->nodes = nodes;
        uint32_t *gained = reallocarray(q->gained, size, sizeof(*gained));
        if (!gained)
            return NULL;
        q->gained = gained;
        q->nodes_size = size;
    }
    struct slot *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->id = id;
    s->at = q->nodes_n++;
    HASH_ADD(hh, q->slots, id, sizeof(s->id), s);
    q->nodes[s->at] = (struct job_place_node){.id = id};
    return &q->nodes[s->at];
}

static void drop_node(struct job_queue *q, uint32_t id)
{
    struct slot *s, *moved;

    HASH_FIND(hh, q->slots, &id, sizeof(id), s);
    size_t last = --q->nodes_n;
    if (s->at != last) {
        q->nodes[s->at] = q->nodes[last];
        HASH_FIND(hh, q->slots, &q->nodes[last].id, sizeof(id), moved);
        moved->at = s->at;
    }
    for (size_t n = 0; s->gained && n < q->gained_n; n++)
        if (q->gained[n] == id) {
            q->gained[n] = q->gained[--q->gained_n];
            break;
        }
    HASH_DEL(q->slots, s);
    free(s);
}

void jq_gained(struct job_queue *q, uint32_t id)
{
    struct slot *s;

    HASH_FIND(hh, q->slots, &id, sizeof(id), s);
    if (s->gained)
        return;
    s->gained = true;
    q->gained[q->gained_n++] = id;
}

void jq_gained_none(struct job_queue *q)
{
    struct slot *s;

    for (size_t n = 0; n < q->gained_n; n++) {
        HASH_FIND(hh, q->slots, &q->gained[n], sizeof(q->gained[n]), s);
        s->gained = false;
    }
    q->gained_n = 0;
}

int job_queue_node(struct job_queue *q, const struct job_place_node *known)
{
    if (known->id == 0)
        return -EINVAL;
    struct job_place_node *node = jq_want_node(q, known->id);
    if (!node)
        return -ENOMEM;
    struct job_place_node before = *node;
    *node = *known;
    node->barred = false;
    node->kept = before.kept;
    q->sizes_changed |= node->milli_cpus != before.milli_cpus;
    node->runs = before.runs;
    node->milli_reserved = before.milli_reserved;
    node->memory_reserved = before.memory_reserved;
    if (!before.open || before.runs_max != node->runs_max ||
        job_place_free_milli(node) > job_place_free_milli(&before) ||
        job_place_free_memory(node) > job_place_free_memory(&before))
        jq_gained(q, node->id);
    return 0;
}

void job_queue_node_gone(struct job_queue *q, uint32_t id)
{
    struct job_place_node *node = jq_node(q, id);

    if (!node)
        return;
    q->sizes_changed |= node->milli_cpus != 0;
    node->open = false;
    node->milli_cpus = 0;
    node->memory = 0;
    if (node->runs == 0)
        drop_node(q, id);
}

const struct job_place_node *job_queue_node_now(const struct job_queue *q, uint32_t id)
{
    return jq_node(q, id);
}

void jq_reserve(struct job_place_node *node, struct run *run)
{
    node->runs++;
    node->milli_reserved += run->need.milli_cpus;
    node->memory_reserved += run->need.memory;
    run->node = node->id;
}

void jq_release(struct job_queue *q, struct run *run)
{
    struct job_place_node *node = jq_node(q, run->node);

    node->runs--;
    node->milli_reserved -= run->need.milli_cpus;
    node->memory_reserved -= run->need.memory;
    jq_gained(q, node->id);
    if (node->runs == 0 && node->milli_cpus == 0)
        drop_node(q, node->id);
}

void jq_free_nodes(struct job_queue *q)
{
    struct slot *slot, *next;

    HASH_ITER (hh, q->slots, slot, next) {
        HASH_DEL(q->slots, slot);
        free(slot);
    }
    free(q->nodes);
    free(q->gained);
}
