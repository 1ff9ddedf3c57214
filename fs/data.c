#include "fs/data.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/job_run.h"
#include "control/wire/stamp.h"
#include "fs/centre.h"
#include "fs/leases.h"
#include "fs/straight_read.h"
#include "fs/straight_write.h"
#include "fs/waits.h"

/* The first attempts follow at once, the next ones give a connection the time to be made. */
#define QUICK_ATTEMPTS 2
#define SOON_ATTEMPTS  20
#define SOON_MS        5
/* A ticket that the node refuses although it is new will not get better. */
#define TICKET_ATTEMPTS 40
/* Somebody else may be at the file just then. */
#define STRAIGHT_TRIES_MAX 3

_Static_assert(DATA_DEADLINE_MS <= JOB_STUCK_MS && METADATA_DEADLINE_MS <= JOB_STUCK_MS,
               "jobs run again when the calls of those that were killed have ended");

struct place {
    char address[256];
    bool direct;
    uint32_t node;
    bool copy; /* others can serve it too */
    struct ticket ticket;
};

struct ticket_box {
    Star__Ticket ticket;
    Star__Time mtime;
};

static void attempt(struct kreq *q);
static bool only_reads(const struct kreq *q);

/* t must live as long as the box. */
static void fill_ticket(struct ticket_box *box, uint64_t ino, struct ticket *t)
{
    star__ticket__init(&box->ticket);
    box->mtime = stamp_of(t->mtime);
    box->ticket.ino = ino;
    box->ticket.rights = t->rights;
    box->ticket.home_epoch = t->home_epoch;
    box->ticket.size = t->size;
    box->ticket.version = t->version;
    box->ticket.mtime = &box->mtime;
    box->ticket.mapped = t->mapped;
    box->ticket.node = t->node;
    box->ticket.session = t->session;
    box->ticket.expires = t->expires;
    box->ticket.generation = t->generation;
    box->ticket.mac = (ProtobufCBinaryData){.len = t->mac_len, .data = t->mac};
}

/* Only under a lease can nobody have written since. */
static bool reads_directly(const struct kreq *q, const struct inode *i)
{
    return !q->through_node && i->lease != STAR__LEASE__LEASE_NONE && i->recalls == 0 &&
           msession_leased(q->w);
}

/* false: the centre must be asked first. */
static bool place_of(struct kreq *q, uint64_t ino, struct place *p)
{
    struct worker *w = q->w;
    struct inode *i = inode_lock(&w->inodes, ino);
    bool known = i && i->located &&
                 (i->direct ? only_reads(q) && ino == q->ino && reads_directly(q, i)
                            : strlen(i->address) < sizeof(p->address) &&
                                  clock_boot_ms() < i->ticket.until_ms);

    p->direct = known && i->direct;
    if (known) {
        strcpy(p->address, p->direct ? "" : i->address);
        p->ticket = i->ticket;
        p->node = i->node;
        p->copy = i->copy;
        if (ino == q->ino)
            q->sent = !q->ended; /* from here on it may be at the node */
    }
    if (i)
        inode_unlock(&w->inodes, i);
    return known;
}

/* The node did not do it. */
static void take_back(struct kreq *q, bool forget_place)
{
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (!i)
        return;
    q->sent = false;
    i->located = i->located && !forget_place;
    inode_unlock(&q->w->inodes, i);
}

static void forget_place(struct worker *w, uint64_t ino)
{
    struct inode *i = inode_lock(&w->inodes, ino);

    if (!i)
        return;
    i->located = false;
    inode_unlock(&w->inodes, i);
}

/* --- trying again --- */

static bool only_reads(const struct kreq *q)
{
    return q->type == STAR__MSG_TYPE__READ || q->type == STAR__MSG_TYPE__SEEK;
}

static bool changes(const struct kreq *q)
{
    return !only_reads(q) && q->type != STAR__MSG_TYPE__FSYNC;
}

static bool worth_retry(const struct kreq *q, int status)
{
    switch (status) {
    case -EHOSTDOWN: /* the node does not reach the pool: nothing was done */
    case -EHOSTUNREACH:
        return only_reads(q);
    case -ESTALE:   /* the ticket is old: nothing was done */
    case -ENOTCONN: /* nothing was sent */
        return true;
    case -ECONNRESET:
        return !changes(q) || !q->append || q->placed;
    case -EKEYEXPIRED: /* a new ticket will do; nothing was done */
    case -EKEYREJECTED:
    case -EACCES:
        return q->attempts < TICKET_ATTEMPTS;
    case -ETIMEDOUT: /* of a change it cannot be told whether it was done, or it came too late */
        return only_reads(q);
    default:
        return false;
    }
}

