/*
 * The control-file tree .umbel (section 8 of the design): small virtual files whose text is made
 * when it is read.
 */
#include "control/ctl_tree.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "control/wire/clock.h"
#include "control/wire/stamp.h"

bool ctl_is_ino(uint64_t ino)
{
    return (ino & CONTROL_INO_BIT) != 0;
}

size_t ctl_text_max(uint64_t ino)
{
    return ino & CONTROL_INO_GATHERS ? CONTROL_TEXT_MAX : CTL_COMMAND_MAX;
}

static void problem_line(void *arg, const char *line)
{
    text_put(arg, "problem %s\n", line);
}

struct ctl_file {
    const char *name;
    uint32_t mode;
    void (*text)(struct centre *c, struct text *t);
    bool pages; /* NAME.N is the page behind N */
};

static const struct ctl_file top_files[] = {
    {"version", 0444, text_version, false},
    {"status", 0444, text_status, false},
    {"health", 0444, text_health, false},
    {"metrics", 0444, text_metrics, false},
    {"events", 0440, text_events, false},
    {"errors", 0444, text_errors, false},
    {"cache", 0440, text_cache, true},
    {"packs", 0440, text_packs, true},
    {"gc", 0444, text_gc, false},
    {"scrub", 0440, text_scrub, false},
    {"fsck", 0400, NULL, false},
    {"ctl", 0200, NULL, false},
};
static const struct ctl_file node_files[] = {{"status", 0444, NULL, false},
                                             {"ctl", 0200, NULL, false}};
static const struct {
    const char *name;
    enum kind kind;
} top_dirs[] = {{"settings", KIND_SETTINGS}, {"nodes", KIND_NODES}, {"jobs", KIND_JOBS}};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define TOP_CTL  (COUNT(top_files) - 1)
#define TOP_FSCK (COUNT(top_files) - 2)

/* --- settings by place in the state's table --- */

struct nth_setting {
    uint64_t want, at;
    const char *by_name;
    char name[64], value[64];
    bool found;
};

static bool match_setting(void *arg, const char *name, const char *value, const char *help)
{
    struct nth_setting *s = arg;

    (void)help;
    if (s->by_name ? strcmp(s->by_name, name) == 0 : s->at == s->want) {
        s->found = true;
        s->want = s->at;
        snprintf(s->name, sizeof(s->name), "%s", name);
        snprintf(s->value, sizeof(s->value), "%s", value);
    }
    s->at++;
    return !s->found;
}

static bool setting_at(struct centre *c, uint64_t index, struct nth_setting *s)
{
    *s = (struct nth_setting){.want = index};
    state_settings(c->state, match_setting, s);
    return s->found;
}

/* --- lookup, attributes --- */

int ctl_attr(struct centre *c, uint64_t ino, Star__Attr *attr, Star__Time times[3])
{
    struct timespec now = clock_real();
    struct nth_setting s;
    struct ctl_owner job = {0};
    uint32_t mode = 0;

    switch (kind_of(ino)) {
    case KIND_TOP:
    case KIND_SETTINGS:
    case KIND_NODES:
        mode = S_IFDIR | 0555;
        break;
    case KIND_FILE:
        if (file_of(ino) < COUNT(top_files))
            mode = S_IFREG | top_files[file_of(ino)].mode;
        break;
    case KIND_SETTING:
        if (setting_at(c, file_of(ino), &s))
            mode = S_IFREG | 0644;
        break;
    case KIND_NODE:
        if (node_find(c, (uint32_t)object_of(ino)))
            mode = S_IFDIR | 0555;
        break;
    case KIND_NODE_FILE:
        if (node_find(c, (uint32_t)object_of(ino)) && file_of(ino) < COUNT(node_files))
            mode = S_IFREG | node_files[file_of(ino)].mode;
        break;
    case KIND_JOBS:
    case KIND_JOBS_NEW:
    case KIND_JOBS_LIST:
    case KIND_JOB:
    case KIND_JOB_FILE:
        job = ctl_job_owner(c, ino);
        mode = job.mode;
        break;
    }
    if (!mode)
        return -ENOENT;
    star__attr__init(attr);
    for (int k = 0; k < 3; k++) {
        times[k] = stamp_of(now);
    }
    attr->atime = &times[0];
    attr->mtime = &times[1];
    attr->ctime = &times[2];
    attr->ino = ino;
    attr->mode = mode;
    attr->uid = job.uid;
    attr->gid = job.gid;
    attr->nlink = S_ISDIR(mode) ? 2 : 1;
    return 0;
}

