/*
 * The control-file tree (.umbel): every operation asks the centre, nothing is kept but the text of
 * an open file, and what was written to one that gathers (kreq.h).
 */
#ifndef UMBEL_FS_CONTROL_FILES_H
#define UMBEL_FS_CONTROL_FILES_H

#include "fs/control_shares.h"
#include "fs/kreq.h"

int controls_start(struct worker *w);
void controls_stop(struct worker *w);

/* Each answers q. */
void control_lookup(struct kreq *q, const char *name);
void control_mkdir(struct kreq *q, const char *name);
void control_rmdir(struct kreq *q, const char *name);
void control_open(struct kreq *q);
void control_read(struct kreq *q);
void control_write(struct kreq *q, const char *text, size_t size);
/* At close: what was gathered and nobody has read the answer to. Half a text is never sent: after a
 * write that failed, close and read fail too; and what a process was writing that is killed (a
 * signal ends it before it closes the file) is dropped: who else has the file open gets ECANCELED.
 */
void control_flush(struct kreq *q);
void control_release(struct worker *w, uint64_t fh);

/* What RENEW tells: what was refused, or dropped, since the newest that was answered. */
struct controls_told {
    uint64_t full, killed;
};
struct controls_told controls_tell(struct worker *w, Star__Renew *renew, Star__ControlsRefused *r);
void controls_heard(struct worker *w, const struct controls_told *told);

#endif