static void attempt_again(void *arg)
{
    struct kreq *q = arg;

    if (atomic_load(&q->w->stopping))
        kreq_fail_now(q, -ESHUTDOWN, q->done);
    else
        attempt(q);
}

static void retry(struct kreq *q, int status)
{
    int rc = waits_again(q, status);

    q->attempts++;
    if (rc == -EIO)
        log_warning("inode %llu: its data cannot be reached: %s", (unsigned long long)q->ino,
                    strerror(-status));
    if (rc < 0) {
        kreq_fail_now(q, rc, q->done);
        return;
    }
    if (q->attempts <= QUICK_ATTEMPTS) {
        attempt(q);
        return;
    }
    int64_t pause = q->attempts <= SOON_ATTEMPTS                   ? SOON_MS
                    : clock_boot_ms() - q->began_ms < WAIT_LONG_MS ? DATA_RETRY_MS
                                                                   : WAIT_RETRY_MS;
    if (timer_queue_after(q->w->timer, pause, attempt_again, q) < 0)
        kreq_fail_now(q, -ENOMEM, q->done);
}

static void answered(struct kreq *q, const struct message *reply);

/* A write that no node takes. */
static bool goes_straight(struct kreq *q)
{
    int64_t began = q->began_ms, until = q->deadline_ms;

    if (q->type != STAR__MSG_TYPE__WRITE || q->straight_tries == STRAIGHT_TRIES_MAX)
        return false;
    q->straight_tries++;
    waits_end(q);
    if (straight_take_again(q, q->answer))
        return true;
    waits_begin(q);
    q->done = answered;
    q->began_ms = began;
    q->deadline_ms = until;
    return false;
}

/* The node has no room now, and does not keep us waiting for it. */
static void retry_for_room(struct kreq *q)
{
    int64_t now = clock_boot_ms();

    take_back(q, false);
    waits_anew(q);
    if (!q->room_until_ms)
        q->room_until_ms = now + ROOM_DEADLINE_MS;
    if (atomic_load(&q->interrupted))
        kreq_fail_now(q, q->again ? -EIO : -EINTR, q->done);
    else if (now >= q->room_until_ms && goes_straight(q))
        return;
    else if (now >= q->room_until_ms)
        kreq_fail_now(q, -ENOSPC, q->done);
    else if (timer_queue_after(q->w->timer, ROOM_RETRY_MS, attempt_again, q) < 0)
        kreq_fail_now(q, -ENOMEM, q->done);
}

/* Another node or the pool may have it: the next LOCATE asks for one. An error of the last one that
 * was tried is the answer. */
static bool try_another(struct kreq *q, int status)
{
    if (!only_reads(q) || !q->copy || status == -ENOENT || status == -ENXIO || status == -ESTALE)
        return false;
    if (q->avoid_n == DATA_AVOID_MAX)
        return false;
    for (unsigned k = 0; k < q->avoid_n; k++)
        if (q->avoid[k] == q->node)
            return false;
    q->avoid[q->avoid_n++] = q->node;
    return true;
}

static void failed(struct kreq *q, const struct message *reply)
{
    bool another = try_another(q, reply->status);

    if (reply->status == -EBUSY && changes(q)) {
        retry_for_room(q);
        return;
    }
    if (!another && !worth_retry(q, reply->status)) {
        q->done(q, reply);
        return;
    }
    if (q->type == STAR__MSG_TYPE__COPY_RANGE && q->attempts >= QUICK_ATTEMPTS) {
        kreq_fail_now(q, -EXDEV,
                      q->done); /* the files are not in one place: the kernel reads and writes */
        return;
    }
    q->again |= reply->status == -ECONNRESET;
    take_back(q, true);
    if (q->other)
        forget_place(q->w, q->other);
    retry(q, reply->status);
}

static void on_node(void *arg, const struct message *reply)
{
    struct kreq *q = arg;

    if (reply->status >= 0)
        q->done(q, reply);
    else
        failed(q, reply);
}

/* --- the centre says where --- */

static int left_ms(const struct kreq *q)
{
    int64_t left = q->deadline_ms - clock_boot_ms();

    return left < 1 ? 1 : left > DATA_DEADLINE_MS ? DATA_DEADLINE_MS : (int)left;
}

/* No node takes data: there is none to ask, and what is not in the pool is nowhere. */
static int without_node(struct kreq *q, const struct inode *i)
{
    switch (q->type) {
    case STAR__MSG_TYPE__WRITE:
        q->no_node = true;
        return -EAGAIN;
    case STAR__MSG_TYPE__FALLOCATE:
        return -EOPNOTSUPP;
    case STAR__MSG_TYPE__COPY_RANGE:
        return -EXDEV;
    case STAR__MSG_TYPE__FSYNC:
        return i->unsynced ? -EIO : 1; /* a node that was given up had it */
    default:
        return 0;
    }
}

