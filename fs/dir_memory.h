/*
 * What the mount remembers of a directory that it changed itself: the directory's attributes after
 * the change, names that are gone since, and all names of a directory that was made here. The
 * kernel forgets the first two with each change and asks again, and asks for every name before it
 * makes it (an archive that is unpacked); under the directory's lease the answer is known here.
 *
 * Invariant: it is the answer that the centre would give now, as long as the inode has a lease and
 * no recall of it is under way; any recall ends it (dir_forget). Threads: under the inode's lock,
 * which the functions that take a worker take themselves.
 */
#ifndef UMBEL_FS_DIR_MEMORY_H
#define UMBEL_FS_DIR_MEMORY_H

#include "fs/kreq.h"

/* Names of one directory; with more, the centre is asked again (a name takes some 100 bytes). */
#define KNOWN_NAMES_MAX 4096

/* i is locked: nothing is remembered any more. */
void dir_forget(struct inode *i);

/* The answer to a change of dir: its attributes, NULL or without a lease if they cannot be kept. In
 * the client's thread. */
void dir_changed(struct kreq *q, uint64_t dir, const Star__Attr *attr, Star__Lease lease);
/* It has just been made, and is empty. */
void dir_made(struct kreq *q, uint64_t dir);
/* It has taken the name away; granted: the centre's lease on names. */
void dir_name_gone(struct kreq *q, uint64_t dir, const char *name, bool granted);
/* Before anything is asked of the centre that may bring the name. */
void dir_name_comes(struct worker *w, uint64_t dir, const char *name);

/* From here to the end of q (kreq_free) no answer lets the kernel keep dir's attributes: it forgets
 * them when it has the answer to the change, and an older one that it took in later would stay. */
void dir_change_begins(struct kreq *q, uint64_t dir);
void dir_change_ended(struct kreq *q);
/* It may yet be done, and nobody will tell. */
void dir_change_unsure(struct kreq *q);

/* Answer the kernel from memory and free q. false: the centre must be asked. */
bool dir_answer_attr(struct kreq *q);
bool dir_answer_gone(struct kreq *q, const char *name);

#endif
