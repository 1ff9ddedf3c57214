#include "fs/control_files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "fs/answer.h"
#include "fs/centre.h"
#include "fs/killed.h"

/* An open control file that is read. */
struct control {
    uint64_t fh;
    uint32_t uid; /* whose share it is of */
    pid_t writer; /* the thread that wrote last */
    char *text;
    size_t size;
    uint64_t
        base; /* the answer to a write stands behind what was written: it is read there, and at 0 */
    bool reread; /* read from the start again: fetch anew */
    char *gathered;
    size_t gathered_size;
    uint64_t gathered_at; /* where in the file it begins */
    int failed; /* a write of it: -errno, until somebody has heard of it at close or read */
    UT_hash_handle hh;
};

struct controls {
    pthread_mutex_t lock;
    struct control *open;
    struct control_shares shares;
    struct controls_told refused; /* in all */
    struct controls_told heard;   /* of that, the centre has */
    uint32_t refused_uid;
};

int controls_start(struct worker *w)
{
    w->controls = calloc(1, sizeof(*w->controls));
    if (!w->controls)
        return -ENOMEM;
    pthread_mutex_init(&w->controls->lock, NULL);
    return 0;
}

static void control_free(struct controls *cs, struct control *c)
{
    HASH_DEL(cs->open, c);
    control_shares_give(&cs->shares, c->uid, 1, c->size + c->gathered_size);
    free(c->text);
    free(c->gathered);
    free(c);
}

void controls_stop(struct worker *w)
{
    struct controls *cs = w->controls;
    struct control *c, *tmp;

    if (!cs)
        return;
    HASH_ITER (hh, cs->open, c, tmp)
        control_free(cs, c);
    pthread_mutex_destroy(&cs->lock);
    free(cs);
    w->controls = NULL;
}

/* So much more of it. The lock is held. */
static int take(struct controls *cs, uint32_t uid, uint64_t files, uint64_t bytes)
{
    int rc = control_shares_take(&cs->shares, uid, files, bytes);

    if (rc == -EMFILE) {
        cs->refused.full++;
        cs->refused_uid = uid;
    }
    return rc;
}

/* What is kept of q's handle; made if it is new. The lock is held. -EMFILE, -ENFILE, -ENOMEM. */
static int control_of(struct controls *cs, const struct kreq *q, struct control **out)
{
    HASH_FIND(hh, cs->open, &q->fh, sizeof(q->fh), *out);
    if (*out)
        return 0;
    struct control *c = calloc(1, sizeof(*c));
    int rc = c ? take(cs, q->ctx.uid, 1, 0) : -ENOMEM;
    if (rc < 0) {
        free(c);
        return rc;
    }
    c->fh = q->fh;
    c->uid = q->ctx.uid;
    HASH_ADD(hh, cs->open, fh, sizeof(c->fh), c);
    *out = c;
    return 0;
}

/* Makes size bytes the text of q's handle. answer: to what has been done already, so that its text,
 * which is short, is no reason to fail. Errors as above. */
static int set_text(struct kreq *q, const void *text, size_t size, uint64_t base, bool answer)
{
    struct controls *cs = q->w->controls;
    char *copy = malloc(size ? size : 1);
    struct control *c;
    int rc = copy ? 0 : -ENOMEM;

    if (rc < 0)
        return rc;
    if (size)
        memcpy(copy, text, size);
    pthread_mutex_lock(&cs->lock);
    rc = control_of(cs, q, &c);
    if (rc == 0 && size > c->size && answer)
        control_shares_put(&cs->shares, c->uid, size - c->size);
    else if (rc == 0 && size > c->size)
        rc = take(cs, c->uid, 0, size - c->size);
    else if (rc == 0)
        control_shares_give(&cs->shares, c->uid, 0, c->size - size);
    if (rc == 0) {
        free(c->text);
        c->text = copy;
        c->size = size;
        c->base = base;
        c->reread = false;
        copy = NULL;
    }
    pthread_mutex_unlock(&cs->lock);
    free(copy);
    return rc;
}

