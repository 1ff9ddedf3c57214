/* Between protobuf messages and the store's own types. */
#include <errno.h>

#include "control/wire/clock.h"
#include "control/wire/stamp.h"
#include "nodecache/link_private.h"

void put_attrs(struct wire_attrs *out, const struct attrs *in, uint32_t node)
{
    star__home_attrs__init(&out->attrs);
    out->mtime = stamp_of(in->mtime);
    out->ctime = stamp_of(in->ctime);
    out->attrs.ino = in->ino;
    out->attrs.size = in->size;
    out->attrs.mtime = &out->mtime;
    out->attrs.ctime = &out->ctime;
    out->attrs.version = in->version;
    out->attrs.home_epoch = in->home_epoch;
    out->attrs.node = node;
    out->attrs.bytes = in->bytes;
}

struct timespec get_time(const Star__Time *t)
{
    if (!t || t->nsec >= 1000000000u)
        return clock_real();
    return (struct timespec){.tv_sec = t->sec, .tv_nsec = (long)t->nsec};
}

int get_ticket(const Star__Ticket *in, struct ticket *out)
{
    if (!in || in->ino == 0 || in->size > NODE_SIZE_MAX)
        return -EINVAL;
    *out = (struct ticket){.ino = in->ino,
                           .rights = in->rights,
                           .home_epoch = in->home_epoch,
                           .size = in->size,
                           .version = in->version,
                           .mapped = in->mapped};
    if (in->mtime)
        out->mtime = get_time(in->mtime);
    return 0;
}
