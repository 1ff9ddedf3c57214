/* A centre in a process of its own, and stand-ins for the mounts and the node that talk to it. */
#ifndef UMBEL_TEST_CONTROL_FAKE_H
#define UMBEL_TEST_CONTROL_FAKE_H

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/control.h"
#include "control/wire/client.h"
#include "control/wire/clock.h"
#include "control/wire/log.h"

#define FAKE_MS    20000 /* an answer that takes longer never comes */
#define FAKE_ITEMS 64
#define CLOUD_ID   "cloud-under-test"

#define T(name) STAR__MSG_TYPE__##name

/* ---- the centre */

struct cloud {
    char dir[64];
    char address[96];
    uint64_t reserve;
    pid_t pid;
};

/* The test program runs the centre itself if it finds this in its environment: a process that was
 * only forked would have locks of threads that it has not got. */
#define CENTRE_ENV "UMBEL_TEST_CENTRE"

static void __attribute__((constructor)) centre_process(void)
{
    const char *text = getenv(CENTRE_ENV);
    char dir[64], address[96], path[128];
    struct control_options options = {.name = "control-1",
                                      .dir = dir,
                                      .listen = address,
                                      .cloud = CLOUD_ID,
                                      .pool = "dir:/nowhere"};

    if (!text || sscanf(text, "%d %" SCNu64 " %63s", &options.ready_fd, &options.reserve, dir) != 3)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(address, sizeof(address), "unix:%s/sock", dir);
    snprintf(path, sizeof(path), "%s/log.txt", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0)
        dup2(fd, STDERR_FILENO);
    log_start(options.name, LOG_LEVEL_INFO);
    _exit(control_run(&options) < 0);
}

static inline void cloud_exec(struct cloud *c, int ready)
{
    char self[PATH_MAX], text[160], *env[256];
    size_t n = 0;

    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    cr_assert_gt(len, 0);
    self[len] = '\0';
    for (char **e = environ; *e && n < 250; e++)
        if (strncmp(*e, "BXF", 3) != 0) /* Criterion's own, which would make a test of it */
            env[n++] = *e;
    snprintf(text, sizeof(text), CENTRE_ENV "=%d %" PRIu64 " %s", ready,
             c->reserve ? c->reserve : 1, c->dir);
    env[n++] = text;
    env[n] = NULL;
    c->pid = fork();
    if (c->pid == 0) {
        execve(self, (char *const[]){self, NULL}, env);
        _exit(127);
    }
    cr_assert_gt(c->pid, 0);
}

static inline void cloud_start(struct cloud *c)
{
    char text[256] = "";
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    cloud_exec(c, fds[1]);
    close(fds[1]);
    ssize_t n = read(fds[0], text, sizeof(text) - 1);
    cr_assert_gt(n, 0, "the centre ended at once");
    cr_assert_str_eq(text, "ready\n");
    close(fds[0]);
}

static inline void cloud_make(struct cloud *c)
{
    snprintf(c->dir, sizeof(c->dir), "/tmp/umbel-control-XXXXXX");
    cr_assert_not_null(mkdtemp(c->dir));
    snprintf(c->address, sizeof(c->address), "unix:%s/sock", c->dir);
    cloud_start(c);
}

static inline void cloud_kill(struct cloud *c)
{
    int status;

    kill(c->pid, SIGKILL);
    waitpid(c->pid, &status, 0);
    c->pid = 0;
}

/* Stops it as an administrator does. */
static inline void cloud_stop(struct cloud *c)
{
    int status = -1;

    kill(c->pid, SIGTERM);
    pid_t pid = waitpid(c->pid, &status, 0);
    if (pid != c->pid || status != 0) {
        fprintf(stderr, "the centre ended with status %x\n", (unsigned)status);
        abort(); /* a failed assertion after a test does not count */
    }
    c->pid = 0;
}

static inline void cloud_end(struct cloud *c)
{
    char command[128];

    if (c->pid)
        cloud_stop(c);
    snprintf(command, sizeof(command), "rm -rf %s", c->dir);
    cr_assert_eq(system(command), 0);
}

static inline void nap(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    nanosleep(&t, NULL);
}

/* Waits until the condition holds. */
#define eventually(condition)                                                                      \
    do {                                                                                           \
        int64_t until_ = clock_boot_ms() + FAKE_MS;                                                \
        while (!(condition) && clock_boot_ms() < until_)                                           \
            nap(2);                                                                                \
        cr_assert(condition, "it never came about");                                               \
    } while (0)