void control_release(struct worker *w, uint64_t fh)
{
    struct controls *cs = w->controls;
    struct control *c;

    pthread_mutex_lock(&cs->lock);
    HASH_FIND(hh, cs->open, &fh, sizeof(fh), c);
    if (c)
        control_free(cs, c);
    pthread_mutex_unlock(&cs->lock);
}

/* --- names --- */

static void ask_name(struct kreq *q, uint16_t type, const char *name, unsigned flags, kreq_fn then)
{
    Star__CtlLookup body = STAR__CTL_LOOKUP__INIT;
    Star__Cred cred;

    kreq_cred(q, &cred);
    body.parent = q->ino;
    body.name = kreq_bytes(name);
    body.cred = &cred;
    kreq_ask_within(q, type, &body.base, METADATA_DEADLINE_MS, flags, then);
}

static void on_done(struct kreq *q, const struct message *reply)
{
    kreq_end(q, reply->status);
}

void control_lookup(struct kreq *q, const char *name)
{
    ask_name(q, STAR__MSG_TYPE__CTL_LOOKUP, name, CLIENT_RESEND, kanswer_on_entry);
}

/* Not asked twice: they carry no number that would make a second asking harmless. */
void control_mkdir(struct kreq *q, const char *name)
{
    ask_name(q, STAR__MSG_TYPE__CTL_MKDIR, name, 0, kanswer_on_entry);
}

void control_rmdir(struct kreq *q, const char *name)
{
    ask_name(q, STAR__MSG_TYPE__CTL_RMDIR, name, 0, on_done);
}

/* --- open, read --- */

static void fetch(struct kreq *q, kreq_fn then)
{
    Star__Inode body = STAR__INODE__INIT;
    Star__Cred cred;

    kreq_cred(q, &cred);
    body.ino = q->ino;
    body.cred = &cred;
    kreq_ask(q, STAR__MSG_TYPE__CTL_READ, &body.base, then);
}

static void answer_opened(struct kreq *q)
{
    if (kanswer_open(q->req, q->fh, FOPEN_DIRECT_IO) < 0)
        control_release(q->w, q->fh);
    kreq_free(q);
}

static void on_opened(struct kreq *q, const struct message *reply)
{
    int rc = reply->status;

    if (rc >= 0)
        rc = set_text(q, reply->payload, reply->payload_len, 0, false);
    if (rc < 0)
        kreq_end(q, rc);
    else
        answer_opened(q);
}

void control_open(struct kreq *q)
{
    q->fh = fh_make(q->w, FH_CONTROL | (q->flags & O_APPEND ? FH_APPEND : 0));
    if ((q->flags & O_ACCMODE) == O_RDONLY)
        fetch(q, on_opened);
    else
        answer_opened(q); /* a command; what is read, is fetched then */
}

/* From memory; false: it must be fetched first. */
static bool answer_text(struct kreq *q)
{
    struct controls *cs = q->w->controls;
    struct control *c;

    pthread_mutex_lock(&cs->lock);
    HASH_FIND(hh, cs->open, &q->fh, sizeof(q->fh), c);
    if (!c || (c->reread && q->offset == 0)) {
        pthread_mutex_unlock(&cs->lock);
        return false;
    }
    uint64_t at = c->base && q->offset >= c->base ? q->offset - c->base : q->offset;
    size_t size = at < c->size ? c->size - (size_t)at : 0;
    if (size > q->length)
        size = q->length;
    if (c->base == 0)
        c->reread = true;
    fuse_reply_buf(q->req, size ? c->text + at : NULL, size);
    pthread_mutex_unlock(&cs->lock);
    kreq_free(q);
    return true;
}

static int say(struct kreq *q, const char *text, size_t size, client_reply_fn then)
{
    Star__CtlWrite body = STAR__CTL_WRITE__INIT;
    struct iovec payload = {.iov_base = (void *)(uintptr_t)text, .iov_len = size};
    struct head_box box;
    int rc = kreq_head(q, &box);

    if (rc < 0)
        return rc;
    body.ino = q->ino;
    body.head = &box.head;
    return msession_call(q->w, STAR__MSG_TYPE__CTL_WRITE, &body.base, &payload, size ? 1 : 0,
                         COMMAND_DEADLINE_MS, CLIENT_RESEND, then, q, NULL);
}

