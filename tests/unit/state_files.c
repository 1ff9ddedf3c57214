/* The state: sessions' results, settings, malformed entries, and which files are trusted. */
#include "tests/state_world.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <lmdb.h>
#include <unistd.h>

static struct world w;

static void set_up(void)
{
    world_start(&w);
}

static void tear_down(void)
{
    cr_assert_eq(world_check(&w), 0);
    world_commit(&w);
    cr_assert_eq(world_check(&w), 0);
    world_end(&w);
}

TestSuite(state_files, .init = set_up, .fini = tear_down);

static uint64_t ok(int64_t ino)
{
    cr_assert_gt(ino, 0, "%d", (int)ino);
    return (uint64_t)ino;
}

/* --- exactly once --- */

Test(state_files, results_are_kept_until_acknowledged)
{
    uint64_t s = w_session(&w, "mnt-1");
    struct state_session session;
    struct state_result r;

    cr_assert_eq(s, w.count);
    cr_assert_eq(state_session(w.s, s, &session), 0);
    cr_assert_str_eq(session.name, "mnt-1");
    w.session = s;
    w.seq = 1;
    uint64_t d = ok(w_mkdir(&w, ROOT, "d"));
    cr_assert_not(w.result.replayed);
    cr_assert_eq(w_mkdir(&w, ROOT, "d") > 0, true);
    cr_assert(w.result.replayed);
    Star__EntryReply *e = world_reply(&w, &star__entry_reply__descriptor);
    cr_assert_eq(e->attr->ino, d, "the first answer again");
    cr_assert_eq(state_dedupe(w.s, s, 1, &r), 1);
    cr_assert_eq(r.status, 0);
    w.seq = 2;
    cr_assert_eq(w_mkdir(&w, ROOT, "d"), -EEXIST);
    w_rmdir(&w, ROOT, "d");
    cr_assert(w.result.replayed);
    cr_assert_eq(w.result.status, -EEXIST, "refusals are kept, too");
    cr_assert_neq(w_lookup(&w, ROOT, "d"), 0);
    w.seq = 3;
    w.acked = 3;
    cr_assert_eq(w_rmdir(&w, ROOT, "d"), 0);
    cr_assert_eq(state_dedupe(w.s, s, 1, &r), 0);
    cr_assert_eq(state_dedupe(w.s, s, 2, &r), 0);
    cr_assert_eq(state_dedupe(w.s, s, 3, &r), 1);
    w.seq = 1; /* a twin that comes late */
    w.acked = 0;
    cr_assert_eq(w_mkdir(&w, ROOT, "d"), -ESTALE);
    cr_assert_eq(w_lookup(&w, ROOT, "d"), 0);
    w.seq = 0;
    ok(w_mkdir(&w, ROOT, "e"));
    w.session = w.seq = 0;

    Star__LogSession q = STAR__LOG_SESSION__INIT;
    q.session = s;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_SESSION_END, &q.base), 0);
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_SESSION_END, &q.base), -ENOENT);
    cr_assert_eq(state_dedupe(w.s, s, 3, &r), 0);
    w.session = s;
    w.seq = 9;
    cr_assert_eq(w_mkdir(&w, ROOT, "f"), -ESTALE, "a session that ended does nothing any more");
    cr_assert_eq(w_lookup(&w, ROOT, "f"), 0);
    w.session = 0;
}

/* --- settings --- */

static int set(const char *name, const char *value)
{
    Star__LogSetting q = STAR__LOG_SETTING__INIT;

    q.name = (char *)name;
    q.value = (char *)value;
    return world_apply(&w, STAR__LOG_TYPE__LOG_SETTING, &q.base);
}

static bool setting_has_help(void *arg, const char *name, const char *value, const char *help)
{
    cr_assert(*name && *value && *help);
    ++*(int *)arg;
    return true;
}

Test(state_files, settings)
{
    char value[32];
    int n = 0;

    cr_assert_eq(state_setting(w.s, "high_water", value, sizeof(value)), 0);
    cr_assert_str_eq(value, "90");
    cr_assert_eq(set("high_water", "80"), 0);
    cr_assert_eq(state_setting(w.s, "high_water", value, sizeof(value)), 0);
    cr_assert_str_eq(value, "80");
    cr_assert_eq(set("low_water", "81"), -EINVAL);
    Star__ErrorReply *e = world_reply(&w, &star__error_reply__descriptor);
    cr_assert(strstr(e->detail, "high_water 80") != NULL, "%s", e->detail);
    cr_assert_eq(set("pool_quota", "1G"), 0);
    cr_assert_eq(state_setting(w.s, "pool_quota", value, sizeof(value)), 0);
    cr_assert_str_eq(value, "1073741824");
    static const char *const bad[] = {
        "", " 1", "-1", "+1", "1x", "1KB", "18446744073709551616", "16777216T"};
    for (size_t b = 0; b < sizeof(bad) / sizeof(bad[0]); b++)
        cr_assert_eq(set("pool_quota", bad[b]), -EINVAL, "%s", bad[b]);
    cr_assert_eq(set("high_water", "101"), -EINVAL);
    cr_assert_eq(set("flush_age", "1K"), -EINVAL);
    cr_assert_eq(set("colour", "red"), -EINVAL);
    cr_assert_eq(state_setting(w.s, "colour", value, sizeof(value)), -ENOENT);
    cr_assert_eq(state_settings(w.s, setting_has_help, &n), 0);
    cr_assert_eq(n, 23);
    world_reopen(&w);
    cr_assert_eq(state_setting(w.s, "high_water", value, sizeof(value)), 0);
    cr_assert_str_eq(value, "80");
}

