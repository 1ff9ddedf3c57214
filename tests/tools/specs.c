/*
 * Writes specs that nobody should write into .umbel/jobs/new, and looks at every answer.
 *
 *  - specs NEW noise SEED COUNT: random bytes, hostile values, mutated specs: each is refused with
 *    one printable line, or is a job. Says "taken N refused M"
 *  - specs NEW flood BYTES: one spec of so many bytes: EFBIG beyond 1 MiB, at close too
 *  - specs NEW many COUNT: so many at once, 1 MiB each: an error comes before they are too much
 *  - specs NEW crowd COUNT READY GO: so many at once, small ones, until the file GO is there. Says
 *    how many were taken, and why no more
 *  - specs NEW half READY GO: a spec, and neither read nor closed before the file GO is there. Says
 *    how read and close went
 *  - specs NEW split: a write that fails in the middle of a spec: what came before is no spec
 *  - specs NEW killed SIGNAL: whoever is killed after he wrote what could be a spec has handed in
 *    nothing; others who have the file open hear of it, or go on
 */
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB       (1u << 20)
#define NOISE_MAX 6000
#define MANY_MAX  2000

static uint64_t state;

/* xorshift64*: the same seed says the same. */
static uint32_t rnd(uint32_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717ull >> 33) % below);
}

static int open_new(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        err(1, "%s", path);
    return fd;
}

/* ---- noise */

static size_t random_bytes(char *to)
{
    size_t n = 1 + rnd(NOISE_MAX);

    for (size_t i = 0; i < n; i++)
        to[i] = (char)rnd(256);
    return n;
}

static const char *const keys[] = {
    "name",   "command", "workdir", "cpus",     "memory", "time",   "reliability",
    "copies", "after",   "retries", "env",      "input",  "output", "error",
    "node",   "image",   "array",   "priority", "Name",   "cpu",    "mem",
    "",       "=",       "%%",      "\xff\xfe", "comand", "a b"};
static const char *const values[] = {"",
                                     "0",
                                     "-1",
                                     "1",
                                     "99999999999999999999",
                                     "0x10",
                                     "1e3",
                                     "1.5",
                                     "NaN",
                                     "inf",
                                     "%s%n%s",
                                     "../../etc/passwd",
                                     "/..",
                                     "a/../b",
                                     "0-0",
                                     "5-1",
                                     "1-99999999999",
                                     "1 1 1 1",
                                     "true",
                                     "high",
                                     "$(reboot)",
                                     "A=B",
                                     "=B",
                                     "A",
                                     "UMBEL_JOB_ID=7",
                                     "\x01\x02",
                                     "\x7f",
                                     "\t",
                                     "\r",
                                     "\xc3\x28",
                                     "node-1",
                                     "no-such-node",
                                     "9G",
                                     "4M",
                                     "1d",
                                     "0s",
                                     "-1000",
                                     "1001",
                                     "100001",
                                     "0-999999999",
                                     "\"quoted\"",
                                     "#"};
#define PICK(list) (list)[rnd(sizeof(list) / sizeof((list)[0]))]

static size_t hostile_lines(char *to)
{
    size_t n = 0;

    for (uint32_t line = 1 + rnd(5); line > 0; line--)
        n += (size_t)snprintf(to + n, NOISE_MAX - n, "%s%s%s%s", PICK(keys), rnd(8) ? " = " : " ",
                              PICK(values), rnd(8) ? "\n" : "\r\n");
    if (rnd(2))
        n += (size_t)snprintf(to + n, NOISE_MAX - n, "command = true\n");
    return n;
}

static size_t mutated(char *to)
{
    static const char whole[] =
        "# a job\nname = sums\ncpus = 0.01\nmemory = 16M\ntime = 20s\nretries = 1\nenv = A=B\n"
        "priority = 3\ncommand = true\n";
    size_t n = sizeof(whole) - 1;

    memcpy(to, whole, n);
    for (uint32_t times = 1 + rnd(4); times > 0; times--) {
        size_t at = rnd((uint32_t)n);
        switch (rnd(4)) {
        case 0:
            to[at] = (char)rnd(256);
            break;
        case 1: /* one byte less, but never none */
            if (n == 1)
                break;
            memmove(to + at, to + at + 1, n - at - 1);
            n--;
            break;
        case 2: /* a part of it twice */
            memmove(to + n, to + at, n - at);
            n += n - at;
            break;
        default:
            n = at + 1;
        }
        if (n > NOISE_MAX / 2)
            break;
    }
    return n;
}