/* Sends what was gathered, or says why it could not be. false: there is nothing, and q is still the
 * caller's. */
static bool submit(struct kreq *q, client_reply_fn then)
{
    struct controls *cs = q->w->controls;
    struct control *c;
    char *text = NULL;
    size_t size = 0;
    int failed = 0;

    pthread_mutex_lock(&cs->lock);
    HASH_FIND(hh, cs->open, &q->fh, sizeof(q->fh), c);
    if (c) {
        text = c->gathered;
        size = c->gathered_size;
        q->other = c->gathered_at + size;
        c->gathered = NULL;
        c->gathered_size = 0;
        control_shares_give(&cs->shares, c->uid, 0, size);
        failed = c->failed;
        c->failed = 0;
    }
    pthread_mutex_unlock(&cs->lock);
    if (!text && failed == 0)
        return false;
    int rc = failed < 0 ? failed : say(q, text, size, then);
    free(text);
    if (rc < 0)
        kreq_end(q, rc);
    return true;
}

/* The answer, or "error WHY", is the file's text from now on. */
static int keep_answer(struct kreq *q, const struct message *reply)
{
    char why[300];
    int status;
    Star__CtlReply *r = kreq_unpack(reply, &star__ctl_reply__descriptor, &status);
    const char *text = r ? r->text : why;

    if (!r) {
        Star__ErrorReply *e =
            (Star__ErrorReply *)frame_unpack(reply, &star__error_reply__descriptor);
        snprintf(why, sizeof(why), "error %s\n", e && e->detail[0] ? e->detail : strerror(-status));
        if (e)
            star__error_reply__free_unpacked(e, NULL);
    }
    status = set_text(q, text, strlen(text), q->other, true);
    if (r)
        star__ctl_reply__free_unpacked(r, NULL);
    return status;
}

static void on_submitted_read(void *arg, const struct message *reply)
{
    struct kreq *q = arg;

    kreq_answered(q);
    int status = keep_answer(q, reply);
    if (status < 0)
        kreq_end(q, status);
    else if (!answer_text(q))
        kreq_end(q, -EIO); /* closed meanwhile */
}

static void on_text(struct kreq *q, const struct message *reply)
{
    int rc = reply->status;

    if (rc >= 0)
        rc = set_text(q, reply->payload, reply->payload_len, 0, false);
    if (rc < 0)
        kreq_end(q, rc);
    else if (!answer_text(q))
        kreq_end(q, -EIO); /* closed meanwhile */
}

void control_read(struct kreq *q)
{
    if (control_gathers(q->ino) && submit(q, on_submitted_read))
        return;
    if (!answer_text(q))
        fetch(q, on_text);
}

/* --- write --- */

/* The lock is held. */
static int gather_more(struct controls *cs, struct control *c, const struct kreq *q,
                       const char *text, size_t size)
{
    bool appends = fh_flags(q->fh) & FH_APPEND;
    char *grown;

    if (c->failed < 0)
        return c->failed;
    if (!c->gathered)
        c->gathered_at = q->offset;
    if (!appends && q->offset != c->gathered_at + c->gathered_size)
        return -ESPIPE;
    if (size > FRAME_PAYLOAD_MAX - c->gathered_size)
        return -EFBIG;
    if (!(grown = realloc(c->gathered, c->gathered_size + size + 1)))
        return -ENOMEM;
    c->gathered = grown;
    int rc = take(cs, c->uid, 0, size);
    if (rc < 0)
        return rc;
    memcpy(grown + c->gathered_size, text, size);
    c->gathered_size += size;
    c->writer = q->ctx.pid;
    return 0;
}

/* What has been gathered of a text that is not whole is of no use to anybody. */
static void give_up(struct controls *cs, struct control *c, int why)
{
    control_shares_give(&cs->shares, c->uid, 0, c->gathered_size);
    free(c->gathered);
    c->gathered = NULL;
    c->gathered_size = 0;
    c->failed = why;
}

