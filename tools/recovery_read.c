#include "tools/recovery_read.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* A key with much between its digits. */
#define TEXT_MAX 512

/* All of it from a file, one line from a terminal. */
static int read_text(int fd, bool line, char text[TEXT_MAX])
{
    size_t n = 0;

    while (n < TEXT_MAX - 1) {
        ssize_t got = read(fd, text + n, TEXT_MAX - 1 - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        n += (size_t)got;
        if (got == 0 || (line && memchr(text, '\n', n) != NULL))
            break;
    }
    text[n] = '\0';
    return n < TEXT_MAX - 1 ? 0 : -EFBIG;
}

static int read_terminal(char text[TEXT_MAX])
{
    struct termios before, quiet;

    if (tcgetattr(STDIN_FILENO, &before) != 0)
        return -errno;
    quiet = before;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    fputs("recovery key (it is not shown): ", stderr);
    fflush(stderr);
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet) != 0)
        return -errno;
    int rc = read_text(STDIN_FILENO, true, text);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fputc('\n', stderr);
    return rc;
}

static int read_file(const char *file, char text[TEXT_MAX])
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int rc = read_text(fd, false, text);
    close(fd);
    return rc;
}

int recovery_read(const char *file, struct recovery_key *k)
{
    bool input = file == NULL || strcmp(file, "-") == 0;
    char text[TEXT_MAX] = "";
    int rc;

    if (!input)
        rc = read_file(file, text);
    else if (isatty(STDIN_FILENO) == 1)
        rc = read_terminal(text);
    else
        rc = read_text(STDIN_FILENO, false, text);
    if (rc != 0 && rc != -EFBIG)
        warnx("cannot read the recovery key from %s: %s", input ? "standard input" : file,
              strerror(-rc));
    if (rc == 0 || rc == -EFBIG) {
        rc = rc == 0 ? recovery_parse(text, k) : -EINVAL;
        if (rc == -EINVAL)
            warnx("that is no recovery key: it has 36 letters and digits, in groups of six");
        else if (rc == -EBADMSG)
            warnx("the recovery key is mistyped: its last four letters do not fit the others; "
                  "compare it once more with what was written down");
        else if (rc != 0)
            warnx("the recovery key: %s", strerror(-rc));
    }
    explicit_bzero(text, sizeof(text));
    return rc;
}
