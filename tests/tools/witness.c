/*
 * Sees processes live and die, without the cloud that they are jobs of.
 *
 *     witness LOG PORTFILE
 *
 * Listens at 127.0.0.1; PORTFILE has the port when it does. Who connects says one line, its name,
 * and keeps the connection: the kernel closes it when the last process that has it is gone,
 * however it went. LOG has "MS begin NAME", "MS say NAME TEXT" for each further line, "MS end
 * NAME".
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4000
#define LINE_MAX_BYTES  200

struct connection {
    char name[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    size_t len;
};

static struct connection *connections[CONNECTIONS_MAX];
static struct pollfd fds[CONNECTIONS_MAX + 1]; /* 0: listens */
static nfds_t count = 1;
static FILE *out;

static void note(const char *what, const char *name, const char *text)
{
    struct timespec t;

    clock_gettime(CLOCK_BOOTTIME, &t);
    fprintf(out, "%lld %s %s%s%s\n", (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000, what, name,
            text[0] ? " " : "", text);
}

static void take_line(struct connection *c)
{
    c->line[c->len] = '\0';
    c->len = 0;
    if (c->name[0]) {
        note("say", c->name, c->line);
        return;
    }
    memcpy(c->name, c->line, sizeof(c->name));
    note("begin", c->name, "");
}

static void drop(nfds_t at)
{
    struct connection *c = connections[at - 1];

    if (c->name[0])
        note("end", c->name, "");
    close(fds[at].fd);
    free(c);
    count--;
    connections[at - 1] = connections[count - 1];
    fds[at] = fds[count];
}

static void take(nfds_t at)
{
    struct connection *c = connections[at - 1];
    char buf[4096];
    ssize_t n = recv(fds[at].fd, buf, sizeof(buf), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] == '\n')
            take_line(c);
        else if (c->len + 1 < sizeof(c->line))
            c->line[c->len++] = buf[i];
    }
    if (n <= 0)
        drop(at);
}

static void accept_one(void)
{
    int fd = accept(fds[0].fd, NULL, NULL);
    struct connection *c = fd >= 0 && count <= CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (!c) {
        if (fd >= 0)
            close(fd); /* its job sees that nobody is there */
        return;
    }
    connections[count - 1] = c;
    fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void say_port(const char *path)
{
    struct sockaddr_in at;
    socklen_t len = sizeof(at);
    char temporary[4096];

    snprintf(temporary, sizeof(temporary), "%s.new", path);
    FILE *f = fopen(temporary, "w");
    if (!f || getsockname(fds[0].fd, (struct sockaddr *)&at, &len) < 0 ||
        fprintf(f, "%d\n", ntohs(at.sin_port)) < 0 || fclose(f) != 0 || rename(temporary, path) < 0)
        err(1, "%s", path);
}

int main(int argc, char **argv)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    if (argc != 3)
        errx(2, "usage: witness LOG PORTFILE");
    out = fopen(argv[1], "w");
    if (!out)
        err(1, "%s", argv[1]);
    setvbuf(out, NULL, _IOLBF, 0);
    fds[0] =
        (struct pollfd){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .events = POLLIN};
    if (fds[0].fd < 0 || bind(fds[0].fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        listen(fds[0].fd, 1024) < 0)
        err(1, "127.0.0.1");
    say_port(argv[2]);
    for (;;) {
        if (poll(fds, count, -1) < 0)
            continue;
        for (nfds_t i = count - 1; i > 0; i--)
            if (fds[i].revents)
                take(i);
        if (fds[0].revents)
            accept_one();
    }
}
