/* What the centre asks of the node. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include <utlist.h>

#include "control/wire/log.h"
#include "nodecache/link_private.h"
#include "nodecache/meta.h"
#include "nodecache/move.h"

/* Attempts to evict what a read or a cut holds, 10 ms apart. */
#define EVICT_TRIES 200

void push_answer(struct push *p, int status, const ProtobufCMessage *body)
{
    if (p->m.kind == FRAME_REQUEST)
        link_answer(p->link, &p->m, status, body);
}

void push_refuse(struct push *p, int status, const char *detail)
{
    Star__ErrorReply e = STAR__ERROR_REPLY__INIT;

    e.detail = (char *)(detail ? detail : "");
    push_answer(p, status, &e.base);
}

/* ---- quick ones ---- */

static void do_getattr(struct push *p, const Star__Inode *m)
{
    struct link *l = p->link;
    struct wire_attrs wire;
    struct attrs attrs;
    int rc = store_getattr(l->store, m->ino, &attrs);

    if (rc < 0) {
        push_refuse(p, rc, "not known here: what the log says is right");
        return;
    }
    put_attrs(&wire, &attrs, store_node(l->store));
    push_answer(p, 0, &wire.attrs.base);
}

static void do_setattr(struct push *p, const Star__HomeSetAttr *m)
{
    struct link *l = p->link;
    struct setattr set = {.set_size = m->set_size,
                          .size = m->size,
                          .set_mtime = m->set_mtime,
                          .mtime = get_time(m->mtime),
                          .now = get_time(m->now)};
    struct wire_attrs wire;
    struct attrs attrs;
    struct ticket t;
    int rc = get_ticket(m->ticket, &t);

    if (rc == 0) {
        t.rights |= RIGHT_WRITE; /* it comes from the centre itself */
        rc = store_setattr(l->store, &t, &set, &attrs);
    }
    if (rc < 0) {
        push_refuse(p, rc, "the home cannot set attributes");
        return;
    }
    put_attrs(&wire, &attrs, store_node(l->store));
    push_answer(p, 0, &wire.attrs.base);
}

static void do_drop(struct push *p, const Star__Drop *m)
{
    int rc = 0;

    for (size_t i = 0; i < m->n_ino; i++) {
        int one = store_drop(p->link->store, m->ino[i], m->deleted);
        rc = rc == 0 ? one : rc;
    }
    if (rc < 0)
        push_refuse(p, rc, "drop");
    else
        push_answer(p, 0, NULL);
}

static void do_logged(struct push *p, const Star__NodeAttrs *m)
{
    for (size_t i = 0; i < m->n_attrs; i++)
        store_logged(p->link->store, m->attrs[i]->ino, m->attrs[i]->version);
    push_answer(p, 0, NULL);
}

/* ---- long ones ---- */

static void answer_flush(struct push *p, int rc, struct flush_result *r)
{
    Star__FlushReply m = STAR__FLUSH_REPLY__INIT;

    /* What was moved stands in the cache table when the answer comes, so that nobody is sent to
     * where it was. */
    int told = link_send_lines(p->link);
    if (rc == 0 && told < 0) {
        rc = told;
        snprintf(r->detail, sizeof(r->detail), "the cache table could not be told: %s",
                 strerror(-told));
    }
    if (rc < 0 && r->failed == 0)
        r->failed = 1;
    m.files = r->files;
    m.bytes = r->bytes;
    m.failed = r->failed;
    m.detail = r->detail;
    /* A failure is told in the reply: how much, and why. */
    push_answer(p, 0, &m.base);
}

static void do_flush(struct push *p, const Star__FlushRequest *m)
{
    struct flush_result r;

    if (!m->all && m->n_ino == 0) {
        push_refuse(p, -EINVAL, "flush of nothing");
        return;
    }
    int rc = flush_wait(p->link->flush, m->ino, m->all ? 0 : m->n_ino, LINK_FLUSH_MS, &r);
    answer_flush(p, rc, &r);
}

static int evict_one(struct link *l, uint64_t ino, uint64_t *bytes)
{
    int rc = -EBUSY;

    for (int i = 0; rc == -EBUSY && i < EVICT_TRIES; i++) {
        rc = store_evict(l->store, ino, bytes);
        if (rc == -EBUSY)
            nanosleep(&(struct timespec){.tv_nsec = 10 * 1000000L}, NULL);
    }
    return rc;
}

/* Everything clean. What is in use at last stays. */
static int evict_all(struct link *l, uint64_t *bytes)
{
    struct store_counts before, now;
    int rc = 0;

    store_counts(l->store, &before);
    now = before;
    for (int i = 0; rc == 0 && now.cached > 0 && i < EVICT_TRIES; i++) {
        if (i > 0)
            nanosleep(&(struct timespec){.tv_nsec = 10 * 1000000L}, NULL);
        rc = store_evict(l->store, 0, bytes);
        store_counts(l->store, &now);
    }
    *bytes = before.cached > now.cached ? before.cached - now.cached : 0;
    return rc;
}

