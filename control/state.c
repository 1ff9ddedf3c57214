/* The state as files: open, turns, copy, close; and the numbers that stand beside the rows. */
#include "control/state_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/wire/clock.h"

#define DETAIL 256
#define PATH   4096
/* The file is a sparse map that LMDB writes through, so a full disk would be a SIGBUS: space is
 * taken ahead of its use, where a lack of it is an error. A turn begins with AHEAD_MIN and ends
 * when half of that may be used; one command that needs more takes more on its way (st_space_more).
 * AHEAD_LEAST stays free: for what one change dirties before it is counted, and for LMDB's own
 * lists at the commit. */
#define AHEAD       ((uint64_t)32 << 20)
#define AHEAD_MIN   ((uint64_t)16 << 20)
#define AHEAD_LEAST ((uint64_t)2 << 20)
/* The reused reader, state_copy's, and views. */
#define READERS_MAX 8
/* "open BOOT-ID" while a process has it or had it last; "clean" after a clean close. Written in
 * place: it is smaller than any sector. */
#define MARK_SIZE 64

static const char *const db_names[DB_COUNT] = {
    [DB_META] = "meta",           [DB_INODES] = "inodes",   [DB_ENTRIES] = "entries",
    [DB_NAMES] = "names",         [DB_XATTRS] = "xattrs",   [DB_TARGETS] = "targets",
    [DB_EXTENTS] = "extents",     [DB_RECORDS] = "records", [DB_PACKS] = "packs",
    [DB_COPIES] = "copies",       [DB_HELD] = "held",       [DB_NODES] = "nodes",
    [DB_SESSIONS] = "sessions",   [DB_RESULTS] = "results", [DB_SETTINGS] = "settings",
    [DB_ORPHANS] = "orphans",     [DB_MOVED] = "moved",     [DB_TOKENS] = "tokens",
    [DB_REVOKED] = "revoked",     [DB_JOBS] = "jobs",       [DB_JOB_SPECS] = "job_specs",
    [DB_JOB_FILES] = "job_files", [DB_DEMAND] = "demand",
};

static void say(char *detail, const char *dir, const char *what, int rc)
{
    if (detail)
        snprintf(detail, DETAIL, "state in %.160s: %s: %s", dir, what, strerror(-rc));
}

/* --- the mark --- */

static int mark_write(int fd, const char *text)
{
    char block[MARK_SIZE] = {0};

    snprintf(block, sizeof(block), "%s\n", text);
    ssize_t n = pwrite(fd, block, sizeof(block), 0);
    if (n != (ssize_t)sizeof(block))
        return n < 0 ? -errno : -EIO;
    return fsync(fd) != 0 ? -errno : 0;
}

/* Opens and locks the mark; open_mark gets what it shall say. *trusted: the files are as the last
 * process or a clean close left them. */
static int mark_open(struct state *s, const char *dir, bool have_data, char open_mark[MARK_SIZE],
                     bool *trusted, char *detail)
{
    char path[PATH], text[MARK_SIZE + 1] = {0}, boot[37];
    int rc;

    snprintf(path, sizeof(path), "%s/mark", dir);
    s->mark = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->mark < 0) {
        rc = -errno;
        say(detail, dir, "mark", rc);
        return rc;
    }
    if (flock(s->mark, LOCK_EX | LOCK_NB) != 0) {
        rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
        say(detail, dir, "another process has it", rc);
        return rc;
    }
    rc = clock_boot_id(boot);
    ssize_t n = rc < 0 ? rc : pread(s->mark, text, MARK_SIZE, 0);
    if (rc == 0 && n < 0)
        rc = -errno;
    if (rc < 0) {
        say(detail, dir, "mark", rc);
        return rc;
    }
    snprintf(open_mark, MARK_SIZE, "open %s", boot);
    text[strcspn(text, "\n")] = '\0';
    /* Without any text: a copy that was put here, or nothing at all. */
    *trusted = !have_data || n == 0 || strcmp(text, "clean") == 0 || strcmp(text, open_mark) == 0;
    return 0;
}

/* --- open --- */

