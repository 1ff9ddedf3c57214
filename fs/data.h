/*
 * Requests to the node that holds a file's data, and what to do when it went away or is not the
 * right one any more: ask the centre (LOCATE), try again, as long as waits.h allows.
 *
 * Sending a request twice is harmless (the same bytes at the same place), except an append. The
 * home knows one that it has done by its place, if that was certain when it was sent; else it is
 * EIO when the connection broke after it was sent.
 */
#ifndef UMBEL_FS_DATA_H
#define UMBEL_FS_DATA_H

#include "fs/kreq.h"

/* q->type and what belongs to it are set. done gets the node's answer, or a final error. */
void data_ask(struct kreq *q, kreq_fn done);

/* For straight_read.c. Once more, and the centre is asked where; status: what ends it at its
 * deadline. */
void data_again(struct kreq *q, int status);
/* The pool cannot be read from here: through a node, if there is one. pool_away: as it does not
 * answer; if there is no node, it is waited for (waits.h). */
void data_through_node(struct kreq *q, bool pool_away);

#endif
