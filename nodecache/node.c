/* The node process: its parts, in the order in which they start and stop. */
#include "nodecache/node.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "control/wire/address.h"
#include "control/wire/clock.h"
#include "control/wire/daemon.h"
#include "control/wire/identity.h"
#include "control/wire/log.h"
#include "nodecache/centre_link.h"
#include "nodecache/flush.h"
#include "nodecache/pool/pool.h"
#include "nodecache/serve.h"
#include "nodecache/store.h"

/* Less does not hold the index, one pack on its way and anything else. */
#define NODE_CAPACITY_MIN (16u << 20)
/* Looks for a signal between waits for the centre. */
#define NODE_WAIT_MS 200
/* How often it is said that the centre does not answer. */
#define NODE_WAIT_SAY_MS 10000

struct node {
    const struct node_options *options;
    char boot[37], machine[37];
    char addresses[ADDRESSES_MAX]; /* that the centre is told */
    struct identity *identity;
    int stop_fd, end_fd, jobs_fd; /* to stop; to end, as it has left; to end its jobs */
    struct pool *pool;
    struct link *link;
    struct store *store;
    struct flush *flush;
    struct jobs *jobs;
    struct serve *serve, *serve_tcp;
    char detail[NODE_DETAIL];
};

static void say(void *ctx, const char *line)
{
    (void)ctx;
    log_warning("%s", line);
}

/* A pool that is away is looked for later (the link does); what the store holds is served. */
static int open_pool(struct node *n)
{
    char why[POOL_DETAIL] = "";
    int rc = pool_open_later(n->options->pool, n->options->cloud, &n->pool, why);

    if (rc < 0)
        snprintf(n->detail, sizeof(n->detail), "%s", why);
    else if (why[0])
        log_warning("%s; what this node holds is served, and the pool is looked for", why);
    return rc;
}

/* In any thread that starts later, too. */
static int jobs_signal_fd(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, NODE_END_JOBS);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

/* Until it is to stop. */
static void wait_for_stop(struct node *n)
{
    struct pollfd p[] = {{.fd = n->stop_fd, .events = POLLIN},
                         {.fd = n->end_fd, .events = POLLIN},
                         {.fd = n->jobs_fd, .events = POLLIN}};
    struct signalfd_siginfo info;

    for (;;) {
        if (poll(p, 3, -1) < 0)
            continue;
        if (p[0].revents || p[1].revents)
            return;
        while (read(n->jobs_fd, &info, sizeof(info)) > 0)
            ;
        jobs_pause(n->jobs, NODE_JOBS_PAUSE_MS);
    }
}

/* By a signal, or as this node is in the cloud no more. */
static bool stop_asked(const struct node *n, int ms)
{
    struct pollfd p[] = {{.fd = n->stop_fd, .events = POLLIN}, {.fd = n->end_fd, .events = POLLIN}};

    return poll(p, 2, ms) > 0;
}

static int open_store(struct node *n)
{
    const struct node_options *o = n->options;
    struct store_options options = {.dir = o->store,
                                    .capacity = o->capacity,
                                    .boot_id = n->boot,
                                    .pool = n->pool,
                                    .centre = link_calls(),
                                    .centre_ctx = n->link,
                                    .say = say};

    if (o->capacity < NODE_CAPACITY_MIN) {
        snprintf(n->detail, sizeof(n->detail), "the capacity must be at least %u bytes",
                 NODE_CAPACITY_MIN);
        return -EINVAL;
    }
    return store_open(&options, &n->store, n->detail);
}

/* After a crash of the machine: nobody reads here before the centre knows where files end now. */
static int settle_doubts(struct node *n)
{
    bool news;
    int rc = link_fresh(n->link);

    if (rc < 0)
        snprintf(n->detail, sizeof(n->detail), "telling the centre of a new process: %s",
                 strerror(-rc));
    else
        rc = store_resolve_doubts(n->store, &news, n->detail);
    if (rc < 0 || !news)
        return rc;
    rc = link_report_attrs(n->link);
    if (rc >= 0)
        rc = store_doubts_told(n->store);
    if (rc < 0)
        snprintf(n->detail, sizeof(n->detail), "telling the centre what a crash has left: %s",
                 strerror(-rc));
    return rc < 0 ? rc : 0;
}

/* Until the centre has answered, a signal has come (-ECANCELED), or the centre refuses. */
static int meet_centre(struct node *n)
{
    int64_t said = clock_boot_ms();
    int rc;

    while ((rc = link_wait(n->link, NODE_WAIT_MS, n->detail)) == -ETIMEDOUT) {
        if (stop_asked(n, 0))
            return -ECANCELED;
        if (clock_boot_ms() - said > NODE_WAIT_SAY_MS) {
            log_warning("still waiting for %s", n->detail);
            said = clock_boot_ms();
        }
    }
    /* The centre may go away in between; then what is in doubt is asked for once more. */
    while (rc == 0 && (rc = settle_doubts(n)) < 0 && rc != -EBADMSG) {
        log_warning("%s", n->detail);
        if (stop_asked(n, NODE_WAIT_MS))
            return -ECANCELED;
        rc = 0;
    }
    return rc;
}

/* Flat files, connections, packs. */
#define NODE_FDS_MAX 65536

static void raise_fds(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max < NODE_FDS_MAX ? limit.rlim_max : NODE_FDS_MAX;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* the store keeps to what there is */
}