static bool one_line(const char *answer, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        if (!isprint((unsigned char)answer[i]))
            return false;
    return n > 1 && answer[n - 1] == '\n';
}

/* true: it is a job. */
static bool read_back(int fd)
{
    char answer[2000];
    ssize_t n = read(fd, answer, sizeof(answer) - 1);

    if (n < 0)
        err(1, "reading the answer");
    answer[n] = '\0';
    bool taken = strncmp(answer, "id ", 3) == 0;
    if (!one_line(answer, (size_t)n) || (!taken && strncmp(answer, "error ", 6) != 0))
        errx(1, "that is no answer: '%s'", answer);
    if (close(fd) < 0)
        err(1, "close after the answer");
    return taken;
}

static bool close_tells(int fd)
{
    if (close(fd) == 0)
        return true;
    if (errno != EINVAL && errno != EAGAIN && errno != EOPNOTSUPP && errno != EACCES)
        err(1, "close of a spec");
    return false;
}

static int noise(const char *path, long count)
{
    static char text[2 * NOISE_MAX];
    long taken = 0;

    for (long i = 0; i < count; i++) {
        uint32_t kind = rnd(3);
        size_t n = kind == 0 ? random_bytes(text) : kind == 1 ? hostile_lines(text) : mutated(text);
        int fd = open_new(path);
        if (write(fd, text, n) != (ssize_t)n)
            err(1, "writing spec %ld", i);
        taken += rnd(4) ? read_back(fd) : close_tells(fd);
    }
    printf("taken %ld refused %ld\n", taken, count - taken);
    return 0;
}

/* ---- too much */

static char *comment(void)
{
    char *block = malloc(MIB);

    if (!block)
        err(1, "1 MiB");
    memset(block, '#', MIB);
    return block;
}

static int flood(const char *path, long long bytes)
{
    char *block = comment();
    int fd = open_new(path);
    long long written = 0;

    for (long long tried = 0; tried < bytes; tried += MIB) {
        ssize_t n = write(fd, block, MIB);
        written += n > 0 ? n : 0;
        if (n < 0 && errno != EFBIG)
            err(1, "beyond 1 MiB");
    }
    if (written > MIB)
        errx(1, "%lld bytes were taken", written);
    if (close(fd) == 0 || errno != EFBIG)
        errx(1, "close does not say EFBIG");
    free(block);
    return 0;
}

static int many(const char *path, long count)
{
    static int fds[MANY_MAX];
    char *block = comment();
    long n = 0, full = 0;

    for (; n < count && n < MANY_MAX; n++) {
        fds[n] = open_new(path);
        ssize_t put = 0;
        while (put < (ssize_t)MIB) {
            ssize_t one = write(fds[n], block, MIB - (size_t)put);
            if (one < 0)
                break;
            put += one;
        }
        if (put == (ssize_t)MIB)
            full++;
        else if (errno != ENOMEM && errno != ENFILE && errno != EMFILE)
            err(1, "one of many");
    }
    for (long i = 0; i < n; i++)
        if (close(fds[i]) == 0)
            errx(1, "a spec of comments was taken");
    printf("whole %ld of %ld\n", full, n);
    free(block);
    return full < n ? 0 : 1;
}

