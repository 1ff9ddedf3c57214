/*
 * Requests for data that cannot be reached now: their node, the only one that has it, is away, or
 * the pool does not answer. What the mount was told decides: hard waits as long as it takes, soft
 * gives up after a time (EIO). In both a caller that was interrupted waits no longer, and the
 * centre hears what is waited for.
 *
 * Not for the centre itself: questions to it have METADATA_DEADLINE_MS.
 */
#ifndef UMBEL_FS_WAITS_H
#define UMBEL_FS_WAITS_H

#include "fs/kreq.h"

/* Who has waited so long is told of. */
#define WAIT_TOLD_MS 3000
/* From then on it is tried less often. */
#define WAIT_LONG_MS  5000
#define WAIT_RETRY_MS 500

struct waits;

int waits_new(struct waits **out);
void waits_free(struct waits *t);

/* q goes to where its data is; waits_end comes before its answer. */
void waits_begin(struct kreq *q);
void waits_end(struct kreq *q);
/* It could not be reached (-errno). 0: it may be tried again, with q->deadline_ms; else what to
 * answer. */
int waits_again(struct kreq *q, int status);
/* The node is there, and has no room: that is not what soft is about. */
void waits_anew(struct kreq *q);

/* What RENEW tells. */
void waits_tell(struct worker *w, Star__Renew *renew);

/* Is it that what has the data cannot be reached, rather than that it refuses? */
bool waits_is_away(int status);

/* Pure: until when one attempt may take, and whether another is worth it. soft_ms 0: hard. */
int64_t waits_deadline(int64_t began_ms, int64_t now_ms, int soft_ms);
bool waits_is_over(int64_t began_ms, int64_t now_ms, int soft_ms);

#endif