static int open_identity(struct node *n)
{
    const struct node_options *o = n->options;
    int length =
        snprintf(n->addresses, sizeof(n->addresses), "%s%s%s", o->listen ? o->listen : "",
                 o->listen && o->listen_tcp ? " " : "", o->listen_tcp ? o->listen_tcp : "");

    if (length >= (int)sizeof(n->addresses)) {
        snprintf(n->detail, sizeof(n->detail), "the node's addresses are too long");
        return -ENAMETOOLONG;
    }
    return o->identity ? identity_load(o->identity, o->cloud, &n->identity, n->detail) : 0;
}

static int open_jobs(struct node *n)
{
    const struct jobs_options options = {.store = n->options->store,
                                         .mount = n->options->jobs_mount,
                                         .report = link_report_runs,
                                         .ctx = n->link};

    return jobs_open(&options, &n->jobs);
}

static int start(struct node *n)
{
    const struct node_options *o = n->options;
    int rc = clock_boot_id(n->boot);

    raise_fds();
    if (rc == 0)
        rc = clock_machine(n->machine);
    if (rc == 0)
        rc = open_identity(n);
    struct link_options link = {.centre = o->centre,
                                .name = o->name,
                                .cloud = o->cloud ? o->cloud : "",
                                .address = n->addresses,
                                .identity = n->identity,
                                .machine = n->machine,
                                .end_fd = n->end_fd,
                                .capacity = o->capacity};

    if (rc == 0)
        rc = open_pool(n);
    if (rc == 0)
        rc = link_new(&link, &n->link);
    if (rc == 0)
        rc = open_store(n);
    if (rc == 0)
        rc = flush_start(n->store, n->pool, link_calls(), n->link, &n->flush);
    if (rc == 0)
        rc = open_jobs(n);
    if (rc == 0)
        rc = link_connect(n->link, n->store, n->flush, n->pool, n->jobs);
    if (rc == 0)
        rc = meet_centre(n);
    if (rc < 0)
        return rc;
    n->detail[0] = 0;
    const char *at = n->addresses;
    if (o->listen)
        rc = serve_start(at = o->listen, NULL, n->link, n->store, &n->serve);
    if (rc == 0 && o->listen_tcp)
        rc = serve_start(at = o->listen_tcp, n->identity, n->link, n->store, &n->serve_tcp);
    if (rc < 0)
        snprintf(n->detail, sizeof(n->detail), "%s: %s", at, strerror(-rc));
    if (rc == 0)
        rc = link_ready(n->link);
    return rc == 0 ? daemon_pid_write(o->pid_file) : rc;
}

#define GIVEN_UP "given up: what is staged here is lost to the cloud"

/* So that nobody starts it again: the centre would not take it. */
static void leave_note(const struct node *n, const char *text)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/" NODE_GONE_FILE, n->options->store) >= (int)sizeof(path))
        return;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || dprintf(fd, "%s\n", text) < 0)
        log_error("%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static int gone(struct node *n, enum link_end end, int stopped)
{
    if (end == LINK_GIVEN_UP) {
        log_error("the cloud has given this node up; what is staged here stays in %s",
                  n->options->store);
        leave_note(n, GIVEN_UP);
        return -ENODEV;
    }
    int rc = stopped < 0 ? stopped : store_remove(n->options->store);
    if (rc < 0) {
        log_error("the store %s could not be emptied: %s", n->options->store, strerror(-rc));
        return rc;
    }
    leave_note(n, "released");
    log_info("released; nothing is left here");
    return 0;
}

static int stop(struct node *n)
{
    enum link_end end = n->link ? link_end(n->link) : LINK_GOES_ON;
    int rc;

    jobs_stop(n->jobs); /* they need the rest */
    serve_stop(n->serve);
    serve_stop(n->serve_tcp);
    link_stop(n->link); /* ends what flush and pushes wait for */
    jobs_close(n->jobs);
    flush_stop(n->flush);
    rc = store_close(n->store, true);
    if (rc < 0)
        log_error("the store could not be closed cleanly: %s", strerror(-rc));
    link_free(n->link);
    if (n->pool)
        pool_close(n->pool);
    identity_free(n->identity);
    return end == LINK_GOES_ON ? rc : gone(n, end, rc);
}

int node_run(const struct node_options *options)
{
    struct node n = {.options = options, .stop_fd = -1, .end_fd = -1, .jobs_fd = -1};
    int rc = daemon_start(), stopped;

    if (rc == 0) {
        n.stop_fd = daemon_stop_fd();
        n.end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        rc = n.stop_fd < 0 ? n.stop_fd : n.end_fd < 0 ? -errno : 0;
        if (rc == 0)
            rc = n.jobs_fd = jobs_signal_fd();
        if (rc >= 0)
            rc = start(&n);
    }
    if (rc < 0) {
        if (!n.detail[0])
            snprintf(n.detail, sizeof(n.detail), "%s", strerror(-rc));
        log_error("%s", n.detail);
        if (n.link && link_end(n.link) == LINK_GIVEN_UP)
            leave_note(&n, GIVEN_UP); /* before it is told: then it is looked for */
        daemon_ready(options->ready_fd, n.detail);
    } else {
        log_info("ready at %s", n.addresses);
        daemon_ready(options->ready_fd, NULL);
        wait_for_stop(&n);
        log_info("stopping");
    }
    stopped = stop(&n);
    daemon_pid_remove(options->pid_file);
    if (n.stop_fd >= 0)
        close(n.stop_fd);
    if (n.end_fd >= 0)
        close(n.end_fd);
    if (n.jobs_fd >= 0)
        close(n.jobs_fd);
    return rc < 0 ? rc : stopped;
}
