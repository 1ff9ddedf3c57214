/* STORE/jobs on the disk. */
#include "nodecache/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define START      "start"
#define RESULT     "result"
#define RESULT_NEW "result.new"
#define WHY        "why"
#define PACKED_MAX (8u << 20) /* as a frame has it: a spec is at most 1 MiB */

void run_key_name(const struct run_key *k, char out[RUN_NAME_MAX])
{
    snprintf(out, RUN_NAME_MAX, "%" PRIu64 ".%" PRIu32 ".%" PRIu32, k->job, k->copy, k->attempt);
}

int run_key_parse(const char *name, struct run_key *out)
{
    char again[RUN_NAME_MAX];

    if (strlen(name) >= RUN_NAME_MAX ||
        sscanf(name, "%" SCNu64 ".%" SCNu32 ".%" SCNu32, &out->job, &out->copy, &out->attempt) != 3)
        return -EINVAL;
    run_key_name(out, again);
    return strcmp(again, name) == 0 ? 0 : -EINVAL;
}

int run_folder_open(const char *store)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/jobs", store) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

_Atomic uint64_t *run_lease_map(int jobs, bool writable)
{
    _Atomic uint64_t *lease = MAP_FAILED;
    int fd = openat(jobs, "lease", (writable ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0600);

    if (fd < 0)
        return NULL;
    if (!writable || ftruncate(fd, sizeof(*lease)) == 0)
        lease = mmap(NULL, sizeof(*lease), writable ? PROT_READ | PROT_WRITE : PROT_READ,
                     MAP_SHARED, fd, 0);
    int err = errno;
    close(fd);
    errno = err;
    return lease == MAP_FAILED ? NULL : lease;
}

static int write_file(int dir, const char *name, const void *data, size_t size)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc = 0;

    if (fd < 0)
        return -errno;
    for (size_t done = 0; rc == 0 && done < size;) {
        ssize_t n = write(fd, (const char *)data + done, size - done);
        if (n < 0 && errno != EINTR)
            rc = -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    return rc;
}

static int write_packed(int dir, const char *name, const ProtobufCMessage *m)
{
    size_t size = protobuf_c_message_get_packed_size(m);
    uint8_t *data = malloc(size + 1);

    if (!data)
        return -ENOMEM;
    protobuf_c_message_pack(m, data);
    int rc = write_file(dir, name, data, size);
    free(data);
    return rc;
}

static int read_packed(int fd, const ProtobufCMessageDescriptor *type, ProtobufCMessage **out)
{
    uint8_t *data = NULL;
    struct stat st;
    size_t got = 0;
    int rc = fstat(fd, &st) < 0 ? -errno : 0;

    if (rc == 0 && st.st_size > (off_t)PACKED_MAX)
        rc = -EBADMSG;
    if (rc == 0 && !(data = malloc((size_t)st.st_size + 1)))
        rc = -ENOMEM;
    while (rc == 0 && got < (size_t)st.st_size) {
        ssize_t n = pread(fd, data + got, (size_t)st.st_size - got, (off_t)got);
        if (n <= 0)
            rc = n < 0 ? -errno : -EBADMSG;
        else
            got += (size_t)n;
    }
    if (rc == 0 && !(*out = protobuf_c_message_unpack(type, NULL, got, data)))
        rc = -EBADMSG;
    free(data);
    return rc;
}

int run_folder_make(int jobs, const char *name, const Star__JobStart *start)
{
    if (mkdirat(jobs, name, 0700) < 0)
        return -errno;
    int dir = openat(jobs, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = dir < 0 ? -errno : write_packed(dir, START, &start->base);
    if (dir >= 0)
        close(dir);
    if (rc < 0)
        (void)run_folder_remove(jobs, name);
    return rc;
}

/* No second descriptor of it in a supervisor: closing any would give up the lock. */
int run_folder_start(int dir, Star__JobStart **out)
{
    ProtobufCMessage *m = NULL;
    int fd = openat(dir, START, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    int rc = read_packed(fd, &star__job_start__descriptor, &m);
    close(fd);
    *out = (Star__JobStart *)m;
    if (rc == 0 && (!(*out)->run || !(*out)->cred)) {
        protobuf_c_message_free_unpacked(m, NULL);
        *out = NULL;
        rc = -EBADMSG;
    }
    return rc;
}

int run_folder_result(int jobs, const char *name, Star__JobRunReport **out)
{
    char path[RUN_NAME_MAX + sizeof("/" RESULT)];
    ProtobufCMessage *m = NULL;

    snprintf(path, sizeof(path), "%s/" RESULT, name);
    int fd = openat(jobs, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = read_packed(fd, &star__job_run_report__descriptor, &m);
    close(fd);
    *out = (Star__JobRunReport *)m;
    return rc;
}

int run_folder_set_result(int dir, const Star__JobRunReport *result)
{
    int rc = write_packed(dir, RESULT_NEW, &result->base);

    if (rc == 0 && renameat(dir, RESULT_NEW, dir, RESULT) < 0)
        rc = -errno;
    return rc;
}

int run_folder_set_why(int jobs, const char *name, const char *why)
{
    int dir = openat(jobs, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return -errno;
    int rc = write_file(dir, WHY, why, strlen(why));
    close(dir);
    return rc;
}

void run_folder_why(int dir, char *out, size_t size)
{
    int fd = openat(dir, WHY, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);

    out[n < 0 ? 0 : n] = 0;
    if (fd >= 0)
        close(fd);
}

int run_folder_remove(int jobs, const char *name)
{
    static const char *const files[] = {RESULT_NEW, WHY, START, RESULT};
    int dir = openat(jobs, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

    if (dir < 0)
        return errno == ENOENT ? 0 : -errno;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (unlinkat(dir, files[i], 0) < 0 && errno != ENOENT)
            rc = -errno;
    close(dir);
    if (rc == 0 && unlinkat(jobs, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        rc = -errno;
    return rc;
}

/* ---- the lock */

static int set_lock(int fd)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_SETLK, &l) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

int run_folder_hold(int dir)
{
    struct stat st;
    int fd = openat(dir, START, O_RDWR | O_CLOEXEC), rc;

    if (fd < 0)
        return errno == ENOENT ? -ESTALE : -errno;
    rc = set_lock(fd);
    if (rc == 0 && fstat(fd, &st) < 0)
        rc = -errno;
    if (rc == 0 && st.st_nlink == 0)
        rc = -ESTALE;
    if (rc < 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

pid_t run_folder_holder(int jobs, const char *name)
{
    char path[RUN_NAME_MAX + sizeof("/" START)];
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    snprintf(path, sizeof(path), "%s/" START, name);
    int fd = openat(jobs, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (fcntl(fd, F_GETLK, &l) < 0)
        l.l_type = F_UNLCK;
    close(fd);
    return l.l_type == F_UNLCK ? 0 : l.l_pid;
}

int run_folder_give_up(int jobs, const char *name)
{
    char path[RUN_NAME_MAX + sizeof("/" START)];

    snprintf(path, sizeof(path), "%s/" START, name);
    int fd = openat(jobs, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int rc = set_lock(fd);
    if (rc == 0 && unlinkat(jobs, path, 0) < 0)
        rc = -errno;
    close(fd);
    return rc;
}
