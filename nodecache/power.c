/* What a machine can do, and what of it is left. */
#include "nodecache/power.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/wire/clock.h"

#define TABLE_WORDS (256u * 1024 / sizeof(uint64_t))
/* /proc/meminfo has some 1.5 KiB; the first line of /proc/stat less. */
#define TEXT_MAX 4096

/* ---- speed */

static uint64_t work(uint64_t *table, uint64_t seed)
{
    uint64_t x = seed;

    for (unsigned i = 0; i < POWER_ROUNDS; i++) {
        x ^= x >> 29;
        x *= 0xbf58476d1ce4e5b9u; /* splitmix64's */
        x += table[x % TABLE_WORDS];
        table[i % TABLE_WORDS] = x;
    }
    return x;
}

static int64_t thread_ns(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) < 0)
        return -1;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

uint64_t power_core_speed(void)
{
    uint64_t *table = calloc(TABLE_WORDS, sizeof(*table));
    volatile uint64_t result = 0;
    int64_t best = 0;

    for (unsigned i = 0; table && i < POWER_TRIES; i++) {
        int64_t began = thread_ns();
        result = work(table, i + 1);
        int64_t took = thread_ns() - began;
        if (began >= 0 && took > 0 && (best == 0 || took < best))
            best = took;
    }
    free(table);
    (void)result;
    return best > 0 ? (uint64_t)POWER_ROUNDS * 1000 / (uint64_t)best : 0;
}

uint32_t power_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;

    return n > 0 ? (uint32_t)n : 1;
}

/* ---- use */

int power_parse_stat(const char *text, long hz, uint64_t *busy_us)
{
    unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;

    if (hz <= 0 || sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice,
                          &system, &idle, &iowait, &irq, &softirq, &steal) != 8)
        return -EINVAL;
    /* Stolen is what others have, on the machine below this one. */
    *busy_us = (user + nice + system + irq + softirq + steal) * (1000000u / (uint64_t)hz);
    return 0;
}

static int meminfo_line(const char *text, const char *key, uint64_t *bytes)
{
    const char *line = strstr(text, key);
    unsigned long long kib;

    if (!line || sscanf(line + strlen(key), " %llu kB", &kib) != 1)
        return -EINVAL;
    *bytes = kib * 1024;
    return 0;
}

int power_parse_meminfo(const char *text, uint64_t *memory, uint64_t *memory_free)
{
    int rc = meminfo_line(text, "MemTotal:", memory);

    return rc < 0 ? rc : meminfo_line(text, "MemAvailable:", memory_free);
}

static int read_file(const char *path, char text[TEXT_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, TEXT_MAX - 1);
    int rc = n < 0 ? -errno : 0;
    text[n < 0 ? 0 : n] = 0;
    close(fd);
    return rc;
}

int power_sample(struct power_sample *out)
{
    char text[TEXT_MAX];
    int rc = read_file("/proc/stat", text);

    memset(out, 0, sizeof(*out));
    out->at_ms = clock_boot_ms();
    if (rc == 0)
        rc = power_parse_stat(text, sysconf(_SC_CLK_TCK), &out->busy_us);
    if (rc == 0)
        rc = read_file("/proc/meminfo", text);
    if (rc == 0)
        rc = power_parse_meminfo(text, &out->memory, &out->memory_free);
    return rc;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

void power_between(const struct power_sample *before, const struct power_sample *now,
                   uint32_t cores, struct power_use *use)
{
    uint64_t us = (uint64_t)(now->at_ms - before->at_ms) * 1000;
    uint64_t others =
        less(less(now->busy_us, before->busy_us), less(now->jobs_us, before->jobs_us));

    use->memory_busy = less(less(now->memory, now->memory_free), now->jobs_memory);
    if (now->at_ms <= before->at_ms)
        return;
    uint64_t milli = others * 1000 / us;
    use->milli_busy = milli > cores * 1000ull ? cores * 1000 : (uint32_t)milli;
}
