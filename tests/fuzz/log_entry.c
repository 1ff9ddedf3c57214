/*
 * Any bytes as log entries: state_apply neither crashes nor fails (a malformed entry has a result),
 * and what it leaves passes the check. An input is a row of entries: type (an index into the table
 * below), 2 bytes of length, body. The type 0xff takes the body for a whole LogEntry. Every input
 * begins with the same small state.
 */
#include "control/state_private.h"
#include "tests/state_world.h"

#include <sys/xattr.h>
#include <unistd.h>

static const uint32_t types[] = {
    STAR__MSG_TYPE__SETATTR,
    STAR__MSG_TYPE__MKNOD,
    STAR__MSG_TYPE__MKDIR,
    STAR__MSG_TYPE__SYMLINK,
    STAR__MSG_TYPE__CREATE,
    STAR__MSG_TYPE__LINK,
    STAR__MSG_TYPE__UNLINK,
    STAR__MSG_TYPE__RMDIR,
    STAR__MSG_TYPE__RENAME,
    STAR__MSG_TYPE__RELEASE,
    STAR__MSG_TYPE__SETXATTR,
    STAR__MSG_TYPE__REMOVEXATTR,
    STAR__MSG_TYPE__SYNC_ATTRS,
    STAR__MSG_TYPE__ALLOC_PACKS,
    STAR__MSG_TYPE__CONFIRM,
    STAR__MSG_TYPE__DISCARD_PACK,
    STAR__MSG_TYPE__COPIES,
    STAR__MSG_TYPE__DELETED_PACKS,
    STAR__LOG_TYPE__LOG_SESSION_OPEN,
    STAR__LOG_TYPE__LOG_SESSION_END,
    STAR__LOG_TYPE__LOG_TAKE_HOME,
    STAR__LOG_TYPE__LOG_NODE,
    STAR__LOG_TYPE__LOG_SETTING,
    STAR__LOG_TYPE__LOG_REAP,
    STAR__LOG_TYPE__LOG_CONDEMN,
    STAR__LOG_TYPE__LOG_HOME_ATTRS,
    STAR__LOG_TYPE__LOG_DROP_COPIES,
    STAR__MSG_TYPE__MOVED,
    STAR__MSG_TYPE__META_STORED,
    STAR__LOG_TYPE__LOG_REBUILD,
};

static struct world w;
static struct meta_row before;

static void confirm(uint64_t ino, uint64_t pack)
{
    Star__Confirm q = STAR__CONFIRM__INIT;
    Star__ConfirmPack p = STAR__CONFIRM_PACK__INIT, *packs = &p;
    Star__CutFile f = STAR__CUT_FILE__INIT, *files = &f;
    Star__HomeAttrs a = STAR__HOME_ATTRS__INIT;
    Star__CutRecord r[3], *records[3];

    q.node = q.n_packs = q.n_files = 1;
    q.packs = &packs;
    q.files = &files;
    p.pack = pack;
    p.size = 1 << 20;
    f.attrs = &a;
    f.cut = a.version = a.home_epoch = 1;
    f.base_limit = UINT64_MAX;
    f.n_records = 3;
    f.records = records;
    a.ino = ino;
    a.size = 300;
    for (uint32_t n = 0; n < 3; n++) {
        star__cut_record__init(&r[n]);
        records[n] = &r[n];
        r[n].offset = n * 100;
        r[n].length = 100;
        r[n].number = n;
        r[n].pack = pack;
        r[n].pack_offset = n * 200;
    }
    world_need(world_apply(&w, STAR__MSG_TYPE__CONFIRM, &q.base) == 0, "confirm");
}

static void tidy(void)
{
    world_end(&w);
}

/* Inodes: 2 directory, 3 and 4 files (4 in 2), 5 symlink, 6 orphan. Node 1, session 2, packs 1
 * (live) and 2. */
static void prepare(void)
{
    Star__AllocPacks alloc = STAR__ALLOC_PACKS__INIT;

    world_start(&w);
    w_node(&w, 0, "n", "ready");
    w_session(&w, "m");
    w.node = 1;
    w_mkdir(&w, ROOT, "d");
    w_create(&w, ROOT, "a");
    w_create(&w, 2, "b");
    w_symlink(&w, ROOT, "s", "t");
    w_create(&w, ROOT, "o");
    w_unlink(&w, ROOT, "o");
    w_link(&w, 4, ROOT, "l");
    w_xattr(&w, STAR__MSG_TYPE__SETXATTR, 3, "user.x", "v", 1, 0, false);
    alloc.count = 2;
    world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &alloc.base);
    confirm(3, 1);
    world_commit(&w);
    before = w.s->meta;
    atexit(tidy);
}

static void apply(const uint8_t *bytes, size_t len)
{
    struct state_result r;

    if (state_apply(w.s, state_applied(w.s) + 1, bytes, len, &r) < 0)
        abort();
    if (r.status > 0 || (r.body_len > 0 && !r.body))
        abort();
}

static void apply_body(uint32_t type, const uint8_t *body, size_t len)
{
    Star__LogEntry e = STAR__LOG_ENTRY__INIT;
    Star__Time now = STAR__TIME__INIT;
    uint8_t packed[70000];

    now.sec = w.s->meta.sec + 1;
    e.type = type;
    e.body.data = (uint8_t *)body;
    e.body.len = len;
    e.now = &now;
    e.ino = w.s->meta.last_ino + 1;
    e.node = 1;
    apply(packed, star__log_entry__pack(&e, packed));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t n_types = sizeof(types) / sizeof(types[0]);

    if (!w.s)
        prepare();
    if (state_begin(w.s) < 0)
        abort();
    while (size >= 3) {
        size_t len = (size_t)data[1] | (size_t)data[2] << 8;
        uint8_t type = data[0];
        data += 3;
        size -= 3;
        if (len > size)
            len = size;
        if (type == 0xff)
            apply(data, len);
        else
            apply_body(types[type % n_types], data, len);
        data += len;
        size -= len;
    }
    if (world_check(&w) != 0)
        abort();
    /* Back to where it was. */
    mdb_txn_abort(w.s->write);
    w.s->write = NULL;
    w.s->meta = before;
    return 0;
}
