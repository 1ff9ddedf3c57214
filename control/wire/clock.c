#include "control/wire/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

int64_t clock_boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t); /* cannot fail with a valid clock and pointer */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_boot_ms(void)
{
    return clock_boot_ns() / 1000000;
}

struct timespec clock_real(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t;
}

int64_t clock_real_ns(void)
{
    struct timespec t = clock_real();
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_ahead_ns(int64_t sent, int64_t heard, int64_t theirs)
{
    if (theirs >= sent && theirs <= heard)
        return 0;
    return theirs - sent / 2 - heard / 2;
}

int clock_boot_id(char out[37])
{
    out[0] = '\0';
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, out, 36);
    int err = n < 0 ? -errno : n == 36 ? 0 : -EIO;
    close(fd);
    out[err ? 0 : 36] = '\0';
    return err;
}

int clock_machine(char out[37])
{
    const char *name = getenv("UMBEL_MACHINE");

    if (!name || !*name)
        return clock_boot_id(out);
    return snprintf(out, 37, "%s", name) < 37 ? 0 : -ENAMETOOLONG;
}

uint64_t random_id(void)
{
    uint64_t id = 0;
    while (id == 0) {
        ssize_t n = getrandom(&id, sizeof(id), 0);
        if (n < 0 && errno == EINTR)
            id = 0;
        else if (n != (ssize_t)sizeof(id))
            abort(); /* no kernel that we run on refuses this; ids that are not random corrupt */
    }
    return id;
}
