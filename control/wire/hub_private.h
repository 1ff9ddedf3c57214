/*
 * Inside of a hub: hub.c holds the loop's side (listening, sending at the end of a turn,
 * deadlines), peer.c one peer. One thread, so no locks. A peer ends in two steps: peer_close marks
 * it, peer_finish takes it apart at the end of the turn, so that no callback runs inside a call of
 * the user.
 */
#ifndef UMBEL_WIRE_HUB_PRIVATE_H
#define UMBEL_WIRE_HUB_PRIVATE_H

#include "control/wire/address.h"
#include "control/wire/calls.h"
#include "control/wire/hub.h"
#include "control/wire/stream.h"

struct peer {
    struct hub *hub; /* as long as the poll handle lives */
    struct peer *prev, *next;
    unsigned refs; /* one is the handle's */
    struct channel channel;
    struct identity_peer identity;
    uid_t uid;
    gid_t gid;
    pid_t pid;
    bool shaking;           /* the TLS handshake is not done */
    int64_t half_until;     /* clock_boot_ms by which it must be; 0: it is known who this is */
    bool more;              /* stands in the hub's list: TLS holds bytes that poll does not show */
    struct peer *next_more; /* a reference is held */
    bool open;              /* may send and receive */
    bool failed;            /* the stream is broken: nothing more can be sent */
    bool dirty;             /* stands in the hub's list: has to send, or to end */
    struct peer *next_dirty;
    bool want_write;
    uv_poll_t poll;
    struct inbox inbox;
    struct outbox outbox;
    void *data;
};

struct hub {
    uv_loop_t *loop;
    char *address;
    struct hub_ops ops;
    void *ctx;
    struct listener listener;
    uv_poll_t accepting;
    uv_timer_t pause;     /* no descriptors are left: accepting goes on later */
    uv_check_t check;     /* sends, after what came was handled */
    uv_prepare_t prepare; /* sends what timers and others made, before the loop sleeps */
    uv_idle_t idle;       /* active while a peer is dirty, as the loop must not sleep then */
    uv_timer_t timer;     /* the next deadline of a request of ours */
    int64_t timer_at;
    struct peer *peers;
    struct peer *dirty;
    struct peer *more;
    unsigned count;
    unsigned half_open;
    uv_timer_t half_timer; /* runs while there are half-open peers */
    unsigned handles;      /* that the loop knows */
    struct calls calls;
    uint64_t garbage;
    bool closing;
    void (*done)(void *arg);
    void *done_arg;
};

/* Takes over fd. */
int peer_open(struct hub *h, int fd);
/* Sends what waits; ends the peer if it is closed. */
void peer_flush(struct peer *p);
void peer_finish(struct peer *p);

void hub_mark(struct peer *p);
/* It is received from again before the loop sleeps. */
void hub_mark_more(struct peer *p);
/* One more half-open peer, or one less. */
void hub_half_open(struct hub *h, int change);
/* Receives from a peer in hub_mark_more's list. */
void peer_receive(struct peer *p);
/* It has not said in time who it is. */
void peer_give_up(struct peer *p, const char *why);
void hub_timer(struct hub *h, int64_t deadline);
void hub_handle_closed(struct hub *h);

#endif
