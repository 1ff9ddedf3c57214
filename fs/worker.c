/* The worker: reads the kernel's requests, and ends in good order. */
#include "fs/worker.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "control/wire/daemon.h"
#include "fs/centre.h"
#include "fs/control_files.h"
#include "fs/leases.h"
#include "fs/ops.h"
#include "fs/pool_access.h"
#include "fs/straight_read.h"
#include "fs/straight_write.h"
#include "fs/waits.h"

/* Requests in the background (read-ahead, direct I/O, release) that the kernel sends at once;
 * congested from 3/4 on. */
#define MAX_BACKGROUND 128
#define CONGESTION     96
#define WAKE_SIGNAL    SIGUSR1
#define WAKE_MS        20

struct reader {
    struct worker *w;
    struct fuse_buf buf;
};

/* --- messages of the kernel --- */

const void *worker_message(struct worker *w)
{
    struct reader *r = pthread_getspecific(w->reader_key);

    return r->buf.mem;
}

void *worker_keep_message(struct worker *w)
{
    struct reader *r = pthread_getspecific(w->reader_key);
    void *memory = r->buf.mem;

    r->buf.mem = buffers_get(w->buffers); /* NULL: libfuse makes a new one */
    return memory;
}

static void save_init(struct worker *w, const void *bytes, size_t length)
{
    const struct fuse_in_header *header = bytes;
    struct init_message *m = &w->page->init;

    if (header->opcode != FUSE_INIT || length > sizeof(m->bytes))
        return;
    memcpy(m->bytes, bytes, length);
    m->length = (uint32_t)length;
    w->init_unique = header->unique;
}

static ssize_t io_read(int fd, void *buf, size_t size, void *userdata)
{
    struct worker *w = userdata;
    ssize_t n = read(fd, buf, size);

    awake_touch(w->awake);
    if (n >= (ssize_t)sizeof(struct fuse_in_header) && !atomic_load(&w->init_done))
        save_init(w, buf, (size_t)n);
    return n;
}

/* The answer to INIT goes out with what libfuse 3.14 leaves out. */
static ssize_t write_init(struct worker *w, int fd, const struct iovec *iov)
{
    struct fuse_init_out out = {0};
    struct iovec patched[2] = {iov[0], {.iov_base = &out, .iov_len = iov[1].iov_len}};

    if (iov[1].iov_len > sizeof(out)) {
        errno = EPROTO;
        return -1;
    }
    memcpy(&out, iov[1].iov_base, iov[1].iov_len);
    int rc = init_patch(&w->page->init, &out, iov[1].iov_len, &w->init);
    if (rc < 0)
        log_error("the kernel's INIT cannot be understood: %s", strerror(-rc));
    atomic_store(&w->init_done, true); /* before the write: the first request may come at once */
    return writev(fd, patched, 2);
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    struct worker *w = userdata;
    const struct fuse_out_header *header = iov[0].iov_base;

    if (!atomic_load(&w->init_done) && count == 2 && header->error == 0 &&
        header->unique == w->init_unique)
        return write_init(w, fd, iov);
    return writev(fd, iov, count);
}

static void want(struct fuse_conn_info *conn, unsigned caps)
{
    conn->want |= conn->capable & caps;
}

void worker_init_conn(void *userdata, struct fuse_conn_info *conn)
{
    const struct worker *w = userdata;

    want(conn, FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_POSIX_LOCKS |
                   FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_DONT_MASK | FUSE_CAP_POSIX_ACL |
                   FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS |
                   FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_EXPLICIT_INVAL_DATA);
    /* ASYNC_DIO: the kernel waits for it uninterruptibly, and tells us of no interrupt: who waits
     * for a lost node could not be killed. */
    conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE |
                              FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_ASYNC_DIO | FUSE_CAP_IOCTL_DIR |
                              FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE);
    /* With ACLs the kernel checks rights itself, by ids that mean nothing here. */
    if (w->identity && identity_self(w->identity)->squash == SQUASH_ALL)
        conn->want &= ~(unsigned)FUSE_CAP_POSIX_ACL;
    conn->max_background = MAX_BACKGROUND;
    conn->congestion_threshold = CONGESTION;
    conn->time_gran = 1;
}

/* --- readers --- */