/* Says that we are ready, and waits for go. */
static void wait_for(const char *ready, const char *go)
{
    int mark = open(ready, O_WRONLY | O_CREAT, 0600);

    if (mark < 0)
        err(1, "%s", ready);
    close(mark);
    for (int i = 0; i < 600 && access(go, F_OK) < 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
}

static int crowd(const char *path, long count, const char *ready, const char *go)
{
    static int fds[MANY_MAX];
    long n = 0;
    int why = 0;

    for (; n < count && n < MANY_MAX && why == 0; n++) {
        fds[n] = open_new(path);
        if (write(fds[n], "#", 1) < 0)
            why = errno;
    }
    printf("taken %ld: %s\n", why ? n - 1 : n, why ? strerror(why) : "all");
    fflush(stdout);
    wait_for(ready, go);
    for (long i = 0; i < n; i++)
        close(fds[i]);
    return 0;
}

/* ---- in two halves */

static const char good[] = "cpus = 0.01\nmemory = 16M\ncommand = true\n";

static void write_good(int fd)
{
    if (write(fd, good, sizeof(good) - 1) != (ssize_t)sizeof(good) - 1)
        err(1, "write");
}

static int half(const char *path, const char *ready, const char *go)
{
    char answer[200];
    int fd = open_new(path);

    write_good(fd);
    wait_for(ready, go);
    ssize_t n = read(fd, answer, sizeof(answer));
    printf("read %s\n", n < 0 ? strerror(errno) : "done");
    printf("close %s\n", close(fd) < 0 ? strerror(errno) : "done");
    return 0;
}

/* The second write leaves a gap, so it is refused; the first one alone would be a job. */
static int split(const char *path)
{
    static const char first[] = "command = true\n";
    int fd = open_new(path);

    if (pwrite(fd, first, sizeof(first) - 1, 0) < 0)
        err(1, "write");
    if (pwrite(fd, first, sizeof(first) - 1, 4096) >= 0 || errno != ESPIPE)
        errx(1, "a gap is not refused");
    if (close(fd) == 0)
        errx(1, "half a spec was handed in");
    return 0;
}

/* ---- by somebody who is killed */

/* A child that writes (or not), and ends by that signal (0: by itself), with the file open. */
static void child(int fd, bool writes, int number)
{
    pid_t pid = fork();
    int status;

    if (pid < 0)
        err(1, "fork");
    if (pid == 0) {
        if (writes)
            write_good(fd);
        if (number == 0)
            _exit(0);
        signal(number, SIG_DFL);
        raise(number);
        _exit(99);
    }
    if (waitpid(pid, &status, 0) < 0)
        err(1, "waitpid");
    if (number ? !WIFSIGNALED(status) : status != 0)
        errx(1, "the child ended with status %x", (unsigned)status);
}

static int killed(const char *path, int number)
{
    char answer[200];
    int fd = open_new(path);

    child(fd, true, number);
    if (read(fd, answer, sizeof(answer)) >= 0 || errno != ECANCELED)
        err(1, "half a spec may be handed in by who has the file open, too");
    close(fd);
    fd = open_new(path);
    child(fd, true, number);
    if (close(fd) == 0 || errno != ECANCELED)
        errx(1, "close does not say that the writer was killed");
    fd = open_new(path);
    write_good(fd);
    child(fd, false, number);
    if (!read_back(fd))
        errx(1, "what another one wrote is no job, as a child was killed");
    fd = open_new(path);
    child(fd, true, 0);
    if (!read_back(fd))
        errx(1, "a child that ends by itself hands in what it wrote");
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[2] : "";

    if (argc == 5 && strcmp(what, "noise") == 0) {
        state = strtoull(argv[3], NULL, 10) * 2654435761u + 88172645463325252ull;
        return noise(argv[1], strtol(argv[4], NULL, 10));
    }
    if (argc == 4 && strcmp(what, "flood") == 0)
        return flood(argv[1], strtoll(argv[3], NULL, 10));
    if (argc == 4 && strcmp(what, "many") == 0)
        return many(argv[1], strtol(argv[3], NULL, 10));
    if (argc == 5 && strcmp(what, "half") == 0)
        return half(argv[1], argv[3], argv[4]);
    if (argc == 3 && strcmp(what, "split") == 0)
        return split(argv[1]);
    if (argc == 6 && strcmp(what, "crowd") == 0)
        return crowd(argv[1], strtol(argv[3], NULL, 10), argv[4], argv[5]);
    if (argc == 4 && strcmp(what, "killed") == 0)
        return killed(argv[1], (int)strtol(argv[3], NULL, 10));
    errx(2, "usage: specs NEW noise SEED COUNT | flood BYTES | many COUNT | crowd COUNT READY GO | "
            "half READY GO | split | killed SIGNAL");
}
