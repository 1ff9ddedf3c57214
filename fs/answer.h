/* Answers to the kernel that several operations share. */
#ifndef UMBEL_FS_ANSWER_H
#define UMBEL_FS_ANSWER_H

#include "fs/kreq.h"

/* What the centre says of an inode, taken over: entry gets inode number, attributes and attribute
 * timeout. The inode gains one reference of the kernel if referenced. In the centre's client
 * thread. */
int kanswer_take(struct kreq *q, const Star__Attr *a, Star__Lease lease, bool referenced,
                 struct fuse_entry_param *entry);
/* The kernel did not take count references after all, or dropped them (FORGET). */
void kanswer_forget(struct worker *w, uint64_t ino, uint64_t count);

/* An EntryReply in full, positive or negative; frees q. dir is the inode of the directory, 0: no
 * entry lease. */
void kanswer_entry(struct kreq *q, uint64_t dir, const Star__EntryReply *r);
/* The same from the wire: `then` of all requests with an EntryReply; the directory is q->ino. */
void kanswer_on_entry(struct kreq *q, const struct message *reply);

/* Like fuse_reply_open and fuse_reply_create, with all flags of the kernel (linux/fuse.h). */
int kanswer_open(fuse_req_t req, uint64_t fh, uint32_t fopen_flags);
int kanswer_create(fuse_req_t req, const struct fuse_entry_param *e, uint64_t fh,
                   uint32_t fopen_flags);

/* Our own change of ino: what we know of its attributes is old. */
void kanswer_changed(struct worker *w, uint64_t ino);

#endif
