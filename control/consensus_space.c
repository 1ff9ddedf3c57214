/* Space on the disk under the log and the state: what is kept, and when it is given up. */
#include "control/consensus_private.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "control/wire/log.h"

/* Segments that libraft has open when it lacks nothing: one that is written, two that are prepared.
 */
#define LOG_OPEN_SEGMENTS 3
#define LOG_SEGMENT_BYTES (8ull << 20)
/* What the filesystem itself takes: so much less than is needed is not worth another step. */
#define LOG_SLACK_BYTES (1ull << 20)

/* Free beside the ballast; below it, mutations get ENOSPC before the ballast is touched. */
static uint64_t keep_of(const struct consensus *c)
{
    if (c->ballast.want == 0)
        return c->reserve;
    return c->reserve / 2 > BALLAST_STEP ? c->reserve / 2 : BALLAST_STEP;
}

static void look(struct consensus *c)
{
    struct statvfs v;

    if (statvfs(c->dir, &v) == 0)
        c->free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
}

/* libraft prepares segments ahead and tries again for ever: what do those that it lacks take? One
 * that is being written is there already. */
static uint64_t log_lacks(const struct consensus *c)
{
    char path[CONSENSUS_PATH_MAX];
    unsigned n = 0;
    struct dirent *e;

    snprintf(path, sizeof(path), "%s/log", c->dir);
    DIR *d = opendir(path);
    if (!d)
        return 0;
    while ((e = readdir(d)))
        n += strncmp(e->d_name, "open-", 5) == 0;
    closedir(d);
    return n < LOG_OPEN_SEGMENTS ? (LOG_OPEN_SEGMENTS - n) * LOG_SEGMENT_BYTES : 0;
}

bool consensus_space_give(void *arg, uint64_t bytes)
{
    struct consensus *c = arg;

    if (!ballast_release(&c->ballast, bytes))
        return false;
    log_warning("the disk under %s is full: %llu MiB of the ballast are left", c->dir,
                (unsigned long long)(c->ballast.held >> 20));
    return true;
}

int consensus_space_start(struct consensus *c, char *detail)
{
    char path[CONSENSUS_PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/ballast", c->dir);
    int rc = ballast_open(&c->ballast, path, c->reserve);
    if (rc < 0)
        snprintf(detail, 256, "%.200s: %s", path, strerror(-rc));
    return rc;
}

void consensus_space_watch(struct consensus *c)
{
    look(c);
    if (c->free_bytes < BALLAST_STEP && c->ballast.held > 0 &&
        c->free_bytes + LOG_SLACK_BYTES < log_lacks(c))
        consensus_space_give(c, BALLAST_STEP);
    else if (!ballast_whole(&c->ballast))
        ballast_fill(&c->ballast, c->free_bytes, keep_of(c));
    else
        return;
    look(c);
}

uint64_t consensus_space_lack(struct consensus *c, uint64_t bytes)
{
    uint64_t missing = ballast_whole(&c->ballast) ? 0 : c->ballast.want - c->ballast.held;
    uint64_t keep = keep_of(c);

    look(c);
    keep = keep > UINT64_MAX - missing ? UINT64_MAX : keep + missing;
    bytes = bytes > UINT64_MAX - keep ? UINT64_MAX : bytes + keep;
    return bytes > c->free_bytes ? bytes - c->free_bytes : 0;
}

int consensus_room(const struct consensus *c)
{
    return !ballast_whole(&c->ballast) || c->free_bytes < keep_of(c) ? -ENOSPC : 0;
}

uint64_t consensus_free_bytes(const struct consensus *c)
{
    return c->free_bytes;
}

uint64_t consensus_ballast_bytes(const struct consensus *c)
{
    return c->ballast.held;
}

uint64_t consensus_snapshot_lacks(const struct consensus *c)
{
    return c->copy_lacks;
}
