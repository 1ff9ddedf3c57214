/*
 * umbel fsck: the centre checks its own state (.umbel/fsck); then the pool is held against the
 * packs that the state knows (.umbel/packs), and with --data every byte of them is read and
 * verified.
 */
#include <err.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "nodecache/pool/pool.h"
#include "tools/commands.h"
#include "tools/ctl.h"
#include "tools/keyring.h"
#include "tools/options.h"
#include "tools/progress.h"
#include "tools/root.h"
#include "tools/text.h"

#define TELL_MAX 100 /* problems of one kind that are named one by one */

struct pack {
    uint64_t id, size;
    uint64_t generation; /* of the key under which it is sealed; 0: unsealed */
    char state[16];      /* allocated, live, condemned, meta */
    bool in_pool;
    UT_hash_handle hh;
};

struct fsck {
    struct ctl_options ctl_options;
    struct ctl ctl;
    const char *pool_url;
    const char *key_file;
    bool data;
    struct keyring keys;
    struct pool *pool;
    struct pack *packs; /* by id */
    uint64_t problems, strangers, told;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct fsck *f = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &f->ctl_options;
        return 0;
    case 'd':
        f->data = true;
        return 0;
    case 'p':
        f->pool_url = arg;
        return 0;
    case 'k':
        f->key_file = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"data", 'd', NULL, 0, "read and verify every byte of every pack", 0},
    {"pool", 'p', "URL", 0, "where the pool is, as seen from here (what the cloud says)", 0},
    {"keys", 'k', "FILE", 0, "the keys of a sealed cloud, for --data (what the cloud says)", 0},
    {0},
};
static const struct argp_child children[] = {{&ctl_argp, 0, NULL, 90}, {0}};
static const struct argp argp = {
    options,
    parse,
    NULL,
    "Checks the cloud's state, and the pool against it. The cloud may be in use meanwhile."
    "\vExit status 0 only if there is no problem.",
    children,
    NULL,
    NULL};