/* i is locked. 0: go on; 1: there is nothing to be done; -errno: as retry or the caller hears it.
 */
static int take_place(struct kreq *q, struct inode *i, uint64_t ino, const Star__OpenReply *r)
{
    bool through = q->through_node || ino != q->ino;
    int rc;

    if (r->direct)
        leases_take(q, i, r->lease);
    rc = inode_note_place(i, r);
    q->direct_once = rc == 0 && r->direct && !through && only_reads(q);
    if (rc == 0 && r->no_node)
        rc = without_node(q, i);
    if (rc != 0)
        return rc;
    if (r->direct && through && q->pool_away) {
        q->through_node = false; /* there is no node either: the pool is waited for */
        return -EHOSTDOWN;
    }
    if (r->direct && through) /* there is no node */
        return ino != q->ino ? -EXDEV : -EIO;
    /* No node can serve it now. */
    return !q->direct_once && (r->direct || !i->located) ? -EAGAIN : 0;
}

static void on_located(struct kreq *q, const struct message *reply)
{
    int status;
    Star__OpenReply *r = kreq_unpack(reply, &star__open_reply__descriptor, &status);

    if (r) {
        uint64_t ino = r->ticket ? r->ticket->ino : 0;
        struct inode *i = inode_lock(&q->w->inodes, ino);
        status = i ? take_place(q, i, ino, r) : -EPROTO;
        if (i)
            inode_unlock(&q->w->inodes, i);
        star__open_reply__free_unpacked(r, NULL);
    }
    if (status == 1)
        q->done(q, &(struct message){.kind = FRAME_REPLY});
    else if (status == 0 && q->direct_once && !atomic_load(&q->ended))
        straight_read(q);
    else if (status == 0)
        attempt(q);
    else if (status == -EAGAIN || status == -EHOSTUNREACH || status == -EHOSTDOWN ||
             status == -ETIMEDOUT)
        retry(q, status);
    else
        kreq_fail_now(q, status, q->done);
}

static void locate(struct kreq *q, uint64_t ino)
{
    Star__Inode body = STAR__INODE__INIT;

    body.ino = ino;
    body.through_node = q->through_node || ino != q->ino;
    body.n_avoid = q->avoid_n;
    body.avoid = q->avoid;
    kreq_ask_within(q, STAR__MSG_TYPE__LOCATE, &body.base, left_ms(q), CLIENT_RESEND, on_located);
}

/* --- the messages --- */

static int send_to(struct kreq *q, const char *address, const ProtobufCMessage *body)
{
    struct iovec payload = {.iov_base = (void *)(uintptr_t)q->payload, .iov_len = q->payload_len};
    int deadline = left_ms(q), away = 0;

    if (only_reads(q)) {
        int most = q->copy && q->avoid_n < DATA_AVOID_MAX ? DATA_COPY_MS : DATA_ATTEMPT_MS;
        deadline = deadline > most ? most : deadline;
        away = q->copy ? DATA_COPY_AWAY_MS : DATA_AWAY_MS;
    }
    kreq_ref(q);
    int rc = conns_call(q->w->conns, address, q->type, body, &payload, q->payload_len ? 1 : 0,
                        deadline, away, on_node, q);
    kreq_unref(q);
    return rc;
}

static uint64_t not_after(const struct kreq *q)
{
    return (uint64_t)(q->deadline_ms - DATA_EXPIRY_MS);
}

static int send_read(struct kreq *q, struct place *p)
{
    Star__Read body = STAR__READ__INIT;
    struct ticket_box t;

    fill_ticket(&t, q->ino, &p->ticket);
    body.ticket = &t.ticket;
    body.offset = q->offset;
    body.length = (uint32_t)q->length;
    return send_to(q, p->address, &body.base);
}

static int send_write(struct kreq *q, struct place *p)
{
    Star__Write body = STAR__WRITE__INIT;
    struct ticket_box t;
    Star__Time now;

    fill_ticket(&t, q->ino, &p->ticket);
    now = stamp_of(q->now);
    body.ticket = &t.ticket;
    body.offset = q->offset;
    body.append = q->append;
    body.placed = q->placed;
    body.again = q->again;
    body.not_after = not_after(q);
    body.kill_suidgid = q->kill;
    body.now = &now;
    return send_to(q, p->address, &body.base);
}

