/* umbel token, umbel join, umbel revoke: how other machines come into a cloud, and out of it. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control/wire/authority.h"
#include "control/wire/client.h"
#include "tools/commands.h"
#include "tools/ctl.h"
#include "tools/joined.h"
#include "tools/options.h"
#include "tools/text.h"

/* For all of `umbel join`, and for the centre's answer on a connection. */
#define JOIN_DEADLINE_S 30
#define JOIN_ANSWER_MS  15000

/* ---- token, revoke: through the control files */

struct token_options {
    struct ctl_options ctl;
    const char *role, *name;
    uint64_t seconds;
    char squash[48]; /* as the control file takes it, or "" */
};

/* "MODE" or "MODE,UID:GID". */
static bool take_squash(struct token_options *o, const char *given)
{
    struct identity_name who;

    if (strlen(given) >= sizeof(o->squash))
        return false;
    strcpy(o->squash, given);
    char *comma = strchr(o->squash, ',');
    if (comma != NULL)
        *comma = '=';
    return identity_squash_parse(o->squash, &who) == 0;
}

static error_t parse_token(int key, char *arg, struct argp_state *state)
{
    struct token_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->ctl;
        return 0;
    case 'e':
        if (text_parse_number(arg, 1, 30 * 86400, &o->seconds) != 0)
            argp_error(state, "--expires: '%s' is not a number of seconds", arg);
        return 0;
    case 's':
        if (!take_squash(o, arg))
            argp_error(state,
                       "--squash: not '%s' but none, root_squash[,UID:GID] or "
                       "all_squash,UID:GID",
                       arg);
        return 0;
    case ARGP_KEY_ARG:
        if (o->name)
            argp_error(state, "'%s' is one argument too many", arg);
        *(o->role ? &o->name : &o->role) = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->name)
            argp_error(state, "say who: node NAME, or mount NAME");
        if (o->squash[0] != '\0' && strcmp(o->role, "mount") != 0)
            argp_error(state, "--squash is about the users of a mount");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option token_options[] = {
    {"expires", 'e', "SECONDS", 0, "until when it can be used (3600)", 0},
    {"squash", 's', "MODE", 0,
     "of a mount: whom the cloud takes its users for: root_squash[,UID:GID] (the default: root is "
     "nobody), all_squash,UID:GID (all are one user), none (as they are: it is trusted)",
     0},
    {0},
};
static const struct argp_child ctl_child[] = {{&ctl_argp, 0, NULL, 90}, {0}};

/* Writes the command and reads what the same handle answers. */
static int command_text(const struct ctl *c, const char *command, char *out, size_t size)
{
    char path[PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/.umbel/ctl", c->mount);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, command, strlen(command));
    if (n >= 0)
        n = read(fd, out, size - 1);
    int rc = n < 0 ? -errno : n == 0 ? -EIO : 0;
    close(fd);
    if (rc == 0)
        out[n] = '\0';
    return rc;
}

int cmd_token(int argc, char **argv)
{
    static const struct argp argp = {
        token_options,
        parse_token,
        "node|mount NAME",
        "Makes a token with which one machine may join this cloud, once.",
        ctl_child,
        NULL,
        NULL};
    struct token_options o = {.seconds = 3600};
    char command[256], text[TOKEN_TEXT + 8];
    struct ctl c;

    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &o.ctl, NULL) != 0)
        return EXIT_FAILED;
    snprintf(command, sizeof(command), "token %.20s %.60s %ju %s", o.role, o.name,
             (uintmax_t)o.seconds, o.squash);
    int rc = command_text(&c, command, text, sizeof(text));
    if (rc == 0)
        fputs(text, stdout);
    else if (ctl_write(&c, "ctl", command) == 0) /* it says why; that it works now is no answer */
        warnx("no token: %s; try again", strerror(-rc));
    return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}

static error_t parse_revoke(int key, char *arg, struct argp_state *state)
{
    return parse_token(key == 'e' || key == 's' ? 0 : key, arg, state);
}