/* ---- calls */

/* A request on its way. */
struct ask {
    atomic_bool done;
    int status;
    uint64_t id;
    struct message reply;
    uint8_t *bytes;
};

static inline void on_ask(void *arg, const struct message *reply)
{
    struct ask *a = arg;

    a->status = reply->status;
    a->reply = *reply;
    a->bytes = malloc(reply->body_len + 1);
    if (reply->body_len)
        memcpy(a->bytes, reply->body, reply->body_len);
    a->reply.body = a->bytes;
    atomic_store(&a->done, true);
}

static inline struct ask *ask(struct client *client, uint16_t type, const void *body)
{
    struct ask *a = calloc(1, sizeof(*a));

    cr_assert_eq(client_call(client, type, body, NULL, 0, 0, CLIENT_RESEND, on_ask, a, &a->id), 0);
    return a;
}

static inline bool ask_waits(struct ask *a, int ms)
{
    nap(ms);
    return !atomic_load(&a->done);
}

static inline int ask_end(struct ask *a)
{
    eventually(atomic_load(&a->done));
    int status = a->status;
    free(a->bytes);
    free(a);
    return status;
}

static inline int ask_unpack(struct ask *a, const ProtobufCMessageDescriptor *type, void **out)
{
    eventually(atomic_load(&a->done));
    *out = a->status < 0 ? NULL : (void *)frame_unpack(&a->reply, type);
    return ask_end(a);
}

/* As ask_end, with the reply (NULL: an error). */
#define ask_reply(a, type, out) ask_unpack(a, &star__##type##__descriptor, (void **)(out))

/* ---- a mount */

struct recalled {
    uint64_t ino;
    bool attr, data;
    uint64_t length;
    Star__Lease keep;
    char name[64];
    struct message header;
    bool answered;
};

struct mount {
    struct client *client;
    const char *name;
    uint64_t session;
    uint64_t seq;
    pthread_mutex_t lock;
    struct recalled recalls[FAKE_ITEMS];
    unsigned recalls_n;
    atomic_bool silent;  /* recalls are not answered */
    atomic_bool away;    /* does not connect */
    atomic_bool partial; /* RECLAIM without done */
    atomic_int hello;    /* what the newest HELLO was answered */
    atomic_uint connects;
    atomic_bool resumed;
    Star__HeldOpen opens[FAKE_ITEMS]; /* to be reclaimed */
    Star__Lock locks[FAKE_ITEMS];
    size_t opens_n, locks_n;
    atomic_uint lost; /* locks that others have */
};

static inline int mount_reclaim(struct mount *m, struct client *client)
{
    Star__Reclaim body = STAR__RECLAIM__INIT;
    Star__HeldOpen *opens[FAKE_ITEMS];
    Star__Lock *locks[FAKE_ITEMS];

    for (size_t k = 0; k < m->opens_n; k++)
        opens[k] = &m->opens[k];
    for (size_t k = 0; k < m->locks_n; k++)
        locks[k] = &m->locks[k];
    body.opens = opens;
    body.n_opens = m->opens_n;
    body.locks = locks;
    body.n_locks = m->locks_n;
    body.done = !atomic_load(&m->partial);
    body.seq_floor = m->seq + 1;
    Star__ReclaimReply *r = NULL;
    int rc = client_handshake(client, T(RECLAIM), &body.base, FAKE_MS,
                              &star__reclaim_reply__descriptor, (ProtobufCMessage **)&r, NULL);
    if (r) {
        atomic_fetch_add(&m->lost, (unsigned)r->n_lost);
        star__reclaim_reply__free_unpacked(r, NULL);
    }
    return rc;
}

static inline int mount_on_connect(void *ctx, struct client *client)
{
    Star__Hello hello = STAR__HELLO__INIT;
    Star__HelloReply *r = NULL;
    struct mount *m = ctx;

    if (atomic_load(&m->away))
        return -EAGAIN;
    hello.protocol = PROTOCOL_VERSION;
    hello.role = STAR__ROLE__MOUNT;
    hello.name = (char *)m->name;
    hello.cloud = CLOUD_ID;
    hello.session = m->session;
    int rc = client_handshake(client, T(HELLO), &hello.base, FAKE_MS,
                              &star__hello_reply__descriptor, (ProtobufCMessage **)&r, NULL);
    atomic_store(&m->hello, rc);
    if (rc == 0) {
        m->session = r->session;
        atomic_store(&m->resumed, r->resumed);
        if (r->resumed)
            rc = mount_reclaim(m, client);
    }
    if (r)
        star__hello_reply__free_unpacked(r, NULL);
    atomic_fetch_add(&m->connects, rc == 0);
    return rc;
}

