/*
 * Requests whose pages the kernel holds locked until they are answered: READs, and pages written
 * back. A recall waits for such pages, and the centre does not wait long for a recall: those that
 * cannot be answered in time for it are failed.
 */
#ifndef UMBEL_FS_PENDING_H
#define UMBEL_FS_PENDING_H

#include "fs/kreq.h"

/* Before it is sent. */
void pending_add(struct kreq *q);
/* It has its result. false: the kernel has been answered meanwhile. */
bool pending_remove(struct kreq *q);

/* Its caller waits no longer: answers EINTR, if it was not answered. */
void pending_interrupt(struct kreq *q);

/* Answers EIO to all of the inode that can be: READs, and pages that are on no way to a node. A
 * failed read-ahead harms nobody; pages lost so are told by fsync. */
void pending_end(struct worker *w, uint64_t ino);

#endif