static void reader_ended(struct worker *w)
{
    uint64_t one = 1;

    if (write(w->ended_fd, &one, sizeof(one)) < 0)
        log_error("cannot say that the kernel's connection ended: %s", strerror(errno));
}

static void *reader_main(void *arg)
{
    struct reader *r = arg;
    struct worker *w = r->w;
    sigset_t set;

    pthread_setname_np(pthread_self(), "fuse");
    sigemptyset(&set);
    sigaddset(&set, WAKE_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    pthread_setspecific(w->reader_key, r);
    while (!fuse_session_exited(w->se) && !atomic_load(&w->stopping)) {
        int n = fuse_session_receive_buf(w->se, &r->buf);
        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n <= 0) {
            if (n < 0)
                log_error("reading /dev/fuse: %s", strerror(-n));
            break;
        }
        fuse_session_process_buf(w->se, &r->buf);
    }
    reader_ended(w);
    free(r->buf.mem);
    free(r);
    return NULL;
}

static void on_wake(int signal)
{
    (void)signal;
}

static int start_readers(struct worker *w, unsigned *started)
{
    struct sigaction action = {.sa_handler = on_wake}; /* no SA_RESTART: read() must return */

    sigemptyset(&action.sa_mask);
    sigaction(WAKE_SIGNAL, &action, NULL);
    for (*started = 0; *started < WORKER_READERS; (*started)++) {
        struct reader *r = calloc(1, sizeof(*r));
        if (!r)
            return -ENOMEM;
        r->w = w;
        int rc = -pthread_create(&w->readers[*started], NULL, reader_main, r);
        if (rc < 0) {
            free(r);
            return rc;
        }
    }
    return 0;
}

static void join_readers(struct worker *w, unsigned n)
{
    atomic_store(&w->stopping, true);
    for (unsigned k = 0; k < n; k++) {
        struct timespec until;
        do {
            pthread_kill(w->readers[k], WAKE_SIGNAL);
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += WAKE_MS * 1000000L;
            if (until.tv_nsec >= 1000000000L) {
                until.tv_sec++;
                until.tv_nsec -= 1000000000L;
            }
        } while (pthread_timedjoin_np(w->readers[k], NULL, &until) != 0);
    }
}

/* --- life --- */

static void report(int fd, const char *format, const char *detail)
{
    if (dprintf(fd, format, detail) < 0)
        log_error("cannot tell the keeper: %s", strerror(errno));
}

static int start_session(struct worker *w)
{
    static const struct fuse_custom_io io = {.read = io_read, .writev = io_writev};
    char *argv[] = {(char *)(uintptr_t) "umbel", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);

    w->se = fuse_session_new(&args, worker_ops(), sizeof(*worker_ops()), w);
    fuse_opt_free_args(&args);
    if (!w->se)
        return -ENOMEM;
    return fuse_session_custom_io(w->se, &io, w->fd);
}

static bool kernel_knows(void *ctx, uint64_t ino)
{
    struct worker *w = ctx;
    struct inode *i = inode_lock(&w->inodes, ino);
    bool known = i && i->nlookup > 0 && !atomic_load(&w->stopping);

    if (i)
        inode_unlock(&w->inodes, i);
    return known;
}

static int start_parts(struct worker *w, char detail[256])
{
    int rc;

    inode_table_init(&w->inodes, leases_returned, w);
    struct inode *root = inode_lock_make(&w->inodes, ROOT_INODE);
    if (!root)
        return -ENOMEM;
    root->nlookup = 1; /* the kernel never looks it up and never forgets it */
    inode_unlock(&w->inodes, root);
    pthread_mutex_init(&w->statfs.lock, NULL);
    w->centre.lost_fd = -1;
    w->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = w->ended_fd < 0 ? -errno : -pthread_key_create(&w->reader_key, NULL);
    if (rc == 0)
        rc = start_session(w);
    w->buffers = buffers_new();
    if (rc == 0 && !w->buffers)
        rc = -ENOMEM;
    int unheld = awake_start(&w->awake);
    if (unheld < 0)
        log_info("idle processors cannot be kept awake under load: %s", strerror(-unheld));
    if (rc == 0)
        rc = leases_start(w);
    if (rc == 0)
        rc = recalls_start(w);
    if (rc == 0)
        rc = controls_start(w);
    if (rc == 0)
        rc = pool_access_new(w->options->cloud, &w->pool);
    if (rc == 0)
        rc = waits_new(&w->waits);
    if (rc == 0)
        rc = straight_reader_new(w, &w->reader);
    if (rc == 0)
        rc = straight_writer_new(w, &w->writer);
    if (rc == 0)
        rc = timer_queue_start(&w->timer);
    if (rc == 0)
        rc = notify_start(w->se, kernel_knows, w, &w->notify);
    if (rc == 0 && w->options->identity) {
        rc = identity_load(w->options->identity, w->options->cloud, &w->identity, detail);
        if (rc < 0)
            return rc;
    }
    if (rc == 0)
        rc = conns_start(w->options->name, w->options->cloud, w->identity, &w->conns);
    if (rc < 0) {
        snprintf(detail, 256, "the mount cannot start: %s", strerror(-rc));
        return rc;
    }
    rc = msession_start(w, detail);
    return rc < 0 ? rc : attr_cache_fill(w, detail);
}

