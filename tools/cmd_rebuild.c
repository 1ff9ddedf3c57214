/*
 * umbel rebuild: the control directory is lost; the pool has a copy of the state and packs that are
 * newer. A folder is made that `umbel up` starts from.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/options.h"
#include "tools/rebuild.h"
#include "tools/recovery_read.h"
#include "tools/root.h"

struct wish {
    const char *root, *pool;
    const char *keys, *recovery; /* files */
    bool sealed;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct wish *w = state->input;

    switch (key) {
    case 'r':
        w->root = arg;
        return 0;
    case 'p':
        w->pool = arg;
        return 0;
    case 'k':
        w->keys = arg;
        return 0;
    case 'R':
        w->recovery = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    case ARGP_KEY_END:
        if (w->root == NULL || w->pool == NULL)
            argp_error(state, "say --root NEWDIR and --pool URL");
        if (w->keys != NULL && w->recovery != NULL)
            argp_error(state, "--keys and --recovery exclude each other");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"root", 'r', "NEWDIR", 0, "the folder to make; it must not be there, or be empty", 0},
    {"pool", 'p', "URL", 0, "where the pool is", 0},
    {"recovery", 'R', "FILE", 0,
     "read the recovery key from there, if the pool is sealed (standard input, as for -)", 0},
    {"keys", 'k', "FILE", 0, "or a copy of the old folder's " KEYRING_NAME, 0},
    {0},
};
static const struct argp argp = {
    options,
    parse,
    NULL,
    "Makes the folder of a cloud anew from its pool, for `umbel up --root NEWDIR`."
    "\vNames come from the newest copy of the centre's state in the pool (made after each `umbel "
    "flush` of everything and every meta_interval). What packs say that are newer is added: newer "
    "contents of files; files that the copy does not know appear in lost+found by their numbers. "
    "What cannot be known: names, attributes and deletions of after the copy, and what was staged "
    "on nodes. No other process may use this cloud or write to its pool meanwhile; old nodes need "
    "new names and empty stores. The pool itself is not changed.",
    NULL,
    NULL,
    NULL};

static int fail(const char *what, int rc, const char *detail)
{
    warnx("%s: %s", what, detail[0] != '\0' ? detail : strerror(-rc));
    return rc;
}

/* Nobody is asked for a key who has given a folder that cannot be used. */
static int check_root(const struct wish *w)
{
    DIR *d = opendir(w->root);
    struct dirent *e;
    int rc = 0;

    if (d == NULL)
        return errno == ENOENT ? 0 : fail(w->root, -errno, "");
    while (rc == 0 && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, "umbel.conf") == 0)
            rc = fail(w->root, -EEXIST, "there is a cloud already; give an empty folder");
        else if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = -ENOTEMPTY;
    closedir(d);
    return rc == -ENOTEMPTY ? fail(w->root, rc, "the folder must be empty") : rc;
}

/* NEWDIR with umbel.conf.new, so that the cloud that is made there later is this one. */
static int make_root(const struct wish *w, const char *cloud)
{
    struct conf conf = {.format = CONF_FORMAT,
                        .seal = w->sealed,
                        .nodes = 1,
                        .controls = 1,
                        .capacity = CONF_CAPACITY_MIN};
    char path[PATH_MAX], detail[CONF_DETAIL] = "";

    if (mkdir(w->root, 0700) != 0 && errno != EEXIST)
        return fail(w->root, -errno, "");
    if (rmdir(w->root) != 0 || mkdir(w->root, 0700) != 0)
        return fail(w->root, -ENOTEMPTY, "the folder must be empty");
    snprintf(conf.cloud, sizeof(conf.cloud), "%s", cloud);
    snprintf(conf.pool, sizeof(conf.pool), "%s", w->pool);
    snprintf(path, sizeof(path), "%s/umbel.conf.new", w->root);
    int rc = conf_write(path, &conf, detail);
    return rc == 0 ? 0 : fail(path, rc, detail);
}

static int open_state(struct rebuild *r, const char *root)
{
    static const char *const folders[] = {"control-1", "control-1/state"};
    char path[PATH_MAX], detail[256] = "";
    int rc = 0;

    for (size_t n = 0; rc == 0 && n < 2; n++) {
        snprintf(path, sizeof(path), "%s/%s", root, folders[n]);
        if (mkdir(path, 0700) != 0)
            rc = fail(path, -errno, "");
    }
    snprintf(path, sizeof(path), "%s/control-1/state/data.mdb", root);
    if (rc == 0) {
        rc = rebuild_meta(r, path);
        if (rc == -ENOENT) {
            printf("note there is no copy of the centre's state in the pool: no names are known\n");
            rc = unlink(path) == 0 || errno == ENOENT ? 0 : -errno;
        }
        if (rc < 0)
            fail("the copy of the state", rc, r->detail);
    }
    snprintf(path, sizeof(path), "%s/control-1/state", root);
    if (rc == 0) {
        rc = state_open(path, &r->state, detail);
        if (rc < 0)
            fail(path, rc, detail);
    }
    return rc;
}

static void report(void *arg, const char *line)
{
    (void)arg;
    printf("problem %s\n", line);
}

static int check(struct rebuild *r)
{
    int64_t problems = state_check(r->state, report, NULL);

    if (problems == 0)
        return 0;
    return fail("the state that was put together", problems < 0 ? (int)problems : -EBADMSG,
                "it contradicts itself; keep the pool as it is and tell the developers");
}

