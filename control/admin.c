/* Commands of the control files: flush, evict, warm, gc, scrub; and of nodes: flush, drain and
 * release (leave.c goes on with those that leave). */
#include "control/centre.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Files that one command on a folder may name; beyond: ask for "/", which is "all". */
#define COMMAND_FILES_MAX (1u << 20)
#define PATH_DEPTH_MAX    1024

/* --- paths --- */

static int path_resolve(struct centre *c, const char *path, struct inode *out)
{
    int rc = state_inode(c->state, STATE_ROOT_INO, out);

    while (rc == 0) {
        path += strspn(path, "/");
        size_t len = strcspn(path, "/");
        if (len == 0)
            break;
        rc = state_lookup(c->state, out->ino, path, len, out);
        path += len;
    }
    return rc;
}

struct inos {
    struct centre *c;
    uint64_t *ino;
    size_t n, size;
    unsigned depth;
    int rc;
};

static int inos_add(struct inos *l, uint64_t ino)
{
    if (l->n >= COMMAND_FILES_MAX)
        return -E2BIG;
    if (l->n == l->size) {
        size_t size = l->size ? l->size * 2 : 64;
        uint64_t *grown = realloc(l->ino, size * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        l->ino = grown;
        l->size = size;
    }
    l->ino[l->n++] = ino;
    return 0;
}

static bool walk_entry(void *arg, const char *name, size_t len, uint64_t ino, uint32_t type,
                       uint64_t cookie)
{
    struct inos *l = arg;
    bool eof;

    (void)cookie;
    if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
        return true;
    if (S_ISREG(type)) {
        l->rc = inos_add(l, ino);
    } else if (S_ISDIR(type)) {
        if (++l->depth > PATH_DEPTH_MAX) {
            l->rc = -ELOOP;
            return false;
        }
        int rc = state_readdir(l->c->state, ino, 0, walk_entry, l, &eof);
        l->depth--;
        if (l->rc == 0)
            l->rc = rc;
    }
    return l->rc == 0;
}

static int collect_files(struct centre *c, const char *path, struct inos *l, bool *all)
{
    struct inode i;
    bool eof;

    l->c = c;
    *all = *all && path[strspn(path, "/")] == '\0';
    if (*all)
        return 0;
    int rc = path_resolve(c, path, &i);
    if (rc < 0)
        return rc;
    if (S_ISREG(i.mode))
        return inos_add(l, i.ino);
    if (!S_ISDIR(i.mode))
        return 0;
    rc = state_readdir(c->state, i.ino, 0, walk_entry, l, &eof);
    return rc < 0 ? rc : l->rc;
}

/* --- flush, evict, warm --- */

struct moved {
    uint64_t files, bytes, failed;
    bool release; /* a drain at whose end the node leaves */
    char detail[128];
};

static void on_moved(void *arg, const struct message *reply)
{
    struct op *op = arg;
    struct moved *sum = op->data;
    int status = reply->status;

    if (status >= 0) {
        Star__FlushReply *r =
            (Star__FlushReply *)frame_unpack(reply, &star__flush_reply__descriptor);
        if (r) {
            sum->files += r->files;
            sum->bytes += r->bytes;
            sum->failed += r->failed;
            if (r->failed && !sum->detail[0])
                snprintf(sum->detail, sizeof(sum->detail), "%s", r->detail);
            star__flush_reply__free_unpacked(r, NULL);
        } else {
            status = -EPROTO;
        }
    }
    op_answered(op, status);
}

static void move_finish(struct op *op)
{
    struct moved *sum = op->data;
    Star__CtlReply r = STAR__CTL_REPLY__INIT;
    char text[128];

    if (op->status < 0) {
        op_error(op, op->status, "a node did not do it: %s", strerror(-op->status));
        return;
    }
    if (sum->failed) {
        char detail[128];
        memcpy(detail, sum->detail, sizeof(detail));
        op_error(op, -EIO, "%" PRIu64 " files failed: %s", sum->failed, detail);
        return;
    }
    snprintf(text, sizeof(text), "files %" PRIu64 "\nbytes %" PRIu64 "\n", sum->files, sum->bytes);
    r.text = text;
    op_reply(op, 0, &r.base);
}

/* The pool has all data now; with the names beside it nothing else is needed to have it all back.
 */
static void flushed_all(struct op *op)
{
    struct moved *sum = op->data;

    if (op->status >= 0 && sum->failed == 0)
        meta_after(op);
    op_wait(op, move_finish);
}

static void move_at(struct op *op, struct node *n, uint16_t type, const struct inos *l, bool all)
{
    size_t at = 0;

    do {
        Star__FlushRequest body = STAR__FLUSH_REQUEST__INIT;
        body.all = all;
        body.ino = l->ino + at;
        body.n_ino = l->n - at < NODE_BATCH_MAX ? l->n - at : NODE_BATCH_MAX;
        at += body.n_ino;
        int rc = peer_request(n->peer, type, &body.base, NODE_COMMAND_DEADLINE_MS, on_moved, op);
        if (rc == 0)
            op->pending++;
        else
            op->status = rc;
    } while (at < l->n);
}

static bool is_away(const struct node *n)
{
    return n && !n->peer && node_keeps_homes(n);
}

/* A node whose staged data of these files cannot be flushed now, or NULL. */
static const struct node *away_home(struct centre *c, const struct inos *l, bool all)
{
    struct node *n;
    struct inode i;

    for (n = c->nodes; n && all; n = n->hh.next)
        if (is_away(n))
            return n;
    for (size_t k = 0; k < l->n; k++) {
        n = state_inode(c->state, l->ino[k], &i) == 0 && i.home ? node_find(c, i.home) : NULL;
        if (is_away(n))
            return n;
    }
    return NULL;
}

static void move_data(struct op *op, uint16_t type, const char *path)
{
    struct centre *c = op->c;
    struct inos l = {0};
    struct node *n;
    /* A node knows what it has, but not what it could have: files to warm are named. */
    bool all = type != STAR__MSG_TYPE__WARM;

    free(op->data);
    op->data = calloc(1, sizeof(struct moved));
    int rc = op->data ? collect_files(c, path, &l, &all) : -ENOMEM;
    if (rc < 0) {
        free(l.ino);
        op_error(op, rc, "%s: %s", path,
                 rc == -E2BIG ? "too many files; name a smaller folder, or / for all but warm"
                              : strerror(-rc));
        return;
    }
    struct node *warm = type == STAR__MSG_TYPE__WARM ? home_choose(c, op->session) : NULL;
    const struct node *away = type == STAR__MSG_TYPE__FLUSH ? away_home(c, &l, all) : NULL;
    if (away || (type == STAR__MSG_TYPE__WARM && !warm)) {
        free(l.ino);
        if (away)
            op_error(op, -EAGAIN, "node %s is away: what is staged there cannot be flushed",
                     away->name);
        else
            op_error(op, -EAGAIN, "no node is ready to take data");
        return;
    }
    for (n = c->nodes; n && (all || l.n > 0); n = n->hh.next)
        if (n->peer && (!warm || n == warm))
            move_at(op, n, type, &l, all);
    free(l.ino);
    op_wait(op, all && type == STAR__MSG_TYPE__FLUSH ? flushed_all : move_finish);
}

/* --- drain, release, forget --- */

static void on_drained(struct op *op)
{
    struct centre *c = op->c;
    struct moved *sum = op->data;
    struct node *n = node_find(c, op->node);
    bool done = op->status >= 0 && !sum->failed;

    /* It may have said HELLO meanwhile, or have been given up. */
    if (n && strcmp(n->state, "draining") == 0) {
        int rc = node_set_state(c, n, done ? "drained" : "ready");
        op->status = op->status ? op->status : rc;
        if (rc == 0 && done)
            events_add(&c->events, "node-drained",
                       "%s: %" PRIu64 " files, %" PRIu64 " bytes flushed", n->name, sum->files,
                       sum->bytes);
    } else if (op->status == 0) {
        op->status = -ECANCELED;
    }
    if (n && op->status == 0 && done && sum->release)
        node_let_go(op, n);
    else
        move_finish(op);
}

void node_drain(struct op *op, struct node *n, bool release)
{
    Star__Empty body = STAR__EMPTY__INIT;

    if (!n->peer) {
        op_error(op, -EAGAIN, "node %s is away; start it, or forget it and lose what only it has",
                 n->name);
        return;
    }
    if (strcmp(n->state, "ready") != 0 && !(release && strcmp(n->state, "drained") == 0)) {
        op_error(op, -EBUSY, "node %s is %s already", n->name, n->state);
        return;
    }
    struct moved *sum = calloc(1, sizeof(*sum));
    free(op->data);
    op->data = sum;
    int rc = sum ? node_set_state(op->c, n, "draining") : -ENOMEM;
    if (rc < 0) {
        op_reply(op, rc, NULL);
        return;
    }
    sum->release = release;
    op->node = n->id;
    rc = peer_request(n->peer, STAR__MSG_TYPE__DRAIN, &body.base, NODE_COMMAND_DEADLINE_MS,
                      on_moved, op);
    if (rc == 0)
        op->pending++;
    else
        op->status = rc;
    op_wait(op, on_drained);
}

/* --- parsing --- */

static char *next_word(char **text)
{
    char *word = *text + strspn(*text, " \t\n");
    char *end = word + strcspn(word, " \t\n");

    *text = *end ? end + 1 : end;
    *end = '\0';
    return word;
}

/* The rest of the line is the path: names may hold spaces. */
static char *rest_of_line(char *text)
{
    text += strspn(text, " \t");
    size_t len = strlen(text);
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    return text;
}

void admin_command(struct op *op, char *command)
{
    char *rest = command;
    char *word = next_word(&rest);
    char path[4096];

    if (strlen(rest) >= sizeof(path)) {
        op_error(op, -ENAMETOOLONG, "%s: the path is too long", word);
        return;
    }
    snprintf(path, sizeof(path), "%s", rest_of_line(rest));
    if (strcmp(word, "flush") == 0)
        move_data(op, STAR__MSG_TYPE__FLUSH, path);
    else if (strcmp(word, "evict") == 0 && *path)
        move_data(op, STAR__MSG_TYPE__EVICT, path);
    else if (strcmp(word, "warm") == 0 && *path)
        move_data(op, STAR__MSG_TYPE__WARM, path);
    else if (strcmp(word, "gc") == 0 && (!*path || strcmp(path, "reseal") == 0))
        gc_start(op, *path != '\0');
    else if (strcmp(word, "scrub") == 0)
        scrub_start(op, path);
    else if (strcmp(word, "key") == 0)
        keys_command(op, path);
    else if (strcmp(word, "token") == 0)
        join_token(op, path);
    else if (strcmp(word, "revoke") == 0)
        join_revoke(op, path);
    else if (strcmp(word, "evict") == 0 || strcmp(word, "warm") == 0)
        op_error(op, -EINVAL, "%s needs a path (/ for all)", word);
    else
        op_error(op, -EINVAL,
                 "'%.64s' is no command: flush [PATH], evict PATH, warm PATH, gc [reseal], scrub, "
                 "key, token "
                 "or revoke",
                 word);
}

void admin_node_command(struct op *op, struct node *n, char *command)
{
    char *rest = command;
    char *word = next_word(&rest);
    struct inos none = {0};

    if (*rest_of_line(rest)) {
        op_error(op, -EINVAL, "%.64s takes nothing after it", word);
    } else if (strcmp(word, "flush") == 0) {
        if (!n->peer) {
            op_error(op, -EAGAIN, "node %s is away", n->name);
            return;
        }
        free(op->data);
        op->data = calloc(1, sizeof(struct moved));
        if (!op->data) {
            op_reply(op, -ENOMEM, NULL);
            return;
        }
        move_at(op, n, STAR__MSG_TYPE__FLUSH, &none, true);
        op_wait(op, move_finish);
    } else if (strcmp(word, "drain") == 0 || strcmp(word, "release") == 0) {
        node_drain(op, n, strcmp(word, "release") == 0);
    } else if (strcmp(word, "scrub") == 0) {
        scrub_node_start(op, n);
    } else if (strcmp(word, "forget") == 0) {
        node_forget(op, n);
    } else {
        op_error(op, -EINVAL,
                 "'%.64s' is no command for a node: flush, drain, release, scrub or forget", word);
    }
}
