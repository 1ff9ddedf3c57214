/* umbel key: the recovery key of a sealed cloud, and generations of the cloud's own key. */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "control/wire/words.h"
#include "tools/commands.h"
#include "tools/ctl.h"
#include "tools/keyring.h"
#include "tools/options.h"
#include "tools/recovery_read.h"
#include "tools/text.h"

struct key_options {
    struct ctl_options ctl;
    const char *what, *file;
    bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct key_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->ctl;
        return 0;
    case 'f':
        o->file = arg;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->what != NULL)
            argp_error(state, "one argument too many (a recovery key is never given here, where "
                              "others can see it, but on standard input or in a file)");
        o->what = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->what == NULL)
            argp_error(state, "say check, replace or rotate");
        if (o->file != NULL && strcmp(o->what, "check") != 0)
            argp_error(state, "--file is for check");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"file", 'f', "FILE", 0, "check: read the recovery key from there (standard input)", 0},
    {"json", 'j', NULL, 0, "the result as JSON", 0},
    {0},
};
static const struct argp_child children[] = {{&ctl_argp, 0, NULL, 90}, {0}};
static const struct argp argp = {
    options,
    parse,
    "check|replace|rotate",
    "The keys of a sealed cloud."
    "\vcheck    whether the recovery key that you give is this cloud's, and opens what the pool "
    "has\n"
    "replace  makes another recovery key and prints it, this once; the one before opens nothing "
    "any more that is wrapped from now on\n"
    "rotate   a new generation of the cloud's key, for packs written from now on; the recovery key "
    "stays. `umbel gc --reseal` writes older packs anew\n\n"
    "replace and rotate go through a mount on the machine of the centre.",
    children,
    NULL,
    NULL};

struct status {
    char seal[8], cloud[POOL_CLOUD_MAX + 1], pool[PATH_MAX + 8], recovery[80], generation[16];
};

/* What the cloud says of its keys. */
static int read_status(const struct ctl *c, struct status *s)
{
    char *text = NULL;
    int rc = ctl_read(c, "status", &text);

    memset(s, 0, sizeof(*s));
    if (rc != 0) {
        ctl_tell(c, "status", rc);
        return rc;
    }
    bool told = text_value(text, "seal", s->seal, sizeof(s->seal)) &&
                text_value(text, "cloud", s->cloud, sizeof(s->cloud)) &&
                text_value(text, "pool", s->pool, sizeof(s->pool));
    bool sealed = told && strcmp(s->seal, "on") == 0;
    if (sealed)
        told = text_value(text, "recovery_key", s->recovery, sizeof(s->recovery)) &&
               text_value(text, "key_generation", s->generation, sizeof(s->generation));
    free(text);
    if (told && sealed)
        return 0;
    warnx(told ? "this cloud is not sealed: it has no keys (its packs have checksums only)"
               : "the cloud does not say what its keys are");
    return told ? -EOPNOTSUPP : -EPROTO;
}

/* ---- check */

/* Whether the pool's wrapped keys open, and reach up to what the cloud seals with. */
static int check_pool(const struct status *s, const struct recovery_key *key, uint32_t *generations)
{
    char detail[CONF_DETAIL] = "";
    struct keyring ring = {.count = 0};
    struct pool *p = NULL;
    uint64_t newest = 0;
    int rc = pool_open(s->pool, s->cloud, false, &p, detail);

    snprintf(ring.cloud, sizeof(ring.cloud), "%s", s->cloud);
    if (rc == 0)
        rc = keyring_recover(&ring, p, key, detail);
    if (rc == -EKEYREJECTED)
        snprintf(detail, sizeof(detail),
                 "what lies there is still wrapped for the one before; keep that, too");
    *generations = ring.count;
    if (rc == 0 && text_parse_number(s->generation, 1, UINT32_MAX, &newest) == 0 &&
        ring.count < newest) {
        snprintf(detail, sizeof(detail), "it has keys up to generation %u only, %s is in use",
                 ring.count, s->generation);
        rc = -EBADMSG;
    }
    if (rc != 0)
        warnx("this is the cloud's recovery key, but the pool cannot be opened with it now: %s",
              detail[0] != '\0' ? detail : strerror(-rc));
    keyring_wipe(&ring);
    pool_close(p);
    return rc;
}

