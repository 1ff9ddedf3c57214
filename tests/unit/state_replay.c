/*
 * The state: the same entries give the same rows, however they are cut into turns, wherever the
 * process ended or was killed, and from whatever copy they go on.
 */
#include "tests/state_world.h"

#include <criterion/criterion.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ENTRIES = 6000, FILES_KEPT = 40 };

struct entry {
    uint8_t *bytes;
    size_t len;
    int status; /* of the first time */
    uint8_t *body;
    size_t body_len;
};

static struct world w; /* where the entries are made */
static struct entry entries[ENTRIES + 1];
static uint64_t seed = 99;
static uint64_t inos[FILES_KEPT], sessions[3], packs;

static unsigned random_below(unsigned n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

/* --- entries of all kinds --- */

static const char *random_name(void)
{
    static const char *const names[] = {"a", "b", "c", "d",
                                        "e", "f", "g", "a longer name than the others have"};

    return names[random_below(8)];
}

static uint64_t random_ino(void)
{
    uint64_t ino = inos[random_below(FILES_KEPT)];

    return ino ? ino : ROOT;
}

static void names(void)
{
    static const uint32_t kinds[] = {STAR__MSG_TYPE__CREATE,  STAR__MSG_TYPE__CREATE,
                                     STAR__MSG_TYPE__MKDIR,   STAR__MSG_TYPE__MKDIR,
                                     STAR__MSG_TYPE__SYMLINK, STAR__MSG_TYPE__MKNOD};
    int64_t ino;

    switch (random_below(10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        ino = world_make(&w, kinds[random_below(6)], random_ino(), random_name(), 0644 | S_IFREG,
                         "target");
        if (ino > 0)
            inos[random_below(FILES_KEPT)] = (uint64_t)ino;
        break;
    case 4:
        w_link(&w, random_ino(), random_ino(), random_name());
        break;
    case 5:
        w_unlink(&w, random_ino(), random_name());
        break;
    case 6:
        w_rmdir(&w, random_ino(), random_name());
        break;
    case 7:
        w_reap(&w, random_ino());
        break;
    default:
        w_rename(&w, random_ino(), random_name(), random_ino(), random_name(), random_below(3));
    }
}

static void attributes(void)
{
    static const char acl[] =
        "\2\0\0\0\1\0\7\0\377\377\377\377\2\0\7\0\5\0\0\0\4\0\7\0\377\377\377\377"
        "\20\0\5\0\377\377\377\377\40\0\1\0\377\377\377\377";
    Star__SetAttr q = STAR__SET_ATTR__INIT;
    char name[16];

    switch (random_below(5)) {
    case 0:
        q.ino = random_ino();
        q.valid = random_below(4096) & ~(uint32_t)(16 | 32);
        q.mode = random_below(010000);
        q.uid = random_below(3);
        q.gid = random_below(3);
        q.size = random_below(100000);
        w_setattr(&w, &q);
        break;
    case 1:
        w_xattr(&w, STAR__MSG_TYPE__SETXATTR, random_ino(),
                random_below(2) ? "system.posix_acl_access" : "system.posix_acl_default", acl,
                sizeof(acl) - 1, 0, 0);
        break;
    default:
        snprintf(name, sizeof(name), "user.%u", random_below(5));
        w_xattr(&w, random_below(3) ? STAR__MSG_TYPE__SETXATTR : STAR__MSG_TYPE__REMOVEXATTR,
                random_ino(), name, entries, random_below(6000), 0, false);
    }
}

static void confirm(void)
{
    Star__Confirm q = STAR__CONFIRM__INIT;
    Star__ConfirmPack pack = STAR__CONFIRM_PACK__INIT, *one_pack = &pack;
    Star__CutFile file = STAR__CUT_FILE__INIT, *one_file = &file;
    Star__HomeAttrs attrs = STAR__HOME_ATTRS__INIT;
    Star__CutRecord record[4], *records[4];
    struct inode i;

    if (state_inode(w.s, random_ino(), &i) < 0)
        return;
    q.node = i.home ? i.home : 1;
    q.n_packs = q.n_files = 1;
    q.packs = &one_pack;
    q.files = &one_file;
    pack.pack = packs > 5 ? packs - random_below(5) : packs;
    pack.size = 1 << 20;
    file.attrs = &attrs;
    file.cut = i.cut + random_below(3);
    file.base_limit = random_below(2) ? UINT64_MAX : random_below(100000);
    file.records = records;
    attrs.ino = i.ino;
    attrs.size = random_below(100000);
    attrs.version = i.version + random_below(3);
    attrs.home_epoch = i.home_epoch;
    for (unsigned n = 0; n < 4; n++) {
        star__cut_record__init(&record[n]);
        records[n] = &record[n];
        record[n].offset = random_below(90000);
        record[n].length = 1 + random_below(20000);
        record[n].number = n;
        record[n].pack = pack.pack;
    }
    file.n_records = random_below(5);
    world_apply(&w, STAR__MSG_TYPE__CONFIRM, &q.base);
}

struct found {
    struct state_record r[8];
    size_t n;
};

static bool find_record(void *arg, const struct state_record *r)
{
    struct found *f = arg;

    f->r[f->n++] = *r;
    return f->n < 8;
}

/* What lies in some pack goes to another, which may be one that takes it or one that does not. */
static void move(void)
{
    Star__AllocPacks alloc = STAR__ALLOC_PACKS__INIT;
    Star__Moved q = STAR__MOVED__INIT;
    Star__ConfirmPack pack = STAR__CONFIRM_PACK__INIT, *one_pack = &pack;
    Star__MovedRecord record[8], *records[8];
    struct found f = {.n = 0};

    w.session = w.seq = 0;
    alloc.count = 1;
    if (random_below(4) && world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &alloc.base) == 0)
        packs =
            ((Star__AllocPacksReply *)world_reply(&w, &star__alloc_packs_reply__descriptor))->first;
    uint64_t first = random_below((unsigned)packs + 1);
    for (uint64_t n = 0; n <= packs && f.n == 0; n++)
        state_pack_records(w.s, 1 + (first + n) % (packs + 1), random_below(2), find_record, &f);
    q.n_packs = 1;
    q.packs = &one_pack;
    q.records = records;
    q.n_records = f.n;
    q.node = w.node;
    pack.pack = packs;
    pack.size = 1 << 20;
    for (unsigned n = 0; n < f.n; n++) {
        star__moved_record__init(&record[n]);
        records[n] = &record[n];
        record[n].record = f.r[n].id;
        record[n].from_pack = f.r[n].pack;
        record[n].from_number = f.r[n].number + (random_below(9) == 0);
        record[n].pack = pack.pack;
        record[n].number = n;
        record[n].pack_offset = n * 30000;
    }
    world_apply(&w, STAR__MSG_TYPE__MOVED, &q.base);
}

static void data(void)
{
    Star__AllocPacks alloc = STAR__ALLOC_PACKS__INIT;
    Star__LogHome home = STAR__LOG_HOME__INIT;
    Star__Copies copies = STAR__COPIES__INIT;
    Star__Copy copy = STAR__COPY__INIT, *one = &copy;
    Star__PackRefs refs = STAR__PACK_REFS__INIT;
    uint64_t all[8];

    switch (random_below(9)) {
    case 0:
        alloc.count = 1 + random_below(3);
        w.node = 1 + random_below(3);
        if (world_apply(&w, STAR__MSG_TYPE__ALLOC_PACKS, &alloc.base) == 0)
            packs += alloc.count;
        break;
    case 1:
        home.ino = random_ino();
        home.node = 1 + random_below(3);
        world_apply(&w, STAR__LOG_TYPE__LOG_TAKE_HOME, &home.base);
        break;
    case 2:
        copies.node = 1 + random_below(3);
        copies.n_copies = 1;
        copies.copies = &one;
        copy.ino = random_ino();
        copy.cached = random_below(3);
        copy.staged = random_below(3);
        world_apply(&w, STAR__MSG_TYPE__COPIES, &copies.base);
        break;
    case 3:
        home.node = 1 + random_below(3);
        world_apply(&w, STAR__LOG_TYPE__LOG_DROP_COPIES, &home.base);
        break;
    case 4:
        refs.n_pack = 8;
        refs.pack = all;
        for (unsigned n = 0; n < 8; n++)
            all[n] = 1 + random_below((unsigned)packs + 1);
        world_apply(&w,
                    random_below(2) ? STAR__LOG_TYPE__LOG_CONDEMN : STAR__MSG_TYPE__DELETED_PACKS,
                    &refs.base);
        break;
    case 5:
        move();
        break;
    default:
        confirm();
    }
    w.node = 1 + random_below(3);
}

static void others(unsigned n)
{
    Star__LogSetting setting = STAR__LOG_SETTING__INIT;
    Star__LogSession end = STAR__LOG_SESSION__INIT;
    char name[16], value[16];
    unsigned slot = random_below(3);

    snprintf(name, sizeof(name), "node-%u", 1 + random_below(4 + n / 2000));
    switch (random_below(6)) {
    case 0:
        setting.name = (char *)(random_below(2) ? "low_water" : "flush_age");
        snprintf(value, sizeof(value), "%u", random_below(120));
        setting.value = value;
        world_apply(&w, STAR__LOG_TYPE__LOG_SETTING, &setting.base);
        break;
    case 1:
        w_node(&w, 0, name, random_below(60) ? "ready" : "gone");
        break;
    case 2:
        end.session = sessions[slot];
        sessions[slot] = w_session(&w, "mnt");
        world_apply(&w, STAR__LOG_TYPE__LOG_SESSION_END, &end.base);
        break;
    default:
        world_apply(&w, 5000, &end.base);
    }
}

static void remember(struct world *from, const uint8_t *bytes, size_t len)
{
    cr_assert_leq(from->count, ENTRIES);
    struct entry *e = &entries[from->count];
    *e = (struct entry){.bytes = malloc(len + 1),
                        .len = len,
                        .status = from->result.status,
                        .body = malloc(from->result.body_len + 1),
                        .body_len = from->result.body_len};
    memcpy(e->bytes, bytes, len);
    memcpy(e->body, from->result.body_len ? from->result.body : (const uint8_t *)"",
           from->result.body_len);
}

static void start_log(void)
{
    world_start(&w);
    w.watch = remember;
    w_node(&w, 0, "node-1", "ready");
    w_node(&w, 0, "node-2", "ready");
    w_node(&w, 0, "node-3", "ready");
    for (unsigned n = 0; n < 3; n++)
        sessions[n] = w_session(&w, "mnt");
    w.node = 1;
    for (unsigned n = 0; w.count < ENTRIES - 10; n++) {
        w.session = w.seq = 0;
        if (random_below(2)) {
            w.session = sessions[random_below(3)];
            w.seq = 1 + n / 4 + random_below(3); /* some twice */
            w.acked = n / 4 > 5 ? n / 4 - 5 : 0;
        }
        unsigned what = random_below(20);
        if (what < 9)
            names();
        else if (what < 13)
            attributes();
        else if (what < 19)
            data();
        else
            w.session = w.seq = 0, others(n);
    }
    world_commit(&w);
    cr_assert_eq(world_check(&w), 0);
}

/* --- the log, applied elsewhere --- */

static void apply_one(struct state *s, uint64_t n, bool again)
{
    const struct entry *e = &entries[n];
    struct state_result r;

    cr_assert_eq(state_apply(s, n, e->bytes, e->len, &r), 0);
    if (again) {
        cr_assert_eq(r.body, NULL);
        return;
    }
    cr_assert_eq(r.status, e->status, "entry %lu", (unsigned long)n);
    cr_assert_eq(r.body_len, e->body_len);
    cr_assert_eq(memcmp(r.body_len ? r.body : e->body, e->body, e->body_len), 0);
}

/* From what s has to the end, in turns of at most `turn` entries; up to `last`. */
static void apply_log(struct state *s, unsigned turn, uint64_t last)
{
    unsigned left = 0;

    for (uint64_t n = state_applied(s) + 1; n <= last; n++) {
        if (left == 0) {
            cr_assert_eq(state_begin(s), 0);
            left = 1 + random_below(turn);
        }
        apply_one(s, n, false);
        if (--left == 0)
            cr_assert_eq(state_commit(s), 0);
    }
    if (state_in_turn(s))
        cr_assert_eq(state_commit(s), 0);
}

/* --- rows, compared --- */

static void env_open(const char *dir, MDB_env **env, MDB_txn **txn)
{
    cr_assert_eq(mdb_env_create(env), 0);
    mdb_env_set_maxdbs(*env, 32);
    mdb_env_set_mapsize(*env, STATE_MAP_SIZE);
    cr_assert_eq(mdb_env_open(*env, dir, MDB_RDONLY, 0600), 0);
    cr_assert_eq(mdb_txn_begin(*env, NULL, MDB_RDONLY, txn), 0);
}

static bool same_val(const MDB_val *a, const MDB_val *b)
{
    return a->mv_size == b->mv_size && memcmp(a->mv_data, b->mv_data, a->mv_size) == 0;
}

static size_t compare_db(const char *name, MDB_txn *at, MDB_txn *bt)
{
    MDB_cursor *ac, *bc;
    MDB_val ak, av, bk, bv;
    MDB_dbi a, b;
    size_t rows = 0;

    cr_assert_eq(mdb_dbi_open(at, name, 0, &a), 0);
    cr_assert_eq(mdb_dbi_open(bt, name, 0, &b), 0, "%s", name);
    cr_assert_eq(mdb_cursor_open(at, a, &ac), 0);
    cr_assert_eq(mdb_cursor_open(bt, b, &bc), 0);
    for (;;) {
        int ra = mdb_cursor_get(ac, &ak, &av, MDB_NEXT),
            rb = mdb_cursor_get(bc, &bk, &bv, MDB_NEXT);
        cr_assert_eq(ra, rb, "%s, row %zu", name, rows);
        if (ra != 0)
            break;
        cr_assert(same_val(&ak, &bk) && same_val(&av, &bv), "%s, row %zu", name, rows);
        rows++;
    }
    mdb_cursor_close(ac);
    mdb_cursor_close(bc);
    return rows;
}

static void compare(const char *a_dir, const char *b_dir)
{
    MDB_env *a, *b;
    MDB_txn *at, *bt;
    MDB_dbi main_db;
    MDB_cursor *cur;
    MDB_val key, val;
    size_t rows = 0;

    env_open(a_dir, &a, &at);
    env_open(b_dir, &b, &bt);
    cr_assert_eq(mdb_dbi_open(at, NULL, 0, &main_db), 0);
    cr_assert_eq(mdb_cursor_open(at, main_db, &cur), 0);
    while (mdb_cursor_get(cur, &key, &val, MDB_NEXT) == 0) {
        char name[32] = "";
        memcpy(name, key.mv_data, key.mv_size);
        rows += compare_db(name, at, bt);
    }
    cr_assert_gt(rows, 100);
    mdb_cursor_close(cur);
    mdb_txn_abort(at);
    mdb_txn_abort(bt);
    mdb_env_close(a);
    mdb_env_close(b);
}

/* --- tests --- */

static struct world other;

static void set_up(void)
{
    start_log();
    world_start(&other);
}

static void tear_down(void)
{
    world_end(&w);
    world_end(&other);
}

TestSuite(state_replay, .init = set_up, .fini = tear_down, .timeout = 600);

static void ends_the_same(void)
{
    cr_assert_eq(world_check(&other), 0);
    state_close(w.s, true);
    state_close(other.s, true);
    compare(w.dir, other.dir);
    world_open(&w);
    world_open(&other);
}

Test(state_replay, the_log_is_varied)
{
    unsigned good[6000] = {0}, bad = 0;
    uint64_t moved = 0;

    for (uint64_t n = 1; n <= w.count; n++) {
        Star__LogEntry *e = star__log_entry__unpack(NULL, entries[n].len, entries[n].bytes);
        if (entries[n].status == 0)
            good[e->type]++;
        else
            bad++;
        if (entries[n].status == 0 && e->type == STAR__MSG_TYPE__MOVED && e->seq == 0) {
            Star__MovedReply *r =
                star__moved_reply__unpack(NULL, entries[n].body_len, entries[n].body);
            moved += r->moved;
            star__moved_reply__free_unpacked(r, NULL);
        }
        star__log_entry__free_unpacked(e, NULL);
    }
    static const uint32_t all[] = {
        STAR__MSG_TYPE__SETATTR,  STAR__MSG_TYPE__MKNOD,       STAR__MSG_TYPE__MKDIR,
        STAR__MSG_TYPE__SYMLINK,  STAR__MSG_TYPE__LINK,        STAR__MSG_TYPE__UNLINK,
        STAR__MSG_TYPE__RMDIR,    STAR__MSG_TYPE__RENAME,      STAR__MSG_TYPE__CREATE,
        STAR__MSG_TYPE__SETXATTR, STAR__MSG_TYPE__REMOVEXATTR, STAR__MSG_TYPE__CONFIRM,
        STAR__MSG_TYPE__COPIES,   STAR__LOG_TYPE__LOG_REAP,    STAR__LOG_TYPE__LOG_TAKE_HOME};
    for (size_t n = 0; n < sizeof(all) / sizeof(all[0]); n++)
        cr_assert_geq(good[all[n]], 10, "type %u", all[n]);
    cr_assert_gt(bad, 1000);
    cr_assert_gt(moved, 10, "%ju in %u", (uintmax_t)moved, good[79]);
    struct state_totals t;
    state_totals(w.s, &t);
    cr_assert_gt(t.records, 0);
    cr_assert_gt(t.orphans, 0);
}

Test(state_replay, other_turns)
{
    apply_log(other.s, 100, w.count);
    ends_the_same();
}

Test(state_replay, a_turn_each)
{
    apply_log(other.s, 1, w.count);
    ends_the_same();
}

/* The process ends now and then, with or without a word; the log is then replayed from before its
 * last commit. */
Test(state_replay, stops_and_starts)
{
    while (state_applied(other.s) < w.count) {
        uint64_t at = state_applied(other.s), to = at + 1 + random_below(400);
        apply_log(other.s, 30, to < w.count ? to : w.count);
        at = state_applied(other.s);
        cr_assert_eq(state_begin(other.s), 0);
        for (uint64_t n = at + 1; n <= w.count && n < at + 10; n++)
            apply_one(other.s, n, false);
        bool clean = random_below(2) == 0;
        state_close(other.s, clean);
        world_open(&other);
        if (!clean)
            cr_assert_eq(state_applied(other.s), at, "the open turn is gone");
        cr_assert_eq(state_begin(other.s), 0);
        for (uint64_t n = at > 20 ? at - 20 : 1; n <= state_applied(other.s); n++)
            apply_one(other.s, n, true);
        cr_assert_eq(state_commit(other.s), 0);
    }
    ends_the_same();
}

static void child(void)
{
    struct state *s;
    char detail[256];

    if (state_open(other.dir, &s, detail) < 0)
        _exit(1);
    for (uint64_t n = state_applied(s) + 1; n <= w.count; n++) {
        struct state_result r;
        if (!state_in_turn(s) && state_begin(s) < 0)
            _exit(2);
        if (state_apply(s, n, entries[n].bytes, entries[n].len, &r) < 0 ||
            r.status != entries[n].status)
            _exit(3);
        if (n % 7 == 0 && state_commit(s) < 0)
            _exit(4);
        if (n % 64 == 0)
            usleep(100);
    }
    if (state_in_turn(s))
        state_commit(s);
    _exit(0);
}

Test(state_replay, killed)
{
    unsigned kills = 0;
    int status;

    state_close(other.s, true);
    other.s = NULL;
    for (unsigned round = 0; round < 1000; round++) {
        pid_t pid = fork();
        cr_assert_geq(pid, 0);
        if (pid == 0)
            child();
        /* Longer and longer, so that slow machines come to an end, too. */
        struct timespec t = {.tv_nsec = 1000000 + random_below(4000000) * (1 + (long)round / 20)};
        nanosleep(&t, NULL);
        kill(pid, SIGKILL);
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "%d", WEXITSTATUS(status));
        world_open(&other);
        cr_assert_eq(world_check(&other), 0);
        bool done = state_applied(other.s) == w.count;
        if (done)
            break;
        kills++;
        state_close(other.s, false);
        other.s = NULL;
    }
    cr_assert_gt(kills, 2);
    ends_the_same();
}