static inline void mount_on_push(void *ctx, struct client *client, const struct message *m)
{
    struct mount *mount = ctx;
    Star__Recall *q = m->type == T(RECALL) ? (void *)frame_unpack(m, &star__recall__descriptor) : 0;

    if (!q)
        return;
    pthread_mutex_lock(&mount->lock);
    if (mount->recalls_n < FAKE_ITEMS) {
        struct recalled *r = &mount->recalls[mount->recalls_n++];
        *r = (struct recalled){.ino = q->ino,
                               .attr = q->attr,
                               .data = q->data,
                               .length = q->length,
                               .keep = q->keep,
                               .header = *m};
        r->header.body = r->header.payload = NULL;
        r->header.body_len = r->header.payload_len = 0;
        if (q->n_names)
            snprintf(r->name, sizeof(r->name), "%.*s", (int)q->names[0].len,
                     (char *)q->names[0].data);
        r->answered = !atomic_load(&mount->silent);
    }
    pthread_mutex_unlock(&mount->lock);
    star__recall__free_unpacked(q, NULL);
    if (!atomic_load(&mount->silent))
        client_reply(client, m, 0, NULL);
}

static inline void mount_start_only(struct mount *m, const struct cloud *c, const char *name)
{
    static const struct client_ops ops = {.on_connect = mount_on_connect, .on_push = mount_on_push};

    memset(m, 0, sizeof(*m));
    m->name = name;
    pthread_mutex_init(&m->lock, NULL);
    cr_assert_eq(client_start(c->address, name, &ops, m, &m->client), 0);
}

static inline void mount_start(struct mount *m, const struct cloud *c, const char *name)
{
    mount_start_only(m, c, name);
    eventually(atomic_load(&m->connects) == 1);
}

static inline void mount_stop(struct mount *m)
{
    client_stop(m->client);
    pthread_mutex_destroy(&m->lock);
}

static inline unsigned mount_recalls(struct mount *m)
{
    pthread_mutex_lock(&m->lock);
    unsigned n = m->recalls_n;
    pthread_mutex_unlock(&m->lock);
    return n;
}

/* Answers what it kept silent about, and all that comes. */
static inline void mount_speak(struct mount *m)
{
    atomic_store(&m->silent, false);
    pthread_mutex_lock(&m->lock);
    for (unsigned k = 0; k < m->recalls_n; k++) {
        if (!m->recalls[k].answered)
            client_reply(m->client, &m->recalls[k].header, 0, NULL);
        m->recalls[k].answered = true;
    }
    pthread_mutex_unlock(&m->lock);
}

static inline void mount_forget_recalls(struct mount *m)
{
    pthread_mutex_lock(&m->lock);
    m->recalls_n = 0;
    pthread_mutex_unlock(&m->lock);
}

static inline int mount_renew(struct mount *m)
{
    Star__Renew body = STAR__RENEW__INIT;

    body.session = m->session;
    return client_call_wait(m->client, T(RENEW), &body.base, FAKE_MS, 0, NULL, NULL, NULL, NULL,
                            NULL);
}

/* Waits for an answer as a living mount does. How long it took, in ms. */
static inline int64_t mount_waits(struct mount *m, struct ask *a)
{
    int64_t began = clock_boot_ms();

    while (!atomic_load(&a->done) && clock_boot_ms() - began < FAKE_MS) {
        cr_assert_eq(mount_renew(m), 0);
        nap(200);
    }
    return clock_boot_ms() - began;
}

static inline void mount_bye(struct mount *m)
{
    cr_assert_eq(
        client_call_wait(m->client, T(BYE), NULL, FAKE_MS, 0, NULL, NULL, NULL, NULL, NULL), 0);
}

/* ---- what a mount asks; name is a string. The pointers live as long as the block that calls. */