static int open_databases(struct state *s, bool create)
{
    unsigned flags = create ? MDB_CREATE : 0;
    int rc = 0;

    for (int db = 0; rc == 0 && db < DB_COUNT; db++) /* states of before have no jobs */
        rc = mdb_dbi_open(s->write, db_names[db], db >= DB_JOBS ? MDB_CREATE : flags, &s->dbi[db]);
    if (rc == MDB_NOTFOUND)
        rc = MDB_CORRUPTED;
    return st_fail(s, rc);
}

static int store_meta(struct state *s)
{
    struct key k = st_key1(0);

    return st_put(s, DB_META, &k, &s->meta, sizeof(s->meta));
}

static int load_meta(struct state *s)
{
    struct key k = st_key1(0);
    MDB_val val;
    int rc = st_get(s, DB_META, &k, &val);

    if (rc < 0)
        return rc == -ENOENT ? -ENOTRECOVERABLE : rc;
    if (val.mv_size < sizeof(s->meta.format))
        return -ENOTRECOVERABLE;
    memcpy(&s->meta.format, val.mv_data, sizeof(s->meta.format));
    if (s->meta.format != STATE_FORMAT)
        return s->meta.format > STATE_FORMAT ? -EPROTONOSUPPORT : -ENOTRECOVERABLE;
    return st_row(s, &val, &s->meta, sizeof(s->meta));
}

/* A file cut short (a copy that was not finished) must not be read: LMDB does not look. */
static int check_length(struct state *s, uint64_t size)
{
    mdb_filehandle_t fd;
    MDB_envinfo info;
    MDB_stat stat;

    if (mdb_env_info(s->env, &info) != MDB_SUCCESS || mdb_env_stat(s->env, &stat) != MDB_SUCCESS ||
        mdb_env_get_fd(s->env, &fd) != MDB_SUCCESS || stat.ms_psize == 0)
        return -EIO;
    if (size / stat.ms_psize > info.me_last_pgno)
        return 0;
    /* LMDB has made the file as long as its map: that would be believed the next time. */
    return ftruncate(fd, (off_t)size) != 0 ? -errno : -ENOTRECOVERABLE;
}

static int try_env(struct state *s, const char *dir, unsigned flags)
{
    int rc = mdb_env_create(&s->env);

    if (rc != MDB_SUCCESS) {
        s->env = NULL;
        return rc;
    }
    mdb_env_set_mapsize(s->env, STATE_MAP_SIZE);
    mdb_env_set_maxdbs(s->env, DB_COUNT);
    mdb_env_set_maxreaders(s->env, READERS_MAX);
    rc = mdb_env_open(s->env, dir, flags, 0600);
    if (rc != MDB_SUCCESS) {
        mdb_env_close(s->env);
        s->env = NULL;
    }
    return rc;
}

/* size: of data.mdb before; 0: there is none. */
static int open_env(struct state *s, const char *dir, uint64_t size)
{
    int rc = try_env(s, dir, STATE_LMDB_FLAGS | MDB_WRITEMAP);

    if (rc == EFBIG) { /* no sparse files of that size here: half as fast, but it works */
        s->allocated = UINT64_MAX;
        rc = try_env(s, dir, STATE_LMDB_FLAGS);
    }
    if (rc == MDB_INVALID || rc == MDB_CORRUPTED)
        return -ENOTRECOVERABLE;
    if (rc == MDB_VERSION_MISMATCH)
        return -EPROTONOSUPPORT;
    if (rc != MDB_SUCCESS)
        return st_fail(s, rc);
    return size > 0 ? check_length(s, size) : 0;
}

static int allocate_to(struct state *s, uint64_t end)
{
    mdb_filehandle_t fd;

    if (mdb_env_get_fd(s->env, &fd) != MDB_SUCCESS)
        return -EIO;
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)s->allocated, (off_t)(end - s->allocated)) != 0)
        return -errno;
    s->allocated = end;
    return 0;
}

/* Up to `end`; on a full disk what the reserve gives, if that is `least` at least. */
static int allocate(struct state *s, uint64_t end, uint64_t least)
{
    int rc = allocate_to(s, end);

    while (rc == -ENOSPC && s->room && s->room(s->room_arg, least - s->allocated))
        rc = allocate_to(s, least);
    if (rc == -ENOSPC)
        rc = allocate_to(s, least);
    if (rc == -EOPNOTSUPP) {
        s->allocated = UINT64_MAX;
        rc = 0;
    }
    return rc;
}