static void do_evict(struct push *p, const Star__FlushRequest *m)
{
    struct link *l = p->link;
    struct flush_result r;
    int rc = flush_wait(l->flush, m->ino, m->all ? 0 : m->n_ino, LINK_FLUSH_MS, &r);

    r.bytes = r.files = 0;
    if (rc == 0 && m->all)
        rc = evict_all(l, &r.bytes);
    for (size_t i = 0; rc == 0 && !m->all && i < m->n_ino; i++) {
        rc = evict_one(l, m->ino[i], &r.bytes);
        r.files += rc == 0;
        if (rc < 0)
            snprintf(r.detail, sizeof(r.detail), "inode %" PRIu64 " is in use", m->ino[i]);
    }
    answer_flush(p, rc, &r);
}

static void do_warm(struct push *p, const Star__FlushRequest *m)
{
    struct flush_result r = {0};
    int rc = 0;

    for (size_t i = 0; i < m->n_ino; i++) {
        int one = store_warm(p->link->store, m->ino[i], &r.bytes, r.detail);
        r.files += one == 0;
        r.failed += one < 0;
    }
    answer_flush(p, rc, &r);
}

static void do_drain(struct push *p)
{
    struct link *l = p->link;
    struct flush_result first, last;
    uint64_t bytes = 0;
    /* Most of it while writers go on, the rest after the door is closed. */
    int rc = flush_wait(l->flush, NULL, 0, LINK_FLUSH_MS, &first);

    if (rc == 0) {
        store_set_closed(l->store, true);
        rc = flush_wait(l->flush, NULL, 0, LINK_FLUSH_MS, &last);
        first.files += last.files;
        first.bytes += last.bytes;
        first.failed = last.failed;
        memcpy(first.detail, last.detail, sizeof(first.detail));
    }
    if (rc == 0)
        rc = evict_all(l, &bytes);
    if (rc < 0)
        store_set_closed(l->store, false);
    answer_flush(p, rc, &first);
}

/* After a drain, so nothing is here that the pool has not. */
static void do_leave(struct push *p)
{
    struct store_counts c;

    store_counts(p->link->store, &c);
    if (c.staged > 0) {
        push_refuse(p, -EBUSY, "something is staged here: drain first");
        return;
    }
    store_set_closed(p->link->store, true);
    push_answer(p, 0, NULL);
    link_ends(p->link, LINK_LEAVES);
}

static void do_delete_packs(struct push *p, const Star__PackRefs *m)
{
    struct link *l = p->link;
    Star__PackRefs done = STAR__PACK_REFS__INIT;
    char detail[POOL_DETAIL] = "";
    int rc = 0;

    done.pack = calloc(m->n_pack + 1, sizeof(uint64_t));
    if (!done.pack) {
        push_refuse(p, -ENOMEM, "deleting packs");
        return;
    }
    for (size_t i = 0; i < m->n_pack; i++) {
        int one = pack_remove(l->pool, m->pack[i], detail);
        if (one == 0)
            done.pack[done.n_pack++] = m->pack[i];
        else
            rc = one;
    }
    if (done.n_pack > 0) {
        int told =
            link_call(l, STAR__MSG_TYPE__DELETED_PACKS, &done.base, CLIENT_RESEND, NULL, NULL);
        rc = told < 0 ? told : rc;
    }
    free(done.pack);
    if (rc < 0)
        push_refuse(p, rc, detail);
    else
        push_answer(p, 0, NULL);
}

bool link_stops(void *arg)
{
    struct link *l = arg;

    pthread_mutex_lock(&l->lock);
    bool stop = l->stop;
    pthread_mutex_unlock(&l->lock);
    return stop;
}

static void do_move(struct push *p, const Star__MoveRecords *m)
{
    struct link *l = p->link;
    Star__MoveReply reply = STAR__MOVE_REPLY__INIT;
    struct move_result r;
    int rc = move_records(l->pool, link_calls(), l, l->flush, m, NULL, link_stops, l, &r);

    for (size_t i = 0; i < m->n_keys; i++)
        if (m->keys[i]->key.len > 0)
            explicit_bzero(m->keys[i]->key.data, m->keys[i]->key.len);

    reply.records = r.records;
    reply.bytes = r.bytes;
    reply.packs = r.packs;
    reply.failed = r.failed;
    reply.detail = r.detail;
    reply.failed_pack = r.failed_packs;
    reply.n_failed_pack = r.failed_packs_n;
    if (rc < 0)
        push_refuse(p, rc, r.detail);
    else
        push_answer(p, 0, &reply.base);
    free(r.failed_packs);
}