/* "NAME.N" of a list in pages: N, or 0. */
static uint64_t page_of(const struct ctl_file *f, const ProtobufCBinaryData *name)
{
    size_t len = strlen(f->name);
    char digits[24], *end;

    if (!f->pages || name->len < len + 2 || name->len - len > sizeof(digits) ||
        memcmp(name->data, f->name, len) != 0 || name->data[len] != '.' ||
        !isdigit(name->data[len + 1]))
        return 0;
    memcpy(digits, name->data + len + 1, name->len - len - 1);
    digits[name->len - len - 1] = '\0';
    uint64_t after = strtoull(digits, &end, 10);
    return *end || after > OBJECT_MAX ? 0 : after;
}

static uint64_t lookup_top(const ProtobufCBinaryData *name)
{
    for (unsigned k = 0; k < COUNT(top_files); k++)
        if (ctl_name_is(name, top_files[k].name) || page_of(&top_files[k], name))
            return ctl_ino(KIND_FILE, page_of(&top_files[k], name), k);
    for (unsigned k = 0; k < COUNT(top_dirs); k++)
        if (ctl_name_is(name, top_dirs[k].name))
            return ctl_ino(top_dirs[k].kind, 0, 0);
    return 0;
}

static uint64_t ctl_find(struct centre *c, uint64_t parent, const ProtobufCBinaryData *name)
{
    struct node *n;

    if (parent == STATE_ROOT_INO)
        return ctl_name_is(name, ".umbel") ? ctl_ino(KIND_TOP, 0, 0) : 0;
    if (!ctl_is_ino(parent))
        return 0;
    if (ctl_name_is(name, "."))
        return parent;
    switch (kind_of(parent)) {
    case KIND_TOP:
        return ctl_name_is(name, "..") ? STATE_ROOT_INO : lookup_top(name);
    case KIND_SETTINGS: {
        char text[64];
        if (ctl_name_is(name, ".."))
            return ctl_ino(KIND_TOP, 0, 0);
        if (name->len >= sizeof(text))
            return 0;
        memcpy(text, name->data, name->len);
        text[name->len] = '\0';
        struct nth_setting s = {.by_name = text};
        state_settings(c->state, match_setting, &s);
        return s.found ? ctl_ino(KIND_SETTING, 0, (unsigned)s.want) : 0;
    }
    case KIND_NODES:
        if (ctl_name_is(name, ".."))
            return ctl_ino(KIND_TOP, 0, 0);
        for (n = c->nodes; n; n = n->hh.next)
            if (ctl_name_is(name, n->name))
                return ctl_ino(KIND_NODE, n->id, 0);
        return 0;
    case KIND_NODE:
        if (ctl_name_is(name, ".."))
            return ctl_ino(KIND_NODES, 0, 0);
        for (unsigned k = 0; k < COUNT(node_files); k++)
            if (ctl_name_is(name, node_files[k].name))
                return ctl_ino(KIND_NODE_FILE, object_of(parent), k);
        return 0;
    case KIND_JOBS:
        return ctl_name_is(name, "..") ? ctl_ino(KIND_TOP, 0, 0) : ctl_job_find(c, parent, name);
    case KIND_JOB:
        return ctl_name_is(name, "..") ? ctl_ino(KIND_JOBS, 0, 0) : ctl_job_find(c, parent, name);
    default:
        return 0;
    }
}

void serve_ctl_lookup(struct op *op)
{
    Star__CtlLookup *q = (Star__CtlLookup *)op->body;
    Star__EntryReply r = STAR__ENTRY_REPLY__INIT;
    Star__Attr attr;
    Star__Time times[3];

    if (!rights_allow(op) || ctl_job_file(op))
        return;
    uint64_t ino = ctl_find(op->c, q->parent, &q->name);

    if (ino == 0 || (ctl_is_ino(ino) && ctl_attr(op->c, ino, &attr, times) < 0)) {
        op_reply(op, -ENOENT, NULL);
        return;
    }
    if (!ctl_is_ino(ino)) {
        struct inode root;
        if (state_inode(op->c->state, ino, &root) < 0) {
            op_reply(op, -EIO, NULL);
            return;
        }
        attr_now(op->c, &root, &attr, times);
    }
    r.attr = &attr;
    op_reply(op, 0, &r.base);
}

/* --- readdir --- */

void ctl_list(struct ctl_listing *l, const char *name, uint64_t ino, uint32_t type)
{
    if (++l->cookie <= l->q->cookie || l->n == l->size)
        return;
    Star__DirEntry *e = &l->entries[l->n++];
    star__dir_entry__init(e);
    e->name.data = (uint8_t *)name;
    e->name.len = strlen(name);
    e->ino = ino;
    e->type = type;
    e->cookie = l->cookie;
}

struct setting_list {
    struct ctl_listing *l;
    unsigned k;
};

