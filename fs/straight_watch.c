#include "fs/straight_watch.h"

void straight_watch_empty(struct straight_watch *w, bool asked)
{
    *w = (struct straight_watch){.on = true, .asked = asked};
}

void straight_watch_size(struct straight_watch *w, uint64_t size)
{
    if (size == 0)
        *w = (struct straight_watch){
            .on = true, .asked = w->asked, .only = w->only, .no_room = w->no_room};
    else if (w->on && w->next == 0)
        w->announced = size;
    else
        w->on = false;
}

bool straight_watch_write(struct straight_watch *w, uint64_t offset, uint64_t length,
                          uint64_t direct_size)
{
    if (!w->on)
        return false;
    if (offset != w->next) {
        w->on = false;
        return false;
    }
    w->next = offset + length;
    if (direct_size == 0 || offset < w->not_before)
        return false;
    if (w->no_room && direct_size > STRAIGHT_NO_ROOM_BYTES)
        direct_size = STRAIGHT_NO_ROOM_BYTES;
    return w->asked || offset >= direct_size || w->announced >= direct_size;
}

void straight_watch_later(struct straight_watch *w, uint64_t direct_size)
{
    w->not_before = w->next + direct_size;
}

bool straight_watch_again(struct straight_watch *w, uint64_t offset, uint64_t length)
{
    if (!w->on || offset + length != w->next)
        return false;
    w->next = offset;
    w->asked = true;
    w->not_before = 0;
    return true;
}

bool straight_watch_sync(struct straight_watch *w)
{
    if (w->only)
        return false;
    w->syncs = w->next - w->synced < STRAIGHT_SYNC_BYTES ? w->syncs + 1 : 0;
    w->synced = w->next;
    if (w->syncs < STRAIGHT_SYNCS_MAX)
        return false;
    w->on = false;
    return true;
}
