#include "fs/control_shares.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>

/* Who has any. */
struct control_owner {
    uint32_t uid;
    uint64_t files, bytes;
    UT_hash_handle hh;
};

static struct control_owner *find(const struct control_shares *s, uint32_t uid)
{
    struct control_owner *o;

    HASH_FIND(hh, s->owners, &uid, sizeof(uid), o);
    return o;
}

static int check(const struct control_shares *s, uint32_t uid, const struct control_owner *o,
                 uint64_t files, uint64_t bytes)
{
    uint64_t has = o ? o->files : 0, has_bytes = o ? o->bytes : 0;

    if (uid != 0 && (has + files > CONTROLS_USER || has_bytes + bytes > CONTROLS_USER_BYTES))
        return -EMFILE;
    if (s->files + files > CONTROLS_MAX - (uid ? CONTROLS_ROOT : 0))
        return -ENFILE;
    if (s->bytes + bytes > CONTROLS_BYTES_MAX - (uid ? CONTROLS_ROOT_BYTES : 0))
        return -ENOMEM;
    return 0;
}

int control_shares_take(struct control_shares *s, uint32_t uid, uint64_t files, uint64_t bytes)
{
    struct control_owner *o = find(s, uid);
    int rc = check(s, uid, o, files, bytes);

    if (rc < 0)
        return rc;
    if (!o) {
        o = calloc(1, sizeof(*o));
        if (!o)
            return -ENOMEM;
        o->uid = uid;
        HASH_ADD(hh, s->owners, uid, sizeof(o->uid), o);
    }
    o->files += files;
    o->bytes += bytes;
    s->files += files;
    s->bytes += bytes;
    return 0;
}

void control_shares_put(struct control_shares *s, uint32_t uid, uint64_t bytes)
{
    struct control_owner *o = find(s, uid);

    if (!o)
        return;
    o->bytes += bytes;
    s->bytes += bytes;
}

void control_shares_give(struct control_shares *s, uint32_t uid, uint64_t files, uint64_t bytes)
{
    struct control_owner *o = find(s, uid);

    if (!o)
        return;
    o->files -= files;
    o->bytes -= bytes;
    s->files -= files;
    s->bytes -= bytes;
    if (o->files > 0 || o->bytes > 0)
        return;
    HASH_DEL(s->owners, o);
    free(o);
}