static bool list_setting(void *arg, const char *name, const char *value, const char *help)
{
    struct setting_list *s = arg;

    (void)value, (void)help;
    ctl_list(s->l, name, ctl_ino(KIND_SETTING, 0, s->k++), S_IFREG);
    return true;
}

static void list_all(struct centre *c, struct ctl_listing *l, uint64_t ino)
{
    struct setting_list s = {.l = l};
    struct node *n;

    ctl_list(l, ".", ino, S_IFDIR);
    ctl_list(l, "..", kind_of(ino) == KIND_TOP ? STATE_ROOT_INO : ctl_ino(KIND_TOP, 0, 0), S_IFDIR);
    switch (kind_of(ino)) {
    case KIND_TOP:
        for (unsigned k = 0; k < COUNT(top_files); k++)
            ctl_list(l, top_files[k].name, ctl_ino(KIND_FILE, 0, k), S_IFREG);
        for (unsigned k = 0; k < COUNT(top_dirs); k++)
            ctl_list(l, top_dirs[k].name, ctl_ino(top_dirs[k].kind, 0, 0), S_IFDIR);
        break;
    case KIND_SETTINGS:
        state_settings(c->state, list_setting, &s);
        break;
    case KIND_NODES:
        for (n = c->nodes; n; n = n->hh.next)
            ctl_list(l, n->name, ctl_ino(KIND_NODE, n->id, 0), S_IFDIR);
        break;
    case KIND_NODE:
        for (unsigned k = 0; k < COUNT(node_files); k++)
            ctl_list(l, node_files[k].name, ctl_ino(KIND_NODE_FILE, object_of(ino), k), S_IFREG);
        break;
    case KIND_JOBS:
    case KIND_JOB:
        ctl_job_list(c, l, ino);
        break;
    default:
        break;
    }
}

void serve_ctl_readdir(struct op *op)
{
    struct ctl_listing l = {.q = (Star__ReadDir *)op->body};
    Star__ReadDirReply r = STAR__READ_DIR_REPLY__INIT;

    if (!rights_allow(op))
        return;
    /* A page of names; the mount asks on with the last cookie. */
    l.size = l.q->max_bytes / 64 + 1;
    if (l.size > 1024)
        l.size = 1024;
    l.entries = calloc(l.size, sizeof(*l.entries));
    l.pointers = calloc(l.size, sizeof(*l.pointers));
    if (!l.entries || !l.pointers) {
        op_reply(op, -ENOMEM, NULL);
        goto out;
    }
    list_all(op->c, &l, l.q->ino);
    for (size_t k = 0; k < l.n; k++)
        l.pointers[k] = &l.entries[k];
    r.n_entries = l.n;
    r.entries = l.pointers;
    r.eof = l.n == 0 || l.entries[l.n - 1].cookie == l.cookie;
    op_reply(op, 0, &r.base);
out:
    free(l.entries);
    free(l.pointers);
    free(l.names);
}

/* --- fsck: in a thread, as it reads everything --- */

struct ctl_check {
    uv_work_t work;
    struct centre *c;
    struct op *op;
    struct state *view;
    struct text text;
};

static void answer_text(struct op *op, int rc, struct text *t)
{
    if (op->peer)
        peer_reply(op->peer, &op->request, rc, NULL, t->at, rc < 0 ? 0 : t->len);
    free(t->at);
    op_end(op);
}

static void check_work(uv_work_t *work)
{
    struct ctl_check *k = work->data;
    int64_t n = state_check(k->view, problem_line, &k->text);

    text_put(&k->text, "problems %" PRId64 "\n", n);
}

static void check_begin(struct op *op);

static void check_done(uv_work_t *work, int status)
{
    struct ctl_check *k = work->data;
    struct centre *c = k->c;
    struct op *next = c->check_waiting;

    (void)status;
    state_view_free(k->view);
    answer_text(k->op, 0, &k->text);
    free(k);
    c->check = NULL;
    if (c->checked) {
        c->checked(c);
    } else if (next) {
        c->check_waiting = next->wait_next;
        next->wait_next = NULL;
        check_begin(next);
    }
}

static void check_begin(struct op *op)
{
    struct centre *c = op->c;
    struct ctl_check *k = calloc(1, sizeof(*k));
    int rc = k ? state_view(c->state, &c->check_cancel, &k->view) : -ENOMEM;

    if (rc == 0) {
        k->c = c;
        k->op = op;
        k->work.data = k;
        c->check = k;
        rc = uv_queue_work(&c->loop, &k->work, check_work, check_done);
    }
    if (rc == 0)
        return;
    c->check = NULL;
    if (k)
        state_view_free(k->view);
    free(k);
    op_error(op, rc == -ENOMEM ? rc : -EIO, "the state cannot be checked: %s", strerror(-rc));
}