static void gather(struct kreq *q, const char *text, size_t size)
{
    struct controls *cs = q->w->controls;
    struct control *c;

    pthread_mutex_lock(&cs->lock);
    int rc = control_of(cs, q, &c);
    if (rc == 0) {
        rc = gather_more(cs, c, q, text, size);
        if (rc < 0)
            give_up(cs, c, rc);
    }
    pthread_mutex_unlock(&cs->lock);
    if (rc < 0) {
        kreq_end(q, rc);
        return;
    }
    fuse_reply_write(q->req, size);
    kreq_free(q);
}

static void on_command(struct kreq *q, const struct message *reply)
{
    int status;
    Star__CtlReply *r = kreq_unpack(reply, &star__ctl_reply__descriptor, &status);

    if (r && r->text && r->text[0])
        status = set_text(q, r->text, strlen(r->text), q->offset + q->length, true);
    if (r)
        star__ctl_reply__free_unpacked(r, NULL);
    if (status < 0) {
        kreq_end(q, status);
        return;
    }
    fuse_reply_write(q->req, q->length);
    kreq_free(q);
}

static void on_command_answer(void *arg, const struct message *reply)
{
    struct kreq *q = arg;

    kreq_answered(q);
    on_command(q, reply);
}

void control_write(struct kreq *q, const char *text, size_t size)
{
    if (control_gathers(q->ino)) {
        gather(q, text, size);
        return;
    }
    int rc = say(q, text, size, on_command_answer);
    if (rc < 0)
        kreq_end(q, rc);
}

static void on_submitted_flush(void *arg, const struct message *reply)
{
    struct kreq *q = arg;

    /* A copy of the descriptor was closed, as a shell does behind each `>&3`: who has another one
     * reads the answer there. */
    kreq_answered(q);
    int status = keep_answer(q, reply);
    kreq_end(q, reply->status < 0 ? reply->status : status);
}

/* Who wrote it; 0: nothing was gathered. */
static pid_t writer_of(const struct kreq *q, bool *any)
{
    struct controls *cs = q->w->controls;
    pid_t writer = 0;
    struct control *c;

    pthread_mutex_lock(&cs->lock);
    HASH_FIND(hh, cs->open, &q->fh, sizeof(q->fh), c);
    *any = c && c->gathered;
    if (*any)
        writer = c->writer;
    pthread_mutex_unlock(&cs->lock);
    return writer;
}

static void drop(const struct kreq *q)
{
    struct controls *cs = q->w->controls;
    struct control *c;

    pthread_mutex_lock(&cs->lock);
    HASH_FIND(hh, cs->open, &q->fh, sizeof(q->fh), c);
    if (c && c->gathered) {
        give_up(cs, c, -ECANCELED);
        cs->refused.killed++;
        cs->refused_uid = c->uid;
    }
    pthread_mutex_unlock(&cs->lock);
}

/* The kernel closes the file for a process that was killed: it may have had more to write. If it
 * was another one that wrote, which lives, that one goes on. */
static bool is_cut_short(const struct kreq *q)
{
    bool any;
    pid_t writer = writer_of(q, &any);

    if (!any || !killed_is(q->ctx.pid))
        return false;
    if (killed_with(q->ctx.pid, writer))
        drop(q);
    return true;
}

void control_flush(struct kreq *q)
{
    if (!control_gathers(q->ino) || is_cut_short(q) || !submit(q, on_submitted_flush))
        kreq_end(q, 0);
}

/* --- what the centre hears --- */

struct controls_told controls_tell(struct worker *w, Star__Renew *renew, Star__ControlsRefused *r)
{
    struct controls *cs = w->controls;

    star__controls_refused__init(r);
    pthread_mutex_lock(&cs->lock);
    struct controls_told now = cs->refused;
    r->full = now.full - cs->heard.full;
    r->killed = now.killed - cs->heard.killed;
    r->uid = cs->refused_uid;
    pthread_mutex_unlock(&cs->lock);
    if (r->full > 0 || r->killed > 0)
        renew->controls = r;
    return now;
}

void controls_heard(struct worker *w, const struct controls_told *told)
{
    pthread_mutex_lock(&w->controls->lock);
    w->controls->heard = *told;
    pthread_mutex_unlock(&w->controls->lock);
}
