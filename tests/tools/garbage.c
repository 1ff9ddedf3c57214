/*
 * garbage SOCKET ROUNDS: connects to a unix socket of the star again and again and sends what no
 * peer would: noise, broken headers, lengths beyond all limits, half frames, bodies that are no
 * protobuf. Whoever listens there must close such connections and go on. Exit status 1 if nobody
 * listens any more.
 */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAGIC       0x31424d55u
#define HEADER      32
#define NOISE       65536
#define BODY        300
#define ANSWER_MS   5000
#define CONNECT_TRY 100 /* a listener with a full queue refuses for a moment */

static uint8_t noise[NOISE];

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    for (int i = 0; i < CONNECT_TRY; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
            return fd;
        if (fd >= 0)
            close(fd);
        poll(NULL, 0, 50);
    }
    err(1, "nobody listens at %s", path);
}

static void put32(uint8_t *at, uint32_t n)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(n >> (8 * i));
}

enum kind {
    JUST_NOISE,
    OTHER_MAGIC,
    HUGE_LENGTHS,
    HALF_A_HEADER,
    HALF_A_FRAME,
    NOISE_IN_HEADER,
    REQUEST_OF_NOISE, /* a good header, then a body that is none */
    EMPTY_REQUEST,
    KINDS
};

/* kind u8, zero u8, type u16, id u64, status i32, body length u32, payload length u32, zero u32 */
static void header(uint8_t *h, enum kind kind)
{
    put32(h, kind == OTHER_MAGIC ? MAGIC + 1 : MAGIC);
    if (kind == NOISE_IN_HEADER)
        return;
    memset(h + 4, 0, HEADER - 4);
    h[4] = 1;
    h[6] = (uint8_t)(rand() % 120);
    put32(h + 8, (uint32_t)rand());
    if (kind == HUGE_LENGTHS) {
        put32(h + 20, UINT32_MAX);
        put32(h + 24, UINT32_MAX);
    } else if (kind == HALF_A_FRAME) {
        put32(h + 20, 8u << 20);
    } else if (kind == REQUEST_OF_NOISE) {
        put32(h + 20, BODY);
    }
}

static size_t length(enum kind kind)
{
    switch (kind) {
    case HALF_A_HEADER:
        return (size_t)(1 + rand() % (HEADER - 1));
    case REQUEST_OF_NOISE:
        return HEADER + BODY;
    case EMPTY_REQUEST:
        return HEADER;
    default:
        return HEADER + 4096;
    }
}

static void send_garbage(int fd, enum kind kind)
{
    uint8_t buf[HEADER + 4096];

    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)rand();
    if (kind != JUST_NOISE)
        header(buf, kind);
    ssize_t n = send(fd, buf, length(kind), MSG_NOSIGNAL);
    if (n >= 0 && kind == JUST_NOISE)
        n = send(fd, noise, sizeof(noise), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EPIPE && errno != ECONNRESET && errno != EAGAIN)
        err(1, "send");
}

/* It closes, answers, or waits for the rest: each is right. */
static void drain(int fd, enum kind kind)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char buf[4096];

    if (kind <= HUGE_LENGTHS && poll(&p, 1, ANSWER_MS) == 0)
        errx(1, "noise is not answered by closing the connection");
    if (kind > HUGE_LENGTHS && poll(&p, 1, 20) <= 0)
        return;
    while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
        ;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(2, "usage: garbage SOCKET ROUNDS");
    srand(1);
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)rand();
    for (int i = 0; i < atoi(argv[2]); i++) {
        int fd = connect_to(argv[1]);

        send_garbage(fd, (enum kind)(i % KINDS));
        drain(fd, (enum kind)(i % KINDS));
        close(fd);
    }
    close(connect_to(argv[1]));
    return 0;
}