static void do_meta(struct push *p, const Star__WriteMeta *m)
{
    struct link *l = p->link;
    char detail[NODE_DETAIL];
    int rc = meta_write(l->pool, link_calls(), l, l->flush, m, detail);

    if (rc < 0)
        push_refuse(p, rc, detail);
    else
        push_answer(p, 0, NULL);
}

static void do_put_keys(struct push *p, const Star__PutKeys *m)
{
    char detail[POOL_DETAIL] = "";
    int rc = pool_keys_put(p->link->pool, m->serial, m->wrapped.data, m->wrapped.len, detail);

    if (rc < 0)
        push_refuse(p, rc, detail);
    else
        push_answer(p, 0, NULL);
}

/* ---- dispatch ---- */

struct kind {
    uint16_t type;
    bool is_long;
    const ProtobufCMessageDescriptor *body;
};

static const struct kind *kind_of(uint16_t type)
{
    static const struct kind kinds[] = {
        {STAR__MSG_TYPE__HOME_GETATTR, false, &star__inode__descriptor},
        {STAR__MSG_TYPE__HOME_SETATTR, false, &star__home_set_attr__descriptor},
        {STAR__MSG_TYPE__DROP, false, &star__drop__descriptor},
        {STAR__MSG_TYPE__ATTRS_LOGGED, false, &star__node_attrs__descriptor},
        {STAR__MSG_TYPE__FLUSH, true, &star__flush_request__descriptor},
        {STAR__MSG_TYPE__EVICT, true, &star__flush_request__descriptor},
        {STAR__MSG_TYPE__WARM, true, &star__flush_request__descriptor},
        {STAR__MSG_TYPE__DELETE_PACKS, true, &star__pack_refs__descriptor},
        {STAR__MSG_TYPE__MOVE_RECORDS, true, &star__move_records__descriptor},
        {STAR__MSG_TYPE__WRITE_META, true, &star__write_meta__descriptor},
        {STAR__MSG_TYPE__SCRUB, true, &star__scrub__descriptor},
        {STAR__MSG_TYPE__SCRUB_PACKS, true, &star__scrub_packs__descriptor},
        {STAR__MSG_TYPE__HEAL_RECORDS, true, &star__heal_records__descriptor},
        {STAR__MSG_TYPE__PUT_KEYS, true, &star__put_keys__descriptor},
        {STAR__MSG_TYPE__DRAIN, true, &star__empty__descriptor},
        {STAR__MSG_TYPE__LEAVE, false, &star__empty__descriptor},
        {STAR__MSG_TYPE__JOB_START, false, &star__job_start__descriptor},
        {STAR__MSG_TYPE__JOB_SIGNAL, false, &star__job_signal__descriptor},
    };

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i].type == type)
            return &kinds[i];
    }
    return NULL;
}

static void push_do(struct push *p)
{
    const struct kind *kind = kind_of(p->m.type);
    ProtobufCMessage *m = frame_unpack(&p->m, kind->body);

    if (!m) {
        push_refuse(p, -EPROTO, "the message cannot be read");
        return;
    }
    switch (p->m.type) {
    case STAR__MSG_TYPE__HOME_GETATTR:
        do_getattr(p, (Star__Inode *)m);
        break;
    case STAR__MSG_TYPE__HOME_SETATTR:
        do_setattr(p, (Star__HomeSetAttr *)m);
        break;
    case STAR__MSG_TYPE__DROP:
        do_drop(p, (Star__Drop *)m);
        break;
    case STAR__MSG_TYPE__ATTRS_LOGGED:
        do_logged(p, (Star__NodeAttrs *)m);
        break;
    case STAR__MSG_TYPE__FLUSH:
        do_flush(p, (Star__FlushRequest *)m);
        break;
    case STAR__MSG_TYPE__EVICT:
        do_evict(p, (Star__FlushRequest *)m);
        break;
    case STAR__MSG_TYPE__WARM:
        do_warm(p, (Star__FlushRequest *)m);
        break;
    case STAR__MSG_TYPE__DELETE_PACKS:
        do_delete_packs(p, (Star__PackRefs *)m);
        break;
    case STAR__MSG_TYPE__WRITE_META:
        do_meta(p, (Star__WriteMeta *)m);
        break;
    case STAR__MSG_TYPE__PUT_KEYS:
        do_put_keys(p, (Star__PutKeys *)m);
        break;
    case STAR__MSG_TYPE__MOVE_RECORDS:
        do_move(p, (Star__MoveRecords *)m);
        break;
    case STAR__MSG_TYPE__SCRUB:
        push_scrub(p, (Star__Scrub *)m);
        break;
    case STAR__MSG_TYPE__SCRUB_PACKS:
        push_scrub_packs(p, (Star__ScrubPacks *)m);
        break;
    case STAR__MSG_TYPE__HEAL_RECORDS:
        push_heal(p, (Star__HealRecords *)m);
        break;
    case STAR__MSG_TYPE__JOB_START:
        push_job_start(p, (Star__JobStart *)m);
        break;
    case STAR__MSG_TYPE__JOB_SIGNAL:
        push_job_signal(p, (Star__JobSignal *)m);
        break;
    case STAR__MSG_TYPE__LEAVE:
        do_leave(p);
        break;
    default:
        do_drain(p);
    }
    protobuf_c_message_free_unpacked(m, NULL);
}

