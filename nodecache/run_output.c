/* What a run writes, into files of the cloud. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <xxhash.h>

#include "nodecache/run_private.h"

/* What a pipe holds at most, unless somebody makes it larger. */
#define COPY_BUFFER (64u << 10)
/* Of the supervisor to the thread that copies; no other use is made of it here. */
#define INTERRUPT SIGUSR1

/* ---- paths */

/* From the cloud's root, whatever the user's links say: this process sees all of the machine. */
static int open_below(int mount, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags,
                           .mode = flags & O_CREAT ? 0666 : 0,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    long fd = syscall(SYS_openat2, mount, path + strspn(path, "/"), &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

static char *path_in_cloud(const Star__JobStart *s, const char *given)
{
    char *path = NULL;

    if (given[0] == '/')
        return strdup(given);
    if (asprintf(&path, "%s/%s", s->workdir ? s->workdir : "", given) < 0)
        return NULL;
    return path;
}

/* The user's path was emptied by init. His job's own file is so by the first byte, or by an attempt
 * that may follow one which had written. */
static int init_stream(struct run_stream *to, const Star__JobStart *s, const char *given,
                       const char *own, int from)
{
    *to = (struct run_stream){.from = from, .to = -1};
    if (given && given[0])
        to->path = path_in_cloud(s, given);
    else if (own && own[0])
        to->path = strdup(own);
    else
        return 0;
    to->truncate = !given || !given[0];
    return to->path ? 0 : -ENOMEM;
}

int run_output_init(struct run_output *o, const struct run_world *w, const Star__JobStart *s,
                    int out, int err)
{
    *o = (struct run_output){.world = w,
                             .start = s,
                             .done = eventfd(0, EFD_CLOEXEC),
                             .stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    int rc = o->done < 0 || o->stop < 0 ? -errno
                                        : init_stream(&o->out, s, s->output, s->own_output, out);

    if (rc == 0)
        rc = init_stream(&o->err, s, s->error, s->own_error, err);
    XXH128_canonicalFromHash((XXH128_canonical_t *)o->digest, XXH3_128bits("", 0));
    return rc;
}

/* ---- copying: the thread, with the submitter's rights on files */

static int open_stream(struct run_output *o, struct run_stream *s)
{
    int mount = open(o->world->mount_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int rc = mount < 0 ? -errno : 0;

    struct stat st;

    if (rc == 0)
        rc = open_below(mount, s->path, O_WRONLY | O_CLOEXEC);
    if (mount >= 0)
        close(mount);
    s->to = rc < 0 ? -1 : rc;
    if (rc < 0 || !s->truncate || o->start->run->attempt == 1)
        return rc < 0 ? rc : 0;
    /* Not O_TRUNC: to truncate what is empty is work all the same, and fails where the file's node
     * has just gone; a write would wait for another one. */
    if (fstat(s->to, &st) < 0 || (st.st_size > 0 && ftruncate(s->to, 0) < 0))
        return -errno;
    return 0;
}

static bool is_stopped(const struct run_output *o)
{
    struct pollfd p = {.fd = o->stop, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

static int write_all(const struct run_output *o, int fd, const char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, data + done, size - done);
        if (n < 0 && (errno != EINTR || is_stopped(o)))
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static void keep(struct run_output *o, struct run_stream *s, const char *data, size_t size)
{
    uint64_t max = o->start->output_max;
    size_t room = s->bytes >= max ? 0 : max - s->bytes < size ? (size_t)(max - s->bytes) : size;
    int rc = 0;

    s->lost += size - room;
    if (room == 0 || !s->path)
        return;
    if (is_stopped(o))
        rc = -ECANCELED;
    else if (s->to < 0)
        rc = open_stream(o, s);
    if (rc == 0)
        rc = write_all(o, s->to, data, room);
    s->bytes += rc == 0 ? room : 0;
    s->error = rc;
}

static void end_stream(struct run_stream *s)
{
    if (s->from >= 0)
        close(s->from);
    s->from = -1;
}

/* After an error the pipe goes, and whoever writes on gets SIGPIPE: as of a full disk. */
static void copy_some(struct run_output *o, struct run_stream *s, char *buf, XXH3_state_t *digest)
{
    ssize_t n = read(s->from, buf, COPY_BUFFER);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        end_stream(s);
        return;
    }
    if (s == &o->out)
        XXH3_128bits_update(digest, buf, (size_t)n);
    keep(o, s, buf, (size_t)n);
    if (s->error < 0)
        end_stream(s);
}

/* Whether more would have come is not known. */
static void cut_short(struct run_stream *s)
{
    if (s->from >= 0 && s->error == 0)
        s->error = -ECANCELED;
    end_stream(s);
}

static void close_stream(struct run_output *o, struct run_stream *s)
{
    if (s->to < 0 && s->path && s->truncate && o->start->run->attempt > 1 && s->error == 0 &&
        !is_stopped(o))
        s->error = open_stream(o, s);
    if (s->to >= 0 && close(s->to) < 0 && s->error == 0)
        s->error = -errno;
    s->to = -1;
}

static void *copy_main(void *arg)
{
    struct run_output *o = arg;
    XXH3_state_t *digest = XXH3_createState();
    char *buf = malloc(COPY_BUFFER);
    uint64_t one = 1;

    /* This thread's alone. The groups are those of the whole process already. */
    setfsgid(o->start->cred->gid);
    setfsuid(o->start->cred->uid);
    if (!digest || !buf) {
        o->out.error = -ENOMEM;
        end_stream(&o->out);
        end_stream(&o->err);
    } else {
        XXH3_128bits_reset(digest);
    }
    while (o->out.from >= 0 || o->err.from >= 0) {
        struct pollfd p[] = {{.fd = o->out.from, .events = POLLIN},
                             {.fd = o->err.from, .events = POLLIN},
                             {.fd = o->stop, .events = POLLIN}};
        if (poll(p, 3, -1) < 0)
            continue;
        if (p[2].revents) {
            cut_short(&o->out);
            cut_short(&o->err);
            break;
        }
        if (p[0].revents)
            copy_some(o, &o->out, buf, digest);
        if (p[1].revents)
            copy_some(o, &o->err, buf, digest);
    }
    close_stream(o, &o->out);
    close_stream(o, &o->err);
    if (digest)
        XXH128_canonicalFromHash((XXH128_canonical_t *)o->digest, XXH3_128bits_digest(digest));
    XXH3_freeState(digest);
    free(buf);
    (void)!write(o->done, &one, sizeof(one)); /* an eventfd takes it */
    return NULL;
}

/* ---- the supervisor's side */

/* true: there is something to copy. */
static bool look(struct run_stream *s)
{
    struct pollfd p = {.fd = s->from, .events = POLLIN};
    int size = 0;

    if (s->from < 0 || poll(&p, 1, 0) <= 0)
        return false;
    if (ioctl(s->from, FIONREAD, &size) == 0 && size > 0)
        return true;
    if (p.revents & POLLHUP)
        end_stream(s);
    return false;
}

int run_output_turn(struct run_output *o)
{
    bool first = o->start->run->attempt > 1;

    if (o->running)
        return 0;
    first = look(&o->out) || first;
    first = look(&o->err) || first;
    if (!first)
        return 0;
    int rc = -pthread_create(&o->thread, NULL, copy_main, o);
    o->running = rc == 0;
    return rc;
}

void run_output_free(struct run_output *o)
{
    end_stream(&o->out);
    end_stream(&o->err);
    free(o->out.path);
    free(o->err.path);
    if (o->done >= 0)
        close(o->done);
    if (o->stop >= 0)
        close(o->stop);
}

static void heard(int number)
{
    (void)number; /* the call that it has interrupted ends */
}

void run_output_signals(void)
{
    struct sigaction a = {.sa_handler = heard};

    sigaction(INTERRUPT, &a, NULL);
}

void run_output_stop(struct run_output *o)
{
    uint64_t one = 1;

    (void)!write(o->stop, &one, sizeof(one)); /* full: it is readable already */
    if (o->running)
        pthread_kill(o->thread, INTERRUPT); /* ended, and not joined: nobody hears it */
}

bool run_output_is_done(const struct run_output *o)
{
    struct pollfd p = {.fd = o->done, .events = POLLIN};

    return o->running ? poll(&p, 1, 0) > 0 : o->out.from < 0 && o->err.from < 0;
}

void run_output_detail(const struct run_output *o, char *out, size_t size)
{
    const struct run_stream *bad = o->out.error < 0 ? &o->out : o->err.error < 0 ? &o->err : NULL;

    out[0] = 0;
    if (bad)
        snprintf(out, size, "what it wrote could not be kept: %s: %s",
                 bad->path ? bad->path : "output", strerror(-bad->error));
}
