/* Bytes that the centre holds for itself on the disk under the log. */
#include "control/ballast.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int ballast_open(struct ballast *b, const char *path, uint64_t want)
{
    struct stat st;

    *b = (struct ballast){.fd = -1};
    if (want < BALLAST_STEP) {
        unlink(path); /* of a start with another reserve */
        return 0;
    }
    b->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (b->fd < 0)
        return -errno;
    if (fstat(b->fd, &st) != 0) {
        int rc = -errno;
        ballast_close(b);
        return rc;
    }
    b->want = want;
    /* A copy of the folder may have made it a hole. */
    uint64_t real = (uint64_t)st.st_blocks * 512;
    b->held = (uint64_t)st.st_size;
    if (b->held > real) {
        b->held = real - real % BALLAST_STEP;
        if (ftruncate(b->fd, (off_t)b->held) != 0)
            b->held = 0;
    }
    if (b->held > want)
        ballast_release(b, b->held - want);
    return 0;
}

void ballast_close(struct ballast *b)
{
    if (b->fd >= 0)
        close(b->fd);
    b->fd = -1;
}

bool ballast_whole(const struct ballast *b)
{
    return b->held >= b->want;
}

void ballast_fill(struct ballast *b, uint64_t free, uint64_t keep)
{
    if (b->fd < 0 || ballast_whole(b) || free <= keep)
        return;
    uint64_t more = b->want - b->held < free - keep ? b->want - b->held : free - keep;
    more -= b->held + more < b->want ? more % BALLAST_STEP : 0;
    if (more == 0)
        return;
    if (fallocate(b->fd, 0, (off_t)b->held, (off_t)more) == 0) {
        b->held += more;
        return;
    }
    bool never = errno == EOPNOTSUPP;
    /* A part of it may be there; it counts only when all of it is. */
    if (ftruncate(b->fd, (off_t)b->held) != 0 || never)
        b->want = 0;
}

bool ballast_release(struct ballast *b, uint64_t bytes)
{
    uint64_t steps = (bytes + BALLAST_STEP - 1) / BALLAST_STEP;
    uint64_t less = steps < b->held / BALLAST_STEP ? steps * BALLAST_STEP : b->held;

    if (b->fd < 0 || less == 0 || ftruncate(b->fd, (off_t)(b->held - less)) != 0)
        return false;
    b->held -= less;
    return true;
}