static void *long_main(void *arg)
{
    struct push *p = arg;
    struct link *l = p->link;

    prctl(PR_SET_NAME, "push");
    push_do(p);
    free(p);
    pthread_mutex_lock(&l->lock);
    l->long_running--;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* l->lock is held. */
static void start_long(struct link *l, struct push *p)
{
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    l->long_running++;
    if (pthread_create(&thread, &attr, long_main, p) != 0) {
        l->long_running--;
        push_refuse(p, -EAGAIN, "no thread for it");
        free(p);
    }
    pthread_attr_destroy(&attr);
}

static struct push *take(struct worker *w)
{
    struct link *l = w->link;
    struct push *p = NULL;

    pthread_mutex_lock(&l->lock);
    while (!l->stop && !w->queue)
        pthread_cond_wait(&w->work, &l->lock);
    if (!l->stop) {
        p = w->queue;
        DL_DELETE(w->queue, p);
        l->queued--;
    }
    pthread_mutex_unlock(&l->lock);
    return p;
}

static void begin_long(struct push *p)
{
    struct link *l = p->link;

    pthread_mutex_lock(&l->lock);
    bool room = l->long_running < LINK_LONG_MAX && !l->stop;
    if (room)
        start_long(l, p);
    pthread_mutex_unlock(&l->lock);
    if (!room) {
        push_refuse(p, -EBUSY, "too many requests of the centre wait");
        free(p);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct push *p;

    prctl(PR_SET_NAME, "push");
    while ((p = take(w))) {
        if (kind_of(p->m.type)->is_long) {
            begin_long(p); /* it came before the store was ready */
        } else {
            push_do(p);
            free(p);
        }
    }
    return NULL;
}

void link_on_push(void *ctx, struct client *c, const struct message *m)
{
    struct link *l = ctx;
    const struct kind *kind = kind_of(m->type);
    struct push *p = kind ? malloc(sizeof(*p) + m->body_len) : NULL;
    int rc = 0;

    if (!p) {
        if (m->kind == FRAME_REQUEST)
            (void)client_reply(c, m, kind ? -ENOMEM : -EOPNOTSUPP, NULL);
        return;
    }
    *p = (struct push){.link = l, .m = *m};
    if (m->body_len > 0)
        memcpy(p->body, m->body, m->body_len);
    p->m.body = p->body;
    p->m.payload = NULL;
    p->m.payload_len = 0;
    pthread_mutex_lock(&l->lock);
    if (l->stop || l->queued >= LINK_QUEUE_MAX ||
        (kind->is_long && l->long_running >= LINK_LONG_MAX)) {
        rc = -EBUSY;
    } else if (kind->is_long && l->ready) {
        start_long(l, p);
    } else {
        struct worker *w = &l->workers[m->id % LINK_WORKERS];
        DL_APPEND(w->queue, p);
        l->queued++;
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&l->lock);
    if (rc < 0) {
        push_refuse(p, rc, "too many requests of the centre wait");
        free(p);
    }
}

int pushes_start(struct link *l)
{
    pthread_mutex_lock(&l->lock);
    l->ready = true;
    pthread_mutex_unlock(&l->lock);
    for (; l->running < LINK_WORKERS; l->running++) {
        struct worker *w = &l->workers[l->running];
        int rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc != 0)
            return -rc;
    }
    return 0;
}

void pushes_stop(struct link *l)
{
    pthread_mutex_lock(&l->lock);
    for (unsigned i = 0; i < LINK_WORKERS; i++)
        pthread_cond_signal(&l->workers[i].work);
    pthread_mutex_unlock(&l->lock);
    while (l->running > 0)
        pthread_join(l->workers[--l->running].thread, NULL);
    pthread_mutex_lock(&l->lock);
    while (l->long_running > 0)
        pthread_cond_wait(&l->changed, &l->lock); /* their calls and waits have ended */
    for (unsigned i = 0; i < LINK_WORKERS; i++) {
        struct push *p, *next;
        DL_FOREACH_SAFE (l->workers[i].queue, p, next) {
            DL_DELETE(l->workers[i].queue, p);
            free(p);
        }
    }
    pthread_mutex_unlock(&l->lock);
}