int cmd_revoke(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse_revoke,
        "node|mount NAME",
        "Refuses a machine that has joined, from now on. The name is not used again.",
        ctl_child,
        NULL,
        NULL};
    struct token_options o = {0};
    char command[128];
    struct ctl c;

    if (options_parse(&argp, argc, argv, &o) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &o.ctl, NULL) != 0)
        return EXIT_FAILED;
    snprintf(command, sizeof(command), "revoke %.20s/%.60s", o.role, o.name);
    return ctl_write(&c, "ctl", command) == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* ---- join */

struct join {
    const char *centre, *token, *dir, *name, *role;
    struct token parsed;
    struct joined joined;
    Star__Join body;
    uint8_t request[AUTHORITY_DER_MAX];
    Star__JoinReply *reply;
    sem_t done;
    atomic_int status; /* 0: nothing yet; 1: joined; < 0 */
    atomic_bool final;
    char detail[256];
};

static error_t parse_join(int key, char *arg, struct argp_state *state)
{
    struct join *j = state->input;

    switch (key) {
    case 'c':
        j->centre = arg;
        return 0;
    case 't':
        j->token = arg;
        return 0;
    case 'd':
        j->dir = arg;
        return 0;
    case 'n':
        j->name = arg;
        return 0;
    case 'r':
        if (strcmp(arg, "node") != 0 && strcmp(arg, "mount") != 0)
            argp_error(state, "--role: node or mount, not '%s'", arg);
        j->role = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' belongs to no option", arg);
        return 0;
    case ARGP_KEY_END:
        if (!j->centre || !j->token || !j->dir)
            argp_error(state, "say --centre HOST:PORT, --token TOKEN and --dir DIR");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option join_options[] = {
    {"centre", 'c', "HOST:PORT", 0, "where the cloud listens", 0},
    {"token", 't', "TOKEN", 0, "what `umbel token` said there", 0},
    {"dir", 'd', "DIR", 0, "where this machine keeps what it needs; made", 0},
    {"name", 'n', "NAME", 0, "as whom (the token says it, too)", 0},
    {"role", 'r', "ROLE", 0, "node or mount (the token says it, too)", 0},
    {0},
};

static void settle(struct join *j, int status, const char *detail, bool final)
{
    if (atomic_load(&j->final))
        return;
    snprintf(j->detail, sizeof(j->detail), "%s", detail);
    atomic_store(&j->status, status);
    if (final) {
        atomic_store(&j->final, true);
        sem_post(&j->done);
    }
}

static int on_connect(void *ctx, struct client *c)
{
    struct join *j = ctx;
    char detail[256] = "";

    if (atomic_load(&j->final)) /* the answer is here; nobody has stopped us yet */
        return -ECANCELED;
    int rc =
        client_handshake(c, STAR__MSG_TYPE__JOIN, &j->body.base, JOIN_ANSWER_MS,
                         &star__join_reply__descriptor, (ProtobufCMessage **)&j->reply, detail);

    if (rc >= 0)
        settle(j, 1, "", true);
    else if (rc != -ECONNRESET && rc != -EAGAIN) /* then the same request is sent again */
        settle(j, rc, detail[0] ? detail : strerror(-rc), true);
    return rc < 0 ? rc : -ECANCELED; /* this connection is of no more use */
}

static void on_fail(void *ctx, struct client *c, int err, const char *detail)
{
    (void)c;
    settle(ctx, err, detail, err == -EACCES);
}

static int ask(struct join *j, struct identity *id)
{
    struct client_ops ops = {
        .identity = id, .expect = IDENTITY_CONTROL, .on_connect = on_connect, .on_fail = on_fail};
    struct timespec until;
    struct client *client;
    int rc = client_start(j->joined.centre, "join", &ops, j, &client);

    if (rc < 0)
        return rc;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += JOIN_DEADLINE_S;
    while (sem_clockwait(&j->done, CLOCK_MONOTONIC, &until) < 0 && errno == EINTR)
        ;
    client_stop(client);
    rc = atomic_load(&j->status);
    if (rc == 0)
        snprintf(j->detail, sizeof(j->detail), "no answer within %d s", JOIN_DEADLINE_S);
    return rc == 1 ? 0 : rc == 0 ? -ETIMEDOUT : rc;
}

static int make_folders(struct join *j)
{
    static const char *const names[] = {"", "run", "log"};
    struct stat st;
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/join.conf", j->dir);
    if (stat(path, &st) == 0) {
        snprintf(j->detail, sizeof(j->detail), "%.200s has joined a cloud already", j->dir);
        return -EEXIST;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", j->dir, names[i]);
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            snprintf(j->detail, sizeof(j->detail), "cannot make %.200s: %s", path, strerror(errno));
            return -errno;
        }
    }
    j->joined.r.lock = -1;
    if (!realpath(j->dir, j->joined.r.path) || chmod(j->dir, 0700) != 0 ||
        root_path(&j->joined.r, "identity", j->joined.identity) != 0)
        return -errno;
    return 0;
}

/* What the centre has answered becomes this machine's. */
static int install(struct join *j)
{
    const Star__JoinReply *r = j->reply;
    struct identity *id = NULL;
    int rc = identity_install(j->joined.identity, r->certificate.data, r->certificate.len,
                              r->authority.data, r->authority.len, j->detail);

    if (rc == 0)
        rc = identity_load(j->joined.identity, r->cloud, &id, j->detail);
    identity_free(id);
    if (rc < 0)
        return rc;
    snprintf(j->joined.r.conf.cloud, sizeof(j->joined.r.conf.cloud), "%s", r->cloud);
    snprintf(j->joined.r.conf.pool, sizeof(j->joined.r.conf.pool), "%s", r->pool);
    snprintf(j->joined.who, sizeof(j->joined.who), "%s", r->identity);
    if (strpbrk(r->pool, "\n#") || strpbrk(r->cloud, "\n#") || strpbrk(r->identity, "\n#"))
        return -EPROTO;
    char detail[CONF_DETAIL] = "";
    rc = joined_write(&j->joined, detail);
    if (rc < 0)
        snprintf(j->detail, sizeof(j->detail), "%s", detail);
    return rc;
}

static int join_cloud(struct join *j)
{
    struct identity *id = NULL;
    int rc = token_parse(j->token, &j->parsed);

    if (rc < 0) {
        snprintf(j->detail, sizeof(j->detail), "this is no token; `umbel token` makes one");
        return rc;
    }
    if (snprintf(j->joined.centre, sizeof(j->joined.centre), "tcp:%s", j->centre) >=
            (int)sizeof(j->joined.centre) ||
        address_check(j->joined.centre) != 0) {
        snprintf(j->detail, sizeof(j->detail), "'%.100s' is not HOST:PORT", j->centre);
        return -EINVAL;
    }
    rc = make_folders(j);
    if (rc < 0)
        return rc;
    int n = identity_request(j->joined.identity, j->request, j->detail);
    rc = n < 0 ? n : identity_for_join(j->parsed.fingerprint, &id, j->detail);
    if (rc < 0)
        return rc;
    star__join__init(&j->body);
    j->body.secret = (ProtobufCBinaryData){TOKEN_SECRET, j->parsed.secret};
    j->body.request = (ProtobufCBinaryData){(size_t)n, j->request};
    j->body.name = (char *)(uintptr_t)(j->name ? j->name : "");
    if (j->role)
        j->body.role = strcmp(j->role, "node") == 0 ? STAR__ROLE__NODE : STAR__ROLE__MOUNT;
    rc = ask(j, id);
    identity_free(id);
    return rc < 0 ? rc : install(j);
}

int cmd_join(int argc, char **argv)
{
    static const struct argp argp = {
        join_options,
        parse_join,
        NULL,
        "Makes this machine part of a cloud elsewhere; then `umbel node --identity DIR` or `umbel "
        "mount --identity DIR MNT` work here.",
        NULL,
        NULL,
        NULL};
    struct join j = {0};

    if (options_parse(&argp, argc, argv, &j) != 0)
        return EXIT_USAGE;
    umask(077);
    sem_init(&j.done, 0, 0);
    int rc = join_cloud(&j);
    if (rc < 0)
        warnx("cannot join: %s", j.detail[0] ? j.detail : strerror(-rc));
    else
        printf("joined cloud %s as %s\n", j.joined.r.conf.cloud, j.joined.who);
    if (j.reply)
        star__join_reply__free_unpacked(j.reply, NULL);
    return rc < 0 ? EXIT_FAILED : EXIT_DONE;
}