static int space_ahead(struct state *s)
{
    if (s->allocated == UINT64_MAX)
        return 0;
    s->used = state_bytes(s);
    s->dirty = 0;
    memset(s->leaf, 0, sizeof(s->leaf));
    if (s->allocated >= s->used + AHEAD_MIN)
        return 0;
    int rc = allocate(s, s->used + AHEAD, s->used + AHEAD_MIN);
    if (rc == -ENOSPC)
        rc = s->allocated >= s->used + AHEAD_LEAST ? 0 : allocate_to(s, s->used + AHEAD_LEAST);
    return rc;
}

int st_space_more(struct state *s)
{
    uint64_t end = s->used + s->dirty;
    int rc =
        s->allocated >= end + AHEAD_LEAST ? 0 : allocate(s, end + AHEAD, end + 2 * AHEAD_LEAST);

    return rc < 0 ? st_fail(s, -rc) : 0;
}

void state_on_full(struct state *s, state_room_fn fn, void *arg)
{
    s->room = fn;
    s->room_arg = arg;
}

bool state_turn_full(const struct state *s)
{
    return s->allocated != UINT64_MAX && s->dirty >= AHEAD_MIN / 2;
}

uint64_t state_bytes(struct state *s)
{
    MDB_envinfo info;

    return mdb_env_info(s->env, &info) == MDB_SUCCESS ? (info.me_last_pgno + 1) * s->page : 0;
}

static int load_or_make(struct state *s)
{
    MDB_stat stat;
    int rc = st_fail(s, mdb_env_stat(s->env, &stat));

    if (rc < 0)
        return rc;
    s->page = stat.ms_psize;
    rc = space_ahead(s);
    if (rc == 0)
        rc = st_fail(s, mdb_txn_begin(s->env, NULL, 0, &s->write));
    if (rc < 0)
        return rc;
    bool empty = stat.ms_entries == 0; /* also if a process died before its first commit */
    rc = open_databases(s, empty);
    if (rc == 0 && empty) {
        s->meta = (struct meta_row){.format = STATE_FORMAT, .last_ino = STATE_ROOT_INO};
        rc = st_root_make(s);
        if (rc == 0)
            rc = store_meta(s);
    } else if (rc == 0) {
        rc = load_meta(s);
    }
    if (rc == 0) {
        MDB_txn *txn = s->write;
        s->write = NULL;
        return st_fail(s, mdb_txn_commit(txn));
    }
    mdb_txn_abort(s->write);
    s->write = NULL;
    return rc == -EIO ? -ENOTRECOVERABLE : rc;
}

static void state_free(struct state *s)
{
    if (s->write)
        mdb_txn_abort(s->write);
    if (s->read)
        mdb_txn_abort(s->read);
    if (s->env)
        mdb_env_close(s->env);
    if (s->mark >= 0)
        close(s->mark);
    st_arena_free(s);
    free(s->reply.data);
    free(s->kept.data);
    free(s);
}

int state_open(const char *dir, struct state **out, char *detail)
{
    char data[PATH], open_mark[MARK_SIZE];
    struct stat st;
    bool trusted = false;
    int rc;
    struct state *s = calloc(1, sizeof(*s));

    *out = NULL;
    if (!s)
        return -ENOMEM;
    s->mark = -1;
    if (snprintf(data, sizeof(data), "%s/data.mdb", dir) >= (int)sizeof(data)) {
        rc = -ENAMETOOLONG;
        say(detail, dir, "path", rc);
        goto out;
    }
    bool have_data = stat(data, &st) == 0 && st.st_size > 0;
    rc = mark_open(s, dir, have_data, open_mark, &trusted, detail);
    if (rc < 0)
        goto out;
    if (!trusted) {
        rc = -ENOTRECOVERABLE;
        say(detail, dir, "the machine went down while it was open", rc);
        goto out;
    }
    rc = open_env(s, dir, have_data ? (uint64_t)st.st_size : 0);
    if (rc == 0)
        rc = mark_write(s->mark, open_mark); /* before anything is written */
    if (rc == 0)
        rc = load_or_make(s);
    if (rc < 0)
        say(detail, dir,
            rc == -EPROTONOSUPPORT   ? "written by a newer version of Umbel"
            : rc == -ENOTRECOVERABLE ? "data.mdb is not intact"
                                     : "data.mdb",
            rc);
out:
    if (rc < 0)
        state_free(s);
    else
        *out = s;
    return rc;
}

