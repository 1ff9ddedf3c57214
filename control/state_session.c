/* Sessions and exactly-once: results by (session, seq), kept until the session has them. */
#include "control/state_private.h"

#include <errno.h>
#include <stdio.h>

static int session_load(struct state *s, uint64_t id, struct session_row *r)
{
    struct key k = st_key1(id);

    return st_get_row(s, DB_SESSIONS, &k, r, sizeof(*r));
}

static int session_store(struct state *s, uint64_t id, const struct session_row *r)
{
    struct key k = st_key1(id);

    return st_put(s, DB_SESSIONS, &k, r, sizeof(*r));
}

/* Erases results with seq < below. */
static int results_erase(struct state *s, uint64_t id, uint64_t below, uint32_t *erased)
{
    MDB_cursor *cur;
    MDB_val key, val;
    int rc = st_cursor(s, DB_RESULTS, &cur);

    *erased = 0;
    if (rc < 0)
        return rc;
    for (;;) {
        struct key k = st_key2(id, 0);
        rc = st_seek(s, cur, &k, &key, &val);
        if (rc < 0 || !st_under(&key, id) || st_key_u64(&key, 8) >= below)
            break;
        rc = st_cursor_del(s, DB_RESULTS, cur, &val);
        if (rc < 0)
            break;
        (*erased)++;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

static int result_load(struct state *s, uint64_t session, uint64_t seq, struct state_result *out)
{
    struct key k = st_key2(session, seq);
    MDB_val val;
    int32_t status;
    int rc = st_get(s, DB_RESULTS, &k, &val);

    if (rc < 0)
        return rc;
    if (val.mv_size < sizeof(status))
        return st_fail(s, MDB_CORRUPTED);
    memcpy(&status, val.mv_data, sizeof(status));
    rc = st_buffer_room(s, &s->kept, val.mv_size - sizeof(status));
    if (rc < 0)
        return rc;
    if (s->kept.len > 0)
        memcpy(s->kept.data, (uint8_t *)val.mv_data + sizeof(status), s->kept.len);
    *out = (struct state_result){
        .status = status, .body = s->kept.data, .body_len = s->kept.len, .replayed = true};
    return 0;
}

/* What the session acknowledged goes. */
static int session_acked(struct apply *a, struct session_row *r, bool *changed)
{
    uint64_t acked = a->e->acked < a->e->seq ? a->e->acked : a->e->seq;
    uint32_t erased;

    *changed = acked > r->acked;
    if (!*changed)
        return 0;
    int rc = results_erase(a->s, a->e->session, acked, &erased);
    r->acked = acked;
    r->results -= erased;
    return rc;
}

int st_session_admit(struct apply *a, struct state_result *result, bool *keep)
{
    struct state *s = a->s;
    struct session_row r;
    bool changed;
    int verdict;

    if (a->e->session == 0)
        return 0;
    int rc = session_load(s, a->e->session, &r);
    if (rc < 0)
        return rc == -ENOENT ? -ESTALE : rc;
    if (a->e->seq == 0)
        return 0;
    if (a->e->seq == UINT64_MAX) /* results_erase could not name it */
        return -EINVAL;
    rc = session_acked(a, &r, &changed);
    if (rc < 0)
        return rc;
    rc = result_load(s, a->e->session, a->e->seq, result);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (a->e->seq < r.acked)
        verdict = -ESTALE; /* its answer was received; this is a late twin */
    else if (rc == 0)
        verdict = 1;
    else
        verdict = r.results < RESULTS_MAX ? 0 : -EBUSY;
    if (verdict == 0) {
        *keep = changed = true;
        r.results++;
    }
    rc = changed ? session_store(s, a->e->session, &r) : 0;
    return rc < 0 ? rc : verdict;
}

int st_session_has_packs(struct state *s, uint64_t session)
{
    struct session_row r;
    int rc = session_load(s, session, &r);

    if (rc < 0 || r.has_packs)
        return rc;
    r.has_packs = 1;
    return session_store(s, session, &r);
}

int st_session_keep(struct apply *a, int status, const struct buffer *body)
{
    struct key k = st_key2(a->e->session, a->e->seq);
    int32_t status32 = status;
    void *at;
    int rc = st_reserve(a->s, DB_RESULTS, &k, sizeof(status32) + body->len, &at);

    if (rc < 0)
        return rc;
    memcpy(at, &status32, sizeof(status32));
    if (body->len > 0)
        memcpy((uint8_t *)at + sizeof(status32), body->data, body->len);
    return 0;
}

/* --- commands --- */

int st_cmd_session_open(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogSession *q = (const Star__LogSession *)body;
    Star__LogSession reply = STAR__LOG_SESSION__INIT;
    struct session_row r = {0};

    if (strlen(q->name) >= sizeof(r.name) || strlen(q->machine) >= sizeof(r.machine))
        return st_refuse(a, -EINVAL, "a mount's name or machine id is too long");
    strcpy(r.name, q->name);
    strcpy(r.machine, q->machine);
    int rc = session_store(a->s, a->count, &r);
    if (rc < 0)
        return rc;
    reply.session = a->count;
    return st_reply(a, &reply.base);
}

int st_cmd_session_end(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogSession *q = (const Star__LogSession *)body;
    struct key k = st_key1(q->session);
    struct session_row r;
    uint32_t erased;
    int rc = session_load(a->s, q->session, &r);

    if (rc == 0 && r.has_packs)
        rc = st_packs_of_gone(a->s, 0, q->session);
    if (rc == 0)
        rc = st_del(a->s, DB_SESSIONS, &k);
    return rc < 0 ? rc : results_erase(a->s, q->session, UINT64_MAX, &erased);
}

/* --- readers --- */

static void session_public(uint64_t id, const struct session_row *r, struct state_session *out)
{
    *out = (struct state_session){.id = id};
    memcpy(out->name, r->name, sizeof(out->name));
    memcpy(out->machine, r->machine, sizeof(out->machine));
}

int state_session(struct state *s, uint64_t id, struct state_session *out)
{
    struct session_row r;
    int rc = session_load(s, id, &r);

    if (rc == 0)
        session_public(id, &r, out);
    return rc;
}

int state_sessions(struct state *s, state_session_fn fn, void *arg)
{
    struct state_session session;
    struct session_row r;
    MDB_cursor *cur;
    MDB_val key, val;
    struct key k = st_key1(0);
    int rc = st_cursor(s, DB_SESSIONS, &cur);

    if (rc < 0)
        return rc;
    for (rc = st_seek(s, cur, &k, &key, &val); rc == 0; rc = st_next(s, cur, &key, &val)) {
        rc = st_row(s, &val, &r, sizeof(r));
        if (rc < 0)
            break;
        session_public(st_key_u64(&key, 0), &r, &session);
        if (!fn(arg, &session))
            break;
    }
    mdb_cursor_close(cur);
    return rc == -ENOENT ? 0 : rc;
}

int state_dedupe(struct state *s, uint64_t session, uint64_t seq, struct state_result *out)
{
    int rc = result_load(s, session, seq, out);

    return rc == 0 ? 1 : rc == -ENOENT ? 0 : rc;
}
