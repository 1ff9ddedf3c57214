/* Reading the journal back, and telling a torn tail from damage. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nodecache/journal.h"

struct segment {
    uint64_t number;
    const uint8_t *data;
    size_t size;
};

static int segment_map(int dir, struct segment *s)
{
    char name[40];
    struct stat st;
    int rc = 0;

    snprintf(name, sizeof(name), "journal.%" PRIu64, s->number);
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    s->data = NULL;
    s->size = 0;
    if (fstat(fd, &st) < 0) {
        rc = -errno;
        goto out;
    }
    if (st.st_size == 0)
        goto out;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        rc = -errno;
        goto out;
    }
    s->data = map;
    s->size = (size_t)st.st_size;
out:
    close(fd);
    return rc;
}

static void segment_unmap(struct segment *s)
{
    if (s->data)
        munmap((void *)s->data, s->size);
}

/* Is there an intact record of this segment behind `at`? *synced: the newest sequence that one of
 * them knows as synced. */
static bool records_behind(const struct segment *s, size_t at, uint64_t *synced)
{
    bool found = false;

    *synced = 0;
    at = (at + 8) & ~(size_t)7;
    while (at < s->size) {
        struct record r;
        uint64_t known;
        size_t size = record_get(s->data + at, s->size - at, s->number, &r, &known);
        if (size > 0) {
            found = true;
            if (known > *synced)
                *synced = known;
        }
        at += size > 0 ? size : 8;
    }
    return found;
}

static bool only_zeros(const struct segment *s, size_t at)
{
    while (at < s->size && s->data[at] == 0)
        at++;
    return at == s->size;
}

static int damaged(const struct segment *s, size_t at, const char *why, char *detail)
{
    snprintf(detail, NODE_DETAIL, "journal.%" PRIu64 " is damaged at byte %zu: %s", s->number, at,
             why);
    return -EBADMSG;
}

/* What to make of a bad record at `at`, which should have had sequence `seq`. */
static int judge_end(const struct segment *s, size_t at, uint64_t seq, bool is_last,
                     struct journal_replay *replay, char *detail)
{
    uint64_t synced;

    if (replay->mark.segment == s->number && at < replay->mark.offset)
        return damaged(s, at, "records that were on stable storage are gone", detail);
    if (only_zeros(s, at))
        return 0; /* space that was taken ahead */
    if (!is_last)
        return damaged(s, at, "a later segment follows", detail);
    bool behind = records_behind(s, at, &synced);
    if (behind && (!replay->machine_crashed || synced >= seq))
        return damaged(s, at, "intact records follow", detail);
    replay->torn = true;
    return 0;
}

static int replay_segment(const struct segment *s, bool is_last, struct journal_replay *replay,
                          char *detail)
{
    size_t at = 0;

    while (at < s->size) {
        struct record r;
        uint64_t synced;
        size_t size = record_get(s->data + at, s->size - at, s->number, &r, &synced);
        if (size == 0)
            break;
        if (r.seq != replay->last_seq + 1)
            return damaged(s, at, "the sequence of records has a gap", detail);
        int rc = replay->record(replay->ctx, &r);
        if (rc < 0) {
            snprintf(detail, NODE_DETAIL,
                     "journal.%" PRIu64 ", byte %zu: record cannot be used: %s", s->number, at,
                     strerror(-rc));
            return rc;
        }
        replay->last_seq = r.seq;
        at += size;
    }
    return judge_end(s, at, replay->last_seq + 1, is_last, replay, detail);
}

static bool segment_exists(int dir, uint64_t number)
{
    char name[40];

    snprintf(name, sizeof(name), "journal.%" PRIu64, number);
    return faccessat(dir, name, F_OK, 0) == 0;
}

static bool segment_is_blank(int dir, uint64_t number)
{
    struct segment s = {.number = number};

    if (segment_map(dir, &s) < 0)
        return false;
    bool blank = only_zeros(&s, 0);
    segment_unmap(&s);
    return blank;
}

/* Only blank segments follow: a start that did not get as far as its checkpoint made them, and a
 * torn tail is still one. */
static bool is_last_used(int dir, uint64_t number)
{
    do {
        number++;
        if (!segment_exists(dir, number))
            return true;
    } while (segment_is_blank(dir, number));
    return false;
}

int journal_replay(int dir, struct journal_replay *replay, char detail[NODE_DETAIL])
{
    uint64_t number = replay->first;
    int rc;

    replay->torn = false;
    for (;; number++) {
        struct segment s = {.number = number};
        rc = segment_map(dir, &s);
        if (rc < 0) {
            snprintf(detail, NODE_DETAIL, "journal.%" PRIu64 " cannot be read: %s", number,
                     strerror(-rc));
            return rc == -ENOENT ? -EBADMSG : rc;
        }
        rc = replay_segment(&s, is_last_used(dir, number), replay, detail);
        segment_unmap(&s);
        if (rc < 0)
            return rc;
        replay->last_segment = number;
        if (!segment_exists(dir, number + 1))
            break;
    }
    if (replay->mark.segment > number) {
        snprintf(detail, NODE_DETAIL, "journal.%" PRIu64 " is missing", replay->mark.segment);
        return -EBADMSG;
    }
    return 0;
}
