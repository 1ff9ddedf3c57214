/*
 * What libfuse 3.14 does not say in its INIT reply, and kernel messages that it reads only in part.
 * Pure.
 */
#ifndef UMBEL_FS_INIT_PATCH_H
#define UMBEL_FS_INIT_PATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A copy of the kernel's INIT message. libfuse's own limit is larger than any INIT of today (104
 * bytes). */
#define INIT_MESSAGE_MAX 512

struct init_message {
    uint32_t length; /* 0: not received yet */
    uint8_t bytes[INIT_MESSAGE_MAX];
};

/* What the kernel and we agreed upon. */
struct init_result {
    uint32_t minor;      /* of the kernel */
    bool killpriv_v2;    /* it marks the writes that must clear suid and sgid */
    bool setxattr_ext;   /* its SETXATTR has the long form */
    bool inc_epoch;      /* it takes FUSE_NOTIFY_INC_EPOCH */
    bool direct_io_mmap; /* MAP_SHARED works on direct handles */
    bool resend;         /* it takes FUSE_NOTIFY_RESEND */
    uint32_t max_write;
};

/* out: the body of libfuse's INIT reply (without fuse_out_header), out_len bytes, changed in place:
 * only bits that the kernel offered in message are added. -EPROTO: message is no INIT. A short
 * reply (old kernel) is left as it is. */
int init_patch(const struct init_message *message, void *out, size_t out_len,
               struct init_result *result);

#endif
