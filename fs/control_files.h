/*
 * The control-file tree (.umbel): every operation asks the centre, nothing is kept but the text of
 * an open file, and what was written to one that gathers (kreq.h).
 */
#ifndef UMBEL_FS_CONTROL_FILES_H
#define UMBEL_FS_CONTROL_FILES_H

#include "fs/kreq.h"

/* Open control files; their text is at most FRAME_PAYLOAD_MAX each. Beyond: -ENFILE. */
#define CONTROLS_MAX 1024
/* Bytes of all of them together, read and gathered: a mount is no place to keep texts. Beyond:
 * -ENOMEM. */
#define CONTROLS_BYTES_MAX (128ull << 20)

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
 * write that failed, close and read fail too. */
void control_flush(struct kreq *q);
void control_release(struct worker *w, uint64_t fh);

#endif