static void drain(struct worker *w)
{
    int64_t until = clock_boot_ms() + DRAIN_MS;
    struct timespec pause = {.tv_nsec = 2000000};

    while (atomic_load(&w->requests) > 0 && clock_boot_ms() < until)
        nanosleep(&pause, NULL);
    if (atomic_load(&w->requests) > 0)
        log_warning("%u requests were not finished", atomic_load(&w->requests));
}

static void stop_parts(struct worker *w)
{
    straight_drain(w);
    drain(w);
    if (w->centre.lost_fd >= 0)
        msession_bye(w);
    msession_stop(w);
    conns_stop(w->conns);
    straight_reader_stop(w->reader);
    straight_writer_stop(w->writer);
    if (!notify_stop(w->notify, DRAIN_MS)) {
        log_warning(
            "the kernel still holds locks that invalidations wait for: ending without them");
        _exit(0);
    }
    timer_queue_stop(w->timer);
    drain(w);
    msession_free(w);
    controls_stop(w);
    if (w->se)
        fuse_session_destroy(w->se); /* closes the descriptor */
    awake_stop(w->awake);
    inode_table_destroy(&w->inodes);
    leases_stop(w);
    recalls_stop(w);
    buffers_free(w->buffers);
    waits_free(w->waits);
    straight_reader_free(w->reader);
    straight_writer_free(w->writer);
    pool_access_free(w->pool);
    identity_free(w->identity);
    pthread_mutex_destroy(&w->statfs.lock);
    if (w->ended_fd >= 0)
        close(w->ended_fd);
}

/* Until the kernel's connection ends, or SIGTERM. */
static void serve(struct worker *w, int stop_fd)
{
    struct pollfd fds[3] = {{.fd = stop_fd, .events = POLLIN},
                            {.fd = w->ended_fd, .events = POLLIN},
                            {.fd = w->centre.lost_fd, .events = POLLIN}};

    for (;;) {
        if (poll(fds, 3, -1) < 0 && errno != EINTR) {
            log_error("waiting for events: %s", strerror(errno));
            return;
        }
        if (fds[0].revents || fds[1].revents)
            return;
        if (fds[2].revents)
            msession_replace(w);
    }
}

int worker_run(const struct mount_options *options, int fuse_fd, struct keeper_page *page,
               int report_fd)
{
    struct worker *w = calloc(1, sizeof(*w));
    char detail[256] = "";
    unsigned readers = 0;
    int stop_fd;

    prctl(PR_SET_NAME, "umbel-worker");
    if (!w) {
        report(report_fd, "error: %s\n", "no memory");
        return -ENOMEM;
    }
    w->options = options;
    w->page = page;
    w->fd = fuse_fd;
    stop_fd = daemon_stop_fd();
    int rc = stop_fd < 0 ? stop_fd : start_parts(w, detail);
    if (rc == 0)
        rc = start_readers(w, &readers);
    if (rc < 0) {
        report(report_fd, "error: %s\n", detail[0] ? detail : strerror(-rc));
    } else {
        report(report_fd, "ready\n", "");
        serve(w, stop_fd);
    }
    close(report_fd);
    join_readers(w, readers);
    stop_parts(w);
    if (stop_fd >= 0)
        close(stop_fd);
    free(w);
    return rc;
}
