#include "tools/text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int text_parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
    char *end = NULL;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (*end != '\0')
        return -EINVAL;
    if (errno == ERANGE || n < least || n > most)
        return -ERANGE;
    *out = n;
    return 0;
}

int text_parse_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "kmgtp";
    char *end = NULL;
    unsigned shift = 0;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno == ERANGE)
        return -ERANGE;
    const char *unit = *end == '\0' ? NULL : strchr(units, tolower((unsigned char)*end));
    if (unit != NULL) {
        shift = 10u * (unsigned)(unit - units + 1);
        end++;
        if (*end == 'i')
            end++;
    }
    if (*end == 'B')
        end++;
    if (*end != '\0')
        return -EINVAL;
    if (n > (UINT64_MAX >> shift))
        return -ERANGE;
    *bytes = (uint64_t)n << shift;
    return 0;
}

const char *text_size(uint64_t bytes, char buf[24])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double n = (double)bytes;
    size_t unit = 0;

    while (n >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        n /= 1024;
        unit++;
    }
    snprintf(buf, 24, unit == 0 ? "%.0f %s" : "%.1f %s", n, units[unit]);
    return buf;
}

static int read_all(int fd, char **text, size_t *len)
{
    size_t have = 0, room = 4096;
    char *buf = malloc(room);

    while (buf != NULL) {
        ssize_t n = read(fd, buf + have, room - have - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int error = n < 0 ? -errno : 0;
            if (error != 0) {
                free(buf);
                return error;
            }
            buf[have] = '\0';
            *text = buf;
            if (len != NULL)
                *len = have;
            return 0;
        }
        have += (size_t)n;
        if (have + 1 < room)
            continue;
        if (room >= TEXT_FILE_MAX) {
            free(buf);
            return -EFBIG;
        }
        room *= 2;
        char *more = realloc(buf, room);
        if (more == NULL)
            free(buf);
        buf = more;
    }
    return -ENOMEM;
}

int text_read_file(const char *path, char **text, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int rc = read_all(fd, text, len);
    close(fd);
    return rc;
}

int text_write_all(int fd, const void *data, size_t len)
{
    const char *from = data;

    while (len > 0) {
        ssize_t n = write(fd, from, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        from += n;
        len -= (size_t)n;
    }
    return 0;
}

bool text_value(const char *text, const char *key, char *value, size_t size)
{
    size_t n = strlen(key);

    while (*text != '\0') {
        size_t line = strcspn(text, "\n");
        const char *at = text + n, *end = text + line;

        if (line > n && strncmp(text, key, n) == 0 && (*at == ' ' || *at == '\t' || *at == '=')) {
            while (at < end && (*at == ' ' || *at == '\t' || *at == '='))
                at++;
            while (end > at && isspace((unsigned char)end[-1]))
                end--;
            snprintf(value, size, "%.*s", (int)(end - at), at);
            return true;
        }
        text += line;
        text += *text == '\n';
    }
    return false;
}

char *text_line(char **rest)
{
    char *line = *rest;

    if (line == NULL || *line == '\0')
        return NULL;
    char *end = strchr(line, '\n');
    if (end != NULL)
        *end++ = '\0';
    *rest = end;
    return line;
}

void text_json(const char *s)
{
    putchar('"');
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;

        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

void text_json_value(const char *s)
{
    const char *at = s;

    at += *at == '-';
    bool number = isdigit((unsigned char)*at) && !(at[0] == '0' && isdigit((unsigned char)at[1]));
    at += strspn(at, "0123456789");
    if (number && *at == '.' && isdigit((unsigned char)at[1]))
        at += 1 + strspn(at + 1, "0123456789");
    if (number && *at == '\0')
        fputs(s, stdout);
    else
        text_json(s);
}
