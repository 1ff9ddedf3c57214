/* wake PERIOD_US COUNT: a task that wakes every PERIOD_US, and how late it was each time, by the
 * guest's own clock. COUNT 0: for ever, and silent. The first wakes (a tenth, 200 at most) are not
 * counted. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#define SECOND INT64_C(1000000000)

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* How late, in ns. */
static int64_t sleep_until(int64_t at)
{
    struct timespec t = {at / SECOND, at % SECOND};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0)
        ;
    return now() - at;
}

static int later(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void tell(int64_t *late, long n, long missed)
{
    int64_t sum = 0;

    for (long i = 0; i < n; i++)
        sum += late[i];
    qsort(late, (size_t)n, sizeof(*late), later);
    printf("WAKE n=%ld missed=%ld mean=%.1f p50=%.1f p99=%.1f max=%.1f\n", n, missed,
           (double)sum / (double)n / 1e3, (double)late[n / 2] / 1e3,
           (double)late[n * 99 / 100] / 1e3, (double)late[n - 1] / 1e3);
}

int main(int argc, char **argv)
{
    int64_t period = argc > 1 ? atol(argv[1]) * 1000 : 5000000, next;
    long count = argc > 2 ? atol(argv[2]) : 1000, warm = count / 10 < 200 ? count / 10 : 200;
    long missed = 0;
    int64_t *late = calloc((size_t)(count > 0 ? count : 1), sizeof(*late));

    if (late == NULL || period <= 0 || count < 0)
        return 1;
    prctl(PR_SET_TIMERSLACK, 1UL);
    mlockall(MCL_CURRENT | MCL_FUTURE);
    next = now();
    for (long i = -warm; count == 0 || i < count; i += count != 0) {
        next += period;
        int64_t d = sleep_until(next);
        if (i >= 0)
            late[count != 0 ? i : 0] = d;
        for (; d > period; d -= period) { /* those that it slept through */
            next += period;
            missed += i >= 0;
        }
    }
    tell(late, count, missed);
    free(late);
    return 0;
}
