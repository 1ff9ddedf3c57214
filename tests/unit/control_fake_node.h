/* A node without a store: it answers the centre from a small table of attributes. */
#ifndef UMBEL_TEST_CONTROL_FAKE_NODE_H
#define UMBEL_TEST_CONTROL_FAKE_NODE_H

/* What it was asked to start, or to signal (0: to end). */
struct fake_run {
    uint64_t job;
    uint32_t copy, attempt;
    int signal;
};

struct fake_node {
    struct client *client;
    const char *name;
    uint32_t number;
    pthread_mutex_t lock;
    struct {
        uint64_t ino, size, version, epoch;
    } files[FAKE_ITEMS];
    unsigned files_n;
    uint64_t dropped[FAKE_ITEMS]; /* deleted */
    unsigned dropped_n;
    unsigned asked, changed, flushes, drains, leaves;
    atomic_bool stays;   /* refuses to leave */
    atomic_bool deaf;    /* DROPs are lost */
    uint64_t pack_stuck; /* this one cannot be deleted */
    unsigned deletes;
    uint64_t move_to; /* pack of ours to move records into; 0: none can be read */
    unsigned moves;
    atomic_bool silent; /* does not answer what it is asked about attributes */
    atomic_bool refuse; /* answers it -EIO */
    atomic_uint connects;
    atomic_bool away; /* does not connect */
    struct fake_run starts[FAKE_ITEMS], signals[FAKE_ITEMS];
    unsigned starts_n, signals_n;
    atomic_int start_rc, signal_rc; /* how it answers those; 1: not at all */
};

/* What its store has of a file; the caller locks. */
static inline void node_put(struct fake_node *n, uint64_t ino, uint64_t size, uint64_t version,
                            uint64_t epoch)
{
    unsigned k = 0;

    while (k < n->files_n && n->files[k].ino != ino)
        k++;
    if (k < FAKE_ITEMS) {
        n->files[k].ino = ino;
        n->files[k].size = size;
        n->files[k].version = version;
        n->files[k].epoch = epoch;
        n->files_n += k == n->files_n;
    }
}

static inline void node_has(struct fake_node *n, uint64_t ino, uint64_t size, uint64_t version)
{
    pthread_mutex_lock(&n->lock);
    node_put(n, ino, size, version, 1);
    pthread_mutex_unlock(&n->lock);
}

static inline bool node_fill(const struct fake_node *n, uint64_t ino, Star__HomeAttrs *a)
{
    for (unsigned k = 0; k < n->files_n; k++) {
        if (n->files[k].ino != ino)
            continue;
        a->ino = ino;
        a->size = n->files[k].size;
        a->version = n->files[k].version;
        a->home_epoch = n->files[k].epoch;
        a->node = n->number;
        return true;
    }
    return false;
}

static inline int node_on_connect(void *ctx, struct client *client)
{
    Star__Hello hello = STAR__HELLO__INIT;
    Star__NodeAttrs attrs = STAR__NODE_ATTRS__INIT;
    Star__HomeAttrs one[FAKE_ITEMS], *list[FAKE_ITEMS];
    Star__HelloReply *r = NULL;
    struct fake_node *n = ctx;
    char store[64];

    if (atomic_load(&n->away))
        return -EAGAIN;
    snprintf(store, sizeof(store), "store of %s", n->name);
    hello.protocol = PROTOCOL_VERSION;
    hello.role = STAR__ROLE__NODE;
    hello.name = (char *)n->name;
    hello.cloud = CLOUD_ID;
    hello.address = "unix:/nowhere";
    hello.capacity = 1ull << 30;
    hello.store = store;
    hello.fresh = atomic_load(&n->connects) == 0;
    int rc = client_handshake(client, T(HELLO), &hello.base, FAKE_MS,
                              &star__hello_reply__descriptor, (ProtobufCMessage **)&r, NULL);
    if (rc < 0)
        return rc;
    n->number = r->node;
    star__hello_reply__free_unpacked(r, NULL);
    pthread_mutex_lock(&n->lock);
    for (unsigned k = 0; k < n->files_n; k++) {
        star__home_attrs__init(&one[k]);
        node_fill(n, n->files[k].ino, &one[k]);
        list[k] = &one[k];
    }
    attrs.n_attrs = n->files_n;
    pthread_mutex_unlock(&n->lock);
    attrs.attrs = list;
    attrs.done = true;
    rc = client_handshake(client, T(NODE_ATTRS), &attrs.base, FAKE_MS, NULL, NULL, NULL);
    atomic_fetch_add(&n->connects, rc == 0);
    return rc;
}

