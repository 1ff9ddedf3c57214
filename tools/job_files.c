#include "tools/job_files.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/options.h"
#include "tools/progress.h"
#include "tools/text.h"

/* Between two looks at a job: soon at first, for short ones, and not often for long ones. */
#define LOOK_MIN_MS 20
#define LOOK_MAX_MS 500
#define COPY_BYTES  (64u << 10)
#define ANSWER_MAX  512

int job_ids_parse(const char *text, struct job_ids *out)
{
    char first[24];
    const char *dash = strchr(text, '-');
    size_t n = dash ? (size_t)(dash - text) : strlen(text);
    int rc = n < sizeof(first) ? 0 : -EINVAL;

    if (rc == 0) {
        memcpy(first, text, n);
        first[n] = '\0';
        rc = text_parse_number(first, 1, UINT64_MAX, &out->first);
    }
    if (rc == 0)
        rc = text_parse_number(dash ? dash + 1 : first, out->first, UINT64_MAX, &out->last);
    if (rc < 0)
        warnx("'%s' is no job: its number is wanted, or FIRST-LAST", text);
    return rc < 0 ? -EINVAL : 0;
}

/* ---- handing in */

static int take_answer(char *answer, struct job_ids *out)
{
    answer[strcspn(answer, "\n")] = '\0';
    if (strncmp(answer, "id ", 3) == 0)
        return job_ids_parse(answer + 3, out);
    warnx("refused: %s", strncmp(answer, "error ", 6) == 0 ? answer + 6 : answer);
    return -EINVAL;
}

int job_submit(const struct ctl *c, const char *spec, size_t size, struct job_ids *out)
{
    char path[PATH_MAX + 32], answer[ANSWER_MAX];
    ssize_t n = 0;
    int rc;

    snprintf(path, sizeof(path), "%s/.umbel/jobs/new", c->mount);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        rc = -errno;
        ctl_tell(c, "jobs/new", rc);
        return rc;
    }
    rc = text_write_all(fd, spec, size);
    if (rc == 0) {
        n = read(fd, answer, sizeof(answer) - 1);
        rc = n < 0 ? -errno : 0;
    }
    close(fd); /* the answer was read: nothing is left to be said */
    if (rc < 0) {
        ctl_tell(c, "jobs/new", rc);
        return rc;
    }
    answer[n] = '\0';
    return take_answer(answer, out);
}

/* ---- looking */

int job_status(const struct ctl *c, uint64_t id, char **text)
{
    char file[64];

    snprintf(file, sizeof(file), "jobs/%" PRIu64 "/status", id);
    int rc = ctl_read(c, file, text);
    if (rc == -ENOENT)
        warnx("there is no job %" PRIu64, id);
    else if (rc == -EACCES)
        warnx("job %" PRIu64 " is somebody else's", id);
    else if (rc < 0)
        ctl_tell(c, file, rc);
    return rc;
}

static bool is_final(const char *status, bool *well)
{
    static const char *const bad[] = {"failed", "cancelled", "timeout", "lost"};
    char state[32] = "";

    (void)text_value(status, "state", state, sizeof(state));
    *well = strcmp(state, "done") == 0;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (strcmp(state, bad[i]) == 0)
            return true;
    return *well;
}

static void pause_for(unsigned *ms)
{
    const struct timespec t = {.tv_nsec = (long)*ms * 1000000};

    nanosleep(&t, NULL);
    *ms = *ms * 2 < LOOK_MAX_MS ? *ms * 2 : LOOK_MAX_MS;
}

/* 1: it has ended. */
static int has_ended(const struct ctl *c, uint64_t id, bool *well)
{
    char *status = NULL;
    int rc = job_status(c, id, &status);

    if (rc == 0)
        rc = is_final(status, well);
    free(status);
    return rc;
}

