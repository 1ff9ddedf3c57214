#include "tools/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "control/wire/clock.h"

#define BAR_WIDTH         30
#define TERMINAL_EVERY_MS 100
#define PLAIN_EVERY_MS    5000
#define QUIET_MS          500 /* what is done sooner needs no progress */

void progress_begin(struct progress *p, const char *format, ...)
{
    va_list args;

    memset(p, 0, sizeof(*p));
    va_start(args, format);
    vsnprintf(p->what, sizeof(p->what), format, args);
    va_end(args);
    p->terminal = isatty(STDERR_FILENO) == 1;
    p->started = clock_boot_ms();
    p->last = p->terminal ? p->started + QUIET_MS - TERMINAL_EVERY_MS : p->started;
}

static void show_bar(uint64_t done, uint64_t total)
{
    char bar[BAR_WIDTH + 1];
    double part = done >= total ? 1 : (double)done / (double)total;
    int full = (int)(part * BAR_WIDTH);

    memset(bar, '.', BAR_WIDTH);
    memset(bar, '#', (size_t)full);
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, " [%s] %3d%%", bar, (int)(part * 100));
}

void progress_tick(struct progress *p, uint64_t done, uint64_t total, const char *note)
{
    int64_t now = clock_boot_ms();

    if (now - p->last < (p->terminal ? TERMINAL_EVERY_MS : PLAIN_EVERY_MS))
        return;
    p->last = now;
    p->shown = true;
    fprintf(stderr, "%s%s", p->terminal ? "\r\033[K" : "", p->what);
    if (total > 0)
        show_bar(done, total);
    fprintf(stderr, " %s%s%jd s%s", note != NULL ? note : "", note != NULL ? ", " : "",
            (intmax_t)((now - p->started) / 1000), p->terminal ? "" : "\n");
    fflush(stderr);
}

void progress_end(struct progress *p)
{
    if (p->shown && p->terminal) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}