static inline void node_setattr(struct fake_node *n, const struct message *m)
{
    Star__HomeSetAttr *q = (Star__HomeSetAttr *)frame_unpack(m, &star__home_set_attr__descriptor);

    if (!q)
        return;
    n->changed++;
    const Star__Ticket *t = q->ticket;
    Star__HomeAttrs a = STAR__HOME_ATTRS__INIT;
    uint64_t size = t->size, version = t->version;
    if (node_fill(n, t->ino, &a)) {
        size = a.size;
        version = a.version > version ? a.version : version;
    }
    node_put(n, t->ino, q->set_size ? q->size : size, version + 1, t->home_epoch);
    star__home_set_attr__free_unpacked(q, NULL);
}

static inline uint64_t ino_of(const struct message *m)
{
    Star__HomeSetAttr *set;
    Star__Inode *ino;
    uint64_t found = 0;

    if (m->type == T(HOME_SETATTR)) {
        set = (Star__HomeSetAttr *)frame_unpack(m, &star__home_set_attr__descriptor);
        found = set && set->ticket ? set->ticket->ino : 0;
        if (set)
            star__home_set_attr__free_unpacked(set, NULL);
    } else {
        ino = (Star__Inode *)frame_unpack(m, &star__inode__descriptor);
        found = ino ? ino->ino : 0;
        if (ino)
            star__inode__free_unpacked(ino, NULL);
    }
    return found;
}

static inline void node_attrs(struct fake_node *n, struct client *client, const struct message *m)
{
    Star__HomeAttrs a = STAR__HOME_ATTRS__INIT;

    n->asked += m->type == T(HOME_GETATTR);
    if (atomic_load(&n->silent))
        return;
    if (atomic_load(&n->refuse)) {
        client_reply(client, m, -EIO, NULL);
        return;
    }
    if (m->type == T(HOME_SETATTR))
        node_setattr(n, m);
    if (node_fill(n, ino_of(m), &a))
        client_reply(client, m, 0, &a.base);
    else
        client_reply(client, m, -ENOENT, NULL);
}

static inline void node_drop(struct fake_node *n, const struct message *m)
{
    Star__Drop *q = (Star__Drop *)frame_unpack(m, &star__drop__descriptor);

    for (size_t k = 0; q && q->deleted && k < q->n_ino && n->dropped_n < FAKE_ITEMS; k++)
        n->dropped[n->dropped_n++] = q->ino[k];
    if (q)
        star__drop__free_unpacked(q, NULL);
}

static inline void ignore_answer(void *arg, const struct message *reply)
{
    (void)arg, (void)reply;
}

/* The centre takes what one connection says in order, so the answer comes behind the list. */
static inline void node_delete(struct fake_node *n, struct client *client, const struct message *m)
{
    Star__PackRefs *q = (Star__PackRefs *)frame_unpack(m, &star__pack_refs__descriptor);
    Star__PackRefs done = STAR__PACK_REFS__INIT;
    uint64_t list[FAKE_ITEMS];
    bool stuck = false;

    done.pack = list;
    for (size_t k = 0; q && k < q->n_pack && done.n_pack < FAKE_ITEMS; k++) {
        stuck |= q->pack[k] == n->pack_stuck;
        if (q->pack[k] != n->pack_stuck)
            list[done.n_pack++] = q->pack[k];
    }
    n->deletes++;
    client_call(client, T(DELETED_PACKS), &done.base, NULL, 0, FAKE_MS, 0, ignore_answer, NULL,
                NULL);
    nap(100); /* until the log has it */
    client_reply(client, m, stuck ? -EIO : 0, NULL);
    if (q)
        star__pack_refs__free_unpacked(q, NULL);
}

/* All records of a request go into one pack, which is used up. */
static inline void node_move(struct fake_node *n, struct client *client, const struct message *m)
{
    Star__MoveRecords *q = (Star__MoveRecords *)frame_unpack(m, &star__move_records__descriptor);
    Star__Moved moved = STAR__MOVED__INIT;
    Star__ConfirmPack pack = STAR__CONFIRM_PACK__INIT, *packs = &pack;
    Star__MovedRecord record[FAKE_ITEMS], *list[FAKE_ITEMS];
    Star__MoveReply reply = STAR__MOVE_REPLY__INIT;

    n->moves++;
    pack.pack = n->move_to;
    pack.size = 2000; /* for one small record */
    moved.n_packs = 1;
    moved.packs = &packs;
    moved.records = list;
    for (size_t k = 0; q && k < q->n_records && k < FAKE_ITEMS; k++) {
        star__moved_record__init(&record[k]);
        list[k] = &record[k];
        record[k].record = q->records[k]->record;
        record[k].from_pack = q->records[k]->pack;
        record[k].from_number = q->records[k]->number;
        record[k].pack = n->move_to;
        record[k].number = (uint32_t)k;
        record[k].pack_offset = 1000 * k;
        moved.n_records++;
        reply.bytes += q->records[k]->length;
    }
    reply.records = moved.n_records;
    if (n->move_to == 0 && q && q->n_records > 0) {
        reply.failed = reply.records;
        reply.records = reply.bytes = 0;
        reply.n_failed_pack = 1;
        reply.failed_pack = &q->records[0]->pack;
        reply.detail = (char *)"it is damaged";
    } else {
        client_call(client, T(MOVED), &moved.base, NULL, 0, FAKE_MS, 0, ignore_answer, NULL, NULL);
        nap(100); /* until the log has it */
        n->move_to = 0;
    }
    client_reply(client, m, 0, &reply.base);
    if (q)
        star__move_records__free_unpacked(q, NULL);
}

