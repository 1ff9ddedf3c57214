/*
 * Private to ctl_*.c: inode numbers of the control files. They say all: top bit | kind << 56 |
 * object << 8 | file, so they outlive workers and centres.
 */
#ifndef UMBEL_CONTROL_CTL_TREE_H
#define UMBEL_CONTROL_CTL_TREE_H

#include "control/ctl_text.h"
#include "control/wire/control_ino.h"

#define OBJECT_MAX 0xffffffffffffull

enum kind {
    KIND_TOP,
    KIND_FILE,
    KIND_SETTINGS,
    KIND_SETTING,
    KIND_NODES,
    KIND_NODE,
    KIND_NODE_FILE,
    KIND_JOBS,
    KIND_JOB, /* object: its number */
    KIND_JOB_FILE,
    KIND_JOBS_LIST, /* object: the page behind that job */
    KIND_JOBS_NEW = (int)(CONTROL_INO_GATHERS >> 56)
};

static inline uint64_t ctl_ino(enum kind kind, uint64_t object, unsigned file)
{
    return CONTROL_INO_BIT | (uint64_t)kind << 56 | object << 8 | file;
}

static inline enum kind kind_of(uint64_t ino)
{
    return (enum kind)(ino >> 56 & 0x7f);
}

static inline uint64_t object_of(uint64_t ino)
{
    return ino >> 8 & OBJECT_MAX;
}

static inline unsigned file_of(uint64_t ino)
{
    return (unsigned)(ino & 0xff);
}

static inline bool ctl_name_is(const ProtobufCBinaryData *n, const char *name)
{
    return n->len == strlen(name) && memcmp(n->data, name, n->len) == 0;
}

struct ctl_listing {
    Star__ReadDir *q;
    Star__DirEntry *entries;
    Star__DirEntry **pointers;
    size_t n, size;
    uint64_t cookie;
    char (*names)[24]; /* for those whose names are made; NULL until then */
};
/* Names in order; those before the asked-for cookie are passed over. */
void ctl_list(struct ctl_listing *l, const char *name, uint64_t ino, uint32_t type);

/* --- ctl_jobs.c: .umbel/jobs --- */
struct ctl_owner {
    uint32_t mode, uid, gid; /* mode 0: there is none */
};
struct ctl_owner ctl_job_owner(struct centre *c, uint64_t ino);
/* 0: there is none. */
uint64_t ctl_job_find(struct centre *c, uint64_t parent, const ProtobufCBinaryData *name);
/* The name of one of a job's own files, which is no control file: answers the op. false: it is
 * none. */
bool ctl_job_file(struct op *op);
void ctl_job_list(struct centre *c, struct ctl_listing *l, uint64_t ino);
/* cred: who reads; NULL: nobody. */
int ctl_job_text(struct centre *c, uint64_t ino, const Star__Cred *cred, struct text *t);
void ctl_job_write(struct op *op, uint64_t ino, char *text);

#endif
