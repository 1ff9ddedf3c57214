/*
 * The mount's session with the centre: HELLO, renewal, reclaim after a reconnect, fencing, and a
 * new session when the old one has expired.
 */
#ifndef UMBEL_FS_CENTRE_H
#define UMBEL_FS_CENTRE_H

#include "fs/worker.h"

/* Connects and waits for a session. -ETIMEDOUT or the refusal; detail gets one line. */
int msession_start(struct worker *w, char detail[256]);
/* Ends the session: the centre closes what is still open. */
void msession_bye(struct worker *w);
/* Ends everything pending with -ESHUTDOWN. */
void msession_stop(struct worker *w);
/* When nothing of the worker runs any more: what still was queued ends its numbers here. */
void msession_free(struct worker *w);
/* After lost_fd: a new session. Handles of the old one are dead. Only in the main thread. */
void msession_replace(struct worker *w);

/* As client_call, at the session's client. */
int msession_call(struct worker *w, uint16_t type, const ProtobufCMessage *body,
                  const struct iovec *payload, int payload_n, int deadline_ms, unsigned flags,
                  client_reply_fn fn, void *arg, uint64_t *id);
int msession_notify(struct worker *w, uint16_t type, const ProtobufCMessage *body);
/* Answers a recall, if client still is the session's. */
void msession_reply(struct worker *w, struct client *client, const struct message *header,
                    int status);
/* Leases may be used: not fenced, and renewed lately. */
bool msession_leased(struct worker *w);
/* The session is alive at the centre for certain, though it may be reclaiming. */
bool msession_alive(struct worker *w);

/* The time of day at the centre, as far as is known: stamps of all mounts are by it. Any thread. */
struct timespec msession_time(struct worker *w);

#endif