/* --- malformed entries --- */

Test(state_files, garbage_is_refused_not_fatal)
{
    struct state_result r;

    cr_assert_eq(state_begin(w.s), 0);
    cr_assert_eq(state_apply(w.s, ++w.count, "\xff\xff\xff", 3, &r), 0);
    cr_assert_eq(r.status, -EINVAL);
    cr_assert_eq(state_apply(w.s, ++w.count, "", 0, &r), 0);
    cr_assert_eq(r.status, -EOPNOTSUPP);
    cr_assert_eq(state_applied(w.s), 2);
    cr_assert_eq(state_apply(w.s, w.count + 2, "", 0, &r), -EPROTO, "a gap in the log");
    world_commit(&w);
    cr_assert_eq(state_apply(w.s, ++w.count, "", 0, &r), -EINVAL, "outside of a turn");
    w.count--;
}

/* --- files --- */

static void write_mark(const char *text)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/mark", w.dir);
    int fd = open(path, O_WRONLY | O_TRUNC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

Test(state_files, another_boot_is_not_trusted)
{
    char detail[256] = "";
    struct state *other;

    ok(w_create(&w, ROOT, "f"));
    world_commit(&w);
    cr_assert_eq(state_open(w.dir, &other, detail), -EBUSY, "one process at a time");
    state_close(w.s, false);
    world_open(&w); /* the process died: same boot */
    cr_assert_neq(w_lookup(&w, ROOT, "f"), 0);
    state_close(w.s, false);
    write_mark("open 00000000-0000-0000-0000-000000000000\n");
    cr_assert_eq(state_open(w.dir, &w.s, detail), -ENOTRECOVERABLE);
    cr_assert(*detail);
    write_mark("cle"); /* torn */
    cr_assert_eq(state_open(w.dir, &w.s, detail), -ENOTRECOVERABLE);
    write_mark("clean\n");
    world_open(&w);
    cr_assert_neq(w_lookup(&w, ROOT, "f"), 0);
}

Test(state_files, a_cut_off_copy_is_not_trusted)
{
    char detail[256], copy[160], data[160], mark[160], name[16];

    for (int n = 0; n < 2000; n++) {
        snprintf(name, sizeof(name), "f%d", n);
        ok(w_create(&w, ROOT, name));
    }
    world_commit(&w);
    snprintf(copy, sizeof(copy), "%s/copy", w.dir);
    snprintf(data, sizeof(data), "%s/data.mdb", w.dir);
    snprintf(mark, sizeof(mark), "%s/mark", w.dir);
    cr_assert_eq(state_copy(w.s, copy, detail), 0, "%s", detail);
    state_close(w.s, true);
    cr_assert_eq(unlink(mark), 0);
    struct stat st;
    cr_assert_eq(stat(copy, &st), 0);
    cr_assert_eq(rename(copy, data), 0);
    world_open(&w); /* a whole one is */
    cr_assert_eq(world_check(&w), 0);
    cr_assert_eq(state_copy(w.s, copy, detail), 0, "%s", detail);
    state_close(w.s, true);
    cr_assert_eq(unlink(mark), 0);
    cr_assert_eq(rename(copy, data), 0);
    cr_assert_eq(truncate(data, st.st_size - 4096), 0);
    cr_assert_eq(state_open(w.dir, &w.s, detail), -ENOTRECOVERABLE);
    cr_assert_eq(state_open(w.dir, &w.s, detail), -ENOTRECOVERABLE, "nor the second time");
    cr_assert_eq(unlink(data), 0);
    w.count = 0;
    world_open(&w);
}

/* The format stands first in the only row of "meta". */
static void raise_format(void)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val key = {8, (char[8]){0}}, val;
    char row[1024];

    cr_assert_eq(mdb_env_create(&env), 0);
    mdb_env_set_maxdbs(env, 1);
    cr_assert_eq(mdb_env_open(env, w.dir, 0, 0600), 0);
    cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_dbi_open(txn, "meta", 0, &dbi), 0);
    cr_assert_eq(mdb_get(txn, dbi, &key, &val), 0);
    memcpy(row, val.mv_data, val.mv_size);
    cr_assert_eq(row[0], STATE_FORMAT);
    row[0] = STATE_FORMAT + 1;
    val.mv_data = row;
    cr_assert_eq(mdb_put(txn, dbi, &key, &val, 0), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

Test(state_files, a_newer_format_is_refused)
{
    char detail[256];

    state_close(w.s, true);
    raise_format();
    cr_assert_eq(state_open(w.dir, &w.s, detail), -EPROTONOSUPPORT);
    cr_assert(strstr(detail, "newer") != NULL, "%s", detail);
    cr_assert_eq(w.s, NULL);
    world_end(&w);
    world_start(&w);
}

Test(state_files, a_copy_that_fails_says_so)
{
    char detail[256] = "";

    cr_assert_eq(state_copy(w.s, "/nonexistent/x", detail), -ENOENT);
    cr_assert(strstr(detail, "/nonexistent/x") != NULL);
}
