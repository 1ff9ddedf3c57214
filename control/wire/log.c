#include "control/wire/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/wire/clock.h"

/* Longer lines are cut: one write of at most PIPE_BUF bytes is never mixed with another. */
#define LOG_LINE_MAX 2048

/* The one process-wide state of this room: written by log_start before threads start, then only
 * read. */
static struct {
    char name[64];
    enum log_level level;
} settings = {"umbel", LOG_LEVEL_INFO};

void log_start(const char *name, enum log_level level)
{
    snprintf(settings.name, sizeof(settings.name), "%s", name);
    settings.level = level;
}

static size_t put_prefix(char *line, size_t size, enum log_level level)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    struct timespec now = clock_real();
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    char stamp[32];
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
    int n = snprintf(line, size, "%s.%03ldZ %s %s: ", stamp, now.tv_nsec / 1000000, settings.name,
                     names[level]);
    return n < 0 ? 0 : (size_t)n;
}

void log_write(enum log_level level, const char *format, ...)
{
    if (level > settings.level)
        return;
    int saved = errno;
    char line[LOG_LINE_MAX];
    size_t used = put_prefix(line, sizeof(line), level);

    va_list args;
    va_start(args, format);
    errno = saved; /* for %m */
    int n = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
    va_end(args);
    if (n > 0)
        used += (size_t)n < sizeof(line) - used - 1 ? (size_t)n : sizeof(line) - used - 2;
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)line[i] < ' ') /* names come from outside: a line stays one line */
            line[i] = ' ';
    line[used++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, used); /* nobody is left to tell */
    (void)ignored;
    errno = saved;
}
