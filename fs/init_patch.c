#include "fs/init_patch.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

/* Newer than the headers of Debian 12. */
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif
#ifndef FUSE_HAS_RESEND
#define FUSE_HAS_RESEND (1ULL << 39)
#endif

/* Kernel 6.16 is the first with FUSE_NOTIFY_INC_EPOCH. */
#define MINOR_INC_EPOCH 44

#define WANTED                                                                                     \
    (FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT |                          \
     FUSE_EXPLICIT_INVAL_DATA | FUSE_DIRECT_IO_ALLOW_MMAP | FUSE_HAS_RESEND)
/* Must not be said, whatever the library's defaults: version 2 replaces the first; pages are
 * invalidated by recall only; the home owns size and mtime. */
#define UNWANTED                                                                                   \
    ((uint64_t)(FUSE_HANDLE_KILLPRIV | FUSE_AUTO_INVAL_DATA | FUSE_WRITEBACK_CACHE |               \
                FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT))

static uint64_t offered_flags(const struct init_message *message, struct fuse_init_in *in)
{
    uint64_t flags = in->flags;

    if ((flags & FUSE_INIT_EXT) && message->length >= sizeof(struct fuse_in_header) + sizeof(*in))
        flags |= (uint64_t)in->flags2 << 32;
    return flags;
}

int init_patch(const struct init_message *message, void *reply, size_t reply_len,
               struct init_result *result)
{
    struct fuse_in_header header;
    struct fuse_init_in in = {0};
    struct fuse_init_out out;

    memset(result, 0, sizeof(*result));
    if (message->length < sizeof(header) + offsetof(struct fuse_init_in, flags2) ||
        message->length > INIT_MESSAGE_MAX)
        return -EPROTO;
    memcpy(&header, message->bytes, sizeof(header));
    if (header.opcode != FUSE_INIT)
        return -EPROTO;
    size_t body = message->length - sizeof(header);
    memcpy(&in, message->bytes + sizeof(header), body < sizeof(in) ? body : sizeof(in));
    result->minor = in.minor;
    if (reply_len < sizeof(out))
        return 0;
    memcpy(&out, reply, sizeof(out));

    uint64_t offered = offered_flags(message, &in);
    uint64_t flags = (out.flags | (uint64_t)out.flags2 << 32) & ~UNWANTED;
    flags |= offered & WANTED;
    if (offered & FUSE_INIT_EXT)
        flags |= FUSE_INIT_EXT;
    else
        flags &= 0xffffffffu;
    out.flags = (uint32_t)flags;
    out.flags2 = (uint32_t)(flags >> 32);
    memcpy(reply, &out, sizeof(out));

    result->killpriv_v2 = flags & FUSE_HANDLE_KILLPRIV_V2;
    result->setxattr_ext = flags & FUSE_SETXATTR_EXT;
    result->inc_epoch = in.minor >= MINOR_INC_EPOCH;
    result->direct_io_mmap = flags & FUSE_DIRECT_IO_ALLOW_MMAP;
    result->resend = flags & FUSE_HAS_RESEND;
    result->max_write = out.max_write;
    return 0;
}