static void check_start(struct op *op)
{
    struct centre *c = op->c;

    if (c->check)
        LL_APPEND2(c->check_waiting, op, wait_next);
    else
        check_begin(op);
}

void ctl_check_stop(struct centre *c, void (*done)(struct centre *c))
{
    atomic_store(&c->check_cancel, true);
    c->checked = done;
    if (!c->check)
        done(c);
}

/* --- rmdir: of a job --- */

void serve_ctl_rmdir(struct op *op)
{
    const Star__CtlLookup *q = (const Star__CtlLookup *)op->body;
    uint64_t ino = ctl_find(op->c, q->parent, &q->name);
    struct ctl_owner job;

    if (!rights_allow(op))
        return;
    op->note_errors = true;
    if (!ctl_is_ino(ino) || kind_of(ino) != KIND_JOB || !(job = ctl_job_owner(op->c, ino)).mode) {
        op_reply(op, ino ? -EPERM : -ENOENT, NULL);
        return;
    }
    if (!q->cred || (q->cred->uid != 0 && q->cred->uid != job.uid)) {
        op_reply(op, -EACCES, NULL);
        return;
    }
    int rc = jobs_forget(op, object_of(ino));
    if (rc == -EBUSY)
        op_error(op, rc, "job %" PRIu64 " has not ended, or others wait for it: cancel it first",
                 object_of(ino));
    else if (rc < 0)
        op_reply(op, rc, NULL);
}

/* --- read and write --- */

void serve_ctl_read(struct op *op)
{
    uint64_t ino = ((Star__Inode *)op->body)->ino;
    struct centre *c = op->c;
    struct nth_setting s;
    struct text t = {.after = object_of(ino)};
    int rc = 0;

    if (!rights_allow(op))
        return;
    if (kind_of(ino) == KIND_FILE && file_of(ino) == TOP_FSCK) {
        check_start(op);
        return;
    }
    if (kind_of(ino) == KIND_FILE && file_of(ino) < TOP_FSCK) {
        top_files[file_of(ino)].text(c, &t);
    } else if (kind_of(ino) == KIND_SETTING && setting_at(c, file_of(ino), &s)) {
        text_put(&t, "%s\n", s.value);
    } else if (kind_of(ino) == KIND_NODE_FILE && file_of(ino) == 0) {
        struct node *n = node_find(c, (uint32_t)object_of(ino));
        if (n)
            text_node(n, &t);
        else
            rc = -ENOENT;
    } else if (kind_of(ino) == KIND_JOB_FILE || kind_of(ino) == KIND_JOBS_NEW ||
               kind_of(ino) == KIND_JOBS_LIST) {
        rc = ctl_job_text(c, ino, ((Star__Inode *)op->body)->cred, &t);
    } else {
        rc = -EACCES; /* ctl files are for writing */
    }
    answer_text(op, rc, &t);
}

static void setting_done(struct op *op, const struct state_result *r)
{
    if (r->status < 0)
        op_refuse(op, r);
    else
        op_reply(op, 0, NULL);
}

static void write_setting(struct op *op, const char *name, char *value)
{
    Star__LogSetting body = STAR__LOG_SETTING__INIT;

    while (*value && isspace((unsigned char)*value))
        value++;
    for (size_t len = strlen(value); len > 0 && isspace((unsigned char)value[len - 1]);)
        value[--len] = '\0';
    body.name = (char *)name;
    body.value = value;
    op_submit_own(op, STAR__LOG_TYPE__LOG_SETTING, &body.base, setting_done);
}

void serve_ctl_write(struct op *op)
{
    uint64_t ino = ((Star__CtlWrite *)op->body)->ino;
    char *text = op->data; /* NUL-terminated by centre_request */
    struct nth_setting s;
    struct node *n;

    if (!rights_allow(op))
        return;
    op->note_errors = true;
    if (kind_of(ino) == KIND_JOBS_NEW)
        ctl_job_write(op, ino, text);
    else if (strlen(text) != op->request.payload_len)
        op_error(op, -EINVAL, "a command holds a NUL byte");
    else if (kind_of(ino) == KIND_FILE && file_of(ino) == TOP_CTL)
        admin_command(op, text);
    else if (kind_of(ino) == KIND_SETTING && setting_at(op->c, file_of(ino), &s))
        write_setting(op, s.name, text);
    else if (kind_of(ino) == KIND_NODE_FILE && file_of(ino) == 1 &&
             (n = node_find(op->c, (uint32_t)object_of(ino))))
        admin_node_command(op, n, text);
    else if (kind_of(ino) == KIND_JOB_FILE)
        ctl_job_write(op, ino, text);
    else
        op_error(op, -EACCES, "this control file is not for writing");
}