#define HEAD(m)                                                                                    \
    (&(Star__Head){PROTOBUF_C_MESSAGE_INIT(&star__head__descriptor), ++(m)->seq, 0,                \
                   &(Star__Cred){PROTOBUF_C_MESSAGE_INIT(&star__cred__descriptor), 0, 0, 022, 0, NULL}})
#define BYTES(s)                                                                                   \
    (ProtobufCBinaryData)                                                                          \
    {                                                                                              \
        strlen(s), (uint8_t *)(s)                                                                  \
    }

static inline struct ask *make_seq(struct mount *m, uint16_t type, uint64_t parent,
                                   const char *name, uint64_t seq)
{
    Star__Make body = STAR__MAKE__INIT;
    Star__Head *head = HEAD(m);

    if (seq) {
        head->seq = seq;
        m->seq--;
    }
    body.head = head;
    body.parent = parent;
    body.name = BYTES(name);
    body.mode = 0644 | (type == T(MKDIR) ? S_IFDIR : type == T(SYMLINK) ? S_IFLNK : S_IFREG);
    body.target = BYTES("target");
    body.flags = O_RDWR;
    return ask(m->client, type, &body);
}

static inline struct ask *make(struct mount *m, uint16_t type, uint64_t parent, const char *name)
{
    return make_seq(m, type, parent, name, 0);
}

static inline int make_now(struct mount *m, uint16_t type, const char *name,
                           Star__EntryReply **reply)
{
    Star__EntryReply *r = NULL;
    int rc = ask_reply(make(m, type, 1, name), entry_reply, &r);

    if (reply)
        *reply = r;
    else if (r)
        star__entry_reply__free_unpacked(r, NULL);
    return rc;
}

/* A new regular file, opened (CREATE) or without a home (MKNOD): its inode. */
static inline uint64_t file_new(struct mount *m, uint16_t type, const char *name)
{
    Star__EntryReply *r = NULL;

    cr_assert_eq(make_now(m, type, name, &r), 0);
    uint64_t ino = r->attr->ino;
    star__entry_reply__free_unpacked(r, NULL);
    return ino;
}

static inline int lookup(struct mount *m, const char *name, Star__EntryReply **reply)
{
    Star__Lookup body = STAR__LOOKUP__INIT;

    body.parent = 1;
    body.name = BYTES(name);
    return ask_reply(ask(m->client, T(LOOKUP), &body), entry_reply, reply);
}

static inline struct ask *getattr(struct mount *m, uint64_t ino)
{
    Star__Inode body = STAR__INODE__INIT;

    body.ino = ino;
    return ask(m->client, T(GETATTR), &body);
}

struct got {
    uint64_t size, version, blocks;
    uint32_t nlink, mode;
    Star__Lease lease;
};

static inline int attr_end(struct ask *a, struct got *got)
{
    Star__AttrReply *r = NULL;
    int rc = ask_reply(a, attr_reply, &r);

    if (r) {
        *got = (struct got){.size = r->attr->size,
                            .version = r->attr->version,
                            .blocks = r->attr->blocks,
                            .nlink = r->attr->nlink,
                            .mode = r->attr->mode,
                            .lease = r->lease};
        star__attr_reply__free_unpacked(r, NULL);
    }
    return rc;
}

static inline struct ask *setattr(struct mount *m, uint64_t ino, uint32_t valid, uint64_t value)
{
    Star__SetAttr body = STAR__SET_ATTR__INIT;

    body.head = HEAD(m);
    body.ino = ino;
    body.valid = valid;
    body.mode = (uint32_t)value;
    body.size = value;
    return ask(m->client, T(SETATTR), &body);
}

static inline struct ask *open_file(struct mount *m, uint64_t ino, uint32_t flags)
{
    Star__Open body = STAR__OPEN__INIT;

    body.head = HEAD(m);
    body.ino = ino;
    body.flags = flags;
    return ask(m->client, T(OPEN), &body);
}

struct opened {
    Star__Lease lease;
    uint64_t epoch, version, size;
    uint32_t node, rights;
    char address[64];
};

static inline void opened_from(struct opened *o, const Star__OpenReply *r)
{
    *o = (struct opened){.lease = r->lease,
                         .epoch = r->ticket->home_epoch,
                         .version = r->ticket->version,
                         .size = r->ticket->size,
                         .rights = r->ticket->rights,
                         .node = r->node};
    snprintf(o->address, sizeof(o->address), "%s", r->address);
}

