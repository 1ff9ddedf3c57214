/*
 * umbel rebuild: the control directory is lost; the pool has a copy of the state and packs that are
 * newer. A folder is made that `umbel up` starts from.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/options.h"
#include "tools/rebuild.h"
#include "tools/root.h"

struct wish {
    const char *root, *pool;
    const char *keys;
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
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    case ARGP_KEY_END:
        if (w->root == NULL || w->pool == NULL)
            argp_error(state, "say --root NEWDIR and --pool URL");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"root", 'r', "NEWDIR", 0, "the folder to make; it must not be there, or be empty", 0},
    {"pool", 'p', "URL", 0, "where the pool is", 0},
    {"keys", 'k', "FILE", 0, "a copy of the old folder's " KEYRING_NAME ", if the pool is sealed",
     0},
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

/* NEWDIR with umbel.conf.new, so that the cloud that is made there later is this one. */
static int make_root(const struct wish *w, const char *cloud)
{
    struct conf conf = {.format = CONF_FORMAT,
                        .seal = w->keys != NULL,
                        .nodes = 1,
                        .controls = 1,
                        .capacity = CONF_CAPACITY_MIN};
    char path[PATH_MAX], detail[CONF_DETAIL] = "";

    if (mkdir(w->root, 0700) != 0 && errno != EEXIST)
        return fail(w->root, -errno, "");
    snprintf(path, sizeof(path), "%s/umbel.conf", w->root);
    if (access(path, F_OK) == 0)
        return fail(w->root, -EEXIST, "there is a cloud already; give an empty folder");
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
        .pool = w->pool, .seal = w->keys != NULL ? "on" : "off", .keys = w->keys ? &r->keys : NULL};
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
    int rc = 0;
    if (w.keys != NULL) {
        char detail[CONF_DETAIL];
        rc = keyring_read(&r.keys, w.keys, detail);
        if (rc < 0) {
            warnx("%s", detail);
            return EXIT_FAILED;
        }
    }
    rc = pool_open(w.pool, NULL, false, &r.pool, r.detail);
    if (rc == 0)
        rc = pool_cloud(r.pool, cloud, r.detail);
    if (rc < 0)
        fail(w.pool, rc, r.detail);
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