static int send_fsync(struct kreq *q, struct place *p)
{
    Star__Fsync body = STAR__FSYNC__INIT;
    struct ticket_box t;
    struct inode *i = inode_lock(&q->w->inodes, q->ino);

    if (i) {
        body.instance = i->unsynced;
        q->write_count = i->write_count;
        inode_unlock(&q->w->inodes, i);
    }
    fill_ticket(&t, q->ino, &p->ticket);
    body.ticket = &t.ticket;
    body.datasync = q->datasync;
    return send_to(q, p->address, &body.base);
}

static int send_fallocate(struct kreq *q, struct place *p)
{
    Star__Fallocate body = STAR__FALLOCATE__INIT;
    struct ticket_box t;
    Star__Time now;

    fill_ticket(&t, q->ino, &p->ticket);
    now = stamp_of(q->now);
    body.ticket = &t.ticket;
    body.mode = q->flags;
    body.not_after = not_after(q);
    body.offset = q->offset + q->finished;
    body.length = q->length - q->finished;
    body.now = &now;
    return send_to(q, p->address, &body.base);
}

static int send_seek(struct kreq *q, struct place *p)
{
    Star__Seek body = STAR__SEEK__INIT;
    struct ticket_box t;

    fill_ticket(&t, q->ino, &p->ticket);
    body.ticket = &t.ticket;
    body.offset = q->offset;
    body.hole = q->hole;
    return send_to(q, p->address, &body.base);
}

/* q->other is the source. */
static int send_copy(struct kreq *q, struct place *p, struct place *from)
{
    Star__CopyRange body = STAR__COPY_RANGE__INIT;
    struct ticket_box t, f;
    Star__Time now;

    if (strcmp(p->address, from->address) != 0)
        return -EXDEV; /* the kernel copies by reading and writing */
    fill_ticket(&t, q->ino, &p->ticket);
    fill_ticket(&f, q->other, &from->ticket);
    now = stamp_of(q->now);
    body.not_after = not_after(q);
    body.from = &f.ticket;
    body.to = &t.ticket;
    body.from_offset = q->other_offset;
    body.to_offset = q->offset;
    body.length = q->length;
    body.now = &now;
    return send_to(q, p->address, &body.base);
}

static int send(struct kreq *q, struct place *p, struct place *from)
{
    switch (q->type) {
    case STAR__MSG_TYPE__READ:
        return send_read(q, p);
    case STAR__MSG_TYPE__WRITE:
        return send_write(q, p);
    case STAR__MSG_TYPE__FSYNC:
        return send_fsync(q, p);
    case STAR__MSG_TYPE__FALLOCATE:
        return send_fallocate(q, p);
    case STAR__MSG_TYPE__SEEK:
        return send_seek(q, p);
    case STAR__MSG_TYPE__COPY_RANGE:
        return send_copy(q, p, from);
    default:
        return -EINVAL;
    }
}

static void attempt(struct kreq *q)
{
    struct place p, from;

    if (atomic_load(&q->ended) || clock_boot_ms() >= q->deadline_ms) {
        kreq_fail_now(q, -EIO, q->done);
        return;
    }
    if (q->no_node && goes_straight(q))
        return;
    q->no_node = false;
    if (!place_of(q, q->ino, &p)) {
        locate(q, q->ino);
        return;
    }
    if (q->other && !place_of(q, q->other, &from)) {
        locate(q, q->other);
        return;
    }
    if (atomic_load(&q->ended)) {
        kreq_fail_now(q, -EIO, q->done);
        return;
    }
    if (p.direct) {
        q->direct_once = false;
        straight_read(q);
        return;
    }
    q->node = p.node;
    q->copy = p.copy;
    int rc = send(q, &p, &from);
    if (rc < 0)
        failed(q, &(struct message){.kind = FRAME_REPLY, .status = rc});
}

static void begin_ask(void *arg, int status)
{
    struct kreq *q = arg;

    (void)status; /* what was lost fsync says; here counts what is there */
    /* The other file of a copy may be written so, too. */
    if (q->other && straight_sync(q->w, q->other, true, false, begin_ask, q) == 0)
        return;
    waits_begin(q);
    q->now = msession_time(q->w);
    attempt(q);
}

static void answered(struct kreq *q, const struct message *reply)
{
    waits_end(q);
    q->done = q->answer;
    q->done(q, reply);
}

void data_ask(struct kreq *q, kreq_fn done)
{
    q->answer = done;
    q->done = answered;
    if (straight_sync(q->w, q->ino, true, false, begin_ask, q) != 0)
        begin_ask(q, 0);
}

void data_again(struct kreq *q, int status)
{
    take_back(q, true);
    retry(q, status);
}

void data_through_node(struct kreq *q, bool pool_away)
{
    q->through_node = true;
    q->pool_away = pool_away;
    take_back(q, true);
    locate(q, q->ino);
}
