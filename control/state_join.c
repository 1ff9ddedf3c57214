/* Who may join: one-time tokens, by the hashes of their secrets; and who is not let in any more. */
#include "control/state_private.h"

#include <errno.h>

#include "control/wire/authority.h"

/* Tokens kept, used or not. A used or expired one goes after TOKEN_KEEP_S: until then it is told
 * apart from one that never was. */
#define TOKENS_MAX   10000u
#define TOKEN_KEEP_S (7 * 86400)
/* "mount/" and a name. */
#define IDENTITY_MAX 64

struct token_row {
    int64_t expires, used; /* seconds; used 0: not yet */
    uint8_t key[32];       /* of who used it */
    char identity[IDENTITY_MAX], squash[48];
};

static struct key key_of(const void *bytes, size_t n)
{
    struct key k = {.len = n < sizeof(k.bytes) ? n : sizeof(k.bytes)};

    memcpy(k.bytes, bytes, k.len);
    return k;
}

static void set_text(char *to, size_t size, const char *from)
{
    memset(to, 0, size); /* equal states have equal rows */
    memcpy(to, from, strnlen(from, size - 1));
}

static bool good_identity(const char *text)
{
    const char *name = strncmp(text, "node/", 5) == 0    ? text + 5
                       : strncmp(text, "mount/", 6) == 0 ? text + 6
                                                         : NULL;

    return name && strlen(text) < IDENTITY_MAX && identity_name_ok(name);
}

int state_revoked(struct state *s, const char *identity)
{
    struct key k = key_of(identity, strlen(identity));
    int64_t when;
    int rc = st_get_row(s, DB_REVOKED, &k, &when, sizeof(when));

    return rc == 0 ? 1 : rc == -ENOENT ? 0 : rc;
}

/* --- LOG_TOKEN --- */

/* Takes old tokens out; *left: how many stay. */
static int prune(struct apply *a, size_t *left)
{
    struct key k = {.len = 1};
    struct token_row r;
    MDB_val key, val;
    MDB_cursor *cur;
    int rc = st_cursor(a->s, DB_TOKENS, &cur);

    *left = 0;
    if (rc < 0)
        return rc;
    for (rc = st_seek(a->s, cur, &k, &key, &val); rc == 0; rc = st_next(a->s, cur, &key, &val)) {
        rc = st_row(a->s, &val, &r, sizeof(r));
        if (rc == 0 && r.expires < a->sec - TOKEN_KEEP_S)
            rc = st_cursor_del(a->s, DB_TOKENS, cur, &val);
        else
            (*left)++;
        if (rc < 0)
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

int st_cmd_token(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogToken *q = (const Star__LogToken *)body;
    struct identity_name squash = {0};
    struct token_row r = {.expires = q->expires};
    size_t left = 0;

    if (q->hash.len != TOKEN_HASH || !good_identity(q->identity) ||
        identity_squash_parse(q->squash[0] ? q->squash : "none", &squash) < 0)
        return st_refuse(a, -EINVAL, "this is no token");
    if (q->expires <= a->sec)
        return st_refuse(a, -EINVAL, "a token must expire in the future");
    int rc = state_revoked(a->s, q->identity);
    if (rc > 0)
        return st_refuse(a, -EPERM, "%s was revoked: names are not used again", q->identity);
    if (rc == 0)
        rc = prune(a, &left);
    if (rc < 0)
        return rc;
    if (left >= TOKENS_MAX)
        return st_refuse(a, -ENOSPC, "there are %u tokens: wait until some have expired",
                         TOKENS_MAX);
    struct key k = key_of(q->hash.data, q->hash.len);
    set_text(r.identity, sizeof(r.identity), q->identity);
    set_text(r.squash, sizeof(r.squash), q->squash);
    return st_put(a->s, DB_TOKENS, &k, &r, sizeof(r));
}

/* --- LOG_JOIN --- */

/* "node/" means any node, "" anybody. */
static bool is_meant(const char *asked, const char *identity)
{
    size_t n = strlen(asked);

    return n == 0 || strcmp(asked, identity) == 0 ||
           (asked[n - 1] == '/' && strncmp(asked, identity, n) == 0);
}

static int check_join(struct apply *a, const Star__LogJoin *q, const struct token_row *r)
{
    if (r->used && memcmp(r->key, q->key.data, sizeof(r->key)) != 0)
        return st_refuse(a, -EEXIST, "this token was used already: ask for a new one");
    if (!r->used && r->expires <= a->sec)
        return st_refuse(a, -EKEYEXPIRED, "this token has expired: ask for a new one");
    if (!is_meant(q->identity, r->identity))
        return st_refuse(a, -EPERM, "this token lets %s join, not %.64s", r->identity, q->identity);
    int rc = state_revoked(a->s, r->identity);
    return rc > 0 ? st_refuse(a, -EPERM, "%s was revoked", r->identity) : rc;
}

int st_cmd_join(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogJoin *q = (const Star__LogJoin *)body;
    Star__LogToken reply = STAR__LOG_TOKEN__INIT;
    struct token_row r;

    if (q->hash.len != TOKEN_HASH || q->key.len != sizeof(r.key))
        return st_refuse(a, -EINVAL, "this is no token");
    struct key k = key_of(q->hash.data, q->hash.len);
    int rc = st_get_row(a->s, DB_TOKENS, &k, &r, sizeof(r));
    if (rc == -ENOENT)
        return st_refuse(a, -EACCES, "this token is not known here: it is wrong, or long past");
    if (rc == 0)
        rc = check_join(a, q, &r);
    if (rc < 0)
        return rc;
    if (!r.used) {
        r.used = a->sec ? a->sec : 1;
        memcpy(r.key, q->key.data, sizeof(r.key));
        rc = st_put(a->s, DB_TOKENS, &k, &r, sizeof(r));
    }
    reply.identity = r.identity;
    reply.squash = r.squash;
    return rc < 0 ? rc : st_reply(a, &reply.base);
}

/* --- LOG_REVOKE --- */

int st_cmd_revoke(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogRevoke *q = (const Star__LogRevoke *)body;
    int64_t when = a->sec;

    if (!good_identity(q->identity))
        return st_refuse(a, -EINVAL, "'%.64s' names nobody: node/NAME or mount/NAME", q->identity);
    struct key k = key_of(q->identity, strlen(q->identity));
    return st_put(a->s, DB_REVOKED, &k, &when, sizeof(when));
}
