/* The INIT reply: only what the kernel offered is added, and what must not be said goes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "fs/init_patch.h"

#define DIRECT_IO_ALLOW_MMAP (1ull << 36)
#define PASSTHROUGH          (1ull << 37)
#define HAS_RESEND           (1ull << 39)

static struct init_message offer(uint32_t minor, uint64_t flags)
{
    struct init_message m = {0};
    struct fuse_in_header header = {.opcode = FUSE_INIT, .unique = 2};
    struct fuse_init_in in = {.major = 7,
                              .minor = minor,
                              .max_readahead = 131072,
                              .flags = (uint32_t)flags,
                              .flags2 = (uint32_t)(flags >> 32)};

    memcpy(m.bytes, &header, sizeof(header));
    memcpy(m.bytes + sizeof(header), &in, sizeof(in));
    m.length = sizeof(header) + sizeof(in);
    return m;
}

Test(init_patch, adds_what_was_offered)
{
    struct init_message m = offer(
        45, FUSE_INIT_EXT | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT |
                FUSE_EXPLICIT_INVAL_DATA | DIRECT_IO_ALLOW_MMAP | PASSTHROUGH | HAS_RESEND);
    struct fuse_init_out out = {
        .major = 7, .minor = 38, .flags = FUSE_ASYNC_READ, .max_write = 1 << 20};
    struct init_result r;

    cr_assert_eq(init_patch(&m, &out, sizeof(out), &r), 0);
    cr_assert(out.flags & FUSE_ASYNC_READ);
    cr_assert(out.flags & FUSE_PARALLEL_DIROPS);
    cr_assert(out.flags & FUSE_HANDLE_KILLPRIV_V2);
    cr_assert(out.flags & FUSE_INIT_EXT);
    cr_assert_eq(out.flags2, (DIRECT_IO_ALLOW_MMAP | HAS_RESEND) >> 32,
                 "passthrough was not asked for");
    cr_assert(r.killpriv_v2 && r.setxattr_ext && r.direct_io_mmap && r.resend && r.inc_epoch);
    cr_assert_eq(r.max_write, 1u << 20);
    cr_assert_eq(r.minor, 45);
}

Test(init_patch, adds_nothing_that_was_not_offered)
{
    struct init_message m =
        offer(36, FUSE_PARALLEL_DIROPS | (DIRECT_IO_ALLOW_MMAP /* but no FUSE_INIT_EXT */));
    struct fuse_init_out out = {.major = 7, .minor = 36, .flags = FUSE_ASYNC_READ};
    struct init_result r;

    cr_assert_eq(init_patch(&m, &out, sizeof(out), &r), 0);
    cr_assert_eq(out.flags, FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS);
    cr_assert_eq(out.flags2, 0);
    cr_assert(!r.killpriv_v2 && !r.setxattr_ext && !r.direct_io_mmap && !r.resend && !r.inc_epoch);
}

Test(init_patch, takes_back_what_would_break_coherence)
{
    struct init_message m = offer(38, UINT32_MAX >> 1 /* FUSE_INIT_RESERVED is the top bit */);
    struct fuse_init_out out = {.flags = FUSE_AUTO_INVAL_DATA | FUSE_WRITEBACK_CACHE |
                                         FUSE_HANDLE_KILLPRIV | FUSE_NO_OPENDIR_SUPPORT |
                                         FUSE_NO_OPEN_SUPPORT};
    struct init_result r;

    cr_assert_eq(init_patch(&m, &out, sizeof(out), &r), 0);
    cr_assert_eq(out.flags & (FUSE_AUTO_INVAL_DATA | FUSE_WRITEBACK_CACHE | FUSE_HANDLE_KILLPRIV |
                              FUSE_NO_OPENDIR_SUPPORT | FUSE_NO_OPEN_SUPPORT),
                 0);
}

Test(init_patch, short_and_foreign_messages)
{
    struct init_message m = offer(38, FUSE_PARALLEL_DIROPS);
    struct fuse_init_out out = {0};
    struct init_result r;

    cr_assert_eq(init_patch(&m, &out, 24, &r), 0, "an old kernel's short reply stays as it is");
    cr_assert_eq(out.flags, 0);
    m.bytes[4] = FUSE_LOOKUP;
    cr_assert_eq(init_patch(&m, &out, sizeof(out), &r), -EPROTO);
    m.length = 10;
    cr_assert_eq(init_patch(&m, &out, sizeof(out), &r), -EPROTO);
    m.length = INIT_MESSAGE_MAX + 1;
    cr_assert_eq(init_patch(&m, &out, sizeof(out), &r), -EPROTO);
}