static int check(const struct ctl *c, const struct key_options *o)
{
    char text[RECOVERY_LOCK_TEXT];
    struct recovery_lock lock;
    struct recovery_key key;
    uint32_t generations = 0;
    struct status s;
    int rc = read_status(c, &s);

    if (rc != 0 || (rc = recovery_read(o->file, &key)) != 0)
        return rc;
    rc = recovery_lock_of(&key, &lock);
    if (rc == 0) {
        recovery_lock_text(&lock, text);
        text[2 * RECOVERY_HALF] = '\0'; /* the public half */
        if (strcmp(s.recovery, text) != 0)
            rc = -EKEYREJECTED;
    }
    if (rc == -EKEYREJECTED)
        warnx(strcmp(s.recovery, "none") == 0
                  ? "this cloud has no recovery key yet: umbel key replace makes one"
                  : "this is not the recovery key of this cloud (well typed, but another one)");
    else if (rc != 0)
        warnx("the recovery key: %s", strerror(-rc));
    else
        rc = check_pool(&s, &key, &generations);
    recovery_wipe(&key);
    recovery_lock_wipe(&lock);
    explicit_bzero(text, sizeof(text));
    if (rc == 0 && o->json)
        printf("{\"recovery_key\": \"right\", \"generations\": %u}\n", generations);
    else if (rc == 0)
        printf("this is the recovery key: it opens the pool's wrapped keys (generations 1 to %u)\n",
               generations);
    return rc;
}

/* ---- replace, rotate */

static int show_new(const struct recovery_key *key, bool json)
{
    char text[RECOVERY_TEXT];
    int rc = recovery_text(key, text);

    if (rc == 0 && json)
        printf("{\"recovery_key\": \"%s\"}\n", text);
    else if (rc == 0)
        printf("%s\n", text);
    explicit_bzero(text, sizeof(text));
    return rc != 0 ? rc : fflush(stdout) == 0 && !ferror(stdout) ? 0 : -EIO;
}

/* It is shown before it counts: what cannot be shown must not come into use. */
static int replace(const struct ctl *c, const struct key_options *o)
{
    char command[RECOVERY_LOCK_TEXT + 16] = "key replace ";
    struct recovery_lock lock = {{0}, {0}};
    struct recovery_key key;
    struct status s;
    int rc = read_status(c, &s);

    if (rc != 0)
        return rc;
    rc = recovery_new(&key);
    if (rc == 0)
        rc = recovery_lock_of(&key, &lock);
    if (rc == 0)
        rc = show_new(&key, o->json);
    if (rc != 0)
        warnx("no new recovery key was shown, so the old one stays: %s", strerror(-rc));
    if (rc == 0) {
        recovery_lock_text(&lock, command + strlen(command));
        rc = ctl_write(c, "ctl", command);
        warnx(rc == 0
                  ? "this is the recovery key from now on: it is stored nowhere, write it down. "
                    "The one before opens nothing new"
                  : "keep the recovery key of before as well, until `umbel key check` finds the "
                    "new one right");
    }
    recovery_wipe(&key);
    recovery_lock_wipe(&lock);
    explicit_bzero(command, sizeof(command));
    return rc;
}

static int rotate(const struct ctl *c, const struct key_options *o)
{
    struct status s;
    int rc = read_status(c, &s);

    if (rc == 0)
        rc = ctl_write(c, "ctl", "key rotate");
    if (rc == 0)
        rc = read_status(c, &s);
    if (rc == 0)
        printf(o->json ? "{\"key_generation\": %s}\n" : "key_generation %s\n", s.generation);
    return rc;
}

int cmd_key(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const struct ctl *c, const struct key_options *o);
    } all[] = {{"check", check}, {"replace", replace}, {"rotate", rotate}};
    struct key_options o = {.json = false};
    const char *best = NULL;
    struct ctl c;

    prctl(PR_SET_DUMPABLE, 0); /* no core with keys in it */

    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    for (size_t n = 0; n < sizeof(all) / sizeof(all[0]); n++) {
        words_nearer(o.what, all[n].name, &best);
        if (strcmp(o.what, all[n].name) == 0)
            return ctl_find(&c, &o.ctl, NULL) == 0 && all[n].run(&c, &o) == 0 ? EXIT_DONE
                                                                              : EXIT_FAILED;
    }
    options_unknown("command", o.what, best);
    return EXIT_USAGE;
}