static inline void node_note_run(struct fake_run *list, unsigned *count, const Star__JobRun *run,
                                 int signal)
{
    if (run && *count < FAKE_ITEMS)
        list[(*count)++] = (struct fake_run){run->job, run->copy, run->attempt, signal};
}

static inline void node_job(struct fake_node *n, struct client *client, const struct message *m)
{
    int rc = atomic_load(m->type == T(JOB_START) ? &n->start_rc : &n->signal_rc);

    if (m->type == T(JOB_START)) {
        Star__JobStart *q = (Star__JobStart *)frame_unpack(m, &star__job_start__descriptor);
        node_note_run(n->starts, &n->starts_n, q ? q->run : NULL, 0);
        if (q)
            star__job_start__free_unpacked(q, NULL);
    } else {
        Star__JobSignal *q = (Star__JobSignal *)frame_unpack(m, &star__job_signal__descriptor);
        node_note_run(n->signals, &n->signals_n, q ? q->run : NULL, q ? q->signal : 0);
        if (q)
            star__job_signal__free_unpacked(q, NULL);
    }
    if (rc <= 0)
        client_reply(client, m, rc, NULL);
}

static inline void node_on_push(void *ctx, struct client *client, const struct message *m)
{
    Star__FlushReply flushed = STAR__FLUSH_REPLY__INIT;
    struct fake_node *n = ctx;

    pthread_mutex_lock(&n->lock);
    switch (m->type) {
    case T(HOME_GETATTR):
    case T(HOME_SETATTR):
        node_attrs(n, client, m);
        break;
    case T(DROP):
        if (atomic_load(&n->deaf))
            break;
        node_drop(n, m);
        client_reply(client, m, 0, NULL);
        break;
    case T(DELETE_PACKS):
        node_delete(n, client, m);
        break;
    case T(MOVE_RECORDS):
        node_move(n, client, m);
        break;
    case T(FLUSH):
    case T(DRAIN):
        n->flushes += m->type == T(FLUSH);
        n->drains += m->type == T(DRAIN);
        flushed.files = 3;
        flushed.bytes = 4096;
        client_reply(client, m, 0, &flushed.base);
        break;
    case T(JOB_START):
    case T(JOB_SIGNAL):
        node_job(n, client, m);
        break;
    case T(LEAVE):
        n->leaves++;
        client_reply(client, m, atomic_load(&n->stays) ? -EBUSY : 0, NULL);
        break;
    default:
        if (m->kind == FRAME_REQUEST)
            client_reply(client, m, -EOPNOTSUPP, NULL);
    }
    pthread_mutex_unlock(&n->lock);
}

/* With the files that n names already. */
static inline void node_start_with(struct fake_node *n, const struct cloud *c, const char *name)
{
    static const struct client_ops ops = {.on_connect = node_on_connect, .on_push = node_on_push};

    n->name = name;
    pthread_mutex_init(&n->lock, NULL);
    cr_assert_eq(client_start(c->address, name, &ops, n, &n->client), 0);
    eventually(atomic_load(&n->connects) == 1);
}

static inline void node_start(struct fake_node *n, const struct cloud *c, const char *name)
{
    memset(n, 0, sizeof(*n));
    node_start_with(n, c, name);
}

static inline void node_stop(struct fake_node *n)
{
    client_stop(n->client);
    pthread_mutex_destroy(&n->lock);
}

static inline bool node_dropped(struct fake_node *n, uint64_t ino)
{
    bool found = false;

    pthread_mutex_lock(&n->lock);
    for (unsigned k = 0; k < n->dropped_n; k++)
        found |= n->dropped[k] == ino;
    pthread_mutex_unlock(&n->lock);
    return found;
}

static inline unsigned node_count(struct fake_node *n, const unsigned *counter)
{
    pthread_mutex_lock(&n->lock);
    unsigned value = *counter;
    pthread_mutex_unlock(&n->lock);
    return value;
}

#endif