static void problem(struct fsck *f, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void problem(struct fsck *f, const char *format, ...)
{
    va_list args;

    f->problems++;
    if (++f->told > TELL_MAX)
        return;
    va_start(args, format);
    fputs("problem ", stdout);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

/* ---- the state */

/* "problem TEXT" lines and a last line "problems N": without that one the answer is not whole. */
static int check_state(struct fsck *f)
{
    char *text = NULL, *rest, *line;
    bool whole = false;
    uint64_t claimed = 0, seen = 0;
    int rc = ctl_read(&f->ctl, "fsck", &text);

    if (rc != 0) {
        ctl_tell(&f->ctl, "fsck", rc);
        return rc;
    }
    for (rest = text; (line = text_line(&rest)) != NULL;) {
        whole = strncmp(line, "problems ", 9) == 0 &&
                text_parse_number(line + 9, 0, UINT64_MAX, &claimed) == 0;
        if (strncmp(line, "problem ", 8) == 0) {
            problem(f, "%s", line + 8);
            seen++;
        }
    }
    free(text);
    if (!whole) {
        warnx("the check of the state was cut short");
        return -EIO;
    }
    if (claimed > seen)
        f->problems += claimed - seen;
    return 0;
}

/* ---- the pool */

/* "ID STATE SIZE LIVE_BYTES LIVE_RECORDS GENERATION"; the id is decimal. */
static int add_pack(struct fsck *f, char *line)
{
    struct pack *p = calloc(1, sizeof(*p));
    char *save = NULL, *id = strtok_r(line, " ", &save), *state = strtok_r(NULL, " ", &save),
         *size = strtok_r(NULL, " ", &save);
    strtok_r(NULL, " ", &save);
    strtok_r(NULL, " ", &save);
    char *generation = strtok_r(NULL, " ", &save);

    if (p == NULL)
        return -ENOMEM;
    if (generation == NULL || text_parse_number(id, 1, UINT64_MAX, &p->id) != 0 ||
        text_parse_number(size, 0, UINT64_MAX, &p->size) != 0 ||
        text_parse_number(generation, 0, UINT32_MAX, &p->generation) != 0) {
        free(p);
        return -EBADMSG;
    }
    snprintf(p->state, sizeof(p->state), "%s", state);
    HASH_ADD(hh, f->packs, id, sizeof(p->id), p);
    return 0;
}

/* One page of the list. *next: the page behind it; 0: this was the last, and says so. */
static int read_page(struct fsck *f, const char *file, uint64_t *next)
{
    char *text = NULL, *rest, *line;
    bool whole = false;
    int rc = ctl_read(&f->ctl, file, &text);

    *next = 0;
    for (rest = text; rc == 0 && (line = text_line(&rest)) != NULL;) {
        if (line[0] != '\0' && line[0] != '#')
            rc = add_pack(f, line);
        else
            whole = strcmp(line, "# end") == 0 ||
                    (strncmp(line, "# next ", 7) == 0 &&
                     text_parse_number(line + 7, 1, UINT64_MAX, next) == 0);
    }
    free(text);
    return rc == 0 && !whole ? -EBADMSG : rc; /* cut short: nothing may be said of the rest */
}

static int read_packs(struct fsck *f)
{
    char file[40] = "packs";
    uint64_t next, before = 0;
    int rc;

    while ((rc = read_page(f, file, &next)) == 0 && next > before) {
        before = next;
        snprintf(file, sizeof(file), "packs.%ju", (uintmax_t)next);
    }
    if (rc == 0 && next != 0)
        rc = -EBADMSG;
    if (rc != 0)
        ctl_tell(&f->ctl, file, rc);
    return rc;
}

static bool seen_in_pool(void *arg, uint64_t id)
{
    struct fsck *f = arg;
    struct pack *p = NULL;

    HASH_FIND(hh, f->packs, &id, sizeof(id), p);
    if (p != NULL)
        p->in_pool = true;
    else
        f->strangers++;
    return true;
}

/* A pack that was condemned since the list was read may be gone by now: ask again about one that is
 * missing. */
static bool still_live(struct fsck *f, uint64_t id)
{
    char *text = NULL, key[24], value[64] = "", file[40] = "packs";

    snprintf(key, sizeof(key), "%ju", (uintmax_t)id);
    if (id > 1) /* the page that begins with it */
        snprintf(file, sizeof(file), "packs.%ju", (uintmax_t)(id - 1));
    bool live = ctl_read(&f->ctl, file, &text) != 0 ||
                (text_value(text, key, value, sizeof(value)) &&
                 (strncmp(value, "live", 4) == 0 || strncmp(value, "meta", 4) == 0));
    free(text);
    return live;
}

static int verify(struct fsck *f, const struct pack *p)
{
    char detail[POOL_DETAIL] = "";
    uint64_t bytes = 0;
    const struct pool_key *cloud = keyring_key(&f->keys, (uint32_t)p->generation);
    struct pool_key key;
    int rc = cloud != NULL ? pool_pack_key(cloud, p->id, &key) : 0;

    if (rc == 0)
        rc = pack_verify(f->pool, cloud != NULL ? &key : NULL, p->id, &bytes, detail);
    if (cloud != NULL)
        pool_key_wipe(&key);

    if (rc == -ENOENT && !still_live(f, p->id))
        return 0;
    if (rc != 0)
        problem(f, "pack %ju: %s", (uintmax_t)p->id, detail[0] != '\0' ? detail : strerror(-rc));
    else if (bytes != p->size)
        problem(f, "pack %ju has %ju bytes in the pool and %ju in the state", (uintmax_t)p->id,
                (uintmax_t)bytes, (uintmax_t)p->size);
    return 0;
}

/* With live records, or a copy of the centre's state. */
static bool is_kept(const struct pack *p)
{
    return strcmp(p->state, "live") == 0 || strcmp(p->state, "meta") == 0;
}

static void check_packs(struct fsck *f)
{
    uint64_t total = 0, done = 0;
    struct progress progress;
    struct pack *p, *next;

    HASH_ITER (hh, f->packs, p, next)
        total += is_kept(p) ? p->size : 0;
    progress_begin(&progress, f->data ? "verifying packs" : "looking for packs");
    HASH_ITER (hh, f->packs, p, next) {
        if (!is_kept(p))
            continue;
        if (!p->in_pool && still_live(f, p->id))
            problem(f, "pack %ju is %s and not in the pool", (uintmax_t)p->id, p->state);
        else if (p->in_pool && f->data)
            verify(f, p);
        done += p->size;
        progress_tick(&progress, done, total, NULL);
    }
    progress_end(&progress);
}

/* The pool's URL as the cloud says it; a marker in the pool says whose it is. */
static int open_pool(struct fsck *f)
{
    char *status = NULL, url[PATH_MAX + 8] = "", cloud[64] = "", detail[POOL_DETAIL] = "";
    int rc = ctl_read(&f->ctl, "status", &status);

    if (rc != 0) {
        ctl_tell(&f->ctl, "status", rc);
        return rc;
    }
    bool knows_cloud = text_value(status, "cloud", cloud, sizeof(cloud));
    if (f->pool_url != NULL)
        snprintf(url, sizeof(url), "%s", f->pool_url);
    else if (!text_value(status, "pool", url, sizeof(url)))
        rc = -ENOENT;
    free(status);
    if (rc == 0)
        rc = pool_open(url, knows_cloud ? cloud : NULL, false, &f->pool, detail);
    if (rc != 0)
        warnx("cannot open the pool %s: %s", url, detail[0] != '\0' ? detail : strerror(-rc));
    return rc;
}

static int check_pool(struct fsck *f)
{
    char detail[POOL_DETAIL] = "";
    int rc = open_pool(f);

    if (rc == 0)
        rc = read_packs(f);
    if (rc != 0)
        return rc;
    rc = pack_list(f->pool, seen_in_pool, f, detail);
    if (rc != 0) {
        warnx("cannot list the pool: %s", detail[0] != '\0' ? detail : strerror(-rc));
        return rc;
    }
    check_packs(f);
    return 0;
}

/* What is sealed can be verified only with the keys. */
static int read_keys(struct fsck *f)
{
    char *status = NULL, seal[8] = "off", path[PATH_MAX] = "", detail[CONF_DETAIL];
    int rc = ctl_read(&f->ctl, "status", &status);

    if (rc == 0) {
        text_value(status, "seal", seal, sizeof(seal));
        text_value(status, "key_file", path, sizeof(path));
    }
    free(status);
    if (rc != 0 || strcmp(seal, "on") != 0)
        return rc;
    if (f->key_file != NULL)
        snprintf(path, sizeof(path), "%s", f->key_file);
    rc = keyring_read(&f->keys, path, detail);
    if (rc != 0)
        warnx("%s", detail);
    return rc;
}

static void release(struct fsck *f)
{
    struct pack *p, *next;

    keyring_wipe(&f->keys);

    HASH_ITER (hh, f->packs, p, next) {
        HASH_DEL(f->packs, p);
        free(p);
    }
    if (f->pool != NULL)
        pool_close(f->pool);
}

int cmd_fsck(int argc, char **argv)
{
    struct fsck f = {0};

    if (options_parse(&argp, argc, argv, &f) != 0)
        return EXIT_USAGE;
    int rc = ctl_find(&f.ctl, &f.ctl_options, NULL);
    if (rc == 0 && f.data)
        rc = read_keys(&f);
    if (rc == 0)
        rc = check_state(&f);
    f.told = 0;
    if (rc == 0)
        rc = check_pool(&f);
    if (rc == 0) {
        /* Packs that were begun after the list was read, or whose end a crash prevented: gc takes
         * those. */
        if (f.strangers > 0)
            printf("note %ju object(s) in the pool that the state does not know\n",
                   (uintmax_t)f.strangers);
        printf("packs %u\nproblems %ju\n", HASH_COUNT(f.packs), (uintmax_t)f.problems);
    }
    release(&f);
    return rc == 0 && f.problems == 0 ? EXIT_DONE : EXIT_FAILED;
}