static inline int open_end(struct ask *a, struct opened *o)
{
    Star__OpenReply *r = NULL;
    int rc = ask_reply(a, open_reply, &r);

    if (r) {
        opened_from(o, r);
        star__open_reply__free_unpacked(r, NULL);
    }
    return rc;
}

static inline int open_now(struct mount *m, uint64_t ino, uint32_t flags)
{
    struct opened o;

    return open_end(open_file(m, ino, flags), &o);
}

/* A handle that wrote (size > 0: up to there, at this version) or read is closed. */
static inline int release(struct mount *m, uint64_t ino, bool writer, uint64_t size,
                          uint64_t version)
{
    Star__Release body = STAR__RELEASE__INIT;
    Star__HomeAttrs attrs = STAR__HOME_ATTRS__INIT;

    attrs.ino = body.ino = ino;
    attrs.size = size;
    attrs.version = version;
    attrs.home_epoch = 1;
    body.readers = !writer;
    body.writers = writer;
    body.seq = ++m->seq;
    if (version)
        body.attrs = &attrs;
    return ask_end(ask(m->client, T(RELEASE), &body));
}

static inline struct ask *unlink_name(struct mount *m, const char *name)
{
    Star__Remove body = STAR__REMOVE__INIT;

    body.head = HEAD(m);
    body.parent = 1;
    body.name = BYTES(name);
    return ask(m->client, T(UNLINK), &body);
}

static inline struct ask *rename_name(struct mount *m, const char *from, const char *to)
{
    Star__Rename body = STAR__RENAME__INIT;

    body.head = HEAD(m);
    body.parent = body.new_parent = 1;
    body.name = BYTES(from);
    body.new_name = BYTES(to);
    return ask(m->client, T(RENAME), &body);
}

static inline struct ask *lock_file(struct mount *m, uint64_t ino, uint32_t type, bool wait)
{
    Star__Lock body = STAR__LOCK__INIT;

    body.ino = ino;
    body.owner = 7;
    body.pid = 1;
    body.type = type;
    body.end = INT64_MAX;
    body.wait = wait;
    return ask(m->client, T(SETLK), &body);
}

/* The text of a control file ("status", "settings/flush_age"); freed by the caller. */
static inline uint64_t ctl_find(struct mount *m, const char *path)
{
    char copy[128], *at = copy, *word;
    Star__CtlLookup body = STAR__CTL_LOOKUP__INIT;
    uint64_t ino = 1;

    snprintf(copy, sizeof(copy), ".umbel/%s", path);
    while (ino && (word = strsep(&at, "/"))) {
        Star__EntryReply *r = NULL;
        body.parent = ino;
        body.name = BYTES(word);
        ask_reply(ask(m->client, T(CTL_LOOKUP), &body), entry_reply, &r);
        ino = r ? r->attr->ino : 0;
        if (r)
            star__entry_reply__free_unpacked(r, NULL);
    }
    return ino;
}

static inline char *ctl_read(struct mount *m, const char *path)
{
    Star__Inode body = STAR__INODE__INIT;
    void *text = NULL;
    size_t len = 0;

    body.ino = ctl_find(m, path);
    cr_assert_neq(body.ino, 0, "there is no %s", path);
    cr_assert_eq(client_call_wait(m->client, T(CTL_READ), &body.base, FAKE_MS, 0, NULL, NULL, NULL,
                                  &text, &len),
                 0);
    char *copy = calloc(1, len + 1);
    if (len)
        memcpy(copy, text, len);
    free(text);
    return copy;
}

static inline bool ctl_says(struct mount *m, const char *path, const char *words)
{
    char *text = ctl_read(m, path);
    bool found = strstr(text, words) != NULL;

    free(text);
    return found;
}

static inline struct ask *ctl_write(struct mount *m, const char *path, const char *text)
{
    struct iovec payload = {(void *)text, strlen(text)};
    Star__CtlWrite body = STAR__CTL_WRITE__INIT;
    struct ask *a = calloc(1, sizeof(*a));

    body.ino = ctl_find(m, path);
    cr_assert_neq(body.ino, 0, "there is no %s", path);
    cr_assert_eq(client_call(m->client, T(CTL_WRITE), &body.base, &payload, 1, 0, CLIENT_RESEND,
                             on_ask, a, &a->id),
                 0);
    return a;
}

#include "control_fake_node.h"

#endif
