#include "fs/killed.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of proc(5): these fields of stat, and the kernel's flag of what ends (PF_EXITING). */
#define STAT_STATE     3
#define STAT_FLAGS     9
#define STAT_EXIT_CODE 52
#define ENDS           0x4u

bool killed_says(const char *stat)
{
    const char *at = strrchr(stat, ')'); /* behind the name, which may hold anything */
    unsigned long flags = 0, code = 0;

    if (!at)
        return false;
    for (unsigned field = STAT_STATE - 1; *at && field <= STAT_EXIT_CODE; field++) {
        if (field == STAT_FLAGS)
            flags = strtoul(at, NULL, 10);
        else if (field == STAT_EXIT_CODE)
            code = strtoul(at, NULL, 10);
        at += strcspn(at, " ");
        at += strspn(at, " ");
    }
    /* As of wait(2): the signal. */
    return (flags & ENDS) && (code & 0x7f);
}

bool killed_is(pid_t thread)
{
    char path[48], stat[1024];

    if (thread <= 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, stat, sizeof(stat) - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return false;
    stat[n] = '\0';
    return killed_says(stat);
}

bool killed_with(pid_t thread, pid_t other)
{
    char path[64];

    if (other <= 0 || thread == other)
        return true;
    snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)thread, (int)other);
    if (access(path, F_OK) == 0)
        return true;
    snprintf(path, sizeof(path), "/proc/%d", (int)other);
    return access(path, F_OK) != 0;
}