struct copier {
    atomic_bool stop;
    char path[160];
    int rc;
    unsigned copies;
};

static void *copy_again_and_again(void *arg)
{
    struct copier *c = arg;
    char detail[256];

    while (!atomic_load(&c->stop) && c->rc == 0) {
        c->rc = state_copy(other.s, c->path, detail);
        c->copies++;
    }
    return NULL;
}

Test(state_replay, a_copy_goes_on)
{
    struct copier c = {.rc = 0};
    struct world third;
    pthread_t thread;
    char to[160];

    world_start(&third);
    state_close(third.s, true);
    snprintf(to, sizeof(to), "%s/mark", third.dir);
    cr_assert_eq(unlink(to), 0);
    snprintf(to, sizeof(to), "%s/data.mdb", third.dir);
    snprintf(c.path, sizeof(c.path), "%s/copy", third.dir);
    apply_log(other.s, 20, 1000);
    cr_assert_eq(pthread_create(&thread, NULL, copy_again_and_again, &c), 0);
    for (uint64_t at = 1000; at < w.count; at += 50) {
        apply_log(other.s, 20, at + 50 < w.count ? at + 50 : w.count);
        usleep(500);
    }
    atomic_store(&c.stop, true);
    pthread_join(thread, NULL);
    cr_assert_eq(c.rc, 0);
    cr_assert_gt(c.copies, 0);
    ends_the_same();

    /* One that was taken in the middle. */
    world_end(&other);
    world_start(&other);
    apply_log(other.s, 20, 3000);
    cr_assert_eq(state_begin(other.s), 0);
    apply_one(other.s, 3001, false);
    char detail[256];
    cr_assert_eq(state_copy(other.s, c.path, detail), 0, "%s", detail);
    cr_assert_eq(state_commit(other.s), 0);
    world_end(&other);
    cr_assert_eq(rename(c.path, to), 0);
    other = third;
    world_open(&other);
    cr_assert_eq(state_applied(other.s), 3000, "the last committed turn");
    apply_log(other.s, 10, w.count);
    ends_the_same();
}