static void account(const struct rebuild *r)
{
    char when[64] = "never";
    time_t t = (time_t)r->meta_time;
    struct tm tm;
    struct state_totals totals = {0};

    if (r->meta_count > 0 && gmtime_r(&t, &tm) != NULL)
        strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    state_totals(r->state, &totals);
    printf("copy_of_state %ju\ncopy_made %s\n", (uintmax_t)r->meta_count, when);
    printf("newer_packs %zu\nnewer_contents %ju\nin_lost_found %ju\n", r->fresh.n,
           (uintmax_t)r->cuts_taken, (uintmax_t)r->files_found);
    printf("incomplete_contents %ju\ndamaged_packs %ju\ndamaged_files %ju\n",
           (uintmax_t)r->cuts_partial, (uintmax_t)r->packs_damaged, (uintmax_t)r->files_damaged);
    printf("inodes %ju\n", (uintmax_t)totals.inodes);
    printf("not known: names, attributes and deletions of after %s; what was only on nodes\n",
           when);
}

static int put_together(struct rebuild *r, const struct wish *w)
{
    struct root_wish wish = {
        .pool = w->pool, .seal = w->sealed ? "on" : "off", .keys = w->sealed ? &r->keys : NULL};
    struct root root = {.lock = -1};
    int rc = rebuild_find(r);

    if (rc < 0)
        return fail("reading the pool", rc, r->detail);
    rc = open_state(r, w->root);
    if (rc < 0)
        return rc;
    rc = rebuild_begin(r);
    if (rc == 0)
        rc = rebuild_apply(r);
    if (rc == 0)
        rc = rebuild_end(r);
    if (rc < 0)
        return fail("putting the state together", rc, r->detail);
    rc = check(r);
    if (rc < 0)
        return rc;
    account(r);
    state_close(r->state, true);
    r->state = NULL;
    rc = root_create(&root, w->root, &wish);
    if (rc < 0)
        return fail(w->root, rc, root.detail);
    root_close(&root);
    return 0;
}

static bool see_serial(void *arg, uint32_t serial, const void *data, size_t len)
{
    (void)data, (void)len;
    *(uint32_t *)arg = serial;
    return false;
}

/* What is wrapped next must be newer than all that the pool has. */
static int from_file(struct rebuild *r, const char *file, uint32_t newest)
{
    char detail[CONF_DETAIL];
    int rc = keyring_read(&r->keys, file, detail);

    if (rc < 0)
        warnx("%s", detail);
    else if (r->keys.serial > 0 && r->keys.serial <= newest)
        r->keys.serial = newest + 1;
    return rc;
}

static int from_recovery(struct rebuild *r, const char *file)
{
    char detail[CONF_DETAIL];
    struct recovery_key key;
    int rc = recovery_read(file, &key);

    if (rc < 0)
        return rc;
    rc = keyring_recover(&r->keys, r->pool, &key, detail);
    recovery_wipe(&key);
    return rc == 0 ? 0 : fail("the pool's wrapped keys", rc, detail);
}

/* The cloud's keys, if the pool is sealed. */
static int find_keys(struct rebuild *r, struct wish *w, const char *cloud)
{
    uint32_t newest = 0; /* serial of what is wrapped there; 0: nothing is */
    int rc = pool_keys_get(r->pool, see_serial, &newest, r->detail);

    if (rc < 0)
        return fail(w->pool, rc, r->detail);
    w->sealed = w->keys != NULL || w->recovery != NULL || newest > 0;
    if (!w->sealed)
        return 0;
    snprintf(r->keys.cloud, sizeof(r->keys.cloud), "%s", cloud);
    if (w->keys != NULL)
        return from_file(r, w->keys, newest);
    if (w->recovery == NULL)
        printf("note the pool is sealed: its recovery key is read from standard input\n");
    fflush(stdout);
    return from_recovery(r, w->recovery);
}

int cmd_rebuild(int argc, char **argv)
{
    struct rebuild r = {.packs.size = sizeof(uint64_t),
                        .parts.size = sizeof(struct meta_part),
                        .metas.size = sizeof(struct meta_said),
                        .pieces.size = sizeof(struct piece),
                        .cuts.size = sizeof(struct cut_said),
                        .fresh.size = sizeof(Star__ConfirmPack)};
    char cloud[POOL_CLOUD_MAX + 1];
    struct wish w = {0};

    if (options_parse(&argp, argc, argv, &w) != 0)
        return EXIT_USAGE;
    prctl(PR_SET_DUMPABLE, 0); /* no core with keys in it */
    int rc = check_root(&w);
    if (rc < 0)
        return EXIT_FAILED;
    rc = pool_open(w.pool, NULL, false, &r.pool, r.detail);
    if (rc == 0)
        rc = pool_cloud(r.pool, cloud, r.detail);
    if (rc < 0)
        fail(w.pool, rc, r.detail);
    if (rc == 0)
        rc = find_keys(&r, &w, cloud);
    if (rc == 0)
        rc = make_root(&w, cloud);
    if (rc == 0)
        rc = put_together(&r, &w);
    if (r.state != NULL)
        state_close(r.state, false);
    if (r.pool != NULL)
        pool_close(r.pool);
    keyring_wipe(&r.keys);
    free(r.packs.rows);
    free(r.parts.rows);
    free(r.metas.rows);
    free(r.pieces.rows);
    free(r.cuts.rows);
    free(r.fresh.rows);
    return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}