int job_wait(const struct ctl *c, const struct job_ids *ids, bool quiet, uint64_t *failed)
{
    uint64_t count = ids->last - ids->first + 1, bad = 0;
    struct progress progress;
    int rc = 1;

    progress_begin(&progress, "waiting for %" PRIu64 " job%s", count, count == 1 ? "" : "s");
    for (uint64_t id = ids->first; rc >= 0 && id - ids->first < count; id++) {
        unsigned ms = LOOK_MIN_MS;
        bool well = false;

        while ((rc = has_ended(c, id, &well)) == 0) {
            pause_for(&ms);
            if (!quiet)
                progress_tick(&progress, id - ids->first, count, NULL);
        }
        bad += rc > 0 && !well;
    }
    progress_end(&progress);
    if (failed)
        *failed = bad;
    return rc < 0 ? rc : 0;
}

int job_exit_status(const struct ctl *c, uint64_t id)
{
    char *status = NULL, state[32] = "?", value[256] = "";
    uint64_t number = 0;
    int out = EXIT_FAILED;

    if (job_status(c, id, &status) < 0)
        return EXIT_FAILED;
    (void)text_value(status, "state", state, sizeof(state));
    if (text_value(status, "exit", value, sizeof(value)) &&
        text_parse_number(value, 0, 255, &number) == 0)
        out = (int)number;
    else if (text_value(status, "signal", value, sizeof(value)) &&
             text_parse_number(value, 1, 127, &number) == 0)
        out = 128 + (int)number;
    if (out == 0 && strcmp(state, "done") != 0)
        out = EXIT_FAILED;
    if (!text_value(status, "reason", value, sizeof(value)))
        value[0] = '\0';
    if (out != 0)
        warnx("job %" PRIu64 " has ended: %s%s%s", id, state, value[0] ? ": " : "", value);
    free(status);
    return out;
}

/* ---- what it writes */

struct log {
    char file[64];
    int from, to;
};

static int log_open(const struct ctl *c, uint64_t id, const char *file, int to, struct log *out)
{
    char path[PATH_MAX + 96];

    snprintf(out->file, sizeof(out->file), "jobs/%" PRIu64 "/%s", id, file);
    snprintf(path, sizeof(path), "%s/.umbel/%s", c->mount, out->file);
    out->to = to;
    out->from = open(path, O_RDONLY | O_CLOEXEC);
    if (out->from >= 0)
        return 0;
    int rc = -errno;
    ctl_tell(c, out->file, rc);
    return rc;
}

/* What is there by now. */
static int log_copy(const struct ctl *c, struct log *l)
{
    char buffer[COPY_BYTES];
    ssize_t n;
    int rc = 0;

    while (rc == 0 && (n = read(l->from, buffer, sizeof(buffer))) != 0) {
        if (n < 0) {
            rc = -errno;
            ctl_tell(c, l->file, rc);
        } else if ((rc = text_write_all(l->to, buffer, (size_t)n)) < 0) {
            errno = -rc;
            warn("cannot write the output");
        }
    }
    return rc;
}

static int copy_until_end(const struct ctl *c, uint64_t id, struct log *logs, size_t n, bool follow)
{
    unsigned ms = LOOK_MIN_MS;
    int rc = 0, ended = 0;

    do {
        bool well;
        if (follow && (ended = has_ended(c, id, &well)) < 0)
            return ended;
        for (size_t i = 0; rc == 0 && i < n; i++) /* asked before: so it is the end */
            rc = log_copy(c, &logs[i]);
        if (rc == 0 && follow && !ended)
            pause_for(&ms);
    } while (rc == 0 && follow && !ended);
    return rc;
}

int job_logs(const struct ctl *c, uint64_t id, const char *file, int fd, bool follow)
{
    struct log l;
    int rc = log_open(c, id, file, fd, &l);

    if (rc < 0)
        return rc;
    rc = copy_until_end(c, id, &l, 1, follow);
    close(l.from);
    return rc;
}

int job_follow(const struct ctl *c, uint64_t id)
{
    struct log l[2];
    int rc = log_open(c, id, "stdout", STDOUT_FILENO, &l[0]);

    if (rc < 0)
        return rc;
    rc = log_open(c, id, "stderr", STDERR_FILENO, &l[1]);
    if (rc == 0) {
        rc = copy_until_end(c, id, l, 2, true);
        close(l[1].from);
    }
    close(l[0].from);
    return rc;
}