void state_close(struct state *s, bool clean)
{
    if (!s)
        return;
    if (clean && s->write)
        state_commit(s);
    if (clean && !s->broken && mdb_env_sync(s->env, 1) == MDB_SUCCESS)
        mark_write(s->mark, "clean"); /* an error leaves "open": rebuilt after a reboot */
    state_free(s);
}

/* --- turns --- */

int state_begin(struct state *s)
{
    if (s->broken)
        return s->broken;
    if (s->write)
        return -EBUSY;
    if (s->reading) { /* lets LMDB reuse the pages that this reader saw */
        mdb_txn_reset(s->read);
        s->reading = false;
    }
    int rc = space_ahead(s);
    if (rc == 0)
        rc = st_fail(s, mdb_txn_begin(s->env, NULL, 0, &s->write));
    if (rc < 0)
        s->write = NULL;
    return rc;
}

int state_commit(struct state *s)
{
    if (!s->write)
        return -EINVAL;
    int rc = s->broken;
    if (rc == 0)
        rc = store_meta(s);
    if (rc < 0)
        return rc;
    MDB_txn *txn = s->write;
    s->write = NULL;
    return st_fail(s, mdb_txn_commit(txn));
}

bool state_in_turn(const struct state *s)
{
    return s->write != NULL;
}

/* --- views --- */

int state_view(struct state *s, const atomic_bool *cancel, struct state **view)
{
    struct state *v = calloc(1, sizeof(*v));

    *view = NULL;
    if (!v)
        return -ENOMEM;
    v->env = s->env;
    memcpy(v->dbi, s->dbi, sizeof(v->dbi));
    v->page = s->page;
    v->allocated = UINT64_MAX;
    v->mark = -1;
    v->cancel = cancel;
    int rc = load_meta(v); /* begins its reader */
    if (rc < 0)
        state_view_free(v);
    else
        *view = v;
    return rc;
}

void state_view_free(struct state *v)
{
    if (!v)
        return;
    v->env = NULL; /* the state's */
    state_free(v);
}

/* --- copy --- */

static int sync_parent(const char *path)
{
    char dir[PATH];
    int rc = 0;

    snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    if (!slash)
        snprintf(dir, sizeof(dir), ".");
    else
        slash[slash == dir] = '\0';
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fsync(fd) != 0)
        rc = -errno;
    close(fd);
    return rc;
}

int state_copy(struct state *s, const char *path, char *detail)
{
    int rc, fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0) {
        rc = -errno;
        goto out;
    }
    int mdb = mdb_env_copyfd2(s->env, fd, MDB_CP_COMPACT);
    rc = mdb == MDB_SUCCESS ? 0 : mdb > 0 ? -mdb : -EIO;
    if (rc == 0 && fsync(fd) != 0)
        rc = -errno;
    if (close(fd) != 0 && rc == 0)
        rc = -errno;
    if (rc == 0)
        rc = sync_parent(path);
    if (rc < 0)
        unlink(path);
out:
    if (rc < 0 && detail)
        snprintf(detail, DETAIL, "copy of the state to %.160s: %s", path, strerror(-rc));
    return rc;
}

void state_begin_log(struct state *s)
{
    s->meta.applied = 0;
}

/* --- numbers --- */

uint64_t state_applied(const struct state *s)
{
    return s->meta.applied;
}

uint64_t state_last_ino(struct state *s)
{
    return s->meta.last_ino;
}

uint64_t state_last_pack(struct state *s)
{
    return s->meta.last_pack;
}

uint64_t state_last_time_ns(struct state *s)
{
    if (s->meta.sec < 0)
        return 0;
    return (uint64_t)s->meta.sec * 1000000000u + s->meta.nsec;
}

int state_totals(struct state *s, struct state_totals *out)
{
    *out = s->meta.totals;
    return 0;
}
